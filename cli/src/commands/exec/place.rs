//! The hosts of an exec: a cluster's, which are known, or some that are logged in to for it, which come one by one.

use std::collections::BTreeMap;

use fleetpool::cluster::{Arrival, Arrivals, Cluster, Farewell};
use fleetpool_deploy::Destination;
use fleetpool_proto::{HostId, view::HostView};
use tokio::sync::mpsc;

use crate::{
    commands::hosts::{On, select},
    failure::{Failure, say},
    run::{
        Inputs, Item,
        ended::{Pinned, Task},
    },
    target::{ClusterArgs, Target, tell},
    template::Template,
};

/// Where a command is to run.
pub(crate) enum Place {
    /// On hosts of a cluster.
    Known(Cluster, Vec<HostView>),
    /// On hosts that are to be logged in to.
    Coming(Target),
}

impl Place {
    /// Finds the hosts.
    ///
    /// # Errors
    /// When none is named, or none matches, or there is no cluster to ask.
    pub(crate) async fn find(on: Option<&str>, cluster: &ClusterArgs) -> Result<Self, Failure> {
        let selector = On::read(on.unwrap_or_default().to_owned())?;
        let target = cluster.target()?.only(&selector)?;
        if !target.hosts.is_empty() {
            return Ok(Self::Coming(target));
        }
        if on.is_none() {
            return Err(Failure::usage(
                "on which hosts? --on SEL names some of the cluster's ('*' is all), --hosts NODESET any that ssh reaches",
            ));
        }
        let cluster = target.connect().await?;
        let hosts = select(&cluster, &selector).await?;
        Ok(Self::Known(cluster, hosts))
    }

    /// The hosts' names, in the order of their tasks.
    pub(crate) fn names(&self) -> Vec<&str> {
        match self {
            Self::Known(_, hosts) => hosts.iter().map(|host| host.name.as_str()).collect(),
            Self::Coming(target) => target.hosts.iter().map(Destination::name).collect(),
        }
    }

    /// Their cluster, a task for each, and what ends the cluster where it is made for this.
    ///
    /// # Errors
    /// When it cannot be made.
    pub(crate) async fn begin(
        self,
        template: Template,
    ) -> Result<(Cluster, Inputs, Option<Farewell>), Failure> {
        match self {
            Self::Known(cluster, hosts) => {
                let inputs = Inputs::new(items(template, hosts).into_iter().map(Ok), false);
                Ok((cluster, inputs, None))
            }
            Self::Coming(target) => {
                let (cluster, arrivals, farewell) = target.gather().await?;
                let (sender, items) = mpsc::channel(target.hosts.len());
                tokio::spawn(Coming::new(template, &target, sender).feed(arrivals));
                Ok((cluster, Inputs::Awaited(items), Some(farewell)))
            }
        }
    }
}

/// A task a host; those that take none say why.
fn items(template: Template, hosts: Vec<HostView>) -> Vec<Item> {
    let item = |(seq, host): (u64, HostView)| {
        let why_not = why_not(&host.state);
        let pinned = Pinned {
            id: host.id,
            name: host.name,
        };
        let task = task(&template, seq, pinned);
        match why_not {
            Some(why) => Item::Unsent(task, why.to_owned()),
            None => Item::Task(task),
        }
    };
    (1..).zip(hosts).map(item).collect()
}

/// Why a host in this state takes no task.
fn why_not(state: &str) -> Option<&'static str> {
    match state {
        "cordoned" => Some("the host is cordoned: `fleetpool uncordon` lets tasks in again"),
        "away" => Some("the host is down: it has lost its connection, its lease still runs"),
        "lost" => Some("the host is down"),
        _ => None,
    }
}

fn task(template: &Template, seq: u64, host: Pinned) -> Task {
    Task {
        seq,
        values: Vec::new(),
        command: template.command(seq, &[]),
        host: Some(host),
    }
}

/// Makes hosts' arrivals their tasks.
struct Coming {
    template: Template,
    /// The numbers of the tasks of hosts that were not heard of yet, by the hosts' names.
    awaited: BTreeMap<String, u64>,
    items: mpsc::Sender<Result<Item, Failure>>,
}

impl Coming {
    fn new(
        template: Template,
        target: &Target,
        items: mpsc::Sender<Result<Item, Failure>>,
    ) -> Self {
        let names = target.hosts.iter().map(|host| host.name().to_owned());
        Self {
            template,
            awaited: names.zip(1..).collect(),
            items,
        }
    }

    /// Until every host was heard of, and from then on tells of those that leave.
    async fn feed(mut self, mut arrivals: Arrivals) {
        while !self.awaited.is_empty()
            && let Some(arrival) = arrivals.next().await
        {
            match self.item(&arrival) {
                // There is room for one of each host.
                Some(item) => drop(self.items.send(Ok(item)).await),
                None => arrival.note().iter().for_each(|note| say(note)),
            }
        }
        drop(self.items);
        tell(&mut arrivals).await;
        // Every host is gone, and with the last listener the cluster would be: before the run has said why.
        std::future::pending().await
    }

    /// The task of a host that is heard of for the first time.
    fn item(&mut self, arrival: &Arrival) -> Option<Item> {
        match arrival {
            Arrival::Up { host, id } => {
                let seq = self.awaited.remove(host)?;
                Some(Item::Task(self.task(seq, host, *id)))
            }
            Arrival::Gone { host, reason } => {
                let seq = self.awaited.remove(host)?;
                let task = self.task(seq, host, HostId::default());
                Some(Item::Unsent(task, reason.clone()))
            }
            _ => None,
        }
    }

    fn task(&self, seq: u64, host: &str, id: HostId) -> Task {
        let name = host.to_owned();
        task(&self.template, seq, Pinned { id, name })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_that_are_down_are_not_asked() {
        assert_eq!(why_not("up"), None);
        for state in ["cordoned", "away", "lost"] {
            assert!(why_not(state).is_some(), "{state}");
        }
    }
}
