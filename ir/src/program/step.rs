//! Steps, and how to go through them.

use super::SlotId;
use crate::loops::Grain;
use crate::{Dim, Guard, Op, Symbol};
use std::fmt;
use std::sync::Arc;

/// A name for the value of a dim, which is computed once. It is at least 0, as every symbol is.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Let {
    /// The name; no other symbol of the program has it.
    pub symbol: Symbol,
    /// The value, over symbols that are known where this stands.
    pub value: Dim,
}

impl Let {
    /// The value where those of symbols are known.
    ///
    /// # Errors
    /// When there is none, or a negative one.
    pub fn number(&self, lookup: &dyn Fn(&str) -> Option<i64>) -> Result<i64, String> {
        let Let { symbol, value } = self;
        match value.value(lookup) {
            Ok(n) if n >= 0 => Ok(n),
            Ok(n) => Err(format!("`{symbol}` = {value} is {n}, expected at least 0")),
            Err(e) => Err(format!("`{symbol}`: {e}")),
        }
    }
}

/// One step.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Step {
    /// Calls a kernel with one slot a parameter, in the parameters' order.
    Call {
        /// Index into [`super::Program::kernels`].
        kernel: u32,
        /// The slots.
        args: Vec<SlotId>,
        /// The model nodes this came from.
        origin: Vec<Arc<str>>,
        /// The model node of each number of the kernel's checks.
        checks: Vec<Arc<str>>,
    },
    /// Copies a slot's bytes to another (an output that is an input or a constant), or to rows of it (a piece of a
    /// concatenation).
    Copy {
        /// From.
        from: SlotId,
        /// To.
        to: SlotId,
        /// Where they go; `None` for two slots of the same size.
        rows: Option<Rows>,
    },
    /// Runs an operator's reference evaluation.
    Host {
        /// The operator.
        op: Op,
        /// Operands.
        inputs: Vec<SlotId>,
        /// Results.
        outputs: Vec<SlotId>,
        /// The model node this came from.
        origin: Arc<str>,
    },
    /// Gives a name to a size.
    Let(Let),
    /// Makes the only element of a slot, an integer or a bool, a symbol. The run fails when it is negative or above the
    /// bound.
    Read {
        /// The symbol.
        symbol: Symbol,
        /// What is read.
        from: SlotId,
        /// The largest value, where one is known.
        bound: Option<Dim>,
        /// The model node that the element comes from.
        origin: Arc<str>,
    },
    /// Gives memory, with any contents, to a slot whose size only the run tells: a temporary of the arena, one on the
    /// heap, or an output. The run fails when an extent is negative, or there is no such memory.
    Alloc {
        /// The slot.
        slot: SlotId,
        /// The model node that the value belongs to.
        origin: Arc<str>,
    },
    /// Runs one of two blocks.
    If {
        /// A bool of one element.
        cond: SlotId,
        /// What runs where it is true.
        then: Vec<Step>,
        /// What runs where it is not.
        other: Vec<Step>,
    },
    /// Runs a block as long as a condition holds, which is read before each time.
    While {
        /// A bool of one element, which the block writes.
        cond: SlotId,
        /// The block.
        body: Vec<Step>,
    },
    /// Fails the run, with the guard's reason, where the guard does not hold.
    Check {
        /// What has to hold.
        guard: Guard,
        /// The model node that asks for it.
        origin: Arc<str>,
    },
}

/// Rows of equal length: one behind the other in what is copied, apart in what they are copied to.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Rows {
    /// How many.
    pub count: Dim,
    /// Bytes of one.
    pub bytes: Dim,
    /// The byte where the first one goes.
    pub start: Dim,
    /// Bytes from where one goes to where the next one does.
    pub stride: Dim,
    /// From when on the workers copy them.
    pub grain: Grain,
}

impl Step {
    /// Calls `f` with every slot that the step itself reads or writes; those of its blocks' steps are theirs.
    pub fn for_each_slot(&self, f: &mut dyn FnMut(SlotId)) {
        match self {
            Step::Call { args, .. } => args.iter().for_each(|s| f(*s)),
            Step::Copy { from, to, .. } => [from, to].into_iter().for_each(|s| f(*s)),
            Step::Host { inputs, outputs, .. } => inputs.iter().chain(outputs).for_each(|s| f(*s)),
            Step::Read { from: s, .. }
            | Step::Alloc { slot: s, .. }
            | Step::If { cond: s, .. }
            | Step::While { cond: s, .. } => f(*s),
            Step::Let(_) | Step::Check { .. } => {}
        }
    }

    /// Its blocks, in order.
    pub fn blocks(&self) -> [&[Step]; 2] {
        match self {
            Step::If { then, other, .. } => [then, other],
            Step::While { body, .. } => [body, &[]],
            _ => [&[], &[]],
        }
    }

    /// The same, to be changed.
    pub fn blocks_mut(&mut self) -> Vec<&mut Vec<Step>> {
        match self {
            Step::If { then, other, .. } => vec![then, other],
            Step::While { body, .. } => vec![body],
            _ => vec![],
        }
    }

    /// The name that it gives to a size, and where it comes from.
    pub fn name(&self) -> Option<&Symbol> {
        match self {
            Step::Let(l) => Some(&l.symbol),
            Step::Read { symbol, .. } => Some(symbol),
            _ => None,
        }
    }

    /// Calls `f` with every dim of the step itself but those of its slots' types and of operators' attributes.
    pub fn for_each_dim(&self, f: &mut dyn FnMut(&Dim)) {
        match self {
            Step::Copy { rows: Some(r), .. } => [&r.count, &r.bytes, &r.start, &r.stride, &r.grain.work]
                .into_iter()
                .for_each(f),
            Step::Let(l) => f(&l.value),
            Step::Read { bound: Some(d), .. } => f(d),
            Step::Check { guard, .. } => [&guard.left, &guard.right].into_iter().for_each(f),
            _ => {}
        }
    }
}

/// Steps with those of their blocks behind them, in the order in which they stand in the text.
pub fn nested(steps: &[Step]) -> Vec<&Step> {
    fn collect<'s>(steps: &'s [Step], out: &mut Vec<&'s Step>) {
        for s in steps {
            out.push(s);
            s.blocks().into_iter().for_each(|b| collect(b, out));
        }
    }
    let mut out = Vec::with_capacity(steps.len());
    collect(steps, &mut out);
    out
}

impl fmt::Display for Let {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "let {} = {}", crate::text::symbol(&self.symbol), self.value)
    }
}
