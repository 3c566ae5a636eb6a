//! The evaluator of tables of sizes, see [`crate::table`]: one small function for all programs.

use super::emit::{CONSTANT, Emit};
use super::outline::Outline;
use super::unit::Unit;
use crate::Error;
use crate::table::Op;
use brolga_abi::ErrorCode;
use brolga_ir::DimOp;
use cranelift_codegen::ir::condcodes::{FloatCC, IntCC};
use cranelift_codegen::ir::{self, BlockCall, InstBuilder, JumpTableData, MemFlagsData, Type, Value, types};
use cranelift_module::{FuncId, Linkage};
use std::borrow::Cow;

/// `(table, places) -> status`.
#[derive(Clone, Copy)]
pub(crate) struct Evaluator;

/// What entries pass on: where the next one is, the sum, the flag, the sum of bounds.
#[derive(Clone, Copy)]
struct State {
    at: Value,
    sum: Value,
    flag: Value,
    bound: Value,
}

/// The evaluator under construction.
struct Machine<'e, 'a, 'm> {
    e: &'e mut Emit<'a, 'm>,
    places: Value,
    /// Takes a [`State`].
    head: ir::Block,
}

const MEMORY: MemFlagsData = MemFlagsData::trusted();

impl Outline for Evaluator {
    fn name(&self) -> Cow<'static, str> {
        "brolga_sizes".into()
    }

    fn define(&self, unit: &mut Unit, name: &str) -> Result<FuncId, Error> {
        let signature = unit.signature(&[types::I64; 2], Some(types::I32));
        let id = unit.declare(name, Linkage::Local, &signature)?;
        unit.define(id, |e| {
            e.check_dims();
            let p = e.params();
            let head = e.block(&[types::I64, types::I64, types::I64, types::F64]);
            let (zero, none) = (e.int(0), e.b.ins().f64const(0.0));
            let start = [p[0], zero, zero, none].map(Into::into);
            e.b.ins().jump(head, &start);
            e.b.switch_to_block(head);
            let params = e.b.block_params(head).to_vec();
            let s = State {
                at: params[0],
                sum: params[1],
                flag: params[2],
                bound: params[3],
            };
            let op = e.b.ins().load(types::I32, CONSTANT, s.at, 0);
            let cases: Vec<ir::Block> = Op::ALL.iter().map(|_| e.b.create_block()).collect();
            let pool = &mut e.b.func.dfg.value_lists;
            let table: Vec<BlockCall> = cases.iter().map(|c| BlockCall::new(*c, [], pool)).collect();
            let table =
                e.b.create_jump_table(JumpTableData::new(table[Op::End as usize], &table));
            e.b.ins().br_table(op, table);
            let mut m = Machine { e, places: p[1], head };
            for (op, case) in Op::ALL.into_iter().zip(cases) {
                m.e.b.switch_to_block(case);
                m.e.b.seal_block(case);
                m.e.scopes.push(Default::default());
                m.entry(op, s)?;
                m.e.scopes.pop();
            }
            e.b.seal_block(head);
            Ok(())
        })?;
        Ok(id)
    }
}

impl Machine<'_, '_, '_> {
    fn entry(&mut self, op: Op, s: State) -> Result<(), Error> {
        let next = self.e.b.ins().iadd_imm_s(s.at, 8 * op.words());
        let mut to = State { at: next, ..s };
        match op {
            Op::End => {
                let ok = self.e.b.ins().iconst(types::I32, ErrorCode::Ok as i64);
                self.e.b.ins().return_(&[ok]);
                return Ok(());
            }
            Op::Term => {
                let (n, c) = (self.word(s.at, 1, types::I64), self.word(s.at, 2, types::I64));
                let one = self.e.int(1);
                let product = self.product(next, n, one, s.flag, |e, p, v| e.product(p, v), types::I64)?;
                self.e.flag = Some(product[1]);
                let p = self.e.product(product[0], c);
                to.sum = self.e.sum(s.sum, p);
                to.flag = self.flag(s);
                to.at = self.behind(next, n);
            }
            Op::BoundTerm => {
                let (n, c) = (self.word(s.at, 1, types::I64), self.word(s.at, 2, types::F64));
                let product = self.product(next, n, c, s.flag, |e, p, v| e.b.ins().fmul(p, v), types::F64)?;
                to.bound = self.e.b.ins().fadd(s.bound, product[0]);
                to.at = self.behind(next, n);
            }
            Op::Keep => {
                self.keep(s, s.sum);
                to.sum = self.e.int(0);
            }
            Op::Min | Op::Max => {
                let (a, b) = (self.value(s, 2, types::I64), self.value(s, 3, types::I64));
                let v = match op {
                    Op::Min => self.e.b.ins().smin(a, b),
                    _ => self.e.b.ins().smax(a, b),
                };
                self.keep(s, v);
            }
            Op::FloorDiv | Op::CeilDiv | Op::Mod => {
                let (a, b) = (self.value(s, 2, types::I64), self.value(s, 3, types::I64));
                self.e.flag = Some(s.flag);
                let op = match op {
                    Op::FloorDiv => DimOp::FloorDiv,
                    Op::CeilDiv => DimOp::CeilDiv,
                    _ => DimOp::Mod,
                };
                let v = self.e.divide(op, a, b);
                self.keep(s, v);
                to.flag = self.flag(s);
            }
            Op::Wrong => {
                let wrong = self.e.b.ins().icmp_imm_s(IntCC::SignedLessThan, s.flag, 0);
                self.return_if(s, wrong);
                to.flag = self.e.int(0);
            }
            Op::Negative => {
                let v = self.value(s, 2, types::I64);
                let negative = self.e.b.ins().icmp_imm_s(IntCC::SignedLessThan, v, 0);
                self.return_if(s, negative);
            }
            Op::Differ | Op::Above | Op::Stretched => {
                let (a, b) = (self.value(s, 2, types::I64), self.value(s, 3, types::I64));
                let with = match op {
                    Op::Above => IntCC::SignedGreaterThan,
                    _ => IntCC::NotEqual,
                };
                let mut fails = self.e.b.ins().icmp(with, a, b);
                if op == Op::Stretched {
                    let stretched = self.e.b.ins().icmp_imm_s(IntCC::NotEqual, a, 1);
                    fails = self.e.b.ins().band(fails, stretched);
                }
                self.return_if(s, fails);
            }
            Op::Bound => {
                let v = self.value(s, 2, types::I64);
                let v = self.e.b.ins().fcvt_from_sint(types::F64, v);
                self.keep(s, v);
            }
            Op::KeepShare => {
                let (by, one) = (self.word(s.at, 2, types::F64), self.e.b.ins().f64const(1.0));
                let v = self.e.b.ins().fmul(s.bound, by);
                let v = self.e.b.ins().fadd(v, one);
                self.keep(s, v);
                to.bound = self.e.b.ins().f64const(0.0);
            }
            Op::KeepBound => {
                self.keep(s, s.bound);
                to.bound = self.e.b.ins().f64const(0.0);
            }
            Op::MaxBound => {
                let (a, b) = (self.value(s, 2, types::F64), self.value(s, 3, types::F64));
                let v = self.e.b.ins().fmax(a, b);
                self.keep(s, v);
            }
            Op::Beyond => {
                let limit = self.word(s.at, 2, types::F64);
                let beyond = self.e.b.ins().fcmp(FloatCC::GreaterThanOrEqual, s.bound, limit);
                self.return_if(s, beyond);
                to.bound = self.e.b.ins().f64const(0.0);
            }
        }
        let next = [to.at, to.sum, to.flag, to.bound].map(Into::into);
        self.e.b.ins().jump(self.head, &next);
        Ok(())
    }

    /// A word of an entry.
    fn word(&mut self, at: Value, n: i32, ty: Type) -> Value {
        self.e.b.ins().load(ty, CONSTANT, at, 8 * n)
    }

    fn address(&mut self, place: Value) -> Value {
        let offset = self.e.b.ins().ishl_imm_u(place, 3);
        self.e.b.ins().iadd(self.places, offset)
    }

    /// The value in the place that a word of the entry names.
    fn value(&mut self, s: State, n: i32, ty: Type) -> Value {
        let place = self.word(s.at, n, types::I64);
        let at = self.address(place);
        self.e.b.ins().load(ty, MEMORY, at, 0)
    }

    /// Stores a value to the place that the first word names.
    fn keep(&mut self, s: State, v: Value) {
        let place = self.word(s.at, 1, types::I64);
        let at = self.address(place);
        self.e.b.ins().store(MEMORY, v, at, 0);
    }

    /// Returns the status in the first word where a condition holds.
    fn return_if(&mut self, s: State, cond: Value) {
        let status = self.word(s.at, 1, types::I32);
        let (out, on) = (self.e.b.create_block(), self.e.b.create_block());
        self.e.b.ins().brif(cond, out, &[], on, &[]);
        self.e.b.switch_to_block(out);
        self.e.b.seal_block(out);
        self.e.b.set_cold_block(out);
        self.e.b.ins().return_(&[status]);
        self.e.b.switch_to_block(on);
        self.e.b.seal_block(on);
    }

    /// The flag after steps.
    fn flag(&mut self, s: State) -> Value {
        self.e.flag.take().unwrap_or(s.flag)
    }

    /// The product of a first factor and `n` values whose places begin at `at`, and the flag.
    fn product(
        &mut self,
        at: Value,
        n: Value,
        first: Value,
        flag: Value,
        by: impl FnOnce(&mut Emit, Value, Value) -> Value,
        ty: Type,
    ) -> Result<Vec<Value>, Error> {
        let (zero, places) = (self.e.int(0), self.places);
        self.e.counted(zero, n, &[first, flag], |e, i, carried| {
            let offset = e.b.ins().ishl_imm_u(i, 3);
            let word = e.b.ins().iadd(at, offset);
            let place = e.b.ins().load(types::I64, CONSTANT, word, 0);
            let offset = e.b.ins().ishl_imm_u(place, 3);
            let place = e.b.ins().iadd(places, offset);
            let v = e.b.ins().load(ty, MEMORY, place, 0);
            e.flag = Some(carried[1]);
            let p = by(e, carried[0], v);
            Ok(vec![p, e.flag.take().unwrap_or(carried[1])])
        })
    }

    /// Where the entry behind `n` places is.
    fn behind(&mut self, at: Value, n: Value) -> Value {
        let offset = self.e.b.ins().ishl_imm_u(n, 3);
        self.e.b.ins().iadd(at, offset)
    }
}
