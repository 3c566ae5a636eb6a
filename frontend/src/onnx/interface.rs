//! What a graph begins and ends with: initializers, inputs, outputs.

use super::error::{Error, Fail, Unsupported};
use super::import::{Importer, Slot};
use super::signature::{
    Symbols, contradiction, declares, dims, input_type, is_sequence, leaves_open, map_parts, map_types,
};
use super::{Options, tensor};
use brolga_ir::{DType, Dim, Graph, Type};
use onnx_protobuf::{
    GraphProto, TensorProto, ValueInfoProto, tensor_shape_proto::Dimension,
    tensor_shape_proto::dimension::Value as DimValue,
};
use rustc_hash::{FxHashMap, FxHashSet};

impl<'m> Importer<'m> {
    pub(super) fn initializers(
        &mut self,
        g: &'m GraphProto,
        is_input: &dyn Fn(&TensorProto) -> bool,
    ) -> Result<(), Error> {
        for t in g.initializer.iter().filter(|t| !is_input(t)) {
            let bad = |im: &Self, e: String| im.error(format!("initializer `{}`: {e}", t.name));
            self.graph.origin = t.name.as_str().into();
            let slot = match self.graph.tensor(t) {
                Ok(v) => Slot::Value(v),
                Err(Fail::Unsupported(e)) => {
                    self.missing.push(("initializer".into(), e, t.name.clone()));
                    Slot::Unknown
                }
                Err(Fail::Bad(e)) => {
                    self.wrong(bad(self, e))?;
                    self.unread(t)
                }
                Err(Fail::Nested(_) | Fail::Skipped) => unreachable!("an initializer runs no node"),
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

    pub(super) fn inputs(
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
        // Names of symbols are settled before fresh ones are made up.
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
                if let Some(DimValue::DimParam(p)) = &d.value
                    && p != "?"
                {
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
            let holds = options.holds.iter().find(|(name, _)| *name == i.name);
            if let (Some((_, holds)), true) = (holds, leaves_open(i)) {
                let slot = match holds {
                    None => Slot::Nothing,
                    Some(types) if is_sequence(i) => {
                        let named = (0..).zip(types).map(|(k, ty)| (format!("{}[{k}]", i.name), ty));
                        let all = named
                            .map(|(name, ty)| self.graph.graph.input(&name, ty.clone()))
                            .collect();
                        self.sequence(all)
                    }
                    Some(types) => match &types[..] {
                        [ty] => Slot::Value(self.graph.graph.input(&i.name, ty.clone())),
                        _ => return Err(bad(self, format!("{} types, expected one", types.len()))),
                    },
                };
                self.define(&i.name, slot).map_err(|e| bad(self, e))?;
                continue;
            }
            if let Some(types) = map_types(i, &mut symbols) {
                let slot = match types {
                    Ok(_) if given.is_some() => return Err(bad(self, "a map, of which no value can be fixed".into())),
                    Ok([keys, values]) => {
                        let [k, v] = map_parts(&i.name);
                        Slot::Map([self.graph.graph.input(&k, keys), self.graph.graph.input(&v, values)])
                    }
                    Err(e) => self.unknown_input(i, e)?,
                };
                self.define(&i.name, slot).map_err(|e| bad(self, e))?;
                continue;
            }
            let slot = match input_type(i, &mut symbols) {
                Ok(ty) if given.is_some() => {
                    let mut t = given.expect("checked by the guard").clone();
                    if t.dtype() == DType::Str {
                        let texts = options.strings.texts(&t).map_err(|e| bad(self, e))?;
                        let own = &self.graph.files.strings;
                        t = own.tensor(t.shape(), &texts).map_err(|e| bad(self, e))?;
                    }
                    let found = Type::fixed(t.dtype(), t.shape());
                    if contradiction(i, &found).is_some() {
                        self.wrong(bad(self, format!("fixed to {found}, expected {ty}")))?;
                    }
                    Slot::Value(self.graph.dense(t))
                }
                Ok(_) if defaults.contains_key(i.name.as_str()) => {
                    let default = tensor::constant(defaults[i.name.as_str()], self.graph.files, self.graph.limit);
                    let default = default.map_err(|e| bad(self, e))?;
                    if let Some(e) = contradiction(i, &default.ty) {
                        return Err(bad(self, format!("its default {e}")));
                    }
                    // Of the extents of the default, whatever else the declaration would allow.
                    let v = self.graph.graph.input(&i.name, default.ty.clone());
                    self.graph.graph.defaults.push((i.name.clone(), default));
                    Slot::Value(v)
                }
                Ok(ty) => Slot::Value(self.graph.graph.input(&i.name, ty)),
                Err(e) => self.unknown_input(i, e)?,
            };
            self.define(&i.name, slot).map_err(|e| bad(self, e))?;
        }
        symbols.check().map_err(|e| self.error(e))
    }

    /// An input of a type that cannot be read.
    fn unknown_input(&mut self, i: &ValueInfoProto, e: Fail) -> Result<Slot, Error> {
        match e {
            Fail::Unsupported(e) => self.missing.push(("input".into(), e, i.name.clone())),
            Fail::Bad(e) => self.wrong(self.error(format!("input `{}`: {e}", i.name)))?,
            Fail::Nested(_) | Fail::Skipped => unreachable!("an input runs no node"),
        }
        Ok(Slot::Unknown)
    }

    pub(super) fn outputs(&mut self, g: &'m GraphProto) -> Result<(), Error> {
        let mut found = vec![];
        for o in &g.output {
            match self.lookup(&o.name) {
                Some(Slot::Value(v)) => found.push((Some(o), o.name.clone(), v)),
                Some(Slot::Sequence(k)) => {
                    let all = (0..).zip(self.sequences[k as usize].clone());
                    found.extend(all.map(|(k, v)| (None, format!("{}[{k}]", o.name), v)));
                }
                Some(Slot::Map(parts)) => {
                    let all = map_parts(&o.name).into_iter().zip(parts);
                    found.extend(all.map(|(name, v)| (None, name, v)));
                }
                Some(_) => {}
                None => self.wrong(self.error(format!("output `{}` is not defined by anything", o.name)))?,
            }
        }
        if !self.missing.is_empty() && self.survey.is_none() {
            return Err(Error::Unsupported {
                file: self.file.clone(),
                items: group(&self.missing),
            });
        }
        for (declared, name, v) in found {
            let ty = self.graph.ty(v);
            if let Some(e) = declared.and_then(|o| contradiction(o, ty)) {
                // Exporters write shapes that are wrong, and nothing depends on them.
                if declared.is_none_or(|o| !declares(o, ty.dtype)) {
                    self.wrong(self.error(format!("output `{name}` {e}")))?;
                }
                tracing::warn!("{}: output `{name}` {e}", self.file);
            }
            self.graph.graph.outputs.push((name, v));
        }
        Ok(())
    }
}

/// What the model declares of an output beside what a graph has for it, where it declares extents.
fn declared<'g>(graph: &'g Graph, o: &'g ValueInfoProto) -> Option<(&'g [Dimension], &'g [Dim])> {
    let declared = o.type_.as_ref().filter(|t| t.has_tensor_type())?;
    let shape = declared.tensor_type().shape.as_ref()?;
    let (_, v) = graph.outputs.iter().find(|(name, _)| *name == o.name)?;
    Some((&shape.dim, &graph.ty(*v).shape))
}

fn rank_agrees(graph: &Graph, o: &ValueInfoProto) -> bool {
    declared(graph, o).is_none_or(|(declared, own)| declared.len() == own.len())
}

/// Whether the outputs of a graph have the ranks that the model declares, where it does.
pub(super) fn ranks_agree(graph: &Graph, g: &GraphProto) -> bool {
    g.output.iter().all(|o| rank_agrees(graph, o))
}

/// Whether the model declares its outputs as a graph has them that takes more axes than another one, whose ranks do not agree: by a
/// number, or at least by no name for what would be a number.
pub(super) fn takes_as_declared(taken: &Graph, kept: &Graph, g: &GraphProto) -> bool {
    let disputed = || {
        g.output
            .iter()
            .filter(|o| !rank_agrees(kept, o))
            .filter_map(|o| declared(taken, o))
    };
    let any = |is: &dyn Fn(&Dimension, i64) -> bool| {
        disputed().any(|(declared, own)| {
            let mut known = declared
                .iter()
                .zip(own)
                .filter_map(|(d, own)| Some((d, own.as_const()?)));
            known.any(|(d, own)| is(d, own))
        })
    };
    ranks_agree(taken, g)
        && (any(&|d, own| d.has_dim_value() && d.dim_value() == own) || !any(&|d, _| d.has_dim_param()))
}

pub(super) fn group(missing: &[(String, String, String)]) -> Vec<Unsupported> {
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
