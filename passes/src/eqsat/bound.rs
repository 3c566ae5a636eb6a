//! A lower bound on what any program of an e-graph costs: how far from the optimum a program can be at most.
//!
//! **Costs are shared out.** In a program every group of classes ([`relax`](super::relax)) is paid for by who needs it. Each possible payer
//! is given a share, all shares of a group at most 1. What a state is worth is then told bottom up: the least, over the steps to
//! it, of the step's charge and its shares of what it needs. In any program what is paid for a group adds up to at most what it costs there,
//! so what results pay is a lower bound, for any shares: it is the dual of the extraction's linear program.
//!
//! ```text
//! y = a(x), z = b(x), both read x      -->  y and z pay half of x each: a + b + x, not a + b + 2 x, nor max(a, b) + x
//! ```
//!
//! **Better shares** are those of who turns out to need a group in the cheapest program of states, to which shares move round by
//! round; at first they are those of a program that was found, whose bound is mostly close already. Reading something in memory is paid for
//! in the same way, once a kernel: every anchor has a kernel of its own.
//!
//! What all e-nodes of a class need, if only through others, the class itself pays for (its landmarks). Within a group the dearest of
//! several operands is paid for, since they may be computed of each other.

use super::extract::{At, Classes, Settling};
use super::plan::Plan;
use super::relax::{Edge, INNER, Operand, Relaxed, Step, operands};
use rustc_hash::{FxHashMap, FxHashSet};

/// Rounds in which shares move.
const ROUNDS: usize = 24;

/// What part of the way shares move at first, and what of that is left where a bound became no greater.
const FIRST: f64 = 0.5;
const NEXT: f64 = 0.5;

/// What rounding may have added to a bound, relative to it.
const ROUNDING: f64 = 1e-9;

const NONE: u32 = u32::MAX;

/// Shares of costs, and what states are worth by them.
pub(super) struct Shares {
    pub relaxed: Relaxed,
    /// The share of every edge in its group, and in what it reads.
    pub of: Vec<f64>,
    pub reading: Vec<f64>,
    /// The seconds of every state; infinite for one that nothing gives.
    pub worth: Vec<f64>,
    /// The step by which it is worth that.
    by: Vec<u32>,
}

/// Seconds that any program for some results costs at least, given one that was found; `None` where the e-graph is too large to
/// tell.
pub fn lower_bound(cs: &Classes, settling: &Settling, found: &Plan, roots: &[At]) -> Option<f64> {
    Some(Shares::new(cs, settling, found, roots)?.improve(roots))
}

impl Shares {
    /// The shares of a program that was found.
    pub fn new(cs: &Classes, settling: &Settling, found: &Plan, roots: &[At]) -> Option<Shares> {
        let relaxed = Relaxed::new(cs, settling, found, roots)?;
        // Who needs what in the program found. Who pays for a landmark relieves those below, through whom it needs it.
        let mut needed = vec![0.0; relaxed.edges.len()];
        let mut relieved: FxHashSet<u32> = FxHashSet::default();
        let edges: FxHashMap<(At, u32), u32> = (0..)
            .zip(&relaxed.edges)
            .map(|(e, edge)| ((edge.payer, edge.to), e))
            .collect();
        for step in &relaxed.steps {
            if found.choice[step.class] != Some(step.choice as usize) {
                continue;
            }
            let own = operands(cs, step.class, step.choice as usize);
            let of = &relaxed.operands[step.operands.start as usize..step.operands.end as usize];
            for o in of.iter().filter(|o| o.edge != INNER) {
                needed[o.edge as usize] = 1.0;
                let c = relaxed.states[o.state as usize];
                if own.contains(&c) {
                    continue;
                }
                let below = of.iter().flat_map(|p| &relaxed.landmarks[p.state as usize]);
                let below = below.map(|&s| relaxed.states[s as usize]).chain(own.iter().copied());
                relieved.extend(below.filter_map(|b| edges.get(&(b, relaxed.group[c]))));
            }
        }
        relaxed.roots.iter().for_each(|&e| needed[e as usize] = 1.0);
        for edges in &relaxed.edges_of {
            let kept = |e: &&u32| needed[**e as usize] > 0.0 && !relieved.contains(*e);
            if edges.iter().any(|e| kept(&e)) {
                edges
                    .iter()
                    .filter(|e| relieved.contains(*e))
                    .for_each(|&e| needed[e as usize] = 0.0);
            }
        }
        let reads =
            |e: &Edge| found.choice[e.payer].is_some_and(|k| operands(cs, e.payer, k).contains(&(e.to as usize)));
        let read: Vec<f64> = relaxed.readers.iter().map(|e| reads(e) as usize as f64).collect();
        let mut out = Shares {
            of: vec![0.0; relaxed.edges.len()],
            reading: vec![0.0; relaxed.readers.len()],
            worth: vec![f64::INFINITY; relaxed.states.len()],
            by: vec![NONE; relaxed.states.len()],
            relaxed,
        };
        out.move_to(&needed, &read, 1.0);
        // What nobody has asked for yet is shared by all who may.
        for edges in &out.relaxed.edges_of {
            if edges.iter().all(|&e| out.of[e as usize] == 0.0) {
                edges
                    .iter()
                    .for_each(|&e| out.of[e as usize] = 1.0 / edges.len() as f64);
            }
        }
        for readers in &out.relaxed.readers_of {
            let anchor = |e: &u32| out.relaxed.readers[*e as usize].anchor;
            let others = readers.iter().filter(|e| !anchor(e)).count();
            if readers.iter().all(|&e| out.reading[e as usize] == 0.0) {
                for e in readers {
                    out.reading[*e as usize] = match (anchor(e), others) {
                        (true, 0) => 1.0,
                        (true, _) => 0.0,
                        (false, n) => 1.0 / n as f64,
                    };
                }
            }
        }
        Some(out)
    }

    /// Moves shares for some rounds; the greatest bound met, whose shares are kept.
    pub fn improve(&mut self, roots: &[At]) -> f64 {
        let (mut best, mut kept) = (f64::NEG_INFINITY, (self.of.clone(), self.reading.clone()));
        let mut demand = (vec![], vec![]);
        let mut part = FIRST;
        for round in 0..ROUNDS {
            self.evaluate(&self.of.clone(), &|_| false);
            let bound = self.bound(roots);
            if bound > best {
                (best, kept) = (bound, (self.of.clone(), self.reading.clone()));
                demand = self.demand(roots);
            } else {
                part *= NEXT;
                (self.of, self.reading) = kept.clone();
            }
            if round + 1 < ROUNDS {
                self.move_to(&demand.0, &demand.1, part);
            }
        }
        (self.of, self.reading) = kept;
        best * (1.0 - ROUNDING)
    }

    /// What results pay.
    fn bound(&self, roots: &[At]) -> f64 {
        let r = &self.relaxed;
        let paid = |(&c, &e): (&At, &u32)| self.of[e as usize] * self.worth[r.tensor[c] as usize];
        roots.iter().zip(&r.roots).map(paid).sum()
    }

    /// Tells what states are worth by shares of edges; classes that are paid for already are worth nothing.
    pub fn evaluate(&mut self, shares: &[f64], paid: &dyn Fn(At) -> bool) {
        self.worth.fill(f64::INFINITY);
        self.by.fill(NONE);
        for g in 0..self.relaxed.groups.len() {
            let r = &self.relaxed;
            for &s in &r.states_of[g] {
                if paid(r.states[s as usize]) {
                    self.worth[s as usize] = 0.0;
                }
            }
            let range = r.groups[g].clone();
            loop {
                let mut changed = false;
                for i in range.clone() {
                    let step = &self.relaxed.steps[i as usize];
                    let worth = self.worth_of(step, shares);
                    let to = step.to as usize;
                    if worth < self.worth[to] {
                        (self.worth[to], self.by[to], changed) = (worth, i, true);
                    }
                }
                if !changed {
                    break;
                }
            }
        }
    }

    fn worth_of(&self, step: &Step, shares: &[f64]) -> f64 {
        let mut seconds = step.charge;
        let range = |r: &std::ops::Range<u32>| r.start as usize..r.end as usize;
        for r in &self.relaxed.reads[range(&step.reads)] {
            seconds += self.reading[r.edge as usize] * r.seconds;
        }
        let of = &self.relaxed.operands[range(&step.operands)];
        for one in of.chunk_by(|a, b| a.edge == b.edge) {
            let dearest = one.iter().map(|o| self.worth[o.state as usize]).fold(0.0, f64::max);
            if dearest.is_infinite() {
                return f64::INFINITY;
            }
            seconds += dearest
                * if one[0].edge == INNER {
                    1.0
                } else {
                    shares[one[0].edge as usize]
                };
        }
        seconds
    }

    /// How much of the cheapest program of states goes through each edge, and through each reading.
    fn demand(&self, roots: &[At]) -> (Vec<f64>, Vec<f64>) {
        let r = &self.relaxed;
        let mut mass = vec![0.0; r.states.len()];
        let (mut needed, mut read) = (vec![0.0; r.edges.len()], vec![0.0; r.readers.len()]);
        for (&c, &e) in roots.iter().zip(&r.roots) {
            needed[e as usize] += 1.0;
            mass[r.tensor[c] as usize] += self.of[e as usize];
        }
        for g in (0..r.groups.len()).rev() {
            let mut todo: Vec<(u32, f64)> = r.states_of[g].iter().map(|&s| (s, mass[s as usize])).collect();
            todo.retain(|t| t.1 > 0.0);
            while let Some((s, m)) = todo.pop() {
                let Some(step) = r.steps.get(self.by[s as usize] as usize) else {
                    continue;
                };
                for reading in &r.reads[step.reads.start as usize..step.reads.end as usize] {
                    read[reading.edge as usize] += m;
                }
                let of = &r.operands[step.operands.start as usize..step.operands.end as usize];
                for one in of.chunk_by(|a, b| a.edge == b.edge) {
                    let worth = |o: &&Operand| self.worth[o.state as usize];
                    let dearest = one.iter().max_by(|a, b| worth(a).total_cmp(&worth(b)));
                    let state = dearest.expect("a chunk is not empty").state;
                    if one[0].edge == INNER {
                        todo.push((state, m));
                    } else {
                        needed[one[0].edge as usize] += m;
                        mass[state as usize] += m * self.of[one[0].edge as usize];
                    }
                }
            }
        }
        (needed, read)
    }

    /// Moves shares toward who needs something, by some part of the way.
    fn move_to(&mut self, needed: &[f64], read: &[f64], by: f64) {
        let r = &self.relaxed;
        for edges in &r.edges_of {
            let total: f64 = edges.iter().map(|&e| needed[e as usize]).sum();
            if total > 0.0 {
                for &e in edges {
                    let share = &mut self.of[e as usize];
                    *share += by * (needed[e as usize] / total - *share);
                }
            }
        }
        for readers in &r.readers_of {
            let sum = |anchor: bool| -> (f64, usize) {
                let these = readers.iter().filter(|&&e| r.readers[e as usize].anchor == anchor);
                let each: Vec<f64> = these.map(|&e| read[e as usize]).collect();
                (each.iter().sum(), each.iter().filter(|x| **x > 0.0).count())
            };
            let ((anchors, several), (others, _)) = (sum(true), sum(false));
            if anchors + others == 0.0 {
                continue;
            }
            // Each anchor reads in a kernel of its own; of others two may share one, and one may share that of an anchor.
            let by_anchors = several > 1 || others == 0.0;
            for &e in readers {
                let wanted = match (r.readers[e as usize].anchor, by_anchors) {
                    (true, true) => 1.0,
                    (false, false) => read[e as usize] / others,
                    _ => 0.0,
                };
                let share = &mut self.reading[e as usize];
                *share += by * (wanted - *share);
            }
        }
    }
}
