//! Stages that only copy, seen as addresses.
//!
//! ```text
//! stage parallel(16, 8) { read o1[i0, i1] … write o2[i0, i1 + 24] }    all of o1 goes to a part of o2, row by row
//! ```

use brolga_ir::index::{Ix, Var};
use brolga_ir::structured::{Kernel, Place, Read, Role, Stage};
use brolga_ir::{Dim, dim};

/// A stage that copies elements of one operand to another.
pub(super) struct Copying {
    /// From this operand.
    pub from: usize,
    /// To this one.
    pub to: usize,
    /// The extents of what is copied.
    pub shape: Vec<Dim>,
    /// Where an element goes, one coordinate a dimension of `to`, over a variable for each extent.
    pub map: Vec<Ix>,
    /// Where it comes from, one coordinate a dimension of `from`.
    pub read_map: Vec<Ix>,
    /// The address that an element is read at.
    read: Ix,
    /// The address that it is written to.
    write: Ix,
    /// The address that it has in a tensor of just these extents.
    own: Ix,
}

/// From which operand to which a stage copies, when it does nothing else: what is asked before all of [`Copying::of`] is.
pub(super) fn ends(s: &Stage) -> Option<(usize, usize)> {
    match (&s.reads[..], &s.writes[..]) {
        (
            [
                Read::Element {
                    place: Place::Operand(from),
                    ..
                },
            ],
            [(Place::Operand(to), _)],
        ) if s.body.insts.is_empty() => Some((*from as usize, *to as usize)),
        _ => None,
    }
}

impl Copying {
    /// What a stage copies, when it does nothing else.
    pub fn of(k: &Kernel, s: &Stage) -> Option<Copying> {
        let plain = !s.scan && !s.scatter && s.combine.is_none() && s.checks.is_empty() && s.body.insts.is_empty();
        let (
            [
                Read::Element {
                    place: Place::Operand(from),
                    map: read,
                    guard,
                    ..
                },
            ],
            [(Place::Operand(to), map)],
        ) = (&s.reads[..], &s.writes[..])
        else {
            return None;
        };
        if !plain || !guard.is_empty() || !s.body.outputs.iter().eq([&brolga_ir::scalar::V(0)]) {
            return None;
        }
        let shape: Vec<Dim> = k
            .outer
            .iter()
            .chain(s.dims.iter().map(|d| &d.extent))
            .cloned()
            .collect();
        let (from, to) = (*from as usize, *to as usize);
        let [source, result] = [from, to].map(|o| &k.operands[o]);
        if !source.layout.is_row_major() || !result.layout.is_row_major() || source.role != Role::In {
            return None;
        }
        let all = identity(&shape);
        let plain = |map: &[Ix]| map.iter().map(|ix| without_units(ix, &shape)).collect::<Vec<Ix>>();
        let (read_map, map) = (plain(read), plain(map));
        let read = address(read, &source.ty.shape, &shape);
        let write = address(&map, &result.ty.shape, &shape);
        let affine = |ix: &Ix| (0..shape.len() as u32).all(|v| ix.stride(Var(v)).is_some());
        (affine(&read) && affine(&write)).then(|| Copying {
            from,
            to,
            map,
            read_map,
            own: address(&all, &shape, &shape),
            read,
            write,
            shape,
        })
    }

    /// The copy of a whole tensor to places of a larger one.
    pub fn whole(shape: &[Dim], to: &[Dim], map: Vec<Ix>) -> Copying {
        let all = identity(shape);
        let own = address(&all, shape, shape);
        Copying {
            from: 0,
            to: 0,
            shape: shape.to_vec(),
            write: address(&map, to, shape),
            map,
            read_map: all,
            read: own.clone(),
            own,
        }
    }

    /// True when every element of the source is copied, in order.
    pub fn takes_all(&self, k: &Kernel) -> bool {
        self.read == self.own && k.operands[self.from].ty.len() == dim::product(&self.shape)
    }

    /// True when every element of the result is written, in order.
    pub fn fills_all(&self, k: &Kernel) -> bool {
        self.write == self.own && k.operands[self.to].ty.len() == dim::product(&self.shape)
    }

    /// From which element of the result on the copy lies, where that is one contiguous range.
    pub fn lies_at(&self) -> Option<Dim> {
        (self.write.terms == self.own.terms).then(|| &self.write.offset - &self.own.offset)
    }

    /// From which element of the source on what is copied lies, where that is one contiguous range.
    pub fn comes_from(&self) -> Option<Dim> {
        (self.read.terms == self.own.terms).then(|| &self.read.offset - &self.own.offset)
    }

    /// True when every element is copied to the address that it has in the source.
    pub fn stays(&self) -> bool {
        self.read == self.write
    }

    /// How many elements lie next to each other in the result, where it is known.
    pub fn run(&self) -> Option<i64> {
        let mut run = 1;
        for (v, d) in self.shape.iter().enumerate().rev() {
            let stride = self.write.stride(Var(v as u32))?;
            if !d.is(1) && !stride.is(run) {
                break;
            }
            run = run.checked_mul(d.as_const()?)?;
        }
        Some(run)
    }
}

/// A point itself, as a map.
fn identity(shape: &[Dim]) -> Vec<Ix> {
    (0..shape.len() as u32).map(|v| Ix::var(Var(v))).collect()
}

/// The row-major position that a map leads to, over variables of some extents; those of a single point are 0.
fn address(map: &[Ix], shape: &[Dim], extents: &[Dim]) -> Ix {
    let whole = map
        .iter()
        .zip(shape)
        .fold(Ix::constant(0), |f, (ix, d)| &f.scale(d) + ix);
    without_units(&whole, extents)
}

/// An index where variables of a single point are 0.
fn without_units(ix: &Ix, extents: &[Dim]) -> Ix {
    let at = |v: Var| match extents.get(v.0 as usize) {
        Some(d) if d.is(1) => Ix::constant(0),
        _ => Ix::var(v),
    };
    ix.substitute(&at, &Ix::reg)
}
