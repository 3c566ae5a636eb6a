//! How long a kernel takes, told from its loops and the machine's figures.
//!
//! ```text
//! seconds = longer(compute, bytes) + NOT_HIDDEN * shorter(compute, bytes) + parallel loop + call
//! compute = cycles of instructions / cycles a second          the threads' share of it
//! bytes   = Σ levels: bytes that come from that level / its speed for so many threads
//! ```
//!
//! The model ranks schedules and kernels; it is no measurement. What it leaves out: registers that are spilled, branches that are
//! mispredicted, sets of caches that lines compete for, and pages.

use super::constants::{CALL, NOT_HIDDEN};
use super::cycles::{Cycles, cycles};
use super::gpu::GpuModel;
use super::nest::{Nest, size};
use super::traffic::Traffic;
use super::work::{Work, copied, of_nest};
use brolga_ir::loops::{self, Buf, LoopKind, Stmt};
use brolga_ir::program::{Program, Rows, Step};
use brolga_ir::{CpuTarget, Figures};
use std::cell::Cell;

/// What predicts: a machine, and how kernels run on it.
#[derive(Clone, Copy, Debug)]
pub struct Model<'a> {
    /// The CPU that code is for.
    pub cpu: &'a CpuTarget,
    /// What the machine does.
    pub figures: &'a Figures,
    /// Threads of parallel loops.
    pub threads: usize,
    /// Bytes that others touch between two runs of a kernel: 0 where it is timed alone again and again.
    pub between: f64,
}

/// What predicts, for any kind of machine.
#[derive(Clone, Copy, Debug)]
pub enum Predictor<'a> {
    /// A CPU.
    Cpu(Model<'a>),
    /// A GPU.
    Gpu(GpuModel),
}

impl Predictor<'_> {
    /// Seconds of all that a program's runs call.
    pub fn program(&self, program: &Program, sizes: &dyn Fn(&str) -> Option<i64>) -> f64 {
        match self {
            Predictor::Cpu(m) => m.program(program, sizes),
            Predictor::Gpu(m) => m.program(program, sizes),
        }
    }
}

/// What a kernel is predicted to take, in seconds.
#[derive(Clone, PartialEq, Debug)]
pub struct Time {
    /// All in all.
    pub seconds: f64,
    /// Computing, on all threads.
    pub compute: f64,
    /// Moving bytes from each level beyond the smallest cache: the others, memory last.
    pub moving: Vec<f64>,
    /// Parallel loops: to start them and to wait for their end.
    pub fork: f64,
    /// Cycles of all threads together.
    pub cycles: Cycles,
    /// Bytes from each level beyond the smallest cache.
    pub bytes: Vec<f64>,
    /// What it does.
    pub work: Work,
    /// Bytes that it touches, its scratch included.
    pub footprint: f64,
}

impl Model<'_> {
    /// The time of a loop kernel.
    pub fn kernel(&self, kernel: &loops::Kernel, sizes: &dyn Fn(&str) -> Option<i64>) -> Time {
        self.kernel_among(kernel, sizes, &|_| self.between)
    }

    /// The time of a loop kernel, where others touch so many bytes between what touched a buffer before and the kernel's run.
    pub fn kernel_among(
        &self,
        kernel: &loops::Kernel,
        sizes: &dyn Fn(&str) -> Option<i64>,
        between: &dyn Fn(Buf) -> f64,
    ) -> Time {
        let nest = Nest::new(kernel, sizes);
        let work = of_nest(&nest, sizes);
        let mut cycles = cycles(&nest, sizes, self.cpu, self.figures);
        cycles.control += CALL;
        let traffic = Traffic::new(&nest, sizes);
        let shares = self.shares(kernel, sizes, &work);
        let compute = cycles.sum() / self.figures.hertz * shares.longest;
        let bytes = self.bytes(&traffic, between);
        self.time(work, cycles, compute, bytes, traffic.footprint, &shares)
    }

    /// The time of rows that are copied.
    pub fn rows(&self, rows: &Rows, sizes: &dyn Fn(&str) -> Option<i64>) -> Time {
        let work = copied(rows, sizes);
        let cycles = Cycles {
            // A call of `memcpy` a row, and 32 bytes a cycle.
            control: 20.0 * work.parallel + CALL,
            moves: work.bytes_read / 32.0,
            ..Cycles::default()
        };
        let footprint = work.bytes();
        let fits = |bytes: f64| footprint + self.between <= bytes;
        let mut bytes: Vec<f64> = self.figures.caches.iter().map(|_| 0.0).collect();
        let level = self.figures.caches.iter().position(|c| fits(c.bytes));
        if let Some(from) = level.unwrap_or(bytes.len()).checked_sub(1) {
            bytes[from] = work.bytes_read + super::constants::WRITE * work.bytes_written;
        }
        let shares = Shares::alone();
        self.time(
            work,
            cycles,
            cycles.sum() / self.figures.hertz,
            bytes,
            footprint,
            &shares,
        )
    }

    /// The time of all that a program's runs call, blocks counted once; host operators and allocations take none.
    pub fn program(&self, program: &Program, sizes: &dyn Fn(&str) -> Option<i64>) -> f64 {
        let nested = brolga_ir::program::nested(&program.steps);
        let one = |s: &Step| match s {
            Step::Call { kernel, .. } => self.kernel(&program.kernels[*kernel as usize], sizes).seconds,
            Step::Copy { rows: Some(rows), .. } => self.rows(rows, sizes).seconds,
            Step::Copy { from, rows: None, .. } => {
                let whole = Rows {
                    count: brolga_ir::Dim::ONE,
                    bytes: program.slot(*from).bytes(),
                    start: brolga_ir::Dim::ZERO,
                    stride: brolga_ir::Dim::ZERO,
                    grain: loops::Grain::ALWAYS,
                };
                self.rows(&whole, sizes).seconds
            }
            _ => 0.0,
        };
        nested.into_iter().map(one).sum()
    }

    /// Bytes that come from each level beyond the smallest cache.
    fn bytes(&self, traffic: &Traffic, between: &dyn Fn(Buf) -> f64) -> Vec<f64> {
        let into: Vec<f64> = self
            .figures
            .caches
            .iter()
            .map(|c| traffic.missed(c.bytes, between))
            .collect();
        // What a cache takes in and the next one does not comes from the next one.
        let next = into.iter().skip(1).copied().chain([0.0]);
        into.iter()
            .zip(next)
            .map(|(here, beyond)| (here - beyond).max(0.0))
            .collect()
    }

    fn time(&self, work: Work, cycles: Cycles, compute: f64, bytes: Vec<f64>, footprint: f64, shares: &Shares) -> Time {
        let beyond = self.figures.caches.iter().skip(1).map(|c| &c.speeds);
        let speeds = beyond.chain([&self.figures.memory]);
        let moving: Vec<f64> = bytes
            .iter()
            .zip(speeds)
            .map(|(b, s)| b / s.at(shares.threads))
            .collect();
        let moved: f64 = moving.iter().sum();
        let fork = shares.forks * self.figures.fork.at(shares.threads);
        Time {
            seconds: compute.max(moved) + NOT_HIDDEN * compute.min(moved) + fork + self.figures.call,
            compute,
            moving,
            fork,
            cycles,
            bytes,
            work,
            footprint,
        }
    }

    /// How threads share the iterations.
    fn shares(&self, kernel: &loops::Kernel, sizes: &dyn Fn(&str) -> Option<i64>, work: &Work) -> Shares {
        let mut worth = false;
        loops::visit(&kernel.body, &mut |s, _| {
            if let Stmt::For {
                kind: LoopKind::Parallel(grain),
                ..
            } = s
            {
                worth |= size(&grain.work, sizes, &Cell::new(true)) >= grain.least;
            }
        });
        let iterations = work.parallel / work.forks.max(1.0);
        let threads = self.threads.min(iterations as usize);
        if !worth || threads < 2 {
            return Shares::alone();
        }
        Shares {
            threads,
            // The last iterations are waited for.
            longest: (iterations / threads as f64).ceil() / iterations,
            forks: work.forks,
        }
    }
}

/// How threads share a kernel's iterations.
struct Shares {
    threads: usize,
    /// The part of all iterations of the thread that has most.
    longest: f64,
    /// Parallel loops that are started.
    forks: f64,
}

impl Shares {
    fn alone() -> Shares {
        Shares {
            threads: 1,
            longest: 1.0,
            forks: 0.0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use brolga_ir::Target;
    use brolga_ir::loops::Kernel;

    fn parse(text: &str) -> Kernel {
        let k: Kernel = text.parse().expect("a kernel");
        k.verify().expect("a valid kernel");
        k
    }

    fn with<T>(threads: usize, between: f64, f: impl FnOnce(&Model) -> T) -> T {
        let target = Target::x86_64_v4();
        let figures = Figures::built_in(&target, 8);
        f(&Model {
            cpu: target.cpu().expect("a CPU"),
            figures: &figures,
            threads,
            between,
        })
    }

    fn product(rows: i64) -> Kernel {
        let (m, tiles) = (rows * 8, 8);
        parse(&format!(
            "loops @product(b0: f32[{}] in, b1: f32[65536] in, b2: f32[{}] out) {{
                for i0 parallel 0..{tiles} {{
                    for i1 serial 0..8 {{
                        tile b2[{}*i0 + 32*i1; row 256] = b0[{}*i0; row 256, k 1] * b1[8192*i1]
                            sum(1 by 0, 1 by 0, 256) rows {rows} max {rows} cols 32
                    }}
                }}
            }}",
            256 * m,
            256 * m,
            256 * rows,
            256 * rows
        ))
    }

    #[test]
    fn high_tiles_come_near_the_peak_and_low_ones_do_not() {
        let share = |rows| {
            with(1, 0.0, |m| {
                let time = m.kernel(&product(rows), &|_| None);
                time.work.flops / time.seconds / m.figures.tile(brolga_ir::TileKind::F32)
            })
        };
        let [one, four, all] = [1, 4, 14].map(share);
        assert!(all > 0.8 && all <= 1.0, "{all}");
        assert!(one < 0.3 && one < four && four < all, "{one} {four} {all}");
    }

    #[test]
    fn threads_share_iterations_as_far_as_there_are_some() {
        let k = product(14);
        let time = |threads| with(threads, 0.0, |m| m.kernel(&k, &|_| None).seconds);
        assert!(
            time(1) > 1.8 * time(2) && time(2) > 1.8 * time(4),
            "{} {} {}",
            time(1),
            time(2),
            time(4)
        );
        // Eight iterations on five threads are computed as fast as on four.
        let compute = |threads| with(threads, 0.0, |m| m.kernel(&k, &|_| None).compute);
        assert_eq!(compute(5), compute(4));
        let text = k.to_string().replace("parallel", "parallel(100 from 40000)");
        let small = parse(&text);
        assert_eq!(with(4, 0.0, |m| m.kernel(&small, &|_| None).fork), 0.0);
    }

    #[test]
    fn data_from_farther_away_take_longer() {
        let copy = parse(
            "loops @copy(b0: f32[n] in, b1: f32[n] out) symbols(n) {
                for i0 parallel 0..floordiv(n, 16) {
                    for i1 vector 0..16 { r0: f32 = load b0[16*i0 + i1] store b1[16*i0 + i1] = r0 }
                }
            }",
        );
        let byte = |n: i64, between| with(1, between, |m| m.kernel(&copy, &|_| Some(n)).seconds / n as f64);
        let [near, l2, l3, memory] = [1 << 11, 1 << 16, 1 << 20, 1 << 25].map(|n| byte(n, 0.0));
        assert!(near < l2 && l2 < l3 && l3 < memory, "{near:e} {l2:e} {l3:e} {memory:e}");
        assert!(byte(1 << 11, 1e12) > 2.0 * near);
    }

    #[test]
    fn chains_wait() {
        let sum = |lanes: i64| {
            let text = format!(
                "loops @sum(b0: f32[4096] in, b1: f32[1] out) {{
                    for i0 parallel 0..1 {{
                        r0: f32x{lanes} = const f32 0.0
                        for i1 serial 0..{} {{
                            for i2 vector 0..{lanes} {{
                                r1: f32 = load b0[{lanes}*i1 + i2]
                                r0: f32x{lanes} = add r0 r1
                            }}
                        }}
                        r2: f32 = lane r0 0
                        store b1[0] = r2
                    }}
                }}",
                4096 / lanes
            );
            with(1, 0.0, |m| m.kernel(&parse(&text), &|_| None).cycles)
        };
        // An addition in four cycles, whatever its lanes.
        let (narrow, wide) = (sum(16), sum(32));
        assert!(narrow.waits > narrow.vectors, "{narrow:?}");
        assert!(narrow.sum() > 1.5 * wide.sum(), "{narrow:?} {wide:?}");
    }
}
