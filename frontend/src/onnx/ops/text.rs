//! Operators on strings: `StringNormalizer`, `StringConcat`, `StringSplit`, `RegexFullMatch`. What makes new strings, or looks inside of
//! them, is a host operator; the rest moves and compares their numbers.

use super::*;
use brolga_ir::{Attr, DType, Dim};

/// `StringConcat`.
pub fn concat(graph: &mut Builder<'_>, ctx: &NodeCtx<'_>) -> Outcome {
    ctx.arity(2, 2)?;
    one(graph.map("string_concat", &[ctx.input(0)?, ctx.input(1)?]))
}

/// `RegexFullMatch`.
pub fn full_match(graph: &mut Builder<'_>, ctx: &NodeCtx<'_>) -> Outcome {
    ctx.arity(1, 1)?;
    let pattern = graph.strings(&[], &[ctx.string("pattern", "")?])?;
    one(graph.op("string_match", &[], &[ctx.input(0)?, pattern]))
}

/// `StringSplit`: the parts, as many as the string with the most of them has, and how many each has.
pub fn split(graph: &mut Builder<'_>, ctx: &NodeCtx<'_>) -> Outcome {
    ctx.arity(1, 1)?;
    let x = ctx.input(0)?;
    let delimiter = graph.strings(&[], &[ctx.string("delimiter", "")?])?;
    let most = Attr::Int(ctx.int("maxsplit", -1)?.max(-1));
    let counts = graph.op("string_part_counts", std::slice::from_ref(&most), &[x, delimiter])?;
    let flat = graph.ty(x).len();
    let flat = graph.reshape(counts, vec![flat])?;
    // Of no strings at all there are no parts.
    let none = graph.ints(&[0]);
    let all = graph.concat(0, &[flat, none])?;
    let count = graph.reduce("max", &[0], all)?;
    let count = graph.sizes_operand(count, "the number of parts", &[])?;
    let parts = graph.op("string_parts", &[most, Attr::Dims(count)], &[x, delimiter])?;
    Ok(vec![parts, counts])
}

/// `StringNormalizer`: `[C]` or `[1, C]` without its stop words, in other letters; if none is left, one empty string.
pub fn normalize(graph: &mut Builder<'_>, ctx: &NodeCtx<'_>) -> Outcome {
    ctx.arity(1, 1)?;
    let given = ctx.input(0)?;
    let shape = graph.shape(given);
    if !(shape.len() == 1 || (shape.len() == 2 && shape[0].is(1))) {
        return Err(Fail::Bad(format!("{}, expected [C] or [1, C]", graph.ty(given))));
    }
    let mut x = graph.reshape(given, shape[shape.len() - 1..].to_vec())?;
    let case = match ctx.string("case_change_action", "NONE")? {
        "NONE" => None,
        "LOWER" => Some("lower"),
        "UPPER" => Some("upper"),
        w => {
            return Err(Fail::Bad(format!(
                "case_change_action `{w}`, expected NONE, LOWER or UPPER"
            )));
        }
    };
    let mut stop = ctx.strings("stopwords")?.unwrap_or_default();
    stop.sort_unstable();
    stop.dedup();
    if !stop.is_empty() {
        x = without(graph, x, &stop, ctx.flag("is_case_sensitive", false)?)?;
    }
    if let Some(case) = case {
        x = graph.op("string_case", &[Attr::word(case)], &[x])?;
    }
    if shape.len() == 2 {
        x = graph.unsqueeze(x, &[0])?;
    }
    Ok(vec![x])
}

/// Strings `[C]` that are no stop words; one empty string where none is left.
fn without(graph: &mut Builder<'_>, x: Value, stop: &[&str], sensitive: bool) -> One {
    let (keys, texts) = match sensitive {
        true => (x, graph.strings(&[stop.len()], stop)?),
        false => {
            let lower: Vec<String> = stop.iter().map(|s| s.to_lowercase()).collect();
            let lower: Vec<&str> = lower.iter().map(String::as_str).collect();
            let keys = graph.op("string_case", &[Attr::word("lower")], &[x])?;
            (keys, graph.strings(&[stop.len()], &lower)?)
        }
    };
    let column = graph.unsqueeze(keys, &[1])?;
    let hit = graph.map("equal", &[column, texts])?;
    let hits = graph.cast(hit, DType::I32)?;
    let hits = graph.reduce("max", &[1], hits)?;
    let hits = graph.squeeze(hits, &[1])?;
    let stopped = graph.cast(hits, DType::Bool)?;
    let kept = graph.map("not", &[stopped])?;
    // One empty string stands behind them, which is kept where nothing else is.
    let all = graph.reduce("min", &[0], hits);
    let none_left = match graph.shape(x)[0].is(0) {
        true => graph.splat(DType::Bool, &[Dim::ONE], 1)?,
        false => graph.cast(all?, DType::Bool)?,
    };
    let empty = graph.strings(&[1], &[""])?;
    let candidates = graph.concat(0, &[x, empty])?;
    let mask = graph.concat(0, &[kept, none_left])?;
    let at = graph.selected(mask)?;
    graph.gather(0, candidates, at)
}
