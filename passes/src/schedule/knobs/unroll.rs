//! Which short loops are repeated in code.

use super::Knob;
use brolga_ir::index::Ix;
use brolga_ir::loops::{LoopKind, Stmt, visit};

/// About how many statements a serial loop may become when it is repeated in code; 0 repeats none.
pub const UNROLL: Knob = Knob {
    name: "unroll",
    default: |_| 48,
    tries: &[0, 16, 128],
    apply: |k, budget| unroll(&mut k.body, budget),
};

/// The most iterations of a loop that is repeated in code.
const MOST_REPEATED: i64 = 4;

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

#[cfg(test)]
mod tests {
    use super::super::tests::settled;

    #[test]
    fn short_loops_are_repeated() {
        let copy = "r0: f32 = load b0[i1] store b1[i1] = r0";
        let body = format!("for i0 serial 0..1 {{ for i1 serial 0..4 {{ {copy} }} }} for i1 serial 0..5 {{ {copy} }}");
        let text = settled(&body, "unroll", 48);
        assert!(text.contains("for i0 unrolled 0..1"), "{text}");
        assert!(text.contains("for i1 unrolled 0..4"), "{text}");
        assert!(text.contains("for i1 serial 0..5"), "{text}");
        let text = settled(&format!("for i1 serial 0..4 {{ {copy} }}"), "unroll", 0);
        assert!(text.contains("for i1 serial 0..4"), "{text}");
    }
}
