//! What the command line says where something does not fit together: which option, which file, what to do.

mod common;

use brolga::ir::{DType, Number, Strings, Tensor};
use common::{arg, brolga, digits, files, ints, json, model, node, ok, value};
use onnx_protobuf::{
    AttributeProto, Message, ModelProto, NodeProto, TensorProto, ValueInfoProto, attribute_proto::AttributeType,
    type_proto::Value as TypeValue,
};
use serde_json::Value;
use std::path::Path;

fn folder() -> tempfile::TempDir {
    tempfile::tempdir().expect("there is room for temporary files")
}

fn write(dir: &Path, name: &str, m: &ModelProto) {
    std::fs::write(dir.join(name), m.write_to_bytes().expect("it is serialised")).expect("a file is written");
}

fn npz(dir: &Path, name: &str, arrays: &[(&str, Tensor)]) {
    let arrays: Vec<(String, Tensor)> = arrays.iter().map(|(n, t)| (n.to_string(), t.clone())).collect();
    brolga::npy::write_npz(&dir.join(name), &arrays).expect("a file is written");
}

fn typed(name: &str, elem_type: i32, dims: &[i64]) -> ValueInfoProto {
    let mut v = value(name, dims);
    if let Some(TypeValue::TensorType(t)) = &mut v.type_.mut_or_insert_default().value {
        t.elem_type = elem_type;
    }
    v
}

fn int(name: &str, i: i64) -> AttributeProto {
    AttributeProto {
        name: name.into(),
        type_: AttributeType::INT.into(),
        i,
        ..Default::default()
    }
}

/// An error that says all of this, with exit status 2.
fn fails(dir: &Path, args: &[&str], said: &[&str]) -> String {
    let ran = brolga(dir, args);
    assert_eq!(ran.status, 2, "{args:?}: {}{}", ran.out, ran.err);
    for s in said {
        assert!(ran.err.contains(s), "{args:?}: `{s}` is not in {}", ran.err);
    }
    ran.out
}

/// Whether strings are equal to one that is an input, as numbers.
fn languages() -> ModelProto {
    let mut cast = node("Cast", &["e"], "y");
    cast.attribute = vec![int("to", 1)];
    let mut m = model(&[1], vec![node("Equal", &["words", "language"], "e"), cast], vec![]);
    m.graph.mut_or_insert_default().input = vec![typed("words", 8, &[3]), typed("language", 8, &[1])];
    m
}

#[test]
fn strings_are_pinned() {
    let dir = folder();
    write(dir.path(), "m.onnx", &languages());
    let strings = Strings::default();
    strings.scope(|| {
        let words = strings.tensor(&[3], &["en", "a,b", "de"]).expect("three");
        npz(dir.path(), "in.npz", &[("words", words)]);
    });
    for (pin, expected) in [
        ("language=en", "[1, 0, 0]"),
        ("language=a,b", "[0, 1, 0]"),
        ("language=", "[0, 0, 0]"),
    ] {
        let ran = ok(dir.path(), &["run", "m.onnx", "--inputs", "in.npz", "--pin", pin]);
        assert!(ran.out.contains(expected), "{pin}: {}", ran.out);
    }
    let ran = ok(
        dir.path(),
        &["run", "m.onnx", "--pin", "words=en,de,en", "--pin", "language=de"],
    );
    assert!(ran.out.contains("[0, 1, 0]"), "{}", ran.out);
    fails(
        dir.path(),
        &["run", "m.onnx", "--pin", "words=a,b"],
        &["2 strings for str[3]"],
    );
    // A file of strings is one, too; a file of one array is what `.npz` files hold.
    strings.scope(|| {
        let language = strings.tensor(&[1], &["de"]).expect("one");
        npz(dir.path(), "language.npz", &[("l", language)]);
    });
    let bytes = std::fs::read(dir.path().join("language.npz")).expect("it was written");
    let start = bytes.windows(6).position(|w| w == b"\x93NUMPY").expect("an array");
    std::fs::write(dir.path().join("language.npy"), &bytes[start..start + 128 + 8]).expect("a file is written");
    let ran = ok(
        dir.path(),
        &["run", "m.onnx", "--inputs", "in.npz", "--pin", "language=@language.npy"],
    );
    assert!(ran.out.contains("[0, 0, 1]"), "{}", ran.out);

    let numbers = model(&[2], vec![node("Relu", &["x"], "y")], vec![]);
    write(dir.path(), "n.onnx", &numbers);
    fails(
        dir.path(),
        &["run", "n.onnx", "--pin", "x=en"],
        &["input `x`", "`en` is no number", "NAME=@FILE.npy"],
    );
    // An input that is pinned is none.
    npz(dir.path(), "x.npz", &[("x", Tensor::from_f32(&[2], &[1.0, 2.0]))]);
    fails(
        dir.path(),
        &["run", "n.onnx", "--pin", "x=1,2", "--inputs", "x.npz"],
        &["input `x` is given, and pinned", "--pin", "leave out one"],
    );
}

#[test]
fn failed_checks_name_extents_and_numbers() {
    let dir = folder();
    let top = NodeProto {
        output: vec!["y".into(), "i".into()],
        ..node("TopK", &["v", "k"], "y")
    };
    let mut m = model(&[-1], vec![top], vec![]);
    m.graph.mut_or_insert_default().input = vec![value("v", &[-1]), typed("k", 7, &[1])];
    write(dir.path(), "m.onnx", &m);
    for (k, found) in [(5, "found 5"), (-2, "found -2")] {
        let inputs = [
            ("v", Tensor::from_f32(&[3], &[1.0, 2.0, 3.0])),
            ("k", Tensor::splat(DType::I64, &[1], Number::Int(k))),
        ];
        npz(dir.path(), "in.npz", &inputs);
        fails(
            dir.path(),
            &["run", "m.onnx", "--inputs", "in.npz"],
            &[
                "node `the_y`",
                "expected a size from 0 to n",
                found,
                "n = 3 (axis 0 of input `v`)",
            ],
        );
    }
}

#[test]
fn failed_checks_explain_names_that_the_compiler_made_up() {
    let dir = folder();
    let mut m = model(&[-1, 4], vec![node("Reshape", &["x", "s"], "y")], vec![]);
    m.graph.mut_or_insert_default().input.push(typed("s", 7, &[2]));
    write(dir.path(), "m.onnx", &m);
    for (shape, found) in [
        ([5, 3], "found 15;"),
        ([1 << 62, 3], "found more than 64 bits can count;"),
    ] {
        let inputs = [
            ("x", Tensor::from_f32(&[3, 4], &[1.0; 12])),
            ("s", Tensor::from_i64(&[2], &shape)),
        ];
        npz(dir.path(), "in.npz", &inputs);
        fails(
            dir.path(),
            &["run", "m.onnx", "--inputs", "in.npz"],
            &[
                "expected n_the_y*n_the_y_2 == 4*n (node `the_y`), where data tell n_the_y and n_the_y_2 at node `the_y`",
                found,
                "here n = 3 (axis 0 of input `x`)",
            ],
        );
    }
}

#[test]
fn options_that_an_artefact_cannot_follow_are_said() {
    let dir = folder();
    let digits = digits();
    ok(dir.path(), &["compile", arg(&digits), "-o", "d.brolga"]);
    for command in ["run", "info"] {
        for (options, said) in [
            (&["--pin", "images=0"][..], "settled when an ONNX model is read"),
            (&["--input-shape", "images=1,64"], "settled when an ONNX model is read"),
            (&["--constant-defaults"], "defaults become constants"),
        ] {
            fails(
                dir.path(),
                &[&[command, "d.brolga"], options].concat(),
                &["d.brolga", said],
            );
        }
    }
    fails(
        dir.path(),
        &["info", "d.brolga", "--set", "batch=1"],
        &["set when it is compiled"],
    );
    let ran = ok(
        dir.path(),
        &[
            "run",
            "d.brolga",
            "--set",
            "batch=1",
            "--target",
            "x86-64",
            "--verify-each",
            "--print-ir-after",
            "all",
        ],
    );
    for option in ["--target", "--verify-each", "--print-ir-after"] {
        assert!(ran.err.contains(&format!("{option} changes nothing")), "{}", ran.err);
    }
    fails(
        dir.path(),
        &["compile", arg(&digits), "-o", "e.brolga", "--prefix", "p"],
        &["--prefix"],
    );
    fails(dir.path(), &["run", "d.brolga", "--tolerance", "1e-3"], &["--expect"]);
    for x in ["nan", "-1"] {
        let tolerance = format!("--tolerance={x}");
        fails(
            dir.path(),
            &["run", "d.brolga", "--expect", "r.npz", &tolerance],
            &["expected a number from 0 on"],
        );
    }
}

#[test]
fn nothing_is_left_of_outputs_that_cannot_all_be_written() {
    let dir = folder();
    let digits = digits();
    for (output, option) in [("d.o", "--header"), ("d.a", "--weights"), ("d.so", "--header")] {
        fails(
            dir.path(),
            &["compile", arg(&digits), "-o", output, option, "none/file"],
            &["none/file"],
        );
        assert_eq!(files(dir.path()), Vec::<String>::new());
    }
    ok(
        dir.path(),
        &[
            "compile",
            arg(&digits),
            "-o",
            "d.o",
            "--header",
            "d.h",
            "--weights",
            "d.w",
        ],
    );
    assert_eq!(files(dir.path()), ["d.h", "d.o", "d.w"]);
    // The object cannot be written, and its header is not either.
    fails(
        dir.path(),
        &["compile", arg(&digits), "-o", "none/d.o", "--header", "e.h"],
        &["none/d.o"],
    );
    assert_eq!(files(dir.path()), ["d.h", "d.o", "d.w"]);
}

#[test]
fn programs_get_errors_as_json() {
    let dir = folder();
    std::fs::write(dir.path().join("text.onnx"), "nothing").expect("a file is written");
    for args in [
        &["run", "text.onnx", "--json"][..],
        &["info", "none.onnx", "--json"],
        &["doctor", "text.onnx", "--json"],
        &["compile", "text.onnx", "-o", "t.o", "--json"],
        &["run", "text.onnx", "--threads", "many", "--json"],
    ] {
        let out = fails(dir.path(), args, &["error:"]);
        let report: Value = serde_json::from_str(&out).unwrap_or_else(|e| panic!("{args:?}: {e}: {out}"));
        assert!(report["error"].as_str().is_some_and(|e| e.len() > 10), "{out}");
        assert_eq!(report.as_object().map(|o| o.len()), Some(1));
        // Without it, there is nothing on standard output.
        let plain: Vec<&str> = args.iter().copied().filter(|a| *a != "--json").collect();
        assert_eq!(fails(dir.path(), &plain, &["error:"]), "");
    }
}

#[test]
fn kernels_are_counted_as_they_are_called() {
    let dir = folder();
    let digits = digits();
    let all = json(
        dir.path(),
        &["compile", arg(&digits), "-o", "d.brolga", "--report", "--json"],
    );
    let calls = all["report"]["calls"].as_array().expect("a list");
    assert_eq!(all["calls"], calls.len());
    let kernels = all["kernels"].as_u64().expect("a number") as usize;
    assert!(0 < kernels && kernels <= calls.len(), "{all}");
    let functions = json(dir.path(), &["info", "d.brolga", "--json"])["kernels"].clone();
    assert_eq!(functions, kernels, "no two of them are the same function");
}

#[test]
fn doctors_have_a_way_out_for_everything() {
    let dir = folder();
    let findings = |m: &ModelProto| {
        write(dir.path(), "m.onnx", m);
        let ran = brolga(dir.path(), &["doctor", "m.onnx", "--json"]);
        let report: Value = serde_json::from_str(&ran.out).unwrap_or_else(|e| panic!("{e}: {}{}", ran.out, ran.err));
        let findings = report["findings"].as_array().expect("a list").clone();
        for f in &findings {
            assert!(f["way_out"].as_str().is_some_and(|w| !w.is_empty()), "{f}");
        }
        (findings, ran.status)
    };
    let of = |findings: &[Value], kind: &str| {
        let found = findings.iter().find(|f| f["kind"] == kind);
        found.unwrap_or_else(|| panic!("no {kind} in {findings:?}")).clone()
    };
    // How many are not zero only data tell, and a declaration that is not what is computed.
    let mut m = model(
        &[2, 3],
        vec![node("NonZero", &["x"], "y"), node("Relu", &["x"], "z")],
        vec![],
    );
    m.graph.mut_or_insert_default().output.push(value("z", &[2, 4]));
    let (found, status) = findings(&m);
    assert_eq!(status, 0, "{found:?}");
    of(&found, "dynamic-node");
    let declared = of(&found, "declaration");
    assert_eq!(declared["subject"], "output `z`");
    assert_eq!(declared["detail"], "it is declared with shape [2, 4], but is f32[2, 3]");
    // Another element type is an error.
    m.graph.mut_or_insert_default().output[1] = typed("z", 11, &[2, 3]);
    let (found, status) = findings(&m);
    assert_eq!(status, 1);
    assert!(
        of(&found, "wrong")["detail"]
            .as_str()
            .is_some_and(|d| d.contains("`z` is declared as"))
    );

    // A sequence as an input.
    let mut m = model(&[2, 3], vec![node("SequenceLength", &["s"], "y")], vec![]);
    let mut s = value("s", &[]);
    s.type_ = Some(onnx_protobuf::TypeProto {
        value: Some(TypeValue::SequenceType(onnx_protobuf::type_proto::Sequence {
            elem_type: Some(value("x", &[2]).type_.unwrap_or_default()).into(),
            ..Default::default()
        })),
        ..Default::default()
    })
    .into();
    m.graph.mut_or_insert_default().input.push(s);
    let (found, status) = findings(&m);
    assert_eq!(status, 1);
    let refused = of(&found, "unsupported");
    assert!(
        refused["way_out"]
            .as_str()
            .is_some_and(|w| w.contains("onnx::Options::holds")),
        "{refused}"
    );
}

#[test]
fn names_cannot_command_a_terminal() {
    let dir = folder();
    let name = "x\u{1b}[31m\u{9b}";
    let mut relu = node("Relu", &[name], "y\u{1b}]0;title\u{7}");
    relu.name = "first\nerror: second\u{1b}[2J".into();
    let mut m = model(&[-1], vec![relu, node("NonZero", &[name], "z\r")], vec![]);
    let g = m.graph.mut_or_insert_default();
    g.name = "g\u{1b}".into();
    g.input = vec![value(name, &[-1])];
    g.output = vec![value("y\u{1b}]0;title\u{7}", &[-1]), value("z\r", &[1, -1])];
    write(dir.path(), "m.onnx", &m);
    let clean = |text: &str| text.chars().all(|c| c == '\n' || !c.is_control());
    for args in [
        &["doctor", "m.onnx"][..],
        &["info", "m.onnx"],
        &["run", "m.onnx", "--set", "n=2"],
        &["run", "m.onnx"],
        &["compile", "m.onnx", "-o", "m.o", "--report", "--remarks"],
        &["run", "m.onnx", "--pin", "q=1"],
        &["doctor", "m.onnx", "--json"],
        &["info", "m.onnx", "--json"],
    ] {
        let ran = brolga(dir.path(), args);
        assert!(
            clean(&ran.out) && clean(&ran.err),
            "{args:?}: {:?} {:?}",
            ran.out,
            ran.err
        );
        assert!(!ran.out.contains("\nerror: second"), "{}", ran.out);
    }
    let reported = json(dir.path(), &["info", "m.onnx", "--json"]);
    assert!(reported["inputs"].to_string().contains("\\u001b"), "{reported}");
}

#[test]
fn files_of_arrays_say_what_they_hold() {
    let dir = folder();
    write(
        dir.path(),
        "m.onnx",
        &model(&[2], vec![node("Relu", &["x"], "y")], vec![]),
    );
    for (descr, said) in [
        ("|S5", "array.astype('U')"),
        ("|O", "Python objects"),
        ("<c8", "complex numbers"),
        ("<M8[ns]", "dates"),
    ] {
        let header = format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': (2,), }}");
        let mut npy = b"\x93NUMPY\x01\x00".to_vec();
        npy.extend(118u16.to_le_bytes());
        npy.extend(format!("{header:<117}\n").bytes());
        npy.extend([0; 64]);
        std::fs::write(dir.path().join("x.npy"), npy).expect("a file is written");
        fails(
            dir.path(),
            &["run", "m.onnx", "--input", "x=x.npy"],
            &["x.npy", descr, said],
        );
    }
    let scalar = TensorProto {
        dims: vec![],
        ..ints("s", &[1])
    };
    std::fs::write(dir.path().join("x.pb"), b"\x89PNG\r\n\x1a\n").expect("a file is written");
    fails(dir.path(), &["run", "m.onnx", "--input", "x=x.pb"], &["x.pb", "PNG"]);
    std::fs::write(
        dir.path().join("x.pb"),
        scalar.write_to_bytes().expect("it is serialised"),
    )
    .expect("a file is written");
    fails(dir.path(), &["run", "m.onnx", "--input", "x=x.pb"], &["input `x`"]);
}

/// Commands that look at the optimiser: each mistake is told with its place and a way out, and leaves nothing behind.
#[test]
fn mistakes_about_the_optimiser_are_told() {
    const GRAPH: &str =
        "graph @m(%0 x: f32[4]) {\n  %1 = relu(%0) @\"first\"\n  %2 = add(%1, %1) @\"sum\"\n  return y = %2\n}\n";
    const RULE: &str = "rule relu-abs [exact]\n  (relu ?x) => (abs ?x)\n";
    let dir = folder();
    let given: [(&str, &[u8]); 5] = [
        ("m.txt", GRAPH.as_bytes()),
        ("cut.txt", &GRAPH.as_bytes()[..60]),
        ("empty", b""),
        ("garbage", b"\xff\xfe\x00\x80"),
        ("w.rules", RULE.as_bytes()),
    ];
    for (name, bytes) in given {
        std::fs::write(dir.path().join(name), bytes).expect("a file is written");
    }
    let before = files(dir.path());
    for (args, said) in [
        // Models.
        (&["explain", "none.txt"][..], &["none.txt: No such file"][..]),
        (&["why-not", "mul-one", "cut.txt", "first"], &["cut.txt:3:11"]),
        (&["equal", "m.txt", "empty"], &["empty: ", "it is empty"]),
        (&["bisect", "garbage"], &["garbage: not an ONNX model"]),
        (&["reduce", "empty", "--test", "true"], &["it is empty"]),
        (&["ablate", "w.rules"], &["w.rules: ", "it looks like text"]),
        (&["opt", "-"], &["<stdin>:1:1"]),
        // What is read beside them.
        (&["extract", "garbage"], &["garbage: it is no text"]),
        (&["extract", "empty"], &["empty: found no e-graph", "line 1"]),
        (&["check-proof", "garbage"], &["garbage: it is no text"]),
        (&["check-proof", "m.txt"], &["m.txt: it claims nothing", "--proof"]),
        (&["verify-rules", "garbage"], &["garbage: it is no text"]),
        (&["verify-rules", "empty"], &["empty: it has no rules"]),
        (
            &["verify-rules", "m.txt"],
            &["m.txt:1:1: found `graph`, expected `rule`"],
        ),
        (&["opt", "m.txt", "--add-rules", "garbage"], &["garbage: it is no text"]),
        // Names.
        (&["explain", "m.txt", "frist"], &["did you mean `first`?"]),
        (&["explain", "m.txt", "zzz"], &["no node `zzz`; it has `first`, `sum`"]),
        (&["why-not", "mul-oen", "m.txt", "sum"], &["did you mean `mul-one`?"]),
        (&["verify-rules", "--rule", "mul-oen"], &["did you mean `mul-one`?"]),
        (
            &["opt", "m.txt", "--rules", "exakt"],
            &["exakt: ", "did you mean `exact`?"],
        ),
        (
            &["opt", "m.txt", "--rules", "all,-algebar"],
            &["did you mean `algebra`?"],
        ),
        (&["fuzz"], &["--seconds <N>|--models <N>"]),
        (
            &["bisect", "m.txt", "--crash-reproducer", "r"],
            &["leave out --crash-reproducer"],
        ),
        // Places.
        (
            &["opt", "m.txt", "-o", "no/cut.txt"],
            &["there is no folder no to write it to"],
        ),
        (&["explain", "m.txt", "--proof", "no/p"], &["there is no folder no"]),
        (
            &["emit", "m.txt", "--stage", "egraph", "--rounds", "empty"],
            &["empty: it is a file"],
        ),
        (
            &["fuzz", "--models", "1", "--findings", "empty"],
            &["empty: it is a file"],
        ),
        (
            &["verify-rules", "w.rules", "--write", "empty"],
            &["empty: it is a file"],
        ),
    ] {
        fails(dir.path(), args, said);
    }
    assert_eq!(files(dir.path()), before);
    // What was measured is told although the plot cannot be drawn.
    let out = fails(
        dir.path(),
        &["ablate", "m.txt", "--no-measure", "--plot", "no/a.svg"],
        &["there is no folder no"],
    );
    assert!(out.contains("-algebra"), "{out}");
}
