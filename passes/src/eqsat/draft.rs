//! A plan that is being changed: the exact cost of its program, kept up to date, and the way back from every change.
//!
//! The cost of a program is the sum of its kernels: a class that is used twice is paid once where it is stored, and once
//! in every kernel that computes it. When a class is computed by another e-node, what becomes reachable by that is added,
//! what falls away is taken off, and only the kernels between are added up anew.
//!
//! Invariant: the chosen e-nodes, those of classes out of use included, form no cycle; `rank` is a topological order.

use super::extract::{self, At, Classes, MOST_OPERATORS, Mask, PER_CONSTANT, Settling};
use super::lang::Term;
use super::plan::{Plan, topological};
use crate::fusion::Form;
use brolga_ir::ops::Role;
use smallvec::SmallVec;

/// Kernels that a change may concern; beyond that it would cost as much to try as it can win.
const MANY: usize = 48;

/// Classes that are walked through to see whether an e-node would close a cycle.
const FAR: usize = 2000;

/// What a byte of a constant that is computed at compile time costs: of equal programs, the smaller artefact.
pub(super) const PER_CONSTANT_BYTE: f64 = 1e-15;

/// What counts as an improvement, in seconds.
pub const LEAST: f64 = 1e-9;

/// A program that is being changed, and what it costs.
pub struct Draft<'a> {
    pub(super) cs: &'a Classes,
    pub(super) settling: &'a Settling,
    /// The chosen e-node of every class that can be computed, in use or not; `NONE` where there is none.
    pub(super) choice: Vec<u32>,
    /// Which classes are stored, when they are in use.
    pub(super) stored: Vec<bool>,
    /// The classes in use that read a class.
    pub(super) users: Vec<SmallVec<[At; 4]>>,
    /// The classes that are results.
    pub(super) results: Vec<bool>,
    /// The seconds of the kernel that a class's value is stored by; infinite when it is not legal.
    seconds: Vec<f64>,
    /// The sum of those that are legal.
    pub(super) total: f64,
    /// The number of those that are not.
    pub(super) illegal: usize,
    /// What kernels cost before the last adding up made them illegal.
    pub(super) lost: f64,
    /// A topological order of the choices, operands first.
    pub(super) rank: Vec<u32>,
    /// What to undo, latest last.
    journal: Vec<Undo>,
    /// Classes that the current move concerns, and whether those that read them are concerned too.
    pub(super) touched: Vec<(At, bool)>,
    /// Whom a visit has seen.
    marks: Marks,
    /// What a kernel being added up has visited: the form, and whether it is rough.
    visited: Vec<(Form, bool)>,
}

pub(super) const NONE: u32 = u32::MAX;

/// A set of classes that is emptied at once.
struct Marks {
    stamp: u32,
    of: Vec<u32>,
}

impl Marks {
    fn clear(&mut self) {
        self.stamp += 1;
    }
    fn has(&self, c: At) -> bool {
        self.of[c] == self.stamp
    }
    fn insert(&mut self, c: At) -> bool {
        std::mem::replace(&mut self.of[c], self.stamp) != self.stamp
    }
}

enum Undo {
    Choice(At, u32),
    Stored(At),
    Pushed(At),
    Removed(At, usize, At),
    Seconds(At, f64),
}

/// Where to go back to.
#[derive(Clone, Copy)]
pub(super) struct Point {
    journal: usize,
    pub(super) total: f64,
    pub(super) illegal: usize,
}

impl<'a> Draft<'a> {
    /// The program of a plan; `settling` says how what comes into use is computed at first.
    pub fn new(cs: &'a Classes, settling: &'a Settling, plan: &Plan, roots: &[At]) -> Draft<'a> {
        let n = cs.ids.len();
        let settled = |c: At| settling.of[c].as_ref().map_or(NONE, |s| s.choice as u32);
        let mut s = Draft {
            cs,
            settling,
            choice: (0..n)
                .map(|c| plan.choice[c].map_or_else(|| settled(c), |k| k as u32))
                .collect(),
            stored: plan.stored.clone(),
            users: vec![SmallVec::new(); n],
            results: vec![false; n],
            seconds: vec![0.0; n],
            total: 0.0,
            illegal: 0,
            lost: 0.0,
            rank: vec![0; n],
            journal: vec![],
            touched: vec![],
            marks: Marks {
                stamp: 0,
                of: vec![0; n],
            },
            visited: vec![(Form::Tensor, false); n],
        };
        s.rerank();
        roots.iter().for_each(|&r| s.results[r] = true);
        for c in plan.order(cs, roots) {
            s.touched.push((c, false));
            for &o in s.operands(c) {
                s.users[o].push(c);
            }
        }
        s.add_up_to(usize::MAX);
        s.journal.clear();
        s
    }

    /// The cost of the program, in seconds; infinite when a kernel is not legal.
    pub fn cost(&self) -> f64 {
        if self.illegal > 0 { f64::INFINITY } else { self.total }
    }

    /// The seconds of the kernel that stores each class, by class; 0 where none does.
    pub fn kernel_seconds(&self) -> Vec<f64> {
        self.seconds.clone()
    }

    /// The program: the classes in use.
    pub fn plan(&self) -> Plan {
        let used = |c: At| self.is_live(c) && self.choice[c] != NONE;
        Plan {
            choice: (0..self.choice.len())
                .map(|c| used(c).then(|| self.choice[c] as usize))
                .collect(),
            stored: (0..self.choice.len()).map(|c| used(c) && self.stored[c]).collect(),
        }
    }

    pub(super) fn is_live(&self, c: At) -> bool {
        self.results[c] || !self.users[c].is_empty()
    }

    /// The operands of a class as it is chosen; none for a number, which is emitted as a constant.
    pub(super) fn operands(&self, c: At) -> &'a [At] {
        let cs: &'a Classes = self.cs;
        match self.choice[c] {
            NONE => &[],
            _ if cs.is_splat(c) => &[],
            k => &cs.choices[c][k as usize].distinct,
        }
    }

    /// True for a class that is computed by a kernel, its own or others'.
    pub(super) fn is_stream(&self, c: At) -> bool {
        self.choice[c] != NONE && !self.cs.is_splat(c) && self.cs.choices[c][self.choice[c] as usize].in_kernel()
    }

    /// True for a class whose memory is the caller's: a result, or what is stored for one.
    fn is_given(&self, c: At) -> bool {
        self.results[c] || self.users[c].iter().any(|&u| self.results[u] && self.is_store(u))
    }

    /// How many classes read a class, each as often as it is computed for each time that this one is.
    pub(super) fn readers(&self, c: At) -> f64 {
        let times = self.users[c].iter().map(|&u| self.cs.times[u]);
        times.sum::<f64>() / self.cs.times[c]
    }

    /// True for a class in use that stores another.
    pub(super) fn is_store(&self, c: At) -> bool {
        matches!(self.cs.choices[c][self.choice[c] as usize].term, Term::Store(_))
    }

    /// True for a class that may be another's memory under a new shape.
    fn is_reshape(&self, c: At) -> bool {
        let choice = &self.cs.choices[c][self.choice[c] as usize];
        choice.part.is_some_and(|p| matches!(p.role, Role::Reshape(_)))
    }

    // Moves, and their undoing.

    pub(super) fn point(&self) -> Point {
        Point {
            journal: self.journal.len(),
            total: self.total,
            illegal: self.illegal,
        }
    }

    pub(super) fn back(&mut self, to: Point) {
        while self.journal.len() > to.journal {
            match self.journal.pop().expect("it is longer than that") {
                Undo::Choice(c, k) => self.choice[c] = k,
                Undo::Stored(c) => self.stored[c] ^= true,
                Undo::Pushed(o) => {
                    self.users[o].pop();
                }
                Undo::Removed(o, at, user) => {
                    let last = self.users[o].len();
                    self.users[o].push(user);
                    self.users[o].swap(at, last);
                }
                Undo::Seconds(c, s) => self.seconds[c] = s,
            }
        }
        (self.total, self.illegal) = (to.total, to.illegal);
        self.touched.clear();
    }

    pub(super) fn set_stored(&mut self, c: At, stored: bool) {
        if self.stored[c] != stored {
            self.stored[c] = stored;
            self.journal.push(Undo::Stored(c));
            self.touched.push((c, true));
        }
    }

    pub(super) fn set_choice(&mut self, c: At, k: usize) {
        let live = self.is_live(c);
        let before = self.operands(c);
        self.journal.push(Undo::Choice(c, self.choice[c]));
        self.choice[c] = k as u32;
        if !live {
            return;
        }
        self.touched.push((c, false));
        self.read_operands(c);
        for &o in before {
            self.remove_user(o, c);
        }
    }

    /// Makes the operands of a class used by it, and stored where they have to be; what comes into use by that as well.
    fn read_operands(&mut self, c: At) {
        let mut todo: SmallVec<[At; 16]> = SmallVec::new();
        todo.push(c);
        while let Some(c) = todo.pop() {
            for &o in self.operands(c) {
                self.users[o].push(c);
                self.journal.push(Undo::Pushed(o));
                if self.users[o].len() == 1 && !self.results[o] {
                    self.touched.push((o, false));
                    self.set_stored(o, false);
                    todo.push(o);
                }
            }
            if self.choice[c] == NONE || self.cs.is_splat(c) {
                continue;
            }
            let choice = &self.cs.choices[c][self.choice[c] as usize];
            if matches!(choice.term, Term::Store(_)) {
                self.set_stored(choice.operands[0], true);
            } else if choice.in_kernel() {
                for (i, stored) in self.wishes(c, self.choice[c] as usize).into_iter().enumerate() {
                    if stored {
                        self.set_stored(choice.operands[i], true);
                    }
                }
            }
        }
    }

    /// Which operands the settling would store for an e-node.
    fn wishes(&self, c: At, k: usize) -> Mask {
        match &self.settling.of[c] {
            Some(s) if s.choice == k => s.store_operands.clone(),
            _ => extract::evaluate(self.cs, &self.settling.of, c, k).map_or_else(Mask::new, |s| s.store_operands),
        }
    }

    fn remove_user(&mut self, o: At, user: At) {
        let mut gone: SmallVec<[(At, At); 8]> = SmallVec::new();
        gone.push((o, user));
        while let Some((o, user)) = gone.pop() {
            let at = self.users[o]
                .iter()
                .rposition(|&u| u == user)
                .expect("it is among the users of its operand");
            self.users[o].swap_remove(at);
            self.journal.push(Undo::Removed(o, at, user));
            self.touched.push((o, false));
            if !self.is_live(o) {
                gone.extend(self.operands(o).iter().map(|&p| (p, o)));
            }
        }
    }

    // Costs.

    /// Adds up the kernels that the touched classes are part of; false when they are too many.
    pub(super) fn add_up(&mut self) -> bool {
        self.add_up_to(MANY)
    }

    fn add_up_to(&mut self, most: usize) -> bool {
        let mut todo = std::mem::take(&mut self.touched);
        let mut dirty: SmallVec<[At; 16]> = SmallVec::new();
        self.marks.clear();
        // A class is marked when its own kernel, or those of all that reads it, are on the list.
        let mut up: SmallVec<[At; 16]> = SmallVec::new();
        for (c, readers) in todo.drain(..) {
            if !self.stored[c] || !self.is_live(c) {
                self.set_seconds(c, 0.0);
            }
            if !self.is_live(c) {
                continue;
            }
            up.push(c);
            if readers && self.stored[c] {
                // What was inlined before: those that read it change too.
                up.extend(self.users[c].iter().copied());
            }
        }
        self.touched = todo;
        while let Some(c) = up.pop() {
            if !self.marks.insert(c) {
                continue;
            }
            if self.stored[c] || !self.is_stream(c) {
                dirty.push(c);
            }
            if !self.stored[c] {
                up.extend(self.users[c].iter().copied());
            }
            if dirty.len() > most {
                return false;
            }
        }
        dirty.sort_unstable();
        self.lost = 0.0;
        for &c in &dirty {
            let s = self.kernel_of(c) * self.cs.times[c];
            if s.is_infinite() && self.seconds[c].is_finite() {
                self.lost += self.seconds[c];
            }
            self.set_seconds(c, s);
        }
        true
    }

    fn set_seconds(&mut self, c: At, s: f64) {
        let old = self.seconds[c];
        if old != s {
            self.journal.push(Undo::Seconds(c, old));
            self.seconds[c] = s;
            let legal = |s: f64| if s.is_finite() { s } else { 0.0 };
            self.total += legal(s) - legal(old);
            self.illegal = self.illegal + s.is_infinite() as usize - old.is_infinite() as usize;
        }
    }

    /// What a class in use costs by itself: the kernel that stores it.
    fn kernel_of(&mut self, c: At) -> f64 {
        if self.cs.is_splat(c) || self.choice[c] == NONE {
            return 0.0;
        }
        let choice = &self.cs.choices[c][self.choice[c] as usize];
        let Some(part) = choice.part else { return 0.0 };
        if part.role.is_step() {
            return self.cs.model.kernel(choice.work.compute, choice.work.memory);
        }
        match self.roofline(c) {
            None => f64::INFINITY,
            Some(k) if k.form == Form::Tensor => 0.0,
            Some(_) if self.cs.constant[c] => PER_CONSTANT + self.cs.model.bytes(self.cs.ty(c)) * PER_CONSTANT_BYTE,
            Some(k) => self.cs.model.kernel(k.compute, k.memory),
        }
    }

    /// What the kernel does that stores a stream; `None` when it is not legal.
    fn roofline(&mut self, c: At) -> Option<Roofline> {
        let choice = &self.cs.choices[c][self.choice[c] as usize];
        self.marks.clear();
        let mut kernel = Tally::default();
        let (form, _) = self.stream(&mut kernel, c)?;
        let made = |i: usize| {
            let o = choice.operands[i];
            self.stored[o] && self.is_stream(o) && !self.is_reshape(o) && !self.is_given(o)
        };
        let (compute, untouched) = self.cs.spared(choice, made);
        let memory = kernel.memory.max(0.0) + self.cs.traffic[c] - untouched;
        Some(Roofline {
            stores: c,
            form,
            compute: kernel.compute - compute,
            memory: memory.max(0.0),
        })
    }

    /// The kernels that run with the model, but for those of steps.
    pub(super) fn kernels(&mut self) -> Vec<Roofline> {
        let stored = |s: &Self, c: At| s.is_live(c) && s.stored[c] && s.is_stream(c) && !s.cs.constant[c];
        let all: Vec<At> = (0..self.choice.len()).filter(|&c| stored(self, c)).collect();
        let kernels = all.into_iter().filter_map(|c| self.roofline(c));
        kernels.filter(|k| k.form != Form::Tensor).collect()
    }

    /// The form of a class that a kernel computes, and whether it is rough; `None` when the kernel is not legal.
    fn stream(&mut self, k: &mut Tally, c: At) -> Option<(Form, bool)> {
        k.operators += 1;
        if k.operators > MOST_OPERATORS {
            return None;
        }
        let choice = &self.cs.choices[c][self.choice[c] as usize];
        let mut forms: SmallVec<[Form; 4]> = SmallVec::new();
        let mut rough = false;
        let before = k.compute;
        for &o in &choice.operands {
            let (form, r) = self.operand(k, o)?;
            rough |= r;
            forms.push(form);
        }
        let form = choice.part?.form(c as u32, &forms).ok()?;
        let (compute, rough) = choice.work.arithmetic(rough);
        k.compute = before + choice.work.below(k.compute - before) + compute;
        k.memory += choice.work.memory;
        Some((form, rough))
    }

    fn operand(&mut self, k: &mut Tally, o: At) -> Option<(Form, bool)> {
        if self.marks.has(o) {
            return Some(self.visited[o]);
        }
        let found = if self.cs.is_splat(o) {
            (Form::Tensor, false)
        } else if self.stored[o] || !self.is_stream(o) {
            k.memory += self.cs.traffic[o];
            (Form::Tensor, false)
        } else {
            self.stream(k, o)?
        };
        self.marks.insert(o);
        self.visited[o] = found;
        Some(found)
    }

    // Cycles.

    /// True when a class could be computed by an e-node whose operands are these.
    pub(super) fn is_acyclic(&mut self, c: At, operands: &[At]) -> bool {
        let at = self.rank[c];
        self.marks.clear();
        let mut todo: SmallVec<[At; 32]> = operands.iter().copied().filter(|&o| self.rank[o] >= at).collect();
        let mut seen = 0;
        while let Some(o) = todo.pop() {
            if o == c {
                return false;
            }
            if !self.marks.insert(o) {
                continue;
            }
            seen += 1;
            if seen > FAR {
                return false;
            }
            todo.extend(self.operands(o).iter().copied().filter(|&p| self.rank[p] >= at));
        }
        true
    }

    /// Ranks all choices anew.
    pub(super) fn rerank(&mut self) {
        let order = topological(self.choice.len(), &self.settling.order, |c| self.operands(c));
        for (rank, c) in (0..).zip(order) {
            self.rank[c] = rank;
        }
    }

    /// True when fewer kernels are illegal than at a point, or the cost is lower.
    pub(super) fn is_better(&self, than: Point) -> bool {
        self.illegal < than.illegal || (self.illegal == than.illegal && self.total < than.total - LEAST)
    }

    /// The classes that were changed since a point, repetitions included.
    pub(super) fn changed(&self, since: Point) -> impl Iterator<Item = At> {
        self.journal[since.journal..].iter().map(|u| match *u {
            Undo::Choice(c, _) | Undo::Stored(c) | Undo::Seconds(c, _) => c,
            Undo::Pushed(o) | Undo::Removed(o, ..) => o,
        })
    }
}

/// What a kernel does.
pub(super) struct Roofline {
    /// The class that it stores.
    pub stores: At,
    /// Its form.
    pub form: Form,
    /// Seconds of arithmetic.
    pub compute: f64,
    /// Seconds of memory.
    pub memory: f64,
}

/// A kernel being added up.
#[derive(Default)]
struct Tally {
    operators: usize,
    compute: f64,
    memory: f64,
}
