//! Whether what happened may.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use super::{
    Kind,
    notes::{Dated, Job, Note, Said},
};

/// Of each kind of wrong, so many are told one by one.
const TOLD_MAX: usize = 5;
/// How long after an absence it may be told that a pool is lost by it, in microseconds.
const LATE_US: u64 = 30_000_000;

/// What was seen.
#[derive(Debug, Default)]
pub(super) struct Verdict {
    /// What may not be: a line each.
    pub(super) wrong: Vec<String>,
    pools: u64,
    pools_given_up: u64,
    delivered: BTreeMap<String, u64>,
    /// Tasks whose result is not of their first attempt.
    recovered: u64,
    /// Tasks that are done, and of which nobody knows what they printed.
    mute: u64,
    /// Attempts that began.
    begun: u64,
    /// From the end of all faults until the next result.
    healed_us: Option<u64>,
}

#[derive(Debug)]
struct Pool {
    kind: Kind,
    tasks: u64,
    opened: u64,
    over: bool,
    lost: Option<(u64, String)>,
}

#[derive(Debug, Default)]
struct Task {
    begun: Vec<Began>,
    ended: BTreeSet<u32>,
    delivered: Vec<Delivered>,
    overlaps: u64,
}

#[derive(Debug)]
struct Began {
    at: u64,
    attempt: u32,
    host: String,
}

#[derive(Debug)]
struct Delivered {
    at: u64,
    attempt: Option<u32>,
    outcome: String,
    said: Said,
}

/// What was ended, and when.
#[derive(Debug, Default)]
struct Ends {
    /// Processes of tasks.
    killed: Vec<u64>,
    clients: BTreeSet<u32>,
    hosts: Vec<(u64, String)>,
    coordinators: Vec<u64>,
}

impl Ends {
    /// Whether what a task printed may be lost: its agent kept it for a client that was away, and was killed; the coordinator had
    /// it as well, and was killed, too.
    fn took_output(&self, task: &Task, of: &Delivered) -> bool {
        let mut began = task.begun.iter();
        let Some(began) = began.find(|began| Some(began.attempt) == of.attempt) else {
            return false;
        };
        let between = |at: &u64| (began.at..of.at).contains(at);
        let mut hosts = self.hosts.iter();
        hosts.any(|(at, host)| between(at) && *host == began.host)
            && self.coordinators.iter().any(between)
    }

    /// Whether somebody killed a process in that time.
    fn killed_between(&self, from: u64, until: u64) -> bool {
        self.killed.iter().any(|at| (from..until).contains(at))
    }
}

/// Judges a history. `healed`: when the last fault was over.
pub(super) fn of(history: &[Dated], healed: u64) -> Verdict {
    let mut verdict = Verdict::default();
    let mut pools: BTreeMap<Job, Pool> = BTreeMap::new();
    let mut tasks: BTreeMap<(Job, u64), Task> = BTreeMap::new();
    let mut ends = Ends::default();
    let mut away = Vec::new();
    for Dated { at_us, note } in history {
        let at = *at_us;
        match note {
            Note::Opened { job, kind, tasks } => {
                let pool = Pool {
                    kind: *kind,
                    tasks: *tasks,
                    opened: at,
                    over: false,
                    lost: None,
                };
                pools.insert(*job, pool);
            }
            Note::Over { job } => {
                pools.entry(*job).and_modify(|pool| pool.over = true);
            }
            Note::Lost { job, why } => {
                let lost = Some((at, why.clone()));
                pools.entry(*job).and_modify(|pool| pool.lost = lost);
            }
            Note::Delivered {
                job,
                index,
                attempt,
                outcome,
                said,
            } => {
                if at > healed {
                    let after = at - healed;
                    let least = verdict.healed_us.map_or(after, |before| before.min(after));
                    verdict.healed_us = Some(least);
                }
                *verdict.delivered.entry(outcome.clone()).or_default() += 1;
                let task = tasks.entry((*job, *index)).or_default();
                task.delivered.push(Delivered {
                    at,
                    attempt: *attempt,
                    outcome: outcome.clone(),
                    said: *said,
                });
            }
            Note::Began {
                job,
                index,
                attempt,
                host,
                ..
            } => {
                verdict.begun += 1;
                let task = tasks.entry((*job, *index)).or_default();
                task.begun.push(Began {
                    at,
                    attempt: *attempt,
                    host: host.clone(),
                });
            }
            Note::Ended {
                job,
                index,
                attempt,
            } => {
                let task = tasks.entry((*job, *index)).or_default();
                task.ended.insert(*attempt);
            }
            Note::Overlapped { job, index, .. } => {
                tasks.entry((*job, *index)).or_default().overlaps += 1;
            }
            Note::Killed { .. } => ends.killed.push(at),
            Note::HostDown { host } => ends.hosts.push((at, host.clone())),
            Note::CoordinatorDown => ends.coordinators.push(at),
            Note::ClientKilled { client } => drop(ends.clients.insert(*client)),
            Note::Away { client, us } => away.push((at.saturating_sub(*us), at, *client)),
        }
    }
    verdict.judge_pools(&pools, &ends.clients, &away);
    verdict.judge_tasks(&pools, &tasks, &ends);
    verdict
}

impl Verdict {
    fn judge_pools(
        &mut self,
        pools: &BTreeMap<Job, Pool>,
        clients_killed: &BTreeSet<u32>,
        away: &[(u64, u64, Option<u32>)],
    ) {
        let mut wrong = Findings::default();
        for (job, pool) in pools {
            self.pools += 1;
            let client = client_of(*job);
            if let Some((at, why)) = &pool.lost {
                self.pools_given_up += 1;
                // Clients wait for a coordinator, and it for them, for so long and no longer.
                let excused = away.iter().any(|(from, until, who)| {
                    let theirs = who.is_none_or(|who| who == client);
                    theirs && pool.opened <= *until && (*from..until + LATE_US).contains(at)
                });
                if !excused {
                    wrong.add("lost pool", format!("{job:?} was given up: {why}"));
                }
            } else if !pool.over && !clients_killed.contains(&client) {
                wrong.add("hung pool", format!("{job:?} has not ended"));
            }
        }
        self.wrong.extend(wrong.told());
    }

    fn judge_tasks(
        &mut self,
        pools: &BTreeMap<Job, Pool>,
        tasks: &BTreeMap<(Job, u64), Task>,
        ends: &Ends,
    ) {
        let mut wrong = Findings::default();
        for (job, pool) in pools {
            if !pool.over {
                continue;
            }
            for index in 0..pool.tasks {
                let task = tasks.get(&(*job, index));
                if task.is_none_or(|task| task.delivered.is_empty()) {
                    let what = format!("{job:?} task {index} has no result: {task:?}");
                    wrong.add("lost task", what);
                }
            }
        }
        for ((job, index), task) in tasks {
            let this = || format!("{job:?} task {index}: {task:?}");
            let Some(pool) = pools.get(job).filter(|pool| *index < pool.tasks) else {
                wrong.add("task that nobody submitted", this());
                continue;
            };
            if task.delivered.len() > 1 {
                wrong.add("task with two results", this());
            }
            if task.overlaps > 0 {
                wrong.add("task that overlaps with itself", this());
            }
            if pool.kind == Kind::Once && task.begun.len() > 1 {
                wrong.add("task that ran twice and may not", this());
            }
            let Some(result) = task.delivered.first() else {
                continue;
            };
            if task.begun.iter().any(|began| began.at > result.at) {
                wrong.add("task that ran after its result", this());
            }
            let done = result.attempt.filter(|it| task.ended.contains(it));
            let may_be = match result.outcome.as_str() {
                "done" if result.said == Said::Nothing => {
                    done.is_some() && ends.took_output(task, result)
                }
                "done" => done.is_some() && result.said == Said::Right,
                // A process may be killed that has a task and has not begun it. For want of memory, it seems, when the kernel takes
                // another process of the machine just then.
                "failed" | "worker_lost" | "out_of_memory" => {
                    ends.killed_between(pool.opened, result.at)
                }
                "unknown" => pool.kind == Kind::Once,
                _ => false,
            };
            if !may_be {
                wrong.add("result that cannot be", this());
            }
            let recovered = result.outcome == "done" && result.attempt > Some(1);
            self.recovered += u64::from(recovered);
            self.mute += u64::from(result.outcome == "done" && result.said == Said::Nothing);
        }
        self.wrong.extend(wrong.told());
    }
}

fn client_of(job: Job) -> u32 {
    u32::try_from(job.0 >> 24).unwrap_or(u32::MAX)
}

/// What is wrong, by its kind.
#[derive(Debug, Default)]
struct Findings(BTreeMap<&'static str, Vec<String>>);

impl Findings {
    fn add(&mut self, kind: &'static str, what: String) {
        self.0.entry(kind).or_default().push(what);
    }

    fn told(self) -> Vec<String> {
        let tell = |(kind, found): (&str, Vec<String>)| {
            let mut lines = vec![format!("{kind}: {}", found.len())];
            lines.extend(found.into_iter().take(TOLD_MAX).map(|it| format!("  {it}")));
            lines
        };
        self.0.into_iter().flat_map(tell).collect()
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{:>8}  pools", self.pools)?;
        writeln!(
            f,
            "{:>8}  pools given up for a long absence",
            self.pools_given_up
        )?;
        for (outcome, tasks) in &self.delivered {
            writeln!(f, "{tasks:>8}  results: {outcome}")?;
        }
        writeln!(
            f,
            "{:>8}  of them recovered on another attempt",
            self.recovered
        )?;
        writeln!(
            f,
            "{:>8}  without what they printed: coordinator and agent were killed before it was taken",
            self.mute
        )?;
        writeln!(f, "{:>8}  attempts begun", self.begun)?;
        if let Some(us) = self.healed_us {
            writeln!(
                f,
                "{:>8}  ms from the end of all faults to the next result",
                us / 1000
            )?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const JOB: Job = Job(1 << 24 | 1);

    fn opened(kind: Kind) -> Note {
        let (job, tasks) = (JOB, 1);
        Note::Opened { job, kind, tasks }
    }

    fn began(attempt: u32) -> Note {
        let host = "h1".to_owned();
        let (job, index, pid) = (JOB, 0, 10 + attempt);
        Note::Began {
            job,
            index,
            attempt,
            host,
            pid,
        }
    }

    fn ended(attempt: u32) -> Note {
        let (job, index) = (JOB, 0);
        Note::Ended {
            job,
            index,
            attempt,
        }
    }

    fn delivered(outcome: &str, attempt: u32) -> Note {
        Note::Delivered {
            job: JOB,
            index: 0,
            attempt: Some(attempt),
            outcome: outcome.to_owned(),
            said: Said::Right,
        }
    }

    const OVER: Note = Note::Over { job: JOB };

    /// What is wrong with what happened a millisecond after one another.
    fn wrong_with<const N: usize>(notes: [Note; N]) -> String {
        let date = |(at_us, note)| Dated { at_us, note };
        let history: Vec<Dated> = (0..).step_by(1000).zip(notes).map(date).collect();
        of(&history, 0).wrong.join("; ")
    }

    #[test]
    fn what_is_as_promised_is_not_wrong() {
        use Kind::{Again, Once};
        let once = [opened(Once), began(1), ended(1), delivered("done", 1), OVER];
        assert_eq!(wrong_with(once), "");
        let (lost, again) = (began(1), began(2));
        let ran_again = [
            opened(Again),
            lost,
            again,
            ended(2),
            delivered("done", 2),
            OVER,
        ];
        assert_eq!(wrong_with(ran_again), "");
        let killed = Note::Killed { pid: 11 };
        let died = [opened(Once), began(1), killed, delivered("failed", 1), OVER];
        assert_eq!(wrong_with(died), "");
        let unknown = [opened(Once), began(1), delivered("unknown", 1), OVER];
        assert_eq!(wrong_with(unknown), "");
        let client = Note::ClientKilled { client: 1 };
        assert_eq!(wrong_with([opened(Again), began(1), client]), "");
    }

    #[test]
    fn everything_that_may_not_be_is_found() {
        use Kind::{Again, Once};
        let found = |wrong: String, what: &str| assert!(wrong.starts_with(what), "{wrong}");
        let done = || delivered("done", 1);
        found(wrong_with([opened(Again), OVER]), "lost task");
        found(wrong_with([opened(Again), began(1)]), "hung pool");
        found(wrong_with([began(1)]), "task that nobody submitted");
        let twice = [opened(Again), began(1), ended(1), done(), done(), OVER];
        found(wrong_with(twice), "task with two results");
        let reran = [
            opened(Once),
            began(1),
            began(2),
            ended(2),
            delivered("done", 2),
            OVER,
        ];
        found(wrong_with(reran), "task that ran twice and may not");
        let late = [opened(Again), began(1), ended(1), done(), began(2), OVER];
        found(wrong_with(late), "task that ran after its result");
        let made_up = [opened(Again), began(1), done(), OVER];
        found(wrong_with(made_up), "result that cannot be");
        let unforced = [opened(Once), began(1), delivered("failed", 1), OVER];
        found(wrong_with(unforced), "result that cannot be");
        let (job, index, attempt) = (JOB, 0, 2);
        let overlap = Note::Overlapped {
            job,
            index,
            attempt,
        };
        let at_once = [opened(Again), began(1), overlap, ended(1), done(), OVER];
        found(wrong_with(at_once), "task that overlaps with itself");
        let why = "gone".to_owned();
        let lost = Note::Lost { job, why };
        found(wrong_with([opened(Again), lost]), "lost pool");
    }

    #[test]
    fn output_may_be_lost_with_all_who_had_it_only() {
        let mute = || Note::Delivered {
            job: JOB,
            index: 0,
            attempt: Some(1),
            outcome: "done".to_owned(),
            said: Said::Nothing,
        };
        let opened = || opened(Kind::Again);
        let host = "h1".to_owned();
        let (agent, coordinator) = (Note::HostDown { host }, Note::CoordinatorDown);
        let both = [
            opened(),
            began(1),
            ended(1),
            agent.clone(),
            coordinator,
            mute(),
            OVER,
        ];
        assert_eq!(wrong_with(both), "");
        let wrong = wrong_with([opened(), began(1), ended(1), agent, mute(), OVER]);
        assert!(wrong.starts_with("result that cannot be"), "{wrong}");
    }

    #[test]
    fn pools_may_be_given_up_after_a_long_absence_only() {
        let lost = || Note::Lost {
            job: JOB,
            why: "gone".to_owned(),
        };
        let away = |us| Note::Away { client: None, us };
        assert_eq!(wrong_with([opened(Kind::Again), away(500), lost()]), "");
        let other = Note::Away {
            client: Some(7),
            us: 500,
        };
        let wrong = wrong_with([opened(Kind::Again), other, lost()]);
        assert!(wrong.starts_with("lost pool"), "{wrong}");
    }
}
