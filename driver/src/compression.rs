//! What few bits cost the matrices of a model: bytes, and the error of each.

use brolga_ir::graph::{ConstData, Constant};
use brolga_ir::loops::BLOCK;
use brolga_ir::ops::{BlockFormat, compress_block, restore_block};
use brolga_ir::{DType, Def, Graph, Node, Value};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

/// A matrix that is kept in fewer bits.
#[derive(Clone, Debug, PartialEq)]
pub struct Matrix {
    /// The module that it belongs to.
    pub module: String,
    /// Its extents.
    pub shape: [usize; 2],
    /// Bytes of it as it is stored.
    pub stored: u64,
    /// Bytes of its integers, scales and minima.
    pub kept: u64,
    /// The root of the summed squares of what is lost, over that of the elements'; `None` where the matrix is computed, as one that adapters
    /// are merged into.
    pub error: Option<f64>,
}

/// The matrices that a folder's graph keeps in fewer bits, in its order. All threads of the machine look at them.
pub fn matrices(graph: &Graph) -> Vec<Matrix> {
    let nodes: Vec<&Node> = graph
        .nodes
        .iter()
        .filter(|n| matches!(n.op.name(), "compress_blocks" | "unpack_blocks"))
        .collect();
    let (next, done) = (AtomicUsize::new(0), Mutex::new(vec![]));
    thread::scope(|s| {
        for _ in 0..thread::available_parallelism().map_or(1, usize::from) {
            s.spawn(|| {
                loop {
                    let place = next.fetch_add(1, Ordering::Relaxed);
                    let Some(node) = nodes.get(place) else { return };
                    let made = matrix(graph, node);
                    done.lock().expect("nobody panics").push((place, made));
                }
            });
        }
    });
    let mut done = done.into_inner().expect("nobody panics");
    done.sort_by_key(|(place, _)| *place);
    done.into_iter().map(|(_, m)| m).collect()
}

fn matrix(graph: &Graph, node: &Node) -> Matrix {
    let ty = graph.ty(node.inputs[0]);
    let mut extents = brolga_ir::dim::constants(&ty.shape).expect("weights have known extents");
    let format = (node.op.name() == "unpack_blocks").then(|| {
        let format = BlockFormat::named(node.op.word("format")).expect("it was checked");
        extents[1] = extents[1] / format.bytes() * format.elements();
        format
    });
    let bytes = |v: &brolga_ir::Value| {
        let ty = graph.ty(*v);
        ty.len().as_const().unwrap_or(0) as u64 * ty.dtype.bytes() as u64
    };
    let constant = match graph.def(node.inputs[0]) {
        Def::Const(i) => Some(&graph.constants[i as usize]),
        _ => None,
    };
    Matrix {
        module: node.origin.to_string(),
        shape: [extents[0], extents[1]],
        stored: bytes(&node.inputs[0]),
        kept: node.outputs.iter().map(bytes).sum(),
        error: match format {
            Some(format) => unpacked(graph, node.inputs[0]).map(|bytes| error_of(format, bytes)),
            None => constant.and_then(|c| error(c, node.op.int("axis") as usize, node.op.int("bits") == 4)),
        },
    }
}

/// The bytes of a constant; those of one whose rows were moved are the same in another order.
fn unpacked(graph: &Graph, mut v: Value) -> Option<&[u8]> {
    loop {
        match graph.def(v) {
            Def::Const(i) => return bytes(&graph.constants[i as usize]),
            Def::Node(n, _) => {
                let node = &graph.nodes[n as usize];
                match node.op.name() {
                    "reshape" | "transpose" => v = node.inputs[0],
                    _ => return None,
                }
            }
            _ => return None,
        }
    }
}

/// The relative error of what is made of blocks of a format.
fn error_of(format: BlockFormat, bytes: &[u8]) -> f64 {
    let (mut lost, mut all) = (0f64, 0f64);
    for block in bytes.chunks_exact(format.bytes()) {
        let kept = format.unpack(block).into_iter();
        let kept = kept.flat_map(|(q, scale, least)| restore_block(&q, scale, least, format.unpacked_bits() == 4));
        for (x, y) in format.decode(block).into_iter().zip(kept) {
            lost += f64::from(x - y).powi(2);
            all += f64::from(x).powi(2);
        }
    }
    if all > 0.0 { (lost / all).sqrt() } else { 0.0 }
}

fn bytes(c: &Constant) -> Option<&[u8]> {
    match &c.data {
        ConstData::Dense(t) => Some(t.bytes()),
        ConstData::File { source, offset } => source
            .bytes()
            .get(*offset..)?
            .get(..c.ty.len().as_const()? as usize * c.ty.dtype.bytes()),
        ConstData::Splat(_) => None,
    }
}

/// The relative error of a constant in blocks along an axis.
fn error(c: &Constant, axis: usize, four: bool) -> Option<f64> {
    let bytes = bytes(c)?;
    let extents = brolga_ir::dim::constants(&c.ty.shape)?;
    let (rows, columns) = (extents[0], extents[1]);
    let element = |i: usize| number(c.ty.dtype, bytes, i);
    let size = BLOCK as usize;
    let (mut lost, mut all) = (0f64, 0f64);
    let mut block = vec![0f32; size];
    for first in 0..rows * columns / size {
        let at = match axis {
            1 => [first * size, 1],
            // Blocks go down the columns.
            _ => [first / columns * size * columns + first % columns, columns],
        };
        for (k, x) in block.iter_mut().enumerate() {
            *x = element(at[0] + k * at[1]);
        }
        let (q, scale, least) = compress_block(&block, four);
        for (x, y) in block.iter().zip(restore_block(&q, scale, least, four)) {
            lost += f64::from(x - y).powi(2);
            all += f64::from(*x).powi(2);
        }
    }
    Some(if all > 0.0 { (lost / all).sqrt() } else { 0.0 })
}

fn number(dtype: DType, bytes: &[u8], i: usize) -> f32 {
    let at = |n: usize| &bytes[i * n..][..n];
    match dtype {
        DType::F32 => f32::from_le_bytes(at(4).try_into().expect("four bytes")),
        half => half.from_half(u16::from_le_bytes(at(2).try_into().expect("two bytes"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use brolga_ir::{Attr, Build, GraphBuilder, Tensor};

    #[test]
    fn errors_are_those_of_the_integers() {
        for (bits, axis, most) in [(8, 1, 0.006), (8, 0, 0.006), (4, 1, 0.1), (4, 0, 0.1)] {
            let mut graph = Graph::new("g");
            let values: Vec<u8> = (0..64 * 64)
                .flat_map(|i| ((i * 7919 % 1000) as f32 / 500.0 - 1.0).to_le_bytes())
                .collect();
            let w = graph.dense(Tensor::new(DType::F32, vec![64, 64], values).expect("a tensor"));
            let mut b = GraphBuilder {
                graph: &mut graph,
                origin: "layer".into(),
            };
            let op = brolga_ir::Op::new("compress_blocks", &[Attr::Int(bits), Attr::Int(axis)]).expect("an operator");
            b.add(op, &[w]).expect("it fits");
            let [m] = &matrices(&graph)[..] else {
                panic!("one matrix")
            };
            let kept = if bits == 8 {
                64 * 64 + 2 * 128
            } else {
                64 * 32 + 4 * 128
            };
            assert_eq!(
                (m.module.as_str(), m.shape, m.stored, m.kept),
                ("layer", [64, 64], 4 * 64 * 64, kept)
            );
            let error = m.error.expect("it is a constant");
            assert!(error > 0.0 && error < most, "{bits} bits along {axis}: {error}");
        }
    }
}
