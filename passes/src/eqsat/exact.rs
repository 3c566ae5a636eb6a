//! The cheapest program of an e-graph, by branch and bound: for small graphs, and to tell how good the search is.
//!
//! Every class that results need gets an e-node and is stored or inlined, from the results down, a kernel at a time. What is decided costs
//! what its kernels cost; what it needs and is not decided costs at least what [`bound`](super::bound) says that it is worth, where what is
//! decided is paid for already. A partial program that costs as much as the best one known is left out.
//!
//! ```text
//! decided: y = (store (relu c)), c = conv(x, w)    open: x      at least the kernel of conv and relu, and what x is worth
//! ```
//!
//! It starts from a program that was found, and ends with one that is not dearer. How far it goes is limited by partial programs that are looked at, so
//! that the result is a function of the graph alone.

use super::bound::Shares;
use super::draft::{Draft, LEAST, PER_CONSTANT_BYTE};
use super::extract::{At, Classes, MOST_OPERATORS, PER_CONSTANT, Settling};
use super::lang::Term;
use super::plan::Plan;
use super::relax::{is_usable, operands};
use crate::fusion::Form;
use brolga_ir::ops::Role;

/// Partial programs that are looked at.
const PROGRAMS: usize = 400_000;

/// Steps of the relaxation that are looked at for all of them: about a minute.
const STEPS: usize = 4_000_000_000;

/// A program, and whether any other can be cheaper.
pub struct Exact {
    /// The cheapest program that was met.
    pub plan: Plan,
    /// Its seconds.
    pub seconds: f64,
    /// True when there is none that is cheaper by more than [`LEAST`].
    pub proven: bool,
    /// Partial programs that were looked at.
    pub looked_at: usize,
    /// Seconds that any program costs at least; `None` where the e-graph is too large to tell.
    pub bound: Option<f64>,
}

/// The cheapest program for some results, at most as dear as one that was found.
///
/// `programs` limits the partial programs that are looked at; 0 is as many as take about a minute.
pub fn exact(cs: &Classes, settling: &Settling, found: &Plan, roots: &[At], programs: usize) -> Exact {
    let seconds = Draft::new(cs, settling, found, roots).cost();
    let as_found = |bound: Option<f64>| Exact {
        plan: found.clone(),
        seconds,
        proven: bound.is_some_and(|b| b >= seconds - LEAST),
        looked_at: 0,
        bound,
    };
    let Some(mut shares) = Shares::new(cs, settling, found, roots) else {
        return as_found(None);
    };
    let bound = shares.improve(roots);
    let unsearched = as_found(Some(bound));
    if unsearched.proven {
        return unsearched;
    }
    let most = match programs {
        0 => PROGRAMS.min(STEPS / shares.relaxed.steps.len().max(1)),
        n => n,
    };
    let mut solver = Solver {
        cs,
        settling,
        roots,
        hint: found,
        decided: vec![None; cs.ids.len()],
        shares,
        best: seconds,
        plan: None,
        left: most,
    };
    solver.branch();
    let proven = solver.left > 0;
    Exact {
        proven,
        looked_at: most - solver.left,
        seconds: solver.best,
        bound: Some(if proven { bound.max(solver.best - LEAST) } else { bound }),
        plan: solver.plan.unwrap_or_else(|| found.clone()),
    }
}

/// How an open class is needed.
#[derive(Clone, Copy, PartialEq)]
enum Need {
    /// In memory.
    Stored,
    /// In a kernel that is not decided to its loads.
    Any,
}

/// The classes in use that are decided, operands first, and those that are not.
type Reached = (Vec<At>, Vec<(At, Need)>);

struct Solver<'a> {
    cs: &'a Classes,
    settling: &'a Settling,
    roots: &'a [At],
    /// What is tried first.
    hint: &'a Plan,
    /// The e-node of a class, and whether it is stored.
    decided: Vec<Option<(usize, bool)>>,
    shares: Shares,
    best: f64,
    plan: Option<Plan>,
    left: usize,
}

impl Solver<'_> {
    fn branch(&mut self) {
        if self.left == 0 {
            return;
        }
        self.left -= 1;
        let Some((order, open)) = self.reached() else { return };
        let Some(seconds) = self.kernels(&order) else { return };
        let enough = self.best - LEAST;
        if seconds >= enough {
            return;
        }
        // Where a kernel is begun it is ended first: its legality and its cost are known soon then.
        let next = open.iter().find(|o| o.1 == Need::Any).or(open.first());
        let Some(&(c, need)) = next else {
            (self.best, self.plan) = (seconds, Some(self.program(&order)));
            return;
        };
        if seconds + self.worth(&open) >= enough {
            return;
        }
        for k in self.tried(c) {
            let choice = &self.cs.choices[c][k];
            let stream = choice.in_kernel() && !self.cs.is_splat(c);
            let hinted = self.hint.choice[c] == Some(k) && self.hint.stored[c];
            let ways: &[bool] = match (stream, need, hinted) {
                (false, ..) => &[false],
                (true, Need::Stored, _) => &[true, false],
                (true, Need::Any, true) => &[true, false],
                (true, Need::Any, false) => &[false, true],
            };
            for &stored in ways {
                self.decided[c] = Some((k, stored));
                self.branch();
            }
        }
        self.decided[c] = None;
    }

    /// The e-nodes of a class, that of the program found first.
    fn tried(&self, c: At) -> Vec<usize> {
        if self.cs.is_splat(c) {
            return vec![0];
        }
        let usable = |k: &usize| is_usable(self.cs, self.settling, c, *k);
        let mut all: Vec<usize> = (0..self.cs.choices[c].len()).filter(usable).collect();
        all.sort_by_key(|&k| self.hint.choice[c] != Some(k));
        all
    }

    fn operands(&self, c: At) -> &[At] {
        self.decided[c].map_or(&[], |(k, _)| operands(self.cs, c, k))
    }

    /// True for a class that a kernel computes: the one that stores it, or those that read it.
    fn is_stream(&self, c: At) -> bool {
        let in_kernel = |(k, _): (usize, bool)| self.cs.choices[c][k].in_kernel();
        !self.cs.is_splat(c) && self.decided[c].is_some_and(in_kernel)
    }

    /// The classes in use that are decided, operands first, and those that are not, with how they are needed; `None` where one depends on itself.
    fn reached(&self) -> Option<Reached> {
        let (mut state, mut order) = (vec![0u8; self.decided.len()], vec![]);
        let mut open: Vec<(At, Need)> = vec![];
        let mut need = |c: At, how: Need| match open.iter_mut().find(|o| o.0 == c) {
            Some(o) if how == Need::Stored => o.1 = how,
            Some(_) => {}
            None => open.push((c, how)),
        };
        let mut stack: Vec<(At, usize)> = self.roots.iter().rev().map(|&r| (r, 0)).collect();
        self.roots
            .iter()
            .filter(|&&r| self.decided[r].is_none())
            .for_each(|&r| need(r, Need::Stored));
        while let Some((c, i)) = stack.pop() {
            if i == 0 {
                match state[c] {
                    0 => state[c] = 1,
                    1 => return None,
                    _ => continue,
                }
            }
            match self.operands(c).get(i) {
                Some(&o) => {
                    if self.decided[o].is_none() {
                        need(o, if self.is_stream(c) { Need::Any } else { Need::Stored });
                    }
                    stack.push((c, i + 1));
                    stack.push((o, 0));
                }
                None => {
                    state[c] = 2;
                    if self.decided[c].is_some() {
                        order.push(c);
                    }
                }
            }
        }
        Some((order, open))
    }

    /// What open classes cost at least, each group of them once, where what is decided is paid for.
    fn worth(&mut self, open: &[(At, Need)]) -> f64 {
        let r = &self.shares.relaxed;
        let mut asked = vec![false; r.groups.len()];
        for (c, _) in open {
            asked[r.group[*c] as usize] = true;
        }
        // What an open class pays for a group is none of the other's; of the rest, shares of who is decided go to who is not.
        let mut shares = vec![0.0; r.edges.len()];
        for (g, edges) in r.edges_of.iter().enumerate() {
            let is_open = |&&e: &&u32| self.decided.get(r.edges[e as usize].payer).is_some_and(Option::is_none);
            let payers = || edges.iter().filter(is_open).map(|&e| e as usize);
            let (sum, count) = payers().fold((0.0, 0), |(s, n), e| (s + self.shares.of[e], n + 1));
            for e in payers().filter(|_| !asked[g]) {
                shares[e] = if sum > 1e-6 {
                    self.shares.of[e] / sum
                } else {
                    1.0 / count as f64
                };
            }
        }
        let decided = std::mem::take(&mut self.decided);
        self.shares.evaluate(&shares, &|c| decided[c].is_some());
        self.decided = decided;
        let r = &self.shares.relaxed;
        let mut dearest = vec![0.0f64; r.groups.len()];
        for &(c, need) in open {
            let state = if need == Need::Stored { r.tensor[c] } else { r.any[c] };
            let of = &mut dearest[r.group[c] as usize];
            *of = of.max(self.shares.worth[state as usize]);
        }
        dearest.iter().sum()
    }

    /// The seconds of kernels as far as they are decided; `None` when one is not legal.
    fn kernels(&self, order: &[At]) -> Option<f64> {
        let mut seconds = 0.0;
        for &c in order {
            let (k, stored) = self.decided[c]?;
            let choice = &self.cs.choices[c][k];
            if self.cs.is_splat(c) {
                continue;
            }
            if let Term::Store([_]) = choice.term {
                let o = choice.operands[0];
                if self.is_stream(o) && !self.decided[o].is_some_and(|(_, stored)| stored) {
                    return None;
                }
            }
            if choice.part.is_some_and(|p| p.role.is_step()) {
                seconds += self.cs.times[c] * self.cs.model.kernel(choice.work.compute, choice.work.memory);
            } else if stored {
                seconds += self.cs.times[c] * self.kernel(c, k)?;
            }
        }
        Some(seconds)
    }

    fn kernel(&self, root: At, k: usize) -> Option<f64> {
        let mut kernel = Kernel::default();
        let (form, _) = self.stream(&mut kernel, root)?;
        let choice = &self.cs.choices[root][k];
        let reshape = choice.part.is_some_and(|p| matches!(p.role, Role::Reshape(_)));
        if form == Some(Form::Tensor) || (form.is_none() && reshape) {
            return Some(0.0);
        }
        let model = &self.cs.model;
        if self.cs.constant[root] {
            return Some(PER_CONSTANT + model.bytes(self.cs.ty(root)) * PER_CONSTANT_BYTE);
        }
        let (spared, untouched) = self.cs.spared(choice, |i| self.may_be_made(choice.operands[i]));
        let memory = kernel.memory.max(0.0) + self.cs.traffic[root] - untouched;
        Some(model.kernel(kernel.compute - spared, memory.max(0.0)))
    }

    /// True when another kernel may compute an operand in its place: what is open may turn out so.
    fn may_be_made(&self, o: At) -> bool {
        let stored = |(k, stored): (usize, bool)| {
            let choice = &self.cs.choices[o][k];
            let reshape = choice.part.is_some_and(|p| matches!(p.role, Role::Reshape(_)));
            stored && choice.in_kernel() && !reshape
        };
        let given = |&r: &At| {
            let stores = |(k, _): (usize, bool)| {
                let choice = &self.cs.choices[r][k];
                matches!(choice.term, Term::Store(_)) && choice.operands[0] == o
            };
            r == o || self.decided[r].is_some_and(stores)
        };
        self.decided[o].is_none_or(stored) && !self.roots.iter().any(given)
    }

    /// The form of a class that a kernel computes, where it is decided, and whether it is rough; `None` when the kernel is not legal.
    fn stream(&self, kernel: &mut Kernel, c: At) -> Option<(Option<Form>, bool)> {
        kernel.operators += 1;
        if kernel.operators > MOST_OPERATORS {
            return None;
        }
        let (k, _) = self.decided[c]?;
        let choice = &self.cs.choices[c][k];
        let (mut forms, mut rough, before) = (vec![], false, kernel.compute);
        for &o in &choice.operands {
            let (form, r) = self.operand(kernel, o)?;
            rough |= r;
            forms.push(form);
        }
        let known: Option<Vec<Form>> = forms.into_iter().collect();
        let form = match known {
            Some(forms) => Some(choice.part?.form(c as u32, &forms).ok()?),
            None => None,
        };
        let (compute, rough) = choice.work.arithmetic(rough);
        kernel.compute = before + choice.work.below(kernel.compute - before) + compute;
        kernel.memory += choice.work.memory;
        Some((form, rough))
    }

    fn operand(&self, kernel: &mut Kernel, o: At) -> Option<(Option<Form>, bool)> {
        if let Some(seen) = kernel.seen.iter().find(|s| s.0 == o) {
            return Some((seen.1, seen.2));
        }
        let found = match self.decided[o] {
            _ if self.cs.is_splat(o) => (Some(Form::Tensor), false),
            None => (None, false),
            Some((_, stored)) if stored || !self.is_stream(o) => {
                kernel.memory += self.cs.traffic[o];
                (Some(Form::Tensor), false)
            }
            Some(_) => self.stream(kernel, o)?,
        };
        kernel.seen.push((o, found.0, found.1));
        Some(found)
    }

    /// The program of what is decided.
    fn program(&self, order: &[At]) -> Plan {
        let n = self.decided.len();
        let mut plan = Plan {
            choice: vec![None; n],
            stored: vec![false; n],
        };
        for &c in order {
            let (k, stored) = self.decided[c].expect("it is decided");
            (plan.choice[c], plan.stored[c]) = (Some(k), stored);
        }
        plan
    }
}

/// A kernel being added up.
#[derive(Default)]
struct Kernel {
    seen: Vec<(At, Option<Form>, bool)>,
    operators: usize,
    compute: f64,
    memory: f64,
}
