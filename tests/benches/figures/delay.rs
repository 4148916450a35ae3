//! A long way on loopback: a UDP proxy in this process that delivers every packet so much later.

use std::{
    collections::{BTreeMap, btree_map::Entry},
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use tokio::{
    net::UdpSocket,
    sync::mpsc,
    time::{Instant, sleep_until},
};

/// Longest packet of the way, which is Ethernet's; longer ones are lost.
const PACKET_BYTES_MAX: usize = 1472;

/// Starts a proxy to `target` for the rest of this process, and tells where it listens.
pub(crate) fn start(target: SocketAddr, one_way: Duration) -> SocketAddr {
    let (tell, told) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build();
        runtime.expect("runtime").block_on(async {
            let socket = Arc::new(
                UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))
                    .await
                    .expect("bound"),
            );
            tell.send(socket.local_addr().expect("bound"))
                .expect("awaited");
            serve(socket, target, one_way).await;
        });
    });
    told.recv().expect("the proxy is up")
}

/// Each source gets a socket of its own towards the target, as behind a router that translates addresses.
async fn serve(socket: Arc<UdpSocket>, target: SocketAddr, one_way: Duration) {
    let mut sources: BTreeMap<SocketAddr, Way> = BTreeMap::new();
    let mut buffer = vec![0; PACKET_BYTES_MAX + 1];
    loop {
        let Ok((len, source)) = socket.recv_from(&mut buffer).await else {
            continue;
        };
        let way = match sources.entry(source) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(new) => new.insert(open(&socket, source, target, one_way).await),
        };
        way.send(&buffer[..len], one_way);
    }
}

async fn open(
    socket: &Arc<UdpSocket>,
    source: SocketAddr,
    target: SocketAddr,
    one_way: Duration,
) -> Way {
    let upstream = Arc::new(
        UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))
            .await
            .expect("bound"),
    );
    upstream.connect(target).await.expect("an address");
    let back = Way::towards(Arc::clone(socket), Some(source));
    let answers = Arc::clone(&upstream);
    tokio::spawn(async move {
        let mut buffer = vec![0; PACKET_BYTES_MAX + 1];
        loop {
            // An error is the target's port being closed for a while.
            if let Ok(len) = answers.recv(&mut buffer).await {
                back.send(&buffer[..len], one_way);
            }
        }
    });
    Way::towards(upstream, None)
}

/// Packets in one direction, each with the time of its delivery.
struct Way(mpsc::UnboundedSender<(Instant, Vec<u8>)>);

impl Way {
    fn towards(socket: Arc<UdpSocket>, to: Option<SocketAddr>) -> Self {
        let (sender, mut packets) = mpsc::unbounded_channel::<(Instant, Vec<u8>)>();
        tokio::spawn(async move {
            while let Some((due, packet)) = packets.recv().await {
                sleep_until(due).await;
                let sent = match to {
                    Some(address) => socket.send_to(&packet, address).await,
                    None => socket.send(&packet).await,
                };
                // A packet that cannot be sent is a packet lost: the protocol above is made for that.
                sent.ok();
            }
        });
        Self(sender)
    }

    fn send(&self, packet: &[u8], one_way: Duration) {
        if packet.len() > PACKET_BYTES_MAX {
            return;
        }
        self.0
            .send((Instant::now() + one_way, packet.to_vec()))
            .ok();
    }
}
