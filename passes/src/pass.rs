//! What a pass is: a struct whose fields are its options. Valid IR in, valid IR out.
//!
//! A pass over tensor graphs implements [`TensorPass`]; one that takes or gives another level implements [`Pass`] itself. The
//! options of both stand in one table, [`Settings::SETTINGS`], which parsing, printing and the registry read.

use crate::eqsat::schedule::Ran;
use crate::eqsat::{Alternative, Decide, Decided, Forgetful, Kept, NamedRewrite, Verdicts};
use crate::module::{Level, Module};
use crate::schedule::Sources;
use brolga_ir::{Graph, NodeError, Target};
use std::any::Any;
use std::borrow::Cow;
use std::sync::Arc;

/// What passes share: the machine to optimise for, and where they say what they did.
pub struct Context {
    /// The machine.
    pub target: Target,
    /// What was done, and what was not and why, in the order in which it was said.
    pub remarks: Vec<String>,
    /// What the pass counted that runs; whoever runs passes takes them behind each.
    pub counts: Counts,
    /// What the loop kernels were made of, once there are any that were not read as text.
    pub sources: Option<Sources>,
    /// Who decides about whole programs otherwise than passes do.
    pub decide: Option<Arc<dyn Decide>>,
    /// What became of what was decided so about the graph that is no region.
    pub decided: Vec<Decided>,
    /// Whether passes are to say what else could be decided about it, which takes longer.
    pub explore: bool,
    /// What they said.
    pub alternatives: Vec<Alternative>,
    /// Whether remarks may take time to find out: how far a program is from the optimum, the second best, and what was not fused and why.
    pub judge: bool,
    /// Whether the e-graph is kept, of how many rounds at most where that is said, and no program chosen from it.
    pub keep: Option<Option<usize>>,
    /// What saturation did to each graph that it ran on.
    pub saturated: Vec<Ran>,
    /// The e-graph that was kept: of the graph that is no region.
    pub egraph: Option<Kept>,
    /// The last rewrite by a rule, of the pass that rewrote last.
    pub rewrite: Option<NamedRewrite>,
    /// Whether the error that a pass over graphs is about to give is a refusal, see [`Context::refuse`].
    pub refused: bool,
}

impl Context {
    /// A context without remarks.
    pub fn new(target: Target) -> Context {
        Context {
            target,
            remarks: vec![],
            counts: Counts::default(),
            sources: None,
            decide: None,
            decided: vec![],
            explore: false,
            alternatives: vec![],
            judge: false,
            keep: None,
            saturated: vec![],
            egraph: None,
            rewrite: None,
            refused: false,
        }
    }

    /// The error of a pass over graphs whose options do not fit the model, with which nothing is wrong: see [`PassError::refused`].
    pub fn refuse(&mut self, error: NodeError) -> NodeError {
        self.refused = true;
        error
    }
}

/// What a pass counted: rewrites, rules, operations removed, in the order in which each was counted first.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Counts {
    counts: Vec<(Cow<'static, str>, u64)>,
}

impl Counts {
    /// Adds to a count. Nothing is not counted.
    pub fn add(&mut self, what: impl Into<Cow<'static, str>>, n: usize) {
        if n == 0 {
            return;
        }
        let what = what.into();
        match self.counts.iter_mut().find(|(w, _)| *w == what) {
            Some((_, all)) => *all += n as u64,
            None => self.counts.push((what, n as u64)),
        }
    }

    /// A count; 0 of what was not counted.
    pub fn get(&self, what: &str) -> u64 {
        self.iter().find(|(w, _)| *w == what).map_or(0, |(_, n)| n)
    }

    /// What was counted.
    pub fn iter(&self) -> impl Iterator<Item = (&str, u64)> {
        self.counts.iter().map(|(what, n)| (&**what, *n))
    }
}

/// Why a pass failed.
#[derive(Clone, PartialEq, Debug, thiserror::Error)]
#[error("pass `{pass}`: {error}")]
pub struct PassError {
    /// The pass.
    pub pass: &'static str,
    /// The error, with the model node where there is one.
    pub error: NodeError,
    /// Whether what was asked of the pass is refused: it is at the wrong place of a pipeline, or its options do not fit the model. Then nothing
    /// is wrong with the pass.
    pub refused: bool,
}

impl PassError {
    /// An error at a node.
    pub fn at(pass: &'static str, error: NodeError) -> PassError {
        PassError {
            pass,
            error,
            refused: false,
        }
    }

    /// An error that belongs to no node.
    pub fn new(pass: &'static str, message: impl Into<String>) -> PassError {
        let (node, message) = (String::new(), message.into());
        PassError::at(pass, NodeError { node, message })
    }

    /// The same, of what was asked for and cannot be.
    pub fn refused(self) -> PassError {
        PassError { refused: true, ..self }
    }

    /// A module of a level that the pass does not take.
    pub fn level(pass: &'static str, wanted: Level, found: &Module) -> PassError {
        let found = found.level();
        let way = if found < wanted {
            "passes that lower it come first"
        } else {
            "levels go down only"
        };
        PassError::new(pass, format!("found {found}, expected {wanted}: {way}")).refused()
    }
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

/// An option of a pass.
pub struct Setting<P> {
    /// Its name in pipelines; of a pass with options of any name, what they are called in help.
    pub name: &'static str,
    /// What it is when it is not given.
    pub default: &'static str,
    /// What it means.
    pub meaning: &'static str,
    /// What was given, as a pipeline writes it; nothing where it is the default, several where it is repeated.
    pub get: fn(&P) -> Vec<String>,
    /// Sets it.
    pub set: fn(&mut P, &str, &dyn Files) -> Result<(), String>,
}

/// The name of a pass, and its options.
pub trait Settings: Default + Send + Sync + 'static {
    /// The name in pipelines.
    const NAME: &'static str;
    /// What it does, in a line.
    const SUMMARY: &'static str;
    /// Its options.
    const SETTINGS: &'static [Setting<Self>];

    /// Sets an option that is none of the table's.
    ///
    /// # Errors
    /// When there is none of the name.
    fn set_other(&mut self, name: &str, _value: &str) -> Result<(), String> {
        let known: Vec<&str> = Self::SETTINGS.iter().map(|s| s.name).collect();
        Err(match known[..] {
            [] => format!("there is no option `{name}`, the pass has none"),
            _ => format!("there is no option `{name}`, expected {}", known.join(", ")),
        })
    }

    /// What was given beside the table's options.
    fn others(&self) -> Vec<String> {
        vec![]
    }

    /// Checks that the options go together.
    ///
    /// # Errors
    /// When they do not.
    fn check(&self) -> Result<(), String> {
        Ok(())
    }

    /// The pass with options, given as names and values.
    ///
    /// # Errors
    /// When there is no such option, or the value is none.
    fn with(options: &[(String, String)], files: &dyn Files) -> Result<Self, String> {
        let mut pass = Self::default();
        for (name, value) in options {
            match Self::SETTINGS.iter().find(|s| s.name == name) {
                Some(s) => (s.set)(&mut pass, value, files).map_err(|e| format!("`{name}={value}`: {e}"))?,
                None => pass.set_other(name, value)?,
            }
        }
        pass.check()?;
        Ok(pass)
    }

    /// The options that differ from their defaults, as a pipeline writes them: `nodes=50000 rules=exact`.
    fn given(&self) -> String {
        let table = Self::SETTINGS
            .iter()
            .flat_map(|s| (s.get)(self).into_iter().map(|v| format!("{}={v}", s.name)));
        table.chain(self.others()).collect::<Vec<_>>().join(" ")
    }
}

/// A number as an option's value.
///
/// # Errors
/// When it is none.
pub fn number(value: &str) -> Result<usize, String> {
    value.parse().map_err(|_| "expected a number".into())
}

/// A pass over tensor graphs.
pub trait TensorPass: Settings {
    /// The graph after the pass.
    ///
    /// # Errors
    /// When the graph cannot be transformed; the error names the node.
    fn rewrite(&self, g: &Graph, cx: &mut Context) -> Result<Graph, NodeError>;
    /// True when it is to run on the graphs of regions as well, before it runs on the graph around them.
    fn enters_regions(&self) -> bool {
        true
    }
}

/// A pass over modules of any level.
pub trait Pass: Any + Send + Sync {
    /// The name in pipelines.
    fn name(&self) -> &'static str;
    /// The options that differ from their defaults, as a pipeline writes them.
    fn options(&self) -> String;
    /// The module after the pass.
    ///
    /// # Errors
    /// When the module is of a level that the pass does not take, or cannot be transformed; the error names the pass, and the
    /// node where there is one.
    fn run(&self, m: Module, cx: &mut Context) -> Result<Module, PassError>;
}

impl<T: TensorPass> Pass for T {
    fn name(&self) -> &'static str {
        T::NAME
    }
    fn options(&self) -> String {
        self.given()
    }
    fn run(&self, m: Module, cx: &mut Context) -> Result<Module, PassError> {
        let Module::Tensor(g) = m else {
            return Err(PassError::level(T::NAME, Level::Tensor, &m));
        };
        through(self, &g, cx).map(Module::Tensor).map_err(|error| PassError {
            refused: std::mem::take(&mut cx.refused),
            ..PassError::at(T::NAME, error)
        })
    }
}

/// The graph after a pass, which has gone through its regions before, the innermost first.
fn through<T: TensorPass>(pass: &T, g: &Graph, cx: &mut Context) -> Result<Graph, NodeError> {
    let rewritten;
    let mut from = g;
    if pass.enters_regions() && g.nodes.iter().any(|n| n.op.regions().next().is_some()) {
        let mut inside = |r: &Graph| through(pass, r, cx);
        rewritten = g.rewrite(|out, node, inputs| {
            let op = node.op.map_regions(&mut inside)?;
            out.add(op, inputs, &node.origin).map_err(|e| e.message)
        })?;
        from = &rewritten;
    }
    pass.rewrite(from, cx)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::canonicalize::Canonicalize;
    use brolga_ir::{DType, Number, Tensor};

    #[test]
    fn passes_go_through_regions() {
        let text = r"graph @g(%0 c: bool[], %1 x: f32[3]) {
          %2, %3 = if{then=graph @t(%0 x: f32[3]) {
              %1 = const f32[3] splat 2.0
              %2 = mul(%1, %1)
              %3 = add(%0, %2)
              %4 = neg(%3)
              return a = %3, b = %4
            } else=graph @e(%0 x: f32[3]) {
              %1 = transpose{perm=[0]}(%0)
              return a = %1, b = %0
            }}(%0, %1)
          return a = %2, b = %3
        }";
        let g = Graph::parse(text, &|_| None).unwrap();
        let mut cx = Context::new(Target::baseline());
        let out = through(&Canonicalize::default(), &g, &mut cx).unwrap();
        out.verify().unwrap();
        let inside: Vec<usize> = out.nodes[0].op.regions().map(|r| r.graph().nodes.len()).collect();
        assert_eq!(inside, [2, 0]);
        let cut = through(&crate::eqsat::EqSat::default(), &out, &mut cx).unwrap();
        cut.verify().unwrap();
        let stores = cut.nodes[0]
            .op
            .regions()
            .map(|r| r.graph().to_string().matches("= store(").count());
        assert_eq!(stores.collect::<Vec<_>>(), [2, 0]);
        for c in [0, 1] {
            let inputs = [
                Tensor::scalar(DType::Bool, Number::Int(c)),
                Tensor::from_f32(&[3], &[1.0, -2.0, 0.5]),
            ];
            assert_eq!(g.eval(&inputs).unwrap(), cut.eval(&inputs).unwrap());
        }
    }
}
