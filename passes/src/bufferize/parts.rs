//! What is put together is made in its place: the step that computes an operand of a concatenation writes into the result.
//!
//! ```text
//! call @conv_1(s0, s1)                        view s1: f32[1, 8, 16] = s3 + 2048
//! call @relu_2(s0, s2)                 -->    call @conv_1(s0, s1)
//! call @concat_3_0(s2, s3)                    call @relu_2(s0, s2)    with view s2 = s3
//! call @concat_3_1(s1, s3)
//! ```
//!
//! A part is a contiguous range of the result where all dimensions before the concatenated one have a single point; it becomes
//! a view, whoever uses it. Other parts are rows: the kernels that write and read such a one get the result as their operand,
//! and the part's place in it in their index maps. What is padded is such a part too ([`padding`](super::padding)). In the other direction, a contiguous slice that a step would copy out of a
//! tensor becomes a view of it.
//!
//! Limits: the operand is a temporary that one step writes; rows are used by kernels only, and have [`LEAST_RUN`] bytes or more,
//! as reading short rows that lie apart costs more than the copy. A kernel that has its schedule already keeps its maps.

use super::copies::{Copying, ends};
use super::padding::Padding;
use super::variants::{Kernels, only, within};
use crate::lower::Structured;
use brolga_ir::index::{Ix, Var};
use brolga_ir::program::{SlotId, Step, Storage};
use brolga_ir::structured::{Kernel, Operand, Part, Place, Read, Role};
use brolga_ir::{Dim, Symbol};
use rustc_hash::FxHashMap;

/// Bytes of a row of a part, at least: a cache line.
const LEAST_RUN: i64 = 64;

/// Makes parts in their places, and slices views.
pub(super) fn run(p: &mut Structured) {
    let copies = |k: &Kernel| k.list().is_some_and(|l| l.iter().any(|s| Copying::of(k, s).is_some()));
    if !p.kernels.iter().any(|k| copies(k) || Padding::of(k).is_some()) {
        return;
    }
    let late = p.bounds();
    let mut parts = Parts {
        uses: Uses::of(p),
        late,
        removed: vec![false; p.steps.len()],
        changed: p.steps.iter().map(|_| None).collect(),
        p,
    };
    // The last one comes first: what is a part of a part finds its place in the whole.
    for step in (0..parts.p.steps.len()).rev() {
        parts.pad(step);
        parts.concat(step);
    }
    for step in 0..parts.p.steps.len() {
        parts.slice(step);
    }
    parts.finish();
}

/// Where a slot's memory is used, by the slot that owns it.
struct Uses {
    /// Top-level calls: the step and the argument.
    calls: Vec<Vec<(usize, usize)>>,
    /// Top-level steps that write it.
    writers: Vec<Vec<usize>>,
    /// True where other steps use it, or steps in blocks.
    others: Vec<bool>,
    /// True where steps in blocks, or copies, write it.
    rewritten: Vec<bool>,
}

impl Uses {
    fn of(p: &Structured) -> Uses {
        let n = p.slots.len();
        let mut u = Uses {
            calls: vec![vec![]; n],
            writers: vec![vec![]; n],
            others: vec![false; n],
            rewritten: vec![false; n],
        };
        let root = |s: &SlotId| p.root(*s).0 as usize;
        for (i, step) in p.steps.iter().enumerate() {
            match step {
                Step::Call { kernel, args, .. } => {
                    for (j, (s, o)) in args.iter().zip(&p.kernels[*kernel as usize].operands).enumerate() {
                        u.calls[root(s)].push((i, j));
                        if o.role != Role::In {
                            u.writers[root(s)].push(i);
                        }
                    }
                }
                other => {
                    other.for_each_slot(&mut |s| u.others[root(&s)] = true);
                    match other {
                        Step::Host { outputs, .. } => outputs.iter().for_each(|s| u.writers[root(s)].push(i)),
                        Step::Copy { to, .. } => u.rewritten[root(to)] = true,
                        _ => {}
                    }
                    for inner in other.blocks().into_iter().flat_map(brolga_ir::program::nested) {
                        inner.for_each_slot(&mut |s| u.others[root(&s)] = true);
                        p.accesses(inner).1.iter().for_each(|s| u.rewritten[root(s)] = true);
                    }
                }
            }
        }
        u
    }

    /// What used one slot uses another.
    fn move_to(&mut self, from: SlotId, to: SlotId) {
        let [from, to] = [from, to].map(|s| s.0 as usize);
        let calls = std::mem::take(&mut self.calls[from]);
        self.calls[to].extend(calls);
        let writers = std::mem::take(&mut self.writers[from]);
        self.writers[to].extend(writers);
        self.others[to] |= self.others[from];
        self.rewritten[to] |= self.rewritten[from];
    }
}

struct Parts<'p> {
    p: &'p mut Structured,
    uses: Uses,
    late: FxHashMap<Symbol, Option<Dim>>,
    removed: Vec<bool>,
    /// What the kernels of calls have become, by step.
    changed: Vec<Option<Kernel>>,
}

impl Parts<'_> {
    /// The kernel and the arguments of a call.
    fn call(&self, step: usize) -> Option<(&Kernel, &[SlotId])> {
        let Step::Call { kernel, args, .. } = &self.p.steps[step] else {
            return None;
        };
        let changed = self.changed[step].as_ref();
        let kernel = changed.unwrap_or_else(|| &self.p.kernels[*kernel as usize]);
        (!self.removed[step]).then_some((kernel, args))
    }

    /// Bytes of elements of a slot.
    fn bytes(&self, s: SlotId, elements: &Dim) -> Dim {
        elements * self.p.slot(s).ty.dtype.bytes() as i64
    }

    /// Makes what is padded inside of the margins, where that can be; the step then fills those.
    fn pad(&mut self, step: usize) {
        let Some((k, args)) = self.call(step) else { return };
        let Some(c) = Padding::of(k) else { return };
        let (k, args) = (k.clone(), args.to_vec());
        let (part, result) = (args[c.from], args[c.to]);
        let (owner, whole) = (self.p.root(part), self.p.root(result));
        let (from, to) = (&k.operands[c.from].ty.shape, &k.operands[c.to]);
        let made = owner != whole
            && self.is_movable(owner, part, step)
            && self.takes(whole)
            && self.lay_in_rows(step, owner, to, result, &Copying::whole(from, to, c.map()));
        if !made {
            return;
        }
        self.uses.move_to(owner, whole);
        self.forget(step, &args);
        let Some(margins) = c.margins(&k) else {
            self.removed[step] = true;
            return;
        };
        self.changed[step] = Some(margins);
        self.uses.calls[whole.0 as usize].push((step, 0));
        self.uses.writers[whole.0 as usize].push(step);
        if let Step::Call { args, .. } = &mut self.p.steps[step] {
            *args = vec![result];
        }
    }

    /// Makes the operands of a concatenation in its result, where that can be.
    fn concat(&mut self, step: usize) {
        let Some((k, args)) = self.call(step) else { return };
        let apart = k.outer.is_empty() && k.locals.is_empty() && k.schedule.is_none();
        // What a scatter writes over is no part of its own, and what takes the place of a slice is made when the rest of it
        // was read.
        let scatters = k.stages().iter().any(|s| s.scatter);
        if !apart || scatters || super::updates::update(k).is_some() {
            return;
        }
        let (k, args) = (k.clone(), args.to_vec());
        let Some(stages) = k.list().filter(|l| l.len() > 1) else {
            return;
        };
        if self.window(step, &k, &args) {
            return;
        }
        let mut left = vec![];
        for (i, s) in stages.iter().enumerate() {
            let made = Copying::of(&k, s).filter(|c| c.takes_all(&k) && self.place(step, &k, &args, c));
            if made.is_none() {
                left.push(i);
            }
        }
        if left.len() == stages.len() {
            return;
        }
        self.forget(step, &args);
        if left.is_empty() {
            self.removed[step] = true;
            return;
        }
        let (rest, kept) = only(&k, &left);
        for (i, &from) in kept.iter().enumerate() {
            let owner = self.p.root(args[from]).0 as usize;
            self.uses.calls[owner].push((step, i));
            if rest.operands[i].role != Role::In {
                self.uses.writers[owner].push(step);
            }
        }
        self.changed[step] = Some(rest);
        if let Step::Call { args, .. } = &mut self.p.steps[step] {
            *args = kept.iter().map(|&i| args[i]).collect();
        }
    }

    /// Leaves out a concatenation of what lies in another in the same order: it is a window of that.
    ///
    /// ```text
    /// call @concat_3(s1, s2, s3)              view s1 = s4, view s2 = s4 + 64
    /// call @concat_5(s1, s2, s5, s4)   -->    view s3 = s4, view s5 = s4 + 96
    /// ```
    fn window(&mut self, step: usize, k: &Kernel, args: &[SlotId]) -> bool {
        let stages = k.stages();
        let mut from = stages.iter().map(|s| ends(s).map(|(from, _)| self.p.root(args[from])));
        let first = from.next().flatten();
        if first.is_none() || !from.all(|root| root == first) {
            return false;
        }
        let copies: Option<Vec<Copying>> = stages.iter().map(|s| Copying::of(k, s)).collect();
        let Some(copies) = copies else { return false };
        let (result, first) = (args[copies[0].to], args[copies[0].from]);
        let (owner, whole) = (self.p.root(result), self.p.root(first));
        let own = self.p.slot(owner);
        let movable = matches!(own.storage, Storage::Temp(_))
            && own.ty == self.p.slot(result).ty
            && !own.is_late(&self.late)
            && !self.uses.rewritten[owner.0 as usize]
            && matches!(self.uses.writers[owner.0 as usize][..], [w] if w == step);
        let inside = copies.iter().all(|c| self.p.root(args[c.from]) == whole);
        if !movable || !inside || owner == whole || !self.takes(whole) {
            return false;
        }
        let start = |c: &Copying| {
            let (_, start) = self.p.place(args[c.from]);
            Some(&start - &self.bytes(result, &c.lies_at().filter(|_| c.takes_all(k))?))
        };
        if let Some(at) = start(&copies[0])
            && copies.iter().all(|c| start(c).as_ref() == Some(&at))
        {
            let bytes = self.p.slot(owner).bytes();
            let end = &at + &bytes;
            let fits = at.is_at_least(0) && end.at_most(&self.p.slot(whole).bytes());
            let apart = |_: SlotId| false;
            if !fits || !self.keeps_apart(step, owner, whole, &apart) {
                return false;
            }
            self.p.slots[owner.0 as usize].storage = Storage::View { of: whole, offset: at };
        } else {
            let to = k.operands[copies[0].from].clone();
            let shape = &self.p.slot(owner).ty.shape;
            let shifts = |c: &Copying| -> Option<Vec<Dim>> {
                let same = args[c.from] == first && c.read_map.len() == c.map.len();
                let each = c.read_map.iter().zip(&c.map).map(|(from, to)| {
                    let apart = from.terms == to.terms;
                    apart.then(|| &from.offset - &to.offset)
                });
                if same { each.collect() } else { None }
            };
            let Some(by) = shifts(&copies[0]) else { return false };
            if by.len() != shape.len() || !copies.iter().all(|c| shifts(c).as_ref() == Some(&by)) {
                return false;
            }
            let map: Vec<Ix> = (0..).zip(&by).map(|(v, d)| &Ix::var(Var(v)) + d).collect();
            let run = Copying::whole(shape, &to, map);
            if !self.lay_in_rows(step, owner, &to, first, &run) {
                return false;
            }
        }
        self.uses.move_to(owner, whole);
        self.removed[step] = true;
        self.forget(step, args);
        true
    }

    /// A step does not use what its arguments are any more.
    fn forget(&mut self, step: usize, args: &[SlotId]) {
        for s in args {
            let owner = self.p.root(*s).0 as usize;
            self.uses.calls[owner].retain(|(i, _)| *i != step);
            self.uses.writers[owner].retain(|i| *i != step);
        }
    }

    /// Makes an operand of a concatenation in its result.
    fn place(&mut self, step: usize, k: &Kernel, args: &[SlotId], c: &Copying) -> bool {
        let (part, result) = (args[c.from], args[c.to]);
        let (owner, whole) = (self.p.root(part), self.p.root(result));
        if !self.is_movable(owner, part, step) || !self.takes(whole) {
            return false;
        }
        let uses = &self.uses.calls[owner.0 as usize];
        let here = uses.iter().filter(|(i, _)| *i == step).count();
        let stages = k.stages();
        let reads = stages
            .iter()
            .flat_map(|s| &s.reads)
            .filter(|r| matches!(r, Read::Element { place: Place::Operand(o), .. } if *o as usize == c.from));
        // Twice in one result is a copy once.
        if here != 1 || reads.count() != 1 {
            return false;
        }
        match c.lies_at() {
            Some(at) => self.as_view(step, owner, result, &self.bytes(result, &at)),
            None => self.as_rows(step, owner, k, result, c),
        }
    }

    /// True for a temporary that one step writes before this one, of which a slot is all.
    fn is_movable(&self, owner: SlotId, s: SlotId, step: usize) -> bool {
        let slot = self.p.slot(owner);
        let i = owner.0 as usize;
        let (_, start) = self.p.place(s);
        let written_once = matches!(self.uses.writers[i][..], [w] if w < step);
        matches!(slot.storage, Storage::Temp(_))
            && !slot.is_late(&self.late)
            && !self.uses.rewritten[i]
            && written_once
            && start.is(0)
            && self.p.slot(s).bytes() == slot.bytes()
    }

    /// True for memory that parts may be made in.
    fn takes(&self, whole: SlotId) -> bool {
        let slot = self.p.slot(whole);
        matches!(slot.storage, Storage::Temp(_) | Storage::Output(_))
            && !slot.is_late(&self.late)
            && !self.uses.rewritten[whole.0 as usize]
            // The input in the same memory is read until the result is put together.
            && self.p.aliased(whole).is_none()
    }

    /// A contiguous part.
    fn as_view(&mut self, step: usize, owner: SlotId, result: SlotId, at: &Dim) -> bool {
        let (whole, before) = self.p.place(result);
        let start = &before + at;
        let end = &start + &self.p.slot(owner).bytes();
        let fits = start.is_at_least(0) && end.at_most(&self.p.slot(whole).bytes());
        let apart = |s: SlotId| {
            let (_, a) = self.p.place(s);
            let b = &a + &self.p.slot(s).bytes();
            b.at_most(&start) || end.at_most(&a)
        };
        if !fits || !self.keeps_apart(step, owner, whole, &apart) {
            return false;
        }
        self.p.slots[owner.0 as usize].storage = Storage::View {
            of: result,
            offset: at.clone(),
        };
        self.uses.move_to(owner, whole);
        true
    }

    /// Whether no step but this one would write memory that it reads, were a slot part of another: steps that use both touch
    /// places of the other that are apart from the part, or read only.
    fn keeps_apart(&self, step: usize, owner: SlotId, whole: SlotId, apart: &dyn Fn(SlotId) -> bool) -> bool {
        let steps = self.uses.calls[owner.0 as usize].iter().filter(|(i, _)| *i != step);
        steps.into_iter().all(|(i, _)| {
            let Some((k, args)) = self.call(*i) else { return true };
            let both = args.iter().zip(&k.operands);
            let both: Vec<(SlotId, Role, SlotId)> = both.map(|(s, o)| (*s, o.role, self.p.root(*s))).collect();
            let others = both.iter().filter(|(.., r)| *r == whole);
            let own = |written: bool| {
                both.iter()
                    .any(|(_, role, r)| *r == owner && (*role != Role::In) == written)
            };
            others.into_iter().all(|(s, role, _)| {
                let clash = own(true) || (*role != Role::In && own(false));
                !clash || apart(*s)
            })
        })
    }

    /// A part that lies in rows.
    fn as_rows(&mut self, step: usize, owner: SlotId, concat: &Kernel, result: SlotId, c: &Copying) -> bool {
        let (from, to) = (&concat.operands[c.from].ty.shape, &concat.operands[c.to]);
        let Some(map) = c.map_of_source(from) else { return false };
        let rows = Copying::whole(from, to, map);
        let made = self.lay_in_rows(step, owner, to, result, &rows);
        if made {
            self.uses.move_to(owner, self.p.root(result));
        }
        made
    }

    /// Makes all steps but this one use a slot's tensor in rows of another, which has the same layout.
    fn lay_in_rows(&mut self, step: usize, owner: SlotId, to: &Operand, result: SlotId, c: &Copying) -> bool {
        let size = to.ty.dtype.bytes() as i64;
        let long = c.run().saturating_mul(size) >= LEAST_RUN;
        let (whole, _) = self.p.place(result);
        if !long || self.uses.others[owner.0 as usize] || !self.keeps_apart(step, owner, whole, &|_| false) {
            return false;
        }
        let uses: Vec<(usize, usize)> = (self.uses.calls[owner.0 as usize].iter())
            .copied()
            .filter(|(i, _)| *i != step)
            .collect();
        let can = |(i, arg): &(usize, usize)| {
            self.call(*i).is_some_and(|(k, _)| {
                let free = k.schedule.is_none() && !k.stages().iter().any(|s| s.scatter);
                let o = &k.operands[*arg];
                free && o.ty.shape == c.shape && o.layout == to.layout
            })
        };
        if !uses.iter().all(can) {
            return false;
        }
        for (i, arg) in uses {
            if let Step::Call { kernel, args, .. } = &mut self.p.steps[i] {
                let kernels = &self.p.kernels;
                let k = self.changed[i].get_or_insert_with(|| kernels[*kernel as usize].clone());
                within(k, arg, to, &c.map);
                args[arg] = result;
            }
        }
        true
    }

    /// Makes what a step copies out of a tensor, as one range, a view of it.
    fn slice(&mut self, step: usize) {
        let Some((k, args)) = self.call(step) else { return };
        let [Part::Stage(s)] = &k.parts[..] else { return };
        let Some(c) = Copying::of(k, s).filter(|c| c.fills_all(k)) else {
            return;
        };
        let Some(at) = c.comes_from() else { return };
        let (from, to) = (args[c.from], args[c.to]);
        let (tensor, owner) = (self.p.root(from), self.p.root(to));
        let i = tensor.0 as usize;
        let slot = self.p.slot(tensor);
        let stays = match slot.storage {
            Storage::Temp(_) | Storage::Output(_) => {
                !self.uses.rewritten[i] && self.uses.writers[i].iter().all(|w| *w < step)
            }
            // What is copied of an input before it is updated is no view of it.
            Storage::Input(k) => self.p.aliases.iter().all(|a| a.input != k),
            Storage::Weight(_) | Storage::Computed => true,
            Storage::Heap | Storage::View { .. } => false,
        };
        let at = self.bytes(to, &at);
        let (_, before) = self.p.place(from);
        let start = &before + &at;
        let end = &start + &self.p.slot(owner).bytes();
        let moves = stays
            && slot.layout.is_row_major()
            && !slot.is_late(&self.late)
            && matches!(self.p.slot(owner).storage, Storage::Temp(_))
            && matches!(self.uses.writers[owner.0 as usize][..], [w] if w == step)
            && !self.uses.rewritten[owner.0 as usize]
            && !self.p.slot(owner).is_late(&self.late)
            && self.p.place(to).1.is(0)
            && self.p.slot(to).bytes() == self.p.slot(owner).bytes()
            && start.is_at_least(0)
            && end.at_most(&slot.bytes());
        if !moves {
            return;
        }
        let args = args.to_vec();
        self.p.slots[owner.0 as usize].storage = Storage::View { of: from, offset: at };
        self.removed[step] = true;
        self.uses.move_to(owner, tensor);
        self.forget(step, &args);
    }

    /// Drops the steps and kernels that are left over.
    fn finish(self) {
        let mut kernels = Kernels::default();
        for (i, k) in self.changed.into_iter().enumerate() {
            if let Some(k) = k.filter(|_| !self.removed[i]) {
                let number = kernels.number(self.p, k);
                if let Step::Call { kernel, .. } = &mut self.p.steps[i] {
                    *kernel = number;
                }
            }
        }
        let mut removed = self.removed.iter();
        self.p.steps.retain(|_| !removed.next().is_some_and(|r| *r));
    }
}
