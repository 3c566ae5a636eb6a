//! `If` whose condition is known at import: the branch stands in its place.

use super::*;

/// `If`.
pub fn if_<'m>(im: &mut Importer<'m>, ctx: &NodeCtx<'m>) -> Outcome {
    ctx.arity(1, 1)?;
    let condition = im.graph.ints_operand(ctx.input(0)?, "a condition")?;
    let name = if condition.first() == Some(&0) {
        "else_branch"
    } else {
        "then_branch"
    };
    let origin = im.graph.origin.clone();
    let values = im.inline(ctx.graph(name)?, &ctx.name, &[])?;
    im.graph.origin = origin;
    Ok(values)
}
