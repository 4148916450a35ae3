//! Where agents dial a coordinator made by hand.

use std::{future::pending, sync::Arc, time::Duration};

use fleetpool_agent::{Error, Link, run};
use fleetpool_net::{
    Address, Gatekeeper, Listener, Peer, Session,
    identity::{ClusterCa, Identity, Issued, ServerIdentity},
};
use fleetpool_proto::{
    Role,
    join::JoinRequest,
    pool::{PoolOptions, Spec},
    version::Welcome,
};
use tokio::task::JoinHandle;

use super::{Boss, SPEC, options};

pub(crate) const DAY: Duration = Duration::from_secs(86_400);

/// Where agents are let in.
pub(crate) struct Door {
    listener: Listener,
    ca: ClusterCa,
    lease: Duration,
}

struct Everybody;

impl Gatekeeper for Everybody {
    fn admit(&self, _: &Peer) -> Result<(), String> {
        Ok(())
    }

    fn join(&self, _: JoinRequest, _: &str) -> Result<Issued, String> {
        Err("nobody joins here".into())
    }
}

impl Door {
    pub(crate) fn open(address: &str, lease: Duration) -> Self {
        let ca = ClusterCa::create("test").unwrap();
        let server =
            ServerIdentity::new(ca.identity(Role::Coordinator, "boss", DAY).unwrap()).unwrap();
        let addresses = [address.parse::<Address>().unwrap()];
        let listener = Listener::bind(&addresses, server, Arc::new(Everybody)).unwrap();
        Self {
            listener,
            ca,
            lease,
        }
    }

    pub(crate) fn link(&self) -> Link {
        let identity: Identity = self.ca.identity(Role::Agent, "host", DAY).unwrap();
        Link::Dial {
            address: self.listener.addresses()[0].clone(),
            identity: Some(Box::new(identity)),
        }
    }

    pub(crate) async fn next(&mut self) -> Session {
        let incoming = tokio::time::timeout(super::PATIENCE, self.listener.accept())
            .await
            .unwrap();
        let welcome = Welcome {
            lease_ms: self.lease.as_millis().try_into().unwrap(),
            ..Welcome::default()
        };
        incoming.welcome(welcome).await.unwrap()
    }

    /// An agent that has dialled, with one pool.
    pub(crate) async fn boss(&mut self, slots: u16, pool: PoolOptions) -> Boss {
        let agent = tokio::spawn(run(options(slots), self.link()));
        self.boss_of(agent, slots, pool, Spec::default()).await
    }

    /// The same, for an agent that is a process of its own.
    pub(crate) async fn boss_of_another(
        &mut self,
        slots: u16,
        pool: PoolOptions,
        spec: Spec,
    ) -> Boss {
        let agent = tokio::spawn(pending());
        self.boss_of(agent, slots, pool, spec).await
    }

    async fn boss_of(
        &mut self,
        agent: JoinHandle<Result<(), Error>>,
        slots: u16,
        pool: PoolOptions,
        spec: Spec,
    ) -> Boss {
        let mut boss = Boss::over(self.next().await, agent);
        boss.open(pool).await;
        boss.define(SPEC, spec).await;
        boss.allot(slots).await;
        boss
    }
}
