//! One kernel of the cut graph (the stream DAG between loads and a `store`) becomes a [`Kernel`] of structured stages.
//!
//! Values are composed from the store toward the loads: [`Lowerer::emit`] gives the scalar expression of a value at index
//! expressions. Movement turns into index maps on the way, so it leaves no trace. A reduction becomes a stage of its own
//! that fills a local, read by the stages after it.
//!
//! ```text
//! store(relu(add(contract(x, w), broadcast(b))))  -->  kernel outer(M, N) {
//!                                                        stage reduce(K) { x[i0,i2] * w[i2,i1] -> l0 }
//!                                                        stage { relu(l0 + b[i1]) -> out[i0,i1] } }
//! ```

use super::stage::{E, StageBuilder};
use crate::fusion::{Class, class, reduced_axes};
use brolga_ir::index::{Bound, Ix, Var};
use brolga_ir::scalar::{Body, Builder};
use brolga_ir::structured::{Combine, IterDim, IterKind, Kernel, Local, Operand, Place, Read, Role, Stage, bits};
use brolga_ir::{DType, Def, Dim, Graph, Node, Number, Type, Value};
use rustc_hash::FxHashMap;
use std::sync::Arc;

/// A structured kernel and the tensors that its operands are.
pub struct Lowered {
    /// The kernel; its last operand is the result.
    pub kernel: Kernel,
    /// The value in memory behind each operand but the last.
    pub inputs: Vec<Value>,
    /// The model nodes that it came from.
    pub origin: Vec<Arc<str>>,
    /// The model node of each number of the kernel's checks.
    pub checks: Vec<Arc<str>>,
}

/// The tensor in memory that a value is, reshapes (which are free) looked through; `None` for a stream.
pub fn in_memory(graph: &Graph, v: Value) -> Option<Value> {
    match graph.def(v) {
        Def::Input(_) | Def::Const(_) => Some(v),
        Def::Node(n, _) => {
            let node = &graph.nodes[n as usize];
            match class(&node.op) {
                Class::Store | Class::Host => Some(v),
                Class::Reshape => in_memory(graph, node.inputs[0]),
                _ => None,
            }
        }
    }
}

pub(super) struct Lowerer<'g> {
    graph: &'g Graph,
    kernel: Kernel,
    inputs: Vec<Value>,
    /// Operands before this one belong to the sides of a contraction.
    own: usize,
    origin: Vec<Arc<str>>,
    checks: Vec<Arc<str>>,
    /// Locals of reductions that stages have computed.
    reduced: FxHashMap<Value, u32>,
    /// Locals that hold rows of expensive values used more than once.
    rows: FxHashMap<Value, u32>,
    /// The reduced axes of a row kernel, in order.
    axes: Vec<usize>,
    /// For each dimension of the domain, its outer variable; `None` for a reduced axis.
    outer_of: Vec<Option<Var>>,
}

/// Lowers the kernel whose result is `root`, the operand of a `store`.
///
/// # Errors
/// When the streams below `root` do not form one kernel, with the reason.
pub fn lower_group(graph: &Graph, root: Value) -> Result<Lowered, String> {
    // A reshape at the root changes nothing in memory.
    let mut root = root;
    while in_memory(graph, root).is_none()
        && let Def::Node(n, _) = graph.def(root)
        && class(&graph.nodes[n as usize].op) == Class::Reshape
    {
        root = graph.nodes[n as usize].inputs[0];
    }
    let kernel = Kernel {
        name: String::new(),
        symbols: graph.symbols.clone(),
        operands: vec![],
        locals: vec![],
        outer: vec![],
        stages: vec![],
    };
    let mut l = Lowerer {
        graph,
        kernel,
        inputs: vec![],
        own: 0,
        origin: vec![],
        checks: vec![],
        reduced: FxHashMap::default(),
        rows: FxHashMap::default(),
        axes: vec![],
        outer_of: vec![],
    };
    l.run(root)?;
    let ty = graph.ty(root).clone();
    let out = l.kernel.operands.len() as u32;
    l.kernel.operands.push(Operand {
        ty,
        role: Role::Out,
        packed: false,
    });
    // The result's operand comes last, when all inputs are known.
    for stage in &mut l.kernel.stages {
        for place in stage
            .writes
            .iter_mut()
            .map(|w| &mut w.0)
            .chain(stage.reads.iter_mut().filter_map(|r| match r {
                Read::Element { place, .. } => Some(place),
                _ => None,
            }))
        {
            if *place == RESULT {
                *place = Place::Operand(out);
            }
        }
    }
    Ok(Lowered {
        kernel: l.kernel,
        inputs: l.inputs,
        origin: l.origin,
        checks: l.checks,
    })
}

/// The result's place until the operands are numbered.
pub(super) const RESULT: Place = Place::Operand(u32::MAX);

impl<'g> Lowerer<'g> {
    fn run(&mut self, root: Value) -> Result<(), String> {
        let shape = self.graph.ty(root).shape.clone();
        let streams = self.streams(root);
        self.origin = origins(streams.iter().map(|&n| &self.graph.nodes[n]));
        if let Some(node) = self.node(root)
            && class(&node.op) == Class::Final
        {
            return super::finals::lower(self, node);
        }
        let reduce = streams
            .iter()
            .map(|&n| &self.graph.nodes[n])
            .find(|n| class(&n.op) == Class::Reduce);
        self.axes = reduce.map_or(vec![], |n| reduced_axes(&n.op, self.graph.ty(n.inputs[0])));
        let domain = reduce.map_or(&shape, |n| &self.graph.ty(n.inputs[0]).shape).clone();
        for (d, extent) in domain.iter().enumerate() {
            let outer = (!self.axes.contains(&d)).then(|| {
                self.kernel.outer.push(extent.clone());
                Var(self.kernel.outer.len() as u32 - 1)
            });
            self.outer_of.push(outer);
        }
        // Reductions, innermost first; before each, rows of expensive values that more than one stage reads.
        for &n in &streams {
            let node = &self.graph.nodes[n];
            match class(&node.op) {
                Class::Reduce | Class::Window | Class::Contract => self.reduction(node)?,
                Class::Map if !self.axes.is_empty() && self.worth_keeping(node, &streams) => {
                    self.keep_row(node.outputs[0])?
                }
                _ => {}
            }
        }
        self.last_stage(root, &domain)
    }

    /// The nodes of the group, in topological order.
    fn streams(&self, root: Value) -> Vec<usize> {
        let (mut seen, mut todo) = (std::collections::BTreeSet::new(), vec![root]);
        while let Some(v) = todo.pop() {
            if let Some(n) = self.stream_node(v)
                && seen.insert(n)
            {
                todo.extend(&self.graph.nodes[n].inputs);
            }
        }
        seen.into_iter().collect()
    }

    fn stream_node(&self, v: Value) -> Option<usize> {
        match self.graph.def(v) {
            Def::Node(n, _) if in_memory(self.graph, v).is_none() => Some(n as usize),
            _ => None,
        }
    }

    fn node(&self, v: Value) -> Option<&'g Node> {
        self.stream_node(v).map(|n| &self.graph.nodes[n])
    }

    /// True for an expensive full-row value that at least two nodes of the group use.
    fn worth_keeping(&self, node: &Node, streams: &[usize]) -> bool {
        let v = node.outputs[0];
        let users = streams
            .iter()
            .filter(|&&n| self.graph.nodes[n].inputs.contains(&v))
            .count();
        let ty = self.graph.ty(v);
        let full = ty.rank() == self.outer_of.len() && self.axes.iter().any(|&a| !ty.shape[a].is(1));
        let cost = brolga_ir::scalar::lookup(node.op.name())
            .and_then(|f| {
                f.body(
                    &node.inputs.iter().map(|&i| self.graph.ty(i).dtype).collect::<Vec<_>>(),
                    None,
                )
                .ok()
            })
            .map_or(0, |b| b.usual());
        users > 1 && full && cost >= 8
    }

    fn keep_row(&mut self, v: Value) -> Result<(), String> {
        let ty = self.graph.ty(v).clone();
        let shape: Vec<Dim> = self.axes.iter().map(|&a| ty.shape[a].clone()).collect();
        let local = self.local(ty.dtype, shape.clone());
        let at = self.row_coordinates();
        let mut s = StageBuilder::default();
        let e = self.emit(&mut s, v, &at, &[])?;
        let inner = self.inner_vars().into_iter().map(Ix::var).collect();
        let dims = shape
            .into_iter()
            .map(|extent| IterDim {
                extent,
                kind: IterKind::Parallel,
            })
            .collect();
        self.push_stage(s, dims, &[e], None, vec![(Place::Local(local), inner)])?;
        self.rows.insert(v, local);
        Ok(())
    }

    fn local(&mut self, dtype: DType, shape: Vec<Dim>) -> u32 {
        self.kernel.locals.push(Local { dtype, shape });
        self.kernel.locals.len() as u32 - 1
    }

    fn inner_vars(&self) -> Vec<Var> {
        let n = self.kernel.outer.len();
        (0..self.axes.len()).map(|i| Var((n + i) as u32)).collect()
    }

    /// Coordinates of the whole domain: outer variables, and inner variables along the reduced axes.
    fn row_coordinates(&self) -> Vec<Ix> {
        let mut inner = self.inner_vars().into_iter();
        let next = |o: &Option<Var>| Ix::var(o.unwrap_or_else(|| inner.next().expect("one a reduced axis")));
        self.outer_of.iter().map(next).collect()
    }

    pub(super) fn push_stage(
        &mut self,
        s: StageBuilder,
        dims: Vec<IterDim>,
        outputs: &[E],
        combine: Option<Combine>,
        writes: Vec<(Place, Vec<Ix>)>,
    ) -> Result<&mut Stage, String> {
        let checks = s.checks.clone();
        let (reads, body) = s.finish(outputs)?;
        self.kernel.stages.push(Stage {
            dims,
            reads,
            checks,
            body,
            combine,
            writes,
            scan: false,
            scatter: false,
        });
        Ok(self.kernel.stages.last_mut().expect("just pushed"))
    }

    /// The stage that writes the result.
    fn last_stage(&mut self, root: Value, domain: &[Dim]) -> Result<(), String> {
        let shape = &self.graph.ty(root).shape;
        let mut s = StageBuilder::default();
        // A result that is itself reduced has extent 1 along the axes: nothing to iterate over.
        let inner: Vec<usize> = self
            .axes
            .iter()
            .copied()
            .filter(|&a| !shape[a].is(1) || domain[a].is(1))
            .collect();
        let whole = inner.len() == self.axes.len();
        if !whole && !inner.is_empty() && inner.iter().any(|&a| !domain[a].is(1)) {
            return Err("the result is reduced along some of the row's axes only".to_string());
        }
        let at = if whole {
            self.row_coordinates()
        } else {
            self.outer_of
                .iter()
                .map(|o| o.map_or(Ix::constant(0), Ix::var))
                .collect()
        };
        let dims = if whole {
            self.axes
                .iter()
                .map(|&a| IterDim {
                    extent: domain[a].clone(),
                    kind: IterKind::Parallel,
                })
                .collect()
        } else {
            vec![]
        };
        let e = self.emit(&mut s, root, &at, &[])?;
        self.push_stage(s, dims, &[e], None, vec![(RESULT, at)])?;
        Ok(())
    }

    /// A stage that computes a reduction into a local.
    fn reduction(&mut self, node: &Node) -> Result<(), String> {
        let v = node.outputs[0];
        let mut s = StageBuilder::default();
        let op = &node.op;
        let n = self.kernel.outer.len() as u32;
        let reduction = |extent: &Dim| IterDim {
            extent: extent.clone(),
            kind: IterKind::Reduction,
        };
        let (values, dims, combine) = match op.name() {
            "reduce" | "arg_reduce" => {
                let at = self.row_coordinates();
                let ty = self.graph.ty(node.inputs[0]).clone();
                let x = self.emit(&mut s, node.inputs[0], &at, &[])?;
                let dims = self.axes.iter().map(|&a| reduction(&ty.shape[a])).collect();
                if op.name() == "reduce" {
                    let acc = ty.dtype.compute();
                    (vec![s.cast(x, acc)?], dims, combiner(op.word("kind"), acc)?)
                } else {
                    let acc = ty.dtype.compute();
                    let i = s.read(Read::Index(at[op.axis("axis")].clone()), DType::I64);
                    (
                        vec![s.cast(x, acc)?, i],
                        dims,
                        arg_combiner(op.word("kind") == "max", op.flag("last"), acc)?,
                    )
                }
            }
            "pool" => {
                let (value, dims) = super::window::pool(self, &mut s, node, n)?;
                let acc = s.dtype(value);
                (vec![value], dims, combiner(op.word("kind"), acc)?)
            }
            "contract" | "conv" => {
                let (a, b, dims) = if op.name() == "conv" {
                    super::window::conv(self, &mut s, node, n)?
                } else {
                    self.contract(&mut s, node, n)?
                };
                let acc = op.dtype("acc");
                let (a, b) = (s.cast(a, acc)?, s.cast(b, acc)?);
                (vec![s.call("mul", None, &[a, b])?], dims, combiner("sum", acc)?)
            }
            name => return Err(format!("`{name}` has no kernel of its own")),
        };
        let locals: Vec<u32> = values.iter().map(|&e| self.local(s.dtype(e), vec![])).collect();
        let writes = locals.iter().map(|&l| (Place::Local(l), vec![])).collect();
        let dims: Vec<IterDim> = dims;
        let combine = (!dims.is_empty()).then_some(combine);
        self.push_stage(s, dims, &values, combine, writes)?;
        // The result of an arg-reduction is its second accumulator.
        self.reduced
            .insert(v, *locals.last().expect("at least one accumulator"));
        Ok(())
    }

    fn contract(&mut self, s: &mut StageBuilder, node: &Node, n: u32) -> Result<(E, E, Vec<IterDim>), String> {
        let (op, lhs, rhs) = (&node.op, node.inputs[0], node.inputs[1]);
        let (lb, rb, lc, rc) = (
            op.axes("lhs_batch"),
            op.axes("rhs_batch"),
            op.axes("lhs_contract"),
            op.axes("rhs_contract"),
        );
        let place = |rank: usize, batch: &[usize], contract: &[usize], free_from: usize| -> Vec<Ix> {
            let mut free = free_from as u32;
            (0..rank)
                .map(|d| {
                    if let Some(i) = batch.iter().position(|&x| x == d) {
                        Ix::var(Var(i as u32))
                    } else if let Some(i) = contract.iter().position(|&x| x == d) {
                        Ix::var(Var(n + i as u32))
                    } else {
                        free += 1;
                        Ix::var(Var(free - 1))
                    }
                })
                .collect()
        };
        let (lt, rt) = (self.graph.ty(lhs).clone(), self.graph.ty(rhs).clone());
        let la = place(lt.rank(), &lb, &lc, lb.len());
        let ra = place(rt.rank(), &rb, &rc, lt.rank() - lc.len());
        let dims = lc
            .iter()
            .map(|&d| IterDim {
                extent: lt.shape[d].clone(),
                kind: IterKind::Reduction,
            })
            .collect();
        Ok((self.side(s, lhs, &la, &[])?, self.side(s, rhs, &ra, &[])?, dims))
    }

    /// One side of a contraction. It gets operands of its own, even where another read has the same memory: the schedule
    /// may replace the operand by its panels.
    pub(super) fn side(&mut self, s: &mut StageBuilder, v: Value, at: &[Ix], guard: &[Bound]) -> Result<E, String> {
        self.own = self.inputs.len();
        let e = self.emit(s, v, at, guard)?;
        self.own = self.inputs.len();
        Ok(e)
    }

    /// The expression of a value at a point.
    pub(super) fn emit(&mut self, s: &mut StageBuilder, v: Value, at: &[Ix], guard: &[Bound]) -> Result<E, String> {
        let key = (v, at.to_vec(), guard.to_vec());
        if let Some(&e) = s.memo.get(&key) {
            return Ok(e);
        }
        let e = self.emit_new(s, v, at, guard)?;
        s.memo.insert(key, e);
        Ok(e)
    }

    fn emit_new(&mut self, s: &mut StageBuilder, v: Value, at: &[Ix], guard: &[Bound]) -> Result<E, String> {
        let ty = self.graph.ty(v).clone();
        if let Some(memory) = in_memory(self.graph, v) {
            if let Some(x) = self.graph.as_constant(memory).and_then(|c| c.as_splat()) {
                return Ok(s.constant(ty.dtype, x));
            }
            let place = self.operand(memory, ty.clone());
            return Ok(s.element(place, clamp_units(at, &ty), guard.to_vec(), ty.dtype));
        }
        if let Some(&local) = self.reduced.get(&v) {
            for (d, ix) in at.iter().enumerate() {
                if self.outer_of[d].is_some_and(|o| *ix != Ix::var(o)) && !ty.shape[d].is(1) {
                    return Err("a reduction's result is read away from its own point".to_string());
                }
            }
            let dtype = self.kernel.locals[local as usize].dtype;
            let mut e = s.element(Place::Local(local), vec![], vec![], dtype);
            if self.node(v).is_some_and(|n| n.op.name() == "arg_reduce") {
                // Where there were no elements, the position is the first.
                let (nowhere, first) = (s.constant(dtype, NOWHERE), s.constant(dtype, Number::Int(0)));
                let none = s.call("equal", None, &[e, nowhere])?;
                e = s.call("where", None, &[none, first, e])?;
            }
            return s.cast(e, ty.dtype);
        }
        if let Some(&local) = self.rows.get(&v) {
            let inner: Vec<Ix> = self.axes.iter().map(|&a| at[a].clone()).collect();
            return Ok(s.element(Place::Local(local), inner, vec![], ty.dtype));
        }
        let node = self.node(v).expect("a stream is a node's result");
        let op = &node.op;
        let operand = |i: usize| node.inputs[i];
        match op.name() {
            "reshape" => {
                let from = self.graph.ty(operand(0)).shape.clone();
                let at = reshape_coordinates(at, &ty.shape, &from);
                self.emit(s, operand(0), &at, guard)
            }
            "transpose" => {
                let perm = op.axes("perm");
                let mut inner = vec![Ix::constant(0); at.len()];
                perm.iter().enumerate().for_each(|(d, &p)| inner[p] = at[d].clone());
                self.emit(s, operand(0), &inner, guard)
            }
            "broadcast" => {
                let from = self.graph.ty(operand(0)).shape.clone();
                let along = |(d, ix): (usize, &Ix)| match &from[d] {
                    n if n.is(1) => Ix::constant(0),
                    n if n.as_const().is_some() || *n == ty.shape[d] => ix.clone(),
                    // Only a run tells whether the extent is 1.
                    n => ix.scale(&n.broadcast_step()),
                };
                let inner: Vec<Ix> = at.iter().enumerate().map(along).collect();
                self.emit(s, operand(0), &inner, guard)
            }
            "slice" => {
                let steps = op.ints("steps");
                let inner: Vec<Ix> = (0..at.len())
                    .map(|d| &at[d].scale(&Dim::Const(steps[d])) + &op.dims("starts")[d])
                    .collect();
                self.emit(s, operand(0), &inner, guard)
            }
            "pad" => self.pad(s, node, at, guard),
            "iota" => {
                let i = s.read(Read::Index(at[op.axis("axis")].clone()), DType::I64);
                s.cast(i, ty.dtype)
            }
            "dims" => {
                let values = op.dims("values").to_vec();
                let mut e = s.constant(DType::I64, Number::Int(0));
                for (i, d) in values.iter().enumerate().rev() {
                    let value = s.read(Read::Index(Ix::constant(d.clone())), DType::I64);
                    e = match at[0].as_const() {
                        Some(k) if k == i as i64 => return Ok(value),
                        Some(_) => e,
                        None => {
                            let here = Bound {
                                index: &at[0] + &Dim::Const(-(i as i64)),
                                extent: Dim::ONE,
                            };
                            let here = s.read(Read::InBounds(vec![here]), DType::Bool);
                            s.call("where", None, &[here, value, e])?
                        }
                    };
                }
                Ok(e)
            }
            "gather" | "gather_elements" | "gather_nd" => super::gather::lower(self, s, node, at, guard),
            name => {
                let to = match name {
                    "cast" | "bitcast" => Some(op.dtype("to")),
                    _ => None,
                };
                if class(op) != Class::Map {
                    return Err(format!("`{name}` is inside of another kernel"));
                }
                let args: Vec<E> = node
                    .inputs
                    .iter()
                    .map(|&i| self.emit(s, i, at, guard))
                    .collect::<Result<_, _>>()?;
                s.call(name, to, &args)
            }
        }
    }

    fn pad(&mut self, s: &mut StageBuilder, node: &Node, at: &[Ix], guard: &[Bound]) -> Result<E, String> {
        let op = &node.op;
        let (low, interior) = (op.dims("low"), op.ints("interior"));
        let from = self.graph.ty(node.inputs[0]).clone();
        let out = &self.graph.ty(node.outputs[0]).shape;
        let (mut inner, mut bounds) = (vec![], vec![]);
        for d in 0..at.len() {
            let e = &at[d] + &(&Dim::ZERO - &low[d]);
            let step = Dim::Const(interior[d] + 1);
            if from.shape[d] != out[d] || !low[d].is(0) || interior[d] != 0 {
                bounds.push(Bound {
                    index: e.div(&step),
                    extent: from.shape[d].clone(),
                });
                if interior[d] != 0 {
                    bounds.push(Bound {
                        index: e.modulo(&step),
                        extent: Dim::ONE,
                    });
                }
            }
            inner.push(e.div(&step));
        }
        let fill = op.number("fill").to(from.dtype);
        let all = [guard, &bounds].concat();
        let x = self.emit(s, node.inputs[0], &inner, &all)?;
        if guard.is_empty()
            && let Some(e) = s.refill(x, &all, bits(from.dtype, fill))
        {
            return Ok(e);
        }
        let inside = s.read(Read::InBounds(bounds), DType::Bool);
        let fill = s.constant(from.dtype, fill);
        s.call("where", None, &[inside, x, fill])
    }

    /// The operand that reads a tensor in memory under a type.
    pub(super) fn operand(&mut self, memory: Value, ty: Type) -> Place {
        let known =
            (self.own..self.inputs.len()).find(|&i| self.inputs[i] == memory && self.kernel.operands[i].ty == ty);
        Place::Operand(known.unwrap_or_else(|| {
            self.inputs.push(memory);
            self.kernel.operands.push(Operand {
                ty,
                role: Role::In,
                packed: false,
            });
            self.inputs.len() - 1
        }) as u32)
    }

    /// The number of the checks of a node's indices.
    pub(super) fn check(&mut self, node: &Node) -> u32 {
        let known = self.checks.iter().position(|n| *n == node.origin);
        known.unwrap_or_else(|| {
            self.checks.push(node.origin.clone());
            self.checks.len() - 1
        }) as u32
    }

    pub(super) fn graph(&self) -> &'g Graph {
        self.graph
    }
    pub(super) fn kernel(&mut self) -> &mut Kernel {
        &mut self.kernel
    }
}

/// Index 0 wherever the extent is 1, so that equal reads look equal.
fn clamp_units(at: &[Ix], ty: &Type) -> Vec<Ix> {
    let unit = |ix: &Ix, d: &Dim| d.is(1) && ix.as_var().is_some();
    at.iter()
        .zip(&ty.shape)
        .map(|(ix, d)| if unit(ix, d) { Ix::constant(0) } else { ix.clone() })
        .collect()
}

/// Coordinates in `from` of the point `at` of `to`, row-major. Dimensions are matched in groups of equal products, so that
/// splits stay affine and only merges divide.
fn reshape_coordinates(at: &[Ix], to: &[Dim], from: &[Dim]) -> Vec<Ix> {
    let mut out = vec![];
    let (mut i, mut j) = (0, 0);
    while j < from.len() {
        // Grow both groups until their products agree.
        let (i0, j0) = (i, j);
        let (mut p, mut q) = (Dim::ONE, from[j].clone());
        j += 1;
        while p != q && (i < to.len() || j < from.len()) {
            let take_to = i < to.len() && (j == from.len() || q.exact_div(&p).is_some() || p.exact_div(&q).is_none());
            if take_to {
                p = &p * &to[i];
                i += 1;
            } else {
                q = &q * &from[j];
                j += 1;
            }
        }
        let flat = (i0..i).fold(Ix::constant(0), |f, d| &f.scale(&to[d]) + &at[d]);
        let mut rest = flat;
        let mut group = vec![];
        for d in (j0..j).rev() {
            if d == j0 {
                group.push(rest.clone());
            } else {
                group.push(rest.modulo(&from[d]));
                rest = rest.div(&from[d]);
            }
        }
        group.reverse();
        out.extend(group);
    }
    out
}

/// The combiner of a reduction kind over one accumulator.
///
/// # Errors
/// For an unknown kind.
pub(super) fn combiner(kind: &str, dtype: DType) -> Result<Combine, String> {
    let (function, init) = match (kind, dtype.is_float()) {
        ("sum", _) => ("add", Number::Int(0)),
        ("prod", _) => ("mul", Number::Int(1)),
        ("max", true) => ("max", Number::Float(f64::NEG_INFINITY)),
        ("min", true) => ("min", Number::Float(f64::INFINITY)),
        ("max", false) => ("max", Number::Int(extreme(dtype, false))),
        ("min", false) => ("min", Number::Int(extreme(dtype, true))),
        ("and", _) => ("and", Number::Int(1)),
        ("or", _) => ("or", Number::Int(0)),
        _ => return Err(format!("there is no reduction `{kind}`")),
    };
    let mut b = Builder::new(&[dtype, dtype]);
    let (x, y) = (b.input(0), b.input(1));
    let function = if dtype == DType::Bool && function == "max" {
        "or"
    } else {
        function
    };
    let function = if dtype == DType::Bool && function == "min" {
        "and"
    } else {
        function
    };
    let z = b.call(function, &[x, y], None)?;
    let body = b.finish(&[z]);
    Ok(Combine {
        init: vec![bits(dtype, init)],
        merge: body.clone(),
        body,
        free: true,
    })
}

/// The largest or smallest value of an integer type.
fn extreme(dtype: DType, largest: bool) -> i128 {
    let bits = if dtype == DType::Bool { 1 } else { dtype.bits() as u32 };
    match (dtype.is_signed(), largest) {
        (true, true) => (1i128 << (bits - 1)) - 1,
        (true, false) => -(1i128 << (bits - 1)),
        (false, true) => (1i128 << bits) - 1,
        (false, false) => 0,
    }
}

/// The position of an arg-reduction that has seen nothing yet.
const NOWHERE: Number = Number::Int(i64::MAX as i128);

/// (value, position) pairs: the better value wins, and of equal ones the lower (or, with `last`, the higher) position.
fn arg_combiner(max: bool, last: bool, dtype: DType) -> Result<Combine, String> {
    let worst = match dtype.is_float() {
        true if max => Number::Float(f64::NEG_INFINITY),
        true => Number::Float(f64::INFINITY),
        false => Number::Int(extreme(dtype, !max)),
    };
    let body: Body = {
        let mut b = Builder::new(&[dtype, DType::I64, dtype, DType::I64]);
        let (a, i, x, j) = (b.input(0), b.input(1), b.input(2), b.input(3));
        // NaN is the extreme of both kinds, as in numpy.
        let ordered = if max {
            b.call("less", &[a, x], None)?
        } else {
            b.call("less", &[x, a], None)?
        };
        let same = b.call("equal", &[a, x], None)?;
        let (better, equal) = if dtype.is_float() {
            let (na, nx) = (b.call("is_nan", &[a], None)?, b.call("is_nan", &[x], None)?);
            let fresh = b.call("not", &[na], None)?;
            let first = b.call("and", &[nx, fresh], None)?;
            let both = b.call("and", &[na, nx], None)?;
            (
                b.call("or", &[ordered, first], None)?,
                b.call("or", &[same, both], None)?,
            )
        } else {
            (ordered, same)
        };
        let earlier = if last {
            b.call("less", &[i, j], None)?
        } else {
            b.call("less", &[j, i], None)?
        };
        let tie = b.call("and", &[equal, earlier], None)?;
        let take = b.call("or", &[better, tie], None)?;
        let value = b.call("where", &[take, x, a], None)?;
        let position = b.call("where", &[take, j, i], None)?;
        b.finish(&[value, position])
    };
    // A partial accumulator that saw nothing must lose every tie; position 0 is right when nothing beats the worst value.
    let nowhere = if last {
        Number::Int(0)
    } else {
        Number::Int(i64::MAX as i128)
    };
    Ok(Combine {
        init: vec![bits(dtype, worst), bits(DType::I64, nowhere)],
        merge: body.clone(),
        body,
        free: true,
    })
}

/// Names of the model nodes behind a list of nodes, each once.
fn origins<'a>(nodes: impl Iterator<Item = &'a Node>) -> Vec<Arc<str>> {
    let mut out: Vec<Arc<str>> = vec![];
    for n in nodes {
        if !n.origin.is_empty() && !out.contains(&n.origin) {
            out.push(n.origin.clone());
        }
    }
    out
}
