//! A million mutated datagrams through everything that reads the network: RTP, RTCP, SRTP, telephone-events, comfort
//! noise, all decoders. No panic, no growth. A failure prints the number of the datagram; the seed is fixed.

use crate::report::Reporter;
use crate::rx::Receiver;
use crate::source::SourceFilter;
use crate::stats::LegShared;
use attendant_media::codec::MAX_PAYLOAD_OCTETS;
use attendant_media::packetizer::Packetizer;
use attendant_media::rtcp::{Block, Report, SenderInfo};
use attendant_media::rtp::{Header, Packet, SeqNumber};
use attendant_media::srtp::{Keys, MasterKey, Sealer, Suite};
use attendant_media::stream::{Rtcp, Stream};
use attendant_media::telephone_event::Event;
use attendant_media::{Codec, Frame, tone};
use std::net::SocketAddr;

/// Datagrams in a release build; a tenth of it in a debug build.
const DATAGRAMS: usize = if cfg!(debug_assertions) {
    100_000
} else {
    1_000_000
};
/// Datagrams between two ticks.
const PER_TICK: usize = 16;
/// What the process may have grown by when all is done \[KiB\]: the test harness's own.
const MAX_GROWTH_KIB: u64 = 2048;

struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, limit: usize) -> usize {
        (self.next() % limit.max(1) as u64) as usize
    }
}

/// Valid datagrams to begin with: every codec and length, events, comfort noise, reports.
fn samples() -> Vec<Vec<u8>> {
    let mut samples = Vec::new();
    let mut wire = [0; 1500];
    let mut rtp = |payload_type, payload: &[u8]| {
        let header = Header {
            marker: false,
            payload_type,
            seq: SeqNumber(samples.len() as u16),
            timestamp: samples.len() as u32 * 160,
            ssrc: 7,
        };
        let octets = Packet { header, payload }.write(&mut wire).unwrap();
        samples.push(wire[..octets].to_vec());
    };
    for (codec, payload_type) in [
        (Codec::Pcmu, 0),
        (Codec::Pcma, 8),
        (Codec::G722, 9),
        (Codec::Opus, 96),
    ] {
        for ptime_ms in [10, 20, 40, 60] {
            let mut packetizer = Packetizer::new(codec, ptime_ms);
            for _ in 0..6 {
                packetizer.push(&Frame::from_slice(&tone::sine(500.0, -12.0, 20)));
                let mut out = [0; MAX_PAYLOAD_OCTETS];
                while let Some(packed) = packetizer.poll(&mut out) {
                    rtp(payload_type, &out[..packed.octets]);
                }
            }
        }
    }
    for code in 0..12 {
        let event = Event {
            code,
            end: code % 3 == 0,
            volume: 10,
            duration: 160,
        };
        rtp(101, &event.to_octets());
        rtp(13, &[code * 8, 3, 4]);
    }
    for goodbye in [false, true] {
        let sender = SenderInfo {
            ntp: 1 << 33,
            timestamp: 5,
            packets: 6,
            octets: 7,
        };
        let report = Report {
            ssrc: 7,
            sender: Some(sender),
            block: Some(Block {
                ssrc: 1,
                ..Block::default()
            }),
            cname: b"0123456789abcdef01234567",
            goodbye,
        };
        let mut wire = [0; 200];
        let octets = report.write(&mut wire).unwrap();
        samples.push(wire[..octets].to_vec());
    }
    samples
}

/// Flips, overwrites, cuts, lengthens, swaps; more often than not the stream's numbers go on.
fn mutate(random: &mut Random, samples: &[Vec<u8>], n: usize) -> Vec<u8> {
    let mut datagram = samples[random.below(samples.len())].clone();
    if datagram.len() >= 12 && random.below(4) > 0 && !attendant_media::rtcp::is_rtcp(&datagram) {
        datagram[2..4].copy_from_slice(&(n as u16).to_be_bytes());
        datagram[4..8].copy_from_slice(&(n as u32 * 160).to_be_bytes());
    }
    for _ in 0..random.below(4) {
        let at = random.below(datagram.len().max(1));
        match random.below(7) {
            0 => datagram.truncate(at),
            1 => datagram.extend_from_within(at.min(datagram.len())..),
            2 => datagram.resize(random.below(1500), random.next() as u8),
            3 if datagram.len() > 1 => datagram[1] = random.next() as u8,
            4 if !datagram.is_empty() => datagram[0] = 0x80 | random.next() as u8,
            _ if at < datagram.len() => datagram[at] ^= 1 << random.below(8),
            _ => {}
        }
    }
    datagram.truncate(1500);
    datagram
}

fn resident_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))
        .unwrap();
    line.split_whitespace().next().unwrap().parse().unwrap()
}

#[test]
fn a_million_mutated_datagrams() {
    let samples = samples();
    let from: SocketAddr = "192.0.2.1:4000".parse().unwrap();
    let key = MasterKey::new([7; 30]);
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    let mut before_kib = 0;
    // In clear, sealed by somebody who has the key, and sealed and then damaged.
    let mut legs: Vec<_> = [None, Some(Suite::Tag80), Some(Suite::Tag32)]
        .map(|suite| {
            let stream = Stream {
                payload_type: 96,
                receive_type: 96,
                rtcp: Rtcp::Mux,
                srtp: suite.map(|suite| Keys {
                    suite,
                    local: key,
                    remote: key,
                }),
                ..Stream::plain(from, Codec::Opus)
            };
            let sealer = suite.map(|suite| Sealer::new(suite, &key));
            (
                Receiver::new(stream),
                SourceFilter::new(from, true),
                Reporter::new(Rtcp::Mux, 1, 1),
                LegShared::new(0),
                sealer,
            )
        })
        .into();
    for n in 0..DATAGRAMS {
        let now_us = (n / PER_TICK) as u64 * 20_000;
        let which = random.below(legs.len());
        let (receiver, source, reporter, shared, sealer) = &mut legs[which];
        let mut datagram = mutate(&mut random, &samples, n);
        if let Some(sealer) = sealer {
            let octets = datagram.len();
            let is_rtcp = attendant_media::rtcp::is_rtcp(&datagram);
            // Else nearly all would fail at the tag: the sender's rollover counter is in it.
            if octets >= 12 && !is_rtcp {
                datagram[2..4].copy_from_slice(&(n as u16).to_be_bytes());
                datagram[8..12].copy_from_slice(&7u32.to_be_bytes());
            }
            datagram.resize(octets + 14, 0);
            let sealed = if is_rtcp {
                sealer.seal_rtcp(&mut datagram, octets)
            } else {
                sealer.seal_rtp(&mut datagram, octets)
            };
            datagram.truncate(sealed.unwrap_or(octets));
            if random.below(8) == 0 && !datagram.is_empty() {
                let at = random.below(datagram.len());
                datagram[at] ^= 0x10;
            }
        }
        receiver.take(&mut datagram, from, source, reporter, shared, now_us);
        if n % PER_TICK == 0 {
            let frame = receiver.frame();
            assert!((0.0..=1.0).contains(&frame.speech_prob), "datagram {n}");
            assert!(receiver.playout().depth_ms() <= 1000, "datagram {n}");
        }
        if n == DATAGRAMS / 10 {
            before_kib = resident_kib();
        }
    }
    for (receiver, _, _, shared, sealer) in &mut legs {
        let stats = receiver.playout().stats();
        println!("{stats:?} {:?}", shared.stats(0));
        // Most of it got past the first checks, and some of it did not.
        assert!(stats.packets > DATAGRAMS as u64 / 20, "{stats:?}");
        let stats = shared.stats(0);
        assert!(stats.rx_malformed > 0 && stats.rx_reports > 0, "{stats:?}");
        assert_eq!(stats.rx_unauthentic > 0, sealer.is_some());
    }
    let grown = resident_kib().saturating_sub(before_kib);
    assert!(grown <= MAX_GROWTH_KIB, "{grown} KiB");
}
