//! Errors of this crate; each variant is another decision for the caller.

use std::io;
use std::net::{IpAddr, SocketAddr};

/// What can go wrong on the SIP line.
#[derive(Debug, thiserror::Error)]
pub enum SipError {
    /// Tell the technician which program to stop or which port to choose.
    #[error("cannot listen on {addr}/{transport}: {hint}")]
    Bind {
        /// Address asked for.
        addr: SocketAddr,
        /// `udp` or `tcp`.
        transport: &'static str,
        /// What it means and what to do.
        hint: String,
        /// The system's reason.
        source: io::Error,
    },
    /// The configuration names no address.
    #[error("no address to listen on: set a UDP, TCP or TLS address")]
    NoListener,
    /// The configuration is wrong: nothing to retry.
    #[error("\"{text}\" is not {expected}")]
    BadAddress {
        /// What was written.
        text: String,
        /// What would be accepted.
        expected: &'static str,
    },
    /// The name of a PBX, provider or target leads nowhere: correct it, or retry when the DNS is back.
    #[error("the name {name} has no address; check its spelling and this machine's DNS server")]
    Unresolved {
        /// The host name.
        name: String,
    },
    /// A handshake or one of its files: the technician has to act, and is told how.
    #[error("TLS with {peer}: {hint}")]
    Tls {
        /// The far end, or the file.
        peer: String,
        /// What it means and what to do.
        hint: String,
    },
    /// All RTP ports are taken: refuse with 503 or widen the range.
    #[error("no free RTP port on {ip} in {first}-{last}")]
    NoRtpPort {
        /// Local address.
        ip: IpAddr,
        /// First port of the range.
        first: u16,
        /// Last port of the range.
        last: u16,
    },
    /// The far end answered with a final refusal: say so; retry only if the status invites it.
    #[error("refused with {status} {reason}")]
    Refused {
        /// SIP status code.
        status: u16,
        /// Its phrase.
        reason: String,
    },
    /// No common codec or unusable SDP: the call cannot carry sound.
    #[error("media cannot be agreed on: {0}")]
    Media(#[from] crate::sdp::SdpError),
    /// The far end did not answer in time: retry later.
    #[error("no answer within {seconds} s")]
    Timeout {
        /// How long was waited \[s\].
        seconds: u64,
    },
    /// The caller gave up before the answer, or the call ended meanwhile.
    #[error("the call is already over")]
    Gone,
    /// Name resolution, transport or an unusable message from the far end.
    #[error("SIP signalling failed: {0}")]
    Signalling(#[source] Box<rsipstack::Error>),
    /// A local socket failed.
    #[error("socket error: {0}")]
    Io(#[from] io::Error),
}

impl From<rsipstack::Error> for SipError {
    fn from(error: rsipstack::Error) -> Self {
        SipError::Signalling(Box::new(error))
    }
}
