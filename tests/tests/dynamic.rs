//! Models whose sizes, branches and iterations data tell, each compiled once and run for several inputs, against ONNX Runtime's results.

#[test]
fn results_are_onnx_runtimes() {
    brolga_tests::reference_cases::hold("dynamic", 50);
}
