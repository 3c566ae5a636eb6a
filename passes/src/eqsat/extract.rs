//! The classes of an e-graph as the extraction sees them, and a first choice for each of them.
//!
//! **Greedy, bottom up on the DAG**: classes are settled in the order of their cost (Knuth's generalisation of
//! Dijkstra's algorithm), so a choice only ever refers to classes settled before it: acyclic by construction, and every
//! e-node is looked at once. The cost of a class is that of the most expensive path to it, not that of the tree under
//! it: a tree counts what is shared again and again, and doubles at every residual connection. What stands beside the
//! path counts a little ([`BESIDE`]), so that it is chosen well too.
//!
//! A stream is either *inlined* (its consumers compute it) or *stored*; whether a consumer may inline it is
//! [`Part::form`]'s answer. A path sees no sharing: [`search`](super::search) then improves the whole with exact costs.

use super::build::streams;
use super::cost::{self, CostModel, Work};
use super::lang::{EGraph, Kind, OpId, Term, op_of, operand_types};
use crate::fusion::{Form, Part};
use brolga_ir::ops::Role;
use brolga_ir::{Op, Type};
use egg::{Id, Language};
use rustc_hash::FxHashMap;
use smallvec::SmallVec;
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::Arc;

/// What operands beside the most expensive one count for.
const BESIDE: f64 = 0.02;

/// What every operator costs at least, in seconds: of equal terms the smaller is taken, and no cycle is free.
const PER_TERM: f64 = 1.0e-9;

/// Operators in one kernel, at most: beyond that, code grows and nothing is won.
pub const MOST_OPERATORS: usize = 64;

/// What a kernel that runs at compile time costs.
pub const PER_CONSTANT: f64 = 1.0e-8;

/// Constants up to this many bytes are worth computing at compile time even when that spreads a smaller one.
const SMALL_CONSTANT: f64 = 4096.0;

/// A class of values in the extraction, by dense position.
pub type At = usize;

/// One e-node of a class, as the extraction sees it.
pub struct Choice {
    /// The e-node.
    pub term: Term,
    /// Its operator; `None` for loads, stores and leaves.
    pub op: Option<Op>,
    /// What fusion knows of the operator.
    pub part: Option<Part>,
    /// Its operands.
    pub operands: Vec<At>,
    /// The operands without repetitions.
    pub distinct: SmallVec<[At; 4]>,
    /// What it does in a kernel.
    pub work: Work,
}

impl Choice {
    /// An e-node over operands.
    pub fn new(term: Term, op: Option<Op>, operands: Vec<At>, types: &[Type], work: Work) -> Choice {
        let mut distinct: SmallVec<[At; 4]> = SmallVec::new();
        for &o in &operands {
            if operands.len() > 16 || !distinct.contains(&o) {
                distinct.push(o);
            }
        }
        if operands.len() > 16 {
            distinct.sort_unstable();
            distinct.dedup();
        }
        let part = op.as_ref().map(|op| Part::of(op, types));
        Choice {
            term,
            part,
            op,
            operands,
            distinct,
            work,
        }
    }

    /// True for an operator that repeats its operand.
    fn spreads(&self) -> bool {
        let movement = self.part.and_then(|p| p.role.movement());
        movement.is_some_and(|m| m.spreads())
    }

    /// True for an operator that a kernel can be made of.
    pub fn in_kernel(&self) -> bool {
        self.part.is_some_and(|p| !p.role.is_step())
    }
}

/// The ranks of what convolutions and pooling in an e-graph read.
///
/// # Errors
/// When a term is ill-sorted.
pub fn images(eg: &EGraph) -> Result<Vec<usize>, String> {
    let mut out = vec![];
    for term in eg.classes().flat_map(|c| &c.nodes) {
        let Term::Op(id, children) = term else { continue };
        if !matches!(id.def().role(), Role::Window(_) | Role::Contract(_) | Role::Own(_)) {
            continue;
        }
        let types = operand_types(eg, super::lang::operands(*id, children));
        if cost::window(&op_of(eg, *id, children)?, &types).is_some() {
            out.extend(types.first().map(Type::rank).filter(|r| !out.contains(r)));
        }
    }
    Ok(out)
}

/// The classes of an e-graph that hold streams and tensors.
pub struct Classes {
    /// The e-graph's ids, sorted.
    pub ids: Vec<Id>,
    /// The position of an id.
    pub at: FxHashMap<Id, At>,
    /// Their e-nodes.
    pub choices: Vec<Vec<Choice>>,
    /// Their types (`None` for the tuple of a host operator).
    pub types: Vec<Option<Arc<Type>>>,
    /// The seconds in which each is read or written once.
    pub traffic: Vec<f64>,
    /// The cost model.
    pub model: CostModel,
    /// Which classes are constant.
    pub constant: Vec<bool>,
    /// Which classes are one value everywhere, and of known sizes.
    pub splat: Vec<bool>,
    /// How often each is computed where it is computed once: what is in a layer that stands for several, once in each of them.
    pub times: Vec<f64>,
}

impl Classes {
    /// The classes of an e-graph.
    ///
    /// # Errors
    /// When a term is ill-sorted.
    pub fn new(eg: &EGraph, model: CostModel) -> Result<Classes, String> {
        let value = |id: &Id| matches!(eg[*id].data.kind, Kind::Value(_) | Kind::Tuple(_));
        let mut ids: Vec<Id> = eg.classes().map(|c| c.id).filter(value).collect();
        ids.sort();
        let at: FxHashMap<Id, At> = ids.iter().enumerate().map(|(i, &id)| (id, i)).collect();
        let is_number = |id: &Id| {
            let sizes = |t: &Arc<Type>| t.shape.iter().all(|d| d.as_const().is_some());
            matches!(&eg[*id].data.kind, Kind::Value(t) if eg[*id].data.splat.is_some() && sizes(t))
        };
        let ty = |id: &Id| match &eg[*id].data.kind {
            Kind::Value(t) => Some(t.clone()),
            _ => None,
        };
        let mut out = Classes {
            types: ids.iter().map(ty).collect(),
            constant: ids.iter().map(|&id| eg[id].data.constant).collect(),
            splat: ids.iter().map(is_number).collect(),
            times: vec![1.0; ids.len()],
            choices: vec![],
            traffic: vec![],
            ids,
            at,
            model,
        };
        let traffic = |t: &Option<Arc<Type>>| t.as_ref().map_or(0.0, |t| out.model.traffic(t));
        out.traffic = out.types.iter().map(traffic).collect();
        for &id in &out.ids {
            let mut terms: Vec<&Term> = eg[id].nodes.iter().collect();
            terms.sort();
            let choices: Result<Vec<Choice>, String> = terms.into_iter().map(|t| out.choice(eg, id, t)).collect();
            out.choices.push(choices?);
        }
        Ok(out)
    }

    fn choice(&self, eg: &EGraph, class: Id, term: &Term) -> Result<Choice, String> {
        let place = |id: &Id| self.at[&eg.find(*id)];
        let Term::Op(id, children) = term else {
            let operands = term.children().iter().map(place).collect();
            return Ok(Choice::new(term.clone(), None, operands, &[], Work::default()));
        };
        let (id, children): (OpId, &[Id]) = (*id, children);
        let op = op_of(eg, id, children)?;
        let types = operand_types(eg, super::lang::operands(id, children));
        let work = match &eg[class].data.kind {
            Kind::Value(out) => self.model.operator(&op, &types, out),
            _ => Work::default(),
        };
        let operands = streams(eg, id, term).iter().map(place).collect();
        Ok(Choice::new(term.clone(), Some(op), operands, &types, work))
    }

    /// The type of a stream or tensor class.
    pub fn ty(&self, c: At) -> &Type {
        self.types[c].as_ref().expect("a value has a type")
    }

    /// What a kernel of one e-node is spared, in seconds of arithmetic and of memory, where it puts operands in their places that
    /// other kernels compute and store.
    pub fn spared(&self, choice: &Choice, made: impl Fn(usize) -> bool) -> (f64, f64) {
        if !choice.work.embeds {
            return (0.0, 0.0);
        }
        let operands = choice.operands.iter().enumerate();
        let made = operands.filter(|&(i, &o)| made(i) && !self.constant[o] && !self.splat[o]);
        let spared = made.map(|(_, &o)| self.model.spared(self.ty(o)));
        spared.fold((0.0, 0.0), |(a, b), (c, m)| (a + c, b + m))
    }

    /// True when the class is emitted as one constant, whatever its terms.
    pub fn is_splat(&self, c: At) -> bool {
        self.splat[c]
    }
}

/// One bool an operand.
pub type Mask = SmallVec<[bool; 4]>;

/// What was settled for a class.
#[derive(Clone, Debug)]
pub struct Settled {
    /// The chosen e-node.
    pub choice: usize,
    /// Its form when inlined.
    pub form: Form,
    /// Arithmetic seconds of what is inlined into it, itself included.
    pub compute: f64,
    /// Memory seconds of what is inlined into it.
    pub memory: f64,
    /// The cost of the path below what is inlined.
    pub below: f64,
    /// The cost of the path, when inlined and when stored.
    pub inline: f64,
    /// The cost of the path when it is stored.
    pub stored: f64,
    /// Which operands have to be stored.
    pub store_operands: Mask,
    /// The operators that are inlined into it, itself included; one that is reached twice counts twice.
    pub size: usize,
    /// True for a constant that is worth an array: who is not constant reads that, computed at compile time.
    pub array: bool,
    /// True when what is inlined reads in strides or behind a margin, which a window cannot run through at speed.
    pub rough: bool,
}

/// A position in the queue: by cost, then by class and choice, so that the result never depends on chance.
#[derive(PartialEq)]
struct Entry(f64, At, usize);
impl Eq for Entry {}
impl Ord for Entry {
    fn cmp(&self, o: &Entry) -> std::cmp::Ordering {
        self.0.total_cmp(&o.0).then(self.1.cmp(&o.1)).then(self.2.cmp(&o.2))
    }
}
impl PartialOrd for Entry {
    fn partial_cmp(&self, o: &Entry) -> Option<std::cmp::Ordering> {
        Some(self.cmp(o))
    }
}

/// The classes that can be computed.
pub struct Settling {
    /// What was settled for each class; `None` for one that has no kernel.
    pub of: Vec<Option<Settled>>,
    /// The settled classes, operands first.
    pub order: Vec<At>,
}

/// The best e-node of every class that can be computed, among those that are allowed.
pub fn settle(cs: &Classes, allowed: &dyn Fn(At, usize) -> bool) -> Settling {
    let n = cs.ids.len();
    let mut settled: Vec<Option<Settled>> = vec![None; n];
    let mut order = vec![];
    let mut parents: Vec<Vec<(At, usize)>> = vec![vec![]; n];
    let mut waiting: Vec<Vec<usize>> = vec![];
    let mut pending: FxHashMap<(At, usize), Settled> = FxHashMap::default();
    let mut queue: BinaryHeap<Reverse<Entry>> = BinaryHeap::new();
    for (c, choices) in cs.choices.iter().enumerate() {
        let mut counts = vec![];
        for (k, choice) in choices.iter().enumerate() {
            counts.push(choice.distinct.len());
            if !allowed(c, k) {
                continue;
            }
            choice.distinct.iter().for_each(|&o| parents[o].push((c, k)));
            if choice.distinct.is_empty()
                && let Some(s) = evaluate(cs, &settled, c, k)
            {
                queue.push(Reverse(Entry(s.inline, c, k)));
                pending.insert((c, k), s);
            }
        }
        waiting.push(counts);
    }
    while let Some(Reverse(Entry(_, c, k))) = queue.pop() {
        let Some(s) = pending.remove(&(c, k)) else { continue };
        if settled[c].is_some() {
            continue;
        }
        settled[c] = Some(s);
        order.push(c);
        for &(p, j) in &parents[c] {
            waiting[p][j] -= 1;
            if waiting[p][j] == 0
                && settled[p].is_none()
                && let Some(s) = evaluate(cs, &settled, p, j)
            {
                queue.push(Reverse(Entry(s.inline, p, j)));
                pending.insert((p, j), s);
            }
        }
    }
    Settling { of: settled, order }
}

/// An e-node whose operands are settled, with the best way to take each operand.
pub fn evaluate(cs: &Classes, settled: &[Option<Settled>], c: At, k: usize) -> Option<Settled> {
    let choice = &cs.choices[c][k];
    let child = |i: usize| {
        settled[choice.operands[i]]
            .as_ref()
            .expect("operands are settled first")
    };
    let leaf = |form, memory, below: f64| Settled {
        choice: k,
        form,
        compute: 0.0,
        memory,
        below,
        inline: below + memory,
        stored: below + memory,
        store_operands: SmallVec::new(),
        size: 0,
        array: cs.constant[c],
        rough: false,
    };
    if cs.is_splat(c) {
        return Some(leaf(Form::Tensor, 0.0, PER_TERM));
    }
    match &choice.term {
        Term::Input(_) | Term::Const(_) | Term::Scalar(..) => return Some(leaf(Form::Tensor, 0.0, PER_TERM)),
        Term::Store(_) => return Some(leaf(Form::Tensor, 0.0, child(0).stored + PER_TERM)),
        Term::Proj(..) => return Some(leaf(Form::Tensor, 0.0, child(0).inline)),
        Term::Load(_) => {
            return Some(leaf(Form::Tensor, cs.traffic[c], child(0).inline + PER_TERM));
        }
        _ => {}
    }
    let part = choice.part?;
    if part.role.is_step() {
        let below = along(
            choice
                .operands
                .iter()
                .map(|&o| settled[o].as_ref().map_or(0.0, |s| s.inline)),
        );
        let own = cs.model.kernel(choice.work.compute, choice.work.memory);
        return Some(leaf(Form::Tensor, 0.0, below + own));
    }
    let mut best: Option<Settled> = None;
    for stored in store_choices(cs, settled, c, choice) {
        let forms: SmallVec<[Form; 4]> = (0..choice.operands.len())
            .map(|i| if stored[i] { Form::Tensor } else { child(i).form })
            .collect();
        let Ok(form) = part.form(c as u32, &forms) else {
            continue;
        };
        let s = combine(cs, settled, c, k, form, stored);
        if s.size > MOST_OPERATORS {
            continue;
        }
        if best.as_ref().is_none_or(|b| s.inline < b.inline) {
            best = Some(s);
        }
    }
    best
}

/// The cost of what lies below: the most expensive, and a little of the others.
fn along(costs: impl Iterator<Item = f64>) -> f64 {
    let (max, sum) = costs.fold((0.0f64, 0.0), |(m, s), c| (m.max(c), s + c));
    max + BESIDE * (sum - max)
}

fn combine(cs: &Classes, settled: &[Option<Settled>], c: At, k: usize, form: Form, stored: Mask) -> Settled {
    let choice = &cs.choices[c][k];
    let (mut compute, mut memory, mut rough) = (0.0, choice.work.memory, false);
    let mut size = 1;
    for (i, &o) in choice.operands.iter().enumerate() {
        let s = settled[o].as_ref().expect("operands are settled first");
        if stored[i] {
            memory += cs.traffic[o];
        } else {
            compute += choice.work.below(s.compute);
            memory += s.memory;
            rough |= s.rough;
            size += s.size;
        }
    }
    let (own, rough) = choice.work.arithmetic(rough);
    compute += own;
    let made = |i: usize| {
        let s = settled[choice.operands[i]].as_ref();
        stored[i] && s.is_some_and(|s| s.form != Form::Tensor)
    };
    let (spared, untouched) = cs.spared(choice, made);
    let below = along(choice.operands.iter().enumerate().map(|(i, &o)| {
        let s = settled[o].as_ref().expect("operands are settled first");
        if stored[i] { s.stored } else { s.below }
    })) + PER_TERM;
    let (out, memory, free) = (cs.ty(c), memory.max(0.0), form == Form::Tensor);
    let array = cs.constant[c] && (free || is_array(cs, settled, choice, out));
    let (inline, stored_cost) = if array {
        // The kernel runs at compile time; fewer are still better.
        (below, below + if free { 0.0 } else { PER_CONSTANT })
    } else {
        let write = cs.traffic[c];
        let kernel = if free {
            compute.max(memory)
        } else {
            let (compute, memory) = (compute - spared, memory + write - untouched);
            cs.model.kernel(compute, memory.max(0.0))
        };
        (compute.max(memory) + below, kernel + below)
    };
    Settled {
        choice: k,
        form,
        compute,
        memory,
        below,
        inline,
        stored: stored_cost,
        store_operands: stored,
        size,
        array,
        rough,
    }
}

/// True when a constant expression is worth an array in the artefact: it is not (much) larger than those it is made of.
fn is_array(cs: &Classes, settled: &[Option<Settled>], choice: &Choice, out: &Type) -> bool {
    if choice.spreads() {
        return false;
    }
    let arrays = choice
        .operands
        .iter()
        .filter(|&&o| settled[o].as_ref().is_some_and(|s| s.array) && !cs.is_splat(o));
    let given: f64 = arrays.map(|&o| cs.model.bytes(cs.ty(o))).sum();
    cs.model.bytes(out) <= given * 1.01 + SMALL_CONSTANT
}

/// The ways to store or inline operands that are worth a look.
fn store_choices(cs: &Classes, settled: &[Option<Settled>], c: At, choice: &Choice) -> Vec<Mask> {
    const FEW: usize = 3;
    let n = choice.operands.len();
    let sol = |i: usize| {
        settled[choice.operands[i]]
            .as_ref()
            .expect("operands are settled first")
    };
    // A constant that is an array is computed at compile time, so what runs with the model reads it; so does a spread of
    // it, which is no array itself.
    let reads_arrays = !cs.constant[c] || choice.spreads();
    let base: Mask = (0..n)
        .map(|i| reads_arrays && sol(i).array && sol(i).form != Form::Tensor)
        .collect();
    let open: Vec<usize> = (0..n).filter(|&i| !base[i] && sol(i).form != Form::Tensor).collect();
    if open.len() <= FEW {
        let with = |mask: usize| {
            let mut stored = base.clone();
            open.iter()
                .enumerate()
                .for_each(|(b, &i)| stored[i] = mask >> b & 1 == 1);
            stored
        };
        return (0..1usize << open.len()).map(with).collect();
    }
    let all = |pick: &dyn Fn(&Form) -> bool| {
        let mut stored = base.clone();
        open.iter().for_each(|&i| stored[i] = pick(&sol(i).form));
        stored
    };
    vec![
        all(&|_| false),
        all(&|f| !matches!(f, Form::Access | Form::Mapped | Form::Padded | Form::Pointwise)),
        all(&|_| true),
    ]
}
