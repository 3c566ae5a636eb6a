//! Running a loop's body, by all workers where that is worth it: one function for all steps.

use super::emit::{CONSTANT, Emit};
use super::outline::Outline;
use super::unit::Unit;
use crate::Error;
use brolga_abi::ErrorCode;
use brolga_abi::ctx::offset;
use cranelift_codegen::ir::condcodes::IntCC;
use cranelift_codegen::ir::{InstBuilder, types};
use cranelift_module::{FuncId, Linkage};
use std::borrow::Cow;

/// `(ctx, body, args, n, worth) -> status`: calls `body` with iterations `0..n`, through the context's `parallel_for` where it
/// has one and `worth` is not 0.
#[derive(Clone, Copy)]
pub(crate) struct Launch;

impl Outline for Launch {
    fn name(&self) -> Cow<'static, str> {
        "brolga_launch".into()
    }

    fn define(&self, unit: &mut Unit, name: &str) -> Result<FuncId, Error> {
        let params = [types::I64, types::I64, types::I64, types::I64, types::I8];
        let signature = unit.signature(&params, Some(types::I32));
        let id = unit.declare(name, Linkage::Local, &signature)?;
        let parallel_for = unit.signature(&[types::I64; 4], Some(types::I32));
        let body = unit.signature(&[types::I64, types::I64, types::I64, types::I32], None);
        unit.define(id, |e: &mut Emit| {
            let p = e.params();
            let (ctx, f, args, n, worth) = (p[0], p[1], p[2], p[3], p[4]);
            let parallel = e.b.ins().load(types::I64, CONSTANT, ctx, offset::PARALLEL_FOR);
            let given = e.b.ins().icmp_imm_s(IntCC::NotEqual, parallel, 0);
            let many = e.b.ins().icmp_imm_s(IntCC::SignedGreaterThan, n, 1);
            let cond = e.b.ins().band(given, many);
            let cond = e.b.ins().band(cond, worth);
            let fork = e.begin_fork(cond, &[types::I32]);
            let signature = e.b.import_signature(parallel_for);
            let call = e.b.ins().call_indirect(signature, parallel, &[ctx, f, args, n]);
            let status = e.b.inst_results(call)[0];
            let failed = e.b.ins().icmp_imm_s(IntCC::NotEqual, status, 0);
            let (code, ok) = (
                e.b.ins().iconst(types::I32, ErrorCode::ParallelFailed as i64),
                e.b.ins().iconst(types::I32, ErrorCode::Ok as i64),
            );
            let status = e.b.ins().select(failed, code, ok);
            e.fork_else(&fork, &[status]);
            let (zero, first_worker) = (e.int(0), e.b.ins().iconst(types::I32, 0));
            let signature = e.b.import_signature(body);
            e.b.ins().call_indirect(signature, f, &[args, zero, n, first_worker]);
            let ok = e.b.ins().iconst(types::I32, ErrorCode::Ok as i64);
            let status = e.end_fork(fork, &[ok])[0];
            e.b.ins().return_(&[status]);
            Ok(())
        })?;
        Ok(id)
    }
}
