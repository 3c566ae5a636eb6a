//! What becomes a loop kernel of its own: a kernel, or its stages where they share nothing.

use super::flat::{Flat, FlatRead, FlatStage, Target};
use brolga_ir::Dim;
use brolga_ir::index::{Ix, Var};
use brolga_ir::loops::{Buf, Grain};
use brolga_ir::program::Rows;

/// A part, and which of the kernel's parameters it has.
pub struct Part {
    /// The part; its buffers are its parameters, in order.
    pub flat: Flat,
    /// The kernel's parameters that they are.
    pub params: Vec<usize>,
}

/// True for kernels whose stages share no outer dimension and no local.
pub fn splits(flat: &Flat) -> bool {
    flat.outer.is_empty() && flat.stages.len() > 1 && flat.locals.is_empty() && !flat.has_loops()
}

/// The kernel as one part. The dimensions of a lone parallel stage are outer ones in it.
pub fn whole(flat: &Flat) -> Part {
    let mut flat = flat.clone();
    absorb(&mut flat);
    Part {
        params: (0..flat.buffers.len()).collect(),
        flat,
    }
}

/// The stages of a kernel that [`splits`].
pub fn split(flat: &Flat) -> Vec<Part> {
    let parts = (0..).zip(&flat.stages).map(|(i, s)| {
        let mut part = alone(flat, i, s);
        absorb(&mut part.flat);
        part
    });
    parts.collect()
}

/// One stage, with the buffers that it touches.
fn alone(flat: &Flat, number: usize, stage: &FlatStage) -> Part {
    let mut stage = stage.clone();
    let mut params = vec![];
    stage.each_target(&mut |t| params.extend(t.buffer()));
    params.sort_unstable();
    params.dedup();
    stage.each_target(&mut |t| {
        if let Target::Buffer(b) = t {
            *b = Buf(params.binary_search(b).expect("collected above") as u32);
        }
    });
    Part {
        flat: Flat {
            name: format!("{}_{number}", flat.name),
            symbols: flat.symbols.clone(),
            buffers: params.iter().map(|b| flat.buffers[b.0 as usize].clone()).collect(),
            locals: vec![],
            outer: vec![],
            stages: vec![stage],
            tree: vec![],
            next_var: flat.next_var,
        },
        params: params.into_iter().map(|b| b.0 as usize).collect(),
    }
}

/// What a part that only copies a whole buffer, row by row, reads and writes, and the rows. From `grain` cycles on the workers
/// copy.
///
/// ```text
/// for i0 in 0..n { for i1 in 0..64 { b1[256*i0 + i1 + 128] = b0[64*i0 + i1] } }  -->  rows(n, 256, 512, 1024)
/// ```
pub fn as_copy(flat: &Flat, grain: i64) -> Option<(Buf, Buf, Rows)> {
    let [stage] = &flat.stages[..] else { return None };
    let plain = !stage.scatter && !stage.scan && !stage.reduces() && stage.body.insts.is_empty();
    let (
        [
            FlatRead::Element {
                target, index, guard, ..
            },
        ],
        [(written, to)],
    ) = (&stage.reads[..], &stage.writes[..])
    else {
        return None;
    };
    let (from, into) = (target.buffer()?, written.buffer()?);
    if !plain || !guard.is_empty() || !index.offset.is(0) {
        return None;
    }
    let (rows, row) = match &flat.outer[..] {
        [row] => (None, row),
        [rows, row] => (Some(rows), row),
        _ => return None,
    };
    let size = Dim::Const(flat.dtype(*target).bytes() as i64);
    // Both indices are sums of the two variables and nothing else, by these strides.
    let affine = |ix: &Ix, strides: &[(Var, Dim)]| {
        ix.terms.len() == strides.len() && strides.iter().all(|(v, d)| ix.stride(*v).as_ref() == Some(d))
    };
    let (count, stride) = match rows {
        None => (Dim::ONE, row.1.clone()),
        Some((v, n)) => (n.clone(), to.stride(*v)?),
    };
    let outer = |stride: &Dim| rows.map(|(v, _)| (*v, stride.clone()));
    let strides = |stride: &Dim| -> Vec<(Var, Dim)> { outer(stride).into_iter().chain([(row.0, Dim::ONE)]).collect() };
    let fits = affine(index, &strides(&row.1)) && affine(to, &strides(&stride));
    let bytes = &row.1 * &size;
    let whole = flat.buffers[from.0 as usize].len == &count * &row.1;
    (fits && whole).then(|| {
        // A vector of 16 bytes is about a cycle.
        let work = (&count * &bytes).floor_div(&Dim::Const(16));
        let rows = Rows {
            count,
            bytes,
            start: &to.offset * &size,
            stride: &stride * &size,
            grain: Grain {
                work,
                least: grain,
                turn: None,
            },
        };
        (from, into, rows)
    })
}

/// Makes the dimensions of a lone parallel stage outer ones.
fn absorb(flat: &mut Flat) {
    let [s] = &mut flat.stages[..] else { return };
    if s.scatter || s.scan || s.reduces() || !flat.tree.is_empty() {
        return;
    }
    flat.outer.extend(s.dims.drain(..).map(|(v, d)| (v, d.extent)));
    flat.outer.retain(|(_, d)| !d.is(1));
    let units: Vec<Var> = flat.outer.iter().map(|(v, _)| *v).collect();
    let keep = |v: Var| {
        if units.contains(&v) {
            Ix::var(v)
        } else {
            Ix::constant(0)
        }
    };
    s.each_index(&mut |ix, _| *ix = ix.substitute(&keep, &Ix::reg));
}
