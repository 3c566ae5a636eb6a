//! A small machine that runs PTX text: the instructions that our printer uses, as NVIDIA's "Parallel Thread Execution ISA"
//! defines them, one thread after the other from barrier to barrier.
//!
//! It knows nothing of the loop IR, so that a plan run here is checked against the text alone: addresses, 32-bit arithmetic,
//! branches, the order of parameters. Every access must lie within a buffer of the launch, aligned to its size.

mod text;

use brolga::runtime::cuda::{Launch, Plan, Step, Storage};
use text::{Entry, Instruction, Op, Operand, Ty, parse};

/// Bits of an address that count within a buffer: global memory, then shared and local.
const GLOBAL: u32 = 40;
const SCRATCH: u32 = 20;

fn mask(bits: u32) -> u64 {
    if bits >= 64 { u64::MAX } else { (1 << bits) - 1 }
}

fn signed(x: u64, bits: u32) -> i64 {
    ((x << (64 - bits)) as i64) >> (64 - bits)
}

fn float(x: u64, bits: u32) -> f64 {
    if bits == 32 {
        f32::from_bits(x as u32) as f64
    } else {
        f64::from_bits(x)
    }
}

/// Memory of a run: one block of bytes for each buffer.
struct Memory {
    global: Vec<Vec<u8>>,
    shared: Vec<Vec<u8>>,
}

struct Thread {
    pc: usize,
    registers: Vec<u64>,
    local: Vec<Vec<u8>>,
    coordinates: [[u64; 3]; 2],
}

/// Runs a plan on inputs; gives the outputs, or the node of the first check that failed.
pub fn run(plan: &Plan, inputs: &[&[u8]]) -> Result<Vec<Vec<u8>>, String> {
    plan.check().unwrap_or_else(|e| panic!("{e}"));
    let entries = parse(&plan.module);
    let mut arena = vec![0xffu8; plan.arena_bytes as usize];
    let mut own: Vec<Vec<u8>> = (plan.buffers.iter())
        .map(|b| match &b.storage {
            Storage::Constant(c) => c.to_vec(),
            Storage::Arena(_) => vec![],
            _ => vec![0xff; b.bytes as usize],
        })
        .collect();
    for (&i, bytes) in plan.inputs.iter().zip(inputs) {
        own[i].copy_from_slice(bytes);
    }
    for s in plan.init.iter().chain(&plan.steps) {
        // A step sees its own buffers only; those of the arena are copied out of it and back.
        let touched: Vec<usize> = match s {
            Step::Launch(l) => l.buffers.clone(),
            Step::Copy { from, to } => vec![*from, *to],
        };
        let range = |i: usize| match plan.buffers[i].storage {
            Storage::Arena(at) => Some(at as usize..(at + plan.buffers[i].bytes) as usize),
            _ => None,
        };
        for &i in &touched {
            if let Some(r) = range(i) {
                own[i] = arena[r].to_vec();
            }
        }
        match s {
            Step::Copy { from, to } => own[*to] = own[*from].clone(),
            Step::Launch(l) => launch(&entries[&plan.entries[l.entry]], l, &mut own)?,
        }
        for &i in &touched {
            if let Some(r) = range(i) {
                arena[r].copy_from_slice(&own[i]);
            }
        }
    }
    Ok(plan.outputs.iter().map(|&i| own[i].clone()).collect())
}

/// Runs a launch; the node of a check that failed is the error.
fn launch(e: &Entry, l: &Launch, buffers: &mut [Vec<u8>]) -> Result<(), String> {
    assert_eq!(l.block, e.threads, "threads of a block");
    // The word for failed checks is one more buffer.
    let word = (!l.checks.is_empty()).then_some((l.buffers.len() as u64 + 1) << GLOBAL);
    let params: Vec<u64> = (0..l.buffers.len() as u64)
        .map(|i| (i + 1) << GLOBAL)
        .chain(l.dims.iter().map(|&d| d as u64))
        .chain(word)
        .collect();
    assert_eq!(params.len(), e.params, "parameters");
    let mut memory = Memory {
        global: l
            .buffers
            .iter()
            .map(|&i| buffers[i].clone())
            .chain(word.map(|_| vec![0; 4]))
            .collect(),
        shared: vec![],
    };
    let scratch = |space: &[usize]| -> Vec<Vec<u8>> { space.iter().map(|&n| vec![0xff; n]).collect() };
    let threads = l.block.iter().product::<u32>();
    let [gx, gy, gz] = l.grid;
    let split = |n: u32, [x, y, _]: [u32; 3]| [n % x, n / x % y, n / x / y].map(u64::from);
    for block in 0..gx * gy * gz {
        memory.shared = scratch(&e.spaces[0]);
        let thread = |t| Thread {
            pc: 0,
            registers: vec![0; e.registers],
            local: scratch(&e.spaces[1]),
            coordinates: [split(block, l.grid), split(t, l.block)],
        };
        let mut team: Vec<Thread> = (0..threads).map(thread).collect();
        loop {
            let waiting = team
                .iter_mut()
                .filter_map(|t| step(e, t, &params, &mut memory).then_some(t.pc))
                .collect::<Vec<_>>();
            if waiting.is_empty() {
                break;
            }
            assert!(
                waiting.len() == team.len() && waiting.iter().all(|pc| *pc == waiting[0]),
                "threads part at a barrier"
            );
        }
    }
    let failed = word
        .and_then(|_| memory.global.pop())
        .map_or(0, |w| u32::from_le_bytes(w.try_into().expect("4 bytes")));
    for (&i, bytes) in l.buffers.iter().zip(memory.global) {
        buffers[i] = bytes;
    }
    match failed {
        0 => Ok(()),
        n => Err(l.checks[n as usize - 1].clone()),
    }
}

/// Runs a thread to the next barrier (true) or to its end.
fn step(e: &Entry, t: &mut Thread, params: &[u64], memory: &mut Memory) -> bool {
    loop {
        let i = &e.code[t.pc];
        t.pc += 1;
        if i.when.is_some_and(|(p, value)| (t.registers[p] != 0) != value) {
            continue;
        }
        let get = |o: &Operand| match o {
            Operand::Reg(r) => t.registers[*r],
            Operand::Imm(x) => *x,
        };
        let (d, x) = match &i.op {
            Op::Return => return false,
            Op::Barrier => return true,
            Op::Branch(to) => {
                t.pc = *to;
                continue;
            }
            Op::Param(d, n) => (*d, params[*n]),
            Op::Special(d, block, axis) => (*d, t.coordinates[!*block as usize][*axis]),
            Op::Mov(d, x) => (*d, get(x)),
            Op::Load(space, ty, d, a) => {
                let bytes = ty.1 as usize / 8;
                let at = get(&a.base).wrapping_add(a.offset as u64);
                let mut x = [0; 8];
                x[..bytes].copy_from_slice(place(memory, &mut t.local, *space, at, bytes, i));
                let x = u64::from_le_bytes(x);
                (
                    *d,
                    if ty.0 == 's' {
                        signed(x, ty.1) as u64 & mask(32.max(ty.1))
                    } else {
                        x
                    },
                )
            }
            Op::Store(space, ty, a, x) => {
                let bytes = ty.1 as usize / 8;
                let at = get(&a.base).wrapping_add(a.offset as u64);
                let x = get(x).to_le_bytes();
                place(memory, &mut t.local, *space, at, bytes, i).copy_from_slice(&x[..bytes]);
                continue;
            }
            Op::Wide(d, [a, b, c]) => {
                let product = signed(get(a) & mask(32), 32).wrapping_mul(signed(get(b) & mask(32), 32));
                (*d, (product as u64).wrapping_add(get(c)))
            }
            Op::Arithmetic(name, ty, d, args) => {
                let x = |i: usize| args.get(i).map_or(0, get);
                (*d, arithmetic(name, *ty, [x(0), x(1), x(2)]))
            }
            Op::Compare(how, ty, d, [a, b], and) => {
                let holds = compare(how, *ty, get(a) & mask(ty.1), get(b) & mask(ty.1));
                (*d, (holds && and.is_none_or(|p| get(&p) != 0)) as u64)
            }
            Op::Select(d, [a, b, p]) => (*d, if get(p) != 0 { get(a) } else { get(b) }),
            Op::Convert(mode, to, from, d, x) => (*d, convert(mode, *to, *from, get(x))),
        };
        t.registers[d] = x;
    }
}

/// The bytes of an access, which must lie within one buffer.
fn place<'m>(
    memory: &'m mut Memory,
    local: &'m mut [Vec<u8>],
    space: char,
    at: u64,
    bytes: usize,
    i: &Instruction,
) -> &'m mut [u8] {
    let (buffers, shift) = match space {
        'g' => (&mut memory.global[..], GLOBAL),
        's' => (&mut memory.shared[..], SCRATCH),
        _ => (local, SCRATCH),
    };
    let (n, offset) = ((at >> shift) as usize, (at & mask(shift)) as usize);
    let outside = || -> ! { panic!("`{}` touches {at:#x}: {bytes} bytes at {offset} of buffer {n}", i.text) };
    if offset % bytes != 0 || n == 0 || n > buffers.len() {
        outside()
    }
    let len = buffers[n - 1].len();
    buffers[n - 1]
        .get_mut(offset..offset + bytes)
        .unwrap_or_else(|| panic!("`{}`: {bytes} bytes at {offset} of {len}", i.text))
}

fn arithmetic(name: &str, (kind, bits): Ty, [a, b, c]: [u64; 3]) -> u64 {
    if kind == 'f' {
        return match bits {
            32 => float_op(name, [a, b, c].map(|x| f32::from_bits(x as u32))).to_bits() as u64,
            _ => float_op64(name, [a, b, c].map(f64::from_bits)).to_bits(),
        };
    }
    let m = mask(bits);
    let (a, b, c) = (a & m, b & m, c & m);
    let (x, y) = (signed(a, bits), signed(b, bits));
    let s = kind == 's';
    let result = match name {
        "add" => a.wrapping_add(b),
        "sub" => a.wrapping_sub(b),
        "mul" => a.wrapping_mul(b),
        "mad" => a.wrapping_mul(b).wrapping_add(c),
        "and" => a & b,
        "or" => a | b,
        "xor" => a ^ b,
        "not" => !a,
        "min" if s => x.min(y) as u64,
        "max" if s => x.max(y) as u64,
        "min" => a.min(b),
        "max" => a.max(b),
        "div" | "rem" => {
            assert!(b != 0, "a division by zero, whose result PTX leaves open");
            assert!(
                !s || y != -1 || x != signed(1 << (bits - 1), bits),
                "an overflowing division"
            );
            match (name, s) {
                ("div", true) => (x / y) as u64,
                ("div", false) => a / b,
                (_, true) => (x % y) as u64,
                _ => a % b,
            }
        }
        // The amount is an unsigned 32-bit number, clamped to the width.
        "shl" if b & mask(32) >= bits as u64 => 0,
        "shl" => a << (b & mask(32)),
        "shr" if s => (x >> (b & mask(32)).min(bits as u64 - 1)) as u64,
        "shr" if b & mask(32) >= bits as u64 => 0,
        "shr" => a >> (b & mask(32)),
        _ => panic!("instruction {name}"),
    };
    result & m
}

macro_rules! float_ops {
    ($name:ident, $t:ty) => {
        fn $name(name: &str, [a, b, c]: [$t; 3]) -> $t {
            let nan = a.is_nan() || b.is_nan();
            match name {
                "add" => a + b,
                "sub" => a - b,
                "mul" => a * b,
                "div" => a / b,
                "fma" => a.mul_add(b, c),
                "sqrt" => a.sqrt(),
                "neg" => -a,
                "abs" => a.abs(),
                "copysign" => b.copysign(a),
                "min.NaN" | "max.NaN" if nan => <$t>::NAN,
                // -0 is less than +0.
                "min" | "min.NaN" if a == b => {
                    if a.is_sign_negative() {
                        a
                    } else {
                        b
                    }
                }
                "max" | "max.NaN" if a == b => {
                    if a.is_sign_negative() {
                        b
                    } else {
                        a
                    }
                }
                "min" | "min.NaN" => a.min(b),
                "max" | "max.NaN" => a.max(b),
                _ => panic!("instruction {name}"),
            }
        }
    };
}
float_ops!(float_op, f32);
float_ops!(float_op64, f64);

fn compare(how: &str, (kind, bits): Ty, a: u64, b: u64) -> bool {
    use std::cmp::Ordering::{Equal, Greater, Less};
    let order = match kind {
        'f' => float(a, bits).partial_cmp(&float(b, bits)),
        's' => Some(signed(a, bits).cmp(&signed(b, bits))),
        _ => Some(a.cmp(&b)),
    };
    match how {
        "eq" => order == Some(Equal),
        "ne" => matches!(order, Some(Less | Greater)),
        "neu" => order != Some(Equal),
        "lt" => order == Some(Less),
        "le" => matches!(order, Some(Less | Equal)),
        "gt" => order == Some(Greater),
        "ge" => matches!(order, Some(Greater | Equal)),
        "nan" => order.is_none(),
        _ => panic!("comparison {how}"),
    }
}

fn convert(mode: &str, to: Ty, from: Ty, x: u64) -> u64 {
    let x = x & mask(from.1);
    // Registers are as wide as 32 bits at least: a narrow result is extended.
    let keep = |x: u64| {
        let x = x & mask(to.1);
        if to.0 == 's' {
            signed(x, to.1) as u64 & mask(to.1.max(32))
        } else {
            x
        }
    };
    match (from.0, to.0) {
        ('f', 'f') => match (from.1, to.1, mode) {
            (16, 32, "") => half::f16::from_bits(x as u16).to_f32().to_bits() as u64,
            (32, 16, "rn") => half::f16::from_f32(f32::from_bits(x as u32)).to_bits() as u64,
            (32, 64, "") => float(x, 32).to_bits(),
            (64, 32, "rn") => (f64::from_bits(x) as f32).to_bits() as u64,
            (n, m, _) if n == m => {
                let r = match mode {
                    "rmi" => float(x, n).floor(),
                    "rpi" => float(x, n).ceil(),
                    "rzi" => float(x, n).trunc(),
                    "rni" => float(x, n).round_ties_even(),
                    _ => panic!("rounding {mode}"),
                };
                if n == 32 {
                    (r as f32).to_bits() as u64
                } else {
                    r.to_bits()
                }
            }
            _ => panic!("cvt.{mode} from f{} to f{}", from.1, to.1),
        },
        // bf16 is spelt with a b.
        ('f', 'b') => half::bf16::from_f32(f32::from_bits(x as u32)).to_bits() as u64,
        ('f', _) => {
            assert_eq!(mode, "rzi");
            let f = float(x, from.1);
            if f.is_nan() {
                // "Zero if source is not .f64 and destination is not 64 bits wide", else the highest bit.
                return if from.1 == 64 || to.1 == 64 { 1 << (to.1 - 1) } else { 0 };
            }
            match to {
                ('s', 32) => f as i32 as u32 as u64,
                ('u', 32) => f as u32 as u64,
                ('s', _) => f as i64 as u64,
                _ => f as u64,
            }
        }
        (s, 'f') => {
            assert_eq!(mode, "rn");
            let (i, u) = (signed(x, from.1), x);
            match (s, to.1) {
                ('s', 32) => (i as f32).to_bits() as u64,
                ('s', _) => (i as f64).to_bits(),
                (_, 32) => (u as f32).to_bits() as u64,
                _ => (u as f64).to_bits(),
            }
        }
        ('s', _) => keep(signed(x, from.1) as u64),
        _ => keep(x),
    }
}
