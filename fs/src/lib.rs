//! Opens layers, schedules fetches, and serves image trees through FUSE
