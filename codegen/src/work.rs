//! How much work a kernel is, which decides whether workers share it.

use brolga_ir::Dim;
use brolga_ir::index::{Ix, Term};
use brolga_ir::loops::{LoopKind, Stmt};

/// About how many cycles a body takes.
pub(crate) fn work(body: &[Stmt]) -> Dim {
    let mut sum = Dim::ZERO;
    for s in body {
        let w = match s {
            Stmt::For { kind, extent, body, .. } => {
                let n = match kind {
                    // A statement on four lanes is one instruction.
                    LoopKind::Vector => Dim::Const(extent.as_const().unwrap_or(1).max(4) / 4),
                    _ => bound(extent),
                };
                &n * &work(body)
            }
            Stmt::If { then, .. } => work(then),
            Stmt::Tile(t) => {
                let [(n0, _), (n1, _)] = &t.blocks;
                let columns = Dim::Const(i64::from(t.max_rows.max(1)));
                let steps = &(&bound(n0) * &bound(n1)) * &bound(&t.k);
                &(&columns * &steps) + 50
            }
            Stmt::Set(..) | Stmt::Store { .. } | Stmt::Check { .. } | Stmt::Barrier => Dim::ONE,
        };
        sum = &sum + &w;
    }
    sum
}

/// An extent without loop variables: a partial block counts as a whole one.
fn bound(e: &Ix) -> Dim {
    let mut d = e.offset.clone();
    for (t, c) in &e.terms {
        if let Term::Min(_, most) = t {
            d = &d + &(most * c);
        } else {
            d = &d + 8;
        }
    }
    d
}
