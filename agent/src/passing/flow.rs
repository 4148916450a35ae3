//! One content on its way through this host.

use std::{
    fs::File,
    future::poll_fn,
    io,
    os::unix::fs::FileExt as _,
    sync::Arc,
    task::{Context, Poll},
};

use blake3::Hasher;
use fleetpool_net::pinned::{PinnedKey, PinnedListener};
use fleetpool_proto::{
    PeerPin,
    limits::{FRAME_BODY_BYTES_MAX, PASSING_BEAT, PASSING_IDLE_MAX},
    pool::ContentHash,
};
use tokio::{
    sync::mpsc,
    time::{Instant, MissedTickBehavior, interval},
};

use super::{Order, PIECE_BYTES_MAX, Passed, guest::Guest, source::Source};
use crate::content::{self, Held};

/// What a flow owns.
pub(super) struct Flow {
    hash: ContentHash,
    /// The content's size.
    bytes: usize,
    key: Arc<PinnedKey>,
    told: mpsc::UnboundedSender<Passed>,
    content: Content,
    source: Option<Source>,
    /// What has been read of it and not been kept yet.
    buffer: Vec<u8>,
    listener: Option<PinnedListener>,
    guests: Vec<Guest>,
    /// When a guest was last here, or invited.
    hosted: Instant,
}

/// As far as it has come.
pub(super) enum Content {
    /// Nothing has come, or it is gone.
    Nothing,
    /// From another agent, unchecked: passed on as it comes, and believed by nobody before all of it is there.
    Coming {
        file: File,
        len: usize,
        hasher: Box<Hasher>,
    },
    /// All of it, checked, and how much that is.
    Here(Held, usize),
}

impl Content {
    fn begin() -> io::Result<Self> {
        Ok(Self::Coming {
            file: content::in_memory()?,
            len: 0,
            hasher: Box::default(),
        })
    }

    /// Bytes that are here.
    pub(super) fn len(&self) -> usize {
        match self {
            Self::Nothing => 0,
            Self::Coming { len, .. } | Self::Here(_, len) => *len,
        }
    }

    /// Bytes of it that are here, from there on.
    pub(super) fn read_at(&self, at: usize, into: &mut [u8]) -> io::Result<()> {
        match self {
            Self::Nothing => Err(io::ErrorKind::UnexpectedEof.into()),
            Self::Coming { file, .. } => read_file(file, at, into),
            Self::Here(Held::File(file), _) => read_file(file, at, into),
            Self::Here(Held::Bytes(bytes), _) => {
                let piece = bytes.get(at..at + into.len());
                into.copy_from_slice(piece.ok_or(io::ErrorKind::UnexpectedEof)?);
                Ok(())
            }
        }
    }

    /// More has come.
    fn add(&mut self, more: &[u8]) -> io::Result<()> {
        let Self::Coming { file, len, hasher } = self else {
            return Err(io::Error::other("nothing is to come"));
        };
        file.write_all_at(more, u64::try_from(*len).map_err(io::Error::other)?)?;
        hasher.update(more);
        *len += more.len();
        Ok(())
    }
}

fn read_file(file: &File, at: usize, into: &mut [u8]) -> io::Result<()> {
    file.read_exact_at(into, u64::try_from(at).map_err(io::Error::other)?)
}

impl Flow {
    pub(super) fn new(
        hash: ContentHash,
        bytes: usize,
        key: Arc<PinnedKey>,
        told: mpsc::UnboundedSender<Passed>,
    ) -> Self {
        Self {
            hash,
            bytes: bytes.min(FRAME_BODY_BYTES_MAX),
            key,
            told,
            content: Content::Nothing,
            source: None,
            buffer: vec![0; PIECE_BYTES_MAX],
            listener: None,
            guests: Vec::new(),
            hosted: Instant::now(),
        }
    }

    /// Until nobody wants anything of it any more.
    pub(super) async fn run(mut self, mut orders: mpsc::UnboundedReceiver<Order>) {
        let mut beat = interval(PASSING_BEAT);
        beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        if let Some(order) = orders.recv().await {
            self.on_order(order).await;
        }
        while !self.is_over() {
            tokio::select! {
                biased;
                order = orders.recv() => match order {
                    Some(order) => self.on_order(order).await,
                    // The agent is gone.
                    None => return,
                },
                _ = beat.tick() => self.on_beat(),
                () = poll_fn(|context| self.poll(context)) => {}
            }
        }
        // What was ordered meanwhile is not done here any more.
        orders.close();
        while let Some(order) = orders.recv().await {
            match order {
                Order::Fetch(..) => self.fail("it was about to be forgotten"),
                Order::PassOn(peers) => self.tell(Passed::Port(self.hash, 0, peers)),
                Order::Here(..) | Order::Unneeded => {}
            }
        }
    }

    fn is_over(&self) -> bool {
        let listens = self.listener.is_some() && self.hosted.elapsed() < PASSING_IDLE_MAX;
        self.source.is_none() && self.guests.is_empty() && !listens
    }

    async fn on_order(&mut self, order: Order) {
        match order {
            Order::Fetch(addresses, pin) => {
                if self.content.len() > 0 {
                    // It begins anew, and they cannot.
                    self.guests.clear();
                }
                match Content::begin() {
                    Ok(content) => {
                        self.content = content;
                        self.source = Some(Source::dial(Arc::clone(&self.key), addresses, pin));
                    }
                    Err(error) => self.fail(&error.to_string()),
                }
            }
            Order::PassOn(peers) => {
                let port = self.listen(&peers).await;
                self.tell(Passed::Port(self.hash, port, peers));
            }
            Order::Here(held, len) => {
                self.source = None;
                self.bytes = len;
                self.content = Content::Here(held, len);
            }
            Order::Unneeded => self.close(),
        }
    }

    /// Lets these in; the port, or 0.
    async fn listen(&mut self, peers: &[PeerPin]) -> u16 {
        if self.listener.is_none() {
            let bound = PinnedListener::bind(&self.key).await;
            self.listener = bound
                .inspect_err(|error| tracing::warn!(%error, "content is not passed on: no port"))
                .ok();
        }
        let Some(listener) = &mut self.listener else {
            return 0;
        };
        peers.iter().for_each(|peer| listener.invite(*peer));
        self.hosted = Instant::now();
        listener.port().unwrap_or(0)
    }

    /// Whoever is being served still is, if that is possible.
    fn close(&mut self) {
        self.listener = None;
        self.source = None;
        if !matches!(self.content, Content::Here(..)) {
            self.guests.clear();
        }
    }

    fn on_beat(&mut self) {
        self.guests.retain_mut(Guest::beat);
        if let Some(fault) = self.source.as_ref().and_then(Source::fault) {
            self.fail(fault);
        }
    }

    /// Moves what can be moved. Ready when something is over.
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<()> {
        loop {
            let moved = self.poll_source(context);
            self.poll_guests(context);
            if moved.is_pending() {
                break;
            }
        }
        match self.is_over() {
            true => Poll::Ready(()),
            false => Poll::Pending,
        }
    }

    fn poll_source(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let (Some(source), content) = (&mut self.source, &mut self.content) else {
            return Poll::Pending;
        };
        let lacks = self.bytes.saturating_sub(content.len());
        let read = std::task::ready!(source.poll(context, &mut self.buffer, lacks));
        match read.and_then(|read| content.add(&self.buffer[..read])) {
            Ok(()) if content.len() == self.bytes => self.complete(),
            Ok(()) => {}
            Err(error) => self.fail(&error.to_string()),
        }
        Poll::Ready(())
    }

    fn poll_guests(&mut self, context: &mut Context<'_>) {
        if let Some(listener) = &mut self.listener {
            while let Poll::Ready(stream) = listener.poll_guest(context) {
                self.guests.push(Guest::new(stream));
            }
        }
        if self.guests.is_empty() {
            return;
        }
        self.hosted = Instant::now();
        let (content, bytes) = (&self.content, self.bytes);
        self.guests
            .retain_mut(|guest| match guest.poll(context, content, bytes) {
                Poll::Pending => true,
                Poll::Ready(sent) => {
                    if let Err(error) = sent {
                        tracing::info!(%error, "an agent that content was passed on to is gone");
                    }
                    false
                }
            });
    }

    /// All bytes are there: whether they are the content.
    fn complete(&mut self) {
        self.source = None;
        match std::mem::replace(&mut self.content, Content::Nothing) {
            Content::Coming { file, len, hasher }
                if hasher.finalize().as_bytes() == &self.hash.0 && content::seal(&file).is_ok() =>
            {
                let file = Arc::new(file);
                self.content = Content::Here(Held::File(Arc::clone(&file)), len);
                self.tell(Passed::Came(self.hash, file, len));
            }
            _ => {
                // What was passed on was no better. They find out, too.
                self.guests.clear();
                self.fail("what came under this hash is something else");
            }
        }
    }

    /// The coordinator is to be asked. Who waits here goes on waiting.
    fn fail(&mut self, why: &str) {
        self.source = None;
        self.tell(Passed::Failed(self.hash, why.to_owned()));
    }

    fn tell(&self, passed: Passed) {
        // An agent that is gone needs not know.
        let _ = self.told.send(passed);
    }
}
