//! Compiling: phases, and the result.
//!
//! [`compile`] goes down through the [`levels`] and evaluates the constants; machine code is made by what
//! asks for it: a session, or one of the files of [`crate::output`].

use crate::backend::{self, native};
use crate::levels::{self, Level, Module, Walk};
use crate::options::{Options, Timings};
use crate::tune::applied::Tuned;
use crate::weights::{Constants, Packed};
use crate::{Error, Result, host, source, tensors};
use brolga_abi::{Dim as AbiDim, Input, Meta, Output};
use brolga_ir::CpuTarget;
use brolga_ir::program::{Alias, Program, Slot, SlotId, Storage};
use brolga_ir::{Constant, Dim, Graph, NodeError, Symbol, Target, Type};
use brolga_passes::schedule::Sources;
use std::fmt;
use std::path::Path;
use std::time::Instant;

/// A compiled model, of which machine code, sessions and files are made.
pub struct Compiled {
    /// What a C caller's symbols begin with.
    pub prefix: String,
    /// The machine it is compiled for.
    pub target: Target,
    /// Loop nests and steps.
    pub program: Program,
    /// Evaluated constants.
    pub packed: Packed,
    /// What the program says of itself; offsets of code are filled in where there is code.
    pub meta: Meta,
    /// How long it took.
    pub timings: Timings,
    /// What passes did, and what they did not and why.
    pub remarks: Vec<String>,
    /// What became of the records of the options.
    pub tuned: Tuned,
    /// Texts that an artefact of it carries: kinds, names, and themselves.
    pub texts: Vec<(String, String, String)>,
    /// Programs that an artefact of it carries as well, behind this one.
    pub beside: Vec<Compiled>,
    /// Threads that make machine code.
    pub threads: usize,
    /// Whether sessions of it tell `perf` the names of their kernels ([`Options::perf_map`]).
    pub perf_map: bool,
}

/// A compiled model whose constants are not evaluated yet.
pub(crate) struct Draft {
    pub prefix: String,
    pub target: Target,
    pub program: Program,
    pub constants: Constants,
    /// The machine that evaluates constants: this one.
    pub native: Target,
    pub memory_limit: u64,
    pub meta: Meta,
    pub timings: Timings,
    pub remarks: Vec<String>,
    pub tuned: Tuned,
    pub threads: usize,
    pub perf_map: bool,
    /// What the loop kernels were made of, where they were made here.
    pub sources: Option<Sources>,
}

impl fmt::Debug for Compiled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Compiled")
            .field("meta", &self.meta)
            .field("timings", &self.timings)
            .finish_non_exhaustive()
    }
}

/// Reads and compiles a model file.
///
/// # Errors
/// When it is no model, uses what is not supported, or does not fit in memory.
pub fn compile_file(path: impl AsRef<Path>, options: &Options) -> Result<Compiled> {
    draft_file(path.as_ref(), options)?.finish()
}

pub(crate) fn draft_file(path: &Path, options: &Options) -> Result<Draft> {
    let start = Instant::now();
    let module = source::model(path, options)?;
    let load = start.elapsed();
    let mut draft = draft_module(module, &options.without_sizes())?;
    draft.timings.load = load;
    Ok(draft)
}

/// Compiles a module from the level on that it is at. Sizes are for tensor graphs.
///
/// # Errors
/// When a pass fails, naming the node; when constants do not fit in memory.
pub fn compile_module(module: Module, options: &Options) -> Result<Compiled> {
    draft_module(module, options)?.finish()
}

pub(crate) fn draft_module(module: Module, options: &Options) -> Result<Draft> {
    cpu(options)?;
    let (module, defaults) = match module {
        Module::Tensor(graph) if !options.sizes.is_empty() => {
            let graph = levels::specialise(&graph, &options.sizes)?;
            let defaults = graph.defaults.clone();
            (Module::Tensor(graph), defaults)
        }
        Module::Tensor(graph) => {
            let defaults = graph.defaults.clone();
            (Module::Tensor(graph), defaults)
        }
        lower => (lower, vec![]),
    };
    let mut walk = Walk::new(module, options)?.down(Level::Program)?;
    let timings = Timings {
        optimise: walk.optimise,
        lower: walk.lower,
        ..Timings::default()
    };
    let (remarks, sources) = (walk.remarks().to_vec(), walk.take_sources());
    let tuned = walk.tuned;
    let draft = Draft::new(levels::into_program(walk.module), &defaults, options, remarks, timings)?;
    Ok(Draft {
        tuned,
        sources,
        ..draft
    })
}

/// Compiles a graph.
///
/// # Errors
/// As [`compile_module`].
pub fn compile(graph: &Graph, options: &Options) -> Result<Compiled> {
    draft(graph, options)?.finish()
}

pub(crate) fn draft(graph: &Graph, options: &Options) -> Result<Draft> {
    draft_module(Module::Tensor(graph.clone()), options)
}

/// The CPU that machine code is for.
fn cpu(options: &Options) -> Result<&CpuTarget> {
    brolga_codegen::target::cpu(&options.target).map_err(|e| Error::Option(e.to_string()))
}

/// Compiles a graph whose `level` is printed and read back on the way.
///
/// # Errors
/// As [`compile`]; when the text is not read back.
pub fn compile_through_text(graph: &Graph, options: &Options, level: Level) -> Result<Compiled> {
    let program = levels::through_text(graph, options, level)?;
    Draft::new(program, &graph.defaults, options, vec![], Timings::default())?.finish()
}

impl Draft {
    fn new(
        mut program: Program,
        defaults: &[(String, Constant)],
        options: &Options,
        remarks: Vec<String>,
        mut timings: Timings,
    ) -> Result<Draft> {
        declared(&program, options)?;
        let start = Instant::now();
        // Constants like others, but it is the caller who reads them, in place of an input.
        let kept: Vec<(&str, SlotId)> = defaults
            .iter()
            .map(|(name, c)| (name.as_str(), add_weight(&mut program, c)))
            .collect();
        let kept_slots: Vec<SlotId> = kept.iter().map(|(_, s)| *s).collect();
        let native = brolga_codegen::target::native().ok_or_else(|| {
            Error::Option(
                "this machine's architecture is none that Brolga makes code for; it cannot evaluate constants".into(),
            )
        })?;
        let constants = Constants::of(&program, &kept_slots)?;
        let mut meta = describe(&program, options, &constants)?;
        for input in &mut meta.inputs {
            let slot = kept.iter().find(|(name, _)| *name == input.name);
            input.default = slot.and_then(|(_, s)| constants.offset(*s));
        }
        timings.constants = start.elapsed();
        Ok(Draft {
            prefix: brolga_abi::symbol_prefix(&program.name),
            target: options.target.clone(),
            program,
            constants,
            native,
            memory_limit: options.memory_limit,
            meta,
            timings,
            remarks,
            tuned: Tuned::default(),
            threads: options.workers(),
            perf_map: options.perf_map,
            sources: None,
        })
    }

    /// Evaluates the constants, by all threads.
    pub fn finish(self) -> Result<Compiled> {
        let threads = self.threads;
        let (compiled, ()) = self.evaluate(|_, _, work| native::with_help(threads, work, |_| work()))?;
        Ok(compiled)
    }

    /// Evaluates the constants; `beside` is called once meanwhile with what code is made of, and with a function that
    /// evaluates until nothing is left.
    pub fn evaluate<T>(
        mut self,
        beside: impl FnOnce(backend::Input, &mut Timings, &(dyn Fn() + Sync)) -> T,
    ) -> Result<(Compiled, T)> {
        let (start, before) = (Instant::now(), self.timings.codegen);
        let offsets = self.constants.offsets().clone();
        let input = backend::Input {
            program: &self.program,
            target: &self.target,
            prefix: &self.prefix,
            constants: &offsets,
        };
        let timings = &mut self.timings;
        let evaluated = self
            .constants
            .evaluate(&self.program, &self.native, self.memory_limit, |work| {
                beside(input, timings, work)
            });
        let (packed, made) = evaluated?;
        let codegen = self.timings.codegen - before;
        self.timings.constants += start.elapsed().saturating_sub(codegen);
        levels::forget_constants(&mut self.program);
        let compiled = Compiled {
            prefix: self.prefix,
            target: self.target,
            program: self.program,
            packed,
            meta: self.meta,
            timings: self.timings,
            remarks: self.remarks,
            tuned: self.tuned,
            texts: vec![],
            beside: vec![],
            threads: self.threads,
            perf_map: self.perf_map,
        };
        Ok((compiled, made))
    }
}

/// Checks that outputs may be the memory of inputs where the options ask for it.
fn declared(program: &Program, options: &Options) -> Result<()> {
    for (input, output) in &options.aliases {
        let same = |a: &Alias| {
            let names = (
                &program.inputs[a.input as usize].0,
                &program.outputs[a.output as usize].0,
            );
            names == (input, output)
        };
        if !program.aliases.iter().any(same) {
            return Err(Error::Option(format!(
                "input `{input}` as output `{output}`: the pass `bufferize` declares that, which did not run on this model"
            )));
        }
    }
    Ok(())
}

fn add_weight(program: &mut Program, c: &Constant) -> SlotId {
    let slot = Slot::new(c.ty.clone(), Storage::Weight(c.data.clone()));
    program.slots.push(slot);
    SlotId(program.slots.len() as u32 - 1)
}

fn describe(program: &Program, options: &Options, constants: &Constants) -> Result<Meta> {
    let lower = |source| Error::Lower {
        model: program.name.clone(),
        source,
    };
    let cpu = cpu(options)?;
    let inputs = inputs(program)?;
    let late = program.bounds();
    let outputs = program.outputs.iter().map(|(name, slot)| {
        let ty = &program.slot(*slot).ty;
        let dims: Vec<String> = ty.shape.iter().map(Dim::to_string).collect();
        Output {
            name: name.clone(),
            dtype: tensors::abi_dtype(ty.dtype),
            rank: ty.rank() as u32,
            dynamic: program.slot(*slot).is_late(&late),
            shape: format!("[{}]", dims.join(", ")),
        }
    });
    let aliases = program.aliases.iter().map(|a| brolga_abi::Alias {
        input: a.input,
        output: a.output,
    });
    let meta = Meta {
        name: program.name.clone(),
        target: cpu.triple.to_owned(),
        features: cpu.features().iter().map(|f| (*f).to_owned()).collect(),
        compiler: concat!("brolga ", env!("CARGO_PKG_VERSION")).to_owned(),
        symbols: program.symbols.iter().map(|s| s.to_string()).collect(),
        inputs,
        outputs: outputs.collect(),
        aliases: aliases.collect(),
        guards: program.guards.iter().map(|g| g.to_string()).collect(),
        strings: program.strings.iter().map(|s| s.to_string()).collect(),
        sizes: brolga_codegen::plan::sizes(program),
        checks: brolga_codegen::program::checks(&program.steps),
        names: program.visible_names().iter().map(|n| n.to_string()).collect(),
        host_ops: host::describe(program).map_err(lower)?,
        nodes: brolga_codegen::program::nodes(&program.steps)
            .iter()
            .map(|n| n.to_string())
            .collect(),
        weights_bytes: constants.bytes(),
        steering_bytes: constants.steering(),
        ..Meta::default()
    };
    Ok(meta)
}

/// What a program says of its inputs.
pub(crate) fn inputs(program: &Program) -> Result<Vec<Input>> {
    let typed = program
        .inputs
        .iter()
        .map(|(name, slot)| (&**name, &program.slot(*slot).ty));
    ports(&program.name, &program.symbols, typed)
}

/// What the program of a graph says of its inputs.
///
/// # Errors
/// When an extent is neither a number nor a symbol.
pub fn graph_inputs(g: &Graph) -> Result<Vec<Input>> {
    ports(&g.name, &g.symbols, g.inputs.iter().map(|i| (&*i.name, g.ty(i.value))))
}

fn ports<'a>(model: &str, symbols: &[Symbol], inputs: impl Iterator<Item = (&'a str, &'a Type)>) -> Result<Vec<Input>> {
    let symbol = |s: &Symbol| symbols.iter().position(|x| x == s);
    let one = |(name, ty): (&str, &Type)| {
        let dim = |d: &Dim| match (d.as_const(), d.as_symbol().and_then(symbol)) {
            (Some(n), _) => Ok(AbiDim::Const(n)),
            (None, Some(s)) => Ok(AbiDim::Symbol(s as u32)),
            (None, None) => Err(Error::Lower {
                model: model.to_owned(),
                source: NodeError {
                    node: String::new(),
                    message: format!("input `{name}` has the extent {d}, expected a number or a symbol"),
                },
            }),
        };
        Ok(Input {
            name: name.to_owned(),
            dtype: tensors::abi_dtype(ty.dtype),
            dims: ty.shape.iter().map(dim).collect::<Result<_>>()?,
            default: None,
        })
    };
    inputs.map(one).collect()
}
