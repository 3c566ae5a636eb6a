//! The check of a proof: every step on random tensors through the interpreter, the claims by congruence.
//!
//! What a step is over stands for anything of its type, so random tensors take its place, and steps that are alike but for that
//! are tried once. A rule's conditions may know more of a term than its type (that nothing in it is negative): where the sides differ, what
//! they are over is taken as it is computed, from random tensors further down, before the step is said to be wrong.

use super::{Claim, Promise, Proof, Step};
use crate::closure::Closure;
use crate::eqsat::check::compare;
use brolga_ir::{Def, Dim, Graph, Number, Symbol, Tensor, Type, Value};
use rustc_hash::{FxHashMap, FxHashSet};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

/// How many operators below what a step is over are computed before it is wrong.
const DEPTH: usize = 4;

/// How a proof is checked.
#[derive(Clone, Debug)]
pub struct Check {
    /// What decides the tensors.
    pub seed: u64,
    /// Threads, at least one.
    pub threads: usize,
    /// Sizes of symbols; others are small numbers that the guards allow.
    pub sizes: Vec<(Symbol, i64)>,
}

/// What is wrong with a proof.
#[derive(Clone, PartialEq, Debug)]
pub enum Fault {
    /// A step does not hold: its position, and how its sides differ.
    Step(usize, String),
    /// A claim does not follow from the steps.
    Claim(Claim),
    /// No sizes of symbols were found that the guards allow.
    Sizes(String),
}

/// What a check found.
#[derive(Clone, PartialEq, Debug)]
pub struct Checked {
    /// Steps that are no repetitions of others.
    pub distinct: usize,
    /// What is wrong.
    pub faults: Vec<Fault>,
}

/// Checks a proof.
pub fn check(proof: &Proof, how: &Check) -> Checked {
    let sizes = match sizes(&proof.terms, how) {
        Ok(sizes) => sizes,
        Err(e) => {
            return Checked {
                distinct: 0,
                faults: vec![Fault::Sizes(e)],
            };
        }
    };
    let concrete = Concrete::new(&proof.terms);
    let mut seen = FxHashSet::default();
    let instance = |s: &Step| Instance::new(&proof.terms, &concrete, s, 0, &sizes);
    let distinct: Vec<usize> = (0..proof.steps.len())
        .filter(|&k| match instance(&proof.steps[k]) {
            Ok(i) => seen.insert(format!("{}{}{:?}", proof.steps[k].promise, i.graph, i.sides)),
            Err(_) => true,
        })
        .collect();
    let next = AtomicUsize::new(0);
    let faults = Mutex::new(vec![]);
    thread::scope(|scope| {
        for _ in 0..how.threads.max(1) {
            scope.spawn(|| {
                while let Some(&k) = distinct.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let step = &proof.steps[k];
                    let tries = (0..DEPTH).map(|depth| {
                        let i = Instance::new(&proof.terms, &concrete, step, depth, &sizes)?;
                        i.holds(&step.promise, how.seed)
                    });
                    // The first try tells most plainly how the sides differ.
                    let mut first = None;
                    let holds = tries.into_iter().any(|t| match t {
                        Ok(()) => true,
                        Err(e) => {
                            first.get_or_insert(e);
                            false
                        }
                    });
                    if let (false, Some(e)) = (holds, first) {
                        faults.lock().expect("no thread panics with it").push(Fault::Step(k, e));
                    }
                }
            });
        }
    });
    let mut faults = faults.into_inner().expect("no thread panicked");
    faults.sort_by_key(|f| match f {
        Fault::Step(k, _) => *k,
        _ => usize::MAX,
    });
    let closure = Closure::of(&proof.terms, proof.steps.iter().map(|s| &s.sides[..]));
    let open = proof.claims.iter().filter(|c| !closure.equal(c.left, c.right));
    faults.extend(open.cloned().map(Fault::Claim));
    Checked {
        distinct: distinct.len(),
        faults,
    }
}

/// Sizes of all symbols that the guards allow.
fn sizes(g: &Graph, how: &Check) -> Result<FxHashMap<Symbol, i64>, String> {
    const ATTEMPTS: u64 = 1000;
    let mut symbols: Vec<Symbol> = g.symbols.clone();
    let types = g.values.iter().flat_map(|v| &v.ty.shape);
    types.for_each(|d| d.for_each_symbol(&mut |s| symbols.push(s.clone())));
    symbols.sort();
    symbols.dedup();
    let mut refused = String::new();
    for attempt in 0..ATTEMPTS {
        let mut random = Random(how.seed ^ attempt << 32);
        let mut all: FxHashMap<Symbol, i64> = symbols
            .iter()
            .map(|s| (s.clone(), 2 + random.below(5) as i64))
            .collect();
        all.extend(how.sizes.iter().cloned());
        match g
            .guards
            .iter()
            .try_for_each(|guard| guard.check(&|s| all.get(s).copied()))
        {
            Ok(()) => return Ok(all),
            Err(e) => refused = e,
        }
    }
    Err(format!("no sizes of {} found: {refused}", symbols.join(", ")))
}

/// Which values are computed from small constants alone: they stand for themselves.
struct Concrete(Vec<bool>);

impl Concrete {
    fn new(g: &Graph) -> Concrete {
        let mut all: Vec<bool> = g.values.iter().map(|v| matches!(v.def, Def::Const(_))).collect();
        for node in &g.nodes {
            let known = node.inputs.iter().all(|v| all[v.0 as usize]);
            node.outputs.iter().for_each(|o| all[o.0 as usize] = known);
        }
        Concrete(all)
    }
}

/// A step alone: a graph of its sides over inputs.
struct Instance {
    graph: Graph,
    sides: Vec<(Value, Value)>,
}

impl Instance {
    fn new(
        terms: &Graph,
        concrete: &Concrete,
        step: &Step,
        depth: usize,
        sizes: &FxHashMap<Symbol, i64>,
    ) -> Result<Instance, String> {
        let mut over: FxHashSet<Value> = step.over.iter().copied().collect();
        for _ in 0..depth {
            let below = over.iter().flat_map(|v| match terms.def(*v) {
                Def::Node(n, _) => terms.nodes[n as usize].inputs.clone(),
                _ => vec![*v],
            });
            over = below.collect();
        }
        let is_input = |v: Value| over.contains(&v) && !concrete.0[v.0 as usize];
        let mut needed = vec![false; terms.nodes.len()];
        let mut leaves: Vec<Value> = vec![];
        let mut todo: Vec<Value> = step.sides.iter().flat_map(|(a, b)| [*b, *a]).collect();
        while let Some(v) = todo.pop() {
            match terms.def(v) {
                Def::Node(n, _) if !is_input(v) => {
                    if !std::mem::replace(&mut needed[n as usize], true) {
                        todo.extend(terms.nodes[n as usize].inputs.iter().rev());
                    }
                }
                _ if leaves.contains(&v) => {}
                _ => leaves.push(v),
            }
        }
        let mut graph = Graph::new("step");
        let mut map: FxHashMap<Value, Value> = FxHashMap::default();
        for (i, v) in leaves.into_iter().enumerate() {
            let leaf = match terms.as_constant(v) {
                Some(c) => graph.constant(c.clone()),
                None => graph.input(&format!("x{i}"), terms.ty(v).clone()),
            };
            map.insert(v, leaf);
        }
        graph.strings.clone_from(&terms.strings);
        for (node, _) in terms.nodes.iter().zip(needed).filter(|(_, needed)| *needed) {
            let inputs: Vec<Value> = node.inputs.iter().map(|v| map[v]).collect();
            let made = graph.add(node.op.clone(), &inputs, &"".into()).map_err(|e| e.message)?;
            for (old, new) in node.outputs.iter().zip(made) {
                // One result of a node may stand for anything while another is what the step is about.
                map.entry(*old).or_insert(new);
            }
        }
        let sides: Vec<(Value, Value)> = step.sides.iter().map(|(a, b)| (map[a], map[b])).collect();
        let known = |s: &str| sizes.get(s).map(|n| Dim::Const(*n));
        graph.outputs = sides
            .iter()
            .flat_map(|(a, b)| [(String::new(), *a), (String::new(), *b)])
            .collect();
        let mut graph = graph.substitute(&known).map_err(|e| e.message)?;
        let roots: Vec<Value> = graph.outputs.drain(..).map(|(_, v)| v).collect();
        let sides = roots.chunks_exact(2).map(|s| (s[0], s[1])).collect();
        Ok(Instance { graph, sides })
    }

    /// Tries it.
    fn holds(mut self, promise: &Promise, seed: u64) -> Result<(), String> {
        let mut random = Random(seed);
        let tensor = |i: &brolga_ir::graph::Input| random.tensor(self.graph.ty(i.value));
        let inputs: Result<Vec<Tensor>, String> = self.graph.inputs.iter().map(tensor).collect();
        let inputs = inputs?;
        for (a, b) in std::mem::take(&mut self.sides) {
            let promise = compare::Promise::ordinary(promise.exactness, &promise.allows);
            compare::sides(promise, &mut self.graph, a, b, &inputs).map_err(|d| d.text)?;
        }
        Ok(())
    }
}

/// SplitMix64 (Steele, Lea and Flood, "Fast splittable pseudorandom number generators", 2014).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }

    /// A tensor of ordinary numbers: floats up to 2 in magnitude; integers that are 0 or 1, which are indices and sizes of most things.
    fn tensor(&mut self, ty: &Type) -> Result<Tensor, String> {
        let shape = brolga_ir::dim::constants(&ty.shape).ok_or_else(|| format!("{ty} has no known size"))?;
        ty.check_size()?;
        Ok(Tensor::from_fn(ty.dtype, &shape, |_| match ty.dtype.is_float() {
            true => Number::Float((self.below(4001) as f64 - 2000.0) / 997.0),
            false => Number::Int((self.next() & 1) as i128),
        }))
    }
}
