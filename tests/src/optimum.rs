//! The exact optimum of an extraction, by branch and bound: what the local search is held against.
//!
//! Every class that the results need gets an e-node and is stored or inlined; a partial choice costs at least what its
//! kernels cost as far as they are known. It shares nothing with the search but the cost model and fusion's rules.

use brolga_ir::ops::Role;
use brolga_passes::eqsat::extract::{At, Classes, PER_CONSTANT, Settling};
use brolga_passes::eqsat::lang::Term;
use brolga_passes::fusion::Form;
use std::collections::BTreeMap;

/// What branch and bound found.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Outcome {
    /// A program that is cheaper than the bound given, and what it costs.
    Cheaper(f64),
    /// There is none.
    Optimal,
    /// The steps were not enough to tell.
    Unknown,
}

/// The cheapest program, if there is one that costs less than a bound in seconds, within a number of steps.
pub fn cheaper(cs: &Classes, settling: &Settling, roots: &[At], bound: f64, steps: usize) -> Outcome {
    let mut s = Solver {
        cs,
        settling,
        roots,
        decided: vec![None; cs.ids.len()],
        best: bound,
        found: false,
        steps,
    };
    s.branch();
    match (s.steps, s.found) {
        (_, true) => Outcome::Cheaper(s.best),
        (0, false) => Outcome::Unknown,
        (_, false) => Outcome::Optimal,
    }
}

/// The least that a partial choice costs, and a class that is still open.
enum Bound {
    /// No program can be made of it.
    Impossible,
    /// Its seconds.
    AtLeast(f64, Option<At>),
}

struct Solver<'a> {
    cs: &'a Classes,
    settling: &'a Settling,
    roots: &'a [At],
    /// The e-node of a class, and whether it is stored.
    decided: Vec<Option<(usize, bool)>>,
    best: f64,
    found: bool,
    steps: usize,
}

impl Solver<'_> {
    fn branch(&mut self) {
        if self.steps == 0 {
            return;
        }
        self.steps -= 1;
        let (seconds, open) = match self.bound() {
            Bound::Impossible => return,
            Bound::AtLeast(seconds, open) => (seconds, open),
        };
        if seconds >= self.best {
            return;
        }
        let Some(c) = open else {
            (self.best, self.found) = (seconds, true);
            return;
        };
        for k in 0..self.cs.choices[c].len() {
            let choice = &self.cs.choices[c][k];
            if self.cs.constant[c] && self.settling.of[c].as_ref().is_none_or(|s| s.choice != k) {
                continue;
            }
            if choice.part.is_some_and(|p| matches!(p.role, Role::Composite)) {
                continue;
            }
            for stored in [false, true] {
                if stored && (!choice.in_kernel() || self.cs.is_splat(c)) {
                    continue;
                }
                self.decided[c] = Some((k, stored));
                self.branch();
            }
        }
        self.decided[c] = None;
    }

    fn operands(&self, c: At) -> &[At] {
        match self.decided[c] {
            Some((k, _)) if !self.cs.is_splat(c) => &self.cs.choices[c][k].operands,
            _ => &[],
        }
    }

    fn bound(&self) -> Bound {
        // The classes in use, operands first.
        let (mut state, mut order, mut open) = (vec![0u8; self.decided.len()], vec![], None);
        let mut stack: Vec<(At, usize)> = self.roots.iter().map(|&r| (r, 0)).collect();
        while let Some((c, i)) = stack.pop() {
            if i == 0 {
                match state[c] {
                    0 => state[c] = 1,
                    // It is being visited: it would depend on itself.
                    1 => return Bound::Impossible,
                    _ => continue,
                }
            }
            match self.operands(c).get(i) {
                Some(&o) => {
                    stack.push((c, i + 1));
                    stack.push((o, 0));
                }
                None => {
                    state[c] = 2;
                    order.push(c);
                    if self.decided[c].is_none() {
                        open = Some(c);
                    }
                }
            }
        }
        let mut seconds = 0.0;
        for &c in &order {
            let Some((k, stored)) = self.decided[c] else { continue };
            let choice = &self.cs.choices[c][k];
            if let (Term::Store(_), Some((k, false))) = (
                &choice.term,
                self.decided[choice.operands.first().copied().unwrap_or(c)],
            ) {
                let o = choice.operands[0];
                if self.cs.choices[o][k].in_kernel() && !self.cs.is_splat(o) {
                    return Bound::Impossible;
                }
            }
            if self.cs.is_splat(c) {
                continue;
            }
            if choice.part.is_some_and(|p| p.role.is_step()) {
                seconds += self.cs.times[c] * self.cs.model.per_kernel();
            }
            if stored {
                match self.kernel(c) {
                    None => return Bound::Impossible,
                    Some(s) => seconds += self.cs.times[c] * s,
                }
            }
        }
        Bound::AtLeast(seconds, open)
    }

    /// The seconds of a class's kernel as far as it is decided; `None` when it is not legal.
    fn kernel(&self, root: At) -> Option<f64> {
        let mut k = Kernel::default();
        let (form, _) = self.stream(&mut k, root)?;
        if form == Some(Form::Tensor) {
            return Some(0.0);
        }
        if self.cs.constant[root] {
            return Some(PER_CONSTANT);
        }
        if form.is_none() && k.open_reshape {
            return Some(0.0);
        }
        let model = &self.cs.model;
        let (e, _) = self.decided[root].expect("only decided classes are visited");
        let choice = &self.cs.choices[root][e];
        // What is open may turn out to be computed in its place.
        let (spared, untouched) = self.cs.spared(choice, |i| {
            let o = choice.operands[i];
            let made = |(e, stored): (usize, bool)| {
                let choice = &self.cs.choices[o][e];
                let reshape = choice.part.is_some_and(|p| matches!(p.role, Role::Reshape(_)));
                stored && choice.in_kernel() && !reshape
            };
            let given = |&r: &At| {
                let stores = |(e, _): (usize, bool)| {
                    let choice = &self.cs.choices[r][e];
                    matches!(choice.term, Term::Store(_)) && choice.operands[0] == o
                };
                r == o || self.decided[r].is_some_and(stores)
            };
            !self.roots.iter().any(given) && self.decided[o].is_none_or(made)
        });
        let memory = k.memory.max(0.0) + model.traffic_of(model.bytes(self.cs.ty(root))) - untouched;
        Some(model.kernel(k.compute - spared, memory.max(0.0)))
    }

    /// The form, if it is known, and whether it is rough.
    fn stream(&self, k: &mut Kernel, c: At) -> Option<(Option<Form>, bool)> {
        let (e, _) = self.decided[c].expect("only decided classes are visited");
        let choice = &self.cs.choices[c][e];
        let part = choice.part?;
        let (mut forms, mut rough, before) = (vec![], false, k.compute);
        for &o in &choice.operands {
            let (form, r) = self.operand(k, o)?;
            rough |= r;
            forms.push(form);
        }
        let known: Option<Vec<Form>> = forms.into_iter().collect();
        k.open_reshape |= known.is_none() && matches!(part.role, Role::Reshape(_));
        let form = match known {
            Some(forms) => Some(part.form(c as u32, &forms).ok()?),
            None => None,
        };
        let (compute, rough) = choice.work.arithmetic(rough);
        k.compute = before + choice.work.below(k.compute - before) + compute;
        // A gather takes back what it does not read; as long as that is open, it may be all.
        k.memory += choice.work.memory;
        Some((form, rough))
    }

    fn operand(&self, k: &mut Kernel, o: At) -> Option<(Option<Form>, bool)> {
        if let Some(found) = k.seen.get(&o) {
            return Some(*found);
        }
        let found = match self.decided[o] {
            _ if self.cs.is_splat(o) => (Some(Form::Tensor), false),
            None => (None, false),
            Some((e, stored)) if stored || !self.cs.choices[o][e].in_kernel() => {
                k.memory += self.cs.model.traffic(self.cs.ty(o));
                (Some(Form::Tensor), false)
            }
            Some(_) => self.stream(k, o)?,
        };
        k.seen.insert(o, found);
        Some(found)
    }
}

#[derive(Default)]
struct Kernel {
    seen: BTreeMap<At, (Option<Form>, bool)>,
    compute: f64,
    memory: f64,
    /// True when a reshape's operand is open: the whole may turn out to be free.
    open_reshape: bool,
}
