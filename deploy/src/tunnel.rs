//! A tunnel to a host that cannot reach the coordinator: a port of the host's loopback leads to the coordinator.
//!
//! Whoever dials it still has to show a certificate of the cluster. It ends with this process, however that ends: ssh holds the
//! far end open only as long as somebody holds its stdin.

use crate::{
    conversation::{Conversation, Halt, HostError, patiently, reads},
    destination::Destination,
    ssh,
};

/// Says that it is up, and stays as long as it is wanted.
const SCRIPT: &str = "printf '\\nfleetpool:up\\n'; cat >/dev/null\n";

/// Has connections to port `port` of `to`'s loopback go to `local`, an address of this machine. Calls `up` when it does; back when it
/// is over, and why.
pub async fn tunnel(to: &Destination, port: u16, local: &str, up: impl Fn()) -> HostError {
    let forward = format!("127.0.0.1:{port}:{local}");
    let ended = patiently(to, || async {
        let command = ssh::forwarding(to, &forward, &reads(SCRIPT));
        let mut talk = Conversation::with(command, SCRIPT).await?;
        match is_up(&mut talk).await {
            Ok(()) => up(),
            Err(halt) => return Err(talk.explain(halt).await),
        }
        // Its stdin stays open.
        let Conversation { write, end, .. } = talk;
        let why = end.why().await;
        drop(write);
        Ok(why)
    });
    ended.await.unwrap_or_else(|error| error)
}

async fn is_up(talk: &mut Conversation) -> Result<(), Halt> {
    while talk.word().await? != "up" {}
    Ok(())
}
