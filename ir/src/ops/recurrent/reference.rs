//! Reference evaluation of recurrent layers in f64, sequence by sequence, in the words of the ONNX specification: the reverse
//! direction runs from the last step that a sequence has to its first. It shares nothing with [`super::cell`] or the kernel.

use super::{Cell, Direction, Layer};

/// The operands of the steps.
pub struct Operands<'a> {
    /// Steps, examples of the batch, hidden units.
    pub sizes: [usize; 3],
    /// `X·Wᵀ` and the biases that are added to it, at (step, example, direction, gate, unit).
    pub input: &'a dyn Fn(usize, usize, usize, usize, usize) -> f64,
    /// Weights of the state `[D, G·H, H]`.
    pub r: &'a [f64],
    /// The bias of the last gate inside of a reset gate, at (direction, unit).
    pub inner_bias: &'a dyn Fn(usize, usize) -> f64,
    /// The first states, `[D, B, H]` each.
    pub states: Vec<Vec<f64>>,
    /// Peepholes `[D, 3·H]`; empty without.
    pub p: &'a [f64],
    /// Lengths of sequences; empty where each has all steps.
    pub lengths: &'a [i64],
}

/// The results of a layer: `y`, then the last states.
pub fn steps(layer: &Layer, o: Operands) -> Vec<Vec<f64>> {
    let [time, batch, hidden] = o.sizes;
    let directions = layer.directions();
    let gates = layer.cell.gates();
    let mut y = vec![0.0; time * directions * batch * hidden];
    let mut states = o.states;
    let act = |which: usize, x: f64| {
        let clipped = layer.clip.map_or(x, |c| x.clamp(-c, c));
        layer.activations[which].reference(clipped)
    };
    for d in 0..directions {
        for b in 0..batch {
            let place = (d * batch + b) * hidden;
            let length = o.lengths.get(b).map_or(time, |&n| n.clamp(0, time as i64) as usize);
            let backward = layer.direction == Direction::Reverse || d == 1;
            for k in 0..length {
                let t = if backward { length - 1 - k } else { k };
                let before: Vec<Vec<f64>> = states.iter().map(|s| s[place..place + hidden].to_vec()).collect();
                let h = &before[0];
                let product = |g: usize, j: usize, of: &[f64]| -> f64 {
                    let row = ((d * gates + g) * hidden + j) * hidden;
                    (0..hidden).map(|i| of[i] * o.r[row + i]).sum()
                };
                let x = |g: usize, j: usize| (o.input)(t, b, d, g, j);
                let peephole = |k: usize, j: usize| {
                    let at = (d * 3 + k) * hidden + j;
                    o.p.get(at).copied().unwrap_or(0.0)
                };
                let reset = |j: usize| act(0, x(1, j) + product(1, j, h));
                let reset_state: Vec<f64> = match layer.cell {
                    Cell::Gru {
                        linear_before_reset: false,
                    } => (0..hidden).map(|j| reset(j) * h[j]).collect(),
                    _ => vec![],
                };
                for j in 0..hidden {
                    let new = match layer.cell {
                        Cell::Lstm { input_forget, .. } => {
                            let c = before[1][j];
                            let it = act(0, x(0, j) + product(0, j, h) + peephole(0, j) * c);
                            let ft = match input_forget {
                                true => 1.0 - it,
                                false => act(0, x(2, j) + product(2, j, h) + peephole(2, j) * c),
                            };
                            let ct = act(1, x(3, j) + product(3, j, h));
                            let cell = ft * c + it * ct;
                            let ot = act(0, x(1, j) + product(1, j, h) + peephole(1, j) * cell);
                            states[1][place + j] = cell;
                            ot * act(2, cell)
                        }
                        Cell::Gru { linear_before_reset } => {
                            let zt = act(0, x(0, j) + product(0, j, h));
                            let inner = match linear_before_reset {
                                true => reset(j) * (product(2, j, h) + (o.inner_bias)(d, j)),
                                false => product(2, j, &reset_state),
                            };
                            let ht = act(1, x(2, j) + inner);
                            (1.0 - zt) * ht + zt * h[j]
                        }
                        Cell::Rnn => act(0, x(0, j) + product(0, j, h)),
                    };
                    states[0][place + j] = new;
                    y[((t * directions + d) * batch + b) * hidden + j] = new;
                }
            }
        }
    }
    [y].into_iter().chain(states).collect()
}
