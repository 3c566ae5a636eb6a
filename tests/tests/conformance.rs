//! ONNX's own backend cases, in every way to run a model: the interpreter, machine code made in memory, an artefact, an object
//! file that is linked into a shared library with those of other cases.
//!
//! Cases that do not pass yet stand in `tests/conformance_pending.txt`, one a line, with the class of reason and how far a
//! wrong result was off when the list was written. The test fails when a case of the list passes or another one does not;
//! `BLESS=1` rewrites the list, and `docs/conformance.md` with it, which has to say what was found here.

use brolga::Options;
use brolga_tests::linked::Batch;
use brolga_tests::onnx_case::{self, Checked, Failure, operators};
use brolga_tests::{blessing, data, root};
use std::collections::BTreeMap;
use std::fmt::Write;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Passing cases that the project stands by; more is better.
const AT_LEAST: usize = 1_990;

/// Cases tried at once.
const WORKERS: usize = 2;

/// Object files of one library.
const OBJECTS: usize = 200;

/// The folders of cases, the archive that each is in, and whether the interpreter runs its cases: it is for small ones.
const FOLDERS: [(&str, &str, bool); 5] = [
    ("light", "onnx-light", false),
    ("node", "onnx-node", true),
    ("pytorch-converted", "onnx-pytorch", false),
    ("pytorch-operator", "onnx-pytorch", true),
    ("simple", "onnx-node", true),
];

struct Case {
    home: PathBuf,
    /// `FOLDER/CASE`.
    name: String,
    interpret: bool,
}

fn cases() -> Vec<Case> {
    let mut all = vec![];
    for (folder, archive, interpret) in FOLDERS {
        let home = data(archive);
        let dir = std::fs::read_dir(home.join(folder)).expect("it was unpacked");
        all.extend(dir.flatten().map(|c| Case {
            home: home.clone(),
            name: format!("{folder}/{}", c.file_name().to_string_lossy()),
            interpret,
        }));
    }
    all.sort_by(|a, b| a.name.cmp(&b.name));
    all
}

impl Case {
    fn options(&self) -> Options {
        Options {
            // Verifying every level of networks of thousands of operations is what `small_models` does.
            verify: Options::default().verify && self.interpret,
            ..Options::default()
        }
    }

    /// Half of the cases run on one thread, half on two; which, depends on the name only.
    fn threads(&self) -> usize {
        1 + self.name.len() % 2
    }
}

/// Cases whose objects wait for a library, by number, in the order of the batch.
#[derive(Default)]
struct Waiting {
    batch: Batch,
    cases: Vec<(usize, onnx_case::Case)>,
}

type Results = Mutex<BTreeMap<usize, Result<Checked, Failure>>>;

impl Waiting {
    /// Everything but its object.
    fn check(&mut self, i: usize, c: &Case) -> Result<Checked, Failure> {
        let options = c.options();
        let case = onnx_case::Case::read(&c.home, &c.name, options.memory_limit)?;
        let before = self.batch.len();
        let run = || case.check(&options, c.threads(), c.interpret, &mut self.batch);
        let result = catch_unwind(AssertUnwindSafe(run));
        let result = result.unwrap_or_else(|e| Err(Failure::new("panic", panic_text(&*e))));
        if self.batch.len() > before {
            self.cases.push((i, case));
        }
        result
    }

    /// Links the objects and runs them.
    fn link(self, cases: &[Case], found: &Results) {
        if self.batch.is_empty() {
            return;
        }
        for (linked, (i, case)) in self.batch.link().iter().zip(&self.cases) {
            let c = &cases[*i];
            let result = case.check_linked(linked, c.threads(), c.options().memory_limit);
            if let Some(Ok(checked)) = found.lock().expect("no worker panics").get_mut(i) {
                checked.object = Some(result);
            }
        }
    }
}

/// What became of every case.
fn results(cases: &[Case]) -> Vec<Result<Checked, Failure>> {
    let next = AtomicUsize::new(0);
    let found = Results::default();
    std::thread::scope(|s| {
        for _ in 0..WORKERS {
            s.spawn(|| {
                let mut waiting = Waiting::default();
                loop {
                    let i = next.fetch_add(1, Ordering::Relaxed);
                    let Some(c) = cases.get(i) else { break };
                    let result = waiting.check(i, c);
                    found.lock().expect("no worker panics").insert(i, result);
                    if waiting.batch.len() == OBJECTS {
                        std::mem::take(&mut waiting).link(cases, &found);
                    }
                }
                waiting.link(cases, &found);
            });
        }
    });
    found.into_inner().expect("no worker panics").into_values().collect()
}

#[test]
fn backend_cases() {
    let cases = cases();
    assert_eq!(cases.len(), 2033, "cases of the archives");
    let results = results(&cases);
    let mut failures: BTreeMap<&str, Failure> = BTreeMap::new();
    for (c, r) in cases.iter().zip(&results) {
        let failure = match r {
            Ok(checked) => checked.failure(),
            Err(f) => Some(f.clone()),
        };
        failures.extend(failure.map(|f| (c.name.as_str(), f)));
    }
    let passed = cases.len() - failures.len();
    println!("{passed} of {} pass", cases.len());

    let file = root().join("tests/conformance_pending.txt");
    if blessing() {
        let lines = failures
            .iter()
            .map(|(name, f)| format!("{name} # {}\n", reason(name, f)));
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
    let unsaid = text.lines().filter(|l| l.contains("# wrong") && !l.contains("; "));
    let mut wrong: Vec<String> = unsaid.map(|l| format!("`{l}` does not say why")).collect();
    for name in &pending {
        if !cases.iter().any(|c| c.name == *name) {
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

    let page = page(&cases, &results, &text);
    let file = root().join("docs/conformance.md");
    if blessing() {
        std::fs::write(&file, &page).expect("the page can be written");
    }
    let written = std::fs::read_to_string(&file).unwrap_or_default();
    assert!(
        written == page,
        "{} is not what was found; BLESS=1 writes it",
        file.display()
    );
}

/// Why cases whose names begin so have other results than ours.
const WHY: [(&str, &str); 8] = [
    (
        "node/test_attention_4d_causal_fp16_expanded",
        "the reference rounds to f16 between steps, here an operator rounds once",
    ),
    (
        "node/test_bernoulli",
        "the reference drew its random numbers by NumPy's generator",
    ),
    (
        "node/test_dft_inverse",
        "what is 0 is 2e-7 in the reference, which was computed in f32",
    ),
    ("node/test_if_opt", "whether an optional has a value must be known"),
    (
        "node/test_image_decoder_decode_jpeg2k",
        "JPEG 2000 is not among the formats that are decoded",
    ),
    (
        "node/test_image_decoder_decode_jpeg_",
        "the reference is of libjpeg-turbo, and decoders of JPEG round in their own ways",
    ),
    (
        "node/test_maxunpool_export_with_output_shape",
        "the reference counts in the shape of a pool without rounding",
    ),
    (
        "node/test_training_dropout",
        "the reference drew its random numbers by NumPy's generator",
    ),
];

/// The class of a failure, by how much a result is off, and why.
fn reason(name: &str, f: &Failure) -> String {
    let figure = f.figure.as_ref().map_or(String::new(), |x| format!(": {x}"));
    let why = WHY.iter().find(|(start, _)| name.starts_with(start));
    format!(
        "{}{figure}{}",
        f.class,
        why.map_or(String::new(), |(_, why)| format!("; {why}"))
    )
}

/// How many cases there are, and how many pass.
#[derive(Clone, Copy, Default)]
struct Count {
    passed: usize,
    all: usize,
}

impl Count {
    fn add(&mut self, passed: bool) {
        self.all += 1;
        self.passed += usize::from(passed);
    }
}

impl std::fmt::Display for Count {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.all {
            0 => f.write_str("–"),
            n => write!(f, "{}/{n}", self.passed),
        }
    }
}

/// Cases by the way that they are run.
#[derive(Clone, Copy, Default)]
struct Row {
    interpreter: Count,
    compiled: Count,
    artefact: Count,
    object: Count,
    /// Those that pass in machine code without an operator of the host.
    kernels: usize,
}

impl Row {
    fn add(&mut self, c: &Case, r: &Result<Checked, Failure>) {
        let Ok(r) = r else {
            if c.interpret {
                self.interpreter.add(false);
            }
            self.compiled.add(false);
            self.artefact.add(false);
            self.object.add(false);
            return;
        };
        if let Some(i) = &r.interpreter {
            self.interpreter.add(i.is_ok());
        }
        self.compiled.add(r.compiled.is_ok());
        self.artefact.add(r.artefact.as_ref().is_some_and(Result::is_ok));
        self.object.add(r.object.as_ref().is_some_and(Result::is_ok));
        self.kernels += usize::from(r.compiled.is_ok() && !r.host);
    }
}

/// `docs/conformance.md`.
fn page(cases: &[Case], results: &[Result<Checked, Failure>], pending: &str) -> String {
    let mut folders: BTreeMap<&str, Row> = BTreeMap::new();
    let mut by_operator: BTreeMap<(String, i64), Row> = BTreeMap::new();
    let mut total = Row::default();
    for (c, r) in cases.iter().zip(results) {
        let folder = c.name.split('/').next().unwrap_or_default();
        folders.entry(folder).or_default().add(c, r);
        total.add(c, r);
        // Networks say little of a single operator.
        if folder == "node" {
            for key in operators(&c.home, &c.name) {
                by_operator.entry(key).or_default().add(c, r);
            }
        }
    }
    let mut out = "# ONNX's own cases\n
Written by `BLESS=1 cargo test -p brolga-tests --test conformance`, which fails where this page says something else than it finds.\n
The cases are those of the `onnx` package (see `tests/data/README.md`), at their own tolerances. A case counts as passed in the
*interpreter* of the tensor IR (small cases only), as machine code made in memory (*JIT*), as an *artefact* that is written,
mapped and run, and as an *object file*: objects of many cases are linked by the C compiler into one shared library, each leaves
nothing undefined but `mem*`, and each is found there by its symbols and run with the weights that it brings (those of 16 MiB and
more are a file beside it). Operators of the host are none of an object's: it calls them through the context's `host`, where the
test gives their reference evaluation. *In kernels* counts the cases whose machine code calls none.\n
| cases | interpreter | JIT | artefact | object file | in kernels |
| --- | --- | --- | --- | --- | --- |
"
    .to_owned();
    let line = |name: &str, r: &Row| {
        let Row {
            interpreter,
            compiled,
            artefact,
            object,
            kernels,
        } = r;
        format!("| {name} | {interpreter} | {compiled} | {artefact} | {object} | {kernels} |\n")
    };
    for (folder, row) in &folders {
        out += &line(&format!("`{folder}/`"), row);
    }
    out += &line("all", &total);
    let rest: Vec<&str> = pending.lines().collect();
    let _ = write!(
        out,
        "\n## The rest\n\n{} cases do not pass in every way, each for the reason that stands behind it.\n\n```text\n",
        rest.len()
    );
    for l in &rest {
        let _ = writeln!(out, "{l}");
    }
    out += "```\n
## Operators of single-operator cases\n
A case counts for every operator of its model, in the version of the operator set that the model imports.\n
| operator | opset | interpreter | JIT | artefact | object file | in kernels |
| --- | --- | --- | --- | --- | --- | --- |
";
    for ((operator, version), row) in &by_operator {
        out += &line(&format!("{operator} | {version}"), row);
    }
    out
}

fn panic_text(e: &(dyn std::any::Any + Send)) -> String {
    let text = e
        .downcast_ref::<String>()
        .map(String::as_str)
        .or_else(|| e.downcast_ref::<&str>().copied());
    text.unwrap_or("something else than a text").to_owned()
}
