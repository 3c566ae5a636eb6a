//! Grids of blocks of threads, and where a thread finds itself in a domain.

use super::super::flat::is_affine;
use super::super::nest::{Nest, collapse};
use brolga_ir::index::{Ix, Var};
use brolga_ir::loops::{Expr, LoopKind, Stmt};
use brolga_ir::{DType, Dim};

/// The most threads of a block (CUDA's limit).
const MAX_THREADS: i64 = 1024;

/// # Errors
/// When a block cannot have so many threads.
pub fn check_threads(n: i64) -> Result<(), String> {
    match (1..=MAX_THREADS).contains(&n) {
        true => Ok(()),
        false => Err(format!("{n} threads in a block, expected 1 to {MAX_THREADS}")),
    }
}

/// The body for every thread of every block: grid dimension 0, block dimensions 0 and on.
pub fn grid(blocks: (Var, Dim), threads: &[(Var, i64)], body: Vec<Stmt>) -> Vec<Stmt> {
    let nest = |body, (var, kind, extent)| {
        vec![Stmt::For {
            var,
            kind,
            extent,
            body,
        }]
    };
    let threads = threads
        .iter()
        .enumerate()
        .map(|(d, &(v, n))| (v, LoopKind::Thread(d as u8), Ix::constant(n)));
    let body = threads.fold(body, nest);
    nest(body, (blocks.0, LoopKind::Block(0), Ix::constant(blocks.1)))
}

/// What dimensions are at the flat position `p`. Those that need a division are put into registers.
pub fn coordinates(nest: &mut Nest, out: &mut Vec<Stmt>, dims: &[(Var, Dim)], p: &Ix) -> Vec<(Var, Ix)> {
    let v = nest.var();
    let (_, map) = collapse(dims, v);
    let put = |(u, ix): (Var, Ix)| {
        let ix = ix.substitute(&|w| if w == v { p.clone() } else { Ix::var(w) }, &Ix::reg);
        (u, kept(nest, out, ix))
    };
    map.into_iter().map(put).collect()
}

/// The expression, from a register when it divides.
pub fn kept(nest: &mut Nest, out: &mut Vec<Stmt>, ix: Ix) -> Ix {
    if is_affine(&ix) {
        ix
    } else {
        Ix::reg(nest.set(out, DType::I64, Expr::Index(ix)))
    }
}
