//! What the agent's tests start: a spawner, as any program of fleetpool can be; an agent that runs one script and
//! can be killed (`agent FOLDER SCRIPT`); one that dials its coordinator (`dial ADDRESS`); one that goes on where another has
//! ended (`go-on FOLDER ADDRESS SLOTS`), and its spawner (`spawner FOLDER MS`); and a worker of the `native` runtime.

#[path = "../common/mod.rs"]
mod common;
mod worker;

use common::Boss;
use fleetpool_agent::{Link, run, serve_spawner};
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
        [verb, folder, address, slots] if verb == "go-on" => go_on(folder, address, slots),
        [verb, folder, ms] if verb == "spawner" => be_a_spawner(folder, ms),
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

/// An agent that goes on with what another has left in the folder.
#[tokio::main(flavor = "current_thread")]
async fn go_on(folder: &str, address: &str, slots: &str) {
    let mut options = common::options(slots.parse().unwrap());
    options.local_programs = vec![(common::PROBE, common::probe())];
    options.state_dir = Some(folder.into());
    options.spawner_is_service = true;
    let link = Link::Dial {
        address: address.parse().unwrap(),
        identity: None,
    };
    if let Err(error) = run(options, link).await {
        eprintln!("{error}");
        std::process::exit(1);
    }
}

fn be_a_spawner(folder: &str, ms: &str) {
    let outlives = std::time::Duration::from_millis(ms.parse().unwrap());
    let error = serve_spawner(&common::probe(), folder.as_ref(), outlives);
    panic!("{error}");
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
