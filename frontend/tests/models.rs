//! The small networks of real architectures against their references (by the tensor IR's interpreter), and the light
//! models, whose weights are splats, as far as import.

use brolga_frontend::onnx::{self, Options};
use brolga_ir::{DType, Number, Tensor};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

/// Unpacks an archive of `tests/data` once.
fn unpack(archive: &str, cell: &'static OnceLock<tempfile::TempDir>) -> PathBuf {
    let dir = cell.get_or_init(|| {
        let path = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("../tests/data")
            .join(archive);
        let file = std::fs::File::open(path).unwrap();
        let dir = tempfile::tempdir().unwrap();
        tar::Archive::new(zstd::Decoder::new(file).unwrap())
            .unpack(dir.path())
            .unwrap();
        dir
    });
    dir.path().to_path_buf()
}

/// The arrays of an npz file.
fn arrays(path: &Path) -> Vec<(String, Tensor)> {
    let mut npz = npyz::npz::NpzArchive::open(path).unwrap();
    let names: Vec<String> = npz.array_names().map(str::to_string).collect();
    names
        .into_iter()
        .map(|n| (n.clone(), array(npz.by_name(&n).unwrap().unwrap())))
        .collect()
}

fn array<R: std::io::Read>(npy: npyz::NpyFile<R>) -> Tensor {
    let shape: Vec<usize> = npy.shape().iter().map(|&d| d as usize).collect();
    let npyz::DType::Plain(kind) = npy.dtype() else {
        panic!("a structured array")
    };
    match kind.to_string().trim_matches(['\'', '"']) {
        "<f4" => {
            let v: Vec<f32> = npy.into_vec().unwrap();
            Tensor::from_f32(&shape, &v)
        }
        "<i8" => {
            let v: Vec<i64> = npy.into_vec().unwrap();
            Tensor::from_i64(&shape, &v)
        }
        "|b1" => {
            let v: Vec<bool> = npy.into_vec().unwrap();
            Tensor::from_fn(DType::Bool, &shape, |i| Number::from(v[i]))
        }
        k => panic!("an array of {k}"),
    }
}

fn check(name: &str) {
    static DIR: OnceLock<tempfile::TempDir> = OnceLock::new();
    let dir = unpack("small-models.tar.zst", &DIR);
    let graph = onnx::load(dir.join(format!("{name}.onnx")), &Options::default()).unwrap();
    graph.verify().unwrap();
    let given = arrays(&dir.join(format!("{name}.in.npz")));
    let want = arrays(&dir.join(format!("{name}.ref.npz")));
    let find = |list: &[(String, Tensor)], n: &str| {
        list.iter()
            .find(|a| a.0 == n)
            .unwrap_or_else(|| panic!("{n}"))
            .1
            .clone()
    };
    let inputs: Vec<Tensor> = graph.inputs.iter().map(|i| find(&given, &i.name)).collect();
    let outputs = graph.eval(&inputs).unwrap();
    assert_eq!(outputs.len(), want.len());
    for ((n, _), got) in graph.outputs.iter().zip(&outputs) {
        let want = find(&want, n);
        assert_eq!((got.dtype(), got.shape()), (want.dtype(), want.shape()), "{name}: {n}");
        let (g, w) = (got.to_f64s(), want.to_f64s());
        let largest = w.iter().fold(0.0, |m: f64, x| m.max(x.abs()));
        let error = g.iter().zip(&w).fold(0.0, |m: f64, (a, b)| m.max((a - b).abs()));
        assert!(
            error <= 1e-4 * largest && g.iter().all(|x| x.is_finite()),
            "{name}: {n}: {error} of {largest}"
        );
    }
}

macro_rules! small {
    ($($name:ident)*) => {$(
        #[test]
        fn $name() {
            check(stringify!($name));
        }
    )*};
}
small!(mlp resnet mobilenet efficientnet densenet inception unet convnext vit swin bert bert_dyn gpt2 llama whisper t5
       tcn detector generator video moe);

#[test]
fn symbols_of_bert_dyn_are_batch_and_seq() {
    static DIR: OnceLock<tempfile::TempDir> = OnceLock::new();
    let dir = unpack("small-models.tar.zst", &DIR);
    let graph = onnx::load(dir.join("bert_dyn.onnx"), &Options::default()).unwrap();
    let symbols: Vec<&str> = graph.symbols.iter().map(|s| &**s).collect();
    assert_eq!(symbols, ["batch", "seq"]);
    let out = &graph.ty(graph.outputs[0].1).shape;
    assert_eq!(format!("{out:?}"), "[batch, seq, 48]");
}

#[test]
fn light_models_import_without_making_their_weights() {
    static DIR: OnceLock<tempfile::TempDir> = OnceLock::new();
    let dir = unpack("onnx-light.tar.zst", &DIR).join("light");
    let mut cases = 0;
    for case in std::fs::read_dir(dir).unwrap() {
        let path = case.unwrap().path();
        let graph = onnx::load(path.join("model.onnx"), &Options::default()).unwrap();
        graph.verify().unwrap();
        let dense = graph
            .constants
            .iter()
            .filter(|c| matches!(c.data, brolga_ir::ConstData::Dense(_)));
        let bytes: usize = dense.map(|c| c.to_tensor().bytes().len()).sum();
        assert!(
            bytes < 1 << 20,
            "{}: {bytes} bytes of weights in memory",
            path.display()
        );
        cases += 1;
    }
    assert_eq!(cases, 9);
}
