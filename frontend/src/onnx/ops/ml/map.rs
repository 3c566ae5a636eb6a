//! Operators on maps: `CastMap`, `DictVectorizer`. A map comes in as two inputs of the graph, its keys and its values, in any order; no
//! key stands there twice (if one does, `DictVectorizer` and sparse results have its last value).
//!
//! ```text
//! m: map(string, float)   -->   m[keys]: str[m_entries], m[values]: f32[m_entries]
//! ```

use super::*;
use brolga_ir::{Attr, DType, Tensor};
use rustc_hash::FxHashMap;

type Slots = Result<Vec<Slot>, Fail>;

/// Decimals of numbers that `CastMap` makes strings of.
const DECIMALS: i64 = 6;
/// What ONNX Runtime has among strings where a map has no entry.
const NO_ENTRY: &str = "0.f";

/// The keys and values of a node's only operand.
fn parts(slots: &[Slot]) -> Result<[Value; 2], Fail> {
    match slots {
        [Slot::Map(parts)] => Ok(*parts),
        _ => Err(Fail::Bad("expected a map, and nothing else".into())),
    }
}

/// `CastMap`: the values as `[1, N]`, in the order of their keys, or sparse, each in the column of its key: what has a key beyond is left
/// out, and where there is none it is 0.
pub fn cast<'m>(im: &mut Importer<'m>, ctx: &NodeCtx<'m>, slots: &[Slot]) -> Slots {
    let [keys, values] = parts(slots)?;
    let graph = &mut im.graph;
    if graph.dtype(keys) != DType::I64 {
        return Err(Fail::Bad(format!("keys {}, expected i64", graph.ty(keys))));
    }
    let to = match ctx.string("cast_to", "TO_FLOAT")? {
        "TO_FLOAT" => DType::F32,
        "TO_INT64" => DType::I64,
        "TO_STRING" => DType::Str,
        w => {
            return Err(Fail::Bad(format!(
                "cast_to `{w}`, expected TO_FLOAT, TO_INT64 or TO_STRING"
            )));
        }
    };
    let values = match (graph.dtype(values), to) {
        (from, to) if from == to => values,
        (DType::Str, to) => graph.op("string_parse", &[Attr::DType(to)], &[values])?,
        (_, DType::Str) => graph.op("string_format", &[Attr::Int(DECIMALS)], &[values])?,
        _ => graph.cast(values, to)?,
    };
    let y = match ctx.string("map_form", "DENSE")? {
        "DENSE" => {
            let row = graph.rows(keys)?;
            let key = graph.sort_key(row, false)?;
            let order = graph.sorted_positions(key)?;
            graph.gather(0, values, order)?
        }
        "SPARSE" => {
            let n = ctx.int("max_map", 1)?;
            let n = usize::try_from(n).ok().filter(|n| *n > 0);
            let n = n.ok_or("max_map is not positive")?;
            let inside = graph.map_num("less", keys, n as i64)?;
            let nowhere = graph.scalar(DType::I64, n as i64);
            let place = graph.map("where", &[inside, keys, nowhere])?;
            // A negative key is an error of the run, as in ONNX Runtime: it is no place counted from the end.
            let negative = graph.map_num("less", keys, 0)?;
            let invalid = graph.scalar(DType::I64, n as i64 + 1);
            let place = graph.map("where", &[negative, invalid, place])?;
            let blank = match to {
                DType::Str => graph.strings(&[], &[NO_ENTRY])?,
                _ => graph.scalar(to, 0),
            };
            graph.placed(place, values, n, blank)?
        }
        w => return Err(Fail::Bad(format!("map_form `{w}`, expected DENSE or SPARSE"))),
    };
    Ok(vec![Slot::Value(y)])
}

/// `DictVectorizer`: `[1, C]`, for each element of the vocabulary the value that the map has for it, or 0.
pub fn vectorize<'m>(im: &mut Importer<'m>, ctx: &NodeCtx<'m>, slots: &[Slot]) -> Slots {
    let [keys, values] = parts(slots)?;
    let graph = &mut im.graph;
    let vocabulary = match (ctx.strings("string_vocabulary")?, ctx.ints("int64_vocabulary")?) {
        (Some(s), None) => graph.files.strings.tensor(&[s.len()], &s)?,
        (None, Some(i)) => Tensor::from_i64(&[i.len()], i),
        _ => return Err("expected one vocabulary, of strings or of int64".into()),
    };
    if graph.dtype(keys) != vocabulary.dtype() {
        return Err(Fail::Bad(format!(
            "keys {} for a vocabulary of {}",
            graph.ty(keys),
            vocabulary.dtype()
        )));
    }
    let n = vocabulary.len();
    let place = graph.positions(keys, &vocabulary, false)?;
    let blank = graph.scalar(graph.dtype(values), 0);
    let mut y = graph.placed(place, values, n, blank)?;
    // What stands in the vocabulary again has its value again.
    let mut first: FxHashMap<i64, i64> = FxHashMap::default();
    let words = vocabulary.to_i64s().into_iter().zip(0..);
    let places: Vec<i64> = words.map(|(w, i)| *first.entry(w).or_insert(i)).collect();
    if first.len() < n {
        let places = graph.ints(&places);
        y = graph.gather(1, y, places)?;
    }
    Ok(vec![Slot::Value(y)])
}

impl Builder<'_> {
    /// Values `[E]` at their places in a row `[1, n]` of something else; those at the place `n` are left out.
    fn placed(&mut self, places: Value, values: Value, n: usize, blank: Value) -> One {
        // Strings cannot be scattered; which of the values it is, can. The blank one is the first.
        let entries = self.shape(values);
        let number = self.iota(DType::I64, &entries, 0)?;
        let number = self.map_num("add", number, 1)?;
        let none = self.splat(DType::I64, &[Dim::from(n + 1)], 0)?;
        let attrs = [Attr::Int(0), Attr::word("none")];
        let which = self.op("scatter_elements", &attrs, &[none, places, number])?;
        let which = self.slice_axis(which, 0, Dim::ZERO, Dim::from(n))?;
        let which = self.unsqueeze(which, &[0])?;
        let blank = self.unsqueeze(blank, &[0])?;
        let all = self.concat(0, &[blank, values])?;
        self.gather(0, all, which)
    }
}
