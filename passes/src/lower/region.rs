//! Operators with regions: the steps of their graphs stand in blocks of the program.
//!
//! ```text
//! %3, %4 = while{cond=… body=…}(%0, %1)  -->  copy s0 -> s3
//!                                             copy s1 -> s4
//!                                             … cond's steps, to s5
//!                                             while s5 {
//!                                               … body's steps, to s6 and s7
//!                                               copy s6 -> s3
//!                                               copy s7 -> s4
//!                                               … cond's steps, to s5
//!                                             }
//! ```

use super::{ProgramBuilder, row_major};
use crate::decompose::decompose_where;
use brolga_ir::ops::Regions;
use brolga_ir::program::{SlotId, Step, Storage};
use brolga_ir::{DType, Graph, Node, Type};
use rustc_hash::FxHashMap;

impl ProgramBuilder<'_> {
    /// Pushes the steps of an operator with regions.
    pub(super) fn regions(&mut self, node: &Node, regions: Regions) -> Result<(), String> {
        let operands = node.inputs.iter().map(|&v| self.memory(v));
        let operands = operands.collect::<Result<Vec<SlotId>, _>>()?;
        let results: Vec<SlotId> = node.outputs.iter().map(|&v| self.result(v, false)).collect();
        match regions {
            Regions::Choose { then, other } => {
                let (cond, captures) = operands.split_first().ok_or("no condition")?;
                let then = self.block(then, captures, Goal::Once(&results))?;
                let other = self.block(other, captures, Goal::Once(&results))?;
                self.program.steps.push(Step::If {
                    cond: *cond,
                    then,
                    other,
                });
            }
            Regions::Repeat { cond, body } => {
                for (&from, &to) in operands.iter().zip(&results) {
                    self.program.steps.push(Step::Copy { from, to, rows: None });
                }
                let state = [&results, &operands[results.len()..]].concat();
                let go = self.slot(Type::new(DType::Bool, vec![]), Storage::Temp(None), false);
                let first = self.block(cond, &state, Goal::Once(&[go]))?;
                let mut inside = self.block(body, &state, Goal::Again(&results))?;
                inside.extend(first.iter().cloned());
                self.program.steps.extend(first);
                self.program.steps.push(Step::While { cond: go, body: inside });
            }
        }
        Ok(())
    }

    /// The steps of a graph whose inputs lie in some slots.
    fn block(&mut self, graph: &Graph, inputs: &[SlotId], goal: Goal) -> Result<Vec<Step>, String> {
        let place = |e: brolga_ir::NodeError| format!("in region `{}`: {e}", graph.name);
        let graph = decompose_where(graph, |op| !op.role().is_opaque()).map_err(place)?;
        let outside = std::mem::take(&mut self.program.steps);
        let mut targets = FxHashMap::default();
        if let Goal::Once(slots) = goal {
            // A value that two results are is written to one of them, and copied.
            for ((_, v), &s) in graph.outputs.iter().zip(slots).rev() {
                targets.extend(row_major(&graph, *v).filter(|m| *m == *v).map(|m| (m, s)));
            }
        }
        let mut inner = ProgramBuilder {
            graph: &graph,
            outputs: FxHashMap::default(),
            slots: graph
                .inputs
                .iter()
                .map(|i| i.value)
                .zip(inputs.iter().copied())
                .collect(),
            targets,
            copies: FxHashMap::default(),
            program: std::mem::replace(&mut self.program, super::empty_program(&graph)),
            aliases: std::mem::take(&mut self.aliases),
            known: std::mem::take(&mut self.known),
            constant: std::mem::take(&mut self.constant),
            late: vec![],
        };
        inner.program.steps.extend(inner.assumptions());
        let done = inner.contents(goal);
        self.program = inner.program;
        self.aliases = inner.aliases;
        self.known = inner.known;
        self.constant = inner.constant;
        done.map_err(place)?;
        Ok(std::mem::replace(&mut self.program.steps, outside))
    }

    /// All steps of the graph, and copies of its outputs to where they are to go.
    fn contents(&mut self, goal: Goal) -> Result<(), brolga_ir::NodeError> {
        let graph = self.graph;
        self.nodes()?;
        let (Goal::Once(to) | Goal::Again(to)) = goal;
        let mut copies = vec![];
        for ((name, v), &to) in graph.outputs.iter().zip(to) {
            let from = self
                .memory(*v)
                .map_err(|e| super::no_node(format!("output `{name}`: {e}")))?;
            if self.program.root(from) == self.program.root(to) {
                continue;
            }
            let from = self.under(from, self.program.slot(to).ty.clone());
            copies.push((from, to));
        }
        // What another copy overwrites is kept before any is.
        let written: Vec<SlotId> = copies.iter().map(|(_, to)| self.program.root(*to)).collect();
        for (from, _) in &mut copies {
            if written.contains(&self.program.root(*from)) {
                let ty = self.program.slot(*from).ty.clone();
                let kept = self.slot(ty, Storage::Temp(None), false);
                self.program.steps.push(Step::Copy {
                    from: *from,
                    to: kept,
                    rows: None,
                });
                *from = kept;
            }
        }
        let copies = copies.into_iter().map(|(from, to)| Step::Copy { from, to, rows: None });
        self.program.steps.extend(copies);
        Ok(())
    }
}

/// Where the outputs of a region go.
#[derive(Clone, Copy)]
enum Goal<'s> {
    /// To slots that nothing in the region reads.
    Once(&'s [SlotId]),
    /// To slots that the region reads, when all of it has run.
    Again(&'s [SlotId]),
}
