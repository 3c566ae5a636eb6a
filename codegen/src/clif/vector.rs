//! Values of a vector loop: one for all lanes, or 128-bit chunks.
//!
//! A register of `L` lanes of `b` bits is `ceil(L / (128 / b))` chunks; lanes past `L` in the last one hold anything.
//! A bool with lanes is a **mask**: integer chunks of the width of what was compared, all ones or all zeros a lane; it is
//! narrowed or widened where it meets another width. One value for all lanes stays a scalar until a chunk is needed.

use super::emit::{CONSTANT, Emit, clif};
use brolga_ir::DType;
use cranelift_codegen::ir::{ConstantData, InstBuilder, Type, Value, types};

/// A register inside a vector loop.
#[derive(Clone, Debug)]
pub(crate) enum Val {
    /// The same on every lane.
    Uniform(Value),
    /// Chunks of the dtype's own type.
    Lanes(Vec<Value>),
    /// A bool: masks of this many bits a lane.
    Mask(u32, Vec<Value>),
}

/// The type of a chunk.
pub(crate) fn chunk(d: DType) -> Type {
    let t = clif(d);
    t.by(128 / t.bits())
        .expect("128-bit vectors of every element type exist")
}

pub(crate) fn mask_type(bits: u32) -> Type {
    match bits {
        8 => types::I8X16,
        16 => types::I16X8,
        32 => types::I32X4,
        _ => types::I64X2,
    }
}

/// How many chunks hold `lanes` lanes of `bits` bits.
pub(crate) fn chunks(lanes: u32, bits: u32) -> usize {
    lanes.div_ceil(128 / bits) as usize
}

/// A float constant's bits, repeated to 64.
pub(crate) fn float_pattern(d: DType, c: f64) -> u64 {
    match d {
        DType::F64 => c.to_bits(),
        _ => u64::from((c as f32).to_bits()) * 0x1_0000_0001,
    }
}

impl Emit<'_, '_> {
    /// One lane of a value, as a scalar.
    pub fn lane(&mut self, v: &Val, d: DType, l: u32) -> Value {
        match v {
            Val::Uniform(v) => *v,
            Val::Lanes(c) => {
                let k = 128 / clif(d).bits();
                self.b.ins().extractlane(c[(l / k) as usize], (l % k) as u8)
            }
            Val::Mask(bits, c) => {
                let k = 128 / bits;
                let m = self.b.ins().extractlane(c[(l / k) as usize], (l % k) as u8);
                let m = if *bits > 8 {
                    self.b.ins().ireduce(types::I8, m)
                } else {
                    m
                };
                self.b.ins().band_imm_s(m, 1)
            }
        }
    }

    /// Chunks from scalars, one a lane.
    pub fn collect(&mut self, d: DType, scalars: &[Value]) -> Val {
        let ty = chunk(d);
        let mut out = vec![];
        for part in scalars.chunks(ty.lane_count() as usize) {
            let mut v: Option<Value> = None;
            for (l, x) in part.iter().enumerate() {
                let x = if d == DType::Bool { self.b.ins().ineg(*x) } else { *x };
                v = Some(match v {
                    None if ty.lane_bits() >= 32 => self.b.ins().scalar_to_vector(ty, x),
                    None => self.b.ins().splat(ty, x),
                    Some(v) => self.b.ins().insertlane(v, x, l as u8),
                });
            }
            out.extend(v);
        }
        if d == DType::Bool {
            Val::Mask(8, out)
        } else {
            Val::Lanes(out)
        }
    }

    /// A value's chunks; not for bools.
    pub fn chunks_of(&mut self, v: &Val, d: DType, lanes: u32) -> Vec<Value> {
        match v {
            Val::Uniform(x) => {
                let c = self.b.ins().splat(chunk(d), *x);
                vec![c; chunks(lanes, d.bits() as u32)]
            }
            Val::Lanes(c) | Val::Mask(_, c) => c.clone(),
        }
    }

    /// The same for an operand of arithmetic: a constant comes from memory where the kernel has more of them than
    /// registers. Left in registers they would be moved out of the loop, spilled there, and loaded from the stack anyway.
    pub fn operand_chunks(&mut self, v: &Val, d: DType, lanes: u32) -> Vec<Value> {
        if let (Val::Uniform(x), Some(table)) = (v, &self.constants)
            && let Some(c) = self.known_float(*x)
            && let Some(&offset) = table.offsets.get(&float_pattern(d, c))
        {
            let (base, copies) = (table.base, table.copies);
            let load = |i: usize| {
                let offset = offset + 16 * (i % copies) as i32;
                self.b.ins().load(chunk(d), CONSTANT, base, offset)
            };
            return (0..chunks(lanes, d.bits() as u32)).map(load).collect();
        }
        self.chunks_of(v, d, lanes)
    }

    /// A bool's masks of a width.
    pub fn mask_of(&mut self, v: &Val, bits: u32, lanes: u32) -> Vec<Value> {
        let n = chunks(lanes, bits);
        match v {
            Val::Uniform(x) => {
                let ty = mask_type(bits);
                let wide = if bits > 8 {
                    self.b.ins().uextend(ty.lane_type(), *x)
                } else {
                    *x
                };
                let m = self.b.ins().ineg(wide);
                vec![self.b.ins().splat(ty, m); n]
            }
            Val::Mask(from, c) => {
                let (mut have, mut c) = (*from, c.clone());
                while have < bits {
                    c = self.widen(&c, true);
                    have *= 2;
                }
                while have > bits {
                    c = self.narrow(&c, true);
                    have /= 2;
                }
                c.truncate(n);
                c
            }
            Val::Lanes(c) => c.clone(),
        }
    }

    /// Whether a bool holds on all lanes, as 0 or 1.
    pub fn all_lanes(&mut self, v: &Val, lanes: u32) -> Value {
        let (bits, chunks) = match v {
            Val::Uniform(x) => return *x,
            Val::Mask(bits, c) => (*bits, c.clone()),
            Val::Lanes(c) => (8, c.clone()),
        };
        let mut all: Option<Value> = None;
        for (i, chunk) in (0..).zip(chunks) {
            let mut chunk = self.bits_as(chunk, types::I8X16);
            let bytes = (lanes * bits / 8 - 16 * i).min(16) as usize;
            if bytes < 16 {
                // What lies behind the last lane does not count.
                let mut behind = [0u8; 16];
                behind[bytes..].fill(0xff);
                let c = self.b.func.dfg.constants.insert(behind.as_slice().into());
                let c = self.b.ins().vconst(types::I8X16, c);
                chunk = self.b.ins().bor(chunk, c);
            }
            all = Some(match all {
                None => chunk,
                Some(a) => self.b.ins().band(a, chunk),
            });
        }
        match all {
            Some(a) => self.b.ins().vall_true(a),
            None => self.constant(DType::Bool, 1),
        }
    }

    /// Every lane twice as wide.
    pub fn widen(&mut self, c: &[Value], signed: bool) -> Vec<Value> {
        c.iter()
            .flat_map(|v| {
                if signed {
                    [self.b.ins().swiden_low(*v), self.b.ins().swiden_high(*v)]
                } else {
                    [self.b.ins().uwiden_low(*v), self.b.ins().uwiden_high(*v)]
                }
            })
            .collect()
    }

    /// The low half of every lane's bits. `small`: lanes are known to fit as signed numbers.
    pub fn narrow(&mut self, c: &[Value], small: bool) -> Vec<Value> {
        let ty = self.type_of(c[0]);
        c.chunks(2)
            .map(|pair| {
                let (a, b) = (pair[0], pair[pair.len() - 1]);
                if ty == types::I64X2 {
                    return self.even_words(a, b);
                }
                if small {
                    return self.b.ins().snarrow(a, b);
                }
                let low = self.int_const(ty, (1 << (ty.lane_bits() / 2)) - 1);
                let (a, b) = (self.b.ins().band(a, low), self.b.ins().band(b, low));
                self.b.ins().unarrow(a, b)
            })
            .collect()
    }

    /// The 32-bit lanes 0 and 2 of `a` and then of `b`.
    fn even_words(&mut self, a: Value, b: Value) -> Value {
        let r = self.shuffle(a, b, [0, 1, 2, 3, 8, 9, 10, 11, 16, 17, 18, 19, 24, 25, 26, 27]);
        self.bits_as(r, types::I32X4)
    }

    fn shuffle(&mut self, a: Value, b: Value, bytes: [u8; 16]) -> Value {
        let (a, b) = (self.bits_as(a, types::I8X16), self.bits_as(b, types::I8X16));
        let mask = self.b.func.dfg.immediates.push(ConstantData::from(bytes.as_slice()));
        self.b.ins().shuffle(a, b, mask)
    }

    /// The high 64 bits, moved to the low ones.
    pub fn high_half(&mut self, v: Value) -> Value {
        let ty = self.type_of(v);
        let r = self.shuffle(v, v, [8, 9, 10, 11, 12, 13, 14, 15, 8, 9, 10, 11, 12, 13, 14, 15]);
        self.bits_as(r, ty)
    }

    pub fn demote_pair(&mut self, low: Value, high: Value) -> Value {
        let (low, high) = (self.b.ins().fvdemote(low), self.b.ins().fvdemote(high));
        let r = self.shuffle(low, high, [0, 1, 2, 3, 4, 5, 6, 7, 16, 17, 18, 19, 20, 21, 22, 23]);
        self.bits_as(r, types::F32X4)
    }
}
