//! Peers that send what they must not: each session ends with the reason, and nothing else does.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::{BufMut as _, BytesMut};
use fleetpool_net::{Carrier, Cause, Closed, Session};
use fleetpool_proto::{
    Role,
    frame::{Prelude, SegmentPlace},
    limits::{BULK_BYTES_MIN, BULK_HELD_BYTES_MAX, FRAME_HEADER_BYTES_MAX},
    version::{HelloReply, Welcome},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    time::timeout,
};

use crate::{
    cluster::{Cluster, frame, large, number, soon},
    raw::{Papers, Raw, encoded},
};

const CARRIERS: [Carrier; 3] = [Carrier::Unix, Carrier::Tcp, Carrier::Quic];

async fn stranger(cluster: &Cluster, carrier: Carrier) -> Raw {
    let papers = Papers::of(&cluster.identity(Role::Agent, "raw"));
    soon(Raw::dial(
        carrier,
        &cluster.address(carrier),
        papers.config(),
    ))
    .await
}

/// A peer that has been welcomed, and the coordinator's session with it.
async fn guest(cluster: &mut Cluster, carrier: Carrier) -> (Raw, Session) {
    let mut raw = stranger(cluster, carrier).await;
    raw.say_hello().await;
    let incoming = soon(cluster.listener.accept()).await;
    let session = soon(incoming.welcome(Welcome::default())).await.unwrap();
    let reply = soon(raw.receive::<HelloReply>()).await;
    assert!(matches!(reply, HelloReply::Welcome(_)));
    (raw, session)
}

async fn is_well(cluster: &mut Cluster) {
    let (a, mut b) = cluster.session(Carrier::Quic).await;
    a.sender.send(frame(7)).await.unwrap();
    assert_eq!(number(&soon(b.receiver.recv()).await.unwrap()), 7);
}

#[tokio::test]
async fn before_hello_nothing_but_a_small_hello_is_taken() {
    let mut cluster = Cluster::start();
    let mut too_large = BytesMut::new();
    let header = 64 << 10;
    let announced = Prelude {
        header,
        segments: vec![],
    };
    announced.write(&mut too_large);
    let not_msgpack = [0, 0, 0, 1, 0, 0, 0xc1];
    for carrier in CARRIERS {
        for (bytes, expect) in [
            (&too_large[..], "at most 65536"),
            (&b"GET / HTTP/1.1\r\n\r\n"[..], "over the limit"),
            (&not_msgpack[..], "hello cannot be read"),
        ] {
            let mut raw = stranger(&cluster, carrier).await;
            raw.send(bytes).await;
            let answer = soon(raw.rest()).await;
            assert!(answer.contains(expect), "{carrier}: {answer:?}");
        }
    }
    Box::pin(is_well(&mut cluster)).await;
}

#[tokio::test]
async fn a_guest_that_announces_too_much_is_told_so() {
    let mut cluster = Cluster::start();
    for carrier in CARRIERS {
        let (mut raw, mut session) = guest(&mut cluster, carrier).await;
        let too_long = u32::try_from(FRAME_HEADER_BYTES_MAX + 1).unwrap();
        raw.send(&[&too_long.to_be_bytes()[..], &[0, 0]].concat())
            .await;
        let closed = soon(session.receiver.recv()).await.unwrap_err();
        assert_eq!(closed.cause, Cause::Malformed, "{carrier}: {closed}");
        let told = soon(raw.rest()).await;
        assert!(
            told.contains("frame header of 4194305"),
            "{carrier}: {told:?}"
        );
    }
    Box::pin(is_well(&mut cluster)).await;
}

#[tokio::test]
async fn a_guest_that_breaks_off_is_lost_not_misread() {
    let mut cluster = Cluster::start();
    for carrier in CARRIERS {
        let (mut raw, mut session) = guest(&mut cluster, carrier).await;
        let whole = encoded(HelloReply::Welcome(Welcome::default()));
        raw.send(&whole).await;
        raw.send(&whole[..whole.len() - 1]).await;
        soon(session.receiver.recv()).await.unwrap();
        drop(raw);
        let closed = soon(session.receiver.recv()).await.unwrap_err();
        assert_ne!(closed.cause, Cause::Malformed, "{carrier}: {closed}");
        assert_ne!(closed.cause, Cause::Us, "{carrier}: {closed}");
    }
}

#[tokio::test]
async fn segments_apart_need_a_carrier_that_has_streams() {
    let mut cluster = Cluster::start();
    for carrier in [Carrier::Unix, Carrier::Tcp] {
        let (mut raw, mut session) = guest(&mut cluster, carrier).await;
        raw.send(&announcement(&[BULK_BYTES_MIN])).await;
        let closed = soon(session.receiver.recv()).await.unwrap_err();
        assert!(
            closed.reason.contains("carrier without streams"),
            "{closed}"
        );
    }
}

fn announcement(apart: &[usize]) -> BytesMut {
    let mut bytes = BytesMut::new();
    let segments = apart.iter().map(|len| SegmentPlace::Apart(*len)).collect();
    Prelude {
        header: 4,
        segments,
    }
    .write(&mut bytes);
    bytes.put_u32(1);
    bytes
}

/// What a session makes of these bulk streams, when one segment of 100 KiB was announced.
async fn bulk(streams: &[(u64, usize)]) -> Result<usize, Closed> {
    let mut cluster = Cluster::start();
    let (mut raw, mut session) = guest(&mut cluster, Carrier::Quic).await;
    let connection = raw.connection.clone().unwrap();
    for (segment, len) in streams {
        let mut stream = soon(connection.open_uni()).await.unwrap();
        let bytes = [&segment.to_be_bytes()[..], &vec![9; *len]].concat();
        let _ = stream.write_all(&bytes).await;
        let _ = stream.finish();
    }
    raw.send(&announcement(&[100 << 10])).await;
    let received = soon(session.receiver.recv()).await?;
    // What is wrong with streams nobody asked for shows when the session goes on.
    raw.send(&announcement(&[])).await;
    soon(session.receiver.recv()).await?;
    Ok(received.body[0].len())
}

#[tokio::test]
async fn bulk_is_exactly_what_was_announced() {
    assert_eq!(bulk(&[(0, 100 << 10)]).await.unwrap(), 100 << 10);
    assert_eq!(
        bulk(&[(1, 9), (0, 100 << 10)]).await.unwrap(),
        100 << 10,
        "1 may come yet"
    );
    for (streams, expect) in [
        (&[(0, (100 << 10) - 1)][..], "has 102399"),
        (&[(0, (100 << 10) + 1)][..], "has more"),
        (&[(7, 1), (7, 1)][..], "segment 7 was sent twice"),
    ] {
        let closed = bulk(streams).await.unwrap_err();
        assert_eq!(closed.cause, Cause::Malformed, "{closed}");
        assert!(closed.reason.contains(expect), "{closed}");
    }
}

#[tokio::test]
async fn a_bulk_stream_without_a_number_ends_the_session() {
    let mut cluster = Cluster::start();
    let (raw, mut session) = guest(&mut cluster, Carrier::Quic).await;
    let mut stream = raw.connection.as_ref().unwrap().open_uni().await.unwrap();
    stream.write_all(b"123").await.unwrap();
    stream.finish().unwrap();
    let closed = soon(session.receiver.recv()).await.unwrap_err();
    assert!(closed.reason.contains("without a number"), "{closed}");
}

/// A guest that begins many large segments and ends none has only so much of our memory, and control goes on.
#[tokio::test]
async fn bulk_that_never_ends_is_held_within_bounds() {
    const SEGMENT: usize = 16 << 20;
    const STREAMS: u8 = 15;
    let mut cluster = Cluster::start();
    let (mut raw, mut session) = guest(&mut cluster, Carrier::Quic).await;
    let connection = raw.connection.clone().unwrap();
    raw.send(&announcement(&[SEGMENT]).repeat(STREAMS.into()))
        .await;
    let written = Arc::new(AtomicUsize::new(0));
    for segment in 0..STREAMS {
        let mut stream = soon(connection.open_uni()).await.unwrap();
        let written = Arc::clone(&written);
        tokio::spawn(async move {
            stream
                .write_all(&u64::from(segment).to_be_bytes())
                .await
                .unwrap();
            let block = vec![9; 64 << 10];
            // One block short of whole.
            for _ in 1..SEGMENT / block.len() {
                stream.write_all(&block).await.unwrap();
                written.fetch_add(block.len(), Ordering::Relaxed);
            }
            std::future::pending::<()>().await;
        });
    }
    // The session reads all it will while it waits for a frame, which is none of these.
    let quiet = Duration::from_secs(1);
    let mut last = usize::MAX;
    while last != written.load(Ordering::Relaxed) {
        last = written.load(Ordering::Relaxed);
        assert!(
            timeout(quiet, session.receiver.recv()).await.is_err(),
            "nothing was whole"
        );
    }
    let windows = 34 << 20;
    assert!(
        last <= BULK_HELD_BYTES_MAX + windows,
        "{last} bytes were taken"
    );
    assert!(
        last > BULK_HELD_BYTES_MAX / 2,
        "only {last} bytes were taken"
    );
    raw.send(&announcement(&[])).await;
    assert!(soon(session.receiver.recv()).await.unwrap().body.is_empty());
}

/// What it said and nobody read does not get in the way.
#[tokio::test]
async fn a_guest_that_talks_on_is_still_told_why_it_is_shown_out() {
    let mut cluster = Cluster::start();
    for carrier in CARRIERS {
        let (mut raw, session) = guest(&mut cluster, carrier).await;
        raw.send(&encoded(HelloReply::Welcome(Welcome::default())).repeat(500))
            .await;
        session.sender.close("enough");
        drop(session);
        // It goes on for a while before it listens.
        let told = async {
            while raw.io.write_all(&[0; 64]).await.is_ok() && raw.io.flush().await.is_ok() {
                let mut reason = [0; 12];
                if timeout(Duration::from_millis(5), raw.io.read_exact(&mut reason))
                    .await
                    .is_ok()
                {
                    return reason.ends_with(b"enough");
                }
            }
            soon(raw.rest()).await.contains("enough")
        };
        assert!(soon(told).await, "{carrier}");
    }
}

/// A guest that does not read cannot keep a session from ending.
#[tokio::test]
async fn a_guest_that_does_not_listen_is_shown_out_all_the_same() {
    let mut cluster = Cluster::start();
    let (raw, session) = guest(&mut cluster, Carrier::Quic).await;
    let sender = session.sender.clone();
    let talk = async {
        loop {
            sender.send(large(0, 60 << 10)).await.unwrap();
        }
    };
    let full: Result<(), _> = timeout(Duration::from_secs(1), talk).await;
    assert!(full.is_err());
    session.sender.close("enough");
    drop(session);
    let connection = raw.connection.unwrap();
    let ended = timeout(Duration::from_secs(5), connection.closed()).await;
    assert!(ended.expect("it goes on").to_string().contains("enough"));
}
