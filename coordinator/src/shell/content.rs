//! Content by hash (programs, mostly): fetched from a client once, however many agents ask at once, and kept while
//! there is room. What is large goes to one of them, and the others get it from each other (`trees`).
//!
//! Pure: told who asks, who answers and who left, it says whom to ask and whom to give. The reader of a client's
//! session has already checked that content is what its hash says.

mod trees;

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
};

use bytes::Bytes;
use fleetpool_coordinator_core::SessionNo;
use fleetpool_proto::{
    ClientId, HostId, PeerPin, Timestamp, limits::PASSED_ON_BYTES_MIN, pool::ContentHash,
};

use trees::{Place, Trees};

/// Bytes of content kept for agents that come later. What was used longest ago goes first; content larger than this
/// is passed on and not kept.
const KEPT_BYTES_MAX: usize = 256 << 20;

/// Content on its way and content kept.
#[derive(Debug, Default)]
pub(crate) struct Contents {
    fetches: BTreeMap<ContentHash, Fetch>,
    kept: BTreeMap<ContentHash, Kept>,
    trees: Trees,
    /// Counts uses, to tell which was last.
    clock: u64,
}

#[derive(Debug)]
struct Fetch {
    /// The client that was asked.
    asked: ClientId,
    waiting: Vec<Waiting>,
}

#[derive(Clone, Copy, Debug)]
struct Waiting {
    asker: Asker,
    /// From no other agent.
    directly: bool,
}

#[derive(Debug)]
struct Kept {
    bytes: Bytes,
    used: u64,
}

/// An agent that needs content, and the client that should have it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Asker {
    pub(crate) host: HostId,
    pub(crate) session: SessionNo,
    pub(crate) client: ClientId,
}

/// What is to be said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// Ask a client.
    Ask(ClientId, ContentHash),
    /// Tell an agent; no bytes when it cannot be had.
    Give(Asker, ContentHash, Bytes),
    /// Tell an agent to pass it on.
    PassOn {
        host: HostId,
        session: SessionNo,
        hash: ContentHash,
        bytes: u64,
        peers: Vec<PeerPin>,
    },
    /// Tell an agent to get it from another.
    FetchFrom {
        asker: Asker,
        hash: ContentHash,
        bytes: u64,
        addresses: Vec<SocketAddr>,
        pin: PeerPin,
    },
}

impl Contents {
    pub(crate) fn on_fetch(
        &mut self,
        asker: Asker,
        hash: ContentHash,
        again: bool,
        now: Timestamp,
    ) -> Vec<Step> {
        if again {
            self.trees.on_failed(asker, hash, now);
            return self.give(asker, hash, true).into_iter().collect();
        }
        if let Some(kept) = self
            .kept
            .get(&hash)
            .filter(|kept| is_passed_on(&kept.bytes))
        {
            self.trees.plant(hash, size(&kept.bytes));
        }
        match self.trees.place(asker, hash, now) {
            Place::Below(parent) => self.trees.announce(hash, &[(asker, parent)]),
            Place::Root => {
                let directly = self.trees.is_planted(hash);
                self.give(asker, hash, directly).into_iter().collect()
            }
        }
    }

    /// A client sent content. Empty: it does not have it. Unasked: nobody wants it.
    pub(crate) fn on_content(
        &mut self,
        client: ClientId,
        hash: ContentHash,
        bytes: Bytes,
        now: Timestamp,
    ) -> Vec<Step> {
        let Some(fetch) = self.fetches.remove(&hash) else {
            return Vec::new();
        };
        if fetch.asked != client {
            self.fetches.insert(hash, fetch);
            return Vec::new();
        }
        if bytes.is_empty() {
            return self.give_up(client, hash, fetch.waiting);
        }
        self.keep(hash, bytes.clone());
        self.hand_out(hash, &bytes, fetch.waiting, now)
    }

    /// What this client was asked for and has not brought.
    pub(crate) fn asked_of(&self, client: ClientId) -> Vec<ContentHash> {
        let theirs = self
            .fetches
            .iter()
            .filter(|(_, fetch)| fetch.asked == client);
        theirs.map(|(hash, _)| *hash).collect()
    }

    /// Clients that were asked for something and have not brought it.
    pub(crate) fn asked(&self) -> Vec<ClientId> {
        self.fetches.values().map(|fetch| fetch.asked).collect()
    }

    /// A client has gone and does not come back.
    pub(crate) fn on_client_gone(&mut self, client: ClientId) -> Vec<Step> {
        self.trees.on_client_gone(client);
        let asked = self.asked_of(client);
        let gone = |hash| {
            let fetch = self.fetches.remove(&hash);
            fetch.map(|fetch| self.give_up(client, hash, fetch.waiting))
        };
        asked.into_iter().filter_map(gone).flatten().collect()
    }

    /// An agent has registered; with a pin it can pass content on.
    pub(crate) fn on_agent(
        &mut self,
        host: HostId,
        session: SessionNo,
        pin: Option<PeerPin>,
        ip: Option<IpAddr>,
    ) {
        self.trees.on_agent(host, session, pin, ip);
    }

    pub(crate) fn on_agent_gone(&mut self, host: HostId, session: SessionNo) -> Vec<Step> {
        let orphans = self.trees.on_agent_gone(host, session);
        self.give_all(orphans)
    }

    /// An agent has said where these agents may come for content.
    pub(crate) fn on_passing_on(
        &mut self,
        host: HostId,
        session: SessionNo,
        hash: ContentHash,
        port: u16,
        addresses: &[IpAddr],
        peers: &[PeerPin],
    ) -> Vec<Step> {
        let (mut steps, orphans) = self
            .trees
            .on_passing_on(host, session, hash, port, addresses, peers);
        steps.extend(self.give_all(orphans));
        steps
    }

    /// When [`Self::on_time`] is to be called.
    pub(crate) fn poll_timeout(&self) -> Option<Timestamp> {
        self.trees.poll_timeout()
    }

    pub(crate) fn on_time(&mut self, now: Timestamp) -> Vec<Step> {
        let orphans = self.trees.on_time(now);
        self.give_all(orphans)
    }

    /// Everybody who waits gets it, most of them from each other.
    fn hand_out(
        &mut self,
        hash: ContentHash,
        bytes: &Bytes,
        waiting: Vec<Waiting>,
        now: Timestamp,
    ) -> Vec<Step> {
        if is_passed_on(bytes) {
            self.trees.plant(hash, size(bytes));
        }
        let (mut roots, mut placed) = (Vec::new(), Vec::new());
        for Waiting { asker, directly } in waiting {
            let place = match directly {
                true => Place::Root,
                false => self.trees.place(asker, hash, now),
            };
            match place {
                Place::Below(parent) => placed.push((asker, parent)),
                Place::Root => roots.push(asker),
            }
        }
        // The small messages first: on some carriers nothing passes what is large.
        let mut steps = self.trees.announce(hash, &placed);
        steps.extend(
            roots
                .into_iter()
                .map(|asker| Step::Give(asker, hash, bytes.clone())),
        );
        steps
    }

    fn give_all(&mut self, orphans: Vec<(Asker, ContentHash)>) -> Vec<Step> {
        let orphans = orphans.into_iter();
        orphans
            .filter_map(|(asker, hash)| self.give(asker, hash, true))
            .collect()
    }

    /// From here, as soon as it is here; `directly`: and from no other agent.
    fn give(&mut self, asker: Asker, hash: ContentHash, directly: bool) -> Option<Step> {
        self.clock += 1;
        if let Some(kept) = self.kept.get_mut(&hash) {
            kept.used = self.clock;
            return Some(Step::Give(asker, hash, kept.bytes.clone()));
        }
        let waiting = Waiting { asker, directly };
        if let Some(fetch) = self.fetches.get_mut(&hash) {
            fetch.waiting.push(waiting);
            return None;
        }
        Some(self.ask(hash, vec![waiting], asker.client))
    }

    /// Agents that counted on this client get nothing; for the others the next client is asked.
    fn give_up(&mut self, client: ClientId, hash: ContentHash, waiting: Vec<Waiting>) -> Vec<Step> {
        let (out_of_luck, others): (Vec<_>, Vec<_>) = waiting
            .into_iter()
            .partition(|waiting| waiting.asker.client == client);
        let nothing = |waiting: Waiting| Step::Give(waiting.asker, hash, Bytes::new());
        let mut steps: Vec<_> = out_of_luck.into_iter().map(nothing).collect();
        if let Some(next) = others.first().map(|waiting| waiting.asker.client) {
            steps.push(self.ask(hash, others, next));
        }
        steps
    }

    fn ask(&mut self, hash: ContentHash, waiting: Vec<Waiting>, asked: ClientId) -> Step {
        self.fetches.insert(hash, Fetch { asked, waiting });
        Step::Ask(asked, hash)
    }

    fn keep(&mut self, hash: ContentHash, bytes: Bytes) {
        if bytes.len() > KEPT_BYTES_MAX {
            return;
        }
        self.kept.insert(
            hash,
            Kept {
                bytes,
                used: self.clock,
            },
        );
        while self
            .kept
            .values()
            .map(|kept| kept.bytes.len())
            .sum::<usize>()
            > KEPT_BYTES_MAX
        {
            let oldest = self
                .kept
                .iter()
                .min_by_key(|(_, kept)| kept.used)
                .map(|(hash, _)| *hash);
            oldest.and_then(|hash| self.kept.remove(&hash));
        }
    }
}

fn is_passed_on(bytes: &Bytes) -> bool {
    bytes.len() >= PASSED_ON_BYTES_MIN
}

fn size(bytes: &Bytes) -> u64 {
    u64::try_from(bytes.len()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
