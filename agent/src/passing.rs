//! Content that agents pass on to each other, as the coordinator arranges it.
//!
//! For each content that is fetched from another agent, or passed on to others, one task, its *flow*, owns the bytes as they
//! come and the connections of both sides. The shell tells flows what the coordinator has said and hears what came of it.
//! Whatever does not work here is told, and asked of the coordinator then: nothing depends on agents reaching each other.

mod flow;
mod guest;
mod source;

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::File,
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use fleetpool_net::pinned::PinnedKey;
use fleetpool_proto::{PeerPin, limits::PASSING_ADDRESSES_MAX, pool::ContentHash};
use nix::{ifaddrs::getifaddrs, net::if_::InterfaceFlags};
use tokio::sync::mpsc;

use flow::Flow;

use crate::content::Held;

/// Longest piece on a connection between agents, in bytes. A longer one ends it.
const PIECE_BYTES_MAX: usize = 64 << 10;
/// What stands before each piece: its length. 0 says that whoever sends is there and has nothing yet.
const HEAD_BYTES: usize = 4;

/// What a flow is to do.
#[derive(Debug)]
enum Order {
    /// Get the content from the agent of that pin.
    Fetch(Vec<SocketAddr>, PeerPin),
    /// Pass it on to these.
    PassOn(Vec<PeerPin>),
    /// Here it is, checked, and how large.
    Here(Held, usize),
    /// This host does not need it any more.
    Unneeded,
}

/// What has become of content.
#[derive(Debug)]
pub(crate) enum Passed {
    /// It has come, so many bytes in a file without a name, and is what its hash says.
    Came(ContentHash, Arc<File>, usize),
    /// The other agent does not deliver it.
    Failed(ContentHash, String),
    /// These agents may come for it to this port; 0: they may not.
    Port(ContentHash, u16, Vec<PeerPin>),
}

/// All flows of an agent.
#[derive(Debug)]
pub(crate) struct Passing {
    /// `None`: this agent takes no part.
    key: Option<Arc<PinnedKey>>,
    flows: BTreeMap<ContentHash, mpsc::UnboundedSender<Order>>,
    /// What another agent is to deliver, until it has come or the shell has been told that it does not.
    awaited: BTreeSet<ContentHash>,
    /// Flows tell little: a word or two for each order.
    told: mpsc::UnboundedSender<Passed>,
    inbox: mpsc::UnboundedReceiver<Passed>,
}

impl Default for Passing {
    fn default() -> Self {
        let (told, inbox) = mpsc::unbounded_channel();
        Self {
            key: None,
            flows: BTreeMap::new(),
            awaited: BTreeSet::new(),
            told,
            inbox,
        }
    }
}

impl Passing {
    /// From now on this agent takes part. What others are to know it by.
    pub(crate) fn take_part(&mut self) -> Option<PeerPin> {
        let made = PinnedKey::new().inspect_err(
            |error| tracing::warn!(%error, "content is not passed on: there is no key for it"),
        );
        self.key = made.ok().map(Arc::new);
        Some(self.key.as_ref()?.pin())
    }

    /// Cancel-safe.
    pub(crate) async fn next(&mut self) -> Passed {
        let next = self.inbox.recv().await;
        let next = next.expect("this end keeps a sender");
        if let Passed::Came(hash, ..) | Passed::Failed(hash, _) = &next {
            self.awaited.remove(hash);
        }
        next
    }

    /// Whether another agent is to deliver it, so that there will be word of it without a question.
    pub(crate) fn is_awaited(&self, hash: ContentHash) -> bool {
        self.awaited.contains(&hash)
    }

    /// Whether it is on its way through this host: from or to another agent.
    pub(crate) fn is_flowing(&self, hash: ContentHash) -> bool {
        self.flows.get(&hash).is_some_and(|flow| !flow.is_closed())
    }

    /// Gets content from another agent.
    pub(crate) fn fetch(
        &mut self,
        hash: ContentHash,
        bytes: u64,
        mut addresses: Vec<SocketAddr>,
        pin: PeerPin,
    ) {
        addresses.truncate(PASSING_ADDRESSES_MAX);
        self.awaited.insert(hash);
        let failed = Passed::Failed(hash, "this agent takes no part in that".to_owned());
        self.order(hash, bytes, Order::Fetch(addresses, pin), failed);
    }

    /// Passes content on that is `here`, or will be.
    pub(crate) fn pass_on(
        &mut self,
        hash: ContentHash,
        bytes: u64,
        peers: Vec<PeerPin>,
        here: Option<(Held, usize)>,
    ) {
        let otherwise = Passed::Port(hash, 0, peers.clone());
        self.order(hash, bytes, Order::PassOn(peers), otherwise);
        if let Some((held, len)) = here {
            self.is_here(hash, held, len);
        }
    }

    /// Content is here, checked, wherever it came from.
    pub(crate) fn is_here(&mut self, hash: ContentHash, held: Held, len: usize) {
        self.awaited.remove(&hash);
        if let Some(flow) = self.flows.get(&hash) {
            let _ = flow.send(Order::Here(held, len));
        }
    }

    /// This host's pools need no content any more but this.
    pub(crate) fn keep_only(&mut self, needed: impl Fn(ContentHash) -> bool) {
        self.awaited.retain(|hash| needed(*hash));
        self.flows.retain(|hash, flow| {
            if !needed(*hash) {
                let _ = flow.send(Order::Unneeded);
            }
            !flow.is_closed()
        });
    }

    fn order(&mut self, hash: ContentHash, bytes: u64, order: Order, otherwise: Passed) {
        self.flows.retain(|_, flow| !flow.is_closed());
        let (Some(key), Ok(bytes)) = (&self.key, usize::try_from(bytes)) else {
            let _ = self.told.send(otherwise);
            return;
        };
        let flow = self.flows.entry(hash).or_insert_with(|| {
            let (orders, inbox) = mpsc::unbounded_channel();
            let flow = Flow::new(hash, bytes, Arc::clone(key), self.told.clone());
            tokio::spawn(flow.run(inbox));
            orders
        });
        if flow.send(order).is_err() {
            let _ = self.told.send(otherwise);
        }
    }
}

/// Where others may reach this host, the likeliest first: what ssh came to, then what its interfaces have.
pub(crate) fn addresses() -> Vec<IpAddr> {
    let by_ssh = std::env::var("SSH_CONNECTION").unwrap_or_default();
    let mut found: Vec<IpAddr> = ssh_server(&by_ssh).into_iter().collect();
    let interfaces = getifaddrs().into_iter().flatten();
    let up = interfaces.filter(|interface| {
        let flags = interface.flags;
        flags.contains(InterfaceFlags::IFF_UP) && !flags.contains(InterfaceFlags::IFF_LOOPBACK)
    });
    for address in up.filter_map(|interface| interface.address) {
        let v4 = address.as_sockaddr_in().map(|at| IpAddr::from(at.ip()));
        let v6 = || address.as_sockaddr_in6().map(|at| IpAddr::from(at.ip()));
        found.extend(v4.or_else(v6).filter(is_global_enough));
    }
    let mut seen = BTreeSet::new();
    found.retain(|address| seen.insert(*address));
    found.truncate(PASSING_ADDRESSES_MAX);
    found
}

/// The third word of `client port server port`.
fn ssh_server(connection: &str) -> Option<IpAddr> {
    connection.split_whitespace().nth(2)?.parse().ok()
}

/// Addresses of one link alone need more than themselves to be reached.
fn is_global_enough(address: &IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => !address.is_link_local() && !address.is_loopback(),
        IpAddr::V6(address) => !address.is_unicast_link_local() && !address.is_loopback(),
    }
}

#[cfg(test)]
mod tests;
