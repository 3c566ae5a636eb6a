//! The verifier of programs:
//!
//! - dims use declared symbols, a `let` those before it; inputs, outputs and the slots that stand for them agree; an alias leads to memory of its
//!   own size; only what kernels make is in panels;
//! - kernels are valid and their names unique; a call's arguments have the dtypes and sizes (for structured kernels, the
//!   types) of the parameters;
//! - a step reads only what earlier steps wrote, inputs and constants, and writes only temporaries and outputs; the
//!   initial steps read weights, and read and write computed constants;
//! - an output that may be the memory of an input has its type; while it is written no step reads the input, but a kernel that
//!   may write over it, and the copy of it to the output; afterwards nothing does;
//! - every output and every computed constant is written, unless it has no elements;
//! - once planned, every temporary in use has a place in the arena, and two that live at the same time do not overlap (where
//!   offsets and sizes are known integers).

mod flow;
#[cfg(test)]
mod tests;

use super::{Callable, Let, Life, Program, SlotId, Step, Storage, nested};
use crate::{Dim, Symbol};
use rustc_hash::{FxHashMap, FxHashSet};

type Check = Result<(), String>;

fn ensure(ok: bool, message: impl FnOnce() -> String) -> Check {
    if ok { Ok(()) } else { Err(message()) }
}

/// The symbols that are known at a place.
#[derive(Clone)]
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
        let run_time: FxHashSet<Symbol> = nested(&self.steps)
            .into_iter()
            .filter_map(Step::name)
            .cloned()
            .collect();
        let all = self.all_names(&scope).map_err(fail)?;
        self.slots_and_ports(&scope, &all).map_err(fail)?;
        self.callables(&all).map_err(fail)?;
        flow::check(self, &scope, &run_time)?;
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

    /// What is known before a run, and what steps make known, each by one step.
    fn all_names(&self, scope: &Scope) -> Result<Scope, String> {
        let mut all = scope.clone();
        for s in nested(&self.steps).into_iter().filter_map(Step::name) {
            ensure(all.0.insert(s.clone()), || format!("a second symbol `{s}`"))?;
        }
        Ok(all)
    }

    fn slots_and_ports(&self, scope: &Scope, all: &Scope) -> Check {
        let dim = |d: &Dim| scope.dim(d);
        let late = self.bounds();
        self.arena.iter().try_for_each(dim).map_err(|e| format!("arena: {e}"))?;
        for (i, s) in self.slots.iter().enumerate() {
            let check = || {
                // What the caller gives has its size before the run, and so has a constant.
                let known = match s.storage {
                    Storage::Input(_) | Storage::Weight(_) | Storage::Computed => scope,
                    _ => all,
                };
                s.ty.shape.iter().try_for_each(|d| known.dim(d))?;
                ensure(s.ty.shape.iter().all(|d| d.as_const().is_none_or(|n| n >= 0)), || {
                    format!("a negative extent in {}", s.ty)
                })?;
                s.layout.check(s.ty.rank())?;
                let given = matches!(s.storage, Storage::Input(_) | Storage::Output(_) | Storage::Weight(_));
                ensure(!given || s.layout.is_row_major(), || {
                    format!("the layout {} in the memory of the model or the caller", s.layout)
                })?;
                match &s.storage {
                    Storage::Input(k) => self.port(&self.inputs, *k, i, "input"),
                    Storage::Output(k) => self.port(&self.outputs, *k, i, "output"),
                    Storage::Temp(Some(at)) => dim(at),
                    Storage::View { of, offset } => all.dim(offset).and_then(|()| self.view(i, *of, &late)),
                    Storage::Weight(_) => ensure(crate::dim::constants(&s.ty.shape).is_some(), || {
                        "a weight of unknown size".into()
                    }),
                    Storage::Temp(None) | Storage::Computed | Storage::Heap => Ok(()),
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
        for (i, a) in self.aliases.iter().enumerate() {
            let port = |ports: &[(String, SlotId)], k: u32| ports.get(k as usize).map(|p| self.slot(p.1));
            let (Some(from), Some(to)) = (port(&self.inputs, a.input), port(&self.outputs, a.output)) else {
                return Err(format!(
                    "no input {} or no output {} to share memory",
                    a.input, a.output
                ));
            };
            let what = || format!("output {} and input {} in one memory", a.output, a.input);
            ensure(from.ty == to.ty, || format!("{}: {} and {}", what(), to.ty, from.ty))?;
            let before = &self.aliases[..i];
            let twice = before.iter().any(|b| b.input == a.input || b.output == a.output);
            ensure(!twice, || format!("{}: one of them shares with another", what()))?;
        }
        Ok(())
    }

    fn port(&self, ports: &[(String, SlotId)], k: u32, slot: usize, what: &str) -> Check {
        let found = ports.get(k as usize).map(|p| p.1.0 as usize);
        ensure(found == Some(slot), || {
            format!("{what} {k} is another slot or does not exist")
        })
    }

    /// A view leads to memory that it lies in, whatever the symbols are.
    fn view(&self, slot: usize, of: SlotId, late: &FxHashMap<Symbol, Option<Dim>>) -> Check {
        let mut at = of;
        for _ in 0..=self.slots.len() {
            let target = self
                .slots
                .get(at.0 as usize)
                .ok_or_else(|| format!("a view of {at}, which does not exist"))?;
            let Storage::View { of: next, .. } = target.storage else {
                let (_, start) = self.place(SlotId(slot as u32));
                let (bytes, want) = (self.slots[slot].bytes(), target.bytes());
                let end = &start + &bytes;
                let inside = |d: &Dim| d.at_most(&want);
                let fits = inside(&end) || end.upper_bound(late).is_some_and(|d| inside(&d));
                ensure(fits && start.is_at_least(0), || {
                    format!("a view of {bytes} bytes at {start} of {at}, which has {want}")
                })?;
                let (view, is_whole) = (&self.slots[slot], start.is(0));
                let as_it_lies = target.layout.is_row_major()
                    || target.layout == view.layout
                    || is_whole && target.layout.places_as(&target.ty.shape, &view.layout, &view.ty.shape);
                return ensure(as_it_lies, || {
                    format!("a view of {at}, which has the layout {}", target.layout)
                });
            };
            at = next;
        }
        Err("a view of itself".into())
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
