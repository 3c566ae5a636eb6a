//! How often a loop runs that its condition ends, where what it compares counts up to a bound that no iteration changes.
//!
//! Frameworks write loops over time so, without a limit: with the number known there is memory for what is collected, and the loop need not
//! run once before to count.
//!
//! ```text
//! body: (i, c, s) -> (s + 1 < n, s + 1)  -->  max(n - s, 0) iterations, where s < n is the condition before the first one
//! ```

use super::*;
use brolga_ir::Def;

/// The most that a counter may grow by in an iteration, or that may be added to it.
const MOST_STEP: i64 = 1 << 16;

/// Magnitudes between which a counter of 32 bits may begin and end, so that nothing that is compared is beyond them.
const MOST_OF_32_BITS: i64 = i32::MAX as i64 - 2 * MOST_STEP;

/// `low < high`, of integers.
struct Below {
    low: Value,
    high: Value,
    /// Whether they may be equal.
    inclusive: bool,
    /// The largest magnitude of `high` for which the comparison is that of integers, where it is one of floats.
    exact: Option<i64>,
}

/// What a value of a body is in iteration `i`: `counter + offset`, which grows by `step`.
struct Counter {
    /// The state that counts; without one, it is the iteration's number.
    state: Option<usize>,
    offset: i64,
    step: i64,
    /// The largest magnitude that it may begin or end with, if not any.
    most: Option<i64>,
}

/// A bound that no iteration changes.
enum Bound {
    Known(Dim),
    /// A value of the graph around.
    Around(Value),
}

impl Body {
    /// The number of iterations of a loop from this state on, where it is known. What data tell of it is read where there are results to
    /// lay out.
    ///
    /// # Errors
    /// When a bound that data tell cannot be read.
    pub(super) fn trips(
        &mut self,
        graph: &mut Builder<'_>,
        r: &Repeat<'_>,
        state: &[Value],
        limit: Option<&Dim>,
    ) -> Result<Option<Dim>, Fail> {
        let Some(go) = self.go else { return Ok(None) };
        let endless = |graph: &mut Builder<'_>, m| graph.dims_of(m).is_some_and(|d| d.iter().all(|d| d.is(i64::MAX)));
        if limit.is_none() && r.limit.is_some_and(|m| !endless(graph, m)) {
            return Ok(None);
        }
        let mut frame = std::mem::take(&mut self.frame);
        let found = graph.within(&mut frame, |graph| Ok(self.counted(graph, go)));
        self.frame = frame;
        let Some(found) = found? else { return Ok(None) };
        let unknown = r.condition.filter(|&c| graph.contents(c).is_none());
        let first = unknown.map(|c| comparisons(graph, c)).unwrap_or_default();
        // Whether the condition before the first iteration is that of all others.
        let mut same = unknown.is_some() && first.len() == found.len();
        let (mut always, mut checked) = (limit.cloned(), limit.cloned());
        let least = |n: Option<Dim>, d: Dim| Some(n.map_or(d.clone(), |n| Dim::min(&n, &d)));
        for (k, (counter, bound, test)) in found.iter().enumerate() {
            let init = match counter.state {
                Some(s) => self.end(graph, state[s], counter.most)?,
                None => Some(Dim::ZERO),
            };
            let bound = match bound {
                Bound::Known(d) if d.as_const().is_some() && !within(graph, d, counter.most)? => None,
                Bound::Known(d) => Some(d.clone()),
                Bound::Around(v) => self.end(graph, *v, counter.most)?,
            };
            let (Some(init), Some(bound)) = (init, bound) else {
                return Ok(None);
            };
            if !within(graph, &bound, test.exact)? {
                return Ok(None);
            }
            same = same && counter.offset == counter.step && {
                let own = &first[k];
                let ends = [own.low, own.high].map(|v| integer(graph, v));
                let as_exact = own.exact.is_none_or(|own| test.exact.is_some_and(|test| test <= own));
                as_exact && own.inclusive == test.inclusive && ends == [Some(init.clone()), Some(bound.clone())]
            };
            let span = &(&bound - &init) + test.inclusive as i64;
            let after = |offset: i64| graph.or_zero(&span - offset).ceil_div(&Dim::Const(counter.step));
            always = least(always, &after(counter.offset) + 1);
            checked = least(checked, after(0));
        }
        Ok(match unknown {
            Some(_) if same => checked,
            Some(_) if self.rows.is_empty() => None,
            Some(c) => {
                let begins = graph.read(c, Some(Dim::ONE))?;
                always.map(|n| &n * &begins)
            }
            None => always,
        })
    }

    /// What a condition of the body, which is the graph under construction, compares; `None` where it does anything else than count.
    fn counted(&self, graph: &mut Builder<'_>, go: Value) -> Option<Vec<(Counter, Bound, Below)>> {
        let tests = comparisons(graph, go);
        let mut out = vec![];
        for test in tests {
            let counter = self.counter(graph, test.low)?;
            let bound = match integer(graph, test.high) {
                // What an iteration reads is another number in each.
                Some(d) if late(&graph.graph, &d) => return None,
                Some(d) => Bound::Known(d),
                None => {
                    let captured = graph.captured_from(test.high)?;
                    Bound::Around(captured)
                }
            };
            out.push((counter, bound, test));
        }
        Some(out).filter(|all| !all.is_empty())
    }

    fn counter(&self, graph: &mut Builder<'_>, v: Value) -> Option<Counter> {
        if v == self.index {
            return Some(Counter {
                state: None,
                offset: 0,
                step: 1,
                most: None,
            });
        }
        if let Some(k) = self.state.iter().position(|s| *s == v) {
            let (from, step) = sum(graph, self.next[k])?;
            let most = match graph.dtype(v) {
                DType::I64 => None,
                DType::I32 => Some(MOST_OF_32_BITS),
                _ => return None,
            };
            return (from == v && (1..=MOST_STEP).contains(&step)).then_some(Counter {
                state: Some(k),
                offset: 0,
                step,
                most,
            });
        }
        let (from, more) = sum(graph, v)?;
        let mut counter = self.counter(graph, from)?;
        counter.offset = counter.offset.checked_add(more)?;
        (-MOST_STEP..=MOST_STEP).contains(&counter.offset).then_some(counter)
    }

    /// The number that a counter begins or ends with, where it is known or read, and of this magnitude at most.
    fn end(&self, graph: &mut Builder<'_>, v: Value, most: Option<i64>) -> Result<Option<Dim>, Fail> {
        let d = match integer(graph, v) {
            Some(d) => d,
            None if self.rows.is_empty() => return Ok(None),
            None => {
                let v = graph.reshape(v, vec![])?;
                let sizes = graph.signed_sizes(v, "the bound of a loop")?;
                sizes[0].clone()
            }
        };
        Ok(within(graph, &d, most)?.then_some(d))
    }
}

/// Whether a number is of a magnitude, if one is given; of what only the run tells, the run checks it.
fn within(graph: &mut Builder<'_>, d: &Dim, most: Option<i64>) -> Result<bool, Fail> {
    let Some(most) = most else { return Ok(true) };
    if let Some(c) = d.as_const() {
        return Ok((-most..=most).contains(&c));
    }
    graph.require_at_most(d, &Dim::Const(most))?;
    graph.require_at_most(&Dim::Const(-most), d)?;
    Ok(true)
}

/// An operation and its operands, of a value that one makes.
fn made(graph: &Builder<'_>, v: Value) -> Option<(&'static str, Vec<Value>)> {
    match graph.graph.def(v) {
        Def::Node(n, _) => {
            let node = &graph.graph.nodes[n as usize];
            Some((node.op.name(), node.inputs.to_vec()))
        }
        Def::Input(_) | Def::Const(_) => None,
    }
}

/// `v` as another value and a number that is added to it.
fn sum(graph: &mut Builder<'_>, v: Value) -> Option<(Value, i64)> {
    let (name, operands) = made(graph, v)?;
    let mut known = |v: Value| graph.dims_of(v).and_then(|d| d.first()?.as_const());
    match (name, &operands[..]) {
        ("add", &[a, b]) => match known(b) {
            Some(n) => Some((a, n)),
            None => Some((b, known(a)?)),
        },
        ("sub", &[a, b]) => Some((a, known(b)?.checked_neg()?)),
        ("reshape", &[a]) => Some((a, 0)),
        _ => None,
    }
}

/// The comparisons that all have to hold for a condition, or none where it is something else.
fn comparisons(graph: &mut Builder<'_>, v: Value) -> Vec<Below> {
    let mut out = vec![];
    let mut todo = vec![(v, false)];
    while let Some((v, negated)) = todo.pop() {
        let Some((name, operands)) = made(graph, v) else {
            return vec![];
        };
        let (inclusive, swapped) = match (name, negated) {
            ("and", false) => {
                todo.extend(operands.iter().rev().map(|v| (*v, false)));
                continue;
            }
            ("not" | "reshape", _) => {
                todo.push((operands[0], negated != (name == "not")));
                continue;
            }
            ("less", false) | ("greater_or_equal", true) => (false, false),
            ("less_or_equal", false) | ("greater", true) => (true, false),
            ("greater", false) | ("less_or_equal", true) => (false, true),
            ("greater_or_equal", false) | ("less", true) => (true, true),
            _ => return vec![],
        };
        let [mut low, mut high] = [operands[0], operands[1]];
        if swapped {
            std::mem::swap(&mut low, &mut high);
        }
        let exact = match graph.dtype(low) {
            DType::F32 => Some((1 << 24) - 1),
            DType::F64 => Some((1 << 53) - 1),
            d if d.is_int() => None,
            _ => return vec![],
        };
        out.push(Below {
            low: whole(graph, low),
            high: whole(graph, high),
            inclusive,
            exact,
        });
    }
    out
}

/// The integer that a value was converted from without loss, or the value.
fn whole(graph: &mut Builder<'_>, mut v: Value) -> Value {
    while graph.dims_of(v).is_none()
        && let Some((name, operands)) = made(graph, v)
    {
        let (from, to) = (graph.dtype(operands[0]), graph.dtype(v));
        let wider = to.is_float() || (to.is_int() && to.is_signed() && to.bytes() >= from.bytes());
        let same = match name {
            "cast" => from.is_int() && from.is_signed() && wider,
            "reshape" => true,
            _ => false,
        };
        if !same {
            break;
        }
        v = operands[0];
    }
    v
}

/// The only element of a value, where it is known to be an integer.
fn integer(graph: &mut Builder<'_>, v: Value) -> Option<Dim> {
    if let Some(d) = graph.dims_of(v) {
        return (d.len() == 1).then(|| d[0].clone());
    }
    let t = graph.contents(v).filter(|t| t.len() == 1)?;
    let x = t.to_f64s()[0];
    (x.fract() == 0.0 && x.abs() < (1i64 << 53) as f64).then_some(Dim::Const(x as i64))
}
