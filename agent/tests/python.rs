//! Python workers, with the host's `python3`: every task here is an expression for `eval`.

mod common;

use std::{collections::BTreeSet, fs, process::Command};

use bytes::Bytes;
use common::{
    Boss, POOL, SPEC, options, parent,
    python::{bring, context, context_with, function, hash_of, pool, task},
};
use fleetpool_agent::{Options, TaskLimits};
use fleetpool_proto::{Outcome, SpecId, message::ToAgent, pool::Spec};
use nix::{sys::signal::Signal, unistd::Pid};

async fn boss(slots: u16) -> Boss {
    boss_with(slots, &context(), Spec::default()).await
}

async fn boss_with(slots: u16, context: &Bytes, spec: Spec) -> Boss {
    boss_of(options(slots), context, spec).await
}

async fn boss_of(options: Options, context: &Bytes, spec: Spec) -> Boss {
    let spec = Spec {
        function: "eval".to_owned(),
        code: function(),
        ..spec
    };
    let mut boss = Boss::with(options, pool("python3", context), spec).await;
    bring(&mut boss, context).await;
    boss
}

/// A module named `counted`, which its function needs. Each import of it leaves a line with the process's id.
struct Module {
    folder: tempfile::TempDir,
}

impl Module {
    fn new(program: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("log");
        let program = format!(
            "import os\nPID = os.getpid()\nwith open({log:?}, 'a') as log:\n    log.write(f'{{PID}}\\n')\n{program}\n"
        );
        fs::write(folder.path().join("counted.py"), program).unwrap();
        Self { folder }
    }

    async fn boss(&self, slots: u16) -> Boss {
        let context = context_with(self.folder.path().to_str().unwrap());
        let spec = Spec {
            modules: vec!["counted".to_owned()],
            ..Spec::default()
        };
        boss_with(slots, &context, spec).await
    }

    /// The processes that have imported it.
    fn imported(&self) -> Vec<i32> {
        let log = fs::read_to_string(self.folder.path().join("log")).unwrap_or_default();
        log.lines().map(|pid| pid.parse().unwrap()).collect()
    }
}

/// What a task that told a number told.
fn number(boss: &Boss, index: u64) -> i32 {
    let end = &boss.ends[&index];
    assert_eq!(end.outcome(), Outcome::Done, "task {index}");
    let program = "import pickle, sys; print(pickle.loads(bytes.fromhex(sys.argv[1])))";
    let hex: String = end
        .payload
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    let run = Command::new("python3").args(["-c", program, &hex]).output();
    let printed = String::from_utf8(run.unwrap().stdout).unwrap();
    printed.trim().parse().expect("a number")
}

fn kill(pid: i32) {
    nix::sys::signal::kill(Pid::from_raw(pid), Signal::SIGKILL).unwrap();
}

async fn ends(boss: &mut Boss, count: u64) {
    boss.until("all ends", |boss| {
        (boss.ends.len() as u64 == count).then_some(())
    })
    .await;
}

#[tokio::test]
async fn results_come_back_from_workers_that_stay() {
    let mut boss = boss(2).await;
    let pid = task("__import__('os').getpid()");
    boss.grant_raw(SPEC, (0..500).map(|index| (index, pid.clone())))
        .await;
    ends(&mut boss, 500).await;
    let pids: BTreeSet<_> = boss.ends.values().map(|end| end.row.pid).collect();
    let results: BTreeSet<_> = boss.ends.values().map(|end| end.payload.clone()).collect();
    assert!(pids.len() <= 2 && results.len() == pids.len(), "{pids:?}");
}

#[tokio::test]
async fn g2_one_long_task_delays_nobody_behind_it() {
    let mut boss = boss(2).await;
    let (short, long) = (task("1"), task("__import__('time').sleep(5)"));
    // Short ones first, so that many are handed at a time.
    boss.grant_raw(SPEC, (0..300).map(|index| (index, short.clone())))
        .await;
    ends(&mut boss, 300).await;
    let mixed = (300..600).map(|index| match index {
        310 => (index, long.clone()),
        _ => (index, short.clone()),
    });
    boss.grant_raw(SPEC, mixed).await;
    ends(&mut boss, 599).await;
    assert!(!boss.ends.contains_key(&310), "those behind it came first");
}

#[tokio::test]
async fn a_killed_worker_costs_the_task_that_it_ran_and_no_other() {
    let mut boss = boss(1).await;
    let short = task("'x' * 10");
    boss.grant_raw(SPEC, (0..300).map(|index| (index, short.clone())))
        .await;
    ends(&mut boss, 300).await;
    let fatal = task("__import__('os').kill(__import__('os').getpid(), 9)");
    let mixed = (300..900).map(|index| match index {
        450 | 700 => (index, fatal.clone()),
        _ => (index, short.clone()),
    });
    boss.grant_raw(SPEC, mixed).await;
    ends(&mut boss, 900).await;
    let lost: Vec<_> = boss
        .ends
        .iter()
        .filter(|(_, end)| end.outcome() != Outcome::Done)
        .map(|(index, end)| (*index, end.outcome(), end.loss().signal))
        .collect();
    let killed = |index| (index, Outcome::WorkerLost, Some(9));
    assert_eq!(lost, [killed(450), killed(700)]);
}

#[tokio::test]
async fn a_function_that_is_large_is_asked_for_once_and_then_known() {
    let context = context();
    let code = function();
    let spec = Spec {
        content: Some(hash_of(&code)),
        ..Spec::default()
    };
    let mut boss = Boss::with(options(1), pool("python3", &context), spec.clone()).await;
    boss.grant_raw(SPEC, [(0, task("40 + 2"))]).await;
    bring(&mut boss, &context).await;
    bring(&mut boss, &code).await;
    ends(&mut boss, 1).await;
    assert_eq!(boss.ends[&0].outcome(), Outcome::Done);
    boss.define(SpecId(2), spec).await;
    boss.grant_raw(SpecId(2), [(1, task("1"))]).await;
    ends(&mut boss, 2).await;
    assert!(boss.wanted.is_empty(), "it is here");
}

#[tokio::test]
async fn what_a_task_and_its_children_print_is_told_with_it() {
    let mut boss = boss(1).await;
    let tasks = (0..40).map(|index| match index % 4 {
        0 => (index, task(&format!("print('task {index}')"))),
        1 => (
            index,
            task(&format!("__import__('os').write(1, b'task {index}\\n')")),
        ),
        2 => (
            index,
            task(&format!("__import__('os').system('echo task {index}')")),
        ),
        _ => (index, task("None")),
    });
    boss.grant_raw(SPEC, tasks).await;
    ends(&mut boss, 40).await;
    for index in 0..40 {
        let wanted = match index % 4 {
            3 => String::new(),
            _ => format!("task {index}\n"),
        };
        assert_eq!(boss.stdout(index), wanted, "task {index}");
    }
}

#[tokio::test]
async fn g11_a_host_without_the_interpreter_says_so() {
    let context = context();
    let spec = Spec::default();
    let mut boss = Boss::with(options(1), pool("python3.999", &context), spec).await;
    bring(&mut boss, &context).await;
    boss.grant_raw(SPEC, [(0, task("1"))]).await;
    let unfit = boss.until("its refusal", |boss| boss.unfit.clone()).await;
    assert!(unfit.contains("python3.999"), "{unfit}");
}

#[tokio::test]
async fn g6_what_a_task_started_ends_with_it() {
    let mut boss = boss(1).await;
    let start = "print(__import__('subprocess').Popen(['sleep', '1000'], start_new_session=True).pid, flush=True) or __import__('time').sleep(1000)";
    boss.grant_raw(SPEC, [(0, task(start))]).await;
    let pid = boss
        .until("the child's pid", |boss| {
            boss.stdout(0).trim().parse::<i32>().ok()
        })
        .await;
    boss.cancel(0).await;
    ends(&mut boss, 1).await;
    boss.until_gone(pid).await;
}

/// The id of the process that imported the module; in a worker, its template.
const IMPORTER: &str = "__import__('counted').PID";

#[tokio::test]
async fn modules_are_imported_once_for_all_workers_of_a_pool() {
    let module = Module::new("");
    let mut boss = module.boss(3).await;
    boss.grant_raw(SPEC, (0..30).map(|index| (index, task(IMPORTER))))
        .await;
    ends(&mut boss, 30).await;
    let [template] = module.imported()[..] else {
        panic!("imported by {:?}", module.imported());
    };
    assert_eq!(number(&boss, 0), template);
    let results: BTreeSet<_> = boss.ends.values().map(|end| &end.payload).collect();
    assert_eq!(results.len(), 1, "the same for all");
    assert!(
        boss.ends
            .values()
            .all(|end| end.row.pid != template.unsigned_abs())
    );
}

#[tokio::test]
async fn a_pool_whose_template_is_killed_goes_on() {
    let module = Module::new("");
    let mut boss = module.boss(1).await;
    boss.grant_raw(SPEC, [(0, task(IMPORTER))]).await;
    ends(&mut boss, 1).await;
    let template = number(&boss, 0);
    kill(template);
    boss.until_gone(template).await;
    boss.grant_raw(
        SPEC,
        [
            (1, task("1")),
            (2, task("__import__('os')._exit(1)")),
            (3, task(IMPORTER)),
        ],
    )
    .await;
    ends(&mut boss, 4).await;
    assert_eq!(number(&boss, 1), 1, "its worker lives");
    assert_eq!(boss.ends[&2].outcome(), Outcome::WorkerLost);
    let worker = boss.ends[&3].row.pid;
    assert_eq!(
        number(&boss, 3).unsigned_abs(),
        worker,
        "what may have killed one is not imported in the next"
    );
}

#[tokio::test]
async fn a_module_that_starts_a_thread_is_left_to_the_workers() {
    let module = Module::new(
        "import threading\nthreading.Thread(target=threading.Event().wait, daemon=True).start()",
    );
    let mut boss = module.boss(2).await;
    boss.grant_raw(SPEC, (0..10).map(|index| (index, task(IMPORTER))))
        .await;
    ends(&mut boss, 10).await;
    assert!(
        boss.ends
            .iter()
            .all(|(index, end)| number(&boss, *index).unsigned_abs() == end.row.pid)
    );
}

#[tokio::test]
async fn g6_a_module_whose_import_hangs_ends_with_its_pool() {
    let module = Module::new("import time\ntime.sleep(1000)");
    let mut boss = module.boss(1).await;
    boss.grant_raw(SPEC, [(0, task("1"))]).await;
    boss.until_true("its import", || !module.imported().is_empty())
        .await;
    boss.cancel(0).await;
    ends(&mut boss, 1).await;
    assert_eq!(boss.ends[&0].outcome(), Outcome::Cancelled);
    boss.say(ToAgent::ClosePool { pool: POOL }).await;
    boss.until_gone(module.imported()[0]).await;
}

#[tokio::test]
async fn g6_what_a_task_started_ends_with_its_keeper_too() {
    let mut boss = boss(1).await;
    let start = "print(__import__('subprocess').Popen(['sleep', '1000'], start_new_session=True).pid, \
                 __import__('os').getppid(), flush=True) or __import__('time').sleep(1000)";
    boss.grant_raw(SPEC, [(0, task(start)), (1, task("1"))])
        .await;
    let (child, keeper) = boss
        .until("what it started", |boss| {
            let printed = boss.stdout(0);
            let (child, keeper) = printed.trim().split_once(' ')?;
            Some((child.parse().ok()?, keeper.parse().ok()?))
        })
        .await;
    kill(keeper);
    ends(&mut boss, 2).await;
    assert_eq!(boss.ends[&0].outcome(), Outcome::WorkerLost);
    assert_eq!(number(&boss, 1), 1, "the pool goes on");
    boss.until_gone(child).await;
}

#[tokio::test]
async fn g12_a_function_of_another_version_of_python_is_refused_by_name() {
    let spec = Spec {
        python: Some((3, 99)),
        ..Spec::default()
    };
    let mut boss = boss_with(1, &context(), spec).await;
    boss.grant_raw(SPEC, [(0, task("1"))]).await;
    let unfit = boss.until("its refusal", |boss| boss.unfit.clone()).await;
    assert!(
        unfit.contains("`eval` was pickled by value under 3.99"),
        "{unfit}"
    );
}

/// Root alone may make cgroups here, and only where they are the kernel's first interface.
fn may_make_cgroups() -> bool {
    let test = format!(
        "/sys/fs/cgroup/pids/test-of-fleetpool-{}",
        std::process::id()
    );
    let made = fs::create_dir(&test).is_ok();
    // Nobody can be in it.
    fs::remove_dir(&test).ok();
    made
}

#[tokio::test]
async fn g5_workers_of_a_template_are_held_each_by_itself() {
    if !may_make_cgroups() {
        eprintln!("not tested: no cgroup can be made here");
        return;
    }
    let options = Options {
        limits: Some(TaskLimits {
            pids: Some(50),
            memory: Some(256 << 20),
        }),
        ..options(2)
    };
    let spec = Spec::default();
    let mut boss = boss_of(options, &context(), spec).await;
    // Both at once, so that each has a worker of its own.
    let own = "print(open('/proc/self/cgroup').read()) or __import__('time').sleep(.3) or __import__('os').getpid()";
    boss.grant_raw(SPEC, [(0, task(own)), (1, task(own))]).await;
    ends(&mut boss, 2).await;
    let pids = [0, 1].map(|index| number(&boss, index));
    assert_ne!(pids[0], pids[1]);
    let cgroups: BTreeSet<String> = [0, 1]
        .iter()
        .flat_map(|&index| {
            boss.stdout(index)
                .lines()
                .map(str::to_owned)
                .collect::<Vec<_>>()
        })
        .filter(|line| line.contains("fleetpool-"))
        .collect();
    assert_eq!(
        cgroups.len(),
        4,
        "two workers, two hierarchies: {cgroups:?}"
    );
    // The template is in neither.
    let template = parent(parent(pids[0]));
    let theirs = fs::read_to_string(format!("/proc/{template}/cgroup")).unwrap();
    assert!(theirs.contains("fleetpool-"), "{theirs}");
    assert!(
        !theirs.lines().any(|line| cgroups.contains(line)),
        "{theirs}"
    );

    boss.grant_raw(
        SPEC,
        [
            (2, task("int('FLEETPOOL_LEAF' in __import__('os').environ)")),
            (3, task("len(b'x' * 2_000_000_000)")),
        ],
    )
    .await;
    ends(&mut boss, 4).await;
    assert_eq!(
        number(&boss, 2),
        0,
        "nobody is told of its keeper's affairs"
    );
    assert_eq!(boss.ends[&3].outcome(), Outcome::OutOfMemory);
    boss.grant_raw(SPEC, [(4, task(own)), (5, task(own))]).await;
    ends(&mut boss, 6).await;
    let after = [4, 5].map(|index| number(&boss, index));
    let same = after.iter().filter(|pid| pids.contains(pid)).count();
    assert_eq!(same, 1, "one was killed, its neighbour was not");
}
