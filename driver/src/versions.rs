//! Versions of a session's model for sizes that were seen: code for known extents is the fastest.
//!
//! A run looks its sizes up. Where there is a version for them it runs that; else it runs the general program, and a version
//! is compiled: behind the run, or before it where that is asked for. The least recently used version goes when there are
//! too many. A size that cannot be compiled for is not tried again.
//!
//! A version has packed weights of its own. Its results are those of the model under the rules' promise: the same up to
//! the order of sums.

use crate::Result;
use crate::compile::draft;
use crate::options::Options;
use crate::session::Session;
use brolga_ir::Graph;
use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;

/// Whether and when a session compiles versions of its model for the sizes of its inputs.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Specialise {
    /// How many versions are kept at most; 0, the default, makes none.
    pub versions: usize,
    /// Compiles before the first run of a size instead of behind it.
    pub at_once: bool,
}

/// The versions of a session.
pub(crate) struct Versions {
    shared: Arc<Shared>,
}

/// What the compiling thread shares with the session.
struct Shared {
    graph: Graph,
    /// What a program of the graph calls its symbols, in the order of sizes.
    symbols: Vec<String>,
    options: Options,
    threads: usize,
    how: Specialise,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    /// The least recently used first.
    ready: VecDeque<(Vec<i64>, Arc<Session>)>,
    /// What is being compiled.
    pending: Option<Vec<i64>>,
    /// Sizes that there is no version for, as many as versions are kept.
    failed: VecDeque<Vec<i64>>,
}

impl Versions {
    /// No versions yet of a graph, whose symbols have these names.
    pub fn new(graph: Graph, symbols: &[String], options: &Options, threads: usize, how: Specialise) -> Versions {
        let shared = Shared {
            graph,
            symbols: symbols.to_vec(),
            // The general program was shown.
            options: options.unwatched(),
            threads,
            how,
            state: Mutex::default(),
            changed: Condvar::new(),
        };
        Versions {
            shared: Arc::new(shared),
        }
    }

    /// The version for these sizes, if there is one; else one may be on its way, but for where it is asked for at once.
    ///
    /// # Errors
    /// Why there is no version, where one is asked for at once.
    pub fn find(&self, sizes: &[i64]) -> Result<Option<Arc<Session>>> {
        let at_once = self.shared.how.at_once;
        let mut state = self.shared.lock();
        while at_once && state.pending.is_some() {
            state = self.shared.wait(state);
        }
        if let Some(found) = state.look_up(sizes) {
            return Ok(Some(found));
        }
        if state.pending.is_some() || state.failed.iter().any(|s| s == sizes) {
            return Ok(None);
        }
        state.pending = Some(sizes.to_vec());
        drop(state);
        if at_once {
            self.shared.make()?;
            return Ok(self.shared.lock().look_up(sizes));
        }
        let shared = self.shared.clone();
        let thread = thread::Builder::new().name("brolga-specialise".into());
        // Without a thread the general program goes on.
        // Nor without a version: its sizes are among those that failed.
        if thread.spawn(move || shared.make().is_ok()).is_err() {
            self.shared.lock().pending = None;
        }
        Ok(None)
    }

    /// The sizes that there are versions for, the least recently used first, once none is on its way.
    pub fn sizes(&self) -> Vec<Vec<i64>> {
        let mut state = self.shared.lock();
        while state.pending.is_some() {
            state = self.shared.wait(state);
        }
        state.ready.iter().map(|(s, _)| s.clone()).collect()
    }
}

impl fmt::Debug for Versions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Versions")
            .field("how", &self.shared.how)
            .finish_non_exhaustive()
    }
}

impl State {
    fn look_up(&mut self, sizes: &[i64]) -> Option<Arc<Session>> {
        let at = self.ready.iter().position(|(s, _)| s == sizes)?;
        let found = self.ready.remove(at)?;
        let session = found.1.clone();
        self.ready.push_back(found);
        Some(session)
    }
}

/// Ends the wait for what is compiled, whether that succeeds, fails or panics.
struct Pending<'a>(&'a Shared);

impl Drop for Pending<'_> {
    fn drop(&mut self) {
        self.0.lock().pending = None;
        self.0.changed.notify_all();
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        // A panic leaves the versions as they were.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for what is compiled to be there.
    fn wait<'s>(&self, state: MutexGuard<'s, State>) -> MutexGuard<'s, State> {
        self.changed.wait(state).unwrap_or_else(PoisonError::into_inner)
    }

    /// Compiles what is pending.
    fn make(&self) -> Result<()> {
        let pending = Pending(self);
        let Some(sizes) = self.lock().pending.clone() else {
            return Ok(());
        };
        let version = self.version(&sizes);
        let mut state = self.lock();
        let most = self.how.versions;
        let made = version.map(|session| {
            state.ready.push_back((sizes.clone(), Arc::new(session)));
            let surplus = state.ready.len().saturating_sub(most);
            state.ready.drain(..surplus);
        });
        if made.is_err() {
            state.failed.push_back(sizes);
            let surplus = state.failed.len().saturating_sub(most);
            state.failed.drain(..surplus);
        }
        drop(state);
        drop(pending);
        made
    }

    fn version(&self, sizes: &[i64]) -> Result<Session> {
        let named = self.symbols.iter().cloned().zip(sizes.iter().copied());
        let options = Options {
            sizes: named.collect(),
            ..self.options.clone()
        };
        draft(&self.graph, &options)?.session(self.threads)
    }
}
