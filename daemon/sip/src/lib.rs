//! The SIP line: registers, takes and places calls, and agrees on media. The only user of the SIP library.
//!
//! ```text
//!            gate (who may speak)      library (transactions, dialogs)      here
//! UDP TCP TLS ─> wire, gate ─────────────> rsipstack ─────────> incoming ──> SipEvent::Incoming ─> answer ─> Established
//!                                             ^                 call (a task per dialog) ─────────> DialogEvent
//!                                             '──────────────── register (a task per account) ────> SipEvent::Registration
//! ```
//!
//! | Task | Number | Ends |
//! |---|---|---|
//! | library endpoint, UDP reader | 1 | shutdown |
//! | TCP and TLS acceptor, reader and writer of a connection | 1 each, ≤ 64 each | shutdown, idle, error |
//! | incoming | 1, and one per request | shutdown, answer sent |
//! | call | 1 per dialog, ≤ `max_calls` | end of the dialog |
//! | register | 1 per account | shutdown, refusal |
//! | peers | 1 per peer known by name | shutdown |
//!
//! Privacy: a caller's name and number are [`Redacted`]. The library logs whole messages at INFO: set [`LOG_DIRECTIVES`].

mod call;
mod change;
mod config;
mod core;
mod digest;
mod error;
#[cfg(test)]
mod fuzz;
mod gate;
mod grammar;
mod in_dialog;
mod incoming;
mod info;
mod inspector;
mod locate;
mod media;
mod merging;
#[cfg(test)]
#[path = "../tests/common/mutate.rs"]
mod mutate;
mod outgoing;
mod peers;
mod ports;
mod redact;
mod register;
mod reliable;
pub mod sdp;
#[cfg(test)]
mod sdp_fuzz;
mod tcp;
mod timer;
mod tls;
mod transfer;
mod udp;
mod via;
mod wire;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use rsipstack::EndpointBuilder;
use rsipstack::dialog::dialog_layer::DialogLayer;
use rsipstack::platform::CancellationToken;
use rsipstack::sip;
use rsipstack::sip::uri::ParamsExt as _;
use rsipstack::transaction::CallIdFormat;
use rsipstack::transaction::endpoint::EndpointOption;
use rsipstack::transport::TransportLayer;
use rsipstack::transport::udp::UdpConnection;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

pub use attendant_media::codec::Codec;
pub use call::{DialogEvent, DialogHandle, Established};
pub use config::{Account, Cidr, NamedPeer, Peer, SipConfig, TlsListener, TlsTrust, Transport};
pub use error::SipError;
pub use gate::GateCounters;
pub use incoming::{Caller, IncomingCall, Refusal};
pub use locate::{Names, Srv};
pub use media::{MediaOffer, Negotiated, SrtpPolicy};
pub use outgoing::{Outgoing, check_target};
pub use redact::Redacted;
pub use register::RegistrationState;
pub use sdp::Direction;
pub use timer::SessionTimers;
pub use transfer::TransferProgress;

use crate::core::{Calls, Core};
use crate::gate::Gate;
use crate::inspector::Inspector;
use crate::locate::Locator;
use crate::ports::PortPool;

/// Directives a log filter must contain: the library writes whole messages with numbers and credentials at INFO.
///
/// A logger fed through the `log` crate beside the `tracing` filter must drop these targets by itself.
pub const LOG_DIRECTIVES: &[&str] = &["rsipstack=error", "hickory_resolver=warn", "hickory_proto=warn"];

/// Events waiting for the daemon. When full, new calls are refused with 503.
const EVENTS: usize = 64;
/// How long a shutdown waits for BYE and de-registration.
const SHUTDOWN: Duration = Duration::from_secs(6);

/// What the line reports.
#[allow(
    clippy::large_enum_variant,
    reason = "one a call, moved twice; a box would only be unwrapped"
)]
#[derive(Debug)]
pub enum SipEvent {
    /// Somebody calls.
    Incoming(IncomingCall),
    /// An account's registration changed.
    Registration {
        /// Name of the account.
        account: String,
        /// Where it stands.
        state: RegistrationState,
    },
}

/// What the endpoint holds at one moment. Nothing of a call is left when its transactions are over.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Occupancy {
    /// Calls under way, from the INVITE to the end.
    pub calls: usize,
    /// Dialogs that the library knows.
    pub dialogs: usize,
    /// Transactions under way, and those kept for 64·T1 to answer retransmissions (RFC 3261 §17).
    pub transactions: usize,
}

/// A running SIP endpoint. Dropping it stops everything without saying goodbye; see [`Sip::shutdown`].
pub struct Sip {
    core: Arc<Core>,
    cancel: CancellationToken,
    registrations: CancellationToken,
    accounts: Vec<JoinHandle<()>>,
}

impl std::fmt::Debug for Sip {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sip")
            .field("addrs", &self.local_addrs())
            .finish_non_exhaustive()
    }
}

/// Binds, starts listening and registering.
///
/// # Errors
/// [`SipError::Bind`], [`SipError::NoListener`] or [`SipError::BadAddress`]; each says what to do.
pub async fn start(config: SipConfig) -> Result<(Sip, mpsc::Receiver<SipEvent>), SipError> {
    if config.udp.is_none() && config.tcp.is_none() && config.tls.is_none() {
        return Err(SipError::NoListener);
    }
    for account in &config.accounts {
        if register::parse_registrar(account)?.transport() == Some(&sip::Transport::Tls) {
            tls::check_trust(&account.trust)?;
        }
    }
    for peer in &config.named_peers {
        let uri = rsipstack::sip::Uri::try_from(format!("sip:{}", peer.host).as_str());
        let plain = !peer.host.contains(['@', ';', '?', ' ', '/']);
        if uri.is_err() || !plain {
            return Err(SipError::BadAddress {
                text: peer.host.clone(),
                expected: "a host name such as trunk.example, an address or a network",
            });
        }
    }
    let ports = PortPool::new(config.rtp_ports)?;
    let gate = Arc::new(Gate::new(config.peers.iter().map(|peer| peer.net).collect()));
    let cancel = CancellationToken::new();
    let locator = Locator::new(config.names.clone());
    let transport = TransportLayer::new_with_domain_resolver(cancel.clone(), Box::new(locator.clone()));
    let mut udp_addr = None;
    if let Some(addr) = config.udp {
        let socket = udp::bind(addr).await?;
        udp_addr = Some(socket.local_addr()?);
        let socket = Arc::new(udp::GatedSocket::new(socket, gate.clone()));
        let connection = UdpConnection::from_socket(socket, None, Some(cancel.child_token())).await?;
        transport.add_transport(connection.into());
    }
    let mut listeners = Vec::new();
    let (mut tcp_addr, mut tls_addr) = (None, None);
    if let Some(addr) = config.tcp {
        let bound = tcp::bind(addr, "tcp").await?;
        let addr = bound.local_addr()?;
        tcp_addr = Some(addr);
        transport.add_transport(tcp::address_only(addr, sip::Transport::Tcp).await?);
        listeners.push((bound, None));
    }
    if let Some(tls) = &config.tls {
        let acceptor = tls::acceptor(tls)?;
        let bound = tcp::bind(tls.addr, "tls").await?;
        let addr = bound.local_addr()?;
        tls_addr = Some(addr);
        transport.add_transport(tcp::address_only(addr, sip::Transport::Tls).await?);
        listeners.push((bound, Some(acceptor)));
    }

    let inspector = Inspector::default();
    let (realms, extras, proxied, early, dialled) = (
        inspector.realms.clone(),
        inspector.extras.clone(),
        inspector.proxied.clone(),
        inspector.early.clone(),
        inspector.dialled.clone(),
    );
    let endpoint = EndpointBuilder::new()
        .with_user_agent(&config.user_agent)
        .with_transport_layer(transport)
        .with_cancel_token(cancel.clone())
        .with_inspector(Box::new(inspector))
        .with_option(EndpointOption {
            callid_format: CallIdFormat::Uuid,
            t1: config.t1,
            t1x64: config.t1 * 64,
            ..EndpointOption::default()
        })
        .build();
    let transactions = endpoint.incoming_transactions()?;
    let inner = endpoint.inner.clone();
    let core = Arc::new(Core {
        layer: Arc::new(DialogLayer::new(inner.clone())),
        endpoint: inner.clone(),
        gate: gate.clone(),
        locator,
        ports,
        realms,
        extras,
        proxied,
        early,
        dialled,
        udp: udp_addr,
        tcp: tcp_addr,
        tls: tls_addr,
        links: tls::Links::default(),
        cancel: cancel.clone(),
        calls: Calls::default(),
        merging: merging::Merging::default(),
        config,
    });
    let (events_tx, events) = mpsc::channel(EVENTS);
    tokio::spawn(async move { endpoint.serve().await });
    for (listener, acceptor) in listeners {
        tokio::spawn(tcp::run(
            listener,
            acceptor,
            inner.clone(),
            gate.clone(),
            cancel.clone(),
        ));
    }
    let task = incoming::run(core.clone(), transactions, events_tx.clone());
    let token = cancel.clone();
    tokio::spawn(async move {
        tokio::select! {
            () = token.cancelled() => {}
            () = task => {}
        }
    });
    for named in core.config.named_peers.clone() {
        tokio::spawn(peers::follow(core.clone(), named, cancel.clone()));
    }
    let registrations = CancellationToken::new();
    let accounts = core.config.accounts.iter().map(|account| {
        tokio::spawn(register::run(
            core.clone(),
            account.clone(),
            events_tx.clone(),
            registrations.clone(),
        ))
    });
    let accounts = accounts.collect();
    Ok((
        Sip {
            core,
            cancel,
            registrations,
            accounts,
        },
        events,
    ))
}

impl Sip {
    /// Calls `sip:user@host[:port][;transport=tcp]` and waits for the answer. Dropping the future cancels the call.
    ///
    /// # Errors
    /// [`SipError::Refused`] with the far end's status, [`SipError::Timeout`], [`SipError::Media`],
    /// [`SipError::BadAddress`] and what the network adds.
    pub async fn invite(
        &self,
        target: &str,
        credentials: Option<(String, String)>,
    ) -> Result<Established, SipError> {
        let call = Outgoing {
            credentials,
            ..Outgoing::to(target)
        };
        outgoing::invite(&self.core, call).await
    }

    /// Places calls on behalf of whoever holds it, as long as the endpoint runs.
    pub fn dialler(&self) -> Dialler {
        Dialler {
            core: self.core.clone(),
        }
    }

    /// Addresses really bound, with their transport.
    pub fn local_addrs(&self) -> Vec<(Transport, SocketAddr)> {
        let udp = self.core.udp.map(|addr| (Transport::Udp, addr));
        let tcp = self.core.tcp.map(|addr| (Transport::Tcp, addr));
        let tls = self.core.tls.map(|addr| (Transport::Tls, addr));
        udp.into_iter().chain(tcp).chain(tls).collect()
    }

    /// Calls under way, from the INVITE to the end.
    pub fn active_dialogs(&self) -> usize {
        self.core.calls.active()
    }

    /// What the gate has turned away.
    pub fn gate_counters(&self) -> GateCounters {
        self.core.gate.counters()
    }

    /// Hangs up all calls, gives the registrations up and stops; takes a few seconds at most.
    pub async fn shutdown(mut self) {
        self.registrations.cancel();
        let mut goodbyes = tokio::task::JoinSet::new();
        for control in self.core.calls.all() {
            goodbyes.spawn(async move {
                if control.phase_is_ringing() {
                    let _ = control
                        .dialog
                        .reject(Some(rsipstack::sip::StatusCode::ServiceUnavailable), None);
                }
                let _ = control.bye().await;
            });
        }
        let accounts = std::mem::take(&mut self.accounts);
        let done = async {
            while goodbyes.join_next().await.is_some() {}
            for account in accounts {
                let _ = account.await;
            }
        };
        let _ = tokio::time::timeout(SHUTDOWN, done).await;
    }
}

/// Places calls; see [`Sip::dialler`].
#[derive(Clone)]
pub struct Dialler {
    core: Arc<Core>,
}

impl std::fmt::Debug for Dialler {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Dialler")
    }
}

impl Dialler {
    /// Places a call and waits for the answer. Dropping the future cancels the call.
    ///
    /// # Errors
    /// As [`Sip::invite`].
    pub async fn call(&self, call: Outgoing) -> Result<Established, SipError> {
        outgoing::invite(&self.core, call).await
    }

    /// What the endpoint holds now.
    pub fn occupancy(&self) -> Occupancy {
        let library = self.core.endpoint.get_stats();
        Occupancy {
            calls: self.core.calls.active(),
            dialogs: self.core.layer.len(),
            transactions: library.running_transactions + library.finished_transactions,
        }
    }
}

impl Drop for Sip {
    fn drop(&mut self) {
        self.registrations.cancel();
        self.cancel.cancel();
    }
}
