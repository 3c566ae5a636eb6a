//! What LSTM, GRU and RNN share. A *layer* is a cell with its attributes; it runs over `T` steps of a batch of `B` sequences in
//! one or two directions `D`, with `H` hidden units and `G` gates.
//!
//! | operand | shape | |
//! | --- | --- | --- |
//! | `x` | `[T, B, I]` | the input |
//! | `w`, `r` | `[D, G·H, I]`, `[D, G·H, H]` | weights of the input and of the state before; gates iofc, zrh, or one |
//! | `b` | `[D, 2·G·H]` | biases of the input, then of the state |
//! | `h0`, `c0` | `[D, B, H]` | the first states; `c0` of an LSTM only |
//! | `p` | `[D, 3·H]` | peepholes iof, where the attribute says so |
//! | `lengths` | `[B]`, i64 | steps of each sequence, where the attribute says so; what lies behind them gives 0 and leaves the state |
//!
//! Results: `y` `[T, D, B, H]`, `h` `[D, B, H]`, and of an LSTM `c` `[D, B, H]`. Source: ONNX `LSTM`, `GRU`, `RNN`.

mod activation;
mod calls;
mod cell;
mod composite;
mod kernel;
mod reference;
mod repeat;

use super::{Attr, AttrKind, Op};
use crate::{DType, Dim, Type};

pub use activation::Activation;
pub use cell::Cell;
pub use composite::{decompose, eval, infer};
pub use kernel::kernel;
pub use reference::{Operands, steps};
pub use repeat::repeat;

/// In which order steps are visited.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Direction {
    /// From the first on.
    Forward,
    /// From the last on.
    Reverse,
    /// Both, each with weights of its own.
    Bidirectional,
}

/// A cell with its attributes.
#[derive(Clone, PartialEq, Debug)]
pub struct Layer {
    /// The cell.
    pub cell: Cell,
    /// The order of steps.
    pub direction: Direction,
    /// What arguments of activations are clipped to, when they are.
    pub clip: Option<f64>,
    /// The activations f, g and h, as many as the cell has.
    pub activations: Vec<Activation>,
    /// Each sequence has a length of its own.
    pub lengths: bool,
}

/// Attributes of all layers, in front of those of the cell.
pub const COMMON: [(&str, AttrKind); 3] = [
    ("direction", AttrKind::Word),
    ("clip", AttrKind::Num),
    ("lengths", AttrKind::Bool),
];

/// Attributes of three activations; a cell with fewer has the first ones.
pub const ACTIVATIONS: [(&str, AttrKind); 9] = [
    ("f", AttrKind::Word),
    ("f_alpha", AttrKind::Num),
    ("f_beta", AttrKind::Num),
    ("g", AttrKind::Word),
    ("g_alpha", AttrKind::Num),
    ("g_beta", AttrKind::Num),
    ("h", AttrKind::Word),
    ("h_alpha", AttrKind::Num),
    ("h_beta", AttrKind::Num),
];

impl Layer {
    /// The layer of an operator with a cell's attributes.
    ///
    /// # Errors
    /// When a keyword is none of those that it may be.
    pub fn of(op: &Op, cell: Cell) -> Result<Layer, String> {
        let direction = match op.word("direction") {
            "forward" => Direction::Forward,
            "reverse" => Direction::Reverse,
            "bidirectional" => Direction::Bidirectional,
            w => return Err(format!("direction `{w}`, expected forward, reverse or bidirectional")),
        };
        let clip = op.num("clip");
        if clip.is_nan() || clip < 0.0 {
            return Err(format!("clip {clip}, expected a bound of 0 or more"));
        }
        let activation = |names: &[(&str, AttrKind)]| Activation {
            word: op.word(names[0].0).to_string(),
            alpha: op.num(names[1].0),
            beta: op.num(names[2].0),
        };
        let all = ACTIVATIONS.chunks(3).take(cell.activations());
        let activations: Vec<Activation> = all.map(activation).collect();
        activations.iter().try_for_each(Activation::check)?;
        Ok(Layer {
            cell,
            direction,
            clip: (clip < f64::INFINITY).then_some(clip),
            activations,
            lengths: op.flag("lengths"),
        })
    }

    /// The attributes that [`COMMON`] lists.
    pub fn common(&self) -> Vec<Attr> {
        let direction = match self.direction {
            Direction::Forward => "forward",
            Direction::Reverse => "reverse",
            Direction::Bidirectional => "bidirectional",
        };
        vec![
            Attr::word(direction),
            Attr::num(self.clip.unwrap_or(f64::INFINITY)),
            Attr::Bool(self.lengths),
        ]
    }

    /// Attributes of `n` activations, those that the cell does not have `tanh`.
    pub fn activation_attrs(&self, n: usize) -> Vec<Attr> {
        let none = Activation {
            word: "tanh".into(),
            alpha: 1.0,
            beta: 0.0,
        };
        let all = self.activations.iter().chain(std::iter::repeat(&none)).take(n);
        all.flat_map(|a| [Attr::word(&a.word), Attr::num(a.alpha), Attr::num(a.beta)])
            .collect()
    }

    /// The number of directions.
    pub fn directions(&self) -> usize {
        match self.direction {
            Direction::Bidirectional => 2,
            Direction::Forward | Direction::Reverse => 1,
        }
    }

    /// The types of the results.
    pub fn results(&self, dtype: DType, steps: &Dim, batch: &Dim, hidden: &Dim) -> Vec<Type> {
        let d = Dim::from(self.directions());
        let state = Type::new(dtype, [d.clone(), batch.clone(), hidden.clone()]);
        let y = Type::new(dtype, [steps.clone(), d, batch.clone(), hidden.clone()]);
        let states = std::iter::repeat_n(state, self.cell.states());
        [y].into_iter().chain(states).collect()
    }
}
