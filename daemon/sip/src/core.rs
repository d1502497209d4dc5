//! What all tasks of one endpoint share, and where addresses come from.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rsipstack::dialog::DialogId;
use rsipstack::dialog::dialog_layer::DialogLayer;
use rsipstack::platform::CancellationToken;
use rsipstack::sip::{self, Uri};
use rsipstack::transaction::endpoint::EndpointInnerRef;

use crate::call::Control;
use crate::config::{Account, SipConfig, Transport};
use crate::error::SipError;
use crate::gate::Gate;
use crate::inspector::{Dialled, Early, Extras, Proxied, Realms};
use crate::locate::Locator;
use crate::media::{LocalMedia, SrtpPolicy};
use crate::merging::Merging;
use crate::ports::PortPool;
use crate::register;
use crate::tls::Links;

pub(crate) struct Core {
    pub config: SipConfig,
    pub gate: Arc<Gate>,
    pub locator: Locator,
    pub endpoint: EndpointInnerRef,
    pub layer: Arc<DialogLayer>,
    pub ports: PortPool,
    pub realms: Realms,
    pub extras: Extras,
    pub proxied: Proxied,
    pub early: Early,
    /// Bound addresses.
    pub udp: Option<SocketAddr>,
    pub tcp: Option<SocketAddr>,
    pub tls: Option<SocketAddr>,
    pub links: Links,
    /// Ends everything.
    pub cancel: CancellationToken,
    pub calls: Calls,
    pub merging: Merging,
    /// A BYE may overtake the library's own bookkeeping.
    pub dialled: Dialled,
}

/// Calls under way, counted from the INVITE to the end of the dialog.
#[derive(Default)]
pub(crate) struct Calls {
    active: Arc<AtomicUsize>,
    next: AtomicU64,
    controls: Mutex<HashMap<u64, Control>>,
}

/// One of `max_calls`; given back on drop.
pub(crate) struct CallPermit(Arc<AtomicUsize>);

impl Drop for CallPermit {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

impl Calls {
    pub fn active(&self) -> usize {
        self.active.load(Ordering::Acquire)
    }

    pub fn try_admit(&self, max: usize) -> Option<CallPermit> {
        let more = |n: usize| (n < max).then_some(n + 1);
        self.active
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, more)
            .ok()?;
        Some(CallPermit(self.active.clone()))
    }

    pub fn insert(&self, control: Control) -> u64 {
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        lock(&self.controls).insert(id, control);
        id
    }

    pub fn remove(&self, id: u64) {
        lock(&self.controls).remove(&id);
    }

    pub fn find(&self, id: &DialogId) -> Option<Control> {
        lock(&self.controls)
            .values()
            .find(|control| control.dialog.id() == *id)
            .cloned()
    }

    pub fn all(&self) -> Vec<Control> {
        lock(&self.controls).values().cloned().collect()
    }
}

impl Core {
    /// The account at the host of `uri`, if there is one.
    pub fn account_at(&self, uri: &Uri) -> Option<&Account> {
        let host = &uri.host_with_port.host;
        self.config.accounts.iter().find(|account| {
            register::parse_registrar(account).is_ok_and(|server| server.host_with_port.host == *host)
        })
    }

    /// Our address on the way to `remote`.
    ///
    /// # Errors
    /// [`SipError::Io`] when there is no route.
    pub fn local_ip(&self, remote: IpAddr) -> Result<IpAddr, SipError> {
        let bound = self.udp.or(self.tcp).or(self.tls).map(|addr| addr.ip());
        if let Some(ip) = bound.filter(|ip| !ip.is_unspecified() && ip.is_ipv4() == remote.is_ipv4()) {
            return Ok(ip);
        }
        let any: IpAddr = if remote.is_ipv4() {
            [0, 0, 0, 0].into()
        } else {
            [0u16; 8].into()
        };
        let probe = UdpSocket::bind((any, 0))?;
        probe.connect((remote, 5060))?;
        Ok(probe.local_addr()?.ip())
    }

    /// The address we write into SDP and Contact for `remote`.
    ///
    /// # Errors
    /// [`SipError::Io`] when there is no route.
    pub fn advertised_ip(&self, remote: IpAddr) -> Result<IpAddr, SipError> {
        match self.config.media_ip {
            Some(ip) => Ok(ip),
            None => self.local_ip(remote),
        }
    }

    /// Our end of the media of a call with `remote`, on the RTP port `port`.
    ///
    /// # Errors
    /// [`SipError::Io`] when there is no route.
    pub fn local_media(&self, remote: IpAddr, port: u16) -> Result<LocalMedia, SipError> {
        let ip = self.advertised_ip(remote)?;
        Ok(LocalMedia::new(
            ip,
            port,
            &self.config.codecs,
            self.srtp_policy(remote),
        ))
    }

    /// Whether calls with `remote` are encrypted: as its peer says, else its account, else as usual.
    fn srtp_policy(&self, remote: IpAddr) -> SrtpPolicy {
        let peer = self.config.peers.iter().find(|peer| peer.net.contains(remote));
        let account = || {
            let name = self.gate.account_of(remote)?;
            self.config.accounts.iter().find(|account| account.name == name)
        };
        peer.map(|peer| peer.srtp)
            .or_else(|| account().map(|account| account.srtp))
            .unwrap_or_default()
    }

    /// Where `remote` reaches us.
    ///
    /// # Errors
    /// [`SipError::Io`] when there is no route.
    pub fn contact(&self, user: &str, remote: IpAddr, transport: Transport) -> Result<Uri, SipError> {
        let bound = match transport {
            Transport::Udp => self.udp.or(self.tcp).or(self.tls),
            Transport::Tcp => self.tcp.or(self.udp).or(self.tls),
            Transport::Tls => self.tls.or(self.tcp).or(self.udp),
        };
        let addr = SocketAddr::new(
            self.advertised_ip(remote)?,
            bound.map_or(5060, |addr| addr.port()),
        );
        let params = match transport {
            Transport::Udp => Vec::new(),
            Transport::Tcp => vec![sip::Param::Transport(sip::Transport::Tcp)],
            Transport::Tls => vec![sip::Param::Transport(sip::Transport::Tls)],
        };
        let auth = sip::Auth {
            user: user.to_string(),
            password: None,
        };
        Ok(Uri {
            scheme: Some(sip::Scheme::Sip),
            auth: Some(auth),
            host_with_port: addr.into(),
            params,
            headers: Vec::new(),
        })
    }
}

/// A poisoned lock guards plain data here: take it as it is.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
