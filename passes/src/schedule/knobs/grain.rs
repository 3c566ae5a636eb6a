//! From when on the workers are woken for a kernel's parallel loop.

use super::Knob;
use brolga_ir::Dim;
use brolga_ir::index::{Ix, Term};
use brolga_ir::loops::{LoopKind, Stmt};

/// Work from which on workers are woken, in cycles: it costs microseconds.
pub const DEFAULT: i64 = 40_000;

/// Cycles of work from which on the workers are woken for the parallel loop; of one inside of serial loops, in all their rounds.
pub const GRAIN: Knob = Knob {
    name: "grain",
    default: |_, _| DEFAULT,
    tries: &[0, 10_000, 160_000, i64::MAX],
    apply: |k, least| {
        let work = work(&k.body);
        if let Some(Stmt::For {
            kind: LoopKind::Parallel(grain),
            ..
        }) = k.body.last_mut()
        {
            (grain.work, grain.least) = (work, least);
        } else {
            inside(&mut k.body, &Dim::ONE, least);
        }
    },
};

/// Writes the work of parallel loops inside of serial ones, which come so many times.
fn inside(body: &mut [Stmt], times: &Dim, least: i64) {
    for s in body {
        let own = work(std::slice::from_ref(s));
        match s {
            Stmt::For {
                kind: LoopKind::Parallel(grain),
                ..
            } => (grain.work, grain.least) = (&own * times, least),
            Stmt::For { extent, body, .. } => inside(body, &(times * &bound(extent)), least),
            Stmt::If { then, .. } => inside(then, times, least),
            _ => {}
        }
    }
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
                let panels = Dim::Const(i64::from(t.max_rows.max(1)) * t.panels());
                let steps = &(&bound(n0) * &bound(n1)) * &bound(&t.k);
                &(&panels * &steps) + 50
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

#[cfg(test)]
mod tests {
    use super::super::tests::settled;

    #[test]
    fn the_work_of_a_loop_is_written() {
        let body = "for i0 parallel 0..n { for i1 vector 0..8 { r0: f32 = load b0[i1] store b1[i1] = r0 } }";
        let text = settled(body, "grain", 40_000);
        assert!(text.contains("for i0 parallel(4*n from 40000) 0..n {"), "{text}");
        let inner = "for i1 parallel 0..16 { for i2 vector 0..8 { r0: f32 = load b0[i2] store b1[i2] = r0 } }";
        let text = settled(&format!("for i0 serial 0..n {{ {inner} }}"), "grain", 40_000);
        assert!(text.contains("for i1 parallel(64*n from 40000) 0..16 {"), "{text}");
    }
}
