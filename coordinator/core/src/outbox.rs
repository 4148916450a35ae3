//! Where actions collect until the shell takes them.

use std::collections::VecDeque;

use fleetpool_proto::{
    ClientId, HostId,
    journal::Fact,
    message::{ToAgent, ToClient},
};

use crate::{event::Action, host::Host};

/// Decisions of one start of the coordinator, at most: numbers of the next begin above them.
const NUMBERS_PER_EPOCH_BITS: u32 = 40;

/// Actions in order, and the numbers that decisions are given.
#[derive(Debug, Default)]
pub(crate) struct Outbox {
    pub(crate) actions: VecDeque<Action>,
    numbers: u64,
    /// Whether facts are wanted.
    pub(crate) durable: bool,
}

impl Outbox {
    pub(crate) fn new(epoch: u64, durable: bool) -> Self {
        Self {
            actions: VecDeque::new(),
            numbers: epoch << NUMBERS_PER_EPOCH_BITS,
            durable,
        }
    }

    /// A number that no earlier decision had.
    pub(crate) fn number(&mut self) -> u64 {
        self.numbers += 1;
        self.numbers
    }

    /// Has a fact written down, if facts are.
    pub(crate) fn record(&mut self, fact: impl FnOnce() -> Fact) {
        if self.durable {
            self.actions.push_back(Action::Record(fact()));
        }
    }

    /// Tells the host's agent, if it is connected.
    pub(crate) fn agent(&mut self, id: HostId, host: &Host, message: ToAgent) {
        if let Some(session) = host.session {
            self.actions.push_back(Action::ToAgent {
                host: id,
                session,
                message,
            });
        }
    }

    pub(crate) fn client(&mut self, client: ClientId, message: ToClient) {
        self.actions.push_back(Action::ToClient { client, message });
    }
}
