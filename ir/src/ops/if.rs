//! `if{then, else}(cond, captures…)`: the results of one of two regions, by a bool of rank 0. Both take the captures and give
//! results of the same types; only the chosen one runs. Any number of results. Source: ONNX `If`, MLIR `scf.if`.

use super::{Accuracy, Attr, AttrKind, Control, Op, OpDef, Region, Regions, Role, Sample};
use crate::{DType, Graph, Tensor, Type};

/// The operator's definition.
pub struct Def;

impl OpDef for Def {
    fn name(&self) -> &'static str {
        "if"
    }
    fn attrs(&self) -> &'static [(&'static str, AttrKind)] {
        &[("then", AttrKind::Region), ("else", AttrKind::Region)]
    }
    fn infer(&self, op: &Op, inputs: &[Type]) -> Result<Vec<Type>, String> {
        let (cond, captures) = inputs.split_first().ok_or("no operands, expected a condition")?;
        check_condition(cond)?;
        for name in ["then", "else"] {
            op.region(name).check_inputs(name, captures)?;
        }
        let (then, other) = (op.region("then").outputs(), op.region("else").outputs());
        if then != other {
            return Err(format!("region `then` gives {then:?}, region `else` {other:?}, expected equal types"));
        }
        Ok(then)
    }
    fn eval(&self, op: &Op, inputs: &[Tensor]) -> Result<Vec<Tensor>, String> {
        let chosen = if inputs[0].get(0).int() == 0 { "else" } else { "then" };
        op.region(chosen).eval(&inputs[1..])
    }
    fn role(&self) -> Role {
        Role::Region(&Def)
    }
    fn is_variadic(&self) -> bool {
        true
    }
    fn accuracy(&self) -> Accuracy {
        Accuracy::Rounding
    }
    fn samples(&self) -> Vec<Sample> {
        let region = |name: &str, calls: &[&str], ty: &Type| Attr::Region(chain(name, calls, ty));
        let s = |calls: [&[&str]; 2], x: super::SampleType| {
            let ty = Type::fixed(x.0, x.1);
            let attrs = [region("then", calls[0], &ty), region("else", calls[1], &ty)];
            Sample::new(&attrs, &[(DType::Bool, &[]), x])
        };
        vec![
            s([&["neg", "exp"], &["relu"]], (DType::F32, &[3, 1, 5])),
            s([&[], &["neg"]], (DType::I32, &[4])),
        ]
    }
}

impl Control for Def {
    fn regions<'o>(&self, op: &'o Op) -> Regions<'o> {
        Regions::Choose {
            then: op.region("then").graph(),
            other: op.region("else").graph(),
        }
    }
}

/// Checks the type of a condition.
///
/// # Errors
/// When it is no bool of rank 0.
pub fn check_condition(ty: &Type) -> Result<(), String> {
    if ty.dtype == DType::Bool && ty.rank() == 0 {
        Ok(())
    } else {
        Err(format!("a condition of {ty}, expected bool[]"))
    }
}

/// A region that applies functions of one operand to its only input, one after the other.
fn chain(name: &str, calls: &[&str], ty: &Type) -> Region {
    let mut g = Graph::new(name);
    let mut v = g.input("x", ty.clone());
    for call in calls {
        let op = Op::new(call, &[]).expect("there is such an operator");
        v = g.add(op, &[v], &"".into()).expect("it takes the type")[0];
    }
    g.outputs.push(("y".into(), v));
    Region::new(g).expect("the graph is valid")
}
