//! `Einsum`: diagonals, then sums over labels that one operand has alone, then contractions from left to right, then a
//! transpose. Dimensions of an ellipsis are labels of their own, aligned at the right.

use super::*;
use brolga_ir::Dim;

/// A label: a letter, or a dimension of the ellipsis counted from the right.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Label {
    Ellipsis(usize),
    Letter(char),
}

/// An operand with one label a dimension.
struct Term {
    value: Value,
    labels: Vec<Label>,
}

/// `Einsum`.
pub fn einsum(graph: &mut Builder<'_>, ctx: &NodeCtx<'_>) -> Outcome {
    let operands = ctx.variadic()?;
    let equation: String = ctx
        .string("equation", "")?
        .chars()
        .filter(|c| !c.is_whitespace())
        .collect();
    let bad = |what: String| Fail::Bad(format!("equation `{equation}`: {what}"));
    let (left, right) = match equation.split_once("->") {
        Some((l, r)) => (l, Some(r)),
        None => (equation.as_str(), None),
    };
    let parts: Vec<&str> = left.split(',').collect();
    if parts.len() != operands.len() {
        return Err(bad(format!("{} terms for {} operands", parts.len(), operands.len())));
    }
    let mut terms = vec![];
    let mut widest = 0;
    for (part, &value) in parts.iter().zip(&operands) {
        let labels =
            parse(part, Some(graph.rank(value))).map_err(|e| bad(format!("{e}, operand {}", graph.ty(value))))?;
        widest = widest.max(labels.iter().filter(|l| matches!(l, Label::Ellipsis(_))).count());
        terms.push(Term { value, labels });
    }
    let ellipsis = (0..widest).rev().map(Label::Ellipsis);
    let output: Vec<Label> = match right {
        Some(r) => {
            let mut out = vec![];
            for l in parse(r, None).map_err(&bad)? {
                match l {
                    Label::Ellipsis(_) => out.extend(ellipsis.clone()),
                    l => out.push(l),
                }
            }
            out
        }
        None => {
            // Every label that occurs once, in alphabetical order, after the ellipsis.
            let all: Vec<Label> = terms.iter().flat_map(|t| t.labels.clone()).collect();
            let mut once: Vec<Label> = all
                .iter()
                .copied()
                .filter(|l| matches!(l, Label::Letter(_)) && all.iter().filter(|m| *m == l).count() == 1)
                .collect();
            once.sort_unstable();
            ellipsis.chain(once).collect()
        }
    };
    for (i, l) in output.iter().enumerate() {
        if output[..i].contains(l) || !terms.iter().any(|t| t.labels.contains(l)) {
            return Err(bad(format!("the result's label {l:?} is repeated or in no operand")));
        }
    }
    for t in &mut terms {
        diagonal(graph, t)?;
    }
    one(contract_all(graph, terms, &output))
}

/// The labels of a term; with a rank, the ellipsis stands for as many dimensions as are left over.
fn parse(part: &str, rank: Option<usize>) -> Result<Vec<Label>, String> {
    let (before, after) = match part.split_once("...") {
        Some((b, a)) => (b, Some(a)),
        None => (part, None),
    };
    let letters = before.chars().chain(after.unwrap_or("").chars());
    if let Some(c) = letters.clone().find(|c| !c.is_ascii_alphabetic()) {
        return Err(format!("unexpected `{c}`"));
    }
    let named = letters.count();
    let open = match (rank, after) {
        (None, None) => 0,
        (None, Some(_)) => 1,
        (Some(r), Some(_)) if r >= named => r - named,
        (Some(r), None) if r == named => 0,
        (Some(r), _) => return Err(format!("{named} labels for rank {r}")),
    };
    let letter = |s: &str| s.chars().map(Label::Letter).collect::<Vec<_>>();
    let mut out = letter(before);
    out.extend((0..open).rev().map(Label::Ellipsis));
    out.extend(letter(after.unwrap_or("")));
    Ok(out)
}

/// Replaces two dimensions of one label by their diagonal: elements 0, n+1, 2(n+1) … of the merged dimension.
fn diagonal(graph: &mut Builder<'_>, t: &mut Term) -> Result<(), Fail> {
    let repeated = |l: &[Label]| (0..l.len()).find_map(|j| l[..j].iter().position(|x| *x == l[j]).map(|i| (i, j)));
    while let Some((i, j)) = repeated(&t.labels) {
        let shape = graph.shape(t.value);
        if shape[i] != shape[j] {
            let n = graph
                .require_equal(&shape[i], &shape[j])
                .map_err(|_| Fail::Bad(format!("a diagonal of extents {} and {}", shape[i], shape[j])))?;
            t.value = graph.fit(t.value, i, &n)?;
            t.value = graph.fit(t.value, j, &n)?;
            continue;
        }
        let Some(n) = shape[i].as_const() else {
            return unsupported("a diagonal of symbolic extents");
        };
        let mut perm: Vec<usize> = (0..shape.len()).filter(|&a| a != j).collect();
        perm.insert(i + 1, j);
        let v = graph.transpose(t.value, &perm)?;
        let mut merged: Vec<Dim> = perm.iter().map(|&a| shape[a].clone()).collect();
        merged.remove(i + 1);
        merged[i] = &shape[i] * &shape[j];
        let v = graph.reshape(v, merged.clone())?;
        let (starts, mut steps) = (vec![Dim::ZERO; merged.len()], vec![1; merged.len()]);
        steps[i] = n + 1;
        merged[i] = shape[i].clone();
        t.value = graph.slice(v, starts, merged, steps)?;
        t.labels.remove(j);
    }
    Ok(())
}

fn contract_all(graph: &mut Builder<'_>, terms: Vec<Term>, output: &[Label]) -> One {
    let mut rest = terms.into_iter();
    let mut acc = rest.next().ok_or("no operands")?;
    let mut later: Vec<Term> = rest.collect();
    while !later.is_empty() {
        let mut next = later.remove(0);
        stretch(graph, &mut acc, &mut next)?;
        let needed = |l: &Label| output.contains(l) || later.iter().any(|t| t.labels.contains(l));
        drop_alone(graph, &mut acc, |l| needed(l) || next.labels.contains(l))?;
        drop_alone(graph, &mut next, |l| needed(l) || acc.labels.contains(l))?;
        let (mut batch, mut over) = ([vec![], vec![]], [vec![], vec![]]);
        let mut labels = vec![];
        for (i, l) in acc.labels.iter().enumerate() {
            if let Some(j) = next.labels.iter().position(|m| m == l) {
                let lists = if needed(l) { &mut batch } else { &mut over };
                lists[0].push(i);
                lists[1].push(j);
                if needed(l) {
                    labels.push(*l);
                }
            }
        }
        let free = |t: &Term, k: usize| {
            let used = |i: &usize| batch[k].contains(i) || over[k].contains(i);
            (0..t.labels.len())
                .filter(|i| !used(i))
                .map(|i| t.labels[i])
                .collect::<Vec<_>>()
        };
        labels.extend(free(&acc, 0));
        labels.extend(free(&next, 1));
        let value = graph.contract(acc.value, next.value, [&batch[0], &batch[1]], [&over[0], &over[1]])?;
        acc = Term { value, labels };
    }
    drop_alone(graph, &mut acc, |l| output.contains(l))?;
    let perm: Vec<usize> = output
        .iter()
        .map(|l| acc.labels.iter().position(|m| m == l).ok_or("a label is lost"))
        .collect::<Result<_, _>>()?;
    graph.transpose(acc.value, &perm)
}

/// Sums over the labels that nothing else needs.
fn drop_alone(graph: &mut Builder<'_>, t: &mut Term, keep: impl Fn(&Label) -> bool) -> Result<(), Fail> {
    let axes: Vec<usize> = (0..t.labels.len()).filter(|&i| !keep(&t.labels[i])).collect();
    let sum = graph.reduce("sum", &axes, t.value)?;
    t.value = graph.squeeze(sum, &axes)?;
    t.labels.retain(keep);
    Ok(())
}

/// Where a shared label has extent 1 in one operand and not in the other, the former loses the dimension; where only a run
/// tells, both are spread.
fn stretch(graph: &mut Builder<'_>, a: &mut Term, b: &mut Term) -> Result<(), Fail> {
    for l in a.labels.clone() {
        let (Some(i), Some(j)) = (position(a, l), position(b, l)) else {
            continue;
        };
        let (x, y) = (graph.shape(a.value)[i].clone(), graph.shape(b.value)[j].clone());
        let (t, axis) = match (x.is(1), y.is(1)) {
            (true, false) => (&mut *a, i),
            (false, true) => (&mut *b, j),
            _ => {
                let both = graph.broadcast_shapes(&[vec![x], vec![y]])?;
                for (t, axis) in [(&mut *a, i), (&mut *b, j)] {
                    let mut shape = graph.shape(t.value);
                    shape[axis].clone_from(&both[0]);
                    t.value = graph.spread(t.value, &shape)?;
                }
                continue;
            }
        };
        t.value = graph.squeeze(t.value, &[axis])?;
        t.labels.remove(axis);
    }
    Ok(())
}

fn position(t: &Term, l: Label) -> Option<usize> {
    t.labels.iter().position(|m| *m == l)
}
