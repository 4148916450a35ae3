//! The sessions that live: whose they are, and the way out of each.

use std::collections::{BTreeMap, BTreeSet};

use fleetpool_coordinator_core::SessionNo;
use fleetpool_net::{Peer, Session};
use fleetpool_proto::{ClientId, HostId, PoolId};

use super::outbound::{AbortOnDrop, Outbound, Relief};

/// Where a peer belongs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    Agent {
        host: HostId,
        session: SessionNo,
    },
    Client {
        client: ClientId,
        session: SessionNo,
    },
    /// The second connection of a client, whose end is all that it says.
    Lifeline(ClientId),
}

/// One session. Dropping it stops its reader.
#[derive(Debug)]
pub(crate) struct Live {
    pub(crate) peer: Peer,
    pub(crate) out: Outbound,
    _reader: AbortOnDrop,
}

#[derive(Debug)]
pub(crate) struct AgentSession {
    pub(crate) session: SessionNo,
    pub(crate) live: Live,
}

#[derive(Debug)]
pub(crate) struct ClientSession {
    pub(crate) session: SessionNo,
    pub(crate) live: Live,
    pub(crate) lifelines: Vec<AbortOnDrop>,
    /// Jobs that it is being sent.
    pub(crate) attached: Vec<AbortOnDrop>,
    /// Where its tasks print more than it reads, and were told to wait.
    pub(crate) held: BTreeSet<(HostId, PoolId)>,
}

/// Every session that lives.
#[derive(Debug, Default)]
pub(crate) struct Sessions {
    pub(crate) agents: BTreeMap<HostId, AgentSession>,
    pub(crate) clients: BTreeMap<ClientId, ClientSession>,
}

impl Live {
    /// Starts to serve a session: `reader` makes the task that listens to it.
    pub(crate) fn start<F>(
        session: Session,
        relief: Option<Relief>,
        reader: impl FnOnce(fleetpool_net::Receiver) -> F,
    ) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        Self {
            out: Outbound::new(session.sender, relief),
            _reader: AbortOnDrop::spawn(reader(session.receiver)),
            peer: session.peer,
        }
    }

    /// Whether it is a session of the same certificate (or local user) as `peer`'s.
    pub(crate) fn is_of(&self, peer: &Peer) -> bool {
        self.peer.id == peer.id && self.peer.key == peer.key
    }
}

impl Sessions {
    /// The host's session, if it is (still) that one.
    pub(crate) fn agent(&self, host: HostId, session: SessionNo) -> Option<&Live> {
        let found = self.agents.get(&host)?;
        (found.session == session).then_some(&found.live)
    }

    pub(crate) fn client(&self, client: ClientId) -> Option<&Live> {
        self.clients.get(&client).map(|found| &found.live)
    }

    /// Sessions of an identity.
    pub(crate) fn places_of(&self, identity: &str) -> Vec<Place> {
        let all = self.places();
        all.filter(|(_, live)| live.peer.id == identity)
            .map(|(place, _)| place)
            .collect()
    }

    /// Identities that have a session.
    pub(crate) fn identities(&self) -> BTreeSet<String> {
        self.places()
            .map(|(_, live)| live.peer.id.clone())
            .collect()
    }

    pub(crate) fn places(&self) -> impl Iterator<Item = (Place, &Live)> {
        let agents = self.agents.iter().map(|(&host, agent)| {
            let session = agent.session;
            (Place::Agent { host, session }, &agent.live)
        });
        let clients = self.clients.iter();
        agents.chain(clients.map(|(&id, client)| {
            let session = client.session;
            (
                Place::Client {
                    client: id,
                    session,
                },
                &client.live,
            )
        }))
    }
}
