//! `prune`: channels whose weights are zero are left out.
//!
//! ```text
//! %1 = contract(%0, %c0)      %c0: rows 3 and 5 of 64 are zero       %1 = contract(%0, the other 62 rows of %c0)
//! %2 = relu(%1)                                                -->   %2 = relu(%1)
//! %3 = contract(%2, %c1)                                             %3 = contract(%2, the same 62 columns of %c1)
//! ```
//!
//! A channel is **dead** at a value where it is zero (its row of the weights is, and what is between keeps zeros), or where nobody needs it (its
//! column of the weights behind it is zero). Values that element-wise operations, turns, reshapes and spreads connect have the same
//! channels; those which are dead at each of them are left out of all, and of the weights before and behind. Where others read such a value,
//! its rows are put back, or its columns taken out, if that costs less than the product saves. What is left is a multiple of a vector's
//! lanes, for which zero channels are kept: their lanes would be empty otherwise.
//!
//! Zero times an activation counts as zero, as in every product of sparse matrices: with infinite activations it would be NaN.

mod linear;
mod zeros;

#[cfg(test)]
mod tests;

use crate::pass::{Context, Setting, Settings, TensorPass, number};
use brolga_ir::graph::GraphBuilder;
use brolga_ir::ops::{Along, InBlocks, Role};
use brolga_ir::{Attr, Build, ConstData, Constant, DType, Def, Dim, Graph, Node, NodeError, Number, Tensor, Value};
use linear::{Linear, made_by};
use rustc_hash::{FxHashMap, FxHashSet};
use std::rc::Rc;
use zeros::{Flags, zeros};

/// The pass.
#[derive(Clone, Debug)]
pub struct Prune {
    /// `lanes=N`: channels are kept in multiples of this, where there were multiples of it.
    pub lanes: usize,
}

impl Default for Prune {
    fn default() -> Prune {
        Prune { lanes: 16 }
    }
}

impl Settings for Prune {
    const NAME: &'static str = "prune";
    const SUMMARY: &'static str = "leaves out channels whose weights are zero";
    const SETTINGS: &'static [Setting<Prune>] = &[Setting {
        name: "lanes",
        default: "16",
        meaning: "channels are kept in multiples of this",
        get: |p| {
            let given = p.lanes != Prune::default().lanes;
            given.then(|| p.lanes.to_string()).into_iter().collect()
        },
        set: |p, value, _| {
            p.lanes = number(value)?.max(1);
            Ok(())
        },
    }];
}

impl TensorPass for Prune {
    fn rewrite(&self, g: &Graph, cx: &mut Context) -> Result<Graph, NodeError> {
        let before = cx.remarks.len();
        let out = prune(g, self.lanes, &mut cx.remarks)?;
        cx.counts.add("products pruned", cx.remarks.len() - before);
        Ok(out)
    }
}

/// Multiply-adds that a core does in the time of moving one element: what putting channels back, or taking them out, has to save.
const PRODUCTS_A_MOVE: usize = 64;

/// The graph without channels whose weights are zero; remarks say what was left out.
///
/// # Errors
/// When the graph is not valid.
pub fn prune(g: &Graph, lanes: usize, remarks: &mut Vec<String>) -> Result<Graph, NodeError> {
    let constant = constants(g);
    let linears: FxHashMap<Value, Linear> = (g.nodes.iter())
        .filter_map(|n| Linear::of(g, &constant, n))
        .map(|l| (l.y.0, l))
        .collect();
    if linears.values().all(|l| l.dead.iter().flatten().all(|dead| !dead)) {
        return Ok(g.clone());
    }
    let plan = Planner::new(g, &constant, &linears, lanes).plan();
    plan.remark(g, &linears, remarks);
    plan.apply(g, &constant, &linears)
}

/// Which values are constants, or made of constants alone.
fn constants(g: &Graph) -> Vec<bool> {
    let mut all: Vec<bool> = g.values.iter().map(|v| matches!(v.def, Def::Const(_))).collect();
    for n in &g.nodes {
        let made = !n.inputs.is_empty()
            && n.inputs.iter().all(|v| all[v.0 as usize])
            && !matches!(n.op.role(), Role::Host | Role::Region(_));
        n.outputs.iter().for_each(|o| all[o.0 as usize] = made);
    }
    all
}

/// Channels that stay.
type Kept = Rc<Vec<usize>>;

/// What is left out.
#[derive(Default)]
struct Plan {
    /// Values with fewer channels along an axis.
    fewer: FxHashMap<Value, (usize, Kept)>,
    /// Products whose result gets its zero channels back.
    put_back: FxHashMap<Value, Kept>,
    /// Readers of activations (see [`Linear::reader`]) that take fewer channels of them.
    taken_out: FxHashMap<Value, (usize, Kept)>,
}

/// Values that have the same channels.
#[derive(Default)]
struct Class {
    members: Vec<(Value, usize)>,
    /// Somebody needs or makes every channel.
    open: bool,
}

struct Planner<'g> {
    g: &'g Graph,
    constant: &'g [bool],
    linears: &'g FxHashMap<Value, Linear>,
    lanes: usize,
    users: Vec<Vec<usize>>,
    roots: FxHashSet<Value>,
}

impl<'g> Planner<'g> {
    fn new(g: &'g Graph, constant: &'g [bool], linears: &'g FxHashMap<Value, Linear>, lanes: usize) -> Planner<'g> {
        let mut users = vec![vec![]; g.values.len()];
        for (i, n) in g.nodes.iter().enumerate() {
            n.inputs.iter().for_each(|v| users[v.0 as usize].push(i));
        }
        let roots = g.roots().collect();
        Planner {
            g,
            constant,
            linears,
            lanes,
            users,
            roots,
        }
    }

    fn plan(&self) -> Plan {
        let mut plan = Plan::default();
        let mut seen: FxHashSet<(Value, usize)> = FxHashSet::default();
        // In the order of definition, so that a plan is the same every time.
        for l in self.g.nodes.iter().filter_map(|n| self.linears.get(&n.outputs[0])) {
            for (key, dead) in [(l.x, &l.dead[0]), (l.y, &l.dead[1])] {
                if !dead.contains(&true) || seen.contains(&key) {
                    continue;
                }
                let class = self.class(key);
                seen.extend(&class.members);
                if let Some(kept) = self.kept(&class)
                    && class.members.iter().all(|(v, _)| !plan.fewer.contains_key(v))
                {
                    let members = class.members.iter().map(|&(v, axis)| (v, (axis, kept.clone())));
                    plan.fewer.extend(members);
                }
            }
        }
        for l in self.linears.values() {
            self.apart(l, &mut plan);
        }
        plan
    }

    /// The values that have the same channels as one has along an axis.
    fn class(&self, seed: (Value, usize)) -> Class {
        let mut class = Class::default();
        let mut seen = FxHashSet::from_iter([seed]);
        let mut work = vec![seed];
        while let Some((v, axis)) = work.pop() {
            class.members.push((v, axis));
            class.open |= self.g.ty(v).shape[axis].as_const().is_none() || self.roots.contains(&v);
            let mut next = vec![];
            class.open |= self.before(v, axis, &mut next).is_none();
            for &u in &self.users[v.0 as usize] {
                class.open |= self.behind(v, axis, &self.g.nodes[u], &mut next).is_none();
            }
            work.extend(next.into_iter().filter(|key| seen.insert(*key)));
        }
        class.members.sort_unstable();
        class
    }

    /// What a value's channels are made of; `None` where that makes all of them.
    fn before(&self, v: Value, axis: usize, next: &mut Vec<(Value, usize)>) -> Option<()> {
        let Def::Node(n, _) = self.g.def(v) else { return None };
        let node = &self.g.nodes[n as usize];
        if let Some(l) = self.linears.get(&v) {
            return (l.y.1 == axis).then_some(());
        }
        for &x in &node.inputs {
            match node.op.along(self.g.ty(x), self.g.ty(v), axis) {
                Along::Axis(same) if !self.constant[x.0 as usize] => next.push((x, same)),
                Along::Axis(_) | Along::Spread => {}
                Along::Mixed => return None,
            }
        }
        Some(())
    }

    /// What has the channels of a value that a node reads; `None` where the node needs all of them.
    fn behind(&self, v: Value, axis: usize, node: &Node, next: &mut Vec<(Value, usize)>) -> Option<()> {
        let out = node.outputs[0];
        if self.readers(node).is_some_and(|ls| ls.iter().all(|l| l.x == (v, axis))) {
            return Some(());
        }
        let (from, to) = (self.g.ty(v), self.g.ty(out));
        let same = (0..to.rank()).find(|&a| node.op.along(from, to, a) == Along::Axis(axis))?;
        next.push((out, same));
        Some(())
    }

    /// The products that read the activations which a node reads as such: its own, or those of the integers that it makes of them.
    fn readers(&self, node: &Node) -> Option<Vec<&Linear>> {
        if node.op.def().in_blocks(&node.op) != Some(InBlocks::Activations) {
            return self
                .linears
                .get(&node.outputs[0])
                .filter(|l| l.step == 1)
                .map(|l| vec![l]);
        }
        if node.outputs.iter().any(|o| self.roots.contains(o)) {
            return None;
        }
        let products = node.outputs.iter().flat_map(|o| &self.users[o.0 as usize]);
        products
            .map(|&u| self.linears.get(&self.g.nodes[u].outputs[0]))
            .collect()
    }

    /// The channels that stay of a class, where that are fewer.
    fn kept(&self, class: &Class) -> Option<Kept> {
        if class.open {
            return None;
        }
        let (first, axis) = class.members[0];
        let n = self.g.ty(first).shape[axis].as_const()? as usize;
        let axes: FxHashMap<Value, usize> = class.members.iter().copied().collect();
        if axes.len() != class.members.len() {
            // A value that has them twice.
            return None;
        }
        let mut zero: FxHashMap<Value, Flags> = FxHashMap::default();
        for &(v, axis) in &class.members {
            zero.insert(v, self.zero(v, axis, n, &zero));
        }
        let mut needed: FxHashMap<Value, Flags> = axes.keys().map(|&v| (v, vec![false; n])).collect();
        let mut dead = vec![true; n];
        let mut step = 1;
        for &(v, axis) in class.members.iter().rev() {
            for &u in &self.users[v.0 as usize] {
                let node = &self.g.nodes[u];
                let needs: Flags = match self.readers(node).filter(|ls| ls.iter().all(|l| l.x == (v, axis))) {
                    Some(products) => {
                        step = products.iter().fold(step, |s, l| s.max(l.step));
                        (0..n).map(|i| products.iter().any(|l| !l.dead[0][i])).collect()
                    }
                    None => {
                        let out = &node.outputs[0];
                        (0..n).map(|i| needed[out][i] && !zero[out][i]).collect()
                    }
                };
                let all = needed.get_mut(&v).expect("it is a member");
                (0..n).for_each(|i| all[i] |= needs[i]);
            }
            (0..n).for_each(|i| dead[i] &= zero[&v][i] || !needed[&v][i]);
        }
        self.rounded(dead, step)
    }

    /// Which channels of a member of a class are zero, told from those before it.
    fn zero(&self, v: Value, axis: usize, n: usize, known: &FxHashMap<Value, Flags>) -> Flags {
        if let Some(l) = self.linears.get(&v) {
            return l.dead[1].clone();
        }
        let Def::Node(node, _) = self.g.def(v) else {
            return vec![false; n];
        };
        let node = &self.g.nodes[node as usize];
        let operands: Vec<Flags> = (node.inputs.iter())
            .map(|x| match known.get(x) {
                Some(flags) => flags.clone(),
                None if self.constant[x.0 as usize] => zeros(self.g, *x, axis)
                    .filter(|f| f.len() == n)
                    .unwrap_or_else(|| vec![false; n]),
                None => vec![false; n],
            })
            .collect();
        let each = |f: &dyn Fn(usize) -> bool| (0..n).map(f).collect::<Flags>();
        match node.op.role() {
            Role::Map(_) if node.op.def().multiplies() => each(&|i| operands.iter().any(|o| o[i])),
            Role::Map(_) if !keeps_zero(self.g, node) => vec![false; n],
            Role::Map(_) => each(&|i| operands.iter().all(|o| o[i])),
            _ => operands.into_iter().next().unwrap_or_else(|| vec![false; n]),
        }
    }

    /// The channels that are not dead and as many others as make whole vectors; `None` where those are all.
    fn rounded(&self, dead: Flags, step: usize) -> Option<Kept> {
        let n = dead.len();
        let step = match n.is_multiple_of(self.lanes) {
            true => step.max(self.lanes),
            false => step,
        };
        let live = dead.iter().filter(|d| !**d).count();
        let mut more = live.max(1).next_multiple_of(step) - live;
        let mut kept = vec![];
        for (i, dead) in dead.into_iter().enumerate() {
            if !dead || more > 0 {
                more -= usize::from(dead);
                kept.push(i);
            }
        }
        (kept.len() < n).then(|| Rc::new(kept))
    }

    /// A product whose channels others need as they are: its own zeros alone, where they are worth it.
    fn apart(&self, l: &Linear, plan: &mut Plan) {
        let live = |v: Value, dead: &Flags| plan.fewer.get(&v).map_or(dead.len(), |(_, kept)| kept.len());
        let (inner, outer) = (live(l.x.0, &l.dead[0]), live(l.y.0, &l.dead[1]));
        let of = |dead: &Flags, step: usize| self.rounded(dead.clone(), step);
        if outer == l.dead[1].len()
            && let Some(kept) = of(&l.dead[1], 1)
            && (outer - kept.len()) * inner * l.window > PRODUCTS_A_MOVE * outer
        {
            plan.put_back.insert(l.y.0, kept);
        }
        let Def::Node(reader, _) = self.g.def(l.reader) else {
            return;
        };
        let products = self.readers(&self.g.nodes[reader as usize]).unwrap_or_default();
        if inner != l.dead[0].len() || products.is_empty() {
            return;
        }
        let all = |i: usize| products.iter().all(|p| p.dead[0][i]);
        let columns: usize = products.iter().map(|p| p.dead[1].len() * p.window).sum();
        if let Some(kept) = of(&(0..inner).map(all).collect(), l.step)
            && (inner - kept.len()) * columns > PRODUCTS_A_MOVE * kept.len()
        {
            plan.taken_out.insert(l.reader, (l.x.1, kept));
        }
    }
}

impl Plan {
    /// Says what is left out, a line a product.
    fn remark(&self, g: &Graph, linears: &FxHashMap<Value, Linear>, remarks: &mut Vec<String>) {
        for node in &g.nodes {
            let Some(l) = linears.get(&node.outputs[0]) else {
                continue;
            };
            let kept = [self.inner(l).map(|(_, k)| k), self.outer(l)];
            let parts: Vec<String> = (kept.into_iter().zip(["columns", "rows"]).zip(&l.dead))
                .filter_map(|((kept, what), dead)| {
                    let left = dead.len() - kept?.len();
                    Some(format!("{left} of {} {what}", dead.len()))
                })
                .collect();
            if !parts.is_empty() {
                remarks.push(format!(
                    "`{}` leaves out {} of its weights",
                    node.origin,
                    parts.join(" and ")
                ));
            }
        }
    }

    /// The channels that a product reads, where those are not all.
    fn inner(&self, l: &Linear) -> Option<&(usize, Kept)> {
        self.fewer.get(&l.x.0).or_else(|| self.taken_out.get(&l.reader))
    }

    /// The channels that a product makes, where those are not all.
    fn outer(&self, l: &Linear) -> Option<&Kept> {
        let own = self.fewer.get(&l.y.0).map(|(_, kept)| kept);
        own.or_else(|| self.put_back.get(&l.y.0))
    }

    fn apply(&self, g: &Graph, constant: &[bool], linears: &FxHashMap<Value, Linear>) -> Result<Graph, NodeError> {
        // Weights in floats, by those of the old graph, that blocks are made of.
        let mut floats: FxHashMap<Value, Value> = FxHashMap::default();
        g.rewrite(|graph, node, inputs| {
            let mut b = GraphBuilder {
                graph,
                origin: node.origin.clone(),
            };
            let out = node.outputs[0];
            if let Some(l) = linears.get(&out) {
                let (mut inputs, w) = (inputs.to_vec(), if l.step == 1 { inputs[1] } else { floats[&l.w] });
                let mut fewer = w;
                if let Some((_, kept)) = self.inner(l) {
                    fewer = take(&mut b, fewer, l.inner, kept)?;
                }
                if let Some(kept) = self.outer(l) {
                    fewer = take(&mut b, fewer, l.outer, kept)?;
                }
                match l.step {
                    1 => {
                        inputs[1] = fewer;
                        if let Some((axis, kept)) = self.taken_out.get(&out) {
                            inputs[0] = take(&mut b, inputs[0], *axis, kept)?;
                        }
                    }
                    _ if fewer != w => {
                        let weights = made_by(g, node.inputs[3], |b| matches!(b, InBlocks::Weights(_)));
                        let op = weights.expect("it is a product").0.op.clone();
                        let made = b.add(op, &[fewer])?;
                        let places = [3, 4, 6];
                        places.iter().zip(made).for_each(|(&at, v)| inputs[at] = v);
                    }
                    _ => {}
                }
                let y = b.op(node.op.clone(), &inputs)?;
                return Ok(vec![match self.put_back.get(&out) {
                    Some(kept) => put_back(&mut b, y, l.y.1, kept, l.dead[1].len())?,
                    None => y,
                }]);
            }
            match node.op.def().in_blocks(&node.op) {
                Some(InBlocks::Weights(_)) => {
                    floats.insert(node.inputs[0], inputs[0]);
                }
                Some(InBlocks::Activations) => {
                    if let Some((axis, kept)) = self.taken_out.get(&out) {
                        let x = take(&mut b, inputs[0], *axis, kept)?;
                        return b.add(node.op.clone(), &[x]);
                    }
                }
                _ => {}
            }
            let Some((axis, kept)) = self.fewer.get(&out) else {
                return b.add(node.op.clone(), inputs);
            };
            let mut shape = g.ty(out).shape.clone();
            shape[*axis] = kept.len().into();
            let mut operands = inputs.to_vec();
            for (v, old) in operands.iter_mut().zip(&node.inputs) {
                if let (true, Along::Axis(a)) = (constant[old.0 as usize], node.op.along(g.ty(*old), g.ty(out), *axis))
                {
                    *v = take(&mut b, *v, a, kept)?;
                }
            }
            b.add(node.op.with_shape(&shape)?, &operands)
        })
    }
}

/// The slices of a value at some positions along an axis.
fn take(b: &mut GraphBuilder, v: Value, axis: usize, kept: &[usize]) -> Result<Value, String> {
    let mut ty = b.type_of(v);
    if let Some(Constant {
        data: ConstData::Splat(x),
        ..
    }) = b.graph.as_constant(v)
    {
        let data = ConstData::Splat(*x);
        ty.shape[axis] = kept.len().into();
        return Ok(b.graph.constant(Constant { ty, data }));
    }
    if let Def::Node(n, _) = b.graph.def(v)
        && let node = b.graph.nodes[n as usize].clone()
        && let (Role::Move(_) | Role::Reshape(_), [x]) = (node.op.role(), &node.inputs[..])
    {
        // What it is spread from, or a reshape of, stays a constant.
        let x = match node.op.along(b.graph.ty(*x), &ty, axis) {
            Along::Axis(a) => take(b, *x, a, kept)?,
            Along::Spread => *x,
            Along::Mixed => return taken(b, v, axis, kept),
        };
        ty.shape[axis] = kept.len().into();
        return b.op(node.op.with_shape(&ty.shape)?, &[x]);
    }
    taken(b, v, axis, kept)
}

fn taken(b: &mut GraphBuilder, v: Value, axis: usize, kept: &[usize]) -> Result<Value, String> {
    let mut ty = b.type_of(v);
    if kept.windows(2).all(|k| k[0] + 1 == k[1]) {
        let mut starts = vec![Dim::ZERO; ty.rank()];
        (starts[axis], ty.shape[axis]) = (kept[0].into(), kept.len().into());
        let steps = Attr::Ints(vec![1; ty.rank()]);
        return b.call("slice", &[Attr::Dims(starts), Attr::Dims(ty.shape), steps], &[v]);
    }
    let at = b.graph.dense(positions(kept.iter().copied()));
    b.call("gather", &[Attr::Int(axis as i64)], &[v, at])
}

/// A value with channels of zeros beside those that it has.
fn put_back(b: &mut GraphBuilder, v: Value, axis: usize, kept: &[usize], n: usize) -> Result<Value, String> {
    let ty = b.type_of(v);
    if kept.windows(2).all(|k| k[0] + 1 == k[1]) {
        let padding = |x: usize| {
            let mut all = vec![Dim::ZERO; ty.rank()];
            all[axis] = x.into();
            Attr::Dims(all)
        };
        let attrs = [
            padding(kept[0]),
            padding(n - kept[0] - kept.len()),
            Attr::Ints(vec![0; ty.rank()]),
            Attr::num(0.0),
        ];
        return b.call("pad", &attrs, &[v]);
    }
    // A dead channel reads some live one, which is not used.
    let mut from = vec![0; n];
    let mut live = vec![0u8; n];
    for (i, &k) in kept.iter().enumerate() {
        (from[k], live[k]) = (i, 1);
    }
    let at = b.graph.dense(positions(from.into_iter()));
    let all = b.call("gather", &[Attr::Int(axis as i64)], &[v, at])?;
    let shape = b.type_of(all).shape;
    let mut along = vec![1; ty.rank()];
    along[axis] = n;
    let live = b.graph.dense(Tensor::new(DType::Bool, along, live)?);
    let live = b.spread(live, &shape)?;
    let zero = b.splat(ty.dtype, &shape, 0.0)?;
    b.call("where", &[], &[live, all, zero])
}

fn positions(of: impl ExactSizeIterator<Item = usize>) -> Tensor {
    let all: Vec<i64> = of.map(|i| i as i64).collect();
    Tensor::from_i64(&[all.len()], &all)
}

/// True where an element-wise operation of zeros is zero.
fn keeps_zero(g: &Graph, node: &Node) -> bool {
    let zeros = node.inputs.iter().map(|&v| {
        let dtype = g.ty(v).dtype;
        let x = if dtype.is_real() {
            Number::Float(0.0)
        } else {
            Number::Int(0)
        };
        Tensor::splat(dtype, &[1], x)
    });
    let out = node.op.eval(&zeros.collect::<Vec<_>>());
    out.is_ok_and(|out| out[0].get(0).f64() == 0.0)
}
