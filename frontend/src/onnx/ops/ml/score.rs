//! What classifiers and regressors do with their scores at last.

use super::*;
use brolga_ir::Attr;

/// A function of the scores of an example.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Post {
    /// As they are.
    None,
    /// Of all scores.
    Softmax,
    /// Of each score.
    Logistic,
    /// Of the scores that are not 0; those stay 0.
    SoftmaxZero,
    /// Of each score: the inverse of the normal distribution.
    Probit,
}

/// Scores nearer to 0 than this are 0 to [`Post::SoftmaxZero`].
const ZERO: f64 = 0.000_000_1;

impl Post {
    /// By its name in an attribute.
    ///
    /// # Errors
    /// When there is none of that name.
    pub fn of(ctx: &NodeCtx<'_>) -> Result<Post, Fail> {
        Ok(match ctx.string("post_transform", "NONE")? {
            "NONE" => Post::None,
            "SOFTMAX" => Post::Softmax,
            "LOGISTIC" => Post::Logistic,
            "SOFTMAX_ZERO" => Post::SoftmaxZero,
            "PROBIT" => Post::Probit,
            w => {
                return Err(Fail::Bad(format!(
                    "post_transform `{w}`, expected NONE, SOFTMAX, LOGISTIC, SOFTMAX_ZERO or PROBIT"
                )));
            }
        })
    }
}

impl Builder<'_> {
    /// A function of scores `[N, C]`. A single score is changed by [`Post::Probit`] only, as ONNX Runtime has it.
    ///
    /// # Errors
    /// When the scores are no floats.
    pub fn post(&mut self, post: Post, scores: Value) -> One {
        let single = self.shape(scores)[1].is(1);
        match post {
            Post::Probit => self.probit(scores),
            _ if single => Ok(scores),
            _ => self.post_of_many(post, scores),
        }
    }

    /// The same, for any number of scores.
    ///
    /// # Errors
    /// When the scores are no floats.
    pub fn post_of_many(&mut self, post: Post, scores: Value) -> One {
        match post {
            Post::None => Ok(scores),
            Post::Softmax => self.op("softmax", &[Attr::Int(1), Attr::word("never")], &[scores]),
            Post::Logistic => self.op("sigmoid", &[], &[scores]),
            Post::SoftmaxZero => self.softmax_zero(scores),
            Post::Probit => self.probit(scores),
        }
    }

    fn softmax_zero(&mut self, scores: Value) -> One {
        let most = self.reduce("max", &[1], scores)?;
        let shifted = self.map("sub", &[scores, most])?;
        let exp = self.map("exp", &[shifted])?;
        let magnitude = self.map("abs", &[scores])?;
        let counts = self.map_num("greater", magnitude, ZERO)?;
        let zero = self.scalar(self.dtype(scores), 0.0);
        let kept = self.map("where", &[counts, exp, zero])?;
        let sum = self.reduce("sum", &[1], kept)?;
        let least = self.map("neg", &[most])?;
        let small = self.map("exp", &[least])?;
        let small = self.map("mul", &[scores, small])?;
        let terms = self.map("where", &[counts, exp, small])?;
        self.map("div", &[terms, sum])
    }

    /// √2 erf⁻¹(2x - 1), by Winitzki's approximation ("A handy approximation for the error function and its inverse", 2008) with
    /// a = 0.147, as ONNX Runtime computes it.
    fn probit(&mut self, x: Value) -> One {
        const A: f64 = 0.147;
        // With as many digits as ONNX Runtime has.
        #[allow(clippy::approx_constant)]
        const PI: f32 = 3.14159;
        let x = self.map_num("mul", x, 2.0)?;
        let x = self.map_num("sub", x, 1.0)?;
        let one = self.scalar(self.dtype(x), 1.0);
        let (down, up) = (self.map("sub", &[one, x])?, self.map("add", &[one, x])?);
        let product = self.map("mul", &[down, up])?;
        let log = self.map("log", &[product])?;
        let half = self.map_num("mul", log, 0.5)?;
        let v = self.map_num("add", half, 2.0 / (f64::from(PI) * A))?;
        let square = self.map("mul", &[v, v])?;
        let scaled = self.map_num("mul", log, 1.0 / A)?;
        let inner = self.map("sub", &[square, scaled])?;
        let root = self.map("sqrt", &[inner])?;
        let inner = self.map("sub", &[root, v])?;
        let root = self.map("sqrt", &[inner])?;
        let zero = self.scalar(self.dtype(x), 0.0);
        let below = self.map("less", &[x, zero])?;
        let minus = self.map("neg", &[root])?;
        let y = self.map("where", &[below, minus, root])?;
        self.map_num("mul", y, std::f64::consts::SQRT_2)
    }

    /// Scores `[N, 2]` of two classes from the score `[N, 1]` of the second: its complement to 1, or with `odd` its negative.
    ///
    /// # Errors
    /// When the score is no float.
    pub fn both_classes(&mut self, score: Value, odd: bool, logistic: bool) -> One {
        let pair = |graph: &mut Self, other: Value, score: Value| graph.concat(1, &[other, score]);
        if !odd {
            let one = self.scalar(self.dtype(score), 1.0);
            let other = self.map("sub", &[one, score])?;
            return pair(self, other, score);
        }
        let other = self.map("neg", &[score])?;
        let both = pair(self, other, score)?;
        self.post_of_many(if logistic { Post::Logistic } else { Post::None }, both)
    }

    /// The position `[N]` of the first of the largest scores `[N, C]`.
    ///
    /// # Errors
    /// When there are no scores.
    pub fn best(&mut self, scores: Value) -> One {
        let attrs = [Attr::word("max"), Attr::Int(1), Attr::Bool(false)];
        let best = self.op("arg_reduce", &attrs, &[scores])?;
        self.squeeze(best, &[1])
    }
}
