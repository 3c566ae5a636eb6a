//! What is shown of passes: the IR before and after them, diffs, times, counts, in every command that compiles.

mod common;

use common::{arg, brolga, digits, json, ok};
use serde_json::Value;

/// A graph with something for `canonicalize` and `eqsat` to do, and nothing for `prune`.
const GRAPH: &str = "graph @g(%0 x: f32[4, 8]) {
  %1 = relu(%0) @\"first\"
  %2 = relu(%0) @\"again\"
  %3 = add(%1, %2) @\"sum\"
  %4 = transpose{perm=[0, 1]}(%3) @\"void\"
  return y = %4
}
";

fn graph() -> tempfile::TempDir {
    let dir = tempfile::tempdir().expect("there is room for temporary files");
    std::fs::write(dir.path().join("g.txt"), GRAPH).expect("a file is written");
    dir
}

/// Commands that run passes in a way of their own have nothing to show of them, and say so.
#[test]
fn what_cannot_be_shown_is_refused() {
    let dir = graph();
    for command in [
        &["explain", "g.txt"][..],
        &["equal", "g.txt", "g.txt"],
        &["why-not", "add-zero", "g.txt", "sum"],
        &["bisect", "g.txt"],
        &["fuzz", "--models", "1"],
        &["emit", "g.txt", "--stage", "egraph", "--rounds", "rounds"],
    ] {
        for option in [
            &["--print-ir-before", "all"][..],
            &["--print-ir-after", "all"],
            &["--print-ir-after-change"],
            &["--time-passes"],
            &["--pass-stats"],
            &["--remarks"],
        ] {
            let args = [command, option].concat();
            let ran = brolga(dir.path(), &args);
            assert_eq!(ran.status, 2, "{args:?}: {}", ran.out);
            assert!(ran.err.contains(option[0]), "{args:?}: {}", ran.err);
        }
    }
    assert_eq!(common::files(dir.path()), ["g.txt"]);
}

#[test]
fn passes_on_the_way_to_an_e_graph_are_shown() {
    let dir = graph();
    let show = [
        "--print-ir-after",
        "canonicalize",
        "--time-passes",
        "--pass-stats",
        "--remarks",
    ];
    let err = ok(
        dir.path(),
        &[&["emit", "g.txt", "--stage", "egraph"][..], &show].concat(),
    )
    .err;
    for said in [
        "// after canonicalize\n",
        "what passes took",
        "what passes counted",
        "note: eqsat: ",
    ] {
        assert!(err.contains(said), "`{said}` is not in {err}");
    }
}

#[test]
fn ir_is_printed_before_and_after_the_passes_that_are_named() {
    let dir = graph();
    let err = ok(
        dir.path(),
        &[
            "opt",
            "g.txt",
            "--print-ir-before",
            "eqsat,prune",
            "--print-ir-after",
            "canonicalize",
        ],
    )
    .err;
    let heads: Vec<&str> = err.lines().filter(|l| l.starts_with("// ")).collect();
    assert_eq!(
        heads,
        ["// after canonicalize", "// before prune", "// before eqsat"],
        "{err}"
    );
    // Before `eqsat` it is what `canonicalize` left: one operation.
    let (_, before) = err.split_once("// before eqsat\n").expect("it was found above");
    assert_eq!(before.matches("relu(").count(), 1, "{err}");
    let all = ok(
        dir.path(),
        &["emit", "g.txt", "--stage", "program", "--print-ir-before", "all"],
    )
    .err;
    for pass in [
        "canonicalize",
        "prune",
        "eqsat",
        "lower",
        "bufferize",
        "schedule",
        "plan-memory",
    ] {
        assert!(all.contains(&format!("// before {pass}\n")), "{pass}: {all}");
    }
    for when in ["before", "after"] {
        let ran = brolga(dir.path(), &["opt", "g.txt", &format!("--print-ir-{when}"), "tile"]);
        assert_eq!(ran.status, 2);
        let why = format!("there is no pass `tile` to print {when}, expected all or one of bufferize");
        assert!(ran.err.contains(&why), "{}", ran.err);
    }
}

#[test]
fn changes_are_diffs_of_passes_that_changed_something() {
    let dir = graph();
    let err = ok(dir.path(), &["opt", "g.txt", "--print-ir-after-change"]).err;
    assert!(
        err.contains("--- before canonicalize\n+++ after canonicalize\n@@ "),
        "{err}"
    );
    assert!(err.contains("\n-  %2 = relu(%0) : f32[4, 8] @\"again\"\n"), "{err}");
    assert!(err.contains("--- before eqsat\n"), "{err}");
    assert!(!err.contains("before prune"), "{err}");
    // Another level is printed whole.
    let lowered = ok(
        dir.path(),
        &["opt", "g.txt", "--passes", "eqsat,lower", "--print-ir-after-change"],
    )
    .err;
    let (_, whole) = lowered.split_once("// after lower\n").expect("it is printed");
    assert!(
        whole.contains("\nkernel @") && !whole.contains("before lower"),
        "{lowered}"
    );
    assert_eq!(
        ok(
            dir.path(),
            &["opt", "g.txt", "--passes", "prune", "--print-ir-after-change"]
        )
        .err,
        ""
    );
}

/// The rows of a table on standard error, by their words.
fn rows(err: &str, title: &str) -> Vec<Vec<String>> {
    let (_, table) = err.split_once(title).unwrap_or_else(|| panic!("no {title:?}: {err}"));
    let lines = table.lines().skip(1).take_while(|l| l.starts_with("  "));
    lines
        .map(|l| l.split_whitespace().map(str::to_owned).collect())
        .collect()
}

#[test]
fn times_and_counts_are_tables() {
    let dir = graph();
    let show = ["--time-passes", "--pass-stats"];
    let err = ok(dir.path(), &[&["run", "g.txt"][..], &show].concat()).err;
    let times = rows(&err, "what passes took");
    let named: Vec<&str> = times.iter().map(|r| &*r[0]).collect();
    let passes = [
        "canonicalize",
        "prune",
        "eqsat",
        "lower",
        "bufferize",
        "schedule",
        "plan-memory",
    ];
    assert_eq!(named[1..8], passes, "{err}");
    assert_eq!(named[8..], ["constants", "code", "total"], "{err}");
    let line = err
        .lines()
        .find(|l| l.starts_with("  canonicalize "))
        .expect("it has a row");
    assert!(line.contains("4 nodes") && line.ends_with("2 nodes"), "{err}");
    assert!(err.contains("1 kernel, 1 step"), "{err}");
    let counts = rows(&err, "what passes counted");
    let count = |words: &[&str]| {
        counts
            .iter()
            .any(|r| r.iter().map(String::as_str).eq(words.iter().copied()))
    };
    assert!(
        count(&["canonicalize", "repeated", "operations", "merged", "1"]),
        "{err}"
    );
    assert!(count(&["canonicalize", "void", "operations", "removed", "1"]), "{err}");
    assert!(counts.iter().any(|r| r[0] == "eqsat" && r[1] == "rewrites"), "{err}");
    assert!(count(&["lower", "kernels", "1"]), "{err}");
}

#[test]
fn reports_in_json_have_times_and_counts() {
    let dir = graph();
    let model = digits();
    let show = ["--time-passes", "--pass-stats", "--json"];
    for command in [
        &["compile", arg(&model), "-o", "m.o"][..],
        &["run", arg(&model), "--set", "batch=1"],
        &["profile", arg(&model), "--set", "batch=1", "--runs", "1"],
    ] {
        let report = json(dir.path(), &[command, &show].concat());
        let passes = report["passes"].as_array().expect("the report has them");
        let of = |name: &str| {
            let found = passes.iter().find(|p| p["pass"] == name);
            found.unwrap_or_else(|| panic!("no {name}: {report:#}"))
        };
        assert!(
            of("eqsat")["counts"]["rewrites"].as_u64().is_some_and(|n| n > 0),
            "{report:#}"
        );
        assert!(of("lower")["seconds"].as_f64().is_some_and(|s| s > 0.0), "{report:#}");
        assert!(passes.iter().any(|p| p["phase"] == "code generation"), "{report:#}");
    }
    // What is not asked for is not there.
    let report = json(dir.path(), &["run", "g.txt", "--json"]);
    assert_eq!(report["passes"], Value::Null);
    let report = json(dir.path(), &["run", "g.txt", "--pass-stats", "--json"]);
    assert_eq!(report["passes"][0]["seconds"], Value::Null);
}
