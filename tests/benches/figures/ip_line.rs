//! A line for real packets: two networks of their own, and between them a wire that is this process.
//!
//! UDP and the kernel's TCP meet the same delay, the same narrow place and the same losses there, which a proxy for either
//! could not do. Nothing of the machine's own network is touched; needs root.

use std::{
    fs::File,
    io,
    net::Ipv4Addr,
    path::PathBuf,
    sync::{Arc, mpsc::Sender},
    thread,
    time::Instant,
};

use fleetpool_tests::way::{Arrival, Quality, Way};
use nix::sched::{CloneFlags, setns, unshare};
use std::os::fd::AsRawFd as _;
use tokio::{sync::mpsc, time::sleep_until};
use tokio_tun::Tun;

/// Ethernet's.
const PACKET_BYTES_MAX: i32 = 1500;
/// The addresses of the two ends.
pub(crate) const ENDS: [Ipv4Addr; 2] = [Ipv4Addr::new(10, 77, 0, 1), Ipv4Addr::new(10, 77, 0, 2)];

/// One of the two networks.
#[derive(Debug)]
pub(crate) struct Network(File);

impl Network {
    /// Does `work` there, and so does every process that it starts.
    pub(crate) fn with<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        let there = || {
            setns(&self.0, CloneFlags::CLONE_NEWNET).expect("it was made by this process");
            work()
        };
        let result = thread::scope(|scope| scope.spawn(there).join());
        result.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }

    /// What processes that this one has started can open, to be there too.
    pub(crate) fn path(&self) -> PathBuf {
        PathBuf::from(format!(
            "/proc/{}/fd/{}",
            std::process::id(),
            self.0.as_raw_fd()
        ))
    }
}

/// Enters a network by what [`Network::path`] said, with the calling thread.
pub(crate) fn enter(path: &str) {
    let network = File::open(path).expect("a network of the bench");
    setns(network, CloneFlags::CLONE_NEWNET).expect("root");
}

/// Lays a line of that quality for the rest of this process.
pub(crate) fn lay(quality: Quality) -> io::Result<[Network; 2]> {
    let (tell, told) = std::sync::mpsc::channel();
    thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build();
        runtime
            .expect("a runtime")
            .block_on(wire(quality, &tell))
            .unwrap_or_else(|error| {
                // Nobody waits any more when the line has been up.
                tell.send(Err(error)).ok();
            });
    });
    told.recv().expect("it says how it went")
}

async fn wire(quality: Quality, tell: &Sender<io::Result<[Network; 2]>>) -> io::Result<()> {
    let (near, near_end) = end(ENDS[0])?;
    let (far, far_end) = end(ENDS[1])?;
    // Whoever asked waits for this.
    tell.send(Ok([near, far])).ok();
    let (near_end, far_end) = (Arc::new(near_end), Arc::new(far_end));
    tokio::join!(
        one_way(Arc::clone(&near_end), Arc::clone(&far_end), quality),
        one_way(far_end, near_end, quality),
    );
    Ok(())
}

/// A network with one interface, and its other end. The calling thread is there from now on.
fn end(address: Ipv4Addr) -> io::Result<(Network, Tun)> {
    unshare(CloneFlags::CLONE_NEWNET)?;
    let network = File::open("/proc/thread-self/ns/net")?;
    let tun = Tun::builder()
        .name("line")
        .mtu(PACKET_BYTES_MAX)
        .address(address)
        .netmask(Ipv4Addr::new(255, 255, 255, 0))
        .up()
        .build()
        .map_err(io::Error::other)?
        .pop()
        .ok_or_else(|| io::Error::other("no interface"))?;
    let loopback = std::process::Command::new("ip")
        .args(["link", "set", "lo", "up"])
        .status()?;
    if !loopback.success() {
        return Err(io::Error::other("ip cannot set up a loopback interface"));
    }
    Ok((Network(network), tun))
}

async fn one_way(from: Arc<Tun>, to: Arc<Tun>, quality: Quality) {
    let (queue, mut packets) = mpsc::unbounded_channel::<(Instant, Vec<u8>)>();
    tokio::spawn(async move {
        while let Some((at, packet)) = packets.recv().await {
            if at > Instant::now() {
                sleep_until(at.into()).await;
            }
            // What the interface does not take is lost.
            to.send(&packet).await.ok();
        }
    });
    let mut way = Way::new(quality);
    let mut packet = [0; PACKET_BYTES_MAX as usize];
    loop {
        let Ok(len) = from.recv(&mut packet).await else {
            return;
        };
        for Arrival { at, .. } in way.send(Instant::now(), len) {
            // It is received above for as long as this process lives.
            queue.send((at, packet[..len].to_vec())).ok();
        }
    }
}
