//! A graph with only some of its nodes: what they read of others becomes inputs, what others read of them outputs.

use brolga_ir::{Def, Dim, Graph, Value};
use std::collections::BTreeSet;

/// The graph with the nodes of which `nodes` is true, and for each of its inputs the value of the old graph that it is. `None` where there
/// is no such graph: nothing is left, or the extents of a new input are no plain symbols, which no run could tell.
pub fn keep(g: &Graph, nodes: &[bool]) -> Option<(Graph, Vec<Value>)> {
    let inside = |v: Value| match g.def(v) {
        Def::Node(n, _) => nodes[n as usize],
        Def::Input(_) | Def::Const(_) => false,
    };
    let kept = || g.nodes.iter().zip(nodes).filter(|(_, k)| **k).map(|(n, _)| n);
    let reads: Vec<_> = g
        .reads
        .iter()
        .filter(|r| inside(r.value) || matches!(g.def(r.value), Def::Input(_)))
        .collect();
    let read: BTreeSet<Value> = kept()
        .flat_map(|n| n.inputs.iter().copied())
        .chain(reads.iter().map(|r| r.value))
        .collect();
    let mut out = Graph::new(&g.name);
    let mut map: Vec<Option<Value>> = vec![None; g.values.len()];
    let mut from = vec![];
    // The model's inputs first, in its order.
    let old = g
        .inputs
        .iter()
        .map(|i| (i.name.clone(), i.value))
        .filter(|(_, v)| read.contains(v));
    let results = read
        .iter()
        .filter(|v| matches!(g.def(**v), Def::Node(..)) && !inside(**v));
    let new = results.map(|&v| (fresh_name(g, &format!("cut_{}", v.0)), v));
    let inputs: Vec<(String, Value)> = old.chain(new).collect();
    let plain = |d: &Dim| d.as_const().is_some() || d.as_symbol().is_some();
    for (name, v) in inputs {
        if !g.ty(v).shape.iter().all(plain) {
            return None;
        }
        map[v.0 as usize] = Some(out.input(&name, g.ty(v).clone()));
        from.push(v);
    }
    for &v in &read {
        if let Def::Const(c) = g.def(v) {
            map[v.0 as usize] = Some(out.constant(g.constants[c as usize].clone()));
        }
    }
    for node in kept() {
        let operands: Option<Vec<Value>> = node.inputs.iter().map(|v| map[v.0 as usize]).collect();
        let results = out.add(node.op.clone(), &operands?, &node.origin).ok()?;
        node.outputs
            .iter()
            .zip(results)
            .for_each(|(o, v)| map[o.0 as usize] = Some(v));
    }
    let others = g.nodes.iter().zip(nodes).filter(|(_, k)| !**k);
    let wanted: BTreeSet<Value> = others
        .flat_map(|(n, _)| n.inputs.iter().copied())
        .filter(|v| inside(*v))
        .collect();
    for (name, v) in g.outputs.iter().filter(|(_, v)| inside(*v)) {
        out.outputs.push((name.clone(), map[v.0 as usize]?));
    }
    for v in wanted {
        if g.outputs.iter().all(|(_, o)| *o != v) {
            let name = fresh_name(g, &format!("of_{}", v.0));
            out.outputs.push((name, map[v.0 as usize]?));
        }
    }
    for r in reads {
        let mut read = r.clone();
        read.value = map[r.value.0 as usize]?;
        out.reads.push(read);
    }
    let known = |s: &brolga_ir::Symbol| out.symbols.contains(s) || out.reads.iter().any(|r| r.symbol == *s);
    let decided = |g: &&brolga_ir::Guard| {
        let mut all = true;
        g.for_each_symbol(&mut |s| all &= known(s));
        all
    };
    out.guards = g.guards.iter().filter(decided).cloned().collect();
    out.strings.clone_from(&g.strings);
    let named = |name: &String| out.inputs.iter().any(|i| i.name == *name);
    out.defaults = g.defaults.iter().filter(|(n, _)| named(n)).cloned().collect();
    (!out.outputs.is_empty()).then_some((out, from))
}

/// A name that no input and no output has.
fn fresh_name(g: &Graph, wanted: &str) -> String {
    let taken = |name: &str| g.inputs.iter().any(|i| i.name == name) || g.outputs.iter().any(|(n, _)| n == name);
    let mut name = wanted.to_owned();
    while taken(&name) {
        name.push('_');
    }
    name
}
