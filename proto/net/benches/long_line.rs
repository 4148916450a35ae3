//! Bodies over a line of 50 ms round trip and 100 Mbit/s, without and with 1 % loss:
//! `cargo bench -p fleetpool-net --bench long_line`. What congestion control is good for shows here and not on
//! loopback.
#![expect(clippy::print_stdout, reason = "a bench prints")]

use std::{
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use fleetpool_net::{
    Address, Gatekeeper, JoinRequest, Listener, Peer, ServerIdentity, Session, connect,
    identity::{ClusterCa, Identity, Issued},
};
use fleetpool_proto::{
    Frame, Role,
    version::{Hello, Welcome},
};
use tokio::{
    net::UdpSocket,
    sync::mpsc,
    time::{sleep, sleep_until, timeout},
};

const DAY: Duration = Duration::from_secs(24 * 3600);
const ONE_WAY: Duration = Duration::from_millis(25);
const BYTES_PER_S: u64 = 100_000_000 / 8;
/// Datagrams that would wait longer than this at the narrow place are dropped.
const BUFFER: Duration = Duration::from_millis(100);
/// As on Ethernet. Longer ones are lost.
const DATAGRAM_BYTES_MAX: usize = 1472;
const FOR: Duration = Duration::from_secs(12);
const BODY: usize = 1 << 20;
const BURSTS: usize = 9;
const PAUSE: Duration = Duration::from_millis(500);

struct Everybody;

impl Gatekeeper for Everybody {
    fn admit(&self, _: &Peer) -> Result<(), String> {
        Ok(())
    }

    fn join(&self, _: JoinRequest, _: &str) -> Result<Issued, String> {
        Err("a bench invites nobody".to_owned())
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    println!("loss in 1,000  MB/s (the line has 12.5)  ms for 1 MiB after a pause (109 at best)");
    for loss in [0, 1, 10, 50] {
        let [bulk, burst] = [bulk(loss).await, burst(loss).await];
        println!("{loss:>13}  {bulk:>26.2}  {burst:>42.0}");
    }
}

/// MB/s of bodies one after another, slow start included.
async fn bulk(loss: u32) -> f64 {
    let (a, mut b) = session(loss).await;
    let send = tokio::spawn(async move { while a.sender.send(body()).await.is_ok() {} });
    let began = Instant::now();
    let mut frames = 0_u32;
    while let Ok(Ok(_)) = timeout(FOR.saturating_sub(began.elapsed()), b.receiver.recv()).await {
        frames += 1;
    }
    send.abort();
    f64::from(frames) * 1.048_576 / began.elapsed().as_secs_f64()
}

/// Milliseconds (median) that one body takes on a line that was quiet.
async fn burst(loss: u32) -> f64 {
    let (a, mut b) = session(loss).await;
    let mut took = Vec::new();
    for _ in 0..BURSTS {
        sleep(PAUSE).await;
        let began = Instant::now();
        a.sender.send(body()).await.expect("open");
        b.receiver.recv().await.expect("open");
        took.push(began.elapsed().as_secs_f64() * 1e3);
    }
    took.sort_by(f64::total_cmp);
    took[took.len() / 2]
}

fn body() -> Frame {
    Frame {
        header: Bytes::from_static(b"header"),
        body: vec![vec![7; BODY].into()],
    }
}

/// A session over a line like that.
async fn session(loss: u32) -> (Session, Session) {
    let ca = ClusterCa::create("bench").expect("a name");
    let head = ca.identity(Role::Coordinator, "head", DAY).expect("a name");
    let server = ServerIdentity::new(head).expect("a coordinator");
    let any: Address = "127.0.0.1:0".parse().expect("an address");
    let mut listener = Listener::bind(&[any], server, Arc::new(Everybody)).expect("loopback");
    let line = line(listener.local_addr().expect("a port"), loss).await;
    let identity = ca.identity(Role::User, "u", DAY).expect("a name");
    tokio::join!(dialled(line, &identity), served(&mut listener))
}

async fn dialled(line: SocketAddr, identity: &Identity) -> Session {
    let hello = Hello::new(Role::User, "u");
    let address = Address::Tcp(line.to_string());
    connect(&address, Some(identity), hello)
        .await
        .expect("the line is good enough")
        .0
}

async fn served(listener: &mut Listener) -> Session {
    let incoming = listener.accept().await;
    incoming
        .welcome(Welcome::default())
        .await
        .expect("the line is good enough")
}

/// A line to `to`, for one dialler.
async fn line(to: SocketAddr, loss: u32) -> SocketAddr {
    let near = Arc::new(UdpSocket::bind("127.0.0.1:0").await.expect("loopback"));
    let far = Arc::new(UdpSocket::bind("127.0.0.1:0").await.expect("loopback"));
    far.connect(to).await.expect("loopback");
    let address = near.local_addr().expect("bound");
    let mut first = [0; 2048];
    let waits = Arc::clone(&near);
    tokio::spawn(async move {
        let (len, dialler) = waits.recv_from(&mut first).await.expect("loopback");
        waits.connect(dialler).await.expect("loopback");
        far.send(&first[..len]).await.expect("loopback");
        tokio::spawn(one_way(Arc::clone(&waits), Arc::clone(&far), loss));
        one_way(far, waits, loss).await;
    });
    address
}

async fn one_way(from: Arc<UdpSocket>, to: Arc<UdpSocket>, loss: u32) {
    let (queue, mut due) = mpsc::unbounded_channel::<(Instant, Vec<u8>)>();
    tokio::spawn(async move {
        while let Some((at, datagram)) = due.recv().await {
            sleep_until(at.into()).await;
            let _ = to.send(&datagram).await;
        }
    });
    let mut free = Instant::now();
    // A fixed sequence: every run loses the same ones.
    let mut dice = 0x2545_f491_u32;
    let mut datagram = [0; 2048];
    while let Ok(len) = from.recv(&mut datagram).await {
        dice ^= dice << 13;
        dice ^= dice >> 17;
        dice ^= dice << 5;
        let now = Instant::now();
        free = free.max(now);
        if len > DATAGRAM_BYTES_MAX || dice % 1000 < loss || free - now > BUFFER {
            continue;
        }
        free += Duration::from_micros(len as u64 * 1_000_000 / BYTES_PER_S);
        let _ = queue.send((free + ONE_WAY, datagram[..len].to_vec()));
    }
}
