//! Accepting QUIC connections.

use std::sync::Arc;

use quinn::{Connection, Endpoint};
use rustls_pki_types::CertificateDer;
use tokio::sync::OwnedSemaphorePermit;

use super::porch::{Arrival, Porch, failed};
use crate::{peer::Carrier, session::quic};

pub(super) async fn serve(endpoint: Endpoint, porch: Arc<Porch>) {
    while let Some(incoming) = endpoint.accept().await {
        // In a crowd, an address has to answer once before it costs a handshake: spoofed ones cannot.
        if porch.is_crowded() && incoming.may_retry() {
            if let Err(error) = incoming.retry() {
                tracing::debug!(%error, "retry not sent");
            }
            continue;
        }
        let place = porch.place().await;
        tokio::spawn(receive(Arc::clone(&porch), incoming, place));
    }
}

async fn receive(porch: Arc<Porch>, incoming: quinn::Incoming, _place: OwnedSemaphorePermit) {
    let address = incoming.remote_address();
    let connection = porch.shake_hands(async {
        let connection = incoming.accept().ok()?.await;
        connection
            .inspect_err(|error| failed("QUIC", address, &error.to_string()))
            .ok()
    });
    let Some(connection) = connection.await else {
        return;
    };
    if let Some(arrival) = arrive(connection).await {
        porch.receive(arrival).await;
    }
}

/// The connection with its control stream, which the dialling side opens when it speaks.
async fn arrive(connection: Connection) -> Option<Arrival> {
    let certificate = certificate(&connection);
    let opened = tokio::time::timeout(
        fleetpool_proto::limits::JOIN_TIME_MAX,
        connection.accept_bi(),
    );
    let Ok(Ok((send, recv))) = opened.await else {
        connection.close(0_u32.into(), b"nothing was said in time");
        return None;
    };
    let address = connection.remote_address().to_string();
    let (sender, receiver) = quic::open(connection, send, recv);
    Some(Arrival {
        sender,
        receiver,
        carrier: Carrier::Quic,
        address,
        certificate,
    })
}

/// What the peer showed; the handshake has verified it.
fn certificate(connection: &Connection) -> Option<CertificateDer<'static>> {
    let shown = connection.peer_identity()?;
    let chain = shown.downcast::<Vec<CertificateDer<'static>>>().ok()?;
    chain.into_iter().next()
}
