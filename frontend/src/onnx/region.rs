//! Graphs within graphs, and what they see of those around them.
//!
//! The subgraphs of control flow are graphs of their own, which see their inputs only. A value of a graph around is an input too
//! (a capture); a constant is a constant there as well, and what is known of a value is known in both.

use super::builder::{Builder, One};
use super::error::Fail;
use super::packed::Weights;
use super::ratio::Ratio;
use brolga_ir::graph::{Input, Read};
use brolga_ir::{DType, Def, Dim, Graph, Symbol, Tensor, Type, Value};
use rustc_hash::{FxHashMap, FxHashSet};

/// What a graph has of the one around it.
#[derive(Clone, Default)]
pub struct Captured {
    /// What values of the graph around are here.
    inside: FxHashMap<Value, Value>,
    /// Those that are inputs here, in order: as values of the graph around, and here.
    pub inputs: Vec<(Value, Value)>,
}

/// A graph under construction that another one is nested in, or that is finished.
#[derive(Clone, Default)]
pub struct Frame {
    /// The graph.
    pub graph: Graph,
    folded: FxHashMap<Value, Tensor>,
    known: FxHashMap<Value, Vec<Dim>>,
    ratios: FxHashMap<Value, Vec<Ratio>>,
    scalars: FxHashMap<(DType, u64), Value>,
    weights: Weights,
    pub(super) extents: FxHashSet<Dim>,
    /// What it has of the graph around it.
    pub captured: Captured,
}

impl Frame {
    /// An empty graph.
    pub fn new(name: &str) -> Frame {
        Frame {
            graph: Graph::new(name),
            ..Frame::default()
        }
    }

    /// A value of the graph around as one of this graph.
    fn capture(&mut self, around: &Frame, v: Value) -> Value {
        if let Some(&here) = self.captured.inside.get(&v) {
            return here;
        }
        let here = match around.graph.as_constant(v) {
            Some(c) => self.graph.constant(c.clone()),
            None => {
                let name = format!("c{}", self.captured.inputs.len());
                let here = self.graph.input(&name, around.graph.ty(v).clone());
                self.captured.inputs.push((v, here));
                here
            }
        };
        self.captured.inside.insert(v, here);
        if let Some(t) = around.folded.get(&v) {
            self.folded.insert(here, t.clone());
        }
        if let Some(dims) = around.known.get(&v) {
            self.known.insert(here, dims.clone());
        }
        if let Some(ratios) = around.ratios.get(&v) {
            self.ratios.insert(here, ratios.clone());
        }
        here
    }
}

impl Builder<'_> {
    /// How many graphs are around this one.
    pub fn depth(&self) -> usize {
        self.around.len()
    }

    fn swap(&mut self, frame: &mut Frame) {
        std::mem::swap(&mut self.graph, &mut frame.graph);
        std::mem::swap(&mut self.folded, &mut frame.folded);
        std::mem::swap(&mut self.known, &mut frame.known);
        std::mem::swap(&mut self.ratios, &mut frame.ratios);
        std::mem::swap(&mut self.scalars, &mut frame.scalars);
        std::mem::swap(&mut self.weights, &mut frame.weights);
        std::mem::swap(&mut self.extents, &mut frame.extents);
        std::mem::swap(&mut self.captured, &mut frame.captured);
    }

    /// Goes on with an inner graph, whose builder `f` gets, and comes back to this one, whatever `f` makes of it.
    ///
    /// # Errors
    /// Those of `f`.
    pub fn within<T>(&mut self, frame: &mut Frame, f: impl FnOnce(&mut Self) -> Result<T, Fail>) -> Result<T, Fail> {
        self.enter(std::mem::take(frame));
        let done = f(self);
        *frame = self.leave();
        done
    }

    /// Begins a graph within this one, or goes on with one.
    pub fn enter(&mut self, mut frame: Frame) {
        self.swap(&mut frame);
        self.around.push(frame);
    }

    /// Ends the inner graph, and goes on with the one around it.
    pub fn leave(&mut self) -> Frame {
        let mut frame = self.around.pop().expect("a graph was entered");
        self.swap(&mut frame);
        frame
    }

    /// A value of one of the graphs around, which has so many around itself, as one of this graph.
    pub fn capture(&mut self, v: Value, depth: usize) -> Value {
        if depth == self.depth() {
            return v;
        }
        let mut current = Frame::default();
        self.swap(&mut current);
        self.around.push(current);
        let mut here = v;
        for k in depth + 1..self.around.len() {
            let (around, inner) = self.around.split_at_mut(k);
            here = inner[0].capture(&around[k - 1], here);
        }
        let mut current = self.around.pop().expect("pushed above");
        self.swap(&mut current);
        here
    }

    /// The value of the graph around that an input of this one is.
    pub fn captured_from(&self, here: Value) -> Option<Value> {
        let mut all = self.captured.inputs.iter();
        all.find(|(_, v)| *v == here).map(|(around, _)| *around)
    }

    /// A copy of a region that may stand beside it: the sizes that it reads have names of their own.
    ///
    /// # Errors
    /// Never for a valid graph.
    pub fn copied(&mut self, region: &Graph) -> Result<Graph, Fail> {
        let copy = region.with_fresh_reads(&mut |_| self.fresh_size());
        copy.map_err(|e| Fail::Bad(e.to_string()))
    }

    /// A new name for a size that data tell, made of the node that asks for it.
    fn fresh_size(&mut self) -> Symbol {
        let legal = |c: char| if c.is_ascii_alphanumeric() { c } else { '_' };
        let base: String = self.origin.trim_matches('/').chars().map(legal).collect();
        let base = format!("n_{base}");
        let known = |name: &str| {
            let graphs = self.around.iter().map(|f| &f.graph).chain([&self.graph]);
            self.sizes.contains(name) || graphs.into_iter().any(|g| g.symbols.iter().any(|s| **s == *name))
        };
        let mut name = base.clone();
        for k in 2.. {
            if !known(&name) {
                break;
            }
            name = format!("{base}_{k}");
        }
        let symbol: Symbol = name.as_str().into();
        self.sizes.insert(symbol.clone());
        symbol
    }

    /// The only element of an integer or a bool as a size: what is known of it, or what the run tells.
    ///
    /// # Errors
    /// When it has another number of elements.
    pub fn read(&mut self, v: Value, bound: Option<Dim>) -> Result<Dim, Fail> {
        match self.dims_of(v).as_deref() {
            Some([d]) => Ok(d.clone()),
            _ => self.read_anew(v, bound),
        }
    }

    /// The only element of an integer or a bool as a size of its own, whatever is known of it.
    ///
    /// # Errors
    /// When it has another number of elements.
    pub fn read_anew(&mut self, v: Value, bound: Option<Dim>) -> Result<Dim, Fail> {
        let v = self.reshape(v, vec![])?;
        let known = self.graph.reads.iter().find(|r| r.value == v);
        if let Some(read) = known {
            return Ok(Dim::sym(&read.symbol));
        }
        let symbol = self.fresh_size();
        self.graph.reads.push(Read {
            symbol: symbol.clone(),
            value: v,
            bound,
            origin: self.origin.clone(),
        });
        let size = Dim::sym(&symbol);
        self.known.insert(v, vec![size.clone()]);
        Ok(size)
    }

    /// An input of an inner graph that its operator gives.
    pub fn argument(&mut self, name: &str, ty: Type) -> Value {
        self.graph.input(name, ty)
    }

    /// Whether a value is computed from nothing but sizes.
    pub fn is_of_sizes(&self, v: Value) -> bool {
        let mut todo = vec![v];
        let mut seen = FxHashSet::default();
        while let Some(v) = todo.pop() {
            match self.graph.def(v) {
                Def::Input(_) => return false,
                Def::Node(n, _) if seen.insert(n) => todo.extend(&self.graph.nodes[n as usize].inputs),
                Def::Node(..) | Def::Const(_) => {}
            }
        }
        true
    }

    /// A rank-0 bool of a condition.
    ///
    /// # Errors
    /// When it has several elements, or is no bool.
    pub fn condition(&mut self, v: Value) -> One {
        if self.dtype(v) != DType::Bool || self.ty(v).len().as_const().is_some_and(|n| n != 1) {
            return Err(Fail::Bad(format!("a condition of {}, expected one bool", self.ty(v))));
        }
        self.reshape_if_equal(v, vec![])
    }
}

/// The graph of a region: its inputs are `arguments` of its own, then captures of several graphs, which have these types.
pub fn region(frame: &Frame, arguments: &[Value], results: &[Value], captures: &[Value], types: &[Type]) -> Graph {
    let mut graph = frame.graph.clone();
    let mut inputs = arguments.to_vec();
    for (v, ty) in captures.iter().zip(types) {
        let here = frame.captured.inputs.iter().find(|(around, _)| around == v);
        inputs.push(match here {
            Some((_, here)) => *here,
            // What only another region has is not used here.
            None => graph.input("unused", ty.clone()),
        });
    }
    let named = |(k, &value): (usize, &Value)| {
        graph.values[value.0 as usize].def = Def::Input(k as u32);
        let name = match k.checked_sub(arguments.len()) {
            Some(c) => format!("c{c}"),
            None => format!("a{k}"),
        };
        Input { name, value }
    };
    graph.inputs = inputs.iter().enumerate().map(named).collect();
    graph.outputs = results.iter().enumerate().map(|(k, v)| (format!("y{k}"), *v)).collect();
    graph.symbols = outer_symbols(&graph);
    graph.prune();
    graph
}

/// The symbols that a graph uses and does not read itself: those of the graphs around.
fn outer_symbols(graph: &Graph) -> Vec<Symbol> {
    let mut symbols: Vec<Symbol> = vec![];
    let mut note = |s: &Symbol| {
        if !graph.reads.iter().any(|r| r.symbol == *s) && !symbols.contains(s) {
            symbols.push(s.clone());
        }
    };
    let dims = graph.values.iter().flat_map(|v| &v.ty.shape);
    dims.chain(graph.reads.iter().flat_map(|r| &r.bound))
        .for_each(|d| d.for_each_symbol(&mut note));
    graph.guards.iter().for_each(|g| g.for_each_symbol(&mut note));
    for node in &graph.nodes {
        node.op.for_each_symbol(&mut note);
        node.op
            .regions()
            .for_each(|r| r.graph().symbols.iter().for_each(&mut note));
    }
    symbols
}
