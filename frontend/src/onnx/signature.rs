//! Declared types: what the inputs' types become, and whether an output's type contradicts what is declared.

use super::error::Fail;
use super::tensor;
use brolga_ir::graph::unknown_symbol;
use brolga_ir::{DType, Dim, Type};
use onnx_protobuf::{
    TypeProto, ValueInfoProto, tensor_shape_proto::Dimension, tensor_shape_proto::dimension::Value as DimValue,
    type_proto::Value as TypeValue,
};
use rustc_hash::FxHashMap;
use std::collections::BTreeSet;

/// Symbols by the model's dimension names, which may be any text; some have a size.
pub struct Symbols<'s> {
    names: FxHashMap<String, Dim>,
    taken: BTreeSet<String>,
    sizes: &'s [(String, i64)],
}

impl<'s> Symbols<'s> {
    /// No symbols yet, of which some will have sizes.
    pub fn new(sizes: &'s [(String, i64)]) -> Symbols<'s> {
        Symbols {
            names: FxHashMap::default(),
            taken: BTreeSet::new(),
            sizes,
        }
    }

    /// Checks that every size is a dimension's, when all of them are known.
    ///
    /// # Errors
    /// When one is not.
    pub fn check(&self) -> Result<(), String> {
        match self.sizes.iter().find(|(name, _)| !self.taken.contains(name)) {
            Some((name, _)) => Err(unknown_symbol(name, self.taken.iter().map(|s| &**s))),
            None => Ok(()),
        }
    }

    /// The symbol of a dimension name, or its size: the same for the same name and different for different ones.
    pub fn of(&mut self, param: &str) -> Dim {
        if let Some(d) = self.names.get(param) {
            return d.clone();
        }
        let d = self.fresh(param);
        self.names.insert(param.to_string(), d.clone());
        d
    }

    fn fresh(&mut self, wish: &str) -> Dim {
        let mut s: String = wish
            .chars()
            .map(|c| if c.is_ascii_alphanumeric() { c } else { '_' })
            .collect();
        let operators = ["min", "max", "mod", "floordiv", "ceildiv"];
        if s.is_empty() || s.starts_with(|c: char| c.is_ascii_digit()) || operators.contains(&s.as_str()) {
            s.insert(0, '_');
        }
        let base = s.clone();
        let mut k = 2;
        while !self.taken.insert(s.clone()) {
            s = format!("{base}_{k}");
            k += 1;
        }
        match self.sizes.iter().find(|(name, _)| *name == s) {
            Some((_, n)) => Dim::Const(*n),
            None => Dim::sym(&s),
        }
    }
}

/// The declared dimensions of an input or output, when it is a tensor of known rank.
pub fn dims(v: &ValueInfoProto) -> Option<&[Dimension]> {
    match v.type_.as_ref()?.value.as_ref()? {
        TypeValue::TensorType(t) => Some(&t.shape.as_ref()?.dim),
        _ => None,
    }
}

/// The element type that a declared tensor has, by ONNX's number; 0 where none is declared.
pub fn elem_type(v: &ValueInfoProto) -> i32 {
    match v.type_.as_ref().and_then(|t| t.value.as_ref()) {
        Some(TypeValue::TensorType(t)) => t.elem_type,
        _ => 0,
    }
}

fn kind(t: Option<&TypeProto>) -> &'static str {
    match t.and_then(|t| t.value.as_ref()) {
        Some(TypeValue::TensorType(_)) => "tensor",
        Some(TypeValue::SequenceType(_)) => "sequence",
        Some(TypeValue::MapType(_)) => "map",
        Some(TypeValue::OptionalType(_)) => "optional",
        Some(TypeValue::SparseTensorType(_)) => "sparse tensor",
        _ => "unknown type",
    }
}

/// Whether a declaration leaves open what tensors there are: a sequence, an optional, or a tensor of unknown rank.
pub fn leaves_open(i: &ValueInfoProto) -> bool {
    let declared = i.type_.as_ref().and_then(|t| t.value.as_ref());
    match declared {
        Some(TypeValue::TensorType(t)) => t.shape.is_none(),
        Some(TypeValue::SequenceType(_) | TypeValue::OptionalType(_)) => true,
        _ => false,
    }
}

/// Whether a declaration is that of a sequence, or of an optional one.
pub fn is_sequence(i: &ValueInfoProto) -> bool {
    let mut declared = i.type_.as_ref();
    while let Some(t) = declared {
        declared = match t.value.as_ref() {
            Some(TypeValue::SequenceType(_)) => return true,
            Some(TypeValue::OptionalType(o)) => o.elem_type.as_ref(),
            _ => None,
        };
    }
    false
}

/// The type of an input; dimensions without a name get a symbol named after input and axis.
///
/// # Errors
/// When it is no tensor of a known rank and a supported element type, or an extent is below -1.
pub fn input_type(i: &ValueInfoProto, symbols: &mut Symbols) -> Result<Type, Fail> {
    let Some(TypeValue::TensorType(t)) = i.type_.as_ref().and_then(|t| t.value.as_ref()) else {
        return Err(Fail::Unsupported(kind(i.type_.as_ref()).into()));
    };
    let dtype = tensor::dtype(t.elem_type).map_err(Fail::Unsupported)?;
    let Some(dims) = dims(i) else {
        return Err(Fail::Unsupported("a tensor of unknown rank".into()));
    };
    let shape = dims
        .iter()
        .enumerate()
        .map(|(axis, d)| match &d.value {
            Some(DimValue::DimValue(n)) if *n >= 0 => Ok(Dim::Const(*n)),
            // Exporters write -1 for an extent that is free.
            Some(DimValue::DimValue(n)) if *n < -1 => Err(Fail::Bad(format!("extent {n} of dimension {axis}"))),
            // Exporters write ? for an extent that is free, too, in any number of places.
            Some(DimValue::DimParam(p)) if !p.is_empty() && p != "?" => Ok(symbols.of(p)),
            _ => Ok(symbols.fresh(&format!("{}_{axis}", i.name))),
        })
        .collect::<Result<Vec<_>, _>>()?;
    let fixed: Vec<i64> = shape.iter().filter_map(Dim::as_const).collect();
    tensor::extents(&fixed, dtype)?;
    Ok(Type::new(dtype, shape))
}

/// What the tensors that stand for a map are called.
pub fn map_parts(name: &str) -> [String; 2] {
    ["keys", "values"].map(|part| format!("{name}[{part}]"))
}

/// The types of the keys and of the values of a map, one of each for an entry; `None` when something else is declared.
///
/// # Errors
/// When keys or values are no tensors of a supported element type.
pub fn map_types(i: &ValueInfoProto, symbols: &mut Symbols) -> Option<Result<[Type; 2], Fail>> {
    let Some(TypeValue::MapType(m)) = i.type_.as_ref().and_then(|t| t.value.as_ref()) else {
        return None;
    };
    let value = match m.value_type.as_ref().and_then(|t| t.value.as_ref()) {
        Some(TypeValue::TensorType(t)) => t.elem_type,
        _ => {
            let what = format!("a map whose values are of the kind {}", kind(m.value_type.as_ref()));
            return Some(Err(Fail::Unsupported(what)));
        }
    };
    let dtypes = tensor::dtype(m.key_type).and_then(|k| Ok([k, tensor::dtype(value)?]));
    Some(match dtypes {
        Ok(dtypes) => {
            let entries = symbols.fresh(&format!("{}_entries", i.name));
            Ok(dtypes.map(|d| Type::new(d, vec![entries.clone()])))
        }
        Err(e) => Err(Fail::Unsupported(e)),
    })
}

/// Gives the dimensions of an input their symbols; one of a type that is not supported has none.
pub fn note_symbols(i: &ValueInfoProto, symbols: &mut Symbols) {
    if map_types(i, symbols).is_none() {
        let _ = input_type(i, symbols);
    }
}

/// True for a sequence of maps, as `ZipMap` declares its result: here the probabilities as a tensor.
fn is_maps(t: Option<&TypeProto>) -> bool {
    let Some(TypeValue::SequenceType(s)) = t.and_then(|t| t.value.as_ref()) else {
        return false;
    };
    kind(s.elem_type.as_ref()) == "map"
}

/// Whether an output is declared as a tensor, or an optional one, of an element type, or of none.
pub fn declares(o: &ValueInfoProto, dtype: DType) -> bool {
    let declared = o.type_.as_ref().and_then(|t| t.value.as_ref());
    let declared = match declared {
        Some(TypeValue::OptionalType(t)) => t.elem_type.as_ref().and_then(|t| t.value.as_ref()),
        other => other,
    };
    match declared {
        Some(TypeValue::TensorType(t)) => t.elem_type == 0 || tensor::dtype(t.elem_type).ok() == Some(dtype),
        None => true,
        Some(_) => false,
    }
}

/// How a declared output contradicts the type that the graph gives it; symbolic extents contradict nothing.
pub fn contradiction(o: &ValueInfoProto, found: &Type) -> Option<String> {
    if is_maps(o.type_.as_ref()) {
        return None;
    }
    let declared = o.type_.as_ref().and_then(|t| t.value.as_ref());
    let declared = match declared {
        Some(TypeValue::OptionalType(t)) => t.elem_type.as_ref().and_then(|t| t.value.as_ref()),
        other => other,
    };
    let Some(TypeValue::TensorType(t)) = declared else {
        return (kind(o.type_.as_ref()) != "unknown type")
            .then(|| format!("is declared as a {}, but is {found}", kind(o.type_.as_ref())));
    };
    if t.elem_type != 0 && tensor::dtype(t.elem_type).ok() != Some(found.dtype) {
        return Some(format!(
            "is declared as {}, but is {found}",
            tensor::type_name(t.elem_type)
        ));
    }
    let dims = dims(o)?;
    let declared: Vec<Option<i64>> = dims
        .iter()
        .map(|d| match d.value {
            Some(DimValue::DimValue(n)) if n >= 0 => Some(n),
            _ => None,
        })
        .collect();
    let fits = declared.len() == found.rank()
        && declared
            .iter()
            .zip(&found.shape)
            .all(|(d, f)| d.is_none() || f.as_const().is_none() || *d == f.as_const());
    let show = |d: &Option<i64>| d.map_or("?".to_string(), |n| n.to_string());
    (!fits).then(|| {
        let shape: Vec<String> = declared.iter().map(show).collect();
        format!("is declared with shape [{}], but is {found}", shape.join(", "))
    })
}
