//! How a model is compiled, and how long each phase took.

use crate::instrument::Instrument;
use crate::pins::Pin;
use crate::tune::record::Log;
use crate::verdicts::Remembered;
use crate::{Error, Result};
use brolga_frontend::onnx::Extent;
use brolga_frontend::safetensors;
use brolga_ir::Target;
use brolga_passes::eqsat::{EqSat, Fp, Selection, Verdicts};
use brolga_passes::module::Level;
use brolga_passes::pass::{Files, Pass, Settings};
use brolga_passes::prune::Prune;
use brolga_passes::registry::{Pipeline, Registry};
use std::cell::RefCell;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// How a model is compiled.
#[derive(Clone)]
pub struct Options {
    /// The machine to compile for.
    pub target: Target,
    /// Passes as text, such as `canonicalize,eqsat{fp=strict}`; `None` is the default pipeline.
    pub pipeline: Option<String>,
    /// Rewrite rules; `None` those of the pipeline, or the embedded ones. [`rules`] reads those of files.
    pub rules: Option<Selection>,
    /// Texts of files that the pipeline names, by their names: these are read in place of what is on the disk.
    pub files: Vec<(String, String)>,
    /// Takes rules in files that the pipeline names without a check.
    pub unchecked_rules: bool,
    /// Bytes that constants, and one value of the model, may take.
    pub memory_limit: u64,
    /// Verifies the IR after every pass and at every level.
    pub verify: bool,
    /// Lets remarks take time to find out: how far a program is from the optimum, the second best, and what was not fused and why.
    pub judge: bool,
    /// The passes that pipelines may name, and that lead down. A compile cache knows them by their names only.
    pub registry: Registry,
    /// Who watches passes.
    pub instrument: Option<Arc<dyn Instrument>>,
    /// The folder that a reproducer is written to when a pass fails, panics or gives what is not valid. Without one nothing is written, and
    /// a panic goes on.
    pub reproducers: Option<PathBuf>,
    /// Sizes for symbolic dimensions.
    pub sizes: Vec<(String, i64)>,
    /// Inputs that are constants. What is computed from constants only is computed once, and shapes, axes and branches that depend on
    /// them are settled.
    pub pins: Vec<(String, Pin)>,
    /// Extents of inputs, in place of what the model declares.
    pub shapes: Vec<(String, Vec<Extent>)>,
    /// Inputs, and the outputs that may be their memory: the caller may give one memory for both.
    pub aliases: Vec<(String, String)>,
    /// Makes inputs constants that have an initializer, which is their default otherwise: nobody can give them then, and
    /// what is computed from constants only is computed once.
    pub constant_defaults: bool,
    /// How a folder of safetensors is read.
    pub folder: safetensors::Options,
    /// Records of tuning: kernels that have one get its schedule.
    pub tuned: Option<Arc<Log>>,
    /// Tells `perf` the names of kernels that are compiled into this process, see [`crate::perf_map`].
    pub perf_map: bool,
    /// Threads that compile, the caller's included; 0 is one for each core. What they make does not depend on their number.
    pub threads: usize,
}

/// Files that a pipeline names, and what is remembered of checks of rules in them.
struct Disk<'a> {
    verdicts: Option<Remembered>,
    /// Texts that are read in place of files of their names.
    given: &'a [(String, String)],
    /// What was read: names and texts.
    read: RefCell<Vec<(String, String)>>,
}

impl<'a> Disk<'a> {
    fn new(unchecked: bool, given: &'a [(String, String)]) -> Disk<'a> {
        Disk {
            verdicts: (!unchecked).then(Remembered::new),
            given,
            read: RefCell::default(),
        }
    }
}

impl Files for Disk<'_> {
    fn read(&self, path: &str) -> Result<String, String> {
        let text = match self.given.iter().find(|(name, _)| name == path) {
            Some((_, text)) => text.clone(),
            None => crate::source::text(path.as_ref()).map_err(|e| e.to_string())?,
        };
        self.read.borrow_mut().push((path.to_owned(), text.clone()));
        Ok(text)
    }
    fn verdicts(&self) -> Option<&dyn Verdicts> {
        self.verdicts.as_ref().map(|v| v as &dyn Verdicts)
    }
}

/// Rules for [`Options::rules`]: `all`, `exact`, `approximate`, `none` or a file, then, separated by commas, `-THEME`; beside them
/// those of files, and the classes that are used. Rules of files are checked, unless they are to be taken `unchecked`.
///
/// # Errors
/// When a file cannot be read, a rule is refused, or what is asked for does not go together.
pub fn rules(text: Option<&str>, added: &[String], fp: Option<Fp>, unchecked: bool) -> Result<Selection> {
    Selection::read(text, added, fp, &Disk::new(unchecked, &[])).map_err(Error::Option)
}

impl Default for Options {
    /// For this machine, at most 16 GiB; verifying in debug builds.
    fn default() -> Options {
        Options {
            target: brolga_codegen::target::native().unwrap_or_else(Target::baseline),
            pipeline: None,
            rules: None,
            files: vec![],
            unchecked_rules: false,
            memory_limit: 16 << 30,
            verify: cfg!(debug_assertions),
            judge: false,
            registry: Registry::default(),
            instrument: None,
            reproducers: None,
            sizes: vec![],
            pins: vec![],
            shapes: vec![],
            aliases: vec![],
            constant_defaults: false,
            folder: safetensors::Options::default(),
            tuned: None,
            perf_map: false,
            threads: 0,
        }
    }
}

impl Options {
    /// The same, with nobody who watches passes and no files of those that fail: for what is tried again and again.
    pub fn unwatched(&self) -> Options {
        Options {
            instrument: None,
            reproducers: None,
            ..self.clone()
        }
    }

    /// The passes of the pipeline for a module of this level; an empty text has none, and without a text only a tensor graph
    /// has any.
    ///
    /// # Errors
    /// When its text is wrong, or a file of rules cannot be read.
    pub fn passes(&self, level: Level) -> Result<Vec<Box<dyn Pass>>> {
        let files = Disk::new(self.unchecked_rules, &self.files);
        let mut pipeline = match (&self.pipeline, &self.rules) {
            (Some(_), Some(_)) => {
                let message = "give either a pipeline or rules; in a pipeline, write `eqsat{rules=… add=… fp=…}`";
                return Err(Error::Option(message.into()));
            }
            (Some(p), None) if p.trim().is_empty() => return Ok(vec![]),
            (Some(p), None) => self.parse(p, &files)?,
            (None, None) if level != Level::Tensor => return Ok(vec![]),
            (None, _) => self.parse(Pipeline::DEFAULT, &files)?,
        };
        if let Some(selection) = &self.rules {
            if selection.fp == Some(Fp::Strict) {
                // To it, zero times an activation is zero.
                pipeline.passes.retain(|p| p.name() != Prune::NAME);
            }
            pipeline.replace(Box::new(EqSat {
                selection: selection.clone(),
                ..EqSat::default()
            }));
        }
        Ok(pipeline.passes)
    }

    /// The files that a pipeline names, each with its text.
    ///
    /// # Errors
    /// When its text is wrong, or a file cannot be read.
    pub(crate) fn files_of(&self, pipeline: &str) -> Result<Vec<(String, String)>> {
        let files = Disk::new(true, &self.files);
        if !pipeline.trim().is_empty() {
            self.parse(pipeline, &files)?;
        }
        let mut read = files.read.into_inner();
        read.sort_unstable();
        read.dedup();
        Ok(read)
    }

    fn parse(&self, pipeline: &str, files: &Disk) -> Result<Pipeline> {
        Pipeline::parse_in(pipeline, files, &self.registry).map_err(|e| Error::Option(e.to_string()))
    }

    /// How many threads compile.
    pub(crate) fn workers(&self) -> usize {
        match self.threads {
            0 => std::thread::available_parallelism().map_or(1, usize::from),
            n => n,
        }
    }

    /// The same for a graph whose dimensions have their sizes.
    pub fn without_sizes(&self) -> Options {
        Options {
            sizes: vec![],
            ..self.clone()
        }
    }

    /// What decides the code, for the key of the compile cache.
    ///
    /// # Errors
    /// When the pipeline's text is wrong, or a file that it names cannot be read.
    pub fn describe(&self) -> Result<String> {
        let files = self.pipeline.as_deref().map_or(Ok(vec![]), |p| self.files_of(p))?;
        let passes = (&self.pipeline, files, self.rules.as_ref().map(Selection::describe));
        let pins: Vec<String> = self.pins.iter().map(|(n, p)| format!("{n}={}", p.describe())).collect();
        Ok(format!(
            "{:?} {passes:?} {:?} {:?} {} {pins:?} {:?} {:?} {:?}",
            self.target.name,
            self.sizes,
            self.aliases,
            self.constant_defaults,
            self.shapes,
            self.folder,
            self.tuned.as_ref().map(|log| log.text())
        ))
    }
}

/// How long each phase took.
#[derive(Clone, Copy, Debug, Default)]
pub struct Timings {
    /// Reading and importing the model.
    pub load: Duration,
    /// The passes.
    pub optimise: Duration,
    /// Structured kernels, loop nests, the memory plan.
    pub lower: Duration,
    /// Evaluating constants, as far as the making of machine code did not hide it.
    pub constants: Duration,
    /// Making machine code.
    pub codegen: Duration,
}

impl std::ops::AddAssign for Timings {
    fn add_assign(&mut self, other: Timings) {
        let Timings {
            load,
            optimise,
            lower,
            constants,
            codegen,
        } = other;
        self.load += load;
        self.optimise += optimise;
        self.lower += lower;
        self.constants += constants;
        self.codegen += codegen;
    }
}

impl Timings {
    /// All phases but the first.
    pub fn compile(&self) -> Duration {
        self.optimise + self.lower + self.constants + self.codegen
    }
}
