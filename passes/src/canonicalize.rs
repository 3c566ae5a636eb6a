//! `canonicalize`: dead code, small constants, operations that do nothing, and equal operations.
//!
//! ```text
//! %2 = add(%c1, %c2)            -->        %c3 = the sum
//! %3 = reshape{shape: [4]}(%0)             %4 = mul(%0, %c3)
//! %4 = mul(%3, %2)
//! %5 = mul(%3, %2)
//! ```
//!
//! A constant of at most `limit` elements that depends on constants only is evaluated by the reference interpreter; larger
//! ones are the business of kernels that run at compile time. Splats stay splats.

use crate::decompose::copy_leaves;
use crate::pass::{Context, Pass, PassError};
use brolga_ir::{Attr, ConstData, Constant, Def, Graph, NodeError, Op, Tensor, Type, Value, dim};
use rustc_hash::FxHashMap;

/// The pass.
#[derive(Clone, Debug)]
pub struct Canonicalize {
    /// `limit=N`: the most elements of a constant that is folded.
    pub limit: usize,
}

impl Default for Canonicalize {
    fn default() -> Canonicalize {
        Canonicalize { limit: 1024 }
    }
}

impl Pass for Canonicalize {
    fn name(&self) -> &'static str {
        "canonicalize"
    }
    fn options(&self) -> String {
        if self.limit == Canonicalize::default().limit {
            String::new()
        } else {
            format!("limit={}", self.limit)
        }
    }
    fn run(&self, g: &Graph, _: &mut Context) -> Result<Graph, PassError> {
        canonicalize(g, self.limit).map_err(|error| PassError {
            pass: "canonicalize",
            error,
        })
    }
}

/// The graph without dead, foldable, void and repeated operations.
///
/// # Errors
/// When the graph is not valid.
pub fn canonicalize(g: &Graph, limit: usize) -> Result<Graph, NodeError> {
    let mut out = Graph::new(&g.name);
    out.guards.clone_from(&g.guards);
    let mut map = copy_leaves(g, &mut out);
    merge_constants(g, &mut map, limit);
    let mut seen: FxHashMap<(Op, Vec<Value>), Vec<Value>> = FxHashMap::default();
    for node in &g.nodes {
        let inputs: Vec<Value> = node
            .inputs
            .iter()
            .map(|v| map[v.0 as usize].expect("operands come first"))
            .collect();
        let outs = if is_void(&out, &node.op, &inputs) {
            vec![inputs[0]]
        } else if let Some(outs) = seen.get(&(node.op.clone(), inputs.clone())) {
            outs.clone()
        } else if let Some(constants) = fold(&out, &node.op, &inputs, limit) {
            constants.into_iter().map(|c| out.constant(c)).collect()
        } else {
            out.add(node.op.clone(), &inputs, &node.origin)?
        };
        for (o, v) in node.outputs.iter().zip(&outs) {
            map[o.0 as usize] = Some(*v);
        }
        seen.insert((node.op.clone(), inputs), outs);
    }
    for (name, v) in &g.outputs {
        out.outputs
            .push((name.clone(), map[v.0 as usize].expect("outputs are defined")));
    }
    out.prune();
    Ok(out)
}

/// Lets equal small constants be one.
fn merge_constants(g: &Graph, map: &mut [Option<Value>], limit: usize) {
    let mut seen: FxHashMap<(Type, Vec<u8>), Value> = FxHashMap::default();
    for (i, info) in g.values.iter().enumerate() {
        let Def::Const(c) = info.def else { continue };
        let c = &g.constants[c as usize];
        if c.ty.len().as_const().is_some_and(|n| n <= limit as i64)
            && let Some(v) = map[i]
        {
            let key = (c.ty.clone(), c.to_tensor().bytes().to_vec());
            map[i] = Some(*seen.entry(key).or_insert(v));
        }
    }
}

/// True for an operation whose result is its operand.
fn is_void(g: &Graph, op: &Op, inputs: &[Value]) -> bool {
    let Some(&x) = inputs.first() else { return false };
    let ty = g.ty(x);
    match op.name() {
        "reshape" | "broadcast" => op.dims("shape") == ty.shape,
        "transpose" => op.axes("perm").is_sorted(),
        "cast" => op.dtype("to") == ty.dtype,
        "slice" => {
            op.dims("sizes") == ty.shape
                && op.dims("starts").iter().all(|d| d.is(0))
                && op.ints("steps").iter().all(|&s| s == 1)
        }
        "pad" => {
            let zero = |name| op.dims(name).iter().all(|d| d.is(0));
            zero("low") && zero("high") && op.ints("interior").iter().all(|&i| i == 0)
        }
        "concat" => inputs.len() == 1,
        _ => false,
    }
}

/// The results of an operation on constants, when they are small or one value everywhere.
fn fold(g: &Graph, op: &Op, inputs: &[Value], limit: usize) -> Option<Vec<Constant>> {
    if op.name() == "store" || op.def().is_host() || (inputs.is_empty() && op.name() != "dims") {
        return None;
    }
    let symbolic = |a: &Attr| matches!(a, Attr::Dims(ds) if ds.iter().any(|d| d.as_const().is_none()));
    let constants: Vec<&Constant> = inputs.iter().map(|&v| g.as_constant(v)).collect::<Option<_>>()?;
    if op.attrs().iter().any(symbolic) {
        return None;
    }
    let types: Vec<Type> = constants.iter().map(|c| c.ty.clone()).collect();
    let outs = op.infer(&types).ok()?;
    if let ([out], [c], "reshape" | "broadcast" | "transpose" | "slice") = (&outs[..], &constants[..], op.name())
        && !out.is_empty()
        && let Some(x) = c.as_splat()
    {
        return Some(vec![Constant {
            ty: out.clone(),
            data: ConstData::Splat(x),
        }]);
    }
    // A broadcast is an index map wherever it is read; spread out, it would only be larger.
    if op.name() == "broadcast" {
        return None;
    }
    let small = |t: &Type| dim::product(&t.shape).as_const().is_some_and(|n| n <= limit as i64);
    if !outs.iter().all(small) || !types.iter().all(small) {
        return None;
    }
    let tensors: Vec<Tensor> = constants.iter().map(|c| c.to_tensor()).collect();
    let results = op.eval(&tensors).ok()?;
    let constant = |t: Tensor| Constant {
        ty: Type::fixed(t.dtype(), t.shape()),
        data: ConstData::Dense(t),
    };
    Some(results.into_iter().map(constant).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use brolga_ir::{Build, DType, GraphBuilder};

    #[test]
    fn folds_merges_and_drops() {
        let mut g = Graph::new("t");
        let x = g.input("x", Type::fixed(DType::F32, &[4]));
        let mut b = GraphBuilder {
            graph: &mut g,
            origin: "n".into(),
        };
        let one = b.splat(DType::F32, &[4.into()], 1.0).unwrap();
        let sum = b.call("add", &[], &[one, one]).unwrap();
        let same = b.call("reshape", &[Attr::dims(&[4])], &[x]).unwrap();
        let p = b.call("mul", &[], &[same, sum]).unwrap();
        let q = b.call("mul", &[], &[x, sum]).unwrap();
        let dead = b.call("neg", &[], &[q]).unwrap();
        let r = b.call("sub", &[], &[p, q]).unwrap();
        assert_ne!(dead, r);
        g.outputs.push(("r".into(), r));
        let out = canonicalize(&g, 1024).unwrap();
        out.verify().unwrap();
        let names: Vec<&str> = out.nodes.iter().map(|n| n.op.name()).collect();
        assert_eq!(names, ["mul", "sub"]);
        let t = Tensor::from_f32(&[4], &[1.0, 2.0, -3.0, 0.5]);
        assert_eq!(g.eval(std::slice::from_ref(&t)).unwrap(), out.eval(&[t]).unwrap());
        // Above the limit nothing is evaluated.
        assert!(canonicalize(&g, 2).unwrap().nodes.len() > out.nodes.len());
    }
}
