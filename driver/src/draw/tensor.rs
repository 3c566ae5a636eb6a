//! Tensor graphs: operators with their attributes, types along the arrows.

use super::{Drawing, Kind, Node};
use brolga_ir::ops::Role;
use brolga_ir::{ConstData, Constant, Def, Graph, Value};

/// The picture of a graph. Regions are told of in the box of their operator.
pub fn drawing(g: &Graph) -> Drawing {
    let mut out = Drawing {
        title: format!("@{}", g.name),
        ..Drawing::default()
    };
    let mut at: Vec<Option<usize>> = vec![None; g.values.len()];
    for input in &g.inputs {
        let lines = [input.name.clone(), g.ty(input.value).to_string()];
        at[input.value.0 as usize] = Some(out.add(Node::new(Kind::Input, lines)));
    }
    for node in &g.nodes {
        let kind = match node.op.role() {
            Role::Store => Kind::Kernel,
            _ => Kind::Operation,
        };
        let operands: Vec<(usize, String)> = node.inputs.iter().map(|&v| source(g, v, &mut at, &mut out)).collect();
        let whole = node.op.to_string();
        let attributes = match node.op.regions().next() {
            None => whole.strip_prefix(node.op.name()).unwrap_or_default().to_owned(),
            Some(_) => {
                let each = node
                    .op
                    .regions()
                    .map(|r| format!("{} operations", r.graph().nodes.len()));
                format!("regions of {}", each.collect::<Vec<_>>().join(", "))
            }
        };
        let attributes = attributes.trim_start_matches('{').trim_end_matches('}').to_owned();
        let lines = [node.op.name().to_owned(), attributes, node.origin.to_string()];
        let box_ = out.add(Node::new(kind, lines));
        for (from, label) in operands {
            out.connect(from, box_, label);
        }
        node.outputs.iter().for_each(|o| at[o.0 as usize] = Some(box_));
    }
    for (name, value) in &g.outputs {
        let (from, label) = source(g, *value, &mut at, &mut out);
        let box_ = out.add(Node::new(Kind::Output, [name.clone(), g.ty(*value).to_string()]));
        out.connect(from, box_, label);
    }
    out
}

/// The box that makes a value, and what stands along its arrows. A constant gets its box when it is first read.
fn source(g: &Graph, v: Value, at: &mut [Option<usize>], out: &mut Drawing) -> (usize, String) {
    let info = &g.values[v.0 as usize];
    let place = &mut at[v.0 as usize];
    let from = match (*place, info.def) {
        (Some(from), _) => from,
        (None, Def::Const(c)) => out.add(constant(&g.constants[c as usize])),
        (None, _) => unreachable!("operands come first"),
    };
    *place = Some(from);
    let label = match info.def {
        Def::Const(_) => String::new(),
        _ => info.ty.to_string(),
    };
    (from, label)
}

/// The box of a constant: its type, and its value where that is one number.
fn constant(c: &Constant) -> Node {
    let value = match (&c.data, c.as_splat()) {
        (_, Some(x)) => x.to_string(),
        (ConstData::File { source, .. }, None) => source.name().rsplit('/').next().unwrap_or_default().to_owned(),
        _ => String::new(),
    };
    let mut node = Node::new(Kind::Constant, [c.ty.to_string(), value]);
    // The file is told to who asks for the whole only.
    if c.as_splat().is_none() {
        node.lines.truncate(1);
    }
    node
}
