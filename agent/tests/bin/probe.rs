//! What the agent's tests start: a spawner, as any program of fleetpool can be; an agent that runs one script and
//! can be killed (`agent FOLDER SCRIPT`); one that dials its coordinator (`dial ADDRESS`); and a worker of the `native` runtime.

#[path = "../common/mod.rs"]
mod common;
mod worker;

use common::Boss;
use fleetpool_agent::{Link, run};
use fleetpool_proto::pool::{PoolOptions, Spec};

fn main() {
    fleetpool_agent::run_if_asked();
    if std::env::var_os(fleetpool_proto::worker::WORKER_FD_ENV).is_some() {
        return worker::work();
    }
    let args: Vec<String> = std::env::args().skip(1).collect();
    match args.as_slice() {
        [verb, folder, script] if verb == "agent" => be_an_agent(folder, script),
        [verb, address] if verb == "dial" => dial(address),
        _ => eprintln!("this program is for the agent's tests"),
    }
}

/// An agent of two slots, for which this program is also a worker.
#[tokio::main(flavor = "current_thread")]
async fn dial(address: &str) {
    let mut options = common::options(2);
    options.local_programs = vec![(common::PROBE, common::probe())];
    let link = Link::Dial {
        address: address.parse().unwrap(),
        identity: None,
    };
    run(options, link).await.unwrap();
}

#[tokio::main(flavor = "current_thread")]
async fn be_an_agent(folder: &str, script: &str) {
    let mut options = common::options(1);
    options.state_dir = Some(folder.into());
    let mut boss = Boss::with(options, PoolOptions::default(), Spec::default()).await;
    boss.sh(0, script).await;
    let end = boss.end(0).await;
    std::fs::write(
        std::path::Path::new(folder).join("end"),
        end.outcome().name(),
    )
    .unwrap();
}
