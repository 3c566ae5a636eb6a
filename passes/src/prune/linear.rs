//! Products with weights: what they read of a channel, and what they make of it.

use super::zeros::{Flags, zeros};
use brolga_ir::{Def, Graph, Node, Value};

/// The multiple of channels that weights in blocks take.
const BLOCK: usize = brolga_ir::loops::BLOCK as usize;

/// A product of activations with a matrix, or an image with filters, of constants.
#[derive(Clone, Debug)]
pub struct Linear {
    /// The activations, and the axis of theirs that is summed over.
    pub x: (Value, usize),
    /// The weights in floats.
    pub w: Value,
    /// Their axis that is summed over.
    pub inner: usize,
    /// Their axis that the result's channels are.
    pub outer: usize,
    /// The result, and the axis of its channels.
    pub y: (Value, usize),
    /// Elements of `w` behind one of an inner and one of an outer channel: a filter's window.
    pub window: usize,
    /// Inner channels come in multiples of this.
    pub step: usize,
    /// Inner channels that no result needs, and outer ones that are zero whatever `x` is, where it is finite.
    pub dead: [Flags; 2],
}

impl Linear {
    /// The product that a node computes, if it is one.
    pub fn of(g: &Graph, constant: &[bool], node: &Node) -> Option<Linear> {
        let rank = |v: Value| g.ty(v).rank();
        let y = node.outputs[0];
        let (x, w, inner, outer, step) = match node.op.name() {
            "contract" => {
                let (op, w) = (&node.op, node.inputs[1]);
                let plain = op.ints("lhs_batch").is_empty() && op.ints("lhs_contract").len() == 1;
                if !plain || rank(w) != 2 {
                    return None;
                }
                let inner = op.axes("rhs_contract")[0];
                let x = (node.inputs[0], op.axes("lhs_contract")[0]);
                ((x, rank(y) - 1), w, inner, 1 - inner, 1)
            }
            "conv" if node.op.int("groups") == 1 => (((node.inputs[0], 1), 1), node.inputs[1], 1, 0, 1),
            "block_product" => {
                let rows = made_by(g, node.inputs[0], "quantize_blocks")?;
                let weights = made_by(g, node.inputs[3], "compress_blocks")?;
                let inner = weights.op.axis("axis");
                (((rows.inputs[0], 1), 1), weights.inputs[0], inner, 1 - inner, BLOCK)
            }
            _ => return None,
        };
        let (x, axis) = x;
        if constant[x.0.0 as usize] || !constant[w.0 as usize] || !g.ty(w).dtype.is_float() {
            return None;
        }
        let shape = brolga_ir::dim::constants(&g.ty(w).shape)?;
        let flags = |axis: usize| zeros(g, w, axis).unwrap_or_else(|| vec![false; shape[axis]]);
        Some(Linear {
            x,
            w,
            inner,
            outer,
            y: (y, axis),
            window: shape[2..].iter().product(),
            step,
            dead: [flags(inner), flags(outer)],
        })
    }
}

/// The node of this operator that makes a value.
pub fn made_by<'g>(g: &'g Graph, v: Value, name: &str) -> Option<&'g Node> {
    match g.def(v) {
        Def::Node(n, _) => Some(&g.nodes[n as usize]).filter(|n| n.op.name() == name),
        _ => None,
    }
}
