//! Loopback ports that stay reserved for the servers that are started here.
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr as UnixAddress, UnixListener};

use tokio::net::TcpSocket;

use crate::failure::Failure;

/// A reserved loopback port. It holds a bound socket that does not listen: the kernel does not give the port to others
/// that ask for a free one, and a server that is started on it can bind it, again after a restart.
#[derive(Debug)]
pub(crate) struct Port {
    number: u16,
    _reservation: TcpSocket,
    _claim: Option<UnixListener>,
}

impl Port {
    /// Reserves a free port.
    pub(crate) fn reserve() -> Result<Self, Failure> {
        let fault = |e: std::io::Error| Failure::Failed(format!("no free port on 127.0.0.1: {e}"));
        let socket = TcpSocket::new_v4().map_err(fault)?;
        socket.set_reuseaddr(true).map_err(fault)?;
        socket.bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).map_err(fault)?;
        let number = socket.local_addr().map_err(fault)?.port();
        Ok(Self { number, _reservation: socket, _claim: None })
    }

    /// Reserves this port, or a free one when it is taken.
    pub(crate) fn prefer(number: u16) -> Result<Self, Failure> {
        // The reservation alone would let two that start at once have the same port.
        let name = format!("leasehold-port-{number}");
        let claim = UnixAddress::from_abstract_name(name).and_then(|name| UnixListener::bind_addr(&name));
        let reserve = || {
            let socket = TcpSocket::new_v4()?;
            socket.set_reuseaddr(true)?;
            socket.bind(SocketAddr::from((Ipv4Addr::LOCALHOST, number)))?;
            Ok::<_, std::io::Error>(socket)
        };
        let Ok(claim) = claim else { return Self::reserve() };
        if !is_free(&format!("127.0.0.1:{number}")) {
            return Self::reserve();
        }
        match reserve() {
            Ok(reservation) => Ok(Self { number, _reservation: reservation, _claim: Some(claim) }),
            Err(_) => Self::reserve(),
        }
    }

    /// Its number.
    pub(crate) fn number(&self) -> u16 {
        self.number
    }
}

/// Whether a server could listen at this address now.
pub(crate) fn is_free(address: &str) -> bool {
    TcpListener::bind(address).is_ok()
}
