//! What the CPU and the system count while a model runs, where the system lets them (`perf_event_open`).
//!
//! A counter is of the thread that opens it and of those that are started by it from then on, so counters are opened before the threads of a
//! session are. Each is opened by itself: CPUs and virtual machines have some and not others.

use brolga_runtime::profile::{Probe, RunRecord};
use rustc_hash::FxHashMap;

/// Counters that are open.
pub struct Counters {
    open: Vec<(&'static str, imp::Counter)>,
    refused: Vec<(&'static str, String)>,
}

/// What was counted.
#[derive(Clone, Debug, Default)]
pub struct Counted {
    /// The names of the counters.
    pub names: Vec<&'static str>,
    /// Those that could not be opened, and why.
    pub refused: Vec<(&'static str, String)>,
    /// What a call of a step counted on average, by its number.
    steps: FxHashMap<u32, (f64, Vec<f64>)>,
}

impl Counters {
    /// Opens those that can be opened.
    pub fn open() -> Counters {
        let (mut open, mut refused) = (vec![], vec![]);
        for (name, event) in imp::events() {
            match imp::open(event) {
                Ok(counter) => open.push((name, counter)),
                Err(why) => refused.push((name, why)),
            }
        }
        Counters { open, refused }
    }

    /// What recorded runs have counted.
    pub(super) fn counted(&self, records: &[RunRecord]) -> Counted {
        let mut steps: FxHashMap<u32, (f64, Vec<f64>)> = FxHashMap::default();
        for run in records {
            for (step, counts) in &run.counts {
                let entry = steps.entry(*step).or_insert_with(|| (0.0, vec![0.0; counts.len()]));
                entry.1.iter_mut().zip(counts).for_each(|(sum, n)| *sum += *n as f64);
            }
            for span in &run.steps {
                if let Some(entry) = steps.get_mut(&span.step) {
                    entry.0 += 1.0;
                }
            }
        }
        Counted {
            names: self.open.iter().map(|(name, _)| *name).collect(),
            refused: self.refused.clone(),
            steps,
        }
    }
}

impl Counted {
    /// What a call of one of these steps counted, on average.
    pub(super) fn of(&self, steps: &[u32]) -> Option<Vec<f64>> {
        let mut sums = vec![0.0; self.names.len()];
        let mut calls = 0.0;
        for (n, counts) in steps.iter().filter_map(|s| self.steps.get(s)) {
            calls += n;
            sums.iter_mut().zip(counts).for_each(|(sum, c)| *sum += c);
        }
        (calls > 0.0 && !sums.is_empty()).then(|| sums.iter().map(|s| s / calls).collect())
    }
}

impl Probe for Counters {
    fn counters(&self) -> usize {
        self.open.len()
    }

    fn read(&self, values: &mut [u64]) {
        for (value, (_, counter)) in values.iter_mut().zip(&self.open) {
            *value = imp::read(counter);
        }
    }
}

#[cfg(target_os = "linux")]
mod imp {
    use perf_event::Builder;
    use perf_event::events::{Hardware, Software};
    use std::io::ErrorKind;
    use std::sync::{Mutex, PoisonError};

    /// A counter, which is read through a mutable reference.
    pub type Counter = Mutex<perf_event::Counter>;

    /// An event of the CPU's, or of the system's.
    pub enum Event {
        Hardware(Hardware),
        Software(Software),
    }

    pub fn events() -> Vec<(&'static str, Event)> {
        vec![
            ("cycles", Event::Hardware(Hardware::CPU_CYCLES)),
            ("instructions", Event::Hardware(Hardware::INSTRUCTIONS)),
            ("cache-misses", Event::Hardware(Hardware::CACHE_MISSES)),
            ("page-faults", Event::Software(Software::PAGE_FAULTS)),
        ]
    }

    pub fn open(event: Event) -> Result<Counter, String> {
        let builder = match event {
            Event::Hardware(e) => Builder::new(e).inherit(true).clone(),
            Event::Software(e) => Builder::new(e).inherit(true).clone(),
        };
        let open = || {
            let mut counter = builder.build()?;
            counter.enable()?;
            counter.read()?;
            Ok(counter)
        };
        open().map(Mutex::new).map_err(|e: std::io::Error| match e.kind() {
            ErrorKind::NotFound | ErrorKind::Unsupported => "this CPU, or virtual machine, has no such counter".into(),
            ErrorKind::PermissionDenied => {
                "the system does not allow it: set /proc/sys/kernel/perf_event_paranoid to 2 or less, and leave the container"
                    .into()
            }
            _ => e.to_string(),
        })
    }

    pub fn read(counter: &Counter) -> u64 {
        let mut counter = counter.lock().unwrap_or_else(PoisonError::into_inner);
        counter.read().unwrap_or(0)
    }
}

#[cfg(not(target_os = "linux"))]
mod imp {
    /// There are none here.
    pub enum Counter {}

    pub fn events() -> Vec<(&'static str, ())> {
        ["cycles", "instructions", "cache-misses"]
            .map(|name| (name, ()))
            .to_vec()
    }

    pub fn open((): ()) -> Result<Counter, String> {
        Err("counters are read on Linux only".into())
    }

    pub fn read(counter: &Counter) -> u64 {
        match *counter {}
    }
}
