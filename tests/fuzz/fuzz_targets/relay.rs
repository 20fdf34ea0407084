#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| oss_fuzz::relay(data));
