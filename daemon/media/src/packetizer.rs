//! Packetizer: 20 ms frames in, packets of the peer's length out.
//!
//! ```text
//! ticks      |  20  |  20  |  20  |  20  |
//! ptime 10   | a  b | c  d | ...              two packets a tick
//! ptime 30   |      | a    | b   .|           a packet when 30 ms are together
//! ```
//!
//! Allocates nothing after construction.

use crate::codec::{Codec, Encoder, MAX_PACKET_SAMPLES};
use crate::frame::{FRAME_SAMPLES, Frame};

/// What can be collected: less than the longest packet, and a frame.
const ROOM: usize = MAX_PACKET_SAMPLES + FRAME_SAMPLES;
/// Packets are multiples of this \[samples\]: 10 ms.
const GRAIN: usize = 160;

/// One packet's payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packed {
    /// How much of the buffer it fills \[octets\].
    pub octets: usize,
    /// How long before the end of the last frame its first sample was \[RTP clock units\].
    pub age: u32,
}

/// Collects and encodes one stream.
pub struct Packetizer {
    encoder: Encoder,
    /// Length of a packet \[samples\].
    length: usize,
    samples: [i16; ROOM],
    have: usize,
}

impl Packetizer {
    /// Nothing collected. Allocates, once.
    #[must_use]
    pub fn new(codec: Codec, ptime_ms: u16) -> Packetizer {
        Packetizer {
            encoder: Encoder::new(codec),
            length: samples_of(codec, ptime_ms),
            samples: [0; ROOM],
            have: 0,
        }
    }

    /// The peer wants something else. What was collected is dropped when the codec changes.
    pub fn set_format(&mut self, codec: Codec, ptime_ms: u16) {
        if codec != self.encoder.codec() {
            self.encoder.set_codec(codec);
            self.have = 0;
        }
        self.length = samples_of(codec, ptime_ms);
    }

    /// Takes a frame; call [`Packetizer::poll`] until it gives nothing.
    pub fn push(&mut self, frame: &Frame) {
        if let Some(room) = self.samples.get_mut(self.have..self.have + FRAME_SAMPLES) {
            room.copy_from_slice(&frame.samples);
            self.have += FRAME_SAMPLES;
        }
    }

    /// The next whole packet.
    pub fn poll(&mut self, out: &mut [u8]) -> Option<Packed> {
        (self.have >= self.length).then(|| self.take(self.length, out))
    }

    /// What is left, as a shorter packet: something else is about to be sent.
    pub fn flush(&mut self, out: &mut [u8]) -> Option<Packed> {
        // Opus has no 30 ms: what is left of it is a multiple of 20 ms, or 10.
        let left = self.have / GRAIN * GRAIN;
        (left > 0).then(|| self.take(left, out))
    }

    /// Drops what was collected.
    pub fn clear(&mut self) {
        self.have = 0;
    }

    /// What the peer says it loses \[%\].
    pub fn set_loss(&mut self, percent: u8) {
        self.encoder.set_loss(percent);
    }

    /// The codec in use.
    #[must_use]
    pub fn codec(&self) -> Codec {
        self.encoder.codec()
    }

    fn take(&mut self, length: usize, out: &mut [u8]) -> Packed {
        let octets = self.encoder.encode(&self.samples[..length], out);
        let age = self.have as u32 * (self.codec().rtp_clock_hz() / 8000) / 2;
        self.samples.copy_within(length..self.have, 0);
        self.have -= length;
        Packed { octets, age }
    }
}

fn samples_of(codec: Codec, ptime_ms: u16) -> usize {
    usize::from(codec.nearest_ptime_ms(ptime_ms)) * 16
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{frame::frames, opus, tone};

    #[test]
    fn every_length_is_whole_and_gapless() {
        let sound = tone::sine(440.0, -10.0, 1200);
        for codec in Codec::ALL {
            for ptime_ms in [10u16, 20, 30, 40, 50, 60] {
                let mut packetizer = Packetizer::new(codec, ptime_ms);
                let units_per_ms = codec.rtp_clock_hz() / 1000;
                let (mut end, mut next, mut packets) = (0u32, 0u32, 0u32);
                for frame in frames(&sound) {
                    packetizer.push(&frame);
                    end += 20 * units_per_ms;
                    let mut out = [0; 1300];
                    while let Some(packed) = packetizer.poll(&mut out) {
                        assert_eq!(end - packed.age, next, "{codec:?} {ptime_ms}");
                        let samples = match codec {
                            Codec::Opus => opus::packet_samples(&out[..packed.octets]).unwrap(),
                            _ => packed.octets * 2,
                        };
                        next += samples as u32 * units_per_ms / 16;
                        packets += 1;
                    }
                }
                let wanted = 1200 / u32::from(codec.nearest_ptime_ms(ptime_ms));
                assert_eq!(packets, wanted, "{codec:?} {ptime_ms}");
            }
        }
    }

    #[test]
    fn a_flush_sends_what_is_left() {
        for (codec, ptime_ms, left_ms) in [
            (Codec::Pcmu, 50, 40),
            (Codec::Opus, 60, 40),
            (Codec::G722, 30, 10),
            (Codec::Opus, 60, 20),
        ] {
            let mut packetizer = Packetizer::new(codec, ptime_ms);
            let mut out = [0; 1300];
            let ticks = if left_ms == 20 { 1 } else { 2 };
            for _ in 0..ticks {
                packetizer.push(&Frame::SILENCE);
                while packetizer.poll(&mut out).is_some() {}
            }
            let packed = packetizer.flush(&mut out).unwrap();
            assert_eq!(packed.age, left_ms * codec.rtp_clock_hz() / 1000, "{codec:?}");
            assert!(packed.octets > 0);
            assert_eq!(packetizer.flush(&mut out), None);
        }
    }
}
