//! Addresses at which no server answers.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};

use tokio::net::TcpSocket;

/// An address that stays as dead as it is for as long as this value lives: its port is taken, so
/// that no other process can bring it to life.
pub struct DeadEnd {
    address: SocketAddr,
    _socket: Socket,
}

enum Socket {
    Listening { _held: TcpListener },
    Bound { _held: TcpSocket },
}

/// A server that takes connections and requests and never answers. The kernel does all of it: the
/// connections wait in the queue of a listener that accepts none.
///
/// # Errors
/// When no port can be had.
pub fn silent_server() -> io::Result<DeadEnd> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    Ok(DeadEnd {
        address: listener.local_addr()?,
        _socket: Socket::Listening { _held: listener },
    })
}

/// An address that refuses connections: its socket is bound and does not listen.
///
/// # Errors
/// When no port can be had.
pub fn refusing_server() -> io::Result<DeadEnd> {
    let socket = TcpSocket::new_v4()?;
    socket.bind((Ipv4Addr::LOCALHOST, 0).into())?;
    Ok(DeadEnd {
        address: socket.local_addr()?,
        _socket: Socket::Bound { _held: socket },
    })
}

impl DeadEnd {
    /// The address, as a URL.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The address.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}
