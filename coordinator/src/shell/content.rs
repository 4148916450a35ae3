//! Content by hash (programs, mostly): fetched from a client once, however many agents ask at once, and kept while
//! there is room.
//!
//! Pure: told who asks, who answers and who left, it says whom to ask and whom to give. The reader of a client's
//! session has already checked that content is what its hash says.

use std::collections::BTreeMap;

use bytes::Bytes;
use fleetpool_coordinator_core::SessionNo;
use fleetpool_proto::{ClientId, HostId, pool::ContentHash};

/// Bytes of content kept for agents that come later. What was used longest ago goes first; content larger than this
/// is passed on and not kept.
const KEPT_BYTES_MAX: usize = 256 << 20;

/// Content on its way and content kept.
#[derive(Debug, Default)]
pub(crate) struct Contents {
    fetches: BTreeMap<ContentHash, Fetch>,
    kept: BTreeMap<ContentHash, Kept>,
    /// Counts uses, to tell which was last.
    clock: u64,
}

#[derive(Debug)]
struct Fetch {
    /// The client that was asked.
    asked: ClientId,
    waiting: Vec<Asker>,
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
}

impl Contents {
    pub(crate) fn on_fetch(&mut self, asker: Asker, hash: ContentHash) -> Option<Step> {
        self.clock += 1;
        if let Some(kept) = self.kept.get_mut(&hash) {
            kept.used = self.clock;
            return Some(Step::Give(asker, hash, kept.bytes.clone()));
        }
        if let Some(fetch) = self.fetches.get_mut(&hash) {
            fetch.waiting.push(asker);
            return None;
        }
        Some(self.ask(hash, vec![asker], asker.client))
    }

    /// A client sent content. Empty: it does not have it. Unasked: nobody wants it.
    pub(crate) fn on_content(
        &mut self,
        client: ClientId,
        hash: ContentHash,
        bytes: Bytes,
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
        let give = |asker| Step::Give(asker, hash, bytes.clone());
        fetch.waiting.into_iter().map(give).collect()
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

    pub(crate) fn on_client_gone(&mut self, client: ClientId) -> Vec<Step> {
        self.asked_of(client)
            .into_iter()
            .flat_map(|hash| self.on_content(client, hash, Bytes::new()))
            .collect()
    }

    /// Agents that counted on this client get nothing; for the others the next client is asked.
    fn give_up(&mut self, client: ClientId, hash: ContentHash, waiting: Vec<Asker>) -> Vec<Step> {
        let (out_of_luck, others): (Vec<_>, Vec<_>) = waiting
            .into_iter()
            .partition(|asker| asker.client == client);
        let nothing = |asker| Step::Give(asker, hash, Bytes::new());
        let mut steps: Vec<_> = out_of_luck.into_iter().map(nothing).collect();
        if let Some(next) = others.first().map(|asker| asker.client) {
            steps.push(self.ask(hash, others, next));
        }
        steps
    }

    fn ask(&mut self, hash: ContentHash, waiting: Vec<Asker>, asked: ClientId) -> Step {
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

#[cfg(test)]
mod tests {
    use super::*;

    const HASH: ContentHash = ContentHash([1; 32]);
    const ALICE: ClientId = ClientId(1);
    const BOB: ClientId = ClientId(2);

    fn asker(host: u32, client: ClientId) -> Asker {
        Asker {
            host: HostId(host),
            session: u64::from(host),
            client,
        }
    }

    #[test]
    fn many_agents_cause_one_fetch_and_later_ones_none() {
        let mut contents = Contents::default();
        assert_eq!(
            contents.on_fetch(asker(1, ALICE), HASH),
            Some(Step::Ask(ALICE, HASH))
        );
        assert_eq!(contents.on_fetch(asker(2, ALICE), HASH), None);
        let bytes = Bytes::from_static(b"program");
        let give = |host, client| Step::Give(asker(host, client), HASH, bytes.clone());
        assert_eq!(
            contents.on_content(ALICE, HASH, bytes.clone()),
            [give(1, ALICE), give(2, ALICE)]
        );
        assert_eq!(contents.on_fetch(asker(3, BOB), HASH), Some(give(3, BOB)));
    }

    #[test]
    fn when_the_client_is_gone_its_agents_get_nothing_and_the_next_client_is_asked() {
        let mut contents = Contents::default();
        contents.on_fetch(asker(1, ALICE), HASH);
        contents.on_fetch(asker(2, BOB), HASH);
        let steps = contents.on_client_gone(ALICE);
        assert_eq!(
            steps,
            [
                Step::Give(asker(1, ALICE), HASH, Bytes::new()),
                Step::Ask(BOB, HASH)
            ]
        );
        assert_eq!(
            contents.on_client_gone(BOB),
            [Step::Give(asker(2, BOB), HASH, Bytes::new())]
        );
        assert_eq!(contents.on_client_gone(BOB), []);
    }

    #[test]
    fn what_a_client_was_asked_for_is_known_until_it_comes() {
        let mut contents = Contents::default();
        contents.on_fetch(asker(1, ALICE), HASH);
        assert_eq!(
            (contents.asked_of(ALICE), contents.asked_of(BOB)),
            (vec![HASH], vec![])
        );
        contents.on_content(ALICE, HASH, Bytes::from_static(b"program"));
        assert_eq!(contents.asked_of(ALICE), []);
    }

    #[test]
    fn content_that_another_client_sends_is_not_taken() {
        let mut contents = Contents::default();
        contents.on_fetch(asker(1, ALICE), HASH);
        assert_eq!(
            contents.on_content(BOB, HASH, Bytes::from_static(b"program")),
            []
        );
        assert_eq!(
            contents
                .on_content(ALICE, HASH, Bytes::from_static(b"program"))
                .len(),
            1
        );
    }

    #[test]
    fn what_was_used_longest_ago_makes_room() {
        let mut contents = Contents::default();
        let half = Bytes::from(vec![0; KEPT_BYTES_MAX / 2]);
        for hash in [1, 2, 3] {
            let hash = ContentHash([hash; 32]);
            contents.on_fetch(asker(1, ALICE), hash);
            contents.on_content(ALICE, hash, half.clone());
            contents.on_fetch(asker(1, ALICE), ContentHash([1; 32]));
        }
        let kept: Vec<_> = contents.kept.keys().map(|hash| hash.0[0]).collect();
        assert_eq!(kept, [1, 3]);
    }
}
