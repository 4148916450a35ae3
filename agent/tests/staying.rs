//! Workers that stay from task to task, and agents that end before them: others go on with them (G10).

mod common;
mod host;

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::PathBuf,
    time::{Duration, Instant},
};

use bytes::Bytes;
use common::{Boss, End, PROBE, door::DAY, is_alive, kill, parent, parent_if_there, python};
use fleetpool_proto::{
    Outcome, SpecId,
    message::HeldState,
    pool::{Initializer, PoolOptions, Retries, Runtime, Spec},
};
use host::{Host, all_gone, outlives};
use nix::sys::signal::Signal;

/// A pool of the probe as workers.
fn native(host_lost: u32) -> PoolOptions {
    PoolOptions {
        runtime: Runtime::Native {
            program: PROBE,
            size: 0,
        },
        retries: Retries {
            host_lost,
            ..Retries::default()
        },
        kill_grace_ms: 100,
        ..PoolOptions::default()
    }
}

const FUNCTION: SpecId = SpecId(2);

/// Tasks, and the coordinator's part: what nobody holds is granted again, what has ended is acknowledged.
struct Work {
    spec: SpecId,
    body: Spec,
    tasks: BTreeMap<u64, Bytes>,
    done: BTreeMap<u64, End>,
    /// What every worker begins with, where that is content.
    context: Option<Bytes>,
}

impl Work {
    fn native(name: &str) -> Self {
        let body = Spec {
            function: name.into(),
            ..Spec::default()
        };
        Self::new(FUNCTION, body)
    }

    /// Expressions, in a pool with that context.
    fn python(context: &Bytes) -> Self {
        let body = Spec {
            function: "eval".to_owned(),
            code: python::function(),
            ..Spec::default()
        };
        Self {
            context: Some(context.clone()),
            ..Self::new(FUNCTION, body)
        }
    }

    fn new(spec: SpecId, body: Spec) -> Self {
        Self {
            spec,
            body,
            tasks: BTreeMap::new(),
            done: BTreeMap::new(),
            context: None,
        }
    }

    async fn begin(&mut self, boss: &mut Boss, tasks: impl IntoIterator<Item = (u64, Bytes)>) {
        let tasks: BTreeMap<u64, Bytes> = tasks.into_iter().collect();
        self.tasks.extend(tasks.clone());
        boss.define(self.spec, self.body.clone()).await;
        boss.grant_raw(self.spec, tasks).await;
    }

    /// Until so many tasks have ended.
    async fn until(&mut self, boss: &mut Boss, count: usize) {
        while self.done.len() < count {
            let about = Instant::now();
            boss.until("a moment", |boss| {
                let news = !boss.ends.is_empty() || !boss.retracted.is_empty();
                (news || about.elapsed() > Duration::from_millis(5)).then_some(())
            })
            .await;
            self.look(boss).await;
        }
    }

    async fn look(&mut self, boss: &mut Boss) {
        if let Some(context) = self.context.as_ref().filter(|_| !boss.wanted.is_empty()) {
            python::bring(boss, context).await;
        }
        let ended: Vec<u64> = boss.ends.keys().copied().collect();
        boss.acknowledge_ends(&ended).await;
        for (index, end) in std::mem::take(&mut boss.ends) {
            // An agent that was killed may not have heard that it was acknowledged.
            let row = end.row.clone();
            let before = self.done.insert(index, end);
            assert!(
                before.is_none_or(|before| before.row == row),
                "{index} has ended twice"
            );
        }
        let back = std::mem::take(&mut boss.retracted);
        self.grant(boss, back).await;
    }

    /// After another agent has come.
    async fn go_on(&mut self, boss: &mut Boss, slots: u16) {
        let held: BTreeSet<u64> = boss
            .holds()
            .await
            .into_iter()
            .map(|(index, _)| index)
            .collect();
        boss.define(self.spec, self.body.clone()).await;
        boss.allot(slots).await;
        let lost = self.tasks.keys().filter(|index| !held.contains(index));
        let lost: Vec<u64> = lost.copied().collect();
        self.grant(boss, lost).await;
    }

    async fn grant(&self, boss: &mut Boss, indexes: Vec<u64>) {
        let open = indexes
            .into_iter()
            .filter(|index| !self.done.contains_key(index));
        let again: Vec<_> = open
            .map(|index| (index, self.tasks[&index].clone()))
            .collect();
        boss.grant_raw(self.spec, again).await;
    }
}

/// The process between a worker and its agent.
fn relay(host: &Host) -> i32 {
    let spawner = i32::try_from(host.spawner.0.id()).unwrap();
    let all = fs::read_dir("/proc").unwrap().filter_map(|entry| {
        let pid: i32 = entry.ok()?.file_name().to_str()?.parse().ok()?;
        let name = fs::read_to_string(format!("/proc/{pid}/comm")).ok()?;
        (name.trim() == "fleetpool-relay" && parent_if_there(pid) == Some(spawner)).then_some(pid)
    });
    let all: Vec<i32> = all.collect();
    assert_eq!(all.len(), 1, "{all:?}");
    all[0]
}

fn lines(file: &PathBuf) -> Vec<u64> {
    let text = fs::read_to_string(file).unwrap_or_default();
    text.lines().map(|line| line.parse().unwrap()).collect()
}

fn each_once(mut ran: Vec<u64>, count: u64) {
    ran.sort_unstable();
    assert_eq!(ran, (0..count).collect::<Vec<_>>(), "each runs once");
}

/// One task that runs until it is killed.
async fn one_that_runs(host: &mut Host) -> (Work, i32) {
    let mut work = Work::native("note");
    let ran = host.file("ran");
    let argument = format!("1000000 {}", ran.display());
    work.begin(&mut host.boss, [(0, argument.into())]).await;
    let started = host
        .boss
        .until("it runs", |boss| boss.started.get(&0).cloned())
        .await;
    (work, started.pid.try_into().unwrap())
}

#[tokio::test]
async fn g10_native_workers_go_on_under_an_agent_that_is_killed_again_and_again() {
    const SLOTS: u16 = 4;
    const TASKS: u64 = 240;
    let mut host = Host::new(SLOTS, native(0)).await;
    let ran = host.file("ran");
    let mut work = Work::native("note");
    let argument = |index: u64| Bytes::from(format!("{} {}", 1 + index % 25, ran.display()));
    work.begin(
        &mut host.boss,
        (0..TASKS).map(|index| (index, argument(index))),
    )
    .await;
    for part in 1..=6 {
        // It has come, and nobody says so before the agent is killed.
        host.boss.acknowledges = part % 2 == 0;
        work.until(&mut host.boss, part * 30).await;
        host.end_agent(Signal::SIGKILL);
        host.next_agent().await;
        work.go_on(&mut host.boss, SLOTS).await;
    }
    host.boss.acknowledges = true;
    work.until(&mut host.boss, TASKS.try_into().unwrap()).await;
    each_once(lines(&ran), TASKS);
    let pids: BTreeSet<&Bytes> = work.done.values().map(|end| &end.payload).collect();
    assert_eq!(pids.len(), usize::from(SLOTS), "they are the first workers");
    for (index, end) in &work.done {
        assert_eq!(end.outcome(), Outcome::Done);
        assert_eq!(host.boss.stdout(*index), format!("task {index} is done\n"));
    }
    assert!(host.boss.heard_again > 0, "nothing was said again");
}

#[tokio::test]
async fn g10_python_workers_go_on_under_an_agent_that_is_killed_again_and_again() {
    const SLOTS: u16 = 3;
    const TASKS: u64 = 400;
    let context = python::context();
    let mut host = Host::new(SLOTS, python::pool("python3", &context)).await;
    let ran = host.file("ran");
    let mut work = Work::python(&context);
    // Most are so short that their results wait to be sent together, and several are in hand.
    let expression = |index: u64| {
        let nap = if index.is_multiple_of(20) { 0.05 } else { 0.0 };
        format!(
            "[print({index}), open('{}', 'a').write('{index}\\n'), __import__('time').sleep({nap})]",
            ran.display()
        )
    };
    work.begin(
        &mut host.boss,
        (0..TASKS).map(|index| (index, python::task(&expression(index)))),
    )
    .await;
    let mut pids = BTreeSet::new();
    for part in 1..=5 {
        work.until(&mut host.boss, part * 60).await;
        host.end_agent(Signal::SIGKILL);
        host.next_agent().await;
        work.go_on(&mut host.boss, SLOTS).await;
    }
    work.until(&mut host.boss, TASKS.try_into().unwrap()).await;
    each_once(lines(&ran), TASKS);
    for (index, end) in &work.done {
        assert_eq!(end.outcome(), Outcome::Done, "{:?}", end.payload);
        assert_eq!(host.boss.stdout(*index), format!("{index}\n"));
        pids.insert(end.row.pid);
    }
    assert_eq!(pids.len(), usize::from(SLOTS), "they are the first workers");
}

#[tokio::test]
async fn g10_what_a_worker_ends_and_prints_while_no_agent_is_there_is_told_to_the_next() {
    let mut host = Host::new(1, native(0)).await;
    let ran = host.file("ran");
    let mut work = Work::native("note");
    let argument = format!("200 {}", ran.display());
    work.begin(&mut host.boss, [(0, argument.into())]).await;
    host.boss
        .until("it runs", |boss| boss.started.get(&0).cloned())
        .await;
    host.end_agent(Signal::SIGTERM);
    let over = host.file("ran.over");
    while lines(&over).is_empty() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    host.next_agent().await;
    assert_eq!(host.boss.end(0).await.outcome(), Outcome::Done);
    assert_eq!(host.boss.stdout(0), "task 0 is done\n");
    assert_eq!(lines(&ran), [0]);
}

/// One that is in its initializer is waited for by the next agent, too.
#[tokio::test]
async fn g10_a_worker_that_is_not_ready_gets_ready_for_the_next_agent() {
    let folder = tempfile::tempdir().unwrap();
    let begun = folder.path().join("begun");
    let argument = begun.display().to_string();
    let pool = PoolOptions {
        initializer: Some(Initializer {
            function: "dawdle".into(),
            argument: argument.clone().into(),
        }),
        ..native(0)
    };
    let mut host = Host::new(1, pool).await;
    let mut work = Work::native("pid");
    work.begin(&mut host.boss, [(0, Bytes::new())]).await;
    host.boss
        .until_true("it is in its initializer", || begun.exists())
        .await;
    for _ in 0..2 {
        host.end_agent(Signal::SIGKILL);
        host.next_agent().await;
        work.go_on(&mut host.boss, 1).await;
    }
    fs::write(format!("{argument}.go"), "").unwrap();
    work.until(&mut host.boss, 1).await;
    assert_eq!(work.done[&0].outcome(), Outcome::Done);
    assert_eq!(lines(&begun), [0], "it is the first one");
}

/// `maxtasksperchild` counts a worker's life, not its agents'.
#[tokio::test]
async fn a_worker_runs_no_more_tasks_than_it_may_whoever_its_agent_is() {
    let pool = PoolOptions {
        tasks_per_worker_max: 4,
        ..native(0)
    };
    let mut host = Host::new(1, pool).await;
    let mut work = Work::native("pid");
    for round in 0..4 {
        let first = round * 3;
        work.begin(
            &mut host.boss,
            (first..first + 3).map(|index| (index, Bytes::new())),
        )
        .await;
        work.until(&mut host.boss, usize::try_from(first).unwrap() + 3)
            .await;
        host.end_agent(Signal::SIGKILL);
        host.next_agent().await;
        work.go_on(&mut host.boss, 1).await;
    }
    let mut counts = BTreeMap::new();
    for end in work.done.values() {
        *counts.entry(end.payload.clone()).or_insert(0) += 1;
    }
    assert_eq!(counts.into_values().collect::<Vec<_>>(), [4, 4, 4]);
}

#[tokio::test]
async fn g5_what_a_killed_relay_had_in_hand_is_lost_and_gone_before_it_is_told() {
    for (host_lost, outcome) in [(3, Outcome::HostLost), (0, Outcome::Unknown)] {
        let mut host = Host::new(1, native(host_lost)).await;
        let (_, pid) = one_that_runs(&mut host).await;
        // It has had another agent, too.
        host.end_agent(Signal::SIGKILL);
        host.next_agent().await;
        assert_eq!(host.boss.holds().await, [(0, HeldState::Running)]);
        kill(relay(&host), Signal::SIGKILL);
        let end = host.boss.end(0).await;
        assert!(!is_alive(pid), "it is gone before it is told");
        assert_eq!(end.outcome(), outcome);
        assert!(end.loss().message.contains("relay"), "{:?}", end.loss());
    }
}

/// A Python worker that runs a task listens to nobody. Its keeper is told.
#[tokio::test]
async fn g6_a_python_worker_ends_with_its_relay_whether_its_template_is_there_or_not() {
    for has_template in [true, false] {
        let context = python::context();
        let mut host = Host::new(1, python::pool("python3", &context)).await;
        let mut work = Work::python(&context);
        let nap = python::task("__import__('time').sleep(1000)");
        work.begin(&mut host.boss, [(0, nap)]).await;
        python::bring(&mut host.boss, &context).await;
        let started = host
            .boss
            .until("it runs", |boss| boss.started.get(&0).cloned())
            .await;
        let pid = started.pid.try_into().unwrap();
        if !has_template {
            host.end_agent(Signal::SIGKILL);
            host.next_agent().await;
            assert_eq!(host.boss.holds().await, [(0, HeldState::Running)]);
        }
        kill(relay(&host), Signal::SIGKILL);
        let end = host.boss.end(0).await;
        assert!(!is_alive(pid), "it is gone before it is told");
        assert_eq!(end.outcome(), Outcome::HostLost);
    }
}

/// What a worker has in hand and has not begun is not begun when its keeper has been killed: it runs elsewhere.
#[tokio::test]
async fn g3_a_python_worker_whose_keeper_is_killed_begins_nothing_more() {
    const QUICK: u64 = 200;
    let context = python::context();
    let mut host = Host::new(1, python::pool("python3", &context)).await;
    let ran = host.file("ran");
    let mut work = Work::python(&context);
    let over = host.file("over");
    let expression = |index: u64| {
        let long = format!(
            ", __import__('time').sleep(1.2), open('{}', 'w').close()",
            over.display()
        );
        let long = if index == QUICK { long } else { String::new() };
        format!("[open('{}', 'a').write('{index}\\n'){long}]", ran.display())
    };
    let tasks = (0..QUICK + 40).map(|index| (index, python::task(&expression(index))));
    work.begin(&mut host.boss, tasks).await;
    work.until(&mut host.boss, QUICK.try_into().unwrap()).await;
    let pid = work.done[&0].row.pid.try_into().unwrap();
    // The relay can tell nobody, and ends late.
    let agent = host.agent.0.id().try_into().unwrap();
    kill(agent, Signal::SIGSTOP);
    kill(parent(pid), Signal::SIGKILL);
    while !over.exists() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    kill(agent, Signal::SIGCONT);
    work.until(&mut host.boss, work.tasks.len()).await;
    each_once(lines(&ran), QUICK + 40);
    for (index, end) in &work.done {
        let expected = match *index {
            QUICK => Outcome::WorkerLost,
            _ => Outcome::Done,
        };
        assert_eq!(end.outcome(), expected, "{index}");
    }
    assert!(!is_alive(pid));
}

#[tokio::test]
async fn g10_a_result_is_not_lost_with_its_worker_before_it_is_written_down() {
    let mut host = Host::new(1, native(0)).await;
    let go = host.file("go");
    let mut work = Work::native("farewell");
    let argument = go.display().to_string();
    work.begin(&mut host.boss, [(0, argument.into())]).await;
    let started = host
        .boss
        .until("it runs", |boss| boss.started.get(&0).cloned())
        .await;
    let keeper = parent(started.pid.try_into().unwrap());
    // The worker tells its result and dies; and so does its agent, which has read nothing of it.
    kill(host.agent.0.id().try_into().unwrap(), Signal::SIGSTOP);
    fs::write(go, "").unwrap();
    host.boss.until_gone(keeper).await;
    host.end_agent(Signal::SIGKILL);
    host.next_agent().await;
    assert_eq!(host.boss.end(0).await.outcome(), Outcome::Done);
    assert_eq!(host.boss.stdout(0), "farewell\n");
}

#[tokio::test]
async fn g10_a_relay_that_is_killed_while_no_agent_is_there_costs_what_it_had_in_hand() {
    let mut host = Host::new(1, native(3)).await;
    let (mut work, pid) = one_that_runs(&mut host).await;
    host.end_agent(Signal::SIGKILL);
    kill(relay(&host), Signal::SIGKILL);
    host.next_agent().await;
    assert!(!is_alive(pid), "it is gone before another agent begins");
    work.until(&mut host.boss, 1).await;
    assert_eq!(work.done[&0].outcome(), Outcome::HostLost);
}

#[tokio::test]
async fn a_killed_worker_is_told_by_whoever_is_there() {
    for is_there in [true, false] {
        let mut host = Host::new(1, native(0)).await;
        let (_, pid) = one_that_runs(&mut host).await;
        if is_there {
            kill(pid, Signal::SIGKILL);
        } else {
            host.end_agent(Signal::SIGKILL);
            kill(pid, Signal::SIGKILL);
            host.boss.until_gone(pid).await;
            host.next_agent().await;
        }
        let end = host.boss.end(0).await;
        assert_eq!(end.outcome(), Outcome::WorkerLost);
        assert_eq!(end.loss().signal, Some(9));
    }
}

#[tokio::test]
async fn g6_no_worker_is_left_when_no_agent_comes_back_or_the_spawner_ends() {
    let bound = Duration::from_millis(700);
    let mut host = Host::with(1, native(0), DAY, bound).await;
    let (_, pid) = one_that_runs(&mut host).await;
    host.end_agent(Signal::SIGKILL);
    let ended = Instant::now();
    assert!(is_alive(pid));
    all_gone(&[pid], ended + bound);
    host.next_agent().await;
    assert_eq!(host.boss.holds().await, []);

    for signal in [Signal::SIGKILL, Signal::SIGTERM] {
        let mut host = Host::new(1, native(0)).await;
        let (_, pid) = one_that_runs(&mut host).await;
        let relay = relay(&host);
        host.end_agent(Signal::SIGKILL);
        host.spawner.end(signal);
        all_gone(&[pid, relay], Instant::now());
    }
}

/// G1: what may run again elsewhere ends with the lease, whether an agent is there or not.
#[tokio::test]
async fn g1_workers_without_an_agent_end_with_its_lease() {
    let lease = Duration::from_millis(800);
    for (host_lost, survives) in [(3, false), (0, true)] {
        let pool = native(host_lost);
        let mut host = Host::with(1, pool, lease, Duration::from_secs(300)).await;
        let (_, pid) = one_that_runs(&mut host).await;
        host.end_agent(Signal::SIGKILL);
        assert_eq!(outlives(pid, lease), survives);
        host.next_agent().await;
        let held: &[_] = if survives {
            &[(0, HeldState::Running)]
        } else {
            &[]
        };
        assert_eq!(host.boss.holds().await, held);
    }
}

#[tokio::test]
async fn workers_that_are_cancelled_are_ended_by_another_agent() {
    let mut host = Host::new(1, native(0)).await;
    let (work, pid) = one_that_runs(&mut host).await;
    host.end_agent(Signal::SIGKILL);
    host.next_agent().await;
    assert_eq!(host.boss.holds().await, [(0, HeldState::Running)]);
    host.boss.cancel(0).await;
    let end = host.boss.end(0).await;
    assert_eq!(end.outcome(), Outcome::Cancelled);
    assert!(!is_alive(pid));
    // And another one runs what comes next.
    let mut next = Work::native("pid");
    next.spec = SpecId(3);
    host.boss.allot(1).await;
    next.begin(&mut host.boss, [(7, Bytes::new())]).await;
    host.boss.end(7).await;
    drop(work);
}
