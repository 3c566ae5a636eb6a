//! The text form of programs; parsing what was printed gives the same program. The kernels stand behind it, in their own
//! form, in the order of [`Program::kernels`].
//!
//! ```text
//! program @mlp(input: s0) -> (y: s7) symbols(batch) arena 4096 {
//!   guard batch == 8*n: "the batch is whole tiles"
//!   let rows = 2*batch
//!   input s0: f32[batch, 40] = 0
//!   weight s1: f32[64, 40] file("mlp.onnx", 132)
//!   computed s2: f32[40, 64] layout(1, 0, 1:32)
//!   temp s3: f32[batch, 64] at 0
//!   temp s4: f32[batch, 64]                     // not planned
//!   view s5: f32[64, batch] = s3                // the same memory
//!   view s6: f32[64] = s3 + 256                 // from byte 256 on
//!   heap s8: f32[found, 4]                      // memory of the context
//!   output s7: f32[batch, 10] = 0
//!   output s11: f32[batch, 40] = 1 over s0      // may be the memory of that input
//!   init {
//!     call @pack(s1, s2)
//!   }
//!   call @dense(s0, s2, s3) origin("Gemm_0")
//!   call @gather(s3, s4, s5) origin("Gather_1") checks("Gather_1")
//!   copy s3 -> s7
//!   copy s3 -> s8 rows(batch, 256, 64, 512)      // that many rows of 256 bytes, to 64, 64 + 512 …
//!   host softmax{axis=1 zeros=never}(s3) -> (s7) origin("sm")
//!   read found = s9 <= 4*batch origin("NonZero_2")
//!   let twice = 2*found
//!   check 1 <= found: "a box is kept" origin("NMS_3")
//!   alloc s8 origin("NonZero_2")
//!   if s10 {
//!     copy s3 -> s7
//!   } else {
//!     call @other(s3, s7)
//!   }
//!   while s10 {
//!     call @next(s3, s4, s10)
//!   }
//! }
//! loops @pack(…
//! ```

use super::{Alias, Callable, Let, Program, Rows, Slot, SlotId, Step, Storage};
use crate::graph::{Constant, Files, parse_constant, parse_op};
use crate::guard::{Guard, parse_relation};
use crate::loops::Grain;
use crate::loops::text::{parse_symbols, symbols_text};
use crate::text::{Lexer, MAX_DEPTH, Result, global, name, parse_dim, parse_global, parse_id, parse_type, symbol};
use crate::{Dim, Layout};
use rustc_hash::FxHashMap;
use std::fmt;

fn list<T: fmt::Display>(items: impl IntoIterator<Item = T>) -> String {
    let all: Vec<String> = items.into_iter().map(|x| x.to_string()).collect();
    all.join(", ")
}

fn names_text<'a>(what: &str, names: impl IntoIterator<Item = &'a str>) -> String {
    let all = list(names.into_iter().map(|n| format!("{n:?}")));
    if all.is_empty() { all } else { format!(" {what}({all})") }
}

impl<K: Callable> fmt::Display for Program<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ports = |p: &[(String, SlotId)]| list(p.iter().map(|(n, s)| format!("{}: {s}", name(n))));
        write!(
            f,
            "program {}({}) -> ({})",
            global(&self.name),
            ports(&self.inputs),
            ports(&self.outputs)
        )?;
        f.write_str(&symbols_text(&self.symbols))?;
        if let Some(bytes) = &self.arena {
            write!(f, " arena {bytes}")?;
        }
        f.write_str(" {\n")?;
        for g in &self.guards {
            writeln!(f, "  guard {}: {:?}", g.relation_text(), g.reason)?;
        }
        if !self.strings.is_empty() {
            writeln!(f, "  strings({})", list(self.strings.iter().map(|s| format!("{s:?}"))))?;
        }
        for l in &self.lets {
            writeln!(f, "  {l}")?;
        }
        for (i, s) in self.slots.iter().enumerate() {
            let ty = format!("s{i}: {}{}", s.ty, s.layout.suffix());
            match &s.storage {
                Storage::Input(k) => writeln!(f, "  input {ty} = {k}")?,
                Storage::Output(k) => {
                    let over = self.aliased(SlotId(i as u32));
                    let over = over.map_or(String::new(), |s| format!(" over {s}"));
                    writeln!(f, "  output {ty} = {k}{over}")?;
                }
                Storage::Temp(None) => writeln!(f, "  temp {ty}")?,
                Storage::Temp(Some(at)) => writeln!(f, "  temp {ty} at {at}")?,
                Storage::Weight(data) => {
                    let c = Constant {
                        ty: s.ty.clone(),
                        data: data.clone(),
                    };
                    writeln!(f, "  weight {ty} {c}")?;
                }
                Storage::Computed => writeln!(f, "  computed {ty}")?,
                Storage::Heap => writeln!(f, "  heap {ty}")?,
                Storage::View { of, offset } if offset.is(0) => writeln!(f, "  view {ty} = {of}")?,
                Storage::View { of, offset } => writeln!(f, "  view {ty} = {of} + {offset}")?,
            }
        }
        // Without slots, empty initial steps tell the names of steps from those of the program.
        if !self.init.is_empty() || (self.slots.is_empty() && matches!(self.steps.first(), Some(Step::Let(_)))) {
            f.write_str("  init {\n")?;
            self.block(f, &self.init, 4)?;
            f.write_str("  }\n")?;
        }
        self.block(f, &self.steps, 2)?;
        f.write_str("}")?;
        self.kernels.iter().try_for_each(|k| write!(f, "\n{k}"))
    }
}

impl<K: Callable> fmt::Debug for Program<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl<K: Callable> Program<K> {
    fn block(&self, f: &mut fmt::Formatter<'_>, steps: &[Step], indent: usize) -> fmt::Result {
        for s in steps {
            write!(f, "{:indent$}{}", "", self.step(s))?;
            let [first, other] = s.blocks();
            if let Step::If { .. } | Step::While { .. } = s {
                f.write_str(" {\n")?;
                self.block(f, first, indent + 2)?;
                write!(f, "{:indent$}}}", "")?;
            }
            if !other.is_empty() {
                f.write_str(" else {\n")?;
                self.block(f, other, indent + 2)?;
                write!(f, "{:indent$}}}", "")?;
            }
            f.write_str("\n")?;
        }
        Ok(())
    }

    /// A step without its blocks.
    fn step(&self, s: &Step) -> String {
        let node = |origin: &std::sync::Arc<str>| names_text("origin", Some(&**origin).filter(|o| !o.is_empty()));
        match s {
            Step::Let(l) => l.to_string(),
            Step::Read {
                symbol: name,
                from,
                bound,
                origin,
            } => {
                let bound = bound.as_ref().map_or(String::new(), |d| format!(" <= {d}"));
                format!("read {} = {from}{bound}{}", symbol(name), node(origin))
            }
            Step::Alloc { slot, origin } => format!("alloc {slot}{}", node(origin)),
            Step::If { cond, .. } => format!("if {cond}"),
            Step::While { cond, .. } => format!("while {cond}"),
            Step::Check { guard, origin } => {
                format!("check {}: {:?}{}", guard.relation_text(), guard.reason, node(origin))
            }
            Step::Call {
                kernel,
                args,
                origin,
                checks,
            } => {
                let name = self.kernels.get(*kernel as usize).map_or("?", |k| k.name());
                format!(
                    "call {}({}){}{}",
                    global(name),
                    list(args),
                    names_text("origin", origin.iter().map(|o| &**o)),
                    names_text("checks", checks.iter().map(|o| &**o))
                )
            }
            Step::Copy { from, to, rows } => match rows {
                None => format!("copy {from} -> {to}"),
                Some(r) => format!(
                    "copy {from} -> {to} rows({}, {}, {}, {}){}",
                    r.count,
                    r.bytes,
                    r.start,
                    r.stride,
                    match r.grain == Grain::ALWAYS {
                        true => String::new(),
                        false => format!(" grain{}", r.grain),
                    }
                ),
            },
            Step::Host {
                op,
                inputs,
                outputs,
                origin,
            } => format!("host {op}({}) -> ({}){}", list(inputs), list(outputs), node(origin)),
        }
    }

    /// Reads a program; [`Program::verify`] says whether it is a valid one. `files` finds the files of weights.
    ///
    /// # Errors
    /// Where the text is no program, names no kernel or one twice, or names a file that is not there.
    pub fn parse(text: &str, files: Files) -> Result<Program<K>> {
        let mut l = Lexer::new(text);
        l.expect("program")?;
        let name = parse_global(&mut l)?;
        let inputs = ports(&mut l)?;
        l.expect("->")?;
        let outputs = ports(&mut l)?;
        let symbols = parse_symbols(&mut l)?;
        let arena = if l.eat("arena") { Some(parse_dim(&mut l)?) } else { None };
        l.expect("{")?;
        let mut p = Parser {
            l: &mut l,
            files,
            slots: vec![],
            over: vec![],
            calls: vec![],
            depth: 0,
        };
        let guards = p.guards()?;
        let mut strings = vec![];
        if p.l.eat("strings") {
            p.l.expect("(")?;
            strings = p.l.list(")", |l| Ok(l.string()?.into()))?;
        }
        let mut lets = vec![];
        while p.l.eat("let") {
            lets.push(p.binding()?);
        }
        while p.slot()? {}
        let mut init = vec![];
        if p.l.eat("init") {
            p.l.expect("{")?;
            init = p.steps()?;
        }
        let steps = p.steps()?;
        let (slots, calls, over) = (p.slots, p.calls, p.over);
        let mut aliases = vec![];
        for (output, input, place) in over {
            let found = inputs.iter().position(|i| i.1 == input);
            let input = found.ok_or_else(|| l.error_at(place, format!("{input} is no input")))? as u32;
            aliases.push(Alias { input, output });
        }
        let mut known: FxHashMap<String, u32> = FxHashMap::default();
        let mut kernels = vec![];
        while !l.at_end() {
            let place = l.place();
            let k = K::parse(&mut l)?;
            if known.insert(k.name().to_string(), kernels.len() as u32).is_some() {
                return Err(l.error_at(place, format!("a second kernel {}", global(k.name()))));
            }
            kernels.push(k);
        }
        let mut program = Program {
            name,
            symbols,
            guards,
            strings,
            lets,
            aliases,
            inputs,
            outputs,
            slots,
            kernels,
            init,
            steps,
            arena,
        };
        // Calls come before the kernels that they name, so they were numbered in order of appearance.
        let mut find = |kernel: &mut u32| {
            let (name, place) = &calls[*kernel as usize];
            let found = known.get(name).copied();
            *kernel = found.ok_or_else(|| l.error_at(*place, format!("there is no kernel {}", global(name))))?;
            Ok(())
        };
        each_kernel(&mut program.init, &mut find)?;
        each_kernel(&mut program.steps, &mut find)?;
        Ok(program)
    }
}

/// Calls `f` with the kernel of every call.
fn each_kernel(steps: &mut [Step], f: &mut dyn FnMut(&mut u32) -> Result<()>) -> Result<()> {
    steps.iter_mut().try_for_each(|s| match s {
        Step::Call { kernel, .. } => f(kernel),
        Step::If { then, other, .. } => each_kernel(then, f).and_then(|()| each_kernel(other, f)),
        Step::While { body, .. } => each_kernel(body, f),
        _ => Ok(()),
    })
}

/// `(name: s0, …)`.
fn ports(l: &mut Lexer) -> Result<Vec<(String, SlotId)>> {
    l.expect("(")?;
    l.list(")", |l| {
        let name = l.name()?;
        l.expect(":")?;
        Ok((name, slot_id(l)?))
    })
}

fn slot_id(l: &mut Lexer) -> Result<SlotId> {
    Ok(SlotId(parse_id(l, 's')?))
}

struct Parser<'p, 'a> {
    l: &'p mut Lexer<'a>,
    files: Files<'p>,
    slots: Vec<Slot>,
    /// Outputs, the inputs that they may be the memory of, and where that stands.
    over: Vec<(u32, SlotId, usize)>,
    /// The kernels that calls name, and where.
    calls: Vec<(String, usize)>,
    /// How many blocks are open.
    depth: usize,
}

impl Parser<'_, '_> {
    fn guards(&mut self) -> Result<Vec<Guard>> {
        let mut out = vec![];
        while self.l.eat("guard") {
            let mut g = parse_relation(self.l)?;
            self.l.expect(":")?;
            g.reason = self.l.string()?;
            out.push(g);
        }
        Ok(out)
    }

    /// What stands behind `let`.
    fn binding(&mut self) -> Result<Let> {
        let symbol = self.l.name()?.into();
        self.l.expect("=")?;
        Ok(Let {
            symbol,
            value: parse_dim(self.l)?,
        })
    }

    /// One slot, when there is another.
    fn slot(&mut self) -> Result<bool> {
        const KINDS: [&str; 7] = ["input", "output", "temp", "weight", "computed", "heap", "view"];
        let Some(kind) = KINDS.into_iter().find(|k| self.l.is(k)) else {
            return Ok(false);
        };
        self.l.bump();
        let place = self.l.place();
        let SlotId(id) = slot_id(self.l)?;
        if id as usize != self.slots.len() {
            return Err(self
                .l
                .error_at(place, format!("found s{id}, expected s{}", self.slots.len())));
        }
        self.l.expect(":")?;
        if kind == "weight" {
            let Constant { ty, data } = parse_constant(self.l, self.files)?;
            self.slots.push(Slot::new(ty, Storage::Weight(data)));
            return Ok(true);
        }
        let ty = parse_type(self.l)?;
        let layout = Layout::parse_suffix(self.l)?;
        let storage = match kind {
            "input" => Storage::Input(self.position()?),
            "output" => {
                let output = self.position()?;
                if self.l.eat("over") {
                    let place = self.l.place();
                    self.over.push((output, slot_id(self.l)?, place));
                }
                Storage::Output(output)
            }
            "temp" => Storage::Temp(if self.l.eat("at") {
                Some(parse_dim(self.l)?)
            } else {
                None
            }),
            "computed" => Storage::Computed,
            "heap" => Storage::Heap,
            _ => {
                self.l.expect("=")?;
                let of = slot_id(self.l)?;
                let offset = if self.l.eat("+") { parse_dim(self.l)? } else { Dim::ZERO };
                Storage::View { of, offset }
            }
        };
        self.slots.push(Slot { ty, storage, layout });
        Ok(true)
    }

    fn position(&mut self) -> Result<u32> {
        self.l.expect("=")?;
        let place = self.l.place();
        let i = self.l.index()?;
        u32::try_from(i).map_err(|_| self.l.error_at(place, format!("{i} is no position")))
    }

    /// Names of nodes behind a word, when it is there.
    fn names(&mut self, what: &str) -> Result<Vec<std::sync::Arc<str>>> {
        if !self.l.eat(what) {
            return Ok(vec![]);
        }
        self.l.expect("(")?;
        self.l.list(")", |l| Ok(l.string()?.into()))
    }

    /// `rows(COUNT, BYTES, START, STRIDE) grain(WORK from LEAST)`, when it is there.
    fn rows(&mut self) -> Result<Option<Rows>> {
        if !self.l.eat("rows") {
            return Ok(None);
        }
        let place = self.l.place();
        self.l.expect("(")?;
        let all = self.l.list(")", parse_dim)?;
        let [count, bytes, start, stride] = <[Dim; 4]>::try_from(all).map_err(|all| {
            self.l
                .error_at(place, format!("{} dims of rows, expected 4", all.len()))
        })?;
        Ok(Some(Rows {
            count,
            bytes,
            start,
            stride,
            grain: match self.l.eat("grain") {
                true => Grain::parse(self.l)?,
                false => Grain::ALWAYS,
            },
        }))
    }

    /// The one name of a node behind `origin`, or nothing.
    fn origin(&mut self, what: &str) -> Result<std::sync::Arc<str>> {
        let place = self.l.place();
        let mut origin = self.names("origin")?;
        if origin.len() > 1 {
            return Err(self.l.error_at(place, format!("{what} with several origins")));
        }
        Ok(origin.pop().unwrap_or_else(|| "".into()))
    }

    /// Steps up to the closing brace.
    fn steps(&mut self) -> Result<Vec<Step>> {
        let mut out = vec![];
        while !self.l.eat("}") {
            out.push(self.step()?);
        }
        Ok(out)
    }

    /// `{ … }`.
    fn block(&mut self) -> Result<Vec<Step>> {
        if self.depth == MAX_DEPTH {
            return Err(self.l.error(format!("more than {MAX_DEPTH} blocks inside each other")));
        }
        self.l.expect("{")?;
        self.depth += 1;
        let steps = self.steps();
        self.depth -= 1;
        steps
    }

    fn step(&mut self) -> Result<Step> {
        if self.l.eat("call") {
            let place = self.l.place();
            self.calls.push((parse_global(self.l)?, place));
            self.l.expect("(")?;
            let args = self.l.list(")", slot_id)?;
            return Ok(Step::Call {
                kernel: self.calls.len() as u32 - 1,
                args,
                origin: self.names("origin")?,
                checks: self.names("checks")?,
            });
        }
        if self.l.eat("copy") {
            let from = slot_id(self.l)?;
            self.l.expect("->")?;
            let to = slot_id(self.l)?;
            return Ok(Step::Copy {
                from,
                to,
                rows: self.rows()?,
            });
        }
        if self.l.eat("host") {
            let op = parse_op(self.l, self.files)?;
            self.l.expect("(")?;
            let inputs = self.l.list(")", slot_id)?;
            self.l.expect("->")?;
            self.l.expect("(")?;
            let outputs = self.l.list(")", slot_id)?;
            let origin = self.origin("a host operator")?;
            return Ok(Step::Host {
                op,
                inputs,
                outputs,
                origin,
            });
        }
        if self.l.eat("let") {
            return Ok(Step::Let(self.binding()?));
        }
        if self.l.eat("read") {
            let symbol = self.l.name()?.into();
            self.l.expect("=")?;
            let from = slot_id(self.l)?;
            let bound = if self.l.eat("<=") {
                Some(parse_dim(self.l)?)
            } else {
                None
            };
            let origin = self.origin("a size that is read")?;
            return Ok(Step::Read {
                symbol,
                from,
                bound,
                origin,
            });
        }
        if self.l.eat("alloc") {
            let slot = slot_id(self.l)?;
            let origin = self.origin("memory")?;
            return Ok(Step::Alloc { slot, origin });
        }
        if self.l.eat("if") {
            let cond = slot_id(self.l)?;
            let then = self.block()?;
            let other = if self.l.eat("else") { self.block()? } else { vec![] };
            return Ok(Step::If { cond, then, other });
        }
        if self.l.eat("while") {
            let cond = slot_id(self.l)?;
            let body = self.block()?;
            return Ok(Step::While { cond, body });
        }
        if self.l.eat("check") {
            let mut guard = parse_relation(self.l)?;
            self.l.expect(":")?;
            guard.reason = self.l.string()?;
            let origin = self.origin("a check")?;
            return Ok(Step::Check { guard, origin });
        }
        Err(self.l.unexpected("a slot, a step or `}`"))
    }
}
