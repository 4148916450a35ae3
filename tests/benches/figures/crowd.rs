//! Case `crowd`: a thousand agents that connect at once. They are bare: each has an identity of its own, a session of its
//! own, and registers; they start nothing, so that a few processes can be all of them.

use std::{
    cell::RefCell,
    hash::{BuildHasher as _, RandomState},
    sync::Arc,
    time::{Duration, Instant},
};

use fleetpool_net::{Address, ConnectError, Identity, Session, Token, connect, join};
use fleetpool_proto::{
    Message as _, Role,
    message::{FromAgent, Registration, ToAgent},
    version::Hello,
};
use fleetpool_tests::cluster::Cluster;
use tokio::{
    task::{JoinSet, spawn_blocking},
    time::{sleep, timeout},
};

use crate::{
    contestant,
    measure::{Contestant, ROUNDS, Turns, interleave},
    table::{Line, Target},
    talk::Talk,
};

const PROCESSES: usize = 4;
const AGENTS_EACH: usize = 250;
/// Who has not registered by then never will.
const GIVEN_UP_AFTER: Duration = Duration::from_secs(60);
/// As `agent/src/link.rs` has them.
const PAUSE: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(5);
/// Agents of one process that join at a time, which is not measured.
const JOIN_AT_ONCE: usize = 8;

/// All of them, again and again.
pub(crate) fn case() -> Vec<Line> {
    let cluster = Cluster::bare();
    let token = token(&cluster);
    let crowds: Vec<Talk> = (0..PROCESSES)
        .map(|number| start(&cluster, &token, number * AGENTS_EACH))
        .collect();
    let crowds = RefCell::new(crowds);
    for crowd in crowds.borrow_mut().iter_mut() {
        assert_eq!(crowd.hear(), "joined");
    }
    let told = RefCell::new(Vec::new());
    let turns = interleave(
        ROUNDS,
        &mut [Contestant::new("1,000 agents", || {
            let mut crowds = crowds.borrow_mut();
            let start = Instant::now();
            crowds.iter_mut().for_each(|crowd| crowd.say("go"));
            let heard: Vec<String> = crowds.iter_mut().map(Talk::hear).collect();
            let took = start.elapsed().as_secs_f64();
            let all = sum(&heard);
            cluster.await_hosts(PROCESSES * AGENTS_EACH - usize::try_from(all[1]).expect("few"));
            told.borrow_mut().push(all);
            crowds.iter_mut().for_each(|crowd| crowd.say("leave"));
            cluster.await_hosts(0);
            took
        })],
    );
    let told = told.borrow();
    let of = |at: usize| Turns::of(told.iter().map(|told| crate::as_f64(told[at])));
    vec![
        Line::alone(
            "crowd: 1,000 agents at once, the last is in",
            "s",
            &turns[0],
            Target::AtMost(15.0),
        ),
        Line::alone("crowd: dialled again", "times", &of(0), Target::None),
        Line::alone(
            "crowd: refused for good",
            "agents",
            &of(1),
            Target::AtMost(0.0),
        ),
    ]
}

/// Retries and agents that were refused, of all processes.
fn sum(heard: &[String]) -> [u64; 2] {
    let mut all = [0, 0];
    for line in heard {
        let numbers = line
            .split(' ')
            .map(|number| number.parse().unwrap_or_else(|_| panic!("{line}")));
        for (sum, number) in all.iter_mut().zip::<Vec<u64>>(numbers.collect()) {
            *sum += number;
        }
    }
    all
}

fn token(cluster: &Cluster) -> String {
    let uses = (PROCESSES * AGENTS_EACH).to_string();
    let output = cluster
        .client()
        .args(["token", "create", "--uses", &uses])
        .output()
        .expect("it starts");
    assert!(output.status.success(), "{output:?}");
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

/// A process with many agents.
fn start(cluster: &Cluster, token: &str, first: usize) -> Talk {
    let [first, count] = [first, AGENTS_EACH].map(|number| number.to_string());
    let address = cluster.address().to_string();
    Talk::with(&mut contestant(&[
        "agents", &address, token, &first, &count,
    ]))
}

/// The agents of one process: each joins; they connect when told to, tell how that went, and leave when told to.
pub(crate) fn agents(address: &str, token: &str, first: usize, count: usize) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    runtime.expect("a runtime").block_on(async {
        let address: Arc<Address> = Arc::new(address.parse().expect("an address"));
        let token = Arc::new(token.parse().expect("a token"));
        let agents = join_all(&address, &token, first, count).await;
        crate::say("joined");
        while hear("go").await {
            let mut attaching = JoinSet::new();
            for agent in &agents {
                attaching.spawn(attach(Arc::clone(&address), Arc::clone(agent)));
            }
            let (mut sessions, mut retries, mut refused) = (Vec::new(), 0, 0);
            while let Some(attached) = attaching.join_next().await {
                let attached = attached.expect("no panics");
                retries += attached.retries;
                match attached.session {
                    Ok(session) => sessions.push(session),
                    Err(why) => {
                        refused += 1;
                        eprintln!("{why}");
                    }
                }
            }
            crate::say(&format!("{retries} {refused}"));
            hear("leave").await;
        }
    });
}

/// The next word, unless there is none any more.
async fn hear(word: &str) -> bool {
    let heard = spawn_blocking(|| {
        let mut line = String::new();
        std::io::stdin().read_line(&mut line).expect("text");
        line
    });
    let heard = heard.await.expect("no panics");
    assert!(heard.is_empty() || heard.trim_end() == word, "{heard}");
    !heard.is_empty()
}

/// Name and identity of an agent.
type Agent = (String, Identity);

async fn join_all(
    address: &Arc<Address>,
    token: &Arc<Token>,
    first: usize,
    count: usize,
) -> Vec<Arc<Agent>> {
    let mut joining = JoinSet::new();
    let mut agents = Vec::new();
    for number in first..first + count {
        if joining.len() == JOIN_AT_ONCE {
            agents.extend(joining.join_next().await);
        }
        let (address, token) = (Arc::clone(address), Arc::clone(token));
        joining.spawn(async move {
            let name = format!("bare{number}");
            let identity = join(&address, &token, Role::Agent, &name).await;
            Arc::new((name, identity.expect("the token is good")))
        });
    }
    agents.extend(joining.join_all().await.into_iter().map(Ok));
    agents
        .into_iter()
        .map(|agent| agent.expect("no panics"))
        .collect()
}

struct Attached {
    session: Result<Session, String>,
    retries: u64,
}

/// Dials, again where that is of use, until the coordinator has taken the registration.
async fn attach(address: Arc<Address>, agent: Arc<Agent>) -> Attached {
    let start = Instant::now();
    let mut retries = 0;
    let session = loop {
        let left = GIVEN_UP_AFTER.saturating_sub(start.elapsed());
        match timeout(left, register(&address, &agent)).await {
            Ok(Ok(session)) => break Ok(session),
            Ok(Err(Failure::ForGood(why))) => break Err(why),
            Ok(Err(Failure::ForNow(why))) if retries > 1000 => break Err(why),
            Ok(Err(Failure::ForNow(_))) => {}
            Err(_) => break Err(format!("{} was not let in in time", agent.0)),
        }
        retries += 1;
        sleep(pause(retries)).await;
    };
    Attached { session, retries }
}

enum Failure {
    /// As an agent that gives up sees it.
    ForGood(String),
    ForNow(String),
}

async fn register(address: &Address, (name, identity): &Agent) -> Result<Session, Failure> {
    let hello = Hello::new(Role::Agent, name);
    let (mut session, welcome) = connect(address, Some(identity), hello)
        .await
        .map_err(failure)?;
    let lost = |closed: fleetpool_net::Closed| Failure::ForNow(closed.to_string());
    let registration = Registration {
        name: name.clone(),
        slots: 1,
        // Another life each time, as if the host had started anew.
        incarnation: RandomState::new().hash_one(name),
        boot_id: name.clone(),
        carrier: session.peer.carrier.to_string(),
        ..Registration::default()
    };
    let register = FromAgent::Register(Box::new(registration));
    let renew = FromAgent::Renew {
        renewal: 1,
        rtt_us: 0,
    };
    for message in [register, renew] {
        session
            .sender
            .send(message.into_frame())
            .await
            .map_err(lost)?;
    }
    // Answered in order, so this tells that the registration was taken.
    loop {
        let frame = session.receiver.recv().await.map_err(lost)?;
        let said = ToAgent::from_frame(frame).map_err(|why| Failure::ForGood(why.to_string()))?;
        if matches!(said, ToAgent::Renewed { renewal: 1 }) {
            assert_ne!(welcome.lease_ms, 0);
            return Ok(session);
        }
    }
}

fn failure(error: ConnectError) -> Failure {
    match error {
        ConnectError::TimedOut { .. }
        | ConnectError::Io { .. }
        | ConnectError::Broken { .. }
        | ConnectError::NobodyListens { .. } => Failure::ForNow(error.to_string()),
        error => Failure::ForGood(error.to_string()),
    }
}

/// A random part of a bound that doubles.
fn pause(retries: u64) -> Duration {
    let doubled = PAUSE * (1 << retries.min(16));
    let bound = doubled.min(PAUSE_MAX);
    let dice = u32::try_from(RandomState::new().hash_one(retries) % 1000).unwrap_or(0);
    bound * dice / 1000
}
