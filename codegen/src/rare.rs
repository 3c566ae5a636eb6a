//! What hardly ever runs: statements that only the rare side of a [`Prim::Rarely`] needs. They stand behind a branch
//! that skips them when no lane asks for them; the results are the same.
//!
//! ```text
//! r1 = mul r0 r0                          r2 = sub r0 r0
//! r2 = sub r0 r0                          r3 = lt r2 r0
//! r3 = lt r2 r0             -->           if any r3 { r1 = mul r0 r0; r4 = select r3 r1 r2 } else { r4 = r2 }
//! r4 = rarely r3 r1 r2
//! ```

use brolga_ir::DType;
use brolga_ir::index::Reg;
use brolga_ir::loops::{Expr, Kernel, Stmt, visit};
use brolga_ir::scalar::Prim;
use rustc_hash::FxHashMap;

/// How often a kernel's registers are read and assigned.
#[derive(Default)]
pub(crate) struct Uses {
    reads: FxHashMap<Reg, usize>,
    sets: FxHashMap<Reg, usize>,
}

impl Uses {
    /// Counts over a kernel; nothing where there is no `rarely`.
    pub fn of(k: &Kernel) -> Uses {
        let mut uses = Uses::default();
        let mut any = false;
        visit(&k.body, &mut |s, _| {
            any |= matches!(s, Stmt::Set(_, Expr::Prim(Prim::Rarely, _)))
        });
        if any {
            visit(&k.body, &mut |s, _| uses.count(s));
        }
        uses
    }

    fn count(&mut self, s: &Stmt) {
        if let Stmt::Set(r, _) = s {
            *self.sets.entry(*r).or_default() += 1;
        }
        s.for_each_read(&mut |r| *self.reads.entry(r).or_default() += 1);
    }
}

/// The rare statements of a list of statements.
#[derive(Default)]
pub(crate) struct Rare {
    moved: Vec<bool>,
    cones: FxHashMap<usize, Vec<usize>>,
}

impl Rare {
    /// Finds them; `k` is the kernel that they are of.
    pub fn of(body: &[Stmt], uses: &Uses, k: &Kernel) -> Rare {
        let mut rare = Rare::default();
        if uses.sets.is_empty() {
            return rare;
        }
        for (i, s) in body.iter().enumerate() {
            let Stmt::Set(r, Expr::Prim(Prim::Rarely, [c, a, b])) = s else {
                continue;
            };
            if k.reg(*r).dtype == DType::Bool || a == b || a == c {
                continue;
            }
            let mut claimed = FxHashMap::from_iter([(*a, 1)]);
            let mut cone = vec![];
            for (j, s) in body[..i].iter().enumerate().rev() {
                let Stmt::Set(r, e @ (Expr::Prim(..) | Expr::Const(_))) = s else {
                    continue;
                };
                if claimed.get(r).copied() != uses.reads.get(r).copied() || uses.sets.get(r) != Some(&1) {
                    continue;
                }
                cone.push(j);
                if let Expr::Prim(p, args) = e {
                    args[..p.arity()]
                        .iter()
                        .for_each(|x| *claimed.entry(*x).or_default() += 1);
                }
            }
            if !cone.is_empty() {
                cone.reverse();
                rare.moved.resize(body.len(), false);
                cone.iter().for_each(|&j| rare.moved[j] = true);
                rare.cones.insert(i, cone);
            }
        }
        rare
    }

    /// True for a statement that runs only behind a branch.
    pub fn moved(&self, i: usize) -> bool {
        self.moved.get(i).copied().unwrap_or(false)
    }

    /// The statements that the `rarely` at `i` runs behind its branch, in order.
    pub fn cone(&self, i: usize) -> Option<&[usize]> {
        self.cones.get(&i).map(Vec::as_slice)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_nothing_else_needs_is_rare() {
        let k: Kernel = "loops @k(b0: f32[1] in, b1: f32[1] out) {
            r0: f32 = load b0[0]
            r1: f32 = const f32 2.0
            r2: f32 = mul r0 r1
            r3: f32 = sqrt r2
            r4: f32 = add r3 r3
            r5: f32 = neg r2
            r6: bool = lt r1 r0
            r7: f32 = rarely r6 r4 r5
            store b1[0] = r7
        }"
        .parse()
        .expect("a kernel");
        let rare = Rare::of(&k.body, &Uses::of(&k), &k);
        // r2 serves r5 too.
        assert_eq!(rare.cone(7), Some(&[3, 4][..]));
        let moved: Vec<usize> = (0..k.body.len()).filter(|&i| rare.moved(i)).collect();
        assert_eq!(moved, [3, 4]);
    }
}
