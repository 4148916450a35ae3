//! The receiving half: reads when it is asked to, so that a peer is slowed down by whoever does not ask.

use std::sync::Arc;

use fleetpool_proto::Frame;

use super::{
    end::{Cause, Closed, End},
    local::Local,
    quic, stream,
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
    Stream(stream::Reader),
    Quic(Box<quic::Reader>),
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
        // The end is looked at first: what an end in this process had queued before its goodbye is there by then.
        let ended = self.end.get().cloned();
        if let Some(frame) = self.try_recv() {
            return Ok(frame);
        }
        if let Some(closed) = ended.or_else(|| self.final_end()) {
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
        if self.final_end().is_some() {
            return None;
        }
        match self.source.try_next() {
            Ok(frame) => frame,
            Err(closed) => {
                self.end.set(closed);
                None
            }
        }
    }

    /// Lets the peer send frames as large as the wire has them: it is known by now.
    pub(crate) fn welcome(&mut self) {
        match &mut self.source {
            Source::Local(_) => {}
            Source::Stream(reader) => reader.welcome(),
            Source::Quic(reader) => reader.welcome(),
        }
    }

    /// The end, if nothing may be delivered after it.
    fn final_end(&self) -> Option<Closed> {
        self.end
            .get()
            .filter(|closed| closed.cause != Cause::Peer)
            .cloned()
    }
}

impl Source {
    fn try_next(&mut self) -> Result<Option<Frame>, Closed> {
        match self {
            Self::Local(local) => Ok(local.try_next()),
            Self::Stream(reader) => reader.try_next(),
            Self::Quic(reader) => reader.try_next(),
        }
    }

    /// Cancel-safe.
    async fn next(&mut self) -> Result<Frame, Closed> {
        match self {
            Self::Local(local) => local.next().await,
            Self::Stream(reader) => reader.next().await,
            Self::Quic(reader) => reader.next().await,
        }
    }
}
