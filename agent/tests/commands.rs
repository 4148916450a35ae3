//! Commands, run for real: what they get, how they end, and what is said of those that cannot begin.

mod common;

use std::{fs, os::unix::fs::PermissionsExt as _, path::Path};

use common::{Boss, SPEC, options};
use fleetpool_proto::{
    Outcome, SpecId,
    command::{CommandTask, Piece, Word},
    frame::encode_header,
    pool::{PoolOptions, Spec},
};
use serde_bytes::ByteBuf;

fn var(name: &str, value: &str) -> (String, Option<String>) {
    (name.to_owned(), Some(value.to_owned()))
}

fn script(folder: &Path, name: &str, text: &str, mode: u32) -> String {
    let path = folder.join(name);
    fs::write(&path, text).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
    path.to_str().unwrap().to_owned()
}

#[tokio::test]
async fn a_command_that_succeeds() {
    let mut boss = Boss::new(1).await;
    let end = boss.run_sh(0, "echo out; echo err >&2").await;
    assert_eq!(end.outcome(), Outcome::Done);
    assert_eq!(end.command().exit, Some(0));
    assert_eq!(
        (boss.stdout(0).as_str(), boss.stderr(0).as_str()),
        ("out\n", "err\n")
    );
    assert!(end.row.pid > 0 && end.row.started_us > 1_600_000_000_000_000 && end.row.run_us > 0);
    assert!(end.command().memory_kib_peak > 100);
}

#[tokio::test]
async fn exit_statuses_and_signals_are_failures() {
    let mut boss = Boss::new(2).await;
    let end = boss.run_sh(0, "exit 7").await;
    assert_eq!(
        (end.outcome(), end.command().exit),
        (Outcome::Failed, Some(7))
    );
    let end = boss.run_sh(1, "kill -TERM $$").await;
    assert_eq!(
        (end.outcome(), end.command().signal),
        (Outcome::Failed, Some(15))
    );
    let end = boss.run_sh(2, "kill -KILL $$").await;
    assert_eq!(
        (end.outcome(), end.command().signal),
        (Outcome::Failed, Some(9))
    );
}

#[tokio::test]
async fn processor_time_is_told() {
    let mut boss = Boss::new(1).await;
    let end = boss
        .run_sh(0, "i=0; while [ $i -lt 50000 ]; do i=$((i+1)); done")
        .await;
    let command = end.command();
    assert!(
        command.user_us > 1000 && command.user_us <= end.row.run_us + 10_000,
        "{command:?}"
    );
}

#[tokio::test]
async fn commands_see_where_they_are_and_what_they_were_given() {
    let pool = PoolOptions {
        env: vec![
            var("A", "pool"),
            var("B", "pool"),
            var("MKL_NUM_THREADS", "9"),
        ],
        ..PoolOptions::default()
    };
    let spec = Spec {
        env: vec![var("B", "spec"), ("HOME".into(), None)],
        ..Spec::default()
    };
    let mut boss = Boss::with(options(1), pool, spec).await;
    boss.grant(5, &["env"]).await;
    boss.end(5).await;
    let text = boss.stdout(5);
    let vars: Vec<&str> = text.lines().collect();
    for var in [
        "A=pool",
        "B=spec",
        "FLEETPOOL_HOST=host",
        "FLEETPOOL_SLOT=1",
        "FLEETPOOL_POOL=7",
        "FLEETPOOL_TASK=5",
        "FLEETPOOL_ATTEMPT=1",
        "MKL_NUM_THREADS=9",
    ] {
        assert!(vars.contains(&var), "{var} is missing in {vars:?}");
    }
    assert!(vars.iter().any(|var| var.starts_with("OMP_NUM_THREADS=")));
    assert!(
        !vars
            .iter()
            .any(|var| var.starts_with("HOME=") || var.starts_with("FLEETPOOL_WORKER_FD"))
    );
}

#[tokio::test]
async fn what_only_the_host_knows_is_filled_in() {
    let mut boss = Boss::new(1).await;
    let literal = |text: &str| Piece::Literal(ByteBuf::from(text));
    let argv = vec![
        Word::literal("echo"),
        Word(vec![
            literal("on "),
            Piece::Host,
            literal(" slot "),
            Piece::Slot,
        ]),
        Word::literal("$HOME {} *"),
    ];
    boss.grant_raw(SPEC, [(0, encode_header(&CommandTask { argv }))])
        .await;
    boss.end(0).await;
    assert_eq!(boss.stdout(0), "on host slot 1 $HOME {} *\n");
}

#[tokio::test]
async fn standard_input_is_the_specifications_or_nothing() {
    let mut boss = Boss::new(1).await;
    boss.grant(0, &["cat"]).await;
    boss.end(0).await;
    assert_eq!(boss.stdout(0), "");
    let stdin: String = (0..40_000).map(|line| format!("line {line}\n")).collect();
    let spec = Spec {
        stdin: stdin.clone().into(),
        ..Spec::default()
    };
    boss.define(SpecId(2), spec).await;
    for index in [1, 2] {
        let argv = vec![Word::literal("cat")];
        boss.grant_raw(SpecId(2), [(index, encode_header(&CommandTask { argv }))])
            .await;
        boss.end(index).await;
        assert!(
            boss.stdout(index) == stdin,
            "task {index} read something else"
        );
    }
}

#[tokio::test]
async fn folders_are_the_pools_and_within_it_the_specifications() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().canonicalize().unwrap();
    fs::create_dir(root.join("sub")).unwrap();
    let pool = PoolOptions {
        cwd: Some(root.to_str().unwrap().to_owned()),
        ..PoolOptions::default()
    };
    let mut boss = Boss::with(options(1), pool, Spec::default()).await;
    let sub = Spec {
        cwd: Some("sub".into()),
        ..Spec::default()
    };
    let missing = Spec {
        cwd: Some("/surely/not/there".into()),
        ..Spec::default()
    };
    boss.define(SpecId(2), sub).await;
    boss.define(SpecId(3), missing).await;
    let pwd = || {
        encode_header(&CommandTask {
            argv: vec![Word::literal("pwd")],
        })
    };
    boss.grant_raw(SpecId(2), [(0, pwd())]).await;
    boss.grant_raw(SpecId(3), [(1, pwd())]).await;
    boss.grant_raw(SPEC, [(2, pwd())]).await;
    boss.end(2).await;
    assert_eq!(boss.stdout(0), format!("{}\n", root.join("sub").display()));
    let end = boss.end(1).await;
    assert_eq!(end.outcome(), Outcome::NotStarted);
    assert!(
        end.loss()
            .message
            .starts_with("no such folder `/surely/not/there` on host host:")
    );
    assert_eq!(boss.stdout(2), format!("{}\n", root.display()));
}

#[tokio::test]
async fn what_cannot_begin_says_why() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path();
    let unmarked = script(dir, "unmarked", "echo hi\n", 0o644);
    let lost = script(dir, "lost", "#!/surely/no/such/shell\n", 0o755);
    let garbage = script(dir, "garbage", "\u{1}\u{2}", 0o755);
    let here = dir.to_str().unwrap().to_owned();
    let long = "x".repeat(200_000);
    let cases: Vec<(Vec<&str>, &str)> = vec![
        (
            vec!["surely-no-such-command"],
            "no such command `surely-no-such-command` on host host: install it",
        ),
        (
            vec!["/surely/no/such"],
            "no such command `/surely/no/such` on host host",
        ),
        (
            vec![&unmarked],
            "may not be run on host host: make it executable",
        ),
        (
            vec![&lost],
            "the interpreter that it names does not exist there",
        ),
        (
            vec![&garbage],
            "is nothing that host host can run: a script begins with",
        ),
        (vec![&here], "is a folder, not a command"),
        (vec!["echo", &long], "are too long for host host"),
        (vec!["echo", "a\0b"], "NUL byte"),
        (vec![], "there is no command to run"),
    ];
    let mut boss = Boss::new(1).await;
    for (index, (argv, reason)) in (0..).zip(cases) {
        boss.grant(index, &argv).await;
        let end = boss.end(index).await;
        let message = end.loss().message;
        assert_eq!(
            (end.outcome(), end.row.pid),
            (Outcome::NotStarted, 0),
            "{message}"
        );
        assert!(message.contains(reason), "{message}\nshould say: {reason}");
    }
    boss.grant_raw(SPEC, [(99, "nonsense".into())]).await;
    assert!(boss.end(99).await.loss().message.contains("not a command"));
    assert_eq!(boss.run_sh(100, "true").await.outcome(), Outcome::Done);
}

#[tokio::test]
async fn signals_are_as_a_fresh_process_expects_them() {
    let mut boss = Boss::new(1).await;
    let end = boss
        .run_sh(
            0,
            "yes | head -n 1; grep -E '^Sig(Blk|Ign)' /proc/self/status",
        )
        .await;
    assert_eq!(end.outcome(), Outcome::Done);
    let text = boss.stdout(0);
    for line in text.lines().skip(1) {
        let mask = u64::from_str_radix(line.split_whitespace().nth(1).unwrap(), 16).unwrap();
        // Past 31 are the real-time signals, which are as this test found them.
        assert_eq!(mask & 0x7fff_ffff, 0, "{text}");
    }
}

#[tokio::test]
async fn nothing_but_standard_descriptors_is_inherited() {
    let mut boss = Boss::new(2).await;
    boss.run_sh(0, "ls /proc/self/fd").await;
    // 3 is the folder that `ls` reads.
    assert_eq!(
        boss.stdout(0).split_whitespace().collect::<Vec<_>>(),
        ["0", "1", "2", "3"]
    );
}

#[tokio::test]
async fn a_slot_runs_one_command_at_a_time() {
    let folder = tempfile::tempdir().unwrap();
    let lock = folder.path().join("lock");
    let mut boss = Boss::new(2).await;
    boss.allot(1).await;
    let script = format!("mkdir {0} && sleep 0.01 && rmdir {0}", lock.display());
    for index in 0..20 {
        boss.sh(index, &script).await;
    }
    for index in 0..20 {
        assert_eq!(
            boss.end(index).await.outcome(),
            Outcome::Done,
            "{}",
            boss.stderr(index)
        );
    }
}
