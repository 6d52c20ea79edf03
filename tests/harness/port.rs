//! A loopback port that is ours for as long as we say.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};

use tokio::net::{TcpListener, TcpSocket};

/// A reserved loopback port.
///
/// It holds a bound socket that does not listen, with `SO_REUSEADDR`. The kernel then hands the port
/// to nobody who asks for a free one, while a server told to take it (with `SO_REUSEADDR`, as all
/// do) can listen there; while none does, a connection is refused. So a server can be killed and
/// started again on its port, with many tests at once on the machine.
#[derive(Debug)]
pub struct Port {
    number: u16,
    _reservation: TcpSocket,
}

impl Port {
    /// Reserves a free port.
    pub fn reserve() -> Port {
        let socket = bind(0).expect("loopback has a free port");
        let address = socket.local_addr().expect("a bound socket knows its address");
        Port { number: address.port(), _reservation: socket }
    }

    /// The port's number.
    pub fn number(&self) -> u16 {
        self.number
    }

    /// The port on 127.0.0.1.
    pub fn address(&self) -> SocketAddr {
        loopback(self.number)
    }

    /// Listens on the port in this process.
    pub(crate) fn listen(&self) -> io::Result<TcpListener> {
        const BACKLOG: u32 = 1024;
        bind(self.number)?.listen(BACKLOG)
    }
}

/// The address of a port on 127.0.0.1.
pub(crate) fn loopback(port: u16) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, port))
}

fn bind(port: u16) -> io::Result<TcpSocket> {
    let socket = TcpSocket::new_v4()?;
    socket.set_reuseaddr(true)?;
    socket.bind(loopback(port))?;
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use tokio::net::TcpStream;

    use super::*;
    use crate::spawner::no_fork;

    #[tokio::test]
    async fn a_reserved_port_refuses_until_its_server_listens() {
        let port = Port::reserve();
        let error = TcpStream::connect(port.address()).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);

        let listener = port.listen().unwrap();
        TcpStream::connect(port.address()).await.unwrap();

        let closing = no_fork();
        drop(listener);
        drop(closing);
        TcpStream::connect(port.address()).await.unwrap_err();
    }

    #[tokio::test]
    async fn a_reserved_port_is_given_to_nobody_else() {
        let ports: Vec<Port> = (0..500).map(|_| Port::reserve()).collect();
        let numbers: HashSet<u16> = ports.iter().map(Port::number).collect();
        assert_eq!(numbers.len(), ports.len());
    }
}
