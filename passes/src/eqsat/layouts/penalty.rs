//! What layouts cost a kernel: reads against the order in which its result lies, and operands that no tile takes as they lie.

use super::{At, Chooser, Kernel, MOST_STRIDES};
use crate::schedule::contraction::multiplied;
use brolga_ir::index::{Ix, Term, Var};
use brolga_ir::ops::WindowShape;
use brolga_ir::structured::{IterKind, Place, Read, Stage};
use brolga_ir::{DType, Dim, TileKind, Type, Value};
use smallvec::SmallVec;

impl Chooser {
    /// The seconds that layouts cost a kernel.
    pub(super) fn penalty(&self, k: &Kernel) -> f64 {
        // The variable along which what a stage writes is contiguous.
        let along = |s: &Stage| {
            let (place, map) = s.writes.first()?;
            let inner = match place {
                Place::Operand(i) => {
                    let (v, ty) = &k.operands[*i as usize];
                    let order = self.layout(*v, ty.rank()).order(ty.rank());
                    order.into_iter().rev().find(|&a| !ty.shape[a].is(1))?
                }
                Place::Local(_) => map.len().checked_sub(1)?,
            };
            let by = |one: bool| {
                map[inner].terms.iter().find_map(move |(t, c)| match t {
                    Term::Var(v) if c.is(1) == one => Some(*v),
                    _ => None,
                })
            };
            by(true).or_else(|| by(false))
        };
        let whole = k.stages.last().and_then(|(s, _)| along(s));
        let copied = |o: &&(Value, Type)| self.copies.contains(&o.0) && self.last[o.0.0 as usize];
        // A copy reads and writes, one of them against the order.
        let copying = |o: &(Value, Type)| (2.0 + self.cost.strided) * self.model.traffic(&o.1);
        let mut sum: f64 = k.operands.last().filter(copied).map_or(0.0, copying);
        for (i, (s, first)) in k.stages.iter().enumerate() {
            let Some(v) = along(s).or(whole) else { continue };
            let product = (i == 0 && s.combine.is_some()).then(|| multiplied(&s.body)).flatten();
            match (k.heavy, product) {
                (Some((seconds, w)), Some(dtype)) => sum += self.product(k, (s, *first), v, seconds, w, dtype),
                _ => {
                    sum += (0..s.reads.len())
                        .map(|r| self.read(k, (s, *first), (i, r), v))
                        .sum::<f64>()
                }
            }
        }
        sum
    }

    /// What a read costs that does not run along a variable, nor along the stage's sum.
    fn read(&self, k: &Kernel, (s, first): (&Stage, usize), at: At, v: Var) -> f64 {
        let Some((operand, step)) = self.step(k, at, v) else {
            return 0.0;
        };
        let window = match k.heavy {
            Some((seconds, Some(_))) if at.0 == 0 => Some(seconds),
            _ => None,
        };
        let reduced = s.dims.iter().rposition(|d| d.kind == IterKind::Reduction);
        let summed = reduced.filter(|_| k.heavy.is_none()).map(|d| Var((first + d) as u32));
        let along_sum = || summed.and_then(|v| self.step(k, at, v)?.1).is_some_and(|d| d.is(1));
        if step.is_some_and(|d| d.is(1) || d.is(0)) || along_sum() {
            return 0.0;
        }
        match window {
            Some(seconds) => seconds * self.against_windows(),
            None => self.cost.strided * self.model.traffic(&operand.1),
        }
    }

    /// What a contraction or convolution loses whose result is contiguous along a variable.
    fn product(
        &self,
        k: &Kernel,
        (s, first): (&Stage, usize),
        v: Var,
        seconds: f64,
        w: Option<WindowShape>,
        dtype: DType,
    ) -> f64 {
        let mut steps = (0..s.reads.len()).map(|r| self.step(k, (0, r), v));
        let (Some(Some((a, x))), Some(Some((b, y)))) = (steps.next(), steps.next()) else {
            return 0.0;
        };
        let is = |d: &Option<Dim>, n: i64| d.as_ref().is_some_and(|d| d.is(n));
        let varies = |o: &(Value, Type)| self.varies[o.0.0 as usize];
        match (is(&x, 0), is(&y, 0)) {
            // Vectors over both.
            (false, false) if (is(&x, 1) || !varies(a)) && (is(&y, 1) || !varies(b)) => 0.0,
            (false, false) => seconds * self.against_windows(),
            (true, true) => seconds * self.against_windows(),
            // Columns of the operand that moves, packed; ahead, where it is constant.
            (false, true) | (true, false) => {
                let (at, left, right) = if is(&x, 0) { (0, a, b) } else { (1, b, a) };
                let kind = |l: &(Value, Type), r: &(Value, Type)| TileKind::of([l.1.dtype, r.1.dtype, dtype]);
                match (kind(left, right), kind(right, left)) {
                    // Tiles take these operands the other way round only: their columns are apart in the result.
                    (None, Some(kind)) => {
                        let result = &k.operands.last().expect("a result").1;
                        let apart = self.cost.strided * self.model.traffic(result);
                        apart + self.tile(k, (s, first), (1 - at, right, left), kind, seconds, w)
                    }
                    (kind, _) => {
                        let kind = kind.unwrap_or(TileKind::F32);
                        self.tile(k, (s, first), (at, left, right), kind, seconds, w)
                    }
                }
            }
        }
    }

    /// What a contraction loses on tiles whose left operand is that of a read, and whose columns are those of the right one.
    fn tile(
        &self,
        k: &Kernel,
        (s, first): (&Stage, usize),
        (at, left, right): (usize, &(Value, Type), &(Value, Type)),
        kind: TileKind,
        seconds: f64,
        w: Option<WindowShape>,
    ) -> f64 {
        let varies = |o: &(Value, Type)| self.varies[o.0.0 as usize];
        let summed: SmallVec<[usize; 4]> = (0..s.dims.len()).filter(|&d| !s.dims[d].extent.is(1)).collect();
        let taps = w.is_some() && summed.len() > 1;
        let faster = if kind == TileKind::U8I8 {
            self.cost.byte_tiles
        } else {
            1.0
        };
        let slow = || seconds * (faster * self.cost.contraction / self.cost.channels_first - 1.0);
        let packing = match (varies(right), taps) {
            (false, _) => 0.0,
            (true, true) => slow(),
            (true, false) => 2.0 * self.model.traffic(&right.1),
        };
        // The other one is read in place: along the innermost sum, and in few strides.
        let group = kind.interleave();
        let inner = summed.last().map(|&d| Var((first + d) as u32));
        let along = inner.and_then(|v| self.step(k, (0, at), v)?.1);
        let strides = match along {
            // Steps are taken side by side.
            _ if group > 1 => match self.run(k, (s, first), at) {
                Some(1) if !summed.is_empty() => slow(),
                Some(run) => seconds * (((run / group + run % group) * group) as f64 / run as f64 - 1.0),
                None => 0.0,
            },
            Some(d) if d.is(1) => 0.0,
            _ if !varies(left) || inner.is_none() => 0.0,
            _ if summed.len() > MOST_STRIDES => slow(),
            _ => self.cost.strided * self.model.traffic(&left.1),
        };
        packing + strides
    }

    /// How many summed elements lie side by side in an operand; `None` where a symbol says so. Of groups of steps that are left behind whole
    /// ones, each step takes as long as a group.
    fn run(&self, k: &Kernel, (s, first): (&Stage, usize), read: usize) -> Option<i64> {
        let mut open: Vec<usize> = (0..s.dims.len())
            .filter(|&d| s.dims[d].kind == IterKind::Reduction && !s.dims[d].extent.is(1))
            .collect();
        let stride = |d: usize| self.step(k, (0, read), Var((first + d) as u32))?.1;
        let mut run = 1;
        while let Some(at) = open.iter().position(|&d| stride(d).is_some_and(|by| by.is(run))) {
            run *= s.dims[open.remove(at)].extent.as_const()?;
        }
        Some(run)
    }

    /// What a window loses that is read against the order, of what it takes.
    fn against_windows(&self) -> f64 {
        self.cost.depthwise / self.cost.window_first - 1.0
    }

    /// The operand of which a read takes an element, and how far from it the next one along a variable is; `None` for other
    /// reads.
    fn step<'k>(&self, k: &'k Kernel, at: At, v: Var) -> Option<(&'k (Value, Type), Option<Dim>)> {
        let Read::Element {
            place: Place::Operand(i),
            map,
            ..
        } = &k.stages[at.0].0.reads[at.1]
        else {
            return None;
        };
        let operand = &k.operands[*i as usize];
        let last = self.last[operand.0.0 as usize];
        let mut steps = k.steps.borrow_mut();
        let far = steps.entry((at, last, v)).or_insert_with(|| {
            let layout = self.layout(operand.0, operand.1.rank());
            step(&layout.index(map, &operand.1.shape), v)
        });
        Some((operand, far.clone()))
    }
}

/// How far an index moves with a variable, but where a quotient changes; `None` where data says how far.
fn step(ix: &Ix, v: Var) -> Option<Dim> {
    let mut sum = Dim::ZERO;
    for (t, c) in &ix.terms {
        let one = match t {
            Term::Var(u) if *u == v => Dim::ONE,
            Term::Mod(e, _) | Term::Min(e, _) => step(e, v)?,
            Term::Reg(_) => return None,
            Term::Var(_) | Term::Div(..) => continue,
        };
        sum = &sum + &(&one * c);
    }
    Some(sum)
}
