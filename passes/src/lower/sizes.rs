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
use brolga_ir::{Dim, Graph, Guard, Symbol};
use rustc_hash::{FxHashMap, FxHashSet};
use std::sync::Arc;

impl ProgramBuilder<'_> {
    /// Checks of what a region assumes of sizes that are known before it runs.
    pub(super) fn assumptions(&self) -> Vec<Step> {
        let own = |g: &&Guard| {
            let mut own = false;
            g.for_each_symbol(&mut |s| own |= self.graph.reads.iter().any(|r| r.symbol == *s));
            own
        };
        let known = self.graph.guards.iter().filter(|g| !own(g));
        let check = |guard: &Guard| Step::Check {
            guard: guard.clone(),
            origin: "".into(),
        };
        known.map(check).collect()
    }

    /// Reads a size, and checks what is assumed of it.
    pub(super) fn read(&mut self, read: &Read, from: SlotId) -> Result<(), String> {
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
        // Guards are checked when the last of their symbols is known.
        let last = self.graph.reads.iter().rev();
        for guard in &self.graph.guards {
            let mut symbols: Vec<Symbol> = vec![];
            guard.for_each_symbol(&mut |s| symbols.push(s.clone()));
            if last
                .clone()
                .find(|r| symbols.contains(&r.symbol))
                .is_some_and(|r| r.symbol == *symbol)
            {
                self.program.steps.push(Step::Check {
                    guard: guard.clone(),
                    origin: origin.clone(),
                });
            }
        }
        Ok(())
    }
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
    let has_memory = |s: &&Step| matches!(s, Step::Alloc { .. });
    let given: FxHashSet<SlotId> = nested(&program.steps)
        .into_iter()
        .filter(has_memory)
        .flat_map(|s| {
            let mut slot = None;
            s.for_each_slot(&mut |s| slot = Some(s));
            slot
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

/// The guards that a program checks when it begins: those about the symbols of its inputs.
pub(super) fn at_entry(graph: &Graph) -> Vec<Guard> {
    let of_inputs = |d: &Dim| {
        let mut all = true;
        d.for_each_symbol(&mut |s| all &= graph.symbols.contains(s));
        all
    };
    let guards = graph
        .guards
        .iter()
        .filter(|g| of_inputs(&g.left) && of_inputs(&g.right));
    guards.cloned().collect()
}
