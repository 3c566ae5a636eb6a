//! The worker that a comparison of runtimes drives: tab-separated lines on standard input, one line of JSON each on
//! standard output.
//!
//! | line | answer |
//! | --- | --- |
//! | `load MODEL.onnx INPUTS.safetensors THREADS` | `load_s`: seconds from file to ready; `base_mb`: resident memory before |
//! | `run N` | `ms`: N latencies, inputs in memory to outputs in memory |
//! | `out FILE.safetensors` | runs once and writes the outputs as `out_0`, `out_1`, … |
//! | `rss` | `peak_mb`, `rss_mb` |
//! | `quit` | – |

use brolga::{Buffer, DType, Session, View};
use safetensors::tensor::{Dtype, SafeTensors, TensorView};
use std::collections::BTreeMap;
use std::io::{BufRead, Write};
use std::time::Instant;

type Fallible<T> = Result<T, Box<dyn std::error::Error>>;

struct Worker {
    base_mb: f64,
    loaded: Option<(Session, Vec<Buffer>)>,
}

fn main() -> std::io::Result<()> {
    let mut worker = Worker {
        base_mb: status_mb("VmRSS:"),
        loaded: None,
    };
    for line in std::io::stdin().lock().lines() {
        let line = line?;
        let words: Vec<&str> = line.split('\t').collect();
        if words[0] == "quit" {
            break;
        }
        let answer = match worker.answer(&words) {
            Ok(mut a) => {
                a["ok"] = true.into();
                a
            }
            Err(e) => serde_json::json!({ "ok": false, "error": e.to_string() }),
        };
        let mut out = std::io::stdout().lock();
        writeln!(out, "{answer}")?;
        out.flush()?;
    }
    Ok(())
}

impl Worker {
    fn answer(&mut self, words: &[&str]) -> Fallible<serde_json::Value> {
        match *words {
            ["load", model, inputs, threads] => {
                let feeds = std::fs::read(inputs)?;
                let feeds = SafeTensors::deserialize(&feeds)?;
                let threads = threads.parse()?;
                let start = Instant::now();
                let session = Session::options().threads(threads).load(model)?;
                let load_s = start.elapsed().as_secs_f64();
                let feed = |i: &brolga::abi::Input| -> Fallible<Buffer> {
                    let t = feeds.tensor(&i.name)?;
                    let dtype = dtype(t.dtype()).ok_or_else(|| format!("`{}` is {:?}", i.name, t.dtype()))?;
                    let mut b = Buffer::zeroed(dtype, t.shape().to_vec())?;
                    b.bytes_mut().copy_from_slice(t.data());
                    Ok(b)
                };
                let inputs = session.inputs().iter().map(feed).collect::<Fallible<Vec<_>>>()?;
                self.loaded = Some((session, inputs));
                Ok(serde_json::json!({ "load_s": load_s, "base_mb": self.base_mb }))
            }
            ["run", n] => {
                let mut ms = vec![];
                for _ in 0..n.parse::<usize>()? {
                    let start = Instant::now();
                    self.run()?;
                    ms.push(start.elapsed().as_secs_f64() * 1e3);
                }
                Ok(serde_json::json!({ "ms": ms }))
            }
            ["out", file] => {
                let outputs = self.run()?;
                let names = (0..outputs.len()).map(|i| format!("out_{i}"));
                let view = |b: &Buffer| -> Fallible<Vec<u8>> { Ok(b.bytes().to_vec()) };
                let bytes = outputs.iter().map(view).collect::<Fallible<Vec<_>>>()?;
                let mut tensors = BTreeMap::new();
                for ((name, b), bytes) in names.zip(&outputs).zip(&bytes) {
                    let dtype = safetensors_dtype(b.dtype());
                    tensors.insert(name, TensorView::new(dtype, b.shape().to_vec(), bytes)?);
                }
                safetensors::serialize_to_file(&tensors, None, std::path::Path::new(file))?;
                Ok(serde_json::json!({}))
            }
            ["rss"] => Ok(serde_json::json!({ "peak_mb": status_mb("VmHWM:"), "rss_mb": status_mb("VmRSS:") })),
            _ => Err(format!("`{}` is no line of the protocol", words.join(" ")).into()),
        }
    }

    fn run(&self) -> Fallible<Vec<Buffer>> {
        let (session, inputs) = self.loaded.as_ref().ok_or("nothing is loaded")?;
        let views: Vec<View> = inputs.iter().map(Buffer::view).collect();
        Ok(session.run(&views)?)
    }
}

/// A value of this process's status in megabytes; 0 where the system has no such file.
fn status_mb(key: &str) -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|l| l.strip_prefix(key));
    let kb: Option<f64> = line.and_then(|l| l.split_whitespace().next()?.parse().ok());
    kb.unwrap_or(0.0) / 1024.0
}

const DTYPES: [(Dtype, DType); 13] = [
    (Dtype::F64, DType::F64),
    (Dtype::F32, DType::F32),
    (Dtype::F16, DType::F16),
    (Dtype::BF16, DType::Bf16),
    (Dtype::I64, DType::I64),
    (Dtype::I32, DType::I32),
    (Dtype::I16, DType::I16),
    (Dtype::I8, DType::I8),
    (Dtype::U64, DType::U64),
    (Dtype::U32, DType::U32),
    (Dtype::U16, DType::U16),
    (Dtype::U8, DType::U8),
    (Dtype::BOOL, DType::Bool),
];

fn dtype(d: Dtype) -> Option<DType> {
    DTYPES.iter().find(|(s, _)| *s == d).map(|(_, b)| *b)
}

fn safetensors_dtype(d: DType) -> Dtype {
    DTYPES.iter().find(|(_, b)| *b == d).map_or(Dtype::U8, |(s, _)| *s)
}
