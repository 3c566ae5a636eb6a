//! Programs: steps as boxes, the memory that goes from one to the next along the arrows.
//!
//! A step reads what was written to its slots before: by the step that wrote a slot last, and where steps wrote pieces of it, by each of
//! them. Blocks of `if` and `while` hang on their step.

use super::{Drawing, Kind, Node};
use brolga_ir::loops::{self, LoopKind, Stmt};
use brolga_ir::program::{Callable, Program, SlotId, Step, Storage};
use brolga_ir::scalar::Inst;
use brolga_ir::structured::{self, Part, Place, Read, Stage};
use std::collections::{HashMap, HashSet};

/// What is known of memory on the way through the steps.
struct Flow<'p, K> {
    program: &'p Program<K>,
    /// What a kernel's box says beside its name.
    says: &'p dyn Fn(&K) -> Vec<String>,
    /// The boxes that wrote each slot that owns memory.
    writers: HashMap<SlotId, Vec<usize>>,
    out: Drawing,
}

/// The picture of a program's steps, those that run when the model is compiled among them.
pub fn drawing<K: Callable>(program: &Program<K>, says: &dyn Fn(&K) -> Vec<String>) -> Drawing {
    let mut flow = Flow {
        program,
        says,
        writers: HashMap::new(),
        out: Drawing {
            title: format!("@{}", program.name),
            ..Drawing::default()
        },
    };
    for (name, slot) in &program.inputs {
        let ty = program.slot(*slot).ty.to_string();
        let input = flow.out.add(Node::new(Kind::Input, [name.clone(), ty]));
        flow.writers.insert(*slot, vec![input]);
    }
    flow.steps(&program.init, Some(Kind::Compiled), None);
    flow.steps(&program.steps, None, None);
    for (name, slot) in &program.outputs {
        let from = flow.sources(*slot);
        let ty = program.slot(*slot).ty.to_string();
        let output = flow.out.add(Node::new(Kind::Output, [name.clone(), ty]));
        for (from, label) in from {
            flow.out.connect(from, output, label);
        }
    }
    flow.out
}

impl<K: Callable> Flow<'_, K> {
    /// Draws steps; of a block, with an arrow from the step that it belongs to.
    fn steps(&mut self, steps: &[Step], kind: Option<Kind>, around: Option<(usize, &str)>) {
        for step in steps {
            let Some(node) = self.node(step, kind) else { continue };
            let (reads, writes) = self.program.accesses(step);
            let from: Vec<(usize, String)> = reads.iter().flat_map(|s| self.sources(*s)).collect();
            let box_ = self.out.add(node);
            for (from, label) in from {
                self.out.connect(from, box_, label);
            }
            if let Some((around, label)) = around {
                self.out.connect(around, box_, label.to_owned());
            }
            for slot in writes {
                let root = self.program.root(slot);
                let updates = reads.iter().any(|r| self.program.root(*r) == root);
                let writers = self.writers.entry(root).or_default();
                if updates {
                    writers.clear();
                }
                writers.push(box_);
            }
            let labels = match step {
                Step::If { .. } => ["then", "else"],
                _ => ["body", ""],
            };
            for (block, label) in step.blocks().into_iter().zip(labels) {
                self.steps(block, kind, Some((box_, label)));
            }
        }
    }

    /// The boxes that wrote a slot, each with the slot's text. Constants get their boxes here.
    fn sources(&mut self, slot: SlotId) -> Vec<(usize, String)> {
        let declared = self.program.slot(slot);
        let root = self.program.root(slot);
        if !self.writers.contains_key(&root) {
            let owner = self.program.slot(root);
            if let Storage::Weight(_) = owner.storage {
                let weight = self.out.add(Node::new(Kind::Constant, [owner.ty.to_string()]));
                self.writers.insert(root, vec![weight]);
            }
        }
        let writers = self.writers.get(&root).cloned().unwrap_or_default();
        let label = |from: &usize| match self.out.nodes[*from].kind {
            Kind::Constant => String::new(),
            _ => format!("{root}: {}", declared.ty),
        };
        writers.iter().map(|w| (*w, label(w))).collect()
    }

    /// The box of a step; none of those that only name sizes, check them or give memory.
    fn node(&self, step: &Step, kind: Option<Kind>) -> Option<Node> {
        let of = |usual: Kind| kind.unwrap_or(usual);
        Some(match step {
            Step::Call { kernel, origin, .. } => {
                let kernel = self.program.kernels.get(*kernel as usize)?;
                let origins = origin.iter().map(|o| &**o).collect::<Vec<_>>().join("+");
                let lines = [format!("@{}", kernel.name())].into_iter();
                Node::new(of(Kind::Kernel), lines.chain((self.says)(kernel)).chain([origins]))
            }
            Step::Copy { rows, .. } => {
                let what = if rows.is_some() { "copy to rows" } else { "copy" };
                Node::new(of(Kind::Operation), [what])
            }
            Step::Host { op, origin, .. } => {
                let lines = [op.name().to_owned(), "on the host".to_owned(), origin.to_string()];
                Node::new(of(Kind::Operation), lines)
            }
            Step::Read { symbol, origin, .. } => {
                Node::new(of(Kind::Operation), [format!("read {symbol}"), origin.to_string()])
            }
            Step::If { .. } => Node::new(Kind::Loop, ["if"]),
            Step::While { .. } => Node::new(Kind::Loop, ["while"]),
            Step::Let(_) | Step::Alloc { .. } | Step::Check { .. } => return None,
        })
    }
}

/// What a structured kernel does, stage by stage.
pub fn summary(kernel: &structured::Kernel) -> Vec<String> {
    let mut out = vec![];
    if !kernel.outer.is_empty() {
        out.push(format!("outer({})", listed(&kernel.outer)));
    }
    parts(&kernel.parts, &mut out);
    few(out)
}

fn parts(all: &[Part], out: &mut Vec<String>) {
    for part in all {
        match part {
            Part::Stage(s) => out.push(stage(s)),
            Part::Loop(l) => {
                out.push(format!("loop({})", l.extent));
                parts(&l.body, out);
            }
        }
    }
}

/// A stage in a line: its domain, and the functions of its body.
fn stage(s: &Stage) -> String {
    let extents = |kind| {
        let dims = s.dims.iter().filter(|d| d.kind == kind).map(|d| &d.extent);
        listed(dims)
    };
    let (parallel, reduced) = (
        extents(structured::IterKind::Parallel),
        extents(structured::IterKind::Reduction),
    );
    let mut out = String::new();
    for (what, extents) in [("over", parallel), ("reduce", reduced)] {
        if !extents.is_empty() {
            out += &format!("{what}({extents}) ");
        }
    }
    let mut functions: Vec<String> = vec![];
    let bodies = [Some(&s.body), s.combine.as_ref().map(|c| &c.body)];
    let reads = s.reads.iter().filter_map(|r| match r {
        Read::Computed(body, _) => Some(body),
        _ => None,
    });
    for inst in reads.chain(bodies.into_iter().flatten()).flat_map(|b| &b.insts) {
        if let Inst::Prim(function, _) = inst {
            functions.push(function.name().to_owned());
        }
    }
    let mut seen = HashSet::new();
    functions.retain(|f| seen.insert(f.clone()));
    if functions.is_empty() {
        functions.push(if s.scatter { "scatter" } else { "move" }.to_owned());
    }
    let near = s.writes.iter().all(|(place, _)| matches!(place, Place::Local(_)));
    format!("{out}{}{}", functions.join(" "), if near { " (kept near)" } else { "" })
}

fn listed(items: impl IntoIterator<Item = impl std::fmt::Display>) -> String {
    let all: Vec<String> = items.into_iter().map(|i| i.to_string()).collect();
    all.join(", ")
}

/// What a kernel of loops does: the loops of its nest.
pub fn loops(body: &[Stmt]) -> Vec<String> {
    let mut out = vec![];
    nest(body, 0, &mut out);
    few(out)
}

fn nest(body: &[Stmt], depth: usize, out: &mut Vec<String>) {
    let indent = "· ".repeat(depth);
    for stmt in body {
        match stmt {
            Stmt::For { kind, extent, body, .. } => {
                let kind = match kind {
                    LoopKind::Parallel(_) => "parallel".to_owned(),
                    kind => kind.to_string(),
                };
                out.push(format!("{indent}{kind} {extent}"));
                nest(body, depth + 1, out);
            }
            Stmt::Tile(tile) => out.push(format!("{indent}tile {}×{}", tile.max_rows, loops::PANEL)),
            _ => {}
        }
    }
}

/// The first lines of many.
fn few(mut lines: Vec<String>) -> Vec<String> {
    /// Lines of a box about a kernel at most.
    const MOST: usize = 8;
    if lines.len() > MOST {
        let left = lines.len() - (MOST - 1);
        lines.truncate(MOST - 1);
        lines.push(format!("… {left} more"));
    }
    lines
}
