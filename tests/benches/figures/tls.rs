//! TLS 1.3 over the kernel's TCP, with none of our code: what a long line allows.

use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::Arc,
    thread,
    time::Instant,
};

use rustls::{ClientConnection, ServerConnection, StreamOwned};
use rustls_pki_types::ServerName;

use crate::{
    ip_line::{ENDS, enter},
    quic::{client_tls, server_tls},
};

/// MiB a second from one end of a line to the other, in writes of a MiB.
pub(crate) fn bulk_mib_s(mib: usize, from: &str, to: &str) -> f64 {
    let certified =
        rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).expect("a certificate");
    let certificate = certified.cert.der().clone();
    let server = server_tls(certificate.clone(), certified.signing_key.serialize_der());
    let (tell, told) = std::sync::mpsc::channel();
    thread::scope(|scope| {
        let sink = scope.spawn(move || {
            enter(to);
            let listener = TcpListener::bind((ENDS[1], 0)).expect("a port");
            tell.send(listener.local_addr().expect("bound"))
                .expect("awaited");
            let (socket, _) = listener.accept().expect("somebody comes");
            let tls = ServerConnection::new(Arc::new(server)).expect("configured");
            swallow(StreamOwned::new(tls, socket), mib << 20);
        });
        enter(from);
        let at: SocketAddr = told.recv().expect("it listens");
        let name = ServerName::try_from("localhost").expect("a name");
        let tls = ClientConnection::new(Arc::new(client_tls(certificate)), name);
        let socket = TcpStream::connect(at).expect("it listens");
        socket.set_nodelay(true).expect("a socket");
        let mut stream = StreamOwned::new(tls.expect("configured"), socket);
        let start = Instant::now();
        send(&mut stream, mib);
        let took = start.elapsed().as_secs_f64();
        drop(stream);
        sink.join().expect("all was read");
        f64::from(u32::try_from(mib).expect("small")) / took
    })
}

fn send(stream: &mut StreamOwned<ClientConnection, TcpStream>, mib: usize) {
    let megabyte = vec![7_u8; 1 << 20];
    for _ in 0..mib {
        stream.write_all(&megabyte).expect("sent");
    }
    stream.flush().expect("sent");
    // The far end answers when it has read all.
    let mut done = [0];
    stream.read_exact(&mut done).expect("answered");
}

fn swallow(mut stream: StreamOwned<ServerConnection, TcpStream>, mut bytes: usize) {
    let mut buffer = vec![0; 256 << 10];
    while bytes > 0 {
        let len = stream.read(&mut buffer).expect("open");
        assert_ne!(len, 0, "it ended {bytes} bytes too soon");
        bytes -= len;
    }
    stream.write_all(&[0]).expect("open");
    stream.flush().expect("open");
    // Until the other side has read that and is gone.
    stream.sock.read_to_end(&mut buffer).ok();
}
