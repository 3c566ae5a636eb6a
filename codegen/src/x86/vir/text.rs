//! The text form.

use super::{
    Base, Binary, Comparison, Cond, Dot, Function, G, GeneralOp, Logic, MatrixDot, Mem, Op, Operand, Scalar, Shift,
    Type, Unary,
};
use std::fmt;

impl fmt::Display for Type {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}x{}", self.elem.name(), self.lanes)
    }
}

impl fmt::Display for Mem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.base {
            Base::General(g) => write!(f, "[{g}")?,
            Base::Pool => write!(f, "[pool")?,
        }
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

macro_rules! words {
    ($($ty:ident { $($variant:ident = $word:literal),* $(,)? })*) => {$(
        impl fmt::Display for $ty {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(match self { $($ty::$variant => $word),* })
            }
        }
    )*};
}

words! {
    Binary {
        Add = "add", Sub = "sub", Mul = "mul", Div = "div", Max = "max", Min = "min", And = "and", Or = "or",
        Xor = "xor", AndNot = "andnot", Shl = "shl", Shr = "shr", PairSum = "pairsum",
    }
    Unary { Sqrt = "sqrt", Floor = "floor", Ceil = "ceil", Trunc = "trunc", Round = "round", Abs = "abs" }
    Shift { Left = "shl", Right = "shr" }
    Dot { U8I8 = "u8·i8", I16 = "i16·i16", Brain = "bf16·bf16" }
    MatrixDot { I8U8 = "i8·u8", Brain = "bf16·bf16" }
    Comparison { Eq = "==", Ne = "!=", Lt = "<", Le = "<=", Unordered = "unordered" }
    Logic { And = "and", Or = "or", Xor = "xor", AndNot = "andnot" }
    GeneralOp { Add = "+=", Sub = "-=", Mul = "*=" }
    Cond { Eq = "==", Ne = "!=", Lt = "<", Le = "<=", Gt = ">", Ge = ">=", Below = "below", NotBelow = "not below" }
}

impl fmt::Display for Op {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let masked = |mask: &Option<super::K>| mask.map(|k| format!(", {k}")).unwrap_or_default();
        match self {
            Op::Zero { dst } => write!(f, "{dst} = zero"),
            Op::Move { dst, src } => write!(f, "{dst} = {src}"),
            Op::Load { ty, dst, mem, mask } => write!(f, "{dst} = load {ty} {mem}{}", masked(mask)),
            Op::Store { ty, mem, src, mask } => write!(f, "store {ty} {mem}, {src}{}", masked(mask)),
            Op::Broadcast { ty, dst, mem } => write!(f, "{dst} = broadcast {ty} {mem}"),
            Op::Splat { ty, dst, src } => write!(f, "{dst} = splat {ty} {src}"),
            Op::SplatGeneral { ty, dst, src } => write!(f, "{dst} = splat {ty} {src}"),
            Op::StoreLane { ty, mem, src } => write!(f, "store {} {mem}, {src}", ty.elem.name()),
            Op::Insert {
                ty,
                dst,
                src,
                mem,
                lane,
            } => write!(f, "{dst} = insert {ty} {src}, {mem} at {lane}"),
            Op::Gather {
                ty,
                dst,
                mem,
                index,
                scale,
                mask,
                ..
            } => write!(f, "{dst} = gather {ty} {mem} at {index}*{scale}, {mask}"),
            Op::Fma { ty, acc, a, b } => write!(f, "{acc} += {ty} {a} * {b}"),
            Op::MulAdd { ty, dst, a, b, c } => write!(f, "{dst} = fma {ty} {a}, {b}, {c}"),
            Op::Dot { op, ty, acc, a, b } => write!(f, "{acc} += {ty} {op} {a}, {b}"),
            Op::Binary { op, ty, dst, a, b } => write!(f, "{dst} = {op} {ty} {a}, {b}"),
            Op::Unary { op, ty, dst, a } => write!(f, "{dst} = {op} {ty} {a}"),
            Op::Shift { op, ty, dst, a, by } => write!(f, "{dst} = {op} {ty} {a}, {by}"),
            Op::Convert { from, to, dst, src } => write!(f, "{dst} = convert {from} to {}, {src}", to.name()),
            Op::High { ty, dst, src } => write!(f, "{dst} = high {ty} {src}"),
            Op::Join { ty, dst, low, high } => write!(f, "{dst} = join {ty} {low}, {high}"),
            Op::Interleave { ty, dst, a, b, high } => {
                let half = if *high { "high" } else { "low" };
                write!(f, "{dst} = interleave {half} {ty} {a}, {b}")
            }
            Op::Blocks { ty, dst, a, b, pick } => {
                let blocks = &pick[..ty.bytes() as usize / 16];
                write!(f, "{dst} = blocks {blocks:?} {ty} {a}, {b}")
            }
            Op::Rotate { ty, dst, src, by, .. } => write!(f, "{dst} = rotate {ty} {src}, {by}"),
            Op::Compare { op, ty, dst, a, b } => write!(f, "{dst} = {ty} {a} {op} {b}"),
            Op::Select { ty, dst, mask, a, b } => write!(f, "{dst} = select {ty} {mask}, {a}, {b}"),
            Op::Logic { op, dst, a, b } => write!(f, "{dst} = {op} {a}, {b}"),
            Op::MoveMask { dst, src } => write!(f, "{dst} = {src}"),
            Op::FillMask { dst, all } => write!(f, "{dst} = {}", if *all { "all" } else { "none" }),
            Op::SplatMask { dst, src } => write!(f, "{dst} = splat {src} != 0"),
            Op::HalfMask { dst, src, high, lanes } => {
                let half = if *high { "high" } else { "low" };
                write!(f, "{dst} = {half} {lanes} of {src}")
            }
            Op::JoinMask { dst, low, high, lanes } => write!(f, "{dst} = join {lanes} of {low}, {high}"),
            Op::FirstLanes { dst, count, skip, .. } => write!(f, "{dst} = first_lanes {count}, skip {skip}"),
            Op::BranchNone { mask, to } => write!(f, "if none of {mask} jump {to}"),
            Op::Prefetch { mem, into } => write!(f, "prefetch.{} {mem}", into.name()),
            Op::Imm { dst, value } => write!(f, "{dst} = {value}"),
            Op::Copy { dst, src } => write!(f, "{dst} = {src}"),
            Op::CopyIf { cond, a, b, dst, src } => write!(f, "if {a} {cond} {b}: {dst} = {src}"),
            Op::LoadGeneral { dst, mem } => write!(f, "{dst} = load {mem}"),
            Op::Lea { dst, mem } => write!(f, "{dst} = lea {mem}"),
            Op::General { op, dst, src } => write!(f, "{dst} {op} {src}"),
            Op::Label(l) => write!(f, "{l}:"),
            Op::Jump { to } => write!(f, "jump {to}"),
            Op::Branch { cond, a, b, to } => write!(f, "if {a} {cond} {b} jump {to}"),
            Op::MatrixShapes { mem } => write!(f, "shapes of matrices {mem}"),
            Op::MatrixRelease => write!(f, "release matrices"),
            Op::MatrixZero { dst } => write!(f, "{dst} = zero"),
            Op::MatrixLoad { dst, mem } => write!(f, "{dst} = load {mem}"),
            Op::MatrixStore { mem, src } => write!(f, "store {mem}, {src}"),
            Op::MatrixDot { op, acc, a, b } => write!(f, "{acc} += {op} {a}, {b}"),
            Op::SpillGeneral { slot, src } => write!(f, "{slot} = {src}"),
            Op::SpillVector { slot, src } => write!(f, "{slot} = {src}"),
            Op::SpillMask { slot, src } => write!(f, "{slot} = {src}"),
            Op::ReloadGeneral { dst, slot } => write!(f, "{dst} = {slot}"),
            Op::ReloadVector { dst, slot } => write!(f, "{dst} = {slot}"),
            Op::ReloadMask { dst, slot } => write!(f, "{dst} = {slot}"),
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
