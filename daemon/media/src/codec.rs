//! Codec: what a frame looks like in an RTP payload. G.711 both laws, G.722, Opus; a line's 8 kHz becomes the
//! house's 16 kHz here and nowhere else. Source: RFC 3551 §4.5 and table 4, RFC 7587 (Opus).

use crate::g711;
use crate::resample::{Downsampler, Upsampler};
use crate::{g722, opus};

/// Octets of 20 ms of G.711 or G.722, and units of their RTP clock.
pub const FRAME_OCTETS: usize = 160;
/// Longest packet we make \[samples at 16 kHz\]: 60 ms.
pub const MAX_PACKET_SAMPLES: usize = 960;
/// Largest payload we make \[octets\].
pub const MAX_PAYLOAD_OCTETS: usize = opus::MAX_PACKET_OCTETS;
/// Lengths a packet may have, both ways \[ms\].
pub const PTIMES_MS: std::ops::RangeInclusive<u16> = 10..=60;

/// A payload format we speak.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Codec {
    /// G.711 µ-law, static payload type 0.
    Pcmu,
    /// G.711 A-law, static payload type 8.
    Pcma,
    /// G.722 at 64 kbit/s, static payload type 9. Samples at 16 kHz, but its RTP clock runs at 8 kHz (RFC 3551 §4.5.2).
    G722,
    /// Opus, dynamic payload type; its RTP clock runs at 48 kHz always (RFC 7587 §4.1).
    Opus,
}

impl Codec {
    /// All of them, in the order in which we offer: first what carries the whole voice, since recognition and
    /// people hear 7 kHz better than 3.4; among those Opus, which also mends losses. µ-law before A-law, as ever.
    pub const ALL: [Codec; 4] = [Codec::Opus, Codec::G722, Codec::Pcmu, Codec::Pcma];

    /// Name in SDP's rtpmap (RFC 3551 table 4, RFC 7587 §7).
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Codec::Pcmu => "PCMU",
            Codec::Pcma => "PCMA",
            Codec::G722 => "G722",
            Codec::Opus => "opus",
        }
    }

    /// Channels in SDP's rtpmap: Opus is always declared with two (RFC 7587 §7).
    #[must_use]
    pub fn sdp_channels(self) -> u8 {
        match self {
            Codec::Opus => 2,
            Codec::Pcmu | Codec::Pcma | Codec::G722 => 1,
        }
    }

    /// Static RTP payload type (RFC 3551 table 4), for those that have one.
    #[must_use]
    pub fn static_payload_type(self) -> Option<u8> {
        match self {
            Codec::Pcmu => Some(0),
            Codec::Pcma => Some(8),
            Codec::G722 => Some(9),
            Codec::Opus => None,
        }
    }

    /// Rate of the RTP timestamp \[Hz\].
    #[must_use]
    pub fn rtp_clock_hz(self) -> u32 {
        match self {
            Codec::Pcmu | Codec::Pcma | Codec::G722 => 8000,
            Codec::Opus => 48_000,
        }
    }

    /// The codec with this static payload type, if we speak it.
    #[must_use]
    pub fn from_payload_type(payload_type: u8) -> Option<Codec> {
        Codec::ALL
            .into_iter()
            .find(|codec| codec.static_payload_type() == Some(payload_type))
    }

    /// The codec of this name in SDP, or in our configuration.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Codec> {
        Codec::ALL
            .into_iter()
            .find(|codec| codec.name().eq_ignore_ascii_case(name))
    }

    /// The longest packet we can make that is not longer than `wanted_ms` \[ms\]; 10 at least.
    #[must_use]
    pub fn nearest_ptime_ms(self, wanted_ms: u16) -> u16 {
        let wanted = wanted_ms.clamp(*PTIMES_MS.start(), *PTIMES_MS.end());
        match self {
            Codec::Pcmu | Codec::Pcma | Codec::G722 => wanted / 10 * 10,
            // RFC 6716 §2.1.4: frames of 10, 20, 40 and 60 ms (and shorter ones).
            Codec::Opus => match wanted {
                ..20 => 10,
                20..40 => 20,
                40..60 => 40,
                60.. => 60,
            },
        }
    }
}

/// Samples to payloads, for one direction of one leg. All codecs stand ready, since a change must not allocate.
pub struct Encoder {
    codec: Codec,
    down: Downsampler,
    g722: g722::Encoder,
    opus: opus::Encoder,
}

impl Encoder {
    /// An encoder at rest. Allocates, once.
    #[must_use]
    pub fn new(codec: Codec) -> Encoder {
        Encoder {
            codec,
            down: Downsampler::new(),
            g722: g722::Encoder::new(),
            opus: opus::Encoder::new(),
        }
    }

    /// Goes over to another codec, at rest.
    pub fn set_codec(&mut self, codec: Codec) {
        self.codec = codec;
        self.down = Downsampler::new();
        self.g722 = g722::Encoder::new();
        self.opus.reset();
    }

    /// The payload of 10 to 60 ms of samples; its octets in `out`. 0: a length that the codec has not, or too little
    /// room. The filter of G.711 delays by 1.6 ms.
    pub fn encode(&mut self, samples: &[i16], out: &mut [u8]) -> usize {
        let octets = samples.len() / 2;
        match self.codec {
            Codec::Opus => self.opus.encode(samples, out),
            Codec::G722 => {
                self.g722.encode(samples, out);
                octets.min(out.len())
            }
            Codec::Pcmu => self.narrow(samples, out, g711::ulaw_encode),
            Codec::Pcma => self.narrow(samples, out, g711::alaw_encode),
        }
    }

    fn narrow(&mut self, samples: &[i16], out: &mut [u8], law: fn(i16) -> u8) -> usize {
        let mut narrow = [0i16; MAX_PACKET_SAMPLES / 2];
        let octets = (samples.len() / 2).min(narrow.len()).min(out.len());
        self.down.process(samples, &mut narrow[..octets]);
        for (octet, &sample) in out.iter_mut().zip(&narrow[..octets]) {
            *octet = law(sample);
        }
        octets
    }

    /// What the peer says it loses \[%\]; of use to Opus.
    pub fn set_loss(&mut self, percent: u8) {
        self.opus.set_loss(percent);
    }

    /// The codec in use.
    #[must_use]
    pub fn codec(&self) -> Codec {
        self.codec
    }
}

/// Octets of G.711 and G.722 to samples, for one direction of one leg.
pub struct Decoder {
    codec: Codec,
    up: Upsampler,
    g722: g722::Decoder,
}

impl Decoder {
    /// A decoder at rest.
    #[must_use]
    pub fn new(codec: Codec) -> Decoder {
        Decoder {
            codec,
            up: Upsampler::new(),
            g722: g722::Decoder::new(),
        }
    }

    /// Two samples for each octet; stops at the shorter of `octets` and half of `samples`. Up to 20 ms at a time.
    /// The filter of G.711 delays by 1.6 ms. Opus is not decoded here and gives silence.
    pub fn decode(&mut self, octets: &[u8], samples: &mut [i16]) {
        match self.codec {
            Codec::Pcmu => self.wide(octets, samples, g711::ulaw_decode),
            Codec::Pcma => self.wide(octets, samples, g711::alaw_decode),
            Codec::G722 => self.g722.decode(octets, samples),
            Codec::Opus => samples.fill(0),
        }
    }

    fn wide(&mut self, octets: &[u8], samples: &mut [i16], law: fn(u8) -> i16) {
        let mut narrow = [0i16; FRAME_OCTETS];
        let count = octets.len().min(narrow.len());
        for (sample, &octet) in narrow.iter_mut().zip(octets) {
            *sample = law(octet);
        }
        self.up.process(&narrow[..count], samples);
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
        // What each codec delays by, both filters together [samples at 16 kHz].
        for (codec, least_db, delay) in [
            (Codec::Pcmu, 33.0, 50),
            (Codec::Pcma, 33.0, 50),
            (Codec::G722, 20.0, 22),
        ] {
            for ms in [10, 20, 30, 60] {
                let (mut encoder, mut decoder) = (Encoder::new(codec), Decoder::new(codec));
                let sound = tone::sine(1000.0, -10.0, 420);
                let mut heard = Vec::new();
                for chunk in sound.chunks_exact(ms * 16) {
                    let mut payload = [0; MAX_PAYLOAD_OCTETS];
                    let octets = encoder.encode(chunk, &mut payload);
                    assert_eq!(octets, ms * 8);
                    for part in payload[..octets].chunks(FRAME_OCTETS) {
                        let mut samples = vec![0; part.len() * 2];
                        decoder.decode(part, &mut samples);
                        heard.extend(samples);
                    }
                }
                let snr = crate::resample::snr_db(&sound[2000..6000], &heard[2000 + delay..6000 + delay]);
                assert!(snr > least_db, "{codec:?}, {ms} ms: {snr:.1} dB");
            }
        }
    }

    #[test]
    fn silence_is_silence() {
        for (codec, octet) in [(Codec::Pcmu, 0xff), (Codec::Pcma, 0xd5)] {
            let mut payload = [1; FRAME_OCTETS];
            assert_eq!(Encoder::new(codec).encode(&[0; 320], &mut payload), 160);
            assert_eq!(payload, [octet; 160]);
        }
    }

    #[test]
    fn names_and_types_are_unique() {
        for codec in Codec::ALL {
            assert_eq!(Codec::from_name(&codec.name().to_lowercase()), Some(codec));
            let from_type = codec.static_payload_type().and_then(Codec::from_payload_type);
            assert_eq!(from_type, codec.static_payload_type().map(|_| codec));
        }
        assert_eq!(Codec::from_name("G729"), None);
    }

    #[test]
    fn packet_lengths_that_can_be_made() {
        for (wanted, octets, opus) in [
            (0, 10, 10),
            (10, 10, 10),
            (20, 20, 20),
            (30, 30, 20),
            (55, 50, 40),
            (60, 60, 60),
            (200, 60, 60),
        ] {
            assert_eq!(Codec::Pcma.nearest_ptime_ms(wanted), octets);
            assert_eq!(Codec::Opus.nearest_ptime_ms(wanted), opus);
        }
    }
}
