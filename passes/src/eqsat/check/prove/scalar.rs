//! Whether two functions of the same elements are the same function, in every dtype: as the same operations on scalars, or because
//! there are so few operands that all of them can be tried.

use super::element::Element;
use super::term::Scalar;
use brolga_ir::DType;
use brolga_ir::scalar::{self, Body, Builder, Inst, V};

/// The most bits that the operands which matter have together where all of them are tried: a condition and a number of 16 bits.
const MOST_BITS: usize = 17;

/// The most dtypes that the elements of a rule have.
const MOST_DTYPES: usize = 2;

/// Whether both are equal for all elements, in every dtype in which the first one can be computed; NaN equals NaN.
pub(super) fn same(left: &Element, right: &Element) -> bool {
    let (mut leaves, mut dtypes) = (vec![], vec![]);
    let known = [left, right].into_iter().all(|e| collect(e, &mut leaves, &mut dtypes));
    if !known || dtypes.len() > MOST_DTYPES {
        return false;
    }
    let all: Vec<DType> = DType::ALL.iter().copied().filter(|d| d.small().is_none()).collect();
    let mut proved = 0;
    for n in 0..all.len().pow(dtypes.len() as u32) {
        let of = |d: usize| {
            let at = dtypes.iter().position(|x| *x == d).expect("it was collected");
            all[n / all.len().pow(at as u32) % all.len()]
        };
        let inputs: Vec<DType> = leaves.iter().filter_map(|e| dtype(e)).map(of).collect();
        let mut b = Builder::new(&inputs);
        let Some(l) = build(left, &leaves, &of, &mut b) else {
            continue;
        };
        let Some(r) = build(right, &leaves, &of, &mut b) else {
            return false;
        };
        if l != r && (b.dtype(l) != b.dtype(r) || !equal_everywhere(b.finish(&[l, r]))) {
            return false;
        }
        proved += 1;
    }
    proved > 0
}

/// What is no function, each once, and the dtypes of these and of numbers; false where the dtype of one is not known.
fn collect<'e>(e: &'e Element, leaves: &mut Vec<&'e Element>, dtypes: &mut Vec<usize>) -> bool {
    if let Element::Map(_, operands) = e {
        return operands.iter().all(|o| collect(o, leaves, dtypes));
    }
    let Some(d) = dtype(e) else { return false };
    if !dtypes.contains(&d) {
        dtypes.push(d);
    }
    if !matches!(e, Element::Number(..)) && !leaves.contains(&e) {
        leaves.push(e);
    }
    true
}

/// The dtype of what is no function.
fn dtype(e: &Element) -> Option<usize> {
    match e {
        Element::Of(.., d) | Element::NumberOf(_, d) | Element::Number(_, d) => Some(*d),
        Element::Where(_, then, _) => dtype(then),
        Element::Map(..) => None,
    }
}

/// The operations of an element; `None` where the dtypes are none that its functions take.
fn build(e: &Element, leaves: &[&Element], of: &dyn Fn(usize) -> DType, b: &mut Builder) -> Option<V> {
    match e {
        Element::Number(x, d) => Some(b.constant(of(*d), *x)),
        Element::Map(Scalar::Known(f, to), operands) => {
            let operands = operands.iter().map(|o| build(o, leaves, of, b));
            let operands: Vec<V> = operands.collect::<Option<_>>()?;
            f.expand(b, &operands, *to).ok()
        }
        Element::Map(Scalar::Any(_), _) => None,
        e => Some(b.input(leaves.iter().position(|l| *l == e)?)),
    }
}

/// Whether both results are equal for all operands; false where there are too many to try.
fn equal_everywhere(body: Body) -> bool {
    let used: Vec<bool> = (0..body.inputs.len() as u32).map(|i| uses(&body, V(i))).collect();
    let bits = |i: usize| match body.inputs[i] {
        _ if !used[i] => 0,
        DType::Bool => 1,
        d => d.bits(),
    };
    let total: usize = (0..used.len()).map(bits).sum();
    if total > MOST_BITS {
        return false;
    }
    (0..1u64 << total).all(|mut n| {
        let mut operands = vec![];
        for (i, &dtype) in body.inputs.iter().enumerate() {
            operands.push(scalar::Scalar {
                dtype,
                bits: n & ((1 << bits(i)) - 1),
            });
            n >>= bits(i);
        }
        let results = body.eval_scalars(&operands);
        let (x, y) = (results[0].number().f64(), results[1].number().f64());
        results[0] == results[1] || x.is_nan() && y.is_nan()
    })
}

/// Whether anything depends on an input.
fn uses(body: &Body, input: V) -> bool {
    let reads = |inst: &Inst| matches!(inst, Inst::Prim(_, operands) if operands.contains(&input));
    body.outputs.contains(&input) || body.insts.iter().any(reads)
}
