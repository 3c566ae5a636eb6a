//! Sizes that data tell: steps that read them, and memory for what has them.
//!
//! ```text
//! read n = %3 <= 2*m  -->  read n = s3 <= 2*m
//! %5: f32[n] = …           alloc s5
//!                          call @…(…, s5)
//! ```

use super::ProgramBuilder;
use brolga_ir::graph::Read;
use brolga_ir::program::{Program, SlotId, Step, Storage, nested};
use brolga_ir::{Graph, Guard, Symbol};
use rustc_hash::{FxHashMap, FxHashSet};
use std::sync::Arc;

impl ProgramBuilder<'_> {
    /// Checks of what a region assumes of sizes that are known before it runs.
    pub(super) fn assumptions(&self) -> Vec<Step> {
        let check = |guard: Guard| Step::Check {
            guard,
            origin: "".into(),
        };
        at_entry(self.graph).into_iter().map(check).collect()
    }

    /// Reads a size, and checks what is assumed of it.
    pub(super) fn read(&mut self, read: &Read, from: SlotId) {
        let Read {
            symbol, bound, origin, ..
        } = read;
        self.late.push(symbol.clone());
        self.program.steps.push(Step::Read {
            symbol: symbol.clone(),
            from,
            bound: bound.clone(),
            origin: origin.clone(),
        });
        let guards = self.graph.guards.iter();
        let checks = guards
            .filter(|g| last_read(self.graph, g) == Some(symbol))
            .map(|guard| Step::Check {
                guard: guard.clone(),
                origin: origin.clone(),
            });
        self.program.steps.extend(checks);
    }
}

/// The symbol of a guard that is known last, where it is one that its graph reads.
fn last_read<'g>(graph: &'g Graph, guard: &Guard) -> Option<&'g Symbol> {
    let mut symbols = vec![];
    guard.for_each_symbol(&mut |s| symbols.push(s.clone()));
    let mut reads = graph.reads.iter().rev().map(|r| &r.symbol);
    reads.find(|s| symbols.contains(s))
}

/// The guards that are checked when a program or a region begins: those about nothing that is read in it.
pub(super) fn at_entry(graph: &Graph) -> Vec<Guard> {
    let guards = graph.guards.iter().filter(|g| last_read(graph, g).is_none());
    guards.cloned().collect()
}

/// Gives memory to every slot whose size only the run tells and that has none, before its first use in the block in which the last of
/// its symbols is read.
pub(crate) fn allocate<K>(program: &mut Program<K>) {
    let late: FxHashSet<Symbol> = nested(&program.steps)
        .into_iter()
        .filter_map(Step::name)
        .cloned()
        .collect();
    if late.is_empty() {
        return;
    }
    let given: FxHashSet<SlotId> = nested(&program.steps)
        .into_iter()
        .filter_map(|s| match s {
            Step::Alloc { slot, .. } => Some(*slot),
            _ => None,
        })
        .collect();
    let mut sizes: FxHashMap<SlotId, Vec<Symbol>> = FxHashMap::default();
    for (i, slot) in program.slots.iter().enumerate() {
        let id = SlotId(i as u32);
        if !matches!(slot.storage, Storage::Temp(_) | Storage::Output(_)) || given.contains(&id) {
            continue;
        }
        let mut symbols = vec![];
        for d in &slot.ty.shape {
            d.for_each_symbol(&mut |s| symbols.extend(late.contains(s).then(|| s.clone())));
        }
        if !symbols.is_empty() {
            sizes.insert(id, symbols);
        }
    }
    let asked: FxHashMap<Symbol, Arc<str>> = nested(&program.steps)
        .into_iter()
        .filter_map(|s| match s {
            Step::Read { symbol, origin, .. } => Some((symbol.clone(), origin.clone())),
            _ => None,
        })
        .collect();
    let steps = std::mem::take(&mut program.steps);
    program.steps = block(program, steps, &mut FxHashSet::default(), &mut sizes, &asked);
    // No step uses an output without elements; who gets it is told its extents.
    let empty = |s: &SlotId| matches!(program.slot(*s).storage, Storage::Output(_)) && program.slot(*s).ty.is_empty();
    let mut left: Vec<SlotId> = sizes.keys().copied().filter(empty).collect();
    left.sort_unstable();
    for slot in left {
        let origin = sizes[&slot]
            .iter()
            .find_map(|s| asked.get(s))
            .cloned()
            .unwrap_or_default();
        program.steps.push(Step::Alloc { slot, origin });
    }
}

/// A block with the steps that give memory; `sizes` are the slots that have none yet, `asked` the nodes that ask for sizes.
fn block<K>(
    program: &Program<K>,
    steps: Vec<Step>,
    known: &mut FxHashSet<Symbol>,
    sizes: &mut FxHashMap<SlotId, Vec<Symbol>>,
    asked: &FxHashMap<Symbol, Arc<str>>,
) -> Vec<Step> {
    let mut out = Vec::with_capacity(steps.len());
    for mut step in steps {
        let mut used = vec![];
        for s in nested(std::slice::from_ref(&step)) {
            s.for_each_slot(&mut |slot| used.push(program.root(slot)));
        }
        for slot in used {
            let symbols = sizes.get(&slot);
            let ready = symbols.filter(|symbols| symbols.iter().all(|s| known.contains(s)));
            if let Some(symbols) = ready {
                // A copy is of no node: whoever asks for the size is named.
                let asks = symbols.iter().find_map(|s| asked.get(s)).cloned();
                let origin = Some(origin(&step)).filter(|o| !o.is_empty()).or(asks);
                out.push(Step::Alloc {
                    slot,
                    origin: origin.unwrap_or_default(),
                });
                sizes.remove(&slot);
            }
        }
        for inner in step.blocks_mut() {
            // What a block reads is known in that block.
            let mut known = known.clone();
            let steps = std::mem::take(inner);
            *inner = block(program, steps, &mut known, sizes, asked);
        }
        known.extend(step.name().cloned());
        out.push(step);
    }
    out
}

/// The model node that a step is for; that of the first step in its blocks where it has none itself.
fn origin(step: &Step) -> Arc<str> {
    match step {
        Step::Call { origin, .. } => origin.first().cloned().unwrap_or_default(),
        Step::Host { origin, .. } | Step::Read { origin, .. } | Step::Check { origin, .. } => origin.clone(),
        _ => step
            .blocks()
            .into_iter()
            .flatten()
            .map(origin)
            .find(|o| !o.is_empty())
            .unwrap_or_default(),
    }
}
