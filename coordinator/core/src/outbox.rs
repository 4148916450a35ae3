//! Where actions collect until the shell takes them.

use std::collections::VecDeque;

use fleetpool_proto::{
    ClientId, HostId,
    message::{ToAgent, ToClient},
};

use crate::{event::Action, host::Host};

/// Actions in order, and the numbers that decisions are given.
#[derive(Debug, Default)]
pub(crate) struct Outbox {
    pub(crate) actions: VecDeque<Action>,
    numbers: u64,
}

impl Outbox {
    /// A number that no earlier decision had.
    pub(crate) fn number(&mut self) -> u64 {
        self.numbers += 1;
        self.numbers
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
