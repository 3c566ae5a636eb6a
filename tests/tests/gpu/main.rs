//! GPU schedules and their PTX, on a machine without a GPU: the loop interpreter runs the schedules (which reports races,
//! wrong barriers and accesses out of bounds), [`machine`] runs the printed text as the CUDA runtime would launch it,
//! results are compared with the tensor level's reference evaluation and with the models' reference files, and `ptxas`
//! assembles what is printed.
//!
//! `ptxas` is `$BROLGA_PTXAS`, or stands on the path; it comes with CUDA and with PyPI's `nvidia-cuda-nvcc`.

mod dims;
mod machine;
mod primitives;

use brolga::cuda::CudaModel;
use brolga_codegen::ptx::{self, Arch};
use brolga_ir::loops::{Kernel, LoopKind, Scope, Stmt};
use brolga_ir::program::{Program, Step, interp};
use brolga_ir::{DType, Graph, Number, Target, Tensor};
use brolga_passes::eqsat::{self, EqSat};
use brolga_passes::lower::to_structured;
use brolga_passes::pass::{Context, TensorPass};
use brolga_passes::schedule::{Gpu, Machine, Schedule, chosen, to_loops};
use brolga_tests::{SMALL_MODELS, blessing, mismatch, relative_error, root, skip, small_model};
use std::path::PathBuf;
use std::process::Command;

/// The GPU to schedule for, and what a test changes of the schedules that are chosen.
#[derive(Clone, Copy)]
struct Wanted {
    gpu: Gpu,
    change: fn(&mut Schedule),
}

impl Default for Wanted {
    fn default() -> Wanted {
        Wanted {
            gpu: Gpu::default(),
            change: |_| {},
        }
    }
}

/// The planned GPU program of a cut graph.
fn scheduled(cut: &Graph, wanted: Wanted) -> Program {
    let structured = to_structured(cut).unwrap_or_else(|e| panic!("{e}"));
    let machine = Machine::Gpu(wanted.gpu);
    let mut structured = chosen(&structured, &machine);
    for s in structured.kernels.iter_mut().filter_map(|k| k.schedule.as_mut()) {
        match s {
            Schedule::Split(parts) => parts.iter_mut().for_each(wanted.change),
            s => (wanted.change)(s),
        }
    }
    let mut program = to_loops(&structured, &machine).unwrap_or_else(|e| panic!("{e}"));
    brolga_passes::memory::plan(&mut program).unwrap_or_else(|e| panic!("{e}"));
    program.verify().unwrap_or_else(|e| panic!("{e}\n{program}"));
    program
}

/// A graph as the pipeline cuts it.
fn optimised(g: &Graph) -> Graph {
    let mut cx = Context::new(Target::sm_80());
    EqSat::default().rewrite(g, &mut cx).unwrap_or_else(|e| panic!("{e}"))
}

fn parse(text: &str) -> Graph {
    Graph::parse(text, &|_| None).unwrap_or_else(|e| panic!("{e} in\n{text}"))
}

/// Small values with fractions, signs and repetitions.
fn values(dtype: DType, shape: &[usize], seed: usize) -> Tensor {
    Tensor::from_fn(dtype, shape, |i| match dtype {
        DType::Bool => Number::Int((i * 7 + seed).is_multiple_of(3) as i128),
        d if d.is_int() => Number::Int(((i * 5 + seed * 3) % 7) as i128),
        _ => Number::Float(((i * 7 + seed * 5) % 23) as f64 / 8.0 - 1.25),
    })
}

/// Runs a graph's GPU schedules, fused and unfused, and compares with the graph's own evaluation.
fn check_graph(g: &Graph, options: Wanted, shapes: &[&[usize]]) -> Vec<Kernel> {
    let inputs: Vec<Tensor> = g
        .inputs
        .iter()
        .zip(shapes)
        .enumerate()
        .map(|(i, (input, shape))| values(g.ty(input.value).dtype, shape, i + 1))
        .collect();
    let expected = g.eval(&inputs).unwrap_or_else(|e| panic!("{e}"));
    let unfused = eqsat::unfused(g, &Target::x86_64_v3()).unwrap_or_else(|e| panic!("{e}"));
    let mut kernels = vec![];
    for cut in [unfused, optimised(g)] {
        let program = scheduled(&cut, options);
        let found = interp::run(&program, &inputs).unwrap_or_else(|e| panic!("{e}\n{program}"));
        for (f, e) in found.iter().zip(&expected) {
            let error = relative_error(f, e);
            assert!(error < 1e-6, "{error} off: {f:?}, expected {e:?}\n{program}");
        }
        kernels.clone_from(&program.kernels);
        check_text(program, &inputs, &found);
    }
    kernels
}

/// Runs a program's PTX and expects the interpreter's results, bit for bit.
fn check_text(program: Program, inputs: &[Tensor], expected: &[Tensor]) {
    let sizes = program.bind(inputs).unwrap_or_else(|e| panic!("{e}"));
    let model = CudaModel::new(program, u64::MAX).unwrap_or_else(|e| panic!("{e}"));
    let plan = model.plan(&sizes, Arch::Sm80).unwrap_or_else(|e| panic!("{e}"));
    let bytes: Vec<&[u8]> = inputs.iter().map(Tensor::bytes).collect();
    let found = machine::run(&plan, &bytes).unwrap_or_else(|node| panic!("a check of node `{node}` failed"));
    for (f, e) in found.iter().zip(expected) {
        let f = Tensor::new(e.dtype(), e.shape().to_vec(), &f[..]).expect("a plan's outputs have their sizes");
        let difference = mismatch(&f, e, 0.0, 0.0);
        assert!(
            difference.is_none(),
            "{}\n{}",
            difference.unwrap_or_default(),
            plan.module
        );
    }
}

/// Even small contractions use the large tile.
fn large_tiles() -> Wanted {
    Wanted {
        change: |s| {
            if let Schedule::GpuTile(t) = s {
                (t.rows, t.columns, t.row_threads, t.column_threads) = (64, 64, 16, 16);
            }
        },
        ..Wanted::default()
    }
}

/// Whether a statement somewhere in the kernel fulfils a condition.
fn any(stmts: &[Stmt], f: &dyn Fn(&Stmt) -> bool) -> bool {
    stmts.iter().any(|s| {
        f(s) || match s {
            Stmt::For { body, .. } | Stmt::If { then: body, .. } => any(body, f),
            _ => false,
        }
    })
}

fn has_barrier(k: &Kernel) -> bool {
    any(&k.body, &|s| matches!(s, Stmt::Barrier))
}

fn has_shared(k: &Kernel) -> bool {
    k.buffers.iter().any(|b| b.scope == Scope::Shared)
}

fn threads(k: &Kernel) -> u32 {
    ptx::launch(k).block.iter().product()
}

#[test]
fn maps_of_ragged_extent() {
    let g = parse(
        "graph @map(%0 x: f32[7, 45], %1 y: f32[45]) {
           %2 = transpose{perm=[1, 0]}(%0)
           %3 = reshape{shape=[45, 1]}(%1)
           %4 = broadcast{shape=[45, 7]}(%3)
           %5 = add(%2, %4)
           %6 = tanh(%5)
           return z = %6
         }",
    );
    let kernels = check_graph(&g, Wanted::default(), &[&[7, 45], &[45]]);
    assert!(kernels.iter().all(|k| threads(k) == 256));
}

#[test]
fn small_types_are_bytes() {
    for d in DType::ALL.into_iter().filter(|d| d.small().is_some()) {
        let g = parse(&format!(
            "graph @g(%0 x: {d}[3, 45], %1 y: f32[3, 45], %2 n: i32[3, 45]) {{
               %3 = cast{{to=f32}}(%0)
               %4 = cast{{to={d}}}(%1)
               %5 = cast{{to={d}}}(%2)
               %6 = transpose{{perm=[1, 0]}}(%0)
               %7 = less(%3, %1)
               %8 = where(%7, %4, %5)
               return a = %3, b = %4, c = %5, d = %6, e = %8
             }}"
        ));
        check_graph(&g, Wanted::default(), &[&[3, 45][..]; 3]);
    }
}

#[test]
fn contractions_with_ragged_tiles() {
    let attrs = |out| format!("lhs_batch=[] rhs_batch=[] lhs_contract=[1] rhs_contract=[0] acc=f32 out={out}");
    let g = parse(&format!(
        "graph @dense(%0 x: f32[37, 50], %1 w: f32[50, 41], %2 b: f32[41]) {{
           %3 = contract{{{}}}(%0, %1)
           %4 = reshape{{shape=[1, 41]}}(%2)
           %5 = broadcast{{shape=[37, 41]}}(%4)
           %6 = add(%3, %5)
           %7 = relu(%6)
           return y = %7
         }}",
        attrs("f32")
    ));
    for options in [Wanted::default(), large_tiles()] {
        let kernels = check_graph(&g, options, &[&[37, 50], &[50, 41], &[41]]);
        assert_eq!(kernels.len(), 1, "bias and activation are the contraction's epilogue");
        let k = &kernels[0];
        assert!(has_barrier(k) && has_shared(k) && threads(k) >= 128, "{k}");
    }
}

#[test]
fn batched_and_transposed_contractions() {
    let g = parse(
        "graph @scores(%0 q: f32[2, 3, 20, 8], %1 k: f32[2, 3, 20, 8]) {
           %2 = contract{lhs_batch=[0, 1] rhs_batch=[0, 1] lhs_contract=[3] rhs_contract=[3] acc=f32 out=f32}(%0, %1)
           return y = %2
         }",
    );
    let kernels = check_graph(&g, Wanted::default(), &[&[2, 3, 20, 8], &[2, 3, 20, 8]]);
    assert!(kernels.iter().all(has_shared));
}

#[test]
fn half_precision_contractions() {
    let g = parse(
        "graph @half(%0 x: f16[33, 18], %1 w: f16[18, 35]) {
           %2 = contract{lhs_batch=[] rhs_batch=[] lhs_contract=[1] rhs_contract=[0] acc=f32 out=f32}(%0, %1)
           return y = %2
         }",
    );
    let kernels = check_graph(&g, Wanted::default(), &[&[33, 18], &[18, 35]]);
    assert!(kernels.iter().all(has_shared));
}

#[test]
fn matrix_vector_products_are_rows() {
    let g = parse(
        "graph @gemv(%0 x: f32[1, 300], %1 w: f32[300, 9]) {
           %2 = contract{lhs_batch=[] rhs_batch=[] lhs_contract=[1] rhs_contract=[0] acc=f32 out=f32}(%0, %1)
           return y = %2
         }",
    );
    check_graph(&g, Wanted::default(), &[&[1, 300], &[300, 9]]);
}

/// A convolution with padding, strides and groups.
fn convolution(groups: usize, extents: [usize; 2]) -> Graph {
    let [h, w] = extents;
    parse(&format!(
        "graph @conv(%0 x: f32[2, 8, {h}, {w}], %1 w: f32[12, {}, 3, 3]) {{
           %2 = conv{{strides=[2, 1] dilations=[1, 1] pads_low=[1, 1] pads_high=[1, 1] groups={groups} acc=f32 out=f32}}(%0, %1)
           %3 = relu(%2)
           return y = %3
         }}",
        8 / groups
    ))
}

#[test]
fn convolutions_are_implicit_products() {
    let kernels = check_graph(
        &convolution(1, [9, 7]),
        Wanted::default(),
        &[&[2, 8, 9, 7], &[12, 8, 3, 3]],
    );
    assert!(kernels.iter().any(has_shared));
    check_graph(&convolution(1, [9, 7]), large_tiles(), &[&[2, 8, 9, 7], &[12, 8, 3, 3]]);
    check_graph(
        &convolution(4, [5, 6]),
        Wanted::default(),
        &[&[2, 8, 5, 6], &[12, 2, 3, 3]],
    );
}

#[test]
fn rows_in_shared_memory() {
    for n in [5, 32, 77, 300] {
        let g = parse(&format!(
            "graph @softmax(%0 x: f32[6, {n}]) {{
               %1 = softmax{{axis=1 zeros=never}}(%0)
               return y = %1
             }}"
        ));
        let kernels = check_graph(&g, Wanted::default(), &[&[6, n]]);
        assert!(
            kernels.iter().any(|k| has_barrier(k) && has_shared(k)),
            "{}",
            kernels[0]
        );
    }
}

#[test]
fn rows_of_unknown_length() {
    let g = parse(
        "graph @softmax(%0 x: f32[batch, seq]) symbols(batch, seq) {
           %1 = softmax{axis=1 zeros=never}(%0)
           return y = %1
         }",
    );
    for (batch, seq) in [(3, 1), (1, 129), (2, 40), (0, 4)] {
        check_graph(&g, Wanted::default(), &[&[batch, seq]]);
    }
}

#[test]
fn rows_too_long_for_shared_memory_are_computed_again() {
    let g = parse(
        "graph @softmax(%0 x: f32[2, 150]) {
           %1 = softmax{axis=1 zeros=never}(%0)
           return y = %1
         }",
    );
    let options = Wanted {
        gpu: Gpu {
            shared_bytes: 64,
            ..Gpu::default()
        },
        ..Wanted::default()
    };
    check_graph(&g, options, &[&[2, 150]]);
}

#[test]
fn pairs_merge_in_shared_memory() {
    for (axis, n) in [(0, 200), (1, 200), (1, 3)] {
        let g = parse(&format!(
            "graph @arg(%0 x: f32[200, {n}]) {{
               %1 = arg_reduce{{kind=max axis={axis} last=false}}(%0)
               return y = %1
             }}"
        ));
        check_graph(&g, Wanted::default(), &[&[200, n]]);
    }
}

#[test]
fn concatenation_scan_and_gather() {
    let g = parse(
        "graph @mixed(%0 x: f32[4, 30], %1 y: f32[4, 11], %2 i: i64[5]) {
           %3 = concat{axis=1}(%0, %1)
           %4 = scan{kind=sum axis=1 exclusive=false reverse=true}(%0)
           %5 = gather{axis=1}(%0, %2)
           return a = %3, b = %4, c = %5
         }",
    );
    check_graph(&g, Wanted::default(), &[&[4, 30], &[4, 11], &[5]]);
}

#[test]
fn scatters_keep_their_order() {
    let g = parse(
        "graph @scatter(%0 x: f32[9, 4], %1 i: i64[6, 1], %2 u: f32[6, 4]) {
           %3 = scatter_nd{reduction=none}(%0, %1, %2)
           return y = %3
         }",
    );
    check_graph(&g, Wanted::default(), &[&[9, 4], &[6, 1], &[6, 4]]);
}

/// A model's program for a GPU.
fn model(name: &str) -> (Program, Vec<Tensor>, Vec<(String, Tensor)>) {
    let m = small_model(name);
    let options = brolga_frontend::onnx::Options::default();
    let g = brolga_frontend::onnx::load(&m.path, &options).unwrap_or_else(|e| panic!("{e}"));
    let program = scheduled(&optimised(&g), Wanted::default());
    let inputs = program.inputs.iter().map(|(n, _)| m.inputs[n].clone()).collect();
    let outputs = program
        .outputs
        .iter()
        .map(|(n, _)| (n.clone(), m.outputs[n].clone()))
        .collect();
    (program, inputs, outputs)
}

/// Runs a model's GPU program in the interpreter and compares with its reference file.
fn check_model(name: &str) {
    let (program, inputs, expected) = model(name);
    let found = interp::run(&program, &inputs).unwrap_or_else(|e| panic!("{name}: {e}"));
    for (f, (output, e)) in found.iter().zip(&expected) {
        let error = relative_error(f, e);
        assert!(error < 1e-4, "{name}: {output} is {error} off");
    }
    check_text(program.clone(), &inputs, &found);
    // Only block tiles repeat their innermost loop in code.
    let repeated = |s: &Stmt| {
        matches!(
            s,
            Stmt::For {
                kind: LoopKind::Unrolled,
                ..
            }
        )
    };
    let contraction = |k: &&Kernel| any(&k.body, &repeated);
    let contractions: Vec<&Kernel> = program.kernels.iter().filter(contraction).collect();
    assert!(!contractions.is_empty(), "{name} has no contraction on block tiles");
    assert!(
        contractions
            .iter()
            .all(|k| has_barrier(k) && has_shared(k) && threads(k) >= 128)
    );
    let called = |s: &Step| matches!(s, Step::Call { .. } | Step::Copy { .. });
    assert!(program.steps.iter().all(called), "{name} has steps that no GPU runs");
}

#[test]
fn mlp_matches_its_reference() {
    check_model("mlp");
}

#[test]
fn resnet_matches_its_reference() {
    check_model("resnet");
}

#[test]
fn bert_matches_its_reference() {
    check_model("bert");
}

#[test]
fn symbolic_bert_matches_its_reference() {
    check_model("bert_dyn");
}

#[test]
fn other_models_match_their_references() {
    let named = ["mlp", "resnet", "bert", "bert_dyn"];
    SMALL_MODELS
        .into_iter()
        .filter(|m| !named.contains(m))
        .for_each(check_model);
}

#[test]
fn operators_for_a_cpu_are_named() {
    let g = parse(
        "graph @best(%0 x: f32[3, 7]) {
           %1, %2 = top_k{axis=1 k=[2] largest=true}(%0) : f32[3, 2], i64[3, 2] @\"the_best\"
           return y = %1
         }",
    );
    let program = scheduled(&optimised(&g), Wanted::default());
    let error = CudaModel::new(program, u64::MAX).err().expect("top_k runs on the host");
    let text = error.to_string();
    assert!(text.contains("only a CPU runs: top_k (node `the_best`)"), "{text}");
}

/// The text of three kernels, beside the tests that run them. `BLESS=1` rewrites the files.
#[test]
fn golden_text() {
    let options = Wanted {
        change: |s| match s {
            Schedule::GpuTile(t) => {
                (t.rows, t.columns, t.depth) = (4, 4, 2);
                (t.row_threads, t.column_threads) = (2, 2);
            }
            Schedule::GpuRows(r) => (r.lanes, r.slots) = (4, 1),
            _ => {}
        },
        ..Wanted::default()
    };
    let add_relu = "graph @add_relu(%0 x: f32[n, 3], %1 y: f32[n, 3]) symbols(n) {
        %2 = add(%0, %1)
        %3 = relu(%2)
        return y = %3
    }";
    let mean = "graph @sum(%0 x: f32[5, 100]) {
        %1 = reduce{kind=sum axes=[1]}(%0)
        return y = %1
    }";
    let dense = "graph @dense(%0 x: f32[6, 3], %1 w: f32[3, 8]) {
        %2 = contract{lhs_batch=[] rhs_batch=[] lhs_contract=[1] rhs_contract=[0] acc=f32 out=f32}(%0, %1)
        %3 = relu(%2)
        return y = %3
    }";
    let shapes: [&[&[usize]]; 3] = [&[&[7, 3], &[7, 3]], &[&[5, 100]], &[&[6, 3], &[3, 8]]];
    for ((name, text), shapes) in [("map", add_relu), ("rows", mean), ("contraction", dense)]
        .into_iter()
        .zip(shapes)
    {
        let kernels = check_graph(&parse(text), options, shapes);
        assert_eq!(kernels.len(), 1, "{name}");
        let found = ptx::print_kernel(&kernels[0], Arch::Sm90).unwrap_or_else(|e| panic!("{e}"));
        let file = root().join(format!("tests/tests/gpu/{name}.ptx"));
        if blessing() {
            std::fs::write(&file, &found).expect("the golden file can be written");
        }
        let expected = std::fs::read_to_string(&file).unwrap_or_else(|e| panic!("{}: {e}", file.display()));
        assert!(
            found == expected,
            "{} differs (BLESS=1 rewrites it); found\n{found}",
            file.display()
        );
    }
}

/// `ptxas`, or why there is none.
fn assembler() -> Option<PathBuf> {
    let found = match std::env::var_os("BROLGA_PTXAS") {
        Some(path) => Some(PathBuf::from(path)),
        None => std::env::var_os("PATH").and_then(|all| {
            let mut candidates = std::env::split_paths(&all).map(|p| p.join("ptxas"));
            candidates.find(|p| p.is_file())
        }),
    };
    if found.is_none() {
        skip("there is no ptxas (set BROLGA_PTXAS, or install PyPI's nvidia-cuda-nvcc)");
    }
    found
}

/// Assembles a module; the assembler's words when it refuses.
fn assemble(ptxas: &PathBuf, text: &str, arch: Arch, name: &str) {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let (from, to) = (dir.path().join("module.ptx"), dir.path().join("module.cubin"));
    std::fs::write(&from, text).expect("it can be written");
    let out = Command::new(ptxas)
        .args(["-arch", arch.name(), "--output-file"])
        .args([&to, &from])
        .output()
        .unwrap_or_else(|e| panic!("{}: {e}", ptxas.display()));
    let words = String::from_utf8_lossy(&out.stderr);
    let lines: Vec<&str> = text.lines().collect();
    let quoted: Vec<String> = words
        .lines()
        .filter_map(|l| l.split_once("line ")?.1.split(';').next()?.trim().parse::<usize>().ok())
        .map(|n| format!("{n}: {}", lines.get(n - 1).unwrap_or(&"")))
        .collect();
    assert!(
        out.status.success(),
        "{name}, {}: {words}\n{}",
        arch.name(),
        quoted.join("\n")
    );
}

#[test]
fn ptxas_assembles_every_kernel_of_the_models() {
    let Some(ptxas) = assembler() else { return };
    for name in SMALL_MODELS {
        let (program, ..) = model(name);
        for arch in Arch::ALL {
            let text = ptx::print_program(&program, arch).unwrap_or_else(|e| panic!("{name}: {e}"));
            assert_eq!(text.matches(".visible .entry").count(), program.kernels.len());
            assemble(&ptxas, &text, arch, name);
            eprintln!(
                "{name}: {} kernels assembled for {}",
                program.kernels.len(),
                arch.name()
            );
        }
    }
}

#[test]
fn an_index_out_of_range_is_reported() {
    let g = parse(
        "graph @g(%0 x: f32[9, 40], %1 w: f32[5, 40], %2 i: i64[6], %3 u: f32[6, 40]) {
          %4 = gather{axis=0}(%0, %2) @\"tokens\"
          %5 = gather{axis=0}(%1, %2) @\"positions\"
          %6 = add(%4, %5)
          %7 = softmax{axis=1 zeros=never}(%6)
          %8 = reshape{shape=[6, 1]}(%2)
          %9 = scatter_nd{reduction=add}(%0, %8, %3) @\"update\"
          return y = %7, z = %9
        }",
    );
    let program = scheduled(&optimised(&g), Wanted::default());
    let f32s = |shape: &[usize]| values(DType::F32, shape, 1);
    let mut inputs = [f32s(&[9, 40]), f32s(&[5, 40]), f32s(&[]), f32s(&[6, 40])];
    let model = CudaModel::new(program.clone(), u64::MAX).unwrap_or_else(|e| panic!("{e}"));
    let plan = model.plan(&[], Arch::Sm80).unwrap_or_else(|e| panic!("{e}"));
    for (index, nodes) in [
        (-5, &[][..]),
        (-6, &["positions"]),
        (9, &["tokens", "positions", "update"]),
    ] {
        inputs[2] = Tensor::from_fn(DType::I64, &[6], |i| Number::Int(if i == 4 { index } else { 1 }));
        let bytes: Vec<&[u8]> = inputs.iter().map(Tensor::bytes).collect();
        match machine::run(&plan, &bytes) {
            Ok(_) => assert!(nodes.is_empty(), "{index} is not reported\n{program}"),
            Err(node) => assert!(nodes.contains(&&node[..]), "{index}: {node}"),
        }
    }
}
