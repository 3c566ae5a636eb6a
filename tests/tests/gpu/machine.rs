//! A small machine that runs PTX text: the instructions that our printer uses, as NVIDIA's "Parallel Thread Execution ISA"
//! defines them, one thread after the other from barrier to barrier.
//!
//! It knows nothing of the loop IR, so that a plan run here is checked against the text alone: addresses, 32-bit arithmetic,
//! branches, the order of parameters. Every access must lie within a buffer of the launch, aligned to its size.

use brolga::runtime::cuda::{Launch, Plan, Step, Storage};
use std::collections::HashMap;

/// A type suffix: `f`loat, `s`igned, `u`nsigned, `b`its, `p`redicate, and its width.
type Ty = (char, u32);

#[derive(Clone, Copy, Debug)]
enum Operand {
    Reg(usize),
    /// Bits as the instruction's type has them.
    Imm(u64),
}

#[derive(Clone, Copy, Debug)]
struct Address {
    base: Operand,
    offset: i64,
}

#[derive(Clone, Debug)]
enum Op {
    Param(usize, usize),
    /// A coordinate: block or thread, and its axis.
    Special(usize, bool, usize),
    Load(char, Ty, usize, Address),
    Store(char, Ty, Address, Operand),
    Mov(usize, Operand),
    /// Two or three operands of one type.
    Arithmetic(String, Ty, usize, Vec<Operand>),
    /// A product of 32-bit operands in 64 bits, and what is added.
    Wide(usize, [Operand; 3]),
    Compare(String, Ty, usize, [Operand; 2], Option<Operand>),
    Select(usize, [Operand; 3]),
    Convert(String, Ty, Ty, usize, Operand),
    Branch(usize),
    Barrier,
    Return,
}

#[derive(Clone, Debug)]
struct Instruction {
    /// A predicate, and the value that it must have.
    when: Option<(usize, bool)>,
    op: Op,
    text: String,
}

#[derive(Default)]
struct Entry {
    params: usize,
    threads: [u32; 3],
    registers: usize,
    code: Vec<Instruction>,
    /// Bytes of the shared and local buffers, in order.
    spaces: [Vec<usize>; 2],
}

/// Bits of an address that count within a buffer: global memory, then shared and local.
const GLOBAL: u32 = 40;
const SCRATCH: u32 = 20;

fn ty(s: &str) -> Ty {
    match s {
        "pred" => return ('p', 1),
        "bf16" => return ('b', 16),
        _ => {}
    }
    (
        s.chars().next().unwrap(),
        s[1..].parse().unwrap_or_else(|_| panic!("type {s}")),
    )
}

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

/// The entries of a module.
fn parse(module: &str) -> HashMap<String, Entry> {
    let mut entries = HashMap::new();
    for text in module.split(".visible .entry ").skip(1) {
        let (name, rest) = text.split_once('(').unwrap();
        let (params, rest) = rest.split_once("\n)\n").unwrap();
        let (threads, body) = rest.split_once("\n{\n").unwrap();
        let params: Vec<&str> = params
            .lines()
            .filter_map(|l| l.trim().trim_end_matches(',').rsplit(' ').next())
            .collect();
        let params: Vec<&str> = params.into_iter().filter(|p| !p.is_empty()).collect();
        let threads: Vec<u32> = threads
            .trim_start_matches(".reqntid ")
            .split(", ")
            .map(|n| n.parse().unwrap())
            .collect();
        let mut e = Entry {
            params: params.len(),
            threads: threads.try_into().unwrap(),
            ..Entry::default()
        };
        let (mut symbols, mut registers, mut labels) = (HashMap::new(), HashMap::new(), HashMap::new());
        let lines: Vec<&str> = body.split("\n}").next().unwrap().lines().map(str::trim).collect();
        let mut at = 0;
        for l in &lines {
            match l.strip_suffix(':') {
                Some(label) => {
                    labels.insert(label.to_string(), at);
                }
                None if !l.is_empty() && !l.starts_with('.') => at += 1,
                None => {}
            }
        }
        for l in &lines {
            if l.ends_with(':') || l.is_empty() || l.starts_with(".reg") {
                continue;
            }
            if let Some(d) = l.strip_prefix(".shared").or_else(|| l.strip_prefix(".local")) {
                let (symbol, bytes) = d
                    .trim_end_matches("];")
                    .rsplit_once(' ')
                    .unwrap()
                    .1
                    .split_once('[')
                    .unwrap();
                let space = &mut e.spaces[l.starts_with(".local") as usize];
                space.push(bytes.parse().unwrap());
                symbols.insert(symbol.to_string(), (space.len() as u64) << SCRATCH);
                continue;
            }
            let mut p = Parser {
                params: &params,
                symbols: &symbols,
                registers: &mut registers,
                labels: &labels,
            };
            e.code.push(p.instruction(l.trim_end_matches(';')));
        }
        e.registers = registers.len();
        entries.insert(name.to_string(), e);
    }
    entries
}

struct Parser<'a> {
    params: &'a [&'a str],
    symbols: &'a HashMap<String, u64>,
    registers: &'a mut HashMap<String, usize>,
    labels: &'a HashMap<String, usize>,
}

impl Parser<'_> {
    fn reg(&mut self, s: &str) -> usize {
        assert!(s.starts_with('%'), "a register, not {s}");
        let n = self.registers.len();
        *self.registers.entry(s.to_string()).or_insert(n)
    }

    fn operand(&mut self, s: &str) -> Operand {
        if s.starts_with('%') {
            return Operand::Reg(self.reg(s));
        }
        if let Some(a) = self.symbols.get(s) {
            return Operand::Imm(*a);
        }
        let hex = s.strip_prefix("0f").or_else(|| s.strip_prefix("0d"));
        Operand::Imm(match hex {
            Some(h) => u64::from_str_radix(h, 16).unwrap(),
            None => s.parse::<i128>().unwrap_or_else(|_| panic!("operand {s}")) as u64,
        })
    }

    fn address(&mut self, s: &str) -> Address {
        let s = s.trim_start_matches('[').trim_end_matches(']');
        let (base, offset) = s.split_once('+').unwrap_or((s, "0"));
        Address {
            base: self.operand(base),
            offset: offset.parse().unwrap(),
        }
    }

    fn instruction(&mut self, text: &str) -> Instruction {
        let (when, rest) = match text.strip_prefix('@') {
            Some(t) => {
                let (p, rest) = t.split_once(' ').unwrap();
                (Some((self.reg(p.trim_start_matches('!')), !p.starts_with('!'))), rest)
            }
            None => (None, text),
        };
        let (name, args) = rest.split_once(' ').unwrap_or((rest, ""));
        let args: Vec<&str> = args.split(", ").collect();
        let parts: Vec<&str> = name.split('.').collect();
        let last = || ty(parts[parts.len() - 1]);
        let op = match parts[0] {
            "ret" => Op::Return,
            "bar" => Op::Barrier,
            "bra" => Op::Branch(self.labels[args[0]]),
            "ld" if parts[1] == "param" => {
                let name = args[1].trim_start_matches('[').trim_end_matches(']');
                let n = self.params.iter().position(|p| *p == name);
                Op::Param(self.reg(args[0]), n.unwrap_or_else(|| panic!("parameter {name}")))
            }
            "ld" => Op::Load(
                parts[1].chars().next().unwrap(),
                last(),
                self.reg(args[0]),
                self.address(args[1]),
            ),
            "st" => Op::Store(
                parts[1].chars().next().unwrap(),
                last(),
                self.address(args[0]),
                self.operand(args[1]),
            ),
            "mov" if args[1].starts_with("%ctaid.") || args[1].starts_with("%tid.") => {
                let axis = ["x", "y", "z"].iter().position(|a| args[1].ends_with(a)).unwrap();
                Op::Special(self.reg(args[0]), args[1].starts_with("%ctaid"), axis)
            }
            "mov" if parts[1] == "pred" && !args[1].starts_with('%') => {
                Op::Mov(self.reg(args[0]), Operand::Imm((args[1] != "0") as u64))
            }
            "mov" => match self.operand(args[1]) {
                Operand::Imm(x) => Op::Mov(self.reg(args[0]), Operand::Imm(x & mask(last().1))),
                x => Op::Mov(self.reg(args[0]), x),
            },
            // An address in global memory is a generic one here.
            "cvta" => Op::Mov(self.reg(args[0]), self.operand(args[1])),
            "setp" => {
                let third = (parts[2] == "and").then(|| self.operand(args[3]));
                Op::Compare(
                    parts[1].into(),
                    last(),
                    self.reg(args[0]),
                    [1, 2].map(|i| self.operand(args[i])),
                    third,
                )
            }
            "selp" => Op::Select(self.reg(args[0]), [1, 2, 3].map(|i| self.operand(args[i]))),
            "cvt" => {
                let n = parts.len();
                let mode = if n == 4 { parts[1] } else { "" };
                Op::Convert(
                    mode.into(),
                    ty(parts[n - 2]),
                    last(),
                    self.reg(args[0]),
                    self.operand(args[1]),
                )
            }
            "mul" | "mad" if parts[1] == "wide" => {
                let add = args.get(3).map_or(Operand::Imm(0), |a| self.operand(a));
                Op::Wide(self.reg(args[0]), [self.operand(args[1]), self.operand(args[2]), add])
            }
            _ => {
                // The modifiers that change what is computed are part of the name.
                let name = if parts.contains(&"NaN") {
                    format!("{}.NaN", parts[0])
                } else {
                    parts[0].to_string()
                };
                let operands = args[1..].iter().map(|a| self.operand(a)).collect();
                Op::Arithmetic(name, last(), self.reg(args[0]), operands)
            }
        };
        Instruction {
            when,
            op,
            text: text.to_string(),
        }
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

/// Runs a plan on inputs; gives the outputs.
pub fn run(plan: &Plan, inputs: &[&[u8]]) -> Vec<Vec<u8>> {
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
            Step::Launch(l) => launch(&entries[&plan.entries[l.entry]], l, &mut own),
        }
        for &i in &touched {
            if let Some(r) = range(i) {
                arena[r].copy_from_slice(&own[i]);
            }
        }
    }
    plan.outputs.iter().map(|&i| own[i].clone()).collect()
}

fn launch(e: &Entry, l: &Launch, buffers: &mut [Vec<u8>]) {
    assert_eq!(l.block, e.threads, "threads of a block");
    assert_eq!(l.buffers.len() + l.dims.len(), e.params, "parameters");
    let params: Vec<u64> = (0..l.buffers.len() as u64)
        .map(|i| (i + 1) << GLOBAL)
        .chain(l.dims.iter().map(|&d| d as u64))
        .collect();
    let mut memory = Memory {
        global: l.buffers.iter().map(|&i| buffers[i].clone()).collect(),
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
    for (&i, bytes) in l.buffers.iter().zip(memory.global) {
        buffers[i] = bytes;
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
