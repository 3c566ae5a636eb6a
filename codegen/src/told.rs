//! What a program tells of its steps: the nodes that may fail, what is checked of the model's data, and the host operators.

use brolga_ir::Op;
use brolga_ir::program::{Program, Step, nested};
use rustc_hash::FxHashSet;
use std::sync::Arc;

/// The names of the model's nodes that `Ctx::error_node` counts: those of the steps that may fail, in order, each once.
pub fn nodes(steps: &[Step]) -> Vec<Arc<str>> {
    let (mut out, mut seen) = (vec![], FxHashSet::default());
    for s in nested(steps) {
        let names = match s {
            Step::Host { origin, .. } => std::slice::from_ref(origin),
            Step::Call { checks, .. } => checks,
            Step::Read { origin, .. } | Step::Alloc { origin, .. } | Step::Check { origin, .. }
                if !origin.is_empty() =>
            {
                std::slice::from_ref(origin)
            }
            _ => &[],
        };
        out.extend(names.iter().filter(|n| seen.insert((*n).clone())).cloned());
    }
    out
}

/// What steps check of the model's data, for people, in the order of the details of `CheckFailed`.
pub fn checks(steps: &[Step]) -> Vec<String> {
    let steps = nested(steps);
    let reads = |name: &str| {
        steps.iter().find_map(|s| match s {
            Step::Read { symbol, origin, .. } if **symbol == *name => Some(origin),
            _ => None,
        })
    };
    // Names that the compiler made up are explained.
    let explained = |text: String| {
        let mut told: Vec<(&str, Vec<&str>)> = vec![];
        for word in text.split(|c: char| !(c.is_alphanumeric() || c == '_')) {
            let Some(node) = reads(word) else { continue };
            match told.iter_mut().find(|(n, _)| **n == **node) {
                Some((_, words)) if words.contains(&word) => {}
                Some((_, words)) => words.push(word),
                None => told.push((node, vec![word])),
            }
        }
        let told: Vec<String> = told
            .iter()
            .map(|(node, words)| format!(", where data tell {} at node `{node}`", words.join(" and ")))
            .collect();
        text.clone() + &told.concat()
    };
    let text = |s: &&Step| match s {
        Step::Read { bound, .. } => Some(match bound {
            Some(d) => explained(format!("expected a size from 0 to {}", d.brief())),
            None => "expected a size from 0 on".to_owned(),
        }),
        Step::Check { guard, .. } => Some(explained(format!("expected {guard}"))),
        _ => None,
    };
    steps.iter().filter_map(text).collect()
}

/// The host operators of a program in the order of `Ctx::host`, with the steps that call them.
pub fn host_steps(program: &Program) -> Vec<(&Op, &Step)> {
    nested(&program.steps)
        .into_iter()
        .filter_map(|s| match s {
            Step::Host { op, .. } => Some((op, s)),
            _ => None,
        })
        .collect()
}
