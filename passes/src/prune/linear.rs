//! Products with weights: what they read of a channel, and what they make of it.

use super::zeros::{Flags, zeros};
use brolga_ir::loops::BLOCK;
use brolga_ir::ops::InBlocks;
use brolga_ir::{Def, Graph, Node, Value};

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
    /// What the activations are read for: the result, or the integers that are made of them, once for several products.
    pub reader: Value,
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
        let (x, w, inner, outer, axis, step) = match node.op.def().in_blocks(&node.op) {
            Some(InBlocks::Product) => {
                let (rows, _) = made_by(g, node.inputs[0], |b| b == InBlocks::Activations)?;
                let (weights, made) = made_by(g, node.inputs[3], |b| matches!(b, InBlocks::Weights(_)))?;
                let InBlocks::Weights(inner) = made else { return None };
                (
                    (rows.inputs[0], 1),
                    weights.inputs[0],
                    inner,
                    1 - inner,
                    1,
                    BLOCK as usize,
                )
            }
            Some(_) => return None,
            None => {
                let (Some(&x), Some(&w)) = (node.inputs.first(), node.inputs.get(1)) else {
                    return None;
                };
                let p = node.op.def().weighing(&node.op, [rank(x), rank(w)])?;
                ((x, p.x), w, p.inner, p.outer, p.y, 1)
            }
        };
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
            reader: if step == 1 { y } else { node.inputs[0] },
            window: shape[2..].iter().product(),
            step,
            dead: [flags(inner), flags(outer)],
        })
    }
}

/// The node that makes a value, where it is such a part of products in blocks.
pub fn made_by(g: &Graph, v: Value, is: impl Fn(InBlocks) -> bool) -> Option<(&Node, InBlocks)> {
    let Def::Node(n, _) = g.def(v) else { return None };
    let node = &g.nodes[n as usize];
    node.op.def().in_blocks(&node.op).filter(|b| is(*b)).map(|b| (node, b))
}
