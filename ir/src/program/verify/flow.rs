//! The verifier of steps: what is known, has memory and is written where a step uses it.

use super::{Check, Scope, ensure};
use crate::program::{Callable, Program, Slot, SlotId, Step, Storage};
use crate::{Dim, Symbol, Type};
use rustc_hash::{FxHashMap, FxHashSet};

/// The names that steps give, and how large their values can be.
type Late = FxHashMap<Symbol, Option<Dim>>;

/// True when a dim is shown to be no larger than another, whatever the run tells.
fn at_most(a: &Dim, b: &Dim, late: &Late) -> bool {
    a.at_most(b) || a.upper_bound(late).is_some_and(|a| a.at_most(b))
}

/// The smaller and the larger of two dims, where that is known.
fn sorted<'d>(a: &'d Dim, b: &'d Dim) -> Option<(&'d Dim, &'d Dim)> {
    if a.at_most(b) {
        Some((a, b))
    } else {
        b.at_most(a).then_some((b, a))
    }
}

/// Which bytes of a slot are written.
#[derive(Clone, PartialEq)]
enum Written {
    All,
    /// From byte to byte; those that touch are one, where their ends compare.
    Parts(Vec<(Dim, Dim)>),
}

impl Written {
    fn covers(&self, (start, end): &(Dim, Dim), late: &Late) -> bool {
        match self {
            Written::All => true,
            Written::Parts(parts) => parts.iter().any(|(a, b)| a.at_most(start) && at_most(end, b, late)),
        }
    }

    fn add(&mut self, (mut start, mut end): (Dim, Dim), bytes: &Dim) {
        let Written::Parts(parts) = self else { return };
        // Two ranges that touch or overlap are one, where it is known which ends come first.
        let union = |(a, b): &(Dim, Dim), start: &Dim, end: &Dim| {
            let (first, _) = sorted(a, start)?;
            let (_, last) = sorted(b, end)?;
            let touch = a.at_most(end) && start.at_most(b);
            touch.then(|| (first.clone(), last.clone()))
        };
        while let Some((i, whole)) = (0..).zip(&*parts).find_map(|(i, p)| Some((i, union(p, &start, &end)?))) {
            parts.swap_remove(i);
            (start, end) = whole;
        }
        if start.is(0) && end == *bytes {
            *self = Written::All;
        } else {
            parts.push((start, end));
        }
    }

    /// What is written in both cases.
    fn and(&self, o: &Written, late: &Late) -> Written {
        match (self, o) {
            (Written::All, w) | (w, Written::All) => w.clone(),
            (Written::Parts(a), b) => Written::Parts(a.iter().filter(|p| b.covers(p, late)).cloned().collect()),
        }
    }
}

/// What holds at a place of the program.
#[derive(Clone)]
struct State {
    scope: Scope,
    written: Vec<Written>,
    /// False for what an `alloc` has yet to give memory to.
    has_memory: Vec<bool>,
    /// True for inputs whose memory may be that of an output that was written.
    taken: Vec<bool>,
}

impl State {
    /// What holds after one of two blocks, of which this is what held before both.
    fn join(&mut self, a: &State, b: &State, late: &Late) {
        self.written = (a.written.iter().zip(&b.written))
            .map(|(a, b)| a.and(b, late))
            .collect();
        self.has_memory = a.has_memory.iter().zip(&b.has_memory).map(|(a, b)| *a && *b).collect();
        self.taken = a.taken.iter().zip(&b.taken).map(|(a, b)| *a || *b).collect();
    }
}

/// Checks all steps of a valid program's head.
pub(super) fn check<K: Callable>(p: &Program<K>, scope: &Scope, run_time: &FxHashSet<Symbol>) -> Check {
    let fail = |e: String| format!("program @{}: {e}", p.name);
    let constant = |s: &Slot| matches!(s.storage, Storage::Weight(_)) || s.ty.is_empty();
    let nothing = |s: &Slot| {
        if constant(s) {
            Written::All
        } else {
            Written::Parts(vec![])
        }
    };
    let late = |s: &Slot| matches!(s.storage, Storage::Heap) || uses(&s.ty.shape, run_time);
    let mut flow = Flow {
        p,
        init: true,
        run_time,
        late: p.bounds(),
        number: 0,
        depth: 0,
        outputs: FxHashSet::default(),
        state: State {
            scope: scope.clone(),
            written: p.slots.iter().map(nothing).collect(),
            has_memory: p.slots.iter().map(|s| !late(s)).collect(),
            taken: vec![false; p.slots.len()],
        },
    };
    flow.block(&p.init)?;
    for (i, s) in p.slots.iter().enumerate() {
        match s.storage {
            Storage::Input(_) => flow.state.written[i] = Written::All,
            Storage::Computed if flow.state.written[i] != Written::All => {
                return Err(fail(format!("no initial step computes s{i}")));
            }
            _ => {}
        }
    }
    (flow.init, flow.number) = (false, 0);
    flow.block(&p.steps)?;
    for (name, s) in &p.outputs {
        let at = s.0 as usize;
        ensure(
            flow.state.has_memory[at] && flow.state.written[at] == Written::All,
            || fail(format!("no step writes the output `{name}`, {s}")),
        )?;
    }
    Ok(())
}

fn uses(dims: &[Dim], symbols: &FxHashSet<Symbol>) -> bool {
    let mut found = false;
    dims.iter()
        .for_each(|d| d.for_each_symbol(&mut |s| found |= symbols.contains(s)));
    found
}

struct Flow<'p, K> {
    p: &'p Program<K>,
    init: bool,
    run_time: &'p FxHashSet<Symbol>,
    late: Late,
    /// The number of the step, in the order of the text.
    number: usize,
    /// How many blocks are open.
    depth: usize,
    /// Outputs that were given memory.
    outputs: FxHashSet<SlotId>,
    state: State,
}

impl<'p, K: Callable> Flow<'p, K> {
    fn block(&mut self, steps: &[Step]) -> Check {
        for s in steps {
            let (i, what) = (self.number, if self.init { "initial step" } else { "step" });
            self.number += 1;
            self.step(s)
                .map_err(|e| format!("program @{}, {what} {i}: {e}", self.p.name))?;
            match s {
                Step::If { then, other, .. } => {
                    let before = self.state.clone();
                    self.inner(then)?;
                    let after = std::mem::replace(&mut self.state, before.clone());
                    self.inner(other)?;
                    let other = std::mem::replace(&mut self.state, before);
                    self.state.join(&after, &other, &self.late);
                }
                Step::While { body, .. } => {
                    let number = self.number;
                    loop {
                        let before = self.state.clone();
                        self.number = number;
                        self.inner(body)?;
                        let after = std::mem::replace(&mut self.state, before.clone());
                        self.state.join(&before, &after, &self.late);
                        // What an iteration takes away is missing in the next one.
                        let same = |s: &State| {
                            (&s.written, &s.has_memory, &s.taken)
                                == (&before.written, &before.has_memory, &before.taken)
                        };
                        if same(&self.state) {
                            break;
                        }
                    }
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn inner(&mut self, steps: &[Step]) -> Check {
        self.depth += 1;
        let done = self.block(steps);
        self.depth -= 1;
        done
    }

    fn step(&mut self, step: &Step) -> Check {
        if self.init {
            ensure(
                matches!(step, Step::Call { .. } | Step::Copy { .. } | Step::Host { .. }),
                || "the compiler runs calls and copies only".into(),
            )?;
        }
        let mut unknown = Ok(());
        step.for_each_dim(&mut |d| {
            if unknown.is_ok() {
                unknown = self.state.scope.dim(d);
            }
        });
        unknown?;
        let (mut reads, mut writes) = (vec![], vec![]);
        match step {
            Step::Call {
                kernel, args, checks, ..
            } => self.call(*kernel, args, checks, &mut reads, &mut writes)?,
            Step::Copy { from, to, rows } => {
                let (a, b) = (self.usable(*from)?.bytes(), self.usable(*to)?.bytes());
                match rows {
                    None => ensure(a == b, || {
                        format!("a copy of {a} bytes from {from} to {b} bytes of {to}")
                    })?,
                    Some(r) => {
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
                    let layout = &self.usable(s)?.layout;
                    ensure(layout.is_row_major(), || {
                        format!("{s} has the layout {layout}, which {} does not know", op.name())
                    })?;
                }
                let types = |slots: &[SlotId]| slots.iter().map(|s| self.p.slot(*s).ty.clone()).collect::<Vec<Type>>();
                let want = op.infer(&types(inputs)).map_err(|e| format!("{}: {e}", op.name()))?;
                let found = types(outputs);
                ensure(found == want, || {
                    format!("{} gives {want:?}, the slots are {found:?}", op.name())
                })?;
                (reads, writes) = (inputs.clone(), outputs.clone());
            }
            Step::Let(l) => {
                ensure(l.value.as_const().is_none_or(|n| n >= 0), || {
                    format!("`{l}`: it is negative")
                })?;
                self.state.scope.0.insert(l.symbol.clone());
            }
            Step::Read { symbol, from, .. } => {
                let slot = self.usable(*from)?;
                let one = slot.ty.len().is(1) && slot.layout.is_row_major() && !slot.ty.dtype.is_float();
                ensure(one, || format!("{from} is {}, expected one integer or bool", slot.ty))?;
                reads = vec![*from];
                self.state.scope.0.insert(symbol.clone());
            }
            Step::Alloc { slot, .. } => self.alloc(*slot)?,
            Step::If { cond, .. } => {
                self.condition(*cond)?;
                reads = vec![*cond];
            }
            Step::While { cond, body } => {
                self.condition(*cond)?;
                let mut written = false;
                for s in super::nested(body) {
                    // The block itself is looked at behind this.
                    for w in self.p.accesses(s).1 {
                        ensure((w.0 as usize) < self.p.slots.len(), || format!("{w} does not exist"))?;
                        written |= self.p.root(w) == self.p.root(*cond);
                    }
                }
                ensure(written, || {
                    format!("{cond} is the condition of a loop that never writes it")
                })?;
                reads = vec![*cond];
            }
            Step::Check { .. } => {}
        }
        for &s in &reads {
            let (root, bytes) = self.range(s);
            ensure(!self.state.taken[root.0 as usize], || {
                format!("{s} is read when the output that may be its memory was written")
            })?;
            ensure(self.state.written[root.0 as usize].covers(&bytes, &self.late), || {
                format!("{s} is read before it is written")
            })?;
        }
        self.apart(step, &reads, &writes)?;
        for s in writes {
            let (root, bytes) = self.range(s);
            let ok = match self.p.slot(root).storage {
                Storage::Temp(_) | Storage::Output(_) | Storage::Heap => !self.init,
                Storage::Computed => self.init,
                _ => false,
            };
            ensure(ok, || format!("{s} is written, which this step must not do"))?;
            if let Some(input) = self.p.aliased(root)
                && !self.p.copies_to_itself(step)
            {
                self.state.taken[input.0 as usize] = true;
            }
            self.state.written[root.0 as usize].add(bytes, &self.p.slot(root).bytes());
        }
        Ok(())
    }

    fn call(
        &self,
        kernel: u32,
        args: &[SlotId],
        checks: &[std::sync::Arc<str>],
        reads: &mut Vec<SlotId>,
        writes: &mut Vec<SlotId>,
    ) -> Check {
        let k = (self.p.kernels.get(kernel as usize)).ok_or_else(|| format!("kernel {kernel} does not exist"))?;
        let (params, name) = (k.params(), k.name());
        ensure(params.len() == args.len(), || {
            let (found, want) = (args.len(), params.len());
            format!("{found} arguments for @{name}, which has {want} parameters")
        })?;
        let numbers = k.checks() as usize;
        ensure(checks.len() == numbers, || {
            let found = checks.len();
            format!("{found} nodes for the checks of @{name}, which have {numbers} numbers")
        })?;
        let unknown = k.symbols().iter().find(|s| !self.state.scope.0.contains(*s));
        ensure(unknown.is_none(), || {
            format!("kernel @{name} has a symbol that is not known here: {unknown:?}")
        })?;
        for (i, (p, &a)) in params.iter().zip(args).enumerate() {
            let slot = self.usable(a)?;
            ensure(p.dtype == slot.ty.dtype, || {
                format!("{a} is {}, but parameter {i} of @{name} is {}", slot.ty.dtype, p.dtype)
            })?;
            let elements = slot.elements();
            ensure(p.elements == elements, || {
                format!(
                    "{a} has {elements} elements, but parameter {i} of @{name} has {}",
                    p.elements
                )
            })?;
            if let Some((ty, layout)) = &p.tensor {
                // Row-major memory is the same under every shape; other memory is not.
                ensure(
                    *layout == slot.layout && (layout.is_row_major() || *ty == slot.ty),
                    || {
                        let (found, want) = (slot.layout.suffix(), layout.suffix());
                        format!("{a} is {}{found}, but parameter {i} of @{name} is {ty}{want}", slot.ty)
                    },
                )?;
            }
            if p.written { &mut *writes } else { &mut *reads }.push(a);
        }
        Ok(())
    }

    fn alloc(&mut self, s: SlotId) -> Check {
        let slot = self.declared(s)?;
        let late = matches!(slot.storage, Storage::Heap) || uses(&slot.ty.shape, self.run_time);
        let kind = matches!(slot.storage, Storage::Temp(_) | Storage::Heap | Storage::Output(_));
        ensure(late && kind, || {
            format!("{s} has its memory from the start, or is a view")
        })?;
        if let Storage::Output(_) = slot.storage {
            ensure(self.depth == 0, || format!("the output {s} is given memory in a block"))?;
            ensure(self.outputs.insert(s), || {
                format!("the output {s} is given memory twice")
            })?;
        }
        let at = s.0 as usize;
        self.state.has_memory[at] = true;
        self.state.written[at] = if slot.ty.is_empty() {
            Written::All
        } else {
            Written::Parts(vec![])
        };
        Ok(())
    }

    fn condition(&self, s: SlotId) -> Check {
        let ty = &self.usable(s)?.ty;
        let one = ty.dtype == crate::DType::Bool && ty.len().is(1);
        ensure(one, || format!("{s} is {ty}, expected one bool"))
    }

    /// Slots that a step writes share no bytes with its others, but where a kernel may write over an operand.
    fn apart(&self, step: &Step, reads: &[SlotId], writes: &[SlotId]) -> Check {
        for (i, &w) in writes.iter().enumerate() {
            let (root, (start, end)) = self.range(w);
            for &o in reads.iter().chain(&writes[..i]) {
                let (mut other, (a, b)) = self.range(o);
                if self.p.aliased(root) == Some(other) {
                    if self.p.copies_to_itself(step) {
                        continue;
                    }
                    other = root;
                }
                let apart = root != other || at_most(&end, &a, &self.late) || at_most(&b, &start, &self.late);
                let over = || (&a, &b) == (&start, &end) && self.overwrites(step, o, w);
                ensure(apart || over(), || {
                    format!("{w} is written and may share memory with {o}")
                })?;
            }
        }
        Ok(())
    }

    /// True for a call of a kernel that may read one slot in the memory of another that it writes.
    fn overwrites(&self, step: &Step, read: SlotId, written: SlotId) -> bool {
        let Step::Call { kernel, args, .. } = step else {
            return false;
        };
        let Some(k) = self.p.kernels.get(*kernel as usize) else {
            return false;
        };
        let places = |s: SlotId| (0..args.len()).filter(move |&i| args[i] == s);
        places(read).all(|r| places(written).all(|w| k.overwrites(r, w)))
    }

    /// The slot that owns the memory, and which bytes of it these are.
    fn range(&self, s: SlotId) -> (SlotId, (Dim, Dim)) {
        let (root, start) = self.p.place(s);
        let end = &start + &self.p.slot(s).bytes();
        (root, (start, end))
    }

    /// A slot whose size is known here.
    fn declared(&self, s: SlotId) -> Result<&'p Slot, String> {
        let slot = (self.p.slots.get(s.0 as usize)).ok_or_else(|| format!("{s} does not exist"))?;
        let known = |d: &Dim| self.state.scope.dim(d).map_err(|e| format!("{s}: {e}"));
        slot.ty.shape.iter().try_for_each(known)?;
        Ok(slot)
    }

    /// A slot that has memory here.
    fn usable(&self, s: SlotId) -> Result<&'p Slot, String> {
        let slot = self.declared(s)?;
        let (root, start) = self.p.place(s);
        self.state.scope.dim(&start).map_err(|e| format!("{s}: {e}"))?;
        ensure(self.state.has_memory[root.0 as usize], || {
            format!("{s} is used before it has memory")
        })?;
        Ok(slot)
    }
}
