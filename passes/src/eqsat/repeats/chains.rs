//! Finding chains of layers that are alike.
//!
//! The ends of layers are values that several operations read, such as a residual stream: extraction stores them whatever
//! else it does, so a cut there costs nothing. Values are grouped by what they are made of, a few operations deep (the refinement of
//! Weisfeiler and Lehman, "The reduction of a graph to canonical form", 1968). Two of a group are the ends of two layers that
//! follow each other when walking both up their operands at once meets equal operations, until the second walk arrives at the end
//! of the first layer. Where the first one is then, its layer begins.
//!
//! Invariant: layers are disjoint, and what is read of a layer from outside is its end, or a result of the graph.

use super::super::cost::varying;
use super::super::rules::RuleSet;
use brolga_ir::ops::Role;
use brolga_ir::{Constant, Def, Graph, Value};
use rustc_hash::{FxHashMap, FxHashSet, FxHasher};
use std::hash::{Hash, Hasher};

/// Operations that values are told apart by.
const DEEP: usize = 3;

/// Values of a group that are skipped between two ends: a group may have several in each layer.
const STRIDES: usize = 6;

/// Layers of a chain that is worth it, at least.
const LEAST: usize = 3;

/// Operations more than stand between the ends of layers that a walk may meet.
const BESIDE: usize = 16;

/// Values of a group that are tried in vain.
const MISSES: usize = 4;

/// Pairs of operations that are looked at for each operation of the graph, at most.
const WORK: usize = 24;

/// What the first layer's operations, constants and inputs are in another one, by position in the graph.
#[derive(Clone, Default)]
pub(super) struct Layer {
    pub nodes: FxHashMap<u32, u32>,
    pub constants: FxHashMap<u32, u32>,
    pub inputs: FxHashMap<u32, u32>,
}

/// Layers that follow each other.
pub(super) struct Chain {
    /// What goes into the first layer, and what comes out of each.
    pub borders: Vec<Value>,
    /// The layers.
    pub layers: Vec<Layer>,
    /// Values that all layers read.
    shared: Vec<Value>,
}

impl Chain {
    /// The operations that need not be looked at when one layer stands for all.
    fn spared(&self) -> usize {
        (self.layers.len() - 1) * self.layers[0].nodes.len()
    }

    /// The operations of all layers.
    pub fn nodes(&self) -> impl Iterator<Item = &u32> {
        self.layers.iter().flat_map(|l| l.nodes.values())
    }
}

/// The chains of a graph. `set` are the rules, which may ask for the elements of small constants.
pub(super) fn find(g: &Graph, set: &RuleSet) -> Vec<Chain> {
    let mut finder = Finder::new(g, set);
    let mut found: Vec<Chain> = vec![];
    let mut taken: FxHashSet<u32> = FxHashSet::default();
    for group in finder.groups() {
        let (mut at, mut missed) = (0, 0);
        while at + 1 < group.len() && missed < MISSES {
            let chain = match finder.is_in(group[at], &taken) {
                true => None,
                false => finder.longest(&group, at),
            };
            let free = |(_, c): &(usize, Chain)| c.nodes().all(|n| !taken.contains(n));
            match chain.filter(free) {
                Some((stride, chain)) => {
                    at += stride * (chain.layers.len() - 1);
                    taken.extend(chain.nodes());
                    found.push(chain);
                }
                None => (at, missed) = (at + 1, missed + 1),
            }
        }
    }
    found
}

/// Why two values are not the ends of layers.
enum Miss {
    /// Operations differ.
    Differs,
    /// A walk goes far beyond what stands between them.
    Far,
}

/// Two layers, as they are walked through.
#[derive(Default)]
struct Walk {
    layer: Layer,
    /// The operations of the second one.
    second: FxHashSet<u32>,
    /// Where the first layer begins, once that is known.
    begin: Option<Value>,
}

struct Finder<'g> {
    g: &'g Graph,
    varies: Vec<bool>,
    /// The operations that read a value, each once.
    readers: Vec<Vec<u32>>,
    /// Which values are results.
    results: Vec<bool>,
    /// The extents of matrices that rules compare constants with.
    literals: Vec<Vec<usize>>,
    /// Pairs of operations that may still be looked at.
    work: usize,
}

impl<'g> Finder<'g> {
    fn new(g: &'g Graph, set: &RuleSet) -> Finder<'g> {
        let mut readers = vec![vec![]; g.values.len()];
        for (n, node) in (0..).zip(&g.nodes) {
            for v in &node.inputs {
                let all: &mut Vec<u32> = &mut readers[v.0 as usize];
                if all.last() != Some(&n) {
                    all.push(n);
                }
            }
        }
        let mut results = vec![false; g.values.len()];
        g.roots().for_each(|v| results[v.0 as usize] = true);
        let mut literals = vec![];
        for law in set.rules.iter().filter_map(|r| r.law.as_ref()) {
            law.for_each_matrix(&mut |m| literals.push(m.shape.clone()));
        }
        Finder {
            g,
            varies: varying(g),
            readers,
            results,
            literals,
            work: WORK * g.nodes.len(),
        }
    }

    /// Values made alike that several operations read, by what they are made of, in the order of the graph.
    fn groups(&self) -> Vec<Vec<Value>> {
        let mut by_hash: FxHashMap<u64, usize> = FxHashMap::default();
        let mut groups: Vec<Vec<Value>> = vec![];
        let hashes = self.hashes();
        for v in self.g.nodes.iter().flat_map(|n| &n.outputs) {
            if self.varies[v.0 as usize] && self.g.ty(*v).rank() > 0 {
                let group = *by_hash.entry(hashes[v.0 as usize]).or_insert(groups.len());
                if group == groups.len() {
                    groups.push(vec![]);
                }
                groups[group].push(*v);
            }
        }
        // The last layer's end may have one reader only.
        groups.retain(|all| {
            let several = all.iter().filter(|v| self.readers[v.0 as usize].len() > 1).count();
            all.len() > 1 && 2 * several >= all.len()
        });
        groups
    }

    /// A hash of every value: of its type and what it is made of, some operations deep.
    fn hashes(&self) -> Vec<u64> {
        let g = self.g;
        let hash = |what: &dyn Fn(&mut FxHasher)| {
            let mut h = FxHasher::default();
            what(&mut h);
            h.finish()
        };
        let own: Vec<u64> = g
            .nodes
            .iter()
            .map(|n| hash(&|h| (n.op.name(), n.op.attrs()).hash(h)))
            .collect();
        let leaf = |v: &brolga_ir::graph::ValueInfo| match v.def {
            Def::Input(_) => hash(&|h| (0, &v.ty).hash(h)),
            Def::Const(_) => hash(&|h| (1, &v.ty).hash(h)),
            Def::Node(n, i) => hash(&|h| (2, own[n as usize], i, &v.ty).hash(h)),
        };
        let first: Vec<u64> = g.values.iter().map(leaf).collect();
        let mut all = first.clone();
        for _ in 1..DEEP {
            let mut deeper = first.clone();
            for node in &g.nodes {
                let operands = hash(&|h| node.inputs.iter().for_each(|v| all[v.0 as usize].hash(h)));
                for o in &node.outputs {
                    deeper[o.0 as usize] = hash(&|h| (first[o.0 as usize], operands).hash(h));
                }
            }
            all = deeper;
        }
        all
    }

    /// True when a value is made by one of some operations.
    fn is_in(&self, v: Value, operations: &FxHashSet<u32>) -> bool {
        matches!(self.g.def(v), Def::Node(n, _) if operations.contains(&n))
    }

    /// The chain that spares most of those whose first layer ends at a value of a group, and its stride.
    fn longest(&mut self, group: &[Value], at: usize) -> Option<(usize, Chain)> {
        let mut best: Option<(usize, Chain)> = None;
        for stride in 1..=STRIDES {
            match self.chain(group, at, stride) {
                Ok(Some(c)) if best.as_ref().is_none_or(|(_, b)| c.spared() > b.spared()) => best = Some((stride, c)),
                Ok(_) | Err(Miss::Differs) => {}
                Err(Miss::Far) => break,
            }
        }
        best
    }

    /// The chain whose layers end at every so manieth value of a group, if there is one that is worth it.
    fn chain(&mut self, group: &[Value], at: usize, stride: usize) -> Result<Option<Chain>, Miss> {
        let mut ends: Vec<Value> = group[at..].iter().step_by(stride).copied().collect();
        let several = |finder: &Self, v: Value| finder.readers[v.0 as usize].len() > 1;
        let mut shared = vec![];
        if ends.len() < LEAST || !several(self, ends[0]) {
            return Ok(None);
        }
        let mut first = self.walk(ends[0], ends[1], ends[0], None, &mut shared)?;
        // The ends of the first layers may be of other groups, since what they are made of begins with the graph.
        let begin = loop {
            let begin = first.begin.ok_or(Miss::Differs)?;
            let mut read = vec![];
            match self.walk(begin, ends[0], begin, None, &mut read) {
                Ok(earlier) if several(self, begin) => first = earlier,
                _ => break begin,
            }
            shared.append(&mut read);
            ends.insert(0, begin);
        };
        let nodes = first.layer.nodes.keys();
        let mut taken: FxHashSet<u32> = nodes.copied().collect();
        let same = |all: &FxHashMap<u32, u32>| all.keys().map(|&k| (k, k)).collect();
        let prototype = Layer {
            nodes: same(&first.layer.nodes),
            constants: same(&first.layer.constants),
            inputs: same(&first.layer.inputs),
        };
        let mut chain = Chain {
            borders: vec![begin, ends[0]],
            layers: vec![prototype],
            shared: vec![],
        };
        let mut next = Some((first.layer, first.second));
        while let Some((layer, second)) = next {
            if second.iter().any(|n| taken.contains(n)) {
                break;
            }
            taken.extend(second);
            let k = chain.layers.len();
            chain.layers.push(layer);
            chain.borders.push(ends[k]);
            let following = ends.get(k + 1).filter(|_| several(self, ends[k]));
            let walked = following.map(|&e| self.walk(ends[0], e, ends[k], Some(begin), &mut shared));
            next = walked.and_then(Result::ok).map(|w| (w.layer, w.second));
        }
        shared.sort_unstable();
        shared.dedup();
        chain.shared = shared;
        self.close(&mut chain);
        let worth = chain.layers.len() >= LEAST && self.is_stored(&chain);
        Ok(worth.then_some(chain))
    }

    /// Walks from the ends of two layers up to where they begin, and notes what both read. The second one begins at a value that is known.
    fn walk(
        &mut self,
        end: Value,
        second_end: Value,
        second_begin: Value,
        begin: Option<Value>,
        shared: &mut Vec<Value>,
    ) -> Result<Walk, Miss> {
        let g = self.g;
        let place = |v: Value| match g.def(v) {
            Def::Node(n, _) => n as usize,
            _ => 0,
        };
        // A walk that goes far beyond what stands between its ends misses where the layer begins.
        let most = place(second_end).saturating_sub(place(second_begin)) + BESIDE;
        let mut w = Walk {
            begin,
            ..Walk::default()
        };
        let mut todo = vec![(end, second_end)];
        while let Some((u, v)) = todo.pop() {
            if v == second_begin {
                if *w.begin.get_or_insert(u) != u || g.ty(u) != g.ty(v) {
                    return Err(Miss::Differs);
                }
                continue;
            }
            let twin = |all: &mut FxHashMap<u32, u32>, a, b| *all.entry(a).or_insert(b) == b;
            let fits = match (g.def(u), g.def(v)) {
                (Def::Const(a), Def::Const(b)) => {
                    let alike = || self.are_alike(&g.constants[a as usize], &g.constants[b as usize]);
                    (a == b || alike()) && twin(&mut w.layer.constants, a, b)
                }
                (Def::Input(a), Def::Input(b)) => g.ty(u) == g.ty(v) && twin(&mut w.layer.inputs, a, b),
                _ if u == v => {
                    shared.push(u);
                    true
                }
                (Def::Node(a, i), Def::Node(b, j)) => {
                    let (x, y) = (&g.nodes[a as usize], &g.nodes[b as usize]);
                    if let Some(&known) = w.layer.nodes.get(&a) {
                        i == j && known == b
                    } else {
                        self.work = self.work.checked_sub(1).ok_or(Miss::Far)?;
                        if w.layer.nodes.len() >= most {
                            return Err(Miss::Far);
                        }
                        todo.extend(x.inputs.iter().copied().zip(y.inputs.iter().copied()));
                        let types = || {
                            let mut pairs = x.outputs.iter().zip(&y.outputs);
                            pairs.all(|(p, q)| g.ty(*p) == g.ty(*q))
                        };
                        w.layer.nodes.insert(a, b);
                        i == j && x.inputs.len() == y.inputs.len() && x.op == y.op && types() && w.second.insert(b)
                    }
                }
                _ => false,
            };
            // What goes into the first layer is another value in every other one.
            if !fits || w.begin == Some(u) {
                return Err(Miss::Differs);
            }
        }
        let apart = w.begin.is_some_and(|b| match g.def(b) {
            Def::Input(i) => !w.layer.inputs.contains_key(&i),
            Def::Node(n, _) => !shared.contains(&b) && !w.layer.nodes.contains_key(&n),
            Def::Const(_) => false,
        });
        let disjoint = w.layer.nodes.keys().all(|n| !w.second.contains(n));
        if apart && disjoint { Ok(w) } else { Err(Miss::Differs) }
    }

    /// True when no rule tells two constants apart.
    fn are_alike(&self, a: &Constant, b: &Constant) -> bool {
        let read = |shape: &Vec<usize>| {
            let extents = a.ty.shape.iter().zip(shape);
            a.ty.rank() == shape.len() && extents.into_iter().all(|(d, n)| d.is(*n as i64))
        };
        a.ty == b.ty && a.as_splat() == b.as_splat() && (!self.literals.iter().any(read) || a == b)
    }

    /// Shortens a chain to the layers of which only the ends are read from outside, and of which no shared value is made.
    fn close(&self, chain: &mut Chain) {
        loop {
            let mut owner: FxHashMap<u32, usize> = FxHashMap::default();
            for (k, layer) in chain.layers.iter().enumerate() {
                owner.extend(layer.nodes.values().map(|&n| (n, k)));
            }
            let open = |k: &usize| !self.is_closed(chain, *k, &owner);
            match (0..chain.layers.len()).find(open) {
                Some(k) => {
                    chain.layers.truncate(k);
                    chain.borders.truncate(k + 1);
                }
                None => {
                    if self.are_made_of(&chain.shared, &owner) {
                        chain.layers.truncate(1);
                    }
                    return;
                }
            }
        }
    }

    /// True when what is read of a layer from outside is its end, or a result of the graph in every layer.
    fn is_closed(&self, chain: &Chain, k: usize, owner: &FxHashMap<u32, usize>) -> bool {
        chain.layers[k].nodes.iter().all(|(&first, &n)| {
            let outputs = self.g.nodes[n as usize].outputs.iter();
            let mut pairs = outputs.zip(&self.g.nodes[first as usize].outputs);
            pairs.all(|(o, twin)| {
                let inside = |r: &u32| owner.get(r) == Some(&k);
                let alike = self.results[o.0 as usize] == self.results[twin.0 as usize];
                *o == chain.borders[k + 1] || alike && self.readers[o.0 as usize].iter().all(inside)
            })
        })
    }

    /// True when values are made of what operations give.
    fn are_made_of(&self, values: &[Value], operations: &FxHashMap<u32, usize>) -> bool {
        let earliest = operations.keys().min().copied().unwrap_or(0);
        let mut seen: FxHashSet<u32> = FxHashSet::default();
        let mut todo = values.to_vec();
        while let Some(v) = todo.pop() {
            if let Def::Node(n, _) = self.g.def(v)
                && n >= earliest
                && seen.insert(n)
            {
                if operations.contains_key(&n) {
                    return true;
                }
                todo.extend(&self.g.nodes[n as usize].inputs);
            }
        }
        false
    }

    /// True when the ends of layers are stored whatever kernels there are: each layer has work that is not done again by every reader.
    fn is_stored(&self, chain: &Chain) -> bool {
        chain.layers[0].nodes.keys().any(|&n| {
            let role = self.g.nodes[n as usize].op.role();
            matches!(role, Role::Contract(_) | Role::Window(_) | Role::Composite) || role.brings_kernel()
        })
    }
}
