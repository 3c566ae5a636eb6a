//! File tests: text IR in, a pipeline, text IR out.
//!
//! ```text
//! // What is tested, in a sentence or two.
//! // run: canonicalize,eqsat -> loops          (or: text)
//! // fires: bias-joins-contraction             (rules of the e-graph that must have been applied)
//! graph @g(%0 x: f32[4]) { … }
//! ;---
//! what is printed
//! ```
//!
//! A pipeline starts from the text of any level and ends, after passes and what is missing behind them, at `-> tensor` (the
//! default), `-> structured`, `-> loops` or `-> program`, always for x86-64-v3. What it gives, and every level below, is run by
//! the level's interpreter and compared with the input's own evaluation, so the expected text never stands alone. `run: text` reads a text of any level, verifies it and prints it.
//! `BLESS=1` rewrites what is expected.

use brolga::levels::{self, Level, Module, Walk};
use brolga::{Options, source};
use brolga_ir::program::{self, Program};
use brolga_ir::{DType, Graph, Number, Target, Tensor, loops, structured};
use brolga_passes::eqsat;
use brolga_passes::lower::Structured;
use brolga_passes::registry::PASSES;
use brolga_tests::{blessing, exact_outputs, relative_error, root, small_model, unequal};
use std::path::{Path, PathBuf};

const SEPARATOR: &str = ";---\n";

/// Symbols get this size when a result is compared with the graph's own evaluation.
const SIZE: usize = 3;

struct FileTest {
    path: PathBuf,
    header: Vec<String>,
    input: String,
    expected: String,
}

impl FileTest {
    fn read(path: &Path) -> FileTest {
        let text = std::fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        let (input, expected) = text.split_once(SEPARATOR).unwrap_or((&text, ""));
        let header: Vec<String> = input
            .lines()
            .map_while(|l| l.strip_prefix("//"))
            .map(|l| l.trim().to_owned())
            .collect();
        assert!(
            header
                .first()
                .is_some_and(|l| !l.starts_with("run: ") && l.ends_with('.')),
            "{}: the first line says what is tested",
            path.display()
        );
        FileTest {
            path: path.to_owned(),
            header,
            input: input.to_owned(),
            expected: expected.to_owned(),
        }
    }

    fn field(&self, name: &str) -> Option<&str> {
        self.header
            .iter()
            .find_map(|l| l.strip_prefix(name)?.strip_prefix(": "))
    }

    /// What the test prints; fails when it is not what the input means.
    fn result(&self) -> Result<String, String> {
        let run = self.field("run").ok_or("no line `// run: …`")?;
        if run == "text" {
            return through_text(&self.input);
        }
        let (pipeline, level) = run.split_once(" -> ").unwrap_or((run, "tensor"));
        let level = match level {
            "tensor" => Level::Tensor,
            "structured" => Level::Structured,
            "loops" => Level::Loops,
            "program" => Level::Program,
            l => return Err(format!("there is no level `{l}`")),
        };
        let options = Options {
            target: Target::x86_64_v3(),
            pipeline: Some(pipeline.to_owned()),
            verify: true,
            ..Options::default()
        };
        let show = |e: brolga::Error| e.to_string();
        let module = source::parse(&self.input, &self.path, &options).map_err(show)?;
        module.verify().map_err(|e| e.to_string())?;
        let inputs = inputs(&module);
        let wanted = evaluated(&module, &inputs)?;
        let mut walk = Walk::new(module, &options).map_err(show)?;
        for rule in self.field("fires").iter().flat_map(|r| r.split(", ")) {
            let fired = |r: &String| r.split([' ', ',', ';']).any(|w| w == rule);
            if !walk.remarks().iter().any(fired) {
                return Err(format!("the rule `{rule}` did not fire: {}", walk.remarks().join("; ")));
            }
        }
        let found = evaluated(&walk.module, &inputs)?;
        compare(&found, &wanted, |f, w| {
            (relative_error(f, w) > 1e-5).then(|| format!("{f:?}, the input's own evaluation is {w:?}"))
        })?;
        // Below, rules are done: what is exact agrees in every bit.
        let exact = match &walk.module {
            Module::Tensor(cut) => exact_outputs(cut),
            _ => vec![false; found.len()],
        };
        for next in Level::ALL.into_iter().filter(|l| *l <= level) {
            if next <= walk.module.level() {
                continue;
            }
            walk = walk.down(next).map_err(show)?;
            let mut exact = exact.iter();
            compare(&evaluated(&walk.module, &inputs)?, &found, |f, w| match exact.next() {
                Some(true) => unequal(f, w),
                _ => (relative_error(f, w) > 1e-5).then(|| format!("{f:?}, expected {w:?}")),
            })
            .map_err(|e| format!("as {next}: {e}"))?;
        }
        match &walk.module {
            m if m.level() != level => Err(format!("the pipeline leads to {}, expected {level}", m.level())),
            Module::Loops(p) if level == Level::Loops => Ok(p.kernels.iter().map(|k| format!("{k}\n")).collect()),
            m => Ok(m.to_string()),
        }
    }
}

/// What a module gives, by its level's interpreter.
fn evaluated(m: &Module, inputs: &[Tensor]) -> Result<Vec<Tensor>, String> {
    match m {
        Module::Tensor(g) => g.eval(inputs).map_err(|e| e.to_string()),
        Module::Structured(p) => program::interp::run(p, inputs).map_err(|e| e.to_string()),
        Module::Loops(p) => program::interp::run(p, inputs).map_err(|e| e.to_string()),
    }
}

fn compare(
    found: &[Tensor],
    wanted: &[Tensor],
    mut difference: impl FnMut(&Tensor, &Tensor) -> Option<String>,
) -> Result<(), String> {
    if found.len() != wanted.len() {
        return Err(format!("{} outputs, expected {}", found.len(), wanted.len()));
    }
    for (i, (f, w)) in found.iter().zip(wanted).enumerate() {
        if let Some(d) = difference(f, w) {
            return Err(format!("output {i} is {d}"));
        }
    }
    Ok(())
}

/// Reads and prints a text of any level, twice.
fn through_text(text: &str) -> Result<String, String> {
    let print = |text: &str| -> Result<String, String> {
        let first = text.lines().find(|l| !l.starts_with("//")).unwrap_or_default();
        let none = &|_: &str| None;
        Ok(match first.split(' ').next().unwrap_or_default() {
            "graph" => {
                let g = Graph::parse(text, none).map_err(|e| e.to_string())?;
                g.verify().map_err(|e| e.to_string())?;
                g.to_string()
            }
            "kernel" => {
                let k: structured::Kernel = text.parse().map_err(|e| format!("{e}"))?;
                k.verify()?;
                k.to_string()
            }
            "loops" => {
                let k: loops::Kernel = text.parse().map_err(|e| format!("{e}"))?;
                k.verify()?;
                k.to_string()
            }
            "program" if text.contains("\nkernel @") => {
                let p = Structured::parse(text, none).map_err(|e| e.to_string())?;
                p.verify()?;
                p.to_string()
            }
            "program" => {
                let p = Program::<loops::Kernel>::parse(text, none).map_err(|e| e.to_string())?;
                p.verify()?;
                p.to_string()
            }
            w => return Err(format!("found `{w}`, expected `graph`, `kernel`, `loops` or `program`")),
        })
    };
    let once = print(text)?;
    match print(&once)? {
        twice if twice == once => Ok(once),
        twice => Err(format!(
            "what is printed reads back as something else:\n{once}\n{twice}"
        )),
    }
}

/// Reproducible values for a module's inputs, between -1 and 1 (integers from 0 to 2).
fn inputs(m: &Module) -> Vec<Tensor> {
    let mut state = 7u64;
    let mut next = || {
        // A linear congruential generator (Knuth's MMIX).
        state = state
            .wrapping_mul(6364136223846793005)
            .wrapping_add(1442695040888963407);
        state >> 33
    };
    let mut one = |ty: &brolga_ir::Type| {
        let size = |d: &brolga_ir::Dim| {
            d.eval(&|_| Some(SIZE as i64))
                .expect("extents of inputs are numbers or symbols")
        };
        let shape: Vec<usize> = ty.shape.iter().map(|d| size(d) as usize).collect();
        Tensor::from_fn(ty.dtype, &shape, |_| match ty.dtype {
            DType::Bool => Number::from(next().is_multiple_of(2)),
            d if d.is_float() => Number::Float(next() as f64 / (1u64 << 30) as f64 - 1.0),
            _ => Number::Int((next() % 3) as i128),
        })
    };
    match m {
        Module::Tensor(g) => g.inputs.iter().map(|i| one(g.ty(i.value))).collect(),
        Module::Structured(p) => p.inputs.iter().map(|(_, s)| one(&p.slot(*s).ty)).collect(),
        Module::Loops(p) => p.inputs.iter().map(|(_, s)| one(&p.slot(*s).ty)).collect(),
    }
}

/// All file tests, sorted by path.
fn all() -> Vec<PathBuf> {
    let home = root().join("tests/filetests");
    let folders = std::fs::read_dir(&home)
        .expect("the folder is there")
        .flatten()
        .map(|e| e.path());
    let mut files: Vec<PathBuf> = folders
        .filter(|f| f.is_dir())
        .flat_map(|f| {
            std::fs::read_dir(f)
                .expect("it is a folder")
                .flatten()
                .map(|e| e.path())
        })
        .collect();
    files.sort();
    files
}

#[test]
fn what_is_printed_is_what_is_expected() {
    let mut wrong = vec![];
    for path in all() {
        let test = FileTest::read(&path);
        match test.result() {
            Err(e) => wrong.push(format!("{}: {e}", path.display())),
            Ok(found) if found == test.expected => {}
            Ok(found) if blessing() => {
                std::fs::write(&path, format!("{}{SEPARATOR}{found}", test.input)).expect("the file can be written");
            }
            Ok(found) => wrong.push(format!("{}: {}", path.display(), difference(&found, &test.expected))),
        }
    }
    assert!(
        wrong.is_empty(),
        "{} file tests (BLESS=1 rewrites them):\n{}",
        wrong.len(),
        wrong.join("\n")
    );
}

/// The first line that differs.
fn difference(found: &str, expected: &str) -> String {
    let n = found.lines().zip(expected.lines()).take_while(|(f, e)| f == e).count();
    let line = |text: &str| text.lines().nth(n).unwrap_or("the end").to_owned();
    format!(
        "line {} of the result is\n  {}\nexpected\n  {}",
        n + 1,
        line(found),
        line(expected)
    )
}

#[test]
fn every_pass_and_level_has_file_tests() {
    let tests: Vec<FileTest> = all().iter().map(|p| FileTest::read(p)).collect();
    let runs = |wanted: &dyn Fn(&str) -> bool| tests.iter().any(|t| t.field("run").is_some_and(wanted));
    for pass in PASSES {
        let uses = |run: &str| run.split([',', '{', ' ']).any(|w| w == pass.name);
        assert!(runs(&uses), "no file test runs the pass `{}`", pass.name);
    }
    for level in ["structured", "loops", "program"] {
        assert!(
            runs(&|r| r.ends_with(&format!("-> {level}"))),
            "no file test goes down to {level}"
        );
    }
    for word in ["graph", "kernel", "loops", "program"] {
        let reads = |t: &FileTest| {
            let first = t.input.lines().find(|l| !l.starts_with("//"));
            t.field("run") == Some("text") && first.is_some_and(|l| l.starts_with(word))
        };
        assert!(tests.iter().any(reads), "no file test reads the text of a `{word}`");
    }
}

/// Kernels with all rules and with none: fusion happens in the rules and the extraction only.
#[test]
fn kernel_counts() {
    let mut text =
        String::from("// Kernels that run with the model, for x86-64-v3: with all rules, and with rules=none.\n");
    for name in ["bert", "resnet"] {
        let g = source::graph(&small_model(name).path, u64::MAX).unwrap_or_else(|e| panic!("{e}"));
        let count = |rules: &str| {
            let options = Options {
                target: Target::x86_64_v3(),
                pipeline: Some(format!("canonicalize,eqsat{{rules={rules}}}")),
                ..Options::default()
            };
            let (cut, _) = levels::optimise(&g, &options).unwrap_or_else(|e| panic!("{e}"));
            eqsat::kernels(&cut)
        };
        let (all, none) = (count("all"), count("none"));
        assert!(
            2 * all <= none,
            "{name}: {all} kernels with all rules, {none} without any: expected at most half"
        );
        text += &format!("{name} {all} {none}\n");
    }
    let file = root().join("tests/filetests/kernel_counts.txt");
    if blessing() {
        std::fs::write(&file, &text).expect("the file can be written");
    }
    let expected = std::fs::read_to_string(&file).expect("the golden file is there");
    assert_eq!(text, expected, "BLESS=1 rewrites {}", file.display());
}
