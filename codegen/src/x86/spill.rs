//! Registers that move to the frame.
//!
//! ```text
//! v5 = load [g0]                v9 = load [g0]
//! …                             s0 = v9
//! v7 = add v6, v5        -->    …
//!                               v10 = s0
//!                               v7 = add v6, v10
//! ```
//!
//! Invariant: no value of such a register is anywhere but in its slot, beyond the operation that reads or writes it.

use super::vir::{Class, Function, G, K, Op, Slot, V};

/// Writes a function anew with these registers in its frame. `origin` says of each register whose value it has, and learns of
/// the new ones.
pub(super) fn spill(function: &mut Function, numbers: &[u32], origin: &mut Vec<u32>) {
    let mut slots: Vec<Option<Slot>> = vec![None; function.classes().len()];
    for n in numbers {
        let class = function.classes()[*n as usize];
        slots[*n as usize] = Some(function.slot(class));
    }
    let old = std::mem::take(&mut function.ops);
    for g in function.params.clone() {
        if let Some(slot) = slots[g.0 as usize] {
            function.push(Op::SpillGeneral { slot, src: g });
        }
    }
    let mut touched: Vec<(Class, u32, u32, bool, bool)> = vec![];
    for mut op in old {
        touched.clear();
        op.visit(|class, n, role| {
            if slots.get(n as usize).copied().flatten().is_none() {
                return;
            }
            match touched.iter_mut().find(|t| t.1 == n) {
                Some(t) => (t.3, t.4) = (t.3 | role.reads(), t.4 | role.writes()),
                None => touched.push((class, n, n, role.reads(), role.writes())),
            }
        });
        for (class, n, short, reads, _) in &mut touched {
            *short = function.register(*class);
            origin.push(origin[*n as usize]);
            let slot = slots[*n as usize].expect("it has a slot");
            if *reads {
                function.push(match class {
                    Class::Vector => Op::ReloadVector { dst: V(*short), slot },
                    Class::General => Op::ReloadGeneral { dst: G(*short), slot },
                    Class::Mask => Op::ReloadMask { dst: K(*short), slot },
                });
            }
        }
        op.visit_mut(|_, n, _| {
            if let Some(t) = touched.iter().find(|t| t.1 == *n) {
                *n = t.2;
            }
        });
        function.push(op);
        for (class, n, short, _, writes) in &touched {
            let slot = slots[*n as usize].expect("it has a slot");
            if *writes {
                function.push(match class {
                    Class::Vector => Op::SpillVector { slot, src: V(*short) },
                    Class::General => Op::SpillGeneral { slot, src: G(*short) },
                    Class::Mask => Op::SpillMask { slot, src: K(*short) },
                });
            }
        }
    }
}
