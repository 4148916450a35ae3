//! Listening: every socket of a coordinator, and what happens to a peer until it is known.
//!
//! [`bind`] makes the sockets; `quic`, `tcp` and `unix` accept on them; [`porch`] is where peers stand until
//! they have shown who they are. What comes out of [`Listener::accept`] has a certificate of this cluster (or the
//! same user, on a Unix socket), has said Hello and was admitted by the [`Gatekeeper`]. A peer without a
//! certificate can join, and nothing else.

mod bind;
mod porch;
mod quic;
mod tcp;
mod unix;

use std::{io, net::SocketAddr, sync::Arc};

use fleetpool_proto::{join::JoinRequest, limits::ACCEPT_QUEUE};
use tokio::{sync::mpsc, task::JoinSet};

use crate::{
    address::Address,
    hello::Incoming,
    identity::{IdentityError, Issued, ServerIdentity},
    peer::Peer,
};
use porch::Porch;

/// Decides who may come in. Called for each peer, so it must be quick; [`join`](Self::join) may take its time.
pub trait Gatekeeper: Send + Sync + 'static {
    /// Whether a peer that has proved who it is may have a session: it is in the registry and not revoked.
    ///
    /// # Errors
    /// A sentence for the peer.
    fn admit(&self, peer: &Peer) -> Result<(), String>;

    /// Whether a stranger gets a certificate, and which.
    ///
    /// # Errors
    /// A sentence for the stranger.
    fn join(&self, request: JoinRequest, address: &str) -> Result<Issued, String>;
}

/// Why nobody can be listened to.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BindError {
    /// Somebody else has the address.
    #[error(
        "{address} is in use: another coordinator? Stop it, or give this one another address with --listen"
    )]
    InUse {
        /// Which.
        address: String,
    },
    /// The address is not one of this host.
    #[error("cannot listen on {address}: {error}")]
    Io {
        /// Which.
        address: String,
        /// What the operating system said.
        error: io::Error,
    },
    /// The identity does not do.
    #[error(transparent)]
    Identity(#[from] IdentityError),
}

/// The sockets of a coordinator. Dropping it stops listening; sessions go on.
#[derive(Debug)]
pub struct Listener {
    incoming: mpsc::Receiver<Incoming>,
    addresses: Vec<Address>,
    /// Ends with the listener.
    _tasks: JoinSet<()>,
}

impl Listener {
    /// Listens on every address: UDP and TCP of the same port, or a Unix socket. Port 0 takes a free one.
    /// Must be called within a tokio runtime.
    ///
    /// # Errors
    /// When an address cannot be had, or the identity cannot be a coordinator's.
    pub fn bind(
        addresses: &[Address],
        server: ServerIdentity,
        gatekeeper: Arc<dyn Gatekeeper>,
    ) -> Result<Self, BindError> {
        let tls = crate::tls::server(&server)?;
        let (ready, incoming) = mpsc::channel(ACCEPT_QUEUE);
        let porch = Porch::new(gatekeeper, ready);
        let mut tasks = JoinSet::new();
        let mut bound = Vec::new();
        for address in addresses {
            let failed = |error| bind::explain(address, error);
            match address {
                Address::Tcp(host_port) => {
                    let sockets = bind::both(host_port).map_err(failed)?;
                    bound.push(Address::Tcp(sockets.address.to_string()));
                    let endpoint =
                        crate::transport::listen(sockets.udp, Arc::clone(&tls), server.endpoint);
                    tasks.spawn(quic::serve(endpoint.map_err(failed)?, Arc::clone(&porch)));
                    tasks.spawn(tcp::serve(
                        sockets.tcp,
                        Arc::clone(&tls),
                        Arc::clone(&porch),
                    ));
                }
                Address::Unix(path) => {
                    let socket = bind::unix(path).map_err(failed)?;
                    bound.push(address.clone());
                    tasks.spawn(unix::serve(socket, Arc::clone(&porch)));
                }
            }
        }
        Ok(Self {
            incoming,
            addresses: bound,
            _tasks: tasks,
        })
    }

    /// The next peer to be welcomed or refused. Cancel-safe.
    pub async fn accept(&mut self) -> Incoming {
        match self.incoming.recv().await {
            Some(incoming) => incoming,
            // Only a listener without addresses has nobody who could send.
            None => std::future::pending().await,
        }
    }

    /// The addresses that are listened on, with their real ports.
    #[must_use]
    pub fn addresses(&self) -> &[Address] {
        &self.addresses
    }

    /// The first address with a port, if there is one.
    #[must_use]
    pub fn local_addr(&self) -> Option<SocketAddr> {
        self.addresses.iter().find_map(|address| match address {
            Address::Tcp(host_port) => host_port.parse().ok(),
            Address::Unix(_) => None,
        })
    }
}
