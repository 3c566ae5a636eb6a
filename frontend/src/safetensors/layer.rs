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

    /// The product of attention for queries, keys or values (0, 1 or 2) of the module `at`, as heads `[batch, tokens, heads, size]`.
    ///
    /// # Errors
    /// When extents do not fit.
    pub fn heads(&self, net: &mut Net, x: Value, at: &str, names: [&str; 4], which: usize) -> One {
        let name = format!("{at}.{}", names[which]);
        let y = net.linear(x, &name, [self.hidden; 2], self.biases[which])?;
        net.heads(y, self.heads, self.head()?)
    }

    /// A factor of scores: products are divided by the root of the size of a head.
    ///
    /// # Errors
    /// When there is no such size.
    pub fn scale(&self) -> Result<f64, Fail> {
        Ok(1.0 / (self.head()? as f64).sqrt())
    }

    /// The product behind attention.
    ///
    /// # Errors
    /// When extents do not fit.
    pub fn out(&self, net: &mut Net, y: Value, at: &str, names: [&str; 4]) -> One {
        net.linear(y, &format!("{at}.{}", names[3]), [self.hidden; 2], true)
    }

    /// Attention of `x` `[batch, queries, hidden]` to `to` `[batch, keys, hidden]`, by the products of these names in the module `at`.
    ///
    /// # Errors
    /// When extents do not fit.
    pub fn attend(&self, net: &mut Net, x: Value, to: Value, at: &str, names: [&str; 4], scores: Scores) -> One {
        let q = self.heads(net, x, at, names, 0)?;
        let k = self.heads(net, to, at, names, 1)?;
        let v = self.heads(net, to, at, names, 2)?;
        let scores = Scores {
            scale: self.scale()?,
            ..scores
        };
        let y = net.attention(q, k, v, &scores)?;
        self.out(net, y, at, names)
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
