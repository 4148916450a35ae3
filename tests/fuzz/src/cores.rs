//! The two cores, told whatever a peer of theirs may say: nonsense becomes an action, never a panic.
//!
//! An input is a script: for each thing that happens a byte that says what, and where a peer speaks a frame as in
//! [`messages`](crate::messages), after its length.

use std::time::Duration;

use fleetpool_agent_core::{AgentCore, Event as AgentEvent, Options as AgentOptions};
use fleetpool_coordinator_core::{CoordinatorCore, Event, Options};
use fleetpool_proto::{
    ClientId, Frame, HostId, Message as _, Timestamp,
    message::{FromAgent, FromClient, Registration, ToAgent},
};

use crate::{
    messages::{as_frame, as_input},
    seeds,
};

/// Time between two things that happen.
const STEP: Duration = Duration::from_millis(700);
/// Actions of one event; more is a loop.
const ACTIONS_MAX: usize = 100_000;
/// Things that happen in a script.
const EVENTS_MAX: usize = 64;

/// No timer is set for later.
const FAR: Duration = Duration::from_secs(1000 * 365 * 24 * 3600);

/// Who does something, and what is said.
struct Script<'a> {
    rest: &'a [u8],
    left: usize,
}

impl<'a> Script<'a> {
    fn new(bytes: &'a [u8]) -> Self {
        Self {
            rest: bytes,
            left: EVENTS_MAX,
        }
    }

    /// The next thing that happens: which, and a frame.
    fn next(&mut self) -> Option<(u8, Frame)> {
        self.left = self.left.checked_sub(1)?;
        let (&[what, low, high], rest) = self.rest.split_first_chunk()?;
        let len = usize::from(u16::from_le_bytes([low, high]));
        let (frame, rest) = rest.split_at(len.min(rest.len()));
        self.rest = rest;
        Some((what, as_frame(frame)))
    }
}

fn written(steps: &[(u8, Frame)]) -> Vec<u8> {
    let step = |(what, frame): &(u8, Frame)| {
        let frame = as_input(frame);
        let len = u16::try_from(frame.len()).expect("samples are small");
        [&[*what][..], &len.to_le_bytes(), &frame].concat()
    };
    steps.iter().flat_map(step).collect()
}

/// Two agents, two clients, and an operator.
pub(crate) fn coordinator(bytes: &[u8]) {
    let mut core = CoordinatorCore::new(Options::default());
    let mut script = Script::new(bytes);
    let mut now = Timestamp::default();
    let mut happen = |event: Event| {
        now = now + STEP;
        core.handle(now, event);
        let actions = std::iter::from_fn(|| core.poll_action()).take(ACTIONS_MAX);
        assert!(actions.count() < ACTIONS_MAX, "it never ends");
        if core.poll_timeout().is_some_and(|due| due <= now) {
            core.handle(now, Event::Tick);
            while core.poll_action().is_some() {}
        }
    };
    for number in 1..=2 {
        let (host, session) = (HostId(number), u64::from(number));
        happen(Event::AgentConnected { host, session });
        happen(Event::ClientConnected {
            client: ClientId(u64::from(number)),
            user: "ada".to_owned(),
        });
    }
    while let Some((what, frame)) = script.next() {
        let number = u32::from(what % 2) + 1;
        let (host, session) = (HostId(number), u64::from(number));
        let client = ClientId(u64::from(number));
        match what / 2 % 8 {
            0..=2 => {
                if let Ok(message) = FromAgent::from_frame(frame) {
                    happen(Event::FromAgent {
                        host,
                        session,
                        message,
                    });
                }
            }
            3..=5 => {
                if let Ok(message) = FromClient::from_frame(frame) {
                    happen(Event::FromClient { client, message });
                }
            }
            6 => {
                happen(Event::AgentDisconnected { host, session });
                happen(Event::AgentConnected { host, session });
            }
            _ => happen(Event::ClientGone { client }),
        }
    }
}

pub(crate) fn coordinator_scripts() -> Vec<Vec<u8>> {
    let agents = seeds::kept("from_agent");
    let clients = seeds::kept("from_client");
    let by = |what: u8, frames: &[Frame]| -> Vec<(u8, Frame)> {
        frames.iter().map(|frame| (what, frame.clone())).collect()
    };
    let both: Vec<(u8, Frame)> = by(6, &clients)
        .into_iter()
        .zip(by(0, &agents))
        .flat_map(|(client, agent)| [client, agent])
        .collect();
    vec![
        written(&by(0, &agents)),
        written(&by(6, &clients)),
        written(&[by(0, &agents), by(6, &clients), by(0, &agents)].concat()),
        written(&both),
    ]
}

/// A host of two slots, whose workers never come.
pub(crate) fn agent(bytes: &[u8]) {
    let mut core = AgentCore::new(AgentOptions::new(2));
    let mut script = Script::new(bytes);
    let mut now = Timestamp::default();
    let mut happen = |event: AgentEvent| {
        now = now + STEP;
        core.handle(now, event);
        let actions = std::iter::from_fn(|| core.poll_action()).take(ACTIONS_MAX);
        assert!(actions.count() < ACTIONS_MAX, "it never ends");
        assert!(core.poll_timeout().is_none_or(|due| due <= now + FAR));
    };
    let up = || AgentEvent::LinkUp {
        registration: Box::new(Registration::default()),
        lease_ms: 10_000,
        now_us: 0,
    };
    happen(up());
    while let Some((what, frame)) = script.next() {
        match what % 8 {
            0 => {
                happen(AgentEvent::LinkDown);
                happen(up());
            }
            _ => {
                if let Ok(message) = ToAgent::from_frame(frame) {
                    happen(AgentEvent::Message(message));
                }
            }
        }
    }
}

pub(crate) fn agent_scripts() -> Vec<Vec<u8>> {
    let said: Vec<(u8, Frame)> = seeds::kept("to_agent")
        .into_iter()
        .map(|frame| (1, frame))
        .collect();
    let backwards: Vec<_> = said.iter().rev().cloned().collect();
    vec![written(&said), written(&backwards)]
}
