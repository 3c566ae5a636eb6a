//! Level 1, the tensor IR: an SSA graph of typed values.
//!
//! Invariants (checked by [`Graph::verify`]): nodes stand in topological order; every value has one definition; the
//! types of a node's outputs are what its operator infers from the types of its inputs; the symbols in them are those of the
//! inputs, or of sizes that were read before; a node that came from a model carries the model node's name in
//! [`Node::origin`]. Shapes broadcast only through the `broadcast` operator. Constants are never copied into the graph: a
//! [`Constant`] is small bytes, a range of a mapped file, or one value splat.

mod base64;
mod interp;
mod rewrite;
#[cfg(test)]
mod tests;
mod text;
mod verify;

pub use rewrite::Rewriter;
pub(crate) use text::parse_constant;
pub use text::{Files, parse, parse_op};

use crate::{Attr, DType, Dim, Guard, Number, Op, Symbol, Tensor};
use std::fmt;
use std::sync::Arc;

/// The id of a value, printed `%3`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Value(pub u32);

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "%{}", self.0)
    }
}
impl fmt::Debug for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "%{}", self.0)
    }
}

/// The type of a value: element type and extents, outermost first.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Type {
    /// Element type.
    pub dtype: DType,
    /// Extents, outermost first; empty for rank 0.
    pub shape: Vec<Dim>,
}

impl Type {
    /// A type.
    pub fn new(dtype: DType, shape: impl Into<Vec<Dim>>) -> Type {
        Type {
            dtype,
            shape: shape.into(),
        }
    }
    /// A type of known extents.
    pub fn fixed(dtype: DType, shape: &[usize]) -> Type {
        Type {
            dtype,
            shape: shape.iter().map(|&d| Dim::from(d)).collect(),
        }
    }
    /// The number of dimensions.
    pub fn rank(&self) -> usize {
        self.shape.len()
    }
    /// The number of elements.
    pub fn len(&self) -> Dim {
        crate::dim::product(&self.shape)
    }
    /// True when an extent is the constant 0.
    pub fn is_empty(&self) -> bool {
        self.shape.iter().any(|d| d.is(0))
    }
    /// Checks that the known extents leave a size in bytes that 64 bits hold; what the others make of it is checked when
    /// they are known.
    ///
    /// # Errors
    /// When they do not.
    pub fn check_size(&self) -> Result<(), String> {
        let bytes = self.shape.iter().try_fold(self.dtype.bytes() as i64, |n, d| match d {
            Dim::Const(c) => n.checked_mul(*c),
            d => (!d.is_too_large()).then_some(n),
        });
        if bytes.is_some() || self.is_empty() {
            Ok(())
        } else {
            Err(format!("{self} is too large: its size in bytes is beyond 64 bits"))
        }
    }
}

impl fmt::Display for Type {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}[", self.dtype)?;
        for (i, d) in self.shape.iter().enumerate() {
            write!(f, "{}{d}", if i > 0 { ", " } else { "" })?;
        }
        f.write_str("]")
    }
}
impl fmt::Debug for Type {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Bytes that live outside the graph, such as a mapped model file.
pub trait Source: Send + Sync {
    /// The whole file.
    fn bytes(&self) -> &[u8];
    /// What a text form or an error names it by, usually the path.
    fn name(&self) -> &str;
}

/// What a constant's elements are.
#[derive(Clone)]
pub enum ConstData {
    /// Elements in memory (small, or computed).
    Dense(Tensor),
    /// Row-major little-endian elements at a byte range of a file.
    File {
        /// The file.
        source: Arc<dyn Source>,
        /// Byte offset of the first element.
        offset: usize,
    },
    /// One value everywhere.
    Splat(Number),
}

/// A constant of known shape.
#[derive(Clone)]
pub struct Constant {
    /// Its type; every extent is known.
    pub ty: Type,
    /// Its elements.
    pub data: ConstData,
}

impl Constant {
    /// The elements as a tensor (a copy, except for dense data).
    pub fn to_tensor(&self) -> Tensor {
        let shape = crate::dim::constants(&self.ty.shape).expect("a constant has a known shape");
        match &self.data {
            ConstData::Dense(t) => t.clone(),
            ConstData::Splat(x) => Tensor::splat(self.ty.dtype, &shape, *x),
            ConstData::File { source, offset } => {
                let n = shape.iter().product::<usize>() * self.ty.dtype.bytes();
                Tensor::new(self.ty.dtype, shape, &source.bytes()[*offset..offset + n]).expect("the range was checked")
            }
        }
    }

    /// The single value that every element has, when that is known without reading much.
    pub fn as_splat(&self) -> Option<Number> {
        match &self.data {
            ConstData::Splat(x) => Some(*x),
            ConstData::Dense(t) => t.as_splat(),
            ConstData::File { .. } if self.ty.len().as_const()? <= 16 => self.to_tensor().as_splat(),
            ConstData::File { .. } => None,
        }
    }
}

impl PartialEq for Constant {
    fn eq(&self, other: &Constant) -> bool {
        self.ty == other.ty
            && match (&self.data, &other.data) {
                (ConstData::Splat(a), ConstData::Splat(b)) => a == b || (a.f64().is_nan() && b.f64().is_nan()),
                (ConstData::File { source: a, offset: i }, ConstData::File { source: b, offset: j }) => {
                    (a.name() == b.name() && i == j) || self.to_tensor() == other.to_tensor()
                }
                _ => self.to_tensor() == other.to_tensor(),
            }
    }
}

/// How a value comes to be.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Def {
    /// The graph's input of this position.
    Input(u32),
    /// The graph's constant of this position.
    Const(u32),
    /// Output `.1` of node `.0`.
    Node(u32, u32),
}

/// One operation.
#[derive(Clone, PartialEq)]
pub struct Node {
    /// The operator with its attributes.
    pub op: Op,
    /// Operands.
    pub inputs: Vec<Value>,
    /// Results.
    pub outputs: Vec<Value>,
    /// The model node that this came from; empty when there is none.
    pub origin: Arc<str>,
}

/// A value's type and definition.
#[derive(Clone, PartialEq)]
pub struct ValueInfo {
    /// Its type.
    pub ty: Type,
    /// Its definition.
    pub def: Def,
}

/// A named graph input.
#[derive(Clone, PartialEq)]
pub struct Input {
    /// Its name in the model.
    pub name: String,
    /// Its value.
    pub value: Value,
}

/// A size that data tell: a symbol that is the only element of a value. Types and attributes of the nodes behind that value may use it,
/// as those of the whole graph use the symbols of its inputs.
#[derive(Clone, PartialEq)]
pub struct Read {
    /// The symbol.
    pub symbol: Symbol,
    /// An integer or a bool of one element. The run fails when it is negative, or above the bound.
    pub value: Value,
    /// The largest value, where one is known.
    pub bound: Option<Dim>,
    /// The model node that asks for the size.
    pub origin: Arc<str>,
}

/// The tensor IR of one model (level 1).
#[derive(Clone, Default, PartialEq)]
pub struct Graph {
    /// The model's name; a C identifier in generated code is derived from it.
    pub name: String,
    /// The symbols of the inputs' shapes, in the order in which generated code takes their values.
    pub symbols: Vec<Symbol>,
    /// Inputs, in the model's order.
    pub inputs: Vec<Input>,
    /// What inputs are where a caller gives nothing, by their names. No result is computed with them: what runs a pass
    /// carries them past it, and the compiled program keeps them among its weights.
    pub defaults: Vec<(String, Constant)>,
    /// Named results, in the model's order. An output may be an input or a constant.
    pub outputs: Vec<(String, Value)>,
    /// Operations, in topological order.
    pub nodes: Vec<Node>,
    /// Sizes that data tell, in the order in which they become known: each as soon as its value is.
    pub reads: Vec<Read>,
    /// Constants.
    pub constants: Vec<Constant>,
    /// What every valid run makes true of the symbols; types rely on it, and it is checked as soon as they are known.
    pub guards: Vec<Guard>,
    /// Strings that have the numbers 0, 1, 2 …; see [`crate::Strings`].
    pub strings: Vec<Arc<str>>,
    /// All values.
    pub values: Vec<ValueInfo>,
}

/// The message for a size of a symbol that a model does not have.
pub fn unknown_symbol<'a>(wanted: &str, symbols: impl Iterator<Item = &'a str>) -> String {
    let names: Vec<String> = symbols.map(|s| format!("`{s}`")).collect();
    let names = match &names[..] {
        [] => "none".to_owned(),
        names => names.join(", "),
    };
    format!("there is no symbolic dimension `{wanted}`; it has {names}")
}

/// An error that names the model node it belongs to.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("{}{message}", if .node.is_empty() { String::new() } else { format!("node `{}`: ", .node) })]
pub struct NodeError {
    /// The model node's name, or empty.
    pub node: String,
    /// What was found and what was expected.
    pub message: String,
}

impl Graph {
    /// An empty graph.
    pub fn new(name: &str) -> Graph {
        Graph {
            name: name.to_string(),
            ..Graph::default()
        }
    }

    fn value(&mut self, ty: Type, def: Def) -> Value {
        self.values.push(ValueInfo { ty, def });
        Value(self.values.len() as u32 - 1)
    }

    /// Appends an input. Symbols of its shape are added to [`Graph::symbols`].
    pub fn input(&mut self, name: &str, ty: Type) -> Value {
        self.add_symbols(&ty);
        let v = self.value(ty, Def::Input(self.inputs.len() as u32));
        self.inputs.push(Input {
            name: name.to_string(),
            value: v,
        });
        v
    }

    fn add_symbols(&mut self, ty: &Type) {
        let symbols = &mut self.symbols;
        for d in &ty.shape {
            d.for_each_symbol(&mut |s| {
                if !symbols.contains(s) {
                    symbols.push(s.clone());
                }
            });
        }
    }

    /// Appends a constant.
    pub fn constant(&mut self, c: Constant) -> Value {
        let v = self.value(c.ty.clone(), Def::Const(self.constants.len() as u32));
        self.constants.push(c);
        v
    }

    /// Appends a constant with its elements in memory.
    pub fn dense(&mut self, t: Tensor) -> Value {
        self.constant(Constant {
            ty: Type::fixed(t.dtype(), t.shape()),
            data: ConstData::Dense(t),
        })
    }

    /// Appends a node, its output types inferred.
    ///
    /// # Errors
    /// When the operator does not accept the operands; the error names `origin`.
    pub fn add(&mut self, op: Op, inputs: &[Value], origin: &Arc<str>) -> Result<Vec<Value>, NodeError> {
        let types: Vec<Type> = inputs.iter().map(|&v| self.ty(v).clone()).collect();
        let fail = |message| NodeError {
            node: origin.to_string(),
            message,
        };
        let outs = op
            .infer(&types)
            .map_err(|e| fail(crate::dim::shorten(&format!("{}: {e}", op.name()))))?;
        let n = self.nodes.len() as u32;
        let outputs: Vec<Value> = outs
            .into_iter()
            .enumerate()
            .map(|(i, ty)| self.value(ty, Def::Node(n, i as u32)))
            .collect();
        self.nodes.push(Node {
            op,
            inputs: inputs.to_vec(),
            outputs: outputs.clone(),
            origin: origin.clone(),
        });
        Ok(outputs)
    }

    /// A value's type.
    pub fn ty(&self, v: Value) -> &Type {
        &self.values[v.0 as usize].ty
    }
    /// A value's definition.
    pub fn def(&self, v: Value) -> Def {
        self.values[v.0 as usize].def
    }
    /// The constant that a value is, if it is one.
    pub fn as_constant(&self, v: Value) -> Option<&Constant> {
        match self.def(v) {
            Def::Const(c) => Some(&self.constants[c as usize]),
            _ => None,
        }
    }

    /// The values that a run has to compute: those of sizes, in their order, and the outputs.
    pub fn roots(&self) -> impl Iterator<Item = Value> {
        let sizes = self.reads.iter().map(|r| r.value);
        sizes.chain(self.outputs.iter().map(|(_, v)| *v))
    }

    /// The model nodes that some nodes came from, by their positions: each name once, none where a node has none.
    pub fn origins(&self, nodes: impl IntoIterator<Item = u32>) -> Vec<&Arc<str>> {
        let mut names: Vec<&Arc<str>> = vec![];
        for n in nodes {
            let name = &self.nodes[n as usize].origin;
            if !name.is_empty() && !names.contains(&name) {
                names.push(name);
            }
        }
        names
    }

    /// How many sizes data tell, in its regions too.
    pub fn all_reads(&self) -> usize {
        let regions = self.nodes.iter().flat_map(|n| n.op.regions());
        self.reads.len() + regions.map(|r| r.graph().all_reads()).sum::<usize>()
    }

    /// Whether all nodes and constants are live and values are numbered in order of definition: inputs, constants, nodes.
    fn is_in_order(&self, live: &[bool]) -> bool {
        let inputs = self.inputs.iter().map(|i| i.value);
        let first = self.inputs.len() as u32;
        let constants = (first..first + self.constants.len() as u32).map(Value);
        let made = self.nodes.iter().flat_map(|n| n.outputs.iter().copied());
        let all = inputs.chain(constants.clone()).chain(made);
        let is_constant = |(v, c): (Value, u32)| {
            let info = self.values.get(v.0 as usize);
            live.get(v.0 as usize) == Some(&true) && info.is_some_and(|i| matches!(i.def, Def::Const(k) if k == c))
        };
        all.clone().count() == self.values.len()
            && all.zip(0..).all(|(v, n)| v.0 == n)
            && constants.zip(0..).all(is_constant)
            && self.nodes.iter().all(|n| n.outputs.iter().any(|o| live[o.0 as usize]))
    }

    /// Removes nodes and constants that no output needs, and renumbers values in order of definition. Sizes that data tell stay:
    /// what reads them may be an assumption of a node that is gone.
    pub fn prune(&mut self) {
        let mut live = vec![false; self.values.len()];
        self.roots().for_each(|v| live[v.0 as usize] = true);
        for node in self.nodes.iter().rev() {
            if node.outputs.iter().any(|o| live[o.0 as usize]) {
                node.inputs.iter().for_each(|v| live[v.0 as usize] = true);
            }
        }
        if self.is_in_order(&live) {
            return;
        }
        let old = std::mem::replace(self, Graph::new(&self.name.clone()));
        self.values.reserve(old.values.len());
        self.nodes.reserve(old.nodes.len());
        let mut map: Vec<Option<Value>> = vec![None; old.values.len()];
        for input in &old.inputs {
            map[input.value.0 as usize] = Some(self.input(&input.name, old.ty(input.value).clone()));
        }
        self.symbols = old.symbols;
        self.guards = old.guards;
        self.defaults = old.defaults;
        self.strings = old.strings;
        for (i, info) in old.values.iter().enumerate() {
            if let (true, Def::Const(c)) = (live[i], info.def) {
                map[i] = Some(self.constant(old.constants[c as usize].clone()));
            }
        }
        for mut node in old.nodes {
            if node.outputs.iter().any(|o| live[o.0 as usize]) {
                let n = self.nodes.len() as u32;
                for (k, o) in (0u32..).zip(&mut node.outputs) {
                    let v = self.value(old.values[o.0 as usize].ty.clone(), Def::Node(n, k));
                    map[o.0 as usize] = Some(v);
                    *o = v;
                }
                for v in &mut node.inputs {
                    *v = map[v.0 as usize].expect("operands come first");
                }
                self.nodes.push(node);
            }
        }
        let kept = |v: &Value| map[v.0 as usize].expect("roots are defined");
        self.outputs = old.outputs.iter().map(|(n, v)| (n.clone(), kept(v))).collect();
        self.reads = old.reads;
        self.reads.iter_mut().for_each(|r| r.value = kept(&r.value));
    }
}

/// Where a decomposition puts what it builds: a graph, or an e-graph.
pub trait Build {
    /// Adds an operation; gives its results.
    ///
    /// # Errors
    /// When the operator does not accept the operands.
    fn add(&mut self, op: Op, inputs: &[Value]) -> Result<Vec<Value>, String>;
    /// The type of a value.
    fn type_of(&self, v: Value) -> Type;
    /// A rank-0 constant.
    fn scalar(&mut self, dtype: DType, x: Number) -> Value;

    /// Adds an operation with one result.
    ///
    /// # Errors
    /// When the operator does not accept the operands, or has several results.
    fn op(&mut self, op: Op, inputs: &[Value]) -> Result<Value, String> {
        let name = op.name();
        match self.add(op, inputs)?[..] {
            [v] => Ok(v),
            ref vs => Err(format!("{name} has {} results, expected one", vs.len())),
        }
    }

    /// Adds an operation with one result, named by the registry, with attributes in the order that its definition lists.
    ///
    /// # Errors
    /// When there is no such operator, or it does not accept the attributes or operands.
    fn call(&mut self, name: &str, attrs: &[Attr], inputs: &[Value]) -> Result<Value, String> {
        self.op(Op::new(name, attrs)?, inputs)
    }

    /// A constant spread over a shape.
    ///
    /// # Errors
    /// Never for valid extents.
    fn splat(&mut self, dtype: DType, shape: &[Dim], x: f64) -> Result<Value, String> {
        let s = self.scalar(
            dtype,
            if dtype.is_real() {
                Number::Float(x)
            } else {
                Number::Int(x as i128)
            },
        );
        self.spread(s, shape)
    }

    /// `v` under another shape of as many elements; `v` itself when that is its own.
    ///
    /// # Errors
    /// When the number of elements differs.
    fn reshaped(&mut self, v: Value, shape: &[Dim]) -> Result<Value, String> {
        if self.type_of(v).shape == shape {
            return Ok(v);
        }
        self.call("reshape", &[Attr::Dims(shape.to_vec())], &[v])
    }

    /// `v` broadcast to a shape as numpy does it: missing leading dimensions are 1, extents of 1 stretch.
    ///
    /// # Errors
    /// When an extent is neither 1 nor the wanted one.
    fn spread(&mut self, v: Value, shape: &[Dim]) -> Result<Value, String> {
        let ty = self.type_of(v);
        if ty.shape == shape {
            return Ok(v);
        }
        let mut v = v;
        if ty.rank() < shape.len() {
            let mut wide = vec![Dim::ONE; shape.len() - ty.rank()];
            wide.extend(ty.shape);
            v = self.reshaped(v, &wide)?;
            if wide == shape {
                return Ok(v);
            }
        }
        self.call("broadcast", &[Attr::Dims(shape.to_vec())], &[v])
    }
}

/// Builds into a graph, giving every node one origin.
pub struct GraphBuilder<'a> {
    /// The graph.
    pub graph: &'a mut Graph,
    /// The origin of the nodes added.
    pub origin: Arc<str>,
}

impl Build for GraphBuilder<'_> {
    fn add(&mut self, op: Op, inputs: &[Value]) -> Result<Vec<Value>, String> {
        self.graph.add(op, inputs, &self.origin).map_err(|e| e.message)
    }
    fn type_of(&self, v: Value) -> Type {
        self.graph.ty(v).clone()
    }
    fn scalar(&mut self, dtype: DType, x: Number) -> Value {
        self.graph.dense(Tensor::scalar(dtype, x))
    }
}
