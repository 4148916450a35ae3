//! The UDP socket as QUIC has it: with a receive buffer of reasonable size, and a bound on how many strangers may knock.

use std::{
    io::{self, IoSliceMut},
    net::SocketAddr,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll},
    time::Instant,
};

use fleetpool_proto::limits::{FIRST_PACKETS_AT_ONCE_MAX, FIRST_PACKETS_PER_S_MAX};
use quinn::{
    AsyncUdpSocket, UdpPoller,
    udp::{RecvMeta, Transmit},
};

/// Datagrams that the kernel may hand over as one. It joins at most 64 KiB, and quinn sets aside so many times the largest
/// datagram, 32 times over, and fills all of it with zeros: at the kernel's own 64 that is 13 MB for each endpoint, at
/// this number 2.
const SEGMENTS_MAX: usize = (64 << 10) / super::DATAGRAM_BYTES_MAX as usize + 1;

/// A UDP socket, between quinn and the runtime's.
#[derive(Debug)]
pub(super) struct Socket {
    inner: Arc<dyn AsyncUdpSocket>,
    /// Where strangers may knock.
    knocks: Option<Mutex<Knocks>>,
}

impl Socket {
    /// For who dials: nobody else speaks first.
    pub(super) fn dialling(inner: Arc<dyn AsyncUdpSocket>) -> Arc<Self> {
        let knocks = None;
        Arc::new(Self { inner, knocks })
    }

    /// For who listens.
    pub(super) fn listening(inner: Arc<dyn AsyncUdpSocket>) -> Arc<Self> {
        let knocks = Knocks::new(FIRST_PACKETS_PER_S_MAX, FIRST_PACKETS_AT_ONCE_MAX);
        let knocks = Some(Mutex::new(knocks));
        Arc::new(Self { inner, knocks })
    }
}

impl AsyncUdpSocket for Socket {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        Arc::clone(&self.inner).create_io_poller()
    }

    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        self.inner.try_send(transmit)
    }

    fn poll_recv(
        &self,
        cx: &mut Context<'_>,
        bufs: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        let received = std::task::ready!(self.inner.poll_recv(cx, bufs, meta))?;
        if let Some(knocks) = &self.knocks {
            for (buf, meta) in bufs.iter().zip(meta.iter_mut()).take(received) {
                if is_first(buf) {
                    let mut knocks = knocks.lock().unwrap_or_else(PoisonError::into_inner);
                    if !knocks.take(datagrams(meta), Instant::now()) {
                        // As if it had been lost on its way.
                        meta.len = 0;
                    }
                }
            }
        }
        Poll::Ready(Ok(received))
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.inner.local_addr()
    }

    fn max_transmit_segments(&self) -> usize {
        self.inner.max_transmit_segments()
    }

    fn max_receive_segments(&self) -> usize {
        self.inner.max_receive_segments().min(SEGMENTS_MAX)
    }

    fn may_fragment(&self) -> bool {
        self.inner.may_fragment()
    }
}

/// Whether a datagram begins with an Initial packet of QUIC, or one of a version that nobody speaks: what makes a listener
/// take thought for somebody it does not know. Long header, and type 0 (RFC 9000, 17.2).
fn is_first(datagram: &[u8]) -> bool {
    let Some(&[first, a, b, c, d]) = datagram.first_chunk() else {
        return false;
    };
    let version_1 = u32::from_be_bytes([a, b, c, d]) == 1;
    first & 0x80 != 0 && (!version_1 || first & 0x30 == 0)
}

fn datagrams(meta: &RecvMeta) -> u32 {
    let datagrams = meta.len.div_ceil(meta.stride.max(1));
    u32::try_from(datagrams).unwrap_or(u32::MAX)
}

/// So many a second, and more at once after a quiet time.
#[derive(Debug)]
struct Knocks {
    per_s: f64,
    at_once: f64,
    left: f64,
    at: Option<Instant>,
}

impl Knocks {
    fn new(per_s: u32, at_once: u32) -> Self {
        Self {
            per_s: per_s.into(),
            at_once: at_once.into(),
            left: at_once.into(),
            at: None,
        }
    }

    fn take(&mut self, count: u32, now: Instant) -> bool {
        let passed = self
            .at
            .replace(now)
            .map_or(0.0, |at| now.saturating_duration_since(at).as_secs_f64());
        self.left = (self.left + passed * self.per_s).min(self.at_once);
        let enough = self.left >= count.into();
        if enough {
            self.left -= f64::from(count);
        }
        enough
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn first_packets_are_told_from_those_of_sessions() {
        let long = |bits: u8, version: u32| {
            let version = version.to_be_bytes();
            is_first(&[&[0xc0 | bits][..], &version, &[8, 1, 2]].concat())
        };
        assert!(long(0x00, 1), "Initial");
        assert!(long(0x20, 0x1a2a_3a4a), "of an unknown version");
        assert!(!long(0x20, 1), "Handshake");
        assert!(!is_first(&[0x40; 1200]), "short header");
        assert!(!is_first(&[0xc0, 0, 0]), "too short for anything");
    }

    #[test]
    fn so_many_a_second_and_more_at_once() {
        let mut knocks = Knocks::new(100, 500);
        let start = Instant::now();
        let taken = |knocks: &mut Knocks, at| (0..1000).filter(|_| knocks.take(1, at)).count();
        assert_eq!(taken(&mut knocks, start), 500);
        assert_eq!(taken(&mut knocks, start), 0);
        assert_eq!(taken(&mut knocks, start + Duration::from_millis(500)), 50);
        assert_eq!(taken(&mut knocks, start + Duration::from_secs(60)), 500);
        assert!(!knocks.take(501, start + Duration::from_secs(120)));
    }

    #[test]
    fn what_the_kernel_joins_has_room() {
        // It joins datagrams of one length, 64 KiB at most.
        const { assert!(SEGMENTS_MAX * super::super::DATAGRAM_BYTES_MAX as usize >= 64 << 10) };
    }
}
