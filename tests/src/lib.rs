//! What Brolga's tests share: the test data, and comparisons with reference files.
//!
//! The data are archives in `tests/data` (see the README there); they are unpacked once, below the target folder.
//! [`fuzz`] is what fuzzing calls, [`mutate`] how it changes inputs; [`onnx_case`] reads ONNX's backend cases; [`aot`] links compiled
//! models with a C program and runs it, [`linked`] links many into a library; [`browser`] opens pages.

pub mod aot;
pub mod browser;
pub mod every_level;
pub mod fuzz;
pub mod linked;
pub mod mutate;
pub mod onnx_case;
pub mod optimum;
pub mod random;
pub mod reference_cases;

use brolga::{Session, npy, tensors};
use brolga_ir::ops::Accuracy;
use brolga_ir::{DType, Graph, Number, Target, Tensor};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

/// The archives of `tests/data`.
const ARCHIVES: [&str; 9] = [
    "classical-models",
    "dynamic",
    "families",
    "small-models",
    "microsoft",
    "onnx-light",
    "onnx-node",
    "onnx-pytorch",
    "reported-cases",
];

/// Says why a test is left out; under `CI` that is a failure.
///
/// # Panics
/// When the environment variable `CI` is set.
pub fn skip(reason: &str) {
    assert!(std::env::var_os("CI").is_none(), "a test is skipped under CI: {reason}");
    eprintln!("skipped: {reason}");
}

/// Whether golden files are to be rewritten instead of compared: the environment variable `BLESS` is set.
pub fn blessing() -> bool {
    std::env::var_os("BLESS").is_some()
}

/// The CPU levels that this machine runs.
pub fn targets() -> Vec<Target> {
    let all = Target::CPUS.into_iter();
    all.filter(brolga_codegen::target::runs_here).collect()
}

/// Runs a session on inputs by name; gives its outputs by name, in the model's order.
///
/// # Errors
/// What the session reports.
pub fn run(session: &Session, inputs: &BTreeMap<String, Tensor>) -> brolga::Result<Vec<(String, Tensor)>> {
    let views: Vec<_> = inputs.iter().map(|(n, t)| (n.as_str(), tensors::view(t))).collect();
    let outputs = session.run_named(&views)?;
    let names = session.outputs().iter().map(|o| o.name.clone());
    Ok(names.zip(outputs.iter().map(tensors::to_tensor)).collect())
}

/// The repository's root.
pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("the tests are a member crate of the workspace")
}

/// The folder of an unpacked archive of `tests/data`, named without `.tar.zst`.
///
/// # Panics
/// When the archive cannot be read or unpacked: tests cannot go on without their data.
pub fn data(archive: &str) -> PathBuf {
    assert!(ARCHIVES.contains(&archive), "there is no archive `{archive}`");
    let file = root().join("tests/data").join(format!("{archive}.tar.zst"));
    let bytes = std::fs::read(&file).unwrap_or_else(|e| panic!("{}: {e}", file.display()));
    // Named by content, so that a changed archive is unpacked again; renamed when whole, so that tests of several
    // processes may do it at once.
    let hash = bytes.iter().fold(0xcbf2_9ce4_8422_2325u64, |h, &b| {
        (h ^ b as u64).wrapping_mul(0x100_0000_01b3)
    });
    let home = root().join("target/test-data");
    let dir = home.join(format!("{archive}-{hash:016x}"));
    if !dir.exists() {
        std::fs::create_dir_all(&home).expect("the target folder can be written");
        let fresh = tempfile::tempdir_in(&home).expect("the target folder can be written");
        let tar = zstd::Decoder::new(&bytes[..]).expect("the archive is zstd");
        tar::Archive::new(tar).unpack(fresh.path()).expect("the archive is tar");
        let fresh = fresh.keep();
        if std::fs::rename(&fresh, &dir).is_err() {
            // Somebody else was first.
            assert!(dir.exists(), "{} cannot be made", dir.display());
            std::fs::remove_dir_all(&fresh).expect("our own folder can be removed");
        }
    }
    dir
}

/// The small networks that a session of this version must run, in the order of the data's description.
pub const SMALL_MODELS: [&str; 21] = [
    "mlp",
    "resnet",
    "mobilenet",
    "efficientnet",
    "densenet",
    "inception",
    "unet",
    "convnext",
    "vit",
    "swin",
    "bert",
    "bert_dyn",
    "gpt2",
    "llama",
    "whisper",
    "t5",
    "tcn",
    "detector",
    "generator",
    "video",
    "moe",
];

/// A small network: its file, inputs and reference outputs by name.
pub struct SmallModel {
    /// The ONNX file.
    pub path: PathBuf,
    /// Inputs.
    pub inputs: BTreeMap<String, Tensor>,
    /// Reference outputs, from ONNX Runtime with optimisation off.
    pub outputs: BTreeMap<String, Tensor>,
}

/// A small network of the data.
///
/// # Panics
/// When its files cannot be read.
pub fn small_model(name: &str) -> SmallModel {
    let dir = data("small-models");
    SmallModel {
        path: dir.join(format!("{name}.onnx")),
        inputs: npz(&dir.join(format!("{name}.in.npz"))),
        outputs: npz(&dir.join(format!("{name}.ref.npz"))),
    }
}

/// The arrays of an `.npz` file.
///
/// # Panics
/// When it cannot be read, or holds a dtype that the IR lacks.
pub fn npz(path: &Path) -> BTreeMap<String, Tensor> {
    let arrays = npy::read_npz(path).unwrap_or_else(|e| panic!("{e}"));
    arrays.into_iter().collect()
}

/// The conformance cases' tolerances: `[rtol, atol]` by `FOLDER/CASE`, as numpy's `assert_allclose` applies them.
pub static TOLERANCES: LazyLock<BTreeMap<String, (f64, f64)>> = LazyLock::new(|| {
    let text = std::fs::read_to_string(data("onnx-node").join("tolerances.json")).expect("the archive holds them");
    let all: BTreeMap<String, (f64, f64)> = serde_json::from_str(&text).expect("pairs by name");
    all
});

/// Why two tensors differ by more than `atol + rtol * |expected|`, or `None` when they do not. Equal infinities are equal,
/// and NaN equals NaN.
pub fn mismatch(found: &Tensor, expected: &Tensor, rtol: f64, atol: f64) -> Option<String> {
    if found.dtype() != expected.dtype() || found.shape() != expected.shape() {
        return Some(format!("{found:?}, expected {expected:?}"));
    }
    let worst = found
        .iter()
        .zip(expected.iter())
        .enumerate()
        .find(|(_, (f, e))| match (f.f64(), e.f64()) {
            // Integers are exact, and a tolerance is for floats.
            _ if !found.dtype().is_real() => f != e,
            (f, e) if f == e || (f.is_nan() && e.is_nan()) => false,
            (f, e) => (f - e).is_nan() || (f - e).abs() > atol + rtol * e.abs(),
        });
    worst.map(|(i, (f, e))| format!("element {i} is {f}, expected {e} (of {found:?})"))
}

/// Why two tensors are not equal bit for bit, but for the bits of NaN; `None` when they are.
pub fn unequal(found: &Tensor, expected: &Tensor) -> Option<String> {
    if found.dtype() != expected.dtype() || found.shape() != expected.shape() {
        return Some(format!("{found:?}, expected {expected:?}"));
    }
    let same = |f: Number, e: Number| {
        let (x, y) = (f.f64(), e.f64());
        x.is_nan() && y.is_nan() || f == e && x.is_sign_negative() == y.is_sign_negative()
    };
    let mut all = found.iter().zip(expected.iter()).enumerate();
    let (i, (f, e)) = all.find(|(_, (f, e))| !same(*f, *e))?;
    Some(format!("element {i} is {f:?}, expected {e:?}"))
}

/// The largest difference of two tensors of one type, in units in the last place of the expected value, which are 1 for
/// whole numbers; infinite where only one of both is finite, or NaN.
pub fn ulps(found: &Tensor, expected: &Tensor) -> f64 {
    let (digits, least) = match expected.dtype() {
        DType::F64 => (52, -1022),
        DType::F32 => (23, -126),
        DType::F16 => (10, -14),
        DType::BF16 => (7, -126),
        _ => (0, 0),
    };
    let unit = |e: f64| {
        let exponent = ((e.abs().to_bits() >> 52) as i32 - 1023).max(least);
        f64::from(exponent - digits).exp2()
    };
    let one = |(f, e): (Number, Number)| match (f.f64(), e.f64()) {
        _ if !expected.dtype().is_float() => (f.f64() - e.f64()).abs(),
        (f, e) if f == e || (f.is_nan() && e.is_nan()) => 0.0,
        (f, e) if f.is_finite() && e.is_finite() => (f - e).abs() / unit(e),
        _ => f64::INFINITY,
    };
    found.iter().zip(expected.iter()).map(one).fold(0.0, f64::max)
}

/// For every output of a graph, whether all operators that it comes from are exact: then every way to compute it gives the
/// same bits.
pub fn exact_outputs(g: &Graph) -> Vec<bool> {
    let mut exact = vec![true; g.values.len()];
    for node in &g.nodes {
        // Of reductions, those that round nothing: of whole numbers, and choices.
        let whole = node.inputs.iter().all(|v| !g.ty(*v).dtype.is_float());
        let chooses = ["reduce", "pool"].contains(&node.op.name()) && ["max", "min"].contains(&node.op.word("kind"));
        let rounds = node.op.def().accuracy() != Accuracy::Exact && !whole && !chooses;
        let all = !rounds && node.inputs.iter().all(|v| exact[v.0 as usize]);
        node.outputs.iter().for_each(|o| exact[o.0 as usize] = all);
    }
    g.outputs.iter().map(|(_, v)| exact[v.0 as usize]).collect()
}

/// The largest difference over the largest magnitude of the expected values (finite ones); infinite where only one of
/// both is finite.
pub fn relative_error(found: &Tensor, expected: &Tensor) -> f64 {
    if found.dtype() != expected.dtype() || found.shape() != expected.shape() {
        return f64::INFINITY;
    }
    let scale = expected
        .iter()
        .map(|x| x.f64().abs())
        .filter(|x| x.is_finite())
        .fold(f64::MIN_POSITIVE, f64::max);
    let one = |(f, e): (Number, Number)| match (f.f64(), e.f64()) {
        (f, e) if f == e || (f.is_nan() && e.is_nan()) => 0.0,
        (f, e) if f.is_finite() && e.is_finite() => (f - e).abs() / scale,
        _ => f64::INFINITY,
    };
    found.iter().zip(expected.iter()).map(one).fold(0.0, f64::max)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn differences_count_in_units_of_the_expected_value() {
        let tensor = |dtype, x: &[f64]| Tensor::from_fn(dtype, &[x.len()], |i| Number::Float(x[i]));
        let of =
            |dtype, found: f64, expected: f64| ulps(&tensor(dtype, &[1.0, found]), &tensor(dtype, &[1.0, expected]));
        assert_eq!(of(DType::F32, 3.0, 3.0), 0.0);
        assert_eq!(of(DType::F16, 1.0 + 1.0 / 512.0, 1.0), 2.0);
        // Half a unit of the larger value is a whole one of the smaller.
        assert_eq!(of(DType::BF16, 1.0 - 1.0 / 256.0, 1.0), 0.5);
        assert_eq!(of(DType::BF16, 1.0, 1.0 - 1.0 / 256.0), 1.0);
        // Below the least exponent units stay.
        assert_eq!(of(DType::F16, 3.0 * 2f64.powi(-24), 0.0), 3.0);
        assert_eq!(of(DType::F32, 1e30, f64::INFINITY), f64::INFINITY);
        assert_eq!(of(DType::F32, f64::NAN, 1.0), f64::INFINITY);
        assert_eq!(of(DType::F32, f64::NAN, f64::NAN), 0.0);
        let whole = |x: i64| Tensor::from_i64(&[1], &[x]);
        assert_eq!(ulps(&whole(7), &whole(-2)), 9.0);
    }
}
