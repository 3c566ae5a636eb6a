//! Reads ONNX models and safetensors weights into Brolga's tensor IR.
