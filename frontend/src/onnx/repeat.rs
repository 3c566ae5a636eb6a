//! Loops and branches that operators' importers build: a region of the IR's `while` and `if` is a graph of its own, built by the same
//! methods.

use super::builder::{Builder, One};
use super::error::Fail;
use super::region::{Frame, region};
use brolga_ir::ops::Region;
use brolga_ir::{Attr, Type, Value};

/// Several values, or why there are none.
pub type Many = Result<Vec<Value>, Fail>;

impl Builder<'_> {
    /// As long as `condition` holds for the state, the state becomes what `body` makes of it; gives the last state. Both get the state
    /// and, behind it, `captures`.
    ///
    /// # Errors
    /// When a region cannot be built, or the body does not give values of the state's types.
    pub fn repeat_while(
        &mut self,
        state: &[Value],
        captures: &[Value],
        condition: impl FnOnce(&mut Builder<'_>, &[Value]) -> One,
        body: impl FnOnce(&mut Builder<'_>, &[Value]) -> Many,
    ) -> Many {
        let operands = [state, captures].concat();
        let condition = self.region("condition", &operands, |b, v| Ok(vec![condition(b, v)?]))?;
        let body = self.region("body", &operands, body)?;
        self.unfolded_ops("while", &[Attr::Region(condition), Attr::Region(body)], &operands)
    }

    /// What one of two makes of the operands: `then` where the condition holds, `other` where it does not.
    ///
    /// # Errors
    /// When a region cannot be built, or they do not give values of the same types.
    pub fn choose(
        &mut self,
        condition: Value,
        operands: &[Value],
        then: impl FnOnce(&mut Builder<'_>, &[Value]) -> Many,
        other: impl FnOnce(&mut Builder<'_>, &[Value]) -> Many,
    ) -> Many {
        let then = self.region("then", operands, then)?;
        let other = self.region("else", operands, other)?;
        let all = [&[condition], operands].concat();
        self.unfolded_ops("if", &[Attr::Region(then), Attr::Region(other)], &all)
    }

    /// The region that `build` makes, with inputs of the types of `operands`.
    fn region(
        &mut self,
        name: &str,
        operands: &[Value],
        build: impl FnOnce(&mut Builder<'_>, &[Value]) -> Many,
    ) -> Result<Region, Fail> {
        let types: Vec<Type> = operands.iter().map(|&v| self.ty(v).clone()).collect();
        let mut frame = Frame::new(name);
        let (inputs, outputs) = self.within(&mut frame, |b| {
            let named = |(i, ty): (usize, Type)| b.argument(&format!("x{i}"), ty);
            let inputs: Vec<Value> = types.into_iter().enumerate().map(named).collect();
            let outputs = build(b, &inputs)?;
            Ok((inputs, outputs))
        })?;
        let graph = region(&frame, &inputs, &outputs, &[], &[]);
        Region::new(graph).map_err(|e| Fail::Bad(e.to_string()))
    }
}
