//! Whether a loop kernel may be called with a parameter that it reads in the memory of one that it writes.
//!
//! What is seen here is that reads are plain loads at affine places on a CPU, of the size of what is stored. That no element is
//! loaded behind a store to it, and that other iterations of the parallel loop touch none, is what the interpreter reports,
//! as it does races; the structured kernel that the loops were made of is proven ([`crate::structured::Kernel::overwrites`]).

use super::{Buf, Expr, Kernel, LoopKind, Scope, Stmt, visit};

impl Kernel {
    /// True when the parameter `read` may be the same memory as the parameter `written`.
    pub fn overwrites(&self, read: usize, written: usize) -> bool {
        let (Some(r), Some(w)) = (self.buffers.get(read), self.buffers.get(written)) else {
            return false;
        };
        let alike =
            (r.scope, w.scope) == (Scope::In, Scope::Out) && r.dtype.bytes() == w.dtype.bytes() && r.len == w.len;
        let (read, written) = (Buf(read as u32), Buf(written as u32));
        let (mut plain, mut loads, mut tiles) = (true, false, false);
        visit(&self.body, &mut |s, _| match s {
            Stmt::Tile(t) => {
                plain &= t.reads().all(|b| b != read);
                tiles |= t.c == written;
            }
            Stmt::Set(_, Expr::Load { buffer, index, .. }) if *buffer == read => {
                index.for_each_reg(&mut |_| plain = false);
                loads = true;
            }
            Stmt::Store { buffer, index, .. } if *buffer == written => index.for_each_reg(&mut |_| plain = false),
            Stmt::For {
                kind: LoopKind::Block(_) | LoopKind::Thread(_),
                ..
            }
            | Stmt::Barrier => plain = false,
            _ => {}
        });
        alike && plain && !(tiles && loads)
    }
}
