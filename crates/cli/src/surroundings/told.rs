//! The system tells that routes changed (rtnetlink(7)); what they are now is read elsewhere.

use rustix::io::Errno;
use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::{AddressFamily, SocketFlags, SocketType};
use std::io::ErrorKind;
use std::time::Duration;
use tokio::net::UnixDatagram;

/// `RTMGRP_IPV4_ROUTE` and `RTMGRP_IPV6_ROUTE`.
const ROUTES: u32 = 0x40 | 0x400;

/// Changes that follow each other are told of together: one route goes and another one comes.
const TOGETHER: Duration = Duration::from_millis(300);

/// Every change of a route is heard here. The type is that of another family; what it is used for, to
/// wait and to receive, is the same for every socket that receives datagrams.
pub(super) struct Told(UnixDatagram);

impl Told {
    /// Listens from now on. To be called inside a runtime.
    pub(super) fn listen() -> std::io::Result<Self> {
        let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
        let (family, routes) = (AddressFamily::NETLINK, None);
        let socket = rustix::net::socket_with(family, SocketType::RAW, flags, routes)?;
        rustix::net::bind(&socket, &SocketAddrNetlink::new(0, ROUTES))?;
        UnixDatagram::from_std(socket.into()).map(Self)
    }

    /// Waits for a change; dropping the future loses nothing.
    pub(super) async fn changed(&self) -> std::io::Result<()> {
        self.0.readable().await?;
        tokio::time::sleep(TOGETHER).await;
        let mut message = [0_u8; 4096];
        loop {
            match self.0.try_recv(&mut message) {
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                // More was told than fits: also a change.
                Err(error) if Errno::from_io_error(&error) == Some(Errno::NOBUFS) => {}
                Err(error) => return Err(error),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn nothing_is_told_while_nothing_changes() {
        let told = Told::listen().unwrap();
        let heard = tokio::time::timeout(Duration::from_millis(400), told.changed()).await;
        assert!(heard.is_err());
    }
}
