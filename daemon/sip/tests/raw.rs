//! Raw sockets against our endpoint: what no proper stack would send, and what ours never sends.

mod common;

use std::net::UdpSocket;
use std::time::Duration;

use attendant_sip::{DialogEvent, MediaOffer, SipConfig, SipError, SipEvent, Transport};
use common::raw::{Raw, SDP, established, header};
use common::{Line, SOON, config, next, peer};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::time::timeout;

#[tokio::test]
async fn malformed_messages_are_answered_or_ignored_and_the_next_call_works() {
    let mut line = Line::answering("127.0.0.51", "127.0.0.52").await;
    let mut raw = Raw::new("127.0.0.52", line.addr(Transport::Udp), "malformed").await;
    let good = raw.offer("INVITE", 1, SDP);
    let answered: &[(&str, String, u16)] = &[
        ("unknown method", raw.request("DANCE", 1, "", ""), 501),
        ("unsupported method", raw.request("SUBSCRIBE", 1, "", ""), 405),
        ("no Call-ID", good.replace("Call-ID: malformed\r\n", ""), 400),
        ("CSeq of another method", good.replace("1 INVITE", "1 BYE"), 400),
        ("version", good.replace("SIP/2.0\r\nVia", "SIP/9.0\r\nVia"), 505),
        (
            "length beyond the end",
            good.replace("Content-Length: ", "Content-Length: 9"),
            400,
        ),
        (
            "too large",
            good.replace("Max-Forwards: 70", &format!("X: {}", "y".repeat(9000))),
            513,
        ),
        ("broken SDP", raw.offer("INVITE", 2, "v=1\r\nnonsense"), 400),
        (
            "not SDP",
            raw.request("INVITE", 3, "Content-Type: text/plain\r\n", "hello"),
            415,
        ),
        (
            "no common codec",
            raw.offer("INVITE", 4, &SDP.replace("AVP 8 101", "AVP 18")),
            488,
        ),
        (
            "unknown extension",
            raw.request("INVITE", 5, "Require: nothing-known\r\n", ""),
            420,
        ),
        ("BYE out of nowhere", raw.request("BYE", 6, "", ""), 481),
        (
            "tag out of nowhere",
            raw.request("INFO", 7, "", "")
                .replace("To: <", "To: X <")
                .replace(">\r\nCall", ">;tag=zz\r\nCall"),
            481,
        ),
    ];
    for (case, message, want) in answered {
        raw.send(message).await;
        let (status, answer) = raw.answer().await;
        assert_eq!(status, *want, "{case}: {answer}");
        if matches!(want, 405 | 501) {
            assert!(answer.contains("Allow: INVITE, ACK"), "{answer}");
        }
        if message.starts_with("INVITE") {
            let ack = message
                .replace("INVITE", "ACK")
                .replace(&raw.to, &header(&answer, "To").unwrap_or_default());
            raw.send(ack).await;
        }
    }
    // Those no answer is due to; retransmissions of the answers above may still arrive, so a fresh socket listens.
    let quiet = Raw::new("127.0.0.52", raw.target, "quiet").await;
    for junk in [
        &b""[..],
        b"\r\n\r\n",
        b"\0\0\0\0",
        b"hello",
        &[0xff; 1500],
        b"INVITE",
        b"SIP/2.0 200 OK\r\n\r\n",
        b"ACK sip:x SIP/2.0\r\n\r\n",
    ] {
        quiet.send(junk).await;
    }
    quiet.silence().await;
    let mut next_call = Raw::new("127.0.0.52", raw.target, "after").await;
    let (taken, _) = established(&mut line, &mut next_call, SDP).await;
    drop(taken);
    assert!(next_call.receive().await.starts_with("BYE"));
}

#[tokio::test]
async fn options_is_answered_with_what_we_can_do() {
    let line = Line::answering("127.0.0.53", "127.0.0.54").await;
    let mut raw = Raw::new("127.0.0.54", line.addr(Transport::Udp), "options").await;
    raw.send(raw.request("OPTIONS", 1, "", "")).await;
    let (status, answer) = raw.answer().await;
    assert_eq!(status, 200);
    for part in [
        "Allow: INVITE, ACK, CANCEL, BYE, OPTIONS, INFO, UPDATE, PRACK, NOTIFY",
        "Accept: application/sdp",
        "Supported: timer, 100rel, replaces",
    ] {
        assert!(answer.contains(part), "{part} in {answer}");
    }
}

#[tokio::test]
async fn a_probe_sees_that_all_lines_are_taken() {
    let limits = SipConfig {
        peers: vec![peer("127.0.0.0/8")],
        // One line; the rest is kept in reserve.
        max_calls: 3,
        lines: Some(1),
        ..config("127.0.0.85", true)
    };
    let mut line = Line::start(limits).await;
    let mut raw = Raw::new("127.0.0.86", line.addr(Transport::Udp), "full").await;
    let mut probe = Raw::new("127.0.0.86", line.addr(Transport::Udp), "probe").await;
    let (taken, _) = established(&mut line, &mut raw, SDP).await;
    probe.send(probe.request("OPTIONS", 1, "", "")).await;
    assert_eq!(probe.answer().await.0, 486);
    raw.send(raw.request("BYE", 2, "", "")).await;
    assert_eq!(raw.answer().await.0, 200);
    drop(taken);
    line.idle().await;
    probe.send(probe.request("OPTIONS", 2, "", "")).await;
    assert_eq!(probe.answer().await.0, 200);
}

#[tokio::test]
async fn a_latin_1_name_is_read() {
    let mut line = Line::answering("127.0.0.55", "127.0.0.56").await;
    let mut raw = Raw::new("127.0.0.56", line.addr(Transport::Udp), "latin1").await;
    let mut message = raw
        .offer("INVITE", 1, SDP)
        .replace("From: <", "From: \"M@ller\" <")
        .into_bytes();
    let at = message.windows(7).position(|w| w == b"M@ller\"").unwrap();
    message[at + 1] = 0xfc;
    raw.send(message).await;
    let call = line.incoming().await;
    assert_eq!(call.from.display.expose().as_deref(), Some("Müller"));
    drop(call);
    assert_eq!(raw.answer().await.0, 480);
}

#[tokio::test]
async fn a_body_without_content_length_is_an_offer() {
    let mut line = Line::answering("127.0.0.57", "127.0.0.58").await;
    let raw = Raw::new("127.0.0.58", line.addr(Transport::Udp), "nolength").await;
    let message = raw
        .offer("INVITE", 1, SDP)
        .replace(&format!("Content-Length: {}\r\n", SDP.len()), "");
    assert!(!message.contains("Content-Length"));
    raw.send(message).await;
    assert!(matches!(line.incoming().await.media, MediaOffer::Negotiated(_)));
}

#[tokio::test]
async fn a_late_offer_is_answered_in_the_ack() {
    let mut line = Line::answering("127.0.0.59", "127.0.0.60").await;
    let mut raw = Raw::new("127.0.0.60", line.addr(Transport::Udp), "late").await;
    raw.send(raw.request("INVITE", 1, "", "")).await;
    let call = line.incoming().await;
    assert_eq!(call.media, MediaOffer::Late);
    let (taken, ()) = tokio::join!(call.answer(), async {
        let (status, answer) = raw.answer().await;
        assert_eq!(status, 200);
        assert!(answer.contains("RTP/AVP 107 9 0 8 101 102"), "{answer}");
        raw.learn_tag(&answer);
        raw.send(raw.offer("ACK", 1, SDP)).await;
    });
    let taken = taken.unwrap();
    assert_eq!(
        (taken.media.stream.codec.name(), taken.media.stream.remote.port()),
        ("PCMA", 9000)
    );
}

#[tokio::test]
async fn every_form_of_hold_is_answered_and_told() {
    let mut line = Line::answering("127.0.0.61", "127.0.0.62").await;
    let mut raw = Raw::new("127.0.0.62", line.addr(Transport::Udp), "hold").await;
    let (mut taken, _) = established(&mut line, &mut raw, SDP).await;
    let forms = [
        (format!("{SDP}a=sendonly\r\n"), "a=recvonly"),
        (format!("{SDP}a=inactive\r\n"), "a=inactive"),
        (
            SDP.replace("c=IN IP4 127.0.0.1", "c=IN IP4 0.0.0.0"),
            "a=recvonly",
        ),
    ];
    let mut cseq = 1;
    for (sdp, want) in forms {
        for (sdp, want, held) in [(sdp.as_str(), want, true), (SDP, "a=sendrecv", false)] {
            cseq += 1;
            raw.send(raw.offer("INVITE", cseq, sdp)).await;
            let (status, answer) = raw.answer().await;
            assert_eq!(status, 200);
            assert!(answer.contains(want), "{answer}");
            raw.send(raw.request("ACK", cseq, "", "")).await;
            assert_eq!(next(&mut taken.events).await, Some(DialogEvent::Hold(held)));
        }
    }
    // The far end moves.
    raw.send(raw.offer("INVITE", cseq + 1, &SDP.replace("9000", "9002")))
        .await;
    assert_eq!(raw.answer().await.0, 200);
    raw.send(raw.request("ACK", cseq + 1, "", "")).await;
    let moved = next(&mut taken.events).await;
    assert!(
        matches!(&moved, Some(DialogEvent::Media(media)) if media.stream.remote.port() == 9002),
        "{moved:?}"
    );
    // A change we cannot make leaves the call as it was.
    raw.send(raw.offer("INVITE", cseq + 2, &SDP.replace("AVP 8 101", "AVP 18")))
        .await;
    assert_eq!(raw.answer().await.0, 488);
    raw.send(raw.request("BYE", cseq + 3, "", "")).await;
    assert_eq!(raw.answer().await.0, 200);
    assert_eq!(next(&mut taken.events).await, Some(DialogEvent::Bye));
}

#[tokio::test]
async fn requests_in_a_dialog_are_never_left_without_an_answer() {
    let mut line = Line::answering("127.0.0.63", "127.0.0.64").await;
    let mut raw = Raw::new("127.0.0.64", line.addr(Transport::Udp), "dialog").await;
    raw.send(raw.offer("INVITE", 10, SDP)).await;
    let call = line.incoming().await;
    call.ringing().await;
    let ringing = loop {
        let message = raw.receive().await;
        if message.starts_with("SIP/2.0 180") {
            break message;
        }
    };
    raw.learn_tag(&ringing);
    for (method, want) in [
        ("OPTIONS", 200),
        ("UPDATE", 200),
        ("INFO", 200),
        ("PRACK", 400),
        ("MESSAGE", 405),
    ] {
        raw.send(raw.request(method, 11, "", "")).await;
        assert_eq!(raw.answer().await.0, want, "{method} before the answer");
    }
    // The offer in the INVITE is not answered yet.
    raw.send(raw.offer("UPDATE", 12, SDP)).await;
    let (status, answer) = raw.answer().await;
    let wait: u32 = header(&answer, "Retry-After").unwrap().parse().unwrap();
    assert_eq!((status, wait <= 10), (500, true));
    let taken = call.answer().await.unwrap();
    assert_eq!(raw.answer().await.0, 200);
    raw.send(raw.request("ACK", 10, "", "")).await;
    tokio::time::sleep(Duration::from_millis(50)).await;
    let dtmf = "Content-Type: application/dtmf-relay\r\n";
    for (cseq, method, extra, body, want) in [
        (20, "OPTIONS", "", "", 200),
        (21, "INFO", dtmf, "Signal=5\r\nDuration=100\r\n", 200),
        (22, "INFO", "Content-Type: text/plain\r\n", "x", 415),
        (23, "REFER", "Refer-To: <sip:1@h>\r\n", "", 603),
        (24, "MESSAGE", "", "", 405),
        (25, "NOTIFY", "Event: refer\r\n", "SIP/2.0 200 OK", 481),
        (26, "UPDATE", "", "", 200),
        (27, "NOTIFY", "Event: talk\r\n", "", 489),
        (28, "INFO", "Content-Type: application/hook-flash\r\n", "", 200),
        (9, "INFO", "", "", 500),
    ] {
        raw.send(raw.request(method, cseq, extra, body)).await;
        assert_eq!(raw.answer().await.0, want, "{method} {cseq}");
    }
    let mut events = taken.events;
    assert_eq!(next(&mut events).await, Some(DialogEvent::InfoDigit('5')));
    assert_eq!(next(&mut events).await, Some(DialogEvent::Flash));
    raw.send(raw.request("BYE", 30, "", "")).await;
    assert_eq!(raw.answer().await.0, 200);
    assert_eq!(next(&mut events).await, Some(DialogEvent::Bye));
}

#[tokio::test]
async fn cancel_gets_200_and_the_invite_487() {
    let mut line = Line::answering("127.0.0.65", "127.0.0.66").await;
    let mut raw = Raw::new("127.0.0.66", line.addr(Transport::Udp), "cancel").await;
    let invite = raw.offer("INVITE", 1, SDP);
    raw.send(&invite).await;
    let call = line.incoming().await;
    let cancel = raw
        .request("CANCEL", 1, "", "")
        .replace("z9hG4bKcancelCANCEL1", "z9hG4bKcancelINVITE1");
    raw.send(cancel).await;
    let mut seen = [raw.answer().await, raw.answer().await];
    seen.sort_by_key(|(status, _)| *status);
    assert!(
        seen[0].0 == 200 && seen[0].1.contains("CSeq: 1 CANCEL"),
        "{seen:?}"
    );
    assert!(
        seen[1].0 == 487 && seen[1].1.contains("CSeq: 1 INVITE"),
        "{seen:?}"
    );
    timeout(SOON, call.cancelled()).await.unwrap();
    drop(call);
    line.idle().await;
}

#[tokio::test]
async fn a_bye_before_the_answer_ends_the_call() {
    let mut line = Line::answering("127.0.0.67", "127.0.0.68").await;
    let mut raw = Raw::new("127.0.0.68", line.addr(Transport::Udp), "earlybye").await;
    raw.send(raw.offer("INVITE", 1, SDP)).await;
    let call = line.incoming().await;
    call.ringing().await;
    let ringing = loop {
        let message = raw.receive().await;
        if message.starts_with("SIP/2.0 180") {
            break message;
        }
    };
    raw.learn_tag(&ringing);
    raw.send(raw.request("BYE", 2, "", "")).await;
    let mut seen = [raw.answer().await.0, raw.answer().await.0];
    seen.sort_unstable();
    assert_eq!(seen, [200, 487]);
    timeout(SOON, call.cancelled()).await.unwrap();
}

#[tokio::test]
async fn retransmitted_invites_are_one_call() {
    let mut line = Line::answering("127.0.0.69", "127.0.0.70").await;
    let mut raw = Raw::new("127.0.0.70", line.addr(Transport::Udp), "again").await;
    let invite = raw.offer("INVITE", 1, SDP);
    for _ in 0..5 {
        raw.send(&invite).await;
    }
    let call = line.incoming().await;
    assert!(
        timeout(Duration::from_millis(200), line.events.recv())
            .await
            .is_err()
    );
    drop(call);
    assert_eq!(raw.answer().await.0, 480);
}

#[tokio::test]
async fn an_invite_that_comes_by_two_ways_is_one_call() {
    let mut line = Line::answering("127.0.0.91", "127.0.0.92").await;
    let mut raw = Raw::new("127.0.0.92", line.addr(Transport::Udp), "forked").await;
    let invite = raw.offer("INVITE", 1, SDP);
    raw.send(&invite).await;
    let call = line.incoming().await;
    raw.send(invite.replace("branch=z9hG4bK", "branch=z9hG4bKother"))
        .await;
    assert_eq!(raw.answer().await.0, 482);
    drop(call);
    assert_eq!(raw.answer().await.0, 480);
    line.idle().await;
    // Once it is over, the same numbers are another call.
    raw.send(raw.request("ACK", 1, "", "")).await;
}

#[tokio::test]
async fn tcp_survives_fragments_pings_and_nonsense() {
    let mut line = Line::answering("127.0.0.71", "127.0.0.0/8").await;
    let target = line.addr(Transport::Tcp);
    let raw = Raw::new("127.0.0.72", target, "tcp").await;
    let mut stream = tokio::net::TcpStream::connect(target).await.unwrap();
    stream.write_all(b"\r\n\r\n").await.unwrap();
    let mut buffer = vec![0; 9000];
    assert_eq!(timeout(SOON, stream.read(&mut buffer)).await.unwrap().unwrap(), 2);
    for (message, want) in [
        (raw.request("DANCE", 1, "", ""), "SIP/2.0 501"),
        (raw.request("OPTIONS", 2, "", ""), "SIP/2.0 200"),
    ] {
        for part in message.as_bytes().chunks(37) {
            stream.write_all(part).await.unwrap();
            stream.flush().await.unwrap();
        }
        let len = timeout(SOON, stream.read(&mut buffer)).await.unwrap().unwrap();
        assert!(
            buffer[..len].starts_with(want.as_bytes()),
            "{}",
            String::from_utf8_lossy(&buffer[..len])
        );
    }
    stream
        .write_all(&raw.offer("INVITE", 3, SDP).replace("/UDP", "/TCP").into_bytes())
        .await
        .unwrap();
    let call = line.incoming().await;
    assert_eq!(call.source, stream.local_addr().unwrap());
    drop(call);
    let mut broken = tokio::net::TcpStream::connect(target).await.unwrap();
    broken.write_all(&[b'x'; 20_000]).await.unwrap();
    assert_eq!(
        timeout(SOON, broken.read(&mut buffer))
            .await
            .unwrap()
            .unwrap_or(0),
        0
    );
}

#[tokio::test]
async fn a_flood_of_nonsense_does_not_stop_calls() {
    let mut line = Line::answering("127.0.0.73", "127.0.0.74").await;
    let target = line.addr(Transport::Udp);
    let flood = UdpSocket::bind(("127.0.0.75", 0)).unwrap();
    let template = Raw::new("127.0.0.74", target, "flood")
        .await
        .offer("INVITE", 1, SDP)
        .into_bytes();
    let mut seed = 1u32;
    for n in 0..5_000 {
        if n % 50 == 0 {
            // Slow enough for the kernel's buffer: all of it shall reach us.
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        let mut message = template.clone();
        for _ in 0..3 {
            seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let at = seed as usize % message.len();
            message[at] = (seed >> 24) as u8;
        }
        let _ = flood.send_to(&message, target);
    }
    tokio::time::sleep(Duration::from_millis(300)).await;
    let mut raw = Raw::new("127.0.0.74", target, "wanted").await;
    let (taken, _) = established(&mut line, &mut raw, SDP).await;
    taken.handle.bye().await.ok();
    assert!(line.sip.gate_counters().unanswered > 1_000);
    assert!(
        timeout(Duration::from_millis(100), line.events.recv())
            .await
            .map_or(true, |e| !matches!(e, Some(SipEvent::Incoming(_))))
    );
}

/// Plays the far end of our outgoing call: challenges, then answers `status` and, on 200, hangs up at once.
async fn challenging_callee(socket: tokio::net::UdpSocket, challenge: &'static str, accept: bool) {
    let mut buffer = vec![0; 9000];
    let me = socket.local_addr().unwrap();
    loop {
        let (len, from) = socket.recv_from(&mut buffer).await.unwrap();
        let request = String::from_utf8(buffer[..len].to_vec()).unwrap();
        if !request.starts_with("INVITE") {
            if request.starts_with("SIP/2.0 200") && request.contains("BYE") {
                return;
            }
            continue;
        }
        let head: String = request
            .lines()
            .filter(|l| {
                ["Via:", "From:", "To:", "Call-ID:", "CSeq:"]
                    .iter()
                    .any(|h| l.starts_with(h))
            })
            .map(|l| {
                if l.starts_with("To:") {
                    format!("{l};tag=callee\r\n")
                } else {
                    format!("{l}\r\n")
                }
            })
            .collect();
        let authorised = request.contains("uthorization: Digest username=\"u\", realm=\"r\"");
        let answer = if authorised && accept {
            format!(
                "SIP/2.0 200 OK\r\n{head}Contact: <sip:callee@{me}>\r\nContent-Type: application/sdp\r\nContent-Length: {}\r\n\r\n{SDP}",
                SDP.len()
            )
        } else {
            format!("SIP/2.0 {challenge} realm=\"r\", nonce=\"n\"\r\nContent-Length: 0\r\n\r\n")
                .replace("HEAD", &head)
        };
        socket.send_to(answer.as_bytes(), from).await.unwrap();
        if answer.starts_with("SIP/2.0 200") {
            let get = |name: &str| header(&request, name).unwrap();
            let bye = format!(
                "BYE sip:u@{from} SIP/2.0\r\nVia: SIP/2.0/UDP {me};branch=z9hG4bKbye;rport\r\nFrom: {};tag=callee\r\nTo: {}\r\n\
                 Call-ID: {}\r\nCSeq: 1 BYE\r\nMax-Forwards: 70\r\nContent-Length: 0\r\n\r\n",
                get("To"),
                get("From"),
                get("Call-ID")
            );
            socket.send_to(bye.as_bytes(), from).await.unwrap();
        }
    }
}

#[tokio::test]
async fn an_outgoing_call_answers_challenges_and_an_instant_bye() {
    for (ip, challenge) in [
        ("127.0.0.77", "401 Unauthorized\r\nHEADWWW-Authenticate: Digest"),
        (
            "127.0.0.78",
            "407 Proxy Authentication Required\r\nHEADProxy-Authenticate: Digest",
        ),
    ] {
        for _ in 0..20 {
            let line = Line::calling(ip).await;
            let socket = tokio::net::UdpSocket::bind(("127.0.0.79", 0)).await.unwrap();
            let uri = format!("sip:100@{}", socket.local_addr().unwrap());
            let callee = tokio::spawn(challenging_callee(socket, challenge, true));
            let credentials = Some(("u".to_string(), "p".to_string()));
            let mut placed = timeout(SOON, line.sip.invite(&uri, credentials))
                .await
                .unwrap()
                .unwrap();
            assert_eq!(next(&mut placed.events).await, Some(DialogEvent::Bye));
            timeout(SOON, callee)
                .await
                .expect("BYE answered with 200")
                .unwrap();
            line.idle().await;
        }
    }
}

#[tokio::test]
async fn a_refused_password_ends_the_outgoing_call() {
    let line = Line::calling("127.0.0.80").await;
    for credentials in [None, Some(("u".to_string(), "wrong".to_string()))] {
        let socket = tokio::net::UdpSocket::bind(("127.0.0.80", 0)).await.unwrap();
        let uri = format!("sip:100@{}", socket.local_addr().unwrap());
        let callee = tokio::spawn(challenging_callee(
            socket,
            "401 Unauthorized\r\nHEADWWW-Authenticate: Digest",
            false,
        ));
        let placed = timeout(SOON, line.sip.invite(&uri, credentials)).await.unwrap();
        assert!(
            matches!(placed, Err(SipError::Refused { status: 401, .. })),
            "{placed:?}"
        );
        callee.abort();
    }
    line.idle().await;
}
