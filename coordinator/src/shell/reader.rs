//! The tasks that listen to peers, one a session. The session's role says what its frames can be: an agent's are
//! `FromAgent`, a client's `FromClient`, and there is no way to say anything else. What cannot be decoded ends that
//! session, and no other.

use bytes::Bytes;
use fleetpool_coordinator_core::{Event, SessionNo};
use fleetpool_net::{Cause, Closed, Receiver};
use fleetpool_proto::{
    ClientId, HostId, Message,
    message::{FromAgent, FromClient, Registration},
    pool::ContentHash,
};
use tokio::sync::mpsc;

use super::{
    handle::{POOLS_PER_CLIENT, pools_from},
    owner::Input,
    sessions::Place,
};

/// Content from this size on is hashed beside the runtime: it takes over a millisecond.
const HASH_APART_BYTES: usize = 1 << 20;

/// How listening to a peer ended.
#[derive(Debug)]
pub(crate) struct Ended {
    /// For both logs.
    pub(crate) reason: String,
    /// The peer said goodbye itself.
    pub(crate) goodbye: bool,
    /// The connection fell silent or broke, and nobody said anything.
    pub(crate) silent: bool,
}

/// What a host's agent does not get to say itself.
#[derive(Debug)]
pub(crate) struct Proven {
    pub(crate) name: String,
    pub(crate) carrier: &'static str,
    /// Labels that its join token bound.
    pub(crate) labels: Vec<(String, String)>,
}

/// Held by every reader: a coordinator with sessions lives.
type Inbox = mpsc::Sender<Input>;

/// Listens to an agent until the session ends.
pub(crate) async fn agent(
    mut receiver: Receiver,
    host: HostId,
    session: SessionNo,
    proven: Proven,
    inbox: Inbox,
) {
    let ended = hear_agent(&mut receiver, host, session, proven, &inbox).await;
    let place = Place::Agent { host, session };
    tell(&inbox, Input::Ended { place, ended }).await.ok();
}

async fn hear_agent(
    receiver: &mut Receiver,
    host: HostId,
    session: SessionNo,
    proven: Proven,
    inbox: &Inbox,
) -> Ended {
    let event = |message| {
        Input::Event(Event::FromAgent {
            host,
            session,
            message,
        })
    };
    let mut message = match next(receiver).await {
        Ok(FromAgent::Register(said)) => FromAgent::Register(Box::new(proven.apply(*said))),
        Ok(other) => {
            return broken(format!(
                "it began with `{}` instead of `register`",
                other.name()
            ));
        }
        Err(ended) => return ended,
    };
    loop {
        if let Err(ended) = tell(inbox, event(message)).await {
            return ended;
        }
        message = match next(receiver).await {
            Ok(FromAgent::Register(_)) => return broken("it registered twice on one session"),
            Ok(message) => message,
            Err(ended) => return ended,
        };
    }
}

/// Listens to a client until the session ends.
pub(crate) async fn client(
    mut receiver: Receiver,
    client: ClientId,
    session: SessionNo,
    inbox: Inbox,
) {
    let ended = hear_client(&mut receiver, client, &inbox).await;
    let place = Place::Client { client, session };
    tell(&inbox, Input::Ended { place, ended }).await.ok();
}

async fn hear_client(receiver: &mut Receiver, client: ClientId, inbox: &Inbox) -> Ended {
    loop {
        let input = match next(receiver).await {
            Ok(message) => on_client_message(client, message).await,
            Err(ended) => return ended,
        };
        let told = match input {
            Ok(input) => tell(inbox, input).await,
            Err(ended) => return ended,
        };
        if let Err(ended) = told {
            return ended;
        }
    }
}

async fn on_client_message(client: ClientId, message: FromClient) -> Result<Input, Ended> {
    match message {
        FromClient::Ask { question, query } => Ok(Input::Ask {
            client,
            question,
            query,
        }),
        FromClient::Attach { pool, follow } => Ok(Input::Attach {
            client,
            pool,
            follow,
        }),
        FromClient::Content { hash, payloads } => {
            let bytes = payloads.into_items().pop().unwrap_or_default();
            if !bytes.is_empty() && content_hash(bytes.clone()).await != hash {
                return Err(broken(format!(
                    "it sent content under the hash {hash}, which is not its hash"
                )));
            }
            Ok(Input::Content {
                client,
                hash,
                bytes,
            })
        }
        FromClient::OpenPool { pool, .. } => {
            let first = pools_from(client).0;
            if !(first..first + POOLS_PER_CLIENT).contains(&pool.0) {
                return Err(broken(format!(
                    "it opened pool {pool}, whose number is not its own"
                )));
            }
            Ok(Input::Event(Event::FromClient { client, message }))
        }
        message => Ok(Input::Event(Event::FromClient { client, message })),
    }
}

async fn content_hash(bytes: Bytes) -> ContentHash {
    let hash = |bytes: &Bytes| ContentHash(*blake3::hash(bytes).as_bytes());
    if bytes.len() < HASH_APART_BYTES {
        return hash(&bytes);
    }
    let hashed = tokio::task::spawn_blocking(move || hash(&bytes)).await;
    hashed.expect("hashing does not panic")
}

/// Waits for the end of a client's lifeline. Whatever is said on it is not listened to.
pub(crate) async fn lifeline(mut receiver: Receiver, client: ClientId, inbox: Inbox) {
    let closed = loop {
        if let Err(closed) = receiver.recv().await {
            break closed;
        }
    };
    let ended = match closed.cause {
        Cause::Peer => Ended::from(closed),
        _ => Ended {
            reason: format!("its process has ended: {closed}"),
            goodbye: false,
            silent: false,
        },
    };
    let place = Place::Lifeline(client);
    tell(&inbox, Input::Ended { place, ended }).await.ok();
}

/// The next message of a peer.
async fn next<M: Message>(receiver: &mut Receiver) -> Result<M, Ended> {
    let frame = receiver.recv().await.map_err(Ended::from)?;
    M::from_frame(frame).map_err(|error| broken(error.to_string()))
}

async fn tell(inbox: &Inbox, input: Input) -> Result<(), Ended> {
    let stopped = || Ended {
        reason: "the coordinator has stopped".to_owned(),
        goodbye: false,
        silent: false,
    };
    inbox.send(input).await.map_err(|_| stopped())
}

fn broken(how: impl Into<String>) -> Ended {
    Ended {
        reason: format!("the other side broke the protocol: {}", how.into()),
        goodbye: false,
        silent: false,
    }
}

impl From<Closed> for Ended {
    fn from(closed: Closed) -> Self {
        Self {
            goodbye: closed.cause == Cause::Peer,
            silent: closed.cause == Cause::Lost,
            reason: closed.to_string(),
        }
    }
}

impl Proven {
    /// What the agent says, with what is known better.
    fn apply(self, said: Registration) -> Registration {
        let mut labels = said.labels;
        labels.retain(|(key, _)| self.labels.iter().all(|(bound, _)| bound != key));
        labels.extend(self.labels);
        labels.sort();
        // What is a tunnel over ssh to the agent is a connection from this very machine here.
        let tunnelled = self.carrier == "tcp" && said.carrier == "ssh";
        let carrier = if tunnelled { "ssh" } else { self.carrier };
        Registration {
            name: self.name,
            carrier: carrier.to_owned(),
            labels,
            ..said
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_proven_overrides_what_is_said() {
        let pair = |key: &str, value: &str| (key.to_owned(), value.to_owned());
        let proven = Proven {
            name: "web1".to_owned(),
            carrier: "quic",
            labels: vec![pair("zone", "a")],
        };
        let said = Registration {
            name: "db1".to_owned(),
            carrier: "pigeon".to_owned(),
            slots: 2,
            labels: vec![pair("gpu", "t4"), pair("zone", "b")],
            ..Registration::default()
        };
        let applied = proven.apply(said);
        assert_eq!(applied.name, "web1");
        assert_eq!(applied.carrier, "quic");
        assert_eq!(applied.slots, 2);
        assert_eq!(applied.labels, [pair("gpu", "t4"), pair("zone", "a")]);
    }
}
