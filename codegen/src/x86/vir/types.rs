//! What operations are made of: element types, registers, addresses, and the names of what is done.

use std::fmt;

macro_rules! register {
    ($(#[$doc:meta])* $name:ident, $letter:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(pub(in crate::x86) u32);
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!($letter, "{}"), self.0)
            }
        }
    };
}

register!(
    /// A virtual vector register.
    V,
    "v"
);
register!(
    /// A virtual 64-bit general register.
    G,
    "g"
);
register!(
    /// A virtual lane mask: an opmask register on AVX-512; on AVX2 a vector with all or no bits of each lane set, of the width
    /// of what was compared.
    K,
    "k"
);
register!(
    /// A matrix register of AMX, by the machine's number: there are [`M::COUNT`], and generators say themselves what is in which.
    M,
    "m"
);
register!(
    /// A place in the code that a branch can name.
    Label,
    "L"
);
register!(
    /// A place in the frame that keeps one register.
    Slot,
    "s"
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
    /// Written while operands are still to be read.
    Early,
    /// Read and written.
    Update,
    /// Written while operands are still to be read, and dead afterwards.
    Scratch,
}

impl Role {
    /// Whether the register's value is needed.
    pub const fn reads(self) -> bool {
        matches!(self, Role::Use | Role::Update)
    }

    /// Whether it has a new value afterwards.
    pub const fn writes(self) -> bool {
        !matches!(self, Role::Use)
    }
}

/// The type of one lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "a letter for the kind and the number of bits")]
pub enum Elem {
    I8,
    U8,
    I16,
    U16,
    F16,
    I32,
    U32,
    F32,
    I64,
    U64,
    F64,
}

impl Elem {
    /// Bytes of a lane.
    pub const fn bytes(self) -> u32 {
        match self {
            Elem::I8 | Elem::U8 => 1,
            Elem::I16 | Elem::U16 | Elem::F16 => 2,
            Elem::I32 | Elem::U32 | Elem::F32 => 4,
            Elem::I64 | Elem::U64 | Elem::F64 => 8,
        }
    }

    /// Whether lanes are floats.
    pub const fn is_float(self) -> bool {
        matches!(self, Elem::F16 | Elem::F32 | Elem::F64)
    }

    /// Whether lanes are integers without a sign.
    pub const fn is_unsigned(self) -> bool {
        matches!(self, Elem::U8 | Elem::U16 | Elem::U32 | Elem::U64)
    }

    /// Its name, as Rust spells it.
    pub const fn name(self) -> &'static str {
        match self {
            Elem::I8 => "i8",
            Elem::U8 => "u8",
            Elem::I16 => "i16",
            Elem::U16 => "u16",
            Elem::F16 => "f16",
            Elem::I32 => "i32",
            Elem::U32 => "u32",
            Elem::F32 => "f32",
            Elem::I64 => "i64",
            Elem::U64 => "u64",
            Elem::F64 => "f64",
        }
    }

    /// A vector of so many of them.
    pub const fn by(self, lanes: u8) -> Type {
        Type { elem: self, lanes }
    }
}

/// What an operation works on: so many lanes of an element type; printed `f32x16`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Type {
    /// Of one lane.
    pub elem: Elem,
    /// How many.
    pub lanes: u8,
}

impl Type {
    /// Bytes of all lanes.
    pub const fn bytes(self) -> u32 {
        self.elem.bytes() * self.lanes as u32
    }

    /// Bits of the register that an operation on it names: of less than 128 bits, the rest is anything.
    pub const fn bits(self) -> u32 {
        let bits = self.bytes() * 8;
        if bits < 128 { 128 } else { bits }
    }

    /// As many lanes of another element type.
    pub const fn of(self, elem: Elem) -> Type {
        Type { elem, ..self }
    }
}

/// What an address starts from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Base {
    /// A pointer.
    General(G),
    /// The pool of constants behind the code.
    Pool,
}

/// An address: `base + index * scale + disp`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mem {
    /// Where it starts.
    pub base: Base,
    /// Index register and scale (1, 2, 4 or 8).
    pub index: Option<(G, u8)>,
    /// Bytes added.
    pub disp: i32,
}

impl Mem {
    /// `[base + disp]`.
    pub fn at(base: G, disp: i32) -> Mem {
        Mem {
            base: Base::General(base),
            index: None,
            disp,
        }
    }

    /// `[base + index * scale + disp]`; `scale` is 1, 2, 4 or 8.
    pub fn indexed(base: G, index: G, scale: u8, disp: i32) -> Mem {
        Mem {
            base: Base::General(base),
            index: Some((index, scale)),
            disp,
        }
    }

    /// A place in the function's pool of constants.
    pub fn pool(place: i32) -> Mem {
        Mem {
            base: Base::Pool,
            index: None,
            disp: place,
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
    /// One element of 32 or 64 bits in memory, given to every lane; AVX-512 only.
    Broadcast(Mem),
}

impl Operand {
    /// Its address, when it is in memory.
    pub fn mem(&self) -> Option<&Mem> {
        match self {
            Operand::Reg(_) => None,
            Operand::Mem(m) | Operand::Broadcast(m) => Some(m),
        }
    }
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

/// A lane-wise operation of two sources. Integers wrap around.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Binary {
    /// `a + b`.
    Add,
    /// `a - b`.
    Sub,
    /// `a * b`; not of 8 bits, and 64 on AVX-512 only.
    Mul,
    /// `a / b`; floats only.
    Div,
    /// `a > b ? a : b`; of floats as `maxps`: `b` where either is NaN or both are zero. 64-bit integers on AVX-512 only.
    Max,
    /// `a < b ? a : b`; as [`Binary::Max`].
    Min,
    /// `a & b`, the bits of any lanes; as the next three.
    And,
    /// `a | b`.
    Or,
    /// `a ^ b`.
    Xor,
    /// `!a & b`.
    AndNot,
    /// `a << b`, of 32 and 64 bits; as the next, `b` is taken as unsigned, and as many bits as there are or more leave 0.
    Shl,
    /// `a >> b`, by the element's signedness: then all sign bits are left. 64-bit signed ones on AVX-512 only.
    Shr,
    /// `a[2i] * b[2i] + a[2i+1] * b[2i+1]` of 16-bit lanes, as 32 bits.
    PairSum,
}

/// A lane-wise operation of one source.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Unary {
    /// Square root.
    Sqrt,
    /// Toward minus infinity.
    Floor,
    /// Toward plus infinity.
    Ceil,
    /// Toward zero.
    Trunc,
    /// To nearest, ties to even.
    Round,
    /// Magnitude of integers; of 64 bits on AVX-512 only.
    Abs,
}

/// A shift of 16-, 32- or 64-bit lanes by a constant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Shift {
    /// To the left.
    Left,
    /// To the right, by the element's signedness.
    Right,
}

/// A sum of products of narrow lanes, added to a wide one. Each needs a feature of the CPU beside the level.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Dot {
    /// Four products of `u8` (in `a`) by `i8`, as `i32`; AVX-512 VNNI.
    U8I8,
    /// Two of `i16`, as `i32`; AVX-512 VNNI.
    I16,
    /// Two of brain floats, as `f32`; AVX-512's instructions for them.
    Brain,
}

impl M {
    /// Matrix registers of the machine.
    pub const COUNT: u32 = 8;

    /// The register of a number below [`M::COUNT`].
    ///
    /// # Panics
    /// For another number.
    pub fn number(n: u32) -> M {
        assert!(n < M::COUNT, "matrix register {n}, expected one below {}", M::COUNT);
        M(n)
    }
}

/// Sums of products of a row of one matrix by a column of another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum MatrixDot {
    /// `i8` by `u8` in groups of four, as `i32`.
    I8U8,
    /// Brain floats in pairs, as `f32`: even and odd ones each in their order from +0, both sums added, and that to what there was.
    Brain,
}

/// A cache, for a line that is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Level {
    /// The smallest one: for what is needed soon.
    L1,
    /// The second one.
    L2,
}

impl Level {
    /// The name in texts.
    pub fn name(self) -> &'static str {
        match self {
            Level::L1 => "l1",
            Level::L2 => "l2",
        }
    }
}

/// A comparison of lanes, by the element type. Floats: all but `Ne` and `Unordered` are false with a NaN.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Comparison {
    /// `a == b`.
    Eq,
    /// `a != b`.
    Ne,
    /// `a < b`.
    Lt,
    /// `a <= b`.
    Le,
    /// Either is NaN; floats only.
    Unordered,
}

/// An operation on masks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Logic {
    /// `a & b`.
    And,
    /// `a | b`.
    Or,
    /// `a ^ b`.
    Xor,
    /// `!a & b`.
    AndNot,
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
    /// `<`, both taken as unsigned.
    Below,
    /// `>=`, both taken as unsigned.
    NotBelow,
}
