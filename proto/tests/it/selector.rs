//! The language of `--on`: what is meant, and what is said when it cannot be read.

use fleetpool_proto::selector::Selector;

/// The fleet that every case selects from.
const FLEET: [(&str, &[(&str, &str)]); 9] = [
    ("web01", &[("zone", "a"), ("rack", "1")]),
    ("web02", &[("zone", "a"), ("rack", "2")]),
    ("web03", &[("zone", "b"), ("rack", "3")]),
    ("web10", &[("zone", "b"), ("gpu", "a100")]),
    ("db1", &[("zone", "a"), ("gpu", "a100")]),
    ("db2", &[("zone", "c"), ("gpu", "t4")]),
    ("db10", &[]),
    ("r1n01", &[("rack", "12")]),
    ("r2n03", &[]),
];

fn selected(text: &str) -> Result<String, String> {
    let selector = Selector::parse(text).map_err(|error| error.to_string())?;
    let chosen = FLEET.iter().filter(|(host, labels)| {
        let labels: Vec<_> = labels
            .iter()
            .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
            .collect();
        selector.matches(host, &labels)
    });
    Ok(chosen.map(|(host, _)| *host).collect::<Vec<_>>().join(" "))
}

#[track_caller]
fn check(text: &str, expect: &str) {
    assert_eq!(selected(text).as_deref(), Ok(expect), "for `{text}`");
}

#[track_caller]
fn check_error(text: &str, expect: &str) {
    assert_eq!(selected(text), Err(expect.to_owned()), "for `{text}`");
}

const ALL: &str = "web01 web02 web03 web10 db1 db2 db10 r1n01 r2n03";

#[test]
fn nothing_and_a_star_are_every_host() {
    check("", ALL);
    check("   ", ALL);
    check("*", ALL);
}

#[test]
fn names_and_globs() {
    check("db1", "db1");
    check("nobody", "");
    check("db?", "db1 db2");
    check("db*", "db1 db2 db10");
    check("*1*0*", "web10 db10 r1n01");
    check("*n*3", "r2n03");
    check("DB1", "");
}

#[test]
fn ranges_are_padded_as_written() {
    check("web[01-40]", "web01 web02 web03 web10");
    check("web[1-40]", "web10");
    check("db[1-10]", "db1 db2 db10");
    check("db[01-10]", "db10");
    check("web[01-40,!03]", "web01 web02 web10");
    check("web[01,03]", "web01 web03");
    check("web[01-10/2]", "web01 web03");
    check("web[08-100]", "web10");
    check("r[1-2]n[01-02]", "r1n01");
    check("r[1-2]n*", "r1n01 r2n03");
    check("db1[0-5]", "db10");
    check("w*[1-3]", "web01 web02 web03");
}

#[test]
fn operators_go_from_left_to_right() {
    check("db1,web01", "web01 db1");
    check("db1, web01 ,db2", "web01 db1 db2");
    check("db*!db10", "db1 db2");
    check("db*,!db10", "db1 db2");
    check("!web*", "db1 db2 db10 r1n01 r2n03");
    check("web*&*1*", "web01 web10");
    check("db*^*10", "web10 db1 db2");
    check("db1,web*!web10,db2", "web01 web02 web03 db1 db2");
    check("db1&web*,db2", "db2");
}

#[test]
fn parentheses_come_first() {
    check("db*!(db1,db10)", "db2");
    check("db*!db1,db10", "db2 db10");
    check("(web*,db*)&(*01,*10)", "web01 web10 db10");
    check(" ( web01 , ( db1 ) ) ", "web01 db1");
    check("web*^(web*&(web01,web02))", "web03 web10");
    check("web*&(!web10)", "web01 web02 web03");
    check("!(web*,db*)", "r1n01 r2n03");
}

#[test]
fn parentheses_keep_conditions_apart() {
    check("gpu=a100,zone=b", "web10");
    check("(gpu=a100),zone=b", "web03 web10 db1");
    check("(gpu=a100,zone!=b)!web*", "db1");
    check("web*&(gpu=a100,zone=b)", "web10");
}

#[test]
fn labels() {
    check("gpu=a100", "web10 db1");
    check("gpu=*", "web10 db1 db2");
    check("gpu!=*", "web01 web02 web03 db10 r1n01 r2n03");
    check("zone!=a", "web03 web10 db2 db10 r1n01 r2n03");
    check("rack=[1-2]", "web01 web02");
    check("rack=1*", "web01 r1n01");
}

#[test]
fn labels_side_by_side_narrow_each_other() {
    check("gpu=a100,zone!=b", "db1");
    check("zone=a,zone=b", "web01 web02 web03 web10 db1");
    check("zone=a,zone=b,gpu=a100", "web10 db1");
    check("zone!=a,zone!=b,gpu=*", "db2");
    check("web*&gpu=a100,zone=b", "web10");
    check("zone=a!gpu=a100", "web01 web02");
    check("zone=c,web01", "web01 db2");
    check("!gpu=a100", "web01 web02 web03 db2 db10 r1n01 r2n03");
}

#[test]
fn errors_point_at_the_place_and_say_how() {
    check_error(
        "web[01-40",
        "selector `web[01-40`, at `[01-40` (character 4): the `[` is not closed: write `]` behind its numbers",
    );
    check_error(
        "web[a-c]",
        "selector `web[a-c]`, at `a-c]` (character 5): brackets hold numbers, as in `[01-40,!03]`; any text is `*`",
    );
    check_error(
        "web[40-01]",
        "selector `web[40-01]`, at `40-01]` (character 5): counts backwards: write `01-40`",
    );
    check_error(
        "web[1-040]",
        "selector `web[1-040]`, at `1-040]` (character 5): pads its ends differently: write as many digits in both, as in \
         `01-40`",
    );
    check_error(
        "web[!3]",
        "selector `web[!3]`, at `[!3]` (character 4): only leaves numbers out: say of which, as in `[01-40,!03]`",
    );
    check_error(
        "web[1-9/0]",
        "selector `web[1-9/0]`, at `1-9/0]` (character 5): a step of 0 goes nowhere",
    );
    check_error(
        "web[99999999999999999999]",
        "selector `web[99999999999999999999]`, at `99999999999999999999]` (character 5): the number is too large",
    );
    check_error(
        "web1,",
        "selector `web1,`, at its end: a host or `label=value` is missing",
    );
    check_error(
        "web1]",
        "selector `web1]`, at `]` (character 5): `]` without a `[` before it",
    );
    check_error(
        "wéb1 web2",
        "selector `wéb1 web2`, at `web2` (character 6): an operator is missing: `,` adds hosts, `!` leaves hosts out, `&` \
         keeps hosts of both",
    );
    check_error(
        "zone=",
        "selector `zone=`, at its end: a value is missing: `zone=*` stands for any",
    );
    check_error(
        "z*=a",
        "selector `z*=a`: the name of a label is plain text, as in `gpu=a100`",
    );
    check_error(
        "=a",
        "selector `=a`: the name of a label is plain text, as in `gpu=a100`",
    );
}

#[test]
fn parentheses_that_do_not_fit_are_shown() {
    check_error(
        "db1,(web1,web2",
        "selector `db1,(web1,web2`, at `(web1,web2` (character 5): the `(` is not closed: write `)` behind its hosts",
    );
    check_error(
        "((web1)",
        "selector `((web1)`: the `(` is not closed: write `)` behind its hosts",
    );
    check_error(
        "(web1))",
        "selector `(web1))`, at `)` (character 7): `)` without a `(` before it",
    );
    check_error(")", "selector `)`: `)` without a `(` before it");
    check_error(
        "db1,( )",
        "selector `db1,( )`, at `( )` (character 5): nothing is in the parentheses: name hosts in them, or leave them out",
    );
    check_error(
        "(db1,)",
        "selector `(db1,)`, at `)` (character 6): a host or `label=value` is missing",
    );
    check_error(
        "(db1]",
        "selector `(db1]`, at `]` (character 5): `]` without a `[` before it",
    );
    check_error(
        "web(1)",
        "selector `web(1)`, at `(1)` (character 4): an operator is missing: `,` adds hosts, `!` leaves hosts out, `&` \
         keeps hosts of both",
    );
    check_error(
        "(a=b)=c",
        "selector `(a=b)=c`, at `=c` (character 6): an operator is missing: `,` adds hosts, `!` leaves hosts out, `&` \
         keeps hosts of both",
    );
}

#[test]
fn parentheses_nest_so_far_and_no_further() {
    let nested = |deep: usize| format!("{}db1{}", "(".repeat(deep), ")".repeat(deep));
    check(&nested(64), "db1");
    let error = selected(&nested(65)).expect_err("too deep");
    assert!(
        error.contains("(character 65): parentheses are nested deeper than 64"),
        "{error}"
    );
    // Neither takes the stack.
    selected(&"(".repeat(60_000)).expect_err("too deep");
}

#[test]
fn groups_are_the_clients_to_replace() {
    check_error(
        "web*&@db",
        "selector `web*&@db`, at `@db` (character 6): groups are known where the client is, and it has not put this one's \
         hosts in its place: name the hosts, or give them a label (`fleetpool agent --label role=web`) and write \
         `role=web`",
    );
    check("@*", ALL);
    check("@*!(@*)", "");
    check("web*&@*", "web01 web02 web03 web10");
}

#[test]
fn an_at_within_a_word_is_a_character() {
    let matches = |text: &str, host: &str| {
        let labels = [("owner".to_owned(), "ada@lab".to_owned())];
        Selector::parse(text).unwrap().matches(host, &labels)
    };
    assert!(matches("ada@web[1-3]", "ada@web2"));
    assert!(!matches("ada@web[1-3]", "web2"));
    assert!(matches("owner=ada@*", "web2"));
    assert!(!matches("owner=@ada", "web2"));
}

#[test]
fn a_hostile_pattern_takes_no_time() {
    let text = format!("{}b", "*a".repeat(2_000));
    let selector = Selector::parse(&text).expect("a pattern");
    assert!(!selector.matches(&"a".repeat(255), &[]));
}

#[test]
fn a_huge_selector_is_refused() {
    let error = Selector::parse(&"x,".repeat(40_000))
        .expect_err("too long")
        .to_string();
    assert!(
        error.ends_with("is longer than 65536 bytes: use a label or a range"),
        "{error}"
    );
}
