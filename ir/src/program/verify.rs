//! The verifier of programs:
//!
//! - dims use declared symbols, a `let` those before it; inputs, outputs and the slots that stand for them agree; an alias leads to memory of its
//!   own size; only what kernels make is in panels;
//! - kernels are valid and their names unique; a call's arguments have the dtypes and sizes (for structured kernels, the
//!   types) of the parameters;
//! - a step reads only what earlier steps wrote, inputs and constants, and writes only temporaries and outputs; the
//!   initial steps read weights, and read and write computed constants;
//! - every output and every computed constant is written, unless it has no elements;
//! - once planned, every temporary in use has a place in the arena, and two that live at the same time do not overlap (where
//!   offsets and sizes are known integers).

use super::{Callable, Let, Life, Program, SlotId, Step, Storage};
use crate::{Dim, Symbol, Type};
use rustc_hash::FxHashSet;

type Check = Result<(), String>;

fn ensure(ok: bool, message: impl FnOnce() -> String) -> Check {
    if ok { Ok(()) } else { Err(message()) }
}

/// The symbols that are known at a place.
struct Scope(FxHashSet<Symbol>);

impl Scope {
    /// Checks that a dim uses known symbols only, and that its constants fit in 64 bits.
    fn dim(&self, d: &Dim) -> Check {
        ensure(!d.is_too_large(), || "a size or an offset is beyond 64 bits".into())?;
        let mut unknown = None;
        d.for_each_symbol(&mut |s| {
            if !self.0.contains(s) {
                unknown = Some(s.clone());
            }
        });
        unknown.map_or(Ok(()), |s| Err(format!("the symbol `{s}` is not declared")))
    }

    /// Checks the value of a name, and makes it known.
    fn bind(&mut self, l: &Let) -> Check {
        let what = |e| format!("`{l}`: {e}");
        self.dim(&l.value).map_err(what)?;
        ensure(l.value.as_const().is_none_or(|n| n >= 0), || {
            what("it is negative".into())
        })?;
        ensure(self.0.insert(l.symbol.clone()), || {
            what("the symbol is known already".into())
        })
    }
}

impl<K: Callable> Program<K> {
    /// Checks the invariants of the level.
    ///
    /// # Errors
    /// The first violation, with the program's name and the step.
    pub fn verify(&self) -> Result<(), String> {
        let fail = |e: String| format!("program @{}: {e}", self.name);
        let scope = self.symbols_and_guards().map_err(fail)?;
        self.slots_and_ports(&scope).map_err(fail)?;
        self.callables(&scope).map_err(fail)?;
        let mut defined: Vec<bool> = self
            .slots
            .iter()
            .map(|s| matches!(s.storage, Storage::Weight(_)) || s.ty.is_empty())
            .collect();
        self.run_through(&self.init, true, &scope, &mut defined)?;
        for (i, s) in self.slots.iter().enumerate() {
            match s.storage {
                Storage::Input(_) => defined[i] = true,
                Storage::Computed if !defined[i] => {
                    return Err(fail(format!("no initial step computes s{i}")));
                }
                _ => {}
            }
        }
        self.run_through(&self.steps, false, &scope, &mut defined)?;
        for (name, s) in &self.outputs {
            ensure(defined[s.0 as usize], || {
                fail(format!("no step writes the output `{name}`, {s}"))
            })?;
        }
        self.plan().map_err(fail)
    }

    /// What is known before a run.
    fn symbols_and_guards(&self) -> Result<Scope, String> {
        let mut scope = Scope(FxHashSet::default());
        for s in &self.symbols {
            ensure(scope.0.insert(s.clone()), || format!("a second symbol `{s}`"))?;
        }
        for g in &self.guards {
            (scope.dim(&g.left))
                .and(scope.dim(&g.right))
                .map_err(|e| format!("guard `{}`: {e}", g.reason))?;
        }
        self.lets.iter().try_for_each(|l| scope.bind(l))?;
        Ok(scope)
    }

    fn slots_and_ports(&self, scope: &Scope) -> Check {
        let dim = |d: &Dim| scope.dim(d);
        self.arena.iter().try_for_each(dim).map_err(|e| format!("arena: {e}"))?;
        for (i, s) in self.slots.iter().enumerate() {
            let check = || {
                s.ty.shape.iter().try_for_each(dim)?;
                ensure(s.ty.shape.iter().all(|d| d.as_const().is_none_or(|n| n >= 0)), || {
                    format!("a negative extent in {}", s.ty)
                })?;
                if s.packed {
                    ensure(s.ty.rank() >= 2, || format!("panels of rank {}", s.ty.rank()))?;
                    ensure(
                        !matches!(s.storage, Storage::Input(_) | Storage::Output(_) | Storage::Weight(_)),
                        || "panels in the memory of the model or the caller".into(),
                    )?;
                }
                match &s.storage {
                    Storage::Input(k) => self.port(&self.inputs, *k, i, "input"),
                    Storage::Output(k) => self.port(&self.outputs, *k, i, "output"),
                    Storage::Temp(Some(at)) => dim(at),
                    Storage::Alias(of) => self.alias(i, *of),
                    Storage::Weight(_) => ensure(crate::dim::constants(&s.ty.shape).is_some(), || {
                        "a weight of unknown size".into()
                    }),
                    Storage::Temp(None) | Storage::Computed => Ok(()),
                }
            };
            check().map_err(|e| format!("s{i}: {e}"))?;
        }
        for (ports, what) in [(&self.inputs, "input"), (&self.outputs, "output")] {
            for (k, (name, s)) in (0u32..).zip(ports) {
                let storage = self.slots.get(s.0 as usize).map(|s| &s.storage);
                let ok = match storage {
                    Some(Storage::Input(i)) => *i == k && what == "input",
                    Some(Storage::Output(i)) => *i == k && what == "output",
                    _ => false,
                };
                ensure(ok, || format!("{s} is not {what} {k}, `{name}`"))?;
            }
        }
        Ok(())
    }

    fn port(&self, ports: &[(String, SlotId)], k: u32, slot: usize, what: &str) -> Check {
        let found = ports.get(k as usize).map(|p| p.1.0 as usize);
        ensure(found == Some(slot), || {
            format!("{what} {k} is another slot or does not exist")
        })
    }

    fn alias(&self, slot: usize, of: SlotId) -> Check {
        let mut at = of;
        for _ in 0..=self.slots.len() {
            let target = self
                .slots
                .get(at.0 as usize)
                .ok_or_else(|| format!("an alias of {at}, which does not exist"))?;
            let Storage::Alias(next) = target.storage else {
                let (found, want) = (self.slots[slot].bytes(), target.bytes());
                return ensure(found == want, || {
                    format!("an alias of {found} bytes of {at}, which has {want}")
                });
            };
            at = next;
        }
        Err("an alias of itself".into())
    }

    fn callables(&self, scope: &Scope) -> Check {
        let mut names = FxHashSet::default();
        for k in &self.kernels {
            k.verify()?;
            let name = k.name();
            ensure(names.insert(name), || format!("a second kernel @{name}"))?;
            let unknown = k.symbols().iter().find(|s| !scope.0.contains(*s));
            ensure(unknown.is_none(), || {
                format!("kernel @{name} has a symbol that the program has not: {unknown:?}")
            })?;
        }
        Ok(())
    }

    fn run_through(&self, steps: &[Step], init: bool, scope: &Scope, defined: &mut [bool]) -> Check {
        for (i, s) in steps.iter().enumerate() {
            let what = if init { "initial step" } else { "step" };
            self.check_step(s, init, scope, defined)
                .map_err(|e| format!("program @{}, {what} {i}: {e}", self.name))?;
        }
        Ok(())
    }

    fn check_step(&self, s: &Step, init: bool, scope: &Scope, defined: &mut [bool]) -> Check {
        let (mut reads, mut writes) = (vec![], vec![]);
        match s {
            Step::Call {
                kernel, args, checks, ..
            } => {
                let k = self
                    .kernels
                    .get(*kernel as usize)
                    .ok_or_else(|| format!("kernel {kernel} does not exist"))?;
                let params = k.params();
                ensure(params.len() == args.len(), || {
                    format!(
                        "{} arguments for @{}, which has {} parameters",
                        args.len(),
                        k.name(),
                        params.len()
                    )
                })?;
                let numbers = k.checks() as usize;
                ensure(checks.len() == numbers, || {
                    format!(
                        "{} nodes for the checks of @{}, which have {numbers} numbers",
                        checks.len(),
                        k.name()
                    )
                })?;
                for (i, (p, &a)) in params.iter().zip(args).enumerate() {
                    let slot = self.found(a)?;
                    ensure(p.dtype == slot.ty.dtype, || {
                        format!(
                            "{a} is {}, but parameter {i} of @{} is {}",
                            slot.ty.dtype,
                            k.name(),
                            p.dtype
                        )
                    })?;
                    let elements = slot.elements();
                    ensure(p.elements == elements, || {
                        let name = k.name();
                        format!(
                            "{a} has {elements} elements, but parameter {i} of @{name} has {}",
                            p.elements
                        )
                    })?;
                    if let Some((ty, packed)) = &p.tensor {
                        // Row-major memory is the same under every shape; panels are not.
                        ensure(*packed == slot.packed && (!packed || *ty == slot.ty), || {
                            let panels = |p: bool| if p { " in panels" } else { "" };
                            let (found, want) = (panels(slot.packed), panels(*packed));
                            format!(
                                "{a} is {}{found}, but parameter {i} of @{} is {ty}{want}",
                                slot.ty,
                                k.name()
                            )
                        })?;
                    }
                    if p.written { &mut writes } else { &mut reads }.push(a);
                }
            }
            Step::Copy { from, to, rows } => {
                let (a, b) = (self.found(*from)?.bytes(), self.found(*to)?.bytes());
                match rows {
                    None => ensure(a == b, || {
                        format!("a copy of {a} bytes from {from} to {b} bytes of {to}")
                    })?,
                    Some(r) => {
                        for d in [&r.count, &r.bytes, &r.start, &r.stride] {
                            scope.dim(d)?;
                        }
                        let all = &r.count * &r.bytes;
                        ensure(a == all, || {
                            format!("a copy of {all} bytes in rows from {from}, which has {a}")
                        })?;
                        let end = &(&r.start + &(&(&r.count - 1) * &r.stride)) + &r.bytes;
                        let known = |d: &Dim| d.as_const().is_none_or(|n| n >= 0);
                        ensure(
                            known(&r.start) && known(&(&r.stride - &r.bytes)) && known(&(&b - &end)),
                            || format!("rows up to byte {end}, {} apart, in {b} bytes of {to}", r.stride),
                        )?;
                    }
                }
                (reads, writes) = (vec![*from], vec![*to]);
            }
            Step::Host {
                op, inputs, outputs, ..
            } => {
                for &s in inputs.iter().chain(outputs) {
                    ensure(!self.found(s)?.packed, || {
                        format!("{s} is in panels, which {} does not know", op.name())
                    })?;
                }
                let types: Vec<Type> = inputs.iter().map(|s| self.slot(*s).ty.clone()).collect();
                let want = op.infer(&types).map_err(|e| format!("{}: {e}", op.name()))?;
                let found: Vec<Type> = outputs.iter().map(|s| self.slot(*s).ty.clone()).collect();
                ensure(found == want, || {
                    format!("{} gives {want:?}, the slots are {found:?}", op.name())
                })?;
                (reads, writes) = (inputs.clone(), outputs.clone());
            }
        }
        for s in reads {
            let root = self.root(s);
            ensure(defined[root.0 as usize], || format!("{s} is read before it is written"))?;
        }
        for s in writes {
            let root = self.root(s);
            let ok = match self.slot(root).storage {
                Storage::Temp(_) | Storage::Output(_) => !init,
                Storage::Computed => init,
                _ => false,
            };
            ensure(ok, || format!("{s} is written, which this step must not do"))?;
            defined[root.0 as usize] = true;
        }
        Ok(())
    }

    fn found(&self, s: SlotId) -> Result<&super::Slot, String> {
        self.slots
            .get(s.0 as usize)
            .ok_or_else(|| format!("{s} does not exist"))
    }

    fn plan(&self) -> Check {
        let Some(arena) = &self.arena else { return Ok(()) };
        let mut placed: Vec<(usize, Life, i64, i64)> = vec![];
        for (i, (s, life)) in self.slots.iter().zip(self.lives()).enumerate() {
            let (Storage::Temp(at), Some(life)) = (&s.storage, life) else {
                continue;
            };
            let at = at.as_ref().ok_or_else(|| format!("s{i} has no place in the arena"))?;
            let (Some(start), Some(bytes)) = (at.as_const(), s.bytes().as_const()) else {
                continue;
            };
            let end = start.saturating_add(bytes);
            ensure(start >= 0 && arena.as_const().is_none_or(|n| end <= n), || {
                format!("s{i} lies at {start}..{end} of an arena of {arena} bytes")
            })?;
            let clash = placed
                .iter()
                .find(|(_, l, a, b)| l.0 <= life.1 && life.0 <= l.1 && *a < end && start < *b);
            if let Some((j, ..)) = clash {
                return Err(format!("s{j} and s{i} live at the same time and overlap in the arena"));
            }
            placed.push((i, life, start, end));
        }
        Ok(())
    }
}
