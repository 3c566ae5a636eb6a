//! The register tiles of the x86 vector IR: every kind alone with operands in L1, and those of f32 under a plain loop over a whole
//! matrix.
//!
//! `cargo bench -p brolga-benches --bench gemm_tile`. The throughput column counts operations (a product and its addition are two):
//! Gelem/s is GFLOP/s. On the machine of the design (Zen 4, 3.7 GHz) the peak of one core is 117.6 in f32, also where operands are
//! converted, and four times that in bytes with VNNI.
//!
//! The loop is the one that a lowered contraction runs: B packed as [N/32][K][32], A in place, rows balanced over tiles,
//! no other blocking. `panels` goes over all rows for each panel of B, so that the panel stays in L2 and B is read once;
//! `rows` goes over all panels for each row tile, so that its rows of A stay near and B is read again for each.

use brolga_codegen::x86::tile::PANEL;
use brolga_codegen::x86::{Isa, TileArgs, TileKey, assemble_tile, balance_rows, max_rows, symbol};
use brolga_ir::{TileFamily, TileKind};
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use memmap2::{Mmap, MmapMut};

/// A kernel in executable memory.
struct Kernel(Mmap);

impl Kernel {
    fn new(key: TileKey) -> Kernel {
        let bytes = assemble_tile(key).expect("the key is in the family");
        let mut map = MmapMut::map_anon(bytes.len()).expect("memory for code");
        map.copy_from_slice(&bytes);
        Kernel(map.make_exec().expect("executable memory"))
    }

    fn function(&self) -> extern "sysv64" fn(*const TileArgs) {
        // SAFETY: the map holds the whole of a kernel, which is a function of this type.
        unsafe { std::mem::transmute(self.0.as_ptr()) }
    }
}

/// Floats that start on a cache line.
struct Floats {
    data: Vec<f32>,
    start: usize,
}

impl Floats {
    fn new(len: usize) -> Floats {
        let data: Vec<f32> = (0..len + 16).map(|i| (i % 17) as f32 / 16.0 - 0.5).collect();
        let start = data.as_ptr().align_offset(64);
        Floats { data, start }
    }

    fn at(&mut self, index: usize) -> *mut f32 {
        self.data[self.start + index..].as_mut_ptr()
    }
}

fn levels() -> impl Iterator<Item = Isa> {
    Isa::ALL.into_iter().filter(|isa| isa.available())
}

fn family(isa: Isa) -> TileFamily {
    match isa {
        Isa::Avx2 => TileFamily::Avx2,
        Isa::Avx512 => TileFamily::Avx512,
    }
}

/// One kernel, K = 256, everything in L1.
fn tiles(c: &mut Criterion) {
    let mut group = c.benchmark_group("tile_k256");
    let k = 256;
    for family in [TileFamily::Avx2, TileFamily::Avx512, TileFamily::Avx512Vnni] {
        for (kind, vectors, unit_k) in [
            (TileKind::F32, 2, true),
            (TileKind::F32, 2, false),
            (TileKind::F32, 1, true),
            (TileKind::F16, 2, true),
            (TileKind::Bf16, 2, true),
            (TileKind::F32ByF16, 2, true),
            (TileKind::U8I8, 2, true),
            (TileKind::U8I8, 1, true),
        ] {
            // Floats are the same with VNNI.
            if family == TileFamily::Avx512Vnni && kind != TileKind::U8I8 {
                continue;
            }
            let most = max_rows(family, kind, vectors);
            for rows in [most, most - 1, most / 2] {
                let key = TileKey {
                    family,
                    kind,
                    rows,
                    vectors,
                    unit_k,
                    ahead: false,
                };
                if !key.available() {
                    continue;
                }
                let kernel = Kernel::new(key);
                let [left, ..] = kind.dtypes().map(|d| d.bytes() as i64);
                let (mut a, mut b, mut out) =
                    (Floats::new(28 * (k + 16)), Floats::new(k * PANEL), Floats::new(28 * 48));
                let mut scratch = Floats::new(TileArgs::scratch_bytes(family, kind) / 4);
                let args = TileArgs {
                    a: a.at(0).cast(),
                    b: b.at(0).cast(),
                    c: out.at(0).cast(),
                    a_row: (k as i64 + 16) * left,
                    a_k: left,
                    c_row: 48 * 4,
                    k: k as i64,
                    blocks0: 1,
                    a_block0: 0,
                    blocks1: 1,
                    a_block1: 0,
                    cols: key.width() as i64,
                    accumulate: 0,
                    scratch: scratch.at(0).cast(),
                    ahead: std::ptr::null(),
                    ahead_step: 0,
                    ..TileArgs::NONE
                };
                group.throughput(Throughput::Elements((2 * usize::from(rows) * key.width() * k) as u64));
                let function = kernel.function();
                group.bench_function(symbol(key), |bench| bench.iter(|| function(&args)));
            }
        }
    }
    group.finish();
}

/// Which loop is outside.
#[derive(Clone, Copy, Debug)]
enum Order {
    Panels,
    Rows,
}

/// C = A B, with `n` a multiple of the panel, and everything that a run needs.
struct Gemm {
    big: Kernel,
    small: Option<Kernel>,
    counts: (usize, usize, usize, usize),
    isa: Isa,
    k: usize,
    panels: usize,
    a_row: usize,
    c_row: usize,
    a: Floats,
    b: Floats,
    c: Floats,
}

impl Gemm {
    fn new(isa: Isa, [m, n, k]: [usize; 3], pad: usize) -> Gemm {
        let counts = balance_rows(m, max_rows(family(isa), TileKind::F32, 2).into());
        let kernel = |rows: usize| {
            Kernel::new(TileKey {
                family: family(isa),
                kind: TileKind::F32,
                rows: rows as u8,
                vectors: 2,
                unit_k: true,
                ahead: false,
            })
        };
        let (a_row, c_row) = (k + pad, n + pad);
        Gemm {
            big: kernel(counts.1),
            small: (counts.2 > 0).then(|| kernel(counts.3)),
            counts,
            isa,
            k,
            panels: n / PANEL,
            a_row,
            c_row,
            a: Floats::new(m * a_row),
            b: Floats::new(n * k),
            c: Floats::new(m * c_row),
        }
    }

    fn tile(&mut self, index: usize, panel: usize) {
        let (count_big, big, _, small) = self.counts;
        let (row, kernel) = match (&self.small, index.checked_sub(count_big)) {
            (Some(kernel), Some(after)) => (count_big * big + after * small, kernel),
            _ => (index * big, &self.big),
        };
        let function = kernel.function();
        let width = 2 * self.isa.lanes();
        for column in (0..PANEL).step_by(width) {
            let args = TileArgs {
                a: self.a.at(row * self.a_row).cast(),
                b: self.b.at(panel * self.k * PANEL + column).cast(),
                c: self.c.at(row * self.c_row + panel * PANEL + column).cast(),
                a_row: self.a_row as i64 * 4,
                a_k: 4,
                c_row: self.c_row as i64 * 4,
                k: self.k as i64,
                blocks0: 1,
                a_block0: 0,
                blocks1: 1,
                a_block1: 0,
                cols: width as i64,
                accumulate: 0,
                scratch: std::ptr::null_mut(),
                ahead: std::ptr::null(),
                ahead_step: 0,
                ..TileArgs::NONE
            };
            function(&args);
        }
    }

    fn run(&mut self, order: Order) {
        let tiles = self.counts.0 + self.counts.2;
        match order {
            Order::Panels => {
                for panel in 0..self.panels {
                    (0..tiles).for_each(|index| self.tile(index, panel));
                }
            }
            Order::Rows => {
                for index in 0..tiles {
                    (0..self.panels).for_each(|panel| self.tile(index, panel));
                }
            }
        }
    }
}

fn gemms(c: &mut Criterion) {
    const SHAPES: [[usize; 3]; 7] = [
        [1024, 1024, 1024],
        [128, 768, 3072],
        [128, 3072, 768],
        [128, 768, 768],
        [197, 3072, 768],
        [256, 256, 256],
        [128, 32000, 512],
    ];
    let mut group = c.benchmark_group("gemm");
    group.sample_size(20);
    for isa in levels() {
        for shape in SHAPES {
            // Rows that are not padded lie a multiple of 4 KiB apart in the first shape: half the speed.
            let pads: &[usize] = if shape == SHAPES[0] { &[16, 0] } else { &[16] };
            for pad in pads {
                let mut gemm = Gemm::new(isa, shape, *pad);
                group.throughput(Throughput::Elements(2 * shape.iter().product::<usize>() as u64));
                let [m, n, k] = shape;
                for order in [Order::Panels, Order::Rows] {
                    let name = format!("{isa}_{order:?}_pad{pad}").to_lowercase();
                    group.bench_function(BenchmarkId::new(name, format!("{m}x{n}x{k}")), |bench| {
                        bench.iter(|| gemm.run(order));
                    });
                }
            }
        }
    }
    group.finish();
}

/// What it takes to make a kernel.
fn assembling(c: &mut Criterion) {
    for isa in Isa::ALL {
        let (family, kind) = (family(isa), TileKind::F32);
        let key = TileKey {
            family,
            kind,
            rows: max_rows(family, kind, 2),
            vectors: 2,
            unit_k: true,
            ahead: false,
        };
        c.bench_function(&format!("assemble_{}", symbol(key)), |bench| {
            bench.iter(|| assemble_tile(key))
        });
    }
}

criterion_group!(benches, tiles, gemms, assembling);
criterion_main!(benches);
