//! Reproducers: passes that panic, fail or give what is not valid, planted here, leave a file that shows it again.

mod common;

use brolga::ir::{Graph, NodeError, Type};
use brolga::levels::{Module, Walk};
use brolga::passes::pass::{Context, Setting, Settings, TensorPass};
use brolga::passes::registry::Registry;
use brolga::reproducer::{self, Reproducer};
use brolga::{Error, Options};
use common::{arg, brolga};
use std::path::{Path, PathBuf};

/// A pass that is wrong, in the way that its option names; without one it does nothing.
#[derive(Default)]
struct Planted {
    fault: String,
}

impl Settings for Planted {
    const NAME: &'static str = "planted";
    const SUMMARY: &'static str = "is wrong";
    const SETTINGS: &'static [Setting<Planted>] = &[Setting {
        name: "fault",
        default: "",
        meaning: "how it is wrong",
        get: |p| vec![p.fault.clone()],
        set: |p, value, _| {
            p.fault = value.to_owned();
            Ok(())
        },
    }];
}

impl TensorPass for Planted {
    fn rewrite(&self, g: &Graph, _: &mut Context) -> Result<Graph, NodeError> {
        let mut out = g.clone();
        match &*self.fault {
            "panic" => panic!("planted\nin two lines"),
            "error" => {
                return Err(NodeError {
                    node: "sum".into(),
                    message: "planted".into(),
                });
            }
            "invalid" => out.values[1].ty = Type::fixed(brolga::ir::DType::I32, &[7]),
            _ => {}
        }
        Ok(out)
    }
}

const GRAPH: &str = "graph @model(%0 x: f32[4]) {
  %1 = relu(%0) @\"first\"
  %2 = add(%1, %1) @\"sum\"
  return y = %2
}
";

fn options(folder: &Path, pipeline: &str) -> Options {
    Options {
        registry: Registry::default().with::<Planted>(),
        pipeline: Some(pipeline.to_owned()),
        reproducers: Some(folder.to_owned()),
        verify: true,
        ..Options::default()
    }
}

fn graph() -> Module {
    Module::parse(GRAPH, &|_| None).expect("it is valid")
}

/// The error of a walk, and the file that it wrote.
fn fails(options: &Options) -> (String, PathBuf) {
    match Walk::new(graph(), options).err().expect("a fault is planted") {
        Error::Passes {
            model,
            source,
            reproducer: Some(path),
        } => {
            let text = Error::Passes {
                model,
                source,
                reproducer: Some(path.clone()),
            };
            (text.to_string(), path)
        }
        e => panic!("no reproducer: {e}"),
    }
}

#[test]
fn each_kind_of_failure_writes_a_file_that_replays() {
    let dir = tempfile::tempdir().expect("there is room for temporary files");
    for (fault, says) in [
        ("panic", "pass `planted`: panicked: planted\nin two lines"),
        ("error", "pass `planted`: node `sum`: planted"),
        ("invalid", "pass `planted`: "),
    ] {
        let options = options(dir.path(), &format!("canonicalize,planted{{fault={fault}}},eqsat"));
        let (error, path) = fails(&options);
        assert!(error.contains(says), "{error}");
        let advice = format!("replay with: brolga opt {} --run-reproducer", path.display());
        assert!(error.ends_with(&advice), "{error}");
        let read = Reproducer::read(&path).expect("it was written");
        assert_eq!(read.pass, "planted");
        assert_eq!(read.pipeline, format!("planted{{fault={fault}}},eqsat"));
        assert_eq!(read.target, options.target.name);
        let text = std::fs::read_to_string(&path).expect("it was written");
        assert!(text.contains("relu(%0) : f32[4] @\"first\""), "{text}");
        // It fails again, in the same way, from the file alone.
        let again = reproducer::replay(
            &path,
            &Options {
                pipeline: None,
                ..options.clone()
            },
        );
        let again = again.map(|m| m.to_string()).expect_err("the fault is still there");
        assert!(again.to_string().contains(says), "{again}");
        // Without the fault the rest of the pipeline runs.
        let healed = text.replace(&format!("fault={fault}"), "fault=none");
        std::fs::write(&path, healed).expect("a file is written");
        let module = reproducer::replay(&path, &options).unwrap_or_else(|e| panic!("{e}"));
        assert!(module.to_string().contains("store("), "{module}");
    }
}

#[test]
fn what_is_refused_is_no_failure() {
    let dir = tempfile::tempdir().expect("there is room for temporary files");
    let at = |name: &str| dir.path().join(name);
    let lowered = "canonicalize,eqsat,lower,bufferize,choose";
    std::fs::write(at("g.txt"), GRAPH).expect("a file is written");
    let kernels = common::ok(
        dir.path(),
        &["opt", "g.txt", "--passes", lowered, "--target", "x86-64-v3"],
    )
    .out;
    assert!(kernels.contains("points{along=0, "), "{kernels}");
    let illegal = kernels.replace("points{along=0, ", "points{along=7, ");
    std::fs::write(at("kernels.txt"), illegal).expect("a file is written");
    let wrong = "rule wrong [exact]\n  (relu ?x) => (cast f64 ?x)\n";
    std::fs::write(at("wrong.rules"), wrong).expect("a file is written");
    let (alias, gpu) = ("bufferize{alias=x=z}", ["--target", "sm_80"]);
    for (args, said) in [
        (
            &["opt", "g.txt", "--passes", "schedule"][..],
            "passes that lower it come first",
        ),
        (
            &["opt", "g.txt", "--passes", "specialise{n=3}"],
            "there is no symbolic dimension `n`",
        ),
        (
            &["opt", "g.txt", "--passes", &format!("eqsat,lower,{alias}")],
            "there is no such output",
        ),
        (
            &["compile", "g.txt", "-o", "g.o", "--alias", "z=y"],
            "there is no such input",
        ),
        (
            &[&["emit", "g.txt", "--stage", "ptx", "--alias", "x=y"], &gpu[..]].concat(),
            "give no aliases",
        ),
        (
            &["opt", "g.txt", "--passes", "lower"],
            "a graph is lowered after `eqsat`",
        ),
        (
            &["opt", "g.txt", "--add-rules", "wrong.rules", "--unchecked-rules"],
            "rule `wrong`",
        ),
        (
            &["opt", "kernels.txt", "--passes", "schedule", "--target", "x86-64-v3"],
            "its schedule is not legal",
        ),
    ] {
        let ran = brolga(dir.path(), &[args, &["--crash-reproducer", "left"]].concat());
        assert_eq!(ran.status, 2, "{args:?}");
        assert!(
            ran.err.contains(said) && !ran.err.contains("replay with"),
            "{args:?}: {}",
            ran.err
        );
    }
    assert_eq!(common::files(dir.path()), ["g.txt", "kernels.txt", "wrong.rules"]);
}

#[test]
fn the_command_replays() {
    let dir = tempfile::tempdir().expect("there is room for temporary files");
    let (_, path) = fails(&options(dir.path(), "planted{fault=error},canonicalize"));
    // The command has no planted pass: it says so, as it says what is no reproducer.
    let ran = brolga(dir.path(), &["opt", arg(&path), "--run-reproducer"]);
    assert_eq!(ran.status, 2);
    assert!(ran.err.contains("there is no pass `planted`"), "{}", ran.err);
    let text = std::fs::read_to_string(&path).expect("it was written");
    std::fs::write(&path, text.replace("planted{fault=error}", "eqsat{rules=none}")).expect("a file is written");
    let ran = common::ok(dir.path(), &["opt", arg(&path), "--run-reproducer"]);
    assert_eq!(ran.out.matches("store(").count(), 2, "{}", ran.out);
    std::fs::write(dir.path().join("g.txt"), GRAPH).expect("a file is written");
    let ran = brolga(dir.path(), &["opt", "g.txt", "--run-reproducer"]);
    assert_eq!(ran.status, 2);
    assert!(ran.err.contains("found no reproducer"), "{}", ran.err);
    let ran = brolga(
        dir.path(),
        &["opt", arg(&path), "--run-reproducer", "--pipeline", "eqsat"],
    );
    assert_eq!(ran.status, 2);
}

#[test]
fn files_that_the_pipeline_names_are_in_the_reproducer() {
    let dir = tempfile::tempdir().expect("there is room for temporary files");
    let file = dir.path().join("schedule.txt");
    let text = "; First: a \"comment\".\n\n(phase (rules all)\n\t(rounds 2))\n";
    std::fs::write(&file, text).expect("a file is written");
    let pipeline = format!("planted{{fault=error}},eqsat{{schedule={}}}", file.display());
    let options = options(dir.path(), &pipeline);
    let (_, path) = fails(&options);
    let read = Reproducer::read(&path).expect("it was written");
    assert_eq!(read.files, [(file.display().to_string(), text.replace('\t', " "))]);
    std::fs::remove_file(&file).expect("it was there");
    let again = reproducer::replay(
        &path,
        &Options {
            pipeline: None,
            ..options
        },
    );
    let again = again.map(|m| m.to_string()).expect_err("the fault is still there");
    assert!(again.to_string().contains("planted"), "{again}");
}
