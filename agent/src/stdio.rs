//! An agent for one run: ssh has started it, its only session is its own stdin and stdout, and it keeps nothing on disk.
//!
//! It ends with that session, and everything below it with it: whether the client said goodbye, was killed, or is
//! just not heard of any more when the lease is over.

use std::{
    path::{Path, PathBuf},
    process::exit,
};

use fleetpool_net::{dial_over, take_stdio};
use fleetpool_proto::{Role, limits::SLOTS_MAX, pool::ContentHash, version::Hello};

use crate::{
    facts,
    link::Link,
    options::{Error, Options},
    shell,
};

/// The hidden first argument that makes a process such an agent. The host's name and the hash of the program
/// itself follow.
pub const AGENT_VERB: &str = "__fleetpool-agent";
/// What this process was started from; also when that file was replaced since.
const OWN: &str = "/proc/self/exe";

/// Is an agent for one run, and never returns, when this process was started as one.
pub(crate) fn run_if_asked() {
    let mut args = std::env::args_os()
        .skip(1)
        .map(|arg| arg.into_string().unwrap_or_default());
    if args.next().as_deref() == Some(AGENT_VERB) {
        run(args);
    }
}

fn run(args: impl Iterator<Item = String>) -> ! {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let served = match (runtime, options(args)) {
        (Ok(runtime), Ok(options)) => runtime
            .block_on(serve_stdio(options))
            .map_err(|error| error.to_string()),
        (Err(error), _) => Err(error.to_string()),
        (_, Err(slip)) => Err(slip),
    };
    match served {
        Ok(()) => exit(0),
        Err(why) => {
            eprintln!("fleetpool: {why}");
            exit(1)
        }
    }
}

/// Serves a coordinator at the other end of this process's stdin and stdout, until it leaves.
///
/// # Errors
/// When there is nobody at the other end, the session breaks, or no process can be started here.
pub async fn serve_stdio(options: Options) -> Result<(), Error> {
    let (read, write) = take_stdio().map_err(Error::Stdio)?;
    let hello = Hello::new(Role::Agent, &options.name);
    let dialled = dial_over(read, write, hello).await.map_err(Box::new)?;
    let (session, welcome) = dialled;
    shell::run(options, Link::Session(Box::new(session), welcome)).await
}

/// A host's name, and what this very program is known by to pools that bring it.
fn options(mut args: impl Iterator<Item = String>) -> Result<Options, String> {
    let (Some(name), Some(program)) = (args.next(), args.next()) else {
        return Err("the agent is told no name".to_owned());
    };
    let program = blake3::Hash::from_hex(&program)
        .map_err(|error| format!("`{program}` is no hash of a program: {error}"))?;
    let slots = u16::try_from(facts::processors()).unwrap_or(SLOTS_MAX);
    let mut options = Options::new(name, slots.clamp(1, SLOTS_MAX), Path::new(OWN));
    options.local_programs = vec![(ContentHash(*program.as_bytes()), PathBuf::from(OWN))];
    Ok(options)
}
