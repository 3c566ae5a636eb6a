//! What is settled when a CPU kernel's nest stands, and is then written in it: from when on the workers are woken for its
//! parallel loop, which short loops are repeated in code, where the constants of its vector loops stand.
//!
//! ```text
//! for i0 parallel 0..n {                          for i0 parallel(12*n from 40000) 0..n {
//!   for i1 serial 0..3 { … }             -->        for i1 unrolled 0..3 { … }
//! } }                                             } }
//! ```

use brolga_ir::index::{Ix, Term};
use brolga_ir::loops::{Expr, Grain, Kernel, LoopKind, Stmt, visit};
use brolga_ir::schedule::Budget;
use brolga_ir::{DType, Dim};

/// The most iterations of a loop that is repeated in code.
const MOST_REPEATED: i64 = 4;

/// Settles a kernel by the budget of its schedule.
pub fn settle(mut k: Kernel, budget: &Budget) -> Kernel {
    let all = work(&k.body);
    k.pooled = constants(&k) as i64 > budget.constants;
    unroll(&mut k.body, budget.unroll);
    if let Some(Stmt::For {
        kind: LoopKind::Parallel(grain),
        ..
    }) = k.body.last_mut()
    {
        *grain = Grain {
            work: all,
            least: budget.grain,
        };
    }
    k
}

/// About how many cycles a body takes.
fn work(body: &[Stmt]) -> Dim {
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
                let rows = Dim::Const(i64::from(t.max_rows.max(1)));
                let steps = &(&bound(n0) * &bound(n1)) * &bound(&t.k);
                &(&rows * &steps) + 50
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

/// Repeats short serial loops in code: those of a single iteration always, and a few iterations of a short body without
/// loops of its own, whose indices then become displacements.
fn unroll(body: &mut [Stmt], budget: i64) {
    for s in body {
        match s {
            Stmt::For { kind, extent, body, .. } => {
                let short = extent.as_const().is_some_and(|n| n <= repeated(body, budget));
                // Loops inside are judged as they stood.
                unroll(body, budget);
                if *kind == LoopKind::Serial && short {
                    (*kind, *extent) = (LoopKind::Unrolled, Ix::constant(extent.as_const().unwrap_or(0).max(0)));
                }
            }
            Stmt::If { then, .. } => unroll(then, budget),
            Stmt::Set(..) | Stmt::Store { .. } | Stmt::Check { .. } | Stmt::Barrier | Stmt::Tile(_) => {}
        }
    }
}

/// Up to how many iterations a loop over a body is repeated in code.
fn repeated(body: &[Stmt], budget: i64) -> i64 {
    let (mut size, mut innermost) = (0, true);
    visit(body, &mut |s, lanes| match s {
        // A tile fills any budget.
        Stmt::Tile(_) => size += budget.max(1),
        Stmt::For { kind, extent, .. } => {
            size += 1 + i64::from(lanes) / 16;
            innermost &= *kind == LoopKind::Vector || extent.as_const().is_some_and(|n| n <= 1);
        }
        _ => size += 1 + i64::from(lanes) / 16,
    });
    match budget / size.max(1) {
        n @ 2.. if innermost => n.min(MOST_REPEATED),
        _ => 1,
    }
}

/// How many float constants vector loops have.
fn constants(k: &Kernel) -> usize {
    let mut found: Vec<u64> = vec![];
    visit(&k.body, &mut |s, lanes| {
        let Stmt::Set(r, Expr::Const(bits)) = s else { return };
        // Bits of 64 that hold the constant on every lane: two f32 that are an f64 share a vector.
        let all = match k.reg(*r).dtype {
            DType::F32 => bits & 0xffff_ffff | bits << 32,
            DType::F64 => *bits,
            _ => return,
        };
        if lanes > 0 && !found.contains(&all) {
            found.push(all);
        }
    });
    found.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    const BUDGET: Budget = Budget {
        grain: 40_000,
        unroll: 48,
        constants: 1,
    };

    fn settled(body: &str, budget: &Budget) -> String {
        let text = format!("loops @k(b0: f32[n] in, b1: f32[n] out) symbols(n) {{ {body} }}");
        let k: Kernel = text.parse().unwrap_or_else(|e| panic!("{e} in {text}"));
        settle(k, budget).to_string()
    }

    #[test]
    fn the_work_of_a_loop_is_written() {
        let text = settled(
            "for i0 parallel 0..n { for i1 vector 0..8 { r0: f32 = load b0[i1] store b1[i1] = r0 } }",
            &BUDGET,
        );
        assert!(text.contains("for i0 parallel(4*n from 40000) 0..n {"), "{text}");
    }

    #[test]
    fn short_loops_are_repeated() {
        let copy = "r0: f32 = load b0[i1] store b1[i1] = r0";
        let text = settled(
            &format!("for i0 serial 0..1 {{ for i1 serial 0..4 {{ {copy} }} }} for i1 serial 0..5 {{ {copy} }}"),
            &BUDGET,
        );
        assert!(text.contains("for i0 unrolled 0..1"), "{text}");
        assert!(text.contains("for i1 unrolled 0..4"), "{text}");
        assert!(text.contains("for i1 serial 0..5"), "{text}");
        let none = Budget { unroll: 0, ..BUDGET };
        let text = settled(&format!("for i1 serial 0..4 {{ {copy} }}"), &none);
        assert!(text.contains("for i1 serial 0..4"), "{text}");
    }

    #[test]
    fn many_constants_stand_in_memory() {
        let body = "for i0 vector 0..8 { r0: f32 = const f32 1.0 r1: f32 = const f32 2.0 r2: f32 = const f32 2.0 }";
        assert!(settled(body, &BUDGET).contains(") symbols(n) pooled {"));
        let more = Budget { constants: 2, ..BUDGET };
        assert!(!settled(body, &more).contains("pooled"));
    }
}
