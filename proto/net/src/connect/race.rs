//! Both carriers at once: many networks let TCP pass and not UDP, and say nothing of it.

use std::{sync::Arc, time::Duration};

use tokio::{
    sync::Notify,
    task::JoinSet,
    time::{sleep, timeout},
};

use super::{
    ConnectError,
    dial::{self, Standing},
};
use crate::{address::Address, peer::Carrier, session::Cause};

/// The second carrier begins this long after the first, unless that has failed before. Longer than a handshake takes
/// nearly everywhere, so that mostly there is no second one.
const SECOND_AFTER: Duration = Duration::from_millis(250);
/// UDP does not tell that nobody listens; TCP of the same number does, and then QUIC has this long to prove it wrong.
const REFUSED_GRACE: Duration = Duration::from_secs(2);

/// A coordinator that is dialled by both carriers. What stands first comes first; nothing has been said on it, so that
/// the coordinator sees one session and not two.
#[derive(Debug)]
pub(crate) struct Race {
    at: String,
    dialled: JoinSet<Result<Standing, ConnectError>>,
    /// Wakes the second.
    hurry: Arc<Notify>,
    /// What is told when none stands: what the first said.
    why: Option<ConnectError>,
}

impl Race {
    /// Dials by `first`, and a little later by the other of QUIC and TCP.
    pub(crate) fn start(
        address: &Address,
        tls: &Arc<rustls::ClientConfig>,
        first: Carrier,
    ) -> Self {
        let mut race = Self {
            at: address.to_string(),
            dialled: JoinSet::new(),
            hurry: Arc::default(),
            why: None,
        };
        let tcp_first = first == Carrier::Tcp;
        let (quic_waits, tcp_waits) = (race.wait(!tcp_first), race.wait(tcp_first));
        let (at, keys) = (address.clone(), Arc::clone(tls));
        race.dialled.spawn(async move {
            quic_waits.await;
            dial::quic(&at, keys).await
        });
        let (at, keys) = (address.clone(), Arc::clone(tls));
        race.dialled.spawn(async move {
            tcp_waits.await;
            let dialled = dial::tcp(&at, keys).await;
            if let Err(ConnectError::NobodyListens { .. }) = dialled {
                sleep(REFUSED_GRACE).await;
            }
            dialled
        });
        race
    }

    /// What the first or the second waits for.
    fn wait(&self, first: bool) -> impl Future<Output = ()> + Send + 'static {
        let hurry = Arc::clone(&self.hurry);
        async move {
            if !first {
                // Whether the time is over or somebody hurries is the same.
                timeout(SECOND_AFTER, hurry.notified()).await.ok();
            }
        }
    }

    /// The next connection that stands.
    ///
    /// # Errors
    /// When there is none any more, or one of the carriers brought an answer that the other cannot better.
    pub(crate) async fn next(&mut self) -> Result<Standing, ConnectError> {
        loop {
            match self.dialled.join_next().await {
                Some(Ok(Ok(standing))) => return Ok(standing),
                Some(Ok(Err(error))) => self.lost_one(error)?,
                Some(Err(panicked)) => {
                    let (at, error) = (self.at.clone(), panicked.into());
                    self.lost_one(ConnectError::Io { at, error })?;
                }
                None => return Err(self.why.take().expect("each has said why")),
            }
        }
    }

    /// One has failed, before or after it stood.
    ///
    /// # Errors
    /// When that is the end of it.
    pub(crate) fn lost_one(&mut self, error: ConnectError) -> Result<(), ConnectError> {
        if is_verdict(&error) {
            return Err(error);
        }
        self.why.get_or_insert(error);
        self.hurry.notify_one();
        Ok(())
    }
}

/// Whether the other carrier would be told the same.
fn is_verdict(error: &ConnectError) -> bool {
    match error {
        ConnectError::NoIdentity { .. }
        | ConnectError::OwnCertificate { .. }
        | ConnectError::Resolve { .. }
        | ConnectError::NobodyListens { .. }
        | ConnectError::Untrusted { .. }
        | ConnectError::Rejected { .. }
        | ConnectError::Refused { .. }
        | ConnectError::Protocol { .. } => true,
        ConnectError::Broken { closed, .. } => closed.cause != Cause::Lost,
        ConnectError::TimedOut { .. } | ConnectError::Io { .. } => false,
    }
}
