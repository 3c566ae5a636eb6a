//! What both sides of a case are at a point of the result, and whether that is the same.
//!
//! An element of an operand is told by its position in row-major order, a polynomial over the point and the symbols: a reshape keeps it. Where
//! a reshape's result is indexed dim by dim, the position is taken apart only where the dims other than 1 are the same ones; else its
//! digits are unknowns, which belong to that position and that shape, and put together again are that position.

use super::case::Case;
use super::scalar;
use super::term::{Id, Kind, Scalar, of_shape};
use brolga_ir::index::{Bound, Ix, Term, Var};
use brolga_ir::ops::Coordinate;
use brolga_ir::{DType, Dim, Number, Type};

/// What a term is at a point.
#[derive(Clone)]
pub(super) enum Element {
    /// An element of a variable's stream, by its position; the dtype.
    Of(usize, Ix, usize),
    /// The number that a variable's stream is everywhere; the dtype.
    NumberOf(usize, usize),
    /// A number, converted to the dtype.
    Number(Number, usize),
    /// A function of elements.
    Map(Scalar, Vec<Element>),
    /// The first where the bounds hold, else the second.
    Where(Vec<Bound>, Box<Element>, Box<Element>),
}

impl PartialEq for Element {
    fn eq(&self, other: &Element) -> bool {
        use Element::*;
        match (self, other) {
            (Of(v, at, d), Of(w, to, e)) => v == w && at == to && d == e,
            (NumberOf(v, d), NumberOf(w, e)) => v == w && d == e,
            (Number(x, d), Number(y, e)) => {
                d == e && x == y && x.f64().is_sign_negative() == y.f64().is_sign_negative()
            }
            (Map(f, x), Map(g, y)) => f.name() == g.name() && x == y,
            (Where(b, x, y), Where(c, z, w)) => {
                b.len() == c.len() && b.iter().all(|b| c.contains(b)) && x == z && y == w
            }
            _ => false,
        }
    }
}

/// A place in a term: dim by dim, and in row-major order.
#[derive(Clone)]
struct Place {
    each: Vec<Ix>,
    flat: Ix,
}

/// Positions that were taken apart: of which shape, what the digits are.
#[derive(Default)]
struct Digits {
    known: Vec<(Ix, Vec<Dim>, Vec<Ix>)>,
    /// Positions that data tell: of which element.
    indexed: Vec<(Element, Dim, Ix)>,
    vars: u32,
}

/// Whether two terms of one shape are equal at every point.
pub(super) fn same(case: &Case, left: Id, right: Id) -> bool {
    let shape = &case.terms[left].shape;
    let mut walk = Walk {
        case,
        digits: Digits {
            vars: shape.len() as u32,
            ..Digits::default()
        },
        within: vec![],
        cut: vec![],
        is_right: false,
    };
    let each: Vec<Ix> = (0..shape.len() as u32).map(|d| Ix::var(Var(d))).collect();
    for (index, extent) in each.iter().zip(shape) {
        let (index, extent) = (index.clone(), extent.clone());
        walk.within.push(Bound { index, extent });
    }
    let place = walk.place(each, shape);
    // The left side is valid; what it cuts out, the right side may.
    let Some(l) = walk.element(left, &place) else {
        return false;
    };
    walk.is_right = true;
    let Some(r) = walk.element(right, &place) else {
        return false;
    };
    let (l, r) = (simple(l, &walk.within), simple(r, &walk.within));
    l == r || scalar::same(&l, &r)
}

struct Walk<'c, 'l> {
    case: &'c Case<'l>,
    digits: Digits,
    /// What every index is within.
    within: Vec<Bound>,
    /// What indices are within that the left side's slices read.
    cut: Vec<Bound>,
    is_right: bool,
}

impl Walk<'_, '_> {
    /// A place by its indices; along an extent of 1 these are 0.
    fn place(&self, each: Vec<Ix>, shape: &[Dim]) -> Place {
        let zero = |(ix, n): (Ix, &Dim)| if n.is(1) { Ix::constant(0) } else { ix };
        let each: Vec<Ix> = each.into_iter().zip(shape).map(zero).collect();
        let digits = self
            .digits
            .known
            .iter()
            .find(|(_, s, digits)| s == shape && *digits == each);
        let flat = match digits {
            Some((flat, ..)) => flat.clone(),
            None => each
                .iter()
                .zip(shape)
                .fold(Ix::constant(0), |flat, (ix, n)| &flat.scale(n) + ix),
        };
        Place { each, flat }
    }

    /// The place in a shape of a position in another shape of as many elements.
    fn reshaped(&mut self, at: &Place, from: &[Dim], to: &[Dim]) -> Place {
        let wide = |s: &[Dim]| -> Vec<usize> { (0..s.len()).filter(|&d| !s[d].is(1)).collect() };
        let (a, b) = (wide(from), wide(to));
        let mut each = vec![Ix::constant(0); to.len()];
        if a.len() == b.len() && a.iter().zip(&b).all(|(&d, &e)| from[d] == to[e]) {
            a.iter().zip(&b).for_each(|(&d, &e)| each[e] = at.each[d].clone());
        } else if let Some((.., digits)) = self.digits.known.iter().find(|(f, s, _)| *f == at.flat && *s == to) {
            each.clone_from(digits);
        } else {
            for &d in &b {
                each[d] = self.unknown();
                let (index, extent) = (each[d].clone(), to[d].clone());
                self.within.push(Bound { index, extent });
            }
            self.digits.known.push((at.flat.clone(), to.to_vec(), each.clone()));
        }
        let flat = at.flat.clone();
        Place { each, flat }
    }

    fn unknown(&mut self) -> Ix {
        self.digits.vars += 1;
        Ix::var(Var(self.digits.vars - 1))
    }

    fn element(&mut self, id: Id, at: &Place) -> Option<Element> {
        let case = self.case;
        let term = &case.terms[id];
        let dtype = case.dtypes.find(term.dtype);
        Some(match &term.kind {
            Kind::Leaf(v) => Element::Of(*v, at.flat.clone(), dtype),
            Kind::NumberOf(v) => Element::NumberOf(*v, dtype),
            Kind::Number(x) => Element::Number(*x, dtype),
            Kind::Map(f, operands) => {
                let operands = operands.iter().map(|&o| {
                    let shape = &case.terms[o].shape;
                    // Types that are equal in ways that are not known are gone through dim by dim.
                    match *shape == term.shape {
                        true => self.element(o, at),
                        false => self.element(o, &self.place(at.each.clone(), shape)),
                    }
                });
                Element::Map(f.clone(), operands.collect::<Option<_>>()?)
            }
            Kind::Move(op, m, x) => {
                let from = &case.terms[*x].shape;
                let access = m.source(op, &of_shape(from), &of_shape(&term.shape), &at.each);
                if !m.fills() && !m.spreads() && m.permutation(op).is_none() && !self.may_cut(&access.at, from) {
                    return None;
                }
                let place = self.place(access.at, from);
                let inner = self.element(*x, &place)?;
                match m.fills() {
                    true => {
                        let fill = Element::Number(m.fill(op), dtype);
                        Element::Where(access.guard, Box::new(inner), Box::new(fill))
                    }
                    false if access.guard.is_empty() => inner,
                    false => return None,
                }
            }
            Kind::Reshape(x) => {
                let place = self.reshaped(at, &term.shape, &case.terms[*x].shape);
                self.element(*x, &place)?
            }
            Kind::Concat(axis, operands) => {
                let mut offset = Dim::ZERO;
                let mut parts = vec![];
                for &o in operands {
                    let shape = &case.terms[o].shape;
                    let mut each = at.each.clone();
                    each[*axis] = &each[*axis] + &(&Dim::ZERO - &offset);
                    let bound = Bound {
                        index: each[*axis].clone(),
                        extent: shape[*axis].clone(),
                    };
                    offset = &offset + &shape[*axis];
                    let place = self.place(each, shape);
                    parts.push((bound, self.element(o, &place)?));
                }
                let (_, last) = parts.pop()?;
                parts.into_iter().rev().fold(last, |rest, (bound, part)| {
                    Element::Where(vec![bound], Box::new(part), Box::new(rest))
                })
            }
            Kind::Gather(op, g, data, indices) => {
                let (from, by) = (&case.terms[*data].shape, &case.terms[*indices].shape);
                let types = [of_shape(from), Type::new(DType::I64, by.clone())];
                let coordinates = g.coordinates(op, &types, &at.each).ok()?;
                let mut each = vec![];
                for (d, c) in coordinates.into_iter().enumerate() {
                    each.push(match c {
                        Coordinate::At(ix) => ix,
                        Coordinate::Indexed(place) => {
                            let place = self.place(place, by);
                            let index = self.element(*indices, &place)?;
                            self.indexed(index, &from[d])
                        }
                    });
                }
                let place = self.place(each, from);
                self.element(*data, &place)?
            }
        })
    }

    /// Whether a slice may read there: types do not tell where its start is a symbol. On the right the left side has to read there, too.
    fn may_cut(&mut self, at: &[Ix], from: &[Dim]) -> bool {
        let mut bounds = at.iter().zip(from).map(|(index, extent)| Bound {
            index: index.clone(),
            extent: extent.clone(),
        });
        if self.is_right {
            return bounds.all(|b| self.within.contains(&b) || self.cut.contains(&b));
        }
        self.cut.extend(bounds);
        true
    }

    /// The position along an extent that an element tells.
    fn indexed(&mut self, index: Element, extent: &Dim) -> Ix {
        let known = self.digits.indexed.iter().find(|(e, n, _)| *e == index && n == extent);
        if let Some((.., ix)) = known {
            return ix.clone();
        }
        let ix = self.unknown();
        self.digits.indexed.push((index, extent.clone(), ix.clone()));
        ix
    }
}

/// An element without bounds that hold anyway; one choice inside of another with the same alternative is one.
fn simple(e: Element, within: &[Bound]) -> Element {
    match e {
        Element::Map(f, operands) => Element::Map(f, operands.into_iter().map(|o| simple(o, within)).collect()),
        Element::Where(bounds, then, other) => {
            let other = simple(*other, within);
            let then = simple(*then, &[within, &bounds].concat());
            let (mut bounds, then) = match then {
                Element::Where(more, inner, last) if *last == other => ([bounds, more].concat(), *inner),
                then => (bounds, then),
            };
            let mut at = 0;
            while at < bounds.len() {
                let others = [&bounds[..at], &bounds[at + 1..], within].concat();
                let others = [placed(&others), others].concat();
                match others.iter().any(|b| implies(b, &bounds[at])) {
                    true => drop(bounds.remove(at)),
                    false => at += 1,
                }
            }
            match bounds.is_empty() || then == other {
                true => then,
                false => Element::Where(bounds, Box::new(then), Box::new(other)),
            }
        }
        e => e,
    }
}

/// What follows where an index is a multiple of a number: `e mod k` is 0 and `e / k` below `n`, so that `e` is at most `k·(n - 1)`.
fn placed(bounds: &[Bound]) -> Vec<Bound> {
    let only = |b: &Bound| match &b.index.terms[..] {
        [(term, c)] if c.is(1) && b.index.offset.is(0) => Some(term.clone()),
        _ => None,
    };
    let quotients = bounds.iter().filter_map(|b| match only(b)? {
        Term::Div(e, k) if k.is_at_least(1) => Some((e, k, &b.extent)),
        _ => None,
    });
    let multiple = |e: &Ix, k: &Dim| {
        let is = |b: &Bound| b.extent.is(1) && only(b) == Some(Term::Mod(Box::new(e.clone()), k.clone()));
        bounds.iter().any(is)
    };
    let multiples = quotients.filter(|(e, k, _)| multiple(e, k));
    let bound = |(e, k, n): (Box<Ix>, Dim, &Dim)| Bound {
        index: *e,
        extent: &(&k * &(n - &Dim::ONE)) + 1,
    };
    multiples.map(bound).collect()
}

/// Whether one bound follows from another.
fn implies(known: &Bound, wanted: &Bound) -> bool {
    let away = &wanted.index + &known.index.scale(&Dim::Const(-1));
    let Some(away) = away.as_dim() else { return false };
    away.is_at_least(0) && (&known.extent + away).at_most(&wanted.extent)
}
