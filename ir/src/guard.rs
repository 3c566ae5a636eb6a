//! Guards: what the compiler assumes of the symbols' values. Every way to run a model checks them before it starts.
//!
//! Text: `batch == 8*n`, `5 <= n`, `b in {1, n}`, each with its reason behind it where there is one.

use crate::text::{Lexer, Result, parse_dim};
use crate::{Dim, Symbol};
use std::fmt;

/// How the two dims of a guard are related.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Relation {
    /// Both are equal.
    Equal,
    /// The left one is not larger.
    AtMost,
    /// The left one is 1 or equal to the right one: it broadcasts to it.
    Broadcasts,
}

/// A fact that the compiler assumed; types and kernels rely on it.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Guard {
    /// The left dim.
    pub left: Dim,
    /// How it is related to the right one.
    pub relation: Relation,
    /// The right dim.
    pub right: Dim,
    /// What depends on it, such as a model node; may be empty.
    pub reason: String,
}

impl Guard {
    /// A guard.
    pub fn new(left: Dim, relation: Relation, right: Dim, reason: impl Into<String>) -> Guard {
        Guard {
            left,
            relation,
            right,
            reason: reason.into(),
        }
    }

    /// The relation between numbers.
    pub fn relates(&self, left: i64, right: i64) -> bool {
        match self.relation {
            Relation::Equal => left == right,
            Relation::AtMost => left <= right,
            Relation::Broadcasts => left == 1 || left == right,
        }
    }

    /// Whether it holds, when both sides are known.
    pub fn decided(&self) -> Option<bool> {
        Some(self.relates(self.left.as_const()?, self.right.as_const()?))
    }

    /// Checks it for values of the symbols.
    ///
    /// # Errors
    /// When it does not hold, or a side has no value: what is assumed, why, and what was found.
    pub fn check(&self, lookup: &dyn Fn(&str) -> Option<i64>) -> std::result::Result<(), String> {
        let (left, right) = (self.left.eval(lookup), self.right.eval(lookup));
        match left.zip(right) {
            Some((l, r)) if self.relates(l, r) => Ok(()),
            _ => {
                let show = |v: Option<i64>| v.map_or("no number".to_string(), |v| v.to_string());
                Err(format!(
                    "{self} does not hold: found {} and {}",
                    show(left),
                    show(right)
                ))
            }
        }
    }

    /// Calls `f` with every symbol of both sides.
    pub fn for_each_symbol(&self, f: &mut dyn FnMut(&Symbol)) {
        self.left.for_each_symbol(f);
        self.right.for_each_symbol(f);
    }

    /// The guard with symbols replaced where `f` gives a dim.
    pub fn substitute(&self, f: &dyn Fn(&str) -> Option<Dim>) -> Guard {
        Guard {
            left: self.left.substitute(f),
            right: self.right.substitute(f),
            ..self.clone()
        }
    }

    /// The relation, as text that [`parse_relation`] reads back.
    pub fn relation_text(&self) -> String {
        let (l, r) = (&self.left, &self.right);
        match self.relation {
            Relation::Equal => format!("{l} == {r}"),
            Relation::AtMost => format!("{l} <= {r}"),
            Relation::Broadcasts => format!("{l} in {{1, {r}}}"),
        }
    }
}

/// For people: expressions shortened, the reason in parentheses.
impl fmt::Display for Guard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (l, r) = (self.left.brief(), self.right.brief());
        match self.relation {
            Relation::Equal => write!(f, "{l} == {r}")?,
            Relation::AtMost => write!(f, "{l} <= {r}")?,
            Relation::Broadcasts => write!(f, "{l} in {{1, {r}}}")?,
        }
        if self.reason.is_empty() {
            return Ok(());
        }
        write!(f, " ({})", self.reason)
    }
}

/// A guard without its reason.
///
/// # Errors
/// When the text is no relation of two dims.
pub fn parse_relation(l: &mut Lexer) -> Result<Guard> {
    let left = parse_dim(l)?;
    if l.eat("==") {
        return Ok(Guard::new(left, Relation::Equal, parse_dim(l)?, ""));
    }
    if l.eat("<=") {
        return Ok(Guard::new(left, Relation::AtMost, parse_dim(l)?, ""));
    }
    if !l.eat("in") {
        return Err(l.unexpected("`==`, `<=` or `in`"));
    }
    l.expect("{")?;
    let place = l.place();
    if l.int()? != 1 {
        return Err(l.error_at(place, "found another number, expected 1"));
    }
    l.expect(",")?;
    let right = parse_dim(l)?;
    l.expect("}")?;
    Ok(Guard::new(left, Relation::Broadcasts, right, ""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn relations_are_read_back_and_checked() {
        for (text, holds, fails) in [
            ("n == 2*m", (4, 2), (4, 3)),
            ("3 <= n", (3, 0), (2, 0)),
            ("n in {1, m}", (1, 5), (2, 5)),
        ] {
            let g = parse_relation(&mut Lexer::new(text)).unwrap();
            assert_eq!(g.relation_text(), text);
            let check = |(n, m): (i64, i64)| g.check(&|s| Some(if s == "n" { n } else { m }));
            assert_eq!(check(holds), Ok(()));
            let e = check(fails).unwrap_err();
            assert!(e.starts_with(&format!("{text} does not hold: found ")), "{e}");
            assert!(g.check(&|_| None).is_err(), "a dim without a value holds nothing");
            assert_eq!(g.decided(), None);
        }
        for text in ["n", "n < 3", "n in {2, m}", "n in {1, m"] {
            assert!(parse_relation(&mut Lexer::new(text)).is_err(), "{text}");
        }
    }
}
