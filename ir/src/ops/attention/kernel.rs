//! Attention as a tree: for each query a loop over blocks of keys, with a running maximum and sum.
//!
//! ```text
//! outer(batch…, S) {
//!   stage { m = -∞ }  stage { l = 0 }  stage parallel(E) { o = 0 }
//!   loop(ceil(K / 128)) {
//!     stage parallel(128) reduce(D) { s[j] = q · k[j] }
//!     stage parallel(128) { s[j] = scale, cap, bias and mask of s[j]; -∞ behind the last key }
//!     stage reduce(128) { b = max s }
//!     stage { m' = max(m, b), c = exp(m - m'), m = m' }
//!     stage parallel(128) { s[j] = exp(s[j] - m) }
//!     stage reduce(128) { t = Σ s }
//!     stage { l = c l + t }
//!     stage parallel(E) reduce(128) { p = Σ s[j] v[j] }
//!     stage parallel(E) { o = c o + p }
//!   }
//!   stage parallel(E) { y = l = 0 ? 0 : o / l }
//! }
//! ```

use super::{Extents, inverse};
use crate::index::{Bound, Ix, Var};
use crate::ops::{Op, OwnStages};
use crate::scalar::{Builder, V};
use crate::structured::build::{self, Reads, parallel, reduction};
use crate::structured::{Kernel, Local, Loop, Operand, Part, Place, Read, Role, Stage, bits};
use crate::{DType, Dim, Layout, Number, Type};

/// Keys of a block: their scores for some queries stay in L1 beside what they are made of.
const BLOCK: i64 = 128;

/// The kernel for operands of these types.
///
/// # Errors
/// When a function does not take the dtype.
pub(super) fn kernel(op: &Op, e: &Extents, inputs: &[Type], results: &[Type]) -> Result<OwnStages, String> {
    let dtype = inputs[0].dtype;
    let block = match e.keys.as_const() {
        Some(n) if n <= BLOCK => Dim::Const(n.max(1)),
        _ => Dim::Const(BLOCK),
    };
    let n = e.batch.len();
    let mut locals: Vec<Local> = vec![];
    let mut local = |shape: &[&Dim]| {
        locals.push(Local {
            dtype,
            shape: shape.iter().map(|&d| d.clone()).collect(),
        });
        Place::Local(locals.len() as u32 - 1)
    };
    let k = Blocks {
        op,
        dtype,
        queries: Var(n as u32),
        block_of: Var(n as u32 + 1),
        ragged: e.keys != block,
        keys: e.keys.clone(),
        heads: (0..n as u32).map(|v| Ix::var(Var(v))).collect(),
        sharing: match (&e.shared, e.batch.last()) {
            (Some(few), Some(many)) => many.exact_div(few).unwrap_or(Dim::ONE),
            _ => Dim::ONE,
        },
        bias: inputs.get(3),
        most: local(&[]),
        total: local(&[]),
        out: local(&[&e.out]),
        scores: local(&[&block]),
        here: local(&[]),
        keep: local(&[]),
        part: local(&[&e.out]),
        block: block.clone(),
    };
    let zero = |b: &mut Builder| b.constant(dtype, Number::Float(0.0));
    let never = |b: &mut Builder| b.constant(dtype, Number::Float(f64::NEG_INFINITY));
    let fill = |dims: Vec<crate::structured::IterDim>, value: &dyn Fn(&mut Builder) -> V, to: (Place, Vec<Ix>)| {
        let mut b = Builder::new(&[]);
        let v = value(&mut b);
        build::map(dims, Reads::default(), b.finish(&[v]), vec![to])
    };
    // Outside of the loop a stage's own dimension comes right behind the outer ones.
    let own = Ix::var(k.block_of);
    let mut parts = vec![
        fill(vec![], &never, (k.most, vec![])),
        fill(vec![], &zero, (k.total, vec![])),
        fill(vec![parallel(&e.out)], &zero, (k.out, vec![own.clone()])),
    ];
    let mut body = vec![k.scores(&e.size), k.masked()?, k.largest(), k.next()?, k.weights()?];
    body.extend([k.sum(), k.total(), k.product(&e.out), k.add(&e.out)]);
    let last = {
        let mut reads = Reads::default();
        reads.element(k.out, vec![own.clone()], dtype);
        reads.element(k.total, vec![], dtype);
        let mut b = reads.body();
        let (o, l) = (b.input(0), b.input(1));
        let zero = b.lit(o, 0.0);
        let (none, y) = (b.eq(l, zero), b.div(o, l));
        let y = b.select(none, zero, y);
        let at = [&k.heads[..], &[Ix::var(k.queries), own]].concat();
        let to: Vec<Ix> = inverse(op.ints("y_order")).iter().map(|&i| at[i as usize].clone()).collect();
        let place = Place::Operand(inputs.len() as u32);
        build::map(vec![parallel(&e.out)], reads, b.finish(&[y]), vec![(place, to)])
    };
    let operand = |ty: &Type, role: Role| Operand {
        ty: ty.clone(),
        role,
        layout: Layout::ROW_MAJOR,
    };
    let ins = inputs.iter().map(|ty| operand(ty, Role::In));
    let outs = results.iter().map(|ty| operand(ty, Role::Out));
    let operands = ins.chain(outs).collect();
    let stages = |all: Vec<Stage>| all.into_iter().map(Part::Stage);
    let around = Part::Loop(Loop {
        extent: e.keys.ceil_div(&block),
        body: stages(body).collect(),
    });
    let parts = stages(std::mem::take(&mut parts)).chain([around]).chain(stages(vec![last])).collect();
    Ok(OwnStages {
        operands: (0..inputs.len()).collect(),
        kernel: Kernel {
            name: String::new(),
            symbols: vec![],
            operands,
            locals,
            outer: e.batch.iter().chain([&e.queries]).cloned().collect(),
            schedule: None,
            parts,
        },
    })
}

/// What the stages of a block of keys are made of.
struct Blocks<'a> {
    op: &'a Op,
    dtype: DType,
    /// The variables of the query and of the block.
    queries: Var,
    block_of: Var,
    /// The last block may have fewer keys than the others.
    ragged: bool,
    keys: Dim,
    block: Dim,
    /// The batch coordinates of the query.
    heads: Vec<Ix>,
    /// How many heads share keys and values.
    sharing: Dim,
    bias: Option<&'a Type>,
    /// The largest score so far.
    most: Place,
    /// The sum of weights so far.
    total: Place,
    /// The weighted sum of values so far.
    out: Place,
    /// Scores, then weights, of the block.
    scores: Place,
    /// What is reduced of the block.
    here: Place,
    /// By how much earlier sums shrink.
    keep: Place,
    /// The block's weighted sum of values.
    part: Place,
}

impl Blocks<'_> {
    /// A stage's own variable inside the loop.
    fn own(&self, i: u32) -> Var {
        Var(self.block_of.0 + 1 + i)
    }

    /// The key that an element of the block is.
    fn key(&self, j: Var) -> Ix {
        match self.ragged {
            true => &Ix::var(self.block_of).scale(&self.block) + &Ix::var(j),
            false => Ix::var(j),
        }
    }

    /// What holds of a key that is there.
    fn inside(&self, j: Var) -> Vec<Bound> {
        let bound = Bound {
            index: self.key(j),
            extent: self.keys.clone(),
        };
        if self.ragged { vec![bound] } else { vec![] }
    }

    /// The place of an element of an operand whose order is this attribute.
    fn at(&self, order: &str, logical: &[Ix]) -> Vec<Ix> {
        let inverse = inverse(self.op.ints(order));
        inverse.iter().map(|&i| logical[i as usize].clone()).collect()
    }

    /// The batch coordinates of keys and values.
    fn shared(&self) -> Vec<Ix> {
        let mut at = self.heads.clone();
        if let Some(last) = at.last_mut() {
            *last = last.div(&self.sharing);
        }
        at
    }

    fn scores(&self, size: &Dim) -> Stage {
        let (j, d) = (self.own(0), self.own(1));
        let q = [&self.heads[..], &[Ix::var(self.queries), Ix::var(d)]].concat();
        let k = [&self.shared()[..], &[self.key(j), Ix::var(d)]].concat();
        let mut reads = Reads::default();
        reads.element(Place::Operand(0), self.at("q_order", &q), self.dtype);
        reads.guarded(Place::Operand(1), self.at("k_order", &k), self.inside(j), self.dtype);
        let dims = vec![parallel(&self.block), reduction(size)];
        build::products(dims, reads, (self.scores, vec![Ix::var(j)]))
    }

    fn masked(&self) -> Result<Stage, String> {
        let j = self.own(0);
        let mut reads = Reads::default();
        reads.element(self.scores, vec![Ix::var(j)], self.dtype);
        let bias = self.bias.map(|ty| {
            let all = [&self.heads[..], &[Ix::var(self.queries), self.key(j)]].concat();
            let at = all.into_iter().zip(&ty.shape);
            let at = at.map(|(ix, d)| if d.is(1) { Ix::constant(0) } else { ix });
            reads.guarded(Place::Operand(3), at.collect(), self.inside(j), self.dtype)
        });
        let there = self.ragged.then(|| reads.add(Read::InBounds(self.inside(j)), DType::Bool));
        let causal = self.op.flag("causal").then(|| {
            let newest = &Ix::var(self.queries) + &self.op.dims("offset")[0];
            let (key, query) = (reads.add(Read::Index(self.key(j)), DType::I64), reads.add(Read::Index(newest), DType::I64));
            (key, query)
        });
        let mut b = reads.body();
        let mut s = b.input(0);
        if self.op.num("scale") != 1.0 {
            let scale = b.lit(s, self.op.num("scale"));
            s = b.mul(s, scale);
        }
        let cap = self.op.num("softcap");
        if cap > 0.0 {
            let cap = b.lit(s, cap);
            s = b.div(s, cap);
            s = b.call("tanh", &[s], None)?;
            s = b.mul(s, cap);
        }
        if let Some(bias) = bias {
            let bias = b.input(bias);
            s = b.add(s, bias);
        }
        let never = b.lit(s, f64::NEG_INFINITY);
        if let Some((key, query)) = causal {
            let (key, query) = (b.input(key), b.input(query));
            let seen = b.le(key, query);
            s = b.select(seen, s, never);
        }
        if let Some(there) = there {
            let there = b.input(there);
            s = b.select(there, s, never);
        }
        Ok(build::map(vec![parallel(&self.block)], reads, b.finish(&[s]), vec![(self.scores, vec![Ix::var(j)])]))
    }

    /// A reduction of the block's scores or weights.
    fn reduced(&self, init: f64, f: fn(&mut Builder, V, V) -> V) -> Stage {
        let mut reads = Reads::default();
        reads.element(self.scores, vec![Ix::var(self.own(0))], self.dtype);
        let b = reads.body();
        let x = b.input(0);
        let init = bits(self.dtype, Number::Float(init));
        build::reduce(vec![reduction(&self.block)], reads, b.finish(&[x]), (init, f), (self.here, vec![]))
    }

    fn largest(&self) -> Stage {
        self.reduced(f64::NEG_INFINITY, Builder::max)
    }

    fn sum(&self) -> Stage {
        self.reduced(0.0, Builder::add)
    }

    /// A maximum that exponents can be taken against: 0 where nothing has been seen.
    fn shift(b: &mut Builder, most: V) -> V {
        let (never, zero) = (b.lit(most, f64::NEG_INFINITY), b.lit(most, 0.0));
        let nothing = b.eq(most, never);
        b.select(nothing, zero, most)
    }

    fn next(&self) -> Result<Stage, String> {
        let mut reads = Reads::default();
        reads.element(self.most, vec![], self.dtype);
        reads.element(self.here, vec![], self.dtype);
        let mut b = reads.body();
        let (before, here) = (b.input(0), b.input(1));
        let most = b.max(before, here);
        let shift = Blocks::shift(&mut b, most);
        let down = b.sub(before, shift);
        let keep = b.call("exp", &[down], None)?;
        let writes = vec![(self.most, vec![]), (self.keep, vec![])];
        Ok(build::map(vec![], reads, b.finish(&[most, keep]), writes))
    }

    fn weights(&self) -> Result<Stage, String> {
        let j = self.own(0);
        let mut reads = Reads::default();
        reads.element(self.scores, vec![Ix::var(j)], self.dtype);
        reads.element(self.most, vec![], self.dtype);
        let mut b = reads.body();
        let (s, most) = (b.input(0), b.input(1));
        let shift = Blocks::shift(&mut b, most);
        let down = b.sub(s, shift);
        let w = b.call("exp", &[down], None)?;
        Ok(build::map(vec![parallel(&self.block)], reads, b.finish(&[w]), vec![(self.scores, vec![Ix::var(j)])]))
    }

    fn total(&self) -> Stage {
        let mut reads = Reads::default();
        for place in [self.total, self.keep, self.here] {
            reads.element(place, vec![], self.dtype);
        }
        let mut b = reads.body();
        let (total, keep, here) = (b.input(0), b.input(1), b.input(2));
        let kept = b.mul(total, keep);
        let sum = b.add(kept, here);
        build::map(vec![], reads, b.finish(&[sum]), vec![(self.total, vec![])])
    }

    fn product(&self, out: &Dim) -> Stage {
        let (c, j) = (self.own(0), self.own(1));
        let v = [&self.shared()[..], &[self.key(j), Ix::var(c)]].concat();
        let mut reads = Reads::default();
        reads.element(self.scores, vec![Ix::var(j)], self.dtype);
        reads.guarded(Place::Operand(2), self.at("v_order", &v), self.inside(j), self.dtype);
        let dims = vec![parallel(out), reduction(&self.block)];
        build::products(dims, reads, (self.part, vec![Ix::var(c)]))
    }

    fn add(&self, out: &Dim) -> Stage {
        let c = Ix::var(self.own(0));
        let mut reads = Reads::default();
        reads.element(self.out, vec![c.clone()], self.dtype);
        reads.element(self.keep, vec![], self.dtype);
        reads.element(self.part, vec![c.clone()], self.dtype);
        let mut b = reads.body();
        let (o, keep, part) = (b.input(0), b.input(1), b.input(2));
        let kept = b.mul(o, keep);
        let sum = b.add(kept, part);
        build::map(vec![parallel(out)], reads, b.finish(&[sum]), vec![(self.out, vec![c])])
    }
}
