//! The tensors of a folder as constants of a graph: each is taken by its name and the shape that the configuration says, and what does not
//! fit is noted, so that all of it is told at once.

use super::error::Problems;
use super::file::Stored;
use super::lora::Adapter;
use brolga_ir::{ConstData, Constant, DType, Graph, Number, Type, Value};
use std::collections::{BTreeMap, BTreeSet};

/// The tensors, and what became of them.
pub struct Weights {
    tensors: BTreeMap<String, Stored>,
    /// Those that were taken, by name. A tensor that is taken twice is one constant.
    values: BTreeMap<String, Value>,
    /// Names that a model may have without a use.
    unused: BTreeSet<String>,
    /// Those among them that the other of two graphs takes.
    elsewhere: BTreeSet<String>,
    /// What is added to tensors, in order.
    adapters: Vec<Adapter>,
    problems: Problems,
}

impl Weights {
    /// The weights of a folder.
    pub fn new(tensors: BTreeMap<String, Stored>, adapters: Vec<Adapter>) -> Weights {
        Weights {
            tensors,
            values: BTreeMap::new(),
            unused: BTreeSet::new(),
            elsewhere: BTreeSet::new(),
            adapters,
            problems: Problems::default(),
        }
    }

    /// True for a tensor that the folder has.
    pub fn has(&self, name: &str) -> bool {
        self.tensors.contains_key(name)
    }

    /// `prefix` where names of tensors begin with it, or nothing: a model that was saved without its head has shorter names.
    pub fn root(&self, prefix: &'static str) -> &'static str {
        match self.tensors.keys().any(|n| n.starts_with(prefix)) {
            true => prefix,
            false => "",
        }
    }

    /// Takes no offence at tensors that end like this and are of no use.
    pub fn may_end_with(&mut self, ends: &[&str]) {
        self.without_use(|name| ends.iter().any(|e| name.ends_with(e)));
    }

    /// Takes no offence at tensors that begin like this and are of no use.
    pub fn may_begin_with(&mut self, begins: &[&str]) {
        self.without_use(|name| begins.iter().any(|b| name.starts_with(b)));
    }

    /// Leaves tensors that begin, or end, like this to the other of two graphs, with what adapters add to them.
    pub fn leave(&mut self, begins: &[&str], ends: &[&str]) {
        let is = |name: &String| begins.iter().any(|b| name.starts_with(b)) || ends.iter().any(|e| name.ends_with(e));
        let names: Vec<String> = self.tensors.keys().filter(|n| is(n)).cloned().collect();
        self.unused.extend(names.iter().cloned());
        self.elsewhere.extend(names);
    }

    fn without_use(&mut self, is: impl Fn(&str) -> bool) {
        let names = self.tensors.keys().filter(|n| is(n)).cloned();
        self.unused.extend(names);
    }

    /// A tensor of floats. One that is missing or has another shape is noted, and stands for zeros, so that the walk goes on.
    pub fn take(&mut self, graph: &mut Graph, name: &str, shape: &[usize]) -> Value {
        if let Some(&v) = self.values.get(name)
            && (graph.ty(v).shape.iter().zip(shape)).all(|(d, &n)| d.is(n as i64))
            && graph.ty(v).rank() == shape.len()
        {
            return v;
        }
        let constant = match self.tensors.get(name) {
            Some(s) if s.shape == shape && s.dtype.is_float() => Constant {
                ty: Type::fixed(s.dtype, shape),
                data: ConstData::File {
                    source: s.source.clone(),
                    offset: s.offset,
                },
            },
            found => {
                match found {
                    None => self.problems.missing.push(name.to_owned()),
                    Some(s) => {
                        let message = format!("{}{:?} where config.json wants floats of {shape:?}", s.dtype, s.shape);
                        self.problems.wrong.push((name.to_owned(), message));
                    }
                }
                Constant {
                    ty: Type::fixed(DType::F32, shape),
                    data: ConstData::Splat(Number::Float(0.0)),
                }
            }
        };
        let mut v = graph.constant(constant);
        // What stands in a tensor's place does not take away what other adapters add to it.
        for step in [Adapter::replace, Adapter::add] {
            for adapter in &mut self.adapters {
                match step(adapter, graph, name, v) {
                    Ok(merged) => v = merged,
                    Err(message) => self.problems.wrong.push((name.to_owned(), message)),
                }
            }
        }
        self.values.insert(name.to_owned(), v);
        v
    }

    /// What did not fit. Ends the taking.
    pub fn problems(&mut self) -> Problems {
        let mut problems = std::mem::take(&mut self.problems);
        problems.missing.sort_unstable();
        problems.missing.dedup();
        for name in self.elsewhere.iter().filter(|n| !self.values.contains_key(*n)) {
            self.adapters.iter_mut().for_each(|a| a.leave(name));
        }
        let extra = self
            .tensors
            .keys()
            .filter(|n| !self.values.contains_key(*n) && !self.unused.contains(*n));
        problems.extra = extra
            .cloned()
            .chain(self.adapters.iter().flat_map(Adapter::left))
            .collect();
        problems
    }
}
