//! What there is to see of an e-graph and of the program that was chosen from it: what could be decided otherwise and what that would
//! cost, the steps that made e-nodes, and the classes that rules rewrote.

use super::decision::{Alternative, Alternatives, Decision};
use super::derive::Derivation;
use super::extract::{At, settle};
use super::lang::Term;
use super::search::{Search, Way};
use super::{bound, layouts};
use brolga_ir::{Graph, NodeError, Target};
use egg::{Id, Language};
use rustc_hash::{FxHashMap, FxHashSet};

/// What could be decided otherwise about a class.
#[derive(Clone, PartialEq, Debug)]
pub struct Open {
    /// The class.
    pub class: At,
    /// What would become of it.
    pub way: Way,
    /// The same as a decision; `None` for a value that has no name, as it came from no node.
    pub decision: Option<Decision>,
    /// The seconds that it adds, with what is around it settled anew; or why it cannot be taken.
    pub price: Result<f64, &'static str>,
}

impl Derivation {
    /// What could be decided otherwise about the values of the program, in the order of classes, for the graph that it came from.
    pub fn open(&self, g: &Graph) -> Vec<Open> {
        let (cs, names) = (&self.choices.classes, self.choices.names(g));
        let settling = settle(cs, &|_, _| true);
        let mut search = Search::new(cs, &settling, &self.plan, &self.choices.roots);
        let open = search.open_ways().into_iter().map(|(class, way)| Open {
            class,
            way,
            decision: names[class].clone().map(|value| Decision {
                value,
                to: self.choices.to(class, way),
            }),
            price: search.price(class, way),
        });
        open.collect()
    }

    /// What could be decided otherwise about how images lie in memory, the cheapest first.
    ///
    /// # Errors
    /// When the program has no kernels, which is a mistake of this compiler.
    pub fn layouts(&self, g: &Graph, target: &Target) -> Result<Vec<Alternative>, NodeError> {
        let cut = self.choices.emit(g, &self.plan).map_err(|message| NodeError {
            node: String::new(),
            message,
        })?;
        let mut open = Alternatives::default();
        layouts::choose(&cut, target, vec![], &mut vec![], Some(&mut open))?;
        Ok(open.sorted())
    }

    /// Seconds that any program of the e-graph costs at least; `None` where the e-graph is too large to tell.
    pub fn bound(&self) -> Option<f64> {
        let (cs, roots) = (&self.choices.classes, &self.choices.roots);
        bound::lower_bound(cs, &settle(cs, &|_, _| true), &self.plan, roots)
    }

    /// The step of the journal that made each e-node, by class; `None` for those of the graph, and for those that are no operators.
    pub fn makers(&self) -> Vec<Vec<Option<usize>>> {
        let (eg, cs) = (&self.choices.eg, &self.choices.classes);
        let mut first: FxHashMap<Term, Id> = FxHashMap::default();
        for (i, term) in eg.nodes().iter().enumerate() {
            if matches!(term, Term::Op(..)) {
                let term = term.clone().map_children(|c| eg.find(c));
                first.entry(term).or_insert_with(|| Id::from(i));
            }
        }
        let maker = |term: &Term| {
            let value = self.journal.first(*first.get(term)?)?;
            self.journal.made_by[value.0 as usize]
        };
        let class = |all: &Vec<super::extract::Choice>| all.iter().map(|k| maker(&k.term)).collect();
        cs.choices.iter().map(class).collect()
    }

    /// The classes that each rule rewrote, by the rule's name, in the order in which rules were applied first.
    pub fn rewritten(&self) -> Vec<(String, Vec<At>)> {
        let (eg, cs) = (&self.choices.eg, &self.choices.classes);
        let mut out: Vec<(String, Vec<At>)> = vec![];
        let mut places: FxHashMap<&str, usize> = FxHashMap::default();
        let mut seen: FxHashSet<(usize, At)> = FxHashSet::default();
        for (step, proved) in self.journal.steps.iter().zip(&self.steps) {
            let merged = step.merged.iter().filter_map(|&id| cs.at.get(&eg.find(id)));
            for &c in merged {
                let place = *places.entry(&proved.rule).or_insert_with(|| {
                    out.push((proved.rule.clone(), vec![]));
                    out.len() - 1
                });
                if seen.insert((place, c)) {
                    out[place].1.push(c);
                }
            }
        }
        out
    }
}
