//! The reference interpreter of structured kernels.
//!
//! For each outer point the stages and loops run in order; a stage's parallel points and, inside them, its reduction points run in
//! row-major order. The merge order of a combiner is therefore always that of the text, whatever
//! [`super::Combine::free`] allows others to do. Points of one parallel dimension are evaluated side by side, in lanes,
//! which changes nothing but speed: they are independent, and what depends on the order (a scatter) has one lane, as do outer points of
//! which some stage leaves out some.
//!
//! Reported: reads and writes out of bounds (a scatter drops such writes), reads of what was not written or was written
//! by another outer point, elements that two outer points write or one stage writes twice in one run (except in a scan or a
//! scatter), elements of outputs that are never written, and the first check that failed, after the whole kernel.

mod lower;
mod memory;
mod stage;

use super::{Kernel, Part, Role};
use crate::{Dim, Fault, Layout, Tensor};
use lower::StageCode;
use memory::Memory;

/// How many points are evaluated side by side.
const LANES: usize = 64;
/// An outer dimension of fewer points gets no lanes; the stages' own dimensions do.
const FEW: i64 = 8;

/// Runs a kernel under values of its symbols: one tensor for each `in` and `part` operand gives one for each `out` and
/// `part` operand, in order. The tensor of an operand that is not row-major is its memory, with the extents that these are there.
///
/// # Errors
/// When the kernel is not valid, an operand has another type, or a stage does what the level forbids.
pub fn run(k: &Kernel, symbols: &dyn Fn(&str) -> Option<i64>, inputs: &[Tensor]) -> Result<Vec<Tensor>, Fault> {
    let fail = |message: String| Fault::new(&k.name, "", message);
    k.verify().map_err(fail)?;
    let dim = |d: &Dim| d.value(symbols).map_err(|e| e.to_string());
    let extents = |ds: &[Dim]| ds.iter().map(dim).collect::<Result<Vec<i64>, String>>();
    let outer = extents(&k.outer).map_err(fail)?;
    let count = outer
        .iter()
        .try_fold(1i64, |n, &d| n.checked_mul(d))
        .filter(|n| *n < u32::MAX as i64 - 1);
    let count = count.ok_or_else(|| fail(format!("an outer domain of {outer:?}")))?;
    let alone = k.stages().iter().any(|s| s.scatter || !s.guard.is_empty());
    let lane = (0..outer.len())
        .max_by_key(|&d| outer[d])
        .filter(|&d| outer[d] >= FEW && !alone);

    let wanted = k.operands.iter().filter(|o| o.role != Role::Out).count();
    if inputs.len() != wanted {
        return Err(fail(format!("{} tensors given, {wanted} expected", inputs.len())));
    }
    let mut tensors = inputs.iter();
    let mut places = vec![];
    for (i, o) in k.operands.iter().enumerate() {
        let fail = |e: String| fail(format!("o{i}: {e}"));
        let shape = extents(&o.ty.shape).map_err(fail)?;
        let mut p = Memory::new(o.ty.dtype, shape, &o.layout, None).map_err(fail)?;
        if o.role == Role::Out {
            p.allocate().map_err(fail)?;
        } else {
            let Some(t) = tensors.next() else { continue };
            let want = p.memory_shape();
            if t.dtype() != o.ty.dtype || t.shape() != want {
                return Err(fail(format!(
                    "found {}{:?}, expected {}{want:?}",
                    t.dtype(),
                    t.shape(),
                    o.ty.dtype
                )));
            }
            match o.role {
                Role::Part => p.hold(t.bytes()),
                _ => p.read_only(t.bytes()),
            }
        }
        places.push(p);
    }
    for (i, l) in k.locals.iter().enumerate() {
        let fail = |e: String| fail(format!("l{i}: {e}"));
        let copies = if lane.is_some() { LANES } else { 1 };
        let shape = extents(&l.shape).map_err(fail)?;
        let mut p = Memory::new(l.dtype, shape, &Layout::ROW_MAJOR, Some(copies)).map_err(fail)?;
        p.allocate().map_err(fail)?;
        places.push(p);
    }
    let mut vars = outer.len();
    let mut stages = vec![];
    for (i, (s, loops)) in k.placed().into_iter().enumerate() {
        vars = vars.max(outer.len() + loops.len() + s.dims.len());
        let code = StageCode::new(k, s, loops.len(), symbols, lane);
        stages.push(code.map_err(|e| Fault::new(&k.name, format!("stage {i}"), e))?);
    }
    let tree = nodes(&k.parts, outer.len(), &mut 0, &dim).map_err(fail)?;
    let mut m = Machine {
        places,
        vars: vec![0; vars],
        points: Points::default(),
        runs: 0,
        failed: None,
    };

    // The outer dimension that has lanes is taken in strips.
    let strips: Vec<i64> = (0..outer.len())
        .map(|d| if Some(d) == lane { strips(outer[d]) } else { outer[d] })
        .collect();
    for strip in 0..if count > 0 { strips.iter().product() } else { 0 } {
        let mut rest = strip;
        for d in (0..outer.len()).rev() {
            (m.vars[d], rest) = (rest % strips[d], rest / strips[d]);
        }
        let mut lanes = 1;
        if let Some(d) = lane {
            m.vars[d] *= LANES as i64;
            lanes = (outer[d] - m.vars[d]).min(LANES as i64) as usize;
        }
        m.points = Points {
            first: outer.iter().zip(&m.vars).fold(0, |p, (n, v)| p * n + v),
            step: lane.map_or(0, |d| outer[d + 1..].iter().product()),
        };
        m.runs = 0;
        m.nodes(&tree, &mut stages, lane.map(|_| lanes)).map_err(|(i, e)| {
            let at: Vec<String> = m.vars[..stages[i].vars].iter().map(i64::to_string).collect();
            Fault::new(&k.name, format!("stage {i} at ({})", at.join(", ")), e)
        })?;
    }
    if let Some(number) = m.failed {
        return Err(Fault::check(&k.name, number));
    }
    let mut outputs = vec![];
    for (i, (o, p)) in k.operands.iter().zip(m.places).enumerate() {
        if o.role != Role::In {
            if o.role == Role::Out
                && let Some(e) = p.unwritten()
            {
                return Err(fail(format!("element {e} of o{i} is never written")));
            }
            outputs.push(Tensor::new(o.ty.dtype, p.memory_shape().to_vec(), p.into_bytes()).map_err(fail)?);
        }
    }
    Ok(outputs)
}

fn strips(n: i64) -> i64 {
    let lanes = LANES as i64;
    n / lanes + i64::from(n % lanes > 0)
}

/// The outer points of the lanes, by their row-major position.
#[derive(Clone, Copy, Default)]
struct Points {
    first: i64,
    step: i64,
}

impl Points {
    /// The outer point of a lane, counted from 1.
    fn of(self, lane: usize) -> u32 {
        (self.first + self.step * lane as i64 + 1) as u32
    }
}

/// A part of the kernel's tree under known symbols.
enum Node {
    /// A stage, by its number.
    Stage(usize),
    /// A loop: its variable, the number of iterations, what runs in each.
    Loop(usize, i64, Vec<Node>),
}

/// The tree of parts whose loops count by variables from `var` on; `stages` counts stages.
fn nodes(
    parts: &[Part],
    var: usize,
    stages: &mut usize,
    dim: &dyn Fn(&Dim) -> Result<i64, String>,
) -> Result<Vec<Node>, String> {
    let one = |p: &Part| match p {
        Part::Stage(_) => {
            *stages += 1;
            Ok(Node::Stage(*stages - 1))
        }
        Part::Loop(l) => Ok(Node::Loop(var, dim(&l.extent)?, nodes(&l.body, var + 1, stages, dim)?)),
    };
    parts.iter().map(one).collect()
}

struct Machine<'a> {
    places: Vec<Memory<'a>>,
    /// Values of the outer variables, then those of loops and dimensions that are being run.
    vars: Vec<i64>,
    points: Points,
    /// How many stages have been run for these outer points: the same one for all of them.
    runs: u32,
    /// The first check that failed.
    failed: Option<u32>,
}

impl Machine<'_> {
    /// Runs parts; an error comes with the number of its stage.
    fn nodes(&mut self, nodes: &[Node], stages: &mut [StageCode], lanes: Option<usize>) -> Result<(), (usize, String)> {
        for n in nodes {
            match n {
                Node::Stage(i) => {
                    self.runs = self.runs.wrapping_add(1);
                    self.stage(&mut stages[*i], self.runs, lanes).map_err(|e| (*i, e))?;
                }
                Node::Loop(var, extent, body) => {
                    for at in 0..*extent {
                        self.vars[*var] = at;
                        self.nodes(body, stages, lanes)?;
                    }
                }
            }
        }
        Ok(())
    }
}
