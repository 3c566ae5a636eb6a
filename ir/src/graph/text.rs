//! The text form of graphs. Whatever is printed, [`Graph::parse`] reads back as an equal graph: ids, orders, names, the bits
//! of numbers. Constants in files print as the file's name and an offset; the caller of the parser finds the files.
//!
//! ```text
//! graph @mlp(%0 input: f32[batch, 40]) symbols(batch) guards(batch == 8*n) {
//!   %1 = const f32[40, 64] file("mlp.onnx", 1234)
//!   %2 = const f32[2] [0.5, -1.0]
//!   %3 = const f32[64] dense "AAAAAA…"
//!   %4 = const f32[1, 64] splat 1.0
//!   %5 = contract{lhs_batch=[] rhs_batch=[] lhs_contract=[1] rhs_contract=[0] acc=f32 out=f32}(%0, %1) : f32[batch, 64] @"Gemm_0"
//!   return y = %5, same = %0
//! }
//! ```
//!
//! A size that data tell stands behind the value that it is: `read n = %7 <= 3*batch @"NonZero_2"`.
//!
//! Behind symbols and guards stand the values of inputs that a caller may leave out: `defaults(scale = f32[1] [0.5])`, and the strings
//! that have numbers: `strings("cat", "dog")`.
//!
//! Where a person writes it, symbols in the order of the inputs, result types and origins may be left out. A number that
//! is NaN with other bits than the usual ones is its bits, `0x7ff8000000000001`. Of an operator's attributes, a layout that is
//! row-major is not written: `store(%1)`, but `store{layout=(0, 2, 3, 1)}(%1)`.

use super::{ConstData, Constant, Def, Graph, Input, Node, Read, Source, Type, Value, ValueInfo, base64};
use crate::ops::{AttrKind, Region, lookup};
use crate::text::{self, Lexer, Result, Token};
use crate::{Attr, DType, Layout, Number, Op, Tensor, encode, guard};
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

/// Finds a constant's file by the name that was printed.
pub type Files<'a> = &'a dyn Fn(&str) -> Option<Arc<dyn Source>>;

/// Dense constants of up to this many elements are printed as numbers.
const LISTED: usize = 16;

impl fmt::Display for Graph {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "graph {}(", text::global(&self.name))?;
        for (i, input) in self.inputs.iter().enumerate() {
            let comma = if i > 0 { ", " } else { "" };
            write!(
                f,
                "{comma}{} {}: {}",
                input.value,
                text::name(&input.name),
                self.ty(input.value)
            )?;
        }
        f.write_str(")")?;
        if !self.symbols.is_empty() {
            write!(f, " symbols({})", joined(self.symbols.iter().map(|s| text::symbol(s))))?;
        }
        if !self.guards.is_empty() {
            write!(
                f,
                " guards({})",
                joined(self.guards.iter().map(|g| match &*g.reason {
                    "" => g.relation_text(),
                    why => format!("{} {why:?}", g.relation_text()),
                }))
            )?;
        }
        if !self.defaults.is_empty() {
            let one = |(n, c): &(String, Constant)| format!("{} = {} {c}", text::name(n), c.ty);
            write!(f, " defaults({})", joined(self.defaults.iter().map(one)))?;
        }
        if !self.strings.is_empty() {
            write!(f, " strings({})", joined(self.strings.iter().map(|s| format!("{s:?}"))))?;
        }
        f.write_str(" {\n")?;
        let mut constants: Vec<Option<Value>> = vec![None; self.constants.len()];
        for (i, v) in self.values.iter().enumerate() {
            if let Def::Const(c) = v.def {
                constants[c as usize] = Some(Value(i as u32));
            }
        }
        for (value, c) in constants.iter().zip(&self.constants) {
            if let Some(value) = value {
                writeln!(f, "  {value} = const {} {c}", c.ty)?;
            }
        }
        // Sizes stand as soon as they are known.
        let mut reads = self.reads.iter().peekable();
        let at = |r: &Read| match self.def(r.value) {
            Def::Node(n, _) => n as usize + 1,
            _ => 0,
        };
        for n in 0..=self.nodes.len() {
            while let Some(r) = reads.next_if(|r| at(r) <= n) {
                writeln!(f, "  {r}")?;
            }
            if let Some(node) = self.nodes.get(n) {
                writeln!(f, "  {}", self.node_text(node))?;
            }
        }
        let outputs = joined(self.outputs.iter().map(|(n, v)| format!("{} = {v}", text::name(n))));
        writeln!(f, "  return{}{outputs}\n}}", if outputs.is_empty() { "" } else { " " })
    }
}

impl fmt::Debug for Graph {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for Read {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "read {} = {}", text::symbol(&self.symbol), self.value)?;
        if let Some(bound) = &self.bound {
            write!(f, " <= {bound}")?;
        }
        match &*self.origin {
            "" => Ok(()),
            node => write!(f, " {}", text::global(node)),
        }
    }
}

impl fmt::Display for Constant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.data {
            ConstData::File { source, offset } => write!(f, "file({:?}, {offset})", source.name()),
            ConstData::Splat(Number::Float(x)) => write!(f, "splat {}", number(*x)),
            ConstData::Splat(Number::Int(x)) => write!(f, "splat {x}"),
            ConstData::Dense(t) => match listed(t) {
                Some(elements) => write!(f, "[{elements}]"),
                None => write!(f, "dense \"{}\"", base64::encode(t.bytes())),
            },
        }
    }
}

impl fmt::Display for Op {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())?;
        let all = self.def().attrs().iter().zip(self.attrs());
        let mut open = false;
        for (def, attr) in all.filter(|(_, a)| **a != Attr::Layout(Layout::ROW_MAJOR)) {
            write!(f, "{}{}={attr}", if open { " " } else { "{" }, def.0)?;
            open = true;
        }
        f.write_str(if open { "}" } else { "" })
    }
}

impl fmt::Display for Attr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Attr::Int(x) => write!(f, "{x}"),
            Attr::Bool(x) => write!(f, "{x}"),
            Attr::Ints(xs) => write!(f, "[{}]", joined(xs.iter().map(i64::to_string))),
            Attr::Dims(ds) => write!(f, "[{}]", joined(ds.iter().map(|d| d.to_string()))),
            Attr::Num(bits) => f.write_str(&number(f64::from_bits(*bits))),
            Attr::Whole(x) => write!(f, "{x}"),
            Attr::DType(d) => write!(f, "{d}"),
            Attr::Word(w) => f.write_str(&text::name(w)),
            Attr::Region(r) => r.fmt(f),
            Attr::Layout(x) => x.fmt(f),
        }
    }
}

impl Graph {
    fn node_text(&self, node: &Node) -> String {
        let ids = |vs: &[Value]| joined(vs.iter().map(Value::to_string));
        let types = joined(node.outputs.iter().map(|&v| self.ty(v).to_string()));
        let origin = if node.origin.is_empty() {
            String::new()
        } else {
            format!(" @{:?}", &*node.origin)
        };
        format!(
            "{} = {}({}) : {types}{origin}",
            ids(&node.outputs),
            node.op,
            ids(&node.inputs)
        )
    }

    /// Reads a graph's text, and verifies the graph.
    ///
    /// # Errors
    /// When the text is no graph, a file is not found or too short, or the graph is not valid; with line and column.
    pub fn parse(source: &str, files: Files) -> Result<Graph> {
        text::whole(source, |l| parse(l, files))
    }
}

fn joined(parts: impl Iterator<Item = String>) -> String {
    parts.collect::<Vec<_>>().join(", ")
}

/// A number, such that reading it back gives the same bits.
fn number(x: f64) -> String {
    let usual = !x.is_nan() || x.to_bits() == f64::NAN.to_bits();
    match x {
        _ if !usual => format!("{:#x}", x.to_bits()),
        x if x.is_nan() => "nan".to_string(),
        x => format!("{x:?}"),
    }
}

/// A number of any dtype: hexadecimal digits are the bits of an f64, other digits alone an integer (but for `-0`).
fn parse_number(l: &mut Lexer) -> Result<Number> {
    let place = l.place();
    let ahead = usize::from(l.peek() == Token::Punct("-"));
    match l.peek_at(ahead) {
        Token::Int(digits) if digits.starts_with("0x") => {
            let bits = u64::try_from(l.int128()?).map_err(|e| l.error_at(place, format!("`{digits}`: {e}")))?;
            Ok(Number::Float(f64::from_bits(bits)))
        }
        Token::Int(digits) if digits.bytes().any(|c| c != b'0') && digits.len() <= WHOLE_DIGITS => {
            Ok(Number::Int(l.int128()?))
        }
        _ => Ok(Number::Float(l.float()?)),
    }
}

/// No integer of a dtype has more digits.
const WHOLE_DIGITS: usize = 20;

/// The elements of a small tensor as text, unless that would lose bits.
fn listed(t: &Tensor) -> Option<String> {
    let is_byte = t.dtype() == DType::Bool || t.dtype().small().is_some();
    let is_code = |(x, b): (Number, &u8)| {
        let mut byte = [0];
        encode(t.dtype(), x, &mut byte);
        byte == [*b]
    };
    if t.len() > LISTED || is_byte && !t.iter().zip(t.bytes()).all(is_code) || t.iter().any(|x| x.f64().is_nan()) {
        return None;
    }
    Some(joined(t.iter().map(|x| match x {
        Number::Float(x) if t.dtype() == DType::F64 => format!("{x:?}"),
        // Narrower floats are exact in f32, whose shortest text reads well.
        Number::Float(x) => format!("{:?}", x as f32),
        Number::Int(x) if t.dtype() == DType::Bool => (x != 0).to_string(),
        Number::Int(x) => x.to_string(),
    })))
}

fn parse_element(l: &mut Lexer, dtype: DType) -> Result<Number> {
    match dtype {
        DType::Bool if l.eat("true") => Ok(Number::Int(1)),
        DType::Bool if l.eat("false") => Ok(Number::Int(0)),
        DType::Bool => Err(l.unexpected("`true` or `false`")),
        DType::F64 => Ok(Number::Float(l.float()?)),
        d if d.is_real() => Ok(Number::Float(l.float::<f32>()? as f64)),
        d => {
            let place = l.place();
            let x = Number::Int(l.int128()?);
            if x.to(d) == x {
                Ok(x)
            } else {
                Err(l.error_at(place, format!("{} does not fit in {d}", x.int())))
            }
        }
    }
}

/// The values defined so far.
#[derive(Default)]
struct Values(BTreeMap<u32, ValueInfo>);

impl Values {
    fn define(&mut self, l: &Lexer, place: usize, id: u32, ty: Type, def: Def) -> Result<Value> {
        match self.0.insert(id, ValueInfo { ty, def }) {
            None => Ok(Value(id)),
            Some(_) => Err(l.error_at(place, format!("%{id} has a definition before"))),
        }
    }

    fn parse_use(&self, l: &mut Lexer) -> Result<Value> {
        let place = l.place();
        let id = text::parse_id(l, '%')?;
        if self.0.contains_key(&id) {
            Ok(Value(id))
        } else {
            Err(l.error_at(place, format!("%{id} has no definition before")))
        }
    }
}

/// Reads a graph, leaving what follows it.
///
/// # Errors
/// As [`Graph::parse`].
pub fn parse(l: &mut Lexer, files: Files) -> Result<Graph> {
    let start = l.place();
    l.expect("graph")?;
    let mut graph = Graph::new(&text::parse_global(l)?);
    let mut values = Values::default();
    l.expect("(")?;
    let mut inputs = vec![];
    graph.inputs = l.list(")", |l| {
        let place = l.place();
        let id = text::parse_id(l, '%')?;
        let name = l.name()?;
        l.expect(":")?;
        let ty = text::parse_type(l)?;
        let value = values.define(l, place, id, ty.clone(), Def::Input(inputs.len() as u32))?;
        inputs.push(ty);
        Ok(Input { name, value })
    })?;
    if l.eat("symbols") {
        l.expect("(")?;
        graph.symbols = l.list(")", |l| Ok(l.name()?.into()))?;
    } else {
        inputs.iter().for_each(|ty| graph.add_symbols(ty));
    }
    if l.eat("guards") {
        l.expect("(")?;
        graph.guards = l.list(")", |l| {
            let mut g = guard::parse_relation(l)?;
            if matches!(l.peek(), Token::Str(_) | Token::Unterminated) {
                g.reason = l.string()?;
            }
            Ok(g)
        })?;
    }
    if l.eat("defaults") {
        l.expect("(")?;
        graph.defaults = l.list(")", |l| {
            let name = l.name()?;
            l.expect("=")?;
            Ok((name, parse_constant(l, files)?))
        })?;
    }
    if l.eat("strings") {
        l.expect("(")?;
        graph.strings = l.list(")", |l| Ok(l.string()?.into()))?;
    }
    l.expect("{")?;
    while !l.eat("return") {
        if l.eat("read") {
            let read = parse_read(l, &values)?;
            graph.reads.push(read);
            continue;
        }
        parse_definition(l, files, &mut graph, &mut values)?;
    }
    graph.outputs = l.list("}", |l| {
        let name = l.name()?;
        l.expect("=")?;
        Ok((name, values.parse_use(l)?))
    })?;
    for (i, (id, info)) in values.0.into_iter().enumerate() {
        if id as usize != i {
            return Err(l.error_at(
                start,
                format!("the graph has %{id} but no %{i}, expected ids without gaps"),
            ));
        }
        graph.values.push(info);
    }
    graph.verify().map_err(|e| l.error_at(start, e.to_string()))?;
    Ok(graph)
}

/// A size that data tell, behind the word `read`.
fn parse_read(l: &mut Lexer, values: &Values) -> Result<Read> {
    let symbol = l.name()?.into();
    l.expect("=")?;
    let value = values.parse_use(l)?;
    let bound = if l.eat("<=") { Some(text::parse_dim(l)?) } else { None };
    let origin = parse_origin(l)?.into();
    Ok(Read {
        symbol,
        value,
        bound,
        origin,
    })
}

/// The model node that a line came from, where it says so.
fn parse_origin(l: &mut Lexer) -> Result<String> {
    match l.peek() {
        Token::Ident(s) if s.starts_with('@') => text::parse_global(l),
        _ => Ok(String::new()),
    }
}

/// A constant or a node.
fn parse_definition(l: &mut Lexer, files: Files, graph: &mut Graph, values: &mut Values) -> Result<()> {
    let place = l.place();
    let mut ids = vec![text::parse_id(l, '%')?];
    while l.eat(",") {
        ids.push(text::parse_id(l, '%')?);
    }
    l.expect("=")?;
    if let [id] = ids[..]
        && l.eat("const")
    {
        let c = parse_constant(l, files)?;
        values.define(l, place, id, c.ty.clone(), Def::Const(graph.constants.len() as u32))?;
        graph.constants.push(c);
        return Ok(());
    }
    let op_place = l.place();
    let op = parse_op(l, files)?;
    l.expect("(")?;
    let operands = l.list(")", |l| values.parse_use(l))?;
    let types: Vec<Type> = operands.iter().map(|v| values.0[&v.0].ty.clone()).collect();
    let inferred = op
        .infer(&types)
        .map_err(|e| l.error_at(op_place, format!("{}: {e}", op.name())))?;
    if inferred.len() != ids.len() {
        let message = format!("{} has {} results, found {} ids", op.name(), inferred.len(), ids.len());
        return Err(l.error_at(place, message));
    }
    if l.eat(":") {
        for (i, want) in inferred.iter().enumerate() {
            if i > 0 {
                l.expect(",")?;
            }
            let place = l.place();
            let found = text::parse_type(l)?;
            if found != *want {
                return Err(l.error_at(place, format!("found {found}, {} infers {want}", op.name())));
            }
        }
    }
    let origin = parse_origin(l)?;
    let n = graph.nodes.len() as u32;
    let mut outputs = vec![];
    for ((k, id), ty) in (0..).zip(ids).zip(inferred) {
        outputs.push(values.define(l, place, id, ty, Def::Node(n, k))?);
    }
    graph.nodes.push(Node {
        op,
        inputs: operands,
        outputs,
        origin: origin.into(),
    });
    Ok(())
}

/// An operator with its attributes, as `Display` prints it.
///
/// # Errors
/// When there is no such operator, or an attribute is missing or of another kind.
pub fn parse_op(l: &mut Lexer, files: Files) -> Result<Op> {
    let place = l.place();
    let name = l.ident()?;
    let def = lookup(name).ok_or_else(|| l.error_at(place, format!("there is no operator `{name}`")))?;
    let mut attrs = vec![];
    let optional = |kind: &AttrKind| *kind == AttrKind::Layout;
    let open = if def.attrs().iter().all(|(_, kind)| optional(kind)) {
        l.eat("{")
    } else {
        l.expect("{")?;
        true
    };
    for (name, kind) in def.attrs() {
        if optional(kind) && !(open && l.is(name)) {
            attrs.push(Attr::Layout(Layout::ROW_MAJOR));
            continue;
        }
        l.expect(name)?;
        l.expect("=")?;
        attrs.push(parse_attr(l, *kind, files)?);
    }
    if open {
        l.expect("}")?;
    }
    Op::new(name, &attrs).map_err(|e| l.error_at(place, e))
}

fn parse_attr(l: &mut Lexer, kind: AttrKind, files: Files) -> Result<Attr> {
    Ok(match kind {
        AttrKind::Int => Attr::Int(l.int()?),
        AttrKind::Bool if l.eat("true") => Attr::Bool(true),
        AttrKind::Bool if l.eat("false") => Attr::Bool(false),
        AttrKind::Bool => return Err(l.unexpected("`true` or `false`")),
        AttrKind::Ints => {
            l.expect("[")?;
            Attr::Ints(l.list("]", Lexer::int)?)
        }
        AttrKind::Dims => {
            l.expect("[")?;
            Attr::Dims(l.list("]", text::parse_dim)?)
        }
        AttrKind::Num => Attr::number(parse_number(l)?),
        AttrKind::DType => Attr::DType(l.dtype()?),
        AttrKind::Word => Attr::Word(l.name()?),
        AttrKind::Layout => Attr::Layout(Layout::parse(l)?),
        AttrKind::Region => {
            let place = l.place();
            let graph = l.nested(|l| parse(l, files))?;
            Attr::Region(Region::new(graph).map_err(|e| l.error_at(place, e.to_string()))?)
        }
    })
}

/// What follows `const`: the type and the elements.
pub(crate) fn parse_constant(l: &mut Lexer, files: Files) -> Result<Constant> {
    let place = l.place();
    let ty = text::parse_type(l)?;
    let fail = |l: &Lexer, message: String| l.error_at(place, message);
    let shape = crate::dim::constants(&ty.shape)
        .ok_or_else(|| fail(l, format!("a constant of type {ty}, expected known extents")))?;
    let count = crate::tensor::element_count(&shape).filter(|n| n.checked_mul(ty.dtype.bytes()).is_some());
    let count = count.ok_or_else(|| fail(l, format!("a constant of type {ty}, which no memory holds")))?;
    let dense = |l: &Lexer, bytes: Vec<u8>| match Tensor::new(ty.dtype, shape.clone(), bytes) {
        Ok(t) => Ok(ConstData::Dense(t)),
        Err(e) => Err(fail(l, e)),
    };
    let data = if l.eat("file") {
        l.expect("(")?;
        let name_place = l.place();
        let name = l.string()?;
        l.expect(",")?;
        let offset = l.index()?;
        l.expect(")")?;
        let source =
            files(&name).ok_or_else(|| l.error_at(name_place, format!("there is no file {name:?} at hand")))?;
        ConstData::File { source, offset }
    } else if l.eat("splat") {
        let digits = l.peek_at(l.is("-") as usize);
        match digits {
            Token::Int(s) if !s.starts_with("0x") => ConstData::Splat(Number::Int(l.int128()?)),
            _ => ConstData::Splat(Number::Float(parse_number(l)?.f64())),
        }
    } else if l.eat("dense") {
        let text_place = l.place();
        let bytes = base64::decode(&l.string()?).ok_or_else(|| l.error_at(text_place, "text that is no base64"))?;
        dense(l, bytes)?
    } else if l.eat("[") {
        let elements = l.list("]", |l| parse_element(l, ty.dtype))?;
        if elements.len() != count {
            return Err(fail(
                l,
                format!("{} elements of {ty}, expected {count}", elements.len()),
            ));
        }
        ConstData::Dense(Tensor::from_fn(ty.dtype, &shape, |i| elements[i]))
    } else {
        return Err(l.unexpected("`file`, `splat`, `dense` or `[`"));
    };
    let c = Constant { ty, data };
    c.check().map_err(|e| l.error_at(place, e))?;
    Ok(c)
}
