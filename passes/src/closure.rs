//! Congruence closure: what follows from equations between the values of a graph, and from which of them.
//!
//! Two nodes of one operator over equal operands have equal results. A proof forest remembers why values were merged
//! (Nieuwenhuis and Oliveras, "Proof-producing congruence closure", RTA 2005).

use brolga_ir::{Attr, Graph, Value};
use rustc_hash::{FxHashMap, FxHashSet};

/// Why two values were merged.
#[derive(Clone, Copy, Debug)]
enum Because {
    /// An equation, by the number that it was given.
    Equation(usize),
    /// Two nodes are congruent.
    Congruent(u32, u32),
}

/// The values of a graph, in classes that are equal.
pub struct Closure<'g> {
    graph: &'g Graph,
    /// The representative of every value, by way of others.
    parent: Vec<u32>,
    /// The nodes that read a value of a class, by its representative.
    readers: Vec<Vec<u32>>,
    /// The first node of every operator over operands' representatives.
    known: FxHashMap<Signature<'g>, u32>,
    /// The proof forest: what a value was merged with, and why.
    why: Vec<Option<(u32, Because)>>,
}

type Signature<'g> = (&'static str, &'g [Attr], Vec<u32>);

impl<'g> Closure<'g> {
    /// Every value alone, but for those of nodes that are alike.
    pub fn new(graph: &'g Graph) -> Closure<'g> {
        let n = graph.values.len();
        let mut c = Closure {
            graph,
            parent: (0..n as u32).collect(),
            readers: vec![vec![]; n],
            known: FxHashMap::default(),
            why: vec![None; n],
        };
        for (k, node) in (0..).zip(&graph.nodes) {
            for v in &node.inputs {
                c.readers[v.0 as usize].push(k);
            }
        }
        let mut todo = vec![];
        (0..graph.nodes.len() as u32).for_each(|k| c.sign(k, &mut todo));
        c.merge(todo);
        c
    }

    /// What follows from equations, each of which is numbered by its place and makes pairs of values equal.
    pub fn of<'e>(graph: &'g Graph, equations: impl Iterator<Item = &'e [(Value, Value)]>) -> Closure<'g> {
        let mut closure = Closure::new(graph);
        for (k, pairs) in equations.enumerate() {
            pairs.iter().for_each(|(a, b)| closure.add(*a, *b, k));
        }
        closure
    }

    /// What stands for a value and all that are equal to it, for now.
    pub fn find(&self, v: Value) -> u32 {
        let mut v = v.0;
        while self.parent[v as usize] != v {
            v = self.parent[v as usize];
        }
        v
    }

    /// Whether two values are equal by what was said so far.
    pub fn equal(&self, a: Value, b: Value) -> bool {
        self.find(a) == self.find(b)
    }

    /// Merges two values by an equation, and all that follows.
    pub fn add(&mut self, a: Value, b: Value, equation: usize) {
        self.merge(vec![(a, b, Because::Equation(equation))]);
    }

    /// Finds the node that a node is congruent to, or makes it the first of its kind.
    fn sign(&mut self, node: u32, todo: &mut Vec<(Value, Value, Because)>) {
        let n = &self.graph.nodes[node as usize];
        let operands = n.inputs.iter().map(|v| self.find(*v)).collect();
        let first = *self.known.entry((n.op.name(), n.op.attrs(), operands)).or_insert(node);
        if first != node {
            let other = &self.graph.nodes[first as usize];
            for (a, b) in n.outputs.iter().zip(&other.outputs) {
                todo.push((*a, *b, Because::Congruent(node, first)));
            }
        }
    }

    fn merge(&mut self, mut todo: Vec<(Value, Value, Because)>) {
        while let Some((a, b, because)) = todo.pop() {
            let (mut small, mut large) = (self.find(a), self.find(b));
            if small == large {
                continue;
            }
            let (mut from, mut to) = (a, b);
            if self.readers[small as usize].len() > self.readers[large as usize].len() {
                (small, large) = (large, small);
                (from, to) = (b, a);
            }
            self.make_root(from);
            self.why[from.0 as usize] = Some((to.0, because));
            self.parent[small as usize] = large;
            let moved = std::mem::take(&mut self.readers[small as usize]);
            for &node in &moved {
                self.sign(node, &mut todo);
            }
            self.readers[large as usize].extend(moved);
        }
    }

    /// Turns the edges of the proof forest around, so that a value is the root of its tree.
    fn make_root(&mut self, v: Value) {
        let (mut at, mut edge) = (v.0, self.why[v.0 as usize].take());
        while let Some((to, because)) = edge {
            edge = self.why[to as usize].replace((at, because));
            at = to;
        }
    }

    /// The values on the way from one to the root of its tree.
    fn ancestors(&self, v: Value) -> Vec<u32> {
        let mut out = vec![v.0];
        while let Some((to, _)) = self.why[*out.last().expect("it has one") as usize] {
            out.push(to);
        }
        out
    }

    /// The equations that suffice for values to be equal pair by pair, in ascending order; `None` where a pair is not.
    pub fn explain(&self, pairs: &[(Value, Value)]) -> Option<Vec<usize>> {
        let mut todo = pairs.to_vec();
        if todo.iter().any(|(a, b)| !self.equal(*a, *b)) {
            return None;
        }
        let mut equations = FxHashSet::default();
        // Every edge of the forest is told once.
        let mut told: FxHashSet<u32> = FxHashSet::default();
        while let Some((a, b)) = todo.pop() {
            if a == b {
                continue;
            }
            let (left, right) = (self.ancestors(a), self.ancestors(b));
            let shared = left
                .iter()
                .rev()
                .zip(right.iter().rev())
                .take_while(|(x, y)| x == y)
                .count();
            let edges = left[..left.len() - shared].iter().chain(&right[..right.len() - shared]);
            for &v in edges {
                if !told.insert(v) {
                    continue;
                }
                match self.why[v as usize].expect("it is no root").1 {
                    Because::Equation(e) => {
                        equations.insert(e);
                    }
                    Because::Congruent(m, n) => {
                        let (m, n) = (&self.graph.nodes[m as usize], &self.graph.nodes[n as usize]);
                        todo.extend(m.inputs.iter().copied().zip(n.inputs.iter().copied()));
                    }
                }
            }
        }
        let mut equations: Vec<usize> = equations.into_iter().collect();
        equations.sort_unstable();
        Some(equations)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn graph(text: &str) -> Graph {
        Graph::parse(text, &|_| None).expect("it is one")
    }

    #[test]
    fn what_follows_is_known_with_its_reasons() {
        let g = graph(
            "graph @g(%0 a: f32[2], %1 b: f32[2], %2 c: f32[2]) {
               %3 = neg(%0)
               %4 = neg(%1)
               %5 = add(%3, %2)
               %6 = add(%4, %2)
               %7 = exp(%2)
               %8 = neg(%0)
               return x = %5, y = %6, z = %7, w = %8
             }",
        );
        let v = Value;
        let mut c = Closure::new(&g);
        assert!(c.equal(v(3), v(8)) && !c.equal(v(3), v(4)));
        assert_eq!(c.explain(&[(v(3), v(8))]), Some(vec![]));
        assert_eq!(c.explain(&[(v(5), v(6))]), None);
        c.add(v(2), v(7), 7);
        c.add(v(0), v(1), 3);
        assert!(c.equal(v(5), v(6)) && c.equal(v(8), v(4)) && !c.equal(v(5), v(3)));
        assert_eq!(c.explain(&[(v(5), v(6))]), Some(vec![3]));
        assert_eq!(c.explain(&[(v(5), v(6)), (v(7), v(2))]), Some(vec![3, 7]));
        assert_eq!(c.explain(&[(v(5), v(5))]), Some(vec![]));
    }

    #[test]
    fn the_reasons_suffice() {
        // Random equations over random terms: what is told to suffice does, in a closure of its own.
        let mut state = 1u64;
        let mut below = |n: usize| {
            state = state
                .wrapping_mul(6364136223846793005)
                .wrapping_add(1442695040888963407);
            (state >> 33) as usize % n
        };
        for _ in 0..50 {
            let mut g = Graph::new("g");
            for i in 0..4 {
                g.input(&format!("x{i}"), brolga_ir::Type::fixed(brolga_ir::DType::F32, &[2]));
            }
            for _ in 0..30 {
                let [a, b] = [0; 2].map(|_| Value(below(g.values.len()) as u32));
                let op = brolga_ir::Op::new(["add", "mul"][below(2)], &[]).expect("it is an operator");
                g.add(op, &[a, b], &"".into()).expect("it is typed");
            }
            let mut pair = || [0; 2].map(|_| Value(below(34) as u32));
            let equations: Vec<[Value; 2]> = (0..8).map(|_| pair()).collect();
            let mut all = Closure::new(&g);
            equations.iter().enumerate().for_each(|(i, [a, b])| all.add(*a, *b, i));
            for _ in 0..20 {
                let [a, b] = pair();
                let Some(reasons) = all.explain(&[(a, b)]) else {
                    assert!(!all.equal(a, b));
                    continue;
                };
                let mut few = Closure::new(&g);
                reasons
                    .iter()
                    .for_each(|&i| few.add(equations[i][0], equations[i][1], i));
                assert!(few.equal(a, b));
            }
        }
    }
}
