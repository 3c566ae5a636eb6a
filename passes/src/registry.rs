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
    const fn of<P: Settings + Pass>() -> PassInfo {
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
    pub fn down_from(level: Level) -> Pipeline {
        let passes: Vec<Box<dyn Pass>> = match level {
            Level::Tensor => vec![Box::new(Lower)],
            Level::Structured => vec![Box::<Bufferize>::default(), Box::new(ScheduleKernels)],
            Level::Loops => vec![Box::new(PlanMemory)],
            Level::Program => vec![],
        };
        Pipeline { passes }
    }

    /// The pipeline of a text, without access to files.
    ///
    /// # Errors
    /// The first mistake, with its column.
    pub fn parse(text: &str) -> Result<Pipeline, PipelineError> {
        Pipeline::parse_with(text, &NoFiles)
    }

    /// The pipeline of a text.
    ///
    /// # Errors
    /// The first mistake, with its column.
    pub fn parse_with(text: &str, files: &dyn Files) -> Result<Pipeline, PipelineError> {
        let mut p = Parser {
            chars: text.chars().collect(),
            at: 0,
        };
        let mut passes = vec![];
        loop {
            let (name, column) = p.word("a pass")?;
            let info = PASSES.iter().find(|i| i.name == name).ok_or_else(|| PipelineError {
                column,
                message: format!("there is no pass `{name}`, expected one of {}", names()),
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
        for (i, p) in self.passes.iter().enumerate() {
            let options = p.options();
            write!(f, "{}{}", if i > 0 { "," } else { "" }, p.name())?;
            if !options.is_empty() {
                write!(f, "{{{options}}}")?;
            }
        }
        Ok(())
    }
}

fn names() -> String {
    PASSES.iter().map(|i| i.name).collect::<Vec<_>>().join(", ")
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
            "pipeline:1: there is no option `speed`, expected rules, add, fp, nodes, iters, fold, decide"
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
