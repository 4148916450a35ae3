//! Accepting TLS over TCP.

use std::{net::SocketAddr, sync::Arc};

use fleetpool_proto::limits::JOIN_TIME_MAX;
use rustls::ServerConfig;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::OwnedSemaphorePermit,
    time::timeout,
};
use tokio_rustls::TlsAcceptor;

use super::porch::{Arrival, Porch, failed};
use crate::{connect::tune_tcp, peer::Carrier, session::stream};

pub(super) async fn serve(listener: TcpListener, tls: Arc<ServerConfig>, porch: Arc<Porch>) {
    let tls = TlsAcceptor::from(tls);
    loop {
        let place = porch.place().await;
        match listener.accept().await {
            Ok((socket, address)) => {
                tokio::spawn(receive(
                    Arc::clone(&porch),
                    tls.clone(),
                    socket,
                    address,
                    place,
                ));
            }
            Err(error) => super::unix::accept_failed("TCP", &error).await,
        }
    }
}

async fn receive(
    porch: Arc<Porch>,
    tls: TlsAcceptor,
    socket: TcpStream,
    address: SocketAddr,
    _place: OwnedSemaphorePermit,
) {
    // Who says nothing takes nobody's turn.
    let speaks = timeout(JOIN_TIME_MAX, socket.readable()).await;
    if !matches!(speaks, Ok(Ok(()))) || tune_tcp(&socket).is_err() {
        return;
    }
    // Who was quicker by QUIC is gone by now.
    if matches!(socket.peek(&mut [0]).await, Ok(0) | Err(_)) {
        return;
    }
    let socket = porch.shake_hands(async {
        let socket = tls.accept(socket).await;
        socket
            .inspect_err(|error| failed("TLS", address, &error.to_string()))
            .ok()
    });
    let Some(socket) = socket.await else {
        return;
    };
    let shown = socket.get_ref().1.peer_certificates();
    let certificate = shown.and_then(|chain| chain.first()).cloned();
    let certificate = certificate.map(|certificate| certificate.into_owned());
    let (read, write) = tokio::io::split(socket);
    let (sender, receiver) = stream::open(read, write);
    let arrival = Arrival {
        sender,
        receiver,
        carrier: Carrier::Tcp,
        address: address.to_string(),
        certificate,
    };
    porch.receive(arrival).await;
}
