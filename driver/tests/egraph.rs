//! E-graphs in files: what `brolga emit --stage egraph` writes, and what `brolga extract` chooses from any file of the format.

mod common;

use common::{arg, brolga, digits, ok};
use serde_json::Value;
use std::collections::BTreeSet;
use std::path::Path;

fn json(text: &str) -> Value {
    serde_json::from_str(text).expect("it is JSON")
}

/// The class of each node of a file.
fn classes(eg: &Value) -> BTreeSet<&str> {
    let nodes = eg["nodes"].as_object().expect("it has nodes");
    nodes
        .values()
        .map(|n| n["eclass"].as_str().expect("a node has a class"))
        .collect()
}

#[test]
fn the_e_graph_of_a_model_is_written_and_read_back() {
    let dir = tempfile::tempdir().unwrap();
    ok(
        dir.path(),
        &["emit", arg(&digits()), "--stage", "egraph", "-o", "e.json"],
    );
    let text = std::fs::read_to_string(dir.path().join("e.json")).unwrap();
    let eg = json(&text);
    let classes = classes(&eg);
    for node in eg["nodes"].as_object().unwrap().values() {
        assert!(
            node["op"].is_string() && node["cost"].as_f64().unwrap() >= 0.0,
            "{node}"
        );
        for child in node["children"].as_array().unwrap() {
            assert!(eg["nodes"].get(child.as_str().unwrap()).is_some(), "{node}");
        }
    }
    let roots = eg["root_eclasses"].as_array().unwrap();
    assert!(!roots.is_empty() && roots.iter().all(|r| classes.contains(r.as_str().unwrap())));
    assert!(
        eg["class_data"]
            .as_object()
            .unwrap()
            .values()
            .any(|d| d["type"].as_str().unwrap().starts_with("stream f32"))
    );
    let mut costs = vec![];
    for with in ["tree", "greedy", "exact"] {
        let chosen = json(&ok(dir.path(), &["extract", "e.json", "--with", with]).out);
        assert_eq!(chosen["extractor"], with);
        costs.push(chosen["cost"].as_f64().unwrap());
        // Each class that is needed has one node of its own, and the roots are needed.
        let choices = chosen["choices"].as_object().unwrap();
        assert!(roots.iter().all(|r| choices.contains_key(r.as_str().unwrap())));
        let mut sum = 0.0;
        for (class, node) in choices {
            let node = &eg["nodes"][node.as_str().unwrap()];
            assert_eq!(node["eclass"], **class);
            assert_ne!(node["subsumed"], true);
            sum += node["cost"].as_f64().unwrap();
            for child in node["children"].as_array().unwrap() {
                let class = &eg["nodes"][child.as_str().unwrap()]["eclass"];
                assert!(choices.contains_key(class.as_str().unwrap()));
            }
        }
        assert!((sum - chosen["cost"].as_f64().unwrap()).abs() <= 1e-9 * sum);
    }
    assert!(
        costs[2] <= costs[1] * (1.0 + 1e-9) && costs[2] <= costs[0] * (1.0 + 1e-9),
        "{costs:?}"
    );
}

#[test]
fn one_file_a_round_is_written() {
    let dir = tempfile::tempdir().unwrap();
    ok(
        dir.path(),
        &["emit", arg(&digits()), "--stage", "egraph", "--rounds", "rounds"],
    );
    ok(
        dir.path(),
        &["emit", arg(&digits()), "--stage", "egraph", "-o", "all.json"],
    );
    let read = |path: &Path| json(&std::fs::read_to_string(path).unwrap());
    let file = |n: usize| dir.path().join(format!("rounds/round-{n}.json"));
    let last = (1..)
        .take_while(|&n| file(n).exists())
        .last()
        .expect("there is a round");
    assert!(last > 1, "{last} rounds");
    let nodes = |n| read(&file(n))["nodes"].as_object().unwrap().len();
    assert!(nodes(1) < nodes(last));
    assert_eq!(read(&file(last)), read(&dir.path().join("all.json")));
}

#[test]
fn files_that_others_made_are_read() {
    let dir = tempfile::tempdir().unwrap();
    // Costs default to 1, and the rest may be left out.
    let text = r#"{"nodes": {
        "plus.0": {"op": "+", "children": ["x.0", "x.0"], "eclass": "sum"},
        "shift.0": {"op": "<<", "children": ["x.0", "one.0"], "eclass": "sum", "cost": 0.5},
        "x.0": {"op": "x", "eclass": "x"}, "one.0": {"op": "1", "eclass": "one", "cost": 0.25}},
        "root_eclasses": ["sum"]}"#;
    std::fs::write(dir.path().join("e.json"), text).unwrap();
    let chosen = json(&ok(dir.path(), &["extract", "e.json", "--with", "exact"]).out);
    assert_eq!(
        (chosen["cost"].as_f64(), chosen["proven"].as_bool()),
        (Some(1.75), Some(true))
    );
    assert_eq!(chosen["choices"]["sum"], "shift.0");
    ok(dir.path(), &["extract", "e.json", "-o", "chosen.json"]);
    let written = json(&std::fs::read_to_string(dir.path().join("chosen.json")).unwrap());
    assert_eq!(written["extractor"], "greedy");
    let bad = |change: (&str, &str), expected: &str| {
        assert!(text.contains(change.0));
        std::fs::write(dir.path().join("bad.json"), text.replace(change.0, change.1)).unwrap();
        let ran = brolga(dir.path(), &["extract", "bad.json"]);
        assert_eq!(ran.status, 2, "{}", ran.err);
        assert!(
            ran.err.contains("bad.json") && ran.err.contains(expected),
            "{}",
            ran.err
        );
    };
    bad(
        ("\"one.0\"], \"eclass\"", "\"two.0\"], \"eclass\""),
        "has the child `two.0`, which is no node",
    );
    bad(("[\"sum\"]", "[\"total\"]"), "the root `total` is no class");
    bad(("[\"sum\"]", "[]"), "it has no roots");
    bad(("0.25", "-1"), "node `one.0`: `cost` is -1");
    bad(
        ("\"op\": \"x\", ", ""),
        "found no e-graph of the format of egraph-serialize: node `x.0`: `op` is missing",
    );
    let ran = brolga(dir.path(), &["extract", "e.json", "--with", "magic"]);
    assert!(
        ran.status == 2 && ran.err.contains("expected one of tree, greedy, exact"),
        "{}",
        ran.err
    );
    let ran = brolga(
        dir.path(),
        &["emit", arg(&digits()), "--stage", "tensor", "--rounds", "r"],
    );
    assert!(
        ran.status == 2 && ran.err.contains("--rounds is for --stage egraph"),
        "{}",
        ran.err
    );
    let ran = brolga(
        dir.path(),
        &["emit", arg(&digits()), "--stage", "egraph", "--rules", "none"],
    );
    assert!(ran.status == 2 && ran.err.contains("makes no e-graph"), "{}", ran.err);
}

#[test]
fn remarks_say_how_good_a_program_is() {
    let dir = tempfile::tempdir().unwrap();
    let run = |how: &str| {
        let pipeline = format!("canonicalize,prune,eqsat{{extract={how}}}");
        ok(
            dir.path(),
            &[
                "opt",
                arg(&digits()),
                "--pipeline",
                &pipeline,
                "--remarks",
                "-o",
                "cut.txt",
            ],
        )
        .err
    };
    for how in ["greedy", "search", "exact"] {
        let said = run(how);
        assert!(
            said.contains("eqsat: predicted ") && said.contains(", lower bound ") && said.contains(" (gap "),
            "{said}"
        );
        assert_eq!(said.contains("partial programs"), how == "exact", "{said}");
    }
    // One that reshapes the tensor that it keeps, or keeps it reshaped.
    let said = run("search");
    assert!(said.contains("; another of the same cost: keep "), "{said}");
    let ran = brolga(
        dir.path(),
        &["opt", arg(&digits()), "--pipeline", "eqsat{extract=best}"],
    );
    assert!(
        ran.status == 2 && ran.err.contains("expected one of greedy, search, exact"),
        "{}",
        ran.err
    );
}

#[test]
fn a_schedule_is_printed_and_gives_the_same_program_again() {
    let dir = tempfile::tempdir().unwrap();
    let digits = digits();
    let model = arg(&digits);
    let at = |name: &str| dir.path().join(name);
    let opt = |eqsat: &str| {
        let pipeline = format!("canonicalize,prune,eqsat{eqsat}");
        let ran = ok(dir.path(), &["opt", model, "--pipeline", &pipeline, "--remarks"]);
        (ran.out, ran.err)
    };
    std::fs::write(
        at("own.txt"),
        "; Movements first.\n(phase (rules fusion movement) (rounds 3) (nodes 5000))\n(repeat 2 (phase (rules all -merge) (rounds 2)))\n",
    )
    .unwrap();
    for options in [
        "",
        "fold=off",
        "iters=2",
        "nodes=60",
        "schedule=own.txt",
        "schedule=own.txt fold=off",
    ] {
        let braces = |text: &str| match text.trim() {
            "" => String::new(),
            text => format!("{{{text}}}"),
        };
        let pipeline = format!("canonicalize,prune,eqsat{}", braces(options));
        let args = [
            "emit",
            model,
            "--stage",
            "schedule",
            "--pipeline",
            &pipeline,
            "-o",
            "was.txt",
        ];
        ok(dir.path(), &args);
        let was = std::fs::read_to_string(at("was.txt")).unwrap();
        assert!(was.starts_with("(phase (rules ") && was.contains(" rounds, "), "{was}");
        let fold = if options.contains("fold=off") { " fold=off" } else { "" };
        assert_eq!(
            opt(&braces(options)),
            opt(&braces(&format!("schedule=was.txt{fold}"))),
            "{options}: {was}"
        );
    }
    assert!(opt("{schedule=own.txt}").1.contains("eqsat: phase 3: "));
    // It goes with what else asks for the e-graph.
    let scheduled = ["--pipeline", "canonicalize,eqsat{schedule=own.txt}"];
    ok(dir.path(), &[&["explain", model], &scheduled[..]].concat());
    let rounds = [
        &["emit", model, "--stage", "egraph", "--rounds", "rounds"],
        &scheduled[..],
    ]
    .concat();
    ok(dir.path(), &rounds);
    let files = std::fs::read_dir(at("rounds")).unwrap().count();
    assert!((3..=7).contains(&files), "{files}");
    let wrong = common::brolga(
        dir.path(),
        &["opt", model, "--pipeline", "eqsat{schedule=own.txt nodes=7}"],
    );
    assert_eq!(wrong.status, 2);
    assert!(wrong.err.contains("nodes=7 beside schedule=own.txt"), "{}", wrong.err);
}
