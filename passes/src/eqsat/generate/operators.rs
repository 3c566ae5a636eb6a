//! Operands and attributes that fit each operator, drawn so that rules' conditions often hold.

use super::{Bound, Generator, Hint};
use crate::eqsat::lang::OpId;
use crate::eqsat::rules::Pat;
use brolga_ir::{Attr, DType, Dim, Type, Value};

impl Generator {
    pub(super) fn permutation(&mut self, rank: usize) -> Vec<i64> {
        let mut p: Vec<i64> = (0..rank as i64).collect();
        if self.chance(85) {
            for i in (1..rank).rev() {
                let j = self.below(i + 1);
                p.swap(i, j);
            }
        }
        p
    }

    pub(super) fn transpose(
        &mut self,
        op: OpId,
        attrs: &[Pat],
        operands: &[Pat],
        want: Option<&Type>,
    ) -> Option<Value> {
        let draw = |rank: usize| move |r: &mut Self| Some(Attr::Ints(r.permutation(rank)));
        match want {
            Some(t) if !self.natural(&operands[0]) => {
                let perm = self.attr(&attrs[0], draw(t.rank()))?;
                let Attr::Ints(p) = &perm else { return None };
                if p.len() != t.rank() {
                    return None;
                }
                let mut shape = vec![Dim::ZERO; p.len()];
                p.iter().zip(&t.shape).for_each(|(&d, e)| shape[d as usize] = e.clone());
                let x = self.pattern(&operands[0], Some(&Type::new(t.dtype, shape)))?;
                self.add(op, &[perm], &[x])
            }
            _ => {
                let x = self.pattern(&operands[0], None)?;
                let rank = self.g.ty(x).rank();
                // Now and then the one that swaps the two last dims, which contractions ask about.
                let perm = self.attr(&attrs[0], |r| {
                    let mut p = r.permutation(rank);
                    if rank >= 2 && r.chance(30) {
                        p = (0..rank as i64).collect();
                        p.swap(rank - 2, rank - 1);
                    }
                    Some(Attr::Ints(p))
                })?;
                self.add(op, &[perm], &[x])
            }
        }
    }

    pub(super) fn broadcast(
        &mut self,
        op: OpId,
        attrs: &[Pat],
        operands: &[Pat],
        want: Option<&Type>,
    ) -> Option<Value> {
        let fixed = match self.fixed(&attrs[0]) {
            Some(Attr::Dims(d)) => Some(d),
            _ => None,
        };
        if self.natural(&operands[0]) {
            let x = self.pattern(&operands[0], None)?;
            let from = self.g.ty(x).shape.clone();
            let shape = self.attr(&attrs[0], |r| {
                let stretch = |d: &Dim, r: &mut Self| if d.is(1) { Dim::from(r.extent()) } else { d.clone() };
                Some(Attr::Dims(match want {
                    Some(t) => t.shape.clone(),
                    None => from.iter().map(|d| stretch(d, r)).collect(),
                }))
            })?;
            return self.add(op, &[shape], &[x]);
        }
        let dtype = want.map_or(self.dtype, |t| t.dtype);
        let shape = match (fixed, want) {
            (Some(s), _) => s,
            (None, Some(t)) => t.shape.clone(),
            (None, None) => self.shape(None),
        };
        // Vectors along one axis, leading ones, or any subset.
        let mut small = shape.clone();
        let style = self.below(3);
        let (at, first) = (self.below(shape.len()), self.below(shape.len() + 1));
        for (d, e) in small.iter_mut().enumerate() {
            let one = match style {
                0 => d != at,
                1 => d < first,
                _ => self.chance(50),
            };
            if one {
                *e = Dim::ONE;
            }
        }
        let x = self.pattern(&operands[0], Some(&Type::new(dtype, small)))?;
        let shape = self.attr(&attrs[0], |_| Some(Attr::Dims(shape)))?;
        self.add(op, &[shape], &[x])
    }

    pub(super) fn reduce(&mut self, op: OpId, attrs: &[Pat], operands: &[Pat], _: Option<&Type>) -> Option<Value> {
        let x = self.pattern(&operands[0], None)?;
        let ty = self.g.ty(x).clone();
        let words: &[&str] = if ty.dtype == DType::Bool {
            &["and", "or"]
        } else {
            &["sum", "sum", "max", "min", "prod"]
        };
        let kind = self.attr(&attrs[0], |r| Some(Attr::word(r.pick(words))))?;
        let axes = self.attr(&attrs[1], |r| {
            let first = r.below(ty.rank().max(1));
            let trailing = r.chance(50);
            let axes: Vec<i64> = (0..ty.rank())
                .filter(|&d| if trailing { d >= first } else { r.chance(50) })
                .map(|d| d as i64)
                .collect();
            (!axes.is_empty()).then_some(Attr::Ints(axes))
        })?;
        self.add(op, &[kind, axes], &[x])
    }

    /// Another shape of as many elements.
    pub(super) fn refactored(&mut self, shape: &[Dim]) -> Option<Vec<Dim>> {
        let mut out: Vec<i64> = shape.iter().map(Dim::as_const).collect::<Option<_>>()?;
        for _ in 0..1 + self.below(2) {
            match self.below(3) {
                0 if out.len() >= 2 => {
                    let i = self.below(out.len() - 1);
                    let d = out.remove(i + 1);
                    out[i] *= d;
                }
                1 => {
                    let i = self.below(out.len() + 1);
                    out.insert(i, 1);
                }
                _ if !out.is_empty() => {
                    let i = self.below(out.len());
                    if let Some(f) = (2..=out[i]).find(|f| out[i] % f == 0) {
                        out[i] /= f;
                        out.insert(i, f);
                    }
                }
                _ => {}
            }
        }
        (out.len() <= 6).then(|| out.into_iter().map(Dim::Const).collect())
    }

    pub(super) fn pad(&mut self, op: OpId, attrs: &[Pat], operands: &[Pat]) -> Option<Value> {
        let x = self.pattern(&operands[0], None)?;
        let rank = self.g.ty(x).rank();
        let style = self.below(3);
        let draw = move |r: &mut Self| {
            let one = |r: &mut Self| {
                if style == 0 {
                    0
                } else {
                    r.below(4) as i64 - (style == 2) as i64
                }
            };
            Some(Attr::Dims((0..rank).map(|_| Dim::Const(one(r))).collect()))
        };
        let low = self.attr(&attrs[0], draw)?;
        let high = self.attr(&attrs[1], draw)?;
        let plain = self.chance(60);
        let inner = self.attr(&attrs[2], |r| {
            Some(Attr::Ints(
                (0..rank).map(|_| if plain { 0 } else { r.below(3) as i64 }).collect(),
            ))
        })?;
        let fill = self.attr(&attrs[3], |r| Some(Attr::num(r.pick(&[0.0, 1.0, -2.0]))))?;
        self.add(op, &[low, high, inner, fill], &[x])
    }

    pub(super) fn slice(&mut self, op: OpId, attrs: &[Pat], operands: &[Pat]) -> Option<Value> {
        let x = self.pattern(&operands[0], None)?;
        let from: Vec<i64> = self.g.ty(x).shape.iter().map(Dim::as_const).collect::<Option<_>>()?;
        // Of a pad: the part that was padded, now and then.
        let inner = match (&operands[0], self.chance(50)) {
            (Pat::Op(h, args, _), true) if self.operator_of(*h).name() == "pad" => {
                match (self.fixed(&args[0]), &args[4]) {
                    (Some(Attr::Dims(low)), Pat::Var(v)) => match self.bound.get(v) {
                        Some(Bound::Stream(v)) => Some((low, self.g.ty(*v).shape.clone())),
                        _ => None,
                    },
                    _ => None,
                }
            }
            _ => None,
        };
        let whole = self.chance(25);
        let (mut starts, mut sizes, mut steps) = (vec![], vec![], vec![]);
        for &n in &from {
            let step = if whole || inner.is_some() {
                1
            } else {
                self.pick(&[1, 1, 2, 3, -1, -2])
            };
            let start = if whole || n == 0 {
                0
            } else {
                self.below(n as usize) as i64
            };
            let room = if n == 0 {
                0
            } else if step > 0 {
                (n - 1 - start) / step + 1
            } else {
                start / -step + 1
            };
            let size = if whole { n } else { self.below(room as usize + 1) as i64 };
            starts.push(Dim::Const(start));
            sizes.push(Dim::Const(size));
            steps.push(step);
        }
        if let Some((low, size)) = inner {
            (starts, sizes) = (low, size);
        }
        let starts = self.attr(&attrs[0], |_| Some(Attr::Dims(starts)))?;
        let sizes = self.attr(&attrs[1], |_| Some(Attr::Dims(sizes)))?;
        let steps = self.attr(&attrs[2], |_| Some(Attr::Ints(steps)))?;
        self.add(op, &[starts, sizes, steps], &[x])
    }

    pub(super) fn concat(&mut self, op: OpId, attrs: &[Pat], operands: &[Pat]) -> Option<Value> {
        let mut list = &operands[0];
        let mut values: Vec<Value> = vec![];
        let mut axis = self.fixed(&attrs[0]);
        loop {
            let base = values.first().map(|&v| self.g.ty(v).clone());
            if let (None, Some(t)) = (&axis, &base) {
                let rank = t.rank();
                axis = Some(self.attr(&attrs[0], |r| (rank > 0).then(|| Attr::Int(r.below(rank) as i64)))?);
            }
            let sibling = |r: &mut Self| {
                let (Some(mut t), Some(Attr::Int(a))) = (base.clone(), axis.clone()) else {
                    return None;
                };
                t.shape[a as usize] = Dim::from(r.extent());
                Some(t)
            };
            match list {
                Pat::Nil => break,
                Pat::Cons(head, tail) => {
                    let want = sibling(self);
                    let v = self.pattern(head, want.as_ref())?;
                    values.push(v);
                    list = tail;
                }
                Pat::Var(name) => {
                    let mut rest = vec![];
                    for _ in 0..1 + self.below(2) {
                        let t = match sibling(self) {
                            Some(t) => t,
                            None => Type::new(self.dtype, self.shape(Some(3))),
                        };
                        // What a transpose made, or a constant: rules ask for either.
                        let t = Type::new(t.dtype, t.shape);
                        let v = self.leaf(Hint::default(), &t, false)?;
                        rest.push(if self.chance(60) {
                            let reversed: Vec<i64> = (0..t.rank() as i64).rev().collect();
                            let perm = [Attr::Ints(reversed)];
                            let transpose = OpId::of("transpose")?;
                            let there = self.add(transpose, &perm, &[v])?;
                            self.add(transpose, &perm, &[there])?
                        } else {
                            v
                        });
                    }
                    self.bound.insert(*name, Bound::List);
                    values.extend(rest);
                    break;
                }
                _ => return None,
            }
        }
        let rank = self.g.ty(*values.first()?).rank();
        let axis = self.attr(&attrs[0], |r| (rank > 0).then(|| Attr::Int(r.below(rank) as i64)))?;
        self.add(op, &[axis], &values)
    }

    pub(super) fn contract(&mut self, op: OpId, attrs: &[Pat], operands: &[Pat]) -> Option<Value> {
        let count = |r: &Self, i: usize| match r.fixed(&attrs[i]) {
            Some(Attr::Ints(v)) => Some(v.len()),
            _ => None,
        };
        let nb = count(self, 0)
            .or(count(self, 1))
            .unwrap_or_else(|| self.pick(&[0, 0, 1, 1, 2]));
        let nc = count(self, 2)
            .or(count(self, 3))
            .unwrap_or_else(|| self.pick(&[1, 1, 1, 2]));
        let shared: Vec<Dim> = (0..nb + nc).map(|_| Dim::from(self.extent())).collect();
        let mut shapes = vec![];
        let mut chosen = vec![];
        for side in 0..2 {
            let free = self.pick(&[1, 1, 1, 2, 0]);
            let rank = nb + nc + free;
            let (b, c) = (self.fixed(&attrs[side]), self.fixed(&attrs[2 + side]));
            let take = |a: Option<Attr>| match a {
                Some(Attr::Ints(v)) => Some(v),
                _ => None,
            };
            let (b, c) = (take(b), take(c));
            let mut places: Vec<i64> = if self.chance(60) {
                (0..rank as i64).collect()
            } else {
                self.permutation(rank)
            };
            let b = b.unwrap_or_else(|| places[..nb].to_vec());
            places.retain(|p| !b.contains(p));
            if self.chance(40) {
                places.reverse();
            }
            let c = c.unwrap_or_else(|| places.iter().copied().take(nc).collect());
            if b.iter().chain(&c).any(|&p| p as usize >= rank) || b.len() != nb || c.len() != nc {
                return None;
            }
            let mut shape: Vec<Dim> = (0..rank).map(|_| Dim::from(self.extent())).collect();
            b.iter()
                .chain(&c)
                .zip(&shared)
                .for_each(|(&p, e)| shape[p as usize] = e.clone());
            shapes.push(Type::new(self.dtype, shape));
            chosen.push((b, c));
        }
        let x = self.pattern(&operands[0], Some(&shapes[0]))?;
        let y = self.pattern(&operands[1], Some(&shapes[1]))?;
        let mut all = vec![];
        for (i, v) in [&chosen[0].0, &chosen[1].0, &chosen[0].1, &chosen[1].1]
            .into_iter()
            .enumerate()
        {
            all.push(self.attr(&attrs[i], |_| Some(Attr::Ints(v.clone())))?);
        }
        let (acc, out) = self.sum_dtypes();
        for (p, d) in attrs[4..6].iter().zip([acc, out]) {
            all.push(self.attr(p, |_| Some(Attr::DType(d)))?);
        }
        self.add(op, &all, &[x, y])
    }

    /// The dtype that products are summed in, and that of the result.
    fn sum_dtypes(&mut self) -> (DType, DType) {
        let acc = match self.dtype {
            d if d.is_float() => d.compute(),
            DType::I8 | DType::U8 | DType::I16 => self.pick(&[DType::I32, self.dtype]),
            d => d,
        };
        (
            acc,
            if acc == self.dtype || self.chance(70) {
                self.dtype
            } else {
                acc
            },
        )
    }

    /// Spatial attributes and extents: (kernel, strides, dilations, low, high, extents).
    pub(super) fn windows(&mut self, n: usize) -> [Vec<i64>; 6] {
        let (unit, plain, dense) = (self.chance(40), self.chance(50), self.chance(50));
        let mut out: [Vec<i64>; 6] = Default::default();
        for _ in 0..n {
            let k = if unit { 1 } else { 1 + self.below(3) as i64 };
            let d = if dense { 1 } else { 1 + self.below(2) as i64 };
            let s = if dense && self.chance(50) {
                1
            } else {
                1 + self.below(2) as i64
            };
            let (l, h) = if plain {
                (0, 0)
            } else {
                (self.below(3) as i64, self.below(2) as i64)
            };
            let covered = (k - 1) * d + 1;
            let x = (covered - l - h).max(1) + self.below(4) as i64;
            for (v, e) in out.iter_mut().zip([k, s, d, l, h, x]) {
                v.push(e);
            }
        }
        out
    }

    pub(super) fn conv(&mut self, op: OpId, attrs: &[Pat], operands: &[Pat]) -> Option<Value> {
        let n = 1 + self.below(2);
        let [k, s, d, l, h, x] = self.windows(n);
        let last = self.attr(&attrs[5], |r| Some(Attr::Bool(r.chance(50))))?;
        let groups = self.attr(&attrs[4], |r| Some(Attr::Int(r.pick(&[1, 1, 2, 3]))))?;
        let (Attr::Bool(last), Attr::Int(g)) = (last, groups) else {
            return None;
        };
        let (c, o) = (1 + self.below(3) as i64, g * (1 + self.below(3) as i64));
        let batch = 1 + self.below(2) as i64;
        let (xs, ws) = if last {
            ([&[batch][..], &x, &[g * c]].concat(), [&k[..], &[c, o]].concat())
        } else {
            ([&[batch, g * c][..], &x].concat(), [&[o, c][..], &k].concat())
        };
        let ty = |v: &[i64]| Type::new(self.dtype, v.iter().map(|&e| Dim::Const(e)).collect::<Vec<_>>());
        let (xs, ws) = (ty(&xs), ty(&ws));
        let x = self.pattern(&operands[0], Some(&xs))?;
        let w = self.pattern(&operands[1], Some(&ws))?;
        let (acc, out) = self.sum_dtypes();
        let drawn = [
            Attr::Ints(s),
            Attr::Ints(d),
            Attr::dims(&l),
            Attr::dims(&h),
            Attr::Int(g),
            Attr::Bool(last),
            Attr::DType(acc),
            Attr::DType(out),
        ];
        let all: Option<Vec<Attr>> = attrs
            .iter()
            .zip(drawn)
            .map(|(p, a)| self.attr(p, |_| Some(a)))
            .collect();
        self.add(op, &all?, &[x, w])
    }

    pub(super) fn conv_transpose(&mut self, op: OpId, attrs: &[Pat], operands: &[Pat]) -> Option<Value> {
        let n = 1 + self.below(2);
        let [k, mut s, mut d, mut l, mut h, x] = self.windows(n);
        let mut extra = vec![0; n];
        if self.chance(60) {
            s.clone_from(&k);
            for v in [&mut l, &mut h] {
                v.fill(0);
            }
            d.fill(1);
        } else if self.chance(50) {
            extra = s.iter().map(|s| s - 1).collect();
        }
        let groups = self.attr(&attrs[5], |r| Some(Attr::Int(r.pick(&[1, 2]))))?;
        let Attr::Int(g) = groups else { return None };
        let (c, o, batch) = (
            1 + self.below(3) as i64,
            1 + self.below(3) as i64,
            1 + self.below(2) as i64,
        );
        let ty = |v: Vec<i64>| Type::new(self.dtype, v.iter().map(|&e| Dim::Const(e)).collect::<Vec<_>>());
        let (xs, ws) = (
            ty([&[batch, g * c][..], &x].concat()),
            ty([&[g * c, o][..], &k].concat()),
        );
        let x = self.pattern(&operands[0], Some(&xs))?;
        let w = self.pattern(&operands[1], Some(&ws))?;
        let (acc, out) = self.sum_dtypes();
        let drawn = [
            Attr::Ints(s),
            Attr::Ints(d),
            Attr::dims(&l),
            Attr::dims(&h),
            Attr::Ints(extra),
            Attr::Int(g),
            Attr::DType(acc),
            Attr::DType(out),
        ];
        let all: Option<Vec<Attr>> = attrs
            .iter()
            .zip(drawn)
            .map(|(p, a)| self.attr(p, |_| Some(a)))
            .collect();
        self.add(op, &all?, &[x, w])
    }

    pub(super) fn pool(&mut self, op: OpId, attrs: &[Pat], operands: &[Pat]) -> Option<Value> {
        let n = 1 + self.below(2);
        let [mut k, s, mut d, mut l, mut h, x] = self.windows(n);
        if self.chance(40) {
            k.clone_from(&x);
            for v in [&mut l, &mut h] {
                v.fill(0);
            }
            d.fill(1);
        }
        let last = self.attr(&attrs[7], |r| Some(Attr::Bool(r.chance(50))))?;
        let Attr::Bool(last) = last else { return None };
        let (c, batch) = (1 + self.below(3) as i64, 1 + self.below(2) as i64);
        let xs = if last {
            [&[batch][..], &x, &[c]].concat()
        } else {
            [&[batch, c][..], &x].concat()
        };
        let xs = Type::new(self.dtype, xs.iter().map(|&e| Dim::Const(e)).collect::<Vec<_>>());
        let sizes: Vec<i64> = (0..n)
            .map(|i| (x[i] + l[i] + h[i] - ((k[i] - 1) * d[i] + 1)).max(0) / s[i] + 1)
            .collect();
        let x = self.pattern(&operands[0], Some(&xs))?;
        let drawn = [
            Attr::word(if self.chance(50) { "max" } else { "sum" }),
            Attr::Ints(k),
            Attr::Ints(s),
            Attr::Ints(d),
            Attr::dims(&l),
            Attr::dims(&h),
            Attr::dims(&sizes),
            Attr::Bool(last),
        ];
        let all: Option<Vec<Attr>> = attrs
            .iter()
            .zip(drawn)
            .map(|(p, a)| self.attr(p, |_| Some(a)))
            .collect();
        self.add(op, &all?, &[x])
    }
}
