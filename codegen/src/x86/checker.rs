//! An independent check of a register allocation, for tests.
//!
//! It replays the function over machine registers and knows, at each point, which virtual register's value each of them
//! holds; at a join, what the paths disagree on is held by none. Every read must find the value it names. It shares
//! neither liveness nor intervals with the allocator.
//!
//! Source: the symbolic checker of regalloc2 (`src/checker.rs`).

use std::collections::HashMap;

use super::regalloc::{ARGUMENTS, Allocation, CALLEE_SAVED, File};
use super::vir::{Class, Function, Role};

type State = HashMap<(File, u8), u32>;

/// `Err` says at which operation which register does not hold what it should.
pub(super) fn check(function: &Function, allocation: &Allocation) -> Result<(), String> {
    let places = function.label_places().map_err(|e| e.to_string())?;
    let place = |class: Class, number: u32| (File::of(class, function.isa), allocation.machine(number));
    let entry: State = function
        .params
        .iter()
        .zip(ARGUMENTS)
        .map(|(g, r)| ((File::General, r), g.0))
        .collect();
    let mut states: Vec<Option<State>> = vec![None; function.ops.len()];
    states[0] = Some(entry);
    let mut work = vec![0];
    while let Some(at) = work.pop() {
        let op = &function.ops[at];
        let mut state = states[at].clone().expect("a queued operation has a state");
        let mut fault = None;
        let mut reads = Vec::new();
        op.visit(|class, number, role| {
            let register = place(class, number);
            match register {
                (File::General, 4) => fault = Some("the stack pointer is used".to_string()),
                (File::Opmask, 0) => fault = Some("k0 cannot be a mask".to_string()),
                _ => {}
            }
            if matches!(role, Role::Use | Role::Update) {
                reads.push(register);
                if state.get(&register) != Some(&number) {
                    fault = Some(format!("{register:?} holds {:?}, not {number}", state.get(&register)));
                }
            }
        });
        let mut written = Vec::new();
        op.visit(|class, number, role| {
            let register = place(class, number);
            if role == Role::Scratch && reads.contains(&register) {
                fault = Some(format!("scratch {number} overwrites an operand in {register:?}"));
            }
            if role != Role::Use {
                if written.contains(&register) {
                    fault = Some(format!("{register:?} is written twice"));
                }
                written.push(register);
                state.insert(register, number);
            }
        });
        if let Some(what) = fault {
            return Err(format!("operation {at} `{op}`: {what}"));
        }
        let next = (!op.ends()).then_some(at + 1);
        for successor in next.into_iter().chain(op.target().map(|to| places[to.0 as usize])) {
            let merged = match &states[successor] {
                None => state.clone(),
                Some(old) => old
                    .iter()
                    .filter(|(r, n)| state.get(r) == Some(n))
                    .map(|(r, n)| (*r, *n))
                    .collect(),
            };
            if states[successor].as_ref() != Some(&merged) {
                states[successor] = Some(merged);
                work.push(successor);
            }
        }
    }
    let saved = allocation.saved(function);
    for (number, class) in function.classes().iter().enumerate() {
        let register = allocation.machine(number as u32);
        if *class == Class::General && CALLEE_SAVED.contains(&register) && !saved.contains(&register) {
            return Err(format!("callee-saved register {register} is used and not saved"));
        }
    }
    Ok(())
}
