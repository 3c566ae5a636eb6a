//! A structured kernel with flat addresses: what scheduling works on.
//!
//! Every access is one index expression over variables, which says where the element stands: nothing below asks for layouts.
//! Adjacent outer dimensions whose every access strides as if they
//! were one dimension are merged, dimensions of extent 1 disappear; so an element-wise kernel over contiguous tensors of
//! any rank is one loop, and a 1×1 convolution is a matrix product. Dimensions of stages merge likewise; a loop of the kernel's
//! tree stays as it is.

use brolga_ir::index::{Bound, Ix, Reg, Term, Var};
use brolga_ir::loops::{Buf, Buffer, Scope};
use brolga_ir::scalar::Body;
use brolga_ir::structured::{self, Check, Combine, IterDim, IterKind, Kernel, Local, Part, Place, Read, Role};
use brolga_ir::{DType, Dim, Layout, Symbol};

/// Where an access goes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Target {
    /// A buffer parameter.
    Buffer(Buf),
    /// A local; the index is into its row-major tile (0 for a scalar).
    Local(u32),
}

impl Target {
    /// The buffer parameter, when it is one.
    pub fn buffer(&self) -> Option<Buf> {
        match self {
            Target::Buffer(b) => Some(*b),
            Target::Local(_) => None,
        }
    }
}

/// One input of a stage's body; see [`Read`].
#[derive(Clone, Debug)]
pub enum FlatRead {
    /// An element.
    Element {
        /// From where.
        target: Target,
        /// Flat index.
        index: Ix,
        /// In-bounds conditions.
        guard: Vec<Bound>,
        /// Bits of the value out of bounds.
        fill: u64,
    },
    /// The value of an index expression.
    Index(Ix),
    /// Whether bounds hold.
    InBounds(Vec<Bound>),
    /// A function of earlier reads.
    Computed(Body, Vec<u32>),
}

/// A stage with flat addresses.
#[derive(Clone, Debug)]
pub struct FlatStage {
    /// Inner dimensions, each with its variable.
    pub dims: Vec<(Var, IterDim)>,
    /// What holds of the points that there are.
    pub guard: Vec<Bound>,
    /// The body's inputs.
    pub reads: Vec<FlatRead>,
    /// What is checked of indices that come from data.
    pub checks: Vec<Check>,
    /// Computes the values.
    pub body: Body,
    /// Merges over reduction dimensions.
    pub combine: Option<Combine>,
    /// Results.
    pub writes: Vec<(Target, Ix)>,
    /// Bounds of a scatter's writes.
    pub write_bounds: Vec<Bound>,
    /// See [`structured::Stage::scan`].
    pub scan: bool,
    /// See [`structured::Stage::scatter`].
    pub scatter: bool,
}

/// A node of the kernel's tree.
#[derive(Clone, Debug)]
pub enum Node {
    /// A stage, by its position among all.
    Stage(usize),
    /// Nodes that run for each value of a variable, in order.
    Loop {
        /// The variable.
        var: Var,
        /// Its number of values.
        extent: Dim,
        /// See [`structured::Loop::needed`].
        needed: Vec<Bound>,
        /// What runs.
        body: Vec<Node>,
    },
}

/// A kernel with flat addresses.
#[derive(Clone, Debug)]
pub struct Flat {
    /// Name.
    pub name: String,
    /// Symbols.
    pub symbols: Vec<Symbol>,
    /// Parameters.
    pub buffers: Vec<Buffer>,
    /// Kept values.
    pub locals: Vec<Local>,
    /// Outer parallel dimensions.
    pub outer: Vec<(Var, Dim)>,
    /// All stages, in the order of the text.
    pub stages: Vec<FlatStage>,
    /// How the stages run where some do so in loops; empty where they run one after the other.
    pub tree: Vec<Node>,
    /// The first variable that is not in use.
    pub next_var: u32,
}

impl Flat {
    /// The flat form of a kernel.
    pub fn new(kernel: &Kernel) -> Flat {
        let scope = |r| if r == Role::In { Scope::In } else { Scope::Out };
        let buffers = kernel.operands.iter().map(|o| Buffer {
            dtype: o.ty.dtype,
            len: o.elements(),
            scope: scope(o.role),
        });
        let target = |p: &Place, map: &[Ix]| match p {
            Place::Operand(i) => {
                let o = &kernel.operands[*i as usize];
                (Target::Buffer(Buf(*i)), o.layout.index(map, &o.ty.shape))
            }
            Place::Local(l) => {
                let at = Layout::ROW_MAJOR.index(map, &kernel.locals[*l as usize].shape);
                (Target::Local(*l), at)
            }
        };
        let n = kernel.outer.len() as u32;
        let mut next_var = n;
        let placed = kernel.placed();
        let stages = placed.iter().map(|(s, loops)| {
            let first = n + loops.len() as u32;
            let dims: Vec<_> = (first..).map(Var).zip(s.dims.iter().cloned()).collect();
            next_var = next_var.max(first + dims.len() as u32);
            let reads = s.reads.iter().map(|r| match r {
                Read::Element {
                    place,
                    map,
                    guard,
                    fill,
                } => {
                    let (target, index) = target(place, map);
                    FlatRead::Element {
                        target,
                        index,
                        guard: guard.clone(),
                        fill: *fill,
                    }
                }
                Read::Index(ix) => FlatRead::Index(ix.clone()),
                Read::InBounds(b) => FlatRead::InBounds(b.clone()),
                Read::Computed(b, a) => FlatRead::Computed(b.clone(), a.clone()),
            });
            let bounds = |(p, map): &(Place, Vec<Ix>)| -> Vec<Bound> {
                let Place::Operand(o) = p else { return vec![] };
                let shape = &kernel.operands[*o as usize].ty.shape;
                map.iter()
                    .zip(shape)
                    .map(|(i, d)| Bound {
                        index: i.clone(),
                        extent: d.clone(),
                    })
                    .collect()
            };
            FlatStage {
                dims,
                guard: s.guard.clone(),
                reads: reads.collect(),
                checks: s.checks.clone(),
                body: s.body.clone(),
                combine: s.combine.clone(),
                writes: s.writes.iter().map(|(p, m)| target(p, m)).collect(),
                write_bounds: if s.scatter {
                    s.writes.iter().flat_map(bounds).collect()
                } else {
                    vec![]
                },
                scan: s.scan,
                scatter: s.scatter,
            }
        });
        let stages = stages.collect();
        let outer = kernel
            .outer
            .iter()
            .enumerate()
            .map(|(i, d)| (Var(i as u32), d.clone()))
            .collect();
        let mut flat = Flat {
            name: kernel.name.clone(),
            symbols: kernel.symbols.clone(),
            buffers: buffers.collect(),
            locals: kernel.locals.clone(),
            outer,
            stages,
            tree: match kernel.list() {
                Some(_) => vec![],
                None => nodes(&kernel.parts, n, &mut 0),
            },
            next_var,
        };
        flat.split_divided();
        flat.drop_units();
        flat.merge_outer();
        flat.merge_inner();
        flat
    }

    /// Splits every dimension that indices divide into quotient and remainder, so that addresses are affine: what a reshape
    /// merged is iterated over as it lies in memory.
    ///
    /// ```text
    /// for k in 0..768 { a[8192*div(k, 64) + rem(k, 64)] }  -->  for p in 0..12 { for t in 0..64 { a[8192*p + t] } }
    /// ```
    fn split_divided(&mut self) {
        let mut i = 0;
        while i < self.outer.len() {
            let (v, extent) = self.outer[i].clone();
            let mut divisor = None;
            self.each_index(&mut |ix, _| divisor = divisor.take().or_else(|| divides(ix, v, &extent)));
            if let Some((c, q)) = divisor {
                let t = self.fresh();
                self.each_index(&mut |ix, _| *ix = split(ix, v, t, &c));
                self.outer[i].1 = q;
                self.outer.insert(i + 1, (t, c));
            } else {
                i += 1;
            }
        }
        let mut next = self.next_var;
        for s in &mut self.stages {
            let mut i = 0;
            while i < s.dims.len() {
                let (v, d) = s.dims[i].clone();
                let mut divisor = None;
                s.each_index(&mut |ix, _| divisor = divisor.take().or_else(|| divides(ix, v, &d.extent)));
                if let Some((c, q)) = divisor {
                    let t = Var(next);
                    next += 1;
                    s.each_index(&mut |ix, _| *ix = split(ix, v, t, &c));
                    s.dims[i].1.extent = q;
                    s.dims.insert(i + 1, (t, IterDim { extent: c, ..d }));
                } else {
                    i += 1;
                }
            }
        }
        self.next_var = next;
    }

    /// A variable of its own.
    fn fresh(&mut self) -> Var {
        self.next_var += 1;
        Var(self.next_var - 1)
    }

    /// Removes outer dimensions of extent 1.
    fn drop_units(&mut self) {
        let unit: Vec<Var> = self.outer.iter().filter(|(_, d)| d.is(1)).map(|(v, _)| *v).collect();
        self.outer.retain(|(_, d)| !d.is(1));
        self.each_index(&mut |ix, _| {
            if unit.iter().any(|&u| ix.uses(u)) {
                *ix = ix.substitute(
                    &|v| if unit.contains(&v) { Ix::constant(0) } else { Ix::var(v) },
                    &Ix::reg,
                );
            }
        });
    }

    /// Calls `f` with every index expression, and whether it is an address.
    fn each_index(&mut self, f: &mut dyn FnMut(&mut Ix, bool)) {
        fn of_loops(nodes: &mut [Node], f: &mut dyn FnMut(&mut Ix, bool)) {
            for n in nodes {
                if let Node::Loop { needed, body, .. } = n {
                    needed.iter_mut().for_each(|b| f(&mut b.index, false));
                    of_loops(body, f);
                }
            }
        }
        for s in &mut self.stages {
            s.each_index(f);
        }
        of_loops(&mut self.tree, f);
    }

    fn merge_outer(&mut self) {
        let mut i = 0;
        while i + 1 < self.outer.len() {
            let ((a, _), (b, n)) = (self.outer[i].clone(), self.outer[i + 1].clone());
            let mut ok = true;
            self.each_index(&mut |ix, address| ok &= mergeable(ix, address, a, b, &n));
            if ok {
                self.each_index(&mut |ix, _| forget(ix, a));
                let (_, m) = self.outer.remove(i);
                self.outer[i].1 = &m * &n;
                i = i.saturating_sub(1);
            } else {
                i += 1;
            }
        }
    }

    fn merge_inner(&mut self) {
        for s in &mut self.stages {
            let mut i = 0;
            while i + 1 < s.dims.len() {
                let ((a, da), (b, db)) = (s.dims[i].clone(), s.dims[i + 1].clone());
                let mut ok = da.kind == db.kind;
                s.each_index(&mut |ix, address| ok &= mergeable(ix, address, a, b, &db.extent));
                if ok {
                    s.each_index(&mut |ix, _| forget(ix, a));
                    s.dims.remove(i);
                    s.dims[i].1.extent = &da.extent * &db.extent;
                } else {
                    i += 1;
                }
            }
        }
    }

    /// True where some stages run in loops.
    pub fn has_loops(&self) -> bool {
        !self.tree.is_empty()
    }

    /// Whether some stage computes a local.
    pub fn is_written(&self, local: usize) -> bool {
        let t = Target::Local(local as u32);
        self.stages.iter().any(|s| s.writes.iter().any(|w| w.0 == t))
    }

    /// The number of outer points.
    pub fn points(&self) -> Dim {
        brolga_ir::dim::product(self.outer.iter().map(|(_, d)| d))
    }

    /// The dtype of what a target holds.
    pub fn dtype(&self, t: Target) -> DType {
        match t {
            Target::Buffer(b) => self.buffers[b.0 as usize].dtype,
            Target::Local(l) => self.locals[l as usize].dtype,
        }
    }
}

impl FlatStage {
    /// Calls `f` with every index expression, and whether it is an address.
    pub fn each_index(&mut self, f: &mut dyn FnMut(&mut Ix, bool)) {
        for r in &mut self.reads {
            match r {
                FlatRead::Element { index, guard, .. } => {
                    f(index, true);
                    guard.iter_mut().for_each(|b| f(&mut b.index, false));
                }
                FlatRead::Index(ix) => f(ix, false),
                FlatRead::InBounds(b) => b.iter_mut().for_each(|b| f(&mut b.index, false)),
                FlatRead::Computed(..) => {}
            }
        }
        self.writes.iter_mut().for_each(|(_, ix)| f(ix, true));
        let bounds = self.guard.iter_mut().chain(&mut self.write_bounds);
        bounds.for_each(|b| f(&mut b.index, false));
        let checked = self
            .checks
            .iter_mut()
            .flat_map(|c| c.bounds.iter_mut().chain(&mut c.guard));
        checked.for_each(|b| f(&mut b.index, false));
    }

    /// Calls `f` with whatever is read or written.
    pub fn each_target(&mut self, f: &mut dyn FnMut(&mut Target)) {
        for r in &mut self.reads {
            if let FlatRead::Element { target, .. } = r {
                f(target);
            }
        }
        self.writes.iter_mut().for_each(|(t, _)| f(t));
    }

    /// The number of inner points.
    pub fn length(&self) -> Dim {
        brolga_ir::dim::product(self.dims.iter().map(|(_, d)| &d.extent))
    }

    /// True when the stage reads contiguously along its innermost dimension.
    pub fn reads_contiguously(&self) -> bool {
        let Some((v, d)) = self.dims.last() else { return true };
        let few = d.extent.as_const().is_some_and(|n| n < 8);
        let contiguous = |r: &FlatRead| matches!(r, FlatRead::Element { index, .. } if stride_is_one(index, *v));
        !few && self.reads.iter().any(contiguous)
    }

    /// True when the stage merges over some dimension.
    pub fn reduces(&self) -> bool {
        self.dims.iter().any(|(_, d)| d.kind == IterKind::Reduction)
    }
}

/// The tree of parts whose loops count by variables from `var` on; `stages` counts stages.
fn nodes(parts: &[Part], var: u32, stages: &mut usize) -> Vec<Node> {
    let one = |p: &Part| match p {
        Part::Stage(_) => {
            *stages += 1;
            Node::Stage(*stages - 1)
        }
        Part::Loop(l) => Node::Loop {
            var: Var(var),
            extent: l.extent.clone(),
            needed: l.needed.clone(),
            body: nodes(&l.body, var + 1, stages),
        },
    };
    parts.iter().map(one).collect()
}

/// The divisor by which an index divides just the variable `v`, and the quotient's extent, when the division is even.
fn divides(ix: &Ix, v: Var, extent: &Dim) -> Option<(Dim, Dim)> {
    ix.terms.iter().find_map(|(t, _)| match t {
        Term::Div(e, c) | Term::Mod(e, c) if e.as_var() == Some(v) => Some((c.clone(), extent.exact_div(c)?)),
        Term::Div(e, _) | Term::Mod(e, _) | Term::Min(e, _) => divides(e, v, extent),
        _ => None,
    })
}

/// The index with `v` standing for quotients by `c` and `t` for remainders.
fn split(ix: &Ix, v: Var, t: Var, c: &Dim) -> Ix {
    let whole = &Ix::var(v).scale(c) + &Ix::var(t);
    let mut sum = Ix::constant(ix.offset.clone());
    for (term, k) in &ix.terms {
        let e = match term {
            Term::Var(u) if *u == v => whole.clone(),
            Term::Div(e, d) if d == c && e.as_var() == Some(v) => Ix::var(v),
            Term::Mod(e, d) if d == c && e.as_var() == Some(v) => Ix::var(t),
            Term::Div(e, d) => split(e, v, t, c).div(d),
            Term::Mod(e, d) => split(e, v, t, c).modulo(d),
            Term::Min(e, d) => split(e, v, t, c).at_most(d),
            Term::Var(u) => Ix::var(*u),
            Term::Reg(r) => Ix::reg(*r),
        };
        sum = &sum + &e.scale(k);
    }
    sum
}

/// True when `a` (outer) and `b` (of extent `n`) stride in `ix` as one dimension would.
fn mergeable(ix: &Ix, address: bool, a: Var, b: Var, n: &Dim) -> bool {
    match (ix.stride(a), ix.stride(b)) {
        (Some(sa), Some(sb)) => {
            if address {
                sa == &sb * n
            } else {
                sa.is(0) && sb.is(0)
            }
        }
        _ => false,
    }
}

/// Drops the top-level term of a variable.
fn forget(ix: &mut Ix, a: Var) {
    ix.terms.retain(|(t, _)| *t != Term::Var(a));
}

/// True when every index of a guard-free access is an affine sum of variables.
pub fn is_affine(ix: &Ix) -> bool {
    ix.terms.iter().all(|(t, _)| matches!(t, Term::Var(_)))
}

/// Number of elements of a local.
pub fn local_len(l: &structured::Local) -> Dim {
    brolga_ir::dim::product(&l.shape)
}

/// What a variable stands for by a table; itself, where it is not in it.
pub fn look_up(map: &[(Var, Ix)], v: Var) -> Ix {
    map.iter()
        .find(|(u, _)| *u == v)
        .map_or_else(|| Ix::var(v), |(_, ix)| ix.clone())
}

/// True when a variable moves an index by one.
pub fn stride_is_one(ix: &Ix, v: Var) -> bool {
    ix.stride(v).is_some_and(|s| s.is(1))
}

/// The identity substitution of run-time integers by registers of reads.
pub fn by_read(regs: &[Reg]) -> impl Fn(Reg) -> Ix + '_ {
    move |r| Ix::reg(regs[r.0 as usize])
}
