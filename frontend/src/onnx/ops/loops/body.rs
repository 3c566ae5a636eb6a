//! The body of a loop, and the `while` that it becomes.

use super::*;

/// Iterations of a loop that its condition may end for whose results memory is laid out before it runs; where there may be more, the
/// loop runs once before, to count.
const MOST_ROWS: i64 = 4096;

/// A condition, state and rows.
type Typed = (Option<Value>, Vec<Value>, Vec<Value>);

/// The body of a loop as a graph of its own.
pub struct Body {
    pub(super) frame: Frame,
    /// The number of the iteration.
    pub(super) index: Value,
    /// The state that changes.
    pub(super) state: Vec<Value>,
    /// That state of the next iteration.
    pub(super) next: Vec<Value>,
    /// Whether there is a next iteration, where that is not always so.
    pub(super) go: Option<Value>,
    /// What is collected.
    pub(super) rows: Vec<Value>,
}

impl Body {
    /// Imports a body; or says how it changes the types of its state.
    ///
    /// # Errors
    /// When the body cannot be imported.
    pub fn import<'m>(
        im: &mut Importer<'m>,
        r: &Repeat<'m>,
        state: &[Value],
        limit: Option<&Dim>,
    ) -> Result<Result<Body, String>, Fail> {
        let types: Vec<Type> = state.iter().map(|v| im.graph.ty(*v).clone()).collect();
        let mut arguments = vec![];
        let made = subgraph(im, r.body, &r.name, "body", |im| {
            let graph = &mut im.graph;
            let index = graph.argument("i", Type::new(DType::I64, []));
            let mut slots = vec![];
            if r.counted {
                // An iteration begins where the condition is true only.
                let go = graph.scalar(DType::Bool, 1);
                slots.extend([index, go].map(Slot::Value));
            }
            arguments.push(index);
            arguments.extend(
                types
                    .iter()
                    .enumerate()
                    .map(|(k, t)| graph.argument(&format!("s{k}"), t.clone())),
            );
            let mut changing = arguments[1..].iter();
            let depth = graph.depth() - 1;
            for (s, held) in r.state.iter().zip(&r.held) {
                let changing = if *held { None } else { changing.next() };
                slots.push(changing.map_or_else(|| im.inside(*s, depth), |v| Slot::Value(*v)));
            }
            for s in &r.scanned {
                let n = limit.ok_or("a scan without a length")?;
                slots.push(Slot::Value(part(&mut im.graph, s, index, n)?));
            }
            Ok(slots)
        });
        let Subgraph { mut frame, results } = made?;
        let mut values = vec![];
        let first = r.counted as usize;
        for (k, s) in results.into_iter().enumerate() {
            if k.checked_sub(first).and_then(|k| r.held.get(k)) == Some(&true) {
                continue;
            }
            match s {
                Slot::Value(v) => values.push(v),
                _ => return Ok(Err("a state that becomes a sequence".into())),
            }
        }
        let typed = im
            .graph
            .within(&mut frame, |graph| Body::typed(graph, r, &types, values))?;
        let state = arguments.split_off(1);
        Ok(typed.map(|(go, next, rows)| Body {
            frame,
            index: arguments[0],
            state,
            next,
            go,
            rows,
        }))
    }

    /// What a body gives: the condition where it is not always true, the state, with the types that it began with, and the rest.
    fn typed(
        graph: &mut Builder<'_>,
        r: &Repeat<'_>,
        types: &[Type],
        values: Vec<Value>,
    ) -> Result<Result<Typed, String>, Fail> {
        let mut values = values.into_iter();
        let mut go = None;
        if r.counted {
            let c = graph.condition(values.next().ok_or("a body without a condition")?)?;
            let always = graph.contents(c).is_some_and(|t| t.get(0).int() != 0);
            go = (!always).then_some(c);
        }
        let mut next = vec![];
        for ty in types {
            let v = values.next().ok_or("a body without the state")?;
            let found = graph.ty(v).clone();
            let changed = || format!("a state that changes from {ty} to {found}");
            if found.dtype != ty.dtype || found.rank() != ty.rank() {
                return Ok(Err(changed()));
            }
            match graph.fit_shape(v, &ty.shape) {
                Ok(v) => next.push(v),
                Err(_) => return Ok(Err(changed())),
            }
        }
        Ok(Ok((go, next, values.collect())))
    }

    /// The type of a result of each iteration that has an extent that only the iteration tells.
    pub fn late_row(&self) -> Option<Type> {
        let types = self.rows.iter().map(|v| self.frame.graph.ty(*v));
        let mut found = types.filter(|ty| ty.shape.iter().any(|d| late(&self.frame.graph, d)));
        found.next().cloned()
    }

    /// The loop as a `while`.
    ///
    /// # Errors
    /// When it cannot be built.
    pub fn repeat(
        mut self,
        im: &mut Importer<'_>,
        r: &Repeat<'_>,
        state: &[Value],
        mut limit: Option<Dim>,
    ) -> Result<Vec<Slot>, Fail> {
        let graph = &mut im.graph;
        let mut begin = r
            .condition
            .filter(|&c| graph.contents(c).is_none_or(|t| t.get(0).int() == 0));
        if let Some(trips) = self.trips(graph, r, state, limit.as_ref())? {
            limit = Some(trips);
            begin = None;
            self.go = None;
        }
        let limit = limit.as_ref();
        let conditional = self.go.is_some() || begin.is_some();
        let begin = match begin {
            Some(c) => c,
            None => graph.scalar(DType::Bool, 1),
        };
        let begin = conditional.then_some(begin);
        if !conditional && limit.is_none() && r.limit.is_none() {
            return Err("a loop without a limit and without a condition".into());
        }
        if self.rows.is_empty() {
            let (_, state, _) = self.run(graph, r, begin, state, limit, None)?;
            return Ok(state.into_iter().map(Slot::Value).collect());
        }
        // How many rows there are, or may be.
        let most = match (limit, conditional) {
            (Some(n), false) => n.clone(),
            (Some(n), true) if n.as_const().is_none_or(|n| n <= MOST_ROWS) => n.clone(),
            (None, false) => {
                let zero = graph.scalar(DType::I64, 0);
                let limit = r.limit.ok_or("a loop without a limit")?;
                let trips = graph.map("max", &[limit, zero])?;
                graph.read(trips, None)?
            }
            (_, true) => {
                let (count, ..) = self.run(graph, r, begin, state, limit, None)?;
                graph.read(count, limit.cloned())?
            }
        };
        let (count, state, mut rows) = self.run(graph, r, begin, state, limit, Some(&most))?;
        let count = match conditional {
            true => graph.read(count, Some(most.clone()))?,
            false => most,
        };
        for (v, c) in rows.iter_mut().zip(&r.collected) {
            if graph.shape(*v)[0] != count {
                *v = graph.slice_axis(*v, 0, Dim::ZERO, count.clone())?;
            }
            let axis = node::axis(c.axis, graph.rank(*v))?;
            let mut order: Vec<usize> = (1..graph.rank(*v)).collect();
            order.insert(axis, 0);
            *v = graph.transpose(*v, &order)?;
        }
        Ok(state.into_iter().chain(rows).map(Slot::Value).collect())
    }

    /// The number of iterations, the last state, and what each iteration gives in so many rows, where these are wanted.
    fn run(
        &self,
        graph: &mut Builder<'_>,
        r: &Repeat<'_>,
        begin: Option<Value>,
        state: &[Value],
        limit: Option<&Dim>,
        rows: Option<&Dim>,
    ) -> Result<(Value, Vec<Value>, Vec<Value>), Fail> {
        let mut operands = vec![graph.scalar(DType::I64, 0)];
        operands.extend(begin);
        operands.extend(state);
        let mut body = self.frame.clone();
        let mut arguments = vec![self.index];
        let mut results = vec![];
        let mut rows_of = vec![];
        graph.within(&mut body, |graph| {
            results.push(graph.map_num("add", self.index, 1)?);
            if begin.is_some() {
                arguments.push(graph.argument("go", Type::new(DType::Bool, [])));
                results.push(match self.go {
                    Some(go) => go,
                    None => graph.scalar(DType::Bool, 1),
                });
            }
            arguments.extend(&self.state);
            results.extend(&self.next);
            for ((k, &v), c) in self.rows.iter().enumerate().zip(&r.collected) {
                let Some(n) = rows else { break };
                let mut ty = graph.ty(v).clone();
                ty.shape.insert(0, n.clone());
                let all = graph.argument(&format!("y{k}"), ty.clone());
                rows_of.push(ty);
                arguments.push(all);
                let at = position(graph, self.index, n, c.backward)?;
                let at = graph.reshape(at, vec![Dim::ONE])?;
                results.push(graph.op("scatter_nd", &[Attr::word("none")], &[all, at, v])?);
            }
            Ok(())
        })?;
        for ty in rows_of {
            operands.push(graph.splat(ty.dtype, &ty.shape, 0)?);
        }

        let mut cond = Frame::new("cond");
        let types: Vec<Type> = operands.iter().map(|v| graph.ty(*v).clone()).collect();
        let (given, test) = graph.within(&mut cond, |graph| {
            let named = |(k, t): (usize, Type)| graph.argument(&format!("a{k}"), t);
            let given: Vec<Value> = types.into_iter().enumerate().map(named).collect();
            let most = match (limit, r.limit) {
                (Some(d), _) => Some(graph.dim_scalar(d, DType::I64)?),
                (None, Some(m)) => {
                    let depth = graph.depth() - 1;
                    let m = graph.capture(m, depth);
                    Some(graph.cast(m, DType::I64)?)
                }
                (None, None) => None,
            };
            let more = most.map(|m| graph.map("less", &[given[0], m])).transpose()?;
            let go = begin.map(|_| given[1]);
            let test = match (go, more) {
                (Some(go), Some(more)) => graph.map("and", &[go, more])?,
                (Some(v), None) | (None, Some(v)) => v,
                (None, None) => return Err("a loop without an end".into()),
            };
            Ok((given, test))
        })?;

        let captures = union(&[&cond, &body]);
        let types: Vec<Type> = captures.iter().map(|v| graph.ty(*v).clone()).collect();
        let cond = region(&cond, &given, &[test], &captures, &types);
        let mut body = region(&body, &arguments, &results, &captures, &types);
        if rows.is_none() {
            // The same body may follow, with rows.
            body = graph.copied(&body)?;
        }
        let region = |g: Graph| Region::new(g).map(Attr::Region).map_err(|e| e.to_string());
        let attrs = [region(cond)?, region(body)?];
        operands.extend(&captures);
        let mut out = graph.unfolded_ops("while", &attrs, &operands)?.into_iter();
        let count = out.next().ok_or("a loop without a count")?;
        let mut out = out.skip(begin.is_some() as usize);
        let last = out.by_ref().take(state.len()).collect();
        Ok((count, last, out.collect()))
    }
}

/// The part of iteration `i` of what is scanned.
fn part(graph: &mut Builder<'_>, s: &Scanned, i: Value, n: &Dim) -> One {
    let at = position(graph, i, n, s.backward)?;
    let depth = graph.depth() - 1;
    let whole = graph.capture(s.value, depth);
    graph.gather(s.axis, whole, at)
}

/// The row of iteration `i` of `n`.
fn position(graph: &mut Builder<'_>, i: Value, n: &Dim, backward: bool) -> One {
    if !backward {
        return Ok(i);
    }
    let last = graph.dim_scalar(&(n - 1), DType::I64)?;
    graph.map("sub", &[last, i])
}
