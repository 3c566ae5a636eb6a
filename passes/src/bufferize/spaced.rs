//! Rows that would share the sets of a cache stand a line further apart.
//!
//! ```text
//! temp s2: f32[512, 2048]              temp s2: f32[512, 2048] layout(0, 1 gap 16)
//! call @gelu_1(s1, s2)           -->   call @gelu_1(s1, s2)
//! call @dense_2(s2, s3, s4)            call @dense_2(s2, s3, s4)
//! ```
//!
//! A register tile reads up to 14 rows of its left operand side by side. Where rows are whole multiples of 4 KiB, their elements of one step all fall
//! into one set of the first level (64 sets of 64 bytes, 8 to 12 lines each), and push each other out: a product of 512 by 768 by 2048 takes
//! 1.2 of the time that it takes with gaps (Zen 4, 17.0 and 14.2 ms). So temporaries that products read in rows get a gap of a line behind each, where every
//! kernel that reads or writes them can be told.

use crate::lower::Structured;
use brolga_ir::index::{Ix, Var};
use brolga_ir::program::{SlotId, Step, Storage};
use brolga_ir::structured::{IterKind, Kernel, Part, Place, Read, Stage};
use brolga_ir::{Layout, Type};

/// The bytes after which the sets of a first-level cache of x86-64 repeat; elsewhere they may be a part of that period, which helps less.
const PERIOD: i64 = 4096;

/// A line of it, in bytes.
const LINE: i64 = 64;

/// Gives rows their distance.
pub(super) fn run(p: &mut Structured) {
    let classes = Classes::of(p);
    let spaced = |root: usize| classes.wanted[root] && !classes.blocked[root];
    for s in 0..p.slots.len() {
        let root = classes.root(s);
        if spaced(root) {
            p.slots[s].layout = layout(&p.slots[s].ty);
        }
    }
    for (k, kernel) in p.kernels.iter_mut().enumerate() {
        for (i, operand) in kernel.operands.iter_mut().enumerate() {
            let root = classes.root(classes.first[k] + i);
            if spaced(root) {
                operand.layout = layout(&operand.ty);
            }
        }
    }
}

/// The elements of a row, where rows repeat the sets.
fn row(ty: &Type) -> Option<i64> {
    let n = ty.shape.last()?.as_const().filter(|&n| n > 0)?;
    ((n * ty.dtype.bytes() as i64) % PERIOD == 0).then_some(n)
}

fn layout(ty: &Type) -> Layout {
    let axes: Vec<usize> = (0..ty.rank()).collect();
    Layout::new(&axes, &[], LINE as u32 / ty.dtype.bytes() as u32).expect("a tensor with rows has axes")
}

/// Slots and operands of kernels that have one layout: first the slots, then the operands, kernel by kernel.
struct Classes {
    parent: Vec<usize>,
    /// The first operand of each kernel.
    first: Vec<usize>,
    /// By root: somebody needs it as it is.
    blocked: Vec<bool>,
    /// By root: a product reads it in rows.
    wanted: Vec<bool>,
}

impl Classes {
    fn of(p: &Structured) -> Classes {
        let mut next = p.slots.len();
        let operands = |k: &Kernel| {
            let first = next;
            next += k.operands.len();
            first
        };
        let first: Vec<usize> = p.kernels.iter().map(operands).collect();
        let mut c = Classes {
            parent: (0..next).collect(),
            first,
            blocked: vec![false; next],
            wanted: vec![false; next],
        };
        for (s, slot) in p.slots.iter().enumerate() {
            let whole = match &slot.storage {
                Storage::Temp(_) => true,
                Storage::View { of, offset } => {
                    let owner = p.slot(*of);
                    let same = offset.is(0) && slot.ty.len() == owner.ty.len() && row(&slot.ty) == row(&owner.ty);
                    c.join(s, of.0 as usize, !same);
                    same
                }
                _ => false,
            };
            c.block(s, !whole || !slot.layout.is_row_major() || row(&slot.ty).is_none());
        }
        for (k, kernel) in p.kernels.iter().enumerate() {
            for (i, operand) in kernel.operands.iter().enumerate() {
                let at = c.first[k] + i;
                c.block(at, kernel.schedule.is_some() || !operand.layout.is_row_major());
                c.wanted[at] = reads_rows(kernel, i);
            }
        }
        for steps in [&p.init, &p.steps] {
            c.steps(p, steps);
        }
        // What is known of members is known of the class.
        for at in 0..next {
            let root = c.root(at);
            c.blocked[root] |= c.blocked[at];
            c.wanted[root] |= c.wanted[at];
        }
        c
    }

    fn steps(&mut self, p: &Structured, steps: &[Step]) {
        for step in steps {
            match step {
                Step::Call { kernel, args, .. } => {
                    let operands = &p.kernels[*kernel as usize].operands;
                    for (i, (s, operand)) in args.iter().zip(operands).enumerate() {
                        let other = p.slot(*s).ty != operand.ty;
                        self.join(s.0 as usize, self.first[*kernel as usize] + i, other);
                    }
                }
                _ => step.for_each_slot(&mut |SlotId(s)| self.block(s as usize, true)),
            }
            step.blocks().into_iter().for_each(|b| self.steps(p, b));
        }
    }

    fn block(&mut self, at: usize, blocked: bool) {
        self.blocked[at] |= blocked;
    }

    /// Makes two members of one class, which is blocked where that does not fit.
    fn join(&mut self, a: usize, b: usize, blocked: bool) {
        let (a, b) = (self.root(a), self.root(b));
        self.blocked[a] |= blocked;
        self.blocked[b] |= blocked;
        self.parent[a.max(b)] = a.min(b);
    }

    fn root(&self, mut at: usize) -> usize {
        while self.parent[at] != at {
            at = self.parent[at];
        }
        at
    }
}

/// True where a sum of products walks along the rows of an operand, of which there are several.
fn reads_rows(k: &Kernel, operand: usize) -> bool {
    let ty = &k.operands[operand].ty;
    let Some(n) = row(ty) else { return false };
    let stage = |s: &Stage| {
        let sums = s.combine.is_some() && !s.scan && element_reads(s) > 1;
        let steps = (k.outer.len()..)
            .zip(&s.dims)
            .filter(|(_, d)| d.kind == IterKind::Reduction && d.extent.is(n));
        let steps: Vec<Ix> = steps.map(|(v, _)| Ix::var(Var(v as u32))).collect();
        sums && s.reads.iter().any(|r| match r {
            Read::Element {
                place: Place::Operand(o),
                map,
                ..
            } => *o as usize == operand && map.last().is_some_and(|last| steps.contains(last)),
            _ => false,
        })
    };
    !ty.len().is(n) && k.parts.iter().any(|part| matches!(part, Part::Stage(s) if stage(s)))
}

fn element_reads(s: &Stage) -> usize {
    s.reads.iter().filter(|r| matches!(r, Read::Element { .. })).count()
}
