//! A coordinator's identity: a certificate, and the keys that let it be recognised after a restart.

use std::path::Path;

use super::{Identity, IdentityError, certificate::Problem, files};
use fleetpool_proto::Role;

const ENDPOINT_KEY_FILE: &str = "endpoint.key";
const ENDPOINT_KEY_BYTES: usize = 40;

/// What a listener needs to be a coordinator.
#[derive(Clone)]
pub struct ServerIdentity {
    pub(crate) identity: Identity,
    pub(crate) endpoint: EndpointKey,
}

impl std::fmt::Debug for ServerIdentity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "ServerIdentity({})", self.identity.name())
    }
}

/// Keys of a QUIC endpoint that must outlive its process: with them a restarted coordinator answers the packets
/// of connections it no longer knows with a reset that their peers believe, so that they reconnect at once
/// instead of waiting for their idle timeout.
#[derive(Clone, Copy)]
pub(crate) struct EndpointKey {
    /// Signs stateless resets.
    pub(crate) reset: [u8; 32],
    /// Marks connection ids as ours.
    pub(crate) connection_id: u64,
}

impl ServerIdentity {
    /// Of a coordinator's certificate, with new endpoint keys.
    ///
    /// # Errors
    /// When the certificate is of another role.
    pub fn new(identity: Identity) -> Result<Self, IdentityError> {
        let endpoint = EndpointKey::from_bytes(new_key());
        Self::with_key(identity, endpoint)
    }

    /// Reads a coordinator's identity, and makes the endpoint keys when they are not there yet.
    ///
    /// # Errors
    /// When there is no identity, it is of another role, or the disk refuses.
    pub fn load(dir: &Path) -> Result<Self, IdentityError> {
        let identity = Identity::load(dir)?;
        Self::with_key(identity, EndpointKey::load_or_make(dir)?)
    }

    /// The identity proper.
    #[must_use]
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    fn with_key(identity: Identity, endpoint: EndpointKey) -> Result<Self, IdentityError> {
        if identity.role() != Role::Coordinator {
            let found = identity.role();
            let id = identity.name().id.clone();
            let wanted = "a coordinator";
            let why = Problem::WrongRole { wanted, found, id };
            return Err(IdentityError::damaged("the coordinator's identity", why));
        }
        Ok(Self { identity, endpoint })
    }
}

impl EndpointKey {
    fn load_or_make(dir: &Path) -> Result<Self, IdentityError> {
        let path = dir.join(ENDPOINT_KEY_FILE);
        if !path.exists() {
            files::write(&path, &new_key())?;
        }
        let bytes = files::read_secret(&path)?;
        let bytes = bytes.try_into().map_err(|_| {
            IdentityError::damaged(
                path.display(),
                "delete it: it is made anew, and not 40 bytes",
            )
        })?;
        Ok(Self::from_bytes(bytes))
    }

    fn from_bytes(bytes: [u8; ENDPOINT_KEY_BYTES]) -> Self {
        let (reset, connection_id) = bytes.split_at(32);
        Self {
            reset: reset.try_into().expect("32 bytes"),
            connection_id: u64::from_be_bytes(connection_id.try_into().expect("8 bytes")),
        }
    }
}

fn new_key() -> [u8; ENDPOINT_KEY_BYTES] {
    let mut bytes = [0; ENDPOINT_KEY_BYTES];
    getrandom::fill(&mut bytes).expect("the operating system gives randomness");
    bytes
}
