//! Models with changes: machine code beside the interpreter.
#![no_main]

mod changes;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| brolga_tests::fuzz::model(bytes));
