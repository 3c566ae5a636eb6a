//! The walk over a model: names to values, nodes in topological order, functions inlined, everything unsupported
//! collected.
//!
//! Invariants: a name has one definition; a node is imported after the nodes whose results it uses; a result of a node
//! that is not supported is *unknown*, and a node with an unknown operand is passed over (its operator is still looked up,
//! so that the final error lists every unsupported operator of the model), as are those in its branches.

use super::Options;
use super::attributes;
use super::builder::Builder;
use super::error::{Error, Fail};
use super::model::Model;
use super::node::NodeCtx;
use super::ops::{self, Handler};
use super::region::Frame;
use super::survey::Survey;
use super::{interface, redeclare, tensor};
use brolga_ir::{Graph, Strings, Value, plain};
use onnx_protobuf::{
    AttributeProto, FunctionProto, GraphProto, NodeProto, OperatorSetIdProto, TensorProto, ValueInfoProto,
};
use rustc_hash::FxHashMap;
use std::cell::Cell;

/// Nodes that a model may have after its functions are inlined. Functions that call functions grow exponentially.
const MAX_NODES: usize = 2_000_000;
/// Depth to which functions and subgraphs may nest.
const MAX_DEPTH: usize = 48;

/// The oldest operator set that is read.
const OLDEST: i64 = 6;
/// Operators that older sets define in the same way.
const ALWAYS_THE_SAME: [&str; 6] = ["Constant", "Identity", "Not", "Shape", "Size", "Transpose"];

/// What a name stands for.
#[derive(Clone, Copy, Debug)]
pub(super) enum Slot {
    Value(Value),
    /// A sequence of tensors, by its number. How many there are is known; see [`super::ops::sequence`].
    Sequence(u32),
    /// A map, as the tensors of its keys and of its values; see `ops/ml/map.rs`.
    Map([Value; 2]),
    /// An optional without a value; one that has a value is that value.
    Nothing,
    /// The result of something unsupported.
    Unknown,
    /// An omitted operand of an inlined function.
    Absent,
}

/// The names of one graph or function body.
#[derive(Default)]
pub(super) struct Scope<'m> {
    pub(super) names: FxHashMap<&'m str, Slot>,
    /// How many graphs are around the one that its values are of.
    depth: usize,
    /// True for a function's body, which sees no outer names.
    closed: bool,
    /// Attributes that a function was called with.
    attrs: FxHashMap<&'m str, &'m AttributeProto>,
    pub(super) versions: FxHashMap<&'m str, i64>,
    /// What node names of an inlined body begin with.
    prefix: String,
}

type FunctionKey<'m> = (&'m str, &'m str, &'m str);

/// What is assumed where sizes decide ranks, which is checked in the run.
#[derive(Default)]
pub struct Assumed {
    /// Of an `If` on sizes whose branches differ in rank, the second branch stands, not the first.
    pub second: bool,
    /// A `Squeeze` without axes takes the axes whose extents are no numbers too.
    pub ones: bool,
    /// Whether there is such an `If`.
    pub branches: Cell<bool>,
    /// Whether there is such a `Squeeze`.
    pub squeezes: Cell<bool>,
}

/// The walk over a model, which adds to a graph what it comes across.
pub struct Importer<'m> {
    /// The graph under construction.
    pub graph: Builder<'m>,
    functions: FxHashMap<FunctionKey<'m>, &'m FunctionProto>,
    pub(super) scopes: Vec<Scope<'m>>,
    /// What is not supported: the operator, the feature, the node.
    pub(super) missing: Vec<(String, String, String)>,
    /// What is assumed of ranks.
    pub(super) assumed: &'m Assumed,
    /// The tensors of sequences.
    pub(super) sequences: Vec<Vec<Value>>,
    /// What is collected where the walk goes on behind errors.
    pub(super) survey: Option<Survey<'m>>,
    imported: usize,
    pub(super) file: String,
}

/// Which of the inputs that have an initializer stay inputs; the others are constants.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Defaults {
    /// All: what ONNX says.
    All,
    /// Those of floats. The others may decide shapes, axes or branches, which are settled here.
    Floats,
    /// None.
    None,
}

/// The first version of the file format in which an initializer need not be listed as an input, so that one that is means
/// a default. Before, every weight is.
const DEFAULTS_SINCE: i64 = 4;

/// Imports a parsed model.
///
/// An input with an initializer is an input with a default, and what is computed from it is computed in the run. Where a shape
/// or a branch would be known only then, such inputs become constants: first those that hold no floats, then all.
///
/// # Errors
/// When the model is wrong, or uses what is not supported.
pub fn import(model: &mut Model, options: &Options) -> Result<Graph, Error> {
    let fail = |message: String| Error::Model {
        file: model.files.source.name().to_string(),
        message,
    };
    redeclare::shapes(model.proto.graph.mut_or_insert_default(), &options.shapes).map_err(fail)?;
    let options = &Options {
        fixed: redeclare::constants(&model.proto.graph, options).map_err(fail)?,
        ..options.clone()
    };
    let g = &model.proto.graph;
    let has_default = |i: &ValueInfoProto| g.initializer.iter().any(|t| t.name == i.name);
    let mut best: Option<Graph> = None;
    if !options.constant_defaults && model.proto.ir_version >= DEFAULTS_SINCE && g.input.iter().any(has_default) {
        for defaults in [Defaults::All, Defaults::Floats] {
            let Ok(graph) = with_strings(model, options, defaults) else {
                continue;
            };
            if graph.all_reads() == 0 {
                return Ok(graph);
            }
            if best.as_ref().is_none_or(|b| graph.all_reads() < b.all_reads()) {
                best = Some(graph);
            }
        }
    }
    match (with_strings(model, options, Defaults::None), best) {
        (Ok(graph), Some(best)) if best.all_reads() <= graph.all_reads() => Ok(best),
        (Err(_), Some(best)) => Ok(best),
        (graph, _) => graph,
    }
}

/// Imports with a numbering of strings of its own, which the graph keeps.
fn with_strings(model: &mut Model, options: &Options, defaults: Defaults) -> Result<Graph, Error> {
    let strings = Strings::default();
    model.files.strings = strings.clone();
    let mut graph = strings.scope(|| import_with(model, options, defaults))?;
    graph.strings = strings.all();
    Ok(graph)
}

/// Imports a model with the first branch of every `If` on sizes whose branches differ in rank, or else with the second one; and without
/// what a `Squeeze` may take, or else with it, where only that gives a graph, or the outputs as they are declared.
fn import_with(model: &mut Model, options: &Options, defaults: Defaults) -> Result<Graph, Error> {
    let assumed = Assumed::default();
    let mut found = import_assuming(model, options, defaults, &assumed);
    if found.is_err() && assumed.branches.get() {
        let second = Assumed {
            second: true,
            ..Assumed::default()
        };
        found = import_assuming(model, options, defaults, &second).map_err(|e| found.err().unwrap_or(e));
    }
    let agrees = |found: &Result<Graph, Error>, model: &Model| {
        found
            .as_ref()
            .is_ok_and(|graph| interface::ranks_agree(graph, &model.proto.graph))
    };
    if assumed.squeezes.get() && !agrees(&found, model) {
        let ones = Assumed {
            ones: true,
            ..Assumed::default()
        };
        if let Ok(taken) = import_assuming(model, options, defaults, &ones) {
            let kept = found.as_ref().ok();
            if kept.is_none_or(|kept| interface::takes_as_declared(&taken, kept, &model.proto.graph)) {
                return Ok(taken);
            }
        }
    }
    found
}

fn import_assuming(
    model: &mut Model,
    options: &Options,
    defaults: Defaults,
    assumed: &Assumed,
) -> Result<Graph, Error> {
    let (mut im, g) = walk(model, options, defaults, assumed, false)?;
    im.outputs(g)?;
    let mut graph = im.graph.graph;
    graph.prune();
    Ok(graph)
}

/// The walk over a model's initializers, inputs and nodes; a survey goes on behind errors.
pub(super) fn walk<'m>(
    model: &'m mut Model,
    options: &'m Options,
    defaults: Defaults,
    assumed: &'m Assumed,
    survey: bool,
) -> Result<(Importer<'m>, &'m GraphProto), Error> {
    let Model { proto, files } = model;
    let file = files.source.name().to_string();
    let fail = |message: String| Error::Model {
        file: file.clone(),
        message,
    };
    let g = &*proto.graph;
    let mut functions = FxHashMap::default();
    for f in &proto.functions {
        let key = (domain(&f.domain), f.name.as_str(), f.overload.as_str());
        if functions.insert(key, f).is_some() {
            return Err(fail(format!(
                "function `{}` of domain `{}` is defined twice",
                f.name, f.domain
            )));
        }
    }
    let versions = versions(&proto.opset_import);
    let name = if g.name.is_empty() { "model" } else { &g.name };
    let mut im = Importer {
        graph: Builder::new(name, files, options.memory_limit),
        functions,
        scopes: vec![Scope {
            versions,
            ..Scope::default()
        }],
        missing: vec![],
        assumed,
        sequences: vec![],
        survey: survey.then(|| Survey::new(g, &options.sizes)),
        imported: 0,
        file: file.clone(),
    };
    let is_input = |t: &TensorProto| {
        let kept = match defaults {
            Defaults::All => true,
            Defaults::Floats => tensor::dtype(t.data_type).is_ok_and(|d| d.is_float()),
            Defaults::None => false,
        };
        let kept = kept || options.fixed.iter().any(|(name, _)| *name == t.name);
        kept && g.input.iter().any(|i| i.name == t.name)
    };
    im.initializers(g, &is_input)?;
    im.inputs(g, options, &is_input)?;
    im.nodes(&g.node)?;
    Ok((im, g))
}

/// The canonical form of an operator domain.
pub fn domain(d: &str) -> &str {
    if d == "ai.onnx" { "" } else { d }
}

fn versions(imports: &[OperatorSetIdProto]) -> FxHashMap<&str, i64> {
    imports.iter().map(|o| (domain(&o.domain), o.version)).collect()
}

/// An operator's name with its domain, as errors and summaries show it.
pub fn operator_name(dom: &str, op: &str) -> String {
    match domain(dom) {
        "" => op.to_string(),
        d => format!("{d}::{op}"),
    }
}

/// The name of a node as people may see it, or one made of its operator and position.
pub(super) fn node_name(n: &NodeProto, index: usize) -> String {
    if n.name.is_empty() {
        format!("{}_{index}", plain(&n.op_type))
    } else {
        plain(&n.name).into_owned()
    }
}

impl<'m> Importer<'m> {
    fn scope(&self) -> &Scope<'m> {
        self.scopes.last().expect("the model's own scope stays")
    }
    pub(super) fn scope_mut(&mut self) -> &mut Scope<'m> {
        self.scopes.last_mut().expect("the model's own scope stays")
    }
    pub(super) fn error(&self, message: String) -> Error {
        Error::Model {
            file: self.file.clone(),
            message,
        }
    }
    pub(super) fn node_error(&self, node: &str, message: String) -> Error {
        Error::Node {
            file: self.file.clone(),
            node: node.to_string(),
            message,
        }
    }

    /// What a name stands for, in the graph under construction: what a graph around it has is captured.
    pub(super) fn lookup(&mut self, name: &str) -> Option<Slot> {
        let (slot, depth) = self.find(name)?;
        Some(self.inside(slot, depth))
    }

    /// What a slot of a graph that has so many around it is in the graph under construction.
    pub(super) fn inside(&mut self, slot: Slot, depth: usize) -> Slot {
        match slot {
            Slot::Value(v) => Slot::Value(self.graph.capture(v, depth)),
            Slot::Sequence(k) if depth != self.graph.depth() => {
                let all = self.sequences[k as usize].clone();
                let here = all.into_iter().map(|v| self.graph.capture(v, depth)).collect();
                self.sequence(here)
            }
            Slot::Map(parts) => Slot::Map(parts.map(|v| self.graph.capture(v, depth))),
            Slot::Sequence(_) | Slot::Nothing | Slot::Unknown | Slot::Absent => slot,
        }
    }

    /// What a name stands for, and how many graphs are around the one that it is of.
    fn find(&self, name: &str) -> Option<(Slot, usize)> {
        for s in self.scopes.iter().rev() {
            if let Some(v) = s.names.get(name) {
                return Some((*v, s.depth));
            }
            if s.closed {
                break;
            }
        }
        None
    }

    /// A sequence of tensors.
    pub(super) fn sequence(&mut self, values: Vec<Value>) -> Slot {
        self.sequences.push(values);
        Slot::Sequence(self.sequences.len() as u32 - 1)
    }

    /// Gives a name its meaning; the empty name, which stands for what is left out, has none.
    pub(super) fn define(&mut self, name: &'m str, slot: Slot) -> Result<(), String> {
        if name.is_empty() {
            return Ok(());
        }
        match self.scope_mut().names.insert(name, slot) {
            Some(_) => Err(format!("`{name}` is defined twice")),
            None => Ok(()),
        }
    }

    fn nodes(&mut self, nodes: &'m [NodeProto]) -> Result<(), Error> {
        for i in self.order(nodes)? {
            let n = &nodes[i];
            let name = format!("{}{}", self.scope().prefix, node_name(n, i));
            self.imported += 1;
            if self.imported > MAX_NODES {
                return Err(self.error(format!("more than {MAX_NODES} nodes with all functions inlined")));
            }
            let imported = self.imported;
            let made = self.node(n, &name);
            // Once: where each node went through its branches again, the time would double with every graph within another.
            if made.is_err() && imported == self.imported {
                self.branches(n, &name);
            }
            let slots = match made {
                Ok(values) => values,
                Err(Fail::Bad(message)) => {
                    self.wrong(self.node_error(&name, format!("{}: {message}", n.op_type)))?;
                    vec![]
                }
                Err(Fail::Nested(e)) => {
                    self.wrong(*e)?;
                    vec![]
                }
                Err(Fail::Unsupported(feature)) => {
                    self.missing
                        .push((operator_name(&n.domain, &n.op_type), feature, name.clone()));
                    vec![]
                }
                Err(Fail::Skipped) => {
                    self.passed_over(&name);
                    vec![]
                }
            };
            for (k, o) in n.output.iter().enumerate().filter(|(_, o)| !o.is_empty()) {
                let slot = slots.get(k).copied().unwrap_or_else(|| self.unknown(o));
                self.define(o, slot).map_err(|e| self.node_error(&name, e))?;
            }
        }
        Ok(())
    }

    /// Goes through the subgraphs of a node that is passed over, so that what they use is listed too.
    fn branches(&mut self, n: &'m NodeProto, name: &str) {
        for a in &n.attribute {
            for g in a.g.as_ref().into_iter().chain(&a.graphs) {
                self.graph.enter(Frame::new("branch"));
                let path = format!("{name}/{}", a.name.trim_end_matches("_branch"));
                // What is wrong in there is listed by a survey; without one, the error is what is not supported.
                let _ = self.inline(g, &path, &vec![Slot::Unknown; g.input.len()]);
                self.graph.leave();
            }
        }
    }

    /// Imports one node; the results in the node's order.
    fn node(&mut self, n: &'m NodeProto, name: &str) -> Result<Vec<Slot>, Fail> {
        let dom = domain(&n.domain);
        let function = self
            .functions
            .get(&(dom, n.op_type.as_str(), n.overload.as_str()))
            .copied();
        let handler = ops::lookup(dom, &n.op_type);
        let mut slots = vec![];
        for i in &n.input {
            slots.push(match self.lookup(i) {
                _ if i.is_empty() => Slot::Absent,
                Some(s) => s,
                None => return Err(Fail::Bad(format!("operand `{i}` is defined by nothing"))),
            });
        }
        while matches!(slots.last(), Some(Slot::Absent)) {
            slots.pop();
        }
        let mut attrs: Vec<(&'m str, &'m AttributeProto)> = vec![];
        for a in &n.attribute {
            if attrs.iter().any(|b| b.0 == a.name) {
                return Err(Fail::Bad(format!("attribute `{}` is given twice", a.name)));
            }
            if a.ref_attr_name.is_empty() {
                attrs.push((&a.name, a));
            } else if let Some(&outer) = self.scope().attrs.get(a.ref_attr_name.as_str()) {
                attrs.push((&a.name, outer));
            }
        }
        if let Some(f) = function {
            return self.call(f, name, &slots, attrs);
        }
        let Some(handler) = handler else {
            return Err(Fail::Unsupported(String::new()));
        };
        let Some(&version) = self.scope().versions.get(dom) else {
            return Err(Fail::Bad(format!(
                "the model imports no operator set of domain `{dom}`"
            )));
        };
        let version = self.known_version(dom, version, name);
        attributes::check(dom, &n.op_type, version, n.attribute.iter().map(|a| a.name.as_str()))?;
        if version < OLDEST && dom.is_empty() && !ALWAYS_THE_SAME.contains(&n.op_type.as_str()) {
            return Err(Fail::Unsupported(format!(
                "operator set version {version}, {OLDEST} and newer are read"
            )));
        }
        if slots.iter().any(|s| matches!(s, Slot::Unknown)) {
            return Err(Fail::Skipped);
        }
        let inputs = slots
            .iter()
            .map(|s| if let Slot::Value(v) = s { Some(*v) } else { None })
            .collect();
        let ctx = NodeCtx {
            proto: n,
            name: name.into(),
            version,
            inputs,
            attrs,
            assumed: self.assumed,
        };
        self.graph.origin = ctx.name.clone();
        let made = match handler {
            Handler::Walk(f) => f(self, &ctx, &slots),
            Handler::Node(_) | Handler::Map(..) => tensors_only(&slots)
                .and_then(|()| self.graph.node(&ctx))
                .map(|values| values.into_iter().map(Slot::Value).collect()),
        };
        let values = made.map_err(|e| self.graph.explain(&ctx.inputs, e))?;
        if let Some(k) = (values.len()..n.output.len()).find(|&k| ctx.wants(k)) {
            return Err(Fail::Unsupported(format!("result {k}")));
        }
        Ok(values)
    }

    /// The version of an operator set. One that is newer than any that is known is listed, and the walk goes on with the newest.
    fn known_version(&mut self, dom: &str, version: i64, node: &str) -> i64 {
        let Some(newest) = attributes::newest(dom).filter(|n| *n < version) else {
            return version;
        };
        let set = if dom.is_empty() { "ai.onnx" } else { dom };
        if self.missing.iter().all(|(operator, ..)| operator != set) {
            let feature = format!(
                "operator set version {version}, {newest} is the newest that is known: convert the model to {newest}"
            );
            self.missing.push((set.to_owned(), feature, node.to_owned()));
        }
        newest
    }

    fn call(
        &mut self,
        f: &'m FunctionProto,
        name: &str,
        inputs: &[Slot],
        given: Vec<(&'m str, &'m AttributeProto)>,
    ) -> Result<Vec<Slot>, Fail> {
        if inputs.len() > f.input.len() {
            return Err(Fail::Bad(format!(
                "{} operands, function `{}` takes {}",
                inputs.len(),
                f.name,
                f.input.len()
            )));
        }
        let defaults = f.attribute_proto.iter().map(|a| &a.name);
        let formals: Vec<&str> = f.attribute.iter().chain(defaults).map(String::as_str).collect();
        if let Some((name, _)) = given
            .iter()
            .find(|(name, _)| !formals.contains(name) && !name.starts_with("__"))
        {
            let hint = attributes::among(name, &formals);
            return Err(Fail::Bad(format!("the function has no attribute `{name}`; {hint}")));
        }
        self.check_depth(&f.name)?;
        let mut attrs: FxHashMap<&'m str, &'m AttributeProto> =
            f.attribute_proto.iter().map(|a| (a.name.as_str(), a)).collect();
        attrs.extend(given);
        let mut versions = versions(&f.opset_import);
        if versions.is_empty() {
            versions = self.scope().versions.clone();
        }
        let mut scope = Scope {
            depth: self.graph.depth(),
            closed: true,
            attrs,
            versions,
            prefix: format!("{name}/"),
            ..Scope::default()
        };
        for (i, formal) in f.input.iter().enumerate() {
            scope
                .names
                .insert(formal, inputs.get(i).copied().unwrap_or(Slot::Absent));
        }
        let outputs: Vec<&'m str> = f.output.iter().map(String::as_str).collect();
        self.body(scope, &f.node, &outputs)
    }

    /// Imports a subgraph into the graph under construction, such as the branch of an `If` whose condition is known.
    ///
    /// # Errors
    /// As for the nodes of a model; [`Fail::Skipped`] when a result is unknown.
    pub(super) fn inline(&mut self, g: &'m GraphProto, name: &str, arguments: &[Slot]) -> Result<Vec<Slot>, Fail> {
        let origin = self.graph.origin.clone();
        self.check_depth(name)?;
        if arguments.len() != g.input.len() {
            return Err(Fail::Bad(format!(
                "{} arguments for a subgraph with {} inputs",
                arguments.len(),
                g.input.len()
            )));
        }
        let scope = Scope {
            attrs: self.scope().attrs.clone(),
            versions: self.scope().versions.clone(),
            depth: self.graph.depth(),
            prefix: format!("{name}/"),
            names: g
                .input
                .iter()
                .zip(arguments)
                .map(|(i, s)| (i.name.as_str(), *s))
                .collect(),
            ..Scope::default()
        };
        self.scopes.push(scope);
        let initialized = self.initializers(g, &|_| false);
        let scope = self.scopes.pop().expect("pushed above");
        initialized.map_err(|e| Fail::Nested(Box::new(e)))?;
        let outputs: Vec<&'m str> = g.output.iter().map(|o| o.name.as_str()).collect();
        let slots = self.body(scope, &g.node, &outputs)?;
        self.graph.origin = origin;
        match slots.iter().any(|s| matches!(s, Slot::Unknown)) {
            true => Err(Fail::Skipped),
            false => Ok(slots),
        }
    }

    fn check_depth(&self, what: &str) -> Result<(), Fail> {
        if self.scopes.len() > MAX_DEPTH {
            return Err(Fail::Bad(format!(
                "`{what}` nests deeper than {MAX_DEPTH} functions, or calls itself"
            )));
        }
        Ok(())
    }

    fn body(&mut self, scope: Scope<'m>, nodes: &'m [NodeProto], outputs: &[&'m str]) -> Result<Vec<Slot>, Fail> {
        self.scopes.push(scope);
        let done = self.nodes(nodes);
        let slots: Vec<Option<Slot>> = outputs.iter().map(|o| self.lookup(o)).collect();
        self.scopes.pop();
        done.map_err(|e| Fail::Nested(Box::new(e)))?;
        outputs
            .iter()
            .zip(slots)
            .map(|(o, s)| s.ok_or_else(|| Fail::Bad(format!("its result `{o}` is not defined by anything"))))
            .collect()
    }
}

/// Checks that the operands of an operator are tensors.
fn tensors_only(slots: &[Slot]) -> Result<(), Fail> {
    match slots
        .iter()
        .position(|s| matches!(s, Slot::Sequence(_) | Slot::Map(_) | Slot::Nothing))
    {
        Some(k) => Err(Fail::Bad(format!(
            "operand {k} is a sequence, a map or an empty optional, expected a tensor"
        ))),
        None => Ok(()),
    }
}
