//! The reference interpreter of programs: the initial steps, then the steps, kernels by their level's interpreter.
//!
//! A planned program runs on one arena, full of garbage at the start, with every temporary exactly at its offset, so that a
//! wrong plan shows as a wrong result. Without a plan every temporary has memory of its own.

use super::{Callable, Program, SlotId, Step, Storage};
use crate::graph::Constant;
use crate::loops::interp::BufferData;
use crate::{ConstData, Dim, Fault, Symbol, Tensor};
use rustc_hash::FxHashMap;

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
    let env: FxHashMap<Symbol, i64> = env.into_iter().collect();
    let symbols = |s: &str| env.get(s).copied();
    let dim = |d: &Dim| -> Result<usize, String> {
        let n = d.value(&symbols).map_err(|e| e.to_string())?;
        usize::try_from(n).map_err(|_| format!("the dim `{d}` is {n}"))
    };
    for g in &p.guards {
        g.check(&symbols).map_err(fail)?;
    }
    // Memory that the slots themselves own; aliases and arena slots own none.
    let mut total = 0usize;
    let mut allocate = |bytes: usize| {
        total = total.saturating_add(bytes);
        if total > MAX_BYTES {
            Err(format!("more than {MAX_BYTES} bytes"))
        } else {
            Ok(vec![0xffu8; bytes])
        }
    };
    let arena_bytes = p.arena.as_ref().map_or(Ok(0), dim).map_err(fail)?;
    let mut arena = allocate(arena_bytes).map_err(fail)?;
    let mut owned: Vec<Vec<u8>> = vec![];
    for (i, s) in p.slots.iter().enumerate() {
        let planned = p.arena.is_some() && matches!(s.storage, Storage::Temp(_));
        let own = match &s.storage {
            Storage::Output(_) | Storage::Temp(_) | Storage::Computed if !planned => {
                dim(&s.bytes()).and_then(&mut allocate)
            }
            Storage::Weight(data @ ConstData::Splat(_)) => {
                let bytes = dim(&s.bytes()).and_then(&mut allocate);
                let c = Constant {
                    ty: s.ty.clone(),
                    data: data.clone(),
                };
                bytes.map(|_| c.to_tensor().bytes().to_vec())
            }
            _ => Ok(vec![]),
        };
        owned.push(own.map_err(|e| fail(format!("s{i}: {e}")))?);
    }
    let arena = BufferData::from(&mut arena[..]);
    let mut memory: Vec<BufferData> = owned.iter_mut().map(|o| BufferData::from(&mut o[..])).collect();
    for (i, s) in p.slots.iter().enumerate() {
        let bytes = dim(&s.bytes()).map_err(fail)?;
        memory[i] = match &s.storage {
            Storage::Input(k) => inputs[*k as usize].bytes().into(),
            Storage::Weight(ConstData::Dense(t)) => t.bytes().into(),
            Storage::Weight(ConstData::File { source, offset }) => {
                let all = source.bytes();
                let part = offset.checked_add(bytes).and_then(|end| all.get(*offset..end));
                let part = part.ok_or_else(|| fail(format!("s{i} lies outside of {:?}", source.name())))?;
                part.into()
            }
            Storage::Temp(Some(at)) if p.arena.is_some() => {
                let at = dim(at).map_err(fail)?;
                let part = arena.part(at, bytes);
                part.ok_or_else(|| fail(format!("s{i} lies at {at}, outside of an arena of {arena_bytes} bytes")))?
            }
            _ => memory[i],
        };
    }
    for i in 0..memory.len() {
        memory[i] = memory[p.root(SlotId(i as u32)).0 as usize];
    }
    let m = Machine {
        p,
        symbols: &symbols,
        memory: &memory,
    };
    for (steps, what) in [(&p.init, "initial step"), (&p.steps, "step")] {
        for (i, s) in steps.iter().enumerate() {
            m.step(s).map_err(|e| Fault::new(&p.name, format!("{what} {i}"), e))?;
        }
    }
    let outputs = p.outputs.iter().map(|(_, s)| m.tensor(*s));
    outputs.collect::<Result<_, String>>().map_err(fail)
}

struct Machine<'a, K> {
    p: &'a Program<K>,
    symbols: &'a dyn Fn(&str) -> Option<i64>,
    memory: &'a [BufferData<'a>],
}

impl<K: Callable> Machine<'_, K> {
    fn at(&self, s: SlotId) -> BufferData<'_> {
        self.memory[s.0 as usize]
    }

    fn step(&self, s: &Step) -> Result<(), String> {
        match s {
            Step::Call {
                kernel, args, checks, ..
            } => {
                let memory: Vec<BufferData> = args.iter().map(|a| self.at(*a)).collect();
                let result = self.p.kernels[*kernel as usize].run(self.symbols, &memory);
                result.map_err(|e| match e.check.and_then(|n| checks.get(n as usize)) {
                    Some(node) => format!("node `{node}`: {e}"),
                    None => e.to_string(),
                })
            }
            Step::Copy { from, to, rows: None } => self.at(*to).copy_from(&self.at(*from).to_vec()),
            Step::Copy {
                from,
                to,
                rows: Some(r),
            } => {
                let size = |d: &Dim| {
                    let n = d.eval(self.symbols).and_then(|n| usize::try_from(n).ok());
                    n.ok_or_else(|| format!("the dim `{d}` has no size"))
                };
                let (count, bytes, start, stride) =
                    (size(&r.count)?, size(&r.bytes)?, size(&r.start)?, size(&r.stride)?);
                let data = self.at(*from).to_vec();
                for i in 0..count {
                    let (row, place) = (
                        data.get(i * bytes..(i + 1) * bytes),
                        self.at(*to).part(start + i * stride, bytes),
                    );
                    let (Some(row), Some(place)) = (row, place) else {
                        return Err(format!("row {i} of a copy from {from} to {to} lies outside of them"));
                    };
                    place.copy_from(row)?;
                }
                Ok(())
            }
            Step::Host {
                op,
                inputs,
                outputs,
                origin,
            } => {
                let fail = |e: String| format!("node `{origin}`: {}: {e}", op.name());
                let args = inputs.iter().map(|s| self.tensor(*s)).collect::<Result<Vec<_>, _>>()?;
                let results = op.concrete(self.symbols).and_then(|op| op.eval(&args)).map_err(fail)?;
                for (s, t) in outputs.iter().zip(results) {
                    self.at(*s).copy_from(t.bytes()).map_err(fail)?;
                }
                Ok(())
            }
        }
    }

    /// A copy of a slot's contents.
    fn tensor(&self, s: SlotId) -> Result<Tensor, String> {
        let ty = &self.p.slot(s).ty;
        let shape: Option<Vec<usize>> = ty
            .shape
            .iter()
            .map(|d| d.eval(self.symbols).and_then(|n| usize::try_from(n).ok()))
            .collect();
        let shape = shape.ok_or_else(|| format!("the type {ty} of {s} has no value"))?;
        Tensor::new(ty.dtype, shape, self.at(s).to_vec())
    }
}
