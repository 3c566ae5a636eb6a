//! Element-wise operators: one for every row of [`crate::scalar::functions`], by the row's name. All operands have one
//! shape, which is the result's. The reference evaluation evaluates the row's body on every element.

use super::{Accuracy, Along, Attr, AttrKind, Draw, Drawn, Op, OpDef, Role, Sample, Signs, draw};
use crate::scalar::{self, Function, Rule, Scalar};
use crate::{DType, Tensor, Type};
use std::sync::LazyLock;

/// The operator of one scalar function.
pub struct Map(pub &'static Function);

/// The operators of all scalar functions.
pub fn all() -> Vec<&'static dyn OpDef> {
    static MAPS: LazyLock<Vec<Map>> = LazyLock::new(|| scalar::functions().iter().map(Map).collect());
    MAPS.iter().map(|m| m as &dyn OpDef).collect()
}

impl OpDef for Map {
    fn name(&self) -> &'static str {
        self.0.name
    }
    fn attrs(&self) -> &'static [(&'static str, AttrKind)] {
        if self.0.is_cast() {
            &[("to", AttrKind::DType)]
        } else {
            &[]
        }
    }
    fn infer(&self, op: &Op, inputs: &[Type]) -> Result<Vec<Type>, String> {
        let dtypes: Vec<_> = inputs.iter().map(|t| t.dtype).collect();
        let to = self.0.is_cast().then(|| op.dtype("to"));
        let dtype = self.0.result(&dtypes, to)?;
        if let Some(t) = inputs.iter().find(|t| t.shape != inputs[0].shape) {
            return Err(format!(
                "operands of shapes {} and {t}, expected equal shapes",
                inputs[0]
            ));
        }
        Ok(vec![Type::new(dtype, inputs[0].shape.clone())])
    }
    fn eval(&self, op: &Op, inputs: &[Tensor]) -> Result<Vec<Tensor>, String> {
        let dtypes: Vec<_> = inputs.iter().map(Tensor::dtype).collect();
        let to = self.0.is_cast().then(|| op.dtype("to"));
        let body = self.0.body(&dtypes, to)?;
        let out = self.0.result(&dtypes, to)?;
        // By their bits: a number would not carry the payload of a NaN, which `bitcast` shows.
        let (mut values, mut bytes) = (vec![], Vec::with_capacity(inputs[0].len() * out.bytes()));
        for i in 0..inputs[0].len() {
            values.clear();
            values.extend(inputs.iter().map(|t| scalar_at(t, i)));
            body.run(&mut values);
            let result = values[body.outputs[0].0 as usize];
            bytes.extend_from_slice(&result.bits.to_le_bytes()[..out.bytes()]);
        }
        Ok(vec![Tensor::new(out, inputs[0].shape().to_vec(), bytes)?])
    }
    fn along(&self, _: &Op, _: &Type, _: &Type, axis: usize) -> Along {
        Along::Axis(axis)
    }
    fn multiplies(&self) -> bool {
        self.0.name == "mul"
    }
    fn role(&self) -> Role {
        Role::Map(self.0)
    }
    fn never_minus_zero(&self, _: &Op, of: &mut dyn Signs) -> bool {
        (self.0.signs.never_minus_zero)(of) || (self.0.signs.is_nonnegative)(of)
    }
    fn is_nonnegative(&self, _: &Op, of: &mut dyn Signs) -> bool {
        (self.0.signs.is_nonnegative)(of)
    }
    fn arity(&self) -> (usize, usize) {
        (self.0.arity, 1)
    }
    fn follows(&self) -> bool {
        true
    }
    fn draw(&self, d: &mut dyn Draw, want: Option<&Type>) -> Option<Drawn> {
        if self.0.rule == Rule::Cast {
            return draw_cast(d, want);
        }
        let wanted = want.map_or(d.dtype(), |t| t.dtype);
        use DType::{Bool, F16, F32, F64, I32, I64, U8};
        let dtype = match self.0.rule {
            Rule::Order => draw::pick(d, &[&DType::FLOATS[..], &[I32, U8]].concat()),
            Rule::Test => draw::pick(d, &[F32, F64, F16]),
            Rule::Equality => draw::pick(d, &[F32, I64, Bool, F16]),
            Rule::Logic => Bool,
            Rule::Bits if !wanted.is_int() => draw::pick(d, &[I64, I32, U8]),
            Rule::Float if !wanted.is_float() => F32,
            Rule::Number if wanted == Bool => I64,
            _ => wanted,
        };
        // Operands whose types are not free come first; the others follow them.
        let mut order: Vec<usize> = (0..d.arity()).collect();
        order.sort_by_key(|&i| !d.is_natural(i));
        let mut inputs = vec![None; d.arity()];
        let mut shape = want.map(|t| t.shape.clone());
        for i in order {
            let dtype = if self.0.rule == Rule::Where && i == 0 {
                Bool
            } else {
                dtype
            };
            let ask = match &shape {
                None if d.is_natural(i) => None,
                None => Some(d.shape(None)),
                Some(s) => Some(s.clone()),
            };
            let v = d.operand(i, ask.map(|s| Type::new(dtype, s)).as_ref())?;
            shape = Some(d.ty(v).shape);
            inputs[i] = Some(v);
        }
        let attrs = match self.0.is_cast() {
            true => vec![d.attr(0, Attr::DType(wanted))?],
            false => vec![],
        };
        Some(Drawn {
            attrs,
            inputs: inputs.into_iter().collect::<Option<_>>()?,
        })
    }
    fn accuracy(&self) -> Accuracy {
        Accuracy::Exact
    }
    fn samples(&self) -> Vec<Sample> {
        self.0.samples()
    }
}

/// The element at a row-major position.
fn scalar_at(t: &Tensor, i: usize) -> Scalar {
    let (dtype, n) = (t.dtype(), t.dtype().bytes());
    let mut bits = [0; 8];
    bits[..n].copy_from_slice(&t.bytes()[i * n..(i + 1) * n]);
    let bits = u64::from_le_bytes(bits);
    let bits = if dtype == DType::Bool { (bits != 0) as u64 } else { bits };
    Scalar { dtype, bits }
}

fn draw_cast(d: &mut dyn Draw, want: Option<&Type>) -> Option<Drawn> {
    let dtype = d.dtype();
    use DType::{F16, F32, F64, I8, I64, U8};
    let from = draw::pick(d, &[dtype, F32, F64, I64, F16, U8, U8, I8, I8]);
    let shape = want.map_or_else(|| d.shape(None), |t| t.shape.clone());
    let x = d.operand(0, Some(&Type::new(from, shape)))?;
    let to = want.map_or(d.ty(x).dtype, |t| t.dtype);
    let to = if d.chance(50) {
        to
    } else {
        draw::pick(d, &[DType::F32, DType::I64])
    };
    Some(Drawn {
        attrs: vec![d.attr(0, Attr::DType(to))?],
        inputs: vec![x],
    })
}
