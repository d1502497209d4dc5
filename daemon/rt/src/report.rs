//! Reports of one leg: when ours go out, what the peer's say. Source: RFC 3550 §6.
//!
//! ```text
//! start --2.5 s, then every 2.5 to 7.5 s--> SR (we sent) or RR (we only hear), SDES --end--> BYE
//! the peer's: what it lost of ours, its jitter; round trip = now - our SR's instant - how long it kept it
//! ```
//!
//! The NTP instants are the monotonic clock's: they serve the round trip, not the time of day, and tell nobody how
//! wrong our clock is (§4 allows any steady clock).

use crate::stats::{LegShared, PeerReport, bump};
use attendant_media::playout::Playout;
use attendant_media::rtcp::{Block, CNAME_OCTETS, MAX_OCTETS, Received, Report, SenderInfo};
use attendant_media::srtp::{MAX_OVERHEAD_OCTETS, Sealer};
use attendant_media::stream::Rtcp;
use std::net::{SocketAddr, UdpSocket};

/// Mean distance of our reports \[µs\] (§6.2: 5 s, spread by half either way so that nobody beats in time).
const INTERVAL_US: u64 = 5_000_000;
/// Longest round trip that is believed \[1/65536 s\]: 10 s.
const MAX_ROUND_TRIP: u32 = 10 << 16;

/// What the transmitter knows for a sender report.
#[derive(Clone, Copy, Debug)]
pub struct Sent {
    /// Our stream.
    pub ssrc: u32,
    /// RTP instant of this tick.
    pub timestamp: u32,
    /// Packets sent.
    pub packets: u32,
    /// Octets of payload sent.
    pub octets: u32,
}

/// The parts of a leg that a report speaks of and goes through.
pub struct Surroundings<'a> {
    pub rtp_socket: &'a UdpSocket,
    pub rtcp_socket: Option<&'a UdpSocket>,
    /// Where our RTP goes.
    pub rtp_peer: SocketAddr,
    pub sent: Sent,
    /// The peer's stream that is heard.
    pub ssrc: Option<u32>,
    pub playout: &'a mut Playout,
    pub sealer: Option<&'a mut Sealer>,
    pub shared: &'a LegShared,
    pub now_us: u64,
}

/// Both directions' reports.
pub struct Reporter {
    cname: [u8; CNAME_OCTETS],
    carried: Rtcp,
    /// Where reports came from, if not from where SDP says (NAT).
    latched: Option<SocketAddr>,
    ssrc: u32,
    /// When ours is due; none before the first tick.
    next_us: Option<u64>,
    seed: u64,
    /// Packets sent as of the last report: more now makes it a sender report.
    packets: u32,
    /// The peer's last sender report: its stream, the middle of its instant, when it came \[µs\].
    last_sr: Option<(u32, u32, u64)>,
    /// Anything was ever reported: there is somebody to say goodbye to.
    reported: bool,
    /// The loss the peer reports \[%\], once after each report.
    loss_percent: Option<u8>,
}

impl Reporter {
    pub fn new(carried: Rtcp, ssrc: u32, seed: u64) -> Reporter {
        let mut cname = [0; CNAME_OCTETS];
        let mut random = seed;
        for octet in &mut cname {
            let nibble = (next(&mut random) >> 32) as u8 & 0x0f;
            *octet = if nibble < 10 {
                b'0' + nibble
            } else {
                b'a' + nibble - 10
            };
        }
        Reporter {
            cname,
            carried,
            latched: None,
            ssrc,
            next_us: None,
            seed: random,
            packets: 0,
            last_sr: None,
            reported: false,
            loss_percent: None,
        }
    }

    /// SDP changed where reports go.
    pub fn set_carried(&mut self, carried: Rtcp) {
        if carried != self.carried {
            self.carried = carried;
            self.latched = None;
        }
    }

    /// Our stream, of which the peer reports.
    pub fn ssrc(&self) -> u32 {
        self.ssrc
    }

    /// Whether reports from there are the peer's: from its host, by SDP or by where its RTP comes from.
    pub fn is_peer(&self, from: SocketAddr, rtp_peer: SocketAddr) -> bool {
        let host = |address: SocketAddr| address.ip().to_canonical();
        let agreed = match self.carried {
            Rtcp::Mux => false,
            Rtcp::Port(address) => host(address) == host(from),
        };
        agreed || host(rtp_peer) == host(from)
    }

    /// The peer reported.
    pub fn handle(&mut self, received: &Received, from: SocketAddr, shared: &LegShared, now_us: u64) {
        self.latched = Some(from);
        if let Some((ssrc, middle)) = received.sender {
            self.last_sr = Some((ssrc, middle, now_us));
        }
        let Some(block) = received.block else {
            return;
        };
        let round_trip = middle(ntp(now_us))
            .wrapping_sub(block.last_sr)
            .wrapping_sub(block.delay);
        let round_trip = (block.last_sr != 0 && round_trip < MAX_ROUND_TRIP).then_some(round_trip);
        self.loss_percent = Some((u16::from(block.fraction_lost) * 100 / 256) as u8);
        shared.note_peer_report(&PeerReport {
            reports: 1,
            lost: block.lost.max(0) as u32,
            fraction_lost: block.fraction_lost,
            jitter_units: block.jitter,
            round_trip_ms: round_trip.map(|units| ((u64::from(units) * 1000) >> 16) as u32),
        });
    }

    /// The loss of ours that the peer reported \[%\], once.
    pub fn take_loss(&mut self) -> Option<u8> {
        self.loss_percent.take()
    }

    /// Sends a report when it is time.
    pub fn poll(&mut self, leg: Surroundings<'_>) {
        let due_us = *self.next_us.get_or_insert(leg.now_us + INTERVAL_US / 2);
        if leg.now_us >= due_us {
            let spread = next(&mut self.seed) % INTERVAL_US;
            self.next_us = Some(leg.now_us + INTERVAL_US / 2 + spread);
            self.send(leg, false);
        }
    }

    /// Says goodbye, if the peer ever got a report.
    pub fn goodbye(&mut self, leg: Surroundings<'_>) {
        // §6.3.7: who never sent anything must not say goodbye.
        if leg.sent.packets > 0 && std::mem::take(&mut self.reported) {
            self.send(leg, true);
        }
    }

    fn send(&mut self, leg: Surroundings<'_>, goodbye: bool) {
        let (socket, to) = match (self.carried, leg.rtcp_socket) {
            (Rtcp::Mux, _) => (leg.rtp_socket, leg.rtp_peer),
            (Rtcp::Port(address), Some(socket)) => (socket, self.latched.unwrap_or(address)),
            (Rtcp::Port(_), None) => return,
        };
        if to.port() == 0 || to.ip().is_unspecified() {
            return;
        }
        let sent = leg.sent;
        self.ssrc = sent.ssrc;
        let sending = std::mem::replace(&mut self.packets, sent.packets) != sent.packets;
        let block = leg
            .ssrc
            .and_then(|ssrc| self.block(ssrc, leg.playout, leg.now_us));
        let report = Report {
            ssrc: sent.ssrc,
            sender: sending.then_some(SenderInfo {
                ntp: ntp(leg.now_us),
                timestamp: sent.timestamp,
                packets: sent.packets,
                octets: sent.octets,
            }),
            block,
            cname: &self.cname,
            goodbye,
        };
        let mut wire = [0; MAX_OCTETS + MAX_OVERHEAD_OCTETS];
        let octets = report.write(&mut wire).and_then(|octets| match leg.sealer {
            Some(sealer) => sealer.seal_rtcp(&mut wire, octets),
            None => Ok(octets),
        });
        let packet = octets.ok().and_then(|octets| wire.get(..octets));
        match packet.map(|packet| socket.send_to(packet, to)) {
            Some(Ok(_)) => {
                self.reported = true;
                bump(&leg.shared.tx_reports);
            }
            Some(Err(_)) | None => bump(&leg.shared.tx_errors),
        }
    }

    fn block(&self, ssrc: u32, playout: &mut Playout, now_us: u64) -> Option<Block> {
        let loss = playout.report()?;
        let heard = self.last_sr.filter(|(of, _, _)| *of == ssrc);
        let (last_sr, delay) = heard.map_or((0, 0), |(_, last_sr, at)| {
            (last_sr, middle(ntp(now_us.saturating_sub(at))))
        });
        let jitter = playout.stats().jitter_ms * playout.codec().rtp_clock_hz() as f32 / 1000.0;
        Some(Block {
            ssrc,
            fraction_lost: loss.fraction_lost,
            lost: loss.lost as i32,
            highest: loss.highest,
            jitter: jitter as u32,
            last_sr,
            delay,
        })
    }
}

/// Microseconds as seconds in the upper and 2^-32 seconds in the lower half.
fn ntp(us: u64) -> u64 {
    ((us / 1_000_000) << 32) | (((us % 1_000_000) << 32) / 1_000_000)
}

/// The 32 bits in the middle: 1/65536 s.
fn middle(ntp: u64) -> u32 {
    (ntp >> 16) as u32
}

/// SplitMix64: each call a new number.
fn next(seed: &mut u64) -> u64 {
    *seed = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *seed;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instants_are_fixed_point() {
        assert_eq!(middle(ntp(1_500_000)), 0x1_8000);
        assert_eq!(ntp(2_000_000), 2 << 32);
    }

    #[test]
    fn names_differ_and_say_nothing() {
        let at = Rtcp::Mux;
        let a = Reporter::new(at, 1, 1).cname;
        let b = Reporter::new(at, 1, 2).cname;
        assert_ne!(a, b);
        assert!(a.iter().all(u8::is_ascii_hexdigit));
    }
}
