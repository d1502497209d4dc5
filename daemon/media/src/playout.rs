//! Playout: from RTP packets to one frame per tick, whatever was lost on the way.
//!
//! ```text
//! packet -> jitter -- octets ------> G.711, G.722 --> conceal --> Frame
//!                 `-- Opus packets -> decode, recover ---^   ^
//!                                     comfort noise ---------'
//! ```
//!
//! Opus is decoded as the stream it is: samples are made in order, whole packets at a time, into a small queue from
//! which frames are cut. What is missing there comes from the next packet's copy, if that is here already, or from
//! the codec's own concealment. Sources: RFC 3389 (comfort noise), RFC 7587 §3.3 (forward error correction).

use crate::codec::{Codec, Decoder};
use crate::frame::{FRAME_SAMPLES, Frame};
use crate::jitter::{FRAME_UNITS, Inserted, JitterBuffer, Popped, QUIET, Stats};
use crate::noise::{self, Noise};
use crate::opus;
use crate::plc::Concealer;
use crate::rtp::{Packet, SeqNumber, timestamp_ahead};
use crate::sequence::LossReport;

/// What a frame is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Heard {
    /// What the peer sent.
    Sound,
    /// Made up, or recovered, in place of what is missing.
    Concealed,
    /// The peer is silent, or sends nothing.
    Silence,
}

/// The receiving end of one stream. Allocates once.
pub struct Playout {
    jitter: JitterBuffer,
    codec: Codec,
    decoder: Decoder,
    opus: OpusStream,
    concealer: Concealer,
    noise: Noise,
}

impl Playout {
    /// Nothing received yet.
    #[must_use]
    pub fn new(codec: Codec) -> Playout {
        Playout {
            jitter: JitterBuffer::new(codec),
            codec,
            decoder: Decoder::new(codec),
            opus: OpusStream::new(),
            concealer: Concealer::new(),
            noise: Noise::new(),
        }
    }

    /// A new stream of the same peer.
    pub fn reset(&mut self) {
        self.jitter.reset();
        self.decoder = Decoder::new(self.codec);
        self.opus.reset();
    }

    /// Another payload format.
    pub fn set_codec(&mut self, codec: Codec) {
        if codec != self.codec {
            self.codec = codec;
            self.jitter.set_codec(codec);
            self.decoder = Decoder::new(codec);
            self.opus.reset();
        }
    }

    /// Takes a packet of sound.
    pub fn insert(&mut self, packet: &Packet<'_>, now_us: u64) -> Inserted {
        self.jitter.insert(packet, now_us)
    }

    /// Takes a packet of comfort noise.
    ///
    /// # Errors
    /// [`crate::MediaError::MalformedNoise`]; it was counted all the same.
    pub fn insert_noise(&mut self, packet: &Packet<'_>) -> Result<(), crate::MediaError> {
        self.jitter.account_silence(packet.header.seq);
        self.noise.set_level(noise::parse(packet.payload)?);
        Ok(())
    }

    /// Counts a telephone-event, in whose stead there is no sound.
    pub fn account_event(&mut self, seq: SeqNumber) {
        self.jitter.account_silence(seq);
    }

    /// Counts a packet of which nothing is known.
    pub fn account(&mut self, seq: SeqNumber) {
        self.jitter.account(seq);
    }

    /// The frame of this tick; `quiet`: the last one was silent.
    pub fn frame(&mut self, quiet: bool) -> (Frame, Heard) {
        let mut units = [0; FRAME_UNITS];
        let popped = self.jitter.pop(&mut units, quiet);
        let opus = self.codec == Codec::Opus;
        match popped {
            Popped::Frame(at) if opus => {
                let frame = self.opus.frame(&self.jitter, &units, at);
                (self.sound(frame), Heard::Sound)
            }
            Popped::Hole(at) if opus => {
                let frame = self.opus.frame(&self.jitter, &units, at);
                (self.sound(frame), Heard::Concealed)
            }
            Popped::Dry if opus => {
                let frame = self.opus.conceal();
                (self.sound(frame), Heard::Concealed)
            }
            Popped::Frame(_) => {
                let frame = self.octets(&units);
                (self.sound(frame), Heard::Sound)
            }
            Popped::Hole(_) | Popped::Dry => (self.concealer.lost(), Heard::Concealed),
            Popped::Quiet => (self.concealer.good(self.noise.frame()), Heard::Silence),
            Popped::Empty => {
                self.noise.stop();
                (self.concealer.good(self.noise.frame()), Heard::Silence)
            }
        }
    }

    /// The codec of what was received last.
    #[must_use]
    pub fn codec(&self) -> Codec {
        self.codec
    }

    /// What waits to be played \[ms\].
    #[must_use]
    pub fn depth_ms(&self) -> u32 {
        self.jitter.depth_ms()
    }

    /// The counters.
    #[must_use]
    pub fn stats(&self) -> Stats {
        self.jitter.stats()
    }

    /// For a receiver report, once per report; `None` before the first packet.
    pub fn report(&mut self) -> Option<LossReport> {
        self.jitter.report()
    }

    /// Decodes the octets that are there; between them the peer was silent.
    fn octets(&mut self, units: &[u16; FRAME_UNITS]) -> Frame {
        let mut frame = Frame::SILENCE;
        let mut samples = frame.samples.as_mut_slice();
        for run in units.chunk_by(|a, b| (*a == QUIET) == (*b == QUIET)) {
            let (here, rest) = samples.split_at_mut(run.len() * 2);
            samples = rest;
            if run.first() != Some(&QUIET) {
                let mut octets = [0; FRAME_UNITS];
                for (octet, unit) in octets.iter_mut().zip(run) {
                    *octet = *unit as u8;
                }
                self.decoder
                    .decode(octets.get(..run.len()).unwrap_or_default(), here);
            }
        }
        frame
    }

    fn sound(&mut self, frame: Frame) -> Frame {
        self.concealer.good(frame)
    }
}

/// Samples a stretch of Opus may give at once, besides a frame less one sample that waits.
const QUEUE_SAMPLES: usize = opus::MAX_PACKET_SAMPLES + FRAME_SAMPLES;

/// One Opus stream, decoded in order.
struct OpusStream {
    decoder: opus::Decoder,
    /// Decoded and not yet played.
    queue: [i16; QUEUE_SAMPLES],
    have: usize,
    /// The unit after the newest sample in the queue.
    end: u32,
}

impl OpusStream {
    fn new() -> OpusStream {
        OpusStream {
            decoder: opus::Decoder::new(),
            queue: [0; QUEUE_SAMPLES],
            have: 0,
            end: 0,
        }
    }

    fn reset(&mut self) {
        self.decoder.reset();
        self.have = 0;
    }

    /// The frame that begins with unit `at`; `units` are its 160 places in the buffer.
    fn frame(&mut self, jitter: &JitterBuffer, units: &[u16; FRAME_UNITS], at: u32) -> Frame {
        self.seek(at);
        while self.have < FRAME_SAMPLES {
            let unit = self.end;
            let entry = units.get(timestamp_ahead(unit, at).max(0) as usize);
            match entry.and_then(|&entry| jitter.packet(entry, unit)) {
                Some((start, packet)) => self.decode(packet, timestamp_ahead(unit, start)),
                None => self.cover(jitter),
            }
        }
        let frame = Frame::from_slice(&self.queue);
        self.queue.copy_within(FRAME_SAMPLES..self.have, 0);
        self.have -= FRAME_SAMPLES;
        frame
    }

    /// 20 ms made up while play stands still.
    fn conceal(&mut self) -> Frame {
        let mut frame = Frame::SILENCE;
        self.decoder.conceal(&mut frame.samples);
        frame
    }

    /// Play is at `at` now: drops what was skipped, or everything when it jumped.
    fn seek(&mut self, at: u32) {
        let first = self.end.wrapping_sub((self.have / 2) as u32);
        let skipped = timestamp_ahead(at, first);
        match usize::try_from(skipped).map(|units| units * 2) {
            Ok(samples) if samples <= self.have => {
                self.queue.copy_within(samples..self.have, 0);
                self.have -= samples;
            }
            _ => {
                self.have = 0;
                self.end = at;
            }
        }
    }

    /// Appends a packet without its first `late` units.
    fn decode(&mut self, packet: &[u8], late: i32) {
        let mut samples = [0; opus::MAX_PACKET_SAMPLES];
        let count = self.decoder.decode(packet, &mut samples);
        if count == 0 {
            // Not what its first octets claimed.
            return self.make_up();
        }
        let late = usize::try_from(late).unwrap_or(0) * 2;
        self.append(samples.get(late..count).unwrap_or_default());
        if late >= count {
            self.make_up();
        }
    }

    /// Appends what fills the gap: the next packet's copy of it, if it is one packet long, or what the codec makes up.
    fn cover(&mut self, jitter: &JitterBuffer) {
        let Some((start, next)) = jitter.packet_after(self.end) else {
            return self.make_up();
        };
        let gap = usize::try_from(timestamp_ahead(start, self.end)).unwrap_or(0) * 2;
        // Multiples of 2.5 ms are what the decoder can fill.
        let fits = opus::packet_samples(next) == Some(gap) && gap % 40 == 0;
        if !fits {
            return self.make_up();
        }
        let mut samples = [0; opus::MAX_PACKET_SAMPLES];
        let count = self
            .decoder
            .recover(next, samples.get_mut(..gap).unwrap_or_default());
        if count == gap {
            self.append(samples.get(..gap).unwrap_or_default());
        } else {
            self.make_up();
        }
    }

    /// Appends 10 ms that the codec makes up.
    fn make_up(&mut self) {
        let mut samples = [0; FRAME_SAMPLES / 2];
        self.decoder.conceal(&mut samples);
        self.append(&samples);
    }

    fn append(&mut self, samples: &[i16]) {
        if let Some(room) = self.queue.get_mut(self.have..self.have + samples.len()) {
            room.copy_from_slice(samples);
            self.have += samples.len();
            self.end = self.end.wrapping_add((samples.len() / 2) as u32);
        }
    }
}

#[cfg(test)]
#[path = "playout_tests.rs"]
mod tests;
