//! Peers that do not keep to the rules: byte streams under our control, and certificates nobody should issue.

use std::{sync::Arc, time::SystemTime};

use bytes::BytesMut;
use fleetpool_net::{
    Address, Carrier, Identity,
    identity::{ClusterCa, Name},
};
use fleetpool_proto::{
    Message, Role,
    frame::{read_inline, write_inline},
    version::{ALPN, Hello},
};
use quinn::crypto::rustls::QuicClientConfig;
use rcgen::{CertificateParams, ExtendedKeyUsagePurpose, Issuer, KeyPair, SanType};
use rustls::{
    ClientConfig, DigitallySignedStruct, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::ring,
};
use rustls_pki_types::{
    CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName, UnixTime, pem::PemObject as _,
};
use tempfile::TempDir;
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::{TcpStream, UnixStream},
};

use crate::cluster::DAY;

/// A certificate with its key, whoever made it.
#[derive(Clone)]
pub(crate) struct Papers {
    pub(crate) cert: CertificateDer<'static>,
    pub(crate) key: Vec<u8>,
}

impl Papers {
    pub(crate) fn of(identity: &Identity) -> Self {
        let dir = TempDir::new().unwrap();
        identity.save(dir.path()).unwrap();
        let file = |name| dir.path().join(name);
        let key = PrivatePkcs8KeyDer::from_pem_file(file("key.pem")).unwrap();
        Self {
            cert: CertificateDer::from_pem_file(file("cert.pem")).unwrap(),
            key: key.secret_pkcs8_der().to_vec(),
        }
    }

    /// Signed by the cluster's CA, which would never do that.
    pub(crate) fn forged(ca: &ClusterCa, uris: &[&str], uses: &[ExtendedKeyUsagePurpose]) -> Self {
        let dir = TempDir::new().unwrap();
        ca.save(dir.path()).unwrap();
        let key = PrivatePkcs8KeyDer::from_pem_file(dir.path().join("ca-key.pem")).unwrap();
        let key = KeyPair::try_from(key.secret_pkcs8_der()).unwrap();
        let issuer = Issuer::from_ca_cert_der(&ca.certificate().into(), key).unwrap();
        let own = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.not_before = (SystemTime::now() - DAY).into();
        params.not_after = (SystemTime::now() + DAY).into();
        let names = uris.iter().map(|uri| match uri.strip_prefix("dns:") {
            Some(name) => SanType::DnsName(name.try_into().unwrap()),
            None => SanType::URI((*uri).try_into().unwrap()),
        });
        params.subject_alt_names = names.collect();
        params.extended_key_usages = uses.to_vec();
        Self {
            cert: params.signed_by(&own, &issuer).unwrap().der().clone(),
            key: own.serialize_der(),
        }
    }

    /// How a client with these papers, that believes every server and resumes whenever it can, dials.
    pub(crate) fn config(&self) -> ClientConfig {
        let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(self.key.clone()));
        let config = builder().with_client_auth_cert(vec![self.cert.clone()], key);
        with_alpn(config.unwrap())
    }
}

pub(crate) fn uri(role: Role, id: &str) -> String {
    Name::new("test", role, id).unwrap().to_string()
}

/// A client without papers.
pub(crate) fn without_papers() -> ClientConfig {
    with_alpn(builder().with_no_client_auth())
}

fn builder() -> rustls::ConfigBuilder<ClientConfig, rustls::client::WantsClientCert> {
    ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Gullible))
}

fn with_alpn(mut config: ClientConfig) -> ClientConfig {
    config.alpn_protocols = vec![ALPN.to_vec()];
    config
}

#[derive(Debug)]
struct Gullible;

impl ServerCertVerifier for Gullible {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        let algorithms = ring::default_provider().signature_verification_algorithms;
        algorithms.supported_schemes()
    }
}

pub(crate) trait Io: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Io for T {}

/// Bytes to and from a coordinator, under our control.
pub(crate) struct Raw {
    pub(crate) io: Box<dyn Io>,
    /// On QUIC.
    pub(crate) connection: Option<quinn::Connection>,
    _endpoint: Option<quinn::Endpoint>,
}

impl Raw {
    pub(crate) fn of(io: impl Io + 'static) -> Self {
        Self {
            io: Box::new(io),
            connection: None,
            _endpoint: None,
        }
    }

    pub(crate) async fn dial(carrier: Carrier, address: &Address, tls: ClientConfig) -> Self {
        let io: Box<dyn Io> = match (carrier, address) {
            (Carrier::Unix, Address::Unix(path)) => {
                Box::new(UnixStream::connect(path).await.unwrap())
            }
            (Carrier::Tcp, Address::Tcp(at)) => {
                let socket = TcpStream::connect(at).await.unwrap();
                Box::new(tls_over(socket, tls).await.unwrap())
            }
            (Carrier::Quic, Address::Tcp(at)) => {
                let (endpoint, connection) = quic(at, tls).await;
                let connection = connection.unwrap();
                let (send, recv) = connection.open_bi().await.unwrap();
                return Self {
                    io: Box::new(tokio::io::join(recv, send)),
                    connection: Some(connection),
                    _endpoint: Some(endpoint),
                };
            }
            _ => unreachable!("no such carrier at {address}"),
        };
        Self {
            io,
            connection: None,
            _endpoint: None,
        }
    }

    pub(crate) async fn send(&mut self, bytes: &[u8]) {
        self.io.write_all(bytes).await.unwrap();
        self.io.flush().await.unwrap();
    }

    pub(crate) async fn say_hello(&mut self) {
        let hello = Hello::new(Role::Agent, "raw");
        self.send(&encoded(hello)).await;
    }

    /// The next message, skipping nothing.
    pub(crate) async fn receive<M: Message>(&mut self) -> M {
        let mut buffer = BytesMut::new();
        loop {
            if let Some(frame) = read_inline(&mut buffer).unwrap() {
                return M::from_frame(frame).unwrap();
            }
            assert_ne!(self.io.read_buf(&mut buffer).await.unwrap(), 0, "it ended");
        }
    }

    /// What comes until the other side closes, as text: the reason is in it.
    pub(crate) async fn rest(&mut self) -> String {
        let mut rest = Vec::new();
        let ended = self.io.read_to_end(&mut rest).await;
        let reason = match (ended, &self.connection) {
            (Err(error), Some(connection)) => connection
                .close_reason()
                .map_or_else(|| error.to_string(), |reason| reason.to_string()),
            (Err(error), None) => error.to_string(),
            (Ok(_), _) => String::new(),
        };
        format!("{}{reason}", String::from_utf8_lossy(&rest))
    }
}

pub(crate) fn encoded(message: impl Message) -> BytesMut {
    let mut bytes = BytesMut::new();
    write_inline(&message.into_frame(), &mut bytes);
    bytes
}

pub(crate) async fn tls_over(
    socket: TcpStream,
    tls: ClientConfig,
) -> std::io::Result<tokio_rustls::client::TlsStream<TcpStream>> {
    let name = ServerName::try_from("fleetpool").unwrap();
    tokio_rustls::TlsConnector::from(Arc::new(tls))
        .connect(name, socket)
        .await
}

pub(crate) async fn quic(
    at: &str,
    tls: ClientConfig,
) -> (
    quinn::Endpoint,
    Result<quinn::Connection, quinn::ConnectionError>,
) {
    let tls = QuicClientConfig::try_from(tls).unwrap();
    let endpoint = quinn::Endpoint::client(([127, 0, 0, 1], 0).into()).unwrap();
    let config = quinn::ClientConfig::new(Arc::new(tls));
    let connecting = endpoint.connect_with(config, at.parse().unwrap(), "fleetpool");
    let connection = connecting.unwrap().await;
    (endpoint, connection)
}
