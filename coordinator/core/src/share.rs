//! What a pool has on one host: slots, and tasks that were sent there.

use std::collections::BTreeSet;

use bytes::Bytes;
use fleetpool_proto::{HostId, SlotNo, SpecId, Timestamp};

use crate::{
    held::Held,
    queue::{Pending, Tries},
};

/// A pool's part of a host.
#[derive(Debug, Default)]
pub(crate) struct Share {
    /// Slots as last told to the agent.
    pub(crate) allot: u16,
    /// Most tasks that may run there as far as the agent has confirmed: what counts against N (G1).
    pub(crate) ceiling: u16,
    /// Number of the last `Allot`.
    pub(crate) allotment: u64,
    /// Whether the agent's session has been told of the pool.
    pub(crate) opened: bool,
    /// Specifications that the agent's session has been told of.
    pub(crate) specs_sent: BTreeSet<SpecId>,
    /// Tasks granted to the host and not reported yet.
    pub(crate) tasks: Held,
    /// Bytes of their arguments.
    pub(crate) bytes: u64,
    /// A `Retract` that has not been answered.
    pub(crate) retraction: Option<u64>,
    /// The pool cannot work on this host.
    pub(crate) unfit: bool,
    /// As `Pool::stock` and `Pool::surplus` have it.
    pub(crate) stock: u32,
    pub(crate) surplus: u32,
}

/// A task at an agent.
#[derive(Clone, Debug)]
pub(crate) struct Granted {
    pub(crate) spec: SpecId,
    pub(crate) tries: Tries,
    pub(crate) since: Timestamp,
    pub(crate) granted_at: Timestamp,
    pub(crate) pin: Option<HostId>,
    pub(crate) payload: Bytes,
    /// The agent said that it runs.
    pub(crate) running: Option<(SlotNo, u32)>,
    pub(crate) cancelled: bool,
}

impl Share {
    /// Slots that have no task.
    pub(crate) fn idle(&self) -> usize {
        usize::from(self.allot).saturating_sub(self.tasks.len())
    }

    /// Tasks beyond those that may run: certainly not started yet, as far as known here.
    pub(crate) fn excess(&self) -> usize {
        self.tasks.len().saturating_sub(usize::from(self.ceiling))
    }

    /// Tasks that may run there until the agent says otherwise: it has no others.
    pub(crate) fn may_run_still(&self) -> u16 {
        let tasks = u16::try_from(self.tasks.len()).unwrap_or(u16::MAX);
        self.ceiling.min(tasks)
    }

    pub(crate) fn grant(&mut self, task: Pending, now: Timestamp) {
        self.bytes += task.payload.len() as u64;
        let granted = Granted {
            spec: task.spec,
            tries: task.tries,
            since: task.since,
            granted_at: now,
            pin: task.pin,
            payload: task.payload,
            running: None,
            cancelled: false,
        };
        self.tasks.insert(task.index, granted);
    }

    pub(crate) fn take(&mut self, index: u64) -> Option<Granted> {
        let task = self.tasks.remove(index)?;
        self.bytes -= task.payload.len() as u64;
        Some(task)
    }

    /// A new session knows nothing yet.
    pub(crate) fn forget_session(&mut self) {
        self.opened = false;
        self.specs_sent.clear();
        self.retraction = None;
    }
}

impl Granted {
    pub(crate) fn back_to_pending(self, index: u64, now: Timestamp) -> Pending {
        Pending {
            index,
            spec: self.spec,
            tries: self.tries,
            since: now,
            pin: self.pin,
            payload: self.payload,
        }
    }
}
