//! Ablation: what a model costs without a theme of rules, with that theme alone, or without a rule.
//!
//! Variants that give the same program are one program, which is compiled and run once: what differs between two rows of a report is not the
//! noise of two builds.

pub mod measure;
pub mod plot;

use crate::levels::{self, Module, Walk};
use crate::options::Options;
use crate::random::Random;
use crate::{Error, Result, Session};
use brolga_ir::Graph;
use brolga_passes::eqsat::account::{Account, account};
use brolga_passes::eqsat::rules::Rule;
use brolga_passes::eqsat::saturate::Effect;
use brolga_passes::eqsat::{Rules, Selection};
use measure::{Interval, shuffled};
use std::collections::HashMap;
use std::fmt;
use std::str::FromStr;

/// The theme without which every operator is a kernel of its own.
const FUSION: &str = "fusion";

/// Runs of the passes of each variant, of which the median counts.
const PASSES: usize = 5;

/// What is switched off.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum By {
    /// Themes, each off in turn and on alone.
    #[default]
    Theme,
    /// Rules, each off in turn.
    Rule,
}

impl FromStr for By {
    type Err = String;

    fn from_str(text: &str) -> Result<By, String> {
        match text {
            "theme" => Ok(By::Theme),
            "rule" => Ok(By::Rule),
            _ => Err("expected theme or rule".into()),
        }
    }
}

/// The rules of a variant.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Change {
    /// All of the selection.
    All,
    /// None: every operator is a kernel of its own.
    None,
    /// All but a theme, or a rule.
    Without(String),
    /// A theme beside fusion.
    Alone(String),
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Change::All => f.write_str("all"),
            Change::None => f.write_str("none"),
            Change::Without(what) => write!(f, "-{what}"),
            Change::Alone(theme) => write!(f, "{theme} alone"),
        }
    }
}

/// A model with other rules.
pub struct Variant {
    /// Which ones.
    pub change: Change,
    /// What the kernels do and cost by the cost model.
    pub account: Account,
    /// Which of the distinct programs it is; that of all rules is 0.
    pub program: usize,
    /// What the rule did to the model with all rules, where a rule is left out.
    pub effect: Option<Effect>,
    options: Options,
}

/// A model with all rules, and with parts of them.
pub struct Ablation {
    /// The variants, that of all rules first.
    pub variants: Vec<Variant>,
    /// For each distinct program, the first variant that gives it.
    firsts: Vec<usize>,
    graph: Graph,
}

impl Ablation {
    /// The variants of a graph, whose rules are those of the options. By rules, `rules` says of which one wants to know; those that match nothing
    /// have no variant. `progress` is told what comes next.
    ///
    /// # Errors
    /// When the options have a pipeline, or no rules; when a pass fails.
    pub fn new(
        graph: Graph,
        options: &Options,
        by: By,
        rules: &dyn Fn(&Rule) -> bool,
        progress: &dyn Fn(&str),
    ) -> Result<Ablation> {
        if options.pipeline.is_some() {
            return Err(Error::Option(
                "an ablation chooses the rules of the default pipeline, and takes no other".into(),
            ));
        }
        let selection = options.rules.clone().unwrap_or_default();
        let all = selection
            .rules()
            .ok_or_else(|| Error::Option("rules=none has no rules to switch off".into()))?;
        let mut wanted = vec![(Change::All, selection.clone(), None), none()];
        match by {
            By::Theme => wanted.extend(themes(&selection, &all.rules)),
            By::Rule => {
                progress("what each rule does");
                let effects = levels::saturated(&graph, options, None)?.report.effects;
                let asked = |e: &Effect| {
                    let rule = all.rules.iter().find(|r| r.name == e.rule);
                    rule.is_some_and(|r| r.theme() != FUSION && rules(r))
                };
                wanted.extend(effects.into_iter().filter(asked).map(|e| {
                    let chosen = selection.only(|r| r.name != e.rule);
                    (Change::Without(e.rule.clone()), chosen, Some(e))
                }));
            }
        }
        let (mut variants, mut firsts): (Vec<Variant>, Vec<usize>) = (vec![], vec![]);
        let mut programs: HashMap<String, usize> = HashMap::new();
        for (change, selection, effect) in wanted {
            progress(&change.to_string());
            let options = Options {
                rules: Some(selection),
                ..options.clone()
            };
            let (cut, _) = levels::optimise(&graph, &options)?;
            let program = *programs.entry(cut.to_string()).or_insert_with(|| {
                firsts.push(variants.len());
                firsts.len() - 1
            });
            variants.push(Variant {
                change,
                account: account(&cut, &options.target),
                program,
                effect,
                options,
            });
        }
        Ok(Ablation {
            variants,
            firsts,
            graph,
        })
    }

    /// A session for each distinct program.
    ///
    /// # Errors
    /// When one cannot be compiled.
    pub fn sessions(&self, threads: usize, progress: &dyn Fn(&str)) -> Result<Vec<Session>> {
        let each = |&first: &usize| {
            let v = &self.variants[first];
            progress(&format!("compiling {}", v.change));
            crate::compile::draft(&self.graph, &v.options)?.session(threads)
        };
        self.firsts.iter().map(each).collect()
    }

    /// The first variant of each distinct program.
    pub fn firsts(&self) -> impl Iterator<Item = &Variant> {
        self.firsts.iter().map(|&v| &self.variants[v])
    }

    /// Seconds that the passes take for each variant, in turn, with their intervals; the order in a round comes from a seed.
    ///
    /// # Errors
    /// When a pass fails.
    pub fn passes(&self, seed: u64) -> Result<Vec<Interval>> {
        let mut random = Random::new(seed);
        let mut times = vec![vec![]; self.variants.len()];
        for _ in 0..PASSES {
            for v in shuffled(self.variants.len(), &mut random) {
                let walk = Walk::new(Module::Tensor(self.graph.clone()), &self.variants[v].options)?;
                times[v].push(walk.optimise.as_secs_f64());
            }
        }
        Ok(times.iter().filter_map(|t| Interval::of(t)).collect())
    }
}

/// A variant to come.
type Wanted = (Change, Selection, Option<Effect>);

fn none() -> Wanted {
    let none = Selection {
        rules: Rules::None,
        ..Selection::default()
    };
    (Change::None, none, None)
}

/// Each theme off, and on alone. A file of a user is a theme, too.
fn themes(selection: &Selection, rules: &[Rule]) -> Vec<Wanted> {
    let mut themes: Vec<&str> = vec![];
    for rule in rules.iter().filter(|r| !r.is_decompose()) {
        if !themes.contains(&rule.theme()) && rule.theme() != FUSION {
            themes.push(rule.theme());
        }
    }
    let without = themes.iter().map(|&t| {
        let others = selection.only(|r| r.theme() != t);
        (Change::Without(t.to_owned()), others, None)
    });
    let alone = std::iter::once(FUSION).chain(themes.iter().copied()).map(|t| {
        let own = selection.only(|r| [t, FUSION].contains(&r.theme()));
        (Change::Alone(t.to_owned()), own, None)
    });
    without.chain(alone).collect()
}
