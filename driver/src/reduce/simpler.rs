//! Candidates that have as many nodes or fewer, and are simpler: single nodes bypassed, fewer outputs and inputs, constants of one number, smaller
//! extents.

use super::Case;
use crate::levels::specialise;
use brolga_ir::graph::Rewriter;
use brolga_ir::{Attr, ConstData, Constant, Def, Dim, Graph, Number, Op, Tensor, Type, Value};
use std::collections::BTreeSet;
use std::ops::Range;

/// Numbers that constants become: nothing for sums, nothing for products, and one that is neither.
const NUMBERS: [f64; 3] = [0.0, 1.0, 0.5];

/// Sizes that symbols become where inputs do not tell them.
const SIZES: [i64; 4] = [1, 2, 3, 8];

/// The case with symbols that are numbers: those that its inputs tell, or else small ones.
pub fn sized(case: &Case) -> Vec<Case> {
    let g = &case.graph;
    if g.symbols.is_empty() {
        return vec![];
    }
    let with = |sizes: Vec<(String, i64)>| {
        let graph = specialise(g, &sizes).ok()?;
        Some(Case { graph, ..case.clone() })
    };
    let named = |n: i64| g.symbols.iter().map(|s| (s.to_string(), n)).collect();
    match &case.inputs {
        Some(inputs) => {
            let bound = g.bind(inputs).unwrap_or_default();
            with(bound.into_iter().map(|(s, n)| (s.to_string(), n)).collect())
                .into_iter()
                .collect()
        }
        None => SIZES.iter().filter_map(|n| with(named(*n))).collect(),
    }
}

/// The case without some outputs, where any are left.
pub fn without_outputs(case: &Case, which: Range<usize>) -> Option<Case> {
    let mut graph = case.graph.clone();
    let mut n = 0..;
    graph.outputs.retain(|_| n.next().is_none_or(|n| !which.contains(&n)));
    graph.prune();
    (!graph.outputs.is_empty()).then(|| Case { graph, ..case.clone() })
}

/// The case in which a node's only result is one of its operands, of those with its type, or of the operands of its operands.
pub fn bypassed(case: &Case, node: usize) -> Vec<Case> {
    let g = &case.graph;
    let [result] = g.nodes[node].outputs[..] else {
        return vec![];
    };
    let makers = g.nodes[node].inputs.iter().filter_map(|v| match g.def(*v) {
        Def::Node(n, _) => Some(&g.nodes[n as usize].inputs),
        _ => None,
    });
    let near: BTreeSet<Value> = g.nodes[node].inputs.iter().chain(makers.flatten()).copied().collect();
    let same = near.into_iter().filter(|v| g.ty(*v) == g.ty(result));
    same.map(|v| {
        let mut graph = g.clone();
        replace(&mut graph, result, v);
        graph.prune();
        Case { graph, ..case.clone() }
    })
    .collect()
}

/// Puts a value in the place of another one.
fn replace(g: &mut Graph, old: Value, new: Value) {
    let operands = g.nodes.iter_mut().flat_map(|n| &mut n.inputs);
    let reads = g.reads.iter_mut().map(|r| &mut r.value);
    let places = operands.chain(g.outputs.iter_mut().map(|(_, v)| v)).chain(reads);
    places.filter(|v| **v == old).for_each(|v| *v = new);
}

/// The case without an input: nothing reads it, or what reads it reads another one, or, where inputs are not told, a number.
pub fn without_input(case: &Case, which: usize) -> Vec<Case> {
    let g = &case.graph;
    let old = &g.inputs[which];
    let ty = g.ty(old.value);
    let mut others: Vec<Graph> = vec![];
    let is_read = g.nodes.iter().any(|n| n.inputs.contains(&old.value)) || g.roots().any(|v| v == old.value);
    if !is_read {
        others.push(g.clone());
    } else {
        for i in g.inputs.iter().filter(|i| i.value != old.value && g.ty(i.value) == ty) {
            let mut graph = g.clone();
            replace(&mut graph, old.value, i.value);
            others.push(graph);
        }
        let fixed = ty.shape.iter().all(|d| d.as_const().is_some());
        if case.inputs.is_none() && fixed {
            others.extend(NUMBERS.map(|x| {
                let mut graph = g.clone();
                let number = graph.constant(splat_of(ty, x));
                replace(&mut graph, old.value, number);
                graph
            }));
        }
    }
    let dropped = |graph: Graph| {
        let inputs = case.inputs.clone().map(|mut t| {
            t.remove(which);
            t
        });
        Some(Case {
            graph: drop_input(&graph, which)?,
            inputs,
        })
    };
    others.into_iter().filter_map(dropped).collect()
}

/// The graph without an input that nothing reads.
fn drop_input(g: &Graph, which: usize) -> Option<Graph> {
    let all = vec![true; g.nodes.len()];
    let (mut out, from) = super::keep(g, &all)?;
    // Outputs that are inputs or constants, and inputs that nothing reads, are none of the nodes' business.
    for (k, i) in g.inputs.iter().enumerate() {
        if k != which && !from.contains(&i.value) {
            out.input(&i.name, g.ty(i.value).clone());
        }
    }
    let in_order: Vec<&str> = out.inputs.iter().map(|i| &*i.name).collect();
    let wanted: Vec<&str> = g
        .inputs
        .iter()
        .enumerate()
        .filter(|(k, _)| *k != which)
        .map(|(_, i)| &*i.name)
        .collect();
    (in_order == wanted && out.outputs.len() == g.outputs.len()).then_some(out)
}

fn splat_of(ty: &Type, x: f64) -> Constant {
    let number = match ty.dtype.is_real() {
        true => Number::Float(x),
        false => Number::Int(x as i128),
    };
    Constant {
        ty: ty.clone(),
        data: ConstData::Splat(number),
    }
}

/// The case with a constant that is one number everywhere; none where it is that already.
pub fn splat(case: &Case, which: usize) -> Vec<Case> {
    match case.graph.constants.get(which) {
        Some(c) if !matches!(c.data, ConstData::Splat(_)) && c.ty.dtype != brolga_ir::DType::Str => {
            let with = |x| {
                let mut graph = case.graph.clone();
                graph.constants[which] = splat_of(&c.ty, x);
                Case { graph, ..case.clone() }
            };
            NUMBERS.map(with).into()
        }
        _ => vec![],
    }
}

/// The extents of inputs and constants above 1, the largest first.
pub fn extents(g: &Graph) -> Vec<i64> {
    let given = g.values.iter().filter(|v| !matches!(v.def, Def::Node(..)));
    let all: BTreeSet<i64> = given
        .flat_map(|v| v.ty.shape.iter().filter_map(Dim::as_const))
        .collect();
    all.into_iter().rev().filter(|n| *n > 1).collect()
}

/// What becomes of attributes when an extent becomes another.
#[derive(Clone, Copy)]
enum Follow {
    /// Lists of extents and of integers do where they are the extent.
    Equal,
    /// Only lists of extents do.
    Extents,
    /// Multiples of it do as well.
    Multiples,
}

/// The case with extents `n` that are `m`, in ways of which each may fit.
pub fn resized(case: &Case, n: i64, m: i64) -> Vec<Case> {
    let with = |follow| {
        let graph = resize(&case.graph, n, m, follow)?;
        let inputs = match &case.inputs {
            None => None,
            Some(inputs) => {
                let shapes = graph
                    .inputs
                    .iter()
                    .map(|i| brolga_ir::dim::constants(&graph.ty(i.value).shape));
                let cut = |(t, shape): (&Tensor, Option<Vec<usize>>)| Some(corner(t, &shape?));
                Some(inputs.iter().zip(shapes).map(cut).collect::<Option<_>>()?)
            }
        };
        Some(Case { graph, inputs })
    };
    let ways = [Follow::Equal, Follow::Extents, Follow::Multiples];
    ways.into_iter().filter_map(with).collect()
}

fn resize(g: &Graph, n: i64, m: i64, follow: Follow) -> Option<Graph> {
    let number = |x: i64| match follow {
        Follow::Multiples if x % n == 0 => x / n * m,
        _ if x == n => m,
        _ => x,
    };
    let extent = |d: &Dim| d.as_const().map_or_else(|| d.clone(), |x| Dim::Const(number(x)));
    let shape = |t: &Type| Type::new(t.dtype, t.shape.iter().map(extent).collect::<Vec<_>>());
    let mut rewriter = Rewriter::with_types(g, &shape);
    for c in &mut rewriter.graph.constants {
        let ty = shape(&c.ty);
        if ty != c.ty {
            let data = match &c.data {
                ConstData::Splat(x) => ConstData::Splat(*x),
                _ => ConstData::Dense(corner(&c.to_tensor(), &brolga_ir::dim::constants(&ty.shape)?)),
            };
            *c = Constant { ty, data };
        }
    }
    for v in &mut rewriter.graph.values {
        v.ty = match v.def {
            Def::Const(c) => rewriter.graph.constants[c as usize].ty.clone(),
            _ => continue,
        };
    }
    rewriter.graph.defaults.clear();
    let attribute = |a: &Attr| match (a, follow) {
        (Attr::Dims(ds), _) => Attr::Dims(ds.iter().map(extent).collect()),
        (Attr::Ints(is), Follow::Equal | Follow::Multiples) => Attr::Ints(is.iter().map(|i| number(*i)).collect()),
        (Attr::Int(i), Follow::Equal | Follow::Multiples) => Attr::Int(number(*i)),
        (a, _) => a.clone(),
    };
    let graph = rewriter.run(|out, node, inputs| {
        let op = Op::of(node.op.def(), node.op.attrs().iter().map(attribute).collect())?;
        out.add(op, inputs, &node.origin).map_err(|e| e.message)
    });
    graph.ok()
}

/// The first elements of a tensor along every axis.
fn corner(t: &Tensor, shape: &[usize]) -> Tensor {
    if t.shape() == shape {
        return t.clone();
    }
    let from = t.shape().to_vec();
    Tensor::from_fn(t.dtype(), shape, |i| {
        let (mut rest, mut at, mut stride) = (i, 0, 1);
        for (new, old) in shape.iter().zip(&from).rev() {
            at += rest % new * stride;
            rest /= new;
            stride *= old;
        }
        t.get(at)
    })
}
