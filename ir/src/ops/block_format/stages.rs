//! Stages that read blocks of a format. A point of their kernels is a row and 32 of its elements: the variables 0 and 1; the third counts elements.

use super::super::compress_blocks::rounded;
use super::{BlockFormat, Q4_0, Q4_1, Q4K, Q5_0, Q5_1, Q5K, Q6K, Q8_0, SIZE};
use crate::index::{Ix, Var};
use crate::loops::BLOCK;
use crate::scalar::{Builder, V};
use crate::structured::build::{self, Reads, parallel};
use crate::structured::{Place, Read, Stage};
use crate::{DType, Dim, Number};

use DType::{F16, F32, I8, I32, I64, U8, U16};

/// Where a point writes, or reads.
type At = (Place, Vec<Ix>);

/// A stage under construction: reads, and what becomes of them.
struct Open {
    format: BlockFormat,
    reads: Reads,
}

/// A byte, and how far it is shifted down.
struct Bits {
    byte: usize,
    by: Option<usize>,
}

impl Open {
    fn new(format: BlockFormat) -> Open {
        Open {
            format,
            reads: Reads::default(),
        }
    }

    /// Which 32 elements of their block.
    fn part(&self) -> Ix {
        Ix::var(Var(1)).modulo(&Dim::from(self.format.elements() / SIZE))
    }

    /// The byte at this place of the block.
    fn byte(&mut self, at: &Ix) -> usize {
        let block = Ix::var(Var(1)).div(&Dim::from(self.format.elements() / SIZE));
        let first = block.scale(&Dim::from(self.format.bytes()));
        let place = vec![Ix::var(Var(0)), &first + at];
        self.reads.element(Place::Operand(0), place, U8)
    }

    /// The two bytes of a number from this place on.
    fn pair(&mut self, at: usize) -> [usize; 2] {
        [at, at + 1].map(|at| self.byte(&Ix::constant(at as i64)))
    }

    /// An index as a number.
    fn index(&mut self, i: Ix) -> usize {
        self.reads.add(Read::Index(i), I64)
    }

    /// A byte and a shift.
    fn bits(&mut self, at: &Ix, by: Option<Ix>) -> Bits {
        let byte = self.byte(at);
        Bits {
            byte,
            by: by.map(|by| self.index(by)),
        }
    }
}

fn whole(b: &mut Builder, i: usize) -> V {
    let v = b.input(i);
    b.cast(I32, v)
}

fn constant(b: &mut Builder, x: i64) -> V {
    b.constant(I32, Number::Int(x.into()))
}

/// `v & mask`, or with a shift up behind.
fn masked(b: &mut Builder, v: V, mask: i64, up: i64) -> V {
    let mask = constant(b, mask);
    let v = b.and(v, mask);
    let up = constant(b, up);
    b.shl(v, up)
}

fn down(b: &mut Builder, v: V, by: i64) -> V {
    let by = constant(b, by);
    b.shr(v, by)
}

/// The byte shifted down, as an i32.
fn shifted(b: &mut Builder, bits: &Bits) -> V {
    let v = whole(b, bits.byte);
    match bits.by {
        Some(by) => {
            let by = whole(b, by);
            b.shr(v, by)
        }
        None => v,
    }
}

/// The f16 of two bytes, and the same in f32.
fn float(b: &mut Builder, [low, high]: [usize; 2]) -> [V; 2] {
    let [low, high] = [low, high].map(|i| {
        let v = b.input(i);
        b.cast(U16, v)
    });
    let eight = b.constant(U16, Number::Int(8));
    let high = b.shl(high, eight);
    let both = b.or(low, high);
    let short = b.bitcast(F16, both);
    [short, b.cast(F32, short)]
}

/// A stage that writes scale and minimum in f32: for each of two halves of the 32 elements in a format that has them, a minimum in one of
/// those that have it.
///
/// ```text
/// stage { read bytes  write scale[]  write minimum[] }
/// stage parallel(2) { read bytes  write scale[i2] }          // q6_k
/// ```
pub fn numbers(format: BlockFormat, scale: Place, least: Place) -> Stage {
    let mut o = Open::new(format);
    match format {
        Q4_0 | Q5_0 | Q8_0 => {
            let d = o.pair(0);
            let mut b = o.reads.body();
            let [_, d] = float(&mut b, d);
            build::map(vec![], o.reads, b.finish(&[d]), vec![(scale, vec![])])
        }
        Q4_1 | Q5_1 => {
            let pairs = [o.pair(0), o.pair(2)];
            let mut b = o.reads.body();
            let both = pairs.map(|at| float(&mut b, at)[1]);
            let to = vec![(scale, vec![]), (least, vec![])];
            build::map(vec![], o.reads, b.finish(&both), to)
        }
        Q4K | Q5K => {
            let pairs = [o.pair(0), o.pair(2)];
            let part = o.part();
            let place = part.modulo(&Dim::Const(4));
            let bytes = [4, 8, 12].map(|at| o.byte(&(&place + &Dim::Const(at))));
            let part = o.index(part);
            let mut b = o.reads.body();
            let [[_, d], [_, e]] = pairs.map(|at| float(&mut b, at));
            let [x, y, z] = bytes.map(|i| whole(&mut b, i));
            let (part, four) = (whole(&mut b, part), constant(&mut b, 4));
            let first = b.lt(part, four);
            // Of the last four scales and minima, the lower four bits are together, the upper two with the first ones.
            let lower = [masked(&mut b, z, 15, 0), down(&mut b, z, 4)];
            let both = [(x, lower[0]), (y, lower[1])].map(|(own, lower)| {
                let upper = down(&mut b, own, 6);
                let upper = masked(&mut b, upper, 3, 4);
                let last = b.or(lower, upper);
                let own = masked(&mut b, own, 63, 0);
                let v = b.select(first, own, last);
                b.cast(F32, v)
            });
            let s = b.mul(d, both[0]);
            let m = b.mul(e, both[1]);
            let m = b.neg(m);
            let to = vec![(scale, vec![]), (least, vec![])];
            build::map(vec![], o.reads, b.finish(&[s, m]), to)
        }
        Q6K => {
            let d = o.pair(208);
            let first = o.part().scale(&Dim::Const(2));
            let s = o.byte(&(&(&first + &Ix::var(Var(2))) + &Dim::Const(192)));
            let mut b = o.reads.body();
            let [_, d] = float(&mut b, d);
            let s = b.input(s);
            let s = b.bitcast(I8, s);
            let s = b.cast(F32, s);
            let s = b.mul(d, s);
            let to = vec![(scale, vec![Ix::var(Var(2))])];
            build::map(vec![parallel(&Dim::Const(2))], o.reads, b.finish(&[s]), to)
        }
    }
}

/// A stage that writes elements, of scale and minimum as [`numbers`] gives them.
pub fn decoded(format: BlockFormat, scale: Place, least: Place, to: At) -> Stage {
    let mut o = Open::new(format);
    let k = Ix::var(Var(2));
    let (j, own) = (o.part(), format.integers() as i64);
    let two = Dim::Const(2);
    let four = Dim::Const(4);
    // The byte of the lower bits, and that of the upper ones with their mask.
    let (low, high) = match format {
        Q8_0 => (o.bits(&(&k + &Dim::Const(own)), None), None),
        Q4_0 | Q4_1 | Q5_0 | Q5_1 => {
            let half = Dim::Const(BLOCK / 2);
            let low = o.bits(&(&k.modulo(&half) + &Dim::Const(own)), Some(k.div(&half).scale(&four)));
            let eight = Dim::Const(8);
            let high = matches!(format, Q5_0 | Q5_1).then(|| {
                (
                    o.bits(&(&k.div(&eight) + &Dim::Const(own - 4)), Some(k.modulo(&eight))),
                    1,
                )
            });
            (low, high)
        }
        Q4K | Q5K => {
            let at = &(&j.div(&two).scale(&Dim::Const(BLOCK)) + &k) + &Dim::Const(own);
            let low = o.bits(&at, Some(j.modulo(&two).scale(&four)));
            let high = (format == Q5K).then(|| (o.bits(&(&k + &Dim::Const(16)), Some(j.clone())), 1));
            (low, high)
        }
        Q6K => {
            let (half, g) = (j.div(&four), j.modulo(&four));
            let at = &(&half.scale(&Dim::Const(64)) + &g.modulo(&two).scale(&Dim::Const(BLOCK))) + &k;
            let low = o.bits(&at, Some(g.div(&two).scale(&four)));
            let at = &(&half.scale(&Dim::Const(BLOCK)) + &k) + &Dim::Const(128);
            (low, Some((o.bits(&at, Some(g.scale(&two))), 3)))
        }
    };
    let of_scale = match format {
        Q6K => vec![k.div(&Dim::Const(BLOCK / 2))],
        _ => vec![],
    };
    let scale = o.reads.element(scale, of_scale, F32);
    let least = format.stores_minima().then(|| o.reads.element(least, vec![], F32));
    let mut b = o.reads.body();
    let mut q = match format {
        Q8_0 => {
            let v = b.input(low.byte);
            let v = b.bitcast(I8, v);
            b.cast(I32, v)
        }
        _ => {
            let v = shifted(&mut b, &low);
            masked(&mut b, v, 15, 0)
        }
    };
    if let Some((bits, mask)) = high {
        let upper = shifted(&mut b, &bits);
        let upper = masked(&mut b, upper, mask, 4);
        q = b.or(q, upper);
    }
    let zero = constant(&mut b, format.zero());
    let q = b.sub(q, zero);
    let q = b.cast(F32, q);
    let scale = b.input(scale);
    let mut v = b.mul(scale, q);
    if let Some(least) = least {
        let least = b.input(least);
        v = b.add(v, least);
    }
    build::map(vec![parallel(&Dim::Const(BLOCK))], o.reads, b.finish(&[v]), vec![to])
}

/// A stage that writes scale and minimum as a product over blocks has them, of a format whose integers stay as they are.
pub fn kept_numbers(format: BlockFormat, scale: At, least: At) -> Stage {
    if !format.has_minima() {
        let mut o = Open::new(format);
        let d = o.pair(0);
        let mut b = o.reads.body();
        let [d, _] = float(&mut b, d);
        return build::map(vec![], o.reads, b.finish(&[d]), vec![scale]);
    }
    let stage = numbers(format, scale.0, least.0);
    let mut b = Builder::new(&stage.body.inputs);
    let inputs: Vec<V> = (0..stage.body.inputs.len()).map(|i| b.input(i)).collect();
    let own = b.inline(&stage.body, &inputs);
    let eight = b.constant(F32, Number::Float(8.0));
    let up = b.mul(own[0], eight);
    let up = b.add(up, own[1]);
    let both = [own[0], up].map(|v| {
        let [short, _] = rounded(&mut b, v);
        short
    });
    Stage {
        body: b.finish(&both),
        writes: vec![scale, least],
        ..stage
    }
}

/// A stage that writes the bytes of the integers, of a format where they stay as they are: those of 4 bits with an element of each half of the
/// 32 in a byte.
pub fn kept(format: BlockFormat, to: At) -> Stage {
    let mut o = Open::new(format);
    let k = Ix::var(Var(2));
    let own = Dim::from(format.integers());
    let (body, bytes) = match format {
        Q4K => {
            let j = o.part();
            let two = Dim::Const(2);
            let at = &(&j.div(&two).scale(&Dim::Const(BLOCK)) + &k) + &own;
            let by = o.index(j.modulo(&two).scale(&Dim::Const(4)));
            let halves = [0, BLOCK / 2].map(|more| o.byte(&(&at + &Dim::Const(more))));
            let mut b = o.reads.body();
            let by = whole(&mut b, by);
            let [low, high] = halves.map(|i| {
                let v = whole(&mut b, i);
                b.shr(v, by)
            });
            let low = masked(&mut b, low, 15, 0);
            let high = masked(&mut b, high, 15, 4);
            let v = b.or(low, high);
            let v = b.cast(U8, v);
            (b.finish(&[v]), BLOCK / 2)
        }
        _ => {
            let byte = o.byte(&(&k + &own));
            let mut b = o.reads.body();
            let v = b.input(byte);
            // An integer with a sign, from 128 on.
            let sign = b.constant(U8, Number::Int(128));
            match format {
                Q8_0 => {
                    let v = b.xor(v, sign);
                    (b.finish(&[v]), BLOCK)
                }
                _ => (b.finish(&[v]), BLOCK / 2),
            }
        }
    };
    build::map(vec![parallel(&Dim::Const(bytes))], o.reads, body, vec![to])
}
