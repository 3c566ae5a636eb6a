//! A model that is ready to run.
//!
//! A session is `Send + Sync`; runs of one session may overlap, and any number of sessions may live at once. Dropping the
//! last one that uses them frees code, weights and arenas.

use crate::backend::native::{self, JitCode};
use crate::compile::{Compiled, Draft, compile, draft, draft_file};
use crate::host::Reference;
use crate::options::{Options, Timings};
use crate::source::{Kind, kind};
use crate::tune::applied::Tuned;
use crate::tune::record::Log;
use crate::versions::{Specialise, Versions};
use crate::{Error, Result, cache, perf_map, source};
use brolga_abi::{Input, Meta, Output, StepHook};
use brolga_ir::{Strings, Target};
use brolga_runtime::{Buffer, Executor, HostOps, Program, View, ViewMut};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

/// How a session is made; see [`Session::options`].
#[derive(Clone, Default)]
pub struct SessionOptions {
    compile: Options,
    threads: usize,
    cache: Option<PathBuf>,
    specialise: Specialise,
}

impl SessionOptions {
    /// Threads of parallel loops, the caller's included; 0, the default, is one for each core.
    pub fn threads(mut self, threads: usize) -> Self {
        self.threads = threads;
        self
    }

    /// Bytes that constants, and the memory of a run, may take.
    pub fn memory_limit(mut self, bytes: u64) -> Self {
        self.compile.memory_limit = bytes;
        self
    }

    /// The machine to compile for; it has to be one that this machine runs.
    pub fn target(mut self, target: Target) -> Self {
        self.compile.target = target;
        self
    }

    /// A size for a symbolic dimension: the code is made for this size only, and may be faster for it.
    pub fn size(mut self, symbol: &str, extent: i64) -> Self {
        self.compile.sizes.push((symbol.to_owned(), extent));
        self
    }

    /// Makes an output the memory of an input where the caller gives one for both ([`Session::run_in_place`]), as for a
    /// cache that the model updates. Both have the same type, and nothing reads the input when the output is written.
    pub fn alias(mut self, input: &str, output: &str) -> Self {
        self.compile.aliases.push((input.to_owned(), output.to_owned()));
        self
    }

    /// Records of tuning: kernels that have one for this machine get its schedule.
    pub fn tuned(mut self, log: Log) -> Self {
        self.compile.tuned = Some(Arc::new(log));
        self
    }

    /// Compiles the model again for sizes of symbolic dimensions that are seen. Each version takes the time and the memory
    /// of a model of its own, its weights included; its results are the same up to the order of sums. A model that is
    /// lowered already cannot be compiled again.
    pub fn specialise(mut self, how: Specialise) -> Self {
        self.specialise = how;
        self
    }

    /// Makes inputs constants that have an initializer, which is their default otherwise: nobody can give them then, and
    /// the code may be faster.
    pub fn constant_defaults(mut self, constant: bool) -> Self {
        self.compile.constant_defaults = constant;
        self
    }

    /// A folder of artefacts: a model that was compiled before with the same options is mapped instead of compiled again.
    /// As for every artefact, whoever can write there can run code in this process.
    pub fn cache(mut self, folder: impl Into<PathBuf>) -> Self {
        self.cache = Some(folder.into());
        self
    }

    /// All options of compiling at once.
    pub fn compile(mut self, options: Options) -> Self {
        self.compile = options;
        self
    }

    /// Loads an ONNX model, the printed text of any level, or an artefact.
    ///
    /// An artefact is machine code and is trusted as a program that is started: load only those from compilers that you
    /// trust, and do not change the file in place while the session lives.
    ///
    /// # Errors
    /// When the file is no model, does not fit this machine, or uses what is not supported.
    pub fn load(self, path: impl AsRef<Path>) -> Result<Session> {
        let path = path.as_ref();
        let kind = kind(path)?;
        if self.specialise.versions > 0 {
            return self.load_with_versions(path, kind);
        }
        if kind == Kind::Artefact {
            return self.open(path);
        }
        match self.cache.clone() {
            Some(folder) if kind != Kind::Program => self.load_cached(path, &folder),
            _ => draft_file(path, &self.compiling())?.session(self.threads),
        }
    }

    /// The options of compiling, by as many threads as the session has.
    fn compiling(&self) -> Options {
        Options {
            threads: self.threads,
            ..self.compile.clone()
        }
    }

    fn load_with_versions(self, path: &Path, kind: Kind) -> Result<Session> {
        if matches!(kind, Kind::Artefact | Kind::Program) {
            return Err(Error::file(
                path,
                "it is lowered already and cannot be specialised; load the model that it was made of",
            ));
        }
        let start = Instant::now();
        let graph = source::graph_for(path, &self.compile)?;
        let load = start.elapsed();
        let (options, threads, how) = (self.compiling().without_sizes(), self.threads, self.specialise);
        let mut session = match self.cache.clone() {
            Some(folder) => self.load_cached(path, &folder)?,
            None => {
                let mut draft = draft(&graph, &options)?;
                draft.timings.load = load;
                draft.session(threads)?
            }
        };
        if !session.meta().symbols.is_empty() {
            session.versions = Some(Versions::new(graph, &session.meta().symbols, &options, threads, how));
        }
        Ok(session)
    }

    fn load_cached(self, path: &Path, folder: &Path) -> Result<Session> {
        let start = Instant::now();
        let limit = self.compile.memory_limit;
        let graph = source::graph_for(path, &self.compile)?;
        let load = start.elapsed();
        let key = cache::key(path, &graph, &self.compile)?;
        let file = cache::file(folder, key);
        if file.exists()
            // SAFETY: the documentation of `cache` says that the folder is trusted; files there are replaced, not changed.
            && let Ok(program) = unsafe { Program::open(&file) }
            && program.meta().key == key
            && program.check_weights().is_ok()
        {
            let mut session = Session::new(program, running(self.threads, limit), Some(file))?;
            session.timings.load = start.elapsed();
            return Ok(session);
        }
        let mut compiled = compile(&graph, &self.compiling().without_sizes())?;
        drop(graph);
        compiled.timings.load = load;
        compiled.meta.key = key;
        crate::output::folder(folder)?;
        compiled.write_artefact(&file)?;
        compiled.session_with(self.threads, limit)
    }

    fn open(self, path: &Path) -> Result<Session> {
        Ok(self.open_all(path)?.swap_remove(0))
    }

    /// Opens the programs of an artefact, at least one.
    pub(crate) fn open_all(self, path: &Path) -> Result<Vec<Session>> {
        source::without_sizes(path, &self.compile)?;
        source::as_declared(path, &self.compile)?;
        if !self.compile.aliases.is_empty() {
            return Err(Error::file(
                path,
                "an artefact is compiled already; which outputs may be the memory of inputs is said when it is compiled",
            ));
        }
        let start = Instant::now();
        // SAFETY: the documentation of `load` asks for an artefact that is trusted and does not change.
        let programs = unsafe { Program::open_all(path) }?;
        let session = |program| {
            let options = running(self.threads, self.compile.memory_limit);
            let mut session = Session::new(program, options, Some(path.to_owned()))?;
            session.timings.load = start.elapsed();
            Ok(session)
        };
        programs.into_iter().map(session).collect()
    }
}

/// A model, ready to run.
///
/// ```
/// # fn main() -> Result<(), brolga::Error> {
/// # let model = concat!(env!("CARGO_MANIFEST_DIR"), "/../examples/digits/digits.onnx");
/// let session = brolga::Session::options().threads(1).load(model)?;
/// assert_eq!(session.inputs()[0].name, "images");
///
/// let images = vec![0.0f32; 3 * 64];
/// let mut logits = [0.0f32; 30];
/// session.run_into(
///     &[brolga::View::of(&images, &[3, 1, 8, 8])],
///     &mut [brolga::ViewMut::of(&mut logits, &[3, 10])],
/// )?;
/// assert_eq!(logits[..10], logits[20..]);
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Session {
    executor: Executor,
    versions: Option<Versions>,
    strings: Strings,
    timings: Timings,
    remarks: Vec<String>,
    tuned: Tuned,
}

impl Session {
    /// Loads an ONNX model or an artefact with default options; see [`SessionOptions::load`].
    ///
    /// # Errors
    /// When the file is no model, does not fit this machine, or uses what is not supported.
    pub fn load(path: impl AsRef<Path>) -> Result<Session> {
        Session::options().load(path)
    }

    /// Options to be changed before loading.
    pub fn options() -> SessionOptions {
        SessionOptions::default()
    }

    fn new(program: Program, options: brolga_runtime::Options, path: Option<PathBuf>) -> Result<Session> {
        let host = Reference::new(program.meta()).map_err(|message| Error::File {
            path: path.unwrap_or_else(|| PathBuf::from(&program.meta().name)),
            message,
        })?;
        let options = brolga_runtime::Options {
            host: host.map(|h| h as Arc<dyn HostOps>),
            ..options
        };
        let strings = Strings::new(&program.meta().strings);
        Ok(Session {
            executor: Executor::with_options(Arc::new(program), options)?,
            versions: None,
            strings,
            timings: Timings::default(),
            remarks: vec![],
            tuned: Tuned::default(),
        })
    }

    /// The model's inputs, in order.
    pub fn inputs(&self) -> &[Input] {
        &self.meta().inputs
    }

    /// The model's outputs, in order.
    pub fn outputs(&self) -> &[Output] {
        &self.meta().outputs
    }

    /// Everything that the program says of itself.
    pub fn meta(&self) -> &Meta {
        self.executor.program().meta()
    }

    /// Waits until it is known that an artefact's weights are as they were written. The first run does, before it gives results.
    ///
    /// # Errors
    /// When they are not.
    pub fn check_weights(&self) -> Result<()> {
        Ok(self.executor.program().check_weights()?)
    }

    /// The running part.
    pub fn executor(&self) -> &Executor {
        &self.executor
    }

    /// The same program with another number of threads; 0 is one for each core.
    ///
    /// # Errors
    /// When threads cannot be started.
    pub fn with_threads(&self, threads: usize) -> Result<Session> {
        Ok(Session {
            executor: self.executor.with_threads(threads)?,
            versions: None,
            strings: self.strings.fresh(),
            timings: self.timings,
            remarks: self.remarks.clone(),
            tuned: Tuned::default(),
        })
    }

    /// The strings of a run, for models that take or give any: elements of the type `str` are their numbers. The run goes inside of
    /// [`Strings::scope`], and what it makes is read with [`Strings::texts`]; with the last clone they are gone.
    ///
    /// ```no_run
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let session = brolga::Session::load("animals.onnx")?;
    /// let strings = session.strings();
    /// let names = strings.tensor(&[2], &["cat", "emu"])?;
    /// let outputs = strings.scope(|| session.run(&[brolga::tensors::view(&names)]))?;
    /// let labels = strings.texts(&brolga::tensors::to_tensor(&outputs[0]))?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn strings(&self) -> Strings {
        self.strings.fresh()
    }

    /// How long loading and compiling took.
    pub fn timings(&self) -> Timings {
        self.timings
    }

    /// What passes did, and what they did not and why; none for what was compiled before.
    pub fn remarks(&self) -> &[String] {
        &self.remarks
    }

    /// What became of the records that it was compiled with, kernel by kernel; none for what was compiled before.
    pub fn tuned(&self) -> &Tuned {
        &self.tuned
    }

    /// Runs on inputs in the model's order, and returns the outputs in theirs.
    ///
    /// # Errors
    /// When an input does not fit, a check of the model fails, or there is no memory.
    pub fn run(&self, inputs: &[View<'_>]) -> Result<Vec<Buffer>> {
        if let Some(version) = self.version(inputs)? {
            return version.run(inputs);
        }
        Ok(self.executor.run(inputs)?)
    }

    /// [`Session::run`] with inputs by name, in any order.
    ///
    /// # Errors
    /// As [`Session::run`]; when a name is unknown or missing.
    pub fn run_named(&self, inputs: &[(&str, View<'_>)]) -> Result<Vec<Buffer>> {
        if self.versions.is_some() {
            return self.run(&self.executor.order(inputs)?);
        }
        Ok(self.executor.run_named(inputs)?)
    }

    /// Runs into the caller's tensors, of the shapes that [`Session::output_shapes`] tells, and returns their shapes. Where
    /// only the run tells extents, the tensor is memory of any shape that is large enough.
    ///
    /// # Errors
    /// As [`Session::run`]; when an output does not fit.
    pub fn run_into(&self, inputs: &[View<'_>], outputs: &mut [ViewMut<'_>]) -> Result<Vec<Vec<usize>>> {
        if let Some(version) = self.version(inputs)? {
            return version.run_into(inputs, outputs);
        }
        Ok(self.executor.run_into(inputs, outputs)?)
    }

    /// [`Session::run_into`] with outputs in the memory of inputs, where the model was compiled for that
    /// ([`SessionOptions::alias`]): such outputs hold the inputs before the run, and `inputs` are the others, in order. A cache
    /// is updated in place so, and nothing of it is copied.
    ///
    /// # Errors
    /// As [`Session::run_into`]; the contents of the outputs are unspecified then.
    pub fn run_in_place(&self, inputs: &[View<'_>], outputs: &mut [ViewMut<'_>]) -> Result<Vec<Vec<usize>>> {
        Ok(self.executor.run_in_place(inputs, outputs)?)
    }

    /// The version for the sizes of these inputs, where there is one.
    fn version(&self, inputs: &[View<'_>]) -> Result<Option<Arc<Session>>> {
        let Some(versions) = &self.versions else {
            return Ok(None);
        };
        versions.find(&self.executor.sizes(inputs)?)
    }

    /// The sizes that there are versions of the model for, in the order of [`Meta::symbols`], the least recently used
    /// first. Waits for the one that is being compiled. See [`SessionOptions::specialise`].
    pub fn specialised(&self) -> Vec<Vec<i64>> {
        self.versions.as_ref().map(Versions::sizes).unwrap_or_default()
    }

    /// The shapes of the outputs for inputs like these, or the largest where only a run tells them.
    ///
    /// # Errors
    /// When an input does not fit, or nothing bounds a shape that only a run tells.
    pub fn output_shapes(&self, inputs: &[View<'_>]) -> Result<Vec<Vec<usize>>> {
        Ok(self.executor.output_shapes(inputs)?)
    }
}

impl Compiled {
    /// Makes code for this process, and a session of it, with one thread for each core.
    ///
    /// # Errors
    /// When the target is not this machine's, or there is no executable memory.
    pub fn session(self) -> Result<Session> {
        self.session_with(0, u64::MAX)
    }

    /// [`Compiled::session`] with a number of threads (0: one for each core) and a bound on the memory of a run.
    ///
    /// # Errors
    /// As [`Compiled::session`].
    pub fn session_with(mut self, threads: usize, memory_limit: u64) -> Result<Session> {
        let start = Instant::now();
        let code = native::with_help(self.threads, &|| {}, |queue| native::jit(self.input(), None, queue));
        let code = code.map_err(|e| self.codegen(e))?;
        self.timings.codegen = start.elapsed();
        self.session_of(code, running(threads, memory_limit))
    }

    fn session_of(self, code: JitCode, options: brolga_runtime::Options) -> Result<Session> {
        if self.perf_map || perf_map::asked() {
            perf_map::append(&code.placed())?;
        }
        // SAFETY: the functions are those of the program that the metadata was made from.
        let program = unsafe { Program::new(self.meta, Box::new(code), self.packed.weights()) }?;
        let mut session = Session::new(program, options, None)?;
        session.timings = self.timings;
        session.remarks = self.remarks;
        session.tuned = self.tuned;
        Ok(session)
    }
}

impl Draft {
    /// Evaluates the constants and makes code for this process, one beside the other where there is more than one thread.
    pub fn session(self, threads: usize) -> Result<Session> {
        let limit = self.memory_limit;
        let (compiled, code) = self.jit(None)?;
        compiled.session_of(code, running(threads, limit))
    }

    /// A session that records its runs. `look` sees what it is made of first.
    pub fn recorded<T>(
        self,
        threads: usize,
        look: impl FnOnce(&Compiled, &JitCode) -> Result<T>,
    ) -> Result<(Session, T)> {
        let limit = self.memory_limit;
        let (compiled, code) = self.jit(Some(brolga_runtime::step_hook))?;
        let seen = look(&compiled, &code)?;
        let options = brolga_runtime::Options {
            record: true,
            ..running(threads, limit)
        };
        Ok((compiled.session_of(code, options)?, seen))
    }

    fn jit(self, hook: Option<StepHook>) -> Result<(Compiled, JitCode)> {
        let helpers = self.threads;
        let (compiled, code) = self.evaluate(|input, timings, work| {
            native::with_help(helpers, work, |queue| {
                let start = Instant::now();
                let code = native::jit(input, hook, queue);
                timings.codegen = start.elapsed();
                work();
                code
            })
        })?;
        let code = code.map_err(|e| compiled.codegen(e))?;
        Ok((compiled, code))
    }
}

/// How a program runs.
fn running(threads: usize, memory_limit: u64) -> brolga_runtime::Options {
    brolga_runtime::Options {
        threads,
        memory_limit,
        ..Default::default()
    }
}
