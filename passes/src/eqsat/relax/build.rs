//! Making the relaxation: the forms that classes can have, then the steps to each.

use super::super::draft::Draft;
use super::super::extract::{At, Choice, Classes, Settling};
use super::super::plan::Plan;
use super::{Edge, INNER, NONE, Operand, Reading, Relaxed, SAME, Step, is_usable, landmarks, operands};
use crate::fusion::Form;
use brolga_ir::ops::Role;
use petgraph::algo::kosaraju_scc;
use petgraph::graph::{DiGraph, NodeIndex};
use rustc_hash::{FxHashMap, FxHashSet};
use smallvec::SmallVec;

/// Forms of a class that are told apart; what comes beyond them is as good as in memory.
const MOST_FORMS: usize = 24;

/// Ways to take the operands of an e-node that are told apart.
const MOST_WAYS: usize = 256;

/// Steps beyond which there is no bound: it would take longer than all else.
const MOST_STEPS: usize = 4_000_000;

/// What a kernel is charged for.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
enum Side {
    /// What it reads and writes.
    Memory,
    /// Its arithmetic.
    Compute,
    /// What it writes: it contains a gather, which takes back what it does not read.
    Gather,
    /// Nothing: what is below its loads.
    Free,
}

/// The relaxation for results; see [`Relaxed::new`].
pub(super) fn relaxed(cs: &Classes, settling: &Settling, found: &Plan, roots: &[At]) -> Option<Relaxed> {
    let mut b = Builder::new(cs, settling, found, roots);
    b.forms();
    b.all_steps()?;
    Some(b.finish(roots))
}

struct Builder<'a> {
    cs: &'a Classes,
    settling: &'a Settling,
    /// How often a kernel runs at least that a class is computed in.
    times: Vec<f64>,
    /// The classes that results need, by group.
    members: Vec<Vec<At>>,
    /// Whether a kernel is bound by memory that has this class as its anchor, or stores it.
    by_memory: Vec<bool>,
    /// The forms of each class but for memory, and whether some had no place.
    of: Vec<SmallVec<[Form; 4]>>,
    crowded: Vec<bool>,
    /// What may have a gather in its kernel.
    gathers: FxHashSet<(At, Form)>,
    /// Classes that are one memory under several shapes, as a forest.
    alias: Vec<At>,
    named: FxHashMap<(At, Form, Side), u32>,
    payers: FxHashMap<(At, u32), u32>,
    read_by: FxHashMap<(At, At), u32>,
    out: Relaxed,
}

impl<'a> Builder<'a> {
    fn new(cs: &'a Classes, settling: &'a Settling, found: &Plan, roots: &[At]) -> Builder<'a> {
        let n = cs.ids.len();
        let mut graph: DiGraph<At, ()> = DiGraph::new();
        let mut node: Vec<Option<NodeIndex>> = vec![None; n];
        let mut todo = roots.to_vec();
        for &r in roots {
            node[r].get_or_insert_with(|| graph.add_node(r));
        }
        while let Some(c) = todo.pop() {
            let from = node[c].expect("it was just reached");
            for k in (0..cs.choices[c].len()).filter(|&k| is_usable(cs, settling, c, k)) {
                for &o in operands(cs, c, k) {
                    let to = *node[o].get_or_insert_with(|| {
                        todo.push(o);
                        graph.add_node(o)
                    });
                    graph.update_edge(from, to, ());
                }
            }
        }
        let members: Vec<Vec<At>> = kosaraju_scc(&graph)
            .into_iter()
            .map(|g| {
                let mut classes: Vec<At> = g.into_iter().map(|i| graph[i]).collect();
                classes.sort_unstable();
                classes
            })
            .collect();
        let mut group = vec![NONE; n];
        for (g, classes) in (0..).zip(&members) {
            classes.iter().for_each(|&c| group[c] = g);
        }
        Builder {
            cs,
            settling,
            times: times(cs),
            by_memory: sides(cs, settling, found, roots),
            of: vec![SmallVec::new(); n],
            crowded: vec![false; n],
            gathers: FxHashSet::default(),
            alias: (0..n).collect(),
            named: FxHashMap::default(),
            payers: FxHashMap::default(),
            read_by: FxHashMap::default(),
            out: Relaxed {
                states: vec![],
                tensor: vec![NONE; n],
                any: vec![NONE; n],
                group,
                groups: vec![],
                states_of: vec![vec![]; members.len()],
                steps: vec![],
                operands: vec![],
                reads: vec![],
                edges: vec![],
                edges_of: vec![vec![]; members.len()],
                roots: vec![],
                readers: vec![],
                readers_of: vec![],
                landmarks: vec![],
            },
            members,
        }
    }

    /// The e-nodes of a class that kernels are made of.
    fn in_kernels(&self, c: At) -> impl Iterator<Item = usize> + use<'a> {
        let (cs, settling) = (self.cs, self.settling);
        let usable = move |&k: &usize| cs.choices[c][k].in_kernel() && is_usable(cs, settling, c, k);
        (0..cs.choices[c].len()).filter(move |_| !cs.is_splat(c)).filter(usable)
    }

    /// Finds the forms that classes can have, until there are no more, and which of them may be one memory.
    fn forms(&mut self) {
        let mut dirty = vec![true; self.of.len()];
        for g in 0..self.members.len() {
            loop {
                let mut changed = false;
                for c in self.members[g].clone() {
                    if !std::mem::replace(&mut dirty[c], false) {
                        continue;
                    }
                    for k in self.in_kernels(c) {
                        changed |= self.add_forms(c, k);
                    }
                }
                if !changed {
                    break;
                }
                self.members[g].iter().for_each(|&c| dirty[c] = true);
            }
        }
    }

    fn add_forms(&mut self, c: At, k: usize) -> bool {
        let choice = &self.cs.choices[c][k];
        let Some(ways) = self.ways(c, choice) else { return false };
        let mut changed = false;
        for (forms, form) in ways {
            let gathered = |(&o, &f): (&At, &Form)| self.gathers.contains(&(o, f));
            if form != Form::Tensor && (choice.work.memory < 0.0 || choice.distinct.iter().zip(&forms).any(gathered)) {
                changed |= self.gathers.insert((c, form));
            }
            if form == Form::Tensor {
                let (a, b) = (self.memory(c), self.memory(choice.operands[0]));
                self.alias[a.max(b)] = a.min(b);
            } else if !self.of[c].contains(&form) {
                if self.of[c].len() < MOST_FORMS {
                    self.of[c].push(form);
                    changed = true;
                } else {
                    self.crowded[c] = true;
                }
            }
        }
        changed
    }

    /// The first class that is the same memory.
    fn memory(&self, mut c: At) -> At {
        while self.alias[c] != c {
            c = self.alias[c];
        }
        c
    }

    /// The forms of its distinct operands that an e-node can take, and what it gives then; `None` where they are too many.
    fn ways(&self, c: At, choice: &Choice) -> Option<Vec<(SmallVec<[Form; 4]>, Form)>> {
        let part = choice.part.expect("it is an operator");
        let places: Vec<usize> = choice
            .operands
            .iter()
            .map(|o| choice.distinct.iter().position(|d| d == o).expect("it is one of them"))
            .collect();
        let form = |of: &[Form]| {
            let forms: SmallVec<[Form; 4]> = places.iter().map(|&i| of[i]).collect();
            part.form(c as u32, &forms)
        };
        // What an operator does not take beside tensors it takes beside nothing.
        let mut fit: Vec<SmallVec<[Form; 4]>> = vec![];
        let mut of: SmallVec<[Form; 4]> = SmallVec::from_elem(Form::Tensor, choice.distinct.len());
        for (i, &o) in choice.distinct.iter().enumerate() {
            let mut forms: SmallVec<[Form; 4]> = SmallVec::new();
            forms.push(Form::Tensor);
            if !self.cs.is_splat(o) {
                forms.extend(self.of[o].iter().copied());
            }
            forms.retain(|f| {
                of[i] = *f;
                form(&of).is_ok()
            });
            of[i] = Form::Tensor;
            fit.push(forms);
        }
        if fit.iter().map(|f| f.len()).product::<usize>() > MOST_WAYS {
            return None;
        }
        let mut ways: Vec<SmallVec<[Form; 4]>> = vec![SmallVec::new()];
        for forms in &fit {
            let longer = |w: &SmallVec<[Form; 4]>| {
                let w = w.clone();
                forms.iter().map(move |&f| {
                    let mut w = w.clone();
                    w.push(f);
                    w
                })
            };
            ways = ways.iter().flat_map(longer).collect();
        }
        let legal = |w: SmallVec<[Form; 4]>| form(&w).ok().map(|f| (w, f));
        Some(ways.into_iter().filter_map(legal).collect())
    }

    // Steps.

    fn state(&mut self, c: At) -> u32 {
        self.out.states.push(c);
        let s = self.out.states.len() as u32 - 1;
        self.out.states_of[self.out.group[c] as usize].push(s);
        s
    }

    fn named(&mut self, c: At, form: Form, side: Side) -> u32 {
        if let Some(&s) = self.named.get(&(c, form, side)) {
            return s;
        }
        let s = self.state(c);
        self.named.insert((c, form, side), s);
        s
    }

    /// What a kernel of this form is charged for that stores a class.
    fn side(&self, c: At, form: Form) -> Side {
        let decides = if let Form::Anchor(a, _) = form { a as At } else { c };
        match self.by_memory[decides] {
            true => Side::Memory,
            false => Side::Compute,
        }
    }

    fn all_steps(&mut self) -> Option<()> {
        for g in 0..self.members.len() {
            let from = self.out.steps.len() as u32;
            for c in self.members[g].clone() {
                self.out.tensor[c] = self.state(c);
                self.out.any[c] = self.state(c);
            }
            for c in self.members[g].clone() {
                self.steps(c);
            }
            for c in self.members[g].clone() {
                self.stores(c);
            }
            self.out.groups.push(from..self.out.steps.len() as u32);
            if self.out.steps.len() > MOST_STEPS {
                return None;
            }
        }
        Some(())
    }

    /// The steps to what a class is as it is computed.
    fn steps(&mut self, c: At) {
        let cs = self.cs;
        let memory = self.out.tensor[c];
        if cs.is_splat(c) {
            return self.step((c, SAME), memory, 0.0, &[], &[]);
        }
        for k in (0..cs.choices[c].len()).filter(|&k| is_usable(cs, self.settling, c, k)) {
            let choice = &cs.choices[c][k];
            if choice.in_kernel() {
                self.kernel_steps(c, k);
                continue;
            }
            let operands: SmallVec<[u32; 4]> = choice.distinct.iter().map(|&o| self.out.tensor[o]).collect();
            let charge = match choice.part {
                Some(_) => cs.times[c] * cs.model.kernel(choice.work.compute, choice.work.memory),
                None => 0.0,
            };
            self.step((c, k as u32), memory, charge, &operands, &[]);
        }
    }

    fn kernel_steps(&mut self, c: At, k: usize) {
        let cs = self.cs;
        let (choice, by) = (&cs.choices[c][k], (c, k as u32));
        let part = choice.part.expect("it is an operator");
        let any: SmallVec<[u32; 4]> = choice.distinct.iter().map(|&o| self.out.any[o]).collect();
        let memory = self.out.tensor[c];
        let Some(ways) = self.ways(c, choice).filter(|_| !self.crowded[c]) else {
            let final_form = matches!(part.role, Role::Assemble(_));
            let charge = if final_form {
                cs.times[c] * cs.model.per_kernel()
            } else {
                0.0
            };
            return self.step(by, memory, charge, &any, &[]);
        };
        let gathers = choice.work.memory < 0.0;
        let compute = self.times[c] * choice.work.arithmetic(false).0;
        if compute.is_infinite() {
            return;
        }
        let anchor = matches!(part.role, Role::Window(_) | Role::Contract(_) | Role::Own(_));
        for (forms, form) in ways {
            let tensors: SmallVec<[At; 4]> = (choice.distinct.iter().zip(&forms))
                .filter(|(_, f)| **f == Form::Tensor)
                .map(|(&o, _)| o)
                .collect();
            if form == Form::Tensor {
                let operands: SmallVec<[u32; 4]> = tensors.iter().map(|&o| self.out.tensor[o]).collect();
                self.step(by, memory, 0.0, &operands, &[]);
                continue;
            }
            let bound = matches!(form, Form::Anchor(..)).then(|| self.side(c, form));
            for side in [Side::Memory, Side::Compute] {
                if bound.is_some_and(|s| s != side) || (gathers && side == Side::Memory) {
                    continue;
                }
                let Some(operands) = self.taken(choice, &forms, |_| side) else {
                    continue;
                };
                let to = self.named(c, form, side);
                if side == Side::Memory {
                    let reads = self.readings(c, &tensors, anchor);
                    self.step(by, to, 0.0, &operands, &reads);
                } else {
                    self.step(by, to, compute, &operands, &[]);
                }
            }
            if let Some(operands) = self.taken(choice, &forms, |_| Side::Free) {
                if choice.work.embeds {
                    self.step(by, memory, cs.times[c] * cs.model.per_kernel(), &operands, &[]);
                }
                let to = self.named(c, form, Side::Free);
                self.step(by, to, 0.0, &operands, &[]);
                if gathers {
                    let to = self.named(c, form, Side::Gather);
                    self.step(by, to, 0.0, &operands, &[]);
                }
            }
            for i in 0..forms.len() {
                let side = |at: usize| if at == i { Side::Gather } else { Side::Free };
                if forms[i] != Form::Tensor
                    && let Some(operands) = self.taken(choice, &forms, side)
                {
                    let to = self.named(c, form, Side::Gather);
                    self.step(by, to, 0.0, &operands, &[]);
                }
            }
        }
    }

    /// The states of operands in some forms, where there are such.
    fn taken(&mut self, choice: &Choice, forms: &[Form], side: impl Fn(usize) -> Side) -> Option<SmallVec<[u32; 4]>> {
        let mut out: SmallVec<[u32; 4]> = SmallVec::new();
        for (i, (&o, &form)) in choice.distinct.iter().zip(forms).enumerate() {
            let side = side(i);
            let other = matches!(form, Form::Anchor(..)) && matches!(side, Side::Memory | Side::Compute);
            out.push(match form {
                Form::Tensor => self.out.tensor[o],
                _ if other && side != self.side(o, form) => return None,
                _ if side == Side::Gather && !self.gathers.contains(&(o, form)) => return None,
                _ => self.named(o, form, side),
            });
        }
        Some(out)
    }

    fn readings(&mut self, c: At, tensors: &[At], anchor: bool) -> SmallVec<[Reading; 4]> {
        let mut out: SmallVec<[Reading; 4]> = SmallVec::new();
        for &o in tensors {
            if self.cs.is_splat(o) {
                continue;
            }
            let memory = self.memory(o);
            let next = self.out.readers.len() as u32;
            let edge = *self.read_by.entry((c, memory)).or_insert(next);
            if edge == next {
                self.out.readers.push(Edge {
                    payer: c,
                    to: memory as u32,
                    anchor,
                });
            }
            self.out.readers[edge as usize].anchor &= anchor;
            if out.iter().all(|r| r.edge != edge) {
                out.push(Reading {
                    edge,
                    seconds: self.times[c] * self.cs.traffic[o],
                });
            }
        }
        out
    }

    /// The steps by which a class is stored, and to what it is in any form.
    fn stores(&mut self, c: At) {
        let cs = self.cs;
        let (memory, any) = (self.out.tensor[c], self.out.any[c]);
        if self.in_kernels(c).next().is_some() {
            if cs.constant[c] {
                self.step((c, SAME), memory, 0.0, &[], &[]);
            }
            for form in self.of[c].clone() {
                let wanted = self.side(c, form);
                let free = self.named.get(&(c, form, Side::Free)).copied();
                if let Some(s) = free {
                    self.step((c, SAME), any, 0.0, &[s], &[]);
                }
                if cs.constant[c] {
                    continue;
                }
                let per_kernel = cs.model.per_kernel();
                let sides = [(wanted, true), (Side::Gather, wanted == Side::Memory)];
                for (side, _) in sides.into_iter().filter(|s| s.1) {
                    if let Some(&s) = self.named.get(&(c, form, side)) {
                        let write = if side == Side::Compute { 0.0 } else { cs.traffic[c] };
                        let charge = cs.times[c] * (per_kernel + write);
                        self.step((c, SAME), memory, charge, &[s], &[]);
                    }
                }
            }
        }
        self.step((c, SAME), any, 0.0, &[memory], &[]);
    }

    fn step(&mut self, (class, choice): (At, u32), to: u32, charge: f64, operands: &[u32], reads: &[Reading]) {
        let (from, read) = (self.out.operands.len() as u32, self.out.reads.len() as u32);
        let group = self.out.group[class];
        for &state in operands {
            let o = self.out.states[state as usize];
            let paid = self.cs.is_splat(o) || (self.cs.constant[o] && state == self.out.tensor[o]);
            if paid {
                continue;
            }
            let edge = match self.out.group[o] {
                g if g == group => INNER,
                g => self.edge(class, g),
            };
            self.out.operands.push(Operand { edge, state });
        }
        // Operands of one group stand together: it is paid for once.
        self.out.operands[from as usize..].sort_by_key(|o| o.edge);
        self.out.reads.extend_from_slice(reads);
        self.out.steps.push(Step {
            class,
            choice,
            to,
            charge,
            operands: from..self.out.operands.len() as u32,
            reads: read..self.out.reads.len() as u32,
        });
    }

    fn edge(&mut self, payer: usize, to: u32) -> u32 {
        add_edge(&mut self.out, &mut self.payers, payer, to)
    }

    fn finish(mut self, roots: &[At]) -> Relaxed {
        landmarks::imply(&mut self.out, self.cs, |r, payer, to| {
            add_edge(r, &mut self.payers, payer, to)
        });
        for (i, &r) in roots.iter().enumerate() {
            let edge = self.edge(self.cs.ids.len() + i, self.out.group[r]);
            self.out.roots.push(edge);
        }
        let mut of: FxHashMap<u32, usize> = FxHashMap::default();
        for (e, reader) in (0..).zip(&self.out.readers) {
            let at = *of.entry(reader.to).or_insert(self.out.readers_of.len());
            if at == self.out.readers_of.len() {
                self.out.readers_of.push(vec![]);
            }
            self.out.readers_of[at].push(e);
        }
        self.out
    }
}

/// The edge by which a payer pays for a group.
fn add_edge(r: &mut Relaxed, payers: &mut FxHashMap<(At, u32), u32>, payer: usize, to: u32) -> u32 {
    let next = r.edges.len() as u32;
    let edge = *payers.entry((payer, to)).or_insert(next);
    if edge == next {
        r.edges.push(Edge {
            payer,
            to,
            anchor: false,
        });
        r.edges_of[to as usize].push(edge);
    }
    edge
}

/// How often a kernel runs at least that a class is computed in: its own, or that of what it is inlined into.
fn times(cs: &Classes) -> Vec<f64> {
    let mut least = cs.times.clone();
    // Only layers that are folded run several times.
    if least.iter().all(|&n| n == 1.0) {
        return least;
    }
    loop {
        let mut changed = false;
        for (c, choices) in cs.choices.iter().enumerate() {
            for choice in choices.iter().filter(|k| k.in_kernel()) {
                for &o in &choice.distinct {
                    changed |= least[c] < least[o];
                    least[o] = least[o].min(least[c]);
                }
            }
        }
        if !changed {
            return least;
        }
    }
}

/// Whether kernels are bound by memory that have a class as their anchor, or store it: as in a program that was found, and as it was settled
/// for others.
fn sides(cs: &Classes, settling: &Settling, found: &Plan, roots: &[At]) -> Vec<bool> {
    let settled = |c: At| {
        let s = settling.of[c].as_ref();
        s.is_none_or(|s| s.compute <= s.memory + cs.traffic[c])
    };
    let mut out: Vec<bool> = (0..cs.ids.len()).map(settled).collect();
    for kernel in Draft::new(cs, settling, found, roots).kernels() {
        let by_memory = kernel.compute <= kernel.memory;
        out[kernel.stores] = by_memory;
        if let Form::Anchor(a, _) = kernel.form {
            out[a as At] = by_memory;
        }
    }
    out
}
