//! The user's own ssh: how it is started, and what it says when it fails.

use std::{ffi::OsString, process::Stdio};

use tokio::process::Command;

use crate::destination::Destination;

/// Another program in place of `ssh`, with its first arguments, blanks between them.
const SSH_ENV: &str = "FLEETPOOL_SSH";

/// What is asked of ssh beyond the user's configuration. None of it lets anybody in who would not be let in without.
const OPTIONS: &[&str] = &[
    // There is nobody to ask.
    "BatchMode=yes",
    // A host that vanishes is noticed within ten seconds.
    "ServerAliveInterval=3",
    "ServerAliveCountMax=3",
    "ConnectTimeout=10",
    // What the user's configuration wants of sessions that a person sits at.
    "PermitLocalCommand=no",
    "RemoteCommand=none",
];

/// How the exit status of ssh tells its own failure from that of the remote command.
pub(crate) const FAILED: i32 = 255;
/// Lines of ssh that are shown.
const LINES_MAX: usize = 3;

/// `ssh` that runs `remote` there, with pipes on all sides.
pub(crate) fn command(to: &Destination, remote: &str) -> Command {
    with(to, &["-o", "ClearAllForwardings=yes"], remote)
}

/// The same, and forwards what comes there to here: `forward` is what `ssh -R` is told. Ends at once where it cannot.
pub(crate) fn forwarding(to: &Destination, forward: &str, remote: &str) -> Command {
    // A connection that others share would keep the port when this one is gone.
    let own = ["-o", "ControlPath=none", "-o", "ExitOnForwardFailure=yes"];
    with(to, &[&own[..], &["-R", forward]].concat(), remote)
}

fn with(to: &Destination, options: &[&str], remote: &str) -> Command {
    let mut words = std::env::var_os(SSH_ENV)
        .and_then(|named| named.into_string().ok())
        .map(|named| named.split_whitespace().map(OsString::from).collect())
        .filter(|words: &Vec<OsString>| !words.is_empty())
        .unwrap_or_else(|| vec![OsString::from("ssh")])
        .into_iter();
    let mut command = Command::new(words.next().unwrap_or_default());
    command.args(words).arg("-T");
    for option in OPTIONS {
        command.args(["-o", option]);
    }
    command.args(options);
    command.args(["--", to.target(), remote]);
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        // A terminal's Ctrl-C is for the client, who decides what it means.
        .process_group(0)
        .kill_on_drop(true);
    command
}

/// What ssh said when it failed, in one line, with what to do where ssh does not say.
pub(crate) fn reason(stderr: &str) -> String {
    if stderr.contains("REMOTE HOST IDENTIFICATION HAS CHANGED") {
        return host_key_changed(stderr);
    }
    let lines: Vec<&str> = told(stderr).collect();
    let last = &lines[lines.len().saturating_sub(LINES_MAX)..];
    let said = last.join("; ");
    match () {
        () if said.is_empty() => "ssh failed and did not say why".to_owned(),
        () if said.contains("Host key verification failed") => format!(
            "{said}: the host's key is not among the known ones; log in with ssh once, look at its key, and accept it"
        ),
        () if said.contains("Permission denied") => format!(
            "{said}: nobody is there to type a password; see that `ssh -o BatchMode=yes` to it works, with a key or an agent"
        ),
        () => said,
    }
}

/// ssh fills a page. What matters of it: that it changed, and where the old one stands.
fn host_key_changed(stderr: &str) -> String {
    let offending = told(stderr).find(|line| line.starts_with("Offending"));
    let place = offending.map_or_else(String::new, |line| format!(" ({line})"));
    format!(
        "REMOTE HOST IDENTIFICATION HAS CHANGED, ssh says{place}: somebody may be listening in, or the host was installed \
         anew; if you know that it was, `ssh-keygen -R` takes the old key out"
    )
}

/// The lines that say something.
fn told(stderr: &str) -> impl Iterator<Item = &str> {
    let lines = stderr.lines().map(str::trim);
    lines.filter(|line| !line.is_empty() && !line.starts_with("Warning: Permanently added"))
}

/// Whether the host, or one on the way to it, had too many logins at once (`MaxStartups`) and hung up on this one: later
/// it may not.
pub(crate) fn is_crowded(stderr: &str) -> bool {
    const SIGNS: &[&str] = &[
        "kex_exchange_identification",
        "ssh_exchange_identification",
        "Exceeded MaxStartups",
        "Not allowed at this time",
        "Connection reset by",
        "Connection closed by",
    ];
    // Whoever hangs up after the login has been refused has another reason.
    let refused = stderr.contains("Permission denied") || stderr.contains("verification failed");
    !refused && SIGNS.iter().any(|sign| stderr.contains(sign))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ssh_speaks_for_itself() {
        let check = |stderr: &str, expect: &str| {
            assert!(reason(stderr).starts_with(expect), "{}", reason(stderr));
        };
        check(
            "ssh: connect to host web9 port 22: No route to host\r\n",
            "ssh: connect to host web9 port 22: No route to host",
        );
        check("", "ssh failed and did not say why");
        check(
            "ada@web1: Permission denied (publickey).",
            "ada@web1: Permission denied (publickey).: nobody is there",
        );
        check(
            "Host key verification failed.",
            "Host key verification failed.: the host's key",
        );
        check("one\ntwo\nthree\nfour\n", "two; three; four");
    }

    #[test]
    fn a_host_key_that_changed_is_said_in_a_line() {
        let page = "@@@@@@@@@@@\n@    WARNING: REMOTE HOST IDENTIFICATION HAS CHANGED!     @\n@@@@@@@@@@@\nIT IS POSSIBLE THAT \
                    SOMEONE IS DOING SOMETHING NASTY!\nOffending ED25519 key in /root/.ssh/known_hosts:3\nHost key \
                    verification failed.\n";
        let reason = reason(page);
        assert!(reason.contains("HAS CHANGED"), "{reason}");
        assert!(reason.contains("known_hosts:3"), "{reason}");
        assert!(!reason.contains('\n'));
    }

    #[test]
    fn only_who_was_hung_up_on_tries_again() {
        assert!(is_crowded(
            "kex_exchange_identification: Connection closed by remote host\nConnection closed by 10.0.0.1 port 22"
        ));
        assert!(is_crowded("Connection reset by 10.0.0.1 port 22"));
        assert!(!is_crowded(
            "ada@h: Permission denied (publickey).\nConnection closed by 10.0.0.1"
        ));
        assert!(!is_crowded(
            "ssh: connect to host h port 22: Connection refused"
        ));
    }
}
