//! The telephone line: section `[sip]`, its accounts and peers.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::PathBuf,
};

use attendant_media::Codec;
use attendant_sip::SrtpPolicy;
use serde::Deserialize;

/// `[sip]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SipSection {
    /// UDP socket to listen on.
    pub udp: Option<SocketAddr>,
    /// TCP socket to listen on.
    pub tcp: Option<SocketAddr>,
    /// TLS socket to listen on; needs `tls_cert` and `tls_key`.
    pub tls: Option<SocketAddr>,
    /// Certificate chain of the TLS socket, PEM.
    pub tls_cert: Option<PathBuf>,
    /// Its private key, PEM.
    pub tls_key: Option<PathBuf>,
    /// Address told to peers for audio.
    pub media_ip: Option<IpAddr>,
    /// First and last even port for audio.
    pub rtp_ports: (u16, u16),
    /// Codecs, best first.
    pub codecs: Vec<CodecName>,
    /// Extensions on PBXs.
    pub account: Vec<AccountSection>,
    /// Peers that may call.
    pub peer: Vec<PeerSection>,
}

impl Default for SipSection {
    fn default() -> Self {
        let any = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 5060);
        Self {
            udp: Some(any),
            tcp: Some(any),
            tls: None,
            tls_cert: None,
            tls_key: None,
            media_ip: None,
            rtp_ports: (16_384, 16_583),
            codecs: vec![CodecName::Opus, CodecName::G722, CodecName::Pcmu, CodecName::Pcma],
            account: vec![],
            peer: vec![],
        }
    }
}

/// A codec, as the configuration names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CodecName {
    /// Wideband, mends losses.
    Opus,
    /// Wideband, what desk phones have.
    G722,
    /// G.711 in America and Japan.
    Pcmu,
    /// G.711 elsewhere.
    Pcma,
}

impl From<CodecName> for Codec {
    fn from(name: CodecName) -> Codec {
        match name {
            CodecName::Opus => Codec::Opus,
            CodecName::G722 => Codec::G722,
            CodecName::Pcmu => Codec::Pcmu,
            CodecName::Pcma => Codec::Pcma,
        }
    }
}

/// Whether audio is encrypted (SRTP), as the configuration says it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Srtp {
    /// Never.
    Off,
    /// When the other side offers it.
    #[default]
    Offered,
    /// Always; calls without it are refused.
    Required,
}

impl From<Srtp> for SrtpPolicy {
    fn from(srtp: Srtp) -> SrtpPolicy {
        match srtp {
            Srtp::Off => SrtpPolicy::Off,
            Srtp::Offered => SrtpPolicy::Offered,
            Srtp::Required => SrtpPolicy::Required,
        }
    }
}

/// `[[sip.account]]`.
#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AccountSection {
    /// For people.
    pub name: String,
    /// `host[:port][;transport=tcp]`.
    pub registrar: String,
    /// Extension.
    pub username: String,
    /// Secret; or `password_file`.
    #[serde(default)]
    pub password: Option<String>,
    /// File whose first line is the secret.
    #[serde(default)]
    pub password_file: Option<PathBuf>,
    /// Name for authentication where it differs from the extension.
    #[serde(default)]
    pub auth_user: Option<String>,
    /// Realm where it matters.
    #[serde(default)]
    pub realm: Option<String>,
    /// Registration interval [s].
    #[serde(default = "default_expires")]
    pub expires_s: u32,
    /// Whether calls through it are encrypted.
    #[serde(default)]
    pub srtp: Srtp,
    /// Where the registrar names none.
    #[serde(default)]
    pub transport: SipTransport,
    /// Authorities that may have signed the registrar's certificate, PEM; `None`: the system's.
    #[serde(default)]
    pub tls_ca: Option<PathBuf>,
    /// SHA-256 of the registrar's certificate; nothing else is then looked at.
    #[serde(default)]
    pub tls_fingerprint: Option<String>,
    /// Whether the certificate is looked at.
    #[serde(default = "yes")]
    pub tls_verify: bool,
}

/// Transport of signalling.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SipTransport {
    /// Over UDP.
    #[default]
    Udp,
    /// Over TCP.
    Tcp,
    /// Over TLS.
    Tls,
}

fn yes() -> bool {
    true
}

impl std::fmt::Debug for AccountSection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "AccountSection({}, [redacted])", self.name)
    }
}

fn default_expires() -> u32 {
    300
}

/// `[[sip.peer]]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PeerSection {
    /// For people.
    pub name: String,
    /// Address, network or host name.
    pub address: String,
    /// Whether calls with it are encrypted.
    #[serde(default)]
    pub srtp: Srtp,
}
