//! `Unique`: rows sorted, runs of equal ones numbered, and what is asked for of each run put at its number. How many there are
//! the run tells.
//!
//! ```text
//! 2 1 1 3  -->  sorted 1 1 2 3 from 1 2 0 3, runs 0 0 1 2  -->  first 1 0 3, inverse 1 0 0 2, counts 2 1 1
//! ```

use super::*;
use brolga_ir::{Attr, DType, Dim, dim::product};

/// `Unique`. NaN is one number, the largest; -0 is 0.
pub fn unique(graph: &mut Builder<'_>, ctx: &NodeCtx<'_>) -> Outcome {
    ctx.arity(1, 1)?;
    let mut x = ctx.input(0)?;
    let axis = match ctx.opt_int("axis")? {
        Some(a) => node::axis(a, graph.rank(x))?,
        None => {
            let n = graph.ty(x).len();
            x = graph.reshape(x, vec![n])?;
            0
        }
    };
    let shape = graph.shape(x);
    let n = shape[axis].clone();
    let order: Vec<usize> = [axis]
        .into_iter()
        .chain((0..shape.len()).filter(|&a| a != axis))
        .collect();
    let rows = graph.transpose(x, &order)?;
    let columns = product(order[1..].iter().map(|&a| &shape[a]));
    let rows = graph.reshape(rows, vec![n.clone(), columns])?;
    let key = graph.sort_key(rows, false)?;
    let order = sorted_rows(graph, key)?;

    // Where a run begins in the order, and the number of each run.
    let at = graph.iota(DType::I64, std::slice::from_ref(&n), 0)?;
    let before = graph.map_num("sub", at, 1)?;
    let before = graph.map_num("max", before, 0)?;
    let sorted = graph.gather(0, key, order)?;
    let other = graph.gather(0, sorted, before)?;
    let differs = graph.map("not_equal", &[sorted, other])?;
    let differs = graph.reduce("or", &[1], differs)?;
    let differs = graph.squeeze(differs, &[1])?;
    let first = graph.map_num("equal", at, 0)?;
    let begins = graph.map("or", &[first, differs])?;
    let begun = graph.cast(begins, DType::I64)?;
    let count = graph.reduce("sum", &[0], begun)?;
    let count = graph.read(count, Some(n.clone()))?;
    let running = |graph: &mut Builder<'_>, v: Value, exclusive: bool| {
        let attrs = [
            Attr::word("sum"),
            Attr::Int(0),
            Attr::Bool(exclusive),
            Attr::Bool(false),
        ];
        graph.op("scan", &attrs, &[v])
    };
    let through = running(graph, begun, false)?;
    let mut number = graph.map_num("sub", through, 1)?;
    let mut firsts = at_runs(graph, begins, number, order, &n)?;
    if !ctx.flag("sorted", true)? {
        // Runs are numbered by where their first row was.
        let marks = graph.splat(DType::I64, std::slice::from_ref(&n), 0)?;
        let marks = put(graph, marks, order, begun, "none")?;
        let earlier = running(graph, marks, true)?;
        let mine = graph.gather(0, firsts, number)?;
        number = graph.gather(0, earlier, mine)?;
        firsts = at_runs(graph, begins, number, order, &n)?;
    }
    let firsts = graph.slice_axis(firsts, 0, Dim::ZERO, count.clone())?;
    let mut results = vec![graph.gather(axis, x, firsts)?, firsts];
    let zeros = graph.splat(DType::I64, std::slice::from_ref(&n), 0)?;
    results.push(put(graph, zeros, order, number, "none")?);
    let ones = graph.splat(DType::I64, std::slice::from_ref(&n), 1)?;
    let counts = put(graph, zeros, number, ones, "add")?;
    results.push(graph.slice_axis(counts, 0, Dim::ZERO, count)?);
    Ok(results)
}

/// The positions of rows of keys in order, that of the first column first: sorted by each column, the last one first.
fn sorted_rows(graph: &mut Builder<'_>, key: Value) -> One {
    let shape = graph.shape(key);
    let (n, columns) = (shape[0].clone(), shape[1].clone());
    if columns.is(1) {
        let key = graph.reshape(key, vec![Dim::ONE, n.clone()])?;
        let order = graph.sorted_positions(key)?;
        return graph.reshape(order, vec![n]);
    }
    let end = graph.dim_scalar(&columns, DType::I64)?;
    let start = graph.iota(DType::I64, std::slice::from_ref(&n), 0)?;
    let done = graph.repeat_while(
        &[end, start],
        &[key],
        |b, v| b.map_num("greater", v[0], 0),
        |b, v| {
            let column = b.map_num("sub", v[0], 1)?;
            let now = b.gather(1, v[2], column)?;
            let now = b.gather(0, now, v[1])?;
            let now = b.unsqueeze(now, &[0])?;
            let order = b.sorted_positions(now)?;
            let order = b.squeeze(order, &[0])?;
            Ok(vec![column, b.gather(0, v[1], order)?])
        },
    )?;
    Ok(done[1])
}

/// `values` of the rows that begin a run, at the run's number.
fn at_runs(graph: &mut Builder<'_>, begins: Value, number: Value, values: Value, n: &Dim) -> One {
    // The others go behind all runs.
    let behind = graph.dim_scalar(n, DType::I64)?;
    let to = graph.map("where", &[begins, number, behind])?;
    let room = graph.splat(DType::I64, &[n + &Dim::ONE], 0)?;
    let all = put(graph, room, to, values, "none")?;
    graph.slice_axis(all, 0, Dim::ZERO, n.clone())
}

/// A vector with updates at indices.
fn put(graph: &mut Builder<'_>, data: Value, indices: Value, updates: Value, reduction: &str) -> One {
    let attrs = [Attr::Int(0), Attr::word(reduction)];
    graph.op("scatter_elements", &attrs, &[data, indices, updates])
}
