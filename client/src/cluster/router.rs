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
use fleetpool_net::Receiver;
use fleetpool_proto::{
    Frame, Message as _, PoolId,
    message::{FromClient, OutputRow, ResultRow, ToClient},
    pool::ContentHash,
    rows::Payloads,
    view::Answer,
};
use tokio::sync::{mpsc, oneshot};

use super::{
    error::Error,
    events::{Delivery, PoolEvent},
    hosts::Hosts,
    line::Line,
    outbox::Outbox,
    taken::{Heard, Taken},
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
    received: Taken,
    /// Messages of results that have come on this session.
    messages: Taken,
    /// The coordinator refused something: results that are missing will not come.
    refused: bool,
    /// The coordinator said that the pool has ended.
    ended: bool,
}

/// How long results that the pool's last word has overtaken may still be on their way.
const LATE_MAX: Duration = Duration::from_secs(5);

/// After how long people are told that the coordinator is away.
const PATIENCE: Duration = Duration::from_secs(2);

/// How a session ended.
enum Ended {
    /// It broke, or the coordinator closed it.
    Lost(String),
    /// The coordinator said what cannot be understood.
    Nonsense(String),
}

impl Route {
    pub(crate) fn new(outbox: Arc<Outbox>, events: mpsc::Sender<Delivery>) -> Self {
        Self {
            outbox,
            events,
            received: Taken::default(),
            messages: Taken::default(),
            refused: false,
            ended: false,
        }
    }

    /// Whether no result is missing that could still come.
    fn is_complete(&self) -> bool {
        let missing = self.received.count() < self.outbox.submitted();
        !missing || self.refused || !self.outbox.is_closing()
    }
}

/// What the router and the handles share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) line: Arc<Line>,
    pub(crate) hosts: Arc<Hosts>,
    routes: Mutex<Routes>,
    heard: Mutex<Heard>,
}

impl Shared {
    pub(crate) fn new(line: Arc<Line>) -> Self {
        Self {
            line,
            hosts: Arc::default(),
            routes: Mutex::default(),
            heard: Mutex::default(),
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

    /// Why a question cannot be asked now.
    pub(crate) fn away(&self) -> Error {
        if self.line.goes_on() {
            let reason = "the coordinator is away: ask again when it is back".to_owned();
            return Error::Lost { reason };
        }
        self.lost()
    }

    /// Reads until the last session ends, then tells everybody who waits.
    pub(crate) async fn route(self: Arc<Self>, mut receiver: Receiver) {
        let reason = loop {
            let reason = match self.read(&mut receiver).await {
                Ended::Lost(reason) => reason,
                Ended::Nonsense(reason) => break reason,
            };
            if !self.line.goes_on() {
                break reason;
            }
            match self.resume(&reason).await {
                Ok(next) => receiver = next,
                Err(why) if why.is_empty() => break reason,
                Err(why) => break format!("{reason}; and then: {why}"),
            }
        };
        self.line.close(&reason);
        self.lose(&reason);
    }

    /// Reads one session to its end.
    async fn read(self: &Arc<Self>, receiver: &mut Receiver) -> Ended {
        loop {
            let message = match receiver.recv().await {
                Ok(frame) => ToClient::from_frame(frame),
                Err(closed) => return Ended::Lost(closed.to_string()),
            };
            match message {
                Ok(message) => self.handle(message).await,
                Err(error) => {
                    let what = format!("the coordinator sent what is no message: {error}");
                    return Ended::Nonsense(what);
                }
            }
        }
    }

    /// Waits for the coordinator to be back.
    async fn resume(&self, reason: &str) -> Result<Receiver, String> {
        {
            let mut routes = self.routes();
            // Whoever asked asks again, or not.
            routes.questions.clear();
            for route in routes.pools.values_mut() {
                route.messages = Taken::default();
            }
        }
        self.leave_terminated(reason);
        let pools = || self.routes().pools.keys().copied().collect();
        let patience = tokio::time::sleep(PATIENCE);
        let unsaid = || {
            let routes = self.routes();
            let mut all = routes.pools.values();
            all.all(|route| route.outbox.is_unsaid())
        };
        let resumed = self.line.resume(pools, unsaid);
        tokio::pin!(patience, resumed);
        let mut said = false;
        let resumed = loop {
            tokio::select! {
                resumed = &mut resumed => break resumed,
                () = self.line.terminated.notified() => self.leave_terminated(reason),
                () = &mut patience, if !said => {
                    said = true;
                    self.notify_all(&format!("the coordinator is away ({reason}); waiting for it, and its tasks go on"));
                }
            }
        };
        if said && resumed.is_ok() {
            self.notify_all("the coordinator is back");
        }
        resumed
    }

    /// Does not wait for the end of pools that were told to end while the coordinator is away: it ends those that are not named when
    /// it is back, and all of them when nobody comes back to it.
    fn leave_terminated(&self, reason: &str) {
        let reason =
            format!("the coordinator is away ({reason}): it ends the pool when it is back");
        let mut routes = self.routes();
        routes.pools.retain(|_, route| {
            let terminated = route.outbox.is_terminated();
            if terminated {
                let reason = reason.clone();
                route.outbox.end(Error::Lost { reason });
            }
            !terminated
        });
    }

    /// Tells every pool, as far as it listens.
    fn notify_all(&self, text: &str) {
        for route in self.routes().pools.values() {
            let notice = PoolEvent::Notice(text.to_owned());
            // One that is behind has other news to read.
            let _ = route.events.try_send(Delivery::Other(notice));
        }
    }

    async fn handle(self: &Arc<Self>, message: ToClient) {
        tracing::trace!(message = message.name(), "from the coordinator");
        match message {
            ToClient::Credit { pool, tasks, bytes } => self.on_credit(pool, tasks, bytes),
            ToClient::Submitted {
                pool,
                tasks,
                closed,
            } => self.on_submitted(pool, tasks, closed),
            ToClient::Host { host, name } => self.hosts.insert(host, name),
            ToClient::Answer { question, answer } => self.on_answer(question, answer),
            ToClient::NeedContent { hash } => self.on_need_content(hash),
            ToClient::Stopping { wait_ms } => self.line.wait_longer(Duration::from_millis(wait_ms)),
            ToClient::PoolEnded { pool } => match self.on_pool_ended(pool) {
                Some(true) => self.finish(pool).await,
                Some(false) => drop(tokio::spawn(Arc::clone(self).finish_late(pool))),
                None => self.tell_done(pool),
            },
            ToClient::Results {
                pool,
                number,
                rows,
                payloads,
            } => {
                let (rows, payloads, complete) = self.on_results(pool, rows, payloads);
                self.deliver(pool, Delivery::Results(rows, payloads)).await;
                self.tell_results_heard(pool, number);
                if complete {
                    self.finish(pool).await;
                }
            }
            ToClient::Output {
                pool,
                life,
                number,
                rows,
                payloads,
            } => {
                if self.is_news(&rows, life, number) {
                    let output = Delivery::Output(rows, payloads.into_items());
                    self.deliver(pool, output).await;
                }
                self.tell_heard();
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

    fn on_submitted(&self, pool: PoolId, tasks: u64, closed: bool) {
        if let Some(route) = self.routes().pools.get(&pool) {
            route.outbox.safe(tasks, closed);
        }
    }

    /// Whether output has not come before.
    fn is_news(&self, rows: &[OutputRow], life: u64, number: u64) -> bool {
        let Some(row) = rows.first().filter(|_| number > 0) else {
            return true;
        };
        self.heard().is_news(row.host, life, number)
    }

    /// Tells the coordinator what output has come, so that agents may forget it.
    fn tell_heard(&self) {
        let mut heard = self.heard();
        while let Some((host, life, number)) = heard.take_untold() {
            // The pool does not end before it is told. When the session ends meanwhile, the output comes again.
            self.send_beside(FromClient::HeardOutput { host, life, number }.into_frame());
        }
    }

    /// Sends without having the router wait.
    fn send_beside(&self, frame: Frame) {
        let sender = self.line.sender();
        if let Some(sender) = sender.filter(|sender| sender.try_send(frame.clone()).is_err()) {
            tokio::spawn(async move { sender.send(frame).await });
        }
    }

    /// Tells the coordinator which messages of results have come, so that it may forget them.
    fn tell_results_heard(&self, pool: PoolId, number: u64) {
        let mut routes = self.routes();
        let route = routes.pools.get_mut(&pool).filter(|_| number > 0);
        let Some(number) = route.and_then(|route| route.messages.insert_upto(number)) else {
            return;
        };
        // One that cannot be sent now is made up for by the next, or by the pool's end.
        self.line
            .try_send(FromClient::HeardResults { pool, number }.into_frame());
    }

    fn heard(&self) -> MutexGuard<'_, Heard> {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner)
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
        let Some(sender) = self.line.sender() else {
            return;
        };
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

    /// Takes results in that have not come before; tells, too, whether they were the last ones of a pool that has ended.
    fn on_results(
        &self,
        pool: PoolId,
        mut rows: Vec<ResultRow>,
        payloads: Payloads,
    ) -> (Vec<ResultRow>, Vec<Bytes>, bool) {
        let mut payloads = payloads.into_items();
        let mut routes = self.routes();
        let Some(route) = routes.pools.get_mut(&pool) else {
            return (rows, payloads, false);
        };
        let news: Vec<bool> = rows
            .iter()
            .map(|row| route.received.insert(row.index))
            .collect();
        if news.contains(&false) {
            let mut is_new = news.iter();
            rows.retain(|_| is_new.next() == Some(&true));
            let mut is_new = news.iter();
            payloads.retain(|_| is_new.next() == Some(&true));
        }
        let complete = route.ended && route.is_complete();
        (rows, payloads, complete)
    }

    /// The pool's last word. Results with bulk payloads may still be on their way behind it: whether none are. `None`: nobody waits
    /// for it any more.
    fn on_pool_ended(&self, pool: PoolId) -> Option<bool> {
        let mut routes = self.routes();
        let route = routes.pools.get_mut(&pool)?;
        route.ended = true;
        Some(route.is_complete())
    }

    /// Lets the coordinator forget the pool. One that is away hears that it is not named when this client is back.
    fn tell_done(&self, pool: PoolId) {
        if self.line.resumes() {
            self.send_beside(FromClient::Done { pool }.into_frame());
        }
    }

    fn on_refused(&self, pool: PoolId) {
        if let Some(route) = self.routes().pools.get_mut(&pool) {
            route.refused = true;
        }
    }

    /// Does not wait for ever for results that an operator's `cancel` has done away with.
    async fn finish_late(self: Arc<Self>, pool: PoolId) {
        let losses = self.line.losses();
        tokio::time::sleep(LATE_MAX).await;
        // On a session that has been lost meanwhile nothing comes late: the next one brings it.
        if losses == self.line.losses() {
            self.finish(pool).await;
        }
    }

    async fn finish(&self, pool: PoolId) {
        self.deliver(pool, Delivery::Other(PoolEvent::Finished))
            .await;
        let route = self.routes().pools.remove(&pool);
        if let Some(route) = route {
            route.outbox.end(Error::Closed);
            self.tell_done(pool);
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
