//! A cluster for one run: coordinator and client in this process, an agent on each host, started over ssh and gone with
//! the run.
//!
//! One task a host tends it: logs in, hands the session to the coordinator, and logs in again when the connection
//! broke. It must never outlive the cluster, nor leave a caller waiting when no host can be had: then the coordinator
//! stops, and says why.

use std::{collections::BTreeMap, future::Future, sync::Arc, time::Duration};

use fleetpool_agent::AGENT_VERB;
use fleetpool_coordinator as coordinator;
use fleetpool_deploy::{Agent, AgentEnd, Destination, Program, start_agent};
use fleetpool_net::{Session, accept_over};
use fleetpool_proto::{HostId, version::Welcome};
use tokio::{
    sync::{Semaphore, mpsc, watch},
    task::JoinSet,
    time::{sleep, timeout},
};

use super::{
    embedded::{Farewell, attach_client, no_thread},
    error::Error,
    handle::Cluster,
    thread::Thread,
};
use crate::park;

/// An agent that does not hear of its client for this long ends, and all that it runs.
const LEASE: Duration = Duration::from_secs(10);
/// A host is waited for this long: by then its agent has ended what may not run twice, too.
const LOST_AFTER: Duration = Duration::from_secs(13);
/// Logins that are under way at once: each costs this machine a tenth of a second of key exchange.
const LOGINS_AT_ONCE: usize = 32;
/// How often a host whose connection broke is looked for again, in a row.
const RETURNS_MAX: u32 = 5;
/// Pause before the first time; doubled for each that follows.
const RETURN_PAUSE: Duration = Duration::from_secs(1);
/// How long the agents' end is waited for: twice what an agent promises.
const FAREWELL_MAX: Duration = Duration::from_secs(4);
/// Hosts that are named when none can be had.
const HOSTS_TOLD_MAX: usize = 3;

/// What became of a host.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Arrival {
    /// Its agent is one of the cluster's.
    Up {
        /// The host's name.
        host: String,
        /// Its number in the cluster.
        id: HostId,
    },
    /// Its connection broke; it is looked for again.
    Away {
        /// The host's name.
        host: String,
        /// Why.
        reason: String,
    },
    /// It cannot be had, or not any more.
    Gone {
        /// The host's name.
        host: String,
        /// Why, and what to do.
        reason: String,
    },
}

impl Arrival {
    /// What a user is to know of it, in one line.
    #[must_use]
    pub fn note(&self) -> Option<String> {
        match self {
            Self::Up { .. } => None,
            Self::Away { host, reason } => Some(format!(
                "{host} is away: {reason}; its tasks go elsewhere, and it is looked for again"
            )),
            Self::Gone { host, reason } => Some(format!("{host}: {reason}")),
        }
    }
}

/// News of the hosts of such a cluster. When every host is gone and nobody listens any more, the cluster ends.
#[derive(Debug)]
pub struct Arrivals {
    news: mpsc::UnboundedReceiver<Arrival>,
    /// Hosts that are not gone.
    left: usize,
}

impl Arrivals {
    fn of(hosts: usize) -> (mpsc::UnboundedSender<Arrival>, Self) {
        let (told, news) = mpsc::unbounded_channel();
        (told, Self { news, left: hosts })
    }

    /// The next, in the order in which they came; none when every host is gone, or the cluster has ended.
    pub async fn next(&mut self) -> Option<Arrival> {
        if self.left == 0 {
            return None;
        }
        let next = self.news.recv().await;
        self.left -= usize::from(matches!(next, Some(Arrival::Gone { .. })));
        next
    }
}

impl Cluster {
    /// A cluster of those hosts for as long as this process uses it: their agents are this program, brought and started
    /// over the user's ssh. Hosts join as they come; a host that cannot be had is told of, and the others go on.
    ///
    /// # Errors
    /// When this machine has no room for another thread, or this program's file cannot be read.
    pub fn ad_hoc(hosts: Vec<Destination>, program: Program) -> Result<(Self, Arrivals), Error> {
        let (told, arrivals) = Arrivals::of(hosts.len());
        let (thread, ready) = Thread::start(start(hosts, program, told)).map_err(no_thread)?;
        let ended = |_| Error::Start {
            reason: "its thread has ended".to_owned(),
        };
        let (session, welcome) = park::block_on(ready).map_err(ended)??;
        let runtime = thread.runtime().clone();
        Ok((
            Self::start(session, welcome, None, runtime, Some(thread)),
            arrivals,
        ))
    }

    /// The same on the tokio runtime that this is called on. When the last handle is dropped, the [`Farewell`] ends what
    /// still runs.
    ///
    /// # Errors
    /// As [`ad_hoc`](Self::ad_hoc).
    pub async fn ad_hoc_here(
        hosts: Vec<Destination>,
        program: Program,
    ) -> Result<(Self, Arrivals, Farewell), Error> {
        let (told, arrivals) = Arrivals::of(hosts.len());
        let ((session, welcome), farewell) = start(hosts, program, told).await?;
        let farewell = Farewell::new(farewell);
        Ok((Self::over(session, welcome), arrivals, farewell))
    }
}

/// Starts everything on the current runtime. The future beside the session ends it all.
async fn start(
    hosts: Vec<Destination>,
    program: Program,
    told: mpsc::UnboundedSender<Arrival>,
) -> Result<((Session, Welcome), impl Future<Output = ()> + Send), Error> {
    let head = coordinator::start(coordinator::Options {
        lease: LEASE,
        lost_after: LOST_AFTER,
        ..coordinator::Options::default()
    });
    let client = attach_client(&head).await?;
    let (stop, stopped) = watch::channel(false);
    let tending = tokio::spawn(tend_all(hosts, program, head.clone(), told, stopped));
    let farewell = async move {
        stop.send_replace(true);
        head.stop("the client is done").await;
        if timeout(FAREWELL_MAX, tending).await.is_err() {
            tracing::warn!("some agents do not end: they will, when their lease is over");
        }
    };
    Ok((client, farewell))
}

/// Tends every host until it is gone; with the last one ends the cluster.
async fn tend_all(
    hosts: Vec<Destination>,
    program: Program,
    head: coordinator::Handle,
    told: mpsc::UnboundedSender<Arrival>,
    mut stopped: watch::Receiver<bool>,
) {
    let logins = Arc::new(Semaphore::new(LOGINS_AT_ONCE));
    let mut tended = JoinSet::new();
    for host in hosts {
        let tender = Tender {
            host,
            program: program.clone(),
            head: head.clone(),
            logins: Arc::clone(&logins),
            told: told.clone(),
        };
        let stopped = stopped.clone();
        tended.spawn(async move {
            let reason = tender.tend(stopped).await?;
            Some((tender.host.name().to_owned(), reason))
        });
    }
    let mut gone = BTreeMap::new();
    while let Some(ended) = tended.join_next().await {
        if let Ok(Some((host, reason))) = ended {
            gone.insert(host.clone(), reason.clone());
            // Whoever does not listen does not care.
            told.send(Arrival::Gone { host, reason }).ok();
        }
    }
    // Whoever listens may have something to say to the last ones' end before the cluster does.
    tokio::select! {
        () = told.closed() => head.stop(&nobody(&gone)).await,
        () = over(&mut stopped) => {}
    }
}

/// Waits until the cluster ends.
async fn over(stopped: &mut watch::Receiver<bool>) {
    stopped.wait_for(|stopped| *stopped).await.ok();
}

/// What is said when there is no host left.
fn nobody(gone: &BTreeMap<String, String>) -> String {
    let named = gone.iter().take(HOSTS_TOLD_MAX);
    let named: Vec<String> = named.map(|(host, why)| format!("{host}: {why}")).collect();
    let more = match gone.len().saturating_sub(HOSTS_TOLD_MAX) {
        0 => String::new(),
        more => format!("; and {more} more"),
    };
    format!("no host can be had: {}{more}", named.join("; "))
}

/// Whoever looks after one host.
struct Tender {
    host: Destination,
    program: Program,
    head: coordinator::Handle,
    logins: Arc<Semaphore>,
    told: mpsc::UnboundedSender<Arrival>,
}

impl Tender {
    /// Until the host is given up, and why; or until the cluster ends.
    async fn tend(&self, mut stopped: watch::Receiver<bool>) -> Option<String> {
        let host = || self.host.name().to_owned();
        let mut was_up = false;
        let mut returns = 0;
        loop {
            let started = tokio::select! {
                started = self.start() => started,
                () = over(&mut stopped) => return None,
            };
            let reason = match started {
                Ok((id, end)) => {
                    (was_up, returns) = (true, 0);
                    self.told.send(Arrival::Up { host: host(), id }).ok();
                    end.why().await.to_string()
                }
                Err(reason) if !was_up || returns == RETURNS_MAX => return Some(reason),
                Err(reason) => reason,
            };
            if *stopped.borrow() {
                return None;
            }
            self.told
                .send(Arrival::Away {
                    host: host(),
                    reason,
                })
                .ok();
            tokio::select! {
                () = sleep(RETURN_PAUSE * 2_u32.pow(returns)) => {}
                () = over(&mut stopped) => return None,
            }
            returns += 1;
        }
    }

    /// Makes the host one of the cluster's: its number, and what tells its end; or why it is none.
    async fn start(&self) -> Result<(HostId, AgentEnd), String> {
        let _login = self.logins.acquire().await;
        let started = start_agent(&self.host, &self.program, AGENT_VERB).await;
        let Agent { read, write, end } = started.map_err(|error| error.to_string())?;
        let Some(incoming) = accept_over(read, write, self.host.name()).await else {
            return Err(end.why().await.to_string());
        };
        let welcome = self.head.introduce(incoming).await;
        let welcome = welcome.map_err(|refused| refused.reason)?;
        Ok((welcome.host, end))
    }
}
