//! Whose packets count, and where ours go: symmetric RTP (RFC 4961) with protection against strangers.
//!
//! ```text
//!            first valid packet                   latched source silent for 500 ms and
//!  Expecting ------------------> Latched(source)  ten valid packets in a row from another: latch on it
//!            the address in SDP always wins over a stranger that was faster
//! ```
//!
//! A live stream cannot be taken over: while the latched source sends, all others are only counted.

use std::net::SocketAddr;

/// Silence of the latched source after which another may take its place \[µs\].
const SILENT_US: u64 = 500_000;
/// Valid packets in a row that another source must show: 200 ms.
const SUSTAINED_PACKETS: u32 = 10;

/// Decides by source address.
#[derive(Clone, Debug)]
pub struct SourceFilter {
    /// From SDP.
    remote: SocketAddr,
    symmetric: bool,
    latched: Option<SocketAddr>,
    last_us: u64,
    candidate: Option<SocketAddr>,
    seen: u32,
}

impl SourceFilter {
    pub fn new(remote: SocketAddr, symmetric: bool) -> SourceFilter {
        SourceFilter {
            remote,
            symmetric,
            latched: None,
            last_us: 0,
            candidate: None,
            seen: 0,
        }
    }

    /// Where to send.
    pub fn destination(&self) -> SocketAddr {
        self.latched.unwrap_or(self.remote)
    }

    /// SDP changed the address: what is latched stays only if it is the same peer's.
    pub fn set_remote(&mut self, remote: SocketAddr) {
        if !same(remote, self.remote) {
            self.latched = None;
        }
        self.remote = remote;
        self.candidate = None;
    }

    /// Whether a valid packet from `source` is the peer's.
    pub fn accept(&mut self, source: SocketAddr, now_us: u64) -> bool {
        if !self.symmetric {
            return source.ip().to_canonical() == self.remote.ip().to_canonical();
        }
        let Some(latched) = self.latched else {
            return self.latch(source, now_us);
        };
        if same(source, latched) {
            self.last_us = now_us;
            self.candidate = None;
            return true;
        }
        // Somebody was quicker than the peer: the address that was agreed on wins.
        if same(source, self.remote) {
            return self.latch(source, now_us);
        }
        if self.candidate.is_some_and(|candidate| same(candidate, source)) {
            self.seen = self.seen.saturating_add(1);
        } else {
            self.candidate = Some(source);
            self.seen = 1;
        }
        let silent = now_us.saturating_sub(self.last_us) >= SILENT_US;
        if silent && self.seen >= SUSTAINED_PACKETS {
            self.latch(source, now_us)
        } else {
            false
        }
    }

    fn latch(&mut self, source: SocketAddr, now_us: u64) -> bool {
        self.latched = Some(source);
        self.last_us = now_us;
        self.candidate = None;
        true
    }
}

/// Equal, with IPv4 addresses seen through an IPv6 socket taken as what they are.
fn same(a: SocketAddr, b: SocketAddr) -> bool {
    a.port() == b.port() && a.ip().to_canonical() == b.ip().to_canonical()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addr(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    #[test]
    fn latches_behind_nat_and_answers_there() {
        let mut filter = SourceFilter::new(addr("10.0.0.1:4000"), true);
        assert_eq!(filter.destination(), addr("10.0.0.1:4000"));
        assert!(filter.accept(addr("192.0.2.7:55000"), 0));
        assert_eq!(filter.destination(), addr("192.0.2.7:55000"));
    }

    #[test]
    fn a_live_stream_cannot_be_taken_over() {
        let (peer, stranger) = (addr("10.0.0.1:4000"), addr("198.51.100.1:9"));
        let mut filter = SourceFilter::new(peer, true);
        for tick in 0..500 {
            assert!(filter.accept(peer, tick * 20_000));
            assert!(!filter.accept(stranger, tick * 20_000 + 5));
        }
        assert_eq!(filter.destination(), peer);
    }

    #[test]
    fn a_sustained_change_is_followed() {
        let (old, new) = (addr("10.0.0.1:4000"), addr("10.0.0.1:4002"));
        let mut filter = SourceFilter::new(old, true);
        assert!(filter.accept(old, 0));
        let heard = (1..100u64).find(|tick| filter.accept(new, tick * 20_000));
        assert_eq!(heard, Some(25));
        assert_eq!(filter.destination(), new);
    }

    #[test]
    fn the_agreed_address_wins_over_a_faster_stranger() {
        let mut filter = SourceFilter::new(addr("10.0.0.1:4000"), true);
        assert!(filter.accept(addr("198.51.100.1:9"), 0));
        assert!(filter.accept(addr("10.0.0.1:4000"), 20_000));
        assert!(!filter.accept(addr("198.51.100.1:9"), 30_000));
    }

    #[test]
    fn without_symmetry_the_host_decides() {
        let mut filter = SourceFilter::new(addr("10.0.0.1:4000"), false);
        assert!(filter.accept(addr("10.0.0.1:4444"), 0));
        assert!(filter.accept(addr("[::ffff:10.0.0.1]:4000"), 0));
        assert!(!filter.accept(addr("10.0.0.2:4000"), 0));
        assert_eq!(filter.destination(), addr("10.0.0.1:4000"));
    }
}
