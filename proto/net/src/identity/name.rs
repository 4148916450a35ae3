//! The name in a certificate: `fleetpool://CLUSTER/ROLE/ID`.

use std::{fmt, str::FromStr};

use fleetpool_proto::Role;

const SCHEME: &str = "fleetpool://";
/// Longest cluster name or id, in bytes.
const PART_BYTES_MAX: usize = 128;

/// Who a certificate is for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name {
    /// The cluster.
    pub cluster: String,
    /// What it may be there.
    pub role: Role,
    /// Which one of them it is.
    pub id: String,
}

/// Why a word cannot be a name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// A part has characters that cannot stand in it, or is too long or empty.
    #[error("{0:?} cannot be a name: use 1 to 128 letters, digits and the signs . _ @ -")]
    Part(String),
    /// The whole is not of the form.
    #[error("{0:?} is not of the form fleetpool://CLUSTER/ROLE/ID")]
    Form(String),
}

impl Name {
    /// A name of checked parts.
    ///
    /// # Errors
    /// When a part cannot stand in a name.
    pub fn new(cluster: &str, role: Role, id: &str) -> Result<Self, NameError> {
        check(cluster)?;
        check(id)?;
        Ok(Self {
            cluster: cluster.to_owned(),
            role,
            id: id.to_owned(),
        })
    }
}

pub(super) fn check(part: &str) -> Result<(), NameError> {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"._@-".contains(&byte);
    if !part.is_empty() && part.len() <= PART_BYTES_MAX && part.bytes().all(fits) {
        return Ok(());
    }
    Err(NameError::Part(part.chars().take(80).collect()))
}

impl FromStr for Name {
    type Err = NameError;

    fn from_str(uri: &str) -> Result<Self, NameError> {
        let form = || NameError::Form(uri.chars().take(160).collect());
        let mut parts = uri.strip_prefix(SCHEME).ok_or_else(form)?.split('/');
        let (Some(cluster), Some(role), Some(id), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(form());
        };
        Self::new(cluster, Role::from_name(role).ok_or_else(form)?, id)
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{SCHEME}{}/{}/{}", self.cluster, self.role, self.id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_survive_their_own_text() {
        for role in Role::ALL {
            let name = Name::new("prod.eu", role, "web-01@dc_2").unwrap();
            assert_eq!(name.to_string().parse(), Ok(name));
        }
    }

    #[test]
    fn what_is_no_name_is_refused() {
        for text in [
            "",
            "https://c/agent/a",
            "fleetpool://c/agent",
            "fleetpool://c/agent/",
            "fleetpool://c/agent/a/b",
            "fleetpool://c/boss/a",
            "fleetpool:///agent/a",
            "fleetpool://c/agent/a b",
            "fleetpool://c/agent/ä",
        ] {
            assert!(text.parse::<Name>().is_err(), "{text}");
        }
        assert!(Name::new("c", Role::Agent, &"x".repeat(129)).is_err());
    }
}
