//! Stages that only copy, seen as addresses.
//!
//! ```text
//! stage parallel(16, 8) { read o1[i0, i1] … write o2[i0, i1 + 24] }    all of o1 goes to a part of o2, row by row
//! ```

use brolga_ir::index::{Ix, Var};
use brolga_ir::scalar::V;
use brolga_ir::structured::{Kernel, Operand, Place, Read, Role, Stage};
use brolga_ir::{Dim, Layout, dim};

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

/// Whether a stage writes what it reads first, and does nothing else.
pub(super) fn only_moves(s: &Stage) -> bool {
    let plain = !s.scan && !s.scatter && s.combine.is_none() && s.checks.is_empty();
    plain && s.body.insts.is_empty() && s.body.outputs[..] == [V(0)]
}

impl Copying {
    /// What a stage copies, when it does nothing else.
    pub fn of(k: &Kernel, s: &Stage) -> Option<Copying> {
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
        if !only_moves(s) || !guard.is_empty() {
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
        if source.layout != result.layout || source.role != Role::In {
            return None;
        }
        let all = identity(&shape);
        let plain = |map: &[Ix]| map.iter().map(|ix| without_units(ix, &shape)).collect::<Vec<Ix>>();
        let (read_map, map) = (plain(read), plain(map));
        let read = address(read, source, &shape);
        let write = address(&map, result, &shape);
        let affine = |ix: &Ix| (0..shape.len() as u32).all(|v| ix.stride(Var(v)).is_some());
        (affine(&read) && affine(&write)).then(|| Copying {
            from,
            to,
            map,
            read_map,
            own: row_major(&all, &shape),
            read,
            write,
            shape,
        })
    }

    /// The copy of a whole tensor, laid out as a larger one, to places of that.
    pub fn whole(shape: &[Dim], to: &Operand, map: Vec<Ix>) -> Copying {
        let all = identity(shape);
        let own = row_major(&all, shape);
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

    /// Where an element of the source goes, over a variable for each axis of it; `None` where points are not its elements in
    /// some order of the axes.
    pub fn map_of_source(&self, source: &[Dim]) -> Option<Vec<Ix>> {
        let axis = |v: Var| {
            let axis = self.read_map.iter().position(|ix| *ix == Ix::var(v));
            axis.filter(|&a| source[a] == self.shape[v.0 as usize])
        };
        let all = (0..self.shape.len() as u32).all(|v| self.shape[v as usize].is(1) || axis(Var(v)).is_some());
        let to = |v: Var| axis(v).map_or(Ix::constant(0), |a| Ix::var(Var(a as u32)));
        all.then(|| self.map.iter().map(|ix| ix.substitute(&to, &Ix::reg)).collect())
    }

    /// How many elements lie next to each other in the result, at least.
    pub fn run(&self) -> i64 {
        let strides = (0..).map(|v| self.write.stride(Var(v)));
        let mut left: Vec<_> = self.shape.iter().zip(strides).filter(|(d, _)| !d.is(1)).collect();
        let mut run = 1;
        while let Some(next) = left.iter().position(|(_, s)| s.as_ref().is_some_and(|s| s.is(run))) {
            let longer = |n: i64| run.checked_mul(n).filter(|n| *n > run);
            match left.swap_remove(next).0.as_const().and_then(longer) {
                Some(longer) => run = longer,
                None => break,
            }
        }
        run
    }
}

/// A point itself, as a map.
fn identity(shape: &[Dim]) -> Vec<Ix> {
    (0..shape.len() as u32).map(|v| Ix::var(Var(v))).collect()
}

/// The place in an operand's memory that a map leads to, over variables of some extents; those of a single point are 0.
fn address(map: &[Ix], operand: &Operand, extents: &[Dim]) -> Ix {
    without_units(&operand.layout.index(map, &operand.ty.shape), extents)
}

/// The row-major place of a point among points of some extents.
fn row_major(map: &[Ix], extents: &[Dim]) -> Ix {
    without_units(&Layout::ROW_MAJOR.index(map, extents), extents)
}

/// An index where variables of a single point are 0.
pub(super) fn without_units(ix: &Ix, extents: &[Dim]) -> Ix {
    let at = |v: Var| match extents.get(v.0 as usize) {
        Some(d) if d.is(1) => Ix::constant(0),
        _ => Ix::var(v),
    };
    ix.substitute(&at, &Ix::reg)
}
