//! Index expressions and dims.
//!
//! An expression is computed in 32 bits when the ranges of its variables show that no partial sum leaves them, else in 64.
//! What was computed is remembered until a loop or branch ends, or a register in it changes, so that the accesses of a
//! point share their address arithmetic.

use super::kernel::Printer;
use super::reg::{Class, R, put};
use brolga_ir::dim::Atom;
use brolga_ir::index::{Bound, Ix, Reg, Term, Var};
use brolga_ir::loops::Buf;
use brolga_ir::{Dim, DimOp};
use rustc_hash::FxHashMap;

/// An integer: known, or in a register of 32 (sign-extended) or 64 bits.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(super) enum Int {
    Known(i64),
    Reg(R),
}

/// The smallest and largest value, inclusive.
pub(super) type Range = (i64, i64);

const I32: Range = (i32::MIN as i64, i32::MAX as i64);

/// What was computed in an open loop or branch.
#[derive(Default)]
pub(super) struct Scope {
    sums: FxHashMap<Ix, Int>,
    addresses: FxHashMap<(Buf, Ix), R>,
}

impl Printer<'_> {
    /// The value of a dim. It is computed once, at the kernel's head.
    pub fn dim(&mut self, d: &Dim) -> Int {
        if let Some(c) = d.as_const() {
            return Int::Known(c);
        }
        if let Some(&r) = self.dims.get(d) {
            return Int::Reg(r);
        }
        let mut sum: Option<R> = None;
        for (atoms, c) in d.terms() {
            let mut product = None;
            for a in atoms {
                let x = self.atom(a);
                product = Some(match product {
                    None => x,
                    Some(p) => self.head("mul.lo.s64", p, x),
                });
            }
            let term = match product {
                Some(p) if c == 1 => p,
                None => self.head_constant(c),
                Some(p) => {
                    let c = self.head_constant(c);
                    self.head("mul.lo.s64", p, c)
                }
            };
            sum = Some(match sum {
                None => term,
                Some(s) => self.head("add.s64", s, term),
            });
        }
        let r = sum.unwrap_or_else(|| self.head_constant(0));
        self.dims.insert(d.clone(), r);
        Int::Reg(r)
    }

    fn head(&mut self, op: &str, a: R, b: R) -> R {
        let d = self.asm.reg(Class::B64);
        self.asm.put_head(format_args!("{op} {d}, {a}, {b}"));
        d
    }

    fn head_constant(&mut self, c: i64) -> R {
        let d = self.asm.reg(Class::B64);
        self.asm.put_head(format_args!("mov.b64 {d}, {c}"));
        d
    }

    fn head_dim(&mut self, d: &Dim) -> R {
        match self.dim(d) {
            Int::Known(c) => self.head_constant(c),
            Int::Reg(r) => r,
        }
    }

    fn atom(&mut self, a: &Atom) -> R {
        let (op, x, y) = match a {
            Atom::Sym(s) => return self.symbols[s],
            Atom::Op(op, x, y) => (*op, self.head_dim(x), self.head_dim(y)),
            Atom::TooLarge => unreachable!("a verified kernel has no dim beyond 64 bits"),
        };
        match op {
            DimOp::Min => self.head("min.s64", x, y),
            DimOp::Max => self.head("max.s64", x, y),
            DimOp::FloorDiv | DimOp::Mod | DimOp::CeilDiv => {
                // Truncated division, corrected where the remainder is not 0 and the signs differ (or, rounding up, agree).
                let (q, r) = (self.head("div.s64", x, y), self.head("rem.s64", x, y));
                let (wrong, signs) = (self.asm.reg(Class::Pred), self.asm.reg(Class::B64));
                let by = self.asm.reg(Class::B64);
                self.asm.put_head(format_args!("xor.b64 {signs}, {x}, {y}"));
                let test = if op == DimOp::CeilDiv { "ge" } else { "lt" };
                self.asm.put_head(format_args!("setp.{test}.s64 {wrong}, {signs}, 0"));
                self.asm
                    .put_head(format_args!("setp.ne.and.s64 {wrong}, {r}, 0, {wrong}"));
                let (correction, to) = match op {
                    DimOp::Mod => (y, r),
                    DimOp::FloorDiv => (self.head_constant(-1), q),
                    _ => (self.head_constant(1), q),
                };
                self.asm
                    .put_head(format_args!("selp.b64 {by}, {correction}, 0, {wrong}"));
                self.head("add.s64", to, by)
            }
        }
    }

    /// The range of an expression, and whether it can be computed in 32 bits.
    fn range(&self, ix: &Ix) -> Option<(Range, bool)> {
        let offset = ix.offset.as_const()?;
        let (mut lo, mut hi) = (offset, offset);
        // What partial sums reach, in any order.
        let (mut least, mut most) = (offset.min(0), offset.max(0));
        let mut small = true;
        for (t, c) in &ix.terms {
            let c = c.as_const()?;
            let ((a, b), fits) = self.term_range(t)?;
            let (x, y) = (a.checked_mul(c)?, b.checked_mul(c)?);
            let (x, y) = (x.min(y), x.max(y));
            (lo, hi) = (lo.checked_add(x)?, hi.checked_add(y)?);
            (least, most) = (least.checked_add(x.min(0))?, most.checked_add(y.max(0))?);
            small &= fits && inside((c, c), I32) && inside((x, y), I32);
        }
        Some(((lo, hi), small && inside((least, most), I32)))
    }

    fn term_range(&self, t: &Term) -> Option<(Range, bool)> {
        match t {
            Term::Var(v) => self.ranges.get(v).map(|&r| (r, inside(r, I32))),
            Term::Reg(r) => self.narrow.get(r).map(|&(_, range)| (range, true)),
            Term::Div(e, d) | Term::Mod(e, d) | Term::Min(e, d) => {
                let ((lo, hi), fits) = self.range(e)?;
                let d = d.as_const()?;
                let range = match t {
                    Term::Min(..) => (lo.min(d), hi.min(d)),
                    _ if d <= 0 => return None,
                    Term::Div(..) => (lo.div_euclid(d), hi.div_euclid(d)),
                    _ if lo >= 0 => (0, hi.min(d - 1)),
                    _ => (0, d - 1),
                };
                Some((range, fits && inside((d, d), I32)))
            }
        }
    }

    /// The range of an expression, when it fits in 32 bits.
    pub fn small_range(&self, ix: &Ix) -> Option<Range> {
        self.range(&self.resolve(ix)).and_then(|(r, small)| small.then_some(r))
    }

    /// The expression with the variables of unrolled loops replaced.
    fn resolve(&self, ix: &Ix) -> Ix {
        ix.substitute(
            &|v| match self.vars.get(&v) {
                Some(Int::Known(c)) => Ix::constant(*c),
                _ => Ix::var(v),
            },
            &Ix::reg,
        )
    }

    /// The value of an expression.
    pub fn ix(&mut self, ix: &Ix) -> Int {
        let ix = self.resolve(ix);
        self.sum(&ix)
    }

    fn sum(&mut self, ix: &Ix) -> Int {
        if let Some(d) = ix.as_dim() {
            return self.dim(d);
        }
        if let Some(x) = self.scopes.iter().rev().find_map(|s| s.sums.get(ix)) {
            return *x;
        }
        let small = self.range(ix).is_some_and(|(_, small)| small);
        let mut sum = self.dim(&ix.offset);
        for (t, c) in &ix.terms {
            let x = self.term(t);
            let c = self.dim(c);
            sum = self.multiply_add(x, c, sum, small);
        }
        self.scopes
            .last_mut()
            .expect("the kernel's own scope")
            .sums
            .insert(ix.clone(), sum);
        sum
    }

    /// `x * c + sum`.
    fn multiply_add(&mut self, x: Int, c: Int, sum: Int, small: bool) -> Int {
        let (x, c) = match (x, c) {
            (Int::Known(x), Int::Known(c)) => (Int::Known(x.wrapping_mul(c)), Int::Known(1)),
            xc => xc,
        };
        if let (Int::Known(x), Int::Known(s)) = (x, sum) {
            return Int::Known(x.wrapping_add(s));
        }
        if c == Int::Known(1) && sum == Int::Known(0) {
            return x;
        }
        let narrow = |i: Int| match i {
            Int::Known(c) => inside((c, c), I32),
            Int::Reg(r) => r.class == Class::B32,
        };
        let (bits, class) = if small {
            ("s32", Class::B32)
        } else {
            ("s64", Class::B64)
        };
        if c == Int::Known(1) {
            let (x, s) = (self.reg_of(x, class), self.operand(sum, class));
            let d = self.asm.reg(class);
            put!(self.asm, "add.{bits} {d}, {x}, {s}");
            return Int::Reg(d);
        }
        if sum == Int::Known(0) {
            let d = self.asm.reg(class);
            if !small && narrow(x) && narrow(c) {
                let (x, c) = (self.reg_of(x, Class::B32), self.operand(c, Class::B32));
                put!(self.asm, "mul.wide.s32 {d}, {x}, {c}");
            } else {
                let (x, c) = (self.reg_of(x, class), self.operand(c, class));
                put!(self.asm, "mul.lo.{bits} {d}, {x}, {c}");
            }
            return Int::Reg(d);
        }
        let s = self.operand(sum, class);
        let d = self.asm.reg(class);
        if !small && narrow(x) && narrow(c) {
            let (x, c) = (self.reg_of(x, Class::B32), self.operand(c, Class::B32));
            put!(self.asm, "mad.wide.s32 {d}, {x}, {c}, {s}");
        } else {
            let (x, c) = (self.reg_of(x, class), self.operand(c, class));
            put!(self.asm, "mad.lo.{bits} {d}, {x}, {c}, {s}");
        }
        Int::Reg(d)
    }

    fn term(&mut self, t: &Term) -> Int {
        let (e, by) = match t {
            Term::Var(v) => return self.vars[v],
            Term::Reg(r) => {
                return Int::Reg(match self.narrow.get(r) {
                    Some((r, _)) => *r,
                    None => self.reg(*r),
                });
            }
            Term::Div(e, d) | Term::Mod(e, d) | Term::Min(e, d) => (e, d),
        };
        let range = self.range(e);
        let small = range.is_some_and(|(_, s)| s) && by.as_const().is_some_and(|d| inside((d, d), I32));
        let positive = range.is_some_and(|((lo, _), _)| lo >= 0);
        let (x, by) = (self.sum(e), self.dim(by));
        let class = if small { Class::B32 } else { Class::B64 };
        let x = self.reg_of(x, class);
        let bits = if small { 32 } else { 64 };
        let d = self.asm.reg(class);
        let divides = matches!(t, Term::Div(..));
        match by {
            _ if matches!(t, Term::Min(..)) => {
                let by = self.operand(by, class);
                put!(self.asm, "min.s{bits} {d}, {x}, {by}");
            }
            Int::Known(n) if n > 0 && n & (n - 1) == 0 => {
                if divides {
                    put!(self.asm, "shr.s{bits} {d}, {x}, {}", n.trailing_zeros());
                } else {
                    put!(self.asm, "and.b{bits} {d}, {x}, {}", n - 1);
                }
            }
            _ if positive => {
                let by = self.operand(by, class);
                let op = if divides { "div" } else { "rem" };
                put!(self.asm, "{op}.u{bits} {d}, {x}, {by}");
            }
            _ => {
                // Toward minus infinity: one less, or one divisor more, where the remainder is negative.
                let (r, q) = (self.asm.reg(class), self.asm.reg(class));
                let (negative, by_reg) = (self.asm.reg(Class::Pred), self.operand(by, class));
                put!(self.asm, "rem.s{bits} {r}, {x}, {by_reg}");
                put!(self.asm, "setp.lt.s{bits} {negative}, {r}, 0");
                if divides {
                    put!(self.asm, "div.s{bits} {q}, {x}, {by_reg}");
                    put!(self.asm, "selp.b{bits} {r}, -1, 0, {negative}");
                    put!(self.asm, "add.s{bits} {d}, {q}, {r}");
                } else {
                    put!(self.asm, "selp.b{bits} {q}, {by_reg}, 0, {negative}");
                    put!(self.asm, "add.s{bits} {d}, {r}, {q}");
                }
            }
        }
        Int::Reg(d)
    }

    /// The integer in a register of 32 or 64 bits.
    pub fn reg_of(&mut self, i: Int, class: Class) -> R {
        match i {
            Int::Reg(r) if r.class == class => r,
            Int::Reg(r) => {
                let d = self.asm.reg(class);
                let op = if class == Class::B64 {
                    "cvt.s64.s32"
                } else {
                    "cvt.u32.u64"
                };
                put!(self.asm, "{op} {d}, {r}");
                d
            }
            Int::Known(c) => {
                let d = self.asm.reg(class);
                put!(self.asm, "mov.{} {d}, {c}", class.ty());
                d
            }
        }
    }

    /// The integer as an operand: an immediate, or a register.
    pub fn operand(&mut self, i: Int, class: Class) -> String {
        match i {
            Int::Known(c) => c.to_string(),
            Int::Reg(_) => self.reg_of(i, class).to_string(),
        }
    }

    /// The predicate that all bounds hold; `None` when they are known to.
    pub fn bounds(&mut self, bounds: &[Bound]) -> Option<R> {
        let mut all: Option<R> = None;
        for b in bounds {
            let index = self.resolve(&b.index);
            let known = b.extent.as_const();
            let range = self.range(&index);
            if let (Some(((lo, hi), _)), Some(n)) = (range, known)
                && lo >= 0
                && hi < n
            {
                continue;
            }
            // One unsigned comparison: a negative index is a large one.
            let small = range.is_some_and(|(_, s)| s) && known.is_some_and(|n| inside((n, n), I32));
            let (bits, class) = if small { (32, Class::B32) } else { (64, Class::B64) };
            let x = self.sum(&index);
            let (x, n) = (self.reg_of(x, class), self.dim(&b.extent));
            let n = self.operand(n, class);
            let p = self.asm.reg(Class::Pred);
            match all {
                None => put!(self.asm, "setp.lt.u{bits} {p}, {x}, {n}"),
                Some(q) => put!(self.asm, "setp.lt.and.u{bits} {p}, {x}, {n}, {q}"),
            }
            all = Some(p);
        }
        all
    }

    /// The address of an element, as it stands between brackets.
    pub fn address(&mut self, buffer: Buf, ix: &Ix) -> String {
        let ix = self.resolve(ix);
        let b = self.k.buffer(buffer);
        let (bytes, shared) = (b.dtype.bytes() as i64, b.scope == brolga_ir::loops::Scope::Shared);
        // The known part of the index goes into the instruction.
        let offset = ix
            .offset
            .as_const()
            .and_then(|c| c.checked_mul(bytes))
            .filter(|&o| inside((o, o), I32));
        let rest = match offset {
            Some(_) => Ix {
                terms: ix.terms.clone(),
                offset: Dim::ZERO,
            },
            None => ix,
        };
        let base = self.bases[buffer.0 as usize];
        let address = if rest.as_const() == Some(0) {
            base
        } else if let Some(&r) = self
            .scopes
            .iter()
            .rev()
            .find_map(|s| s.addresses.get(&(buffer, rest.clone())))
        {
            r
        } else {
            let x = self.sum(&rest);
            let class = base.class;
            let d = self.asm.reg(class);
            let narrow = matches!(x, Int::Reg(r) if r.class == Class::B32);
            let x = self.reg_of(x, if shared || narrow { Class::B32 } else { Class::B64 });
            match (shared, narrow) {
                (true, _) => put!(self.asm, "mad.lo.s32 {d}, {x}, {bytes}, {base}"),
                (_, true) => put!(self.asm, "mad.wide.s32 {d}, {x}, {bytes}, {base}"),
                _ => put!(self.asm, "mad.lo.s64 {d}, {x}, {bytes}, {base}"),
            }
            let scope = self.scopes.last_mut().expect("the kernel's own scope");
            scope.addresses.insert((buffer, rest), d);
            d
        };
        match offset {
            None | Some(0) => format!("[{address}]"),
            Some(o) => format!("[{address}+{o}]"),
        }
    }

    /// Forgets what was computed from registers that change.
    pub fn forget(&mut self, regs: &[Reg]) {
        let uses = |ix: &Ix| {
            let mut found = false;
            ix.for_each_reg(&mut |r| found |= regs.contains(&r));
            found
        };
        for s in &mut self.scopes {
            s.sums.retain(|ix, _| !uses(ix));
            s.addresses.retain(|(_, ix), _| !uses(ix));
        }
    }

    /// A variable's value while `f` runs, in a scope of its own.
    pub fn with_var<T>(&mut self, v: Var, value: R, range: Option<Range>, f: impl FnOnce(&mut Self) -> T) -> T {
        self.vars.insert(v, Int::Reg(value));
        match range {
            Some(r) => self.ranges.insert(v, r),
            None => self.ranges.remove(&v),
        };
        self.scopes.push(Scope::default());
        let out = f(self);
        self.scopes.pop();
        out
    }
}

fn inside(r: Range, of: Range) -> bool {
    r.0 >= of.0 && r.1 <= of.1
}
