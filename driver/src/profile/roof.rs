//! How fast a machine could be at what a kernel does: its roofline (Williams, Waterman and Patterson, 2009).
//!
//! What a kernel computes takes at least its operations over the peak of all threads: of register tiles of its kind, or of vectors. What
//! it reads and writes takes at least its bytes over the bandwidth of where they lie. Constants lie in the smallest level of memory that
//! holds all of the run's constants and its arena, since a run goes through them once; everything else lies in the smallest that holds
//! what the kernel touches. The larger of both times is the roof, a bound for a kernel that finds its operands there.

use super::Row;
use super::steps::Step;
use brolga_ir::TileKind;
use brolga_ir::figures::Figures;
use brolga_ir::loops::{Kernel, Stmt, visit};
use brolga_ir::program::{Program, Storage};
use std::fmt;

/// What bounds a kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wall {
    /// Arithmetic in tiles.
    Tiles(TileKind),
    /// Arithmetic in vectors.
    Vectors,
    /// The bandwidth of a cache, from 1 on.
    Cache(usize),
    /// The bandwidth of memory.
    Memory,
}

impl fmt::Display for Wall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = match self {
            Wall::Tiles(kind) => format!("{} tiles", kind.name()),
            Wall::Vectors => "vectors".to_owned(),
            Wall::Cache(level) => format!("L{level}"),
            Wall::Memory => "memory".to_owned(),
        };
        f.pad(&text)
    }
}

/// The least time of what a row does in a run.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Roof {
    /// Seconds.
    pub seconds: f64,
    /// What takes them.
    pub wall: Wall,
}

/// The roofs of a machine for a program.
pub(super) struct Roofs<'p> {
    program: &'p Program,
    figures: &'p Figures,
    threads: usize,
    /// Where constants lie.
    constants: Wall,
}

impl<'p> Roofs<'p> {
    pub fn new(
        program: &'p Program,
        figures: &'p Figures,
        threads: usize,
        sizes: &dyn Fn(&str) -> Option<i64>,
    ) -> Roofs<'p> {
        let held = |s: &&brolga_ir::program::Slot| matches!(s.storage, Storage::Weight(_) | Storage::Computed);
        let bytes = program.slots.iter().filter(held).map(|s| s.bytes());
        let sum: f64 = bytes
            .chain(program.arena.clone())
            .filter_map(|d| d.value(sizes).ok())
            .map(|n| n as f64)
            .sum();
        Roofs {
            program,
            figures,
            threads: threads.min(figures.cores).max(1),
            constants: level(figures, threads, sum),
        }
    }

    /// The roof of a row.
    pub fn of(&self, row: &Row, steps: &[Step]) -> Option<Roof> {
        let work = row.work?;
        let tiles = row.kernel.and_then(|k| tiles(&self.program.kernels[k as usize]));
        let (compute, ops) = match tiles {
            Some(kind) if kind.dtypes()[2].is_float() => (Wall::Tiles(kind), work.flops),
            Some(kind) => (Wall::Tiles(kind), work.int_ops),
            None => (Wall::Vectors, work.flops),
        };
        let mut walls = vec![(compute, ops / peak(self.figures, compute, self.threads))];
        for s in &row.steps {
            let step = &steps[*s as usize];
            let Some(w) = step.work else { continue };
            let others = w.bytes() - step.constants;
            let near = level(self.figures, self.threads, w.bytes());
            for (wall, bytes) in [(self.constants, step.constants), (near, others)] {
                let seconds = bytes * step.calls / peak(self.figures, wall, self.threads);
                walls.push((wall, seconds));
            }
        }
        // Bytes of several levels come one after the other, beside the arithmetic.
        let memory: f64 = walls[1..].iter().map(|(_, s)| s).sum();
        let (arithmetic, seconds) = walls[0];
        let slowest = walls[1..].iter().max_by(|a, b| a.1.total_cmp(&b.1));
        let roof = match slowest {
            Some((wall, _)) if memory >= seconds => Roof {
                seconds: memory,
                wall: *wall,
            },
            _ => Roof {
                seconds,
                wall: arithmetic,
            },
        };
        (roof.seconds > 0.0 && roof.seconds.is_finite()).then_some(roof)
    }
}

/// What a machine does in a second at a wall: operations or bytes.
pub fn peak(figures: &Figures, wall: Wall, threads: usize) -> f64 {
    match wall {
        Wall::Tiles(kind) => figures.tile(kind) * threads as f64,
        Wall::Vectors => figures.vectors * threads as f64,
        Wall::Cache(n) => figures.caches[n - 1].speeds.at(threads),
        Wall::Memory => figures.memory.at(threads),
    }
}

/// The smallest level that holds so many bytes, which are spread over the threads.
fn level(figures: &Figures, threads: usize, bytes: f64) -> Wall {
    let holds = |c: &brolga_ir::figures::Cache| {
        let all = if c.shared { c.bytes } else { c.bytes * threads as f64 };
        all >= bytes
    };
    match figures.caches.iter().position(holds) {
        Some(n) => Wall::Cache(n + 1),
        None => Wall::Memory,
    }
}

/// The kind of a kernel's tiles.
fn tiles(kernel: &Kernel) -> Option<TileKind> {
    let mut found = None;
    visit(&kernel.body, &mut |s, _| {
        if let Stmt::Tile(t) = s {
            found = Some(t.kind);
        }
    });
    found
}

/// The walls of a machine, caches first.
pub(super) fn walls(figures: &Figures) -> Vec<Wall> {
    let caches = (1..=figures.caches.len()).map(Wall::Cache);
    let tiles = TileKind::ALL.map(Wall::Tiles);
    caches.chain([Wall::Memory, Wall::Vectors]).chain(tiles).collect()
}
