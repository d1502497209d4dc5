//! Reliable provisional answers (RFC 3262) on the wire, both ways.

mod common;

use std::time::Duration;

use attendant_sip::{SipConfig, Transport};
use common::raw::{Raw, SDP, header, response};
use common::{Line, SOON, config, peer};
use tokio::time::timeout;

/// A round trip short enough for 64·T1 to pass in a test.
const T1: Duration = Duration::from_millis(30);

async fn line(ip: &str, t1: Duration) -> Line {
    Line::start(SipConfig {
        peers: vec![peer("127.0.0.0/8")],
        t1,
        ..config(ip, false)
    })
    .await
}

async fn ringing(raw: &Raw) -> String {
    loop {
        let message = raw.receive().await;
        if message.starts_with("SIP/2.0 180") {
            return message;
        }
    }
}

fn invite(raw: &Raw, extension: &str, sdp: &str) -> String {
    raw.request(
        "INVITE",
        1,
        &format!("{extension}: 100rel\r\nContent-Type: application/sdp\r\n"),
        sdp,
    )
}

#[tokio::test]
async fn ringing_is_repeated_until_acknowledged() {
    let mut line = line("127.0.2.1", T1).await;
    for extension in ["Supported", "Require"] {
        let mut raw = Raw::new("127.0.2.2", line.addr(Transport::Udp), extension).await;
        raw.send(invite(&raw, extension, SDP)).await;
        let call = line.incoming().await;
        call.ringing().await;
        let first = ringing(&raw).await;
        assert_eq!(header(&first, "Require").as_deref(), Some("100rel"));
        let rseq: u32 = header(&first, "RSeq").unwrap().parse().unwrap();
        assert!(rseq > 0);
        assert_eq!(ringing(&raw).await, first, "the same again");
        raw.learn_tag(&first);
        for (cseq, rack, want) in [
            (2, format!("{} 1 INVITE", rseq + 1), 481),
            (3, format!("{rseq} 2 INVITE"), 481),
            (4, format!("{rseq} 1 INVITE"), 200),
        ] {
            raw.send(raw.request("PRACK", cseq, &format!("RAck: {rack}\r\n"), ""))
                .await;
            assert_eq!(raw.answer().await.0, want, "{rack}");
        }
        // Acknowledged: no more of it.
        tokio::time::sleep(T1 * 10).await;
        while timeout(Duration::from_millis(20), raw.receive()).await.is_ok() {}
        raw.silence().await;
        raw.send(raw.request("PRACK", 9, &format!("RAck: {rseq} 1 INVITE\r\n"), ""))
            .await;
        assert_eq!(raw.answer().await.0, 481, "acknowledged once");
        let taken = call.answer().await.unwrap();
        assert_eq!(raw.answer().await.0, 200);
        raw.send(raw.request("ACK", 1, "", "")).await;
        raw.send(raw.request("BYE", 10, "", "")).await;
        assert_eq!(raw.answer().await.0, 200);
        timeout(SOON, taken.handle.ended()).await.unwrap();
    }
}

#[tokio::test]
async fn an_answer_ends_the_repetitions_and_a_late_prack_is_still_answered() {
    let mut line = line("127.0.2.3", T1).await;
    let mut raw = Raw::new("127.0.2.4", line.addr(Transport::Udp), "late").await;
    raw.send(invite(&raw, "Supported", SDP)).await;
    let call = line.incoming().await;
    call.ringing().await;
    let first = ringing(&raw).await;
    let rseq = header(&first, "RSeq").unwrap();
    let taken = call.answer().await.unwrap();
    let (status, answer) = raw.answer().await;
    assert_eq!(status, 200);
    raw.learn_tag(&answer);
    raw.send(raw.request("ACK", 1, "", "")).await;
    raw.send(raw.request("PRACK", 2, &format!("RAck: {rseq} 1 INVITE\r\n"), ""))
        .await;
    loop {
        let (status, answer) = raw.answer().await;
        if answer.contains("PRACK") {
            assert_eq!(status, 200);
            break;
        }
    }
    assert!(!taken.handle.is_over());
}

#[tokio::test]
async fn ringing_nobody_acknowledges_ends_in_504() {
    let mut line = line("127.0.2.5", T1).await;
    let mut raw = Raw::new("127.0.2.6", line.addr(Transport::Udp), "never").await;
    raw.send(invite(&raw, "Require", SDP)).await;
    let call = line.incoming().await;
    call.ringing().await;
    assert_eq!(raw.answer().await.0, 504);
    timeout(SOON, call.cancelled()).await.unwrap();
    drop(call);
    line.idle().await;
}

#[tokio::test]
async fn without_an_offer_a_required_ringing_is_left_out() {
    let mut line = line("127.0.2.7", T1).await;
    for (extension, rings) in [("Require", false), ("Supported", true)] {
        let mut raw = Raw::new("127.0.2.8", line.addr(Transport::Udp), extension).await;
        raw.send(raw.request("INVITE", 1, &format!("{extension}: 100rel\r\n"), ""))
            .await;
        let call = line.incoming().await;
        call.ringing().await;
        tokio::time::sleep(T1 * 4).await;
        drop(call);
        let mut rang = false;
        let last = loop {
            let message = raw.receive().await;
            if message.starts_with("SIP/2.0 180") {
                assert!(header(&message, "RSeq").is_none(), "plain");
                rang = true;
            }
            if message.starts_with("SIP/2.0 4") {
                break message;
            }
        };
        assert_eq!(rang, rings, "{extension}");
        assert!(last.starts_with("SIP/2.0 480"), "{last}");
        raw.to.clear();
    }
}

#[tokio::test]
async fn a_callee_that_rings_reliably_is_acknowledged_along_its_route() {
    let caller = line("127.0.2.9", Duration::from_millis(500)).await;
    let socket = tokio::net::UdpSocket::bind(("127.0.2.10", 0)).await.unwrap();
    let me = socket.local_addr().unwrap();
    let callee = tokio::spawn(async move {
        let mut buffer = vec![0; 9000];
        let mut invite = String::new();
        loop {
            let (len, from) = socket.recv_from(&mut buffer).await.unwrap();
            let request = String::from_utf8(buffer[..len].to_vec()).unwrap();
            let answer = if request.starts_with("INVITE") {
                assert!(header(&request, "Supported").unwrap().contains("100rel"));
                invite.clone_from(&request);
                let extra = format!(
                    "Record-Route: <sip:{me};lr;hop=2>, <sip:{me};lr;hop=1>\r\nContact: <sip:desk@{me}>\r\nRequire: 100rel\r\n\
                     RSeq: 42\r\nContent-Type: application/sdp\r\n"
                );
                // The answer comes with the ringing; the 200 has none.
                response(&request, "183 Session Progress", &extra, SDP)
            } else if request.starts_with("PRACK") {
                assert!(request.starts_with(&format!("PRACK sip:desk@{me}")), "{request}");
                let routes: Vec<&str> = request.lines().filter(|l| l.starts_with("Route:")).collect();
                assert!(
                    routes.len() == 2 && routes[0].contains("hop=1") && routes[1].contains("hop=2"),
                    "{request}"
                );
                assert_eq!(header(&request, "RAck").as_deref(), Some("42 1 INVITE"));
                let done = response(&request, "200 OK", "", "");
                socket.send_to(done.as_bytes(), from).await.unwrap();
                response(&invite, "200 OK", &format!("Contact: <sip:desk@{me}>\r\n"), "")
            } else {
                if request.starts_with("ACK") {
                    return;
                }
                continue;
            };
            socket.send_to(answer.as_bytes(), from).await.unwrap();
        }
    });
    let placed = timeout(SOON, caller.sip.invite(&format!("sip:100@{me}"), None))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(placed.media.stream.remote.port(), 9000, "from the 183");
    timeout(SOON, callee).await.unwrap().unwrap();
}
