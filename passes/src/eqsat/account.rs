//! What a cut graph costs: the work, the bytes and the predicted time of its kernels, added up.
//!
//! The same arithmetic as the extraction's, from the graph alone, so that any two programs for one model can be compared:
//! a value that several kernels compute counts in each of them. Results do not show work that is done twice; this does.

use super::cost::{self, CostModel, varying};
use brolga_ir::ops::Role;
use brolga_ir::{Def, Graph, Node, Target, Type, Value};
use rustc_hash::FxHashMap;
use std::fmt;
use std::ops::AddAssign;

/// What the kernels of a graph do in one run; what unknown extents count as, [`cost`] says.
#[derive(Clone, Copy, PartialEq, Debug, Default)]
pub struct Account {
    /// Kernels and host operators that run with the model.
    pub kernels: usize,
    /// Multiply-adds of contractions and convolutions.
    pub multiply_adds: f64,
    /// Elements that row reductions and windows read.
    pub reduced: f64,
    /// Elements that are read against the order in which they lie.
    pub strided: f64,
    /// Bytes that kernels read, each operand once a kernel.
    pub read: f64,
    /// Bytes that kernels write.
    pub written: f64,
    /// The time of the cost model.
    pub seconds: f64,
}

impl AddAssign for Account {
    fn add_assign(&mut self, o: Account) {
        self.kernels += o.kernels;
        self.multiply_adds += o.multiply_adds;
        self.reduced += o.reduced;
        self.strided += o.strided;
        self.read += o.read;
        self.written += o.written;
        self.seconds += o.seconds;
    }
}

impl fmt::Display for Account {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} kernels, {:.3} M multiply-adds, {:.3} MB read, {:.3} MB written, {:.3} ms predicted",
            self.kernels,
            self.multiply_adds / 1e6,
            self.read / 1e6,
            self.written / 1e6,
            self.seconds * 1e3
        )
    }
}

/// The account of a cut graph on a target.
pub fn account(graph: &Graph, target: &Target) -> Account {
    let accountant = Accountant {
        graph,
        model: CostModel::new(target).of_graph(cost::batches(graph), cost::images(graph)),
        varies: varying(graph),
    };
    let mut sum = Account::default();
    for node in &graph.nodes {
        // What is constant is computed when the model is compiled.
        if !node.outputs.iter().any(|o| accountant.varies[o.0 as usize]) {
            continue;
        }
        match node.op.role() {
            Role::Store => sum += accountant.kernel(node.inputs[0]),
            role if role.is_step() => {
                let types: Vec<Type> = node.inputs.iter().map(|&i| graph.ty(i).clone()).collect();
                let work = accountant.model.operator(&node.op, &types, graph.ty(node.outputs[0]));
                sum.kernels += 1;
                sum.seconds += accountant.model.kernel(work.compute, work.memory);
            }
            _ => {}
        }
    }
    sum
}

struct Accountant<'g> {
    graph: &'g Graph,
    model: CostModel,
    /// Which values depend on an input.
    varies: Vec<bool>,
}

/// A kernel being added up.
#[derive(Default)]
struct KernelAccount {
    seen: FxHashMap<Value, bool>,
    compute: f64,
    memory: f64,
    sum: Account,
}

impl<'g> Accountant<'g> {
    /// The operator that computes a value in a kernel; `None` for what is in memory.
    fn stream(&self, v: Value) -> Option<&'g Node> {
        let Def::Node(n, _) = self.graph.def(v) else {
            return None;
        };
        let node = &self.graph.nodes[n as usize];
        match node.op.role() {
            role if matches!(role, Role::Store) || role.is_step() => None,
            Role::Reshape(_) => self.stream(node.inputs[0]).map(|_| node),
            _ => Some(node),
        }
    }

    fn kernel(&self, root: Value) -> Account {
        let mut k = KernelAccount::default();
        if self.stream(root).is_none() {
            return k.sum;
        }
        self.visit(&mut k, root);
        let written = self.graph.ty(root);
        let memory = k.memory.max(0.0) + self.model.traffic(written);
        let (spared, untouched) = self.spared(root);
        k.sum.kernels = 1;
        k.sum.written = self.model.bytes(written);
        let memory = (memory - untouched).max(0.0);
        k.sum.seconds = self.model.kernel(k.compute - spared, memory);
        k.sum
    }

    /// What a kernel is spared where others compute its operands in their places in the result: seconds of arithmetic and of memory.
    fn spared(&self, root: Value) -> (f64, f64) {
        let Some(node) = self.stream(root) else {
            return (0.0, 0.0);
        };
        let types: Vec<_> = node.inputs.iter().map(|&i| self.graph.ty(i).clone()).collect();
        if !self.model.operator(&node.op, &types, self.graph.ty(root)).embeds {
            return (0.0, 0.0);
        }
        let made = |v: &&Value| {
            let Def::Node(n, _) = self.graph.def(**v) else {
                return false;
            };
            let store = &self.graph.nodes[n as usize];
            let result = self.graph.roots().any(|o| o == **v);
            matches!(store.op.role(), Role::Store)
                && self.varies[v.0 as usize]
                && !result
                && (self.stream(store.inputs[0])).is_some_and(|n| !matches!(n.op.role(), Role::Reshape(_)))
        };
        let spared = node
            .inputs
            .iter()
            .filter(made)
            .map(|v| self.model.spared(self.graph.ty(*v)));
        spared.fold((0.0, 0.0), |(a, b), (c, m)| (a + c, b + m))
    }

    /// Adds a value of a kernel and what it is computed from; true when it is read in strides or behind a margin.
    fn visit(&self, k: &mut KernelAccount, v: Value) -> bool {
        if let Some(&rough) = k.seen.get(&v) {
            return rough;
        }
        let rough = match self.stream(v) {
            Some(node) => self.operator(k, node),
            None => {
                if !self.is_number(v) {
                    k.memory += self.model.traffic(self.graph.ty(v));
                    k.sum.read += self.model.bytes(self.graph.ty(v));
                }
                false
            }
        };
        k.seen.insert(v, rough);
        rough
    }

    fn operator(&self, k: &mut KernelAccount, node: &Node) -> bool {
        let before = k.compute;
        let rough = node.inputs.iter().fold(false, |r, &i| r | self.visit(k, i));
        let types: Vec<_> = node.inputs.iter().map(|&i| self.graph.ty(i).clone()).collect();
        let out = self.graph.ty(node.outputs[0]);
        let work = self.model.operator(&node.op, &types, out);
        let (compute, rough) = work.arithmetic(rough);
        k.compute = before + work.below(k.compute - before) + compute;
        k.memory += work.memory;
        match node.op.role() {
            Role::Contract(c) => {
                k.sum.multiply_adds += self.model.elements(out) * self.model.extent(&c.depth(&node.op, &types))
            }
            Role::Own(own) => k.sum.multiply_adds += self.model.extent(&own.work(&node.op, &types).products),
            Role::Tree(tree) => k.sum.multiply_adds += self.model.extent(&tree.work(&node.op, &types).products),
            Role::Rows(_) => k.sum.reduced += self.model.elements(&types[0]),
            Role::Window(w) => k.sum.reduced += self.model.elements(out) * self.model.taps(w, &node.op),
            Role::Move(m) if m.strides(&node.op, &types[0]) => k.sum.strided += self.model.elements(out),
            _ => {}
        }
        rough
    }

    /// True for a constant that is one value everywhere: kernels hold it, they do not read it.
    fn is_number(&self, v: Value) -> bool {
        match self.graph.def(v) {
            Def::Const(c) => self.graph.constants[c as usize].as_splat().is_some(),
            _ => false,
        }
    }
}
