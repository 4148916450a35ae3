//! `--user NAME`: this program again, as the first of a task's words, becomes that user and then the command.
//!
//! Only an agent that is root's lets it: another could not end what it has started (G6), and says so in place of starting it.

use std::{
    ffi::{CString, OsString},
    io::Write as _,
    os::unix::process::CommandExt as _,
    process::{Command, exit},
};

use fleetpool_proto::command::Word;
use nix::unistd::{AccessFlags, User, access, geteuid, initgroups, setgid, setuid};

use crate::archive::PROGRAM;

/// The hidden first argument; the user and the command follow.
const VERB: &str = "__fleetpool-as";
/// Exit statuses that shells have for this.
const CANNOT: i32 = 126;
const NOT_FOUND: i32 = 127;

/// What stands before a command that is to be another user's.
pub(crate) fn words(user: &str) -> Vec<Word> {
    [PROGRAM, VERB, user].map(Word::literal).into()
}

/// Becomes a user's command, and never returns, when this process was started for that.
pub(crate) fn run_if_asked() {
    let mut args = std::env::args_os().skip(1);
    if args.next().is_none_or(|verb| verb != VERB) {
        return;
    }
    let (status, why) = become_command(args.collect());
    let _ = writeln!(std::io::stderr(), "fleetpool: {why}");
    exit(status)
}

/// Returns only what went wrong.
fn become_command(args: Vec<OsString>) -> (i32, String) {
    let [user, program, arguments @ ..] = &args[..] else {
        return (CANNOT, "--user is told a user and a command".to_owned());
    };
    let name = user.to_string_lossy();
    let mut command = Command::new(program);
    match user_named(&name).and_then(|user| switch(&user).map(|()| user)) {
        Ok(user) => at_home_where_it_has_to_be(&mut command, &user)
            .env("HOME", &user.dir)
            .env("USER", &user.name)
            .env("LOGNAME", &user.name)
            .env("SHELL", &user.shell),
        Err(why) => return (CANNOT, why),
    };
    let error = command.args(arguments).exec();
    (
        NOT_FOUND,
        format!("cannot start {}: {error}", program.display()),
    )
}

fn user_named(name: &str) -> Result<User, String> {
    match User::from_name(name) {
        Ok(Some(user)) => Ok(user),
        Ok(None) => Err(format!("there is no user {name} on this host")),
        Err(error) => Err(format!("cannot look the user {name} up: {error}")),
    }
}

/// The agent's folder is the agent's own: who may not look into it is better off at home.
fn at_home_where_it_has_to_be<'a>(command: &'a mut Command, user: &User) -> &'a mut Command {
    let looks = AccessFlags::R_OK | AccessFlags::X_OK;
    match access(".", looks).is_err() && access(&user.dir, looks).is_ok() {
        true => command.current_dir(&user.dir),
        false => command,
    }
}

/// Takes on the user's groups and number, for good.
fn switch(user: &User) -> Result<(), String> {
    if geteuid() == user.uid {
        return Ok(());
    }
    if !geteuid().is_root() {
        return Err(format!(
            "this host's agent is not root's, so its tasks cannot be {0}'s: deploy it with --run-as root, or say `sudo -n -u {0}` in front \
             of the command in place of --user, where sudo lets it",
            user.name
        ));
    }
    let name = CString::new(user.name.as_str()).map_err(|error| error.to_string())?;
    initgroups(&name, user.gid)
        .and_then(|()| setgid(user.gid))
        .and_then(|()| setuid(user.uid))
        .map_err(|error| format!("cannot become {}: {error}", user.name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_is_not_there_is_named() {
        let args = ["no-such-user", "true"].map(OsString::from).to_vec();
        let (status, why) = become_command(args);
        assert_eq!(
            (status, why.as_str()),
            (126, "there is no user no-such-user on this host")
        );
    }
}
