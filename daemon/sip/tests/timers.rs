//! Session timers (RFC 4028) on the wire, with intervals of a few seconds.

mod common;

use std::time::Duration;

use attendant_sip::{DialogEvent, SessionTimers, SipConfig, Transport};
use common::raw::{Raw, SDP, established, header, response};
use common::{Line, SOON, config, next, peer};
use tokio::time::timeout;

const QUICK: SessionTimers = SessionTimers {
    expires_s: 2,
    min_s: 2,
};

async fn line(ip: &str) -> Line {
    Line::start(SipConfig {
        peers: vec![peer("127.0.0.0/8")],
        timers: QUICK,
        ..config(ip, false)
    })
    .await
}

fn invite(raw: &Raw, cseq: u32, timers: &str) -> String {
    raw.request(
        "INVITE",
        cseq,
        &format!("{timers}Content-Type: application/sdp\r\n"),
        SDP,
    )
}

/// Calls with these headers; the 200.
async fn call(line: &mut Line, raw: &mut Raw, timers: &str) -> (attendant_sip::Established, String) {
    raw.send(invite(raw, 1, timers)).await;
    let taken = line.incoming().await.answer().await.unwrap();
    let (status, answer) = raw.answer().await;
    assert_eq!(status, 200);
    raw.learn_tag(&answer);
    raw.send(raw.request("ACK", 1, "", "")).await;
    (taken, answer)
}

#[tokio::test]
async fn an_interval_below_ours_is_refused_with_ours() {
    let mut line = line("127.0.1.1").await;
    let mut raw = Raw::new("127.0.1.2", line.addr(Transport::Udp), "short").await;
    raw.send(invite(&raw, 1, "Supported: timer\r\nSession-Expires: 1\r\n"))
        .await;
    let (status, answer) = raw.answer().await;
    assert_eq!(
        (status, header(&answer, "Min-SE").as_deref()),
        (422, Some("2")),
        "{answer}"
    );
    // In a call, too: the call goes on.
    let mut raw = Raw::new("127.0.1.2", line.addr(Transport::Udp), "short2").await;
    let (_taken, _) = established(&mut line, &mut raw, SDP).await;
    raw.send(raw.request("UPDATE", 2, "Supported: timer\r\nSession-Expires: 1\r\n", ""))
        .await;
    assert_eq!(raw.answer().await.0, 422);
    raw.send(raw.request("BYE", 3, "", "")).await;
    assert_eq!(raw.answer().await.0, 200);
}

#[tokio::test]
async fn a_caller_that_stops_refreshing_is_hung_up() {
    let mut line = line("127.0.1.3").await;
    let mut raw = Raw::new("127.0.1.4", line.addr(Transport::Udp), "silent").await;
    let asked = "Supported: timer\r\nSession-Expires: 3;refresher=uac\r\n";
    let (mut taken, answer) = call(&mut line, &mut raw, asked).await;
    assert_eq!(
        header(&answer, "Session-Expires").as_deref(),
        Some("3;refresher=uac")
    );
    assert_eq!(header(&answer, "Require").as_deref(), Some("timer"));
    // It refreshes once, then no more.
    tokio::time::sleep(Duration::from_millis(1500)).await;
    raw.send(raw.request("UPDATE", 2, asked, "")).await;
    let (status, answer) = raw.answer().await;
    assert_eq!(
        (status, header(&answer, "Session-Expires").as_deref()),
        (200, Some("3;refresher=uac"))
    );
    let refreshed = std::time::Instant::now();
    let bye = raw.asked("BYE", SOON).await;
    assert!(refreshed.elapsed() > Duration::from_millis(1500));
    raw.reply(&bye, "200 OK", "", "").await;
    assert_eq!(
        next(&mut taken.events).await,
        Some(DialogEvent::Failed("the far end no longer confirms the call"))
    );
    line.idle().await;
}

#[tokio::test]
async fn we_refresh_by_update_and_end_a_call_nobody_knows() {
    let mut line = line("127.0.1.5").await;
    let mut raw = Raw::new("127.0.1.6", line.addr(Transport::Udp), "update").await;
    let asked = "Supported: timer\r\nAllow: INVITE, BYE, UPDATE\r\nSession-Expires: 2;refresher=uas\r\n";
    let (mut taken, answer) = call(&mut line, &mut raw, asked).await;
    assert_eq!(
        header(&answer, "Session-Expires").as_deref(),
        Some("2;refresher=uas")
    );
    for _ in 0..3 {
        let update = raw.asked("UPDATE", SOON).await;
        assert_eq!(
            header(&update, "Session-Expires").as_deref(),
            Some("2;refresher=uac")
        );
        assert!(
            header(&update, "Supported").unwrap().contains("timer"),
            "{update}"
        );
        raw.reply(&update, "200 OK", "Session-Expires: 2;refresher=uac\r\n", "")
            .await;
    }
    let update = raw.asked("UPDATE", SOON).await;
    raw.reply(&update, "481 Call/Transaction Does Not Exist", "", "")
        .await;
    let bye = raw.asked("BYE", SOON).await;
    raw.reply(&bye, "200 OK", "", "").await;
    assert!(matches!(
        next(&mut taken.events).await,
        Some(DialogEvent::Failed(_))
    ));
}

#[tokio::test]
async fn a_peer_without_update_is_refreshed_by_a_re_invite_that_changes_nothing() {
    let mut line = line("127.0.1.7").await;
    let mut raw = Raw::new("127.0.1.8", line.addr(Transport::Udp), "reinvite").await;
    let asked = "Supported: timer\r\nSession-Expires: 2;refresher=uas\r\n";
    let (mut taken, answer) = call(&mut line, &mut raw, asked).await;
    let described = answer.split("\r\n\r\n").nth(1).unwrap().to_string();
    for status in ["491 Request Pending", "500 Server Internal Error", "200 OK"] {
        let again = raw.asked("INVITE", SOON).await;
        assert_eq!(
            again.split("\r\n\r\n").nth(1).unwrap(),
            described,
            "the same description, the same version"
        );
        let body = if status.starts_with("200") { SDP } else { "" };
        let extra = "Contact: <sip:raw@127.0.1.8>\r\nContent-Type: application/sdp\r\nSession-Expires: 2;refresher=uac\r\n";
        raw.reply(&again, status, extra, body).await;
        if !body.is_empty() {
            continue;
        }
        raw.asked("ACK", SOON).await;
    }
    assert!(
        timeout(Duration::from_millis(200), taken.events.recv())
            .await
            .is_err(),
        "nothing changed"
    );
    assert!(!taken.handle.is_over());
}

#[tokio::test]
async fn two_of_us_keep_a_call_alive() {
    let mut callee = line("127.0.1.9").await;
    let caller = line("127.0.1.10").await;
    let uri = callee.uri(Transport::Udp);
    let (placed, taken) = tokio::join!(caller.sip.invite(&uri, None), async {
        callee.incoming().await.answer().await
    });
    let (placed, taken) = (placed.unwrap(), taken.unwrap());
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert!(!placed.handle.is_over() && !taken.handle.is_over());
    // A change while refreshes run.
    placed.handle.hold(true).await.unwrap();
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert!(!placed.handle.is_over() && !taken.handle.is_over());
    placed.handle.bye().await.unwrap();
    timeout(SOON, taken.handle.ended()).await.unwrap();
}

#[tokio::test]
async fn a_callee_that_wants_a_longer_interval_gets_it() {
    let caller = line("127.0.1.11").await;
    let socket = tokio::net::UdpSocket::bind(("127.0.1.12", 0)).await.unwrap();
    let me = socket.local_addr().unwrap();
    let callee = tokio::spawn(async move {
        let mut buffer = vec![0; 9000];
        let mut intervals = Vec::new();
        loop {
            let (len, from) = socket.recv_from(&mut buffer).await.unwrap();
            let request = String::from_utf8(buffer[..len].to_vec()).unwrap();
            if !request.starts_with("INVITE") {
                continue;
            }
            intervals.push(header(&request, "Session-Expires").unwrap());
            let answer = if intervals.len() == 1 {
                response(&request, "422 Session Interval Too Small", "Min-SE: 300\r\n", "")
            } else {
                let extra = format!(
                    "Contact: <sip:callee@{me}>\r\nRequire: timer\r\nSession-Expires: 300;refresher=uas\r\nContent-Type: application/sdp\r\n"
                );
                response(&request, "200 OK", &extra, SDP)
            };
            socket.send_to(answer.as_bytes(), from).await.unwrap();
            if intervals.len() == 2 {
                return intervals;
            }
        }
    });
    let placed = timeout(SOON, caller.sip.invite(&format!("sip:100@{me}"), None))
        .await
        .unwrap();
    assert!(placed.is_ok(), "{placed:?}");
    assert_eq!(callee.await.unwrap(), ["2", "300"]);
}
