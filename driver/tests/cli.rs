//! The command line: each command, what it prints, its exit status, and the files that it writes.

mod common;

use brolga::ir::{DType, Number, Tensor};
use brolga::npy::{read_npz, write_npz};
use common::{arg, brolga, digits, files, images, json, ok, zeros_npy};
use serde_json::Value;
use std::io::Write;
use std::process::{Command, Stdio};

#[test]
fn help_names_commands_options_and_passes() {
    let dir = tempfile::tempdir().expect("there is room for temporary files");
    let text = ok(dir.path(), &["--help"]).out;
    for word in ["run", "compile", "opt", "emit", "info", "Usage:", "Examples:"] {
        assert!(text.contains(word), "no `{word}` in {text}");
    }
    for (command, words) in [
        (
            "run",
            &[
                "--input",
                "--inputs",
                "--set",
                "--output",
                "--expect",
                "--tolerance",
                "--threads",
                "--time",
                "--device",
            ][..],
        ),
        (
            "compile",
            &[
                "--output",
                "--header",
                "--weights",
                "--alias",
                "--target",
                "x86-64-v3",
                "sm_90",
                "--memory-limit",
                ".brolga",
            ],
        ),
        ("opt", &["--pipeline", "--print-ir-after", "--verify-each", "--remarks"]),
        (
            "profile",
            &[
                "--inputs",
                "--set",
                "--threads",
                "--runs",
                "--all",
                "--trace",
                "--html",
                "--counters",
                "--perf-map",
            ],
        ),
        (
            "emit",
            &[
                "--stage",
                "tensor",
                "structured",
                "loops",
                "program",
                "clif",
                "asm",
                "ptx",
            ],
        ),
        ("info", &["--json"]),
    ] {
        let text = ok(dir.path(), &[command, "--help"]).out;
        for word in words {
            assert!(text.contains(word), "{command} --help has no `{word}`:\n{text}");
        }
    }
    assert!(ok(dir.path(), &["--version"]).out.starts_with("brolga "));
}

#[test]
fn run_reads_writes_and_compares() {
    let dir = tempfile::tempdir().expect("there is room for temporary files");
    let (x, labels) = images();
    write_npz(&dir.path().join("in.npz"), &[("images".into(), x)]).expect("a file is written");
    let model = digits();
    ok(
        dir.path(),
        &["run", arg(&model), "--inputs", "in.npz", "--output", "out.npz"],
    );
    let out = read_npz(&dir.path().join("out.npz")).expect("it was written");
    assert_eq!(out.len(), 1);
    let (name, logits) = &out[0];
    assert_eq!((name.as_str(), logits.shape()), ("logits", &[360, 10][..]));
    let scores = logits.to_f64s();
    let right = scores
        .chunks(10)
        .zip(&labels)
        .filter(|(s, l)| (0..10).all(|i| s[i] <= s[**l as usize]))
        .count();
    // As PyTorch and ONNX Runtime count on the same file.
    assert_eq!(right, 356);

    // The outputs compare equal to themselves, on other numbers of threads and from an artefact too.
    let expect = ["--inputs", "in.npz", "--expect", "out.npz", "--tolerance", "1e-6"];
    ok(
        dir.path(),
        &[&["compile", arg(&model), "-o", "digits.brolga"][..]].concat(),
    );
    for (m, threads) in [(arg(&model), "1"), (arg(&model), "2"), ("digits.brolga", "2")] {
        let report = json(
            dir.path(),
            &[&["run", m, "--threads", threads, "--json"], &expect[..]].concat(),
        );
        assert_eq!(report["differences"][0]["ok"], true, "{report:#}");
        assert_eq!(report["threads"], threads.parse::<u64>().expect("a number"));
    }
    // And unequal to others: status 1, which is no error.
    let other = Tensor::from_fn(DType::F32, &[360, 10], |i| {
        Number::Float(scores[i] + if i == 77 { 1.0 } else { 0.0 })
    });
    write_npz(&dir.path().join("out.npz"), &[("logits".into(), other)]).expect("a file is written");
    let ran = brolga(dir.path(), &[&["run", arg(&model)], &expect[..]].concat());
    assert_eq!((ran.status, ran.err.as_str()), (1, ""), "{}", ran.out);
    assert!(ran.out.contains("DIFFERS"), "{}", ran.out);
}

#[test]
fn run_takes_npy_and_symbols() {
    let dir = tempfile::tempdir().expect("there is room for temporary files");
    let model = digits();
    std::fs::write(dir.path().join("x.npy"), zeros_npy("(1, 1, 8, 8)", 64)).expect("a file is written");
    ok(dir.path(), &["run", arg(&model), "--input", "images=x.npy"]);
    let report = json(
        dir.path(),
        &["run", arg(&model), "--set", "batch=3", "--time", "5", "--json"],
    );
    assert_eq!(report["outputs"][0]["shape"], serde_json::json!([3, 10]));
    assert_eq!(report["seconds"]["run"]["runs"], 5);
    for phase in ["load", "compile", "first_run"] {
        assert!(
            report["seconds"][phase].as_f64().is_some_and(|s| s >= 0.0),
            "{report:#}"
        );
    }
    let text = ok(dir.path(), &["run", arg(&model), "--set", "batch=3", "--time", "2"]).out;
    assert!(text.contains("median") && text.contains("compile"), "{text}");
}

#[test]
fn outputs_may_be_the_memory_of_inputs() {
    let dir = tempfile::tempdir().expect("there is room for temporary files");
    let text = "graph @cache(%0 past: f32[8, 4], %1 at: i64[1, 1], %2 row: f32[1, 4]) {
      %3 = scatter_nd{reduction=none}(%0, %1, %2) @\"update\"
      return present = %3
    }";
    std::fs::write(dir.path().join("cache.txt"), text).expect("a file is written");
    let alias = ["--alias", "past=present"];
    let compile = ["compile", "cache.txt", "-o", "cache.o", "--header", "cache.h"];
    ok(dir.path(), &[&compile[..], &alias].concat());
    let header = std::fs::read_to_string(dir.path().join("cache.h")).expect("it was written");
    assert!(header.contains("#define CACHE_OUTPUT_0_ALIAS 0"), "{header}");
    let emit = ["emit", "cache.txt", "--stage", "program"];
    let program = ok(dir.path(), &[&emit[..], &alias].concat()).out;
    assert!(program.contains("output s3: f32[8, 4] = 0 over s0"), "{program}");
    assert!(program.contains("copy s0 -> s3"), "{program}");
    // The text says it, so it goes on from there; asked for again, it is an error where it was not declared.
    std::fs::write(dir.path().join("program.txt"), &program).expect("a file is written");
    ok(dir.path(), &[&["run", "program.txt"], &alias[..]].concat());
    let plain = ok(dir.path(), &emit).out;
    std::fs::write(dir.path().join("plain.txt"), &plain).expect("a file is written");
    let ran = brolga(
        dir.path(),
        &[&["compile", "plain.txt", "-o", "p.o"], &alias[..]].concat(),
    );
    assert_eq!(ran.status, 2);
    assert!(ran.err.contains("the pass `bufferize` declares that"), "{}", ran.err);
    let ran = brolga(dir.path(), &[&compile[..], &["--alias", "past=future"]].concat());
    assert!(
        ran.err.contains("there is no such output, expected one of `present`"),
        "{}",
        ran.err
    );
}

#[test]
fn compile_writes_what_the_extension_says() {
    let dir = tempfile::tempdir().expect("there is room for temporary files");
    let model = digits();
    let report = json(
        dir.path(),
        &[
            "compile",
            arg(&model),
            "-o",
            "d.o",
            "--header",
            "d.h",
            "--weights",
            "d.weights",
            "--prefix",
            "net",
            "--json",
        ],
    );
    assert_eq!(report["output"], "d.o");
    let header = std::fs::read_to_string(dir.path().join("d.h")).expect("it was written");
    assert!(
        header.contains("net_run(") && header.contains("BROLGA_ABI_VERSION"),
        "{header}"
    );
    let weights = std::fs::metadata(dir.path().join("d.weights"))
        .expect("it was written")
        .len();
    assert_eq!(report["weights_bytes"], weights);
    ok(dir.path(), &["compile", arg(&model), "-o", "d.a"]);
    ok(
        dir.path(),
        &[
            "compile",
            arg(&model),
            "-o",
            "again.o",
            "--weights",
            "d.weights",
            "--prefix",
            "net",
        ],
    );
    ok(
        dir.path(),
        &[
            "compile",
            arg(&model),
            "-o",
            "arm.o",
            "--target",
            "aarch64-unknown-linux-gnu",
        ],
    );
    ok(
        dir.path(),
        &["compile", arg(&model), "-o", "d.brolga", "--target", "x86-64"],
    );
    assert_eq!(
        files(dir.path()),
        ["again.o", "arm.o", "d.a", "d.brolga", "d.h", "d.o", "d.weights"]
    );
    let bytes = |name: &str| std::fs::read(dir.path().join(name)).expect("it was written");
    assert!(bytes("d.o") == bytes("again.o"), "compiling twice gives two objects");
    assert!(bytes("d.a").starts_with(b"!<arch>\n"));
    // e_machine of ELF: 183 is AArch64.
    assert_eq!(bytes("arm.o")[18..20], 183u16.to_le_bytes());
    let info = json(dir.path(), &["info", "d.brolga", "--json"]);
    assert_eq!(info["inputs"][0], "images: f32[batch, 1, 8, 8]");
}

#[test]
fn info_tells_what_a_model_holds() {
    let dir = tempfile::tempdir().expect("there is room for temporary files");
    let model = digits();
    let info = json(dir.path(), &["info", arg(&model), "--json"]);
    assert_eq!(info["inputs"][0]["name"], "images");
    assert_eq!(info["inputs"][0]["shape"], serde_json::json!(["batch", "1", "8", "8"]));
    assert_eq!(info["problem"], Value::Null);
    let conv = info["operators"]
        .as_array()
        .and_then(|o| o.iter().find(|o| o["operator"] == "Conv"));
    assert_eq!(conv.map(|c| &c["count"]), Some(&serde_json::json!(2)));
    // 2 * (8*8*16*9 + 4*4*32*16*9 + 128*160 + 160*10) floating-point operations an image.
    assert_eq!(
        json(dir.path(), &["info", arg(&model), "--set", "batch=1", "--json"])["flops"],
        210_048
    );
    // Options that would do nothing are none.
    assert_eq!(brolga(dir.path(), &["info", arg(&model), "--remarks"]).status, 2);
    let text = ok(dir.path(), &["info", arg(&model)]).out;
    assert!(
        text.contains("supported    yes") && text.contains("210048*batch"),
        "{text}"
    );
    // What is not supported is told, not an error.
    let odd = common::model(&[2], vec![common::node("Frobnicate", &["x"], "y")], vec![]);
    let bytes = onnx_protobuf::Message::write_to_bytes(&odd).expect("it encodes");
    std::fs::write(dir.path().join("odd.onnx"), bytes).expect("a file is written");
    let text = ok(dir.path(), &["info", "odd.onnx"]).out;
    assert!(text.contains("Frobnicate") && text.contains("not supported"), "{text}");
}

#[test]
fn emit_prints_every_level() {
    let dir = tempfile::tempdir().expect("there is room for temporary files");
    let model = digits();
    for (stage, word) in [
        ("tensor", "graph @digits("),
        ("structured", "program @digits("),
        ("loops", "loops @"),
        ("program", "arena"),
        ("clif", "function"),
        ("asm", "ret"),
        ("ptx", ".visible .entry"),
    ] {
        let text = ok(dir.path(), &["emit", arg(&model), "--stage", stage]).out;
        assert!(text.contains(word), "{stage} has no `{word}`:\n{text}");
        ok(dir.path(), &["emit", arg(&model), "--stage", stage, "-o", "out.txt"]);
        let file = std::fs::read_to_string(dir.path().join("out.txt")).expect("it was written");
        assert!(file == text, "{stage}: the file is not what is printed");
    }
}

#[test]
fn opt_reads_and_writes_text() {
    let dir = tempfile::tempdir().expect("there is room for temporary files");
    let text = "graph @g(%0 x: f32[4, 4]) {\n  %1 = transpose{perm=[1, 0]}(%0)\n  %2 = transpose{perm=[1, 0]}(%1)\n  \
                %3 = relu(%2)\n  return y = %3\n}\n";
    std::fs::write(dir.path().join("g.txt"), text).expect("a file is written");
    let out = ok(dir.path(), &["opt", "g.txt", "--pipeline", "eqsat"]).out;
    assert!(
        !out.contains("transpose") && out.contains("relu") && out.contains("store"),
        "{out}"
    );
    // What it prints it reads again, from a pipe too.
    let mut child = Command::new(env!("CARGO_BIN_EXE_brolga"))
        .args(["opt", "-", "--pipeline", "canonicalize"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the binary was built");
    child
        .stdin
        .take()
        .expect("it is piped")
        .write_all(out.as_bytes())
        .expect("it reads");
    let again = common::ran(child.wait_with_output().expect("it ends"));
    assert_eq!((again.status, again.out.as_str()), (0, out.as_str()), "{}", again.err);
    let ran = ok(
        dir.path(),
        &[
            "opt",
            "g.txt",
            "--pipeline",
            "eqsat",
            "--remarks",
            "--verify-each",
            "--print-ir-after",
            "eqsat",
        ],
    );
    assert!(
        ran.err.contains("note: ") && ran.err.contains("graph @g("),
        "{}",
        ran.err
    );
    // No colours where nobody sees them.
    assert!(!ran.err.contains('\x1b') && !ran.out.contains('\x1b'));
    let unfused = ok(dir.path(), &["opt", "g.txt", "--rules", "none"]).out;
    assert!(
        unfused.matches("store").count() > out.matches("store").count(),
        "{unfused}"
    );
}

#[test]
fn pipelines_lead_from_any_level_to_any_below() {
    let dir = tempfile::tempdir().expect("there is room for temporary files");
    let file = |name: &str| std::fs::read_to_string(dir.path().join(name)).expect("it was written");
    let text = "graph @g(%0 x: f32[4, 40]) {\n  %1 = softmax{axis=1 zeros=never}(%0)\n  return y = %1\n}\n";
    std::fs::write(dir.path().join("g.txt"), text).expect("a file is written");
    let program = ok(dir.path(), &["emit", "g.txt", "--stage", "program"]).out;
    // At once, and with a stop at every level.
    let all = "canonicalize,eqsat,lower,schedule,plan-memory";
    assert_eq!(ok(dir.path(), &["opt", "g.txt", "--passes", all]).out, program);
    ok(
        dir.path(),
        &[
            "opt",
            "g.txt",
            "--passes",
            "canonicalize,eqsat,lower,choose",
            "-o",
            "kernels.txt",
        ],
    );
    assert!(
        file("kernels.txt").contains("\n  schedule rows{lanes="),
        "{}",
        file("kernels.txt")
    );
    let ran = ok(
        dir.path(),
        &[
            "opt",
            "kernels.txt",
            "--passes",
            "schedule",
            "-o",
            "loops.txt",
            "--print-ir-after",
            "schedule",
        ],
    );
    assert!(ran.err.contains("// after schedule\nprogram @g("), "{}", ran.err);
    assert_eq!(
        ok(dir.path(), &["opt", "loops.txt", "--passes", "plan-memory"]).out,
        program
    );
    assert_eq!(
        ok(dir.path(), &["emit", "kernels.txt", "--stage", "program"]).out,
        program
    );
    // An edited schedule is followed, or refused with its reason.
    let edited = |from: &str, to: &str| {
        let (before, after) = (file("kernels.txt"), file("kernels.txt").replace(from, to));
        assert_ne!(before, after, "no `{from}`");
        std::fs::write(dir.path().join("edited.txt"), after).expect("a file is written");
        brolga(dir.path(), &["emit", "edited.txt", "--stage", "program"])
    };
    let text = file("kernels.txt");
    // How many lanes a machine has is its own.
    let at = text.find("rows{lanes=").expect("the reduction runs in rows");
    let chosen = &text[at..at + text[at..].find(',').expect("more fields follow")];
    let ran = edited(chosen, "rows{lanes=4");
    assert!(
        ran.status == 0 && ran.out != program && ran.out.contains("vector 0..4"),
        "{}",
        ran.err
    );
    for (from, to, why) in [
        (
            chosen,
            "rows{lanes=9",
            "rows: lanes=9, expected a power of two up to 64",
        ),
        (
            "rows{lanes=",
            "rows{speed=",
            "`rows` has no field `speed`, expected lanes",
        ),
    ] {
        let ran = edited(from, to);
        assert!(ran.status == 2 && ran.err.contains(why), "{}", ran.err);
    }
    for (args, why) in [
        (
            &["opt", "g.txt", "--passes", "schedule"][..],
            "pass `schedule`: found a tensor graph, expected structured kernels",
        ),
        (
            &["opt", "kernels.txt", "--passes", "eqsat"],
            "pass `eqsat`: found structured kernels, expected a tensor graph: levels go down only",
        ),
        (
            &["opt", "g.txt", "--print-ir-after", "tile"],
            "there is no pass `tile` to print after, expected all or one of bufferize",
        ),
    ] {
        let ran = brolga(dir.path(), args);
        assert!(ran.status == 2 && ran.err.contains(why), "{}", ran.err);
    }
}

#[test]
fn no_device_is_a_clear_error() {
    let dir = tempfile::tempdir().expect("there is room for temporary files");
    let ran = brolga(
        dir.path(),
        &["run", arg(&digits()), "--set", "batch=1", "--device", "cuda"],
    );
    // With a GPU it runs; without one it says so.
    assert!(
        ran.status == 0 || (ran.status == 2 && ran.err.starts_with("error: ") && ran.err.contains("CUDA")),
        "{}",
        ran.err
    );
    assert!(!ran.err.contains("panicked"), "{}", ran.err);
}
