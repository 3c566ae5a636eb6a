//! The text form of bodies and constants; parsing what was printed gives the same body.
//!
//! `(v0: f32) { v1 = const f32 1.0; v2 = add v0 v1; v3 = cast f16 v2 } -> v3`; several results stand in parentheses.
//! Finite floats print as the shortest decimal that reads back; NaN and infinities by their bits, `f32:0x7fc00000`.
//! With `{:#}` every instruction has its own line. Names are free in the input and become `v0`, `v1`, … in order.

use super::{Body, Inst, Prim, Scalar, V};
use crate::text::{Lexer, ParseError, Result, whole};
use crate::{DType, Number};
use rustc_hash::FxHashMap;
use std::fmt;

impl fmt::Display for Scalar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let d = self.dtype;
        match self.number() {
            // A byte that is no code of the type.
            x if d.small().is_some() && Scalar::new(d, x) != *self => write!(f, "{d}:{:#x}", self.bits),
            Number::Float(x) if !x.is_finite() => write!(f, "{d}:{:#x}", self.bits),
            Number::Float(x) if d == DType::F64 => write!(f, "{d} {x:?}"),
            Number::Float(x) => write!(f, "{d} {:?}", x as f32),
            Number::Int(x) if d == DType::Bool => write!(f, "{d} {}", x != 0),
            Number::Int(x) => write!(f, "{d} {x}"),
        }
    }
}

impl Scalar {
    /// Reads a constant: `f32 1.0`, `f32:0x7fc00000`, `i64 -3`, `bool true`.
    ///
    /// # Errors
    /// When the text is no constant, or an integer does not fit its dtype.
    pub fn parse(l: &mut Lexer) -> Result<Scalar> {
        let dtype = l.dtype()?;
        let place = l.place();
        if l.eat(":") {
            let v = l.int128()?;
            let bits = u64::try_from(v)
                .ok()
                .filter(|b| b.checked_shr(dtype.bits() as u32).unwrap_or(0) == 0);
            let bits = bits.filter(|&b| dtype != DType::Bool || b <= 1);
            let bits = bits.ok_or_else(|| l.error_at(place, format!("{v:#x} are no bits of {dtype}")))?;
            return Ok(Scalar { dtype, bits });
        }
        let number = match dtype {
            DType::Bool if l.eat("true") => Number::Int(1),
            DType::Bool if l.eat("false") => Number::Int(0),
            DType::Bool => return Err(l.unexpected("`true` or `false`")),
            DType::F64 => Number::Float(l.float()?),
            d if d.is_real() => Number::Float(l.float::<f32>()? as f64),
            _ => Number::Int(l.int128()?),
        };
        let s = Scalar::new(dtype, number);
        match number {
            Number::Int(_) if s.number() != number => {
                Err(l.error_at(place, format!("{} does not fit in {dtype}", number.int())))
            }
            _ => Ok(s),
        }
    }
}

impl fmt::Display for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(")?;
        for (i, d) in self.inputs.iter().enumerate() {
            write!(f, "{}v{i}: {d}", if i > 0 { ", " } else { "" })?;
        }
        f.write_str(") {")?;
        for (i, inst) in self.insts.iter().enumerate() {
            let separator = match (f.alternate(), i) {
                (true, _) => "\n  ",
                (false, 0) => " ",
                (false, _) => "; ",
            };
            write!(f, "{separator}v{} = ", self.inputs.len() + i)?;
            match inst {
                Inst::Const(dtype, bits) => write!(
                    f,
                    "const {}",
                    Scalar {
                        dtype: *dtype,
                        bits: *bits
                    }
                )?,
                Inst::Prim(p, args) => {
                    f.write_str(p.name())?;
                    if let Some(to) = p.target() {
                        write!(f, " {to}")?;
                    }
                    for v in &args[..p.arity()] {
                        write!(f, " {v}")?;
                    }
                }
            }
        }
        f.write_str(if f.alternate() { "\n} -> " } else { " } -> " })?;
        match &self.outputs[..] {
            [v] => write!(f, "{v}"),
            many => {
                let names: Vec<String> = many.iter().map(V::to_string).collect();
                write!(f, "({})", names.join(", "))
            }
        }
    }
}

impl Body {
    /// Reads and verifies a body.
    ///
    /// # Errors
    /// Where the text is no body, a name is unknown or defined twice, or dtypes do not fit.
    pub fn parse<'a>(l: &mut Lexer<'a>) -> Result<Body> {
        let mut names: FxHashMap<&'a str, V> = FxHashMap::default();
        l.expect("(")?;
        let inputs = l.list(")", |l| {
            let place = l.place();
            let name = l.ident()?;
            define(l, place, &mut names, name)?;
            l.expect(":")?;
            l.dtype()
        })?;
        let mut body = Body {
            inputs,
            insts: vec![],
            outputs: vec![],
        };
        let mut dtypes = body.inputs.clone();
        l.expect("{")?;
        while !l.eat("}") {
            let place = l.place();
            let name = l.ident()?;
            l.expect("=")?;
            let (inst, dtype) = parse_inst(l, &names, &dtypes)?;
            define(l, place, &mut names, name)?;
            body.insts.push(inst);
            dtypes.push(dtype);
            l.eat(";");
        }
        l.expect("->")?;
        body.outputs = match l.eat("(") {
            true => l.list(")", |l| operand(l, &names))?,
            false => vec![operand(l, &names)?],
        };
        Ok(body)
    }
}

impl std::str::FromStr for Body {
    type Err = ParseError;
    fn from_str(s: &str) -> Result<Body> {
        whole(s, Body::parse)
    }
}

fn define<'a>(l: &Lexer, place: usize, names: &mut FxHashMap<&'a str, V>, name: &'a str) -> Result<()> {
    let v = V(names.len() as u32);
    match names.insert(name, v) {
        Some(_) => Err(l.error_at(place, format!("`{name}` is defined twice"))),
        None => Ok(()),
    }
}

fn operand(l: &mut Lexer, names: &FxHashMap<&str, V>) -> Result<V> {
    let place = l.place();
    let name = l.ident()?;
    names
        .get(name)
        .copied()
        .ok_or_else(|| l.error_at(place, format!("`{name}` is not defined")))
}

fn parse_inst(l: &mut Lexer<'_>, names: &FxHashMap<&str, V>, dtypes: &[DType]) -> Result<(Inst, DType)> {
    let place = l.place();
    let name = l.ident()?;
    if name == "const" {
        let s = Scalar::parse(l)?;
        return Ok((Inst::Const(s.dtype, s.bits), s.dtype));
    }
    let to = if matches!(name, "cast" | "bitcast") {
        Some(l.dtype()?)
    } else {
        None
    };
    let prim = Prim::from_name(name, to).ok_or_else(|| l.error_at(place, format!("`{name}` is no primitive")))?;
    let mut args = [operand(l, names)?; 3];
    for arg in &mut args[1..prim.arity()] {
        *arg = operand(l, names)?;
    }
    let types: Vec<DType> = args[..prim.arity()].iter().map(|v| dtypes[v.0 as usize]).collect();
    let dtype = prim.result(&types).map_err(|m| l.error_at(place, m))?;
    Ok((Inst::Prim(prim, args), dtype))
}
