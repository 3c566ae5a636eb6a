//! Operators that bring the tree of their kernel along: its operands become the tensors in memory whose elements they are, each read
//! through the index maps of the movements between. Two that are parts of one tensor stay two: each may be packed in its own way.
//! Where elements are computed of others, that joins the stages which read them.
//!
//! ```text
//! attention(q, mul(cast(k), scale), v)  -->  stage parallel(K) reduce(D) { read q[…], k[…], scale[…] body { q · (f32(k) · scale) } write l0[…] }
//! ```

use super::stage::{E, StageBuilder};
use super::{KernelBuilder, RESULT, in_memory};
use brolga_ir::index::Ix;
use brolga_ir::ops::TreeKernel;
use brolga_ir::structured::{Kernel, Place, Read, Stage};
use brolga_ir::{Node, Type, Value};

impl KernelBuilder<'_> {
    /// Takes over the kernel that an operator brings along.
    pub(super) fn tree(&mut self, node: &Node, tree: &dyn TreeKernel) -> Result<(), String> {
        let types: Vec<Type> = node.inputs.iter().map(|&v| self.graph.ty(v).clone()).collect();
        let mut brought = tree.kernel(&node.op, &types, self.graph.ty(node.outputs[0]))?;
        let mut places: Vec<Option<Place>> = vec![None; node.inputs.len()];
        let mut failed = None;
        brought.for_each_stage_mut(&mut |stage| {
            if let Err(e) = self.own_reads(stage, &node.inputs, &mut places) {
                failed = Some(e);
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

    /// Lets a stage read the tensors that its operands are made of. `places` are those of operands that only movements are above.
    fn own_reads(&mut self, stage: &mut Stage, inputs: &[Value], places: &mut [Option<Place>]) -> Result<(), String> {
        let mut s = StageBuilder::default();
        let mut args: Vec<E> = vec![];
        let mut computes = false;
        for (read, &dtype) in stage.reads.iter_mut().zip(&stage.body.inputs) {
            if let Read::Element { place, map, guard, .. } = read
                && let Place::Operand(i) = *place
            {
                let i = i as usize;
                match self.source(inputs[i], map)? {
                    Some((memory, ty, at)) => {
                        *map = at;
                        *place = *places[i].get_or_insert_with(|| {
                            self.own = self.inputs.len();
                            self.operand(memory, ty)
                        });
                    }
                    None => {
                        computes = true;
                        self.own = self.inputs.len();
                        args.push(self.emit(&mut s, inputs[i], map, guard)?);
                        continue;
                    }
                }
            }
            args.push(s.read(read.clone(), dtype));
        }
        if computes {
            let value = s.inline(&stage.body, args);
            (stage.reads, stage.body) = s.finish(&[value])?;
        }
        Ok(())
    }

    /// The tensor in memory that holds the element of a value at a point, under which type, and where; `None` where it is computed.
    fn source(&self, mut v: Value, at: &[Ix]) -> Result<Option<(Value, Type, Vec<Ix>)>, String> {
        let mut at = at.to_vec();
        loop {
            if let Some(memory) = in_memory(self.graph, v) {
                return Ok(Some((memory, self.graph.ty(v).clone(), at)));
            }
            let node = self.node(v).expect("a stream is a node's result");
            let Some(m) = node.op.role().movement() else {
                return Ok(None);
            };
            if m.fills() {
                return Err(format!("`{}` below a tree has fills", node.op.name()));
            }
            let (from, to) = (self.graph.ty(node.inputs[0]), self.graph.ty(v));
            at = m.source(&node.op, from, to, &at).at;
            v = node.inputs[0];
        }
    }
}
