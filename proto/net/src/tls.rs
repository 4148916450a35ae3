//! The two TLS configurations, for QUIC and TCP alike.
//!
//! TLS 1.3 only. No tickets, no resumption and no early data on either side: a resumed session is not asked for
//! its certificate again, so that a revoked or expired one would live on.

use std::sync::Arc;

use fleetpool_proto::version::ALPN;
use rustls::{
    ClientConfig, ServerConfig, client::Resumption, server::NoServerSessionStorage, version::TLS13,
};

use crate::identity::{
    Identity, IdentityError, ServerIdentity,
    verify::{Coordinators, Members, provider},
};

/// What certificates name is a URI of ours; TLS wants a DNS name to ask for and nobody looks at it.
pub(crate) const SERVER_NAME: &str = "fleetpool";

/// No older one.
pub(crate) const VERSIONS: &[&rustls::SupportedProtocolVersion] = &[&TLS13];

/// For a coordinator.
pub(crate) fn server(server: &ServerIdentity) -> Result<Arc<ServerConfig>, IdentityError> {
    let identity = &server.identity;
    let damaged = |why| IdentityError::damaged("the coordinator's identity", why);
    let members = Members::of(&identity.ca, &identity.name().cluster)?;
    // The CA is shown too: joiners know nothing but its hash.
    let chain = vec![identity.cert.clone(), identity.ca.clone()];
    let config = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(VERSIONS)
        .map_err(damaged)?
        .with_client_cert_verifier(members)
        .with_single_cert(chain, identity.private_key())
        .map_err(damaged)?;
    Ok(Arc::new(listening(config, ALPN)))
}

/// For a member, who shows `identity` and believes the coordinators of its cluster.
pub(crate) fn member(identity: &Identity) -> Result<Arc<ClientConfig>, rustls::Error> {
    let coordinators = Coordinators::of_ca(&identity.ca, &identity.name().cluster);
    let config = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(VERSIONS)?
        .dangerous()
        .with_custom_certificate_verifier(coordinators)
        .with_client_auth_cert(vec![identity.cert.clone()], identity.private_key())?;
    Ok(Arc::new(dialling(config, ALPN)))
}

/// For a joiner, who has nothing to show.
pub(crate) fn stranger(
    coordinators: Arc<Coordinators>,
) -> Result<Arc<ClientConfig>, rustls::Error> {
    let config = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(VERSIONS)?
        .dangerous()
        .with_custom_certificate_verifier(coordinators)
        .with_no_client_auth();
    Ok(Arc::new(dialling(config, ALPN)))
}

/// What every listening side has.
pub(crate) fn listening(mut config: ServerConfig, alpn: &[u8]) -> ServerConfig {
    config.alpn_protocols = vec![alpn.to_vec()];
    config.send_tls13_tickets = 0;
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.max_early_data_size = 0;
    config
}

/// What every dialling side has.
pub(crate) fn dialling(mut config: ClientConfig, alpn: &[u8]) -> ClientConfig {
    config.alpn_protocols = vec![alpn.to_vec()];
    config.resumption = Resumption::disabled();
    config.enable_early_data = false;
    config.enable_sni = false;
    config
}
