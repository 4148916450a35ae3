//! Reads the session and hands every message to the pool, the question or the table it belongs to.
//!
//! One task a session. It owns the receiving half; the routes are shared with the [`Cluster`](super::Cluster)
//! handles that add to them, and are locked for a look-up only. A pool whose consumer is slow makes it wait, and so
//! the coordinator.

use std::{
    collections::BTreeMap,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use fleetpool_net::{Receiver, Sender};
use fleetpool_proto::{
    Frame, Message as _, PoolId,
    message::{FromClient, ToClient},
    pool::ContentHash,
    rows::Payloads,
    view::Answer,
};
use tokio::sync::{mpsc, oneshot};

use super::{
    error::Error,
    events::{Delivery, PoolEvent},
    hosts::Hosts,
    outbox::Outbox,
};

/// Where the session's messages go.
#[derive(Debug, Default)]
struct Routes {
    pools: BTreeMap<PoolId, Route>,
    questions: BTreeMap<u64, oneshot::Sender<Answer>>,
    contents: BTreeMap<ContentHash, Content>,
    /// Why the session ended, once it has.
    lost: Option<String>,
}

/// What agents may ask for by its hash.
#[derive(Clone, Debug)]
pub(crate) enum Content {
    /// What is in this file.
    File(PathBuf),
    /// This.
    Bytes(Bytes),
}

/// A pool, as the router sees it.
#[derive(Clone, Debug)]
pub(crate) struct Route {
    outbox: Arc<Outbox>,
    events: mpsc::Sender<Delivery>,
    /// Results that have come.
    received: u64,
    /// The coordinator refused something: results that are missing will not come.
    refused: bool,
    /// The coordinator said that the pool has ended.
    ended: bool,
}

/// How long results that the pool's last word has overtaken may still be on their way.
const LATE_MAX: Duration = Duration::from_secs(5);

impl Route {
    pub(crate) fn new(outbox: Arc<Outbox>, events: mpsc::Sender<Delivery>) -> Self {
        Self {
            outbox,
            events,
            received: 0,
            refused: false,
            ended: false,
        }
    }

    /// Whether no result is missing that could still come.
    fn is_complete(&self) -> bool {
        let missing = self.received < self.outbox.submitted();
        !missing || self.refused || !self.outbox.is_closing()
    }
}

/// What the router and the handles share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) sender: Sender,
    pub(crate) hosts: Arc<Hosts>,
    routes: Mutex<Routes>,
}

impl Shared {
    pub(crate) fn new(sender: Sender) -> Self {
        Self {
            sender,
            hosts: Arc::default(),
            routes: Mutex::default(),
        }
    }

    pub(crate) fn add_pool(&self, pool: PoolId, route: Route) -> Result<(), Error> {
        self.living()?.pools.insert(pool, route);
        Ok(())
    }

    pub(crate) fn add_question(
        &self,
        question: u64,
        asker: oneshot::Sender<Answer>,
    ) -> Result<(), Error> {
        self.living()?.questions.insert(question, asker);
        Ok(())
    }

    pub(crate) fn add_content(&self, hash: ContentHash, content: Content) {
        self.routes().contents.insert(hash, content);
    }

    /// Why the session ended.
    pub(crate) fn lost(&self) -> Error {
        let reason = self.routes().lost.clone();
        Error::Lost {
            reason: reason.unwrap_or_else(|| "the cluster's thread has ended".to_owned()),
        }
    }

    /// Reads until the session ends, then tells everybody who waits.
    pub(crate) async fn route(self: Arc<Self>, mut receiver: Receiver) {
        let reason = loop {
            let message = match receiver.recv().await {
                Ok(frame) => ToClient::from_frame(frame),
                Err(closed) => break closed.to_string(),
            };
            match message {
                Ok(message) => self.handle(message).await,
                Err(error) => break format!("the coordinator sent what is no message: {error}"),
            }
        };
        self.sender.close(&reason);
        self.lose(&reason);
    }

    async fn handle(self: &Arc<Self>, message: ToClient) {
        tracing::trace!(message = message.name(), "from the coordinator");
        match message {
            ToClient::Credit { pool, tasks, bytes } => self.on_credit(pool, tasks, bytes),
            ToClient::Host { host, name } => self.hosts.insert(host, name),
            ToClient::Answer { question, answer } => self.on_answer(question, answer),
            ToClient::NeedContent { hash } => self.on_need_content(hash),
            ToClient::PoolEnded { pool } => {
                if self.on_pool_ended(pool) {
                    self.finish(pool).await;
                } else {
                    tokio::spawn(Arc::clone(self).finish_late(pool));
                }
            }
            ToClient::Results {
                pool,
                rows,
                payloads,
            } => {
                let count = rows.len() as u64;
                let results = Delivery::Results(rows, payloads.into_items());
                self.deliver(pool, results).await;
                if self.on_received(pool, count) {
                    self.finish(pool).await;
                }
            }
            ToClient::Output {
                pool,
                rows,
                payloads,
            } => {
                let output = Delivery::Output(rows, payloads.into_items());
                self.deliver(pool, output).await;
            }
            ToClient::Slots {
                pool,
                allotted,
                eligible,
                hosts,
            } => {
                let slots = PoolEvent::Slots {
                    allotted,
                    eligible,
                    hosts,
                };
                self.deliver(pool, Delivery::Other(slots)).await;
            }
            ToClient::Notice { pool, text } => {
                let notice = PoolEvent::Notice(text);
                self.deliver(pool, Delivery::Other(notice)).await;
            }
            ToClient::Refused { pool, reason, kind } => {
                self.on_refused(pool);
                let refused = PoolEvent::Refused { reason, kind };
                self.deliver(pool, Delivery::Other(refused)).await;
            }
        }
    }

    /// The routes, as long as somebody reads the session.
    fn living(&self) -> Result<MutexGuard<'_, Routes>, Error> {
        let routes = self.routes();
        match &routes.lost {
            None => Ok(routes),
            Some(reason) => Err(Error::Lost {
                reason: reason.clone(),
            }),
        }
    }

    fn routes(&self) -> MutexGuard<'_, Routes> {
        self.routes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn on_credit(&self, pool: PoolId, tasks: u64, bytes: u64) {
        if let Some(route) = self.routes().pools.get(&pool) {
            route.outbox.grant(tasks, bytes);
        }
    }

    fn on_answer(&self, question: u64, answer: Answer) {
        if let Some(asker) = self.routes().questions.remove(&question) {
            // An asker who does not wait any more is no error.
            let _ = asker.send(answer);
        }
    }

    /// Reads the content beside the router, which goes on meanwhile.
    fn on_need_content(&self, hash: ContentHash) {
        let content = self.routes().contents.get(&hash).cloned();
        let sender = self.sender.clone();
        tokio::spawn(async move {
            let content = match content {
                Some(Content::File(path)) => tokio::fs::read(path).await.unwrap_or_default().into(),
                Some(Content::Bytes(bytes)) => bytes,
                None => Bytes::new(),
            };
            let payloads = Payloads::from(vec![content]);
            let content: Frame = FromClient::Content { hash, payloads }.into_frame();
            // When the session ends meanwhile, the router says so.
            let _ = sender.send(content).await;
        });
    }

    /// Counts results in; whether they were the last ones of a pool that has ended.
    fn on_received(&self, pool: PoolId, count: u64) -> bool {
        let mut routes = self.routes();
        let Some(route) = routes.pools.get_mut(&pool) else {
            return false;
        };
        route.received += count;
        route.ended && route.is_complete()
    }

    /// The pool's last word. Results with bulk payloads may still be on their way behind it: whether none are.
    fn on_pool_ended(&self, pool: PoolId) -> bool {
        let mut routes = self.routes();
        let Some(route) = routes.pools.get_mut(&pool) else {
            return false;
        };
        route.ended = true;
        route.is_complete()
    }

    fn on_refused(&self, pool: PoolId) {
        if let Some(route) = self.routes().pools.get_mut(&pool) {
            route.refused = true;
        }
    }

    /// Does not wait for ever for results that an operator's `cancel` has done away with.
    async fn finish_late(self: Arc<Self>, pool: PoolId) {
        tokio::time::sleep(LATE_MAX).await;
        self.finish(pool).await;
    }

    async fn finish(&self, pool: PoolId) {
        self.deliver(pool, Delivery::Other(PoolEvent::Finished))
            .await;
        if let Some(route) = self.routes().pools.remove(&pool) {
            route.outbox.end(Error::Closed);
        }
    }

    /// Waits while the pool's consumer is behind. A consumer that has left is no error.
    async fn deliver(&self, pool: PoolId, delivery: Delivery) {
        let events = self
            .routes()
            .pools
            .get(&pool)
            .map(|route| route.events.clone());
        if let Some(events) = events {
            let _ = events.send(delivery).await;
        }
    }

    /// Ends every pool and every question. The pools' events end with their senders, whoever reads them or not.
    fn lose(&self, reason: &str) {
        let pools = {
            let mut routes = self.routes();
            routes.lost = Some(reason.to_owned());
            routes.questions.clear();
            std::mem::take(&mut routes.pools)
        };
        let reason = reason.to_owned();
        let lost = Error::Lost { reason };
        for route in pools.values() {
            route.outbox.end(lost.clone());
        }
    }
}
