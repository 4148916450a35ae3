//! A real cluster under real faults: `chaos run --minutes 20`. Its other roles are for itself.

use std::{io::Write as _, path::PathBuf, process::ExitCode, time::Duration};

use clap::{Args, Parser, Subcommand};
use fleetpool_coordinator::{PlantedBug, ServeOptions, Server};
use fleetpool_tests::chaos::{self, ClientOptions, Kind};

/// A real cluster under real faults, and a check of all that happened
#[derive(Parser)]
struct Chaos {
    #[command(subcommand)]
    role: Role,
}

#[derive(Subcommand)]
enum Role {
    /// Starts a cluster and clients, does harm for a while, and checks that nothing was lost, twice, or at once
    Run(Run),
    #[command(hide = true)]
    Client {
        folder: PathBuf,
        number: u32,
        kind: Kind,
        cluster: String,
        identity: PathBuf,
        seed: u64,
    },
    #[command(hide = true)]
    Task { folder: PathBuf, job: u64, ms: u64 },
    /// A client of many small tasks
    #[command(hide = true)]
    Tally {
        folder: PathBuf,
        tasks: u64,
        cluster: String,
        identity: PathBuf,
    },
    /// A client of large results, which it takes slowly
    #[command(hide = true)]
    Bulk {
        results: u64,
        bytes: usize,
        cluster: String,
        identity: PathBuf,
    },
    /// A coordinator without the margin of the lease
    #[command(hide = true)]
    Coordinator {
        state: PathBuf,
        listen: String,
        lease_s: u64,
    },
}

#[derive(Args)]
struct Run {
    /// What goes wrong, and when [default: by chance]
    #[arg(long)]
    seed: Option<u64>,
    /// For how long
    #[arg(long, default_value_t = 2.0)]
    minutes: f64,
    /// The binary to try [default: `fleetpool` beside this one]
    #[arg(long)]
    program: Option<PathBuf>,
    /// Gives a silent host's tasks to others too early: that must be found
    #[arg(long)]
    without_margin: bool,
}

fn main() -> ExitCode {
    // Native tasks run in this program.
    fleetpool::init();
    let done = match Chaos::parse().role {
        Role::Run(run) => harm(&run),
        Role::Client {
            folder,
            number,
            kind,
            cluster,
            identity,
            seed,
        } => {
            let options = ClientOptions {
                folder,
                number,
                kind,
                cluster,
                identity,
                seed,
            };
            chaos::run_client(&options).map_err(|error| error.to_string())
        }
        Role::Task { folder, job, ms } => task(&folder, job, ms),
        Role::Tally {
            folder,
            tasks,
            cluster,
            identity,
        } => chaos::run_tally(&folder, tasks, &cluster, &identity),
        Role::Bulk {
            results,
            bytes,
            cluster,
            identity,
        } => chaos::run_bulk(results, bytes, &cluster, &identity),
        Role::Coordinator {
            state,
            listen,
            lease_s,
        } => coordinator(state, &listen, lease_s),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("{why}");
            ExitCode::FAILURE
        }
    }
}

fn harm(run: &Run) -> Result<(), String> {
    let beside = || Some(std::env::current_exe().ok()?.with_file_name("fleetpool"));
    let program = run.program.clone().or_else(beside);
    let program = program.filter(|program| program.exists());
    let folder = tempfile::Builder::new().prefix("chaos-").tempdir();
    let folder = folder.map_err(|error| format!("no temporary folder: {error}"))?;
    let options = chaos::Options {
        seed: run.seed.unwrap_or_else(|| std::process::id().into()),
        lasts: Duration::from_secs_f64(run.minutes * 60.0),
        folder: folder.path().to_owned(),
        program: program.ok_or("fleetpool is not built, or not where --program says")?,
        without_margin: run.without_margin,
    };
    eprintln!("seed {}", options.seed);
    match chaos::run(&options) {
        Ok(table) => say(&table),
        Err(wrong) => {
            // Whoever looks for the reason needs the logs.
            let _kept = folder.keep();
            Err(wrong)
        }
    }
}

fn task(folder: &std::path::Path, job: u64, ms: u64) -> Result<(), String> {
    let variable = |name| std::env::var(name).map_err(|error| format!("{name}: {error}"));
    let number = |name| {
        let text: String = variable(name)?;
        text.parse::<u32>()
            .map_err(|error| format!("{name}: {error}"))
    };
    let (index, attempt) = (number("FLEETPOOL_TASK")?, number("FLEETPOOL_ATTEMPT")?);
    let host = variable("FLEETPOOL_HOST")?;
    let lasts = Duration::from_millis(ms);
    let ran = chaos::run_task(folder, job, index.into(), attempt, &host, lasts);
    ran.map_err(|error| error.to_string())?;
    say(&format!("{job} {index} {attempt}\n"))
}

fn say(text: &str) -> Result<(), String> {
    let written = std::io::stdout().write_all(text.as_bytes());
    written.map_err(|error| format!("stdout: {error}"))
}

fn coordinator(state: PathBuf, listen: &str, lease_s: u64) -> Result<(), String> {
    let address = listen
        .parse()
        .map_err(|error| format!("{listen}: {error}"))?;
    let options = ServeOptions {
        lease: Duration::from_secs(lease_s),
        planted: Some(PlantedBug::NoLeaseMargin),
        ..ServeOptions::new(state, vec![address])
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let runtime = runtime.map_err(|error| error.to_string())?;
    runtime.block_on(async {
        let server = Server::bind(options).map_err(|error| error.to_string())?;
        let mut terminate =
            tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())
                .map_err(|error| error.to_string())?;
        let stop = async move {
            terminate.recv().await;
        };
        server.run(stop).await.map_err(|error| error.to_string())
    })
}
