//! Repeated layers: those of a chain that are alike are optimised once, so that the cost grows with distinct layers, not with depth.
//!
//! A chain of layers ([`chains`]) becomes one layer of a smaller graph. What goes into it is an input there, so nothing is
//! assumed about it that does not hold for all; what comes out is a result. Rules and extraction see that graph, and what stands
//! for n layers costs n times. The program that is chosen is unrolled when it is emitted ([`unrolled`]): what depends on what
//! goes into a layer, or on constants that differ, once for each layer, with the constants and names of its own.
//!
//! ```text
//! %1 = f(%0, a)                  %2 = f(%1, a)       three times, a is b and c      %3 = f(%0, a)
//! %2 = f(%1, b)             -->  results %0, %2      -- rules, extraction -->       %4 = f(%3, b)
//! %3 = f(%2, c)                                                                     %5 = f(%4, c)
//! ```
//!
//! Why that is sound: whatever rules find equal holds for all values of leaves, and the others are the first layer with other
//! leaves, so it holds there as well. It takes three things:
//!
//! - Of constants rules know types, and the elements of those that are one number or as large as a matrix in a rule; these are
//!   equal in all layers ([`chains`]).
//! - Rules know too which small constants equal each other, which has to be so in every layer ([`Folded::obstacle`]).
//! - What a layer reads from outside stays what it is when the leaves become those of another layer: it is not made of a leaf that
//!   differs. Otherwise it may be found equal to a value in the layer, and be computed again with other leaves (the same).

mod chains;
mod unrolled;

use super::lang::Term;
use super::rules::RuleSet;
use brolga_ir::graph::{Input, ValueInfo};
use brolga_ir::{Def, Graph, Node, NodeError, Value};
use chains::Chain;
use rustc_hash::FxHashMap;
use std::fmt;
use unrolled::{Chains, Leaves};
pub(super) use unrolled::{Leaf, Unrolled};

/// What an input of the folded graph stands for that the graph does not have.
#[derive(Clone, Copy)]
enum Opaque {
    /// What goes into the layers of a chain.
    Carried(usize),
    /// What comes out of a layer, read from outside of its chain.
    Border(Value),
}

/// A graph in which one layer stands for each chain.
pub(super) struct Folded<'g> {
    /// The graph that was folded.
    pub source: &'g Graph,
    /// The graph with the first layer of every chain.
    pub graph: Graph,
    chains: Vec<Chain>,
    /// Which operations and constants of the source its own are.
    nodes: Vec<u32>,
    constants: Vec<u32>,
    /// What its inputs behind those of the source are.
    opaque: Vec<Opaque>,
    /// The positions of its results, by the value of the source.
    roots: FxHashMap<Value, usize>,
    /// The chain, the layer and the first layer's operation of the source's operations that are in a layer.
    owner: FxHashMap<u32, (usize, usize, u32)>,
    /// The chain and the number of layers behind which a value of the source stands.
    borders: FxHashMap<Value, (usize, usize)>,
}

/// The folded graph; `None` where no layers are repeated.
///
/// # Errors
/// When the graph is not valid.
pub(super) fn fold<'g>(source: &'g Graph, set: &RuleSet) -> Result<Option<Folded<'g>>, NodeError> {
    let mut chains = chains::find(source, set);
    chains.truncate(unrolled::MOST);
    if chains.is_empty() {
        return Ok(None);
    }
    let (mut owner, mut borders) = (FxHashMap::default(), FxHashMap::default());
    for (j, chain) in chains.iter().enumerate() {
        for (k, layer) in chain.layers.iter().enumerate() {
            owner.extend(layer.nodes.iter().map(|(&first, &n)| (n, (j, k, first))));
        }
        borders.extend(chain.borders.iter().enumerate().skip(1).map(|(k, &v)| (v, (j, k))));
    }
    let mut folder = Folder {
        values: vec![None; source.values.len()],
        carried: vec![],
        folded: Folded {
            source,
            graph: Graph::new(&source.name),
            chains,
            nodes: vec![],
            constants: vec![],
            opaque: vec![],
            roots: FxHashMap::default(),
            owner,
            borders,
        },
    };
    folder.fold()?;
    Ok(Some(folder.folded))
}

struct Folder<'g> {
    folded: Folded<'g>,
    /// What values of the source are in the folded graph, those of ends of layers as they are seen from outside.
    values: Vec<Option<Value>>,
    /// What goes into the layer of every chain.
    carried: Vec<Value>,
}

impl Folder<'_> {
    fn fold(&mut self) -> Result<(), NodeError> {
        let source = self.folded.source;
        for Input { name, value } in &source.inputs {
            self.values[value.0 as usize] = Some(self.folded.graph.input(name, source.ty(*value).clone()));
        }
        for j in 0..self.folded.chains.len() {
            let from = self.folded.chains[j].borders[0];
            let carried = self.opaque(Opaque::Carried(j), from);
            self.carried.push(carried);
        }
        // What comes out of the first layers, as it is made there.
        let mut ends: Vec<Option<Value>> = vec![None; self.carried.len()];
        for (n, node) in (0..).zip(&source.nodes) {
            let layer = self.folded.owner.get(&n).copied();
            if layer.is_some_and(|(_, k, _)| k > 0) {
                continue;
            }
            let chain = layer.map(|(j, ..)| j);
            let inputs: Vec<Value> = node.inputs.iter().map(|&v| self.operand(chain, v)).collect();
            let Node { op, origin, .. } = node;
            let outputs = self.folded.graph.add(op.clone(), &inputs, origin)?;
            self.folded.nodes.push(n);
            for (&o, v) in node.outputs.iter().zip(outputs) {
                match self.folded.borders.get(&o) {
                    Some(&(j, _)) => ends[j] = Some(v),
                    None => self.values[o.0 as usize] = Some(v),
                }
            }
        }
        self.folded.graph.symbols.clone_from(&source.symbols);
        self.folded.graph.guards.clone_from(&source.guards);
        for v in source.roots() {
            self.root(v);
        }
        for (j, end) in ends.into_iter().enumerate() {
            let (begin, first) = (self.folded.chains[j].borders[0], self.folded.chains[j].borders[1]);
            self.root(begin);
            self.add_root(first, end.expect("a layer has an end"));
        }
        Ok(())
    }

    fn opaque(&mut self, what: Opaque, like: Value) -> Value {
        let (ty, at) = (self.folded.source.ty(like).clone(), self.folded.opaque.len());
        self.folded.opaque.push(what);
        self.folded.graph.input(&format!("layers {at}"), ty)
    }

    /// What an operation of a chain's first layer, or one that is in no layer, reads.
    fn operand(&mut self, chain: Option<usize>, v: Value) -> Value {
        if let Some(j) = chain
            && self.folded.chains[j].borders[0] == v
        {
            return self.carried[j];
        }
        if let Some(known) = self.values[v.0 as usize] {
            return known;
        }
        let made = match self.folded.source.def(v) {
            Def::Const(c) => {
                self.folded.constants.push(c);
                self.folded
                    .graph
                    .constant(self.folded.source.constants[c as usize].clone())
            }
            _ => self.opaque(Opaque::Border(v), v),
        };
        self.values[v.0 as usize] = Some(made);
        made
    }

    /// Makes a value of the source a result, unless it is one of a layer that another one stands for.
    fn root(&mut self, v: Value) {
        let elsewhere = self.folded.borders.contains_key(&v)
            || matches!(self.folded.source.def(v), Def::Node(n, _) if self.folded.owner.get(&n).is_some_and(|o| o.1 > 0));
        if !elsewhere {
            let value = self.operand(None, v);
            self.add_root(v, value);
        }
    }

    fn add_root(&mut self, v: Value, value: Value) {
        let outputs = &mut self.folded.graph.outputs;
        self.folded.roots.entry(v).or_insert_with(|| {
            outputs.push((String::new(), value));
            outputs.len() - 1
        });
    }
}

impl Folded<'_> {
    /// Why one layer may not stand for the others, if so: `same` tells of each constant the first that equals it.
    pub fn obstacle(&self, same: &[u32]) -> Option<String> {
        let named = |n: u32| &self.source.nodes[self.nodes[n as usize] as usize].origin;
        if let Some(c) = self.unlike(same) {
            let read = |node: &Node| node.inputs.iter().any(|&v| self.graph.def(v) == Def::Const(c));
            let reader = (0..).zip(&self.graph.nodes).find(|(_, node)| read(node));
            let reader = reader.map_or(String::new(), |(n, _)| format!(" of {:?}", named(n)));
            return Some(format!("a constant{reader} equals another one in one layer only"));
        }
        let n = self.mixed(same)?;
        Some(format!(
            "{:?} reads what is made outside of the layers of a leaf that is another one in each",
            named(n)
        ))
    }

    /// A constant that equals another one in a first layer, but not so in every other one.
    fn unlike(&self, same: &[u32]) -> Option<u32> {
        let constant = |c: u32| &self.source.constants[c as usize];
        let mut layers = self.chains.iter().flat_map(|c| &c.layers);
        layers.find_map(|layer| {
            let mut found: FxHashMap<u32, u32> = FxHashMap::default();
            let mut all = (0..).zip(same.iter().zip(&self.constants));
            let unlike = |&(_, (&first, c)): &(u32, (&u32, &u32))| {
                layer.constants.get(c).is_some_and(|&d| {
                    let e = *found.entry(first).or_insert(d);
                    e != d && constant(e) != constant(d)
                })
            };
            all.find(unlike).map(|(i, _)| i)
        })
    }

    /// An operation of a layer that reads what another operation outside makes of a leaf that differs between the layers.
    fn mixed(&self, same: &[u32]) -> Option<u32> {
        let leaves = Leaves::new(self, same);
        // The chains whose leaves a value is made of.
        let leaf = |v: &ValueInfo| match v.def {
            Def::Const(c) => leaves.differs(&Term::Const(same[c as usize])),
            Def::Input(i) => leaves.differs(&Term::Input(i)),
            Def::Node(..) => 0,
        };
        let mut made_of: Vec<Chains> = self.graph.values.iter().map(leaf).collect();
        let chain = |n: u32| self.owner.get(&self.nodes[n as usize]).map(|o| o.0);
        for (n, node) in (0..).zip(&self.graph.nodes) {
            let own = chain(n);
            let outside = |v: Value| matches!(self.graph.def(v), Def::Node(m, _) if chain(m) != own);
            let mut all = 0;
            for &v in &node.inputs {
                let made_of = made_of[v.0 as usize];
                if own.is_some_and(|j| made_of >> j & 1 == 1) && outside(v) {
                    return Some(n);
                }
                all |= made_of;
            }
            node.outputs.iter().for_each(|o| made_of[o.0 as usize] = all);
        }
        None
    }
}

impl fmt::Display for Folded<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("folded: ")?;
        for (i, chain) in self.chains.iter().enumerate() {
            let name = |n: Option<&u32>| n.map_or("", |&n| &*self.source.nodes[n as usize].origin);
            let (first, last) = (name(chain.nodes().min()), name(chain.nodes().max()));
            let (n, each) = (chain.layers.len(), chain.layers[0].nodes.len());
            let between = if i > 0 { ", " } else { "" };
            write!(f, "{between}{n} × {each} operations (nodes {first:?} to {last:?})")?;
        }
        Ok(())
    }
}
