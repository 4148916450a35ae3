//! Scenarios of the scheduler with hosts that do as they are told. The simulator (crate `fleetpool-tests`) runs it
//! against the real agents' core, under faults.

use std::{collections::BTreeMap, time::Duration};

use bytes::Bytes;
use fleetpool_coordinator_core::{Action, CoordinatorCore, Event, Options};
use fleetpool_proto::{
    Attempt, ClientId, HostId, Outcome, Payloads, PoolId, SpecId, Timestamp,
    journal::Fact,
    limits::POOL_WINDOW_BYTES,
    message::{
        FromAgent, FromClient, GrantRow, HeldRow, HeldState, OutputRow, Refusal, Registration,
        ReportRow, ResultRow, StartedRow, TaskRow, ToAgent, ToClient,
    },
    pool::{PoolOptions, Retries},
};

const CLIENT: ClientId = ClientId(1);
const POOL: PoolId = PoolId(1);

/// A coordinator with hosts that hold what they are granted until told to report it.
#[derive(Default)]
struct World {
    core: CoordinatorCore,
    now: Timestamp,
    held: BTreeMap<(HostId, PoolId), Vec<GrantRow>>,
    allot: BTreeMap<(HostId, PoolId), (u16, u64)>,
    retractions: Vec<(HostId, PoolId, u32, u64)>,
    cancels: Vec<(HostId, u64)>,
    results: Vec<ResultRow>,
    told: Vec<ToClient>,
    /// The numbers up to which output was acknowledged, where no reports were.
    output_acked: Vec<u64>,
    facts: Vec<Fact>,
}

/// With a journal.
fn durable(epoch: u64) -> Options {
    Options {
        durable: true,
        epoch,
        ..Options::default()
    }
}

impl World {
    fn new(hosts: u32, slots: u16) -> Self {
        let mut world = Self {
            core: CoordinatorCore::new(Options::default()),
            ..Self::default()
        };
        for host in 0..hosts {
            world.join(HostId(host), 1, 1, slots);
        }
        let user = "ada".to_owned();
        world.handle(Event::ClientConnected {
            client: CLIENT,
            user,
        });
        world
    }

    fn join(&mut self, host: HostId, session: u64, incarnation: u64, slots: u16) {
        let registration = Registration {
            slots,
            incarnation,
            ..Registration::default()
        };
        self.register(host, session, registration);
    }

    /// A host of one life comes back with what it holds.
    fn rejoin(&mut self, host: HostId, session: u64, slots: u16, held: Vec<HeldRow>) {
        let registration = Registration {
            slots,
            incarnation: 1,
            held,
            ..Registration::default()
        };
        self.register(host, session, registration);
    }

    fn register(&mut self, host: HostId, session: u64, registration: Registration) {
        self.handle(Event::AgentConnected { host, session });
        let registration = Registration {
            name: format!("h{}", host.0),
            ..registration
        };
        self.says(host, session, FromAgent::Register(Box::new(registration)));
    }

    fn handle(&mut self, event: Event) {
        self.core.handle(self.now, event);
        while let Some(action) = self.core.poll_action() {
            self.act(action);
        }
    }

    fn says(&mut self, host: HostId, session: u64, message: FromAgent) {
        self.handle(Event::FromAgent {
            host,
            session,
            message,
        });
    }

    fn act(&mut self, action: Action) {
        match action {
            Action::ToAgent { host, message, .. } => self.at_agent(host, message),
            Action::ToClient { message, .. } => match message {
                ToClient::Results { rows, .. } => self.results.extend(rows),
                other => self.told.push(other),
            },
            Action::Record(fact) => self.facts.push(fact),
            Action::DropAgent { .. } | Action::FetchContent { .. } => {}
        }
    }

    /// Another coordinator goes on where this one was killed. The client is back, before any host.
    fn recover(self) -> Self {
        let mut next = Self {
            core: CoordinatorCore::new(durable(2)),
            now: self.now,
            ..Self::default()
        };
        for fact in self.facts {
            next.core.recover(next.now, fact);
        }
        next.core.recovered(next.now, &[CLIENT], false);
        next.resume();
        next
    }

    fn resume(&mut self) {
        let user = "ada".to_owned();
        self.handle(Event::ClientConnected {
            client: CLIENT,
            user,
        });
        let pools = vec![POOL];
        self.client(FromClient::Resume { pools });
    }

    /// What the client is told of results and output, in order.
    fn heard(&self) -> Vec<String> {
        self.told
            .iter()
            .filter_map(|message| match message {
                ToClient::Output { number, .. } => Some(format!("output {number}")),
                ToClient::PoolEnded { .. } => Some("ended".to_owned()),
                _ => None,
            })
            .collect()
    }

    fn at_agent(&mut self, host: HostId, message: ToAgent) {
        match message {
            ToAgent::Grant { pool, rows, .. } => {
                self.held.entry((host, pool)).or_default().extend(rows);
            }
            ToAgent::Allot {
                pool,
                slots,
                allotment,
            } => {
                self.allot.insert((host, pool), (slots, allotment));
            }
            ToAgent::Retract {
                pool,
                count,
                retraction,
            } => self.retractions.push((host, pool, count, retraction)),
            ToAgent::Ack { output, rows, .. } if rows.is_empty() => self.output_acked.push(output),
            ToAgent::Cancel { rows, .. } => {
                self.cancels
                    .extend(rows.iter().map(|row| (host, row.index)));
            }
            _ => {}
        }
    }

    fn client(&mut self, message: FromClient) {
        let client = CLIENT;
        self.handle(Event::FromClient { client, message });
    }

    fn open(&mut self, pool: PoolId, options: PoolOptions) {
        let options = Box::new(options);
        self.client(FromClient::OpenPool { pool, options });
    }

    fn submit(&mut self, pool: PoolId, first: u64, count: usize) {
        self.client(FromClient::Submit {
            pool,
            spec: SpecId(0),
            first,
            hosts: Vec::new(),
            payloads: Payloads::from(vec![Bytes::from_static(b"x"); count]),
        });
    }

    /// The host reports its oldest attempt.
    fn report(&mut self, host: HostId, pool: PoolId, outcome: Outcome, run_us: u64) {
        let held = self.held.entry((host, pool)).or_default();
        assert!(!held.is_empty(), "{host} has no task of {pool}");
        let row = held.remove(0);
        self.report_row(host, pool, row.index, row.attempt, outcome, run_us);
    }

    fn report_row(
        &mut self,
        host: HostId,
        pool: PoolId,
        index: u64,
        attempt: Attempt,
        outcome: Outcome,
        run_us: u64,
    ) {
        let row = ReportRow {
            index,
            attempt,
            outcome,
            run_us,
            pid: 7,
            ..ReportRow::default()
        };
        self.report_with(host, pool, row, Bytes::new());
    }

    fn report_with(&mut self, host: HostId, pool: PoolId, row: ReportRow, result: Bytes) {
        let message = FromAgent::Reports {
            pool,
            rows: vec![row],
            payloads: Payloads::from(vec![result]),
        };
        self.says(host, 1, message);
    }

    fn confirm(&mut self, host: HostId, pool: PoolId) {
        let (slots, allotment) = self.allot[&(host, pool)];
        let message = FromAgent::Allotted {
            pool,
            slots,
            allotment,
        };
        self.says(host, 1, message);
    }

    fn slots(&self, pool: PoolId) -> u64 {
        let of = |(&(_, owner), &(slots, _)): (&(HostId, PoolId), &(u16, u64))| {
            (owner == pool).then_some(u64::from(slots))
        };
        self.allot.iter().filter_map(of).sum()
    }

    fn granted(&self, pool: PoolId) -> usize {
        let held = self.held.iter().filter(|((_, owner), _)| *owner == pool);
        held.map(|(_, rows)| rows.len()).sum()
    }

    fn pass(&mut self, time: Duration) {
        self.now = self.now + time;
        self.handle(Event::Tick);
    }
}

fn of_slots(slots: u32) -> PoolOptions {
    PoolOptions {
        slots: Some(slots),
        ..PoolOptions::default()
    }
}

#[test]
fn g1_a_pool_of_n_gets_n_slots_spread_over_the_fleet() {
    let mut world = World::new(3, 4);
    world.open(POOL, of_slots(5));
    world.submit(POOL, 0, 100);
    assert_eq!(world.slots(POOL), 5);
    assert_eq!(
        world.granted(POOL),
        5,
        "nothing ahead before run times are known"
    );
    let each = (0..3).map(|host| world.allot[&(HostId(host), POOL)].0);
    assert_eq!(each.collect::<Vec<_>>(), [2, 2, 1]);
}

#[test]
fn g1_a_slot_that_was_lowered_counts_until_the_agent_confirms() {
    let mut world = World::new(2, 1);
    world.open(POOL, of_slots(1));
    world.submit(POOL, 0, 2);
    let busy = HostId(0);
    assert_eq!(world.allot[&(busy, POOL)].0, 1);
    // An operator takes the host out while its task runs: the other host must wait for the confirmation.
    world.handle(Event::Cordon {
        host: busy,
        on: true,
    });
    assert_eq!(world.allot[&(busy, POOL)].0, 0);
    assert_eq!(world.granted(POOL), 1);
    world.confirm(busy, POOL);
    assert_eq!(world.granted(POOL), 2);
}

#[test]
fn g2_tasks_start_in_the_order_of_their_submission() {
    let mut world = World::new(1, 2);
    world.open(POOL, of_slots(2));
    world.submit(POOL, 0, 6);
    for _ in 0..6 {
        world.report(HostId(0), POOL, Outcome::Done, 1_000_000);
    }
    let order: Vec<u64> = world.results.iter().map(|row| row.index).collect();
    assert_eq!(order, [0, 1, 2, 3, 4, 5]);
}

#[test]
fn g2_tasks_sent_ahead_are_taken_back_for_an_idle_slot() {
    let mut world = World::new(2, 1);
    world.open(POOL, of_slots(2));
    world.submit(POOL, 0, 40);
    // Short tasks: both hosts get some ahead.
    for _ in 0..4 {
        world.report(HostId(0), POOL, Outcome::Done, 500);
        world.report(HostId(1), POOL, Outcome::Done, 500);
    }
    // One host stands still while the other works off all it can get.
    while !world.held[&(HostId(1), POOL)].is_empty() {
        world.report(HostId(1), POOL, Outcome::Done, 500);
    }
    let (host, pool, count, retraction) = world.retractions.pop().expect("a retraction");
    assert_eq!((host, pool), (HostId(0), POOL));
    let held = world.held.get_mut(&(host, pool)).expect("held tasks");
    let keep = held.len() - count as usize;
    assert!(keep >= 1, "the running task cannot be taken back");
    let back = held.split_off(keep);
    let rows = back.iter().map(|row| TaskRow {
        index: row.index,
        attempt: row.attempt,
    });
    let rows = rows.collect();
    let answer = FromAgent::Retracted {
        pool,
        retraction,
        rows,
    };
    world.says(host, 1, answer);
    let moved = world.held[&(HostId(1), POOL)]
        .first()
        .expect("a moved task");
    assert_eq!(moved.attempt, Attempt(2));
}

#[test]
fn g7_what_a_client_that_reads_nothing_is_sent_is_bounded_by_its_window_and_the_slots() {
    let mut world = World::new(1, 2);
    world.open(POOL, of_slots(2));
    world.submit(POOL, 0, 1000);
    let result = Bytes::from(vec![0; 4 << 20]);
    // Short tasks, of which many would be sent ahead if their results were as short.
    while let Some(row) = world.held.get_mut(&(HostId(0), POOL)).and_then(Vec::pop) {
        let (index, attempt) = (row.index, row.attempt);
        let row = ReportRow {
            index,
            attempt,
            outcome: Outcome::Done,
            run_us: 100,
            ..ReportRow::default()
        };
        world.report_with(HostId(0), POOL, row, result.clone());
    }
    let window = usize::try_from(POOL_WINDOW_BYTES).expect("fits memory") / result.len();
    let most = window + 1 + 2;
    let sent = world.results.len();
    assert!((window..=most).contains(&sent), "{sent} results of 4 MiB");
    world.client(FromClient::Consumed {
        pool: POOL,
        tasks: sent as u64,
    });
    assert!(world.granted(POOL) >= 2, "it goes on when they are read");
}

#[test]
fn g3_a_stale_attempt_is_acknowledged_and_dropped() {
    let mut world = World::new(1, 1);
    world.open(POOL, of_slots(1));
    world.submit(POOL, 0, 1);
    world.report_row(HostId(0), POOL, 0, Attempt(9), Outcome::Done, 1);
    assert!(world.results.is_empty());
    world.report(HostId(0), POOL, Outcome::Done, 1);
    world.report_row(HostId(0), POOL, 0, Attempt(1), Outcome::Done, 1);
    assert_eq!(world.results.len(), 1);
}

/// The host says, as its `number`-th piece of output, that an attempt of task 0 has printed something.
fn prints(world: &mut World, session: u64, number: u64, attempt: u32) {
    let row = OutputRow {
        attempt: Attempt(attempt),
        ..OutputRow::default()
    };
    let output = FromAgent::Output {
        pool: POOL,
        number,
        rows: vec![row],
        payloads: [Bytes::from(number.to_string())].into_iter().collect(),
    };
    world.says(HostId(0), session, output);
}

/// What the client was given to print.
fn printed(world: &World) -> Vec<Bytes> {
    let output = world.told.iter().filter_map(|message| match message {
        ToClient::Output { payloads, .. } => Some(payloads.clone().into_items()),
        _ => None,
    });
    output.flatten().collect()
}

#[test]
fn g8_output_that_is_said_again_is_passed_on_once() {
    let mut world = World::new(1, 1);
    world.open(POOL, of_slots(1));
    world.submit(POOL, 0, 1);
    prints(&mut world, 1, 1, 1);
    prints(&mut world, 1, 2, 1);
    assert_eq!(world.output_acked, [1, 2]);
    let held = vec![HeldRow {
        pool: POOL,
        index: 0,
        attempt: Attempt(1),
        state: HeldState::Running,
    }];
    world.rejoin(HostId(0), 2, 1, held);
    prints(&mut world, 2, 2, 1);
    prints(&mut world, 2, 3, 1);
    assert_eq!(printed(&world), ["1", "2", "3"]);
    assert_eq!(world.output_acked, [1, 2, 2, 3]);
}

#[test]
fn g8_another_life_of_an_agent_counts_anew() {
    let mut world = World::new(1, 1);
    world.open(POOL, of_slots(1));
    world.submit(POOL, 0, 1);
    prints(&mut world, 1, 7, 1);
    world.join(HostId(0), 2, 2, 1);
    prints(&mut world, 2, 1, 2);
    assert_eq!(printed(&world), ["7", "1"]);
}

#[test]
fn g8_lines_of_an_attempt_that_is_not_the_current_one_are_dropped_and_acknowledged() {
    let mut world = World::new(1, 1);
    world.open(POOL, of_slots(1));
    world.submit(POOL, 0, 1);
    prints(&mut world, 1, 1, 9);
    assert_eq!(printed(&world), [""; 0]);
    assert_eq!(world.output_acked, [1]);
}

/// With a journal; the one task has printed and ended, of which its client is told.
fn printed_and_ended() -> World {
    let mut world = World {
        core: CoordinatorCore::new(durable(1)),
        ..World::default()
    };
    world.join(HostId(0), 1, 1, 1);
    world.resume();
    world.open(POOL, of_slots(1));
    world.submit(POOL, 0, 1);
    let submitted = 1;
    world.client(FromClient::Close {
        pool: POOL,
        submitted,
    });
    prints(&mut world, 1, 1, 1);
    world.report(HostId(0), POOL, Outcome::Done, 10);
    assert_eq!(world.results.len(), 1);
    world
}

/// The client has all that was printed, and only then its pool ends.
fn hears_output_and_the_end(mut world: World) {
    assert_eq!(world.heard(), ["output 1"]);
    world.client(FromClient::HeardOutput {
        host: HostId(0),
        life: 1,
        number: 1,
    });
    assert_eq!(world.heard(), ["output 1", "ended"]);
}

/// The same, but that the coordinator was killed before any of it came to the client.
fn killed_before_the_client_heard() -> World {
    printed_and_ended().recover()
}

#[test]
fn g8_results_of_a_predecessor_wait_for_the_output_that_comes_before_them() {
    let mut world = killed_before_the_client_heard();
    assert_eq!((world.results.len(), world.heard().len()), (0, 0));
    let registration = Registration {
        slots: 1,
        incarnation: 1,
        output: 1,
        ..Registration::default()
    };
    world.register(HostId(0), 2, registration);
    assert_eq!((world.results.len(), world.heard().len()), (0, 0));
    prints(&mut world, 2, 1, 1);
    assert_eq!(world.results.len(), 1);
    hears_output_and_the_end(world);
}

#[test]
fn g8_results_of_a_predecessor_wait_for_no_output_that_does_not_come() {
    let mut nothing_left = killed_before_the_client_heard();
    nothing_left.rejoin(HostId(0), 2, 1, Vec::new());
    assert_eq!(nothing_left.results.len(), 1);
    let mut lost = killed_before_the_client_heard();
    lost.now = lost.now + Duration::from_secs(60);
    lost.handle(Event::Tick);
    assert_eq!(lost.results.len(), 1);
}

#[test]
fn g8_a_pool_does_not_end_before_its_client_has_all_that_it_printed() {
    hears_output_and_the_end(printed_and_ended());
}

#[test]
fn g5_a_lost_host_costs_a_rerun_only_what_had_started_and_only_after_the_fence() {
    let mut world = World::new(1, 1);
    world.open(POOL, of_slots(1));
    world.submit(POOL, 0, 1);
    let row = StartedRow {
        index: 0,
        attempt: Attempt(1),
        ..StartedRow::default()
    };
    let started = FromAgent::Started {
        pool: POOL,
        rows: vec![row],
    };
    world.says(HostId(0), 1, started);
    world.handle(Event::AgentDisconnected {
        host: HostId(0),
        session: 1,
    });
    world.pass(Duration::from_secs(34));
    world.join(HostId(1), 1, 1, 1);
    assert!(
        !world.held.contains_key(&(HostId(1), POOL)),
        "granted before the fence"
    );
    world.pass(Duration::from_secs(2));
    assert_eq!(world.held[&(HostId(1), POOL)][0].attempt, Attempt(2));
}

#[test]
fn g5_what_may_not_be_rerun_becomes_unknown_in_the_end() {
    let mut world = World::new(1, 1);
    let retries = Retries {
        host_lost: 0,
        ..Retries::default()
    };
    let options = PoolOptions {
        retries,
        ..of_slots(1)
    };
    world.open(POOL, options);
    world.submit(POOL, 0, 1);
    world.handle(Event::AgentDisconnected {
        host: HostId(0),
        session: 1,
    });
    world.pass(Duration::from_mins(5));
    assert!(world.results.is_empty());
    world.pass(Duration::from_hours(2));
    assert_eq!(world.results[0].outcome, Outcome::Unknown);
}

#[test]
fn g5_failures_are_retried_as_often_as_asked() {
    let mut world = World::new(1, 1);
    let retries = Retries {
        failed: 2,
        ..Retries::default()
    };
    let options = PoolOptions {
        retries,
        ..of_slots(1)
    };
    world.open(POOL, options);
    world.submit(POOL, 0, 1);
    for _ in 0..3 {
        world.report(HostId(0), POOL, Outcome::Failed, 1);
    }
    assert_eq!(world.results.len(), 1);
    assert_eq!(world.results[0].attempt, Attempt(3));
}

/// An agent says so that was replaced under a worker which had to end with it.
#[test]
fn g5_what_is_reported_as_lost_with_its_host_is_rerun_as_often_as_asked() {
    let mut world = World::new(1, 1);
    let retries = Retries {
        host_lost: 2,
        ..Retries::default()
    };
    let options = PoolOptions {
        retries,
        ..of_slots(1)
    };
    world.open(POOL, options);
    world.submit(POOL, 0, 1);
    for _ in 0..3 {
        world.report(HostId(0), POOL, Outcome::HostLost, 1);
    }
    assert_eq!(world.results.len(), 1);
    let result = &world.results[0];
    assert_eq!(
        (result.attempt, result.outcome),
        (Attempt(3), Outcome::HostLost)
    );
}

#[test]
fn an_agent_with_a_new_life_has_its_tasks_granted_again_at_once() {
    let mut world = World::new(1, 2);
    world.open(POOL, of_slots(2));
    world.submit(POOL, 0, 2);
    world.held.clear();
    world.join(HostId(0), 2, 99, 2);
    let attempts: Vec<_> = world.held[&(HostId(0), POOL)]
        .iter()
        .map(|row| (row.index, row.attempt))
        .collect();
    assert_eq!(attempts, [(0, Attempt(2)), (1, Attempt(2))]);
}

#[test]
fn two_pools_share_the_fleet_and_the_first_gives_way_task_by_task() {
    let mut world = World::new(2, 4);
    world.open(POOL, PoolOptions::default());
    world.submit(POOL, 0, 100);
    assert_eq!(world.slots(POOL), 8);
    let other = PoolId(2);
    world.open(other, PoolOptions::default());
    world.submit(other, 0, 100);
    assert_eq!((world.slots(POOL), world.slots(other)), (4, 0));
    for host in [HostId(0), HostId(1)] {
        world.report(host, POOL, Outcome::Done, 1_000_000);
        assert_eq!(world.granted(other), usize::from(host == HostId(1)) * 2);
        world.report(host, POOL, Outcome::Done, 1_000_000);
        world.confirm(host, POOL);
    }
    assert_eq!((world.slots(other), world.granted(other)), (4, 4));
}

#[test]
fn g2_tasks_sent_ahead_of_slots_that_are_gone_are_fetched_by_slots_that_are_new() {
    let mut world = World::new(1, 1);
    let host = HostId(0);
    world.open(POOL, of_slots(2));
    world.submit(POOL, 0, 3);
    world.report(host, POOL, Outcome::Done, 100);
    assert_eq!(world.granted(POOL), 2, "short tasks are sent ahead");
    world.join(HostId(1), 1, 1, 1);
    let (_, _, _, retraction) = *world.retractions.last().expect("they are asked for");
    let row = world.held.get_mut(&(host, POOL)).and_then(Vec::pop);
    let row = row.map(|row| TaskRow {
        index: row.index,
        attempt: row.attempt,
    });
    let retracted = FromAgent::Retracted {
        pool: POOL,
        retraction,
        rows: row.into_iter().collect(),
    };
    world.says(host, 1, retracted);
    assert_eq!(world.held[&(HostId(1), POOL)].len(), 1);
}

#[test]
fn an_idle_pools_slots_go_to_the_one_that_wants_them() {
    let mut world = World::new(1, 4);
    world.open(POOL, PoolOptions::default());
    world.submit(POOL, 0, 4);
    for _ in 0..4 {
        world.report(HostId(0), POOL, Outcome::Done, 1_000_000);
    }
    let other = PoolId(2);
    world.open(other, PoolOptions::default());
    world.submit(other, 0, 100);
    assert_eq!(world.slots(other), 4);
}

#[test]
fn a_cancelled_task_that_waits_ends_at_once_and_one_that_runs_is_killed() {
    let mut world = World::new(1, 1);
    world.open(POOL, of_slots(1));
    world.submit(POOL, 0, 3);
    world.client(FromClient::Cancel {
        pool: POOL,
        tasks: vec![2, 0],
    });
    assert_eq!(world.results.len(), 1);
    assert_eq!(world.results[0].outcome, Outcome::Cancelled);
    assert_eq!(world.cancels, [(HostId(0), 0)]);
    world.report(HostId(0), POOL, Outcome::Cancelled, 1);
    world.report(HostId(0), POOL, Outcome::Done, 1);
    world.client(FromClient::Close {
        pool: POOL,
        submitted: 3,
    });
    assert_eq!(world.results.len(), 3);
    assert!(world.told.contains(&ToClient::PoolEnded { pool: POOL }));
}

#[test]
fn g6_a_client_that_is_gone_has_its_tasks_killed_and_its_slots_given_on() {
    let mut world = World::new(1, 2);
    world.open(POOL, PoolOptions::default());
    world.submit(POOL, 0, 10);
    world.handle(Event::ClientGone { client: CLIENT });
    assert_eq!(world.cancels.len(), 2);
    world.report(HostId(0), POOL, Outcome::Cancelled, 1);
    world.report(HostId(0), POOL, Outcome::Cancelled, 1);
    assert_eq!(
        world.core.jobs().len(),
        1,
        "not over before the agent has confirmed"
    );
    world.confirm(HostId(0), POOL);
    assert!(world.core.jobs().is_empty());
}

#[test]
fn g7_a_client_that_is_behind_with_its_results_gets_no_more_tasks_started() {
    let mut world = World::new(1, 1);
    world.open(POOL, of_slots(1));
    world.submit(POOL, 0, 3);
    let row = world
        .held
        .get_mut(&(HostId(0), POOL))
        .expect("a task")
        .remove(0);
    let report = ReportRow {
        index: row.index,
        attempt: row.attempt,
        outcome: Outcome::Done,
        ..ReportRow::default()
    };
    let large = Bytes::from(vec![0; 33 << 20]);
    let message = FromAgent::Reports {
        pool: POOL,
        rows: vec![report],
        payloads: Payloads::from(vec![large]),
    };
    world.says(HostId(0), 1, message);
    assert_eq!(world.granted(POOL), 0);
    world.client(FromClient::Consumed {
        pool: POOL,
        tasks: 1,
    });
    assert_eq!(world.granted(POOL), 1, "a slot's, and none ahead of it");
}

#[test]
fn an_exec_task_runs_on_its_host_even_when_another_pool_has_all_its_slots() {
    let mut world = World::new(2, 1);
    world.open(POOL, PoolOptions::default());
    world.submit(POOL, 0, 10);
    let exec = PoolId(2);
    world.open(exec, PoolOptions::default());
    world.client(FromClient::Submit {
        pool: exec,
        spec: SpecId(0),
        first: 0,
        hosts: vec![HostId(1)],
        payloads: Payloads::from(vec![Bytes::new()]),
    });
    assert_eq!(world.allot[&(HostId(1), POOL)].0, 0);
    assert_eq!(world.granted(exec), 0, "the slot is not free yet");
    world.report(HostId(1), POOL, Outcome::Done, 1);
    world.confirm(HostId(1), POOL);
    assert_eq!(world.allot[&(HostId(1), exec)].0, 1);
    assert_eq!(world.held[&(HostId(1), exec)].len(), 1);
}

#[test]
fn g2_large_arguments_keep_no_slot_waiting() {
    let mut world = World::new(1, 8);
    world.open(POOL, PoolOptions::default());
    let large = usize::try_from(POOL_WINDOW_BYTES).expect("fits memory") / 2;
    for first in [0, 2, 4] {
        world.client(FromClient::Submit {
            pool: POOL,
            spec: SpecId(0),
            first,
            hosts: Vec::new(),
            payloads: Payloads::from(vec![Bytes::from(vec![0; large]); 2]),
        });
        let credit = world.told.iter().filter_map(|message| match message {
            ToClient::Credit { bytes, .. } => Some(*bytes),
            _ => None,
        });
        let submitted = (first + 2) * large as u64;
        assert_eq!(credit.max(), Some(submitted + POOL_WINDOW_BYTES));
    }
    assert_eq!(world.granted(POOL), 6, "and none of them has ended");
}

#[test]
fn g4_what_waits_for_a_host_that_is_lost_ends() {
    let mut world = World::new(2, 1);
    let lost = HostId(1);
    world.open(POOL, of_slots(1));
    world.submit(POOL, 0, 1);
    let submit = |first: u64| FromClient::Submit {
        pool: POOL,
        spec: SpecId(0),
        first,
        hosts: vec![lost],
        payloads: Payloads::from(vec![Bytes::new()]),
    };
    world.client(submit(1));
    world.handle(Event::AgentDisconnected {
        host: lost,
        session: 1,
    });
    assert!(world.results.is_empty(), "it may be back in time");
    world.pass(Duration::from_secs(3600 / 2));
    world.client(submit(2));
    let ended = |row: &ResultRow| (row.index, row.outcome);
    let ended: Vec<_> = world.results.iter().map(ended).collect();
    assert_eq!(ended, [(1, Outcome::NotStarted), (2, Outcome::NotStarted)]);
}

#[test]
fn g11_bad_pools_are_refused_with_the_way_out() {
    let mut world = World::new(1, 1);
    let nothing = PoolOptions {
        on: "web[01-40]".to_owned(),
        ..PoolOptions::default()
    };
    world.open(POOL, nothing);
    world.open(PoolId(2), of_slots(0));
    let kinds: Vec<Refusal> = world
        .told
        .iter()
        .filter_map(|message| match message {
            ToClient::Refused { kind, .. } => Some(*kind),
            _ => None,
        })
        .collect();
    assert_eq!(kinds, [Refusal::NoHostMatches, Refusal::Invalid]);
}

#[test]
fn a_pool_that_fits_no_host_is_refused_with_the_hosts_own_reason() {
    let mut world = World::new(1, 1);
    world.open(POOL, of_slots(1));
    world.submit(POOL, 0, 1);
    let unfit = FromAgent::PoolUnfit {
        pool: POOL,
        reason: "its initializer panicked: no licence".to_owned(),
        rows: Vec::new(),
    };
    world.says(HostId(0), 1, unfit);
    let refused = world.told.iter().any(|message| {
        matches!(message, ToClient::Refused { kind: Refusal::Unfit, reason, .. } if reason.contains("no licence"))
    });
    assert!(refused, "{:?}", world.told);
}
