//! Loops as counters in bytes, and places of elements as pointers.
//!
//! A place is a sum: what is the same all through the call, and for each open loop its variable times a stride. Places that
//! differ by a constant are one [`Stream`]. A loop counts in bytes of the strides that its body asks for (`i * 64`), so that a
//! place is `[pointer + counter * scale + constant]`; the pointer holds the sum of the loops around, and is formed before the
//! loop. Both are made when the body first asks for them.
//!
//! ```text
//! for i1 { for i2 { … b0[(n)*i1 + 16*i2 + i3] … } }
//! -->
//! g2 = load [args]                                  b0's place
//! loop { g5 = lea [g2 + g3]; loop { load [g5 + g4]; g4 += 64 }; g3 += [args + 8] }
//! ```

use super::{Arg, Builder, Made, assigned};
use crate::x86::vir::{Cond, G, GeneralOp, Label, Mem, Op, Scalar};
use brolga_ir::Dim;
use brolga_ir::index::{Ix, Reg, Term, Var};
use brolga_ir::loops::{Buf, LoopKind, Stmt};
use rustc_hash::{FxHashMap, FxHashSet};

/// Places that differ by a constant: what the caller knows of them, and how the function's loops move them.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(super) struct Stream {
    /// None for a plain number.
    buffer: Option<Buf>,
    /// What does not change during the call.
    outer: Ix,
    /// The strides of the open loops' variables, in elements.
    strides: Vec<(Var, Dim)>,
}

/// An open loop.
pub(super) struct Level {
    var: Var,
    /// Code before it, within the body of the loop around; run if there is an iteration.
    pub before: Vec<Op>,
    /// The code of the loop around it.
    around: Vec<Op>,
    /// Counters, by the bytes that they go on.
    counters: Vec<(Dim, G)>,
    pointers: FxHashMap<Stream, G>,
    /// What its body assigns.
    pub assigned: FxHashSet<Reg>,
    /// Where the body starts, and what comes after the loop.
    labels: (Label, Label),
}

/// How an index is made up.
pub(super) struct Parts {
    pub stream: Stream,
    /// Elements added.
    pub constant: i64,
    /// How far a lane goes.
    pub lane: Dim,
    /// A register with lanes that is added, as often as this.
    pub reg: Option<(Reg, Dim)>,
}

impl Builder<'_> {
    /// A loop one after the other; a `parallel` one runs the iterations that the caller asks for.
    pub(super) fn serial(&mut self, var: Var, extent: &Ix, parallel: bool, body: &[Stmt]) -> Made<()> {
        let extent = self.settled(extent);
        let known = if parallel { None } else { extent.as_const() };
        if known.is_some_and(|n| n <= 0) {
            return Ok(());
        }
        let count = match known {
            Some(_) => None,
            None => Some(self.extent(&extent, parallel)?),
        };
        self.forget();
        let labels = (self.f.label(), self.f.label());
        if let Some(count) = count {
            self.f.branch(Cond::Le, count, Scalar::Imm(0), labels.1);
        }
        self.levels.push(Level {
            var,
            before: vec![],
            around: std::mem::take(&mut self.f.ops),
            counters: vec![],
            pointers: FxHashMap::default(),
            assigned: assigned(body),
            labels,
        });
        self.stmts(body, 0, body)?;
        self.close(known, count)
    }

    fn close(&mut self, known: Option<i64>, count: Option<G>) -> Made<()> {
        let at = self.levels.len() - 1;
        let countable = |step: &Dim| step.as_const().filter(|s| (1..1 << 24).contains(s));
        if !self.levels[at]
            .counters
            .iter()
            .any(|(step, _)| countable(step).is_some())
        {
            self.counter(at, &Dim::ONE);
        }
        for (step, g) in self.levels[at].counters.clone() {
            let by = self.number(&step);
            self.f.general_op(GeneralOp::Add, g, by);
        }
        let counters = &self.levels[at].counters;
        let found = counters.iter().find_map(|(step, g)| Some((countable(step)?, *g)));
        let (step, counter) = found.expect("one was made where there was none");
        let end = match (known, count) {
            (Some(n), _) => match n.checked_mul(step).and_then(|n| i32::try_from(n).ok()) {
                Some(n) => Scalar::Imm(n),
                None => return Err(format!("a loop of {n} iterations")),
            },
            (None, Some(count)) => {
                if step == 1 {
                    Scalar::Reg(count)
                } else {
                    let end = self.f.general();
                    let before = &mut self.levels[at].before;
                    before.push(Op::Copy { dst: end, src: count });
                    before.push(Op::General {
                        op: GeneralOp::Mul,
                        dst: end,
                        src: Scalar::Imm(step as i32),
                    });
                    Scalar::Reg(end)
                }
            }
            (None, None) => return Err("a loop without an end".into()),
        };
        let level = self.levels.pop().expect("it is open");
        self.f.branch(Cond::Lt, counter, end, level.labels.0);
        self.f.place(level.labels.1);
        let inside = std::mem::replace(&mut self.f.ops, level.around);
        self.f.ops.extend(level.before);
        self.f.place(level.labels.0);
        self.f.ops.extend(inside);
        self.forget();
        Ok(())
    }

    /// How many iterations a loop has, computed here.
    fn extent(&mut self, extent: &Ix, parallel: bool) -> Made<G> {
        if parallel {
            let at = self.arg(Arg::Iterations);
            return Ok(self.f.load_general(Mem::at(self.at, at)));
        }
        if self.is_outer(extent) {
            let at = self.arg(Arg::Index(extent.clone()));
            return Ok(self.f.load_general(Mem::at(self.at, at)));
        }
        // The smaller of an index and a dim.
        if let [(Term::Min(e, d), one)] = &extent.terms[..]
            && one.is(1)
            && extent.offset.is(0)
        {
            let n = self.value(e)?;
            let most = self.f.general();
            match self.number(d) {
                Scalar::Imm(i) => self.f.push(Op::Imm {
                    dst: most,
                    value: i.into(),
                }),
                Scalar::Mem(mem) => self.f.push(Op::LoadGeneral { dst: most, mem }),
                Scalar::Reg(src) => self.f.push(Op::Copy { dst: most, src }),
            }
            self.f.push(Op::CopyIf {
                cond: Cond::Lt,
                a: n,
                b: Scalar::Reg(most),
                dst: most,
                src: n,
            });
            return Ok(most);
        }
        self.value(extent)
    }

    /// A number that does not change, as an operand.
    pub(super) fn number(&mut self, d: &Dim) -> Scalar {
        match d.as_const().and_then(|c| i32::try_from(c).ok()) {
            Some(c) => Scalar::Imm(c),
            None => {
                let at = self.arg(Arg::Index(Ix::constant(d.clone())));
                Scalar::Mem(Mem::at(self.at, at))
            }
        }
    }

    /// An index with the variables of repeated code put in.
    pub(super) fn settled(&self, e: &Ix) -> Ix {
        if self.known.is_empty() {
            return e.clone();
        }
        let var = |v: Var| match self.known.get(&v) {
            Some(c) => Ix::constant(*c),
            None => Ix::var(v),
        };
        e.substitute(&var, &Ix::reg)
    }

    fn is_inner(&self, v: Var) -> bool {
        self.levels.iter().any(|l| l.var == v) || self.vector.is_some_and(|l| l.var == Some(v))
    }

    /// True for registers that the function assigns.
    fn is_own(&self, r: Reg) -> bool {
        self.env.contains_key(&r) || self.variables.contains_key(&r)
    }

    /// Whether the caller can compute an index.
    fn is_outer(&self, e: &Ix) -> bool {
        let mut outer = true;
        e.for_each_var(&mut |v| outer &= !self.is_inner(v));
        e.for_each_reg(&mut |r| outer &= !self.is_own(r));
        outer
    }

    /// Takes an index apart.
    pub(super) fn parts(&self, buffer: Option<Buf>, e: &Ix) -> Made<Parts> {
        let e = self.settled(e);
        let (symbolic, constant) = e.offset.split_constant();
        let mut outer = Ix::constant(symbolic);
        let (mut strides, mut lane, mut reg) = (vec![], Dim::ZERO, None);
        for (t, c) in &e.terms {
            match t {
                Term::Var(v) if self.vector.is_some_and(|l| l.var == Some(*v)) => lane = c.clone(),
                Term::Var(v) if self.is_inner(*v) => {
                    strides.push((*v, c.clone()));
                    // The caller stands at the first iteration that is asked for.
                    if self.is_parallel(*v) {
                        outer.terms.push((t.clone(), c.clone()));
                    }
                }
                Term::Reg(r) if self.is_own(*r) => {
                    if reg.replace((*r, c.clone())).is_some() {
                        return Err("an index of several registers".into());
                    }
                }
                _ if self.is_outer(&Ix::term(t.clone())) => outer.terms.push((t.clone(), c.clone())),
                _ => return Err(format!("an index {e} that is not affine")),
            }
        }
        Ok(Parts {
            stream: Stream { buffer, outer, strides },
            constant,
            lane,
            reg,
        })
    }

    pub(super) fn is_parallel(&self, v: Var) -> bool {
        matches!(
            self.k.body.last(),
            Some(Stmt::For { var, kind: LoopKind::Parallel(_), .. }) if *var == v
        )
    }

    /// The address of a stream, `bytes` an element, with a constant in bytes. `indexed`: a counter may be part of it.
    pub(super) fn address(&mut self, s: &Stream, bytes: i64, constant: i64, indexed: bool) -> Made<Mem> {
        let disp = i32::try_from(constant).map_err(|_| "a distance of 2 GiB".to_string())?;
        let Some(last) = self.levels.len().checked_sub(1) else {
            return Ok(Mem::at(self.pointer(s, bytes, 0), disp));
        };
        let pointer = self.pointer(s, bytes, last);
        let mem = match self.stride(s, last) {
            None => Mem::at(pointer, disp),
            Some(stride) => {
                let (counter, scale) = self.counter(last, &(&stride * bytes));
                Mem::indexed(pointer, counter, scale, disp)
            }
        };
        if indexed || mem.index.is_none() {
            return Ok(mem);
        }
        Ok(Mem::at(self.f.lea(mem), 0))
    }

    /// An index as a number in a register of its own.
    pub(super) fn value(&mut self, e: &Ix) -> Made<G> {
        let p = self.parts(None, e)?;
        if !p.lane.is(0) || p.reg.is_some() {
            return Err(format!("{e} as one number"));
        }
        let mem = self.address(&p.stream, 1, p.constant, true)?;
        Ok(self.f.lea(mem))
    }

    /// How far the loop at a level moves a stream.
    pub(super) fn stride(&self, s: &Stream, level: usize) -> Option<Dim> {
        let var = self.levels[level].var;
        s.strides.iter().find(|(v, _)| *v == var).map(|(_, d)| d.clone())
    }

    /// The pointer of a stream inside the loop at a level, that loop's own variable apart.
    fn pointer(&mut self, s: &Stream, bytes: i64, level: usize) -> G {
        if self.levels.is_empty() || level == 0 {
            if let Some(g) = self.pointers.get(s) {
                return *g;
            }
            let at = match s.buffer {
                Some(b) => self.arg(Arg::Address(b, s.outer.clone())),
                None => self.arg(Arg::Index(s.outer.clone())),
            };
            let g = self.f.general();
            self.entry.push(Op::LoadGeneral {
                dst: g,
                mem: Mem::at(self.at, at),
            });
            self.pointers.insert(s.clone(), g);
            return g;
        }
        if let Some(g) = self.levels[level].pointers.get(s) {
            return *g;
        }
        let around = self.pointer(s, bytes, level - 1);
        let g = match self.stride(s, level - 1) {
            None => around,
            Some(stride) => {
                let (counter, scale) = self.counter(level - 1, &(&stride * bytes));
                let g = self.f.general();
                self.levels[level].before.push(Op::Lea {
                    dst: g,
                    mem: Mem::indexed(around, counter, scale, 0),
                });
                g
            }
        };
        self.levels[level].pointers.insert(s.clone(), g);
        g
    }

    /// A counter of the loop at a level that goes on by `step` bytes, as a register and a scale.
    fn counter(&mut self, level: usize, step: &Dim) -> (G, u8) {
        for (have, g) in &self.levels[level].counters {
            for scale in [1u8, 2, 4, 8] {
                if &(have * i64::from(scale)) == step {
                    return (*g, scale);
                }
            }
        }
        let g = self.f.general();
        let level = &mut self.levels[level];
        level.counters.push((step.clone(), g));
        level.before.push(Op::Imm { dst: g, value: 0 });
        (g, 1)
    }
}
