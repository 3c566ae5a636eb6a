//! Local search over {materialise, inline}, with the exact cost of the kernels concerned.
//!
//! The greedy solution decides on paths; what is shared it only estimates. Here every stored stream is inlined into its
//! consumers on trial, and every stream that several kernels compute is stored on trial; what costs less is kept.
//!
//! Invariant: every kernel is legal before and after.

use super::cost;
use super::extract::{At, Classes, MOST_OPERATORS};
use super::lang::Term;
use super::plan::Plan;
use crate::fusion::{self, Class, Form};
use rustc_hash::{FxHashMap, FxHashSet};

/// How often all classes are tried: a second pass sees what the first made possible.
const PASSES: usize = 2;

/// Kernels above which a stream is left alone: a trial would cost as much as it can win.
const MANY: usize = 12;

/// What counts as an improvement, in seconds.
const LEAST: f64 = 1e-9;

/// Improves a solution.
pub fn improve(cs: &Classes, plan: &mut Plan, roots: &[At]) {
    let order = plan.order(cs, roots);
    let mut consumers: Vec<Vec<At>> = vec![vec![]; cs.ids.len()];
    let mut pinned = vec![false; cs.ids.len()];
    for &c in &order {
        let is_store = plan.choice[c].is_some_and(|k| matches!(cs.choices[c][k].term, Term::Store(_)));
        for &o in plan.operands(cs, c) {
            pinned[o] |= is_store;
            if !consumers[o].contains(&c) {
                consumers[o].push(c);
            }
        }
    }
    let mut search = Search { cs, plan, consumers };
    for _ in 0..PASSES {
        let mut changed = false;
        for &c in &order {
            if !pinned[c] && !cs.constant[c] && !cs.is_splat(c) && search.operator(c).is_some() {
                changed |= search.try_other(c);
            }
        }
        if !changed {
            return;
        }
    }
}

struct Search<'a> {
    cs: &'a Classes,
    plan: &'a mut Plan,
    consumers: Vec<Vec<At>>,
}

impl Search<'_> {
    fn operator(&self, c: At) -> Option<&brolga_ir::Op> {
        self.cs.choices[c][self.plan.choice[c]?]
            .op
            .as_ref()
            .filter(|op| fusion::class(op) != Class::Host)
    }

    /// Stores what is inlined, or the other way round, when that is cheaper.
    fn try_other(&mut self, c: At) -> bool {
        let Some(roots) = self.kernels_with(c) else {
            return false;
        };
        let stored = self.plan.stored[c];
        if roots.is_empty() || (!stored && roots.len() < 2) {
            return false;
        }
        let Some(before) = self.total(c, &roots) else {
            return false;
        };
        self.plan.stored[c] = !stored;
        match self.total(c, &roots) {
            Some(after) if after < before - LEAST => true,
            _ => {
                self.plan.stored[c] = stored;
                false
            }
        }
    }

    /// The stored classes whose kernels compute or read a class; `None` when there are too many, or one is no kernel.
    fn kernels_with(&self, c: At) -> Option<Vec<At>> {
        let mut roots: Vec<At> = vec![];
        let mut seen: FxHashSet<At> = FxHashSet::default();
        let mut todo = self.consumers[c].clone();
        while let Some(u) = todo.pop() {
            if !seen.insert(u) {
                continue;
            }
            self.operator(u)?;
            if self.plan.stored[u] {
                roots.push(u);
            } else {
                todo.extend_from_slice(&self.consumers[u]);
            }
            if seen.len() > MANY * 8 || roots.len() > MANY {
                return None;
            }
        }
        roots.sort_unstable();
        Some(roots)
    }

    /// The cost of the kernels of roots, and of a class's own when it is stored; `None` when one is not legal.
    fn total(&self, c: At, roots: &[At]) -> Option<f64> {
        let own = if self.plan.stored[c] { self.kernel(c)? } else { 0.0 };
        roots.iter().try_fold(own, |sum, &r| Some(sum + self.kernel(r)?))
    }

    /// The cost of the kernel that computes a class; `None` when it is not legal.
    fn kernel(&self, root: At) -> Option<f64> {
        let mut k = Kernel {
            search: self,
            seen: FxHashMap::default(),
            operators: 0,
            compute: 0.0,
            memory: 0.0,
        };
        let (form, _) = k.stream(root)?;
        if form == Form::Tensor {
            return Some(0.0);
        }
        let model = &self.cs.model;
        Some(model.kernel(k.compute, k.memory.max(0.0) + model.traffic(self.cs.ty(root))))
    }
}

/// A kernel being added up.
struct Kernel<'a> {
    search: &'a Search<'a>,
    /// The form of what was visited, and whether it is read in strides or behind a margin.
    seen: FxHashMap<At, (Form, bool)>,
    /// The operators visited.
    operators: usize,
    compute: f64,
    memory: f64,
}

impl Kernel<'_> {
    /// A class that the kernel computes.
    fn stream(&mut self, c: At) -> Option<(Form, bool)> {
        let (cs, plan) = (self.search.cs, &*self.search.plan);
        self.operators += 1;
        if self.operators > MOST_OPERATORS {
            return None;
        }
        let choice = &cs.choices[c][plan.choice[c]?];
        let op = choice.op.as_ref()?;
        let (mut forms, mut rough) = (vec![], op.name() == "pad" || choice.cost.1 > 0.0);
        for &o in &choice.operands {
            let (form, r) = self.operand(o)?;
            rough |= r;
            forms.push(form);
        }
        let form = fusion::form(op, &choice.types, &forms).ok()?;
        let windowed = fusion::class(op) == Class::Window || op.name() == "conv";
        self.compute += if rough && windowed {
            choice.cost.0 / cost::GUARDED
        } else {
            choice.cost.0
        };
        self.memory += choice.cost.1;
        Some((form, rough && !windowed))
    }

    fn operand(&mut self, o: At) -> Option<(Form, bool)> {
        if let Some(found) = self.seen.get(&o) {
            return Some(found.clone());
        }
        let (cs, plan) = (self.search.cs, &*self.search.plan);
        let found = if cs.is_splat(o) {
            (Form::Tensor, false)
        } else if plan.stored[o] || self.search.operator(o).is_none() {
            self.memory += cs.model.traffic(cs.ty(o));
            (Form::Tensor, false)
        } else {
            self.stream(o)?
        };
        self.seen.insert(o, found.clone());
        Some(found)
    }
}
