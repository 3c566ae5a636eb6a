//! Operators that choose and join features: `ArrayFeatureExtractor`, `FeatureVectorizer`, `ZipMap`.

use super::*;
use brolga_ir::{DType, dim::product};

/// `ArrayFeatureExtractor`: elements of the last axis by position.
pub fn array_feature_extractor(graph: &mut Builder<'_>, ctx: &NodeCtx<'_>) -> Outcome {
    ctx.arity(2, 2)?;
    let (mut x, indices) = (ctx.input(0)?, ctx.input(1)?);
    if graph.rank(x) < 2 {
        x = graph.rows(x)?;
    }
    let n = graph.ty(indices).len();
    let indices = graph.reshape(indices, vec![n])?;
    let axis = graph.rank(x) - 1;
    graph.check_indices(x, indices, &[axis])?;
    one(graph.gather(axis, x, indices))
}

/// `FeatureVectorizer`: the features of all operands behind each other, as f32; as many of each as `inputdimensions` says, with zeros
/// for those that are not there.
pub fn feature_vectorizer(graph: &mut Builder<'_>, ctx: &NodeCtx<'_>) -> Outcome {
    let dims = ctx.ints("inputdimensions")?.unwrap_or_default();
    let mut parts = vec![];
    for (i, x) in ctx.variadic()?.into_iter().enumerate() {
        let x = match graph.rank(x) {
            1 => graph.rows(x)?,
            0 => {
                return Err(Fail::Bad(format!(
                    "operand {i} is {}, expected rank 1 or more",
                    graph.ty(x)
                )));
            }
            _ => x,
        };
        let shape = graph.shape(x);
        let x = graph.reshape(x, vec![shape[0].clone(), product(&shape[1..])])?;
        let mut x = graph.cast(x, DType::F32)?;
        if let Some(&want) = dims.get(i) {
            let have = graph.shape(x)[1].clone();
            let Some(n) = have.as_const() else {
                return unsupported(format!("{want} of {have} features"));
            };
            if n > want {
                x = graph.slice_axis(x, 1, Dim::ZERO, Dim::Const(want))?;
            } else if n < want {
                let (none, more) = (vec![Dim::ZERO; 2], vec![Dim::ZERO, Dim::Const(want - n)]);
                x = graph.pad(x, none, more, vec![0; 2], 0.0)?;
            }
        }
        parts.push(x);
    }
    let rows = graph.shape(parts[0])[0].clone();
    let mut fitted = vec![];
    for x in parts {
        let mine = graph.shape(x)[0].clone();
        graph.require_equal(&mine, &rows)?;
        fitted.push(graph.fit(x, 0, &rows)?);
    }
    one(graph.concat(1, &fitted))
}

/// `ZipMap`: where ONNX has a sequence of maps from labels to probabilities, the probabilities `[N, C]` are the result, in the order
/// of the classifier's labels.
pub fn zip_map(graph: &mut Builder<'_>, ctx: &NodeCtx<'_>) -> Outcome {
    ctx.arity(1, 1)?;
    one(graph.rows(ctx.input(0)?))
}
