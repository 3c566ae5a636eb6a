//! `Resize` where only a run tells an extent or a scale: positions and weights are computed in the run, in f64, and elements are
//! gathered, as many for each position as the mode's filter is wide.

use super::resize::Mode;
use super::*;
use brolga_ir::{DType, Dim};

/// One axis to resize.
pub struct Stretch {
    /// The axis.
    pub axis: usize,
    /// The extent of the result.
    pub to: Dim,
    /// By what the extent is multiplied, an f64 of rank 0.
    pub scale: Value,
    /// Begin and end of the region of interest, as parts of the extent, f64 of rank 0.
    pub roi: Option<(Value, Value)>,
}

impl Builder<'_> {
    /// `x` resized along an axis.
    ///
    /// # Errors
    /// When an operator does not accept the operands.
    pub fn interpolate(&mut self, x: Value, s: &Stretch, mode: &Mode) -> One {
        let from = self.shape(x)[s.axis].clone();
        self.require_at_most(&Dim::ONE, &from)?;
        let at = self.coordinates(&from, s, mode)?;
        let last = self.dim_scalar(&(&from - &Dim::ONE), DType::F64)?;
        let mut y = match mode.nearest {
            true => {
                let i = self.rounded(at, mode)?;
                self.elements(x, s.axis, i, last)?
            }
            false if mode.antialias => self.smoothed(x, s, at, last, mode)?,
            false => self.filtered(x, s.axis, at, last, mode)?,
        };
        if mode.coordinates == "tf_crop_and_resize" {
            let below = self.map_num("less", at, 0.0)?;
            let above = self.map("greater", &[at, last])?;
            let outside = self.map("or", &[below, above])?;
            let axes: Vec<usize> = (1..self.rank(y) - s.axis).collect();
            let outside = self.unsqueeze(outside, &axes)?;
            let fill = self.scalar(self.dtype(y), mode.extrapolation);
            y = self.map("where", &[outside, fill, y])?;
        }
        Ok(y)
    }

    /// The positions in the operand of all positions in the result: f64[to].
    fn coordinates(&mut self, from: &Dim, s: &Stretch, mode: &Mode) -> One {
        let o = self.iota(DType::F64, std::slice::from_ref(&s.to), 0)?;
        let (n, to) = (self.dim_scalar(from, DType::F64)?, self.dim_scalar(&s.to, DType::F64)?);
        let last = self.map_num("sub", n, 1.0)?;
        let half_pixel = |graph: &mut Self, less: f64| {
            let o = graph.map_num("add", o, 0.5)?;
            let c = graph.map("div", &[o, s.scale])?;
            graph.map_num("sub", c, less)
        };
        let several = |graph: &mut Self| graph.map_num("greater", to, 1.0);
        match mode.coordinates.as_str() {
            "asymmetric" => self.map("div", &[o, s.scale]),
            "align_corners" => {
                let extent = self.map("mul", &[n, s.scale])?;
                let steps = self.map_num("sub", extent, 1.0)?;
                let steps = self.map_num("max", steps, f64::MIN_POSITIVE)?;
                let c = self.map("mul", &[o, last])?;
                self.map("div", &[c, steps])
            }
            "pytorch_half_pixel" => {
                let c = half_pixel(self, 0.5)?;
                let (several, zero) = (several(self)?, self.scalar(DType::F64, 0));
                self.map("where", &[several, c, zero])
            }
            "half_pixel_symmetric" => {
                let extent = self.map("mul", &[n, s.scale])?;
                let adjustment = self.map("div", &[to, extent])?;
                let less = self.map("mul", &[adjustment, n])?;
                let margin = self.map("sub", &[n, less])?;
                let margin = self.map_num("mul", margin, 0.5)?;
                let c = half_pixel(self, 0.5)?;
                self.map("add", &[c, margin])
            }
            "tf_half_pixel_for_nn" => half_pixel(self, 0.0),
            "tf_crop_and_resize" => {
                let (start, end) = match s.roi {
                    Some(roi) => roi,
                    None => (self.scalar(DType::F64, 0), self.scalar(DType::F64, 1)),
                };
                let first = self.map("mul", &[start, last])?;
                let size = self.map("sub", &[end, start])?;
                let size = self.map("mul", &[size, last])?;
                let steps = self.map_num("sub", to, 1.0)?;
                let steps = self.map_num("max", steps, 1.0)?;
                let step = self.map("div", &[size, steps])?;
                let c = self.map("mul", &[o, step])?;
                let c = self.map("add", &[c, first])?;
                let middle = self.map_num("mul", size, 0.5)?;
                let middle = self.map("add", &[first, middle])?;
                let several = several(self)?;
                self.map("where", &[several, c, middle])
            }
            _ => half_pixel(self, 0.5),
        }
    }

    fn rounded(&mut self, at: Value, mode: &Mode) -> One {
        match mode.rounding.as_str() {
            "floor" => self.map("floor", &[at]),
            "ceil" => self.map("ceil", &[at]),
            "round_prefer_ceil" => {
                let c = self.map_num("add", at, 0.5)?;
                self.map("floor", &[c])
            }
            _ => {
                let c = self.map_num("sub", at, 0.5)?;
                self.map("ceil", &[c])
            }
        }
    }

    /// The elements at whole positions, those outside cut to the nearest inside.
    fn elements(&mut self, x: Value, axis: usize, at: Value, last: Value) -> One {
        let at = self.map_num("max", at, 0.0)?;
        let at = self.map("min", &[at, last])?;
        let at = self.cast(at, DType::I64)?;
        self.gather(axis, x, at)
    }

    /// Sums of 2 or 4 elements around each position, weighted.
    fn filtered(&mut self, x: Value, axis: usize, at: Value, last: Value, mode: &Mode) -> One {
        let dtype = self.dtype(x);
        let compute = if dtype.is_float() { dtype } else { DType::F32 };
        let first = self.map("floor", &[at])?;
        let taps = if mode.cubic { -1..=2 } else { 0..=1 };
        let mut parts = vec![];
        for k in taps {
            let i = self.map_num("add", first, k as f64)?;
            let d = self.map("sub", &[at, i])?;
            let d = self.map("abs", &[d])?;
            let mut w = self.weight(d, k, mode)?;
            if mode.exclude_outside {
                w = self.inside(i, last, w)?;
            }
            parts.push((i, w));
        }
        if mode.exclude_outside {
            let weights: Vec<Value> = parts.iter().map(|p| p.1).collect();
            let sum = self.sum(&weights)?;
            for p in &mut parts {
                p.1 = self.map("div", &[p.1, sum])?;
            }
        }
        let mut terms = vec![];
        for (i, w) in parts {
            let v = self.elements(x, axis, i, last)?;
            let v = self.cast(v, compute)?;
            let w = self.cast(w, compute)?;
            let axes: Vec<usize> = (1..self.rank(x) - axis).collect();
            let w = self.unsqueeze(w, &axes)?;
            terms.push(self.map("mul", &[v, w])?);
        }
        let y = self.sum(&terms)?;
        self.cast(y, dtype)
    }

    /// Sums of as many elements as a filter covers that is as wide as an element of the result, where that is the wider one:
    /// steps of a loop, over which weights are summed too.
    fn smoothed(&mut self, x: Value, s: &Stretch, at: Value, last: Value, mode: &Mode) -> One {
        let dtype = self.dtype(x);
        let compute = if dtype.is_float() { dtype.compute() } else { DType::F32 };
        let x = self.cast(x, compute)?;
        let narrow = self.map_num("min", s.scale, 1.0)?;
        let reach = self.scalar(DType::F64, if mode.cubic { 2.0 } else { 1.0 });
        let radius = self.map("div", &[reach, narrow])?;
        let first = self.map("sub", &[at, radius])?;
        let first = self.map("floor", &[first])?;
        let first = self.map_num("add", first, 1.0)?;
        let width = self.map_num("mul", radius, 2.0)?;
        let width = self.map("ceil", &[width])?;
        let mut shape = self.shape(x);
        shape[s.axis] = s.to.clone();
        let sum = self.splat(compute, &shape, 0.0)?;
        let total = self.splat(DType::F64, std::slice::from_ref(&s.to), 0.0)?;
        let start = self.scalar(DType::F64, 0.0);
        let axes: Vec<usize> = (1..shape.len() - s.axis).collect();
        let done = self.repeat_while(
            &[start, total, sum],
            &[width, x, at, first, narrow, last],
            |b, v| b.map("less_or_equal", &[v[0], v[3]]),
            |b, v| {
                let i = b.map("add", &[v[6], v[0]])?;
                let d = b.map("sub", &[v[5], i])?;
                let d = b.map("abs", &[d])?;
                let d = b.map("mul", &[d, v[7]])?;
                let w = b.filter(d, mode)?;
                let w = if mode.exclude_outside { b.inside(i, v[8], w)? } else { w };
                let total = b.map("add", &[v[1], w])?;
                let element = b.elements(v[4], s.axis, i, v[8])?;
                let w = b.cast(w, compute)?;
                let w = b.unsqueeze(w, &axes)?;
                let part = b.map("mul", &[element, w])?;
                let sum = b.map("add", &[v[2], part])?;
                Ok(vec![b.map_num("add", v[0], 1.0)?, total, sum])
            },
        )?;
        let none = self.map_num("equal", done[1], 0.0)?;
        let one = self.scalar(DType::F64, 1.0);
        let total = self.map("where", &[none, one, done[1]])?;
        let total = self.cast(total, compute)?;
        let total = self.unsqueeze(total, &axes)?;
        let y = self.map("div", &[done[2], total])?;
        self.cast(y, dtype)
    }

    /// The filter at a distance of any size.
    fn filter(&mut self, d: Value, mode: &Mode) -> One {
        let near = self.weight(d, 0, mode)?;
        if !mode.cubic {
            return self.map_num("max", near, 0.0);
        }
        let far = self.weight(d, -1, mode)?;
        let zero = self.scalar(DType::F64, 0.0);
        let within = self.map_num("less", d, 2.0)?;
        let far = self.map("where", &[within, far, zero])?;
        let close = self.map_num("less_or_equal", d, 1.0)?;
        self.map("where", &[close, near, far])
    }

    /// Weights of elements at whole positions, and 0 where there is none.
    fn inside(&mut self, i: Value, last: Value, weight: Value) -> One {
        let above = self.map_num("greater_or_equal", i, 0.0)?;
        let below = self.map("less_or_equal", &[i, last])?;
        let inside = self.map("and", &[above, below])?;
        let zero = self.scalar(DType::F64, 0);
        self.map("where", &[inside, weight, zero])
    }

    fn sum(&mut self, terms: &[Value]) -> One {
        let (first, rest) = terms.split_first().ok_or("no terms")?;
        rest.iter().try_fold(*first, |sum, v| self.map("add", &[sum, *v]))
    }

    /// The weight of the element at a distance: of cubic convolution (R. Keys, Cubic Convolution Interpolation for Digital Image
    /// Processing, 1981) the polynomial of its side, where the `k`-th element behind the position's floor always lies.
    fn weight(&mut self, d: Value, k: i64, mode: &Mode) -> One {
        let a = mode.cubic_a;
        let coefficients = match (mode.cubic, k) {
            (false, _) => vec![-1.0, 1.0],
            (true, 0 | 1) => vec![a + 2.0, -(a + 3.0), 0.0, 1.0],
            (true, _) => vec![a, -5.0 * a, 8.0 * a, -4.0 * a],
        };
        let mut sum = self.scalar(DType::F64, coefficients[0]);
        for c in &coefficients[1..] {
            sum = self.map("mul", &[sum, d])?;
            sum = self.map_num("add", sum, *c)?;
        }
        Ok(sum)
    }
}
