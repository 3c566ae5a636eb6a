//! What a caller says of a model's inputs before it is imported: extents that are fixed or freed, and values.
//!
//! ```text
//! image: f32[1, 3, 224, 224], shape 1,3,?,?   -->  image: f32[1, 3, image_2, image_3]
//! sr: i64[], value 16000                      -->  the constant 16000, and no input
//! ```
//!
//! Where an extent is declared anew, the extents that the file declares for outputs and intermediate values may hold no longer:
//! they are forgotten, their element types and ranks are not.

use super::signature::dims;
use super::{Extent, Options, tensor};
use brolga_ir::{DType, Number, Strings, Tensor};
use onnx_protobuf::{
    GraphProto, TensorShapeProto, ValueInfoProto, tensor_shape_proto::Dimension,
    tensor_shape_proto::dimension::Value as DimValue, type_proto::Value as TypeValue,
};

/// Declares inputs anew as the options say.
///
/// # Errors
/// When there is no such input, it is no tensor, or it has another rank.
pub fn shapes(g: &mut GraphProto, shapes: &[(String, Vec<Extent>)]) -> Result<(), String> {
    for (name, extents) in shapes {
        let inputs = names(g);
        let found = g.input.iter_mut().find(|i| i.name == *name);
        let input = found.ok_or_else(|| format!("there is no input `{name}` to give a shape; there are {inputs}"))?;
        if let Some(declared) = dims(input).map(<[Dimension]>::len)
            && declared != extents.len()
        {
            let n = extents.len();
            return Err(format!(
                "input `{name}` is given a shape of rank {n}, but has rank {declared}"
            ));
        }
        let Some(TypeValue::TensorType(t)) = input.type_.as_mut().and_then(|t| t.value.as_mut()) else {
            return Err(format!("input `{name}` is given a shape, but is no tensor"));
        };
        let dim = |e: &Extent| Dimension {
            value: match e {
                Extent::Fixed(n) => Some(DimValue::DimValue(*n)),
                Extent::Named(s) => Some(DimValue::DimParam(s.clone())),
                Extent::Free => None,
            },
            ..Dimension::default()
        };
        let shape = TensorShapeProto {
            dim: extents.iter().map(dim).collect(),
            ..TensorShapeProto::default()
        };
        t.shape = Some(shape).into();
    }
    if !shapes.is_empty() {
        g.output.iter_mut().for_each(forget);
        annotations(g);
    }
    Ok(())
}

fn names(g: &GraphProto) -> String {
    let names: Vec<String> = g.input.iter().map(|i| format!("`{}`", i.name)).collect();
    if names.is_empty() {
        "none".into()
    } else {
        names.join(", ")
    }
}

/// Forgets the annotated extents of a graph and its subgraphs.
fn annotations(g: &mut GraphProto) {
    g.value_info.iter_mut().for_each(forget);
    for a in g.node.iter_mut().flat_map(|n| &mut n.attribute) {
        for inner in a.g.as_mut().into_iter().chain(&mut a.graphs) {
            inner.output.iter_mut().for_each(forget);
            annotations(inner);
        }
    }
}

fn forget(v: &mut ValueInfoProto) {
    if let Some(TypeValue::TensorType(t)) = v.type_.as_mut().and_then(|t| t.value.as_mut())
        && let Some(shape) = t.shape.as_mut()
    {
        shape.dim.iter_mut().for_each(|d| d.value = None);
    }
}

/// The inputs that are constants: those with a tensor, and those with a text, which takes the declared type.
///
/// # Errors
/// When there is no such input, or the text is no value of its type.
pub fn constants(g: &GraphProto, options: &Options) -> Result<Vec<(String, Tensor)>, String> {
    let mut fixed = options.fixed.clone();
    for (name, text) in &options.pinned {
        let found = g.input.iter().find(|i| i.name == *name);
        let input = found.ok_or_else(|| format!("there is no input `{name}` to pin; there are {}", names(g)))?;
        let t = pinned(input, text, &options.strings).map_err(|e| format!("input `{name}`: {e}"))?;
        fixed.push((name.clone(), t));
    }
    for (i, (name, t)) in fixed.iter().enumerate() {
        let twice = fixed[..i].iter().find(|(n, _)| n == name);
        if twice.is_some_and(|(_, other)| {
            (other.dtype(), other.shape(), other.bytes()) != (t.dtype(), t.shape(), t.bytes())
        }) {
            return Err(format!("input `{name}` is pinned to two values"));
        }
    }
    Ok(fixed)
}

/// A text as a tensor of an input's declared type, in its shape.
fn pinned(input: &ValueInfoProto, text: &str, strings: &Strings) -> Result<Tensor, String> {
    let declared = input.type_.as_ref().and_then(|t| t.value.as_ref());
    let Some(TypeValue::TensorType(t)) = declared else {
        return Err("only a tensor can be pinned".into());
    };
    let dtype = tensor::dtype(t.elem_type)?;
    if dtype == DType::Str {
        let parts: Vec<&str> = text.split(',').collect();
        return match shape_of(input, dtype, 1) {
            // Commas are a part of the only string.
            Ok(shape) if parts.len() == 1 || shape_of(input, dtype, parts.len()).is_err() => {
                strings.tensor(&shape, &[text])
            }
            _ => strings.tensor(&shape_of(input, dtype, parts.len())?, &parts),
        };
    }
    let values = numbers(text)?
        .into_iter()
        .map(|x| exact(x, dtype))
        .collect::<Result<Vec<Number>, _>>()?;
    let shape = shape_of(input, dtype, values.len())?;
    Ok(Tensor::from_fn(dtype, &shape, |i| values[i]))
}

/// Numbers with commas between them; `true` is 1 and `false` is 0.
///
/// # Errors
/// When one is no number.
pub fn numbers(text: &str) -> Result<Vec<Number>, String> {
    let number = |x: &str| match x {
        "true" => Ok(Number::Int(1)),
        "false" => Ok(Number::Int(0)),
        _ => {
            let integer = x.parse::<i128>().map(Number::Int).ok();
            let float = || x.parse::<f64>().map(Number::Float).ok();
            let found = integer.or_else(float);
            found.ok_or_else(|| format!("`{x}` is no number; a file is given as NAME=@FILE.npy"))
        }
    };
    text.split(',').map(|x| number(x.trim())).collect()
}

/// The declared shape of an input that holds `n` elements.
fn shape_of(input: &ValueInfoProto, dtype: DType, n: usize) -> Result<Vec<usize>, String> {
    let number = |d: &Dimension| match d.value {
        Some(DimValue::DimValue(n)) if n >= 0 => Some(n as usize),
        _ => None,
    };
    let Some(dims) = dims(input) else {
        return Ok(if n == 1 { vec![] } else { vec![n] });
    };
    let known: Vec<Option<usize>> = dims.iter().map(number).collect();
    let product: usize = known
        .iter()
        .flatten()
        .try_fold(1usize, |p, d| p.checked_mul(*d))
        .unwrap_or(0);
    let free = known.iter().filter(|d| d.is_none()).count();
    let rest = match free {
        0 => 1,
        1 if product > 0 && n.is_multiple_of(product) => n / product,
        _ if n == product => 1,
        _ => 0,
    };
    if product * rest != n {
        let shown: Vec<String> = known.iter().map(|d| d.map_or("?".into(), |d| d.to_string())).collect();
        return Err(format!(
            "{n} {} for {dtype}[{}]; give as many as it holds, or a file: NAME=@FILE.npy",
            if dtype == DType::Str { "strings" } else { "numbers" },
            shown.join(", ")
        ));
    }
    Ok(known.into_iter().map(|d| d.unwrap_or(rest)).collect())
}

/// A number as one of a type: integers have to be in range, floats are rounded.
fn exact(x: Number, dtype: DType) -> Result<Number, String> {
    if dtype.is_float() {
        return Ok(Number::Float(x.f64()));
    }
    match x {
        Number::Int(n) if Number::Int(n).to(dtype).int() == n => Ok(x),
        Number::Int(n) => Err(format!("{n} is out of the range of {dtype}")),
        Number::Float(x) => Err(format!("{x} is not of the type {dtype}")),
    }
}
