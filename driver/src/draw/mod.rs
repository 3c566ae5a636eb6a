//! Pictures of models: a graph of boxes and arrows for any level, as DOT ([`dot`]) or as SVG ([`svg`]) by a layout of its own ([`layout`]).
//!
//! ```text
//! graph @g(%0 x: f32[4]) { %1 = relu(%0)  return y = %1 }   -->   ( x ) ─f32[4]→ [ relu ] ─f32[4]→ ( y )
//! ```
//!
//! Invariant: each input, operation, constant, step and output is one box; an arrow leads from what makes a value to each that reads it.

pub mod dot;
pub mod layout;
mod steps;
pub mod svg;
mod tensor;
mod tree;

use crate::levels::Module;
use crate::{Error, Result};
use brolga_ir::plain;
use brolga_passes::eqsat::hint::near;
use std::fmt;

/// What a box stands for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// An input of the model.
    Input,
    /// An output of the model.
    Output,
    /// A constant.
    Constant,
    /// An operation, or a step of a program that calls no kernel.
    Operation,
    /// A kernel, or a stream that is stored.
    Kernel,
    /// A step over constants, which runs when the model is compiled.
    Compiled,
    /// A loop, a stage or a condition.
    Loop,
}

impl Kind {
    /// Every kind with its name in pictures.
    pub const ALL: [(&'static str, Kind); 7] = [
        ("input", Kind::Input),
        ("output", Kind::Output),
        ("constant", Kind::Constant),
        ("operation", Kind::Operation),
        ("kernel", Kind::Kernel),
        ("compiled", Kind::Compiled),
        ("loop", Kind::Loop),
    ];

    /// Its name.
    pub fn name(self) -> &'static str {
        Kind::ALL[self as usize].0
    }
}

/// A box.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Node {
    /// What it stands for.
    pub kind: Kind,
    /// What stands in it, shortened.
    pub lines: Vec<String>,
    /// The whole of it.
    pub whole: String,
}

impl Node {
    /// A box with some lines.
    fn new<L: Into<String>>(kind: Kind, lines: impl IntoIterator<Item = L>) -> Node {
        let whole: Vec<String> = lines.into_iter().map(|l| plain(&l.into()).into_owned()).collect();
        Node {
            kind,
            lines: whole.iter().filter(|l| !l.is_empty()).map(|l| shortened(l)).collect(),
            whole: whole.join("\n"),
        }
    }
}

/// An arrow.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Edge {
    /// The box that it begins at, by position.
    pub from: usize,
    /// The box that it leads to.
    pub to: usize,
    /// The value that goes along: arrows from one box with the same text may share it. Empty for none.
    pub label: String,
}

/// A graph of boxes and arrows without cycles.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Drawing {
    /// What it shows.
    pub title: String,
    /// The boxes, sources of arrows first.
    pub nodes: Vec<Node>,
    /// The arrows.
    pub edges: Vec<Edge>,
}

impl Drawing {
    /// A module; of kernels and loops a kernel alone, as a tree, where one is named.
    ///
    /// # Errors
    /// When there is no such kernel.
    pub fn new(module: &Module, kernel: Option<&str>) -> Result<Drawing> {
        match (module, kernel) {
            (Module::Tensor(g), None) => Ok(tensor::drawing(g)),
            (Module::Structured(p), None) => Ok(steps::drawing(p, &steps::summary)),
            (Module::Loops(p), None) => Ok(steps::drawing(p, &|k| steps::loops(&k.body))),
            (Module::Tensor(g), Some(_)) => {
                let message = "a tensor graph has no kernels, expected --level structured, loops or program";
                Err(Error::Option(format!("{}: {message}", g.name)))
            }
            (Module::Structured(p), Some(name)) => named(
                &p.name,
                name,
                p.kernels.iter().map(|k| (&*k.name, k as &dyn fmt::Display)),
            ),
            (Module::Loops(p), Some(name)) => named(
                &p.name,
                name,
                p.kernels.iter().map(|k| (&*k.name, k as &dyn fmt::Display)),
            ),
        }
    }

    /// Adds a box, and gives its position.
    fn add(&mut self, node: Node) -> usize {
        self.nodes.push(node);
        self.nodes.len() - 1
    }

    /// Adds an arrow, once.
    fn connect(&mut self, from: usize, to: usize, label: String) {
        let edge = Edge { from, to, label };
        // Arrows to one box are added one after the other.
        let same = self.edges.iter().rev().take_while(|e| e.to == to).any(|e| *e == edge);
        if from != to && !same {
            self.edges.push(edge);
        }
    }
}

/// The tree of a kernel of a program.
fn named<'k>(
    program: &str,
    name: &str,
    kernels: impl Iterator<Item = (&'k str, &'k dyn fmt::Display)> + Clone,
) -> Result<Drawing> {
    let wanted = name.strip_prefix('@').unwrap_or(name);
    match kernels.clone().find(|k| k.0 == wanted) {
        Some((name, kernel)) => Ok(tree::drawing(name, &kernel.to_string())),
        None => {
            let meant = near(wanted, kernels.map(|k| k.0));
            Err(Error::Option(format!("{program}: there is no kernel @{wanted}{meant}")))
        }
    }
}

/// A line that is not too long for a box.
fn shortened(line: &str) -> String {
    /// Characters of a line at most.
    const MOST: usize = 44;
    match line.chars().count() {
        n if n > MOST => line.chars().take(MOST - 1).chain(['…']).collect(),
        _ => line.to_owned(),
    }
}
