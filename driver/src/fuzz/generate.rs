//! Random valid graphs, which bytes decide.
//!
//! Bytes, and no numbers of a generator, so that a fuzzer can change them: each choice takes one, and behind the last all are 0. The same bytes
//! and words give the same graph, in every version: inputs that once found something stay what they were.

use std::fmt::Write;

/// Choices made of bytes; zeros behind the last.
struct Choices<'b> {
    bytes: std::slice::Iter<'b, u8>,
}

impl Choices<'_> {
    fn below(&mut self, n: usize) -> usize {
        usize::from(self.bytes.next().copied().unwrap_or(0)) % n
    }

    fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len())]
    }
}

/// What a random graph is made of.
pub struct Words {
    /// The dtype of all values.
    pub ty: &'static str,
    /// Functions of two operands.
    pub binary: &'static [&'static str],
    /// Functions of one.
    pub unary: &'static [&'static str],
    /// Kinds of reductions.
    pub folds: &'static [&'static str],
    /// Numbers that constants are.
    pub numbers: &'static [&'static str],
    /// Whether matrices are multiplied.
    pub products: bool,
    /// Whether there are layers of networks: convolutions, pooling, norms, products with weights.
    pub layers: bool,
}

/// Integers, which wrap around.
pub const INTEGERS: Words = Words {
    ty: "i32",
    binary: &["add", "sub", "mul", "max", "min"],
    unary: &["neg", "abs"],
    folds: &["sum", "max", "min"],
    numbers: &[],
    products: true,
    layers: false,
};

/// Floats with operators that round nothing.
pub const FLOATS: Words = Words {
    ty: "f32",
    binary: &["max", "min"],
    unary: &["neg", "abs", "relu"],
    folds: &["max", "min"],
    numbers: &[],
    products: false,
    layers: false,
};

/// Floats in layers, of operators that make of a small error no large one: none that jump, or divide by what may be next to nothing.
pub const LAYERS: Words = Words {
    ty: "f32",
    binary: &["add", "sub", "mul", "max", "min"],
    unary: &["relu", "tanh", "sigmoid", "neg", "abs", "erf"],
    folds: &["sum", "max", "min"],
    numbers: &["0.5", "1.0", "0.1", "-2.0", "0.0"],
    products: true,
    layers: true,
};

/// The text of a graph over integers, or over floats with operators that round nothing: every way to compute it gives the same
/// bits.
pub fn random_graph(bytes: &[u8]) -> String {
    let (words, rest) = match bytes.split_first() {
        Some((first, rest)) if first % 2 == 1 => (&FLOATS, rest),
        Some((_, rest)) => (&INTEGERS, rest),
        None => (&INTEGERS, bytes),
    };
    random_graph_of(rest, words)
}

/// The text of a graph of some words, with two inputs and two outputs; the bytes decide it.
pub fn random_graph_of(bytes: &[u8], words: &Words) -> String {
    const NODES: usize = 12;
    let mut c = Choices { bytes: bytes.iter() };
    let Words {
        ty,
        binary,
        unary,
        folds,
        numbers,
        products,
        layers,
    } = *words;
    let list = |x: &[usize]| x.iter().map(usize::to_string).collect::<Vec<_>>().join(", ");
    // Shapes of all values, by their numbers.
    let mut shapes: Vec<Vec<usize>> = vec![];
    for _ in 0..2 {
        let rank = 1 + c.below(3);
        shapes.push((0..rank).map(|_| c.pick(&[1, 2, 3, 5, 8, 17])).collect());
    }
    let mut out = format!(
        "graph @fuzz(%0 a: {ty}[{}], %1 b: {ty}[{}]) {{\n",
        list(&shapes[0]),
        list(&shapes[1])
    );
    let nodes = 1 + c.below(NODES);
    for _ in 0..nodes {
        // Late values more often than early ones.
        let n = shapes.len();
        let v = n - 1 - c.below(n).min(c.below(n));
        let shape = shapes[v].clone();
        let rank = shape.len();
        let axis = c.below(rank.max(1));
        let same = shapes
            .iter()
            .enumerate()
            .filter(|(_, s)| **s == shape)
            .map(|(k, _)| k)
            .collect::<Vec<_>>();
        let other = c.pick(&same);
        let kinds = match (layers, numbers.is_empty()) {
            (true, _) => 16,
            (false, true) => 9,
            (false, false) => 11,
        };
        let kind = c.below(kinds);
        if kind >= 11 {
            if let Some(lines) = layer(kind - 11, &mut c, v, &mut shapes) {
                out += &lines;
            }
            continue;
        }
        let (expression, result) = match kind {
            0 | 1 => (format!("{}(%{v}, %{other})", c.pick(binary)), shape),
            2 => (format!("{}(%{v})", c.pick(unary)), shape),
            3 if rank > 0 => {
                let mut result = shape.clone();
                result[axis] = 1;
                (format!("reduce{{kind={} axes=[{axis}]}}(%{v})", c.pick(folds)), result)
            }
            4 if rank > 1 => {
                let mut perm: Vec<usize> = (0..rank).collect();
                perm.rotate_left(1 + c.below(rank - 1));
                let result = perm.iter().map(|&p| shape[p]).collect();
                (format!("transpose{{perm=[{}]}}(%{v})", list(&perm)), result)
            }
            5 if rank > 0 && shape[axis] <= 64 => {
                let mut result = shape.clone();
                result[axis] *= 2;
                (format!("concat{{axis={axis}}}(%{v}, %{other})"), result)
            }
            6 if rank > 0 && shape[axis] > 1 => {
                let (mut starts, mut sizes) = (vec![0; rank], shape.clone());
                starts[axis] = 1;
                sizes[axis] -= 1;
                let ones = list(&vec![1; rank]);
                let (starts, all) = (list(&starts), list(&sizes));
                (
                    format!("slice{{starts=[{starts}] sizes=[{all}] steps=[{ones}]}}(%{v})"),
                    sizes,
                )
            }
            7 => {
                let result = vec![shape.iter().product()];
                (format!("reshape{{shape=[{}]}}(%{v})", list(&result)), result)
            }
            8 if rank == 2 && products => {
                // With its own transpose: rows by rows.
                let result = vec![shape[0], shape[0]];
                let axes = "lhs_batch=[] rhs_batch=[] lhs_contract=[1] rhs_contract=[1]";
                (format!("contract{{{axes} acc={ty} out={ty}}}(%{v}, %{other})"), result)
            }
            9 | 10 if !numbers.is_empty() => {
                let x = c.pick(numbers);
                (format!("const {ty}[{}] splat {x}", list(&shape)), shape)
            }
            _ => match shape.iter().position(|&d| d == 1) {
                Some(axis) => {
                    let mut result = shape.clone();
                    result[axis] = 1 + c.below(4);
                    (format!("broadcast{{shape=[{}]}}(%{v})", list(&result)), result)
                }
                None if rank < 4 => {
                    let mut result = shape;
                    result.insert(axis, 1);
                    (format!("reshape{{shape=[{}]}}(%{v})", list(&result)), result)
                }
                None => (format!("abs(%{v})"), shape),
            },
        };
        // What grows too large is not used further.
        if result.iter().product::<usize>() > 1 << 14 {
            continue;
        }
        let _ = writeln!(out, "  %{n} = {expression}");
        shapes.push(result);
    }
    let last = shapes.len() - 1;
    let middle = c.below(shapes.len());
    let _ = writeln!(out, "  return y = %{last}, z = %{middle}\n}}");
    out
}

/// A layer on a value, where there is one of the kind: its lines, with those of its weights. Its values are added to the shapes.
fn layer(kind: usize, c: &mut Choices, v: usize, shapes: &mut Vec<Vec<usize>>) -> Option<String> {
    let list = |x: &[usize]| x.iter().map(usize::to_string).collect::<Vec<_>>().join(", ");
    let shape = shapes[v].clone();
    let rank = shape.len();
    let last = *shape.last()?;
    let mut out = String::new();
    let mut weights = |shape: &[usize], shapes: &mut Vec<Vec<usize>>, c: &mut Choices| {
        let (n, len, seed) = (shapes.len(), shape.iter().product::<usize>(), c.below(256));
        // Quarters, whose sums are exact for a while.
        let numbers = (0..len).map(|i| format!("{:?}", ((i * 7 + seed) % 9) as f64 / 4.0 - 1.0));
        let numbers = numbers.collect::<Vec<_>>().join(", ");
        let _ = writeln!(out, "  %{n} = const f32[{}] [{numbers}]", list(shape));
        shapes.push(shape.to_vec());
        n
    };
    let (expression, result) = match kind {
        0 => (format!("softmax{{axis={} zeros=never}}(%{v})", c.below(rank)), shape),
        1 => {
            let (scale, bias) = (weights(&[last], shapes, c), weights(&[last], shapes, c));
            let norm = format!("layer_norm{{axis={} eps=0.001}}(%{v}, %{scale}, %{bias})", rank - 1);
            (norm, shape)
        }
        2 if rank >= 2 => {
            let columns = c.pick(&[1, 3, 8, 16]);
            let w = weights(&[last, columns], shapes, c);
            let axes = format!("lhs_batch=[] rhs_batch=[] lhs_contract=[{}] rhs_contract=[0]", rank - 1);
            let result = [&shape[..rank - 1], &[columns]].concat();
            (format!("contract{{{axes} acc=f32 out=f32}}(%{v}, %{w})"), result)
        }
        // Rows and columns around which there are as many zeros as the window hangs over.
        3 if rank == 3 => {
            let (channels, taps) = (c.pick(&[1, 4, 8]), c.pick(&[1, 3]));
            let w = weights(&[channels, shape[1], taps], shapes, c);
            let pads = format!("pads_low=[{0}] pads_high=[{0}]", taps / 2);
            let conv = format!("conv{{strides=[1] dilations=[1] {pads} groups=1 acc=f32 out=f32}}(%{v}, %{w})");
            (conv, vec![shape[0], channels, last])
        }
        4 if rank == 3 && last >= 2 => {
            let word = c.pick(&["max", "sum"]);
            let sizes = last / 2;
            let window = "kernel=[2] strides=[2] dilations=[1] pads_low=[0] pads_high=[0]";
            let result = vec![shape[0], shape[1], sizes];
            (format!("pool{{kind={word} {window} sizes=[{sizes}]}}(%{v})"), result)
        }
        _ => return None,
    };
    if result.iter().product::<usize>() <= 1 << 14 {
        let n = shapes.len();
        let _ = writeln!(out, "  %{n} = {expression}");
        shapes.push(result);
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Random;
    use brolga_ir::Graph;
    use std::collections::BTreeSet;

    #[test]
    fn graphs_are_valid_and_have_every_kind_of_operator() {
        let mut seen = BTreeSet::new();
        for seed in 0..400 {
            let mut r = Random::new(seed);
            let bytes: Vec<u8> = (0..96).map(|_| r.bits() as u8).collect();
            for words in [&INTEGERS, &FLOATS, &LAYERS] {
                let text = random_graph_of(&bytes, words);
                let g = Graph::parse(&text, &|_| None).unwrap_or_else(|e| panic!("{e}\n{text}"));
                g.verify().unwrap_or_else(|e| panic!("{e}\n{text}"));
                seen.extend(g.nodes.iter().map(|n| n.op.name()));
            }
        }
        for op in [
            "softmax",
            "layer_norm",
            "contract",
            "conv",
            "pool",
            "reduce",
            "concat",
            "slice",
            "transpose",
            "tanh",
        ] {
            assert!(seen.contains(op), "no {op}: {seen:?}");
        }
    }
}
