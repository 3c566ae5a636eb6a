//! ONNX operators, one file each or one a family. To add one is to write its function and its line in [`TABLE`].
//!
//! A function gets the importer and its node and returns the node's results in order (fewer when the rest is optional
//! and rare; a result that is used but not returned becomes an "unsupported" error). Versions of the operator set are
//! told apart inside.

use super::emit::One;
use super::error::{Fail, unsupported};
use super::import::Importer;
use super::node::{self, NodeCtx};
use brolga_ir::{DType, Value};

mod activation;
mod arg;
mod arg_pool;
mod attention;
mod cast;
mod constant;
mod control;
mod conv;
mod cumulative;
mod depth;
mod dropout;
mod einsum;
mod elementwise;
mod gather;
mod image;
mod loss;
mod matmul;
mod normalization;
mod pad;
mod pool;
mod quantize;
mod reduce;
mod reshape;
mod resize;
mod rotary;
mod scatter;
mod signal;
mod slice;
mod softmax;

/// What an operator's function returns.
pub type Outcome = Result<Vec<Value>, Fail>;
/// An operator's function.
pub type Handler = for<'m> fn(&mut Importer<'m>, &NodeCtx<'m>) -> Outcome;

/// One result.
fn one(v: One) -> Outcome {
    v.map(|v| vec![v])
}

/// ONNX's own operators, sorted.
static TABLE: &[(&str, Handler)] = &[
    ("Abs", elementwise::unary),
    ("Acos", elementwise::unary),
    ("Acosh", elementwise::unary),
    ("Add", elementwise::binary),
    ("AffineGrid", image::affine_grid),
    ("And", elementwise::binary),
    ("ArgMax", arg::arg_reduce),
    ("ArgMin", arg::arg_reduce),
    ("Asin", elementwise::unary),
    ("Asinh", elementwise::unary),
    ("Atan", elementwise::unary),
    ("Atanh", elementwise::unary),
    ("Attention", attention::attention),
    ("AveragePool", pool::average),
    ("BatchNormalization", normalization::batch),
    ("BitCast", cast::bit_cast),
    ("BitShift", elementwise::bit_shift),
    ("BitwiseAnd", elementwise::binary),
    ("BitwiseNot", elementwise::unary),
    ("BitwiseOr", elementwise::binary),
    ("BitwiseXor", elementwise::binary),
    ("BlackmanWindow", signal::window),
    ("Cast", cast::cast),
    ("CastLike", cast::cast_like),
    ("CausalConvWithState", conv::causal),
    ("Ceil", elementwise::unary),
    ("Celu", activation::celu),
    ("CenterCropPad", image::center_crop_pad),
    ("Clip", activation::clip),
    ("Compress", gather::compress),
    ("Concat", slice::concat),
    ("Constant", constant::constant),
    ("ConstantOfShape", constant::constant_of_shape),
    ("Conv", conv::conv),
    ("ConvInteger", quantize::conv_integer),
    ("ConvTranspose", conv::conv_transpose),
    ("Cos", elementwise::unary),
    ("Cosh", elementwise::unary),
    ("CumProd", cumulative::cumulative),
    ("CumSum", cumulative::cumulative),
    ("DepthToSpace", depth::depth_to_space),
    ("DequantizeLinear", quantize::dequantize),
    ("Div", elementwise::binary),
    ("Dropout", dropout::dropout),
    ("DynamicQuantizeLinear", quantize::dynamic_quantize),
    ("Einsum", einsum::einsum),
    ("Elu", activation::elu),
    ("Equal", elementwise::binary),
    ("Erf", elementwise::unary),
    ("Exp", elementwise::unary),
    ("Expand", reshape::expand),
    ("EyeLike", constant::eye_like),
    ("Flatten", reshape::flatten),
    ("Floor", elementwise::unary),
    ("Gather", gather::gather),
    ("GatherElements", gather::gather_elements),
    ("GatherND", gather::gather_nd),
    ("Gelu", activation::gelu),
    ("Gemm", matmul::gemm),
    ("GlobalAveragePool", pool::global_average),
    ("GlobalLpPool", pool::global_lp),
    ("GlobalMaxPool", pool::global_max),
    ("Greater", elementwise::binary),
    ("GreaterOrEqual", elementwise::binary),
    ("GroupNormalization", normalization::group),
    ("HammingWindow", signal::window),
    ("HannWindow", signal::window),
    ("HardSigmoid", activation::hard_sigmoid),
    ("HardSwish", activation::hard_swish),
    ("Hardmax", softmax::hardmax),
    ("Identity", reshape::identity),
    ("If", control::if_),
    ("InstanceNormalization", normalization::instance),
    ("IsInf", elementwise::is_inf),
    ("IsNaN", elementwise::unary),
    ("LRN", normalization::lrn),
    ("LayerNormalization", normalization::layer),
    ("LeakyRelu", activation::leaky_relu),
    ("Less", elementwise::binary),
    ("LessOrEqual", elementwise::binary),
    ("Log", elementwise::unary),
    ("LogSoftmax", softmax::softmax),
    ("LpNormalization", normalization::lp),
    ("LpPool", pool::lp),
    ("MatMul", matmul::matmul),
    ("MatMulInteger", quantize::matmul_integer),
    ("Max", elementwise::variadic),
    ("MaxPool", pool::max),
    ("MaxUnpool", arg_pool::unpool),
    ("Mean", elementwise::mean),
    ("MeanVarianceNormalization", normalization::mean_variance),
    ("Min", elementwise::variadic),
    ("Mish", elementwise::unary),
    ("Mod", elementwise::modulo),
    ("Mul", elementwise::binary),
    ("Neg", elementwise::unary),
    ("NegativeLogLikelihoodLoss", loss::negative_log_likelihood),
    ("Not", elementwise::unary),
    ("OneHot", gather::one_hot),
    ("Or", elementwise::binary),
    ("PRelu", activation::prelu),
    ("Pad", pad::pad),
    ("Pow", elementwise::pow),
    ("QLinearConv", quantize::qlinear_conv),
    ("QLinearMatMul", quantize::qlinear_matmul),
    ("QuantizeLinear", quantize::quantize),
    ("RMSNormalization", normalization::rms),
    ("Range", constant::range),
    ("Reciprocal", elementwise::unary),
    ("ReduceL1", reduce::reduce),
    ("ReduceL2", reduce::reduce),
    ("ReduceLogSum", reduce::reduce),
    ("ReduceLogSumExp", reduce::reduce),
    ("ReduceMax", reduce::reduce),
    ("ReduceMean", reduce::reduce),
    ("ReduceMin", reduce::reduce),
    ("ReduceProd", reduce::reduce),
    ("ReduceSum", reduce::reduce),
    ("ReduceSumSquare", reduce::reduce),
    ("Relu", activation::relu),
    ("Reshape", reshape::reshape),
    ("Resize", resize::resize),
    ("ReverseSequence", gather::reverse_sequence),
    ("RotaryEmbedding", rotary::rotary),
    ("Round", elementwise::unary),
    ("Scatter", scatter::elements),
    ("ScatterElements", scatter::elements),
    ("ScatterND", scatter::nd),
    ("Selu", activation::selu),
    ("Shape", constant::shape),
    ("Shrink", activation::shrink),
    ("Sigmoid", elementwise::unary),
    ("Sign", elementwise::unary),
    ("Sin", elementwise::unary),
    ("Sinh", elementwise::unary),
    ("Size", constant::shape),
    ("Slice", slice::slice),
    ("Softmax", softmax::softmax),
    ("SoftmaxCrossEntropyLoss", loss::softmax_cross_entropy),
    ("Softplus", elementwise::unary),
    ("Softsign", elementwise::unary),
    ("SpaceToDepth", depth::space_to_depth),
    ("Split", slice::split),
    ("Sqrt", elementwise::unary),
    ("Squeeze", reshape::squeeze),
    ("Sub", elementwise::binary),
    ("Sum", elementwise::variadic),
    ("SwiGLU", activation::swiglu),
    ("Swish", activation::swish),
    ("Tan", elementwise::unary),
    ("Tanh", elementwise::unary),
    ("TensorScatter", scatter::tensor_scatter),
    ("ThresholdedRelu", activation::thresholded_relu),
    ("Tile", reshape::tile),
    ("TopK", arg::top_k),
    ("Transpose", reshape::transpose),
    ("Trilu", gather::trilu),
    ("Unsqueeze", reshape::unsqueeze),
    ("Upsample", resize::upsample),
    ("Where", elementwise::select),
    ("Xor", elementwise::binary),
];

/// Operators whose functions compose their results of several steps of arithmetic, sorted. On 16-bit floats such an
/// operator is computed in f32 and rounded once, like one that the IR has whole.
static COMPOSED: &[&str] = &[
    "AffineGrid",
    "Celu",
    "Elu",
    "GlobalLpPool",
    "HardSigmoid",
    "HardSwish",
    "LpNormalization",
    "LpPool",
    "Mean",
    "MeanVarianceNormalization",
    "NegativeLogLikelihoodLoss",
    "ReduceL1",
    "ReduceSumSquare",
    "Resize",
    "RotaryEmbedding",
    "Selu",
    "Shrink",
    "SoftmaxCrossEntropyLoss",
    "Sum",
    "SwiGLU",
    "Swish",
    "Upsample",
];

/// Imports a node by its operator's function, rounding results of 16 bits once.
///
/// # Errors
/// Those of the function.
pub fn run<'m>(im: &mut Importer<'m>, ctx: &NodeCtx<'m>, handler: Handler) -> Outcome {
    let narrow = |v: &Value| matches!(im.dtype(*v), DType::F16 | DType::BF16);
    let composed = COMPOSED.binary_search(&ctx.op()).is_ok();
    let Some(first) = ctx.inputs.iter().flatten().copied().find(narrow).filter(|_| composed) else {
        return handler(im, ctx);
    };
    let dtype = im.dtype(first);
    let mut wide = vec![];
    for v in &ctx.inputs {
        wide.push(match v {
            Some(v) => Some(im.widen(*v)?),
            None => None,
        });
    }
    let results = im.rerun(ctx, wide)?;
    let back = |v: Value| match im.dtype(v) {
        DType::F32 => im.cast(v, dtype),
        _ => Ok(v),
    };
    results.into_iter().map(back).collect()
}

/// The function of an operator of a domain (empty for ONNX's own).
pub fn lookup(domain: &str, op: &str) -> Option<Handler> {
    if !domain.is_empty() {
        return None;
    }
    TABLE.binary_search_by_key(&op, |e| e.0).ok().map(|i| TABLE[i].1)
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_tables_are_sorted() {
        assert!(super::TABLE.windows(2).all(|w| w[0].0 < w[1].0));
        assert!(super::COMPOSED.is_sorted_by(|a, b| a < b));
        assert!(super::COMPOSED.iter().all(|op| super::lookup("", op).is_some()));
    }
}
