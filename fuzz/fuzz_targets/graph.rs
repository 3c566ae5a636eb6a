//! Random valid graphs: machine code beside the interpreter.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| brolga_tests::fuzz::graph(bytes));
