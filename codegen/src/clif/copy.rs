//! Copying bytes.

use super::emit::{CONSTANT, Emit};
use super::outline::Outline;
use super::unit::Unit;
use crate::Error;
use cranelift_codegen::ir::{InstBuilder, MemFlagsData, Type, Value, types};
use cranelift_module::{FuncId, Linkage};
use std::borrow::Cow;

/// A function that copies bytes that do not overlap.
#[derive(Clone, Copy)]
pub(crate) enum Copy {
    /// `(to, from, bytes)`.
    Bytes,
    /// The body of a loop over rows: `args` points to where they go, where they are, the bytes of one, and the bytes from
    /// where one goes to where the next one does.
    Rows,
}

impl Outline for Copy {
    fn name(&self) -> Cow<'static, str> {
        match self {
            Copy::Bytes => "brolga_copy",
            Copy::Rows => "brolga_copy_rows",
        }
        .into()
    }

    fn define(&self, unit: &mut Unit, name: &str) -> Result<FuncId, Error> {
        let params: &[Type] = match self {
            Copy::Bytes => &[types::I64; 3],
            Copy::Rows => &[types::I64, types::I64, types::I64, types::I32],
        };
        let signature = unit.signature(params, None);
        let id = unit.declare(name, Linkage::Local, &signature)?;
        unit.define(id, |e| {
            let p = e.params();
            match self {
                Copy::Bytes => copy(e, p[0], p[1], p[2])?,
                Copy::Rows => {
                    let field = |e: &mut Emit, i: i32| e.b.ins().load(types::I64, CONSTANT, p[0], 8 * i);
                    let (to, from, bytes, stride) = (field(e, 0), field(e, 1), field(e, 2), field(e, 3));
                    e.counted(p[1], p[2], &[], |e, i, _| {
                        let (f, t) = (e.b.ins().imul(i, bytes), e.b.ins().imul(i, stride));
                        let (f, t) = (e.b.ins().iadd(from, f), e.b.ins().iadd(to, t));
                        copy(e, t, f, bytes)?;
                        Ok(vec![])
                    })?;
                }
            }
            e.b.ins().return_(&[]);
            Ok(())
        })?;
        Ok(id)
    }
}

fn copy(e: &mut Emit, to: Value, from: Value, bytes: Value) -> Result<(), Error> {
    let flags = MemFlagsData::new().with_notrap();
    // Four vectors at once, then one, then bytes.
    for (ty, size, times, above) in [
        (types::I8X16, 16, 4, 0),
        (types::I8X16, 16, 1, 64),
        (types::I8, 1, 1, 16),
    ] {
        let step: i32 = size * times;
        let done = e.b.ins().band_imm_s(bytes, -above);
        let rest = e.b.ins().isub(bytes, done);
        let n = e.b.ins().ushr_imm_u(rest, i64::from(step.trailing_zeros()));
        let zero = e.int(0);
        e.counted(zero, n, &[], |e, i, _| {
            let at = e.times(i, i64::from(step));
            let at = e.b.ins().iadd(done, at);
            let (f, t) = (e.b.ins().iadd(from, at), e.b.ins().iadd(to, at));
            let offsets = (0..times).map(|k| size * k);
            let all: Vec<Value> = offsets.clone().map(|o| e.b.ins().load(ty, flags, f, o)).collect();
            for (o, v) in offsets.zip(all) {
                e.b.ins().store(flags, v, t, o);
            }
            Ok(vec![])
        })?;
    }
    Ok(())
}
