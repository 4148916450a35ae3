//! What every carrier must do, run on each of them.
//!
//! A carrier differs from the others only in what the last section says of QUIC.

use std::time::Duration;

use crate::cluster::{Cluster, frame, large, number, soon};
use fleetpool_net::{Carrier, Cause, Sender, TrySendError};
use fleetpool_proto::{
    Frame,
    limits::{BULK_BYTES_MIN, FRAME_SEGMENTS_MAX, SEND_QUEUE_BYTES, SEND_QUEUE_FRAMES},
};
use tokio::time::timeout;

macro_rules! on_every_carrier {
    ($($name:ident)+) => {
        on_every_carrier!(@ local Local: $($name)+);
        on_every_carrier!(@ unix Unix: $($name)+);
        on_every_carrier!(@ ssh Ssh: $($name)+);
        on_every_carrier!(@ tcp Tcp: $($name)+);
        on_every_carrier!(@ quic Quic: $($name)+);
    };
    (@ $module:ident $carrier:ident: $($name:ident)+) => {
        mod $module {
            $(
                #[tokio::test]
                async fn $name() {
                    super::$name(fleetpool_net::Carrier::$carrier).await;
                }
            )+
        }
    };
}

on_every_carrier! {
    frames_arrive_once_and_in_order_both_ways
    bodies_of_every_shape_arrive_whole
    large_bodies_cross_small_frames_both_ways
    a_sender_waits_for_a_receiver_that_does_not_read
    bulk_waits_for_a_receiver_that_does_not_read
    a_receive_that_is_dropped_loses_nothing
    the_reason_of_a_close_follows_the_last_frame
    closing_is_heard_while_both_sides_wait
    closing_reaches_a_peer_whose_queue_is_full
    dropping_the_last_sender_ends_the_session
    dropping_a_session_ends_it_for_the_peer
    a_frame_over_the_limits_ends_the_session_with_the_reason
    the_peer_is_known
}

async fn frames_arrive_once_and_in_order_both_ways(carrier: Carrier) {
    const FRAMES: u32 = 20_000;
    let mut cluster = Cluster::start();
    let (mut a, mut b) = cluster.session(carrier).await;
    let send = |sender: Sender| async move {
        for n in 0..FRAMES {
            sender.send(frame(n)).await.unwrap();
        }
    };
    let receive = async |receiver: &mut fleetpool_net::Receiver| {
        for n in 0..FRAMES {
            assert_eq!(number(&receiver.recv().await.unwrap()), n);
        }
        assert!(receiver.try_recv().is_none());
    };
    let (down, up) = (send(a.sender.clone()), send(b.sender.clone()));
    soon(async {
        tokio::join!(down, up, receive(&mut a.receiver), receive(&mut b.receiver));
    })
    .await;
}

async fn bodies_of_every_shape_arrive_whole(carrier: Carrier) {
    let mut cluster = Cluster::start();
    let (a, mut b) = cluster.session(carrier).await;
    let small = BULK_BYTES_MIN - 1;
    let shapes: [&[usize]; 9] = [
        &[],
        &[0],
        &[1],
        &[small],
        &[small + 1],
        &[small, small + 1, 0, 3, 2 * small],
        &[16 << 10, 17 << 10],
        &[3 << 20, 1, 3 << 20],
        &[1; FRAME_SEGMENTS_MAX],
    ];
    for shape in shapes {
        let body = shape.iter().map(|len| vec![7; *len].into()).collect();
        let sent = Frame { body, ..frame(1) };
        let received = soon(async {
            a.sender.send(sent.clone()).await.unwrap();
            b.receiver.recv().await.unwrap()
        })
        .await;
        assert!(received == sent, "shape {:?}", &shape[..shape.len().min(8)]);
    }
}

async fn large_bodies_cross_small_frames_both_ways(carrier: Carrier) {
    const LARGE: u32 = 6;
    const BYTES: usize = 8 << 20;
    let mut cluster = Cluster::start();
    let (mut a, mut b) = cluster.session(carrier).await;
    let send = |sender: Sender| async move {
        for n in 0..LARGE {
            sender.send(large(2 * n, BYTES)).await.unwrap();
            sender.send(frame(2 * n + 1)).await.unwrap();
        }
    };
    let receive = async |receiver: &mut fleetpool_net::Receiver| {
        let mut seen = Vec::new();
        while seen.len() < 2 * LARGE as usize {
            let got = receiver.recv().await.unwrap();
            let n = number(&got);
            assert!(n % 2 == 1 || got == large(n, BYTES), "frame {n} is damaged");
            seen.push(n);
        }
        let small: Vec<_> = seen.iter().filter(|n| **n % 2 == 1).collect();
        assert!(small.is_sorted(), "{seen:?}");
        seen.sort_unstable();
        assert_eq!(seen, Vec::from_iter(0..2 * LARGE));
    };
    let (down, up) = (send(a.sender.clone()), send(b.sender.clone()));
    soon(async {
        tokio::join!(down, up, receive(&mut a.receiver), receive(&mut b.receiver));
    })
    .await;
}

/// Sends until nothing is taken any more; how many were.
async fn send_until_full(sender: &Sender, make: impl Fn(u32) -> Frame) -> u32 {
    for n in 0.. {
        match timeout(Duration::from_millis(500), sender.send(make(n))).await {
            Ok(sent) => sent.unwrap(),
            Err(_) => return n,
        }
    }
    unreachable!("it is always full at some time")
}

async fn a_sender_waits_for_a_receiver_that_does_not_read(carrier: Carrier) {
    const BYTES: usize = 16 << 10;
    let mut cluster = Cluster::start();
    let (a, mut b) = cluster.session(carrier).await;
    let make = |n| large(n, BYTES);
    let sent = soon(send_until_full(&a.sender, make)).await;
    // The queue and, behind it, what the kernel or the windows hold.
    let queue = SEND_QUEUE_FRAMES;
    let behind = (40 << 20) / BYTES;
    assert!(
        (queue..queue + behind).contains(&(sent as usize)),
        "{sent} frames were taken"
    );
    assert!(matches!(a.sender.try_send(make(sent)), Err(TrySendError::Full(f)) if f == make(sent)));
    for n in 0..sent {
        let got = soon(b.receiver.recv()).await.unwrap();
        assert!(got == make(n), "frame {n}");
    }
    soon(a.sender.send(make(sent))).await.unwrap();
    assert!(soon(b.receiver.recv()).await.unwrap() == make(sent));
}

async fn bulk_waits_for_a_receiver_that_does_not_read(carrier: Carrier) {
    const BYTES: usize = 8 << 20;
    let mut cluster = Cluster::start();
    let (a, mut b) = cluster.session(carrier).await;
    let sent = soon(send_until_full(&a.sender, |n| large(n, BYTES))).await;
    let queue = SEND_QUEUE_BYTES / large(0, BYTES).len();
    assert!(
        (queue..queue + 6).contains(&(sent as usize)),
        "{sent} frames were taken"
    );
    let mut seen = Vec::new();
    for _ in 0..sent {
        let got = soon(b.receiver.recv()).await.unwrap();
        assert!(got == large(number(&got), BYTES));
        seen.push(number(&got));
    }
    seen.sort_unstable();
    assert_eq!(seen, Vec::from_iter(0..sent));
}

async fn a_receive_that_is_dropped_loses_nothing(carrier: Carrier) {
    let mut cluster = Cluster::start();
    let (a, mut b) = cluster.session(carrier).await;
    let sends = tokio::spawn(async move {
        for n in 0..200 {
            let len = if n % 10 == 0 { 300 << 10 } else { 5 };
            a.sender.send(large(n, len)).await.unwrap();
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        a
    });
    let mut seen = Vec::new();
    while seen.len() < 200 {
        // Most of these are dropped while they wait or are in the middle of a frame.
        let short = timeout(Duration::from_micros(300), b.receiver.recv()).await;
        if let Ok(got) = short {
            seen.push(number(&got.unwrap()));
        }
    }
    soon(sends).await.unwrap();
    seen.sort_unstable();
    assert_eq!(seen, Vec::from_iter(0..200));
}

async fn the_reason_of_a_close_follows_the_last_frame(carrier: Carrier) {
    let mut cluster = Cluster::start();
    // Each side once, the dialling one first.
    for swap in [false, true] {
        let (a, b) = cluster.session(carrier).await;
        let (mut closes, mut hears) = if swap { (b, a) } else { (a, b) };
        for n in 0..100 {
            let len = if n % 20 == 0 { 100 << 10 } else { 5 };
            closes.sender.try_send(large(n, len)).unwrap();
        }
        closes.sender.close("made redundant");
        let ours = soon(closes.receiver.recv()).await.unwrap_err();
        assert_eq!(
            (ours.cause, ours.reason.as_str()),
            (Cause::Us, "made redundant")
        );
        assert!(closes.sender.send(frame(0)).await.is_err());
        let mut seen = Vec::new();
        let theirs = loop {
            match soon(hears.receiver.recv()).await {
                Ok(got) => seen.push(number(&got)),
                Err(closed) => break closed,
            }
        };
        seen.sort_unstable();
        assert_eq!(
            seen,
            Vec::from_iter(0..100),
            "what was queued before the close"
        );
        assert_eq!(
            (theirs.cause, theirs.reason.as_str()),
            (Cause::Peer, "made redundant")
        );
        let again = soon(hears.receiver.recv()).await.unwrap_err();
        assert_eq!(again, theirs, "the end stays the same");
        assert_eq!(soon(hears.sender.send(frame(0))).await.unwrap_err(), theirs);
        assert_eq!(soon(hears.sender.closed()).await, theirs);
    }
}

async fn closing_is_heard_while_both_sides_wait(carrier: Carrier) {
    let mut cluster = Cluster::start();
    let (mut a, mut b) = cluster.session(carrier).await;
    let closer = a.sender.clone();
    let ours = tokio::spawn(async move { a.receiver.recv().await });
    let theirs = tokio::spawn(async move { b.receiver.recv().await });
    tokio::task::yield_now().await;
    closer.close("bye");
    assert_eq!(soon(ours).await.unwrap().unwrap_err().cause, Cause::Us);
    let theirs = soon(theirs).await.unwrap().unwrap_err();
    assert_eq!((theirs.cause, theirs.reason.as_str()), (Cause::Peer, "bye"));
}

/// A peer that neither reads nor lets itself be written to does not keep a session open.
async fn closing_reaches_a_peer_whose_queue_is_full(carrier: Carrier) {
    let mut cluster = Cluster::start();
    let (mut a, b) = cluster.session(carrier).await;
    soon(send_until_full(&a.sender, |n| large(n, 16 << 10))).await;
    let blocked = a.sender.clone();
    let blocked = tokio::spawn(async move { blocked.send(frame(0)).await });
    tokio::task::yield_now().await;
    a.sender.close("enough");
    assert_eq!(soon(blocked).await.unwrap().unwrap_err().cause, Cause::Us);
    assert_eq!(soon(a.receiver.recv()).await.unwrap_err().cause, Cause::Us);
    drop(a);
    // The peer has what came before; then its session ends, with the reason if that got through.
    let mut b = b.receiver;
    let closed = loop {
        if let Err(closed) = soon(b.recv()).await {
            break closed;
        }
    };
    assert!(
        matches!(closed.cause, Cause::Peer | Cause::Lost),
        "{closed}"
    );
}

async fn dropping_the_last_sender_ends_the_session(carrier: Carrier) {
    let mut cluster = Cluster::start();
    let (a, mut b) = cluster.session(carrier).await;
    let (first, second) = (a.sender.clone(), a.sender);
    first.send(frame(1)).await.unwrap();
    drop(first);
    second.send(frame(2)).await.unwrap();
    drop(second);
    assert_eq!(number(&soon(b.receiver.recv()).await.unwrap()), 1);
    assert_eq!(number(&soon(b.receiver.recv()).await.unwrap()), 2);
    let closed = soon(b.receiver.recv()).await.unwrap_err();
    assert_eq!(
        (closed.cause, closed.reason.as_str()),
        (Cause::Peer, "the other side has left")
    );
}

async fn dropping_a_session_ends_it_for_the_peer(carrier: Carrier) {
    let mut cluster = Cluster::start();
    let (a, mut b) = cluster.session(carrier).await;
    drop(a);
    assert_eq!(
        soon(b.receiver.recv()).await.unwrap_err().cause,
        Cause::Peer
    );
    soon(async { while b.sender.send(frame(0)).await.is_ok() {} }).await;
}

async fn a_frame_over_the_limits_ends_the_session_with_the_reason(carrier: Carrier) {
    let mut cluster = Cluster::start();
    let (a, mut b) = cluster.session(carrier).await;
    let segments = vec![bytes::Bytes::from_static(b"x"); FRAME_SEGMENTS_MAX + 1];
    let sent = a
        .sender
        .send(Frame {
            body: segments,
            ..frame(0)
        })
        .await;
    assert_eq!(sent.unwrap_err().cause, Cause::Us);
    let closed = soon(b.receiver.recv()).await.unwrap_err();
    assert!(closed.reason.contains("over the limits"), "{closed}");
}

async fn the_peer_is_known(carrier: Carrier) {
    let mut cluster = Cluster::start();
    let (a, b) = cluster.session(carrier).await;
    assert_eq!(a.peer.role, fleetpool_proto::Role::Coordinator);
    assert_eq!(b.peer.role, fleetpool_proto::Role::Agent);
    assert_eq!((a.peer.carrier, b.peer.carrier), (carrier, carrier));
    assert_eq!(b.peer.name, "a");
    assert_eq!(
        b.peer.key.is_some(),
        matches!(carrier, Carrier::Quic | Carrier::Tcp)
    );
}

/// On QUIC, bulk that nobody reads is overtaken by control sent later.
#[tokio::test]
async fn control_overtakes_bulk_on_quic() {
    const BULK: u32 = 3;
    let mut cluster = Cluster::start();
    let (a, mut b) = cluster.session(Carrier::Quic).await;
    for n in 0..BULK {
        a.sender.try_send(large(n, 8 << 20)).unwrap();
    }
    a.sender.try_send(frame(BULK)).unwrap();
    let mut before = Vec::new();
    loop {
        let n = number(&soon(b.receiver.recv()).await.unwrap());
        if n == BULK {
            break;
        }
        before.push(n);
    }
    assert!(
        before.len() < 2,
        "24 MiB of bulk were in front, {before:?} came before"
    );
    for _ in before.len()..BULK as usize {
        soon(b.receiver.recv()).await.unwrap();
    }
}
