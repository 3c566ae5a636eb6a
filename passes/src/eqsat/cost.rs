//! The roofline cost of operators and of kernels, from the plain facts of a target.
//!
//! A kernel costs the larger of its arithmetic time and its memory time, plus a constant. Figures for the share of the
//! peak that a kind of loop nest reaches are constants here, each with its reason; a wrong one costs speed, never
//! results. Unknown extents count as [`SYMBOL`].

use crate::fusion::{Class, class};
use brolga_ir::{Attr, DType, Dim, Op, Target, Type};

/// The extent assumed for a symbol.
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
}

/// A dim as a number.
pub fn extent(d: &Dim) -> f64 {
    d.eval(&|_| Some(SYMBOL)).unwrap_or(SYMBOL).max(0) as f64
}

/// The number of elements of a type.
pub fn elements(t: &Type) -> f64 {
    t.shape.iter().map(extent).product()
}

/// The bytes of a type.
pub fn bytes(t: &Type) -> f64 {
    elements(t) * t.dtype.bytes() as f64
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
        }
    }

    /// Seconds to read or write a tensor once.
    pub fn traffic(&self, t: &Type) -> f64 {
        self.traffic_of(bytes(t))
    }

    /// Seconds to read or write so many bytes, from the level of cache that they fit in.
    pub fn traffic_of(&self, bytes: f64) -> f64 {
        bytes / if bytes <= self.l2 { self.near } else { self.far }
    }

    /// Seconds of a kernel.
    pub fn kernel(&self, compute: f64, memory: f64) -> f64 {
        compute.max(memory) + PER_KERNEL
    }

    /// Seconds of arithmetic of an operator, and seconds of memory beyond reading its operands once.
    pub fn operator(&self, op: &Op, types: &[Type], out: &Type) -> (f64, f64) {
        let n = elements(out);
        match class(op) {
            Class::Store | Class::Reshape | Class::Composite | Class::Host => (0.0, 0.0),
            Class::Map => (n * self.map(op, types), 0.0),
            Class::Source => (n / self.vector, 0.0),
            Class::Move => match op.name() {
                "transpose" if strides(op, types) => (STRIDED * self.traffic(out), 0.0),
                "pad" => (n / self.vector, 0.0),
                _ => (0.0, 0.0),
            },
            // Of the data only as much is read as is given: the rest of what reading it once would cost is taken back.
            Class::Gather => (
                2.0 * n / self.vector,
                (2.0 * self.traffic(out) - self.traffic(&types[0])).min(0.0),
            ),
            Class::Reduce => (elements(&types[0]) * reduction(op) / self.vector, 0.0),
            Class::Final => (n / self.vector, 0.0),
            Class::Window => {
                let taps: f64 = op.ints("kernel").iter().map(|&k| k as f64).product();
                let share = if op.flag("channels_last") {
                    DEPTHWISE
                } else {
                    WINDOW_FIRST
                };
                (n * taps / (self.peak * share * unguarded(op)), 0.0)
            }
            Class::Contract => (self.contraction(op, types, n), 0.0),
        }
    }

    fn map(&self, op: &Op, types: &[Type]) -> f64 {
        let heavy = [
            "exp",
            "expm1",
            "log",
            "sin",
            "cos",
            "tan",
            "asin",
            "acos",
            "atan",
            "sinh",
            "cosh",
            "tanh",
            "asinh",
            "acosh",
            "atanh",
            "erf",
            "sigmoid",
            "gelu",
            "gelu_tanh",
            "silu",
            "softplus",
            "mish",
            "pow",
        ];
        let weight = if heavy.contains(&op.name()) {
            20.0
        } else if matches!(op.name(), "div" | "sqrt" | "reciprocal" | "mod" | "fmod") {
            4.0
        } else {
            1.0
        };
        // Lanes of 128 bits: an f64 or i64 costs two f32.
        let lanes = types
            .iter()
            .map(|t| t.dtype.compute().bytes().max(4))
            .max()
            .unwrap_or(4) as f64
            / 4.0;
        weight * lanes / self.vector
    }

    fn contraction(&self, op: &Op, types: &[Type], n: f64) -> f64 {
        let (w, x) = (&types[1], &types[0]);
        let tiles = w.dtype == DType::F32 && x.dtype == DType::F32;
        let peak = if tiles { self.peak } else { self.vector / 2.0 };
        let work = 2.0 * n * depth(op, types);
        if op.name() == "contract" {
            return work / (peak * CONTRACTION);
        }
        let last = op.flag("channels_last");
        let channels = if last { &w.shape[w.rank() - 2] } else { &w.shape[1] };
        let share = match (last, op.int("groups"), channels.is(1)) {
            (true, 1, _) => CONTRACTION,
            (true, _, false) => CONTRACTION / 2.0,
            (true, _, true) => DEPTHWISE,
            (false, 1, _) => CHANNELS_FIRST,
            (false, ..) => WINDOW_FIRST,
        };
        work / (peak * share * unguarded(op))
    }
}

/// The products that an element of a contraction or convolution sums.
fn depth(op: &Op, types: &[Type]) -> f64 {
    let (x, w) = (&types[0], &types[1]);
    if op.name() == "contract" {
        return op.axes("lhs_contract").iter().map(|&a| extent(&x.shape[a])).product();
    }
    let o = if op.flag("channels_last") { w.rank() - 1 } else { 0 };
    elements(w) / extent(&w.shape[o]).max(1.0)
}

/// The multiply-adds of a contraction or convolution.
pub fn multiply_adds(op: &Op, types: &[Type], out: &Type) -> f64 {
    elements(out) * depth(op, types)
}

fn unguarded(op: &Op) -> f64 {
    let zero = |name| op.dims(name).iter().all(|d| d.is(0));
    if zero("pads_low") && zero("pads_high") {
        1.0
    } else {
        GUARDED
    }
}

/// True for a transpose that moves the innermost axis of more than one element, so that it strides.
pub fn strides(op: &Op, types: &[Type]) -> bool {
    if op.name() != "transpose" {
        return false;
    }
    let shape = &types[0].shape;
    let wide: Vec<i64> = op
        .ints("perm")
        .iter()
        .copied()
        .filter(|&p| !shape[p as usize].is(1))
        .collect();
    let last = (0..shape.len() as i64).rfind(|&d| !shape[d as usize].is(1));
    wide.last().copied() != last
}

/// Operations an element of a row-reducing operator.
fn reduction(op: &Op) -> f64 {
    match op.name() {
        "softmax" | "log_softmax" => 25.0,
        "layer_norm" => 8.0,
        "rms_norm" => 5.0,
        _ => 1.0,
    }
}

/// True when every attribute is free of symbols.
pub fn known(op: &Op) -> bool {
    op.attrs()
        .iter()
        .all(|a| !matches!(a, Attr::Dims(ds) if ds.iter().any(|d| d.as_const().is_none())))
}
