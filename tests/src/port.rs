//! Ports for coordinators that are to be found again where they were.

use std::{
    net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket},
    process,
    sync::atomic::{AtomicU32, Ordering::Relaxed},
};

/// Below those that the system gives to whoever asks for any, by which a coordinator that is away could lose its own.
const FIRST: u16 = 20_000;
const COUNT: u32 = 10_000;
/// Apart, so that tests which run side by side look at others.
const PROCESSES_APART: u32 = 16;

/// An address on loopback where nobody listens, and where nobody else will while its coordinator is away.
///
/// # Panics
/// When there is none.
#[must_use]
pub(crate) fn lasting() -> SocketAddr {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let ours = process::id().wrapping_mul(PROCESSES_APART);
    let addresses = (0..COUNT).map(|_| {
        let place = ours.wrapping_add(NEXT.fetch_add(1, Relaxed)) % COUNT;
        let port = FIRST + u16::try_from(place).expect("a few thousand");
        SocketAddr::from((Ipv4Addr::LOCALHOST, port))
    });
    let is_free = |at: &SocketAddr| UdpSocket::bind(at).is_ok() && TcpListener::bind(at).is_ok();
    let mut free = addresses.filter(is_free);
    free.next().expect("a free port")
}
