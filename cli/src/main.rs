//! Starts containers without waiting for their images
fn main() {}
