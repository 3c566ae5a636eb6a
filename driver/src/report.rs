//! What became of a model's nodes: kernels, with all nodes that each of them computes, and operators that run on the host.

use crate::levels::Module;
use brolga_ir::program::{Callable, Program, Step, nested};
use serde_json::{Value, json};
use std::fmt::Write;

/// What became of a model's nodes.
pub struct Report {
    /// Calls of kernels, in the order of the program: the kernel's name, and the model's nodes that it computes.
    pub calls: Vec<(String, Vec<String>)>,
    /// How many kernels these are: one may be called several times.
    pub kernels: usize,
    /// Operators that run on the host, with their nodes.
    pub host: Vec<(String, Vec<String>)>,
    /// Nodes of the imported model that no kernel names: rules merged them into their neighbours, they only rename memory, or they are
    /// computed when the model is compiled.
    pub merged: Vec<String>,
}

/// Host operators of a program, each with the model's nodes that it runs for.
pub fn host_operators<K: Callable>(program: &Program<K>) -> Vec<(String, Vec<String>)> {
    let mut all: Vec<(String, Vec<String>)> = vec![];
    for step in nested(&program.steps) {
        let Step::Host { op, origin, .. } = step else {
            continue;
        };
        match all.iter_mut().find(|(name, _)| name == op.name()) {
            Some((_, nodes)) => nodes.push(origin.to_string()),
            None => all.push((op.name().to_owned(), vec![origin.to_string()])),
        }
    }
    all
}

/// The nodes of a model that has been read, each once, in order.
pub fn nodes(module: &Module) -> Vec<String> {
    let mut all: Vec<String> = vec![];
    if let Module::Tensor(g) = module {
        for n in &g.nodes {
            if !n.origin.is_empty() && all.last().is_none_or(|l| **l != *n.origin) {
                all.push(n.origin.to_string());
            }
        }
    }
    let mut seen = rustc_hash::FxHashSet::default();
    all.retain(|n| seen.insert(n.clone()));
    all
}

impl Report {
    /// What became of these nodes in a program.
    pub fn new<K: Callable>(nodes: &[String], program: &Program<K>) -> Report {
        let mut calls = vec![];
        let mut kernels = rustc_hash::FxHashSet::default();
        for step in nested(&program.steps) {
            if let Step::Call { kernel, origin, .. } = step {
                kernels.insert(*kernel);
                let name = program.kernels[*kernel as usize].name().to_owned();
                calls.push((name, origin.iter().map(|o| o.to_string()).collect::<Vec<_>>()));
            }
        }
        let host = host_operators(program);
        let named: rustc_hash::FxHashSet<&String> = calls.iter().chain(&host).flat_map(|(_, nodes)| nodes).collect();
        let merged = nodes.iter().filter(|n| !named.contains(n)).cloned().collect();
        Report {
            calls,
            kernels: kernels.len(),
            host,
            merged,
        }
    }

    /// The report for people.
    pub fn text(&self) -> String {
        let width = self
            .calls
            .iter()
            .chain(&self.host)
            .map(|(k, _)| k.len())
            .max()
            .unwrap_or(0);
        let mut out = format!("calls of kernels: {}, of {} kernels\n", self.calls.len(), self.kernels);
        for (kernel, nodes) in &self.calls {
            let _ = writeln!(out, "  {kernel:width$}  {}", nodes.join(", "));
        }
        let _ = writeln!(
            out,
            "operators on the host: {}",
            self.host.iter().map(|(_, n)| n.len()).sum::<usize>()
        );
        for (operator, nodes) in &self.host {
            let _ = writeln!(out, "  {operator:width$}  {}", nodes.join(", "));
        }
        let _ = writeln!(
            out,
            "nodes with no kernel of their own (part of others, views of memory, or computed when the model was \
                compiled): {}",
            self.merged.len()
        );
        for n in &self.merged {
            let _ = writeln!(out, "  {n}");
        }
        out
    }

    /// The report for programs.
    pub fn json(&self) -> Value {
        let rows = |key: &str, rows: &[(String, Vec<String>)]| -> Vec<Value> {
            rows.iter()
                .map(|(name, nodes)| json!({ key: name, "nodes": nodes }))
                .collect()
        };
        json!({
            "calls": rows("kernel", &self.calls),
            "host_operators": rows("operator", &self.host),
            "merged": self.merged,
        })
    }
}
