//! `NegativeLogLikelihoodLoss` and `SoftmaxCrossEntropyLoss`.

use super::*;
use brolga_ir::{Attr, DType, Dim};

/// `NegativeLogLikelihoodLoss` of log-probabilities [N, C, …] and classes [N, …].
pub fn negative_log_likelihood(graph: &mut Builder<'_>, ctx: &NodeCtx<'_>) -> Outcome {
    ctx.arity(2, 3)?;
    one(graph.likelihood(ctx, ctx.input(0)?))
}

/// `SoftmaxCrossEntropyLoss` of scores; the log-probabilities are the optional second result.
pub fn softmax_cross_entropy(graph: &mut Builder<'_>, ctx: &NodeCtx<'_>) -> Outcome {
    ctx.arity(2, 3)?;
    let p = graph.op("log_softmax", &[Attr::Int(1)], &[ctx.input(0)?])?;
    Ok(vec![graph.likelihood(ctx, p)?, p])
}

impl Builder<'_> {
    /// `-weight[class] p[class]`, reduced. Elements of the ignored class have weight 0.
    fn likelihood(&mut self, ctx: &NodeCtx<'_>, p: Value) -> One {
        let classes = self.cast(ctx.input(1)?, DType::I64)?;
        if self.rank(p) < 2 || self.rank(classes) + 1 != self.rank(p) {
            return Err(Fail::Bad(format!("{} of classes {}", self.ty(p), self.ty(classes))));
        }
        let mut shape = self.shape(p);
        shape.remove(1);
        let classes = self.fit_shape(classes, &shape)?;
        let dtype = self.dtype(p);
        let ignored = match ctx.opt_int("ignore_index")? {
            Some(i) => Some(self.map_num("equal", classes, i)?),
            None => None,
        };
        // The ignored class may lie outside the extent: it reads class 0 instead.
        let index = match ignored {
            Some(mask) => {
                let zero = self.scalar(DType::I64, 0.0);
                self.map("where", &[mask, zero, classes])?
            }
            None => classes,
        };
        let wide = self.unsqueeze(index, &[1])?;
        let picked = self.op("gather_elements", &[Attr::Int(1)], &[p, wide])?;
        let picked = self.squeeze(picked, &[1])?;
        let mut loss = self.op("neg", &[], &[picked])?;
        let mut weight = match ctx.optional(2) {
            Some(w) => Some(self.gather(0, w, index)?),
            None => None,
        };
        if let Some(mask) = ignored {
            let zero = self.scalar(dtype, 0.0);
            let kept = match weight {
                Some(w) => w,
                None => self.scalar(dtype, 1.0),
            };
            weight = Some(self.map("where", &[mask, zero, kept])?);
        }
        if let Some(w) = weight {
            loss = self.map("mul", &[loss, w])?;
        }
        let axes: Vec<usize> = (0..self.rank(loss)).collect();
        match ctx.string("reduction", "mean")? {
            "none" => Ok(loss),
            "sum" => {
                let s = self.reduce("sum", &axes, loss)?;
                self.reshape(s, vec![])
            }
            "mean" => {
                let shape: Vec<Dim> = self.shape(loss);
                let y = match weight {
                    None => self.mean(&axes, loss)?,
                    Some(w) => {
                        let w = self.spread(w, &shape)?;
                        let (s, n) = (self.reduce("sum", &axes, loss)?, self.reduce("sum", &axes, w)?);
                        self.map("div", &[s, n])?
                    }
                };
                self.reshape(y, vec![])
            }
            r => Err(Fail::Bad(format!("reduction `{r}`, expected none, sum or mean"))),
        }
    }
}
