//! The receiving half: reads when it is asked to, so that a peer is slowed down by whoever does not ask.

use std::sync::Arc;

use fleetpool_proto::Frame;

use super::{
    end::{Cause, Closed, End},
    local::Local,
};

/// Receives frames.
#[derive(Debug)]
pub struct Receiver {
    source: Source,
    end: Arc<End>,
}

/// Where frames come from.
#[derive(Debug)]
pub(crate) enum Source {
    Local(Local),
}

impl Receiver {
    pub(crate) fn new(source: Source, end: Arc<End>) -> Self {
        Self { source, end }
    }

    /// The next frame. Cancel-safe: a dropped future loses nothing.
    ///
    /// # Errors
    /// When the session is over: at once if this side closed it, else after the last frame that came.
    pub async fn recv(&mut self) -> Result<Frame, Closed> {
        // The end is looked at first: what was queued before the peer's goodbye is in the queue by then.
        let ended = self.end.get().cloned();
        if let Some(frame) = self.try_recv() {
            return Ok(frame);
        }
        if let Some(closed) = ended {
            return Err(closed);
        }
        tokio::select! {
            biased;
            frame = self.source.next() => frame.map_err(|closed| self.end.set(closed)),
            closed = self.end.wait() => self.try_recv().ok_or(closed),
        }
    }

    /// A frame that is here already.
    pub fn try_recv(&mut self) -> Option<Frame> {
        match self.end.get() {
            Some(closed) if closed.cause == Cause::Us => None,
            _ => self.source.try_next(),
        }
    }
}

impl Source {
    fn try_next(&mut self) -> Option<Frame> {
        match self {
            Self::Local(local) => local.try_next(),
        }
    }

    /// Cancel-safe.
    async fn next(&mut self) -> Result<Frame, Closed> {
        match self {
            Self::Local(local) => local.next().await,
        }
    }
}
