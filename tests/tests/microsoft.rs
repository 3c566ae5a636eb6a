//! Operators of the domain `com.microsoft` against ONNX Runtime's results, which the archive holds: the reference evaluation, and code
//! with one thread and two, with rules and without.

use brolga::ir::Tensor;
use brolga::{Options, npy};
use brolga_frontend::onnx;
use brolga_tests::{data, mismatch, run, ulps};
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Cases tried at once.
const WORKERS: usize = 2;

/// Cases that there are at least.
const CASES: usize = 100;

#[test]
fn results_are_onnx_runtimes() {
    let home = data("microsoft").join("microsoft");
    let entries = std::fs::read_dir(&home).expect("it was unpacked").flatten();
    let mut cases: Vec<String> = entries.map(|e| e.file_name().to_string_lossy().into_owned()).collect();
    cases.sort();
    assert!(cases.len() >= CASES, "{} cases", cases.len());
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
    let read = |name: &str| npy::read_npz(&dir.join(name)).map(|all| all.into_iter().collect());
    let inputs: BTreeMap<String, Tensor> = read("in.npz").map_err(|e| e.to_string())?;
    let wanted: BTreeMap<String, Tensor> = read("ref.npz").map_err(|e| e.to_string())?;
    let args: Vec<Tensor> = graph.inputs.iter().map(|i| inputs[&i.name].clone()).collect();
    let found = graph.eval(&args).map_err(|e| format!("reference evaluation: {e}"))?;
    let names = graph.outputs.iter().map(|(n, _)| n.clone());
    judge("reference evaluation", &wanted, &names.zip(found).collect(), &allowed)?;
    for rules in [None, Some("none".to_string())] {
        let options = Options {
            rules: rules.clone(),
            ..Options::default()
        };
        for threads in [1, 2] {
            let way = format!("rules {rules:?}, {threads} threads");
            let session = brolga::compile(&graph, &options).and_then(|c| c.session_with(threads, u64::MAX));
            let session = session.map_err(|e| format!("{way}: {e}"))?;
            let found = run(&session, &inputs).map_err(|e| format!("{way}: {e}"))?;
            judge(&way, &wanted, &found, &allowed)?;
        }
    }
    Ok(())
}

fn judge(
    way: &str,
    wanted: &BTreeMap<String, Tensor>,
    found: &Vec<(String, Tensor)>,
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
