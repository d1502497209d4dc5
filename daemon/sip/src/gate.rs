//! The gate: who may speak to us, and how often we answer those who may not.
//!
//! Stands before the library, so that a stranger's message costs one table lookup and no transaction. Known are the
//! configured peers and the registrars' addresses. A stranger's new request gets 403 a few times, then nothing; a request
//! inside a dialog passes (the far end of our own outgoing call is a stranger) at a bounded rate; so do responses.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError, RwLock};
use std::time::{Duration, Instant};

use crate::config::Cidr;
use crate::wire::{self, ALLOW, Checked, Framing, Head, Rejected};

/// Sources remembered at once; beyond that strangers are ignored until old ones are forgotten.
const MAX_SOURCES: usize = 4096;
/// A bucket untouched this long is full again whatever it was.
const FORGET_AFTER: Duration = Duration::from_secs(600);

/// What to do with one message.
#[derive(Debug)]
pub(crate) enum Judged {
    /// Hand these bytes to the library.
    Pass(Vec<u8>),
    /// Send this answer to the source address and this port.
    Reply { response: Vec<u8>, port: u16 },
    /// Nothing.
    Drop,
}

/// What the gate has turned away since start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct GateCounters {
    /// Requests from unknown sources.
    pub refused: u64,
    /// Messages that are not proper SIP.
    pub malformed: u64,
    /// Of both, those that got no answer because of the rate limit.
    pub unanswered: u64,
}

#[derive(Debug, Default)]
pub(crate) struct Gate {
    peers: Vec<Cidr>,
    registrars: RwLock<BTreeMap<String, Vec<IpAddr>>>,
    buckets: Mutex<HashMap<(IpAddr, Kind), Bucket>>,
    refused: AtomicU64,
    malformed: AtomicU64,
    unanswered: AtomicU64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Kind {
    Refusal,
    Malformed,
    InDialog,
    Log,
}

impl Kind {
    /// Burst \[messages\] and refill \[messages/s\].
    fn limits(self) -> (f32, f32) {
        match self {
            // A mistaken PBX learns of its mistake; a scanner learns nothing new after five.
            Kind::Refusal => (5.0, 0.5),
            Kind::Malformed => (20.0, 5.0),
            Kind::InDialog => (200.0, 100.0),
            Kind::Log => (1.0, 1.0 / 600.0),
        }
    }
}

#[derive(Debug)]
struct Bucket {
    tokens: f32,
    at: Instant,
}

impl Gate {
    pub fn new(peers: Vec<Cidr>) -> Gate {
        Gate {
            peers,
            ..Gate::default()
        }
    }

    /// Replaces the addresses of one account's registrar.
    pub fn set_registrar(&self, account: &str, addresses: Vec<IpAddr>) {
        self.registrars
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(account.to_string(), addresses);
    }

    /// Whether new requests from `ip` are accepted.
    pub fn is_known(&self, ip: IpAddr) -> bool {
        let ip = ip.to_canonical();
        self.peers.iter().any(|net| net.contains(ip))
            || self
                .registrars
                .read()
                .unwrap_or_else(PoisonError::into_inner)
                .values()
                .flatten()
                .any(|a| *a == ip)
    }

    /// The account whose registrar has this address.
    pub fn account_of(&self, ip: IpAddr) -> Option<String> {
        let ip = ip.to_canonical();
        let registrars = self.registrars.read().unwrap_or_else(PoisonError::into_inner);
        let found = registrars.iter().find(|(_, addresses)| addresses.contains(&ip));
        found.map(|(account, _)| account.clone())
    }

    pub fn counters(&self) -> GateCounters {
        GateCounters {
            refused: self.refused.load(Ordering::Relaxed),
            malformed: self.malformed.load(Ordering::Relaxed),
            unanswered: self.unanswered.load(Ordering::Relaxed),
        }
    }

    /// Judges one message.
    pub fn judge(
        &self,
        bytes: &[u8],
        source: IpAddr,
        source_port: u16,
        framing: Framing,
        now: Instant,
    ) -> Judged {
        let known = self.is_known(source);
        match wire::check(bytes, framing) {
            Ok(Checked { bytes, request: None }) => self.pass_if(known, bytes, source, now),
            Ok(Checked {
                bytes,
                request: Some(request),
            }) => {
                if known || request.in_dialog {
                    self.pass_if(known, bytes, source, now)
                } else if request.method == "ACK" {
                    Judged::Drop
                } else {
                    self.refuse(&request.head, source, source_port, now)
                }
            }
            Err(rejected) => self.handle_rejected(rejected, known, source, source_port, now),
        }
    }

    /// Answers a message that `wire` rejected; also used by the stream reader.
    pub fn handle_rejected(
        &self,
        rejected: Rejected,
        known: bool,
        source: IpAddr,
        port: u16,
        now: Instant,
    ) -> Judged {
        self.malformed.fetch_add(1, Ordering::Relaxed);
        let (status, phrase, head) = match rejected {
            Rejected::Answer { status, phrase, head } => (status, phrase, head),
            Rejected::Drop(reason) => {
                if self.take(source, Kind::Log, now) {
                    tracing::info!(%source, reason, "dropped a message that is not SIP; further ones are only counted");
                }
                return Judged::Drop;
            }
        };
        if self.take(source, Kind::Log, now) {
            tracing::info!(%source, status, phrase, "refused a malformed SIP request; further ones are only counted");
        }
        if !known || !self.take(source, Kind::Malformed, now) {
            self.unanswered.fetch_add(1, Ordering::Relaxed);
            return Judged::Drop;
        }
        let extra = if matches!(status, 405 | 501) {
            format!("Allow: {ALLOW}\r\n")
        } else {
            String::new()
        };
        reply(&head, status, phrase, &extra, port)
    }

    fn refuse(&self, head: &Head, source: IpAddr, port: u16, now: Instant) -> Judged {
        self.refused.fetch_add(1, Ordering::Relaxed);
        if self.take(source, Kind::Log, now) {
            tracing::warn!(%source, "refused a SIP request from an unknown address; if this is your PBX or provider, list it as a peer");
        }
        if !self.take(source, Kind::Refusal, now) {
            self.unanswered.fetch_add(1, Ordering::Relaxed);
            return Judged::Drop;
        }
        reply(head, 403, "Forbidden", "", port)
    }

    fn pass_if(&self, known: bool, bytes: Vec<u8>, source: IpAddr, now: Instant) -> Judged {
        if known || self.take(source, Kind::InDialog, now) {
            return Judged::Pass(bytes);
        }
        self.unanswered.fetch_add(1, Ordering::Relaxed);
        Judged::Drop
    }

    fn take(&self, source: IpAddr, kind: Kind, now: Instant) -> bool {
        let (burst, rate) = kind.limits();
        let mut buckets = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (network(source), kind);
        if buckets.len() >= MAX_SOURCES && !buckets.contains_key(&key) {
            buckets.retain(|_, bucket| now.saturating_duration_since(bucket.at) < FORGET_AFTER);
            if buckets.len() >= MAX_SOURCES {
                return false;
            }
        }
        let bucket = buckets.entry(key).or_insert(Bucket {
            tokens: burst,
            at: now,
        });
        let elapsed = now.saturating_duration_since(bucket.at).as_secs_f32();
        bucket.tokens = (bucket.tokens + elapsed * rate).min(burst);
        bucket.at = now;
        if bucket.tokens < 1.0 {
            return false;
        }
        bucket.tokens -= 1.0;
        true
    }
}

fn reply(head: &Head, status: u16, phrase: &str, extra: &str, source_port: u16) -> Judged {
    match head.answer(status, phrase, extra) {
        Some(response) => Judged::Reply {
            response,
            port: head.reply_port(source_port),
        },
        None => Judged::Drop,
    }
}

/// One household is one /64: its addresses share a bucket.
fn network(ip: IpAddr) -> IpAddr {
    match ip.to_canonical() {
        IpAddr::V6(ip) => IpAddr::from((ip.to_bits() & !u128::from(u64::MAX)).to_be_bytes()),
        ip => ip,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const INVITE: &[u8] =
        b"INVITE sip:a@127.0.0.1 SIP/2.0\r\nVia: SIP/2.0/UDP 10.0.0.1:5070;branch=z9hG4bK1;rport\r\n\
        From: <sip:x@10.0.0.1>;tag=1\r\nTo: <sip:a@127.0.0.1>\r\nCall-ID: c1\r\nCSeq: 1 INVITE\r\n\
        Contact: <sip:x@10.0.0.1:5070>\r\nContent-Length: 0\r\n\r\n";
    const STRANGER: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(203, 0, 113, 5));
    const PEER: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 1));

    fn judge(gate: &Gate, bytes: &[u8], source: IpAddr, now: Instant) -> &'static str {
        match gate.judge(bytes, source, 5070, Framing::Datagram, now) {
            Judged::Pass(_) => "pass",
            Judged::Reply { response, .. } if response.starts_with(b"SIP/2.0 403") => "403",
            Judged::Reply { response, .. } if response.starts_with(b"SIP/2.0 400") => "400",
            Judged::Reply { .. } => "other",
            Judged::Drop => "drop",
        }
    }

    #[test]
    fn strangers_hear_403_a_few_times_then_nothing() {
        let gate = Gate::new(vec![PEER.into()]);
        let start = Instant::now();
        let answers: Vec<_> = (0..7).map(|_| judge(&gate, INVITE, STRANGER, start)).collect();
        assert_eq!(answers, ["403", "403", "403", "403", "403", "drop", "drop"]);
        assert_eq!(
            judge(&gate, INVITE, STRANGER, start + Duration::from_secs(3)),
            "403"
        );
        assert_eq!(judge(&gate, INVITE, PEER, start), "pass");
        assert_eq!(
            gate.counters(),
            GateCounters {
                refused: 8,
                malformed: 0,
                unanswered: 2
            }
        );
    }

    #[test]
    fn a_registrars_address_is_known() {
        let gate = Gate::new(vec![]);
        assert_eq!(judge(&gate, INVITE, PEER, Instant::now()), "403");
        gate.set_registrar("office", vec![PEER]);
        assert_eq!(judge(&gate, INVITE, PEER, Instant::now()), "pass");
    }

    #[test]
    fn strangers_learn_nothing_from_malformed_requests() {
        let gate = Gate::new(vec![PEER.into()]);
        let bad = String::from_utf8_lossy(INVITE).replace("Call-ID: c1\r\n", "");
        assert_eq!(judge(&gate, bad.as_bytes(), STRANGER, Instant::now()), "drop");
        assert_eq!(judge(&gate, bad.as_bytes(), PEER, Instant::now()), "400");
    }

    #[test]
    fn the_table_of_sources_is_bounded() {
        let gate = Gate::new(vec![]);
        let now = Instant::now();
        for n in 0..u32::try_from(2 * MAX_SOURCES).unwrap() {
            judge(&gate, INVITE, IpAddr::from(n.to_be_bytes()), now);
        }
        assert!(gate.buckets.lock().unwrap().len() <= MAX_SOURCES);
    }
}
