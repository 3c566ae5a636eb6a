//! S-expressions with places: what rule files are written in.
//!
//! A `;` comment runs to the end of the line. `[1 2]` is a list of literals, `(f a b)` an application, everything else
//! between blanks an atom.

use std::fmt;

/// A place in a text: line and column, both from 1.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Place {
    /// The line.
    pub line: usize,
    /// The column, in characters.
    pub column: usize,
    /// The byte of the text.
    pub offset: usize,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.line, self.column)
    }
}

/// What is wrong with a rule file, and where.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{file}:{place}: {message}")]
pub struct SyntaxError {
    /// The file's name.
    pub file: String,
    /// The place.
    pub place: Place,
    /// What was found and what was expected.
    pub message: String,
}

/// An S-expression.
#[derive(Clone, PartialEq, Debug)]
pub enum Sexp<'a> {
    /// A name, a number, a variable.
    Atom(&'a str, Place),
    /// `(head arguments…)`.
    Apply(Vec<Sexp<'a>>, Place),
    /// `[items…]`.
    List(Vec<Sexp<'a>>, Place),
}

impl<'a> Sexp<'a> {
    /// Where it begins.
    pub fn place(&self) -> Place {
        match self {
            Sexp::Atom(_, p) | Sexp::Apply(_, p) | Sexp::List(_, p) => *p,
        }
    }
    /// The text of an atom.
    pub fn atom(&self) -> Option<&'a str> {
        match self {
            Sexp::Atom(s, _) => Some(s),
            _ => None,
        }
    }
}

impl fmt::Display for Sexp<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let join = |f: &mut fmt::Formatter<'_>, v: &[Sexp], open: &str, close: &str| {
            f.write_str(open)?;
            for (i, s) in v.iter().enumerate() {
                write!(f, "{}{s}", if i > 0 { " " } else { "" })?;
            }
            f.write_str(close)
        };
        match self {
            Sexp::Atom(s, _) => f.write_str(s),
            Sexp::Apply(v, _) => join(f, v, "(", ")"),
            Sexp::List(v, _) => join(f, v, "[", "]"),
        }
    }
}

/// How deeply expressions may nest, so that hostile text cannot exhaust the stack.
const MAX_DEPTH: usize = 64;

/// All expressions of a text.
///
/// # Errors
/// When brackets do not match or nest too deeply.
pub fn parse<'a>(file: &str, text: &'a str) -> Result<Vec<Sexp<'a>>, SyntaxError> {
    let mut p = Parser {
        file,
        text,
        place: Place {
            line: 1,
            column: 1,
            offset: 0,
        },
    };
    let mut out = vec![];
    while p.skip_blank() {
        out.push(p.expression(0)?);
    }
    Ok(out)
}

struct Parser<'f, 'a> {
    file: &'f str,
    text: &'a str,
    place: Place,
}

impl<'a> Parser<'_, 'a> {
    fn peek(&self) -> Option<char> {
        self.text[self.place.offset..].chars().next()
    }
    fn bump(&mut self) {
        match self.peek() {
            Some('\n') => (self.place.line, self.place.column) = (self.place.line + 1, 1),
            _ => self.place.column += 1,
        }
        self.place.offset += self.peek().map_or(0, char::len_utf8);
    }
    fn skip_blank(&mut self) -> bool {
        while let Some(c) = self.peek() {
            if c == ';' {
                while self.peek().is_some_and(|c| c != '\n') {
                    self.bump();
                }
            } else if c.is_whitespace() {
                self.bump();
            } else {
                return true;
            }
        }
        false
    }
    fn fail<T>(&self, place: Place, message: &str) -> Result<T, SyntaxError> {
        Err(SyntaxError {
            file: self.file.to_string(),
            place,
            message: message.to_string(),
        })
    }
    fn expression(&mut self, depth: usize) -> Result<Sexp<'a>, SyntaxError> {
        let place = self.place;
        if depth > MAX_DEPTH {
            return self.fail(place, "expressions nest too deeply");
        }
        match self.peek() {
            Some(open @ ('(' | '[')) => {
                self.bump();
                let close = if open == '(' { ')' } else { ']' };
                let mut items = vec![];
                loop {
                    if !self.skip_blank() {
                        return self.fail(place, &format!("found `{open}` without its `{close}`"));
                    }
                    match self.peek() {
                        Some(c) if c == close => break,
                        Some(')' | ']') => return self.fail(self.place, &format!("expected `{close}`")),
                        _ => items.push(self.expression(depth + 1)?),
                    }
                }
                self.bump();
                Ok(if open == '(' {
                    Sexp::Apply(items, place)
                } else {
                    Sexp::List(items, place)
                })
            }
            Some(c @ (')' | ']')) => self.fail(place, &format!("found `{c}` without its opening bracket")),
            _ => {
                while self.peek().is_some_and(|c| !c.is_whitespace() && !"()[];".contains(c)) {
                    self.bump();
                }
                Ok(Sexp::Atom(&self.text[place.offset..self.place.offset], place))
            }
        }
    }
}
