//! Sockets that are ours alone.

use std::{
    fs, io,
    net::{SocketAddr, ToSocketAddrs as _},
    os::unix::fs::{MetadataExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
};

use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::{TcpListener, UnixListener};

use super::BindError;
use crate::{address::Address, transport};

/// Free UDP ports that are tried before one whose TCP is free as well is given up.
const FREE_PORTS_TRIED: u32 = 32;
/// Connections that the kernel keeps for us.
const BACKLOG: i32 = 1024;

/// UDP and TCP of one port.
pub(super) struct Both {
    pub(super) udp: std::net::UdpSocket,
    pub(super) tcp: TcpListener,
    pub(super) address: SocketAddr,
}

pub(super) fn both(host_port: &str) -> io::Result<Both> {
    let nothing = || io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    let wanted = host_port.to_socket_addrs()?.next().ok_or_else(nothing)?;
    let mut tried = 0;
    loop {
        tried += 1;
        match both_at(wanted) {
            Err(error)
                if wanted.port() == 0
                    && error.kind() == io::ErrorKind::AddrInUse
                    && tried < FREE_PORTS_TRIED => {}
            result => return result,
        }
    }
}

fn both_at(wanted: SocketAddr) -> io::Result<Both> {
    let (udp, small) = transport::udp(wanted)?;
    let address = udp.local_addr()?;
    let tcp = tcp(address)?;
    if let Some(small) = small {
        tracing::warn!("{small}");
    }
    Ok(Both { udp, tcp, address })
}

fn tcp(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::STREAM,
        Some(Protocol::TCP),
    )?;
    if address.is_ipv6() {
        socket.set_only_v6(false)?;
    }
    // Connections of a coordinator that ended a moment ago do not keep the next one out.
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
}

/// A Unix socket whose file goes with it.
#[derive(Debug)]
pub(super) struct UnixSocket {
    pub(super) listener: UnixListener,
    path: PathBuf,
    inode: u64,
}

impl Drop for UnixSocket {
    fn drop(&mut self) {
        // Another coordinator may have the path by now.
        if fs::symlink_metadata(&self.path).is_ok_and(|meta| meta.ino() == self.inode) {
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Listens on `path`. The file of a listener that died is replaced; a living one is an error.
pub(super) fn unix(path: &Path) -> io::Result<UnixSocket> {
    match std::os::unix::net::UnixStream::connect(path) {
        Ok(_) => return Err(io::ErrorKind::AddrInUse.into()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        // Nobody listens; but only a socket may be replaced.
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {}
        Err(error) => return Err(error),
    }
    if fs::symlink_metadata(path).is_ok_and(|meta| meta.is_file() || meta.is_dir()) {
        let what = "something that is not a socket is there";
        return Err(io::Error::new(io::ErrorKind::AlreadyExists, what));
    }
    // Under another name until only its owner can open it.
    let mut fresh = path.as_os_str().to_owned();
    fresh.push(".new");
    let fresh = PathBuf::from(fresh);
    let _ = fs::remove_file(&fresh);
    let listener = UnixListener::bind(&fresh)?;
    fs::set_permissions(&fresh, fs::Permissions::from_mode(0o600))?;
    let inode = fs::symlink_metadata(&fresh)?.ino();
    fs::rename(&fresh, path)?;
    let path = path.to_owned();
    Ok(UnixSocket {
        listener,
        path,
        inode,
    })
}

pub(super) fn explain(address: &Address, error: io::Error) -> BindError {
    let address = address.to_string();
    match error.kind() {
        io::ErrorKind::AddrInUse => BindError::InUse { address },
        _ => BindError::Io { address, error },
    }
}
