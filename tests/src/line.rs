//! A line between hosts and their coordinator, for tests to cut and to make worse.
//!
//! It passes UDP on, in a thread of its own. Nobody listens at its address by TCP, so whoever dials it comes by QUIC.

use std::{
    collections::{BTreeMap, btree_map::Entry},
    net::{Ipv4Addr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::Instant,
};

use tokio::{
    net::UdpSocket,
    sync::{mpsc, oneshot},
    time::sleep_until,
};

use crate::way::{Arrival, Quality, Way};

/// Longest datagram.
const DATAGRAM_BYTES_MAX: usize = 1 << 16;

/// Passes datagrams on between hosts and a coordinator, until it is dropped.
#[derive(Debug)]
pub struct Line {
    address: SocketAddr,
    /// Nothing passes to the coordinator, or from it.
    cut_up: Arc<AtomicBool>,
    cut_down: Arc<AtomicBool>,
    /// Dropped to end the thread.
    over: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Line {
    /// A line to a coordinator at `to` on which nothing goes wrong.
    ///
    /// # Panics
    /// When there are no ports.
    #[must_use]
    pub fn to(to: SocketAddr) -> Self {
        Self::of(Quality::default(), to)
    }

    /// A line of that quality, each way.
    ///
    /// # Panics
    /// When there are no ports.
    #[must_use]
    pub fn of(quality: Quality, to: SocketAddr) -> Self {
        let [cut_up, cut_down] = [(); 2].map(|()| Arc::new(AtomicBool::new(false)));
        let (over, until) = oneshot::channel();
        let (tell, told) = std::sync::mpsc::channel();
        let (up, down) = (Arc::clone(&cut_up), Arc::clone(&cut_down));
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build();
            runtime.expect("a runtime").block_on(async {
                let near = Arc::new(socket().await);
                tell.send(near.local_addr().expect("bound"))
                    .expect("awaited");
                let line = Ends {
                    near,
                    to,
                    quality,
                    cut_up: up,
                    cut_down: down,
                };
                tokio::select! {
                    () = line.serve() => {}
                    _ = until => {}
                }
            });
        });
        Self {
            address: told.recv().expect("the line is up"),
            cut_up,
            cut_down,
            over: Some(over),
            thread: Some(thread),
        }
    }

    /// Where hosts dial.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Lets nothing pass, or everything again.
    pub fn cut(&self, on: bool) {
        self.cut_up(on);
        self.cut_down(on);
    }

    /// The same for what goes to the coordinator alone.
    pub fn cut_up(&self, on: bool) {
        self.cut_up.store(on, Ordering::Relaxed);
    }

    /// The same for what comes from the coordinator alone.
    pub fn cut_down(&self, on: bool) {
        self.cut_down.store(on, Ordering::Relaxed);
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        drop(self.over.take());
        if let Some(thread) = self.thread.take() {
            thread.join().ok();
        }
    }
}

struct Ends {
    near: Arc<UdpSocket>,
    to: SocketAddr,
    quality: Quality,
    cut_up: Arc<AtomicBool>,
    cut_down: Arc<AtomicBool>,
}

impl Ends {
    /// Each source gets a socket of its own towards the coordinator, as behind a router that translates addresses.
    async fn serve(&self) {
        let mut sources: BTreeMap<SocketAddr, Pipe> = BTreeMap::new();
        let mut buffer = vec![0; DATAGRAM_BYTES_MAX];
        loop {
            let Ok((len, source)) = self.near.recv_from(&mut buffer).await else {
                continue;
            };
            let pipe = match sources.entry(source) {
                Entry::Occupied(known) => known.into_mut(),
                Entry::Vacant(new) => new.insert(self.open(source).await),
            };
            pipe.send(&buffer[..len]);
        }
    }

    /// The way up for a source; the way down runs by itself.
    async fn open(&self, source: SocketAddr) -> Pipe {
        let far = Arc::new(socket().await);
        far.connect(self.to).await.expect("loopback");
        let mut back = self.pipe(Arc::clone(&self.near), Some(source), &self.cut_down);
        let answers = Arc::clone(&far);
        tokio::spawn(async move {
            let mut buffer = vec![0; DATAGRAM_BYTES_MAX];
            loop {
                // An error is the coordinator's port being closed for a while.
                if let Ok(len) = answers.recv(&mut buffer).await {
                    back.send(&buffer[..len]);
                }
            }
        });
        self.pipe(far, None, &self.cut_up)
    }

    fn pipe(&self, socket: Arc<UdpSocket>, to: Option<SocketAddr>, cut: &Arc<AtomicBool>) -> Pipe {
        let end = End { socket, to };
        let (queue, mut packets) = mpsc::unbounded_channel::<(Instant, Vec<u8>)>();
        let delivers = end.clone();
        tokio::spawn(async move {
            while let Some((at, packet)) = packets.recv().await {
                // A timer counts whole milliseconds, and would hold up what is not late.
                if at > Instant::now() {
                    sleep_until(at.into()).await;
                }
                delivers.deliver(&packet).await;
            }
        });
        Pipe {
            way: Way::new(self.quality),
            cut: Arc::clone(cut),
            end,
            queue,
        }
    }
}

/// One direction, for one host.
struct Pipe {
    way: Way,
    cut: Arc<AtomicBool>,
    end: End,
    queue: mpsc::UnboundedSender<(Instant, Vec<u8>)>,
}

impl Pipe {
    fn send(&mut self, packet: &[u8]) {
        if self.cut.load(Ordering::Relaxed) {
            return;
        }
        for Arrival { at, overtaken } in self.way.send(Instant::now(), packet.len()) {
            let packet = packet.to_vec();
            if !overtaken {
                // The queue lives as long as the line does.
                self.queue.send((at, packet)).ok();
                continue;
            }
            let end = self.end.clone();
            tokio::spawn(async move {
                sleep_until(at.into()).await;
                end.deliver(&packet).await;
            });
        }
    }
}

#[derive(Clone)]
struct End {
    socket: Arc<UdpSocket>,
    to: Option<SocketAddr>,
}

impl End {
    async fn deliver(&self, packet: &[u8]) {
        let sent = match self.to {
            Some(to) => self.socket.send_to(packet, to).await,
            None => self.socket.send(packet).await,
        };
        // A line loses what it cannot deliver.
        sent.ok();
    }
}

async fn socket() -> UdpSocket {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await;
    socket.expect("a port")
}
