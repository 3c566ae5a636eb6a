//! Parallel loops inside of serial ones: the body of each is a function of its own, which workers call with ranges of *shares*. There
//! are no more shares than workers and no more than iterations, so that each worker has one piece of the loop, and in the next round
//! most likely the same: what it read is in its cache.
//!
//! ```text
//! for i0 serial 0..n {                                [args] = kernel's args, iterations of a share, all iterations, i0
//!   for i1 parallel(…) 0..m { … i0 … i1 … }    -->     call brolga_launch(ctx, @kernel_fork0, args, shares, worth)
//! }
//! ```

use super::index::VarValue;
use super::wide::Wide;
use super::{Body, Entry};
use crate::Error;
use crate::clif::Launch;
use crate::clif::emit::{CONSTANT, Emit};
use crate::clif::outline::Outline;
use crate::clif::unit::Unit;
use brolga_abi::ctx::offset;
use brolga_ir::index::{Ix, Var};
use brolga_ir::loops::{Grain, Kernel, Stmt};
use cranelift_codegen::ir::condcodes::IntCC;
use cranelift_codegen::ir::{InstBuilder, MemFlagsData, Value, types};
use cranelift_module::{FuncId, Linkage};
use std::borrow::Cow;

/// Where the arguments of the body of a loop stand, each 8 bytes; variables come behind them.
const KERNEL: i32 = 0;
const PIECE: i32 = 8;
const END: i32 = 16;
const VARS: i32 = 24;

/// The body of a parallel loop.
struct Fork<'f> {
    name: String,
    k: &'f Kernel,
    wide: &'f Wide,
    var: Var,
    turn: Option<Var>,
    body: &'f [Stmt],
    /// The variables around it that loops compute.
    computed: &'f [Var],
    /// Those that are numbers here.
    known: &'f [(Var, i64)],
}

impl Body<'_, '_, '_> {
    /// A parallel loop that is not the kernel's outermost one.
    pub(super) fn fork(&mut self, var: Var, extent: &Ix, grain: &Grain, body: &[Stmt]) -> Result<(), Error> {
        let n = self.ix(extent)?;
        let Grain { work, least, turn } = grain;
        if extent.as_const().is_some_and(|n| n <= 1) || work.as_const().is_some_and(|w| w < *least) {
            let zero = self.e.int(0);
            return self.share(var, *turn, (zero, n), body);
        }
        let worth = match work.as_const() {
            Some(_) => self.e.b.ins().iconst(types::I8, 1),
            None => {
                let w = self.e.dim(work)?;
                self.e.b.ins().icmp_imm_s(IntCC::SignedGreaterThanOrEqual, w, *least)
            }
        };
        let at = 8 * (self.k.params().count() as i32 + 4);
        let ctx = self.e.b.ins().load(types::I64, CONSTANT, self.args, at);
        // Some iterations a share, rounded up; so many shares.
        let zero = self.e.int(0);
        let n = self.e.b.ins().smax(n, zero);
        let workers = self.e.b.ins().load(types::I32, CONSTANT, ctx, offset::WORKERS);
        let workers = self.e.b.ins().uextend(types::I64, workers);
        let piece = self.quotient(n, workers);
        let one = self.e.int(1);
        let piece = self.e.b.ins().smax(piece, one);
        let shares = self.quotient(n, piece);
        let (mut computed, mut known, mut values) = (vec![], vec![], vec![self.args, piece, n]);
        let mut around: Vec<(Var, VarValue)> = self.vars.values.iter().map(|(v, x)| (*v, *x)).collect();
        around.sort_by_key(|(v, _)| *v);
        for (v, x) in around {
            match x {
                VarValue::Known(n) => known.push((v, n)),
                VarValue::Value(value, _) => {
                    computed.push(v);
                    values.push(value);
                }
            }
        }
        let slot = self.e.slot(8 * values.len() as u32, 3);
        let args = self.e.slot_addr(slot);
        for (i, v) in values.into_iter().enumerate() {
            self.e.b.ins().store(MemFlagsData::trusted(), v, args, 8 * i as i32);
        }
        let fork = Fork {
            name: format!("{}_fork{}", self.name, self.forks),
            k: self.k,
            wide: self.wide,
            var,
            turn: *turn,
            body,
            computed: &computed,
            known: &known,
        };
        self.forks += 1;
        let f = self.e.unit.outline(&fork)?;
        let f = self.e.func_ref(f);
        let f = self.e.b.ins().func_addr(types::I64, f);
        let launch = self.e.unit.outline(&Launch)?;
        let status = self.e.call_value(launch, &[ctx, f, args, shares, worth]);
        self.leave_if_failed(ctx, status);
        Ok(())
    }

    /// `ceil(a / b)` of positive numbers.
    fn quotient(&mut self, a: Value, b: Value) -> Value {
        let sum = self.e.b.ins().iadd(a, b);
        let sum = self.e.b.ins().iadd_imm_s(sum, -1);
        self.e.b.ins().udiv(sum, b)
    }

    /// Returns where a loop could not run; the context then has the first error.
    fn leave_if_failed(&mut self, ctx: Value, status: Value) {
        let flags = MemFlagsData::trusted();
        let failed = self.e.b.ins().icmp_imm_s(IntCC::NotEqual, status, 0);
        let (leave, on) = (self.e.block(&[]), self.e.block(&[]));
        self.e.b.ins().brif(failed, leave, &[], on, &[]);
        self.e.b.switch_to_block(leave);
        self.e.b.seal_block(leave);
        self.e.cold();
        let before = self.e.b.ins().load(types::I32, flags, ctx, offset::ERROR_CODE);
        let none = self.e.b.ins().icmp_imm_s(IntCC::Equal, before, 0);
        let status = self.e.b.ins().select(none, status, before);
        self.e.b.ins().store(flags, status, ctx, offset::ERROR_CODE);
        self.e.b.ins().return_(&[]);
        self.e.b.switch_to_block(on);
        self.e.b.seal_block(on);
    }
}

impl Outline for Fork<'_> {
    fn name(&self) -> Cow<'static, str> {
        self.name.clone().into()
    }

    fn define(&self, unit: &mut Unit, name: &str) -> Result<FuncId, Error> {
        let signature = unit.signature(&[types::I64, types::I64, types::I64, types::I32], None);
        let id = unit.declare(name, Linkage::Local, &signature)?;
        unit.define(id, |e: &mut Emit| {
            let p = e.params();
            let (own, begin, end, worker) = (p[0], p[1], p[2], p[3]);
            let field = |e: &mut Emit, at: i32| e.b.ins().load(types::I64, CONSTANT, own, at);
            let (args, piece, all) = (field(e, KERNEL), field(e, PIECE), field(e, END));
            let from = e.b.ins().imul(begin, piece);
            let to = e.b.ins().imul(end, piece);
            let to = e.b.ins().smin(to, all);
            let values: Vec<_> = (0..)
                .zip(self.computed)
                .map(|(i, v)| (*v, field(e, VARS + 8 * i)))
                .collect();
            let range = (from, to);
            let mut body = Body::new(e, self.k, self.wide, name, Entry { args, worker, range }, self.body)?;
            for (v, x) in values {
                body.vars.values.insert(v, VarValue::Value(x, 0));
            }
            for (v, n) in self.known {
                body.vars.values.insert(*v, VarValue::Known(*n));
            }
            body.share(self.var, self.turn, range, self.body)?;
            body.e.b.ins().return_(&[]);
            Ok(())
        })?;
        Ok(id)
    }
}
