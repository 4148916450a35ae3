//! Strangers at a coordinator's door, who do not want in: they say nothing, half a word, or pretend to be many.
//!
//! Used by tests and benches alike, against coordinators that are real processes.

use std::{
    net::{Ipv4Addr, SocketAddr, UdpSocket},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use quinn::{ClientConfig, Endpoint, crypto::rustls::QuicClientConfig};
use rustls::crypto::ring;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    sync::oneshot,
    task::JoinSet,
    time::{sleep, timeout},
};

/// Between two attempts of one that was turned away.
const PAUSE: Duration = Duration::from_millis(100);
/// How long a connection may take, which may wait with the kernel.
const CONNECT_MAX: Duration = Duration::from_secs(10);
/// How a TLS client begins: a record of a handshake, 512 bytes of it to come.
const HALF_A_HELLO: &[u8] = &[0x16, 0x03, 0x01, 0x02, 0x00, 0x01];
/// Length of a first packet of QUIC, which must fill a datagram.
const INITIAL_BYTES: usize = 1200;
/// Different first packets; more would tell the coordinator nothing new.
const INITIALS: usize = 2000;
/// Addresses that a flood comes from.
const SOURCES: u8 = 250;
/// Packets of a flood are sent so often, many at a time.
const TICK: Duration = Duration::from_millis(1);

/// Connections that say nothing, or half a word, and begin anew when they are shown out.
#[derive(Debug)]
pub struct Idle {
    connected: Arc<AtomicUsize>,
    over: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Idle {
    /// So many connections to `to` by TCP.
    ///
    /// # Panics
    /// When there is no runtime to be had.
    #[must_use]
    pub fn start(to: SocketAddr, count: usize) -> Self {
        let connected = Arc::new(AtomicUsize::new(0));
        let (over, until) = oneshot::channel();
        let counts = Arc::clone(&connected);
        let thread = std::thread::spawn(move || {
            runtime().block_on(async {
                let mut all = JoinSet::new();
                for number in 0..count {
                    all.spawn(stand(to, number % 2 == 0, Arc::clone(&counts)));
                }
                // Whoever holds the other end drops it.
                until.await.ok();
            });
        });
        Self {
            connected,
            over: Some(over),
            thread: Some(thread),
        }
    }

    /// Connections that the kernel or the coordinator has taken, so far.
    #[must_use]
    pub fn connected(&self) -> usize {
        self.connected.load(Ordering::Relaxed)
    }
}

impl Drop for Idle {
    fn drop(&mut self) {
        drop(self.over.take());
        if let Some(thread) = self.thread.take() {
            thread.join().ok();
        }
    }
}

async fn stand(to: SocketAddr, speaks: bool, connected: Arc<AtomicUsize>) {
    loop {
        if let Ok(Ok(mut socket)) = timeout(CONNECT_MAX, TcpStream::connect(to)).await {
            connected.fetch_add(1, Ordering::Relaxed);
            if speaks {
                socket.write_all(HALF_A_HELLO).await.ok();
            }
            // Until it is shown out.
            socket.read_to_end(&mut Vec::new()).await.ok();
        }
        sleep(PAUSE).await;
    }
}

/// First packets of QUIC from many addresses, none of whose senders will ever answer: every second one a true one.
#[derive(Debug)]
pub struct Flood {
    sent: Arc<AtomicU64>,
    over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Flood {
    /// So many packets a second to `to`, or as many as this machine has time for.
    ///
    /// # Panics
    /// When there are no sockets to be had.
    #[must_use]
    pub fn start(to: SocketAddr, per_s: u32, initials: &Arc<Vec<Vec<u8>>>) -> Self {
        let sent = Arc::new(AtomicU64::new(0));
        let over = Arc::new(AtomicBool::new(false));
        let sources: Vec<UdpSocket> = (1..=SOURCES)
            .map(|last| UdpSocket::bind((Ipv4Addr::new(127, 0, 9, last), 0)).expect("loopback"))
            .collect();
        let (counts, ends, initials) = (Arc::clone(&sent), Arc::clone(&over), Arc::clone(initials));
        let thread = std::thread::spawn(move || {
            let (start, mut paid) = (Instant::now(), 0);
            let mut packets = initials.iter().cycle();
            let mut sockets = sources.iter().cycle();
            while !ends.load(Ordering::Relaxed) {
                let due = start.elapsed().as_micros() * u128::from(per_s) / 1_000_000;
                let due = u64::try_from(due).unwrap_or(u64::MAX);
                // What there was no time for is left out.
                let now = (due - paid).min(u64::from(per_s) / 100);
                paid = due;
                for _ in 0..now {
                    if let (Some(packet), Some(socket)) = (packets.next(), sockets.next()) {
                        // A full buffer loses it, as it would with others.
                        socket.send_to(packet, to).ok();
                    }
                }
                counts.fetch_add(now, Ordering::Relaxed);
                std::thread::sleep(TICK);
            }
        });
        Self {
            sent,
            over,
            thread: Some(thread),
        }
    }

    /// Packets so far.
    #[must_use]
    pub fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }
}

impl Drop for Flood {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.join().ok();
        }
    }
}

/// First packets as a flood sends them: of a real client, each of a connection of its own, and as many that look so and
/// are noise.
///
/// # Panics
/// When there is no loopback.
#[must_use]
pub fn initials() -> Arc<Vec<Vec<u8>>> {
    let mut packets: Vec<Vec<u8>> = runtime().block_on(real_initials());
    let mut noise = 0x9e37_79b9_u32;
    for number in 0..packets.len() {
        let mut packet = packets[number].clone();
        // Behind the connection's names, so that it is a packet of QUIC until its keys are tried.
        for byte in packet.iter_mut().skip(40) {
            noise = noise.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            *byte = noise.to_be_bytes()[0];
        }
        packets.push(packet);
    }
    // One of each after the other.
    let half = packets.len() / 2;
    let (real, noise) = packets.split_at(half);
    let both = real
        .iter()
        .zip(noise)
        .flat_map(|(real, noise)| [real, noise]);
    Arc::new(both.cloned().collect())
}

/// What a client sends to somebody who does not answer.
async fn real_initials() -> Vec<Vec<u8>> {
    let sink = tokio::net::UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))
        .await
        .expect("loopback");
    let at = sink.local_addr().expect("bound");
    let endpoint = Endpoint::client((Ipv4Addr::LOCALHOST, 0).into()).expect("loopback");
    let tls = rustls::ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .expect("TLS 1.3")
        .with_root_certificates(rustls::RootCertStore::empty())
        .with_no_client_auth();
    let config = ClientConfig::new(Arc::new(QuicClientConfig::try_from(tls).expect("TLS 1.3")));
    let mut initials = Vec::new();
    let mut datagram = [0; 2048];
    while initials.len() < INITIALS {
        let connecting = endpoint.connect_with(config.clone(), at, "fleetpool");
        let len = sink.recv(&mut datagram).await.expect("loopback");
        // The goodbyes of those before are shorter, or not first packets.
        if len >= INITIAL_BYTES {
            initials.push(datagram[..len].to_vec());
        }
        drop(connecting);
    }
    initials
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime")
}
