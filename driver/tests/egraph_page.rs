//! `brolga egraph` on the command line: what it prints, its JSON and its page, and what it refuses. In a browser the page is opened by
//! the tests of the whole.

mod common;

use common::{arg, brolga, digits, json, ok};
use serde_json::Value;
use std::path::Path;

fn at<'v>(data: &'v Value, list: &str, position: &Value) -> &'v Value {
    &data[list][position.as_u64().expect("a position") as usize]
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], |l| l)
}

fn seconds(value: &Value) -> f64 {
    value.as_f64().expect("seconds")
}

#[test]
fn what_is_printed_and_what_the_page_holds() {
    let dir = tempfile::tempdir().expect("there is room for temporary files");
    let model = digits();
    let args = ["egraph", arg(&model), "--html", "egraph.html"];
    let text = ok(dir.path(), &args).out;
    for word in [
        "digits: saturated after",
        "round  e-nodes  classes  rewrites",
        "new e-nodes",
        "conv-scale",
        "kernels",
        "predicted, lower bound",
        "what could be decided otherwise:",
        "keep \"",
    ] {
        assert!(text.contains(word), "no `{word}` in\n{text}");
    }
    let page = std::fs::read_to_string(dir.path().join("egraph.html")).expect("it was written");
    common::is_whole_page(&page, "digits – brolga egraph");
}

#[test]
fn json_is_whole_and_agrees_with_explain() {
    let dir = tempfile::tempdir().expect("there is room for temporary files");
    let model = digits();
    let data = json(dir.path(), &["egraph", arg(&model), "--json"]);
    assert_eq!(data["schema"], "brolga-egraph-1");
    let (saturation, growth) = (&data["saturation"], list(&data["growth"]));
    assert_eq!(
        growth.len() as u64,
        saturation["rounds"].as_u64().expect("a number") + 1
    );
    let last = growth.last().expect("it has rounds");
    for field in ["nodes", "classes", "rewrites"] {
        assert_eq!(last[field], saturation[field], "{field}");
    }
    // The classes of values; attributes and lists are none of them.
    let classes = list(&data["classes"]);
    assert!(classes.len() as u64 <= saturation["classes"].as_u64().expect("a number"));
    for c in classes {
        let enodes = list(&c["enodes"]);
        assert!(!enodes.is_empty(), "{c}");
        let operands = enodes.iter().flat_map(|n| list(&n["operands"]));
        assert!(operands.clone().all(|o| at(&data, "classes", o).is_object()), "{c}");
        assert!(
            list(&c["nodes"]).iter().all(|n| at(&data, "nodes", n).is_string()),
            "{c}"
        );
        assert!(c["chosen"].as_u64().is_none_or(|k| k < enodes.len() as u64), "{c}");
        for o in list(&c["open"]) {
            assert!(o["seconds"].is_number() != o["refused"].is_string(), "{o}");
            assert!(
                o["enode"].as_u64().is_none_or(|k| Some(k) != c["chosen"].as_u64()),
                "{c}"
            );
        }
    }
    // The rules that fired are those that rewrote classes or became e-nodes.
    for rule in list(&data["rules"]).iter().filter(|r| r["rewrites"].as_u64() > Some(0)) {
        assert!(!list(&rule["classes"]).is_empty(), "{rule}");
    }
    let made = classes
        .iter()
        .flat_map(|c| list(&c["enodes"]))
        .filter_map(|n| n.get("rule"));
    let made: Vec<&Value> = made.map(|r| &at(&data, "rules", r)["name"]).collect();
    assert!(made.iter().any(|n| **n == "conv-scale"), "{made:?}");

    let explained = json(dir.path(), &["explain", arg(&model), "--json"]);
    let kernels = list(&data["kernels"]).iter().filter(|k| k["constant"] == false);
    let kernels: Vec<&Value> = kernels.collect();
    assert_eq!(kernels.len(), list(&explained["kernels"]).len());
    for (k, e) in kernels.iter().zip(list(&explained["kernels"])) {
        let nodes: Vec<&Value> = list(&k["nodes"]).iter().map(|n| at(&data, "nodes", n)).collect();
        assert_eq!(nodes, list(&e["nodes"]).iter().collect::<Vec<_>>());
        assert_eq!(k["type"], e["type"]);
        assert_eq!(at(&data, "classes", &k["class"])["type"], e["type"]);
    }
    // A program takes what its kernels take; what is constant hardly counts. Numbers have four digits.
    let sum: f64 = kernels.iter().map(|k| seconds(&k["seconds"])).sum();
    let program = seconds(&data["program"]["seconds"]);
    assert!((sum / program - 1.0).abs() < 0.01, "{sum} of {program}");
    assert!(seconds(&data["program"]["bound"]) <= program);
}

#[test]
fn alternatives_cost_what_is_said() {
    let dir = tempfile::tempdir().expect("there is room for temporary files");
    let model = digits();
    let data = json(dir.path(), &["egraph", arg(&model), "--json"]);
    let open = list(&data["classes"]).iter().flat_map(|c| list(&c["open"]));
    let mut priced: Vec<&Value> = open.filter(|o| o["seconds"].is_number()).collect();
    priced.sort_by(|a, b| seconds(&a["seconds"]).total_cmp(&seconds(&b["seconds"])));
    assert!(priced.len() > 5, "{priced:?}");
    for o in [priced[priced.len() / 2], priced[priced.len() - 1]] {
        let decision = o["decision"].as_str().expect("it has a name");
        std::fs::write(dir.path().join("decisions.txt"), decision).expect("a file is written");
        let pipeline = "canonicalize,prune,eqsat{decide=decisions.txt}";
        let remarks = ok(
            dir.path(),
            &["opt", arg(&model), "--pipeline", pipeline, "--remarks", "-o", "cut.txt"],
        )
        .err;
        let said = format!("{decision}: decided, {:+.3} ms predicted", seconds(&o["seconds"]) * 1e3);
        assert!(remarks.contains(&said), "{said} is not in\n{remarks}");
        // The page of the program that was decided so has it, and what it cost.
        let decided = json(dir.path(), &["egraph", arg(&model), "--pipeline", pipeline, "--json"]);
        let more = seconds(&decided["program"]["seconds"]) - seconds(&data["program"]["seconds"]);
        let wanted = seconds(&o["seconds"]);
        assert!((more - wanted).abs() < 0.01 * wanted + 2e-8, "{more} is not {wanted}");
    }
}

#[test]
fn what_cannot_be_is_said() {
    let dir = tempfile::tempdir().expect("there is room for temporary files");
    let model = digits();
    let model = arg(&model);
    ok(dir.path(), &["emit", model, "--stage", "loops", "-o", "loops.txt"]);
    ok(dir.path(), &["compile", model, "-o", "model.brolga"]);
    let refused = |args: &[&str], words: &[&str]| {
        let ran = brolga(dir.path(), &[&["egraph"], args].concat());
        assert_eq!(ran.status, 2, "{args:?}: {}", ran.out);
        for word in words {
            assert!(ran.err.contains(word), "{args:?}: {}", ran.err);
        }
    };
    refused(&["loops.txt"], &["loops.txt", "expected a tensor graph"]);
    refused(&["model.brolga"], &["model.brolga", "a compiled artefact"]);
    refused(&["nothing.onnx"], &["nothing.onnx"]);
    refused(&[model, "--html", "no/such/folder/page.html"], &["no/such/folder"]);
    refused(&[model, "--html", "-"], &["give a file for --html"]);
    refused(&[model, "--pipeline", "canonicalize"], &["no pass `eqsat`"]);
    refused(
        &[model, "--rules", "none"],
        &["without rules there is nothing to explain"],
    );
    assert!(!Path::new(&dir.path().join("page.html")).exists());
}
