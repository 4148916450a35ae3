//! The first frame each way: who speaks, which protocol, and whether it may.

use fleetpool_proto::{
    Message as _, Role,
    limits::CONNECT_TIME_MAX,
    version::{Hello, HelloReply, PROTOCOL, PROTOCOL_MIN, Welcome, negotiate},
};
use tokio::time::timeout;

use crate::{
    connect::ConnectError,
    peer::Peer,
    session::{Closed, Receiver, Sender, Session},
};

/// The dialling side: says Hello and waits to be welcomed.
pub(crate) async fn introduce(
    mut session: Session,
    hello: Hello,
) -> Result<(Session, Welcome), ConnectError> {
    let at = session.peer.address.clone();
    let broken = |closed: Closed| ConnectError::Broken {
        at: at.clone(),
        closed,
    };
    session
        .sender
        .send(hello.into_frame())
        .await
        .map_err(broken)?;
    let reply = session.receiver.recv().await.map_err(broken)?;
    let reply = HelloReply::from_frame(reply).map_err(|why| broken(Closed::malformed(why)))?;
    match reply {
        HelloReply::Refused { reason } => Err(ConnectError::Refused { at, reason }),
        HelloReply::Welcome(welcome) => {
            if !(PROTOCOL_MIN..=PROTOCOL).contains(&welcome.protocol) {
                let (protocol, build) = (welcome.protocol, welcome.build);
                return Err(ConnectError::Protocol {
                    at,
                    protocol,
                    build,
                });
            }
            session.receiver.welcome();
            Ok((session, welcome))
        }
    }
}

/// A peer that has proved who it is, has said Hello and waits to be welcomed.
#[derive(Debug)]
pub struct Incoming {
    /// Who it is.
    pub peer: Peer,
    /// What it said.
    pub hello: Hello,
    /// The protocol that both speak.
    pub protocol: u16,
    sender: Sender,
    receiver: Receiver,
}

impl Incoming {
    /// Opens the session. The protocol in `welcome` is filled in.
    ///
    /// # Errors
    /// When the peer has gone meanwhile.
    pub async fn welcome(mut self, welcome: Welcome) -> Result<Session, Closed> {
        let protocol = self.protocol;
        let reply = HelloReply::Welcome(Welcome {
            protocol,
            ..welcome
        });
        self.receiver.welcome();
        self.sender.send(reply.into_frame()).await?;
        Ok(Session {
            peer: self.peer,
            sender: self.sender,
            receiver: self.receiver,
        })
    }

    /// Sends the peer away; it is told why.
    pub async fn refuse(self, reason: &str) {
        refuse(&self.sender, reason).await;
    }
}

/// The listening side: reads the Hello of a session whose peer is proved. `None`: it was sent away.
pub(crate) async fn receive(
    mut session: Session,
    may_be: &[Role],
    admit: impl FnOnce(&Peer) -> Result<(), String>,
) -> Option<Incoming> {
    let hello = match timeout(CONNECT_TIME_MAX, session.receiver.recv()).await {
        Ok(Ok(frame)) => Hello::from_frame(frame),
        Ok(Err(closed)) => {
            tracing::debug!(peer = %session.peer, %closed, "left before its hello");
            return None;
        }
        Err(_) => {
            session.sender.close("no hello came");
            return None;
        }
    };
    let checked = hello
        .map_err(|why| format!("hello cannot be read: {why}"))
        .and_then(|hello| check(&mut session.peer, may_be, hello))
        .and_then(|(hello, protocol)| admit(&session.peer).map(|()| (hello, protocol)));
    match checked {
        Ok((hello, protocol)) => Some(Incoming {
            peer: session.peer,
            hello,
            protocol,
            sender: session.sender,
            receiver: session.receiver,
        }),
        Err(reason) => {
            tracing::info!(peer = %session.peer, reason, "refused");
            refuse(&session.sender, &reason).await;
            None
        }
    }
}

fn check(peer: &mut Peer, may_be: &[Role], hello: Hello) -> Result<(Hello, u16), String> {
    // Before anything else: a peer of another version may mean something else by the rest.
    let protocol = negotiate(&hello)?;
    let asked = hello.role.ok_or("hello names no role")?;
    if !may_be.contains(&asked) {
        let proved = peer.role;
        return Err(format!(
            "its certificate is for role {proved}, and it asks to be {asked}: use an identity of that role"
        ));
    }
    peer.role = asked;
    peer.name.clone_from(&hello.name);
    Ok((hello, protocol))
}

/// What the holder of a certificate for `role` may ask to be.
pub(crate) fn may_be(role: Role) -> &'static [Role] {
    match role {
        Role::Coordinator => &[],
        Role::Agent => &[Role::Agent],
        Role::User => &[Role::User],
        Role::Admin => &[Role::Admin, Role::User],
    }
}

async fn refuse(sender: &Sender, reason: &str) {
    let reply = HelloReply::Refused {
        reason: reason.to_owned(),
    };
    // A peer that is gone need not be told.
    let _ = sender.send(reply.into_frame()).await;
    sender.close(reason);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The whole table: role of the certificate, role asked for, protocol.
    #[test]
    fn every_role_gets_what_its_certificate_allows_and_nothing_else() {
        for proved in Role::ALL {
            for asked in Role::ALL {
                let same = proved == asked && proved != Role::Coordinator;
                let lesser = (proved, asked) == (Role::Admin, Role::User);
                let mut peer = Peer::local(proved, "p");
                let got = check(&mut peer, may_be(proved), Hello::new(asked, "p"));
                assert_eq!(got.is_ok(), same || lesser, "{proved} as {asked}");
                assert_eq!(peer.role, if got.is_ok() { asked } else { proved });
            }
        }
    }

    #[test]
    fn a_hello_without_role_is_refused() {
        let hello = Hello {
            role: None,
            ..Hello::new(Role::Agent, "p")
        };
        let mut peer = Peer::local(Role::Agent, "p");
        assert!(check(&mut peer, may_be(Role::Agent), hello).is_err());
    }
}
