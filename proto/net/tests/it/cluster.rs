//! A cluster for tests: a CA, a listener on loopback with every carrier, and sessions over each.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex},
    time::Duration,
};

use fleetpool_net::{
    Address, Carrier, Gatekeeper, Identity, JoinRequest, KeyId, Listener, Peer, ServerIdentity,
    Session, Token, accept_over, connect, connect_tcp, dial_over,
    identity::{ClusterCa, Issued},
    local_pair,
};
use fleetpool_proto::{
    Frame, Role,
    version::{Hello, Welcome},
};
use tempfile::TempDir;
use tokio::{net::unix::pipe, time::timeout};

/// Longer than anything here takes: what passes it hangs.
pub(crate) const SOON: Duration = Duration::from_secs(20);
pub(crate) const DAY: Duration = Duration::from_secs(24 * 3600);

pub(crate) struct Cluster {
    pub(crate) ca: Arc<ClusterCa>,
    pub(crate) gate: Arc<Gate>,
    pub(crate) listener: Listener,
    _dir: TempDir,
}

/// A gatekeeper that admits whom it was not told to refuse.
pub(crate) struct Gate {
    ca: Arc<ClusterCa>,
    pub(crate) revoked: Mutex<BTreeSet<KeyId>>,
    pub(crate) token: Token,
    /// Uses left.
    pub(crate) uses: Mutex<u32>,
    pub(crate) admitted: Mutex<Vec<Peer>>,
}

impl Gate {
    pub(crate) fn new(ca: &Arc<ClusterCa>) -> Arc<Self> {
        Arc::new(Self {
            ca: Arc::clone(ca),
            revoked: Mutex::default(),
            token: Token::new(ca.hash()),
            uses: Mutex::new(1),
            admitted: Mutex::default(),
        })
    }
}

impl Gatekeeper for Gate {
    fn admit(&self, peer: &Peer) -> Result<(), String> {
        if peer
            .key
            .is_some_and(|key| self.revoked.lock().unwrap().contains(&key))
        {
            return Err("its identity was revoked".to_owned());
        }
        self.admitted.lock().unwrap().push(peer.clone());
        Ok(())
    }

    fn join(&self, request: JoinRequest, _address: &str) -> Result<Issued, String> {
        let mut uses = self.uses.lock().unwrap();
        let good = request.token == self.token.id && request.secret == self.token.secret;
        if !good || *uses == 0 {
            return Err("the token is not good (any more)".to_owned());
        }
        let role = request.role.ok_or("no role")?;
        let issued = self.ca.issue(role, &request.name, &request.csr, DAY);
        let issued = issued.map_err(|error| error.to_string())?;
        *uses -= 1;
        Ok(issued)
    }
}

impl Cluster {
    pub(crate) fn start() -> Self {
        Self::of(Arc::new(ClusterCa::create("test").unwrap()))
    }

    pub(crate) fn of(ca: Arc<ClusterCa>) -> Self {
        let server = ServerIdentity::new(ca.identity(Role::Coordinator, "head", DAY).unwrap());
        Self::with(ca, server.unwrap(), "127.0.0.1:0")
    }

    pub(crate) fn with(ca: Arc<ClusterCa>, server: ServerIdentity, listen: &str) -> Self {
        let dir = TempDir::new().unwrap();
        let gate = Gate::new(&ca);
        let unix = Address::Unix(dir.path().join("s"));
        let addresses = [listen.parse().unwrap(), unix];
        let listener = Listener::bind(&addresses, server, Arc::clone(&gate) as _).unwrap();
        Self {
            ca,
            gate,
            listener,
            _dir: dir,
        }
    }

    pub(crate) fn address(&self, carrier: Carrier) -> Address {
        match carrier {
            Carrier::Unix => self.listener.addresses()[1].clone(),
            _ => self.listener.addresses()[0].clone(),
        }
    }

    pub(crate) fn identity(&self, role: Role, id: &str) -> Identity {
        self.ca.identity(role, id, DAY).unwrap()
    }

    /// A session over `carrier`: the dialling end, and the coordinator's.
    pub(crate) async fn session(&mut self, carrier: Carrier) -> (Session, Session) {
        if carrier == Carrier::Local {
            let agent = Peer::local(Role::Agent, "a");
            return local_pair(agent, Peer::local(Role::Coordinator, "head"));
        }
        if carrier == Carrier::Ssh {
            return over_pipes().await;
        }
        let address = self.address(carrier);
        let identity = self.identity(Role::Agent, "a");
        let hello = Hello::new(Role::Agent, "a");
        let dial = async {
            let dialled = match carrier {
                Carrier::Tcp => connect_tcp(&address, Some(&identity), hello).await,
                _ => connect(&address, Some(&identity), hello).await,
            };
            dialled.unwrap().0
        };
        let serve = async {
            let incoming = self.listener.accept().await;
            incoming.welcome(Welcome::default()).await.unwrap()
        };
        soon(async { tokio::join!(dial, serve) }).await
    }
}

/// What ssh is between two programs: a pipe each way.
async fn over_pipes() -> (Session, Session) {
    let (to_agent, from_head) = pipe::pipe().unwrap();
    let (to_head, from_agent) = pipe::pipe().unwrap();
    let dial = dial_over(from_head, to_head, Hello::new(Role::Agent, "a"));
    let serve = async {
        let incoming = accept_over(from_agent, to_agent, "a").await.unwrap();
        incoming.welcome(Welcome::default()).await.unwrap()
    };
    let (dialled, served) = soon(async { tokio::join!(dial, serve) }).await;
    (dialled.unwrap().0, served)
}

/// `future`, unless it hangs.
pub(crate) async fn soon<T>(future: impl Future<Output = T>) -> T {
    timeout(SOON, future).await.expect("it hangs")
}

pub(crate) fn frame(number: u32) -> Frame {
    Frame {
        header: number.to_be_bytes().to_vec().into(),
        body: Vec::new(),
    }
}

/// A frame with `len` bytes of body that tell its number.
pub(crate) fn large(number: u32, len: usize) -> Frame {
    let fill = u8::try_from(number % 251).unwrap();
    Frame {
        body: vec![vec![fill; len].into()],
        ..frame(number)
    }
}

pub(crate) fn number(frame: &Frame) -> u32 {
    u32::from_be_bytes(frame.header[..].try_into().unwrap())
}
