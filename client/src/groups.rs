//! Groups of hosts, `@rack1`: where they come from, and selectors with their hosts in their place.
//!
//! Groups are the user's, not the fleet's: coordinators know none. Whoever takes a selector from a user replaces its
//! groups before it is sent or listed. They are looked for, in this order, in
//!
//! 1. the table `[groups]` of `~/.config/fleetpool/config.toml`: `rack1 = "web[01-20]"`, a selector, which may name
//!    groups again;
//! 2. what the command prints that `groups_command` names there, a line of `sh -c` with the group's name in `$GROUP`:
//!    words and lines are hosts; another exit status than 0, or no word, says that there is no such group;
//! 3. ClusterShell's own configuration.
//!
//! A selector without groups reads no file and runs nothing.

mod clustershell;
mod command;

use std::{borrow::Cow, collections::BTreeSet, path::PathBuf};

use clustershell::ClusterShell;
use fleetpool_deploy::{Destination, DestinationError};
use fleetpool_proto::{
    limits::{GROUP_TIME_MAX, HOSTS_LISTED_MAX},
    selector::{Selector, with_groups},
};

use crate::{
    config::{self, Config},
    error::Error,
};

/// Groups whose names are shown when another is not there.
const SHOWN_MAX: usize = 8;

/// The selector with each group in it replaced by its hosts, in parentheses. May run commands of the user's, for 10 s
/// each at most.
///
/// ```
/// # fn main() -> Result<(), fleetpool::Error> {
/// assert_eq!(fleetpool::groups::expand("web[01-40]!web07")?, "web[01-40]!web07");
/// # Ok(()) }
/// ```
///
/// # Errors
/// When there is no such group, or the selector or the configuration file makes no sense.
pub fn expand(selector: &str) -> Result<Cow<'_, str>, Error> {
    let mut sources = None;
    let expanded = with_groups(selector, &mut |group| {
        let sources = match &mut sources {
            Some(sources) => sources,
            none => none.insert(Sources::of_user()?),
        };
        sources.hosts_of(group)
    });
    expanded.map_err(|error| Error::Invalid(error.to_string()))
}

/// The hosts that a selector names by itself, where there is no fleet to ask: in the order written, each once.
///
/// ```
/// # fn main() -> Result<(), fleetpool::Error> {
/// let names = fleetpool::groups::names("web[08-11,!10],ada@db1")?;
/// assert_eq!(names, ["web08", "web09", "web11", "ada@db1"]);
/// # Ok(()) }
/// ```
///
/// # Errors
/// As [`expand`]; when it names hosts by `*`, `?`, a label or a `!` with nothing before it, or more than 100,000.
pub fn names(selector: &str) -> Result<Vec<String>, Error> {
    let expanded = expand(selector)?;
    let names = Selector::parse(&expanded).and_then(|selector| selector.names(HOSTS_LISTED_MAX));
    names.map_err(|error| Error::Invalid(error.to_string()))
}

/// The hosts that a nodeset names, as ssh is told them: `web[01-08]`, `ada@web1`, `@rack1`.
///
/// # Errors
/// As [`names`]; when one of them is no name for ssh, or none is named, or one by two users.
pub fn destinations(nodeset: &str) -> Result<Vec<Destination>, Error> {
    let mut seen = BTreeSet::new();
    let destination = |name: String| {
        let destination: Destination = name
            .parse()
            .map_err(|error: DestinationError| Error::Invalid(error.to_string()))?;
        if !seen.insert(destination.name().to_owned()) {
            return Err(Error::Invalid(format!(
                "`{nodeset}` names {} twice, for two users: a host has one agent",
                destination.name()
            )));
        }
        Ok(destination)
    };
    let names = names(nodeset)?;
    if names.is_empty() {
        return Err(Error::Invalid(format!("`{nodeset}` names no host")));
    }
    names.into_iter().map(destination).collect()
}

/// What one place says of a group.
enum Answer {
    /// Its hosts, a selector.
    Hosts(String),
    /// It has none there; what was asked and what it said, behind "not".
    Unknown(String),
}

/// Where groups come from.
struct Sources {
    config: Config,
    /// The configuration file, where there is a home.
    file: Option<PathBuf>,
    /// Read when it is needed.
    clustershell: Option<ClusterShell>,
}

impl Sources {
    fn of_user() -> Result<Self, String> {
        Ok(Self {
            config: Config::load().map_err(|error| error.to_string())?,
            file: config::file(),
            clustershell: None,
        })
    }

    /// A group's hosts.
    ///
    /// # Errors
    /// A sentence that says where it was looked for and how to define it, or what stands in the way.
    fn hosts_of(&mut self, group: &str) -> Result<String, String> {
        let mut looked = Vec::new();
        for place in [Self::table, Self::command, Self::clustershell] {
            match place(self, group)? {
                None => {}
                Some(Answer::Hosts(hosts)) => return Ok(hosts),
                Some(Answer::Unknown(place)) => looked.push(format!("not {place}")),
            }
        }
        Err(format!(
            "there is no group `{group}`: {}; {}",
            looked.join(", "),
            self.way_out(group)
        ))
    }

    fn table(&mut self, group: &str) -> Result<Option<Answer>, String> {
        let groups = &self.config.groups;
        Ok(Some(match (groups.get(group), &self.file) {
            (Some(hosts), _) => Answer::Hosts(hosts.clone()),
            (None, None) => {
                Answer::Unknown("in a configuration file, since there is no home folder".to_owned())
            }
            (None, Some(file)) => {
                let shown: Vec<_> = groups.keys().take(SHOWN_MAX).map(String::as_str).collect();
                let more = if groups.len() > SHOWN_MAX {
                    ", …"
                } else {
                    ""
                };
                let has = match shown.as_slice() {
                    [] => "none".to_owned(),
                    shown => shown.join(", ") + more,
                };
                Answer::Unknown(format!("in [groups] of {} (it has {has})", file.display()))
            }
        }))
    }

    fn command(&mut self, group: &str) -> Result<Option<Answer>, String> {
        let command = self.config.groups_command.as_deref();
        command
            .map(|command| command::ask(command, group, GROUP_TIME_MAX))
            .transpose()
    }

    fn clustershell(&mut self, group: &str) -> Result<Option<Answer>, String> {
        let clustershell = match &mut self.clustershell {
            Some(clustershell) => clustershell,
            none => none.insert(ClusterShell::load()?),
        };
        clustershell.ask(group, GROUP_TIME_MAX).map(Some)
    }

    fn way_out(&self, group: &str) -> String {
        let plain = |c: char| c.is_ascii_alphanumeric() || "-_".contains(c);
        let key = if group.chars().all(plain) {
            group.to_owned()
        } else {
            format!("\"{group}\"")
        };
        match &self.file {
            Some(file) => {
                let file = file.display();
                format!(
                    "write `{key} = \"web[01-20]\"` below [groups] in {file}, or name its hosts"
                )
            }
            None => "set HOME, or name its hosts".to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sources(config: &str) -> Sources {
        Sources {
            config: toml::from_str(config).unwrap(),
            file: Some("/home/ada/config.toml".into()),
            clustershell: Some(ClusterShell::none()),
        }
    }

    fn expanded(config: &str, selector: &str) -> Result<String, String> {
        let mut sources = sources(config);
        let expanded = with_groups(selector, &mut |group| sources.hosts_of(group));
        expanded
            .map(Cow::into_owned)
            .map_err(|error| error.to_string())
    }

    #[track_caller]
    fn check(config: &str, selector: &str, expect: &str) {
        assert_eq!(expanded(config, selector).as_deref(), Ok(expect));
    }

    const TABLE: &str =
        "[groups]\nweb = \"web[01-20]\"\nall = \"@web,@\\\"\"\n\"dc:a\" = \"@web,db1\"\n";

    #[test]
    fn groups_of_the_table() {
        check(TABLE, "@web!web03", "(web[01-20])!web03");
        check(TABLE, "@dc:a", "((web[01-20]),db1)");
    }

    #[test]
    fn groups_of_a_command() {
        let config = "groups_command = 'test \"$GROUP\" = db && printf \"db1 db2\\n\\ndb3\\n\"'\n";
        check(config, "web1,@db", "web1,(db1,db2,db3)");
        // What groups are called is never part of the command.
        let echo = "groups_command = 'printf %s \"${#GROUP}\"'\n";
        check(echo, "@a`id`;x$y", "(9)");
    }

    #[test]
    fn the_table_comes_before_the_command() {
        let config = "groups_command = 'echo $GROUP-from-command'\n[groups]\nweb = 'web1,@db'\n";
        check(config, "@web", "(web1,(db-from-command))");
    }

    #[test]
    fn a_group_that_is_nowhere() {
        let both = format!("groups_command = 'echo no $GROUP >&2; exit 3'\n{TABLE}");
        assert_eq!(
            expanded(&both, "db1,@rack9"),
            Err("selector `db1,@rack9`, at `@rack9` (character 5): there is no group `rack9`: not in [groups] of \
                 /home/ada/config.toml (it has all, dc:a, web), not from groups_command (`echo no $GROUP >&2; exit 3`: exit \
                 status: 3, it said: no rack9), not in ClusterShell's configuration (there is none in /etc/clustershell, \
                 ~/.local/etc/clustershell or ~/.config/clustershell); write `rack9 = \"web[01-20]\"` below [groups] in \
                 /home/ada/config.toml, or name its hosts"
                .to_owned())
        );
        let error = expanded("groups_command = 'true'", "@dc:x").unwrap_err();
        assert!(
            error.contains("(it has none), not from groups_command (`true`: it printed nothing)")
                && error.contains("write `\"dc:x\" = "),
            "{error}"
        );
    }

    #[test]
    fn a_group_that_is_no_selector() {
        let error = expanded(TABLE, "@all").unwrap_err();
        assert!(
            error.contains("group `all` stands for `@web,@\"`, at `@\"`"),
            "{error}"
        );
        let error = expanded("[groups]\nx = ''", "@x").unwrap_err();
        assert!(error.contains("group `x` is empty"), "{error}");
    }
}
