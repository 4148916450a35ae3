//! What each carrier costs: `cargo bench -p fleetpool-net`. Both ends share one thread, as a client and its
//! embedded cluster do, so these are the costs of the code and not of waking another processor. What is told is
//! processor time, which a busy machine does not change: it is what the clock would show on an idle one.
#![expect(clippy::print_stdout, reason = "a bench prints")]

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use fleetpool_net::{
    Address, Carrier, Gatekeeper, JoinRequest, Listener, Peer, ServerIdentity, Session, connect,
    connect_tcp,
    identity::{ClusterCa, Issued},
    local_pair,
};
use fleetpool_proto::{
    Frame, Role,
    version::{Hello, Welcome},
};
use nix::sys::resource::{UsageWho, getrusage};

const DAY: Duration = Duration::from_secs(24 * 3600);
const ROUND_TRIPS: u32 = 5_000;
const SMALL_FRAMES: u32 = 300_000;
const BULK_FRAMES: u32 = 100;
const BULK_BYTES: usize = 8 << 20;
/// Medians of this many runs, the carriers taking turns.
const RUNS: usize = 5;

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
    let mut bench = Bench::start();
    let carriers = [Carrier::Local, Carrier::Unix, Carrier::Tcp, Carrier::Quic];
    let mut results = vec![[const { Vec::new() }; 4]; carriers.len()];
    for _ in 0..RUNS {
        for (carrier, results) in carriers.iter().zip(&mut results) {
            let began = processor_time();
            let (mut a, mut b) = bench.session(*carrier).await;
            results[0].push(since(began).as_secs_f64() * 1e6);
            results[1].push(round_trip(&mut a, &mut b).await);
            results[2].push(small_frames(&a, &mut b).await);
            results[3].push(bulk(&a, &mut b).await);
        }
    }
    println!("carrier  open µs  1 KiB round trip µs  small frames/s  8 MiB bodies GB/s");
    for (carrier, mut results) in carriers.iter().zip(results) {
        let [open, trip, small, bulk] = results.each_mut().map(|values| median(values));
        println!("{carrier:<8} {open:>7.0} {trip:>20.1} {small:>15.0} {bulk:>18.2}");
    }
}

/// Spent by this process so far, the kernel's work for it included.
fn processor_time() -> Duration {
    let usage = getrusage(UsageWho::RUSAGE_SELF).expect("a process may look at itself");
    let spent = |time: nix::sys::time::TimeVal| {
        let micros = time.tv_sec() * 1_000_000 + time.tv_usec();
        Duration::from_micros(u64::try_from(micros).unwrap_or_default())
    };
    spent(usage.user_time()) + spent(usage.system_time())
}

fn since(began: Duration) -> Duration {
    processor_time() - began
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

struct Bench {
    ca: ClusterCa,
    listener: Listener,
    dir: tempfile::TempDir,
}

impl Bench {
    fn start() -> Self {
        let ca = ClusterCa::create("bench").expect("a name");
        let head = ca.identity(Role::Coordinator, "head", DAY).expect("a name");
        let dir = tempfile::TempDir::new().expect("a folder");
        let unix = Address::Unix(dir.path().join("s"));
        let tcp = "127.0.0.1:0".parse().expect("an address");
        let server = ServerIdentity::new(head).expect("a coordinator");
        let listener = Listener::bind(&[tcp, unix], server, Arc::new(Everybody));
        Self {
            ca,
            listener: listener.expect("loopback"),
            dir,
        }
    }

    async fn session(&mut self, carrier: Carrier) -> (Session, Session) {
        if carrier == Carrier::Local {
            let ends = (
                Peer::local(Role::User, "u"),
                Peer::local(Role::Coordinator, "head"),
            );
            return local_pair(ends.0, ends.1);
        }
        let address = match carrier {
            Carrier::Unix => Address::Unix(self.dir.path().join("s")),
            _ => self.listener.addresses()[0].clone(),
        };
        let identity = self.ca.identity(Role::User, "u", DAY).expect("a name");
        let hello = Hello::new(Role::User, "u");
        let dial = async {
            match carrier {
                Carrier::Tcp => connect_tcp(&address, Some(&identity), hello).await,
                _ => connect(&address, Some(&identity), hello).await,
            }
        };
        let serve = async {
            let incoming = self.listener.accept().await;
            incoming.welcome(Welcome::default()).await
        };
        let (dialled, served) = tokio::join!(dial, serve);
        (dialled.expect("loopback").0, served.expect("loopback"))
    }
}

fn frame(bytes: usize) -> Frame {
    Frame {
        header: Bytes::from_static(b"0123456789abcdef0123456789abcdef"),
        body: vec![vec![7; bytes].into()],
    }
}

/// Microseconds.
async fn round_trip(a: &mut Session, b: &mut Session) -> f64 {
    let began = processor_time();
    let ask = async {
        for _ in 0..ROUND_TRIPS {
            a.sender.send(frame(1024)).await.expect("open");
            a.receiver.recv().await.expect("open");
        }
    };
    let answer = async {
        for _ in 0..ROUND_TRIPS {
            let asked = b.receiver.recv().await.expect("open");
            b.sender.send(asked).await.expect("open");
        }
    };
    tokio::join!(ask, answer);
    since(began).as_secs_f64() * 1e6 / f64::from(ROUND_TRIPS)
}

/// Frames of 100 bytes per second, one way.
async fn small_frames(a: &Session, b: &mut Session) -> f64 {
    let took = one_way(a, b, SMALL_FRAMES, &frame(68)).await;
    f64::from(SMALL_FRAMES) / took.as_secs_f64()
}

/// GB per second, one way.
async fn bulk(a: &Session, b: &mut Session) -> f64 {
    let took = one_way(a, b, BULK_FRAMES, &frame(BULK_BYTES)).await;
    f64::from(BULK_FRAMES) * 8.389e-3 / took.as_secs_f64()
}

async fn one_way(a: &Session, b: &mut Session, frames: u32, frame: &Frame) -> Duration {
    let began = processor_time();
    let send = async {
        for _ in 0..frames {
            a.sender.send(frame.clone()).await.expect("open");
        }
    };
    let receive = async {
        for _ in 0..frames {
            b.receiver.recv().await.expect("open");
        }
    };
    tokio::join!(send, receive);
    since(began)
}
