//! Peers that vanish, coordinators that restart, strangers that stand in the door.

use std::{
    net::SocketAddr,
    path::Path,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use fleetpool_net::{
    Carrier, Cause, Identity, Peer, ServerIdentity, Session, connect, connect_tcp,
    identity::ClusterCa, local_pair,
};
use fleetpool_proto::{
    Role,
    version::{Hello, Welcome},
};
use tokio::{
    net::{TcpStream, UdpSocket},
    runtime,
    sync::oneshot,
    time::timeout,
};

use crate::{
    cluster::{Cluster, DAY, frame, soon},
    raw::{Papers, quic},
};

/// A process that can be killed: its runtime goes, and with it everything it would have said.
struct Process {
    kill: oneshot::Sender<()>,
    thread: thread::JoinHandle<()>,
}

impl Process {
    /// Runs `main` until it is killed; returns when `main` has, with what it tells.
    async fn run<T: Send + 'static, F: Future<Output = (T, Session)>>(
        main: impl FnOnce() -> F + Send + 'static,
    ) -> (Self, T) {
        let (kill, killed) = oneshot::channel();
        let (tell, told) = oneshot::channel();
        let thread = thread::spawn(move || {
            let runtime = runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap();
            let held = runtime.block_on(async {
                let (told, held) = main().await;
                let _ = tell.send(told);
                let _ = killed.await;
                held
            });
            // First the tasks that could say goodbye, then what they would say it for.
            drop(runtime);
            drop(held);
        });
        let told = soon(told).await.expect("it ended by itself");
        (Self { kill, thread }, told)
    }

    fn kill(self) {
        drop(self.kill);
        self.thread.join().unwrap();
    }
}

async fn dialled(cluster: &mut Cluster, carrier: Carrier) -> (Process, Session) {
    let address = cluster.address(carrier);
    let identity = cluster.identity(Role::Agent, "a");
    let process = Process::run(async move || {
        let hello = Hello::new(Role::Agent, "a");
        let dialled = match carrier {
            Carrier::Tcp => connect_tcp(&address, Some(&identity), hello).await,
            _ => connect(&address, Some(&identity), hello).await,
        };
        ((), dialled.unwrap().0)
    });
    let serve = async {
        let incoming = soon(cluster.listener.accept()).await;
        soon(incoming.welcome(Welcome::default())).await.unwrap()
    };
    let ((process, ()), session) = tokio::join!(process, serve);
    (process, session)
}

/// The kernel tells of a dead process's byte streams at once; QUIC's silence takes its idle timeout.
#[tokio::test]
async fn a_peer_that_vanishes_is_noticed() {
    let mut cluster = Cluster::start();
    for (carrier, in_time) in [
        (Carrier::Unix, Duration::from_secs(2)),
        (Carrier::Tcp, Duration::from_secs(2)),
        (Carrier::Quic, Duration::from_secs(15)),
    ] {
        let (process, mut session) = dialled(&mut cluster, carrier).await;
        process.kill();
        let closed = timeout(in_time, session.receiver.recv()).await;
        let closed = closed.expect("not noticed").unwrap_err();
        assert_eq!(closed.cause, Cause::Lost, "{carrier}: {closed}");
    }
}

/// Welcomes everybody and keeps their sessions.
async fn coordinator(dir: &Path, ca: &Arc<ClusterCa>, listen: String) -> (Process, SocketAddr) {
    let server = ServerIdentity::load(dir).unwrap();
    let ca = Arc::clone(ca);
    Process::run(async move || {
        let mut cluster = Cluster::with(ca, server, &listen);
        let address = cluster.listener.local_addr().unwrap();
        tokio::spawn(async move {
            let mut sessions = Vec::new();
            loop {
                let incoming = cluster.listener.accept().await;
                sessions.push(incoming.welcome(Welcome::default()).await.unwrap());
            }
        });
        let (nobody, _) = local_pair(Peer::local(Role::Agent, "a"), Peer::local(Role::Agent, "b"));
        (address, nobody)
    })
    .await
}

/// The keys of a coordinator's endpoint are kept with its identity, so that it can tell the peers of its earlier
/// life to come again: else they would wait for their idle timeout.
#[tokio::test]
async fn a_restarted_coordinator_resets_the_sessions_of_its_earlier_life() {
    let dir = tempfile::TempDir::new().unwrap();
    let ca = Arc::new(ClusterCa::create("test").unwrap());
    ca.identity(Role::Coordinator, "head", DAY)
        .unwrap()
        .save(dir.path())
        .unwrap();
    let (process, address) = coordinator(dir.path(), &ca, "127.0.0.1:0".to_owned()).await;
    let identity = ca.identity(Role::Agent, "a", DAY).unwrap();
    let address = fleetpool_net::Address::Tcp(address.to_string());
    let hello = || Hello::new(Role::Agent, "a");
    let (mut session, _) = soon(connect(&address, Some(&identity), hello()))
        .await
        .unwrap();
    process.kill();
    let (process, _) = coordinator(dir.path(), &ca, address.to_string()).await;
    session.sender.send(frame(1)).await.unwrap();
    let began = Instant::now();
    let closed = soon(session.receiver.recv()).await.unwrap_err();
    assert_eq!(closed.cause, Cause::Lost, "{closed}");
    assert!(
        began.elapsed() < Duration::from_secs(3),
        "after {:?}",
        began.elapsed()
    );
    soon(connect(&address, Some(&identity), hello()))
        .await
        .unwrap();
    process.kill();
}

/// A UDP relay that lets nothing back: handshakes through it stay where the server has answered.
async fn one_way(to: SocketAddr) -> SocketAddr {
    let relay = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let address = relay.local_addr().unwrap();
    let out = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    tokio::spawn(async move {
        let mut datagram = [0; 2048];
        while let Ok(len) = relay.recv(&mut datagram).await {
            let _ = out.send_to(&datagram[..len], to).await;
        }
    });
    address
}

/// More of them than may shake hands at once, on both carriers.
#[tokio::test]
async fn handshakes_that_never_end_keep_nobody_out() {
    const IDLE: usize = 40;
    let mut cluster = Cluster::start();
    let at = cluster.listener.local_addr().unwrap();
    let papers = Papers::of(&cluster.identity(Role::Agent, "a"));
    let mut idle_tcp = Vec::new();
    for _ in 0..IDLE {
        let said_nothing = TcpStream::connect(at).await.unwrap();
        let said_little = TcpStream::connect(at).await.unwrap();
        said_little.try_write(&[0x16, 0x03, 0x01]).unwrap();
        idle_tcp.push((said_nothing, said_little));
        let relay = one_way(at).await.to_string();
        let config = papers.config();
        tokio::spawn(async move { quic(&relay, config).await });
    }
    for carrier in [Carrier::Quic, Carrier::Tcp] {
        let began = Instant::now();
        cluster.session(carrier).await;
        assert!(
            began.elapsed() < Duration::from_secs(3),
            "{carrier}: {:?}",
            began.elapsed()
        );
    }
    drop(idle_tcp);
}

#[tokio::test]
async fn a_storm_of_agents_gets_in_whole() {
    const AGENTS: usize = 200;
    let mut cluster = Cluster::start();
    let address = cluster.address(Carrier::Quic);
    let identity: Identity = cluster.identity(Role::Agent, "a");
    let storm: Vec<_> = (0..AGENTS)
        .map(|_| {
            let (address, identity) = (address.clone(), identity.clone());
            tokio::spawn(async move {
                connect(&address, Some(&identity), Hello::new(Role::Agent, "a")).await
            })
        })
        .collect();
    let mut sessions = Vec::new();
    for _ in 0..AGENTS {
        let incoming = soon(cluster.listener.accept()).await;
        sessions.push(soon(incoming.welcome(Welcome::default())).await.unwrap());
    }
    for dialled in storm {
        soon(dialled).await.unwrap().unwrap();
    }
}
