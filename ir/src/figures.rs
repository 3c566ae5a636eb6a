//! What a machine does in a second: peaks of arithmetic, bandwidths, what it costs to start threads.
//!
//! A [`Target`] says what code may assume of a machine, and its [`crate::target::Cost`] what a core of a common one does. These figures
//! are those of one machine with all its cores. They are measured (`brolga machine`), or follow from the target where nothing
//! was: a wrong one costs speed, never results.

use crate::target::Arch;
use crate::{Target, TileKind};

/// Figures of a machine. Peaks and speeds are a second's.
#[derive(Clone, PartialEq, Debug)]
pub struct Figures {
    /// Where they come from.
    pub origin: Origin,
    /// Cores that threads can be on.
    pub cores: usize,
    /// Cycles of a core.
    pub hertz: f64,
    /// Operations of a core in tiles of each of [`TileKind::ALL`], a product and its addition being two.
    pub tiles: [f64; TileKind::ALL.len()],
    /// Operations on f32 of a core in loops over vectors, where nothing else limits them: fused multiply-adds of two each.
    pub vectors: f64,
    /// The caches, the smallest first.
    pub caches: Vec<Cache>,
    /// Bytes from memory.
    pub memory: Speeds,
    /// Seconds of a kernel that does nothing.
    pub call: f64,
    /// Seconds to start a parallel loop whose workers are awake, and to wait for its end, by the number of threads.
    pub fork: Speeds,
    /// By how much the time of the same work varied while the machine was measured: from the tenth part to nine tenths of all
    /// times, as a share of the median.
    pub spread: f64,
}

/// Where figures come from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Origin {
    /// They follow from the target.
    BuiltIn,
    /// They were measured on this machine.
    Measured,
}

/// A level of cache.
#[derive(Clone, PartialEq, Debug)]
pub struct Cache {
    /// Bytes of it: of a core, or of all together.
    pub bytes: f64,
    /// Whether all cores share it.
    pub shared: bool,
    /// Bytes a second.
    pub speeds: Speeds,
}

/// A figure for some numbers of threads, all of them together, the smallest number first.
#[derive(Clone, PartialEq, Debug)]
pub struct Speeds(pub Vec<(usize, f64)>);

impl Speeds {
    /// The figure for so many threads: between two numbers along the line from one to the other, that of the nearest one outside.
    pub fn at(&self, threads: usize) -> f64 {
        let after = self.0.iter().position(|(n, _)| *n >= threads);
        match after {
            None => self.0.last().map_or(0.0, |(_, x)| *x),
            Some(0) => self.0[0].1,
            Some(i) => {
                let ((n0, x0), (n1, x1)) = (self.0[i - 1], self.0[i]);
                x0 + (x1 - x0) * (threads - n0) as f64 / (n1 - n0).max(1) as f64
            }
        }
    }

    /// One that grows with the threads up to some number of them.
    fn growing(one: f64, most: usize) -> Speeds {
        Speeds(vec![(1, one), (most, one * most as f64)])
    }
}

/// From which spread on a machine was not quiet while it was measured.
pub const NOISY: f64 = 0.1;

impl Figures {
    /// The figures of a target, for a machine with so many cores. Beyond what the target says they are those of a common server: two
    /// caches of a core and one that some cores share, memory that a few cores use up.
    pub fn built_in(target: &Target, cores: usize) -> Figures {
        let (cost, cores) = (&target.cost, cores.max(1));
        let cache = |bytes: f64, speed: f64, shared| Cache {
            bytes,
            shared,
            speeds: Speeds::growing(speed, cores),
        };
        Figures {
            origin: Origin::BuiltIn,
            cores,
            hertz: cost.hertz,
            tiles: TileKind::ALL.map(|k| match k.dtypes()[0].bytes() {
                // Scales take about as long as a third of the products.
                1 if k.has_scales() => 0.75 * cost.tile_flops * cost.byte_tiles,
                1 => cost.tile_flops * cost.byte_tiles,
                _ if k == TileKind::Bf16Pairs => cost.tile_flops * cost.pair_tiles,
                _ => cost.tile_flops,
            }),
            vectors: cost.tile_flops,
            caches: vec![
                cache(L1_BYTES, 2.0 * cost.cache_speed, false),
                cache(cost.cache_bytes, cost.cache_speed, false),
                cache(SHARED_BYTES * cores as f64, cost.cache_speed / 2.0, true),
            ],
            memory: Speeds::growing(cost.memory_speed, cores.min(CORES_OF_MEMORY)),
            call: CALL,
            fork: Speeds(vec![
                (1, 0.0),
                (2, FORK),
                (cores.max(3), FORK * f64::log2(cores.max(3) as f64)),
            ]),
            spread: 0.0,
        }
    }

    /// Operations of a core in tiles of a kind.
    pub fn tile(&self, kind: TileKind) -> f64 {
        let at = TileKind::ALL.iter().position(|k| *k == kind);
        at.map_or(self.tiles[0], |i| self.tiles[i])
    }

    /// Whether something else took the cores while they were measured.
    pub fn noisy(&self) -> bool {
        self.spread > NOISY
    }
}

/// Bytes of the smallest cache.
const L1_BYTES: f64 = 32.0 * 1024.0;
/// Bytes of the shared cache for each core.
const SHARED_BYTES: f64 = 4.0 * 1024.0 * 1024.0;
/// Cores that use up the bandwidth of a common server's memory.
const CORES_OF_MEMORY: usize = 6;
/// Seconds of a call of a kernel: the addresses of its buffers are stored, and it looks at its sizes.
const CALL: f64 = 30e-9;
/// Seconds to start a loop on two threads that are awake: some cache lines go from one core to the other and back.
const FORK: f64 = 400e-9;

/// Figures of a GPU.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct GpuFigures {
    /// Multiprocessors.
    pub multiprocessors: i64,
    /// Cycles a second.
    pub hertz: f64,
    /// Threads that a multiprocessor holds at once, and blocks.
    pub threads: i64,
    /// See `threads`.
    pub blocks: i64,
    /// Registers of 32 bits of a multiprocessor, and bytes of its shared memory.
    pub registers: i64,
    /// See `registers`.
    pub shared_bytes: i64,
    /// Bytes of L2.
    pub l2_bytes: f64,
    /// Bytes a second from L2, and from memory.
    pub l2_speed: f64,
    /// See `l2_speed`.
    pub memory_speed: f64,
    /// Seconds of a launch behind another one.
    pub launch: f64,
}

impl GpuFigures {
    /// The figures of a target: those of an A100 (NVIDIA A100 Tensor Core GPU Architecture, 2020) or an H100 SXM (NVIDIA H100 Tensor Core
    /// GPU Architecture, 2022), and what the target says. `None` for a CPU.
    pub fn of(target: &Target) -> Option<GpuFigures> {
        let (multiprocessors, shared) = match target.gpu()? {
            Arch::Sm80 => (108, 164),
            Arch::Sm90 => (132, 228),
        };
        let cost = &target.cost;
        Some(GpuFigures {
            multiprocessors,
            hertz: cost.hertz,
            threads: 2048,
            blocks: 32,
            registers: 64 << 10,
            shared_bytes: shared << 10,
            l2_bytes: cost.cache_bytes,
            l2_speed: cost.cache_speed,
            memory_speed: cost.memory_speed,
            launch: cost.per_kernel,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_target_has_figures() {
        for t in Target::all() {
            for cores in [0, 1, 2, 64] {
                let f = Figures::built_in(&t, cores);
                let bytes: Vec<f64> = f.caches.iter().map(|c| c.bytes).collect();
                let finite = f.tiles.iter().chain(&bytes).chain([&f.hertz, &f.vectors, &f.call]);
                assert!(finite.into_iter().all(|x| x.is_finite() && *x > 0.0), "{}", t.name);
                assert!(f.memory.at(64) >= f.memory.at(1), "{}", t.name);
                assert!(!f.noisy());
            }
        }
    }

    #[test]
    fn between_numbers_of_threads_figures_are_interpolated() {
        let s = Speeds(vec![(1, 10.0), (2, 18.0), (4, 20.0)]);
        assert_eq!([1, 2, 3, 4, 9].map(|n| s.at(n)), [10.0, 18.0, 19.0, 20.0, 20.0]);
        assert_eq!(s.at(0), 10.0);
        assert_eq!(Speeds(vec![]).at(1), 0.0);
    }
}
