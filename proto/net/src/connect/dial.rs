//! One carrier each: a connection that stands, with nothing said on it yet.

use std::{io, net::SocketAddr, path::Path, sync::Arc, time::Duration};

use fleetpool_proto::{
    Role,
    version::{Hello, Welcome},
};
use quinn::ConnectionError;
use rustls_pki_types::ServerName;
use socket2::{SockRef, TcpKeepalive};
use tokio::{
    net::{TcpStream, UnixStream},
    task::JoinSet,
    time::sleep,
};
use tokio_rustls::TlsConnector;

use super::ConnectError;
use crate::{
    address::Address,
    hello,
    identity::verify::plain,
    peer::{Carrier, Peer},
    session::{Closed, Session, quic, stream},
    tls, transport,
};

/// A host's addresses are tried this long after one another, side by side.
const NEXT_ADDRESS_AFTER: Duration = Duration::from_millis(100);
/// A TCP peer that does not answer for this long is gone.
const TCP_SILENCE_MAX: Duration = Duration::from_secs(10);
/// How the TLS library begins what it says of a peer that turned us away.
const ALERT: &str = "received fatal alert: ";

/// A connection whose handshake is done, and a session on it that has not begun.
#[derive(Debug)]
pub(crate) struct Standing {
    pub(crate) session: Session,
    /// Tells why it was closed, where it is one of QUIC.
    connection: Option<quinn::Connection>,
}

impl Standing {
    /// Says Hello and waits to be welcomed.
    pub(super) async fn introduce(self, hello: Hello) -> Result<(Session, Welcome), ConnectError> {
        let at = self.session.peer.address.clone();
        let connection = self.connection;
        let opened = hello::introduce(self.session, hello).await;
        opened.map_err(|error| rejected(at, connection.as_ref(), error))
    }
}

/// By QUIC, with the control stream open.
pub(super) async fn quic(
    address: &Address,
    tls: Arc<rustls::ClientConfig>,
) -> Result<Standing, ConnectError> {
    let connection = first(address, |peer| {
        quic_to(address.to_string(), peer, Arc::clone(&tls))
    })
    .await?;
    let at = connection.remote_address().to_string();
    let (send, recv) = connection
        .open_bi()
        .await
        .map_err(|error| broken(address, &error))?;
    let (sender, receiver) = quic::open(connection.clone(), send, recv);
    Ok(Standing {
        session: Session {
            peer: coordinator(Carrier::Quic, at),
            sender,
            receiver,
        },
        connection: Some(connection),
    })
}

/// By TLS over TCP.
pub(super) async fn tcp(
    address: &Address,
    tls: Arc<rustls::ClientConfig>,
) -> Result<Standing, ConnectError> {
    let socket = first(address, |peer| tcp_to(address.to_string(), peer)).await?;
    let at = socket
        .peer_addr()
        .map_or_else(|_| address.to_string(), |at| at.to_string());
    let name = ServerName::try_from(tls::SERVER_NAME).expect("a name");
    let socket = TlsConnector::from(tls)
        .connect(name, socket)
        .await
        .map_err(|error| unsecured(address, &error))?;
    let (read, write) = tokio::io::split(socket);
    let (sender, receiver) = stream::open(read, write);
    Ok(Standing {
        session: Session {
            peer: coordinator(Carrier::Tcp, at),
            sender,
            receiver,
        },
        connection: None,
    })
}

pub(super) async fn unix(path: &Path) -> Result<Session, ConnectError> {
    let at = Address::Unix(path.to_owned()).to_string();
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

/// In TLS 1.3 a client is done before the server has looked at its certificate: the verdict comes as the end of
/// the connection.
fn rejected(
    at: String,
    connection: Option<&quinn::Connection>,
    error: ConnectError,
) -> ConnectError {
    let by_quic = connection.and_then(|connection| match connection.close_reason()? {
        ConnectionError::ConnectionClosed(close) if is_tls(close.error_code) => {
            Some(String::from_utf8_lossy(&close.reason).into_owned())
        }
        _ => None,
    });
    let by_tcp = || match &error {
        ConnectError::Broken { closed, .. } => closed.reason.strip_prefix(ALERT).map(str::to_owned),
        _ => None,
    };
    match by_quic.or_else(by_tcp) {
        Some(reason) => {
            let reason = plain(&reason).to_owned();
            ConnectError::Rejected { at, reason }
        }
        None => error,
    }
}

/// Whether a transport error is a TLS alert.
fn is_tls(code: quinn::TransportErrorCode) -> bool {
    (0x100..0x200).contains(&u64::from(code))
}

/// A TLS handshake over TCP came to nothing: the peer has shown something wrong, or it is gone, as a coordinator is that
/// ends just then.
fn unsecured(address: &Address, error: &io::Error) -> ConnectError {
    let at = address.to_string();
    if error.get_ref().is_some_and(|why| why.is::<rustls::Error>()) {
        let reason = plain(&error.to_string()).to_owned();
        return ConnectError::Untrusted { at, reason };
    }
    let closed = Closed::lost(error);
    ConnectError::Broken { at, closed }
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
