//! Linear-scan register allocation for the vector IR.
//!
//! Each virtual register gets one machine register for its whole life, which is the hull (first to last point) of the
//! points where it is live; liveness comes from a backward data-flow pass over basic blocks, so loops need no special
//! case. Registers whose hulls overlap get different machine registers of their file. Where a file has none left, the
//! register that is touched least for its length, weighed by the depth of loops, moves to the frame for its whole life: the function is
//! written anew ([`spill`](super::spill)) with a short-lived register at each place that touches it, and allocated again. One
//! round is enough but where the new registers do not fit either.
//!
//! Every operation has two points, reads (`2i + 2`) and writes (`2i + 3`); a result may take the register of an operand
//! that ends there, a scratch register may not. Parameters are written at point 1, in the System V argument registers.
//!
//! Source: M. Poletto, V. Sarkar, Linear Scan Register Allocation, TOPLAS 21(5), 1999. An independent checker in the
//! tests replays the result as regalloc2's does.

use super::spill::spill;
use super::vir::{Class, Function, G, K, Op, Operand, Role, V};
use super::{Error, Isa};
use rustc_hash::FxHashMap;
use std::borrow::Cow;

/// The System V integer argument registers (rdi, rsi, rdx, rcx, r8, r9), by hardware number.
pub const ARGUMENTS: [u8; 6] = [7, 6, 2, 1, 8, 9];

/// The general registers that a callee must preserve (rbx, rbp, r12 to r15), by hardware number.
pub const CALLEE_SAVED: [u8; 6] = [3, 5, 12, 13, 14, 15];

/// What leads back from the frame, in functions that have one.
const FRAME_POINTER: u8 = 5;

/// General registers in the order they are handed out: those that cost no push first. The stack pointer is not among them.
const GENERAL_ORDER: [u8; 15] = [0, 1, 2, 6, 7, 8, 9, 10, 11, 3, 5, 12, 13, 14, 15];

/// A file of machine registers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum File {
    /// `zmm0`–`zmm31` or `ymm0`–`ymm15`.
    Vector,
    /// The sixteen 64-bit registers.
    General,
    /// `k1`–`k7`.
    Opmask,
}

impl File {
    /// The file that holds a class of virtual registers: an AVX2 mask is a vector.
    pub fn of(class: Class, isa: Isa) -> File {
        match (class, isa) {
            (Class::General, _) => File::General,
            (Class::Mask, _) if isa.is_evex() => File::Opmask,
            (Class::Vector | Class::Mask, _) => File::Vector,
        }
    }

    fn free(self, isa: Isa) -> u32 {
        match self {
            File::Vector => (u32::MAX as u64 >> (32 - isa.vector_registers())) as u32,
            File::General => GENERAL_ORDER.iter().fold(0, |set, r| set | 1 << r),
            File::Opmask => 0b1111_1110,
        }
    }

    fn name(self) -> &'static str {
        match self {
            File::Vector => "vector",
            File::General => "general",
            File::Opmask => "mask",
        }
    }
}

/// The machine register of each virtual one.
#[derive(Clone, Debug)]
pub struct Allocation {
    machine: Vec<u8>,
    /// The register whose value each virtual one has: another one for those that were made to reach the frame.
    origin: Vec<u32>,
    /// Whether `rbp` leads back from the frame.
    framed: bool,
}

impl Allocation {
    /// The machine register of virtual register `number`, within its file, by hardware number.
    pub fn machine(&self, number: u32) -> u8 {
        self.machine[number as usize]
    }

    /// The register of the function as it was written whose value a register has.
    pub fn origin(&self, number: u32) -> u32 {
        self.origin[number as usize]
    }

    /// The vector register of `v`.
    pub fn vector(&self, v: V) -> u8 {
        self.machine(v.0)
    }

    /// The general register of `g`.
    pub fn general(&self, g: G) -> u8 {
        self.machine(g.0)
    }

    /// The opmask (AVX-512) or vector (AVX2) register of `k`.
    pub fn mask(&self, k: K) -> u8 {
        self.machine(k.0)
    }

    /// The callee-saved registers in use, in the order they are pushed.
    pub fn saved(&self, function: &Function) -> Vec<u8> {
        let mut used = [false; 16];
        used[usize::from(FRAME_POINTER)] = self.framed;
        for (class, machine) in function.classes().iter().zip(&self.machine) {
            if *class == Class::General {
                used[usize::from(*machine)] = true;
            }
        }
        CALLEE_SAVED.into_iter().filter(|r| used[usize::from(*r)]).collect()
    }
}

/// The hull of a virtual register's live points.
#[derive(Clone, Copy)]
struct Interval {
    start: usize,
    end: usize,
    number: u32,
}

/// How often a function is written anew before it is refused.
const ROUNDS: usize = 6;

/// Assigns machine registers, and gives the function that they are for: the one given, where nothing moved to the frame.
///
/// # Errors
/// [`Error::TooManyRegisters`] when an operation alone needs too many; [`Error::Malformed`] for a function that
/// [`Function::label_places`] refuses, or that reads a register before writing it on some path.
pub fn allocate(function: &Function) -> Result<(Cow<'_, Function>, Allocation), Error> {
    let mut function = Cow::Borrowed(function);
    let mut origin: Vec<u32> = (0..function.classes().len() as u32).collect();
    for _ in 0..ROUNDS {
        let fixed = |n: u32| origin[n as usize] != n;
        match scan(&function, &fixed)? {
            Scanned::Fits(machine) => {
                // A register that nothing touches is in none.
                let framed = !function.slots().is_empty();
                return Ok((
                    function,
                    Allocation {
                        machine,
                        origin,
                        framed,
                    },
                ));
            }
            Scanned::Spills(numbers) => spill(function.to_mut(), &numbers, &mut origin),
        }
    }
    Err(Error::TooManyRegisters {
        function: function.name.clone(),
        at: function.ops.len(),
        available: function.isa.vector_registers(),
        class: "vector",
        isa: function.isa,
    })
}

/// What one pass over the intervals found.
enum Scanned {
    /// The machine registers.
    Fits(Vec<u8>),
    /// The registers that must move to the frame.
    Spills(Vec<u32>),
}

fn scan(function: &Function, fixed: &dyn Fn(u32) -> bool) -> Result<Scanned, Error> {
    let isa = function.isa;
    let mut intervals = intervals(function)?;
    let weights = weights(function);
    let hints = hints(function);
    intervals.sort_unstable_by_key(|i| (i.start, i.number));
    let mut free = [File::Vector, File::General, File::Opmask].map(|file| file.free(isa));
    if !function.slots().is_empty() {
        free[File::General as usize] &= !(1 << FRAME_POINTER);
    }
    let mut active: Vec<(Interval, File)> = Vec::new();
    let mut machine = vec![0u8; function.classes().len()];
    let mut spilled = vec![];
    for interval in intervals {
        active.retain(|(old, file)| {
            let live = old.end >= interval.start;
            if !live {
                free[*file as usize] |= 1 << machine[old.number as usize];
            }
            live
        });
        let file = File::of(function.classes()[interval.number as usize], isa);
        let set = free[file as usize];
        let parameter = function.params.iter().position(|g| g.0 == interval.number);
        let hinted = hints[interval.number as usize].map(|n| machine[n as usize]);
        let choice = match (parameter, file) {
            (Some(i), _) => Some(ARGUMENTS[i]),
            _ if hinted.is_some_and(|r| set >> r & 1 == 1) => hinted,
            (None, File::General) => GENERAL_ORDER.into_iter().find(|r| set >> r & 1 == 1),
            (None, _) => (set != 0).then(|| set.trailing_zeros() as u8),
        };
        let register = match choice {
            Some(register) => register,
            None => {
                let candidates = active
                    .iter()
                    .enumerate()
                    .filter(|(_, (i, f))| *f == file && !fixed(i.number));
                // What frees a register for long, and is touched little meanwhile.
                let cheap = |i: &Interval| (weights[i.number as usize] << 16) / (i.end - i.start + 1) as u64;
                let victim = candidates
                    .min_by_key(|(_, (i, _))| cheap(i))
                    .map(|(at, (i, _))| (at, *i));
                match victim {
                    Some((at, victim)) if fixed(interval.number) || cheap(&victim) < cheap(&interval) => {
                        active.swap_remove(at);
                        spilled.push(victim.number);
                        machine[victim.number as usize]
                    }
                    _ if !fixed(interval.number) => {
                        spilled.push(interval.number);
                        continue;
                    }
                    _ => {
                        return Err(Error::TooManyRegisters {
                            function: function.name.clone(),
                            at: interval.start.saturating_sub(2) / 2,
                            available: file.free(isa).count_ones() as usize,
                            class: file.name(),
                            isa,
                        });
                    }
                }
            }
        };
        free[file as usize] &= !(1 << register);
        machine[interval.number as usize] = register;
        active.push((interval, file));
    }
    Ok(match spilled.is_empty() {
        true => Scanned::Fits(machine),
        false => Scanned::Spills(spilled),
    })
}

/// How often registers are touched: once for each place, eight times as much for each loop around it.
fn weights(function: &Function) -> Vec<u64> {
    let mut place = FxHashMap::default();
    for (at, op) in function.ops.iter().enumerate() {
        if let Op::Label(l) = op {
            place.insert(*l, at);
        }
    }
    // A branch backwards closes a loop.
    let mut change = vec![0i32; function.ops.len() + 1];
    for (at, op) in function.ops.iter().enumerate() {
        if let Some(&to) = op.target().and_then(|to| place.get(&to))
            && to <= at
        {
            change[to] += 1;
            change[at + 1] -= 1;
        }
    }
    let mut weights = vec![0u64; function.classes().len()];
    let mut depth = 0;
    for (op, change) in function.ops.iter().zip(change) {
        depth += change;
        op.visit(|_, n, _| weights[n as usize] += 1 << (3 * depth.clamp(0, 12)));
    }
    weights
}

/// The register whose place a register had better take, if it is free: an operation then needs no copy.
fn hints(function: &Function) -> Vec<Option<u32>> {
    let mut hints = vec![None; function.classes().len()];
    for op in &function.ops {
        let (dst, src) = match op {
            Op::Move { dst, src } => (dst.0, src.0),
            Op::Copy { dst, src } => (dst.0, src.0),
            Op::MoveMask { dst, src } => (dst.0, src.0),
            Op::MulAdd {
                dst,
                c: Operand::Reg(c),
                ..
            } => (dst.0, c.0),
            Op::MulAdd { dst, a, .. } => (dst.0, a.0),
            _ => continue,
        };
        hints[dst as usize].get_or_insert(src);
    }
    hints
}

/// A set of virtual registers.
#[derive(Clone, PartialEq)]
struct Set(Vec<u64>);

impl Set {
    fn new(len: usize) -> Set {
        Set(vec![0; len.div_ceil(64)])
    }

    fn insert(&mut self, n: u32) {
        self.0[n as usize / 64] |= 1 << (n % 64);
    }

    fn remove(&mut self, n: u32) {
        self.0[n as usize / 64] &= !(1 << (n % 64));
    }

    fn iter(&self) -> impl Iterator<Item = u32> + '_ {
        self.0.iter().enumerate().flat_map(|(word, bits)| {
            let mut bits = *bits;
            std::iter::from_fn(move || {
                let bit = (bits != 0).then(|| bits.trailing_zeros())?;
                bits &= bits - 1;
                Some(word as u32 * 64 + bit)
            })
        })
    }
}

/// A basic block: its operations, what it reads before writing, what it writes, and what is live at its start.
struct Block {
    first: usize,
    end: usize,
    reads: Set,
    writes: Set,
    live_in: Set,
}

/// The live interval of each register that is touched, unordered.
fn intervals(function: &Function) -> Result<Vec<Interval>, Error> {
    let places = function.label_places()?;
    let count = function.classes().len();
    let mut blocks = blocks(function);
    let block_of = |at: usize, blocks: &[Block]| blocks.partition_point(|b| b.end <= at);

    let live_out = |b: usize, blocks: &[Block]| {
        let mut out = Set::new(count);
        let last = &function.ops[blocks[b].end - 1];
        let next = (!last.ends() && b + 1 < blocks.len()).then_some(b + 1);
        let target = last.target().map(|to| block_of(places[to.0 as usize], blocks));
        for successor in next.into_iter().chain(target) {
            for (word, more) in out.0.iter_mut().zip(&blocks[successor].live_in.0) {
                *word |= more;
            }
        }
        out
    };
    let mut changed = true;
    while changed {
        changed = false;
        for b in (0..blocks.len()).rev() {
            let mut live = live_out(b, &blocks);
            let block = &mut blocks[b];
            for ((live, reads), writes) in live.0.iter_mut().zip(&block.reads.0).zip(&block.writes.0) {
                *live = *live & !writes | reads;
            }
            changed |= live != block.live_in;
            block.live_in = live;
        }
    }
    let unwritten = blocks[0]
        .live_in
        .iter()
        .find(|n| function.params.iter().all(|p| p.0 != *n));
    if let Some(number) = unwritten {
        return Err(Error::Malformed {
            function: function.name.clone(),
            at: 0,
            what: format!(
                "register {number} ({:?}) is read before it is written",
                function.classes()[number as usize]
            ),
        });
    }

    let mut hulls = vec![(usize::MAX, 0); count];
    let mut cover = |number: u32, point: usize| {
        let (start, end) = &mut hulls[number as usize];
        *start = (*start).min(point);
        *end = (*end).max(point);
    };
    for g in &function.params {
        cover(g.0, 1);
    }
    for b in 0..blocks.len() {
        let block = &blocks[b];
        block.live_in.iter().for_each(|n| cover(n, 2 * block.first + 2));
        live_out(b, &blocks).iter().for_each(|n| cover(n, 2 * block.end + 1));
        for at in block.first..block.end {
            let (read, write) = (2 * at + 2, 2 * at + 3);
            function.ops[at].visit(|_, number, role| match role {
                Role::Use => cover(number, read),
                Role::Def => cover(number, write),
                Role::Early | Role::Update | Role::Scratch => {
                    cover(number, read);
                    cover(number, write);
                }
            });
        }
    }
    let touched = hulls.iter().enumerate().filter(|(_, (start, _))| *start != usize::MAX);
    Ok(touched
        .map(|(n, (start, end))| Interval {
            start: *start,
            end: *end,
            number: n as u32,
        })
        .collect())
}

/// Cuts the code before labels and after branches.
fn blocks(function: &Function) -> Vec<Block> {
    let ops = &function.ops;
    let mut blocks = Vec::new();
    let mut first = 0;
    for end in 1..=ops.len() {
        let last = &ops[end - 1];
        let cut = end == ops.len() || last.ends() || last.target().is_some() || matches!(ops[end], Op::Label(_));
        if !cut {
            continue;
        }
        let empty = || Set::new(function.classes().len());
        let mut block = Block {
            first,
            end,
            reads: empty(),
            writes: empty(),
            live_in: empty(),
        };
        for op in ops[first..end].iter().rev() {
            op.visit(|_, n, role| {
                if role.writes() && !role.reads() {
                    block.writes.insert(n);
                    block.reads.remove(n);
                }
            });
            op.visit(|_, n, role| {
                if role.reads() {
                    block.reads.insert(n);
                }
            });
        }
        blocks.push(block);
        first = end;
    }
    blocks
}

#[cfg(test)]
mod tests {
    use super::super::checker::check;
    use super::super::tile;
    use super::super::vir::{Binary, Comparison, Cond, Elem, GeneralOp, Logic, Mem, Scalar};
    use super::*;
    use brolga_ir::{TileFamily, TileKind};

    #[test]
    fn every_tile_is_allocated_and_the_checker_agrees() {
        use TileFamily::{Amx, Avx2, Avx512, Avx512Bf16, Avx512Vnni};
        for (family, kind) in [Avx2, Avx512, Avx512Vnni, Avx512Bf16, Amx]
            .into_iter()
            .flat_map(|f| TileKind::ALL.map(|k| (f, k)))
        {
            for vectors in 1..=2 {
                for rows in 1..=tile::max_rows(family, kind, vectors) {
                    let strides = [kind.interleave() > 1, true].into_iter();
                    for (unit_k, ahead) in strides.flat_map(|k| [(k, false), (k, true)]) {
                        let ahead = ahead && tile::can_fetch_ahead(kind, rows, unit_k);
                        let function = tile::build(tile::TileKey {
                            family,
                            kind,
                            rows,
                            vectors,
                            unit_k,
                            ahead,
                        })
                        .unwrap();
                        let (after, allocation) = allocate(&function).unwrap();
                        // Matrices take addresses of more than registers hold; what waits there is not of the innermost loops.
                        assert!(family == Amx || after.slots().is_empty(), "{}", function.name);
                        check(&after, &allocation).unwrap();
                    }
                }
            }
        }
    }

    #[test]
    fn the_checker_refuses_a_swapped_register() {
        let key = tile::TileKey {
            family: TileFamily::Avx512,
            kind: TileKind::F32,
            rows: 3,
            vectors: 2,
            unit_k: true,
            ahead: false,
        };
        let function = tile::build(key).unwrap();
        let (_, good) = allocate(&function).unwrap();
        // Registers live at once: give one the other's place.
        let numbers: Vec<usize> = (0..good.machine.len())
            .filter(|n| function.classes()[*n] == Class::Vector)
            .take(2)
            .collect();
        let mut bad = good.clone();
        bad.machine[numbers[0]] = bad.machine[numbers[1]];
        assert!(check(&function, &bad).is_err());
    }

    /// So many vectors live at once, and how many of them went to the frame.
    fn live(n: usize) -> usize {
        let mut f = Function::new("wide", Isa::Avx2);
        let p = f.param();
        let ty = f.whole(Elem::F32);
        let values: Vec<V> = (0..n).map(|i| f.load(ty, Mem::at(p, 32 * i as i32), None)).collect();
        values.iter().for_each(|v| {
            f.push(Op::Store {
                ty,
                mem: Mem::at(p, 0),
                src: *v,
                mask: None,
            })
        });
        f.push(Op::Return);
        let (f, allocation) = allocate(&f).unwrap();
        check(&f, &allocation).unwrap();
        f.slots().len()
    }

    #[test]
    fn what_has_no_register_goes_to_the_frame() {
        assert_eq!(live(16), 0);
        assert!((1..3).contains(&live(17)));
        assert!((8..12).contains(&live(24)));
    }

    #[test]
    fn loops_keep_their_registers() {
        let mut f = Function::new("loop", Isa::Avx2);
        let (p, n) = (f.param(), f.param());
        let ty = f.whole(Elem::F32);
        let outside: Vec<V> = (0..12).map(|i| f.load(ty, Mem::at(p, 32 * i), None)).collect();
        f.counted_loop(n, 1, |f| {
            let inside: Vec<V> = (0..12).map(|i| f.load(ty, Mem::at(p, 32 * i), None)).collect();
            for v in inside {
                f.push(Op::Store {
                    ty,
                    mem: Mem::at(p, 0),
                    src: v,
                    mask: None,
                });
            }
        });
        for v in outside {
            f.push(Op::Store {
                ty,
                mem: Mem::at(p, 0),
                src: v,
                mask: None,
            });
        }
        f.push(Op::Return);
        let (f, allocation) = allocate(&f).unwrap();
        check(&f, &allocation).unwrap();
        let at = |l: fn(&Op) -> bool| f.ops.iter().position(l).unwrap();
        let (head, back) = (
            at(|o| matches!(o, Op::Label(_))),
            f.ops.iter().rposition(|o| matches!(o, Op::Branch { .. })).unwrap(),
        );
        let frame = |o: &Op| matches!(o, Op::SpillVector { .. } | Op::ReloadVector { .. });
        assert!(!f.ops[head..back].iter().any(frame), "{f}");
        assert!(f.ops.iter().any(frame), "{f}");
    }

    #[test]
    fn a_register_read_before_it_is_written_is_an_error() {
        let mut f = Function::new("early", Isa::Avx512);
        let p = f.param();
        let (skip, v) = (f.label(), f.vector());
        f.branch(Cond::Eq, p, Scalar::Imm(0), skip);
        f.push(Op::Zero { dst: v });
        f.place(skip);
        f.push(Op::Store {
            ty: Elem::F32.by(16),
            mem: Mem::at(p, 0),
            src: v,
            mask: None,
        });
        f.push(Op::Return);
        assert!(matches!(allocate(&f), Err(Error::Malformed { at: 0, .. })));
    }

    /// Random code with forward and backward branches, many of them with more values than registers.
    #[test]
    fn random_functions_pass_the_checker() {
        let mut state = 0x9e37_79b9_7f4a_7c15u64;
        let mut random = |n: usize| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state % n as u64) as usize
        };
        let mut spilled = 0;
        for round in 0..400 {
            let isa = Isa::ALL[round % 2];
            let mut f = Function::new("random", isa);
            let params: Vec<G> = (0..1 + random(3)).map(|_| f.param()).collect();
            let mut general = params.clone();
            let count = 2 + random(20);
            general.extend((0..count).map(|_| f.general()));
            for g in &general[params.len()..] {
                f.push(Op::Imm { dst: *g, value: 7 });
            }
            let ty = f.whole(Elem::F32);
            let count = 1 + random(2 * isa.vector_registers());
            let vectors: Vec<V> = (0..count).map(|_| f.zero()).collect();
            let labels: Vec<_> = (0..4).map(|_| f.label()).collect();
            for label in &labels {
                for _ in 0..random(12) {
                    let (g, h) = (general[random(general.len())], general[random(general.len())]);
                    let (v, w) = (vectors[random(vectors.len())], vectors[random(vectors.len())]);
                    match random(9) {
                        0 => f.general_op(GeneralOp::Add, g, Scalar::Reg(h)),
                        1 => f.push(Op::Lea {
                            dst: g,
                            mem: Mem::indexed(h, g, 4, 8),
                        }),
                        2 => f.push(Op::Fma {
                            ty,
                            acc: v,
                            a: w,
                            b: Operand::Mem(Mem::at(g, 0)),
                        }),
                        3 => f.push(Op::Binary {
                            op: Binary::Max,
                            ty,
                            dst: v,
                            a: w,
                            b: Operand::Reg(w),
                        }),
                        4 => f.push(Op::Load {
                            ty,
                            dst: v,
                            mem: Mem::at(h, 4),
                            mask: None,
                        }),
                        5 => {
                            let mask = f.first_lanes(h, 3);
                            f.push(Op::Store {
                                ty,
                                mem: Mem::at(g, 0),
                                src: v,
                                mask: Some(mask),
                            });
                        }
                        6 => f.push(Op::MulAdd {
                            ty,
                            dst: v,
                            a: w,
                            b: Operand::Reg(vectors[random(vectors.len())]),
                            c: Operand::Reg(w),
                        }),
                        7 => {
                            let mask = f.compare(Comparison::Lt, ty, v, Operand::Mem(Mem::at(g, 0)));
                            let many: Vec<K> = (0..random(10)).map(|_| f.logic(Logic::And, mask, mask)).collect();
                            for k in many {
                                f.push(Op::Select {
                                    ty,
                                    dst: v,
                                    mask: k,
                                    a: w,
                                    b: v,
                                });
                            }
                        }
                        _ => f.branch(Cond::Lt, g, Scalar::Reg(h), labels[random(labels.len())]),
                    }
                }
                f.place(*label);
            }
            f.push(Op::Return);
            let (after, allocation) = allocate(&f).unwrap();
            check(&after, &allocation).unwrap_or_else(|what| panic!("{what}\n{after}"));
            spilled += usize::from(!after.slots().is_empty());
        }
        assert!((100..390).contains(&spilled), "{spilled} functions use their frames");
    }
}
