#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| snap_fuzz::documents(input));
