//! The buffer alone, on a line of numbered packets.

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
            buffer: JitterBuffer::new(Codec::Pcmu),
            tick: 0,
        }
    }

    fn arrive(&mut self, n: u32) -> Inserted {
        self.arrive_as(n, n)
    }

    /// The packet at ptime `n`, with the sequence number of another.
    fn arrive_as(&mut self, n: u32, number: u32) -> Inserted {
        let payload = [n as u8; 160];
        let header = Header {
            marker: false,
            payload_type: 0,
            seq: SeqNumber(65_530u16.wrapping_add(number as u16)),
            timestamp: START.wrapping_add(n * 160),
            ssrc: 1,
        };
        let packet = Packet {
            header,
            payload: &payload,
        };
        self.buffer.insert(&packet, self.tick * 20_000)
    }

    /// `Some(n)` when packet n played, `None` when concealed.
    fn pop(&mut self) -> Option<u8> {
        self.tick += 1;
        let mut out = [0; FRAME_UNITS];
        matches!(self.buffer.pop(&mut out, false), Popped::Frame(_)).then(|| out[0] as u8)
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
        let mut buffer = JitterBuffer::new(Codec::Pcmu);
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
            if let Popped::Frame(_) = buffer.pop(&mut out, true) {
                assert_eq!(out, [u16::from(next); 160], "{case}");
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
        let mut buffer = JitterBuffer::new(Codec::Pcmu);
        let payload = [1u8; 700];
        let mut out = [0; 160];
        for (seq, timestamp, length, now) in packets {
            let header = Header { marker: false, payload_type: 0, seq: SeqNumber(seq), timestamp, ssrc: 0 };
            buffer.insert(&Packet { header, payload: &payload[..length] }, now / 1000);
            buffer.pop(&mut out, seq % 2 == 0);
        }
    }
}

#[test]
fn a_jump_without_a_missing_number_is_silence_and_no_loss() {
    // With one frame in hand, and with none.
    for in_hand in [0u32, 1] {
        let mut line = Line::new();
        let mut lag = Vec::new();
        for tick in 0..40u32 {
            // After packet 9 the peer is silent for 5 ptimes; its numbers go on.
            for n in [tick, tick + 1]
                .into_iter()
                .take(if tick == 0 { 1 + in_hand as usize } else { 1 })
            {
                let n = if tick > 0 { n + in_hand } else { n };
                if n < 10 {
                    line.arrive(n);
                } else if n >= 15 {
                    line.arrive_as(n, n - 5);
                }
            }
            lag.push(line.pop());
        }
        let stats = line.buffer.stats();
        assert_eq!(
            (stats.lost, stats.concealed),
            (0, 0),
            "{in_hand} in hand: {lag:?}"
        );
        assert_eq!(line.buffer.depth_ms(), in_hand * 20);
        assert_eq!(lag[39], Some(39));
    }
}

#[test]
fn comfort_noise_and_events_are_silence_and_no_loss() {
    let mut line = Line::new();
    line.run(10, |tick| vec![tick]);
    assert!(line.buffer.account_silence(SeqNumber(65_530u16.wrapping_add(10))));
    let mut out = [0; FRAME_UNITS];
    for _ in 0..300 {
        line.tick += 1;
        assert_eq!(line.buffer.pop(&mut out, true), Popped::Quiet);
    }
    line.arrive_as(310, 11);
    assert_eq!(line.pop(), Some(310u32 as u8));
    let stats = line.buffer.stats();
    assert_eq!((stats.lost, stats.concealed, stats.grown), (0, 0, 0));
}

#[test]
fn after_a_silence_the_delay_is_what_the_line_needs() {
    let mut line = Line::new();
    // Odd packets come two ticks late.
    line.run(60, |tick| match tick {
        1 => vec![],
        _ if tick % 2 == 0 => vec![tick],
        _ => vec![tick - 2],
    });
    let concealed = line.buffer.stats().concealed;
    assert!(concealed > 0);
    // Silent for 2 s, then the same line again: nothing is missing at the start of the sentence.
    line.buffer.account_silence(SeqNumber(65_530u16.wrapping_add(60)));
    (0..100).for_each(|_| {
        line.pop();
    });
    let mut heard = Vec::new();
    for tick in 160..220u32 {
        if tick % 2 == 0 {
            line.arrive_as(tick, tick - 99);
        } else if tick >= 163 {
            line.arrive_as(tick - 2, tick - 2 - 99);
        }
        heard.extend(line.pop());
    }
    assert!(
        line.buffer.stats().concealed <= concealed + 1,
        "{:?}",
        line.buffer.stats()
    );
    assert!(
        heard.windows(2).all(|w| w[1] == w[0].wrapping_add(1)),
        "{heard:?}"
    );
}

#[test]
fn the_clock_of_opus_wraps_like_any() {
    let mut clock = Clock::new(Codec::Opus);
    let first = clock.units(u32::MAX - 960 * 3);
    let mut last = first;
    for n in 1..10u32 {
        let unit = clock.units((u32::MAX - 960 * 3).wrapping_add(960 * n));
        assert_eq!(unit.wrapping_sub(last), 160);
        last = unit;
    }
}
