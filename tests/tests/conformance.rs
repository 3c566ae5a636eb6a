//! ONNX's own backend cases for single operators and simple models, compiled and run.
//!
//! Cases that do not pass yet stand in `tests/conformance_pending.txt`, one a line, with the class of reason and how far a
//! wrong result was off when the list was written. The test fails when a case of the list passes or another one does not;
//! `BLESS=1` rewrites the list.

use brolga::Options;
use brolga_tests::onnx_case::{Failure, check};
use brolga_tests::{blessing, data, root};
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Passing cases that the project stands by; more is better.
const AT_LEAST: usize = 1_400;

/// Cases tried at once.
const WORKERS: usize = 2;

#[test]
fn single_operators_and_simple_models() {
    let home = data("onnx-node");
    let mut cases: Vec<String> = vec![];
    for folder in ["node", "simple"] {
        let dir = std::fs::read_dir(home.join(folder)).expect("it was unpacked");
        cases.extend(
            dir.flatten()
                .map(|c| format!("{folder}/{}", c.file_name().to_string_lossy())),
        );
    }
    cases.sort();
    assert!(cases.len() > 1800, "{} cases", cases.len());

    let options = Options::default();
    let next = AtomicUsize::new(0);
    let failures: Mutex<BTreeMap<&str, Failure>> = Mutex::new(BTreeMap::new());
    let fixed = AtomicUsize::new(0);
    std::thread::scope(|s| {
        for _ in 0..WORKERS {
            s.spawn(|| {
                while let Some(name) = cases.get(next.fetch_add(1, Ordering::Relaxed)) {
                    // Half of the cases run on one thread, half on two; which, depends on the name only.
                    let threads = 1 + name.len() % 2;
                    let result = catch_unwind(AssertUnwindSafe(|| check(&home, name, &options, threads)));
                    match result.unwrap_or_else(|e| Err(Failure::new("panic", panic_text(&*e)))) {
                        Ok(f) => {
                            fixed.fetch_add(usize::from(f), Ordering::Relaxed);
                        }
                        Err(f) => {
                            failures.lock().expect("no worker panics").insert(name, f);
                        }
                    }
                }
            });
        }
    });
    let failures = failures.into_inner().expect("no worker panics");
    let passed = cases.len() - failures.len();
    println!(
        "{passed} of {} pass, {} of them with a fixed input",
        cases.len(),
        fixed.into_inner()
    );

    let file = root().join("tests/conformance_pending.txt");
    if blessing() {
        let figure = |f: &Failure| f.figure.as_ref().map_or(String::new(), |x| format!(": {x}"));
        let lines = failures
            .iter()
            .map(|(name, f)| format!("{name} # {}{}\n", f.class, figure(f)));
        std::fs::write(&file, lines.collect::<String>()).expect("the list can be written");
        for (name, f) in failures.iter().filter(|(_, f)| !f.class.starts_with("unsupported")) {
            println!("{name}: {}: {}", f.class, f.message);
        }
    }
    let text = std::fs::read_to_string(&file).expect("the list is there");
    let pending: Vec<&str> = text
        .lines()
        .map(|l| l.split(" # ").next().unwrap_or_default().trim())
        .collect();
    assert!(pending.is_sorted(), "{} is not sorted", file.display());
    let unsaid = text.lines().filter(|l| l.ends_with("# wrong"));
    let mut wrong: Vec<String> = unsaid
        .map(|l| format!("`{l}` does not say by how much; BLESS=1 writes it"))
        .collect();
    for name in &pending {
        if !cases.iter().any(|c| c == name) {
            wrong.push(format!("{name} is listed but there is no such case"));
        } else if !failures.contains_key(name) {
            wrong.push(format!("{name} is listed but passes"));
        }
    }
    for (name, f) in &failures {
        if pending.binary_search(name).is_err() {
            wrong.push(format!("{name} fails: {}: {}", f.class, f.message));
        }
    }
    assert!(wrong.is_empty(), "{}:\n{}", file.display(), wrong.join("\n"));
    assert!(passed >= AT_LEAST, "{passed} cases pass, expected {AT_LEAST}");
}

fn panic_text(e: &(dyn std::any::Any + Send)) -> String {
    let text = e
        .downcast_ref::<String>()
        .map(String::as_str)
        .or_else(|| e.downcast_ref::<&str>().copied());
    text.unwrap_or("something else than a text").to_owned()
}
