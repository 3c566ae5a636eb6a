//! What the entry block of a kernel computes once: addresses of buffers, dims, slots with fill values, constants, arguments
//! of tiles.

use super::index::Vars;
use super::wide::Wide;
use super::{Body, Entry, repeated};
use crate::Error;
use crate::clif::emit::{CONSTANT, Emit, clif, element};
use crate::clif::vector::{chunk, chunks, mask_type};
use crate::rare::Uses;
use brolga_ir::index::Reg;
use brolga_ir::loops::{self, Expr, Scope, Stmt, Tile, visit, visit_indices};
use brolga_ir::{DType, Dim};
use cranelift_codegen::ir::{InstBuilder, Value, types};
use rustc_hash::FxHashMap;

/// The most copies of a constant in memory, one for each chunk of a vector.
const MAX_COPIES: usize = 4;

impl<'k, 'a, 'm> Body<'k, 'a, 'm> {
    /// A kernel, these statements of which come next.
    pub(super) fn new(
        e: &'k mut Emit<'a, 'm>,
        k: &'k loops::Kernel,
        wide: &'k Wide,
        name: &'k str,
        entry: Entry,
        stmts: &'k [Stmt],
    ) -> Result<Body<'k, 'a, 'm>, Error> {
        let Entry { args, worker, range } = entry;
        let count = k.params().count();
        let field = |e: &mut Emit, i: usize| e.b.ins().load(types::I64, CONSTANT, args, 8 * i as i32);
        e.dims = Some(field(e, count));
        let mut this = Body {
            e,
            k,
            vars: Vars::default(),
            vector: None,
            uses: Uses::of(k),
            bases: vec![],
            variables: FxHashMap::default(),
            fills: FxHashMap::default(),
            range,
            args,
            name,
            forks: 0,
            fault: None,
            tiles: vec![],
            wide,
        };
        if k.checks() > 0 {
            this.fault = Some(field(this.e, count + 3));
        }
        this.prepare(stmts)?;
        let mut scratch: [Option<Value>; 2] = [None; 2];
        let mut offset = Dim::ZERO;
        for (i, b) in k.buffers.iter().enumerate() {
            let base = match b.scope {
                Scope::In | Scope::Out if i < count => field(this.e, i),
                Scope::In | Scope::Out => {
                    return Err(this.error(format!("b{i} is a parameter behind a buffer that is none")));
                }
                Scope::Worker | Scope::Kernel => {
                    let own = b.scope == Scope::Worker;
                    let first = match scratch[usize::from(own)] {
                        Some(s) => s,
                        None => {
                            let base = field(this.e, count + 1);
                            if own {
                                let stride = field(this.e, count + 2);
                                let w = this.e.b.ins().uextend(types::I64, worker);
                                let at = this.e.b.ins().imul(w, stride);
                                this.e.b.ins().iadd(base, at)
                            } else {
                                base
                            }
                        }
                    };
                    scratch[usize::from(own)] = Some(first);
                    let at = this.e.dim(&offset)?;
                    let bytes = &b.len * b.dtype.bytes() as i64;
                    offset = &offset + &(&(&bytes + 63).floor_div(&Dim::Const(64)) * 64);
                    this.e.b.ins().iadd(first, at)
                }
                Scope::Private => {
                    let bytes = b.len.as_const().and_then(|n| n.checked_mul(b.dtype.bytes() as i64));
                    let Some(bytes) = bytes.and_then(|n| u32::try_from(n).ok()) else {
                        return Err(this.error(format!("private b{i} has length {}, expected a constant one", b.len)));
                    };
                    let slot = this.e.slot(bytes.max(1), 4);
                    this.e.slot_addr(slot)
                }
                Scope::Shared => return Err(this.error(format!("b{i} is shared memory, which CPU kernels have not"))),
            };
            this.bases.push(base);
        }
        Ok(this)
    }

    /// Everything that the entry block computes once: dims, variables of registers, slots with fill values.
    fn prepare(&mut self, stmts: &'k [Stmt]) -> Result<(), Error> {
        let mut dims: Vec<Dim> = vec![];
        visit_indices(stmts, &mut |e| {
            e.for_each_dim(&mut |d| {
                let (d, _) = d.split_constant();
                if d.as_const().is_none() && !dims.contains(&d) {
                    dims.push(d);
                }
            });
        });
        self.e.prepare_dims(&dims)?;

        let mut assigned: Vec<Reg> = self.wide.results();
        let mut fills: Vec<(DType, u64, u32)> = vec![];
        let mut constants: Vec<u64> = vec![];
        let mut widest = 0;
        self.wide.visit_kept(stmts, 0, &mut |s, lanes| {
            let Stmt::Set(r, e) = s else { return };
            if (lanes == 0 || self.k.reg(*r).lanes > 1) && !assigned.contains(r) {
                assigned.push(*r);
            }
            let d = self.k.reg(*r).dtype;
            if let Expr::Const(bits) = e
                && lanes > 0
                && matches!(d, DType::F32 | DType::F64)
                && !constants.contains(&repeated(d, *bits))
            {
                constants.push(repeated(d, *bits));
                widest = widest.max(lanes as usize * d.bytes());
            }
            if let Expr::Load {
                buffer, guard, fill, ..
            } = e
                && !guard.is_empty()
            {
                let lanes = lanes.max(self.k.reg(*r).lanes).max(1);
                fills.push((self.k.buffer(*buffer).dtype, *fill, lanes));
            }
        });
        for r in assigned {
            let info = self.k.reg(r);
            let (ty, n) = match (info.lanes, info.dtype) {
                (0 | 1, d) => (clif(d), 1),
                (l, DType::Bool) => (mask_type(8), chunks(l, 8)),
                (l, d) => (chunk(d), chunks(l, d.bits() as u32)),
            };
            let variables = (0..n).map(|_| self.e.b.declare_var(ty)).collect();
            self.variables.insert(r, variables);
        }
        // One slot for each fill value, long enough for the widest load of it.
        let mut slots: Vec<(u64, u32)> = vec![];
        for (d, fill, lanes) in fills {
            let (pattern, bytes) = (repeated(d, fill), (lanes * d.bytes() as u32).next_multiple_of(16));
            match slots.iter_mut().find(|(p, _)| *p == pattern) {
                Some((_, n)) => *n = bytes.max(*n),
                None => slots.push((pattern, bytes)),
            }
        }
        for (pattern, bytes) in slots {
            let slot = self.e.slot(bytes, 4);
            let (v, at) = (self.e.int(pattern as i64), self.e.slot_addr(slot));
            let v = self.e.b.ins().splat(types::I64X2, v);
            for offset in (0..bytes as i32).step_by(16) {
                self.e.b.ins().store(element(), v, at, offset);
            }
            self.fills.insert(pattern, slot);
        }
        if self.k.pooled && !constants.is_empty() {
            let copies = widest.div_ceil(16).clamp(1, MAX_COPIES);
            self.e.prepare_constants(&constants, copies)?;
        }
        let mut tiles: Vec<&'k Tile> = vec![];
        visit(stmts, &mut |s, _| {
            if let Stmt::Tile(t) = s {
                tiles.push(t);
            }
        });
        for t in tiles {
            let slot = self.prepare_tile(t)?;
            self.tiles.push((t, slot));
        }
        Ok(())
    }
}
