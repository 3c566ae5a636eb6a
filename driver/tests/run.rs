//! `brolga run`: what it compares, what it takes for inputs and sizes, and the levels that it runs.

mod common;

use brolga::ir::{DType, Number, Tensor};
use brolga::npy::write_npz;
use common::{arg, brolga, digits, images, ok, zeros_npy};
use serde_json::Value;

/// A comparison fails on what cannot be compared, too: status 1, and the report says what it is.
#[test]
fn expectations_are_complete() {
    let dir = tempfile::tempdir().expect("there is room for temporary files");
    let text = "graph @g(%0 x: f32[2]) {\n  %1 = relu(%0)\n  %2 = neg(%0)\n  return y = %1, z = %2\n}\n";
    std::fs::write(dir.path().join("g.txt"), text).expect("a file is written");
    let npz = |name: &str, arrays: &[(&str, Tensor)]| {
        let arrays: Vec<(String, Tensor)> = arrays.iter().map(|(n, t)| ((*n).to_owned(), t.clone())).collect();
        write_npz(&dir.path().join(name), &arrays).expect("a file is written");
    };
    let f32s = |values: &[f64]| Tensor::from_fn(DType::F32, &[values.len()], |i| Number::Float(values[i]));
    npz("in.npz", &[("x", f32s(&[1.0, -2.0]))]);
    let (y, z) = (f32s(&[1.0, 0.0]), f32s(&[-1.0, 2.0]));
    /// What it is, the reference file's arrays, the status, and what the message holds.
    type Case<'a> = (&'a str, Vec<(&'a str, Tensor)>, i32, &'a [&'a str]);
    let cases: [Case; 6] = [
        ("all", vec![("y", y.clone()), ("z", z.clone())], 0, &["y: ", "z: "]),
        (
            "nothing",
            vec![],
            1,
            &["y: missing in the reference", "z: missing in the reference"],
        ),
        (
            "one missing",
            vec![("y", y.clone())],
            1,
            &["z: missing in the reference"],
        ),
        (
            "one too many",
            vec![("y", y.clone()), ("z", z.clone()), ("w", z.clone())],
            1,
            &["w: no output of the model", "`y`, `z`"],
        ),
        (
            "another dtype",
            vec![("y", y.cast(DType::F64)), ("z", z.clone())],
            1,
            &["y: it is f32, expected f64"],
        ),
        (
            "another shape",
            vec![("y", y.reshaped(&[2, 1])), ("z", z.clone())],
            1,
            &["y: it has shape [2], expected [2, 1]"],
        ),
    ];
    for (what, references, status, needles) in cases {
        npz("ref.npz", &references);
        let args = ["run", "g.txt", "--inputs", "in.npz", "--expect", "ref.npz"];
        let ran = brolga(dir.path(), &args);
        assert_eq!((ran.status, ran.err.as_str()), (status, ""), "{what}: {}", ran.out);
        for n in needles {
            assert!(ran.out.contains(n), "{what}: no `{n}` in {}", ran.out);
        }
        let ran = brolga(dir.path(), &[&args[..], &["--json"]].concat());
        let report: Value = serde_json::from_str(&ran.out).expect("it prints JSON");
        let all_ok = report["differences"]
            .as_array()
            .is_some_and(|d| d.iter().all(|d| d["ok"] == true));
        assert_eq!((ran.status, all_ok), (status, status == 0), "{what}: {report:#}");
    }
}

/// Sizes that are given agree with the inputs, from a model, an artefact and a program.
#[test]
fn sizes_and_inputs_agree() {
    let dir = tempfile::tempdir().expect("there is room for temporary files");
    let (x, _) = images();
    write_npz(&dir.path().join("in.npz"), &[("images".into(), x)]).expect("a file is written");
    let model = digits();
    ok(dir.path(), &["compile", arg(&model), "-o", "digits.brolga"]);
    ok(
        dir.path(),
        &["emit", arg(&model), "--stage", "loops", "-o", "digits.txt"],
    );
    for m in [arg(&model), "digits.brolga", "digits.txt"] {
        let run = |args: &[&str]| brolga(dir.path(), &[&["run", m, "--inputs", "in.npz"], args].concat());
        assert_eq!(run(&["--set", "batch=360"]).status, 0, "{m}");
        assert_eq!(run(&["--set", "batch=360", "--set", "batch=360"]).status, 0, "{m}");
        for (args, needle) in [
            (&["--set", "batch=3"][..], "360"),
            (&["--set", "batch=3", "--set", "batch=360"], "contradict"),
            (&["--set", "seq=3"], "`batch`"),
        ] {
            let ran = run(args);
            assert_eq!(ran.status, 2, "{m} {args:?}: {}", ran.out);
            assert!(
                ran.err.starts_with("error: ") && ran.err.contains(needle),
                "{m} {args:?}: {}",
                ran.err
            );
        }
    }
}

/// A version for the sizes of the inputs agrees with the general program; what is compiled already has none.
#[test]
fn a_model_is_specialised_for_its_inputs() {
    let dir = tempfile::tempdir().expect("there is room for temporary files");
    let (x, _) = images();
    write_npz(&dir.path().join("in.npz"), &[("images".into(), x)]).expect("a file is written");
    let model = digits();
    ok(
        dir.path(),
        &["run", arg(&model), "--inputs", "in.npz", "--output", "out.npz"],
    );
    let version = [
        "--inputs",
        "in.npz",
        "--specialise",
        "--expect",
        "out.npz",
        "--tolerance",
        "1e-5",
    ];
    let ran = ok(dir.path(), &[&["run", arg(&model)], &version[..]].concat());
    assert!(ran.err.contains("ran a version for "), "{}", ran.err);
    ok(dir.path(), &["compile", arg(&model), "-o", "digits.brolga"]);
    let ran = brolga(dir.path(), &[&["run", "digits.brolga"], &version[..]].concat());
    assert_eq!(ran.status, 2, "{}", ran.out);
    assert!(ran.err.contains("cannot be specialised"), "{}", ran.err);
}

#[test]
fn an_input_is_given_once() {
    let dir = tempfile::tempdir().expect("there is room for temporary files");
    let model = digits();
    std::fs::write(dir.path().join("a.npy"), zeros_npy("(1, 1, 8, 8)", 64)).expect("a file is written");
    let zeros = Tensor::splat(DType::F32, &[1, 1, 8, 8], Number::Int(0));
    write_npz(&dir.path().join("in.npz"), &[("images".into(), zeros)]).expect("a file is written");
    for args in [
        &["--inputs", "in.npz", "--input", "images=a.npy"][..],
        &["--input", "images=a.npy", "--input", "images=a.npy"],
    ] {
        let ran = brolga(dir.path(), &[&["run", arg(&model)], args].concat());
        assert_eq!(ran.status, 2, "{args:?}: {}", ran.out);
        assert!(ran.err.contains("input `images` is given a second time"), "{}", ran.err);
    }
}

/// Extents whose product does not fit, even where one of them is 0.
#[test]
fn extents_beyond_64_bits_are_errors() {
    let dir = tempfile::tempdir().expect("there is room for temporary files");
    let text = "graph @g(%0 x: f32[a, b, c]) {\n  %1 = relu(%0)\n  return y = %1\n}\n";
    std::fs::write(dir.path().join("g.txt"), text).expect("a file is written");
    ok(dir.path(), &["compile", "g.txt", "-o", "g.brolga"]);
    for m in ["g.txt", "g.brolga"] {
        for (a, b, c) in [
            ("4294967296", "4294967296", "0"),
            ("0", "4294967296", "4294967296"),
            ("4294967296", "4294967296", "1"),
            ("9223372036854775807", "0", "9223372036854775807"),
            ("2147483648", "2147483648", "2147483648"),
        ] {
            let sizes = [format!("a={a}"), format!("b={b}"), format!("c={c}")];
            let sizes: Vec<&str> = sizes.iter().flat_map(|s| ["--set", s]).collect();
            let ran = brolga(dir.path(), &[&["run", m], &sizes[..]].concat());
            assert_eq!(ran.status, 2, "{m} {sizes:?}: {}{}", ran.out, ran.err);
            assert!(
                ran.err.contains("error: ") && !ran.err.contains("panicked"),
                "{}",
                ran.err
            );
        }
        ok(dir.path(), &["run", m, "--set", "a=3", "--set", "b=0", "--set", "c=2"]);
    }
}

/// What is printed at any level is a model, and runs with the same options.
#[test]
fn every_level_that_is_printed_runs() {
    let dir = tempfile::tempdir().expect("there is room for temporary files");
    let (x, _) = images();
    write_npz(&dir.path().join("in.npz"), &[("images".into(), x)]).expect("a file is written");
    let model = digits();
    ok(
        dir.path(),
        &["run", arg(&model), "--inputs", "in.npz", "--output", "ref.npz"],
    );
    for stage in ["tensor", "structured", "loops", "program"] {
        let text = format!("{stage}.txt");
        ok(dir.path(), &["emit", arg(&model), "--stage", stage, "-o", &text]);
        for options in [
            &["--threads", "1"][..],
            &["--threads", "2", "--verify-each"],
            &["--target", "x86-64"],
            &["--set", "batch=360"],
            &["--memory-limit", "1G", "--time", "2"],
        ] {
            let args = [
                "run",
                &text,
                "--inputs",
                "in.npz",
                "--expect",
                "ref.npz",
                "--tolerance",
                "1e-6",
            ];
            if cfg!(target_arch = "x86_64") || options[0] != "--target" {
                ok(dir.path(), &[&args[..], options].concat());
            }
        }
        ok(dir.path(), &["run", &text, "--set", "batch=2"]);
        if stage == "tensor" {
            continue;
        }
        // It goes on to what the model goes on to; levels go down only.
        ok(dir.path(), &["compile", &text, "-o", "from_text.o"]);
        ok(dir.path(), &["compile", arg(&model), "-o", "from_model.o"]);
        let bytes = |name: &str| std::fs::read(dir.path().join(name)).expect("it was written");
        assert!(
            bytes("from_text.o") == bytes("from_model.o"),
            "{stage} goes on to another object"
        );
        let program = |model: &str| ok(dir.path(), &["emit", model, "--stage", "program"]).out;
        assert_eq!(program(&text), program(arg(&model)), "{stage}");
        let ran = brolga(dir.path(), &["emit", &text, "--stage", "tensor"]);
        assert!(ran.status == 2 && ran.err.contains(&text), "{}", ran.err);
    }
    // Comments may stand before it; an error names the line.
    let text = std::fs::read_to_string(dir.path().join("loops.txt")).expect("it was written");
    std::fs::write(dir.path().join("loops.txt"), format!("// edited\n\n{text}")).expect("a file is written");
    ok(
        dir.path(),
        &["run", "loops.txt", "--inputs", "in.npz", "--expect", "ref.npz"],
    );
    let broken = text.replacen("  output ", "  outputs ", 1);
    std::fs::write(dir.path().join("loops.txt"), broken).expect("a file is written");
    let ran = brolga(dir.path(), &["run", "loops.txt", "--inputs", "in.npz"]);
    assert!(ran.status == 2 && ran.err.contains("loops.txt:"), "{}", ran.err);
    let kernels = &text[text.find("\nloops @").expect("it has kernels") + 1..];
    std::fs::write(dir.path().join("loops.txt"), kernels).expect("a file is written");
    let ran = brolga(dir.path(), &["run", "loops.txt", "--inputs", "in.npz"]);
    assert!(ran.status == 2 && ran.err.contains("expected `program`"), "{}", ran.err);
}

#[test]
fn remarks_are_printed_by_every_command_that_compiles() {
    let dir = tempfile::tempdir().expect("there is room for temporary files");
    let model = digits();
    for args in [
        &["run", arg(&model), "--set", "batch=1"][..],
        &["compile", arg(&model), "-o", "d.brolga"],
        &["emit", arg(&model), "--stage", "asm"],
        &["opt", arg(&model)],
    ] {
        let without = ok(dir.path(), args).err.lines().count();
        let with = ok(dir.path(), &[args, &["--remarks"]].concat()).err;
        assert!(
            with.lines().count() > without && with.contains("note: "),
            "{args:?}: {with}"
        );
    }
    // What ran its passes before says that there is nothing to remark.
    let ran = ok(
        dir.path(),
        &["run", "d.brolga", "--set", "batch=1", "--remarks", "--rules", "none"],
    );
    assert!(
        ran.err.contains("--remarks changes nothing") && ran.err.contains("--rules changes nothing"),
        "{}",
        ran.err
    );
}

/// A program whose output has an extent that only the run tells is printed with the extent that it has.
#[test]
fn extents_that_only_the_run_tells_are_printed() {
    let dir = tempfile::tempdir().expect("there is room for temporary files");
    let program = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/programs/head.ir");
    let inputs = |k: i128| {
        let x = Tensor::from_f32(&[3], &[1.0, 2.0, 3.0]);
        let k = Tensor::splat(DType::I64, &[], Number::Int(k));
        let all = [("x".to_owned(), x), ("k".to_owned(), k)];
        brolga::npy::write_npz(&dir.path().join("in.npz"), &all).expect("a file is written");
    };
    inputs(2);
    let out = ok(dir.path(), &["run", program, "--inputs", "in.npz"]).out;
    assert!(out.starts_with("y: f32[4] = [1, 2, 2, 4]\nz: f32[6] = ["), "{out}");
    ok(dir.path(), &["compile", program, "-o", "head.brolga"]);
    let again = ok(dir.path(), &["run", "head.brolga", "--inputs", "in.npz"]).out;
    assert_eq!(out, again);
    inputs(4);
    let ran = brolga(dir.path(), &["run", program, "--inputs", "in.npz"]);
    assert_eq!(ran.status, 2);
    assert!(
        ran.err.contains("node `Shape_0`") && ran.err.contains("a size from 0 to n, found 4; here n = 3"),
        "{}",
        ran.err
    );
}
