//! Sessions inside one process: frames are handed over as they are.

use std::sync::Arc;

use fleetpool_proto::Frame;
use tokio::sync::mpsc;

use super::{
    Receiver, Sender, Session,
    end::{Cause, Closed, End},
    receiver::Source,
    sender::Queued,
};
use crate::peer::Peer;

/// The two ends of a session inside this process: what `dialler` holds (its peer is `listener`), and the other.
#[must_use]
pub fn local_pair(dialler: Peer, listener: Peer) -> (Session, Session) {
    let ends = (Arc::new(End::default()), Arc::new(End::default()));
    let (to_listener, from_dialler) = Sender::new(Arc::clone(&ends.0), Some(Arc::clone(&ends.1)));
    let (to_dialler, from_listener) = Sender::new(Arc::clone(&ends.1), Some(Arc::clone(&ends.0)));
    let dialled = Session {
        peer: listener,
        sender: to_listener,
        receiver: Receiver::new(Source::Local(Local(from_listener)), ends.0),
    };
    let listened = Session {
        peer: dialler,
        sender: to_dialler,
        receiver: Receiver::new(Source::Local(Local(from_dialler)), ends.1),
    };
    (dialled, listened)
}

/// The other end's queue.
#[derive(Debug)]
pub(crate) struct Local(mpsc::Receiver<Queued>);

impl Local {
    pub(crate) fn try_next(&mut self) -> Option<Frame> {
        self.0.try_recv().ok().map(|queued| queued.frame)
    }

    /// Cancel-safe.
    pub(crate) async fn next(&mut self) -> Result<Frame, Closed> {
        let gone = || Closed::new(Cause::Peer, "the other side has left");
        let queued = self.0.recv().await.ok_or_else(gone)?;
        Ok(queued.frame)
    }
}
