//! Loops and branches of a function under construction, with the scopes that come with them.

use super::emit::Emit;
use crate::Error;
use cranelift_codegen::ir::condcodes::IntCC::SignedLessThan;
use cranelift_codegen::ir::{self, InstBuilder, Type, Value, types};
use rustc_hash::FxHashMap;

impl Emit<'_, '_> {
    /// Opens `for i in from..to` with carried values; the code that follows is the body, until [`Emit::end_loop`].
    pub fn begin_loop(&mut self, from: Value, to: Value, carried: &[Value]) -> Loop {
        let types: Vec<Type> = carried.iter().map(|v| self.type_of(*v)).collect();
        let head = self.block(&[types::I64]);
        for t in &types {
            self.b.append_block_param(head, *t);
        }
        let exit = self.block(&types);
        let certain = matches!((self.known(from), self.known(to)), (Some(a), Some(b)) if a < b);
        if certain {
            self.b.ins().jump(head, &args(Some(from), carried));
        } else {
            let some = self.b.ins().icmp(SignedLessThan, from, to);
            let (enter, skip) = (args(Some(from), carried), args(None, carried));
            self.b.ins().brif(some, head, &enter, exit, &skip);
        }
        self.b.switch_to_block(head);
        let params = self.b.block_params(head).to_vec();
        self.scopes.push(FxHashMap::default());
        Loop {
            head,
            exit,
            to,
            i: params[0],
            carried: params[1..].to_vec(),
        }
    }

    /// Closes a loop; `next` are the carried values of the next iteration, the result is what they are after the last.
    pub fn end_loop(&mut self, l: Loop, next: &[Value]) -> Vec<Value> {
        self.scopes.pop();
        let i = self.b.ins().iadd_imm_s(l.i, 1);
        let more = self.b.ins().icmp(SignedLessThan, i, l.to);
        let (again, done) = (args(Some(i), next), args(None, next));
        self.b.ins().brif(more, l.head, &again, l.exit, &done);
        self.b.seal_block(l.head);
        self.b.switch_to_block(l.exit);
        self.b.seal_block(l.exit);
        self.b.block_params(l.exit).to_vec()
    }

    /// A whole loop: `body` gets the index and the carried values, and gives the next ones.
    pub fn counted(
        &mut self,
        from: Value,
        to: Value,
        carried: &[Value],
        body: impl FnOnce(&mut Self, Value, &[Value]) -> Result<Vec<Value>, Error>,
    ) -> Result<Vec<Value>, Error> {
        let l = self.begin_loop(from, to, carried);
        let next = body(self, l.i, &l.carried)?;
        Ok(self.end_loop(l, &next))
    }

    /// Opens `if cond { then }`; the code that follows is `then`, until [`Emit::end_if`].
    pub fn begin_if(&mut self, cond: Value) -> If {
        let (yes, done) = (self.b.create_block(), self.b.create_block());
        self.b.ins().brif(cond, yes, &[], done, &[]);
        self.b.switch_to_block(yes);
        self.b.seal_block(yes);
        self.scopes.push(FxHashMap::default());
        If { done }
    }

    /// Closes what [`Emit::begin_if`] opened.
    pub fn end_if(&mut self, i: If) {
        self.scopes.pop();
        self.b.ins().jump(i.done, &[]);
        self.b.switch_to_block(i.done);
        self.b.seal_block(i.done);
    }

    /// Opens `if cond { then } else { other }` that gives values of these types; the code that follows is `then`.
    pub fn begin_fork(&mut self, cond: Value, types: &[Type]) -> Fork {
        let (yes, no) = (self.b.create_block(), self.b.create_block());
        let done = self.block(types);
        self.b.ins().brif(cond, yes, &[], no, &[]);
        self.b.seal_block(yes);
        self.b.seal_block(no);
        self.b.switch_to_block(yes);
        self.scopes.push(FxHashMap::default());
        Fork { no, done }
    }

    /// Ends `then` with its values and starts `other`.
    pub fn fork_else(&mut self, f: &Fork, values: &[Value]) {
        self.b.ins().jump(f.done, &args(None, values));
        self.b.switch_to_block(f.no);
        self.scopes.pop();
        self.scopes.push(FxHashMap::default());
    }

    /// Ends `other` with its values; the result are the values of the arm that ran.
    pub fn end_fork(&mut self, f: Fork, values: &[Value]) -> Vec<Value> {
        self.scopes.pop();
        self.b.ins().jump(f.done, &args(None, values));
        self.b.switch_to_block(f.done);
        self.b.seal_block(f.done);
        self.b.block_params(f.done).to_vec()
    }

    /// Says of the code that follows, an arm of a conditional, that it hardly ever runs.
    pub fn cold(&mut self) {
        if let Some(block) = self.b.current_block() {
            self.b.set_cold_block(block);
        }
    }

    /// Both arms as closures.
    pub fn either(
        &mut self,
        cond: Value,
        types: &[Type],
        then: impl FnOnce(&mut Self) -> Result<Vec<Value>, Error>,
        other: impl FnOnce(&mut Self) -> Result<Vec<Value>, Error>,
    ) -> Result<Vec<Value>, Error> {
        let f = self.begin_fork(cond, types);
        let a = then(self)?;
        self.fork_else(&f, &a);
        let b = other(self)?;
        Ok(self.end_fork(f, &b))
    }
}

/// An open loop.
pub(crate) struct Loop {
    head: ir::Block,
    exit: ir::Block,
    to: Value,
    /// The index.
    pub i: Value,
    /// The carried values at the start of the iteration.
    pub carried: Vec<Value>,
}

/// An open conditional.
pub(crate) struct If {
    done: ir::Block,
}

/// An open conditional with two arms.
pub(crate) struct Fork {
    no: ir::Block,
    done: ir::Block,
}

fn args(first: Option<Value>, rest: &[Value]) -> Vec<ir::BlockArg> {
    first.into_iter().chain(rest.iter().copied()).map(Into::into).collect()
}
