//! A program together with the reasons for it: its proof, and what made each of its kernels.

use super::clock::{Clock, Times};
use super::decision::{Decided, Decision};
use super::extract::{At, settle};
use super::journal::{Journal, Reason};
use super::lang::Term;
use super::plan::Plan;
use super::rules::{Exactness, RuleSet};
use super::saturate::Report;
use super::schedule::Course;
use super::{Choices, EqSat, build};
use crate::closure::Closure;
use crate::fusion::Form;
use crate::proof::{Claim, Promise, Proof, Step};
use brolga_ir::{Graph, Op, Target, Type, Value};
use egg::Language;
use rustc_hash::{FxHashMap, FxHashSet};
use std::sync::Arc;

/// What steps of arithmetic on numbers are called.
pub const NUMBER: &str = "number";

/// A program that rules found for a graph, with its reasons.
pub struct Derivation {
    /// How the graph was saturated.
    pub course: Course,
    /// What saturation did.
    pub report: Report,
    /// How long that took; what the journal took is left out.
    pub times: Times,
    /// What the program was chosen from.
    pub choices: Choices,
    /// The program.
    pub plan: Plan,
    /// What became of the decisions of the pass.
    pub decided: Vec<Decided>,
    /// The seconds of the program by the extraction's figures.
    seconds: f64,
    /// The seconds of the kernel that stores each class.
    kernel_seconds: Vec<f64>,
    /// What saturation did, step by step.
    pub journal: Journal,
    /// The steps, as proofs have them, at the journal's positions; those that told nothing new have no sides.
    pub steps: Vec<Step>,
    /// The terms of the classes in use: the results of a host operator with several, or one value.
    terms: Vec<Vec<Value>>,
}

/// A kernel of a program, and why it is what it is.
#[derive(Clone, Debug)]
pub struct Kernel {
    /// The model nodes whose work it does.
    pub nodes: Vec<Arc<str>>,
    /// Its operators, operands first.
    pub operators: Vec<Op>,
    /// What it gives.
    pub ty: Type,
    /// True where it runs once, at compile time.
    pub constant: bool,
    /// The rules that made it, in the order in which they were applied first, with the number of steps of each.
    pub rules: Vec<(String, usize)>,
    /// Of a kernel that runs: the same of the constants that it reads, which other kernels make at compile time.
    pub constants: Vec<(String, usize)>,
    /// Its term.
    pub term: Value,
    /// The class that it stores.
    pub class: At,
    /// The classes that it computes, operands first.
    pub inside: Vec<At>,
    /// Its seconds by the extraction's figures.
    pub seconds: f64,
}

impl Derivation {
    /// The program that the pass finds for a graph by these rules. Layouts are no part of it, nor what is decided about them.
    ///
    /// # Errors
    /// When a rule is wrong or an operator has no kernel.
    pub fn new(g: &Graph, set: &RuleSet, pass: &EqSat, target: &Target) -> Result<Derivation, String> {
        let built = build::build(g)?;
        let mut journal = Journal::new(g, &built);
        let mut clock = Clock::new(set.rules.len(), &mut journal);
        let course = pass.course(g, set);
        let (choices, report) = Choices::watched(built, set, &course, target, &mut clock)?;
        let times = clock.times();
        let settling = settle(&choices.classes, &|_, _| true);
        let (mut search, _) = choices.extracted(&settling, pass.extract)?;
        let about_values = pass.decided().into_iter().filter(|d| !Decision::is_layout(d));
        let decided = choices.decide(&mut search, &choices.names(g), about_values.collect());
        let (plan, seconds, kernel_seconds) = (search.plan(), search.cost(), search.kernel_seconds());
        let mut d = Derivation {
            course,
            report,
            times,
            choices,
            plan,
            decided,
            seconds,
            kernel_seconds,
            steps: vec![],
            journal,
            terms: vec![],
        };
        d.steps = steps(&d.journal, set);
        d.name_terms();
        Ok(d)
    }

    /// Names the terms that the program consists of.
    fn name_terms(&mut self) {
        let cs = &self.choices.classes;
        self.terms = vec![vec![]; cs.ids.len()];
        for c in self.plan.order(cs, &self.choices.roots) {
            if cs.is_splat(c) {
                let x = self.choices.eg[cs.ids[c]].data.splat.expect("it is one number");
                self.terms[c] = vec![self.journal.number(cs.ty(c), x)];
                continue;
            }
            let choice = &cs.choices[c][self.plan.choice[c].expect("a class in use")];
            let operands: Vec<Vec<Value>> = choice.operands.iter().map(|&o| self.terms[o].clone()).collect();
            let eg = &self.choices.eg;
            self.terms[c] = (self.journal).program_term(eg, &choice.term, choice.op.as_ref(), &operands);
        }
    }

    /// The proof that the program computes what the graph does.
    ///
    /// # Errors
    /// Where the steps do not suffice, which is a mistake of this compiler.
    pub fn proof(&self, g: &Graph) -> Result<Proof, String> {
        let names = g.reads.iter().map(|r| format!("size {}", r.symbol));
        let names = names.chain(g.outputs.iter().map(|(name, _)| name.clone()));
        let roots = g.roots().zip(&self.choices.roots);
        let claims: Vec<Claim> = (names.zip(roots))
            .map(|(name, (source, &c))| Claim {
                name,
                left: self.journal.sources[source.0 as usize],
                right: self.terms[c][0],
            })
            .collect();
        Proof::new(&self.journal.terms, &self.steps, claims)
            .map_err(|_| "the steps of the optimiser do not lead to its program".to_owned())
    }

    /// The kernels of the program for a graph, in the order in which they run, with the rules that made each.
    pub fn kernels(&self, g: &Graph) -> Vec<Kernel> {
        let cs = &self.choices.classes;
        let order = self.plan.order(cs, &self.choices.roots);
        let forms = self.plan.forms(cs, &order).expect("a program that was chosen is legal");
        let closure = Closure::of(&self.journal.terms, self.steps.iter().map(|s| &s.sides[..]));
        let mut sources: FxHashMap<u32, Value> = FxHashMap::default();
        for &v in &self.journal.sources {
            sources.entry(closure.find(v)).or_insert(v);
        }
        // The steps that make a class what it is in the program.
        let mut reasons: FxHashMap<At, FxHashSet<usize>> = FxHashMap::default();
        // The steps that made a constant, with those of the constants that it is made of.
        let mut made: FxHashMap<At, FxHashSet<usize>> = FxHashMap::default();
        let mut out = vec![];
        for &c in &order {
            let in_memory = forms[c] == Some(Form::Tensor);
            if !(self.plan.stored[c] && !in_memory || self.is_step(c)) || cs.is_splat(c) {
                continue;
            }
            let (inside, inputs) = self.inside(c, &forms);
            let term = self.terms[c][0];
            let source = sources.get(&closure.find(term)).copied();
            let first = source.or_else(|| self.journal.first(cs.ids[c])).unwrap_or(term);
            let mut steps: FxHashSet<usize> = closure.explain(&[(term, first)]).into_iter().flatten().collect();
            if source.is_none() {
                steps.extend(self.journal.made_by[first.0 as usize]);
            }
            let own: FxHashSet<usize> = (steps.iter().copied())
                .filter(|s| !inputs.iter().any(|i| reasons.get(i).is_some_and(|r| r.contains(s))))
                .collect();
            reasons.insert(c, steps);
            let read: FxHashSet<usize> = inputs.iter().filter_map(|i| made.get(i)).flatten().copied().collect();
            let (rules, constants) = match cs.constant[c] {
                true => {
                    made.insert(c, &own | &read);
                    (self.counted(own), vec![])
                }
                false => (self.counted(own), self.counted(read)),
            };
            let origins = inside
                .iter()
                .flat_map(|&i| self.choices.eg[cs.ids[i]].data.origins.clone());
            let nodes = g.origins(origins).into_iter().cloned().collect();
            let operators = inside
                .iter()
                .filter_map(|&i| cs.choices[i][self.plan.choice[i]?].op.clone());
            out.push(Kernel {
                nodes,
                operators: operators.collect(),
                ty: self.journal.terms.ty(term).clone(),
                constant: cs.constant[c],
                rules,
                constants,
                term,
                class: c,
                seconds: self.kernel_seconds[c],
                inside,
            });
        }
        out
    }

    /// The rules of steps, in the order in which they were applied first, with the number of steps of each.
    fn counted(&self, steps: FxHashSet<usize>) -> Vec<(String, usize)> {
        let mut steps: Vec<usize> = steps.into_iter().collect();
        steps.sort_unstable();
        let mut rules: Vec<(String, usize)> = vec![];
        for s in steps {
            let name = &self.steps[s].rule;
            match rules.iter_mut().find(|(n, _)| n == name) {
                Some((_, n)) => *n += 1,
                None => rules.push((name.clone(), 1)),
            }
        }
        rules
    }

    /// The classes that a kernel computes, operands first, and the kernels that it reads.
    fn inside(&self, kernel: At, forms: &[Option<Form>]) -> (Vec<At>, Vec<At>) {
        let cs = &self.choices.classes;
        let (mut inside, mut inputs) = (vec![], vec![]);
        let mut seen = FxHashSet::default();
        let mut stack = vec![(kernel, false)];
        while let Some((c, done)) = stack.pop() {
            if done {
                inside.push(c);
            } else if seen.insert(c) && !cs.is_splat(c) {
                if c != kernel && (self.plan.stored[c] || self.is_step(c)) {
                    inputs.push(c);
                    continue;
                }
                // What lies in memory as another kernel wrote it is no work.
                if c == kernel || forms[c] != Some(Form::Tensor) {
                    stack.push((c, true));
                }
                stack.extend(self.plan.operands(cs, c).iter().rev().map(|&o| (o, false)));
            }
        }
        (inside, inputs)
    }

    /// Whether a class is computed by an operator that is a step of its own.
    fn is_step(&self, c: At) -> bool {
        let part = self.plan.choice[c].and_then(|k| self.choices.classes.choices[c][k].part);
        part.is_some_and(|p| p.role.is_step())
    }

    /// The seconds that the program takes by the extraction's figures.
    pub fn seconds(&self) -> f64 {
        self.seconds
    }

    /// Whether an e-node of a class is in the program.
    pub fn uses(&self, c: At, term: &Term) -> bool {
        let find = |t: &Term| t.clone().map_children(|i| self.choices.eg.find(i));
        let chosen = self.plan.choice[c].map(|k| &self.choices.classes.choices[c][k].term);
        chosen.is_some_and(|t| find(t) == find(term))
    }
}

/// The steps of a journal as proofs have them, at its positions.
pub fn steps(journal: &Journal, set: &RuleSet) -> Vec<Step> {
    let decompose = set.rules.iter().find(|r| r.is_decompose());
    let step = |s: &super::journal::Step| {
        let (rule, promise) = match s.reason {
            Reason::Rule(at) => (Some(&set.rules[at]), None),
            Reason::Decompose => (decompose, None),
            Reason::Number => (None, Some(NUMBER)),
        };
        Step {
            rule: rule.map_or_else(|| promise.unwrap_or("decompose").to_owned(), |r| r.name.clone()),
            promise: Promise {
                exactness: rule.map_or(Exactness::Exact, |r| r.exactness),
                allows: rule.map_or(vec![], |r| r.allows.clone()),
            },
            sides: if s.is_news { s.sides.to_vec() } else { vec![] },
            over: s.over.clone(),
        }
    };
    journal.steps.iter().map(step).collect()
}
