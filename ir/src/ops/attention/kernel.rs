//! Attention as a tree: the scores of a query with all keys, or with one block of them after the other.
//!
//! ```text
//! outer(batch…, S) {
//!   stage parallel(K) reduce(D) { s[j] = q · k[j] }
//!   stage reduce(K) { m = max score(s[j]) }                   score: scale, cap, bias and masks
//!   stage parallel(K) { s[j] = exp(score(s[j]) - m) }
//!   stage reduce(K) { l = Σ s }
//!   stage parallel(E) reduce(K) { o = Σ s[j] v[j] }
//!   stage parallel(E) { y = o / l }
//! }
//! ```
//!
//! Where these scores would not stay in L2, keys come in blocks, with a running maximum and sum:
//!
//! ```text
//!   stage { m = -∞ }  stage { l = 0 }  stage parallel(E) { o = 0 }
//!   loop(ceil(K / 1024)) {
//!     stage parallel(1024) reduce(D) { s[j] = q · k[j] }
//!     stage reduce(1024) { b = max score(s[j]) }
//!     stage { m' = max(m, b), c = exp(m - m'), m = m' }
//!     stage parallel(1024) { s[j] = exp(score(s[j]) - m) }
//!     stage reduce(1024) { t = Σ s }
//!     stage { l = c l + t }
//!     stage parallel(E) reduce(1024) { p = Σ s[j] v[j] }
//!     stage parallel(E) { o = c o + p }
//!   }
//! ```
//!
//! Where a query sees no later keys, blocks are smaller, and those behind the newest key that any query of a tile sees are left out: their
//! weights are zeros, and so is what they add, unless a value there is no number.
//!
//! A score that is dear, or behind the last key, is written back before the maximum is taken of it, and not computed twice.

use super::{Added, Extents, inverse};
use crate::index::{Bound, Ix, Var};
use crate::ops::Op;
use crate::ops::softmax::Zeros;
use crate::scalar::{Builder, V, exp_weight};
use crate::structured::build::{self, Reads, Reduction, parallel, reduction};
use crate::structured::{IterDim, Kernel, Local, Loop, Part, Place, Read, Stage, bits};
use crate::{DType, Dim, Number, Type};

/// Keys up to which a query has all its scores at once: with those of the other rows of a tile they fill an eighth of an L2 of 1 MiB.
const WHOLE: i64 = 2048;

/// Keys of a block, where there are more.
const BLOCK: i64 = 1024;

/// Keys of a block where queries see no later ones: half a block is computed in vain for each query, and a block costs what its sums are
/// scaled by.
const CAUSAL_BLOCK: i64 = 128;

/// The number of blocks.
pub(super) fn blocks(op: &Op, e: &Extents) -> Dim {
    match block(op, e) {
        b if b == e.keys => Dim::ONE,
        b => e.keys.ceil_div(&b),
    }
}

/// The pairs of queries and keys of which scores are computed, for each batch.
pub(super) fn seen(op: &Op, e: &Extents) -> Dim {
    let all = &e.queries * &e.keys;
    match (blocks(op, e).as_const(), e.queries.as_const()) {
        // Of as many queries as there are blocks, the first sees one, the second two.
        (Some(blocks), Some(queries)) if leaves_out(op, e) => {
            let last = Dim::Const(queries * queries / 2 / blocks * (blocks - 1));
            &all - &last
        }
        _ => all,
    }
}

/// True where enough blocks lie behind the newest key that a query sees.
fn leaves_out(op: &Op, e: &Extents) -> bool {
    let sizes = e.queries.as_const().zip(e.keys.as_const());
    op.flag("causal") && sizes.is_some_and(|(q, k)| k >= 2 * CAUSAL_BLOCK && (k / 2..=k).contains(&q))
}

/// The keys of a block.
fn block(op: &Op, e: &Extents) -> Dim {
    match e.keys.as_const() {
        _ if leaves_out(op, e) => Dim::Const(CAUSAL_BLOCK),
        Some(n) if n > WHOLE => Dim::Const(BLOCK),
        _ => e.keys.clone(),
    }
}

/// The kernel for operands of these types.
///
/// # Errors
/// When a function does not take the dtype.
pub(super) fn kernel(op: &Op, e: &Extents, inputs: &[Type], result: &Type) -> Result<Kernel, String> {
    let dtype = inputs[0].dtype;
    let block = block(op, e);
    let several = block != e.keys;
    let n = e.batch.len();
    let mut locals: Vec<Local> = vec![];
    let mut local = |shape: &[&Dim]| {
        locals.push(Local {
            dtype,
            shape: shape.iter().map(|&d| d.clone()).collect(),
        });
        Place::Local(locals.len() as u32 - 1)
    };
    let k = Attention {
        op,
        dtype,
        zeros: Zeros::of(op)?,
        query: Var(n as u32),
        block_of: several.then_some(Var(n as u32 + 1)),
        ragged: several && !e.keys.modulo(&block).is(0),
        keys: e.keys.clone(),
        heads: (0..n as u32).map(|v| Ix::var(Var(v))).collect(),
        sharing: match (&e.shared, e.batch.last()) {
            (Some(few), Some(many)) => many.exact_div(few).unwrap_or(Dim::ONE),
            _ => Dim::ONE,
        },
        inputs,
        added: Added::of(inputs),
        most: local(&[]),
        total: local(&[]),
        out: local(&[&e.out]),
        scores: local(&[&block]),
        block: block.clone(),
    };
    let parts = if several {
        let (here, keep, part) = (local(&[]), local(&[]), local(&[&e.out]));
        let mut body = k.weights(&e.size, here, |k| k.next(here, keep))?;
        body.extend([k.sum(here), k.total(here, keep), k.product(&e.out, part), k.add(&e.out, keep, part)]);
        let stages = |all: Vec<Stage>| all.into_iter().map(Part::Stage);
        let around = Part::Loop(Loop {
            extent: blocks(op, e),
            needed: if op.flag("causal") { vec![k.reached(&e.queries)] } else { vec![] },
            body: stages(body).collect(),
        });
        stages(k.nothing(&e.out)).chain([around]).chain(stages(vec![k.last(&e.out)])).collect()
    } else {
        let mut all = k.weights(&e.size, k.most, |_| vec![])?;
        all.extend([k.sum(k.total), k.product(&e.out, k.out), k.last(&e.out)]);
        all.into_iter().map(Part::Stage).collect()
    };
    Ok(Kernel {
        locals,
        outer: e.batch.iter().chain([&e.queries]).cloned().collect(),
        parts,
..Kernel::of(inputs, [result])
})
}

/// What stages are made of.
struct Attention<'a> {
    op: &'a Op,
    dtype: DType,
    zeros: Zeros,
    /// The variable of the query.
    query: Var,
    /// The variable that counts blocks, where there are several.
    block_of: Option<Var>,
    /// The last block has fewer keys than the others.
    ragged: bool,
    keys: Dim,
    block: Dim,
    /// The batch coordinates of the query.
    heads: Vec<Ix>,
    /// How many heads share keys and values.
    sharing: Dim,
    inputs: &'a [Type],
    added: Added,
    /// The largest score so far.
    most: Place,
    /// The sum of weights so far.
    total: Place,
    /// The weighted sum of values so far.
    out: Place,
    /// Scores, then weights.
    scores: Place,
}

/// The reads that a score is made of, by position.
struct ScoreReads {
    score: usize,
    bias: Option<usize>,
    mask: Option<usize>,
    /// Whether there is such a key.
    there: Option<usize>,
    /// The key, and the last one that the query sees.
    causal: Option<(usize, usize)>,
}

impl Attention<'_> {
    /// A stage's own variable where the scores are.
    fn own(&self, i: u32) -> Var {
        Var(self.block_of.unwrap_or(self.query).0 + 1 + i)
    }

    /// The key that an element of the block is.
    fn key(&self, j: Var) -> Ix {
        match self.block_of {
            Some(b) => &Ix::var(b).scale(&self.block) + &Ix::var(j),
            None => Ix::var(j),
        }
    }

    /// What holds of a key that is there.
    fn inside(&self, j: Var) -> Vec<Bound> {
        let bound = Bound {
            index: self.key(j),
            extent: self.keys.clone(),
        };
        if self.block_of.is_some() { vec![bound] } else { vec![] }
    }

    /// What holds of a block that a query sees a key of, by how far its newest one is from the first there.
    fn reached(&self, queries: &Dim) -> Bound {
        let offset = &self.op.dims("offset")[0];
        let first = self.block_of.map_or(Ix::constant(0), |b| Ix::var(b).scale(&self.block));
        Bound {
            index: &(&Ix::var(self.query) + offset) + &first.scale(&Dim::Const(-1)),
            extent: queries + offset,
        }
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

    /// The state before the first block.
    fn nothing(&self, out: &Dim) -> Vec<Stage> {
        let fill = |dims: Vec<IterDim>, x: f64, to: (Place, Vec<Ix>)| {
            let mut b = Builder::new(&[]);
            let v = b.constant(self.dtype, Number::Float(x));
            build::map(dims, Reads::default(), b.finish(&[v]), vec![to])
        };
        let c = Ix::var(Var(self.query.0 + 1));
        vec![
            fill(vec![], self.lowest(), (self.most, vec![])),
            fill(vec![], 0.0, (self.total, vec![])),
            fill(vec![parallel(out)], 0.0, (self.out, vec![c])),
        ]
    }

    /// From scores of `size` products to weights: their maximum goes to `largest`, what follows from that is computed by `then`.
    fn weights(
        &self,
        size: &Dim,
        largest: Place,
        then: impl Fn(&Self) -> Vec<Stage>,
    ) -> Result<Vec<Stage>, String> {
        let written = self.ragged || self.op.num("softcap") > 0.0;
        let mut all = vec![self.scores(size)];
        if written {
            all.push(self.score_again()?);
        }
        all.push(self.largest(written, largest)?);
        all.extend(then(self));
        all.push(self.exponentials(written)?);
        Ok(all)
    }

    fn scores(&self, size: &Dim) -> Stage {
        let (j, d) = (self.own(0), self.own(1));
        let q = [&self.heads[..], &[Ix::var(self.query), Ix::var(d)]].concat();
        let k = [&self.shared()[..], &[self.key(j), Ix::var(d)]].concat();
        let mut reads = Reads::default();
        reads.element(Place::Operand(0), self.at("q_order", &q), self.dtype);
        reads.guarded(Place::Operand(1), self.at("k_order", &k), self.inside(j), self.dtype);
        let dims = vec![parallel(&self.block), reduction(size)];
        build::products(dims, reads, (self.scores, vec![Ix::var(j)]))
    }

    /// The reads of a score; only that of the score itself where it has been written.
    fn score_reads(&self, reads: &mut Reads, written: bool) -> ScoreReads {
        let j = self.own(0);
        // Tiles leave out what lies behind the last key.
        let inside = if written { vec![] } else { self.inside(j) };
        let score = reads.guarded(self.scores, vec![Ix::var(j)], inside, self.dtype);
        let mut spread = |i: usize| {
            let all = [&self.heads[..], &[Ix::var(self.query), self.key(j)]].concat();
            let at = all.into_iter().zip(&self.inputs[i].shape);
            let at = at.map(|(ix, d)| if d.is(1) { Ix::constant(0) } else { ix });
            reads.guarded(Place::Operand(i as u32), at.collect(), self.inside(j), self.inputs[i].dtype)
        };
        let [bias, mask] = [self.added.bias, self.added.mask].map(|i| i.filter(|_| !written).map(&mut spread));
        let there = self.ragged && !written;
        let causal = self.op.flag("causal") && !written;
        ScoreReads {
            score,
            bias,
            mask,
            there: there.then(|| reads.add(Read::InBounds(self.inside(j)), DType::Bool)),
            causal: causal.then(|| {
                let newest = &Ix::var(self.query) + &self.op.dims("offset")[0];
                (reads.add(Read::Index(self.key(j)), DType::I64), reads.add(Read::Index(newest), DType::I64))
            }),
        }
    }

    /// A score, from its reads.
    fn score(&self, b: &mut Builder, r: &ScoreReads, written: bool) -> Result<V, String> {
        let mut s = b.input(r.score);
        if written {
            return Ok(s);
        }
        if self.op.num("scale") != 1.0 && !self.scales_late() {
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
        if let Some(bias) = r.bias {
            let bias = b.input(bias);
            s = b.add(s, bias);
        }
        if let Some(mask) = r.mask {
            let (mask, hidden) = (b.input(mask), b.lit(s, self.op.num("hidden")));
            s = b.select(mask, s, hidden);
        }
        let never = b.lit(s, f64::NEG_INFINITY);
        if let Some((key, newest)) = r.causal {
            let (key, newest) = (b.input(key), b.input(newest));
            let seen = b.le(key, newest);
            s = b.select(seen, s, never);
        }
        if let Some(there) = r.there {
            let there = b.input(there);
            s = b.select(there, s, never);
        }
        Ok(s)
    }

    fn score_again(&self) -> Result<Stage, String> {
        let mut reads = Reads::default();
        let r = self.score_reads(&mut reads, false);
        let mut b = reads.body();
        let s = self.score(&mut b, &r, false)?;
        let to = (self.scores, vec![Ix::var(self.own(0))]);
        Ok(build::map(vec![parallel(&self.block)], reads, b.finish(&[s]), vec![to]))
    }

    /// Whether differences of scores are scaled, and not the scores: nothing is added to them.
    fn scales_late(&self) -> bool {
        let plain = self.inputs.len() == 3 && self.op.num("softcap") == 0.0;
        plain && self.op.num("scale") > 0.0
    }

    /// What every maximum starts from: weights are 0 against it where there is nothing but -∞.
    fn lowest(&self) -> f64 {
        match self.dtype {
            DType::F64 => f64::MIN,
            _ => f64::from(f32::MIN),
        }
    }

    fn largest(&self, written: bool, to: Place) -> Result<Stage, String> {
        let mut reads = Reads::default();
        let r = self.score_reads(&mut reads, written);
        let mut b = reads.body();
        let s = self.score(&mut b, &r, written)?;
        let by = Reduction {
            init: bits(self.dtype, Number::Float(self.lowest())),
            combine: self.maximum(),
            merge: Builder::max,
        };
        Ok(build::reduce(vec![reduction(&self.block)], reads, b.finish(&[s]), by, (to, vec![])))
    }

    /// The maximum of two scores. A NaN is lost where it would make weights NaN, which it does on its own; not so where such
    /// weights are zeros, all of them.
    fn maximum(&self) -> build::Binary {
        match self.zeros {
            Zeros::Undefined => Builder::max,
            Zeros::Never | Zeros::Unseen => |b, most, s| {
                let more = b.lt(most, s);
                b.select(more, s, most)
            },
        }
    }

    /// `exp(s - most)`; 0 where weights are undefined that are zeros then.
    fn exponential(&self, b: &mut Builder, s: V, most: V) -> V {
        let mut down = b.sub(s, most);
        if self.scales_late() {
            let scale = b.lit(s, self.op.num("scale"));
            down = b.mul(down, scale);
        }
        let w = exp_weight(b, down);
        if self.zeros != Zeros::Undefined {
            return w;
        }
        let (infinite, zero) = (b.lit(most, f64::INFINITY), b.lit(most, 0.0));
        let defined = b.lt(most, infinite);
        b.select(defined, w, zero)
    }

    fn exponentials(&self, written: bool) -> Result<Stage, String> {
        let mut reads = Reads::default();
        let r = self.score_reads(&mut reads, written);
        let most = reads.element(self.most, vec![], self.dtype);
        let mut b = reads.body();
        let s = self.score(&mut b, &r, written)?;
        let most = b.input(most);
        let w = self.exponential(&mut b, s, most);
        let to = (self.scores, vec![Ix::var(self.own(0))]);
        Ok(build::map(vec![parallel(&self.block)], reads, b.finish(&[w]), vec![to]))
    }

    fn sum(&self, to: Place) -> Stage {
        let mut reads = Reads::default();
        reads.element(self.scores, vec![Ix::var(self.own(0))], self.dtype);
        let b = reads.body();
        let x = b.input(0);
        let by = Reduction {
            init: 0,
            combine: Builder::add,
            merge: Builder::add,
        };
        build::reduce(vec![reduction(&self.block)], reads, b.finish(&[x]), by, (to, vec![]))
    }

    fn product(&self, out: &Dim, to: Place) -> Stage {
        let (c, j) = (self.own(0), self.own(1));
        let v = [&self.shared()[..], &[self.key(j), Ix::var(c)]].concat();
        let mut reads = Reads::default();
        reads.element(self.scores, vec![Ix::var(j)], self.dtype);
        reads.guarded(Place::Operand(2), self.at("v_order", &v), self.inside(j), self.dtype);
        let dims = vec![parallel(out), reduction(&self.block)];
        build::products(dims, reads, (to, vec![Ix::var(c)]))
    }

    /// The maximum so far, and by how much earlier sums shrink.
    fn next(&self, here: Place, keep: Place) -> Vec<Stage> {
        let mut reads = Reads::default();
        for place in [self.most, here] {
            reads.element(place, vec![], self.dtype);
        }
        let mut b = reads.body();
        let (most, here) = (b.input(0), b.input(1));
        let next = self.maximum()(&mut b, most, here);
        let shrunk = self.exponential(&mut b, most, next);
        let writes = vec![(self.most, vec![]), (keep, vec![])];
        vec![build::map(vec![], reads, b.finish(&[next, shrunk]), writes)]
    }

    fn total(&self, here: Place, keep: Place) -> Stage {
        self.carried(vec![], self.total, keep, here, vec![])
    }

    fn add(&self, out: &Dim, keep: Place, part: Place) -> Stage {
        let c = Ix::var(self.own(0));
        self.carried(vec![parallel(out)], self.out, keep, part, vec![c])
    }

    /// `sum = keep · sum + part`.
    fn carried(&self, dims: Vec<IterDim>, sum: Place, keep: Place, part: Place, at: Vec<Ix>) -> Stage {
        let mut reads = Reads::default();
        reads.element(sum, at.clone(), self.dtype);
        reads.element(keep, vec![], self.dtype);
        reads.element(part, at.clone(), self.dtype);
        let mut b = reads.body();
        let (s, keep, part) = (b.input(0), b.input(1), b.input(2));
        let kept = b.mul(s, keep);
        let next = b.add(kept, part);
        build::map(dims, reads, b.finish(&[next]), vec![(sum, at)])
    }

    /// The result. Weights sum up to 0 where they are zeros, and where there are no keys.
    fn last(&self, out: &Dim) -> Stage {
        let c = Ix::var(Var(self.query.0 + 1));
        let mut reads = Reads::default();
        reads.element(self.out, vec![c.clone()], self.dtype);
        reads.element(self.total, vec![], self.dtype);
        let first = Bound {
            index: Ix::constant(0),
            extent: self.keys.clone(),
        };
        let any = (self.zeros == Zeros::Never && !self.keys.is_at_least(1))
            .then(|| reads.add(Read::InBounds(vec![first]), DType::Bool));
        let mut b = reads.body();
        let (o, l) = (b.input(0), b.input(1));
        let mut y = b.div(o, l);
        if self.zeros != Zeros::Never {
            let zero = b.lit(o, 0.0);
            let none = b.eq(l, zero);
            y = b.select(none, o, y);
        }
        if let Some(any) = any {
            let any = b.input(any);
            y = b.select(any, y, o);
        }
        let at = [&self.heads[..], &[Ix::var(self.query), c]].concat();
        let to = self.at("y_order", &at);
        let place = Place::Operand(self.inputs.len() as u32);
        build::map(vec![parallel(out)], reads, b.finish(&[y]), vec![(place, to)])
    }
}
