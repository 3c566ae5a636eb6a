//! Kernels that operators bring along. One of a single result is a stream as a contraction is: what is element-wise behind it
//! joins the stage that writes the result.
//!
//! ```text
//! store(relu(winograd(x, u)))  -->  … stage parallel(4, 4, K) { read l2[…] body { relu } write o2[…] }
//! ```

use super::stage::StageBuilder;
use super::{KernelBuilder, Lowered, RESULT, in_memory, layout, origins};
use brolga_ir::index::Ix;
use brolga_ir::ops::{OwnKernel, OwnStages};
use brolga_ir::structured::{self, Part, Place, Stage};
use brolga_ir::{Graph, Layout, Node, Type, Value};

/// How an operand of a step lies: as it is stored; row-major where the step reads it under another shape.
fn lies(graph: &Graph, v: Value) -> &Layout {
    static ROW_MAJOR: Layout = Layout::ROW_MAJOR;
    match in_memory(graph, v) {
        Some(memory) if memory == v => layout(graph, v),
        _ => &ROW_MAJOR,
    }
}

/// The kernel of an operator that is a step, over operands as they are stored. Inputs are the step's own operands.
///
/// # Errors
/// When the attributes do not fit.
pub fn step(graph: &Graph, node: &Node, own: &dyn OwnKernel) -> Result<Lowered, String> {
    let types = |values: &[Value]| values.iter().map(|&v| graph.ty(v).clone()).collect::<Vec<Type>>();
    let OwnStages { mut kernel, operands } = own.kernel(&node.op, &types(&node.inputs), &types(&node.outputs))?;
    kernel.symbols.clone_from(&graph.symbols);
    let inputs: Vec<Value> = operands.iter().map(|&i| node.inputs[i]).collect();
    for (o, &v) in kernel.operands.iter_mut().zip(&inputs) {
        o.layout = lies(graph, v).clone();
    }
    Ok(Lowered {
        kernel,
        inputs,
        origin: origins([node].into_iter()),
        checks: vec![],
    })
}

impl<'g> KernelBuilder<'g> {
    /// The kernel that an operator of the group brings along, up to `root`.
    pub(super) fn own(&mut self, node: &'g Node, own: &dyn OwnKernel, root: Value) -> Result<(), String> {
        let result = node.outputs[0];
        let types: Vec<Type> = node.inputs.iter().map(|&v| self.graph.ty(v).clone()).collect();
        let OwnStages { mut kernel, operands } = own.kernel(&node.op, &types, &[self.graph.ty(result).clone()])?;
        let (last, at) = writer(&mut kernel, operands.len())
            .ok_or_else(|| format!("`{}` has no last stage that alone writes its result", node.op.name()))?;
        for (&i, operand) in operands.iter().zip(kernel.operands) {
            let v = node.inputs[i];
            let memory = in_memory(self.graph, v).ok_or_else(|| format!("{v} is not in memory"))?;
            self.inputs.push(memory);
            self.kernel.operands.push(structured::Operand {
                layout: layout(self.graph, memory).clone(),
                ..operand
            });
        }
        // What follows has operands of its own: a schedule may replace these by their panels.
        self.own = self.inputs.len();
        (self.kernel.locals, self.kernel.outer, self.kernel.parts) = (kernel.locals, kernel.outer, kernel.parts);
        let mut to = at.clone();
        for (ix, axis) in at.iter().zip(self.order(root, at.len())) {
            to[axis] = ix.clone();
        }
        let mut s = StageBuilder::default();
        let value = s.resume(&last);
        s.memo.insert((result, at, vec![]), value);
        let value = self.emit(&mut s, root, &to, &[])?;
        let stage = self.push_stage(s, last.dims, &[value], None, vec![(RESULT, to)])?;
        stage.guard = last.guard;
        Ok(())
    }
}

/// Takes the stage off a kernel that alone writes operand `result`, which is its last part, and where it writes that.
fn writer(kernel: &mut structured::Kernel, result: usize) -> Option<(Stage, Vec<Ix>)> {
    let place = Place::Operand(result as u32);
    let writers = kernel
        .stages()
        .iter()
        .filter(|s| s.writes.iter().any(|w| w.0 == place))
        .count();
    match kernel.parts.pop() {
        Some(Part::Stage(s)) if writers == 1 && s.combine.is_none() => match &s.writes[..] {
            [(to, at)] if *to == place => {
                let at = at.clone();
                Some((s, at))
            }
            _ => None,
        },
        _ => None,
    }
}
