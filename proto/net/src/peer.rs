//! Who is at the other end of a session.

use std::fmt;

use fleetpool_proto::Role;

/// The other end of a session, as far as its carrier could prove it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// What it may be: from its certificate, or from whose socket it is.
    pub role: Role,
    /// Its identity: the end of its certificate's SAN URI, or a user's name on this machine.
    pub id: String,
    /// What it calls itself in its Hello. Not proved.
    pub name: String,
    /// What carries the session.
    pub carrier: Carrier,
    /// Where it is, for people.
    pub address: String,
    /// Its public key, where it has one: what the coordinator's registry knows it by.
    pub key: Option<KeyId>,
}

impl Peer {
    /// An end of a session inside one process.
    #[must_use]
    pub fn local(role: Role, name: impl Into<String>) -> Self {
        let name = name.into();
        Self {
            role,
            id: name.clone(),
            name,
            carrier: Carrier::Local,
            address: "this process".to_owned(),
            key: None,
        }
    }
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (role, id, address, carrier) = (self.role, &self.id, &self.address, self.carrier);
        write!(f, "{role} {id} at {address} ({carrier})")
    }
}

/// What a session's frames travel on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Carrier {
    /// QUIC: control and bulk on streams of their own.
    Quic,
    /// TLS over TCP, for lifelines and for networks that drop UDP.
    Tcp,
    /// The stdin and stdout of a program that ssh has started.
    Ssh,
    /// A Unix socket: who may open its file may speak.
    Unix,
    /// A queue inside one process.
    Local,
}

impl Carrier {
    /// The word used in lists and logs.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Quic => "quic",
            Self::Tcp => "tcp",
            Self::Ssh => "ssh",
            Self::Unix => "unix",
            Self::Local => "local",
        }
    }
}

impl fmt::Display for Carrier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// BLAKE3 of a certificate's public key (its SubjectPublicKeyInfo): stays the same when the certificate is renewed.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyId(pub [u8; 32]);

impl KeyId {
    /// The id of a public key in its DER form.
    #[must_use]
    pub fn of_spki(der: &[u8]) -> Self {
        Self(*blake3::hash(der).as_bytes())
    }

    /// The id that [`Display`](fmt::Display) wrote.
    #[must_use]
    pub fn parse(hex: &str) -> Option<Self> {
        Some(Self(*blake3::Hash::from_hex(hex).ok()?.as_bytes()))
    }
}

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeyId({self})")
    }
}
