//! Every operator on every sample, through every level: the tensor IR's reference evaluation (which never goes through
//! its lowering) ≡ structured kernels ≡ loop nests.

use brolga_ir::graph::GraphBuilder;
use brolga_ir::loops::interp::BufferData;
use brolga_ir::ops::{self, Accuracy, Role, Sample};
use brolga_ir::program::{Program, SlotId, Step, Storage};
use brolga_ir::{Build, DType, Graph, Number, Op, Target, Tensor, Type, Value, structured};
use brolga_passes::eqsat::EqSat;
use brolga_passes::lower;
use brolga_passes::pass::{Context, Pass};
use std::cell::RefCell;

/// `y = store(op(x…))`, composites without a kernel decomposed with every part stored.
fn graph_of(op: &Op, sample: &Sample) -> Result<Graph, String> {
    let mut graph = Graph::new("sample");
    let inputs: Vec<Value> = (0..)
        .zip(&sample.inputs)
        .map(|(i, (d, s))| graph.input(&format!("x{i}"), Type::fixed(*d, s)))
        .collect();
    let origin: std::sync::Arc<str> = "node".into();
    // Regions are cut into kernels, as every graph is that is lowered.
    let mut cx = Context::new(Target::baseline());
    let op = &op.map_regions(&mut |g| EqSat::default().run(g, &mut cx).map_err(|e| e.error))?;
    let mut b = Stored(GraphBuilder {
        graph: &mut graph,
        origin: origin.clone(),
    });
    let outs = match op.role() {
        Role::Composite => op.def().decompose(op, &mut b, &inputs)?.expect("a composite"),
        _ => graph.add(op.clone(), &inputs, &origin).map_err(|e| e.message)?,
    };
    for (i, v) in outs.into_iter().enumerate() {
        let v = match op.role() {
            Role::Host | Role::Region(_) => v,
            _ => graph
                .add(Op::new("store", &[])?, &[v], &origin)
                .map_err(|e| e.message)?[0],
        };
        graph.outputs.push((format!("y{i}"), v));
    }
    graph.verify().map_err(|e| e.to_string())?;
    Ok(graph)
}

/// Builds with a store after every operation, as without fusion.
struct Stored<'a>(GraphBuilder<'a>);

impl Build for Stored<'_> {
    fn add(&mut self, op: Op, inputs: &[Value]) -> Result<Vec<Value>, String> {
        let results = self.0.add(op, inputs)?.into_iter();
        results.map(|v| self.0.op(Op::new("store", &[])?, &[v])).collect()
    }
    fn type_of(&self, v: Value) -> Type {
        self.0.type_of(v)
    }
    fn scalar(&mut self, dtype: DType, x: Number) -> Value {
        self.0.scalar(dtype, x)
    }
}

/// Runs the steps of a program over bytes a slot; `call` runs one kernel.
fn execute<K>(
    p: &Program<K>,
    inputs: &[Tensor],
    call: impl Fn(&K, &[SlotId], &[RefCell<Vec<u8>>]) -> Result<(), String>,
) -> Result<Vec<Tensor>, String> {
    let known = |d: &brolga_ir::Dim| d.as_const().expect("samples have known extents") as usize;
    let memory: Vec<RefCell<Vec<u8>>> = p
        .slots
        .iter()
        .map(|s| match &s.storage {
            Storage::Input(i) => inputs[*i as usize].bytes().to_vec(),
            Storage::Weight(data) => brolga_ir::Constant {
                ty: s.ty.clone(),
                data: data.clone(),
            }
            .to_tensor()
            .bytes()
            .to_vec(),
            _ => vec![0xAA; known(&s.bytes())],
        })
        .map(RefCell::new)
        .collect();
    let machine = Machine { p, memory, call };
    machine.block(&p.init)?;
    machine.block(&p.steps)?;
    p.outputs.iter().map(|&(_, s)| machine.tensor(s)).collect()
}

struct Machine<'p, K, F> {
    p: &'p Program<K>,
    memory: Vec<RefCell<Vec<u8>>>,
    call: F,
}

impl<K, F: Fn(&K, &[SlotId], &[RefCell<Vec<u8>>]) -> Result<(), String>> Machine<'_, K, F> {
    fn bytes(&self, s: SlotId) -> &RefCell<Vec<u8>> {
        &self.memory[self.p.root(s).0 as usize]
    }

    fn tensor(&self, s: SlotId) -> Result<Tensor, String> {
        let ty = &self.p.slot(s).ty;
        let shape = brolga_ir::dim::constants(&ty.shape).expect("samples have known extents");
        Tensor::new(ty.dtype, shape, self.bytes(s).borrow().clone())
    }

    fn block(&self, steps: &[Step]) -> Result<(), String> {
        for step in steps {
            match step {
                Step::Call { kernel, args, .. } => {
                    let args: Vec<SlotId> = args.iter().map(|a| self.p.root(*a)).collect();
                    (self.call)(&self.p.kernels[*kernel as usize], &args, &self.memory)?;
                }
                Step::Copy { from, to, rows } => {
                    assert_eq!(*rows, None, "samples have few operands");
                    let bytes = self.bytes(*from).borrow().clone();
                    *self.bytes(*to).borrow_mut() = bytes;
                }
                Step::Host {
                    op, inputs, outputs, ..
                } => {
                    let args = inputs.iter().map(|&s| self.tensor(s)).collect::<Result<Vec<_>, _>>()?;
                    for (t, o) in op.eval(&args)?.iter().zip(outputs) {
                        *self.bytes(*o).borrow_mut() = t.bytes().to_vec();
                    }
                }
                Step::If { cond, then, other } => {
                    let taken = self.bytes(*cond).borrow()[0] != 0;
                    self.block(if taken { then } else { other })?;
                }
                Step::While { cond, body } => {
                    while self.bytes(*cond).borrow()[0] != 0 {
                        self.block(body)?;
                    }
                }
                other => panic!("samples have no step {other:?}"),
            }
        }
        Ok(())
    }
}

fn run_structured(k: &structured::Kernel, args: &[SlotId], memory: &[RefCell<Vec<u8>>]) -> Result<(), String> {
    let shape = |o: &structured::Operand| brolga_ir::dim::constants(&o.ty.shape).expect("known");
    let n = k.operands.len() - 1;
    let inputs = (0..n)
        .map(|i| {
            let o = &k.operands[i];
            Tensor::new(o.ty.dtype, shape(o), memory[args[i].0 as usize].borrow().clone())
        })
        .collect::<Result<Vec<_>, _>>()?;
    let outs = structured::interp::run(k, &|_| None, &inputs).map_err(|e| format!("{e}\n{k}"))?;
    *memory[args[n].0 as usize].borrow_mut() = outs[0].bytes().to_vec();
    Ok(())
}

fn run_loops(k: &brolga_ir::loops::Kernel, args: &[SlotId], memory: &[RefCell<Vec<u8>>]) -> Result<(), String> {
    let mut data: Vec<Vec<u8>> = args.iter().map(|s| memory[s.0 as usize].borrow().clone()).collect();
    let buffers: Vec<BufferData> = data
        .iter_mut()
        .zip(&k.buffers)
        .map(|(d, b)| match b.scope {
            brolga_ir::loops::Scope::In => BufferData::from(&d[..]),
            _ => BufferData::from(&mut d[..]),
        })
        .collect();
    brolga_ir::loops::interp::run(k, &|_| None, &buffers).map_err(|e| format!("{e}\n{k}"))?;
    for ((s, d), b) in args.iter().zip(data).zip(&k.buffers) {
        if b.scope == brolga_ir::loops::Scope::Out {
            *memory[s.0 as usize].borrow_mut() = d;
        }
    }
    Ok(())
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

#[test]
fn every_operator_means_the_same_on_every_level() {
    let (mut checked, mut wrong) = (0, vec![]);
    for def in ops::all() {
        for (i, sample) in def.samples().iter().enumerate() {
            let op = Op::new(def.name(), &sample.attrs).expect("samples are valid");
            let one = || -> Result<(), String> {
                let graph = graph_of(&op, sample)?;
                let structured = lower::to_structured(&graph).map_err(|e| e.to_string())?;
                let loops = lower::to_loops(
                    &structured,
                    lower::Options {
                        max_rows: 6,
                        resident: 1 << 10,
                    },
                );
                for k in &loops.kernels {
                    k.verify().map_err(|e| format!("{e}\n{k}"))?;
                }
                for seed in 0..2 {
                    let inputs = sample.operands(seed);
                    let want = op.eval(&inputs)?;
                    // 16-bit results are rounded once more where a composite stores its parts.
                    let tolerance = match (def.accuracy(), want[0].dtype()) {
                        (Accuracy::Exact, _) => 0.0,
                        (_, DType::F16) => 2e-3,
                        (_, DType::BF16) => 2e-2,
                        (_, DType::F64) => 1e-12,
                        _ => 2e-6,
                    };
                    let found = execute(&structured, &inputs, run_structured)?;
                    for (f, w) in found.iter().zip(&want) {
                        if distance(f, w) > tolerance {
                            return Err(format!("structured: {f:?}, expected {w:?}"));
                        }
                    }
                    let found = execute(&loops, &inputs, run_loops)?;
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
            if let Err(e) = one() {
                wrong.push(format!("{} sample {i} {sample:?}: {e}", def.name()));
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
    let loops = lower::to_loops(&structured, lower::Options::default());
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
