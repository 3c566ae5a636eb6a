//! The text form of structured kernels; parsing what was printed gives the same kernel.
//!
//! ```text
//! kernel @softmax(o0: f32[n, 10] in, o1: f32[n, 10] out) symbols(n) outer(n) {
//!   schedule rows{lanes=8, outside=1, …}         // where it is not the compiler's to choose
//!   local l0: f32[]
//!   stage reduce(10) {                           // dims in order, in groups of one kind; `where (4*i0 + i1 in 0..n)` for
//!                                                // those points only; then `scan` or `scatter`
//!     read o0[i0, i1] where (i1 - 1 in 0..10) else f32 0.0
//!     index 2*i1
//!     inbounds(i1 in 0..5, i0 in 0..n)
//!     compute(r1) (v0: i64) { v1 = neg v0 } -> v1
//!     check 0 (r3 in 0..n) where (i1 in 0..5)
//!     body (v0: f32, v1: i64, v2: bool, v3: i64) { } -> v0
//!     combine free init(f32:0xff800000) (v0: f32, v1: f32) { v2 = max v0 v1 } -> v2
//!       merge (v0: f32, v1: f32) { v2 = max v0 v1 } -> v2
//!     write l0[]
//!   }
//!   loop(n) {                                    // its parts again and again, in order; i1 counts the iterations; `where (i0 - 8*i1
//!                                                // in 0..n)`: others may be left out
//!     stage reduce(10) { … }                     // whose dimension is i2
//!   }
//! }
//! ```
//!
//! Read `k` of a stage is `r{k}` in index expressions. An operand that is not row-major has its layout behind it, as in
//! `o2: f32[40, 64] in layout(1, 0, 1:32)`.

use super::{Check, Combine, IterDim, IterKind, Kernel, Local, Loop, Operand, Part, Place, Read, Role, Stage};
use crate::index::{Ix, bounds_text, parse_bounds, parse_ix};
use crate::loops::text::{check_number, parse_symbols, symbols_text};
use crate::scalar::{Body, Scalar};
use crate::schedule::Schedule;
use crate::text::{Lexer, ParseError, Result, global, id, parse_dim, parse_global, parse_id, parse_type, whole};
use crate::{DType, Dim, Layout, Type};
use std::fmt::{self, Write};

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Place::Operand(i) => write!(f, "o{i}"),
            Place::Local(i) => write!(f, "l{i}"),
        }
    }
}

/// The most loops inside each other, so that hostile text cannot exhaust the stack.
const MAX_DEPTH: usize = 16;

fn list<T: fmt::Display>(items: impl IntoIterator<Item = T>) -> String {
    let all: Vec<String> = items.into_iter().map(|x| x.to_string()).collect();
    all.join(", ")
}

/// A body on one line when it is short, else on a line for each instruction.
fn body_text(b: &Body) -> String {
    if b.insts.len() <= 3 {
        b.to_string()
    } else {
        format!("{b:#}").replace('\n', "\n  ")
    }
}

impl Kernel {
    /// The dtype of a place.
    ///
    /// # Errors
    /// When the place does not exist.
    pub fn dtype(&self, p: Place) -> std::result::Result<DType, String> {
        self.place(p).map(|(d, _)| d)
    }

    /// The dtype and the extents of a place.
    ///
    /// # Errors
    /// When the place does not exist.
    pub fn place(&self, p: Place) -> std::result::Result<(DType, &[Dim]), String> {
        let found = match p {
            Place::Operand(i) => self.operands.get(i as usize).map(|o| (o.ty.dtype, &o.ty.shape[..])),
            Place::Local(i) => self.locals.get(i as usize).map(|l| (l.dtype, &l.shape[..])),
        };
        found.ok_or_else(|| format!("{p} does not exist"))
    }
}

impl fmt::Display for Kernel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "kernel {}(", global(&self.name))?;
        for (i, o) in self.operands.iter().enumerate() {
            let comma = if i > 0 { ", " } else { "" };
            let role = match o.role {
                Role::In => "in",
                Role::Out => "out",
                Role::Part => "part",
            };
            write!(f, "{comma}o{i}: {} {role}{}", o.ty, o.layout.suffix())?;
        }
        write!(f, "){}", symbols_text(&self.symbols))?;
        writeln!(f, " outer({}) {{", list(&self.outer))?;
        if let Some(s) = &self.schedule {
            writeln!(f, "  schedule {s}")?;
        }
        for (i, l) in self.locals.iter().enumerate() {
            writeln!(f, "  local l{i}: {}", Type::new(l.dtype, l.shape.clone()))?;
        }
        self.print_parts(f, &self.parts, 1)?;
        f.write_str("}")
    }
}

impl Kernel {
    fn print_parts(&self, f: &mut fmt::Formatter<'_>, parts: &[Part], depth: usize) -> fmt::Result {
        let indent = "  ".repeat(depth);
        for p in parts {
            match p {
                Part::Stage(s) => {
                    let mut text = String::new();
                    self.print_stage(&mut text, s)?;
                    text.lines().try_for_each(|line| writeln!(f, "{indent}{line}"))?;
                }
                Part::Loop(l) => {
                    write!(f, "{indent}loop({})", l.extent)?;
                    if !l.needed.is_empty() {
                        write!(f, " where ({})", bounds_text(&l.needed))?;
                    }
                    writeln!(f, " {{")?;
                    self.print_parts(f, &l.body, depth + 1)?;
                    writeln!(f, "{indent}}}")?;
                }
            }
        }
        Ok(())
    }

    fn print_stage(&self, f: &mut String, s: &Stage) -> fmt::Result {
        f.write_str("stage")?;
        for group in s.dims.chunk_by(|a, b| a.kind == b.kind) {
            let kind = if group[0].kind == IterKind::Parallel {
                "parallel"
            } else {
                "reduce"
            };
            write!(f, " {kind}({})", list(group.iter().map(|d| &d.extent)))?;
        }
        if !s.guard.is_empty() {
            write!(f, " where ({})", bounds_text(&s.guard))?;
        }
        let flags = [(s.scan, " scan"), (s.scatter, " scatter")];
        flags.iter().filter(|x| x.0).try_for_each(|x| f.write_str(x.1))?;
        f.write_str(" {\n")?;
        for r in &s.reads {
            match r {
                Read::Element {
                    place,
                    map,
                    guard,
                    fill,
                } => {
                    write!(f, "  read {place}[{}]", list(map))?;
                    if !guard.is_empty() || *fill != 0 {
                        let fill = Scalar {
                            dtype: self.dtype(*place).unwrap_or(DType::U64),
                            bits: *fill,
                        };
                        write!(f, " where ({}) else {fill}", bounds_text(guard))?;
                    }
                    writeln!(f)?;
                }
                Read::Index(ix) => writeln!(f, "  index {ix}")?,
                Read::InBounds(b) => writeln!(f, "  inbounds({})", bounds_text(b))?,
                Read::Computed(b, args) => {
                    writeln!(
                        f,
                        "  compute({}) {}",
                        list(args.iter().map(|a| format!("r{a}"))),
                        body_text(b)
                    )?;
                }
            }
        }
        for c in &s.checks {
            write!(f, "  check {} ({})", c.number, bounds_text(&c.bounds))?;
            if !c.guard.is_empty() {
                write!(f, " where ({})", bounds_text(&c.guard))?;
            }
            writeln!(f)?;
        }
        writeln!(f, "  body {}", body_text(&s.body))?;
        if let Some(c) = &s.combine {
            let init = c.init.iter().enumerate().map(|(i, &bits)| Scalar {
                dtype: c.body.inputs.get(i).copied().unwrap_or(DType::U64),
                bits,
            });
            let free = if c.free { " free" } else { "" };
            writeln!(f, "  combine{free} init({}) {}", list(init), body_text(&c.body))?;
            writeln!(f, "    merge {}", body_text(&c.merge))?;
        }
        for (place, map) in &s.writes {
            writeln!(f, "  write {place}[{}]", list(map))?;
        }
        f.write_str("}\n")
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
    /// Where the text is no kernel.
    pub fn parse(l: &mut Lexer) -> Result<Kernel> {
        l.expect("kernel")?;
        let name = parse_global(l)?;
        let mut operands = vec![];
        l.expect("(")?;
        l.list(")", |l| {
            expect_id(l, 'o', operands.len())?;
            l.expect(":")?;
            let ty = parse_type(l)?;
            let role = match l.eat("in") {
                true => Role::In,
                false if l.eat("out") => Role::Out,
                false if l.eat("part") => Role::Part,
                false => return Err(l.unexpected("`in`, `out` or `part`")),
            };
            operands.push(Operand {
                ty,
                role,
                layout: Layout::parse_suffix(l)?,
            });
            Ok(())
        })?;
        let symbols = parse_symbols(l)?;
        l.expect("outer")?;
        l.expect("(")?;
        let outer = l.list(")", parse_dim)?;
        l.expect("{")?;
        let mut k = Kernel {
            name,
            symbols,
            operands,
            locals: vec![],
            outer,
            schedule: if l.eat("schedule") {
                Some(Schedule::parse(l)?)
            } else {
                None
            },
            parts: vec![],
        };
        while l.eat("local") {
            expect_id(l, 'l', k.locals.len())?;
            l.expect(":")?;
            let Type { dtype, shape } = parse_type(l)?;
            k.locals.push(Local { dtype, shape });
        }
        k.parts = k.parse_parts(l, 0)?;
        l.expect("}")?;
        Ok(k)
    }

    /// Stages and loops, inside `depth` loops.
    fn parse_parts(&self, l: &mut Lexer, depth: usize) -> Result<Vec<Part>> {
        let mut parts = vec![];
        loop {
            let place = l.place();
            if l.eat("stage") {
                parts.push(Part::Stage(self.parse_stage(l)?));
            } else if l.eat("loop") {
                if depth == MAX_DEPTH {
                    return Err(l.error_at(place, format!("a loop inside {MAX_DEPTH} others")));
                }
                l.expect("(")?;
                let extent = parse_dim(l)?;
                l.expect(")")?;
                let needed = if l.eat("where") { parse_bounds(l)? } else { vec![] };
                l.expect("{")?;
                let body = self.parse_parts(l, depth + 1)?;
                l.expect("}")?;
                parts.push(Part::Loop(Loop { extent, needed, body }));
            } else {
                return Ok(parts);
            }
        }
    }

    fn parse_stage(&self, l: &mut Lexer) -> Result<Stage> {
        let mut dims = vec![];
        loop {
            let kind = match l.eat("parallel") {
                true => IterKind::Parallel,
                false if l.eat("reduce") => IterKind::Reduction,
                false => break,
            };
            l.expect("(")?;
            dims.extend(
                l.list(")", parse_dim)?
                    .into_iter()
                    .map(|extent| IterDim { extent, kind }),
            );
        }
        let guard = if l.eat("where") { parse_bounds(l)? } else { vec![] };
        let (scan, scatter) = (l.eat("scan"), l.eat("scatter"));
        l.expect("{")?;
        let mut reads = vec![];
        let mut checks = vec![];
        while !l.eat("body") {
            if l.eat("check") {
                checks.push(Check {
                    number: check_number(l)?,
                    bounds: parse_bounds(l)?,
                    guard: if l.eat("where") { parse_bounds(l)? } else { vec![] },
                });
            } else {
                reads.push(self.parse_read(l)?);
            }
        }
        let body = Body::parse(l)?;
        let mut combine = None;
        if l.eat("combine") {
            let free = l.eat("free");
            l.expect("init")?;
            l.expect("(")?;
            let place = l.place();
            let init = l.list(")", Scalar::parse)?;
            let body = Body::parse(l)?;
            for (s, d) in init.iter().zip(&body.inputs) {
                if s.dtype != *d {
                    return Err(l.error_at(place, format!("an initial value of {}, expected {d}", s.dtype)));
                }
            }
            l.expect("merge")?;
            let init = init.into_iter().map(|s| s.bits).collect();
            combine = Some(Combine {
                init,
                body,
                free,
                merge: Body::parse(l)?,
            });
        }
        let mut writes = vec![];
        while l.eat("write") {
            writes.push(self.parse_access(l)?);
        }
        l.expect("}")?;
        Ok(Stage {
            dims,
            guard,
            reads,
            checks,
            body,
            combine,
            writes,
            scan,
            scatter,
        })
    }

    /// `o0[i0, i1]`.
    fn parse_access(&self, l: &mut Lexer) -> Result<(Place, Vec<Ix>)> {
        let at = l.place();
        let name = l.ident()?;
        let place = match (id(name, 'o'), id(name, 'l')) {
            (Some(i), _) => Place::Operand(i),
            (_, Some(i)) => Place::Local(i),
            _ => return Err(l.error_at(at, format!("found `{name}`, expected an operand or a local"))),
        };
        self.place(place).map_err(|e| l.error_at(at, e))?;
        l.expect("[")?;
        Ok((place, l.list("]", parse_ix)?))
    }

    fn parse_read(&self, l: &mut Lexer) -> Result<Read> {
        if l.eat("index") {
            return Ok(Read::Index(parse_ix(l)?));
        }
        if l.eat("inbounds") {
            return Ok(Read::InBounds(parse_bounds(l)?));
        }
        if l.eat("compute") {
            l.expect("(")?;
            let args = l.list(")", |l| parse_id(l, 'r'))?;
            return Ok(Read::Computed(Body::parse(l)?, args));
        }
        if !l.eat("read") {
            return Err(l.unexpected("`read`, `index`, `inbounds`, `compute`, `check` or `body`"));
        }
        let (place, map) = self.parse_access(l)?;
        let (mut guard, mut fill) = (vec![], 0);
        if l.eat("where") {
            guard = parse_bounds(l)?;
            l.expect("else")?;
            let at = l.place();
            let s = Scalar::parse(l)?;
            let want = self.dtype(place).map_err(|e| l.error_at(at, e))?;
            if s.dtype != want {
                return Err(l.error_at(at, format!("a fill value of {}, but {place} is {want}", s.dtype)));
            }
            fill = s.bits;
        }
        Ok(Read::Element {
            place,
            map,
            guard,
            fill,
        })
    }
}

fn expect_id(l: &mut Lexer, prefix: char, want: usize) -> Result<()> {
    let place = l.place();
    let found = parse_id(l, prefix)?;
    if found as usize == want {
        return Ok(());
    }
    Err(l.error_at(place, format!("found {prefix}{found}, expected {prefix}{want}")))
}
