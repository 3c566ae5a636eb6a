//! The steps of a layer as one kernel: a tree for each direction and example of the batch, whose states are locals.
//!
//! ```text
//! outer(D, B) {
//!   stage { h = h0 }  stage { c = c0 }
//!   loop(T) {
//!     stage parallel(G·H) reduce(H) { u = r · h }
//!     stage parallel(H) { h, c, y[t] = the cell of x[t], u, h, c }
//!   }
//!   stage { the last h }  stage { the last c }
//! }
//! ```
//!
//! A step that lies behind its sequence's length leaves the states as they are and gives 0, in both directions.

use super::cell::{Elements, Gates};
use super::{Direction, Layer};
use crate::index::{Ix, Var};
use crate::ops::OwnStages;
use crate::scalar::{Builder, V};
use crate::structured::build::{self, Reads, parallel, reduction};
use crate::structured::{Kernel, Local, Loop, Part, Place, Read};
use crate::{DType, Dim, Type};

/// The outer variables: the direction and the example.
const D: Var = Var(0);
const B: Var = Var(1);
/// The step, inside of the loop.
const T: Var = Var(2);

/// The kernel of a layer's steps over operands of these types, which are those of `recurrence`.
///
/// # Errors
/// When an activation does not take the dtype.
pub fn kernel(layer: &Layer, inputs: &[Type], results: &[Type]) -> Result<OwnStages, String> {
    let cell = layer.cell;
    let dtype = inputs[0].dtype;
    let (time, batch) = (inputs[0].shape[0].clone(), inputs[0].shape[1].clone());
    let hidden = inputs[1].shape[2].clone();
    // Weights of the second product are an operand of their own, so that each lies in panels of its own.
    let mut operands: Vec<usize> = (0..inputs.len()).collect();
    if cell.second_product().is_some() {
        operands.push(1);
    }
    let mut next = 2 + cell.states() as u32;
    let mut optional = |there: bool| {
        let this = there.then_some(Place::Operand(next));
        next += u32::from(there);
        this
    };
    let (p, rb) = (optional(cell.has_peepholes()), optional(cell.has_inner_bias()));
    let lengths = optional(layer.lengths);
    let (first, second) = (cell.first_product(), cell.second_product());
    let mut k = Steps {
        layer,
        dtype,
        hidden: hidden.clone(),
        step: layer.position(&time),
        places: Places {
            x: Place::Operand(0),
            r: Place::Operand(1),
            again: optional(second.is_some()),
            p,
            rb,
            lengths,
            results: (operands.len() as u32..)
                .map(Place::Operand)
                .take(results.len())
                .collect(),
        },
        locals: vec![],
    };
    let states: Vec<Place> = (0..cell.states()).map(|_| k.local(&hidden)).collect();
    let u = k.local(&(&hidden * first.count as i64));
    let mut parts = vec![];
    for (i, &state) in states.iter().enumerate() {
        let from = Place::Operand(2 + i as u32);
        let at = [D, B, T].map(Ix::var).to_vec();
        parts.push(k.copy((from, at), (state, vec![Ix::var(T)])));
    }
    let mut body = vec![k.product(k.places.r, first, states[0], u)];
    match (second, k.places.again) {
        (Some(gates), Some(r)) => {
            let (z, reset, v) = (k.local(&hidden), k.local(&hidden), k.local(&hidden));
            body.push(k.reset(&states, u, [z, reset])?);
            body.push(k.product(r, gates, reset, v));
            body.push(k.cell(&states, (v, gates.count), Some(z))?);
        }
        _ => body.push(k.cell(&states, (u, first.count), None)?),
    }
    parts.push(Part::Loop(Loop {
        extent: time,
        needed: vec![],
        body,
    }));
    for (i, &state) in states.iter().enumerate() {
        let at = [D, B, T].map(Ix::var).to_vec();
        parts.push(k.copy((state, vec![Ix::var(T)]), (k.places.results[1 + i], at)));
    }
    let kernel = Kernel {
        locals: k.locals,
        outer: vec![Dim::from(layer.directions()), batch],
        parts,
        ..Kernel::of(operands.iter().map(|&i| &inputs[i]), results)
    };
    Ok(OwnStages { kernel, operands })
}

impl Layer {
    /// The step of time that an iteration is.
    fn position(&self, time: &Dim) -> Ix {
        let (d, t) = (Ix::var(D), Ix::var(T));
        let backward = &t.scale(&Dim::Const(-1)) + &(time - 1);
        match self.direction {
            Direction::Forward => t,
            Direction::Reverse => backward,
            // |(T-1)·d - t|
            Direction::Bidirectional => {
                let x = &d.scale(&(time - 1)) + &t.scale(&Dim::Const(-1));
                &x + &x.at_most(&Dim::ZERO).scale(&Dim::Const(-2))
            }
        }
    }
}

struct Places {
    x: Place,
    r: Place,
    again: Option<Place>,
    p: Option<Place>,
    rb: Option<Place>,
    lengths: Option<Place>,
    results: Vec<Place>,
}

struct Steps<'l> {
    layer: &'l Layer,
    dtype: DType,
    hidden: Dim,
    step: Ix,
    places: Places,
    locals: Vec<Local>,
}

/// The reads of a step's elements, by their use.
struct ElementReads {
    x: Vec<usize>,
    u: Vec<usize>,
    state: Vec<usize>,
    p: Vec<usize>,
    rb: Option<usize>,
}

impl ElementReads {
    fn values(&self, b: &Builder) -> Elements<V> {
        let all = |reads: &[usize]| reads.iter().map(|&i| b.input(i)).collect();
        Elements {
            x: all(&self.x),
            u: all(&self.u),
            state: all(&self.state),
            p: all(&self.p),
            rb: self.rb.map(|i| b.input(i)),
        }
    }
}

/// The unit of a stage in the loop.
const UNIT: Var = Var(3);

impl Steps<'_> {
    fn local(&mut self, extent: &Dim) -> Place {
        self.locals.push(Local {
            dtype: self.dtype,
            shape: vec![extent.clone()],
        });
        Place::Local(self.locals.len() as u32 - 1)
    }

    /// A row of a state in one place to another, outside of the loop.
    fn copy(&self, (from, at): (Place, Vec<Ix>), to: (Place, Vec<Ix>)) -> Part {
        let mut reads = Reads::default();
        reads.element(from, at, self.dtype);
        let b = reads.body();
        let x = b.input(0);
        Part::Stage(build::map(
            vec![parallel(&self.hidden)],
            reads,
            b.finish(&[x]),
            vec![to],
        ))
    }

    /// `out[n] = Σ of[k] · r[d, n, k]` for the rows of some gates.
    fn product(&self, r: Place, gates: Gates, of: Place, out: Place) -> Part {
        let (row, k) = (UNIT, Var(UNIT.0 + 1));
        let mut reads = Reads::default();
        reads.element(of, vec![Ix::var(k)], self.dtype);
        let place = &Ix::var(row) + &(&self.hidden * gates.first as i64);
        reads.element(r, vec![Ix::var(D), place, Ix::var(k)], self.dtype);
        let dims = vec![parallel(&(&self.hidden * gates.count as i64)), reduction(&self.hidden)];
        Part::Stage(build::products(dims, reads, (out, vec![Ix::var(row)])))
    }

    /// The reads of the elements of some gates; `u` has as many.
    fn elements(&self, reads: &mut Reads, states: &[Place], x: Gates, (u, products): (Place, usize)) -> ElementReads {
        let j = Ix::var(UNIT);
        let gate = |k: usize| &j + &(&self.hidden * k as i64);
        let columns = &self.hidden * self.layer.cell.gates() as i64;
        ElementReads {
            x: (x.first..x.first + x.count)
                .map(|k| {
                    let column = &gate(k) + &Ix::var(D).scale(&columns);
                    reads.element(self.places.x, vec![self.step.clone(), Ix::var(B), column], self.dtype)
                })
                .collect(),
            u: (0..products)
                .map(|k| reads.element(u, vec![gate(k)], self.dtype))
                .collect(),
            state: states
                .iter()
                .map(|&s| reads.element(s, vec![j.clone()], self.dtype))
                .collect(),
            p: (0..if self.places.p.is_some() { 3 } else { 0 })
                .filter_map(|k| Some(reads.element(self.places.p?, vec![Ix::var(D), gate(k)], self.dtype)))
                .collect(),
            rb: self
                .places
                .rb
                .map(|rb| reads.element(rb, vec![Ix::var(D), j.clone()], self.dtype)),
        }
    }

    /// The update gate and the state behind the reset gate.
    fn reset(&self, states: &[Place], u: Place, out: [Place; 2]) -> Result<Part, String> {
        let mut reads = Reads::default();
        let gates = self.layer.cell.first_product();
        let e = self.elements(&mut reads, states, gates, (u, gates.count));
        let mut b = reads.body();
        let e = e.values(&b);
        let values = self.layer.reset(&mut b, &e)?;
        let writes = out.map(|place| (place, vec![Ix::var(UNIT)])).to_vec();
        let dims = vec![parallel(&self.hidden)];
        Ok(Part::Stage(build::map(dims, reads, b.finish(&values), writes)))
    }

    /// The states after a step, and the row of `y`.
    fn cell(&self, states: &[Place], u: (Place, usize), z: Option<Place>) -> Result<Part, String> {
        let j = Ix::var(UNIT);
        let mut reads = Reads::default();
        let gates = Gates {
            first: 0,
            count: self.layer.cell.gates(),
        };
        let e = self.elements(&mut reads, states, gates, u);
        let z = z.map(|z| reads.element(z, vec![j.clone()], self.dtype));
        let inside = self.places.lengths.map(|lengths| {
            let length = reads.element(lengths, vec![Ix::var(B)], DType::I64);
            (reads.add(Read::Index(self.step.clone()), DType::I64), length)
        });
        let mut b = reads.body();
        let e = e.values(&b);
        let z = z.map(|z| b.input(z));
        let mut values = self.layer.step(&mut b, &e, z)?;
        let mut shown = values[0];
        if let Some((at, length)) = inside {
            let (at, length) = (b.input(at), b.input(length));
            let inside = b.lt(at, length);
            let zero = b.lit(shown, 0.0);
            shown = b.select(inside, shown, zero);
            for (new, &old) in values.iter_mut().zip(&e.state) {
                *new = b.select(inside, *new, old);
            }
        }
        let y = vec![self.step.clone(), Ix::var(D), Ix::var(B), j.clone()];
        let mut writes: Vec<(Place, Vec<Ix>)> = states.iter().map(|&s| (s, vec![j.clone()])).collect();
        writes.push((self.places.results[0], y));
        values.push(shown);
        let dims = vec![parallel(&self.hidden)];
        Ok(Part::Stage(build::map(dims, reads, b.finish(&values), writes)))
    }
}
