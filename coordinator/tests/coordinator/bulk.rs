//! G7: how many bytes of payloads a coordinator holds while somebody does not read. What is counted are the payloads that
//! are alive in this process, wherever they are: in the core, in a queue, or with the session.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use bytes::Bytes;
use fleetpool_proto::{
    Outcome, PoolId, Role, SpecId,
    limits::{POOL_HELD_BYTES_MAX, POOL_WINDOW_BYTES},
    message::{FromAgent, FromClient, GrantRow, ReportRow, ToAgent, ToClient},
    pool::{PoolOptions, Spec},
    view::Query,
};

use crate::support::{Scripted, agent, client, coordinator};

const SLOTS: u16 = 2;
const PAYLOAD_BYTES: usize = 1 << 20;

/// Payloads that know how many of them are alive.
#[derive(Clone)]
struct Payloads {
    body: Arc<[u8]>,
    alive: Arc<AtomicUsize>,
}

impl Payloads {
    fn new() -> Self {
        Self {
            body: vec![7; PAYLOAD_BYTES].into(),
            alive: Arc::default(),
        }
    }

    fn make(&self) -> Bytes {
        self.alive.fetch_add(1, Ordering::SeqCst);
        Bytes::from_owner(Payload(self.clone()))
    }

    fn alive_bytes(&self) -> usize {
        self.alive.load(Ordering::SeqCst) * PAYLOAD_BYTES
    }
}

struct Payload(Payloads);

impl AsRef<[u8]> for Payload {
    fn as_ref(&self) -> &[u8] {
        &self.0.body
    }
}

impl Drop for Payload {
    fn drop(&mut self) {
        self.0.alive.fetch_sub(1, Ordering::SeqCst);
    }
}

/// Between the window and the most that a pool may make a coordinator hold.
#[track_caller]
fn assert_bounded(payloads: &Payloads) {
    let bytes = |limit: u64| usize::try_from(limit).expect("fits memory");
    let window = bytes(POOL_WINDOW_BYTES);
    let most = bytes(POOL_HELD_BYTES_MAX / 2) + (1 + usize::from(SLOTS)) * PAYLOAD_BYTES;
    let alive = payloads.alive_bytes();
    assert!((window..=most).contains(&alive), "{alive} bytes are held");
}

#[tokio::test]
async fn g7_results_that_a_client_does_not_read_are_bounded() {
    let coordinator = coordinator();
    let mut agent = agent(&coordinator, "web1", SLOTS).await;
    let mut client = client(&coordinator, Role::User, "alice").await;
    let pool = client.submit(&["small"; 1000]).await;
    let results = Payloads::new();
    let mut sent = 0;
    let mut renewal = 1;
    loop {
        let granted = agent.granted_until_quiet(&mut renewal).await;
        if granted.is_empty() {
            break;
        }
        sent += granted.len();
        for row in granted {
            agent.report(pool, &row, results.make()).await;
        }
    }
    assert_bounded(&results);
    let mut read = 0;
    while read < sent {
        read += client.results().await.0.len();
    }
    assert_eq!(results.alive_bytes(), 0);
    let tasks = read as u64;
    client.say(FromClient::Consumed { pool, tasks }).await;
    assert!(!agent.granted().await.1.is_empty(), "it goes on");
}

#[tokio::test]
async fn g7_arguments_that_an_agent_does_not_read_are_bounded() {
    let coordinator = coordinator();
    let _agent = agent(&coordinator, "web1", SLOTS).await;
    let mut client = client(&coordinator, Role::User, "alice").await;
    let arguments = Payloads::new();
    client.submit_all_that_there_is_credit_for(&arguments).await;
    assert_bounded(&arguments);
}

impl Scripted {
    async fn report(&self, pool: PoolId, row: &GrantRow, result: Bytes) {
        let row = ReportRow {
            index: row.index,
            attempt: row.attempt,
            outcome: Outcome::Done,
            run_us: 100,
            ..ReportRow::default()
        };
        self.say(FromAgent::Reports {
            pool,
            rows: vec![row],
            payloads: [result].into_iter().collect(),
        })
        .await;
    }

    /// What has been granted by when two renewals are answered: the first answer may come before what was said before has
    /// led to anything.
    async fn granted_until_quiet(&mut self, renewal: &mut u64) -> Vec<GrantRow> {
        let mut granted = Vec::new();
        for _ in 0..2 {
            *renewal += 1;
            let (renewal, rtt_us) = (*renewal, 0);
            self.say(FromAgent::Renew { renewal, rtt_us }).await;
            loop {
                match self.hear::<ToAgent>().await.expect("an open session") {
                    ToAgent::Grant { rows, .. } => granted.extend(rows),
                    ToAgent::Renewed { .. } => break,
                    _ => {}
                }
            }
        }
        granted
    }

    async fn submit_all_that_there_is_credit_for(&mut self, arguments: &Payloads) {
        let (pool, spec) = (self.pool(), SpecId(0));
        let options = Box::new(PoolOptions::default());
        self.say(FromClient::OpenPool { pool, options }).await;
        let body = Box::new(Spec::default());
        self.say(FromClient::Define { pool, spec, body }).await;
        let (mut credit, mut first) = (0, 0);
        loop {
            let more = self.credit_until_answered().await;
            if more.is_none_or(|bytes| bytes <= credit) {
                return;
            }
            credit = more.unwrap_or(credit);
            while first * (PAYLOAD_BYTES as u64) < credit {
                let payloads = [arguments.make()].into_iter().collect();
                let hosts = Vec::new();
                let submit = FromClient::Submit {
                    pool,
                    spec,
                    first,
                    hosts,
                    payloads,
                };
                self.say(submit).await;
                first += 1;
            }
        }
    }

    /// The last credit that comes before a question that is asked now is answered.
    async fn credit_until_answered(&mut self) -> Option<u64> {
        let mut credit = None;
        for question in [1, 2] {
            let query = Query::Status;
            self.say(FromClient::Ask { question, query }).await;
            loop {
                match self.hear::<ToClient>().await.expect("an open session") {
                    ToClient::Credit { bytes, .. } => credit = Some(bytes),
                    ToClient::Answer { question: of, .. } if of == question => break,
                    _ => {}
                }
            }
        }
        credit
    }
}
