//! Joining a cluster with a token.
//!
//! The joiner knows nothing but the token. It dials without a certificate, believes the coordinator only if that
//! shows a CA of the token's hash (which is settled in the handshake, before a word is said), and only then tells
//! the secret. Its key never leaves it.

use fleetpool_proto::{
    Message as _, Role,
    join::{FromStranger, JoinRequest, ToStranger},
};

use crate::{
    address::Address,
    connect::{self, ConnectError, Race},
    identity::{Identity, IdentityError, Issued, KeyRequest, verify::Coordinators},
    peer::Carrier,
    session::Closed,
    tls,
    token::{CaHash, Token},
};

/// Why there is no certificate.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum JoinError {
    /// There is no way to the coordinator.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// The coordinator does not want us.
    #[error("{at} does not let this one join: {reason}")]
    Refused {
        /// Where.
        at: String,
        /// What it said.
        reason: String,
    },
    /// What it issued cannot be used.
    #[error(transparent)]
    Identity(#[from] IdentityError),
}

/// Gets a certificate from the coordinator at `address`.
///
/// # Errors
/// When the coordinator is not the token's, refuses, or cannot be reached.
pub async fn join(
    address: &Address,
    token: &Token,
    role: Role,
    name: &str,
) -> Result<Identity, JoinError> {
    let request = KeyRequest::new();
    let asked = JoinRequest {
        token: token.id.clone(),
        secret: token.secret.clone(),
        role: Some(role),
        name: name.to_owned(),
        csr: request.csr().into(),
    };
    let issued = match connect::in_time(address, ask(address, token, asked)).await? {
        ToStranger::Issued { cert, ca } => Issued {
            cert: cert.into(),
            ca: ca.into(),
        },
        ToStranger::Refused { reason } => {
            let at = address.to_string();
            return Err(JoinError::Refused { at, reason });
        }
    };
    if CaHash::of(&issued.ca) != token.ca_hash {
        let why = "the coordinator sent another CA than the token's";
        return Err(IdentityError::damaged("the certificate", why).into());
    }
    Ok(request.into_identity(issued)?)
}

async fn ask(
    address: &Address,
    token: &Token,
    request: JoinRequest,
) -> Result<ToStranger, ConnectError> {
    let at = address.to_string();
    let Address::Tcp(_) = address else {
        let reason = "a Unix socket needs no certificate: connect without joining".to_owned();
        return Err(ConnectError::Refused { at, reason });
    };
    let tls = tls::stranger(Coordinators::pinned(token.ca_hash)).map_err(|why| {
        let (at, reason) = (at.clone(), why.to_string());
        ConnectError::Untrusted { at, reason }
    })?;
    let standing = Race::start(address, &tls, Carrier::Quic).next().await?;
    let mut session = standing.session;
    let broken = |closed: Closed| ConnectError::Broken {
        at: at.clone(),
        closed,
    };
    let frame = FromStranger::Join(request).into_frame();
    session.sender.send(frame).await.map_err(broken)?;
    let frame = session.receiver.recv().await.map_err(broken)?;
    ToStranger::from_frame(frame).map_err(|why| broken(Closed::malformed(why)))
}
