//! A command of the user's that knows groups.
//!
//! It gets the group's name in its environment, never in its text. It is ended with all it started when it takes too
//! long, and nothing of it is kept beyond bounds.

use std::{
    io::{self, Read},
    os::unix::process::{CommandExt as _, ExitStatusExt as _},
    process::{Child, Command, ExitStatus, Stdio},
    sync::mpsc::{Receiver, sync_channel},
    thread,
    time::{Duration, Instant},
};

use fleetpool_proto::limits::{GROUP_BYTES_MAX, STDERR_TAIL_BYTES};
use nix::{
    sys::signal::{Signal, killpg},
    unistd::Pid,
};
use nodeset::NodeSet;

use super::Answer;

/// Lists of hosts from this size on are folded, to stay far below the longest selector.
const FOLDED_FROM_BYTES: usize = 8 << 10;
/// Between two looks at a command that has closed its output and not ended.
const PAUSE: Duration = Duration::from_millis(2);

/// Asks `command` for the hosts of `group`.
///
/// # Errors
/// When it cannot be started, takes longer than `time_max` or prints without end: then nobody knows whether there is
/// such a group.
pub(super) fn ask(command: &str, group: &str, time_max: Duration) -> Result<Answer, String> {
    let failed = |why: String| format!("groups_command (`{command}`) {why}");
    let ran = run(command, group, time_max).map_err(failed)?;
    let unknown =
        |why: String| Answer::Unknown(format!("from groups_command (`{command}`: {why})"));
    if !ran.status.success() {
        let said = match ran.stderr.trim() {
            "" => String::new(),
            said => format!(", it said: {said}"),
        };
        return Ok(unknown(format!("{}{said}", ended(ran.status))));
    }
    Ok(match joined(&ran.stdout).as_str() {
        "" => unknown("it printed nothing".to_owned()),
        hosts => Answer::Hosts(folded(hosts)),
    })
}

struct Ran {
    status: ExitStatus,
    stdout: String,
    /// The beginning.
    stderr: String,
}

fn run(command: &str, group: &str, time_max: Duration) -> Result<Ran, String> {
    let until = Instant::now() + time_max;
    let mut child = Command::new("sh")
        .arg("-c")
        .arg(command)
        .env("GROUP", group)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .spawn()
        .map_err(|error| format!("could not be started: {error}"))?;
    let ran = follow(&mut child, until);
    if ran.is_err() {
        end(&mut child);
    }
    ran.map_err(|stop| match stop {
        Stop::Late => {
            let seconds = time_max.as_secs_f32();
            format!(
                "took longer than {seconds} s and was ended: make it quicker, or write the group into [groups]"
            )
        }
        Stop::Long => format!(
            "printed more than {GROUP_BYTES_MAX} bytes: let it print ranges, as in `web[01-40]`"
        ),
    })
}

/// Why a command is not waited for.
enum Stop {
    Late,
    Long,
}

/// Reads what it prints and waits for its end.
fn follow(child: &mut Child, until: Instant) -> Result<Ran, Stop> {
    let stdout = child
        .stdout
        .take()
        .map(|pipe| drain(pipe, GROUP_BYTES_MAX + 1));
    let stderr = child
        .stderr
        .take()
        .map(|pipe| drain(pipe, STDERR_TAIL_BYTES));
    let text = |pipe: Option<Receiver<Vec<u8>>>| {
        let left = until.saturating_duration_since(Instant::now());
        let bytes = pipe.and_then(|pipe| pipe.recv_timeout(left).ok());
        bytes.map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
    };
    let stdout = text(stdout).ok_or(Stop::Late)?;
    if stdout.len() > GROUP_BYTES_MAX {
        return Err(Stop::Long);
    }
    let stderr = text(stderr).ok_or(Stop::Late)?;
    loop {
        match child.try_wait() {
            Ok(Some(status)) => {
                return Ok(Ran {
                    status,
                    stdout,
                    stderr,
                });
            }
            Ok(None) if Instant::now() < until => thread::sleep(PAUSE),
            Ok(None) | Err(_) => return Err(Stop::Late),
        }
    }
}

/// Reads a pipe to its end, on a thread of its own, and hands out the first bytes.
fn drain(mut pipe: impl Read + Send + 'static, bytes_max: usize) -> Receiver<Vec<u8>> {
    let (sender, receiver) = sync_channel(1);
    thread::spawn(move || {
        let mut bytes = Vec::new();
        // What was read before an error is all that there is.
        let _ = (&mut pipe).take(bytes_max as u64).read_to_end(&mut bytes);
        let _ = sender.send(bytes);
        let _ = io::copy(&mut pipe, &mut io::sink());
    });
    receiver
}

/// Kills it with its process group, and takes its end in.
fn end(child: &mut Child) {
    if let Ok(pid) = i32::try_from(child.id()) {
        let _ = killpg(Pid::from_raw(pid), Signal::SIGKILL);
    }
    let _ = child.wait();
}

fn ended(status: ExitStatus) -> String {
    match status.signal().map(Signal::try_from) {
        Some(Ok(signal)) => format!("killed by {signal}"),
        _ => status.to_string(),
    }
}

/// Words side by side are hosts side by side; operators may stand between them.
fn joined(output: &str) -> String {
    let mut joined = String::new();
    for word in output.split_whitespace() {
        let operand_before = !joined.is_empty() && !joined.ends_with([',', '!', '&', '^', '(']);
        if operand_before && !word.starts_with([',', '!', '&', '^', ')']) {
            joined.push(',');
        }
        joined.push_str(word);
    }
    joined.trim_matches(',').to_owned()
}

/// A long list of plain names in short.
fn folded(hosts: &str) -> String {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.,".contains(&byte);
    if hosts.len() < FOLDED_FROM_BYTES || !hosts.bytes().all(is_plain) {
        return hosts.to_owned();
    }
    match hosts.parse::<NodeSet>() {
        Ok(nodes) if nodes.len() == hosts.split(',').count() => nodes.to_string(),
        _ => hosts.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    const TIME: Duration = Duration::from_secs(10);

    fn hosts(command: &str) -> String {
        match ask(command, "web", TIME) {
            Ok(Answer::Hosts(hosts)) => hosts,
            Ok(Answer::Unknown(why)) | Err(why) => panic!("{why}"),
        }
    }

    #[test]
    fn words_are_hosts() {
        let check = |output: &str, expect: &str| assert_eq!(joined(output), expect);
        check(" web1\tweb2\n\nweb[3-4]\n", "web1,web2,web[3-4]");
        check("web1, web2,\n", "web1,web2");
        check(
            "web[1-9] !web3 & ( web1 web2 )",
            "web[1-9]!web3&(web1,web2)",
        );
        check(" \n", "");
    }

    #[test]
    fn many_hosts_are_folded() {
        let few = hosts("seq -f n%g -s ' ' 3");
        assert_eq!(few, "n1,n2,n3");
        assert_eq!(hosts("seq -f n%05g 20000"), "n[00001-20000]");
        // Nothing is lost where two names look alike, or one comes twice.
        let twice = hosts("seq -f n%g 2000; echo n1");
        assert_eq!(twice.split(',').count(), 2001);
    }

    #[test]
    fn it_has_nothing_to_read_and_may_say_much() {
        assert_eq!(hosts("cat; seq 100000 >&2 && echo $GROUP"), "web");
    }

    #[test]
    fn one_that_takes_too_long_is_ended_with_all_it_started() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("pid");
        let command = format!("sleep 60 & echo $! > {}; echo web1; wait", file.display());
        let begun = Instant::now();
        let asked = ask(&command, "web", Duration::from_millis(500));
        let why = asked.err().expect("it takes too long");
        assert!(
            why.contains("took longer than 0.5 s and was ended"),
            "{why}"
        );
        let pid = fs::read_to_string(&file).unwrap();
        let stat = format!("/proc/{}/stat", pid.trim());
        let lives = || fs::read_to_string(&stat).is_ok_and(|stat| !stat.contains(") Z "));
        while lives() {
            assert!(begun.elapsed() < TIME, "{stat} is still there");
            thread::sleep(PAUSE);
        }
    }

    #[test]
    fn one_that_closes_its_output_and_stays_is_ended() {
        let begun = Instant::now();
        let asked = ask("exec >&- 2>&-; sleep 60", "web", Duration::from_millis(300));
        assert!(asked.is_err() && begun.elapsed() < TIME);
    }

    #[test]
    fn one_that_prints_without_end() {
        let begun = Instant::now();
        let asked = ask("yes", "web", TIME);
        let why = asked.err().expect("too much");
        assert!(why.contains("printed more than 1048576 bytes"), "{why}");
        assert!(begun.elapsed() < TIME, "it was waited for");
    }

    #[test]
    fn one_that_fails_says_so() {
        let check = |command: &str, expect: &str| match ask(command, "web", TIME) {
            Ok(Answer::Unknown(why)) => assert_eq!(why, expect),
            Ok(Answer::Hosts(hosts)) => panic!("{hosts}"),
            Err(why) => panic!("{why}"),
        };
        check(
            "echo web1; exit 1",
            "from groups_command (`echo web1; exit 1`: exit status: 1)",
        );
        check(
            "kill -9 $$",
            "from groups_command (`kill -9 $$`: killed by SIGKILL)",
        );
    }
}
