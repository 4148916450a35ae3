//! A coordinator for many hosts: the owning task, with a door in front of it.

use std::{fs::File, path::PathBuf, sync::Arc, time::Duration};

#[cfg(feature = "planted-bugs")]
use fleetpool_coordinator_core::PlantedBug;
use fleetpool_net::{Address, BindError, Gatekeeper as _, Incoming, Listener};
use tokio::{
    sync::oneshot,
    time::{MissedTickBehavior, interval},
};

use crate::{
    access::Access,
    journal::{Folder, JournalError},
    shell::{Handle, Options, start_durable, wall_s},
    state::{State, StateError},
};

/// The journal's folder, in the coordinator's.
const JOURNAL_DIR: &str = "journal";
/// The folder with what detached jobs returned and printed.
const JOBS_DIR: &str = "jobs";
/// How often sessions are looked through for certificates that have ended meanwhile.
const EXPIRY_CHECK_EVERY: Duration = Duration::from_secs(20);
/// Time for the last packets of a coordinator that stops to leave the machine.
const LINGER: Duration = Duration::from_millis(50);

/// How to serve.
#[derive(Clone, Debug)]
pub struct ServeOptions {
    /// The coordinator's folder, made by [`init_cluster`](crate::init_cluster).
    pub state: PathBuf,
    /// Where to listen: UDP and TCP of each port, and Unix sockets.
    pub listen: Vec<Address>,
    /// How long an agent may use its slots after it sent the renewal that was answered.
    pub lease: Duration,
    /// After this long without a word from a host, tasks that may not be rerun are given up as `Unknown`.
    pub lost_after: Duration,
    /// A bug planted on purpose, so that the tests can be shown to find it.
    #[cfg(feature = "planted-bugs")]
    pub planted: Option<PlantedBug>,
}

impl ServeOptions {
    /// With the usual times.
    #[must_use]
    pub fn new(state: impl Into<PathBuf>, listen: Vec<Address>) -> Self {
        let Options {
            lease, lost_after, ..
        } = Options::default();
        Self {
            state: state.into(),
            listen,
            lease,
            lost_after,
            #[cfg(feature = "planted-bugs")]
            planted: None,
        }
    }
}

/// Why a coordinator cannot serve.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServeError {
    /// Its folder cannot be used.
    #[error(transparent)]
    State(#[from] StateError),
    /// Its journal cannot be used, or not any more.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// It cannot go on.
    #[error("{0}")]
    Failed(String),
    /// An address cannot be listened on.
    #[error(transparent)]
    Bind(#[from] BindError),
}

/// A coordinator that listens.
#[derive(Debug)]
pub struct Server {
    listener: Listener,
    handle: Handle,
    access: Arc<Access>,
    /// Hears why it cannot go on.
    failed: oneshot::Receiver<String>,
    /// Held while it serves.
    _lock: File,
}

impl Server {
    /// Opens the folder and listens; peers are taken once it [runs](Self::run). Within a tokio runtime.
    ///
    /// # Errors
    /// When the folder has no cluster or another coordinator, or an address cannot be had.
    pub fn bind(options: ServeOptions) -> Result<Self, ServeError> {
        let state = State::open(&options.state)?;
        let cluster = state.access.ca.cluster().to_owned();
        let access = Arc::new(state.access);
        let listener = Listener::bind(&options.listen, state.identity, Arc::clone(&access) as _)?;
        let core = Options {
            cluster,
            epoch: state.epoch,
            lease: options.lease,
            lost_after: options.lost_after,
            #[cfg(feature = "planted-bugs")]
            planted: options.planted,
        };
        let folder = Folder::open(&options.state.join(JOURNAL_DIR))?;
        let (handle, failed) = start_durable(
            core,
            Arc::clone(&access),
            folder,
            options.state.join(JOBS_DIR),
        )?;
        Ok(Self {
            listener,
            handle,
            failed,
            access,
            _lock: state.lock,
        })
    }

    /// The addresses that are listened on, with their real ports.
    #[must_use]
    pub fn addresses(&self) -> &[Address] {
        self.listener.addresses()
    }

    /// Who may come in, and whom it has to reach.
    #[must_use]
    pub fn access(&self) -> Arc<Access> {
        Arc::clone(&self.access)
    }

    /// Reaches the coordinator inside.
    #[must_use]
    pub fn handle(&self) -> Handle {
        self.handle.clone()
    }

    /// Serves until `stop` is ready, then tells everybody goodbye.
    ///
    /// # Errors
    /// When it cannot go on: its disk refuses.
    pub async fn run(mut self, stop: impl Future<Output = ()>) -> Result<(), ServeError> {
        tokio::pin!(stop);
        let mut expiry = interval(EXPIRY_CHECK_EVERY);
        expiry.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                incoming = self.listener.accept() => {
                    tokio::spawn(introduce(self.handle.clone(), Arc::clone(&self.access), incoming));
                }
                // Beside this task: while the disk is full the coordinator takes nothing in, and may be told to stop.
                _ = expiry.tick() => {
                    tokio::spawn(expel_expired(self.handle.clone(), Arc::clone(&self.access)));
                }
                () = &mut stop => break,
                Ok(reason) = &mut self.failed => return Err(ServeError::Failed(reason)),
            }
        }
        self.handle.stop("the coordinator is shut down").await;
        tokio::time::sleep(LINGER).await;
        Ok(())
    }
}

async fn expel_expired(handle: Handle, access: Arc<Access>) {
    for id in access.registry.expired(wall_s()) {
        let reason = "the certificate of this identity has expired: ask an admin for a new one";
        handle.expel(&id, reason).await;
    }
}

/// Sees a peer that is proved to its place.
async fn introduce(handle: Handle, access: Arc<Access>, incoming: Incoming) {
    let peer = incoming.peer.clone();
    if let Err(refused) = handle.introduce(incoming).await {
        return tracing::info!(%peer, reason = refused.reason, "refused");
    }
    // It may have been revoked between the door and its place, when there was no session to close yet.
    if let Err(reason) = access.admit(&peer) {
        handle.expel(&peer.id, &reason).await;
    }
}
