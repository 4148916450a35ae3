//! Several tasks in a worker's hands.

use std::time::Duration;

use fleetpool_proto::{Outcome, message::ToAgent, pool::PoolOptions};

use super::host::{Host, LEASE, POOL, command, deeds, native, reports, retracted, runs};
use crate::{Event, WorkerEnd};

/// A host of one slot that has learned that tasks are short and has handed many; tells the first still in hand
/// and the one behind the last.
fn short(host: &mut Host, tasks: u64) -> (u64, u64) {
    let mut handed = runs(&host.grant(1..1 + tasks)).len() as u64;
    let mut next = 1;
    while handed < 40 {
        handed += runs(&host.done(0, next, 20)).len() as u64;
        next += 1;
    }
    (next, 1 + handed)
}

fn busy_host() -> (Host, u64, u64) {
    busy_host_of(native())
}

fn busy_host_of(options: PoolOptions) -> (Host, u64, u64) {
    let mut host = Host::with_idle_workers(1, options);
    // The first tasks of `with_idle_workers` were long: let that be forgotten.
    for index in 1000..1100 {
        host.grant(index..index + 1);
        host.done(0, index, 20);
    }
    host.ack(1000..1100);
    let (first, end) = short(&mut host, 900);
    assert!(end - first > 10, "a good many in hand: {first}..{end}");
    (host, first, end)
}

#[test]
fn one_long_task_delays_nobody() {
    let (mut host, first, end) = busy_host();
    let actions = host.live(Duration::from_millis(5));
    assert_eq!(deeds(&actions), ["give_back"]);
    let back: Vec<u64> = (first + 1..end).collect();
    host.given_back(0, &back);
    let actions = host.done(0, first, 5000);
    assert_eq!(runs(&actions)[0], (0, first + 1), "back in their old order");
}

#[test]
fn what_a_dead_worker_had_not_begun_is_moved_free_of_charge() {
    let (mut host, first, _) = busy_host();
    let actions = host.worker_ended(0, WorkerEnd::default());
    assert_eq!(reports(&actions), [(first, Outcome::WorkerLost)]);
    assert_eq!(runs(&host.ready(0))[0], (0, first + 1));
}

#[test]
fn before_a_worker_is_killed_for_one_task_it_gives_back_the_others() {
    let (mut host, first, end) = busy_host();
    assert_eq!(deeds(&host.cancel(&[first])), ["give_back"]);
    let back: Vec<u64> = (first + 1..end).collect();
    assert_eq!(deeds(&host.given_back(0, &back)), ["kill_worker"]);
    let actions = host.worker_ended(0, WorkerEnd::default());
    assert_eq!(reports(&actions), [(first, Outcome::Cancelled)]);
}

#[test]
fn a_worker_that_does_not_answer_is_killed_all_the_same() {
    let (mut host, first, _) = busy_host();
    host.cancel(&[first]);
    assert_eq!(
        deeds(&host.live(Duration::from_millis(100))),
        ["kill_worker"]
    );
}

#[test]
fn a_task_in_hand_is_cancelled_unbegun() {
    let (mut host, first, end) = busy_host();
    assert_eq!(deeds(&host.cancel(&[end - 2])), ["give_back"]);
    let actions = host.given_back(0, &[end - 2, end - 1]);
    assert_eq!(reports(&actions), [(end - 2, Outcome::Cancelled)]);
    assert!(deeds(&actions).iter().all(|deed| *deed != "kill_worker"));
    assert_eq!(deeds(&host.cancel(&[first])), ["give_back"]);
}

#[test]
fn workers_give_back_for_a_retraction() {
    let mut host = Host::with_idle_workers(1, native());
    for index in 1000..1100 {
        host.grant(index..index + 1);
        host.done(0, index, 20);
    }
    host.grant(1..50);
    let actions = host.say(ToAgent::Retract {
        pool: POOL,
        count: 1000,
        retraction: 1,
    });
    assert_eq!(
        (deeds(&actions), retracted(&actions)),
        (vec!["give_back"], vec![])
    );
    let back: Vec<u64> = (2..50).collect();
    let actions = host.given_back(0, &back);
    assert_eq!(retracted(&actions), [(1, back)]);
    assert_eq!(runs(&actions), [], "nothing is left but what runs");
}

#[test]
fn a_command_that_is_killed_makes_room_for_the_next() {
    let (mut host, first, _) = busy_host_of(command());
    assert_eq!(deeds(&host.cancel(&[first])), ["kill_task"]);
}

#[test]
fn a_command_that_is_killed_makes_no_room_for_what_is_not_to_begin() {
    let (mut host, first, end) = busy_host_of(command());
    let all: Vec<u64> = (first..end).collect();
    assert_eq!(deeds(&host.cancel(&all)), ["give_back", "kill_task"]);
    let actions = host.given_back(0, &all[1..]);
    let cancelled = |index: &u64| (*index, Outcome::Cancelled);
    assert_eq!(
        reports(&actions),
        all[1..].iter().map(cancelled).collect::<Vec<_>>()
    );
}

#[test]
fn no_command_begins_after_the_lease() {
    let (mut host, first, end) = busy_host_of(command());
    host.event(Event::LinkDown);
    host.live(LEASE - Duration::from_millis(1));
    host.given_back(0, &Vec::from_iter(first + 1..end));
    let in_hand = runs(&host.done(0, first, 20));
    assert!(in_hand.len() > 1, "several in hand again: {in_hand:?}");
    let actions = host.live(Duration::from_millis(1));
    assert_eq!(deeds(&actions), ["give_back", "kill_task"]);
}
