//! Changes of inputs by random numbers: of bytes, and of the parts of a model.
//!
//! A model with a random byte changed is seldom read to its end: a length does not fit, or a name is defined by nothing. Changes of parts
//! leave the file whole, so that what is wrong with it is found behind the parser: nodes are dropped, repeated or come from another
//! model, operands are swapped, attributes, types, extents and contents become others, in any graph of the model.

use crate::random::Random;
use onnx_protobuf::attribute_proto::AttributeType;
use onnx_protobuf::tensor_shape_proto::{Dimension, dimension};
use onnx_protobuf::{
    AttributeProto, GraphProto, Message, ModelProto, NodeProto, TensorProto, TensorShapeProto, TypeProto,
    ValueInfoProto, type_proto,
};

/// Bytes with a few changes: of bits, of bytes, of lengths, parts cut out, repeated, or taken from another input.
pub fn bytes(seed: &[u8], other: &[u8], r: &mut Random) -> Vec<u8> {
    let mut out = seed.to_vec();
    for _ in 0..1 + r.below(4) {
        if out.is_empty() {
            out.push(r.below(256) as u8);
        }
        let (at, n) = (r.below(out.len()), 1 + r.below(16));
        let end = (at + n).min(out.len());
        match r.below(7) {
            0 => out[at] ^= 1 << r.below(8),
            1 => out[at] = r.below(256) as u8,
            2 => out[at] = r.pick(&[0, 1, 0x7f, 0x80, 0xff, b'-', b'9', b'[', b'}']),
            3 => drop(out.drain(at..end)),
            4 => {
                let part = out[at..end].to_vec();
                out.splice(at..at, part);
            }
            5 => out.truncate(at),
            _ if !other.is_empty() => {
                let from = r.below(other.len());
                let part = &other[from..(from + n).min(other.len())];
                out.splice(at..end, part.iter().copied());
            }
            _ => {}
        }
    }
    out
}

/// A model with a few of its parts changed, some to parts of another model; `None` where the seed is no model.
pub fn model(seed: &[u8], other: &[u8], r: &mut Random) -> Option<Vec<u8>> {
    let mut m = ModelProto::parse_from_bytes(seed).ok()?;
    m.graph.as_ref()?;
    let other = ModelProto::parse_from_bytes(other).unwrap_or_default();
    for _ in 0..1 + r.below(4) {
        match r.below(32) {
            0 => {
                if let Some(o) = one(&mut m.opset_import, r) {
                    o.version = 6 + r.below(22) as i64;
                }
            }
            1 => {
                if let Some(f) = one(&mut m.functions, r)
                    && let Some(a) = one(&mut f.node, r).and_then(|n| one(&mut n.attribute, r))
                {
                    attribute(a, r);
                }
            }
            _ => graph(m.graph.mut_or_insert_default(), &other.graph, &mut vec![], r),
        }
    }
    m.write_to_bytes().ok()
}

/// One of a list.
fn one<'a, T>(list: &'a mut [T], r: &mut Random) -> Option<&'a mut T> {
    match list.len() {
        0 => None,
        n => Some(&mut list[r.below(n)]),
    }
}

/// A number that is at an end of something, or small.
fn number(r: &mut Random) -> i64 {
    let ends = [i64::MIN, i64::MAX, i32::MIN.into(), i32::MAX.into(), 1 << 20, 1 << 33];
    match r.below(8) {
        0 => r.pick(&ends),
        _ => r.below(14) as i64 - 4,
    }
}

fn float(r: &mut Random) -> f32 {
    r.pick(&[
        0.0,
        -0.0,
        1.0,
        -1.0,
        0.5,
        1e-30,
        1e30,
        f32::INFINITY,
        f32::NEG_INFINITY,
        f32::NAN,
    ])
}

/// Changes a list: an element, its length, its order.
fn list<T: Clone>(all: &mut Vec<T>, r: &mut Random, any: impl Fn(&mut Random) -> T) {
    let at = r.below(all.len() + 1);
    match r.below(5) {
        0 => all.insert(at, any(r)),
        1 => drop(all.pop()),
        2 if all.len() > 1 => {
            let (a, b) = (r.below(all.len()), r.below(all.len()));
            all.swap(a, b);
        }
        _ if at < all.len() => all[at] = any(r),
        _ => all.push(any(r)),
    }
}

/// Changes a part of a graph, or of a graph in one of its nodes. `names` are those of the graphs around.
fn graph(g: &mut GraphProto, other: &GraphProto, names: &mut Vec<String>, r: &mut Random) {
    names.extend(g.input.iter().map(|i| i.name.clone()));
    names.extend(g.initializer.iter().map(|t| t.name.clone()));
    names.extend(g.node.iter().flat_map(|n| n.output.iter().cloned()));
    let nested = |(k, n): (usize, &NodeProto)| {
        let inner = n.attribute.iter().position(|a| a.g.is_some());
        inner.map(|a| (k, a))
    };
    let inner: Vec<(usize, usize)> = g.node.iter().enumerate().filter_map(nested).collect();
    if !inner.is_empty() && r.below(2) == 0 {
        let (node, attribute) = r.pick(&inner);
        return graph(
            g.node[node].attribute[attribute].g.mut_or_insert_default(),
            other,
            names,
            r,
        );
    }
    let any = |names: &[String], r: &mut Random| match names.len() {
        0 => String::new(),
        n => names[r.below(n)].clone(),
    };
    match r.below(16) {
        0 if !g.node.is_empty() => {
            g.node.remove(r.below(g.node.len()));
        }
        1 => {
            if let Some(mut n) = one(&mut g.node, r).cloned() {
                for o in &mut n.output {
                    o.push('_');
                }
                // Its results are used, or nobody sees what they are.
                if let (Some(o), Some(user)) = (n.output.first(), one(&mut g.output, r)) {
                    user.name = o.clone();
                }
                g.node.push(n);
            }
        }
        2 => {
            // A node of another model on values of this one.
            let mut from = other.node.clone();
            let Some(n) = one(&mut from, r) else { return };
            for i in n.input.iter_mut().filter(|i| !i.is_empty()) {
                let constant = other.initializer.iter().find(|t| t.name == *i);
                match constant {
                    Some(t) if !names.contains(i) => g.initializer.push(t.clone()),
                    _ => *i = any(names, r),
                }
            }
            for o in n.output.iter_mut() {
                o.push('+');
            }
            if let (Some(o), Some(user)) = (n.output.first(), one(&mut g.output, r)) {
                user.name = o.clone();
            }
            g.node.push(n.clone());
        }
        3 | 4 => {
            if let Some(n) = one(&mut g.node, r) {
                let mut operands = std::mem::take(&mut n.input);
                list(&mut operands, r, |r| match r.below(4) {
                    0 => String::new(),
                    _ => any(names, r),
                });
                n.input = operands;
            }
        }
        5 => {
            let kinds: Vec<(String, String)> = other
                .node
                .iter()
                .chain(&g.node)
                .map(|n| (n.domain.clone(), n.op_type.clone()))
                .collect();
            if let Some(n) = one(&mut g.node, r) {
                (n.domain, n.op_type) = kinds[r.below(kinds.len())].clone();
            }
        }
        6..=8 => {
            let mut with: Vec<&mut NodeProto> = g.node.iter_mut().filter(|n| !n.attribute.is_empty()).collect();
            if let Some(n) = one(&mut with, r) {
                let at = r.below(n.attribute.len());
                match r.below(8) {
                    0 => drop(n.attribute.remove(at)),
                    _ => attribute(&mut n.attribute[at], r),
                }
            }
        }
        9 | 10 => {
            if let Some(t) = one(&mut g.initializer, r) {
                tensor(t, r);
            }
        }
        11 | 12 => {
            let ports = if r.below(4) == 0 { &mut g.output } else { &mut g.input };
            if let Some(v) = one(ports, r) {
                declaration(v, r);
            }
        }
        13 => {
            // An input that is a constant: what is computed from it is computed when the model is read.
            let Some(v) = one(&mut g.input, r).cloned() else { return };
            g.initializer.retain(|t| t.name != v.name);
            if r.below(4) != 0 {
                g.input.retain(|i| i.name != v.name);
            }
            g.initializer.extend(constant(&v, r));
        }
        14 => {
            if let Some(o) = one(&mut g.output, r) {
                (o.name, o.type_) = (any(names, r), None.into());
            }
        }
        _ => {
            if let Some(n) = one(&mut g.node, r) {
                let fresh = format!("{}-", any(&n.output, r));
                list(&mut n.output, r, |r| {
                    if r.below(2) == 0 { String::new() } else { fresh.clone() }
                });
            }
        }
    }
}

fn attribute(a: &mut AttributeProto, r: &mut Random) {
    match a.type_.enum_value_or_default() {
        AttributeType::INT => a.i = number(r),
        AttributeType::FLOAT => a.f = float(r),
        AttributeType::INTS => list(&mut a.ints, r, number),
        AttributeType::FLOATS => list(&mut a.floats, r, float),
        AttributeType::STRING => {
            let words = [
                "",
                "same",
                "constant",
                "reflect",
                "linear",
                "SAME_UPPER",
                "VALID",
                "ij,jk->ik",
                "\u{ff}",
            ];
            a.s = r.pick(&words).as_bytes().to_vec();
        }
        AttributeType::STRINGS => list(&mut a.strings, r, |r| r.pick(&["", "Tanh", "a", "BRANCH_LEQ"]).into()),
        AttributeType::TENSOR => tensor(a.t.mut_or_insert_default(), r),
        AttributeType::SPARSE_TENSOR => {
            let s = a.sparse_tensor.mut_or_insert_default();
            match r.below(3) {
                0 => list(&mut s.dims, r, number),
                1 => tensor(s.values.mut_or_insert_default(), r),
                _ => tensor(s.indices.mut_or_insert_default(), r),
            }
        }
        _ => {}
    }
    if r.below(16) == 0 {
        let types = [
            AttributeType::INT,
            AttributeType::INTS,
            AttributeType::FLOAT,
            AttributeType::STRING,
        ];
        a.type_ = r.pick(&types).into();
    }
}

/// Changes a tensor: its type, its extents (whether its contents fit or not), its contents.
fn tensor(t: &mut TensorProto, r: &mut Random) {
    match r.below(8) {
        0 => t.data_type = r.below(28) as i32,
        1 => list(&mut t.dims, r, number),
        2 => {
            // The same number of elements in other extents.
            t.dims.insert(r.below(t.dims.len() + 1), 1);
        }
        3 if !t.dims.is_empty() => {
            t.dims.remove(r.below(t.dims.len()));
        }
        _ => {
            if !t.raw_data.is_empty() {
                let at = r.below(t.raw_data.len());
                let start = at - at % 8;
                match r.below(3) {
                    0 => t.raw_data[at] = r.pick(&[0, 1, 2, 0x7f, 0x80, 0xff]),
                    1 => t.raw_data[at] ^= 1 << r.below(8),
                    _ => {
                        let x = number(r).to_le_bytes();
                        for (to, from) in t.raw_data[start..].iter_mut().zip(x) {
                            *to = from;
                        }
                    }
                }
            } else if let Some(x) = one(&mut t.int64_data, r) {
                *x = number(r);
            } else if let Some(x) = one(&mut t.int32_data, r) {
                *x = number(r) as i32;
            } else if let Some(x) = one(&mut t.float_data, r) {
                *x = float(r);
            }
        }
    }
}

/// Changes what is declared of an input or an output.
fn declaration(v: &mut ValueInfoProto, r: &mut Random) {
    let Some(type_proto::Value::TensorType(t)) = &mut v.type_.mut_or_insert_default().value else {
        return;
    };
    if r.below(4) == 0 {
        t.elem_type = r.below(28) as i32;
        return;
    }
    if r.below(16) == 0 {
        t.shape = None.into();
        return;
    }
    list(&mut t.shape.mut_or_insert_default().dim, r, |r| Dimension {
        value: Some(match r.below(3) {
            0 => dimension::Value::DimParam(r.pick(&["n", "m", "", "2*n"]).into()),
            _ => dimension::Value::DimValue(number(r)),
        }),
        ..Dimension::default()
    });
}

/// A constant of the type of an input whose extents are small numbers.
fn constant(v: &ValueInfoProto, r: &mut Random) -> Option<TensorProto> {
    let Some(TypeProto {
        value: Some(type_proto::Value::TensorType(t)),
        ..
    }) = v.type_.as_ref()
    else {
        return None;
    };
    let extents = |s: &TensorShapeProto| -> Option<Vec<i64>> {
        let extent = |d: &Dimension| match d.value {
            Some(dimension::Value::DimValue(n)) => Some(n),
            _ => None,
        };
        s.dim.iter().map(extent).collect()
    };
    let dims = extents(&t.shape)?;
    let n = dims.iter().try_fold(1i64, |n, &d| n.checked_mul(d))?;
    let bytes = match t.elem_type {
        2 | 3 | 9 => 1,
        4 | 5 | 10 | 16 => 2,
        1 | 6 | 12 => 4,
        7 | 11 | 13 => 8,
        _ => return None,
    };
    if !(0..=256).contains(&n) {
        return None;
    }
    // Small integers, or ones among floats.
    let element = |r: &mut Random| match t.elem_type {
        1 => 1f32.to_le_bytes().to_vec(),
        10 => vec![0, 0x3c],
        11 => 1f64.to_le_bytes().to_vec(),
        16 => vec![0x80, 0x3f],
        9 => vec![r.below(2) as u8],
        _ => (r.below(5) as i64).to_le_bytes()[..bytes].to_vec(),
    };
    Some(TensorProto {
        name: v.name.clone(),
        dims,
        data_type: t.elem_type,
        raw_data: (0..n).flat_map(|_| element(r)).collect(),
        ..TensorProto::default()
    })
}
