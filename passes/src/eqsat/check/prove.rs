//! Proofs for all shapes, of rules that only move elements or compute the same of each.
//!
//! For fixed ranks a left side is made with symbols for extents and for other integers that may be symbolic, once for every choice of
//! what is no symbol: ranks, permutations, axes, lengths of lists, steps ([`case`]). The right side is made by the rule's own text and its own
//! attribute functions. Both sides then become what they are at one point of the result: an element of an operand, where a guard
//! holds, or a number, under functions of scalars ([`element`]). Where these are the same, so are the sides.
//!
//! ```text
//! (transpose ?p (broadcast ?s ?x))          element (i0, i1) of the result, for ?p = [1 0] and ?x of the extents [n0 1]:
//! (broadcast (permute ?p ?s) (transpose …))   x[i1, 0]  =  x[i1, 0]
//! ```
//!
//! Invariant: a proof covers every instance of these ranks on which the rule matches. What is known of a condition may leave choices
//! out only where it does so for all values of the symbols; other conditions are not used, and the sides have to be the same without.
//! Where the argument would need more than this, there is no proof, and the rule is tested: functions that look at extents
//! (those that are not marked `Uniform`), operators that compute more than element by element, arithmetic that is not the same operations.

use crate::eqsat::choices::Choices;
use crate::eqsat::rules::{Law, Rule};
use case::{Case, Stop};
pub use case::{INTEGERS, Limits};
use std::fmt;

mod case;
mod element;
mod equations;
mod scalar;
pub mod smt2;
mod term;
#[cfg(test)]
mod tests;

/// The highest ranks of streams, the most that are tried first: where that takes too many cases, fewer.
const RANKS: [usize; 3] = [5, 4, 3];

/// The most cases that are gone through.
const MOST_CASES: usize = 20_000;

/// What was proved of a rule.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Proof {
    /// The highest rank of a stream.
    pub rank: usize,
    /// The cases that were gone through, each for all extents.
    pub cases: usize,
    /// What else it is limited to.
    pub limits: Limits,
}

impl Proof {
    /// Limited to what a case is, too.
    fn with(mut self, limits: Limits) -> Proof {
        self.limits.integers |= limits.integers;
        self.limits.rest = self.limits.rest.or(limits.rest);
        self
    }
}

impl fmt::Display for Proof {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "for ranks to {} and all extents", self.rank)?;
        if self.limits.integers {
            let [least, .., most] = INTEGERS;
            write!(f, ", steps and the like from {least} to {most}")?;
        }
        match self.limits.rest {
            Some(n) => write!(f, ", lists of up to {n} more"),
            None => Ok(()),
        }
    }
}

/// A proof of a rule; `None` where there is none.
pub fn prove(rule: &Rule) -> Option<Proof> {
    let law = rule.law.as_ref()?;
    for rank in RANKS {
        match holds(law, rank) {
            Ok(proof) => return Some(proof).filter(|p| p.cases > 0),
            Err(Failed::TooMany) => {}
            Err(Failed::Unproved) => return None,
        }
    }
    None
}

/// Why there is no proof for ranks up to one.
enum Failed {
    /// There are too many cases.
    TooMany,
    /// One is not proved.
    Unproved,
}

/// The proof for streams of ranks up to one.
fn holds(law: &Law, rank: usize) -> Result<Proof, Failed> {
    let mut choices = Choices::default();
    let mut proof = Proof {
        rank,
        cases: 0,
        limits: Limits::default(),
    };
    for _ in 0..MOST_CASES {
        match Case::prove(law, rank, &mut choices) {
            Ok(limits) => {
                proof.cases += 1;
                proof = proof.with(limits);
            }
            Err(Stop::Impossible) => {}
            Err(Stop::Unproved) => return Err(Failed::Unproved),
        }
        if !choices.next() {
            return Ok(proof);
        }
    }
    Err(Failed::TooMany)
}
