//! Runs contestants side by side and tells medians, spreads and processor time.
//!
//! The machine is shared and noisy, so that a figure means something only beside another one taken in the same
//! minute: contestants take turns (A B C A B C …), and what is compared are medians.

use std::{
    collections::BTreeMap,
    fs,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use nix::{
    errno::Errno,
    sys::wait::{WaitPidFlag, waitpid},
    unistd::Pid,
};

/// Turns of each contestant, unless it says otherwise.
pub(crate) const ROUNDS: usize = 5;

/// What one turn gave.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Turn {
    /// The figure, in the case's unit.
    pub(crate) figure: f64,
    /// Processor time of every process that took part.
    pub(crate) cpu: Duration,
}

/// The turns of one contestant.
#[derive(Clone, Debug)]
pub(crate) struct Turns(Vec<Turn>);

/// Somebody who takes part in a case.
pub(crate) struct Contestant<'a> {
    /// What the table calls it.
    pub(crate) name: &'static str,
    /// Takes one turn and tells its figure.
    pub(crate) run: Box<dyn FnMut() -> f64 + 'a>,
}

impl<'a> Contestant<'a> {
    /// A contestant of that name.
    pub(crate) fn new(name: &'static str, run: impl FnMut() -> f64 + 'a) -> Self {
        Self {
            name,
            run: Box::new(run),
        }
    }
}

/// Lets the contestants take `rounds` turns each, one after another.
pub(crate) fn interleave(rounds: usize, contestants: &mut [Contestant<'_>]) -> Vec<Turns> {
    let mut all = vec![Turns(Vec::new()); contestants.len()];
    for _ in 0..rounds {
        for (contestant, turns) in contestants.iter_mut().zip(&mut all) {
            turns.0.push(turn(&mut contestant.run));
        }
    }
    all
}

fn turn(run: &mut dyn FnMut() -> f64) -> Turn {
    let before = cpu_of_descendants();
    let figure = run();
    reap_orphans();
    let cpu = cpu_of_descendants().saturating_sub(before);
    Turn { figure, cpu }
}

impl Turns {
    /// Turns that somebody else has measured.
    pub(crate) fn of(figures: impl IntoIterator<Item = f64>) -> Self {
        let cpu = Duration::ZERO;
        let turn = |figure| Turn { figure, cpu };
        Self(figures.into_iter().map(turn).collect())
    }

    /// The same turns, with a figure made of each.
    pub(crate) fn map(&self, figure: impl Fn(&Turn) -> f64) -> Self {
        let turns = self.0.iter().map(|turn| Turn {
            figure: figure(turn),
            ..*turn
        });
        Self(turns.collect())
    }

    /// The figures, turn by turn.
    pub(crate) fn figures(&self) -> impl Iterator<Item = f64> {
        self.0.iter().map(|turn| turn.figure)
    }

    /// The middle figure.
    pub(crate) fn median(&self) -> f64 {
        middle(self.figures())
    }

    /// The lowest and the highest figure.
    pub(crate) fn spread(&self) -> (f64, f64) {
        (
            self.figures().fold(f64::INFINITY, f64::min),
            self.figures().fold(f64::NEG_INFINITY, f64::max),
        )
    }

    /// The middle processor time, in seconds.
    pub(crate) fn cpu_s(&self) -> f64 {
        middle(self.0.iter().map(|turn| turn.cpu.as_secs_f64()))
    }
}

/// The middle of some numbers; the mean of the two in the middle when they are even in number.
pub(crate) fn middle(numbers: impl Iterator<Item = f64>) -> f64 {
    let mut sorted: Vec<f64> = numbers.collect();
    sorted.sort_by(f64::total_cmp);
    let half = sorted.len() / 2;
    match sorted.len() {
        0 => f64::NAN,
        len if len % 2 == 1 => sorted[half],
        _ => f64::midpoint(sorted[half - 1], sorted[half]),
    }
}

/// Runs a contestant of this house and reads the number that it prints.
pub(crate) fn figure_of(command: &mut Command) -> f64 {
    let [figure] = figures_of(command);
    figure
}

/// Runs a contestant of this house and reads the numbers that it prints.
pub(crate) fn figures_of<const N: usize>(command: &mut Command) -> [f64; N] {
    let output = command.stderr(Stdio::inherit()).output();
    let output = output.unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(
        output.status.success(),
        "{command:?} failed: {}",
        output.status
    );
    let printed = String::from_utf8_lossy(&output.stdout);
    let numbers: Result<Vec<f64>, _> = printed.split_whitespace().map(str::parse).collect();
    let numbers = numbers.ok().and_then(|numbers| numbers.try_into().ok());
    numbers.unwrap_or_else(|| panic!("{command:?} printed {printed:?}, not {N} numbers"))
}

/// How long `work` took, in seconds.
pub(crate) fn seconds(work: impl FnOnce()) -> f64 {
    let start = Instant::now();
    work();
    start.elapsed().as_secs_f64()
}

/// This process is the subreaper of all it started: takes those that nobody waited for, so that their time is counted.
fn reap_orphans() {
    while let Ok(status) = waitpid(Pid::from_raw(-1), Some(WaitPidFlag::WNOHANG)) {
        if status.pid().is_none() {
            return;
        }
    }
    debug_assert!(matches!(
        waitpid(Pid::from_raw(-1), Some(WaitPidFlag::WNOHANG)),
        Ok(_) | Err(Errno::ECHILD)
    ));
}

/// Processor time of all descendants, alive or waited for, since this process began.
fn cpu_of_descendants() -> Duration {
    let processes = processes();
    let this = std::process::id();
    let mut ticks = processes
        .get(&this)
        .map_or(0, |process| process.children_ticks);
    let mut family = vec![this];
    while let Some(parent) = family.pop() {
        for (pid, process) in processes
            .iter()
            .filter(|(_, process)| process.parent == parent)
        {
            ticks += process.own_ticks + process.children_ticks;
            family.push(*pid);
        }
    }
    let ticks_per_second = nix::unistd::sysconf(nix::unistd::SysconfVar::CLK_TCK);
    let per_second = ticks_per_second
        .ok()
        .flatten()
        .and_then(|ticks| u64::try_from(ticks).ok());
    Duration::from_millis(ticks * 1000 / per_second.unwrap_or(100))
}

struct Process {
    parent: u32,
    own_ticks: u64,
    /// Of children that it has waited for.
    children_ticks: u64,
}

fn processes() -> BTreeMap<u32, Process> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries
        .filter_map(|entry| {
            let pid = entry.file_name().to_str()?.parse().ok()?;
            Some((
                pid,
                process(&fs::read_to_string(entry.path().join("stat")).ok()?)?,
            ))
        })
        .collect()
}

/// One line of `/proc/PID/stat`, see proc(5). The name in parentheses may hold anything.
fn process(stat: &str) -> Option<Process> {
    let (_, rest) = stat.rsplit_once(") ")?;
    let fields: Vec<&str> = rest.split(' ').collect();
    let number = |at: usize| fields.get(at)?.parse::<u64>().ok();
    Some(Process {
        parent: fields.get(1)?.parse().ok()?,
        own_ticks: number(11)? + number(12)?,
        children_ticks: number(13)? + number(14)?,
    })
}
