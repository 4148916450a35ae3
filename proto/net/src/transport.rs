//! How QUIC is set up: windows, timeouts, sockets and the keys that survive a restart.
//!
//! The windows are one sum. Each of [`BULK_STREAMS_MAX`] bulk streams may have [`STREAM_WINDOW`] bytes that its
//! receiver has not read, and so may the control stream; the connection's window holds them all. So bulk that
//! nobody reads never takes control's share, and nothing waits for a share that cannot come.

mod socket;

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use fleetpool_proto::limits::JOIN_FRAME_BYTES_MAX;
use quinn::{
    ClientConfig, Connection, Endpoint, EndpointConfig, IdleTimeout, MtuDiscoveryConfig,
    Runtime as _, ServerConfig, TokioRuntime, TransportConfig, VarInt,
    crypto::{
        CryptoError, HmacKey,
        rustls::{NoInitialCipherSuite, QuicClientConfig, QuicServerConfig},
    },
};
use quinn_proto::HashedConnectionIdGenerator;
use socket2::{Domain, Protocol, Type};

use crate::identity::EndpointKey;
use socket::Socket;

/// A peer that is not heard for this long is gone.
const IDLE_TIME_MAX: Duration = Duration::from_secs(10);
/// The dialling side speaks at least this often. A listener that was started anew answers with a reset, so it is found to be another one
/// within that time, also by who has nothing to say.
const KEEP_ALIVE: Duration = Duration::from_secs(1);
/// Unread bytes of one stream. At 50 ms round trip this lets a stream bring 40 MB/s.
const STREAM_WINDOW: u32 = 2 << 20;
/// Bulk streams at once.
const BULK_STREAMS_MAX: u32 = 15;
/// Unread bytes of a connection: control and every bulk stream. 32 MiB.
const CONNECTION_WINDOW: u32 = STREAM_WINDOW * (BULK_STREAMS_MAX + 1);
/// Sent and unacknowledged bytes of a connection: at least what a peer's windows let go, so that a write to the
/// control stream never waits for bulk to be acknowledged.
const SEND_WINDOW: u64 = CONNECTION_WINDOW as u64 + (2 << 20);
/// What is asked of the kernel for a socket: a storm of agents that reconnect overruns the usual 208 KiB.
const SOCKET_BUFFER_BYTES: usize = 8 << 20;
/// Largest datagram that is tried, where the way to the peer takes it: within a host, and between hosts with jumbo
/// frames, bulk then costs less than half of what it costs in Ethernet's 1452 bytes (`benches/carriers.rs`, on
/// loopback: 1.0 GB/s against 0.45). The ten that quinn hands to the kernel at once must be shorter, all together and
/// with their headers, than 64 KiB: loopback cuts longer ones into pieces, and the kernel refuses those past 65,507.
const DATAGRAM_BYTES_MAX: u16 = 6_540;
/// Bytes that quinn keeps for a connection whose handshake has not begun.
const EARLY_BYTES_MAX: u64 = 16 << 10;

/// A QUIC endpoint that takes connections.
pub(crate) fn listen(
    socket: std::net::UdpSocket,
    tls: Arc<rustls::ServerConfig>,
    key: EndpointKey,
) -> io::Result<Endpoint> {
    let tls = QuicServerConfig::try_from(tls).map_err(no_suite)?;
    let mut config = ServerConfig::with_crypto(Arc::new(tls));
    config
        .transport_config(Arc::new(listening()))
        .incoming_buffer_size(EARLY_BYTES_MAX);
    let mut endpoint = EndpointConfig::new(Arc::new(ResetKey(key.reset)));
    take_large_datagrams(&mut endpoint);
    endpoint
        .cid_generator(move || Box::new(HashedConnectionIdGenerator::from_key(key.connection_id)));
    let socket = Socket::listening(TokioRuntime.wrap_udp_socket(socket)?);
    Endpoint::new_with_abstract_socket(endpoint, Some(config), socket, Arc::new(TokioRuntime))
}

/// A QUIC endpoint that dials, and how it does.
pub(crate) fn dial(
    peer: SocketAddr,
    tls: Arc<rustls::ClientConfig>,
) -> io::Result<(Endpoint, ClientConfig)> {
    let tls = QuicClientConfig::try_from(tls).map_err(no_suite)?;
    let mut config = ClientConfig::new(Arc::new(tls));
    config.transport_config(Arc::new(dialling()));
    let any: SocketAddr = match peer {
        SocketAddr::V4(_) => ([0; 4], 0).into(),
        SocketAddr::V6(_) => ([0; 16], 0).into(),
    };
    let mut endpoint = EndpointConfig::default();
    take_large_datagrams(&mut endpoint);
    let socket = Socket::dialling(TokioRuntime.wrap_udp_socket(udp(any)?.0)?);
    let runtime = Arc::new(TokioRuntime);
    let endpoint = Endpoint::new_with_abstract_socket(endpoint, None, socket, runtime)?;
    Ok((endpoint, config))
}

fn take_large_datagrams(endpoint: &mut EndpointConfig) {
    let taken = endpoint.max_udp_payload_size(DATAGRAM_BYTES_MAX);
    taken.expect("every peer must take 1200 bytes, and this is more");
}

/// Lets a peer that is known by now use the whole windows.
pub(crate) fn welcome(connection: &Connection) {
    connection.set_receive_window(CONNECTION_WINDOW.into());
    connection.set_max_concurrent_uni_streams(BULK_STREAMS_MAX.into());
}

/// A UDP socket, and whether its buffers are smaller than they should be.
pub(crate) fn udp(address: SocketAddr) -> io::Result<(std::net::UdpSocket, Option<SmallBuffers>)> {
    let socket = socket2::Socket::new(
        Domain::for_address(address),
        Type::DGRAM,
        Some(Protocol::UDP),
    )?;
    if address.is_ipv6() {
        socket.set_only_v6(false)?;
    }
    socket.set_nonblocking(true)?;
    // The kernel grants what it allows and reports no error.
    socket.set_recv_buffer_size(SOCKET_BUFFER_BYTES)?;
    socket.set_send_buffer_size(SOCKET_BUFFER_BYTES)?;
    let granted = socket.recv_buffer_size()?.min(socket.send_buffer_size()?);
    socket.bind(&address.into())?;
    // Linux doubles what is asked for, for its own bookkeeping, and reports the double.
    let small = (granted < SOCKET_BUFFER_BYTES).then_some(SmallBuffers { granted });
    Ok((socket.into(), small))
}

/// The kernel's limit on socket buffers is too low for a large fleet.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error(
    "UDP socket buffers are {granted} bytes: many agents at once may lose packets and reconnect slowly; \
     allow more with `sysctl -w net.core.rmem_max={SOCKET_BUFFER_BYTES} net.core.wmem_max={SOCKET_BUFFER_BYTES}`"
)]
pub(crate) struct SmallBuffers {
    granted: usize,
}

fn listening() -> TransportConfig {
    let mut config = common();
    // Until a peer is known it has one stream and little room.
    config
        .receive_window(VarInt::try_from(JOIN_FRAME_BYTES_MAX).unwrap_or(VarInt::MAX))
        .max_concurrent_bidi_streams(1_u32.into())
        .max_concurrent_uni_streams(0_u32.into());
    config
}

fn dialling() -> TransportConfig {
    let mut config = common();
    config
        .keep_alive_interval(Some(KEEP_ALIVE))
        .receive_window(CONNECTION_WINDOW.into())
        .max_concurrent_bidi_streams(0_u32.into())
        .max_concurrent_uni_streams(BULK_STREAMS_MAX.into());
    config
}

/// What both sides have in common.
fn common() -> TransportConfig {
    let mut config = TransportConfig::default();
    let mut mtu = MtuDiscoveryConfig::default();
    mtu.upper_bound(DATAGRAM_BYTES_MAX);
    let idle = u32::try_from(IDLE_TIME_MAX.as_millis()).unwrap_or(u32::MAX);
    config
        .max_idle_timeout(Some(IdleTimeout::from(VarInt::from(idle))))
        .stream_receive_window(STREAM_WINDOW.into())
        .send_window(SEND_WINDOW)
        .mtu_discovery_config(Some(mtu))
        .datagram_receive_buffer_size(None)
        .congestion_controller_factory(congestion_control());
    config
}

/// BBR, although quinn calls it experimental: a line that loses one packet in a hundred is an ordinary one between
/// sites, and CUBIC takes each loss for congestion. At 50 ms and 100 Mbit/s (`benches/long_line.rs`):
///
/// | loss | CUBIC | BBR |
/// |---|---|---|
/// | none | 10.7 MB/s, 1 MiB after a pause in 113 ms | 9.7 MB/s, 154 ms |
/// | 0.1 % | 1.3 MB/s, 182 ms | 8.2 MB/s, 153 ms |
/// | 1 % | below 0.5 MB/s, 2.9 s | 10.2 MB/s, 0.3 s |
/// | 5 % | below 0.5 MB/s, 8.0 s | 8.5 MB/s, 0.3 s |
///
/// On loopback the two cost the same. Whoever thinks otherwise has one place to say so.
fn congestion_control() -> Arc<dyn quinn::congestion::ControllerFactory + Send + Sync> {
    Arc::new(quinn::congestion::BbrConfig::default())
}

/// Signs stateless resets with keyed BLAKE3.
struct ResetKey([u8; 32]);

impl HmacKey for ResetKey {
    fn sign(&self, data: &[u8], signature_out: &mut [u8]) {
        let hash = blake3::keyed_hash(&self.0, data);
        signature_out.copy_from_slice(&hash.as_bytes()[..signature_out.len()]);
    }

    fn signature_len(&self) -> usize {
        blake3::OUT_LEN
    }

    fn verify(&self, data: &[u8], signature: &[u8]) -> Result<(), CryptoError> {
        let expected = blake3::keyed_hash(&self.0, data);
        match <[u8; 32]>::try_from(signature) {
            Ok(signature) if expected == signature => Ok(()),
            _ => Err(CryptoError),
        }
    }
}

fn no_suite(error: NoInitialCipherSuite) -> io::Error {
    io::Error::other(error)
}
