//! Unrolling: what a program for one layer is in each layer of its chain.

use super::super::extract::{At, Classes};
use super::super::lang::Term;
use super::super::plan::Plan;
use super::{Folded, Opaque};
use crate::fusion::Form;
use brolga_ir::{Def, Value};
use rustc_hash::{FxHashMap, FxHashSet};

/// A set of chains.
pub(super) type Chains = u64;

/// Chains that are told apart.
pub(super) const MOST: usize = Chains::BITS as usize;

/// A layer: 0 is what is in no layer or the same in all, then come those of the chains.
pub(crate) type Layer = usize;

/// What an input of the folded graph is in a layer.
pub(crate) enum Leaf {
    /// An input of the source.
    Input(usize),
    /// A class in a layer.
    Class(At, Layer),
}

/// A folded graph's leaves in an e-graph.
pub(super) struct Leaves<'f> {
    folded: &'f Folded<'f>,
    /// By chain, for constants of the folded graph that its first layer reads: which of the source's. Of equal ones the first
    /// stands for all.
    constants: Vec<FxHashMap<u32, u32>>,
}

impl<'f> Leaves<'f> {
    pub fn new(folded: &'f Folded<'f>, same: &[u32]) -> Leaves<'f> {
        let of = |chain: &super::Chain| {
            let pairs = same.iter().zip(&folded.constants);
            let read = pairs.filter(|(_, c)| chain.layers[0].constants.contains_key(c));
            read.map(|(&first, &c)| (first, c)).collect()
        };
        Leaves {
            folded,
            constants: folded.chains.iter().map(of).collect(),
        }
    }

    /// The chains in whose layers a leaf differs.
    pub fn differs(&self, term: &Term) -> Chains {
        let mut out = 0;
        for (j, chain) in self.folded.chains.iter().enumerate() {
            let differs = match term {
                Term::Const(i) => self.constants[j]
                    .get(i)
                    .is_some_and(|c| chain.layers.iter().any(|l| l.constants[c] != *c)),
                Term::Input(i) => match self.folded.opaque_input(*i) {
                    Some(Opaque::Carried(of)) => of == j,
                    Some(Opaque::Border(_)) => false,
                    None => chain.layers.iter().any(|l| l.inputs.get(i).is_some_and(|k| k != i)),
                },
                _ => false,
            };
            out |= Chains::from(differs) << j;
        }
        out
    }
}

impl Folded<'_> {
    fn opaque_input(&self, i: u32) -> Option<Opaque> {
        let behind = (i as usize).checked_sub(self.source.inputs.len())?;
        Some(self.opaque[behind])
    }

    /// How often each class is computed in the unrolled program: what cannot be computed without what differs between layers, once in
    /// each. `same` tells of each constant the first that equals it.
    pub fn times(&self, cs: &Classes, same: &[u32]) -> Vec<f64> {
        let leaves = Leaves::new(self, same);
        let mut layered = vec![Chains::MAX; cs.ids.len()];
        loop {
            let mut changed = false;
            for (c, choices) in cs.choices.iter().enumerate() {
                let of = |k: &super::super::extract::Choice| {
                    let operands = k.distinct.iter().map(|&o| layered[o]);
                    operands.fold(leaves.differs(&k.term), |a, b| a | b)
                };
                let new = choices.iter().map(of).fold(layered[c], |a, b| a & b);
                changed |= new != layered[c];
                layered[c] = new;
            }
            if !changed {
                break;
            }
        }
        let times = |set: &Chains| {
            let chains = self.chains.iter().enumerate();
            let layers = chains.filter(|(j, _)| set >> j & 1 == 1).map(|(_, c)| c.layers.len());
            layers.max().unwrap_or(1) as f64
        };
        layered.iter().map(times).collect()
    }

    /// The seconds that a program may have lost since what is between layers is stored: kernels that do nothing else, which another
    /// program might have computed in those that read them.
    ///
    /// # Errors
    /// When a kernel is not legal.
    pub fn lost(&self, cs: &Classes, plan: &Plan, roots: &[At]) -> Result<f64, String> {
        let forms = plan.forms(cs, &plan.order(cs, roots))?;
        let kernel = |root: At| {
            let mut at = root;
            while let Some(Term::Store(_)) = plan.choice[at].map(|k| &cs.choices[at][k].term) {
                at = plan.operands(cs, at)[0];
            }
            match forms[at] {
                Some(Form::Access | Form::Mapped | Form::Padded | Form::Pointwise) => {
                    cs.model.per_kernel() + cs.traffic[at]
                }
                _ => 0.0,
            }
        };
        let of = |chain: &super::Chain| {
            let [begin, end] = [0, 1].map(|k| self.roots.get(&chain.borders[k]).map_or(0.0, |&r| kernel(roots[r])));
            begin + end * chain.layers.len() as f64
        };
        Ok(self.chains.iter().map(of).sum())
    }
}

/// A program for a folded graph, as it is in the source.
pub(crate) struct Unrolled<'a> {
    leaves: Leaves<'a>,
    cs: &'a Classes,
    plan: &'a Plan,
    roots: &'a [At],
    /// The chains whose layers a class is computed in.
    layered: Vec<Chains>,
    /// The chain and the position in it of every layer but the first one, which is none.
    layers: Vec<(usize, usize)>,
    /// The layer that each chain begins with.
    first: Vec<Layer>,
}

impl<'a> Unrolled<'a> {
    /// The program of a plan, whose classes in use are given, operands first. `same` tells of each constant the first that equals it.
    pub fn new(
        folded: &'a Folded<'a>,
        same: &[u32],
        cs: &'a Classes,
        plan: &'a Plan,
        roots: &'a [At],
        order: &[At],
    ) -> Unrolled<'a> {
        let leaves = Leaves::new(folded, same);
        let mut layered = vec![0; cs.ids.len()];
        for &c in order {
            let operands = plan.operands(cs, c).iter().map(|&o| layered[o]);
            let differs = plan.choice[c].map_or(0, |k| leaves.differs(&cs.choices[c][k].term));
            layered[c] = operands.fold(differs, |a, b| a | b);
        }
        let mut layers = vec![(usize::MAX, 0)];
        let mut first = vec![];
        for (j, chain) in folded.chains.iter().enumerate() {
            first.push(layers.len());
            layers.extend((0..chain.layers.len()).map(|k| (j, k)));
        }
        Unrolled {
            leaves,
            cs,
            plan,
            roots,
            layered,
            layers,
            first,
        }
    }

    /// The number of layers, that which is none included.
    pub fn layers(&self) -> usize {
        self.layers.len()
    }

    /// The layer in which a class is computed that is read in one.
    pub fn layer_of(&self, c: At, layer: Layer) -> Layer {
        let differs = layer > 0 && self.layered[c] >> self.layers[layer].0 & 1 == 1;
        if differs { layer } else { 0 }
    }

    /// Where a result or the end of a layer of the source is computed.
    pub fn place(&self, v: Value) -> (At, Layer) {
        let f = self.leaves.folded;
        let (root, layer) = match (f.borders.get(&v), f.source.def(v)) {
            (Some(&(j, k)), _) => (f.chains[j].borders[1], self.first[j] + k - 1),
            (None, Def::Node(n, i)) => match f.owner.get(&n) {
                Some(&(j, k, first)) => (f.source.nodes[first as usize].outputs[i as usize], self.first[j] + k),
                None => (v, 0),
            },
            (None, _) => (v, 0),
        };
        let class = self.roots[f.roots[&root]];
        (class, self.layer_of(class, layer))
    }

    /// What an input of the folded graph is in a layer.
    ///
    /// # Errors
    /// When what goes into a layer is read where there is none.
    pub fn input(&self, i: u32, layer: Layer) -> Result<Leaf, String> {
        let f = self.leaves.folded;
        let (j, k) = self.layers[layer];
        let place = |v| {
            let (class, layer) = self.place(v);
            Leaf::Class(class, layer)
        };
        match f.opaque_input(i) {
            None if layer == 0 => Ok(Leaf::Input(i as usize)),
            None => Ok(Leaf::Input(
                f.chains[j].layers[k].inputs.get(&i).copied().unwrap_or(i) as usize
            )),
            Some(Opaque::Border(v)) => Ok(place(v)),
            Some(Opaque::Carried(of)) if layer > 0 && of == j => Ok(place(f.chains[j].borders[k])),
            Some(Opaque::Carried(_)) => Err("what goes into a layer is read outside of it".into()),
        }
    }

    /// The number of constants of the folded graph; what stands behind them, rules made.
    pub fn constants(&self) -> usize {
        self.leaves.folded.constants.len()
    }

    /// Which constant of the source one of the folded graph is in a layer.
    pub fn constant(&self, i: u32, layer: Layer) -> u32 {
        let f = self.leaves.folded;
        let (j, k) = self.layers[layer];
        let twin = |c: &u32| f.chains[j].layers[k].constants[c];
        let inside = (layer > 0).then(|| self.leaves.constants[j].get(&i)).flatten();
        inside.map_or(f.constants[i as usize], twin)
    }

    /// Which operation of the source one of the folded graph is in a layer.
    pub fn node(&self, n: u32, layer: Layer) -> u32 {
        let f = self.leaves.folded;
        let own = f.nodes[n as usize];
        let (j, k) = self.layers[layer];
        let inside = (layer > 0).then(|| f.chains[j].layers[k].nodes.get(&own)).flatten();
        inside.copied().unwrap_or(own)
    }

    /// What is computed, operands first.
    ///
    /// # Errors
    /// As [`Unrolled::input`].
    pub fn order(&self) -> Result<Vec<(At, Layer)>, String> {
        let mut done: FxHashSet<(At, Layer)> = FxHashSet::default();
        let mut out = vec![];
        let roots: Vec<Value> = self.leaves.folded.source.roots().collect();
        let mut stack: Vec<((At, Layer), usize)> = roots.iter().rev().map(|&v| (self.place(v), 0)).collect();
        while let Some(((c, layer), i)) = stack.pop() {
            if done.contains(&(c, layer)) {
                continue;
            }
            let next = match self.plan.choice[c].map(|k| &self.cs.choices[c][k].term) {
                Some(Term::Input(p)) if !self.cs.is_splat(c) => match self.input(*p, layer)? {
                    Leaf::Class(c, layer) if i == 0 => Some((c, layer)),
                    _ => None,
                },
                _ => {
                    let operands = self.plan.operands(self.cs, c);
                    operands.get(i).map(|&o| (o, self.layer_of(o, layer)))
                }
            };
            match next {
                Some(operand) => {
                    stack.push(((c, layer), i + 1));
                    stack.push((operand, 0));
                }
                None => {
                    done.insert((c, layer));
                    out.push((c, layer));
                }
            }
        }
        Ok(out)
    }
}
