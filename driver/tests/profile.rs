//! `brolga profile` on the command line, and names of kernels for `perf`.

mod common;

use common::{arg, brolga, digits, ok};
use serde_json::Value;
use std::process::{Command, Stdio};

#[test]
fn a_table_a_trace_and_a_page() {
    let dir = tempfile::tempdir().expect("there is room for temporary files");
    let model = digits();
    let model = arg(&model);
    let args = ["profile", model, "--set", "batch=3", "--runs", "5"];
    let table = ok(dir.path(), &args).out;
    for word in [
        "digits: median ",
        "5 runs",
        "kernel",
        "share",
        "GFLOP/s",
        "roof",
        "busy",
        "noting takes",
    ] {
        assert!(table.contains(word), "no `{word}` in\n{table}");
    }
    let all = ok(dir.path(), &[&args[..], &["--all"]].concat()).out;
    assert!(all.contains("tile{"), "{all}");

    let more = ["--json", "--trace", "t.json", "--html", "p.html", "--counters"];
    let out = ok(dir.path(), &[&args[..], &more].concat()).out;
    let profile: Value = serde_json::from_str(&out).unwrap_or_else(|e| panic!("{e}: {out}"));
    assert_eq!(profile["runs"], 5);
    assert!(profile["kernels"].as_array().is_some_and(|k| !k.is_empty()));
    let counters = &profile["counters"];
    let known = |field: &str| counters[field].as_array().map_or(0, Vec::len);
    assert!(known("read") + known("refused") >= 3, "{counters}");
    let read = |name: &str| std::fs::read_to_string(dir.path().join(name)).expect("it was written");
    let trace: Value = serde_json::from_str(&read("t.json")).expect("it is JSON");
    assert!(trace["traceEvents"].as_array().is_some_and(|e| e.len() > 5));
    let page = read("p.html");
    common::is_whole_page(&page, "digits – brolga profile");
}

#[test]
fn what_cannot_be_is_said() {
    let dir = tempfile::tempdir().expect("there is room for temporary files");
    let model = digits();
    let model = arg(&model);
    for (args, words) in [
        (
            &["--html", "-", "--set", "batch=1"][..],
            "standard output has the profile itself",
        ),
        (
            &["--trace", "no/such/folder/t.json", "--set", "batch=1"],
            "no/such/folder",
        ),
        (&[], "give it a size with --set batch=N"),
        (&["--runs", "0"], "0 is not in 1.."),
    ] {
        let ran = brolga(dir.path(), &[&["profile", model, "--runs", "1"][..2], args].concat());
        assert_eq!(ran.status, 2, "{args:?}: {}", ran.out);
        assert!(ran.err.contains(words), "{args:?}: {}", ran.err);
    }
}

/// The map of a process, which is removed.
#[cfg(unix)]
fn map_of(args: &[&str], variable: Option<&str>) -> (String, Option<String>) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_brolga"));
    command.args(args).stdout(Stdio::null()).stderr(Stdio::piped());
    command.env_remove("BROLGA_PERF_MAP").env_remove("PERF_BUILDID_DIR");
    if let Some(value) = variable {
        command.env("BROLGA_PERF_MAP", value);
    }
    let child = command.spawn().expect("the binary was built");
    let path = format!("/tmp/perf-{}.map", child.id());
    let out = child.wait_with_output().expect("it ends");
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    let map = std::fs::read_to_string(&path).ok();
    if map.is_some() {
        std::fs::remove_file(&path).expect("it was there");
    }
    (path, map)
}

#[test]
#[cfg(unix)]
fn perf_sees_kernels_by_name() {
    let model = digits();
    let model = arg(&model);
    let run = ["run", model, "--set", "batch=1"];
    let flag = [&run[..], &["--perf-map"]].concat();
    let profile = ["profile", model, "--set", "batch=1", "--runs", "1", "--perf-map"];
    for (args, variable) in [(&run[..], Some("1")), (&flag, None), (&profile, None)] {
        let (path, map) = map_of(args, variable);
        let map = map.unwrap_or_else(|| panic!("no {path}"));
        let mut functions = vec![];
        for line in map.lines() {
            let mut words = line.split(' ');
            let mut number = || {
                let word = words.next().unwrap_or_default();
                u64::from_str_radix(word, 16).unwrap_or_else(|e| panic!("{line}: {e}"))
            };
            let (address, bytes) = (number(), number());
            assert!(address > 0 && bytes > 0, "{line}");
            functions.push((address, bytes, words.collect::<Vec<_>>().join(" ")));
        }
        functions.sort();
        assert!(
            functions.windows(2).all(|w| w[0].0 + w[0].1 <= w[1].0),
            "they overlap:\n{map}"
        );
        let named = |part: &str| functions.iter().any(|(.., name)| name.contains(part));
        assert!(named("digits_run") && named("conv"), "{map}");
    }
    for variable in [None, Some(""), Some("0")] {
        assert_eq!(map_of(&run, variable).1, None);
    }
}
