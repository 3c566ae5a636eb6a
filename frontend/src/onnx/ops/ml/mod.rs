//! Operators of ONNX's domain `ai.onnx.ml`: classical machine learning, as the exporters of scikit-learn and LightGBM write it.
//! What the standard leaves open (scores of two classes, single targets) is what ONNX Runtime does.

use super::*;
use brolga_ir::Dim;

mod coupling;
mod encode;
mod feature;
mod label;
mod linear;
mod map;
mod scale;
mod score;
mod svm;
mod tree;

pub use label::Labels;
pub use score::Post;

/// The operators, sorted.
pub static TABLE: &[(&str, Handler)] = &[
    ("ArrayFeatureExtractor", Node(feature::array_feature_extractor)),
    ("Binarizer", Node(scale::binarizer)),
    ("CastMap", Walk(map::cast)),
    ("CategoryMapper", Node(encode::category_mapper)),
    ("DictVectorizer", Walk(map::vectorize)),
    ("FeatureVectorizer", Node(feature::feature_vectorizer)),
    ("Imputer", Node(scale::imputer)),
    ("LabelEncoder", Node(encode::label_encoder)),
    ("LinearClassifier", Node(linear::classifier)),
    ("LinearRegressor", Node(linear::regressor)),
    ("Normalizer", Node(scale::normalizer)),
    ("OneHotEncoder", Node(encode::one_hot_encoder)),
    ("SVMClassifier", Node(svm::classifier)),
    ("SVMRegressor", Node(svm::regressor)),
    ("Scaler", Node(scale::scaler)),
    ("TreeEnsemble", Node(tree::ensemble)),
    ("TreeEnsembleClassifier", Node(tree::classifier)),
    ("TreeEnsembleRegressor", Node(tree::regressor)),
    ("ZipMap", Node(feature::zip_map)),
];

impl Builder<'_> {
    /// Examples as rows: a single example is a row.
    ///
    /// # Errors
    /// When the rank is neither 1 nor 2.
    fn rows(&mut self, x: Value) -> One {
        match self.rank(x) {
            1 => self.unsqueeze(x, &[0]),
            2 => Ok(x),
            _ => Err(Fail::Bad(format!("{}, expected rank 1 or 2", self.ty(x)))),
        }
    }

    /// The first columns of rows.
    ///
    /// # Errors
    /// When there are fewer in every run.
    fn columns(&mut self, x: Value, n: usize) -> One {
        let have = self.shape(x)[1].clone();
        let n = Dim::from(n);
        self.require_at_most(&n, &have)?;
        self.slice_axis(x, 1, Dim::ZERO, n)
    }

    /// An f32 constant.
    fn floats_constant(&mut self, shape: &[usize], values: &[f32]) -> Value {
        self.dense(brolga_ir::Tensor::from_f32(shape, values))
    }
}

/// An attribute of floats that is not empty.
///
/// # Errors
/// When it is missing or empty.
fn floats<'m>(ctx: &NodeCtx<'m>, name: &str) -> Result<&'m [f32], Fail> {
    match ctx.floats(name)? {
        Some(x) if !x.is_empty() => Ok(x),
        _ => Err(Fail::Bad(format!("attribute `{name}` is missing or empty"))),
    }
}
