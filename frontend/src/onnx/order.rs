//! Nodes in an order in which each comes after those whose results it uses.

use super::error::Error;
use super::import::{Importer, node_name};
use onnx_protobuf::NodeProto;
use rustc_hash::{FxHashMap, FxHashSet};
use std::collections::BTreeSet;

impl<'m> Importer<'m> {
    /// The nodes' positions such that every node comes after those it depends on; the given order where it is one.
    pub(super) fn order(&self, nodes: &'m [NodeProto]) -> Result<Vec<usize>, Error> {
        let mut producer: FxHashMap<&str, usize> = FxHashMap::default();
        for (i, n) in nodes.iter().enumerate() {
            for o in n.output.iter().filter(|o| !o.is_empty()) {
                if producer.insert(o, i).is_some() {
                    return Err(self.node_error(&node_name(n, i), format!("`{o}` is defined twice")));
                }
            }
        }
        let mut users: Vec<Vec<usize>> = vec![vec![]; nodes.len()];
        let mut waiting = vec![0usize; nodes.len()];
        let mut sorted = true;
        for (i, n) in nodes.iter().enumerate() {
            let mut names = FxHashSet::default();
            used_names(n, &mut names);
            for p in names.iter().filter_map(|name| producer.get(name)) {
                users[*p].push(i);
                waiting[i] += 1;
                sorted &= *p < i;
            }
        }
        if sorted {
            return Ok((0..nodes.len()).collect());
        }
        let mut ready: BTreeSet<usize> = (0..nodes.len()).filter(|&i| waiting[i] == 0).collect();
        let mut order = Vec::with_capacity(nodes.len());
        while let Some(i) = ready.pop_first() {
            order.push(i);
            for &u in &users[i] {
                waiting[u] -= 1;
                if waiting[u] == 0 {
                    ready.insert(u);
                }
            }
        }
        if order.len() < nodes.len() {
            let stuck: Vec<String> = (0..nodes.len())
                .filter(|&i| waiting[i] > 0)
                .take(8)
                .map(|i| format!("`{}`", node_name(&nodes[i], i)))
                .collect();
            return Err(self.error(format!(
                "nodes depend on each other in a cycle, among them {}",
                stuck.join(", ")
            )));
        }
        Ok(order)
    }
}

/// Every name that a node uses, those captured by its subgraphs included.
fn used_names<'m>(n: &'m NodeProto, names: &mut FxHashSet<&'m str>) {
    names.extend(n.input.iter().map(String::as_str));
    for a in &n.attribute {
        for g in a.g.as_ref().into_iter().chain(&a.graphs) {
            let mut inner = FxHashSet::default();
            g.node.iter().for_each(|n| used_names(n, &mut inner));
            inner.extend(g.output.iter().map(|o| o.name.as_str()));
            // What the subgraph defines is its own, whatever else has that name.
            g.input.iter().for_each(|i| _ = inner.remove(i.name.as_str()));
            g.initializer.iter().for_each(|t| _ = inner.remove(t.name.as_str()));
            g.node
                .iter()
                .flat_map(|n| &n.output)
                .for_each(|o| _ = inner.remove(o.as_str()));
            names.extend(inner);
        }
    }
}
