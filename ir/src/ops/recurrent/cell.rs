//! The cells: what a step makes of the projected input, of the products with the state before, and of that state, element by
//! element. Written once, in [`Calls`]; the reference evaluation has its own words for it.

use super::Layer;
use super::calls::Calls;

/// A cell.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Cell {
    /// Hochreiter and Schmidhuber, "Long short-term memory", 1997.
    Lstm {
        /// The forget gate is what the input gate leaves.
        input_forget: bool,
        /// Gates see the cell state.
        peepholes: bool,
    },
    /// Cho et al., "Learning phrase representations using RNN encoder-decoder", 2014.
    Gru {
        /// The reset gate acts on the product with the state, not on the state.
        linear_before_reset: bool,
    },
    /// Elman, "Finding structure in time", 1990.
    Rnn,
}

/// Which gates a product of the state gives, by position, and what it is of.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Gates {
    /// The first gate.
    pub first: usize,
    /// How many.
    pub count: usize,
}

/// Elements at one place of a step. What a cell does not have is empty.
pub struct Elements<V> {
    /// Of the projected input, one a gate.
    pub x: Vec<V>,
    /// Of the products with the state, one a gate that is there.
    pub u: Vec<V>,
    /// The states before: h, then c.
    pub state: Vec<V>,
    /// Peepholes iof.
    pub p: Vec<V>,
    /// The bias inside of the reset gate.
    pub rb: Option<V>,
}

impl Cell {
    /// The number of gates.
    pub fn gates(self) -> usize {
        match self {
            Cell::Lstm { .. } => 4,
            Cell::Gru { .. } => 3,
            Cell::Rnn => 1,
        }
    }

    /// The number of states that are handed on.
    pub fn states(self) -> usize {
        match self {
            Cell::Lstm { .. } => 2,
            Cell::Gru { .. } | Cell::Rnn => 1,
        }
    }

    /// The number of activations.
    pub fn activations(self) -> usize {
        match self {
            Cell::Lstm { .. } => 3,
            Cell::Gru { .. } => 2,
            Cell::Rnn => 1,
        }
    }

    /// True for gates that see the cell state.
    pub fn has_peepholes(self) -> bool {
        matches!(self, Cell::Lstm { peepholes: true, .. })
    }

    /// True where the bias of the state's last gate belongs inside of the reset gate.
    pub fn has_inner_bias(self) -> bool {
        matches!(
            self,
            Cell::Gru {
                linear_before_reset: true
            }
        )
    }

    /// The gates of the product with the state.
    pub fn first_product(self) -> Gates {
        let count = match self {
            Cell::Gru {
                linear_before_reset: false,
            } => 2,
            cell => cell.gates(),
        };
        Gates { first: 0, count }
    }

    /// The gates of the product with what [`Layer::reset`] gives, where there is one.
    pub fn second_product(self) -> Option<Gates> {
        matches!(
            self,
            Cell::Gru {
                linear_before_reset: false
            }
        )
        .then_some(Gates { first: 2, count: 1 })
    }
}

impl Layer {
    /// An activation of a sum, clipped before it.
    fn activated<C: Calls>(&self, c: &mut C, which: usize, terms: &[C::V]) -> Result<C::V, String> {
        let mut sum = terms[0];
        for &t in &terms[1..] {
            sum = c.call("add", &[sum, t])?;
        }
        if let Some(clip) = self.clip {
            sum = c.with("max", sum, -clip)?;
            sum = c.with("min", sum, clip)?;
        }
        self.activations[which].apply(c, sum)
    }

    /// `1 - v`.
    fn rest<C: Calls>(c: &mut C, v: C::V) -> Result<C::V, String> {
        let one = c.number(v, 1.0)?;
        c.call("sub", &[one, v])
    }

    /// Of a cell with two products, from the elements of the first: the update gate, and the state that the second is of.
    ///
    /// # Errors
    /// When the calculus does not take the elements.
    pub fn reset<C: Calls>(&self, c: &mut C, e: &Elements<C::V>) -> Result<[C::V; 2], String> {
        let z = self.activated(c, 0, &[e.x[0], e.u[0]])?;
        let r = self.activated(c, 0, &[e.x[1], e.u[1]])?;
        Ok([z, c.call("mul", &[r, e.state[0]])?])
    }

    /// The states after a step. Of a cell with two products `z` is the update gate, and `u` has the last gate only.
    ///
    /// # Errors
    /// When the calculus does not take the elements.
    pub fn step<C: Calls>(&self, c: &mut C, e: &Elements<C::V>, z: Option<C::V>) -> Result<Vec<C::V>, String> {
        match self.cell {
            Cell::Lstm { input_forget, .. } => {
                let [i, o, f, g] = [0, 1, 2, 3].map(|k| vec![e.x[k], e.u[k]]);
                let before = e.state[1];
                let peep = |c: &mut C, mut terms: Vec<C::V>, k: usize, cell: C::V| {
                    if let Some(&p) = e.p.get(k) {
                        terms.push(c.call("mul", &[p, cell])?);
                    }
                    self.activated(c, 0, &terms)
                };
                let i = peep(c, i, 0, before)?;
                let f = match input_forget {
                    true => Layer::rest(c, i)?,
                    false => peep(c, f, 2, before)?,
                };
                let g = self.activated(c, 1, &g)?;
                let (kept, new) = (c.call("mul", &[f, before])?, c.call("mul", &[i, g])?);
                let cell = c.call("add", &[kept, new])?;
                let o = peep(c, o, 1, cell)?;
                let shown = self.activated(c, 2, &[cell])?;
                Ok(vec![c.call("mul", &[o, shown])?, cell])
            }
            Cell::Gru { linear_before_reset } => {
                let z = match z {
                    Some(z) => z,
                    None => self.activated(c, 0, &[e.x[0], e.u[0]])?,
                };
                let product = match (linear_before_reset, e.rb) {
                    (true, Some(rb)) => {
                        let r = self.activated(c, 0, &[e.x[1], e.u[1]])?;
                        let sum = c.call("add", &[e.u[2], rb])?;
                        c.call("mul", &[r, sum])?
                    }
                    _ => e.u[0],
                };
                let new = self.activated(c, 1, &[e.x[2], product])?;
                let rest = Layer::rest(c, z)?;
                let (new, kept) = (c.call("mul", &[rest, new])?, c.call("mul", &[z, e.state[0]])?);
                Ok(vec![c.call("add", &[new, kept])?])
            }
            Cell::Rnn => Ok(vec![self.activated(c, 0, &[e.x[0], e.u[0]])?]),
        }
    }
}
