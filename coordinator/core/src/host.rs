//! A host as the scheduler knows it.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    time::Duration,
};

use fleetpool_proto::{
    ClientId, HostId, Payloads, PoolId, Timestamp,
    message::{OutputRow, Registration},
};

use crate::event::SessionNo;

/// Where a host is in its life.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum HostState {
    /// Welcomed, has not registered yet.
    #[default]
    New,
    /// Its agent is connected and registered.
    Up,
    /// Its session is gone, its lease may still run.
    Away,
    /// Its lease has run out: it is fenced.
    Lost,
}

/// One host.
#[derive(Debug, Default)]
pub(crate) struct Host {
    pub(crate) state: HostState,
    pub(crate) session: Option<SessionNo>,
    pub(crate) facts: Registration,
    pub(crate) cordoned: bool,
    /// It may not come back.
    pub(crate) retired: bool,
    pub(crate) rtt: Duration,
    /// The highest number of output that has come from this life of its agent.
    pub(crate) output_heard: u64,
    /// A predecessor of this coordinator may have heard output from it that comes again, up to that number of its agent's; which
    /// number, it says when it registers.
    pub(crate) output_due: Option<u64>,
    /// Output that went to a client which has not said that it came, in order.
    pub(crate) in_flight: VecDeque<Printed>,
    /// When its last renewal came.
    pub(crate) heard_at: Timestamp,
    /// When it counts as fenced unless a renewal comes.
    pub(crate) fenced_at: Timestamp,
    /// When attempts that may not be rerun are given up.
    pub(crate) gone_at: Timestamp,
    /// Pools that have a share of it.
    pub(crate) pools: BTreeSet<PoolId>,
    /// Sum of its shares' `allot` and `ceiling`.
    pub(crate) allotted: u32,
    pub(crate) ceilings: u32,
}

/// Output on its way to a client that may resume.
#[derive(Debug)]
pub(crate) struct Printed {
    pub(crate) client: ClientId,
    pub(crate) pool: PoolId,
    pub(crate) life: u64,
    pub(crate) number: u64,
    pub(crate) rows: Vec<OutputRow>,
    pub(crate) payloads: Payloads,
}

/// Every host by number.
pub(crate) type Hosts = BTreeMap<HostId, Host>;

impl Host {
    /// The number up to which output is with those that it is for: its agent may forget it.
    pub(crate) fn output_safe(&self) -> u64 {
        let life = self.facts.incarnation;
        let mut waiting = self.in_flight.iter().filter(|printed| printed.life == life);
        waiting
            .next()
            .map_or(self.output_heard, |printed| printed.number - 1)
    }

    pub(crate) fn is_up(&self) -> bool {
        self.state == HostState::Up
    }

    /// Whether people are to see it: it has registered, and was not sent away for good.
    pub(crate) fn is_listed(&self) -> bool {
        self.is_up() || self.state != HostState::New && !self.retired
    }

    /// Why nothing that waits for this host alone should wait any longer.
    pub(crate) fn why_out_of_reach(&self) -> Option<String> {
        (self.state == HostState::Lost).then(|| {
            format!(
                "host {} is lost: it has not been heard of for longer than its lease",
                self.facts.name
            )
        })
    }

    /// Whether it is away, and may be back before its lease has run out.
    pub(crate) fn may_come_back(&self) -> bool {
        self.state == HostState::Away && !self.retired && !self.cordoned
    }

    /// Whether new tasks may be sent to it.
    pub(crate) fn is_open(&self) -> bool {
        self.is_up() && !self.cordoned
    }

    /// Slots that belong to no pool, and in which nothing runs for one that had them.
    pub(crate) fn free(&self) -> u16 {
        if !self.is_open() {
            return 0;
        }
        let slots = u32::from(self.facts.slots);
        u16::try_from(slots.saturating_sub(self.ceilings)).unwrap_or(u16::MAX)
    }

    /// Slots that are free as soon as pools that have lost them have ended a task there.
    pub(crate) fn vacating(&self) -> u32 {
        if self.is_open() {
            self.ceilings - self.allotted
        } else {
            0
        }
    }

    /// Slots that pools could have.
    pub(crate) fn usable(&self) -> u32 {
        if self.is_open() {
            u32::from(self.facts.slots)
        } else {
            0
        }
    }
}
