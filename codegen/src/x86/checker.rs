//! An independent check of a register allocation, for tests.
//!
//! It replays the function over machine registers and knows, at each point, which virtual register's value each of them
//! holds, and each slot of the frame; at a join, what the paths disagree on is held by none. A value that is written anew is
//! nowhere else from then on. Every read must find the value it names. It shares neither liveness nor intervals with the
//! allocator.
//!
//! Source: the symbolic checker of regalloc2 (`src/checker.rs`).

use std::collections::HashMap;

use super::regalloc::{ARGUMENTS, Allocation, CALLEE_SAVED, File};
use super::vir::{Class, Function, Op, Role, Slot};

/// Where a value is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Place {
    Register(File, u8),
    Frame(Slot),
}

type State = HashMap<Place, u32>;

/// `Err` says at which operation which register does not hold what it should.
pub(super) fn check(function: &Function, allocation: &Allocation) -> Result<(), String> {
    let places = function.label_places().map_err(|e| e.to_string())?;
    let place = |class: Class, number: u32| Place::Register(File::of(class, function.isa), allocation.machine(number));
    let entry: State = function
        .params
        .iter()
        .zip(ARGUMENTS)
        .map(|(g, r)| (Place::Register(File::General, r), g.0))
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
                Place::Register(File::General, 4) => fault = Some("the stack pointer is used".to_string()),
                Place::Register(File::General, 5) if !function.slots().is_empty() => {
                    fault = Some("the frame pointer is used".to_string());
                }
                Place::Register(File::Opmask, 0) => fault = Some("k0 cannot be a mask".to_string()),
                _ => {}
            }
            if role.reads() {
                reads.push(register);
                let value = allocation.origin(number);
                if state.get(&register) != Some(&value) {
                    fault = Some(format!("{register:?} holds {:?}, not {value}", state.get(&register)));
                }
            }
        });
        // A register that moves to or from the frame is no new value.
        let moved = match op {
            Op::SpillGeneral { slot, .. } | Op::SpillVector { slot, .. } | Op::SpillMask { slot, .. } => {
                let value = reads.first().and_then(|r| state.get(r)).copied();
                value.map(|value| state.insert(Place::Frame(*slot), value));
                true
            }
            Op::ReloadGeneral { slot, .. } | Op::ReloadVector { slot, .. } | Op::ReloadMask { slot, .. } => {
                let held = state.get(&Place::Frame(*slot)).copied();
                op.visit(|class, number, _| match held {
                    Some(held) if held == allocation.origin(number) => {
                        state.insert(place(class, number), held);
                    }
                    _ => fault = Some(format!("{slot} holds {held:?}, not {}", allocation.origin(number))),
                });
                true
            }
            _ => false,
        };
        let mut written = Vec::new();
        op.visit(|class, number, role| {
            let register = place(class, number);
            if matches!(role, Role::Scratch | Role::Early) && reads.contains(&register) {
                fault = Some(format!("{number} overwrites an operand in {register:?}"));
            }
            if role.writes() && !moved {
                if written.contains(&register) {
                    fault = Some(format!("{register:?} is written twice"));
                }
                written.push(register);
                let value = allocation.origin(number);
                state.retain(|_, held| *held != value);
                state.insert(register, value);
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
