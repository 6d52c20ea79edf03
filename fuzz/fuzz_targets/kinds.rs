#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| leasehold_tests::fuzz::run("kinds", bytes));
