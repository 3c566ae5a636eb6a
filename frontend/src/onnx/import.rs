//! The walk over a model: names to values, nodes in topological order, functions inlined, everything unsupported
//! collected.
//!
//! Invariants: a name has one definition; a node is imported after the nodes whose results it uses; a result of a node
//! that is not supported is *unknown*, and a node with an unknown operand is passed over (its operator is still looked up,
//! so that the final error lists every unsupported operator of the model).

use super::error::{Error, Fail, Unsupported};
use super::model::{Files, Model};
use super::node::NodeCtx;
use super::ops::{self, Handler};
use super::ratio::Ratio;
use super::signature::{Symbols, contradiction, dims, input_type};
use super::{Options, symbolic, tensor};
use brolga_ir::dim::shorten;
use brolga_ir::{Dim, Graph, Symbol, Tensor, Type, Value};
use onnx_protobuf::{
    AttributeProto, FunctionProto, GraphProto, NodeProto, OperatorSetIdProto, TensorProto, ValueInfoProto,
    tensor_shape_proto::dimension::Value as DimValue,
};
use rustc_hash::{FxHashMap, FxHashSet};
use std::sync::Arc;

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
enum Slot {
    Value(Value),
    /// The result of something unsupported.
    Unknown,
    /// An omitted operand of an inlined function.
    Absent,
}

/// The names of one graph or function body.
#[derive(Default)]
struct Scope<'m> {
    names: FxHashMap<&'m str, Slot>,
    /// True for a function's body, which sees no outer names.
    closed: bool,
    /// Attributes that a function was called with.
    attrs: FxHashMap<&'m str, &'m AttributeProto>,
    versions: FxHashMap<&'m str, i64>,
    /// What node names of an inlined body begin with.
    prefix: String,
}

type FunctionKey<'m> = (&'m str, &'m str, &'m str);

/// The state of an import. Operators' importers add nodes through the methods of [`super::emit`].
pub struct Importer<'m> {
    /// The graph under construction.
    pub graph: Graph,
    /// The model's files.
    pub files: &'m mut Files,
    /// Bytes that one value may have.
    pub limit: u64,
    /// The name that new nodes carry.
    pub(super) origin: Arc<str>,
    /// Contents of small values that are known (constants and what is computed from them).
    pub(super) folded: FxHashMap<Value, Tensor>,
    /// Contents of small integer values that are known as dims.
    pub(super) known: FxHashMap<Value, Vec<Dim>>,
    /// What small floats that are computed from sizes are.
    pub(super) ratios: FxHashMap<Value, Vec<Ratio>>,
    pub(super) scalars: FxHashMap<(brolga_ir::DType, u64), Value>,
    functions: FxHashMap<FunctionKey<'m>, &'m FunctionProto>,
    scopes: Vec<Scope<'m>>,
    missing: Vec<(String, String, String)>,
    imported: usize,
    file: String,
}

/// Which of the inputs that have an initializer stay inputs; the others are constants.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Defaults {
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
/// An input with an initializer is an input with a default, and what is computed from it is computed in the run. Where the
/// model then cannot be compiled, since a shape or a branch would be known only then, such inputs become constants: first
/// those that hold no floats, then all.
///
/// # Errors
/// When the model is wrong, or uses what is not supported.
pub fn import(model: &mut Model, options: &Options) -> Result<Graph, Error> {
    let g = &model.proto.graph;
    let has_default = |i: &ValueInfoProto| g.initializer.iter().any(|t| t.name == i.name);
    if !options.constant_defaults && model.proto.ir_version >= DEFAULTS_SINCE && g.input.iter().any(has_default) {
        for defaults in [Defaults::All, Defaults::Floats] {
            if let Ok(graph) = import_with(model, options, defaults) {
                return Ok(graph);
            }
        }
    }
    import_with(model, options, Defaults::None)
}

fn import_with(model: &mut Model, options: &Options, defaults: Defaults) -> Result<Graph, Error> {
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
    let mut im = Importer {
        graph: Graph::new(if g.name.is_empty() { "model" } else { &g.name }),
        files,
        limit: options.memory_limit,
        origin: "".into(),
        folded: FxHashMap::default(),
        known: FxHashMap::default(),
        ratios: FxHashMap::default(),
        scalars: FxHashMap::default(),
        functions,
        scopes: vec![Scope {
            versions,
            ..Scope::default()
        }],
        missing: vec![],
        imported: 0,
        file: file.clone(),
    };
    let is_input = |t: &TensorProto| {
        let kept = match defaults {
            Defaults::All => true,
            Defaults::Floats => tensor::dtype(t.data_type).is_ok_and(|d| d.is_float()),
            Defaults::None => false,
        };
        kept && g.input.iter().any(|i| i.name == t.name)
    };
    im.initializers(g, &is_input)?;
    im.inputs(g, options, &is_input)?;
    im.nodes(&g.node)?;
    im.outputs(g)?;
    im.graph.prune();
    Ok(im.graph)
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

/// The name of a node, or one made of its operator and position.
fn node_name(n: &NodeProto, index: usize) -> String {
    if n.name.is_empty() {
        format!("{}_{index}", n.op_type)
    } else {
        n.name.clone()
    }
}

impl<'m> Importer<'m> {
    fn scope(&self) -> &Scope<'m> {
        self.scopes.last().expect("the model's own scope stays")
    }
    fn scope_mut(&mut self) -> &mut Scope<'m> {
        self.scopes.last_mut().expect("the model's own scope stays")
    }
    fn error(&self, message: String) -> Error {
        Error::Model {
            file: self.file.clone(),
            message,
        }
    }
    fn node_error(&self, node: &str, message: String) -> Error {
        Error::Node {
            file: self.file.clone(),
            node: node.to_string(),
            message,
        }
    }

    fn lookup(&self, name: &str) -> Option<Slot> {
        for s in self.scopes.iter().rev() {
            if let Some(v) = s.names.get(name) {
                return Some(*v);
            }
            if s.closed {
                break;
            }
        }
        None
    }

    /// Gives a name its meaning; the empty name, which stands for what is left out, has none.
    fn define(&mut self, name: &'m str, slot: Slot) -> Result<(), String> {
        if name.is_empty() {
            return Ok(());
        }
        match self.scope_mut().names.insert(name, slot) {
            Some(_) => Err(format!("`{name}` is defined twice")),
            None => Ok(()),
        }
    }

    fn initializers(&mut self, g: &'m GraphProto, is_input: &dyn Fn(&TensorProto) -> bool) -> Result<(), Error> {
        for t in g.initializer.iter().filter(|t| !is_input(t)) {
            let bad = |im: &Self, e: String| im.error(format!("initializer `{}`: {e}", t.name));
            let slot = match tensor::constant(t, self.files, self.limit) {
                Ok(c) => Slot::Value(self.graph.constant(c)),
                Err(e) if e.starts_with("element type") => {
                    self.missing.push(("initializer".into(), e, t.name.clone()));
                    Slot::Unknown
                }
                Err(e) => return Err(bad(self, e)),
            };
            self.define(&t.name, slot).map_err(|e| bad(self, e))?;
        }
        for s in &g.sparse_initializer {
            self.missing
                .push(("initializer".into(), "sparse".into(), s.values.name.clone()));
            if !s.values.name.is_empty() {
                self.scope_mut().names.insert(&s.values.name, Slot::Unknown);
            }
        }
        Ok(())
    }

    fn inputs(
        &mut self,
        g: &'m GraphProto,
        options: &Options,
        is_input: &dyn Fn(&TensorProto) -> bool,
    ) -> Result<(), Error> {
        let fixed = &options.fixed;
        let constants = g.initializer.iter().filter(|t| !is_input(t));
        let initialized: FxHashSet<&str> = constants.map(|t| t.name.as_str()).collect();
        let defaults: FxHashMap<&str, &'m TensorProto> = g
            .initializer
            .iter()
            .filter(|t| is_input(t))
            .map(|t| (t.name.as_str(), t))
            .collect();
        // Names of symbols are settled before
        // fresh ones are made up.
        let inputs: Vec<&'m ValueInfoProto> = g
            .input
            .iter()
            .filter(|i| !initialized.contains(i.name.as_str()))
            .collect();
        if let Some((s, n)) = options.sizes.iter().find(|(_, n)| *n < 0) {
            return Err(self.error(format!("the size {n} of dimension `{s}`, expected 0 or more")));
        }
        let mut symbols = Symbols::new(&options.sizes);
        for i in &inputs {
            for d in dims(i).into_iter().flatten() {
                if let Some(DimValue::DimParam(p)) = &d.value {
                    symbols.of(p);
                }
            }
        }
        if let Some(f) = fixed.iter().find(|f| !inputs.iter().any(|i| i.name == f.0)) {
            return Err(self.error(format!("there is no input `{}` to fix", f.0)));
        }
        for i in inputs {
            let bad = |im: &Self, e: String| im.error(format!("input `{}`: {e}", i.name));
            let given = fixed.iter().find(|f| f.0 == i.name).map(|f| &f.1);
            let slot = match input_type(i, &mut symbols) {
                Ok(ty) if given.is_some() => {
                    let t = given.expect("checked by the guard").clone();
                    let found = Type::fixed(t.dtype(), t.shape());
                    if contradiction(i, &found).is_some() {
                        return Err(bad(self, format!("fixed to {found}, expected {ty}")));
                    }
                    Slot::Value(self.dense(t))
                }
                Ok(_) if defaults.contains_key(i.name.as_str()) => {
                    let default = tensor::constant(defaults[i.name.as_str()], self.files, self.limit);
                    let default = default.map_err(|e| bad(self, e))?;
                    if let Some(e) = contradiction(i, &default.ty) {
                        return Err(bad(self, format!("its default {e}")));
                    }
                    // Of the extents of the default, whatever else the declaration would allow.
                    let v = self.graph.input(&i.name, default.ty.clone());
                    self.graph.defaults.push((i.name.clone(), default));
                    Slot::Value(v)
                }
                Ok(ty) => Slot::Value(self.graph.input(&i.name, ty)),
                Err(Fail::Unsupported(e)) => {
                    self.missing.push(("input".into(), e, i.name.clone()));
                    Slot::Unknown
                }
                Err(Fail::Bad(e)) => return Err(bad(self, e)),
                Err(Fail::Nested(_) | Fail::Skipped) => unreachable!("an input runs no node"),
            };
            self.define(&i.name, slot).map_err(|e| bad(self, e))?;
        }
        symbols.check().map_err(|e| self.error(e))
    }

    fn outputs(&mut self, g: &'m GraphProto) -> Result<(), Error> {
        let mut found = vec![];
        for o in &g.output {
            match self.lookup(&o.name) {
                Some(Slot::Value(v)) => found.push((o, v)),
                Some(_) => {}
                None => return Err(self.error(format!("output `{}` is not defined by anything", o.name))),
            }
        }
        if !self.missing.is_empty() {
            return Err(Error::Unsupported {
                file: self.file.clone(),
                items: group(&self.missing),
            });
        }
        for (o, v) in found {
            if let Some(e) = contradiction(o, self.graph.ty(v)) {
                return Err(self.error(format!("output `{}` {e}", o.name)));
            }
            self.graph.outputs.push((o.name.clone(), v));
        }
        Ok(())
    }

    fn nodes(&mut self, nodes: &'m [NodeProto]) -> Result<(), Error> {
        for i in self.order(nodes)? {
            let n = &nodes[i];
            let name = format!("{}{}", self.scope().prefix, node_name(n, i));
            self.imported += 1;
            if self.imported > MAX_NODES {
                return Err(self.error(format!("more than {MAX_NODES} nodes with all functions inlined")));
            }
            let slots = match self.node(n, &name) {
                Ok(values) => values,
                Err(Fail::Bad(message)) => return Err(self.node_error(&name, format!("{}: {message}", n.op_type))),
                Err(Fail::Nested(e)) => return Err(*e),
                Err(Fail::Unsupported(feature)) => {
                    self.missing
                        .push((operator_name(&n.domain, &n.op_type), feature, name.clone()));
                    vec![]
                }
                Err(Fail::Skipped) => vec![],
            };
            for (k, o) in n.output.iter().enumerate().filter(|(_, o)| !o.is_empty()) {
                let slot = slots.get(k).copied().unwrap_or(Slot::Unknown);
                self.define(o, slot).map_err(|e| self.node_error(&name, e))?;
            }
        }
        Ok(())
    }

    /// The nodes' positions such that every node comes after those it depends on; the given order where it is one.
    fn order(&self, nodes: &'m [NodeProto]) -> Result<Vec<usize>, Error> {
        let mut producer: FxHashMap<&str, usize> = FxHashMap::default();
        for (i, n) in nodes.iter().enumerate() {
            for o in n.output.iter().filter(|o| !o.is_empty()) {
                if producer.insert(o, i).is_some() {
                    return Err(self.node_error(&node_name(n, i), format!("`{o}` is defined twice")));
                }
            }
        }
        let mut users: Vec<Vec<usize>> = vec![vec![]; nodes.len()];
        let mut waiting = vec![0usize; nodes.len()];
        let mut sorted = true;
        for (i, n) in nodes.iter().enumerate() {
            let mut names = FxHashSet::default();
            used_names(n, &mut names);
            for p in names.iter().filter_map(|name| producer.get(name)) {
                users[*p].push(i);
                waiting[i] += 1;
                sorted &= *p < i;
            }
        }
        if sorted {
            return Ok((0..nodes.len()).collect());
        }
        let mut ready: std::collections::BTreeSet<usize> = (0..nodes.len()).filter(|&i| waiting[i] == 0).collect();
        let mut order = Vec::with_capacity(nodes.len());
        while let Some(i) = ready.pop_first() {
            order.push(i);
            for &u in &users[i] {
                waiting[u] -= 1;
                if waiting[u] == 0 {
                    ready.insert(u);
                }
            }
        }
        if order.len() < nodes.len() {
            let stuck: Vec<String> = (0..nodes.len())
                .filter(|&i| waiting[i] > 0)
                .take(8)
                .map(|i| format!("`{}`", node_name(&nodes[i], i)))
                .collect();
            return Err(self.error(format!(
                "nodes depend on each other in a cycle, among them {}",
                stuck.join(", ")
            )));
        }
        Ok(order)
    }

    /// Imports one node; the results in the node's order.
    fn node(&mut self, n: &'m NodeProto, name: &str) -> Result<Vec<Slot>, Fail> {
        let dom = domain(&n.domain);
        let function = self
            .functions
            .get(&(dom, n.op_type.as_str(), n.overload.as_str()))
            .copied();
        let handler: Option<Handler> = ops::lookup(dom, &n.op_type);
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
        };
        self.origin = ctx.name.clone();
        let made = symbolic::evaluate(self, &ctx).and_then(|v| match v {
            Some(v) => Ok(v),
            None => ops::run(self, &ctx, handler),
        });
        let values = made.map_err(|e| self.explain(&ctx.inputs, e))?;
        if let Some(k) = (values.len()..n.output.len()).find(|&k| ctx.wants(k)) {
            return Err(Fail::Unsupported(format!("result {k}")));
        }
        Ok(values.into_iter().map(Slot::Value).collect())
    }

    /// A failure whose message is short, and says which of the operands' symbols it is about.
    fn explain(&self, operands: &[Option<Value>], fail: Fail) -> Fail {
        const SHOWN: usize = 4;
        let mut symbols: Vec<Symbol> = vec![];
        for v in operands.iter().flatten() {
            for d in self
                .graph
                .ty(*v)
                .shape
                .iter()
                .chain(self.known.get(v).into_iter().flatten())
            {
                d.for_each_symbol(&mut |s| symbols.push(s.clone()));
            }
        }
        symbols.sort();
        symbols.dedup();
        let told = |message: String| {
            let words = || message.split(|c: char| !(c.is_alphanumeric() || c == '_'));
            let any = words().any(|w| w == "symbolic");
            let names = symbols.iter().filter(|s| any || words().any(|w| *w == ***s));
            let names: Vec<&Symbol> = names.take(SHOWN).collect();
            let hint = names.first().map(|first| {
                let all: Vec<String> = names.iter().map(|s| format!("`{s}`")).collect();
                format!("; a size for {} (--set {first}=N) settles it", all.join(" or "))
            });
            shorten(&message) + &hint.unwrap_or_default()
        };
        match fail {
            Fail::Bad(m) => Fail::Bad(told(m)),
            Fail::Unsupported(m) => Fail::Unsupported(told(m)),
            other => other,
        }
    }

    /// Runs a handler on other operands than the node's own.
    pub(super) fn rerun(&mut self, ctx: &NodeCtx<'m>, inputs: Vec<Option<Value>>) -> Result<Vec<Value>, Fail> {
        let handler = ops::lookup(domain(&ctx.proto.domain), ctx.op()).expect("the node was looked up before");
        let ctx = NodeCtx {
            proto: ctx.proto,
            name: ctx.name.clone(),
            version: ctx.version,
            inputs,
            attrs: ctx.attrs.clone(),
        };
        handler(self, &ctx)
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
        self.check_depth(&f.name)?;
        let mut attrs: FxHashMap<&'m str, &'m AttributeProto> =
            f.attribute_proto.iter().map(|a| (a.name.as_str(), a)).collect();
        attrs.extend(given);
        let mut versions = versions(&f.opset_import);
        if versions.is_empty() {
            versions = self.scope().versions.clone();
        }
        let mut scope = Scope {
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

    /// Imports a subgraph in place, such as the branch of an `If` whose condition is known.
    ///
    /// # Errors
    /// As for the nodes of a model; [`Fail::Skipped`] when a result is unknown.
    pub fn inline(&mut self, g: &'m GraphProto, name: &str, arguments: &[Value]) -> Result<Vec<Value>, Fail> {
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
            prefix: format!("{name}/"),
            names: g
                .input
                .iter()
                .zip(arguments)
                .map(|(i, v)| (i.name.as_str(), Slot::Value(*v)))
                .collect(),
            ..Scope::default()
        };
        self.scopes.push(scope);
        let initialized = self.initializers(g, &|_| false);
        let scope = self.scopes.pop().expect("pushed above");
        initialized.map_err(|e| Fail::Nested(Box::new(e)))?;
        let outputs: Vec<&'m str> = g.output.iter().map(|o| o.name.as_str()).collect();
        let slots = self.body(scope, &g.node, &outputs)?;
        slots
            .into_iter()
            .map(|s| {
                if let Slot::Value(v) = s {
                    Ok(v)
                } else {
                    Err(Fail::Skipped)
                }
            })
            .collect()
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

/// Every name that a node uses, those captured by its subgraphs included.
fn used_names<'m>(n: &'m NodeProto, names: &mut FxHashSet<&'m str>) {
    names.extend(n.input.iter().map(String::as_str));
    for a in &n.attribute {
        for g in a.g.as_ref().into_iter().chain(&a.graphs) {
            g.node.iter().for_each(|n| used_names(n, names));
            names.extend(g.output.iter().map(|o| o.name.as_str()));
        }
    }
}

fn group(missing: &[(String, String, String)]) -> Vec<Unsupported> {
    let mut items: Vec<Unsupported> = vec![];
    for (operator, feature, node) in missing {
        match items
            .iter_mut()
            .find(|i| i.operator == *operator && i.feature == *feature)
        {
            Some(i) => i.nodes.push(node.clone()),
            None => items.push(Unsupported {
                operator: operator.clone(),
                feature: feature.clone(),
                nodes: vec![node.clone()],
            }),
        }
    }
    items.sort_by(|a, b| (&a.operator, &a.feature).cmp(&(&b.operator, &b.feature)));
    items
}
