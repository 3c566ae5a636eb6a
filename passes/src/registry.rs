//! The passes over the tensor IR, in one table, and pipelines as text.
//!
//! ```text
//! canonicalize,eqsat{rules=exact nodes=50000}
//! ```
//!
//! A pipeline is a list of passes separated by commas, each with its options between braces. Errors name the column.

use crate::canonicalize::Canonicalize;
use crate::decompose::Decompose;
use crate::eqsat::selection::{self, Forgetful, Verdicts};
use crate::eqsat::{EqSat, Rules, UserRules};
use crate::pass::{Context, Pass, PassError};
use brolga_ir::Graph;
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
    pub options: &'static [(&'static str, &'static str, &'static str)],
    /// The pass with options.
    pub make: Make,
}

/// Where options that name files read them; the optimiser itself does no I/O.
pub trait Files {
    /// The text of a file.
    ///
    /// # Errors
    /// Why it cannot be read.
    fn read(&self, path: &str) -> Result<String, String>;

    /// What is remembered of checks of rules in files; `None` takes rules without a check.
    fn verdicts(&self) -> Option<&dyn Verdicts> {
        Some(&Forgetful)
    }
}

/// No files at all.
pub struct NoFiles;

impl Files for NoFiles {
    fn read(&self, path: &str) -> Result<String, String> {
        Err(format!("`{path}`: files cannot be read here"))
    }
}

/// Every pass over the tensor IR, in alphabetical order.
pub static PASSES: &[PassInfo] = &[
    PassInfo {
        name: "canonicalize",
        summary: "removes dead, void and repeated operations and folds small constants",
        options: &[("limit", "1024", "the most elements of a constant that is folded")],
        make: |options, _| {
            let mut pass = Canonicalize::default();
            for (name, value) in options {
                match name.as_str() {
                    "limit" => pass.limit = number(name, value)?,
                    _ => return Err(unknown(name, &["limit"])),
                }
            }
            Ok(Box::new(pass))
        },
    },
    PassInfo {
        name: "decompose",
        summary: "rewrites composite operators without a kernel into others",
        options: &[],
        make: |options, _| match options.first() {
            Some((name, _)) => Err(unknown(name, &[])),
            None => Ok(Box::new(Decompose)),
        },
    },
    PassInfo {
        name: "eqsat",
        summary: "rewrites by rules in an e-graph and decides which operations share a kernel",
        options: &[
            (
                "rules",
                "all",
                "all, exact, none or a file of rules; after all or exact `,-THEME` switches a theme of rules off",
            ),
            ("add", "", "a file of rules beside those; may be repeated"),
            ("nodes", "by size", "e-nodes at which saturation stops"),
            ("iters", "40", "rounds after which saturation stops"),
        ],
        make: |options, files| {
            let mut pass = EqSat::default();
            for (name, value) in options {
                match name.as_str() {
                    "nodes" => pass.nodes = number(name, value)?,
                    "iters" => pass.iters = number(name, value)?,
                    "rules" => pass.set_rules(value, files)?,
                    "add" => pass.added.push(user_rules(value, files)?),
                    _ => return Err(unknown(name, &["rules", "add", "nodes", "iters"])),
                }
            }
            // What cannot go together is said now, not when the pass runs.
            selection::select(&pass.rules, &pass.without, &pass.added)?;
            Ok(Box::new(pass))
        },
    },
];

impl EqSat {
    /// The pass with rules as text (`all`, `exact`, `none` or a file; then, separated by commas, `-THEME`), and with files of
    /// rules beside those.
    ///
    /// # Errors
    /// When a file cannot be read, a rule is refused, or what is asked for does not go together.
    pub fn with_rules(rules: &str, added: &[String], files: &dyn Files) -> Result<EqSat, String> {
        let mut pass = EqSat::default();
        pass.set_rules(rules, files)?;
        pass.added = added.iter().map(|a| user_rules(a, files)).collect::<Result<_, _>>()?;
        selection::select(&pass.rules, &pass.without, &pass.added)?;
        Ok(pass)
    }

    fn set_rules(&mut self, text: &str, files: &dyn Files) -> Result<(), String> {
        let mut items = text.split(",-");
        self.rules = match items.next().unwrap_or_default() {
            "all" => Rules::All,
            "none" => Rules::None,
            "exact" => Rules::Exact,
            path => Rules::Text(user_rules(path, files)?),
        };
        self.without = items.map(selection::theme).collect::<Result<_, _>>()?;
        Ok(())
    }
}

/// The rules of a file, checked unless the files say otherwise.
fn user_rules(path: &str, files: &dyn Files) -> Result<UserRules, String> {
    let text = files.read(path)?;
    match files.verdicts() {
        Some(verdicts) => UserRules::checked(path, &text, verdicts),
        None => UserRules::unchecked(path, &text),
    }
}

fn number(name: &str, value: &str) -> Result<usize, String> {
    value
        .parse()
        .map_err(|_| format!("`{name}={value}`: expected a number"))
}

fn unknown(name: &str, known: &[&str]) -> String {
    if known.is_empty() {
        format!("there is no option `{name}`, the pass has none")
    } else {
        format!("there is no option `{name}`, expected {}", known.join(", "))
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

    /// What a compilation runs when nothing else is asked for.
    pub const DEFAULT: &'static str = "canonicalize,eqsat";

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

    /// The graph after all passes; each is verified in debug builds.
    ///
    /// # Errors
    /// The first pass that fails, or that gave an invalid graph.
    pub fn run(&self, g: &Graph, cx: &mut Context) -> Result<Graph, PassError> {
        let mut g = g.clone();
        for pass in &self.passes {
            g = pass.run(&g, cx)?;
            if cfg!(debug_assertions) {
                g.verify().map_err(|error| PassError {
                    pass: pass.name(),
                    error,
                })?;
            }
        }
        Ok(g)
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

    #[test]
    fn pipelines_read_back() {
        for text in [
            "canonicalize,eqsat",
            "decompose",
            "canonicalize{limit=8},eqsat{rules=exact nodes=500 iters=3}",
            "eqsat{rules=all,-norm,-conv}",
            "eqsat{rules=exact,-movement}",
        ] {
            assert_eq!(Pipeline::parse(text).unwrap().to_string(), text);
        }
        assert_eq!(Pipeline::parse(" eqsat { rules=all } ").unwrap().to_string(), "eqsat");
    }

    #[test]
    fn mistakes_have_columns() {
        let error = |text: &str| Pipeline::parse(text).err().unwrap().to_string();
        assert!(error("canonicalize,tile").starts_with("pipeline:14: there is no pass `tile`, expected one of canon"));
        assert_eq!(
            error("eqsat{rules}"),
            "pipeline:12: expected `=` after the option `rules`"
        );
        assert_eq!(
            error("eqsat{speed=9}"),
            "pipeline:1: there is no option `speed`, expected rules, add, nodes, iters"
        );
        assert_eq!(
            error("eqsat{nodes=many}"),
            "pipeline:1: `nodes=many`: expected a number"
        );
        assert_eq!(error(""), "pipeline:1: found the end, expected a pass");
        assert_eq!(error("eqsat decompose"), "pipeline:7: found `d`, expected `,` or `{`");
        assert!(error("eqsat{rules=mine.rules}").contains("files cannot be read here"));
    }

    #[test]
    fn the_table_is_in_order() {
        assert!(PASSES.is_sorted_by_key(|p| p.name));
    }
}
