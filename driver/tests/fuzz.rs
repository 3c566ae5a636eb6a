//! `brolga fuzz`: what is planted is found, cut down, kept, and known from then on.

mod common;

use brolga::Options;
use brolga::bisect::{Place, compiled};
use brolga::fuzz::Fuzz;
use brolga::ir::{Number, Tensor};
use brolga::levels::Module;
use common::{brolga, files};

/// Models that a test looks at.
const MODELS: u64 = 60;

#[test]
fn nothing_is_found_where_nothing_is_planted() {
    let options = Options::default();
    let machine = compiled(&options);
    let fuzz = Fuzz {
        options: &options,
        machine: &machine,
        seed: 1,
    };
    for number in 0..MODELS {
        let found = fuzz.look(number).unwrap_or_else(|e| panic!("{e}"));
        assert!(
            found.is_none(),
            "{:?}",
            found.map(|f| (f.signature, f.case.graph.to_string()))
        );
    }
}

#[test]
fn findings_of_one_fault_have_one_signature() {
    let options = Options::default();
    let right = compiled(&options);
    // Machine code of programs with a `tanh` is wrong.
    let machine = |m: &Module, inputs: &[Tensor]| {
        let mut found = right(m, inputs)?;
        if m.to_string().contains("tanh") {
            let t = found[0].clone();
            found[0] = Tensor::from_fn(t.dtype(), t.shape(), |i| Number::Float(t.get(i).f64() + 1e6));
        }
        Ok(found)
    };
    let fuzz = Fuzz {
        options: &options,
        machine: &machine,
        seed: 1,
    };
    let looked = (0..5 * MODELS).filter_map(|n| fuzz.look(n).unwrap_or_else(|e| panic!("{e}")));
    let findings: Vec<_> = looked.collect();
    assert!(findings.len() > 1, "{} findings", findings.len());
    for f in &findings {
        assert_eq!(f.found.place, Place::Code);
        assert_eq!(f.signature, "code generation: other numbers: tanh");
        assert_eq!(f.case.graph.nodes.len(), 1, "{}", f.case.graph);
        assert_eq!(f.name(), findings[0].name());
    }
}

#[test]
fn the_command_keeps_what_is_new() {
    let dir = tempfile::tempdir().expect("there is room for temporary files");
    std::fs::write(
        dir.path().join("wrong.rules"),
        "rule wrong-tanh [exact]\n  (tanh ?x) => (sigmoid ?x)\n",
    )
    .expect("a file is written");
    let command = [
        "fuzz",
        "--models",
        "60",
        "--seed",
        "3",
        "--add-rules",
        "wrong.rules",
        "--unchecked-rules",
    ];
    let ran = brolga(dir.path(), &[&command[..], &["--json"]].concat());
    assert_eq!(ran.status, 1, "{}", ran.err);
    let report: serde_json::Value = serde_json::from_str(&ran.out).expect("it is JSON");
    let new = report["new"].as_array().expect("a list");
    assert!(
        !new.is_empty() && report["findings"].as_u64() >= Some(new.len() as u64),
        "{report:#}"
    );
    let signatures: Vec<&str> = new.iter().filter_map(|f| f["signature"].as_str()).collect();
    assert!(
        signatures
            .iter()
            .all(|s| s.starts_with("pass `eqsat`: other numbers: ")),
        "{signatures:?}"
    );
    assert!(
        signatures.contains(&"pass `eqsat`: other numbers: tanh"),
        "{signatures:?}"
    );
    assert_eq!(files(&dir.path().join("brolga-findings")).len(), 2 * new.len());
    // The command that is told shows it again.
    let replay = new[0]["replay"].as_str().expect("a command");
    let words: Vec<&str> = replay.split(' ').skip(1).collect();
    let ran = brolga(dir.path(), &words);
    assert_eq!(ran.status, 1, "{replay}: {}", ran.err);
    assert!(ran.out.contains("rule `wrong-tanh`"), "{}", ran.out);
    // It is known now.
    let ran = brolga(dir.path(), &command);
    assert_eq!(ran.status, 0, "{}{}", ran.out, ran.err);
    assert!(
        ran.err.contains("60 models, ") && ran.err.contains(" findings, 0 of them new"),
        "{}",
        ran.err
    );
}
