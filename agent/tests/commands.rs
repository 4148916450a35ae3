//! Commands, run for real: what they get, what becomes of their output, how they end.

mod common;

use common::{Boss, End};
use fleetpool_proto::Outcome;

#[tokio::test]
async fn a_command_that_succeeds() {
    let mut boss = Boss::new(1).await;
    let end: End = boss.run_sh(0, "echo out; echo err >&2").await;
    assert_eq!(end.outcome(), Outcome::Done);
    assert_eq!(end.command().exit, Some(0));
    assert_eq!(
        (boss.stdout(0).as_str(), boss.stderr(0).as_str()),
        ("out\n", "err\n")
    );
}
