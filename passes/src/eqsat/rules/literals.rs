//! Literals in the text of rules: attributes, keywords, numbers, matrices.

use super::parse::Fault;
use super::{Expr, Literal};
use crate::eqsat::hint::near;
use crate::eqsat::lang::OpId;
use crate::eqsat::sexp::{Place, Sexp};
use crate::eqsat::sorts::Sort;
use brolga_ir::ops::{self, AttrKind};
use brolga_ir::{Attr, DType, Number, Op, Type};
use std::sync::Arc;

/// The most elements of a matrix that is written in a rule.
const MOST_ELEMENTS: usize = 4096;

/// That keywords of an operator are some that it knows: its samples say what it accepts, with operands of any dtype.
pub(super) fn check_words(op: OpId, args: &[Sexp]) -> Result<(), Fault> {
    const DTYPES: [DType; 5] = [DType::F32, DType::I32, DType::I8, DType::U8, DType::Bool];
    let def = op.def();
    for (i, (arg, (attr, kind))) in args.iter().zip(def.attrs()).enumerate() {
        let (AttrKind::Word, Some(word)) = (kind, arg.atom().filter(|a| !a.starts_with('?'))) else {
            continue;
        };
        let samples = def.samples();
        let accepts = |word: &str| -> Result<(), String> {
            let mut last = Ok(());
            for sample in &samples {
                let mut attrs = sample.attrs.to_vec();
                attrs[i] = Attr::word(word);
                let own = sample.inputs.iter().map(|(d, s)| Type::fixed(*d, s)).collect();
                let all = |d: DType| sample.inputs.iter().map(|(_, s)| Type::fixed(d, s)).collect();
                for types in [own].into_iter().chain(DTYPES.map(all)) {
                    let types: Vec<Type> = types;
                    last = Op::new(def.name(), &attrs).and_then(|op| op.infer(&types)).map(|_| ());
                    if last.is_ok() {
                        return last;
                    }
                }
            }
            last
        };
        if accepts(word).is_err() {
            let mut known: Vec<&str> = ops::Combine::ALL.iter().map(|c| c.word()).collect();
            known.extend(samples.iter().filter_map(|s| match &s.attrs[i] {
                Attr::Word(w) => Some(&**w),
                _ => None,
            }));
            known.retain(|w| accepts(w).is_ok());
            known.sort_unstable();
            known.dedup();
            let meant = near(word, known.iter().copied());
            let (name, known) = (op.name(), known.join(", "));
            let message = format!("`{word}` is no {attr} of `{name}`, expected one of {known}{meant}");
            return Err((arg.place(), message));
        }
    }
    Ok(())
}

/// A literal attribute of a kind.
pub(super) fn literal(s: &Sexp, kind: AttrKind) -> Result<Attr, Fault> {
    let bad = || {
        let names = DType::ALL.iter().map(|d| d.name());
        let meant = match (kind, s.atom()) {
            (AttrKind::DType, Some(a)) => near(a, names),
            (AttrKind::Bool, Some(a)) => near(a, ["true", "false"]),
            _ => String::new(),
        };
        (
            s.place(),
            format!("found `{s}`, expected {}{meant}", Sort::from(kind).name()),
        )
    };
    let ints = |v: &[Sexp]| -> Result<Vec<i64>, Fault> {
        v.iter()
            .map(|i| i.atom().and_then(|a| a.parse().ok()).ok_or_else(bad))
            .collect()
    };
    match (kind, s) {
        (AttrKind::Int, Sexp::Atom(a, _)) => a.parse().map(Attr::Int).map_err(|_| bad()),
        (AttrKind::Bool, Sexp::Atom(a, _)) => a.parse().map(Attr::Bool).map_err(|_| bad()),
        (AttrKind::Num, Sexp::Atom(a, _)) => number(a).map(Attr::number).ok_or_else(bad),
        (AttrKind::DType, Sexp::Atom(a, _)) => a.parse::<DType>().map(Attr::DType).map_err(|_| bad()),
        (AttrKind::Word, Sexp::Atom(a, _)) => Ok(Attr::word(a)),
        (AttrKind::Ints, Sexp::List(v, _)) => Ok(Attr::Ints(ints(v)?)),
        (AttrKind::Dims, Sexp::List(v, _)) => Ok(Attr::dims(&ints(v)?)),
        _ => Err(bad()),
    }
}

/// A number without loss: what an f64 holds is a float.
pub(super) fn number(text: &str) -> Option<Number> {
    let rounds = |&i: &i128| i as f64 as i128 != i;
    match text.parse::<i128>().ok().filter(rounds) {
        Some(i) => Some(Number::Int(i)),
        None => text.parse().ok().map(Number::Float),
    }
}

/// A matrix of numbers: the elements of its outermost list.
pub(super) fn matrix(items: &[Sexp], place: Place) -> Result<Literal, Fault> {
    fn read(
        items: &[Sexp],
        place: Place,
        shape: &mut Vec<usize>,
        depth: usize,
        out: &mut Vec<Number>,
    ) -> Result<(), Fault> {
        match shape.get(depth) {
            None => shape.push(items.len()),
            Some(&n) if n == items.len() => {}
            Some(n) => {
                return Err((
                    place,
                    format!("a row of {} elements, expected {n} as in the first", items.len()),
                ));
            }
        }
        for item in items {
            // A list that holds none has no dtype and no use.
            let fault = || {
                (
                    item.place(),
                    format!("found `{item}`, expected a number, or rows all the way"),
                )
            };
            match item {
                Sexp::List(row, p) if out.is_empty() || shape.len() > depth + 1 => {
                    read(row, *p, shape, depth + 1, out)?
                }
                Sexp::Atom(a, _) if shape.len() == depth + 1 => out.push(number(a).ok_or_else(fault)?),
                _ => return Err(fault()),
            }
            if out.len() > MOST_ELEMENTS {
                return Err((place, format!("a matrix of more than {MOST_ELEMENTS} elements")));
            }
        }
        Ok(())
    }
    let (mut shape, mut elements) = (vec![], vec![]);
    read(items, place, &mut shape, 0, &mut elements)?;
    match elements.is_empty() {
        true => Err((
            place,
            "a matrix without elements, expected numbers such as [[1 2] [3 4]]".to_string(),
        )),
        false => Ok(Literal { shape, elements }),
    }
}

/// A literal as an expression, and its sort: what is wanted, or where nothing is, what it looks like.
pub(super) fn constant(s: &Sexp, wanted: Option<Sort>) -> Result<(Expr, Sort), Fault> {
    let kind = match wanted {
        Some(Sort::Int) => Some(AttrKind::Int),
        Some(Sort::Bool) => Some(AttrKind::Bool),
        Some(Sort::Ints | Sort::Entries) => Some(AttrKind::Ints),
        Some(Sort::Dims) => Some(AttrKind::Dims),
        Some(Sort::Num) => Some(AttrKind::Num),
        Some(Sort::DType) => Some(AttrKind::DType),
        Some(Sort::Word) => Some(AttrKind::Word),
        Some(sort) => return Err((s.place(), format!("found `{s}`, expected {}", sort.name()))),
        None => None,
    };
    let (attr, sort) = match (kind, s) {
        (Some(k), _) => (literal(s, k)?, k.into()),
        (None, Sexp::List(..)) => (literal(s, AttrKind::Ints)?, Sort::Ints),
        (None, Sexp::Atom(a, _)) => match (a.parse::<i64>(), number(a), a.parse::<DType>(), *a) {
            (Ok(i), ..) => (Attr::Int(i), Sort::Int),
            (_, Some(x), ..) => (Attr::number(x), Sort::Num),
            (_, _, Ok(d), _) => (Attr::DType(d), Sort::DType),
            (.., "true" | "false") => (Attr::Bool(*a == "true"), Sort::Bool),
            _ => (Attr::word(a), Sort::Word),
        },
        (None, Sexp::Apply(_, p)) => return Err((*p, format!("found `{s}`, expected a literal"))),
    };
    Ok((Expr::Lit(Arc::new(attr)), sort))
}
