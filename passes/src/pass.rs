//! What a pass over the tensor IR is.

use brolga_ir::{Graph, NodeError, Target};

/// What passes share: the machine to optimise for, and where they say what they did.
pub struct Context {
    /// The machine.
    pub target: Target,
    /// What was done, and what was not and why, in the order in which it was said.
    pub remarks: Vec<String>,
}

impl Context {
    /// A context without remarks.
    pub fn new(target: Target) -> Context {
        Context {
            target,
            remarks: vec![],
        }
    }
}

/// Why a pass failed.
#[derive(Clone, PartialEq, Debug, thiserror::Error)]
#[error("pass `{pass}`: {error}")]
pub struct PassError {
    /// The pass.
    pub pass: &'static str,
    /// The error, with the model node where there is one.
    pub error: NodeError,
}

impl PassError {
    /// An error that belongs to no node.
    pub fn new(pass: &'static str, message: impl Into<String>) -> PassError {
        PassError {
            pass,
            error: NodeError {
                node: String::new(),
                message: message.into(),
            },
        }
    }
}

/// A pass: a struct whose fields are its options. Valid IR in, valid IR out.
pub trait Pass: Send + Sync {
    /// The name in pipelines.
    fn name(&self) -> &'static str;
    /// The options that differ from their defaults, as a pipeline writes them: `nodes=50000 rules=exact`.
    fn options(&self) -> String;
    /// The graph after the pass.
    ///
    /// # Errors
    /// When the graph cannot be transformed; the error names the pass and the node.
    fn run(&self, g: &Graph, cx: &mut Context) -> Result<Graph, PassError>;

    /// The graph after the pass, which has gone through regions before, the innermost first.
    ///
    /// # Errors
    /// As [`Pass::run`].
    fn run_through(&self, g: &Graph, cx: &mut Context) -> Result<Graph, PassError> {
        if g.nodes.iter().all(|n| n.op.regions().next().is_none()) {
            return self.run(g, cx);
        }
        let mut inside = |r: &Graph| self.run_through(r, cx).map_err(|e| e.error);
        let rewritten = g.rewrite(|out, node, inputs| {
            let op = node.op.map_regions(&mut inside)?;
            out.add(op, inputs, &node.origin).map_err(|e| e.message)
        });
        let rewritten = rewritten.map_err(|error| PassError {
            pass: self.name(),
            error,
        })?;
        self.run(&rewritten, cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::canonicalize::Canonicalize;
    use brolga_ir::{DType, Number, Tensor};

    #[test]
    fn passes_go_through_regions() {
        let text = r"graph @g(%0 c: bool[], %1 x: f32[3]) {
          %2, %3 = if{then=graph @t(%0 x: f32[3]) {
              %1 = const f32[3] splat 2.0
              %2 = mul(%1, %1)
              %3 = add(%0, %2)
              %4 = neg(%3)
              return a = %3, b = %4
            } else=graph @e(%0 x: f32[3]) {
              %1 = transpose{perm=[0]}(%0)
              return a = %1, b = %0
            }}(%0, %1)
          return a = %2, b = %3
        }";
        let g = Graph::parse(text, &|_| None).unwrap();
        let mut cx = Context::new(Target::baseline());
        let out = Canonicalize::default().run_through(&g, &mut cx).unwrap();
        out.verify().unwrap();
        let inside: Vec<usize> = out.nodes[0].op.regions().map(|r| r.graph().nodes.len()).collect();
        assert_eq!(inside, [2, 0]);
        let cut = crate::eqsat::EqSat::default().run_through(&out, &mut cx).unwrap();
        cut.verify().unwrap();
        let stores = cut.nodes[0]
            .op
            .regions()
            .map(|r| r.graph().to_string().matches("= store(").count());
        assert_eq!(stores.collect::<Vec<_>>(), [2, 0]);
        for c in [0, 1] {
            let inputs = [
                Tensor::scalar(DType::Bool, Number::Int(c)),
                Tensor::from_f32(&[3], &[1.0, -2.0, 0.5]),
            ];
            assert_eq!(g.eval(&inputs).unwrap(), cut.eval(&inputs).unwrap());
        }
    }
}
