//! The verifier of structured kernels.
//!
//! What cannot be seen without running (that write maps are injective, that every point of every output is written, that
//! a stage reads back only what its own outer point wrote) the interpreter checks; here a write map must use every
//! parallel variable that has more than one point.

use super::{Combine, IterKind, Kernel, Part, Place, Read, Role, Stage};
use crate::index::{Bound, Ix, Reg, Var};
use crate::loops::verify::{MAX_CHECKS, check_dim, check_ix, fits};
use crate::scalar::Body;
use crate::{DType, Dim};

type Check = Result<(), String>;

fn ensure(ok: bool, message: impl FnOnce() -> String) -> Check {
    if ok { Ok(()) } else { Err(message()) }
}

impl Kernel {
    /// Checks the invariants of the level.
    ///
    /// # Errors
    /// The first violation, with the kernel's name and the stage's position.
    pub fn verify(&self) -> Result<(), String> {
        self.declarations().map_err(|e| format!("kernel @{}: {e}", self.name))?;
        let mut written = Written {
            operands: self.operands.iter().map(|o| o.role == Role::In).collect(),
            locals: vec![false; self.locals.len()],
        };
        let mut number = 0;
        self.parts(&self.parts, &mut vec![], &mut written, &mut number)?;
        let writes = |i: usize| {
            let place = Place::Operand(i as u32);
            self.stages().iter().any(|s| s.writes.iter().any(|w| w.0 == place))
        };
        match (0..self.operands.len()).find(|&i| self.operands[i].role != Role::In && !writes(i)) {
            Some(i) => Err(format!("kernel @{}: no stage writes o{i}", self.name)),
            None => Ok(()),
        }
    }

    /// Checks parts inside loops of these extents; `number` counts stages.
    fn parts<'k>(
        &'k self,
        parts: &'k [Part],
        around: &mut Vec<&'k Dim>,
        written: &mut Written,
        number: &mut usize,
    ) -> Check {
        for p in parts {
            match p {
                Part::Stage(s) => {
                    let own = s.dims.iter().map(|d| &d.extent);
                    let c = Checker {
                        k: self,
                        s,
                        loops: around.len(),
                        dims: self.outer.iter().chain(around.iter().copied()).chain(own).collect(),
                    };
                    c.stage(written)
                        .map_err(|e| format!("kernel @{}, stage {number}: {e}", self.name))?;
                    *number += 1;
                }
                Part::Loop(l) => {
                    let before = written.clone();
                    let vars = self.outer.len() + around.len() + 1;
                    l.needed
                        .iter()
                        .try_for_each(|b| self.needed(b, vars))
                        .map_err(|e| format!("kernel @{}, loop in front of stage {number}: {e}", self.name))?;
                    around.push(&l.extent);
                    self.parts(&l.body, around, written, number)?;
                    around.pop();
                    if !l.needed.is_empty() || l.extent.as_const().is_none_or(|n| n < 1) {
                        // It may run no iteration.
                        *written = before;
                    }
                }
            }
        }
        Ok(())
    }

    /// A bound of the iterations of a loop, over the first `vars` variables.
    fn needed(&self, b: &Bound, vars: usize) -> Check {
        let var = |v: Var| ensure((v.0 as usize) < vars, || format!("{v} is no variable around the loop"));
        check_dim(&b.extent, &self.symbols)?;
        check_ix(&b.index, &self.symbols, &var, &|r| {
            Err(format!("{r} in a bound of a loop"))
        })
    }

    fn declarations(&self) -> Check {
        let extent = |d: &Dim| {
            check_dim(d, &self.symbols)?;
            ensure(d.as_const().is_none_or(|n| n >= 0), || format!("an extent of {d}"))
        };
        for (i, o) in self.operands.iter().enumerate() {
            o.ty.shape
                .iter()
                .try_for_each(extent)
                .map_err(|e| format!("o{i}: {e}"))?;
            o.layout.check(o.ty.rank()).map_err(|e| format!("o{i}: {e}"))?;
        }
        for (i, l) in self.locals.iter().enumerate() {
            l.shape.iter().try_for_each(extent).map_err(|e| format!("l{i}: {e}"))?;
        }
        self.outer
            .iter()
            .try_for_each(extent)
            .map_err(|e| format!("outer: {e}"))?;
        for (i, (s, loops)) in self.placed().into_iter().enumerate() {
            loops
                .into_iter()
                .chain(s.dims.iter().map(|d| &d.extent))
                .try_for_each(extent)
                .map_err(|e| format!("stage {i}: {e}"))?;
        }
        Ok(())
    }
}

/// What has a value when a stage starts.
#[derive(Clone)]
struct Written {
    operands: Vec<bool>,
    locals: Vec<bool>,
}

impl Written {
    fn slot(&mut self, p: Place) -> &mut bool {
        match p {
            Place::Operand(i) => &mut self.operands[i as usize],
            Place::Local(i) => &mut self.locals[i as usize],
        }
    }
}

struct Checker<'k> {
    k: &'k Kernel,
    s: &'k Stage,
    /// The number of loops around the stage.
    loops: usize,
    /// Extents of all variables.
    dims: Vec<&'k Dim>,
}

impl Checker<'_> {
    fn stage(&self, written: &mut Written) -> Check {
        let s = self.s;
        self.guard(&s.guard).map_err(|e| format!("where: {e}"))?;
        let mut dtypes = vec![];
        for (i, r) in s.reads.iter().enumerate() {
            let d = self.read(r, &dtypes, written).map_err(|e| format!("read {i}: {e}"))?;
            dtypes.push(d);
        }
        for (i, c) in s.checks.iter().enumerate() {
            ensure(c.number < MAX_CHECKS, || {
                format!("check {i} has the number {}, expected less than {MAX_CHECKS}", c.number)
            })?;
            self.bounds(&c.bounds, &dtypes)
                .and_then(|()| self.bounds(&c.guard, &dtypes))
                .map_err(|e| format!("check {i}: {e}"))?;
        }
        s.body.verify().map_err(|e| format!("body: {e}"))?;
        ensure(s.body.inputs == dtypes, || {
            format!("the body takes {:?}, the reads are {dtypes:?}", s.body.inputs)
        })?;
        let reduces = s.dims.iter().any(|d| d.kind == IterKind::Reduction);
        ensure(!s.scan || reduces, || "a scan without reduction dimensions".into())?;
        ensure(!(s.scan && s.scatter), || "both a scan and a scatter".into())?;
        let results = match &s.combine {
            None if reduces => return Err("reduction dimensions without a combiner".into()),
            Some(_) if !reduces => return Err("a combiner without reduction dimensions".into()),
            None => s.body.output_dtypes(),
            Some(c) => combine(c, &s.body.output_dtypes())?,
        };
        ensure(s.writes.len() == results.len(), || {
            format!("{} writes for {} results", s.writes.len(), results.len())
        })?;
        for (i, ((place, map), d)) in s.writes.iter().zip(&results).enumerate() {
            self.write(*place, map, *d, &dtypes)
                .map_err(|e| format!("write {i}: {e}"))?;
        }
        for (place, _) in &s.writes {
            *written.slot(*place) = true;
        }
        Ok(())
    }

    /// A reduction has all its points, and order is none of a guard's.
    fn guard(&self, guard: &[Bound]) -> Check {
        let plain = self.s.combine.is_none() && !self.s.scatter;
        ensure(guard.is_empty() || plain, || {
            "a reduction or a scatter of some points only".into()
        })?;
        self.bounds(guard, &[])
    }

    fn read(&self, r: &Read, before: &[DType], written: &mut Written) -> Result<DType, String> {
        match r {
            Read::Element {
                place,
                map,
                guard,
                fill,
            } => {
                let (dtype, shape) = self.k.place(*place)?;
                ensure(map.len() == shape.len(), || {
                    format!("{} indices for {place} of rank {}", map.len(), shape.len())
                })?;
                let own = self.s.scatter && self.s.writes.iter().any(|w| w.0 == *place);
                if let Some((_, to)) = self.s.writes.iter().find(|w| w.0 == *place && !self.s.scatter) {
                    // Points run in any order.
                    ensure(to == map, || {
                        format!("{place} is read where another point of the stage writes it")
                    })?;
                }
                ensure(*written.slot(*place) || own, || {
                    format!("{place} is not written by an earlier stage")
                })?;
                map.iter().try_for_each(|e| self.ix(e, before, true))?;
                self.bounds(guard, before)?;
                fits(dtype, *fill)?;
                Ok(dtype)
            }
            Read::Index(ix) => {
                self.ix(ix, before, true)?;
                Ok(DType::I64)
            }
            Read::InBounds(bounds) => {
                self.bounds(bounds, before)?;
                Ok(DType::Bool)
            }
            Read::Computed(body, args) => {
                body.verify()?;
                let types: Option<Vec<DType>> = args.iter().map(|a| before.get(*a as usize).copied()).collect();
                let types = types
                    .ok_or_else(|| format!("computed from {args:?}, but only {} reads come before", before.len()))?;
                ensure(body.inputs == types, || {
                    format!("a function of {:?}, given {types:?}", body.inputs)
                })?;
                match body.output_dtypes()[..] {
                    [d] => Ok(d),
                    _ => Err(format!("a function with {} results, expected one", body.outputs.len())),
                }
            }
        }
    }

    fn write(&self, place: Place, map: &[Ix], dtype: DType, reads: &[DType]) -> Check {
        let (want, shape) = self.k.place(place)?;
        ensure(want == dtype, || format!("a result of {dtype}, but {place} is {want}"))?;
        ensure(map.len() == shape.len(), || {
            format!("{} indices for {place} of rank {}", map.len(), shape.len())
        })?;
        if let Place::Operand(i) = place {
            ensure(self.k.operands[i as usize].role != Role::In, || {
                format!("{place} is only read")
            })?;
        }
        map.iter().try_for_each(|e| self.ix(e, reads, self.s.scatter))?;
        let outer = self.k.outer.len();
        for (v, extent) in (0u32..).zip(&self.dims) {
            if (outer..outer + self.loops).contains(&(v as usize)) {
                // Iterations of a loop may write what earlier ones wrote.
                continue;
            }
            let inner = (v as usize).checked_sub(outer + self.loops).map(|i| &self.s.dims[i]);
            let parallel = inner.is_none_or(|d| d.kind == IterKind::Parallel);
            let used = map.iter().any(|e| e.uses(Var(v)));
            ensure(parallel || self.s.scan || !used, || {
                format!("the map of {place} uses i{v}, which is reduced")
            })?;
            // A local is there once for each outer point.
            let counts = inner.is_some() || matches!(place, Place::Operand(_));
            let many = extent.as_const().is_none_or(|n| n > 1);
            ensure(!(parallel && counts && many) || used || self.s.scatter, || {
                format!("the map of {place} does not use i{v}: several points write one element")
            })?;
        }
        Ok(())
    }

    fn bounds(&self, bounds: &[Bound], before: &[DType]) -> Check {
        for b in bounds {
            self.ix(&b.index, before, true)?;
            check_dim(&b.extent, &self.k.symbols)?;
        }
        Ok(())
    }

    fn ix(&self, e: &Ix, reads: &[DType], regs: bool) -> Check {
        let var = |v: Var| {
            ensure((v.0 as usize) < self.dims.len(), || {
                format!("{v} is no variable of this stage")
            })
        };
        let reg = |r: Reg| {
            ensure(regs, || {
                format!("{r} in the map of a write, which only a scatter may have")
            })?;
            match reads.get(r.0 as usize) {
                Some(DType::I64) => Ok(()),
                Some(d) => Err(format!("{r} is {d}, expected i64 in an index")),
                None => Err(format!("{r} is no earlier read")),
            }
        };
        check_ix(e, &self.k.symbols, &var, &reg)
    }
}

/// Checks a combiner against the dtypes of the values; gives those of the accumulators.
fn combine(c: &Combine, values: &[DType]) -> Result<Vec<DType>, String> {
    let check = |what: &str, body: &Body, inputs: &[&[DType]], outputs: Option<&[DType]>| {
        body.verify().map_err(|e| format!("{what}: {e}"))?;
        let want = inputs.concat();
        ensure(body.inputs == want, || {
            format!("{what} takes {:?}, expected {want:?}", body.inputs)
        })?;
        let found = body.output_dtypes();
        let want = outputs.unwrap_or(&found);
        ensure(found == want, || format!("{what} gives {found:?}, expected {want:?}"))
    };
    c.body.verify().map_err(|e| format!("combiner: {e}"))?;
    let accumulators = c.body.output_dtypes();
    check("combiner", &c.body, &[&accumulators, values], None)?;
    check("merge", &c.merge, &[&accumulators, &accumulators], Some(&accumulators))?;
    ensure(c.init.len() == accumulators.len(), || {
        format!(
            "{} initial values for {} accumulators",
            c.init.len(),
            accumulators.len()
        )
    })?;
    c.init
        .iter()
        .zip(&accumulators)
        .try_for_each(|(bits, d)| fits(*d, *bits))?;
    Ok(accumulators)
}
