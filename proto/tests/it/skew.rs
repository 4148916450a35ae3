//! Peers of neighbouring versions: fields and columns that one of them does not have.

use bytes::Bytes;
use fleetpool_proto::{
    Attempt, Frame, Message, PoolId, Role, SlotNo,
    frame::encode_header,
    message::{FromAgent, ReportRow},
    pool::ContentHash,
    version::{Hello, HelloReply, PROTOCOL, PROTOCOL_MIN, Welcome, negotiate},
};
use serde::Serialize;

/// A message as another version would write it: the same names, other fields.
fn frame_of(value: &impl Serialize, body: &'static str) -> Frame {
    let body = match body {
        "" => Vec::new(),
        body => vec![Bytes::from_static(body.as_bytes())],
    };
    Frame {
        header: encode_header(value),
        body,
    }
}

#[test]
fn a_hello_of_any_version_can_be_read() {
    #[derive(Serialize)]
    struct Future<'a> {
        protocol: u16,
        protocol_min: u16,
        role: Role,
        colour: &'a str,
    }
    let future = Future {
        protocol: 9,
        protocol_min: 8,
        role: Role::Agent,
        colour: "blue",
    };
    let hello = Hello::from_frame(frame_of(&future, "")).expect("known fields");
    assert_eq!(
        (hello.protocol, hello.protocol_min, hello.role),
        (9, 8, Some(Role::Agent))
    );
    assert_eq!(hello.name, "");
    #[derive(Serialize)]
    struct Nothing {}
    let hello = Hello::from_frame(frame_of(&Nothing {}, "")).expect("no fields");
    assert_eq!(hello, Hello::default());
}

#[test]
fn a_welcome_with_less_or_more_can_be_read() {
    #[derive(Serialize)]
    enum Reply {
        Welcome { cluster: String, motto: u8 },
    }
    let reply = Reply::Welcome {
        cluster: "prod".to_owned(),
        motto: 7,
    };
    let cluster = "prod".to_owned();
    let expect = Welcome {
        cluster,
        ..Welcome::default()
    };
    let read = HelloReply::from_frame(frame_of(&reply, "")).expect("known fields");
    assert_eq!(read, HelloReply::Welcome(expect));
}

#[test]
fn an_agent_that_cannot_pass_content_on_can_be_read() {
    #[derive(Serialize)]
    enum Old {
        Register { name: String },
        NeedContent { pool: u64, hash: ContentHash },
    }
    let name = "web-1".to_owned();
    let read = FromAgent::from_frame(frame_of(&Old::Register { name }, ""));
    let Ok(FromAgent::Register(registration)) = read else {
        panic!("{read:?}");
    };
    assert_eq!((&registration.name[..], registration.pin), ("web-1", None));
    let (pool, hash) = (3, ContentHash([1; 32]));
    let read = FromAgent::from_frame(frame_of(&Old::NeedContent { pool, hash }, ""));
    let expect = FromAgent::NeedContent {
        pool: PoolId(3),
        hash,
        again: false,
    };
    assert_eq!(read.expect("known fields"), expect);
}

#[derive(Serialize)]
enum Reports {
    Reports {
        pool: u64,
        rows: Columns,
        payloads: Vec<u32>,
    },
}

/// The table of a version that has no `slot` yet, and a column that this one does not know.
#[derive(Serialize)]
struct Columns {
    index: Vec<u64>,
    attempt: Vec<u32>,
    colour: Vec<String>,
}

fn reports(attempts: Vec<u32>) -> Frame {
    let rows = Columns {
        index: vec![5, 6],
        attempt: attempts,
        colour: vec!["red".to_owned()],
    };
    frame_of(
        &Reports::Reports {
            pool: 3,
            rows,
            payloads: vec![1, 1],
        },
        "ab",
    )
}

#[test]
fn tables_with_other_columns_can_be_read() {
    let Ok(FromAgent::Reports {
        pool,
        rows,
        payloads,
    }) = FromAgent::from_frame(reports(vec![1, 2]))
    else {
        panic!("known columns");
    };
    assert_eq!(pool, PoolId(3));
    let expect = |index, attempt| ReportRow {
        index,
        attempt: Attempt(attempt),
        ..ReportRow::default()
    };
    assert_eq!(rows, [expect(5, 1), expect(6, 2)]);
    assert_eq!(rows[0].slot, SlotNo(0));
    assert_eq!(payloads.items(), ["a", "b"]);
}

#[test]
fn a_column_of_another_length_is_refused() {
    let error = FromAgent::from_frame(reports(vec![1, 2, 3])).expect_err("three of two");
    assert!(
        error.to_string().contains("index has another length"),
        "{error}"
    );
}

#[test]
fn an_unknown_message_is_an_error_and_names_itself() {
    #[derive(Serialize)]
    enum Future {
        Levitate { height: u8 },
    }
    let error = FromAgent::from_frame(frame_of(&Future::Levitate { height: 1 }, ""));
    assert!(error.expect_err("not yet").to_string().contains("Levitate"));
}

/// Every pair of ranges around the one spoken here.
#[test]
fn two_versions_meet_where_their_ranges_do() {
    for min in 0..PROTOCOL + 3 {
        for max in min..PROTOCOL + 3 {
            let hello = Hello {
                protocol: max,
                protocol_min: min,
                ..Hello::new(Role::Agent, "a")
            };
            let common = (PROTOCOL_MIN..=PROTOCOL).rfind(|mine| (min..=max).contains(mine));
            match (negotiate(&hello), common) {
                (Ok(got), Some(best)) => assert_eq!(got, best),
                (Err(text), None) => {
                    let old = if max < PROTOCOL_MIN {
                        "this side's"
                    } else {
                        "the coordinator's"
                    };
                    assert!(text.contains(old), "{min}-{max}: {text}");
                }
                (got, expect) => panic!("{min}-{max}: {got:?} instead of {expect:?}"),
            }
        }
    }
}
