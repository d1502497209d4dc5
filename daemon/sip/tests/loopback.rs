//! Whole calls between two of our own endpoints, over UDP and TCP.

mod common;

use std::time::Duration;

use attendant_sip::{
    Codec, DialogEvent, MediaOffer, Occupancy, Refusal, SipConfig, SipError, Transport, start,
};
use common::{Line, SOON, config, next, peer};
use tokio::time::timeout;

async fn call(ip: &str, caller_ip: &str, transport: Transport, callee_hangs_up: bool) {
    // A TCP connection comes from the address the kernel chooses.
    let mut callee = Line::answering(ip, "127.0.0.0/8").await;
    let caller = Line::calling(caller_ip).await;
    let uri = callee.uri(transport);
    let (placed, taken) = tokio::join!(caller.sip.invite(&uri, None), async {
        let call = callee.incoming().await;
        assert_eq!(
            (call.to_user.as_str(), call.from.user.expose().as_str()),
            ("100", "attendant")
        );
        assert!(!format!("{call:?} {:?}", call.from).contains("attendant"));
        call.ringing().await;
        call.answer().await.unwrap()
    });
    let (placed, mut placed_events, taken, mut taken_events) = {
        let placed = placed.unwrap();
        (placed.handle, placed.events, taken.handle, taken.events)
    };
    assert_eq!((caller.sip.active_dialogs(), callee.sip.active_dialogs()), (1, 1));
    let (first, other) = if callee_hangs_up {
        (&taken, &placed)
    } else {
        (&placed, &taken)
    };
    first.bye().await.unwrap();
    timeout(SOON, other.ended()).await.unwrap();
    assert_eq!(next(&mut placed_events).await, Some(DialogEvent::Bye));
    assert_eq!(next(&mut taken_events).await, Some(DialogEvent::Bye));
    assert_eq!(next(&mut taken_events).await, None);
    caller.idle().await;
    callee.idle().await;
}

#[tokio::test]
async fn udp_caller_hangs_up() {
    call("127.0.0.11", "127.0.0.12", Transport::Udp, false).await;
}

#[tokio::test]
async fn udp_callee_hangs_up() {
    call("127.0.0.13", "127.0.0.14", Transport::Udp, true).await;
}

#[tokio::test]
async fn tcp_caller_hangs_up() {
    call("127.0.0.15", "127.0.0.16", Transport::Tcp, false).await;
}

#[tokio::test]
async fn tcp_callee_hangs_up() {
    call("127.0.0.17", "127.0.0.18", Transport::Tcp, true).await;
}

#[tokio::test]
async fn both_sides_agree_on_media_and_packets_arrive() {
    let mut callee = Line::answering("127.0.0.21", "127.0.0.22").await;
    let caller = Line::calling("127.0.0.22").await;
    let uri = callee.uri(Transport::Udp);
    let (placed, taken) = tokio::join!(caller.sip.invite(&uri, None), async {
        let call = callee.incoming().await;
        assert!(matches!(call.media, MediaOffer::Negotiated(media) if media.stream.codec == Codec::Opus));
        call.answer().await.unwrap()
    });
    let placed = placed.unwrap();
    assert_eq!(
        (placed.media.stream.codec, placed.media.stream.event_pt),
        (Codec::Opus, Some(102))
    );
    assert_eq!(placed.media.stream.remote, taken.socket.local_addr().unwrap());
    assert_eq!(taken.media.stream.remote, placed.socket.local_addr().unwrap());
    assert_eq!(taken.socket.local_addr().unwrap().port() % 2, 0);
    let rtcp_port = taken.rtcp_socket.local_addr().unwrap().port();
    assert_eq!(rtcp_port, taken.socket.local_addr().unwrap().port() + 1);
    placed.socket.send_to(b"rtp", placed.media.stream.remote).unwrap();
    taken.socket.set_read_timeout(Some(SOON)).unwrap();
    let mut buffer = [0; 16];
    assert_eq!(taken.socket.recv(&mut buffer).unwrap(), 3);
}

#[tokio::test]
async fn refusals_reach_the_caller() {
    let mut callee = Line::answering("127.0.0.23", "127.0.0.24").await;
    let caller = Line::calling("127.0.0.24").await;
    let uri = callee.uri(Transport::Udp);
    let cases = [
        (Refusal::Busy, 486),
        (Refusal::NotAcceptable, 488),
        (Refusal::Forbidden, 403),
        (Refusal::NotFound, 404),
        (Refusal::Unavailable, 480),
        (Refusal::Overloaded { retry_after_s: 7 }, 503),
        (Refusal::Decline, 603),
        (Refusal::Moved("sip:queue@127.0.0.99".to_string()), 302),
    ];
    for (refusal, want) in cases {
        let (placed, ()) = tokio::join!(caller.sip.invite(&uri, None), async {
            callee.incoming().await.refuse(refusal).await.unwrap();
        });
        assert!(
            matches!(placed, Err(SipError::Refused { status, .. }) if status == want),
            "{want}: {placed:?}"
        );
    }
    // Dropped unanswered.
    let (placed, ()) = tokio::join!(caller.sip.invite(&uri, None), async {
        drop(callee.incoming().await)
    });
    assert!(
        matches!(placed, Err(SipError::Refused { status: 480, .. })),
        "{placed:?}"
    );
    caller.idle().await;
    callee.idle().await;
}

#[tokio::test]
async fn an_unknown_caller_hears_403() {
    let mut callee = Line::answering("127.0.0.25", "127.0.0.99").await;
    let caller = Line::calling("127.0.0.26").await;
    for transport in [Transport::Udp, Transport::Tcp] {
        let placed = caller.sip.invite(&callee.uri(transport), None).await;
        assert!(
            matches!(placed, Err(SipError::Refused { status: 403, .. })),
            "{placed:?}"
        );
    }
    assert!(
        timeout(Duration::from_millis(100), callee.events.recv())
            .await
            .is_err()
    );
    assert!(callee.sip.gate_counters().refused >= 2);
}

#[tokio::test]
async fn over_max_calls_the_caller_hears_busy() {
    let limits = SipConfig {
        peers: vec![peer("127.0.0.0/8")],
        max_calls: 1,
        ..config("127.0.0.27", false)
    };
    let mut callee = Line::start(limits).await;
    let caller = Line::calling("127.0.0.28").await;
    let uri = callee.uri(Transport::Udp);
    let (first, taken) = tokio::join!(caller.sip.invite(&uri, None), async {
        callee.incoming().await.answer().await
    });
    let (first, _taken) = (first.unwrap(), taken.unwrap());
    let second = caller.sip.invite(&uri, None).await;
    assert!(
        matches!(second, Err(SipError::Refused { status: 486, .. })),
        "{second:?}"
    );
    // Dropping the last handle hangs up and makes room.
    drop(first);
    callee.idle().await;
    let (third, _) = tokio::join!(caller.sip.invite(&uri, None), async {
        callee.incoming().await.answer().await
    });
    assert!(third.is_ok(), "{third:?}");
}

#[tokio::test]
async fn a_caller_who_gives_up_cancels() {
    let mut callee = Line::answering("127.0.0.29", "127.0.0.30").await;
    let caller = Line::calling("127.0.0.30").await;
    let uri = callee.uri(Transport::Udp);
    let call = {
        let invite = caller.sip.invite(&uri, None);
        tokio::pin!(invite);
        let call = tokio::select! {
            _ = &mut invite => panic!("nobody answered"),
            call = callee.incoming() => call,
        };
        call.ringing().await;
        // Let the 180 arrive: before it no CANCEL may be sent.
        let _ = timeout(Duration::from_millis(200), &mut invite).await;
        call
    };
    timeout(SOON, call.cancelled()).await.expect("CANCEL in time");
    assert!(matches!(call.answer().await, Err(SipError::Gone)));
    caller.idle().await;
    callee.idle().await;
}

#[tokio::test]
async fn hold_and_resume() {
    let mut callee = Line::answering("127.0.0.31", "127.0.0.32").await;
    let caller = Line::calling("127.0.0.32").await;
    let uri = callee.uri(Transport::Udp);
    let (placed, taken) = tokio::join!(caller.sip.invite(&uri, None), async {
        callee.incoming().await.answer().await
    });
    let (placed, mut taken) = (placed.unwrap(), taken.unwrap());
    assert!(!placed.handle.hold(true).await.unwrap().on_hold());
    assert_eq!(next(&mut taken.events).await, Some(DialogEvent::Hold(true)));
    placed.handle.hold(false).await.unwrap();
    assert_eq!(next(&mut taken.events).await, Some(DialogEvent::Hold(false)));
    // From the side that was called, too.
    taken.handle.hold(true).await.unwrap();
    let mut placed = placed;
    assert_eq!(next(&mut placed.events).await, Some(DialogEvent::Hold(true)));
    placed.handle.info_digit('#').await.unwrap();
    assert_eq!(next(&mut taken.events).await, Some(DialogEvent::InfoDigit('#')));
    placed.handle.bye().await.unwrap();
    assert_eq!(next(&mut taken.events).await, Some(DialogEvent::Bye));
}

#[tokio::test]
async fn shutdown_hangs_up() {
    let mut callee = Line::answering("127.0.0.33", "127.0.0.34").await;
    let caller = Line::calling("127.0.0.34").await;
    let uri = callee.uri(Transport::Udp);
    let (placed, taken) = tokio::join!(caller.sip.invite(&uri, None), async {
        callee.incoming().await.answer().await
    });
    let (mut placed, _taken) = (placed.unwrap(), taken.unwrap());
    callee.sip.shutdown().await;
    assert_eq!(next(&mut placed.events).await, Some(DialogEvent::Bye));
}

#[tokio::test]
async fn a_port_in_use_is_named() {
    let first = Line::calling("127.0.0.35").await;
    let again = SipConfig {
        udp: Some(first.addr(Transport::Udp)),
        ..config("127.0.0.35", false)
    };
    let error = start(again).await.unwrap_err().to_string();
    assert!(
        error.contains("in use by another program") && error.contains("/udp"),
        "{error}"
    );
    let tcp = std::net::TcpListener::bind("127.0.0.35:0").unwrap();
    let again = SipConfig {
        tcp: Some(tcp.local_addr().unwrap()),
        ..config("127.0.0.35", false)
    };
    let error = start(again).await.unwrap_err().to_string();
    assert!(error.contains("/tcp is in use"), "{error}");
}

#[tokio::test]
async fn many_calls_leave_nothing_behind() {
    // A round trip short enough for 64·T1 to pass in a test.
    let quick = |ip| SipConfig {
        peers: vec![peer("127.0.0.0/8")],
        t1: Duration::from_millis(20),
        ..config(ip, false)
    };
    let mut callee = Line::start(quick("127.0.0.36")).await;
    let caller = Line::start(quick("127.0.0.37")).await;
    let uri = callee.uri(Transport::Udp);
    for n in 0..60 {
        let invite = caller.sip.invite(&uri, None);
        match n % 6 {
            0 => {
                let (placed, ()) = tokio::join!(invite, async {
                    callee.incoming().await.refuse(Refusal::Busy).await.unwrap();
                });
                placed.unwrap_err();
            }
            // Who rings is given up.
            1 => {
                let call = {
                    tokio::pin!(invite);
                    let call = tokio::select! {
                        _ = &mut invite => panic!("nobody answered"),
                        call = callee.incoming() => call,
                    };
                    call.ringing().await;
                    let _ = timeout(Duration::from_millis(50), &mut invite).await;
                    call
                };
                timeout(SOON, call.cancelled()).await.expect("CANCEL in time");
            }
            _ => {
                let (placed, taken) = tokio::join!(invite, async { callee.incoming().await.answer().await });
                let (placed, taken) = (placed.unwrap().handle, taken.unwrap().handle);
                let (first, other) = if n % 2 == 0 {
                    (&placed, &taken)
                } else {
                    (&taken, &placed)
                };
                first.bye().await.unwrap();
                timeout(SOON, other.ended()).await.unwrap();
            }
        }
    }
    for line in [&caller, &callee] {
        line.idle().await;
        let line = line.sip.dialler();
        let forgotten = async {
            while line.occupancy() != Occupancy::default() {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        let forgotten = timeout(2 * SOON, forgotten).await;
        assert!(forgotten.is_ok(), "{:?}", line.occupancy());
    }
}
