//! Networks that let TCP pass and drop UDP.

use std::{
    io::Write as _,
    net::SocketAddr,
    time::{Duration, Instant},
};

use fleetpool_net::{Address, Carrier, ConnectError, connect};
use fleetpool_proto::{
    Role,
    version::{Hello, Welcome},
};
use tokio::{
    io::{AsyncReadExt as _, copy_bidirectional},
    net::{TcpListener, TcpStream, UdpSocket},
    time::timeout,
};

use crate::cluster::{Cluster, DAY, soon};

/// A TCP relay without UDP beside it: what a network is like that drops UDP and says nothing of it.
async fn tcp_only(to: SocketAddr) -> SocketAddr {
    let relay = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = relay.local_addr().unwrap();
    // Datagrams are taken and go nowhere; without it the kernel would say that nobody listens.
    let swallowed = UdpSocket::bind(address).await.unwrap();
    tokio::spawn(async move {
        let _swallowed = swallowed;
        while let Ok((mut near, _)) = relay.accept().await {
            tokio::spawn(async move {
                let mut far = TcpStream::connect(to).await.unwrap();
                // Either end may break off.
                copy_bidirectional(&mut near, &mut far).await.ok();
            });
        }
    });
    address
}

#[tokio::test]
async fn where_udp_does_not_pass_a_session_is_there_within_a_second() {
    let mut cluster = Cluster::start();
    let relay = tcp_only(cluster.listener.local_addr().unwrap()).await;
    let address = Address::Tcp(relay.to_string());
    let identity = cluster.identity(Role::Agent, "a");
    let began = Instant::now();
    let dial = connect(&address, Some(&identity), Hello::new(Role::Agent, "a"));
    let serve = async {
        cluster
            .listener
            .accept()
            .await
            .welcome(Welcome::default())
            .await
    };
    let (dialled, served) = soon(async { tokio::join!(dial, serve) }).await;
    let took = began.elapsed();
    assert_eq!(dialled.unwrap().0.peer.carrier, Carrier::Tcp);
    assert_eq!(served.unwrap().peer.carrier, Carrier::Tcp);
    writeln!(std::io::stderr(), "UDP is blocked: connected in {took:?}").ok();
    assert!(took < Duration::from_secs(1), "after {took:?}");
}

/// What a coordinator is like that ends in the middle of a handshake by TCP, and is there again by UDP. What it has not read
/// of the first `read_max` bytes resets the connection; else that ends in good order.
async fn gone_for_a_moment(to: SocketAddr, read_max: usize) -> SocketAddr {
    let door = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = door.local_addr().unwrap();
    let near = UdpSocket::bind(address).await.unwrap();
    let far = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    far.connect(to).await.unwrap();
    tokio::spawn(async move {
        let (mut socket, _) = door.accept().await.unwrap();
        let read = socket.read(&mut vec![0; read_max]).await.unwrap();
        assert_ne!(read, 0);
        drop((socket, door));
        let [mut up, mut down] = [[0; 2048]; 2];
        let mut client = None;
        loop {
            tokio::select! {
                Ok((len, from)) = near.recv_from(&mut up) => {
                    client = Some(from);
                    far.send(&up[..len]).await.unwrap();
                }
                Ok(len) = far.recv(&mut down), if client.is_some() => {
                    near.send_to(&down[..len], client.unwrap()).await.unwrap();
                }
            }
        }
    });
    address
}

/// It has shown nothing wrong, so that this is no answer: the other carrier goes on (G10).
#[tokio::test]
async fn a_handshake_that_breaks_off_ends_no_dialling() {
    let mut cluster = Cluster::start();
    let identity = cluster.identity(Role::Agent, "a");
    for read_max in [1, 1 << 14] {
        let relay = gone_for_a_moment(cluster.listener.local_addr().unwrap(), read_max).await;
        let address = Address::Tcp(relay.to_string());
        let dial = connect(&address, Some(&identity), Hello::new(Role::Agent, "a"));
        let serve = async {
            let incoming = cluster.listener.accept().await;
            incoming.welcome(Welcome::default()).await.unwrap()
        };
        let both = async { tokio::try_join!(dial, async { Ok(serve.await) }) };
        let ((near, _), _far) = soon(both).await.unwrap();
        assert_eq!(near.peer.carrier, Carrier::Quic);
    }
}

#[tokio::test]
async fn where_udp_does_not_pass_a_stranger_joins_and_comes_in() {
    let mut cluster = Cluster::start();
    let relay = tcp_only(cluster.listener.local_addr().unwrap()).await;
    let address = Address::Tcp(relay.to_string());
    let token = cluster.gate.token.clone();
    let identity = soon(fleetpool_net::join(&address, &token, Role::Agent, "a")).await;
    let identity = identity.unwrap();
    let serve = tokio::spawn(async move {
        let incoming = cluster.listener.accept().await;
        incoming.welcome(Welcome::default()).await.unwrap()
    });
    let hello = Hello::new(Role::Agent, "a");
    soon(connect(&address, Some(&identity), hello))
        .await
        .unwrap();
    soon(serve).await.unwrap();
}

/// UDP that is quick enough wins, though TCP would do: one session is seen, and it is QUIC's.
#[tokio::test]
async fn where_both_pass_quic_carries_and_the_coordinator_sees_one_session() {
    let mut cluster = Cluster::start();
    let (near, far) = cluster.session(Carrier::Quic).await;
    assert_eq!(near.peer.carrier, Carrier::Quic);
    assert_eq!(far.peer.carrier, Carrier::Quic);
    let another = timeout(Duration::from_secs(1), cluster.listener.accept()).await;
    assert!(another.is_err(), "a second session: {another:?}");
}

/// What the other side says of a certificate comes after the handshake in TLS 1.3, and by TCP too it is an answer that
/// ends the dialling, not a connection that broke.
#[tokio::test]
async fn where_udp_does_not_pass_an_identity_that_is_not_accepted_is_told_so() {
    let cluster = Cluster::start();
    let relay = tcp_only(cluster.listener.local_addr().unwrap()).await;
    let address = Address::Tcp(relay.to_string());
    let wrong = cluster.ca.identity(Role::Coordinator, "a", DAY).unwrap();
    let dialled = connect(&address, Some(&wrong), Hello::new(Role::Agent, "a"));
    let error = soon(dialled).await.unwrap_err();
    assert!(matches!(error, ConnectError::Rejected { .. }), "{error:?}");
}
