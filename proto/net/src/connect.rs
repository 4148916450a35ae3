//! Dialling a coordinator: by QUIC, and a moment later by TLS over TCP too, where UDP does not pass.

mod dial;
mod error;
mod race;

use std::{
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

pub(crate) use dial::tune_tcp;
pub use error::ConnectError;
use fleetpool_proto::{
    limits::CONNECT_TIME_MAX,
    version::{Hello, Welcome},
};
pub(crate) use race::Race;
use tokio::time::timeout;

use crate::{
    address::Address,
    hello,
    identity::{Clock, Identity, Problem},
    peer::Carrier,
    session::Session,
    tls,
};

/// Opens a session with the coordinator at `address`: over QUIC, or TLS on TCP where that stands first, or a Unix
/// socket, which needs no identity.
///
/// # Errors
/// When there is no session within [`CONNECT_TIME_MAX`]; each says what to do.
pub async fn connect(
    address: &Address,
    identity: Option<&Identity>,
    hello: Hello,
) -> Result<(Session, Welcome), ConnectError> {
    connect_by(Carrier::Quic, address, identity, hello).await
}

/// The same, by `first` before the other: for those who know from the last time that UDP does not pass.
///
/// # Errors
/// As [`connect`].
pub async fn connect_by(
    first: Carrier,
    address: &Address,
    identity: Option<&Identity>,
    hello: Hello,
) -> Result<(Session, Welcome), ConnectError> {
    // Boxed: whoever dials is not to be made as large as all ways of dialling together.
    let dialled = Box::pin(async {
        match address {
            Address::Unix(path) => hello::introduce(dial::unix(path).await?, hello).await,
            Address::Tcp(_) => {
                let mut race = Race::start(address, &member(address, identity)?, first);
                loop {
                    match race.next().await?.introduce(hello.clone()).await {
                        Ok(opened) => return Ok(opened),
                        Err(error) => race.lost_one(error)?,
                    }
                }
            }
        }
    });
    in_time(address, dialled).await
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
        match address {
            Address::Unix(path) => hello::introduce(dial::unix(path).await?, hello).await,
            Address::Tcp(_) => {
                let standing = dial::tcp(address, member(address, identity)?).await?;
                standing.introduce(hello).await
            }
        }
    })
    .await
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
