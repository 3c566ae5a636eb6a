//! ONNX operators, one file each or one a family. To add one is to write its function and its line in [`TABLE`].
//!
//! A function gets the builder of the graph and its node, and returns the node's results in order (fewer when the rest is optional
//! and rare; a result that is used but not returned becomes an "unsupported" error). Versions of the operator set are
//! told apart inside. An element-wise operator of the IR has no function of its own: its line names it.

use super::builder::{Builder, One};
use super::error::{Fail, unsupported};
use super::import::{Importer, Slot, domain};
use super::node::{self, NodeCtx};
use brolga_ir::{DType, Value};

mod activation;
mod arg;
mod arg_pool;
mod attention;
mod cast;
mod col2im;
mod constant;
mod control;
mod conv;
mod cumulative;
mod deform;
mod depth;
mod det;
mod dropout;
mod einsum;
mod elementwise;
mod fourier;
mod gather;
mod grid_sample;
mod image;
mod interpolate;
mod linear_attention;
mod loops;
mod loss;
mod matmul;
mod mel;
mod microsoft;
mod ml;
mod nms;
mod normalization;
mod pad;
mod pool;
mod preview;
mod quantize;
mod random;
mod recurrent;
mod reduce;
mod reshape;
mod resize;
mod roi;
mod rotary;
mod sample;
mod scatter;
pub mod sequence;
mod signal;
mod slice;
mod softmax;
mod sort;
mod text;
mod tfidf;
mod training;
mod unique;

/// What an operator's function returns.
pub type Outcome = Result<Vec<Value>, Fail>;

/// Imports a node with the walk over the model; its operands are what their names stand for.
pub type Walker = for<'m> fn(&mut Importer<'m>, &NodeCtx<'m>, &[Slot]) -> Result<Vec<Slot>, Fail>;

/// What imports a node of an operator.
#[derive(Clone, Copy)]
pub enum Handler {
    /// A function of its own.
    Node(fn(&mut Builder<'_>, &NodeCtx<'_>) -> Outcome),
    /// One that takes the operands in its way, and the element-wise operator of the IR that they are for.
    Map(fn(&mut Builder<'_>, &NodeCtx<'_>, &str) -> Outcome, &'static str),
    /// Control flow, which walks through subgraphs, and what takes or gives sequences and optionals.
    Walk(Walker),
}
use Handler::{Map, Node, Walk};

/// One result.
fn one(v: One) -> Outcome {
    v.map(|v| vec![v])
}

/// ONNX's own operators, sorted.
static TABLE: &[(&str, Handler)] = &[
    ("Abs", Map(elementwise::unary, "abs")),
    ("Acos", Map(elementwise::unary, "acos")),
    ("Acosh", Map(elementwise::unary, "acosh")),
    ("Add", Map(elementwise::binary, "add")),
    ("AffineGrid", Node(image::affine_grid)),
    ("And", Map(elementwise::binary, "and")),
    ("ArgMax", Node(arg::arg_reduce)),
    ("ArgMin", Node(arg::arg_reduce)),
    ("Asin", Map(elementwise::unary, "asin")),
    ("Asinh", Map(elementwise::unary, "asinh")),
    ("Atan", Map(elementwise::unary, "atan")),
    ("Atanh", Map(elementwise::unary, "atanh")),
    ("Attention", Node(attention::attention)),
    ("AveragePool", Node(pool::average)),
    ("BatchNormalization", Node(normalization::batch)),
    ("Bernoulli", Node(random::bernoulli)),
    ("BitCast", Node(cast::bit_cast)),
    ("BitShift", Node(elementwise::bit_shift)),
    ("BitwiseAnd", Map(elementwise::binary, "bitwise_and")),
    ("BitwiseNot", Map(elementwise::unary, "bitwise_not")),
    ("BitwiseOr", Map(elementwise::binary, "bitwise_or")),
    ("BitwiseXor", Map(elementwise::binary, "bitwise_xor")),
    ("BlackmanWindow", Node(signal::window)),
    ("Cast", Node(cast::cast)),
    ("CastLike", Node(cast::cast_like)),
    ("CausalConvWithState", Node(conv::causal)),
    ("Ceil", Map(elementwise::unary, "ceil")),
    ("Celu", Node(activation::celu)),
    ("CenterCropPad", Node(image::center_crop_pad)),
    ("Clip", Node(activation::clip)),
    ("Col2Im", Node(col2im::col2im)),
    ("Compress", Node(gather::compress)),
    ("Concat", Node(slice::concat)),
    ("ConcatFromSequence", Walk(sequence::concat)),
    ("Constant", Node(constant::constant)),
    ("ConstantOfShape", Node(constant::constant_of_shape)),
    ("Conv", Node(conv::conv)),
    ("ConvInteger", Node(quantize::conv_integer)),
    ("ConvTranspose", Node(conv::conv_transpose)),
    ("Cos", Map(elementwise::unary, "cos")),
    ("Cosh", Map(elementwise::unary, "cosh")),
    ("CumProd", Node(cumulative::cumulative)),
    ("CumSum", Node(cumulative::cumulative)),
    ("DFT", Node(fourier::dft)),
    ("DeformConv", Node(deform::deform_conv)),
    ("DepthToSpace", Node(depth::depth_to_space)),
    ("DequantizeLinear", Node(quantize::dequantize)),
    ("Det", Node(det::det)),
    ("Div", Map(elementwise::binary, "div")),
    ("Dropout", Node(dropout::dropout)),
    ("DynamicQuantizeLinear", Node(quantize::dynamic_quantize)),
    ("Einsum", Node(einsum::einsum)),
    ("Elu", Node(activation::elu)),
    ("Equal", Map(elementwise::binary, "equal")),
    ("Erf", Map(elementwise::unary, "erf")),
    ("Exp", Map(elementwise::unary, "exp")),
    ("Expand", Node(reshape::expand)),
    ("EyeLike", Node(constant::eye_like)),
    ("Flatten", Node(reshape::flatten)),
    ("Floor", Map(elementwise::unary, "floor")),
    ("GRU", Node(recurrent::gru)),
    ("Gather", Node(gather::gather)),
    ("GatherElements", Node(gather::gather_elements)),
    ("GatherND", Node(gather::gather_nd)),
    ("Gelu", Node(activation::gelu)),
    ("Gemm", Node(matmul::gemm)),
    ("GlobalAveragePool", Node(pool::global_average)),
    ("GlobalLpPool", Node(pool::global_lp)),
    ("GlobalMaxPool", Node(pool::global_max)),
    ("Greater", Map(elementwise::binary, "greater")),
    ("GreaterOrEqual", Map(elementwise::binary, "greater_or_equal")),
    ("GridSample", Node(grid_sample::grid_sample)),
    ("GroupNormalization", Node(normalization::group)),
    ("HammingWindow", Node(signal::window)),
    ("HannWindow", Node(signal::window)),
    ("HardSigmoid", Node(activation::hard_sigmoid)),
    ("HardSwish", Node(activation::hard_swish)),
    ("Hardmax", Node(softmax::hardmax)),
    ("Identity", Walk(sequence::identity)),
    ("If", Walk(control::if_)),
    ("ImageDecoder", Node(image::decoder)),
    ("InstanceNormalization", Node(normalization::instance)),
    ("IsInf", Node(elementwise::is_inf)),
    ("IsNaN", Map(elementwise::unary, "is_nan")),
    ("LRN", Node(normalization::lrn)),
    ("LSTM", Node(recurrent::lstm)),
    ("LayerNormalization", Node(normalization::layer)),
    ("LeakyRelu", Node(activation::leaky_relu)),
    ("Less", Map(elementwise::binary, "less")),
    ("LessOrEqual", Map(elementwise::binary, "less_or_equal")),
    ("LinearAttention", Node(linear_attention::linear_attention)),
    ("Log", Map(elementwise::unary, "log")),
    ("LogSoftmax", Node(softmax::softmax)),
    ("Loop", Walk(loops::loop_)),
    ("LpNormalization", Node(normalization::lp)),
    ("LpPool", Node(pool::lp)),
    ("MatMul", Node(matmul::matmul)),
    ("MatMulInteger", Node(quantize::matmul_integer)),
    ("Max", Map(elementwise::variadic, "max")),
    ("MaxPool", Node(pool::max)),
    ("MaxRoiPool", Node(roi::max_pool)),
    ("MaxUnpool", Node(arg_pool::unpool)),
    ("Mean", Node(elementwise::mean)),
    ("MeanVarianceNormalization", Node(normalization::mean_variance)),
    ("MelWeightMatrix", Node(mel::mel_weights)),
    ("Min", Map(elementwise::variadic, "min")),
    ("Mish", Map(elementwise::unary, "mish")),
    ("Mod", Node(elementwise::modulo)),
    ("Mul", Map(elementwise::binary, "mul")),
    ("Multinomial", Node(random::multinomial)),
    ("Neg", Map(elementwise::unary, "neg")),
    ("NegativeLogLikelihoodLoss", Node(loss::negative_log_likelihood)),
    ("NonMaxSuppression", Node(nms::non_max_suppression)),
    ("NonZero", Node(gather::nonzero)),
    ("Not", Map(elementwise::unary, "not")),
    ("OneHot", Node(gather::one_hot)),
    ("Optional", Walk(sequence::optional)),
    ("OptionalGetElement", Walk(sequence::optional_element)),
    ("OptionalHasElement", Walk(sequence::has_element)),
    ("Or", Map(elementwise::binary, "or")),
    ("PRelu", Node(activation::prelu)),
    ("Pad", Node(pad::pad)),
    ("Pow", Node(elementwise::pow)),
    ("QLinearConv", Node(quantize::qlinear_conv)),
    ("QLinearMatMul", Node(quantize::qlinear_matmul)),
    ("QuantizeLinear", Node(quantize::quantize)),
    ("RMSNormalization", Node(normalization::rms)),
    ("RNN", Node(recurrent::rnn)),
    ("RandomNormal", Node(random::normal)),
    ("RandomNormalLike", Node(random::normal)),
    ("RandomUniform", Node(random::uniform)),
    ("RandomUniformLike", Node(random::uniform)),
    ("Range", Node(constant::range)),
    ("Reciprocal", Map(elementwise::unary, "reciprocal")),
    ("ReduceL1", Node(reduce::reduce)),
    ("ReduceL2", Node(reduce::reduce)),
    ("ReduceLogSum", Node(reduce::reduce)),
    ("ReduceLogSumExp", Node(reduce::reduce)),
    ("ReduceMax", Node(reduce::reduce)),
    ("ReduceMean", Node(reduce::reduce)),
    ("ReduceMin", Node(reduce::reduce)),
    ("ReduceProd", Node(reduce::reduce)),
    ("ReduceSum", Node(reduce::reduce)),
    ("ReduceSumSquare", Node(reduce::reduce)),
    ("RegexFullMatch", Node(text::full_match)),
    ("Relu", Node(activation::relu)),
    ("Reshape", Node(reshape::reshape)),
    ("Resize", Node(resize::resize)),
    ("ReverseSequence", Node(gather::reverse_sequence)),
    ("RoiAlign", Node(roi::align)),
    ("RotaryEmbedding", Node(rotary::rotary)),
    ("Round", Map(elementwise::unary, "round")),
    ("STFT", Node(fourier::stft)),
    ("Scan", Walk(loops::scan)),
    ("Scatter", Node(scatter::elements)),
    ("ScatterElements", Node(scatter::elements)),
    ("ScatterND", Node(scatter::nd)),
    ("Selu", Node(activation::selu)),
    ("SequenceAt", Walk(sequence::at)),
    ("SequenceConstruct", Walk(sequence::construct)),
    ("SequenceEmpty", Walk(sequence::empty)),
    ("SequenceErase", Walk(sequence::erase)),
    ("SequenceInsert", Walk(sequence::insert)),
    ("SequenceLength", Walk(sequence::length)),
    ("SequenceMap", Walk(sequence::map)),
    ("Shape", Node(constant::shape)),
    ("Shrink", Node(activation::shrink)),
    ("Sigmoid", Map(elementwise::unary, "sigmoid")),
    ("Sign", Map(elementwise::unary, "sign")),
    ("SimplifiedLayerNormalization", Node(normalization::simplified)),
    ("Sin", Map(elementwise::unary, "sin")),
    ("Sinh", Map(elementwise::unary, "sinh")),
    ("Size", Node(constant::shape)),
    ("Slice", Node(slice::slice)),
    ("Softmax", Node(softmax::softmax)),
    ("SoftmaxCrossEntropyLoss", Node(loss::softmax_cross_entropy)),
    ("Softplus", Map(elementwise::unary, "softplus")),
    ("Softsign", Map(elementwise::unary, "softsign")),
    ("SpaceToDepth", Node(depth::space_to_depth)),
    ("Split", Node(slice::split)),
    ("SplitToSequence", Walk(sequence::split)),
    ("Sqrt", Map(elementwise::unary, "sqrt")),
    ("Squeeze", Node(reshape::squeeze)),
    ("StringConcat", Node(text::concat)),
    ("StringNormalizer", Node(text::normalize)),
    ("StringSplit", Node(text::split)),
    ("Sub", Map(elementwise::binary, "sub")),
    ("Sum", Map(elementwise::variadic, "add")),
    ("SwiGLU", Node(activation::swiglu)),
    ("Swish", Node(activation::swish)),
    ("Tan", Map(elementwise::unary, "tan")),
    ("Tanh", Map(elementwise::unary, "tanh")),
    ("TensorScatter", Node(scatter::tensor_scatter)),
    ("TfIdfVectorizer", Node(tfidf::vectorize)),
    ("ThresholdedRelu", Node(activation::thresholded_relu)),
    ("Tile", Node(reshape::tile)),
    ("TopK", Node(sort::top_k)),
    ("Transpose", Node(reshape::transpose)),
    ("Trilu", Node(gather::trilu)),
    ("Unique", Node(unique::unique)),
    ("Unsqueeze", Node(reshape::unsqueeze)),
    ("Upsample", Node(resize::upsample)),
    ("Where", Node(elementwise::select)),
    ("Xor", Map(elementwise::binary, "xor")),
];

/// Operators whose functions compose their results of several steps of arithmetic, sorted. On 16-bit floats such an
/// operator is computed in f32 and rounded once, like one that the IR has whole.
static COMPOSED: &[&str] = &[
    "AffineGrid",
    "Celu",
    "Col2Im",
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
pub fn run(graph: &mut Builder<'_>, ctx: &NodeCtx<'_>) -> Outcome {
    let narrow = |v: &Value| graph.dtype(*v).is_half();
    let composed = match domain(&ctx.proto.domain) {
        microsoft::DOMAIN => microsoft::COMPOSED,
        _ => COMPOSED,
    };
    let composed = composed.binary_search(&ctx.op()).is_ok();
    let Some(first) = ctx.inputs.iter().flatten().copied().find(narrow).filter(|_| composed) else {
        return apply(graph, ctx);
    };
    let dtype = graph.dtype(first);
    let mut wide = vec![];
    for v in &ctx.inputs {
        wide.push(match v {
            Some(v) => Some(graph.widen(*v)?),
            None => None,
        });
    }
    let results = apply(graph, &ctx.with(wide))?;
    let back = |v: Value| match graph.dtype(v) {
        DType::F32 => graph.cast(v, dtype),
        _ => Ok(v),
    };
    results.into_iter().map(back).collect()
}

/// Runs the function of a node's operator, which is in the table and no control flow.
///
/// # Errors
/// Those of the function.
pub fn apply(graph: &mut Builder<'_>, ctx: &NodeCtx<'_>) -> Outcome {
    match lookup(domain(&ctx.proto.domain), ctx.op()) {
        Some(Node(f)) => f(graph, ctx),
        Some(Map(f, name)) => f(graph, ctx, name),
        Some(Walk(_)) | None => unreachable!("`{}` was looked up before", ctx.op()),
    }
}

/// The function of an operator of a domain (empty for ONNX's own).
pub fn lookup(domain: &str, op: &str) -> Option<Handler> {
    let table = match domain {
        "" => TABLE,
        "ai.onnx.ml" => ml::TABLE,
        "ai.onnx.preview" => preview::TABLE,
        "ai.onnx.preview.training" => training::TABLE,
        microsoft::DOMAIN => microsoft::TABLE,
        _ => return None,
    };
    table.binary_search_by_key(&op, |e| e.0).ok().map(|i| table[i].1)
}

#[cfg(test)]
mod tests {
    #[test]
    fn element_wise_operators_are_the_irs() {
        for (onnx, handler) in super::TABLE.iter().chain(super::microsoft::TABLE) {
            if let super::Map(_, name) = handler {
                assert!(brolga_ir::Op::new(name, &[]).is_ok(), "{onnx}: `{name}`");
            }
        }
    }

    #[test]
    fn the_tables_are_sorted() {
        use super::{COMPOSED, TABLE, microsoft, ml, preview, training};
        use crate::onnx::attributes;
        let domains = [
            ("", TABLE, COMPOSED),
            (microsoft::DOMAIN, microsoft::TABLE, microsoft::COMPOSED),
            ("ai.onnx.ml", ml::TABLE, &[]),
            ("ai.onnx.preview", preview::TABLE, &[]),
            ("ai.onnx.preview.training", training::TABLE, &[]),
        ];
        for (domain, table, composed) in domains {
            for (op, _) in table {
                assert!(attributes::knows(domain, op), "attributes.txt does not know `{op}`");
            }
            assert!(table.is_sorted_by(|a, b| a.0 < b.0));
            assert!(composed.is_sorted_by(|a, b| a < b));
            for op in composed {
                let handler = super::lookup(domain, op);
                assert!(matches!(handler, Some(super::Node(_) | super::Map(..))), "{op}");
            }
        }
    }
}
