//! The reference interpreter of structured kernels.
//!
//! Outer points run one after the other, and for each of them the stages in order; a stage's parallel points and, inside
//! them, its reduction points run in row-major order. The merge order of a combiner is therefore always that of the text,
//! whatever [`super::Combine::free`] allows others to do.
//!
//! Reported: reads and writes out of bounds (a scatter drops such writes), reads of what was not written or was written
//! by another outer point, elements that one stage writes twice (except in a scan or a scatter), elements of outputs
//! that are never written.

use super::{IterKind, Kernel, Place, Read, Role, Stage};
use crate::index::{BoundCode, Ix, IxCode, Slots, Src};
use crate::program::storage_elements;
use crate::scalar::{Body, Inst, Prim, eval_bits};
use crate::{DType, Dim, Fault, Tensor};

/// The most elements of one output or local, so that hostile text cannot exhaust memory.
const MAX_ELEMENTS: usize = 1 << 32;

/// Runs a kernel under values of its symbols: one tensor for each `in` operand gives one for each `out` operand, in
/// order. A packed operand is a tensor of panels, `[batch…, ceil(N/32), K, 32]`.
///
/// # Errors
/// When the kernel is not valid, an operand has another type, or a stage does what the level forbids.
pub fn run(k: &Kernel, symbols: &dyn Fn(&str) -> Option<i64>, inputs: &[Tensor]) -> Result<Vec<Tensor>, Fault> {
    let fail = |message: String| Fault::new(&k.name, "", message);
    k.verify().map_err(fail)?;
    let dim = |d: &Dim| d.eval(symbols).ok_or_else(|| format!("the dim `{d}` has no value"));
    let extents = |ds: &[Dim]| ds.iter().map(dim).collect::<Result<Vec<i64>, String>>();
    let mut tensors = inputs.iter();
    let mut places = vec![];
    for (i, o) in k.operands.iter().enumerate() {
        let shape = extents(&o.ty.shape).map_err(fail)?;
        let mut p = Memory::new(o.ty.dtype, shape, o.packed).map_err(|e| fail(format!("o{i}: {e}")))?;
        if o.role == Role::In {
            let t = tensors
                .next()
                .ok_or_else(|| fail(format!("{} tensors given, more expected", inputs.len())))?;
            let want: Vec<usize> = p.memory_shape();
            if t.dtype() != o.ty.dtype || t.shape() != want {
                return Err(fail(format!(
                    "o{i} is {}{:?}, expected {}{want:?}",
                    t.dtype(),
                    t.shape(),
                    o.ty.dtype
                )));
            }
            p.data = Data::Read(t.bytes());
        } else {
            let elements = storage_elements(&o.ty, o.packed);
            p.allocate(dim(&elements).map_err(fail)?)
                .map_err(|e| fail(format!("o{i}: {e}")))?;
        }
        places.push(p);
    }
    if tensors.next().is_some() {
        return Err(fail(format!("{} tensors given, fewer expected", inputs.len())));
    }
    for (i, l) in k.locals.iter().enumerate() {
        let shape = extents(&l.shape).map_err(fail)?;
        let len = shape.iter().fold(1i64, |n, &d| n.saturating_mul(d));
        let mut p = Memory::new(l.dtype, shape, false).map_err(|e| fail(format!("l{i}: {e}")))?;
        p.allocate(len).map_err(|e| fail(format!("l{i}: {e}")))?;
        p.local = true;
        places.push(p);
    }
    let mut stages = vec![];
    for (i, s) in k.stages.iter().enumerate() {
        stages.push(StageCode::new(k, s, symbols).map_err(|e| Fault::new(&k.name, format!("stage {i}"), e))?);
    }
    let outer = extents(&k.outer).map_err(fail)?;
    let widest = stages.iter().map(|s| s.dims.len()).max().unwrap_or(0);
    let mut m = Machine {
        places,
        vars: vec![0; outer.len() + widest],
        reads: vec![],
        values: vec![],
        acc: vec![],
        point: 0,
    };
    let count = outer
        .iter()
        .try_fold(1i64, |n, &d| n.checked_mul(d))
        .filter(|n| *n < u32::MAX as i64 - 1);
    let count = count.ok_or_else(|| fail(format!("an outer domain of {outer:?}")))?;
    for point in 0..count {
        m.point = point as u32 + 1;
        let mut rest = point;
        for (v, n) in m.vars.iter_mut().zip(&outer).take(outer.len()).rev() {
            (*v, rest) = (rest % n, rest / n);
        }
        for (i, s) in stages.iter().enumerate() {
            m.stage(s, i as u32 + 1, outer.len()).map_err(|e| {
                let at: Vec<String> = m.vars[..outer.len() + s.dims.len()]
                    .iter()
                    .map(i64::to_string)
                    .collect();
                Fault::new(&k.name, format!("stage {i} at ({})", at.join(", ")), e)
            })?;
        }
    }
    let mut outputs = vec![];
    for (i, (o, p)) in k.operands.iter().zip(m.places).enumerate() {
        if o.role == Role::In {
            continue;
        }
        let shape = p.memory_shape();
        let missing = |w: &[(u32, u32)]| (0..p.elements()).find(|&e| w[p.storage(e)].0 == 0);
        if let Data::Own { writer, .. } = &p.data
            && let Some(e) = missing(writer)
        {
            return Err(fail(format!("element {e} of o{i} is never written")));
        }
        let Data::Own { bytes, .. } = p.data else { continue };
        outputs.push(Tensor::new(o.ty.dtype, shape, bytes).map_err(fail)?);
    }
    Ok(outputs)
}

enum Data<'a> {
    Read(&'a [u8]),
    Own {
        bytes: Vec<u8>,
        /// The outer point and the stage that wrote an element last, both counted from 1.
        writer: Vec<(u32, u32)>,
    },
}

struct Memory<'a> {
    dtype: DType,
    shape: Vec<i64>,
    packed: bool,
    local: bool,
    data: Data<'a>,
}

impl Memory<'_> {
    fn new<'a>(dtype: DType, shape: Vec<i64>, packed: bool) -> Result<Memory<'a>, String> {
        match shape.iter().find(|d| **d < 0) {
            Some(d) => Err(format!("an extent of {d}")),
            None => Ok(Memory {
                dtype,
                shape,
                packed,
                local: false,
                data: Data::Read(&[]),
            }),
        }
    }

    /// Memory of its own, garbage but for the padding of panels.
    fn allocate(&mut self, elements: i64) -> Result<(), String> {
        let n = usize::try_from(elements).ok().filter(|n| *n <= MAX_ELEMENTS);
        let n = n.ok_or_else(|| format!("{elements} elements"))?;
        let garbage = if self.packed { 0 } else { 0xff };
        self.data = Data::Own {
            bytes: vec![garbage; n * self.dtype.bytes()],
            writer: vec![(0, 0); n],
        };
        Ok(())
    }

    fn elements(&self) -> usize {
        self.shape.iter().product::<i64>() as usize
    }

    fn memory_shape(&self) -> Vec<usize> {
        let mut shape: Vec<usize> = self.shape.iter().map(|d| *d as usize).collect();
        if self.packed
            && let [.., k, n] = shape[..]
        {
            let rank = shape.len();
            shape.splice(rank - 2.., [n.div_ceil(32), k, 32]);
        }
        shape
    }

    /// The position in memory of an element, given its row-major position in the logical type.
    fn storage(&self, position: usize) -> usize {
        let [.., k, n] = self.shape[..] else { return position };
        if !self.packed {
            return position;
        }
        let (k, n) = (k as usize, n as usize);
        let (batch, row, column) = (position / (k * n), position / n % k, position % n);
        ((batch * n.div_ceil(32) + column / 32) * k + row) * 32 + column % 32
    }

    fn load(&self, position: usize, point: u32) -> Result<u64, String> {
        let at = self.storage(position);
        let bytes = match &self.data {
            Data::Read(b) => *b,
            Data::Own { bytes, writer } => {
                match writer[at].0 {
                    0 => return Err(format!("element {position} was not written")),
                    p if p != point && self.local => return Err(format!("element {position} was not written")),
                    p if p != point => return Err(format!("element {position} was written by another outer point")),
                    _ => {}
                }
                bytes
            }
        };
        let n = self.dtype.bytes();
        let mut b = [0u8; 8];
        b[..n].copy_from_slice(&bytes[at * n..(at + 1) * n]);
        Ok(u64::from_le_bytes(b))
    }

    fn store(&mut self, position: usize, bits: u64, by: (u32, u32), once: bool) -> Result<(), String> {
        let at = self.storage(position);
        let Data::Own { bytes, writer } = &mut self.data else {
            return Err("the operand is only read".into());
        };
        let twice = if self.local {
            writer[at] == by
        } else {
            writer[at].1 == by.1
        };
        if once && twice {
            return Err(format!("element {position} is written twice"));
        }
        writer[at] = by;
        let n = self.dtype.bytes();
        bytes[at * n..(at + 1) * n].copy_from_slice(&bits.to_le_bytes()[..n]);
        Ok(())
    }
}

/// A body over a list of values: inputs, then instructions.
struct BodyCode {
    insts: Vec<(InstCode, [usize; 3])>,
    outputs: Vec<usize>,
}

enum InstCode {
    Const(u64),
    Prim(Prim, DType),
}

impl BodyCode {
    fn new(b: &Body) -> BodyCode {
        let dtypes = b.dtypes();
        let inst = |i: &Inst| match i {
            Inst::Const(_, bits) => (InstCode::Const(*bits), [0; 3]),
            Inst::Prim(p, args) => {
                let args = args.map(|v| v.0 as usize);
                (InstCode::Prim(*p, dtypes[args[(*p == Prim::Select) as usize]]), args)
            }
        };
        BodyCode {
            insts: b.insts.iter().map(inst).collect(),
            outputs: b.outputs.iter().map(|v| v.0 as usize).collect(),
        }
    }

    /// Evaluates in place: `values` holds the inputs.
    fn run(&self, values: &mut Vec<u64>) {
        for (inst, [a, b, c]) in &self.insts {
            values.push(match inst {
                InstCode::Const(bits) => *bits,
                InstCode::Prim(p, t) => eval_bits(*p, *t, values[*a], values[*b], values[*c]),
            });
        }
    }
}

/// An element of a place: one index a dimension.
struct Access {
    place: usize,
    map: Vec<IxCode>,
}

enum ReadCode {
    Element {
        from: Access,
        guard: Box<[BoundCode]>,
        fill: u64,
    },
    Index(IxCode),
    InBounds(Box<[BoundCode]>),
    Computed(BodyCode, Vec<usize>),
}

struct StageCode {
    /// Extents, and which of the dimensions are reduced.
    dims: Vec<(i64, bool)>,
    reads: Vec<ReadCode>,
    body: BodyCode,
    combine: Option<(Vec<u64>, BodyCode)>,
    writes: Vec<Access>,
    scan: bool,
    scatter: bool,
}

impl StageCode {
    fn new(k: &Kernel, s: &Stage, symbols: &dyn Fn(&str) -> Option<i64>) -> Result<StageCode, String> {
        let mut var = |v: crate::index::Var| v.0 as usize;
        let reg = |r: crate::index::Reg| Src {
            base: r.0 as usize,
            step: 0,
        };
        let mut slots = Slots {
            symbols,
            var: &mut var,
            reg: &reg,
            lane: None,
        };
        let access = |place: Place, map: &[Ix], slots: &mut Slots| {
            let place = match place {
                Place::Operand(i) => i as usize,
                Place::Local(i) => k.operands.len() + i as usize,
            };
            let map = map
                .iter()
                .map(|e| IxCode::new(e, slots))
                .collect::<Result<_, String>>()?;
            Ok::<_, String>(Access { place, map })
        };
        let mut reads = vec![];
        for r in &s.reads {
            reads.push(match r {
                Read::Element {
                    place,
                    map,
                    guard,
                    fill,
                } => ReadCode::Element {
                    from: access(*place, map, &mut slots)?,
                    guard: BoundCode::all(guard, &mut slots)?,
                    fill: *fill,
                },
                Read::Index(ix) => ReadCode::Index(IxCode::new(ix, &mut slots)?),
                Read::InBounds(b) => ReadCode::InBounds(BoundCode::all(b, &mut slots)?),
                Read::Computed(b, args) => {
                    ReadCode::Computed(BodyCode::new(b), args.iter().map(|a| *a as usize).collect())
                }
            });
        }
        let writes = s
            .writes
            .iter()
            .map(|(p, m)| access(*p, m, &mut slots))
            .collect::<Result<_, String>>()?;
        let dims = s
            .dims
            .iter()
            .map(|d| Ok((slots.dim(&d.extent)?, d.kind == IterKind::Reduction)));
        Ok(StageCode {
            dims: dims.collect::<Result<_, String>>()?,
            reads,
            body: BodyCode::new(&s.body),
            combine: s.combine.as_ref().map(|c| (c.init.clone(), BodyCode::new(&c.body))),
            writes,
            scan: s.scan,
            scatter: s.scatter,
        })
    }
}

struct Machine<'a> {
    places: Vec<Memory<'a>>,
    vars: Vec<i64>,
    reads: Vec<u64>,
    values: Vec<u64>,
    acc: Vec<u64>,
    /// The outer point, counted from 1.
    point: u32,
}

impl Machine<'_> {
    /// Runs a stage at the current outer point.
    fn stage(&mut self, s: &StageCode, number: u32, outer: usize) -> Result<(), String> {
        let (reduced, parallel): (Vec<_>, Vec<_>) = s
            .dims
            .iter()
            .enumerate()
            .map(|(i, d)| (outer + i, d.0, d.1))
            .partition(|d| d.2);
        self.start(&parallel);
        if parallel.iter().any(|d| d.1 <= 0) {
            return Ok(());
        }
        loop {
            match &s.combine {
                None => {
                    self.point_values(s)?;
                    self.acc.clear();
                    self.acc.extend(s.body.outputs.iter().map(|&o| self.values[o]));
                    self.write(s, number)?;
                }
                Some((init, combine)) => {
                    self.acc.clone_from(init);
                    self.start(&reduced);
                    let mut more = reduced.iter().all(|d| d.1 > 0);
                    while more {
                        self.point_values(s)?;
                        let results = s.body.outputs.iter().map(|&o| self.values[o]);
                        self.acc.extend(results);
                        combine.run(&mut self.acc);
                        // The accumulators are the outputs; they become the first values.
                        self.values.clear();
                        self.values.extend(combine.outputs.iter().map(|&o| self.acc[o]));
                        self.acc.clone_from(&self.values);
                        if s.scan {
                            self.write(s, number)?;
                        }
                        more = self.next(&reduced);
                    }
                    if !s.scan {
                        self.write(s, number)?;
                    }
                }
            }
            if !self.next(&parallel) {
                return Ok(());
            }
        }
    }

    fn start(&mut self, dims: &[(usize, i64, bool)]) {
        dims.iter().for_each(|d| self.vars[d.0] = 0);
    }

    /// Steps to the next point in row-major order; false after the last.
    fn next(&mut self, dims: &[(usize, i64, bool)]) -> bool {
        for &(v, n, _) in dims.iter().rev() {
            self.vars[v] += 1;
            if self.vars[v] < n {
                return true;
            }
            self.vars[v] = 0;
        }
        false
    }

    /// Reads, and evaluates the body.
    fn point_values(&mut self, s: &StageCode) -> Result<(), String> {
        self.reads.clear();
        for (i, r) in s.reads.iter().enumerate() {
            let x = match r {
                ReadCode::Element { from, guard, fill } => {
                    if guard.iter().all(|b| b.holds(&self.vars, &self.reads, 0)) {
                        let at = self.position(from);
                        let loaded = at.and_then(|at| self.places[from.place].load(at, self.point));
                        loaded.map_err(|e| format!("read {i}: {e}"))?
                    } else {
                        *fill
                    }
                }
                ReadCode::Index(ix) => ix.at(&self.vars, &self.reads, 0) as u64,
                ReadCode::InBounds(b) => b.iter().all(|b| b.holds(&self.vars, &self.reads, 0)) as u64,
                ReadCode::Computed(body, args) => {
                    self.values.clear();
                    self.values.extend(args.iter().map(|&a| self.reads[a]));
                    body.run(&mut self.values);
                    self.values[body.outputs[0]]
                }
            };
            self.reads.push(x);
        }
        self.values.clear();
        self.values.extend_from_slice(&self.reads);
        s.body.run(&mut self.values);
        Ok(())
    }

    /// The row-major position of an access; an error out of bounds.
    fn position(&self, a: &Access) -> Result<usize, String> {
        let shape = &self.places[a.place].shape;
        let mut at = 0;
        for (d, (e, &n)) in a.map.iter().zip(shape).enumerate() {
            let i = e.at(&self.vars, &self.reads, 0);
            if !(0..n).contains(&i) {
                return Err(format!("index {i} of dimension {d}, which has extent {n}"));
            }
            at = at * n + i;
        }
        Ok(at as usize)
    }

    fn write(&mut self, s: &StageCode, number: u32) -> Result<(), String> {
        for (i, w) in s.writes.iter().enumerate() {
            let at = match self.position(w) {
                Ok(at) => at,
                Err(_) if s.scatter => continue,
                Err(e) => return Err(format!("write {i}: {e}")),
            };
            let once = !s.scan && !s.scatter;
            let by = (self.point, number);
            self.places[w.place]
                .store(at, self.acc[i], by, once)
                .map_err(|e| format!("write {i}: {e}"))?;
        }
        Ok(())
    }
}
