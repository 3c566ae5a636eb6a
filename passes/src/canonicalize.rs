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

use crate::pass::{Context, Counts, Setting, Settings, TensorPass, number};
use brolga_ir::graph::Rewriter;
use brolga_ir::ops::Role;
use brolga_ir::{ConstData, Constant, Def, Graph, NodeError, Op, Tensor, Type, Value, dim};
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

impl Settings for Canonicalize {
    const NAME: &'static str = "canonicalize";
    const SUMMARY: &'static str = "removes dead, void and repeated operations and folds small constants";
    const SETTINGS: &'static [Setting<Canonicalize>] = &[Setting {
        name: "limit",
        default: "1024",
        meaning: "the most elements of a constant that is folded",
        get: |p| {
            let given = p.limit != Canonicalize::default().limit;
            given.then(|| p.limit.to_string()).into_iter().collect()
        },
        set: |p, value, _| {
            p.limit = number(value)?;
            Ok(())
        },
    }];
}

impl TensorPass for Canonicalize {
    fn rewrite(&self, g: &Graph, cx: &mut Context) -> Result<Graph, NodeError> {
        counted(g, self.limit, &mut cx.counts)
    }
}

/// The graph without dead, foldable, void and repeated operations.
///
/// # Errors
/// When the graph is not valid.
pub fn canonicalize(g: &Graph, limit: usize) -> Result<Graph, NodeError> {
    counted(g, limit, &mut Counts::default())
}

fn counted(g: &Graph, limit: usize, counts: &mut Counts) -> Result<Graph, NodeError> {
    let mut rewriter = Rewriter::new(g);
    merge_constants(g, &mut rewriter, limit);
    let mut seen: FxHashMap<(Op, Vec<Value>), Vec<Value>> = FxHashMap::default();
    let mut kept = 0;
    let out = rewriter.run(|out, node, inputs| {
        let key = (node.op.clone(), inputs.to_vec());
        if let Some(outs) = seen.get(&key) {
            counts.add("repeated operations merged", 1);
            return Ok(outs.clone());
        }
        let types: Vec<Type> = inputs.iter().map(|&v| out.ty(v).clone()).collect();
        let outs = if !inputs.is_empty() && node.op.is_identity(&types) {
            counts.add("void operations removed", 1);
            vec![inputs[0]]
        } else if let Some(constants) = fold(out, &node.op, inputs, &types, limit) {
            counts.add("operations folded", 1);
            constants.into_iter().map(|c| out.constant(c)).collect()
        } else {
            kept += 1;
            out.add(node.op.clone(), inputs, &node.origin).map_err(|e| e.message)?
        };
        seen.insert(key, outs.clone());
        Ok(outs)
    })?;
    counts.add("dead operations removed", kept - out.nodes.len());
    Ok(out)
}

/// Lets equal small constants be one.
fn merge_constants(g: &Graph, rewriter: &mut Rewriter, limit: usize) {
    let mut seen: FxHashMap<(Type, Vec<u8>), Value> = FxHashMap::default();
    for (i, info) in g.values.iter().enumerate() {
        let Def::Const(c) = info.def else { continue };
        let (v, c) = (Value(i as u32), &g.constants[c as usize]);
        if c.ty.len().as_const().is_some_and(|n| n <= limit as i64)
            && let Some(new) = rewriter.get(v)
        {
            let key = (c.ty.clone(), c.to_tensor().bytes().to_vec());
            rewriter.set(v, *seen.entry(key).or_insert(new));
        }
    }
}

/// The results of an operation on constants, when they are small or one value everywhere.
fn fold(g: &Graph, op: &Op, inputs: &[Value], types: &[Type], limit: usize) -> Option<Vec<Constant>> {
    match op.role() {
        // An index is at hand wherever it is read.
        Role::Source(s) if s.is_index() => return None,
        Role::Source(_) => {}
        role if matches!(role, Role::Store) || role.is_opaque() => return None,
        _ if inputs.is_empty() => return None,
        _ => {}
    }
    let constants: Vec<&Constant> = inputs.iter().map(|&v| g.as_constant(v)).collect::<Option<_>>()?;
    if !op.is_concrete() {
        return None;
    }
    let outs = op.infer(types).ok()?;
    if let ([out], [c], true) = (&outs[..], &constants[..], op.role().keeps_splat())
        && !out.is_empty()
        && let Some(x) = c.as_splat()
    {
        return Some(vec![Constant {
            ty: out.clone(),
            data: ConstData::Splat(x),
        }]);
    }
    // What repeats its operand is an index map wherever it is read; in memory it would only be larger.
    if op.role().movement().is_some_and(|m| m.spreads()) {
        return None;
    }
    // Rules find products of bytes by the casts of weights.
    if let ([x], [y]) = (types, &outs[..])
        && x.dtype.bits() == 8
        && y.dtype.is_float()
        && x.rank() >= 2
    {
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
    use brolga_ir::{Attr, Build, DType, GraphBuilder};

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
