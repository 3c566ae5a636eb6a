//! In place by last use: a result gets the memory of an operand that no later step reads, where the kernel may write over it.
//!
//! ```text
//! call @add_0(s0, s1, s2)      s2: the last use of s1     view s2 = s1
//! call @exp_1(s2, s3)          output s3             -->  view s2 = s3, and so view s1 = s3
//! ```

use crate::lower::Structured;
use brolga_ir::program::{Life, SlotId, Step, Storage};
use brolga_ir::structured::{Kernel, Role};
use brolga_ir::{Dim, Symbol};
use rustc_hash::FxHashMap;

/// Gives results the memory of operands.
pub(super) fn run(p: &mut Structured) {
    let mut memory = Memory::of(p);
    for c in calls(&memory.p.steps) {
        let k = &memory.p.kernels[c.kernel as usize];
        let [written] = written(k)[..] else { continue };
        let mut operands = (0..c.args.len()).filter(|&i| i != written);
        let over = |memory: &Memory, i: usize| {
            let root = memory.p.root(c.args[i]);
            let k = &memory.p.kernels[c.kernel as usize];
            let mut same = (0..c.args.len()).filter(|&j| memory.p.root(c.args[j]) == root);
            same.all(|j| k.overwrites(j, written))
        };
        operands.find(|&i| over(&memory, i) && memory.merge(c.args[i], c.args[written], &c, &|_, _| false));
    }
}

/// A call, its number among the steps, and the step of the loop that it stands in.
pub(super) struct Call {
    pub number: usize,
    inside: Option<usize>,
    pub kernel: u32,
    pub args: Vec<SlotId>,
}

impl Call {
    /// True for one in a loop.
    pub fn repeats(&self) -> bool {
        self.inside.is_some()
    }
}

/// All calls, those in blocks too, in order.
pub(super) fn calls(steps: &[Step]) -> Vec<Call> {
    let mut out = vec![];
    collect(steps, &mut 0, None, &mut out);
    out
}

fn collect(steps: &[Step], next: &mut usize, inside: Option<usize>, out: &mut Vec<Call>) {
    for s in steps {
        let number = *next;
        *next += 1;
        if let Step::Call { kernel, args, .. } = s {
            out.push(Call {
                number,
                inside,
                kernel: *kernel,
                args: args.clone(),
            });
        }
        let inner = if matches!(s, Step::While { .. }) {
            Some(number)
        } else {
            inside
        };
        s.blocks().into_iter().for_each(|b| collect(b, next, inner, out));
    }
}

/// Who owns memory, and how long it is in use.
pub(super) struct Memory<'p> {
    pub p: &'p mut Structured,
    /// Lives of the slots that own memory.
    lives: Vec<Option<Life>>,
    late: FxHashMap<Symbol, Option<Dim>>,
}

impl Memory<'_> {
    pub fn of(p: &mut Structured) -> Memory<'_> {
        Memory {
            lives: p.lives(),
            late: p.bounds(),
            p,
        }
    }

    /// Makes a result of a call the memory of an operand that nothing reads afterwards, or the operand that of the result, where
    /// one of them is a temporary and both are all of some memory. An output that may be the memory of an input takes in only
    /// what begins when nothing else reads the input, or by a step that `updates` it.
    pub fn merge(&mut self, from: SlotId, to: SlotId, c: &Call, updates: &dyn Fn(&Memory, usize) -> bool) -> bool {
        let (Some(from), Some(to)) = (self.whole(from), self.whole(to)) else {
            return false;
        };
        let (a, b) = (self.p.slot(from), self.p.slot(to));
        let fits = from != to && matches!(a.storage, Storage::Temp(_)) && a.bytes() == b.bytes();
        if !fits || !self.dies(from, c) || !self.is_born(to, c.number) {
            return false;
        }
        let (owner, view) = match b.storage {
            Storage::Temp(_) => (from, to),
            Storage::Output(_) if self.p.aliased(to).is_none_or(|i| self.is_free(i, from, updates)) => (to, from),
            _ => return false,
        };
        self.p.slots[view.0 as usize].storage = Storage::View {
            of: owner,
            offset: Dim::ZERO,
        };
        let lives = [owner, view].map(|s| self.life(s));
        let both = lives.into_iter().flatten().reduce(|a, b| (a.0.min(b.0), a.1.max(b.1)));
        self.lives[owner.0 as usize] = both;
        self.lives[view.0 as usize] = None;
        true
    }

    /// True when nothing reads an input any more where a temporary begins, but a step that updates it.
    fn is_free(&self, input: SlotId, temp: SlotId, updates: &dyn Fn(&Memory, usize) -> bool) -> bool {
        let (Some(read), Some(temp)) = (self.life(input), self.life(temp)) else {
            return self.life(input).is_none();
        };
        read.1 < temp.0 || (read.1 == temp.0 && updates(self, temp.0))
    }

    /// True when a call is the last step that uses the memory of a slot.
    fn dies(&self, s: SlotId, c: &Call) -> bool {
        // What was there before a loop is there in its next iteration.
        let here = |l: Life| l.1 == c.number && c.inside.is_none_or(|start| start < l.0);
        self.life(self.p.root(s)).is_some_and(here)
    }

    /// True when a step is the first that uses the memory of a slot.
    pub fn is_born(&self, s: SlotId, number: usize) -> bool {
        self.life(self.p.root(s)).is_some_and(|l| l.0 == number)
    }

    /// The slot that owns the memory of one, where that is all of it, row-major, and has its size before the run.
    fn whole(&self, s: SlotId) -> Option<SlotId> {
        let (root, start) = self.p.place(s);
        let owner = self.p.slot(root);
        let plain = owner.layout.is_row_major() && !owner.is_late(&self.late) && start.is(0);
        (plain && self.p.slot(s).bytes() == owner.bytes()).then_some(root)
    }

    fn life(&self, s: SlotId) -> Option<Life> {
        self.lives[s.0 as usize]
    }
}

/// The operands that a kernel writes.
fn written(k: &Kernel) -> Vec<usize> {
    (0..k.operands.len())
        .filter(|&i| k.operands[i].role != Role::In)
        .collect()
}
