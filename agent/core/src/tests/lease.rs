//! G1: what happens when the lease ends, and what the next session hears.

use std::time::Duration;

use fleetpool_proto::{Outcome, message::HeldState, message::ToAgent};

use super::host::{
    Host, LEASE, POOL, command, deeds, fences, held, native, once, renewals, reports, runs,
};
use crate::{Action, Event, WorkerEnd};

#[test]
fn the_lease_is_renewed_three_times_in_its_length_and_more_often_early_in_a_session() {
    let mut host = Host::new(1);
    assert_eq!(renewals(&host.link_up()), [1]);
    host.renewed();
    // After 1, 2, 4 and 8 s.
    assert_eq!(renewals(&host.live(LEASE / 3)), [2, 3, 4, 5]);
    let mut renewal = 5;
    for _ in 0..3 {
        host.say(ToAgent::Renewed { renewal });
        let sent = renewals(&host.live(LEASE / 3));
        assert_eq!(sent.len(), 1);
        renewal = sent[0];
    }
}

#[test]
fn the_first_round_trip_is_told_as_soon_as_it_is_known() {
    let mut host = Host::new(1);
    host.link_up();
    host.pass(Duration::from_millis(50));
    assert_eq!(renewals(&host.renewed()), [2]);
    host.pass(Duration::from_millis(50));
    assert_eq!(renewals(&host.say(ToAgent::Renewed { renewal: 2 })), []);
}

#[test]
fn nothing_starts_without_a_lease() {
    let mut host = Host::new(1);
    host.link_up();
    host.open(POOL, command());
    host.allot(POOL, 1, 1);
    host.grant(0..1);
    assert_eq!(runs(&host.ready(0)), []);
    assert_eq!(runs(&host.renewed()), [(0, 0)]);
}

#[test]
fn the_lease_counts_from_when_the_renewal_was_sent() {
    let mut host = Host::new(1);
    host.link_up();
    host.pass(Duration::from_secs(5));
    host.renewed();
    host.event(Event::LinkDown);
    assert_eq!(host.core.poll_timeout().map(|end| end.0), Some(31_000_000));
}

#[test]
fn when_it_ends_what_may_run_again_is_killed_and_forgotten() {
    let mut host = Host::with_idle_workers(2, command());
    host.grant(2..6);
    host.event(Event::LinkDown);
    assert_eq!(deeds(&host.live(LEASE)), ["kill_task", "kill_task"]);
    assert_eq!(host.core.queued(), 0);
    for slot in 0..2 {
        let event = host.ended(slot, 2 + u64::from(slot), Outcome::Failed, 0);
        assert_eq!(runs(&host.event(event)), []);
    }
    let actions = host.link_up();
    assert_eq!(held(&actions), Some(vec![]));
    assert_eq!(reports(&actions), []);
}

#[test]
fn keepers_know_of_a_lease_before_a_task_begins_under_it() {
    let mut host = Host::new(1);
    host.link_up();
    host.open(POOL, command());
    host.allot(POOL, 1, 1);
    host.grant(0..1);
    host.ready(0);
    let actions = host.renewed();
    let lease_and_grace = 1000 * (LEASE.as_secs() + 1);
    assert_eq!(fences(&actions), [Some(lease_and_grace)]);
    assert_eq!(runs(&actions), [(0, 0)]);
    assert_eq!(actions.first().map(Action::name), Some("fence_at"));
    let renewed = host.live(LEASE / 3);
    assert_eq!(fences(&renewed), []);
    let later = lease_and_grace + 1000;
    // Sent when the session was a second old.
    let actions = host.say(ToAgent::Renewed { renewal: 2 });
    assert_eq!(fences(&actions), [Some(later)]);
}

#[test]
fn a_coordinator_that_stops_makes_the_lease_longer_until_the_next_session() {
    let mut host = Host::with_idle_workers(2, command());
    host.grant(2..4);
    let length = 20 * LEASE;
    let lease_ms = u64::try_from(length.as_millis()).expect("it is short");
    host.say(ToAgent::Stopping { lease_ms });
    host.event(Event::LinkDown);
    assert_eq!(deeds(&host.live(length - 2 * LEASE)), [""; 0]);
    // Another coordinator waits for no longer than its own lease from now.
    let actions = host.link_up();
    assert_eq!(actions.first().map(Action::name), Some("fence_at"));
    assert_eq!(held(&actions).map(|held| held.len()), Some(2));
    host.event(Event::LinkDown);
    assert_eq!(deeds(&host.live(LEASE)), ["kill_task", "kill_task"]);
}

#[test]
fn a_lease_that_is_over_is_not_made_longer() {
    let mut host = Host::with_idle_workers(1, command());
    host.event(Event::LinkDown);
    host.live(LEASE);
    host.link_up();
    host.say(ToAgent::Stopping { lease_ms: 600_000 });
    host.grant(2..3);
    assert_eq!(runs(&host.live(Duration::from_secs(1))), []);
}

#[test]
fn keepers_are_on_guard_until_the_last_of_the_fenced_is_gone() {
    let mut host = Host::with_idle_workers(2, native());
    host.grant(2..4);
    host.event(Event::LinkDown);
    assert_eq!(fences(&host.live(LEASE)), []);
    assert_eq!(fences(&host.worker_ended(0, WorkerEnd::default())), []);
    let actions = host.worker_ended(1, WorkerEnd::default());
    assert_eq!(fences(&actions), [None]);
}

#[test]
fn what_keepers_fenced_while_the_agent_was_stopped_is_never_mentioned() {
    for options in [command(), native()] {
        let mut host = Host::with_idle_workers(2, options);
        host.grant(2..3);
        // SIGSTOP. What it finds then is told in whatever order; the keeper of the idle worker could not know.
        host.pass(2 * LEASE);
        let mut actions = host.worker_fenced(1);
        actions.extend(host.worker_ended(1, WorkerEnd::default()));
        assert_eq!(deeds(&actions), [""; 0], "none is started to die at once");
        host.worker_fenced(0);
        let event = host.ended(0, 2, Outcome::Failed, 0);
        actions = host.event(event);
        actions.extend(host.worker_ended(0, WorkerEnd::default()));
        assert_eq!(fences(&actions), [None]);
        host.event(Event::LinkDown);
        let actions = host.link_up();
        assert_eq!(held(&actions), Some(vec![]));
        assert_eq!(reports(&actions), []);
    }
}

#[test]
fn a_renewal_that_keepers_did_not_hear_of_in_time_does_not_count() {
    let mut host = Host::with_idle_workers(2, command());
    host.grant(2..4);
    let actions = host.worker_fenced(0);
    assert_eq!(
        deeds(&actions),
        ["kill_worker", "kill_task", "drop_link"],
        "its lease is over"
    );
    let event = host.ended(0, 2, Outcome::Failed, 0);
    assert_eq!(reports(&host.event(event)), []);
}

#[test]
fn what_may_not_run_twice_runs_on() {
    let mut host = Host::with_idle_workers(1, once(command()));
    host.grant(1..3);
    host.event(Event::LinkDown);
    assert_eq!(deeds(&host.live(LEASE)), [""; 0]);
    let actions = host.link_up();
    assert_eq!(held(&actions), Some(vec![(1, HeldState::Running)]));
    assert_eq!(reports(&host.done(0, 1, 0)), [(1, Outcome::Done)]);
}

#[test]
fn the_next_session_waits_until_the_fenced_are_gone() {
    let mut host = Host::with_idle_workers(1, native());
    host.grant(1..2);
    host.event(Event::LinkDown);
    assert_eq!(deeds(&host.live(LEASE)), ["kill_worker"]);
    assert_eq!(host.link_up(), []);
    let actions = host.worker_ended(0, WorkerEnd::default());
    assert_eq!(held(&actions), Some(vec![]));
}

#[test]
fn a_lease_that_ends_under_a_session_ends_the_session() {
    let mut host = Host::with_idle_workers(1, command());
    let actions = host.live(LEASE);
    assert_eq!(deeds(&actions), ["drop_link", "stop_worker"]);
    let late = host.grant(1..2);
    assert_eq!(late, [], "what it still brings does not count");
    assert_eq!(host.core.queued(), 0);
}

#[test]
fn what_a_stopped_agent_finds_in_its_mail_is_not_started() {
    let mut host = Host::with_idle_workers(1, command());
    host.quietly(Event::Tick);
    // SIGSTOP for a minute; the first thing it sees then is a grant of before.
    let actions = {
        host.pass(Duration::ZERO);
        host.quietly(Event::Tick);
        let mut actions = host.pass(Duration::from_secs(60));
        actions.extend(host.grant(1..2));
        actions
    };
    assert_eq!(runs(&actions), []);
}

#[test]
fn being_killed_already_takes_no_longer_than_the_margin() {
    let mut options = command();
    options.kill_grace_ms = 60_000;
    let mut host = Host::with_idle_workers(1, options);
    host.grant(1..2);
    host.cancel(&[1]);
    host.event(Event::LinkDown);
    let actions = host.live(LEASE);
    let graces = actions.iter().filter_map(|action| match action {
        Action::KillTask { grace_ms, .. } => Some(*grace_ms),
        _ => None,
    });
    assert_eq!(Vec::from_iter(graces), [1000]);
}

#[test]
fn reports_are_said_again_until_they_are_acknowledged() {
    let mut host = Host::with_idle_workers(2, command());
    host.grant(2..4);
    host.done(0, 2, 0);
    host.event(Event::LinkDown);
    host.done(1, 3, 0);
    let actions = host.link_up();
    let both = vec![(2, HeldState::Ended), (3, HeldState::Ended)];
    assert_eq!(held(&actions), Some(both));
    assert_eq!(reports(&actions).len(), 2);
    host.ack(2..4);
    host.event(Event::LinkDown);
    assert_eq!(held(&host.link_up()), Some(vec![]));
}

#[test]
fn a_short_break_of_the_link_stops_nothing() {
    let mut host = Host::with_idle_workers(1, command());
    host.grant(1..4);
    host.event(Event::LinkDown);
    assert_eq!(runs(&host.done(0, 1, 0)), [(0, 2)]);
    let actions = host.link_up();
    let states = held(&actions).unwrap();
    let expected = [
        (1, HeldState::Ended),
        (2, HeldState::Running),
        (3, HeldState::Queued),
    ];
    assert_eq!(states, expected);
    assert_eq!(deeds(&actions), [""; 0]);
}

#[test]
fn idle_and_alone_it_asks_for_no_time() {
    let mut host = Host::with_idle_workers(2, command());
    host.event(Event::LinkDown);
    host.live(LEASE);
    assert_eq!(host.core.poll_timeout(), None);
}

#[test]
fn numbers_of_an_earlier_session_do_not_count_in_the_next() {
    let mut host = Host::with_pool(1, command());
    host.allot(POOL, 1, 1000);
    host.event(Event::LinkDown);
    host.link_up();
    host.renewed();
    host.say(ToAgent::Allot {
        pool: POOL,
        slots: 0,
        allotment: 1,
    });
    assert_eq!(deeds(&host.grant(0..1)), [""; 0]);
}

#[test]
fn a_pool_that_the_coordinator_does_not_open_again_is_over() {
    let mut host = Host::with_idle_workers(1, command());
    host.event(Event::LinkDown);
    host.link_up();
    assert_eq!(deeds(&host.renewed()), ["stop_worker"]);
    assert_eq!(
        deeds(&host.worker_ended(0, WorkerEnd::default())),
        ["pool_closed"]
    );
}
