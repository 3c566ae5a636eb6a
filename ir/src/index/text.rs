//! The text form of index expressions: `16*i0 + i1 + 3`, `(n + 1)*i0`, `div(i0, 4)`, `rem(i0 + 1, n)`, and of bounds:
//! `i0 - 1 in 0..n`.
//!
//! What is parsed is exactly what was printed: divisions are kept as they stand, not simplified again. A symbol that
//! looks like a variable or a register is a string.

use super::{Bound, Ix, Reg, Term, Var};
use crate::dim::{Dim, DimOp};
use crate::text::{Lexer, MAX_DEPTH, Result, Token, id, parse_dim};
use std::fmt;

impl fmt::Display for Ix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut first = true;
        for (t, c) in &self.terms {
            let negative = c.as_const().is_some_and(|k| k < 0);
            f.write_str(match (first, negative) {
                (true, false) => "",
                (true, true) => "-",
                (false, false) => " + ",
                (false, true) => " - ",
            })?;
            first = false;
            match c.as_const() {
                Some(1 | -1) => {}
                Some(k) => write!(f, "{}*", k.unsigned_abs())?,
                None => write!(f, "({c})*")?,
            }
            match t {
                Term::Var(v) => write!(f, "{v}")?,
                Term::Reg(r) => write!(f, "{r}")?,
                Term::Div(e, d) => write!(f, "div({e}, {d})")?,
                Term::Mod(e, d) => write!(f, "rem({e}, {d})")?,
                Term::Min(e, d) => write!(f, "least({e}, {d})")?,
            }
        }
        match self.offset.as_const() {
            Some(0) if !first => Ok(()),
            Some(k) if k < 0 && !first => write!(f, " - {}", k.unsigned_abs()),
            _ if first => write!(f, "{}", self.offset),
            _ => write!(f, " + {}", self.offset),
        }
    }
}

impl fmt::Debug for Ix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for Bound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} in 0..{}", self.index, self.extent)
    }
}

/// Bounds separated by commas, as [`parse_bounds`] reads them.
pub fn bounds_text(bounds: &[Bound]) -> String {
    let all: Vec<String> = bounds.iter().map(Bound::to_string).collect();
    all.join(", ")
}

/// An index expression, as `Display` prints it.
///
/// # Errors
/// When the text is none, or multiplies two expressions that both depend on variables.
pub fn parse_ix(l: &mut Lexer) -> Result<Ix> {
    sum(l, 0)
}

/// A bound, `i0 - 1 in 0..n`.
///
/// # Errors
/// When the text is none.
pub fn parse_bound(l: &mut Lexer) -> Result<Bound> {
    let index = parse_ix(l)?;
    l.expect("in")?;
    parse_range_start(l)?;
    Ok(Bound {
        index,
        extent: parse_dim(l)?,
    })
}

/// `(bound, bound, …)`.
///
/// # Errors
/// When the text is none.
pub fn parse_bounds(l: &mut Lexer) -> Result<Vec<Bound>> {
    l.expect("(")?;
    l.list(")", parse_bound)
}

/// The `0..` of a range.
///
/// # Errors
/// When something else is next.
pub fn parse_range_start(l: &mut Lexer) -> Result<()> {
    if l.peek() != Token::Int("0") {
        return Err(l.unexpected("`0..`"));
    }
    l.bump();
    l.expect(".")?;
    l.expect(".")
}

fn sum(l: &mut Lexer, depth: usize) -> Result<Ix> {
    if depth > MAX_DEPTH {
        return Err(l.error(format!("an index nested deeper than {MAX_DEPTH}")));
    }
    let mut sum = product(l, depth)?;
    loop {
        if l.eat("+") {
            sum = &sum + &product(l, depth)?;
        } else if l.eat("-") {
            sum = &sum + &product(l, depth)?.scale(&Dim::Const(-1));
        } else {
            return Ok(sum);
        }
    }
}

fn product(l: &mut Lexer, depth: usize) -> Result<Ix> {
    if l.eat("-") {
        return Ok(factors(l, depth)?.scale(&Dim::Const(-1)));
    }
    factors(l, depth)
}

fn factors(l: &mut Lexer, depth: usize) -> Result<Ix> {
    let mut p = factor(l, depth)?;
    while l.is("*") {
        let place = l.place();
        l.bump();
        let q = factor(l, depth)?;
        p = match (p.as_dim(), q.as_dim()) {
            (_, Some(d)) => p.scale(d),
            (Some(d), None) => q.scale(d),
            (None, None) => return Err(l.error_at(place, "a product of two variables is no index expression")),
        };
    }
    Ok(p)
}

fn factor(l: &mut Lexer, depth: usize) -> Result<Ix> {
    const OPS: [DimOp; 5] = [DimOp::FloorDiv, DimOp::CeilDiv, DimOp::Mod, DimOp::Min, DimOp::Max];
    match l.peek() {
        Token::Int(_) => Ok(Ix::constant(l.int()?)),
        Token::Str(_) => Ok(Ix::constant(Dim::sym(&l.string()?))),
        Token::Punct("(") => {
            l.bump();
            let e = sum(l, depth + 1)?;
            l.expect(")")?;
            Ok(e)
        }
        Token::Ident(name) if l.peek_at(1) == Token::Punct("(") => {
            let op = OPS.into_iter().find(|o| o.name() == name);
            if op.is_none() && !matches!(name, "div" | "rem" | "least") {
                return Err(l.unexpected("div, rem, least, floordiv, ceildiv, mod, min or max"));
            }
            l.bump();
            l.bump();
            let place = l.place();
            let a = sum(l, depth + 1)?;
            l.expect(",")?;
            let d = parse_dim(l)?;
            l.expect(")")?;
            match (op, a.as_dim()) {
                (Some(op), Some(a)) => Ok(Ix::constant(Dim::op(op, a.clone(), d))),
                (Some(op), None) => Err(l.error_at(place, format!("`{a}` is no dim, which {} needs", op.name()))),
                (None, _) if name == "div" => Ok(Ix::term(Term::Div(Box::new(a), d))),
                (None, _) if name == "least" => Ok(Ix::term(Term::Min(Box::new(a), d))),
                (None, _) => Ok(Ix::term(Term::Mod(Box::new(a), d))),
            }
        }
        Token::Ident(name) => {
            l.bump();
            Ok(match (id(name, 'i'), id(name, 'r')) {
                (Some(v), _) => Ix::var(Var(v)),
                (_, Some(r)) => Ix::reg(Reg(r)),
                _ => Ix::constant(Dim::sym(name)),
            })
        }
        _ => Err(l.unexpected("an index expression")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn indices_read_back() {
        let (i, j, r) = (Ix::var(Var(0)), Ix::var(Var(12)), Ix::reg(Reg(3)));
        let n = Dim::sym("n");
        let odd = [Dim::sym("i0"), Dim::sym("seq + 1"), Dim::sym("r12"), Dim::sym("a.b")];
        let mut all = vec![
            Ix::constant(0),
            Ix::constant(-7),
            &i.scale(&Dim::Const(-1)) + &j,
            &(&i.scale(&Dim::Const(16)) + &j) + &Dim::Const(-3),
            &i.scale(&(&n + 1)) + &(&n * -1),
            &i.scale(&(&n * -2)) + &r.scale(&Dim::Const(-5)),
            (&i + &j).div(&Dim::Const(4)),
            &(&i + &Dim::Const(1)).modulo(&n).scale(&Dim::Const(3)) + &(&n.floor_div(&Dim::Const(2)) + 1),
            (&i.div(&Dim::Const(3)) + &Dim::Const(1)).modulo(&Dim::Const(5)),
        ];
        all.extend(odd.iter().map(|d| &i.scale(d) + &(d * 2)));
        for e in all {
            let text = e.to_string();
            let mut l = Lexer::new(&text);
            assert_eq!(parse_ix(&mut l).unwrap(), e, "{text}");
            assert!(l.at_end(), "{text}");
        }
        let e = parse_ix(&mut Lexer::new("2*(i0 - 3)*n + i1")).unwrap();
        assert_eq!(e.to_string(), "(2*n)*i0 + i1 + -6*n");
        let b = parse_bound(&mut Lexer::new("i0 - 1 in 0..n - 1")).unwrap();
        assert_eq!(b.to_string(), "i0 - 1 in 0..n - 1");
    }

    #[test]
    fn bad_indices_are_errors() {
        for s in [
            "",
            "i0*i1",
            "floordiv(i0, 2)",
            "div(i0)",
            "abs(i0, 1)",
            "i0 +",
            "(i0",
            "99999999999999999999",
        ] {
            assert!(parse_ix(&mut Lexer::new(s)).is_err(), "{s}");
        }
        assert!(parse_ix(&mut Lexer::new(&"(".repeat(100_000))).is_err());
        for s in ["i0", "i0 in 1..3", "i0 in 0.5", "i0 in 0..*2"] {
            let mut l = Lexer::new(s);
            assert!(parse_bound(&mut l).is_err() || !l.at_end(), "{s}");
        }
    }
}
