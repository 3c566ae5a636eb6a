//! The parser of schedules. Every mistake has a line and a column, says what was expected, and names what is likely meant.

use super::*;
use crate::eqsat::Selection;

/// What is wrong, and where.
type Fault = (Place, String);

const PHASE: &str = "(phase (rules …) …)";
const LIMITS: [&str; 3] = ["rounds", "nodes", "matches"];

impl Schedule {
    /// The schedule of a text.
    ///
    /// # Errors
    /// The first mistake, with its line and column. Whether rules are there is for [`Schedule::check`] to say.
    pub fn parse(file: &str, text: &str) -> Result<Schedule, SyntaxError> {
        let items = parse_sexps(file, text)?;
        let mut phases = vec![];
        let end = Place {
            line: text.lines().count().max(1),
            column: 1,
            offset: text.len(),
        };
        let all = match items.is_empty() {
            true => Err((end, format!("found the end, expected {PHASE}"))),
            false => steps(&items, &mut phases),
        };
        all.map_err(|(place, message)| fault(file, place, message))?;
        Ok(Schedule { phases })
    }

    /// Whether every name is that of a rule or a theme which a selection uses.
    ///
    /// # Errors
    /// The first that is not, with its place and what it is likely to be.
    pub fn check(&self, file: &str, selection: &Selection) -> Result<(), SyntaxError> {
        let Some(set) = selection.rules() else {
            let message = "rules=none has no rules to schedule".to_owned();
            return Err(fault(file, self.phases[0].rules[0].place, message));
        };
        let mut names: Vec<&str> = vec!["all"];
        for rule in &set.rules {
            names.extend([rule.theme(), &rule.name]);
        }
        names.sort_unstable();
        names.dedup();
        for named in self.phases.iter().flat_map(|p| &p.rules) {
            if names.binary_search(&&*named.name).is_ok() {
                continue;
            }
            let name = &named.name;
            let message = match selection.knows(name) {
                true => format!("`{name}` is not used: it is switched off, or of a class that fp= leaves out"),
                false => {
                    let meant = near(name, names.iter().copied());
                    format!("found `{name}`, expected all, a theme or a rule{meant}")
                }
            };
            return Err(fault(file, named.place, message));
        }
        Ok(())
    }
}

fn fault(file: &str, place: Place, message: String) -> SyntaxError {
    SyntaxError {
        file: file.to_owned(),
        place,
        message,
    }
}

/// Adds phases and repetitions of them.
fn steps(items: &[Sexp], phases: &mut Vec<Phase>) -> Result<(), Fault> {
    for item in items {
        let (head, args) = form(item, &format!("{PHASE} or (repeat N {PHASE} …)"))?;
        match head {
            "phase" => phases.push(phase(item.place(), args)?),
            "repeat" => {
                let (times, body) = repetition(item.place(), args)?;
                let from = phases.len();
                steps(body, phases)?;
                let once = phases[from..].to_vec();
                // What is repeated is longer than nothing: the limit is met before memory is.
                for _ in 1..times {
                    phases.extend_from_slice(&once);
                    if phases.len() > MOST_PHASES {
                        break;
                    }
                }
            }
            _ => {
                let meant = near(head, ["phase", "repeat"]);
                let message = format!("found `{head}`, expected phase or repeat{meant}");
                return Err((inside(item), message));
            }
        }
        if phases.len() > MOST_PHASES {
            let message = format!("there are more than {MOST_PHASES} phases, repetitions unrolled");
            return Err((item.place(), message));
        }
    }
    Ok(())
}

/// How often what is repeated.
fn repetition<'a, 't>(place: Place, args: &'a [Sexp<'t>]) -> Result<(usize, &'a [Sexp<'t>]), Fault> {
    let expected = format!("expected (repeat N {PHASE} …)");
    match args {
        [times, body @ ..] if !body.is_empty() => Ok((number(times)?, body)),
        _ => Err((
            place,
            format!("a repetition lacks its number or its phases, {expected}"),
        )),
    }
}

fn phase(place: Place, args: &[Sexp]) -> Result<Phase, Fault> {
    let mut rules = None;
    let mut limits: [Option<Option<usize>>; 3] = [None; 3];
    for arg in args {
        let (head, values) = form(arg, "(rules …), (rounds N), (nodes N) or (matches N)")?;
        let twice = || (arg.place(), format!("`{head}` is given twice"));
        let limit = LIMITS.iter().position(|l| *l == head);
        match (head, limit, values) {
            ("rules", ..) if rules.is_some() => return Err(twice()),
            ("rules", ..) => rules = Some(named(arg.place(), values)?),
            (_, Some(l), _) if limits[l].is_some() => return Err(twice()),
            ("nodes", Some(l), [Sexp::Atom("by-size", _)]) => limits[l] = Some(None),
            (_, Some(l), [n]) => limits[l] = Some(Some(number(n)?)),
            (_, Some(_), _) => return Err((arg.place(), format!("found `{arg}`, expected ({head} N)"))),
            (_, None, _) => {
                let meant = near(head, LIMITS.into_iter().chain(["rules"]));
                let message = format!("found `{head}`, expected rules, {}{meant}", LIMITS.join(", "));
                return Err((inside(arg), message));
            }
        }
    }
    let missing = || {
        (
            place,
            format!("the phase names no rules, expected {PHASE}, such as (rules all)"),
        )
    };
    let [rounds, nodes, matches] = limits.map(Option::flatten);
    Ok(Phase {
        rules: rules.ok_or_else(missing)?,
        rounds,
        nodes,
        matches,
    })
}

/// What `(rules …)` names.
fn named(place: Place, values: &[Sexp]) -> Result<Vec<Named>, Fault> {
    const EXPECTED: &str = "expected all, a theme or a rule";
    let mut out: Vec<Named> = vec![];
    for value in values {
        let place = value.place();
        let atom = value.atom().ok_or((place, format!("found `{value}`, {EXPECTED}")))?;
        let name = atom.strip_prefix('-').unwrap_or(atom);
        let without = name != atom;
        if without && out.is_empty() {
            let message =
                format!("found `{atom}` in front, {EXPECTED} that it is taken away from, such as all -{name}");
            return Err((place, message));
        }
        out.push(Named {
            name: name.to_owned(),
            without,
            place,
        });
    }
    match out.is_empty() {
        true => Err((place, format!("found `(rules)`, {EXPECTED}"))),
        false => Ok(out),
    }
}

/// The head of a form, and what is behind it.
fn form<'a, 't>(item: &'a Sexp<'t>, expected: &str) -> Result<(&'t str, &'a [Sexp<'t>]), Fault> {
    if let Sexp::Apply(items, _) = item
        && let Some((head, args)) = items.split_first()
        && let Some(head) = head.atom()
    {
        return Ok((head, args));
    }
    Err((item.place(), format!("found `{item}`, expected {expected}")))
}

/// Where the head of a form stands.
fn inside(item: &Sexp) -> Place {
    match item {
        Sexp::Apply(items, place) => items.first().map_or(*place, Sexp::place),
        _ => item.place(),
    }
}

fn number(item: &Sexp) -> Result<usize, Fault> {
    let n = item.atom().and_then(|a| a.parse().ok()).filter(|n| *n > 0);
    n.ok_or_else(|| (item.place(), format!("found `{item}`, expected a number from 1 on")))
}
