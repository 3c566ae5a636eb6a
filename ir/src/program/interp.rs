//! The reference interpreter of programs: the initial steps, then the steps, kernels by their level's interpreter.
//!
//! A planned program runs on one arena, full of garbage at the start, with every temporary exactly at its offset, so that a
//! wrong plan shows as a wrong result. Without a plan every temporary has memory of its own. An output that may be the memory of
//! an input is: it starts as a copy of the caller's, which both are.

use super::{Callable, Program, Rows, SlotId, Step, Storage};
use crate::graph::Constant;
use crate::loops::interp::BufferData;
use crate::{ConstData, DType, Dim, Fault, Symbol, Tensor};
use rustc_hash::FxHashMap;
use std::cell::Cell;

/// The most bytes that a run may need beside its inputs and the model, so that hostile text cannot exhaust memory.
const MAX_BYTES: usize = 1 << 36;

/// Runs a program on its inputs; gives its outputs.
///
/// # Errors
/// When the program is not valid, the inputs do not fit, a guard does not hold, or a step fails.
pub fn run<K: Callable>(p: &Program<K>, inputs: &[Tensor]) -> Result<Vec<Tensor>, Fault> {
    let fail = |e: String| Fault::new(&p.name, "", e);
    p.verify().map_err(fail)?;
    let mut env = p.bind(inputs).map_err(fail)?;
    p.bind_lets(&mut env).map_err(fail)?;
    let mut m = Machine {
        p,
        inputs,
        symbols: env.into_iter().collect(),
        arena: vec![],
        own: p.slots.iter().map(|_| vec![]).collect(),
        total: 0,
    };
    for g in &p.guards {
        g.check(&|s| m.value(s)).map_err(fail)?;
    }
    m.memory().map_err(fail)?;
    for (steps, what) in [(&p.init, "initial step"), (&p.steps, "step")] {
        m.block(steps, &mut 0, what)?;
    }
    let outputs = p.outputs.iter().map(|(_, s)| m.tensor(*s));
    outputs.collect::<Result<_, String>>().map_err(fail)
}

struct Machine<'a, K> {
    p: &'a Program<K>,
    inputs: &'a [Tensor],
    symbols: FxHashMap<Symbol, i64>,
    arena: Vec<Cell<u8>>,
    /// Memory that slots own, by slot.
    own: Vec<Vec<Cell<u8>>>,
    /// Bytes of all memory so far.
    total: usize,
}

impl<K: Callable> Machine<'_, K> {
    fn value(&self, symbol: &str) -> Option<i64> {
        self.symbols.get(symbol).copied()
    }

    fn dim(&self, d: &Dim) -> Result<usize, String> {
        let n = d.value(&|s| self.value(s)).map_err(|e| e.to_string())?;
        usize::try_from(n).map_err(|_| format!("the dim `{d}` is {n}"))
    }

    /// Memory full of garbage.
    fn allocate(&mut self, bytes: usize) -> Result<Vec<Cell<u8>>, String> {
        self.total = self.total.saturating_add(bytes);
        if self.total > MAX_BYTES {
            return Err(format!("more than {MAX_BYTES} bytes"));
        }
        Ok(vec![Cell::new(0xff); bytes])
    }

    /// Makes the memory that there is before the steps run.
    fn memory(&mut self) -> Result<(), String> {
        let arena = self.p.arena.as_ref().map_or(Ok(0), |a| self.dim(a))?;
        self.arena = self.allocate(arena)?;
        let late = self.p.bounds();
        for (i, s) in self.p.slots.iter().enumerate() {
            if s.is_late(&late) {
                continue;
            }
            let place = |e: String| format!("s{i}: {e}");
            let bytes = self.dim(&s.bytes()).map_err(place)?;
            let owns = match &s.storage {
                Storage::Output(_) | Storage::Computed | Storage::Weight(ConstData::Splat(_)) => true,
                Storage::Temp(_) => self.p.arena.is_none(),
                _ => false,
            };
            if owns {
                self.own[i] = self.allocate(bytes).map_err(place)?;
            }
            if let Some(input) = self.p.aliased(SlotId(i as u32))
                && let Storage::Input(k) = self.p.slot(input).storage
            {
                let own = BufferData::Write(&self.own[i]);
                own.copy_from(self.inputs[k as usize].bytes()).map_err(place)?;
            }
            if let Storage::Weight(data @ ConstData::Splat(_)) = &s.storage {
                let c = Constant {
                    ty: s.ty.clone(),
                    data: data.clone(),
                };
                self.at(SlotId(i as u32))?.copy_from(c.to_tensor().bytes())?;
            } else if let Storage::Temp(Some(_)) | Storage::Weight(ConstData::File { .. }) = &s.storage {
                self.at(SlotId(i as u32))?;
            }
        }
        Ok(())
    }

    /// The output that is the memory of an input.
    fn shared(&self, input: u32) -> Option<SlotId> {
        let alias = self.p.aliases.iter().find(|a| a.input == input)?;
        Some(self.p.outputs[alias.output as usize].1)
    }

    /// A slot's memory.
    fn at(&self, s: SlotId) -> Result<BufferData<'_>, String> {
        let slot = self.p.slot(s);
        match &slot.storage {
            Storage::Input(k) => Ok(match self.shared(*k) {
                Some(output) => BufferData::Write(&self.own[output.0 as usize]),
                None => self.inputs[*k as usize].bytes().into(),
            }),
            Storage::Weight(ConstData::Dense(t)) => Ok(t.bytes().into()),
            Storage::Weight(ConstData::File { source, offset }) => {
                let bytes = self.dim(&slot.bytes())?;
                let all = source.bytes();
                let part = offset.checked_add(bytes).and_then(|end| all.get(*offset..end));
                Ok(part
                    .ok_or_else(|| format!("{s} lies outside of {:?}", source.name()))?
                    .into())
            }
            Storage::Temp(Some(at)) if self.p.arena.is_some() => {
                let (at, bytes) = (self.dim(at)?, self.dim(&slot.bytes())?);
                let (part, all) = (BufferData::Write(&self.arena).part(at, bytes), self.arena.len());
                part.ok_or_else(|| format!("{s} lies at {at}, outside of an arena of {all} bytes"))
            }
            Storage::View { of, offset } => {
                let (at, bytes) = (self.dim(offset)?, self.dim(&slot.bytes())?);
                let part = self.at(*of)?.part(at, bytes);
                part.ok_or_else(|| format!("{s} lies at {at} of {of}, outside of it"))
            }
            _ => Ok(BufferData::Write(&self.own[s.0 as usize])),
        }
    }

    /// Runs steps, which begin at a number.
    fn block(&mut self, steps: &[Step], number: &mut usize, what: &str) -> Result<(), Fault> {
        for s in steps {
            let (name, place) = (&self.p.name, format!("{what} {number}"));
            let fail = |e: String| Fault::new(name, place, e);
            *number += 1;
            match s {
                Step::If { cond, then, other } => {
                    let which = self.element(*cond).map_err(fail)? != 0;
                    let behind = *number + super::nested(then).len();
                    if which {
                        self.block(then, number, what)?;
                    }
                    *number = behind;
                    if !which {
                        self.block(other, number, what)?;
                    }
                    *number = behind + super::nested(other).len();
                }
                Step::While { cond, body } => {
                    let start = *number;
                    while self
                        .element(*cond)
                        .map_err(|e| Fault::new(&self.p.name, format!("{what} {start}"), e))?
                        != 0
                    {
                        *number = start;
                        self.block(body, number, what)?;
                    }
                    *number = start + super::nested(body).len();
                }
                other => self.step(other).map_err(fail)?,
            }
        }
        Ok(())
    }

    fn step(&mut self, s: &Step) -> Result<(), String> {
        match s {
            Step::Call {
                kernel, args, checks, ..
            } => {
                let memory = args.iter().map(|a| self.at(*a)).collect::<Result<Vec<_>, _>>()?;
                let result = self.p.kernels[*kernel as usize].run(&|s| self.value(s), &memory);
                result.map_err(|e| match e.check.and_then(|n| checks.get(n as usize)) {
                    Some(node) => format!("node `{node}`: {e}"),
                    None => e.to_string(),
                })
            }
            Step::Copy { from, to, rows: None } => self.at(*to)?.copy_from(&self.at(*from)?.to_vec()),
            Step::Copy {
                from,
                to,
                rows: Some(rows),
            } => self.copy_rows(*from, *to, rows),
            Step::Host {
                op,
                inputs,
                outputs,
                origin,
            } => {
                let fail = |e: String| format!("node `{origin}`: {}: {e}", op.name());
                let args = inputs.iter().map(|s| self.tensor(*s)).collect::<Result<Vec<_>, _>>()?;
                let results = (op.concrete(&|s| self.value(s)))
                    .and_then(|op| op.eval(&args))
                    .map_err(fail)?;
                for (s, t) in outputs.iter().zip(results) {
                    self.at(*s)?.copy_from(t.bytes()).map_err(fail)?;
                }
                Ok(())
            }
            Step::Let(l) => {
                let n = l.number(&|s| self.value(s))?;
                self.symbols.insert(l.symbol.clone(), n);
                Ok(())
            }
            Step::Read {
                symbol,
                from,
                bound,
                origin,
            } => {
                let n = self.element(*from)?;
                let most = bound.as_ref().map(|d| self.dim(d)).transpose()?;
                if n < 0 || most.is_some_and(|m| n > m as i64) {
                    let most = most.map_or(String::new(), |m| format!(" to {m}"));
                    return Err(format!("node `{origin}`: `{symbol}` is {n}, expected 0{most}"));
                }
                self.symbols.insert(symbol.clone(), n);
                Ok(())
            }
            Step::Alloc { slot, origin } => {
                let fail = |e: String| format!("node `{origin}`: {slot}: {e}");
                let s = self.p.slot(*slot);
                for d in &s.ty.shape {
                    self.dim(d).map_err(fail)?;
                }
                let bytes = self.dim(&s.bytes()).map_err(fail)?;
                if matches!(s.storage, Storage::Temp(Some(_))) && self.p.arena.is_some() {
                    return self.at(*slot)?.copy_from(&vec![0xff; bytes]);
                }
                self.total -= self.own[slot.0 as usize].len();
                self.own[slot.0 as usize] = self.allocate(bytes).map_err(fail)?;
                Ok(())
            }
            Step::Check { guard, origin } => {
                (guard.check(&|s| self.value(s))).map_err(|e| format!("node `{origin}`: {e}"))
            }
            Step::If { .. } | Step::While { .. } => Ok(()),
        }
    }

    fn copy_rows(&self, from: SlotId, to: SlotId, r: &Rows) -> Result<(), String> {
        let [count, bytes, start, stride] = [&r.count, &r.bytes, &r.start, &r.stride].map(|d| self.dim(d));
        let (count, bytes, start, stride) = (count?, bytes?, start?, stride?);
        let data = self.at(from)?.to_vec();
        for i in 0..count {
            let (row, place) = (
                data.get(i * bytes..(i + 1) * bytes),
                self.at(to)?.part(start + i * stride, bytes),
            );
            let (Some(row), Some(place)) = (row, place) else {
                return Err(format!("row {i} of a copy from {from} to {to} lies outside of them"));
            };
            place.copy_from(row)?;
        }
        Ok(())
    }

    /// The only element of a slot.
    fn element(&self, s: SlotId) -> Result<i64, String> {
        let t = self.tensor(s)?;
        match t.iter().next() {
            Some(crate::Number::Int(n)) => i64::try_from(n).map_err(|_| format!("{s} is {n}, beyond 64 bits")),
            Some(x) if t.dtype() == DType::Bool => Ok(i64::from(x.truth())),
            _ => Err(format!("{s} holds no integer")),
        }
    }

    /// A copy of a slot's contents.
    fn tensor(&self, s: SlotId) -> Result<Tensor, String> {
        let ty = &self.p.slot(s).ty;
        let shape: Option<Vec<usize>> = ty
            .shape
            .iter()
            .map(|d| d.eval(&|s| self.value(s)).and_then(|n| usize::try_from(n).ok()))
            .collect();
        let shape = shape.ok_or_else(|| format!("the type {ty} of {s} has no value"))?;
        Tensor::new(ty.dtype, shape, self.at(s)?.to_vec())
    }
}
