//! Bodies: nests of loops with vector loops inside, as one function in registers of 256 or 512 bits.
//!
//! ```text
//! for i0 parallel 0..n {                          fn(args) {
//!   for i1 serial 0..m {                            g2 = load [args]            where b0 begins
//!     for i2 vector 0..16 {            -->          …
//!       r0: f32 = load b0[(16*m)*i0 + 16*i1 + i2]   v7 = load f32x16 [g4 + g5]
//!       …                                           …
//! } } }                                             return }
//! ```
//!
//! Statements that follow each other become one function of a block of arguments: places of buffers, extents and strides that
//! are not known, values of registers ([`Arg`]). What is the same all through the call is computed by the caller, so that an
//! address inside is a sum of products of the function's own loop variables.
//!
//! Values: a register is lanes in one or more machine registers, one value on every lane, or one lane of a register that was
//! kept across loops ([`value`]). Integers of 8 and 16 bits are held in lanes of 32, as their own sign says, and f16 and bf16
//! packed, as they lie in memory. A scalar is computed on all lanes, where it costs as much.
//!
//! Horizontal reductions need no operation of their own: `lane r 0 + lane r 8` is one addition of `r` and `r` turned by eight
//! lanes, and the next seven pairs are the same addition, which is found again by its operands.
//!
//! Invariant: same bits as the interpreter of the level, on every level of CPU; where an operation has no form here, the
//! statement is not taken, and says why.
//!
//! | module | what stands there |
//! | --- | --- |
//! | this one | statements, loops, what is taken |
//! | `address` | loops as counters, places of elements as pointers |
//! | `value` | values, registers that are assigned again |
//! | `access` | loads, stores, bounds |
//! | `dots` | sums of products of bytes |
//! | `prim`, `cast` | primitives |

mod access;
mod address;
mod cast;
mod dots;
mod prim;
mod value;

use super::Isa;
use super::vir::{Class, Function, G, Logic, Mem, Op, V};
use crate::rare::{Rare, Uses};
use address::Level;
use brolga_ir::index::{Ix, Reg, Var};
use brolga_ir::loops::{Buf, Expr, Kernel, LoopKind, Stmt, visit, visit_sets};
use brolga_ir::{DType, Dim};
use rustc_hash::{FxHashMap, FxHashSet};
use value::{Val, Variable};

/// A word of eight bytes of the block of arguments.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Arg {
    /// The address of an element.
    Address(Buf, Ix),
    /// A number.
    Index(Ix),
    /// A number, or 0 where it is negative.
    Extent(Dim),
    /// How many iterations of the parallel loop there are to run; its variable is the first of them in other arguments.
    Iterations,
    /// The bits of a register that is assigned before; a bool as 0 or 1.
    Register(Reg),
    /// The bits of a register as the function leaves them.
    Result(Reg),
}

/// A function, and what it is called with.
pub(crate) struct Nest {
    pub function: Function,
    /// The block that its argument points to.
    pub args: Vec<Arg>,
}

/// Why statements are not taken.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Refusal {
    /// The statement, of those given.
    pub at: usize,
    /// What there is no form of.
    pub why: String,
}

/// `Err` says what there is no form of.
type Made<T> = Result<T, String>;

/// Elements that a load names: a stream, a constant, the lanes' stride and number.
type Place = (address::Stream, i64, Dim, Option<u32>);

/// How often the registers of a kernel are read.
#[derive(Default)]
pub(crate) struct Reads(FxHashMap<Reg, usize>);

impl Reads {
    pub fn of(stmts: &[Stmt]) -> Reads {
        let mut reads = Reads::default();
        visit(stmts, &mut |s, _| {
            s.for_each_read(&mut |r| *reads.0.entry(r).or_default() += 1);
        });
        reads
    }

    fn get(&self, r: Reg) -> usize {
        self.0.get(&r).copied().unwrap_or(0)
    }
}

/// Statements of a kernel as a function. `all` counts the whole kernel's reads, `uses` is what its rare statements are found by;
/// `dots` says whether four products of bytes are one instruction.
///
/// # Errors
/// The first statement that has no form here.
pub(crate) fn build(
    name: &str,
    (isa, dots): (Isa, bool),
    k: &Kernel,
    stmts: &[Stmt],
    all: &Reads,
    uses: &Uses,
) -> Result<Nest, Refusal> {
    let mut f = Function::new(name, isa);
    let args = f.param();
    let inside = Reads::of(stmts);
    let mut b = Builder {
        k,
        f,
        dots,
        at: args,
        args: vec![],
        entry: vec![],
        levels: vec![],
        known: FxHashMap::default(),
        pointers: FxHashMap::default(),
        vector: None,
        env: FxHashMap::default(),
        variables: FxHashMap::default(),
        variable_of: FxHashMap::default(),
        born: FxHashMap::default(),
        loaded: FxHashMap::default(),
        owners: FxHashMap::default(),
        memo: FxHashMap::default(),
        reads: &inside,
        uses,
        stored: stored(stmts),
    };
    b.declare(stmts).map_err(|why| Refusal { at: 0, why })?;
    for (at, s) in stmts.iter().enumerate() {
        b.stmts(std::slice::from_ref(s), at, stmts)
            .map_err(|why| Refusal { at, why })?;
    }
    // What others read, with the statement that assigns it first.
    let mut results: Vec<(usize, Reg)> = vec![];
    for (at, s) in stmts.iter().enumerate() {
        visit_sets(std::slice::from_ref(s), &mut |r| {
            if all.get(r) > inside.get(r) && results.iter().all(|(_, known)| *known != r) {
                results.push((at, r));
            }
        });
    }
    for (at, r) in results {
        b.result(r).map_err(|why| Refusal { at, why })?;
    }
    b.f.push(Op::Return);
    let code = std::mem::take(&mut b.f.ops);
    b.f.ops = b.entry;
    b.f.ops.extend(code);
    Ok(Nest {
        function: b.f,
        args: b.args,
    })
}

/// The buffers that statements write.
fn stored(stmts: &[Stmt]) -> FxHashSet<Buf> {
    let mut out = FxHashSet::default();
    visit(stmts, &mut |s, _| {
        if let Stmt::Store { buffer, .. } = s {
            out.insert(*buffer);
        }
    });
    out
}

/// An open vector loop.
#[derive(Clone, Copy)]
struct Lanes {
    /// None where a register with lanes is assigned outside of a loop.
    var: Option<Var>,
    count: u32,
}

/// A function under construction.
struct Builder<'k> {
    k: &'k Kernel,
    f: Function,
    /// Whether four products of bytes are one instruction.
    dots: bool,
    /// Where the arguments are.
    at: G,
    args: Vec<Arg>,
    /// Code before everything else.
    entry: Vec<Op>,
    /// The open loops, outermost first; the code of the innermost one's body is the function's.
    levels: Vec<Level>,
    /// Variables of iterations that are repeated in code.
    known: FxHashMap<Var, i64>,
    /// Pointers that no loop moves.
    pointers: FxHashMap<address::Stream, G>,
    vector: Option<Lanes>,
    env: FxHashMap<Reg, Val>,
    /// Registers that are assigned more than once.
    variables: FxHashMap<Reg, Variable>,
    /// Whose a machine register is, of those.
    variable_of: FxHashMap<V, Reg>,
    /// How many loops are around the place where a value is computed, for values that are computed once.
    born: FxHashMap<V, usize>,
    /// What was loaded since the last loop began or ended, of buffers that the function only reads.
    loaded: FxHashMap<Place, Val>,
    /// How many registers have a value.
    owners: FxHashMap<V, usize>,
    /// Operations on single lanes and on one value for all lanes, by their operands, since the last statement that changed one.
    memo: FxHashMap<prim::Known, V>,
    reads: &'k Reads,
    uses: &'k Uses,
    /// Buffers that the function writes.
    stored: FxHashSet<Buf>,
}

impl Builder<'_> {
    /// Makes the registers of what is assigned more than once.
    fn declare(&mut self, stmts: &[Stmt]) -> Made<()> {
        let mut sets: FxHashMap<Reg, usize> = FxHashMap::default();
        let mut read_first: FxHashSet<Reg> = FxHashSet::default();
        let mut order: Vec<Reg> = vec![];
        visit(stmts, &mut |s, lanes| {
            s.for_each_read(&mut |r| {
                if !sets.contains_key(&r) {
                    read_first.insert(r);
                }
            });
            if let Stmt::Set(r, _) = s {
                // What a vector loop assigns is its own, but for lanes that are kept.
                if lanes > 0 && self.k.reg(*r).lanes <= 1 {
                    read_first.remove(r);
                    return;
                }
                let n = sets.entry(*r).or_default();
                *n += 1;
                if *n == 1 {
                    order.push(*r);
                }
            }
        });
        for r in order {
            let info = self.k.reg(r);
            // Lanes that are kept are in memory of their own, as a loop may read what the iteration before it wrote.
            if info.lanes > 1 && !has_lanes(info.lanes.into()) {
                return Err(format!("{r} has {} lanes, {LANES}", info.lanes));
            }
            if sets[&r] > 1 || read_first.contains(&r) || info.lanes > 1 {
                let variable = self.new_variable(info.dtype, info.lanes);
                if let Variable::Vector(v) = &variable {
                    v.iter().for_each(|v| {
                        self.variable_of.insert(*v, r);
                    });
                }
                if read_first.contains(&r) {
                    self.start(r, &variable)?;
                }
                self.variables.insert(r, variable);
            }
        }
        Ok(())
    }

    /// Gives a register the value that it has before.
    fn start(&mut self, r: Reg, variable: &Variable) -> Made<()> {
        let info = self.k.reg(r);
        if info.lanes > 1 {
            return Err(format!("{r} has lanes and is assigned elsewhere"));
        }
        let given = self.given(r, info.dtype)?;
        self.env.remove(&r);
        match (variable, given) {
            (Variable::Vector(to), Val::Splat(src)) => self.entry.push(Op::Move { dst: to[0], src }),
            (Variable::Mask(to), Val::SplatMask(src)) => self.entry.push(Op::MoveMask { dst: to[0], src }),
            _ => return Err(format!("{r} is no scalar")),
        }
        Ok(())
    }

    fn stmts(&mut self, body: &[Stmt], from: usize, list: &[Stmt]) -> Made<()> {
        let rare = Rare::of(list, self.uses, self.k);
        for (i, s) in (from..).zip(body).filter(|(i, _)| !rare.moved(*i)) {
            match (s, rare.cone(i)) {
                (Stmt::Set(r, e @ Expr::Prim(_, x)), Some(cone)) => {
                    self.rarely(*r, e, x[0], x[2], cone.iter().map(|&j| &list[j]))?;
                }
                _ => self.stmt(s)?,
            }
        }
        Ok(())
    }

    fn stmt(&mut self, s: &Stmt) -> Made<()> {
        match s {
            Stmt::For {
                var,
                kind,
                extent,
                body,
            } => {
                if self.vector.is_none()
                    && let Some(dots) = self.as_dots(s)
                    && self.dots(&dots)?
                {
                    return Ok(());
                }
                self.for_loop(*var, kind, extent, body)
            }
            Stmt::Set(r, e) => {
                let info = self.k.reg(*r);
                if info.lanes > 1 && self.vector.is_none() {
                    self.vector = Some(Lanes {
                        var: None,
                        count: info.lanes,
                    });
                    let v = self.expr(info.dtype, e);
                    let done = v.and_then(|v| self.set(*r, v, e));
                    self.vector = None;
                    return done;
                }
                let v = self.expr(info.dtype, e)?;
                self.set(*r, v, e)
            }
            Stmt::Store { buffer, index, value } => self.store(*buffer, index, *value),
            Stmt::If { .. } => Err("a branch".into()),
            Stmt::Check { .. } => Err("a check".into()),
            Stmt::Barrier => Err("a barrier".into()),
            Stmt::Tile(_) => Err("a register tile".into()),
        }
    }

    fn for_loop(&mut self, var: Var, kind: &LoopKind, extent: &Ix, body: &[Stmt]) -> Made<()> {
        if self.vector.is_some() {
            return Err("a loop in a vector loop".into());
        }
        let known = || extent.as_const().ok_or_else(|| format!("{var} has no known extent"));
        match kind {
            LoopKind::Unrolled => {
                for i in 0..known()? {
                    let before = self.known.insert(var, i);
                    self.stmts(body, 0, body)?;
                    match before {
                        Some(i) => self.known.insert(var, i),
                        None => self.known.remove(&var),
                    };
                }
                Ok(())
            }
            LoopKind::Vector => {
                let count = known()?;
                if !has_lanes(count) {
                    return Err(format!("a vector loop of {count} lanes, {LANES}"));
                }
                self.vector = Some(Lanes {
                    var: Some(var),
                    count: count as u32,
                });
                let done = self.stmts(body, 0, body);
                self.vector = None;
                done
            }
            LoopKind::Serial => self.serial(var, extent, false, body),
            LoopKind::Parallel(_) if self.is_parallel(var) => self.serial(var, extent, true, body),
            LoopKind::Parallel(_) => Err("a parallel loop inside of serial ones".into()),
            LoopKind::Block(_) | LoopKind::Thread(_) => Err("a loop of a GPU".into()),
        }
    }

    /// `r = e`, where the statements of `cone` run only if any lane asks for what they give.
    fn rarely<'s>(
        &mut self,
        r: Reg,
        e: &Expr,
        asks: Reg,
        usual: Reg,
        cone: impl Iterator<Item = &'s Stmt>,
    ) -> Made<()> {
        let d = self.k.reg(r).dtype;
        let (mask, usual) = (self.read(asks)?, self.read(usual)?);
        let masks = self.masks(&mask)?;
        let any = masks[1..]
            .iter()
            .try_fold(masks[0], |a, b| -> Made<_> { Ok(self.f.logic(Logic::Or, a, *b)) })?;
        let lanes = matches!(mask, Val::Masks(_)) || matches!(usual, Val::Lanes(_));
        let out = self.fresh(d, &usual, lanes)?;
        let done = self.f.label();
        self.f.push(Op::BranchNone { mask: any, to: done });
        self.forget();
        for s in cone {
            self.stmt(s)?;
        }
        let v = self.expr(d, e)?;
        self.overwrite(d, &out, &v)?;
        self.f.place(done);
        self.forget();
        self.set(r, out, e)
    }

    fn expr(&mut self, d: DType, e: &Expr) -> Made<Val> {
        match e {
            Expr::Const(bits) => Ok(Val::Const(*bits)),
            Expr::Load {
                buffer,
                index,
                guard,
                fill,
            } => self.load(*buffer, index, guard, *fill),
            Expr::Index(i) => self.index(i),
            Expr::InBounds(b) => self.in_bounds(b),
            Expr::Prim(p, x) => {
                let t = self.k.reg(x[p.typed()]).dtype;
                let mut args = vec![];
                for r in &x[..p.arity()] {
                    args.push(self.read(*r)?);
                }
                self.prim(*p, t, &args)
            }
            Expr::Copy(r) => self.read(*r),
            Expr::Lane(r, l) => self.lane(*r, *l, d),
        }
    }

    /// Stores a register where the caller finds it.
    fn result(&mut self, r: Reg) -> Made<()> {
        let info = self.k.reg(r);
        if info.lanes > 1 {
            return Err(format!("{r} has lanes and is read elsewhere"));
        }
        let v = self.read(r)?;
        let at = self.arg(Arg::Result(r));
        self.store_scalar(info.dtype, &v, Mem::at(self.at, at))
    }

    /// The place of an argument in the block.
    fn arg(&mut self, a: Arg) -> i32 {
        let found = self.args.iter().position(|b| *b == a);
        let i = found.unwrap_or_else(|| {
            self.args.push(a);
            self.args.len() - 1
        });
        8 * i as i32
    }

    /// Runs code at the place where its operands are known, which may be before the loops that are open: `depth` loops are
    /// around it.
    fn early<T>(&mut self, depth: usize, make: impl FnOnce(&mut Self) -> Made<T>) -> Made<T> {
        let from = self.f.ops.len();
        let made = make(self)?;
        if depth < self.levels.len() {
            let code = self.f.ops.split_off(from);
            for op in &code {
                op.visit(|class, n, role| {
                    if class == Class::Vector && role.writes() {
                        self.born.insert(V(n), depth);
                    }
                });
            }
            self.levels[depth].before.extend(code);
        }
        Ok(made)
    }

    /// Forgets what is known of values at this place, where other code may lead.
    fn forget(&mut self) {
        self.memo.clear();
        self.loaded.clear();
    }

    /// How many loops are around the place from which on a value is there.
    fn depth(&self, v: &Val) -> usize {
        let here = self.levels.len();
        let of = |v: &V| match self.variable_of.get(v) {
            Some(r) => (self.levels.iter())
                .rposition(|l| l.assigned.contains(r))
                .map_or(0, |at| at + 1),
            None => self.born.get(v).copied().unwrap_or(here),
        };
        match v {
            Val::Const(_) => 0,
            Val::Splat(v) => of(v),
            Val::Lanes(v) => v.iter().map(of).max().unwrap_or(here),
            Val::At { .. } | Val::SplatMask(_) | Val::Masks(_) => here,
        }
    }
}

/// Numbers of lanes that fill registers, or a quarter or a half of one.
fn has_lanes(n: i64) -> bool {
    matches!(n, 4 | 8 | 16 | 32 | 64)
}

const LANES: &str = "no power of two from 4 to 64";

/// Whether a run of statements is worth a function: there is a vector loop in it.
pub(crate) fn has_vectors(stmts: &[Stmt]) -> bool {
    let mut found = false;
    visit(stmts, &mut |s, _| {
        found |= matches!(
            s,
            Stmt::For {
                kind: LoopKind::Vector,
                ..
            }
        );
    });
    found
}

/// The registers that statements assign.
fn assigned(stmts: &[Stmt]) -> FxHashSet<Reg> {
    let mut out = FxHashSet::default();
    visit_sets(stmts, &mut |r| {
        out.insert(r);
    });
    out
}
