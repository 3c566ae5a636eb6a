//! `brolga machine`: figures are measured, kept, and read back; what does not fit is refused with a word.

mod common;

use common::brolga_with;
use serde_json::Value;
use std::fs;

#[test]
fn figures_are_measured_kept_and_read_back() {
    let dir = tempfile::tempdir().expect("a folder");
    let cache = dir.path().join("cache");
    let machine = |arguments: &[&str]| {
        let arguments = [&["machine"], arguments].concat();
        brolga_with(dir.path(), &arguments, &[("XDG_CACHE_HOME", &cache)])
    };

    let before = machine(&["--show"]);
    assert_eq!(before.status, 0, "{}", before.err);
    assert!(before.out.contains("built-in figures"), "{}", before.out);
    assert!(before.err.contains("nothing is kept"), "{}", before.err);

    let measured = machine(&["--json"]);
    assert_eq!(measured.status, 0, "{}", measured.err);
    let figures: Value = serde_json::from_str(&measured.out).expect("JSON");
    assert_eq!(figures["origin"], "measured");
    for kind in ["f32", "f16", "bf16", "f32f16", "u8i8"] {
        assert!(figures["tiles"][kind].as_f64() > Some(1e8), "{kind}: {figures:#}");
    }
    let speed = |level: &Value| level["speeds"][0]["figure"].as_f64().expect("a speed");
    let caches = figures["caches"].as_array().expect("caches");
    assert!(
        caches
            .iter()
            .all(|c| speed(c) > 1e8 && c["bytes"].as_f64() > Some(4096.0)),
        "{figures:#}"
    );
    let cores = std::thread::available_parallelism().expect("a number").get();
    let last = figures["memory"].as_array().and_then(|m| m.last());
    assert_eq!(last.map(|m| m["threads"].as_u64()), Some(Some(cores as u64)));

    let shown = machine(&["--show", "--json"]);
    assert_eq!(shown.out, measured.out);
    let text = machine(&["--show"]).out;
    assert!(
        text.contains(": measured") && text.contains("tiles of bf16") && text.contains("memory"),
        "{text}"
    );

    let folder = cache.join("brolga/machines");
    let files: Vec<_> = fs::read_dir(folder)
        .expect("the folder")
        .flatten()
        .map(|e| e.path())
        .collect();
    let [file] = &files[..] else {
        panic!("one file: {files:?}")
    };
    assert!(shown.err.contains(&file.display().to_string()), "{}", shown.err);
    for (text, words) in [
        ("{".to_owned(), "no figures"),
        (
            measured.out.replace("\"cpu\": \"", "\"cpu\": \"Another "),
            "another machine: Another",
        ),
    ] {
        fs::write(file, text).expect("the file is written");
        let refused = machine(&["--show"]);
        assert_eq!(refused.status, 0);
        assert!(refused.out.contains("built-in figures"), "{}", refused.out);
        assert!(
            refused.err.contains(words) && refused.err.contains("brolga machine"),
            "{}",
            refused.err
        );
    }
}

#[test]
fn what_cannot_be_measured_or_kept_is_said() {
    let dir = tempfile::tempdir().expect("a folder");
    let there = |arguments: &[&str]| brolga_with(dir.path(), arguments, &[("XDG_CACHE_HOME", dir.path())]);
    let foreign = if cfg!(target_arch = "x86_64") {
        "aarch64"
    } else {
        "x86-64"
    };
    let elsewhere = there(&["machine", "--target", foreign]);
    assert_eq!(elsewhere.status, 2);
    assert!(elsewhere.err.contains("does not run code for it"), "{}", elsewhere.err);
    let gpu = there(&["machine", "--show", "--target", "sm_90"]);
    assert!(gpu.out.contains("sm_90: built-in"), "{}", gpu.out);
}
