//! The text form of schedules: a word and every field by its name, then the knobs. Each field stands once, in the list that
//! both printing and parsing go through.

use super::{
    Copy, GpuInOrder, GpuPoints, GpuRows, GpuTile, InOrder, Knobs, Order, Points, Rows, Schedule, Tile, Tree, Way,
};
use crate::text::{Lexer, MAX_DEPTH, ParseError, Result, parse_id, whole};
use std::fmt;

/// A field in place.
enum Field<'a> {
    Number(&'a mut i64),
    Flag(&'a mut bool),
    Order(&'a mut Order),
    Locals(&'a mut Vec<u32>),
    Ways(&'a mut Vec<Way>),
}

type Fields<'a> = Vec<(&'static str, Field<'a>)>;

/// Fields that came later: a text without them, such as a record's, means what was done before there were any.
const LATER: [&str; 3] = ["ahead", "pairs", "resident"];

impl Schedule {
    /// One of each but `split` and `versions`, its fields unset.
    fn blank() -> [Schedule; 10] {
        let (knobs, inline) = (Knobs::default(), vec![]);
        [
            Schedule::Tile(Tile {
                left: 0,
                rows: 0,
                order: Order::Panel,
                lanes: 0,
                direct: false,
                ahead: false,
                pairs: false,
                resident: 0,
                knobs: knobs.clone(),
            }),
            Schedule::Points(Points {
                along: 0,
                lanes: 0,
                outside: 0,
                chunk: 0,
                across: 0,
                inline: inline.clone(),
                knobs: knobs.clone(),
            }),
            Schedule::Rows(Rows {
                lanes: 0,
                outside: 0,
                inline: inline.clone(),
                knobs: knobs.clone(),
            }),
            Schedule::Tree(Tree {
                rows: 0,
                stages: vec![],
                knobs: knobs.clone(),
            }),
            Schedule::InOrder(InOrder { knobs }),
            Schedule::Copy(Copy { grain: 0 }),
            Schedule::GpuTile(GpuTile {
                left: 0,
                rows: 0,
                columns: 0,
                depth: 0,
                row_threads: 0,
                column_threads: 0,
            }),
            Schedule::GpuPoints(GpuPoints {
                threads: 0,
                inline: inline.clone(),
            }),
            Schedule::GpuRows(GpuRows {
                lanes: 0,
                slots: 0,
                inline,
            }),
            Schedule::GpuInOrder(GpuInOrder),
        ]
    }

    /// The word that a schedule's text begins with.
    pub const fn name(&self) -> &'static str {
        match self {
            Schedule::Tile(_) => "tile",
            Schedule::Points(_) => "points",
            Schedule::Rows(_) => "rows",
            Schedule::Tree(_) => "tree",
            Schedule::InOrder(_) => "in-order",
            Schedule::Copy(_) => "copy",
            Schedule::Split(_) => "split",
            Schedule::Versions(_) => "versions",
            Schedule::GpuTile(_) => "gpu-tile",
            Schedule::GpuPoints(_) => "gpu-points",
            Schedule::GpuRows(_) => "gpu-rows",
            Schedule::GpuInOrder(_) => "gpu-in-order",
        }
    }

    fn fields(&mut self) -> Fields<'_> {
        use Field::{Flag, Locals, Number, Order, Ways};
        match self {
            Schedule::Tile(t) => {
                vec![
                    ("left", Number(&mut t.left)),
                    ("rows", Number(&mut t.rows)),
                    ("order", Order(&mut t.order)),
                    ("lanes", Number(&mut t.lanes)),
                    ("direct", Flag(&mut t.direct)),
                    ("ahead", Flag(&mut t.ahead)),
                    ("pairs", Flag(&mut t.pairs)),
                    ("resident", Number(&mut t.resident)),
                ]
            }
            Schedule::Points(p) => {
                vec![
                    ("along", Number(&mut p.along)),
                    ("lanes", Number(&mut p.lanes)),
                    ("outside", Number(&mut p.outside)),
                    ("chunk", Number(&mut p.chunk)),
                    ("across", Number(&mut p.across)),
                    ("inline", Locals(&mut p.inline)),
                ]
            }
            Schedule::Rows(r) => {
                vec![
                    ("lanes", Number(&mut r.lanes)),
                    ("outside", Number(&mut r.outside)),
                    ("inline", Locals(&mut r.inline)),
                ]
            }
            Schedule::Tree(t) => vec![("rows", Number(&mut t.rows)), ("stages", Ways(&mut t.stages))],
            Schedule::Copy(c) => vec![("grain", Number(&mut c.grain))],
            Schedule::InOrder(_) | Schedule::Split(_) | Schedule::Versions(_) | Schedule::GpuInOrder(_) => vec![],
            Schedule::GpuTile(t) => vec![
                ("left", Number(&mut t.left)),
                ("rows", Number(&mut t.rows)),
                ("columns", Number(&mut t.columns)),
                ("depth", Number(&mut t.depth)),
                ("row-threads", Number(&mut t.row_threads)),
                ("column-threads", Number(&mut t.column_threads)),
            ],
            Schedule::GpuPoints(p) => vec![("threads", Number(&mut p.threads)), ("inline", Locals(&mut p.inline))],
            Schedule::GpuRows(r) => vec![
                ("lanes", Number(&mut r.lanes)),
                ("slots", Number(&mut r.slots)),
                ("inline", Locals(&mut r.inline)),
            ],
        }
    }

    /// Reads a schedule.
    ///
    /// # Errors
    /// Where the text is none, or a field is missing or stands twice.
    pub fn parse(l: &mut Lexer) -> Result<Schedule> {
        Schedule::parse_at(l, 0)
    }

    fn parse_at(l: &mut Lexer, depth: usize) -> Result<Schedule> {
        if depth > MAX_DEPTH {
            return Err(l.error(format!("schedules nested deeper than {MAX_DEPTH}")));
        }
        let place = l.place();
        let name = word(l)?;
        l.expect("{")?;
        if name == "split" {
            return Ok(Schedule::Split(l.list("}", |l| Schedule::parse_at(l, depth + 1))?));
        }
        if name == "versions" {
            let all = l.list("}", |l| Schedule::parse_at(l, depth + 1))?;
            let n = all.len();
            let both = <[Schedule; 2]>::try_from(all)
                .map_err(|_| l.error_at(place, format!("{n} versions, expected 2: without stretching, and with")))?;
            return Ok(Schedule::Versions(Box::new(both)));
        }
        let found = Schedule::blank().into_iter().find(|s| s.name() == name);
        let mut schedule = found.ok_or_else(|| {
            let known: Vec<&str> = Schedule::blank().iter().map(Schedule::name).collect();
            l.error_at(
                place,
                format!(
                    "found `{name}`, expected a schedule: split, versions, {}",
                    known.join(", ")
                ),
            )
        })?;
        let mut knobs = schedule.knobs_mut().map(|_| Knobs::default());
        let mut first_knob = None;
        let mut fields: Vec<(&str, Option<Field>)> = schedule.fields().into_iter().map(|(n, f)| (n, Some(f))).collect();
        l.list("}", |l| {
            let place = l.place();
            let field = word(l)?;
            l.expect("=")?;
            let slot = fields.iter_mut().find(|(n, _)| *n == field).map(|(_, f)| f.take());
            match (slot, &first_knob) {
                // Knobs come last: a word before a field is a field, or none.
                (Some(_), Some((place, knob))) => {
                    let known: Vec<&str> = fields.iter().map(|(n, _)| *n).collect();
                    let message = format!("`{name}` has no field `{knob}`, expected {}", known.join(", "));
                    Err(l.error_at(*place, message))
                }
                (Some(Some(f)), None) => f.parse(l),
                (Some(None), None) => Err(l.error_at(place, format!("`{field}` stands twice"))),
                (None, _) if let Some(Knobs(all)) = &mut knobs => {
                    first_knob.get_or_insert((place, field.clone()));
                    if all.iter().any(|(n, _)| **n == *field) {
                        return Err(l.error_at(place, format!("`{field}` stands twice")));
                    }
                    all.push((field.into(), l.int()?));
                    Ok(())
                }
                (None, _) => {
                    let known: Vec<&str> = fields.iter().map(|(n, _)| *n).collect();
                    let message = format!("`{name}` has no field `{field}`, expected {}", known.join(", "));
                    Err(l.error_at(place, message))
                }
            }
        })?;
        let missing = fields.iter().filter(|(n, f)| f.is_some() && !LATER.contains(n));
        let missing: Vec<&str> = missing.map(|(n, _)| *n).collect();
        if !missing.is_empty() {
            return Err(l.error_at(place, format!("`{name}` without {}", missing.join(", "))));
        }
        if let (Some(own), Some(found)) = (schedule.knobs_mut(), knobs) {
            *own = found;
        }
        Ok(schedule)
    }
}

/// A word, hyphens included.
fn word(l: &mut Lexer) -> Result<String> {
    let mut text = l.ident()?.to_owned();
    while l.eat("-") {
        text = format!("{text}-{}", l.ident()?);
    }
    Ok(text)
}

impl Field<'_> {
    fn parse(self, l: &mut Lexer) -> Result<()> {
        let place = l.place();
        match self {
            Field::Number(n) => *n = l.int()?,
            Field::Flag(f) => {
                *f = match l.ident()? {
                    "true" => true,
                    "false" => false,
                    w => return Err(l.error_at(place, format!("found `{w}`, expected `true` or `false`"))),
                }
            }
            Field::Order(o) => {
                *o = match l.ident()? {
                    "panel" => Order::Panel,
                    "row" => Order::Row,
                    w => return Err(l.error_at(place, format!("found `{w}`, expected `panel` or `row`"))),
                }
            }
            Field::Locals(ls) => {
                l.expect("[")?;
                *ls = l.list("]", |l| parse_id(l, 'l'))?;
            }
            Field::Ways(ways) => {
                l.expect("[")?;
                let way = |l: &mut Lexer| match () {
                    () if l.eat("tile") => Ok(Way::Tile),
                    () if l.eat("shared") => Ok(Way::Shared),
                    () if l.eat("columns") => l.int().map(Way::Columns),
                    () => l.int().map(Way::Lanes),
                };
                *ways = l.list("]", way)?;
            }
        }
        Ok(())
    }
}

impl fmt::Display for Field<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Field::Number(n) => write!(f, "{n}"),
            Field::Flag(x) => write!(f, "{x}"),
            Field::Order(Order::Panel) => f.write_str("panel"),
            Field::Order(Order::Row) => f.write_str("row"),
            Field::Locals(ls) => {
                let all: Vec<String> = ls.iter().map(|l| format!("l{l}")).collect();
                write!(f, "[{}]", all.join(", "))
            }
            Field::Ways(ways) => {
                let all: Vec<String> = ways.iter().map(Way::to_string).collect();
                write!(f, "[{}]", all.join(", "))
            }
        }
    }
}

impl fmt::Display for Way {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Way::Tile => f.write_str("tile"),
            Way::Shared => f.write_str("shared"),
            Way::Lanes(n) => write!(f, "{n}"),
            Way::Columns(n) => write!(f, "columns {n}"),
        }
    }
}

impl fmt::Display for Schedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let parts: Vec<String> = match self {
            Schedule::Split(parts) => parts.iter().map(Schedule::to_string).collect(),
            Schedule::Versions(both) => both.iter().map(Schedule::to_string).collect(),
            _ => {
                let mut own = self.clone();
                let mut all: Vec<String> = own.fields().iter().map(|(name, x)| format!("{name}={x}")).collect();
                if let Some(Knobs(knobs)) = own.knobs_mut() {
                    all.extend(knobs.iter().map(|(name, n)| format!("{name}={n}")));
                }
                all
            }
        };
        write!(f, "{}{{{}}}", self.name(), parts.join(", "))
    }
}

impl std::str::FromStr for Schedule {
    type Err = ParseError;
    fn from_str(s: &str) -> Result<Schedule> {
        whole(s, Schedule::parse)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn schedules_read_back() {
        let [tile, mut points, others @ ..] = Schedule::blank();
        if let Schedule::Points(p) = &mut points {
            (p.along, p.inline, p.knobs.0) = (3, vec![0, 2], vec![("grain".into(), i64::MAX)]);
        }
        let tree = Schedule::Tree(Tree {
            rows: 14,
            stages: vec![Way::Lanes(8), Way::Tile, Way::Shared, Way::Columns(64)],
            knobs: Knobs::default(),
        });
        assert_eq!(tree.to_string(), "tree{rows=14, stages=[8, tile, shared, columns 64]}");
        let all: Vec<Schedule> = [tile, points].into_iter().chain(others).chain([tree]).collect();
        let both = Schedule::Versions(Box::new([all[0].clone(), all[1].clone()]));
        for s in all.iter().cloned().chain([Schedule::Split(all.clone()), both]) {
            let text = s.to_string();
            assert_eq!(text.parse::<Schedule>().unwrap_or_else(|e| panic!("{e} in {text}")), s);
        }
        assert_eq!(
            all[1].to_string(),
            format!(
                "points{{along=3, lanes=0, outside=0, chunk=0, across=0, inline=[l0, l2], grain={}}}",
                i64::MAX
            )
        );
    }

    #[test]
    fn mistakes_are_told() {
        let error = |text: &str| text.parse::<Schedule>().expect_err("it is wrong").to_string();
        assert!(error("spiral{}").contains("found `spiral`, expected a schedule: split, versions, tile, points"));
        assert!(error("copy{}").contains("`copy` without grain"));
        let before = "tile{left=0, rows=14, order=row, lanes=16, direct=false}";
        let now = before.replace('}', ", ahead=false, pairs=false, resident=0}");
        assert_eq!(before.parse::<Schedule>().expect("a text of before").to_string(), now);
        assert!(error("copy{grain=1, grain=2}").contains("`grain` stands twice"));
        assert!(error("in-order{unroll=2, unroll=2}").contains("`unroll` stands twice"));
        assert!(
            error("rows{speed=9, lanes=4}").contains("`rows` has no field `speed`, expected lanes, outside, inline")
        );
        assert!(error("copy{speed=9}").contains("`copy` has no field `speed`, expected grain"));
        assert!(error("split{copy{grain=1}, tile{order=up}}").contains("found `up`, expected `panel` or `row`"));
    }
}
