//! What becomes of tasks: run, cancelled, timed out, lost.

use std::time::Duration;

use fleetpool_proto::{
    Outcome, PoolId,
    message::ToAgent,
    pool::{PoolOptions, Spec},
};

use super::host::{
    Host, POOL, allotted, command, deeds, grant_of, native, reports, reports_whole, retracted, runs,
};
use crate::{Event, WorkerEnd};

#[test]
fn no_more_tasks_run_than_are_allotted() {
    let mut host = Host::online(4);
    host.open(POOL, command());
    host.allot(POOL, 2, 1);
    assert_eq!(deeds(&host.grant(0..5)), ["start_worker", "start_worker"]);
    assert_eq!(runs(&host.ready(0)), [(0, 0)]);
    assert_eq!(runs(&host.ready(1)), [(1, 1)]);
    assert_eq!(
        runs(&host.done(1, 1, 0)),
        [(1, 2)],
        "in the order they were granted"
    );
}

#[test]
fn a_smaller_allotment_comes_true_as_the_surplus_ends() {
    let mut host = Host::with_idle_workers(2, command());
    host.grant(2..5);
    assert_eq!(
        allotted(&host.allot(POOL, 1, 2)),
        [(2, 2)],
        "both still run"
    );
    let actions = host.done(0, 2, 0);
    assert_eq!(allotted(&actions), [(1, 2)]);
    assert_eq!(runs(&actions), [], "the fifth waits for the fourth");
    assert_eq!(deeds(&actions), ["stop_worker"]);
}

#[test]
fn an_older_allotment_is_out_of_date() {
    let mut host = Host::online(4);
    host.open(POOL, command());
    assert_eq!(allotted(&host.allot(POOL, 3, 7)), [(3, 7)]);
    assert_eq!(allotted(&host.allot(POOL, 4, 6)), []);
    assert_eq!(deeds(&host.grant(0..9)).len(), 3);
}

#[test]
fn ends_of_one_batch_are_one_message() {
    let mut host = Host::with_idle_workers(3, command());
    host.grant(3..6);
    for slot in 0..3 {
        let event = host.ended(slot, 3 + u64::from(slot), Outcome::Done, 0);
        host.quietly(event);
    }
    let actions = host.actions();
    assert_eq!(super::host::sent(&actions).count(), 1);
    assert_eq!(reports(&actions).len(), 3);
}

#[test]
fn cancelled_before_it_starts() {
    let mut host = Host::with_idle_workers(1, command());
    host.grant(1..4);
    let actions = host.cancel(&[2]);
    assert_eq!(reports(&actions), [(2, Outcome::Cancelled)]);
    assert_eq!(runs(&host.done(0, 1, 0)), [(0, 3)]);
}

#[test]
fn cancelled_while_it_runs() {
    let mut host = Host::with_idle_workers(1, command());
    host.grant(1..2);
    assert_eq!(deeds(&host.cancel(&[1])), ["kill_task"]);
    assert_eq!(deeds(&host.cancel(&[1])), [""; 0], "once is enough");
    let event = host.ended(0, 1, Outcome::Failed, 0);
    assert_eq!(reports(&host.event(event)), [(1, Outcome::Cancelled)]);
}

#[test]
fn a_cancel_may_overtake_its_grant() {
    let mut host = Host::with_idle_workers(1, command());
    assert_eq!(reports(&host.cancel(&[1])), [(1, Outcome::Cancelled)]);
    assert_eq!(runs(&host.grant(1..3)), [(0, 2)]);
}

#[test]
fn a_cancel_of_what_has_ended_is_answered_by_its_report() {
    let mut host = Host::with_idle_workers(1, command());
    host.grant(1..2);
    assert_eq!(reports(&host.done(0, 1, 0)), [(1, Outcome::Done)]);
    assert_eq!(reports(&host.cancel(&[1])), []);
}

#[test]
fn a_native_task_is_cancelled_with_its_worker_alone() {
    let mut host = Host::with_idle_workers(2, native());
    host.grant(2..4);
    assert_eq!(deeds(&host.cancel(&[2])), ["kill_worker"]);
    let actions = host.worker_ended(0, WorkerEnd::default());
    assert_eq!(reports(&actions), [(2, Outcome::Cancelled)]);
    assert_eq!(
        deeds(&actions),
        ["start_worker"],
        "back at full size at once"
    );
}

#[test]
fn past_its_time_a_task_is_killed() {
    let mut host = Host::with_idle_workers(1, command());
    let spec = Spec {
        timeout_ms: 1500,
        ..Spec::default()
    };
    host.define(POOL, 2, spec);
    host.say(grant_of(POOL, 1..2, 2));
    assert_eq!(deeds(&host.live(Duration::from_millis(1499))), [""; 0]);
    assert_eq!(deeds(&host.live(Duration::from_millis(1))), ["kill_task"]);
    let event = host.ended(0, 1, Outcome::Failed, 0);
    let reports = reports_whole(&host.event(event));
    let [(row, loss)] = &reports[..] else {
        panic!("one report, not {reports:?}")
    };
    assert_eq!(row.outcome, Outcome::TimedOut);
    assert_eq!(loss.message, "ran longer than its limit of 1.5 s");
}

#[test]
fn a_lost_worker_takes_one_task_with_it() {
    let mut host = Host::with_idle_workers(2, native());
    host.grant(2..4);
    let end = WorkerEnd {
        signal: Some(9),
        stderr_tail: "oops".to_owned(),
        ..WorkerEnd::default()
    };
    let actions = host.worker_ended(0, end);
    let reports = reports_whole(&actions);
    let [(row, loss)] = &reports[..] else {
        panic!("one report, not {reports:?}")
    };
    assert_eq!(
        (row.index, row.outcome, row.pid),
        (2, Outcome::WorkerLost, 100)
    );
    assert!(row.started_us >= 5_000_000_000, "by the host's clock");
    assert_eq!(loss.message, "its worker was ended by signal 9");
    assert_eq!(loss.stderr_tail, "oops");
    assert_eq!(deeds(&actions), ["start_worker"]);
}

#[test]
fn an_unknown_specification_is_a_task_that_cannot_start() {
    let mut host = Host::with_idle_workers(1, command());
    let actions = host.say(grant_of(POOL, 1..2, 77));
    assert_eq!(reports(&actions), [(1, Outcome::NotStarted)]);
}

#[test]
fn what_is_granted_to_an_ended_pool_is_given_back() {
    let mut host = Host::online(1);
    let actions = host.say(grant_of(PoolId(99), 3..5, 1));
    assert_eq!(retracted(&actions), [(0, vec![3, 4])]);
}

#[test]
fn the_last_granted_are_retracted_first() {
    let mut host = Host::with_idle_workers(1, command());
    host.grant(1..6);
    let actions = host.say(ToAgent::Retract {
        pool: POOL,
        count: 2,
        retraction: 9,
    });
    assert_eq!(retracted(&actions), [(9, vec![4, 5])]);
    let actions = host.say(ToAgent::Retract {
        pool: POOL,
        count: 10,
        retraction: 10,
    });
    assert_eq!(retracted(&actions), [(10, vec![2, 3])], "what runs stays");
}

#[test]
fn a_closed_pool_leaves_nothing() {
    let mut host = Host::with_idle_workers(3, native());
    host.grant(3..9);
    host.say(ToAgent::ClosePool { pool: POOL });
    assert_eq!(host.core.queued(), 0);
    for slot in 0..3 {
        let actions = host.worker_ended(slot, WorkerEnd::default());
        assert_eq!(reports(&actions), [], "nobody wants to know");
        let last = (slot == 2).then_some("pool_closed");
        assert_eq!(deeds(&actions), Vec::from_iter(last));
    }
    assert!(host.core.pool_options(POOL).is_none());
}

#[test]
fn only_long_tasks_are_mentioned_when_they_start() {
    let mut host = Host::with_idle_workers(3, command());
    host.grant(3..5);
    host.live(Duration::from_millis(12));
    host.grant(5..6);
    let actions = host.live(Duration::from_millis(9));
    let started = super::host::sent(&actions).filter_map(|message| match message {
        fleetpool_proto::message::FromAgent::Started { rows, .. } => Some(rows.len()),
        _ => None,
    });
    assert_eq!(
        Vec::from_iter(started),
        [2],
        "one message, without the young one"
    );
}

#[test]
fn a_worker_is_replaced_after_its_share_of_tasks() {
    let options = PoolOptions {
        tasks_per_worker_max: 1,
        ..native()
    };
    let mut host = Host::with_pool(1, options);
    host.grant(0..2);
    assert_eq!(runs(&host.ready(0)), [(0, 0)]);
    assert_eq!(deeds(&host.done(0, 0, 0)), ["stop_worker"]);
    let actions = host.worker_ended(0, WorkerEnd::default());
    assert_eq!(deeds(&actions), ["start_worker"]);
    assert_eq!(reports(&actions), []);
    assert_eq!(runs(&host.ready(0)), [(0, 1)]);
}

#[test]
fn events_of_a_replaced_worker_are_stale() {
    let mut host = Host::with_idle_workers(1, native());
    host.grant(1..2);
    let old = host.ended(0, 1, Outcome::Done, 0);
    host.worker_ended(0, WorkerEnd::default());
    assert_eq!(reports(&host.event(old)), []);
    assert_eq!(host.event(Event::Tick), []);
}

#[test]
fn a_grant_that_comes_after_its_slots_are_gone_is_given_back() {
    let mut host = Host::with_idle_workers(1, command());
    host.allot(POOL, 0, 2);
    assert_eq!(retracted(&host.grant(1..3)), [(0, vec![1, 2])]);
}
