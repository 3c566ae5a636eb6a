//! Models with inputs and the results that others give for them: the reference evaluation, and code with one thread and two, with
//! rules and without.
//!
//! ```text
//! FOLDER/CASE/model.onnx   case.json {"tol", "steps"}, or {"error"}   in.npz, ref.npz, or for several sets in_0.npz, ref_0.npz, …
//! ```

use crate::{data, mismatch, run, ulps};
use brolga::ir::Tensor;
use brolga::{Options, npy};
use brolga_frontend::onnx;
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Cases tried at once.
const WORKERS: usize = 2;

/// Checks all cases of a folder of an archive of the same name.
///
/// # Panics
/// When there are fewer than so many, or one does not hold.
pub fn hold(folder: &str, least: usize) {
    let home = data(folder).join(folder);
    let entries = std::fs::read_dir(&home).expect("it was unpacked").flatten();
    let folders = entries.filter(|e| e.path().is_dir());
    let mut cases: Vec<String> = folders.map(|e| e.file_name().to_string_lossy().into_owned()).collect();
    cases.sort();
    assert!(cases.len() >= least, "{} cases", cases.len());
    let next = AtomicUsize::new(0);
    let wrong: Mutex<BTreeMap<&str, String>> = Mutex::default();
    std::thread::scope(|s| {
        for _ in 0..WORKERS {
            s.spawn(|| {
                while let Some(name) = cases.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let tried = catch_unwind(AssertUnwindSafe(|| check(&home.join(name))));
                    if let Err(e) = tried.unwrap_or_else(|_| Err("panics".into())) {
                        wrong.lock().expect("no worker panics").insert(name, e);
                    }
                }
            });
        }
    });
    let wrong = wrong.into_inner().expect("no worker panics");
    let lines: Vec<String> = wrong.iter().map(|(name, e)| format!("{name}: {e}")).collect();
    assert!(lines.is_empty(), "{}", lines.join("\n"));
}

/// What a case allows.
struct Tolerance {
    /// Over the largest magnitude of an output, of floats.
    relative: f64,
    /// Of whole numbers.
    steps: f64,
}

fn check(dir: &Path) -> Result<(), String> {
    let text = std::fs::read_to_string(dir.join("case.json")).map_err(|e| e.to_string())?;
    let json: serde_json::Value = serde_json::from_str(&text).map_err(|e| e.to_string())?;
    let model = dir.join("model.onnx");
    let graph = onnx::load(&model, &onnx::Options::default());
    if let Some(needle) = json["error"].as_str() {
        return match graph {
            Err(e) if e.to_string().contains(needle) => Ok(()),
            Err(e) => Err(format!("the error does not say `{needle}`: {e}")),
            Ok(_) => Err("it is not refused".into()),
        };
    }
    let graph = graph.map_err(|e| e.to_string())?;
    let allowed = Tolerance {
        relative: json["tol"].as_f64().expect("a number"),
        steps: json["steps"].as_f64().expect("a number"),
    };
    let sets = sets(dir)?;
    let names = || graph.outputs.iter().map(|(n, _)| n.clone());
    for (inputs, wanted) in &sets {
        let args: Vec<Tensor> = graph.inputs.iter().map(|i| inputs[&i.name].clone()).collect();
        let found = graph.eval(&args).map_err(|e| format!("reference evaluation: {e}"))?;
        judge(
            "reference evaluation",
            wanted,
            &names().zip(found).collect::<Vec<_>>(),
            &allowed,
        )?;
    }
    for rules in [None, Some("none")] {
        let options = Options {
            rules: rules.map(|r| r.parse().expect("these rules are embedded")),
            ..Options::default()
        };
        for threads in [1, 2] {
            let way = format!("rules {rules:?}, {threads} threads");
            let session = brolga::compile(&graph, &options).and_then(|c| c.session_with(threads, u64::MAX));
            let session = session.map_err(|e| format!("{way}: {e}"))?;
            for (k, (inputs, wanted)) in sets.iter().enumerate() {
                let way = format!("{way}, set {k}");
                let found = run(&session, inputs).map_err(|e| format!("{way}: {e}"))?;
                judge(&way, wanted, &found, &allowed)?;
            }
        }
    }
    Ok(())
}

/// Tensors by name.
type Named = BTreeMap<String, Tensor>;

/// The inputs and results of all sets.
fn sets(dir: &Path) -> Result<Vec<(Named, Named)>, String> {
    let read = |name: &str| -> Result<Named, String> {
        let all = npy::read_npz(&dir.join(name)).map_err(|e| e.to_string())?;
        Ok(all.into_iter().collect())
    };
    if dir.join("in.npz").exists() {
        return Ok(vec![(read("in.npz")?, read("ref.npz")?)]);
    }
    let there = |k: &usize| dir.join(format!("in_{k}.npz")).exists();
    let sets: Result<Vec<_>, String> = (0..)
        .take_while(there)
        .map(|k| Ok((read(&format!("in_{k}.npz"))?, read(&format!("ref_{k}.npz"))?)))
        .collect();
    sets.and_then(|s| if s.is_empty() { Err("no inputs".into()) } else { Ok(s) })
}

fn judge(
    way: &str,
    wanted: &BTreeMap<String, Tensor>,
    found: &[(String, Tensor)],
    allowed: &Tolerance,
) -> Result<(), String> {
    for (name, want) in wanted {
        let Some((_, got)) = found.iter().find(|(n, _)| n == name) else {
            return Err(format!("{way}: there is no output `{name}`"));
        };
        let most = want
            .iter()
            .map(|x| x.f64().abs())
            .filter(|x| x.is_finite())
            .fold(0.0, f64::max);
        let wrong = match want.dtype().is_float() {
            true => mismatch(got, want, 0.0, allowed.relative * most),
            false if (got.dtype(), got.shape()) != (want.dtype(), want.shape()) => {
                Some(format!("{got:?}, expected {want:?}"))
            }
            false => Some(ulps(got, want)).filter(|d| *d > allowed.steps).map(|d| {
                let all = got.iter().zip(want.iter()).filter(|(g, w)| g != w).count();
                format!("off by up to {d} in {all} of {} elements", got.len())
            }),
        };
        if let Some(wrong) = wrong {
            return Err(format!("{way}: output `{name}`: {wrong}"));
        }
    }
    Ok(())
}
