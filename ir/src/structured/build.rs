//! Building stages, for operators that bring their kernels along.

use super::{Combine, IterDim, IterKind, Place, Read, Stage};
use crate::index::{Bound, Ix};
use crate::scalar::{Body, Builder, V};
use crate::{DType, Dim};

/// The reads of a stage, in order: the inputs of its body.
#[derive(Clone, Default, Debug)]
pub struct Reads {
    all: Vec<Read>,
    dtypes: Vec<DType>,
}

impl Reads {
    /// Adds a read of a dtype; gives its position.
    pub fn add(&mut self, read: Read, dtype: DType) -> usize {
        self.all.push(read);
        self.dtypes.push(dtype);
        self.all.len() - 1
    }

    /// Adds an element; gives its position.
    pub fn element(&mut self, place: Place, map: Vec<Ix>, dtype: DType) -> usize {
        self.guarded(place, map, vec![], dtype)
    }

    /// Adds an element that is 0 where bounds do not hold; gives its position.
    pub fn guarded(&mut self, place: Place, map: Vec<Ix>, guard: Vec<Bound>, dtype: DType) -> usize {
        let read = Read::Element {
            place,
            map,
            guard,
            fill: 0,
        };
        self.add(read, dtype)
    }

    /// A builder of the stage's body.
    pub fn body(&self) -> Builder {
        Builder::new(&self.dtypes)
    }
}

/// A primitive of two values.
pub type Binary = fn(&mut Builder, V, V) -> V;

/// A dimension of independent points.
pub fn parallel(extent: &Dim) -> IterDim {
    IterDim {
        extent: extent.clone(),
        kind: IterKind::Parallel,
    }
}

/// A dimension that is reduced.
pub fn reduction(extent: &Dim) -> IterDim {
    IterDim {
        extent: extent.clone(),
        kind: IterKind::Reduction,
    }
}

/// A stage without a combiner.
pub fn map(dims: Vec<IterDim>, reads: Reads, body: Body, writes: Vec<(Place, Vec<Ix>)>) -> Stage {
    Stage {
        dims,
        guard: vec![],
        reads: reads.all,
        checks: vec![],
        body,
        combine: None,
        writes,
        scan: false,
        scatter: false,
    }
}

/// How a stage combines what its body gives.
pub struct Reduction {
    /// The bits that it starts from.
    pub init: u64,
    /// What was combined so far, and one value more.
    pub combine: Binary,
    /// Two parts that were combined.
    pub merge: Binary,
}

/// A stage that combines what its body gives over its reduction dimensions, in any order.
pub fn reduce(dims: Vec<IterDim>, reads: Reads, body: Body, by: Reduction, write: (Place, Vec<Ix>)) -> Stage {
    let dtype = body.output_dtypes()[0];
    Stage {
        combine: Some(Combine {
            init: vec![by.init],
            body: binary(dtype, by.combine),
            free: true,
            merge: binary(dtype, by.merge),
        }),
        ..map(dims, reads, body, vec![write])
    }
}

/// A stage that sums products of its two reads.
pub fn products(dims: Vec<IterDim>, reads: Reads, write: (Place, Vec<Ix>)) -> Stage {
    let body = binary(reads.dtypes[0], Builder::mul);
    let sum = Reduction {
        init: 0,
        combine: Builder::add,
        merge: Builder::add,
    };
    reduce(dims, reads, body, sum, write)
}

/// A body of one function of two values.
fn binary(dtype: DType, f: Binary) -> Body {
    let mut b = Builder::new(&[dtype; 2]);
    let (x, y) = (b.input(0), b.input(1));
    let out = f(&mut b, x, y);
    b.finish(&[out])
}
