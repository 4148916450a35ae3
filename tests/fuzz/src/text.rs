//! What people write: tokens, addresses, selectors.

use fleetpool_net::{Address, Token};
use fleetpool_proto::selector::{Selector, with_groups};

/// Hosts that are listed at most.
const HOSTS_MAX: usize = 1000;

fn owned(words: &[&str]) -> Vec<Vec<u8>> {
    words.iter().map(|word| word.as_bytes().to_vec()).collect()
}

pub(crate) fn token(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return;
    };
    if let Ok(token) = text.parse::<Token>() {
        let again: Token = token.to_string().parse().expect("its own words");
        assert_eq!(again.to_string(), token.to_string());
    }
}

pub(crate) fn tokens() -> Vec<Vec<u8>> {
    let ca = fleetpool_net::identity::ClusterCa::create("fuzz").expect("a name");
    let token = Token::new(ca.hash()).to_string();
    vec![
        token.into_bytes(),
        b"fp1.00.ab.cd".to_vec(),
        b"fp2.".to_vec(),
    ]
}

pub(crate) fn address(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return;
    };
    if let Ok(address) = text.parse::<Address>() {
        let again: Address = address.to_string().parse().expect("its own words");
        assert_eq!(again, address);
    }
}

pub(crate) fn addresses() -> Vec<Vec<u8>> {
    owned(&[
        "head",
        "head:7700",
        "10.0.0.1:65535",
        "[::1]",
        "[fe80::1]:1",
        "unix:/run/fleetpool/s",
    ])
}

pub(crate) fn selector(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return;
    };
    if let Ok(selector) = Selector::parse(text) {
        let labels = [
            ("gpu".to_owned(), "a100".to_owned()),
            ("rack".to_owned(), "4".to_owned()),
        ];
        for host in ["web07", "db1", ""] {
            let matches = selector.matches(host, &labels);
            assert_eq!(selector.matches(host, &labels), matches);
        }
        if let Ok(names) = selector.names(HOSTS_MAX) {
            assert!(names.len() <= HOSTS_MAX);
            for name in names {
                assert!(selector.matches(&name, &[]), "{name:?} of {text:?}");
            }
        }
    }
    // Groups that name each other, one that is not there, and one that is wrong.
    let mut hosts_of = |name: &str| match name {
        "a" => Ok("@b,web1".to_owned()),
        "b" => Ok("@a".to_owned()),
        "wrong" => Ok("[".to_owned()),
        "large" => Ok("web[1-9999]".repeat(100)),
        _ => Err("there is no such group".to_owned()),
    };
    if let Ok(replaced) = with_groups(text, &mut hosts_of) {
        Selector::parse(&replaced).ok();
    }
}

pub(crate) fn selectors() -> Vec<Vec<u8>> {
    owned(&[
        "*",
        "web7,web*,web?",
        "web[01-40]",
        "web[1,3,9-20/2]",
        "web[01-40,!03]",
        "gpu=a100,zone!=b,rack=[1-4]",
        "web[1-9]!web3",
        "!db1",
        "web*&rack=4^db1",
        "web[1-3]!(web1,web2)",
        "((web1))",
        "@*",
        "@a,@b",
        "@rack[1-3]!@large",
        "ada@web[1-2]",
        "n[1-2]c[3-4]",
    ])
}
