//! The verifier of loop kernels. Beside what the level's header says, these rules make every kernel mean one thing to the
//! interpreter and to all back ends:
//!
//! - A `parallel` loop is the last top-level statement, and only assignments come before it: every worker repeats them. Or it stands
//!   inside of serial loops: then it reads no register that is assigned outside of it, worker memory is used inside of such loops only, and
//!   there is no private memory.
//! - A kernel is for a CPU (`parallel`, `Worker`, `Kernel`) or for a GPU (`block`, `thread`, `Shared`, `barrier`), never both. All
//!   loops over one GPU dimension have the same extent, which depends on symbols only.
//! - Registers that a `parallel`, `block` or `thread` loop assigns are its own: they are assigned there before they are
//!   read, and are unassigned afterwards. So are registers of one lane in a `vector` loop.
//! - A register with lanes that is assigned outside vector loops is computed lane by lane; its operands have as many
//!   lanes, or one, which then stands for all.

#[cfg(test)]
mod tests;

use super::{BLOCK, Buf, Expr, Kernel, LoopKind, PANEL, Scope, Stmt, Tile, visit_sets};
use crate::index::{Bound, Ix, Reg, Term, Var};
use crate::{DType, Dim, TileKind};

/// The largest number of lanes of a vector loop, and of a register.
pub const MAX_LANES: u32 = 64;
/// More numbers than the checks of a kernel have.
pub const MAX_CHECKS: u32 = 1 << 16;
/// The largest number of threads of a GPU block (CUDA's limit).
pub const MAX_THREADS: i64 = 1024;

impl Kernel {
    /// Checks the invariants of the level and of this module.
    ///
    /// # Errors
    /// The first violation, with the kernel's name and the statement's position in the nested lists.
    pub fn verify(&self) -> Result<(), String> {
        let mut c = Checker {
            k: self,
            vars: vec![],
            kinds: vec![],
            assigned: vec![false; self.regs.len()],
            path: vec![],
            vector: None,
            grid: [const { None }; 6],
            cpu: false,
            gpu: false,
            forks: self.forks(),
        };
        c.declarations().map_err(|e| format!("kernel @{}: {e}", self.name))?;
        c.stmts(&self.body).map_err(|e| {
            let path: Vec<String> = c.path.iter().map(usize::to_string).collect();
            format!("kernel @{}, statement {}: {e}", self.name, path.join("."))
        })
    }
}

struct Checker<'k> {
    k: &'k Kernel,
    vars: Vec<Var>,
    kinds: Vec<LoopKind>,
    assigned: Vec<bool>,
    /// Positions in the nested statement lists; left as it is at the first error.
    path: Vec<usize>,
    /// The lanes of the vector loop that we are in.
    vector: Option<u32>,
    /// Extents of the GPU dimensions: three of blocks, three of threads.
    grid: [Option<Ix>; 6],
    cpu: bool,
    gpu: bool,
    /// Parallel loops stand inside of serial ones.
    forks: bool,
}

type Check = Result<(), String>;

fn ensure(ok: bool, message: impl FnOnce() -> String) -> Check {
    if ok { Ok(()) } else { Err(message()) }
}

impl Checker<'_> {
    fn declarations(&mut self) -> Check {
        let mut locals = false;
        for (i, b) in self.k.buffers.iter().enumerate() {
            self.dim(&b.len).map_err(|e| format!("buffer b{i}: {e}"))?;
            ensure(b.len.as_const().is_none_or(|n| n >= 0), || {
                format!("buffer b{i} has the length {}", b.len)
            })?;
            match b.scope {
                Scope::In | Scope::Out if locals => {
                    return Err(format!("parameter b{i} comes after a buffer that is none"));
                }
                Scope::In | Scope::Out => {}
                Scope::Worker => (locals, self.cpu) = (true, true),
                Scope::Kernel => {
                    (locals, self.cpu) = (true, true);
                    ensure(self.forks, || {
                        format!("kernel buffer b{i}, but no parallel loop stands inside of a serial one")
                    })?;
                }
                Scope::Private if self.forks => {
                    return Err(format!(
                        "private buffer b{i} in a kernel with parallel loops inside of serial ones"
                    ));
                }
                Scope::Shared | Scope::Private => {
                    locals = true;
                    self.gpu |= b.scope == Scope::Shared;
                    ensure(b.len.as_const().is_some(), || {
                        format!(
                            "{} buffer b{i} has the length {}, expected a constant",
                            b.scope.name(),
                            b.len
                        )
                    })?;
                }
            }
        }
        for (i, r) in self.k.regs.iter().enumerate() {
            ensure((1..=MAX_LANES).contains(&r.lanes), || {
                format!("register r{i} has {} lanes, expected 1 to {MAX_LANES}", r.lanes)
            })?;
        }
        self.cpu_or_gpu()
    }

    fn cpu_or_gpu(&self) -> Check {
        ensure(!(self.cpu && self.gpu), || {
            "parallel loops and worker memory do not go with block and thread loops, shared memory and barriers".into()
        })
    }

    fn stmts(&mut self, stmts: &[Stmt]) -> Check {
        for (i, s) in stmts.iter().enumerate() {
            self.path.push(i);
            self.stmt(s, i + 1 == stmts.len())?;
            self.path.pop();
        }
        Ok(())
    }

    fn stmt(&mut self, s: &Stmt, last: bool) -> Check {
        if self.vector.is_some() {
            ensure(
                matches!(s, Stmt::Set(..) | Stmt::Store { .. } | Stmt::Check { .. }),
                || "a vector loop contains only assignments, stores and checks".into(),
            )?;
        }
        match s {
            Stmt::For {
                var,
                kind,
                extent,
                body,
            } => self.for_loop(*var, kind, extent, body, last),
            Stmt::Set(r, e) => {
                let info = self
                    .k
                    .regs
                    .get(r.0 as usize)
                    .ok_or_else(|| format!("register {r} does not exist"))?;
                if let Some(n) = self.vector {
                    ensure(info.lanes == 1 || info.lanes == n, || {
                        format!("{r} has {} lanes in a vector loop of {n}", info.lanes)
                    })?;
                }
                let dtype = self.expr(*r, e)?;
                ensure(dtype == info.dtype, || {
                    format!("{r} is {}, but is assigned {dtype}", info.dtype)
                })?;
                self.assigned[r.0 as usize] = true;
                Ok(())
            }
            Stmt::Store { buffer, index, value } => {
                self.only_sets_before_parallel("a store")?;
                let b = self.buffer(*buffer)?;
                ensure(b.scope != Scope::In, || {
                    format!("a store to {buffer}, which is only read")
                })?;
                let want = b.dtype;
                self.ix(index)?;
                let found = self.operand(*value, 1)?;
                ensure(found == want, || format!("{value} is {found}, but {buffer} is {want}"))
            }
            Stmt::If { bounds, then } => {
                self.only_sets_before_parallel("a branch")?;
                self.bounds(bounds)?;
                let before = self.assigned.clone();
                self.stmts(then)?;
                self.assigned = before;
                Ok(())
            }
            Stmt::Check { number, holds } => {
                self.only_sets_before_parallel("a check")?;
                ensure(*number < MAX_CHECKS, || {
                    format!("a check of number {number}, expected less than {MAX_CHECKS}")
                })?;
                let found = self.operand(*holds, 1)?;
                ensure(found == DType::Bool, || {
                    format!("{holds} is {found}, expected bool in a check")
                })
            }
            Stmt::Barrier => {
                self.gpu = true;
                self.cpu_or_gpu()
            }
            Stmt::Tile(t) => {
                self.only_sets_before_parallel("a tile")?;
                self.tile(t)
            }
        }
    }

    fn only_sets_before_parallel(&self, what: &str) -> Check {
        let parallel = |s: &Stmt| {
            matches!(
                s,
                Stmt::For {
                    kind: LoopKind::Parallel(_),
                    ..
                }
            )
        };
        let inside = self.kinds.iter().any(|k| matches!(k, LoopKind::Parallel(_)));
        ensure(inside || !self.k.body.iter().any(parallel), || {
            format!("{what} outside of the kernel's parallel loop, where only assignments stand")
        })
    }

    fn for_loop(&mut self, var: Var, kind: &LoopKind, extent: &Ix, body: &[Stmt], last: bool) -> Check {
        ensure(!self.vars.contains(&var), || {
            format!("variable {var} is already in use")
        })?;
        self.ix(extent)?;
        let name = kind.name();
        let constant = || {
            let n = extent.as_const().filter(|n| *n >= 0);
            n.ok_or_else(|| format!("the extent of a loop of kind {name} is {extent}, expected a constant"))
        };
        if !matches!(kind, LoopKind::Parallel(_)) {
            self.only_sets_before_parallel("a loop")?;
        }
        match kind {
            LoopKind::Serial => {}
            LoopKind::Unrolled => {
                constant()?;
            }
            LoopKind::Vector => {
                let n = constant()?;
                ensure((1..=MAX_LANES as i64).contains(&n), || {
                    format!("a vector loop of {n} lanes, expected 1 to {MAX_LANES}")
                })?;
                self.vector = Some(n as u32);
            }
            LoopKind::Parallel(grain) => {
                self.dim(&grain.work)?;
                ensure(grain.turn.is_none_or(|v| self.vars.contains(&v)), || {
                    "a parallel loop that is turned by no variable here".into()
                })?;
                let outermost = self.kinds.is_empty() && last && self.path.len() == 1;
                let repeated = |k: &LoopKind| matches!(k, LoopKind::Serial | LoopKind::Unrolled);
                let inside = !self.kinds.is_empty() && self.kinds.iter().all(repeated);
                ensure(outermost || inside, || {
                    "a parallel loop that is neither the kernel's last top-level statement nor inside of serial loops alone".into()
                })?;
                ensure(extent.as_dim().is_some(), || {
                    format!("the extent of a parallel loop is {extent}, expected symbols and constants only")
                })?;
                self.cpu = true;
            }
            LoopKind::Block(d) | LoopKind::Thread(d) => {
                ensure(*d < 3, || format!("GPU dimension {d}, expected 0 to 2"))?;
                ensure(!self.kinds.contains(kind), || format!("a {name} loop inside another"))?;
                let mut slot = *d as usize;
                if let LoopKind::Thread(_) = kind {
                    constant()?;
                    slot += 3;
                }
                ensure(extent.as_dim().is_some(), || {
                    format!("the extent of a {name} loop is {extent}, expected symbols and constants only")
                })?;
                match &self.grid[slot] {
                    Some(e) if e != extent => return Err(format!("{name} loops of the extents {e} and {extent}")),
                    _ => self.grid[slot] = Some(extent.clone()),
                }
                let threads = self.grid[3..]
                    .iter()
                    .flatten()
                    .filter_map(Ix::as_const)
                    .fold(1i64, i64::saturating_mul);
                ensure(threads <= MAX_THREADS, || {
                    format!("{threads} threads in a block, expected at most {MAX_THREADS}")
                })?;
                self.gpu = true;
            }
        }
        self.cpu_or_gpu()?;
        let own = self.own_registers(kind, body);
        own.iter().for_each(|r| self.assigned[r.0 as usize] = false);
        let before = self.assigned.clone();
        let forks = self.forks && matches!(kind, LoopKind::Parallel(_));
        if forks {
            self.assigned.fill(false);
        }
        self.vars.push(var);
        self.kinds.push(kind.clone());
        self.stmts(body)?;
        self.vars.pop();
        self.kinds.pop();
        self.vector = None;
        if forks || extent.as_const().is_none_or(|n| n < 1) {
            self.assigned = before;
        }
        own.iter().for_each(|r| self.assigned[r.0 as usize] = false);
        Ok(())
    }

    /// The registers that do not carry values into or out of a loop.
    fn own_registers(&self, kind: &LoopKind, body: &[Stmt]) -> Vec<Reg> {
        let mut own = vec![];
        if !matches!(kind, LoopKind::Serial | LoopKind::Unrolled) {
            visit_sets(body, &mut |r| {
                let lanes = self.k.regs.get(r.0 as usize).map_or(0, |i| i.lanes);
                if lanes == 1 || (lanes > 1 && *kind != LoopKind::Vector) {
                    own.push(r);
                }
            });
        }
        own
    }

    fn expr(&mut self, r: Reg, e: &Expr) -> Result<DType, String> {
        let info = self.k.reg(r);
        match e {
            Expr::Const(bits) => {
                fits(info.dtype, *bits)?;
                Ok(info.dtype)
            }
            Expr::Load {
                buffer,
                index,
                guard,
                fill,
            } => {
                let dtype = self.buffer(*buffer)?.dtype;
                self.ix(index)?;
                self.bounds(guard)?;
                fits(dtype, *fill)?;
                Ok(dtype)
            }
            Expr::Index(ix) => {
                self.ix(ix)?;
                Ok(DType::I64)
            }
            Expr::InBounds(bounds) => {
                self.bounds(bounds)?;
                Ok(DType::Bool)
            }
            Expr::Prim(p, args) => {
                let (used, unused) = args.split_at(p.arity());
                ensure(unused.iter().all(|a| *a == args[0]), || {
                    format!("unused operands of `{}` must repeat the first", p.name())
                })?;
                let types: Result<Vec<DType>, String> = used.iter().map(|a| self.operand(*a, info.lanes)).collect();
                p.result(&types?)
            }
            Expr::Copy(a) => self.operand(*a, info.lanes),
            Expr::Lane(a, k) => {
                let from = self.read(*a)?;
                ensure(from.lanes > 1 && *k < from.lanes, || {
                    format!("lane {k} of {a}, which has {} lanes", from.lanes)
                })?;
                Ok(from.dtype)
            }
        }
    }

    /// A register that is read: it exists and is assigned.
    fn read(&self, r: Reg) -> Result<super::RegInfo, String> {
        let info = self
            .k
            .regs
            .get(r.0 as usize)
            .ok_or_else(|| format!("register {r} does not exist"))?;
        ensure(self.assigned[r.0 as usize], || {
            format!("register {r} is read before it is assigned on every path")
        })?;
        Ok(*info)
    }

    /// A register that is read lane by lane into `lanes` lanes.
    fn operand(&self, r: Reg, lanes: u32) -> Result<DType, String> {
        let info = self.read(r)?;
        let want = self.vector.unwrap_or(lanes);
        ensure(info.lanes == 1 || info.lanes == want, || {
            format!("{r} has {} lanes, expected {want} or 1", info.lanes)
        })?;
        Ok(info.dtype)
    }

    fn buffer(&self, b: Buf) -> Result<&super::Buffer, String> {
        let found = self.k.buffers.get(b.0 as usize);
        let buffer = found.ok_or_else(|| format!("buffer {b} does not exist"))?;
        let outside = self.forks && !self.kinds.iter().any(|k| matches!(k, LoopKind::Parallel(_)));
        ensure(!(outside && buffer.scope == Scope::Worker), || {
            format!("{b} is worker memory, outside of the kernel's parallel loops")
        })?;
        Ok(buffer)
    }

    fn dim(&self, d: &Dim) -> Check {
        check_dim(d, &self.k.symbols)
    }

    fn bounds(&self, bounds: &[Bound]) -> Check {
        for b in bounds {
            self.ix(&b.index)?;
            self.dim(&b.extent)?;
        }
        Ok(())
    }

    fn ix(&self, e: &Ix) -> Check {
        check_ix(
            e,
            &self.k.symbols,
            &|v| ensure(self.vars.contains(&v), || format!("{v} is no variable here")),
            &|r| {
                let found = self.operand(r, 1)?;
                ensure(found == DType::I64, || {
                    format!("{r} is {found}, expected i64 in an index")
                })
            },
        )
    }

    /// The scales of a tile, where its kind has some.
    fn scales(&mut self, t: &Tile) -> Check {
        let kind = t.kind.name();
        let Some(s) = &t.scales else {
            return ensure(!t.kind.has_scales(), || format!("a tile of {kind} without scales"));
        };
        ensure(t.kind.has_scales(), || format!("a tile of {kind} with scales"))?;
        ensure(!t.accumulate, || format!("a tile of {kind} adds to nothing"))?;
        for (b, expected, what) in s.buffers() {
            let found = self.buffer(b)?.dtype;
            ensure(found == expected, || {
                format!("{what} {b} of a tile are {found}, expected {expected}")
            })?;
            ensure(t.c != b, || format!("a tile reads its result {}", t.c))?;
        }
        Ok(())
    }

    fn tile(&mut self, t: &Tile) -> Check {
        let parts = [(t.a, "left operand"), (t.b, "right operand"), (t.c, "result")];
        for ((b, what), expected) in parts.into_iter().zip(t.kind.dtypes()) {
            let found = self.buffer(b)?.dtype;
            ensure(found == expected, || {
                format!("{what} {b} of a tile is {found}, expected {expected}")
            })?;
        }
        ensure(self.buffer(t.c)?.scope != Scope::In, || {
            format!("a tile writes {}, which is only read", t.c)
        })?;
        ensure(t.c != t.a && t.c != t.b, || format!("a tile reads its result {}", t.c))?;
        ensure(t.kind.interleave() == 1 || t.a_k.as_const() == Some(1), || {
            format!("a tile of {} with steps {} apart, expected 1", t.kind.name(), t.a_k)
        })?;
        if t.kind.has_scales() || t.kind == TileKind::Bf16Pairs {
            let alone = t.blocks.iter().all(|(n, _)| n.as_const() == Some(1));
            let whole = t.k.modulo(&Dim::Const(BLOCK)).as_const() == Some(0);
            ensure(alone && whole && t.ahead.is_none(), || {
                let kind = t.kind.name();
                format!("a tile of {kind} is of one sum over whole blocks of {BLOCK} steps, and fetches nothing ahead")
            })?;
        }
        self.scales(t)?;
        t.indices().try_for_each(|e| self.ix(e))?;
        ensure(
            t.rows.as_const().is_none_or(|n| (0..=t.max_rows as i64).contains(&n)),
            || format!("a tile of {} rows, expected at most {}", t.rows, t.max_rows),
        )?;
        let fits = |n: i64| (0..=PANEL).contains(&n) || t.panels() > 1 && n <= t.most_cols();
        ensure(t.cols.as_const().is_none_or(fits), || match t.most_cols() {
            PANEL => format!("a tile of {} columns, expected at most {PANEL}", t.cols),
            most => format!(
                "a tile of {} columns, expected at most {PANEL}, or whole panels up to {most}",
                t.cols
            ),
        })
    }
}

/// Checks that bits are a value of a dtype.
pub(crate) fn fits(dtype: DType, bits: u64) -> Check {
    let ok = if dtype == DType::Bool {
        bits <= 1
    } else {
        bits.checked_shr(dtype.bits() as u32).unwrap_or(0) == 0
    };
    ensure(ok, || format!("the bits {bits:#x} are no value of {dtype}"))
}

/// Checks that a dim uses declared symbols only, and that its constants fit in 64 bits.
pub(crate) fn check_dim(d: &Dim, symbols: &[crate::Symbol]) -> Check {
    ensure(!d.is_too_large(), || "a size or an offset is beyond 64 bits".into())?;
    let mut unknown = None;
    d.for_each_symbol(&mut |s| {
        if !symbols.contains(s) {
            unknown = Some(s.clone());
        }
    });
    unknown.map_or(Ok(()), |s| Err(format!("the symbol `{s}` is not declared")))
}

/// Checks an index expression: its dims, its divisors, and by the callbacks its variables and run-time integers.
pub(crate) fn check_ix(
    e: &Ix,
    symbols: &[crate::Symbol],
    var: &dyn Fn(Var) -> Check,
    reg: &dyn Fn(Reg) -> Check,
) -> Check {
    check_dim(&e.offset, symbols)?;
    for (t, c) in &e.terms {
        check_dim(c, symbols)?;
        match t {
            Term::Var(v) => var(*v)?,
            Term::Reg(r) => reg(*r)?,
            Term::Div(e, d) | Term::Mod(e, d) | Term::Min(e, d) => {
                check_dim(d, symbols)?;
                ensure(matches!(t, Term::Min(..)) || d.as_const().is_none_or(|n| n > 0), || {
                    format!("a division by {d} in an index")
                })?;
                check_ix(e, symbols, var, reg)?;
            }
        }
    }
    Ok(())
}
