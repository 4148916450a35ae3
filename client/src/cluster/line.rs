//! The session of the moment, for those who send: sessions end, and others take their place.

use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use fleetpool_net::{ConnectError, Receiver, Sender, Session};
use fleetpool_proto::{
    ClientId, Frame, Message as _, PoolId, message::FromClient, time::millis, version::Welcome,
};
use tokio::{
    sync::{Notify, watch},
    time::{Instant, sleep, timeout_at},
};

/// First and longest pause between two attempts to get a session again.
const PAUSE_MIN: Duration = Duration::from_millis(50);
const PAUSE_MAX: Duration = Duration::from_secs(2);

/// How long a coordinator may refuse a client before that is believed.
const REFUSED_MAX: Duration = Duration::from_secs(3);

type Dialling = Pin<Box<dyn Future<Output = Result<(Session, Welcome), ConnectError>> + Send>>;
/// Dials a coordinator again, as the client that it knows; or need not know, since nothing of it was acknowledged.
pub(crate) type Redial = Box<dyn Fn(ClientId, bool) -> Dialling + Send + Sync>;

/// A session with the coordinator, or the wait for the next one.
pub(crate) struct Line {
    current: watch::Sender<Option<Sender>>,
    /// This side is done: no session follows.
    closed: AtomicBool,
    losses: AtomicU64,
    /// How long the coordinator has asked to be waited for, in milliseconds.
    patience_ms: AtomicU64,
    again: Option<Again>,
    /// A pool was told to end now.
    pub(crate) terminated: Notify,
}

/// How a lost session is followed by another.
pub(crate) struct Again {
    /// Who this is, to the coordinator.
    pub(crate) client: ClientId,
    /// How long it waits.
    pub(crate) grace: Duration,
    pub(crate) redial: Redial,
}

impl std::fmt::Debug for Line {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Line")
            .field("resumes", &self.resumes())
            .finish_non_exhaustive()
    }
}

/// The sessions of a line, one after the other.
#[derive(Debug)]
pub(crate) struct Sessions(watch::Receiver<Option<Sender>>);

impl Line {
    /// A line whose first session is this one. With `again` others can follow it.
    pub(crate) fn new(sender: Sender, again: Option<Again>) -> Arc<Self> {
        let line = Self {
            current: watch::channel(Some(sender)).0,
            closed: AtomicBool::new(false),
            losses: AtomicU64::new(0),
            patience_ms: AtomicU64::new(0),
            again,
            terminated: Notify::new(),
        };
        if line.resumes() {
            // So that the coordinator knows; nothing was said before.
            let pools = Vec::new();
            line.try_send(FromClient::Resume { pools }.into_frame());
        }
        Arc::new(line)
    }

    /// Whether what was said may have to be said again.
    pub(crate) fn resumes(&self) -> bool {
        self.again.is_some()
    }

    pub(crate) fn sessions(&self) -> Sessions {
        Sessions(self.current.subscribe())
    }

    /// The way out now, if there is one.
    pub(crate) fn sender(&self) -> Option<Sender> {
        self.current.borrow().clone()
    }

    /// Sends what need not arrive.
    pub(crate) fn try_send(&self, frame: Frame) -> bool {
        self.sender()
            .is_some_and(|sender| sender.try_send(frame).is_ok())
    }

    /// Ends the session, for good.
    pub(crate) fn close(&self, reason: &str) {
        self.closed.store(true, Ordering::Release);
        if let Some(sender) = self.sender() {
            sender.close(reason);
        }
    }

    /// Sessions that have been lost so far.
    pub(crate) fn losses(&self) -> u64 {
        self.losses.load(Ordering::Acquire)
    }

    /// The next loss of the session is waited out for at least that long.
    pub(crate) fn wait_longer(&self, time: Duration) {
        self.patience_ms.store(millis(time), Ordering::Release);
    }

    /// Whether another session may follow.
    pub(crate) fn goes_on(&self) -> bool {
        self.resumes() && !self.closed.load(Ordering::Acquire)
    }

    /// Gets another session in the place of the one that has ended, for the `pools` that there are then, and which may all be `unsaid`.
    ///
    /// # Errors
    /// A sentence, when none can follow.
    pub(crate) async fn resume(
        &self,
        pools: impl Fn() -> Vec<PoolId>,
        unsaid: impl Fn() -> bool,
    ) -> Result<Receiver, String> {
        self.losses.fetch_add(1, Ordering::AcqRel);
        self.current.send_replace(None);
        let again = self.again.as_ref().ok_or_else(String::new)?;
        let client = again.client;
        let patience = Duration::from_millis(self.patience_ms.swap(0, Ordering::AcqRel));
        let deadline = Instant::now() + again.grace.max(patience);
        let mut pause = PAUSE_MIN;
        let (mut why, mut refused) = (String::new(), None);
        while !self.closed.load(Ordering::Acquire) {
            match timeout_at(deadline, (again.redial)(client, unsaid())).await {
                Err(_) => break,
                Ok(Ok((session, welcome))) if welcome.client == client => {
                    let resume = FromClient::Resume { pools: pools() };
                    // When it fails the session is over again, which its reader sees.
                    session.sender.send(resume.into_frame()).await.ok();
                    self.current.send_replace(Some(session.sender.clone()));
                    if self.closed.load(Ordering::Acquire) {
                        // Closed meanwhile: whoever did so saw no session.
                        session.sender.close("the client is done");
                    }
                    return Ok(session.receiver);
                }
                Ok(Ok(_)) => {
                    return Err("the coordinator does not know this client any more".to_owned());
                }
                Ok(Err(error)) if is_final(&error) => return Err(error.to_string()),
                // It may be about to end.
                Ok(Err(error @ ConnectError::Refused { .. })) => {
                    let since = refused.get_or_insert_with(Instant::now);
                    if since.elapsed() > REFUSED_MAX {
                        return Err(error.to_string());
                    }
                    why = error.to_string();
                }
                Ok(Err(error)) => why = error.to_string(),
            }
            if Instant::now() + pause >= deadline {
                break;
            }
            sleep(pause).await;
            pause = (pause * 2).min(PAUSE_MAX);
        }
        Err(why)
    }
}

impl Sessions {
    /// The next session that is not over; `None`: there will be none.
    pub(crate) async fn next(&mut self) -> Option<Sender> {
        loop {
            let current = self.0.borrow_and_update().clone();
            if let Some(sender) = current.filter(|sender| sender.is_closed().is_none()) {
                return Some(sender);
            }
            self.0.changed().await.ok()?;
        }
    }

    /// Waits until there is another session, or none.
    pub(crate) async fn changed(&mut self) {
        if self.0.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

/// Whether trying again would bring the same.
fn is_final(error: &ConnectError) -> bool {
    matches!(
        error,
        ConnectError::NoIdentity { .. }
            | ConnectError::OwnCertificate { .. }
            | ConnectError::Untrusted { .. }
            | ConnectError::Rejected { .. }
            | ConnectError::Protocol { .. }
    )
}
