//! Activations of recurrent cells. Source: ONNX `LSTM`, attribute `activations`.

use super::calls::Calls;

/// An activation: a word, and two numbers that some of them take.
#[derive(Clone, PartialEq, Debug)]
pub struct Activation {
    /// Which.
    pub word: String,
    /// The first number.
    pub alpha: f64,
    /// The second.
    pub beta: f64,
}

/// The words, in alphabetical order.
pub const WORDS: [&str; 11] = [
    "affine",
    "elu",
    "hard_sigmoid",
    "leaky_relu",
    "relu",
    "scaled_tanh",
    "sigmoid",
    "softplus",
    "softsign",
    "tanh",
    "thresholded_relu",
];

impl Activation {
    /// Checks the word.
    ///
    /// # Errors
    /// When there is no such activation.
    pub fn check(&self) -> Result<(), String> {
        match WORDS.contains(&self.word.as_str()) {
            true => Ok(()),
            false => Err(format!("activation `{}`, expected {}", self.word, WORDS.join(", "))),
        }
    }

    /// Its value, in whatever calculus.
    ///
    /// # Errors
    /// When the calculus does not take the operand.
    pub fn apply<C: Calls>(&self, c: &mut C, x: C::V) -> Result<C::V, String> {
        let scaled = |c: &mut C, x, by: f64| if by == 1.0 { Ok(x) } else { c.with("mul", x, by) };
        match self.word.as_str() {
            "affine" => {
                let y = scaled(c, x, self.alpha)?;
                c.with("add", y, self.beta)
            }
            "scaled_tanh" => {
                let y = scaled(c, x, self.beta)?;
                let y = c.call("tanh", &[y])?;
                scaled(c, y, self.alpha)
            }
            "hard_sigmoid" => {
                let y = scaled(c, x, self.alpha)?;
                let y = c.with("add", y, self.beta)?;
                let y = c.with("max", y, 0.0)?;
                c.with("min", y, 1.0)
            }
            "leaky_relu" | "elu" => {
                let below = if self.word == "elu" { c.call("expm1", &[x])? } else { x };
                let below = scaled(c, below, self.alpha)?;
                let negative = c.with("less", x, 0.0)?;
                c.call("where", &[negative, below, x])
            }
            "thresholded_relu" => {
                let above = c.with("greater_or_equal", x, self.alpha)?;
                let zero = c.number(x, 0.0)?;
                c.call("where", &[above, x, zero])
            }
            plain => c.call(plain, &[x]),
        }
    }

    /// Its value by the definition, for the reference evaluation.
    pub fn reference(&self, x: f64) -> f64 {
        let (alpha, beta) = (self.alpha, self.beta);
        match self.word.as_str() {
            "affine" => alpha * x + beta,
            "elu" if x < 0.0 => alpha * (x.exp() - 1.0),
            "elu" => x,
            "hard_sigmoid" => (alpha * x + beta).clamp(0.0, 1.0),
            "leaky_relu" if x < 0.0 => alpha * x,
            "leaky_relu" => x,
            "relu" => x.max(0.0),
            "scaled_tanh" => alpha * (beta * x).tanh(),
            "sigmoid" => 1.0 / (1.0 + (-x).exp()),
            "softplus" => x.max(0.0) + (-x.abs()).exp().ln_1p(),
            "softsign" => x / (1.0 + x.abs()),
            "tanh" => x.tanh(),
            "thresholded_relu" if x < alpha => 0.0,
            "thresholded_relu" => x,
            other => unreachable!("`infer` has checked the activation {other}"),
        }
    }
}
