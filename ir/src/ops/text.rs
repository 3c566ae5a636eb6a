//! What operators on strings share.

use super::{Op, arity, shape};
use crate::{DType, Strings, Tensor, Type};
use std::sync::Arc;

/// Checks that an operand holds strings.
pub fn check(what: &str, found: &Type) -> Result<(), String> {
    match found.dtype {
        DType::Str => Ok(()),
        _ => Err(format!("{what} is {found}, expected strings")),
    }
}

/// The strings of an operand; one without elements needs nobody who holds them.
pub fn of(t: &Tensor) -> Result<Vec<Arc<str>>, String> {
    match t.is_empty() {
        true => Ok(vec![]),
        false => Strings::current()?.texts(t),
    }
}

/// A tensor of what becomes of strings.
pub fn made(shape: &[usize], texts: &[Arc<str>], f: impl Fn(&str) -> String) -> Result<Vec<Tensor>, String> {
    let made: Vec<String> = texts.iter().map(|s| f(s)).collect();
    match made.is_empty() {
        true => Ok(vec![Tensor::new(DType::Str, shape.to_vec(), vec![])?]),
        false => Ok(vec![Strings::current()?.tensor(shape, &made)?]),
    }
}

/// Checks the operands of what splits strings.
pub fn check_parts(op: &Op, inputs: &[Type]) -> Result<(), String> {
    arity(inputs, 2)?;
    check("x", &inputs[0])?;
    let most = op.int("most");
    if most < -1 {
        return Err(format!("most {most}, expected -1 or more"));
    }
    shape::check_type("delimiter", &inputs[1], DType::Str, &[])
}

/// The parts of each string.
pub fn parts(op: &Op, inputs: &[Tensor]) -> Result<Vec<Vec<String>>, String> {
    let texts = of(&inputs[0])?;
    if texts.is_empty() {
        return Ok(vec![]);
    }
    let by = of(&inputs[1])?[0].clone();
    let most = usize::try_from(op.int("most")).unwrap_or(usize::MAX - 1);
    let each = |s: &Arc<str>| -> Vec<String> {
        match &*by {
            "" => words(s, most),
            by => s.splitn(most + 1, by).map(str::to_owned).collect(),
        }
    };
    Ok(texts.iter().map(each).collect())
}

/// Up to so many words, and then the rest without the white space before it.
fn words(s: &str, most: usize) -> Vec<String> {
    let (mut rest, mut out) = (s.trim_start(), vec![]);
    while !rest.is_empty() {
        match rest.split_once(char::is_whitespace) {
            Some((word, more)) if out.len() < most => {
                out.push(word.to_owned());
                rest = more.trim_start();
            }
            _ => {
                out.push(rest.to_owned());
                break;
            }
        }
    }
    out
}
