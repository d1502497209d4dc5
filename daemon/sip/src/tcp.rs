//! TCP and TLS: our own listeners and reader, so that every message passes the gate before the library.
//!
//! Each connection is handed to the library as an in-memory channel; the two tasks here move bytes. TLS
//! connections to others are opened by `tls` and adopted here; TCP connections that the library opens itself (to a registrar
//! or callee) are its own. Source: RFC 3261 §18.3.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rsipstack::platform::CancellationToken;
use rsipstack::sip::{SipMessage, Transport};
use rsipstack::transaction::endpoint::EndpointInnerRef;
use rsipstack::transport::channel::ChannelConnection;
use rsipstack::transport::{SipAddr, SipConnection, TransportEvent};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ReadHalf};
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;

use crate::error::SipError;
use crate::gate::{Gate, Judged};
use crate::tls::HANDSHAKE;
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
/// Keep-alive on connections that we opened: a NAT forgets a silent one within minutes (RFC 5626 §4.4.1).
const PING: Duration = Duration::from_secs(25);
/// Messages queued towards one peer; more are dropped and retransmitted by nobody, so the call times out.
const QUEUE: usize = 256;

/// Binds the listener.
///
/// # Errors
/// [`SipError::Bind`] with what to do about it.
pub(crate) async fn bind(addr: SocketAddr, transport: &'static str) -> Result<TcpListener, SipError> {
    TcpListener::bind(addr)
        .await
        .map_err(|source| bind_error(addr, transport, source))
}

/// The library's view of our listener: an address for Via and Contact, nothing that receives.
pub(crate) async fn address_only(addr: SocketAddr, transport: Transport) -> Result<SipConnection, SipError> {
    let (_, incoming) = mpsc::unbounded_channel();
    let (outgoing, _) = mpsc::channel(1);
    let addr = sip_addr(SipConnection::resolve_bind_address(addr), transport);
    Ok(SipConnection::Channel(
        ChannelConnection::create_connection_bounded(incoming, outgoing, addr, None).await?,
    ))
}

/// Accepts until `cancel`.
pub(crate) async fn run(
    listener: TcpListener,
    acceptor: Option<TlsAcceptor>,
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
        // A handshake costs more than a refusal, and a stranger gets neither.
        if acceptor.is_some() && !gate.is_known(source.ip()) {
            continue;
        }
        let (endpoint, gate, token) = (endpoint.clone(), gate.clone(), cancel.child_token());
        let acceptor = acceptor.clone();
        tokio::spawn(async move {
            let _ = stream.set_nodelay(true);
            let link = (endpoint, gate, token);
            match acceptor {
                None => serve(stream, source, Transport::Tcp, link).await,
                Some(acceptor) => match tokio::time::timeout(HANDSHAKE, acceptor.accept(stream)).await {
                    Ok(Ok(stream)) => {
                        serve(stream, source, Transport::Tls, link).await;
                    }
                    Ok(Err(error)) => tracing::info!(%source, %error, "a TLS handshake failed"),
                    Err(_) => tracing::info!(%source, "a TLS handshake took too long"),
                },
            }
            drop(slot);
        });
    }
}

type Environment = (EndpointInnerRef, Arc<Gate>, CancellationToken);

/// Takes a connection that was opened to `remote`: the library sends over it from now on, until it breaks.
pub(crate) async fn adopt(
    stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
    remote: SocketAddr,
    environment: Environment,
) {
    let token = environment.2.clone();
    let opened = open(stream, remote, Transport::Tls, environment).await;
    let Some((mut link, read, writer)) = opened else {
        token.cancel();
        return;
    };
    link.adopted = true;
    link.announce();
    tokio::spawn(async move {
        let replies = link.replies.clone();
        let ping = async move {
            let mut tick = tokio::time::interval(PING);
            tick.tick().await;
            loop {
                tick.tick().await;
                if replies.send(b"\r\n\r\n".to_vec()).await.is_err() {
                    return;
                }
            }
        };
        tokio::select! {
            () = token.cancelled() => {}
            () = link.read_loop(read) => {}
            () = ping => {}
        }
        drop(link);
        // At once: the next request opens another one.
        token.cancel();
        let _ = tokio::time::timeout(WRITE_TIMEOUT, writer).await;
    });
}

async fn serve(
    stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
    source: SocketAddr,
    transport: Transport,
    environment: Environment,
) {
    let token = environment.2.clone();
    if let Some((link, read, writer)) = open(stream, source, transport, environment).await {
        drive(link, read, writer, token).await;
    }
}

/// Reads until the connection or the endpoint ends.
async fn drive(
    mut link: Link,
    read: impl AsyncRead + Unpin,
    writer: JoinHandle<()>,
    token: CancellationToken,
) {
    tokio::select! {
        () = token.cancelled() => {}
        () = link.read_loop(read) => {}
    }
    // Ends the library's loop over this connection, which retires it; then the writer.
    drop(link);
    let _ = tokio::time::timeout(WRITE_TIMEOUT, writer).await;
    token.cancel();
}

/// Makes the library's end of a connection, and the task that writes.
async fn open<S>(
    stream: S,
    source: SocketAddr,
    transport: Transport,
    (endpoint, gate, token): Environment,
) -> Option<(Link, ReadHalf<S>, JoinHandle<()>)>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let (read, write) = tokio::io::split(stream);
    let (to_library, incoming) = mpsc::unbounded_channel();
    let (outgoing, from_library) = mpsc::channel(QUEUE);
    let addr = sip_addr(source, transport);
    let channel =
        ChannelConnection::create_connection_bounded(incoming, outgoing, addr.clone(), Some(token.clone()))
            .await;
    let channel = channel.ok()?;
    let connection = SipConnection::Channel(channel);
    let (replies, replies_rx) = mpsc::channel(8);
    let writer = tokio::spawn(write_loop(write, from_library, replies_rx, token.clone()));
    let link = Link {
        source,
        transport,
        addr,
        connection,
        endpoint,
        gate,
        to_library,
        replies,
        registered: false,
        adopted: false,
    };
    Some((link, read, writer))
}

/// One connection's reading side.
struct Link {
    source: SocketAddr,
    transport: Transport,
    addr: SipAddr,
    connection: SipConnection,
    endpoint: EndpointInnerRef,
    gate: Arc<Gate>,
    to_library: mpsc::UnboundedSender<TransportEvent>,
    replies: mpsc::Sender<Vec<u8>>,
    registered: bool,
    /// We opened it: whoever is there is no stranger.
    adopted: bool,
}

impl Link {
    async fn read_loop(&mut self, mut read: impl AsyncRead + Unpin) {
        let mut buffer = Vec::with_capacity(wire::MAX_MESSAGE);
        loop {
            let known = self.adopted || self.gate.is_known(self.source.ip());
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

    /// Tells the library of the connection, once.
    fn announce(&mut self) {
        if !std::mem::replace(&mut self.registered, true) {
            self.endpoint
                .transport_layer
                .add_connection(self.connection.clone());
        }
    }

    fn pass(&mut self, bytes: &[u8]) {
        // Neither fails: the gate has read the message and its Via.
        let Ok(message) = SipMessage::try_from(bytes) else {
            return;
        };
        let Ok(message) = SipConnection::update_msg_received(message, self.source, self.transport) else {
            return;
        };
        self.announce();
        let event = TransportEvent::Incoming(message, self.connection.clone(), self.addr.clone());
        // The library's reader outlives us; a closed channel means shutdown.
        let _ = self.to_library.send(event);
    }
}

async fn write_loop(
    mut write: impl AsyncWrite + Unpin,
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

fn sip_addr(addr: SocketAddr, transport: Transport) -> SipAddr {
    SipAddr {
        r#type: Some(transport),
        addr: addr.into(),
    }
}
