//! Addresses that are taken, dead, silent, or somebody else's.

use std::{
    os::unix::fs::PermissionsExt as _,
    sync::Arc,
    time::{Duration, Instant},
};

use fleetpool_net::{
    Address, BindError, Carrier, ConnectError, Listener, ServerIdentity, connect,
    identity::ClusterCa,
};
use fleetpool_proto::{Role, limits::CONNECT_TIME_MAX, version::Hello};
use tempfile::TempDir;
use tokio::net::{TcpListener, UdpSocket, UnixListener};

use crate::cluster::{Cluster, DAY, Gate, soon};

fn bind(address: &Address) -> Result<Listener, BindError> {
    let ca = Arc::new(ClusterCa::create("test").unwrap());
    let server = ServerIdentity::new(ca.identity(Role::Coordinator, "head", DAY).unwrap());
    Listener::bind(
        std::slice::from_ref(address),
        server.unwrap(),
        Gate::new(&ca),
    )
}

#[tokio::test]
async fn one_port_is_udp_and_tcp() {
    let listener = bind(&"127.0.0.1:0".parse().unwrap()).unwrap();
    let address = listener.local_addr().unwrap();
    assert_ne!(address.port(), 0);
    assert_eq!(listener.addresses(), [Address::Tcp(address.to_string())]);
    assert!(std::net::UdpSocket::bind(address).is_err());
    assert!(std::net::TcpListener::bind(address).is_err());
}

#[tokio::test]
async fn two_coordinators_cannot_have_one_address() {
    let cluster = Cluster::start();
    for carrier in [Carrier::Quic, Carrier::Unix] {
        let address = cluster.address(carrier);
        let error = bind(&address).map(|_| ()).unwrap_err().to_string();
        assert!(error.contains("another coordinator?"), "{error}");
        assert!(error.contains(&address.to_string()), "{error}");
    }
    // The one that was there goes on.
    let mut cluster = cluster;
    cluster.session(Carrier::Unix).await;
    cluster.session(Carrier::Quic).await;
}

#[tokio::test]
async fn an_address_of_another_host_is_an_error() {
    let error = bind(&"192.0.2.1:7700".parse().unwrap())
        .map(|_| ())
        .unwrap_err();
    assert!(matches!(error, BindError::Io { .. }), "{error:?}");
}

#[tokio::test]
async fn the_socket_of_a_dead_coordinator_is_replaced() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("s");
    drop(UnixListener::bind(&path).unwrap());
    assert!(path.exists(), "a dead listener leaves its file");
    let address = Address::Unix(path.clone());
    let listener = bind(&address).unwrap();
    let mode = std::fs::metadata(&path).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    drop(listener);
    soon(async {
        while path.exists() {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

#[tokio::test]
async fn a_file_that_is_no_socket_is_left_alone() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("s");
    std::fs::write(&path, "precious").unwrap();
    assert!(bind(&Address::Unix(path.clone())).is_err());
    assert_eq!(std::fs::read(&path).unwrap(), b"precious");
}

async fn dial(address: &Address) -> (ConnectError, Duration) {
    let ca = ClusterCa::create("test").unwrap();
    let identity = ca.identity(Role::User, "u", DAY).unwrap();
    let began = Instant::now();
    let dialled = soon(connect(
        address,
        Some(&identity),
        Hello::new(Role::User, "u"),
    ))
    .await;
    (dialled.map(|_| ()).unwrap_err(), began.elapsed())
}

#[tokio::test]
async fn where_nobody_listens_it_is_said_long_before_the_timeout() {
    let dir = TempDir::new().unwrap();
    let dead = dir.path().join("dead");
    drop(UnixListener::bind(&dead).unwrap());
    let free = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = free.local_addr().unwrap();
    drop(free);
    for address in [
        Address::Unix(dir.path().join("missing")),
        Address::Unix(dead),
        Address::Tcp(port.to_string()),
        Address::Tcp(format!("localhost:{}", port.port())),
    ] {
        let (error, took) = dial(&address).await;
        assert!(
            matches!(error, ConnectError::NobodyListens { .. }),
            "{address}: {error:?}"
        );
        assert!(
            error.to_string().contains("is the coordinator running"),
            "{error}"
        );
        assert!(took < CONNECT_TIME_MAX / 2, "{address}: {took:?}");
    }
}

/// One port that takes everything and says nothing. The kernel picks it for UDP; another test may have it for TCP.
async fn deaf() -> (UdpSocket, TcpListener) {
    loop {
        let udp = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        if let Ok(tcp) = TcpListener::bind(udp.local_addr().unwrap()).await {
            return (udp, tcp);
        }
    }
}

#[tokio::test]
async fn where_nobody_answers_the_timeout_says_so() {
    let (silent, _tcp) = deaf().await;
    let address = silent.local_addr().unwrap();
    let (error, took) = dial(&Address::Tcp(address.to_string())).await;
    assert!(matches!(error, ConnectError::TimedOut { .. }), "{error:?}");
    assert!(took < CONNECT_TIME_MAX + Duration::from_secs(2), "{took:?}");
}

#[tokio::test]
async fn a_name_that_means_nothing_is_told() {
    let (error, _) = dial(&Address::Tcp("no-such-host.invalid:7700".to_owned())).await;
    assert!(matches!(error, ConnectError::Resolve { .. }), "{error:?}");
}

#[tokio::test]
async fn a_name_with_two_addresses_is_tried_on_both() {
    // localhost is ::1 as well, where this cluster does not listen.
    let mut cluster = Cluster::start();
    let port = cluster.listener.local_addr().unwrap().port();
    let address = Address::Tcp(format!("localhost:{port}"));
    let identity = cluster.identity(Role::Agent, "a");
    let dial = connect(&address, Some(&identity), Hello::new(Role::Agent, "a"));
    let serve = async {
        let incoming = cluster.listener.accept().await;
        incoming.welcome(Default::default()).await.unwrap()
    };
    let (dialled, _session) = soon(async { tokio::join!(dial, serve) }).await;
    dialled.unwrap();
}
