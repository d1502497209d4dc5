//! The UDP socket under the library: every datagram passes the gate first.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rsipstack::platform::net::UdpSocket as LibrarySocket;
use tokio::net::UdpSocket;
use tokio::sync::Mutex;

use crate::error::SipError;
use crate::gate::{Gate, Judged};
use crate::via;
use crate::wire::Framing;

/// Largest UDP payload \[bytes\]; what is too large for SIP is answered, not cut.
const MAX_DATAGRAM: usize = 65_535;
/// Pause after a failing receive, so that a broken socket costs no core.
const RECEIVE_RETRY: Duration = Duration::from_millis(50);

/// Binds the SIP port.
///
/// # Errors
/// [`SipError::Bind`] with what to do about it.
pub(crate) async fn bind(addr: SocketAddr) -> Result<UdpSocket, SipError> {
    UdpSocket::bind(addr)
        .await
        .map_err(|source| bind_error(addr, "udp", source))
}

pub(crate) fn bind_error(addr: SocketAddr, transport: &'static str, source: io::Error) -> SipError {
    let port = addr.port();
    let hint = match source.kind() {
        io::ErrorKind::AddrInUse => {
            format!(
                "port {port}/{transport} is in use by another program; stop it (see `ss -lnp`) or choose another port"
            )
        }
        io::ErrorKind::AddrNotAvailable => {
            format!("{} is not an address of this machine", addr.ip())
        }
        io::ErrorKind::PermissionDenied => format!("port {port} needs privileges; choose one above 1023"),
        _ => source.to_string(),
    };
    SipError::Bind {
        addr,
        transport,
        hint,
        source,
    }
}

pub(crate) struct GatedSocket {
    socket: UdpSocket,
    gate: Arc<Gate>,
    buffer: Mutex<Box<[u8]>>,
}

impl GatedSocket {
    pub fn new(socket: UdpSocket, gate: Arc<Gate>) -> GatedSocket {
        GatedSocket {
            socket,
            gate,
            buffer: Mutex::new(vec![0; MAX_DATAGRAM].into_boxed_slice()),
        }
    }
}

#[async_trait::async_trait]
impl LibrarySocket for GatedSocket {
    async fn recv_from(&self, out: &mut [u8]) -> rsipstack::Result<(usize, SocketAddr)> {
        let mut buffer = self.buffer.lock().await;
        loop {
            let (len, source) = match self.socket.recv_from(&mut buffer).await {
                Ok(received) => received,
                Err(error) => {
                    tracing::debug!(%error, "SIP socket cannot receive");
                    tokio::time::sleep(RECEIVE_RETRY).await;
                    continue;
                }
            };
            let datagram = buffer.get(..len).unwrap_or_default();
            // Keep-alives (RFC 5626 §3.5.1) are neither SIP nor malformed; a symmetric NAT needs no answer.
            if datagram.iter().all(|b| b.is_ascii_whitespace() || *b == 0) {
                continue;
            }
            match self.gate.judge(
                datagram,
                source.ip(),
                source.port(),
                Framing::Datagram,
                Instant::now(),
            ) {
                Judged::Pass(mut bytes) => {
                    if source.ip().to_canonical().is_ipv6() {
                        bytes = via::show_source(bytes, source);
                    }
                    if let Some(room) = out.get_mut(..bytes.len()) {
                        room.copy_from_slice(&bytes);
                        return Ok((bytes.len(), source));
                    }
                }
                Judged::Reply { response, port } => {
                    let _ = self
                        .socket
                        .send_to(&response, SocketAddr::new(source.ip(), port))
                        .await;
                }
                Judged::Drop => {}
            }
        }
    }

    async fn send_to(&self, bytes: &[u8], addr: SocketAddr) -> rsipstack::Result<usize> {
        Ok(self.socket.send_to(bytes, addr).await?)
    }

    fn local_addr(&self) -> rsipstack::Result<SocketAddr> {
        Ok(self.socket.local_addr()?)
    }
}
