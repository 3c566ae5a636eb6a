//! `brolga machine`: what this machine does in a second.

use super::{Outcome, note, print, target, targets, warning};
use brolga::ir::{Figures, Target, TileKind};
use brolga::machine::{self, Machine as Name};
use clap::Args;
use std::fmt::Write;

/// Measure this machine, and keep its figures for the cost model
#[derive(Args)]
#[command(after_help = "\
It takes some seconds. Kernels of Brolga's own are run: register tiles of every kind, vectors, reads of every level of cache and of
memory by 1 to all threads, empty parallel loops. Figures are kept in the user's cache (XDG_CACHE_HOME, else ~/.cache, there
brolga/machines), one file for each CPU model, number of cores and target; without any, built-in figures of the target serve.
Measure while nothing else runs: how much the clock varied is said at the end.

Examples:
  brolga machine
  brolga machine --json
  brolga machine --show
  brolga machine --target x86-64-v3")]
pub struct Machine {
    #[arg(long, alias = "cpu", value_name = "TARGET", value_parser = target, help = targets())]
    target: Option<Target>,
    /// Print what is kept, and where, instead of measuring; built-in figures where nothing is
    #[arg(long)]
    show: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

impl Machine {
    /// Runs the command.
    pub fn run(self) -> Outcome {
        let target = match self.target {
            Some(t) => t,
            None => brolga::codegen::target::native()
                .ok_or("this machine's architecture is none that Brolga makes code for")?,
        };
        let name = Name::this(&target);
        let figures = match self.show {
            true => {
                let (figures, why_not) = machine::figures(&target);
                if let Some(why_not) = why_not {
                    warning(&why_not);
                }
                figures
            }
            false => {
                if !brolga::codegen::target::runs_here(&target) {
                    return Err(format!(
                        "{}: this machine does not run code for it; measure where it does",
                        target.name
                    )
                    .into());
                }
                machine::measure(&target)?
            }
        };
        match self.json {
            true => print(&format!("{:#}\n", machine::json(&name, &figures)))?,
            false => print(&table(&name, &figures))?,
        }
        let stored = match self.show {
            true => name.file().filter(|f| f.exists()),
            false => Some(name.store(&figures)?),
        };
        match stored {
            Some(path) => note(&format!("kept in {}", path.display())),
            None => note("nothing is kept; `brolga machine` measures"),
        }
        if figures.noisy() {
            warning(&format!(
                "the same work took times that differ by {:.0} %: something else ran; measure again when the machine is quiet",
                100.0 * figures.spread
            ));
        }
        Ok(())
    }
}

/// The figures for people.
fn table(name: &Name, f: &Figures) -> String {
    let origin = match f.origin {
        brolga::ir::figures::Origin::BuiltIn => "built-in figures",
        brolga::ir::figures::Origin::Measured => "measured",
    };
    let mut out = format!(
        "{}, {} cores, {}: {origin}\n\n{:<24}{:>9.2} GHz\n",
        name.cpu,
        f.cores,
        name.target,
        "a core",
        f.hertz / 1e9
    );
    for kind in TileKind::ALL {
        let unit = if kind == TileKind::U8I8 || kind.has_scales() {
            "GOP/s"
        } else {
            "GFLOP/s"
        };
        let _ = writeln!(
            out,
            "{:<24}{:>9.1} {unit}",
            format!("  tiles of {}", kind.name()),
            f.tile(kind) / 1e9
        );
    }
    let _ = writeln!(out, "{:<24}{:>9.1} GFLOP/s", "  vectors of f32", f.vectors / 1e9);
    let _ = writeln!(out, "{:<24}{:>9.0} ns", "  a call of a kernel", f.call * 1e9);
    let threads: Vec<usize> = f.memory.0.iter().map(|(n, _)| *n).collect();
    let row = |out: &mut String, title: &str, unit: &str, cell: &dyn Fn(usize) -> String| {
        let _ = write!(out, "{title:<24}");
        for &n in &threads {
            let _ = write!(out, "{:>9}", cell(n));
        }
        let _ = writeln!(out, " {unit}");
    };
    out.push('\n');
    row(&mut out, "threads", "", &|n| n.to_string());
    for (i, c) in f.caches.iter().enumerate() {
        let title = format!(
            "  L{}, {}{}",
            i + 1,
            bytes(c.bytes),
            if c.shared { " of all" } else { "" }
        );
        row(&mut out, &title, "GB/s", &|n| format!("{:.1}", c.speeds.at(n) / 1e9));
    }
    row(&mut out, "  memory", "GB/s", &|n| {
        format!("{:.1}", f.memory.at(n) / 1e9)
    });
    row(&mut out, "  a parallel loop", "ns", &|n| {
        format!("{:.0}", f.fork.at(n) * 1e9)
    });
    let _ = writeln!(out, "\nthe same work varied by {:.1} %", 100.0 * f.spread);
    out
}

fn bytes(n: f64) -> String {
    match n {
        n if n < 1024.0 * 1024.0 => format!("{:.0} KiB", n / 1024.0),
        n => format!("{:.0} MiB", n / 1024.0 / 1024.0),
    }
}
