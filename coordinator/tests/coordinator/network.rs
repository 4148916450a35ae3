//! A coordinator on loopback: who gets in, who does not, and who is thrown out.

use std::{path::PathBuf, time::Duration};

use bytes::Bytes;
use fleetpool_coordinator::{Handle, ServeError, ServeOptions, Server, init_cluster};
use fleetpool_net::{
    Address, ConnectError, Identity, JoinError, Token, connect, connect_tcp,
    identity::{ClusterCa, Issued, KeyRequest},
    join,
};
use fleetpool_proto::{
    ClientId, Role,
    message::{FromAgent, FromClient, ToAgent, ToClient},
    pool::ContentHash,
    version::Hello,
    view::{Answer, IdentityView, Query},
};
use tempfile::TempDir;
use tokio::{
    sync::oneshot,
    task::JoinHandle,
    time::{Instant, timeout},
};

use crate::support::{PATIENCE, Scripted};

const HOUR: Duration = Duration::from_secs(3600);

/// A cluster named `test` on a free port of this machine.
struct Cluster {
    dir: TempDir,
    address: Address,
    admin: Identity,
    handle: Handle,
    stop: oneshot::Sender<()>,
    served: JoinHandle<Result<(), ServeError>>,
}

impl Cluster {
    fn start() -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let admin = init_cluster(dir.path(), "test").expect("a cluster").admin;
        let listen = vec!["127.0.0.1:0".parse().expect("an address")];
        let server = Server::bind(ServeOptions::new(dir.path(), listen)).expect("it listens");
        Self::serve(dir, admin, server)
    }

    fn serve(dir: TempDir, admin: Identity, server: Server) -> Self {
        let (stop, stopped) = oneshot::channel::<()>();
        let (address, handle) = (server.addresses()[0].clone(), server.handle());
        let served = tokio::spawn(server.run(async {
            stopped.await.ok();
        }));
        Self {
            dir,
            address,
            admin,
            handle,
            stop,
            served,
        }
    }

    /// Stops it, and starts another one in its place.
    async fn restarted(self) -> Self {
        drop(self.handle);
        self.stop.send(()).expect("it runs");
        let served = timeout(PATIENCE, self.served).await.expect("in time");
        served.expect("no panic").expect("a disk");
        let options = ServeOptions::new(self.dir.path(), vec![self.address]);
        let bound = async {
            loop {
                // The last connection keeps the port until both sides have forgotten it.
                match Server::bind(options.clone()) {
                    Ok(server) => return server,
                    Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
                }
            }
        };
        let server = timeout(PATIENCE, bound).await.expect("in time");
        Self::serve(self.dir, self.admin, server)
    }

    fn ca(&self) -> ClusterCa {
        ClusterCa::load(&self.dir.path().join("ca")).expect("a CA")
    }

    async fn dial(&self, identity: &Identity, hello: Hello) -> Result<Scripted, ConnectError> {
        let dialled = Box::pin(connect(&self.address, Some(identity), hello));
        let (session, welcome) = dialled.await?;
        Ok(Scripted {
            session,
            welcome,
            questions: 0,
        })
    }

    async fn admin(&self) -> Scripted {
        let hello = Hello::new(Role::Admin, "root");
        self.dial(&self.admin, hello).await.expect("welcomed")
    }

    async fn issue(&self, role: Role, id: &str) -> Identity {
        let request = KeyRequest::new();
        let query = Query::IdentityIssue {
            role,
            id: id.to_owned(),
            ttl_s: 3600,
            csr: request.csr().into(),
        };
        match self.admin().await.ask(query).await {
            Answer::Identity { cert, ca } => {
                let (cert, ca) = (cert.into(), ca.into());
                request
                    .into_identity(Issued { cert, ca })
                    .expect("an identity")
            }
            other => panic!("not issued: {other:?}"),
        }
    }

    async fn token(&self, uses: u32, role: Role, labels: &[(&str, &str)]) -> Token {
        let own = |(key, value): &(&str, &str)| ((*key).to_owned(), (*value).to_owned());
        let query = Query::TokenCreate {
            ttl_s: 60,
            uses,
            role,
            labels: labels.iter().map(own).collect(),
        };
        match self.admin().await.ask(query).await {
            Answer::Token { token, .. } => token.parse().expect("a token"),
            other => panic!("no token: {other:?}"),
        }
    }
}

/// Why somebody was sent away.
fn reason<T>(result: Result<T, impl std::fmt::Display>) -> String {
    match result {
        Ok(_) => panic!("let in"),
        Err(error) => error.to_string(),
    }
}

#[tokio::test]
async fn an_issued_user_gets_in_and_is_listed() {
    let cluster = Cluster::start();
    let alice = cluster.issue(Role::User, "alice").await;
    let hello = Hello::new(Role::User, "alice's laptop");
    let mut session = cluster.dial(&alice, hello).await.expect("welcomed");
    assert_eq!(session.welcome.cluster, "test");
    assert_eq!(session.welcome.epoch, 1);
    match session.ask(Query::Jobs).await {
        Answer::Jobs(jobs) => assert_eq!(jobs, []),
        other => panic!("not jobs: {other:?}"),
    }
    let listed = identities(cluster.admin().await.ask(Query::IdentityList).await);
    let listed: Vec<_> = listed
        .iter()
        .map(|view| (view.id.as_str(), view.role.as_str(), view.connected))
        .collect();
    assert_eq!(listed, [("admin", "admin", true), ("alice", "user", true)]);
}

#[tokio::test]
async fn g10_content_is_waited_for_until_its_client_is_back() {
    let cluster = Cluster::start();
    let web = cluster.issue(Role::Agent, "web1").await;
    let mut client = cluster.admin().await;
    client.say(FromClient::Resume { pools: Vec::new() }).await;
    let mut agent = Box::pin(cluster.dial(&web, Hello::new(Role::Agent, "web1")))
        .await
        .expect("welcomed");
    agent.register("web1", 1).await;
    let pool = client.submit(&["one"]).await;
    agent.granted().await;
    let cluster = cluster.restarted().await;
    let mut agent = Box::pin(cluster.dial(&web, Hello::new(Role::Agent, "web1")))
        .await
        .expect("welcomed");
    agent.register("web1", 1).await;
    let program = Bytes::from_static(b"program");
    let hash = ContentHash(*blake3::hash(&program).as_bytes());
    let again = false;
    let need = FromAgent::NeedContent { pool, hash, again };
    agent.say(need).await;
    let (renewal, rtt_us) = (2, 0);
    agent.say(FromAgent::Renew { renewal, rtt_us }).await;
    agent
        .hear_until(|message| match message {
            ToAgent::Content { .. } => panic!("it is told that nobody has it"),
            ToAgent::Renewed { renewal: 2 } => Some(()),
            _ => None,
        })
        .await;
    let hello = Hello::resume(Role::Admin, "root", client.welcome.client, false);
    let mut client = Box::pin(cluster.dial(&cluster.admin, hello))
        .await
        .expect("welcomed back");
    let pools = vec![pool];
    client.say(FromClient::Resume { pools }).await;
    let asked = |message| matches!(message, ToClient::NeedContent { .. }).then_some(());
    client.hear_until(asked).await;
    let payloads = [program.clone()].into_iter().collect();
    client.say(FromClient::Content { hash, payloads }).await;
    let content = agent.hear_until(|message| match message {
        ToAgent::Content { payloads, .. } => payloads.into_items().pop(),
        _ => None,
    });
    assert_eq!(content.await, program);
}

/// One that opens its first pool while its coordinator ends has lost nothing, and goes on with the next one.
#[tokio::test]
async fn g10_a_client_of_which_nothing_was_acknowledged_goes_on_with_the_next_coordinator() {
    let cluster = Cluster::start();
    let client = cluster.admin().await;
    client.say(FromClient::Resume { pools: Vec::new() }).await;
    let number = client.welcome.client;
    let alice = cluster.issue(Role::User, "alice").await;
    let cluster = cluster.restarted().await;
    let again = |client, unsaid| Hello::resume(Role::Admin, "root", client, unsaid);
    let refused = cluster.dial(&cluster.admin, again(number, false)).await;
    assert!(reason(refused).contains("nothing of it is left"));
    let mut client = cluster
        .dial(&cluster.admin, again(number, true))
        .await
        .expect("welcomed back");
    assert_eq!(client.welcome.client, number);
    client.say(FromClient::Resume { pools: Vec::new() }).await;
    client.submit(&["one"]).await;
    // It is somebody now, and no other can be it; nor can anybody be one that there has not been.
    let theirs = Hello::resume(Role::User, "alice", number, true);
    assert!(reason(cluster.dial(&alice, theirs).await).contains("nothing of it is left"));
    let to_come = ClientId(u64::MAX / 2);
    let early = cluster.dial(&cluster.admin, again(to_come, true)).await;
    assert!(reason(early).contains("nothing of it is left"));
}

fn identities(answer: Answer) -> Vec<IdentityView> {
    match answer {
        Answer::Identities(identities) => identities,
        other => panic!("not identities: {other:?}"),
    }
}

#[tokio::test]
async fn a_certificate_of_another_ca_is_refused() {
    let cluster = Cluster::start();
    let foreign = ClusterCa::create("test").expect("a CA");
    let mallory = foreign
        .identity(Role::Admin, "admin", HOUR)
        .expect("an identity");
    let why = reason(
        cluster
            .dial(&mallory, Hello::new(Role::Admin, "root"))
            .await,
    );
    assert!(why.contains("not to be trusted"), "{why}");
}

#[tokio::test]
async fn a_certificate_of_this_ca_that_is_not_in_the_registry_is_refused() {
    let cluster = Cluster::start();
    let ghost = cluster
        .ca()
        .identity(Role::Admin, "ghost", HOUR)
        .expect("an identity");
    let why = reason(cluster.dial(&ghost, Hello::new(Role::Admin, "root")).await);
    assert!(
        why.contains("identity ghost is not in this cluster's registry"),
        "{why}"
    );
}

#[tokio::test]
async fn an_expired_certificate_is_refused() {
    let cluster = Cluster::start();
    let long_ago = std::time::SystemTime::now() - 24 * HOUR;
    let expired = cluster
        .ca()
        .identity_at(Role::User, "alice", long_ago, HOUR)
        .expect("an identity");
    let why = reason(
        cluster
            .dial(&expired, Hello::new(Role::User, "alice"))
            .await,
    );
    assert!(why.contains("certificate expired"), "{why}");
}

#[tokio::test]
async fn nobody_is_let_in_as_something_else() {
    let cluster = Cluster::start();
    let agent = cluster.issue(Role::Agent, "web1").await;
    let user = cluster.issue(Role::User, "alice").await;
    for (identity, asked) in [
        (&agent, Role::User),
        (&agent, Role::Admin),
        (&user, Role::Agent),
        (&user, Role::Admin),
        (&cluster.admin, Role::Agent),
    ] {
        let why = reason(cluster.dial(identity, Hello::new(asked, "x")).await);
        let expected = format!("and it asks to be {asked}: use an identity of that role");
        assert!(why.contains(&expected), "{why}");
    }
}

#[tokio::test]
async fn a_revoked_identity_loses_its_session_within_a_second_and_does_not_come_back() {
    let cluster = Cluster::start();
    let mut admin = cluster.admin().await;
    for (role, id) in [(Role::User, "alice"), (Role::Agent, "web1")] {
        let identity = cluster.issue(role, id).await;
        let mut session = cluster
            .dial(&identity, Hello::new(role, id))
            .await
            .expect("welcomed");
        let revoke = Query::IdentityRevoke {
            id: id.to_owned(),
            ended: false,
        };
        // On a disk that is busy it takes longer until it is written.
        assert_eq!(admin.ask(revoke.clone()).await, Answer::Ok);
        let asked = Instant::now();
        let why = session.hear_the_end().await;
        assert!(
            asked.elapsed() < Duration::from_secs(1),
            "{:?}",
            asked.elapsed()
        );
        assert!(why.contains("was revoked"), "{why}");
        let why = reason(cluster.dial(&identity, Hello::new(role, id)).await);
        assert!(why.contains("not in this cluster's registry"), "{why}");
        assert!(matches!(admin.ask(revoke).await, Answer::Refused { .. }));
    }
}

#[tokio::test]
async fn an_id_is_issued_once() {
    let cluster = Cluster::start();
    cluster.issue(Role::User, "alice").await;
    let query = Query::IdentityIssue {
        role: Role::User,
        id: "alice".to_owned(),
        ttl_s: 60,
        csr: KeyRequest::new().csr().into(),
    };
    match cluster.admin().await.ask(query).await {
        Answer::Refused { reason } => assert!(
            reason.starts_with("there is an identity alice already"),
            "{reason}"
        ),
        other => panic!("issued: {other:?}"),
    }
}

#[tokio::test]
async fn who_joins_by_token_has_the_tokens_labels() {
    let cluster = Cluster::start();
    let token = cluster.token(1, Role::Agent, &[("zone", "a")]).await;
    let joined = Box::pin(join(&cluster.address, &token, Role::Agent, "web1"))
        .await
        .expect("joined");
    assert!(joined.name().id.starts_with("web1-"), "{}", joined.name());
    let mut agent = cluster
        .dial(&joined, Hello::new(Role::Agent, "web1"))
        .await
        .expect("welcomed");
    agent.register("web1", 2).await;
    let on = "zone=a".to_owned();
    match cluster.admin().await.ask(Query::Hosts { on }).await {
        Answer::Hosts(hosts) => {
            assert_eq!(hosts.len(), 1);
            assert_eq!(
                (hosts[0].name.as_str(), hosts[0].carrier.as_str()),
                ("web1", "quic")
            );
        }
        other => panic!("not hosts: {other:?}"),
    }
}

#[tokio::test]
async fn one_use_of_a_token_gives_one_certificate_however_many_try_at_once() {
    const TRIES: usize = 1000;
    let cluster = Cluster::start();
    let token = cluster.token(1, Role::Agent, &[]).await;
    let joins: Vec<_> = (0..TRIES)
        .map(|number| {
            let (address, token) = (cluster.address.clone(), token.clone());
            tokio::spawn(async move {
                let name = format!("web{number}");
                loop {
                    match join(&address, &token, Role::Agent, &name).await {
                        // So many take longer than one may wait.
                        Err(JoinError::Connect(ConnectError::TimedOut { .. })) => {}
                        answered => return answered,
                    }
                }
            })
        })
        .collect();
    let mut joined = 0;
    for join in joins {
        match timeout(6 * PATIENCE, join)
            .await
            .expect("in time")
            .expect("no panic")
        {
            Ok(_) => joined += 1,
            Err(JoinError::Refused { reason, .. }) => {
                assert!(reason.contains("is not good"), "{reason}")
            }
            Err(other) => panic!("neither joined nor refused: {other}"),
        }
    }
    let agents = identities(cluster.admin().await.ask(Query::IdentityList).await);
    assert_eq!(agents.iter().filter(|view| view.role == "agent").count(), 1);
    // Who timed out with the certificate on its way was refused the second time.
    assert!(joined <= 1, "{joined}");
}

#[tokio::test]
async fn a_token_that_is_not_good_or_for_another_role_is_refused() {
    let cluster = Cluster::start();
    let token = cluster.token(1, Role::Agent, &[]).await;
    let wrong = Token {
        secret: "0".repeat(32),
        ..token.clone()
    };
    let why = reason(Box::pin(join(&cluster.address, &wrong, Role::Agent, "web1")).await);
    assert!(why.contains("the join token is not good"), "{why}");
    let why = reason(Box::pin(join(&cluster.address, &token, Role::Admin, "web1")).await);
    assert!(
        why.contains("the join token is for the role agent, not admin"),
        "{why}"
    );
}

#[tokio::test]
async fn a_lifeline_over_tcp_ends_its_client() {
    let cluster = Cluster::start();
    let alice = cluster.issue(Role::User, "alice").await;
    let mut session = cluster
        .dial(&alice, Hello::new(Role::User, "alice"))
        .await
        .expect("welcomed");
    let hello = Hello::lifeline(Role::User, "alice", session.welcome.client);
    let lifeline = Box::pin(connect_tcp(&cluster.address, Some(&alice), hello))
        .await
        .expect("welcomed");
    assert_eq!(lifeline.1.client, session.welcome.client);
    drop(lifeline);
    let reason = session.hear_the_end().await;
    assert!(reason.contains("closed by the other side"), "{reason}");
}

#[tokio::test]
async fn a_coordinator_that_stops_says_goodbye_and_frees_its_port_and_folder() {
    let cluster = Cluster::start();
    let mut admin = cluster.admin().await;
    let (_again, goodbye) = tokio::join!(cluster.restarted(), admin.hear_the_end());
    assert_eq!(goodbye, "the coordinator is shut down");
}

#[tokio::test]
async fn two_coordinators_on_one_port_or_folder() {
    let cluster = Cluster::start();
    let again = |dir: PathBuf, address: Address| {
        reason(Server::bind(ServeOptions::new(dir, vec![address])))
    };
    let free = "127.0.0.1:0".parse().expect("an address");
    let why = again(cluster.dir.path().to_owned(), free);
    assert!(why.starts_with("another coordinator runs on"), "{why}");

    let other = tempfile::tempdir().expect("a directory");
    init_cluster(other.path(), "other").expect("a cluster");
    let why = again(other.path().to_owned(), cluster.address.clone());
    assert!(why.contains("is in use"), "{why}");
}
