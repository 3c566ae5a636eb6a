//! `specialise`: symbolic dimensions become numbers.
//!
//! ```text
//! (%0: f32[n, 64])                      (%0: f32[8, 64])
//! %1 = reshape{shape: [n*64]}(%0)  -->  %1 = reshape{shape: [512]}(%0)
//! ```

use crate::pass::{Context, Pass, PassError};
use brolga_ir::graph::{Rewriter, unknown_symbol};
use brolga_ir::{Attr, Dim, Graph, NodeError, Op, Type};

/// The pass; its options are the sizes, by the names of the symbols.
#[derive(Clone, Default, Debug)]
pub struct Specialise {
    /// Sizes of symbols.
    pub sizes: Vec<(String, i64)>,
}

impl Pass for Specialise {
    fn name(&self) -> &'static str {
        "specialise"
    }
    fn options(&self) -> String {
        let sizes: Vec<String> = self.sizes.iter().map(|(s, n)| format!("{s}={n}")).collect();
        sizes.join(" ")
    }
    fn run(&self, g: &Graph, _: &mut Context) -> Result<Graph, PassError> {
        specialise(g, &self.sizes).map_err(|error| PassError {
            pass: "specialise",
            error,
        })
    }
}

/// The graph with some symbols replaced by numbers.
///
/// # Errors
/// When there is no such symbol, a number contradicts the model, or an input becomes too large.
pub fn specialise(g: &Graph, sizes: &[(String, i64)]) -> Result<Graph, NodeError> {
    let fail = |message| NodeError {
        node: String::new(),
        message,
    };
    if let Some((s, _)) = sizes.iter().find(|(s, _)| g.symbols.iter().all(|x| **x != **s)) {
        return Err(fail(unknown_symbol(s, g.symbols.iter().map(|s| &**s))));
    }
    let value = |s: &str| sizes.iter().find(|(n, _)| *n == *s).map(|(_, v)| Dim::Const(*v));
    let known = |dims: &[Dim]| dims.iter().map(|d| d.substitute(&value)).collect::<Vec<_>>();
    let mut rewriter = Rewriter::with_types(g, &|t| Type::new(t.dtype, known(&t.shape)));
    for i in &rewriter.graph.inputs {
        let ty = rewriter.graph.ty(i.value);
        ty.check_size().map_err(|e| fail(format!("input `{}`: {e}", i.name)))?;
    }
    rewriter.graph.symbols.retain(|s| value(s).is_none());
    rewriter.graph.guards.clear();
    for guard in &g.guards {
        let known = guard.substitute(&value);
        match known.decided() {
            Some(true) => {}
            Some(false) => {
                let (left, right) = (&known.left, &known.right);
                let message = format!("{guard} does not hold with these sizes: found {left} and {right}");
                return Err(fail(message));
            }
            None => rewriter.graph.guards.push(known),
        }
    }
    rewriter.run(|out, node, inputs| {
        let attr = |a: &Attr| match a {
            Attr::Dims(ds) => Attr::Dims(known(ds)),
            a => a.clone(),
        };
        let attrs: Vec<Attr> = node.op.attrs().iter().map(attr).collect();
        let op = Op::new(node.op.name(), &attrs)?;
        out.add(op, inputs, &node.origin).map_err(|e| e.message)
    })
}
