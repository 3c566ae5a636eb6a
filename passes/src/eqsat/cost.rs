//! The roofline cost of operators and of kernels, from the plain facts of a target.
//!
//! A kernel costs the larger of its arithmetic time and its memory time, plus a constant. Figures for the share of the
//! peak that a kind of loop nest reaches are constants here, each with its reason; a wrong one costs speed, never
//! results. Unknown extents count as [`SYMBOL`], batches as 1.

use brolga_ir::ops::{Channels, Role, Window, WindowShape};
use brolga_ir::{DType, Dim, Graph, Op, Symbol, Target, Type};

/// The extent assumed for a symbol that is no batch.
pub const SYMBOL: i64 = 64;

/// Seconds that a kernel costs beyond its work: the call, the prologue, the parallel region.
pub const PER_KERNEL: f64 = 1.0e-6;

/// The share of the tile peak that a contraction reaches, see the design's measurements.
const CONTRACTION: f64 = 0.9;
/// A convolution with channels first strides through its operand and reaches no tile.
const CHANNELS_FIRST: f64 = 0.02;
/// A convolution of one channel a group has no reduction to tile.
const DEPTHWISE: f64 = 0.15;
/// Windows with channels first: scalar loads.
const WINDOW_FIRST: f64 = 0.03;
/// A window in which bounds are tested at every tap, against one whose padding its producer laid out.
pub const GUARDED: f64 = 0.3;
/// What a strided access costs, in accesses of consecutive elements. It is not hidden behind arithmetic, as bandwidth is:
/// elements are taken one at a time, and the arithmetic on them too.
pub const STRIDED: f64 = 5.0;

/// The cost model of a target.
#[derive(Clone, Debug)]
pub struct CostModel {
    peak: f64,
    vector: f64,
    near: f64,
    far: f64,
    l2: f64,
    batches: Vec<Symbol>,
}

/// The symbols that count examples: the first extent of an input that has other extents of its own, or at least three.
/// Most runs have one example; a model's choices are to fit those.
pub fn batches(g: &Graph) -> Vec<Symbol> {
    let mut out: Vec<Symbol> = vec![];
    for input in &g.inputs {
        let [first, rest @ ..] = &g.ty(input.value).shape[..] else {
            continue;
        };
        let Some(symbol) = first.as_symbol() else { continue };
        let alone = rest.iter().all(|d| d.as_const().is_some());
        if (rest.len() >= 2 || !alone) && !out.contains(symbol) {
            out.push(symbol.clone());
        }
    }
    out
}

impl CostModel {
    /// The cost model of a target.
    pub fn new(t: &Target) -> CostModel {
        let hertz = t.ghz * 1e9;
        CostModel {
            peak: t.tile_flops_per_cycle * hertz,
            vector: t.vector_flops_per_cycle * hertz,
            near: t.bytes_per_cycle[1] * hertz,
            far: t.bytes_per_cycle[2] * hertz,
            l2: t.l2_bytes as f64,
            batches: vec![],
        }
    }

    /// The model for a graph with these symbols as [`batches`].
    pub fn with_batches(self, batches: Vec<Symbol>) -> CostModel {
        CostModel { batches, ..self }
    }

    /// A dim as a number.
    pub fn extent(&self, d: &Dim) -> f64 {
        let size = |s: &str| {
            if self.batches.iter().any(|b| **b == *s) {
                1
            } else {
                SYMBOL
            }
        };
        d.eval(&|s| Some(size(s))).unwrap_or(SYMBOL).max(0) as f64
    }

    /// The number of elements of a type.
    pub fn elements(&self, t: &Type) -> f64 {
        t.shape.iter().map(|d| self.extent(d)).product()
    }

    /// The bytes of a type.
    pub fn bytes(&self, t: &Type) -> f64 {
        self.elements(t) * t.dtype.bytes() as f64
    }

    /// The taps of a window.
    pub fn taps(&self, w: &dyn Window, op: &Op) -> f64 {
        w.extents(op).iter().map(|d| self.extent(d)).product()
    }

    /// Seconds to read or write a tensor once.
    pub fn traffic(&self, t: &Type) -> f64 {
        self.traffic_of(self.bytes(t))
    }

    /// Seconds to read or write so many bytes, from the level of cache that they fit in.
    pub fn traffic_of(&self, bytes: f64) -> f64 {
        bytes / if bytes <= self.l2 { self.near } else { self.far }
    }

    /// Seconds of a kernel.
    pub fn kernel(&self, compute: f64, memory: f64) -> f64 {
        compute.max(memory) + PER_KERNEL
    }

    /// The work of an operator.
    pub fn operator(&self, op: &Op, types: &[Type], out: &Type) -> Work {
        let n = self.elements(out);
        let plain = |compute| Work {
            compute,
            ..Work::default()
        };
        match op.role() {
            Role::Store | Role::Reshape(_) | Role::Composite | Role::Host => Work::default(),
            Role::Map(f) => plain(n * f.cycles() * lanes(types) / self.vector),
            Role::Source(_) | Role::Assemble(_) => plain(n / self.vector),
            Role::Move(m) => {
                let strided = m.strides(op, &types[0]);
                Work {
                    compute: match (strided, m.fills()) {
                        (true, _) => STRIDED * self.traffic(out),
                        (false, true) => n / self.vector,
                        _ => 0.0,
                    },
                    rough: strided || m.fills(),
                    ..Work::default()
                }
            }
            // Of the data only as much is read as is given: the rest of what reading it once would cost is taken back.
            Role::Gather(_) => Work {
                compute: 2.0 * n / self.vector,
                memory: (2.0 * self.traffic(out) - self.traffic(&types[0])).min(0.0),
                ..Work::default()
            },
            Role::Rows(r) => plain(self.elements(&types[0]) * r.operations() / self.vector),
            Role::Window(w) => Work {
                compute: n * self.taps(w, op) / (self.peak * share(w.shape(op))),
                windowed: true,
                ..Work::default()
            },
            Role::Contract(c) => {
                let tiles = types.iter().all(|t| t.dtype == DType::F32);
                let peak = if tiles { self.peak } else { self.vector / 2.0 };
                let window = c.window(op, types);
                Work {
                    compute: 2.0 * n * self.extent(&c.depth(op, types)) / (peak * window.map_or(CONTRACTION, share)),
                    windowed: window.is_some(),
                    ..Work::default()
                }
            }
        }
    }
}

/// What an operator does in a kernel.
#[derive(Clone, Copy, PartialEq, Debug, Default)]
pub struct Work {
    /// Seconds of arithmetic, where operands are read from memory.
    pub compute: f64,
    /// Seconds of memory beyond reading its operands once.
    pub memory: f64,
    /// True when consecutive elements of the result are not so in memory, or lie behind a margin.
    pub rough: bool,
    /// True when elements of an operand are read once for every window that they are in.
    pub windowed: bool,
}

impl Work {
    /// Seconds of arithmetic where operands are computed in the same kernel, and whether the result is rough: given
    /// whether an operand is.
    pub fn arithmetic(&self, rough_operand: bool) -> (f64, bool) {
        match (self.rough || rough_operand, self.windowed) {
            (true, true) => (self.compute / GUARDED, false),
            (rough, _) => (self.compute, rough),
        }
    }
}

/// Lanes of 128 bits: an f64 or i64 costs two f32.
fn lanes(types: &[Type]) -> f64 {
    let bytes = types.iter().map(|t| t.dtype.compute().bytes().max(4)).max();
    bytes.unwrap_or(4) as f64 / 4.0
}

/// The share of the peak that a loop nest over windows reaches.
fn share(w: WindowShape) -> f64 {
    let share = match (w.channels_last, w.channels) {
        (true, Channels::All) => CONTRACTION,
        (true, Channels::Group) => CONTRACTION / 2.0,
        (true, Channels::One) => DEPTHWISE,
        (false, Channels::All) => CHANNELS_FIRST,
        (false, _) => WINDOW_FIRST,
    };
    if w.padded { share * GUARDED } else { share }
}
