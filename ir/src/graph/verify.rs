//! The verifier of graphs: the invariants that [`crate::graph`] states.

use super::{ConstData, Constant, Def, Graph, NodeError, Read};
use crate::{Symbol, Type};

impl Constant {
    /// Checks that the elements are what the type says, and within their file.
    pub(super) fn check(&self) -> Result<(), String> {
        let shape = crate::dim::constants(&self.ty.shape);
        let size = shape.as_deref().and_then(crate::tensor::element_count);
        let size = size.and_then(|n| n.checked_mul(self.ty.dtype.bytes()));
        let (Some(shape), Some(size)) = (shape, size) else {
            return Err(format!("a constant of type {}, expected known extents", self.ty));
        };
        match &self.data {
            ConstData::Dense(t) if t.dtype() != self.ty.dtype || t.shape() != shape => Err(format!(
                "a constant of type {} with elements of {}{:?}",
                self.ty,
                t.dtype(),
                t.shape()
            )),
            ConstData::File { source, offset }
                if offset.checked_add(size).is_none_or(|end| end > source.bytes().len()) =>
            {
                Err(format!(
                    "a constant of {size} bytes at offset {offset} of {}, which has {}",
                    source.name(),
                    source.bytes().len()
                ))
            }
            _ => Ok(()),
        }
    }
}

impl Graph {
    /// Checks the invariants that the module states.
    ///
    /// # Errors
    /// The first violation, with the node it belongs to.
    pub fn verify(&self) -> Result<(), NodeError> {
        let mut defined = vec![false; self.values.len()];
        let fail = |node: &str, message: String| {
            Err(NodeError {
                node: node.to_string(),
                message,
            })
        };
        for (i, input) in self.inputs.iter().enumerate() {
            if self.values.get(input.value.0 as usize).map(|v| v.def) != Some(Def::Input(i as u32)) {
                return fail(
                    "",
                    format!("input `{}` is not defined by its value {}", input.name, input.value),
                );
            }
        }
        for (k, (name, c)) in self.defaults.iter().enumerate() {
            let bad = |what: String| fail("", format!("the default of input `{name}`: {what}"));
            let Some(input) = self.inputs.iter().find(|i| i.name == *name) else {
                return bad("there is no such input".into());
            };
            if self.defaults[..k].iter().any(|(n, _)| n == name) {
                return bad("a second one".into());
            }
            if *self.ty(input.value) != c.ty {
                return bad(format!("it is {}, expected {}", c.ty, self.ty(input.value)));
            }
            if let Err(what) = c.check() {
                return bad(what);
            }
        }
        let mut constants = vec![false; self.constants.len()];
        for (i, v) in self.values.iter().enumerate() {
            let exists = match v.def {
                Def::Node(..) => continue,
                Def::Input(k) => self
                    .inputs
                    .get(k as usize)
                    .is_some_and(|input| input.value.0 as usize == i),
                Def::Const(k) => {
                    self.constants.get(k as usize).is_some_and(|c| c.ty == v.ty)
                        && !std::mem::replace(&mut constants[k as usize], true)
                }
            };
            if !exists {
                return fail(
                    "",
                    format!("value %{i} has the definition {:?}, which does not exist", v.def),
                );
            }
            defined[i] = true;
        }
        for (k, c) in self.constants.iter().enumerate() {
            if !constants[k] {
                return fail("", format!("constant {k} of type {} has no value", c.ty));
            }
            if let Err(e) = c.check() {
                return fail("", e);
            }
        }
        let mut unknown = None;
        for input in &self.inputs {
            if let Err(e) = self.ty(input.value).check_size() {
                return fail("", format!("input `{}`: {e}", input.name));
            }
            self.ty(input.value).shape.iter().for_each(|d| {
                d.for_each_symbol(&mut |s| {
                    if !self.symbols.contains(s) {
                        unknown = Some(format!(
                            "input `{}` has the symbol `{s}`, which the graph lacks",
                            input.name
                        ));
                    }
                });
            });
        }
        if let Some(message) = unknown {
            return fail("", message);
        }
        let mut known: Vec<&Symbol> = self.symbols.iter().collect();
        let mut reads = self.reads.iter().peekable();
        self.check_reads(&mut reads, &defined, &mut known)?;
        for (n, node) in self.nodes.iter().enumerate() {
            if let Some(v) = node
                .inputs
                .iter()
                .find(|v| !defined.get(v.0 as usize).copied().unwrap_or(false))
            {
                return fail(
                    &node.origin,
                    format!("{} uses {v} before its definition", node.op.name()),
                );
            }
            for region in node.op.regions() {
                region.graph().verify()?;
                let symbols = &region.graph().symbols;
                if let Some(s) = symbols.iter().find(|s| !known.contains(s)) {
                    let name = &region.graph().name;
                    let message = format!("region `{name}` has the symbol `{s}`, which the graph lacks");
                    return fail(&node.origin, message);
                }
            }
            let types: Vec<Type> = node.inputs.iter().map(|&v| self.ty(v).clone()).collect();
            let want = match node.op.infer(&types) {
                Ok(t) => t,
                Err(e) => return fail(&node.origin, format!("{}: {e}", node.op.name())),
            };
            if want.len() != node.outputs.len() {
                return fail(
                    &node.origin,
                    format!(
                        "{} has {} results, expected {}",
                        node.op.name(),
                        node.outputs.len(),
                        want.len()
                    ),
                );
            }
            for (k, (&o, ty)) in node.outputs.iter().zip(&want).enumerate() {
                let Some(info) = self.values.get(o.0 as usize) else {
                    return fail(&node.origin, format!("result {o} does not exist"));
                };
                if info.def != Def::Node(n as u32, k as u32) || std::mem::replace(&mut defined[o.0 as usize], true) {
                    return fail(&node.origin, format!("result {o} has two definitions"));
                }
                if info.ty != *ty {
                    return fail(
                        &node.origin,
                        format!("result {o} has type {}, {} infers {ty}", info.ty, node.op.name()),
                    );
                }
            }
            let mut unknown = None;
            let mut check = |s: &Symbol| {
                if !known.contains(&s) {
                    unknown.get_or_insert(s.clone());
                }
            };
            node.op.for_each_symbol(&mut check);
            want.iter()
                .flat_map(|t| &t.shape)
                .for_each(|d| d.for_each_symbol(&mut check));
            if let Some(s) = unknown {
                let message = format!("{} uses the symbol `{s}`, which is not known before it", node.op.name());
                return fail(&node.origin, message);
            }
            self.check_reads(&mut reads, &defined, &mut known)?;
        }
        if let Some(r) = reads.next() {
            return fail(&r.origin, format!("`{r}`: {} is not defined", r.value));
        }
        if let Some(i) = defined.iter().position(|d| !d) {
            return fail("", format!("value %{i} is no result of the node that it names"));
        }
        for (name, v) in &self.outputs {
            if !defined.get(v.0 as usize).copied().unwrap_or(false) {
                return fail("", format!("output `{name}` is {v}, which is not defined"));
            }
        }
        Ok(())
    }

    /// Checks the sizes that become known now, and adds them to those that are.
    fn check_reads<'g>(
        &'g self,
        reads: &mut std::iter::Peekable<std::slice::Iter<'g, Read>>,
        defined: &[bool],
        known: &mut Vec<&'g Symbol>,
    ) -> Result<(), NodeError> {
        let is_there = |r: &&Read| defined.get(r.value.0 as usize).copied().unwrap_or(false);
        while let Some(r) = reads.next_if(is_there) {
            let fail = |what: String| {
                Err(NodeError {
                    node: r.origin.to_string(),
                    message: format!("`{r}`: {what}"),
                })
            };
            let ty = self.ty(r.value);
            if ty.dtype.is_float() || !ty.len().is(1) {
                return fail(format!("a size of {ty}, expected an integer or a bool of one element"));
            }
            if known.contains(&&r.symbol) {
                return fail("there is such a symbol already".into());
            }
            let mut unknown = None;
            r.bound.iter().for_each(|d| {
                d.for_each_symbol(&mut |s| {
                    if !known.contains(&s) {
                        unknown = Some(s.clone());
                    }
                });
            });
            if let Some(s) = unknown {
                return fail(format!("its bound has the symbol `{s}`, which is not known before it"));
            }
            known.push(&r.symbol);
        }
        Ok(())
    }
}
