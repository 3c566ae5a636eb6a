//! Padding that is laid out by who computes the tensor: its kernel writes between the margins, another one fills these.
//!
//! ```text
//! call @conv_1(s0, s1)              call @conv_1_part(s0, s2)      … write o1[i0, i1 + 1, i2 + 1]
//! call @pad_2(s1, s2)      -->      call @pad_2_part(s2)           … write o0[i0, 0, i2], …
//! ```

use super::copies::{only_moves, without_units};
use brolga_ir::index::{Ix, Var};
use brolga_ir::scalar::{Body, Inst, V};
use brolga_ir::structured::build::{self, Reads};
use brolga_ir::structured::{Kernel, Part, Place, Read, Role, Stage};
use brolga_ir::{DType, Dim};
use std::cmp::Ordering;

/// What a kernel that only pads does.
pub(super) struct Padding {
    /// The operand that is padded.
    pub from: usize,
    /// The result.
    pub to: usize,
    /// Elements before the operand's along each axis.
    low: Vec<Dim>,
    /// Bits of the elements around.
    fill: u64,
}

impl Padding {
    /// What a kernel pads, when it does nothing else. Both tensors have one rank and layout, and no margin is negative.
    pub fn of(k: &Kernel) -> Option<Padding> {
        let [Part::Stage(s)] = &k.parts[..] else { return None };
        let (
            [
                Read::Element {
                    place: Place::Operand(from),
                    map: read,
                    guard,
                    fill,
                },
            ],
            [(Place::Operand(to), write)],
        ) = (&s.reads[..], &s.writes[..])
        else {
            return None;
        };
        if !only_moves(s) || guard.is_empty() || k.schedule.is_some() {
            return None;
        }
        let (source, result) = (&k.operands[*from as usize], &k.operands[*to as usize]);
        if source.layout != result.layout || source.ty.rank() != result.ty.rank() || source.role != Role::In {
            return None;
        }
        let extents: Vec<Dim> = k
            .outer
            .iter()
            .chain(s.dims.iter().map(|d| &d.extent))
            .cloned()
            .collect();
        let plain = |ix: &Ix| without_units(ix, &extents);
        let (read, write): (Vec<Ix>, Vec<Ix>) = (read.iter().map(plain).collect(), write.iter().map(plain).collect());
        let guard: Vec<(Ix, &Dim)> = guard.iter().map(|b| (plain(&b.index), &b.extent)).collect();
        let zero = Ix::constant(0);
        let low = |a: usize| {
            let (size, all, from, to) = (&source.ty.shape[a], &result.ty.shape[a], &read[a], &write[a]);
            let low = match to.terms.is_empty() {
                // A single element, which is the operand's.
                true => (all.is(1) && *from == zero).then_some(Dim::ZERO)?,
                false => &to.offset - &from.offset,
            };
            let all_points = (0..).zip(&extents).any(|(v, d)| *to == Ix::var(Var(v)) && d == all);
            let shifts = to.terms.is_empty() || (all_points && from.terms == to.terms);
            let fits = low.is_at_least(0) && (&low + size).at_most(all);
            let guarded = guard.iter().any(|(index, extent)| index == from && *extent == size);
            (shifts && fits && (guarded || size == all)).then_some(low)
        };
        let low: Vec<Dim> = (0..read.len()).map(low).collect::<Option<_>>()?;
        let of_axis = |(index, extent): &(Ix, &Dim)| {
            let mut axes = read.iter().zip(&source.ty.shape);
            axes.any(|(at, size)| index == at && *extent == size)
        };
        guard.iter().all(of_axis).then_some(Padding {
            from: *from as usize,
            to: *to as usize,
            low,
            fill: *fill,
        })
    }

    /// Where an element of the operand stands in the result, over a variable for each axis.
    pub fn map(&self) -> Vec<Ix> {
        (0..).zip(&self.low).map(|(a, low)| &Ix::var(Var(a)) + low).collect()
    }

    /// The kernel that fills the margins, whose operand is the result; `None` where there are none. Along an axis they reach as far
    /// as the result does along those that lie inside of it in memory, and the operand along those outside. Both ends of an axis
    /// are one stage where they are alike.
    pub fn margins(&self, k: &Kernel) -> Option<Kernel> {
        let (source, result) = (&k.operands[self.from].ty.shape, &k.operands[self.to]);
        let order = result.layout.order(source.len());
        let mut stages = vec![];
        for (depth, &a) in order.iter().enumerate() {
            let low = &self.low[a];
            let end = low + &source[a];
            let high = &result.ty.shape[a] - &end;
            let ends = match low == &high {
                true => vec![(Dim::Const(2), low.clone(), Dim::ZERO)],
                false => vec![(Dim::ONE, low.clone(), Dim::ZERO), (Dim::ONE, high, end.clone())],
            };
            for (count, extent, start) in ends.into_iter().filter(|(_, extent, _)| !extent.is(0)) {
                // The variables are the number of the end, then a coordinate for each axis.
                let mut map = vec![Ix::constant(0); source.len()];
                let mut extents = vec![count];
                for (v, (at, &b)) in (1..).zip(order.iter().enumerate()) {
                    let (from, size) = match at.cmp(&depth) {
                        Ordering::Less => (Ix::constant(self.low[b].clone()), &source[b]),
                        Ordering::Equal => (&Ix::var(Var(0)).scale(&end) + &start, &extent),
                        Ordering::Greater => (Ix::constant(0), &result.ty.shape[b]),
                    };
                    map[b] = &from + &Ix::var(Var(v));
                    extents.push(size.clone());
                }
                stages.push(Part::Stage(self.fills(result.ty.dtype, &extents, map)));
            }
        }
        (!stages.is_empty()).then(|| {
            let mut operand = result.clone();
            operand.role = Role::Part;
            Kernel {
                operands: vec![operand],
                outer: vec![],
                parts: stages,
                ..k.clone()
            }
        })
    }

    /// A stage that fills some places of the result.
    fn fills(&self, dtype: DType, extents: &[Dim], map: Vec<Ix>) -> Stage {
        let body = Body {
            inputs: vec![],
            insts: vec![Inst::Const(dtype, self.fill)],
            outputs: vec![V(0)],
        };
        let dims = extents.iter().map(build::parallel).collect();
        build::map(dims, Reads::default(), body, vec![(Place::Operand(0), map)])
    }
}
