//! Where ssh is to go.

use std::{fmt, str::FromStr};

/// A host as ssh knows it, and as the fleet is to call it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Destination {
    /// What ssh is told: `web1`, `ada@web1`.
    target: String,
    /// Where in it the host begins.
    host_at: usize,
}

/// A text that names no host for ssh.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` names no host for ssh: {reason}")]
pub struct DestinationError {
    text: String,
    reason: &'static str,
}

impl Destination {
    /// What ssh is told.
    #[must_use]
    pub fn target(&self) -> &str {
        &self.target
    }

    /// What the host is called in the fleet: the target without the user.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.target[self.host_at..]
    }
}

impl FromStr for Destination {
    type Err = DestinationError;

    /// Takes `HOST` and `USER@HOST`; a host may be an alias of the user's ssh configuration.
    fn from_str(text: &str) -> Result<Self, DestinationError> {
        let wrong = |reason| DestinationError {
            text: text.to_owned(),
            reason,
        };
        let host_at = text.rfind('@').map_or(0, |at| at + 1);
        if host_at == text.len() {
            return Err(wrong("write HOST or USER@HOST"));
        }
        // It would be an option, wherever it comes from.
        if text.starts_with('-') || text[host_at..].starts_with('-') {
            return Err(wrong("a name does not begin with `-`"));
        }
        if text.contains(|c: char| c.is_whitespace() || c.is_control()) {
            return Err(wrong("a name has no blanks"));
        }
        Ok(Self {
            target: text.to_owned(),
            host_at,
        })
    }
}

impl fmt::Display for Destination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.target)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_is_for_ssh_and_not_part_of_the_name() {
        let check = |text: &str, name: &str| {
            let destination: Destination = text.parse().unwrap();
            assert_eq!((destination.target(), destination.name()), (text, name));
        };
        check("web1", "web1");
        check("ada@web1", "web1");
        check("ada@corp@web1", "web1");
        check("10.0.0.7", "10.0.0.7");
    }

    #[test]
    fn what_ssh_would_take_for_something_else_is_refused() {
        for text in ["", "ada@", "-oProxyCommand=id", "ada@-x", "web 1", "web\n1"] {
            assert!(text.parse::<Destination>().is_err(), "{text:?}");
        }
    }
}
