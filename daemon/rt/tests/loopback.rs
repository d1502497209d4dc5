//! The thread itself, over real sockets: it keeps time, refuses too many legs, and closes what was dropped.

#![allow(missing_docs, clippy::disallowed_methods)]

use attendant_media::{Codec, Frame, Stream, rtp::Packet, tone};
use attendant_rt::{LegConfig, Rt, RtConfig, RtError, TxFrame};
use std::net::UdpSocket;
use std::time::{Duration, Instant};

fn config(remote: &UdpSocket) -> LegConfig {
    LegConfig {
        socket: UdpSocket::bind("127.0.0.1:0").unwrap(),
        rtcp_socket: Some(UdpSocket::bind("127.0.0.1:0").unwrap()),
        stream: Stream::plain(remote.local_addr().unwrap(), Codec::Pcma),
        symmetric: true,
        ssrc: 0x1234_5678,
    }
}

fn peer() -> UdpSocket {
    let peer = UdpSocket::bind("127.0.0.1:0").unwrap();
    peer.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
    peer
}

#[test]
fn one_packet_per_tick_in_sequence() {
    let rt = Rt::spawn(RtConfig::default()).unwrap();
    let peer = peer();
    let mut leg = rt.add_leg(config(&peer)).unwrap();
    let frame = Frame::from_slice(&tone::sine(400.0, -10.0, 20));
    for n in 0..25 {
        leg.tx
            .push(TxFrame {
                frame,
                epoch: 0,
                mark: 1,
                last: n == 24,
            })
            .unwrap();
    }
    let mut wire = [0; 400];
    let started = Instant::now();
    let mut previous = None;
    for n in 0..50u32 {
        let (octets, _) = peer.recv_from(&mut wire).unwrap();
        let packet = Packet::parse(&wire[..octets]).unwrap();
        assert_eq!((packet.header.payload_type, packet.payload.len()), (8, 160));
        assert_eq!(packet.header.ssrc, 0x1234_5678);
        assert_eq!(packet.header.marker, n == 0);
        if let Some((seq, timestamp)) = previous {
            assert_eq!(packet.header.seq.ahead_of(seq), 1);
            // More than a ptime only where the machine stalled and ticks were skipped.
            assert_eq!(packet.header.timestamp.wrapping_sub(timestamp) % 160, 0);
        }
        previous = Some((packet.header.seq, packet.header.timestamp));
    }
    let elapsed = started.elapsed();
    assert!(
        elapsed > Duration::from_millis(800),
        "faster than real time: {elapsed:?}"
    );
    assert_eq!(leg.control.played().frames, 25);
    assert_eq!(leg.control.stats().underruns, 0);
}

#[test]
fn a_dropped_leg_gives_its_port_and_place_back() {
    let rt = Rt::spawn(RtConfig {
        max_legs: 1,
        priority: 0,
    })
    .unwrap();
    let peer = peer();
    for _ in 0..3 {
        let config = config(&peer);
        let address = config.socket.local_addr().unwrap();
        let leg = rt.add_leg(config).unwrap();
        assert!(matches!(
            rt.add_leg(self::config(&peer)),
            Err(RtError::TooManyLegs { max_legs: 1 })
        ));
        drop(leg);
        let dropped = Instant::now();
        while UdpSocket::bind(address).is_err() {
            assert!(dropped.elapsed() < Duration::from_secs(2), "port was not closed");
            std::thread::sleep(Duration::from_millis(2));
        }
        while rt.stats().legs > 0 {
            assert!(dropped.elapsed() < Duration::from_secs(2), "place was not freed");
            std::thread::sleep(Duration::from_millis(2));
        }
    }
}

#[test]
fn stopping_ends_legs_and_threads() {
    let rt = Rt::spawn(RtConfig {
        max_legs: 4,
        priority: 0,
    })
    .unwrap();
    let peer = peer();
    let leg = rt.add_leg(config(&peer)).unwrap();
    assert!(rt.stats().running);
    drop(rt);
    drop(leg);
}
