//! At least one message of every kind, with every field set to something.

use bytes::Bytes;
use fleetpool_proto::{
    Attempt, ClientId, HostId, Outcome, Payloads, PeerPin, PoolId, Role, SlotNo, SpecId,
    join::{FromStranger, JoinRequest, ToStranger},
    message::{
        FromAgent, FromClient, GrantRow, HeldRow, HeldState, OutputRow, Refusal, Registration,
        ReportRow, ResultRow, StartedRow, Stream, TaskRow, ToAgent, ToClient,
    },
    pool::{ContentHash, Initializer, PoolOptions, Retries, Runtime, Spec},
    version::{Hello, HelloReply, Welcome},
    view::{Answer, HostView, IdentityView, JobView, Query, StatusView, TokenView, TunnelView},
    worker::{DoneRow, FromWorker, RunRow, ToWorker},
};

/// Fails to compile when a variant is missing from the list, and to pass when one has no sample.
macro_rules! covers {
    ($samples:expr, $enum:ident: $($variant:ident)+) => {{
        let name = |sample: &$enum| match sample { $($enum::$variant { .. } => stringify!($variant),)+ };
        let sampled: std::collections::BTreeSet<_> = $samples.iter().map(name).collect();
        for variant in [$(stringify!($variant)),+] {
            assert!(sampled.contains(variant), "no sample of {}::{variant}", stringify!($enum));
        }
    }};
}

fn bytes(text: &'static str) -> Bytes {
    Bytes::from_static(text.as_bytes())
}

fn payloads(items: &[&'static str]) -> Payloads {
    items.iter().map(|item| bytes(item)).collect()
}

fn words(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    let owned = |(key, value): &(&str, &str)| ((*key).to_owned(), (*value).to_owned());
    pairs.iter().map(owned).collect()
}

fn env() -> Vec<(String, Option<String>)> {
    vec![
        ("A".to_owned(), Some("1".to_owned())),
        ("B".to_owned(), None),
    ]
}

const POOL: PoolId = PoolId(0x0123_4567_89ab);
const HASH: ContentHash = ContentHash([0xcd; 32]);
const PIN: PeerPin = PeerPin([0x01; 32]);

fn tasks() -> Vec<TaskRow> {
    let row = |index, attempt| TaskRow {
        index,
        attempt: Attempt(attempt),
    };
    vec![row(0, 1), row(70_000, 2)]
}

fn options() -> Box<PoolOptions> {
    Box::new(PoolOptions {
        name: "resize".to_owned(),
        slots: Some(8),
        on: "web[01-40]".to_owned(),
        runtime: Runtime::Native {
            program: HASH,
            size: 1 << 33,
        },
        retries: Retries {
            host_lost: 3,
            worker_lost: 1,
            failed: 2,
        },
        priority: -1,
        weight: 4,
        tasks_per_worker_max: 100,
        initializer: Some(Initializer {
            function: "init".to_owned(),
            argument: bytes("\u{1}\u{2}"),
        }),
        env: env(),
        cwd: Some("/srv".to_owned()),
        kill_grace_ms: 1500,
        detached: true,
        waits_for_lost: false,
    })
}

fn spec() -> Box<Spec> {
    Box::new(Spec {
        function: "square".to_owned(),
        code: bytes("code"),
        content: Some(HASH),
        python: Some((3, 11)),
        modules: vec!["numpy".to_owned()],
        timeout_ms: 60_000,
        leave_children: true,
        cwd: Some("/tmp".to_owned()),
        env: env(),
        stdin: bytes("in"),
    })
}

fn output() -> Vec<OutputRow> {
    let row = |index, stream| OutputRow {
        index,
        attempt: Attempt(1),
        stream,
        pid: 4242,
        host: HostId(3),
    };
    vec![row(0, Stream::Stdout), row(1, Stream::Stderr)]
}

pub(crate) fn hellos() -> Vec<Hello> {
    let protocols = |hello: Hello| Hello {
        protocol: 1,
        protocol_min: 1,
        build: "0.1.0".to_owned(),
        ..hello
    };
    let mut hellos: Vec<_> = Role::ALL
        .into_iter()
        .map(|role| protocols(Hello::new(role, "web-1")))
        .collect();
    hellos.push(protocols(Hello::lifeline(Role::User, "u", ClientId(7))));
    hellos.push(protocols(Hello::resume(Role::User, "u", ClientId(7), true)));
    hellos
}

pub(crate) fn hello_replies() -> Vec<HelloReply> {
    let samples = vec![
        HelloReply::Welcome(Welcome {
            protocol: 1,
            build: "0.1.0".to_owned(),
            cluster: "prod".to_owned(),
            epoch: 12,
            lease_ms: 30_000,
            host: HostId(3),
            client: ClientId(7),
            pools_from: PoolId(1 << 32),
            resume_ms: 60_000,
        }),
        HelloReply::Refused {
            reason: "revoked".to_owned(),
        },
    ];
    covers!(samples, HelloReply: Welcome Refused);
    samples
}

pub(crate) fn from_strangers() -> Vec<FromStranger> {
    let samples = vec![FromStranger::Join(JoinRequest {
        token: "0a1b2c3d".to_owned(),
        secret: "00".repeat(16),
        role: Some(Role::Agent),
        name: "web-1".to_owned(),
        csr: bytes("csr"),
    })];
    covers!(samples, FromStranger: Join);
    samples
}

pub(crate) fn to_strangers() -> Vec<ToStranger> {
    let samples = vec![
        ToStranger::Issued {
            cert: bytes("cert"),
            ca: bytes("ca"),
        },
        ToStranger::Refused {
            reason: "used up".to_owned(),
        },
    ];
    covers!(samples, ToStranger: Issued Refused);
    samples
}

pub(crate) fn from_agents() -> Vec<FromAgent> {
    let held = [HeldState::Queued, HeldState::Running, HeldState::Ended];
    let held = held.into_iter().zip(0..).map(|(state, index)| HeldRow {
        pool: POOL,
        index,
        attempt: Attempt(1),
        state,
    });
    let reports = Outcome::ALL
        .into_iter()
        .zip(0..)
        .map(|(outcome, index)| ReportRow {
            index,
            attempt: Attempt(1),
            outcome,
            slot: SlotNo(2),
            pid: 4242,
            started_us: 1_800_000_000_000_000,
            run_us: 1500,
        });
    let results = vec!["ok", "", "lost", "late", "oom", "", "none", "host", "?"];
    let samples = vec![
        FromAgent::Register(Box::new(Registration {
            name: "web-1".to_owned(),
            slots: 64,
            labels: words(&[("gpu", "a100"), ("zone", "b")]),
            incarnation: u64::MAX,
            boot_id: "boot".to_owned(),
            pid: 99,
            build: "0.1.0".to_owned(),
            cpus: 32,
            memory_mib: 128 << 10,
            containment: "cgroup v2".to_owned(),
            limits: "300 processes a task".to_owned(),
            carrier: "quic".to_owned(),
            pin: Some(PIN),
            output: 9,
            held: held.collect(),
        })),
        FromAgent::Renew {
            renewal: 300,
            rtt_us: 512,
        },
        FromAgent::Allotted {
            pool: POOL,
            slots: 2,
            allotment: 5,
        },
        FromAgent::Started {
            pool: POOL,
            rows: vec![StartedRow {
                index: 9,
                attempt: Attempt(1),
                slot: SlotNo(1),
                pid: 4242,
            }],
        },
        FromAgent::Reports {
            pool: POOL,
            rows: reports.collect(),
            payloads: payloads(&results),
        },
        FromAgent::Output {
            pool: POOL,
            number: 11,
            rows: output(),
            payloads: payloads(&["out\n", "err\n"]),
        },
        FromAgent::Retracted {
            pool: POOL,
            retraction: 6,
            rows: tasks(),
        },
        FromAgent::PoolUnfit {
            pool: POOL,
            reason: "no such function".to_owned(),
            rows: tasks(),
        },
        FromAgent::NeedContent {
            pool: POOL,
            hash: HASH,
            again: false,
        },
        FromAgent::NeedContent {
            pool: POOL,
            hash: HASH,
            again: true,
        },
        FromAgent::PassingOn {
            hash: HASH,
            port: 40_123,
            addresses: vec!["10.77.0.11".parse().unwrap(), "fd00::11".parse().unwrap()],
            peers: vec![PeerPin([7; 32])],
        },
    ];
    covers!(samples, FromAgent: Register Renew Allotted Started Reports Output Retracted PoolUnfit NeedContent PassingOn);
    samples
}

pub(crate) fn to_agents() -> Vec<ToAgent> {
    let row = |index, spec| GrantRow {
        index,
        attempt: Attempt(1),
        spec: SpecId(spec),
    };
    let samples = vec![
        ToAgent::Renewed { renewal: 300 },
        ToAgent::Stopping { lease_ms: 600_000 },
        ToAgent::OpenPool {
            pool: POOL,
            options: options(),
        },
        ToAgent::OpenPool {
            pool: POOL,
            options: Box::default(),
        },
        ToAgent::ClosePool { pool: POOL },
        ToAgent::Define {
            pool: POOL,
            spec: SpecId(1),
            body: spec(),
        },
        ToAgent::Allot {
            pool: POOL,
            slots: 2,
            allotment: 5,
        },
        ToAgent::Grant {
            pool: POOL,
            rows: vec![row(0, 1), row(1, 1), row(70_000, 2)],
            payloads: payloads(&["one", "", "three"]),
        },
        ToAgent::Retract {
            pool: POOL,
            count: 10,
            retraction: 6,
        },
        ToAgent::Cancel {
            pool: POOL,
            rows: tasks(),
        },
        ToAgent::Ack {
            pool: POOL,
            output: 11,
            rows: tasks(),
        },
        ToAgent::Hold {
            pool: POOL,
            on: true,
        },
        ToAgent::Content {
            hash: HASH,
            payloads: payloads(&["elf"]),
        },
        ToAgent::PassOn {
            hash: HASH,
            bytes: 268_435_456,
            peers: vec![PIN, PeerPin([0x02; 32])],
        },
        ToAgent::FetchFrom {
            hash: HASH,
            bytes: 268_435_456,
            addresses: vec![
                "10.77.0.11:40123".parse().unwrap(),
                "[fd00::11]:40123".parse().unwrap(),
            ],
            pin: PIN,
        },
    ];
    covers!(samples, ToAgent: Renewed Stopping OpenPool ClosePool Define Allot Grant Retract Cancel Ack Hold Content PassOn FetchFrom);
    samples
}

pub(crate) fn from_clients() -> Vec<FromClient> {
    let mut samples = vec![
        FromClient::OpenPool {
            pool: POOL,
            options: options(),
        },
        FromClient::Define {
            pool: POOL,
            spec: SpecId(1),
            body: spec(),
        },
        FromClient::Submit {
            pool: POOL,
            spec: SpecId(1),
            first: 70_000,
            hosts: Vec::new(),
            payloads: payloads(&["a", "b"]),
        },
        FromClient::Submit {
            pool: POOL,
            spec: SpecId(1),
            first: 0,
            hosts: vec![HostId(3), HostId(4)],
            payloads: payloads(&["a", "b"]),
        },
        FromClient::Cancel {
            pool: POOL,
            tasks: vec![1, 70_000],
        },
        FromClient::Close {
            pool: POOL,
            submitted: 100,
        },
        FromClient::Terminate { pool: POOL },
        FromClient::Resize {
            pool: POOL,
            slots: Some(3),
        },
        FromClient::Resize {
            pool: POOL,
            slots: None,
        },
        FromClient::Consumed {
            pool: POOL,
            tasks: 50,
        },
        FromClient::Attach {
            pool: POOL,
            follow: true,
        },
        FromClient::Resume { pools: vec![POOL] },
        FromClient::HeardResults {
            pool: POOL,
            number: 9,
        },
        FromClient::Done { pool: POOL },
        FromClient::HeardOutput {
            host: HostId(3),
            life: 1 << 40,
            number: 17,
        },
        FromClient::Content {
            hash: HASH,
            payloads: payloads(&["elf"]),
        },
    ];
    let asks = queries().into_iter().zip(0..);
    samples.extend(asks.map(|(query, question)| FromClient::Ask { question, query }));
    covers!(samples, FromClient: OpenPool Define Submit Cancel Close Terminate Resize Consumed Attach Resume Done HeardOutput HeardResults Content Ask);
    samples
}

pub(crate) fn queries() -> Vec<Query> {
    let samples = vec![
        Query::Hosts {
            on: "@web".to_owned(),
        },
        Query::Jobs,
        Query::Status,
        Query::Explain { pool: POOL },
        Query::CancelJob { pool: POOL },
        Query::Cordon {
            host: "web-1".to_owned(),
            on: true,
        },
        Query::TokenCreate {
            ttl_s: 3600,
            uses: 2,
            role: Role::Agent,
            labels: words(&[("gpu", "a100")]),
        },
        Query::TokenList,
        Query::TokenRevoke {
            id: "0a1b2c3d".to_owned(),
        },
        Query::IdentityIssue {
            role: Role::User,
            id: "ann".to_owned(),
            ttl_s: 86_400,
            csr: bytes("csr"),
        },
        Query::IdentityList,
        Query::IdentityRevoke {
            id: "web-1".to_owned(),
            ended: true,
        },
        Query::TunnelAdd {
            to: "ada@web-1".to_owned(),
        },
        Query::TunnelRemove {
            to: "ada@web-1".to_owned(),
        },
        Query::TunnelList,
    ];
    covers!(samples, Query: Hosts Jobs Status Explain CancelJob Cordon TokenCreate TokenList TokenRevoke IdentityIssue IdentityList IdentityRevoke TunnelAdd TunnelRemove TunnelList);
    samples
}

fn answers() -> Vec<Answer> {
    let samples = vec![
        Answer::Hosts(vec![HostView {
            id: HostId(3),
            name: "web-1".to_owned(),
            state: "up".to_owned(),
            slots: 64,
            allotted: 10,
            running: 9,
            granted: 12,
            labels: words(&[("zone", "b")]),
            carrier: "quic".to_owned(),
            rtt_us: 512,
            containment: "cgroup v2".to_owned(),
            limits: "300 processes a task".to_owned(),
            cpus: 32,
            memory_mib: 1024,
            pid: 99,
            build: "0.1.0".to_owned(),
            heard_ms: 1500,
        }]),
        Answer::Jobs(vec![JobView {
            id: POOL,
            name: "resize".to_owned(),
            user: "ann".to_owned(),
            runtime: "native".to_owned(),
            slots: Some(8),
            allotted: 8,
            queued: 100,
            granted: 20,
            ended: 1000,
            failed: 1,
            closed: true,
            detached: true,
            state: "running".to_owned(),
        }]),
        Answer::Lines(vec!["all slots are taken".to_owned()]),
        Answer::Status(StatusView {
            cluster: "prod".to_owned(),
            build: "0.1.0".to_owned(),
            uptime_s: 60,
            epoch: 12,
            hosts_up: 3,
            hosts_down: 1,
            slots: 192,
            allotted: 10,
            jobs: 1,
            queued: 100,
            granted: 20,
            clients: 2,
            disk_full: true,
        }),
        Answer::Token {
            token: "fp1.x.y.z".to_owned(),
            id: "y".to_owned(),
        },
        Answer::Identity {
            cert: bytes("cert"),
            ca: bytes("ca"),
        },
        Answer::Tokens(vec![TokenView {
            id: "0a1b2c3d".to_owned(),
            role: "agent".to_owned(),
            uses_left: 2,
            expires_in_s: 3600,
            labels: words(&[("gpu", "a100")]),
        }]),
        Answer::Identities(vec![IdentityView {
            id: "web-1".to_owned(),
            role: "agent".to_owned(),
            connected: true,
            expires_in_s: 86_400,
        }]),
        Answer::Tunnels(vec![TunnelView {
            to: "ada@web-1".to_owned(),
            state: "up".to_owned(),
        }]),
        Answer::Ok,
        Answer::Refused {
            reason: "only admins".to_owned(),
        },
    ];
    covers!(samples, Answer: Hosts Jobs Status Lines Token Identity Tokens Identities Tunnels Ok Refused);
    samples
}

pub(crate) fn to_clients() -> Vec<ToClient> {
    let refusals = vec![
        Refusal::NoHostMatches,
        Refusal::Invalid,
        Refusal::Unfit,
        Refusal::Forbidden,
    ];
    covers!(refusals, Refusal: NoHostMatches Invalid Unfit Forbidden);
    let mut samples = vec![
        ToClient::Credit {
            pool: POOL,
            tasks: 65_536,
            bytes: 32 << 20,
        },
        ToClient::Submitted {
            pool: POOL,
            tasks: 70_000,
            closed: true,
        },
        ToClient::Slots {
            pool: POOL,
            allotted: 8,
            eligible: 192,
            hosts: 3,
        },
        ToClient::Host {
            host: HostId(3),
            name: "web-1".to_owned(),
        },
        ToClient::Results {
            pool: POOL,
            number: 9,
            rows: vec![ResultRow {
                index: 70_000,
                attempt: Attempt(2),
                outcome: Outcome::Done,
                host: HostId(3),
                slot: SlotNo(1),
                pid: 4242,
                started_us: 1_800_000_000_000_000,
                run_us: 1500,
                queue_us: 10,
            }],
            payloads: payloads(&["result"]),
        },
        ToClient::Output {
            pool: POOL,
            life: 1 << 40,
            number: 17,
            rows: output(),
            payloads: payloads(&["out\n", "err\n"]),
        },
        ToClient::Notice {
            pool: POOL,
            text: "host web-2 was lost".to_owned(),
        },
        ToClient::PoolEnded { pool: POOL },
        ToClient::Stopping { wait_ms: 600_000 },
        ToClient::NeedContent { hash: HASH },
    ];
    samples.extend(refusals.into_iter().map(|kind| ToClient::Refused {
        pool: POOL,
        reason: "because".to_owned(),
        kind,
    }));
    let answers = answers().into_iter().zip(0..);
    samples.extend(answers.map(|(answer, question)| ToClient::Answer { question, answer }));
    covers!(samples, ToClient: Credit Submitted Refused Slots Host Results Output Notice PoolEnded Stopping NeedContent Answer);
    samples
}

pub(crate) fn to_workers() -> Vec<ToWorker> {
    let row = RunRow {
        index: 70_000,
        attempt: Attempt(2),
        spec: SpecId(1),
    };
    let samples = vec![
        ToWorker::Init {
            function: "init".to_owned(),
            payloads: payloads(&["arg"]),
        },
        ToWorker::Init {
            function: String::new(),
            payloads: Payloads::default(),
        },
        ToWorker::Define {
            spec: SpecId(1),
            function: "square".to_owned(),
        },
        ToWorker::run_one(row, bytes("arg")),
        ToWorker::GiveBack { count: 3 },
        ToWorker::Go,
        ToWorker::Stop,
    ];
    covers!(samples, ToWorker: Init Define Run GiveBack Go Stop);
    samples
}

pub(crate) fn from_workers() -> Vec<FromWorker> {
    let samples = vec![
        FromWorker::Ready { pid: 4242 },
        FromWorker::Unfit {
            reason: "no such function".to_owned(),
        },
        FromWorker::Done {
            rows: vec![DoneRow {
                index: 70_000,
                attempt: Attempt(2),
                outcome: Outcome::Failed,
                started_us: 1_800_000_000_000_000,
                run_us: 1500,
                printed: true,
            }],
            payloads: payloads(&["panicked"]),
        },
        FromWorker::GivenBack {
            rows: vec![RunRow {
                index: 1,
                attempt: Attempt(1),
                spec: SpecId(1),
            }],
        },
    ];
    covers!(samples, FromWorker: Ready Unfit Done GivenBack);
    samples
}
