//! `TfIdfVectorizer`: how often n-grams of a vocabulary stand in sequences of integers or strings.
//!
//! A token becomes its position in the vocabulary, an n-gram the number that its positions are the digits of, which is looked up among
//! those that count; what is found is added up at its place in the result. Nothing of it needs a host.

use super::*;
use brolga_ir::{Attr, DType, Dim, Number, Tensor};
use rustc_hash::FxHashMap;

/// A wider result than that is a mistake.
const WIDEST: usize = 1 << 26;
/// Skips of sequences of unknown length.
const MOST_SKIPS: i64 = 1 << 10;

/// What a node counts.
struct Vocabulary {
    /// Distinct tokens, by the number that they have from then on.
    tokens: Tensor,
    /// For each length from 1 on: the n-grams by their tokens' numbers, each with its place in the result.
    grams: Vec<Vec<(Vec<usize>, i64)>>,
    /// Extent of the result.
    width: usize,
    /// Factors of the places.
    weights: Vec<f32>,
}

fn vocabulary(graph: &mut Builder<'_>, ctx: &NodeCtx<'_>) -> Result<Vocabulary, Fail> {
    let pool = match (ctx.ints("pool_int64s")?, ctx.strings("pool_strings")?) {
        (Some(p), None) => Tensor::from_i64(&[p.len()], p),
        (None, Some(p)) => graph.files.strings.tensor(&[p.len()], &p)?,
        _ => return Err("a pool of integers or of strings is missing".into()),
    };
    let starts = ctx.ints("ngram_counts")?.unwrap_or_default();
    let places = ctx.ints("ngram_indexes")?.unwrap_or_default();
    let width = places.iter().max().map_or(0, |m| m.saturating_add(1));
    let width = usize::try_from(width).ok().filter(|w| *w <= WIDEST);
    let width = width.ok_or_else(|| format!("ngram_indexes are not in 0..{WIDEST}"))?;
    let mut numbers: FxHashMap<i128, usize> = FxHashMap::default();
    let mut distinct: Vec<Number> = vec![];
    let all: Vec<usize> = (pool.iter())
        .map(|x| {
            *numbers.entry(x.int()).or_insert_with(|| {
                distinct.push(x);
                distinct.len() - 1
            })
        })
        .collect();
    let mut grams = vec![];
    let mut next = places.iter();
    for (i, &start) in starts.iter().enumerate() {
        let end = starts.get(i + 1).copied().unwrap_or(all.len() as i64);
        let part = usize::try_from(start).ok().zip(usize::try_from(end).ok());
        let part = part.and_then(|(a, b)| all.get(a..b)).filter(|p| p.len() % (i + 1) == 0);
        let part = part.ok_or_else(|| format!("ngram_counts {starts:?} for a pool of {}", all.len()))?;
        let mut of_length = vec![];
        for gram in part.chunks_exact(i + 1) {
            let place = next.next().filter(|p| **p >= 0);
            of_length.push((
                gram.to_vec(),
                *place.ok_or("fewer ngram_indexes than n-grams, or a negative one")?,
            ));
        }
        grams.push(of_length);
    }
    let mut weights = vec![1.0; width];
    if let Some(given) = ctx.floats("weights")?.filter(|w| !w.is_empty()) {
        if given.len() != places.len() {
            return Err(Fail::Bad(format!(
                "{} weights for {} n-grams",
                given.len(),
                places.len()
            )));
        }
        for (&p, &w) in places.iter().zip(given) {
            if let Some(weight) = usize::try_from(p).ok().and_then(|p| weights.get_mut(p)) {
                *weight = w;
            }
        }
    }
    let n = distinct.len();
    Ok(Vocabulary {
        tokens: Tensor::from_fn(pool.dtype(), &[n], |i| distinct[i]),
        grams,
        width,
        weights,
    })
}

/// `TfIdfVectorizer` of `[C]` or `[N, C]`.
pub fn vectorize(graph: &mut Builder<'_>, ctx: &NodeCtx<'_>) -> Outcome {
    ctx.arity(1, 1)?;
    let given = ctx.input(0)?;
    let v = vocabulary(graph, ctx)?;
    let length = |name: &str| match ctx.opt_int(name)? {
        Some(n) if n >= 1 => Ok(n as usize),
        n => Err(Fail::Bad(format!("{name} {n:?}, expected 1 or more"))),
    };
    let (least, most) = (length("min_gram_length")?, length("max_gram_length")?);
    let skips = ctx.int("max_skip_count", 0)?.max(0);
    let rank = graph.rank(given);
    let x = match rank {
        1 => graph.unsqueeze(given, &[0])?,
        2 => given,
        _ => return Err(Fail::Bad(format!("{}, expected rank 1 or 2", graph.ty(given)))),
    };
    let x = match graph.dtype(x) {
        DType::Str => x,
        _ => graph.cast(x, DType::I64)?,
    };
    if graph.dtype(x) != v.tokens.dtype() {
        return Err(Fail::Bad(format!(
            "{} for a pool of {}",
            graph.ty(given),
            v.tokens.dtype()
        )));
    }
    // One number more stands for what is in no n-gram, and behind the end.
    let unknown = v.tokens.len() as i64;
    let tokens = graph.positions(x, &v.tokens, false)?;
    let shape = graph.shape(tokens);
    let columns = shape[1].clone();
    let mut counts = graph.splat(DType::F32, &[shape[0].clone(), Dim::from(v.width + 1)], 0.0)?;
    for n in least..=most.min(v.grams.len()) {
        let Some(grams) = v.grams.get(n - 1).filter(|g| !g.is_empty()) else {
            continue;
        };
        for skip in 0..=if n == 1 { 0 } else { skips } {
            let reach = (n as i64 - 1)
                .checked_mul(skip + 1)
                .ok_or("max_skip_count is too large")?;
            if columns.as_const().is_some_and(|c| reach >= c) {
                break;
            }
            if skip > MOST_SKIPS {
                return unsupported(format!("more than {MOST_SKIPS} skips"));
            }
            let pads = [vec![Dim::ZERO; 2], vec![Dim::ZERO, Dim::Const(reach)]];
            let [low, high] = pads;
            let padded = graph.pad(tokens, low, high, vec![0; 2], unknown)?;
            let at = |graph: &mut Builder<'_>, j: usize| {
                graph.slice_axis(padded, 1, Dim::Const(j as i64 * (skip + 1)), columns.clone())
            };
            let base = unknown + 1;
            let fits = i32::try_from(n).ok().and_then(|n| base.checked_pow(n as u32));
            if fits.is_none() {
                return unsupported(format!("{n}-grams of {unknown} tokens"));
            }
            let mut key = at(graph, 0)?;
            for j in 1..n {
                let digit = at(graph, j)?;
                let scaled = graph.map_num("mul", key, base)?;
                key = graph.map("add", &[scaled, digit])?;
            }
            let number = |gram: &[usize]| gram.iter().fold(0, |k, &t| k * base + t as i64);
            let keys: Vec<i64> = grams.iter().map(|g| number(&g.0)).collect();
            let found = graph.positions(key, &Tensor::from_i64(&[keys.len()], &keys), false)?;
            // What is no n-gram is counted behind the others.
            let mut places: Vec<i64> = grams.iter().map(|g| g.1).collect();
            places.push(v.width as i64);
            let places = graph.ints(&places);
            let place = graph.gather(0, places, found)?;
            let ones = graph.splat(DType::F32, &graph.shape(place), 1.0)?;
            counts = graph.op(
                "scatter_elements",
                &[Attr::Int(1), Attr::word("add")],
                &[counts, place, ones],
            )?;
        }
    }
    let counts = graph.slice_axis(counts, 1, Dim::ZERO, Dim::from(v.width))?;
    let weights = graph.dense(Tensor::from_f32(&[v.width], &v.weights));
    let y = match ctx.string("mode", "")? {
        "TF" => counts,
        "IDF" => {
            let once = graph.map_num("min", counts, 1.0)?;
            graph.map("mul", &[once, weights])?
        }
        "TFIDF" => graph.map("mul", &[counts, weights])?,
        w => return Err(Fail::Bad(format!("mode `{w}`, expected TF, IDF or TFIDF"))),
    };
    one(match rank {
        1 => graph.squeeze(y, &[0]),
        _ => Ok(y),
    })
}
