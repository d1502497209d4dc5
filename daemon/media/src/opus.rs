//! Opus: 16 kHz mono speech through the distribution's `libopus`. Source: RFC 6716 (codec), RFC 7587 (RTP).
//!
//! The library keeps no global state; encoder and decoder live in memory that is ours, made once. Coding uses the
//! stack only (checked in `attendant-rt`'s `tests/no_alloc.rs`, which counts the C library's allocations too).
#![allow(unsafe_code)]

use std::ffi::{c_int, c_uchar};

/// Rate at which we code and decode \[Hz\]; the RTP clock is 48 kHz whatever is coded.
const RATE_HZ: c_int = 16_000;
/// Longest packet there is \[samples at 16 kHz\]: 120 ms (RFC 6716 §3.2.5).
pub const MAX_PACKET_SAMPLES: usize = 1920;
/// Largest packet that is taken or made \[octets\]: 60 ms at 160 kbit/s; speech needs a fifth of it.
pub const MAX_PACKET_OCTETS: usize = 1200;
/// What a packet of at most this many octets says: nothing is spoken, nothing may follow (RFC 6716 §3.1, DTX).
pub const DTX_OCTETS: usize = 2;
/// Rate of the speech we send, with its forward error correction \[bit/s\].
const BITRATE: c_int = 28_000;
/// Effort, 0..=10. 5 takes half as long again and twice as long for silence, 10 three times, and recorded speech comes
/// back no closer (segmental signal-to-noise ratio of 120 s of prompts: 10.2, 10.1, 10.2 dB). Below 2 the library leaves the
/// error correction out at our rate.
const COMPLEXITY: c_int = 2;

const APPLICATION_VOIP: c_int = 2048;
const SET_BITRATE: c_int = 4002;
const SET_COMPLEXITY: c_int = 4010;
const SET_INBAND_FEC: c_int = 4012;
const SET_PACKET_LOSS_PERC: c_int = 4014;
const SET_SIGNAL: c_int = 4024;
const SIGNAL_VOICE: c_int = 3001;
const RESET_STATE: c_int = 4028;

/// Least and most loss that the encoder is told of \[%\]: below 5 it would leave the error correction out.
const LOSS_PERCENT: (u8, u8) = (5, 30);

#[repr(C)]
struct CEncoder([u8; 0]);
#[repr(C)]
struct CDecoder([u8; 0]);

#[link(name = "opus")]
unsafe extern "C" {
    fn opus_encoder_get_size(channels: c_int) -> c_int;
    fn opus_encoder_init(state: *mut CEncoder, rate: c_int, channels: c_int, application: c_int) -> c_int;
    fn opus_encoder_ctl(state: *mut CEncoder, request: c_int, ...) -> c_int;
    fn opus_encode(
        state: *mut CEncoder,
        pcm: *const i16,
        samples: c_int,
        data: *mut c_uchar,
        max_octets: i32,
    ) -> i32;
    fn opus_decoder_get_size(channels: c_int) -> c_int;
    fn opus_decoder_init(state: *mut CDecoder, rate: c_int, channels: c_int) -> c_int;
    fn opus_decoder_ctl(state: *mut CDecoder, request: c_int, ...) -> c_int;
    fn opus_decode(
        state: *mut CDecoder,
        data: *const c_uchar,
        octets: i32,
        pcm: *mut i16,
        samples: c_int,
        fec: c_int,
    ) -> c_int;
}

/// Memory for a state, aligned as `malloc` would.
type State = Box<[u128]>;

fn state(octets: c_int) -> State {
    let words = usize::try_from(octets).unwrap_or(0) / size_of::<u128>() + 1;
    vec![0; words].into_boxed_slice()
}

/// Samples at 16 kHz to packets.
pub struct Encoder {
    state: State,
}

impl Encoder {
    /// At rest. Allocates, once.
    #[must_use]
    pub fn new() -> Encoder {
        // SAFETY: has no conditions.
        let mut encoder = Encoder {
            state: state(unsafe { opus_encoder_get_size(1) }),
        };
        // SAFETY: the memory is as large as the library asked for; rate, channels and application are legal, so it
        // cannot fail.
        unsafe { opus_encoder_init(encoder.raw(), RATE_HZ, 1, APPLICATION_VOIP) };
        encoder.set(SET_BITRATE, BITRATE);
        encoder.set(SET_COMPLEXITY, COMPLEXITY);
        encoder.set(SET_SIGNAL, SIGNAL_VOICE);
        encoder.set(SET_INBAND_FEC, 1);
        encoder.set_loss(0);
        encoder
    }

    /// Forgets what was coded, keeps the settings.
    pub fn reset(&mut self) {
        // SAFETY: the state is initialised; this request takes no argument.
        unsafe { opus_encoder_ctl(self.raw(), RESET_STATE) };
    }

    /// What the peer says it loses \[%\]: the more, the more goes into error correction.
    pub fn set_loss(&mut self, percent: u8) {
        let (least, most) = LOSS_PERCENT;
        self.set(SET_PACKET_LOSS_PERC, c_int::from(percent.clamp(least, most)));
    }

    /// One packet of 10, 20, 40 or 60 ms; its octets in `out`. 0: another length, or `out` is too small.
    pub fn encode(&mut self, samples: &[i16], out: &mut [u8]) -> usize {
        let max_octets = i32::try_from(out.len().min(MAX_PACKET_OCTETS)).unwrap_or(0);
        let count = c_int::try_from(samples.len()).unwrap_or(0);
        // SAFETY: the state is initialised; `samples` holds `count` samples of one channel, `out` `max_octets` octets.
        let octets =
            unsafe { opus_encode(self.raw(), samples.as_ptr(), count, out.as_mut_ptr(), max_octets) };
        usize::try_from(octets).unwrap_or(0)
    }

    fn set(&mut self, request: c_int, value: c_int) {
        // SAFETY: the state is initialised; all requests used here take one int.
        unsafe { opus_encoder_ctl(self.raw(), request, value) };
    }

    fn raw(&mut self) -> *mut CEncoder {
        self.state.as_mut_ptr().cast()
    }
}

/// Packets to samples at 16 kHz.
pub struct Decoder {
    state: State,
}

impl Decoder {
    /// At rest. Allocates, once.
    #[must_use]
    pub fn new() -> Decoder {
        // SAFETY: has no conditions.
        let mut decoder = Decoder {
            state: state(unsafe { opus_decoder_get_size(1) }),
        };
        // SAFETY: the memory is as large as the library asked for; rate and channels are legal, so it cannot fail.
        unsafe { opus_decoder_init(decoder.raw(), RATE_HZ, 1) };
        decoder
    }

    /// Forgets the stream.
    pub fn reset(&mut self) {
        // SAFETY: the state is initialised; this request takes no argument.
        unsafe { opus_decoder_ctl(self.raw(), RESET_STATE) };
    }

    /// The samples of one packet; how many. 0: no Opus, or longer than `out`.
    pub fn decode(&mut self, packet: &[u8], out: &mut [i16]) -> usize {
        if packet.is_empty() {
            return 0;
        }
        self.run(Some(packet), out, 0)
    }

    /// What came before `next` and was lost, from the copy that `next` may carry; where it carries none, made up.
    /// `out` is as long as the loss, a multiple of 2.5 ms, and not shorter than `next`.
    pub fn recover(&mut self, next: &[u8], out: &mut [i16]) -> usize {
        if next.is_empty() {
            return self.conceal(out);
        }
        self.run(Some(next), out, 1)
    }

    /// Makes up what is missing; `out` is a multiple of 2.5 ms long.
    pub fn conceal(&mut self, out: &mut [i16]) -> usize {
        self.run(None, out, 0)
    }

    fn run(&mut self, packet: Option<&[u8]>, out: &mut [i16], fec: c_int) -> usize {
        let octets = packet.map_or(0, |packet| i32::try_from(packet.len()).unwrap_or(0));
        let data = packet.map_or(std::ptr::null(), <[u8]>::as_ptr);
        let room = c_int::try_from(out.len().min(MAX_PACKET_SAMPLES)).unwrap_or(0);
        // SAFETY: the state is initialised; `data` is null or holds `octets` octets, `out` holds `room` samples of one
        // channel. The library checks what the packet claims.
        let samples = unsafe { opus_decode(self.raw(), data, octets, out.as_mut_ptr(), room, fec) };
        usize::try_from(samples).unwrap_or(0)
    }

    fn raw(&mut self) -> *mut CDecoder {
        self.state.as_mut_ptr().cast()
    }
}

impl Default for Encoder {
    fn default() -> Self {
        Encoder::new()
    }
}

impl Default for Decoder {
    fn default() -> Self {
        Decoder::new()
    }
}

/// Length of a packet by its first octets \[samples at 16 kHz\] (RFC 6716 §3.1); `None`: no Opus packet.
#[must_use]
pub fn packet_samples(packet: &[u8]) -> Option<usize> {
    let (&toc, rest) = packet.split_first()?;
    // Configurations: SILK 0-11 of 10, 20, 40, 60 ms; hybrid 12-15 of 10, 20 ms; CELT 16-31 of 2.5, 5, 10, 20 ms.
    let config = toc >> 3;
    let frame = match config {
        0..=11 => [160, 320, 640, 960][usize::from(config & 3)],
        12..=15 => [160, 320][usize::from(config & 1)],
        _ => [40, 80, 160, 320][usize::from(config & 3)],
    };
    let frames = match toc & 3 {
        0 => 1,
        1 | 2 => 2,
        _ => usize::from(*rest.first()? & 0x3f),
    };
    let samples = frame * frames;
    (1..=MAX_PACKET_SAMPLES).contains(&samples).then_some(samples)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tone::{self, voice};
    use proptest::prelude::*;

    fn encode(sound: &[i16], samples: usize) -> Vec<Vec<u8>> {
        let mut encoder = Encoder::new();
        let mut out = [0; MAX_PACKET_OCTETS];
        sound
            .chunks_exact(samples)
            .map(|chunk| {
                let octets = encoder.encode(chunk, &mut out);
                out[..octets].to_vec()
            })
            .collect()
    }

    /// Mean difference of the 10 ms levels \[dB\], where there is sound.
    fn level_distance(a: &[i16], b: &[i16]) -> f32 {
        let levels = |x: &[i16]| -> Vec<f32> { x.chunks_exact(160).map(crate::level::dbov).collect() };
        let pairs: Vec<f32> = levels(a)
            .iter()
            .zip(levels(b))
            .map(|(a, b)| (a.max(-60.0) - b.max(-60.0)).abs())
            .collect();
        pairs.iter().sum::<f32>() / pairs.len() as f32
    }

    #[test]
    fn every_packet_length_comes_back_whole() {
        let sound = voice(1200);
        for ms in [10, 20, 40, 60] {
            let samples = ms * 16;
            let mut decoder = Decoder::new();
            let mut pcm = [0; MAX_PACKET_SAMPLES];
            let mut heard = Vec::new();
            for packet in encode(&sound, samples) {
                assert_eq!(packet_samples(&packet), Some(samples), "{ms} ms");
                assert!(packet.len() < 400, "{ms} ms: {} octets", packet.len());
                assert_eq!(decoder.decode(&packet, &mut pcm), samples);
                heard.extend_from_slice(&pcm[..samples]);
            }
            // The codec's delay at 16 kHz is 6.5 ms.
            let distance = level_distance(&sound[1600..16_000], &heard[1704..16_104]);
            assert!(distance < 2.5, "{ms} ms: {distance:.2} dB");
        }
        assert_eq!(
            Encoder::new().encode(&sound[..480], &mut [0; 400]),
            0,
            "no packet has 30 ms"
        );
    }

    #[test]
    fn a_lost_packet_is_recovered_from_the_next() {
        let sound = voice(2000);
        let packets = encode(&sound, 320);
        let play = |cover: &dyn Fn(&mut Decoder, usize, &mut [i16]) -> usize| {
            let mut decoder = Decoder::new();
            let mut heard = Vec::new();
            for (n, packet) in packets.iter().enumerate().take(packets.len() - 1) {
                let mut pcm = [0; 320];
                let samples = if n % 7 == 3 {
                    cover(&mut decoder, n, &mut pcm)
                } else {
                    decoder.decode(packet, &mut pcm)
                };
                assert_eq!(samples, 320);
                heard.push(pcm);
            }
            heard
        };
        let whole = play(&|decoder, n, pcm| decoder.decode(&packets[n], pcm));
        let recovered = play(&|decoder, n, pcm| decoder.recover(&packets[n + 1], pcm));
        let concealed = play(&|decoder, _, pcm| decoder.conceal(pcm));
        let error = |heard: &[[i16; 320]]| -> f64 {
            let lost = (0..heard.len()).filter(|n| n % 7 == 3);
            lost.map(|n| crate::resample::snr_db(&whole[n], &heard[n]))
                .sum::<f64>()
        };
        assert!(
            error(&recovered) > error(&concealed) + 20.0,
            "{} against {}",
            error(&recovered),
            error(&concealed)
        );
    }

    #[test]
    fn lengths_by_the_first_octets() {
        let cases: &[(&[u8], Option<usize>)] = &[
            (&[], None),
            (&[0 << 3], Some(160)),
            (&[3 << 3], Some(960)),
            (&[12 << 3], Some(160)),
            (&[16 << 3], Some(40)),
            (&[31 << 3 | 1], Some(640)),
            (&[1 << 3 | 3, 3], Some(960)),
            (&[1 << 3 | 3, 6], Some(1920)),
            (&[1 << 3 | 3, 7], None),
            (&[1 << 3 | 3, 0], None),
            (&[3], None),
        ];
        for (packet, want) in cases {
            assert_eq!(packet_samples(packet), *want, "{packet:?}");
        }
    }

    #[test]
    fn a_reset_forgets() {
        let sound = tone::sine(400.0, -10.0, 20);
        let (mut used, mut fresh) = (Encoder::new(), Encoder::new());
        let (mut a, mut b) = ([0; 400], [0; 400]);
        used.encode(&voice(20), &mut a);
        used.reset();
        let octets = used.encode(&sound, &mut a);
        let octets_fresh = fresh.encode(&sound, &mut b);
        assert_eq!(a[..octets], b[..octets_fresh]);
    }

    proptest! {
        #[test]
        fn random_packets_never_panic(packets in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..300), 1..12)) {
            let mut decoder = Decoder::new();
            let mut pcm = [0; MAX_PACKET_SAMPLES];
            for packet in packets {
                let samples = decoder.decode(&packet, &mut pcm);
                prop_assert!(samples == 0 || Some(samples) == packet_samples(&packet));
                decoder.recover(&packet, &mut pcm[..320]);
            }
        }
    }
}
