//! Operators of the domain `com.microsoft`, which exporters of language models and ONNX Runtime's quantisers write. They mean what ONNX
//! Runtime's documentation of contributed operators says (`docs/ContribOperators.md` there); where it is silent, what its CPU kernels give.

use super::*;

mod activation;
mod attention;
mod cache;
mod integer;
mod lstm;
mod nbits;
mod normalization;
mod product;
mod quantized;

/// The domain.
pub const DOMAIN: &str = "com.microsoft";

/// Its operators, sorted.
pub static TABLE: &[(&str, Handler)] = &[
    ("Attention", Node(attention::attention)),
    ("BiasAdd", Node(activation::bias_add)),
    ("BiasGelu", Node(activation::bias_gelu)),
    ("BiasSplitGelu", Node(activation::bias_split_gelu)),
    ("DequantizeLinear", Node(quantized::dequantize)),
    ("DynamicQuantizeLSTM", Node(lstm::lstm)),
    ("DynamicQuantizeMatMul", Node(integer::dynamic_matmul)),
    ("EmbedLayerNormalization", Node(normalization::embed)),
    ("FastGelu", Node(activation::fast_gelu)),
    ("FusedConv", Node(product::fused_conv)),
    ("FusedGemm", Node(product::fused_gemm)),
    ("FusedMatMul", Node(product::fused_matmul)),
    ("FusedMatMulActivation", Node(product::fused_matmul)),
    ("GatherBlockQuantized", Node(nbits::gather)),
    ("Gelu", Map(elementwise::unary, "gelu")),
    ("GemmFastGelu", Node(product::gemm_fast_gelu)),
    ("GroupQueryAttention", Node(cache::grouped)),
    ("MatMulIntegerToFloat", Node(integer::matmul_to_float)),
    ("MatMulNBits", Node(nbits::matmul)),
    ("MultiHeadAttention", Node(attention::multi_head)),
    ("NhwcConv", Node(product::nhwc_conv)),
    ("NhwcFusedConv", Node(product::nhwc_conv)),
    ("NhwcMaxPool", Node(product::nhwc_max_pool)),
    ("QAttention", Node(attention::quantized)),
    ("QGemm", Node(integer::gemm)),
    ("QLinearAdd", Node(quantized::add)),
    ("QLinearAveragePool", Node(quantized::average_pool)),
    ("QLinearConcat", Node(quantized::concat)),
    ("QLinearConv", Node(quantized::conv)),
    ("QLinearGlobalAveragePool", Node(quantized::global_average_pool)),
    ("QLinearLeakyRelu", Node(quantized::leaky_relu)),
    ("QLinearMul", Node(quantized::mul)),
    ("QLinearReduceMean", Node(quantized::reduce_mean)),
    ("QLinearSigmoid", Node(quantized::sigmoid)),
    ("QLinearSoftmax", Node(quantized::softmax)),
    ("QLinearWhere", Node(quantized::select)),
    ("QuantizeLinear", Node(quantized::quantize)),
    ("QuickGelu", Node(activation::quick_gelu)),
    ("RotaryEmbedding", Node(attention::rotary)),
    ("SimplifiedLayerNormalization", Node(super::normalization::simplified)),
    ("SkipLayerNormalization", Node(normalization::skip)),
    ("SkipSimplifiedLayerNormalization", Node(normalization::skip_simplified)),
    ("TransposeMatMul", Node(product::fused_matmul)),
];

/// As [`super::COMPOSED`].
pub static COMPOSED: &[&str] = &[
    "BiasAdd",
    "BiasGelu",
    "BiasSplitGelu",
    "FastGelu",
    "FusedGemm",
    "GatherBlockQuantized",
    "GemmFastGelu",
    "MatMulNBits",
    "QuickGelu",
];
