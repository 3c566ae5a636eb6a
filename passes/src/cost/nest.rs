//! A loop kernel's statements with how often each runs, for known sizes.
//!
//! ```text
//! for i0 serial 0..3 {                                   once, 3 iterations
//!   for i1 serial 0..least(7 - 3*i0, 3) { store … }      3 times, of 3 iterations at most; the store 7 times
//! }
//! ```
//!
//! A loop whose variable decides nothing about what runs inside counts by its extent. Of another one, all iterations are looked at
//! where they are few, else [`SAMPLES`] of them, the last one always: a partial block is the last one, so it is counted as it is.
//! A condition over integers from data counts as met, such an extent as 1.

use brolga_ir::Dim;
use brolga_ir::index::{Bound, Ix, Reg, Var};
use brolga_ir::loops::{self, Expr, LoopKind, Stmt, Tile};
use brolga_ir::scalar::Prim;
use rustc_hash::{FxHashMap, FxHashSet};
use std::cell::Cell;

/// Iterations of a loop that are looked at, where they differ.
const SAMPLES: i64 = 16;

/// A kernel's statements, counted.
pub struct Nest<'k> {
    /// The kernel.
    pub kernel: &'k loops::Kernel,
    /// The statements of its body.
    pub nodes: Vec<Node<'k>>,
    /// Iterations of each loop, at most.
    pub extents: FxHashMap<Var, i64>,
    /// What is known of integers in indices.
    pub integers: FxHashMap<Reg, Integer>,
    /// False where a size, a condition or an extent was not known.
    pub exact: bool,
}

/// A statement.
pub struct Node<'k> {
    /// The statement.
    pub stmt: &'k Stmt,
    /// How often it runs; a loop counts once for all its iterations, a statement in a vector loop once for all lanes.
    pub times: f64,
    /// Of a loop its iterations, of a tile its products, all in all.
    pub inside: f64,
    /// The largest sizes of a tile: rows, columns, steps, both outer sums.
    pub largest: [i64; 5],
    /// False for what only the rare side of a [`Prim::Rarely`] needs.
    pub usual: bool,
    /// The lanes of the vector loop around it, 0 outside of one.
    pub lanes: u32,
    /// The statements inside.
    pub nodes: Vec<Node<'k>>,
    /// Variables that decide what runs inside.
    decides: FxHashSet<Var>,
}

/// An integer that indices use.
#[derive(Clone, Debug)]
pub enum Integer {
    /// The value of an index expression, over variables only.
    Index(Ix),
    /// From data, so many times another one at most: the loops that it is read in.
    Data(Vec<Var>),
}

impl<'k> Nest<'k> {
    /// The kernel's statements, counted.
    pub fn new(kernel: &'k loops::Kernel, sizes: &dyn Fn(&str) -> Option<i64>) -> Nest<'k> {
        let integers = integers(kernel);
        let usual = usual(kernel);
        let mut nodes = nodes(&kernel.body, 0, &usual, &integers);
        let mut count = Count {
            sizes,
            integers: &integers,
            vars: FxHashMap::default(),
            extents: FxHashMap::default(),
            exact: Cell::new(true),
        };
        count.all(&mut nodes, 1.0);
        let (extents, exact) = (count.extents, count.exact.get());
        Nest {
            kernel,
            nodes,
            extents,
            integers,
            exact,
        }
    }

    /// Calls `f` with every node, those inside another right after it.
    pub fn visit<'n>(&'n self, f: &mut dyn FnMut(&'n Node<'k>)) {
        fn go<'n, 'k>(nodes: &'n [Node<'k>], f: &mut dyn FnMut(&'n Node<'k>)) {
            for n in nodes {
                f(n);
                go(&n.nodes, f);
            }
        }
        go(&self.nodes, f);
    }
}

impl Node<'_> {
    /// How many values an assignment of a register with so many lanes gives, each time: one a lane.
    pub fn values(&self, lanes: u32) -> f64 {
        f64::from(self.lanes.max(lanes).max(1))
    }
}

/// The value of an expression where variables and sizes have these; `None` where data tell.
pub fn value(
    ix: &Ix,
    integers: &FxHashMap<Reg, Integer>,
    var: &dyn Fn(Var) -> i64,
    size: &dyn Fn(&Dim) -> i64,
) -> Option<i64> {
    let data = Cell::new(false);
    let reg = |r: Reg| match integers.get(&r) {
        Some(Integer::Index(e)) => value(e, integers, var, size).unwrap_or(0),
        _ => {
            data.set(true);
            0
        }
    };
    let found = ix.eval(var, &reg, &|d| Some(size(d)));
    found.filter(|_| !data.get())
}

/// A dim's value; 1 where it has none.
pub fn size(d: &Dim, sizes: &dyn Fn(&str) -> Option<i64>, exact: &Cell<bool>) -> i64 {
    d.eval(sizes).unwrap_or_else(|| {
        exact.set(false);
        1
    })
}

fn nodes<'k>(
    stmts: &'k [Stmt],
    lanes: u32,
    usual: &FxHashSet<Reg>,
    integers: &FxHashMap<Reg, Integer>,
) -> Vec<Node<'k>> {
    let node = |stmt: &'k Stmt| {
        let mut decides = FxHashSet::default();
        let mut add = |ix: &Ix| vars_of(ix, integers, &mut decides);
        let inside = match stmt {
            Stmt::For { kind, extent, body, .. } => {
                add(extent);
                let inner = match kind {
                    LoopKind::Vector => extent.as_const().map_or(1, |n| n.max(1) as u32),
                    _ => lanes,
                };
                nodes(body, inner, usual, integers)
            }
            Stmt::If { bounds, then } => {
                bounds.iter().for_each(|b| add(&b.index));
                nodes(then, lanes, usual, integers)
            }
            Stmt::Tile(t) => {
                tile_sizes(t).into_iter().for_each(&mut add);
                vec![]
            }
            Stmt::Set(..) | Stmt::Store { .. } | Stmt::Check { .. } | Stmt::Barrier => vec![],
        };
        for n in &inside {
            decides.extend(&n.decides);
        }
        Node {
            stmt,
            times: 0.0,
            inside: 0.0,
            largest: [0; 5],
            usual: !matches!(stmt, Stmt::Set(r, _) if !usual.contains(r)),
            lanes,
            nodes: inside,
            decides,
        }
    };
    stmts.iter().map(node).collect()
}

fn tile_sizes(t: &Tile) -> [&Ix; 5] {
    [&t.rows, &t.cols, &t.k, &t.blocks[0].0, &t.blocks[1].0]
}

fn vars_of(ix: &Ix, integers: &FxHashMap<Reg, Integer>, out: &mut FxHashSet<Var>) {
    ix.for_each_var(&mut |v| {
        out.insert(v);
    });
    ix.for_each_reg(&mut |r| {
        if let Some(Integer::Index(e)) = integers.get(&r) {
            e.for_each_var(&mut |v| {
                out.insert(v);
            });
        }
    });
}

/// What is known of a kernel's registers that are integers.
fn integers(kernel: &loops::Kernel) -> FxHashMap<Reg, Integer> {
    fn go(stmts: &[Stmt], around: &mut Vec<Var>, out: &mut FxHashMap<Reg, Integer>) {
        for s in stmts {
            match s {
                Stmt::Set(r, e) => {
                    let known = match e {
                        Expr::Index(ix) => {
                            let of = |r: Reg| match out.get(&r) {
                                Some(Integer::Index(e)) => e.clone(),
                                _ => Ix::reg(r),
                            };
                            Some(ix.substitute(&Ix::var, &of))
                        }
                        Expr::Copy(of) => match out.get(of) {
                            Some(Integer::Index(e)) => Some(e.clone()),
                            _ => None,
                        },
                        _ => None,
                    };
                    let mut over_vars = true;
                    known.iter().for_each(|e| e.for_each_reg(&mut |_| over_vars = false));
                    let new = match known {
                        Some(e) if over_vars && !out.contains_key(r) => Integer::Index(e),
                        _ => Integer::Data(around.clone()),
                    };
                    out.insert(*r, new);
                }
                Stmt::For { var, body, .. } => {
                    around.push(*var);
                    go(body, around, out);
                    around.pop();
                }
                Stmt::If { then, .. } => go(then, around, out),
                Stmt::Store { .. } | Stmt::Check { .. } | Stmt::Barrier | Stmt::Tile(_) => {}
            }
        }
    }
    let mut out = FxHashMap::default();
    go(&kernel.body, &mut vec![], &mut out);
    out
}

/// The registers that something needs beside the rare side of a [`Prim::Rarely`].
fn usual(kernel: &loops::Kernel) -> FxHashSet<Reg> {
    let (mut needed, mut open) = (FxHashSet::default(), vec![]);
    let mut setters: FxHashMap<Reg, Vec<&Stmt>> = FxHashMap::default();
    loops::visit(&kernel.body, &mut |s, _| match s {
        Stmt::Set(r, _) => setters.entry(*r).or_default().push(s),
        _ => s.for_each_read(&mut |r| open.push(r)),
    });
    while let Some(r) = open.pop() {
        if !needed.insert(r) {
            continue;
        }
        for s in setters.get(&r).into_iter().flatten() {
            match s {
                Stmt::Set(_, Expr::Prim(Prim::Rarely, [c, _, b])) => open.extend([*c, *b]),
                _ => s.for_each_read(&mut |r| open.push(r)),
            }
        }
    }
    needed
}

struct Count<'a> {
    sizes: &'a dyn Fn(&str) -> Option<i64>,
    integers: &'a FxHashMap<Reg, Integer>,
    vars: FxHashMap<Var, i64>,
    extents: FxHashMap<Var, i64>,
    exact: Cell<bool>,
}

impl Count<'_> {
    /// The value of an expression; `None` where data tell.
    fn value(&self, ix: &Ix) -> Option<i64> {
        let var = |v: Var| self.vars.get(&v).copied().unwrap_or(0);
        value(ix, self.integers, &var, &|d| size(d, self.sizes, &self.exact))
    }

    /// An extent: none when negative, 1 where data tell.
    fn extent(&self, ix: &Ix) -> i64 {
        let value = self.value(ix);
        if value.is_none() {
            self.exact.set(false);
        }
        value.unwrap_or(1).max(0)
    }

    fn holds(&self, bounds: &[Bound]) -> bool {
        bounds.iter().all(|b| match self.value(&b.index) {
            Some(i) => (0..size(&b.extent, self.sizes, &self.exact)).contains(&i),
            None => {
                self.exact.set(false);
                true
            }
        })
    }

    fn all(&mut self, nodes: &mut [Node], times: f64) {
        for n in nodes {
            n.times += times;
            match n.stmt {
                Stmt::For { var, kind, extent, .. } => {
                    let extent = self.extent(extent);
                    n.inside += times * extent as f64;
                    let most = self.extents.entry(*var).or_default();
                    *most = (*most).max(extent);
                    let decides = n.nodes.iter().any(|n| n.decides.contains(var));
                    if *kind == LoopKind::Vector {
                        // Its lanes are one run.
                        self.all(&mut n.nodes, times);
                    } else if !decides {
                        self.all(&mut n.nodes, times * extent as f64);
                    } else {
                        for (value, weight) in samples(extent) {
                            self.vars.insert(*var, value);
                            self.all(&mut n.nodes, times * weight as f64);
                        }
                        self.vars.remove(var);
                    }
                }
                Stmt::If { bounds, .. } => {
                    if self.holds(bounds) {
                        self.all(&mut n.nodes, times);
                    }
                }
                Stmt::Tile(t) => {
                    let sizes = tile_sizes(t).map(|e| self.extent(e));
                    n.inside += times * sizes.iter().map(|n| *n as f64).product::<f64>();
                    n.largest
                        .iter_mut()
                        .zip(sizes)
                        .for_each(|(most, n)| *most = (*most).max(n));
                }
                Stmt::Set(..) | Stmt::Store { .. } | Stmt::Check { .. } | Stmt::Barrier => {}
            }
        }
    }
}

/// Iterations to look at, and for how many each stands.
fn samples(extent: i64) -> Vec<(i64, i64)> {
    if extent <= SAMPLES {
        return (0..extent).map(|i| (i, 1)).collect();
    }
    let (others, last) = (SAMPLES - 1, extent - 1);
    let mut out: Vec<(i64, i64)> = (0..others)
        .map(|k| (k * last / others, (k + 1) * last / others))
        .map(|(from, to)| ((from + to - 1) / 2, to - from))
        .collect();
    out.push((last, 1));
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn partial_blocks_and_triangles_are_counted_as_they_are() {
        let k: loops::Kernel = "loops @k(b0: f32[n] out) symbols(n) {
            for i0 serial 0..ceildiv(n, 14) {
                for i1 serial 0..least(n - 14*i0, 14) {
                    r0: f32 = const f32 1.0
                    store b0[14*i0 + i1] = r0
                }
                for i2 serial 0..i0 {
                    r1: f32 = const f32 1.0
                    store b0[i2] = r1
                }
            }
        }"
        .parse()
        .expect("a kernel");
        for n in [1, 14, 15, 200, 4001] {
            let nest = Nest::new(&k, &|_| Some(n));
            let mut stores = vec![];
            nest.visit(&mut |n| {
                if matches!(n.stmt, Stmt::Store { .. }) {
                    stores.push(n.times);
                }
            });
            let blocks = (n + 13) / 14;
            assert_eq!(stores[0], n as f64);
            let triangle = (blocks * (blocks - 1) / 2) as f64;
            assert!(
                (stores[1] - triangle).abs() <= 0.05 * triangle,
                "{n}: {stores:?}, {triangle}"
            );
            assert!(nest.exact);
        }
        assert!(!Nest::new(&k, &|_| None).exact);
    }

    #[test]
    fn samples_stand_for_all() {
        for n in [0, 1, 16, 17, 100, 12345] {
            let all = samples(n);
            assert_eq!(all.iter().map(|(_, w)| w).sum::<i64>(), n);
            assert!(all.iter().all(|(i, w)| (0..n).contains(i) && *w > 0));
        }
    }
}
