//! Level 4: the program, the host side of a model: which kernels run on which memory, in which order.
//!
//! Values live in [`Slot`]s. The memory plan (a pass) gives every temporary an offset into one arena, as a dim expression,
//! so that it holds for all values of the symbols; inputs, outputs and constants are never arena slots. Steps run in
//! order. On a CPU a program becomes the entry function, which only calls; a CUDA runtime walks it.
//!
//! Sizes that only a run tells are symbols that a `read` step makes of an element; memory of such a size is given by an
//! `alloc` step: part of the arena, as large as the symbol's bound allows, or of the heap. Steps have blocks (`if`, `while`).
//!
//! Constants are bytes of the model ([`Storage::Weight`]), or results of the **initial steps** ([`Storage::Computed`]),
//! which depend on constants only and are run once by the compiler (packing, merged weights), straight into the artefact.
//!
//! ```text
//! program @mlp(input: s0) -> (y: s7) arena 768 {
//!   input s0: f32[3, 40] = 0
//!   weight s1: f32[64, 40] file("mlp.onnx", 132)
//!   computed s2: f32[40, 64] layout(1, 0, 1:32)
//!   temp s4: f32[3, 64] at 0
//!   …
//!   init {
//!     call @pack_0(s1, s2)
//!   }
//!   call @dense_0(s0, s2, s3, s4) origin("Gemm_0")
//!   call @dense_1(s4, s5, s6, s7) origin("Gemm_1")
//!   call @gather_2(s8, s9, s10) origin("Cast_2", "Gather_3") checks("Gather_3")
//! }
//! loops @pack_0(…
//! ```

pub mod interp;
mod kernel;
mod live;
mod steer;
mod step;
#[cfg(test)]
mod tests;
mod text;
mod verify;

pub use kernel::{Callable, Param};
pub use live::Life;
pub use step::{Let, Rows, Step, nested};

use crate::graph::{ConstData, Constant};
use crate::{Attr, Dim, Guard, Layout, Symbol, Tensor, Type, loops};
use rustc_hash::{FxHashMap, FxHashSet};
use std::fmt;
use std::sync::Arc;

/// The id of a slot, printed `s3`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SlotId(pub u32);

impl fmt::Display for SlotId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "s{}", self.0)
    }
}
impl fmt::Debug for SlotId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// An output that the caller may give the memory of an input: what the input is updated to (a cache). A copy of all of the
/// input to the output does nothing then; when the output was written otherwise, nothing reads the input any more.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Alias {
    /// The position of the input.
    pub input: u32,
    /// The position of the output.
    pub output: u32,
}

/// What a slot's memory is.
#[derive(Clone)]
pub enum Storage {
    /// The program's input of this position.
    Input(u32),
    /// The caller's buffer of the output of this position.
    Output(u32),
    /// Part of the arena, from this byte offset once planned.
    Temp(Option<Dim>),
    /// Constant bytes of the model.
    Weight(ConstData),
    /// A constant that an initial step computes.
    Computed,
    /// Memory of a size that only the run tells and nothing bounds; an `alloc` step asks the context for it.
    Heap,
    /// Part of another slot's memory: the same under another shape (a reshape), a piece of a concatenation, a slice.
    View {
        /// The other slot.
        of: SlotId,
        /// The byte of it where this one begins.
        offset: Dim,
    },
}

/// A tensor in memory. Equal slots have the same type and, for weights, the same elements.
#[derive(Clone)]
pub struct Slot {
    /// Its type.
    pub ty: Type,
    /// Its memory.
    pub storage: Storage,
    /// How its elements lie in memory.
    pub layout: Layout,
}

impl PartialEq for Slot {
    fn eq(&self, o: &Slot) -> bool {
        let constant = |data: &ConstData| Constant {
            ty: self.ty.clone(),
            data: data.clone(),
        };
        let same = match (&self.storage, &o.storage) {
            (Storage::Input(a), Storage::Input(b)) | (Storage::Output(a), Storage::Output(b)) => a == b,
            (Storage::Temp(a), Storage::Temp(b)) => a == b,
            (Storage::Weight(a), Storage::Weight(b)) => self.ty == o.ty && constant(a) == constant(b),
            (Storage::Computed, Storage::Computed) | (Storage::Heap, Storage::Heap) => true,
            (Storage::View { of: a, offset: x }, Storage::View { of: b, offset: y }) => a == b && x == y,
            _ => false,
        };
        same && self.ty == o.ty && self.layout == o.layout
    }
}

impl Slot {
    /// A tensor in row-major memory.
    pub fn new(ty: Type, storage: Storage) -> Slot {
        Slot {
            ty,
            storage,
            layout: Layout::ROW_MAJOR,
        }
    }
    /// The number of elements that its memory holds, padding included.
    pub fn elements(&self) -> Dim {
        self.layout.elements(&self.ty.shape)
    }
    /// The extents that it has in memory, from the outermost on.
    pub fn storage_shape(&self) -> Vec<Dim> {
        self.layout.shape(&self.ty.shape)
    }
    /// True where only the run tells its size, so that an `alloc` step gives it memory. `late` are the program's
    /// [`Program::bounds`].
    pub fn is_late(&self, late: &FxHashMap<Symbol, Option<Dim>>) -> bool {
        let mut found = matches!(self.storage, Storage::Heap);
        for d in &self.ty.shape {
            d.for_each_symbol(&mut |s| found |= late.contains_key(s));
        }
        found
    }
    /// Bytes of memory.
    pub fn bytes(&self) -> Dim {
        &self.elements() * self.ty.dtype.bytes() as i64
    }
}

/// The host side of a model, over kernels of a level: structured ones (a model at level 2), or loop nests.
#[derive(Clone, PartialEq)]
pub struct Program<K = loops::Kernel> {
    /// The model's name; the symbol prefix of generated code is derived from it.
    pub name: String,
    /// The symbols, in the order of `dims` in the ABI.
    pub symbols: Vec<Symbol>,
    /// Assumptions.
    pub guards: Vec<Guard>,
    /// Strings that have the numbers 0, 1, 2 …; see [`crate::Strings`].
    pub strings: Vec<Arc<str>>,
    /// Names for sizes, each over the symbols and those before it; slots, the arena and steps use them.
    pub lets: Vec<Let>,
    /// Inputs and outputs that may be the same memory.
    pub aliases: Vec<Alias>,
    /// Names and slots of the inputs.
    pub inputs: Vec<(String, SlotId)>,
    /// Names and slots of the outputs.
    pub outputs: Vec<(String, SlotId)>,
    /// Tensors in memory.
    pub slots: Vec<Slot>,
    /// Functions; structurally equal kernels stand here once.
    pub kernels: Vec<K>,
    /// Run once, by the compiler: they compute the [`Storage::Computed`] slots.
    pub init: Vec<Step>,
    /// Run at every inference.
    pub steps: Vec<Step>,
    /// Bytes of the arena's temporaries, once planned.
    pub arena: Option<Dim>,
}

impl<K> Program<K> {
    /// The slot that owns a slot's memory: itself, or what it is a view of.
    pub fn root(&self, s: SlotId) -> SlotId {
        match self.slots[s.0 as usize].storage {
            Storage::View { of, .. } => self.root(of),
            _ => s,
        }
    }
    /// The slot that owns a slot's memory, and the byte of it where this one begins.
    pub fn place(&self, s: SlotId) -> (SlotId, Dim) {
        match &self.slots[s.0 as usize].storage {
            Storage::View { of, offset } => {
                let (root, at) = self.place(*of);
                (root, &at + offset)
            }
            _ => (s, Dim::ZERO),
        }
    }
    /// The input that an output may be the memory of, as slots.
    pub fn aliased(&self, output: SlotId) -> Option<SlotId> {
        let Storage::Output(k) = self.slot(output).storage else {
            return None;
        };
        let alias = self.aliases.iter().find(|a| a.output == k)?;
        Some(self.inputs[alias.input as usize].1)
    }
    /// Whether a step copies an input to the output that may be its memory.
    pub fn copies_to_itself(&self, step: &Step) -> bool {
        match step {
            Step::Copy { from, to, rows: None } => self.aliased(self.root(*to)) == Some(self.root(*from)),
            _ => false,
        }
    }
    /// A slot's declaration.
    pub fn slot(&self, s: SlotId) -> &Slot {
        &self.slots[s.0 as usize]
    }

    /// The symbols' values under which the inputs have the given shapes.
    ///
    /// # Errors
    /// When number, dtype, rank or an extent contradicts the inputs' types.
    pub fn bind(&self, inputs: &[Tensor]) -> Result<Vec<(Symbol, i64)>, String> {
        if inputs.len() != self.inputs.len() {
            return Err(format!("{} inputs given, {} expected", inputs.len(), self.inputs.len()));
        }
        let mut env: Vec<(Symbol, i64)> = vec![];
        let ports = || {
            self.inputs
                .iter()
                .zip(inputs)
                .map(|((name, s), t)| (name, &self.slot(*s).ty, t))
        };
        for (_, ty, t) in ports() {
            for (d, &n) in ty.shape.iter().zip(t.shape()) {
                if let Some(s) = d.as_symbol()
                    && !env.iter().any(|(k, _)| k == s)
                {
                    env.push((s.clone(), n as i64));
                }
            }
        }
        let lookup = |s: &str| env.iter().find(|(k, _)| **k == *s).map(|(_, v)| *v);
        for (name, ty, t) in ports() {
            let fits = ty.dtype == t.dtype()
                && ty.rank() == t.shape().len()
                && ty
                    .shape
                    .iter()
                    .zip(t.shape())
                    .all(|(d, &n)| d.eval(&lookup) == Some(n as i64));
            if !fits {
                let found = format!("{}{:?}", t.dtype(), t.shape());
                return Err(format!("input `{name}` is {found}, expected {ty} (symbols: {env:?})"));
            }
        }
        Ok(env)
    }

    /// The names that the program gives to sizes, in the order in which they get their values.
    pub fn names(&self) -> impl Iterator<Item = &Symbol> {
        let steps = nested(&self.steps).into_iter().filter_map(Step::name);
        self.lets.iter().map(|l| &l.symbol).chain(steps)
    }

    /// The names that steps give, and how large their values can be, over what is known before a run; `None` where
    /// nothing bounds them.
    pub fn bounds(&self) -> FxHashMap<Symbol, Option<Dim>> {
        let mut late: FxHashMap<Symbol, Option<Dim>> = FxHashMap::default();
        for s in nested(&self.steps) {
            let (symbol, bound) = match s {
                Step::Let(l) => (&l.symbol, l.value.upper_bound(&late)),
                Step::Read { symbol, bound, .. } => (symbol, bound.as_ref().and_then(|d| d.upper_bound(&late))),
                _ => continue,
            };
            late.insert(symbol.clone(), bound);
        }
        late
    }

    /// Gives the program's lets their values, behind those of the symbols.
    ///
    /// # Errors
    /// When a value has no number, or a negative one.
    pub fn bind_lets(&self, env: &mut Vec<(Symbol, i64)>) -> Result<(), String> {
        for l in &self.lets {
            let lookup = |s: &str| env.iter().rev().find(|(k, _)| **k == *s).map(|(_, v)| *v);
            let value = l.number(&lookup)?;
            env.push((l.symbol.clone(), value));
        }
        Ok(())
    }
}

impl<K: Callable> Program<K> {
    /// The slots that a step itself reads, and those that it writes.
    pub fn accesses(&self, step: &Step) -> (Vec<SlotId>, Vec<SlotId>) {
        match step {
            Step::Call { kernel, args, .. } => {
                let params = self.kernels.get(*kernel as usize).map_or(vec![], Callable::params);
                let written = |i: usize| params.get(i).is_some_and(|p| p.written);
                let (writes, reads): (Vec<(usize, SlotId)>, Vec<_>) =
                    args.iter().copied().enumerate().partition(|(i, _)| written(*i));
                let slots = |list: Vec<(usize, SlotId)>| list.into_iter().map(|(_, s)| s).collect();
                (slots(reads), slots(writes))
            }
            Step::Copy { from, to, .. } => (vec![*from], vec![*to]),
            Step::Host { inputs, outputs, .. } => (inputs.clone(), outputs.clone()),
            Step::Read { from: s, .. } | Step::If { cond: s, .. } | Step::While { cond: s, .. } => (vec![*s], vec![]),
            Step::Alloc { .. } | Step::Let(_) | Step::Check { .. } => (vec![], vec![]),
        }
    }
}

impl Program {
    /// Those of the program's names that kernels or host operators of the main steps use, in order.
    pub fn visible_names(&self) -> Vec<Symbol> {
        let mut used: FxHashSet<&Symbol> = FxHashSet::default();
        let mut dims: Vec<&Dim> = vec![];
        for step in nested(&self.steps) {
            match step {
                Step::Call { kernel, .. } => {
                    used.extend(self.kernels.get(*kernel as usize).iter().flat_map(|k| &k.symbols))
                }
                Step::Host {
                    op, inputs, outputs, ..
                } => {
                    dims.extend(inputs.iter().chain(outputs).flat_map(|s| &self.slot(*s).ty.shape));
                    dims.extend(op.attrs().iter().flat_map(|a| match a {
                        Attr::Dims(dims) => &dims[..],
                        _ => &[],
                    }));
                }
                _ => {}
            }
        }
        let mut named: Vec<Symbol> = vec![];
        dims.iter()
            .for_each(|d| d.for_each_symbol(&mut |s| named.push(s.clone())));
        used.extend(&named);
        self.names().filter(|s| used.contains(s)).cloned().collect()
    }

    /// Bytes of scratch that one worker needs: the largest of any kernel of `steps`.
    pub fn scratch_bytes(&self) -> Dim {
        let mut max = Dim::ZERO;
        for s in nested(&self.steps) {
            if let Step::Call { kernel, .. } = s {
                max = Dim::max(&max, &self.kernels[*kernel as usize].scratch_bytes());
            }
        }
        max
    }
}

/// A C identifier from a model's name.
pub fn identifier(name: &str) -> String {
    let mut s: String = name
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() { c } else { '_' })
        .collect();
    if s.is_empty() || s.starts_with(|c: char| c.is_ascii_digit()) {
        s.insert(0, 'm');
    }
    s
}
