//! `bf16-weights`: matrices of weights are kept in bf16, and converted where they are used.
//!
//! ```text
//! %1 = const f32[160, 128] …              %1 = const bf16[160, 128] …
//! %2 = contract{…}(%0, %1)          -->   %2 = cast{to=f32}(%1)
//!                                         %3 = contract{…}(%0, %2)
//! ```
//!
//! Half of the bytes, and each weight is off by a part in 256 at most. A rule of the e-graph (`contract-stored`) reads
//! products' weights as they are stored; of what else uses them the cast is done when the model is compiled.

use brolga::ir::graph::Rewriter;
use brolga::ir::{Attr, DType, Def, Graph, NodeError, Op, Value};
use brolga::passes::pass::{Context, Setting, Settings, TensorPass, number};

/// The pass.
#[derive(Clone, Debug)]
pub struct Bf16Weights {
    /// `least=N`: smaller constants, in elements, stay as they are.
    pub least: usize,
}

impl Default for Bf16Weights {
    fn default() -> Bf16Weights {
        Bf16Weights { least: 1024 }
    }
}

impl Settings for Bf16Weights {
    const NAME: &'static str = "bf16-weights";
    const SUMMARY: &'static str = "keeps matrices of weights in bf16";
    const SETTINGS: &'static [Setting<Bf16Weights>] = &[Setting {
        name: "least",
        default: "1024",
        meaning: "constants of fewer elements stay as they are",
        get: |p| {
            let given = p.least != Bf16Weights::default().least;
            given.then(|| p.least.to_string()).into_iter().collect()
        },
        set: |p, value, _| {
            p.least = number(value)?;
            Ok(())
        },
    }];
}

impl TensorPass for Bf16Weights {
    fn rewrite(&self, g: &Graph, cx: &mut Context) -> Result<Graph, NodeError> {
        let mut rewriter = Rewriter::new(g);
        for (v, info) in g.values.iter().enumerate() {
            let Def::Const(c) = info.def else { continue };
            let constant = &g.constants[c as usize];
            let (ty, elements) = (&constant.ty, constant.ty.len().as_const().unwrap_or_default());
            let is_matrix = ty.dtype == DType::F32 && ty.rank() == 2 && elements as usize >= self.least;
            // One number is no array: nothing is saved.
            if !is_matrix || constant.as_splat().is_some() {
                continue;
            }
            let rounded = rewriter.graph.dense(constant.to_tensor().cast(DType::BF16));
            let cast = Op::new("cast", &[Attr::DType(DType::F32)]).expect("an operator of the IR");
            let converted = rewriter.graph.add(cast, &[rounded], &"".into())?;
            rewriter.set(Value(v as u32), converted[0]);
            cx.counts.add("matrices rounded", 1);
            cx.remarks.push(format!("{}: {ty} is kept in bf16", Bf16Weights::NAME));
        }
        rewriter.run(|out, node, inputs| out.add(node.op.clone(), inputs, &node.origin).map_err(|e| e.message))
    }
}
