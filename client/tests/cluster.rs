//! `fleetpool::cluster` against a coordinator that is played by the test.

mod fake;

use std::time::Duration;

use bytes::Bytes;
use fake::Fake;
use fleetpool::cluster::{Error, Events, PoolEvent, Submitter};
use fleetpool_proto::{
    HostId, PoolId, SpecId,
    limits::PAYLOAD_BYTES_MAX,
    message::{FromClient, Refusal, ToClient},
    pool::{ContentHash, PoolOptions, Spec},
    view::{Answer, Query, StatusView},
};

const PLENTY: u64 = 1 << 40;

async fn opened(tasks: u64, bytes: u64) -> (Submitter, Events, Fake, PoolId) {
    let (cluster, mut fake) = Fake::start();
    let (submitter, events) = cluster.open(PoolOptions::default()).unwrap();
    // The session lives as long as the test does.
    std::mem::forget(cluster);
    let pool = fake.open_pool(tasks, bytes).await;
    (submitter, events, fake, pool)
}

fn byte(value: u8) -> Bytes {
    Bytes::from(vec![value])
}

#[tokio::test]
async fn a_pool_has_a_number_of_the_clients_range() {
    let (submitter, _events, _fake, pool) = opened(1, 1).await;
    assert_eq!((pool, submitter.pool()), (PoolId(7), PoolId(7)));
}

#[tokio::test]
async fn tasks_submitted_without_a_break_leave_together() {
    let (submitter, _events, mut fake, pool) = opened(100, PLENTY).await;
    let spec = submitter.define(Spec::default());
    assert_eq!(submitter.submit(spec, None, byte(0)).await.unwrap(), 0);
    for value in 1..10 {
        submitter.try_submit(spec, None, byte(value)).unwrap();
    }
    let defined = fake.recv().await;
    assert!(matches!(defined, FromClient::Define { spec, .. } if spec == SpecId(0)));
    let expected = FromClient::Submit {
        pool,
        spec,
        first: 0,
        hosts: vec![],
        payloads: (0..10).map(byte).collect(),
    };
    assert_eq!(fake.recv().await, expected);
}

#[tokio::test]
async fn what_differs_travels_apart() {
    let (submitter, _events, mut fake, _pool) = opened(100, PLENTY).await;
    let specs = [Spec::default(), Spec::default()].map(|spec| submitter.define(spec));
    submitter.submit(specs[0], None, byte(0)).await.unwrap();
    for host in [HostId(3), HostId(4)] {
        submitter.try_submit(specs[0], Some(host), byte(1)).unwrap();
    }
    submitter.try_submit(specs[1], None, byte(2)).unwrap();
    let mut seen = Vec::new();
    while seen.len() < 3 {
        if let FromClient::Submit {
            spec, first, hosts, ..
        } = fake.recv().await
        {
            seen.push((spec, first, hosts));
        }
    }
    let expected = [
        (specs[0], 0, vec![]),
        (specs[0], 1, vec![HostId(3), HostId(4)]),
        (specs[1], 3, vec![]),
    ];
    assert_eq!(seen, expected);
}

#[tokio::test]
async fn submit_waits_for_credit_of_tasks_and_of_bytes() {
    let (submitter, _events, fake, pool) = opened(2, 10).await;
    let spec = submitter.define(Spec::default());
    submitter
        .submit(spec, None, Bytes::from_static(&[0; 10]))
        .await
        .unwrap();
    assert_eq!(submitter.try_submit(spec, None, byte(1)).unwrap(), None);
    fake.credit(pool, 2, 20).await;
    assert_eq!(submitter.submit(spec, None, byte(1)).await.unwrap(), 1);
    assert_eq!(submitter.try_submit(spec, None, byte(2)).unwrap(), None);
    fake.credit(pool, 3, 20).await;
    assert_eq!(submitter.submit(spec, None, byte(2)).await.unwrap(), 2);
}

#[tokio::test]
async fn an_argument_over_the_limit_is_refused_before_it_is_sent() {
    let (submitter, _events, _fake, _pool) = opened(2, PLENTY).await;
    // Zeroed pages that are never touched.
    let huge = Bytes::from(vec![0; PAYLOAD_BYTES_MAX + 1]);
    let refused = submitter.submit(SpecId(0), None, huge).await;
    assert!(matches!(refused, Err(Error::TooLarge { bytes }) if bytes == PAYLOAD_BYTES_MAX + 1));
}

#[tokio::test]
async fn results_are_reported_as_consumed_in_batches() {
    let (submitter, mut events, mut fake, pool) = opened(80, PLENTY).await;
    let spec = submitter.define(Spec::default());
    for value in 0..80 {
        submitter.submit(spec, None, byte(value)).await.unwrap();
    }
    let payloads: Vec<_> = (0..80).map(byte).collect();
    fake.echo(pool, 0, &payloads).await;
    for value in 0..80 {
        let Some(PoolEvent::Ended { row, payload }) = events.next().await else {
            panic!("result {value} comes");
        };
        assert_eq!((row.index, payload), (u64::from(value), byte(value)));
    }
    submitter.flush().await.unwrap();
    let mut consumed = Vec::new();
    while let Some(message) = fake.try_recv() {
        if let FromClient::Consumed { tasks, .. } = message {
            consumed.push(tasks);
        }
    }
    assert_eq!(consumed.last(), Some(&80));
    assert!(
        consumed.len() <= 8,
        "one message for ten results: {consumed:?}"
    );
}

#[tokio::test]
async fn a_closed_pool_takes_nothing_and_finishes() {
    let (submitter, mut events, mut fake, pool) = opened(80, PLENTY).await;
    let spec = submitter.define(Spec::default());
    submitter.submit(spec, None, byte(0)).await.unwrap();
    submitter.close();
    submitter.close();
    let late = submitter.submit(spec, None, byte(1)).await;
    assert!(matches!(late, Err(Error::Closed)));
    submitter.flush().await.unwrap();
    let mut last = fake.recv().await;
    while let Some(message) = fake.try_recv() {
        last = message;
    }
    assert_eq!(last, FromClient::Close { pool, submitted: 1 });
    // The last word overtakes a bulky result.
    fake.send(ToClient::PoolEnded { pool }).await;
    fake.echo(pool, 0, &[byte(0)]).await;
    assert!(matches!(events.next().await, Some(PoolEvent::Ended { .. })));
    assert_eq!(events.next().await, Some(PoolEvent::Finished));
    assert_eq!(events.next().await, None);
}

#[tokio::test]
async fn a_terminated_pool_finishes_without_its_results() {
    let (submitter, mut events, mut fake, pool) = opened(80, PLENTY).await;
    submitter.submit(SpecId(0), None, byte(0)).await.unwrap();
    submitter.terminate();
    while fake.recv().await != (FromClient::Terminate { pool }) {}
    fake.send(ToClient::PoolEnded { pool }).await;
    assert_eq!(events.next().await, Some(PoolEvent::Finished));
}

#[tokio::test]
async fn events_that_are_dropped_terminate_their_pool() {
    let (_submitter, events, mut fake, pool) = opened(80, PLENTY).await;
    drop(events);
    assert_eq!(fake.recv().await, FromClient::Terminate { pool });
}

#[tokio::test]
async fn a_lost_session_ends_every_call() {
    let (cluster, mut fake) = Fake::start();
    let (submitter, mut events) = cluster.open(PoolOptions::default()).unwrap();
    fake.open_pool(0, 0).await;
    let waiting = {
        let submitter = submitter.clone();
        tokio::spawn(async move { submitter.submit(SpecId(0), None, Bytes::new()).await })
    };
    let asking = {
        let cluster = cluster.clone();
        tokio::spawn(async move { cluster.ask(Query::Status).await })
    };
    assert!(matches!(fake.recv().await, FromClient::Ask { .. }));
    fake.close("power cut");
    let lost = |error: Error| match error {
        Error::Lost { reason } => reason,
        other => panic!("not lost but {other}"),
    };
    assert!(lost(waiting.await.unwrap().unwrap_err()).contains("power cut"));
    assert!(lost(asking.await.unwrap().unwrap_err()).contains("power cut"));
    let Some(PoolEvent::Lost(reason)) = events.next().await else {
        panic!("the pool is told");
    };
    assert!(reason.contains("power cut"));
    assert_eq!(events.next().await, None);
    assert!(lost(cluster.open(PoolOptions::default()).unwrap_err()).contains("power cut"));
    assert!(lost(submitter.flush().await.unwrap_err()).contains("power cut"));
}

#[tokio::test]
async fn questions_get_their_own_answers() {
    let (cluster, mut fake) = Fake::start();
    let ask = |query| {
        let cluster = cluster.clone();
        tokio::spawn(async move { cluster.ask(query).await.unwrap() })
    };
    let (status, jobs) = (ask(Query::Status), ask(Query::Jobs));
    let mut questions = Vec::new();
    while questions.len() < 2 {
        if let FromClient::Ask { question, query } = fake.recv().await {
            questions.push((question, query));
        }
    }
    for (question, query) in questions.into_iter().rev() {
        let answer = match query {
            Query::Jobs => Answer::Jobs(vec![]),
            _ => Answer::Status(StatusView::default()),
        };
        fake.send(ToClient::Answer { question, answer }).await;
    }
    assert_eq!(jobs.await.unwrap(), Answer::Jobs(vec![]));
    assert!(matches!(status.await.unwrap(), Answer::Status(_)));
}

#[tokio::test]
async fn offered_content_is_sent_and_other_is_not() {
    let (cluster, mut fake) = Fake::start();
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), b"a program").unwrap();
    let (offered, other) = (ContentHash([1; 32]), ContentHash([2; 32]));
    cluster.offer(offered, file.path().to_owned());
    for (hash, content) in [(offered, &b"a program"[..]), (other, b"")] {
        fake.send(ToClient::NeedContent { hash }).await;
        let FromClient::Content {
            hash: sent,
            payloads,
        } = fake.recv().await
        else {
            panic!("content is sent");
        };
        assert_eq!((sent, &payloads.items()[0][..]), (hash, content));
    }
}

#[tokio::test]
async fn refusals_slots_and_names_come_through() {
    let (cluster, mut fake) = Fake::start();
    let (_submitter, mut events) = cluster.open(PoolOptions::default()).unwrap();
    let pool = fake.open_pool(0, 0).await;
    let host = HostId(5);
    let name = "web01".to_owned();
    fake.send(ToClient::Host { host, name }).await;
    let (allotted, eligible, hosts) = (1, 2, 3);
    fake.send(ToClient::Slots {
        pool,
        allotted,
        eligible,
        hosts,
    })
    .await;
    let (reason, kind) = ("no host is called x".to_owned(), Refusal::NoHostMatches);
    fake.send(ToClient::Refused {
        pool,
        reason: reason.clone(),
        kind,
    })
    .await;
    assert_eq!(
        events.next().await,
        Some(PoolEvent::Slots {
            allotted,
            eligible,
            hosts
        })
    );
    assert_eq!(cluster.host_name(host).as_deref(), Some("web01"));
    assert_eq!(
        events.next().await,
        Some(PoolEvent::Refused { reason, kind })
    );
}

#[tokio::test]
async fn a_slow_consumer_slows_the_coordinator_down() {
    let (_submitter, mut events, mut fake, pool) = opened(PLENTY, PLENTY).await;
    let mut sent = 0;
    let notice = |text: u64| ToClient::Notice {
        pool,
        text: text.to_string(),
    };
    let held = Duration::from_millis(50);
    while tokio::time::timeout(held, fake.send(notice(sent)))
        .await
        .is_ok()
    {
        sent += 1;
        assert!(sent < 10_000, "the client takes everything");
    }
    for text in 0..sent {
        assert_eq!(
            events.next().await,
            Some(PoolEvent::Notice(text.to_string()))
        );
    }
    assert_eq!(fake.try_recv(), None);
}
