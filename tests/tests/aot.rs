//! Models compiled ahead of time, as a C caller has them: linked with a C program and compared with the references.

use brolga::output::WeightsIn;
use brolga::{Compiled, Options, Session};
use brolga_ir::program::Program;
use brolga_ir::{DType, Graph, Target, Tensor};
use brolga_tests::aot::{Harness, Kind, dims, has, undefined};
use brolga_tests::{SmallModel, data, relative_error, run, skip, small_model};

/// As for the small models: other orders of sums.
const TOLERANCE: f64 = 2e-5;

fn compiled(m: &SmallModel, target: Option<Target>) -> Compiled {
    let mut options = Options::default();
    options.target = target.unwrap_or(options.target);
    brolga::compile_file(&m.path, &options).unwrap_or_else(|e| panic!("{e}"))
}

fn inputs(m: &SmallModel, c: &Compiled) -> Vec<Tensor> {
    c.meta.inputs.iter().map(|i| m.inputs[&i.name].clone()).collect()
}

/// Compiles, links, runs, compares.
fn linked(name: &str, kind: Kind, place: WeightsIn, target: Option<Target>) {
    let m = small_model(name);
    let c = compiled(&m, target);
    let (given, outputs) = (inputs(&m, &c), c.meta.outputs.clone());
    let dims = dims(&c.meta, &given);
    let found = Harness::build(c, kind, place).run(&given, &dims);
    for (o, f) in outputs.iter().zip(&found) {
        let error = relative_error(f, &m.outputs[&o.name]);
        assert!(
            error <= TOLERANCE,
            "{name}, {kind:?}: output `{}` is off by {error:e}",
            o.name
        );
    }
}

fn cc() -> bool {
    let there = has("cc");
    if !there {
        skip("there is no C compiler `cc`");
    }
    there
}

#[test]
fn object_files_run_from_c() {
    if cc() {
        for name in ["mlp", "resnet", "bert", "bert_dyn"] {
            linked(name, Kind::Object, WeightsIn::Object, None);
        }
    }
}

#[test]
fn every_cpu_level_runs_from_c() {
    if cc() {
        for target in brolga_tests::targets() {
            linked("mlp", Kind::Object, WeightsIn::Object, Some(target));
        }
    }
}

#[test]
fn archives_run_from_c() {
    if cc() {
        linked("mlp", Kind::Archive, WeightsIn::Object, None);
        linked("bert_dyn", Kind::Archive, WeightsIn::File, None);
    }
}

#[test]
fn shared_libraries_run_from_c() {
    if cc() {
        linked("resnet", Kind::Shared, WeightsIn::Object, None);
        linked("mlp", Kind::Shared, WeightsIn::File, None);
    }
}

#[test]
fn weights_may_be_a_file_of_their_own() {
    if cc() {
        for name in ["mlp", "resnet", "bert"] {
            linked(name, Kind::Object, WeightsIn::File, None);
        }
    }
}

#[test]
fn aarch64_objects_run_under_an_emulator() {
    for tool in ["aarch64-linux-gnu-gcc", "qemu-aarch64"] {
        if !has(tool) {
            return skip(&format!(
                "there is no `{tool}` (Debian: gcc-aarch64-linux-gnu, qemu-user)"
            ));
        }
    }
    for name in ["mlp", "resnet", "bert", "bert_dyn"] {
        linked(name, Kind::Object, WeightsIn::Object, Some(Target::aarch64()));
    }
}

#[test]
fn a_run_on_other_dims_needs_no_other_object() {
    if !cc() {
        return;
    }
    let m = small_model("bert_dyn");
    let c = compiled(&m, None);
    let session = compiled(&m, None).session().expect("it compiled before");
    let given = inputs(&m, &c);
    let meta = c.meta.clone();
    let harness = Harness::build(c, Kind::Object, WeightsIn::Object);
    let at = dims(&meta, &given);
    // Shorter sequences and smaller batches: the leading part of every symbolic axis.
    for (batch, seq) in [(1, 1), (1, at[1]), (at[0], 3)] {
        let smaller: Vec<Tensor> = meta
            .inputs
            .iter()
            .zip(&given)
            .map(|(i, t)| {
                let shape: Vec<usize> = (i.dims.iter().zip(t.shape()))
                    .map(|(d, n)| match d {
                        brolga_abi::Dim::Symbol(0) => batch as usize,
                        brolga_abi::Dim::Symbol(_) => seq as usize,
                        brolga_abi::Dim::Const(_) => *n,
                    })
                    .collect();
                let indices: Vec<Vec<usize>> = brolga_ir::indices(&shape).collect();
                Tensor::from_fn(t.dtype(), &shape, |k| t.at(&indices[k]))
            })
            .collect();
        let found = harness.run(&smaller, &[batch, seq]);
        let views: Vec<_> = smaller.iter().map(brolga::tensors::view).collect();
        let expected = session.run(&views).expect("the shapes are consistent");
        for (f, e) in found.iter().zip(&expected) {
            assert_eq!(*f, brolga::tensors::to_tensor(e), "batch {batch}, seq {seq}");
        }
        let g = brolga::source::graph(&m.path, u64::MAX).expect("it was read before");
        for (f, e) in found.iter().zip(&g.eval(&smaller).expect("the shapes are consistent")) {
            let error = relative_error(f, e);
            assert!(error <= TOLERANCE, "batch {batch}, seq {seq}: off by {error:e}");
        }
    }
}

/// All small models for this machine, some for every level of CPU.
#[test]
fn objects_leave_nothing_undefined_but_memory_functions() {
    let files = std::fs::read_dir(data("small-models"))
        .expect("it was unpacked")
        .flatten();
    let names = files.filter_map(|f| Some(f.file_name().to_str()?.strip_suffix(".onnx")?.to_owned()));
    let names: Vec<String> = names.collect();
    assert!(names.len() >= 28, "{names:?}");
    for name in &names {
        let m = small_model(name);
        let everywhere = ["mlp", "resnet", "bert", "bert_dyn", "gpt2", "unet", "moe"].contains(&name.as_str());
        let mut targets = vec![None];
        if everywhere {
            targets.extend(Target::CPUS.map(|t| Target::by_name(t.name)));
        }
        for target in targets {
            let place = target.as_ref().map_or("this machine", |t| t.name);
            let c = compiled(&m, target.clone());
            assert!(c.meta.host_ops.is_empty(), "{name} calls operators of the host");
            let object = c.object(WeightsIn::Object).unwrap_or_else(|e| panic!("{name}: {e}"));
            let missing = undefined(&object);
            assert!(missing.is_empty(), "{name} for {place} leaves {missing:?} undefined");
        }
    }
}

#[test]
fn artefacts_start_without_compiling() {
    let dir = tempfile::tempdir().expect("there is room for temporary files");
    for name in ["mlp", "resnet", "bert", "bert_dyn"] {
        let m = small_model(name);
        let path = dir.path().join(format!("{name}.brolga"));
        compiled(&m, None)
            .write_artefact(&path)
            .unwrap_or_else(|e| panic!("{e}"));
        let first = std::fs::read(&path).expect("it was written");
        compiled(&m, None)
            .write_artefact(&path)
            .unwrap_or_else(|e| panic!("{e}"));
        assert!(
            first == std::fs::read(&path).expect("it was written"),
            "{name}: two artefacts differ"
        );

        let session = Session::options()
            .threads(2)
            .load(&path)
            .unwrap_or_else(|e| panic!("{e}"));
        assert_eq!(session.timings().compile(), std::time::Duration::ZERO);
        let found = run(&session, &m.inputs).unwrap_or_else(|e| panic!("{name}: {e}"));
        let direct = compiled(&m, None)
            .session_with(2, u64::MAX)
            .expect("it compiled before");
        assert!(
            found == run(&direct, &m.inputs).expect("it runs"),
            "{name}: the artefact gives other bits"
        );
        for (n, f) in &found {
            let error = relative_error(f, &m.outputs[n]);
            assert!(error <= TOLERANCE, "{name}: output `{n}` is off by {error:e}");
        }
    }
}

#[test]
fn artefacts_that_are_damaged_are_errors() {
    let dir = tempfile::tempdir().expect("there is room for temporary files");
    let path = dir.path().join("mlp.brolga");
    compiled(&small_model("mlp"), None)
        .write_artefact(&path)
        .expect("it is written");
    let bytes = std::fs::read(&path).expect("it was written");
    for n in [9, 64, bytes.len() / 2, bytes.len() - 1] {
        std::fs::write(&path, &bytes[..n]).expect("a file is written");
        let e = Session::load(&path).expect_err("it is truncated").to_string();
        assert!(e.contains("mlp.brolga"), "{e}");
    }
}

/// Bytes of the object file of a concatenation of `n` rows of `columns`, along the columns.
fn concatenation(n: usize, columns: usize) -> u64 {
    let inputs: Vec<String> = (0..n).map(|i| format!("%{i} x{i}: f32[16, {columns}]")).collect();
    let values: Vec<String> = (0..n).map(|i| format!("%{i}")).collect();
    let (inputs, values) = (inputs.join(", "), values.join(", "));
    let text = format!("graph @g({inputs}) {{ %{n} = concat{{axis=1}}({values}) return y = %{n} }}");
    let g = Graph::parse(&text, &|_| None).unwrap_or_else(|e| panic!("{e}"));
    let c = brolga::compile(&g, &Options::default()).unwrap_or_else(|e| panic!("{e}"));
    let dir = tempfile::tempdir().expect("there is room for temporary files");
    let file = dir.path().join("wide.o");
    c.write_object(&file, WeightsIn::Object)
        .unwrap_or_else(|e| panic!("{e}"));
    std::fs::metadata(&file).expect("it was written").len()
}

#[test]
fn objects_are_linear_in_the_operands_of_a_concatenation() {
    for columns in [32, 2] {
        let (few, many) = (concatenation(150, columns), concatenation(600, columns));
        assert!(many < 5 * few, "{few} bytes for 150 operands, {many} for 600");
    }
}

#[test]
fn artefacts_with_other_bytes_are_errors() {
    let dir = tempfile::tempdir().expect("there is room for temporary files");
    let path = dir.path().join("mlp.brolga");
    let m = small_model("mlp");
    compiled(&m, None).write_artefact(&path).expect("it is written");
    let bytes = std::fs::read(&path).expect("it was written");
    let artefact = brolga_abi::artefact::Artefact::parse(&bytes).expect("it was written");
    let (code, weights) = (artefact.programs()[0].code.clone(), artefact.weights());
    assert!(weights.len() > 3000, "{} bytes of weights", weights.len());
    // Three bytes of code, three of weights: far apart, side by side, the last ones.
    for range in [code, weights] {
        let n = range.len();
        for places in [[0, n / 2, n - 1], [n / 3, n / 3 + 1, n / 3 + 2], [n - 3, n - 2, n - 1]] {
            let mut damaged = bytes.clone();
            for at in places {
                damaged[range.start + at] ^= 0x15;
            }
            std::fs::write(&path, &damaged).expect("a file is written");
            let e = Session::load(&path).expect_err("it is damaged").to_string();
            assert!(e.contains("mlp.brolga") && e.contains("damaged artefact"), "{e}");
        }
    }
    std::fs::write(&path, &bytes).expect("a file is written");
    Session::load(&path).unwrap_or_else(|e| panic!("{e}"));
}

/// An object for a CPU that is not there says so, from every function, and runs where it is.
#[test]
fn objects_ask_the_cpu() {
    if !cfg!(target_arch = "x86_64") || !cc() {
        return;
    }
    if !has("qemu-x86_64") {
        return skip("there is no `qemu-x86_64` (Debian: qemu-user)");
    }
    let m = small_model("mlp");
    let lacks = brolga_abi::ErrorCode::CpuFeatures.text();
    // QEMU has no AVX-512; a Nehalem has neither AVX nor BMI.
    for (target, cpu, runs) in [
        (Target::baseline(), "Nehalem", true),
        (Target::x86_64_v3(), "Nehalem", false),
        (Target::x86_64_v3(), "SandyBridge", false),
        (Target::x86_64_v3(), "max", true),
        (Target::x86_64_v4(), "max", false),
    ] {
        let what = format!("{} on {cpu}", target.name);
        let c = compiled(&m, Some(target));
        let (given, outputs) = (inputs(&m, &c), c.meta.outputs.clone());
        let dims = dims(&c.meta, &given);
        let given: Vec<Option<&Tensor>> = given.iter().map(Some).collect();
        let harness = Harness::build(c, Kind::Object, WeightsIn::Object).on_cpu(cpu);
        match harness.try_run(&given, &dims) {
            Ok(found) => {
                assert!(runs, "{what}: it runs");
                let error = relative_error(&found[0], &m.outputs[&outputs[0].name]);
                assert!(error <= TOLERANCE, "{what}: off by {error:e}");
            }
            Err(e) => assert!(!runs && e.contains(lacks), "{what}: {e}"),
        }
    }
}

/// A case of `reported-cases`: its graph, inputs and references.
fn reported(name: &str) -> SmallModel {
    let dir = brolga_tests::data("reported-cases").join("reported-cases").join(name);
    SmallModel {
        path: dir.join("model.onnx"),
        inputs: brolga_tests::npz(&dir.join("in.npz")),
        outputs: brolga_tests::npz(&dir.join("ref.npz")),
    }
}

/// An input with an initializer may be given or left out, an output may be listed twice: from C, too.
#[test]
fn defaults_and_repeated_outputs_hold_from_c() {
    if !cc() {
        return;
    }
    for (name, place) in [
        ("initializer_overridden", WeightsIn::Object),
        ("initializer_overridden", WeightsIn::File),
        ("initializer_also_input_default", WeightsIn::Object),
        ("output_listed_twice", WeightsIn::Object),
        ("empty_name_initializer", WeightsIn::Object),
    ] {
        let m = reported(name);
        let c = compiled(&m, None);
        let given: Vec<Option<&Tensor>> = c.meta.inputs.iter().map(|i| m.inputs.get(&i.name)).collect();
        let outputs = c.meta.outputs.clone();
        let found = Harness::build(c, Kind::Object, place).try_run(&given, &[]);
        for (o, f) in outputs.iter().zip(found.unwrap_or_else(|e| panic!("{name}: {e}"))) {
            let error = relative_error(&f, &m.outputs[&o.name]);
            assert!(error <= TOLERANCE, "{name}: output `{}` is off by {error:e}", o.name);
        }
    }
}

/// Programs whose sizes only the run tells, from C and as a session: as the interpreter has them.
#[test]
fn outputs_of_sizes_that_only_the_run_tells() {
    let x = Tensor::from_f32(&[5], &[1.0, 2.0, 3.0, 4.0, 5.0]);
    let number = |dtype, shape: &[usize], n: i128| Tensor::splat(dtype, shape, brolga_ir::Number::Int(n));
    let cases = [
        (
            "head",
            vec![x.clone(), number(DType::I64, &[], 3)],
            vec![vec![6], vec![10]],
        ),
        (
            "powers",
            vec![x, number(DType::I32, &[1], 4), number(DType::Bool, &[], 1)],
            vec![vec![5], vec![4]],
        ),
    ];
    let dir = tempfile::tempdir().expect("there is room for temporary files");
    for (name, given, shapes) in cases {
        let path = brolga_tests::root().join(format!("tests/programs/{name}.ir"));
        let compiled = || brolga::compile_file(&path, &Options::default()).unwrap_or_else(|e| panic!("{e}"));
        let text = std::fs::read_to_string(&path).expect("it is there");
        let program = Program::<brolga_ir::loops::Kernel>::parse(&text, &|_| None).unwrap_or_else(|e| panic!("{e}"));
        let want = brolga_ir::program::interp::run(&program, &given).unwrap_or_else(|e| panic!("{e}"));
        let found: Vec<Vec<usize>> = want.iter().map(|t| t.shape().to_vec()).collect();
        assert_eq!(found, shapes, "{name}");
        let views: Vec<_> = given.iter().map(brolga::tensors::view).collect();
        let check = |session: &Session| {
            let outputs = session.run(&views).unwrap_or_else(|e| panic!("{name}: {e}"));
            for (o, w) in outputs.iter().zip(&want) {
                assert_eq!(brolga::tensors::to_tensor(o), *w, "{name}");
            }
        };
        check(&compiled().session_with(2, u64::MAX).expect("it compiled before"));
        let artefact = dir.path().join(format!("{name}.brolga"));
        compiled().write_artefact(&artefact).unwrap_or_else(|e| panic!("{e}"));
        check(&Session::load(&artefact).unwrap_or_else(|e| panic!("{e}")));
        if cc() {
            let found = Harness::build(compiled(), Kind::Object, WeightsIn::Object).run(&given, &[5]);
            assert_eq!(found, want, "{name}");
        }
    }
}

#[test]
fn memory_for_sizes_that_only_the_run_tells() {
    let path = brolga_tests::root().join("tests/programs/head.ir");
    let compiled = || brolga::compile_file(&path, &Options::default()).unwrap_or_else(|e| panic!("{e}"));
    let session = compiled().session_with(1, u64::MAX).expect("it compiled before");
    let (x, mut y, mut z) = ([1.0f32, 2.0, 3.0], [0f32; 6], [0f32; 6]);
    let run = |k: i64, y: &mut [f32], z: &mut [f32]| {
        let n = y.len();
        let inputs = [
            brolga::View::of(&x, &[3]),
            brolga::View::of(std::slice::from_ref(&k), &[]),
        ];
        assert_eq!(session.output_shapes(&inputs).expect("n bounds k"), [[6], [6]]);
        session.run_into(
            &inputs,
            &mut [brolga::ViewMut::of(y, &[n]), brolga::ViewMut::of(z, &[6])],
        )
    };
    assert_eq!(run(2, &mut y, &mut z).expect("there is room"), [[4], [6]]);
    assert_eq!(y, [1.0, 2.0, 2.0, 4.0, 0.0, 0.0]);
    let e = run(2, &mut y[..3], &mut z)
        .expect_err("16 bytes are needed")
        .to_string();
    assert_eq!(
        e,
        "node `Concat_3`: an output is larger than the memory that the caller gave for it: 16 bytes are needed"
    );
    let e = run(9, &mut y, &mut z).expect_err("9 of 3").to_string();
    assert_eq!(
        e,
        "node `Shape_0`: a check of the model on its data failed: expected a size from 0 to n, found 9; here n = 3 \
            (axis 0 of input `x`)"
    );
    // A run's memory keeps to the limit.
    let path = brolga_tests::root().join("tests/programs/powers.ir");
    let session = brolga::compile_file(&path, &Options::default())
        .unwrap_or_else(|e| panic!("{e}"))
        .session_with(1, 1 << 16);
    let session = session.expect("it compiles");
    let (k, again) = ([1i32 << 20], [1u8]);
    let again = brolga::View {
        dtype: brolga_abi::DType::Bool,
        shape: &[],
        bytes: &again,
    };
    let inputs = [brolga::View::of(&x, &[3]), brolga::View::of(&k, &[1]), again];
    let e = session.run(&inputs).expect_err("4 MiB").to_string();
    assert_eq!(e, "node `Expand_1`: out of memory");
    let e = session
        .output_shapes(&inputs)
        .expect_err("nothing bounds k")
        .to_string();
    assert_eq!(
        e,
        "only a run tells the shape [k] of output `row`, and nothing bounds it"
    );
}
