//! An agent for one run: its session is its own stdin and stdout, and it ends with that (G6).

mod common;

use std::process::Stdio;

use common::{PATIENCE, PROBE, probe};
use fleetpool_agent::AGENT_VERB;
use fleetpool_net::{Carrier, Session, accept_over};
use fleetpool_proto::{Message as _, message::FromAgent, version::Welcome};
use tokio::{
    process::{Child, Command},
    time::timeout,
};

/// A started agent, what stands for ssh before it, and the coordinator's end of its session.
async fn start() -> (Child, Child, Session) {
    let mut ssh = Command::new("cat")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let through: Stdio = ssh.stdout.take().unwrap().try_into().unwrap();
    let mut agent = Command::new(probe())
        .args([AGENT_VERB, "h1", &PROBE.to_string()])
        .stdin(through)
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let (write, read) = (ssh.stdin.take().unwrap(), agent.stdout.take().unwrap());
    let incoming = timeout(PATIENCE, accept_over(read, write, "h1")).await;
    let incoming = incoming.unwrap().unwrap();
    assert_eq!(incoming.hello.name, "h1");
    let welcome = Welcome {
        lease_ms: 10_000,
        ..Welcome::default()
    };
    (agent, ssh, incoming.welcome(welcome).await.unwrap())
}

#[tokio::test]
async fn it_registers_by_ssh_and_leaves_when_it_is_told_goodbye() {
    let (mut agent, _ssh, mut session) = start().await;
    assert_eq!(session.peer.carrier, Carrier::Ssh);
    let frame = timeout(PATIENCE, session.receiver.recv()).await.unwrap();
    match FromAgent::from_frame(frame.unwrap()).unwrap() {
        FromAgent::Register(registration) => {
            assert_eq!((&*registration.name, &*registration.carrier), ("h1", "ssh"));
        }
        other => panic!("{other:?}"),
    }
    session.sender.close("done");
    let ended = timeout(PATIENCE, agent.wait()).await.unwrap().unwrap();
    assert_eq!(ended.code(), Some(0));
}

#[tokio::test]
async fn it_ends_when_its_session_just_breaks() {
    let (mut agent, mut ssh, _session) = start().await;
    ssh.kill().await.unwrap();
    let ended = timeout(PATIENCE, agent.wait()).await.unwrap().unwrap();
    assert_eq!(ended.code(), Some(1));
}
