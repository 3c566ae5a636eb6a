//! Operators that bring the tree of their kernel along: its operands become the tensors in memory whose elements they are, each read
//! through the index maps of the movements between. Two that are parts of one tensor stay two: each may be packed in its own way.

use super::{KernelBuilder, RESULT, in_memory};
use brolga_ir::index::Ix;
use brolga_ir::ops::TreeKernel;
use brolga_ir::structured::{Kernel, Place, Read};
use brolga_ir::{Node, Type, Value};

impl KernelBuilder<'_> {
    /// Takes over the kernel that an operator brings along.
    pub(super) fn tree(&mut self, node: &Node, tree: &dyn TreeKernel) -> Result<(), String> {
        let types: Vec<Type> = node.inputs.iter().map(|&v| self.graph.ty(v).clone()).collect();
        let mut brought = tree.kernel(&node.op, &types, self.graph.ty(node.outputs[0]))?;
        let mut places: Vec<Option<Place>> = vec![None; node.inputs.len()];
        let mut failed = None;
        brought.for_each_stage_mut(&mut |stage| {
            for read in &mut stage.reads {
                let Read::Element { place, map, .. } = read else {
                    continue;
                };
                let Place::Operand(i) = *place else { continue };
                match self.source(node.inputs[i as usize], std::mem::take(map)) {
                    Ok((memory, ty, at)) => {
                        *map = at;
                        *place = *places[i as usize].get_or_insert_with(|| {
                            self.own = self.inputs.len();
                            self.operand(memory, ty)
                        });
                    }
                    Err(e) => failed = Some(e),
                }
            }
            for (place, _) in &mut stage.writes {
                if matches!(place, Place::Operand(_)) {
                    *place = RESULT;
                }
            }
        });
        let Kernel {
            locals, outer, parts, ..
        } = brought;
        (self.kernel.locals, self.kernel.outer, self.kernel.parts) = (locals, outer, parts);
        failed.map_or(Ok(()), Err)
    }

    /// The tensor in memory that holds the element of a value at a point, under which type, and where.
    fn source(&self, mut v: Value, mut at: Vec<Ix>) -> Result<(Value, Type, Vec<Ix>), String> {
        loop {
            if let Some(memory) = in_memory(self.graph, v) {
                return Ok((memory, self.graph.ty(v).clone(), at));
            }
            let node = self.node(v).expect("a stream is a node's result");
            let movement = node.op.role().movement().filter(|m| !m.fills());
            let m = movement.ok_or_else(|| format!("`{}` is computed below a tree", node.op.name()))?;
            let (from, to) = (self.graph.ty(node.inputs[0]), self.graph.ty(v));
            at = m.source(&node.op, from, to, &at).at;
            v = node.inputs[0];
        }
    }
}
