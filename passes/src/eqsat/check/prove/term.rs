//! The terms of a case: both sides of a rule with symbols for extents.

use brolga_ir::ops::{Gather, Movement, Op};
use brolga_ir::scalar::Function;
use brolga_ir::{DType, Dim, Number, Type};

/// The position of a term.
pub(super) type Id = usize;

/// The dtypes of terms, as far as they have to be equal: each is a position, which may stand for another one.
#[derive(Default)]
pub(super) struct Dtypes(Vec<usize>);

impl Dtypes {
    /// A dtype that nothing is known of.
    pub fn fresh(&mut self) -> usize {
        self.0.push(self.0.len());
        self.0.len() - 1
    }
    /// What a dtype stands for.
    pub fn find(&self, mut d: usize) -> usize {
        while self.0[d] != d {
            d = self.0[d];
        }
        d
    }
    /// Makes two the same.
    pub fn join(&mut self, a: usize, b: usize) {
        let (a, b) = (self.find(a), self.find(b));
        self.0[a.max(b)] = a.min(b);
    }
}

/// What is computed element by element.
#[derive(Clone)]
pub(super) enum Scalar {
    /// A function of the table, with the dtype that a cast makes.
    Known(&'static Function, Option<DType>),
    /// Any operator of a family.
    Any(usize),
}

impl Scalar {
    /// What tells it from others.
    pub fn name(&self) -> String {
        match self {
            Scalar::Known(f, to) => format!("{} {to:?}", f.name),
            Scalar::Any(family) => format!("family {family}"),
        }
    }
}

/// What a term is.
pub(super) enum Kind {
    /// A stream that a variable stands for.
    Leaf(usize),
    /// The number that a variable's stream is everywhere.
    NumberOf(usize),
    /// A number of the text.
    Number(Number),
    Map(Scalar, Vec<Id>),
    Move(Op, &'static dyn Movement, Id),
    Reshape(Id),
    Concat(usize, Vec<Id>),
    Gather(Op, &'static dyn Gather, Id, Id),
}

/// A term with its type.
pub(super) struct Term {
    pub kind: Kind,
    pub shape: Vec<Dim>,
    pub dtype: usize,
}

/// A type with these extents, for what does not depend on the dtype.
pub(super) fn of_shape(shape: &[Dim]) -> Type {
    Type::new(DType::F32, shape)
}
