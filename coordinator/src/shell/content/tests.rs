use std::time::Duration;

use fleetpool_proto::limits::PASSING_ANSWER_TIME_MAX;

use super::*;

const HASH: ContentHash = ContentHash([1; 32]);
const ALICE: ClientId = ClientId(1);
const BOB: ClientId = ClientId(2);

const NOW: Timestamp = Timestamp(0);

fn fetch(contents: &mut Contents, asker: Asker) -> Vec<Step> {
    contents.on_fetch(asker, HASH, false, NOW)
}

fn asker(host: u32, client: ClientId) -> Asker {
    Asker {
        host: HostId(host),
        session: u64::from(host),
        client,
    }
}

#[test]
fn many_agents_cause_one_fetch_and_later_ones_none() {
    let mut contents = Contents::default();
    assert_eq!(
        fetch(&mut contents, asker(1, ALICE)),
        [Step::Ask(ALICE, HASH)]
    );
    assert_eq!(fetch(&mut contents, asker(2, ALICE)), []);
    let bytes = Bytes::from_static(b"program");
    let give = |host, client| Step::Give(asker(host, client), HASH, bytes.clone());
    assert_eq!(
        contents.on_content(ALICE, HASH, bytes.clone(), NOW),
        [give(1, ALICE), give(2, ALICE)]
    );
    assert_eq!(fetch(&mut contents, asker(3, BOB)), [give(3, BOB)]);
}

#[test]
fn when_the_client_is_gone_its_agents_get_nothing_and_the_next_client_is_asked() {
    let mut contents = Contents::default();
    fetch(&mut contents, asker(1, ALICE));
    fetch(&mut contents, asker(2, BOB));
    let steps = contents.on_client_gone(ALICE);
    assert_eq!(
        steps,
        [
            Step::Give(asker(1, ALICE), HASH, Bytes::new()),
            Step::Ask(BOB, HASH)
        ]
    );
    assert_eq!(
        contents.on_client_gone(BOB),
        [Step::Give(asker(2, BOB), HASH, Bytes::new())]
    );
    assert_eq!(contents.on_client_gone(BOB), []);
}

#[test]
fn what_a_client_was_asked_for_is_known_until_it_comes() {
    let mut contents = Contents::default();
    fetch(&mut contents, asker(1, ALICE));
    assert_eq!(
        (contents.asked_of(ALICE), contents.asked_of(BOB)),
        (vec![HASH], vec![])
    );
    contents.on_content(ALICE, HASH, Bytes::from_static(b"program"), NOW);
    assert_eq!(contents.asked_of(ALICE), []);
}

#[test]
fn content_that_another_client_sends_is_not_taken() {
    let mut contents = Contents::default();
    fetch(&mut contents, asker(1, ALICE));
    assert_eq!(
        contents.on_content(BOB, HASH, Bytes::from_static(b"program"), NOW),
        []
    );
    assert_eq!(
        contents
            .on_content(ALICE, HASH, Bytes::from_static(b"program"), NOW)
            .len(),
        1
    );
}

#[test]
fn what_was_used_longest_ago_makes_room() {
    let mut contents = Contents::default();
    let half = Bytes::from(vec![0; KEPT_BYTES_MAX / 2]);
    for hash in [1, 2, 3] {
        let hash = ContentHash([hash; 32]);
        contents.on_fetch(asker(1, ALICE), hash, false, NOW);
        contents.on_content(ALICE, hash, half.clone(), NOW);
        contents.on_fetch(asker(1, ALICE), ContentHash([1; 32]), false, NOW);
    }
    let kept: Vec<_> = contents.kept.keys().map(|hash| hash.0[0]).collect();
    assert_eq!(kept, [1, 3]);
}

/// Content that is worth passing on.
fn large() -> Bytes {
    Bytes::from(vec![7; PASSED_ON_BYTES_MIN])
}

fn pin(host: u32) -> PeerPin {
    PeerPin([u8::try_from(host).unwrap(); 32])
}

fn ip(host: u32) -> IpAddr {
    IpAddr::from([10, 0, 0, u8::try_from(host).unwrap()])
}

/// With agents of these hosts that can pass content on.
fn with_agents(hosts: impl IntoIterator<Item = u32>) -> Contents {
    let mut contents = Contents::default();
    for host in hosts {
        join(&mut contents, host);
    }
    contents
}

fn join(contents: &mut Contents, host: u32) {
    let session = u64::from(host);
    contents.on_agent(HostId(host), session, Some(pin(host)), Some(ip(host)));
}

/// These hosts want it for Alice, who has sent it.
fn handed_out(contents: &mut Contents, hosts: impl IntoIterator<Item = u32>) -> Vec<Step> {
    for host in hosts {
        fetch(contents, asker(host, ALICE));
    }
    contents.on_content(ALICE, HASH, large(), NOW)
}

/// The agent of this host says to what port these may come; 0: they may not.
fn answer(contents: &mut Contents, host: u32, peers: &[u32], port: u16) -> Vec<Step> {
    let peers: Vec<_> = peers.iter().map(|peer| pin(*peer)).collect();
    contents.on_passing_on(HostId(host), u64::from(host), HASH, port, &[], &peers)
}

fn pass_on(host: u32, peers: &[u32]) -> Step {
    Step::PassOn {
        host: HostId(host),
        session: u64::from(host),
        hash: HASH,
        bytes: size(&large()),
        peers: peers.iter().map(|peer| pin(*peer)).collect(),
    }
}

fn fetch_from(child: u32, parent: u32) -> Step {
    Step::FetchFrom {
        asker: asker(child, ALICE),
        hash: HASH,
        bytes: size(&large()),
        addresses: vec![SocketAddr::new(ip(parent), 4000)],
        pin: pin(parent),
    }
}

fn give(host: u32, client: ClientId) -> Step {
    Step::Give(asker(host, client), HASH, large())
}

fn again(contents: &mut Contents, host: u32, now: Timestamp) -> Vec<Step> {
    contents.on_fetch(asker(host, ALICE), HASH, true, now)
}

#[test]
fn of_eight_agents_one_gets_it_from_the_coordinator_and_each_passes_it_on_to_two() {
    let mut contents = with_agents(1..=8);
    assert_eq!(
        handed_out(&mut contents, 1..=8),
        [
            pass_on(1, &[2, 3]),
            pass_on(2, &[4, 5]),
            pass_on(3, &[6, 7]),
            pass_on(4, &[8]),
            give(1, ALICE)
        ]
    );
    assert_eq!(
        answer(&mut contents, 2, &[4, 5], 4000),
        [fetch_from(4, 2), fetch_from(5, 2)]
    );
    assert_eq!(answer(&mut contents, 2, &[4, 5], 4000), [], "once");
    assert_eq!(
        answer(&mut contents, 1, &[2, 3], 4000),
        [fetch_from(2, 1), fetch_from(3, 1)]
    );
}

#[test]
fn whom_an_agent_has_not_heard_of_is_not_sent_to_it() {
    let mut contents = with_agents(1..=4);
    handed_out(&mut contents, 1..=2);
    assert_eq!(fetch(&mut contents, asker(3, ALICE)), [pass_on(1, &[3])]);
    assert_eq!(
        answer(&mut contents, 1, &[2], 4000),
        [fetch_from(2, 1)],
        "the second question is still on its way, behind the content perhaps"
    );
    assert_eq!(answer(&mut contents, 1, &[3], 4000), [fetch_from(3, 1)]);
    assert_eq!(fetch(&mut contents, asker(4, ALICE)), [pass_on(2, &[4])]);
    let steps = answer(&mut contents, 2, &[], 4000);
    assert_eq!(steps, [fetch_from(4, 2)], "of an agent that does not say");
}

#[test]
fn what_is_small_goes_to_each_and_so_it_does_to_agents_of_older_versions() {
    let mut contents = with_agents(1..=2);
    let small = Bytes::from_static(b"program");
    for host in [1, 2] {
        fetch(&mut contents, asker(host, ALICE));
    }
    let steps = contents.on_content(ALICE, HASH, small.clone(), NOW);
    assert_eq!(
        steps,
        [1, 2].map(|host| Step::Give(asker(host, ALICE), HASH, small.clone()))
    );

    let mut contents = with_agents([1, 3]);
    contents.on_agent(HostId(2), 2, None, Some(ip(2)));
    let steps = handed_out(&mut contents, [2, 1, 3]);
    assert_eq!(steps, [pass_on(1, &[3]), give(2, ALICE), give(1, ALICE)]);
}

#[test]
fn who_does_not_get_it_of_its_parent_gets_it_here_at_once_and_keeps_its_children() {
    let mut contents = with_agents(1..=9);
    handed_out(&mut contents, 1..=7);
    for (host, peers) in [(1, [2, 3]), (2, [4, 5]), (3, [6, 7])] {
        answer(&mut contents, host, &peers, 4000);
    }
    assert_eq!(again(&mut contents, 2, NOW), [give(2, ALICE)]);
    // Nobody else is placed below the parent that failed; 4 is the first below which there is room.
    assert_eq!(fetch(&mut contents, asker(8, ALICE)), [pass_on(4, &[8])]);
    assert_eq!(again(&mut contents, 8, NOW), [give(8, ALICE)]);
    assert_eq!(fetch(&mut contents, asker(9, ALICE)), [pass_on(5, &[9])]);
}

#[test]
fn who_waits_for_the_answer_of_an_agent_that_is_gone_gets_it_here() {
    let mut contents = with_agents(1..=7);
    handed_out(&mut contents, 1..=7);
    answer(&mut contents, 3, &[6, 7], 4000);
    assert_eq!(contents.on_agent_gone(HostId(3), 3), [], "they find out");
    assert_eq!(contents.on_agent_gone(HostId(2), 1), [], "another session");
    let steps = contents.on_agent_gone(HostId(2), 2);
    assert_eq!(steps, [give(4, ALICE), give(5, ALICE)]);
    assert_eq!(answer(&mut contents, 2, &[4, 5], 4000), []);
}

#[test]
fn an_agent_that_cannot_pass_it_on_or_does_not_answer_keeps_nobody_waiting() {
    let mut contents = with_agents(1..=7);
    handed_out(&mut contents, 1..=7);
    assert_eq!(
        answer(&mut contents, 2, &[4, 5], 0),
        [give(4, ALICE), give(5, ALICE)]
    );
    let late = NOW + PASSING_ANSWER_TIME_MAX;
    assert_eq!(contents.poll_timeout(), Some(late));
    let steps = contents.on_time(late);
    assert_eq!(steps, [2, 3, 6, 7].map(|host| give(host, ALICE)));
    assert_eq!(contents.poll_timeout(), None);
}

#[test]
fn who_comes_later_gets_it_of_those_that_have_it_and_no_client_is_asked() {
    let mut contents = with_agents(1..=4);
    handed_out(&mut contents, [1]);
    contents.kept.clear();
    assert_eq!(fetch(&mut contents, asker(2, ALICE)), [pass_on(1, &[2])]);
    assert_eq!(fetch(&mut contents, asker(3, BOB)), [pass_on(1, &[3])]);
    // It was too large to be kept, so whoever must have it from here makes the client send it again.
    assert_eq!(again(&mut contents, 2, NOW), [Step::Ask(ALICE, HASH)]);
    assert_eq!(
        contents.on_content(ALICE, HASH, large(), NOW),
        [give(2, ALICE)]
    );
}

#[test]
fn agents_of_two_pools_are_in_one_tree_and_one_of_them_may_end() {
    let mut contents = with_agents(1..=4);
    fetch(&mut contents, asker(1, ALICE));
    fetch(&mut contents, asker(2, BOB));
    assert_eq!(contents.on_client_gone(ALICE).len(), 2);
    let steps = contents.on_content(BOB, HASH, large(), NOW);
    assert_eq!(steps, [give(2, BOB)]);
    assert_eq!(fetch(&mut contents, asker(3, ALICE)), [pass_on(2, &[3])]);
    assert_eq!(contents.on_client_gone(BOB), []);
    // What Bob's agent had it may have no more. Alice's waits for its answer, which says so.
    assert_eq!(answer(&mut contents, 2, &[3], 0), [give(3, ALICE)]);
}

#[test]
fn who_waits_for_an_answer_gets_it_though_the_client_is_gone() {
    let mut contents = with_agents(1..=2);
    handed_out(&mut contents, 1..=2);
    assert_eq!(contents.on_client_gone(ALICE), []);
    assert_eq!(answer(&mut contents, 1, &[2], 4000), [fetch_from(2, 1)]);
}

#[test]
fn nobody_waits_for_itself_in_the_end() {
    let mut contents = with_agents(1..=3);
    handed_out(&mut contents, 1..=3);
    // The root comes back by another session, and what it had is gone.
    contents.on_agent_gone(HostId(1), 1);
    contents.on_agent(HostId(1), 9, Some(pin(1)), Some(ip(1)));
    let back = Asker {
        session: 9,
        ..asker(1, ALICE)
    };
    assert_eq!(
        contents.on_fetch(back, HASH, false, NOW),
        [Step::Give(back, HASH, large())]
    );
}

#[test]
fn a_host_that_others_do_not_reach_takes_no_part_for_a_while() {
    let mut contents = with_agents(1..=9);
    let fails = |contents: &mut Contents, parent: u32, child: u32| {
        contents.on_client_gone(ALICE);
        let steps = handed_out(contents, [parent, child]);
        assert_eq!(steps, [pass_on(parent, &[child]), give(parent, ALICE)]);
        answer(contents, parent, &[child], 4000);
        again(contents, child, NOW);
        contents.kept.clear();
    };
    for child in [2, 3, 4] {
        fails(&mut contents, 1, child);
    }
    contents.on_client_gone(ALICE);
    let steps = handed_out(&mut contents, [1, 2, 5]);
    assert_eq!(steps, [pass_on(2, &[5]), give(1, ALICE), give(2, ALICE)]);
    contents.on_client_gone(ALICE);
    contents.kept.clear();
    let later = NOW + Duration::from_secs(601);
    contents.on_fetch(asker(1, ALICE), HASH, false, later);
    contents.on_fetch(asker(2, ALICE), HASH, false, later);
    let steps = contents.on_content(ALICE, HASH, large(), later);
    assert_eq!(steps, [pass_on(1, &[2]), give(1, ALICE)]);
}

#[test]
fn a_tunnels_end_is_tried_last() {
    let mut contents = with_agents([2]);
    let [tunnel, own] = ["127.0.0.1", "192.168.7.7"].map(|ip| ip.parse::<IpAddr>().unwrap());
    contents.on_agent(HostId(1), 1, Some(pin(1)), Some(tunnel));
    handed_out(&mut contents, [1, 2]);
    let steps = contents.on_passing_on(HostId(1), 1, HASH, 4000, &[own, tunnel], &[pin(2)]);
    let [Step::FetchFrom { addresses, .. }] = &steps[..] else {
        panic!("{steps:?}");
    };
    let expect = [own, tunnel].map(|ip| SocketAddr::new(ip, 4000));
    assert_eq!(addresses[..], expect);
}
