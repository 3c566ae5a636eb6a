//! Models on an NVIDIA GPU.
//!
//! ```text
//! Graph ─ canonicalize,prune,eqsat,lower,schedule,plan-memory ─▶ Program ─ plan(sizes) ─▶ runtime::cuda::Plan ─▶ Gpu
//! ```
//!
//! A program for a GPU may have symbolic dimensions; a plan has none. A plan is made, and its kernels are assembled by the
//! CUDA driver, when inputs of new sizes come; the last one is kept.

use crate::compile;
use crate::levels::{self, Level, Module, Walk};
use crate::options::{Options, Timings};
use crate::{Error, Result, source, tensors};
use brolga_abi::Input;
use brolga_codegen::ptx::{self, Arch};
use brolga_ir::dim::NoValue;
use brolga_ir::program::{Program, SlotId, Step, Storage};
use brolga_ir::{ConstData, Dim, Graph, NodeError, Symbol, Tensor};
use brolga_runtime::cuda::{self, Gpu, Launch, Plan};
use brolga_runtime::{Buffer, View};
use std::borrow::Cow;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Instant;

/// A model compiled for a GPU.
pub struct CudaModel {
    /// Kernels scheduled for a GPU, steps, the memory plan.
    pub program: Program,
    /// What passes did, and what they did not and why.
    pub remarks: Vec<String>,
    memory_limit: u64,
    timings: Timings,
}

impl CudaModel {
    /// Compiles a graph for the options' target, or for [`Target::sm_80`](brolga_ir::Target::sm_80) where that is a CPU.
    ///
    /// # Errors
    /// When a pass fails, or an operator has to run on the host; all such operators are named.
    pub fn compile(graph: &Graph, options: &Options) -> Result<CudaModel> {
        let options = &on_gpu(options, options.target.gpu().unwrap_or(Arch::Sm80));
        let specialised;
        let graph = if options.sizes.is_empty() {
            graph
        } else {
            specialised = levels::specialise(graph, &options.sizes)?;
            &specialised
        };
        let walk = Walk::new(Module::Tensor(graph.clone()), options)?.down(Level::Program)?;
        let (timings, remarks) = (
            Timings {
                optimise: walk.optimise,
                lower: walk.lower,
                ..Timings::default()
            },
            walk.remarks().to_vec(),
        );
        let mut model = CudaModel::new(levels::into_program(walk.module), options.memory_limit)?;
        model.timings = timings;
        model.remarks = remarks;
        Ok(model)
    }

    /// A program that is scheduled for a GPU, and planned.
    ///
    /// # Errors
    /// When it is not valid, or an operator has to run on the host; all such operators are named.
    pub fn new(program: Program, memory_limit: u64) -> Result<CudaModel> {
        let model = CudaModel {
            program,
            remarks: vec![],
            memory_limit,
            timings: Timings::default(),
        };
        model.program.verify().map_err(|e| model.fail(e))?;
        let host: Vec<String> = (model.program.steps.iter())
            .filter_map(|s| match s {
                Step::Host { op, origin, .. } => Some(format!("{} (node `{origin}`)", op.name())),
                _ => None,
            })
            .collect();
        match host.is_empty() {
            true => Ok(model),
            false => Err(model.fail(format!("operators that only a CPU runs: {}", host.join(", ")))),
        }
    }

    fn fail(&self, message: impl Into<String>) -> Error {
        Error::Lower {
            model: self.program.name.clone(),
            source: NodeError {
                node: String::new(),
                message: message.into(),
            },
        }
    }

    /// The kernels as PTX.
    ///
    /// # Errors
    /// When a kernel asks for more than a GPU has.
    pub fn ptx(&self, arch: Arch) -> Result<String> {
        ptx::print_program(&self.program, arch).map_err(|source| Error::Codegen {
            model: self.program.name.clone(),
            source,
        })
    }

    /// What a GPU runs for these values of the symbols.
    ///
    /// # Errors
    /// When a symbol is missing, a guard does not hold, or the memory limit is passed.
    pub fn plan(&self, sizes: &[(Symbol, i64)], arch: Arch) -> Result<Plan<'_>> {
        let mut sizes = sizes.to_vec();
        self.program.bind_lets(&mut sizes).map_err(|e| self.fail(e))?;
        let lookup = |s: &str| sizes.iter().find(|(n, _)| **n == *s).map(|(_, v)| *v);
        let dim = |d: &Dim| {
            let value = d.value(&lookup).map_err(|e| self.fail(format!("{e}, for {sizes:?}")))?;
            u64::try_from(value).map_err(|_| self.fail(format!("the dimension `{d}` is {value} for {sizes:?}")))
        };
        for g in &self.program.guards {
            g.check(&lookup).map_err(|e| self.fail(e))?;
        }
        let mut p = Planner {
            model: self,
            dim: &dim,
            numbers: vec![None; self.program.slots.len()],
            plan: Plan {
                name: self.program.name.clone(),
                module: self.ptx(arch)?,
                entries: self.program.kernels.iter().map(ptx::entry_name).collect(),
                arena_bytes: self.program.arena.as_ref().map_or(Ok(0), dim)?,
                ..Plan::default()
            },
        };
        p.plan.init = p.steps(&self.program.init, &lookup)?;
        p.plan.steps = p.steps(&self.program.steps, &lookup)?;
        for (_, s) in &self.program.inputs {
            let b = p.buffer(*s)?;
            p.plan.inputs.push(b);
        }
        for (_, s) in &self.program.outputs {
            let b = p.buffer(*s)?;
            p.plan.outputs.push(b);
        }
        let plan = p.plan;
        let own = plan
            .buffers
            .iter()
            .filter(|b| !matches!(b.storage, cuda::Storage::Arena(_)));
        let needed = own.fold(plan.arena_bytes, |n, b| n.saturating_add(b.bytes));
        if needed > self.memory_limit {
            return Err(Error::Runtime(brolga_runtime::Error::MemoryLimit {
                program: plan.name,
                needed,
                limit: self.memory_limit,
                dims: format!("{sizes:?}"),
            }));
        }
        plan.check()?;
        Ok(plan)
    }
}

/// The options with a GPU as their target.
fn on_gpu(options: &Options, arch: Arch) -> Options {
    Options {
        target: arch.target(),
        ..options.clone()
    }
}

/// A plan under construction.
struct Planner<'a, 'd> {
    model: &'a CudaModel,
    dim: &'d dyn Fn(&Dim) -> Result<u64>,
    /// The buffer of each slot that something uses.
    numbers: Vec<Option<usize>>,
    plan: Plan<'a>,
}

impl<'a> Planner<'a, '_> {
    /// The buffer of a slot.
    fn buffer(&mut self, slot: SlotId) -> Result<usize> {
        let program = &self.model.program;
        let (root, start) = program.place(slot);
        if !start.is(0) {
            return Err(self
                .model
                .fail(format!("{slot} is part of {root}, which only a CPU runs")));
        }
        if let Some(n) = self.numbers[root.0 as usize] {
            return Ok(n);
        }
        let slot = program.slot(root);
        let bytes = (self.dim)(&slot.bytes())?;
        let storage = match &slot.storage {
            Storage::Input(_) => cuda::Storage::Input,
            Storage::Output(_) => cuda::Storage::Output,
            Storage::Computed => cuda::Storage::Computed,
            Storage::Temp(Some(at)) => cuda::Storage::Arena((self.dim)(at)?),
            Storage::Weight(data) => cuda::Storage::Constant(self.constant(root, data, bytes)?),
            Storage::Temp(None) | Storage::Heap | Storage::View { .. } => {
                return Err(self.model.fail(format!("{root} has no memory")));
            }
        };
        self.plan.buffers.push(cuda::Buffer { bytes, storage });
        let n = self.plan.buffers.len() - 1;
        self.numbers[root.0 as usize] = Some(n);
        Ok(n)
    }

    fn constant(&self, slot: SlotId, data: &'a ConstData, bytes: u64) -> Result<Cow<'a, [u8]>> {
        match data {
            ConstData::Dense(t) => Ok(t.bytes().into()),
            ConstData::File { source, offset } => {
                let end = usize::try_from(bytes).ok().and_then(|n| offset.checked_add(n));
                let part = end.and_then(|end| source.bytes().get(*offset..end));
                let outside = || self.model.fail(format!("{slot} lies outside of {}", source.name()));
                Ok(part.ok_or_else(outside)?.into())
            }
            ConstData::Splat(_) => {
                let c = brolga_ir::Constant {
                    ty: self.model.program.slot(slot).ty.clone(),
                    data: data.clone(),
                };
                Ok(c.to_tensor().bytes().to_vec().into())
            }
        }
    }

    fn steps(&mut self, steps: &[Step], lookup: &dyn Fn(&str) -> Option<i64>) -> Result<Vec<cuda::Step>> {
        steps.iter().map(|s| self.step(s, lookup)).collect()
    }

    fn step(&mut self, step: &Step, lookup: &dyn Fn(&str) -> Option<i64>) -> Result<cuda::Step> {
        match step {
            Step::Let(_)
            | Step::Read { .. }
            | Step::Alloc { .. }
            | Step::If { .. }
            | Step::While { .. }
            | Step::Check { .. } => Err(self
                .model
                .fail("steps that depend on what only a run tells; only a CPU runs them")),
            Step::Copy { rows: Some(_), .. } => Err(self.model.fail("a copy of rows in a program for a GPU")),
            Step::Copy { from, to, rows: None } => Ok(cuda::Step::Copy {
                from: self.buffer(*from)?,
                to: self.buffer(*to)?,
            }),
            Step::Host { op, origin, .. } => Err(self
                .model
                .fail(format!("{} (node `{origin}`) runs on a CPU only", op.name()))),
            Step::Call {
                kernel,
                args,
                origin,
                checks,
            } => {
                let k = &self.model.program.kernels[*kernel as usize];
                let launch = ptx::launch(k);
                let mut large = None;
                brolga_codegen::plan::for_each_dim(k, &mut |d| {
                    if let Err(e @ NoValue::TooLarge(_)) = d.value(lookup) {
                        large = Some(e);
                    }
                });
                if let Some(e) = large {
                    return Err(self.model.fail(format!("a position in kernel `{}`: {e}", k.name)));
                }
                let mut grid = [0; 3];
                for (n, d) in grid.iter_mut().zip(&launch.grid) {
                    // An extent that is negative for these sizes is an empty one.
                    let extent = d
                        .eval(lookup)
                        .ok_or_else(|| self.model.fail(format!("`{d}` has no size")))?;
                    let many = || self.model.fail(format!("a grid of {extent} blocks"));
                    *n = u32::try_from(extent.max(0)).map_err(|_| many())?;
                }
                let symbol = |s: &Symbol| {
                    let missing = || self.model.fail(format!("the symbol `{s}` has no size"));
                    lookup(s).ok_or_else(missing)
                };
                Ok(cuda::Step::Launch(Launch {
                    entry: *kernel as usize,
                    grid,
                    block: launch.block,
                    buffers: args.iter().map(|s| self.buffer(*s)).collect::<Result<_>>()?,
                    dims: k.symbols.iter().map(symbol).collect::<Result<_>>()?,
                    node: origin.first().map_or_else(String::new, |n| n.to_string()),
                    checks: checks.iter().map(|n| n.to_string()).collect(),
                }))
            }
        }
    }
}

/// Values of symbols, and what is loaded for them.
type Loaded = (Vec<(Symbol, i64)>, Arc<Gpu>);

/// A model that is ready to run on a GPU.
pub struct CudaSession {
    model: CudaModel,
    inputs: Vec<Input>,
    /// What inputs are where none is given.
    defaults: Vec<(String, Tensor)>,
    device: u32,
    arch: Arch,
    loaded: Mutex<Option<Loaded>>,
}

impl CudaSession {
    /// Loads an ONNX model or a printed tensor graph for the first GPU.
    ///
    /// # Errors
    /// When there is no CUDA driver or no GPU of compute capability 8.0, or the file cannot be compiled.
    pub fn load(path: impl AsRef<Path>, options: &Options) -> Result<CudaSession> {
        let device = 0;
        let (major, minor) = Gpu::capability(device)?;
        let arch = Arch::for_capability(major, minor).ok_or_else(|| {
            let message = format!("the GPU has compute capability {major}.{minor}, expected 8.0 at least");
            Error::Option(message)
        })?;
        let path = path.as_ref();
        if source::kind(path)? == source::Kind::Artefact {
            return Err(Error::file(path, "an artefact holds code for a CPU; give the model"));
        }
        let start = Instant::now();
        let graph = source::graph_for(path, options)?;
        let load = start.elapsed();
        let mut model = CudaModel::compile(&graph, &on_gpu(&options.without_sizes(), arch))?;
        model.timings.load = load;
        Ok(CudaSession {
            inputs: compile::inputs(&model.program)?,
            defaults: graph.defaults.iter().map(|(n, c)| (n.clone(), c.to_tensor())).collect(),
            model,
            device,
            arch,
            loaded: Mutex::new(None),
        })
    }

    /// The compiled model.
    pub fn model(&self) -> &CudaModel {
        &self.model
    }

    /// The model's inputs, in order.
    pub fn inputs(&self) -> &[Input] {
        &self.inputs
    }

    /// Whether an input has a value where none is given.
    pub fn has_default(&self, name: &str) -> bool {
        self.defaults.iter().any(|(n, _)| n == name)
    }

    /// How long loading and compiling took; the driver's assembler works in the first run.
    pub fn timings(&self) -> Timings {
        self.model.timings
    }

    /// Runs on inputs by name, in any order, and returns the outputs in the model's.
    ///
    /// # Errors
    /// When inputs are missing or do not fit, or the driver reports an error.
    pub fn run_named(&self, inputs: &[(&str, View)]) -> Result<Vec<Buffer>> {
        let program = &self.model.program;
        let names = || {
            let all: Vec<String> = program.inputs.iter().map(|(n, _)| format!("`{n}`")).collect();
            all.join(", ")
        };
        if let Some((name, _)) = inputs.iter().find(|(n, _)| program.inputs.iter().all(|(m, _)| m != n)) {
            return Err(Error::Runtime(brolga_runtime::Error::UnknownInput {
                name: (*name).to_owned(),
                names: names(),
            }));
        }
        let mut ordered = vec![];
        for (name, _) in &program.inputs {
            let view = inputs.iter().find(|(n, _)| n == name);
            if let (None, Some((_, default))) = (view, self.defaults.iter().find(|(n, _)| n == name)) {
                ordered.push(default.clone());
                continue;
            }
            let (_, v) = view.ok_or_else(|| {
                self.model
                    .fail(format!("input `{name}` is missing; the inputs are {}", names()))
            })?;
            let tensor = Tensor::new(tensors::ir_dtype(v.dtype), v.shape.to_vec(), v.bytes);
            ordered.push(tensor.map_err(|e| self.model.fail(format!("input `{name}`: {e}")))?);
        }
        let sizes = program.bind(&ordered).map_err(|e| self.model.fail(e))?;
        let gpu = self.gpu(&sizes)?;
        let lookup = |s: &str| sizes.iter().find(|(n, _)| **n == *s).map(|(_, v)| *v);
        let mut outputs = vec![];
        for (name, slot) in &program.outputs {
            let ty = &program.slot(*slot).ty;
            let shape: Option<Vec<usize>> = (ty.shape.iter())
                .map(|d| d.eval(&lookup).and_then(|n| usize::try_from(n).ok()))
                .collect();
            let shape =
                shape.ok_or_else(|| self.model.fail(format!("output `{name}` has no shape under {sizes:?}")))?;
            outputs.push(Buffer::zeroed(tensors::abi_dtype(ty.dtype), shape)?);
        }
        let bytes: Vec<&[u8]> = ordered.iter().map(Tensor::bytes).collect();
        let mut into: Vec<&mut [u8]> = outputs.iter_mut().map(Buffer::bytes_mut).collect();
        gpu.run(&bytes, &mut into)?;
        Ok(outputs)
    }

    /// What is loaded for these sizes.
    fn gpu(&self, sizes: &[(Symbol, i64)]) -> Result<Arc<Gpu>> {
        // Whoever panicked here left either an old plan or a new one.
        let mut loaded = self.loaded.lock().unwrap_or_else(|e| e.into_inner());
        if let Some((known, gpu)) = &*loaded
            && known == sizes
        {
            return Ok(gpu.clone());
        }
        let plan = self.model.plan(sizes, self.arch)?;
        // SAFETY: the plan's launches are made from the kernels that its module was printed from: as many pointers and
        // symbols, and buffers of the sizes that the kernels declare, within which the schedules stay.
        let gpu = Arc::new(unsafe { Gpu::load(&plan, self.device) }?);
        *loaded = Some((sizes.to_vec(), gpu.clone()));
        Ok(gpu)
    }
}

/// Compiles a model for the first GPU and runs it once on inputs by name; gives the outputs by name.
///
/// # Errors
/// As [`CudaSession::load`] and [`CudaSession::run_named`].
pub fn run_cuda(path: impl AsRef<Path>, options: &Options, inputs: &[(&str, View)]) -> Result<Vec<(String, Buffer)>> {
    let session = CudaSession::load(path, options)?;
    let outputs = session.run_named(inputs)?;
    let names = session.model.program.outputs.iter().map(|(n, _)| n.clone());
    Ok(names.zip(outputs).collect())
}
