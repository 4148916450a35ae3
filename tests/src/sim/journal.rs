//! A coordinator that is killed, what it had written down, and its successor.

use std::collections::VecDeque;

use fleetpool_coordinator_core::{Action, CoordinatorCore, Event};
use fleetpool_proto::{
    Timestamp,
    journal::Fact,
    message::{ToAgent, ToClient},
};

use super::{
    clients::Deed,
    engine::{Engine, What, client_id, host_id},
    wire::{Parcel, decode, encode},
};

/// How long a disk may take, in microseconds.
const SYNC_US_MAX: u64 = 8_000;
/// The journal begins anew at one in so many of the coordinator's turns.
const RENEWED_ONE_IN: u64 = 200;
/// How long a coordinator that stops waits for its last words to come, in microseconds.
const GOODBYE_US: u64 = 300_000;
/// How long a client may take to be back, in microseconds.
const BACK_US_MAX: u64 = 3_000_000;

/// What is written down, and what waits for the disk.
#[derive(Debug, Default)]
pub(super) struct Journal {
    facts: Vec<Parcel>,
    /// Facts that were written before these.
    before: usize,
    /// Facts that survive a power cut, with those.
    synced: usize,
    gated: VecDeque<(usize, Action)>,
    syncing: bool,
    /// Lives of the coordinator before this one.
    pub(super) lives: u64,
    /// It is between two lives.
    pub(super) down: bool,
    /// The last coordinator's machine lost its power.
    cut: bool,
    /// A power cut took what was not on disk, and hosts have not had the time to fence what they run of it.
    doubted: bool,
}

impl Journal {
    /// Facts that were written in all.
    fn end(&self) -> usize {
        self.before + self.facts.len()
    }
}

impl Engine {
    pub(super) fn record(&mut self, fact: Fact) {
        self.journal.facts.push(encode(fact).0);
        self.sync_soon();
    }

    /// Does what the scheduler wants, at once or when the disk has what comes before it: as the coordinator's shell does.
    pub(super) fn act_durably(&mut self, action: Action) {
        let waits = match &action {
            Action::ToAgent { message, .. } => match message {
                ToAgent::Ack { .. } | ToAgent::Stopping { .. } => true,
                ToAgent::Grant { pool, .. } => !self.coordinator.may_rerun(*pool),
                _ => false,
            },
            Action::ToClient { message, .. } => matches!(message, ToClient::Submitted { .. }),
            _ => false,
        };
        if !waits || !self.durable {
            return self.act(action);
        }
        let at = self.journal.end();
        self.journal.gated.push_back((at, action));
        self.sync_soon();
    }

    /// The journal begins anew, once in a while, when all that was decided has been written and done.
    pub(super) fn renew_journal_sometimes(&mut self) {
        if self.durable && self.chance.once_in(RENEWED_ONE_IN) {
            self.renew_journal();
        }
    }

    fn renew_journal(&mut self) {
        let facts = self.coordinator.snapshot();
        self.journal.before = self.journal.end();
        self.journal.facts = facts.into_iter().map(|fact| encode(fact).0).collect();
        self.journal.synced = self.journal.end();
        for (_, action) in std::mem::take(&mut self.journal.gated) {
            self.act(action);
        }
    }

    fn sync_soon(&mut self) {
        if !std::mem::replace(&mut self.journal.syncing, true) {
            let wait = self.chance.within(200..SYNC_US_MAX);
            let upto = self.journal.end();
            self.after(wait, What::Synced(self.journal.lives, upto));
        }
    }

    pub(super) fn synced(&mut self, life: u64, upto: usize) {
        if life != self.journal.lives {
            return;
        }
        self.journal.syncing = false;
        self.journal.synced = self.journal.synced.max(upto);
        while let Some((_, action)) = self.journal.gated.pop_front_if(|(at, _)| *at <= upto) {
            self.act(action);
        }
        if self.journal.end() > upto || !self.journal.gated.is_empty() {
            self.sync_soon();
        }
    }

    pub(super) fn kill_coordinator(&mut self, power: bool) {
        if std::mem::replace(&mut self.journal.down, true) {
            return;
        }
        if power {
            let (synced, all) = (self.journal.synced as u64, self.journal.end() as u64);
            let left = self.chance.within(synced..all + 1);
            let left = usize::try_from(left).unwrap_or(usize::MAX);
            self.journal.facts.truncate(left - self.journal.before);
        }
        self.journal.cut = power;
        self.journal.doubted &= self.coordinator.is_settling();
        self.journal.gated.clear();
        self.journal.syncing = false;
        self.journal.lives += 1;
        self.coordinator = CoordinatorCore::new(self.coordinator_options());
        self.coordinator_timer = None;
        self.coordinator_stirred = false;
        self.end_all_sessions();
        for number in 0..self.clients.len() {
            self.clients[number].lose_session(self.now, self.now);
            self.clients[number].line.heard = None;
        }
    }

    /// It is gone soon after its disk has what it promises.
    pub(super) fn stop_coordinator(&mut self) {
        self.tell_coordinator(Event::Stop);
        self.after(SYNC_US_MAX, What::Stopping(self.journal.lives));
    }

    pub(super) fn stops(&mut self, life: u64) {
        if life != self.journal.lives {
            return;
        }
        let waits = !self.journal.gated.is_empty();
        let next = if waits { What::Stopping } else { What::Stopped };
        self.after(GOODBYE_US, next(life));
    }

    /// Its machine may be booted.
    pub(super) fn stopped(&mut self, life: u64) {
        if life == self.journal.lives {
            let power = self.chance.once_in(4);
            self.kill_coordinator(power);
        }
    }

    pub(super) fn start_coordinator(&mut self) {
        if !std::mem::replace(&mut self.journal.down, false) {
            return;
        }
        self.coordinator = CoordinatorCore::new(self.coordinator_options());
        let now = Timestamp(self.now);
        let mut was_stopped = false;
        for parcel in self.journal.facts.clone() {
            match decode(parcel) {
                Ok(fact) => {
                    if let Fact::Lease { stopping, .. } = fact {
                        was_stopped = stopping;
                    }
                    self.coordinator.recover(now, fact);
                }
                Err(error) => {
                    return self.check(Err(format!("the journal is not understood: {error}")));
                }
            }
        }
        let clients: Vec<_> = (0..self.clients.len()).map(client_id).collect();
        self.journal.doubted |= self.journal.cut && !was_stopped;
        let gap = self.journal.doubted;
        self.coordinator.recovered(now, &clients, gap);
        self.renew_journal();
        self.coordinator_stirred = true;
        if gap {
            // An operator whose last word was lost says it again.
            for host in 0..self.hosts.len() {
                let host = host_id(host);
                self.tell_coordinator(Event::Cordon { host, on: false });
            }
        }
        for number in 0..self.clients.len() {
            let wait = self.chance.within(0..BACK_US_MAX);
            self.after(wait, What::Client(number, Deed::Resume));
        }
    }
}
