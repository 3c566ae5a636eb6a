//! How long saturation takes, by rounds and by rules.
//!
//! A [`Clock`] stands between the saturation and who looks on, and leaves out what that one does. Where nobody asks for times,
//! there is no clock, and nothing looks at one.

use super::apply::Replacement;
use super::lang::EGraph;
use super::matching::Match;
use super::rules::Law;
use super::saturate::{Watch, Work};
use brolga_ir::Op;
use egg::Id;
use std::time::{Duration, Instant};

/// How long a rule took in all rounds.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct RuleTime {
    /// To search where it matches.
    pub search: Duration,
    /// To try its conditions, and to apply it where they held.
    pub apply: Duration,
}

/// How long saturation took.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Times {
    /// Each round, what is done for no rule by itself included.
    pub rounds: Vec<Duration>,
    /// Each rule, by its position.
    pub rules: Vec<RuleTime>,
}

/// Somebody who notes times, and passes on what there is to see.
pub(super) struct Clock<'w> {
    watch: &'w mut dyn Watch,
    times: Times,
    round: Duration,
    last: Instant,
}

impl Clock<'_> {
    /// A clock for so many rules that starts now.
    pub fn new(rules: usize, watch: &mut dyn Watch) -> Clock<'_> {
        Clock {
            watch,
            times: Times {
                rounds: vec![],
                rules: vec![RuleTime::default(); rules],
            },
            round: Duration::ZERO,
            last: Instant::now(),
        }
    }

    /// What was noted.
    pub fn times(self) -> Times {
        self.times
    }

    /// The time since this was asked last.
    fn lap(&mut self) -> Duration {
        let now = Instant::now();
        let lap = now.saturating_duration_since(self.last);
        (self.last, self.round) = (now, self.round + lap);
        lap
    }

    /// Passes something on, and leaves out the time that it takes.
    fn aside(&mut self, tell: impl FnOnce(&mut dyn Watch)) {
        let start = Instant::now();
        tell(self.watch);
        self.last += start.elapsed();
    }
}

impl Watch for Clock<'_> {
    fn decomposed(&mut self, eg: &EGraph) {
        self.aside(|w| w.decomposed(eg));
    }

    fn decomposes(&mut self, eg: &EGraph, op: &Op, operands: &[Id], definition: &[Id]) {
        self.aside(|w| w.decomposes(eg, op, operands, definition));
    }

    fn applies(&mut self, eg: &EGraph, rule: (usize, &Law), found: &Match, right: &Replacement) {
        self.aside(|w| w.applies(eg, rule, found, right));
    }

    fn applied(&mut self, eg: &EGraph, changed: bool) {
        self.aside(|w| w.applied(eg, changed));
    }

    fn round(&mut self, eg: &EGraph) {
        self.lap();
        self.times.rounds.push(std::mem::take(&mut self.round));
        self.aside(|w| w.round(eg));
    }

    fn worked(&mut self, work: Work) {
        let lap = self.lap();
        match work {
            Work::Common => {}
            Work::Search(rule) => self.times.rules[rule].search += lap,
            Work::Apply(rule) => self.times.rules[rule].apply += lap,
        }
    }
}
