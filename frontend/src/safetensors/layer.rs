//! A layer of attention and an inner layer without a gate, as BERT, ViT, CLIP and Whisper have it: norms before both, or behind the sums.

use super::error::Fail;
use super::net::{Net, Norm, One, Scores};
use brolga_ir::Value;

/// Such layers of one model.
pub struct Block<'a> {
    /// The size of the residual stream.
    pub hidden: usize,
    /// Heads of attention.
    pub heads: usize,
    /// The size of the inner layer.
    pub inner: usize,
    /// The inner layer's activation.
    pub activation: &'a str,
    /// All norms.
    pub norm: Norm,
    /// Whether norms stand behind the sums.
    pub behind: bool,
    /// Biases of the products for queries, keys and values.
    pub biases: [bool; 3],
    /// The products for queries, keys, values, and the one behind attention.
    pub attention: [&'static str; 4],
    /// The products of the inner layer.
    pub mlp: [&'static str; 2],
    /// The norms of attention and the inner layer.
    pub norms: [&'static str; 2],
}

impl Block<'_> {
    /// The size of a head.
    ///
    /// # Errors
    /// When there is none that all heads have.
    pub fn head(&self) -> Result<usize, Fail> {
        match self.hidden.is_multiple_of(self.heads) {
            true => Ok(self.hidden / self.heads),
            false => Err(Fail::Module(format!(
                "{} heads of {} elements",
                self.heads, self.hidden
            ))),
        }
    }

    /// Attention of `x` `[batch, queries, hidden]` to `to` `[batch, keys, hidden]`, by the products of these names in the module `at`.
    /// Products are divided by the root of the size of a head.
    ///
    /// # Errors
    /// When extents do not fit.
    pub fn attend(&self, net: &mut Net, x: Value, to: Value, at: &str, names: [&str; 4], scores: Scores) -> One {
        let head = self.head()?;
        let mut parts = [x, to, to];
        for ((part, name), bias) in parts.iter_mut().zip(names).zip(self.biases) {
            let y = net.linear(*part, &format!("{at}.{name}"), [self.hidden; 2], bias)?;
            *part = net.heads(y, self.heads, head)?;
        }
        let [q, k, v] = parts;
        let scores = Scores {
            scale: 1.0 / (head as f64).sqrt(),
            ..scores
        };
        let y = net.attention(q, k, v, &scores)?;
        net.linear(y, &format!("{at}.{}", names[3]), [self.hidden; 2], true)
    }

    /// The inner layer.
    ///
    /// # Errors
    /// When the activation is not known.
    pub fn mlp(&self, net: &mut Net, x: Value, at: &str) -> One {
        let y = net.linear(x, &format!("{at}.{}", self.mlp[0]), [self.inner, self.hidden], true)?;
        let y = net.activation(self.activation, y)?;
        net.linear(y, &format!("{at}.{}", self.mlp[1]), [self.hidden, self.inner], true)
    }

    /// The layer in the module `at`.
    ///
    /// # Errors
    /// When extents do not fit.
    pub fn layer(&self, net: &mut Net, x: Value, at: &str, scores: Scores) -> One {
        let norms = self.norms.map(|n| format!("{at}.{n}"));
        if self.behind {
            let y = self.attend(net, x, x, at, self.attention, scores)?;
            let x = net.map("add", &[x, y])?;
            let x = net.norm(x, &norms[0], self.norm)?;
            let y = self.mlp(net, x, at)?;
            let x = net.map("add", &[x, y])?;
            return net.norm(x, &norms[1], self.norm);
        }
        let y = net.norm(x, &norms[0], self.norm)?;
        let y = self.attend(net, y, y, at, self.attention, scores)?;
        let x = net.map("add", &[x, y])?;
        let y = net.norm(x, &norms[1], self.norm)?;
        let y = self.mlp(net, y, at)?;
        net.map("add", &[x, y])
    }
}
