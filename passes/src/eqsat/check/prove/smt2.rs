//! A rule as a question for an SMT solver, in SMT-LIB 2: an answer that shares only the cases with the proof.
//!
//! For every case ([`super`]) the script asks whether there are extents, a point of the result and operands for which the sides differ.
//! Operands are functions of their indices, of which nothing is known; where a rule reshapes, of the position in row-major order. The digits of a
//! position are functions of it. Functions of scalars are unknown, too, but for those of bools and the choice. What the types of
//! left sides demand is asserted, also that they read within their operands; what those of right sides demand is part of the claim.
//!
//! ```text
//! (transpose [1 0] (transpose [1 0] ?x)) => ?x   -->   (define-fun lhs () T0 (?x i0 i1))
//!                                                      (define-fun rhs () T0 (?x i0 i1))
//!                                                      (assert (not (and … (=> (and (<= 0 i0) (< i0 n1) …) (= lhs rhs)))))
//! ```
//!
//! Invariant: `unsat` to every check says that the rule is right for what the script names. `sat` is no such statement where a rule needs a
//! condition that is left out, or arithmetic.

use super::case::{Case, Stop};
use super::term::{Id, Kind, Scalar, of_shape};
use crate::eqsat::choices::Choices;
use crate::eqsat::rules::Rule;
use brolga_ir::dim::{self, Atom, DimOp};
use brolga_ir::index::{Bound, Ix, Term, Var};
use brolga_ir::ops::Coordinate;
use brolga_ir::scalar::{self, Builder, Function, Rule as Takes, V};
use brolga_ir::{DType, Dim, Type};
use std::collections::BTreeSet;
use std::fmt::Write;

#[cfg(test)]
mod tests;

/// The highest ranks of streams: where the first takes too many cases, the next.
const RANKS: [usize; 2] = [3, 2];

/// The most cases of a script.
const MOST_CASES: usize = 1_000;

/// A question.
pub struct Question {
    /// The script: one `(check-sat)` a case.
    pub text: String,
    /// The highest rank of a stream.
    pub rank: usize,
    /// The number of cases.
    pub cases: usize,
}

/// The question whether a rule is right.
///
/// # Errors
/// Why there is none.
pub fn question(rule: &Rule) -> Result<Question, String> {
    const OTHERS: &str =
        "it does more than to move elements and to compute the same of each, or its attributes depend on extents";
    let law = rule.law.as_ref().ok_or("it is not text")?;
    for rank in RANKS {
        let (mut choices, mut cases, mut unlike) = (Choices::default(), vec![], None);
        let limits = loop {
            let made = Case::with(law, rank, &mut choices, Some(vec![]), |case, sides| {
                let script = Script::of(case, sides).ok_or(Stop::Unproved)?;
                unlike = unlike.take().or_else(|| script.unlike());
                Ok((script.text, case.limits))
            });
            match made {
                Ok((text, limits)) => cases.push((text, limits)),
                Err(Stop::Impossible) => {}
                Err(Stop::Unproved) => return Err(OTHERS.into()),
            }
            if let Some(f) = unlike {
                return Err(format!(
                    "it is about what `{f}` computes, of which a question would know nothing"
                ));
            }
            match choices.next() {
                true if cases.len() < MOST_CASES => {}
                more => break (!more).then(|| cases.iter().map(|(_, limits)| *limits)),
            }
        };
        let Some(limits) = limits else { continue };
        let proof = limits.fold(
            super::Proof {
                rank,
                cases: cases.len(),
                limits: super::Limits::default(),
            },
            |all, l| all.with(l),
        );
        if cases.is_empty() {
            return Err("it matches nothing".into());
        }
        let text: String = rule.text().lines().map(|l| format!("; {}\n", l.trim())).collect();
        let mut script = format!(
            "; Rule {} ({}):\n{text}; unsat to every check says that it is right {proof}.\n(set-logic QF_UFNIA)\n",
            rule.name, rule.origin
        );
        for (n, (text, _)) in cases.iter().enumerate() {
            write!(
                script,
                "\n; Case {} of {}.\n(push 1)\n{text}(check-sat)\n(pop 1)\n",
                n + 1,
                cases.len()
            )
            .expect("a string takes all");
        }
        return Ok(Question {
            text: script,
            rank,
            cases: cases.len(),
        });
    }
    Err(format!(
        "it has more than {MOST_CASES} cases for ranks to {}",
        RANKS[RANKS.len() - 1]
    ))
}

/// A place in a term: its position, and the indices where they are known.
#[derive(Clone)]
struct Place {
    flat: Ix,
    each: Option<Vec<Ix>>,
}

/// The script of a case.
struct Script<'c, 'l> {
    case: &'c Case<'l>,
    text: String,
    declared: BTreeSet<String>,
    /// What the variables of index expressions are.
    vars: Vec<String>,
    /// Shapes whose positions are taken apart.
    shapes: Vec<Vec<Dim>>,
    /// Operands are functions of positions.
    flat: bool,
    /// The dtypes that are bool.
    bools: BTreeSet<usize>,
    /// Whether a left side is written.
    left: bool,
    /// What holds where the term that is written is read.
    path: Vec<String>,
    /// That right sides read within their operands.
    reads: Vec<String>,
    /// The unknown functions of left sides and of right ones.
    functions: [BTreeSet<String>; 2],
}

impl<'c, 'l> Script<'c, 'l> {
    /// The script of a case without its check; `None` where it cannot be written.
    fn of(case: &'c Case<'l>, sides: &[(Id, Id)]) -> Option<Script<'c, 'l>> {
        let mut s = Script {
            case,
            text: String::new(),
            declared: BTreeSet::new(),
            vars: vec![],
            shapes: vec![],
            flat: case.terms.iter().any(|t| matches!(t.kind, Kind::Reshape(_))),
            bools: bools(case),
            left: true,
            path: vec![],
            reads: vec![],
            functions: Default::default(),
        };
        for n in 1..=case.symbols {
            let name = format!("n{n}");
            if !case.solution.contains_key(&name) {
                s.line(&format!("(declare-const {name} Int)"));
                s.assert(&format!("(<= 0 {name})"));
            }
        }
        for solved in case.solution.values() {
            s.assert(&format!("(<= 0 {})", dim(solved)?));
        }
        for (a, b) in case.equations.iter().chain(&case.sizes).filter(|(a, b)| a != b) {
            s.assert(&format!("(= {} {})", dim(a)?, dim(b)?));
        }
        let rank = sides.iter().map(|(l, _)| case.terms[*l].shape.len()).max()?;
        for d in 0..rank {
            s.vars.push(format!("i{d}"));
            s.line(&format!("(declare-const i{d} Int)"));
        }
        let mut claims = vec![];
        for (a, b) in case.owed.iter().flatten() {
            claims.push(format!("(= {} {})", dim(a)?, dim(b)?));
        }
        for (n, &(left, right)) in sides.iter().enumerate() {
            let (a, b) = (&case.terms[left].shape, &case.terms[right].shape);
            if a.len() != b.len() || s.sort(left) != s.sort(right) {
                return None;
            }
            for (a, b) in a.iter().zip(b).filter(|(a, b)| a != b) {
                claims.push(format!("(= {} {})", dim(a)?, dim(b)?));
            }
            let each: Vec<Ix> = (0..a.len() as u32).map(|d| Ix::var(Var(d))).collect();
            let within = s.within(&each, a)?;
            s.path = vec![within.clone()];
            let place = s.place(each, a);
            let end = if sides.len() == 1 {
                String::new()
            } else {
                (n + 1).to_string()
            };
            for (name, id, is_left) in [("lhs", left, true), ("rhs", right, false)] {
                s.left = is_left;
                let element = s.element(id, &place)?;
                let sort = s.sort(id);
                s.line(&format!("(define-fun {name}{end} () {sort} {element})"));
            }
            claims.push(format!("(=> {within} (= lhs{end} rhs{end}))"));
        }
        claims.append(&mut s.reads);
        s.assert(&format!("(not {})", all(&claims)));
        Some(s)
    }

    /// A function of scalars that is on one side only.
    fn unlike(&self) -> Option<String> {
        let [left, right] = &self.functions;
        left.symmetric_difference(right).next().cloned()
    }

    fn line(&mut self, line: &str) {
        self.text.push_str(line);
        self.text.push('\n');
    }

    fn assert(&mut self, formula: &str) {
        self.line(&format!("(assert {formula})"));
    }

    /// Declares a function once.
    fn declare(&mut self, name: &str, takes: &[String], gives: &str) {
        if self.declared.insert(name.to_owned()) {
            self.line(&format!("(declare-fun {name} ({}) {gives})", takes.join(" ")));
        }
    }

    /// The sort of a term's elements.
    fn sort(&mut self, id: Id) -> String {
        let dtype = self.case.dtypes.find(self.case.terms[id].dtype);
        if self.bools.contains(&dtype) {
            return "Bool".into();
        }
        let sort = format!("T{dtype}");
        if self.declared.insert(sort.clone()) {
            self.line(&format!("(declare-sort {sort} 0)"));
        }
        sort
    }

    fn place(&self, each: Vec<Ix>, shape: &[Dim]) -> Place {
        let zero = |(ix, n): (Ix, &Dim)| if n.is(1) { Ix::constant(0) } else { ix };
        let each: Vec<Ix> = each.into_iter().zip(shape).map(zero).collect();
        let flat = each
            .iter()
            .zip(shape)
            .fold(Ix::constant(0), |flat, (ix, n)| &flat.scale(n) + ix);
        Place { flat, each: Some(each) }
    }

    /// The indices of a place.
    fn each(&mut self, at: &Place, shape: &[Dim]) -> Option<Vec<Ix>> {
        if let Some(each) = &at.each {
            return Some(each.clone());
        }
        let known = self.shapes.iter().position(|s| s == shape);
        let n = known.unwrap_or(self.shapes.len());
        if known.is_none() {
            self.shapes.push(shape.to_vec());
        }
        let flat = self.ix(&at.flat)?;
        let mut each = vec![];
        for (d, extent) in shape.iter().enumerate() {
            if extent.is(1) {
                each.push(Ix::constant(0));
                continue;
            }
            let digit = format!("digit{n}.{d}");
            self.declare(&digit, &["Int".into()], "Int");
            each.push(Ix::var(Var(self.vars.len() as u32)));
            self.vars.push(format!("({digit} {flat})"));
        }
        let place = self.place(each.clone(), shape);
        let (again, size) = (self.ix(&place.flat)?, dim(&dim::product(shape))?);
        let within = self.within(&each, shape)?;
        self.assert(&format!(
            "(=> (and (<= 0 {flat}) (< {flat} {size})) (and {within} (= {flat} {again})))"
        ));
        Some(each)
    }

    /// The place in an operand that a term reads: what a left side reads is there, what a right side reads has to be.
    fn read(&mut self, each: Vec<Ix>, shape: &[Dim]) -> Option<Place> {
        let place = self.place(each, shape);
        let within = self.within(place.each.as_ref()?, shape)?;
        let is_there = format!("(=> {} {within})", all(&self.path));
        match self.left {
            true => self.assert(&is_there),
            false => self.reads.push(is_there),
        }
        Some(place)
    }

    /// What a term is at a place.
    fn element(&mut self, id: Id, at: &Place) -> Option<String> {
        let case = self.case;
        let term = &case.terms[id];
        let sort = self.sort(id);
        Some(match &term.kind {
            Kind::Leaf(v) => {
                let name = self.variable(*v);
                let each = match self.flat {
                    true => vec![at.flat.clone()],
                    false => at.each.clone()?,
                };
                self.declare(&name, &vec!["Int".to_owned(); each.len()], &sort);
                let each: Option<Vec<String>> = each.iter().map(|ix| self.ix(ix)).collect();
                apply(&name, &each?)
            }
            Kind::NumberOf(v) => {
                let name = format!("{}.number", self.variable(*v));
                self.declare(&name, &[], &sort);
                name
            }
            Kind::Number(x) if sort == "Bool" => x.truth().to_string(),
            Kind::Number(x) => {
                let name = format!("|{x} {sort}|");
                self.declare(&name, &[], &sort);
                name
            }
            Kind::Map(f, operands) => {
                let mut elements = vec![];
                for &o in operands {
                    let shape = &case.terms[o].shape;
                    let place = match *shape == term.shape {
                        true => at.clone(),
                        false => {
                            let each = self.each(at, &term.shape)?;
                            self.place(each, shape)
                        }
                    };
                    elements.push(self.element(o, &place)?);
                }
                self.map(f, operands, &elements, &sort)?
            }
            Kind::Move(op, m, x) => {
                let from = &case.terms[*x].shape;
                let each = self.each(at, &term.shape)?;
                let access = m.source(op, &of_shape(from), &of_shape(&term.shape), &each);
                if !m.fills() && !access.guard.is_empty() {
                    return None;
                }
                let guard = access.guard.iter().map(|b| self.bound(b)).collect::<Option<Vec<_>>>()?;
                self.path.extend(guard.iter().cloned());
                let place = self.read(access.at, from)?;
                let inner = self.element(*x, &place)?;
                self.path.truncate(self.path.len() - guard.len());
                match m.fills() {
                    true => {
                        let fill = format!("|{} {sort}|", m.fill(op));
                        let fill = match &*sort {
                            "Bool" => m.fill(op).truth().to_string(),
                            _ => {
                                self.declare(&fill, &[], &sort);
                                fill
                            }
                        };
                        format!("(ite {} {inner} {fill})", all(&guard))
                    }
                    false => inner,
                }
            }
            Kind::Reshape(x) => {
                let place = Place {
                    flat: at.flat.clone(),
                    each: None,
                };
                self.element(*x, &place)?
            }
            Kind::Concat(axis, operands) => {
                let each = self.each(at, &term.shape)?;
                let mut offset = Dim::ZERO;
                let (mut parts, depth) = (vec![], self.path.len());
                for (n, &o) in operands.iter().enumerate() {
                    let shape = &case.terms[o].shape;
                    let mut each = each.clone();
                    each[*axis] = &each[*axis] + &(&Dim::ZERO - &offset);
                    let index = self.ix(&each[*axis])?;
                    let here = format!("(< {index} {})", dim(&shape[*axis])?);
                    offset = &offset + &shape[*axis];
                    let last = n + 1 == operands.len();
                    if !last {
                        self.path.push(here.clone());
                    }
                    let place = self.read(each, shape)?;
                    let part = self.element(o, &place)?;
                    if !last {
                        self.path.pop();
                        self.path.push(format!("(not {here})"));
                    }
                    parts.push((here, part));
                }
                self.path.truncate(depth);
                let (_, last) = parts.pop()?;
                parts
                    .into_iter()
                    .rev()
                    .fold(last, |rest, (here, part)| format!("(ite {here} {part} {rest})"))
            }
            Kind::Gather(op, g, data, indices) => {
                let (from, by) = (&case.terms[*data].shape, &case.terms[*indices].shape);
                let each = self.each(at, &term.shape)?;
                let types = [of_shape(from), Type::new(DType::I64, by.clone())];
                let mut places = vec![];
                for (d, c) in g.coordinates(op, &types, &each).ok()?.into_iter().enumerate() {
                    places.push(match c {
                        Coordinate::At(ix) => ix,
                        Coordinate::Indexed(place) => {
                            let place = self.read(place, by)?;
                            let (index, sort) = (self.element(*indices, &place)?, self.sort(*indices));
                            let name = format!("index.{sort}");
                            self.declare(&name, &[sort, "Int".into()], "Int");
                            self.vars.push(format!("({name} {index} {})", dim(&from[d])?));
                            Ix::var(Var(self.vars.len() as u32 - 1))
                        }
                    });
                }
                let place = self.read(places, from)?;
                self.element(*data, &place)?
            }
        })
    }

    /// A function of elements: those of bools and the choice are known to a solver.
    fn map(&mut self, f: &Scalar, operands: &[Id], elements: &[String], sort: &str) -> Option<String> {
        let name = match f {
            Scalar::Known(f, _) if f.rule == Takes::Logic => return truths(f, elements),
            Scalar::Known(f, _) if f.rule == Takes::Where => "ite".to_owned(),
            Scalar::Known(f, None) => self.unknown(f.name.to_owned(), operands, sort),
            Scalar::Known(f, Some(to)) => self.unknown(format!("{}.{to}", f.name), operands, sort),
            Scalar::Any(family) => self.unknown(format!("family{family}"), operands, sort),
        };
        Some(apply(&name, elements))
    }

    /// The name of an unknown function for the sorts of these operands.
    fn unknown(&mut self, name: String, operands: &[Id], sort: &str) -> String {
        let takes: Vec<String> = operands.iter().map(|&o| self.sort(o)).collect();
        let full = format!("{name}.{}.{sort}", takes.join("."));
        self.functions[!self.left as usize].insert(name);
        self.declare(&full, &takes, sort);
        full
    }

    /// The name of a variable; the streams that a list's variable stands for are numbered.
    fn variable(&self, v: usize) -> String {
        let vars = &self.case.law.vars;
        let name = &vars[v % vars.len()].0;
        match v / vars.len() {
            0 => name.clone(),
            k => format!("{name}.{k}"),
        }
    }

    /// That a place is in a shape.
    fn within(&self, each: &[Ix], shape: &[Dim]) -> Option<String> {
        let bound = |(index, extent): (&Ix, &Dim)| {
            self.bound(&Bound {
                index: index.clone(),
                extent: extent.clone(),
            })
        };
        Some(all(&each.iter().zip(shape).map(bound).collect::<Option<Vec<_>>>()?))
    }

    fn bound(&self, b: &Bound) -> Option<String> {
        let index = self.ix(&b.index)?;
        Some(format!("(and (<= 0 {index}) (< {index} {}))", dim(&b.extent)?))
    }

    fn ix(&self, ix: &Ix) -> Option<String> {
        let term = |(t, factor): &(Term, Dim)| {
            let t = match t {
                Term::Var(v) => self.vars[v.0 as usize].clone(),
                Term::Reg(_) => return None,
                Term::Div(e, d) => format!("(div {} {})", self.ix(e)?, dim(d)?),
                Term::Mod(e, d) => format!("(mod {} {})", self.ix(e)?, dim(d)?),
                Term::Min(e, d) => min(&self.ix(e)?, &dim(d)?),
            };
            match factor.is(1) {
                true => Some(t),
                false => Some(format!("(* {} {t})", dim(factor)?)),
            }
        };
        let mut terms = ix.terms.iter().map(term).collect::<Option<Vec<_>>>()?;
        if !ix.offset.is(0) {
            terms.push(dim(&ix.offset)?);
        }
        Some(sum(terms))
    }
}

/// The dtypes that functions of bools read or make.
fn bools(case: &Case) -> BTreeSet<usize> {
    let mut out = BTreeSet::new();
    for term in &case.terms {
        let Kind::Map(Scalar::Known(f, to), operands) = &term.kind else {
            continue;
        };
        let operand = |o: &Id| case.dtypes.find(case.terms[*o].dtype);
        let result = case.dtypes.find(term.dtype);
        match f.rule {
            Takes::Logic => out.extend(operands.iter().map(operand).chain([result])),
            Takes::Where => out.extend(operands.first().map(operand)),
            Takes::Order | Takes::Equality | Takes::Test => drop(out.insert(result)),
            _ if *to == Some(DType::Bool) => drop(out.insert(result)),
            _ => {}
        }
    }
    out
}

/// A function of bools as the rows of its table in which it holds.
fn truths(f: &Function, operands: &[String]) -> Option<String> {
    let mut b = Builder::new(&vec![DType::Bool; f.arity]);
    let inputs: Vec<V> = (0..f.arity).map(|i| b.input(i)).collect();
    let result = f.expand(&mut b, &inputs, None).ok()?;
    let body = b.finish(&[result]);
    let mut rows = vec![];
    for row in 0..1u64 << f.arity {
        let bit = |i: usize| row >> i & 1;
        let values = (0..f.arity).map(|i| scalar::Scalar {
            dtype: DType::Bool,
            bits: bit(i),
        });
        if body.eval_scalars(&values.collect::<Vec<_>>())[0].number().truth() {
            let literals = operands.iter().enumerate().map(|(i, o)| match bit(i) {
                1 => o.clone(),
                _ => format!("(not {o})"),
            });
            rows.push(all(&literals.collect::<Vec<_>>()));
        }
    }
    Some(match &rows[..] {
        [] => "false".into(),
        [one] => one.clone(),
        _ => format!("(or {})", rows.join(" ")),
    })
}

fn apply(name: &str, arguments: &[String]) -> String {
    match arguments {
        [] => name.to_owned(),
        _ => format!("({name} {})", arguments.join(" ")),
    }
}

fn all(claims: &[String]) -> String {
    match claims {
        [] => "true".into(),
        [one] => one.clone(),
        _ => format!("(and {})", claims.join(" ")),
    }
}

fn sum(mut terms: Vec<String>) -> String {
    match terms.len() {
        0 => "0".into(),
        1 => terms.remove(0),
        _ => format!("(+ {})", terms.join(" ")),
    }
}

fn min(a: &str, b: &str) -> String {
    format!("(ite (<= {a} {b}) {a} {b})")
}

fn integer(n: i64) -> String {
    match n {
        0.. => n.to_string(),
        _ => format!("(- {})", n.unsigned_abs()),
    }
}

/// A symbolic integer; `None` where it is beyond 64 bits.
fn dim(d: &Dim) -> Option<String> {
    if let Some(n) = d.as_const() {
        return Some(integer(n));
    }
    let atom = |a: &Atom| {
        Some(match a {
            Atom::Sym(name) => name.to_string(),
            Atom::TooLarge => return None,
            Atom::Op(op, a, b) => {
                let (a, b) = (dim(a)?, dim(b)?);
                match op {
                    DimOp::FloorDiv => format!("(div {a} {b})"),
                    DimOp::CeilDiv => format!("(- (div (- {a}) {b}))"),
                    DimOp::Mod => format!("(mod {a} {b})"),
                    DimOp::Min => min(&a, &b),
                    DimOp::Max => format!("(ite (<= {a} {b}) {b} {a})"),
                }
            }
        })
    };
    let term = |(atoms, factor): (&[Atom], i64)| {
        let atoms = atoms.iter().map(atom).collect::<Option<Vec<_>>>()?;
        let factor = (factor != 1 || atoms.is_empty()).then(|| integer(factor));
        let factors: Vec<String> = factor.into_iter().chain(atoms).collect();
        Some(match &factors[..] {
            [one] => one.clone(),
            _ => format!("(* {})", factors.join(" ")),
        })
    };
    Some(sum(d.terms().into_iter().map(term).collect::<Option<Vec<_>>>()?))
}
