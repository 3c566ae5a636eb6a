//! Operators of the tensor IR. **One operator, one file**, with everything there is to say of it; registering it is one
//! word in [`LIST`]. Element-wise operators are rows of [`crate::scalar::functions`] instead, and need no file.
//!
//! What holds for all: operands are broadcast beforehand (`broadcast`), shapes are static expressions (an attribute,
//! never an operand), axes are non-negative, reductions keep their dimensions with extent 1, and an evaluation is total
//! on operands whose types pass `infer`.

use crate::{DType, Dim, Graph, Layout, NodeError, Number, Symbol, Tensor, Type, Value, graph::Build};
use rustc_hash::FxHashMap;
use smallvec::SmallVec;
use std::fmt;
use std::sync::LazyLock;

mod accumulate;
mod along;
mod block_format;
mod combine;
mod compose;
mod draw;
mod image;
mod map;
mod normalize;
mod recurrent;
mod region;
mod role;
mod sample;
mod shape;
mod signs;
#[cfg(test)]
mod tests;
mod text;
mod window;

pub use along::{Along, InBlocks, Weighing};
pub use combine::Combine;
pub use draw::{Draw, Drawn};
pub use region::Region;
pub use role::*;
pub use sample::{Sample, SampleType};
pub use signs::{SignLaw, Signs};

/// What kind of value an attribute is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum AttrKind {
    /// An integer.
    Int,
    /// A boolean.
    Bool,
    /// A list of integers.
    Ints,
    /// A list of dims (shapes, symbolic paddings).
    Dims,
    /// A number of any dtype: fill values, epsilons.
    Num,
    /// An element type.
    DType,
    /// A keyword, one of a few that the operator documents.
    Word,
    /// A graph that the operator may run.
    Region,
    /// How a tensor lies in memory; row-major is not written.
    Layout,
}

/// An attribute's value.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Attr {
    /// An integer.
    Int(i64),
    /// A boolean.
    Bool(bool),
    /// A list of integers.
    Ints(Vec<i64>),
    /// A list of dims.
    Dims(Vec<Dim>),
    /// The bits of an f64 (so that attributes have equality and a hash). Whole numbers too, where an f64 is exact.
    Num(u64),
    /// A whole number that no f64 is: of the same kind as [`Attr::Num`], see [`Attr::number`].
    Whole(i128),
    /// An element type.
    DType(DType),
    /// A keyword.
    Word(String),
    /// A graph.
    Region(Region),
    /// A layout.
    Layout(Layout),
}

impl Attr {
    /// A number.
    pub fn num(x: f64) -> Attr {
        Attr::Num(x.to_bits())
    }
    /// A number of any dtype, without loss. Equal numbers are equal attributes.
    pub fn number(x: Number) -> Attr {
        match x {
            Number::Int(i) if x.f64() as i128 != i => Attr::Whole(i),
            _ => Attr::num(x.f64()),
        }
    }
    /// A keyword.
    pub fn word(s: &str) -> Attr {
        Attr::Word(s.to_string())
    }
    /// A list of integers.
    pub fn ints(x: &[i64]) -> Attr {
        Attr::Ints(x.to_vec())
    }
    /// A list of known dims.
    pub fn dims(x: &[i64]) -> Attr {
        Attr::Dims(x.iter().map(|&d| Dim::Const(d)).collect())
    }
    /// Integers from axes.
    pub fn axes(a: &[usize]) -> Attr {
        Attr::Ints(a.iter().map(|&x| x as i64).collect())
    }
    /// What kind it is.
    pub fn kind(&self) -> AttrKind {
        match self {
            Attr::Int(_) => AttrKind::Int,
            Attr::Bool(_) => AttrKind::Bool,
            Attr::Ints(_) => AttrKind::Ints,
            Attr::Dims(_) => AttrKind::Dims,
            Attr::Num(_) | Attr::Whole(_) => AttrKind::Num,
            Attr::DType(_) => AttrKind::DType,
            Attr::Word(_) => AttrKind::Word,
            Attr::Region(_) => AttrKind::Region,
            Attr::Layout(_) => AttrKind::Layout,
        }
    }
}

/// How exact an operator is, which says how two evaluations may differ.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Accuracy {
    /// Bit for bit.
    Exact,
    /// The order or the number of roundings is free (sums, contractions).
    Rounding,
}

/// Everything there is to say of an operator.
pub trait OpDef: Sync + Send {
    /// The name in text forms and rules.
    fn name(&self) -> &'static str;
    /// Names and kinds of the attributes, in order.
    fn attrs(&self) -> &'static [(&'static str, AttrKind)];
    /// The results' types.
    ///
    /// # Errors
    /// What was found and what was expected, when attributes or operands do not fit.
    fn infer(&self, op: &Op, inputs: &[Type]) -> Result<Vec<Type>, String>;
    /// Extents, of which the first has to be at most the second in every run: what [`OpDef::infer`] cannot know of symbols. Whoever makes
    /// a graph guards it.
    fn at_most(&self, op: &Op, input: &dyn Fn(usize) -> Type) -> Vec<(Dim, Dim)> {
        let _ = (op, input);
        vec![]
    }
    /// The reference evaluation: naive, obvious, on known attributes; never through the decomposition.
    ///
    /// # Errors
    /// When the values (not the types) of operands are bad.
    fn eval(&self, op: &Op, inputs: &[Tensor]) -> Result<Vec<Tensor>, String>;
    /// Whether this build can evaluate it.
    ///
    /// # Errors
    /// Why not, and the way out.
    fn available(&self) -> Result<(), String> {
        Ok(())
    }
    /// The same as other operators, for a composite operator.
    ///
    /// # Errors
    /// Never when `infer` accepts the operands.
    fn decompose(&self, op: &Op, b: &mut dyn Build, inputs: &[Value]) -> Result<Option<Vec<Value>>, String> {
        let _ = (op, b, inputs);
        Ok(None)
    }
    /// What it is to a kernel.
    fn role(&self) -> Role;
    /// True when it is no part of a kernel: a step of its own, over tensors in memory.
    fn is_step(&self) -> bool {
        self.role().is_step()
    }
    /// True when it takes any number of operands.
    fn is_variadic(&self) -> bool {
        false
    }
    /// The number of operands of an operator that is not variadic, and of results: those of its samples.
    fn arity(&self) -> (usize, usize) {
        let samples = self.samples();
        let results = samples.iter().find_map(|s| {
            let types: Vec<Type> = s.inputs.iter().map(|(d, shape)| Type::fixed(*d, shape)).collect();
            Some(Op::new(self.name(), &s.attrs).ok()?.infer(&types).ok()?.len())
        });
        (samples.first().map_or(0, |s| s.inputs.len()), results.unwrap_or(1))
    }
    /// True when the result is the first operand.
    fn is_identity(&self, op: &Op, inputs: &[Type]) -> bool {
        let _ = (op, inputs);
        false
    }
    /// True when a transpose of its result costs no more than it alone: it can read its operand in that order as well.
    fn takes_transpose(&self) -> bool {
        false
    }
    /// What stands along an axis of the result `to` of an operand `from`.
    fn along(&self, _op: &Op, _from: &Type, _to: &Type, _axis: usize) -> Along {
        Along::Mixed
    }
    /// The axes of a plain product of activations and weights, of these ranks.
    fn weighing(&self, _op: &Op, _ranks: [usize; 2]) -> Option<Weighing> {
        None
    }
    /// What it is to products of integers in blocks, if anything.
    fn in_blocks(&self, _op: &Op) -> Option<InBlocks> {
        None
    }
    /// True for a product of elements: zero where one of them is, and the others are finite.
    fn multiplies(&self) -> bool {
        false
    }
    /// The operand that holds a model's weights, for an operator that has such a one.
    fn weights(&self) -> Option<usize> {
        None
    }
    /// The set of operators that rules range over by this name, and that it belongs to.
    fn family(&self) -> Option<&'static str> {
        None
    }
    /// True when no element of the result can be -0, given what is known of the operands' elements.
    fn never_minus_zero(&self, op: &Op, of: &mut dyn Signs) -> bool {
        if self.role().keeps_signs() {
            of.never_minus_zero(0)
        } else {
            self.is_nonnegative(op, of)
        }
    }
    /// True when every element of the result is +0, above 0 or NaN, given what is known of the operands' elements.
    fn is_nonnegative(&self, op: &Op, of: &mut dyn Signs) -> bool {
        let _ = op;
        self.role().keeps_signs() && of.is_nonnegative(0)
    }
    /// True when [`OpDef::draw`] makes an instance of whatever type is wanted.
    fn follows(&self) -> bool {
        false
    }
    /// A random instance, whose attributes and operands are drawn so that they fit; of the wanted type where that is in its
    /// hands. By default one in the form of a sample.
    fn draw(&self, d: &mut dyn Draw, want: Option<&Type>) -> Option<Drawn> {
        let _ = want;
        if self.is_step() {
            return None;
        }
        let sample = draw::pick(d, &self.samples());
        if d.arity() != sample.inputs.len() {
            return None;
        }
        let attrs = draw::attrs(d, sample.attrs)?;
        let least = sample.inputs.first().and_then(|(_, shape)| shape.iter().min().copied());
        let mut inputs = vec![];
        for (i, (dtype, shape)) in sample.inputs.iter().enumerate() {
            if dtype.is_int() && i > 0 {
                d.indexes(i, least.unwrap_or(1));
            }
            inputs.push(d.operand(i, Some(&Type::fixed(*dtype, shape)))?);
        }
        Some(Drawn { attrs, inputs })
    }
    /// How exact it is.
    fn accuracy(&self) -> Accuracy;
    /// A few instances that exercise it.
    fn samples(&self) -> Vec<Sample>;
}

/// An operator with its attributes.
#[derive(Clone)]
pub struct Op {
    def: &'static dyn OpDef,
    attrs: SmallVec<[Attr; 2]>,
}

macro_rules! operators {
    ($($name:ident)*) => {
        $(mod $name;)*
        /// The operators that have a file.
        static LIST: &[&dyn OpDef] = &[$(&$name::Def),*];
    };
}

operators! {
    arg_reduce
    attention
    batch_norm
    block_product
    broadcast
    compress_blocks
    concat
    contract
    conv
    conv_transpose
    decode_blocks
    dims
    dynamic_quantize
    gather
    gather_elements
    gather_nd
    group_norm
    gru
    r#if
    image_decode
    image_size
    iota
    layer_norm
    log_softmax
    lrn
    lstm
    packed_product
    pad
    pool
    quantize_blocks
    recurrence
    reduce
    reshape
    rms_norm
    rnn
    rotary
    scan
    scatter_elements
    scatter_nd
    slice
    softmax
    store
    string_case
    string_concat
    string_format
    string_match
    string_part_counts
    string_parse
    string_parts
    top_k
    transpose
    tree_leaves
    unpack_blocks
    r#while
    winograd
    winograd_weights
}

pub use block_format::BlockFormat;
pub use compress_blocks::{compress_block, restore_block};

/// Every operator, the element-wise ones included, sorted by name.
pub fn all() -> &'static [&'static dyn OpDef] {
    static ALL: LazyLock<Vec<&'static dyn OpDef>> = LazyLock::new(|| {
        let mut all: Vec<&'static dyn OpDef> = LIST.to_vec();
        all.extend(map::all());
        all.sort_by_key(|d| d.name());
        all
    });
    &ALL
}

/// The place of the operator of a name among [`all`].
pub fn position(name: &str) -> Option<usize> {
    static PLACES: LazyLock<FxHashMap<&'static str, usize>> =
        LazyLock::new(|| all().iter().map(|d| d.name()).zip(0..).collect());
    PLACES.get(name).copied()
}

/// The operator of a name.
pub fn lookup(name: &str) -> Option<&'static dyn OpDef> {
    position(name).map(|i| all()[i])
}

impl Op {
    /// An operator by name, with attributes in the order that its definition lists.
    ///
    /// # Errors
    /// When there is no such operator, or the attributes' number or kinds are not its definition's.
    pub fn new(name: &str, attrs: &[Attr]) -> Result<Op, String> {
        let def = lookup(name).ok_or_else(|| format!("there is no operator `{name}`"))?;
        Op::of(def, attrs.into())
    }
    /// An operator by its definition, with attributes in the order that it lists.
    ///
    /// # Errors
    /// When the attributes' number or kinds are not its definition's.
    pub fn of(def: &'static dyn OpDef, attrs: SmallVec<[Attr; 2]>) -> Result<Op, String> {
        let want = def.attrs();
        if attrs.len() != want.len() || attrs.iter().zip(want).any(|(a, w)| a.kind() != w.1) {
            let name = def.name();
            return Err(format!("operator `{name}` has attributes {attrs:?}, expected {want:?}"));
        }
        Ok(Op { def, attrs })
    }
    /// Its definition.
    pub fn def(&self) -> &'static dyn OpDef {
        self.def
    }
    /// Its name.
    pub fn name(&self) -> &'static str {
        self.def.name()
    }
    /// Its attributes, in the definition's order.
    pub fn attrs(&self) -> &[Attr] {
        &self.attrs
    }
    /// An attribute by name; panics when the definition lists no such attribute.
    pub fn attr(&self, name: &str) -> &Attr {
        let i = self.def.attrs().iter().position(|a| a.0 == name);
        &self.attrs[i.unwrap_or_else(|| panic!("operator `{}` has no attribute `{name}`", self.name()))]
    }
    /// An integer attribute.
    pub fn int(&self, name: &str) -> i64 {
        match self.attr(name) {
            Attr::Int(x) => *x,
            a => unreachable!("{name} is {a:?}"),
        }
    }
    /// An integer attribute that is an axis.
    pub fn axis(&self, name: &str) -> usize {
        self.int(name) as usize
    }
    /// A boolean attribute.
    pub fn flag(&self, name: &str) -> bool {
        matches!(self.attr(name), Attr::Bool(true))
    }
    /// A list of integers.
    pub fn ints(&self, name: &str) -> &[i64] {
        match self.attr(name) {
            Attr::Ints(x) => x,
            a => unreachable!("{name} is {a:?}"),
        }
    }
    /// A list of integers that are axes.
    pub fn axes(&self, name: &str) -> Vec<usize> {
        self.ints(name).iter().map(|&x| x as usize).collect()
    }
    /// A list of dims.
    pub fn dims(&self, name: &str) -> &[Dim] {
        match self.attr(name) {
            Attr::Dims(x) => x,
            a => unreachable!("{name} is {a:?}"),
        }
    }
    /// A list of dims of a concrete operator, as integers.
    pub fn sizes(&self, name: &str) -> Vec<i64> {
        self.dims(name)
            .iter()
            .map(|d| d.as_const().expect("a concrete operator has known dims"))
            .collect()
    }
    /// A number, as an f64.
    pub fn num(&self, name: &str) -> f64 {
        self.number(name).f64()
    }
    /// A number, without loss.
    pub fn number(&self, name: &str) -> Number {
        match self.attr(name) {
            Attr::Num(x) => Number::Float(f64::from_bits(*x)),
            Attr::Whole(x) => Number::Int(*x),
            a => unreachable!("{name} is {a:?}"),
        }
    }
    /// An element type.
    pub fn dtype(&self, name: &str) -> DType {
        match self.attr(name) {
            Attr::DType(x) => *x,
            a => unreachable!("{name} is {a:?}"),
        }
    }
    /// A keyword that is a combination.
    pub fn combine(&self, name: &str) -> Combine {
        Combine::of(self.word(name), &Combine::ALL).expect("`infer` has checked the keyword")
    }
    /// True when no attribute holds a dim that is not known.
    pub fn is_concrete(&self) -> bool {
        self.first_symbolic().is_none()
    }
    fn first_symbolic(&self) -> Option<&Attr> {
        let symbolic = |a: &&Attr| match a {
            Attr::Dims(ds) => ds.iter().any(|d| d.as_const().is_none()),
            Attr::Region(r) => !r.is_concrete(),
            _ => false,
        };
        self.attrs.iter().find(symbolic)
    }
    /// Calls `f` with every symbol of its attributes but those of regions.
    pub fn for_each_symbol(&self, f: &mut dyn FnMut(&Symbol)) {
        for a in &self.attrs {
            if let Attr::Dims(ds) = a {
                ds.iter().for_each(|d| d.for_each_symbol(f));
            }
        }
    }
    /// What it is to a kernel.
    pub fn role(&self) -> Role {
        self.def.role()
    }
    /// What stands along an axis of the result `to` of an operand `from`.
    pub fn along(&self, from: &Type, to: &Type, axis: usize) -> Along {
        self.def().along(self, from, to, axis)
    }
    /// The operator for a result of these extents, where its attributes name them.
    ///
    /// # Errors
    /// When it does not take them.
    pub fn with_shape(&self, shape: &[Dim]) -> Result<Op, String> {
        let names = self.def().attrs().iter();
        let attrs = names.zip(self.attrs()).map(|((name, _), attr)| match *name {
            "shape" => Attr::Dims(shape.to_vec()),
            _ => attr.clone(),
        });
        Op::of(self.def(), attrs.collect())
    }
    /// True when the result is the first operand.
    pub fn is_identity(&self, inputs: &[Type]) -> bool {
        self.def.is_identity(self, inputs)
    }
    /// A keyword.
    pub fn word(&self, name: &str) -> &str {
        match self.attr(name) {
            Attr::Word(x) => x,
            a => unreachable!("{name} is {a:?}"),
        }
    }
    /// Extents that have to be at most others: see [`OpDef::at_most`].
    pub fn at_most(&self, input: &dyn Fn(usize) -> Type) -> Vec<(Dim, Dim)> {
        self.def.at_most(self, input)
    }
    /// The results' types.
    ///
    /// # Errors
    /// See [`OpDef::infer`]; when it would compute with small types; when a result is too large for any value of the symbols.
    pub fn infer(&self, inputs: &[Type]) -> Result<Vec<Type>, String> {
        let results = self.def.infer(self, inputs)?;
        let small = inputs.iter().chain(&results).find(|t| t.dtype.small().is_some());
        if let Some(t) = small.filter(|_| !self.role().stores_only()) {
            return Err(format!(
                "{} is only stored and converted, expected a type to compute with",
                t.dtype
            ));
        }
        let strings = inputs.iter().chain(&results).any(|t| t.dtype == DType::Str);
        if strings && !self.role().takes_strings() {
            return Err("strings, expected numbers".to_owned());
        }
        results.iter().try_for_each(Type::check_size)?;
        Ok(results)
    }
    /// The reference evaluation of a concrete operator.
    ///
    /// # Errors
    /// When `infer` rejects the operands' types, or see [`OpDef::eval`].
    pub fn eval(&self, inputs: &[Tensor]) -> Result<Vec<Tensor>, String> {
        let open = self.first_symbolic().filter(|a| !matches!(a, Attr::Region(_)));
        if let Some(a) = open {
            return Err(format!(
                "attribute {a:?} has unknown dims, expected known ones in an evaluation"
            ));
        }
        let types: Vec<Type> = inputs.iter().map(|t| Type::fixed(t.dtype(), t.shape())).collect();
        let results = self.infer(&types)?;
        match types.iter().chain(&results).find(|t| !is_small(t)) {
            Some(t) => Err(format!(
                "{t} is too large to evaluate, expected at most {MAX_BYTES} bytes"
            )),
            None => self.def.eval(self, inputs),
        }
    }
    /// The operator with every dim known.
    ///
    /// # Errors
    /// When a dim has an unknown symbol or does not evaluate.
    pub fn concrete(&self, lookup: &dyn Fn(&str) -> Option<i64>) -> Result<Op, String> {
        let mut op = self.clone();
        for a in &mut op.attrs {
            match a {
                Attr::Dims(ds) => {
                    for d in ds {
                        let v = d.value(lookup).map_err(|e| e.to_string())?;
                        *d = Dim::Const(v);
                    }
                }
                Attr::Region(r) => *r = r.instantiate(lookup),
                _ => {}
            }
        }
        Ok(op)
    }
    /// The operator with symbols replaced.
    ///
    /// # Errors
    /// When a region contradicts what they become.
    pub fn substitute(&self, value: &dyn Fn(&str) -> Option<Dim>) -> Result<Op, String> {
        let mut op = self.clone();
        for a in &mut op.attrs {
            match a {
                Attr::Dims(ds) => ds.iter_mut().for_each(|d| *d = d.substitute(value)),
                Attr::Region(r) => *r = r.substitute(value)?,
                _ => {}
            }
        }
        Ok(op)
    }
    /// The operator where symbols have these values, if they have any; whether it accepts them is found where it runs.
    pub(crate) fn instantiate(&self, lookup: &dyn Fn(&str) -> Option<i64>) -> Op {
        let value = |s: &str| lookup(s).map(Dim::Const);
        let mut op = self.clone();
        for a in &mut op.attrs {
            match a {
                Attr::Dims(ds) => ds.iter_mut().for_each(|d| *d = d.substitute(&value)),
                Attr::Region(r) => *r = r.instantiate(lookup),
                _ => {}
            }
        }
        op
    }
    /// The operator with regions rewritten.
    ///
    /// # Errors
    /// The first of `f`'s.
    pub fn map_regions(&self, f: &mut dyn FnMut(&Graph) -> Result<Graph, NodeError>) -> Result<Op, String> {
        let mut op = self.clone();
        for a in &mut op.attrs {
            if let Attr::Region(r) = a {
                *r = r.map(&mut *f)?;
            }
        }
        Ok(op)
    }
    /// The regions.
    pub fn regions(&self) -> impl Iterator<Item = &Region> {
        self.attrs.iter().filter_map(|a| match a {
            Attr::Region(r) => Some(r),
            _ => None,
        })
    }
    /// A layout.
    pub fn layout(&self, name: &str) -> &Layout {
        match self.attr(name) {
            Attr::Layout(x) => x,
            a => unreachable!("{name} is {a:?}"),
        }
    }
    /// A region.
    pub fn region(&self, name: &str) -> &Region {
        match self.attr(name) {
            Attr::Region(r) => r,
            a => unreachable!("{name} is {a:?}"),
        }
    }
}

impl PartialEq for Op {
    fn eq(&self, o: &Op) -> bool {
        self.name() == o.name() && self.attrs == o.attrs
    }
}
impl Eq for Op {}
impl std::hash::Hash for Op {
    fn hash<H: std::hash::Hasher>(&self, h: &mut H) {
        self.name().hash(h);
        self.attrs.hash(h);
    }
}
impl fmt::Debug for Op {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{:?}", self.name(), self.attrs)
    }
}

/// The largest operand or result of a reference evaluation: beyond any model's, and well below what overflows.
const MAX_BYTES: usize = 1 << 38;

/// True when no product of a tensor's extents is beyond [`MAX_BYTES`], even with empty dimensions left out.
fn is_small(ty: &Type) -> bool {
    let extents = crate::dim::constants(&ty.shape).unwrap_or_else(|| vec![usize::MAX]);
    let bytes = extents
        .iter()
        .try_fold(ty.dtype.bytes(), |n, &d| n.checked_mul(d.max(1)));
    bytes.is_some_and(|n| n <= MAX_BYTES)
}

/// Checks the number of operands.
///
/// # Errors
/// When it differs.
pub fn arity(inputs: &[Type], n: usize) -> Result<(), String> {
    if inputs.len() == n {
        Ok(())
    } else {
        Err(format!("{} operands, expected {n}", inputs.len()))
    }
}

/// Checks that an axis is below a rank.
///
/// # Errors
/// When it is not.
pub fn check_axis(axis: i64, rank: usize) -> Result<usize, String> {
    if axis >= 0 && (axis as usize) < rank {
        Ok(axis as usize)
    } else {
        Err(format!("axis {axis} for rank {rank}"))
    }
}
