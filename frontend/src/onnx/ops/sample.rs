//! Elements of images at positions that are data, which `GridSample` and `DeformConv` share. A position is a float for each
//! spatial axis; along an axis it stands for one to four elements, each with a weight, and what is read is the sum over all
//! combinations. Indices are clamped before anything is read, so that no position reads beside the data. What lies beside it is
//! decided for each element, not for the position, as PyTorch and ONNX Runtime do it; where the four elements of a cubic
//! interpolation straddle the border of the data, ONNX's own evaluator clamps the position before.

use super::*;
use brolga_ir::{Attr, DType, Dim, dim::product};

/// How a value is made of the elements around a position.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Interpolation {
    /// The nearest element; halves go to the even one.
    Nearest,
    /// Of two elements an axis.
    Linear,
    /// Of four elements an axis: Keys, "Cubic convolution interpolation for digital image processing", 1981, a = -3/4.
    Cubic,
}

/// What lies beside the data.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Beside {
    /// 0.
    Zeros,
    /// The element at the border.
    Border,
    /// The data mirrored at the centres of the outermost elements (`corners`), or at their outer edges.
    Reflection {
        /// Which of both.
        corners: bool,
    },
}

/// One element that a position stands for along an axis.
struct Tap {
    /// Its index [N, P], within the axis.
    index: Value,
    /// Its weight [N, 1, P]; none for 1.
    weight: Option<Value>,
    /// Where it is an element of the data, [N, P]; none for everywhere.
    inside: Option<Value>,
}

/// Reads planes at positions.
pub struct Sampler {
    data: Value,
    extents: Vec<Dim>,
    index: DType,
    compute: DType,
    interpolation: Interpolation,
    beside: Beside,
}

impl Sampler {
    /// A sampler of `x`, [N, C, spatial…].
    ///
    /// # Errors
    /// When the rank of `x` is less than 3.
    pub fn new(
        graph: &mut Builder<'_>,
        x: Value,
        interpolation: Interpolation,
        beside: Beside,
    ) -> Result<Sampler, Fail> {
        let (dtype, shape) = (graph.dtype(x), graph.shape(x));
        if shape.len() < 3 {
            return Err(Fail::Bad(format!("{}, expected rank 3 or more", graph.ty(x))));
        }
        let extents = shape[2..].to_vec();
        let area = product(&extents);
        let compute = match dtype {
            _ if interpolation == Interpolation::Nearest => dtype,
            DType::F64 | DType::I64 | DType::U64 => DType::F64,
            _ => DType::F32,
        };
        let x = graph.cast(x, compute)?;
        Ok(Sampler {
            data: graph.reshape(x, vec![shape[0].clone(), shape[1].clone(), area.clone()])?,
            extents,
            // Half as wide where they fit.
            index: match area.at_most(&Dim::Const(i32::MAX as i64)) {
                true => DType::I32,
                false => DType::I64,
            },
            compute,
            interpolation,
            beside,
        })
    }

    /// The values [N, C, P] at positions [N, P], one such tensor of floats (f32 or f64) for each spatial axis; in the dtype that is
    /// computed in.
    ///
    /// # Errors
    /// When shapes do not fit.
    pub fn at(&self, graph: &mut Builder<'_>, positions: &[Value]) -> One {
        let taps = positions
            .iter()
            .zip(&self.extents)
            .map(|(&p, n)| self.taps(graph, p, n))
            .collect::<Result<Vec<_>, _>>()?;
        self.combine(graph, &taps, None, None)
    }

    /// The sum over the taps of the axes that are left, at an index into those before.
    fn combine(&self, graph: &mut Builder<'_>, taps: &[Vec<Tap>], index: Option<Value>, inside: Option<Value>) -> One {
        let Some((first, rest)) = taps.split_first() else {
            return self.read(graph, index.expect("there is an axis"), inside);
        };
        let axis = self.extents.len() - taps.len();
        let mut sum: Option<Value> = None;
        for tap in first {
            let index = match index {
                Some(outer) => {
                    let n = graph.dim_scalar(&self.extents[axis], self.index)?;
                    let outer = graph.map("mul", &[outer, n])?;
                    graph.map("add", &[outer, tap.index])?
                }
                None => tap.index,
            };
            let inside = match (inside, tap.inside) {
                (Some(a), Some(b)) => Some(graph.map("and", &[a, b])?),
                (a, b) => a.or(b),
            };
            let mut v = self.combine(graph, rest, Some(index), inside)?;
            if let Some(w) = tap.weight {
                v = graph.map("mul", &[v, w])?;
            }
            sum = Some(match sum {
                Some(s) => graph.map("add", &[s, v])?,
                None => v,
            });
        }
        Ok(sum.expect("an axis has a tap"))
    }

    /// The elements at flat indices [N, P] of every plane.
    fn read(&self, graph: &mut Builder<'_>, index: Value, inside: Option<Value>) -> One {
        let shape = graph.shape(self.data);
        let index = graph.unsqueeze(index, &[1])?;
        let mut wide = graph.shape(index);
        wide[1] = shape[1].clone();
        let index = graph.spread(index, &wide)?;
        let v = graph.op("gather_elements", &[Attr::Int(2)], &[self.data, index])?;
        match inside {
            Some(inside) => {
                let inside = graph.unsqueeze(inside, &[1])?;
                let zero = graph.scalar(self.compute, 0);
                graph.map("where", &[inside, v, zero])
            }
            None => Ok(v),
        }
    }

    fn taps(&self, graph: &mut Builder<'_>, position: Value, n: &Dim) -> Result<Vec<Tap>, Fail> {
        let mut x = position;
        if self.interpolation == Interpolation::Nearest {
            x = graph.op("round", &[], &[x])?;
        }
        if self.interpolation == Interpolation::Nearest {
            return Ok(vec![self.tap(graph, x, None, n)?]);
        }
        let first = graph.op("floor", &[], &[x])?;
        let t = graph.map("sub", &[x, first])?;
        let t = graph.cast(t, self.compute)?;
        let one = graph.scalar(self.compute, 1.0);
        let rest = graph.map("sub", &[one, t])?;
        let weights: Vec<(i64, Value)> = match self.interpolation {
            Interpolation::Cubic => {
                let (far, near) = (keys_far(graph, t)?, keys_near(graph, t)?);
                let (near_rest, far_rest) = (keys_near(graph, rest)?, keys_far(graph, rest)?);
                vec![(-1, far), (0, near), (1, near_rest), (2, far_rest)]
            }
            _ => vec![(0, rest), (1, t)],
        };
        let mut taps = vec![];
        for (k, w) in weights {
            let p = match k {
                0 => first,
                k => graph.map_num("add", first, k as f64)?,
            };
            let w = graph.unsqueeze(w, &[1])?;
            taps.push(self.tap(graph, p, Some(w), n)?);
        }
        Ok(taps)
    }

    /// The element at a whole position.
    fn tap(&self, graph: &mut Builder<'_>, p: Value, weight: Option<Value>, n: &Dim) -> Result<Tap, Fail> {
        let mut inside = None;
        let mut p = p;
        match self.beside {
            Beside::Zeros => {
                let low = graph.map_num("greater_or_equal", p, 0.0)?;
                let end = graph.dim_scalar(n, graph.dtype(p))?;
                let high = graph.map("less", &[p, end])?;
                inside = Some(graph.map("and", &[low, high])?);
            }
            Beside::Border => {}
            Beside::Reflection { corners } => p = reflect(graph, p, n, corners)?,
        }
        let p = clamp(graph, p, n)?;
        Ok(Tap {
            index: graph.cast(p, self.index)?,
            weight,
            inside,
        })
    }
}

/// Positions as those of elements.
fn clamp(graph: &mut Builder<'_>, p: Value, n: &Dim) -> One {
    let last = graph.dim_scalar(&(n - &Dim::ONE), graph.dtype(p))?;
    let p = graph.map("min", &[p, last])?;
    graph.map_num("max", p, 0.0)
}

/// Positions beyond the borders mirrored there, as often as it takes.
fn reflect(graph: &mut Builder<'_>, x: Value, n: &Dim, corners: bool) -> One {
    let dtype = graph.dtype(x);
    let (first, span) = match corners {
        true => (0.0, graph.dim_scalar(&(n - &Dim::ONE), dtype)?),
        false => (-0.5, graph.dim_scalar(n, dtype)?),
    };
    let from = graph.map_num("sub", x, first)?;
    let away = graph.op("abs", &[], &[from])?;
    let period = graph.map_num("mul", span, 2.0)?;
    let times = graph.map("div", &[away, period])?;
    let times = graph.op("floor", &[], &[times])?;
    let whole = graph.map("mul", &[times, period])?;
    let there = graph.map("sub", &[away, whole])?;
    let back = graph.map("sub", &[period, there])?;
    let there = graph.map("min", &[there, back])?;
    let mirrored = graph.map_num("add", there, first)?;
    // What lies within the borders stays as it is.
    let above = graph.map_num("greater_or_equal", from, 0.0)?;
    let below = graph.map("less_or_equal", &[from, span])?;
    let within = graph.map("and", &[above, below])?;
    graph.map("where", &[within, x, mirrored])
}

const A: f64 = -0.75;

/// Keys' kernel at a distance of up to 1: `((a + 2)·t - (a + 3))·t² + 1`.
fn keys_near(graph: &mut Builder<'_>, t: Value) -> One {
    let y = graph.map_num("mul", t, A + 2.0)?;
    let y = graph.map_num("sub", y, A + 3.0)?;
    let y = graph.map("mul", &[y, t])?;
    let y = graph.map("mul", &[y, t])?;
    graph.map_num("add", y, 1.0)
}

/// Keys' kernel at a distance `t + 1` from 1 to 2: `((a·d - 5·a)·d + 8·a)·d - 4·a`.
fn keys_far(graph: &mut Builder<'_>, t: Value) -> One {
    let d = graph.map_num("add", t, 1.0)?;
    let y = graph.map_num("mul", d, A)?;
    let y = graph.map_num("sub", y, 5.0 * A)?;
    let y = graph.map("mul", &[y, d])?;
    let y = graph.map_num("add", y, 8.0 * A)?;
    let y = graph.map("mul", &[y, d])?;
    graph.map_num("sub", y, 4.0 * A)
}
