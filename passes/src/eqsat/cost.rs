//! The roofline cost of operators and of kernels, from the plain facts of a target.
//!
//! A kernel costs the larger of its arithmetic time and its memory time, plus a constant. What arithmetic, memory and the
//! kinds of loop nests cost is the target's; a wrong figure costs speed, never results. Unknown extents count as [`SYMBOL`],
//! batches as 1.

use brolga_ir::ops::{Along, Channels, Movement, OwnWork, Role, Window, WindowShape};
use brolga_ir::target::Cost;
use brolga_ir::{Def, Dim, Graph, Op, Symbol, Target, TileKind, Type};

/// The extent assumed for a symbol that is no batch.
pub const SYMBOL: i64 = 64;

/// The cost model of a target.
#[derive(Clone, Debug)]
pub struct CostModel {
    cost: Cost,
    /// Whether kernels may write into parts of what others put together, and trees multiply on register tiles.
    cpu: bool,
    batches: Vec<Symbol>,
    images: Vec<usize>,
}

/// The ranks of what convolutions and pooling of a graph read.
pub fn images(g: &Graph) -> Vec<usize> {
    let mut out = vec![];
    for node in &g.nodes {
        let types: Vec<Type> = node.inputs.iter().map(|&v| g.ty(v).clone()).collect();
        if window(&node.op, &types).is_some() && !out.contains(&types[0].rank()) {
            out.push(types[0].rank());
        }
    }
    out
}

/// The shape of a convolution's or pooling's windows.
pub fn window(op: &Op, types: &[Type]) -> Option<WindowShape> {
    match op.role() {
        Role::Window(w) => Some(w.shape(op)),
        Role::Contract(c) => c.window(op, types),
        Role::Own(own) => own.window(op, types),
        _ => None,
    }
}

/// The axes of an image with its channels innermost, from the outermost on.
pub fn channels_last(rank: usize) -> Vec<usize> {
    (0..rank.min(1)).chain(2..rank).chain(1..rank.min(2)).collect()
}

/// Which values depend on an input, by value.
pub fn varying(graph: &Graph) -> Vec<bool> {
    let mut varies: Vec<bool> = graph.values.iter().map(|v| matches!(v.def, Def::Input(_))).collect();
    for node in &graph.nodes {
        let v = node.inputs.iter().any(|i| varies[i.0 as usize]) || !node.op.is_concrete();
        node.outputs.iter().for_each(|o| varies[o.0 as usize] = v);
    }
    varies
}

/// The symbols that count examples: the first extent of an input that has other extents of its own, or at least three.
/// Most runs have one example; a model's choices are to fit those.
pub fn batches(g: &Graph) -> Vec<Symbol> {
    let mut out: Vec<Symbol> = vec![];
    for input in &g.inputs {
        let [first, rest @ ..] = &g.ty(input.value).shape[..] else {
            continue;
        };
        let Some(symbol) = first.as_symbol() else { continue };
        let alone = rest.iter().all(|d| d.as_const().is_some());
        if (rest.len() >= 2 || !alone) && !out.contains(symbol) {
            out.push(symbol.clone());
        }
    }
    out
}

impl CostModel {
    /// The cost model of a target.
    pub fn new(t: &Target) -> CostModel {
        CostModel {
            cost: t.cost.clone(),
            cpu: t.cpu().is_some(),
            batches: vec![],
            images: vec![],
        }
    }

    /// The model for a graph with these [`batches`] and [`images`].
    pub fn of_graph(self, batches: Vec<Symbol>, images: Vec<usize>) -> CostModel {
        CostModel {
            batches,
            images,
            ..self
        }
    }

    /// A dim as a number.
    pub fn extent(&self, d: &Dim) -> f64 {
        let size = |s: &str| {
            if self.batches.iter().any(|b| **b == *s) {
                1
            } else {
                SYMBOL
            }
        };
        d.eval(&|s| Some(size(s))).unwrap_or(SYMBOL).max(0) as f64
    }

    /// The number of elements of a type.
    pub fn elements(&self, t: &Type) -> f64 {
        t.shape.iter().map(|d| self.extent(d)).product()
    }

    /// The bytes of a type.
    pub fn bytes(&self, t: &Type) -> f64 {
        self.elements(t) * t.dtype.bytes() as f64
    }

    /// The taps of a window.
    pub fn taps(&self, w: &dyn Window, op: &Op) -> f64 {
        w.extents(op).iter().map(|d| self.extent(d)).product()
    }

    /// Seconds to read or write a tensor once.
    pub fn traffic(&self, t: &Type) -> f64 {
        self.traffic_of(self.bytes(t))
    }

    /// Seconds to read or write so many bytes, from the level of cache that they fit in.
    pub fn traffic_of(&self, bytes: f64) -> f64 {
        let c = &self.cost;
        bytes
            / if bytes <= c.cache_bytes {
                c.cache_speed
            } else {
                c.memory_speed
            }
    }

    /// Seconds of a kernel.
    pub fn kernel(&self, compute: f64, memory: f64) -> f64 {
        compute.max(memory) + self.cost.per_kernel
    }

    /// What a kernel that puts tensors in their places in a result is spared where another kernel writes one of them there: seconds
    /// of arithmetic and of memory.
    pub fn spared(&self, t: &Type) -> (f64, f64) {
        (self.elements(t) / self.cost.vector_flops, 2.0 * self.traffic(t))
    }

    /// The seconds that a kernel which an operator brings along computes.
    fn own(&self, w: &OwnWork, types: &[Type]) -> f64 {
        let tiles = match self.cpu {
            true => self.cost.tile_flops * self.cost.contraction,
            false => self.cost.vector_flops * self.cost.window_first,
        };
        let scalar = self.extent(&w.cycles) * lanes(types) / self.cost.vector_flops;
        2.0 * self.extent(&w.products) / tiles + scalar
    }

    /// The work of an operator.
    pub fn operator(&self, op: &Op, types: &[Type], out: &Type) -> Work {
        Work {
            embeds: self.cpu && op.role().embeds(op),
            ..self.work(op, types, out)
        }
    }

    fn work(&self, op: &Op, types: &[Type], out: &Type) -> Work {
        let n = self.elements(out);
        let plain = |compute| Work {
            compute,
            ..Work::default()
        };
        match op.role() {
            // There are no trees on a GPU.
            Role::Tree(_) if !self.cpu => plain(f64::INFINITY),
            Role::Tree(tree) => plain(self.own(&tree.work(op, types), types)),
            Role::Store | Role::Reshape(_) | Role::Composite | Role::Host | Role::Region(_) => Work::default(),
            Role::Own(own) if !own.is_fused() => Work::default(),
            Role::Own(own) => plain(self.own(&own.work(op, types), types)),
            Role::Map(f) => plain(n * f.cycles() * lanes(types) / self.cost.vector_flops),
            Role::Source(_) | Role::Assemble(_) => plain(n / self.cost.vector_flops),
            Role::Move(m) => {
                let strided = m.strides(op, &types[0]) && !self.moves_channels(m, op);
                Work {
                    compute: match (strided, m.fills()) {
                        (true, _) => self.cost.strided * self.traffic(out),
                        (false, true) => n / self.cost.vector_flops,
                        _ => 0.0,
                    },
                    rough: strided || m.fills(),
                    again: self.again(op, &types[0], out),
                    ..Work::default()
                }
            }
            // Of the data only as much is read as is given: the rest of what reading it once would cost is taken back.
            Role::Gather(_) => Work {
                compute: 2.0 * n / self.cost.vector_flops,
                memory: (2.0 * self.traffic(out) - self.traffic(&types[0])).min(0.0),
                ..Work::default()
            },
            Role::Rows(r) => plain(self.elements(&types[0]) * r.operations() / self.cost.vector_flops),
            Role::Window(w) => Work {
                compute: n * self.taps(w, op) / (self.cost.tile_flops * self.share(w.shape(op))),
                windowed: Some(self.cost.guarded),
                ..Work::default()
            },
            Role::Contract(c) => {
                let sum = if out.dtype.is_float() {
                    out.dtype.compute()
                } else {
                    out.dtype
                };
                let kind = TileKind::of([types[0].dtype, types[1].dtype, sum]);
                let bytes = kind == Some(TileKind::U8I8);
                let peak = match kind {
                    Some(_) if bytes => self.cost.tile_flops * self.cost.byte_tiles,
                    Some(_) => self.cost.tile_flops,
                    None => self.cost.vector_flops / 2.0,
                };
                let window = c.window(op, types);
                // Bytes that no tile takes are loaded one by one.
                let apart = self.cost.window_first / self.cost.byte_tiles;
                let share = match window {
                    Some(w) if bytes && w.padded => apart,
                    Some(w) => self.share(w),
                    None => self.cost.contraction,
                };
                let guarded = if bytes { apart / share } else { self.cost.guarded };
                Work {
                    compute: 2.0 * n * self.extent(&c.depth(op, types)) / (peak * share),
                    windowed: window.map(|_| guarded),
                    ..Work::default()
                }
            }
        }
    }

    /// How many times more than once a kernel computes an element that it spreads: for each place along the axes that it is spread along, but for
    /// the innermost, which what does not change along them is hoisted out of.
    fn again(&self, op: &Op, from: &Type, to: &Type) -> f64 {
        let spread = |axis: &usize| op.along(from, to, *axis) == Along::Spread;
        let outer = (0..to.rank()).rev().skip_while(spread).filter(spread);
        outer.map(|axis| self.extent(&to.shape[axis]).max(1.0)).product::<f64>() - 1.0
    }

    /// The share of the peak that a loop nest over windows reaches, where layouts are as it likes them.
    fn share(&self, w: WindowShape) -> f64 {
        let c = &self.cost;
        let share = match w.channels {
            Channels::All => c.contraction,
            Channels::Group => c.contraction / 2.0,
            Channels::One => c.depthwise,
        };
        if w.padded { share * c.guarded } else { share }
    }

    /// True for a transpose of an image between channels first and channels last, which its layout makes none.
    fn moves_channels(&self, m: &dyn Movement, op: &Op) -> bool {
        m.permutation(op).is_some_and(|p| {
            let last = channels_last(p.len());
            self.images.contains(&p.len()) && (p == last || (0..p.len()).all(|d| last[p[d]] == d))
        })
    }

    /// Seconds that a kernel costs beyond its work.
    pub fn per_kernel(&self) -> f64 {
        self.cost.per_kernel
    }
}

/// What an operator does in a kernel.
#[derive(Clone, Copy, PartialEq, Debug, Default)]
pub struct Work {
    /// Seconds of arithmetic, where operands are read from memory.
    pub compute: f64,
    /// Seconds of memory beyond reading its operands once.
    pub memory: f64,
    /// True when consecutive elements of the result are not so in memory, or lie behind a margin.
    pub rough: bool,
    /// When elements of an operand are read once for every window that they are in: the share of the speed that is left
    /// where they lie behind a margin.
    pub windowed: Option<f64>,
    /// How many times more than once an operand that is computed in the same kernel is computed for each of its elements.
    pub again: f64,
    /// True when operands that other kernels compute can be written to their places in the result; see [`CostModel::spared`].
    pub embeds: bool,
}

impl Work {
    /// Seconds of what operands that are computed in the same kernel take there, given what each of their elements takes once.
    pub fn below(&self, operands: f64) -> f64 {
        operands * (1.0 + self.again)
    }

    /// Seconds of arithmetic where operands are computed in the same kernel, and whether the result is rough: given
    /// whether an operand is.
    pub fn arithmetic(&self, rough_operand: bool) -> (f64, bool) {
        match (self.rough || rough_operand, self.windowed) {
            (true, Some(guarded)) => (self.compute / guarded, false),
            (rough, _) => (self.compute, rough),
        }
    }
}

/// Lanes of 128 bits: an f64 or i64 costs two f32.
fn lanes(types: &[Type]) -> f64 {
    let bytes = types.iter().map(|t| t.dtype.compute().bytes().max(4)).max();
    bytes.unwrap_or(4) as f64 / 4.0
}
