//! Operators of the domain `com.microsoft` against ONNX Runtime's results.

#[test]
fn results_are_onnx_runtimes() {
    brolga_tests::reference_cases::hold("microsoft", 100);
}
