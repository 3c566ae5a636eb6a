//! Small element types as the bytes that they are: what printers of loops see of them.
//!
//! ```text
//! loops @k(b0: f8e5m2[n] in, …)                 loops @k(b0: u8[n] in, …)
//!   r0: f8e5m2 = load b0[i0]           -->        r0: u8 = load b0[i0]
//!   r1: u8 = bitcast u8 r0                        r1: u8 = r0
//! ```
//!
//! Invariant: conversions are expansions over bytes, so that no other primitive has such an operand.

use brolga_ir::DType;
use brolga_ir::loops::{Expr, Kernel, RegInfo, Stmt};
use brolga_ir::scalar::Prim;
use std::borrow::Cow;

/// The kernel over the integers that its small types are stored as.
pub(crate) fn stored(k: &Kernel) -> Cow<'_, Kernel> {
    let is_small = |d: DType| d.small().is_some();
    if !k.buffers.iter().any(|b| is_small(b.dtype)) && !k.regs.iter().any(|r| is_small(r.dtype)) {
        return Cow::Borrowed(k);
    }
    let mut out = k.clone();
    for b in &mut out.buffers {
        b.dtype = b.dtype.stored();
    }
    for r in &mut out.regs {
        r.dtype = r.dtype.stored();
    }
    rewrite(&mut out.body, &out.regs);
    Cow::Owned(out)
}

fn rewrite(body: &mut [Stmt], regs: &[RegInfo]) {
    for s in body {
        match s {
            Stmt::For { body, .. } => rewrite(body, regs),
            Stmt::If { then, .. } => rewrite(then, regs),
            Stmt::Set(_, e) => {
                if let Expr::Prim(Prim::Bitcast(to), [x, ..]) = e {
                    let to = to.stored();
                    *e = match regs[x.0 as usize].dtype == to {
                        true => Expr::Copy(*x),
                        false => Expr::Prim(Prim::Bitcast(to), [*x; 3]),
                    };
                }
            }
            Stmt::Store { .. } | Stmt::Check { .. } | Stmt::Barrier | Stmt::Tile(_) => {}
        }
    }
}
