//! A walk that goes on behind errors: everything that is wrong is collected, and a value that nothing can be known of takes the
//! type that the file annotates, as an input of the graph, so that what follows is looked at as closely as the rest.

use super::error::Error;
use super::import::{Importer, Slot};
use super::signature::{Symbols, input_type, note_symbols};
use super::tensor;
use brolga_ir::Type;
use onnx_protobuf::{GraphProto, TensorProto, ValueInfoProto};
use rustc_hash::FxHashMap;

/// What is collected, and what the file says of intermediate values.
pub struct Survey<'m> {
    /// Annotations by name; `None` where several graphs say different things of one name.
    annotations: FxHashMap<&'m str, Option<&'m ValueInfoProto>>,
    symbols: Symbols<'m>,
    /// Everything that is wrong.
    pub wrong: Vec<Error>,
    /// Values that stand for results that nothing is known of but their annotated types.
    pub assumed: Vec<String>,
    /// Nodes that were only looked up, since nothing is known of an operand.
    pub passed_over: Vec<String>,
}

impl<'m> Survey<'m> {
    /// Nothing found yet in a graph, of whose dimensions some have sizes.
    pub fn new(g: &'m GraphProto, sizes: &'m [(String, i64)]) -> Survey<'m> {
        let mut symbols = Symbols::new(sizes);
        for i in &g.input {
            // Names of symbols are those of the inputs.
            note_symbols(i, &mut symbols);
        }
        let mut annotations = FxHashMap::default();
        annotate(g, &mut annotations);
        Survey {
            annotations,
            symbols,
            wrong: vec![],
            assumed: vec![],
            passed_over: vec![],
        }
    }
}

/// Collects the annotations of a graph and its subgraphs.
fn annotate<'m>(g: &'m GraphProto, all: &mut FxHashMap<&'m str, Option<&'m ValueInfoProto>>) {
    for v in g.value_info.iter().chain(&g.output) {
        let known = all.entry(&v.name).or_insert(Some(v));
        if known.is_some_and(|k| k.type_ != v.type_) {
            *known = None;
        }
    }
    for a in g.node.iter().flat_map(|n| &n.attribute) {
        for inner in a.g.as_ref().into_iter().chain(&a.graphs) {
            annotate(inner, all);
        }
    }
}

impl<'m> Importer<'m> {
    /// The names of the model's own graph.
    pub(super) fn names(&self) -> &FxHashMap<&'m str, Slot> {
        &self.scopes[0].names
    }

    /// The model's operator sets by domain.
    pub(super) fn opsets(&self) -> FxHashMap<String, i64> {
        let own = self.scopes[0].versions.iter();
        own.map(|(d, v)| ((*d).to_owned(), *v)).collect()
    }

    /// An error, which ends the walk unless it is a survey.
    pub(super) fn wrong(&mut self, e: Error) -> Result<(), Error> {
        match &mut self.survey {
            Some(s) => {
                s.wrong.push(e);
                Ok(())
            }
            None => Err(e),
        }
    }

    /// A node has an operand that nothing is known of.
    pub(super) fn passed_over(&mut self, node: &str) {
        if let Some(s) = &mut self.survey {
            s.passed_over.push(node.to_owned());
        }
    }

    /// The result of a node that could not be imported.
    pub(super) fn unknown(&mut self, name: &str) -> Slot {
        // A graph within another has no inputs of its own making.
        if self.graph.depth() > 0 {
            return Slot::Unknown;
        }
        let Some(s) = &mut self.survey else {
            return Slot::Unknown;
        };
        let annotated = s.annotations.get(name).copied().flatten();
        match annotated.and_then(|v| input_type(v, &mut s.symbols).ok()) {
            Some(ty) => {
                s.assumed.push(name.to_owned());
                Slot::Value(self.graph.graph.input(name, ty))
            }
            None => Slot::Unknown,
        }
    }

    /// An initializer that cannot be read, of the type that it says.
    pub(super) fn unread(&mut self, t: &TensorProto) -> Slot {
        let ty = tensor::dtype(t.data_type)
            .and_then(|d| tensor::extents(&t.dims, d).map(|(shape, _)| Type::fixed(d, &shape)));
        match ty {
            Ok(ty) if self.graph.depth() == 0 => Slot::Value(self.graph.graph.input(&t.name, ty)),
            _ => Slot::Unknown,
        }
    }
}
