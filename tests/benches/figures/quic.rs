//! What the QUIC library does without any of our code: one long stream on loopback, ping-pong and bulk. Bulk as it is by
//! default, in datagrams of Ethernet's length, and in datagrams as long as fleetpool's, with which it costs half.

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
    time::Instant,
};

use quinn::{
    ClientConfig, Connection, Endpoint, EndpointConfig, MtuDiscoveryConfig, ServerConfig,
    TokioRuntime, TransportConfig, VarInt,
    crypto::rustls::{QuicClientConfig, QuicServerConfig},
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};

use crate::measure::middle;

/// Longest datagrams of the library by default, and of fleetpool (`proto/net/src/transport.rs` says why).
pub(crate) const SHORT_BYTES: u16 = 1_452;
pub(crate) const LONG_BYTES: u16 = 6_540;

/// Microseconds that 1 KiB takes to another process's runtime and back on one long stream, in the middle of `rounds`.
pub(crate) fn round_trip_us(rounds: usize) -> f64 {
    with_echo(SHORT_BYTES, async |connection| {
        let (mut send, mut receive) = connection.open_bi().await.expect("stream");
        let mut kilobyte = [7_u8; 1024];
        let mut times = Vec::with_capacity(rounds);
        for _ in 0..rounds {
            let start = Instant::now();
            send.write_all(&kilobyte).await.expect("sent");
            receive.read_exact(&mut kilobyte).await.expect("received");
            times.push(start.elapsed().as_secs_f64() * 1e6);
        }
        middle(times.into_iter())
    })
}

/// MiB a second that one stream carries one way, in datagrams of at most so many bytes.
pub(crate) fn bulk_mib_s(mib: usize, datagram_bytes: u16) -> f64 {
    with_echo(datagram_bytes, async |connection| {
        let mut send = connection.open_uni().await.expect("stream");
        let megabyte = vec![7_u8; 1 << 20];
        let start = Instant::now();
        for _ in 0..mib {
            send.write_all(&megabyte).await.expect("sent");
        }
        send.finish().expect("open");
        // The far end answers on a stream of its own when it has read all.
        let mut done = connection.accept_uni().await.expect("answered");
        done.read_to_end(1).await.expect("read");
        let took = start.elapsed().as_secs_f64();
        f64::from(u32::try_from(mib).expect("small")) / took
    })
}

/// Runs `work` on a connection to a thread that echoes two-way streams and swallows one-way ones.
fn with_echo(datagram_bytes: u16, work: impl AsyncFnOnce(Connection) -> f64) -> f64 {
    let certified =
        rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).expect("certificate");
    let certificate = certified.cert.der().clone();
    let key = certified.signing_key.serialize_der();
    let (tell, told) = std::sync::mpsc::channel();
    let server_certificate = certificate.clone();
    std::thread::spawn(move || {
        runtime().block_on(async {
            let transport = transport(datagram_bytes);
            let config = server_config(server_certificate, key, transport);
            let endpoint = endpoint(datagram_bytes, Some(config));
            tell.send(endpoint.local_addr().expect("bound"))
                .expect("awaited");
            serve(&endpoint).await;
        });
    });
    let address = told.recv().expect("the server is up");
    runtime().block_on(async {
        let mut endpoint = endpoint(datagram_bytes, None);
        let config = client_config(certificate, transport(datagram_bytes));
        endpoint.set_default_client_config(config);
        let connection = endpoint
            .connect(address, "localhost")
            .expect("configured")
            .await
            .expect("connected");
        let figure = work(connection.clone()).await;
        connection.close(VarInt::from_u32(0), b"");
        endpoint.wait_idle().await;
        figure
    })
}

async fn serve(endpoint: &Endpoint) {
    let incoming = endpoint.accept().await.expect("somebody comes");
    let connection = incoming.await.expect("handshake");
    loop {
        tokio::select! {
            both = connection.accept_bi() => {
                let Ok((mut send, mut receive)) = both else { return };
                tokio::spawn(async move {
                    let mut buffer = [0_u8; 1024];
                    while receive.read_exact(&mut buffer).await.is_ok() && send.write_all(&buffer).await.is_ok() {}
                });
            }
            one = connection.accept_uni() => {
                let Ok(mut receive) = one else { return };
                while let Ok(Some(_)) = receive.read_chunk(1 << 20, true).await {}
                let mut answer = connection.open_uni().await.expect("stream");
                answer.finish().expect("open");
            }
        }
    }
}

fn server_config(
    certificate: CertificateDer<'static>,
    key: Vec<u8>,
    transport: TransportConfig,
) -> ServerConfig {
    let tls = server_tls(certificate, key);
    let mut config =
        ServerConfig::with_crypto(Arc::new(QuicServerConfig::try_from(tls).expect("TLS 1.3")));
    config.transport_config(Arc::new(transport));
    config
}

fn client_config(certificate: CertificateDer<'static>, transport: TransportConfig) -> ClientConfig {
    let tls = client_tls(certificate);
    let mut config = ClientConfig::new(Arc::new(QuicClientConfig::try_from(tls).expect("TLS 1.3")));
    config.transport_config(Arc::new(transport));
    config
}

/// TLS 1.3 of a server with that certificate and its key.
pub(crate) fn server_tls(
    certificate: CertificateDer<'static>,
    key: Vec<u8>,
) -> rustls::ServerConfig {
    let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key));
    let mut tls = rustls::ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .expect("TLS 1.3")
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key)
        .expect("certificate fits its key");
    tls.alpn_protocols = vec![b"bench".to_vec()];
    tls
}

/// TLS 1.3 of a client that believes that certificate.
pub(crate) fn client_tls(certificate: CertificateDer<'static>) -> rustls::ClientConfig {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(certificate).expect("a certificate");
    let mut tls = rustls::ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .expect("TLS 1.3")
        .with_root_certificates(roots)
        .with_no_client_auth();
    tls.alpn_protocols = vec![b"bench".to_vec()];
    tls
}

fn endpoint(datagram_bytes: u16, server: Option<ServerConfig>) -> Endpoint {
    let mut config = EndpointConfig::default();
    // The library takes a little more than it sends by default; what is longer must be said.
    let taken = config.max_udp_payload_size(datagram_bytes.max(1_472));
    taken.expect("more than 1200");
    let socket = std::net::UdpSocket::bind(loopback()).expect("bound");
    Endpoint::new(config, server, socket, Arc::new(TokioRuntime)).expect("an endpoint")
}

/// Windows large enough that they never bound the figure.
fn transport(datagram_bytes: u16) -> TransportConfig {
    let mut mtu = MtuDiscoveryConfig::default();
    mtu.upper_bound(datagram_bytes);
    let mut transport = TransportConfig::default();
    transport.receive_window(VarInt::from_u32(32 << 20));
    transport.stream_receive_window(VarInt::from_u32(32 << 20));
    transport.send_window(32 << 20);
    transport.mtu_discovery_config(Some(mtu));
    transport
}

fn provider() -> Arc<rustls::crypto::CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("runtime")
}

fn loopback() -> SocketAddr {
    (Ipv4Addr::LOCALHOST, 0).into()
}
