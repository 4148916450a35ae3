//! What a certificate says, and everything that can be wrong with it.

use std::fmt;

use fleetpool_proto::Role;
use time::{OffsetDateTime, format_description::well_known::Rfc3339};
use x509_parser::{
    certificate::X509Certificate,
    extensions::{ExtendedKeyUsage, GeneralName},
    prelude::FromDer as _,
};

use super::name::Name;
use crate::peer::KeyId;

/// What a certificate says. Read, not verified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Facts {
    /// Who it is for.
    pub name: Name,
    /// Its public key.
    pub key: KeyId,
    /// Its only use.
    pub usage: Usage,
    /// First second of its validity, since 1970.
    pub valid_from_s: i64,
    /// Last second of its validity, since 1970.
    pub valid_until_s: i64,
}

/// The side of a connection that a certificate is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Usage {
    /// TLS server: coordinators.
    Server,
    /// TLS client: everybody else.
    Client,
}

/// Why a certificate is not accepted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Problem {
    /// It cannot be read.
    #[error("certificate cannot be read: {0}")]
    Unreadable(String),
    /// Another CA signed it.
    #[error(
        "certificate is not of this cluster: another CA signed it ({0}); use an identity of this cluster"
    )]
    Untrusted(String),
    /// It lies in the future.
    #[error(
        "certificate not valid yet: {clock} clock says {now}, it is valid from {from}; set the clocks right"
    )]
    NotYetValid {
        /// Whose clock.
        clock: Clock,
        /// What that clock says.
        now: When,
        /// Begin of its validity.
        from: When,
    },
    /// It lies in the past.
    #[error(
        "certificate expired: {clock} clock says {now}, it was valid until {until}; join again with a new token"
    )]
    Expired {
        /// Whose clock.
        clock: Clock,
        /// What that clock says.
        now: When,
        /// End of its validity.
        until: When,
    },
    /// It names nobody, or more than one.
    #[error(
        "certificate must have exactly one name, a URI fleetpool://CLUSTER/ROLE/ID; it has {0}"
    )]
    Names(String),
    /// It may be used for nothing, or for more than one thing.
    #[error("certificate must have exactly one extended key usage, server or client; it has {0}")]
    Usages(String),
    /// It is for the other side of a connection.
    #[error("certificate of {role} {id} is not for this side of a connection")]
    WrongSide {
        /// Its role.
        role: Role,
        /// Its id.
        id: String,
    },
    /// Its role is not one that may be here.
    #[error("certificate is of {found} {id}, where {wanted} is wanted")]
    WrongRole {
        /// What would do.
        wanted: &'static str,
        /// What it is.
        found: Role,
        /// Its id.
        id: String,
    },
    /// It names another cluster.
    #[error("certificate is for cluster {found}, this is {wanted}")]
    OtherCluster {
        /// The cluster here.
        wanted: String,
        /// What it says.
        found: String,
    },
}

/// Whose clock said so: the text may be read at the other end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Clock {
    /// This host's.
    Here,
    /// The coordinator's.
    Coordinator,
}

/// A second since 1970, for people.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct When(pub i64);

impl Facts {
    /// Reads a certificate.
    ///
    /// # Errors
    /// When it is not one, or has not exactly one name and one use.
    pub fn read(der: &[u8]) -> Result<Self, Problem> {
        let unreadable = |why: &dyn fmt::Display| Problem::Unreadable(why.to_string());
        let (rest, cert) = X509Certificate::from_der(der).map_err(|why| unreadable(&why))?;
        if !rest.is_empty() {
            return Err(unreadable(&"something follows it"));
        }
        Ok(Self {
            name: name(&cert)?,
            key: KeyId::of_spki(cert.public_key().raw),
            usage: usage(&cert)?,
            valid_from_s: cert.validity().not_before.timestamp(),
            valid_until_s: cert.validity().not_after.timestamp(),
        })
    }

    /// Whether it is valid at `now_s`, by `clock`.
    ///
    /// # Errors
    /// When it is not.
    pub fn check_time(&self, clock: Clock, now_s: i64) -> Result<(), Problem> {
        let now = When(now_s);
        if now_s < self.valid_from_s {
            let from = When(self.valid_from_s);
            return Err(Problem::NotYetValid { clock, now, from });
        }
        if now_s > self.valid_until_s {
            let until = When(self.valid_until_s);
            return Err(Problem::Expired { clock, now, until });
        }
        Ok(())
    }
}

fn name(cert: &X509Certificate<'_>) -> Result<Name, Problem> {
    let extension = cert.subject_alternative_name();
    let extension = extension.map_err(|why| Problem::Names(why.to_string()))?;
    let names = extension.map_or(&[][..], |found| &found.value.general_names);
    match names {
        [GeneralName::URI(uri)] => uri.parse().map_err(|_| Problem::Names((*uri).to_owned())),
        [] => Err(Problem::Names("none".to_owned())),
        [_] => Err(Problem::Names("one of another kind".to_owned())),
        more => Err(Problem::Names(more.len().to_string())),
    }
}

fn usage(cert: &X509Certificate<'_>) -> Result<Usage, Problem> {
    let extension = cert.extended_key_usage();
    let extension = extension.map_err(|why| Problem::Usages(why.to_string()))?;
    let Some(extension) = extension else {
        return Err(Problem::Usages("none".to_owned()));
    };
    let usages = extension.value;
    match (usage_count(usages), usages.server_auth, usages.client_auth) {
        (1, true, false) => Ok(Usage::Server),
        (1, false, true) => Ok(Usage::Client),
        (1, ..) => Err(Problem::Usages("another".to_owned())),
        (count, ..) => Err(Problem::Usages(count.to_string())),
    }
}

fn usage_count(usages: &ExtendedKeyUsage<'_>) -> usize {
    let named = [
        usages.any,
        usages.server_auth,
        usages.client_auth,
        usages.code_signing,
        usages.email_protection,
        usages.time_stamping,
        usages.ocsp_signing,
    ];
    named.into_iter().filter(|set| *set).count() + usages.other.len()
}

impl fmt::Display for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Here => "this host's",
            Self::Coordinator => "the coordinator's",
        })
    }
}

impl fmt::Display for When {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = OffsetDateTime::from_unix_timestamp(self.0)
            .ok()
            .and_then(|when| when.format(&Rfc3339).ok());
        match text {
            Some(text) => f.write_str(&text),
            None => write!(f, "second {} since 1970", self.0),
        }
    }
}
