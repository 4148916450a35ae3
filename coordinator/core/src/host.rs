//! A host as the scheduler knows it.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use fleetpool_proto::{HostId, PoolId, Timestamp, message::Registration};

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

/// Every host by number.
pub(crate) type Hosts = BTreeMap<HostId, Host>;

impl Host {
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
