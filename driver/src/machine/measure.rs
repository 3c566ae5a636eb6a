//! Measures this machine with kernels of our own, through the levels, as models run.
//!
//! | figure | what runs |
//! | --- | --- |
//! | cycles | a chain of additions and exclusive ors, a cycle each |
//! | tiles | a register tile of each kind, operands in the smallest cache |
//! | vectors | chains of multiply-adds on vectors, side by side |
//! | bandwidths | vectors that are read and added up, of working sets that fit into a level and not into the one below |
//! | start and end of a parallel loop | loops of an iteration a thread, one behind the other |
//! | a call | many calls of a kernel that stores one number |
//!
//! Probes are run in turn, some times each. The best time of each counts: what else runs on a machine only makes work slower. How much
//! the time of the chain of additions varies says whether the machine was quiet.

use crate::levels::Module;
use crate::{Error, Options, Result, Session, compile};
use brolga_abi::DType;
use brolga_ir::figures::{Cache, Origin, Speeds};
use brolga_ir::loops::BLOCK;
use brolga_ir::{CpuTarget, Figures, Target, TileKind};
use brolga_runtime::{Buffer, View};
use std::fmt::Write;
use std::time::{Duration, Instant};

/// All probes are run so often, as far as the time allows.
const ROUNDS: usize = 40;
/// And so often at least.
const LEAST_ROUNDS: usize = 3;
/// When no further round begins.
const TIME: Duration = Duration::from_secs(5);
/// How long a run of a probe takes at least.
const SAMPLE: Duration = Duration::from_millis(2);
/// The most repetitions of a run.
const MOST: usize = 1 << 22;
/// Probes between two looks at the clock.
const BETWEEN: usize = 4;
/// Steps of a tile's sums: both operands fit into 32 KiB.
const STEPS: usize = 128;
/// Chains of vectors side by side, and vectors of a step of what reads.
const CHAINS: usize = 8;
/// Operations of a step of the chain that tells cycles.
const LINKS: usize = 64;
/// Bytes that count as memory, of all threads: some times the largest cache, within these bounds.
const MEMORY: [usize; 2] = [128 << 20, 512 << 20];
/// The most bytes of a thread in a shared cache.
const SHARED: usize = 16 << 20;
/// Calls of the two programs whose difference tells what a call takes.
const CALLS: [usize; 2] = [16, 1040];

/// Measures this machine, with code for a target.
///
/// # Errors
/// When code for the target does not run here, or there is no memory.
pub fn measure(target: &Target) -> Result<Figures> {
    let cpu = brolga_codegen::target::cpu(target).map_err(|e| Error::Option(e.to_string()))?;
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let built_in = Figures::built_in(target, cores);
    let caches =
        sizes_of_caches().unwrap_or_else(|| built_in.caches.iter().map(|c| (c.bytes as usize, c.shared)).collect());
    let largest = caches.iter().map(|c| c.0).max().unwrap_or_default();
    let memory = (4 * largest).clamp(MEMORY[0], MEMORY[1]);
    let mut bytes = Buffer::zeroed(DType::F32, vec![memory / 4])?;
    // What was never written is one page of zeros everywhere.
    bytes.bytes_mut().fill(0x3c);
    let repetitions = vec![0; MOST];
    let given = Given {
        repetitions: &repetitions,
        bytes: bytes.bytes(),
    };

    let mut probes = vec![Probe::chain(target)?];
    for kind in TileKind::ALL {
        probes.push(Probe::tile(target, cpu, kind)?);
    }
    probes.push(Probe::vectors(target, cpu)?);
    for calls in CALLS {
        probes.push(Probe::calls(target, calls)?);
    }
    let mut counts: Vec<usize> = (0..).map(|i| 1 << i).take_while(|n| *n < cores).collect();
    counts.push(cores);
    for &threads in &counts {
        for (level, &(bytes, shared)) in caches.iter().enumerate() {
            let own = if shared {
                (bytes / threads / 2).min(SHARED)
            } else {
                bytes / 2
            };
            probes.push(Probe::read(target, cpu, threads, own, What::Cache(level, threads))?);
        }
        probes.push(Probe::read(
            target,
            cpu,
            threads,
            memory / threads,
            What::Memory(threads),
        )?);
        probes.push(Probe::fork(target, threads)?);
    }
    run(&mut probes, &given)?;

    let best = |what: What| probes.iter().find(|p| p.what == what).map_or(0.0, Probe::rate);
    // More threads do what fewer do, or more; the others may leave it to them.
    let speeds = |what: &dyn Fn(usize) -> What| {
        let mut most = 0.0f64;
        let at = |&n: &usize| {
            most = most.max(best(what(n)));
            (n, most)
        };
        Speeds(counts.iter().map(at).collect())
    };
    let [few, many] = CALLS.map(|n| 1.0 / best(What::Calls(n)));
    let fork = counts.iter().map(|&n| (n, 1.0 / best(What::Fork(n))));
    Ok(Figures {
        origin: Origin::Measured,
        cores,
        hertz: best(What::Chain),
        tiles: TileKind::ALL.map(|k| best(What::Tile(k))),
        vectors: best(What::Vectors),
        caches: (0..)
            .zip(&caches)
            .map(|(level, &(bytes, shared))| Cache {
                bytes: bytes as f64,
                shared,
                speeds: speeds(&|n| What::Cache(level, n)),
            })
            .collect(),
        memory: speeds(&What::Memory),
        call: ((many - few) / (CALLS[1] - CALLS[0]) as f64).max(1e-9),
        fork: Speeds(fork.collect()),
        spread: spread(&probes[0].times),
    })
}

/// Reads of memory by so many threads: what streams of weights are compared with.
pub struct Stream {
    probe: Probe,
    repetitions: Vec<u8>,
    bytes: Buffer,
}

impl Stream {
    /// Bytes that are read, of all threads.
    const BYTES: usize = MEMORY[1];

    /// Makes ready to read.
    ///
    /// # Errors
    /// When code for the target does not run here, or there is no memory.
    pub fn new(target: &Target, threads: usize) -> Result<Stream> {
        let cpu = brolga_codegen::target::cpu(target).map_err(|e| Error::Option(e.to_string()))?;
        let mut bytes = Buffer::zeroed(DType::F32, vec![Stream::BYTES / 4])?;
        // What was never written is one page of zeros everywhere.
        bytes.bytes_mut().fill(0x3c);
        Ok(Stream {
            probe: Probe::read(target, cpu, threads, Stream::BYTES / threads, What::Memory(threads))?,
            repetitions: vec![0],
            bytes,
        })
    }

    /// Reads all once more; bytes a second.
    ///
    /// # Errors
    /// When the run fails.
    pub fn sample(&mut self) -> Result<f64> {
        let given = Given {
            repetitions: &self.repetitions,
            bytes: self.bytes.bytes(),
        };
        self.probe.sample(&given)?;
        let last = self.probe.times.last().copied().unwrap_or(f64::INFINITY);
        Ok(self.probe.amount / last)
    }
}

/// Runs all probes in turn, until there are enough times.
fn run(probes: &mut [Probe], given: &Given) -> Result<()> {
    let begin = Instant::now();
    for p in probes.iter_mut() {
        p.calibrate(given)?;
    }
    for round in 0..ROUNDS {
        if round >= LEAST_ROUNDS && begin.elapsed() > TIME {
            break;
        }
        for i in 0..probes.len() {
            if i % BETWEEN == 0 {
                probes[0].sample(given)?;
            }
            if i > 0 {
                probes[i].sample(given)?;
            }
        }
    }
    Ok(())
}

/// From the tenth part to nine tenths of times, as a share of the median.
fn spread(times: &[f64]) -> f64 {
    let mut sorted = times.to_vec();
    sorted.sort_by(f64::total_cmp);
    let at = |share: f64| sorted[((sorted.len() - 1) as f64 * share).round() as usize];
    match sorted.is_empty() {
        true => 0.0,
        false => (at(0.9) - at(0.1)) / at(0.5),
    }
}

/// What a probe measures.
#[derive(Clone, Copy, PartialEq, Debug)]
enum What {
    Chain,
    Tile(TileKind),
    Vectors,
    /// A level of cache, by so many threads.
    Cache(usize, usize),
    Memory(usize),
    Fork(usize),
    Calls(usize),
}

/// What probes read.
struct Given<'a> {
    /// As many as the longest run has repetitions.
    repetitions: &'a [u8],
    bytes: &'a [u8],
}

/// A kernel that does something again and again, as often as its first input has elements.
struct Probe {
    what: What,
    session: Session,
    /// Dtypes and shapes of its other inputs.
    inputs: Vec<(DType, Vec<usize>)>,
    output: Buffer,
    /// What it does in a repetition: operations, or bytes.
    amount: f64,
    repetitions: usize,
    /// Seconds of a repetition.
    times: Vec<f64>,
}

/// The text of a probe: a program of calls of one kernel.
struct Text<'a> {
    /// Symbols beside `r`, the repetitions.
    symbols: &'a [&'a str],
    /// Dtypes and extents of inputs.
    inputs: &'a [(DType, &'a [&'a str])],
    output: (DType, &'a str),
    body: &'a str,
    calls: usize,
}

impl Text<'_> {
    fn module(&self) -> Result<Module> {
        let symbols = ["r"].iter().chain(self.symbols).copied().collect::<Vec<_>>().join(", ");
        let repetitions = (DType::U8, &["r"][..]);
        let inputs: Vec<_> = [&repetitions].into_iter().chain(self.inputs).collect();
        let n = inputs.len();
        let list = |f: &dyn Fn(usize) -> String| (0..n).map(f).collect::<Vec<_>>().join(", ");
        let (dtype, len) = (self.output.0.name(), self.output.1);
        let mut text = format!(
            "program @probe({}) -> (y: s{n}) symbols({symbols}) {{\n",
            list(&|i| format!("x{i}: s{i}"))
        );
        for (i, (dtype, shape)) in inputs.iter().enumerate() {
            let _ = writeln!(text, "  input s{i}: {}[{}] = {i}", dtype.name(), shape.join(", "));
        }
        let _ = writeln!(text, "  output s{n}: {dtype}[{len}] = 0");
        for _ in 0..self.calls {
            let _ = writeln!(text, "  call @probe_0({}, s{n})", list(&|i| format!("s{i}")));
        }
        let buffers = list(&|i| format!("b{i}: {}[{}] in", inputs[i].0.name(), inputs[i].1.join("*")));
        let _ = write!(
            text,
            "}}\nloops @probe_0({buffers}, b{n}: {dtype}[{len}] out) symbols({symbols}) {{\n{}\n}}\n",
            self.body
        );
        let fail = |message: String| Error::Option(format!("a probe is no program: {message}"));
        let module = Module::parse(&text, &|_| None).map_err(|e| fail(e.to_string()))?;
        module.verify().map_err(|e| fail(e.to_string()))?;
        Ok(module)
    }

    fn session(&self, target: &Target, threads: usize) -> Result<Session> {
        let options = Options {
            target: target.clone(),
            threads: 1,
            ..Options::default()
        };
        compile::compile_module(self.module()?, &options)?.session_with(threads, u64::MAX)
    }
}

impl Probe {
    fn new(
        what: What,
        session: Session,
        inputs: Vec<(DType, Vec<usize>)>,
        out: (DType, usize),
        amount: f64,
    ) -> Result<Probe> {
        Ok(Probe {
            what,
            session,
            inputs,
            output: Buffer::zeroed(out.0, vec![out.1])?,
            amount,
            repetitions: 1,
            times: vec![],
        })
    }

    fn chain(target: &Target) -> Result<Probe> {
        let mut body = "r0: i64 = load b1[0]\nr1: i64 = load b1[1]\nfor i0 serial 0..r {\n".to_owned();
        for _ in 0..LINKS / 2 {
            body += "r2: i64 = add r0 r1\nr0: i64 = xor r2 r1\n";
        }
        body += "}\nstore b2[0] = r0";
        let text = Text {
            symbols: &[],
            inputs: &[(DType::I64, &["2"])],
            output: (DType::I64, "1"),
            body: &body,
            calls: 1,
        };
        let inputs = vec![(DType::I64, vec![2])];
        Probe::new(
            What::Chain,
            text.session(target, 1)?,
            inputs,
            (DType::I64, 1),
            LINKS as f64,
        )
    }

    fn tile(target: &Target, cpu: &CpuTarget, kind: TileKind) -> Result<Probe> {
        let shape = cpu.tile.shapes(kind)[0];
        let (rows, cols) = (shape.rows as usize, shape.cols as usize);
        let [left, right, sum] = kind.dtypes().map(crate::tensors::abi_dtype);
        let name = match kind {
            TileKind::F32 => String::new(),
            k => format!("{} ", k.name()),
        };
        let mut inputs = vec![(left, rows * STEPS), (right, 32 * STEPS)];
        let mut scales = String::new();
        if kind.has_scales() {
            let blocks = STEPS / BLOCK as usize;
            inputs.extend([
                (DType::F32, rows * blocks),
                (DType::I32, rows * blocks),
                (DType::F16, 32 * blocks),
            ]);
            scales = format!(" scales b3[0; block {rows}] * b5[0] offset b4");
        }
        let body = format!(
            "for i0 serial 0..r {{
                tile {name}b{out}[0; row 32] = b1[0; row {STEPS}, k 1] * b2[0]
                    sum(1 by 0, 1 by 0, {STEPS}) rows {rows} max {rows} cols {cols}{scales}
            }}",
            out = inputs.len() + 1,
        );
        let extents: Vec<String> = inputs.iter().map(|(_, n)| n.to_string()).collect();
        let extents: Vec<[&str; 1]> = extents.iter().map(|n| [&n[..]]).collect();
        let declared: Vec<(DType, &[&str])> = inputs.iter().zip(&extents).map(|((d, _), n)| (*d, &n[..])).collect();
        let text = Text {
            symbols: &[],
            inputs: &declared,
            output: (sum, &(32 * rows).to_string()),
            body: &body,
            calls: 1,
        };
        let inputs = inputs.into_iter().map(|(dtype, n)| (dtype, vec![n])).collect();
        let amount = (2 * rows * cols * STEPS) as f64;
        Probe::new(
            What::Tile(kind),
            text.session(target, 1)?,
            inputs,
            (sum, 32 * rows),
            amount,
        )
    }

    fn vectors(target: &Target, cpu: &CpuTarget) -> Result<Probe> {
        let lanes = lanes(cpu);
        let mut body = "r0: f32 = load b1[0]\nr1: f32 = load b1[1]\n".to_owned();
        for i in 0..CHAINS {
            let _ = writeln!(body, "r{}: f32x{lanes} = copy r1", 2 + i);
        }
        let _ = writeln!(body, "for i0 serial 0..r {{\nfor i1 vector 0..{lanes} {{");
        for i in 0..CHAINS {
            let (sum, next, product) = (2 + i, 2 + CHAINS + i, 2 + 2 * CHAINS + i);
            let _ = match cpu.has_fma {
                true => writeln!(
                    body,
                    "r{next}: f32 = fma r{sum} r0 r1\nr{sum}: f32x{lanes} = copy r{next}"
                ),
                false => writeln!(
                    body,
                    "r{product}: f32 = mul r{sum} r0\nr{next}: f32 = add r{product} r1\nr{sum}: f32x{lanes} = copy r{next}"
                ),
            };
        }
        let _ = writeln!(body, "}}\n}}\nfor i2 vector 0..{lanes} {{");
        for i in 0..CHAINS {
            let _ = writeln!(body, "store b2[i2 + {}] = r{}", i * lanes, 2 + i);
        }
        body += "}";
        let outputs = CHAINS * lanes;
        let text = Text {
            symbols: &[],
            inputs: &[(DType::F32, &["2"])],
            output: (DType::F32, &outputs.to_string()),
            body: &body,
            calls: 1,
        };
        let inputs = vec![(DType::F32, vec![2])];
        let amount = (2 * outputs) as f64;
        Probe::new(
            What::Vectors,
            text.session(target, 1)?,
            inputs,
            (DType::F32, outputs),
            amount,
        )
    }

    /// Reads `bytes` of its own in each thread, vectors one behind the other.
    fn read(target: &Target, cpu: &CpuTarget, threads: usize, bytes: usize, what: What) -> Result<Probe> {
        let lanes = lanes(cpu);
        let step = CHAINS * lanes;
        let elements = (bytes / 4 / step).max(1) * step;
        let mut body = "for i0 parallel 0..t {\n".to_owned();
        for i in 0..CHAINS {
            let _ = writeln!(body, "r{i}: f32x{lanes} = const f32 0.0");
        }
        let _ = writeln!(
            body,
            "for i1 serial 0..r {{\nfor i2 serial 0..floordiv(n, {step}) {{\nfor i3 vector 0..{lanes} {{"
        );
        for i in 0..CHAINS {
            let (read, sum, at) = (CHAINS + i, 2 * CHAINS + i, i * lanes);
            let _ = writeln!(
                body,
                "r{read}: f32 = load b1[n*i0 + {step}*i2 + i3 + {at}]
                r{sum}: f32 = add r{i} r{read}\nr{i}: f32x{lanes} = copy r{sum}"
            );
        }
        let _ = writeln!(body, "}}\n}}\n}}\nfor i4 vector 0..{lanes} {{");
        for i in 0..CHAINS {
            let _ = writeln!(body, "store b3[{step}*i0 + i4 + {}] = r{i}", i * lanes);
        }
        body += "}\n}";
        let text = Text {
            symbols: &["t", "n"],
            inputs: &[(DType::F32, &["t", "n"]), (DType::U8, &["t"])],
            output: (DType::F32, &format!("{step}*t")),
            body: &body,
            calls: 1,
        };
        let inputs = vec![(DType::F32, vec![threads, elements]), (DType::U8, vec![threads])];
        let amount = (4 * threads * elements) as f64;
        Probe::new(
            what,
            text.session(target, threads)?,
            inputs,
            (DType::F32, step * threads),
            amount,
        )
    }

    fn fork(target: &Target, threads: usize) -> Result<Probe> {
        let body = "for i0 serial 0..r { for i1 parallel 0..t { r0: i64 = const i64 1 store b2[16*i1] = r0 } }";
        let text = Text {
            symbols: &["t"],
            inputs: &[(DType::U8, &["t"])],
            output: (DType::I64, "16*t"),
            body,
            calls: 1,
        };
        let inputs = vec![(DType::U8, vec![threads])];
        Probe::new(
            What::Fork(threads),
            text.session(target, threads)?,
            inputs,
            (DType::I64, 16 * threads),
            1.0,
        )
    }

    fn calls(target: &Target, calls: usize) -> Result<Probe> {
        let text = Text {
            symbols: &[],
            inputs: &[(DType::I64, &["1"])],
            output: (DType::I64, "1"),
            body: "r0: i64 = load b1[0]\nstore b2[0] = r0",
            calls,
        };
        let inputs = vec![(DType::I64, vec![1])];
        Probe::new(
            What::Calls(calls),
            text.session(target, 1)?,
            inputs,
            (DType::I64, 1),
            1.0,
        )
    }

    /// Finds how many repetitions take long enough to be timed.
    fn calibrate(&mut self, given: &Given) -> Result<()> {
        if matches!(self.what, What::Calls(_)) {
            return self.time(given).map(|_| ());
        }
        loop {
            let time = self.time(given)?;
            if time >= SAMPLE || self.repetitions >= MOST {
                return Ok(());
            }
            let short = SAMPLE.as_secs_f64() / time.as_secs_f64().max(1e-7);
            let more = (self.repetitions as f64 * (1.2 * short).clamp(2.0, 16.0)) as usize;
            self.repetitions = more.min(MOST);
        }
    }

    fn sample(&mut self, given: &Given) -> Result<()> {
        // A call alone is short: the best of many.
        let runs = if matches!(self.what, What::Calls(_)) { 32 } else { 1 };
        for _ in 0..runs {
            let time = self.time(given)?.as_secs_f64();
            self.times.push(time / self.repetitions as f64);
        }
        Ok(())
    }

    fn time(&mut self, given: &Given) -> Result<Duration> {
        let repetitions = [self.repetitions];
        let first = View::of(&given.repetitions[..self.repetitions], &repetitions);
        let rest = self.inputs.iter().map(|(dtype, shape)| View {
            dtype: *dtype,
            shape,
            bytes: &given.bytes[..shape.iter().product::<usize>() * dtype.size()],
        });
        let inputs: Vec<View> = [first].into_iter().chain(rest).collect();
        let begin = Instant::now();
        self.session.run_into(&inputs, &mut [self.output.view_mut()])?;
        Ok(begin.elapsed())
    }

    /// What it does a second, at best.
    fn rate(&self) -> f64 {
        let best = self.times.iter().copied().fold(f64::INFINITY, f64::min);
        self.amount / best
    }
}

/// Lanes of f32 of a vector.
fn lanes(cpu: &CpuTarget) -> usize {
    cpu.body_lanes().unwrap_or(4) as usize
}

/// Bytes of each level of cache, and whether several cores share it, as Linux tells.
fn sizes_of_caches() -> Option<Vec<(usize, bool)>> {
    let mut out = vec![];
    for i in 0.. {
        let read = |name: &str| {
            let path = format!("/sys/devices/system/cpu/cpu0/cache/index{i}/{name}");
            std::fs::read_to_string(path).ok().map(|s| s.trim().to_owned())
        };
        let Some(kind) = read("type") else { break };
        if kind == "Instruction" {
            continue;
        }
        let size = read("size")?;
        let kib: usize = size.strip_suffix('K')?.parse().ok()?;
        let level: usize = read("level")?.parse().ok()?;
        out.push((level, kib << 10, cpus(&read("shared_cpu_list")?)));
    }
    out.sort_unstable();
    let own = out.first()?.2;
    Some(out.into_iter().map(|(_, bytes, cpus)| (bytes, cpus > own)).collect())
}

/// How many CPUs a list such as `0-3,8` names.
fn cpus(list: &str) -> usize {
    let range = |part: &str| match part.split_once('-') {
        Some((from, to)) => Some(to.parse::<usize>().ok()?.checked_sub(from.parse().ok()?)? + 1),
        None => part.parse::<usize>().ok().map(|_| 1),
    };
    list.split(',').filter_map(range).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_of_cpus_are_counted() {
        assert_eq!([cpus("0"), cpus("0-3"), cpus("0-1,64-65"), cpus("")], [1, 4, 4, 0]);
    }

    #[test]
    fn the_spread_is_what_most_times_differ_by() {
        let mut times = vec![1.0; 18];
        times.extend([5.0]);
        assert_eq!(spread(&times), 0.0);
        assert_eq!(spread(&[1.0, 2.0, 3.0]), 1.0);
        assert_eq!(spread(&[]), 0.0);
    }
}
