//! What a world is made of, and what happens to it.

use std::{fmt, time::Duration};

use fleetpool_proto::{
    HostId,
    pool::{ContentHash, PoolOptions, Retries, Runtime, Spec},
};

use super::engine::{Engine, Summary, us};

/// The `n`-th host of a world, counted from 0.
#[must_use]
pub fn host(n: u32) -> HostId {
    HostId(n)
}

/// A world, before its first instant.
#[derive(Clone, Debug)]
pub struct World {
    pub(super) seed: u64,
    pub(super) hosts: Vec<HostPlan>,
    pub(super) pools: Vec<PoolPlan>,
    pub(super) faults: Vec<(Duration, Fault)>,
    /// Microseconds that a message takes: least and most.
    pub(super) delay_us: (u64, u64),
    /// Microseconds between two times that a shell acts, as busy ones do; 0: at once.
    pub(super) turn_us: u64,
    /// One in this many messages with payloads is overtaken by what is sent after it.
    pub(super) bulk_one_in: u64,
    pub(super) window_tasks: u64,
    pub(super) lost_after: Duration,
    /// Nothing goes wrong, so that nothing may wait either (G2).
    pub(super) quiet: bool,
    pub(super) bug: Option<Bug>,
    /// When the next fault of a builder's sentence happens.
    cursor: Duration,
}

#[derive(Clone, Debug)]
pub(super) struct HostPlan {
    pub(super) slots: u16,
    /// How much faster its clock runs than the coordinator's, in thousandths.
    pub(super) drift: i64,
    /// Its workers cannot be started.
    pub(super) unfit: bool,
}

#[derive(Clone, Debug)]
pub(super) struct PoolPlan {
    pub(super) options: PoolOptions,
    pub(super) tasks: u64,
    pub(super) lengths: Lengths,
    pub(super) timeout_ms: u64,
    pub(super) opened_at: Duration,
    pub(super) ending: Ending,
    pub(super) cancels: Vec<(Duration, std::ops::Range<u64>)>,
    pub(super) resize: Option<(Duration, Option<u32>)>,
    /// One in this many tasks fails, takes its worker with it, or prints.
    pub(super) fails_one_in: u64,
    pub(super) crashes_one_in: u64,
    pub(super) prints_one_in: u64,
    /// The `k`-th task runs on the `k`-th host only, round and round.
    pub(super) pinned: bool,
    /// Microseconds before results count as consumed, at most.
    pub(super) consumes_within_us: u64,
}

/// How long tasks run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lengths {
    /// Each between these, evenly.
    Between(Duration, Duration),
    /// Most as short as this; one in ten ten times as long, one in a hundred a hundred times, and so on.
    HeavyTailed(Duration),
}

/// How a client ends with its pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// It waits for all its tasks.
    Close,
    /// It ends the pool then.
    Terminate(Duration),
    /// It is gone then, without a word.
    Vanish(Duration),
}

/// What goes wrong.
#[derive(Clone, Copy, Debug)]
pub(super) enum Fault {
    /// The session ends, and what is on its way is lost from some point on.
    Break(HostId),
    /// Nothing passes from (`up`) or to (`down`) the host.
    Cut {
        host: HostId,
        up: bool,
        down: bool,
        lasts: Duration,
    },
    /// The host is off, with everything on it.
    PowerCut { host: HostId, lasts: Duration },
    /// Its agent is killed; its workers end within two seconds.
    KillAgent { host: HostId, lasts: Duration },
    /// Its agent is stopped.
    Pause { host: HostId, lasts: Duration },
    /// It gets no new tasks.
    Cordon { host: HostId, lasts: Duration },
    /// The coordinator is killed, and another one reads its journal. With `power` its machine is: the end of the journal is
    /// lost as far as it was not on disk.
    KillCoordinator { power: bool, lasts: Duration },
    /// The coordinator is stopped on purpose, and another one started; to stop takes most of a second.
    StopCoordinator { lasts: Duration },
    /// A client's session ends, and it is back after that.
    LoseClient { client: usize, lasts: Duration },
    /// An operator cancels a client's pool.
    CancelJob { client: usize },
}

/// A bug that is planted in one of the cores, for the simulator to find.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bug {
    /// In the agent's.
    Agent(fleetpool_agent_core::PlantedBug),
    /// In the coordinator's.
    Coordinator(fleetpool_coordinator_core::PlantedBug),
}

/// A promise that a world saw broken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// The world's seed.
    pub seed: u64,
    /// When it happened.
    pub at: Duration,
    /// Which promise, and how.
    pub what: String,
    /// What happened last before it.
    pub story: Vec<String>,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "seed {} at {:?}: {}", self.seed, self.at, self.what)?;
        for line in &self.story {
            writeln!(f, "  {line}")?;
        }
        let seed = self.seed;
        write!(
            f,
            "again: SIM_SEED={seed} cargo test -p fleetpool-tests --test sim the_given_seed"
        )
    }
}

impl Default for PoolPlan {
    fn default() -> Self {
        Self {
            options: PoolOptions::default(),
            tasks: 0,
            lengths: Lengths::Between(Duration::from_millis(5), Duration::from_millis(20)),
            timeout_ms: 0,
            opened_at: Duration::ZERO,
            ending: Ending::Close,
            cancels: Vec::new(),
            resize: None,
            fails_one_in: 0,
            crashes_one_in: 0,
            prints_one_in: 0,
            pinned: false,
            consumes_within_us: 2000,
        }
    }
}

impl PoolPlan {
    pub(super) fn spec(&self) -> Spec {
        Spec {
            timeout_ms: self.timeout_ms,
            ..Spec::default()
        }
    }
}

/// The sentence. Words about pools are about the last one that was submitted.
impl World {
    /// Whether its coordinator has a journal.
    pub(super) fn is_durable(&self) -> bool {
        let resumes = |(_, fault): &(Duration, Fault)| {
            matches!(
                fault,
                Fault::KillCoordinator { .. }
                    | Fault::StopCoordinator { .. }
                    | Fault::LoseClient { .. }
            )
        };
        self.faults.iter().any(resumes)
    }

    /// How often its coordinator is stopped on purpose.
    pub(super) fn stops(&self) -> u64 {
        let stops =
            |(_, fault): &&(Duration, Fault)| matches!(fault, Fault::StopCoordinator { .. });
        self.faults.iter().filter(stops).count() as u64
    }

    /// Whether its coordinator's machine loses its power.
    pub(super) fn cuts_coordinators_power(&self) -> bool {
        let cuts = |(_, fault): &(Duration, Fault)| {
            matches!(fault, Fault::KillCoordinator { power: true, .. })
        };
        self.faults.iter().any(cuts)
    }

    /// An empty world.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self {
            seed,
            hosts: Vec::new(),
            pools: Vec::new(),
            faults: Vec::new(),
            delay_us: (100, 1000),
            turn_us: 0,
            bulk_one_in: 0,
            window_tasks: 65_536,
            lost_after: Duration::from_secs(100),
            quiet: false,
            bug: None,
            cursor: Duration::ZERO,
        }
    }

    /// With `n` hosts more, of one slot each.
    #[must_use]
    pub fn hosts(mut self, n: usize) -> Self {
        let plan = HostPlan {
            slots: 1,
            drift: 0,
            unfit: false,
        };
        self.hosts.extend(std::iter::repeat_n(plan, n));
        self
    }

    /// Every host has so many slots.
    #[must_use]
    pub fn slots(mut self, n: u16) -> Self {
        self.hosts.iter_mut().for_each(|host| host.slots = n);
        self
    }

    /// The host cannot start workers.
    #[must_use]
    pub fn unfit(mut self, HostId(number): HostId) -> Self {
        if let Some(host) = self.hosts.get_mut(number as usize) {
            host.unfit = true;
        }
        self
    }

    /// A client submits so many commands to a pool of its own.
    #[must_use]
    pub fn submit(mut self, tasks: u64) -> Self {
        self.pools.push(PoolPlan {
            tasks,
            ..PoolPlan::default()
        });
        self
    }

    /// … of native tasks.
    #[must_use]
    pub fn native(self) -> Self {
        let runtime = Runtime::Native {
            program: ContentHash([7; 32]),
            size: 1,
        };
        self.with_pool(|pool| pool.options.runtime = runtime)
    }

    /// … at most so many of them at once.
    #[must_use]
    pub fn processes(self, n: u32) -> Self {
        self.with_pool(|pool| pool.options.slots = Some(n))
    }

    /// … that take so long.
    #[must_use]
    pub fn lasting(self, lengths: Lengths) -> Self {
        self.with_pool(|pool| pool.lengths = lengths)
    }

    /// … that may never run twice.
    #[must_use]
    pub fn once(self) -> Self {
        let retries = Retries {
            host_lost: 0,
            worker_lost: 0,
            failed: 0,
        };
        self.with_pool(|pool| pool.options.retries = retries)
    }

    /// … to a pool that is opened then.
    #[must_use]
    pub fn opening(self, time: Duration) -> Self {
        self.with_pool(|pool| pool.opened_at = time)
    }

    /// … each on a host of its own.
    #[must_use]
    pub fn pinned(self) -> Self {
        self.with_pool(|pool| pool.pinned = true)
    }

    /// … and ends like this.
    #[must_use]
    pub fn ending(self, ending: Ending) -> Self {
        self.with_pool(|pool| pool.ending = ending)
    }

    /// … and cancels these.
    #[must_use]
    pub fn cancel(self, tasks: std::ops::Range<u64>) -> Self {
        let at = self.cursor;
        self.with_pool(|pool| pool.cancels.push((at, tasks)))
    }

    /// … opened at this point of the sentence, rather than at the start.
    #[must_use]
    pub fn now(self) -> Self {
        let at = self.cursor;
        self.with_pool(|pool| pool.opened_at = at)
    }

    /// Each message takes between `min` and `max`.
    #[must_use]
    pub fn delay(mut self, min: Duration, max: Duration) -> Self {
        self.delay_us = (us(min), us(max));
        self
    }

    /// Agents and the coordinator act at most so often, each time for all that has come meanwhile: as busy ones do.
    #[must_use]
    pub fn turns(mut self, turn: Duration) -> Self {
        self.turn_us = us(turn);
        self
    }

    /// A client may be ahead of its results by so many tasks.
    #[must_use]
    pub fn window(mut self, tasks: u64) -> Self {
        self.window_tasks = tasks;
        self
    }

    /// Nothing goes wrong: then no free slot and no waiting task may be apart (G2).
    #[must_use]
    pub fn quiet(mut self) -> Self {
        self.quiet = true;
        self
    }

    /// What follows happens so long after the start.
    #[must_use]
    pub fn at(mut self, time: Duration) -> Self {
        self.cursor = time;
        self
    }

    /// The host is off, and back after a minute.
    #[must_use]
    pub fn lose(self, host: HostId) -> Self {
        let lasts = Duration::from_secs(60);
        self.fault(Fault::PowerCut { host, lasts })
    }

    /// The host's agent is killed and started again.
    #[must_use]
    pub fn kill_agent(self, host: HostId) -> Self {
        let lasts = Duration::from_secs(3);
        self.fault(Fault::KillAgent { host, lasts })
    }

    /// Nothing passes between the host and the coordinator.
    #[must_use]
    pub fn partition(self, host: HostId, lasts: Duration) -> Self {
        self.fault(Fault::Cut {
            host,
            up: true,
            down: true,
            lasts,
        })
    }

    /// Nothing passes from the host to the coordinator; the other way is open.
    #[must_use]
    pub fn mute(self, host: HostId, lasts: Duration) -> Self {
        self.fault(Fault::Cut {
            host,
            up: true,
            down: false,
            lasts,
        })
    }

    /// The session breaks, and the agent dials again.
    #[must_use]
    pub fn break_session(self, host: HostId) -> Self {
        self.fault(Fault::Break(host))
    }

    /// The host's agent is stopped, and goes on after that time.
    #[must_use]
    pub fn pause(self, host: HostId, lasts: Duration) -> Self {
        self.fault(Fault::Pause { host, lasts })
    }

    /// The host gets no new tasks for that time.
    #[must_use]
    pub fn cordon(self, host: HostId, lasts: Duration) -> Self {
        self.fault(Fault::Cordon { host, lasts })
    }

    /// The coordinator is killed, and started again a second later.
    #[must_use]
    pub fn kill_coordinator(self) -> Self {
        let (power, lasts) = (false, Duration::from_secs(1));
        self.fault(Fault::KillCoordinator { power, lasts })
    }

    /// The coordinator is stopped on purpose, and started again after that time.
    #[must_use]
    pub fn stop_coordinator(self, lasts: Duration) -> Self {
        self.fault(Fault::StopCoordinator { lasts })
    }

    /// The coordinator's machine loses its power, and is back after half a minute.
    #[must_use]
    pub fn cut_coordinators_power(self) -> Self {
        let (power, lasts) = (true, Duration::from_secs(30));
        self.fault(Fault::KillCoordinator { power, lasts })
    }

    /// The coordinator's machine loses its power and is back at once, while hosts still run what they had.
    #[must_use]
    pub fn reset_coordinators_machine(self) -> Self {
        let (power, lasts) = (true, Duration::from_secs(1));
        self.fault(Fault::KillCoordinator { power, lasts })
    }

    /// The session of the last pool's client is lost; it is back after that time.
    #[must_use]
    pub fn lose_client(self, lasts: Duration) -> Self {
        let client = self.pools.len() - 1;
        self.fault(Fault::LoseClient { client, lasts })
    }

    /// An operator cancels the last pool.
    #[must_use]
    pub fn cancel_job(self) -> Self {
        let client = self.pools.len() - 1;
        self.fault(Fault::CancelJob { client })
    }

    /// One of the cores has a bug.
    #[must_use]
    pub fn planted(mut self, bug: Bug) -> Self {
        self.bug = Some(bug);
        self
    }

    /// Lets the world run until all is over.
    ///
    /// # Panics
    /// When a promise is broken; with the seed.
    pub fn run(&self) -> Summary {
        match self.try_run() {
            Ok(summary) => summary,
            Err(failure) => panic!("{failure}"),
        }
    }

    /// Lets the world run until all is over, or a promise is broken.
    ///
    /// # Errors
    /// The first broken promise, with what led to it.
    pub fn try_run(&self) -> Result<Summary, Box<Failure>> {
        Engine::new(self.clone(), false).run().map_err(|failure| {
            // Nobody pays for the story but those who need it: the same seed tells it again.
            let again = Engine::new(self.clone(), true).run();
            Box::new(again.err().unwrap_or(failure))
        })
    }

    fn fault(mut self, fault: Fault) -> Self {
        self.faults.push((self.cursor, fault));
        self
    }

    fn with_pool(mut self, change: impl FnOnce(&mut PoolPlan)) -> Self {
        change(self.pools.last_mut().expect("a pool to say that of"));
        self
    }
}
