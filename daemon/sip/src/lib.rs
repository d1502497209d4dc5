//! The SIP line: registers, takes and places calls, and agrees on media. The only user of the SIP library.
//!
//! ```text
//!            gate (who may speak)      library (transactions, dialogs)      here
//! UDP, TCP ────> wire, gate ─────────────> rsipstack ─────────> incoming ──> SipEvent::Incoming ─> answer ─> Established
//!                                             ^                 call (a task per dialog) ─────────> DialogEvent
//!                                             '──────────────── register (a task per account) ────> SipEvent::Registration
//! ```
//!
//! | Task | Number | Ends |
//! |---|---|---|
//! | library endpoint, UDP reader | 1 | shutdown |
//! | TCP acceptor, reader and writer of a connection | 1, ≤ 64 each | shutdown, idle, error |
//! | incoming | 1, and one per request | shutdown, answer sent |
//! | call | 1 per dialog, ≤ `max_calls` | end of the dialog |
//! | register | 1 per account | shutdown, refusal |
//!
//! Privacy: a caller's name and number are [`Redacted`]. The library logs whole messages at INFO: set [`LOG_DIRECTIVES`].

mod call;
mod config;
mod core;
mod digest;
mod error;
#[cfg(test)]
mod fuzz;
mod gate;
mod grammar;
mod incoming;
mod inspector;
mod media;
#[cfg(test)]
#[path = "../tests/common/mutate.rs"]
mod mutate;
mod outgoing;
mod ports;
mod redact;
mod register;
pub mod sdp;
mod tcp;
mod udp;
mod via;
mod wire;

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rsipstack::EndpointBuilder;
use rsipstack::dialog::dialog_layer::DialogLayer;
use rsipstack::platform::CancellationToken;
use rsipstack::resolver::SipResolver;
use rsipstack::transaction::CallIdFormat;
use rsipstack::transaction::endpoint::EndpointOption;
use rsipstack::transport::TransportLayer;
use rsipstack::transport::udp::UdpConnection;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

pub use attendant_media::codec::Codec;
pub use call::{DialogEvent, DialogHandle, Established};
pub use config::{Account, Cidr, Peer, SipConfig, Transport};
pub use error::SipError;
pub use gate::GateCounters;
pub use incoming::{Caller, IncomingCall, Refusal};
pub use media::{MediaOffer, Negotiated};
pub use redact::Redacted;
pub use register::RegistrationState;
pub use sdp::Direction;

use crate::core::{Calls, Core, Resolver};
use crate::gate::Gate;
use crate::inspector::Inspector;
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
    if config.udp.is_none() && config.tcp.is_none() {
        return Err(SipError::NoListener);
    }
    for account in &config.accounts {
        register::parse_registrar(account)?;
    }
    let ports = PortPool::new(config.rtp_ports)?;
    let gate = Arc::new(Gate::new(config.peers.iter().map(|peer| peer.net).collect()));
    let cancel = CancellationToken::new();
    let transport =
        TransportLayer::new_with_domain_resolver(cancel.clone(), Box::new(Resolver(SipResolver::default())));
    let mut udp_addr = None;
    if let Some(addr) = config.udp {
        let socket = udp::bind(addr).await?;
        udp_addr = Some(socket.local_addr()?);
        let socket = Arc::new(udp::GatedSocket::new(socket, gate.clone()));
        let connection = UdpConnection::from_socket(socket, None, Some(cancel.child_token())).await?;
        transport.add_transport(connection.into());
    }
    let mut listener = None;
    let mut tcp_addr = None;
    if let Some(addr) = config.tcp {
        let bound = tcp::bind(addr).await?;
        let addr = bound.local_addr()?;
        tcp_addr = Some(addr);
        transport.add_transport(tcp::address_only(addr).await?);
        listener = Some(bound);
    }

    let inspector = Inspector::default();
    let (realms, extras, proxied) = (
        inspector.realms.clone(),
        inspector.extras.clone(),
        inspector.proxied.clone(),
    );
    let endpoint = EndpointBuilder::new()
        .with_user_agent(&config.user_agent)
        .with_transport_layer(transport)
        .with_cancel_token(cancel.clone())
        .with_inspector(Box::new(inspector))
        .with_option(EndpointOption {
            callid_format: CallIdFormat::Uuid,
            ..EndpointOption::default()
        })
        .build();
    let transactions = endpoint.incoming_transactions()?;
    let inner = endpoint.inner.clone();
    let core = Arc::new(Core {
        layer: Arc::new(DialogLayer::new(inner.clone())),
        endpoint: inner.clone(),
        gate: gate.clone(),
        ports,
        realms,
        extras,
        proxied,
        udp: udp_addr,
        tcp: tcp_addr,
        calls: Calls::default(),
        dialling: Mutex::default(),
        config,
    });
    let (events_tx, events) = mpsc::channel(EVENTS);
    tokio::spawn(async move { endpoint.serve().await });
    if let Some(listener) = listener {
        tokio::spawn(tcp::run(listener, inner, gate, cancel.clone()));
    }
    let task = incoming::run(core.clone(), transactions, events_tx.clone());
    let token = cancel.clone();
    tokio::spawn(async move {
        tokio::select! {
            () = token.cancelled() => {}
            () = task => {}
        }
    });
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
        outgoing::invite(&self.core, target, credentials).await
    }

    /// Addresses really bound, with their transport.
    pub fn local_addrs(&self) -> Vec<(Transport, SocketAddr)> {
        let udp = self.core.udp.map(|addr| (Transport::Udp, addr));
        let tcp = self.core.tcp.map(|addr| (Transport::Tcp, addr));
        udp.into_iter().chain(tcp).collect()
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

impl Drop for Sip {
    fn drop(&mut self) {
        self.registrations.cancel();
        self.cancel.cancel();
    }
}
