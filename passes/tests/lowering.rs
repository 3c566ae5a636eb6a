//! Every operator on every sample, through every level: the tensor IR's reference evaluation (which never goes through
//! its lowering) ≡ structured kernels ≡ loop nests.

use brolga_ir::graph::GraphBuilder;
use brolga_ir::ops::{self, Accuracy, OpDef, Role, Sample};
use brolga_ir::program::{Callable, Program, Step, interp};
use brolga_ir::{Build, CpuTarget, DType, Graph, Layout, Number, Op, Target, Tensor, Type, Value, structured};
use brolga_passes::eqsat::EqSat;
use brolga_passes::lower::{self, Structured};
use brolga_passes::module::Module;
use brolga_passes::pass::{Context, Pass, TensorPass};
use brolga_passes::schedule::{Gpu, Machine, Schedule, chosen, space, to_loops};

/// How tensors of a rank are stored.
type Lies = fn(usize) -> Layout;

fn in_order(_: usize) -> Layout {
    Layout::ROW_MAJOR
}

fn backwards(rank: usize) -> Layout {
    Layout::new(&(0..rank).rev().collect::<Vec<usize>>(), &[], 0).expect("a permutation")
}

/// `y = store(op(x…))`, composites without a kernel decomposed with every part stored; operands too, where they do not lie in
/// order.
fn graph_of(op: &Op, sample: &Sample, lies: Lies) -> Result<Graph, String> {
    let mut graph = Graph::new("sample");
    let inputs: Vec<Value> = (0..)
        .zip(&sample.inputs)
        .map(|(i, (d, s))| graph.input(&format!("x{i}"), Type::fixed(*d, s)))
        .collect();
    let origin: std::sync::Arc<str> = "node".into();
    // Regions are cut into kernels, as every graph is that is lowered.
    let mut cx = Context::new(Target::baseline());
    let op = &op.map_regions(&mut |g| EqSat::default().rewrite(g, &mut cx))?;
    let mut b = Stored(
        GraphBuilder {
            graph: &mut graph,
            origin: origin.clone(),
        },
        lies,
    );
    let operand = |v: Value| match lies(b.type_of(v).rank()) {
        plain if plain.is_row_major() => Ok(v),
        layout => b.0.op(Op::store(layout), &[v]),
    };
    let inputs: Vec<Value> = inputs.into_iter().map(operand).collect::<Result<_, _>>()?;
    let outs = match op.role() {
        Role::Composite => op.def().decompose(op, &mut b, &inputs)?.expect("a composite"),
        _ => graph.add(op.clone(), &inputs, &origin).map_err(|e| e.message)?,
    };
    for (i, v) in outs.into_iter().enumerate() {
        let v = match op.role() {
            role if role.is_step() => v,
            _ => {
                let store = Op::store(lies(graph.ty(v).rank()));
                graph.add(store, &[v], &origin).map_err(|e| e.message)?[0]
            }
        };
        graph.outputs.push((format!("y{i}"), v));
    }
    graph.verify().map_err(|e| e.to_string())?;
    Ok(graph)
}

/// Builds with a store after every operation, as without fusion.
struct Stored<'a>(GraphBuilder<'a>, Lies);

impl Build for Stored<'_> {
    fn add(&mut self, op: Op, inputs: &[Value]) -> Result<Vec<Value>, String> {
        let results = self.0.add(op, inputs)?.into_iter();
        let store = |v| self.0.op(Op::store((self.1)(self.0.type_of(v).rank())), &[v]);
        results.map(store).collect()
    }
    fn type_of(&self, v: Value) -> Type {
        self.0.type_of(v)
    }
    fn scalar(&mut self, dtype: DType, x: Number) -> Value {
        self.0.scalar(dtype, x)
    }
}

/// Runs a program on the interpreter of its level, which verifies it before.
fn execute<K: Callable>(p: &Program<K>, inputs: &[Tensor]) -> Result<Vec<Tensor>, String> {
    interp::run(p, inputs).map_err(|e| e.to_string())
}

/// The largest difference over the largest magnitude; infinite when kinds of values differ.
fn distance(a: &Tensor, b: &Tensor) -> f64 {
    if a.dtype() != b.dtype() || a.shape() != b.shape() {
        return f64::INFINITY;
    }
    let scale = b
        .iter()
        .map(|x| x.f64().abs())
        .filter(|x| x.is_finite())
        .fold(1e-30, f64::max);
    let one = |(x, y): (Number, Number)| match (x.f64(), y.f64()) {
        (x, y) if x == y || (x.is_nan() && y.is_nan()) => 0.0,
        (x, y) => (x - y).abs() / scale,
    };
    a.iter()
        .zip(b.iter())
        .map(one)
        .fold(0.0, |m, d| if d.is_nan() { f64::INFINITY } else { m.max(d) })
}

/// How far results may be from the reference; 16-bit ones are rounded once more where a composite stores its parts.
fn tolerance(def: &dyn OpDef, dtype: DType) -> f64 {
    match (def.accuracy(), dtype) {
        (Accuracy::Exact, _) => 0.0,
        (_, DType::F16) => 2e-3,
        (_, DType::BF16) => 2e-2,
        (_, DType::F64) => 1e-12,
        _ => 2e-6,
    }
}

/// Condition and body of a loop both multiply by its state, whose panels are old when the body has run.
#[test]
fn what_a_loop_overwrites_is_packed_again() {
    let product = "contract{lhs_batch=[] rhs_batch=[] lhs_contract=[1] rhs_contract=[0] acc=f32 out=f32}";
    let text = format!(
        "graph @g(%0 m: f32[4, 4], %1 a: f32[4, 4]) {{
          %2 = while{{cond=graph @small(%0 m: f32[4, 4], %1 a: f32[4, 4]) {{
              %2 = {product}(%1, %0)
              %3 = reduce{{kind=max axes=[0, 1]}}(%2)
              %4 = reshape{{shape=[]}}(%3)
              %5 = const f32[] splat 100.0
              %6 = less(%4, %5)
              return go = %6
            }} body=graph @grow(%0 m: f32[4, 4], %1 a: f32[4, 4]) {{
              %2 = {product}(%1, %0)
              return m = %2
            }}}}(%0, %1)
          return m = %2
        }}"
    );
    let mut graph = Graph::parse(&text, &|_| None).expect("a graph");
    let eye = |x: f64| Tensor::from_fn(DType::F32, &[4, 4], |i| Number::Float(if i % 5 == 0 { x } else { 0.0 }));
    let inputs = [eye(1.0), eye(2.0)];
    assert_eq!(graph.eval(&inputs).expect("it ends"), [eye(64.0)]);
    let mut cx = Context::new(Target::x86_64_v3());
    let Module::Tensor(cut) = EqSat::default().run(Module::Tensor(graph), &mut cx).expect("kernels") else {
        unreachable!("a tensor pass gives a tensor graph");
    };
    graph = cut;
    let structured = lower::to_structured(&graph).expect("steps");
    assert_eq!(execute(&structured, &inputs).expect("it ends"), [eye(64.0)]);
    let loops = to_loops(&structured, &Machine::of(&Target::x86_64_v3())).expect("legal schedules");
    assert!(loops.to_string().contains(" layout(1, 0, 1:32)"), "{loops}");
    assert_eq!(execute(&loops, &inputs).expect("it ends"), [eye(64.0)]);
}

#[test]
fn every_operator_means_the_same_on_every_level() {
    let (mut checked, mut wrong) = (0, vec![]);
    for def in ops::all() {
        for (i, sample) in def.samples().iter().enumerate() {
            let op = Op::new(def.name(), &sample.attrs).expect("samples are valid");
            let one = |lies| -> Result<(), String> {
                let graph = graph_of(&op, sample, lies)?;
                let structured = lower::to_structured(&graph).map_err(|e| e.to_string())?;
                // A cache in which few operands stay.
                let v3 = Target::x86_64_v3();
                let small = Machine::Cpu(CpuTarget {
                    l2_bytes: 2 << 10,
                    ..v3.cpu().expect("a CPU").clone()
                });
                let loops = to_loops(&structured, &small)?;
                for seed in 0..2 {
                    let inputs = sample.operands(seed);
                    let want = op.eval(&inputs)?;
                    let tolerance = tolerance(*def, want[0].dtype());
                    let found = execute(&structured, &inputs)?;
                    for (f, w) in found.iter().zip(&want) {
                        if distance(f, w) > tolerance {
                            return Err(format!("structured: {f:?}, expected {w:?}"));
                        }
                    }
                    let found = execute(&loops, &inputs)?;
                    for (f, w) in found.iter().zip(&want) {
                        if distance(f, w) > tolerance {
                            let text: Vec<String> = loops.kernels.iter().map(|k| k.to_string()).collect();
                            return Err(format!("loops: {f:?}, expected {w:?}\n{}", text.join("\n")));
                        }
                    }
                }
                Ok(())
            };
            checked += 1;
            for (lies, how) in [(in_order as Lies, "in order"), (backwards, "backwards")] {
                if let Err(e) = one(lies) {
                    wrong.push(format!("{} sample {i} {sample:?}, stored {how}: {e}", def.name()));
                }
            }
        }
    }
    assert!(checked > 100, "{checked} samples");
    assert!(
        wrong.is_empty(),
        "{} of {checked}:\n{}",
        wrong.len(),
        wrong.join("\n\n")
    );
}

/// An operand that is one number everywhere is 0 around its elements, as any other.
#[test]
fn numbers_have_edges() {
    let conv = "conv{strides=[1] dilations=[1] pads_low=[1] pads_high=[2] groups=1 acc=f32 out=f32}";
    let pool = "pool{kind=KIND kernel=[3] strides=[1] dilations=[1] pads_low=[1] pads_high=[1] sizes=[5]}";
    let pad = "pad{low=[0, 0, 1] high=[0, 0, 2] interior=[0, 0, 0] fill=3.0}";
    for op in [
        format!("{conv}(%0, %1)"),
        format!("{}(%0)", pool.replace("KIND", "sum")),
        format!("{}(%0)", pool.replace("KIND", "max")),
        format!("{pad}(%0)"),
    ] {
        let text = format!(
            "graph @g(%2 x: f32[1]) {{
              %0 = const f32[2, 4, 5] splat -2.0
              %1 = const f32[3, 4, 3] splat 1.5
              %3 = {op}
              %4 = store(%3)
              return y = %4
            }}"
        );
        let g = Graph::parse(&text, &|_| None).unwrap_or_else(|e| panic!("{e}\n{text}"));
        let inputs = [Tensor::from_f32(&[1], &[0.0])];
        let wanted = g.eval(&inputs).expect("it is valid");
        let kernels = lower::to_structured(&g).expect("it has a kernel");
        let found = execute(&kernels, &inputs).expect("it runs");
        assert_eq!(distance(&found[0], &wanted[0]), 0.0, "{kernels}");
    }
}

/// Slots that the steps of a concatenation of `n` operands touch, kernels, and copies.
fn concatenated(n: usize, shape: &str, axis: usize) -> (usize, usize, usize) {
    let inputs: Vec<String> = (0..n).map(|i| format!("%{i} x{i}: f32{shape}")).collect();
    let values: Vec<String> = (0..n).map(|i| format!("%{i}")).collect();
    let text = format!(
        "graph @g({}) {{ %{n} = concat{{axis={axis}}}({}) %{} = store(%{n}) return y = %{} }}",
        inputs.join(", "),
        values.join(", "),
        n + 1,
        n + 1
    );
    let graph = Graph::parse(&text, &|_| None).expect("a graph");
    let structured = lower::to_structured(&graph).expect("one kernel");
    let loops = to_loops(&structured, &Machine::of(&Target::x86_64_v3())).expect("a legal schedule");
    loops.verify().expect("a valid program");
    let mut touched = 0;
    loops.steps.iter().for_each(|s| s.for_each_slot(&mut |_| touched += 1));
    let copies = loops.steps.iter().filter(|s| matches!(s, Step::Copy { .. })).count();
    (touched, loops.kernels.len(), copies)
}

#[test]
fn a_concatenation_is_linear_in_its_operands() {
    // Few operands are kernels, which run in parallel; of many, each is a copy of rows, or a kernel of two buffers.
    assert_eq!(concatenated(8, "[4, 64]", 1), (16, 8, 0));
    assert_eq!(concatenated(500, "[4, 64]", 0), (1000, 0, 500));
    assert_eq!(concatenated(500, "[4, 64]", 1), (1000, 0, 500));
    assert_eq!(concatenated(500, "[64, 2]", 1), (1000, 500, 0));
}

/// Products over blocks with scales are loops as all trees are, and register tiles on every CPU: prompts and single rows, of 8 and 4 bits.
#[test]
fn products_over_blocks_are_tiles() {
    let def = ops::lookup("block_product").expect("there is one");
    let mut found = 0;
    for sample in def.samples() {
        let op = Op::new(def.name(), &sample.attrs).expect("samples are valid");
        let graph = graph_of(&op, &sample, in_order).unwrap_or_else(|e| panic!("{e}"));
        let structured = lower::to_structured(&graph).unwrap_or_else(|e| panic!("{e}"));
        for target in Target::CPUS {
            for k in chosen(&structured, &Machine::of(&target)).kernels {
                let looped = k.list().is_none();
                assert!(
                    !looped || matches!(k.schedule, Some(Schedule::Tile(_))),
                    "{}: {k}",
                    target.name
                );
                found += usize::from(looped);
            }
        }
    }
    assert!(found >= 4 * Target::CPUS.len(), "{found} products");
}

/// What every operator may be scheduled as, on a CPU and on a GPU: schedules read back from the text of their kernels, their
/// loops are valid, and they mean the same.
#[test]
fn every_legal_schedule_means_the_same() {
    /// Schedules of a sample that are run, evenly spread over its space.
    const TRIED: usize = 8;
    let machines = [Machine::of(&Target::x86_64_v3()), Machine::Gpu(Gpu::default())];
    let (mut tried, mut names) = (0, std::collections::BTreeSet::new());
    for def in ops::all() {
        for (i, sample) in def.samples().iter().enumerate() {
            let op = Op::new(def.name(), &sample.attrs).expect("samples are valid");
            let graph = graph_of(&op, sample, in_order).unwrap_or_else(|e| panic!("{}: {e}", def.name()));
            let structured = lower::to_structured(&graph).unwrap_or_else(|e| panic!("{}: {e}", def.name()));
            let inputs = sample.operands(3);
            let want = op.eval(&inputs).unwrap_or_else(|e| panic!("{}: {e}", def.name()));
            for machine in &machines {
                let cut = |k: &structured::Kernel| k.stages().iter().any(|s| !s.guard.is_empty());
                let trees = structured.kernels.iter().any(|k| k.list().is_none() || cut(k));
                if trees && matches!(machine, Machine::Gpu(_)) {
                    let e = to_loops(&structured, machine).expect_err("no schedule of a GPU has loops in order");
                    assert!(e.contains("which only a tree"), "{e}");
                    continue;
                }
                for k in 0..structured.kernels.len() {
                    let all = space(&structured.kernels[k], machine);
                    assert!(!all.is_empty());
                    for s in all.iter().step_by(all.len().div_ceil(TRIED)) {
                        let mut p = structured.clone();
                        p.kernels[k].schedule = Some(s.clone());
                        let text = p.to_string();
                        let read = Structured::parse(&text, &|_| None).unwrap_or_else(|e| panic!("{e}\n{text}"));
                        assert_eq!(read, p, "{text}");
                        let loops = to_loops(&read, machine).unwrap_or_else(|e| panic!("{e}\n{text}"));
                        let found =
                            execute(&loops, &inputs).unwrap_or_else(|e| panic!("{} sample {i}, {s}: {e}", def.name()));
                        for (f, w) in found.iter().zip(&want) {
                            let off = distance(f, w);
                            let most = tolerance(*def, w.dtype());
                            assert!(off <= most, "{} sample {i}, {s}: {off} off\n{text}", def.name());
                        }
                        match s {
                            Schedule::Split(parts) => names.extend(parts.iter().map(Schedule::name)),
                            s => _ = names.insert(s.name()),
                        }
                        tried += 1;
                    }
                }
            }
        }
    }
    assert!(tried > 1000, "{tried} schedules");
    let wanted = [
        "copy",
        "gpu-in-order",
        "gpu-points",
        "gpu-rows",
        "gpu-tile",
        "in-order",
        "points",
        "rows",
        "tile",
        "tree",
    ];
    assert_eq!(names.into_iter().collect::<Vec<_>>(), wanted);
}

/// A record of what was chosen replays: chosen, printed and read back, kernels become the same loops as without.
#[test]
fn chosen_schedules_replay() {
    let text = "graph @g(%0 x: f32[n, 40], %1 w: f32[40, 64]) {
        %2 = contract{lhs_batch=[] rhs_batch=[] lhs_contract=[1] rhs_contract=[0] acc=f32 out=f32}(%0, %1)
        %3 = store(%2)
        %4 = softmax{axis=1 zeros=never}(%3)
        %5 = store(%4)
        return y = %5
    }";
    let graph = Graph::parse(text, &|_| None).expect("a graph");
    let structured = lower::to_structured(&graph).expect("kernels");
    for machine in [Machine::of(&Target::x86_64_v3()), Machine::Gpu(Gpu::default())] {
        let record = chosen(&structured, &machine);
        assert!(record.kernels.iter().all(|k| k.schedule.is_some()));
        let read = Structured::parse(&record.to_string(), &|_| None).expect("it reads back");
        let direct = to_loops(&structured, &machine).expect("legal");
        assert_eq!(to_loops(&read, &machine).expect("legal"), direct);
    }
}

/// A schedule that is not legal is an error that says why.
#[test]
fn a_padded_result_is_refused() {
    let text =
        "graph @g(%0 x: f32[6, 40]) { %1 = neg(%0) %2 = store{layout=(1, 0, 1:32)}(%1) %3 = abs(%2) %4 = store(%3)
      return y = %4 }";
    let graph = Graph::parse(text, &|_| None).expect("a graph");
    let structured = lower::to_structured(&graph).expect("kernels");
    let x = Tensor::from_fn(DType::F32, &[6, 40], |i| Number::Float(i as f64));
    assert_eq!(execute(&structured, std::slice::from_ref(&x)).expect("it runs"), [x]);
    let e = to_loops(&structured, &Machine::of(&Target::x86_64_v3())).expect_err("padding");
    let why = "it writes f32[6, 40] in the layout (1, 0, 1:32), whose padding no loops fill";
    assert!(e.starts_with("kernel @neg_0") && e.ends_with(why), "{e}");
}

#[test]
fn illegal_schedules_say_why() {
    let text = "graph @g(%0 x: f32[6, 40]) { %1 = softmax{axis=1 zeros=never}(%0) %2 = store(%1) return y = %2 }";
    let graph = Graph::parse(text, &|_| None).expect("a graph");
    let structured = lower::to_structured(&graph).expect("a kernel");
    let machine = Machine::of(&Target::x86_64_v3());
    let error = |schedule: &str| {
        let mut p = structured.clone();
        p.kernels[0].schedule = Some(schedule.parse().expect("a schedule"));
        to_loops(&p, &machine).expect_err(schedule)
    };
    let knobs = "grain=40000, unroll=48, constants=8";
    for (schedule, why) in [
        (
            format!(
                "tile{{left=0, rows=6, order=panel, lanes=8, direct=false, ahead=false, pairs=false, resident=0, {knobs}}}"
            ),
            "tile: no contraction",
        ),
        (
            format!("rows{{lanes=7, outside=1, inline=[], {knobs}}}"),
            "rows: lanes=7, expected a power of two up to 64",
        ),
        (
            format!("rows{{lanes=8, outside=9, inline=[], {knobs}}}"),
            "rows: outside=9, but the number of such dimensions is 1",
        ),
        (
            format!("rows{{lanes=8, outside=1, inline=[l99], {knobs}}}"),
            "rows: l99 cannot be computed again: no stage computes it",
        ),
        (format!("in-order{{{}}}", knobs), "in-order: "),
        (
            format!("rows{{lanes=8, outside=1, inline=[], {knobs}, speed=9}}"),
            "rows: there is no knob `speed`, expected grain, unroll, constants",
        ),
        ("split{}".into(), "split: the stages share outer dimensions"),
        (
            "gpu-points{threads=256, inline=[]}".into(),
            "is for another kind of machine",
        ),
    ] {
        let e = error(&schedule);
        assert!(e.contains("kernel @") && e.contains(why), "{schedule}: {e}");
    }
}
