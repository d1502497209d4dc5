//! Legs over real sockets on the loopback, ticked by hand: no thread, no sleeping, virtual time.

use crate::engine::{Engine, TICK_US};
use crate::handle::{Leg, LegConfig, make_test_leg};
use crate::leg::RtLeg;
use crate::stats::RtCounters;
use crate::{RxFrame, TxFrame};
use attendant_media::rtp::{Header, Packet, SeqNumber};
use attendant_media::{Codec, Frame, tone};
use rtrb::{Consumer, Producer, RingBuffer};
use std::net::UdpSocket;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

fn socket() -> UdpSocket {
    UdpSocket::bind("127.0.0.1:0").unwrap()
}

fn leg(socket: UdpSocket, remote: &UdpSocket, event_pt: Option<u8>) -> (Leg, RtLeg) {
    let remote = remote.local_addr().unwrap();
    make_test_leg(LegConfig {
        socket,
        remote,
        codec: Codec::Pcma,
        event_pt,
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
        .set_remote(mine.local_addr().unwrap(), Codec::Pcmu, None)
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
        datagram[1] = [8, 0, 101, 13, 99][random() as usize % 5];
        let octets = random() as usize % 600;
        peer.send_to(&datagram[..octets], mine.local_addr().unwrap())
            .unwrap();
        bench.tick();
    }
    assert!(near.control.stats().rx_malformed > 0);
}
