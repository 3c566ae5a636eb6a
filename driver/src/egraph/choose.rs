//! The cheapest terms of an e-graph whose nodes have costs that add up: what extraction-gym compares.
//!
//! A choice gives each class that the roots need one node, without cycles; it costs the sum of its nodes, each class once.
//!
//! - **tree**: each class by the node whose tree is the cheapest: what is shared counts again each time (egg's extractor).
//! - **greedy**: the same with the set of what a node needs in place of its tree, so that sharing within a node's operands is seen.
//! - **exact**: branch and bound from the cheaper of both. What is open costs at least the cheapest node of every class that all choices need.

use super::EGraph;
use rustc_hash::FxHashMap;
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::str::FromStr;

/// Partial choices that branch and bound looks at, and classes that it looks at in all of them.
const MOST: usize = 2_000_000;
const WORK: usize = 2_000_000_000;

/// Classes up to which it is told what all choices need.
const FEW: usize = 20_000;

/// How nodes are chosen.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum With {
    /// The cheapest tree.
    Tree,
    /// The cheapest set.
    Greedy,
    /// Branch and bound.
    Exact,
}

impl With {
    /// All of them.
    pub const ALL: [With; 3] = [With::Tree, With::Greedy, With::Exact];

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            With::Tree => "tree",
            With::Greedy => "greedy",
            With::Exact => "exact",
        }
    }
}

impl FromStr for With {
    type Err = String;

    fn from_str(name: &str) -> Result<With, String> {
        let found = With::ALL.into_iter().find(|w| w.name() == name);
        found.ok_or_else(|| format!("expected one of {}", With::ALL.map(With::name).join(", ")))
    }
}

/// What was chosen.
#[derive(Clone, PartialEq, Debug)]
pub struct Chosen {
    /// What it costs, each class once.
    pub cost: f64,
    /// The node of each class that the roots need, in the order of the file.
    pub nodes: Vec<(String, String)>,
    /// True when no choice is cheaper: proven by branch and bound.
    pub proven: bool,
}

/// Chooses nodes for the roots of an e-graph whose names were checked ([`read`](super::read)).
///
/// # Errors
/// When a root has no term: every way to it goes in circles or through subsumed nodes.
pub fn choose(eg: &EGraph, with: With) -> Result<Chosen, String> {
    let dense = Dense::new(eg);
    let trees = dense.trees();
    if let Some(&r) = dense.roots.iter().find(|&&r| trees[r].is_none()) {
        let name = dense.classes[r];
        return Err(format!(
            "the root `{name}` has no term: every way to it goes in circles or through subsumed nodes"
        ));
    }
    let (chosen, proven) = match with {
        With::Tree => (trees, false),
        With::Greedy => (dense.greedy(&trees), false),
        With::Exact => dense.exact(&trees),
    };
    let used = dense.used(&chosen).expect("a choice has no cycles");
    let nodes = used.into_iter().map(|c| {
        let k = chosen[c].expect("what is used is chosen");
        (dense.classes[c].to_owned(), dense.names[c][k].to_owned())
    });
    Ok(Chosen {
        cost: dense.cost(&chosen),
        nodes: nodes.collect(),
        proven,
    })
}

/// A node of each class.
type Choices = Vec<Option<usize>>;

/// A tree that a class may have: the bits of its cost (those of floats from 0 on are in their order), the class and the node.
type Tree = Reverse<(u64, usize, usize)>;

fn tree(cost: f64, class: usize, node: usize) -> Tree {
    // Trees double at what is shared, beyond all numbers; and a zero may have a sign.
    Reverse(((cost + 0.0).min(f64::MAX).to_bits(), class, node))
}

/// What a class needs: the cost of a set of nodes, and the classes and nodes, sorted.
type Needed = (f64, Vec<(u32, u32)>);

/// One node.
struct Candidate {
    cost: f64,
    children: Vec<usize>,
}

/// An e-graph by positions.
struct Dense<'a> {
    classes: Vec<&'a str>,
    names: Vec<Vec<&'a str>>,
    nodes: Vec<Vec<Candidate>>,
    roots: Vec<usize>,
}

impl<'a> Dense<'a> {
    fn new(eg: &'a EGraph) -> Dense<'a> {
        let (of, classes) = eg.classes();
        let position = eg.positions();
        let at: FxHashMap<&str, usize> = classes.iter().copied().zip(0..).collect();
        let mut out = Dense {
            roots: eg.roots.iter().map(|r| at[r.as_str()]).collect(),
            names: vec![vec![]; classes.len()],
            nodes: classes.iter().map(|_| vec![]).collect(),
            classes,
        };
        for (node, &class) in eg.nodes.iter().zip(&of).filter(|(n, _)| !n.subsumed) {
            let mut children: Vec<usize> = node.children.iter().map(|c| of[position[c.as_str()]]).collect();
            children.sort_unstable();
            children.dedup();
            out.names[class].push(&node.id);
            out.nodes[class].push(Candidate {
                cost: node.cost,
                children,
            });
        }
        out
    }

    /// Each class by its cheapest tree, the cheapest of all first (Knuth, "A generalization of Dijkstra's algorithm", 1977): no cycle goes
    /// through trees that are made of finished ones.
    fn trees(&self) -> Choices {
        let mut chosen = vec![None; self.nodes.len()];
        let mut best = vec![0.0; self.nodes.len()];
        let (mut heap, mut readers): (BinaryHeap<Tree>, Vec<Vec<(usize, usize)>>) = Default::default();
        readers.resize(self.nodes.len(), vec![]);
        let mut missing: Vec<Vec<usize>> = vec![];
        for (c, nodes) in self.nodes.iter().enumerate() {
            missing.push(nodes.iter().map(|n| n.children.len()).collect());
            for (k, n) in nodes.iter().enumerate() {
                n.children.iter().for_each(|&o| readers[o].push((c, k)));
                if n.children.is_empty() {
                    heap.push(tree(n.cost, c, k));
                }
            }
        }
        while let Some(Reverse((cost, c, k))) = heap.pop() {
            if chosen[c].is_some() {
                continue;
            }
            (chosen[c], best[c]) = (Some(k), f64::from_bits(cost));
            for &(r, k) in &readers[c] {
                missing[r][k] -= 1;
                if missing[r][k] == 0 {
                    let n = &self.nodes[r][k];
                    let cost = n.cost + n.children.iter().map(|&o| best[o]).sum::<f64>();
                    heap.push(tree(cost, r, k));
                }
            }
        }
        chosen
    }

    /// Each class by the cheapest set of nodes, as the sets of its operands are.
    fn greedy(&self, trees: &Choices) -> Choices {
        let order = self.bottom_up();
        let mut readers: Vec<Vec<usize>> = vec![vec![]; self.nodes.len()];
        for &c in &order {
            self.operands(c).for_each(|o| readers[o].push(c));
        }
        let mut sets: Vec<Option<Needed>> = vec![None; self.nodes.len()];
        // Classes with an operand whose set has changed.
        let mut open = vec![true; self.nodes.len()];
        let mut changed = true;
        while std::mem::take(&mut changed) {
            for &c in &order {
                if !std::mem::take(&mut open[c]) {
                    continue;
                }
                for k in 0..self.nodes[c].len() {
                    if let Some(better) = self.better(c, k, &sets) {
                        (sets[c], changed) = (Some(better), true);
                        readers[c].iter().for_each(|&r| open[r] = true);
                    }
                }
            }
        }
        let own = |(c, set): (usize, &Option<Needed>)| {
            let (_, all) = set.as_ref()?;
            let at = all.binary_search_by_key(&(c as u32), |s| s.0).ok()?;
            Some(all[at].1 as usize)
        };
        let chosen: Choices = sets.iter().enumerate().map(own).collect();
        // Sets of different classes may disagree: together they may go in circles, which trees do not.
        match self.used(&chosen) {
            Some(_) => chosen,
            None => trees.clone(),
        }
    }

    /// What a class needs with one of its nodes, itself included, where that is cheaper than what it needs so far; `None` where it is not, and
    /// where an operand has no set, or one with the class in it.
    fn better(&self, c: usize, k: usize, sets: &[Option<Needed>]) -> Option<Needed> {
        let node = &self.nodes[c][k];
        let operands: Vec<&Needed> = node.children.iter().map(|&o| sets[o].as_ref()).collect::<Option<_>>()?;
        let enough = sets[c].as_ref().map_or(f64::INFINITY, |s| s.0 * (1.0 - 1e-12));
        // The sets may be one within the other, but all of each is in it.
        if node.cost + operands.iter().map(|s| s.0).fold(0.0, f64::max) >= enough {
            return None;
        }
        let has = |s: &&Needed| s.1.binary_search_by_key(&(c as u32), |s| s.0).is_ok();
        if operands.iter().any(has) {
            return None;
        }
        let mut all = vec![(c as u32, k as u32)];
        operands.iter().for_each(|s| all.extend(&s.1));
        // What is sorted already is taken as it is.
        all.sort();
        all.dedup_by_key(|s| s.0);
        let cost = |&(c, k): &(u32, u32)| self.nodes[c as usize][k as usize].cost;
        let cost = all.iter().map(cost).sum::<f64>();
        (cost < enough).then_some((cost, all))
    }

    fn operands(&self, c: usize) -> impl Iterator<Item = usize> {
        self.nodes[c].iter().flat_map(|n| n.children.iter().copied())
    }

    /// The classes that the roots may need, each behind its operands but where they go in circles.
    fn bottom_up(&self) -> Vec<usize> {
        let mut seen = vec![false; self.nodes.len()];
        let mut order = vec![];
        let mut stack = vec![];
        for &r in &self.roots {
            if !std::mem::replace(&mut seen[r], true) {
                stack.push((r, self.operands(r)));
            }
            while let Some((c, operands)) = stack.last_mut() {
                match operands.next() {
                    Some(o) if seen[o] => {}
                    Some(o) => {
                        seen[o] = true;
                        stack.push((o, self.operands(o)));
                    }
                    None => {
                        order.push(*c);
                        stack.pop();
                    }
                }
            }
        }
        order
    }

    /// The classes that the roots need by a choice, in the order of the file; `None` where it goes in circles, or has no node for one.
    fn used(&self, chosen: &Choices) -> Option<Vec<usize>> {
        let (mut seen, open) = self.reached(chosen)?;
        seen.sort_unstable();
        open.is_empty().then_some(seen)
    }

    /// The classes that the roots need by what is chosen, and those of them that have no node yet; `None` where it goes in circles.
    fn reached(&self, chosen: &Choices) -> Option<(Vec<usize>, Vec<usize>)> {
        let mut state = vec![0u8; self.nodes.len()];
        let (mut seen, mut open) = (vec![], vec![]);
        let mut stack: Vec<(usize, usize)> = self.roots.iter().rev().map(|&r| (r, 0)).collect();
        while let Some((c, i)) = stack.pop() {
            let node = chosen[c].map(|k| &self.nodes[c][k]);
            match (i, state[c]) {
                (0, 0) => {
                    state[c] = 1;
                    seen.push(c);
                    if node.is_none() {
                        open.push(c);
                    }
                }
                (0, 1) => return None,
                (0, _) => continue,
                _ => {}
            }
            match node.and_then(|n| n.children.get(i)) {
                Some(&o) => {
                    stack.push((c, i + 1));
                    stack.push((o, 0));
                }
                None => state[c] = 2,
            }
        }
        Some((seen, open))
    }

    fn cost(&self, chosen: &Choices) -> f64 {
        let used = self.used(chosen);
        used.map_or(f64::INFINITY, |all| {
            all.into_iter()
                .filter_map(|c| Some(self.nodes[c][chosen[c]?].cost))
                .sum()
        })
    }

    /// The cheapest choice, and whether that is proven.
    fn exact(&self, trees: &Choices) -> (Choices, bool) {
        let greedy = self.greedy(trees);
        let start = match self.cost(trees) < self.cost(&greedy) {
            true => trees.clone(),
            false => greedy,
        };
        let least = |nodes: &Vec<Candidate>| nodes.iter().map(|n| n.cost).fold(f64::INFINITY, f64::min);
        let mut solver = Solver {
            dense: self,
            least: self.nodes.iter().map(least).collect(),
            needed: self.needed(),
            possible: trees.iter().map(Option::is_some).collect(),
            best: self.cost(&start),
            chosen: start,
            current: vec![None; self.nodes.len()],
            left: MOST.min(WORK / self.nodes.len().max(1)),
        };
        solver.solve();
        (solver.chosen, solver.left > 0)
    }

    /// The classes that every term of a class needs, as sets of bits, of those that the roots may need; empty where there are too many classes.
    fn needed(&self) -> Vec<Vec<u64>> {
        let n = self.nodes.len();
        if n > FEW {
            return vec![];
        }
        let (words, order) = (n.div_ceil(64), self.bottom_up());
        // At first everything; what is left in the end holds for every term.
        let mut of = vec![vec![u64::MAX; words]; n];
        loop {
            let mut changed = false;
            for &c in &order {
                let mut common = vec![u64::MAX; words];
                for node in &self.nodes[c] {
                    let mut all = vec![0u64; words];
                    for &o in &node.children {
                        all.iter_mut().zip(&of[o]).for_each(|(a, b)| *a |= b);
                    }
                    common.iter_mut().zip(&all).for_each(|(a, b)| *a &= b);
                }
                common[c / 64] |= 1 << (c % 64);
                if common != of[c] {
                    (of[c], changed) = (common, true);
                }
            }
            if !changed {
                return of;
            }
        }
    }
}

/// A class whose nodes are tried one after the other.
struct Branch {
    class: usize,
    nodes: std::vec::IntoIter<usize>,
    /// What is chosen before it costs.
    cost: f64,
}

struct Solver<'a> {
    dense: &'a Dense<'a>,
    /// The cost of the cheapest node of each class.
    least: Vec<f64>,
    needed: Vec<Vec<u64>>,
    /// Which classes have terms.
    possible: Vec<bool>,
    best: f64,
    chosen: Choices,
    current: Choices,
    left: usize,
}

impl Solver<'_> {
    /// Goes through all choices that may be cheaper than the best, depth first.
    fn solve(&mut self) {
        let mut branches: Vec<Branch> = self.branch(0.0).into_iter().collect();
        while let Some(b) = branches.last_mut() {
            self.current[b.class] = b.nodes.next();
            match self.current[b.class] {
                Some(k) => {
                    let cost = b.cost + self.dense.nodes[b.class][k].cost;
                    branches.extend(self.branch(cost));
                }
                None => {
                    branches.pop();
                }
            }
        }
    }

    /// What to choose next, after choices of this cost; `None` where that leads nowhere, or everything is chosen.
    fn branch(&mut self, cost: f64) -> Option<Branch> {
        self.left = self.left.checked_sub(1)?;
        let (_, open) = self.dense.reached(&self.current)?;
        if cost + self.at_least(&open) >= self.best * (1.0 - 1e-12) {
            return None;
        }
        let Some(&class) = open.first() else {
            (self.best, self.chosen) = (cost, self.current.clone());
            return None;
        };
        let nodes = &self.dense.nodes[class];
        let mut order: Vec<usize> = (0..nodes.len()).collect();
        order.retain(|&k| nodes[k].children.iter().all(|&o| self.possible[o]));
        order.sort_by_key(|&k| self.chosen[class] != Some(k));
        Some(Branch {
            class,
            nodes: order.into_iter(),
            cost,
        })
    }

    fn at_least(&self, open: &[usize]) -> f64 {
        if self.needed.is_empty() {
            return open.iter().map(|&c| self.least[c]).sum();
        }
        let mut all = vec![0u64; self.needed[0].len()];
        for &c in open {
            all.iter_mut().zip(&self.needed[c]).for_each(|(a, b)| *a |= b);
        }
        let has = |c: &usize| all[c / 64] >> (c % 64) & 1 == 1;
        let undecided = (0..self.current.len()).filter(|c| self.current[*c].is_none());
        undecided.filter(has).map(|c| self.least[c]).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn egraph(text: &str) -> EGraph {
        EGraph::parse(text).expect("it is of the format")
    }

    /// By trees `a` is 3 + 3 and `b` 5; as a set `a` is 1 + 1 + 2, since its operands share a class.
    const SHARED: &str = r#"{"nodes": {
        "a": {"op": "f", "children": ["p", "q"], "eclass": "r", "cost": 0.5},
        "b": {"op": "g", "children": [], "eclass": "r", "cost": 5},
        "p": {"op": "p", "children": ["s"], "eclass": "p"},
        "q": {"op": "q", "children": ["s"], "eclass": "q"},
        "s": {"op": "s", "children": [], "eclass": "s", "cost": 2.0}},
        "root_eclasses": ["r"]}"#;

    #[test]
    fn what_is_shared_counts_once() {
        let eg = egraph(SHARED);
        let costs = With::ALL.map(|w| choose(&eg, w).unwrap());
        assert_eq!(costs.clone().map(|c| c.cost), [5.0, 4.5, 4.5]);
        assert_eq!(costs.map(|c| c.proven), [false, false, true]);
    }

    #[test]
    fn sharing_between_roots_is_found_by_exact_alone() {
        // Each root by itself takes its own leaf of 2; together one of 3 is cheaper.
        let eg = egraph(
            r#"{"nodes": {
            "x0": {"op": "x", "children": ["l0"], "eclass": "x", "cost": 0}, "x1": {"op": "x", "children": ["m0"], "eclass": "x", "cost": 0},
            "y0": {"op": "y", "children": ["n0"], "eclass": "y", "cost": 0}, "y1": {"op": "y", "children": ["m0"], "eclass": "y", "cost": 0},
            "l0": {"op": "l", "eclass": "l", "cost": 2}, "n0": {"op": "n", "eclass": "n", "cost": 2}, "m0": {"op": "m", "eclass": "m", "cost": 3}},
            "root_eclasses": ["x", "y"]}"#,
        );
        assert_eq!(With::ALL.map(|w| choose(&eg, w).unwrap().cost), [4.0, 4.0, 3.0]);
    }

    /// Neither the stack nor the time is that of all pairs of classes.
    #[test]
    fn long_chains_are_chosen_from() {
        for (classes, with) in [(10_000, With::Tree), (4_000, With::Exact)] {
            let chosen = choose(&chain(classes), with).unwrap();
            assert_eq!((chosen.cost, chosen.nodes.len()), (classes as f64, classes));
        }
    }

    /// Classes in a row, with two nodes each.
    fn chain(classes: usize) -> EGraph {
        let mut nodes = serde_json::Map::new();
        for c in 0..classes {
            for (k, cost) in [2.0, 1.0].into_iter().enumerate() {
                // The names are in the order against which they depend on each other.
                let children: Vec<String> = (c + 1..classes).take(1).map(|o| format!("{o:05}.0")).collect();
                let node =
                    serde_json::json!({"op": "f", "children": children, "eclass": format!("{c:05}"), "cost": cost});
                nodes.insert(format!("{c:05}.{k}"), node);
            }
        }
        egraph(&serde_json::json!({"nodes": nodes, "root_eclasses": ["00000"]}).to_string())
    }

    #[test]
    fn cycles_and_subsumed_nodes_are_not_chosen() {
        let cyclic = r#"{"nodes": {
            "a0": {"op": "f", "children": ["b0"], "eclass": "a", "cost": 0}, "a1": {"op": "leaf", "eclass": "a", "cost": 9},
            "b0": {"op": "g", "children": ["a0"], "eclass": "b", "cost": 0}, "b1": {"op": "cheap", "eclass": "b", "cost": 1, "subsumed": true}},
            "root_eclasses": ["a", "b"]}"#;
        let eg = egraph(cyclic);
        for with in With::ALL {
            let chosen = choose(&eg, with).unwrap();
            assert_eq!(chosen.cost, 9.0, "{}", with.name());
            assert_eq!(chosen.nodes.len(), 2);
        }
        let none = egraph(&cyclic.replace("\"cost\": 9", "\"cost\": 9, \"subsumed\": true"));
        assert!(
            choose(&none, With::Exact)
                .unwrap_err()
                .contains("the root `a` has no term")
        );
    }

    /// Random e-graphs with cycles: exact is as cheap as trying everything, and nobody is cheaper.
    #[test]
    fn exact_is_the_cheapest_of_random_e_graphs() {
        let mut x = 0x9e37_79b9_7f4a_7c15u64;
        let mut below = |n: u64| {
            x ^= x << 13;
            x ^= x >> 7;
            x ^= x << 17;
            x % n
        };
        let mut cyclic = 0;
        for _ in 0..300 {
            let classes = 3 + below(5) as usize;
            let node = |below: &mut dyn FnMut(u64) -> u64| Candidate {
                cost: below(10) as f64,
                children: (0..below(3)).map(|_| below(classes as u64) as usize).collect(),
            };
            let ids: Vec<String> = (0..classes).map(|c| c.to_string()).collect();
            let nodes: Vec<Vec<Candidate>> = (0..classes)
                .map(|_| (0..1 + below(3)).map(|_| node(&mut below)).collect())
                .collect();
            let dense = Dense {
                classes: ids.iter().map(String::as_str).collect(),
                names: vec![],
                nodes,
                roots: vec![0, 1],
            };
            let tree = dense.trees();
            if dense.used(&tree).is_none() {
                cyclic += 1;
                continue;
            }
            // Everything.
            let mut best = f64::INFINITY;
            let total: usize = dense.nodes.iter().map(Vec::len).product();
            for mut i in 0..total {
                let pick = |n: &Vec<Candidate>| {
                    let k = i % n.len();
                    i /= n.len();
                    Some(k)
                };
                best = best.min(dense.cost(&dense.nodes.iter().map(pick).collect()));
            }
            let (exact, proven) = dense.exact(&tree);
            assert!(proven);
            assert_eq!(dense.cost(&exact), best);
            assert!(best <= dense.cost(&dense.greedy(&tree)) && best <= dense.cost(&tree));
        }
        assert!(cyclic < 250, "{cyclic} have no terms");
    }
}
