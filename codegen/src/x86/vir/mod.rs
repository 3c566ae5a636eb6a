//! The vector IR: straight x86-64 vector code over virtual registers.
//!
//! It holds the innermost region of a kernel, written by a generator such as [`tile`](super::tile) or [`body`](super::body):
//! loads, stores, typed arithmetic on all lanes, masks, conversions, a little pointer arithmetic and loops. A [`Function`] has
//! one ISA level; what an operation works on is said by its [`Type`], elements times lanes, of 128, 256 or (on AVX-512) 512
//! bits. Registers are mutable (this is not SSA: an accumulator is updated in place) and each belongs to one of three classes,
//! told apart by their Rust types: [`V`] vectors, [`G`] 64-bit general registers, [`K`] lane masks. Registers of matrices ([`M`]) are the
//! machine's own.
//! [`regalloc`](super::regalloc) maps them to the machine's, and keeps in the frame what it has no room for;
//! [`assemble`](super::assemble) writes the bytes.
//!
//! ```text
//! fn saxpy(g0, g1) avx512 {
//!   v2 = load f32x16 [g0]                 ->   vmovups zmm0, [rdi]
//!   v2 += f32x16 v2 * broadcast [g1 + 4]  ->   vfmadd231ps zmm0, zmm0, [rsi + 4]{1to16}
//!   store f32x16 [g0], v2                 ->   vmovups [rdi], zmm0
//!   return
//! }
//! ```
//!
//! Constants stand in a pool behind the code, which is addressed from the instruction pointer ([`Mem::pool`]).
//!
//! Invariants: there are no calls, and nothing but the frame and the pool is named that a pointer does not lead to, so the code
//! is position independent and needs no relocation; control leaves through [`Op::Return`] alone; a register is written before
//! it is read on every path; lanes of a register behind those of an operation's type hold anything.
//!
//! | module | what stands there |
//! | --- | --- |
//! | `types` | element types, registers, addresses, the names of operations |
//! | `function` | functions, how one is written, what makes one well formed |
//! | `text` | the text form |

mod function;
mod text;
mod types;

pub use function::{Function, Pool};
pub use types::{
    Base, Binary, Class, Comparison, Cond, Dot, Elem, G, GeneralOp, K, Label, Level, Logic, M, MatrixDot, Mem, Operand,
    Role, Scalar, Shift, Slot, Type, Unary, V,
};

/// One operation. Fields: `dst` is written, `ty` what it works on, `mem` an address, `mask` the lanes that count, `to` where to
/// go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the fields are told in the line of their operation")]
pub enum Op {
    /// All lanes zero.
    Zero { dst: V },
    /// Copy a whole register.
    Move { dst: V, src: V },
    /// Load a vector; with a mask, the other lanes are zero and their memory is not touched.
    Load {
        ty: Type,
        dst: V,
        mem: Mem,
        mask: Option<K>,
    },
    /// Store a vector; with a mask, only those lanes are written.
    Store {
        ty: Type,
        mem: Mem,
        src: V,
        mask: Option<K>,
    },
    /// One element from memory to every lane.
    Broadcast { ty: Type, dst: V, mem: Mem },
    /// Lane 0 to every lane.
    Splat { ty: Type, dst: V, src: V },
    /// The low bits of a general register to every lane.
    SplatGeneral { ty: Type, dst: V, src: G },
    /// Lane 0 to memory.
    StoreLane { ty: Type, mem: Mem, src: V },
    /// `src` of 128 bits with one lane from memory, of 32 or 64 bits.
    Insert {
        ty: Type,
        dst: V,
        src: V,
        mem: Mem,
        lane: u8,
    },
    /// For each lane under the mask the element at `mem` plus its index times `scale` bytes; the other lanes are zero. `wide`
    /// indices are `i64`, others `i32`. The mask is lost.
    Gather {
        ty: Type,
        dst: V,
        mem: Mem,
        index: V,
        scale: u8,
        wide: bool,
        mask: K,
    },
    /// `acc = a * b + acc`, rounded once.
    Fma { ty: Type, acc: V, a: V, b: Operand },
    /// `dst = a * b + c`, rounded once; one of `b` and `c` at most is in memory.
    MulAdd {
        ty: Type,
        dst: V,
        a: V,
        b: Operand,
        c: Operand,
    },
    /// `acc += a · b` in groups of narrow lanes; `ty` is that of the sums.
    Dot {
        op: Dot,
        ty: Type,
        acc: V,
        a: V,
        b: Operand,
    },
    /// `dst = op(a, b)`.
    Binary {
        op: Binary,
        ty: Type,
        dst: V,
        a: V,
        b: Operand,
    },
    /// `dst = op(a)`.
    Unary { op: Unary, ty: Type, dst: V, a: Operand },
    /// `dst = op(a, by)`, `by` below the width of a lane.
    Shift { op: Shift, ty: Type, dst: V, a: V, by: u8 },
    /// Lanes that fit become numbers of another element type; see [`Function::fault`] for the pairs that there are. Integers
    /// are extended by their own signedness or cut; floats are rounded to nearest even; floats to integers truncate, and what
    /// does not fit, NaN included, gives only the top bit (all bits for unsigned ones). `from.lanes` lanes.
    Convert { from: Type, to: Elem, dst: V, src: Operand },
    /// The upper half of twice the lanes of `ty`.
    High { ty: Type, dst: V, src: V },
    /// Two vectors of `ty` as one of twice the lanes.
    Join { ty: Type, dst: V, low: V, high: V },
    /// Within every 128 bits the lanes of the lower halves (the upper ones, where `high`) of `a` and `b` in turn.
    Interleave { ty: Type, dst: V, a: V, b: V, high: bool },
    /// Blocks of 128 bits: those of the lower half of `dst` are picked of `a`, those of the upper half of `b`. Of 256 bits only the
    /// first two picks count.
    Blocks {
        ty: Type,
        dst: V,
        a: V,
        b: V,
        pick: [u8; 4],
    },
    /// Lane `i` of `dst` is lane `(i + by) % lanes` of `src`.
    Rotate {
        ty: Type,
        dst: V,
        src: V,
        by: u8,
        scratch: V,
    },
    /// The lanes of which `a cond b` holds.
    Compare {
        op: Comparison,
        ty: Type,
        dst: K,
        a: V,
        b: Operand,
    },
    /// `dst = mask ? a : b`.
    Select { ty: Type, dst: V, mask: K, a: V, b: V },
    /// `dst = op(a, b)` on masks.
    Logic { op: Logic, dst: K, a: K, b: K },
    /// Copy a mask.
    MoveMask { dst: K, src: K },
    /// Every lane, or none where `all` is false.
    FillMask { dst: K, all: bool },
    /// Every lane where the general register, whose value is lost, is not 0; else none.
    SplatMask { dst: K, src: G },
    /// The mask for the upper half of the lanes (the lower, unless `high`) of `lanes` lanes twice as wide.
    HalfMask { dst: K, src: K, high: bool, lanes: u8 },
    /// The mask of `2 * lanes` lanes half as wide.
    JoinMask { dst: K, low: K, high: K, lanes: u8 },
    /// Lane `i` of `dst` is set where `i + skip < count`. `count` is at most 255 and not negative, `skip` at most 63.
    FirstLanes {
        dst: K,
        count: G,
        skip: u8,
        scratch: (G, V),
    },
    /// Go to `to` if no lane of the mask is set.
    BranchNone { mask: K, to: Label },
    /// Ask for the cache line of `mem` in a cache.
    Prefetch { mem: Mem, into: Level },
    /// A constant.
    Imm { dst: G, value: i64 },
    /// Copy a register.
    Copy { dst: G, src: G },
    /// `dst = src` if `a cond b`.
    CopyIf {
        cond: Cond,
        a: G,
        b: Scalar,
        dst: G,
        src: G,
    },
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
    /// What the matrix registers are from now on, as 64 bytes say (`LDTILECFG`); all are zero.
    MatrixShapes { mem: Mem },
    /// Nothing is in the matrix registers (`TILERELEASE`).
    MatrixRelease,
    /// A matrix of zeros.
    MatrixZero { dst: M },
    /// Load a matrix, whose rows lie as far apart as the index of the address says.
    MatrixLoad { dst: M, mem: Mem },
    /// Store a matrix, the same way.
    MatrixStore { mem: Mem, src: M },
    /// `acc += a · b`.
    MatrixDot { op: MatrixDot, acc: M, a: M, b: M },
    /// A general register to the frame.
    SpillGeneral { slot: Slot, src: G },
    /// And back.
    ReloadGeneral { dst: G, slot: Slot },
    /// A vector register to the frame.
    SpillVector { slot: Slot, src: V },
    /// And back.
    ReloadVector { dst: V, slot: Slot },
    /// A mask to the frame.
    SpillMask { slot: Slot, src: K },
    /// And back.
    ReloadMask { dst: K, slot: Slot },
    /// Return to the caller.
    Return,
}

impl Op {
    /// Calls `see` for every register that the operation touches: class, number, role.
    pub fn visit(&self, mut see: impl FnMut(Class, u32, Role)) {
        let mut op = *self;
        op.visit_mut(|class, number, role| see(class, *number, role));
    }

    /// The same, to put other registers there.
    pub fn visit_mut(&mut self, mut see: impl FnMut(Class, &mut u32, Role)) {
        use Class::{General, Mask, Vector};
        use Role::{Def, Early, Scratch, Update, Use};
        let see = &mut see as &mut dyn FnMut(Class, &mut u32, Role);
        let mem = |m: &mut Mem, see: &mut dyn FnMut(Class, &mut u32, Role)| {
            if let Base::General(g) = &mut m.base {
                see(General, &mut g.0, Use);
            }
            if let Some((index, _)) = &mut m.index {
                see(General, &mut index.0, Use);
            }
        };
        let operand = |b: &mut Operand, see: &mut dyn FnMut(Class, &mut u32, Role)| match b {
            Operand::Reg(v) => see(Vector, &mut v.0, Use),
            Operand::Mem(m) | Operand::Broadcast(m) => mem(m, see),
        };
        let scalar = |b: &mut Scalar, see: &mut dyn FnMut(Class, &mut u32, Role)| match b {
            Scalar::Reg(g) => see(General, &mut g.0, Use),
            Scalar::Imm(_) => {}
            Scalar::Mem(m) => mem(m, see),
        };
        match self {
            Op::Zero { dst } => see(Vector, &mut dst.0, Def),
            Op::Move { dst, src } | Op::Splat { dst, src, .. } | Op::High { dst, src, .. } => {
                see(Vector, &mut src.0, Use);
                see(Vector, &mut dst.0, Def);
            }
            Op::Load { dst, mem: m, mask, .. } => {
                mem(m, see);
                if let Some(k) = mask {
                    see(Mask, &mut k.0, Use);
                }
                see(Vector, &mut dst.0, Def);
            }
            Op::Store { mem: m, src, mask, .. } => {
                mem(m, see);
                if let Some(k) = mask {
                    see(Mask, &mut k.0, Use);
                }
                see(Vector, &mut src.0, Use);
            }
            Op::StoreLane { mem: m, src, .. } => {
                mem(m, see);
                see(Vector, &mut src.0, Use);
            }
            Op::Broadcast { dst, mem: m, .. } => {
                mem(m, see);
                see(Vector, &mut dst.0, Def);
            }
            Op::SplatGeneral { dst, src, .. } => {
                see(General, &mut src.0, Use);
                see(Vector, &mut dst.0, Def);
            }
            Op::Insert { dst, src, mem: m, .. } => {
                mem(m, see);
                see(Vector, &mut src.0, Use);
                see(Vector, &mut dst.0, Def);
            }
            Op::Gather {
                dst,
                mem: m,
                index,
                mask,
                ..
            } => {
                mem(m, see);
                see(Vector, &mut index.0, Use);
                see(Mask, &mut mask.0, Update);
                see(Vector, &mut dst.0, Early);
            }
            Op::Fma { acc, a, b, .. } | Op::Dot { acc, a, b, .. } => {
                see(Vector, &mut a.0, Use);
                operand(b, see);
                see(Vector, &mut acc.0, Update);
            }
            Op::MulAdd { dst, a, b, c, .. } => {
                see(Vector, &mut a.0, Use);
                operand(b, see);
                operand(c, see);
                see(Vector, &mut dst.0, Def);
            }
            Op::Binary { dst, a, b, .. } => {
                see(Vector, &mut a.0, Use);
                operand(b, see);
                see(Vector, &mut dst.0, Def);
            }
            Op::Unary { dst, a, .. } | Op::Convert { dst, src: a, .. } => {
                operand(a, see);
                see(Vector, &mut dst.0, Def);
            }
            Op::Shift { dst, a, .. } => {
                see(Vector, &mut a.0, Use);
                see(Vector, &mut dst.0, Def);
            }
            Op::Join { dst, low, high, .. } => {
                see(Vector, &mut low.0, Use);
                see(Vector, &mut high.0, Use);
                see(Vector, &mut dst.0, Def);
            }
            Op::Interleave { dst, a, b, .. } | Op::Blocks { dst, a, b, .. } => {
                see(Vector, &mut a.0, Use);
                see(Vector, &mut b.0, Use);
                see(Vector, &mut dst.0, Def);
            }
            Op::Rotate { dst, src, scratch, .. } => {
                see(Vector, &mut src.0, Use);
                see(Vector, &mut scratch.0, Scratch);
                see(Vector, &mut dst.0, Def);
            }
            Op::Compare { dst, a, b, .. } => {
                see(Vector, &mut a.0, Use);
                operand(b, see);
                see(Mask, &mut dst.0, Def);
            }
            Op::Select { dst, mask, a, b, .. } => {
                see(Mask, &mut mask.0, Use);
                see(Vector, &mut a.0, Use);
                see(Vector, &mut b.0, Use);
                see(Vector, &mut dst.0, Def);
            }
            Op::Logic { dst, a, b, .. } => {
                see(Mask, &mut a.0, Use);
                see(Mask, &mut b.0, Use);
                see(Mask, &mut dst.0, Def);
            }
            Op::MoveMask { dst, src } | Op::HalfMask { dst, src, .. } => {
                see(Mask, &mut src.0, Use);
                see(Mask, &mut dst.0, Def);
            }
            Op::FillMask { dst, .. } => see(Mask, &mut dst.0, Def),
            Op::SplatMask { dst, src } => {
                see(General, &mut src.0, Update);
                see(Mask, &mut dst.0, Def);
            }
            Op::JoinMask { dst, low, high, .. } => {
                see(Mask, &mut low.0, Use);
                see(Mask, &mut high.0, Use);
                see(Mask, &mut dst.0, Def);
            }
            Op::FirstLanes {
                dst, count, scratch, ..
            } => {
                see(General, &mut count.0, Use);
                see(General, &mut scratch.0.0, Scratch);
                see(Vector, &mut scratch.1.0, Scratch);
                see(Mask, &mut dst.0, Def);
            }
            Op::BranchNone { mask, .. } => see(Mask, &mut mask.0, Use),
            Op::Prefetch { mem: m, .. }
            | Op::MatrixShapes { mem: m }
            | Op::MatrixLoad { mem: m, .. }
            | Op::MatrixStore { mem: m, .. } => mem(m, see),
            Op::Imm { dst, .. } => see(General, &mut dst.0, Def),
            Op::Copy { dst, src } => {
                see(General, &mut src.0, Use);
                see(General, &mut dst.0, Def);
            }
            Op::CopyIf { a, b, dst, src, .. } => {
                see(General, &mut a.0, Use);
                scalar(b, see);
                see(General, &mut src.0, Use);
                see(General, &mut dst.0, Update);
            }
            Op::LoadGeneral { dst, mem: m } | Op::Lea { dst, mem: m } => {
                mem(m, see);
                see(General, &mut dst.0, Def);
            }
            Op::General { dst, src, .. } => {
                scalar(src, see);
                see(General, &mut dst.0, Update);
            }
            Op::Branch { a, b, .. } => {
                see(General, &mut a.0, Use);
                scalar(b, see);
            }
            Op::SpillGeneral { src, .. } => see(General, &mut src.0, Use),
            Op::ReloadGeneral { dst, .. } => see(General, &mut dst.0, Def),
            Op::SpillVector { src, .. } => see(Vector, &mut src.0, Use),
            Op::ReloadVector { dst, .. } => see(Vector, &mut dst.0, Def),
            Op::SpillMask { src, .. } => see(Mask, &mut src.0, Use),
            Op::ReloadMask { dst, .. } => see(Mask, &mut dst.0, Def),
            Op::MatrixRelease | Op::MatrixZero { .. } | Op::MatrixDot { .. } => {}
            Op::Label(_) | Op::Jump { .. } | Op::Return => {}
        }
    }

    /// The label this operation may jump to.
    pub fn target(&self) -> Option<Label> {
        match self {
            Op::Jump { to } | Op::Branch { to, .. } | Op::BranchNone { to, .. } => Some(*to),
            _ => None,
        }
    }

    /// Whether control never reaches the next operation.
    pub fn ends(&self) -> bool {
        matches!(self, Op::Jump { .. } | Op::Return)
    }

    /// The address in it.
    pub fn mem(&self) -> Option<&Mem> {
        match self {
            Op::Load { mem, .. }
            | Op::Store { mem, .. }
            | Op::StoreLane { mem, .. }
            | Op::Broadcast { mem, .. }
            | Op::Gather { mem, .. }
            | Op::Insert { mem, .. }
            | Op::Prefetch { mem, .. }
            | Op::MatrixShapes { mem }
            | Op::MatrixLoad { mem, .. }
            | Op::MatrixStore { mem, .. }
            | Op::LoadGeneral { mem, .. }
            | Op::Lea { mem, .. } => Some(mem),
            Op::Fma { b, .. }
            | Op::Dot { b, .. }
            | Op::Binary { b, .. }
            | Op::Compare { b, .. }
            | Op::Unary { a: b, .. }
            | Op::Convert { src: b, .. } => b.mem(),
            Op::MulAdd { b, c, .. } => b.mem().or(c.mem()),
            Op::General {
                src: Scalar::Mem(m), ..
            }
            | Op::Branch { b: Scalar::Mem(m), .. }
            | Op::CopyIf { b: Scalar::Mem(m), .. } => Some(m),
            _ => None,
        }
    }
}
