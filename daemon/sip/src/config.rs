//! What the SIP line is told: where to listen, where to register, whom to answer.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use attendant_media::codec::Codec;

use crate::error::SipError;
use crate::locate::Names;
use crate::media::SrtpPolicy;
use crate::timer::SessionTimers;

/// Settings of one SIP endpoint.
#[derive(Debug, Clone)]
pub struct SipConfig {
    /// UDP address to listen on; port 0 takes any free port.
    pub udp: Option<SocketAddr>,
    /// TCP address to listen on; port 0 takes any free port.
    pub tcp: Option<SocketAddr>,
    /// TLS address to listen on, and who we are there.
    pub tls: Option<TlsListener>,
    /// Address written into SDP and Contact; `None`: the local address of the route to each peer.
    pub media_ip: Option<IpAddr>,
    /// First and last UDP port for RTP; the even ones are used.
    pub rtp_ports: (u16, u16),
    /// Registrations to hold.
    pub accounts: Vec<Account>,
    /// Trunks whose calls are accepted. A registrar's address is accepted without being listed.
    pub peers: Vec<Peer>,
    /// What is spoken, best first; the order of an offerer counts for more.
    pub codecs: Vec<Codec>,
    /// Trunks known by name only; their addresses are looked up now and then.
    pub named_peers: Vec<NamedPeer>,
    /// User-Agent header.
    pub user_agent: String,
    /// Calls at once, both directions; the next caller hears busy (486).
    pub max_calls: usize,
    /// Calls at which a probe (OPTIONS) hears busy; `None`: at `max_calls`. Fewer where whoever answers keeps dialogs in
    /// reserve, for consultations and for refusals of its own.
    pub lines: Option<usize>,
    /// Session timers to ask for and to accept.
    pub timers: SessionTimers,
    /// T1 of RFC 3261 §17.1.1.1: the round trip that retransmissions start from.
    pub t1: Duration,
    /// Who is asked about names; `None`: the system.
    pub names: Option<Arc<dyn Names>>,
}

impl Default for SipConfig {
    fn default() -> Self {
        SipConfig {
            udp: None,
            tcp: None,
            tls: None,
            media_ip: None,
            rtp_ports: (16_384, 17_383),
            accounts: Vec::new(),
            peers: Vec::new(),
            codecs: Codec::ALL.to_vec(),
            named_peers: Vec::new(),
            user_agent: "Attendant".to_string(),
            max_calls: 8,
            lines: None,
            timers: SessionTimers::default(),
            t1: Duration::from_millis(500),
            names: None,
        }
    }
}

/// One registration at a PBX or provider.
#[derive(Clone)]
pub struct Account {
    /// Name in events and logs.
    pub name: String,
    /// `host[:port][;transport=tcp]`.
    pub registrar: String,
    /// User part of the address of record.
    pub username: String,
    /// Digest password.
    pub password: String,
    /// Digest user name, when it is not `username`.
    pub auth_user: Option<String>,
    /// Which realm's challenge to answer, when a registrar sends several.
    pub realm: Option<String>,
    /// Registration lifetime to ask for \[s\].
    pub expires_s: u32,
    /// Used when `registrar` names no transport.
    pub transport: Transport,
    /// Whether calls through it are encrypted.
    pub srtp: SrtpPolicy,
    /// How a TLS registrar's certificate is judged.
    pub trust: TlsTrust,
}

/// A TLS listener. Strangers are hung up on before any handshake.
#[derive(Debug, Clone)]
pub struct TlsListener {
    /// Address; port 0 takes any free port.
    pub addr: SocketAddr,
    /// Certificate chain, PEM.
    pub cert: PathBuf,
    /// Its private key, PEM.
    pub key: PathBuf,
}

/// How a server's certificate is judged: by its fingerprint, if that is given; else by an authority.
#[derive(Debug, Clone)]
pub struct TlsTrust {
    /// Authorities, PEM; `None`: those of the system.
    pub ca: Option<PathBuf>,
    /// SHA-256 of the very certificate; nothing else is then looked at.
    pub fingerprint: Option<String>,
    /// `false` trusts anybody: encrypted, but with whom?
    pub verify: bool,
}

impl fmt::Debug for Account {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Account")
            .field("name", &self.name)
            .field("registrar", &self.registrar)
            .finish_non_exhaustive()
    }
}

/// Transport protocol of signalling.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Transport {
    /// RFC 3261 over UDP.
    #[default]
    Udp,
    /// RFC 3261 over TCP.
    Tcp,
    /// RFC 3261 over TLS.
    Tls,
}

impl Transport {
    /// The library's.
    pub(crate) fn of(transport: rsipstack::sip::Transport) -> Transport {
        match transport {
            rsipstack::sip::Transport::Tcp => Transport::Tcp,
            rsipstack::sip::Transport::Tls => Transport::Tls,
            _ => Transport::Udp,
        }
    }
}

/// A trunk: calls from these addresses are accepted without a password.
#[derive(Debug, Clone)]
pub struct Peer {
    /// Name in events and logs.
    pub name: String,
    /// Its address or network.
    pub net: Cidr,
    /// Whether calls with it are encrypted.
    pub srtp: SrtpPolicy,
}

/// A trunk whose addresses are those of a name.
#[derive(Debug, Clone)]
pub struct NamedPeer {
    /// Name in events and logs.
    pub name: String,
    /// `host`, or a domain with SRV records.
    pub host: String,
}

/// An address or network such as `192.0.2.7`, `192.0.2.0/24`, `2001:db8::/32`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cidr {
    addr: IpAddr,
    prefix: u8,
}

impl Cidr {
    /// Whether `ip` lies in this network; IPv4 in IPv6 notation counts as IPv4.
    pub fn contains(&self, ip: IpAddr) -> bool {
        match (self.addr, ip.to_canonical()) {
            (IpAddr::V4(net), IpAddr::V4(ip)) => {
                let mask = u32::MAX.checked_shl(32 - u32::from(self.prefix)).unwrap_or(0);
                net.to_bits() & mask == ip.to_bits() & mask
            }
            (IpAddr::V6(net), IpAddr::V6(ip)) => {
                let mask = u128::MAX.checked_shl(128 - u32::from(self.prefix)).unwrap_or(0);
                net.to_bits() & mask == ip.to_bits() & mask
            }
            _ => false,
        }
    }
}

impl From<IpAddr> for Cidr {
    fn from(addr: IpAddr) -> Self {
        let addr = addr.to_canonical();
        Cidr {
            addr,
            prefix: if addr.is_ipv4() { 32 } else { 128 },
        }
    }
}

impl FromStr for Cidr {
    type Err = SipError;

    fn from_str(text: &str) -> Result<Self, SipError> {
        let bad = || SipError::BadAddress {
            text: text.to_string(),
            expected: "an address such as 192.0.2.7 or a network such as 192.0.2.0/24",
        };
        let Some((addr, prefix)) = text.trim().split_once('/') else {
            return text.trim().parse::<IpAddr>().map(Cidr::from).map_err(|_| bad());
        };
        let addr: IpAddr = addr.parse().map_err(|_| bad())?;
        let prefix: u8 = prefix.parse().map_err(|_| bad())?;
        if prefix > Cidr::from(addr).prefix {
            return Err(bad());
        }
        Ok(Cidr { addr, prefix })
    }
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.addr, self.prefix)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_contain_their_addresses() {
        let cases = [
            ("192.0.2.7", "192.0.2.7", true),
            ("192.0.2.7", "192.0.2.8", false),
            ("192.0.2.0/24", "192.0.2.255", true),
            ("192.0.2.0/24", "192.0.3.0", false),
            ("0.0.0.0/0", "203.0.113.9", true),
            ("0.0.0.0/0", "::1", false),
            ("10.0.0.0/8", "::ffff:10.1.2.3", true),
            ("2001:db8::/32", "2001:db8:1::9", true),
            ("2001:db8::/32", "2001:db9::", false),
        ];
        for (net, ip, want) in cases {
            let net: Cidr = net.parse().unwrap();
            assert_eq!(net.contains(ip.parse().unwrap()), want, "{net} {ip}");
        }
    }

    #[test]
    fn nonsense_is_refused() {
        for text in ["", "pbx", "1.2.3.4/33", "1.2.3.4/x", "1.2.3/8", "::/129"] {
            assert!(text.parse::<Cidr>().is_err(), "{text}");
        }
    }
}
