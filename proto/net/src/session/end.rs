//! How a session ends, and how everybody who waits on it learns.

use std::{fmt, sync::OnceLock};

use tokio::sync::Notify;

/// A session is over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Closed {
    /// Why, for people: what the side that closed it said, or what went wrong.
    pub reason: String,
    /// Who ended it, or what.
    pub cause: Cause,
}

/// What ended a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// [`Sender::close`](super::Sender::close) on this side.
    Us,
    /// The other side said goodbye.
    Peer,
    /// The connection broke or fell silent; nobody said goodbye.
    Lost,
    /// The other side sent what is no frame, or more than it may.
    Malformed,
}

impl Closed {
    pub(crate) fn new(cause: Cause, reason: impl Into<String>) -> Self {
        Self {
            reason: reason.into(),
            cause,
        }
    }

    pub(crate) fn lost(reason: impl fmt::Display) -> Self {
        Self::new(Cause::Lost, reason.to_string())
    }

    pub(crate) fn malformed(reason: impl fmt::Display) -> Self {
        Self::new(Cause::Malformed, reason.to_string())
    }
}

impl fmt::Display for Closed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let how = match self.cause {
            Cause::Us => "session closed",
            Cause::Peer => "session closed by the other side",
            Cause::Lost => "connection lost",
            Cause::Malformed => "session closed because the other side broke the protocol",
        };
        write!(f, "{how}: {}", self.reason)
    }
}

impl std::error::Error for Closed {}

/// The one place of a session where its end is written down. The first reason stays.
#[derive(Debug, Default)]
pub(crate) struct End {
    closed: OnceLock<Closed>,
    changed: Notify,
}

impl End {
    /// Ends the session, unless it has ended already; tells what it ended with.
    pub(crate) fn set(&self, closed: Closed) -> Closed {
        let first = self.closed.get_or_init(|| closed).clone();
        self.changed.notify_waiters();
        first
    }

    pub(crate) fn get(&self) -> Option<&Closed> {
        self.closed.get()
    }

    /// Waits for the end. Cancel-safe.
    pub(crate) async fn wait(&self) -> Closed {
        loop {
            let changed = self.changed.notified();
            if let Some(closed) = self.get() {
                return closed.clone();
            }
            changed.await;
        }
    }
}
