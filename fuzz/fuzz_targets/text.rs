//! The text parsers of every level, of rules and of pipelines on any bytes.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| brolga_tests::fuzz::text(bytes));
