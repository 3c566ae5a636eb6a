//! `while{cond, body}(state…, captures…)`: as long as the region `cond` gives true for the state, the state becomes what the
//! region `body` makes of it; the results are the last state. Both regions take state and captures; `body` gives as many
//! values, of the same types, as there are of state. Source: XLA `While`, ONNX `Loop`, MLIR `scf.while`.

use super::r#if::check_condition;
use super::{Accuracy, Attr, AttrKind, Control, Op, OpDef, Region, Regions, Role, Sample};
use crate::{Build, DType, Graph, GraphBuilder, Number, Tensor, Type, Value};

/// The operator's definition.
pub struct Def;

/// Builds what a region of a sample does with its inputs.
type Body = fn(&mut GraphBuilder, &[Value]) -> Result<Vec<Value>, String>;

impl OpDef for Def {
    fn name(&self) -> &'static str {
        "while"
    }
    fn attrs(&self) -> &'static [(&'static str, AttrKind)] {
        &[("cond", AttrKind::Region), ("body", AttrKind::Region)]
    }
    fn infer(&self, op: &Op, inputs: &[Type]) -> Result<Vec<Type>, String> {
        for name in ["cond", "body"] {
            op.region(name).check_inputs(name, inputs)?;
        }
        match &op.region("cond").outputs()[..] {
            [cond] => check_condition(cond)?,
            outputs => return Err(format!("region `cond` gives {} values, expected one", outputs.len())),
        }
        let state = op.region("body").outputs();
        if inputs.get(..state.len()) != Some(&state[..]) {
            return Err(format!("region `body` gives {state:?}, expected the types of the first of {inputs:?}"));
        }
        Ok(state)
    }
    fn eval(&self, op: &Op, inputs: &[Tensor]) -> Result<Vec<Tensor>, String> {
        let (cond, body) = (op.region("cond"), op.region("body"));
        let mut values = inputs.to_vec();
        while cond.eval(&values)?[0].get(0).int() != 0 {
            let state = body.eval(&values)?;
            values.splice(..state.len(), state);
        }
        values.truncate(body.outputs().len());
        Ok(values)
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
        // Counts to 5, doubling x and adding c on the way.
        let types = [
            Type::fixed(DType::I64, &[]),
            Type::fixed(DType::F32, &[2, 1, 3]),
            Type::fixed(DType::F32, &[2, 1, 3]),
        ];
        let region = |name: &str, build: Body| {
            let mut g = Graph::new(name);
            let inputs: Vec<_> = ["i", "x", "c"].iter().zip(&types).map(|(n, t)| g.input(n, t.clone())).collect();
            let mut b = GraphBuilder {
                graph: &mut g,
                origin: "".into(),
            };
            let outputs = build(&mut b, &inputs).expect("the region is valid");
            g.outputs = outputs.into_iter().enumerate().map(|(k, v)| (format!("y{k}"), v)).collect();
            Attr::Region(Region::new(g).expect("the graph is valid"))
        };
        let cond = region("cond", |b, v| {
            let end = b.scalar(DType::I64, Number::Int(5));
            Ok(vec![b.call("less", &[], &[v[0], end])?])
        });
        let body = region("body", |b, v| {
            let one = b.scalar(DType::I64, Number::Int(1));
            let next = b.call("add", &[], &[v[0], one])?;
            let twice = b.call("add", &[], &[v[1], v[1]])?;
            Ok(vec![next, b.call("add", &[], &[twice, v[2]])?])
        });
        let inputs = [(DType::I64, &[][..]), (DType::F32, &[2, 1, 3]), (DType::F32, &[2, 1, 3])];
        vec![Sample::new(&[cond, body], &inputs)]
    }
}

impl Control for Def {
    fn regions<'o>(&self, op: &'o Op) -> Regions<'o> {
        Regions::Repeat {
            cond: op.region("cond").graph(),
            body: op.region("body").graph(),
        }
    }
}
