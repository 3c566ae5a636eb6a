//! The cheapest terms of an e-graph whose nodes have costs that add up: what extraction-gym compares.
//!
//! A choice gives each class that the roots need one node, without cycles; it costs the sum of its nodes, each class once.
//!
//! - **tree**: each class by the node whose tree is the cheapest: what is shared counts again each time (egg's extractor).
//! - **greedy**: the same with the set of what a node needs in place of its tree, so that sharing within a node's operands is seen.
//! - **exact**: branch and bound from the cheaper of both. What is open costs at least the cheapest node of every class that all choices need.

use super::EGraph;
use std::str::FromStr;

/// Partial choices that branch and bound looks at.
const MOST: usize = 2_000_000;

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
    let (tree, greedy) = (dense.tree(), dense.greedy());
    if let Some(&r) = dense.roots.iter().find(|&&r| tree[r].is_none()) {
        let name = dense.classes[r];
        return Err(format!(
            "the root `{name}` has no term: every way to it goes in circles or through subsumed nodes"
        ));
    }
    let (chosen, proven) = match with {
        With::Tree => (tree, false),
        With::Greedy => (greedy, false),
        With::Exact => dense.exact(match dense.cost(&tree) < dense.cost(&greedy) {
            true => tree,
            false => greedy,
        }),
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

/// What a class needs: the cost of a set of nodes, and the classes and nodes, sorted.
type Needed = (f64, Vec<(usize, usize)>);

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
        let root = |r: &String| classes.iter().position(|c| c == r).expect("names were checked");
        let mut out = Dense {
            roots: eg.roots.iter().map(root).collect(),
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

    /// Each class by its cheapest tree.
    fn tree(&self) -> Choices {
        let mut best: Vec<f64> = vec![f64::INFINITY; self.nodes.len()];
        let mut chosen: Choices = vec![None; self.nodes.len()];
        loop {
            let mut changed = false;
            for (c, nodes) in self.nodes.iter().enumerate() {
                for (k, n) in nodes.iter().enumerate() {
                    let known = n.children.iter().all(|&o| chosen[o].is_some());
                    let sum = n.cost + n.children.iter().map(|&o| best[o]).sum::<f64>();
                    // Trees double at what is shared, beyond all numbers.
                    let cost = if known { sum.min(f64::MAX) } else { f64::INFINITY };
                    // Among equal trees the first found stays, which no cycle goes through.
                    if cost < best[c] {
                        (best[c], chosen[c], changed) = (cost, Some(k), true);
                    }
                }
            }
            if !changed {
                return chosen;
            }
        }
    }

    /// Each class by the cheapest set of nodes, as the sets of its operands are.
    fn greedy(&self) -> Choices {
        // What a class needs, itself included, sorted, with the node of each.
        let mut sets: Vec<Option<Needed>> = vec![None; self.nodes.len()];
        loop {
            let mut changed = false;
            for (c, nodes) in self.nodes.iter().enumerate() {
                for (k, n) in nodes.iter().enumerate() {
                    let mut all: Vec<(usize, usize)> = vec![(c, k)];
                    let Some(()) = n.children.iter().try_for_each(|&o| {
                        let (_, set) = sets[o].as_ref()?;
                        all.extend(set.iter().filter(|s| s.0 != c));
                        set.iter().all(|s| s.0 != c).then_some(())
                    }) else {
                        continue;
                    };
                    all.sort_unstable();
                    all.dedup_by_key(|s| s.0);
                    let cost = all.iter().map(|&(c, k)| self.nodes[c][k].cost).sum::<f64>();
                    if sets[c].as_ref().is_none_or(|s| cost < s.0 * (1.0 - 1e-12)) {
                        (sets[c], changed) = (Some((cost, all)), true);
                    }
                }
            }
            if !changed {
                break;
            }
        }
        let chosen: Choices = sets.iter().enumerate().map(|(c, s)| own(c, s.as_ref())).collect();
        // Sets of different classes may disagree: together they may go in circles, which trees do not.
        match self.used(&chosen) {
            Some(_) => chosen,
            None => self.tree(),
        }
    }

    /// The classes that the roots need by a choice, in the order of the file; `None` where it goes in circles, or has no node for one.
    fn used(&self, chosen: &Choices) -> Option<Vec<usize>> {
        let mut state = vec![0u8; self.nodes.len()];
        let mut stack: Vec<(usize, usize)> = self.roots.iter().map(|&r| (r, 0)).collect();
        while let Some((c, i)) = stack.pop() {
            match (i, state[c]) {
                (0, 0) => state[c] = 1,
                (0, 1) => return None,
                (0, _) => continue,
                _ => {}
            }
            match self.nodes[c][chosen[c]?].children.get(i) {
                Some(&o) => {
                    stack.push((c, i + 1));
                    stack.push((o, 0));
                }
                None => state[c] = 2,
            }
        }
        Some((0..state.len()).filter(|&c| state[c] == 2).collect())
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
    fn exact(&self, start: Choices) -> (Choices, bool) {
        let least = |nodes: &Vec<Candidate>| nodes.iter().map(|n| n.cost).fold(f64::INFINITY, f64::min);
        let mut solver = Solver {
            dense: self,
            least: self.nodes.iter().map(least).collect(),
            needed: self.needed(),
            possible: self.tree().iter().map(Option::is_some).collect(),
            best: self.cost(&start),
            chosen: start,
            current: vec![None; self.nodes.len()],
            left: MOST,
        };
        solver.branch(0.0);
        (solver.chosen, solver.left > 0)
    }

    /// The classes that every term of a class needs, as sets of bits; empty where there are too many classes.
    fn needed(&self) -> Vec<Vec<u64>> {
        let n = self.nodes.len();
        if n > FEW {
            return vec![];
        }
        let words = n.div_ceil(64);
        // At first everything; what is left in the end holds for every term.
        let mut of = vec![vec![u64::MAX; words]; n];
        loop {
            let mut changed = false;
            for (c, nodes) in self.nodes.iter().enumerate() {
                let mut common = vec![u64::MAX; words];
                for node in nodes {
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

/// The node of a class among what it needs.
fn own(c: usize, set: Option<&(f64, Vec<(usize, usize)>)>) -> Option<usize> {
    set.and_then(|(_, all)| all.iter().find(|s| s.0 == c)).map(|s| s.1)
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
    fn branch(&mut self, cost: f64) {
        if self.left == 0 {
            return;
        }
        self.left -= 1;
        let Some(open) = self.open() else { return };
        let enough = self.best * (1.0 - 1e-12);
        if cost + self.at_least(&open) >= enough {
            return;
        }
        let Some(&c) = open.first() else {
            (self.best, self.chosen) = (cost, self.current.clone());
            return;
        };
        let nodes = &self.dense.nodes[c];
        let mut order: Vec<usize> = (0..nodes.len()).collect();
        order.retain(|&k| nodes[k].children.iter().all(|&o| self.possible[o]));
        order.sort_by_key(|&k| self.chosen[c] != Some(k));
        for k in order {
            self.current[c] = Some(k);
            self.branch(cost + nodes[k].cost);
        }
        self.current[c] = None;
    }

    /// The classes that are needed and not decided; `None` where what is decided goes in circles.
    fn open(&self) -> Option<Vec<usize>> {
        let mut state = vec![0u8; self.current.len()];
        let mut open = vec![];
        let mut stack: Vec<(usize, usize)> = self.dense.roots.iter().rev().map(|&r| (r, 0)).collect();
        while let Some((c, i)) = stack.pop() {
            match (i, state[c]) {
                (0, 0) => state[c] = 1,
                (0, 1) => return None,
                (0, _) => continue,
                _ => {}
            }
            let node = self.current[c].map(|k| &self.dense.nodes[c][k]);
            if node.is_none() {
                open.push(c);
            }
            match node.and_then(|n| n.children.get(i)) {
                Some(&o) => {
                    stack.push((c, i + 1));
                    stack.push((o, 0));
                }
                None => state[c] = 2,
            }
        }
        Some(open)
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
            let tree = dense.tree();
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
            let (exact, proven) = dense.exact(dense.greedy());
            assert!(proven);
            assert_eq!(dense.cost(&exact), best);
            assert!(best <= dense.cost(&dense.greedy()) && best <= dense.cost(&tree));
        }
        assert!(cyclic < 250, "{cyclic} have no terms");
    }
}
