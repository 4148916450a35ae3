//! Where a coordinator is: `host:port` or `unix:/path`.

use std::{fmt, path::PathBuf, str::FromStr};

/// The port of a coordinator whose address names none.
pub const DEFAULT_PORT: u16 = 7700;

/// Where a coordinator listens, or is dialled.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Address {
    /// `host:port`, a name or an IP address (v6 in brackets): UDP for QUIC, and TCP of the same number.
    Tcp(String),
    /// The file of a Unix socket.
    Unix(PathBuf),
}

/// Why a word is not an address.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{word:?} is not an address: {why}; write host:port, [v6]:port or unix:/path")]
pub struct AddressError {
    word: String,
    why: &'static str,
}

impl FromStr for Address {
    type Err = AddressError;

    fn from_str(word: &str) -> Result<Self, AddressError> {
        let error = |why| AddressError {
            word: word.to_owned(),
            why,
        };
        if let Some(path) = word.strip_prefix("unix:") {
            return match path {
                "" => Err(error("the path is empty")),
                path => Ok(Self::Unix(PathBuf::from(path))),
            };
        }
        let (host, port) = split(word).map_err(error)?;
        if host.is_empty() || host.contains(|c: char| c.is_whitespace() || c == '/') {
            return Err(error("the host is not a name"));
        }
        if host == "unix" {
            // With its port it would be read as the path of a socket.
            return Err(error("unix is followed by a path, and cannot be a host"));
        }
        Ok(Self::Tcp(format!("{host}:{port}")))
    }
}

/// The host (v6 with its brackets) and the port, which may be left out.
fn split(word: &str) -> Result<(&str, u16), &'static str> {
    let port = |text: &str| {
        text.parse()
            .map_err(|_| "the port is not a number up to 65535")
    };
    if word.starts_with('[') {
        let end = word.find(']').ok_or("the bracket is not closed")?;
        let (host, rest) = word.split_at(end + 1);
        host[1..end]
            .parse::<std::net::Ipv6Addr>()
            .map_err(|_| "what is in brackets is not an IPv6 address")?;
        return match rest.strip_prefix(':') {
            Some(text) => Ok((host, port(text)?)),
            None if rest.is_empty() => Ok((host, DEFAULT_PORT)),
            None => Err("something other than a port follows the bracket"),
        };
    }
    match word.split_once(':') {
        None => Ok((word, DEFAULT_PORT)),
        Some((_, rest)) if rest.contains(':') => Err("an IPv6 address needs brackets"),
        Some((host, text)) => Ok((host, port(text)?)),
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(host_port) => f.write_str(host_port),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(word: &str, expect: Result<&str, &str>) {
        let parsed = word.parse::<Address>();
        match expect {
            Ok(text) => assert_eq!(parsed.unwrap().to_string(), text),
            Err(why) => assert_eq!(parsed.unwrap_err().why, why),
        }
    }

    #[test]
    fn addresses_are_read_as_people_write_them() {
        check("head", Ok("head:7700"));
        check("head:81", Ok("head:81"));
        check("10.0.0.1:81", Ok("10.0.0.1:81"));
        check("[::]:7700", Ok("[::]:7700"));
        check("[::1]", Ok("[::1]:7700"));
        check("unix:/run/fp.sock", Ok("unix:/run/fp.sock"));
        check("unix:", Err("the path is empty"));
        check(
            "unix",
            Err("unix is followed by a path, and cannot be a host"),
        );
        check("head:http", Err("the port is not a number up to 65535"));
        check("head:70000", Err("the port is not a number up to 65535"));
        check("::1", Err("an IPv6 address needs brackets"));
        check("[::1", Err("the bracket is not closed"));
        check(
            "[head]:1",
            Err("what is in brackets is not an IPv6 address"),
        );
        check(
            "[::1]x",
            Err("something other than a port follows the bracket"),
        );
        check("", Err("the host is not a name"));
        check("quic://head", Err("the port is not a number up to 65535"));
    }
}
