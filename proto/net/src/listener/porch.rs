//! Where peers stand until they have shown who they are.
//!
//! At most [`STRANGERS_MAX`] stand here, and [`HANDSHAKES_MAX`] of them have their turn at a handshake. A turn
//! bounds the work, not the wait: who lets others wait loses it and goes on without. All are gone after
//! [`JOIN_TIME_MAX`] unless they are known by then.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use fleetpool_proto::{
    Message as _, Role,
    join::{FromStranger, ToStranger},
    limits::{CONNECT_TIME_MAX, HANDSHAKES_MAX, JOIN_TIME_MAX, STRANGERS_MAX},
};
use rustls_pki_types::CertificateDer;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, mpsc},
    time::timeout,
};

use super::Gatekeeper;
use crate::{
    hello::{self, Incoming},
    identity::{Facts, verify::plain},
    peer::{Carrier, Peer},
    session::{Receiver, Sender, Session},
};

/// How long a handshake may keep others from theirs. On a local network it takes a few milliseconds.
const TURN_TIME_MAX: Duration = Duration::from_millis(100);
/// Strangers from which on addresses have to prove that they are real, where the carrier has a way.
const CROWD: usize = 64;

pub(super) struct Porch {
    gatekeeper: Arc<dyn Gatekeeper>,
    ready: mpsc::Sender<Incoming>,
    places: Arc<Semaphore>,
    turns: Semaphore,
}

/// A connection whose handshake is done: whoever is there may have shown a certificate.
pub(super) struct Arrival {
    pub(super) sender: Sender,
    pub(super) receiver: Receiver,
    pub(super) carrier: Carrier,
    pub(super) address: String,
    pub(super) certificate: Option<CertificateDer<'static>>,
}

impl Porch {
    pub(super) fn new(gatekeeper: Arc<dyn Gatekeeper>, ready: mpsc::Sender<Incoming>) -> Arc<Self> {
        Arc::new(Self {
            gatekeeper,
            ready,
            places: Arc::new(Semaphore::new(STRANGERS_MAX)),
            turns: Semaphore::new(HANDSHAKES_MAX),
        })
    }

    /// A place to stand; waits while there is none.
    pub(super) async fn place(&self) -> OwnedSemaphorePermit {
        let place = Arc::clone(&self.places).acquire_owned().await;
        place.expect("the semaphore is never closed")
    }

    pub(super) fn is_crowded(&self) -> bool {
        self.places.available_permits() + CROWD < STRANGERS_MAX
    }

    /// Does a handshake, in turn and in time.
    pub(super) async fn shake_hands<T>(
        &self,
        handshake: impl Future<Output = Option<T>>,
    ) -> Option<T> {
        let turn = self.turns.acquire().await;
        let handshake = timeout(JOIN_TIME_MAX, handshake);
        tokio::pin!(handshake);
        if let Ok(done) = timeout(TURN_TIME_MAX, &mut handshake).await {
            return done.ok()?;
        }
        drop(turn);
        handshake.await.ok()?
    }

    /// Finds out who has come, and lets them in, lets them join, or neither.
    pub(super) async fn receive(&self, arrival: Arrival) {
        let Some(certificate) = &arrival.certificate else {
            return self.receive_stranger(arrival).await;
        };
        match Facts::read(certificate) {
            Ok(facts) => {
                let Arrival {
                    sender,
                    receiver,
                    carrier,
                    address,
                    ..
                } = arrival;
                let peer = Peer {
                    role: facts.name.role,
                    name: facts.name.id.clone(),
                    id: facts.name.id,
                    carrier,
                    address,
                    key: Some(facts.key),
                };
                let may_be = hello::may_be(peer.role);
                let session = Session {
                    peer,
                    sender,
                    receiver,
                };
                self.receive_known(session, may_be).await;
            }
            // The handshake has read it before: this cannot fail here, and must not let anybody in if it does.
            Err(problem) => arrival.sender.close(&problem.to_string()),
        }
    }

    /// Reads the Hello of a peer that is proved, and may be one of these.
    pub(super) async fn receive_known(&self, session: Session, may_be: &[Role]) {
        let admit = |peer: &Peer| self.gatekeeper.admit(peer);
        if let Some(incoming) = hello::receive(session, may_be, admit).await {
            // A coordinator that is too busy to look loses a peer that would not wait longer either.
            let _ = self.ready.send_timeout(incoming, CONNECT_TIME_MAX).await;
        }
    }

    async fn receive_stranger(&self, mut arrival: Arrival) {
        let answer = match timeout(JOIN_TIME_MAX, arrival.receiver.recv()).await {
            Ok(Ok(frame)) => match FromStranger::from_frame(frame) {
                Ok(FromStranger::Join(request)) => self.join(request, &arrival.address).await,
                Err(_) => refused(
                    "a certificate of this cluster is needed for everything but joining it with a token",
                ),
            },
            Ok(Err(_)) => return,
            Err(_) => refused("nothing was said in time"),
        };
        let reason = match &answer {
            ToStranger::Issued { .. } => "joined".to_owned(),
            ToStranger::Refused { reason } => reason.clone(),
        };
        // A stranger that is gone need not be told.
        let _ = arrival.sender.send(answer.into_frame()).await;
        arrival.sender.close(&reason);
    }

    async fn join(&self, request: fleetpool_proto::join::JoinRequest, address: &str) -> ToStranger {
        let gatekeeper = Arc::clone(&self.gatekeeper);
        let address = address.to_owned();
        // The registry goes to the disk before a certificate goes out.
        let asked = tokio::task::spawn_blocking(move || gatekeeper.join(request, &address));
        match asked.await {
            Ok(Ok(issued)) => ToStranger::Issued {
                cert: issued.cert.into(),
                ca: issued.ca.into(),
            },
            Ok(Err(reason)) => ToStranger::Refused { reason },
            Err(_) => refused("the coordinator failed to decide: its log says why"),
        }
    }
}

fn refused(reason: &str) -> ToStranger {
    ToStranger::Refused {
        reason: reason.to_owned(),
    }
}

/// Logs a handshake that came to nothing.
pub(super) fn failed(carrier: &str, address: SocketAddr, why: &str) {
    let why = plain(why);
    tracing::info!(carrier, %address, why, "handshake failed");
}
