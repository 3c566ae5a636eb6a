//! The text form of loop kernels; parsing what was printed gives the same kernel.
//!
//! ```text
//! loops @scale(b0: f32[n] in, b1: f32[n] out) symbols(n) pooled {     // `pooled`: constants stand in memory
//!   buffer b2: f32[256] worker
//!   reg r9: f32x8                                // only for registers that no statement assigns
//!   for i0 parallel(3*n from 40000) 0..n {         // on the workers from that much work on; `parallel 0..n`: always; `(… from …, turned by i1)`: see `Grain`
//!     r0: f32 = load b0[i0 - 1] where (i0 - 1 in 0..n) else f32 0.0
//!     r1: f32 = const f32 2.0
//!     r2: f32 = mul r0 r1
//!     store b1[i0] = r2
//!     check 0 r3                                   // r3: bool
//!     if (i0 - 3 in 0..n) { barrier }
//!     tile b2[8*i0; row 32] += b0[0; row 16, k 1] * b0[0] sum(1 by 0, 1 by 0, 16) rows 1 max 8 cols 32
//!     tile u8i8 b4[0; row 32] = b5[0; row 16, k 1] * b6[0] sum(1 by 0, 1 by 0, 16) rows 1 max 8 cols 32   // not of f32
//!   }
//! }
//! ```
//!
//! Every assignment says its register's type; the assignments of one register must agree. Other expressions are
//! `index IX`, `inbounds(BOUNDS)`, `copy r0`, `lane r0 3` and the primitives of the scalar language.

use super::{
    Ahead, Buf, Buffer, Expr, Grain, Kernel, LoopKind, Minima, RegInfo, Scales, Scope, Stmt, Tile, visit_sets,
};
use crate::index::{Ix, Reg, Var, bounds_text, parse_bounds, parse_ix, parse_range_start};
use crate::scalar::{Prim, Scalar};
use crate::text::{
    Lexer, MAX_DEPTH, ParseError, Result, Token, global, parse_dim, parse_global, parse_id, symbol, whole,
};
use crate::{DType, Symbol, TileKind};
use rustc_hash::FxHashMap;
use std::fmt;

impl Scope {
    const ALL: [Scope; 6] = [
        Scope::In,
        Scope::Out,
        Scope::Worker,
        Scope::Kernel,
        Scope::Shared,
        Scope::Private,
    ];

    /// The name in the text form.
    pub const fn name(self) -> &'static str {
        match self {
            Scope::In => "in",
            Scope::Out => "out",
            Scope::Worker => "worker",
            Scope::Kernel => "kernel",
            Scope::Shared => "shared",
            Scope::Private => "private",
        }
    }
}

impl LoopKind {
    const ALL: [LoopKind; 10] = [
        LoopKind::Serial,
        LoopKind::Parallel(Grain::ALWAYS),
        LoopKind::Vector,
        LoopKind::Unrolled,
        LoopKind::Block(0),
        LoopKind::Block(1),
        LoopKind::Block(2),
        LoopKind::Thread(0),
        LoopKind::Thread(1),
        LoopKind::Thread(2),
    ];

    /// The name in the text form: `serial`, `thread.x`.
    pub const fn name(&self) -> &'static str {
        match self {
            LoopKind::Serial => "serial",
            LoopKind::Parallel(_) => "parallel",
            LoopKind::Vector => "vector",
            LoopKind::Unrolled => "unrolled",
            LoopKind::Block(0) => "block.x",
            LoopKind::Block(1) => "block.y",
            LoopKind::Block(2) => "block.z",
            LoopKind::Block(_) => "block.?",
            LoopKind::Thread(0) => "thread.x",
            LoopKind::Thread(1) => "thread.y",
            LoopKind::Thread(2) => "thread.z",
            LoopKind::Thread(_) => "thread.?",
        }
    }
}

impl fmt::Display for LoopKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())?;
        match self {
            LoopKind::Parallel(grain) => write!(f, "{grain}"),
            _ => Ok(()),
        }
    }
}

impl fmt::Display for Grain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if *self == Grain::ALWAYS {
            return Ok(());
        }
        write!(f, "({} from {}", self.work, self.least)?;
        match self.turn {
            Some(v) => write!(f, ", turned by {v})"),
            None => f.write_str(")"),
        }
    }
}

impl Grain {
    /// `(WORK from LEAST)`, `(WORK from LEAST, turned by VAR)`, or nothing.
    pub(crate) fn parse(l: &mut Lexer) -> Result<Grain> {
        if !l.eat("(") {
            return Ok(Grain::ALWAYS);
        }
        let work = parse_dim(l)?;
        l.expect("from")?;
        let least = l.int()?;
        let mut turn = None;
        if l.eat(",") {
            l.expect("turned")?;
            l.expect("by")?;
            turn = Some(Var(parse_id(l, 'i')?));
        }
        l.expect(")")?;
        Ok(Grain { work, least, turn })
    }
}

impl fmt::Display for RegInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.dtype)?;
        if self.lanes == 1 {
            Ok(())
        } else {
            write!(f, "x{}", self.lanes)
        }
    }
}

impl fmt::Display for Buffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}[{}] {}", self.dtype, self.len, self.scope.name())
    }
}

/// `(n, m)` after a keyword, or nothing when there are none.
pub(crate) fn symbols_text(symbols: &[Symbol]) -> String {
    if symbols.is_empty() {
        return String::new();
    }
    let all: Vec<String> = symbols.iter().map(|s| symbol(s)).collect();
    format!(" symbols({})", all.join(", "))
}

/// What [`symbols_text`] printed.
pub(crate) fn parse_symbols(l: &mut Lexer) -> Result<Vec<Symbol>> {
    if !l.eat("symbols") {
        return Ok(vec![]);
    }
    l.expect("(")?;
    l.list(")", |l| Ok(l.name()?.into()))
}

/// The number of a check.
pub(crate) fn check_number(l: &mut Lexer) -> Result<u32> {
    let place = l.place();
    let n = l.index()?;
    u32::try_from(n).map_err(|_| l.error_at(place, format!("{n} is no number of a check")))
}

impl fmt::Display for Kernel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let params = self.params().count();
        write!(f, "loops {}(", global(&self.name))?;
        for (i, b) in self.buffers[..params].iter().enumerate() {
            write!(f, "{}b{i}: {b}", if i > 0 { ", " } else { "" })?;
        }
        let pooled = if self.pooled { " pooled" } else { "" };
        writeln!(f, "){}{pooled} {{", symbols_text(&self.symbols))?;
        for (i, b) in self.buffers.iter().enumerate().skip(params) {
            writeln!(f, "  buffer b{i}: {b}")?;
        }
        let mut assigned = vec![false; self.regs.len()];
        visit_sets(&self.body, &mut |r| assigned[r.0 as usize] = true);
        for (i, r) in self.regs.iter().enumerate().filter(|(i, _)| !assigned[*i]) {
            writeln!(f, "  reg r{i}: {r}")?;
        }
        self.print(f, &self.body, 1)?;
        f.write_str("}")
    }
}

impl Kernel {
    fn print(&self, f: &mut fmt::Formatter<'_>, stmts: &[Stmt], depth: usize) -> fmt::Result {
        for s in stmts {
            write!(f, "{:1$}", "", 2 * depth)?;
            match s {
                Stmt::For {
                    var,
                    kind,
                    extent,
                    body,
                } => {
                    writeln!(f, "for {var} {kind} 0..{extent} {{")?;
                    self.print(f, body, depth + 1)?;
                    writeln!(f, "{:1$}}}", "", 2 * depth)?;
                }
                Stmt::If { bounds, then } => {
                    writeln!(f, "if ({}) {{", bounds_text(bounds))?;
                    self.print(f, then, depth + 1)?;
                    writeln!(f, "{:1$}}}", "", 2 * depth)?;
                }
                Stmt::Set(r, e) => {
                    write!(f, "{r}: {} = ", self.reg(*r))?;
                    self.print_expr(f, *r, e)?;
                    writeln!(f)?;
                }
                Stmt::Store { buffer, index, value } => writeln!(f, "store {buffer}[{index}] = {value}")?,
                Stmt::Check { number, holds } => writeln!(f, "check {number} {holds}")?,
                Stmt::Barrier => writeln!(f, "barrier")?,
                Stmt::Tile(t) => writeln!(f, "{t}")?,
            }
        }
        Ok(())
    }

    fn print_expr(&self, f: &mut fmt::Formatter<'_>, r: Reg, e: &Expr) -> fmt::Result {
        let scalar = |bits| Scalar {
            dtype: self.reg(r).dtype,
            bits,
        };
        match e {
            Expr::Const(bits) => write!(f, "const {}", scalar(*bits)),
            Expr::Load {
                buffer,
                index,
                guard,
                fill,
            } => {
                write!(f, "load {buffer}[{index}]")?;
                if guard.is_empty() && *fill == 0 {
                    return Ok(());
                }
                write!(f, " where ({}) else {}", bounds_text(guard), scalar(*fill))
            }
            Expr::Index(ix) => write!(f, "index {ix}"),
            Expr::InBounds(bounds) => write!(f, "inbounds({})", bounds_text(bounds)),
            Expr::Prim(p, args) => {
                f.write_str(p.name())?;
                if let Some(to) = p.target() {
                    write!(f, " {to}")?;
                }
                args[..p.arity()].iter().try_for_each(|a| write!(f, " {a}"))
            }
            Expr::Copy(a) => write!(f, "copy {a}"),
            Expr::Lane(a, k) => write!(f, "lane {a} {k}"),
        }
    }
}

impl fmt::Display for Tile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Tile {
            kind,
            a,
            a_index,
            a_row,
            a_k,
            blocks,
            k,
            b,
            b_index,
            c,
            c_index,
            c_row,
            rows,
            max_rows,
            cols,
            accumulate,
            ahead,
            scales,
        } = self;
        let [(p, p_by), (q, q_by)] = blocks;
        let set = if *accumulate { "+=" } else { "=" };
        let kind = match kind {
            TileKind::F32 => String::new(),
            kind => format!("{} ", kind.name()),
        };
        write!(
            f,
            "tile {kind}{c}[{c_index}; row {c_row}] {set} {a}[{a_index}; row {a_row}, k {a_k}] * {b}[{b_index}]"
        )?;
        write!(
            f,
            " sum({p} by {p_by}, {q} by {q_by}, {k}) rows {rows} max {max_rows} cols {cols}"
        )?;
        if let Some(Ahead { turn, of }) = ahead {
            write!(f, " ahead {turn} of {of}")?;
        }
        let Some(s) = scales else { return Ok(()) };
        let Scales {
            a,
            offset,
            a_index,
            a_block,
            b,
            b_index,
            minima,
        } = &**s;
        write!(
            f,
            " scales {a}[{a_index}; block {a_block}] * {b}[{b_index}] offset {offset}"
        )?;
        match minima {
            Some(Minima { b, total }) => write!(f, " minima {b} total {total}"),
            None => Ok(()),
        }
    }
}

impl std::str::FromStr for Kernel {
    type Err = ParseError;
    fn from_str(s: &str) -> Result<Kernel> {
        whole(s, Kernel::parse)
    }
}

impl Kernel {
    /// Reads a kernel; [`Kernel::verify`] says whether it is a valid one.
    ///
    /// # Errors
    /// Where the text is no kernel, or a register has two types or none.
    pub fn parse(l: &mut Lexer) -> Result<Kernel> {
        l.expect("loops")?;
        let name = parse_global(l)?;
        let mut buffers = vec![];
        l.expect("(")?;
        l.list(")", |l| parse_buffer(l, &mut buffers, true))?;
        let symbols = parse_symbols(l)?;
        let pooled = l.eat("pooled");
        l.expect("{")?;
        let mut p = Parser {
            l,
            regs: FxHashMap::default(),
        };
        loop {
            if p.l.eat("buffer") {
                parse_buffer(p.l, &mut buffers, false)?;
            } else if p.l.eat("reg") {
                let r = Reg(parse_id(p.l, 'r')?);
                p.declare(r)?;
            } else {
                break;
            }
        }
        let body = p.block(0)?;
        let mut regs = vec![];
        for i in 0..p.regs.len() as u32 {
            let missing = || {
                p.l.error(format!(
                    "kernel @{name} has no type for r{i}: nothing assigns or declares it"
                ))
            };
            regs.push(*p.regs.get(&Reg(i)).ok_or_else(missing)?);
        }
        Ok(Kernel {
            name,
            symbols,
            buffers,
            regs,
            pooled,
            body,
        })
    }
}

fn parse_buffer(l: &mut Lexer, buffers: &mut Vec<Buffer>, param: bool) -> Result<()> {
    let place = l.place();
    let id = parse_id(l, 'b')?;
    if id as usize != buffers.len() {
        return Err(l.error_at(place, format!("found b{id}, expected b{}", buffers.len())));
    }
    l.expect(":")?;
    let dtype = l.dtype()?;
    l.expect("[")?;
    let len = parse_dim(l)?;
    l.expect("]")?;
    let place = l.place();
    let name = l.ident()?;
    let scope = Scope::ALL
        .into_iter()
        .find(|s| s.name() == name && matches!(s, Scope::In | Scope::Out) == param);
    let wanted = if param {
        "`in` or `out`"
    } else {
        "`worker`, `kernel`, `shared` or `private`"
    };
    let scope = scope.ok_or_else(|| l.error_at(place, format!("found `{name}`, expected {wanted}")))?;
    buffers.push(Buffer { dtype, len, scope });
    Ok(())
}

struct Parser<'l, 'a> {
    l: &'l mut Lexer<'a>,
    regs: FxHashMap<Reg, RegInfo>,
}

impl Parser<'_, '_> {
    /// `: f32x8` after a register.
    fn declare(&mut self, r: Reg) -> Result<RegInfo> {
        self.l.expect(":")?;
        let place = self.l.place();
        let text = self.l.ident()?;
        let (dtype, lanes) = match text.split_once('x') {
            Some((d, n)) => (d, n.parse().ok().filter(|n| *n != 1)),
            None => (text, Some(1)),
        };
        let info = match (dtype.parse::<DType>(), lanes) {
            (Ok(dtype), Some(lanes)) => RegInfo { dtype, lanes },
            _ => {
                return Err(self
                    .l
                    .error_at(place, format!("found `{text}`, expected a type such as f32 or f32x8")));
            }
        };
        match *self.regs.entry(r).or_insert(info) {
            known if known == info => Ok(info),
            known => Err(self
                .l
                .error_at(place, format!("{r} is {info} here, but {known} before"))),
        }
    }

    fn reg(&mut self) -> Result<Reg> {
        Ok(Reg(parse_id(self.l, 'r')?))
    }

    fn buf(&mut self) -> Result<Buf> {
        Ok(Buf(parse_id(self.l, 'b')?))
    }

    /// Statements up to the closing brace.
    fn block(&mut self, depth: usize) -> Result<Vec<Stmt>> {
        if depth > MAX_DEPTH {
            return Err(self.l.error(format!("statements nested deeper than {MAX_DEPTH}")));
        }
        let mut out = vec![];
        while !self.l.eat("}") {
            out.push(self.stmt(depth)?);
        }
        Ok(out)
    }

    fn stmt(&mut self, depth: usize) -> Result<Stmt> {
        if self.l.eat("for") {
            let var = Var(parse_id(self.l, 'i')?);
            let place = self.l.place();
            let name = self.l.ident()?;
            let kind = LoopKind::ALL.into_iter().find(|k| k.name() == name);
            let mut kind = kind.ok_or_else(|| self.l.error_at(place, format!("`{name}` is no kind of loop")))?;
            if let LoopKind::Parallel(grain) = &mut kind {
                *grain = Grain::parse(self.l)?;
            }
            parse_range_start(self.l)?;
            let extent = parse_ix(self.l)?;
            self.l.expect("{")?;
            return Ok(Stmt::For {
                var,
                kind,
                extent,
                body: self.block(depth + 1)?,
            });
        }
        if self.l.eat("if") {
            let bounds = parse_bounds(self.l)?;
            self.l.expect("{")?;
            return Ok(Stmt::If {
                bounds,
                then: self.block(depth + 1)?,
            });
        }
        if self.l.eat("store") {
            let buffer = self.buf()?;
            self.l.expect("[")?;
            let index = parse_ix(self.l)?;
            self.l.expect("]")?;
            self.l.expect("=")?;
            return Ok(Stmt::Store {
                buffer,
                index,
                value: self.reg()?,
            });
        }
        if self.l.eat("check") {
            return Ok(Stmt::Check {
                number: check_number(self.l)?,
                holds: self.reg()?,
            });
        }
        if self.l.eat("barrier") {
            return Ok(Stmt::Barrier);
        }
        if self.l.eat("tile") {
            return Ok(Stmt::Tile(Box::new(self.tile()?)));
        }
        if !matches!(self.l.peek(), Token::Ident(s) if crate::text::id(s, 'r').is_some()) {
            return Err(self.l.unexpected("a statement or `}`"));
        }
        let r = self.reg()?;
        let info = self.declare(r)?;
        self.l.expect("=")?;
        Ok(Stmt::Set(r, self.expr(info.dtype)?))
    }

    fn scalar(&mut self, dtype: DType) -> Result<u64> {
        let place = self.l.place();
        let s = Scalar::parse(self.l)?;
        if s.dtype == dtype {
            return Ok(s.bits);
        }
        Err(self
            .l
            .error_at(place, format!("a constant of {}, expected {dtype}", s.dtype)))
    }

    fn expr(&mut self, dtype: DType) -> Result<Expr> {
        let place = self.l.place();
        let name = self.l.ident()?;
        Ok(match name {
            "const" => Expr::Const(self.scalar(dtype)?),
            "index" => Expr::Index(parse_ix(self.l)?),
            "inbounds" => Expr::InBounds(parse_bounds(self.l)?),
            "copy" => Expr::Copy(self.reg()?),
            "lane" => {
                let r = self.reg()?;
                let place = self.l.place();
                let k = self.l.index()?;
                Expr::Lane(
                    r,
                    u32::try_from(k).map_err(|_| self.l.error_at(place, format!("{k} is no lane")))?,
                )
            }
            "load" => {
                let buffer = self.buf()?;
                self.l.expect("[")?;
                let index = parse_ix(self.l)?;
                self.l.expect("]")?;
                let (mut guard, mut fill) = (vec![], 0);
                if self.l.eat("where") {
                    guard = parse_bounds(self.l)?;
                    self.l.expect("else")?;
                    fill = self.scalar(dtype)?;
                }
                Expr::Load {
                    buffer,
                    index,
                    guard,
                    fill,
                }
            }
            _ => {
                let to = if matches!(name, "cast" | "bitcast") {
                    Some(self.l.dtype()?)
                } else {
                    None
                };
                let p = Prim::from_name(name, to);
                let p = p.ok_or_else(|| self.l.error_at(place, format!("`{name}` is no expression")))?;
                let mut args = [self.reg()?; 3];
                for a in &mut args[1..p.arity()] {
                    *a = self.reg()?;
                }
                Expr::Prim(p, args)
            }
        })
    }

    fn tile(&mut self) -> Result<Tile> {
        // A tile of f32 does not say so.
        let named = TileKind::ALL.into_iter().find(|k| self.l.eat(k.name()));
        let kind = named.unwrap_or(TileKind::F32);
        let (c, c_index, c_row) = self.strided("row")?;
        let accumulate = self.l.eat("+=");
        if !accumulate {
            self.l.expect("=")?;
        }
        let a = self.buf()?;
        self.l.expect("[")?;
        let a_index = parse_ix(self.l)?;
        self.l.expect(";")?;
        self.l.expect("row")?;
        let a_row = parse_ix(self.l)?;
        self.l.expect(",")?;
        self.l.expect("k")?;
        let a_k = parse_ix(self.l)?;
        self.l.expect("]")?;
        self.l.expect("*")?;
        let (b, b_index) = self.element()?;
        self.l.expect("sum")?;
        self.l.expect("(")?;
        let mut block = || {
            let n = parse_ix(self.l)?;
            self.l.expect("by")?;
            let by = parse_ix(self.l)?;
            self.l.expect(",")?;
            Ok((n, by))
        };
        let blocks = [block()?, block()?];
        let k = parse_ix(self.l)?;
        self.l.expect(")")?;
        self.l.expect("rows")?;
        let rows = parse_ix(self.l)?;
        self.l.expect("max")?;
        let place = self.l.place();
        let max = self.l.index()?;
        let max_rows = u32::try_from(max).map_err(|_| self.l.error_at(place, format!("{max} rows are too many")))?;
        self.l.expect("cols")?;
        let cols = parse_ix(self.l)?;
        let ahead = if self.l.eat("ahead") {
            let turn = parse_ix(self.l)?;
            self.l.expect("of")?;
            let of = parse_ix(self.l)?;
            Some(Ahead { turn, of })
        } else {
            None
        };
        let scales = if self.l.eat("scales") {
            Some(Box::new(self.scales()?))
        } else {
            None
        };
        Ok(Tile {
            kind,
            a,
            a_index,
            a_row,
            a_k,
            blocks,
            k,
            b,
            b_index,
            c,
            c_index,
            c_row,
            rows,
            max_rows,
            cols,
            accumulate,
            ahead,
            scales,
        })
    }

    /// `b0[index]`.
    fn element(&mut self) -> Result<(Buf, Ix)> {
        let b = self.buf()?;
        self.l.expect("[")?;
        let index = parse_ix(self.l)?;
        self.l.expect("]")?;
        Ok((b, index))
    }

    /// `b0[index; by distance]`.
    fn strided(&mut self, by: &str) -> Result<(Buf, Ix, Ix)> {
        let b = self.buf()?;
        self.l.expect("[")?;
        let index = parse_ix(self.l)?;
        self.l.expect(";")?;
        self.l.expect(by)?;
        let distance = parse_ix(self.l)?;
        self.l.expect("]")?;
        Ok((b, index, distance))
    }

    fn scales(&mut self) -> Result<Scales> {
        let (a, a_index, a_block) = self.strided("block")?;
        self.l.expect("*")?;
        let (b, b_index) = self.element()?;
        self.l.expect("offset")?;
        let offset = self.buf()?;
        let minima = if self.l.eat("minima") {
            let b = self.buf()?;
            self.l.expect("total")?;
            let total = self.buf()?;
            Some(Minima { b, total })
        } else {
            None
        };
        Ok(Scales {
            a,
            offset,
            a_index,
            a_block,
            b,
            b_index,
            minima,
        })
    }
}
