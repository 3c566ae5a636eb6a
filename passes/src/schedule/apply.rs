//! A kernel and a schedule become pieces.

use super::cpu::{self, points, rows, tile::Tiling, tree};
use super::flat::Flat;
use super::gpu::{self, contract::Blocks};
use super::knobs::{self, settle};
use super::packing::Packing;
use super::parts::{self, Part};
use super::{Schedule, inline, stretch};
use brolga_ir::Dim;
use brolga_ir::program;
use brolga_ir::schedule::Knobs;
use brolga_ir::{loops, structured};
use std::borrow::Cow;

/// What a kernel, or a part of it, became.
#[derive(Clone, PartialEq, Debug)]
pub struct Piece {
    /// What runs.
    pub code: Code,
    /// The kernel's parameters that it takes, in order.
    pub params: Vec<usize>,
}

/// What runs.
#[derive(Clone, PartialEq, Debug)]
pub enum Code {
    /// A loop kernel.
    Loops(loops::Kernel),
    /// A loop kernel, some of whose parameters are operands in panels.
    Packed {
        /// The kernel.
        kernel: loops::Kernel,
        /// Such parameters, among the piece's, and how each is packed.
        operands: Vec<(usize, Packing)>,
        /// For the kernels that pack.
        knobs: Knobs,
    },
    /// Rows of the first parameter given here are copied to the second.
    Copy {
        /// From which of the piece's parameters.
        from: usize,
        /// To which.
        to: usize,
        /// Which rows.
        rows: program::Rows,
    },
}

/// The pieces of a kernel by a schedule, in the order in which they run.
///
/// # Errors
/// Why the schedule is not legal for the kernel.
pub fn apply(kernel: &structured::Kernel, schedule: &Schedule) -> Result<Vec<Piece>, String> {
    pieces(kernel, &Flat::new(kernel), schedule)
}

/// [`apply`] for a kernel whose flat form is known.
///
/// # Errors
/// As there.
pub fn pieces(kernel: &structured::Kernel, flat: &Flat, schedule: &Schedule) -> Result<Vec<Piece>, String> {
    let padded = |o: &&structured::Operand| o.role == structured::Role::Out && o.layout.pads(&o.ty.shape);
    if let Some(o) = kernel.operands.iter().find(padded) {
        return Err(format!(
            "it writes {} in the layout {}, whose padding no loops fill",
            o.ty, o.layout
        ));
    }
    let Schedule::Versions(both) = schedule else {
        return parts_of(flat, schedule, None);
    };
    if let [Schedule::Tree(_), Schedule::Tree(many)] = &**both {
        let many = tree::many(flat, many.rows)?;
        let mut out = parts_of(flat, &both[0], Some(&(&Dim::ONE - &many)))?;
        out.extend(parts_of(flat, &both[1], Some(&many))?);
        return Ok(out);
    }
    let Some(plain) = stretch::plain(kernel, flat) else {
        return Err("versions: no read is stretched in one run and not in another".into());
    };
    let [first, second] = &**both;
    let mut out = parts_of(&plain.flat, first, Some(&(&Dim::ONE - &plain.stretches)))?;
    out.extend(parts_of(flat, second, Some(&plain.stretches))?);
    Ok(out)
}

/// The pieces of a kernel, or of a version of it that has no iterations where `runs` is 0.
fn parts_of(flat: &Flat, schedule: &Schedule, runs: Option<&Dim>) -> Result<Vec<Piece>, String> {
    let Schedule::Split(schedules) = schedule else {
        return Ok(vec![piece(parts::whole(flat), schedule, runs)?]);
    };
    if !parts::splits(flat) {
        return Err("split: the stages share outer dimensions or locals, or there is one only".into());
    }
    let all = parts::split(flat);
    if all.len() != schedules.len() {
        return Err(format!("split: {} schedules for {} stages", schedules.len(), all.len()));
    }
    let each = (0..).zip(all.into_iter().zip(schedules));
    each.map(|(i, (part, s))| piece(part, s, runs).map_err(|e| format!("split, stage {i}: {e}")))
        .collect()
}

fn piece(part: Part, schedule: &Schedule, runs: Option<&Dim>) -> Result<Piece, String> {
    let flat = &part.flat;
    let at_times = |mut k: loops::Kernel| match (runs, &mut k.body[..]) {
        (None, _) => Ok(k),
        (Some(runs), [loops::Stmt::For { extent, .. }]) => {
            *extent = extent.scale(runs);
            Ok(k)
        }
        _ => Err("a version is one loop".to_string()),
    };
    let kernel = |k: Result<loops::Kernel, String>| k.map(Code::Loops);
    let settled = |k: Result<loops::Kernel, String>, knobs| {
        knobs::check(knobs)?;
        let k = at_times(k?)?;
        Ok(Code::Loops(settle(k, knobs)))
    };
    let code = match schedule {
        Schedule::Tree(s) => knobs::check(&s.knobs).and_then(|()| {
            let (k, packed) = tree::kernel(flat, s, runs)?;
            Ok(Code::Packed {
                kernel: settle(at_times(k)?, &s.knobs),
                operands: packed.into_iter().map(|(b, p)| (b.0 as usize, p)).collect(),
                knobs: s.knobs.clone(),
            })
        }),
        _ if flat.stages.iter().any(|s| !s.guard.is_empty()) => {
            Err("a stage has only some of its points, which only a tree leaves out".into())
        }
        schedule if runs.is_some() && !matches!(schedule, Schedule::Points(_) | Schedule::Rows(_)) => {
            Err("a version is rows or points".into())
        }
        Schedule::Tile(s) => Tiling::scheduled(flat, s).and_then(|t| {
            knobs::check(&s.knobs)?;
            Ok(Code::Packed {
                kernel: settle(t.kernel(s)?, &s.knobs),
                operands: t.packed().into_iter().map(|(b, p)| (b.0 as usize, p)).collect(),
                knobs: s.knobs.clone(),
            })
        }),
        _ if flat.has_loops() => Err("the kernel has loops, which only a tree keeps in order".into()),
        Schedule::Points(s) => inlined(flat, &s.inline).and_then(|f| settled(points::kernel(&f, s), &s.knobs)),
        Schedule::Rows(s) => inlined(flat, &s.inline).and_then(|f| settled(rows::kernel(&f, s), &s.knobs)),
        Schedule::InOrder(s) => settled(cpu::in_order(flat), &s.knobs),
        Schedule::Copy(s) => match parts::as_copy(flat, s.grain) {
            Some((from, to, rows)) => Ok(Code::Copy {
                from: from.0 as usize,
                to: to.0 as usize,
                rows,
            }),
            None => Err("the kernel does more than to copy rows of a whole buffer".into()),
        },
        Schedule::Split(_) | Schedule::Versions(_) => Err("a stage alone does not split, nor has it versions".into()),
        Schedule::GpuTile(s) => Blocks::of(flat, s.left).and_then(|b| kernel(b.kernel(s))),
        Schedule::GpuPoints(s) => inlined(flat, &s.inline).and_then(|f| kernel(gpu::points::kernel(&f, s))),
        Schedule::GpuRows(s) => inlined(flat, &s.inline).and_then(|f| kernel(gpu::rows::kernel(&f, s))),
        Schedule::GpuInOrder(_) => kernel(gpu::in_order(flat)),
    };
    Ok(Piece {
        code: code.map_err(|e| format!("{}: {e}", schedule.name()))?,
        params: part.params,
    })
}

/// The kernel with these locals computed again where they are read.
fn inlined<'f>(flat: &'f Flat, locals: &[u32]) -> Result<Cow<'f, Flat>, String> {
    match locals {
        [] => Ok(Cow::Borrowed(flat)),
        _ => inline::all(flat, locals).map(Cow::Owned),
    }
}
