//! A session with a coordinator, as the rest of the client holds it.

use std::{
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use fleetpool_net::{Peer, Session};
use fleetpool_proto::{
    HostId, Message as _, PoolId,
    message::FromClient,
    pool::{ContentHash, PoolOptions},
    version::Welcome,
    view::{Answer, Query},
};
use tokio::{
    runtime::Handle,
    sync::{mpsc, oneshot},
};

use super::{
    error::Error,
    events::Events,
    hosts::Hosts,
    line::{Again, Line, Redial},
    outbox::Outbox,
    router::{Content, Route, Shared},
    submitter::Submitter,
    thread::Thread,
};

/// Messages of the coordinator that wait for a pool's consumer before the session is not read any more. Each is one
/// batch, of a megabyte or of one larger result.
const DELIVERIES_MAX: usize = 4;

/// A session with a coordinator. Clones share it; when the last one is dropped the session is closed, and with it
/// every pool that was opened on it.
///
/// ```no_run
/// use fleetpool::cluster::{Cluster, PoolEvent};
/// use fleetpool_proto::{command::{CommandTask, Word}, frame::encode_header, pool::{PoolOptions, Spec}};
///
/// # async fn f() -> Result<(), fleetpool::cluster::Error> {
/// let cluster = Cluster::embedded(Some(2))?;
/// let (submitter, mut events) = cluster.open(PoolOptions::default())?;
/// let spec = submitter.define(Spec::default());
/// let uptime = CommandTask { argv: vec![Word::literal("uptime")] };
/// submitter.submit(spec, None, encode_header(&uptime)).await?;
/// submitter.close();
/// while let Some(event) = events.next().await {
///     if let PoolEvent::Output { host, bytes, .. } = event {
///         let host = cluster.host_name(host).unwrap_or_default();
///         print!("{host}: {}", String::from_utf8_lossy(&bytes));
///     }
/// }
/// # Ok(()) }
/// ```
#[derive(Clone, Debug)]
pub struct Cluster {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    shared: Arc<Shared>,
    runtime: Handle,
    peer: Peer,
    welcome: Welcome,
    pools: AtomicU64,
    questions: AtomicU64,
    /// Runs the session, where this cluster has a thread of its own. Dropped last.
    thread: Option<Thread>,
}

impl Cluster {
    /// Serves `session` on the runtime that this is called on.
    #[must_use]
    pub fn over(session: Session, welcome: Welcome) -> Self {
        Self::start(session, welcome, None, Handle::current(), None)
    }

    pub(crate) fn start(
        session: Session,
        welcome: Welcome,
        redial: Option<Redial>,
        runtime: Handle,
        thread: Option<Thread>,
    ) -> Self {
        let Session {
            peer,
            sender,
            receiver,
        } = session;
        let grace = Duration::from_millis(welcome.resume_ms);
        let redial = redial.filter(|_| !grace.is_zero());
        let again = redial.map(|redial| Again {
            client: welcome.client,
            grace,
            redial,
        });
        let line = Line::new(sender, again);
        let shared = Arc::new(Shared::new(line));
        runtime.spawn(Arc::clone(&shared).route(receiver));
        let inner = Inner {
            shared,
            runtime,
            peer,
            pools: AtomicU64::new(welcome.pools_from.0),
            welcome,
            questions: AtomicU64::new(0),
            thread,
        };
        Self {
            inner: Arc::new(inner),
        }
    }

    /// Who is at the other end, and how it is reached.
    #[must_use]
    pub fn peer(&self) -> &Peer {
        &self.inner.peer
    }

    /// What the coordinator said of itself.
    #[must_use]
    pub fn welcome(&self) -> &Welcome {
        &self.inner.welcome
    }

    /// Opens a pool. A refusal comes as [`PoolEvent::Refused`](super::PoolEvent::Refused).
    ///
    /// # Errors
    /// When the session is lost.
    pub fn open(&self, options: PoolOptions) -> Result<(Submitter, Events), Error> {
        let pool = PoolId(self.inner.pools.fetch_add(1, Ordering::Relaxed));
        let options = Box::new(options);
        self.begin(pool, FromClient::OpenPool { pool, options })
    }

    fn begin(&self, pool: PoolId, first: FromClient) -> Result<(Submitter, Events), Error> {
        let line = &self.inner.shared.line;
        let outbox = Arc::new(Outbox::new(pool, Arc::clone(line)));
        let (events, queue) = mpsc::channel(DELIVERIES_MAX);
        let route = Route::new(Arc::clone(&outbox), events);
        self.inner.shared.add_pool(pool, route)?;
        self.inner
            .runtime
            .spawn(Arc::clone(&outbox).flush_to(line.sessions()));
        outbox.say(first);
        Ok((
            Submitter::new(pool, Arc::clone(&outbox)),
            Events::new(queue, outbox),
        ))
    }

    /// Attaches to a detached pool: all that its tasks have returned and printed comes again from the first, and with `follow`
    /// what is to come. The pool is not this client's: it goes on when this is dropped.
    ///
    /// # Errors
    /// When the session is lost. A refusal comes as [`PoolEvent::Refused`](super::PoolEvent::Refused).
    pub fn attach(&self, pool: PoolId, follow: bool) -> Result<(Submitter, Events), Error> {
        self.begin(pool, FromClient::Attach { pool, follow })
    }

    /// Asks the coordinator something.
    ///
    /// # Errors
    /// When the session is lost before the answer came. A refusal is an answer.
    pub async fn ask(&self, query: Query) -> Result<Answer, Error> {
        let shared = &self.inner.shared;
        let question = self.inner.questions.fetch_add(1, Ordering::Relaxed);
        let (asker, answer) = oneshot::channel();
        shared.add_question(question, asker)?;
        let ask = FromClient::Ask { question, query };
        let sender = shared.line.sender().ok_or_else(|| shared.away())?;
        let sent = sender.send(ask.into_frame()).await;
        sent.map_err(|closed| Error::Lost {
            reason: closed.to_string(),
        })?;
        answer.await.map_err(|_| shared.away())
    }

    /// A host's name, once a row that mentions it has come.
    #[must_use]
    pub fn host_name(&self, host: HostId) -> Option<String> {
        self.inner.shared.hosts.name(host)
    }

    /// Offers a file to agents that lack the content of this hash: a pool's program.
    pub fn offer(&self, hash: ContentHash, path: PathBuf) {
        self.inner.shared.add_content(hash, Content::File(path));
    }

    /// Offers bytes to agents that lack them, by the hash that is told: a function of a pool.
    pub fn offer_bytes(&self, bytes: Bytes) -> ContentHash {
        let hash = ContentHash(*blake3::hash(&bytes).as_bytes());
        let content = Content::Bytes(bytes);
        self.inner.shared.add_content(hash, content);
        hash
    }

    pub(crate) fn hosts(&self) -> Arc<Hosts> {
        Arc::clone(&self.inner.shared.hosts)
    }

    pub(crate) fn runtime(&self) -> &Handle {
        &self.inner.runtime
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.shared.line.close("the client is done");
        drop(self.thread.take());
    }
}
