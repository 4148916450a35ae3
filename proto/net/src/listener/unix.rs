//! Accepting on a Unix socket: the kernel says who is there.

use std::{io, sync::Arc, time::Duration};

use fleetpool_proto::Role;
use nix::unistd::{Uid, User};
use tokio::{net::UnixStream, sync::OwnedSemaphorePermit, time::sleep};

use super::{bind::UnixSocket, porch::Porch};
use crate::{
    peer::{Carrier, Peer},
    session::{Session, stream},
};

/// The same user could read the cluster's keys: there is nothing to keep it from. A coordinator does not dial.
const MAY_BE: &[Role] = &[Role::Agent, Role::User, Role::Admin];
/// How long accepting rests after it failed, which is when the process has no file descriptors left.
const REST: Duration = Duration::from_millis(100);

pub(super) async fn serve(socket: UnixSocket, porch: Arc<Porch>) {
    loop {
        let place = porch.place().await;
        match socket.listener.accept().await {
            Ok((stream, _)) => {
                tokio::spawn(receive(Arc::clone(&porch), stream, place));
            }
            Err(error) => accept_failed("Unix", &error).await,
        }
    }
}

pub(super) async fn accept_failed(carrier: &str, error: &io::Error) {
    tracing::warn!(carrier, %error, "cannot accept connections");
    sleep(REST).await;
}

async fn receive(porch: Arc<Porch>, socket: UnixStream, _place: OwnedSemaphorePermit) {
    let Some(user) = owner(&socket) else {
        tracing::info!("a connection of another user to the Unix socket is refused");
        return;
    };
    let (read, write) = socket.into_split();
    let (sender, receiver) = stream::open(read, write);
    let peer = Peer {
        role: Role::Admin,
        id: user.clone(),
        name: user,
        carrier: Carrier::Unix,
        address: "this host".to_owned(),
        key: None,
    };
    let session = Session {
        peer,
        sender,
        receiver,
    };
    porch.receive_known(session, MAY_BE).await;
}

/// The name of the user at the other end, if that is the one this process runs as, or root.
fn owner(socket: &UnixStream) -> Option<String> {
    let uid = Uid::from_raw(socket.peer_cred().ok()?.uid());
    if uid != Uid::effective() && !uid.is_root() {
        return None;
    }
    let name = User::from_uid(uid).ok().flatten().map(|user| user.name);
    Some(name.unwrap_or_else(|| format!("uid-{uid}")))
}
