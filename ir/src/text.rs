//! What all text forms share: a small lexer with positions, and the parsers of dims and types.
//!
//! Tokens are identifiers (`add`, `v3`, `%3`, `@main`, `layer.0`), integers, float literals, strings with escapes and
//! punctuation; `//` comments run to the end of the line. Every error names its line and column and says what was
//! found and what was expected. Whatever `Display` prints for a [`Dim`] or a [`Type`], the parsers here read back.

use crate::dim::{Dim, DimOp};
use crate::{DType, Type};
use std::fmt;

/// What is wrong with a text, and where (both counted from 1; columns in characters).
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{line}:{column}: {message}")]
pub struct ParseError {
    /// The line.
    pub line: usize,
    /// The column.
    pub column: usize,
    /// What was found and what was expected.
    pub message: String,
}

/// The result of a parser.
pub type Result<T> = std::result::Result<T, ParseError>;

/// One token.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Token<'a> {
    /// A letter, `_`, `@` or `%`, then letters, digits, `_` and `.`.
    Ident(&'a str),
    /// Digits, or `0x` and hexadecimal digits; no sign.
    Int(&'a str),
    /// Digits with a fraction or an exponent; no sign.
    Float(&'a str),
    /// A string's text between the quotes, escapes not yet replaced.
    Str(&'a str),
    /// One of `-> => == != <= >= +=` or a single other character.
    Punct(&'a str),
    /// A string without an end.
    Unterminated,
    /// The end of the text.
    End,
}

impl fmt::Display for Token<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Token::Ident(s) | Token::Int(s) | Token::Float(s) | Token::Punct(s) => write!(f, "`{s}`"),
            Token::Str(s) => write!(f, "\"{s}\""),
            Token::Unterminated => f.write_str("a string without an end"),
            Token::End => f.write_str("the end of the text"),
        }
    }
}

/// How deeply parentheses may nest, so that hostile text cannot exhaust the stack.
pub const MAX_DEPTH: usize = 64;

/// The tokens of a text, and a place among them.
#[derive(Clone, Debug)]
pub struct Lexer<'a> {
    text: &'a str,
    tokens: Vec<(Token<'a>, usize)>,
    at: usize,
    /// How many blocks or graphs are open, see [`Lexer::nested`].
    depth: usize,
}

/// What a whole text holds: `parse` reads it to its end.
///
/// # Errors
/// Those of `parse`, and where something follows.
pub fn whole<'a, T>(text: &'a str, parse: impl FnOnce(&mut Lexer<'a>) -> Result<T>) -> Result<T> {
    let mut l = Lexer::new(text);
    let found = parse(&mut l)?;
    if l.at_end() {
        Ok(found)
    } else {
        Err(l.unexpected("the end of the text"))
    }
}

impl<'a> Lexer<'a> {
    /// The tokens of a text, at the first.
    pub fn new(text: &'a str) -> Lexer<'a> {
        let mut tokens = vec![];
        let mut rest = text;
        loop {
            rest = skip_blank(rest);
            let offset = text.len() - rest.len();
            let (token, len) = scan(rest);
            tokens.push((token, offset));
            if token == Token::End {
                return Lexer {
                    text,
                    tokens,
                    at: 0,
                    depth: 0,
                };
            }
            rest = &rest[len..];
        }
    }

    /// What `parse` reads, one deeper than what is around it.
    ///
    /// # Errors
    /// Those of `parse`; when it would be deeper than [`MAX_DEPTH`].
    pub fn nested<T>(&mut self, parse: impl FnOnce(&mut Lexer<'a>) -> Result<T>) -> Result<T> {
        if self.depth == MAX_DEPTH {
            return Err(self.error(format!("nested deeper than {MAX_DEPTH}")));
        }
        self.depth += 1;
        let found = parse(self);
        self.depth -= 1;
        found
    }

    /// The next token, not consumed.
    pub fn peek(&self) -> Token<'a> {
        self.peek_at(0)
    }

    /// The token `n` after the next one, not consumed.
    pub fn peek_at(&self, n: usize) -> Token<'a> {
        self.tokens[(self.at + n).min(self.tokens.len() - 1)].0
    }

    /// Consumes a token ([`Token::End`] for ever at the end).
    pub fn bump(&mut self) -> Token<'a> {
        let t = self.peek();
        self.at = (self.at + 1).min(self.tokens.len() - 1);
        t
    }

    /// True at the end of the text.
    pub fn at_end(&self) -> bool {
        self.peek() == Token::End
    }

    /// True when the next token is this identifier or punctuation.
    pub fn is(&self, s: &str) -> bool {
        matches!(self.peek(), Token::Ident(t) | Token::Punct(t) if t == s)
    }

    /// Consumes this identifier or punctuation when it is next.
    pub fn eat(&mut self, s: &str) -> bool {
        let found = self.is(s);
        if found {
            self.bump();
        }
        found
    }

    /// Consumes this identifier or punctuation.
    ///
    /// # Errors
    /// When something else is next; as for all parsers below.
    pub fn expect(&mut self, s: &str) -> Result<()> {
        if self.eat(s) {
            Ok(())
        } else {
            Err(self.unexpected(&format!("`{s}`")))
        }
    }

    /// Any identifier.
    pub fn ident(&mut self) -> Result<&'a str> {
        match self.peek() {
            Token::Ident(s) => {
                self.bump();
                Ok(s)
            }
            _ => Err(self.unexpected("a name")),
        }
    }

    /// An identifier, or a string: names that come from a model may hold any character.
    pub fn name(&mut self) -> Result<String> {
        match self.peek() {
            Token::Str(_) | Token::Unterminated => self.string(),
            _ => self.ident().map(str::to_string),
        }
    }

    /// An integer with an optional `-`.
    pub fn int(&mut self) -> Result<i64> {
        let place = self.at;
        let v = self.int128()?;
        i64::try_from(v).map_err(|_| self.error_at(place, format!("{v} does not fit in 64 bits")))
    }

    /// A non-negative integer.
    pub fn index(&mut self) -> Result<usize> {
        let place = self.at;
        let v = self.int128()?;
        usize::try_from(v).map_err(|_| self.error_at(place, format!("{v} is no index")))
    }

    /// An integer of any dtype, with an optional `-`.
    pub fn int128(&mut self) -> Result<i128> {
        let place = self.at;
        let negative = self.eat("-");
        let Token::Int(s) = self.peek() else {
            return Err(self.unexpected("an integer"));
        };
        let v = match s.strip_prefix("0x") {
            Some(hex) => i128::from_str_radix(hex, 16),
            None => s.parse::<i128>(),
        };
        let v = v.map_err(|e| self.error_at(place, format!("`{s}`: {e}")))?;
        self.bump();
        Ok(if negative { -v } else { v })
    }

    /// A decimal number with an optional `-`, or `inf` or `nan`, rounded to the type asked for (`f32` or `f64`).
    pub fn float<T: std::str::FromStr + std::ops::Neg<Output = T>>(&mut self) -> Result<T> {
        let negative = self.eat("-");
        let value = match self.peek() {
            Token::Int(s) | Token::Float(s) | Token::Ident(s @ ("inf" | "nan")) => s.parse::<T>().ok(),
            _ => None,
        };
        let value = value.ok_or_else(|| self.unexpected("a number"))?;
        self.bump();
        Ok(if negative { -value } else { value })
    }

    /// A string, its escapes (`\n`, `\t`, `\\`, `\"`, `\u{…}`) replaced.
    pub fn string(&mut self) -> Result<String> {
        let Token::Str(raw) = self.peek() else {
            return Err(self.unexpected("a string"));
        };
        let text = unescape(raw).map_err(|m| self.error(m))?;
        self.bump();
        Ok(text)
    }

    /// A dtype's name.
    pub fn dtype(&mut self) -> Result<DType> {
        let place = self.at;
        self.ident()?.parse().map_err(|m| self.error_at(place, m))
    }

    /// Items separated by commas up to `close`, which is consumed; a comma may follow the last item.
    pub fn list<T>(&mut self, close: &str, mut item: impl FnMut(&mut Self) -> Result<T>) -> Result<Vec<T>> {
        let mut out = vec![];
        while !self.eat(close) {
            out.push(item(self)?);
            if !self.eat(",") && !self.is(close) {
                return Err(self.unexpected(&format!("`,` or `{close}`")));
            }
        }
        Ok(out)
    }

    /// An error at the next token.
    pub fn error(&self, message: impl Into<String>) -> ParseError {
        self.error_at(self.at, message)
    }

    /// An error at the next token that says that something else was expected there.
    pub fn unexpected(&self, wanted: &str) -> ParseError {
        self.error(format!("found {}, expected {wanted}", self.peek()))
    }

    /// The place of the next token, for [`Lexer::error_at`].
    pub fn place(&self) -> usize {
        self.at
    }

    /// An error at a place.
    pub fn error_at(&self, place: usize, message: impl Into<String>) -> ParseError {
        let before = &self.text[..self.tokens[place].1];
        let line_start = before.rfind('\n').map_or(0, |i| i + 1);
        ParseError {
            line: before.matches('\n').count() + 1,
            column: before[line_start..].chars().count() + 1,
            message: message.into(),
        }
    }
}

fn skip_blank(mut s: &str) -> &str {
    loop {
        s = s.trim_start();
        match s.strip_prefix("//") {
            Some(comment) => s = comment.find('\n').map_or("", |i| &comment[i..]),
            None => return s,
        }
    }
}

/// The token at the start of a text, and its length in bytes.
fn scan(s: &str) -> (Token<'_>, usize) {
    let Some(first) = s.chars().next() else {
        return (Token::End, 0);
    };
    if first.is_alphabetic() || "_@%".contains(first) {
        let tail = s[first.len_utf8()..].find(|c: char| !(c.is_alphanumeric() || "_.".contains(c)));
        let n = tail.map_or(s.len(), |i| i + first.len_utf8());
        return (Token::Ident(&s[..n]), n);
    }
    if first.is_ascii_digit() {
        return scan_number(s);
    }
    if first == '"' {
        let mut escaped = false;
        for (i, c) in s.char_indices().skip(1) {
            match c {
                _ if escaped => escaped = false,
                '\\' => escaped = true,
                '"' => return (Token::Str(&s[1..i]), i + 1),
                _ => {}
            }
        }
        return (Token::Unterminated, s.len());
    }
    let two = ["->", "=>", "==", "!=", "<=", ">=", "+="]
        .into_iter()
        .any(|p| s.starts_with(p));
    let n = if two { 2 } else { first.len_utf8() };
    (Token::Punct(&s[..n]), n)
}

fn scan_number(s: &str) -> (Token<'_>, usize) {
    let b = s.as_bytes();
    let digits = |from: usize| from + b[from..].iter().take_while(|c| c.is_ascii_digit()).count();
    if let Some(hex) = s.strip_prefix("0x") {
        let n = 2 + hex.bytes().take_while(u8::is_ascii_hexdigit).count();
        return (Token::Int(&s[..n]), n);
    }
    let mut n = digits(0);
    let mut float = false;
    if b.get(n) == Some(&b'.') && b.get(n + 1).is_some_and(u8::is_ascii_digit) {
        n = digits(n + 1);
        float = true;
    }
    if matches!(b.get(n), Some(b'e' | b'E')) {
        let sign = matches!(b.get(n + 1), Some(b'+' | b'-')) as usize;
        let end = digits((n + 1 + sign).min(b.len()));
        if end > n + 1 + sign {
            n = end;
            float = true;
        }
    }
    (
        if float {
            Token::Float(&s[..n])
        } else {
            Token::Int(&s[..n])
        },
        n,
    )
}

fn unescape(raw: &str) -> std::result::Result<String, String> {
    let mut out = String::with_capacity(raw.len());
    let mut chars = raw.chars();
    while let Some(c) = chars.next() {
        if c != '\\' {
            out.push(c);
            continue;
        }
        match chars.next() {
            Some('n') => out.push('\n'),
            Some('t') => out.push('\t'),
            Some('r') => out.push('\r'),
            Some('0') => out.push('\0'),
            Some(c @ ('\\' | '"' | '\'')) => out.push(c),
            Some('u') => {
                let code: String = chars.by_ref().skip(1).take_while(|&c| c != '}').collect();
                let c = u32::from_str_radix(&code, 16).ok().and_then(char::from_u32);
                out.push(c.ok_or_else(|| format!("`\\u{{{code}}}` is no character"))?);
            }
            c => return Err(format!("`\\{}` is no escape", c.map_or(String::new(), String::from))),
        }
    }
    Ok(out)
}

/// A name as [`Lexer::name`] reads it back: bare when it is an identifier, else a string with escapes.
pub fn name(s: &str) -> String {
    match scan(s) {
        (Token::Ident(_), n) if n == s.len() => s.to_string(),
        _ => format!("{s:?}"),
    }
}

/// A symbol of a dim: bare when it is an identifier, else a string. `i0` and `r0` are quoted as well, because they are
/// variables and registers in index expressions.
pub fn symbol(s: &str) -> String {
    let id = s
        .strip_prefix(['i', 'r'])
        .is_some_and(|n| !n.is_empty() && n.bytes().all(|c| c.is_ascii_digit()));
    if id { format!("{s:?}") } else { name(s) }
}

/// The name of a kernel or a program: `@name`, quoted after the `@` when it holds other characters than identifiers do.
pub fn global(s: &str) -> String {
    let plain = !s.is_empty() && s.chars().all(|c| c.is_alphanumeric() || "_.".contains(c));
    if plain { format!("@{s}") } else { format!("@{s:?}") }
}

/// A name that [`global`] printed.
///
/// # Errors
/// When something else is next.
pub fn parse_global(l: &mut Lexer) -> Result<String> {
    match l.peek() {
        Token::Ident("@") => {
            l.bump();
            l.string()
        }
        Token::Ident(s) if s.starts_with('@') => {
            l.bump();
            Ok(s[1..].to_string())
        }
        _ => Err(l.unexpected("a name that starts with `@`")),
    }
}

/// The number of an id such as `b3`.
pub fn id(s: &str, prefix: char) -> Option<u32> {
    let digits = s.strip_prefix(prefix)?;
    let plain = digits == "0" || (digits.starts_with(|c: char| c != '0') && digits.bytes().all(|c| c.is_ascii_digit()));
    if plain { digits.parse().ok() } else { None }
}

/// An id such as `b3`.
///
/// # Errors
/// When something else is next.
pub fn parse_id(l: &mut Lexer, prefix: char) -> Result<u32> {
    if let Token::Ident(s) = l.peek()
        && let Some(n) = id(s, prefix)
    {
        l.bump();
        return Ok(n);
    }
    Err(l.unexpected(&format!("an id such as `{prefix}0`")))
}

/// A dim, as `Display` prints it: `2*batch*seq + 3`, `floordiv(seq + 1, 2)`. A symbol that is no identifier is a string.
///
/// # Errors
/// When the text is no dim.
pub fn parse_dim(l: &mut Lexer) -> Result<Dim> {
    dim_sum(l, 0)
}

/// A type, as `Display` prints it: `f32[64, batch]`.
///
/// # Errors
/// When the text is no type.
pub fn parse_type(l: &mut Lexer) -> Result<Type> {
    let dtype = l.dtype()?;
    l.expect("[")?;
    Ok(Type::new(dtype, l.list("]", parse_dim)?))
}

fn dim_sum(l: &mut Lexer, depth: usize) -> Result<Dim> {
    if depth > MAX_DEPTH {
        return Err(l.error(format!("a dim nested deeper than {MAX_DEPTH}")));
    }
    let mut sum = if l.eat("-") {
        &Dim::ZERO - &dim_product(l, depth)?
    } else {
        dim_product(l, depth)?
    };
    loop {
        if l.eat("+") {
            sum = &sum + &dim_product(l, depth)?;
        } else if l.eat("-") {
            sum = &sum - &dim_product(l, depth)?;
        } else {
            return Ok(sum);
        }
    }
}

fn dim_product(l: &mut Lexer, depth: usize) -> Result<Dim> {
    let mut product = dim_factor(l, depth)?;
    while l.eat("*") {
        product = &product * &dim_factor(l, depth)?;
    }
    Ok(product)
}

fn dim_factor(l: &mut Lexer, depth: usize) -> Result<Dim> {
    const OPS: [DimOp; 5] = [DimOp::FloorDiv, DimOp::CeilDiv, DimOp::Mod, DimOp::Min, DimOp::Max];
    match l.peek() {
        Token::Int(_) => Ok(Dim::Const(l.int()?)),
        Token::Str(_) => Ok(Dim::sym(&l.string()?)),
        Token::Punct("(") => {
            l.bump();
            let d = dim_sum(l, depth + 1)?;
            l.expect(")")?;
            Ok(d)
        }
        Token::Ident(name) if l.peek_at(1) == Token::Punct("(") => {
            let op = OPS.into_iter().find(|o| o.name() == name);
            let op = op.ok_or_else(|| l.unexpected("floordiv, ceildiv, mod, min or max"))?;
            l.bump();
            l.bump();
            let a = dim_sum(l, depth + 1)?;
            l.expect(",")?;
            let b = dim_sum(l, depth + 1)?;
            l.expect(")")?;
            Ok(Dim::op(op, a, b))
        }
        Token::Ident(name) => {
            l.bump();
            Ok(Dim::sym(name))
        }
        _ => Err(l.unexpected("a dim")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_and_positions() {
        let mut l = Lexer::new("%1 = add @x.y -0x1F // note\n  1.5e-3 -> \"a\\\"\\u{e9}\" 2e");
        assert_eq!(l.ident().unwrap(), "%1");
        l.expect("=").unwrap();
        assert_eq!(l.ident().unwrap(), "add");
        assert_eq!(l.ident().unwrap(), "@x.y");
        assert_eq!(l.int().unwrap(), -31);
        assert_eq!(l.float::<f64>().unwrap(), 1.5e-3);
        let e = l.expect("=>").unwrap_err();
        assert_eq!(e.to_string(), "2:10: found `->`, expected `=>`");
        assert!(l.eat("->"));
        assert_eq!(l.string().unwrap(), "a\"é");
        assert_eq!(l.int().unwrap(), 2);
        assert_eq!(l.ident().unwrap(), "e");
        assert!(l.at_end());
        assert_eq!(l.bump(), Token::End);
    }

    #[test]
    fn dims_read_back() {
        for s in [
            "0",
            "-3",
            "2*batch*seq + 3",
            "floordiv(seq + 1, 2)",
            "-seq + 4",
            "min(n, 16)*mod(m, 8) - 1",
        ] {
            let d = parse_dim(&mut Lexer::new(s)).unwrap();
            assert_eq!(parse_dim(&mut Lexer::new(&d.to_string())).unwrap(), d, "{s}");
        }
        assert_eq!(
            parse_dim(&mut Lexer::new("2*seq + 1")).unwrap(),
            Dim::sym("seq") * Dim::Const(2) + Dim::ONE
        );
        let t = parse_type(&mut Lexer::new("bf16[64, batch]")).unwrap();
        assert_eq!(t.to_string(), "bf16[64, batch]");
    }

    #[test]
    fn bad_text_is_an_error() {
        for s in [
            "",
            "f32",
            "f32[",
            "f32[1 2]",
            "f33[1]",
            "f32[min(1)]",
            "f32[abs(1, 2)]",
            "f32[99999999999999999999]",
        ] {
            assert!(parse_type(&mut Lexer::new(s)).is_err(), "{s}");
        }
        assert!(parse_dim(&mut Lexer::new(&"(".repeat(100_000))).is_err());
        assert!(Lexer::new("\"abc").string().is_err());
        assert!(Lexer::new("\"\\q\"").string().is_err());
    }
}
