//! Who is who: certificates of one cluster's CA, each with one name and one use.
//!
//! An [`Identity`] is a key, its certificate and the CA, in a folder of three files. The [`ClusterCa`] signs them;
//! it lives with the coordinator. What a certificate says is read by `certificate` and believed by nobody before
//! `verify` has checked it.

mod authority;
mod certificate;
mod files;
mod name;
mod server;
pub(crate) mod verify;

use std::{fmt, path::Path};

use fleetpool_proto::Role;
use rcgen::{CertificateParams, KeyPair, PKCS_ECDSA_P256_SHA256};
use rustls_pki_types::{
    CertificateDer, CertificateSigningRequestDer, PrivateKeyDer, PrivatePkcs8KeyDer,
    pem::PemObject as _,
};

pub use authority::ClusterCa;
pub use certificate::{Clock, Facts, Problem, Usage, When};
pub use files::FileError;
pub use name::{Name, NameError};
pub(crate) use server::EndpointKey;
pub use server::ServerIdentity;

use crate::peer::KeyId;

const CERT_FILE: &str = "cert.pem";
const KEY_FILE: &str = "key.pem";
const CA_FILE: &str = "ca.pem";

/// A key and the certificate that a cluster's CA gave it.
pub struct Identity {
    pub(crate) cert: CertificateDer<'static>,
    pub(crate) key: PrivatePkcs8KeyDer<'static>,
    pub(crate) ca: CertificateDer<'static>,
    facts: Facts,
}

/// Why there is no identity to be had.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum IdentityError {
    /// The folder has none.
    #[error(
        "no identity in {dir}: run `fleetpool init` to found a cluster, or join one with --token-file and what \
         `fleetpool token create` prints on its coordinator, or name another folder with --identity"
    )]
    Missing {
        /// Where it was looked for.
        dir: String,
    },
    /// A file of it cannot be used.
    #[error(transparent)]
    File(#[from] FileError),
    /// What is in the file is not what it should be.
    #[error("{what} is damaged ({why}): restore it, or join again with a new token")]
    Damaged {
        /// Which file or part.
        what: String,
        /// What is wrong with it.
        why: String,
    },
    /// A name that cannot stand in a certificate.
    #[error(transparent)]
    Name(#[from] NameError),
    /// A new key would take the place of one that is in use.
    #[error(
        "there is an identity in {dir} already, and it would be lost: name another folder, or move it away"
    )]
    Certified {
        /// Where.
        dir: String,
    },
    /// The cluster's CA is there already.
    #[error(
        "{dir} holds the CA of a cluster already: a second `fleetpool init` would lock its members out"
    )]
    Exists {
        /// Where.
        dir: String,
    },
}

impl IdentityError {
    pub(crate) fn damaged(what: impl fmt::Display, why: impl fmt::Display) -> Self {
        Self::Damaged {
            what: what.to_string(),
            why: why.to_string(),
        }
    }
}

impl Identity {
    /// Reads the identity of `dir`.
    ///
    /// # Errors
    /// When there is none, a file is damaged, or others may read the key; each says what to do.
    pub fn load(dir: &Path) -> Result<Self, IdentityError> {
        if !dir.join(CERT_FILE).exists() {
            let dir = dir.display().to_string();
            return Err(IdentityError::Missing { dir });
        }
        let cert = files::read_certificate(&dir.join(CERT_FILE))?;
        let ca = files::read_certificate(&dir.join(CA_FILE))?;
        let key = files::read_key(&dir.join(KEY_FILE))?;
        let identity = Self::assemble(cert, key, ca)?;
        identity.check_key()?;
        Ok(identity)
    }

    /// Writes the identity to `dir`, which is made when it is not there: files only their owner can read, whole
    /// and on the disk when this returns.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn save(&self, dir: &Path) -> Result<(), IdentityError> {
        files::make_dir(dir)?;
        files::write(
            &dir.join(KEY_FILE),
            &files::pem("PRIVATE KEY", self.key.secret_pkcs8_der()),
        )?;
        files::write(&dir.join(CA_FILE), &files::pem("CERTIFICATE", &self.ca))?;
        files::write(&dir.join(CERT_FILE), &files::pem("CERTIFICATE", &self.cert))?;
        Ok(())
    }

    /// The cluster's CA, as it stands in files.
    #[must_use]
    pub fn ca_pem(&self) -> String {
        String::from_utf8_lossy(&files::pem("CERTIFICATE", &self.ca)).into_owned()
    }

    /// What its certificate says.
    #[must_use]
    pub fn facts(&self) -> &Facts {
        &self.facts
    }

    /// The name in its certificate.
    #[must_use]
    pub fn name(&self) -> &Name {
        &self.facts.name
    }

    /// The role in its certificate.
    #[must_use]
    pub fn role(&self) -> Role {
        self.facts.name.role
    }

    /// The id of its public key.
    #[must_use]
    pub fn key_id(&self) -> KeyId {
        self.facts.key
    }

    pub(crate) fn assemble(
        cert: CertificateDer<'static>,
        key: PrivatePkcs8KeyDer<'static>,
        ca: CertificateDer<'static>,
    ) -> Result<Self, IdentityError> {
        let facts =
            Facts::read(&cert).map_err(|why| IdentityError::damaged("the certificate", why))?;
        Ok(Self {
            cert,
            key,
            ca,
            facts,
        })
    }

    pub(crate) fn private_key(&self) -> PrivateKeyDer<'static> {
        self.key.clone_key().into()
    }

    fn check_key(&self) -> Result<(), IdentityError> {
        let key = key_pair(&self.key)?;
        let spki = rcgen::PublicKeyData::subject_public_key_info(&key);
        if KeyId::of_spki(&spki) == self.facts.key {
            return Ok(());
        }
        let why = "it belongs to another certificate";
        Err(IdentityError::damaged(KEY_FILE, why))
    }
}

impl Clone for Identity {
    fn clone(&self) -> Self {
        Self {
            cert: self.cert.clone(),
            key: self.key.clone_key(),
            ca: self.ca.clone(),
            facts: self.facts.clone(),
        }
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Identity({})", self.facts.name)
    }
}

/// A new key, and the request to have it certified. The key never leaves the host.
pub struct KeyRequest {
    key: KeyPair,
}

impl fmt::Debug for KeyRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("KeyRequest")
    }
}

impl Default for KeyRequest {
    fn default() -> Self {
        Self::new()
    }
}

impl KeyRequest {
    /// A new key.
    ///
    /// # Panics
    /// When the operating system gives no randomness.
    #[must_use]
    pub fn new() -> Self {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256);
        Self {
            key: key.expect("the operating system gives randomness"),
        }
    }

    /// The signing request, in DER. It proves possession of the key and asks for nothing else.
    ///
    /// # Panics
    /// Never: a request without names always encodes.
    #[must_use]
    pub fn csr(&self) -> Vec<u8> {
        let request = CertificateParams::default().serialize_request(&self.key);
        let request = request.expect("a request without names encodes");
        request.der().to_vec()
    }

    /// The same as text: a PEM block.
    #[must_use]
    pub fn csr_pem(&self) -> String {
        String::from_utf8_lossy(&files::pem("CERTIFICATE REQUEST", &self.csr())).into_owned()
    }

    /// Keeps the key in `dir`, where it waits for its certificate: a file only its owner can read.
    ///
    /// # Errors
    /// When there is an identity already, or the disk refuses.
    pub fn save(&self, dir: &Path) -> Result<(), IdentityError> {
        if dir.join(CERT_FILE).exists() {
            let dir = dir.display().to_string();
            return Err(IdentityError::Certified { dir });
        }
        files::make_dir(dir)?;
        let key = files::pem("PRIVATE KEY", &self.key.serialize_der());
        Ok(files::write(&dir.join(KEY_FILE), &key)?)
    }

    /// The key that waits in `dir`.
    ///
    /// # Errors
    /// When there is none, or others may read it.
    pub fn load(dir: &Path) -> Result<Self, IdentityError> {
        let key = files::read_key(&dir.join(KEY_FILE))?;
        let key = key_pair(&key)?;
        Ok(Self { key })
    }

    /// The identity that the CA's answer makes of it.
    ///
    /// # Errors
    /// When the certificate is not for this key.
    pub fn into_identity(self, issued: Issued) -> Result<Identity, IdentityError> {
        let key = PrivatePkcs8KeyDer::from(self.key.serialize_der());
        let identity = Identity::assemble(issued.cert.into(), key, issued.ca.into())?;
        identity.check_key()?;
        Ok(identity)
    }
}

/// What a CA answers to a signing request: certificates in DER.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Issued {
    /// The certificate.
    pub cert: Vec<u8>,
    /// The CA's own.
    pub ca: Vec<u8>,
}

impl Issued {
    /// Both as text: two PEM blocks, the certificate first.
    #[must_use]
    pub fn pem(&self) -> String {
        let blocks = [&self.cert, &self.ca].map(|der| files::pem("CERTIFICATE", der));
        String::from_utf8_lossy(&blocks.concat()).into_owned()
    }

    /// Reads that text.
    ///
    /// # Errors
    /// When it is anything but two certificates.
    pub fn from_pem(text: &[u8]) -> Result<Self, IdentityError> {
        let blocks: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(text).collect();
        let damaged = |why: &dyn fmt::Display| IdentityError::damaged("the certificate", why);
        match &blocks.map_err(|why| damaged(&why))?[..] {
            [cert, ca] => Ok(Self {
                cert: cert.to_vec(),
                ca: ca.to_vec(),
            }),
            blocks => Err(damaged(&format!(
                "{} PEM blocks where two are expected, its own and the CA's",
                blocks.len()
            ))),
        }
    }
}

/// Reads a signing request: DER in a PEM block.
///
/// # Errors
/// When it is none.
pub fn csr_from_pem(text: &[u8]) -> Result<Vec<u8>, IdentityError> {
    let csr = CertificateSigningRequestDer::from_pem_slice(text);
    let csr = csr.map_err(|why| IdentityError::damaged("the signing request", why))?;
    Ok(csr.to_vec())
}

fn key_pair(key: &PrivatePkcs8KeyDer<'_>) -> Result<KeyPair, IdentityError> {
    KeyPair::from_pkcs8_der_and_sign_algo(key, &PKCS_ECDSA_P256_SHA256)
        .map_err(|why| IdentityError::damaged(KEY_FILE, why))
}
