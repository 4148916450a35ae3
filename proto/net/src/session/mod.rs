//! A session: frames each way, at most once, in order, bounded, until one side ends it with a reason.
//!
//! [`Sender`] and [`Receiver`] are the same for every carrier. Behind a sender stands a bounded queue; behind a
//! receiver a source that reads only when asked. `local` joins the two directly; `stream` (Unix sockets, TLS over
//! TCP) and `quic` put a [`writer`] and a [`wire`] decoder between them, `quic` also `bulk` streams.

mod bulk;
mod end;
mod local;
pub(crate) mod quic;
mod receiver;
mod sender;
mod spare;
pub(crate) mod stream;
mod wire;
mod writer;

pub use end::{Cause, Closed};
pub use local::local_pair;
pub use receiver::Receiver;
pub use sender::{Sender, TrySendError};

use crate::peer::Peer;

/// A live session with a peer. Take it apart by moving its fields.
#[derive(Debug)]
pub struct Session {
    /// Who is at the other end.
    pub peer: Peer,
    /// The way there.
    pub sender: Sender,
    /// The way back.
    pub receiver: Receiver,
}
