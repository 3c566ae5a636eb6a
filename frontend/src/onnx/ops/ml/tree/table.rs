//! Trees as tables, and the sums over trees: the leaves that an example reaches (`tree_leaves`), what they weigh (a gather), and a reduction
//! over the trees. Trees that each weigh one target only stand in rows by target, so that nothing is gathered for the others.

use super::super::*;
use super::forest::{Forest, Next, Nodes};
use brolga_ir::{Attr, DType, Number, Tensor};

/// How the trees' weights are put together.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Aggregate {
    Average,
    Sum,
    Min,
    Max,
}

impl Aggregate {
    /// The reduction, and what changes nothing in it.
    fn reduction(self) -> (&'static str, f64) {
        match self {
            Aggregate::Average | Aggregate::Sum => ("sum", 0.0),
            Aggregate::Min => ("min", f64::INFINITY),
            Aggregate::Max => ("max", f64::NEG_INFINITY),
        }
    }
    fn of_two(self, a: f64, b: f64) -> f64 {
        match self {
            Aggregate::Average | Aggregate::Sum => a + b,
            Aggregate::Min => a.min(b),
            Aggregate::Max => a.max(b),
        }
    }
}

/// More targets than that are a mistake.
const MOST_TARGETS: usize = 1 << 24;

/// How trees stand in the table of roots.
enum Order {
    /// One behind the other; a leaf weighs all targets.
    Mixed,
    /// So many for each target, one target's behind the other's; a leaf weighs one.
    ByTarget { rows: Vec<Vec<Next>>, longest: usize },
}

fn order(forest: &Forest, nodes: &Nodes, targets: usize) -> Order {
    if targets == 1 {
        return Order::ByTarget {
            rows: vec![nodes.roots.clone()],
            longest: nodes.roots.len(),
        };
    }
    let mut rows = vec![vec![]; targets];
    for &root in &nodes.roots {
        let mut of = nodes
            .leaves_of(root)
            .into_iter()
            .flat_map(|l| &forest.leaves[l])
            .map(|w| w.0);
        let Some(first) = of.next() else { continue };
        if of.any(|t| t != first) {
            return Order::Mixed;
        }
        rows[first].push(root);
    }
    let longest = rows.iter().map(Vec::len).max().unwrap_or(0);
    // Rows of very different lengths would be filled up for nothing.
    match longest * targets <= 2 * nodes.roots.len() {
        true => Order::ByTarget { rows, longest },
        false => Order::Mixed,
    }
}

/// The aggregated weights `[N, targets]` of the leaves that the examples `x [N, F]` (f32 or f64) reach, before base values.
///
/// # Errors
/// When a tree leads back to itself, a target or feature is out of range, or the tables are over the memory limit.
pub fn aggregate(graph: &mut Builder<'_>, x: Value, forest: &Forest, targets: usize, how: Aggregate) -> One {
    let dtype = graph.dtype(x);
    let nodes = forest.nodes(dtype == DType::F64);
    let depth = nodes.depth()?;
    if targets > MOST_TARGETS {
        return Err(Fail::Bad(format!("{targets} targets, {MOST_TARGETS} at most")));
    }
    let weights = forest.leaves.iter().flatten();
    if let Some(t) = weights.map(|w| w.0).find(|&t| t >= targets) {
        return Err(Fail::Bad(format!("a leaf of target {t}, there are {targets}")));
    }
    let order = order(forest, &nodes, targets);
    let (reduction, nothing) = how.reduction();
    // The last leaf weighs nothing: it fills rows of trees up.
    let leaves = forest.leaves.len() + 1;
    let at = |n: Next| match n {
        Next::Leaf(l) => l as i128,
        Next::Split(s) => (leaves + s) as i128,
    };
    let (roots, columns) = match &order {
        Order::Mixed => (nodes.roots.clone(), targets),
        Order::ByTarget { rows, longest } => {
            let filled = rows.iter().flat_map(|r| {
                let fill = std::iter::repeat_n(Next::Leaf(leaves - 1), longest - r.len());
                r.iter().copied().chain(fill)
            });
            (filled.collect(), 1)
        }
    };
    if (leaves * columns * dtype.bytes()) as u64 > graph.limit {
        return Err(Fail::Bad(format!(
            "weights of {leaves} leaves for {columns} targets, over the memory limit of {}; raise it with --memory-limit",
            graph.limit
        )));
    }
    let reached = leaves_of(
        graph,
        x,
        &nodes,
        depth,
        leaves,
        &roots.iter().map(|&r| at(r)).collect::<Vec<_>>(),
    )?;
    let mut table = vec![nothing; leaves * columns];
    for (l, weights) in forest.leaves.iter().enumerate() {
        for &(t, w) in weights {
            let e = &mut table[l * columns + if columns == 1 { 0 } else { t }];
            *e = how.of_two(*e, w);
        }
    }
    let rows = graph.shape(reached)[0].clone();
    let scores = match &order {
        Order::Mixed => {
            let table = Tensor::from_fn(dtype, &[leaves, targets], |i| Number::Float(table[i]));
            let table = graph.dense(table);
            let all = graph.gather(0, table, reached)?;
            let y = graph.reduce(reduction, &[1], all)?;
            graph.squeeze(y, &[1])?
        }
        Order::ByTarget { longest, .. } => {
            let table = graph.dense(Tensor::from_fn(dtype, &[leaves], |i| Number::Float(table[i])));
            let shape = vec![rows, Dim::from(targets), Dim::from(*longest)];
            let reached = graph.reshape(reached, shape)?;
            let all = graph.gather(0, table, reached)?;
            let y = graph.reduce(reduction, &[2], all)?;
            graph.squeeze(y, &[2])?
        }
    };
    match how {
        Aggregate::Sum => Ok(scores),
        Aggregate::Average => graph.map_num("div", scores, nodes.roots.len() as f64),
        Aggregate::Min | Aggregate::Max => {
            // A target that no leaf weighed.
            let none = graph.map_num("equal", scores, nothing)?;
            let zero = graph.scalar(dtype, 0.0);
            graph.map("where", &[none, zero, scores])
        }
    }
}

/// The leaves `u32 [N, T]` that examples reach from roots.
fn leaves_of(graph: &mut Builder<'_>, x: Value, nodes: &Nodes, depth: usize, leaves: usize, roots: &[i128]) -> One {
    let features = nodes.nodes.iter().map(|n| n.feature + 1).max().unwrap_or(1);
    let below = nodes.nodes.iter().any(|n| n.nan_below);
    let above = nodes.nodes.iter().any(|n| !n.nan_below);
    let mut x = graph.columns(x, features)?;
    if below {
        // Where NaN goes below, it is the least.
        let least = graph.scalar(graph.dtype(x), f64::NEG_INFINITY);
        let is = graph.op("is_nan", &[], &[x])?;
        let filled = graph.map("where", &[is, least, x])?;
        x = match above {
            true => graph.concat(1, &[x, filled])?,
            false => filled,
        };
    }
    let total = leaves + nodes.nodes.len();
    let inner = |i: usize| i.checked_sub(leaves).map(|s| &nodes.nodes[s]);
    let column = |i: usize| inner(i).map_or(0, |n| n.feature + if n.nan_below && above { features } else { 0 });
    let feature = Tensor::from_fn(DType::U32, &[total], |i| Number::Int(column(i) as i128));
    let threshold = |i: usize| Number::Float(inner(i).map_or(0.0, |n| n.threshold));
    let threshold = Tensor::from_fn(graph.dtype(x), &[total], threshold);
    let child = Tensor::from_fn(DType::U32, &[2 * total], |i| {
        let way = inner(i / 2).map(|n| if i % 2 == 1 { n.below } else { n.above });
        Number::Int(match way {
            None => i as i128 / 2,
            Some(Next::Leaf(l)) => l as i128,
            Some(Next::Split(s)) => (leaves + s) as i128,
        })
    });
    let root = Tensor::from_fn(DType::U32, &[roots.len()], |i| Number::Int(roots[i]));
    if u32::try_from(2 * total).is_err() {
        return Err(Fail::Bad(format!("{total} nodes of trees")));
    }
    let mut operands = vec![x];
    for t in [feature, threshold, child, root] {
        operands.push(graph.dense(t));
    }
    graph.op("tree_leaves", &[Attr::Int(depth as i64)], &operands)
}
