//! `store{layout}(x)`: x, materialised in memory, in a [`Layout`]. The identity, and the cut between kernels: what lies
//! between stores is fused into one kernel, consumers of a store load from memory. The e-graph's extraction decides where
//! they stand. A layout changes where elements stand, and nothing else: whoever reads the tensor reads it by its indices.

use super::{Accuracy, Attr, AttrKind, Op, OpDef, Role, Sample, arity};
use crate::{DType, Layout, Tensor, Type};

/// See the module.
pub struct Def;

impl Op {
    /// A store in a layout.
    pub fn store(layout: Layout) -> Op {
        Op {
            def: &Def,
            attrs: [Attr::Layout(layout)].into_iter().collect(),
        }
    }
}

impl OpDef for Def {
    fn name(&self) -> &'static str {
        "store"
    }
    fn attrs(&self) -> &'static [(&'static str, AttrKind)] {
        &[("layout", AttrKind::Layout)]
    }
    fn infer(&self, op: &Op, inputs: &[Type]) -> Result<Vec<Type>, String> {
        arity(inputs, 1)?;
        op.layout("layout").check(inputs[0].rank())?;
        Ok(inputs.to_vec())
    }
    fn eval(&self, _: &Op, inputs: &[Tensor]) -> Result<Vec<Tensor>, String> {
        Ok(inputs.to_vec())
    }
    fn role(&self) -> Role {
        Role::Store
    }
    fn accuracy(&self) -> Accuracy {
        Accuracy::Exact
    }
    fn samples(&self) -> Vec<Sample> {
        let last = Layout::new(&[0, 2, 3, 1], &[], 0).expect("a permutation");
        let blocks = Layout::new(&[1, 0], &[(1, 4)], 0).expect("blocks of one axis");
        vec![
            Sample::new(&[Attr::Layout(Layout::ROW_MAJOR)], &[(DType::F32, &[2, 1, 3])]),
            Sample::new(&[Attr::Layout(Layout::ROW_MAJOR)], &[(DType::I64, &[])]),
            Sample::new(&[Attr::Layout(last)], &[(DType::F32, &[2, 3, 1, 4])]),
            Sample::new(&[Attr::Layout(blocks)], &[(DType::I32, &[3, 8])]),
        ]
    }
}
