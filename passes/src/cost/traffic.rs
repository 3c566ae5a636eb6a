//! How many bytes come into a cache of some size while a kernel runs.
//!
//! What one iteration of a loop touches stays for the next one when it fits: then all iterations bring in each place once. Where it does
//! not fit, every iteration brings in what its own statements do. So the bytes follow from the nest, from the outermost loop inwards:
//!
//! ```text
//! for i0 serial 0..4 {                 an iteration touches 32 rows of b1 and one of b0: 8448 bytes
//!   for i1 serial 0..32 {              one iteration touches two rows: 512 bytes
//!     … b0[64*i0 …] … b1[64*i1 …]      cache of 16 KiB: 9216 bytes, each place once; of 4 KiB: 4 * 8448 bytes
//! ```
//!
//! (After the reuse distances of loop nests: Wolf and Lam, "A data locality optimizing algorithm", 1991.)

use super::constants::{LINE, SHARE, WRITE};
use super::footprint::Footprint;
use super::nest::{Nest, Node, size};
use super::work::for_each_access;
use brolga_ir::index::Var;
use brolga_ir::loops::{Buf, Scope, Stmt};
use rustc_hash::{FxHashMap, FxHashSet};
use std::cell::Cell;

/// The bytes of a kernel's loops.
pub(super) struct Traffic<'a> {
    nest: &'a Nest<'a>,
    sizes: &'a dyn Fn(&str) -> Option<i64>,
    /// Bytes that a run touches.
    pub footprint: f64,
    /// Bytes of each buffer that move when all that is touched moves once.
    once: Vec<(Buf, f64)>,
    loops: Vec<Level>,
}

/// A loop, or another statement that touches memory.
struct Level {
    /// How often it is entered.
    iterations: f64,
    /// Bytes that one iteration touches, and how many of them move.
    each: [f64; 2],
    /// Bytes that all iterations touch, and how many move.
    all: [f64; 2],
    inside: Vec<Level>,
}

impl<'a> Traffic<'a> {
    pub fn new(nest: &'a Nest<'a>, sizes: &'a dyn Fn(&str) -> Option<i64>) -> Traffic<'a> {
        let mut t = Traffic {
            nest,
            sizes,
            footprint: 0.0,
            once: vec![],
            loops: vec![],
        };
        t.loops = t.levels(&nest.nodes);
        let all = t.buffers(&nest.nodes, &|_| true);
        t.footprint = all.iter().map(|(_, [bytes, _])| bytes).sum();
        t.once = all.into_iter().map(|(b, [_, moved])| (b, moved)).collect();
        t
    }

    /// Bytes that come into a cache of so many bytes, or go back from it, in a run; between what touched a buffer before and
    /// the run, others touch `between` bytes.
    pub fn missed(&self, bytes: f64, between: &dyn Fn(Buf) -> f64) -> f64 {
        let room = SHARE * bytes;
        if self.footprint > room {
            return self.loops.iter().map(|l| l.bytes(room)).sum();
        }
        let gone = self.once.iter().filter(|(b, _)| self.footprint + between(*b) > room);
        gone.map(|(_, moved)| moved).sum()
    }

    fn levels(&self, nodes: &[Node]) -> Vec<Level> {
        let level = |n: &Node| {
            if n.times == 0.0 {
                return None;
            }
            match n.stmt {
                Stmt::For { var, .. } => {
                    let mut inner = FxHashSet::default();
                    vars(&n.nodes, &mut inner);
                    let each = self.touched(&n.nodes, &|v| inner.contains(&v));
                    let all = self.touched(&n.nodes, &|v| v == *var || inner.contains(&v));
                    Some(Level {
                        iterations: n.inside / n.times,
                        each,
                        all,
                        inside: self.levels(&n.nodes),
                    })
                }
                Stmt::If { .. } => {
                    let inside = self.levels(&n.nodes);
                    let each = self.touched(&n.nodes, &|_| false);
                    Some(Level {
                        iterations: 1.0,
                        each,
                        all: each,
                        inside,
                    })
                }
                _ => {
                    let each = self.touched(std::slice::from_ref(n), &|_| false);
                    (each[0] > 0.0).then_some(Level {
                        iterations: 1.0,
                        each,
                        all: each,
                        inside: vec![],
                    })
                }
            }
        };
        nodes.iter().filter_map(level).collect()
    }

    /// Bytes that statements touch while some loops run, in whole lines; and how many move, where what is written counts more.
    fn touched(&self, nodes: &[Node], moves: &dyn Fn(Var) -> bool) -> [f64; 2] {
        let all = self.buffers(nodes, moves);
        all.iter()
            .fold([0.0, 0.0], |sum, (_, b)| [sum[0] + b[0], sum[1] + b[1]])
    }

    /// [`Traffic::touched`] of each buffer.
    fn buffers(&self, nodes: &[Node], moves: &dyn Fn(Var) -> bool) -> Vec<(Buf, [f64; 2])> {
        let mut accesses: FxHashMap<Buf, Vec<Footprint>> = FxHashMap::default();
        fn go(t: &Traffic, nodes: &[Node], moves: &dyn Fn(Var) -> bool, accesses: &mut FxHashMap<Buf, Vec<Footprint>>) {
            for n in nodes {
                if n.times > 0.0 {
                    for_each_access(n, t.nest, t.sizes, moves, &mut |b, f| {
                        accesses.entry(b).or_default().push(f)
                    });
                    go(t, &n.nodes, moves, accesses);
                }
            }
        }
        go(self, nodes, moves, &mut accesses);
        let one = |(b, all): (Buf, Vec<Footprint>)| {
            let buffer = self.nest.kernel.buffer(b);
            let element = buffer.dtype.bytes() as f64;
            let len = size(&buffer.len, self.sizes, &Cell::new(true));
            let counted: f64 = all.iter().map(|f| f.count as f64 * element).sum();
            let lines: f64 = all.iter().map(|f| in_lines(f, element)).sum();
            let whole = Footprint::union(&all, len) as f64 * element;
            let bytes = (whole * lines / counted.max(1.0)).min((len as f64 * element).max(LINE));
            (b, [bytes, bytes * if buffer.scope == Scope::In { 1.0 } else { WRITE }])
        };
        accesses.into_iter().map(one).collect()
    }
}

/// Bytes of the lines that places lie in.
fn in_lines(f: &Footprint, element: f64) -> f64 {
    match f.steps.first() {
        Some((step, n)) if (*step as f64) * element < LINE => {
            let run = *n as f64 * *step as f64 * element;
            f.count as f64 / *n as f64 * run.max(LINE)
        }
        _ => f.count as f64 * LINE,
    }
}

fn vars(nodes: &[Node], out: &mut FxHashSet<Var>) {
    for n in nodes {
        if let Stmt::For { var, .. } = n.stmt {
            out.insert(*var);
        }
        vars(&n.nodes, out);
    }
}

impl Level {
    /// Bytes that move when it is entered once.
    fn bytes(&self, room: f64) -> f64 {
        match self.each[0] <= room || self.inside.is_empty() {
            true => self.all[1],
            false => {
                let one: f64 = self.inside.iter().map(|l| l.bytes(room)).sum();
                (self.iterations * one).max(self.all[1])
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use brolga_ir::loops::Kernel;

    fn traffic(text: &str, cache: f64, between: f64) -> f64 {
        let k: Kernel = text.parse().expect("a kernel");
        k.verify().expect("a valid kernel");
        let nest = Nest::new(&k, &|_| None);
        // The share is of whole caches.
        Traffic::new(&nest, &|_| None).missed(cache / SHARE, &|_| between)
    }

    #[test]
    fn what_fits_is_brought_in_once() {
        let pairs = "loops @pairs(b0: f32[256] in, b1: f32[2048] in, b2: f32[128] out) {
            for i0 parallel 0..4 {
                for i1 serial 0..32 {
                    r0: f32x16 = const f32 0.0
                    for i2 serial 0..4 {
                        for i3 vector 0..16 {
                            r1: f32 = load b0[64*i0 + 16*i2 + i3]
                            r2: f32 = load b1[64*i1 + 16*i2 + i3]
                            r0: f32x16 = fma r1 r2 r0
                        }
                    }
                    r3: f32 = lane r0 0
                    store b2[32*i0 + i1] = r3
                }
            }
        }";
        let (once, row, rows, written) = (4.0 * 256.0 + 4.0 * 2048.0, 256.0, 32.0 * 256.0, WRITE * 512.0);
        // All of it stays between runs; or it does not, since others need the room.
        assert_eq!(traffic(pairs, 16384.0, 0.0), 0.0);
        assert_eq!(traffic(pairs, 16384.0, 16384.0), once + written);
        // Only one operand was touched long ago.
        let k: Kernel = pairs.parse().expect("a kernel");
        let nest = Nest::new(&k, &|_| None);
        let far = |b: Buf| if b.0 == 1 { 16384.0 } else { 0.0 };
        assert_eq!(
            Traffic::new(&nest, &|_| None).missed(16384.0 / SHARE, &far),
            4.0 * 2048.0
        );
        // An iteration of the outer loop does not fit.
        assert_eq!(traffic(pairs, 4096.0, 0.0), 4.0 * (row + rows) + written);
    }

    #[test]
    fn a_column_takes_a_line_an_element() {
        let column = "loops @column(b0: f32[65536] in, b1: f32[256] out) {
            for i0 parallel 0..256 {
                r0: f32 = load b0[256*i0]
                store b1[i0] = r0
            }
        }";
        assert_eq!(traffic(column, 8192.0, 0.0), 256.0 * LINE + WRITE * 1024.0);
    }
}
