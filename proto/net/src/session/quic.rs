//! Sessions over a QUIC connection: frames on one bidirectional stream, large segments beside it.
//!
//! A frame is delivered when its last segment is there; frames behind it may be earlier. How much is in flight is
//! bounded by the connection's windows, how much is held here by [`BULK_HELD_BYTES_MAX`] (or one frame).

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
};

use bytes::Bytes;
use fleetpool_proto::{
    Frame,
    limits::{BULK_FRAMES_MAX, BULK_HELD_BYTES_MAX, CLOSE_TIME_MAX, JOIN_FRAME_BYTES_MAX},
};
use quinn::{Connection, ConnectionError, RecvStream, SendStream, VarInt};
use tokio::{
    io::AsyncReadExt as _,
    task::{JoinError, JoinSet},
    time::timeout,
};

use super::{
    Receiver, Sender,
    bulk::BulkSender,
    end::{Cause, Closed, End},
    receiver::Source,
    spare,
    wire::{self, Apart, Decoder, Item},
    writer::Writer,
};

/// Control goes before bulk.
const CONTROL_PRIORITY: i32 = 1;
/// The connection's close carries no code of ours, only a reason.
const NO_CODE: VarInt = VarInt::from_u32(0);

/// The two halves of a session over a connection whose control stream is open.
pub(crate) fn open(
    connection: Connection,
    send: SendStream,
    recv: RecvStream,
) -> (Sender, Receiver) {
    let end = Arc::new(End::default());
    let (sender, queue) = Sender::new(Arc::clone(&end), None);
    // Fails on a stream that is closed already, which the first write reports.
    let _ = send.set_priority(CONTROL_PRIORITY);
    let bulk = BulkSender::new(connection.clone());
    let writer = Writer::new(send, queue, Arc::clone(&end), Some(bulk));
    tokio::spawn(write(writer, connection.clone(), Arc::clone(&end)));
    let reader = Reader {
        control: recv,
        connection,
        decoder: Decoder::new(JOIN_FRAME_BYTES_MAX),
        bulk: Bulk::default(),
        goodbye: None,
    };
    (sender, Receiver::new(Source::Quic(Box::new(reader)), end))
}

/// Writes the session, then sees the connection to its end.
async fn write(writer: Writer<SendStream>, connection: Connection, end: Arc<End>) {
    tokio::select! {
        () = writer.run() => {}
        _ = connection.closed() => return,
    }
    // A connection's close overtakes the data of its streams: the peer closes when it has read the goodbye.
    if end.get().is_none_or(|closed| closed.cause != Cause::Peer) {
        let _ = timeout(CLOSE_TIME_MAX, connection.closed()).await;
    }
    let reason = end.get().map_or("", |closed| closed.reason.as_str());
    let len = reason.floor_char_boundary(256);
    connection.close(NO_CODE, &reason.as_bytes()[..len]);
}

/// The reading half.
#[derive(Debug)]
pub(crate) struct Reader {
    control: RecvStream,
    connection: Connection,
    decoder: Decoder,
    bulk: Bulk,
    /// The peer's last word, kept until its bulk is here.
    goodbye: Option<String>,
}

/// Frames that wait for segments, and the streams that bring them.
#[derive(Debug, Default)]
struct Bulk {
    /// Whole frames, to be delivered.
    ready: VecDeque<Frame>,
    /// Frames with segments missing, by their number.
    partial: BTreeMap<u64, Partial>,
    /// Where segments belong that no stream has brought yet, by the segment's number.
    expected: BTreeMap<u64, Place>,
    /// Streams of segments that may not be read yet, or have not been announced, by the segment's number.
    parked: BTreeMap<u64, RecvStream>,
    /// Number of the next frame to come with segments apart.
    next_frame: u64,
    /// Number of the next segment to be announced.
    next_segment: u64,
    /// Frames below this number are being read.
    admitted: u64,
    /// Bytes of the partial frames that are being read.
    held: usize,
    tasks: JoinSet<Result<Step, Closed>>,
}

#[derive(Debug)]
struct Partial {
    frame: Frame,
    missing: usize,
    bytes: usize,
    segments: std::ops::Range<u64>,
}

#[derive(Clone, Copy, Debug)]
struct Place {
    frame: u64,
    apart: Apart,
}

/// What a task of a stream found.
#[derive(Debug)]
enum Step {
    Opened(u64, RecvStream),
    Read(Place, Bytes),
}

impl Reader {
    pub(crate) fn welcome(&mut self) {
        self.decoder.lift_limit();
        crate::transport::welcome(&self.connection);
    }

    pub(crate) fn try_next(&mut self) -> Result<Option<Frame>, Closed> {
        loop {
            if let Some(frame) = self.bulk.ready.pop_front() {
                return Ok(Some(frame));
            }
            if !self.reads_control() {
                return Ok(None);
            }
            match self.decoder.next()? {
                None => return Ok(None),
                Some(Item::Frame(frame, apart)) if apart.is_empty() => return Ok(Some(frame)),
                Some(Item::Frame(frame, apart)) => self.bulk.expect(frame, &apart),
                Some(Item::Goodbye(reason)) => self.goodbye = Some(reason),
            }
        }
    }

    /// Cancel-safe.
    pub(crate) async fn next(&mut self) -> Result<Frame, Closed> {
        loop {
            if let Some(frame) = self.try_next()? {
                return Ok(frame);
            }
            if let Some(reason) = self.last_word() {
                self.connection.close(NO_CODE, b"");
                return Err(wire::left(reason));
            }
            self.read_more().await?;
        }
    }

    async fn read_more(&mut self) -> Result<(), Closed> {
        let reads_control = self.reads_control();
        tokio::select! {
            read = self.control.read_buf(self.decoder.space()), if reads_control => match read {
                Ok(0) => Err(Closed::lost("the other side is gone")),
                Ok(_) => Ok(()),
                Err(error) => Err(self.broken(&error)),
            },
            stream = self.connection.accept_uni() => {
                let stream = stream.map_err(|error| lost(&error))?;
                self.bulk.tasks.spawn(number(stream));
                Ok(())
            },
            Some(step) = self.bulk.tasks.join_next() => self.bulk.on_step(step),
        }
    }

    /// Control waits while too many frames wait for their bulk.
    fn reads_control(&self) -> bool {
        self.goodbye.is_none() && self.bulk.partial.len() < BULK_FRAMES_MAX
    }

    fn last_word(&mut self) -> Option<String> {
        self.bulk.partial.is_empty().then(|| self.goodbye.take())?
    }

    fn broken(&self, error: &std::io::Error) -> Closed {
        match self.connection.close_reason() {
            Some(reason) => lost(&reason),
            None => Closed::lost(error),
        }
    }
}

impl Bulk {
    /// A frame whose segments come apart.
    fn expect(&mut self, frame: Frame, apart: &[Apart]) {
        let number = self.next_frame;
        self.next_frame += 1;
        let first = self.next_segment;
        for apart in apart {
            let place = Place {
                frame: number,
                apart: *apart,
            };
            self.expected.insert(self.next_segment, place);
            self.next_segment += 1;
        }
        let bytes = frame.len() + apart.iter().map(|apart| apart.len).sum::<usize>();
        let partial = Partial {
            frame,
            missing: apart.len(),
            bytes,
            segments: first..self.next_segment,
        };
        self.partial.insert(number, partial);
        self.admit();
    }

    /// Lets frames be read, in order, as long as they fit; one alone always does.
    fn admit(&mut self) {
        while let Some(partial) = self.partial.get(&self.admitted) {
            if self.held > 0 && self.held + partial.bytes > BULK_HELD_BYTES_MAX {
                return;
            }
            self.held += partial.bytes;
            self.admitted += 1;
            for segment in partial.segments.clone() {
                if let Some(stream) = self.parked.remove(&segment) {
                    let place = self
                        .expected
                        .remove(&segment)
                        .expect("parked once, read once");
                    self.tasks.spawn(read(stream, place));
                }
            }
        }
    }

    fn on_step(&mut self, step: Result<Result<Step, Closed>, JoinError>) -> Result<(), Closed> {
        match step.map_err(Closed::lost)?? {
            Step::Opened(segment, stream) => self.on_opened(segment, stream),
            Step::Read(place, bytes) => {
                self.on_read(place, bytes);
                Ok(())
            }
        }
    }

    fn on_opened(&mut self, segment: u64, stream: RecvStream) -> Result<(), Closed> {
        let place = self.expected.get(&segment).copied();
        match place {
            Some(place) if place.frame < self.admitted => {
                self.expected.remove(&segment);
                self.tasks.spawn(read(stream, place));
            }
            None if segment < self.next_segment => return Err(twice(segment)),
            _ => {
                if self.parked.insert(segment, stream).is_some() {
                    return Err(twice(segment));
                }
            }
        }
        Ok(())
    }

    fn on_read(&mut self, place: Place, bytes: Bytes) {
        let Some(partial) = self.partial.get_mut(&place.frame) else {
            return;
        };
        partial.frame.body[place.apart.segment] = bytes;
        partial.missing -= 1;
        if partial.missing > 0 {
            return;
        }
        if let Some(whole) = self.partial.remove(&place.frame) {
            self.held -= whole.bytes;
            self.ready.push_back(whole.frame);
            self.admit();
        }
    }
}

fn twice(segment: u64) -> Closed {
    Closed::malformed(format!("bulk segment {segment} was sent twice"))
}

/// The number at the front of a bulk stream.
async fn number(mut stream: RecvStream) -> Result<Step, Closed> {
    let mut number = [0; 8];
    let read = stream.read_exact(&mut number).await;
    read.map_err(|error| Closed::malformed(format!("bulk stream without a number: {error}")))?;
    Ok(Step::Opened(u64::from_be_bytes(number), stream))
}

/// The rest of it: exactly what was announced.
async fn read(mut stream: RecvStream, place: Place) -> Result<Step, Closed> {
    let len = place.apart.len;
    let wrong = |got: &str| Closed::malformed(format!("bulk segment of {len} bytes has {got}"));
    let mut bytes = spare::take(len);
    while let Some(chunk) = stream
        .read_chunk(len + 1 - bytes.len(), true)
        .await
        .map_err(|error| match error {
            quinn::ReadError::ConnectionLost(error) => lost(&error),
            other => wrong(&other.to_string()),
        })?
    {
        if bytes.len() + chunk.bytes.len() > len {
            return Err(wrong("more"));
        }
        bytes.extend_from_slice(&chunk.bytes);
    }
    if bytes.len() < len {
        return Err(wrong(&bytes.len().to_string()));
    }
    Ok(Step::Read(place, spare::freeze(bytes)))
}

/// Why a connection is no more.
pub(crate) fn lost(error: &ConnectionError) -> Closed {
    match error {
        ConnectionError::ApplicationClosed(close) => {
            let reason = String::from_utf8_lossy(&close.reason).into_owned();
            Closed::new(Cause::Peer, reason)
        }
        ConnectionError::TimedOut => {
            Closed::lost("nothing was heard of the other side for 10 seconds")
        }
        ConnectionError::Reset => {
            Closed::lost("the other side does not know this session any more")
        }
        other => Closed::lost(other),
    }
}
