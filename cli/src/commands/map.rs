//! `fleetpool map`: a command once per input.

use std::{ffi::OsString, io::IsTerminal as _, path::PathBuf};

use clap::Args;
use fleetpool_proto::{limits::SLOTS_MAX, pool::PoolOptions};

use super::{
    hosts::On,
    tasks::{self, Habits, TaskArgs},
};
use crate::{
    failure::{Exit, Failure, say},
    input::{self, Group, Row, Rows, Source},
    output::{TagStyle, table},
    run::{self, Explain, Gate, Hosts, Inputs, Item, Job, ended::Task},
    target::{ClusterArgs, Target},
    template::{Syntax, Template},
};

const HELP: &str = "\
Inputs: words behind `:::`, lines of the files behind `::::` (`-` is stdin), else lines of stdin. Several sources make every combination; `:::+` and `::::+` link a source to the one before it instead.

Placeholders:
  {}   the input             {/}  without its folder      {#}    the task's number, from 1
  {.}  without extension     {//} its folder              {%}    the slot's number, from 1
  {1}  the first source's    {/.} only its bare name      {host} the host it runs on
       (also {2.} {-1/} ...)

Without one, the input is appended. The command runs without a shell, its words exactly as given. If it is a single word with blanks in it, or with --shell, it is a line for `sh -c`, and what is filled in is quoted for where it stands. Without a command, each input is such a line.

Examples:
  fleetpool map -j 4 sha256sum ::: /usr/bin/*
  fleetpool map 'convert {} {.}.png' ::: *.jpg
  find . -name '*.log' -print0 | fleetpool map -0 gzip -9
  fleetpool map -k echo {1}-{2} ::: a b ::: 1 2 3
  fleetpool map --joblog log --resume ./step {} :::: inputs.txt
  fleetpool map --hosts 'web[01-08]' -j 16 ./render {} ::: *.scene
  fleetpool map -I @ awk '{print $1}' @ ::: *.txt";

/// Run a command once per input over the fleet's slots
#[derive(Args, Debug)]
#[command(after_help = HELP)]
pub(crate) struct MapArgs {
    /// At most N tasks at once, wherever their slots are [default: every slot]
    #[arg(short, long, value_name = "N", short_alias = 'P', alias = "max-procs", value_parser = tasks::jobs, help_heading = "Running")]
    jobs: Option<u32>,
    /// Only on these hosts: a nodeset (web[01-40]), @group or label=value
    #[arg(
        long,
        value_name = "SEL",
        default_value = "",
        hide_default_value = true,
        help_heading = "Running"
    )]
    on: String,
    /// Run the command as a line of `sh -c`
    #[arg(long, help_heading = "Running")]
    shell: bool,
    /// Inputs end with NUL, not with a newline
    #[arg(short = '0', long, help_heading = "Input")]
    null: bool,
    /// Read inputs from FILE (the same as `:::: FILE`)
    #[arg(short, long, value_name = "FILE", help_heading = "Input")]
    arg_file: Vec<PathBuf>,
    /// Fill in for STR, and leave braces as they are
    #[arg(short = 'I', value_name = "STR", help_heading = "Input")]
    replace: Option<OsString>,
    #[command(flatten)]
    tasks: TaskArgs,
    /// The command, and the inputs behind `:::` or `::::`
    #[arg(value_name = "CMD", trailing_var_arg = true)]
    words: Vec<OsString>,
}

/// Runs tasks to their end.
///
/// # Errors
/// When the command line makes no sense or fleetpool itself fails.
pub(crate) async fn run(args: MapArgs, cluster: &ClusterArgs) -> Result<Exit, Failure> {
    let (words, groups) = args.sources()?;
    let syntax = args.syntax(groups.iter().map(Vec::len).sum());
    let template = Template::parse(&words, args.shell, &syntax).map_err(Failure::usage)?;
    let template = args.tasks.as_user(template)?;
    let rows = args.rows(groups)?;
    if args.tasks.dry_run {
        return dry_run(&template, rows);
    }
    let on = On::read(args.on.clone())?;
    let target = cluster.target()?.only(&on)?;
    let past = args.tasks.past()?;
    let habits = Habits {
        tags: TagStyle::None,
        tag: TagStyle::Inputs,
        explain: Explain::Losses,
        style: None,
    };
    let recorder = args.tasks.recorder(past.as_ref(), habits)?;
    let total = rows.total;
    let slots = args.slots(&target, total);
    let embedded = slots.map(|slots| u16::try_from(slots).unwrap_or(SLOTS_MAX).min(SLOTS_MAX));
    let spec = args.tasks.spec(Vec::new())?;
    let pool = PoolOptions {
        name: tasks::name(&words),
        slots,
        on: on.hosts,
        retries: args.tasks.retries(),
        ..PoolOptions::default()
    };
    if args.tasks.detach {
        let detached = run::Detached {
            cluster: target.connect_remote("--detach").await?,
            pool,
            spec,
            inputs: rows.inputs(template),
            quiet: args.tasks.quiet,
        };
        return run::detach(detached).await;
    }
    let (cluster, farewell) = target.connect_here(embedded).await?;
    let job = Job {
        cluster,
        pool,
        spec,
        inputs: rows.inputs(template),
        total,
        past,
        gate: args.gate(),
        halt: args.tasks.halt,
        deadline: args.tasks.deadline,
        hosts: if target.hosts.is_empty() {
            Hosts::Standing
        } else {
            Hosts::Coming
        },
        progress: args.tasks.shows_progress(),
        recorder,
    };
    let ended = run::run(job).await;
    if let Some(farewell) = farewell {
        farewell.wait().await;
    }
    ended
}

impl MapArgs {
    /// The command's words, and where inputs come from.
    fn sources(&self) -> Result<(Vec<OsString>, Vec<Group>), Failure> {
        let (words, mut groups) = input::split(&self.words).map_err(Failure::usage)?;
        if !self.arg_file.is_empty() {
            let only_stdin = groups.concat() == [Source::Stdin];
            let behind = if only_stdin { Vec::new() } else { groups };
            let files = self
                .arg_file
                .iter()
                .map(|file| vec![input::file_source(file.as_os_str())]);
            groups = files.chain(behind).collect();
        }
        if words.is_empty()
            && self.words.is_empty()
            && self.arg_file.is_empty()
            && std::io::stdin().is_terminal()
        {
            return Err(Failure::usage(
                "there is neither a command nor an input: `fleetpool help map` has examples",
            ));
        }
        Ok((words, groups))
    }

    fn syntax(&self, sources: usize) -> Syntax {
        match &self.replace {
            Some(placeholder) => Syntax::Only {
                placeholder: placeholder.as_encoded_bytes().to_vec(),
            },
            None => Syntax::Inputs { sources },
        }
    }

    fn rows(&self, groups: Vec<Group>) -> Result<Inputted, Failure> {
        if groups.concat().contains(&Source::Stdin)
            && std::io::stdin().is_terminal()
            && !self.tasks.quiet
        {
            say("reading inputs from the terminal, one a line; Ctrl-D ends them");
        }
        let separator = if self.null { 0 } else { b'\n' };
        let rows = Rows::open(groups, separator).map_err(Failure::usage)?;
        Inputted::new(rows, self.tasks.halt.needs_total())
    }

    fn gate(&self) -> Gate {
        if self.tasks.halt.allows_ahead() {
            Gate::Open
        } else {
            Gate::Slots
        }
    }

    /// Tasks at once. A fleet is asked for what the user asked for, and says what it has; here no more slots are made
    /// than can be used.
    fn slots(&self, target: &Target, total: Option<u64>) -> Option<u32> {
        let jobs = self.jobs?;
        let most = total
            .filter(|_| target.address.is_none() && target.hosts.is_empty())
            .map_or(u32::MAX, |total| {
                u32::try_from(total.max(1)).unwrap_or(u32::MAX)
            });
        Some(jobs.min(most))
    }
}

/// Inputs that have been opened.
struct Inputted {
    rows: Box<dyn Iterator<Item = Result<Row, Failure>> + Send>,
    total: Option<u64>,
    waits: bool,
}

impl Inputted {
    /// Reads them all now, if their number must be known.
    fn new(rows: Rows, all: bool) -> Result<Self, Failure> {
        let (total, waits) = (rows.total(), rows.waits());
        let rows = rows.map(|row| row.map_err(Failure::fleetpool));
        if !all || total.is_some() {
            return Ok(Self {
                rows: Box::new(rows),
                total,
                waits,
            });
        }
        let all = rows.collect::<Result<Vec<_>, _>>()?;
        Ok(Self {
            total: Some(all.len() as u64),
            rows: Box::new(all.into_iter().map(Ok)),
            waits: false,
        })
    }

    fn inputs(self, template: Template) -> Inputs {
        let task = move |(seq, values): (u64, Result<Row, Failure>)| {
            let values = values?;
            let command = template.command(seq, &values);
            Ok(Item::Task(Task {
                seq,
                values,
                command,
                host: None,
            }))
        };
        Inputs::new((1..).zip(self.rows).map(task), self.waits)
    }
}

/// Prints what would be run.
fn dry_run(template: &Template, rows: Inputted) -> Result<Exit, Failure> {
    for (seq, values) in (1..).zip(rows.rows) {
        let text = template.command(seq, &values?).text_anywhere();
        table::print_bytes(&text)?;
    }
    Ok(Exit::Success)
}
