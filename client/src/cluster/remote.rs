//! A session with a coordinator somewhere else.

use std::future::Future;

use fleetpool_net::{Address, Carrier, Identity, Sender, Session, connect, connect_tcp};
use fleetpool_proto::{
    Role,
    version::{Hello, Welcome},
};

use super::{
    embedded::{no_thread, user_name},
    error::Error,
    handle::Cluster,
    thread::Thread,
};

/// What the coordinator is told by a client that leaves in peace.
const GOODBYE: &str = "the client is done";

impl Cluster {
    /// Opens a session with the coordinator at `address`. A Unix socket needs no identity.
    ///
    /// # Errors
    /// When it cannot be reached or does not let this client in.
    pub async fn connect(address: &Address, identity: Option<&Identity>) -> Result<Self, Error> {
        let dial = dial(address.clone(), identity.cloned());
        let (thread, ready) = Thread::start(dial).map_err(no_thread)?;
        let ended = |_| Error::Start {
            reason: "its thread has ended".to_owned(),
        };
        let (session, welcome) = ready.await.map_err(ended)??;
        let runtime = thread.runtime().clone();
        Ok(Self::start(session, welcome, runtime, Some(thread)))
    }
}

async fn dial(
    address: Address,
    identity: Option<Identity>,
) -> Result<((Session, Welcome), impl Future<Output = ()>), Error> {
    let role = match identity.as_ref().map_or(Role::Admin, Identity::role) {
        Role::Admin => Role::Admin,
        // With an identity of another role the coordinator says which one is needed.
        Role::User | Role::Agent | Role::Coordinator => Role::User,
    };
    let hello = Hello::new(role, user_name());
    let connected = connect(&address, identity.as_ref(), hello).await;
    let (session, welcome) = connected.map_err(|error| Error::Connect {
        address: address.to_string(),
        reason: error.to_string(),
    })?;
    let sender = session.sender.clone();
    if session.peer.carrier == Carrier::Quic {
        let hello = Hello::lifeline(role, user_name(), welcome.client);
        tokio::spawn(hold_lifeline(address, identity, hello, sender.clone()));
    }
    let farewell = async move { sender.close(GOODBYE) };
    Ok(((session, welcome), farewell))
}

/// Holds a connection whose end tells the coordinator at once that this process is gone, also when it was killed:
/// QUIC would notice after its idle timeout only. Without one the session works all the same.
async fn hold_lifeline(
    address: Address,
    identity: Option<Identity>,
    hello: Hello,
    session: Sender,
) {
    let lifeline = tokio::select! {
        lifeline = connect_tcp(&address, identity.as_ref(), hello) => lifeline,
        _ = session.closed() => return,
    };
    match lifeline {
        Err(error) => {
            tracing::info!(%error, "no lifeline: if this client is killed, its tasks run on for some seconds")
        }
        Ok((mut lifeline, _)) => tokio::select! {
            _ = session.closed() => lifeline.sender.close(GOODBYE),
            _ = lifeline.receiver.recv() => {}
        },
    }
}
