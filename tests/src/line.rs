//! A line between a host and its coordinator, which a test can cut.

use std::{
    io,
    net::{SocketAddr, UdpSocket},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};

/// How often the line looks whether it is still needed.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// Longest datagram.
const DATAGRAM_BYTES_MAX: usize = 1 << 16;

/// Passes datagrams on between one host and a coordinator, until it is dropped.
#[derive(Debug)]
pub struct Line {
    address: SocketAddr,
    ends: Arc<Ends>,
    threads: Vec<JoinHandle<()>>,
}

#[derive(Debug)]
struct Ends {
    near: UdpSocket,
    far: UdpSocket,
    /// Where the host was last heard from.
    host: Mutex<Option<SocketAddr>>,
    cut: AtomicBool,
    over: AtomicBool,
}

impl Line {
    /// A line to a coordinator at `to`.
    ///
    /// # Panics
    /// When there are no ports.
    #[must_use]
    pub fn to(to: SocketAddr) -> Self {
        let socket = || {
            let socket = UdpSocket::bind("127.0.0.1:0").expect("a port");
            socket.set_read_timeout(Some(LOOK_EVERY)).expect("not zero");
            socket
        };
        let ends = Ends {
            near: socket(),
            far: socket(),
            host: Mutex::new(None),
            cut: AtomicBool::new(false),
            over: AtomicBool::new(false),
        };
        ends.far.connect(to).expect("loopback");
        let address = ends.near.local_addr().expect("bound");
        let ends = Arc::new(ends);
        let threads = [Ends::pass_up, Ends::pass_down].map(|pass| {
            let ends = Arc::clone(&ends);
            std::thread::spawn(move || ends.run(pass))
        });
        Self {
            address,
            ends,
            threads: threads.into(),
        }
    }

    /// Where a host dials.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Lets nothing pass, or everything again.
    pub fn cut(&self, on: bool) {
        self.ends.cut.store(on, Ordering::Relaxed);
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        self.ends.over.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            thread.join().ok();
        }
    }
}

impl Ends {
    fn run(&self, pass: fn(&Self, &mut [u8]) -> io::Result<()>) {
        let mut buffer = vec![0; DATAGRAM_BYTES_MAX];
        while !self.over.load(Ordering::Relaxed) {
            // Nothing came, or nobody takes it: a line loses what it cannot deliver.
            pass(self, &mut buffer).ok();
        }
    }

    fn pass_up(&self, buffer: &mut [u8]) -> io::Result<()> {
        let (len, from) = self.near.recv_from(buffer)?;
        *self.host.lock().expect("no panics") = Some(from);
        if !self.cut.load(Ordering::Relaxed) {
            self.far.send(&buffer[..len])?;
        }
        Ok(())
    }

    fn pass_down(&self, buffer: &mut [u8]) -> io::Result<()> {
        let len = self.far.recv(buffer)?;
        let host = *self.host.lock().expect("no panics");
        if let Some(host) = host.filter(|_| !self.cut.load(Ordering::Relaxed)) {
            self.near.send_to(&buffer[..len], host)?;
        }
        Ok(())
    }
}
