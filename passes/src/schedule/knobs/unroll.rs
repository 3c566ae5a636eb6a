//! Which short loops are repeated in code.

use super::{Family, Knob};
use brolga_ir::index::Ix;
use brolga_ir::loops::{LoopKind, Stmt};

/// About how many statements a serial loop may become when it is repeated in code; 0 repeats none.
pub const UNROLL: Knob = Knob {
    name: "unroll",
    // Where bodies are assembled, code is cheap, and a statement on sixteen lanes one instruction. But short rows, whose stages go over
    // them again and again, are faster in loops: 0.93 of the time by 128, of 16 norms and sums of small models.
    default: |target, family| match (target.body_lanes(), family) {
        (Some(_), Family::Points) => 320,
        (Some(_), Family::Rows) => 128,
        (None, _) => 48,
    },
    tries: &[0, 16, 128, 320],
    apply: |k, budget| {
        unroll(&mut k.body, budget);
    },
};

/// The most iterations of a loop that is repeated in code.
const MOST_REPEATED: i64 = 7;

/// Repeats short serial loops in code: those of a single iteration always, and a few iterations of a short body without
/// loops of its own but such that are repeated too; indices then become displacements. Gives the size of the statements, none
/// where a loop is left.
fn unroll(body: &mut [Stmt], budget: i64) -> Option<i64> {
    let mut size = Some(0i64);
    for s in body {
        let own = match s {
            Stmt::For { kind, extent, body, .. } => {
                let inside = unroll(body, budget);
                let n = extent.as_const().map(|n| n.max(0));
                let repeated = |n: i64| inside.and_then(|size| n.checked_mul(size.max(1)));
                match (&kind, n) {
                    (LoopKind::Vector, Some(lanes)) => inside.map(|size| size * (1 + lanes / 16)),
                    (LoopKind::Serial, Some(n @ ..=1)) => {
                        (*kind, *extent) = (LoopKind::Unrolled, Ix::constant(n));
                        inside
                    }
                    (LoopKind::Serial, Some(n @ ..=MOST_REPEATED)) if repeated(n).is_some_and(|s| s <= budget) => {
                        (*kind, *extent) = (LoopKind::Unrolled, Ix::constant(n));
                        repeated(n)
                    }
                    (LoopKind::Unrolled, Some(n)) => repeated(n),
                    _ => None,
                }
            }
            Stmt::If { then, .. } => unroll(then, budget),
            // A tile fills any budget.
            Stmt::Tile(_) => None,
            Stmt::Set(..) | Stmt::Store { .. } | Stmt::Check { .. } | Stmt::Barrier => Some(1),
        };
        size = size.zip(own).map(|(a, b)| a + b);
    }
    size
}

#[cfg(test)]
mod tests {
    use super::super::tests::settled;

    #[test]
    fn short_loops_are_repeated() {
        let copy = "r0: f32 = load b0[i1] store b1[i1] = r0";
        let body = format!("for i0 serial 0..1 {{ for i1 serial 0..4 {{ {copy} }} }} for i1 serial 0..9 {{ {copy} }}");
        let text = settled(&body, "unroll", 48);
        assert!(text.contains("for i0 unrolled 0..1"), "{text}");
        assert!(text.contains("for i1 unrolled 0..4"), "{text}");
        assert!(text.contains("for i1 serial 0..9"), "{text}");
        let nested = format!("for i0 serial 0..3 {{ for i1 serial 0..4 {{ {copy} }} }}");
        assert!(settled(&nested, "unroll", 48).contains("for i0 unrolled 0..3"));
        assert!(settled(&nested, "unroll", 16).contains("for i0 serial 0..3"));
        let text = settled(&format!("for i1 serial 0..4 {{ {copy} }}"), "unroll", 0);
        assert!(text.contains("for i1 serial 0..4"), "{text}");
    }
}
