//! Random numbers and tensors for the checks of rules.
//!
//! What is drawn decides what a check can see: ordinary values show wrong laws, zeros of both signs, infinities and NaN show
//! what a law does to them, huge and tiny values show what overflows.

use crate::eqsat::choices::Choices;
use brolga_ir::{DType, Number, Tensor, Type};

/// What the elements of an instance are.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Values {
    /// Ordinary numbers, of which few are exact in binary, so that every rounding shows.
    Plain,
    /// Zeros of both signs, infinities, NaN and small whole numbers (which cancel) among them; integers at their limits.
    Special,
    /// Huge, tiny and subnormal numbers among them, the largest and the smallest ones too.
    Extreme,
    /// No two elements of an instance alike, as far as the dtype has so many: for what only moves them.
    Places,
}

/// How the elements of one tensor are drawn.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Style {
    Plain,
    /// Whole numbers and halves, signed zeros among them.
    Grid,
    /// Zeros of both signs.
    Zeros,
    /// Few elements are special.
    Sparse,
    /// Many are.
    Dense,
    /// Some are huge or tiny.
    Extreme,
    /// All are huge, so that sums and squares overflow.
    Huge,
    /// All are numbered.
    Places,
}

/// A source of random values, or, one after the other, of all.
pub struct Source {
    state: u64,
    /// What is chosen in place of a random number.
    choices: Option<Choices>,
    /// How many elements were numbered.
    places: usize,
    /// What elements are.
    pub values: Values,
}

const GRID: [f64; 8] = [-2.0, -1.0, -0.0, 0.0, 1.0, 2.0, 0.5, -0.5];
const SPECIAL: [f64; 6] = [-0.0, 0.0, f64::INFINITY, f64::NEG_INFINITY, f64::NAN, f64::INFINITY];
/// Magnitudes of f32 near its limits, and those that overflow or vanish in functions.
const EXTREME: [f64; 22] = [
    f32::MAX as f64,
    f32::MIN as f64,
    3e38,
    -3e38,
    2e38,
    -2e38,
    1e38,
    -1e30,
    1e20,
    -1e20,
    1e-20,
    -1e-20,
    1e-30,
    1e-38,
    1e-40,
    -1e-40,
    2e-45,
    88.0,
    -88.0,
    110.0,
    -110.0,
    1e4,
];
/// Those of which two overflow when they are added or multiplied, or whose squares do when they are added.
const HUGE: [f64; 6] = [3e38, -3e38, 2e38, -2e38, 1.5e19, -1.5e19];
const HUGE_64: [f64; 6] = [1.5e308, -1.5e308, 1e308, -1e308, 1.1e154, -1.1e154];
const HUGE_16: [f64; 6] = [6e4, -6e4, 4e4, -4e4, 200.0, -200.0];
/// Extremes of f64, which has more room.
const EXTREME_64: [f64; 9] = [f64::MAX, f64::MIN, 5e-324, 1e308, -1e308, 1e200, 1e-310, 720.0, -750.0];
/// And of f16.
const EXTREME_16: [f64; 8] = [65504.0, -65504.0, 6e4, -6e4, 6e-8, 1e-7, 6e-5, -300.0];

impl Source {
    /// A source that a seed decides.
    pub fn new(seed: u64, values: Values) -> Source {
        Source {
            state: seed,
            choices: None,
            places: 0,
            values,
        }
    }

    /// A source of what is chosen; elements are numbered.
    pub(in crate::eqsat) fn of_choices(mut choices: Choices) -> Source {
        choices.restart();
        Source {
            choices: Some(choices),
            ..Source::new(0, Values::Places)
        }
    }

    /// The choices that were made; none of a random source.
    pub(in crate::eqsat) fn into_choices(self) -> Option<Choices> {
        self.choices
    }

    /// The next 64 bits.
    fn next(&mut self) -> u64 {
        // SplitMix64 (Steele, Lea and Flood, "Fast splittable pseudorandom number generators", 2014).
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
    /// A number below `n`, or 0.
    pub fn below(&mut self, n: usize) -> usize {
        match &mut self.choices {
            Some(choices) => choices.choose(n.max(1)),
            None => (self.next() % n.max(1) as u64) as usize,
        }
    }
    /// True so often in a hundred.
    pub fn chance(&mut self, percent: usize) -> bool {
        match &mut self.choices {
            Some(choices) => (1..100).contains(&percent) && choices.choose(2) == 1 || percent >= 100,
            None => self.below(100) < percent,
        }
    }
    /// One of several.
    pub fn pick<T: Clone>(&mut self, from: &[T]) -> T {
        from[self.below(from.len())].clone()
    }

    fn style(&mut self) -> Style {
        use Style::*;
        match self.values {
            Values::Plain => Plain,
            Values::Special => self.pick(&[Grid, Grid, Zeros, Sparse, Sparse, Dense]),
            Values::Extreme => self.pick(&[Plain, Extreme, Extreme, Huge]),
            Values::Places => Places,
        }
    }

    /// A number of a dtype beyond the ordinary; finite on demand.
    fn extreme(&mut self, dtype: DType) -> f64 {
        match dtype {
            DType::F64 if self.chance(50) => self.pick(&EXTREME_64),
            DType::F16 if self.chance(70) => self.pick(&EXTREME_16),
            _ => self.pick(&EXTREME),
        }
    }

    fn element(&mut self, dtype: DType, style: Style) -> Number {
        let plain = |d: &mut Source| (d.below(4001) as f64 - 2000.0) / 997.0;
        if style == Style::Places {
            self.places += 1;
            return match dtype {
                DType::Bool => Number::Int((self.places % 2) as i128),
                d if d.is_float() => Number::Float(self.places as f64),
                d => Number::Int((self.places % (1 << (d.bits().min(32) - 1))) as i128),
            };
        }
        if dtype == DType::Bool {
            return Number::Int(self.below(2) as i128);
        }
        if !dtype.is_float() {
            if style != Style::Plain && self.chance(30) {
                let bits = dtype.bits() - dtype.is_signed() as usize;
                let most = (1i128 << bits) - 1;
                let least = if dtype.is_signed() { -most - 1 } else { 0 };
                return Number::Int(self.pick(&[least, least + 1, most, most - 1, most / 2, most / 3]));
            }
            return Number::Int(self.below(15) as i128 - if dtype.is_signed() { 7 } else { 0 });
        }
        Number::Float(match style {
            Style::Plain | Style::Places => plain(self),
            Style::Grid => self.pick(&GRID),
            Style::Zeros => self.pick(&[0.0, -0.0]),
            Style::Sparse if self.chance(6) => self.pick(&SPECIAL),
            Style::Sparse => plain(self),
            Style::Dense if self.chance(40) => self.pick(&SPECIAL),
            Style::Dense => self.pick(&GRID),
            Style::Huge => match dtype {
                DType::F64 => self.pick(&HUGE_64),
                DType::F16 => self.pick(&HUGE_16),
                _ => self.pick(&HUGE),
            },
            Style::Extreme if self.chance(50) => self.extreme(dtype),
            Style::Extreme => plain(self),
        })
    }

    /// A tensor of a type with known extents; `None` when it would be large. Without infinities and NaN when `finite`.
    pub fn tensor(&mut self, ty: &Type, finite: bool) -> Option<Tensor> {
        const LARGE: usize = 20_000;
        let shape: Vec<usize> = ty
            .shape
            .iter()
            .map(|d| usize::try_from(d.as_const()?).ok())
            .collect::<Option<_>>()?;
        let n: usize = shape.iter().product();
        if n > LARGE {
            return None;
        }
        let style = self.style();
        let values: Vec<Number> = (0..n)
            .map(|_| {
                let x = self.element(ty.dtype, style);
                if finite && !x.to(ty.dtype).f64().is_finite() {
                    Number::Float(1.0)
                } else {
                    x
                }
            })
            .collect();
        Some(Tensor::from_fn(ty.dtype, &shape, |i| values[i]))
    }

    /// Positions below `n`, which is not 0.
    pub fn indices(&mut self, ty: &Type, n: usize) -> Option<Tensor> {
        let shape: Vec<usize> = ty
            .shape
            .iter()
            .map(|d| usize::try_from(d.as_const()?).ok())
            .collect::<Option<_>>()?;
        let values: Vec<i128> = (0..shape.iter().product()).map(|_| self.below(n) as i128).collect();
        Some(Tensor::from_fn(ty.dtype, &shape, |i| Number::Int(values[i])))
    }

    /// A number for a place where rules ask for one.
    pub fn number(&mut self, dtype: DType, finite: bool) -> Number {
        if !dtype.is_float() {
            let x = self.pick(&[0, 1, 2, 3, -1, -4, 7]);
            return Number::Int(if dtype.is_signed() { x } else { x.abs() }).to(dtype);
        }
        let ordinary = [0.5, 2.0, -1.5, 3.0, 0.25, 1.0, -4.0, 0.1];
        let values = if self.chance(50) { self.values } else { Values::Plain };
        let x = match values {
            Values::Special => {
                let x = self.pick(&SPECIAL);
                if finite && !x.is_finite() { -0.0 } else { x }
            }
            Values::Extreme => self.extreme(dtype),
            Values::Plain | Values::Places => self.pick(&ordinary),
        };
        let x = Number::Float(x).to(dtype);
        if finite && !x.f64().is_finite() {
            Number::Float(2.0).to(dtype)
        } else {
            x
        }
    }

    /// A number that is not below 0.
    pub fn positive(&mut self) -> f64 {
        match self.values {
            Values::Plain | Values::Places => self.pick(&[1e-5, 1e-2, 0.25, 1.0]),
            Values::Special => self.pick(&[1e-5, 1e-2, 0.25, 0.0]),
            Values::Extreme => self.pick(&[1e-5, 1e-30, 1e30, 0.0]),
        }
    }
}
