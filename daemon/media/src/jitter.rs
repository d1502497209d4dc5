//! Jitter buffer: turns packets that come when they come into one payload per ptime.
//!
//! ```text
//!            play                        newest
//!   ---------|o o o o o o o o|. . . . . .|o o o o o o o|----> timestamp (one octet each)
//!            ^ pop takes 160  ^ a hole: lost, or still on its way
//! ```
//!
//! For codecs of one octet per timestamp unit (G.711; G.722's payload too): octets lie in a ring by their
//! timestamp, so any ptime, padding of the last packet or change of ptime needs no special case.
//!
//! Packets are taken in just before each pop, so "arrived" means "was there at the tick". The delay adapts:
//!
//! - It starts at nothing: the first packet plays at the tick that finds it. On a clean line a packet waits
//!   for the next tick only.
//! - **Grow.** When the buffer runs dry the gap is concealed without moving on. If what then comes continues
//!   where play stopped, it was late, and everything is now that much later; if its timestamp is ahead, the gap
//!   was a loss (or the peer's silence) and play moves on in step. A packet that comes after its turn while
//!   newer ones were there (reordering) makes play wait one ptime.
//! - **Shrink.** When for 5 s every packet came at least a ptime early, one ptime is skipped, in silence if there is some.
//! - **Bound.** What waits never exceeds 120 ms beyond the playing frame: after a stall the oldest is skipped.
//!
//! Sources: RFC 3550 A.1 (sequence), A.8 (jitter estimate); the rest is ours.

use crate::rtp::{Packet, SeqNumber, timestamp_ahead};

/// Octets of one popped payload: 20 ms.
pub const FRAME_OCTETS: usize = 160;
const FRAME: i32 = FRAME_OCTETS as i32;
/// Timestamp units in a millisecond (8 kHz clock).
const UNITS_PER_MS: u64 = 8;
/// Octets in the ring: one second. A power of two, so that a timestamp's place survives its wrapping.
const RING: usize = 8192;
/// No octet here.
const HOLE: u16 = 0x100;
/// Largest delay beyond the frame being played \[units\]: 120 ms.
const MAX_DELAY: i32 = 960;
/// Largest distance of a packet from play that is still the same stream \[units\]: 500 ms.
const MAX_DISTANCE: i32 = 4000;
/// Pops in a row without a packet after which the stream counts as stopped: 200 ms.
const STOPPED_POPS: u32 = 10;
/// Pops over which earliness is watched before the delay shrinks: 5 s.
const SHRINK_POPS: u32 = 250;
/// Pops that a shrink waits for silence: 2 s.
const SHRINK_PATIENCE_POPS: u32 = 100;

/// What one pop gave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Popped {
    /// A whole payload.
    Frame,
    /// Should be here but is not: conceal.
    Lost,
    /// Nothing is being sent: play silence.
    Empty,
}

/// What happened to a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Inserted {
    /// Will be played.
    Kept,
    /// Came after its turn.
    Late,
    /// Was here before.
    Duplicate,
    /// Too long for the ring or empty.
    Refused,
}

/// Counters since the buffer was made.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Stats {
    /// Packets seen, all payload types \[packets\].
    pub packets: u64,
    /// Expected by sequence number but never seen \[packets\].
    pub lost: u64,
    /// Came after their turn \[packets\].
    pub late: u64,
    /// Came twice \[packets\].
    pub duplicates: u64,
    /// Frames the delay grew by \[frames\].
    pub grown: u64,
    /// Frames skipped to shrink the delay or after a stall \[frames\].
    pub skipped: u64,
    /// Interarrival jitter (RFC 3550 §6.4.1) \[ms\].
    pub jitter_ms: f32,
}

/// The buffer of one received stream. Allocates once.
pub struct JitterBuffer {
    ring: Box<[u16; RING]>,
    /// Timestamp of the next octet to play; none before the first packet and after a stop.
    play: Option<u32>,
    /// One past the newest octet.
    newest: u32,
    /// Units concealed since the buffer ran dry.
    starved: i32,
    starved_pops: u32,
    /// Frames that play must still wait because of reordering.
    grow: u8,
    /// Earliest arrival margin in this watch \[units\].
    earliest: i32,
    watched_pops: u32,
    /// Pops left to wait for silence with a shrink; none: no shrink due.
    shrink: Option<u32>,
    sequence: Sequence,
    /// Last packet's transit and the jitter estimate ×16 \[units\].
    transit: Option<i64>,
    jitter_16: i64,
    stats: Stats,
}

impl JitterBuffer {
    /// An empty buffer.
    #[must_use]
    pub fn new() -> JitterBuffer {
        JitterBuffer {
            ring: Box::new([HOLE; RING]),
            play: None,
            newest: 0,
            starved: 0,
            starved_pops: 0,
            grow: 0,
            earliest: i32::MAX,
            watched_pops: 0,
            shrink: None,
            sequence: Sequence::default(),
            transit: None,
            jitter_16: 0,
            stats: Stats::default(),
        }
    }

    /// Forgets the stream, keeps the counters: for a new SSRC or a new codec.
    pub fn reset(&mut self) {
        self.ring.fill(HOLE);
        self.play = None;
        self.starved = 0;
        self.starved_pops = 0;
        self.grow = 0;
        self.earliest = i32::MAX;
        self.watched_pops = 0;
        self.shrink = None;
        self.sequence = Sequence {
            lost_before: self.sequence.lost(),
            ..Sequence::default()
        };
        self.transit = None;
    }

    /// Counts a packet that carries no sound (a telephone-event) but uses up a sequence number.
    /// `false`: it was here before.
    pub fn account(&mut self, seq: SeqNumber) -> bool {
        self.stats.packets += 1;
        let fresh = self.sequence.handle(seq);
        self.stats.duplicates += u64::from(!fresh);
        fresh
    }

    /// Takes a packet that arrived at `now_us` (any steady clock) \[µs\].
    pub fn insert(&mut self, packet: &Packet<'_>, now_us: u64) -> Inserted {
        if !self.account(packet.header.seq) {
            return Inserted::Duplicate;
        }
        let length = packet.payload.len();
        if length == 0 || length > MAX_DISTANCE as usize {
            return Inserted::Refused;
        }
        let timestamp = packet.header.timestamp;
        self.measure_jitter(timestamp, now_us);
        let play = match self.play {
            Some(play) if timestamp_ahead(timestamp, play).abs() <= MAX_DISTANCE => play,
            Some(_) | None => self.start(timestamp),
        };
        let early = timestamp_ahead(timestamp, play);
        if early + length as i32 <= 0 {
            self.stats.late += 1;
            if early >= -MAX_DELAY && self.starved == 0 {
                self.grow = 1;
            }
            return Inserted::Late;
        }
        if self.starved == 0 {
            self.earliest = self.earliest.min(early);
        }
        for (n, &octet) in (0u32..).zip(packet.payload) {
            let at = timestamp.wrapping_add(n);
            if timestamp_ahead(at, play) >= 0 {
                self.ring[place(at)] = u16::from(octet);
            }
        }
        let end = timestamp.wrapping_add(length as u32);
        if timestamp_ahead(end, self.newest) > 0 {
            self.newest = end;
        }
        Inserted::Kept
    }

    /// Takes the payload for one ptime into `out` (untouched unless [`Popped::Frame`]). Call once per tick, after
    /// what arrived was inserted; `quiet` says that the last frame was silent, a good moment to skip one.
    pub fn pop(&mut self, out: &mut [u8; FRAME_OCTETS], quiet: bool) -> Popped {
        let Some(play) = self.play else {
            return Popped::Empty;
        };
        if timestamp_ahead(self.newest, play) < FRAME {
            return self.starve();
        }
        let play = self.settle(play);
        if timestamp_ahead(self.newest, play) < FRAME {
            self.play = Some(play);
            return self.starve();
        }
        self.starved_pops = 0;
        let play = self.bound(play);
        if self.grow > 0 && timestamp_ahead(self.newest, play) + FRAME <= MAX_DELAY {
            self.grow -= 1;
            self.stats.grown += 1;
            self.restart_watch();
            self.play = Some(play);
            return Popped::Lost;
        }
        self.grow = 0;
        let play = self.shrunk(play, quiet);
        let whole = self.take(play, out);
        self.play = Some(play.wrapping_add(FRAME as u32));
        if whole { Popped::Frame } else { Popped::Lost }
    }

    /// What waits to be played \[ms\].
    #[must_use]
    pub fn depth_ms(&self) -> u32 {
        let depth = self.play.map_or(0, |play| timestamp_ahead(self.newest, play));
        (depth.max(0) as u64 / UNITS_PER_MS) as u32
    }

    /// The counters.
    #[must_use]
    pub fn stats(&self) -> Stats {
        let jitter_ms = self.jitter_16 as f32 / 16.0 / UNITS_PER_MS as f32;
        Stats {
            lost: self.sequence.lost(),
            jitter_ms,
            ..self.stats
        }
    }

    fn start(&mut self, timestamp: u32) -> u32 {
        self.ring.fill(HOLE);
        self.play = Some(timestamp);
        self.newest = timestamp;
        self.starved = 0;
        self.starved_pops = 0;
        self.grow = 0;
        self.restart_watch();
        timestamp
    }

    /// Nothing (or not enough) to play: conceal, and wait where we are.
    fn starve(&mut self) -> Popped {
        self.starved = (self.starved + FRAME).min(RING as i32);
        self.starved_pops += 1;
        self.restart_watch();
        if self.starved_pops > STOPPED_POPS {
            Popped::Empty
        } else {
            Popped::Lost
        }
    }

    /// After starving: was what is here now late, or was there a gap in the stream?
    fn settle(&mut self, play: u32) -> u32 {
        if self.starved == 0 {
            return play;
        }
        let gap = timestamp_ahead(self.newest, play).max(0);
        let first = (0..gap)
            .find(|&n| self.ring[place(play.wrapping_add(n as u32))] != HOLE)
            .unwrap_or(gap);
        // In step with the peer's clock, unless that would skip what has come.
        let forward = first.min(self.starved);
        // A stream that had stopped did not become later by starting again.
        if self.starved_pops <= STOPPED_POPS {
            self.stats.grown += ((self.starved - forward) / FRAME) as u64;
        }
        self.starved = 0;
        play.wrapping_add(forward as u32)
    }

    /// Skips what is beyond the largest delay.
    fn bound(&mut self, play: u32) -> u32 {
        let excess = timestamp_ahead(self.newest, play) - FRAME - MAX_DELAY;
        if excess <= 0 {
            return play;
        }
        // Down to one frame in hand, at once: a stall of the network is over and its backlog is old.
        let skip = excess + MAX_DELAY - FRAME;
        self.stats.skipped += (skip / FRAME) as u64;
        self.restart_watch();
        self.clear(play, skip)
    }

    fn shrunk(&mut self, play: u32, quiet: bool) -> u32 {
        self.watched_pops += 1;
        if self.watched_pops >= SHRINK_POPS && self.shrink.is_none() {
            if self.earliest != i32::MAX && self.earliest >= FRAME {
                self.shrink = Some(SHRINK_PATIENCE_POPS);
            } else {
                self.restart_watch();
            }
        }
        let Some(patience) = self.shrink else {
            return play;
        };
        if !quiet && patience > 0 {
            self.shrink = Some(patience - 1);
            return play;
        }
        // Something made it late meanwhile, or too little is left: not now.
        let possible = self.earliest >= FRAME && timestamp_ahead(self.newest, play) >= 2 * FRAME;
        self.restart_watch();
        if !possible {
            return play;
        }
        self.stats.skipped += 1;
        self.clear(play, FRAME)
    }

    fn restart_watch(&mut self) {
        self.earliest = i32::MAX;
        self.watched_pops = 0;
        self.shrink = None;
    }

    /// Empties `count` places from `play` on; returns what follows them.
    fn clear(&mut self, play: u32, count: i32) -> u32 {
        for n in 0..count.clamp(0, RING as i32) as u32 {
            self.ring[place(play.wrapping_add(n))] = HOLE;
        }
        play.wrapping_add(count as u32)
    }

    /// Copies a frame out and empties its places; `false` when there was a hole.
    fn take(&mut self, play: u32, out: &mut [u8; FRAME_OCTETS]) -> bool {
        let mut octets = [0u8; FRAME_OCTETS];
        let mut whole = true;
        for (n, octet) in (0u32..).zip(&mut octets) {
            let entry = std::mem::replace(&mut self.ring[place(play.wrapping_add(n))], HOLE);
            whole &= entry != HOLE;
            *octet = entry as u8;
        }
        if whole {
            *out = octets;
        }
        whole
    }

    fn measure_jitter(&mut self, timestamp: u32, now_us: u64) {
        let arrival = now_us.wrapping_mul(UNITS_PER_MS) / 1000;
        // Modulo 2^32, like the timestamp.
        let transit = i64::from((arrival as u32).wrapping_sub(timestamp));
        if let Some(last) = self.transit.replace(transit) {
            let difference = i64::from((transit as u32).wrapping_sub(last as u32) as i32).abs();
            // A new talkspurt with another clock says nothing about the network.
            if difference < i64::from(MAX_DISTANCE) {
                self.jitter_16 += difference - (self.jitter_16 + 8) / 16;
            }
        }
    }
}

impl Default for JitterBuffer {
    fn default() -> Self {
        JitterBuffer::new()
    }
}

fn place(timestamp: u32) -> usize {
    timestamp as usize % RING
}

/// Sequence numbers seen: finds duplicates among the last 64 and counts what is missing.
#[derive(Clone, Copy, Default)]
struct Sequence {
    highest: Option<SeqNumber>,
    /// Bit n: `highest - n` was seen.
    seen: u64,
    expected: u64,
    received: u64,
    /// Lost before the last reset.
    lost_before: u64,
}

impl Sequence {
    fn handle(&mut self, seq: SeqNumber) -> bool {
        let Some(highest) = self.highest else {
            *self = Sequence {
                highest: Some(seq),
                seen: 1,
                expected: 1,
                received: 1,
                ..*self
            };
            return true;
        };
        match seq.ahead_of(highest) {
            // RFC 3550 A.1: a jump of more than that is a restart of the sender, not a loss.
            ahead @ 1..=3000 => {
                self.highest = Some(seq);
                self.seen = self.seen.checked_shl(ahead as u32).unwrap_or(0) | 1;
                self.expected += ahead as u64;
                self.received += 1;
                true
            }
            behind @ -63..=0 => {
                let bit = 1u64 << -behind;
                let fresh = self.seen & bit == 0;
                self.seen |= bit;
                self.received += u64::from(fresh);
                fresh
            }
            // Very late, nothing to learn from it; the timestamp decides whether it is of use.
            -3000..=-64 => true,
            _ => {
                let lost_before = self.lost();
                *self = Sequence {
                    highest: Some(seq),
                    seen: 1,
                    expected: 1,
                    received: 1,
                    lost_before,
                };
                true
            }
        }
    }

    fn lost(&self) -> u64 {
        self.lost_before + self.expected.saturating_sub(self.received)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rtp::Header;
    use proptest::prelude::*;

    /// A line on which packet `n` carries 160 octets of the value `n`, from a timestamp that wraps.
    struct Line {
        buffer: JitterBuffer,
        tick: u64,
    }

    const START: u32 = u32::MAX - 1000;

    impl Line {
        fn new() -> Line {
            Line {
                buffer: JitterBuffer::new(),
                tick: 0,
            }
        }

        fn arrive(&mut self, n: u32) -> Inserted {
            let payload = [n as u8; 160];
            let timestamp = START.wrapping_add(n * 160);
            let seq = SeqNumber(65_530u16.wrapping_add(n as u16));
            let header = Header {
                marker: false,
                payload_type: 0,
                seq,
                timestamp,
                ssrc: 1,
            };
            self.buffer.insert(
                &Packet {
                    header,
                    payload: &payload,
                },
                self.tick * 20_000,
            )
        }

        /// `Some(n)` when packet n played, `None` when concealed.
        fn pop(&mut self) -> Option<u8> {
            self.tick += 1;
            let mut out = [0; FRAME_OCTETS];
            (self.buffer.pop(&mut out, false) == Popped::Frame).then(|| out[0])
        }

        /// Runs ticks; `arrivals(tick)` says which packets come before it.
        fn run(&mut self, ticks: u32, arrivals: impl Fn(u32) -> Vec<u32>) -> Vec<Option<u8>> {
            (0..ticks)
                .map(|tick| {
                    for n in arrivals(tick) {
                        self.arrive(n);
                    }
                    self.pop()
                })
                .collect()
        }
    }

    #[test]
    fn a_clean_line_waits_for_the_tick_only() {
        let mut line = Line::new();
        let heard = line.run(200, |tick| vec![tick]);
        assert!(heard.iter().enumerate().all(|(n, &x)| x == Some(n as u8)));
        assert_eq!(line.buffer.depth_ms(), 0);
        assert_eq!(
            line.buffer.stats(),
            Stats {
                packets: 200,
                ..Stats::default()
            }
        );
    }

    #[test]
    fn a_lost_packet_is_one_concealed_frame() {
        let mut line = Line::new();
        let heard = line.run(20, |tick| {
            if tick == 5 || tick == 9 {
                vec![]
            } else {
                vec![tick]
            }
        });
        for (n, &x) in heard.iter().enumerate() {
            assert_eq!(x, (n != 5 && n != 9).then_some(n as u8), "tick {n}");
        }
        let stats = line.buffer.stats();
        assert_eq!((stats.lost, stats.grown, stats.late), (2, 0, 0));
    }

    #[test]
    fn late_packets_make_it_grow_once() {
        let mut line = Line::new();
        // Every third packet is a tick late.
        let heard = line.run(60, |tick| match tick % 3 {
            0 => vec![tick],
            1 => vec![],
            _ => vec![tick - 1, tick],
        });
        assert_eq!(heard.iter().filter(|x| x.is_none()).count(), 1);
        let played: Vec<u8> = heard.into_iter().flatten().collect();
        assert!(played.windows(2).all(|w| w[1] == w[0] + 1));
        assert_eq!(line.buffer.stats().grown, 1);
    }

    #[test]
    fn reordering_makes_it_grow() {
        let mut line = Line::new();
        let heard = line.run(60, |tick| match tick % 4 {
            1 => vec![tick + 1],
            2 => vec![tick - 1],
            _ => vec![tick],
        });
        assert!(heard[10..].iter().all(Option::is_some), "{heard:?}");
        assert!(line.buffer.stats().late >= 1);
    }

    #[test]
    fn shrinks_when_the_line_calms_down() {
        let mut line = Line::new();
        line.run(3, |tick| {
            if tick == 1 {
                vec![]
            } else {
                vec![tick.saturating_sub(1), tick]
            }
        });
        assert_eq!(line.buffer.depth_ms(), 20);
        for n in 3..500 {
            line.arrive(n);
            line.pop();
        }
        assert_eq!(line.buffer.depth_ms(), 0);
        assert_eq!(line.buffer.stats().skipped, 1);
    }

    #[test]
    fn a_stall_does_not_leave_a_delay() {
        let mut line = Line::new();
        line.run(10, |tick| vec![tick]);
        for _ in 0..20 {
            line.pop();
        }
        (10..31).for_each(|n| {
            line.arrive(n);
        });
        line.pop();
        assert!(line.buffer.depth_ms() <= 140, "{}", line.buffer.depth_ms());
    }

    #[test]
    fn silence_suppression_keeps_step() {
        let mut line = Line::new();
        line.run(10, |tick| vec![tick]);
        // The peer is silent for 300 ms; its clock runs on.
        let heard: Vec<_> = (0..15).map(|_| line.pop()).collect();
        assert!(heard.iter().all(Option::is_none));
        line.arrive(25);
        assert_eq!(line.pop(), Some(25));
        assert_eq!(line.buffer.depth_ms(), 0);
    }

    #[test]
    fn a_new_clock_starts_afresh() {
        let mut line = Line::new();
        line.run(10, |tick| vec![tick]);
        line.arrive(100_000);
        assert_eq!(line.pop(), Some(100_000u32 as u8));
    }

    #[test]
    fn other_ptimes() {
        for (case, octets) in [("10 ms", 80usize), ("30 ms", 240), ("40 ms", 320), ("60 ms", 480)] {
            let mut buffer = JitterBuffer::new();
            let mut sent = 0usize;
            let mut seq = 0u16;
            let mut whole = 0;
            let mut next = 0u8;
            for tick in 1..=100usize {
                while (sent + octets) <= tick * 160 {
                    let payload: Vec<u8> = (sent..sent + octets).map(|at| (at / 160) as u8).collect();
                    let header = Header {
                        marker: false,
                        payload_type: 0,
                        seq: SeqNumber(seq),
                        timestamp: sent as u32,
                        ssrc: 1,
                    };
                    buffer.insert(
                        &Packet {
                            header,
                            payload: &payload,
                        },
                        tick as u64 * 20_000,
                    );
                    sent += octets;
                    seq += 1;
                }
                let mut out = [0; 160];
                if buffer.pop(&mut out, true) == Popped::Frame {
                    assert_eq!(out, [next; 160], "{case}");
                    next += 1;
                    whole += 1;
                }
            }
            assert!(whole >= 95, "{case}: {whole}");
        }
    }

    proptest! {
        /// Whatever the network does, what plays comes in order, each once, and the delay stays bounded.
        #[test]
        fn keeps_order(delays in proptest::collection::vec(0u32..9, 200), lost in proptest::collection::vec(0u8..10, 200), twice in 0usize..200) {
            let mut line = Line::new();
            let mut played = Vec::new();
            for tick in 0..220u32 {
                for n in 0..200usize {
                    let here = n as u32 + delays[n] == tick && lost[n] != 0;
                    if here {
                        line.arrive(n as u32);
                        if n == twice {
                            prop_assert_eq!(line.arrive(n as u32), Inserted::Duplicate);
                        }
                    }
                }
                played.extend(line.pop());
                prop_assert!(line.buffer.depth_ms() <= 140);
            }
            prop_assert!(played.windows(2).all(|w| w[0] < w[1]), "{played:?}");
        }

        #[test]
        fn random_packets_never_panic(packets in proptest::collection::vec((any::<u16>(), any::<u32>(), 0usize..700, any::<u64>()), 0..60)) {
            let mut buffer = JitterBuffer::new();
            let payload = [1u8; 700];
            let mut out = [0; 160];
            for (seq, timestamp, length, now) in packets {
                let header = Header { marker: false, payload_type: 0, seq: SeqNumber(seq), timestamp, ssrc: 0 };
                buffer.insert(&Packet { header, payload: &payload[..length] }, now / 1000);
                buffer.pop(&mut out, seq % 2 == 0);
            }
        }
    }
}
