//! Dialling a coordinator.

mod error;

use std::{
    io,
    net::SocketAddr,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

pub use error::ConnectError;
use fleetpool_proto::{
    Role,
    limits::CONNECT_TIME_MAX,
    version::{Hello, Welcome},
};
use quinn::ConnectionError;
use rustls_pki_types::ServerName;
use socket2::{SockRef, TcpKeepalive};
use tokio::{
    net::{TcpStream, UnixStream},
    task::JoinSet,
    time::{sleep, timeout},
};
use tokio_rustls::TlsConnector;

use crate::{
    address::Address,
    hello,
    identity::{Clock, Identity, Problem, verify::plain},
    peer::{Carrier, Peer},
    session::{Session, quic, stream},
    tls, transport,
};

/// A host's addresses are tried this long after one another, side by side.
const NEXT_ADDRESS_AFTER: Duration = Duration::from_millis(100);
/// UDP does not tell that nobody listens; TCP of the same number does, and then QUIC has this long to prove it wrong.
const REFUSED_GRACE: Duration = Duration::from_secs(2);
/// A TCP peer that does not answer for this long is gone.
const TCP_SILENCE_MAX: Duration = Duration::from_secs(10);

/// Opens a session with the coordinator at `address`: over QUIC, or a Unix socket, which needs no identity.
///
/// # Errors
/// When there is no session within [`CONNECT_TIME_MAX`]; each says what to do.
pub async fn connect(
    address: &Address,
    identity: Option<&Identity>,
    hello: Hello,
) -> Result<(Session, Welcome), ConnectError> {
    in_time(address, async {
        match address {
            Address::Unix(_) => hello::introduce(unix(address).await?, hello).await,
            Address::Tcp(_) => {
                let tls = member(address, identity)?;
                let (session, connection) = quic(address, tls).await?;
                let opened = hello::introduce(session, hello).await;
                opened.map_err(|error| rejected(address, &connection, error))
            }
        }
    })
    .await
}

/// Opens a session over TLS on TCP: what lifelines use. A Unix socket will do as well.
///
/// # Errors
/// As [`connect`].
pub async fn connect_tcp(
    address: &Address,
    identity: Option<&Identity>,
    hello: Hello,
) -> Result<(Session, Welcome), ConnectError> {
    in_time(address, async {
        let session = match address {
            Address::Unix(_) => unix(address).await?,
            Address::Tcp(_) => tcp(address, member(address, identity)?).await?,
        };
        hello::introduce(session, hello).await
    })
    .await
}

/// A QUIC connection whose control stream is open, without a Hello.
pub(crate) async fn quic(
    address: &Address,
    tls: Arc<rustls::ClientConfig>,
) -> Result<(Session, quinn::Connection), ConnectError> {
    let connection = tokio::select! {
        connection = first(address, |peer| quic_to(address.to_string(), peer, Arc::clone(&tls))) => connection?,
        error = nobody_listens(address) => return Err(error),
    };
    let at = connection.remote_address().to_string();
    let (send, recv) = connection
        .open_bi()
        .await
        .map_err(|error| broken(address, &error))?;
    let (sender, receiver) = quic::open(connection.clone(), send, recv);
    let peer = coordinator(Carrier::Quic, at);
    Ok((
        Session {
            peer,
            sender,
            receiver,
        },
        connection,
    ))
}

/// Bounds the time that becoming a session takes.
pub(crate) async fn in_time<T>(
    address: &Address,
    connecting: impl Future<Output = Result<T, ConnectError>>,
) -> Result<T, ConnectError> {
    let at = || address.to_string();
    // On the heap: what a handshake needs is many kilobytes, and its caller keeps them for good otherwise.
    timeout(CONNECT_TIME_MAX, Box::pin(connecting))
        .await
        .unwrap_or_else(|_| Err(ConnectError::TimedOut { at: at() }))
}

async fn unix(address: &Address) -> Result<Session, ConnectError> {
    let Address::Unix(path) = address else {
        unreachable!("the caller looked");
    };
    let at = address.to_string();
    let socket = UnixStream::connect(path)
        .await
        .map_err(|error| match error.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => {
                let (at, why) = (at.clone(), error.to_string());
                ConnectError::NobodyListens { at, why }
            }
            _ => ConnectError::Io {
                at: at.clone(),
                error,
            },
        })?;
    let (read, write) = socket.into_split();
    let (sender, receiver) = stream::open(read, write);
    let peer = coordinator(Carrier::Unix, at);
    Ok(Session {
        peer,
        sender,
        receiver,
    })
}

async fn tcp(address: &Address, tls: Arc<rustls::ClientConfig>) -> Result<Session, ConnectError> {
    let socket = first(address, |peer| tcp_to(address.to_string(), peer)).await?;
    let at = socket
        .peer_addr()
        .map_or_else(|_| address.to_string(), |at| at.to_string());
    let name = ServerName::try_from(tls::SERVER_NAME).expect("a name");
    let socket = TlsConnector::from(tls)
        .connect(name, socket)
        .await
        .map_err(|error| {
            let (at, reason) = (address.to_string(), plain(&error.to_string()).to_owned());
            ConnectError::Untrusted { at, reason }
        })?;
    let (read, write) = tokio::io::split(socket);
    let (sender, receiver) = stream::open(read, write);
    let peer = coordinator(Carrier::Tcp, at);
    Ok(Session {
        peer,
        sender,
        receiver,
    })
}

/// Makes a TCP connection notice a peer that has vanished, and not wait to fill packets.
pub(crate) fn tune_tcp(socket: &TcpStream) -> io::Result<()> {
    socket.set_nodelay(true)?;
    let keepalive = TcpKeepalive::new()
        .with_time(TCP_SILENCE_MAX / 3)
        .with_interval(TCP_SILENCE_MAX / 3);
    let socket = SockRef::from(socket);
    socket.set_tcp_keepalive(&keepalive)?;
    socket.set_tcp_user_timeout(Some(TCP_SILENCE_MAX))
}

async fn tcp_to(at: String, peer: SocketAddr) -> Result<TcpStream, ConnectError> {
    let socket = TcpStream::connect(peer).await.and_then(|socket| {
        tune_tcp(&socket)?;
        Ok(socket)
    });
    socket.map_err(|error| match error.kind() {
        io::ErrorKind::ConnectionRefused => {
            let why = format!("{peer}: {error}");
            ConnectError::NobodyListens { at, why }
        }
        _ => ConnectError::Io { at, error },
    })
}

async fn quic_to(
    at: String,
    peer: SocketAddr,
    tls: Arc<rustls::ClientConfig>,
) -> Result<quinn::Connection, ConnectError> {
    let failed = |error: io::Error| ConnectError::Io {
        at: at.clone(),
        error,
    };
    let (endpoint, config) = transport::dial(peer, tls).map_err(failed)?;
    let connecting = endpoint
        .connect_with(config, peer, tls::SERVER_NAME)
        .map_err(|error| failed(io::Error::other(error)))?;
    connecting.await.map_err(|error| match error {
        ConnectionError::TimedOut => ConnectError::TimedOut { at },
        ConnectionError::TransportError(error) if is_tls(error.code) => {
            let reason = plain(&error.reason).to_owned();
            ConnectError::Untrusted { at, reason }
        }
        error => ConnectError::Broken {
            at,
            closed: quic::lost(&error),
        },
    })
}

/// The first of the host's addresses that works, or why the last one did not.
async fn first<T, F>(address: &Address, dial: impl Fn(SocketAddr) -> F) -> Result<T, ConnectError>
where
    T: Send + 'static,
    F: Future<Output = Result<T, ConnectError>> + Send + 'static,
{
    let at = address.to_string();
    let mut attempts = JoinSet::new();
    for (delay, peer) in (0_u32..).zip(resolve(&at).await?) {
        let attempt = dial(peer);
        attempts.spawn(async move {
            sleep(NEXT_ADDRESS_AFTER * delay).await;
            attempt.await
        });
    }
    let mut last = None;
    while let Some(attempt) = attempts.join_next().await {
        match attempt {
            Ok(Ok(connection)) => return Ok(connection),
            Ok(Err(error)) => last = Some(error),
            Err(error) => {
                last = Some(ConnectError::Io {
                    at: at.clone(),
                    error: error.into(),
                })
            }
        }
    }
    Err(last.unwrap_or_else(|| {
        let error = io::Error::from(io::ErrorKind::NotFound);
        ConnectError::Resolve { at, error }
    }))
}

async fn resolve(at: &str) -> Result<Vec<SocketAddr>, ConnectError> {
    let found = tokio::net::lookup_host(at).await;
    let found = found.map_err(|error| ConnectError::Resolve {
        at: at.to_owned(),
        error,
    })?;
    Ok(found.collect())
}

/// Ends when it is clear that nobody listens; never when somebody may.
async fn nobody_listens(address: &Address) -> ConnectError {
    let probed = first(address, |peer| tcp_to(address.to_string(), peer)).await;
    let Err(error @ ConnectError::NobodyListens { .. }) = probed else {
        return std::future::pending().await;
    };
    sleep(REFUSED_GRACE).await;
    error
}

fn member(
    address: &Address,
    identity: Option<&Identity>,
) -> Result<Arc<rustls::ClientConfig>, ConnectError> {
    let at = address.to_string();
    let Some(identity) = identity else {
        return Err(ConnectError::NoIdentity { at });
    };
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    let now_s = i64::try_from(now.as_secs()).unwrap_or(i64::MAX);
    match identity.facts().check_time(Clock::Here, now_s) {
        Err(problem) => Err(ConnectError::OwnCertificate { at, problem }),
        Ok(()) => tls::member(identity).map_err(|why| {
            let problem = Problem::Unreadable(why.to_string());
            ConnectError::OwnCertificate { at, problem }
        }),
    }
}

/// In TLS 1.3 a client is done before the server has looked at its certificate: the verdict comes as the end of
/// the connection.
fn rejected(
    address: &Address,
    connection: &quinn::Connection,
    error: ConnectError,
) -> ConnectError {
    match connection.close_reason() {
        Some(ConnectionError::ConnectionClosed(close)) if is_tls(close.error_code) => {
            let reason = plain(&String::from_utf8_lossy(&close.reason)).to_owned();
            ConnectError::Rejected {
                at: address.to_string(),
                reason,
            }
        }
        _ => error,
    }
}

/// Whether a transport error is a TLS alert.
fn is_tls(code: quinn::TransportErrorCode) -> bool {
    (0x100..0x200).contains(&u64::from(code))
}

fn broken(address: &Address, error: &ConnectionError) -> ConnectError {
    let (at, closed) = (address.to_string(), quic::lost(error));
    ConnectError::Broken { at, closed }
}

fn coordinator(carrier: Carrier, address: String) -> Peer {
    Peer {
        role: Role::Coordinator,
        id: "coordinator".to_owned(),
        name: "coordinator".to_owned(),
        carrier,
        address,
        key: None,
    }
}
