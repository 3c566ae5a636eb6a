//! Local search for a cheaper program, with the exact cost of all that is computed.
//!
//! A move changes the e-node that computes a class, or stores what was inlined, or the other way round. What costs less
//! is kept, what does not is undone ([`Draft`]).
//!
//! ```text
//! y = conv(x, w), z = conv(x, w/6)   -->   y = conv(x, w), z = y/6      the convolution is paid already
//! ```
//!
//! Four kinds of moves: **store** or inline one class; **shift** a store to a class nearby; **take** another e-node for a
//! class; **open** a class that nothing uses, by every class that could use it at once, since each alone may not be worth
//! the price (facility location's moves: Arya et al., "Local search heuristics for k-median and facility location
//! problems", STOC 2001).
//!
//! What is decided from outside ([`Search::decide`]) is kept whatever it costs; what is around it is settled anew.
//!
//! Invariant: by itself the search never makes the cost rise, and no kernel that was legal becomes illegal.

pub use super::draft::LEAST;
use super::draft::{Draft, NONE, Point};
use super::extract::{At, Classes, Settling};
use super::lang::Term;
use super::plan::Plan;
use brolga_ir::ops::Role;
use smallvec::SmallVec;

/// How often all classes are tried: a second pass sees what the first made possible.
const PASSES: usize = 3;

/// Classes around one that are tried in its place.
const NEAR: usize = 16;

/// Classes of which it is believed that storing or inlining them makes a dear move a cheap one.
const FEW: usize = 3;

/// What can be decided about a class.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Way {
    /// It is stored, or it is not.
    Stored(bool),
    /// It is computed by this e-node.
    By(usize),
}

/// A program being improved.
pub struct Search<'a> {
    draft: Draft<'a>,
    /// Classes around which something changed since they were last tried.
    active: Vec<bool>,
    /// Classes that were decided about.
    fixed: Vec<bool>,
}

impl<'a> Search<'a> {
    /// A search that starts at a plan; `settling` says how what comes into use is computed at first.
    pub fn new(cs: &'a Classes, settling: &'a Settling, plan: &Plan, roots: &[At]) -> Search<'a> {
        Search {
            draft: Draft::new(cs, settling, plan, roots),
            active: vec![true; cs.ids.len()],
            fixed: vec![false; cs.ids.len()],
        }
    }

    /// The cost of the program, in seconds; infinite when a kernel is not legal.
    pub fn cost(&self) -> f64 {
        self.draft.cost()
    }

    /// The seconds of the kernel that stores each class, and of each host operator; 0 where there is none.
    pub fn kernel_seconds(&self) -> Vec<f64> {
        self.draft.kernel_seconds()
    }

    /// The program: the classes in use.
    pub fn plan(&self) -> Plan {
        self.draft.plan()
    }

    /// The e-node that computes a class.
    pub fn chosen(&self, c: At) -> Option<usize> {
        (self.draft.choice[c] != NONE).then_some(self.draft.choice[c] as usize)
    }

    /// Improves the program.
    pub fn run(&mut self) {
        // What several classes would share is easiest seen before single moves have led them apart.
        self.open_all(false);
        for pass in 0..PASSES {
            let before = self.draft.total;
            let mut order: Vec<At> = (0..self.draft.choice.len())
                .filter(|&c| self.active[c] && self.has_choice(c))
                .collect();
            order.sort_by_key(|&c| std::cmp::Reverse(self.draft.rank[c]));
            for &c in &order {
                self.active[c] = false;
                if self.is_open(c) && !self.try_stored(c) && self.draft.stored[c] {
                    self.try_shift(c);
                }
                for k in 0..self.draft.cs.choices[c].len() {
                    if self.has_choice(c) {
                        self.try_choice(c, k);
                    }
                }
            }
            self.open_all(pass > 0);
            if self.draft.total > before - LEAST {
                return;
            }
        }
    }

    /// True for a class in use that could be computed in several ways, or not be stored.
    fn has_choice(&self, c: At) -> bool {
        let several = || self.draft.cs.choices[c].len() > 1 && !self.draft.cs.is_splat(c);
        self.is_open(c)
            || (self.draft.is_live(c) && !self.draft.cs.constant[c] && self.draft.choice[c] != NONE && several())
    }

    /// True for a stream in use that depends on an input.
    fn is_open(&self, c: At) -> bool {
        self.draft.is_live(c) && !self.draft.cs.constant[c] && self.draft.is_stream(c)
    }

    /// Keeps what was done since a point when it is worth it.
    fn keep_if_better(&mut self, since: Point) -> bool {
        if self.draft.is_better(since) {
            self.wake(since);
            return true;
        }
        self.draft.back(since);
        false
    }

    /// True for a class whose value has to be in memory.
    fn is_pinned(&self, c: At) -> bool {
        self.draft.results[c] || self.draft.users[c].iter().any(|&u| self.draft.is_store(u))
    }

    /// Marks the classes around what was changed since a point as worth another try.
    fn wake(&mut self, since: Point) {
        for c in self.draft.changed(since) {
            self.active[c] = true;
            for &o in self.draft.operands(c) {
                self.active[o] = true;
            }
            for &u in &self.draft.users[c] {
                self.active[u] = true;
            }
        }
    }

    /// Stores what is inlined, or the other way round, when that is cheaper.
    fn try_stored(&mut self, c: At) -> bool {
        if self.draft.stored[c] && self.is_pinned(c) {
            return false;
        }
        let point = self.draft.point();
        self.draft.set_stored(c, !self.draft.stored[c]);
        if !self.draft.add_up() {
            self.draft.back(point);
            return false;
        }
        self.keep_if_better(point)
    }

    /// Stores something near a stored class in its place, where it cannot just be inlined.
    fn try_shift(&mut self, c: At) -> bool {
        if self.is_pinned(c) {
            return false;
        }
        // What is inlined into it, and what it would be inlined into.
        let mut near: SmallVec<[At; 16]> = self.draft.users[c].iter().copied().collect();
        near.retain(|u| !self.draft.stored[*u] && self.is_open(*u));
        let mut next = near.len();
        near.extend(self.draft.operands(c).iter().copied());
        while next < near.len() {
            let o = near[next];
            let inlined = self.is_open(o) && !self.draft.stored[o] && !near[..next].contains(&o);
            if !inlined || near.len() > NEAR {
                near.swap_remove(next);
                continue;
            }
            next += 1;
            near.extend(self.draft.operands(o).iter().copied());
        }
        if near.is_empty() {
            return false;
        }
        let point = self.draft.point();
        self.draft.set_stored(c, false);
        if !self.draft.add_up() || self.draft.illegal == point.illegal {
            self.draft.back(point);
            return false;
        }
        let inlined = self.draft.point();
        for &o in &near {
            self.draft.set_stored(o, true);
            if self.draft.add_up() && self.draft.is_better(point) {
                self.wake(point);
                return true;
            }
            self.draft.back(inlined);
        }
        self.draft.back(point);
        false
    }

    /// True when an e-node is one that a class could be computed by, and is not.
    fn is_alternative(&self, c: At, k: usize) -> bool {
        let choice = &self.draft.cs.choices[c][k];
        let known = |o: &At| self.draft.choice[*o] != NONE;
        let computes = match choice.part {
            Some(p) => !p.role.is_step() && !matches!(p.role, Role::Composite),
            None => matches!(choice.term, Term::Store(_)),
        };
        self.draft.choice[c] != k as u32 && computes && choice.distinct.iter().all(known)
    }

    /// Computes a class by another e-node when that is cheaper, with what is stored around it decided anew.
    fn try_choice(&mut self, c: At, k: usize) -> bool {
        if !self.is_alternative(c, k) {
            return false;
        }
        let distinct = &self.draft.cs.choices[c][k].distinct;
        if !self.draft.is_acyclic(c, distinct) {
            return false;
        }
        let point = self.draft.point();
        self.draft.set_choice(c, k);
        if !self.settle_around(point, &[c]) {
            self.draft.back(point);
            return false;
        }
        if !self.keep_if_better(point) {
            return false;
        }
        let at = self.draft.rank[c];
        if distinct.iter().any(|&o| self.draft.rank[o] >= at) {
            self.draft.rerank();
        }
        true
    }

    /// Adds up after a change of some classes, and stores or inlines what is around them where that is cheaper; false
    /// when it leads nowhere.
    fn settle_around(&mut self, since: Point, changed: &[At]) -> bool {
        let around = self.neighbours(changed);
        if !self.draft.add_up() {
            return false;
        }
        if self.draft.is_better(since) {
            return true;
        }
        let lost = self.draft.lost;
        let around = self.with_operands(around);
        // With what is not legal yet at the price it had, and what storing or inlining a few of these can win, it has to be
        // cheaper.
        let mut most: SmallVec<[f64; 32]> = around.iter().map(|&c| self.most_won(c)).collect();
        most.sort_by(|a, b| b.total_cmp(a));
        if self.draft.total + lost - most.iter().take(FEW).sum::<f64>() > since.total {
            return false;
        }
        self.settle(since, &around);
        true
    }

    /// Classes that were changed, some that read them, and what else the move has touched, before it is added up.
    fn neighbours(&self, changed: &[At]) -> SmallVec<[At; 16]> {
        let mut around: SmallVec<[At; 16]> = changed.iter().copied().collect();
        for &c in changed {
            for &u in self.draft.users[c].iter().take(NEAR / 2) {
                if !around.contains(&u) {
                    around.push(u);
                }
            }
        }
        for &(t, _) in &self.draft.touched {
            if self.draft.is_live(t) && !around.contains(&t) && around.len() < NEAR {
                around.push(t);
            }
        }
        around
    }

    /// The same with some of the streams that they read.
    fn with_operands(&self, mut around: SmallVec<[At; 16]>) -> SmallVec<[At; 16]> {
        for i in 0..around.len() {
            for &o in self.draft.operands(around[i]) {
                if around.len() < 2 * NEAR && self.is_open(o) && !around.contains(&o) {
                    around.push(o);
                }
            }
        }
        around
    }

    /// Stores or inlines some classes where that is cheaper than it is.
    fn settle(&mut self, since: Point, around: &[At]) {
        for _ in 0..PASSES {
            let mut changed = false;
            for &c in around {
                // To store what one kernel computes wins nothing where all kernels are legal.
                let idle = !self.draft.stored[c] && self.draft.readers(c) < 2.0 && self.draft.illegal == since.illegal;
                changed |= !idle && self.is_open(c) && !self.fixed[c] && self.try_stored(c);
            }
            if !changed {
                break;
            }
        }
    }

    /// What can be decided about classes in use otherwise than it is.
    pub fn open_ways(&self) -> Vec<(At, Way)> {
        let mut out = vec![];
        for c in 0..self.draft.choice.len() {
            if self.is_open(c) && !(self.draft.stored[c] && self.is_pinned(c)) {
                out.push((c, Way::Stored(!self.draft.stored[c])));
            }
            if self.has_choice(c) {
                let others = (0..self.draft.cs.choices[c].len()).filter(|&k| self.is_alternative(c, k));
                out.extend(others.map(|k| (c, Way::By(k))));
            }
        }
        out
    }

    /// Decides about a class, and settles what is around it; the seconds that this adds. It is kept whatever it costs.
    ///
    /// # Errors
    /// Why that cannot be; nothing changes then.
    pub fn decide(&mut self, c: At, way: Way) -> Result<f64, &'static str> {
        let before = self.draft.total;
        self.turn(c, way)?;
        self.fixed[c] = true;
        if let Way::By(_) = way {
            self.draft.rerank();
        }
        Ok(self.draft.total - before)
    }

    /// The seconds that a decision would add.
    ///
    /// # Errors
    /// Why it cannot be taken.
    pub fn price(&mut self, c: At, way: Way) -> Result<f64, &'static str> {
        let point = self.draft.point();
        let seconds = self.turn(c, way).map(|()| self.draft.total - point.total);
        self.draft.back(point);
        seconds
    }

    /// Changes a class that is in use, and stores or inlines what is around it so that every kernel is legal, and cheap.
    fn turn(&mut self, c: At, way: Way) -> Result<(), &'static str> {
        if !self.draft.is_live(c) || self.draft.cs.constant[c] {
            return Err("no run computes it");
        }
        let point = self.draft.point();
        match way {
            Way::Stored(stored) => {
                if self.draft.stored[c] == stored {
                    return Err("it is so already");
                }
                if !self.is_open(c) || (!stored && self.is_pinned(c)) {
                    return Err("it has to be in memory");
                }
                self.draft.set_stored(c, stored);
            }
            Way::By(k) => {
                if self.draft.choice[c] == k as u32 {
                    return Err("it is so already");
                }
                let acyclic = |s: &mut Self| {
                    let cs: &Classes = s.draft.cs;
                    s.draft.is_acyclic(c, &cs.choices[c][k].distinct)
                };
                if !self.is_alternative(c, k) || !acyclic(self) {
                    return Err("it cannot be computed by that here");
                }
                self.draft.set_choice(c, k);
            }
        }
        let around = self.neighbours(&[c]);
        let fixed = std::mem::replace(&mut self.fixed[c], true);
        let counted = self.draft.add_up();
        if counted {
            self.settle(point, &self.with_operands(around));
        }
        self.fixed[c] = fixed;
        if counted && self.draft.illegal <= point.illegal {
            return Ok(());
        }
        self.draft.back(point);
        Err(if counted {
            "it would leave an operator without a kernel"
        } else {
            "too many kernels read it"
        })
    }

    /// The most that a class's being stored or not can change for the better.
    fn most_won(&self, c: At) -> f64 {
        let readers = self.draft.readers(c);
        let once = match (self.is_open(c), self.draft.stored[c]) {
            (false, _) => 0.0,
            (true, true) => self.draft.cs.model.per_kernel() + self.draft.cs.traffic[c] * (1.0 + readers),
            // What each of its readers' kernels computes.
            (true, false) if readers > 1.0 => {
                let settled = self.draft.settling.of[c].as_ref();
                settled.map_or(0.0, |s| s.compute.max(s.memory)) * readers
            }
            (true, false) => 0.0,
        };
        once * self.draft.cs.times[c]
    }

    /// Opens classes that nothing uses; only those near a change, after the first time.
    fn open_all(&mut self, near_change: bool) {
        // The classes in use, and which of their e-nodes, that would read a class.
        let mut readers: Vec<SmallVec<[(At, u32); 2]>> = vec![SmallVec::new(); self.draft.choice.len()];
        for c in 0..self.draft.choice.len() {
            if !self.is_open(c) {
                continue;
            }
            for k in 0..self.draft.cs.choices[c].len() {
                if self.is_alternative(c, k) {
                    for &o in &self.draft.cs.choices[c][k].distinct {
                        if !self.draft.is_live(o) && !self.draft.cs.constant[o] {
                            readers[o].push((c, k as u32));
                        }
                    }
                }
            }
        }
        for (z, readers) in readers.iter().enumerate() {
            let worth = |r: &(At, u32)| !near_change || self.active[r.0];
            if !self.draft.is_live(z) && readers.iter().any(|r| r.0 != readers[0].0) && readers.iter().any(worth) {
                self.try_open(readers);
            }
        }
    }

    /// Computes several classes by e-nodes that share an operand, when that is cheaper than what they are computed by.
    fn try_open(&mut self, readers: &[(At, u32)]) -> bool {
        let point = self.draft.point();
        let mut changed: SmallVec<[At; 8]> = SmallVec::new();
        let mut reranked = false;
        for &(c, k) in readers {
            let operands = &self.draft.cs.choices[c][k as usize].distinct;
            let fits = !changed.contains(&c) && self.is_open(c) && self.is_alternative(c, k as usize);
            if fits && self.draft.is_acyclic(c, operands) {
                self.draft.set_choice(c, k as usize);
                changed.push(c);
                if operands.iter().any(|&o| self.draft.rank[o] >= self.draft.rank[c]) {
                    self.draft.rerank();
                    reranked = true;
                }
            }
        }
        if changed.len() < 2 || !self.settle_around(point, &changed) {
            self.draft.back(point);
        }
        let kept = self.keep_if_better(point);
        if reranked && !kept {
            self.draft.rerank();
        }
        kept
    }
}
