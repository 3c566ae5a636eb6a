//! Outputs that may be the memory of inputs, by name: declared before anything is placed, checked when all is.

use super::Bufferize;
use crate::lower::Structured;
use crate::pass::{PassError, Settings};
use brolga_ir::NodeError;
use brolga_ir::program::{Alias, SlotId, Step, nested};

/// Declares that outputs may be the memory of inputs.
///
/// # Errors
/// When there is no such input or output, or they differ.
pub(super) fn declare(p: &mut Structured, aliases: &[(String, String)]) -> Result<(), NodeError> {
    for (input, output) in aliases {
        let fail = |what: String| plain(format!("input `{input}` as output `{output}`: {what}"));
        let position = |ports: &[(String, SlotId)], name: &str, what: &str| {
            let names = || {
                ports
                    .iter()
                    .map(|(n, _)| format!("`{n}`"))
                    .collect::<Vec<_>>()
                    .join(", ")
            };
            let found = ports.iter().position(|(n, _)| n == name);
            found.ok_or_else(|| fail(format!("there is no such {what}, expected one of {}", names())))
        };
        let from = position(&p.inputs, input, "input")?;
        let to = position(&p.outputs, output, "output")?;
        let [a, b] = [p.inputs[from].1, p.outputs[to].1].map(|s| &p.slot(s).ty);
        if a != b {
            return Err(fail(format!(
                "found {b} for the output, expected the input's type, {a}"
            )));
        }
        let alias = Alias {
            input: from as u32,
            output: to as u32,
        };
        if p.aliases.contains(&alias) {
            continue;
        }
        if p.aliases
            .iter()
            .any(|a| a.input == alias.input || a.output == alias.output)
        {
            return Err(fail("one of them shares memory with another already".into()));
        }
        p.aliases.push(alias);
    }
    Ok(())
}

/// Checks that outputs can be written in the memory of inputs.
///
/// # Errors
/// Naming the node that reads what was overwritten.
pub(super) fn check(p: &Structured) -> Result<(), PassError> {
    if p.aliases.is_empty() {
        return Ok(());
    }
    let Err(error) = p.verify() else { return Ok(()) };
    let refused = |node, message| Err(PassError::at(Bufferize::NAME, NodeError { node, message }).refused());
    for a in &p.aliases {
        let ((input, from), (output, to)) = (&p.inputs[a.input as usize], &p.outputs[a.output as usize]);
        let mut written: Option<&Step> = None;
        for step in nested(&p.steps) {
            let (reads, writes) = p.accesses(step);
            let touches = |slots: &[SlotId], s: SlotId| slots.iter().any(|x| p.root(*x) == s);
            let [reads, writes] = [touches(&reads, *from), touches(&writes, *to)];
            if reads && let Some(by) = written {
                let message = format!(
                    "it reads input `{input}` when node `{}` has written output `{output}`, which may be its memory; \
                     without the alias the output has memory of its own",
                    node(by)
                );
                return refused(node(step), message);
            }
            if writes && !p.copies_to_itself(step) {
                written = Some(step);
                if reads && error.contains("may share memory") {
                    let message = format!(
                        "it writes output `{output}` while it reads input `{input}`, which may be its memory, elsewhere; \
                         expected a scatter, or an element-wise operator"
                    );
                    return refused(node(step), message);
                }
            }
        }
    }
    Err(PassError::new(Bufferize::NAME, error))
}

fn plain(message: String) -> NodeError {
    NodeError {
        node: String::new(),
        message,
    }
}

/// The model node of a step.
fn node(step: &Step) -> String {
    match step {
        Step::Call { origin, .. } => origin.join(", "),
        Step::Host { origin, .. } => origin.to_string(),
        _ => String::new(),
    }
}
