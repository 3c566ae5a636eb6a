//! The tensors of a folder as constants of a graph: each is taken by its name and the shape that the configuration says, and what does not
//! fit is noted, so that all of it is told at once.

use super::error::Problems;
use super::file::{Change, Stored};
use super::lora::Adapter;
use brolga_ir::ops::BlockFormat;
use brolga_ir::{Attr, Build, ConstData, Constant, DType, Dim, Graph, GraphBuilder, Number, Type, Value};
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// A matrix whose value in the graph is rows of blocks.
#[derive(Clone, Copy)]
pub struct Packed {
    /// What blocks are.
    pub format: BlockFormat,
    /// Rows of blocks, and their elements.
    pub shape: [usize; 2],
    /// Whether what is wanted is the transpose.
    pub turned: bool,
}

impl Packed {
    /// The dimension of what is wanted that blocks lie along.
    pub fn axis(&self) -> usize {
        usize::from(!self.turned)
    }
}

/// The tensors, and what became of them.
pub struct Weights {
    tensors: BTreeMap<String, Stored>,
    /// Those that were taken, by name. A tensor that is taken twice is one constant.
    values: BTreeMap<String, Value>,
    /// Those whose value is rows of blocks.
    packed: HashMap<Value, Packed>,
    /// Names that a model may have without a use.
    unused: BTreeSet<String>,
    /// Those among them that the other of two graphs takes.
    elsewhere: BTreeSet<String>,
    /// What is added to tensors, in order.
    adapters: Vec<Adapter>,
    /// What describes the model.
    what: &'static str,
    problems: Problems,
}

impl Weights {
    /// The weights of a model, which `what` describes.
    pub fn new(tensors: BTreeMap<String, Stored>, adapters: Vec<Adapter>, what: &'static str) -> Weights {
        Weights {
            what,
            tensors,
            values: BTreeMap::new(),
            packed: HashMap::new(),
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

    /// How the value of a tensor is packed.
    pub fn packed(&self, v: Value) -> Option<Packed> {
        self.packed.get(&v).copied()
    }

    /// Whether a value that was taken is of this shape.
    fn is(&self, graph: &Graph, v: Value, shape: &[usize]) -> bool {
        match self.packed(v) {
            Some(Packed {
                shape: [a, b], turned, ..
            }) => *shape == if turned { [b, a] } else { [a, b] },
            None => {
                let own = &graph.ty(v).shape;
                own.len() == shape.len() && own.iter().zip(shape).all(|(d, &n)| d.is(n as i64))
            }
        }
    }

    /// A tensor of floats, or the rows of blocks that it is packed in ([`Weights::packed`]). One that is missing or has another shape is
    /// noted, and stands for zeros, so that the walk goes on.
    pub fn take(&mut self, graph: &mut Graph, name: &str, shape: &[usize]) -> Value {
        if let Some(&v) = self.values.get(name)
            && self.is(graph, v, shape)
        {
            return v;
        }
        let taken = match self.tensors.get(name) {
            Some(s) if s.shape == shape => {
                stored(graph, name, s).map_err(|e| Some(format!("{e} where {} wants floats of {shape:?}", self.what)))
            }
            Some(s) => Err(Some(format!(
                "{}{:?} where {} wants floats of {shape:?}",
                s.type_name(),
                s.shape,
                self.what
            ))),
            None => Err(None),
        };
        let mut v = match taken {
            Ok((v, packed)) => {
                self.packed.extend(packed.map(|p| (v, p)));
                v
            }
            Err(message) => {
                match message {
                    None => self.problems.missing.push(name.to_owned()),
                    Some(message) => self.problems.wrong.push((name.to_owned(), message)),
                }
                graph.constant(Constant {
                    ty: Type::fixed(DType::F32, shape),
                    data: ConstData::Splat(Number::Float(0.0)),
                })
            }
        };
        if self.packed.contains_key(&v) {
            let adapters = std::mem::take(&mut self.adapters);
            if !adapters.is_empty() {
                let message = "adapters are merged into floats; take a file whose matrices are not packed";
                self.problems.wrong.push((name.to_owned(), message.into()));
            }
        }
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

/// A tensor as a family wants it, and how it is packed.
fn stored(graph: &mut Graph, name: &str, s: &Stored) -> Result<(Value, Option<Packed>), String> {
    let mut shape = s.shape.clone();
    if s.change == Change::Turned {
        shape.reverse();
    }
    let packed = match (s.packed, &shape[..]) {
        (None, _) if s.dtype.is_float() => None,
        (Some(format), &[rows, inner]) if s.change != Change::Less1 => Some(Packed {
            format,
            shape: [rows, inner],
            turned: s.change == Change::Turned,
        }),
        _ => return Err(format!("{}{:?}", s.type_name(), s.shape)),
    };
    if let (Some(p), Some(last)) = (packed, shape.last_mut()) {
        *last = *last / p.format.elements() * p.format.bytes();
    }
    let v = graph.constant(Constant {
        ty: Type::fixed(s.dtype, &shape),
        data: ConstData::File {
            source: s.source.clone(),
            offset: s.offset,
        },
    });
    let mut g = GraphBuilder {
        graph,
        origin: name.into(),
    };
    let dims = |list: &[usize]| -> Vec<Dim> { list.iter().map(|&n| n.into()).collect() };
    let v = match s.change {
        Change::None => v,
        Change::Turned if packed.is_some() => v,
        Change::Turned => g.call("transpose", &[Attr::ints(&[1, 0])], &[v])?,
        Change::Less1 => {
            let wide = match s.dtype {
                DType::F32 => v,
                _ => g.call("cast", &[Attr::DType(DType::F32)], &[v])?,
            };
            let one = g.splat(DType::F32, &dims(&shape), 1.0)?;
            g.call("sub", &[], &[wide, one])?
        }
        Change::Pairs { heads } => {
            let Some(pairs) = shape[0].checked_div(2 * heads).filter(|n| n * 2 * heads == shape[0]) else {
                return Err(format!("{}{:?}, which is no {heads} heads,", s.type_name(), s.shape));
            };
            let rest = &shape[1..];
            let apart = g.reshaped(v, &dims(&[&[heads, pairs, 2], rest].concat()))?;
            let order: Vec<i64> = [0, 2, 1].into_iter().chain(3..3 + rest.len() as i64).collect();
            let turned = g.call("transpose", &[Attr::Ints(order)], &[apart])?;
            g.reshaped(turned, &dims(&shape))?
        }
    };
    Ok((v, packed))
}
