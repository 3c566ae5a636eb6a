//! Trees as a node gives them, and as splits of one kind.
//!
//! Invariant: every [`Node`] asks `x <= threshold`, whatever its mode was; NaN goes above, but where [`Node::nan_below`] says otherwise.
//! Both are exact: `x < t` is `x <= t'` with the next smaller float, `x == t` asks `x <= t` and then not `x <= t'`, and a set is searched
//! by bisection.

use super::super::*;
use rustc_hash::FxHashMap;

/// Where a way leads.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Next {
    /// To a split, by position.
    Split(usize),
    /// To a leaf, by position.
    Leaf(usize),
}

/// What a split asks of a feature.
#[derive(Clone, PartialEq, Debug)]
pub enum Test {
    AtMost(f64),
    Below(f64),
    AtLeast(f64),
    Above(f64),
    Equal(f64),
    Unequal(f64),
    /// One of a few.
    Among(Vec<f64>),
}

/// A split as the model has it.
#[derive(Clone, Debug)]
pub struct Split {
    pub feature: usize,
    pub test: Test,
    /// NaN passes.
    pub nan: bool,
    /// Where it leads if the test passes.
    pub yes: Next,
    /// Where it leads if not.
    pub no: Next,
}

/// Trees.
#[derive(Clone, Default, Debug)]
pub struct Forest {
    pub roots: Vec<Next>,
    pub splits: Vec<Split>,
    /// What a leaf adds to which target.
    pub leaves: Vec<Vec<(usize, f64)>>,
}

/// A split that asks `x <= threshold`.
#[derive(Clone, Copy, Debug)]
pub struct Node {
    pub feature: usize,
    pub threshold: f64,
    pub nan_below: bool,
    pub below: Next,
    pub above: Next,
}

/// Trees of nodes. A [`Next::Split`] is a node here.
#[derive(Clone, Debug)]
pub struct Nodes {
    pub roots: Vec<Next>,
    pub nodes: Vec<Node>,
}

/// A way during lowering: as the model has it, or to a node that is made.
#[derive(Clone, Copy)]
enum To {
    Given(Next),
    Made(usize),
}

struct Maker {
    nodes: Vec<(Node, [To; 2])>,
    /// The next smaller float of the features' dtype.
    before: fn(f64) -> f64,
}

impl Maker {
    fn node(&mut self, feature: usize, threshold: f64, nan_below: bool, ways: [To; 2]) -> usize {
        let nowhere = Next::Leaf(0);
        let node = Node {
            feature,
            threshold,
            nan_below,
            below: nowhere,
            above: nowhere,
        };
        self.nodes.push((node, ways));
        self.nodes.len() - 1
    }

    /// All but NaN goes one way.
    fn always(&mut self, feature: usize, way: To, nan: To) -> usize {
        self.node(feature, f64::INFINITY, false, [way, nan])
    }

    fn equal(&mut self, feature: usize, t: f64, nan: bool, [yes, no]: [To; 2]) -> usize {
        let least = (self.before)(t);
        let exact = self.node(feature, least, false, [no, yes]);
        self.node(feature, t, nan, [To::Made(exact), no])
    }

    fn among(&mut self, feature: usize, sorted: &[f64], nan: bool, ways: [To; 2]) -> usize {
        if let [t] = sorted {
            return self.equal(feature, *t, nan, ways);
        }
        let middle = sorted.len() / 2;
        let low = self.among(feature, &sorted[..middle], nan, ways);
        let high = self.among(feature, &sorted[middle..], nan, ways);
        self.node(feature, sorted[middle - 1], false, [To::Made(low), To::Made(high)])
    }

    /// The first node of a split.
    fn split(&mut self, s: &Split) -> usize {
        let (f, yes, no) = (s.feature, To::Given(s.yes), To::Given(s.no));
        let missing = if s.nan { yes } else { no };
        match &s.test {
            Test::AtMost(t) if !t.is_nan() => self.node(f, *t, s.nan, [yes, no]),
            Test::Above(t) if !t.is_nan() => self.node(f, *t, !s.nan, [no, yes]),
            Test::Below(t) if *t > f64::NEG_INFINITY => self.node(f, (self.before)(*t), s.nan, [yes, no]),
            Test::AtLeast(t) if *t > f64::NEG_INFINITY => self.node(f, (self.before)(*t), !s.nan, [no, yes]),
            Test::AtLeast(f64::NEG_INFINITY) => self.always(f, yes, missing),
            Test::Equal(t) if !t.is_nan() => self.equal(f, *t, s.nan, [yes, no]),
            // NaN is unequal to everything.
            Test::Unequal(t) if !t.is_nan() => self.equal(f, *t, false, [no, yes]),
            Test::Unequal(_) => self.always(f, yes, yes),
            Test::Among(all) => {
                let mut sorted: Vec<f64> = all.iter().copied().filter(|t| !t.is_nan()).collect();
                sorted.sort_by(f64::total_cmp);
                sorted.dedup();
                match sorted.is_empty() {
                    true => self.always(f, no, missing),
                    false => self.among(f, &sorted, s.nan, [yes, no]),
                }
            }
            // Nothing compares with NaN, and nothing is below the least.
            Test::AtMost(_) | Test::Above(_) | Test::Below(_) | Test::AtLeast(_) | Test::Equal(_) => {
                self.always(f, no, missing)
            }
        }
    }
}

impl Forest {
    /// The trees with splits of one kind, for features of f32 or f64.
    pub fn nodes(&self, double: bool) -> Nodes {
        let before: fn(f64) -> f64 = match double {
            true => f64::next_down,
            false => |t| (t as f32).next_down().into(),
        };
        let mut maker = Maker { nodes: vec![], before };
        let heads: Vec<usize> = self.splits.iter().map(|s| maker.split(s)).collect();
        let given = |n: Next| match n {
            Next::Split(s) => Next::Split(heads[s]),
            leaf => leaf,
        };
        let way = |to: To| match to {
            To::Given(n) => given(n),
            To::Made(n) => Next::Split(n),
        };
        let nodes = maker.nodes.iter().map(|(node, [below, above])| Node {
            below: way(*below),
            above: way(*above),
            ..*node
        });
        Nodes {
            roots: self.roots.iter().map(|&r| given(r)).collect(),
            nodes: nodes.collect(),
        }
    }
}

impl Nodes {
    /// The most splits from a root to a leaf.
    ///
    /// # Errors
    /// When a way leads back.
    pub fn depth(&self) -> Result<usize, Fail> {
        const OPEN: usize = usize::MAX;
        let mut depths: FxHashMap<usize, usize> = FxHashMap::default();
        let mut todo: Vec<usize> = self.splits(&self.roots);
        while let Some(&n) = todo.last() {
            let ways = self.splits(&[self.nodes[n].below, self.nodes[n].above]);
            match depths.get(&n) {
                Some(&d) if d != OPEN => drop(todo.pop()),
                Some(_) => {
                    let below = ways.iter().map(|w| depths[w]);
                    let d = below.max().map_or(Some(1), |d| d.checked_add(1)).filter(|&d| d != OPEN);
                    let d = d.ok_or("a tree whose branches lead back to it")?;
                    depths.insert(n, d);
                    todo.pop();
                }
                None => {
                    depths.insert(n, OPEN);
                    for w in ways {
                        match depths.get(&w) {
                            Some(&d) if d == OPEN => return Err("a tree whose branches lead back to it".into()),
                            Some(_) => {}
                            None => todo.push(w),
                        }
                    }
                }
            }
        }
        Ok(self.splits(&self.roots).iter().map(|r| depths[r]).max().unwrap_or(0))
    }

    fn splits(&self, ways: &[Next]) -> Vec<usize> {
        let split = |w: &Next| match w {
            Next::Split(n) => Some(*n),
            Next::Leaf(_) => None,
        };
        ways.iter().filter_map(split).collect()
    }

    /// The leaves that a root leads to.
    pub fn leaves_of(&self, root: Next) -> Vec<usize> {
        let (mut todo, mut seen, mut found) = (vec![root], FxHashMap::default(), vec![]);
        while let Some(n) = todo.pop() {
            match n {
                Next::Leaf(l) => found.push(l),
                Next::Split(s) if seen.insert(s, ()).is_none() => {
                    todo.extend([self.nodes[s].below, self.nodes[s].above]);
                }
                Next::Split(_) => {}
            }
        }
        found.sort_unstable();
        found.dedup();
        found
    }
}
