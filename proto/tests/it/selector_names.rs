//! The hosts that a selector names where no fleet is known.

use fleetpool_proto::selector::Selector;
use proptest::{prelude::*, sample::select};

/// Far more than any case names.
const MAX: usize = 1000;

fn names(text: &str, max: usize) -> Result<Vec<String>, String> {
    let selector = Selector::parse(text).map_err(|error| error.to_string())?;
    selector.names(max).map_err(|error| error.to_string())
}

#[track_caller]
fn check(text: &str, expect: &str) {
    let named = names(text, MAX).map(|names| names.join(" "));
    assert_eq!(named.as_deref(), Ok(expect), "for `{text}`");
}

#[track_caller]
fn check_error(text: &str, expect: &str) {
    assert_eq!(names(text, MAX), Err(expect.to_owned()), "for `{text}`");
}

#[test]
fn in_the_order_written_and_each_once() {
    check("db1", "db1");
    check("db2,db1,db2", "db2 db1");
    check("web[08-10],db1", "web08 web09 web10 db1");
    check("web[3,1-2,1]", "web3 web1 web2");
    check("web[1-9/4]", "web1 web5 web9");
    check("web[01-05,!03]", "web01 web02 web04 web05");
    check("r[1-2]n[1-2]", "r1n1 r1n2 r2n1 r2n2");
    // Two ways to the same name.
    check("n[1,11][1,11]", "n11 n111 n1111");
    check("web1,web01", "web1 web01");
    check("[1-2].example.org", "1.example.org 2.example.org");
    check(
        "web[18446744073709551614-18446744073709551615]",
        "web18446744073709551614 web18446744073709551615",
    );
}

#[test]
fn users_before_hosts() {
    check("ada@web[1-2],web3", "ada@web1 ada@web2 web3");
    check("ada@web1,web1", "ada@web1 web1");
}

#[test]
fn operators_work_on_sets() {
    check("web[1-4]!web3", "web1 web2 web4");
    check("web[1-4],!web3,db1", "web1 web2 web4 db1");
    check("web[1-4]!web3,web3", "web1 web2 web4 web3");
    check("web[1-4]&web[3-9]", "web3 web4");
    check("web[1-3]^web[2-5]", "web1 web4 web5");
    check("web[1-6]!(web3,web[5-6])", "web1 web2 web4");
    check("(web1,db1)&(db1,web2),x", "db1 x");
    check("web1!web1", "");
}

#[test]
fn what_cannot_be_listed_can_be_taken_away() {
    check("web[08-11]!web1?", "web08 web09");
    check("web[08-11],db1&web*", "web08 web09 web10 web11");
    check("web[1-3]&(!web2)", "web1 web3");
    check("web[1-3]!web[2-4000000000]", "web1");
    check("web[1-3]&@*", "web1 web2 web3");
}

#[test]
fn what_only_a_fleet_knows_is_said() {
    check_error(
        "db1,web*",
        "selector `db1,web*`, at `web*` (character 5): `*` stands for hosts of a fleet, and none is asked here: write what \
         they are called, as in `web[01-40]`",
    );
    check_error(
        "web?",
        "selector `web?`: `?` stands for hosts of a fleet, and none is asked here: write what they are called, as in \
         `web[01-40]`",
    );
    check_error(
        "web1,(db1,gpu=a100)",
        "selector `web1,(db1,gpu=a100)`, at `gpu=a100)` (character 11): labels are known of hosts in a fleet, and none is \
         asked here: write names, as in `web[01-40]`",
    );
    check_error(
        "web1!gpu!=a100",
        "selector `web1!gpu!=a100`, at `gpu!=a100` (character 6): labels are known of hosts in a fleet, and none is asked \
         here: write names, as in `web[01-40]`",
    );
    check_error(
        "!web3",
        "selector `!web3`: hosts are left out of all there are, and none is known here: name those that are left, as in \
         `web[01-40]!web03`",
    );
    check_error(
        "web1,(!db1)",
        "selector `web1,(!db1)`, at `!db1)` (character 7): hosts are left out of all there are, and none is known here: \
         name those that are left, as in `web[01-40]!web03`",
    );
    check_error(
        "",
        "selector ``, at its end: names no host: write some, as in `web[01-40],db1`",
    );
}

#[test]
fn too_many_are_refused_before_they_are_made() {
    check_error(
        "db1,web[1-4000000000]",
        "selector `db1,web[1-4000000000]`, at `web[1-4000000000]` (character 5): these are 4000000000 hosts, and 1000 are \
         the most: is a number too large?",
    );
    let all = "[0-18446744073709551615]".repeat(100);
    let error = names(&all, MAX).expect_err("too many");
    assert!(error.contains("and 1000 are the most"), "{error}");
    assert_eq!(names("web[1-10]", 10).map(|names| names.len()), Ok(10));
    names("web[1-11]", 10).expect_err("one too many");
    assert_eq!(
        names("web[1-6],web[4-10]", 10).map(|names| names.len()),
        Ok(10)
    );
    assert_eq!(
        names("web[1-6],web[4-11]", 10),
        Err(
            "selector `web[1-6],web[4-11]`, at `web[4-11]` (character 10): with these there are more than 10 hosts"
                .to_owned()
        )
    );
    let long = format!("{}[1-1000]", "x".repeat(400));
    let error = names(&long, MAX).expect_err("too long");
    assert!(
        error.ends_with("no host has a name of 401 bytes: commas go between names"),
        "{error}"
    );
}

/// Numbers in brackets, few enough to be tried out; some left out.
fn brackets() -> impl Strategy<Value = String> {
    let range = (0..12_u32, 0..4_u32, 1..3_u32, any::<bool>()).prop_map(
        |(from, more, step, padded)| match (more, padded) {
            (0, true) => format!("{from:02}"),
            (0, false) => from.to_string(),
            (_, true) => format!("{from:02}-{:02}/{step}", from + more),
            (_, false) => format!("{from}-{}/{step}", from + more),
        },
    );
    let left_out = prop::option::weighted(0.3, (0..12_u32).prop_map(|n| format!(",!{n}")));
    (prop::collection::vec(range, 1..3), left_out)
        .prop_map(|(ranges, out)| format!("[{}{}]", ranges.join(","), out.unwrap_or_default()))
}

/// Selectors without `*`, `?` and labels, and without a leading `!`.
fn selector() -> impl Strategy<Value = String> {
    let word = prop_oneof![
        2 => (select(vec!["a", "b"]), brackets()).prop_map(|(name, numbers)| name.to_owned() + &numbers),
        1 => (select(vec!["a", "b"]), 0..12_u32).prop_map(|(name, number)| format!("{name}{number}")),
        1 => Just("a[1,11][1,11]".to_owned()),
    ];
    word.prop_recursive(3, 12, 4, |inner| {
        let operators = select(vec![",", "!", "&", "^", " ,! "]);
        let more = prop::collection::vec((operators, inner.clone()), 0..4);
        (inner, more).prop_map(|(first, more)| {
            let more = more.into_iter().map(|(op, word)| format!("{op}{word}"));
            format!("({first}{})", more.collect::<String>())
        })
    })
}

/// Every name that such a selector can name.
fn universe() -> Vec<String> {
    let numbers = (0..16)
        .flat_map(|n| [n.to_string(), format!("{n:02}")])
        .chain(["11", "111", "1111"].map(str::to_owned));
    let numbers: std::collections::BTreeSet<_> = numbers.collect();
    let names = ["a", "b"].map(|name| numbers.iter().map(move |n| format!("{name}{n}")));
    names.into_iter().flatten().collect()
}

proptest! {
    #[test]
    fn what_is_named_is_what_matches(text in selector()) {
        let selector = Selector::parse(&text).expect("a selector");
        let mut named = selector.names(MAX).expect("names");
        let count = named.len();
        named.sort();
        named.dedup();
        prop_assert_eq!(named.len(), count, "each once");
        let mut matched = universe();
        matched.retain(|host| selector.matches(host, &[]));
        matched.sort();
        prop_assert_eq!(named, matched);
    }
}
