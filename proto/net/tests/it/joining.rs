//! From a token to a session.

use std::sync::Arc;

use fleetpool_net::{
    Address, Carrier, ConnectError, Identity, JoinError, Listener, ServerIdentity, Token, connect,
    identity::ClusterCa, join,
};
use fleetpool_proto::{
    Message as _, Role,
    join::{FromStranger, JoinRequest, ToStranger},
    version::{Hello, Welcome},
};

use crate::{
    cluster::{Cluster, DAY, Gate, soon},
    raw::{Raw, encoded, without_papers},
};

#[tokio::test]
async fn a_token_gives_an_identity_that_gets_in() {
    let mut cluster = Cluster::start();
    let address = cluster.address(Carrier::Quic);
    let token = cluster.gate.token.to_string().parse().unwrap();
    let joined = soon(join(&address, &token, Role::Agent, "web-1"))
        .await
        .unwrap();
    let name = joined.name().to_string();
    assert_eq!(name, "fleetpool://test/agent/web-1");
    // It survives the disk.
    let dir = tempfile::TempDir::new().unwrap();
    joined.save(dir.path()).unwrap();
    let identity = Identity::load(dir.path()).unwrap();
    let dial = connect(&address, Some(&identity), Hello::new(Role::Agent, "web-1"));
    let serve = async {
        let incoming = cluster.listener.accept().await;
        incoming.welcome(Welcome::default()).await.unwrap()
    };
    let (dialled, session) = soon(async { tokio::join!(dial, serve) }).await;
    dialled.unwrap();
    assert_eq!(session.peer.id, "web-1");
    assert_eq!(session.peer.key, Some(identity.key_id()));
}

#[tokio::test]
async fn a_token_for_one_gives_one_certificate() {
    let cluster = Cluster::start();
    let address = cluster.address(Carrier::Quic);
    let attempts: Vec<_> = (0..20)
        .map(|_| {
            let (address, token) = (address.clone(), cluster.gate.token.clone());
            tokio::spawn(async move { join(&address, &token, Role::Agent, "a").await })
        })
        .collect();
    let mut joined = 0;
    for attempt in attempts {
        match soon(attempt).await.unwrap() {
            Ok(_) => joined += 1,
            Err(JoinError::Refused { reason, .. }) => assert!(reason.contains("not good")),
            Err(other) => panic!("{other}"),
        }
    }
    assert_eq!(joined, 1);
}

#[tokio::test]
async fn a_wrong_secret_is_refused() {
    let cluster = Cluster::start();
    let token = Token {
        id: cluster.gate.token.id.clone(),
        ..Token::new(cluster.ca.hash())
    };
    let address = cluster.address(Carrier::Quic);
    let refused = soon(join(&address, &token, Role::Agent, "a"))
        .await
        .unwrap_err();
    assert!(matches!(refused, JoinError::Refused { .. }), "{refused}");
    assert_eq!(*cluster.gate.uses.lock().unwrap(), 1);
}

/// The cluster of the token is settled before the secret is said.
#[tokio::test]
async fn a_token_of_another_cluster_is_not_shown_to_this_one() {
    let cluster = Cluster::start();
    let mut token = cluster.gate.token.clone();
    token.ca_hash = ClusterCa::create("test").unwrap().hash();
    let address = cluster.address(Carrier::Quic);
    let refused = soon(join(&address, &token, Role::Agent, "a"))
        .await
        .unwrap_err();
    let JoinError::Connect(ConnectError::Untrusted { reason, .. }) = &refused else {
        panic!("{refused:?}");
    };
    assert!(reason.contains("the cluster of another CA"), "{reason}");
    assert_eq!(*cluster.gate.uses.lock().unwrap(), 1);
}

/// A coordinator that shows the right CA beside a certificate that it did not sign.
#[tokio::test]
async fn showing_the_ca_is_not_being_of_it() {
    let real = ClusterCa::create("test").unwrap();
    let fake = Arc::new(ClusterCa::create("test").unwrap());
    let dir = tempfile::TempDir::new().unwrap();
    fake.identity(Role::Coordinator, "head", DAY)
        .unwrap()
        .save(dir.path())
        .unwrap();
    let ca_file = tempfile::TempDir::new().unwrap();
    real.save(ca_file.path()).unwrap();
    std::fs::copy(ca_file.path().join("ca.pem"), dir.path().join("ca.pem")).unwrap();
    let server = ServerIdentity::load(dir.path()).unwrap();
    let any: Address = "127.0.0.1:0".parse().unwrap();
    let gate = Gate::new(&fake);
    let listener = Listener::bind(&[any], server, gate).unwrap();
    let token = Token::new(real.hash());
    let refused = soon(join(&listener.addresses()[0], &token, Role::Agent, "a")).await;
    let refused = refused.unwrap_err();
    assert!(
        matches!(refused, JoinError::Connect(ConnectError::Untrusted { .. })),
        "{refused:?}"
    );
}

#[tokio::test]
async fn a_request_signed_with_another_key_gets_nothing() {
    let cluster = Cluster::start();
    let address = cluster.address(Carrier::Quic);
    let mut raw = soon(Raw::dial(Carrier::Quic, &address, without_papers())).await;
    let mut csr = fleetpool_net::identity::KeyRequest::new().csr();
    let last = csr.len() - 1;
    csr[last] ^= 1;
    let request = JoinRequest {
        token: cluster.gate.token.id.clone(),
        secret: cluster.gate.token.secret.clone(),
        role: Some(Role::Agent),
        name: "a".to_owned(),
        csr: csr.into(),
    };
    raw.send(&encoded(FromStranger::Join(request))).await;
    let answer: ToStranger = soon(raw.receive()).await;
    assert_eq!(answer.name(), "refused", "{answer:?}");
    assert_eq!(*cluster.gate.uses.lock().unwrap(), 1);
}

#[tokio::test]
async fn a_stranger_that_says_nothing_is_shown_out() {
    let cluster = Cluster::start();
    let address = cluster.address(Carrier::Tcp);
    let mut raw = soon(Raw::dial(Carrier::Tcp, &address, without_papers())).await;
    let said = soon(raw.rest()).await;
    assert!(said.contains("nothing was said in time"), "{said}");
}
