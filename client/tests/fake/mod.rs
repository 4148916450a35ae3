//! A coordinator that does what the test says, at the other end of an in-process session.

use std::time::Duration;

use bytes::Bytes;
use fleetpool::cluster::Cluster;
use fleetpool_net::{Peer, Session, local_pair};
use fleetpool_proto::{
    Message as _, Outcome, PoolId, Role,
    message::{FromClient, ResultRow, ToClient},
    rows::Payloads,
    version::Welcome,
};

/// Longer than anything here takes; a test that waits so long fails.
const PATIENCE: Duration = Duration::from_secs(20);

pub(crate) struct Fake {
    session: Session,
}

impl Fake {
    /// A coordinator, and a cluster that is connected to it.
    pub(crate) fn start() -> (Cluster, Self) {
        let (ours, theirs) = local_pair(
            Peer::local(Role::User, "client"),
            Peer::local(Role::Coordinator, "fake"),
        );
        let welcome = Welcome {
            pools_from: PoolId(7),
            ..Welcome::default()
        };
        (Cluster::over(ours, welcome), Self { session: theirs })
    }

    pub(crate) async fn recv(&mut self) -> FromClient {
        let frame = tokio::time::timeout(PATIENCE, self.session.receiver.recv()).await;
        let frame = frame
            .expect("the client says something")
            .expect("it is there");
        FromClient::from_frame(frame).expect("it sends messages")
    }

    /// What has come; nothing is waited for.
    pub(crate) fn try_recv(&mut self) -> Option<FromClient> {
        let frame = self.session.receiver.try_recv()?;
        Some(FromClient::from_frame(frame).expect("it sends messages"))
    }

    pub(crate) async fn send(&self, message: ToClient) {
        let sent = self.session.sender.send(message.into_frame()).await;
        sent.expect("the client is there");
    }

    /// Takes `OpenPool` in and gives credit.
    pub(crate) async fn open_pool(&mut self, tasks: u64, bytes: u64) -> PoolId {
        let FromClient::OpenPool { pool, .. } = self.recv().await else {
            panic!("a pool is opened first");
        };
        self.credit(pool, tasks, bytes).await;
        pool
    }

    pub(crate) async fn credit(&self, pool: PoolId, tasks: u64, bytes: u64) {
        self.send(ToClient::Credit { pool, tasks, bytes }).await;
    }

    /// These tasks have ended well, with their own argument as result.
    pub(crate) async fn echo(&self, pool: PoolId, first: u64, payloads: &[Bytes]) {
        let row = |(index, _): (u64, &Bytes)| ResultRow {
            index,
            outcome: Outcome::Done,
            ..ResultRow::default()
        };
        let results = ToClient::Results {
            number: 0,
            pool,
            rows: (first..).zip(payloads).map(row).collect(),
            payloads: Payloads::from(payloads.to_vec()),
        };
        self.send(results).await;
    }

    pub(crate) fn close(self, reason: &str) {
        self.session.sender.close(reason);
    }
}
