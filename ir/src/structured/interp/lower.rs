//! Lowering of a stage, under known symbols, to rows of a register file: a value of a body is a row of lanes.

use super::{FEW, LANES};
use crate::DType;
use crate::index::{BoundCode, Ix, IxCode, Reg, Slots, Src, Var};
use crate::scalar::{Body, Inst, Prim, V};
use crate::structured::{IterKind, Kernel, Place, Read, Stage};

/// An element of a place: one index a dimension.
pub(super) struct Access {
    pub place: usize,
    pub map: Vec<IxCode>,
}

/// How a read fills its row.
pub(super) enum ReadCode {
    Element {
        from: Access,
        guard: Box<[BoundCode]>,
        fill: u64,
    },
    Index(IxCode),
    InBounds(Box<[BoundCode]>),
    Computed(Vec<Op>, usize),
}

/// A check: its number, what must hold, and where.
pub(super) struct CheckCode {
    pub number: u32,
    pub bounds: Box<[BoundCode]>,
    pub guard: Box<[BoundCode]>,
}

/// A primitive on rows, or a copy of a row.
pub(super) enum Op {
    Prim(Prim, DType, [usize; 3], usize),
    Copy(usize, usize),
}

/// A combiner: rows of the accumulators, their initial values, the operations.
pub(super) struct CombineCode {
    pub rows: Vec<usize>,
    pub init: Vec<u64>,
    pub ops: Vec<Op>,
}

/// A dimension of a stage.
#[derive(Clone, Copy)]
pub(super) struct DimCode {
    pub var: usize,
    pub extent: i64,
    pub reduced: bool,
}

/// A stage.
pub(super) struct StageCode {
    /// The number of variables: the outer ones, those of the loops around it, its own.
    pub vars: usize,
    pub dims: Vec<DimCode>,
    /// What holds of the points that there are; the same on every lane.
    pub guard: Box<[BoundCode]>,
    /// The stage's own dimension that has lanes, when the outer domain gives none.
    pub lane_dim: Option<usize>,
    /// The variable that counts lanes.
    pub lane_var: Option<usize>,
    pub reads: Vec<ReadCode>,
    pub checks: Vec<CheckCode>,
    pub body: Vec<Op>,
    pub combine: Option<CombineCode>,
    /// Where the results go, and their rows.
    pub writes: Vec<(Access, usize)>,
    pub scan: bool,
    pub scatter: bool,
    /// The register file: `LANES` values a row; rows of constants are set once.
    pub file: Vec<u64>,
}

struct Rows {
    file: Vec<u64>,
}

impl Rows {
    /// A new row, filled.
    fn row(&mut self, bits: u64) -> usize {
        self.file.resize(self.file.len() + LANES, bits);
        self.file.len() - LANES
    }

    /// The operations of a body whose inputs are these rows, and the rows of its outputs.
    fn body(&mut self, b: &Body, inputs: &[usize]) -> (Vec<Op>, Vec<usize>) {
        let dtypes = b.dtypes();
        let mut rows = inputs.to_vec();
        let mut ops = vec![];
        for inst in &b.insts {
            rows.push(match inst {
                Inst::Const(_, bits) => self.row(*bits),
                Inst::Prim(p, args) => {
                    let typed = args[p.typed()];
                    let to = self.row(0);
                    let from = args.map(|V(v)| rows[v as usize]);
                    ops.push(Op::Prim(*p, dtypes[typed.0 as usize], from, to));
                    to
                }
            });
        }
        let outputs = b.outputs.iter().map(|v| rows[v.0 as usize]).collect();
        (ops, outputs)
    }
}

impl StageCode {
    /// The code of a stage inside `loops` loops.
    pub fn new(
        k: &Kernel,
        s: &Stage,
        loops: usize,
        symbols: &dyn Fn(&str) -> Option<i64>,
        outer_lane: Option<usize>,
    ) -> Result<StageCode, String> {
        let before = k.outer.len() + loops;
        let mut var = |v: Var| v.0 as usize;
        // Read `k` is row `k`.
        let reg = |r: Reg| Src {
            base: r.0 as usize * LANES,
            step: 1,
        };
        let mut slots = Slots {
            symbols,
            var: &mut var,
            reg: &reg,
            lane: outer_lane,
        };
        let mut dims = vec![];
        for (i, d) in s.dims.iter().enumerate() {
            let (extent, reduced) = (slots.dim(&d.extent)?, d.kind == IterKind::Reduction);
            dims.push(DimCode {
                var: before + i,
                extent,
                reduced,
            });
        }
        let mut lane_dim = None;
        let cut = |i: usize| s.guard.iter().any(|b| b.index.uses(Var((before + i) as u32)));
        if outer_lane.is_none() && !s.scatter {
            let parallel = (0..dims.len()).filter(|&i| !dims[i].reduced && dims[i].extent >= FEW && !cut(i));
            lane_dim = parallel.max_by_key(|&i| dims[i].extent);
            slots.lane = lane_dim.map(|i| dims[i].var);
        }
        let guard = BoundCode::all(&s.guard, &mut slots)?;
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
        let mut rows = Rows { file: vec![] };
        let read_rows: Vec<usize> = s.reads.iter().map(|_| rows.row(0)).collect();
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
                    let inputs: Vec<usize> = args.iter().map(|a| read_rows[*a as usize]).collect();
                    let (ops, outputs) = rows.body(b, &inputs);
                    ReadCode::Computed(ops, outputs[0])
                }
            });
        }
        let mut checks = vec![];
        for c in &s.checks {
            checks.push(CheckCode {
                number: c.number,
                bounds: BoundCode::all(&c.bounds, &mut slots)?,
                guard: BoundCode::all(&c.guard, &mut slots)?,
            });
        }
        let (body, mut results) = rows.body(&s.body, &read_rows);
        let mut combine = None;
        if let Some(c) = &s.combine {
            let accumulators: Vec<usize> = c.init.iter().map(|_| rows.row(0)).collect();
            let inputs = [&accumulators[..], &results].concat();
            let (mut ops, outputs) = rows.body(&c.body, &inputs);
            // By way of other rows, because an output may be another accumulator.
            let staged: Vec<usize> = outputs.iter().map(|_| rows.row(0)).collect();
            ops.extend(outputs.iter().zip(&staged).map(|(&from, &to)| Op::Copy(from, to)));
            ops.extend(staged.iter().zip(&accumulators).map(|(&from, &to)| Op::Copy(from, to)));
            results.clone_from(&accumulators);
            combine = Some(CombineCode {
                rows: accumulators,
                init: c.init.clone(),
                ops,
            });
        }
        let writes = s.writes.iter().zip(results);
        let writes = writes
            .map(|((p, m), row)| Ok((access(*p, m, &mut slots)?, row)))
            .collect::<Result<_, String>>()?;
        Ok(StageCode {
            vars: before + dims.len(),
            dims,
            guard,
            lane_dim,
            lane_var: slots.lane,
            reads,
            checks,
            body,
            combine,
            writes,
            scan: s.scan,
            scatter: s.scatter,
            file: rows.file,
        })
    }
}
