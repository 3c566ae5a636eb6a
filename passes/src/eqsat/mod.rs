//! The e-graph pass: algebra and fusion decided together, layouts for what they give.
//!
//! A graph becomes an e-graph ([`build`]) in the cut representation ([`lang`]); rules from text saturate it; the
//! extraction ([`extract`], [`search`]) chooses the kernels by their roofline cost ([`cost`]); where images lie with their channels
//! innermost is chosen for these kernels ([`mod@layouts`]). No fusion happens outside the rules and the extraction: without rules
//! every operator is a kernel of its own.
//!
//! ```text
//! %1 = add(%0, %0)          -->          %1 = add(%0, %0)
//! %2 = relu(%1)                          %2 = relu(%1)
//!                                        %3 = store(%2)
//! ```
//!
//! What is decided can be decided otherwise, and what could be is told ([`decision`]).
//!
//! The cut representation and this extraction are the project's own; the e-graph is `egg` (Willsey et al., "egg: fast and
//! extensible equality saturation", POPL 2021).

pub mod account;
mod apply;
pub mod build;
pub mod check;
pub mod cost;
mod decision;
mod draft;
pub mod extract;
pub mod functions;
mod generate;
pub mod hint;
pub mod lang;
mod layouts;
mod matching;
mod options;
mod plan;
mod predicates;
pub mod rules;
pub mod saturate;
pub mod search;
mod selection;
mod sexp;
mod signs;
mod sorts;
mod windows;

use crate::decompose::decompose_where;
use crate::pass::{Context, TensorPass};
use brolga_ir::ops::Role;
use brolga_ir::{Def, Graph, NodeError, Op, Target};
use cost::CostModel;
pub use decision::{Alternative, Decide, Decided, Decision};
use decision::{Alternatives, To};
use egg::Language;
use extract::{At, Choice, Classes, Settling};
pub use plan::Plan;
use rules::RuleSet;
pub use saturate::NamedRewrite;
use saturate::{Limits, Report};
use search::{Search, Way};
pub use selection::{Forgetful, Fp, Rules, Selection, UserRules, Verdicts};
pub use sorts::Sort;
use std::sync::LazyLock;

/// E-nodes that each operation of the graph is worth before saturation stops.
const NODES_PER_OPERATION: usize = 60;
/// E-nodes that the smallest graph may grow to.
const LEAST_NODES: usize = 4000;
/// Rounds by default: transposes move by one operation in each.
const ROUNDS: usize = 40;

/// The pass.
#[derive(Clone, Debug, Default)]
pub struct EqSat {
    /// `rules=…`, `add=FILE`, `fp=strict|reassoc|fast`: the rules.
    pub selection: Selection,
    /// `nodes=N`: e-nodes at which saturation stops; 0 chooses by the graph's size.
    pub nodes: usize,
    /// `iters=N`: rounds; 0 for the default.
    pub iters: usize,
    /// `rewrites=N`: rewrites after which saturation stops, of all graphs of the model together.
    pub rewrites: Option<usize>,
    /// `decide=FILE`: what is decided otherwise than the extraction does.
    pub decisions: Vec<DecisionFile>,
}

/// A file of decisions.
#[derive(Clone, Debug)]
pub struct DecisionFile {
    /// Its name.
    pub file: String,
    /// What it says.
    pub decisions: Vec<Decision>,
}

impl TensorPass for EqSat {
    fn rewrite(&self, g: &Graph, cx: &mut Context) -> Result<Graph, NodeError> {
        let fail = |message: String| NodeError {
            node: String::new(),
            message,
        };
        let Some(set) = self.selection.rules() else {
            return unfused(g, &cx.target).map_err(fail);
        };
        let left_out: Vec<&str> = self.selection.left_out().iter().map(|r| &*r.name).collect();
        if !left_out.is_empty() {
            let fp = self.selection.fp.unwrap_or_default().name();
            cx.remarks
                .push(format!("eqsat: fp={fp} leaves out {}", left_out.join(", ")));
        }
        let nodes = if self.nodes > 0 {
            self.nodes
        } else {
            (g.nodes.len() * NODES_PER_OPERATION).max(LEAST_NODES)
        };
        let limits = Limits {
            nodes,
            iters: if self.iters > 0 { self.iters } else { ROUNDS },
            rewrites: self.rewrites.map_or(usize::MAX, |n| {
                n.saturating_sub(cx.counts.get(saturate::REWRITES) as usize)
            }),
        };
        let (choices, report) = Choices::saturated(g, &set, limits, &cx.target).map_err(fail)?;
        tracing::debug!("eqsat: {report}");
        cx.remarks.push(format!("eqsat: {report}"));
        report.count(&mut cx.counts);
        if let Some(last) = &report.last {
            cx.rewrite = Some(last.named(g));
        }
        let own: Vec<Decision> = self.decisions.iter().flat_map(|f| f.decisions.clone()).collect();
        let mut decisions = own.clone();
        decisions.extend(cx.decide.iter().flat_map(|d| d.decisions(g)));
        let mut made = choices.program(g, &decisions, cx)?;
        if cx.decide.as_ref().is_some_and(|d| !d.accepts(g, &made.graph)) {
            let why = "the program that comes of it is not the one that was meant";
            made = choices.program(g, &own, cx)?;
            let missed = decisions.split_off(own.len()).into_iter();
            made.decided.extend(missed.map(|decision| Decided {
                decision,
                result: Err(why.into()),
            }));
        }
        cx.remarks.extend(made.decided.iter().map(|d| format!("eqsat: {d}")));
        cx.remarks.extend(made.layouts.map(|c| format!("eqsat: {c}")));
        (cx.decided, cx.alternatives) = (made.decided, made.alternatives);
        Ok(made.graph)
    }
}

/// A program, and what was and could be decided about it.
struct Made {
    graph: Graph,
    layouts: Option<layouts::Chosen>,
    decided: Vec<Decided>,
    alternatives: Vec<Alternative>,
}

/// The embedded rules that are used where nobody says otherwise: all but those that are approximate.
pub fn usual() -> &'static RuleSet {
    static USUAL: LazyLock<RuleSet> = LazyLock::new(|| {
        let rules = embedded().rules.iter().filter(|r| Fp::default().allows(r));
        RuleSet {
            rules: rules.cloned().collect(),
        }
    });
    &USUAL
}

/// The embedded rules, parsed once.
pub fn embedded() -> &'static RuleSet {
    static EMBEDDED: LazyLock<RuleSet> = LazyLock::new(RuleSet::embedded);
    &EMBEDDED
}

/// The best graph that rules find, and what saturation did.
///
/// # Errors
/// When a rule is wrong or an operator has no kernel.
pub fn optimize(g: &Graph, set: &RuleSet, limits: Limits, target: &Target) -> Result<(Graph, Report), String> {
    let (choices, report) = Choices::saturated(g, set, limits, target)?;
    Ok((choices.graph(g)?, report))
}

/// The kernels of a graph as it stands: every operator is stored, composite operators are decomposed.
///
/// # Errors
/// When an operator has no kernel.
pub fn unfused(g: &Graph, target: &Target) -> Result<Graph, String> {
    // There are no trees on a GPU.
    let which: fn(&Op) -> bool = match target.cpu() {
        Some(_) => |op| matches!(op.role(), Role::Composite),
        None => |op| matches!(op.role(), Role::Composite | Role::Tree(_)),
    };
    let g = decompose_where(g, which).map_err(|e| e.to_string())?;
    Choices::new(build::build(&g)?, &[], target)?.graph(&g)
}

/// What an e-graph offers for the results of a graph: programs to choose from.
pub struct Choices {
    /// The e-graph.
    pub eg: lang::EGraph,
    /// Its classes.
    pub classes: Classes,
    /// Which e-nodes of each class the graph had as it came, where that is known.
    imported: Option<Vec<Vec<bool>>>,
    /// The classes of what a run has to compute.
    pub roots: Vec<At>,
}

impl Choices {
    /// The choices that rules give, and what saturation did.
    ///
    /// # Errors
    /// When a rule is wrong or the graph is not valid.
    pub fn saturated(g: &Graph, set: &RuleSet, limits: Limits, target: &Target) -> Result<(Choices, Report), String> {
        let mut built = build::build(g)?;
        let mut imported = vec![];
        let mut decomposed = |eg: &lang::EGraph| imported = build::operations(eg);
        let report = saturate::saturate_seen(&mut built.eg, set, limits, &mut decomposed).map_err(|e| e.to_string())?;
        Ok((Choices::new(built, &imported, target)?, report))
    }

    /// The choices of an e-graph, some e-nodes of which are those of the program as it was imported.
    ///
    /// # Errors
    /// When a term is ill-sorted.
    pub fn new(built: build::Built, imported: &[(egg::Id, lang::Term)], target: &Target) -> Result<Choices, String> {
        let classes = Classes::new(
            &built.eg,
            CostModel::new(target).of_graph(built.batches, extract::images(&built.eg)?),
        )?;
        let given = |(c, ks): (At, &Vec<Choice>)| ks.iter().map(|k| classes.constant[c] || k.op.is_none()).collect();
        let mut mask: Vec<Vec<bool>> = classes.choices.iter().enumerate().map(given).collect();
        for (id, term) in imported {
            let term = term.clone().map_children(|c| built.eg.find(c));
            let c = classes.at[&built.eg.find(*id)];
            if let Some(k) = classes.choices[c].iter().position(|k| k.term == term) {
                mask[c][k] = true;
            }
        }
        let roots = built.roots.iter().map(|&t| classes.at[&built.eg.find(t)]).collect();
        Ok(Choices {
            eg: built.eg,
            classes,
            imported: (!imported.is_empty()).then_some(mask),
            roots,
        })
    }

    /// The program that is best but for some decisions, with its layouts; what else could be decided where the context asks.
    fn program(&self, source: &Graph, decisions: &[Decision], cx: &Context) -> Result<Made, NodeError> {
        let fail = |message: String| NodeError {
            node: String::new(),
            message,
        };
        let (about_layouts, about_values): (Vec<_>, Vec<_>) = decisions.iter().cloned().partition(Decision::is_layout);
        let mut open = Alternatives::default();
        let settling = extract::settle(&self.classes, &|_, _| true);
        let mut search = self.searched(&settling).map_err(fail)?;
        let mut decided = vec![];
        if cx.explore || !about_values.is_empty() {
            let names = self.names(source);
            decided = self.decide(&mut search, &names, about_values);
            if cx.explore {
                self.explore(&mut search, &names, &mut open);
            }
        }
        let cut = self.emit(source, &search.plan()).map_err(fail)?;
        let asked = cx.explore.then_some(&mut open);
        let (graph, layouts) = layouts::choose(&cut, &cx.target, about_layouts, &mut decided, asked)?;
        Ok(Made {
            graph,
            layouts,
            decided,
            alternatives: open.sorted(),
        })
    }

    /// What classes are called in decisions: by the first node that they came from. Constants have no names.
    fn names(&self, source: &Graph) -> Vec<Option<String>> {
        let cs = &self.classes;
        decision::names((0..cs.ids.len()).map(|c| {
            let first = self.eg[cs.ids[c]].data.origins.first();
            let varies = !cs.constant[c] && cs.types[c].is_some();
            first.filter(|_| varies).map(|&n| &*source.nodes[n as usize].origin)
        }))
    }

    /// The name of an e-node among those of its class.
    fn way(&self, c: At, k: usize) -> String {
        let of = |k: usize| self.classes.choices[c][k].op.as_ref().map_or("store", Op::name);
        let before = (0..k).filter(|&j| of(j) == of(k)).count();
        match before {
            0 => of(k).to_owned(),
            n => format!("{}#{n}", of(k)),
        }
    }

    /// Takes decisions about values.
    fn decide(&self, search: &mut Search, names: &[Option<String>], decisions: Vec<Decision>) -> Vec<Decided> {
        let take = |decision: Decision| {
            let mut named = (0..names.len()).filter(|&c| names[c].as_ref() == Some(&decision.value));
            let result = match named.next() {
                None => Err("there is no value of that name".to_owned()),
                Some(c) => {
                    let way = match &decision.to {
                        To::Inline => Some(Way::Stored(false)),
                        To::Keep => Some(Way::Stored(true)),
                        To::By(op) => {
                            let mut all = 0..self.classes.choices[c].len();
                            all.find(|&k| self.way(c, k) == *op).map(Way::By)
                        }
                        To::Last | To::Rows => None,
                    };
                    let way = way.ok_or("nothing of that name computes it");
                    way.and_then(|w| search.decide(c, w)).map_err(str::to_owned)
                }
            };
            Decided { decision, result }
        };
        decisions.into_iter().map(take).collect()
    }

    /// What else could be decided about values.
    fn explore(&self, search: &mut Search, names: &[Option<String>], open: &mut Alternatives) {
        for (c, way) in search.open_ways() {
            let Some(value) = names[c].clone() else { continue };
            let Some(seconds) = search.price(c, way) else { continue };
            let to = match way {
                Way::Stored(false) => To::Inline,
                Way::Stored(true) => To::Keep,
                Way::By(k) => To::By(self.way(c, k)),
            };
            let now = search.chosen(c).map_or_else(String::new, |k| self.way(c, k));
            let about = format!("{now} {}", self.classes.ty(c));
            open.add(Decision { value, to }, about, seconds);
        }
    }

    /// The cheapest program found.
    ///
    /// # Errors
    /// When a result has no kernel.
    pub fn best(&self) -> Result<Plan, String> {
        let settling = extract::settle(&self.classes, &|_, _| true);
        Ok(self.searched(&settling)?.plan())
    }

    /// The cheapest program found: from the greedy choice, and from the program as it was imported where that is near,
    /// each improved by local search. Never dearer than the imported one, fused or not.
    ///
    /// # Errors
    /// When a result has no kernel.
    fn searched<'a>(&'a self, settling: &'a Settling) -> Result<Search<'a>, String> {
        /// How much dearer than the best a program may be that is worth improving.
        const NEAR: f64 = 1.1;
        let (cs, roots) = (&self.classes, &self.roots[..]);
        let greedy = Plan::new(cs, &settling.of, roots)?;
        let mut best = Search::new(cs, settling, &greedy, roots);
        best.run();
        if let Some(imported) = self.imported() {
            for (start, near) in [(imported.all_stored(cs), 1.0), (imported, NEAR)] {
                let mut search = Search::new(cs, settling, &start, roots);
                if search.cost() < near * best.cost() {
                    search.run();
                    if search.cost() < best.cost() - search::LEAST {
                        best = search;
                    }
                }
            }
        }
        Ok(best)
    }

    /// The program as it was imported, its kernels fused greedily; `None` where it has e-nodes without a kernel.
    fn imported(&self) -> Option<Plan> {
        let imported = self.imported.as_ref()?;
        let settling = extract::settle(&self.classes, &|c, k| imported[c][k]);
        Plan::new(&self.classes, &settling.of, &self.roots).ok()
    }

    /// The graph of a program, for the graph that it came from.
    ///
    /// # Errors
    /// When the program lacks what a result needs.
    pub fn emit(&self, source: &Graph, plan: &Plan) -> Result<Graph, String> {
        let mut out = plan::emit(source, &self.eg, &self.classes, plan, &self.roots)?;
        out.prune();
        Ok(out)
    }

    /// The graph of the cheapest program found, for the graph that it came from.
    ///
    /// # Errors
    /// When a result has no kernel.
    pub fn graph(&self, source: &Graph) -> Result<Graph, String> {
        self.emit(source, &self.best()?)
    }
}

/// The number of kernels that run with the model: stores of what depends on an input. Constant ones run at compile time.
pub fn kernels(g: &Graph) -> usize {
    let mut varies: Vec<bool> = g.values.iter().map(|v| matches!(v.def, Def::Input(_))).collect();
    let mut count = 0;
    for node in &g.nodes {
        let v = node.inputs.iter().any(|i| varies[i.0 as usize]) || !node.op.is_concrete();
        node.outputs.iter().for_each(|o| varies[o.0 as usize] = v);
        count += (v && matches!(node.op.role(), Role::Store)) as usize;
    }
    count
}

#[cfg(test)]
mod tests;
