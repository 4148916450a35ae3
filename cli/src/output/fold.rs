//! Names of hosts in short: `web1 web2 web3` is `web[1-3]`.

use nodeset::NodeSet;

/// The nodeset of `hosts`, as ClusterShell writes it; names that are no nodes are listed as they are.
pub(crate) fn fold<'a>(hosts: impl IntoIterator<Item = &'a str>) -> String {
    let hosts: Vec<&str> = hosts.into_iter().collect();
    let list = hosts.join(",");
    if !hosts.iter().all(|host| is_node(host)) {
        return list;
    }
    match list.parse::<NodeSet>() {
        Ok(nodes) if nodes.len() == hosts.len() => nodes.to_string(),
        _ => list,
    }
}

/// Whether a nodeset's syntax leaves this name alone.
fn is_node(host: &str) -> bool {
    !host.is_empty()
        && host
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_folded() {
        let check = |hosts: &[&str], expect: &str| assert_eq!(fold(hosts.iter().copied()), expect);
        check(&["web1"], "web1");
        check(&["web1", "web2", "web3"], "web[1-3]");
        check(&["web01", "web02", "web10"], "web[01-02,10]");
        check(&["web2", "db1", "web1"], "db1,web[1-2]");
        check(
            &["a.example.org", "b.example.org"],
            "a.example.org,b.example.org",
        );
        check(&["odd name", "web1"], "odd name,web1");
        check(&[], "");
    }
}
