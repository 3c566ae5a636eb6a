//! Where values lie: what one step leaves is written over by the next, what is put together is made in its place.
//!
//! ```text
//! temp s1: f32[64]                          temp s1: f32[64]
//! temp s2: f32[64]                          view s2: f32[64] = s1
//! …                                         …
//! call @dense_0(s0, s1)              -->    call @dense_0(s0, s1)
//! call @softmax_1(s1, s2)                   call @softmax_1(s1, s2)
//! ```
//!
//! | module | what stands there |
//! | --- | --- |
//! | `alias` | outputs that may be the memory of inputs |
//! | `parts` | the operands of a concatenation are made in its result, a slice is a view |
//! | `padding` | what is padded is made inside of the margins |
//! | `spaced` | rows that would share the sets of a cache stand further apart |
//! | `updates` | a scatter writes into its operand, and copies nothing |
//! | `carried` | what an iteration leaves for the next one is made where it lies |
//! | `in_place` | a kernel writes over an operand that nothing reads afterwards |
//! | `copies` | which stages only copy, and where to |
//! | `variants` | kernels of some stages of others, or with other operands |
//!
//! Invariant: no step computes anything else, and what a slot holds when a step reads it is what it held without the pass. Only
//! [`Storage::Temp`](brolga_ir::program::Storage::Temp) slots move: constants and panels are shared by all runs, inputs are the
//! caller's. Threads share the points of a kernel, so a point writes over nothing that another one reads
//! ([`brolga_ir::structured::Kernel::overwrites`]). Memory of a size that only the run tells is left alone but for the state of loops, and so are programs
//! for GPUs, whose schedules may compute a row again where it is read.

mod alias;
mod carried;
mod copies;
mod in_place;
mod padding;
mod parts;
mod spaced;
mod updates;
mod variants;

use crate::lower::Structured;
use crate::memory;
use crate::module::{Level, Module};
use crate::pass::{Context, Pass, PassError, Setting, Settings};
use brolga_ir::program::{Step, Storage};

/// `bufferize`: results over operands; see the module.
#[derive(Clone, Default, Debug)]
pub struct Bufferize {
    /// Names of inputs and of the outputs that may be their memory.
    pub aliases: Vec<(String, String)>,
}

impl Settings for Bufferize {
    const NAME: &'static str = "bufferize";
    const SUMMARY: &'static str = "makes results in the memory of operands, and parts of a result in it";
    const SETTINGS: &'static [Setting<Bufferize>] = &[Setting {
        name: "alias",
        default: "none",
        meaning: "an input and the output that may be its memory, INPUT=OUTPUT (may be repeated)",
        get: |p| p.aliases.iter().map(|(i, o)| format!("{i}={o}")).collect(),
        set: |p, value, _| {
            let (input, output) = value.split_once('=').ok_or("expected INPUT=OUTPUT")?;
            p.aliases.push((input.to_owned(), output.to_owned()));
            Ok(())
        },
    }];
}

impl Pass for Bufferize {
    fn name(&self) -> &'static str {
        Bufferize::NAME
    }
    fn options(&self) -> String {
        self.given()
    }
    fn run(&self, m: Module, cx: &mut Context) -> Result<Module, PassError> {
        let Module::Structured(mut p) = m else {
            return Err(PassError::level(Bufferize::NAME, Level::Structured, &m));
        };
        if cx.target.cpu().is_some() {
            let (temporaries, kernels) = (temporaries(&p), p.kernels.len());
            alias::declare(&mut p, &self.aliases).map_err(|e| PassError::at(Bufferize::NAME, e).refused())?;
            place(&mut p);
            drop_unused_kernels(&mut p);
            spaced::run(&mut p);
            alias::check(&p)?;
            cx.counts.add(
                "temporaries left out",
                temporaries.saturating_sub(self::temporaries(&p)),
            );
            cx.counts
                .add("kernels left out", kernels.saturating_sub(p.kernels.len()));
        } else if !self.aliases.is_empty() || !p.aliases.is_empty() {
            let message = "outputs in the memory of inputs are for CPUs only; for a GPU, give no aliases";
            return Err(PassError::new(Bufferize::NAME, message).refused());
        }
        Ok(Module::Structured(p))
    }
}

/// How many slots have memory of their own in the arena.
fn temporaries(p: &Structured) -> usize {
    p.slots.iter().filter(|s| matches!(s.storage, Storage::Temp(_))).count()
}

/// What copies that are left out may cost in memory, as a share of what is needed: one part in so many. Margins are larger than
/// what they stand around, and parts live as long as the whole.
const SLACK: i64 = 8;

/// Places results, by the first of these that takes no more memory than what is given: with all that can be done (and [`SLACK`]
/// more), without parts and margins, with no more than declared aliases need.
fn place(p: &mut Structured) {
    carried::run(p);
    let (slots, steps) = (p.slots.clone(), p.steps.clone());
    let restore = |p: &mut Structured| (p.slots, p.steps) = (slots.clone(), steps.clone());
    let most = memory::needs(p);
    parts::run(p);
    for (merge, slack) in [(true, true), (true, false), (false, false)] {
        updates::run(p);
        if merge {
            in_place::run(p);
        }
        let limit = |n: i64| if slack { n.saturating_add(n / SLACK) } else { n };
        let fits = memory::needs(p).iter().zip(&most).all(|(a, b)| *a <= limit(*b));
        if fits || !merge {
            return;
        }
        restore(p);
    }
}

/// Drops kernels that no step calls.
fn drop_unused_kernels(p: &mut Structured) {
    let mut number: Vec<Option<u32>> = vec![None; p.kernels.len()];
    let mut called = |k: &mut u32| number[*k as usize] = Some(0);
    for steps in [&mut p.init, &mut p.steps] {
        each_call(steps, &mut called);
    }
    for (n, next) in number.iter_mut().flatten().zip(0..) {
        *n = next;
    }
    let mut used = number.iter();
    p.kernels.retain(|_| used.next().is_some_and(Option::is_some));
    for steps in [&mut p.init, &mut p.steps] {
        each_call(steps, &mut |k| *k = number[*k as usize].unwrap_or(*k));
    }
}

/// Calls `f` with the kernel of every call.
fn each_call(steps: &mut [Step], f: &mut dyn FnMut(&mut u32)) {
    for s in steps {
        if let Step::Call { kernel, .. } = s {
            f(kernel);
        }
        s.blocks_mut().into_iter().for_each(|b| each_call(b, f));
    }
}
