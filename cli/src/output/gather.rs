//! `--gather`: hosts that printed the same and ended the same are shown once, under their folded names.

use std::collections::BTreeMap;

use fleetpool_proto::message::Stream;

use super::{diff, fold::fold};
use crate::run::ended::Ended;

/// How groups are shown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct GatherOptions {
    /// The largest group in whole, of the others only how they differ from it.
    pub(crate) diff: bool,
}

/// Hosts by what they printed.
#[derive(Debug, Default)]
pub(crate) struct Gather {
    options: GatherOptions,
    groups: BTreeMap<Key, Group>,
}

/// What makes two hosts' ends the same: the hash of the output, and the end in words.
type Key = ([u8; 32], String);

#[derive(Debug)]
struct Group {
    hosts: Vec<String>,
    stdout: Vec<u8>,
    stderr: Vec<u8>,
    /// The end, unless it is success.
    end: Option<String>,
}

/// As ClusterShell draws it.
const RULE: &str = "---------------";

impl Gather {
    /// Shows groups as `options` say.
    pub(crate) fn new(options: GatherOptions) -> Self {
        Self {
            options,
            groups: BTreeMap::new(),
        }
    }

    /// Adds what a host printed and how it ended.
    pub(crate) fn add(&mut self, ended: &Ended, stdout: &[u8], stderr: &[u8]) {
        let words = ended.words();
        let key = (hash(stdout, stderr), words.clone());
        let group = self.groups.entry(key).or_insert_with(|| Group {
            hosts: Vec::new(),
            stdout: stdout.to_vec(),
            stderr: stderr.to_vec(),
            end: (!ended.outcome.is_success()).then_some(words),
        });
        group.hosts.push(ended.host.clone());
    }

    /// Everything to print: the largest group first.
    pub(crate) fn finish(&mut self) -> Vec<(Stream, Vec<u8>)> {
        let mut groups: Vec<Group> = std::mem::take(&mut self.groups).into_values().collect();
        groups.iter_mut().for_each(|group| group.hosts.sort());
        groups.sort_by(|a, b| {
            b.hosts
                .len()
                .cmp(&a.hosts.len())
                .then_with(|| a.hosts.cmp(&b.hosts))
        });
        let most = groups.first();
        groups
            .iter()
            .enumerate()
            .flat_map(
                |(at, group)| match most.filter(|_| self.options.diff && at > 0) {
                    Some(most) => vec![(Stream::Stdout, group.diff(most))],
                    None => group.whole(),
                },
            )
            .collect()
    }
}

impl Group {
    fn names(&self) -> String {
        fold(self.hosts.iter().map(String::as_str))
    }

    fn header(&self) -> String {
        let end = self
            .end
            .as_deref()
            .map(|end| format!(": {end}"))
            .unwrap_or_default();
        format!(
            "{RULE}\n{} ({}){end}\n{RULE}\n",
            self.names(),
            self.hosts.len()
        )
    }

    /// The header and what was printed; lines of stderr go there, under the names of the hosts.
    fn whole(&self) -> Vec<(Stream, Vec<u8>)> {
        let stdout = [self.header().as_bytes(), &with_newline(&self.stdout)].concat();
        let prefix = format!("{}: ", self.names());
        let lines = self.stderr.split_inclusive(|byte| *byte == b'\n');
        let stderr: Vec<u8> = lines
            .flat_map(|line| [prefix.as_bytes(), &with_newline(line)].concat())
            .collect();
        let both = [(Stream::Stdout, stdout), (Stream::Stderr, stderr)];
        both.into_iter()
            .filter(|(_, text)| !text.is_empty())
            .collect()
    }

    /// How it differs from `most`, in its output or else in its end.
    fn diff(&self, most: &Self) -> Vec<u8> {
        let (from, to) = (most.names(), self.names());
        let mut text = String::new();
        if self.end != most.end {
            let end = |group: &Self| group.end.clone().unwrap_or_else(|| "done".to_owned());
            text += &format!(
                "{RULE}\n{to} ({}): {}, not {} as {from}\n{RULE}\n",
                self.hosts.len(),
                end(self),
                end(most)
            );
        }
        text += &diff::unified((&from, &most.stdout), (&to, &self.stdout));
        text += &diff::unified(
            (&format!("{from} stderr"), &most.stderr),
            (&format!("{to} stderr"), &self.stderr),
        );
        text.into_bytes()
    }
}

/// The last line ended, so that the next header begins a line.
fn with_newline(bytes: &[u8]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    if bytes.last().is_some_and(|last| *last != b'\n') {
        bytes.push(b'\n');
    }
    bytes
}

fn hash(stdout: &[u8], stderr: &[u8]) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&(stdout.len() as u64).to_le_bytes());
    hasher.update(stdout);
    hasher.update(stderr);
    *hasher.finalize().as_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::ended::tests::ended;

    fn gather(diff: bool) -> String {
        let mut gather = Gather::new(GatherOptions { diff });
        let mut add = |host: &str, exit, stdout: &str, stderr: &str| {
            let ended = Ended {
                host: host.into(),
                ..ended(1, "x", exit)
            };
            gather.add(&ended, stdout.as_bytes(), stderr.as_bytes());
        };
        add("web2", 0, "one\ntwo\nthree\n", "");
        add("web4", 0, "one\n2\nthree\n", "");
        add("web1", 0, "one\ntwo\nthree\n", "");
        add("web5", 1, "one\ntwo\nthree\n", "oops");
        add("web3", 0, "one\ntwo\nthree\n", "");
        let text: Vec<u8> = gather
            .finish()
            .into_iter()
            .flat_map(|(_, text)| text)
            .collect();
        String::from_utf8(text).unwrap()
    }

    #[test]
    fn hosts_that_agree_are_shown_once() {
        insta::assert_snapshot!(gather(false), @r"
        ---------------
        web[1-3] (3)
        ---------------
        one
        two
        three
        ---------------
        web4 (1)
        ---------------
        one
        2
        three
        ---------------
        web5 (1): exit 1
        ---------------
        one
        two
        three
        web5: oops
        ");
    }

    #[test]
    fn differences_are_shown_against_the_largest_group() {
        insta::assert_snapshot!(gather(true), @r"
        ---------------
        web[1-3] (3)
        ---------------
        one
        two
        three
        --- web[1-3]
        +++ web4
        @@ -1,3 +1,3 @@
         one
        -two
        +2
         three
        ---------------
        web5 (1): exit 1, not done as web[1-3]
        ---------------
        --- web[1-3] stderr
        +++ web5 stderr
        @@ -0,0 +1 @@
        +oops
        \ No newline at end of file
        ");
    }
}
