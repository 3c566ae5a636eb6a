//! What an operator's importer sees of its node: resolved operands, the operator-set version, and attributes with
//! their types checked.

use super::error::Fail;
use super::import::Assumed;
use brolga_ir::Value;
use onnx_protobuf::{AttributeProto, GraphProto, NodeProto, TensorProto, attribute_proto::AttributeType};
use std::sync::Arc;

/// A node during import.
pub struct NodeCtx<'m> {
    /// The node.
    pub proto: &'m NodeProto,
    /// Its name, or a made one.
    pub name: Arc<str>,
    /// The version of the operator set that defines it.
    pub version: i64,
    /// Its operands; `None` for an omitted one. Trailing omitted operands are cut.
    pub inputs: Vec<Option<Value>>,
    /// Attributes by name, references to a function's attributes resolved.
    pub attrs: Vec<(&'m str, &'m AttributeProto)>,
    /// What is assumed of ranks.
    pub assumed: &'m Assumed,
}

impl<'m> NodeCtx<'m> {
    /// The node with other operands.
    pub fn with(&self, inputs: Vec<Option<Value>>) -> NodeCtx<'m> {
        NodeCtx {
            proto: self.proto,
            name: self.name.clone(),
            version: self.version,
            inputs,
            attrs: self.attrs.clone(),
            assumed: self.assumed,
        }
    }

    /// The operator's name.
    pub fn op(&self) -> &'m str {
        &self.proto.op_type
    }

    /// A required operand.
    ///
    /// # Errors
    /// When it is missing.
    pub fn input(&self, i: usize) -> Result<Value, Fail> {
        self.optional(i)
            .ok_or_else(|| Fail::Bad(format!("operand {i} is missing ({} are given)", self.inputs.len())))
    }

    /// An optional operand.
    pub fn optional(&self, i: usize) -> Option<Value> {
        self.inputs.get(i).copied().flatten()
    }

    /// All operands of a variadic operator.
    ///
    /// # Errors
    /// When there are none or one is omitted.
    pub fn variadic(&self) -> Result<Vec<Value>, Fail> {
        if self.inputs.is_empty() {
            return Err("no operands, expected at least one".into());
        }
        (0..self.inputs.len()).map(|i| self.input(i)).collect()
    }

    /// Checks the number of operands.
    ///
    /// # Errors
    /// When there are fewer than `min` or more than `max`.
    pub fn arity(&self, min: usize, max: usize) -> Result<(), Fail> {
        let n = self.inputs.len();
        if n < min || n > max {
            let want = if min == max {
                min.to_string()
            } else {
                format!("{min} to {max}")
            };
            return Err(Fail::Bad(format!("{n} operands, expected {want}")));
        }
        Ok(())
    }

    /// True when the node's result of this position is named, so that something may use it.
    pub fn wants(&self, output: usize) -> bool {
        self.proto.output.get(output).is_some_and(|o| !o.is_empty())
    }

    fn attr(&self, name: &str, kind: AttributeType) -> Result<Option<&'m AttributeProto>, Fail> {
        let Some((_, a)) = self.attrs.iter().find(|a| a.0 == name) else {
            return Ok(None);
        };
        match a.type_.enum_value() {
            Ok(k) if k == kind || k == AttributeType::UNDEFINED => Ok(Some(a)),
            Ok(k) => Err(Fail::Bad(format!("attribute `{name}` is {k:?}, expected {kind:?}"))),
            Err(k) => Err(Fail::Bad(format!(
                "attribute `{name}` is of kind {k}, expected {kind:?}"
            ))),
        }
    }

    /// An integer attribute, when given.
    ///
    /// # Errors
    /// When it is of another type.
    pub fn opt_int(&self, name: &str) -> Result<Option<i64>, Fail> {
        Ok(self.attr(name, AttributeType::INT)?.map(|a| a.i))
    }

    /// An integer attribute with its default.
    ///
    /// # Errors
    /// When it is of another type.
    pub fn int(&self, name: &str, default: i64) -> Result<i64, Fail> {
        Ok(self.opt_int(name)?.unwrap_or(default))
    }

    /// An integer attribute that is a flag.
    ///
    /// # Errors
    /// When it is of another type.
    pub fn flag(&self, name: &str, default: bool) -> Result<bool, Fail> {
        Ok(self.int(name, default as i64)? != 0)
    }

    /// A float attribute, when given.
    ///
    /// # Errors
    /// When it is of another type.
    pub fn opt_float(&self, name: &str) -> Result<Option<f64>, Fail> {
        Ok(self.attr(name, AttributeType::FLOAT)?.map(|a| a.f as f64))
    }

    /// A float attribute with its default.
    ///
    /// # Errors
    /// When it is of another type.
    pub fn float(&self, name: &str, default: f32) -> Result<f64, Fail> {
        Ok(self.opt_float(name)?.unwrap_or(default as f64))
    }

    /// An attribute of integers, when given.
    ///
    /// # Errors
    /// When it is of another type.
    pub fn ints(&self, name: &str) -> Result<Option<&'m [i64]>, Fail> {
        Ok(self.attr(name, AttributeType::INTS)?.map(|a| &a.ints[..]))
    }

    /// An attribute of floats, when given.
    ///
    /// # Errors
    /// When it is of another type.
    pub fn floats(&self, name: &str) -> Result<Option<&'m [f32]>, Fail> {
        Ok(self.attr(name, AttributeType::FLOATS)?.map(|a| &a.floats[..]))
    }

    /// A string attribute with its default.
    ///
    /// # Errors
    /// When it is of another type or no UTF-8.
    pub fn string(&self, name: &str, default: &'m str) -> Result<&'m str, Fail> {
        match self.attr(name, AttributeType::STRING)? {
            None => Ok(default),
            Some(a) => std::str::from_utf8(&a.s).map_err(|_| Fail::Bad(format!("attribute `{name}` is not UTF-8"))),
        }
    }

    /// An attribute of strings, when given.
    ///
    /// # Errors
    /// When it is of another type or one is no UTF-8.
    pub fn strings(&self, name: &str) -> Result<Option<Vec<&'m str>>, Fail> {
        let Some(a) = self.attr(name, AttributeType::STRINGS)? else {
            return Ok(None);
        };
        let utf8 = |s: &'m Vec<u8>| std::str::from_utf8(s);
        let all: Result<Vec<&str>, _> = a.strings.iter().map(utf8).collect();
        all.map(Some)
            .map_err(|_| Fail::Bad(format!("attribute `{name}` is not UTF-8")))
    }

    /// A tensor attribute, when given.
    ///
    /// # Errors
    /// When it is of another type or empty.
    pub fn tensor(&self, name: &str) -> Result<Option<&'m TensorProto>, Fail> {
        match self.attr(name, AttributeType::TENSOR)? {
            None => Ok(None),
            Some(a) => match a.t.as_ref() {
                Some(t) => Ok(Some(t)),
                None => Err(Fail::Bad(format!("attribute `{name}` has no tensor"))),
            },
        }
    }

    /// A required graph attribute.
    ///
    /// # Errors
    /// When it is missing or of another type.
    pub fn graph(&self, name: &str) -> Result<&'m GraphProto, Fail> {
        self.attr(name, AttributeType::GRAPH)?
            .and_then(|a| a.g.as_ref())
            .ok_or_else(|| Fail::Bad(format!("attribute `{name}` (a graph) is missing")))
    }
}

/// A node's axis, which may count from the end, as a position.
///
/// # Errors
/// When it is out of range.
pub fn axis(a: i64, rank: usize) -> Result<usize, Fail> {
    let p = if a < 0 { a.checked_add(rank as i64) } else { Some(a) };
    match p {
        Some(p) if p >= 0 && (p as usize) < rank => Ok(p as usize),
        _ => Err(Fail::Bad(format!("axis {a} for a tensor of rank {rank}"))),
    }
}

/// Distinct axes, sorted.
///
/// # Errors
/// When one is out of range or repeated.
pub fn axes(list: &[i64], rank: usize) -> Result<Vec<usize>, Fail> {
    let mut out = list.iter().map(|&a| axis(a, rank)).collect::<Result<Vec<_>, _>>()?;
    out.sort_unstable();
    match out.windows(2).find(|w| w[0] == w[1]) {
        Some(w) => Err(Fail::Bad(format!("axis {} is given twice in {list:?}", w[0]))),
        None => Ok(out),
    }
}
