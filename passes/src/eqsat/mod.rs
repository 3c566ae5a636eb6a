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
//! Layers that are alike are found before, and one is optimised for all ([`repeats`]).
//!
//! What is decided can be decided otherwise, and what could be is told ([`decision`]).
//!
//! The cut representation and this extraction are the project's own; the e-graph is `egg` (Willsey et al., "egg: fast and
//! extensible equality saturation", POPL 2021).

pub mod account;
mod apply;
pub mod bound;
pub mod build;
pub mod check;
mod choices;
pub mod clock;
pub mod cost;
mod decision;
pub mod derive;
mod draft;
pub mod exact;
pub mod extract;
pub mod functions;
mod generate;
pub mod hint;
pub mod journal;
pub mod lang;
mod layouts;
mod matching;
pub mod missed;
mod options;
mod parts;
mod plan;
mod predicates;
mod quality;
mod relax;
mod repeats;
pub mod rules;
pub mod saturate;
pub mod schedule;
pub mod search;
mod selection;
mod sexp;
mod signs;
mod sorts;
pub mod view;
pub mod why;
mod windows;

use crate::decompose::decompose_where;
use crate::pass::{Context, TensorPass};
use brolga_ir::ops::Role;
use brolga_ir::{Def, Graph, NodeError, Op, Target};
use cost::CostModel;
pub use decision::{Alternative, Decide, Decided, Decision};
use decision::{Alternatives, To};
use egg::Language;
use exact::Exact;
use extract::{At, Choice, Classes, Settling};
pub use plan::Plan;
pub use quality::{Extract, Quality};
use repeats::Folded;
use rules::{Rule, RuleSet};
pub use saturate::NamedRewrite;
use saturate::{Report, RuleError};
use schedule::{Course, Ran, Schedule};
use search::{Search, Way};
pub use selection::{Forgetful, Fp, Rules, Selection, UserRules, Verdicts};
pub use sorts::Sort;
use std::sync::{Arc, LazyLock};

/// The share of a program's time that it may take to store what is between repeated layers.
const CUT: f64 = 0.005;

/// The pass.
#[derive(Clone, Debug, Default)]
pub struct EqSat {
    /// `rules=…`, `add=FILE`, `fp=strict|reassoc|fast`: the rules.
    pub selection: Selection,
    /// `nodes=N`: e-nodes at which saturation stops; 0 chooses by the graph's size.
    pub nodes: usize,
    /// `iters=N`: rounds; 0 for the default.
    pub iters: usize,
    /// `extract=greedy|search|exact`: how a program is chosen.
    pub extract: Extract,
    /// `rewrites=N`: rewrites after which saturation stops, of all graphs of the model together.
    pub rewrites: Option<usize>,
    /// `schedule=FILE`: which rules run for how many rounds, phase after phase, in place of `nodes` and `iters`.
    pub schedule: Option<ScheduleFile>,
    /// `decide=FILE`: what is decided otherwise than the extraction does.
    pub decisions: Vec<DecisionFile>,
    /// `fold=off`: layers that are alike are each optimised by themselves.
    pub unfolded: bool,
}

/// A file with a schedule.
#[derive(Clone, Debug)]
pub struct ScheduleFile {
    /// Its name.
    pub file: String,
    /// What it says.
    pub schedule: Schedule,
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
        // Who decides about values, reads the e-graph or counts rewrites, means those of the whole program.
        let decides = !self.decisions.is_empty()
            || cx.decide.is_some()
            || cx.explore
            || cx.keep.is_some()
            || self.rewrites.is_some();
        if !self.unfolded
            && !decides
            && let Some(folded) = repeats::fold(g, &set)?
            && let Some(made) = self.layer_by_layer(&folded, &set, cx)?
        {
            cx.remarks.extend(made.remarks());
            return Ok(made.graph);
        }
        let mut course = self.course(g, &set);
        if let Some(n) = self.rewrites {
            course.rewrites = n.saturating_sub(cx.counts.get(saturate::REWRITES) as usize);
        }
        if let Some(Some(rounds)) = cx.keep {
            course.rounds = rounds;
        }
        let saturated = Choices::saturated(g, &set, course, &cx.target);
        let (choices, report) = saturated.map_err(|e| self.failed(e, cx))?;
        report.tell(g, cx);
        cx.saturated.push(self.ran(format!("@{}", g.name), &report));
        if cx.keep.is_some() {
            cx.egraph = Some(Kept {
                choices,
                report,
                remarks: cx.remarks.clone(),
                origins: g.nodes.iter().map(|n| n.origin.clone()).collect(),
            });
            return Ok(g.clone());
        }
        let own = self.decided();
        let mut decisions = own.clone();
        decisions.extend(cx.decide.iter().flat_map(|d| d.decisions(g)));
        let mut made = choices.program(g, self.extract, &decisions, cx)?;
        if cx.decide.as_ref().is_some_and(|d| !d.accepts(g, &made.graph)) {
            let why = "the program that comes of it is not the one that was meant";
            made = choices.program(g, self.extract, &own, cx)?;
            let missed = decisions.split_off(own.len()).into_iter();
            made.decided.extend(missed.map(|decision| Decided {
                decision,
                result: Err(why.into()),
            }));
        }
        cx.remarks.extend(made.remarks());
        (cx.decided, cx.alternatives) = (made.decided, made.alternatives);
        Ok(made.graph)
    }
}

impl EqSat {
    /// How a graph is saturated.
    pub fn course(&self, g: &Graph, set: &RuleSet) -> Course {
        self.schedule().course(g, set)
    }

    /// The schedule of a file, or what runs without one.
    fn schedule(&self) -> Schedule {
        match &self.schedule {
            Some(given) => given.schedule.clone(),
            None => Schedule::usual(self.iters, self.nodes),
        }
    }

    fn ran(&self, graph: String, report: &Report) -> Ran {
        Ran {
            graph,
            schedule: self.schedule(),
            phases: report.phases.clone(),
        }
    }

    /// Why a graph is not saturated. That a rule of the user's is wrong is none of the pass's mistakes.
    fn failed(&self, message: String, cx: &mut Context) -> NodeError {
        let says = |r: &Rule| message.starts_with(&RuleError::new(r, String::new()).to_string());
        let is_users = self.selection.of_user().any(says);
        let error = NodeError {
            node: String::new(),
            message,
        };
        if is_users { cx.refuse(error) } else { error }
    }

    /// What its files decide.
    fn decided(&self) -> Vec<Decision> {
        self.decisions.iter().flat_map(|f| f.decisions.clone()).collect()
    }

    /// The program of a graph whose repeated layers are optimised once; `None` where that would not be sound.
    fn layer_by_layer(&self, folded: &Folded, set: &RuleSet, cx: &mut Context) -> Result<Option<Made>, NodeError> {
        let fail = |message: String| NodeError {
            node: String::new(),
            message,
        };
        let mut built = build::build(&folded.graph).map_err(fail)?;
        if let Some(why) = folded.obstacle(&built.same) {
            cx.remarks.push(format!("eqsat: not folded: {why}"));
            return Ok(None);
        }
        built.batches = cost::batches(folded.source);
        let same = std::mem::take(&mut built.same);
        let course = self.course(&folded.graph, set);
        let saturated = Choices::watched(built, set, &course, &cx.target, &mut ());
        let (mut choices, report) = saturated.map_err(|e| self.failed(e, cx))?;
        choices.classes.times = folded.times(&choices.classes, &same);
        let (eg, cs) = (&choices.eg, &choices.classes);
        let settling = extract::settle(cs, &|_, _| true);
        let (mut search, exact) = choices.extracted(&settling, self.extract).map_err(fail)?;
        let (plan, most) = (search.plan(), CUT * search.cost());
        let lost = folded.lost(cs, &plan, &choices.roots).map_err(fail)?;
        if lost > most {
            let (ms, all) = (lost * 1e3, search.cost() * 1e3);
            cx.remarks.push(format!(
                "eqsat: not folded: to store what is between layers may take {ms:.3} ms of {all:.3} ms"
            ));
            return Ok(None);
        }
        let mut cut = plan::emit(folded.source, eg, cs, &plan, &choices.roots, Some((folded, &same))).map_err(fail)?;
        cut.prune();
        cx.remarks.push(format!("eqsat: {folded}"));
        report.tell(&folded.graph, cx);
        cx.saturated
            .push(self.ran(format!("@{}, folded", folded.graph.name), &report));
        let (quality, missed) = choices.judged(&folded.graph, &mut search, &settling, exact, cx);
        let (graph, layouts) = layouts::choose(&cut, &cx.target, vec![], &mut vec![], None)?;
        Ok(Some(Made {
            graph,
            quality,
            layouts,
            decided: vec![],
            alternatives: vec![],
            missed,
        }))
    }
}

/// A saturated e-graph that was kept.
pub struct Kept {
    /// What it offers.
    pub choices: Choices,
    /// What saturation did.
    pub report: Report,
    /// What passes remarked so far.
    pub remarks: Vec<String>,
    /// The origins of the nodes of the graph that it was made of, by position.
    pub origins: Vec<Arc<str>>,
}

/// A program, and what was and could be decided about it.
struct Made {
    graph: Graph,
    quality: Option<Quality>,
    layouts: Option<layouts::Chosen>,
    decided: Vec<Decided>,
    alternatives: Vec<Alternative>,
    missed: Vec<missed::Missed>,
}

impl Made {
    /// What there is to say about it.
    fn remarks(&self) -> Vec<String> {
        let quality = self.quality.iter().map(ToString::to_string);
        let decided = self.decided.iter().map(ToString::to_string);
        let layouts = self.layouts.iter().map(ToString::to_string);
        let missed = self.missed.iter().map(ToString::to_string);
        let all = quality.chain(decided).chain(layouts).chain(missed);
        all.map(|r| format!("eqsat: {r}")).collect()
    }
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
pub fn optimize(
    g: &Graph,
    set: &RuleSet,
    course: impl Into<Course>,
    target: &Target,
) -> Result<(Graph, Report), String> {
    let (choices, report) = Choices::saturated(g, set, course, target)?;
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

/// The e-nodes that a graph had as it came.
#[derive(Default)]
struct Imported(Vec<(egg::Id, lang::Term)>);

impl saturate::Watch for Imported {
    fn decomposed(&mut self, eg: &lang::EGraph) {
        self.0 = build::operations(eg);
    }
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
    pub fn saturated(
        g: &Graph,
        set: &RuleSet,
        course: impl Into<Course>,
        target: &Target,
    ) -> Result<(Choices, Report), String> {
        Choices::watched(build::build(g)?, set, &course.into(), target, &mut ())
    }

    /// The same of a graph that is built, with somebody who looks on.
    fn watched(
        mut built: build::Built,
        set: &RuleSet,
        course: &Course,
        target: &Target,
        watch: &mut impl saturate::Watch,
    ) -> Result<(Choices, Report), String> {
        let mut imported = Imported::default();
        let report = saturate::saturate_watched(&mut built.eg, set, course, &mut (&mut imported, watch))
            .map_err(|e| e.to_string())?;
        Ok((Choices::new(built, &imported.0, target)?, report))
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
    fn program(&self, source: &Graph, how: Extract, decisions: &[Decision], cx: &Context) -> Result<Made, NodeError> {
        let fail = |message: String| NodeError {
            node: String::new(),
            message,
        };
        let (about_layouts, about_values): (Vec<_>, Vec<_>) = decisions.iter().cloned().partition(Decision::is_layout);
        let mut open = Alternatives::default();
        let settling = extract::settle(&self.classes, &|_, _| true);
        let (mut search, exact) = self.extracted(&settling, how).map_err(fail)?;
        let mut decided = vec![];
        if cx.explore || !about_values.is_empty() {
            let names = self.names(source);
            decided = self.decide(&mut search, &names, about_values);
            if cx.explore {
                self.explore(&mut search, &names, &mut open);
            }
        }
        let cut = self.emit(source, &search.plan()).map_err(fail)?;
        let (quality, missed) = self.judged(source, &mut search, &settling, exact, cx);
        let asked = cx.explore.then_some(&mut open);
        let (graph, layouts) = layouts::choose(&cut, &cx.target, about_layouts, &mut decided, asked)?;
        Ok(Made {
            graph,
            quality,
            layouts,
            decided,
            alternatives: open.sorted(),
            missed,
        })
    }

    /// How good a program is, and what it does not fuse, where somebody wants to know.
    fn judged(
        &self,
        source: &Graph,
        search: &mut Search,
        settling: &Settling,
        exact: Option<Exact>,
        cx: &Context,
    ) -> (Option<Quality>, Vec<missed::Missed>) {
        let missed = match cx.judge {
            true => missed::missed(&self.classes, &self.roots, search, &|c| self.origin(source, c)),
            false => vec![],
        };
        let quality = (cx.judge || exact.is_some()).then(|| self.quality(search, settling, exact, &self.names(source)));
        (quality, missed)
    }

    /// The names of the nodes that a class came from.
    fn origin(&self, source: &Graph, c: At) -> String {
        let origins = self.eg[self.classes.ids[c]].data.origins.iter().copied();
        let names: Vec<&str> = source.origins(origins).into_iter().map(|n| &**n).collect();
        names.join("+")
    }

    /// What classes are called in decisions: by the first node that they came from. Constants have no names.
    pub fn names(&self, source: &Graph) -> Vec<Option<String>> {
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

    /// What becomes of a class, as decisions say it.
    fn to(&self, c: At, way: Way) -> To {
        match way {
            Way::Stored(false) => To::Inline,
            Way::Stored(true) => To::Keep,
            Way::By(k) => To::By(self.way(c, k)),
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
            let Ok(seconds) = search.price(c, way) else { continue };
            let to = self.to(c, way);
            let now = search.chosen(c).map_or_else(String::new, |k| self.way(c, k));
            let about = format!("{now} {}", self.classes.ty(c));
            open.add(Decision { value, to }, about, seconds);
        }
    }

    /// A program as it is to be chosen, and what branch and bound did where it ran.
    fn extracted<'a>(&'a self, settling: &'a Settling, how: Extract) -> Result<(Search<'a>, Option<Exact>), String> {
        let (cs, roots) = (&self.classes, &self.roots[..]);
        Ok(match how {
            Extract::Greedy => {
                let greedy = Plan::new(cs, &settling.of, roots)?;
                (Search::new(cs, settling, &greedy, roots), None)
            }
            Extract::Search => (self.searched(settling)?, None),
            Extract::Exact => {
                let exact = exact::exact(cs, settling, &self.searched(settling)?.plan(), roots, 0);
                let search = Search::new(cs, settling, &exact.plan, roots);
                (search, Some(exact))
            }
        })
    }

    /// How good a program is, and what branch and bound knows of it, where it ran.
    fn quality(
        &self,
        search: &mut Search,
        settling: &Settling,
        exact: Option<Exact>,
        names: &[Option<String>],
    ) -> Quality {
        let mut open = Alternatives::default();
        self.explore(search, names, &mut open);
        let each = |a: Alternative| {
            let seconds = a.seconds / a.decisions.len() as f64;
            a.decisions.into_iter().next().map(|d| (d, seconds))
        };
        let others = open.sorted().into_iter().filter_map(each);
        Quality {
            seconds: search.cost(),
            bound: match &exact {
                Some(e) => e.bound,
                None => bound::lower_bound(&self.classes, settling, &search.plan(), &self.roots),
            },
            exact: exact.map(|e| (e.proven, e.looked_at)),
            runner_up: others.min_by(|a, b| a.1.total_cmp(&b.1)),
        }
    }

    /// The program that is chosen in some way, and its seconds.
    ///
    /// # Errors
    /// When a result has no kernel.
    pub fn chosen(&self, how: Extract) -> Result<(Plan, f64), String> {
        let settling = extract::settle(&self.classes, &|_, _| true);
        let (search, _) = self.extracted(&settling, how)?;
        Ok((search.plan(), search.cost()))
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
        let mut out = plan::emit(source, &self.eg, &self.classes, plan, &self.roots, None)?;
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
