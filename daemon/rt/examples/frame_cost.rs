//! What one frame costs, both ways, in every codec, in clear and sealed, against the ptime of 20 ms.
//!
//! ```text
//! cargo run --release -p attendant-rt --example frame_cost [seconds of speech, default 60]
//! ```
//!
//! Encoding: frame to packet to (sealed) datagram. Decoding: (sealed) datagram to packet to jitter buffer to frame.
//! The voice activity detection, which every received frame goes through besides, is measured apart. Nothing is sent.

#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_macros,
    clippy::disallowed_types
)]

use attendant_media::codec::MAX_PAYLOAD_OCTETS;
use attendant_media::packetizer::Packetizer;
use attendant_media::playout::Playout;
use attendant_media::rtp::{Header, Packet, SeqNumber};
use attendant_media::srtp::{MasterKey, Opener, Sealer, Suite};
use attendant_media::{Codec, Frame, frame, tone};
use attendant_rt::Vad;
use std::time::{Duration, Instant};

const PTIME: Duration = Duration::from_millis(20);

/// Something that codecs work at: three tones that move, and noise.
fn material(seconds: u32) -> Vec<Frame> {
    let (mut sound, mut seed) = (Vec::new(), 1u32);
    for n in 0..seconds * 10 {
        let base = 120.0 + (n % 7) as f32 * 15.0;
        let parts = [1.0f32, 3.0, 8.0].map(|k| tone::sine(base * k, -18.0 - 3.0 * k, 100));
        let [low, middle, high] = parts;
        for ((low, middle), high) in low.iter().zip(&middle).zip(&high) {
            seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let noise = (seed >> 16) as i32 / 256 - 128;
            sound.push((i32::from(*low) + i32::from(*middle) + i32::from(*high) + noise) as i16);
        }
    }
    frame::frames(&sound).collect()
}

struct Cost {
    mean: Duration,
    worst: Duration,
}

impl Cost {
    fn of(mut times: Vec<Duration>) -> Cost {
        times.sort_unstable();
        Cost {
            mean: times.iter().sum::<Duration>() / times.len() as u32,
            // 99.9 %: what the machine does besides is not ours.
            worst: times[times.len() - 1 - times.len() / 1000],
        }
    }
}

fn row(codec: Codec, ptime_ms: u16, suite: Option<Suite>, frames: &[Frame]) -> (Cost, Cost) {
    let key = MasterKey::new([3; 30]);
    let mut sealer = suite.map(|suite| Sealer::new(suite, &key));
    let mut opener = suite.map(|suite| Opener::new(suite, &key));
    let mut packetizer = Packetizer::new(codec, ptime_ms);
    let mut playout = Playout::new(codec);
    let (mut seq, mut end) = (SeqNumber(0), 0u32);
    let (mut encoding, mut decoding) = (Vec::new(), Vec::new());
    for (n, frame) in frames.iter().enumerate() {
        let mut wires = [[0u8; 1500]; 2];
        let mut made = [0usize; 2];
        let started = Instant::now();
        end = end.wrapping_add(codec.rtp_clock_hz() / 50);
        packetizer.push(frame);
        let mut payload = [0; MAX_PAYLOAD_OCTETS];
        let mut count = 0;
        while let Some(packed) = packetizer.poll(&mut payload) {
            let header = Header {
                marker: false,
                payload_type: 96,
                seq,
                timestamp: end.wrapping_sub(packed.age),
                ssrc: 1,
            };
            let packet = Packet {
                header,
                payload: &payload[..packed.octets],
            };
            let octets = packet.write(&mut wires[count]).expect("fits");
            made[count] = match &mut sealer {
                Some(sealer) => sealer.seal_rtp(&mut wires[count], octets).expect("fits"),
                None => octets,
            };
            seq = seq.next();
            count += 1;
        }
        encoding.push(started.elapsed());
        let started = Instant::now();
        for (wire, octets) in wires.iter_mut().zip(made).take(count) {
            let octets = match &mut opener {
                Some(opener) => opener.open_rtp(&mut wire[..octets]).expect("authentic"),
                None => octets,
            };
            let packet = Packet::parse(&wire[..octets]).expect("RTP");
            playout.insert(&packet, n as u64 * 20_000);
        }
        std::hint::black_box(playout.frame(false));
        decoding.push(started.elapsed());
    }
    (Cost::of(encoding), Cost::of(decoding))
}

fn main() {
    let seconds = std::env::args().nth(1).and_then(|s| s.parse().ok()).unwrap_or(60);
    let frames = material(seconds);
    let share = |cost: &Cost| cost.mean.as_secs_f64() / PTIME.as_secs_f64() * 100.0;
    println!(
        "{} frames; µs per frame of 20 ms: mean (99.9 %), share of a core for one leg both ways",
        frames.len()
    );
    println!(
        "{:<8}{:>6} {:<9}{:>18}{:>18}{:>10}",
        "codec", "ptime", "", "encode", "decode", "share"
    );
    for codec in Codec::ALL {
        for (ptime_ms, suite) in [(20, None), (20, Some(Suite::Tag80)), (60, None)] {
            let (encode, decode) = row(codec, ptime_ms, suite, &frames);
            let cell = |cost: &Cost| {
                let us = |time: Duration| time.as_secs_f64() * 1e6;
                format!("{:.1} ({:.1})", us(cost.mean), us(cost.worst))
            };
            println!(
                "{:<8}{:>6} {:<9}{:>18}{:>18}{:>8.2} %",
                codec.name(),
                ptime_ms,
                if suite.is_some() { "SRTP" } else { "" },
                cell(&encode),
                cell(&decode),
                share(&encode) + share(&decode)
            );
        }
    }
    let mut vad = Vad::new();
    let times = frames
        .iter()
        .map(|frame| {
            let started = Instant::now();
            std::hint::black_box(vad.handle_frame(frame));
            started.elapsed()
        })
        .collect();
    let cost = Cost::of(times);
    println!(
        "voice activity: {:.1} µs, {:.2} % of a core",
        cost.mean.as_secs_f64() * 1e6,
        share(&cost)
    );
}
