//! The passes, in one table, and pipelines as text.
//!
//! ```text
//! canonicalize,eqsat{fp=strict nodes=50000},lower,bufferize,schedule,plan-memory
//! ```
//!
//! A pipeline is a list of passes separated by commas, each with its options between braces. Errors name the column.

use crate::bufferize::Bufferize;
use crate::canonicalize::Canonicalize;
use crate::decompose::Decompose;
use crate::descend::{Choose, Lower, PlanMemory, ScheduleKernels};
use crate::eqsat::EqSat;
use crate::module::Level;
use crate::pass::{Files, NoFiles, Pass, Settings};
use crate::prune::Prune;
use crate::specialise::Specialise;
use std::fmt;

/// What is wrong with a pipeline, and where.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("pipeline:{column}: {message}")]
pub struct PipelineError {
    /// The column, in characters, from 1.
    pub column: usize,
    /// What was found and what was expected.
    pub message: String,
}

/// Options of one pass, as written: names and values.
pub type Options = Vec<(String, String)>;

/// Makes a pass from its options.
pub type Make = fn(&Options, &dyn Files) -> Result<Box<dyn Pass>, String>;

/// A row of the table of passes.
#[derive(Clone, Copy)]
pub struct PassInfo {
    /// The name in pipelines.
    pub name: &'static str,
    /// What it does, in a line.
    pub summary: &'static str,
    /// Its options: name, default, meaning.
    pub options: fn() -> Vec<[&'static str; 3]>,
    /// The pass with options.
    pub make: Make,
}

impl PassInfo {
    /// The row of a pass.
    pub const fn of<P: Settings + Pass>() -> PassInfo {
        PassInfo {
            name: P::NAME,
            summary: P::SUMMARY,
            options: || P::SETTINGS.iter().map(|s| [s.name, s.default, s.meaning]).collect(),
            make: |options, files| Ok(Box::new(P::with(options, files)?)),
        }
    }
}

/// Every pass, in alphabetical order.
pub static PASSES: &[PassInfo] = &[
    PassInfo::of::<Bufferize>(),
    PassInfo::of::<Canonicalize>(),
    PassInfo::of::<Choose>(),
    PassInfo::of::<Decompose>(),
    PassInfo::of::<EqSat>(),
    PassInfo::of::<Lower>(),
    PassInfo::of::<PlanMemory>(),
    PassInfo::of::<Prune>(),
    PassInfo::of::<ScheduleKernels>(),
    PassInfo::of::<Specialise>(),
];

/// The passes that pipelines may name: those of the table, and a caller's own.
///
/// ```
/// use brolga_ir::{Graph, NodeError};
/// use brolga_passes::pass::{Context, Setting, Settings, TensorPass};
/// use brolga_passes::registry::{Pipeline, Registry};
///
/// #[derive(Default)]
/// struct Nothing;
///
/// impl Settings for Nothing {
///     const NAME: &'static str = "nothing";
///     const SUMMARY: &'static str = "leaves the graph as it is";
///     const SETTINGS: &'static [Setting<Nothing>] = &[];
/// }
///
/// impl TensorPass for Nothing {
///     fn rewrite(&self, g: &Graph, _: &mut Context) -> Result<Graph, NodeError> {
///         Ok(g.clone())
///     }
/// }
///
/// let registry = Registry::default().with::<Nothing>();
/// let pipeline = Pipeline::parse_in("nothing,eqsat", &brolga_passes::pass::NoFiles, &registry);
/// assert_eq!(pipeline.unwrap().passes.len(), 2);
/// ```
#[derive(Clone)]
pub struct Registry {
    passes: Vec<PassInfo>,
}

impl Default for Registry {
    fn default() -> Registry {
        Registry {
            passes: PASSES.to_vec(),
        }
    }
}

impl Registry {
    /// With another pass, in the place of that of its name where there is one: on the way down, too.
    pub fn with<P: Settings + Pass>(mut self) -> Registry {
        let at = self.passes.partition_point(|p| p.name < P::NAME);
        if self.passes.get(at).is_some_and(|p| p.name == P::NAME) {
            self.passes.remove(at);
        }
        self.passes.insert(at, PassInfo::of::<P>());
        self
    }

    /// The pass of a name.
    pub fn find(&self, name: &str) -> Option<&PassInfo> {
        self.passes.iter().find(|p| p.name == name)
    }

    /// Their names, in alphabetical order.
    pub fn names(&self) -> Vec<&'static str> {
        self.passes.iter().map(|p| p.name).collect()
    }

    /// The pass of one of the table's names, with its default options.
    fn plain(&self, name: &str) -> Box<dyn Pass> {
        let info = self.find(name).expect("a registry has the table's passes");
        (info.make)(&vec![], &NoFiles).expect("a pass has defaults")
    }
}

/// Passes in a row.
pub struct Pipeline {
    /// The passes.
    pub passes: Vec<Box<dyn Pass>>,
}

impl Pipeline {
    /// Puts a pass in the place of those of its name.
    pub fn replace(&mut self, pass: Box<dyn Pass>) {
        if let Some(p) = self.passes.iter_mut().find(|p| p.name() == pass.name()) {
            *p = pass;
        }
    }

    /// What a compilation runs on a tensor graph when nothing else is asked for.
    pub const DEFAULT: &'static str = "canonicalize,prune,eqsat";

    /// The passes that go down from a level; none from the lowest.
    pub fn down_from(level: Level, registry: &Registry) -> Pipeline {
        let names: &[&str] = match level {
            Level::Tensor => &[Lower::NAME],
            Level::Structured => &[Bufferize::NAME, ScheduleKernels::NAME],
            Level::Loops => &[PlanMemory::NAME],
            Level::Program => &[],
        };
        Pipeline {
            passes: names.iter().map(|n| registry.plain(n)).collect(),
        }
    }

    /// The pipeline of a text, without access to files.
    ///
    /// # Errors
    /// The first mistake, with its column.
    pub fn parse(text: &str) -> Result<Pipeline, PipelineError> {
        Pipeline::parse_in(text, &NoFiles, &Registry::default())
    }

    /// The pipeline of a text, of the passes of a registry.
    ///
    /// # Errors
    /// The first mistake, with its column.
    pub fn parse_in(text: &str, files: &dyn Files, registry: &Registry) -> Result<Pipeline, PipelineError> {
        let mut p = Parser {
            chars: text.chars().collect(),
            at: 0,
        };
        let mut passes = vec![];
        loop {
            let (name, column) = p.word("a pass")?;
            let info = registry.find(&name).ok_or_else(|| PipelineError {
                column,
                message: format!(
                    "there is no pass `{name}`, expected one of {}",
                    registry.names().join(", ")
                ),
            })?;
            let options = p.options()?;
            let pass = (info.make)(&options, files).map_err(|message| PipelineError { column, message })?;
            passes.push(pass);
            p.blank();
            match p.peek() {
                None => return Ok(Pipeline { passes }),
                Some(',') => p.at += 1,
                Some(c) => return Err(p.fail(format!("found `{c}`, expected `,` or `{{`"))),
            }
        }
    }
}

impl fmt::Display for Pipeline {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&text(&self.passes))
    }
}

/// The text of passes in a row.
pub fn text(passes: &[Box<dyn Pass>]) -> String {
    let one = |p: &dyn Pass| match p.options() {
        options if options.is_empty() => p.name().to_owned(),
        options => format!("{}{{{options}}}", p.name()),
    };
    passes.iter().map(|p| one(&**p)).collect::<Vec<_>>().join(",")
}

struct Parser {
    chars: Vec<char>,
    at: usize,
}

impl Parser {
    fn peek(&self) -> Option<char> {
        self.chars.get(self.at).copied()
    }
    fn blank(&mut self) {
        while self.peek().is_some_and(char::is_whitespace) {
            self.at += 1;
        }
    }
    fn fail(&self, message: String) -> PipelineError {
        PipelineError {
            column: self.at + 1,
            message,
        }
    }
    fn word(&mut self, wanted: &str) -> Result<(String, usize), PipelineError> {
        self.blank();
        let start = self.at;
        while self.peek().is_some_and(|c| !c.is_whitespace() && !",{}=".contains(c)) {
            self.at += 1;
        }
        if self.at == start {
            let found = self.peek().map_or("the end".to_string(), |c| format!("`{c}`"));
            return Err(self.fail(format!("found {found}, expected {wanted}")));
        }
        Ok((self.chars[start..self.at].iter().collect(), start + 1))
    }
    fn options(&mut self) -> Result<Options, PipelineError> {
        self.blank();
        let mut out = vec![];
        if self.peek() != Some('{') {
            return Ok(out);
        }
        self.at += 1;
        loop {
            self.blank();
            if self.peek() == Some('}') {
                self.at += 1;
                return Ok(out);
            }
            let (name, _) = self.word("an option or `}`")?;
            if self.peek() != Some('=') {
                return Err(self.fail(format!("expected `=` after the option `{name}`")));
            }
            self.at += 1;
            // A value may hold commas: `sizes=64,64,16`.
            let start = self.at;
            while self.peek().is_some_and(|c| !c.is_whitespace() && c != '}') {
                self.at += 1;
            }
            out.push((name, self.chars[start..self.at].iter().collect()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::module::Module;
    use crate::pass::Context;

    #[test]
    fn pipelines_read_back() {
        for text in [
            "canonicalize,eqsat",
            "decompose",
            "canonicalize{limit=8},eqsat{fp=strict nodes=500 iters=3}",
            "eqsat{rules=all,-norm,-conv}",
            "eqsat{rules=all,-movement fp=fast}",
            "specialise{seq=128 batch=1},canonicalize,eqsat,lower,bufferize,choose,schedule,plan-memory",
        ] {
            assert_eq!(Pipeline::parse(text).unwrap().to_string(), text);
        }
        assert_eq!(Pipeline::parse(" eqsat { rules=all } ").unwrap().to_string(), "eqsat");
        let exact = Pipeline::parse("eqsat{rules=exact,-norm}").unwrap();
        assert_eq!(exact.to_string(), "eqsat{rules=all,-norm fp=strict}");
    }

    #[test]
    fn mistakes_have_columns() {
        let error = |text: &str| Pipeline::parse(text).err().unwrap().to_string();
        assert!(error("canonicalize,tile").starts_with("pipeline:14: there is no pass `tile`, expected one of buff"));
        assert_eq!(
            error("eqsat{rules}"),
            "pipeline:12: expected `=` after the option `rules`"
        );
        assert_eq!(
            error("eqsat{speed=9}"),
            "pipeline:1: there is no option `speed`, expected rules, add, fp, nodes, iters, extract, fold, rewrites, schedule, decide"
        );
        assert_eq!(
            error("eqsat{nodes=many}"),
            "pipeline:1: `nodes=many`: expected a number"
        );
        assert_eq!(error(""), "pipeline:1: found the end, expected a pass");
        assert_eq!(error("eqsat decompose"), "pipeline:7: found `d`, expected `,` or `{`");
        assert_eq!(
            error("lower{fast=1}"),
            "pipeline:1: there is no option `fast`, the pass has none"
        );
        assert!(error("eqsat{rules=mine.rules}").contains("files cannot be read here"));
    }

    #[test]
    fn a_pass_that_gets_another_level_says_so() {
        let graph: Module = Module::parse("graph @g(%0 x: f32[4]) {\n  %1 = relu(%0)\n  return y = %1\n}", &|_| {
            None
        })
        .unwrap();
        let run = |text: &str| {
            let mut cx = Context::new(brolga_ir::Target::x86_64_v3());
            let passes = Pipeline::parse(text).unwrap().passes;
            let m = passes.iter().try_fold(graph.clone(), |m, pass| pass.run(m, &mut cx));
            m.map(|m| m.level()).map_err(|e| e.to_string())
        };
        assert_eq!(
            run("canonicalize,eqsat,lower,choose,schedule,plan-memory"),
            Ok(Level::Program)
        );
        assert_eq!(
            run("schedule").unwrap_err(),
            "pass `schedule`: found a tensor graph, expected structured kernels: passes that lower it come first"
        );
        assert_eq!(
            run("eqsat,lower,canonicalize").unwrap_err(),
            "pass `canonicalize`: found structured kernels, expected a tensor graph: levels go down only"
        );
    }

    #[test]
    fn the_table_is_in_order() {
        assert!(PASSES.is_sorted_by_key(|p| p.name));
    }
}
