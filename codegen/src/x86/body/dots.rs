//! Sums of products of bytes over a few taps, such as the windows of a depthwise convolution: four taps of a channel side by
//! side are four products of one instruction.
//!
//! ```text
//! for i1 unrolled 0..3 { for i2 unrolled 0..3 {
//!   for i3 vector 0..64 {                             for each i2:
//!     r0: u8 = load b0[900*i1 + 64*i2 + i3]             v0..v3 = bytes of i1 = 0, 1, 2 in turn, of 64 channels
//!     r1: i8 = load b1[192*i1 + 64*i2 + i3]    -->      w0..w3 = weights and a zero in turn
//!     r5 = add r9 (mul (cast r0) (cast r1))             s0..s3 += v0..v3 · w0..w3
//!     r9 = copy r5                                    r9 = s0..s3 in the order of channels
//! } } }
//! ```
//!
//! Taps along the outermost of the loops are put together, so that points that are side by side along an inner one share what is
//! interleaved. Lanes are interleaved within 128 bits, which leaves blocks of the sums in another order; that is put right once,
//! behind the last tap.
//!
//! Invariant: the same bits as the statements give one after the other, as sums of integers wrap in any order.

use super::address::Stream;
use super::value::{Val, Variable};
use super::{Builder, Lanes, Made};
use crate::x86::vir::{Binary, Class, Dot, Elem, Op, Operand, Shift, V};
use brolga_ir::DType;
use brolga_ir::index::{Ix, Reg, Var};
use brolga_ir::loops::{Buf, Expr, LoopKind, Scope, Stmt};
use brolga_ir::scalar::Prim;
use rustc_hash::FxHashMap;

/// Taps that one instruction multiplies.
const GROUP: i64 = 4;

/// The most taps of a nest.
const MOST_TAPS: i64 = 128;

/// Elements of a buffer that a product reads.
#[derive(Clone, Copy)]
struct Factor<'s> {
    buffer: Buf,
    index: &'s Ix,
}

/// `sum += data * weight`, of u8 by i8.
struct Product<'s> {
    sum: Reg,
    data: Factor<'s>,
    weight: Factor<'s>,
}

/// A nest of loops that does nothing but sum products of bytes.
pub(super) struct Dots<'s> {
    /// Variables and extents, outermost first.
    loops: Vec<(Var, i64)>,
    lanes: Lanes,
    products: Vec<Product<'s>>,
}

/// A factor at the taps of a group: where it lies at each.
#[derive(Clone, PartialEq, Eq, Hash)]
struct Group {
    buffer: Buf,
    places: Vec<(Stream, i64)>,
}

/// The data of a group of taps, and what it is multiplied by: weights, and the sums that they add to.
struct Step {
    data: Group,
    uses: Vec<(Reg, Group)>,
}

/// A factor of a group in four registers, each of a quarter of the channels: bytes, or words made of the even and the odd ones.
#[derive(Clone, Copy)]
enum Taps {
    Bytes([V; 4]),
    Words([[V; 2]; 4]),
}

/// What a register of the innermost body holds.
#[derive(Clone, Copy)]
enum Term<'s> {
    Byte(Factor<'s>),
    Wide(Factor<'s>),
    Product([Factor<'s>; 2]),
    Sum(Reg, [Factor<'s>; 2]),
}

impl Builder<'_> {
    /// The sums of products that a loop is, if it is nothing else.
    pub(super) fn as_dots<'s>(&self, s: &'s Stmt) -> Option<Dots<'s>> {
        let (mut loops, mut taps, mut s) = (vec![], 1i64, s);
        loop {
            let Stmt::For {
                var,
                kind,
                extent,
                body,
            } = s
            else {
                return None;
            };
            let n = extent.as_const().filter(|n| *n > 0)?;
            match kind {
                LoopKind::Serial | LoopKind::Unrolled => {
                    loops.push((*var, n));
                    taps = taps.checked_mul(n).filter(|n| *n <= MOST_TAPS)?;
                    let [inner] = &body[..] else { return None };
                    s = inner;
                }
                LoopKind::Vector => {
                    let fits = matches!(n, 16 | 32 | 64) && n <= i64::from(self.f.isa.bytes());
                    let lanes = Lanes {
                        var: Some(*var),
                        count: n as u32,
                    };
                    let products = self.products(body, lanes.count).filter(|_| fits && taps > 1)?;
                    return Some(Dots { loops, lanes, products });
                }
                _ => return None,
            }
        }
    }

    /// The products that statements of a vector loop add to sums, if they do nothing else.
    fn products<'s>(&self, body: &'s [Stmt], lanes: u32) -> Option<Vec<Product<'s>>> {
        let mut terms: FxHashMap<Reg, Term<'s>> = FxHashMap::default();
        let mut reads: FxHashMap<Reg, usize> = FxHashMap::default();
        let mut products = vec![];
        for s in body {
            s.for_each_read(&mut |r| *reads.entry(r).or_default() += 1);
            let Stmt::Set(r, e) = s else { return None };
            let info = self.k.reg(*r);
            let term = |r: &Reg| terms.get(r).copied();
            let made = match e {
                Expr::Load {
                    buffer, index, guard, ..
                } if guard.is_empty() => Term::Byte(Factor { buffer: *buffer, index }),
                Expr::Prim(Prim::Cast(DType::I32), [x, ..]) => match term(x)? {
                    Term::Byte(f) => Term::Wide(f),
                    _ => return None,
                },
                Expr::Prim(Prim::Mul, [x, y, _]) if info.dtype == DType::I32 => match (term(x)?, term(y)?) {
                    (Term::Wide(a), Term::Wide(b)) => Term::Product(self.in_order([a, b])?),
                    _ => return None,
                },
                Expr::Prim(Prim::Add, [x, y, _]) => match (term(x), term(y)) {
                    (None, Some(Term::Product(p))) => Term::Sum(*x, p),
                    (Some(Term::Product(p)), None) => Term::Sum(*y, p),
                    _ => return None,
                },
                Expr::Copy(x) => match term(x)? {
                    Term::Sum(sum, [data, weight]) if sum == *r && info.lanes == lanes => {
                        products.push(Product { sum, data, weight });
                        continue;
                    }
                    _ => return None,
                },
                _ => return None,
            };
            terms.insert(*r, made);
        }
        // Nothing of it is read elsewhere.
        let own = terms
            .keys()
            .all(|r| self.reads.get(*r) == reads.get(r).copied().unwrap_or(0));
        (own && !products.is_empty()).then_some(products)
    }

    /// Two factors as u8 and i8.
    fn in_order<'s>(&self, [a, b]: [Factor<'s>; 2]) -> Option<[Factor<'s>; 2]> {
        match [a, b].map(|f| self.k.buffer(f.buffer).dtype) {
            [DType::U8, DType::I8] => Some([a, b]),
            [DType::I8, DType::U8] => Some([b, a]),
            _ => None,
        }
    }

    /// The sums; `false`, and nothing done, where channels do not lie side by side.
    pub(super) fn dots(&mut self, d: &Dots) -> Made<bool> {
        self.vector = Some(d.lanes);
        let done = self.steps(d).and_then(|steps| match steps {
            Some(steps) => self.sums(d, steps).map(|()| true),
            None => Ok(false),
        });
        self.vector = None;
        d.loops.iter().for_each(|(v, _)| {
            self.known.remove(v);
        });
        done
    }

    /// The data of every group of taps, in the order of the loops, and what it is multiplied by.
    fn steps(&mut self, d: &Dots) -> Made<Option<Vec<Step>>> {
        let along = d.loops.iter().position(|(_, n)| *n > 1).expect("there are two taps");
        let (across, taps) = d.loops[along];
        let others: Vec<(Var, i64)> = d.loops.iter().filter(|(v, _)| *v != across).copied().collect();
        let mut steps: Vec<Step> = vec![];
        let mut known: FxHashMap<Group, usize> = FxHashMap::default();
        let rounds: i64 = others.iter().map(|(_, n)| n).product();
        for round in 0..rounds {
            let mut rest = round;
            for (v, n) in others.iter().rev() {
                self.known.insert(*v, rest % n);
                rest /= n;
            }
            for first in (0..taps).step_by(GROUP as usize) {
                let range = first..taps.min(first + GROUP);
                for p in &d.products {
                    let data = self.group(p.data, across, range.clone())?;
                    let weight = self.group(p.weight, across, range.clone())?;
                    let (Some(data), Some(weight)) = (data, weight) else {
                        return Ok(None);
                    };
                    let at = *known.entry(data.clone()).or_insert(steps.len());
                    if at == steps.len() {
                        steps.push(Step { data, uses: vec![] });
                    }
                    steps[at].uses.push((p.sum, weight));
                }
            }
        }
        Ok(Some(steps))
    }

    /// Where a factor lies at some taps along a loop; `None` where its lanes do not lie side by side.
    fn group(&mut self, f: Factor, along: Var, taps: std::ops::Range<i64>) -> Made<Option<Group>> {
        let buffer = f.buffer;
        let mut places = vec![];
        for tap in taps {
            self.known.insert(along, tap);
            let p = self.parts(Some(buffer), f.index)?;
            if p.reg.is_some() || !p.lane.is(1) {
                return Ok(None);
            }
            places.push((p.stream, p.constant));
        }
        Ok(Some(Group { buffer, places }))
    }

    fn sums(&mut self, d: &Dots, steps: Vec<Step>) -> Made<()> {
        let mut sums: Vec<(Reg, [V; 4])> = vec![];
        for p in &d.products {
            if sums.iter().all(|(r, _)| *r != p.sum) {
                let zeros = std::array::from_fn(|_| self.f.zero());
                sums.push((p.sum, zeros));
            }
        }
        let mut weights: FxHashMap<Group, Taps> = FxHashMap::default();
        for step in steps {
            let data = self.taps(&step.data, false)?;
            for (sum, group) in step.uses {
                let weight = match weights.get(&group) {
                    Some(w) => *w,
                    None => {
                        let w = self.taps(&group, true)?;
                        weights.insert(group, w);
                        w
                    }
                };
                let (_, sum) = sums.iter().find(|(r, _)| *r == sum).expect("every sum has registers");
                self.multiply(*sum, data, weight);
            }
        }
        for (r, sum) in sums {
            let mut lanes = self.channels(sum);
            if !self.starts_at_zero(r) {
                let Val::Lanes(before) = self.read(r)? else {
                    return Err(format!("{r} as lanes"));
                };
                let ty = self.part(DType::I32);
                let add = |(v, before): (V, &V)| self.f.binary(Binary::Add, ty, v, Operand::Reg(*before));
                lanes = lanes.into_iter().zip(&before).map(add).collect();
            }
            self.set(r, Val::Lanes(lanes), &Expr::Const(0))?;
        }
        Ok(())
    }

    /// A factor at the taps of a group, interleaved, before the innermost loop where that does not move it. A tap that is missing
    /// has the weight 0, and any data.
    fn taps(&mut self, group: &Group, weight: bool) -> Made<Taps> {
        let kept = self.k.buffer(group.buffer).scope == Scope::In && !self.stored.contains(&group.buffer);
        let last = self.levels.len().checked_sub(1);
        let moved = last.is_none_or(|l| group.places.iter().any(|(s, _)| self.stride(s, l).is_some()));
        let depth = self.levels.len() - usize::from(kept && !moved);
        self.early(depth, |this| {
            let lanes = this.vector.map_or(1, |l| l.count) as u8;
            let bytes = Elem::U8.by(lanes);
            let mut v = vec![];
            for (stream, constant) in &group.places {
                let mem = this.address(stream, 1, *constant, true)?;
                v.push(this.f.load(bytes, mem, None));
            }
            let last = *v.last().expect("a group has a tap");
            while v.len() < GROUP as usize {
                let missing = if weight { this.f.zero() } else { last };
                v.push(missing);
            }
            let four = this.interleaved([v[0], v[1], v[2], v[3]], lanes);
            Ok(if this.dots {
                Taps::Bytes(four)
            } else {
                Taps::Words(four.map(|v| this.words(v, lanes, weight)))
            })
        })
    }

    /// Four vectors of bytes as vectors of groups of four bytes, one of each: of channels 0 to 3 of every 16, 4 to 7 and so on.
    fn interleaved(&mut self, [a, b, c, d]: [V; 4], lanes: u8) -> [V; 4] {
        let mut turn = |elem: Elem, a: V, b: V, high: bool| {
            let (ty, dst) = (elem.by(lanes / elem.bytes() as u8), self.f.vector());
            self.f.push(Op::Interleave { ty, dst, a, b, high });
            dst
        };
        let halves = [false, true].map(|high| [turn(Elem::U8, a, b, high), turn(Elem::U8, c, d, high)]);
        let [[ab, cd], [ab_high, cd_high]] = halves;
        [
            turn(Elem::U16, ab, cd, false),
            turn(Elem::U16, ab, cd, true),
            turn(Elem::U16, ab_high, cd_high, false),
            turn(Elem::U16, ab_high, cd_high, true),
        ]
    }

    /// The even and the odd bytes as words, by their sign.
    fn words(&mut self, v: V, lanes: u8, signed: bool) -> [V; 2] {
        let ty = if signed { Elem::I16 } else { Elem::U16 }.by(lanes / 2);
        let mut shift = |op: Shift, a: V| {
            let dst = self.f.vector();
            self.f.push(Op::Shift { op, ty, dst, a, by: 8 });
            dst
        };
        let even = shift(Shift::Left, v);
        [shift(Shift::Right, even), shift(Shift::Right, v)]
    }

    /// Adds the products of a group.
    fn multiply(&mut self, sums: [V; 4], data: Taps, weight: Taps) {
        let lanes = self.vector.map_or(1, |l| l.count) as u8 / GROUP as u8;
        let ty = Elem::I32.by(lanes);
        match (data, weight) {
            (Taps::Bytes(data), Taps::Bytes(weight)) => {
                for ((acc, a), b) in sums.into_iter().zip(data).zip(weight) {
                    let (op, b) = (Dot::U8I8, Operand::Reg(b));
                    self.f.push(Op::Dot { op, ty, acc, a, b });
                }
            }
            (Taps::Words(data), Taps::Words(weight)) => {
                for ((acc, a), b) in sums.into_iter().zip(data).zip(weight) {
                    for (a, b) in a.into_iter().zip(b) {
                        let pairs = self
                            .f
                            .binary(Binary::PairSum, Elem::I16.by(2 * lanes), a, Operand::Reg(b));
                        let (op, b) = (Binary::Add, Operand::Reg(pairs));
                        self.f.push(Op::Binary {
                            op,
                            ty,
                            dst: acc,
                            a: acc,
                            b,
                        });
                    }
                }
            }
            _ => unreachable!("a level has taps of one kind"),
        }
    }

    /// Sums of channels 0 to 3 of every 16, 4 to 7 and so on, in the order of channels, in whole registers.
    fn channels(&mut self, sums: [V; 4]) -> Vec<V> {
        let lanes = self.vector.map_or(1, |l| l.count) as u8;
        let whole = self.f.whole(Elem::I32);
        let ty = Elem::I32.by(lanes / GROUP as u8);
        let [a, b, c, d] = sums;
        let mut blocks = |a: V, b: V, pick: [u8; 4]| {
            let dst = self.f.vector();
            self.f.push(Op::Blocks { ty, dst, a, b, pick });
            dst
        };
        let quarters: Vec<[V; 2]> = match lanes / 16 {
            4 => {
                // A transposition of four by four blocks.
                let [low, high] = [[0, 1, 0, 1], [2, 3, 2, 3]];
                let [ab, cd, ab_high, cd_high] = [
                    blocks(a, b, low),
                    blocks(c, d, low),
                    blocks(a, b, high),
                    blocks(c, d, high),
                ];
                let [even, odd] = [[0, 2, 0, 2], [1, 3, 1, 3]];
                return vec![
                    blocks(ab, cd, even),
                    blocks(ab, cd, odd),
                    blocks(ab_high, cd_high, even),
                    blocks(ab_high, cd_high, odd),
                ];
            }
            2 => [0, 1].map(|q| [blocks(a, b, [q; 4]), blocks(c, d, [q; 4])]).into(),
            _ => vec![[self.joined_halves(4, a, b), self.joined_halves(4, c, d)]],
        };
        match whole.lanes {
            16 => quarters
                .into_iter()
                .map(|[low, high]| self.joined_halves(8, low, high))
                .collect(),
            _ => quarters.concat(),
        }
    }

    /// Two vectors of so many i32 as one.
    fn joined_halves(&mut self, lanes: u8, low: V, high: V) -> V {
        let (ty, dst) = (Elem::I32.by(lanes), self.f.vector());
        self.f.push(Op::Join { ty, dst, low, high });
        dst
    }

    /// Whether a register's lanes have only just been made zero; they are then left to be written.
    fn starts_at_zero(&mut self, r: Reg) -> bool {
        let Some(Variable::Vector(lanes)) = self.variables.get(&r).cloned() else {
            return false;
        };
        let places: Option<Vec<usize>> = lanes.iter().map(|v| self.just_zeroed(*v)).collect();
        let Some(mut places) = places else { return false };
        places.sort_unstable();
        for at in places.into_iter().rev() {
            self.f.ops.remove(at);
        }
        true
    }

    /// The operation that made a register zero, which nothing has touched since.
    fn just_zeroed(&self, v: V) -> Option<usize> {
        for (at, op) in self.f.ops.iter().enumerate().rev() {
            if matches!(op, Op::Zero { dst } if *dst == v) {
                return Some(at);
            }
            let mut touched = matches!(op, Op::Label(_)) || op.target().is_some();
            op.visit(|class, n, _| touched |= class == Class::Vector && V(n) == v);
            if touched {
                return None;
            }
        }
        None
    }
}
