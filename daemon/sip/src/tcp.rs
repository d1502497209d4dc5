//! TCP: our own listener and reader, so that every message passes the gate before the library.
//!
//! Each connection is handed to the library as an in-memory channel; the two tasks here move bytes. Connections that the
//! library opens itself (to a registrar or callee) are its own. Source: RFC 3261 §18.3.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rsipstack::platform::CancellationToken;
use rsipstack::sip::{SipMessage, Transport};
use rsipstack::transaction::endpoint::EndpointInnerRef;
use rsipstack::transport::channel::ChannelConnection;
use rsipstack::transport::{SipAddr, SipConnection, TransportEvent};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc};

use crate::error::SipError;
use crate::gate::{Gate, Judged};
use crate::udp::bind_error;
use crate::wire::{self, Framing};

/// Connections at once; more wait in the kernel's queue.
const MAX_CONNECTIONS: usize = 64;
/// A silent connection is closed after this.
const IDLE: Duration = Duration::from_secs(600);
/// What has begun must go on: half a message is no reason to wait (RFC 4475 §3.1.2.2).
const HALF_MESSAGE: Duration = Duration::from_secs(32);
/// A stranger must come to the point.
const STRANGER_IDLE: Duration = Duration::from_secs(10);
/// A peer that does not read is given up after this.
const WRITE_TIMEOUT: Duration = Duration::from_secs(10);
/// Messages queued towards one peer; more are dropped and retransmitted by nobody, so the call times out.
const QUEUE: usize = 256;

/// Binds the listener.
///
/// # Errors
/// [`SipError::Bind`] with what to do about it.
pub(crate) async fn bind(addr: SocketAddr) -> Result<TcpListener, SipError> {
    TcpListener::bind(addr)
        .await
        .map_err(|source| bind_error(addr, "tcp", source))
}

/// The library's view of our listener: an address for Via and Contact, nothing that receives.
pub(crate) async fn address_only(addr: SocketAddr) -> Result<SipConnection, SipError> {
    let (_, incoming) = mpsc::unbounded_channel();
    let (outgoing, _) = mpsc::channel(1);
    let addr = sip_addr(SipConnection::resolve_bind_address(addr));
    Ok(SipConnection::Channel(
        ChannelConnection::create_connection_bounded(incoming, outgoing, addr, None).await?,
    ))
}

/// Accepts until `cancel`.
pub(crate) async fn run(
    listener: TcpListener,
    endpoint: EndpointInnerRef,
    gate: Arc<Gate>,
    cancel: CancellationToken,
) {
    let slots = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    loop {
        let accepted = tokio::select! {
            () = cancel.cancelled() => return,
            accepted = async {
                let slot = slots.clone().acquire_owned().await.ok()?;
                Some((slot, listener.accept().await))
            } => accepted,
        };
        let Some((slot, accepted)) = accepted else { return };
        let (stream, source) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::debug!(%error, "cannot accept a TCP connection");
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        let (endpoint, gate, token) = (endpoint.clone(), gate.clone(), cancel.child_token());
        tokio::spawn(async move {
            serve(stream, source, endpoint, gate, token).await;
            drop(slot);
        });
    }
}

async fn serve(
    stream: TcpStream,
    source: SocketAddr,
    endpoint: EndpointInnerRef,
    gate: Arc<Gate>,
    token: CancellationToken,
) {
    let _ = stream.set_nodelay(true);
    let (read, write) = stream.into_split();
    let (to_library, incoming) = mpsc::unbounded_channel();
    let (outgoing, from_library) = mpsc::channel(QUEUE);
    let addr = sip_addr(source);
    let channel =
        ChannelConnection::create_connection_bounded(incoming, outgoing, addr.clone(), Some(token.clone()))
            .await;
    let Ok(channel) = channel else { return };
    let connection = SipConnection::Channel(channel);
    let (replies, replies_rx) = mpsc::channel(8);
    let writer = tokio::spawn(write_loop(write, from_library, replies_rx, token.clone()));
    let mut link = Link {
        source,
        addr,
        connection,
        endpoint,
        gate,
        to_library,
        replies,
        registered: false,
    };
    tokio::select! {
        () = token.cancelled() => {}
        () = link.read_loop(read) => {}
    }
    // Ends the library's loop over this connection, which retires it; then the writer.
    drop(link);
    let _ = tokio::time::timeout(WRITE_TIMEOUT, writer).await;
    token.cancel();
}

/// One connection's reading side.
struct Link {
    source: SocketAddr,
    addr: SipAddr,
    connection: SipConnection,
    endpoint: EndpointInnerRef,
    gate: Arc<Gate>,
    to_library: mpsc::UnboundedSender<TransportEvent>,
    replies: mpsc::Sender<Vec<u8>>,
    registered: bool,
}

impl Link {
    async fn read_loop(&mut self, mut read: OwnedReadHalf) {
        let mut buffer = Vec::with_capacity(wire::MAX_MESSAGE);
        loop {
            let known = self.gate.is_known(self.source.ip());
            let patience = match (known, buffer.is_empty()) {
                (true, true) => IDLE,
                (true, false) => HALF_MESSAGE,
                (false, _) => STRANGER_IDLE,
            };
            match tokio::time::timeout(patience, read.read_buf(&mut buffer)).await {
                Ok(Ok(n)) if n > 0 => {}
                _ => return,
            }
            if !self.handle_buffer(&mut buffer, known).await {
                return;
            }
        }
    }

    /// Takes all whole messages out of `buffer`; `false` ends the connection.
    async fn handle_buffer(&mut self, buffer: &mut Vec<u8>, known: bool) -> bool {
        loop {
            let blank = buffer.iter().take_while(|b| matches!(b, b'\r' | b'\n')).count();
            // A double CRLF is a ping (RFC 5626 §3.5.1).
            if blank >= 4 && known && self.replies.send(b"\r\n".to_vec()).await.is_err() {
                return false;
            }
            buffer.drain(..blank);
            let (ip, port, now) = (self.source.ip(), self.source.port(), Instant::now());
            let judged = match wire::frame_length(buffer) {
                Ok(None) => return true,
                Ok(Some(length)) => {
                    let message: Vec<u8> = buffer.drain(..length).collect();
                    self.gate.judge(&message, ip, port, Framing::Stream, now)
                }
                Err(rejected) => {
                    if let Judged::Reply { response, .. } =
                        self.gate.handle_rejected(rejected, known, ip, port, now)
                    {
                        let _ = self.replies.send(response).await;
                    }
                    return false;
                }
            };
            match judged {
                Judged::Pass(bytes) => self.pass(&bytes),
                Judged::Reply { response, .. } => {
                    if self.replies.send(response).await.is_err() {
                        return false;
                    }
                }
                Judged::Drop if !known => return false,
                Judged::Drop => {}
            }
        }
    }

    fn pass(&mut self, bytes: &[u8]) {
        // Neither fails: the gate has read the message and its Via.
        let Ok(message) = SipMessage::try_from(bytes) else {
            return;
        };
        let Ok(message) = SipConnection::update_msg_received(message, self.source, Transport::Tcp) else {
            return;
        };
        if !self.registered {
            self.registered = true;
            self.endpoint
                .transport_layer
                .add_connection(self.connection.clone());
        }
        let event = TransportEvent::Incoming(message, self.connection.clone(), self.addr.clone());
        // The library's reader outlives us; a closed channel means shutdown.
        let _ = self.to_library.send(event);
    }
}

async fn write_loop(
    mut write: OwnedWriteHalf,
    mut from_library: mpsc::Receiver<TransportEvent>,
    mut replies: mpsc::Receiver<Vec<u8>>,
    token: CancellationToken,
) {
    loop {
        let bytes = tokio::select! {
            biased;
            reply = replies.recv() => match reply {
                Some(reply) => reply,
                // The reader is gone.
                None => break,
            },
            event = from_library.recv() => match event {
                Some(TransportEvent::Incoming(message, ..)) => message.to_bytes(),
                Some(_) => continue,
                None => break,
            },
            () = token.cancelled() => break,
        };
        match tokio::time::timeout(WRITE_TIMEOUT, write.write_all(&bytes)).await {
            Ok(Ok(())) => {}
            _ => {
                token.cancel();
                break;
            }
        }
    }
    let _ = write.shutdown().await;
}

fn sip_addr(addr: SocketAddr) -> SipAddr {
    SipAddr {
        r#type: Some(Transport::Tcp),
        addr: addr.into(),
    }
}
