//! How the tree of a task or a worker comes to its end: by itself, or TERM, grace, KILL, until nothing is left.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use nix::unistd::Pid;

use crate::{spawner::sys::Reaped, tree};

/// Pause between two rounds of KILL, doubled each time: what a round found dies at once, unless the kernel
/// holds it, or it has forked meanwhile.
const KILL_AGAIN: Duration = Duration::from_millis(1);
const KILL_AGAIN_MAX: Duration = Duration::from_millis(100);

/// The processes below this keeper that belong to one task or worker.
pub(crate) struct Tree {
    pub(crate) main: Pid,
    /// How its main process ended.
    pub(crate) end: Option<Reaped>,
    /// Whether somebody asked for its end.
    pub(crate) asked: bool,
    stage: Stage,
    /// What was still alive after the main process had ended by itself.
    leaked: BTreeSet<Pid>,
}

enum Stage {
    Free,
    Terminating { until: Instant },
    Killing { again: Instant, pause: Duration },
}

impl Tree {
    pub(crate) fn new(main: Pid) -> Self {
        Self {
            main,
            end: None,
            asked: false,
            stage: Stage::Free,
            leaked: BTreeSet::new(),
        }
    }

    /// Begins to end it. Asking again can only make it faster.
    pub(crate) fn ask(&mut self, now: Instant, grace: Duration, spared: &BTreeSet<Pid>) {
        self.asked = true;
        match self.stage {
            Stage::Free if grace.is_zero() => self.kill(now, KILL_AGAIN, spared),
            Stage::Free => {
                tree::terminate_all(spared);
                self.stage = Stage::Terminating { until: now + grace };
            }
            Stage::Terminating { until } => {
                self.stage = Stage::Terminating {
                    until: until.min(now + grace),
                };
            }
            Stage::Killing { .. } => {}
        }
    }

    /// Does what is due, given that something still lives below this keeper. What outlives the main process is
    /// killed, unless it was asked to end and has grace left.
    pub(crate) fn advance(&mut self, now: Instant, spared: &BTreeSet<Pid>) {
        match self.stage {
            Stage::Free if self.end.is_some() => self.kill(now, KILL_AGAIN, spared),
            Stage::Terminating { until } if now >= until => self.kill(now, KILL_AGAIN, spared),
            Stage::Killing { again, pause } if now >= again => {
                self.kill(now, (pause * 2).min(KILL_AGAIN_MAX), spared);
            }
            _ => {}
        }
    }

    /// When [`Self::advance`] has something to do, if nothing happens before.
    pub(crate) fn due(&self) -> Option<Instant> {
        match self.stage {
            Stage::Free => None,
            Stage::Terminating { until } => Some(until),
            Stage::Killing { again, .. } => Some(again),
        }
    }

    /// Processes that the main process had left running.
    pub(crate) fn leaked(&self) -> u32 {
        u32::try_from(self.leaked.len()).unwrap_or(u32::MAX)
    }

    fn kill(&mut self, now: Instant, pause: Duration, spared: &BTreeSet<Pid>) {
        // Or what is killed first makes room for what others fork meanwhile, for ever.
        tree::stop_all(spared);
        let killed = tree::kill_all(spared);
        if self.end.is_some() && !self.asked {
            self.leaked.extend(killed);
        }
        self.stage = Stage::Killing {
            again: now + pause,
            pause,
        };
    }
}
