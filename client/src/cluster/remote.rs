//! A session with a coordinator somewhere else.

use std::{future::Future, sync::Arc};

use fleetpool_net::{
    Address, Carrier, Cause, ConnectError, Identity, Sender, Session, connect, connect_tcp,
};
use fleetpool_proto::{
    Role,
    version::{Hello, Welcome},
};

use super::{
    embedded::{no_thread, user_name},
    error::Error,
    handle::Cluster,
    line::Redial,
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
        let redial = redial(address.clone(), identity.cloned());
        let (thread, ready) = Thread::start(dial).map_err(no_thread)?;
        let ended = |_| Error::Start {
            reason: "its thread has ended".to_owned(),
        };
        let (session, welcome) = ready.await.map_err(ended)??;
        let runtime = thread.runtime().clone();
        Ok(Self::start(
            session,
            welcome,
            Some(redial),
            runtime,
            Some(thread),
        ))
    }
}

async fn dial(
    address: Address,
    identity: Option<Identity>,
) -> Result<((Session, Welcome), impl Future<Output = ()>), Error> {
    let hello = Hello::new(role_of(identity.as_ref()), user_name());
    let connected = connect_alive(&address, identity.as_ref(), hello).await;
    let (session, welcome) = connected.map_err(|error| Error::Connect {
        address: address.to_string(),
        reason: error.to_string(),
    })?;
    let sender = session.sender.clone();
    let farewell = async move { sender.close(GOODBYE) };
    Ok(((session, welcome), farewell))
}

/// Dials the coordinator again for a client that it knows.
fn redial(address: Address, identity: Option<Identity>) -> Redial {
    let target = Arc::new((address, identity));
    Box::new(move |client, unsaid| {
        let target = Arc::clone(&target);
        Box::pin(async move {
            let (address, identity) = &*target;
            let hello = Hello::resume(role_of(identity.as_ref()), user_name(), client, unsaid);
            connect_alive(address, identity.as_ref(), hello).await
        })
    })
}

fn role_of(identity: Option<&Identity>) -> Role {
    match identity.map_or(Role::Admin, Identity::role) {
        Role::Admin => Role::Admin,
        // With an identity of another role the coordinator says which one is needed.
        Role::User | Role::Agent | Role::Coordinator => Role::User,
    }
}

/// Opens a session, and a lifeline where its carrier does not tell at once of this process's end.
async fn connect_alive(
    address: &Address,
    identity: Option<&Identity>,
    hello: Hello,
) -> Result<(Session, Welcome), ConnectError> {
    let (session, welcome) = connect(address, identity, hello).await?;
    if session.peer.carrier == Carrier::Quic {
        let hello = Hello::lifeline(role_of(identity), user_name(), welcome.client);
        let (address, identity) = (address.clone(), identity.cloned());
        tokio::spawn(hold_lifeline(
            address,
            identity,
            hello,
            session.sender.clone(),
        ));
    }
    Ok((session, welcome))
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
            // A session that is lost is followed by another, as long as this process is there.
            () = closed_by_us(&session) => lifeline.sender.close(GOODBYE),
            _ = lifeline.receiver.recv() => {}
        },
    }
}

/// Waits until this side ends the session; for ever, when it ends otherwise.
async fn closed_by_us(session: &Sender) {
    if session.closed().await.cause != Cause::Us {
        std::future::pending::<()>().await;
    }
}
