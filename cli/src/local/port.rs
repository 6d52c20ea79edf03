//! A loopback port that is ours for as long as we say.
use std::net::{Ipv4Addr, SocketAddr, TcpListener};

use tokio::net::TcpSocket;

use crate::failure::Failure;

/// A reserved loopback port. It holds a bound socket that does not listen: the kernel gives the port to nobody who asks for
/// a free one, and a server that is told to take it can, again and again.
#[derive(Debug)]
pub(crate) struct Port {
    number: u16,
    _reservation: TcpSocket,
}

impl Port {
    /// Reserves a free port.
    pub(crate) fn reserve() -> Result<Self, Failure> {
        let fault = |e: std::io::Error| Failure::Failed(format!("no free port on 127.0.0.1: {e}"));
        let socket = TcpSocket::new_v4().map_err(fault)?;
        socket.set_reuseaddr(true).map_err(fault)?;
        socket.bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).map_err(fault)?;
        let number = socket.local_addr().map_err(fault)?.port();
        Ok(Self { number, _reservation: socket })
    }

    /// Its number.
    pub(crate) fn number(&self) -> u16 {
        self.number
    }
}

/// Whether somebody could listen there now.
pub(crate) fn is_free(address: &str) -> bool {
    TcpListener::bind(address).is_ok()
}
