//! Codec: what a frame looks like in an RTP payload. G.711 both laws; the line's 8 kHz becomes the house's
//! 16 kHz here and nowhere else. Source: RFC 3551 §4.5.14 (PCMA and PCMU).

use crate::frame::{FRAME_SAMPLES, Frame};
use crate::g711;
use crate::resample::{Downsampler, Upsampler};

/// Octets of a 20 ms G.711 payload.
pub const G711_FRAME_OCTETS: usize = FRAME_SAMPLES / 2;

/// A payload format we speak.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Codec {
    /// G.711 µ-law, static payload type 0.
    Pcmu,
    /// G.711 A-law, static payload type 8.
    Pcma,
}

impl Codec {
    /// Name in SDP's rtpmap (RFC 3551 table 4).
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Codec::Pcmu => "PCMU",
            Codec::Pcma => "PCMA",
        }
    }

    /// Static RTP payload type (RFC 3551 table 4).
    #[must_use]
    pub fn payload_type(self) -> u8 {
        match self {
            Codec::Pcmu => 0,
            Codec::Pcma => 8,
        }
    }

    /// Rate of the RTP timestamp \[Hz\].
    #[must_use]
    pub fn rtp_clock_hz(self) -> u32 {
        match self {
            Codec::Pcmu | Codec::Pcma => 8000,
        }
    }

    /// The codec with this static payload type, if we speak it.
    #[must_use]
    pub fn from_payload_type(payload_type: u8) -> Option<Codec> {
        match payload_type {
            0 => Some(Codec::Pcmu),
            8 => Some(Codec::Pcma),
            _ => None,
        }
    }

    /// The payload octet that is digital silence.
    #[must_use]
    pub fn silence_octet(self) -> u8 {
        match self {
            Codec::Pcmu => 0xff,
            Codec::Pcma => 0xd5,
        }
    }
}

/// Frames to payloads, for one direction of one leg.
pub struct Encoder {
    codec: Codec,
    down: Downsampler,
}

impl Encoder {
    /// An encoder at rest.
    #[must_use]
    pub fn new(codec: Codec) -> Encoder {
        Encoder {
            codec,
            down: Downsampler::new(),
        }
    }

    /// The payload of one frame. The filter delays by 1.6 ms.
    pub fn encode(&mut self, frame: &Frame) -> [u8; G711_FRAME_OCTETS] {
        let mut narrow = [0i16; G711_FRAME_OCTETS];
        self.down.process(&frame.samples, &mut narrow);
        match self.codec {
            Codec::Pcmu => narrow.map(g711::ulaw_encode),
            Codec::Pcma => narrow.map(g711::alaw_encode),
        }
    }

    /// The codec in use.
    #[must_use]
    pub fn codec(&self) -> Codec {
        self.codec
    }
}

/// Payloads to frames, for one direction of one leg.
pub struct Decoder {
    codec: Codec,
    up: Upsampler,
}

impl Decoder {
    /// A decoder at rest.
    #[must_use]
    pub fn new(codec: Codec) -> Decoder {
        Decoder {
            codec,
            up: Upsampler::new(),
        }
    }

    /// The frame of one 20 ms payload. The filter delays by 1.6 ms.
    pub fn decode(&mut self, payload: &[u8; G711_FRAME_OCTETS]) -> Frame {
        let narrow = match self.codec {
            Codec::Pcmu => payload.map(g711::ulaw_decode),
            Codec::Pcma => payload.map(g711::alaw_decode),
        };
        let mut frame = Frame::SILENCE;
        self.up.process(&narrow, &mut frame.samples);
        frame
    }

    /// The codec in use.
    #[must_use]
    pub fn codec(&self) -> Codec {
        self.codec
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tone;

    #[test]
    fn a_tone_survives_both_ways() {
        for codec in [Codec::Pcmu, Codec::Pcma] {
            let (mut encoder, mut decoder) = (Encoder::new(codec), Decoder::new(codec));
            let sound = tone::sine(1000.0, -10.0, 400);
            let mut heard = Vec::new();
            for frame in crate::frame::frames(&sound) {
                heard.extend(decoder.decode(&encoder.encode(&frame)).samples);
            }
            // Both filters delay by 25 samples.
            let snr = crate::resample::snr_db(&sound[2000..6000], &heard[2050..6050]);
            assert!(snr > 33.0, "{codec:?}: {snr:.1} dB");
        }
    }

    #[test]
    fn silence_is_silence() {
        for codec in [Codec::Pcmu, Codec::Pcma] {
            assert_eq!(
                Encoder::new(codec).encode(&Frame::SILENCE),
                [codec.silence_octet(); 160]
            );
            assert_eq!(Codec::from_payload_type(codec.payload_type()), Some(codec));
        }
    }
}
