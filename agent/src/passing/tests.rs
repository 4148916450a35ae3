use std::{net::Ipv4Addr, time::Duration};

use bytes::Bytes;
use fleetpool_net::pinned::PinnedListener;
use fleetpool_proto::limits::PASSING_SILENCE_MAX;
use tokio::{
    io::AsyncWriteExt as _,
    time::{Instant, timeout},
};

use super::*;
use crate::content;

/// Several pieces, and the last one not whole.
fn content() -> Bytes {
    let bytes = (0_u32..300_000).flat_map(u32::to_be_bytes);
    bytes.collect::<Vec<_>>().into()
}

fn hash_of(bytes: &[u8]) -> ContentHash {
    ContentHash(*blake3::hash(bytes).as_bytes())
}

/// One agent's part.
struct Host {
    passing: Passing,
    pin: PeerPin,
    hash: ContentHash,
    bytes: u64,
}

impl Host {
    fn of(content: &Bytes) -> Self {
        let mut passing = Passing::default();
        let pin = passing.take_part().unwrap();
        Self {
            passing,
            pin,
            hash: hash_of(content),
            bytes: content.len() as u64,
        }
    }

    /// Is to pass it on to these; where.
    async fn pass_on(&mut self, peers: &[&Self], here: Option<&Bytes>) -> u16 {
        let peers: Vec<_> = peers.iter().map(|peer| peer.pin).collect();
        let asked = peers.clone();
        let here = here.map(|bytes| (Held::Bytes(bytes.clone()), bytes.len()));
        self.passing.pass_on(self.hash, self.bytes, peers, here);
        match self.told().await {
            Passed::Port(_, port, invited) => {
                assert_eq!(invited, asked);
                port
            }
            other => panic!("{other:?}"),
        }
    }

    /// The coordinator has sent it.
    fn is_here(&mut self, content: &Bytes) {
        let file = content::file_of(content).unwrap();
        let held = Held::File(file.into());
        self.passing.is_here(self.hash, held, content.len());
    }

    fn fetch(&mut self, pin: PeerPin, port: u16) {
        let at = (Ipv4Addr::LOCALHOST, port).into();
        self.passing.fetch(self.hash, self.bytes, vec![at], pin);
    }

    fn awaits(&self) -> bool {
        self.passing.is_awaited(self.hash)
    }

    async fn told(&mut self) -> Passed {
        let told = timeout(Duration::from_secs(20), self.passing.next()).await;
        told.expect("it is told in time")
    }

    async fn came(&mut self) -> Bytes {
        match self.told().await {
            Passed::Came(_, file, len) => content::bytes_of(&file, len).unwrap(),
            other => panic!("{other:?}"),
        }
    }

    async fn failed(&mut self) -> String {
        match self.told().await {
            Passed::Failed(_, why) => why,
            other => panic!("{other:?}"),
        }
    }
}

fn hosts<const N: usize>(content: &Bytes) -> [Host; N] {
    std::array::from_fn(|_| Host::of(content))
}

#[test]
fn ssh_says_where_it_came_to() {
    let said = ssh_server("10.77.0.2 50122 10.77.0.11 22");
    assert_eq!(said, Some("10.77.0.11".parse().unwrap()));
    assert_eq!(ssh_server(""), None);
    assert_eq!(ssh_server("UNKNOWN 65535 UNKNOWN 65535"), None);
}

#[test]
fn loopback_is_nowhere_to_come_to() {
    assert!(addresses().iter().all(is_global_enough));
}

#[tokio::test]
async fn content_comes_down_a_tree_whose_root_gets_it_last() {
    let content = content();
    let [mut root, mut left, mut right, mut leaf] = hosts(&content);
    let at_left = left.pass_on(&[&leaf], None).await;
    leaf.fetch(left.pin, at_left);
    let at_root = root.pass_on(&[&left, &right], None).await;
    left.fetch(root.pin, at_root);
    right.fetch(root.pin, at_root);
    root.is_here(&content);
    for host in [&mut leaf, &mut right, &mut left] {
        assert!(host.came().await == content);
    }
}

#[tokio::test]
async fn whether_there_will_be_word_of_it_is_known() {
    let content = content();
    let [mut root, mut leaf, other] = hosts(&content);
    let port = root.pass_on(&[&leaf], None).await;
    assert!(!root.awaits(), "it is to come from the coordinator");
    leaf.fetch(other.pin, port);
    assert!(leaf.awaits());
    leaf.failed().await;
    assert!(!leaf.awaits());
    leaf.fetch(root.pin, port);
    assert!(leaf.awaits());
    root.is_here(&content);
    leaf.came().await;
    assert!(!leaf.awaits());
}

#[tokio::test]
async fn who_waits_for_its_turn_hears_that_somebody_is_there() {
    let content = content();
    let [mut root, mut leaf] = hosts(&content);
    let at_root = root.pass_on(&[&leaf], None).await;
    leaf.fetch(root.pin, at_root);
    let longer = PASSING_SILENCE_MAX + Duration::from_secs(2);
    let told = timeout(longer, leaf.passing.next()).await;
    assert!(told.is_err(), "{told:?}");
    root.is_here(&content);
    assert!(leaf.came().await == content);
}

#[tokio::test]
async fn g9_who_was_not_named_gets_nothing() {
    let content = content();
    let [mut root, mut guest, mut stranger] = hosts(&content);
    let port = root.pass_on(&[&guest], Some(&content)).await;
    stranger.fetch(root.pin, port);
    stranger.failed().await;
    // Whoever is at the port is not who was told of.
    let other = stranger.pin;
    guest.fetch(other, port);
    assert!(guest.failed().await.contains("certificate"));
    guest.fetch(root.pin, port);
    assert!(guest.came().await == content);
    // A second time it is a stranger.
    let mut again = Host::of(&content);
    again.passing.key = guest.passing.key.clone();
    again.fetch(root.pin, port);
    again.failed().await;
}

#[tokio::test]
async fn what_is_not_what_its_hash_says_is_not_believed() {
    let content = content();
    let [mut liar, mut middle, mut leaf] = hosts(&content);
    let mut other = content.to_vec();
    other[1_000_000] ^= 1;
    let at_liar = liar.pass_on(&[&middle], Some(&other.into())).await;
    let at_middle = middle.pass_on(&[&leaf], None).await;
    leaf.fetch(middle.pin, at_middle);
    middle.fetch(liar.pin, at_liar);
    assert!(middle.failed().await.contains("something else"));
    leaf.failed().await;
}

#[tokio::test]
async fn who_loses_its_parent_keeps_its_children() {
    let content = content();
    let [mut dying, mut middle, mut leaf] = hosts(&content);
    let at_middle = middle.pass_on(&[&leaf], None).await;
    leaf.fetch(middle.pin, at_middle);
    let at_dying = dying.pass_on(&[&middle], None).await;
    middle.fetch(dying.pin, at_dying);
    // Nobody needs it there any more, so its port is closed.
    dying.passing.keep_only(|_| false);
    middle.failed().await;
    // The coordinator has been asked, and has answered.
    middle.is_here(&content);
    assert!(leaf.came().await == content);
}

#[tokio::test]
async fn a_parent_that_is_silent_is_given_up() {
    let content = content();
    let [mut child] = hosts(&content);
    let key = PinnedKey::new().unwrap();
    let mut listener = PinnedListener::bind(&key).await.unwrap();
    listener.invite(child.pin);
    let began = Instant::now();
    child.fetch(key.pin(), listener.port().unwrap());
    let mut guest = std::future::poll_fn(|context| listener.poll_guest(context)).await;
    guest.write_all(&5_u32.to_be_bytes()).await.unwrap();
    guest.flush().await.unwrap();
    assert_eq!(child.failed().await, "it is silent");
    assert!(began.elapsed() >= PASSING_SILENCE_MAX);
}

#[tokio::test]
async fn a_parent_that_sends_too_much_is_given_up() {
    let content = content();
    let [mut child] = hosts(&content);
    let key = PinnedKey::new().unwrap();
    let mut listener = PinnedListener::bind(&key).await.unwrap();
    listener.invite(child.pin);
    child.fetch(key.pin(), listener.port().unwrap());
    let mut guest = std::future::poll_fn(|context| listener.poll_guest(context)).await;
    guest.write_all(&u32::MAX.to_be_bytes()).await.unwrap();
    guest.flush().await.unwrap();
    assert_eq!(child.failed().await, "it sent more than was asked for");
}

#[tokio::test]
async fn an_agent_that_takes_no_part_says_so() {
    let content = content();
    let [mut other, mut apart] = hosts(&content);
    apart.passing.key = None;
    assert_eq!(apart.pass_on(&[&other], Some(&content)).await, 0);
    apart.fetch(other.pin, 1);
    apart.failed().await;
    // And one that has forgotten everything is not there.
    other.fetch(apart.pin, 1);
    other.failed().await;
}
