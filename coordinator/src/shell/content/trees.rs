//! Who gets content of whom: a tree for each, whose root gets it from the coordinator. Every agent passes it on to
//! [`PASSED_ON_TO_MAX`] others while it comes in, so that the coordinator sends it once, however many need it.
//!
//! An agent that is to be somebody's parent is asked for a port first; its children are told of it when it has answered. An edge
//! that does not work costs its child a question to the coordinator, and the child's own children nothing: they go on
//! waiting at the same place.
//!
//! Pure, as the whole of [`Contents`](super::Contents) is.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use fleetpool_coordinator_core::SessionNo;
use fleetpool_proto::{
    ClientId, HostId, PeerPin, Timestamp,
    limits::{PASSED_ON_TO_MAX, PASSING_ADDRESSES_MAX, PASSING_ANSWER_TIME_MAX},
    pool::ContentHash,
};

use super::{Asker, Step};

/// Trees that are remembered. The one that was used longest ago is forgotten: who comes later gets the content from the
/// coordinator.
const TREES_MAX: usize = 64;
/// Edges of a host that did not work, from which on it takes no part for a while: it cannot be reached, or cannot reach others.
const TROUBLES_MAX: u32 = 3;
/// After this long it has another chance.
const TROUBLE_FORGOTTEN_AFTER: Duration = Duration::from_secs(600);

/// Every tree, and the agents that can be in one.
#[derive(Debug, Default)]
pub(super) struct Trees {
    agents: BTreeMap<HostId, Agent>,
    trees: BTreeMap<ContentHash, Tree>,
    troubles: BTreeMap<HostId, Trouble>,
    /// Who waits for an agent to say where content is to be had of it.
    waiting: BTreeMap<(HostId, ContentHash), Vec<Waiting>>,
    /// Counts uses of trees, to tell which was last.
    uses: u64,
}

/// An agent that can pass content on.
#[derive(Debug)]
struct Agent {
    session: SessionNo,
    pin: PeerPin,
    /// Where its session comes from.
    ip: Option<IpAddr>,
}

#[derive(Debug)]
struct Tree {
    bytes: u64,
    /// In the order in which they were placed, which is that of their depth.
    nodes: Vec<Node>,
    used: u64,
}

#[derive(Debug)]
struct Node {
    asker: Asker,
    parent: Option<HostId>,
    /// How many were ever placed below it.
    children: usize,
    /// Nobody else is placed below it.
    full: bool,
}

#[derive(Debug)]
struct Waiting {
    asker: Asker,
    pin: PeerPin,
    /// The content's size.
    bytes: u64,
    until: Timestamp,
}

#[derive(Debug)]
struct Trouble {
    times: u32,
    last: Timestamp,
}

/// Where an agent gets content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// From the coordinator.
    Root,
    /// From the agent of this host, when it has said where.
    Below(HostId),
}

/// An agent that is to get content from the coordinator after all.
pub(super) type Orphan = (Asker, ContentHash);

impl Trees {
    /// An agent has registered. Without a pin it takes no part.
    pub(super) fn on_agent(
        &mut self,
        host: HostId,
        session: SessionNo,
        pin: Option<PeerPin>,
        ip: Option<IpAddr>,
    ) {
        let agent = pin.map(|pin| Agent { session, pin, ip });
        match agent {
            Some(agent) => drop(self.agents.insert(host, agent)),
            None => drop(self.agents.remove(&host)),
        }
    }

    /// An agent's session is over. Whom it serves it may go on serving; who waits for its answer waits no more.
    pub(super) fn on_agent_gone(&mut self, host: HostId, session: SessionNo) -> Vec<Orphan> {
        if self
            .agents
            .get(&host)
            .is_none_or(|agent| agent.session != session)
        {
            return Vec::new();
        }
        self.agents.remove(&host);
        let answers: Vec<_> = self
            .waiting
            .keys()
            .filter(|(parent, _)| *parent == host)
            .copied()
            .collect();
        let orphans = answers
            .into_iter()
            .flat_map(|(parent, hash)| self.orphans(parent, hash));
        orphans.collect()
    }

    /// What it needed is not needed any more: what its agents have they may have no longer. Who waits for an answer goes on
    /// waiting, since that comes in any case.
    pub(super) fn on_client_gone(&mut self, client: ClientId) {
        for tree in self.trees.values_mut() {
            tree.nodes.retain(|node| node.asker.client != client);
        }
        self.trees.retain(|_, tree| !tree.nodes.is_empty());
    }

    /// There may be a tree of this content from now on.
    pub(super) fn plant(&mut self, hash: ContentHash, bytes: u64) {
        self.uses += 1;
        let used = self.uses;
        let tree = self.trees.entry(hash).or_insert(Tree {
            bytes,
            nodes: Vec::new(),
            used,
        });
        tree.used = used;
        if self.trees.len() > TREES_MAX {
            let oldest = self.trees.iter().min_by_key(|(_, tree)| tree.used);
            let oldest = oldest.map(|(hash, _)| *hash);
            oldest.and_then(|hash| self.trees.remove(&hash));
        }
    }

    /// Whether an agent can get this content from another.
    pub(super) fn is_planted(&self, hash: ContentHash) -> bool {
        self.trees.contains_key(&hash)
    }

    /// Finds a place for an agent that asks, and remembers it.
    pub(super) fn place(&mut self, asker: Asker, hash: ContentHash, now: Timestamp) -> Place {
        if !self.takes_part(&asker, now) {
            return Place::Root;
        }
        let Some(mut tree) = self.trees.remove(&hash) else {
            return Place::Root;
        };
        let place = self.place_in(&mut tree, asker, now);
        if let (Place::Below(parent), Some(agent)) = (place, self.agents.get(&asker.host)) {
            let waiting = self.waiting.entry((parent, hash)).or_default();
            waiting.push(Waiting {
                asker,
                pin: agent.pin,
                bytes: tree.bytes,
                until: now + PASSING_ANSWER_TIME_MAX,
            });
        }
        self.trees.insert(hash, tree);
        place
    }

    fn place_in(&self, tree: &mut Tree, asker: Asker, now: Timestamp) -> Place {
        if let Some(at) = tree
            .nodes
            .iter()
            .position(|node| node.asker.host == asker.host)
        {
            // Who has children does not become a child: so there is never a circle.
            if tree.nodes[at].children > 0 {
                tree.nodes[at].asker = asker;
                return Place::Root;
            }
            tree.nodes.remove(at);
        }
        let parent = tree.nodes.iter_mut().find(|node| {
            !node.full && node.children < PASSED_ON_TO_MAX && self.takes_part(&node.asker, now)
        });
        let parent = parent.map(|node| {
            node.children += 1;
            node.asker.host
        });
        tree.nodes.push(Node {
            asker,
            parent,
            children: 0,
            full: false,
        });
        parent.map_or(Place::Root, Place::Below)
    }

    fn takes_part(&self, asker: &Asker, now: Timestamp) -> bool {
        let agent = self.agents.get(&asker.host);
        let trouble = self.troubles.get(&asker.host);
        agent.is_some_and(|agent| agent.session == asker.session)
            && !trouble.is_some_and(|trouble| {
                trouble.times >= TROUBLES_MAX && now.since(trouble.last) < TROUBLE_FORGOTTEN_AFTER
            })
    }

    /// What the parents of these are to be told, each once.
    pub(super) fn announce(&self, hash: ContentHash, placed: &[(Asker, HostId)]) -> Vec<Step> {
        let Some(bytes) = self.trees.get(&hash).map(|tree| tree.bytes) else {
            return Vec::new();
        };
        let parents: BTreeSet<HostId> = placed.iter().map(|(_, parent)| *parent).collect();
        let pass_on = |host: HostId| {
            let session = self.agents.get(&host)?.session;
            let children = placed.iter().filter(|(_, parent)| *parent == host);
            let pins = children.filter_map(|(child, _)| Some(self.agents.get(&child.host)?.pin));
            let peers = pins.collect();
            Some(Step::PassOn {
                host,
                session,
                hash,
                bytes,
                peers,
            })
        };
        parents.into_iter().filter_map(pass_on).collect()
    }

    /// An agent has said where these may come for content, or that nobody may. It may not have heard of others yet, who would
    /// come uninvited: they wait for the answer that names them.
    pub(super) fn on_passing_on(
        &mut self,
        host: HostId,
        session: SessionNo,
        hash: ContentHash,
        port: u16,
        addresses: &[IpAddr],
        peers: &[PeerPin],
    ) -> (Vec<Step>, Vec<Orphan>) {
        let Some(agent) = self
            .agents
            .get(&host)
            .filter(|agent| agent.session == session)
        else {
            return (Vec::new(), Vec::new());
        };
        let addresses = agent.addresses(port, addresses);
        if port == 0 || addresses.is_empty() {
            return (Vec::new(), self.orphans(host, hash));
        }
        let pin = agent.pin;
        let waiting = self.waiting.remove(&(host, hash)).unwrap_or_default();
        let (invited, others): (Vec<_>, Vec<_>) = waiting
            .into_iter()
            .partition(|waiting| peers.is_empty() || peers.contains(&waiting.pin));
        if !others.is_empty() {
            self.waiting.insert((host, hash), others);
        }
        let fetch = |waiting: Waiting| Step::FetchFrom {
            asker: waiting.asker,
            hash,
            bytes: waiting.bytes,
            addresses: addresses.clone(),
            pin,
        };
        (invited.into_iter().map(fetch).collect(), Vec::new())
    }

    /// An agent did not get content of its parent.
    pub(super) fn on_failed(&mut self, asker: Asker, hash: ContentHash, now: Timestamp) {
        let nodes = self.trees.get_mut(&hash).map(|tree| &mut tree.nodes);
        let node = nodes
            .into_iter()
            .flatten()
            .find(|node| node.asker.host == asker.host);
        let Some(parent) = node.and_then(|node| node.parent.take()) else {
            return;
        };
        self.shun(parent, hash);
        for host in [parent, asker.host] {
            self.troubled(host, now);
        }
    }

    /// When somebody will have waited for too long.
    pub(super) fn poll_timeout(&self) -> Option<Timestamp> {
        let all = self.waiting.values().flatten();
        all.map(|waiting| waiting.until).min()
    }

    /// Time has passed: who has waited for too long.
    pub(super) fn on_time(&mut self, now: Timestamp) -> Vec<Orphan> {
        let late = |waiting: &Vec<Waiting>| waiting.iter().any(|waiting| waiting.until <= now);
        let silent: Vec<_> = self
            .waiting
            .iter()
            .filter(|(_, waiting)| late(waiting))
            .map(|(key, _)| *key)
            .collect();
        let mut orphans = Vec::new();
        for (parent, hash) in silent {
            self.troubled(parent, now);
            orphans.extend(self.orphans(parent, hash));
        }
        orphans
    }

    /// Who waits for that answer waits no more, and nobody will.
    fn orphans(&mut self, parent: HostId, hash: ContentHash) -> Vec<Orphan> {
        self.shun(parent, hash);
        let waiting = self.waiting.remove(&(parent, hash)).unwrap_or_default();
        waiting
            .into_iter()
            .map(|waiting| (waiting.asker, hash))
            .collect()
    }

    /// Nobody else is placed below it.
    fn shun(&mut self, parent: HostId, hash: ContentHash) {
        let nodes = self.trees.get_mut(&hash).map(|tree| &mut tree.nodes);
        let node = nodes
            .into_iter()
            .flatten()
            .find(|node| node.asker.host == parent);
        node.into_iter().for_each(|node| node.full = true);
    }

    fn troubled(&mut self, host: HostId, now: Timestamp) {
        self.troubles
            .retain(|_, trouble| now.since(trouble.last) < TROUBLE_FORGOTTEN_AFTER);
        let trouble = self.troubles.entry(host).or_insert(Trouble {
            times: 0,
            last: now,
        });
        trouble.times += 1;
        trouble.last = now;
        if trouble.times == TROUBLES_MAX {
            tracing::warn!(%host, "content is not passed on by way of this host for a while: other agents do not reach it, or it does not reach them");
        }
    }
}

impl Agent {
    /// Where others may reach it: first where the coordinator does, unless that is a tunnel's end.
    fn addresses(&self, port: u16, said: &[IpAddr]) -> Vec<SocketAddr> {
        let (near, far): (Vec<_>, Vec<_>) = self.ip.into_iter().partition(|ip| ip.is_loopback());
        let mut seen = BTreeSet::new();
        let all = far.into_iter().chain(said.iter().copied()).chain(near);
        let all = all
            .filter(|ip| seen.insert(*ip))
            .take(PASSING_ADDRESSES_MAX);
        all.map(|ip| SocketAddr::new(ip, port)).collect()
    }
}
