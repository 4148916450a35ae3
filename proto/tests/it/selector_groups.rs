//! Groups in selectors, replaced by their hosts.

use std::borrow::Cow;

use fleetpool_proto::selector::{Selector, with_groups};

const GROUPS: [(&str, &str); 9] = [
    ("web", "web[1-3]"),
    ("db", " db1, db2 "),
    ("racks:r1", "r1n[1-9]"),
    ("rack1", "n1"),
    ("rack2", "n2!n3"),
    ("all", "@web,@db"),
    ("ring", "web1,@turn"),
    ("turn", "@ring"),
    ("none", " "),
];

fn hosts_of(group: &str) -> Result<String, String> {
    let known = GROUPS.iter().find(|(name, _)| *name == group);
    let hosts = known.map(|(_, hosts)| (*hosts).to_owned());
    hosts.ok_or_else(|| format!("there is no group `{group}`"))
}

#[track_caller]
fn check(text: &str, expect: &str) {
    let replaced = with_groups(text, &mut hosts_of).map_err(|error| error.to_string());
    assert_eq!(replaced.as_deref(), Ok(expect), "for `{text}`");
    Selector::parse(expect).expect("a selector");
}

#[track_caller]
fn check_error(text: &str, expect: &str) {
    let replaced = with_groups(text, &mut hosts_of).map_err(|error| error.to_string());
    assert_eq!(replaced, Err(expect.to_owned()), "for `{text}`");
}

#[test]
fn groups_are_replaced_where_they_stand() {
    check("@web", "(web[1-3])");
    check("x,@web!web2", "x,(web[1-3])!web2");
    check(" @web & ( @db ) ", " (web[1-3]) & ( (db1, db2) ) ");
    check("x,!@web", "x,!(web[1-3])");
    check("!@web", "!(web[1-3])");
    check("é,@web,ü", "é,(web[1-3]),ü");
    check("@racks:r1", "(r1n[1-9])");
    check("gpu=a100,@db,zone=b", "gpu=a100,(db1, db2),zone=b");
}

#[test]
fn groups_have_ranges() {
    check("@rack[1-2]!x", "((n1),(n2!n3))!x");
    check("@rack[1]", "(n1)");
    check_error(
        "@rack[1-3]",
        "selector `@rack[1-3]`: there is no group `rack3`",
    );
}

#[test]
fn groups_contain_groups() {
    check("@all", "((web[1-3]),(db1, db2))");
    check_error(
        "x,@ring",
        "selector `x,@ring`, at `@ring` (character 3): group `ring` stands for `web1,@turn`, at `@turn` (character 6): group \
         `turn` stands for `@ring`: group `ring` contains itself",
    );
}

#[test]
fn other_ats_are_left_alone() {
    for text in [
        "web1",
        "ada@web",
        "owner=ada@lab",
        "owner=@web",
        "@*",
        "x!@*",
    ] {
        let mut never = |group: &str| -> Result<String, String> { panic!("asked for {group}") };
        let replaced = with_groups(text, &mut never).map_err(|error| error.to_string());
        assert_eq!(replaced.as_deref(), Ok(text));
    }
}

#[test]
fn without_an_at_nothing_is_read() {
    let text = "web[,".to_owned();
    let same = with_groups(&text, &mut hosts_of).expect("not looked at");
    assert!(matches!(same, Cow::Borrowed(_)));
}

#[test]
fn errors_point_at_the_group() {
    check_error(
        "web1,@nobody",
        "selector `web1,@nobody`, at `@nobody` (character 6): there is no group `nobody`",
    );
    check_error(
        "@none",
        "selector `@none`: group `none` is empty: define its hosts, or leave it out",
    );
    check_error(
        "web1,@",
        "selector `web1,@`, at its end: the name of a group is missing: `@*` is every host",
    );
    check_error(
        "@we*",
        "selector `@we*`: groups are named in full: only `@*` is every host",
    );
    check_error(
        "@web[1-4000000000]",
        "selector `@web[1-4000000000]`: these are more than 1000 groups",
    );
    check_error(
        "@web=1",
        "selector `@web=1`, at `=1` (character 5): an operator is missing: `,` adds hosts, `!` leaves hosts out, `&` keeps \
         hosts of both",
    );
    check_error(
        "@web,web[",
        "selector `@web,web[`, at `[` (character 9): the `[` is not closed: write `]` behind its numbers",
    );
}

#[test]
fn a_group_that_is_no_selector_is_shown() {
    let mut hosts_of = |_: &str| Ok("web1 web2".to_owned());
    let error = with_groups("db1,@web", &mut hosts_of).expect_err("two words");
    assert_eq!(
        error.to_string(),
        "selector `db1,@web`, at `@web` (character 5): group `web` stands for `web1 web2`, at `web2` (character 6): an \
         operator is missing: `,` adds hosts, `!` leaves hosts out, `&` keeps hosts of both"
    );
}

#[test]
fn depth_and_length_are_bounded() {
    let chain = |length: usize| {
        let mut next = |group: &str| -> Result<String, String> {
            let number: usize = group[1..].parse().expect("a number");
            Ok(if number == length {
                "web1".to_owned()
            } else {
                format!("@g{}", number + 1)
            })
        };
        with_groups("@g1", &mut next).map(Cow::into_owned)
    };
    Selector::parse(&chain(16).expect("not too deep")).expect("a selector");
    let error = chain(17).expect_err("too deep").to_string();
    assert!(
        error.ends_with("more than 16 deep: name hosts in them"),
        "{error}"
    );
    // Each is twice the one before: 2^16 names of 20 bytes.
    let mut twice = |group: &str| -> Result<String, String> {
        let number: usize = group[1..].parse().expect("a number");
        Ok(if number == 16 {
            "a-host-of-long-name1".to_owned()
        } else {
            format!("@g{0},@g{0}", number + 1)
        })
    };
    let error = with_groups("@g1", &mut twice)
        .expect_err("long")
        .to_string();
    assert!(error.contains("is longer than 65536 bytes"), "{error}");
}

#[test]
fn of_long_groups_the_beginning_is_shown() {
    let long = "web1,".repeat(10_000);
    let error = with_groups("db1,@web", &mut |_| Ok(long.clone())).expect_err("no selector");
    assert_eq!(
        error.to_string(),
        format!(
            "selector `db1,@web`, at `@web` (character 5): group `web` stands for `{}…`, at its end: a host or `label=value` \
             is missing",
            "web1,".repeat(40)
        )
    );
}

#[test]
fn each_group_is_asked_for_once() {
    let mut asked = Vec::new();
    let mut hosts_of = |group: &str| {
        asked.push(group.to_owned());
        hosts_of(group)
    };
    with_groups("@web,@all!@web", &mut hosts_of).expect("known");
    assert_eq!(asked, ["web", "all", "db"]);
}
