//! The vector IR: straight x86-64 vector code over virtual registers.
//!
//! It holds the innermost vector region of a kernel, written by a generator such as [`tile`](super::tile): loads, stores,
//! broadcasts, fused multiply-add, a little pointer arithmetic and counted loops. A [`Function`] has one ISA level; its
//! vectors are 16 `f32` lanes for AVX-512 and 8 for AVX2. Registers are mutable (this is not SSA: an accumulator is updated
//! in place) and each belongs to one of three classes, told apart by their Rust types: [`V`] vectors, [`G`] 64-bit general
//! registers, [`K`] lane masks. [`regalloc`](super::regalloc) maps them to the machine's and
//! [`assemble`](super::assemble) writes the bytes.
//!
//! ```text
//! fn saxpy(g0, g1) avx512 {
//!   v2 = load [g0]                 ->   vmovups zmm0, [rdi]
//!   v2 += v2 * broadcast [g1 + 4]  ->   vfmadd231ps zmm0, zmm0, [rsi + 4]{1to16}
//!   store [g0], v2                 ->   vmovups [rdi], zmm0
//!   return
//! }
//! ```
//!
//! Invariants: there are no calls, no constants in memory and no stack slots, so the code is position independent and
//! needs no relocation; control leaves through [`Op::Return`] alone; a register is written before it is read on every path.

use std::fmt;

use super::{Error, Isa};

macro_rules! register {
    ($(#[$doc:meta])* $name:ident, $letter:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(pub(super) u32);
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!($letter, "{}"), self.0)
            }
        }
    };
}

register!(
    /// A virtual vector register of `f32` lanes.
    V,
    "v"
);
register!(
    /// A virtual 64-bit general register.
    G,
    "g"
);
register!(
    /// A virtual lane mask: an opmask register on AVX-512, a vector of sign bits on AVX2.
    K,
    "k"
);
register!(
    /// A place in the code that a branch can name.
    Label,
    "L"
);

/// The class of a virtual register.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// [`V`].
    Vector,
    /// [`G`].
    General,
    /// [`K`].
    Mask,
}

/// How an operation touches a register.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Read.
    Use,
    /// Written after every operand was read, so it may share a register with one that ends here.
    Def,
    /// Read and written.
    Update,
    /// Written while operands are still to be read, and dead afterwards.
    Scratch,
}

/// An address: `base + index * scale + disp`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mem {
    /// The base pointer.
    pub base: G,
    /// Index register and scale (1, 2, 4 or 8).
    pub index: Option<(G, u8)>,
    /// Bytes added.
    pub disp: i32,
}

impl Mem {
    /// `[base + disp]`.
    pub fn at(base: G, disp: i32) -> Mem {
        Mem {
            base,
            index: None,
            disp,
        }
    }

    /// `[base + index * scale + disp]`; `scale` is 1, 2, 4 or 8.
    pub fn indexed(base: G, index: G, scale: u8, disp: i32) -> Mem {
        Mem {
            base,
            index: Some((index, scale)),
            disp,
        }
    }
}

/// The second source of a vector operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operand {
    /// A register.
    Reg(V),
    /// A whole vector in memory, at any alignment.
    Mem(Mem),
    /// One `f32` in memory, given to every lane; AVX-512 only.
    Broadcast(Mem),
}

/// The source of a general-register operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scalar {
    /// A register.
    Reg(G),
    /// A constant.
    Imm(i32),
    /// Eight bytes in memory.
    Mem(Mem),
}

/// A lane-wise `f32` operation of two sources.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Binary {
    /// `a + b`.
    Add,
    /// `a - b`.
    Sub,
    /// `a * b`.
    Mul,
    /// `a > b ? a : b`, as `maxps`: `b` where either is NaN or both are zero.
    Max,
    /// `a < b ? a : b`, as `minps`: `b` where either is NaN or both are zero.
    Min,
}

/// A wrapping 64-bit operation that updates its first operand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GeneralOp {
    /// `dst += src`.
    Add,
    /// `dst -= src`.
    Sub,
    /// `dst *= src`.
    Mul,
}

/// A signed comparison.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cond {
    /// `==`.
    Eq,
    /// `!=`.
    Ne,
    /// `<`.
    Lt,
    /// `<=`.
    Le,
    /// `>`.
    Gt,
    /// `>=`.
    Ge,
}

/// One operation. Fields: `dst` is written, `mem` an address, `mask` the lanes that count, `to` where to go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the fields are told in the line of their operation")]
pub enum Op {
    /// All lanes zero.
    Zero { dst: V },
    /// Load a vector; with a mask, the other lanes are zero and their memory is not touched.
    Load { dst: V, mem: Mem, mask: Option<K> },
    /// Store a vector; with a mask, only those lanes are written.
    Store { mem: Mem, src: V, mask: Option<K> },
    /// One `f32` from memory to every lane.
    Broadcast { dst: V, mem: Mem },
    /// `acc = a * b + acc`, rounded once.
    Fma { acc: V, a: V, b: Operand },
    /// `dst = op(a, b)`.
    Binary { op: Binary, dst: V, a: V, b: Operand },
    /// Lane `i` of `dst` is set where `i + skip < count`. `count` is at most 255 and not negative, `skip` at most 63.
    FirstLanes {
        dst: K,
        count: G,
        skip: u8,
        scratch: (G, V),
    },
    /// Ask for the cache line of `mem` in L1.
    Prefetch { mem: Mem },
    /// A constant.
    Imm { dst: G, value: i64 },
    /// Copy a register.
    Copy { dst: G, src: G },
    /// Load eight bytes.
    LoadGeneral { dst: G, mem: Mem },
    /// The address itself.
    Lea { dst: G, mem: Mem },
    /// `dst = op(dst, src)`.
    General { op: GeneralOp, dst: G, src: Scalar },
    /// A place to jump to.
    Label(Label),
    /// Go to `to`.
    Jump { to: Label },
    /// Go to `to` if `a cond b`, else on to the next operation.
    Branch { cond: Cond, a: G, b: Scalar, to: Label },
    /// Return to the caller.
    Return,
}

impl Op {
    /// Calls `see` for every register that the operation touches: class, number, role.
    pub fn visit(&self, mut see: impl FnMut(Class, u32, Role)) {
        use Role::{Def, Scratch, Update, Use};
        let mem = |m: &Mem, see: &mut dyn FnMut(Class, u32, Role)| {
            see(Class::General, m.base.0, Use);
            if let Some((index, _)) = m.index {
                see(Class::General, index.0, Use);
            }
        };
        let operand = |b: &Operand, see: &mut dyn FnMut(Class, u32, Role)| match b {
            Operand::Reg(v) => see(Class::Vector, v.0, Use),
            Operand::Mem(m) | Operand::Broadcast(m) => mem(m, see),
        };
        let scalar = |b: &Scalar, see: &mut dyn FnMut(Class, u32, Role)| match b {
            Scalar::Reg(g) => see(Class::General, g.0, Use),
            Scalar::Imm(_) => {}
            Scalar::Mem(m) => mem(m, see),
        };
        match self {
            Op::Zero { dst } => see(Class::Vector, dst.0, Def),
            Op::Load { dst, mem: m, mask } => {
                mem(m, &mut see);
                if let Some(k) = mask {
                    see(Class::Mask, k.0, Use);
                }
                see(Class::Vector, dst.0, Def);
            }
            Op::Store { mem: m, src, mask } => {
                mem(m, &mut see);
                if let Some(k) = mask {
                    see(Class::Mask, k.0, Use);
                }
                see(Class::Vector, src.0, Use);
            }
            Op::Broadcast { dst, mem: m } => {
                mem(m, &mut see);
                see(Class::Vector, dst.0, Def);
            }
            Op::Fma { acc, a, b } => {
                see(Class::Vector, a.0, Use);
                operand(b, &mut see);
                see(Class::Vector, acc.0, Update);
            }
            Op::Binary { dst, a, b, .. } => {
                see(Class::Vector, a.0, Use);
                operand(b, &mut see);
                see(Class::Vector, dst.0, Def);
            }
            Op::FirstLanes {
                dst, count, scratch, ..
            } => {
                see(Class::General, count.0, Use);
                see(Class::General, scratch.0.0, Scratch);
                see(Class::Vector, scratch.1.0, Scratch);
                see(Class::Mask, dst.0, Def);
            }
            Op::Prefetch { mem: m } => mem(m, &mut see),
            Op::Imm { dst, .. } => see(Class::General, dst.0, Def),
            Op::Copy { dst, src } => {
                see(Class::General, src.0, Use);
                see(Class::General, dst.0, Def);
            }
            Op::LoadGeneral { dst, mem: m } | Op::Lea { dst, mem: m } => {
                mem(m, &mut see);
                see(Class::General, dst.0, Def);
            }
            Op::General { dst, src, .. } => {
                scalar(src, &mut see);
                see(Class::General, dst.0, Update);
            }
            Op::Branch { a, b, .. } => {
                see(Class::General, a.0, Use);
                scalar(b, &mut see);
            }
            Op::Label(_) | Op::Jump { .. } | Op::Return => {}
        }
    }

    /// The label this operation may jump to.
    pub fn target(&self) -> Option<Label> {
        match self {
            Op::Jump { to } | Op::Branch { to, .. } => Some(*to),
            _ => None,
        }
    }

    /// Whether control never reaches the next operation.
    pub fn ends(&self) -> bool {
        matches!(self, Op::Jump { .. } | Op::Return)
    }
}

/// A function in the vector IR, and the way to write one: ask for registers and labels, then push operations.
#[derive(Clone, Debug)]
pub struct Function {
    /// Its name, for the text form.
    pub name: String,
    /// The level it is written for.
    pub isa: Isa,
    /// The parameters, in the order of the System V integer arguments (at most 6).
    pub params: Vec<G>,
    /// The code.
    pub ops: Vec<Op>,
    classes: Vec<Class>,
    labels: u32,
}

impl Function {
    /// An empty function.
    pub fn new(name: impl Into<String>, isa: Isa) -> Function {
        Function {
            name: name.into(),
            isa,
            params: Vec::new(),
            ops: Vec::new(),
            classes: Vec::new(),
            labels: 0,
        }
    }

    fn register(&mut self, class: Class) -> u32 {
        self.classes.push(class);
        self.classes.len() as u32 - 1
    }

    /// A new vector register.
    pub fn vector(&mut self) -> V {
        V(self.register(Class::Vector))
    }

    /// A new general register.
    pub fn general(&mut self) -> G {
        G(self.register(Class::General))
    }

    /// A new mask.
    pub fn mask(&mut self) -> K {
        K(self.register(Class::Mask))
    }

    /// A new label, not placed yet.
    pub fn label(&mut self) -> Label {
        self.labels += 1;
        Label(self.labels - 1)
    }

    /// The next integer parameter.
    pub fn param(&mut self) -> G {
        let g = self.general();
        self.params.push(g);
        g
    }

    /// The class of each virtual register, by number.
    pub fn classes(&self) -> &[Class] {
        &self.classes
    }

    /// Appends an operation.
    pub fn push(&mut self, op: Op) {
        self.ops.push(op);
    }

    /// A register with all lanes zero.
    pub fn zero(&mut self) -> V {
        let dst = self.vector();
        self.push(Op::Zero { dst });
        dst
    }

    /// Loads a vector, or its lanes under `mask` with zeros elsewhere.
    pub fn load(&mut self, mem: Mem, mask: Option<K>) -> V {
        let dst = self.vector();
        self.push(Op::Load { dst, mem, mask });
        dst
    }

    /// Loads one `f32` to every lane.
    pub fn broadcast(&mut self, mem: Mem) -> V {
        let dst = self.vector();
        self.push(Op::Broadcast { dst, mem });
        dst
    }

    /// `op(a, b)` in a new register.
    pub fn binary(&mut self, op: Binary, a: V, b: Operand) -> V {
        let dst = self.vector();
        self.push(Op::Binary { op, dst, a, b });
        dst
    }

    /// A mask of the lanes `i` with `i + skip < count`; see [`Op::FirstLanes`].
    pub fn first_lanes(&mut self, count: G, skip: u8) -> K {
        let (dst, scratch) = (self.mask(), (self.general(), self.vector()));
        self.push(Op::FirstLanes {
            dst,
            count,
            skip,
            scratch,
        });
        dst
    }

    /// Loads eight bytes.
    pub fn load_general(&mut self, mem: Mem) -> G {
        let dst = self.general();
        self.push(Op::LoadGeneral { dst, mem });
        dst
    }

    /// The address of `mem`.
    pub fn lea(&mut self, mem: Mem) -> G {
        let dst = self.general();
        self.push(Op::Lea { dst, mem });
        dst
    }

    /// `dst = op(dst, src)`.
    pub fn general_op(&mut self, op: GeneralOp, dst: G, src: Scalar) {
        self.push(Op::General { op, dst, src });
    }

    /// Places a label here.
    pub fn place(&mut self, label: Label) {
        self.push(Op::Label(label));
    }

    /// Goes to `to` if `a cond b`.
    pub fn branch(&mut self, cond: Cond, a: G, b: Scalar, to: Label) {
        self.push(Op::Branch { cond, a, b, to });
    }

    /// A loop that runs its body while at least `step` remains in `counter`, taking `step` from it each time; what is left
    /// (less than `step`) stays in `counter`.
    pub fn counted_loop(&mut self, counter: G, step: i32, body: impl FnOnce(&mut Function)) {
        let (head, done) = (self.label(), self.label());
        self.branch(Cond::Lt, counter, Scalar::Imm(step), done);
        self.place(head);
        body(self);
        self.general_op(GeneralOp::Sub, counter, Scalar::Imm(step));
        self.branch(Cond::Ge, counter, Scalar::Imm(step), head);
        self.place(done);
    }

    /// Where each label stands, by number.
    ///
    /// # Errors
    /// [`Error::Malformed`] for a label that is placed twice, or is a branch target and not placed; for code that can run
    /// past its end, more than six parameters, a scale that is not 1, 2, 4 or 8, or an operand out of range.
    pub fn label_places(&self) -> Result<Vec<usize>, Error> {
        let malformed = |at: usize, what: String| Error::Malformed {
            function: self.name.clone(),
            at,
            what,
        };
        let mut places = vec![usize::MAX; self.labels as usize];
        for (at, op) in self.ops.iter().enumerate() {
            if let Op::Label(l) = op
                && std::mem::replace(&mut places[l.0 as usize], at) != usize::MAX
            {
                return Err(malformed(at, format!("{l} is placed a second time")));
            }
        }
        for (at, op) in self.ops.iter().enumerate() {
            if let Some(to) = op.target()
                && places[to.0 as usize] == usize::MAX
            {
                return Err(malformed(at, format!("branch to {to}, which is placed nowhere")));
            }
            if let Some(what) = self.fault(op) {
                return Err(malformed(at, what));
            }
        }
        if !self.ops.last().is_some_and(Op::ends) {
            return Err(malformed(
                self.ops.len(),
                "code runs past its end; expected `return` or `jump`".into(),
            ));
        }
        if self.params.len() > 6 {
            return Err(malformed(
                0,
                format!("{} parameters; at most 6 travel in registers", self.params.len()),
            ));
        }
        Ok(places)
    }

    /// What is wrong with the operands of `op`.
    fn fault(&self, op: &Op) -> Option<String> {
        let mem = match op {
            Op::Load { mem, .. } | Op::Store { mem, .. } | Op::Broadcast { mem, .. } | Op::Prefetch { mem } => {
                Some(mem)
            }
            Op::LoadGeneral { mem, .. } | Op::Lea { mem, .. } => Some(mem),
            Op::Fma { b, .. } | Op::Binary { b, .. } => match b {
                Operand::Broadcast(_) if !self.isa.is_evex() => {
                    return Some("broadcast as an operand needs AVX-512; use the `broadcast` operation".into());
                }
                Operand::Mem(m) | Operand::Broadcast(m) => Some(m),
                Operand::Reg(_) => None,
            },
            Op::General {
                src: Scalar::Mem(m), ..
            }
            | Op::Branch { b: Scalar::Mem(m), .. } => Some(m),
            Op::FirstLanes { skip, .. } if *skip > 63 => return Some(format!("skip {skip} is above 63")),
            _ => None,
        };
        match mem.and_then(|m| m.index) {
            Some((_, scale)) if ![1, 2, 4, 8].contains(&scale) => {
                Some(format!("index scale {scale}; expected 1, 2, 4 or 8"))
            }
            _ => None,
        }
    }
}

impl fmt::Display for Mem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "[{}", self.base)?;
        match self.index {
            Some((index, 1)) => write!(f, " + {index}")?,
            Some((index, scale)) => write!(f, " + {index}*{scale}")?,
            None => {}
        }
        match self.disp {
            0 => write!(f, "]"),
            d if d < 0 => write!(f, " - {}]", d.unsigned_abs()),
            d => write!(f, " + {d}]"),
        }
    }
}

impl fmt::Display for Operand {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Operand::Reg(v) => write!(f, "{v}"),
            Operand::Mem(m) => write!(f, "{m}"),
            Operand::Broadcast(m) => write!(f, "broadcast {m}"),
        }
    }
}

impl fmt::Display for Scalar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Scalar::Reg(g) => write!(f, "{g}"),
            Scalar::Imm(i) => write!(f, "{i}"),
            Scalar::Mem(m) => write!(f, "{m}"),
        }
    }
}

impl fmt::Display for Op {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let masked = |mask: &Option<K>| mask.map(|k| format!(", {k}")).unwrap_or_default();
        match self {
            Op::Zero { dst } => write!(f, "{dst} = zero"),
            Op::Load { dst, mem, mask } => write!(f, "{dst} = load {mem}{}", masked(mask)),
            Op::Store { mem, src, mask } => write!(f, "store {mem}, {src}{}", masked(mask)),
            Op::Broadcast { dst, mem } => write!(f, "{dst} = broadcast {mem}"),
            Op::Fma { acc, a, b } => write!(f, "{acc} += {a} * {b}"),
            Op::Binary { op, dst, a, b } => {
                let name = match op {
                    Binary::Add => "add",
                    Binary::Sub => "sub",
                    Binary::Mul => "mul",
                    Binary::Max => "max",
                    Binary::Min => "min",
                };
                write!(f, "{dst} = {name} {a}, {b}")
            }
            Op::FirstLanes { dst, count, skip, .. } => write!(f, "{dst} = first_lanes {count}, skip {skip}"),
            Op::Prefetch { mem } => write!(f, "prefetch {mem}"),
            Op::Imm { dst, value } => write!(f, "{dst} = {value}"),
            Op::Copy { dst, src } => write!(f, "{dst} = {src}"),
            Op::LoadGeneral { dst, mem } => write!(f, "{dst} = load {mem}"),
            Op::Lea { dst, mem } => write!(f, "{dst} = lea {mem}"),
            Op::General { op, dst, src } => {
                let sign = match op {
                    GeneralOp::Add => "+=",
                    GeneralOp::Sub => "-=",
                    GeneralOp::Mul => "*=",
                };
                write!(f, "{dst} {sign} {src}")
            }
            Op::Label(l) => write!(f, "{l}:"),
            Op::Jump { to } => write!(f, "jump {to}"),
            Op::Branch { cond, a, b, to } => {
                let sign = match cond {
                    Cond::Eq => "==",
                    Cond::Ne => "!=",
                    Cond::Lt => "<",
                    Cond::Le => "<=",
                    Cond::Gt => ">",
                    Cond::Ge => ">=",
                };
                write!(f, "if {a} {sign} {b} jump {to}")
            }
            Op::Return => write!(f, "return"),
        }
    }
}

impl fmt::Display for Function {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let params: Vec<String> = self.params.iter().map(G::to_string).collect();
        writeln!(f, "fn {}({}) {} {{", self.name, params.join(", "), self.isa)?;
        for op in &self.ops {
            match op {
                Op::Label(_) => writeln!(f, " {op}")?,
                _ => writeln!(f, "  {op}")?,
            }
        }
        writeln!(f, "}}")
    }
}
