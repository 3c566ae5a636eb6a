//! Reads models into Brolga's tensor IR: ONNX files, folders of safetensors weights with their `config.json`, and GGUF files. Invariants:
//! nothing here optimises (constants are folded only where a shape needs them); whatever a file says is checked before it is
//! used, so bad input is an error and never a panic; weights stay in the mapped file.

pub mod gguf;
pub mod mapped;
pub mod onnx;
pub mod safetensors;
