//! Legs over real sockets on the loopback, ticked by hand: no thread, no sleeping, virtual time.

use crate::engine::{Engine, TICK_US};
use crate::handle::{Leg, LegConfig, make_test_leg};
use crate::leg::RtLeg;
use crate::stats::RtCounters;
use crate::{RxFrame, TxFrame};
use attendant_media::codec::MAX_PAYLOAD_OCTETS;
use attendant_media::rtp::{Header, Packet, SeqNumber};
use attendant_media::srtp::{Keys, MasterKey, Suite};
use attendant_media::stream::{Rtcp, Stream};
use attendant_media::{Codec, Frame, rtcp, tone};
use rtrb::{Consumer, Producer, RingBuffer};
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

fn socket() -> UdpSocket {
    UdpSocket::bind("127.0.0.1:0").unwrap()
}

fn leg(socket: UdpSocket, remote: &UdpSocket, event_pt: Option<u8>) -> (Leg, RtLeg) {
    let stream = Stream {
        event_pt,
        ..Stream::plain(remote.local_addr().unwrap(), Codec::Pcma)
    };
    streaming_leg(socket, stream)
}

fn streaming_leg(socket: UdpSocket, stream: Stream) -> (Leg, RtLeg) {
    make_test_leg(LegConfig {
        socket,
        rtcp_socket: None,
        stream,
        symmetric: true,
        ssrc: 7,
    })
}

/// Two legs that call each other, on one engine.
struct Bench {
    engine: Engine,
    incoming: Producer<Box<RtLeg>>,
    retired: Consumer<Box<RtLeg>>,
    now_us: u64,
}

impl Bench {
    fn new() -> Bench {
        let (incoming, incoming_end) = RingBuffer::new(8);
        let (retired_in, retired) = RingBuffer::new(8);
        let engine = Engine {
            legs: Vec::with_capacity(8),
            incoming: incoming_end,
            retired: retired_in,
            counters: Arc::new(RtCounters::default()),
            stop: Arc::new(AtomicBool::new(false)),
            priority: 0,
        };
        Bench {
            engine,
            incoming,
            retired,
            now_us: 1_000_000,
        }
    }

    fn add(&mut self, leg: RtLeg) {
        assert!(self.incoming.push(Box::new(leg)).is_ok());
    }

    fn tick(&mut self) {
        self.now_us += TICK_US;
        self.engine.tick(self.now_us, 0);
    }

    /// Two legs with the same agreement, but for the address and the direction of the keys.
    fn agreed(stream: impl Fn(SocketAddr) -> Stream) -> (Bench, Leg, Leg) {
        let (a, b) = (socket(), socket());
        let mut bench = Bench::new();
        let to_b = stream(b.local_addr().unwrap());
        let mut to_a = stream(a.local_addr().unwrap());
        to_a.srtp = to_a.srtp.map(|keys| Keys {
            local: keys.remote,
            remote: keys.local,
            ..keys
        });
        let (leg_a, rt_a) = streaming_leg(a, to_b);
        let (leg_b, rt_b) = streaming_leg(b, to_a);
        bench.add(rt_a);
        bench.add(rt_b);
        (bench, leg_a, leg_b)
    }

    fn pair(event_pt: Option<u8>) -> (Bench, Leg, Leg) {
        let (a, b) = (socket(), socket());
        let mut bench = Bench::new();
        let (leg_a, rt_a) = leg(a.try_clone().unwrap(), &b, event_pt);
        let (leg_b, rt_b) = leg(b, &a, event_pt);
        bench.add(rt_a);
        bench.add(rt_b);
        (bench, leg_a, leg_b)
    }
}

fn voice(frame: Frame, mark: u32, last: bool) -> TxFrame {
    TxFrame {
        frame,
        epoch: 0,
        mark,
        last,
    }
}

fn loud() -> Frame {
    Frame::from_slice(&tone::sine(500.0, -10.0, 20))
}

fn take(leg: &mut Leg) -> Vec<RxFrame> {
    std::iter::from_fn(|| leg.rx.pop().ok()).collect()
}

fn rtp(socket: &UdpSocket, to: &UdpSocket, seq: u16, ssrc: u32, payload: &[u8]) {
    let header = Header {
        marker: false,
        payload_type: 8,
        seq: SeqNumber(seq),
        timestamp: u32::from(seq) * 160,
        ssrc,
    };
    let mut wire = [0; 400];
    let octets = Packet { header, payload }.write(&mut wire).unwrap();
    socket.send_to(&wire[..octets], to.local_addr().unwrap()).unwrap();
}

#[test]
fn two_legs_talk() {
    let (mut bench, mut a, mut b) = Bench::pair(Some(101));
    let sound = tone::sine(440.0, -12.0, 400);
    for (n, frame) in attendant_media::frame::frames(&sound).enumerate() {
        a.tx.push(voice(frame, 3, n == 19)).unwrap();
    }
    for _ in 0..30 {
        bench.tick();
    }
    let heard = take(&mut b);
    assert_eq!(heard.len(), 30);
    assert!(heard.iter().zip(0..).all(|(frame, n)| frame.at == n));
    let spoken = heard.iter().filter(|frame| frame.level_dbov > -20.0).count();
    assert!((19..=21).contains(&spoken), "{spoken}");
    assert!(heard.iter().all(|frame| !frame.concealed));
    let played = a.control.played();
    assert_eq!(
        (played.frames, played.mark, played.frames_in_mark, played.idle),
        (20, 3, 20, true)
    );
    let (stats_a, stats_b) = (a.control.stats(), b.control.stats());
    assert_eq!((stats_a.tx_packets, stats_a.underruns), (30, 0));
    assert_eq!(
        (stats_b.rx_packets, stats_b.rx_lost, stats_b.rx_concealed),
        (30, 0, 0)
    );
    assert_eq!(
        (stats_b.rx_malformed, stats_b.rx_foreign, stats_b.overruns),
        (0, 0, 0)
    );
}

#[test]
fn a_gap_in_a_clause_is_one_underrun_and_its_end_is_none() {
    let (mut bench, mut a, _b) = Bench::pair(None);
    a.tx.push(voice(loud(), 1, false)).unwrap();
    (0..5).for_each(|_| bench.tick());
    assert_eq!(a.control.stats().underruns, 1);
    a.tx.push(voice(loud(), 1, true)).unwrap();
    (0..5).for_each(|_| bench.tick());
    assert_eq!(a.control.stats().underruns, 1);
    assert!(a.control.played().idle);
}

#[test]
fn flush_takes_effect_at_the_next_tick() {
    let (mut bench, mut a, mut b) = Bench::pair(None);
    for _ in 0..100 {
        a.tx.push(voice(loud(), 1, false)).unwrap();
    }
    (0..10).for_each(|_| bench.tick());
    assert!(!a.control.played().idle);
    a.control.flush(1);
    take(&mut b);
    (0..5).for_each(|_| bench.tick());
    let heard = take(&mut b);
    let played = a.control.played();
    assert_eq!((played.frames, played.idle), (10, true));
    assert_eq!(a.control.stats().underruns, 0, "a flushed voice is no underrun");
    // 5 ms of fade, then nothing.
    assert!(
        heard[1..].iter().all(|frame| frame.level_dbov < -60.0),
        "{:?}",
        heard[1].frame
    );
    assert_eq!(a.tx.slots(), 1024, "the ring is empty");
    // The new epoch plays at once, and older frames that come late do not.
    a.tx.push(voice(loud(), 2, true)).unwrap();
    a.tx.push(TxFrame {
        frame: loud(),
        epoch: 1,
        mark: 3,
        last: true,
    })
    .unwrap();
    bench.tick();
    assert_eq!(a.control.played().mark, 3);
}

#[test]
fn loss_is_concealed_and_counted() {
    let (peer, mine) = (socket(), socket());
    let (mut near, rt) = leg(mine.try_clone().unwrap(), &peer, Some(101));
    let mut bench = Bench::new();
    bench.add(rt);
    let payload = [0x2a; 160];
    for n in 0..50u16 {
        if n % 10 != 5 {
            rtp(&peer, &mine, n, 1, &payload);
        }
        bench.tick();
    }
    let stats = near.control.stats();
    assert_eq!(
        (stats.rx_packets, stats.rx_lost, stats.rx_concealed, stats.rx_late),
        (45, 5, 5, 0)
    );
    assert_eq!(take(&mut near).iter().filter(|frame| frame.concealed).count(), 5);
}

#[test]
fn strangers_and_rubbish_are_counted_and_not_heard() {
    let (peer, mine, stranger) = (socket(), socket(), socket());
    let (mut near, rt) = leg(mine.try_clone().unwrap(), &peer, Some(101));
    let mut bench = Bench::new();
    bench.add(rt);
    for n in 0..50u16 {
        rtp(&peer, &mine, n, 1, &[0xd5; 160]);
        rtp(&stranger, &mine, n, 1, &[0x2a; 160]);
        peer.send_to(b"not RTP", mine.local_addr().unwrap()).unwrap();
        bench.tick();
    }
    let stats = near.control.stats();
    assert_eq!(
        (stats.rx_packets, stats.rx_foreign, stats.rx_malformed),
        (50, 50, 50)
    );
    assert!(take(&mut near).iter().all(|frame| frame.level_dbov < -60.0));
}

#[test]
fn digits_go_through_as_events_and_as_tones() {
    for event_pt in [Some(101), None] {
        let (mut bench, a, mut b) = Bench::pair(event_pt);
        for digit in "15*#".chars() {
            a.control.send_digit(digit).unwrap();
        }
        assert!(a.control.send_digit('x').is_err());
        for _ in 0..60 {
            bench.tick();
        }
        let heard: String = take(&mut b).iter().filter_map(|frame| frame.digit).collect();
        assert_eq!(heard, "15*#", "{event_pt:?}");
        assert_eq!(b.control.stats().rx_lost, 0);
    }
}

#[test]
fn hold_sends_nothing_and_keeps_the_voice() {
    let (mut bench, mut a, b) = Bench::pair(None);
    a.tx.push(voice(loud(), 1, true)).unwrap();
    a.control.hold(true);
    (0..5).for_each(|_| bench.tick());
    assert_eq!(a.control.stats().tx_packets, 0);
    a.control.hold(false);
    bench.tick();
    assert_eq!(a.control.played().frames, 1);
    bench.tick();
    assert_eq!(b.control.stats().rx_packets, 2);
}

#[test]
fn ducking_is_smooth() {
    let (mut bench, mut a, mut b) = Bench::pair(None);
    for _ in 0..20 {
        a.tx.push(voice(loud(), 1, false)).unwrap();
    }
    (0..10).for_each(|_| bench.tick());
    a.control.set_gain(250);
    (0..10).for_each(|_| bench.tick());
    let levels: Vec<f32> = take(&mut b).iter().map(|frame| frame.level_dbov).collect();
    assert!((levels[8] - levels[18] - 12.0).abs() < 1.0, "{levels:?}");
}

#[test]
fn a_new_stream_and_a_new_codec_are_followed() {
    let (peer, mine) = (socket(), socket());
    let (near, rt) = leg(mine.try_clone().unwrap(), &peer, Some(101));
    let mut bench = Bench::new();
    bench.add(rt);
    for n in 0..10u16 {
        rtp(&peer, &mine, n, 1, &[0xd5; 160]);
        bench.tick();
    }
    for n in 0..10u16 {
        rtp(&peer, &mine, n, 2, &[0xd5; 160]);
        bench.tick();
    }
    let stats = near.control.stats();
    assert_eq!((stats.ssrc_changes, stats.rx_packets), (1, 19));
    near.control
        .set_remote(Stream::plain(mine.local_addr().unwrap(), Codec::Pcmu))
        .unwrap();
    bench.tick();
    assert_eq!(near.control.stats().tx_errors, 0);
}

#[test]
fn an_unheard_leg_overruns_and_a_dropped_one_retires() {
    let (mut bench, a, b) = Bench::pair(None);
    (0..260).for_each(|_| bench.tick());
    assert_eq!(b.control.stats().overruns, 4);
    drop(a);
    bench.tick();
    assert_eq!((bench.engine.legs.len(), bench.retired.slots()), (1, 1));
}

#[test]
fn random_datagrams_never_panic() {
    let (peer, mine) = (socket(), socket());
    let (near, rt) = leg(mine.try_clone().unwrap(), &peer, Some(101));
    let mut bench = Bench::new();
    bench.add(rt);
    let mut seed = 0x9e37_79b9_7f4a_7c15u64;
    let mut random = || {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        seed
    };
    for _ in 0..2000 {
        let mut datagram = [0u8; 600];
        datagram.iter_mut().for_each(|octet| *octet = random() as u8);
        // Mostly version 2 and a payload type of ours, so that it gets far.
        datagram[0] = 0x80 | (random() as u8 & if random() % 4 == 0 { 0x3f } else { 0 });
        datagram[1] = [8, 0, 9, 101, 13, 99, 200, 203][random() as usize % 8];
        let octets = random() as usize % 600;
        peer.send_to(&datagram[..octets], mine.local_addr().unwrap())
            .unwrap();
        bench.tick();
    }
    assert!(near.control.stats().rx_malformed > 0);
}

fn speak(leg: &mut Leg, ms: u32) {
    let sound = tone::sine(440.0, -12.0, ms);
    let last = ms as usize / 20 - 1;
    for (n, frame) in attendant_media::frame::frames(&sound).enumerate() {
        leg.tx.push(voice(frame, 1, n == last)).unwrap();
    }
}

fn keys() -> Keys {
    Keys {
        suite: Suite::Tag80,
        local: MasterKey::new([1; 30]),
        remote: MasterKey::new([2; 30]),
    }
}

#[test]
fn every_codec_ptime_and_sealing_carries_voice_and_digits() {
    for codec in Codec::ALL {
        for ptime_ms in [10, 20, 30, 40, 60] {
            for srtp in [None, Some(keys())] {
                let case = format!("{codec:?} {ptime_ms} ms, sealed {}", srtp.is_some());
                let (mut bench, mut a, mut b) = Bench::agreed(|remote| Stream {
                    ptime_ms,
                    srtp,
                    ..Stream::plain(remote, codec)
                });
                speak(&mut a, 2000);
                (0..100).for_each(|_| bench.tick());
                a.control.send_digit('7').unwrap();
                (0..40).for_each(|_| bench.tick());
                let heard = take(&mut b);
                let spoken = heard.iter().filter(|frame| frame.level_dbov > -20.0).count();
                assert!((95..=105).contains(&spoken), "{case}: {spoken}");
                // Packets longer than a tick settle in once.
                let concealed = heard.iter().filter(|frame| frame.concealed).count();
                assert!(concealed <= 4, "{case}: {concealed} concealed");
                let digits: String = heard.iter().filter_map(|frame| frame.digit).collect();
                assert_eq!(digits, "7", "{case}");
                let stats = b.control.stats();
                assert_eq!(
                    (stats.rx_lost, stats.rx_malformed, stats.rx_unauthentic),
                    (0, 0, 0),
                    "{case}"
                );
                let made = u64::from(codec.nearest_ptime_ms(ptime_ms));
                let voice_packets = stats.rx_packets - 8;
                assert!(
                    (2400 / made..=2700 / made + 1).contains(&voice_packets),
                    "{case}: {voice_packets}"
                );
            }
        }
    }
}

#[test]
fn packets_in_clear_are_not_heard_where_they_must_be_sealed() {
    let (peer, mine) = (socket(), socket());
    let stream = Stream {
        srtp: Some(keys()),
        ..Stream::plain(peer.local_addr().unwrap(), Codec::Pcma)
    };
    let (mut near, rt) = streaming_leg(mine.try_clone().unwrap(), stream);
    let mut bench = Bench::new();
    bench.add(rt);
    for n in 0..20u16 {
        rtp(&peer, &mine, n, 1, &[0x2a; 160]);
        bench.tick();
    }
    let stats = near.control.stats();
    assert_eq!((stats.rx_packets, stats.rx_unauthentic), (0, 20));
    assert!(take(&mut near).iter().all(|frame| frame.level_dbov < -60.0));
    // What we send is no longer than its tag, and not readable.
    let mut wire = [0; 400];
    let octets = peer.recv(&mut wire).unwrap();
    assert_eq!(octets, 12 + 160 + 10);
    assert_ne!(wire[12..172], [0xd5; 160]);
}

#[test]
fn a_key_that_stays_keeps_its_place_and_a_new_one_is_followed() {
    let (mut bench, mut a, mut b) = Bench::agreed(|remote| Stream {
        srtp: Some(keys()),
        ..Stream::plain(remote, Codec::Pcma)
    });
    let rekey = |leg: &Leg, remote: SocketAddr, local: u8, theirs: u8| {
        let srtp = Keys {
            suite: Suite::Tag80,
            local: MasterKey::new([local; 30]),
            remote: MasterKey::new([theirs; 30]),
        };
        leg.control
            .set_remote(Stream {
                srtp: Some(srtp),
                ..Stream::plain(remote, Codec::Pcma)
            })
            .unwrap();
    };
    let (to_a, to_b) = {
        let legs = &bench.engine.legs;
        assert!(legs.is_empty());
        bench.tick();
        let address = |n: usize| bench.engine.legs[n].socket.local_addr().unwrap();
        (address(0), address(1))
    };
    (0..20).for_each(|_| bench.tick());
    rekey(&a, to_b, 1, 2);
    rekey(&b, to_a, 2, 1);
    speak(&mut a, 400);
    (0..20).for_each(|_| bench.tick());
    assert_eq!(b.control.stats().rx_unauthentic, 0);
    rekey(&a, to_b, 3, 2);
    rekey(&b, to_a, 2, 3);
    speak(&mut a, 400);
    take(&mut b);
    (0..20).for_each(|_| bench.tick());
    assert_eq!(b.control.stats().rx_unauthentic, 0);
    assert!(
        take(&mut b)
            .iter()
            .filter(|frame| frame.level_dbov > -20.0)
            .count()
            > 15
    );
}

#[test]
fn reports_go_both_ways_and_say_what_was_lost() {
    for srtp in [None, Some(keys())] {
        let (mut bench, a, b) = Bench::agreed(|remote| Stream {
            rtcp: Rtcp::Mux,
            srtp,
            ..Stream::plain(remote, Codec::Pcma)
        });
        // 20 s: two to seven reports each.
        (0..1000).for_each(|_| bench.tick());
        let (stats_a, stats_b) = (a.control.stats(), b.control.stats());
        assert!((2..=8).contains(&stats_a.tx_reports), "{stats_a:?}");
        assert_eq!(
            (stats_b.rx_reports, stats_b.rx_malformed),
            (stats_a.tx_reports, 0)
        );
        assert!(stats_a.peer.reports >= 2);
        assert_eq!((stats_a.peer.lost, stats_a.peer.fraction_lost), (0, 0));
        // A report waits for one tick at most on this line.
        let trip = stats_a.peer.round_trip_ms.unwrap();
        assert!(trip <= 40, "{trip} ms");
        // At the end the peer is told.
        let reports = stats_b.rx_reports;
        drop(a);
        bench.tick();
        assert_eq!(b.control.stats().rx_reports, reports + 1);
    }
}

#[test]
fn a_report_of_loss_is_read_from_rtcps_own_port() {
    let (peer, mine) = (socket(), socket());
    let (peer_rtcp, mine_rtcp) = (socket(), socket());
    let to_us = mine_rtcp.local_addr().unwrap();
    let stream = Stream {
        rtcp: Rtcp::Port(peer_rtcp.local_addr().unwrap()),
        ..Stream::plain(peer.local_addr().unwrap(), Codec::Pcma)
    };
    let (near, rt) = make_test_leg(LegConfig {
        socket: mine,
        rtcp_socket: Some(mine_rtcp),
        stream,
        symmetric: true,
        ssrc: 7,
    });
    let mut bench = Bench::new();
    bench.add(rt);
    let block = rtcp::Block {
        ssrc: 7,
        fraction_lost: 26,
        lost: 12,
        jitter: 160,
        ..rtcp::Block::default()
    };
    let report = rtcp::Report {
        ssrc: 99,
        sender: None,
        block: Some(block),
        cname: b"0123456789abcdef01234567",
        goodbye: false,
    };
    let mut wire = [0; 200];
    let octets = report.write(&mut wire).unwrap();
    peer_rtcp.send_to(&wire[..octets], to_us).unwrap();
    peer_rtcp.send_to(b"rubbish", to_us).unwrap();
    (0..20).for_each(|_| bench.tick());
    let stats = near.control.stats();
    assert_eq!((stats.rx_reports, stats.rx_malformed), (1, 1));
    let peer_report = stats.peer;
    assert_eq!(
        (
            peer_report.lost,
            peer_report.fraction_lost,
            peer_report.jitter_units
        ),
        (12, 26, 160)
    );
    assert_eq!(
        peer_report.round_trip_ms, None,
        "it has not answered a report of ours"
    );
    // Ours comes there, as a sender report.
    (0..400).for_each(|_| bench.tick());
    peer_rtcp.set_nonblocking(true).unwrap();
    let octets = peer_rtcp.recv(&mut wire).unwrap();
    let received = rtcp::parse(&wire[..octets], 99).unwrap();
    assert_eq!(received.sender.map(|(ssrc, _)| ssrc), Some(7));
}

#[test]
fn a_clock_changes_under_a_new_ssrc_and_hold_keeps_the_door_open() {
    let (peer, mine) = (socket(), socket());
    let remote = peer.local_addr().unwrap();
    let (near, rt) = streaming_leg(mine, Stream::plain(remote, Codec::Pcma));
    let mut bench = Bench::new();
    bench.add(rt);
    bench.tick();
    let opus = Stream {
        payload_type: 111,
        receive_type: 111,
        ..Stream::plain(remote, Codec::Opus)
    };
    near.control.set_remote(opus).unwrap();
    bench.tick();
    let mut wire = [0; MAX_PAYLOAD_OCTETS];
    let headers: Vec<Header> = (0..2)
        .map(|_| {
            let octets = peer.recv(&mut wire).unwrap();
            Packet::parse(&wire[..octets]).unwrap().header
        })
        .collect();
    assert_eq!((headers[0].payload_type, headers[1].payload_type), (8, 111));
    assert_ne!(headers[0].ssrc, headers[1].ssrc);
    near.control.hold(true);
    (0..750).for_each(|_| bench.tick());
    assert_eq!(peer.recv(&mut wire).unwrap(), 0, "an empty datagram after 15 s");
}
