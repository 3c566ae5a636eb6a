//! Proofs: that a program computes what a model says, step by step.
//!
//! A proof is a graph of terms, *steps* that say of pairs of its values that they are equal on all inputs, and *claims* about other
//! pairs, which follow from the steps because operators over equal operands have equal results. So a step stands for itself: it names the terms that
//! it is `over`, which may be anything, and [`check()`] tries it on random ones through the interpreter. Neither that nor
//! the congruence closure knows of e-graphs, patterns or rules.
//!
//! ```text
//! graph @model(%0 x: f32[4]) {
//!   %1 = const f32[] [1.0]
//!   …
//!   return
//! }
//! claim "y": %5 = %0
//! step "mul-one" exact: %4 = %0 over %0
//! ```
//!
//! Large constants are inputs of the graph: what holds for all tensors holds for weights.

mod check;

pub use check::{Check, Checked, Fault, check};

use crate::closure::Closure;
use crate::eqsat::rules::{Allowance, Exactness};
use brolga_ir::graph::Files;
use brolga_ir::text::{Lexer, ParseError, parse_id, whole};
use brolga_ir::{Constant, Def, Graph, Value, graph};
use rustc_hash::FxHashMap;
use std::fmt;

/// Constants of more elements are inputs of a proof's graph.
const LARGE: i64 = 64;

/// What a proof proves: that two values are equal.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Claim {
    /// What they are: the name of a result.
    pub name: String,
    /// The value of the source.
    pub left: Value,
    /// The value of the program.
    pub right: Value,
}

/// What a step promises.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Promise {
    /// What floating-point arithmetic may see.
    pub exactness: Exactness,
    /// What it may do beyond rounding.
    pub allows: Vec<Allowance>,
}

/// A step: values that are equal, whatever some others are.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Step {
    /// The rule, `decompose` for an operator's definition, or `number` for arithmetic on numbers.
    pub rule: String,
    /// In which sense they are equal.
    pub promise: Promise,
    /// The values that are equal, pair by pair.
    pub sides: Vec<(Value, Value)>,
    /// What stands for anything of its type.
    pub over: Vec<Value>,
}

/// A proof.
#[derive(Clone, PartialEq, Debug)]
pub struct Proof {
    /// The terms; it has no results.
    pub terms: Graph,
    /// What is proved.
    pub claims: Vec<Claim>,
    /// From what.
    pub steps: Vec<Step>,
}

impl Proof {
    /// The proof of claims about a graph's values, of as few of the steps as are told to suffice.
    ///
    /// # Errors
    /// The claims that do not follow.
    pub fn new(terms: &Graph, steps: &[Step], claims: Vec<Claim>) -> Result<Proof, Vec<Claim>> {
        let closure = Closure::of(terms, steps.iter().map(|s| &s.sides[..]));
        let pairs: Vec<(Value, Value)> = claims.iter().map(|c| (c.left, c.right)).collect();
        let Some(needed) = closure.explain(&pairs) else {
            let open = claims.into_iter().filter(|c| !closure.equal(c.left, c.right));
            return Err(open.collect());
        };
        let whole = Proof {
            terms: terms.clone(),
            claims,
            steps: needed.into_iter().map(|k| steps[k].clone()).collect(),
        };
        Ok(whole.pruned())
    }

    /// The same without terms that nothing refers to, and with large constants as inputs.
    fn pruned(mut self) -> Proof {
        let old = std::mem::take(&mut self.terms);
        let mut live = vec![false; old.values.len()];
        self.for_each_value(&mut |v| live[v.0 as usize] = true);
        for node in old.nodes.iter().rev() {
            if node.outputs.iter().any(|o| live[o.0 as usize]) {
                node.inputs.iter().for_each(|v| live[v.0 as usize] = true);
            }
        }
        let mut new = Graph::new(&old.name);
        let mut map: FxHashMap<Value, Value> = FxHashMap::default();
        for input in &old.inputs {
            map.insert(input.value, new.input(&input.name, old.ty(input.value).clone()));
        }
        let is_large = |c: &Constant| c.as_splat().is_none() && c.ty.len().as_const().is_none_or(|n| n > LARGE);
        let constants = (0..)
            .map(Value)
            .zip(&old.values)
            .filter_map(|(v, info)| match info.def {
                Def::Const(c) if live[v.0 as usize] => Some((v, c)),
                _ => None,
            });
        let constants: Vec<(Value, u32)> = constants.collect();
        for (v, c) in &constants {
            let constant = &old.constants[*c as usize];
            if is_large(constant) {
                map.insert(*v, new.input(&format!("constant {c}"), constant.ty.clone()));
            }
        }
        for (v, c) in constants {
            map.entry(v).or_insert_with(|| {
                let c = &old.constants[c as usize];
                // A proof stands by itself, without the model's files.
                match c.as_splat() {
                    Some(_) => new.constant(c.clone()),
                    None => new.dense(c.to_tensor()),
                }
            });
        }
        new.symbols.clone_from(&old.symbols);
        new.guards.clone_from(&old.guards);
        new.strings.clone_from(&old.strings);
        for node in &old.nodes {
            if node.outputs.iter().any(|o| live[o.0 as usize]) {
                let inputs: Vec<Value> = node.inputs.iter().map(|v| map[v]).collect();
                let made = new.add(node.op.clone(), &inputs, &node.origin);
                map.extend(node.outputs.iter().copied().zip(made.expect("it was typed before")));
            }
        }
        self.terms = new;
        self.for_each_value(&mut |v| *v = map[v]);
        self
    }

    fn for_each_value(&mut self, f: &mut dyn FnMut(&mut Value)) {
        for c in &mut self.claims {
            f(&mut c.left);
            f(&mut c.right);
        }
        for s in &mut self.steps {
            for (a, b) in &mut s.sides {
                f(a);
                f(b);
            }
            s.over.iter_mut().for_each(&mut *f);
        }
    }

    /// What a step says, as terms over what it is over: `mul(x, [1.0]) = x`.
    pub fn equation(&self, step: usize) -> String {
        let step = &self.steps[step];
        let side = |v: &Value| self.term(*v, &step.over);
        let sides = step.sides.iter().map(|(a, b)| format!("{} = {}", side(a), side(b)));
        sides.collect::<Vec<_>>().join(", ")
    }

    /// A value as a term over some others; inputs and those are named.
    fn term(&self, v: Value, over: &[Value]) -> String {
        let g = &self.terms;
        match g.def(v) {
            Def::Input(i) => g.inputs[i as usize].name.clone(),
            Def::Const(c) => g.constants[c as usize].to_string(),
            Def::Node(..) if over.contains(&v) => v.to_string(),
            Def::Node(n, k) => {
                let node = &g.nodes[n as usize];
                let operands: Vec<String> = node.inputs.iter().map(|v| self.term(*v, over)).collect();
                let part = if node.outputs.len() > 1 {
                    format!("#{k}")
                } else {
                    String::new()
                };
                format!("{}({}){part}", node.op, operands.join(", "))
            }
        }
    }

    /// Reads a proof.
    ///
    /// # Errors
    /// The first mistake, with line and column.
    pub fn parse(text: &str, files: Files) -> Result<Proof, ParseError> {
        whole(text, |l| {
            let mut proof = Proof {
                terms: graph::parse(l, files)?,
                claims: vec![],
                steps: vec![],
            };
            let known = proof.terms.values.len();
            let value = |l: &mut Lexer| {
                let place = l.place();
                match parse_id(l, '%')? {
                    id if (id as usize) < known => Ok(Value(id)),
                    id => Err(l.error_at(place, format!("%{id} has no definition"))),
                }
            };
            let pair = |l: &mut Lexer| {
                let left = value(l)?;
                l.expect("=")?;
                let place = l.place();
                let right = value(l)?;
                match proof.terms.ty(left) == proof.terms.ty(right) {
                    true => Ok((left, right)),
                    false => {
                        let (a, b) = (proof.terms.ty(left), proof.terms.ty(right));
                        Err(l.error_at(place, format!("{right} is {b}, expected {a} as {left}")))
                    }
                }
            };
            while !l.at_end() {
                if l.eat("claim") {
                    let name = l.string()?;
                    l.expect(":")?;
                    let (left, right) = pair(l)?;
                    proof.claims.push(Claim { name, left, right });
                    continue;
                }
                if !l.eat("step") {
                    return Err(l.unexpected("`claim` or `step`"));
                }
                let rule = l.string()?;
                let promise = Promise::parse(l)?;
                l.expect(":")?;
                let mut sides = vec![pair(l)?];
                while l.eat(",") {
                    sides.push(pair(l)?);
                }
                let mut over = vec![];
                if l.eat("over") {
                    over.push(value(l)?);
                    while l.eat(",") {
                        over.push(value(l)?);
                    }
                }
                proof.steps.push(Step {
                    rule,
                    promise,
                    sides,
                    over,
                });
            }
            Ok(proof)
        })
    }
}

impl Promise {
    fn parse(l: &mut Lexer) -> Result<Promise, ParseError> {
        let exactness = Exactness::ALL.iter().find(|(name, _)| l.eat(name));
        let Some((_, exactness)) = exactness else {
            let names = Exactness::ALL.map(|(name, _)| format!("`{name}`"));
            return Err(l.unexpected(&names.join(" or ")));
        };
        let mut allows = vec![];
        // `finite-weights` is a string to the lexer of graphs.
        while !l.is(":") {
            let place = l.place();
            let name = l.name()?;
            let found = Allowance::ALL.iter().find(|(n, _)| *n == name);
            let names = Allowance::ALL.map(|(n, _)| n).join(", ");
            allows.push(
                found
                    .ok_or_else(|| l.error_at(place, format!("found `{name}`, expected {names}")))?
                    .1,
            );
        }
        Ok(Promise {
            exactness: *exactness,
            allows,
        })
    }
}

impl fmt::Display for Promise {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.exactness.name())?;
        for a in &self.allows {
            write!(f, " {}", brolga_ir::text::name(a.name()))?;
        }
        Ok(())
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "step {:?} {}:", self.rule, self.promise)?;
        for (i, (a, b)) in self.sides.iter().enumerate() {
            write!(f, "{} {a} = {b}", if i > 0 { "," } else { "" })?;
        }
        for (i, v) in self.over.iter().enumerate() {
            write!(f, "{} {v}", if i > 0 { "," } else { " over" })?;
        }
        Ok(())
    }
}

impl fmt::Display for Proof {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.terms)?;
        for c in &self.claims {
            writeln!(f, "claim {:?}: {} = {}", c.name, c.left, c.right)?;
        }
        self.steps.iter().try_for_each(|s| writeln!(f, "{s}"))
    }
}
