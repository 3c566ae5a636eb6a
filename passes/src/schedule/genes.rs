//! Schedules as values in places, for whoever combines them.
//!
//! The values of a schedule's fields and knobs, in the order of its text, and the text around them: two schedules with the same text
//! around their values have the same choices, made differently, and any mixture of both is a schedule (whether a legal one,
//! [`super::apply`] says). What is a field, or a knob, is nothing that this module knows: a new one is combined with the others
//! from the day on which it stands in the text.
//!
//! ```text
//! tile{left=0, rows=14, order=panel}      tile{left=·, rows=·, order=·}      [0, 14, panel]
//! tree{rows=1, stages=[16, tile]}         tree{rows=·, stages=[·, ·]}        [1, 16, tile]
//! ```

use brolga_ir::schedule::Schedule;

/// A schedule as values and what is around them.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Genes {
    /// The text before each value, and that behind the last.
    around: Vec<String>,
    /// The values.
    pub values: Vec<String>,
}

impl Genes {
    /// Those of a schedule.
    pub fn of(schedule: &Schedule) -> Genes {
        let text = schedule.to_string();
        let mut out = Genes {
            around: vec![],
            values: vec![],
        };
        let (mut around, mut rest) = (String::new(), &text[..]);
        while let Some(at) = rest.find('=') {
            around += &rest[..=at];
            rest = &rest[at + 1..];
            // The ways of a tree's stages are values each; other lists are one.
            let list = around.ends_with("stages=") && rest.starts_with('[');
            if list {
                around.push('[');
                rest = &rest[1..];
            }
            loop {
                let value = &rest[..end(rest)];
                rest = &rest[value.len()..];
                out.around.push(std::mem::take(&mut around));
                out.values.push(value.to_owned());
                let more = list && rest.starts_with(", ");
                if !more {
                    break;
                }
                around += ", ";
                rest = &rest[2..];
            }
        }
        out.around.push(around + rest);
        out
    }

    /// Whether another schedule has the same choices.
    pub fn mixes_with(&self, other: &Genes) -> bool {
        self.around == other.around
    }

    /// The schedule; `None` where a value is none for its place.
    pub fn schedule(&self) -> Option<Schedule> {
        let mut text = String::new();
        for (before, value) in self.around.iter().zip(&self.values) {
            text += before;
            text += value;
        }
        text += self.around.last()?;
        text.parse().ok()
    }

    /// What is around the values, as one text: the name of this family of schedules.
    pub fn family(&self) -> String {
        self.around.join("·")
    }

    /// How many values differ; `None` where the schedules do not mix.
    pub fn distance(&self, other: &Genes) -> Option<usize> {
        let pairs = self.values.iter().zip(&other.values);
        self.mixes_with(other).then(|| pairs.filter(|(a, b)| a != b).count())
    }
}

/// Where a value ends: before a comma or a bracket that closes what the value has not opened.
fn end(text: &str) -> usize {
    let mut depth = 0;
    for (i, c) in text.char_indices() {
        match c {
            '[' | '{' => depth += 1,
            ']' | '}' if depth > 0 => depth -= 1,
            ',' | ']' | '}' if depth == 0 => return i,
            _ => {}
        }
    }
    text.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn genes(text: &str) -> Genes {
        Genes::of(&text.parse().expect("a schedule"))
    }

    const KNOBS: &str = "grain=40000, unroll=48, constants=8";

    #[test]
    fn every_value_has_its_place() {
        let tile = genes(&format!(
            "tile{{left=0, rows=14, order=panel, lanes=16, direct=true, ahead=false, pairs=false, resident=0, {KNOBS}}}"
        ));
        assert_eq!(
            tile.values,
            [
                "0", "14", "panel", "16", "true", "false", "false", "0", "40000", "48", "8"
            ]
        );
        let tree = genes(&format!("tree{{rows=14, stages=[tile, 8, 16], {KNOBS}}}"));
        assert_eq!(tree.values, ["14", "tile", "8", "16", "40000", "48", "8"]);
        let rows = genes(&format!("rows{{lanes=8, outside=1, inline=[l1, l2], {KNOBS}}}"));
        assert_eq!(rows.values, ["8", "1", "[l1, l2]", "40000", "48", "8"]);
        let split = genes("split{copy{grain=1}, in-order{unroll=2, constants=3}}");
        assert_eq!(split.values, ["1", "2", "3"]);
    }

    #[test]
    fn values_and_what_is_around_them_are_the_schedule() {
        for text in [
            format!("tree{{rows=14, stages=[tile, 8, 16], {KNOBS}}}"),
            format!("rows{{lanes=8, outside=1, inline=[], {KNOBS}}}"),
            "split{copy{grain=1}, in-order{unroll=2, constants=3}}".into(),
            "gpu-in-order{}".into(),
        ] {
            let schedule: Schedule = text.parse().expect("a schedule");
            assert_eq!(Genes::of(&schedule).schedule(), Some(schedule), "{text}");
        }
    }

    #[test]
    fn schedules_of_one_kind_mix() {
        let a = genes("copy{grain=1}");
        let mut b = genes("copy{grain=2}");
        assert_eq!(a.distance(&b), Some(1));
        assert_eq!(a.distance(&genes("gpu-in-order{}")), None);
        b.values[0].clone_from(&a.values[0]);
        assert_eq!(b, a);
        b.values[0] = "much".into();
        assert_eq!(b.schedule(), None);
    }
}
