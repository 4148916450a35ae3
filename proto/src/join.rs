//! What a peer without a certificate may say, which is one thing.
//!
//! It speaks before any Hello, so these messages, too, are read by every version: fields may be added, never
//! removed or changed.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::{frame::Message, ids::Role, rows::Payloads};

/// What a stranger says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum FromStranger {
    /// Asks for a certificate, with a token that allows it.
    Join(JoinRequest),
}

/// A stranger's request for a certificate.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct JoinRequest {
    /// The token's public id.
    pub token: String,
    /// The token's secret.
    pub secret: String,
    /// The role it asks for.
    pub role: Option<Role>,
    /// What it calls itself: a host's name, a user's.
    pub name: String,
    /// A PKCS #10 signing request in DER: proves that it has the key.
    pub csr: Bytes,
}

/// What the coordinator answers a stranger.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ToStranger {
    /// The certificate, and the CA's; both in DER.
    Issued {
        /// The certificate.
        cert: Bytes,
        /// The CA's own.
        ca: Bytes,
    },
    /// There is none.
    Refused {
        /// A sentence for people.
        reason: String,
    },
}

impl Message for FromStranger {
    fn payloads(&mut self) -> Option<&mut Payloads> {
        None
    }

    fn name(&self) -> &'static str {
        match self {
            Self::Join(_) => "join",
        }
    }
}

impl Message for ToStranger {
    fn payloads(&mut self) -> Option<&mut Payloads> {
        None
    }

    fn name(&self) -> &'static str {
        match self {
            Self::Issued { .. } => "issued",
            Self::Refused { .. } => "refused",
        }
    }
}
