//! The memory plan: an offset in one arena for every temporary.
//!
//! Live ranges are in steps. With known sizes, temporaries are placed largest first at the lowest offset that is free
//! during their whole life (as in TensorFlow Lite's greedy-by-size planner; Pisarchyk and Lee, arXiv 2001.03288). With
//! symbolic sizes an offset must hold for all values of the symbols: temporaries share a block only where the sizes are
//! equal, or one is provably no larger, and blocks lie one after the other.
//!
//! Invariant: every offset and size is below 2^63, or an expression that `NAME_plan` checks to be. An offset is a sum of
//! sizes of blocks, which are not negative, so it is below the arena's size.
//!
//! ```text
//! s4: live 0..2, 768 bytes      -->  at 0
//! s5: live 1..3, 512 bytes           at 768
//! s6: live 3..4, 768 bytes           at 0
//! ```

use brolga_ir::Dim;
use brolga_ir::program::{Program, SlotId, Step, Storage};
use petgraph::graph::UnGraph;

struct Temp {
    slot: usize,
    bytes: Dim,
    first: usize,
    last: usize,
}

/// Places every temporary of the main steps, and sets the arena's size.
///
/// # Errors
/// When a slot or the arena has 2^63 bytes or more, whatever the symbols are.
pub fn plan(program: &mut Program) -> Result<(), String> {
    for (i, s) in program.slots.iter().enumerate() {
        if s.bytes().is_too_large() {
            return Err(format!(
                "s{i}, {}, is too large: its size in bytes is beyond 64 bits",
                s.ty
            ));
        }
    }
    let mut temps: Vec<Temp> = vec![];
    for (step, s) in program.steps.iter().enumerate() {
        let touched: Vec<SlotId> = match s {
            Step::Call { args, .. } => args.clone(),
            Step::Copy { from, to, .. } => vec![*from, *to],
            Step::Host { inputs, outputs, .. } => inputs.iter().chain(outputs).copied().collect(),
        };
        for id in touched {
            let slot = program.root(id).0 as usize;
            if !matches!(program.slots[slot].storage, Storage::Temp(_)) {
                continue;
            }
            match temps.iter_mut().find(|t| t.slot == slot) {
                Some(t) => t.last = step,
                None => {
                    let bytes = crate::lower::aligned(&program.slots[slot].bytes());
                    temps.push(Temp {
                        slot,
                        bytes,
                        first: step,
                        last: step,
                    });
                }
            }
        }
    }
    let known: Option<Vec<i64>> = temps.iter().map(|t| t.bytes.as_const()).collect();
    let (offsets, total) = match known {
        Some(sizes) => by_size(&temps, &sizes).ok_or("the arena is too large: its size in bytes is beyond 64 bits")?,
        None => in_blocks(&temps),
    };
    if total.is_too_large() {
        return Err("the arena is too large: its size in bytes is beyond 64 bits".into());
    }
    for (t, offset) in temps.iter().zip(offsets) {
        program.slots[t.slot].storage = Storage::Temp(Some(offset));
    }
    program.arena = Some(total);
    Ok(())
}

/// Which temporaries are live at the same time, and so must not overlap.
fn interference(temps: &[Temp]) -> UnGraph<(), (), usize> {
    let pairs = (0..temps.len()).flat_map(|i| (0..i).map(move |j| (i, j)));
    let meet = |&(i, j): &(usize, usize)| temps[i].first <= temps[j].last && temps[j].first <= temps[i].last;
    let mut g = UnGraph::with_capacity(temps.len(), 0);
    temps.iter().for_each(|_| {
        g.add_node(());
    });
    g.extend_with_edges(pairs.filter(meet));
    g
}

/// `None` when the arena would be too large.
fn by_size(temps: &[Temp], sizes: &[i64]) -> Option<(Vec<Dim>, Dim)> {
    let conflicts = interference(temps);
    let mut order: Vec<usize> = (0..temps.len()).collect();
    order.sort_by_key(|&i| (-sizes[i], temps[i].first, i));
    let mut at: Vec<Option<i64>> = vec![None; temps.len()];
    let mut total = 0;
    for i in order {
        let placed = conflicts.neighbors(i.into()).filter_map(|j| {
            let j = j.index();
            // No overflow: the end was part of `total`.
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
    let place = |a: Option<i64>| Dim::Const(a.expect("every temporary is placed"));
    Some((at.into_iter().map(place).collect(), Dim::Const(total)))
}

fn in_blocks(temps: &[Temp]) -> (Vec<Dim>, Dim) {
    struct Block {
        offset: Dim,
        bytes: Dim,
        busy_until: usize,
    }
    let mut blocks: Vec<Block> = vec![];
    let mut end = Dim::ZERO;
    let offsets = temps.iter().map(|t| {
        let fits = |b: &Block| b.busy_until < t.first && (&b.bytes - &t.bytes).is_nonnegative();
        // An equal block before a larger one.
        let found = blocks
            .iter()
            .position(|b| fits(b) && b.bytes == t.bytes)
            .or_else(|| blocks.iter().position(fits));
        match found {
            Some(i) => {
                blocks[i].busy_until = t.last;
                blocks[i].offset.clone()
            }
            None => {
                let offset = end.clone();
                end = &end + &t.bytes;
                blocks.push(Block {
                    offset: offset.clone(),
                    bytes: t.bytes.clone(),
                    busy_until: t.last,
                });
                offset
            }
        }
    });
    let offsets = offsets.collect();
    (offsets, end)
}

#[cfg(test)]
mod tests {
    use super::*;
    use brolga_ir::program::Slot;
    use brolga_ir::{DType, Type};

    /// Three temporaries of an extent, two of which live at the same time.
    fn arena(extent: Dim) -> Result<Dim, String> {
        let slot = Slot {
            ty: Type::new(DType::F32, vec![extent]),
            storage: Storage::Temp(None),
            packed: false,
        };
        let copy = |from, to| Step::Copy {
            rows: None,
            from: SlotId(from),
            to: SlotId(to),
        };
        let mut program: Program = Program {
            name: "p".into(),
            symbols: vec!["n".into()],
            guards: vec![],
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
}
