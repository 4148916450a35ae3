//! The coordinator's sessions, with scripted agents and clients in this process.

use crate::support::{Scripted, agent, attach, attach_with, client, coordinator};
use bytes::Bytes;
use fleetpool_net::{KeyId, Peer, Session, local_pair};
use fleetpool_proto::{
    Frame, Message as _, PoolId, Role,
    limits::SEND_QUEUE_BYTES,
    message::{FromAgent, FromClient, GrantRow, OutputRow, ToAgent, ToClient},
    pool::{ContentHash, PoolOptions},
    version::Hello,
    view::{Answer, HostView, Query, StatusView},
};

/// Serves one task from submission to result.
async fn one_task_goes_round(client: &mut Scripted, agent: &mut Scripted) {
    let submitted = client.submit(&["argument"]).await;
    let (pool, rows, arguments) = agent.granted().await;
    assert_eq!(pool, submitted);
    agent.finish(pool, &rows, arguments).await;
    let (rows, payloads) = client.results().await;
    assert_eq!(rows.len(), 1);
    assert_eq!(payloads, [Bytes::from_static(b"argument")]);
}

#[tokio::test]
async fn a_task_goes_to_the_agent_and_its_result_to_the_client() {
    let coordinator = coordinator();
    let mut agent = agent(&coordinator, "web1", 1).await;
    let mut client = client(&coordinator, Role::User, "alice").await;
    one_task_goes_round(&mut client, &mut agent).await;
    let counters = coordinator.counters().await;
    for (name, count) in [
        ("event.register", 1),
        ("event.submit", 1),
        ("event.reports", 1),
        ("action.grant", 1),
    ] {
        assert_eq!(counters.get(name), Some(&count), "{name} in {counters:?}");
    }
}

#[tokio::test]
async fn what_is_no_message_ends_only_its_own_session() {
    let coordinator = coordinator();
    let mut agent = agent(&coordinator, "web1", 1).await;
    let mut well = client(&coordinator, Role::User, "alice").await;
    let garbage = || Frame {
        header: Bytes::from_static(b"\xc1garbage"),
        body: Vec::new(),
    };
    let truncated = || Frame {
        body: Vec::new(),
        ..FromClient::Submit {
            pool: PoolId(1),
            spec: fleetpool_proto::SpecId(0),
            first: 0,
            hosts: Vec::new(),
            payloads: [Bytes::from_static(b"missing")].into_iter().collect(),
        }
        .into_frame()
    };
    for frame in [
        garbage(),
        truncated(),
        ToAgent::Renewed { renewal: 1 }.into_frame(),
    ] {
        let mut ill = client(&coordinator, Role::User, "mallory").await;
        ill.session.sender.send(frame).await.expect("sent");
        let reason = ill.hear_the_end().await;
        assert!(reason.contains("broke the protocol: "), "{reason}");
    }
    one_task_goes_round(&mut well, &mut agent).await;
}

#[tokio::test]
async fn an_agent_cannot_speak_as_a_client_nor_before_it_registers() {
    let coordinator = coordinator();
    let mut impostor = agent(&coordinator, "web1", 1).await;
    let pool = PoolId(1);
    let options = Box::new(PoolOptions::default());
    impostor.say(FromClient::OpenPool { pool, options }).await;
    let reason = impostor.hear_the_end().await;
    assert!(reason.contains("unknown variant `OpenPool`"), "{reason}");

    let mut hasty = attach(&coordinator, Peer::local(Role::Agent, "web2"))
        .await
        .expect("welcomed");
    hasty
        .say(FromAgent::Renew {
            renewal: 1,
            rtt_us: 0,
        })
        .await;
    let reason = hasty.hear_the_end().await;
    assert!(
        reason.ends_with("it began with `renew` instead of `register`"),
        "{reason}"
    );
}

#[tokio::test]
async fn a_client_cannot_take_another_clients_pool_numbers() {
    let coordinator = coordinator();
    let alice = client(&coordinator, Role::User, "alice").await;
    let mut mallory = client(&coordinator, Role::User, "mallory").await;
    let options = Box::new(PoolOptions::default());
    mallory
        .say(FromClient::OpenPool {
            pool: alice.pool(),
            options,
        })
        .await;
    let reason = mallory.hear_the_end().await;
    assert!(reason.ends_with("whose number is not its own"), "{reason}");
}

fn certified(name: &str, key: u8) -> Peer {
    Peer {
        id: format!("{name}-{key}"),
        key: Some(KeyId([key; 32])),
        ..Peer::local(Role::Agent, name)
    }
}

#[tokio::test]
async fn a_second_agent_of_a_name_takes_over_only_with_the_same_identity() {
    let coordinator = coordinator();
    let mut first = attach(&coordinator, certified("web1", 1))
        .await
        .expect("welcomed");
    first.register("web1", 2).await;

    let refused = attach(&coordinator, certified("web1", 2))
        .await
        .err()
        .expect("refused");
    assert!(
        refused.reason.starts_with("a host named web1 is connected"),
        "{refused}"
    );

    let mut again = attach(&coordinator, certified("web1", 1))
        .await
        .expect("welcomed");
    assert_eq!(again.welcome.host, first.welcome.host);
    again.register("web1", 2).await;
    assert_eq!(
        first.hear_the_end().await,
        "a newer session of this host has taken over"
    );

    let refused = attach(&coordinator, certified("web1", 2))
        .await
        .err()
        .expect("refused");
    assert!(
        refused.reason.starts_with("a host named web1 is connected"),
        "{refused}"
    );
}

#[tokio::test]
async fn a_name_is_free_again_when_its_agent_said_goodbye() {
    let coordinator = coordinator();
    let mut admin = client(&coordinator, Role::Admin, "root").await;
    let mut first = attach(&coordinator, certified("web1", 1))
        .await
        .expect("welcomed");
    first.register("web1", 2).await;
    first.session.sender.close("the host is shut down");
    admin
        .ask_until(Query::Status, |answer| {
            (status(answer).hosts_up == 0).then_some(())
        })
        .await;
    let second = attach(&coordinator, certified("web1", 2))
        .await
        .expect("welcomed");
    assert_eq!(second.welcome.host, first.welcome.host);
}

fn status(answer: Answer) -> StatusView {
    match answer {
        Answer::Status(status) => status,
        other => panic!("not a status: {other:?}"),
    }
}

fn hosts(answer: Answer) -> Vec<HostView> {
    match answer {
        Answer::Hosts(hosts) => hosts,
        other => panic!("not hosts: {other:?}"),
    }
}

fn refusal(answer: Answer) -> String {
    match answer {
        Answer::Refused { reason } => reason,
        other => panic!("not refused: {other:?}"),
    }
}

#[tokio::test]
async fn questions_are_answered() {
    let coordinator = coordinator();
    let _web = agent(&coordinator, "web1", 2).await;
    let _db = agent(&coordinator, "db1", 3).await;
    let mut admin = client(&coordinator, Role::Admin, "root").await;
    let mut user = client(&coordinator, Role::User, "alice").await;

    let status = status(user.ask(Query::Status).await);
    assert_eq!(
        (
            status.cluster.as_str(),
            status.hosts_up,
            status.slots,
            status.clients
        ),
        ("local", 2, 5, 2)
    );

    let on = |on: &str| Query::Hosts { on: on.to_owned() };
    let names = |answer| {
        hosts(answer)
            .into_iter()
            .map(|host| host.name)
            .collect::<Vec<_>>()
    };
    assert_eq!(names(user.ask(on("")).await), ["db1", "web1"]);
    assert_eq!(names(user.ask(on("web*")).await), ["web1"]);
    let reason = refusal(user.ask(on("web[")).await);
    assert!(reason.starts_with("selector `web[`"), "{reason}");

    let cordon = |host: &str| Query::Cordon {
        host: host.to_owned(),
        on: true,
    };
    assert_eq!(admin.ask(cordon("web1")).await, Answer::Ok);
    assert_eq!(hosts(user.ask(on("web1")).await)[0].state, "cordoned");
    assert_eq!(
        refusal(admin.ask(cordon("web9")).await),
        "there is no host web9: `fleetpool hosts` lists what there is"
    );
    let reason = refusal(user.ask(cordon("db1")).await);
    assert!(
        reason.starts_with("only admins may cordon hosts"),
        "{reason}"
    );
    let reason = refusal(admin.ask(Query::TokenList).await);
    assert_eq!(
        reason,
        "a cluster inside one program has no tokens and identities"
    );
}

#[tokio::test]
async fn a_job_is_cancelled_by_its_user_or_an_admin() {
    let coordinator = coordinator();
    let mut agent = agent(&coordinator, "web1", 1).await;
    for (canceller, role) in [("alice", Role::User), ("root", Role::Admin)] {
        let mut alice = client(&coordinator, Role::User, "alice").await;
        let mut bob = client(&coordinator, Role::User, "bob").await;
        let mut canceller = client(&coordinator, role, canceller).await;
        let pool = alice.submit(&["argument"]).await;
        agent.granted().await;
        let cancel = Query::CancelJob { pool };
        let reason = refusal(bob.ask(cancel.clone()).await);
        assert!(
            reason.ends_with("is alice's: only alice and admins may cancel it"),
            "{reason}"
        );
        assert_eq!(canceller.ask(cancel).await, Answer::Ok);
        hear_the_kill(&mut agent, pool).await;
    }
}

/// Waits until the agent is told to end what runs of a pool, and does it.
async fn hear_the_kill(agent: &mut Scripted, pool: PoolId) {
    agent
        .hear_until(|message| match message {
            ToAgent::Cancel { pool: of, .. } | ToAgent::ClosePool { pool: of } if of == pool => {
                Some(())
            }
            _ => None,
        })
        .await;
}

#[tokio::test]
async fn when_a_client_leaves_its_tasks_are_ended() {
    let coordinator = coordinator();
    let mut agent = agent(&coordinator, "web1", 1).await;
    let mut client = client(&coordinator, Role::User, "alice").await;
    let pool = client.submit(&["argument"]).await;
    agent.granted().await;
    drop(client);
    hear_the_kill(&mut agent, pool).await;
}

fn lifeline_of(client: &Scripted, user: &str) -> (Peer, Hello) {
    let hello = Hello::lifeline(Role::User, user, client.welcome.client);
    (Peer::local(Role::User, user), hello)
}

#[tokio::test]
async fn when_a_lifeline_ends_its_clients_tasks_are_ended() {
    let coordinator = coordinator();
    let mut agent = agent(&coordinator, "web1", 1).await;
    let mut client = client(&coordinator, Role::User, "alice").await;
    let (peer, hello) = lifeline_of(&client, "alice");
    let lifeline = attach_with(&coordinator, peer, hello)
        .await
        .expect("welcomed");
    let pool = client.submit(&["argument"]).await;
    agent.granted().await;
    drop(lifeline);
    hear_the_kill(&mut agent, pool).await;
    let reason = client.hear_the_end().await;
    assert!(reason.ends_with("the other side has left"), "{reason}");
}

#[tokio::test]
async fn nobody_holds_the_lifeline_of_another() {
    let coordinator = coordinator();
    let client = client(&coordinator, Role::User, "alice").await;
    let (peer, hello) = lifeline_of(&client, "mallory");
    let refused = attach_with(&coordinator, peer, hello)
        .await
        .err()
        .expect("refused");
    assert!(
        refused.reason.starts_with("there is no client"),
        "{refused}"
    );
}

#[tokio::test]
async fn content_is_fetched_once_for_all_who_need_it() {
    let coordinator = coordinator();
    let mut web = agent(&coordinator, "web1", 1).await;
    let mut db = agent(&coordinator, "db1", 1).await;
    let mut client = client(&coordinator, Role::User, "alice").await;
    let pool = client.submit(&["one", "two"]).await;
    web.granted().await;
    db.granted().await;
    let program = Bytes::from(vec![7; 3 << 20]);
    let hash = ContentHash(*blake3::hash(&program).as_bytes());
    let asked = |message| matches!(message, ToClient::NeedContent { .. }).then_some(());
    for agent in [&web, &db] {
        agent
            .say(FromAgent::NeedContent {
                pool,
                hash,
                again: false,
            })
            .await;
    }
    client.hear_until(asked).await;
    client
        .say(FromClient::Content {
            hash,
            payloads: [program.clone()].into_iter().collect(),
        })
        .await;
    for agent in [&mut web, &mut db] {
        let content = agent.hear_until(content).await;
        assert!(content == program);
    }
    assert_eq!(
        coordinator.counters().await.get("action.fetch_content"),
        Some(&2)
    );
    // The next thing that the client hears is the answer to a question, not a second request.
    client
        .say(FromClient::Ask {
            question: 1,
            query: Query::Jobs,
        })
        .await;
    client
        .hear_until(|message| match message {
            ToClient::NeedContent { .. } => panic!("asked twice"),
            ToClient::Answer { .. } => Some(()),
            _ => None,
        })
        .await;
}

fn content(message: ToAgent) -> Option<Bytes> {
    match message {
        ToAgent::Content { payloads, .. } => payloads.into_items().pop(),
        _ => None,
    }
}

#[tokio::test]
async fn content_that_is_not_what_its_hash_says_ends_the_session() {
    let coordinator = coordinator();
    let mut client = client(&coordinator, Role::User, "alice").await;
    let (hash, payloads) = (
        ContentHash([1; 32]),
        [Bytes::from_static(b"evil")].into_iter().collect(),
    );
    client.say(FromClient::Content { hash, payloads }).await;
    let reason = client.hear_the_end().await;
    assert!(reason.ends_with("which is not its hash"), "{reason}");
}

fn print(pool: PoolId, task: &GrantRow, bytes: usize) -> FromAgent {
    FromAgent::Output {
        number: 0,
        pool,
        rows: vec![OutputRow {
            index: task.index,
            attempt: task.attempt,
            ..OutputRow::default()
        }],
        payloads: [Bytes::from(vec![b'x'; bytes])].into_iter().collect(),
    }
}

/// Waits until the agent is told to hold a pool's output, or to let it go.
async fn hear_hold(agent: &mut Scripted, pool: PoolId, expect: bool) {
    let held = agent
        .hear_until(|message| match message {
            ToAgent::Hold { pool: of, on } if of == pool => Some(on),
            _ => None,
        })
        .await;
    assert_eq!(held, expect);
}

#[tokio::test]
async fn tasks_that_print_more_than_their_client_reads_are_held_until_it_has_read() {
    let coordinator = coordinator();
    let mut web = agent(&coordinator, "web1", 1).await;
    let mut slow = client(&coordinator, Role::User, "slow").await;
    let pool = slow.submit(&["argument"]).await;
    let (_, granted, _) = web.granted().await;
    let printed = (SEND_QUEUE_BYTES >> 20) + 8;
    for _ in 0..printed {
        web.say(print(pool, &granted[0], 1 << 20)).await;
    }
    hear_hold(&mut web, pool, true).await;

    let mut outputs = 0;
    while outputs < printed {
        let message = slow.hear().await.expect("an open session");
        outputs += usize::from(matches!(message, ToClient::Output { .. }));
    }
    hear_hold(&mut web, pool, false).await;
}

#[tokio::test]
async fn nobody_is_held_for_a_client_that_is_gone() {
    let coordinator = coordinator();
    let mut web = agent(&coordinator, "web1", 1).await;
    let mut slow = client(&coordinator, Role::User, "slow").await;
    let pool = slow.submit(&["argument"]).await;
    let (_, granted, _) = web.granted().await;
    for _ in 0..(SEND_QUEUE_BYTES >> 20) + 8 {
        web.say(print(pool, &granted[0], 1 << 20)).await;
    }
    hear_hold(&mut web, pool, true).await;
    drop(slow);
    hear_hold(&mut web, pool, false).await;
}

#[tokio::test]
async fn a_client_whose_tasks_do_not_hold_is_ended_and_nobody_waits_for_it() {
    let coordinator = coordinator();
    let mut web = agent(&coordinator, "web1", 1).await;
    let mut slow = client(&coordinator, Role::User, "slow").await;
    let pool = slow.submit(&["argument"]).await;
    let (_, granted, _) = web.granted().await;
    // What its session queues, what waits besides, and a little more.
    for _ in 0..(SEND_QUEUE_BYTES >> 20) + 64 + 24 {
        web.say(print(pool, &granted[0], 1 << 20)).await;
    }
    hear_the_kill(&mut web, pool).await;
    let reason = slow.hear_the_end().await;
    assert!(
        reason.starts_with("its tasks print more than it reads"),
        "{reason}"
    );

    let mut db = agent(&coordinator, "db1", 4).await;
    let mut quick = client(&coordinator, Role::User, "quick").await;
    one_task_goes_round(&mut quick, &mut db).await;
}

#[tokio::test]
async fn everybody_is_told_goodbye() {
    let coordinator = coordinator();
    let mut agent = agent(&coordinator, "web1", 1).await;
    let mut client = client(&coordinator, Role::User, "alice").await;
    coordinator.stop("the coordinator is shut down").await;
    assert_eq!(agent.hear_the_end().await, "the coordinator is shut down");
    assert_eq!(client.hear_the_end().await, "the coordinator is shut down");
    let refused = attach(&coordinator, Peer::local(Role::User, "bob"))
        .await
        .err()
        .expect("refused");
    assert!(refused.reason.contains("is stopping"), "{refused}");
}

#[tokio::test]
async fn a_coordinator_without_handles_serves_the_sessions_it_has() {
    let coordinator = coordinator();
    let mut agent = agent(&coordinator, "web1", 1).await;
    let mut client = client(&coordinator, Role::User, "alice").await;
    drop(coordinator);
    one_task_goes_round(&mut client, &mut agent).await;
}

#[tokio::test]
async fn a_peer_of_an_unknown_protocol_is_told_what_to_upgrade() {
    let coordinator = coordinator();
    let hello = Hello {
        protocol: 9_001,
        protocol_min: 9_000,
        ..Hello::new(Role::User, "alice")
    };
    let (_session, theirs): (Session, Session) = local_pair(
        Peer::local(Role::User, "alice"),
        Peer::local(Role::Coordinator, "here"),
    );
    let refused = coordinator
        .attach(theirs, hello)
        .await
        .expect_err("refused");
    assert!(
        refused
            .reason
            .ends_with("upgrade the coordinator's fleetpool"),
        "{refused}"
    );
}
