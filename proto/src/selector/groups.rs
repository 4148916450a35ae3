//! Groups in a selector, `@rack1`, replaced by their hosts.
//!
//! What groups there are is the caller's to know. Here is where they stand in a text, what they may contain, and how
//! far that goes.

use std::{borrow::Cow, collections::BTreeMap};

use super::{SelectorError, parse::mentions};
use crate::limits::{GROUPS_DEEP_MAX, SELECTOR_BYTES_MAX};

/// The selector `text` with each group in it replaced by its hosts, in parentheses: `@rack1!web3` becomes
/// `(web[1-20])!web3`. `hosts_of` is given a group's name, such as `rack1` or `source:rack1`, and answers with a
/// selector, which may name groups again. It is asked once for each; not at all for `@*`, which is every host, nor for
/// an `@` within a word. `@rack[1-3]` is three groups.
///
/// # Errors
/// [`SelectorError`] at the place where `text` is wrong, or where the group stands of which `hosts_of` said, in a sentence
/// for people, why it has no hosts.
pub fn with_groups<'a>(
    text: &'a str,
    hosts_of: &mut dyn FnMut(&str) -> Result<String, String>,
) -> Result<Cow<'a, str>, SelectorError> {
    if !text.contains('@') {
        return Ok(Cow::Borrowed(text));
    }
    let mut replacing = Replacing {
        hosts_of,
        known: BTreeMap::new(),
        within: Vec::new(),
    };
    replacing.text(text).map(Cow::Owned)
}

struct Replacing<'a> {
    hosts_of: &'a mut dyn FnMut(&str) -> Result<String, String>,
    /// What groups came to.
    known: BTreeMap<String, String>,
    /// The groups that are being replaced, each in the one before.
    within: Vec<String>,
}

impl Replacing<'_> {
    fn text(&mut self, text: &str) -> Result<String, SelectorError> {
        let mut replaced = String::new();
        let mut from = 0;
        for mention in mentions(text)? {
            replaced.push_str(&text[from..mention.from]);
            let hosts = self.groups(&mention.names);
            let hosts = hosts.map_err(|why| SelectorError::new(text, mention.from, why))?;
            replaced.push_str(&hosts);
            from = mention.to;
            if replaced.len() > SELECTOR_BYTES_MAX {
                let reason = format!(
                    "with this group's hosts the selector is longer than {SELECTOR_BYTES_MAX} bytes: give them a label, or \
                     write ranges in the group"
                );
                return Err(SelectorError::new(text, mention.from, reason));
            }
        }
        replaced.push_str(&text[from..]);
        Ok(replaced)
    }

    fn groups(&mut self, names: &[String]) -> Result<String, String> {
        let hosts = names.iter().map(|name| self.group(name));
        let hosts = hosts.collect::<Result<Vec<_>, _>>()?;
        match hosts.as_slice() {
            [hosts] => Ok(hosts.clone()),
            several => Ok(format!("({})", several.join(","))),
        }
    }

    fn group(&mut self, name: &str) -> Result<String, String> {
        if let Some(known) = self.known.get(name) {
            return Ok(known.clone());
        }
        if self.within.iter().any(|outer| outer == name) {
            return Err(format!("group `{name}` contains itself"));
        }
        if self.within.len() == GROUPS_DEEP_MAX {
            return Err(format!(
                "groups contain groups more than {GROUPS_DEEP_MAX} deep: name hosts in them"
            ));
        }
        let hosts = (self.hosts_of)(name)?;
        // An empty selector is every host, and an empty group none.
        if hosts.trim().is_empty() {
            return Err(format!(
                "group `{name}` is empty: define its hosts, or leave it out"
            ));
        }
        self.within.push(name.to_owned());
        let replaced = self.text(&hosts);
        self.within.pop();
        let replaced = replaced
            .map_err(|error| format!("group `{name}` stands for {}", error.place_and_reason()))?;
        let replaced = format!("({})", replaced.trim());
        self.known.insert(name.to_owned(), replaced.clone());
        Ok(replaced)
    }
}
