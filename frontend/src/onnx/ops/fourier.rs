//! `DFT` and `STFT`. A transform is a contraction with a matrix of roots of unity, whose real and imaginary parts are a
//! dimension of 2 on both sides; one that is long and has factors is split into two shorter ones:
//!
//! ```text
//! X[k + a·l] = Σ_j W_n^(j·k) W_b^(j·l) Σ_i W_a^(i·k) x[i·b + j]        n = a·b
//! ```
//!
//! Sums are in f64: a bin may be smaller than another by more than f32 has digits. Source: Cooley and Tukey, "An algorithm
//! for the machine calculation of complex Fourier series", 1965.

use super::*;
use brolga_ir::{DType, Dim, Number, Tensor, Type};
use std::f64::consts::PI;

/// Lengths up to this one are not split.
const WHOLE: i64 = 256;
/// The longest length without factors: its matrix has up to four times its square of elements.
const LONGEST: i64 = 4096;

/// The parts of a transform that are asked for.
#[derive(Clone, Copy)]
struct Form {
    inverse: bool,
    onesided: bool,
}

/// `DFT`: the axis is an attribute before version 20, an operand since.
pub fn dft(graph: &mut Builder<'_>, ctx: &NodeCtx<'_>) -> Outcome {
    ctx.arity(1, 3)?;
    let x = ctx.input(0)?;
    let rank = graph.rank(x);
    let given = match ctx.version {
        ..20 => ctx.int("axis", 1)?,
        _ => match ctx.optional(2) {
            Some(v) => *graph.ints_operand(v, "the axis")?.first().ok_or("an empty axis")?,
            None => -2,
        },
    };
    let axis = node::axis(given, rank)?;
    if axis + 1 >= rank {
        return Err(Fail::Bad(format!(
            "axis {given} of {}, whose last dimension is that of complex parts",
            graph.ty(x)
        )));
    }
    let form = Form {
        inverse: ctx.flag("inverse", false)?,
        onesided: ctx.flag("onesided", false)?,
    };
    let extent = graph.shape(x)[axis].clone();
    let length = match ctx.optional(1) {
        Some(v) => graph
            .dims_operand(v, "the length")?
            .first()
            .cloned()
            .ok_or("an empty length")?,
        None if form.inverse && form.onesided => &(&extent - &Dim::ONE) * 2,
        None => extent,
    };
    graph.require_at_most(&Dim::ONE, &length)?;
    one(graph.fourier(x, axis, &length, form))
}

/// `STFT`: the transforms of frames, which may overlap.
pub fn stft(graph: &mut Builder<'_>, ctx: &NodeCtx<'_>) -> Outcome {
    ctx.arity(2, 4)?;
    let x = ctx.input(0)?;
    if graph.rank(x) != 3 {
        return Err(Fail::Bad(format!("{}, expected rank 3", graph.ty(x))));
    }
    let first = |graph: &mut Builder<'_>, v: Value, what: &str| {
        let d = graph.dims_operand(v, what)?.first().cloned();
        d.ok_or_else(|| Fail::Bad(format!("{what} is empty")))
    };
    let step = first(graph, ctx.input(1)?, "the step")?;
    let extent = graph.shape(x)[1].clone();
    let length = match (ctx.optional(3), ctx.optional(2)) {
        (Some(v), _) => first(graph, v, "the length")?,
        (None, Some(window)) => graph.ty(window).len(),
        (None, None) => extent.clone(),
    };
    graph.require_at_most(&Dim::ONE, &step)?;
    graph.require_at_most(&Dim::ONE, &length)?;
    graph.require_at_most(&length, &extent)?;
    let frames = &(&extent - &length).floor_div(&step) + &Dim::ONE;
    let plane = [frames, length.clone()];
    let (frame, at) = (graph.iota(DType::I64, &plane, 0)?, graph.iota(DType::I64, &plane, 1)?);
    let step = graph.dim_scalar(&step, DType::I64)?;
    let start = graph.map("mul", &[frame, step])?;
    let index = graph.map("add", &[start, at])?;
    let mut y = graph.gather(1, x, index)?;
    if let Some(window) = ctx.optional(2) {
        let window = graph.fit_shape(window, std::slice::from_ref(&length))?;
        let window = graph.cast(window, graph.dtype(y))?;
        let window = graph.unsqueeze(window, &[1])?;
        y = graph.map("mul", &[y, window])?;
    }
    let form = Form {
        inverse: false,
        onesided: ctx.flag("onesided", true)?,
    };
    one(graph.fourier(y, 2, &length, form))
}

impl Builder<'_> {
    /// The transform of `x`, [… 1 or 2], along an axis that is not the last, cut or filled with zeros to a length.
    fn fourier(&mut self, x: Value, axis: usize, length: &Dim, form: Form) -> One {
        let (dtype, rank) = (self.dtype(x), self.rank(x));
        let complex = match self.shape(x)[rank - 1].as_const() {
            Some(c @ 1..=2) => c == 2,
            _ => return Err(Fail::Bad(format!("{}, expected a last extent of 1 or 2", self.ty(x)))),
        };
        if !dtype.is_float() {
            return Err(Fail::Bad(format!("{}, expected floats", self.ty(x))));
        }
        let half = &length.floor_div(&Dim::Const(2)) + &Dim::ONE;
        let mut order: Vec<usize> = (0..rank).filter(|&a| a != axis).collect();
        order.insert(rank - 2, axis);
        let x = self.transpose(x, &order)?;
        let from_half = form.inverse && form.onesided;
        let taken = if from_half { half.clone() } else { length.clone() };
        let mut high = vec![Dim::ZERO; rank];
        high[rank - 2] = &taken - &self.shape(x)[rank - 2];
        let x = self.pad(x, vec![Dim::ZERO; rank], high, vec![0; rank], 0.0)?;
        let x = self.cast(x, DType::F64)?;
        let mut y = match from_half {
            true => {
                let x = if complex { x } else { self.complex(x)? };
                self.whole_of_half(x, length, &half)?
            }
            false => self.transform(x, length, complex, form.inverse)?,
        };
        if form.inverse && !from_half {
            let n = self.dim_scalar(length, DType::F64)?;
            y = self.map("div", &[y, n])?;
        }
        if form.onesided && !form.inverse {
            y = self.slice_axis(y, rank - 2, Dim::ZERO, half)?;
        }
        let mut back: Vec<usize> = (0..rank - 2).collect();
        back.insert(axis, rank - 2);
        back.push(rank - 1);
        let y = self.transpose(y, &back)?;
        self.cast(y, dtype)
    }

    /// Real numbers [… 1] as complex ones.
    fn complex(&mut self, x: Value) -> One {
        let rank = self.rank(x);
        let mut high = vec![Dim::ZERO; rank];
        high[rank - 1] = Dim::ONE;
        self.pad(x, vec![Dim::ZERO; rank], high, vec![0; rank], 0.0)
    }

    /// The transform [… n, 2] of [… n, 1 or 2], not divided by anything.
    fn transform(&mut self, x: Value, n: &Dim, complex: bool, inverse: bool) -> One {
        match n.as_const() {
            Some(c) if c > WHOLE => match factor(c) {
                Some(a) => self.split(x, [a, c / a], complex, inverse),
                None if c > LONGEST => {
                    unsupported(format!("a transform of length {c}, which has no factor up to {WHOLE}"))
                }
                None => self.whole(x, n, complex, inverse),
            },
            _ => self.whole(x, n, complex, inverse),
        }
    }

    /// The same as one contraction.
    fn whole(&mut self, x: Value, n: &Dim, complex: bool, inverse: bool) -> One {
        let roots = self.roots(n, n, n, inverse)?;
        let rank = self.rank(x);
        if !complex {
            let x = self.squeeze(x, &[rank - 1])?;
            return self.contract(x, roots, [&[], &[]], [&[rank - 2], &[0]]);
        }
        // A product by the imaginary unit is (-b, a) for (a, b).
        let turned = self.quarter_turned(roots)?;
        let both = [self.unsqueeze(roots, &[1])?, self.unsqueeze(turned, &[1])?];
        let matrix = self.concat(1, &both)?;
        self.contract(x, matrix, [&[], &[]], [&[rank - 2, rank - 1], &[0, 1]])
    }

    /// The same in two steps, by factors of the length.
    fn split(&mut self, x: Value, [a, b]: [i64; 2], complex: bool, inverse: bool) -> One {
        let shape = self.shape(x);
        let rank = shape.len();
        let (da, db) = (Dim::Const(a), Dim::Const(b));
        let lead = &shape[..rank - 2];
        let x = self.reshape(x, [lead, &[da.clone(), db.clone(), shape[rank - 1].clone()]].concat())?;
        // Over i: [… j, parts, i] as [… j, i, parts], to [… j, k, 2].
        let order: Vec<usize> = (0..rank - 2).chain([rank - 1, rank - 2, rank]).collect();
        let x = self.transpose(x, &order)?;
        let y = self.whole(x, &da, complex, inverse)?;
        let roots = self.roots(&db, &da, &Dim::Const(a * b), inverse)?;
        let turned = self.quarter_turned(roots)?;
        let parts = |graph: &mut Self, i: i64| graph.slice_axis(y, rank, Dim::Const(i), Dim::ONE);
        let (real, imaginary) = (parts(self, 0)?, parts(self, 1)?);
        let (real, imaginary) = (self.map("mul", &[real, roots])?, self.map("mul", &[imaginary, turned])?);
        let y = self.map("add", &[real, imaginary])?;
        // Over j: [… k, j, 2] to [… k, l, 2], and k + a·l is the bin.
        let y = self.transpose(y, &order)?;
        let y = self.transform(y, &db, true, inverse)?;
        let y = self.transpose(y, &order)?;
        self.reshape(y, [lead, &[Dim::Const(a * b), Dim::Const(2)]].concat())
    }

    /// Real numbers [… n, 1] of the bins up to the middle one, [… n / 2 + 1, 2]: the others are their conjugates.
    fn whole_of_half(&mut self, x: Value, n: &Dim, half: &Dim) -> One {
        let roots = self.roots(half, n, n, true)?;
        let bin = self.iota(DType::I64, std::slice::from_ref(half), 0)?;
        let mirror = self.dim_scalar(n, DType::I64)?;
        let mirror = self.map("sub", &[mirror, bin])?;
        // A bin and its mirror are one at 0, and at the middle of an even number.
        let first = self.map_num("equal", bin, 0)?;
        let middle = self.map("equal", &[bin, mirror])?;
        let alone = self.map("or", &[first, middle])?;
        let (once, twice) = (self.scalar(DType::F64, 1.0), self.scalar(DType::F64, 2.0));
        let weight = self.map("where", &[alone, once, twice])?;
        let count = self.dim_scalar(n, DType::F64)?;
        let weight = self.map("div", &[weight, count])?;
        let weight = self.unsqueeze(weight, &[1, 2])?;
        let matrix = self.map("mul", &[roots, weight])?;
        // The real part of a product is that of the first with (cos, -sin).
        let cos = self.slice_axis(matrix, 2, Dim::ZERO, Dim::ONE)?;
        let sin = self.slice_axis(matrix, 2, Dim::ONE, Dim::ONE)?;
        let minus = self.op("neg", &[], &[sin])?;
        let matrix = self.concat(2, &[cos, minus])?;
        let rank = self.rank(x);
        let y = self.contract(x, matrix, [&[], &[]], [&[rank - 2, rank - 1], &[0, 2]])?;
        self.unsqueeze(y, &[rank - 1])
    }

    /// `exp(∓2πi·r·c / n)` for rows and columns, [rows, columns, 2].
    fn roots(&mut self, rows: &Dim, columns: &Dim, n: &Dim, inverse: bool) -> One {
        let sign = if inverse { 1.0 } else { -1.0 };
        self.check_size(&Type::new(
            DType::F64,
            vec![rows.clone(), columns.clone(), Dim::Const(2)],
        ))?;
        if let (Some(r), Some(c), Some(n)) = (rows.as_const(), columns.as_const(), n.as_const()) {
            let shape = [r as usize, c as usize, 2];
            let value = |p: usize| {
                let (row, column) = (p as i64 / 2 / c, p as i64 / 2 % c);
                let angle = 2.0 * PI * (row * column % n) as f64 / n as f64;
                Number::Float(if p.is_multiple_of(2) {
                    angle.cos()
                } else {
                    sign * angle.sin()
                })
            };
            return Ok(self.dense(Tensor::from_fn(DType::F64, &shape, value)));
        }
        let plane = [rows.clone(), columns.clone(), Dim::ONE];
        let (row, column) = (self.iota(DType::I64, &plane, 0)?, self.iota(DType::I64, &plane, 1)?);
        let product = self.map("mul", &[row, column])?;
        let whole = self.dim_scalar(n, DType::I64)?;
        let rest = self.map("mod", &[product, whole])?;
        let rest = self.cast(rest, DType::F64)?;
        let whole = self.cast(whole, DType::F64)?;
        let turns = self.map("div", &[rest, whole])?;
        let angle = self.map_num("mul", turns, 2.0 * PI)?;
        let cos = self.op("cos", &[], &[angle])?;
        let sin = self.op("sin", &[], &[angle])?;
        let sin = self.map_num("mul", sin, sign)?;
        self.concat(2, &[cos, sin])
    }

    /// Complex numbers [… 2] times the imaginary unit.
    fn quarter_turned(&mut self, x: Value) -> One {
        let last = self.rank(x) - 1;
        let real = self.slice_axis(x, last, Dim::ZERO, Dim::ONE)?;
        let imaginary = self.slice_axis(x, last, Dim::ONE, Dim::ONE)?;
        let minus = self.op("neg", &[], &[imaginary])?;
        self.concat(last, &[minus, real])
    }
}

/// The factor of a length that is nearest to its root from below, if there is one up to [`WHOLE`].
fn factor(n: i64) -> Option<i64> {
    (2..=WHOLE).rfind(|f| f * f <= n && n % f == 0)
}
