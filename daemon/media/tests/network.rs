//! The jitter buffer and what follows it on simulated networks: hours of virtual time, every fault a line can have.

#![allow(missing_docs)]

use attendant_media::codec::MAX_PAYLOAD_OCTETS;
use attendant_media::jitter::{FRAME_UNITS, Inserted, JitterBuffer, Popped, Stats};
use attendant_media::packetizer::Packetizer;
use attendant_media::playout::{Heard, Playout};
use attendant_media::rtp::{Header, Packet, SeqNumber};
use attendant_media::{Codec, frame, level, tone};
use proptest::prelude::*;

/// A path with its faults; all random choices come from the seed.
#[derive(Clone, Copy, Debug)]
struct Network {
    seed: u64,
    /// The sender's clock against ours: positive runs fast.
    drift_ppm: i64,
    /// Packets arrive up to so much later than the fastest \[ms\].
    jitter_ms: u64,
    /// Of 1000 packets, this many are lost, each for itself.
    loss_permille: u64,
    /// Of 1000 packets, this many begin a burst of losses, and bursts end with one in three.
    burst_permille: u64,
    /// Of 1000 packets, this many come twice.
    twice_permille: u64,
    /// Of 1000 packets, this many come 30 ms late, behind the next one or two.
    reordered_permille: u64,
    ptime_ms: u64,
}

const CLEAN: Network = Network {
    seed: 1,
    drift_ppm: 0,
    jitter_ms: 0,
    loss_permille: 0,
    burst_permille: 0,
    twice_permille: 0,
    reordered_permille: 0,
    ptime_ms: 20,
};

struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        // SplitMix64.
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % limit.max(1)
    }

    fn hits(&mut self, permille: u64) -> bool {
        self.below(1000) < permille
    }
}

impl Network {
    /// Arrivals in order: instant \[µs\] and number of the packet.
    fn arrivals(&self, packets: u64) -> Vec<(u64, u64)> {
        let mut random = Random(self.seed);
        let mut arrivals = Vec::new();
        let mut in_burst = false;
        for n in 0..packets {
            in_burst = if in_burst {
                random.below(3) > 0
            } else {
                random.hits(self.burst_permille)
            };
            let lost = random.hits(self.loss_permille) || in_burst;
            let late = if random.hits(self.reordered_permille) {
                30_000
            } else {
                0
            };
            let delay = 10_000 + random.below(self.jitter_ms * 1000 + 1) + late;
            let sent = n * self.ptime_ms * 1000;
            let sent = (sent as i64 - sent as i64 * self.drift_ppm / 1_000_000) as u64;
            if !lost {
                arrivals.push((sent + delay, n));
            }
            if random.hits(self.twice_permille) && !lost {
                arrivals.push((sent + delay + random.below(40_000), n));
            }
        }
        arrivals.sort_unstable();
        arrivals
    }

    fn lost(&self, packets: u64) -> u64 {
        let mut seen: Vec<u64> = self.arrivals(packets).into_iter().map(|(_, n)| n).collect();
        seen.sort_unstable();
        seen.dedup();
        packets - seen.len() as u64
    }
}

#[derive(Debug, Default)]
struct Outcome {
    stats: Stats,
    frames: u64,
    concealed: u64,
    /// Concealed after the first ten seconds.
    concealed_later: u64,
    max_depth_ms: u32,
    depth_sum_ms: u64,
}

/// Runs G.711-like packets through the buffer alone. Each octet tells its packet, so that order is checked.
fn run(network: &Network, seconds: u64) -> Outcome {
    // A fast sender must not be done before we are.
    let packets = (seconds + 5) * 1000 / network.ptime_ms;
    let octets = network.ptime_ms as usize * 8;
    let mut buffer = JitterBuffer::new(Codec::Pcma);
    let mut arrivals = network.arrivals(packets).into_iter().peekable();
    let mut outcome = Outcome::default();
    let mut newest: Option<u64> = None;
    for tick in 0..seconds * 50 {
        let now_us = tick * 20_000;
        while let Some((at, n)) = arrivals.next_if(|(at, _)| *at <= now_us) {
            let payload = vec![(n % 251) as u8; octets];
            let header = Header {
                marker: false,
                payload_type: 8,
                seq: SeqNumber(n as u16),
                timestamp: (n * octets as u64) as u32,
                ssrc: 1,
            };
            let packet = Packet {
                header,
                payload: &payload,
            };
            assert_ne!(buffer.insert(&packet, at), Inserted::Refused);
        }
        let mut units = [0; FRAME_UNITS];
        match buffer.pop(&mut units, tick % 3 == 0) {
            Popped::Frame(at) => {
                outcome.frames += 1;
                let n = u64::from(at) / octets as u64;
                // The timestamp says which packet; its octets must agree, and never go back.
                assert_eq!(u64::from(units[0]), n % 251, "tick {tick}");
                assert!(newest.is_none_or(|newest| n >= newest), "{n} after {newest:?}");
                newest = Some(n);
            }
            Popped::Hole(_) | Popped::Dry => {
                outcome.concealed += 1;
                outcome.concealed_later += u64::from(tick > 500);
            }
            Popped::Quiet | Popped::Empty => {}
        }
        outcome.max_depth_ms = outcome.max_depth_ms.max(buffer.depth_ms());
        outcome.depth_sum_ms += u64::from(buffer.depth_ms());
    }
    outcome.stats = buffer.stats();
    assert_eq!(outcome.stats.concealed, outcome.concealed);
    outcome
}

#[test]
fn clocks_drift_for_an_hour() {
    // 200 ppm over an hour are 720 ms: 36 frames to insert or to skip. A fast peer's are skipped unheard.
    for (drift_ppm, jitter_ms) in [
        (200, 0),
        (-200, 0),
        (200, 8),
        (-200, 8),
        (50, 15),
        (-50, 15),
        (0, 8),
    ] {
        let network = Network {
            drift_ppm,
            jitter_ms,
            ..CLEAN
        };
        let outcome = run(&network, 3600);
        let frames = drift_ppm.unsigned_abs() * 3600 / 20_000;
        let (grown, skipped) = (outcome.stats.grown, outcome.stats.skipped);
        let moved = skipped as i64 - grown as i64;
        println!("{drift_ppm} ppm, {jitter_ms} ms jitter: grown {grown}, skipped {skipped}, {outcome:?}");
        assert!(
            (moved - drift_ppm * 3600 / 20_000).abs() <= 3,
            "{network:?}: {outcome:?}"
        );
        assert!(grown + skipped <= frames + 40, "{network:?}: {outcome:?}");
        assert!(outcome.max_depth_ms <= 80, "{network:?}: {outcome:?}");
        assert_eq!((outcome.stats.lost, outcome.stats.duplicates), (0, 0));
        assert!(outcome.concealed <= grown + 2, "{network:?}: {outcome:?}");
    }
}

#[test]
fn jitter_of_60_ms_settles() {
    for ptime_ms in [10, 20, 30, 60] {
        let network = Network {
            jitter_ms: 60,
            ptime_ms,
            ..CLEAN
        };
        let outcome = run(&network, 600);
        println!("ptime {ptime_ms}: {outcome:?}");
        assert!(
            outcome.concealed_later * 200 <= outcome.frames,
            "more than 0.5 %: {outcome:?}"
        );
        let mean_ms = outcome.depth_sum_ms / (600 * 50);
        assert!(mean_ms <= 60 + ptime_ms + 20, "{mean_ms} ms: {outcome:?}");
        assert_eq!(outcome.stats.lost, 0);
    }
}

#[test]
fn losses_are_concealed_and_nothing_else() {
    for (loss_permille, burst_permille) in [(50, 0), (0, 35), (20, 20)] {
        let network = Network {
            loss_permille,
            burst_permille,
            jitter_ms: 10,
            ..CLEAN
        };
        let outcome = run(&network, 600);
        let lost = network.lost(30_000);
        println!("loss {loss_permille}, bursts {burst_permille}: {lost} lost, {outcome:?}");
        assert!(lost > 1000);
        // The last packets may be missing without anybody knowing.
        assert!(outcome.stats.lost.abs_diff(lost) <= 10, "{lost}: {outcome:?}");
        let extra = outcome.concealed as i64 - lost as i64;
        // Of a burst longer than 200 ms the rest is silence, not concealed.
        assert!(
            (-(lost as i64) / 20..=60).contains(&extra),
            "{extra} more than lost: {outcome:?}"
        );
        assert!(outcome.max_depth_ms <= 140, "{outcome:?}");
    }
}

#[test]
fn reordering_and_duplicates_do_no_harm() {
    let network = Network {
        jitter_ms: 10,
        twice_permille: 50,
        reordered_permille: 50,
        ..CLEAN
    };
    let outcome = run(&network, 600);
    println!("{outcome:?}");
    assert_eq!(outcome.stats.lost, 0);
    assert!(outcome.stats.duplicates > 1000);
    assert!(outcome.concealed_later <= 60, "{outcome:?}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]
    /// Any mixture of faults: in order, bounded, and all of it accounted for.
    #[test]
    fn any_network(
        seed: u64,
        drift_ppm in -500i64..500,
        jitter_ms in 0u64..100,
        loss_permille in 0u64..200,
        burst_permille in 0u64..50,
        twice_permille in 0u64..100,
        reordered_permille in 0u64..100,
        ptime in 1u64..7,
    ) {
        let network = Network {
            seed, drift_ppm, jitter_ms, loss_permille, burst_permille, twice_permille, reordered_permille, ptime_ms: ptime * 10,
        };
        let outcome = run(&network, 60);
        prop_assert!(outcome.max_depth_ms <= 120 + 20 + 120, "{outcome:?}");
        prop_assert!(outcome.frames + outcome.concealed > 2000, "{outcome:?}");
    }
}

/// Speech-like sound through codec, network and receiver; what is heard has the level of what was said.
#[test]
fn voices_survive_bad_networks_in_every_codec() {
    let sound: Vec<i16> = (0..30)
        .flat_map(|n| tone::sine(200.0 + n as f32 * 40.0, -16.0, 1000))
        .collect();
    for codec in Codec::ALL {
        for (loss_permille, burst_permille) in [(0, 0), (50, 0), (0, 35)] {
            let network = Network {
                jitter_ms: 20,
                loss_permille,
                burst_permille,
                twice_permille: 10,
                drift_ppm: 100,
                seed: 3,
                ..CLEAN
            };
            let mut packetizer = Packetizer::new(codec, 20);
            let wires: Vec<Vec<u8>> = frame::frames(&sound)
                .map(|frame| {
                    let mut out = [0; MAX_PAYLOAD_OCTETS];
                    packetizer.push(&frame);
                    let packed = packetizer.poll(&mut out).unwrap();
                    out[..packed.octets].to_vec()
                })
                .collect();
            let mut arrivals = network.arrivals(wires.len() as u64).into_iter().peekable();
            let mut playout = Playout::new(codec);
            let (mut heard, mut sounding) = (Vec::new(), 0);
            for tick in 0..1500u64 {
                while let Some((at, n)) = arrivals.next_if(|(at, _)| *at <= tick * 20_000) {
                    let header = Header {
                        marker: false,
                        payload_type: 0,
                        seq: SeqNumber(n as u16),
                        timestamp: (n as u32).wrapping_mul(codec.rtp_clock_hz() / 50),
                        ssrc: 1,
                    };
                    let payload = &wires[n as usize];
                    playout.insert(&Packet { header, payload }, at);
                }
                let (frame, of) = playout.frame(false);
                sounding += usize::from(of == Heard::Sound);
                heard.extend(frame.samples);
            }
            let level = level::dbov(&heard[16_000..29 * 16_000]);
            let case = format!(
                "{codec:?}, loss {loss_permille}, bursts {burst_permille}: {level:.1} dBov, {sounding} frames, {:?}",
                playout.stats()
            );
            println!("{case}");
            assert!((level + 16.0).abs() < 2.0, "{case}");
            assert!(sounding > 1200, "{case}");
        }
    }
}
