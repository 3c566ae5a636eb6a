//! The ONNX importer on any bytes.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| brolga_tests::fuzz::import(bytes));
