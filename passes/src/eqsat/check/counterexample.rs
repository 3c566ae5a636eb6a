//! A counterexample: both sides of a rule as graphs of the same inputs, values of those, and what comes out.

use brolga_ir::{Graph, Number, Tensor, Value};
use std::fmt;

/// How two results differ.
#[derive(Clone, PartialEq, Debug)]
pub struct Difference {
    /// For people: the first element that does, and both values.
    pub text: String,
    /// How far results may be apart, over the largest magnitude of the left one; `None` where every bit counts.
    pub tolerance: Option<f64>,
}

/// Operands on which the sides of a rule differ.
#[derive(Clone, Debug)]
pub struct Counterexample {
    /// How they differ, or why there is no right side.
    pub difference: Difference,
    /// The left side: a graph with the output `y`.
    pub left: Graph,
    /// The right side, of the same inputs; `None` where it cannot be made.
    pub right: Option<Graph>,
    /// The values of the inputs.
    pub inputs: Vec<Tensor>,
    /// What the left side and the right one give; `None` where one cannot be evaluated.
    pub results: Option<[Tensor; 2]>,
}

impl Counterexample {
    /// Two values of a graph that differ.
    pub(super) fn new(g: &Graph, left: Value, right: Value, inputs: &[Tensor], difference: Difference) -> Box<Self> {
        let (left, right) = (side(g, "left", left), side(g, "right", right));
        let result = |g: &Graph| g.eval(inputs).ok()?.pop();
        let results = result(&left).zip(result(&right)).map(|(l, r)| [l, r]);
        Box::new(Counterexample {
            difference,
            left,
            right: Some(right),
            inputs: inputs.to_vec(),
            results,
        })
    }

    /// A left side that the rule makes nothing valid of.
    pub(super) fn without_right(g: &Graph, left: Value, inputs: &[Tensor], why: String) -> Self {
        Counterexample {
            difference: Difference {
                text: why,
                tolerance: None,
            },
            left: side(g, "left", left),
            right: None,
            inputs: inputs.to_vec(),
            results: None,
        }
    }

    /// How large it is: elements of all values of both sides, and operations.
    pub fn size(&self) -> usize {
        let elements = |g: &Graph| -> i64 { g.values.iter().filter_map(|v| v.ty.len().as_const()).sum() };
        let one = |g: &Graph| elements(g) as usize + g.nodes.len();
        one(&self.left) + self.right.as_ref().map_or(0, one)
    }
}

/// What computes a value of a graph, as a graph.
fn side(g: &Graph, name: &str, value: Value) -> Graph {
    let mut g = g.clone();
    g.name = name.into();
    g.outputs = vec![("y".into(), value)];
    // Where a node came from says nothing here.
    g.nodes.iter_mut().for_each(|n| n.origin = "".into());
    g.prune();
    g
}

/// A number as the text of graphs has it: the sign of a zero, few digits where few do.
pub(super) fn shown(x: Number) -> String {
    match x {
        Number::Float(x) => format!("{x:?}"),
        Number::Int(i) => i.to_string(),
    }
}

/// All elements of a tensor, as the text of graphs writes numbers.
fn elements(t: &Tensor) -> String {
    const MOST: usize = 64;
    let shown: Vec<String> = t.iter().take(MOST).map(shown).collect();
    let more = if t.len() > MOST { ", …" } else { "" };
    format!("{}{:?} [{}{more}]", t.dtype(), t.shape(), shown.join(", "))
}

impl fmt::Display for Counterexample {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.difference.text)?;
        for g in [Some(&self.left), self.right.as_ref()].into_iter().flatten() {
            let text = g.to_string();
            text.trim_end().lines().try_for_each(|l| write!(f, "\n  {l}"))?;
        }
        for (input, t) in self.left.inputs.iter().zip(&self.inputs) {
            write!(f, "\n  {} = {}", input.name, elements(t))?;
        }
        if let Some([left, right]) = &self.results {
            write!(f, "\n  left = {}\n  right = {}", elements(left), elements(right))?;
        }
        Ok(())
    }
}
