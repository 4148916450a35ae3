//! Workers that cannot be started, and slots that change hands.

use std::time::Duration;

use fleetpool_proto::{
    PoolId, SlotNo,
    message::{FromAgent, ToAgent},
};

use super::host::{Host, POOL, command, deeds, grant_of, native, runs, sent};
use crate::{Action, Event, WorkerEnd};

fn unfit(actions: &[Action]) -> Vec<(String, usize)> {
    let of = |message: &FromAgent| match message {
        FromAgent::PoolUnfit { reason, rows, .. } => Some((reason.clone(), rows.len())),
        _ => None,
    };
    sent(actions).filter_map(of).collect()
}

fn fails(host: &mut Host) -> Vec<Action> {
    let generation = host.generation(0);
    let mut actions = host.event(Event::WorkerUnfit {
        slot: SlotNo(0),
        generation,
        reason: "no module named x".to_owned(),
    });
    actions.extend(host.live(Duration::from_secs(2)));
    actions
}

#[test]
fn a_pool_that_never_worked_here_is_unfit_after_three_tries() {
    let mut host = Host::with_pool(1, native());
    host.grant(0..4);
    assert_eq!(deeds(&fails(&mut host)), ["start_worker"]);
    assert_eq!(deeds(&fails(&mut host)), ["start_worker"]);
    let actions = fails(&mut host);
    assert_eq!(unfit(&actions), [("no module named x".to_owned(), 4)]);
    assert_eq!(deeds(&actions), [""; 0]);
    let actions = host.grant(4..6);
    assert_eq!(unfit(&actions).len(), 1, "and again for what comes later");
}

#[test]
fn a_pool_that_worked_here_gets_more_tries() {
    let mut host = Host::with_idle_workers(1, native());
    host.worker_ended(0, WorkerEnd::default());
    for _ in 0..9 {
        assert_eq!(deeds(&fails(&mut host)), ["start_worker"]);
    }
    assert_eq!(unfit(&fails(&mut host)).len(), 1, "but not for ever");
}

#[test]
fn a_worker_that_dies_before_it_is_ready_counts_as_a_failure() {
    let mut host = Host::with_pool(1, native());
    host.grant(0..1);
    let mut last = Vec::new();
    for _ in 0..3 {
        let end = WorkerEnd {
            exit: Some(3),
            ..WorkerEnd::default()
        };
        last = host.worker_ended(0, end);
        last.extend(host.live(Duration::from_secs(2)));
    }
    let reason = "its worker exited with status 3 before it was ready";
    assert_eq!(unfit(&last), [(reason.to_owned(), 1)]);
}

#[test]
fn without_its_program_a_pool_is_unfit() {
    let mut host = Host::online(1);
    let actions = host.say(ToAgent::OpenPool {
        pool: POOL,
        options: Box::new(native()),
    });
    assert_eq!(deeds(&actions), ["fetch_program"]);
    host.allot(POOL, 1, 1);
    host.define(POOL, 1, fleetpool_proto::pool::Spec::default());
    assert_eq!(
        deeds(&host.grant(0..1)),
        [""; 0],
        "no worker before the program is here"
    );
    let error = Some("the client is gone".to_owned());
    let actions = host.event(Event::Content { pool: POOL, error });
    let reason = "its program cannot be had: the client is gone";
    assert_eq!(unfit(&actions), [(reason.to_owned(), 1)]);
}

#[test]
fn idle_workers_make_room_for_another_pool() {
    let other = PoolId(2);
    let mut host = Host::with_idle_workers(2, native());
    host.allot(POOL, 1, 2);
    host.open(other, command());
    host.worker_ended(1, WorkerEnd::default());
    host.allot(other, 2, 1);
    let actions = host.say(grant_of(other, 0..2, 1));
    assert_eq!(deeds(&actions), ["start_worker", "stop_worker"]);
    let actions = host.worker_ended(0, WorkerEnd::default());
    assert_eq!(deeds(&actions), ["start_worker"]);
    assert_eq!(runs(&host.ready(0)).len() + runs(&host.ready(1)).len(), 2);
}

#[test]
fn workers_are_started_as_they_are_needed() {
    let mut host = Host::with_pool(8, native());
    assert_eq!(deeds(&host.grant(0..1)), ["start_worker"]);
    assert_eq!(deeds(&host.grant(1..3)), ["start_worker", "start_worker"]);
}
