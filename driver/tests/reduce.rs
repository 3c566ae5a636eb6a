//! `brolga reduce`: models shrink while a script says yes.

#![cfg(unix)]

mod common;

use brolga::ir::Graph;
use common::{arg, brolga, digits, json, ok};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

/// Writes a script that a shell runs.
fn script(dir: &Path, name: &str, body: &str) {
    let path = dir.join(name);
    std::fs::write(&path, format!("#!/bin/sh\n{body}\n")).expect("a file is written");
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).expect("it is ours");
}

fn graph(path: &Path) -> Graph {
    let text = std::fs::read_to_string(path).expect("it was written");
    Graph::parse(&text, &|_| None).unwrap_or_else(|e| panic!("{e}\n{text}"))
}

#[test]
fn a_model_shrinks_to_what_the_script_asks_for() {
    let dir = tempfile::tempdir().expect("there is room for temporary files");
    // Interesting is what compiles and has a convolution whose result an activation reads.
    let body = "grep -q 'conv{' \"$1\" && grep -q 'relu(' \"$1\" && \"$BROLGA\" opt \"$1\" > /dev/null";
    let body = format!("BROLGA='{}'\n{body}", env!("CARGO_BIN_EXE_brolga"));
    script(dir.path(), "test.sh", &body);
    let model = digits();
    let report = json(
        dir.path(),
        &[
            "reduce",
            arg(&model),
            "--test",
            "./test.sh",
            "-o",
            "small.txt",
            "--json",
        ],
    );
    let g = graph(&dir.path().join("small.txt"));
    assert_eq!(report["after"]["nodes"], 2, "{report:#}\n{g}");
    assert!(report["before"]["nodes"].as_u64().is_some_and(|n| n > 5), "{report:#}");
    let names: Vec<&str> = g.nodes.iter().map(|n| n.op.name()).collect();
    assert!(names.contains(&"conv") && names.contains(&"relu"), "{g}");
    // Weights became numbers, so that the file needs no other.
    assert!(!g.to_string().contains(".onnx"), "{g}");
    ok(dir.path(), &["run", "small.txt"]);
}

#[test]
fn arguments_come_before_the_candidate() {
    let dir = tempfile::tempdir().expect("there is room for temporary files");
    let model = digits();
    let ran = ok(
        dir.path(),
        &[
            "reduce",
            arg(&model),
            "--test",
            "grep",
            "--test-arg=-q",
            "--test-arg",
            "relu(",
        ],
    );
    assert!(ran.err.contains("reduced.txt: 1 node, "), "{}", ran.err);
    assert_eq!(graph(&dir.path().join("reduced.txt")).nodes[0].op.name(), "relu");
}

#[test]
fn what_is_not_interesting_at_all_is_an_error() {
    let dir = tempfile::tempdir().expect("there is room for temporary files");
    let model = digits();
    for (test, why) in [
        ("false", "not interesting to begin with: false says no"),
        ("./nobody", "./nobody: "),
    ] {
        let ran = brolga(dir.path(), &["reduce", arg(&model), "--test", test]);
        assert!(ran.status == 2 && ran.err.contains(why), "{}", ran.err);
    }
    // A program that does not end is stopped, and says no.
    script(dir.path(), "hangs.sh", "exec sleep 1000");
    let ran = brolga(
        dir.path(),
        &["reduce", arg(&model), "--test", "./hangs.sh", "--timeout", "1"],
    );
    assert!(ran.status == 2 && ran.err.contains("says no"), "{}", ran.err);
    let emit = ok(dir.path(), &["emit", arg(&model), "--stage", "program"]).out;
    std::fs::write(dir.path().join("p.txt"), emit).expect("a file is written");
    let ran = brolga(dir.path(), &["reduce", "p.txt", "--test", "true"]);
    assert!(
        ran.status == 2 && ran.err.contains("expected a tensor graph"),
        "{}",
        ran.err
    );
    assert!(!dir.path().join("reduced.txt").exists());
}
