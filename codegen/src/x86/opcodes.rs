//! Which instruction a typed operation is: opcodes as the manual lists them, by element type and level.
//!
//! Each function is one table. `None` is an operation that the level has no instruction for; generators ask beforehand or
//! write it in others.

use super::encode::Map::{M0F, M0F3A, M0F38};
use super::encode::Opcode;
use super::encode::Prefix::{self, F2, F3, None as NP, P66};
use super::vir::{Binary, Comparison, Dot, Elem, Logic, MatrixDot, Shift, Unary};

/// An opcode that operates on floats: `ps` without a prefix, `pd` with 66 and, in EVEX, W.
fn float(elem: Elem, code: u8, evex: bool) -> Opcode {
    match elem {
        Elem::F64 => Opcode::new(P66, M0F, code).with_wide(evex),
        _ => Opcode::new(NP, M0F, code),
    }
}

/// An opcode whose lanes are told apart by W.
fn by_width(elem: Elem, prefix: Prefix, map: super::encode::Map, code: u8) -> Opcode {
    Opcode::new(prefix, map, code).with_wide(elem.bytes() == 8)
}

pub fn binary(op: Binary, elem: Elem, evex: bool) -> Option<Opcode> {
    let bytes = elem.bytes();
    let plain = |code: u8| Some(Opcode::new(P66, M0F, code).with_wide(evex && bytes == 8));
    let later = |code: u8| Some(Opcode::new(P66, M0F38, code).with_wide(evex && bytes == 8));
    let lane = |codes: [u8; 4]| plain(codes[bytes.trailing_zeros() as usize]);
    match op {
        Binary::And => return plain(0xdb),
        Binary::Or => return plain(0xeb),
        Binary::Xor => return plain(0xef),
        Binary::AndNot => return plain(0xdf),
        Binary::PairSum => return plain(0xf5),
        _ => {}
    }
    if elem.is_float() {
        let code = match op {
            Binary::Add => 0x58,
            Binary::Mul => 0x59,
            Binary::Sub => 0x5c,
            Binary::Min => 0x5d,
            Binary::Div => 0x5e,
            Binary::Max => 0x5f,
            _ => return None,
        };
        return (elem != Elem::F16).then(|| float(elem, code, evex));
    }
    match op {
        Binary::Add => lane([0xfc, 0xfd, 0xfe, 0xd4]),
        Binary::Sub => lane([0xf8, 0xf9, 0xfa, 0xfb]),
        Binary::Mul => match bytes {
            2 => plain(0xd5),
            4 => later(0x40),
            8 if evex => later(0x40),
            _ => None,
        },
        Binary::Min | Binary::Max => match (op == Binary::Max, elem) {
            (false, Elem::I8) => later(0x38),
            (true, Elem::I8) => later(0x3c),
            (false, Elem::U8) => plain(0xda),
            (true, Elem::U8) => plain(0xde),
            (false, Elem::I16) => plain(0xea),
            (true, Elem::I16) => plain(0xee),
            (false, Elem::U16) => later(0x3a),
            (true, Elem::U16) => later(0x3e),
            _ if bytes == 8 && !evex => None,
            (false, Elem::I32 | Elem::I64) => later(0x39),
            (true, Elem::I32 | Elem::I64) => later(0x3d),
            (false, _) => later(0x3b),
            (true, _) => later(0x3f),
        },
        Binary::Shl | Binary::Shr if bytes < 4 => None,
        Binary::Shl => Some(by_width(elem, P66, M0F38, 0x47)),
        Binary::Shr if elem.is_unsigned() => Some(by_width(elem, P66, M0F38, 0x45)),
        Binary::Shr if bytes == 8 && !evex => None,
        Binary::Shr => Some(by_width(elem, P66, M0F38, 0x46)),
        _ => None,
    }
}

/// The opcode, and the immediate that says how to round.
pub fn unary(op: Unary, elem: Elem, evex: bool) -> Option<(Opcode, Option<u8>)> {
    // The way to round, without an exception for what is lost.
    let round = |how: u8| {
        let code = if elem == Elem::F64 { 0x09 } else { 0x08 };
        let opcode = Opcode::new(P66, M0F3A, code).with_wide(evex && elem == Elem::F64);
        matches!(elem, Elem::F32 | Elem::F64).then_some((opcode, Some(how | 8)))
    };
    match op {
        Unary::Sqrt => matches!(elem, Elem::F32 | Elem::F64).then(|| (float(elem, 0x51, evex), None)),
        Unary::Round => round(0),
        Unary::Floor => round(1),
        Unary::Ceil => round(2),
        Unary::Trunc => round(3),
        Unary::Abs => {
            let code = match elem {
                Elem::I8 => 0x1c,
                Elem::I16 => 0x1d,
                Elem::I32 => 0x1e,
                Elem::I64 if evex => 0x1f,
                _ => return None,
            };
            Some((Opcode::new(P66, M0F38, code).with_wide(elem == Elem::I64), None))
        }
    }
}

/// The opcode, and the digit that stands for a register.
pub fn shift(op: Shift, elem: Elem, evex: bool) -> Option<(Opcode, u8)> {
    let digit = match op {
        Shift::Left => 6,
        Shift::Right if elem.is_unsigned() => 2,
        Shift::Right => 4,
    };
    let code = match elem.bytes() {
        2 => 0x71,
        4 => 0x72,
        8 if digit == 4 => 0x72,
        8 => 0x73,
        _ => return None,
    };
    let wide = elem.bytes() == 8;
    (evex || !(wide && digit == 4)).then(|| (Opcode::new(P66, M0F, code).with_wide(evex && wide), digit))
}

/// Lanes of the lower or the upper halves of two operands in turn.
pub fn interleave(elem: Elem, high: bool, evex: bool) -> Opcode {
    let code = match (elem.bytes(), high) {
        (8, false) => 0x6c,
        (8, true) => 0x6d,
        (bytes, false) => 0x60 + bytes.trailing_zeros() as u8,
        (bytes, true) => 0x68 + bytes.trailing_zeros() as u8,
    };
    Opcode::new(P66, M0F, code).with_wide(evex && elem.bytes() == 8)
}

/// What multiplies and adds, by which operand is which (`132`, `213`, `231`).
pub fn fused(elem: Elem, code: u8) -> Option<Opcode> {
    matches!(elem, Elem::F32 | Elem::F64).then(|| by_width(elem, P66, M0F38, code))
}

/// Of two matrices: their register, in the byte behind the opcode and in the prefix.
pub fn matrix_dot(op: MatrixDot) -> Opcode {
    match op {
        MatrixDot::I8U8 => Opcode::new(F3, M0F38, 0x5e),
        MatrixDot::Brain => Opcode::new(F3, M0F38, 0x5c),
    }
}

pub fn dot(op: Dot) -> Opcode {
    match op {
        Dot::U8I8 => Opcode::new(P66, M0F38, 0x50),
        Dot::I16 => Opcode::new(P66, M0F38, 0x52),
        Dot::Brain => Opcode::new(F3, M0F38, 0x52),
    }
}

/// The predicate that the instruction takes as an immediate.
pub fn predicate(op: Comparison) -> u8 {
    match op {
        Comparison::Eq => 0,
        Comparison::Lt => 1,
        Comparison::Le => 2,
        Comparison::Unordered => 3,
        Comparison::Ne => 4,
    }
}

/// A comparison by predicate.
pub fn compare(elem: Elem, evex: bool) -> Option<Opcode> {
    match elem {
        Elem::F16 => None,
        Elem::F32 | Elem::F64 => Some(float(elem, 0xc2, evex)),
        _ if !evex => None,
        _ => {
            let signed = u8::from(!elem.is_unsigned());
            let code = if elem.bytes() < 4 { 0x3e } else { 0x1e };
            let wide = matches!(elem.bytes(), 2 | 8);
            Some(Opcode::new(P66, M0F3A, code + signed).with_wide(wide))
        }
    }
}

/// `a == b` or `a > b` of signed integers, which AVX2 has.
pub fn compare_integers(greater: bool, elem: Elem) -> Option<Opcode> {
    if elem.is_float() || greater && elem.is_unsigned() {
        return None;
    }
    Some(match (elem.bytes(), greater) {
        (8, false) => Opcode::new(P66, M0F38, 0x29),
        (8, true) => Opcode::new(P66, M0F38, 0x37),
        (bytes, false) => Opcode::new(P66, M0F, 0x74 + bytes.trailing_zeros() as u8),
        (bytes, true) => Opcode::new(P66, M0F, 0x64 + bytes.trailing_zeros() as u8),
    })
}

/// Of the opmask (EVEX) and of vectors.
pub fn logic(op: Logic, evex: bool) -> Opcode {
    let code = match (op, evex) {
        (Logic::And, true) => 0x41,
        (Logic::AndNot, true) => 0x42,
        (Logic::Or, true) => 0x45,
        (Logic::Xor, true) => 0x47,
        (Logic::And, false) => 0x54,
        (Logic::AndNot, false) => 0x55,
        (Logic::Or, false) => 0x56,
        (Logic::Xor, false) => 0x57,
    };
    Opcode::new(NP, M0F, code)
}

/// `mask ? rm : second` under an opmask.
pub fn blend(elem: Elem) -> Opcode {
    let code = if elem.bytes() < 4 { 0x66 } else { 0x64 };
    Opcode::new(P66, M0F38, code).with_wide(matches!(elem.bytes(), 2 | 8))
}

/// The same by the sign bits of a register that an immediate names.
pub fn blend_by_signs(elem: Elem) -> Opcode {
    let code = match elem.bytes() {
        4 => 0x4a,
        8 => 0x4b,
        _ => 0x4c,
    };
    Opcode::new(P66, M0F3A, code)
}

/// A load of a vector, and the store of it.
pub fn moves(elem: Elem, evex: bool) -> (Opcode, Opcode) {
    match elem.bytes() {
        1 if evex => (Opcode::new(F2, M0F, 0x6f), Opcode::new(F2, M0F, 0x7f)),
        2 if evex => (Opcode::new(F2, M0F, 0x6f).wide(), Opcode::new(F2, M0F, 0x7f).wide()),
        8 if evex => (Opcode::new(P66, M0F, 0x10).wide(), Opcode::new(P66, M0F, 0x11).wide()),
        _ => (Opcode::new(NP, M0F, 0x10), Opcode::new(NP, M0F, 0x11)),
    }
}

/// The same under a mask of sign bits.
pub fn moves_by_signs(elem: Elem) -> Option<(Opcode, Opcode)> {
    match elem.bytes() {
        4 => Some((Opcode::new(P66, M0F38, 0x2c), Opcode::new(P66, M0F38, 0x2e))),
        8 => Some((Opcode::new(P66, M0F38, 0x2d), Opcode::new(P66, M0F38, 0x2f))),
        _ => None,
    }
}

/// One element to every lane, from memory or lane 0.
pub fn splat(elem: Elem, evex: bool) -> Opcode {
    match elem.bytes() {
        1 => Opcode::new(P66, M0F38, 0x78),
        2 => Opcode::new(P66, M0F38, 0x79),
        4 => Opcode::new(P66, M0F38, 0x18),
        _ => Opcode::new(P66, M0F38, 0x59).with_wide(evex),
    }
}

/// Lane 0 to memory; `true` where an immediate names the lane.
pub fn store_lane(elem: Elem, evex: bool) -> (Opcode, bool) {
    match elem.bytes() {
        1 => (Opcode::new(P66, M0F3A, 0x14), true),
        2 => (Opcode::new(P66, M0F3A, 0x15), true),
        4 => (Opcode::new(F3, M0F, 0x11), false),
        _ => (Opcode::new(F2, M0F, 0x11).with_wide(evex), false),
    }
}

/// A gather by indices of 64 (`wide`) or 32 bits.
pub fn gather(elem: Elem, wide: bool) -> Option<Opcode> {
    (elem.bytes() >= 4).then(|| by_width(elem, P66, M0F38, if wide { 0x93 } else { 0x92 }))
}

/// A conversion, with whether its result is the operand that may be in memory, and its immediate.
pub fn convert(from: Elem, to: Elem, evex: bool) -> Option<(Opcode, bool, Option<u8>)> {
    use Elem::{F16, F32, F64, I32, I64, U32, U64};
    let new = |prefix, code| Some((Opcode::new(prefix, M0F, code), false, None));
    let wide = |prefix, code| Some((Opcode::new(prefix, M0F, code).wide(), false, None));
    // VEX ignores W in these.
    let wide_evex = |prefix, code| Some((Opcode::new(prefix, M0F, code).with_wide(evex), false, None));
    match (from, to) {
        (F16, F32) => Some((Opcode::new(P66, M0F38, 0x13), false, None)),
        (F32, F16) => Some((Opcode::new(P66, M0F3A, 0x1d), true, Some(0))),
        (F32, F64) => new(NP, 0x5a),
        (F64, F32) => wide_evex(P66, 0x5a),
        (I32, F32) => new(NP, 0x5b),
        (F32, I32) => new(F3, 0x5b),
        (I32, F64) => new(F3, 0xe6),
        (F64, I32) => wide_evex(P66, 0xe6),
        _ if from.is_float() && to.is_float() => None,
        _ if (from.is_float() || to.is_float()) && !evex => None,
        (U32, F32) => new(F2, 0x7a),
        (F32, U32) => new(NP, 0x78),
        (U32, F64) => new(F3, 0x7a),
        (F64, U32) => wide(NP, 0x78),
        (I64, F64) => wide(F3, 0xe6),
        (I64, F32) => wide(NP, 0x5b),
        (U64, F64) => wide(F3, 0x7a),
        (U64, F32) => wide(F2, 0x7a),
        (F64, I64) => wide(P66, 0x7a),
        (F32, I64) => new(P66, 0x7a),
        (F64, U64) => wide(P66, 0x78),
        (F32, U64) => new(P66, 0x78),
        _ if from.is_float() || to.is_float() => None,
        _ => {
            let step = match (from.bytes().min(to.bytes()), from.bytes().max(to.bytes())) {
                (1, 2) => 0,
                (1, 4) => 1,
                (1, 8) => 2,
                (2, 4) => 3,
                (2, 8) => 4,
                (4, 8) => 5,
                _ => return None,
            };
            if from.bytes() < to.bytes() {
                let code = if from.is_unsigned() { 0x30 } else { 0x20 };
                return Some((Opcode::new(P66, M0F38, code + step), false, None));
            }
            evex.then(|| (Opcode::new(F3, M0F38, 0x30 + step), true, None))
        }
    }
}
