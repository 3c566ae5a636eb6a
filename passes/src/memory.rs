//! The memory plan: an offset in one arena for every temporary.
//!
//! Live ranges are in steps. With known sizes, temporaries are placed largest first at the lowest offset that is free
//! during their whole life (as in TensorFlow Lite's greedy-by-size planner; Pisarchyk and Lee, arXiv 2001.03288), or in the order
//! in which they are born, where that takes less. With
//! symbolic sizes an offset must hold for all values of the symbols: temporaries share a block where their sizes are
//! provably in order, the block is as large as the largest, and blocks lie one after the other. Where a block ends is a
//! `let` of the program, the sum of where the one before ends and its own size, so that `n` blocks are `n` sums.
//!
//! A temporary of a size that only the run tells is as large as its bound here; without one it is moved to the heap.
//!
//! Invariant: every offset and size is below 2^63, or an expression that `NAME_plan` checks to be. An offset is a sum of
//! sizes of blocks, which are not negative, so it is below the arena's size.
//!
//! ```text
//! temp s4: f32[h, w]                let arena.1 = 64*floordiv(4*h*w + 63, 64)
//! temp s5: f32[h + 2, w]            let arena.2 = arena.1 + 64*floordiv(4*h*w + 8*w + 63, 64)
//! temp s6: f32[h, w]          -->   temp s4: f32[h, w] at 0
//!                                   temp s5: f32[h + 2, w] at arena.1
//!                                   temp s6: f32[h, w] at 0
//! ```
//!
//! Decision (2026-11-26): sums are named. Written out, offset `k` is a polynomial of `k` terms that the entry function
//! computes: 1,000 temporaries of different sizes took 32 s to compile, where the sums take 0.1 s.

use brolga_ir::program::{Let, Life, Program, Slot, Storage};
use brolga_ir::{Dim, Symbol};
use petgraph::graph::UnGraph;
use rustc_hash::FxHashMap;
use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// Blocks that are compared with a temporary, of those that are free and look as if they fit it.
const MAX_COMPARED: usize = 8;

struct Temp {
    slot: usize,
    size: Size,
    life: Life,
}

/// A size in bytes, as a product of extents, none of which is negative: `NAME_plan` checks the extents of temporaries.
#[derive(Clone, PartialEq)]
struct Size {
    bytes: Dim,
    /// The known factors.
    known: i64,
    /// The others.
    extents: Vec<Dim>,
}

impl Size {
    /// The size of a slot, or the largest that it can have, where something bounds it.
    fn of(slot: &Slot, late: &FxHashMap<Symbol, Option<Dim>>) -> Option<Size> {
        let mut shape = slot.storage_shape();
        if slot.is_late(late) {
            for d in &mut shape {
                // An extent that is negative fails the run before it is needed.
                *d = Dim::max(&Dim::ZERO, &d.upper_bound(late)?);
            }
        }
        let element = slot.ty.dtype.bytes() as i64;
        let mut size = Size {
            bytes: &brolga_ir::dim::product(&shape) * element,
            known: element,
            extents: vec![],
        };
        for d in shape {
            match d.as_const() {
                Some(n) => size.known = size.known.saturating_mul(n),
                None => size.extents.push(d),
            }
        }
        Some(size)
    }

    /// True when it is shown to be no larger: each factor is, or what they come to.
    fn at_most(&self, o: &Size) -> bool {
        let each = || self.extents.iter().zip(&o.extents).all(|(a, b)| a.at_most(b));
        (self.known <= o.known && self.extents.len() == o.extents.len() && each()) || self.bytes.at_most(&o.bytes)
    }
}

/// Places every temporary of the main steps, and sets the arena's size.
///
/// # Errors
/// When a slot or the arena has 2^63 bytes or more, whatever the symbols are.
pub fn plan<K>(program: &mut Program<K>) -> Result<(), String> {
    for (i, s) in program.slots.iter().enumerate() {
        if s.bytes().is_too_large() {
            return Err(format!(
                "s{i}, {}, is too large: its size in bytes is beyond 64 bits",
                s.ty
            ));
        }
    }
    let (temps, unbounded) = temporaries(program);
    for slot in unbounded {
        program.slots[slot].storage = Storage::Heap;
    }
    let too_large = || "the arena is too large: its size in bytes is beyond 64 bits".to_string();
    let (offsets, total): (Vec<Dim>, Dim) = match known(&temps) {
        Some(sizes) => {
            let (offsets, total) = smallest(&temps, &sizes).ok_or_else(too_large)?;
            (offsets.into_iter().map(Dim::Const).collect(), Dim::Const(total))
        }
        None => {
            let (blocks, homes) = in_blocks(&temps, &program.symbols);
            let (starts, total) = sums(program, &blocks);
            (homes.into_iter().map(|b| starts[b].clone()).collect(), total)
        }
    };
    if total.is_too_large() || program.lets.iter().any(|l| l.value.is_too_large()) {
        return Err(too_large());
    }
    for (t, offset) in temps.iter().zip(offsets) {
        program.slots[t.slot].storage = Storage::Temp(Some(offset));
    }
    program.arena = Some(total);
    Ok(())
}

/// Bytes of the arena that a program needs: of a symbolic one, for two choices of its symbols. What is beyond 64 bits is as
/// large as can be.
pub fn needs<K>(program: &Program<K>) -> [i64; 2] {
    let (temps, _) = temporaries(program);
    if let Some(sizes) = known(&temps) {
        return [smallest(&temps, &sizes).map_or(i64::MAX, |(_, total)| total); 2];
    }
    let (blocks, _) = in_blocks(&temps, &program.symbols);
    let samples = blocks
        .iter()
        .map(|size| samples(&crate::lower::aligned(size), &program.symbols));
    samples.fold([0, 0], |sum, s| {
        [sum[0].saturating_add(s[0]), sum[1].saturating_add(s[1])]
    })
}

/// The temporaries in use, sorted by where lives begin, and the slots of those of a size that nothing bounds.
fn temporaries<K>(program: &Program<K>) -> (Vec<Temp>, Vec<usize>) {
    let late = program.bounds();
    let (mut temps, mut unbounded) = (vec![], vec![]);
    for (slot, life) in program.lives().into_iter().enumerate() {
        let (Some(life), Storage::Temp(_)) = (life, &program.slots[slot].storage) else {
            continue;
        };
        match Size::of(&program.slots[slot], &late) {
            Some(size) => temps.push(Temp { slot, size, life }),
            None => unbounded.push(slot),
        }
    }
    temps.sort_by_key(|t| (t.life.0, t.slot));
    (temps, unbounded)
}

/// The sizes, where all are known.
fn known(temps: &[Temp]) -> Option<Vec<i64>> {
    let size = |t: &Temp| crate::lower::aligned(&t.size.bytes).as_const();
    temps.iter().map(size).collect()
}

/// Which temporaries, sorted by where lives begin, live at the same time, and so must not overlap.
fn conflicts(temps: &[Temp]) -> UnGraph<(), (), usize> {
    let mut graph = UnGraph::with_capacity(temps.len(), 0);
    let mut alive: Vec<usize> = vec![];
    for (i, t) in temps.iter().enumerate() {
        graph.add_node(());
        alive.retain(|&j| temps[j].life.1 >= t.life.0);
        graph.extend_with_edges(alive.iter().map(|&j| (i, j)));
        alive.push(i);
    }
    graph
}

/// The offsets of temporaries, sorted by where lives begin, and the arena's size; `None` when it would be too large.
fn smallest(temps: &[Temp], sizes: &[i64]) -> Option<(Vec<i64>, i64)> {
    let conflicts = conflicts(temps);
    let by_birth: Vec<usize> = (0..temps.len()).collect();
    let mut by_size = by_birth.clone();
    by_size.sort_by_key(|&i| (-sizes[i], i));
    let all = [by_size, by_birth]
        .into_iter()
        .filter_map(|order| placed(&conflicts, sizes, order));
    all.min_by_key(|(_, total)| *total)
}

/// Places temporaries in an order, each at the lowest offset that is free.
fn placed(conflicts: &UnGraph<(), (), usize>, sizes: &[i64], order: Vec<usize>) -> Option<(Vec<i64>, i64)> {
    let mut at: Vec<Option<i64>> = vec![None; sizes.len()];
    let mut total = 0;
    for i in order {
        // No overflow: the end was part of `total`.
        let placed = conflicts.neighbors(i.into()).filter_map(|j| {
            let j = j.index();
            at[j].map(|start| (start, start + sizes[j]))
        });
        let mut busy: Vec<(i64, i64)> = placed.collect();
        busy.sort_unstable();
        let mut offset = 0i64;
        for (start, end) in busy {
            if offset.checked_add(sizes[i])? <= start {
                break;
            }
            offset = offset.max(end);
        }
        at[i] = Some(offset);
        total = total.max(offset.checked_add(sizes[i])?);
    }
    let place = |a: Option<i64>| a.expect("every temporary is placed");
    Some((at.into_iter().map(place).collect(), total))
}

/// A block, and how large it is for two choices of the symbols: sizes in order for all values are in order for these, so
/// most that are not need no proof.
struct Block {
    size: Size,
    samples: [i64; 2],
}

impl Block {
    fn new(size: &Size, symbols: &[Symbol]) -> Block {
        Block {
            size: size.clone(),
            samples: samples(&size.bytes, symbols),
        }
    }

    fn may_be_at_most(&self, o: &Block) -> bool {
        self.samples.iter().zip(&o.samples).all(|(a, b)| a <= b)
    }
}

/// A size for two choices of the symbols.
fn samples(size: &Dim, symbols: &[Symbol]) -> [i64; 2] {
    let sample = |value: &dyn Fn(usize) -> i64| {
        let lookup = |s: &str| symbols.iter().position(|x| **x == *s).map(value);
        size.eval(&lookup).unwrap_or(i64::MAX)
    };
    [
        sample(&|i| 20_011 + 97 * i as i64),
        sample(&|i| 40_009 - (89 * i as i64).min(30_000)),
    ]
}

/// The sizes of the blocks that temporaries share, and the block of each.
fn in_blocks(temps: &[Temp], symbols: &[Symbol]) -> (Vec<Dim>, Vec<usize>) {
    let mut blocks: Vec<Block> = vec![];
    let mut free: Vec<usize> = vec![];
    let mut busy: BinaryHeap<Reverse<(usize, usize)>> = BinaryHeap::new();
    let mut homes = vec![];
    for t in temps {
        while let Some(&Reverse((until, b))) = busy.peek()
            && until < t.life.0
        {
            busy.pop();
            free.push(b);
        }
        let block = Block::new(&t.size, symbols);
        let b = match find(&block, &blocks, &free) {
            Some((i, grows)) => {
                let b = free.swap_remove(i);
                if grows {
                    blocks[b] = block;
                }
                b
            }
            None => {
                blocks.push(block);
                blocks.len() - 1
            }
        };
        busy.push(Reverse((t.life.1, b)));
        homes.push(b);
    }
    (blocks.into_iter().map(|b| b.size.bytes).collect(), homes)
}

/// The free block for a size: an equal one, else the smallest that is provably larger, else the largest that is provably
/// smaller, which grows.
fn find(new: &Block, blocks: &[Block], free: &[usize]) -> Option<(usize, bool)> {
    if let Some(i) = free.iter().position(|&b| blocks[b].size.bytes == new.size.bytes) {
        return Some((i, false));
    }
    let nearest = |fits: &dyn Fn(&Block) -> bool| {
        let mut near: Vec<usize> = (0..free.len()).filter(|&i| fits(&blocks[free[i]])).collect();
        let away = |i: &usize| (blocks[free[*i]].samples[0].abs_diff(new.samples[0]), free[*i]);
        if near.len() > MAX_COMPARED {
            near.select_nth_unstable_by_key(MAX_COMPARED, away);
            near.truncate(MAX_COMPARED);
        }
        near.sort_by_key(away);
        near
    };
    let larger = nearest(&|b| new.may_be_at_most(b));
    if let Some(i) = larger.into_iter().find(|&i| new.size.at_most(&blocks[free[i]].size)) {
        return Some((i, false));
    }
    let smaller = nearest(&|b| b.may_be_at_most(new));
    let found = smaller.into_iter().find(|&i| blocks[free[i]].size.at_most(&new.size));
    found.map(|i| (i, true))
}

/// Lays blocks one after the other: where each starts, and where the last one ends. Those of known sizes come first, so
/// that their places are known; the ends of others become names of the program.
fn sums<K>(program: &mut Program<K>, blocks: &[Dim]) -> (Vec<Dim>, Dim) {
    let mut prefix = "arena".to_string();
    while program
        .symbols
        .iter()
        .chain(program.lets.iter().map(|l| &l.symbol))
        .any(|s| s.starts_with(&prefix))
    {
        prefix.push('_');
    }
    let mut starts = vec![Dim::ZERO; blocks.len()];
    let mut end = Dim::ZERO;
    let mut order: Vec<usize> = (0..blocks.len()).collect();
    order.sort_by_key(|&b| blocks[b].as_const().is_none());
    for b in order {
        starts[b] = end.clone();
        end = &end + &crate::lower::aligned(&blocks[b]);
        if end.as_const().is_none() && !end.is_too_large() {
            let symbol: Symbol = format!("{prefix}.{}", program.lets.len() + 1).into();
            program.lets.push(Let {
                symbol: symbol.clone(),
                value: end,
            });
            end = Dim::sym(&symbol);
        }
    }
    (starts, end)
}

#[cfg(test)]
mod tests {
    use super::*;
    use brolga_ir::program::{SlotId, Step};
    use brolga_ir::{DType, Type};

    /// Three temporaries of an extent, two of which live at the same time.
    fn arena(extent: Dim) -> Result<Dim, String> {
        let slot = Slot::new(Type::new(DType::F32, vec![extent]), Storage::Temp(None));
        let copy = |from, to| Step::Copy {
            rows: None,
            from: SlotId(from),
            to: SlotId(to),
        };
        let mut program: Program = Program {
            name: "p".into(),
            symbols: vec!["n".into()],
            guards: vec![],
            strings: vec![],
            lets: vec![],
            aliases: vec![],
            inputs: vec![],
            outputs: vec![],
            slots: vec![slot; 3],
            kernels: vec![],
            init: vec![],
            steps: vec![copy(0, 1), copy(1, 2)],
            arena: None,
        };
        plan(&mut program)?;
        Ok(program.arena.expect("it is planned"))
    }

    #[test]
    fn sums_of_sizes_do_not_overflow() {
        assert_eq!(arena(Dim::Const(1 << 59)), Ok(Dim::Const(1 << 62)));
        let e = arena(Dim::Const(1 << 60)).expect_err("2^63 bytes");
        assert!(e.contains("the arena is too large"), "{e}");
        let e = arena(Dim::Const(1 << 61)).expect_err("2^63 bytes");
        assert!(e.contains("s0, f32[2305843009213693952], is too large"), "{e}");
        let n = Dim::sym("n");
        assert!(arena(n.clone()).is_ok());
        assert!(arena(&n * (1 << 61)).is_err());
    }

    /// A chain of temporaries, of which each step reads one and writes the next.
    fn chain(types: Vec<Type>, symbols: &[&str]) -> Program {
        let steps = (1..types.len() as u32).map(|i| Step::Copy {
            from: SlotId(i - 1),
            to: SlotId(i),
            rows: None,
        });
        let slot = |ty| Slot::new(ty, Storage::Temp(None));
        let mut p = Program {
            name: "p".into(),
            symbols: symbols.iter().map(|s| (*s).into()).collect(),
            guards: vec![],
            strings: vec![],
            lets: vec![],
            aliases: vec![],
            inputs: vec![],
            outputs: vec![],
            slots: types.into_iter().map(slot).collect(),
            kernels: vec![],
            init: vec![],
            steps: steps.collect(),
            arena: None,
        };
        plan(&mut p).expect("it has a plan");
        p
    }

    fn offsets(p: &Program) -> Vec<String> {
        let at = |s: &Slot| match &s.storage {
            Storage::Temp(Some(at)) => at.to_string(),
            _ => "nowhere".into(),
        };
        p.slots.iter().map(at).collect()
    }

    #[test]
    fn a_provably_smaller_buffer_reuses_a_larger_one() {
        // Valid convolutions: each output is 2 smaller than the one before, along both axes.
        let valid = |i: i64| {
            let [h, w] = ["h", "w"].map(|s| &Dim::sym(s) - &Dim::Const(2 * i));
            Type::new(DType::F32, vec![Dim::ONE, h, w])
        };
        let p = chain((0..6).map(valid).collect(), &["h", "w"]);
        let two = ["0", "arena.1"];
        assert_eq!(offsets(&p), [two, two, two].concat());
        assert_eq!(p.lets.len(), 2);
        // The other way round the block grows: it is as large as the last that lies in it.
        let q = chain((0..6).rev().map(valid).collect(), &["h", "w"]);
        assert_eq!(offsets(&q), [two, two, two].concat());
        let sum = |p: &Program| {
            let mut env = vec![("h".into(), 100), ("w".into(), 50)];
            p.bind_lets(&mut env).expect("sizes are known");
            env.last().expect("a sum").1
        };
        let aligned = |i: i64| (4 * (100 - 2 * i) * (50 - 2 * i) + 63) / 64 * 64;
        assert_eq!((sum(&p), sum(&q)), (aligned(0) + aligned(1), aligned(1) + aligned(0)));
    }

    #[test]
    fn sizes_in_no_order_have_blocks_of_their_own() {
        let ty = |d: Dim| Type::new(DType::F32, vec![d]);
        let p = chain(
            vec![
                ty(Dim::sym("n")),
                ty(Dim::sym("m")),
                ty(Dim::Const(7)),
                ty(Dim::sym("n")),
            ],
            &["n", "m"],
        );
        // The known size comes first.
        assert_eq!(offsets(&p), ["64", "arena.1", "0", "64"]);
        assert_eq!(p.arena, Some(Dim::sym("arena.2")));
    }

    #[test]
    fn names_are_new_and_as_many_as_blocks() {
        let n = 300;
        let ty = |i: i64| Type::new(DType::F32, vec![&Dim::sym("n") + i, &Dim::sym("arena.1") + (n - i)]);
        let p = chain((0..n).map(ty).collect(), &["n", "arena.1"]);
        assert_eq!(p.lets.len(), n as usize);
        assert_eq!(&*p.lets[0].symbol, "arena_.1");
        let terms: usize = p
            .lets
            .iter()
            .map(|l| l.value.terms().len())
            .max()
            .expect("there are lets");
        assert_eq!(terms, 2, "a sum of where the block before ends and a size");
        p.verify().expect_err("s0 is read before it is written");
    }
}
