//! The cluster's CA: the only thing that makes certificates.

use std::{
    fmt,
    path::Path,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use fleetpool_proto::Role;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DistinguishedName,
    DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, PublicKeyData,
    SanType, SerialNumber, string::Ia5String,
};
use rustls_pki_types::{CertificateDer, CertificateSigningRequestDer, PrivatePkcs8KeyDer};
use time::OffsetDateTime;
use x509_parser::{certificate::X509Certificate, prelude::FromDer as _};

use super::{
    CA_FILE, Identity, IdentityError, Issued, KeyRequest,
    certificate::Usage,
    files, key_pair,
    name::{self, Name},
};
use crate::token::CaHash;

const CA_KEY_FILE: &str = "ca-key.pem";
/// The CA outlives every machine of its cluster.
const CA_VALID: Duration = Duration::from_secs(30 * 365 * 24 * 3600);
/// Certificates are valid from a while before they were made: clocks of hosts differ by minutes.
const BACKDATED: Duration = Duration::from_secs(3600);
/// What stands before the cluster's name in the CA's own.
const SUBJECT: &str = "fleetpool cluster ";

/// A cluster's certificate authority.
pub struct ClusterCa {
    cluster: String,
    cert: CertificateDer<'static>,
    issuer: Issuer<'static, KeyPair>,
}

impl fmt::Debug for ClusterCa {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ClusterCa({})", self.cluster)
    }
}

impl ClusterCa {
    /// A new CA for a cluster of that name.
    ///
    /// # Errors
    /// When the name cannot stand in certificates.
    pub fn create(cluster: &str) -> Result<Self, IdentityError> {
        name::check(cluster)?;
        let key = KeyRequest::new().key;
        let mut params = params(SystemTime::now(), CA_VALID);
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let subject = format!("{SUBJECT}{cluster}");
        params.distinguished_name.push(DnType::CommonName, subject);
        let cert = params.self_signed(&key).map_err(signing)?.der().clone();
        Ok(Self {
            cluster: cluster.to_owned(),
            cert,
            issuer: Issuer::new(params, key),
        })
    }

    /// Reads the CA of `dir`.
    ///
    /// # Errors
    /// When there is none, or its files are damaged.
    pub fn load(dir: &Path) -> Result<Self, IdentityError> {
        let cert = files::read_certificate(&dir.join(CA_FILE))?;
        let key = files::read_key(&dir.join(CA_KEY_FILE))?;
        let key: PrivatePkcs8KeyDer<'static> = key;
        let damaged = |why: &dyn fmt::Display| IdentityError::damaged(CA_FILE, why);
        let issuer = Issuer::from_ca_cert_der(&cert, key_pair(&key)?).map_err(|e| damaged(&e))?;
        Ok(Self {
            cluster: cluster_of(&cert).ok_or_else(|| damaged(&"it names no cluster"))?,
            cert,
            issuer,
        })
    }

    /// Writes the CA to `dir`, once.
    ///
    /// # Errors
    /// When a CA is there already, or the disk refuses.
    pub fn save(&self, dir: &Path) -> Result<(), IdentityError> {
        if dir.join(CA_KEY_FILE).exists() {
            let dir = dir.display().to_string();
            return Err(IdentityError::Exists { dir });
        }
        files::make_dir(dir)?;
        files::write(&dir.join(CA_FILE), &files::pem("CERTIFICATE", &self.cert))?;
        let key = files::pem("PRIVATE KEY", self.issuer.key().serialized_der());
        Ok(files::write(&dir.join(CA_KEY_FILE), &key)?)
    }

    /// The cluster's name.
    #[must_use]
    pub fn cluster(&self) -> &str {
        &self.cluster
    }

    /// Its certificate, in DER.
    #[must_use]
    pub fn certificate(&self) -> &[u8] {
        &self.cert
    }

    /// What join tokens pin.
    #[must_use]
    pub fn hash(&self) -> CaHash {
        CaHash::of(&self.cert)
    }

    /// Certifies the key of a signing request. Whatever else the request asks for is not looked at.
    ///
    /// # Errors
    /// When the request is damaged or not signed with its own key, or the id cannot stand in a certificate.
    pub fn issue(
        &self,
        role: Role,
        id: &str,
        csr: &[u8],
        ttl: Duration,
    ) -> Result<Issued, IdentityError> {
        let csr = CertificateSigningRequestDer::from(csr);
        let request = CertificateSigningRequestParams::from_der(&csr)
            .map_err(|why| IdentityError::damaged("the signing request", why))?;
        self.certify(role, id, &request.public_key, SystemTime::now(), ttl)
    }

    /// A new key with its certificate, for who sits on the coordinator's host.
    ///
    /// # Errors
    /// When the id cannot stand in a certificate.
    pub fn identity(&self, role: Role, id: &str, ttl: Duration) -> Result<Identity, IdentityError> {
        self.identity_at(role, id, SystemTime::now(), ttl)
    }

    /// [`identity`](Self::identity) as if it were made at `now`.
    ///
    /// # Errors
    /// When the id cannot stand in a certificate.
    pub fn identity_at(
        &self,
        role: Role,
        id: &str,
        now: SystemTime,
        ttl: Duration,
    ) -> Result<Identity, IdentityError> {
        let request = KeyRequest::new();
        let issued = self.certify(role, id, &request.key, now, ttl)?;
        request.into_identity(issued)
    }

    fn certify(
        &self,
        role: Role,
        id: &str,
        key: &impl PublicKeyData,
        now: SystemTime,
        ttl: Duration,
    ) -> Result<Issued, IdentityError> {
        let name = Name::new(&self.cluster, role, id)?;
        let mut params = params(now, ttl);
        let uri = Ia5String::try_from(name.to_string()).map_err(signing)?;
        params.subject_alt_names = vec![SanType::URI(uri)];
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![match Usage::of(role) {
            Usage::Server => ExtendedKeyUsagePurpose::ServerAuth,
            Usage::Client => ExtendedKeyUsagePurpose::ClientAuth,
        }];
        let cert = params.signed_by(key, &self.issuer).map_err(signing)?;
        Ok(Issued {
            cert: cert.der().to_vec(),
            ca: self.cert.to_vec(),
        })
    }
}

impl Usage {
    /// The use that certificates of `role` have.
    #[must_use]
    pub fn of(role: Role) -> Self {
        match role {
            Role::Coordinator => Self::Server,
            Role::Agent | Role::User | Role::Admin => Self::Client,
        }
    }
}

/// The cluster that a CA's certificate names.
pub(super) fn cluster_of(ca: &CertificateDer<'_>) -> Option<String> {
    let (_, cert) = X509Certificate::from_der(ca).ok()?;
    let subject = cert.subject().iter_common_name().next()?.as_str().ok()?;
    Some(subject.strip_prefix(SUBJECT)?.to_owned())
}

fn params(now: SystemTime, ttl: Duration) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.not_before = moment(now - BACKDATED);
    params.not_after = moment(now + ttl);
    params.serial_number = Some(serial());
    params
}

fn moment(time: SystemTime) -> OffsetDateTime {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    OffsetDateTime::UNIX_EPOCH + since
}

fn serial() -> SerialNumber {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).expect("the operating system gives randomness");
    // A serial number is positive and has no leading zero byte.
    bytes[0] = bytes[0] & 0x7f | 0x40;
    SerialNumber::from_slice(&bytes)
}

fn signing(why: rcgen::Error) -> IdentityError {
    IdentityError::damaged("the CA", why)
}
