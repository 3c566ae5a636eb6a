//! How long a kernel takes on a GPU, told from its grid and the GPU's figures.
//!
//! ```text
//! seconds = launch + longest(waves * wave / hertz, bytes of L2 / its speed, bytes of memory / its speed)
//! wave    = longest(a warp's own way, instructions of a scheduler's warps, accesses of a multiprocessor's warps)
//! ```
//!
//! A multiprocessor holds as many blocks at once as its threads, registers and shared memory allow: a wave. While a warp waits, others
//! issue; so a wave takes as long as one warp's chain of instructions and latencies, or as all instructions and accesses of its warps take
//! one after the other, whichever is longer. (In short what S. Hong and H. Kim, "An analytical model for a GPU architecture with
//! memory-level and thread-level parallelism awareness", ISCA 2009, derive.) How many lines an access of a warp touches is seen by
//! looking at the addresses of its 32 threads.
//!
//! The model ranks schedules. It has not been held against a device: none was at hand.

use super::nest::{Nest, Node, size, value};
use super::work::of_nest;
use brolga_ir::Target;
use brolga_ir::figures::GpuFigures;
use brolga_ir::index::{Ix, Term, Var};
use brolga_ir::loops::{Buf, Expr, Kernel, LoopKind, Scope, Stmt};
use brolga_ir::program::{self, Program, Step};
use brolga_ir::scalar::Prim;
use std::cell::Cell;

/// Threads that run in lockstep.
const WARP: i64 = 32;
/// Bytes that a cache moves at once.
const SECTOR: i64 = 32;
/// Banks of shared memory, each of four bytes.
const BANKS: i64 = 32;
/// Schedulers of a multiprocessor, each of which issues one instruction a cycle.
const SCHEDULERS: f64 = 4.0;
/// Cycles until a load from L2 or memory is there; from shared memory; until a result can be used.
const FAR: f64 = 500.0;
const SHARED: f64 = 30.0;
const RESULT: f64 = 4.0;
/// Cycles of a barrier.
const BARRIER: f64 = 30.0;
/// Instructions of a quotient or remainder.
const QUOTIENT: f64 = 4.0;
/// Registers that a thread has beside those of the loop IR: addresses, counters.
const OWN: i64 = 24;

/// What predicts for a GPU.
#[derive(Clone, Copy, Debug)]
pub struct GpuModel {
    /// What the GPU does.
    pub figures: GpuFigures,
}

/// What a kernel is predicted to take on a GPU.
#[derive(Clone, PartialEq, Debug)]
pub struct GpuTime {
    /// All in all, in seconds.
    pub seconds: f64,
    /// Blocks that a multiprocessor holds at once.
    pub resident: i64,
    /// How often all multiprocessors are filled.
    pub waves: f64,
    /// Cycles of a wave: a warp's own way, what schedulers issue, what is accessed.
    pub wave: [f64; 3],
    /// Bytes that come from L2, and from memory.
    pub bytes: [f64; 2],
}

impl GpuModel {
    /// For a target; `None` for a CPU.
    pub fn of(target: &Target) -> Option<GpuModel> {
        GpuFigures::of(target).map(|figures| GpuModel { figures })
    }

    /// The time of a loop kernel that is scheduled for a GPU.
    pub fn kernel(&self, kernel: &Kernel, sizes: &dyn Fn(&str) -> Option<i64>) -> GpuTime {
        let f = &self.figures;
        let nest = Nest::new(kernel, sizes);
        let grid = Grid::of(&nest);
        let threads = grid.threads as f64;
        let mut c = Counter {
            nest: &nest,
            sizes,
            grid: &grid,
            issued: 0.0,
            accesses: 0.0,
            sectors: 0.0,
        };
        let way = c.way(&nest.nodes);
        let warps_of_block = ((threads / WARP as f64).ceil()).max(1.0);
        let resident = self.resident(kernel, &grid, sizes);
        let blocks = grid.blocks as f64;
        let places = (f.multiprocessors * resident) as f64;
        let waves = (blocks / places).ceil().max(1.0);
        // What all threads issue and access, for a warp: threads of a warp do so together.
        let all = blocks * warps_of_block;
        let (issued, accesses) = (c.issued / all.max(1.0) / WARP as f64, c.accesses / all.max(1.0));
        let held = warps_of_block * (blocks / f.multiprocessors as f64).ceil().min(resident as f64);
        let wave = [way, issued * held / SCHEDULERS.min(held.max(1.0)), accesses * held];
        let longest = wave.iter().copied().fold(0.0, f64::max);
        // What a warp touches again comes from L2 again. Where all does not fit there, some of it comes from memory again: as much as all
        // once more, at most.
        let once = of_nest(&nest, sizes).bytes();
        let from_l2 = (c.sectors * SECTOR as f64).max(once);
        let from_memory = if once <= f.l2_bytes {
            once
        } else {
            from_l2.min(2.0 * once)
        };
        let moved = (from_l2 / f.l2_speed).max(from_memory / f.memory_speed);
        GpuTime {
            seconds: f.launch + (waves * longest / f.hertz).max(moved),
            resident,
            waves,
            wave,
            bytes: [from_l2, from_memory],
        }
    }

    /// The time of all that a program's runs launch and copy, blocks counted once.
    pub fn program(&self, program: &Program, sizes: &dyn Fn(&str) -> Option<i64>) -> f64 {
        let one = |s: &Step| match s {
            Step::Call { kernel, .. } => self.kernel(&program.kernels[*kernel as usize], sizes).seconds,
            Step::Copy { from, .. } => {
                let bytes = size(&program.slot(*from).bytes(), sizes, &Cell::new(true)) as f64;
                self.figures.launch + 2.0 * bytes / self.figures.memory_speed
            }
            _ => 0.0,
        };
        program::nested(&program.steps).into_iter().map(one).sum()
    }

    /// Blocks that a multiprocessor holds at once.
    fn resident(&self, kernel: &Kernel, grid: &Grid, sizes: &dyn Fn(&str) -> Option<i64>) -> i64 {
        let f = &self.figures;
        let exact = Cell::new(true);
        let shared: i64 = kernel
            .buffers
            .iter()
            .filter(|b| b.scope == Scope::Shared)
            .map(|b| size(&b.len, sizes, &exact) * b.dtype.bytes() as i64)
            .sum();
        // Those of 64 bits take two.
        let own: i64 = kernel.regs.iter().map(|r| (r.dtype.bytes() as i64 / 4).max(1)).sum();
        let registers = (own.min(231) + OWN) * grid.threads;
        let by = |have: i64, takes: i64| if takes > 0 { have / takes } else { i64::MAX };
        let fits = by(f.threads, grid.threads)
            .min(by(f.registers, registers))
            .min(by(f.shared_bytes, shared))
            .min(f.blocks);
        fits.max(1)
    }
}

/// The blocks of a kernel, and where a thread stands in one.
struct Grid {
    blocks: i64,
    /// Threads of a block.
    threads: i64,
    /// The variables of a block's dimensions with their extents, x first.
    dims: Vec<(Var, i64)>,
}

impl Grid {
    fn of(nest: &Nest) -> Grid {
        let mut g = Grid {
            blocks: 1,
            threads: 1,
            dims: vec![],
        };
        let mut dims = vec![];
        nest.visit(&mut |n| {
            if let Stmt::For { var, kind, .. } = n.stmt {
                let extent = nest.extents.get(var).copied().unwrap_or(1).max(1);
                match kind {
                    LoopKind::Block(_) => g.blocks = g.blocks.saturating_mul(extent),
                    LoopKind::Thread(d) => {
                        g.threads = g.threads.saturating_mul(extent);
                        dims.push((*d, *var, extent));
                    }
                    _ => {}
                }
            }
        });
        dims.sort_unstable_by_key(|(d, ..)| *d);
        g.dims = dims.into_iter().map(|(_, v, n)| (v, n)).collect();
        g
    }

    /// Where a dimension of a block stands in the thread of this number.
    fn at(&self, thread: i64, v: Var) -> Option<i64> {
        let mut rest = thread;
        for (u, n) in &self.dims {
            if *u == v {
                return Some(rest % n);
            }
            rest /= n;
        }
        None
    }
}

/// What a straight piece of code does, once for a thread.
#[derive(Clone, Copy, Default)]
struct Straight {
    /// Instructions.
    issued: f64,
    /// Whether it loads from afar, or from shared memory.
    far: bool,
    shared: bool,
    /// Cycles of loops in it, and of barriers.
    inside: f64,
}

impl Straight {
    /// Cycles of a warp on its own: loads that do not depend on each other wait together.
    fn cycles(self) -> f64 {
        let wait = |is, cycles| if is { cycles } else { 0.0 };
        self.issued + self.inside + wait(self.far, FAR) + wait(self.shared, SHARED) + RESULT
    }
}

struct Counter<'a> {
    nest: &'a Nest<'a>,
    sizes: &'a dyn Fn(&str) -> Option<i64>,
    grid: &'a Grid,
    /// Instructions of all threads.
    issued: f64,
    /// Cycles in which warps access caches and shared memory.
    accesses: f64,
    /// Sectors that come from L2.
    sectors: f64,
}

impl Counter<'_> {
    /// Cycles of a warp on its own.
    fn way(&mut self, nodes: &[Node]) -> f64 {
        let mut s = Straight::default();
        self.straight(nodes, 1.0, &mut s);
        s.cycles()
    }

    fn straight(&mut self, nodes: &[Node], repeated: f64, s: &mut Straight) {
        for n in nodes.iter().filter(|n| n.times > 0.0) {
            let each = n.inside / n.times;
            match n.stmt {
                Stmt::For { kind, .. } => match kind {
                    LoopKind::Block(_) | LoopKind::Thread(_) => self.straight(&n.nodes, repeated, s),
                    LoopKind::Unrolled => self.straight(&n.nodes, repeated * each, s),
                    LoopKind::Serial | LoopKind::Parallel(_) | LoopKind::Vector => {
                        // The counter, the comparison, the branch.
                        self.issued += 3.0 * n.inside;
                        s.inside += repeated * each * (self.way(&n.nodes) + 3.0);
                    }
                },
                Stmt::If { bounds, .. } => {
                    let tests = bounds.len() as f64 + bounds.iter().map(|b| quotients(&b.index)).sum::<f64>();
                    self.count(n, tests + 1.0, repeated, s);
                    self.straight(&n.nodes, repeated, s);
                }
                Stmt::Barrier => s.inside += repeated * BARRIER,
                Stmt::Set(_, e) => self.set(n, e, repeated, s),
                Stmt::Store { buffer, index, .. } => {
                    self.count(n, 2.0 + quotients(index), repeated, s);
                    self.access(n, *buffer, index);
                }
                Stmt::Check { .. } => self.count(n, 3.0, repeated, s),
                Stmt::Tile(_) => {}
            }
        }
    }

    fn set(&mut self, n: &Node, e: &Expr, repeated: f64, s: &mut Straight) {
        match e {
            Expr::Load {
                buffer, index, guard, ..
            } => {
                let tests: f64 = guard.iter().map(|b| 2.0 + quotients(&b.index)).sum();
                self.count(n, 2.0 + quotients(index) + tests, repeated, s);
                self.access(n, *buffer, index);
                match self.nest.kernel.buffer(*buffer).scope {
                    Scope::Shared => s.shared = true,
                    Scope::Private => {}
                    _ => s.far = true,
                }
            }
            Expr::Index(ix) => self.count(n, 1.0 + quotients(ix), repeated, s),
            Expr::InBounds(bounds) => {
                let tests = bounds.iter().map(|b| 2.0 + quotients(&b.index)).sum();
                self.count(n, tests, repeated, s);
            }
            Expr::Prim(p, args) if n.usual => {
                let wide = self.nest.kernel.reg(args[p.typed()]).dtype.bytes() == 8;
                self.count(n, instructions(*p) * if wide { 2.0 } else { 1.0 }, repeated, s);
            }
            Expr::Const(_) | Expr::Prim(..) | Expr::Copy(_) | Expr::Lane(..) => {}
        }
    }

    fn count(&mut self, n: &Node, instructions: f64, repeated: f64, s: &mut Straight) {
        self.issued += n.times * instructions;
        s.issued += repeated * instructions;
    }

    /// An access of a warp: how many sectors it touches, or how often it meets a bank of shared memory.
    fn access(&mut self, n: &Node, buffer: Buf, index: &Ix) {
        let b = self.nest.kernel.buffer(buffer);
        let bytes = b.dtype.bytes() as i64;
        let places: Option<Vec<i64>> = (0..WARP.min(self.grid.threads))
            .map(|t| Some(self.at(index, t)? * bytes))
            .collect();
        let warps = n.times / WARP as f64;
        match (b.scope, places) {
            (Scope::Private, _) => {}
            (Scope::Shared, Some(mut places)) => {
                places.sort_unstable();
                places.dedup();
                let mut met = [0u32; BANKS as usize];
                for p in places {
                    met[(p.div_euclid(4)).rem_euclid(BANKS) as usize] += 1;
                }
                self.accesses += warps * f64::from(met.into_iter().max().unwrap_or(1));
            }
            (Scope::Shared, None) => self.accesses += warps * 4.0,
            (_, places) => {
                let sectors = match places {
                    Some(mut places) => {
                        places.iter_mut().for_each(|p| *p = p.div_euclid(SECTOR));
                        places.sort_unstable();
                        places.dedup();
                        places.len() as f64
                    }
                    // From data: anywhere.
                    None => WARP as f64,
                };
                self.accesses += warps * (sectors / 4.0).max(1.0);
                self.sectors += warps * sectors;
            }
        }
    }

    /// An index in a thread of the first block, at the first iteration of every loop; `None` where data tell.
    fn at(&self, ix: &Ix, thread: i64) -> Option<i64> {
        let var = |v: Var| self.grid.at(thread, v).unwrap_or(0);
        value(ix, &self.nest.integers, &var, &|d| {
            size(d, self.sizes, &Cell::new(true))
        })
    }
}

/// Instructions of the quotients and remainders in an index.
fn quotients(ix: &Ix) -> f64 {
    let of = |(t, _): &(Term, brolga_ir::Dim)| match t {
        Term::Div(e, _) | Term::Mod(e, _) => QUOTIENT + quotients(e),
        Term::Min(e, _) => 1.0 + quotients(e),
        Term::Var(_) | Term::Reg(_) => 1.0,
    };
    ix.terms.iter().map(of).sum()
}

/// Instructions of a primitive.
fn instructions(p: Prim) -> f64 {
    match p {
        Prim::Div | Prim::Sqrt => 10.0,
        Prim::Rem => 20.0,
        Prim::Bitcast(_) => 0.0,
        _ => 1.0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn time(text: &str) -> GpuTime {
        let k: Kernel = text.parse().unwrap_or_else(|e| panic!("{e} in {text}"));
        k.verify().unwrap_or_else(|e| panic!("{e} in {text}"));
        let model = GpuModel::of(&Target::sm_80()).expect("a GPU");
        model.kernel(&k, &|_| None)
    }

    /// A copy of `n` elements by blocks of `threads`, whose elements are `step` apart.
    fn copy(n: i64, threads: i64, step: i64) -> GpuTime {
        let len = n * step;
        time(&format!(
            "loops @copy(b0: f32[{len}] in, b1: f32[{len}] out) {{
                for i0 block.x 0..{} {{
                    for i1 thread.x 0..{threads} {{
                        r0: f32 = load b0[{}*i0 + {step}*i1]
                        store b1[{}*i0 + {step}*i1] = r0
                    }}
                }}
            }}",
            n / threads,
            threads * step,
            threads * step
        ))
    }

    #[test]
    fn a_large_copy_takes_as_long_as_its_bytes() {
        let t = copy(1 << 24, 256, 1);
        let figures = GpuFigures::of(&Target::sm_80()).expect("a GPU");
        let floor = 2.0 * 4.0 * (1 << 24) as f64 / figures.memory_speed;
        assert!(t.seconds >= floor && t.seconds < 1.3 * floor + figures.launch, "{t:?}");
        assert_eq!(t.resident, 8);
        // A tiny one is a launch and a wait.
        let t = copy(256, 256, 1);
        assert!(t.seconds < 2.0 * figures.launch, "{t:?}");
    }

    #[test]
    fn threads_side_by_side_had_better_touch_bytes_side_by_side() {
        let [near, apart] = [1, 32].map(|step| copy(1 << 20, 256, step));
        assert!(apart.bytes[0] >= 7.9 * near.bytes[0], "{near:?} {apart:?}");
        assert!(apart.seconds > 2.0 * near.seconds);
    }

    #[test]
    fn few_threads_leave_a_multiprocessor_waiting() {
        let sum = |threads: i64, blocks: i64| {
            time(&format!(
                "loops @sum(b0: f32[{}] in, b1: f32[{}] out) {{
                    for i0 block.x 0..{blocks} {{
                        for i1 thread.x 0..{threads} {{
                            r0: f32 = const f32 0.0
                            for i2 serial 0..1024 {{
                                r1: f32 = load b0[{threads}*i2 + i1]
                                r0: f32 = add r0 r1
                            }}
                            store b1[{threads}*i0 + i1] = r0
                        }}
                    }}
                }}",
                threads * 1024,
                threads * blocks
            ))
        };
        // As many threads in all.
        let [few, many] = [sum(32, 64), sum(256, 8)];
        assert!(few.wave[0] >= few.wave[1] && few.wave[0] >= few.wave[2], "{few:?}");
        assert_eq!(few.waves, 1.0);
        // Beyond what is held at once there are more waves, each as long.
        let waves = sum(256, 8 * 108 * 3);
        assert_eq!((waves.resident, waves.waves), (8, 3.0));
        assert!(waves.seconds > 2.5 * (many.seconds - 3e-6), "{waves:?} {many:?}");
    }

    #[test]
    fn threads_that_meet_a_bank_wait_for_each_other() {
        let shared = |step: i64| {
            time(&format!(
                "loops @shared(b0: f32[32] in, b1: f32[32] out) {{
                    buffer b2: f32[{}] shared
                    for i0 block.x 0..1 {{
                        for i1 thread.x 0..32 {{
                            r0: f32 = load b0[i1]
                            store b2[{step}*i1] = r0
                            barrier
                            r1: f32 = load b2[{step}*i1]
                            store b1[i1] = r1
                        }}
                    }}
                }}",
                32 * step
            ))
        };
        let [apart, same] = [33, 32].map(shared);
        assert_eq!(same.wave[2] - apart.wave[2], 2.0 * 31.0);
    }
}
