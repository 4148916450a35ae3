//! `fleetpool exec`: a command once on every selected host.

pub(super) mod place;

use std::{
    ffi::OsString,
    io::{self, Read as _},
    os::fd::AsFd as _,
    path::PathBuf,
    time::Duration,
};

use bytes::Bytes;
use clap::Args;
use fleetpool_proto::pool::{ContentHash, PoolOptions, Retries, Spec};
use nix::sys::stat::{SFlag, fstat};

use place::Place;

use super::{
    rollout::confirm,
    tasks::{self, Habits, TaskArgs},
};
use crate::{
    failure::{Exit, Failure, say},
    halt::{Halt, How, Limit, What},
    joblog::Past,
    output::{Gather, GatherOptions, Style, TagStyle, table},
    run::{self, Explain, Gate, Hosts, Job, Recorder},
    target::ClusterArgs,
    template::{Syntax, Template},
};

/// A larger stdin goes by its hash, once to the coordinator.
const INLINE_BYTES_MAX: usize = 64 << 10;
/// Most bytes of stdin that are sent to every host.
const STDIN_BYTES_MAX: u64 = 64 << 20;
/// A run that waits for its stdin says so after this long.
const STDIN_PATIENCE: Duration = Duration::from_secs(2);

const HELP: &str = "\
Hosts: a nodeset (web[01-40], also with , ! & ^ and parentheses), @group or label=value; '*' is all of them. Groups are looked up where you are: in [groups] of ~/.config/fleetpool/config.toml, by its groups_command, in ClusterShell's configuration.

With --hosts there need be no cluster: agents are started over ssh for this one command, and are gone with it.

{host} in the command becomes the host's name; all else is left as it is. A command that is a single word with blanks in it, or any with --shell, is a line for `sh -c` on the host.

Standard input is read to its end and sent to every host, unless it is a terminal or a device such as /dev/null. In a loop that reads its own input (while read ...), say -n, as with ssh.

A host that is down, or is lost while the command runs there, counts as failed. The outcome of a lost one is `unknown`: the command may have run, and is never run again by itself.

Examples:
  fleetpool exec --on 'web[01-40]' -- uptime
  fleetpool exec --on @db --gather -- rpm -q postgresql
  fleetpool exec --on role=web --canary 1 --batch 25% -- systemctl restart nginx
  fleetpool exec --on '*' -- 'df -h / | tail -1' < /dev/null
  fleetpool exec --hosts 'ada@web[01-40]' -- uptime";

/// Run a command once on every selected host
#[derive(Args, Debug)]
#[command(after_help = HELP)]
pub(crate) struct ExecArgs {
    #[command(flatten)]
    pub(super) hosts: HostArgs,
    /// Show hosts that printed the same and ended the same as one
    #[arg(short = 'b', long, conflicts_with_all = ["json", "line_buffer"], help_heading = "Output")]
    gather: bool,
    /// Of hosts that printed something else than most, show the difference (implies --gather)
    #[arg(long, conflicts_with_all = ["json", "line_buffer"], help_heading = "Output")]
    diff: bool,
    /// Send nothing to the command's standard input
    #[arg(short = 'n', long, help_heading = "Running")]
    no_stdin: bool,
    /// Run the command as a line of `sh -c`
    #[arg(long, help_heading = "Running")]
    shell: bool,
    #[command(flatten)]
    tasks: TaskArgs,
    /// The command
    #[arg(value_name = "CMD", required = true, trailing_var_arg = true)]
    words: Vec<OsString>,
}

/// Which hosts, and in which order.
#[derive(Args, Debug)]
pub(crate) struct HostArgs {
    /// Which hosts: of the cluster's, or of those that --hosts names
    #[arg(long, value_name = "SEL")]
    pub(super) on: Option<String>,
    /// At most N hosts at once [default: all]
    #[arg(short, long, value_name = "N", value_parser = tasks::jobs, help_heading = "Running")]
    pub(super) jobs: Option<u32>,
    /// Go in waves of N hosts; the next begins when all of the last have ended
    #[arg(long, value_name = "N|N%", help_heading = "Running")]
    batch: Option<Limit>,
    /// Begin with a wave of N hosts
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..), help_heading = "Running")]
    canary: Option<u64>,
    /// Start no more hosts when more than N have failed [default: 0 with --batch or --canary]
    #[arg(long, value_name = "N|N%", value_parser = max_fail, help_heading = "Running")]
    max_fail: Option<MaxFail>,
    /// Do not ask, however many hosts there are
    #[arg(short, long, help_heading = "Running")]
    pub(super) yes: bool,
}

/// Hosts that may fail before no more are started.
#[derive(Clone, Copy, Debug, PartialEq)]
enum MaxFail {
    Count(u64),
    Percent(f64),
}

/// Runs the command to its end everywhere.
///
/// # Errors
/// When no host matches, or fleetpool itself fails.
pub(crate) async fn run(args: ExecArgs, cluster: &ClusterArgs) -> Result<Exit, Failure> {
    let template =
        Template::parse(&args.words, args.shell, &Syntax::Host).map_err(Failure::usage)?;
    let template = args.tasks.as_user(template)?;
    if args.hosts.max_fail.is_some() && args.tasks.halt != Halt::Never {
        return Err(Failure::usage(
            "--max-fail and --halt both say when to stop: give one of them",
        ));
    }
    let place = Place::find(args.hosts.on.as_deref(), cluster).await?;
    let names = place.names();
    if args.tasks.dry_run {
        return dry_run(&template, &names);
    }
    confirm("run on", &names, args.hosts.yes)?;
    let total = names.len() as u64;
    let stdin = args.stdin().await?;
    let past = args.tasks.past()?;
    let mut spec = args.tasks.spec(Vec::new())?;
    let offer = if stdin.len() <= INLINE_BYTES_MAX {
        spec.stdin = stdin.into();
        None
    } else {
        Some(Offer::Bytes(stdin.into()))
    };
    let errand = Errand {
        recorder: args.tasks.recorder(past.as_ref(), args.habits())?,
        name: tasks::name(&args.words),
        template,
        spec,
        offer,
        retries: args.tasks.retries(),
        past,
        gate: args.hosts.gate(&args.tasks.halt, total),
        halt: args.hosts.halt(args.tasks.halt, total),
        deadline: args.tasks.deadline,
        progress: args.tasks.shows_progress(),
        detach: args.tasks.detach.then_some(args.tasks.quiet),
    };
    errand.run(place, args.hosts.jobs).await
}

/// Content that agents may ask for.
pub(super) enum Offer {
    /// In memory.
    Bytes(Bytes),
    /// In this file.
    File(ContentHash, PathBuf),
}

/// Something to be done once on every host.
pub(super) struct Errand {
    pub(super) name: String,
    pub(super) template: Template,
    pub(super) spec: Spec,
    /// What commands read, where it is large: agents ask for it by its hash.
    pub(super) offer: Option<Offer>,
    pub(super) retries: Retries,
    pub(super) past: Option<Past>,
    pub(super) gate: Gate,
    pub(super) halt: Halt,
    pub(super) deadline: Option<Duration>,
    pub(super) progress: bool,
    pub(super) recorder: Recorder,
    /// It is left to the cluster; with `true` nothing is said of that.
    pub(super) detach: Option<bool>,
}

impl Errand {
    /// Runs it to its end everywhere.
    ///
    /// # Errors
    /// When fleetpool itself fails.
    pub(super) async fn run(self, place: Place, jobs: Option<u32>) -> Result<Exit, Failure> {
        let total = place.names().len() as u64;
        let (cluster, inputs, farewell) = place.begin(self.template).await?;
        let mut spec = self.spec;
        spec.content = self.offer.map(|offer| match offer {
            Offer::Bytes(bytes) => cluster.offer_bytes(bytes),
            Offer::File(hash, path) => {
                cluster.offer(hash, path);
                hash
            }
        });
        let pool = PoolOptions {
            name: self.name,
            slots: jobs,
            retries: Retries {
                host_lost: 0,
                ..self.retries
            },
            // Whoever sits there is to hear of a host that is down while it is known.
            waits_for_lost: false,
            ..PoolOptions::default()
        };
        if let Some(quiet) = self.detach {
            if farewell.is_some() {
                return Err(Failure::usage(
                    "--detach needs a cluster that stays: name one with --cluster",
                ));
            }
            if spec.content.is_some() {
                return Err(Failure::usage(
                    "standard input is too large to be left with the cluster: put it into a file on the hosts, or run without --detach",
                ));
            }
            return run::detach(run::Detached {
                cluster,
                pool,
                spec,
                inputs,
                quiet,
            })
            .await;
        }
        let job = Job {
            cluster,
            pool,
            spec,
            inputs,
            total: Some(total),
            past: self.past,
            gate: self.gate,
            halt: self.halt,
            deadline: self.deadline,
            hosts: farewell.as_ref().map_or(Hosts::Standing, |_| Hosts::Coming),
            progress: self.progress,
            recorder: self.recorder,
        };
        let ended = run::run(job).await;
        if let Some(farewell) = farewell {
            farewell.wait().await;
        }
        ended
    }
}

fn dry_run(template: &Template, names: &[&str]) -> Result<Exit, Failure> {
    for (seq, name) in (1..).zip(names) {
        let text = template.command(seq, &[]).text(name, 1);
        table::print_bytes(&[name.as_bytes(), b": ", &text].concat())?;
    }
    Ok(Exit::Success)
}

impl HostArgs {
    /// In waves, or as the limit of the run lets.
    pub(super) fn gate(&self, halt: &Halt, total: u64) -> Gate {
        if self.batch.is_none() && self.canary.is_none() {
            return if halt.allows_ahead() {
                Gate::Open
            } else {
                Gate::Slots
            };
        }
        let size = match self.batch {
            None => u64::MAX,
            Some(Limit::Count(count)) => count,
            Some(Limit::Percent(percent)) => share(total, percent).max(1),
        };
        Gate::waves(total, self.canary.unwrap_or(0), size)
    }

    /// When too many have failed.
    pub(super) fn halt(&self, given: Halt, total: u64) -> Halt {
        let in_waves = self.batch.is_some() || self.canary.is_some();
        let allowed = match self.max_fail {
            _ if given != Halt::Never => return given,
            Some(MaxFail::Count(count)) => count,
            Some(MaxFail::Percent(percent)) => share(total, percent),
            None if in_waves => 0,
            None => return Halt::Never,
        };
        Halt::After {
            how: How::Soon,
            what: What::Fail,
            limit: Limit::Count(allowed.saturating_add(1)),
        }
    }
}

impl ExecArgs {
    fn habits(&self) -> Habits {
        let gathers = self.gather || self.diff;
        let gather = || Style::Gathered(Gather::new(GatherOptions { diff: self.diff }));
        Habits {
            tags: TagStyle::Host,
            tag: TagStyle::Host,
            explain: if gathers {
                Explain::Nothing
            } else {
                Explain::Failures
            },
            style: gathers.then(gather),
        }
    }

    /// What is sent to every host.
    async fn stdin(&self) -> Result<Vec<u8>, Failure> {
        if self.no_stdin || !is_sent() {
            return Ok(Vec::new());
        }
        let reading = tokio::task::spawn_blocking(read_stdin);
        tokio::pin!(reading);
        let read = tokio::select! {
            read = &mut reading => read,
            () = tokio::time::sleep(STDIN_PATIENCE) => {
                if !self.tasks.quiet {
                    say("reading standard input to its end, to send it to every host; -n or </dev/null sends nothing");
                }
                reading.await
            }
        };
        read.map_err(Failure::fleetpool)?
    }
}

/// Whether stdin is something that has an end: a file, a pipe or a socket.
fn is_sent() -> bool {
    fstat(io::stdin().as_fd()).is_ok_and(|stat| {
        let kind = SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT;
        matches!(kind, SFlag::S_IFREG | SFlag::S_IFIFO | SFlag::S_IFSOCK)
    })
}

fn read_stdin() -> Result<Vec<u8>, Failure> {
    let mut bytes = Vec::new();
    let read = io::stdin()
        .lock()
        .take(STDIN_BYTES_MAX + 1)
        .read_to_end(&mut bytes);
    read.map_err(|error| {
        Failure::fleetpool(format!(
            "cannot read standard input: {error}: -n sends nothing"
        ))
    })?;
    if bytes.len() as u64 > STDIN_BYTES_MAX {
        return Err(Failure::usage(format!(
            "standard input is over {} MiB, too much to send to every host: leave the bulk in a file that the hosts can read",
            STDIN_BYTES_MAX >> 20
        )));
    }
    Ok(bytes)
}

/// `percent` of `total`, rounded down.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_precision_loss,
    clippy::cast_sign_loss,
    reason = "a share of the hosts of one fleet"
)]
fn share(total: u64, percent: f64) -> u64 {
    (total as f64 * percent / 100.0) as u64
}

fn max_fail(text: &str) -> Result<MaxFail, String> {
    let max = match text.strip_suffix('%') {
        Some(percent) => percent
            .parse()
            .ok()
            .filter(|percent| (0.0..=100.0).contains(percent))
            .map(MaxFail::Percent),
        None => text.parse().ok().map(MaxFail::Count),
    };
    max.ok_or_else(|| format!("`{text}` is neither a number nor a percentage: write 0, 3 or 10%"))
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::args::{Cli, Verb};

    fn args(line: &str) -> ExecArgs {
        let words = format!("fleetpool exec --on web {line} -- true");
        match Cli::try_parse_from(words.split_whitespace()).unwrap().verb {
            Verb::Exec(args) => *args,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn waves_and_failures_allowed() {
        let check = |line: &str, gate: Gate, limit: Option<u64>| {
            let args = args(line);
            assert_eq!(args.hosts.gate(&args.tasks.halt, 10), gate, "{line}");
            let expect = limit.map_or(Halt::Never, |limit| Halt::After {
                how: How::Soon,
                what: What::Fail,
                limit: Limit::Count(limit),
            });
            assert_eq!(args.hosts.halt(args.tasks.halt, 10), expect, "{line}");
        };
        check("", Gate::Open, None);
        check("--canary 1", Gate::Waves(vec![1, 10]), Some(1));
        check("--batch 4", Gate::Waves(vec![4, 8, 10]), Some(1));
        check(
            "--batch 25% --max-fail 1",
            Gate::Waves(vec![2, 4, 6, 8, 10]),
            Some(2),
        );
        check(
            "--canary 1 --batch 50% --max-fail 30%",
            Gate::Waves(vec![1, 6, 10]),
            Some(4),
        );
        check("--batch 1%", Gate::Waves((1..=10).collect()), Some(1));
    }
}
