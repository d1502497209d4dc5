//! Jitter buffer: turns packets that come when they come into one ptime of payload per tick.
//!
//! ```text
//!            play                        newest
//!   ---------|o o o o o o o o|. . . . . .|o o o o o o o|----> timestamp, in units of 1/8000 s
//!            ^ pop takes 160  ^ a hole: lost, or still on its way
//! ```
//!
//! Units lie in a ring by their timestamp, so any ptime, padding of the last packet or change of ptime needs no
//! special case. For codecs of one octet per unit (G.711, G.722) a place holds the octet; for Opus, whose packets
//! are decoded as a whole, it holds the number of the packet, which is kept beside the ring.
//!
//! Packets are taken in just before each pop, so "arrived" means "was there at the tick". The delay adapts:
//!
//! - It starts at nothing: the first packet plays at the tick that finds it. On a clean line a packet waits
//!   for the next tick only.
//! - **Grow.** When the buffer runs dry the gap is concealed without moving on. If what then comes continues
//!   where play stopped, it was late, and everything is now that much later; if its timestamp is ahead, the gap
//!   was a loss (or the peer's silence) and play moves on in step. A packet that comes after its turn while
//!   newer ones were there (reordering) makes play wait one ptime.
//! - **Spare.** Once something of an Opus stream was lost, play stays a packet behind for 30 s, so that the copy of
//!   a lost packet which the next one carries (in-band FEC) is there when it is needed.
//! - **Shrink.** When for 5 s every packet came at least a ptime early, one ptime is skipped, in silence if there is some.
//! - **Bound.** What waits never exceeds 120 ms beyond the playing packet: after a stall the oldest is skipped.
//! - **Silence.** A jump of the timestamp over which no sequence number is missing is the peer's silence, no loss
//!   (RFC 3551 §4.1). After it play starts with the delay that was needed before.
//!
//! Sources: RFC 3550 A.8 (jitter estimate); the rest is ours.

use crate::codec::{Codec, FRAME_OCTETS};
use crate::opus;
use crate::rtp::{Packet, SeqNumber, timestamp_ahead};
use crate::sequence::{LossReport, Sequence};

/// Units of one pop: 20 ms.
pub const FRAME_UNITS: usize = FRAME_OCTETS;
const FRAME: i32 = FRAME_UNITS as i32;
/// Units in a millisecond.
const UNITS_PER_MS: u64 = 8;
/// Units in the ring: one second. A power of two, so that a timestamp's place survives its wrapping.
const RING: usize = 8192;
/// Nothing here.
const HOLE: u16 = 0x100;
/// The peer sent nothing here on purpose.
pub const QUIET: u16 = 0x101;
/// Largest delay beyond the packet being played \[units\]: 120 ms.
const MAX_DELAY: i32 = 960;
/// Largest distance of a packet from play that is still the same stream \[units\]: 500 ms.
const MAX_DISTANCE: i32 = 4000;
/// Longest packet taken \[units\]: 120 ms.
const MAX_PACKET: usize = 960;
/// Pops in a row without a packet after which the stream counts as stopped: 200 ms.
const STOPPED_POPS: u32 = 10;
/// Pops over which earliness is watched before the delay shrinks: 5 s.
const SHRINK_POPS: u32 = 250;
/// Pops that a shrink waits for silence: 2 s.
const SHRINK_PATIENCE_POPS: u32 = 100;
/// Pops for which play stays a packet behind after a loss: 30 s.
const SPARE_POPS: u32 = 1500;
/// Most frames of delay that outlast a silence.
const MAX_LEVEL: u32 = 6;
/// Opus packets kept: 320 ms of the shortest.
const SLOTS: usize = 32;

/// What one pop gave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Popped {
    /// A whole ptime, beginning with this unit.
    Frame(u32),
    /// A part of the ptime that begins with this unit is lost: conceal.
    Hole(u32),
    /// Nothing has come in time; play stands still: conceal.
    Dry,
    /// The peer is silent on purpose: play silence or its comfort noise.
    Quiet,
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
    /// Too long, empty, or not of the codec.
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
    /// Frames made up for what was lost or late; the peer's silence does not count \[frames\].
    pub concealed: u64,
    /// Frames the delay grew by \[frames\].
    pub grown: u64,
    /// Frames skipped to shrink the delay or after a stall \[frames\].
    pub skipped: u64,
    /// Interarrival jitter (RFC 3550 §6.4.1) \[ms\].
    pub jitter_ms: f32,
}

/// One Opus packet.
#[derive(Clone)]
struct Slot {
    /// Where it begins and how much it covers \[units\].
    start: u32,
    units: i32,
    octets: usize,
    data: [u8; opus::MAX_PACKET_OCTETS],
}

/// The buffer of one received stream. Allocates once.
pub struct JitterBuffer {
    codec: Codec,
    ring: Box<[u16]>,
    slots: Box<[Slot]>,
    next_slot: usize,
    clock: Clock,
    /// Timestamp of the next unit to play; none before the first packet.
    play: Option<u32>,
    /// One past the newest unit.
    newest: u32,
    /// Length of the newest packet \[units\].
    packet: i32,
    /// Lost so far when the newest packet came: unchanged at the next, the two follow each other.
    lost_at_newest: u64,
    /// The peer has said that it will be silent.
    silent: bool,
    /// Units waited since the buffer ran dry; pops of it without word from the peer, and those that were concealed.
    starved: i32,
    starved_pops: u32,
    starved_concealed: u64,
    /// Frames that play must still wait because of reordering.
    grow: u8,
    /// Delay in use \[frames\], and what is left to wait of it after a silence.
    level: u32,
    wait: u32,
    spare_pops: u32,
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
    pub fn new(codec: Codec) -> JitterBuffer {
        let slot = Slot {
            start: 0,
            units: 0,
            octets: 0,
            data: [0; opus::MAX_PACKET_OCTETS],
        };
        JitterBuffer {
            codec,
            ring: vec![HOLE; RING].into_boxed_slice(),
            slots: vec![slot; SLOTS].into_boxed_slice(),
            next_slot: 0,
            clock: Clock::new(codec),
            play: None,
            newest: 0,
            packet: FRAME,
            lost_at_newest: 0,
            silent: false,
            starved: 0,
            starved_pops: 0,
            starved_concealed: 0,
            grow: 0,
            level: 0,
            wait: 0,
            spare_pops: 0,
            earliest: i32::MAX,
            watched_pops: 0,
            shrink: None,
            sequence: Sequence::default(),
            transit: None,
            jitter_16: 0,
            stats: Stats::default(),
        }
    }

    /// Forgets the stream, keeps the counters and the delay the line needs: for a new SSRC.
    pub fn reset(&mut self) {
        self.sequence.restart();
        self.set_codec(self.codec);
    }

    /// What comes next is another payload format, in the same stream. What waits is dropped.
    pub fn set_codec(&mut self, codec: Codec) {
        self.codec = codec;
        self.clock = Clock::new(codec);
        self.ring.fill(HOLE);
        self.play = None;
        self.silent = false;
        self.starved = 0;
        self.starved_pops = 0;
        self.starved_concealed = 0;
        self.grow = 0;
        self.wait = 0;
        self.restart_watch();
        self.transit = None;
    }

    /// Counts a packet that carries no sound (a telephone-event) but uses up a sequence number.
    /// `false`: it was here before.
    pub fn account(&mut self, seq: SeqNumber) -> bool {
        self.stats.packets += 1;
        let lost = self.sequence.lost();
        let fresh = self.sequence.handle(seq);
        self.stats.duplicates += u64::from(!fresh);
        // One that was missing when the newest came is here now.
        let healed = lost.saturating_sub(self.sequence.lost());
        self.lost_at_newest = self.lost_at_newest.saturating_sub(healed);
        fresh
    }

    /// Counts a packet that says that the peer is silent (comfort noise, a telephone-event).
    /// `false`: it was here before.
    pub fn account_silence(&mut self, seq: SeqNumber) -> bool {
        let fresh = self.account(seq);
        self.silent |= fresh && self.sequence.is_newest(seq);
        fresh
    }

    /// Takes a packet that arrived at `now_us` (any steady clock) \[µs\].
    pub fn insert(&mut self, packet: &Packet<'_>, now_us: u64) -> Inserted {
        let seq = packet.header.seq;
        if !self.account(seq) {
            return Inserted::Duplicate;
        }
        let Some(length) = self.length(packet.payload) else {
            return Inserted::Refused;
        };
        let timestamp = self.clock.units(packet.header.timestamp);
        self.measure_jitter(timestamp, now_us);
        let play = match self.play {
            Some(play) if timestamp_ahead(timestamp, play).abs() <= MAX_DISTANCE => play,
            Some(_) | None => self.start(timestamp),
        };
        let is_newest = self.sequence.is_newest(seq);
        let lost = self.sequence.lost();
        if is_newest && lost == self.lost_at_newest {
            self.mark_quiet(play, timestamp);
        }
        if is_newest {
            self.lost_at_newest = lost;
            self.packet = length;
            self.silent = self.codec == Codec::Opus && packet.payload.len() <= opus::DTX_OCTETS;
        }
        let early = timestamp_ahead(timestamp, play);
        if early + length <= 0 {
            self.stats.late += 1;
            if early >= -MAX_DELAY && self.starved == 0 {
                self.grow = 1;
            }
            return Inserted::Late;
        }
        if self.starved == 0 {
            self.earliest = self.earliest.min(early);
        }
        self.store(packet.payload, timestamp, length, play);
        let end = timestamp.wrapping_add(length as u32);
        if timestamp_ahead(end, self.newest) > 0 {
            self.newest = end;
        }
        Inserted::Kept
    }

    /// Takes one ptime into `out`: octets, packet numbers for [`JitterBuffer::packet`], or [`QUIET`]. Call once per
    /// tick, after what arrived was inserted; `quiet` says that the last frame was silent, a good moment to skip one.
    pub fn pop(&mut self, out: &mut [u16; FRAME_UNITS], quiet: bool) -> Popped {
        let Some(play) = self.play else {
            return Popped::Empty;
        };
        self.spare_pops = self.spare_pops.saturating_sub(1);
        if self.wait > 0 {
            self.wait -= 1;
            return Popped::Quiet;
        }
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
            self.note_grown(1);
            self.stats.concealed += 1;
            self.restart_watch();
            self.play = Some(play);
            return Popped::Dry;
        }
        self.grow = 0;
        let play = self.shrunk(play, quiet);
        let popped = self.take(play, out);
        self.play = Some(play.wrapping_add(FRAME as u32));
        if let Popped::Hole(_) = popped {
            self.stats.concealed += 1;
            self.spare_pops = SPARE_POPS;
        }
        popped
    }

    /// The Opus packet of which `entry` says that it covers `unit`: where it begins, and its octets.
    #[must_use]
    pub fn packet(&self, entry: u16, unit: u32) -> Option<(u32, &[u8])> {
        let slot = self.slots.get(usize::from(entry))?;
        let inside = (0..slot.units).contains(&timestamp_ahead(unit, slot.start));
        inside.then(|| (slot.start, slot.data.get(..slot.octets).unwrap_or_default()))
    }

    /// The first Opus packet that waits at or after `unit`, if it begins within 120 ms.
    #[must_use]
    pub fn packet_after(&self, unit: u32) -> Option<(u32, &[u8])> {
        let ahead = timestamp_ahead(self.newest, unit).clamp(0, MAX_PACKET as i32);
        (0..ahead as u32).find_map(|n| {
            let unit = unit.wrapping_add(n);
            self.packet(self.ring[place(unit)], unit)
        })
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

    /// For a receiver report, once per report; `None` before the first packet.
    pub fn report(&mut self) -> Option<LossReport> {
        self.sequence.report()
    }

    /// Length of a payload \[units\].
    fn length(&self, payload: &[u8]) -> Option<i32> {
        let units = match self.codec {
            Codec::Pcmu | Codec::Pcma | Codec::G722 => payload.len(),
            Codec::Opus if payload.len() > opus::MAX_PACKET_OCTETS => return None,
            Codec::Opus => opus::packet_samples(payload)? / 2,
        };
        (1..=MAX_PACKET).contains(&units).then_some(units as i32)
    }

    fn store(&mut self, payload: &[u8], timestamp: u32, length: i32, play: u32) {
        let number = self.next_slot as u16;
        if self.codec == Codec::Opus
            && let Some(slot) = self.slots.get_mut(self.next_slot)
            && let Some(room) = slot.data.get_mut(..payload.len())
        {
            room.copy_from_slice(payload);
            (slot.start, slot.units, slot.octets) = (timestamp, length, payload.len());
            self.next_slot = (self.next_slot + 1) % SLOTS;
        }
        for n in 0..length as u32 {
            let at = timestamp.wrapping_add(n);
            if timestamp_ahead(at, play) >= 0 {
                self.ring[place(at)] = match self.codec {
                    Codec::Opus => number,
                    Codec::Pcmu | Codec::Pcma | Codec::G722 => {
                        payload.get(n as usize).map_or(HOLE, |&octet| u16::from(octet))
                    }
                };
            }
        }
    }

    /// Between the newest packet and the one that begins at `until` the peer was silent.
    fn mark_quiet(&mut self, play: u32, until: u32) {
        let from = if timestamp_ahead(self.newest, play) < 0 {
            play
        } else {
            self.newest
        };
        for n in 0..timestamp_ahead(until, from).clamp(0, MAX_DISTANCE) as u32 {
            self.ring[place(from.wrapping_add(n))] = QUIET;
        }
    }

    fn start(&mut self, timestamp: u32) -> u32 {
        // A stream that goes on after a silence goes on with the delay it had.
        self.wait = self.level;
        self.ring.fill(HOLE);
        self.play = Some(timestamp);
        self.newest = timestamp;
        self.lost_at_newest = self.sequence.lost();
        self.starved = 0;
        self.starved_pops = 0;
        self.starved_concealed = 0;
        self.grow = 0;
        self.restart_watch();
        timestamp
    }

    /// Nothing (or not enough) to play: conceal, and wait where we are.
    fn starve(&mut self) -> Popped {
        self.starved = (self.starved + FRAME).min(RING as i32);
        self.restart_watch();
        if self.silent {
            // A stream that had stopped did not become later by starting again.
            self.starved_pops = STOPPED_POPS + 1;
            return Popped::Quiet;
        }
        self.starved_pops += 1;
        if self.starved_pops > STOPPED_POPS {
            return Popped::Empty;
        }
        self.starved_concealed += 1;
        self.stats.concealed += 1;
        Popped::Dry
    }

    /// After starving: was what is here now late, or was there a gap in the stream?
    fn settle(&mut self, play: u32) -> u32 {
        if self.starved == 0 {
            return play;
        }
        let gap = timestamp_ahead(self.newest, play).max(0);
        let first = (0..gap)
            .find(|&n| self.ring[place(play.wrapping_add(n as u32))] < HOLE)
            .unwrap_or(gap);
        let was_silence = self.ring[place(play)] == QUIET;
        // In step with the peer's clock, unless that would skip what has come.
        let mut forward = first.min(self.starved);
        if was_silence {
            self.stats.concealed -= self.starved_concealed;
        } else if self.codec == Codec::Opus && first > 0 {
            self.spare_pops = SPARE_POPS;
            let ahead = gap - forward - self.packet;
            forward -= (self.packet - ahead).clamp(0, forward) / FRAME * FRAME;
        }
        if self.starved_pops <= STOPPED_POPS {
            self.note_grown(((self.starved - forward) / FRAME) as u32);
        }
        self.starved = 0;
        self.starved_concealed = 0;
        self.clear(play, forward)
    }

    /// Skips what is beyond the largest delay.
    fn bound(&mut self, play: u32) -> u32 {
        let excess = timestamp_ahead(self.newest, play) - self.packet.max(FRAME) - MAX_DELAY;
        if excess <= 0 {
            return play;
        }
        // Down to one frame in hand, at once: a stall of the network is over and its backlog is old.
        let skip = excess + MAX_DELAY - FRAME;
        self.stats.skipped += (skip / FRAME) as u64;
        self.level = 1;
        self.restart_watch();
        self.clear(play, skip)
    }

    fn shrunk(&mut self, play: u32, quiet: bool) -> u32 {
        let spare = if self.spare_pops > 0 { self.packet } else { 0 };
        let enough = FRAME + spare;
        self.watched_pops += 1;
        if self.watched_pops >= SHRINK_POPS && self.shrink.is_none() {
            if self.earliest != i32::MAX && self.earliest >= enough {
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
        let possible = self.earliest >= enough && timestamp_ahead(self.newest, play) >= 2 * FRAME;
        self.restart_watch();
        if !possible {
            return play;
        }
        self.stats.skipped += 1;
        self.level = self.level.saturating_sub(1);
        self.clear(play, FRAME)
    }

    fn note_grown(&mut self, frames: u32) {
        self.stats.grown += u64::from(frames);
        self.level = (self.level + frames).min(MAX_LEVEL);
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

    /// Copies a frame out and empties its places.
    fn take(&mut self, play: u32, out: &mut [u16; FRAME_UNITS]) -> Popped {
        let (mut whole, mut quiet) = (true, true);
        for (n, out) in (0u32..).zip(out.iter_mut()) {
            let unit = play.wrapping_add(n);
            let entry = std::mem::replace(&mut self.ring[place(unit)], HOLE);
            let gone = self.codec == Codec::Opus && entry < HOLE && self.packet(entry, unit).is_none();
            *out = if gone { HOLE } else { entry };
            whole &= *out != HOLE;
            quiet &= *out == QUIET;
        }
        match (whole, quiet) {
            (true, true) => Popped::Quiet,
            (true, false) => Popped::Frame(play),
            (false, _) => Popped::Hole(play),
        }
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

fn place(timestamp: u32) -> usize {
    timestamp as usize % RING
}

/// RTP timestamps to units, across the timestamp's wrapping.
struct Clock {
    /// RTP clock units in one of ours.
    ratio: i64,
    last: Option<u32>,
    /// `last`, unwrapped.
    total: i64,
}

impl Clock {
    fn new(codec: Codec) -> Clock {
        Clock {
            ratio: i64::from(codec.rtp_clock_hz() / 8000),
            last: None,
            total: 0,
        }
    }

    fn units(&mut self, timestamp: u32) -> u32 {
        let moved = match self.last.replace(timestamp) {
            Some(last) => i64::from(timestamp_ahead(timestamp, last)),
            None => i64::from(timestamp),
        };
        self.total = self.total.wrapping_add(moved);
        self.total.div_euclid(self.ratio) as u32
    }
}

#[cfg(test)]
#[path = "jitter_tests.rs"]
mod tests;
