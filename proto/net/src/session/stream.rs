//! Sessions over one byte stream: Unix sockets, TLS over TCP. Every segment travels inline.

use std::{fmt, io::ErrorKind, sync::Arc};

use fleetpool_proto::{
    Frame,
    limits::{CLOSE_TIME_MAX, JOIN_FRAME_BYTES_MAX},
};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite},
    runtime::Handle,
    time::timeout,
};

use super::{
    Receiver, Sender,
    end::{Closed, End},
    receiver::Source,
    wire::{self, Decoder, Item},
    writer::Writer,
};

type BoxedRead = Box<dyn AsyncRead + Send + Sync + Unpin>;

/// The two halves of a session over a byte stream. Until [`Receiver::welcome`], frames from the peer must be small.
pub(crate) fn open(
    read: impl AsyncRead + Send + Sync + Unpin + 'static,
    write: impl AsyncWrite + Send + Unpin + 'static,
) -> (Sender, Receiver) {
    let end = Arc::new(End::default());
    let (sender, queue) = Sender::new(Arc::clone(&end), None);
    tokio::spawn(Writer::new(write, queue, Arc::clone(&end), None).run());
    let reader = Reader {
        io: Some(Box::new(read)),
        decoder: Decoder::new(JOIN_FRAME_BYTES_MAX),
    };
    (sender, Receiver::new(Source::Stream(reader), end))
}

/// The reading half.
pub(crate) struct Reader {
    /// There until drop.
    io: Option<BoxedRead>,
    decoder: Decoder,
}

impl fmt::Debug for Reader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reader")
            .field("decoder", &self.decoder)
            .finish_non_exhaustive()
    }
}

impl Reader {
    pub(crate) fn welcome(&mut self) {
        self.decoder.lift_limit();
    }

    pub(crate) fn try_next(&mut self) -> Result<Option<Frame>, Closed> {
        match self.decoder.next()? {
            None => Ok(None),
            Some(Item::Frame(frame, apart)) if apart.is_empty() => Ok(Some(frame)),
            Some(Item::Frame(..)) => Err(Closed::malformed(
                "a segment sent apart on a carrier without streams",
            )),
            Some(Item::Goodbye(reason)) => Err(wire::left(reason)),
        }
    }

    /// Cancel-safe.
    pub(crate) async fn next(&mut self) -> Result<Frame, Closed> {
        loop {
            if let Some(frame) = self.try_next()? {
                return Ok(frame);
            }
            let Some(io) = &mut self.io else {
                return Err(Closed::lost("the connection is gone"));
            };
            match io.read_buf(self.decoder.space()).await {
                Ok(0) if self.decoder.is_amid() => {
                    return Err(Closed::lost(
                        "the other side broke off in the middle of a frame",
                    ));
                }
                Ok(0) => return Err(Closed::lost("the other side is gone")),
                Ok(_) => {}
                // TLS tells a connection that just ended from one that was ended with a word. Here both have ended.
                Err(error) if error.kind() == ErrorKind::UnexpectedEof => {
                    return Err(Closed::lost("the other side is gone"));
                }
                Err(error) => return Err(Closed::lost(error)),
            }
        }
    }
}

impl Drop for Reader {
    /// A socket that is closed with unread data resets its connection, and a goodbye that was lost on the way is
    /// not sent again: so the rest is read, until the peer is gone too.
    fn drop(&mut self) {
        if let (Some(io), Ok(runtime)) = (self.io.take(), Handle::try_current()) {
            runtime.spawn(timeout(CLOSE_TIME_MAX, drain(io)));
        }
    }
}

async fn drain(mut io: BoxedRead) {
    let mut sink = [0; 4096];
    while matches!(io.read(&mut sink).await, Ok(read) if read > 0) {}
}
