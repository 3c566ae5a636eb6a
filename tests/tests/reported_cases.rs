//! Small models of situations that people report about runtimes, compiled and run in every way that there is: with one
//! thread and two, without rules, for the oldest CPU level, and from an artefact.
//!
//! Each case runs in a process of its own, so that a crash or a hang is one failed case: this test starts itself again with
//! the case's name in [`CASE`]. Cases that fail stand in `tests/reported_pending.txt`, one a line, with the reason; the test
//! fails when a case of the list passes or another one does not.

use brolga::ir::{Target, Tensor};
use brolga::{Options, Session, SessionOptions, npy};
use brolga_tests::{data, mismatch, root, run};
use std::collections::BTreeMap;
use std::io::{Read, Seek};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// The environment variable that names the one case to try.
const CASE: &str = "BROLGA_REPORTED_CASE";

/// Cases tried at once.
const WORKERS: usize = 2;

/// No case takes a tenth of this on a machine that is not busy.
const HANGS_AFTER: Duration = Duration::from_secs(120);

/// How long a case took, and what is wrong with it.
type Tried = (Duration, Result<(), String>);

#[test]
fn every_case_holds_in_every_way() {
    let home = data("reported-cases").join("reported-cases");
    if let Ok(name) = std::env::var(CASE) {
        return Case::read(&home.join(name)).check().unwrap_or_else(|e| panic!("{e}"));
    }
    let entries = std::fs::read_dir(&home).expect("it was unpacked").flatten();
    let mut cases: Vec<String> = entries.map(|e| e.file_name().to_string_lossy().into_owned()).collect();
    cases.sort();
    assert!(cases.len() >= 210, "{} cases", cases.len());

    let next = AtomicUsize::new(0);
    let tried: Mutex<BTreeMap<&str, Tried>> = Mutex::default();
    std::thread::scope(|s| {
        for _ in 0..WORKERS {
            s.spawn(|| {
                while let Some(name) = cases.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let start = Instant::now();
                    let result = alone(name);
                    let row = (start.elapsed(), result);
                    tried.lock().expect("no worker panics").insert(name, row);
                }
            });
        }
    });
    let tried = tried.into_inner().expect("no worker panics");
    let passed = tried.values().filter(|(_, r)| r.is_ok()).count();
    println!("{passed} of {} hold", cases.len());
    let mut slowest: Vec<_> = tried.iter().map(|(name, (time, _))| (time, name)).collect();
    slowest.sort();
    for (time, name) in slowest.iter().rev().take(3) {
        println!("{name} takes {time:.1?}");
    }

    let file = root().join("tests/reported_pending.txt");
    let text = std::fs::read_to_string(&file).expect("the list is there");
    let pending: Vec<&str> = text.lines().filter_map(|l| l.split(" # ").next()).collect();
    assert!(pending.is_sorted(), "{} is not sorted", file.display());
    let mut wrong = vec![];
    for name in &pending {
        match tried.get(name) {
            None => wrong.push(format!("{name} is listed but there is no such case")),
            Some((_, Ok(()))) => wrong.push(format!("{name} is listed but holds")),
            Some((_, Err(_))) => {}
        }
    }
    for (name, (_, result)) in &tried {
        if let Err(e) = result
            && pending.binary_search(name).is_err()
        {
            wrong.push(format!("{name}: {e}"));
        }
    }
    assert!(wrong.is_empty(), "{}:\n{}", file.display(), wrong.join("\n"));
}

/// Tries one case in a process of its own.
fn alone(name: &str) -> Result<(), String> {
    let mut log = tempfile::tempfile().expect("there is room for temporary files");
    let mut child = Command::new(std::env::current_exe().expect("this test is a file"))
        .args(["--exact", "every_case_holds_in_every_way", "--nocapture"])
        .env(CASE, name)
        .env("RUST_BACKTRACE", "0")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log.try_clone().expect("the file is open"))
        .spawn()
        .expect("this test starts");
    let start = Instant::now();
    let status = loop {
        match child.try_wait().expect("it is our child") {
            Some(status) => break status,
            None if start.elapsed() > HANGS_AFTER => {
                child.kill().expect("it is our child");
                child.wait().expect("it is our child");
                return Err(format!("hangs: it has run for {HANGS_AFTER:?}"));
            }
            None => std::thread::sleep(Duration::from_millis(5)),
        }
    };
    if status.success() {
        return Ok(());
    }
    let mut text = String::new();
    log.rewind()
        .and_then(|()| log.read_to_string(&mut text))
        .expect("it was written");
    Err(format!("{status}: {}", text.trim()))
}

/// What is expected of a case.
#[derive(PartialEq, Eq)]
enum Expect {
    /// The reference's results.
    Right,
    /// An error with this text in it.
    Error(String),
    /// The reference's results or an error.
    RightOrError,
    /// No crash, no hang, no panic.
    Any,
}

struct Case {
    dir: PathBuf,
    expect: Expect,
    /// What `brolga run` is given as `--set`.
    sizes: Vec<(String, i64)>,
    /// Relative; a tenth of it is the absolute tolerance.
    tolerance: f64,
    /// The sign of zero counts.
    zero: bool,
}

impl Case {
    fn read(dir: &Path) -> Case {
        let text = std::fs::read_to_string(dir.join("case.json")).expect("every case has one");
        let json: serde_json::Value = serde_json::from_str(&text).expect("it is JSON");
        let needle = json["needle"].as_str().expect("a text").to_owned();
        let args = json["args"].as_array().expect("a list").iter();
        let args: Vec<&str> = args.map(|a| a.as_str().expect("a text")).collect();
        let sizes = args.chunks(2).map(|pair| {
            let ["--set", size] = pair else {
                panic!("{args:?}: expected --set SYMBOL=N");
            };
            let (symbol, n) = size.split_once('=').expect("SYMBOL=N");
            (symbol.to_owned(), n.parse().expect("a size"))
        });
        Case {
            dir: dir.to_owned(),
            expect: match json["expect"].as_str() {
                Some("ok") => Expect::Right,
                Some("error") => Expect::Error(needle),
                Some("right-or-error") => Expect::RightOrError,
                Some("any") => Expect::Any,
                other => panic!("{other:?} is expected"),
            },
            sizes: sizes.collect(),
            tolerance: json["tol"].as_f64().expect("a number"),
            zero: json["zero"].as_bool().expect("a truth"),
        }
    }

    /// Compiles and runs the case in every way; the error tells the way and what is wrong.
    fn check(&self) -> Result<(), String> {
        let dir = tempfile::tempdir().expect("there is room for temporary files");
        let artefact = dir.path().join("model.brolga");
        let made = self
            .compiled(Options::default())
            .and_then(|c| c.write_artefact(&artefact).map(|_| c));
        let session = made.and_then(|c| c.session_with(1, u64::MAX));
        self.judge("one thread", session.and_then(|s| self.outputs(&s)))?;
        if artefact.exists() {
            for threads in [1, 2] {
                let session = SessionOptions::default().threads(threads).load(&artefact);
                let way = format!("an artefact, {threads} threads");
                self.judge(&way, session.and_then(|s| self.outputs(&s)))?;
            }
        }
        let no_rules = Options {
            rules: Some("none".parse().expect("these rules are embedded")),
            ..Options::default()
        };
        let oldest = Options {
            target: Target::baseline(),
            ..Options::default()
        };
        let mut ways = vec![("no rules, two threads", no_rules)];
        if brolga_codegen::target::runs_here(&oldest.target) {
            ways.push(("the oldest CPU level, two threads", oldest));
        }
        for (way, options) in ways {
            let limit = options.memory_limit;
            let session = self.compiled(options).and_then(|c| c.session_with(2, limit));
            self.judge(way, session.and_then(|s| self.outputs(&s)))?;
        }
        Ok(())
    }

    fn compiled(&self, options: Options) -> brolga::Result<brolga::Compiled> {
        let options = Options {
            sizes: self.sizes.clone(),
            ..options
        };
        brolga::compile_file(self.dir.join("model.onnx"), &options)
    }

    fn outputs(&self, session: &Session) -> brolga::Result<Vec<(String, Tensor)>> {
        let file = self.dir.join("in.npz");
        let inputs = if file.exists() { npy::read_npz(&file)? } else { vec![] };
        run(session, &inputs.into_iter().collect())
    }

    fn judge(&self, way: &str, found: brolga::Result<Vec<(String, Tensor)>>) -> Result<(), String> {
        let wrong = |what: &str| Err(format!("{way}: {what}"));
        match (found, &self.expect) {
            (_, Expect::Any) | (Err(_), Expect::RightOrError) => Ok(()),
            (Err(e), Expect::Right) => wrong(&e.to_string()),
            (Err(e), Expect::Error(needle)) => match e.to_string() {
                e if e.contains(needle) => Ok(()),
                e => wrong(&format!("the error does not say `{needle}`: {e}")),
            },
            (Ok(_), Expect::Error(_)) => wrong("it is not refused"),
            (Ok(outputs), Expect::Right | Expect::RightOrError) => match self.difference(&outputs) {
                None => Ok(()),
                Some(what) => wrong(&what),
            },
        }
    }

    fn difference(&self, outputs: &[(String, Tensor)]) -> Option<String> {
        let expected = npy::read_npz(&self.dir.join("ref.npz")).expect("what is to be right has references");
        for (name, want) in &expected {
            let Some((_, got)) = outputs.iter().find(|(n, _)| n == name) else {
                return Some(format!("there is no output `{name}`"));
            };
            let signs =
                |t: &Tensor| -> Vec<bool> { t.iter().map(|x| x.f64() == 0.0 && x.f64().is_sign_negative()).collect() };
            if let Some(what) = mismatch(got, want, self.tolerance, self.tolerance / 10.0) {
                return Some(format!("output `{name}`: {what}"));
            }
            if self.zero && signs(got) != signs(want) {
                return Some(format!(
                    "output `{name}`: a zero has another sign: {got:?}, expected {want:?}"
                ));
            }
        }
        // A name may be listed twice; it then has one reference.
        let unknown = outputs.iter().find(|(n, _)| expected.iter().all(|(e, _)| e != n));
        unknown.map(|(n, _)| format!("output `{n}` has no reference"))
    }
}
