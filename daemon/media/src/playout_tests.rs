//! Whole streams of every codec through the receiving end.

use super::*;
use crate::codec::MAX_PAYLOAD_OCTETS;
use crate::packetizer::Packetizer;
use crate::rtp::Header;
use crate::{frame::frames, level, tone};

/// One RTP packet, owned.
#[derive(Clone)]
struct Wire {
    header: Header,
    payload: Vec<u8>,
}

/// `ms` of a tone as packets, with the tick at which each is sent.
fn stream(codec: Codec, ptime_ms: u16, ms: u32) -> Vec<(u32, Wire)> {
    stream_of(codec, ptime_ms, &tone::sine(300.0, -15.0, ms))
}

fn stream_of(codec: Codec, ptime_ms: u16, sound: &[i16]) -> Vec<(u32, Wire)> {
    let mut packetizer = Packetizer::new(codec, ptime_ms);
    let clock = codec.rtp_clock_hz() / 50;
    let mut end = 0u32.wrapping_sub(codec.rtp_clock_hz());
    let mut wires: Vec<(u32, Wire)> = Vec::new();
    for (tick, frame) in (0u32..).zip(frames(sound)) {
        packetizer.push(&frame);
        end = end.wrapping_add(clock);
        let mut out = [0; MAX_PAYLOAD_OCTETS];
        while let Some(packed) = packetizer.poll(&mut out) {
            let header = Header {
                marker: false,
                payload_type: 0,
                seq: SeqNumber(65_500u16.wrapping_add(wires.len() as u16)),
                timestamp: end.wrapping_sub(packed.age),
                ssrc: 1,
            };
            let payload = out[..packed.octets].to_vec();
            wires.push((tick, Wire { header, payload }));
        }
    }
    wires
}

fn play(
    playout: &mut Playout,
    wires: &[(u32, Wire)],
    ticks: u32,
    arrives: impl Fn(usize) -> bool,
) -> Vec<(Frame, Heard)> {
    (0..ticks)
        .map(|tick| {
            for (n, (_, wire)) in wires.iter().enumerate().filter(|(_, (sent, _))| *sent == tick) {
                if arrives(n) {
                    let packet = Packet {
                        header: wire.header,
                        payload: &wire.payload,
                    };
                    assert_eq!(playout.insert(&packet, u64::from(tick) * 20_000), Inserted::Kept);
                }
            }
            playout.frame(false)
        })
        .collect()
}

fn level_of(heard: &[(Frame, Heard)]) -> f32 {
    let samples: Vec<i16> = heard.iter().flat_map(|(frame, _)| frame.samples).collect();
    level::dbov(&samples)
}

#[test]
fn every_codec_at_every_ptime() {
    for codec in Codec::ALL {
        for ptime_ms in [10, 20, 30, 40, 50, 60] {
            let mut playout = Playout::new(codec);
            let heard = play(&mut playout, &stream(codec, ptime_ms, 2000), 100, |_| true);
            let settled = &heard[10..95];
            assert!(
                settled.iter().all(|(_, heard)| *heard == Heard::Sound),
                "{codec:?} {ptime_ms}"
            );
            let level = level_of(settled);
            assert!((level + 15.0).abs() < 1.5, "{codec:?} {ptime_ms}: {level:.1} dB");
            assert_eq!(playout.stats().lost, 0);
        }
    }
}

#[test]
fn losses_are_filled_at_every_ptime() {
    for codec in Codec::ALL {
        for ptime_ms in [10u16, 20, 40, 60] {
            let mut playout = Playout::new(codec);
            let wires = stream(codec, ptime_ms, 4000);
            let heard = play(&mut playout, &wires, 200, |n| n % 16 != 6);
            let stats = playout.stats();
            let lost = (0..wires.len()).filter(|n| n % 16 == 6).count() as u64;
            assert_eq!(stats.lost, lost, "{codec:?} {ptime_ms}");
            let frames_lost = lost * u64::from(ptime_ms).max(20) / 20;
            let count = heard
                .iter()
                .filter(|(_, heard)| *heard == Heard::Concealed)
                .count() as u64;
            assert_eq!(count, stats.concealed);
            assert!(
                (frames_lost..=frames_lost + 4).contains(&count),
                "{codec:?} {ptime_ms}: {count} frames for {frames_lost}"
            );
            let level = level_of(&heard[10..190]);
            assert!((level + 15.0).abs() < 2.0, "{codec:?} {ptime_ms}: {level:.1} dB");
        }
    }
}

#[test]
fn opus_losses_are_recovered_once_a_packet_is_in_hand() {
    for ptime_ms in [20u16, 40, 60] {
        let wires = stream_of(Codec::Opus, ptime_ms, &tone::voice(6000));
        let run = |arrives: &dyn Fn(usize) -> bool| {
            let mut playout = Playout::new(Codec::Opus);
            (play(&mut playout, &wires, 300, arrives), playout.depth_ms())
        };
        let (whole, _) = run(&|_| true);
        let (heard, depth_ms) = run(&|n| n % 10 != 5);
        // After the first loss play stays a packet behind.
        assert!(depth_ms >= u32::from(ptime_ms), "{ptime_ms}: {depth_ms}");
        let behind = usize::from(ptime_ms) / 20;
        let mut concealed = 0;
        let mut distance = 0.0;
        for n in 60..280 {
            if heard[n].1 == Heard::Concealed {
                concealed += 1;
                distance += (heard[n].0.energy_dbov() - whole[n - behind].0.energy_dbov()).abs();
            }
        }
        assert!(concealed > 10);
        // As loud as what was sent; concealment alone is 8 dB off at 60 ms.
        let distance = distance / concealed as f32;
        assert!(distance < 3.0, "{ptime_ms}: {distance:.1} dB");
    }
}

#[test]
fn comfort_noise_is_heard_instead_of_silence() {
    let mut playout = Playout::new(Codec::Pcma);
    let wires = stream(Codec::Pcma, 20, 200);
    play(&mut playout, &wires, 10, |_| true);
    let header = Header {
        seq: SeqNumber(65_510),
        ..wires[9].1.header
    };
    let noise = Packet {
        header,
        payload: &[50],
    };
    playout.insert_noise(&noise).unwrap();
    let heard: Vec<_> = (0..100).map(|_| playout.frame(true)).collect();
    assert!(heard.iter().all(|(_, heard)| *heard == Heard::Silence));
    let level = level_of(&heard[2..]);
    assert!((level + 50.0).abs() < 2.0, "{level:.1}");
    assert_eq!((playout.stats().lost, playout.stats().concealed), (0, 0));
    let empty = Packet {
        header: Header {
            seq: SeqNumber(65_511),
            ..header
        },
        payload: &[],
    };
    assert!(playout.insert_noise(&empty).is_err());
}

#[test]
fn a_codec_changes_in_mid_call() {
    let mut playout = Playout::new(Codec::Pcmu);
    for codec in [Codec::Opus, Codec::Pcma, Codec::G722, Codec::Opus, Codec::Pcmu] {
        playout.set_codec(codec);
        let heard = play(&mut playout, &stream(codec, 20, 400), 20, |_| true);
        let level = level_of(&heard[3..]);
        assert!((level + 15.0).abs() < 2.0, "{codec:?}: {level:.1}");
        playout.reset();
    }
}
