//! Knobs: what is settled of a CPU kernel when its nest stands, and is then written in it. A knob is a file here and a word of
//! [`KNOBS`]: its name in the text of schedules, its value by default, those that a tuner tries, and what it does.
//!
//! ```text
//! for i0 parallel 0..n {                          for i0 parallel(12*n from 40000) 0..n {
//!   for i1 serial 0..3 { … }             -->        for i1 unrolled 0..3 { … }
//! } }                                             } }
//! ```

mod constants;
pub mod grain;
mod unroll;

use brolga_ir::CpuTarget;
use brolga_ir::loops::Kernel;
use brolga_ir::schedule::{Knobs, Schedule};

/// A knob.
pub struct Knob {
    /// Its name in the text of schedules.
    pub name: &'static str,
    /// Its value when nobody says otherwise, for schedules of a family.
    pub default: fn(&CpuTarget, Family) -> i64,
    /// Values that a tuner tries beside that.
    pub tries: &'static [i64],
    /// Writes what a value means into a kernel.
    pub apply: fn(&mut Kernel, i64),
}

/// Every knob, in the order in which they are applied: the work of a loop is that of the loop before it is repeated in code.
pub static KNOBS: [Knob; 3] = [grain::GRAIN, unroll::UNROLL, constants::CONSTANTS];

/// What the vectors of a schedule run along.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Family {
    /// Rows, so that a loop over vectors is innermost.
    Rows,
    /// Points, columns of tiles, or nothing.
    Points,
}

/// All knobs at their defaults.
pub fn defaults(target: &CpuTarget, family: Family) -> Knobs {
    let all = KNOBS.iter().map(|k| (k.name.into(), (k.default)(target, family)));
    Knobs(all.collect())
}

/// A schedule with other values, one knob at a time.
pub fn variants(schedule: &Schedule) -> Vec<Schedule> {
    let mut out = vec![];
    for knob in &KNOBS {
        for &value in knob.tries {
            let mut other = schedule.clone();
            let own = other
                .knobs_mut()
                .and_then(|k| k.0.iter_mut().find(|(n, _)| **n == *knob.name));
            if let Some((_, own)) = own.filter(|(_, own)| *own != value) {
                *own = value;
                out.push(other);
            }
        }
    }
    out
}

/// Whether a schedule has every knob, and no other.
///
/// # Errors
/// Which is missing, or is none.
pub fn check(knobs: &Knobs) -> Result<(), String> {
    let names = || KNOBS.iter().map(|k| k.name).collect::<Vec<_>>().join(", ");
    if let Some((name, _)) = knobs.0.iter().find(|(n, _)| KNOBS.iter().all(|k| *k.name != **n)) {
        return Err(format!("there is no knob `{name}`, expected {}", names()));
    }
    match KNOBS.iter().find(|k| value(knobs, k).is_none()) {
        Some(k) => Err(format!("the knob `{}` is missing, expected {}", k.name, names())),
        None => Ok(()),
    }
}

/// Settles a kernel by the knobs of its schedule, which are checked.
pub fn settle(mut k: Kernel, knobs: &Knobs) -> Kernel {
    for knob in &KNOBS {
        if let Some(value) = value(knobs, knob) {
            (knob.apply)(&mut k, value);
        }
    }
    k
}

fn value(knobs: &Knobs, knob: &Knob) -> Option<i64> {
    let found = knobs.0.iter().find(|(n, _)| **n == *knob.name);
    found.map(|(_, value)| *value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use brolga_ir::Target;

    /// The text of a kernel with this body, settled with one knob at a value and the others at their defaults.
    pub fn settled(body: &str, name: &str, value: i64) -> String {
        let text = format!("loops @k(b0: f32[n] in, b1: f32[n] out) symbols(n) {{ {body} }}");
        let k: Kernel = text.parse().unwrap_or_else(|e| panic!("{e} in {text}"));
        let mut knobs = defaults(Target::baseline().cpu().expect("it is a CPU"), Family::Points);
        let own = knobs.0.iter_mut().find(|(n, _)| **n == *name);
        own.expect("there is such a knob").1 = value;
        settle(k, &knobs).to_string()
    }

    #[test]
    fn knobs_are_neither_missing_nor_invented() {
        let error = |knobs: Knobs| check(&knobs).expect_err("it is wrong");
        let all = defaults(Target::baseline().cpu().expect("it is a CPU"), Family::Points);
        assert_eq!(check(&all), Ok(()));
        let fewer = Knobs(all.0[1..].to_vec());
        assert_eq!(
            error(fewer),
            "the knob `grain` is missing, expected grain, unroll, constants"
        );
        let more = Knobs([all.0, vec![("speed".into(), 9)]].concat());
        assert_eq!(
            error(more),
            "there is no knob `speed`, expected grain, unroll, constants"
        );
    }
}
