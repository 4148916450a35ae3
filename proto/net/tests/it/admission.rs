//! Who gets in, and what those are told who do not.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use fleetpool_net::{
    Carrier, Cause, ConnectError, Identity, Listener, ServerIdentity, connect, connect_tcp,
    identity::ClusterCa,
};
use fleetpool_proto::{
    ClientId, Role,
    version::{Hello, HelloReply, PROTOCOL, Welcome},
};
use rcgen::ExtendedKeyUsagePurpose as Use;
use rustls::HandshakeKind;
use tokio::net::TcpStream;

use crate::{
    cluster::{Cluster, DAY, frame, soon},
    raw::{Papers, Raw, encoded, quic, tls_over, uri, without_papers},
};

async fn dial(cluster: &Cluster, identity: &Identity, hello: Hello) -> ConnectError {
    let address = cluster.address(Carrier::Quic);
    let outcome = soon(connect(&address, Some(identity), hello)).await;
    outcome.map(|_| ()).expect_err("it was let in")
}

/// Dials with papers the client side would not use itself; what the coordinator says, by QUIC and by TCP.
async fn turned_away(cluster: &Cluster, papers: &Papers) -> [String; 2] {
    let mut said = [const { String::new() }; 2];
    for (said, carrier) in said.iter_mut().zip([Carrier::Quic, Carrier::Tcp]) {
        let mut raw = Raw::dial(carrier, &cluster.address(carrier), papers.config()).await;
        raw.say_hello().await;
        *said = soon(raw.rest()).await;
    }
    assert!(cluster.gate.admitted.lock().unwrap().is_empty(), "{said:?}");
    said
}

#[tokio::test]
async fn an_identity_of_another_cluster_is_refused_by_both_sides() {
    let cluster = Cluster::start();
    // Even of the same name.
    let other = ClusterCa::create("test").unwrap();
    let identity = other.identity(Role::Agent, "a", DAY).unwrap();
    let error = dial(&cluster, &identity, Hello::new(Role::Agent, "a")).await;
    assert!(matches!(error, ConnectError::Untrusted { .. }), "{error:?}");
    assert!(
        error.to_string().contains("another CA signed it"),
        "{error}"
    );
    let [quic, tcp] = turned_away(&cluster, &Papers::of(&identity)).await;
    assert!(quic.contains("not of this cluster"), "{quic}");
    assert!(tcp.contains("alert"), "{tcp}");
}

#[tokio::test]
async fn certificates_out_of_their_time_are_refused_with_the_clocks_named() {
    let cluster = Cluster::start();
    let at = |when| cluster.ca.identity_at(Role::Agent, "a", when, DAY).unwrap();
    let (past, future) = (SystemTime::now() - 2 * DAY, SystemTime::now() + 2 * DAY);
    for (when, expect) in [(past, "expired"), (future, "not valid yet")] {
        let identity = at(when);
        let error = dial(&cluster, &identity, Hello::new(Role::Agent, "a"))
            .await
            .to_string();
        assert!(
            error.contains(expect) && error.contains("this host's clock says"),
            "{error}"
        );
        let [quic, tcp] = turned_away(&cluster, &Papers::of(&identity)).await;
        assert!(
            quic.contains(expect) && quic.contains("the coordinator's clock says"),
            "{quic}"
        );
        assert!(tcp.contains("alert"), "{tcp}");
    }
}

#[tokio::test]
async fn a_coordinator_out_of_its_time_is_not_trusted() {
    let ca = Arc::new(ClusterCa::create("test").unwrap());
    let past = SystemTime::now() - 2 * DAY;
    let identity = ca
        .identity_at(Role::Coordinator, "head", past, DAY)
        .unwrap();
    let server = ServerIdentity::new(identity).unwrap();
    let cluster = Cluster::with(ca, server, "127.0.0.1:0");
    let identity = cluster.identity(Role::Agent, "a");
    let error = dial(&cluster, &identity, Hello::new(Role::Agent, "a")).await;
    assert!(matches!(&error, ConnectError::Untrusted { reason, .. } if reason.contains("expired")));
}

#[tokio::test]
async fn only_one_name_and_one_use_make_a_certificate() {
    let cluster = Cluster::start();
    let agent = uri(Role::Agent, "a");
    let user = uri(Role::User, "u");
    let coordinator = uri(Role::Coordinator, "head");
    let foreign = agent.replace("test", "prod");
    for (uris, uses, expect) in [
        (&[agent.as_str()][..], &[][..], "it has none"),
        (&[&agent], &[Use::ClientAuth, Use::ServerAuth], "it has 2"),
        (&[&agent], &[Use::Any, Use::ClientAuth], "it has 2"),
        (&[&agent], &[Use::ServerAuth], "not for this side"),
        (
            &[&coordinator],
            &[Use::ClientAuth],
            "where an agent, user or admin is wanted",
        ),
        (&[&agent, &user], &[Use::ClientAuth], "it has 2"),
        (&[&agent, "dns:head"], &[Use::ClientAuth], "it has 2"),
        (&["dns:head"], &[Use::ClientAuth], "one of another kind"),
        (&[], &[Use::ClientAuth], "it has none"),
        (&["fleetpool://test/boss/a"], &[Use::ClientAuth], "boss"),
        (
            &[&foreign],
            &[Use::ClientAuth],
            "is for cluster prod, this is test",
        ),
    ] {
        let papers = Papers::forged(&cluster.ca, uris, uses);
        let [quic, tcp] = turned_away(&cluster, &papers).await;
        assert!(quic.contains(expect), "{uris:?} {uses:?}: {quic}");
        assert!(tcp.contains("alert"), "{uris:?} {uses:?}: {tcp}");
    }
}

#[tokio::test]
async fn a_member_cannot_pose_as_coordinator() {
    let ca = Arc::new(ClusterCa::create("test").unwrap());
    let agent = ca.identity(Role::Agent, "a", DAY).unwrap();
    let error = ServerIdentity::new(agent).unwrap_err().to_string();
    assert!(error.contains("where a coordinator is wanted"), "{error}");
}

#[tokio::test]
async fn a_role_that_the_certificate_does_not_allow_is_refused() {
    let cluster = Cluster::start();
    let identity = cluster.identity(Role::Agent, "a");
    let error = dial(&cluster, &identity, Hello::new(Role::User, "u")).await;
    assert!(
        matches!(&error, ConnectError::Refused { reason, .. } if reason.contains("is for role agent")),
        "{error:?}"
    );
}

#[tokio::test]
async fn the_revoked_are_refused_and_their_sessions_end() {
    let mut cluster = Cluster::start();
    let (mut a, b) = cluster.session(Carrier::Quic).await;
    let key = b.peer.key.unwrap();
    cluster.gate.revoked.lock().unwrap().insert(key);
    b.sender.close("its identity was revoked");
    let closed = tokio::time::timeout(Duration::from_secs(1), a.receiver.recv()).await;
    let closed = closed
        .expect("a revoked session ends within a second")
        .unwrap_err();
    assert_eq!(closed.reason, "its identity was revoked");

    let other = cluster.identity(Role::Agent, "b");
    cluster.gate.revoked.lock().unwrap().insert(other.key_id());
    let error = dial(&cluster, &other, Hello::new(Role::Agent, "b")).await;
    assert!(matches!(&error, ConnectError::Refused { reason, .. } if reason.contains("revoked")));
}

/// A client that would resume gets nothing to resume with: every handshake asks for the certificate.
#[tokio::test]
async fn nobody_resumes() {
    let mut cluster = Cluster::start();
    let papers = Papers::of(&cluster.identity(Role::Agent, "a"));
    let mut config = papers.config();
    config.enable_early_data = true;
    let at = cluster.address(Carrier::Tcp).to_string();
    for _ in 0..2 {
        let socket = TcpStream::connect(&at).await.unwrap();
        let socket = soon(tls_over(socket, config.clone())).await.unwrap();
        assert_eq!(
            socket.get_ref().1.handshake_kind(),
            Some(HandshakeKind::Full)
        );
        let mut raw = Raw::of(socket);
        raw.say_hello().await;
        let incoming = soon(cluster.listener.accept()).await;
        soon(incoming.welcome(Welcome::default())).await.unwrap();
        // Tickets would come with the first data.
        let _: HelloReply = soon(raw.receive()).await;
    }
    // Nor over QUIC, where the same session store would offer early data.
    let (_, first) = soon(quic(&at, config.clone())).await;
    let (mut send, mut recv) = first.unwrap().open_bi().await.unwrap();
    send.write_all(&encoded(Hello::new(Role::Agent, "a")))
        .await
        .unwrap();
    let incoming = soon(cluster.listener.accept()).await;
    let _session = soon(incoming.welcome(Welcome::default())).await.unwrap();
    soon(recv.read(&mut [0; 1])).await.unwrap();
    let tls = quinn::crypto::rustls::QuicClientConfig::try_from(config).unwrap();
    let endpoint = quinn::Endpoint::client(([127, 0, 0, 1], 0).into()).unwrap();
    let config = quinn::ClientConfig::new(Arc::new(tls));
    let again = endpoint
        .connect_with(config, at.parse().unwrap(), "fleetpool")
        .unwrap();
    assert!(again.into_0rtt().is_err(), "early data was offered");
}

/// The session of a certificate that expires or is revoked afterwards gives no way in later.
#[tokio::test]
async fn a_session_kept_for_resumption_does_not_outlive_its_certificate() {
    let mut cluster = Cluster::start();
    let identity = cluster.identity(Role::Agent, "a");
    let config = Papers::of(&identity).config();
    let address = cluster.address(Carrier::Tcp);
    let mut raw = Raw::dial(Carrier::Tcp, &address, config.clone()).await;
    raw.say_hello().await;
    let incoming = soon(cluster.listener.accept()).await;
    let _session = soon(incoming.welcome(Welcome::default())).await.unwrap();
    let _: HelloReply = soon(raw.receive()).await;
    cluster
        .gate
        .revoked
        .lock()
        .unwrap()
        .insert(identity.key_id());
    // The same configuration, so the same store of sessions.
    let mut raw = Raw::dial(Carrier::Tcp, &address, config.clone()).await;
    raw.say_hello().await;
    match soon(raw.receive()).await {
        HelloReply::Refused { reason } => assert!(reason.contains("revoked"), "{reason}"),
        HelloReply::Welcome(_) => panic!("the revoked was welcomed"),
    }
    // Now with a certificate that has expired meanwhile, in a store that remembers the good one.
    let past = SystemTime::now() - 2 * DAY;
    let expired = cluster.ca.identity_at(Role::Agent, "a", past, DAY).unwrap();
    let mut expired = Papers::of(&expired).config();
    expired.resumption = config.resumption;
    cluster.gate.admitted.lock().unwrap().clear();
    let mut raw = Raw::dial(Carrier::Tcp, &address, expired).await;
    raw.say_hello().await;
    let said = soon(raw.rest()).await;
    assert!(said.contains("alert"), "{said}");
    assert!(cluster.gate.admitted.lock().unwrap().is_empty());
}

#[tokio::test]
async fn who_has_no_certificate_can_only_join() {
    let cluster = Cluster::start();
    for carrier in [Carrier::Quic, Carrier::Tcp] {
        let address = cluster.address(carrier);
        let mut raw = soon(Raw::dial(carrier, &address, without_papers())).await;
        raw.say_hello().await;
        let said = soon(raw.rest()).await;
        assert!(
            said.contains("a certificate of this cluster is needed"),
            "{said}"
        );
    }
    assert!(cluster.gate.admitted.lock().unwrap().is_empty());
}

#[tokio::test]
async fn versions_that_do_not_meet_are_told_which_side_is_old() {
    let cluster = Cluster::start();
    let identity = cluster.identity(Role::Agent, "a");
    let hello = |protocol_min, protocol| Hello {
        protocol,
        protocol_min,
        ..Hello::new(Role::Agent, "a")
    };
    let newer = dial(&cluster, &identity, hello(PROTOCOL + 1, PROTOCOL + 2)).await;
    let older = dial(&cluster, &identity, hello(0, 0)).await;
    let reason = |error| match error {
        ConnectError::Refused { reason, .. } => reason,
        other => panic!("{other:?}"),
    };
    assert!(reason(newer).contains("upgrade the coordinator's"));
    assert!(reason(older).contains("upgrade this side's"));
}

#[tokio::test]
async fn a_peer_that_also_speaks_an_older_protocol_gets_it() {
    let mut cluster = Cluster::start();
    let identity = cluster.identity(Role::Agent, "a");
    let address = cluster.address(Carrier::Quic);
    let hello = Hello {
        protocol: PROTOCOL + 1,
        ..Hello::new(Role::Agent, "a")
    };
    let dial = connect(&address, Some(&identity), hello);
    let serve = async {
        let incoming = cluster.listener.accept().await;
        assert_eq!(incoming.protocol, PROTOCOL);
        incoming.welcome(Welcome::default()).await.unwrap()
    };
    let (dialled, _session) = soon(async { tokio::join!(dial, serve) }).await;
    assert_eq!(dialled.unwrap().1.protocol, PROTOCOL);
}

#[tokio::test]
async fn a_coordinator_that_answers_in_an_unknown_protocol_is_left() {
    let dir = tempfile::TempDir::new().unwrap();
    let path = dir.path().join("s");
    let listener = tokio::net::UnixListener::bind(&path).unwrap();
    let address = fleetpool_net::Address::Unix(path);
    let dial = connect(&address, None, Hello::new(Role::User, "u"));
    let serve = async {
        let mut raw = Raw::of(listener.accept().await.unwrap().0);
        let _: Hello = raw.receive().await;
        let protocol = PROTOCOL + 1;
        let welcome = Welcome {
            protocol,
            ..Welcome::default()
        };
        raw.send(&encoded(HelloReply::Welcome(welcome))).await;
        raw
    };
    let (dialled, _raw) = soon(async { tokio::join!(dial, serve) }).await;
    let error = dialled.map(|_| ()).unwrap_err();
    assert!(matches!(error, ConnectError::Protocol { .. }), "{error:?}");
}

#[tokio::test]
async fn a_refusal_reaches_the_refused() {
    let mut cluster = Cluster::start();
    let identity = cluster.identity(Role::Agent, "a");
    let address = cluster.address(Carrier::Quic);
    let dial = connect(&address, Some(&identity), Hello::new(Role::Agent, "a"));
    let serve = async {
        cluster
            .listener
            .accept()
            .await
            .refuse("there is an agent of that name")
            .await
    };
    let (dialled, ()) = soon(async { tokio::join!(dial, serve) }).await;
    let error = dialled.map(|_| ()).unwrap_err().to_string();
    assert!(
        error.ends_with("refuses: there is an agent of that name"),
        "{error}"
    );
}

#[tokio::test]
async fn an_admin_may_come_as_a_user_and_is_one_then() {
    let mut cluster = Cluster::start();
    let identity = cluster.identity(Role::Admin, "root");
    let address = cluster.address(Carrier::Quic);
    let dial = connect(&address, Some(&identity), Hello::new(Role::User, "u"));
    let serve = async {
        let incoming = cluster.listener.accept().await;
        incoming.welcome(Welcome::default()).await.unwrap()
    };
    let (dialled, session) = soon(async { tokio::join!(dial, serve) }).await;
    dialled.unwrap();
    assert_eq!(
        (session.peer.role, session.peer.id.as_str()),
        (Role::User, "root")
    );
    assert_eq!(session.peer.key, Some(identity.key_id()));
}

#[tokio::test]
async fn a_unix_socket_needs_no_certificate_and_knows_the_user() {
    let mut cluster = Cluster::start();
    let address = cluster.address(Carrier::Unix);
    for role in [Role::Agent, Role::User, Role::Admin] {
        let dial = connect(&address, None, Hello::new(role, "me"));
        let serve = async {
            let incoming = cluster.listener.accept().await;
            incoming.welcome(Welcome::default()).await.unwrap()
        };
        let (dialled, session) = soon(async { tokio::join!(dial, serve) }).await;
        dialled.unwrap();
        assert_eq!(session.peer.role, role);
        let me = nix::unistd::User::from_uid(nix::unistd::geteuid()).unwrap();
        assert_eq!(session.peer.id, me.unwrap().name);
    }
    let posing = connect(&address, None, Hello::new(Role::Coordinator, "me"));
    assert!(matches!(
        soon(posing).await,
        Err(ConnectError::Refused { .. })
    ));
}

/// A lifeline ends when its process does: at once, without a timeout.
#[tokio::test]
async fn a_lifeline_tells_the_end_of_its_holder() {
    let mut cluster = Cluster::start();
    let identity = cluster.identity(Role::User, "u");
    let address = cluster.address(Carrier::Tcp);
    let hello = Hello::lifeline(Role::User, "u", ClientId(7));
    let dial = connect_tcp(&address, Some(&identity), hello);
    let serve = async {
        let incoming = cluster.listener.accept().await;
        assert_eq!(incoming.hello.lifeline, Some(ClientId(7)));
        incoming.welcome(Welcome::default()).await.unwrap()
    };
    let (dialled, mut session) = Box::pin(soon(async { tokio::join!(dial, serve) })).await;
    let (lifeline, _) = dialled.unwrap();
    session.sender.send(frame(1)).await.unwrap();
    drop(lifeline);
    let ended = tokio::time::timeout(Duration::from_secs(1), session.receiver.recv()).await;
    assert_eq!(ended.expect("at once").unwrap_err().cause, Cause::Peer);
}

#[tokio::test]
async fn without_an_identity_the_way_to_one_is_told() {
    let cluster = Cluster::start();
    let address = cluster.address(Carrier::Quic);
    let dialled = connect(&address, None, Hello::new(Role::User, "u")).await;
    let error = dialled.map(|_| ()).unwrap_err();
    assert!(matches!(error, ConnectError::NoIdentity { .. }));
    let _: &Listener = &cluster.listener;
}
