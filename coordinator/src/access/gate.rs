//! The door: who is let in, and who is given a certificate.

use std::time::Duration;

use fleetpool_net::{
    Gatekeeper, JoinRequest, Peer,
    identity::{Facts, IdentityError, Issued, Problem},
};

use super::{Access, Invitation, Record, StoreError};
use crate::shell::wall_s;

/// How long the certificates of those who join are valid.
const JOINED_TTL: Duration = Duration::from_hours(365 * 24);
/// Longest validity of a certificate.
const TTL_MAX: Duration = Duration::from_hours(10 * 365 * 24);
/// Longest part of a joiner's own name in its id, in bytes.
const NAME_BYTES_MAX: usize = 100;

/// Why an identity is not issued.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum IssueError {
    /// A request that makes no sense.
    #[error("{0}")]
    Invalid(String),
    /// The CA cannot certify it.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// The CA's own certificate cannot be read back.
    #[error(transparent)]
    Certificate(#[from] Problem),
    /// The registry could not be written.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Access {
    /// Certifies the key of a signing request, and invites it.
    ///
    /// # Errors
    /// When the request makes no sense or the id is taken; then nobody was invited.
    pub fn issue(
        &self,
        invitation: Invitation,
        id: &str,
        csr: &[u8],
        ttl: Duration,
        now_s: u64,
    ) -> Result<Issued, IssueError> {
        let invalid = |reason: String| Err(IssueError::Invalid(reason));
        if ttl.is_zero() || ttl > TTL_MAX {
            let years = TTL_MAX.as_secs() / (365 * 86_400);
            return invalid(format!(
                "a certificate is valid between a second and {years} years"
            ));
        }
        let Invitation { role, labels } = invitation;
        let issued = self.ca.issue(role, id, csr, ttl)?;
        let facts = Facts::read(&issued.cert)?;
        let record = Record {
            id: id.to_owned(),
            role,
            labels,
            expires_s: u64::try_from(facts.valid_until_s).unwrap_or_default(),
        };
        if !self.registry.insert(facts.key, record, now_s)? {
            return invalid(format!(
                "there is an identity {id} already: choose another id, or revoke that one with `fleetpool identity revoke`"
            ));
        }
        Ok(issued)
    }
}

impl Gatekeeper for Access {
    fn admit(&self, peer: &Peer) -> Result<(), String> {
        // Who has no key has come by the Unix socket, where the kernel says who it is.
        let Some(key) = peer.key else {
            return Ok(());
        };
        let admitted = self.registry.admit(key, &peer.id, peer.role, wall_s());
        admitted.map_err(|not| not.to_string())
    }

    fn join(&self, request: JoinRequest, address: &str) -> Result<Issued, String> {
        let result = self.join_at(&request, wall_s());
        match &result {
            Ok((id, _)) => tracing::info!(id, token = request.token, address, "joined"),
            Err(reason) => tracing::warn!(reason, token = request.token, address, "join refused"),
        }
        result.map(|(_, issued)| issued)
    }
}

impl Access {
    fn join_at(&self, request: &JoinRequest, now_s: u64) -> Result<(String, Issued), String> {
        let role = request.role.ok_or("the join request names no role")?;
        let invitation = self
            .tokens
            .take(&request.token, &request.secret, role, now_s);
        let invitation = invitation.map_err(|error| error.to_string())?;
        let id = joined_id(&request.name, &request.csr);
        let issued = self.issue(invitation, &id, &request.csr, JOINED_TTL, now_s);
        Ok((id, issued.map_err(|error| error.to_string())?))
    }
}

/// The id of who joined with that request: its name, as far as it can stand in a certificate, and a mark of its
/// own, so that a token does not let its bearer pass for somebody who is here already.
fn joined_id(name: &str, csr: &[u8]) -> String {
    let fits = |c: &char| c.is_ascii_alphanumeric() || "._@-".contains(*c);
    let name: String = name.chars().filter(fits).take(NAME_BYTES_MAX).collect();
    let mark: String = blake3::hash(csr).to_hex().chars().take(8).collect();
    format!("{name}-{mark}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_of_joiners_can_stand_in_certificates_and_differ() {
        assert_eq!(joined_id("web1", b"one").len(), "web1-12345678".len());
        assert!(joined_id("web1", b"one").starts_with("web1-"));
        assert_ne!(joined_id("web1", b"one"), joined_id("web1", b"two"));
        assert!(joined_id("a/b c\u{e9}", b"one").starts_with("abc-"));
        assert_eq!(
            joined_id(&"x".repeat(500), b"one").len(),
            NAME_BYTES_MAX + 9
        );
    }
}
