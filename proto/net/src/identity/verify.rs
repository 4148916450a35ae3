//! Which certificates are believed: rustls asks here during every handshake.
//!
//! On top of webpki (chain to the cluster's CA, validity) each certificate must have exactly one name, of this
//! cluster and of a role that may be at that end, and exactly one use: webpki alone takes a certificate without
//! extended key usage for either side.

use std::{fmt, sync::Arc};

use fleetpool_proto::Role;
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, OtherError, RootCertStore,
    SignatureScheme,
    client::{
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
        verify_server_cert_signed_by_trust_anchor,
    },
    crypto::CryptoProvider,
    server::{
        ParsedCertificate, WebPkiClientVerifier,
        danger::{ClientCertVerified, ClientCertVerifier},
    },
};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};

use super::{
    IdentityError,
    authority::cluster_of,
    certificate::{Clock, Facts, Problem, Usage},
    name::Name,
};
use crate::token::CaHash;

/// The one provider of cryptography.
pub(crate) fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

/// Believes coordinators of one cluster.
pub(crate) struct Coordinators {
    trust: Trust,
    provider: Arc<CryptoProvider>,
}

/// What makes a coordinator one of ours.
enum Trust {
    /// Its chain ends in this CA, and it names this cluster.
    Ca {
        ca: CertificateDer<'static>,
        cluster: String,
    },
    /// It shows a CA of this hash: all that a joiner knows.
    Pinned(CaHash),
}

impl Coordinators {
    pub(crate) fn of_ca(ca: &CertificateDer<'static>, cluster: &str) -> Arc<Self> {
        Self::new(Trust::Ca {
            ca: ca.clone(),
            cluster: cluster.to_owned(),
        })
    }

    pub(crate) fn pinned(hash: CaHash) -> Arc<Self> {
        Self::new(Trust::Pinned(hash))
    }

    fn new(trust: Trust) -> Arc<Self> {
        let provider = provider();
        Arc::new(Self { trust, provider })
    }

    /// The CA to check with, and the cluster's name.
    fn anchor(
        &self,
        shown: &[CertificateDer<'_>],
    ) -> Result<(CertificateDer<'static>, String), Problem> {
        match &self.trust {
            Trust::Ca { ca, cluster } => Ok((ca.clone(), cluster.clone())),
            Trust::Pinned(hash) => {
                let pinned = shown.iter().find(|cert| CaHash::of(cert) == *hash);
                let ca = pinned.ok_or_else(|| {
                    Problem::Untrusted("the token is for the cluster of another CA".to_owned())
                })?;
                let cluster = cluster_of(ca)
                    .ok_or_else(|| Problem::Untrusted("its CA names no cluster".to_owned()))?;
                Ok((ca.clone().into_owned(), cluster))
            }
        }
    }

    fn check(
        &self,
        cert: &CertificateDer<'_>,
        shown: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<(), Problem> {
        let (ca, cluster) = self.anchor(shown)?;
        let algorithms = self.provider.signature_verification_algorithms.all;
        let chain = ParsedCertificate::try_from(cert).and_then(|parsed| {
            verify_server_cert_signed_by_trust_anchor(&parsed, &roots(&ca)?, &[], now, algorithms)
        });
        let facts = judge(cert, chain, Usage::Server, Clock::Here, now)?;
        check_cluster(&facts, &cluster)?;
        check_role(&facts, "a coordinator", |role| role == Role::Coordinator)
    }
}

impl fmt::Debug for Coordinators {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Coordinators")
    }
}

impl ServerCertVerifier for Coordinators {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        self.check(end_entity, intermediates, now).map_err(tls)?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(only_tls13())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, cert, dss, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider
            .signature_verification_algorithms
            .supported_schemes()
    }
}

/// Believes agents, users and admins of one cluster. Who shows no certificate is let in to join, and to nothing
/// else: the listener sees to that.
pub(crate) struct Members {
    cluster: String,
    webpki: Arc<dyn ClientCertVerifier>,
}

impl Members {
    pub(crate) fn of(
        ca: &CertificateDer<'static>,
        cluster: &str,
    ) -> Result<Arc<Self>, IdentityError> {
        let damaged = |why: &dyn fmt::Display| IdentityError::damaged("the CA", why);
        let roots = Arc::new(roots(ca).map_err(|why| damaged(&why))?);
        let webpki = WebPkiClientVerifier::builder_with_provider(roots, provider())
            .allow_unauthenticated()
            .build()
            .map_err(|why| damaged(&why))?;
        let cluster = cluster.to_owned();
        Ok(Arc::new(Self { cluster, webpki }))
    }

    fn check(
        &self,
        cert: &CertificateDer<'_>,
        shown: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<(), Problem> {
        let chain = self.webpki.verify_client_cert(cert, shown, now);
        let facts = judge(
            cert,
            chain.map(|_| ()),
            Usage::Client,
            Clock::Coordinator,
            now,
        )?;
        check_cluster(&facts, &self.cluster)?;
        check_role(&facts, "an agent, user or admin", |role| {
            role != Role::Coordinator
        })
    }
}

impl fmt::Debug for Members {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Members({})", self.cluster)
    }
}

impl ClientCertVerifier for Members {
    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.webpki.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        self.check(end_entity, intermediates, now).map_err(tls)?;
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(only_tls13())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.webpki.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.webpki.supported_verify_schemes()
    }
}

/// What webpki found, in our words, and what it does not look at.
fn judge(
    cert: &CertificateDer<'_>,
    chain: Result<(), rustls::Error>,
    usage: Usage,
    clock: Clock,
    now: UnixTime,
) -> Result<Facts, Problem> {
    use CertificateError as E;
    let now_s = i64::try_from(now.as_secs()).unwrap_or(i64::MAX);
    match chain {
        Ok(()) => {}
        // Said by the certificate's own dates, below.
        Err(rustls::Error::InvalidCertificate(
            E::Expired | E::ExpiredContext { .. } | E::NotValidYet | E::NotValidYetContext { .. },
        )) => {
            let facts = Facts::read(cert)?;
            facts.check_time(clock, now_s)?;
            return Err(Problem::Untrusted("its CA is out of date".to_owned()));
        }
        // The uses are told apart below, with what to do; webpki knows only that they do not fit.
        Err(rustls::Error::InvalidCertificate(
            E::InvalidPurpose | E::InvalidPurposeContext { .. },
        )) => {
            let Name { role, id, .. } = Facts::read(cert)?.name;
            return Err(Problem::WrongSide { role, id });
        }
        Err(why) => return Err(Problem::Untrusted(why.to_string())),
    }
    let facts = Facts::read(cert)?;
    facts.check_time(clock, now_s)?;
    if facts.usage != usage {
        let Name { role, id, .. } = facts.name;
        return Err(Problem::WrongSide { role, id });
    }
    Ok(facts)
}

fn check_cluster(facts: &Facts, cluster: &str) -> Result<(), Problem> {
    if facts.name.cluster == cluster {
        return Ok(());
    }
    Err(Problem::OtherCluster {
        wanted: cluster.to_owned(),
        found: facts.name.cluster.clone(),
    })
}

fn check_role(
    facts: &Facts,
    wanted: &'static str,
    fits: impl Fn(Role) -> bool,
) -> Result<(), Problem> {
    if fits(facts.name.role) {
        return Ok(());
    }
    let (found, id) = (facts.name.role, facts.name.id.clone());
    Err(Problem::WrongRole { wanted, found, id })
}

fn roots(ca: &CertificateDer<'static>) -> Result<RootCertStore, rustls::Error> {
    let mut roots = RootCertStore::empty();
    roots.add(ca.clone())?;
    Ok(roots)
}

/// A problem as rustls carries it. rustls tells it by `Debug`, so that is made to read like the problem itself;
/// [`plain`] takes the rest away.
#[derive(thiserror::Error)]
#[error("{0}")]
struct Verdict(Problem);

impl fmt::Debug for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

fn tls(problem: Problem) -> rustls::Error {
    let verdict = OtherError(Arc::new(Verdict(problem)));
    rustls::Error::InvalidCertificate(CertificateError::Other(verdict))
}

/// What TLS said of a failed handshake, as people should read it.
pub(crate) fn plain(reason: &str) -> &str {
    reason
        .split_once("Other(OtherError(")
        .and_then(|(_, rest)| rest.strip_suffix("))"))
        .unwrap_or(reason)
}

fn only_tls13() -> rustls::Error {
    rustls::Error::PeerIncompatible(rustls::PeerIncompatible::Tls13RequiredForQuic)
}
