//! Which parameters steer a kernel: whose elements tell where it reads and writes, or how often it does.
//!
//! ```text
//! for i0 serial 0..n {
//!   r0: i64 = load b0[i0]          b0 steers: its elements are places in b1
//!   r1: f32 = load b1[r0]          b1 does not: what it holds is only computed with
//!   store b2[i0] = r1
//! }
//! ```
//!
//! Statements have no other control than bounds and extents, which are index expressions; what no index expression is made of can change
//! values only. Registers and buffers count as a whole, whatever the order of statements, so that more may be said to steer than does.

use super::{Buf, Expr, Kernel, Scope, Stmt, visit};
use crate::index::Reg;
use rustc_hash::FxHashSet;

impl Kernel {
    /// For each parameter, whether its elements steer the kernel, or reach a parameter that is `written` and steers what follows.
    pub fn steering(&self, written: &[bool]) -> Vec<bool> {
        let of = |at: usize| written.get(at).copied().unwrap_or(false);
        let mut buffers: FxHashSet<Buf> = (0..self.params().count())
            .filter(|&at| self.buffers[at].scope == Scope::Out && of(at))
            .map(|at| Buf(at as u32))
            .collect();
        let mut regs: FxHashSet<Reg> = FxHashSet::default();
        visit(&self.body, &mut |s, _| {
            s.for_each_index(&mut |ix| {
                ix.for_each_reg(&mut |r| {
                    regs.insert(r);
                })
            });
        });
        loop {
            let before = (regs.len(), buffers.len());
            visit(&self.body, &mut |s, _| reach(s, &mut regs, &mut buffers));
            if (regs.len(), buffers.len()) == before {
                return (0..self.params().count())
                    .map(|at| buffers.contains(&Buf(at as u32)))
                    .collect();
            }
        }
    }
}

/// Adds what a statement makes registers and buffers of that steer.
fn reach(s: &Stmt, regs: &mut FxHashSet<Reg>, buffers: &mut FxHashSet<Buf>) {
    match s {
        Stmt::Set(r, e) if regs.contains(r) => {
            if let Expr::Load { buffer, .. } = e {
                buffers.insert(*buffer);
            }
            s.for_each_read(&mut |r| {
                regs.insert(r);
            });
        }
        Stmt::Store { buffer, value, .. } if buffers.contains(buffer) => {
            regs.insert(*value);
        }
        Stmt::Tile(t) if buffers.contains(&t.c) => buffers.extend(t.reads()),
        Stmt::Set(..)
        | Stmt::Store { .. }
        | Stmt::Tile(_)
        | Stmt::For { .. }
        | Stmt::If { .. }
        | Stmt::Check { .. }
        | Stmt::Barrier => {}
    }
}

#[cfg(test)]
mod tests {
    use super::Kernel;

    fn steering(body: &str, written: bool) -> Vec<bool> {
        let text = format!("loops @k(b0: i32[n] in, b1: f32[n] in, b2: f32[n] out) symbols(n) {{ {body} }}");
        let k: Kernel = text.parse().expect("a kernel");
        k.steering(&[false, false, written])
    }

    #[test]
    fn places_steer_and_values_do_not() {
        let body = "for i0 serial 0..n {
            r0: i32 = load b0[i0]
            r1: i64 = cast i64 r0
            r2: i64 = add r1 r1
            r3: f32 = load b1[r2]
            r4: f32 = mul r3 r3
            store b2[i0] = r4
        }";
        assert_eq!(steering(body, false), [true, false, false]);
        assert_eq!(steering(body, true), [true, true, true]);
    }

    #[test]
    fn bounds_extents_and_guards_steer() {
        let load = "r0: i32 = load b0[0] r1: i64 = cast i64 r0 r2: f32 = load b1[0]";
        for then in [
            "if (r1 in 0..n) { store b2[0] = r2 }",
            "for i0 serial 0..r1 { store b2[0] = r2 }",
            "store b2[r1] = r2",
            "r3: f32 = load b1[0] where (r1 in 0..n) else f32 0.0 store b2[0] = r3",
        ] {
            assert_eq!(
                steering(&format!("{load} {then}"), false),
                [true, false, false],
                "{then}"
            );
        }
    }
}
