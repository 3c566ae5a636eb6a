//! Whatever is wrong with what the command line is given: exit status 2, one message that names the file and the node, no
//! panic, and nothing left on disk.

mod common;

use brolga::ir::{DType, Number, Tensor};
use brolga::npy::write_npz;
use common::{Ran, arg, brolga, digits, files, floats, ints, model, node};
use onnx_protobuf::{Message, ModelProto, TensorProto};
use std::path::Path;

/// Checks that a run failed as it should, with all of `needles` in the message.
fn failed(what: &str, ran: &Ran, needles: &[&str]) {
    let told = format!("{what}: status {}\n{}\n{}", ran.status, ran.out, ran.err);
    assert_eq!(ran.status, 2, "{told}");
    assert_eq!(ran.out, "", "{told}");
    let error = ran.err.lines().find(|l| !l.starts_with("note: "));
    assert!(error.is_some_and(|l| l.starts_with("error: ")), "{told}");
    assert!(
        !ran.err.contains("panicked") && !ran.err.contains("RUST_BACKTRACE"),
        "{told}"
    );
    for n in needles {
        assert!(ran.err.contains(n), "{told}expected `{n}`");
    }
}

/// Writes `bytes` as `bad.onnx`, and checks every command that reads models.
fn rejected(what: &str, bytes: &[u8], options: &[&str], needles: &[&str]) {
    let dir = tempfile::tempdir().expect("there is room for temporary files");
    let at = |name: &str| dir.path().join(name);
    std::fs::write(at("bad.onnx"), bytes).expect("a file is written");
    let needles = [&["bad.onnx"], needles].concat();
    for command in [
        &["run", "bad.onnx", "--output", "out.npz"][..],
        &[
            "compile",
            "bad.onnx",
            "-o",
            "out.o",
            "--header",
            "out.h",
            "--weights",
            "out.weights",
        ],
        &["compile", "bad.onnx", "-o", "out.a"],
        &["compile", "bad.onnx", "-o", "out.so"],
        &["compile", "bad.onnx", "-o", "out.brolga"],
        &["emit", "bad.onnx", "--stage", "loops", "-o", "out.txt"],
        &["opt", "bad.onnx", "-o", "out.txt"],
    ] {
        let ran = brolga(dir.path(), &[command, options].concat());
        failed(&format!("{what}: {}", command.join(" ")), &ran, &needles);
        assert_eq!(
            files(dir.path()),
            ["bad.onnx"],
            "{what}: {} left files behind",
            command.join(" ")
        );
    }
}

fn rejected_model(what: &str, m: &ModelProto, needles: &[&str]) {
    rejected(what, &m.write_to_bytes().expect("it encodes"), &[], needles);
}

/// A splitmix64 generator (Steele, Lea, Flood, 2014).
fn random(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[test]
fn truncated_models() {
    let bytes = std::fs::read(digits()).expect("it is in the repository");
    for n in [0, 1, 100, bytes.len() / 2, bytes.len() - 1] {
        rejected(&format!("{n} bytes"), &bytes[..n], &[], &[]);
    }
}

#[test]
fn random_bytes() {
    let mut state = 1;
    for n in [16, 300, 5000] {
        let noise: Vec<u8> = (0..n).map(|_| random(&mut state) as u8).collect();
        rejected(&format!("{n} random bytes"), &noise, &[], &[]);
    }
}

/// Altered models may happen to be valid; they must not panic, whatever becomes of them.
#[test]
fn altered_bytes_never_panic() {
    let good = std::fs::read(digits()).expect("it is in the repository");
    let dir = tempfile::tempdir().expect("there is room for temporary files");
    let mut state = 2;
    let mut failures = 0;
    for i in 0..60 {
        let mut bytes = good.clone();
        for _ in 0..1 + random(&mut state) % 8 {
            // The first kilobytes and the last hold the structure; weights lie between.
            let at = random(&mut state) as usize % 3000;
            let at = if random(&mut state).is_multiple_of(2) {
                at % 1500
            } else {
                bytes.len() - 1 - at % 3000
            };
            bytes[at] = random(&mut state) as u8;
        }
        std::fs::write(dir.path().join("bad.onnx"), bytes).expect("a file is written");
        let ran = brolga(
            dir.path(),
            &[
                "run",
                "bad.onnx",
                "--set",
                "batch=2",
                "--threads",
                "1",
                "--memory-limit",
                "64M",
            ],
        );
        assert!(
            matches!(ran.status, 0 | 2) && !ran.err.contains("panicked"),
            "alteration {i}: status {}\n{}",
            ran.status,
            ran.err
        );
        failures += usize::from(ran.status == 2);
    }
    assert!(
        failures > 5,
        "only {failures} alterations did harm: the test tests nothing"
    );
}

#[test]
fn unsupported_operators_are_all_listed() {
    let m = model(
        &[2, 3],
        vec![
            node("Frobnicate", &["x"], "a"),
            node("Relu", &["a"], "b"),
            node("Unfold", &["b"], "y"),
        ],
        vec![],
    );
    rejected_model(
        "unknown operators",
        &m,
        &["2 unsupported", "Frobnicate at the_a", "Unfold at the_y"],
    );
}

#[test]
fn cycles() {
    let m = model(
        &[2, 3],
        vec![node("Add", &["x", "b"], "a"), node("Relu", &["a"], "b")],
        vec![],
    );
    rejected_model("a cycle", &m, &["cycle", "the_a"]);
}

#[test]
fn missing_initializers() {
    let m = model(&[2, 3], vec![node("Add", &["x", "w"], "y")], vec![]);
    rejected_model("a missing initializer", &m, &["the_y", "`w`"]);
}

#[test]
fn shapes_that_contradict() {
    let add = |w: &[i64], n: usize| {
        model(
            &[2, 3],
            vec![node("Add", &["x", "w"], "y")],
            vec![floats("w", w, &vec![0.0; n])],
        )
    };
    rejected_model("addition", &add(&[4], 4), &["the_y", "[2, 3]", "[4]"]);
    let product = model(
        &[2, 3],
        vec![node("MatMul", &["x", "w"], "y")],
        vec![floats("w", &[2, 2], &[0.0; 4])],
    );
    rejected_model("a product", &product, &["the_y"]);
    rejected_model("too few bytes", &add(&[3], 2), &["`w`"]);
    let reshape = model(
        &[2, 3],
        vec![node("Reshape", &["x", "s"], "y")],
        vec![ints("s", &[4, 2])],
    );
    rejected_model("a reshape", &reshape, &["the_y"]);
}

#[test]
fn huge_shapes_in_tiny_files() {
    let huge = model(
        &[2, 3],
        vec![node("ConstantOfShape", &["s"], "y")],
        vec![ints("s", &[1 << 20, 1 << 14])],
    );
    rejected_model("64 GiB", &huge, &["the_y", "memory limit"]);
    let overflow = model(
        &[2, 3],
        vec![node("ConstantOfShape", &["s"], "y")],
        vec![ints("s", &[1 << 40, 1 << 40])],
    );
    rejected_model("2^82 bytes", &overflow, &["the_y"]);
    // What the default admits, a smaller limit does not.
    let large = model(
        &[1],
        vec![node("ConstantOfShape", &["s"], "c"), node("Add", &["x", "c"], "y")],
        vec![ints("s", &[1 << 22])],
    );
    let bytes = large.write_to_bytes().expect("it encodes");
    rejected("16 MiB", &bytes, &["--memory-limit", "1M"], &["the_c", "memory limit"]);
}

/// A run bounds the memory of what it computes, too.
#[test]
fn huge_results_of_a_run() {
    let dir = tempfile::tempdir().expect("there is room for temporary files");
    let m = model(
        &[-1, 1],
        vec![node("Expand", &["x", "s"], "y")],
        vec![ints("s", &[1, 1 << 20])],
    );
    std::fs::write(dir.path().join("wide.onnx"), m.write_to_bytes().expect("it encodes")).expect("a file is written");
    let run = |n: &str| {
        brolga(
            dir.path(),
            &[
                "run",
                "wide.onnx",
                "--set",
                n,
                "--memory-limit",
                "64M",
                "--output",
                "out.npz",
            ],
        )
    };
    failed("4 GiB", &run("n=1024"), &["`the_y`", "over the memory limit"]);
    failed("2^62 bytes", &run("n=1099511627776"), &["limit"]);
    assert_eq!(files(dir.path()), ["wide.onnx"]);
    assert_eq!(run("n=2").status, 0);
}

#[test]
fn inputs_that_do_not_fit() {
    let dir = tempfile::tempdir().expect("there is room for temporary files");
    let model = digits();
    let zeros = |d: DType, shape: &[usize]| Tensor::splat(d, shape, Number::Int(0));
    let cases: [(&str, &str, Tensor, &[&str]); 5] = [
        (
            "name",
            "image",
            zeros(DType::F32, &[1, 1, 8, 8]),
            &["`image`", "`images`"],
        ),
        (
            "rank",
            "images",
            zeros(DType::F32, &[1, 8, 8]),
            &["`images`", "[1, 8, 8]"],
        ),
        (
            "shape",
            "images",
            zeros(DType::F32, &[1, 1, 8, 9]),
            &["`images`", "[1, 1, 8, 9]"],
        ),
        (
            "dtype",
            "images",
            zeros(DType::F64, &[1, 1, 8, 8]),
            &["`images`", "f64", "f32"],
        ),
        (
            "another dtype",
            "images",
            zeros(DType::I64, &[1, 1, 8, 8]),
            &["`images`", "i64", "f32"],
        ),
    ];
    for (what, name, tensor, needles) in cases {
        write_npz(&dir.path().join("in.npz"), &[(name.to_owned(), tensor)]).expect("a file is written");
        let ran = brolga(
            dir.path(),
            &["run", arg(&model), "--inputs", "in.npz", "--output", "out.npz"],
        );
        failed(what, &ran, needles);
        assert_eq!(files(dir.path()), ["in.npz"], "{what}");
    }
    // An input that is not given at all.
    write_npz(&dir.path().join("in.npz"), &[]).expect("a file is written");
    failed(
        "none",
        &brolga(dir.path(), &["run", arg(&model), "--inputs", "in.npz"]),
        &["`images`"],
    );
    // Files that are no tensors.
    for (file, bytes) in [
        ("in.npy", &b"\x93NUMPY\x01\x00"[..]),
        ("in.npz", b"PK\x03\x04 and then nothing"),
        ("in.pb", b"\xff\xff\xff"),
    ] {
        std::fs::write(dir.path().join(file), bytes).expect("a file is written");
        let named = format!("images={file}");
        let args = if file == "in.npz" {
            ["--inputs", file]
        } else {
            ["--input", &named]
        };
        failed(
            file,
            &brolga(dir.path(), &[&["run", arg(&model)], &args[..]].concat()),
            &[file],
        );
    }
}

#[test]
fn missing_files() {
    let dir = tempfile::tempdir().expect("there is room for temporary files");
    let model = digits();
    for args in [
        &["run", "none.onnx"][..],
        &["compile", "none.onnx", "-o", "out.o"],
        &["emit", "none.onnx", "--stage", "asm"],
        &["opt", "none.onnx"],
        &["info", "none.onnx"],
        &["run", arg(&model), "--inputs", "none.npz"],
        &["run", arg(&model), "--input", "images=none.npy"],
        &["run", arg(&model), "--input", "images=none.pb"],
        &["run", arg(&model), "--set", "batch=1", "--expect", "none.npz"],
        &["compile", arg(&model), "-o", "none/out.o"],
        &["compile", arg(&model), "-o", "out.o", "--rules", "none.rules"],
    ] {
        failed(&args.join(" "), &brolga(dir.path(), args), &["none"]);
        assert_eq!(files(dir.path()), [""; 0], "{}", args.join(" "));
    }
}

#[test]
fn options_that_make_no_sense() {
    let dir = tempfile::tempdir().expect("there is room for temporary files");
    let model = digits();
    let m = arg(&model);
    for (args, needle) in [
        (&["run", m, "--set", "sequence=4"][..], "`batch`"),
        (&["run", m], "--set batch=N"),
        (&["run", m, "--target", "z80"], "x86-64-v3"),
        (&["compile", m, "-o", "model.exe"], ".brolga"),
        (&["compile", m, "-o", "out.o", "--pipeline", "fold"], "canonicalize"),
        (&["compile", m, "-o", "out.o", "--pipeline", "eqsat{speed=9}"], "rules"),
        (
            &["compile", m, "-o", "out.o", "--memory-limit", "many"],
            "expected K, M, G or T",
        ),
        (
            &["compile", m, "-o", "out.o", "--target", "z80-none-none"],
            "native, one of x86-64, x86-64-v3",
        ),
        (
            &["compile", m, "-o", "out.o", "--target", "sm_80"],
            "`sm_80`: a GPU, expected a CPU",
        ),
        (
            &["run", m, "--target", "sm_90", "--set", "batch=1"],
            "`sm_90`: a GPU, expected a CPU",
        ),
        (&["run", m, "--target", "aarch64", "--set", "batch=1"], "aarch64"),
        (&["brew"], "brew"),
    ] {
        failed(&args.join(" "), &brolga(dir.path(), args), &[needle]);
        assert_eq!(files(dir.path()), [""; 0], "{}", args.join(" "));
    }
}

#[test]
fn indices_out_of_range_name_their_node() {
    let dir = tempfile::tempdir().expect("there is room for temporary files");
    let at = |name: &str| dir.path().join(name);
    let text = "graph @g(%0 x: f32[4, 3], %1 i: i64[2]) {
      %2 = gather{axis=0}(%0, %1) @\"lookup\"
      return y = %2
    }";
    std::fs::write(at("g.txt"), text).expect("a file is written");
    let ran = brolga(dir.path(), &["compile", "g.txt", "-o", "g.brolga"]);
    assert_eq!(ran.status, 0, "{}", ran.err);
    let x = Tensor::from_fn(DType::F32, &[4, 3], |i| Number::Float(i as f64));
    for (index, fails) in [(-4, false), (3, false), (4, true), (-5, true)] {
        let i = Tensor::from_i64(&[2], &[0, index]);
        let given = [("x".to_owned(), x.clone()), ("i".to_owned(), i)];
        write_npz(&at("in.npz"), &given).expect("a file is written");
        for file in ["g.txt", "g.brolga"] {
            let ran = brolga(dir.path(), &["run", file, "--inputs", "in.npz"]);
            let what = format!("{file}, index {index}");
            if fails {
                failed(
                    &what,
                    &ran,
                    &["node `lookup`: an index in the model's data is out of range"],
                );
            } else {
                assert_eq!(ran.status, 0, "{what}: {}", ran.err);
            }
        }
    }
    // Of constants, when they are evaluated.
    let text = "graph @g(%0 y: f32[2, 3]) {
      %1 = const i64[2, 3] [0, 1, 2, 3, 4, 1]
      %2 = const i64[6] [2, 1, 0, 4, 7, 2]
      %3 = gather{axis=0}(%2, %1) @\"inner\"
      %4 = const f32[6] [0.5, 1.0, 2.0, 3.0, 4.0, 5.0]
      %5 = gather{axis=0}(%4, %3) @\"outer\"
      %6 = add(%5, %0)
      return z = %6
    }";
    std::fs::write(at("c.txt"), text).expect("a file is written");
    let ran = brolga(dir.path(), &["compile", "c.txt", "-o", "c.brolga"]);
    failed("a constant", &ran, &["`outer`", "out of range"]);
    assert!(!files(dir.path()).contains(&"c.brolga".to_owned()));
}

#[test]
fn texts_and_artefacts_that_are_damaged() {
    let dir = tempfile::tempdir().expect("there is room for temporary files");
    let at = |name: &str| dir.path().join(name);
    let check = |what: &str, file: &str, needles: &[&str]| {
        let ran = brolga(dir.path(), &["run", file, "--set", "batch=1"]);
        failed(what, &ran, needles);
    };
    let text = "graph @g(%0 x: f32[2]) {\n  %1 = frobnicate(%0)\n  return y = %1\n}\n";
    std::fs::write(at("bad.txt"), text).expect("a file is written");
    check("an unknown operator", "bad.txt", &["bad.txt:2:", "frobnicate"]);
    std::fs::write(at("bad.txt"), &text[..30]).expect("a file is written");
    check("half a text", "bad.txt", &["bad.txt:"]);
    let artefact = at("digits.brolga");
    assert_eq!(
        brolga(dir.path(), &["compile", arg(&digits()), "-o", "digits.brolga"]).status,
        0
    );
    let good = std::fs::read(&artefact).expect("it was written");
    assert!(good.len() > 1000);
    for n in [8, 40, good.len() / 2, good.len() - 1] {
        std::fs::write(&artefact, &good[..n]).expect("a file is written");
        check(
            &format!("{n} bytes of an artefact"),
            "digits.brolga",
            &["digits.brolga"],
        );
    }
    let mut altered = good.clone();
    altered[9] ^= 0xff;
    std::fs::write(&artefact, &altered).expect("a file is written");
    check("an artefact of another version", "digits.brolga", &["digits.brolga"]);
}

/// An artefact of more weights than are checked at once: `y = x * w`, and `z` of elements of `x` in a given order.
fn large_artefact(dir: &Path) -> std::path::PathBuf {
    const N: usize = 10 << 20;
    let tensor = |name: &str, dims: Vec<i64>, data_type, raw_data| TensorProto {
        name: name.into(),
        dims,
        data_type,
        raw_data,
        ..Default::default()
    };
    let order: Vec<u8> = (0..16i64).flat_map(|i| (15 - i).to_le_bytes()).collect();
    let w = tensor("w", vec![N as i64 / 16, 16], 1, vec![0x3f; 4 * N]);
    let order = tensor("order", vec![16], 7, order);
    let nodes = vec![node("Mul", &["x", "w"], "y"), node("Gather", &["x", "order"], "z")];
    let mut model = model(&[16], nodes, vec![w, order]);
    let graph = model.graph.as_mut().expect("it has one");
    graph.output.push(onnx_protobuf::ValueInfoProto {
        name: "z".into(),
        ..graph.output[0].clone()
    });
    let bytes = model.write_to_bytes().expect("it encodes");
    std::fs::write(dir.join("large.onnx"), bytes).expect("a file is written");
    let compiled = brolga(dir, &["compile", "large.onnx", "-o", "large.brolga"]);
    assert_eq!(compiled.status, 0, "{}", compiled.err);
    let file = dir.join("large.brolga");
    // SAFETY: the file was written above.
    let program = unsafe { brolga::runtime::Program::open(&file) }.expect("it is sound");
    assert_eq!(
        program.meta().steering_bytes,
        16 * 8,
        "the order of elements steers the run, nothing else"
    );
    file
}

/// A bit that is wrong in large weights is found before anything is given out, one in indices before anything runs: they would be
/// read beyond what there is, since the compiler knew them to be in range.
#[test]
fn large_weights_that_are_damaged() {
    let dir = tempfile::tempdir().expect("there is room for temporary files");
    let file = large_artefact(dir.path());
    let run = || brolga(dir.path(), &["run", "large.brolga", "--output", "y.npz"]);
    assert_eq!(run().status, 0);
    std::fs::remove_file(dir.path().join("y.npz")).expect("it was written");
    let good = std::fs::read(&file).expect("it was written");
    let artefact = brolga::abi::artefact::Artefact::parse(&good).expect("it is sound");
    let weights = artefact.weights();
    for (at, bits, place) in [
        (weights.end - 5000, 1, "from byte 40894464 on"),
        (weights.start + 5, 0x7f, "from byte 0 on"),
    ] {
        let mut bytes = good.clone();
        bytes[at] ^= bits;
        std::fs::write(&file, bytes).expect("a file is written");
        failed(
            "damaged weights",
            &run(),
            &["large.brolga", "the weights", place, "checksum"],
        );
        assert!(!files(dir.path()).contains(&"y.npz".to_owned()));
        // In the library it is an error as well, of the first run or of opening it, and of every run behind the first.
        let x = [1.0f32; 16];
        for threads in [1, 0] {
            match brolga::Session::options().threads(threads).load(&file) {
                Ok(session) => {
                    for _ in 0..2 {
                        let error = session.run(&[brolga::View::of(&x, &[16])]).expect_err("it is damaged");
                        assert!(error.to_string().contains(place), "{error}");
                    }
                    assert_ne!(at, weights.start + 5, "indices are checked before");
                }
                Err(error) => {
                    assert!(error.to_string().contains(place), "{error}");
                    assert_eq!(at, weights.start + 5, "what does not steer is checked later");
                }
            }
        }
    }
}

/// Weights that are checked later than when they are mapped: what is damaged gives no text, and no server.
#[test]
#[cfg(feature = "serve")]
fn large_models_that_are_damaged() {
    let dir = tempfile::tempdir().expect("there is room");
    common::large_llama(&dir.path().join("large"));
    common::ok(dir.path(), &["compile", "large", "--generator", "-o", "large.brolga"]);
    let file = dir.path().join("large.brolga");
    let good = std::fs::read(&file).expect("it was written");
    let artefact = brolga::abi::artefact::Artefact::parse(&good).expect("it is sound");
    assert!(
        artefact.weights().len() > 32 << 20,
        "{} bytes",
        artefact.weights().len()
    );
    assert_eq!(
        artefact.meta().steering_bytes,
        0,
        "no weight of a language model steers it"
    );
    let generate = |model, threads| {
        let args = [
            "generate",
            model,
            "Emma was",
            "--max-tokens",
            "4",
            "--temperature",
            "0",
            "--threads",
            threads,
        ];
        brolga(dir.path(), &args)
    };
    let text = generate("large", "1").out;
    assert!(text.trim().len() > 4, "{text}");
    assert_eq!(
        [generate("large.brolga", "1").out, generate("large.brolga", "0").out],
        [text.clone(), text]
    );
    let mut bytes = good.clone();
    bytes[artefact.weights().end - 100] ^= 4;
    std::fs::write(&file, bytes).expect("there is room");
    let served = brolga(dir.path(), &["serve", "large.brolga", "--port", "0"]);
    for ran in [generate("large.brolga", "1"), generate("large.brolga", "0"), served] {
        assert_eq!((ran.status, ran.out.as_str()), (2, ""), "{}", ran.err);
        assert!(
            ran.err.contains("damaged artefact") && !ran.err.contains("listening"),
            "{}",
            ran.err
        );
    }
}

/// A rule file that is wrong is told with its line.
#[test]
fn wrong_rules() {
    let dir = tempfile::tempdir().expect("there is room for temporary files");
    std::fs::write(
        Path::new(dir.path()).join("my.rules"),
        "rule odd [exact]\n  (frob ?x) => ?x\n",
    )
    .expect("a file is written");
    let args = ["compile", arg(&digits()), "-o", "out.o", "--rules", "my.rules"].map(str::to_owned);
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    failed("a rule", &brolga(dir.path(), &args), &["my.rules", "frob"]);
    assert_eq!(files(dir.path()), ["my.rules"]);
}

/// A folder with the digits, a file of rules and a cache of its own; gives what a command prints there.
fn with_rules(rules: &str, command: &[&str]) -> (tempfile::TempDir, common::Ran) {
    let dir = tempfile::tempdir().expect("there is room for temporary files");
    std::fs::write(dir.path().join("my.rules"), rules).expect("a file is written");
    let ran = with_cache(dir.path(), command);
    (dir, ran)
}

/// Runs a command whose user's cache is in a folder.
fn with_cache(dir: &Path, args: &[&str]) -> common::Ran {
    common::brolga_with(dir, args, &[("XDG_CACHE_HOME", dir)])
}

/// A rule of a user is checked before it is used, by every command that takes rules.
#[test]
fn rules_that_are_not_sound() {
    let model = digits();
    let m = arg(&model);
    let wrong = "rule double [exact]\n  (mul~ ?x 2) => ?x\n";
    for command in [
        &["run", m, "--set", "batch=1", "--add-rules", "my.rules"][..],
        &["run", m, "--set", "batch=1", "--rules", "my.rules"],
        &["compile", m, "-o", "out.o", "--add-rules", "my.rules"],
        &[
            "compile",
            m,
            "-o",
            "out.o",
            "--pipeline",
            "canonicalize,eqsat{add=my.rules}",
        ],
        &["opt", m, "--add-rules", "my.rules"],
        &["opt", m, "--pipeline", "eqsat{rules=my.rules}"],
        &["emit", m, "--stage", "tensor", "--rules", "my.rules"],
    ] {
        let (dir, ran) = with_rules(wrong, command);
        let needles = [
            "my.rules:1:1: rule `double` is wrong: element",
            // A counterexample stands on lines of its own.
            "\n  left = ",
            "--unchecked-rules",
        ];
        failed(&command.join(" "), &ran, &needles);
        assert_eq!(files(dir.path()), ["my.rules"], "{}", command.join(" "));
    }
    let add = ["opt", m, "--add-rules", "my.rules"];
    let (_, ran) = with_rules(
        "rule a [exact]\n (neg ?x) => ?x if (is-number ?x) (not (is-number ?x))",
        &add,
    );
    failed(
        "conditions that never hold",
        &ran,
        &["rule `a` could not be checked", "conditions"],
    );
    let (_, ran) = with_rules("rule a [exact]\n (top_k ?a ?k ?l ?x) => ?x", &add);
    failed("what cannot be drawn", &ran, &["rule `a` could not be checked"]);
    let (_, ran) = with_rules("rule max-same [exact]\n (abs (abs ?x)) => (abs ?x)", &add);
    failed(
        "a name twice",
        &ran,
        &["my.rules:1:1: there is a rule `max-same` at algebra.rules:"],
    );
    // At the user's word.
    let (dir, ran) = with_rules(wrong, &["opt", m, "--add-rules", "my.rules", "--unchecked-rules"]);
    assert_eq!(ran.status, 0, "{}", ran.err);
    assert_eq!(
        files(dir.path()),
        ["my.rules"],
        "nothing is remembered of what was not checked"
    );
}

/// A sound rule is used beside the embedded ones, and its check is remembered.
#[test]
fn rules_that_are_sound() {
    let rules = "rule abs-abs [exact]\n  (abs (abs ?x)) => (abs ?x)\n";
    let (dir, ran) = with_rules(rules, &["opt", arg(&digits()), "--add-rules", "my.rules"]);
    assert_eq!(ran.status, 0, "{}", ran.err);
    let remembered = dir.path().join("brolga/rules");
    let witness = files(&remembered);
    assert_eq!(witness.len(), 1);
    let graph = "graph @g(%0 x: f32[4]) {\n  %1 = abs(%0)\n  %2 = abs(%1)\n  %3 = exp(%2)\n  return y = %3\n}\n";
    std::fs::write(dir.path().join("g.txt"), graph).expect("a file is written");
    let ran = with_cache(dir.path(), &["opt", "g.txt", "--add-rules", "my.rules", "--remarks"]);
    assert_eq!(ran.status, 0, "{}", ran.err);
    assert!(ran.err.contains("abs-abs 1"), "{}", ran.err);
    assert_eq!(ran.out.matches("store").count(), 1, "fusion goes on: {}", ran.out);
    // A witness is believed by its content, not by its name, and that of another compiler is none.
    let read = || std::fs::read_to_string(remembered.join(&witness[0])).expect("there is a witness");
    let first = read();
    assert!(first.ends_with("abs-abs [exact] (abs (abs ?x)) => (abs ?x)"), "{first}");
    let (compiler, _) = first.split_once(": ").expect("it begins with the compiler");
    for other in ["something else", &first.replace(compiler, "brolga 0123456789abcdef")] {
        std::fs::write(remembered.join(&witness[0]), other).expect("a file is written");
        let ran = with_cache(dir.path(), &["opt", "g.txt", "--add-rules", "my.rules"]);
        assert_eq!(ran.status, 0, "{}", ran.err);
        assert_eq!(read(), first, "it is written again");
    }
}

/// Themes of embedded rules can be switched off, but for fusion.
#[test]
fn themes_of_rules() {
    let model = digits();
    let m = arg(&model);
    let dir = tempfile::tempdir().expect("there is room for temporary files");
    let remarks = |rules: &str| {
        let ran = brolga(dir.path(), &["opt", m, "--rules", rules, "--remarks"]);
        assert_eq!(ran.status, 0, "{}", ran.err);
        ran.err
    };
    assert!(remarks("all").contains("conv-pads"));
    assert!(!remarks("all,-conv").contains("conv-pads"));
    assert!(!remarks("exact,-movement,-algebra").contains("conv-pads"));
    for (rules, needle) in [
        ("all,-fusion", "rules=none"),
        ("all,-speed", "expected algebra, movement, conv, contract, merge, norm"),
        ("none,-conv", "no rules to switch off"),
    ] {
        failed(rules, &brolga(dir.path(), &["opt", m, "--rules", rules]), &[needle]);
    }
}
