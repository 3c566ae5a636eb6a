//! Walks over nested statements, and what a statement names.
//!
//! ```text
//! for i0 serial 0..n {                 visited: the loop, r0 = …, the inner loop, r1 = … (on 8 lanes), the store (on 8)
//!   r0 = load b0[i0]
//!   for i1 vector 0..8 { r1 = mul r0 r0; store b1[8*i0 + i1] = r1 }
//! }
//! ```

use super::{Buf, Expr, LoopKind, Stmt, Tile};
use crate::Dim;
use crate::index::{Bound, Ix, Reg};

/// Calls `f` with every statement, those inside another right after it, and the lanes of the vector loop that it stands in:
/// 0 outside of one.
pub fn visit<'s>(stmts: &'s [Stmt], f: &mut dyn FnMut(&'s Stmt, u32)) {
    fn go<'s>(stmts: &'s [Stmt], lanes: u32, f: &mut dyn FnMut(&'s Stmt, u32)) {
        for s in stmts {
            f(s, lanes);
            match s {
                Stmt::For { kind, extent, body, .. } => {
                    let inner = match kind {
                        LoopKind::Vector => extent.as_const().map_or(1, |n| n.clamp(1, 1 << 16) as u32),
                        _ => lanes,
                    };
                    go(body, inner, f);
                }
                Stmt::If { then, .. } => go(then, lanes, f),
                Stmt::Set(..) | Stmt::Store { .. } | Stmt::Check { .. } | Stmt::Barrier | Stmt::Tile(_) => {}
            }
        }
    }
    go(stmts, 0, f);
}

/// Calls `f` with the register of every assignment.
pub fn visit_sets(stmts: &[Stmt], f: &mut dyn FnMut(Reg)) {
    visit(stmts, &mut |s, _| {
        if let Stmt::Set(r, _) = s {
            f(*r);
        }
    });
}

/// Calls `f` with every index expression of statements, as [`Stmt::for_each_index`] does.
pub fn visit_indices(stmts: &[Stmt], f: &mut dyn FnMut(&Ix)) {
    visit(stmts, &mut |s, _| s.for_each_index(f));
}

/// Calls `f` with every dim of statements, as [`Ix::for_each_dim_mut`] does.
pub fn for_each_dim_mut(stmts: &mut [Stmt], f: &mut dyn FnMut(&mut Dim)) {
    fn bounds(b: &mut [Bound], f: &mut dyn FnMut(&mut Dim)) {
        for b in b {
            b.index.for_each_dim_mut(f);
            f(&mut b.extent);
        }
    }
    for s in stmts {
        match s {
            Stmt::For { kind, extent, body, .. } => {
                if let LoopKind::Parallel(grain) = kind {
                    f(&mut grain.work);
                }
                extent.for_each_dim_mut(f);
                for_each_dim_mut(body, f);
            }
            Stmt::Set(_, Expr::Load { index, guard, .. }) => {
                index.for_each_dim_mut(f);
                bounds(guard, f);
            }
            Stmt::Set(_, Expr::Index(i)) => i.for_each_dim_mut(f),
            Stmt::Set(_, Expr::InBounds(b)) => bounds(b, f),
            Stmt::If { bounds: b, then } => {
                bounds(b, f);
                for_each_dim_mut(then, f);
            }
            Stmt::Store { index, .. } => index.for_each_dim_mut(f),
            Stmt::Tile(t) => t.indices_mut().for_each(|e| e.for_each_dim_mut(f)),
            Stmt::Set(_, Expr::Const(_) | Expr::Prim(..) | Expr::Copy(_) | Expr::Lane(..))
            | Stmt::Check { .. }
            | Stmt::Barrier => {}
        }
    }
}

fn bounds(b: &[Bound], f: &mut dyn FnMut(&Ix)) {
    for b in b {
        f(&b.index);
        f(&Ix::constant(b.extent.clone()));
    }
}

impl Stmt {
    /// Calls `f` with every index expression of the statement itself, not of those inside it; extents of bounds are constant
    /// ones.
    pub fn for_each_index(&self, f: &mut dyn FnMut(&Ix)) {
        match self {
            Stmt::For { extent, .. } => f(extent),
            Stmt::Set(_, Expr::Load { index, guard, .. }) => {
                f(index);
                bounds(guard, f);
            }
            Stmt::Set(_, Expr::Index(i)) => f(i),
            Stmt::Set(_, Expr::InBounds(b)) | Stmt::If { bounds: b, .. } => bounds(b, f),
            Stmt::Store { index, .. } => f(index),
            Stmt::Tile(t) => t.indices().for_each(f),
            Stmt::Set(_, Expr::Const(_) | Expr::Prim(..) | Expr::Copy(_) | Expr::Lane(..))
            | Stmt::Check { .. }
            | Stmt::Barrier => {}
        }
    }

    /// Calls `f` with every register that the statement itself reads, in its indices too, as often as it does.
    pub fn for_each_read(&self, f: &mut dyn FnMut(Reg)) {
        self.for_each_index(&mut |ix| ix.for_each_reg(f));
        match self {
            Stmt::Set(_, Expr::Prim(p, args)) => args[..p.arity()].iter().for_each(|r| f(*r)),
            Stmt::Set(_, Expr::Copy(r) | Expr::Lane(r, _)) => f(*r),
            Stmt::Store { value, .. } => f(*value),
            Stmt::Check { holds, .. } => f(*holds),
            Stmt::Set(_, Expr::Const(_) | Expr::Load { .. } | Expr::Index(_) | Expr::InBounds(_))
            | Stmt::For { .. }
            | Stmt::If { .. }
            | Stmt::Barrier
            | Stmt::Tile(_) => {}
        }
    }
}

impl Tile {
    /// Every buffer that a tile reads.
    pub fn reads(&self) -> impl Iterator<Item = Buf> {
        let scales = self.scales.iter().flat_map(|s| s.buffers()).map(|(b, ..)| b);
        [self.a, self.b].into_iter().chain(scales)
    }

    /// Every index expression of a tile.
    pub fn indices(&self) -> impl Iterator<Item = &Ix> {
        let [(n0, s0), (n1, s1)] = &self.blocks;
        let all = [
            &self.a_index,
            &self.a_row,
            &self.a_k,
            n0,
            s0,
            n1,
            s1,
            &self.k,
            &self.b_index,
            &self.c_index,
            &self.c_row,
            &self.rows,
            &self.cols,
        ];
        let ahead = self.ahead.iter().flat_map(|a| [&a.turn, &a.of]);
        let scales = self.scales.iter().flat_map(|s| [&s.a_index, &s.a_block, &s.b_index]);
        all.into_iter().chain(ahead).chain(scales)
    }

    /// The same, to be changed.
    fn indices_mut(&mut self) -> impl Iterator<Item = &mut Ix> {
        let [(n0, s0), (n1, s1)] = &mut self.blocks;
        let all = [
            &mut self.a_index,
            &mut self.a_row,
            &mut self.a_k,
            n0,
            s0,
            n1,
            s1,
            &mut self.k,
            &mut self.b_index,
            &mut self.c_index,
            &mut self.c_row,
            &mut self.rows,
            &mut self.cols,
        ];
        let ahead = self.ahead.iter_mut().flat_map(|a| [&mut a.turn, &mut a.of]);
        let scales = self.scales.iter_mut();
        let scales = scales.flat_map(|s| [&mut s.a_index, &mut s.a_block, &mut s.b_index]);
        all.into_iter().chain(ahead).chain(scales)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::loops::Kernel;

    #[test]
    fn statements_are_visited_in_order_with_their_lanes() {
        let k: Kernel = "loops @k(b0: f32[n] in, b1: f32[8*n] out) symbols(n) {
            for i0 serial 0..n {
                r0: f32 = load b0[i0]
                if (i0 in 0..n) {
                    for i1 vector 0..8 {
                        r1: f32 = mul r0 r0
                        r2: i64 = index i1
                        store b1[8*i0 + r2] = r1
                    }
                }
            }
        }"
        .parse()
        .expect("a kernel");
        let (mut lanes, mut sets, mut reads, mut indices) = (vec![], vec![], vec![], vec![]);
        visit(&k.body, &mut |s, n| {
            lanes.push(n);
            s.for_each_read(&mut |r| reads.push(r.0));
        });
        visit_sets(&k.body, &mut |r| sets.push(r.0));
        visit_indices(&k.body, &mut |i| indices.push(i.to_string()));
        assert_eq!(lanes, [0, 0, 0, 0, 8, 8, 8]);
        assert_eq!(sets, [0, 1, 2]);
        assert_eq!(reads, [0, 0, 2, 1]);
        assert_eq!(indices, ["n", "i0", "i0", "n", "8", "i1", "8*i0 + r2"]);
    }
}
