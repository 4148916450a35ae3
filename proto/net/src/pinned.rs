//! Connections between two peers who were told of each other by somebody that both trust, and know nothing else: each
//! shows a certificate that it has made itself, and is believed if that is the one whose hash, the *pin*, was told.
//!
//! TLS 1.3 over TCP. A listener has a port of its own, and a list of guests: each may come once. Until a guest has proved
//! that it has the key of a certificate on the list nothing is read from it but the handshake and a byte, and nothing said to it.
//! No name, authority, role or clock plays a part, so that agents without an identity can do this too.

use std::{
    collections::BTreeSet,
    fmt, io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use fleetpool_proto::{
    PeerPin,
    limits::{JOIN_TIME_MAX, PASSING_CONNECT_TIME_MAX, PASSING_STRANGERS_MAX},
};
use rcgen::{CertificateParams, KeyPair, PKCS_ECDSA_P256_SHA256};
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, DistinguishedName, ServerConfig,
    SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::CryptoProvider,
    server::danger::{ClientCertVerified, ClientCertVerifier},
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName, UnixTime};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, BufReader, ReadBuf},
    net::{TcpListener, TcpStream},
    task::JoinSet,
    time::{sleep, timeout},
};
use tokio_rustls::{TlsAcceptor, TlsConnector, TlsStream};

use crate::{
    connect::tune_tcp,
    identity::verify::provider,
    tls::{self, SERVER_NAME},
};

/// A host's addresses are tried this long after one another, side by side.
const NEXT_ADDRESS_AFTER: Duration = Duration::from_millis(200);

/// A key and the certificate that this process made for it.
pub struct PinnedKey {
    cert: CertificateDer<'static>,
    key: PrivatePkcs8KeyDer<'static>,
}

impl PinnedKey {
    /// A new one, of this life alone.
    ///
    /// # Errors
    /// When the operating system gives no randomness.
    pub fn new() -> io::Result<Self> {
        let make = || {
            let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
            let cert = CertificateParams::default().self_signed(&key)?;
            Ok::<_, rcgen::Error>((cert.der().clone(), key.serialize_der()))
        };
        let (cert, key) = make().map_err(io::Error::other)?;
        let key = PrivatePkcs8KeyDer::from(key);
        Ok(Self { cert, key })
    }

    /// What others know it by.
    #[must_use]
    pub fn pin(&self) -> PeerPin {
        pin_of(&self.cert)
    }

    fn private_key(&self) -> PrivateKeyDer<'static> {
        self.key.clone_key().into()
    }

    fn server(&self) -> Result<ServerConfig, rustls::Error> {
        let config = ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(tls::VERSIONS)?
            .with_client_cert_verifier(Arc::new(Guests(provider())))
            .with_single_cert(vec![self.cert.clone()], self.private_key())?;
        Ok(tls::listening(config, ALPN))
    }

    fn client(&self, host: PeerPin) -> Result<ClientConfig, rustls::Error> {
        let host = Arc::new(OnlyHost(host, provider()));
        let config = ClientConfig::builder_with_provider(provider())
            .with_protocol_versions(tls::VERSIONS)?
            .dangerous()
            .with_custom_certificate_verifier(host)
            .with_client_auth_cert(vec![self.cert.clone()], self.private_key())?;
        Ok(tls::dialling(config, ALPN))
    }
}

impl fmt::Debug for PinnedKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PinnedKey({})", self.pin())
    }
}

/// What a guest says on the one connection that it goes on with. It may have shaken hands on several, since it tries addresses
/// side by side, and the host cannot tell which of them was the first for it.
const THIS_ONE: u8 = 1;
/// Bytes asked of the kernel at once.
const READ_BYTES: usize = 128 << 10;
/// Names these connections in TLS, so that none is taken for a session with a coordinator.
const ALPN: &[u8] = b"fleetpool-pinned";

/// A port that guests may come to.
pub struct PinnedListener {
    socket: TcpListener,
    tls: TlsAcceptor,
    guests: BTreeSet<PeerPin>,
    /// Who has come and not shown who it is.
    strangers: JoinSet<Option<(PeerPin, PinnedStream)>>,
}

impl PinnedListener {
    /// A port of its own on all of this host's addresses.
    ///
    /// # Errors
    /// When the operating system gives none.
    pub async fn bind(key: &PinnedKey) -> io::Result<Self> {
        let socket = match TcpListener::bind((Ipv6Addr::UNSPECIFIED, 0)).await {
            Ok(socket) => socket,
            // A host without IPv6.
            Err(_) => TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0)).await?,
        };
        let tls = Arc::new(key.server().map_err(io::Error::other)?);
        Ok(Self {
            socket,
            tls: tls.into(),
            guests: BTreeSet::new(),
            strangers: JoinSet::new(),
        })
    }

    /// The port.
    ///
    /// # Errors
    /// Never, as far as is known.
    pub fn port(&self) -> io::Result<u16> {
        Ok(self.socket.local_addr()?.port())
    }

    /// From now on this guest may come, once.
    pub fn invite(&mut self, guest: PeerPin) {
        self.guests.insert(guest);
    }

    /// The next guest. Whoever else comes is sent away, and all who show nothing.
    pub fn poll_guest(&mut self, context: &mut Context<'_>) -> Poll<PinnedStream> {
        self.poll_doors(context);
        while let Poll::Ready(Some(shown)) = self.strangers.poll_join_next(context) {
            if let Ok(Some((pin, stream))) = shown {
                if self.guests.remove(&pin) {
                    return Poll::Ready(stream);
                }
                tracing::info!(%pin, "somebody who is not invited came for content");
            }
            // There is room again.
            self.poll_doors(context);
        }
        Poll::Pending
    }

    /// Takes in who stands outside. While there is no room they wait with the kernel.
    fn poll_doors(&mut self, context: &mut Context<'_>) {
        while self.strangers.len() < PASSING_STRANGERS_MAX {
            match self.socket.poll_accept(context) {
                Poll::Ready(Ok((socket, from))) => {
                    let shaking = shake_hands(self.tls.clone(), socket, from);
                    self.strangers.spawn(async move {
                        let shaken = timeout(JOIN_TIME_MAX, shaking).await;
                        shaken.ok().flatten()
                    });
                }
                Poll::Ready(Err(error)) => {
                    tracing::warn!(%error, "cannot take a connection");
                    return;
                }
                Poll::Pending => return,
            }
        }
    }
}

impl fmt::Debug for PinnedListener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PinnedListener")
            .field("socket", &self.socket)
            .field("guests", &self.guests)
            .finish_non_exhaustive()
    }
}

async fn shake_hands(
    tls: TlsAcceptor,
    socket: TcpStream,
    from: SocketAddr,
) -> Option<(PeerPin, PinnedStream)> {
    tune_tcp(&socket).ok()?;
    let shaken = tls.accept(buffered(socket)).await;
    let mut stream = shaken
        .inspect_err(
            |error| tracing::info!(%from, %error, "somebody came for content and was refused"),
        )
        .ok()?;
    let shown = stream.get_ref().1.peer_certificates();
    let pin = pin_of(shown?.first()?);
    (stream.read_u8().await.ok()? == THIS_ONE).then_some(())?;
    Some((pin, PinnedStream(stream.into())))
}

/// Dials the peer of that pin, which may be at one of these addresses. Whoever else is there is not talked to.
///
/// # Errors
/// When it is at none of them, or has not answered in time.
pub async fn dial(
    key: &PinnedKey,
    peer: PeerPin,
    addresses: &[SocketAddr],
) -> io::Result<PinnedStream> {
    let tls = Arc::new(key.client(peer).map_err(io::Error::other)?);
    let mut attempts = JoinSet::new();
    for (place, &address) in (0_u32..).zip(addresses) {
        let tls = TlsConnector::from(Arc::clone(&tls));
        attempts.spawn(async move {
            sleep(NEXT_ADDRESS_AFTER * place).await;
            dial_one(tls, address).await
        });
    }
    let first = async {
        let mut last = io::Error::new(io::ErrorKind::NotFound, "it has no address");
        while let Some(attempt) = attempts.join_next().await {
            match attempt.map_err(io::Error::from).flatten() {
                Ok(mut stream) => {
                    stream.write_u8(THIS_ONE).await?;
                    stream.flush().await?;
                    return Ok(stream);
                }
                Err(error) => last = error,
            }
        }
        Err(last)
    };
    timeout(PASSING_CONNECT_TIME_MAX, first)
        .await
        .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}

async fn dial_one(tls: TlsConnector, address: SocketAddr) -> io::Result<PinnedStream> {
    let at = |error: io::Error| io::Error::new(error.kind(), format!("{address}: {error}"));
    let socket = TcpStream::connect(address).await.map_err(at)?;
    tune_tcp(&socket)?;
    let name = ServerName::try_from(SERVER_NAME).expect("a name");
    let stream = tls.connect(name, buffered(socket)).await.map_err(at)?;
    Ok(PinnedStream(stream.into()))
}

/// The TLS library asks for a few KiB at a time, which would be a system call each.
fn buffered(socket: TcpStream) -> BufReader<TcpStream> {
    BufReader::with_capacity(READ_BYTES, socket)
}

/// Bytes to and from a peer that is the one.
#[derive(Debug)]
pub struct PinnedStream(TlsStream<BufReader<TcpStream>>);

impl AsyncRead for PinnedStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(context, buffer)
    }
}

impl AsyncWrite for PinnedStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(context)
    }
}

fn pin_of(cert: &CertificateDer<'_>) -> PeerPin {
    PeerPin(*blake3::hash(cert).as_bytes())
}

/// Believes one certificate.
#[derive(Debug)]
struct OnlyHost(PeerPin, Arc<CryptoProvider>);

impl ServerCertVerifier for OnlyHost {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        if pin_of(end_entity) == self.0 {
            return Ok(ServerCertVerified::assertion());
        }
        let why = CertificateError::ApplicationVerificationFailure;
        Err(rustls::Error::InvalidCertificate(why))
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
        verify_signature(&self.1, message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        schemes(&self.1)
    }
}

/// Has everybody prove that they have the key of what they show. The listener then looks whether that is a guest's.
#[derive(Debug)]
struct Guests(Arc<CryptoProvider>);

impl ClientCertVerifier for Guests {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
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
        verify_signature(&self.0, message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        schemes(&self.0)
    }
}

fn verify_signature(
    provider: &CryptoProvider,
    message: &[u8],
    cert: &CertificateDer<'_>,
    dss: &DigitallySignedStruct,
) -> Result<HandshakeSignatureValid, rustls::Error> {
    let algorithms = &provider.signature_verification_algorithms;
    rustls::crypto::verify_tls13_signature(message, cert, dss, algorithms)
}

fn schemes(provider: &CryptoProvider) -> Vec<SignatureScheme> {
    provider
        .signature_verification_algorithms
        .supported_schemes()
}

fn only_tls13() -> rustls::Error {
    rustls::Error::PeerIncompatible(rustls::PeerIncompatible::Tls13RequiredForQuic)
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    async fn listener() -> (PinnedKey, PinnedListener, SocketAddr) {
        let key = PinnedKey::new().unwrap();
        let listener = PinnedListener::bind(&key).await.unwrap();
        let at = (Ipv4Addr::LOCALHOST, listener.port().unwrap()).into();
        (key, listener, at)
    }

    /// Greets every guest, and tells how many there were when the others have been waited for.
    fn greet(mut listener: PinnedListener) -> tokio::task::JoinHandle<()> {
        tokio::spawn(async move {
            loop {
                let mut guest = poll_fn(|context| listener.poll_guest(context)).await;
                guest.write_all(b"welcome").await.unwrap();
                guest.shutdown().await.unwrap();
            }
        })
    }

    /// What is said to whoever dials with this key.
    async fn hear(key: &PinnedKey, host: PeerPin, at: SocketAddr) -> io::Result<String> {
        let mut stream = dial(key, host, &[at]).await?;
        let mut heard = String::new();
        stream.read_to_string(&mut heard).await?;
        Ok(heard)
    }

    #[tokio::test]
    async fn g9_a_guest_is_let_in_once_and_nobody_else_is() {
        let (host, mut listener, at) = listener().await;
        let (guest, stranger) = (PinnedKey::new().unwrap(), PinnedKey::new().unwrap());
        listener.invite(guest.pin());
        let greeter = greet(listener);
        assert!(
            hear(&stranger, host.pin(), at).await.is_err(),
            "not invited"
        );
        assert_eq!(hear(&guest, host.pin(), at).await.unwrap(), "welcome");
        assert!(hear(&guest, host.pin(), at).await.is_err(), "a second time");
        greeter.abort();
    }

    #[tokio::test]
    async fn g9_a_guest_that_shook_hands_twice_is_let_in_where_it_goes_on() {
        let (host, mut listener, at) = listener().await;
        let guest = PinnedKey::new().unwrap();
        listener.invite(guest.pin());
        let greeter = greet(listener);
        let tls = Arc::new(guest.client(host.pin()).unwrap());
        // Another address was a little faster.
        let left = dial_one(tls.into(), at).await.unwrap();
        assert_eq!(hear(&guest, host.pin(), at).await.unwrap(), "welcome");
        drop(left);
        greeter.abort();
    }

    #[tokio::test]
    async fn g9_another_than_was_told_of_is_not_talked_to() {
        let (_, mut listener, at) = listener().await;
        let guest = PinnedKey::new().unwrap();
        listener.invite(guest.pin());
        let greeter = greet(listener);
        let other = PinnedKey::new().unwrap().pin();
        let error = dial(&guest, other, &[at]).await.expect_err("it fails");
        assert!(error.to_string().contains("certificate"), "{error}");
        greeter.abort();
    }

    #[tokio::test]
    async fn g9_who_shows_a_guests_certificate_without_its_key_is_refused() {
        let (host, mut listener, at) = listener().await;
        let (guest, thief) = (PinnedKey::new().unwrap(), PinnedKey::new().unwrap());
        listener.invite(guest.pin());
        let greeter = greet(listener);
        let stolen = PinnedKey {
            cert: guest.cert.clone(),
            key: thief.key.clone_key(),
        };
        assert!(hear(&stolen, host.pin(), at).await.is_err());
        assert_eq!(hear(&guest, host.pin(), at).await.unwrap(), "welcome");
        greeter.abort();
    }

    #[tokio::test]
    async fn g9_who_shows_no_certificate_or_speaks_no_tls_is_refused() {
        let (host, mut listener, at) = listener().await;
        listener.invite(PinnedKey::new().unwrap().pin());
        let greeter = greet(listener);
        let config = ClientConfig::builder_with_provider(provider())
            .with_protocol_versions(tls::VERSIONS)
            .unwrap()
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(OnlyHost(host.pin(), provider())))
            .with_no_client_auth();
        let nobody = TlsConnector::from(Arc::new(tls::dialling(config, ALPN)));
        let heard = async {
            let mut heard = Vec::new();
            let mut stream = dial_one(nobody, at).await?;
            stream.read_to_end(&mut heard).await
        };
        assert!(heard.await.is_err());
        let mut plain = TcpStream::connect(at).await.unwrap();
        plain.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
        let mut heard = Vec::new();
        // An alert, or the end: nothing that a guest would get.
        let _ = plain.read_to_end(&mut heard).await;
        assert!(!heard.windows(7).any(|window| window == b"welcome"));
        greeter.abort();
    }

    #[tokio::test]
    async fn g9_who_says_nothing_takes_a_place_for_a_bounded_time() {
        let (host, mut listener, at) = listener().await;
        let guest = PinnedKey::new().unwrap();
        listener.invite(guest.pin());
        let mut silent = Vec::new();
        for _ in 0..PASSING_STRANGERS_MAX {
            silent.push(TcpStream::connect(at).await.unwrap());
        }
        let greeter = greet(listener);
        let mut end = Vec::new();
        for mut stranger in silent {
            // The time that they have is over.
            let _ = stranger.read_to_end(&mut end).await;
        }
        assert_eq!(end, b"");
        assert_eq!(hear(&guest, host.pin(), at).await.unwrap(), "welcome");
        greeter.abort();
    }

    #[tokio::test]
    async fn of_several_addresses_the_one_that_is_right_is_found() {
        let (host, mut listener, at) = listener().await;
        let (_, other, elsewhere) = self::listener().await;
        let guest = PinnedKey::new().unwrap();
        listener.invite(guest.pin());
        let greeters = [greet(listener), greet(other)];
        let nobody = (Ipv4Addr::LOCALHOST, 1).into();
        let mut stream = dial(&guest, host.pin(), &[nobody, elsewhere, at])
            .await
            .unwrap();
        let mut heard = String::new();
        stream.read_to_string(&mut heard).await.unwrap();
        assert_eq!(heard, "welcome");
        greeters.iter().for_each(|greeter| greeter.abort());
    }
}
