//! The way to the owning task, for those who bring sessions.

use std::{collections::BTreeMap, path::PathBuf, sync::Arc, time::Duration};

use fleetpool_coordinator_core as core;
use fleetpool_net::{Closed, Incoming, Peer, Session};
use fleetpool_proto::{
    ClientId, HostId, PoolId, Role,
    limits::{CLIENT_GRACE_LEASES, LEASE},
    version::{Hello, Welcome},
};
use tokio::sync::{mpsc, oneshot};

use super::{
    full::{FULL, Standstill},
    owner::{Input, Owner},
    sessions::Place,
};
use crate::{
    access::Access,
    journal::{Folder, JournalError},
};

/// Inputs that wait for the owning task before those who bring them wait.
const INBOX_MAX: usize = 1024;

/// What a coordinator may be told differently.
#[derive(Clone, Debug)]
pub struct Options {
    /// Name of the cluster.
    pub cluster: String,
    /// Starts of this coordinator so far: keeps ids of its lives apart.
    pub epoch: u64,
    /// How long an agent may use its slots after it sent the renewal that was answered.
    pub lease: Duration,
    /// After this long without a word from a host, tasks that may not be rerun are given up as `Unknown`.
    pub lost_after: Duration,
    /// A bug planted on purpose, so that the tests can be shown to find it.
    #[cfg(feature = "planted-bugs")]
    pub planted: Option<core::PlantedBug>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            cluster: "local".to_owned(),
            epoch: 1,
            lease: LEASE,
            lost_after: core::Options::default().lost_after,
            #[cfg(feature = "planted-bugs")]
            planted: None,
        }
    }
}

impl Options {
    /// How long a client whose session is lost is waited for.
    pub(crate) fn client_grace(&self) -> Duration {
        self.lease * CLIENT_GRACE_LEASES
    }

    pub(crate) fn for_core(&self, durable: bool) -> core::Options {
        core::Options {
            durable,
            lease: self.lease,
            lost_after: self.lost_after,
            #[cfg(feature = "planted-bugs")]
            planted: self.planted,
            epoch: self.epoch,
            client_grace: self.client_grace(),
            ..core::Options::default()
        }
    }
}

/// Why a peer is sent away: a sentence for it that says what to do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{reason}")]
pub struct Refused {
    /// The sentence.
    pub reason: String,
}

/// A peer's admission: what it is to be told, before its session is handed in.
#[derive(Debug)]
pub struct Ticket {
    /// For the peer.
    pub welcome: Welcome,
    pub(crate) place: Place,
}

/// Runs a coordinator on the current tokio runtime, without listening: sessions are brought to it.
#[must_use]
pub fn start(options: Options) -> Handle {
    let (inbox, inputs) = mpsc::channel(INBOX_MAX);
    let (failure, _) = oneshot::channel();
    let owner = Owner::new(options, None, inbox.downgrade(), failure);
    let standstill = Arc::clone(&owner.standstill);
    tokio::spawn(owner.run(inputs));
    Handle { inbox, standstill }
}

/// [`start`], with a registry and tokens to answer questions about, and a journal that says what was. The receiver hears why the
/// coordinator cannot go on.
pub(crate) fn start_durable(
    options: Options,
    access: Arc<Access>,
    folder: Folder,
    jobs: PathBuf,
) -> Result<(Handle, oneshot::Receiver<String>), JournalError> {
    let (inbox, inputs) = mpsc::channel(INBOX_MAX);
    let (failure, failed) = oneshot::channel();
    let mut owner = Owner::new(options, Some(access), inbox.downgrade(), failure);
    let hears = inbox.downgrade();
    let told = move |synced| {
        let inbox = hears.upgrade();
        inbox.is_some_and(|inbox| inbox.blocking_send(Input::Synced(synced)).is_ok())
    };
    owner.recover(folder, jobs, Box::new(told))?;
    let standstill = Arc::clone(&owner.standstill);
    tokio::spawn(owner.run(inputs));
    Ok((Handle { inbox, standstill }, failed))
}

/// Reaches a running coordinator. It runs until the last handle is dropped and the last session has ended, or until
/// [`Handle::stop`].
#[derive(Clone, Debug)]
pub struct Handle {
    inbox: mpsc::Sender<Input>,
    standstill: Arc<Standstill>,
}

impl Handle {
    /// Serves a session of a peer that is in this process and knows it; what a remote one is told goes through
    /// [`Handle::admit`] and [`Handle::serve`].
    ///
    /// # Errors
    /// When the peer is sent away.
    pub async fn attach(&self, session: Session, hello: Hello) -> Result<Welcome, Refused> {
        let ticket = self.admit(session.peer.clone(), hello).await?;
        let welcome = ticket.welcome.clone();
        self.serve(ticket, session).await;
        Ok(welcome)
    }

    /// Finds a place for an authenticated peer. Nothing is held for it until its session is handed in.
    ///
    /// # Errors
    /// When the peer is sent away.
    pub async fn admit(&self, peer: Peer, hello: Hello) -> Result<Ticket, Refused> {
        if self.standstill.stands() && is_new_client(&peer, &hello) {
            let reason = format!("{FULL}, and it goes on by itself");
            return Err(Refused { reason });
        }
        let (reply, answer) = oneshot::channel();
        self.send(Input::Admit { peer, hello, reply }).await;
        answer.await.unwrap_or_else(|_| Err(stopped()))
    }

    /// Serves the session of a peer that has its welcome.
    pub async fn serve(&self, ticket: Ticket, session: Session) {
        let place = ticket.place;
        let inbox = self.inbox.clone();
        self.send(Input::Open {
            place,
            session,
            inbox,
        })
        .await;
    }

    /// Serves a peer that is proved and has said Hello; it is told what becomes of it. Returns what it was told.
    ///
    /// # Errors
    /// When it is sent away, or has left meanwhile.
    pub async fn introduce(&self, incoming: Incoming) -> Result<Welcome, Refused> {
        let admitted = self.admit(incoming.peer.clone(), incoming.hello.clone());
        let ticket = match admitted.await {
            Ok(ticket) => ticket,
            Err(refused) => {
                incoming.refuse(&refused.reason).await;
                return Err(refused);
            }
        };
        let left = |closed: Closed| Refused {
            reason: format!("it left before it was welcomed: {closed}"),
        };
        let welcome = ticket.welcome.clone();
        let session = incoming.welcome(welcome.clone()).await;
        self.serve(ticket, session.map_err(left)?).await;
        Ok(welcome)
    }

    /// Closes every session of that identity, with this reason. The registry must not let it in again by then.
    pub async fn expel(&self, identity: &str, reason: &str) {
        let (identity, reason) = (identity.to_owned(), reason.to_owned());
        self.send(Input::Expel { identity, reason }).await;
    }

    /// How often each event came and each action was taken, by name.
    pub async fn counters(&self) -> BTreeMap<String, u64> {
        let (reply, answer) = oneshot::channel();
        self.send(Input::Counters { reply }).await;
        answer.await.unwrap_or_default()
    }

    /// Tells every peer goodbye and ends; returns when that has been done.
    pub async fn stop(&self, reason: &str) {
        let (done, ended) = oneshot::channel();
        let reason = reason.to_owned();
        self.standstill.tell_end();
        self.send(Input::Stop { reason, done }).await;
        // An error says that it had stopped before.
        ended.await.ok();
    }

    async fn send(&self, input: Input) {
        // A coordinator that has stopped takes nothing; whoever waits for an answer sees that it never comes.
        self.inbox.send(input).await.ok();
    }
}

/// Whether nothing of it is here: agents, and clients that come back, wait by dialling again.
fn is_new_client(peer: &Peer, hello: &Hello) -> bool {
    let client = matches!(peer.role, Role::User | Role::Admin);
    client && hello.resume.is_none() && hello.lifeline.is_none()
}

fn stopped() -> Refused {
    Refused {
        reason: "the coordinator is stopping: try again when it is back".to_owned(),
    }
}

/// First id of a client in the coordinator's life of that number: ids of two lives differ.
pub(crate) fn first_client(epoch: u64) -> u64 {
    (epoch.saturating_sub(1) << 26) + 1
}

/// Pool numbers that a client may use: from its first, this many.
pub(crate) const POOLS_PER_CLIENT: u64 = 1 << 16;

/// First pool number of a client. Stays below 2^53, where programs that read JSON lose digits, for 2,048 starts of
/// 67 million clients each.
pub(crate) fn pools_from(client: ClientId) -> PoolId {
    PoolId(client.0 * POOLS_PER_CLIENT)
}

/// What an agent is told.
pub(crate) fn agent_welcome(base: Welcome, host: HostId, lease: Duration) -> Welcome {
    let lease_ms = u64::try_from(lease.as_millis()).unwrap_or(u64::MAX);
    Welcome {
        host,
        lease_ms,
        ..base
    }
}
