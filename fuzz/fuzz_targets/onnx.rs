//! The ONNX importer on any bytes, most of them models with changes.
#![no_main]

mod changes;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| brolga_tests::fuzz::import(bytes));
