//! PTX text as instructions: what the machine runs.

use super::{SCRATCH, mask};
use std::collections::HashMap;

/// A type suffix: `f`loat, `s`igned, `u`nsigned, `b`its, `p`redicate, and its width.
pub(super) type Ty = (char, u32);

#[derive(Clone, Copy, Debug)]
pub(super) enum Operand {
    Reg(usize),
    /// Bits as the instruction's type has them.
    Imm(u64),
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Address {
    pub base: Operand,
    pub offset: i64,
}

#[derive(Clone, Debug)]
pub(super) enum Op {
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
pub(super) struct Instruction {
    /// A predicate, and the value that it must have.
    pub when: Option<(usize, bool)>,
    pub op: Op,
    pub text: String,
}

#[derive(Default)]
pub(super) struct Entry {
    pub params: usize,
    pub threads: [u32; 3],
    pub registers: usize,
    pub code: Vec<Instruction>,
    /// Bytes of the shared and local buffers, in order.
    pub spaces: [Vec<usize>; 2],
}

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

/// The entries of a module.
pub(super) fn parse(module: &str) -> HashMap<String, Entry> {
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
