//! A solution of the extraction: which e-node each class is computed by, and which streams are stored.
//!
//! Invariant: the chosen e-nodes form no cycle, and every kernel is legal: [`Part::form`](crate::fusion::Part::form) accepts each operator over
//! the forms of its operands, a stored operand being a tensor.

use super::extract::{At, Classes, Settled};
use super::lang::{EGraph, Term, dense_constant, scalar_value, splat_constant};
use super::repeats::{Folded, Leaf, Unrolled};
use crate::fusion::Form;
use brolga_ir::graph::Read;
use brolga_ir::{Build, Constant, Dim, Graph, GraphBuilder, Layout, Op, Tensor, Type, Value, dim};
use egg::Id;
use rustc_hash::FxHashMap;
use std::sync::Arc;

/// A solution.
#[derive(Clone)]
pub struct Plan {
    /// The chosen e-node of every class in use.
    pub choice: Vec<Option<usize>>,
    /// The stream classes that are materialised.
    pub stored: Vec<bool>,
}

impl Plan {
    /// The solution that settling gives for roots, with what several kernels would compute stored where that is cheaper.
    ///
    /// # Errors
    /// When a root has no kernel.
    pub fn new(cs: &Classes, settled: &[Option<Settled>], roots: &[At]) -> Result<Plan, String> {
        let mut plan = Plan {
            choice: vec![None; cs.ids.len()],
            stored: vec![false; cs.ids.len()],
        };
        let mut todo: Vec<At> = roots.to_vec();
        while let Some(c) = todo.pop() {
            if plan.choice[c].is_some() {
                continue;
            }
            let s = settled[c].as_ref().ok_or_else(|| unreached(cs, settled, c))?;
            plan.choice[c] = Some(s.choice);
            for (i, &o) in plan.operands(cs, c).to_vec().iter().enumerate() {
                plan.stored[o] |= s.store_operands.get(i).copied().unwrap_or(false) || plan.is_store(cs, c);
                todo.push(o);
            }
        }
        plan.store_shared(cs, settled, roots);
        Ok(plan)
    }

    /// The same e-nodes, each operator a kernel of its own.
    pub fn all_stored(&self, cs: &Classes) -> Plan {
        let stream = |c: At| !cs.is_splat(c) && self.choice[c].is_some_and(|k| cs.choices[c][k].in_kernel());
        Plan {
            choice: self.choice.clone(),
            stored: (0..self.choice.len())
                .map(|c| self.stored[c] || (stream(c) && !cs.constant[c]))
                .collect(),
        }
    }

    fn is_store(&self, cs: &Classes, c: At) -> bool {
        self.choice[c].is_some_and(|k| matches!(cs.choices[c][k].term, Term::Store(_)))
    }

    /// The operands of a class in use; none for a class that is emitted as a constant.
    pub fn operands<'a>(&self, cs: &'a Classes, c: At) -> &'a [At] {
        match self.choice[c] {
            Some(k) if !cs.is_splat(c) => &cs.choices[c][k].operands,
            _ => &[],
        }
    }

    /// The classes in use, operands first.
    pub fn order(&self, cs: &Classes, roots: &[At]) -> Vec<At> {
        topological(cs.ids.len(), roots, |c| self.operands(cs, c))
    }

    /// Stores streams that several kernels would compute, where that costs more than a kernel of their own.
    fn store_shared(&mut self, cs: &Classes, settled: &[Option<Settled>], roots: &[At]) {
        const MANY: usize = 8;
        let order = self.order(cs, roots);
        // The kernels that compute a class, of which up to MANY are told apart.
        let mut kernels: Vec<Vec<At>> = vec![vec![]; cs.ids.len()];
        for &c in order.iter().rev() {
            let s = settled[c].as_ref().expect("a class in use is settled");
            let n = kernels[c].iter().map(|&k| cs.times[k]).sum::<f64>() / cs.times[c];
            if !self.stored[c] && n > 1.0 && s.form != Form::Tensor {
                let again = (n - 1.0) * s.compute.max(s.memory);
                let write_and_read = cs.traffic[c] * (n + 1.0);
                let heavy = matches!(s.form, Form::Anchor(..) | Form::Rows(_));
                // A constant is computed once, whoever reads it: stored, unless it is spread from a smaller one.
                let cheap = if cs.constant[c] {
                    !s.array
                } else {
                    again <= cs.model.per_kernel() + write_and_read
                };
                self.stored[c] = heavy || !cheap;
            }
            let mine = if self.stored[c] || s.form == Form::Tensor {
                vec![c]
            } else {
                std::mem::take(&mut kernels[c])
            };
            for &o in self.operands(cs, c) {
                for &k in &mine {
                    if kernels[o].len() < MANY && !kernels[o].contains(&k) {
                        kernels[o].push(k);
                    }
                }
            }
        }
    }

    /// The forms of all classes in use, by class.
    ///
    /// # Errors
    /// When a kernel is not legal.
    pub fn forms(&self, cs: &Classes, order: &[At]) -> Result<Vec<Option<Form>>, String> {
        let mut forms: Vec<Option<Form>> = vec![None; cs.ids.len()];
        for &c in order {
            forms[c] = Some(self.form(cs, &forms, c)?);
        }
        Ok(forms)
    }

    /// The form of a class (before it is stored, when it is), from those of its operands.
    ///
    /// # Errors
    /// When the kernel is not legal.
    pub fn form(&self, cs: &Classes, forms: &[Option<Form>], c: At) -> Result<Form, String> {
        let choice = &cs.choices[c][self.choice[c].ok_or("a class that is not in use")?];
        let (Some(op), false) = (&choice.op, cs.is_splat(c)) else {
            return Ok(Form::Tensor);
        };
        let operand = |&o: &At| match &forms[o] {
            Some(_) if self.stored[o] => Ok(Form::Tensor),
            Some(f) => Ok(*f),
            None => Err("an operand without a form".to_string()),
        };
        let operands: Result<Vec<Form>, String> = choice.operands.iter().map(operand).collect();
        let part = choice.part.ok_or("an operator that fusion knows nothing of")?;
        part.form(c as u32, &operands?)
            .map_err(|e| format!("{}: {e}", op.name()))
    }
}

/// What can be reached from some of `n` classes, operands first.
pub fn topological<'a>(n: usize, from: &[At], operands: impl Fn(At) -> &'a [At]) -> Vec<At> {
    let mut done = vec![false; n];
    let mut out = vec![];
    let mut stack: Vec<(At, usize)> = from.iter().rev().map(|&r| (r, 0)).collect();
    while let Some((c, i)) = stack.pop() {
        if done[c] {
            continue;
        }
        match operands(c).get(i) {
            Some(&o) => {
                stack.push((c, i + 1));
                stack.push((o, 0));
            }
            None => {
                done[c] = true;
                out.push(c);
            }
        }
    }
    out
}

/// Why a class has no kernel: the first operator below it that none of the rules decomposes.
fn unreached(cs: &Classes, settled: &[Option<Settled>], root: At) -> String {
    let mut seen = vec![false; cs.ids.len()];
    let mut todo = vec![root];
    while let Some(c) = todo.pop() {
        if std::mem::replace(&mut seen[c], true) {
            continue;
        }
        for choice in &cs.choices[c] {
            match &choice.op {
                Some(op) if choice.operands.iter().all(|&o| settled[o].is_some()) => {
                    let types: Vec<String> = choice
                        .operands
                        .iter()
                        .map(|&o| cs.types[o].as_ref().map_or("()".into(), |t| t.to_string()))
                        .collect();
                    return format!("no kernel and no rule for `{}` of {}", op.name(), types.join(", "));
                }
                _ => todo.extend(choice.operands.iter().filter(|&&o| settled[o].is_none())),
            }
        }
    }
    "a result that depends on itself".to_string()
}

/// The graph of a solution. What sizes are read from comes before anything that they are sizes of, since roots are emitted in their order.
/// What stands for repeated layers is emitted once for each; `source` is the graph without repetitions then, too.
///
/// # Errors
/// When a kernel is not legal.
pub fn emit(
    source: &Graph,
    eg: &EGraph,
    cs: &Classes,
    plan: &Plan,
    roots: &[At],
    folded: Option<(&Folded, &[u32])>,
) -> Result<Graph, String> {
    let order = plan.order(cs, roots);
    let forms = plan.forms(cs, &order)?;
    let unrolled = folded.map(|(f, same)| Unrolled::new(f, same, cs, plan, roots, &order));
    let mut g = Graph::new(&source.name);
    g.guards.clone_from(&source.guards);
    g.defaults.clone_from(&source.defaults);
    g.strings.clone_from(&source.strings);
    let inputs: Vec<Value> = source
        .inputs
        .iter()
        .map(|i| g.input(&i.name, source.ty(i.value).clone()))
        .collect();
    g.symbols.clone_from(&source.symbols);
    let order = match &unrolled {
        Some(u) => u.order()?,
        None => order.into_iter().map(|c| (c, 0)).collect(),
    };
    let layers = unrolled.as_ref().map_or(1, Unrolled::layers);
    let mut e = GraphEmitter {
        source,
        eg,
        cs,
        unrolled,
        g,
        inputs,
        values: vec![None; cs.ids.len() * layers],
        results: FxHashMap::default(),
    };
    for &(c, layer) in &order {
        e.class(plan, c, layer)?;
        let in_memory = forms[c].as_ref() == Some(&Form::Tensor);
        if plan.stored[c] && !in_memory {
            let v = e.value(c, layer);
            let origin = e.origin(c, layer);
            let stored = e.g.add(Op::store(Layout::ROW_MAJOR), &[v], &origin);
            e.set(c, layer, stored.map_err(|e| e.to_string())?[0]);
        }
    }
    let results: Vec<Value> = match &e.unrolled {
        Some(u) => source.roots().map(|v| u.place(v)).map(|(c, l)| e.value(c, l)).collect(),
        None => roots.iter().map(|&c| e.value(c, 0)).collect(),
    };
    let (sizes, results) = results.split_at(source.reads.len());
    for (read, &value) in source.reads.iter().zip(sizes) {
        e.g.reads.push(Read { value, ..read.clone() });
    }
    for ((name, _), &value) in source.outputs.iter().zip(results) {
        e.g.outputs.push((name.clone(), value));
    }
    Ok(e.g)
}

struct GraphEmitter<'a> {
    source: &'a Graph,
    eg: &'a EGraph,
    cs: &'a Classes,
    unrolled: Option<Unrolled<'a>>,
    g: Graph,
    inputs: Vec<Value>,
    /// The values of all classes, by layer.
    values: Vec<Option<Value>>,
    /// The results of host operators with several.
    results: FxHashMap<usize, Vec<Value>>,
}

impl GraphEmitter<'_> {
    /// Where the value of a class stands that is read in a layer.
    fn place(&self, c: At, layer: usize) -> usize {
        let layer = self.unrolled.as_ref().map_or(0, |u| u.layer_of(c, layer));
        layer * self.cs.ids.len() + c
    }

    fn value(&self, c: At, layer: usize) -> Value {
        self.values[self.place(c, layer)].expect("operands and roots are emitted first")
    }

    fn set(&mut self, c: At, layer: usize, v: Value) {
        let at = self.place(c, layer);
        self.values[at] = Some(v);
    }

    fn origin(&self, c: At, layer: usize) -> Arc<str> {
        let origins = self.eg[self.cs.ids[c]].data.origins.iter();
        let nodes = origins.map(|&o| self.unrolled.as_ref().map_or(o, |u| u.node(o, layer)));
        let names: Vec<&str> = self.source.origins(nodes).into_iter().map(|n| &**n).collect();
        names.join("+").into()
    }

    /// A constant of the e-graph.
    fn constant(&mut self, i: u32, layer: usize) -> Value {
        let constants = self
            .unrolled
            .as_ref()
            .map_or(self.source.constants.len(), Unrolled::constants);
        let c = if i as usize >= constants {
            dense_constant(self.eg.analysis.elements(i).expect("a rule made it").clone())
        } else {
            let at = self.unrolled.as_ref().map_or(i, |u| u.constant(i, layer));
            self.source.constants[at as usize].clone()
        };
        self.g.constant(c)
    }

    fn class(&mut self, plan: &Plan, c: At, layer: usize) -> Result<(), String> {
        let id: Id = self.cs.ids[c];
        if self.cs.is_splat(c) {
            let x = self.eg[id].data.splat.expect("it is a splat");
            let v = self.g.constant(splat_constant(self.cs.ty(c), x));
            self.set(c, layer, v);
            return Ok(());
        }
        let choice = &self.cs.choices[c][plan.choice[c].ok_or("a class that is not in use")?];
        let value = |e: &Self, i: usize| e.value(choice.operands[i], layer);
        let v = match &choice.term {
            Term::Input(i) => match self.unrolled.as_ref().map(|u| u.input(*i, layer)).transpose()? {
                Some(Leaf::Class(c, layer)) => self.value(c, layer),
                Some(Leaf::Input(i)) => self.inputs[i],
                None => self.inputs[*i as usize],
            },
            Term::Const(i) => self.constant(*i, layer),
            Term::Scalar(dtype, bits) => self.g.dense(Tensor::scalar(*dtype, scalar_value(*dtype, *bits))),
            Term::Load(_) | Term::Store(_) => value(self, 0),
            Term::Proj(k, _) => self.results[&self.place(choice.operands[0], layer)][*k as usize],
            Term::Op(..) => {
                let op = choice.op.as_ref().expect("a term with an operator");
                if let Some(x) = self.eg[id].data.splat {
                    // One value under symbolic extents.
                    self.symbolic_splat(c, layer, x)?
                } else {
                    let operands: Vec<Value> = (0..choice.operands.len()).map(|i| value(self, i)).collect();
                    let origin = self.origin(c, layer);
                    let outs = self.g.add(op.clone(), &operands, &origin).map_err(|e| e.to_string())?;
                    let first = outs[0];
                    if op.role().is_step() {
                        self.results.insert(self.place(c, layer), outs);
                    }
                    first
                }
            }
            t => return Err(format!("{t:?} is no value")),
        };
        self.set(c, layer, v);
        Ok(())
    }

    fn symbolic_splat(&mut self, c: At, layer: usize, x: brolga_ir::Number) -> Result<Value, String> {
        let origin = self.origin(c, layer);
        let ty: Type = self.cs.ty(c).clone();
        let s = self.g.constant(Constant {
            ty: Type::new(ty.dtype, vec![Dim::ONE; ty.rank()]),
            data: brolga_ir::ConstData::Splat(x),
        });
        debug_assert!(dim::constants(&ty.shape).is_none());
        GraphBuilder {
            graph: &mut self.g,
            origin,
        }
        .spread(s, &ty.shape)
    }
}
