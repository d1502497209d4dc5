//! Transfers on the wire: REFER out, Replaces out and in, and what goes wrong with them.

mod common;

use std::time::Duration;

use attendant_sip::{DialogEvent, Outgoing, SipError, TransferProgress, Transport};
use common::raw::{Raw, SDP, established, header, response};
use common::{Line, SOON, next};
use tokio::sync::mpsc;
use tokio::time::timeout;

async fn told(progress: &mut mpsc::Receiver<TransferProgress>) -> Option<TransferProgress> {
    timeout(SOON, progress.recv()).await.expect("progress in time")
}

async fn notify(raw: &mut Raw, cseq: u32, state: &str, fragment: &str) -> u16 {
    let extra = format!(
        "Event: refer\r\nSubscription-State: {state}\r\nContent-Type: message/sipfrag;version=2.0\r\n"
    );
    raw.send(raw.request("NOTIFY", cseq, &extra, fragment)).await;
    raw.answer().await.0
}

#[tokio::test]
async fn a_blind_transfer_is_told_and_ended_with_bye() {
    let mut line = Line::answering("127.0.3.1", "127.0.3.2").await;
    let mut raw = Raw::new("127.0.3.2", line.addr(Transport::Udp), "blind").await;
    let (mut taken, _) = established(&mut line, &mut raw, SDP).await;
    let (progress, ()) = tokio::join!(taken.handle.refer("sip:office@127.0.3.2:5070"), async {
        let refer = raw.asked("REFER", SOON).await;
        assert_eq!(
            header(&refer, "Refer-To").as_deref(),
            Some("<sip:office@127.0.3.2:5070>")
        );
        assert!(
            header(&refer, "Referred-By").unwrap().starts_with("<sip:100@"),
            "{refer}"
        );
        // RFC 3515 lets the first NOTIFY come before the answer.
        assert_eq!(notify(&mut raw, 2, "active", "SIP/2.0 100 Trying\r\n").await, 200);
        raw.reply(&refer, "202 Accepted", "", "").await;
    });
    let mut progress = progress.unwrap();
    assert_eq!(told(&mut progress).await, Some(TransferProgress::Trying));
    let second = taken.handle.refer("sip:other@127.0.3.2").await;
    assert!(
        matches!(second, Err(SipError::Refused { status: 491, .. })),
        "one transfer at a time: {second:?}"
    );
    assert_eq!(notify(&mut raw, 3, "active", "SIP/2.0 180 Ringing").await, 200);
    assert_eq!(notify(&mut raw, 4, "active", "SIP/2.0 180 Ringing").await, 200);
    assert_eq!(told(&mut progress).await, Some(TransferProgress::Ringing));
    assert_eq!(
        notify(&mut raw, 5, "terminated;reason=noresource", "SIP/2.0 200 OK\r\n").await,
        200
    );
    assert_eq!(told(&mut progress).await, Some(TransferProgress::Answered));
    assert_eq!(told(&mut progress).await, None);
    let bye = raw.asked("BYE", SOON).await;
    raw.reply(&bye, "200 OK", "", "").await;
    assert_eq!(next(&mut taken.events).await, Some(DialogEvent::Bye));
    line.idle().await;
}

#[tokio::test]
async fn a_failed_transfer_leaves_the_caller_with_us_off_hold() {
    let mut line = Line::answering("127.0.3.3", "127.0.3.4").await;
    let mut raw = Raw::new("127.0.3.4", line.addr(Transport::Udp), "failed").await;
    let (taken, _) = established(&mut line, &mut raw, SDP).await;
    let (held, ()) = tokio::join!(taken.handle.hold(true), async {
        let hold = raw.asked("INVITE", SOON).await;
        let contact = format!(
            "Contact: <sip:raw@{}>\r\nContent-Type: application/sdp\r\n",
            raw.socket.local_addr().unwrap()
        );
        raw.reply(&hold, "200 OK", &contact, &format!("{SDP}a=recvonly\r\n"))
            .await;
    });
    held.unwrap();
    let (progress, ()) = tokio::join!(taken.handle.refer("sip:office@127.0.3.4"), async {
        let refer = raw.asked("REFER", SOON).await;
        raw.reply(&refer, "202 Accepted", "", "").await;
    });
    let mut progress = progress.unwrap();
    assert_eq!(
        notify(&mut raw, 20, "terminated", "SIP/2.0 486 Busy Here\r\n").await,
        200
    );
    let resume = raw.asked("INVITE", SOON).await;
    assert!(resume.contains("a=sendrecv"), "{resume}");
    let contact = format!(
        "Contact: <sip:raw@{}>\r\nContent-Type: application/sdp\r\n",
        raw.socket.local_addr().unwrap()
    );
    raw.reply(&resume, "200 OK", &contact, SDP).await;
    assert_eq!(told(&mut progress).await, Some(TransferProgress::Failed(486)));
    assert!(!taken.handle.is_over());
    // Later news has no transfer to belong to.
    assert_eq!(notify(&mut raw, 21, "terminated", "SIP/2.0 200 OK").await, 481);
    // Another transfer may be tried; a far end that does not know REFER is said so.
    for status in ["405 Method Not Allowed", "603 Decline", "501 Not Implemented"] {
        let (refused, ()) = tokio::join!(taken.handle.refer("sip:office@127.0.3.4"), async {
            let refer = raw.asked("REFER", SOON).await;
            raw.reply(&refer, status, "", "").await;
        });
        assert!(
            matches!(&refused, Err(SipError::Refused { status: got, .. }) if status.starts_with(&got.to_string())),
            "{refused:?}"
        );
    }
    assert!(!taken.handle.is_over());
    let bad = taken.handle.refer("http://office").await;
    assert!(matches!(bad, Err(SipError::BadAddress { .. })), "{bad:?}");
}

#[tokio::test]
async fn a_pbx_that_hangs_up_instead_of_telling_is_understood() {
    let mut line = Line::answering("127.0.3.5", "127.0.3.6").await;
    let mut raw = Raw::new("127.0.3.6", line.addr(Transport::Udp), "silent").await;
    let (taken, _) = established(&mut line, &mut raw, SDP).await;
    let (progress, ()) = tokio::join!(taken.handle.refer("sip:office@127.0.3.6"), async {
        let refer = raw.asked("REFER", SOON).await;
        raw.reply(&refer, "202 Accepted", "", "").await;
    });
    raw.send(raw.request("BYE", 2, "", "")).await;
    assert_eq!(raw.answer().await.0, 200);
    assert_eq!(told(&mut progress.unwrap()).await, Some(TransferProgress::Gone));
}

#[tokio::test]
async fn a_consultation_is_joined_with_the_caller_by_replaces() {
    let mut line = Line::answering("127.0.3.7", "127.0.3.8").await;
    let mut caller = Raw::new("127.0.3.8", line.addr(Transport::Udp), "caller").await;
    let (taken, _) = established(&mut line, &mut caller, SDP).await;
    // The person who takes over.
    let desk = tokio::net::UdpSocket::bind(("127.0.3.8", 0)).await.unwrap();
    let at = desk.local_addr().unwrap();
    let answered = tokio::spawn(async move {
        let mut buffer = vec![0; 9000];
        loop {
            let (len, from) = desk.recv_from(&mut buffer).await.unwrap();
            let request = String::from_utf8(buffer[..len].to_vec()).unwrap();
            if request.starts_with("INVITE") {
                assert_eq!(
                    header(&request, "Subject").as_deref(),
                    Some("A caller  about tyres")
                );
                let ringing = response(
                    &request,
                    "180 Ringing",
                    &format!("Contact: <sip:desk@{at}>\r\n"),
                    "",
                );
                desk.send_to(ringing.as_bytes(), from).await.unwrap();
                // As Asterisk's: without a user.
                let extra = format!("Contact: <sip:{at}>\r\nContent-Type: application/sdp\r\n");
                let ok = response(&request, "200 OK", &extra, SDP);
                desk.send_to(ok.as_bytes(), from).await.unwrap();
            } else if request.starts_with("BYE") {
                let ok = response(&request, "200 OK", "", "");
                desk.send_to(ok.as_bytes(), from).await.unwrap();
                return request;
            }
        }
    });
    let (rings, mut ringing) = mpsc::channel(4);
    let consultation = line
        .sip
        .dialler()
        .call(Outgoing {
            subject: Some("A caller\r\nabout tyres".to_string()),
            progress: Some(rings),
            ..Outgoing::to(&format!("sip:desk@{at}"))
        })
        .await
        .unwrap();
    assert_eq!(told(&mut ringing).await, Some(TransferProgress::Ringing));
    let (progress, ()) = tokio::join!(taken.handle.refer_to_call(&consultation.handle), async {
        let refer = caller.asked("REFER", SOON).await;
        let to = header(&refer, "Refer-To").unwrap();
        let wanted = format!("<sip:desk@{at}?Replaces=");
        assert!(
            to.starts_with(&wanted) && to.contains("%3Bto-tag%3Dcallee%3Bfrom-tag%3D"),
            "{to}"
        );
        let id = to.trim_start_matches(&wanted).split("%3B").next().unwrap();
        assert_eq!(
            id.replace("%40", "@"),
            consultation.handle.call_id(),
            "names the consultation"
        );
        caller.reply(&refer, "202 Accepted", "", "").await;
    });
    // The desk's telephone takes the caller's INVITE and ends the consultation; we need not.
    assert_eq!(
        notify(&mut caller, 2, "terminated", "SIP/2.0 200 OK\r\n").await,
        200
    );
    assert_eq!(
        told(&mut progress.unwrap()).await,
        Some(TransferProgress::Answered)
    );
    caller.asked("BYE", SOON).await;
    drop(consultation);
    let bye = timeout(SOON, answered).await.unwrap().unwrap();
    assert!(bye.starts_with("BYE"), "a consultation left over is ended");
}

#[tokio::test]
async fn an_invite_with_replaces_takes_the_call_over() {
    let mut line = Line::answering("127.0.3.9", "127.0.3.10").await;
    let mut first = Raw::new("127.0.3.10", line.addr(Transport::Udp), "first").await;
    let (mut taken, answer) = established(&mut line, &mut first, SDP).await;
    let our_tag = answer
        .lines()
        .find(|l| l.starts_with("To:"))
        .and_then(|l| l.split(";tag=").nth(1))
        .unwrap()
        .to_string();
    let port_before = answer
        .lines()
        .find(|l| l.starts_with("m=audio"))
        .unwrap()
        .to_string();
    let replacing = |raw: &Raw, cseq: u32, replaces: &str| {
        let extra = format!("Require: replaces\r\nReplaces: {replaces}\r\nContent-Type: application/sdp\r\n");
        raw.request("INVITE", cseq, &extra, &SDP.replace("9000", "9100"))
    };
    // What names no call of ours, or not like this.
    let mut stranger = Raw::new("127.0.3.10", first.target, "stranger").await;
    for (cseq, replaces, want) in [
        (1, format!("nobody;to-tag={our_tag};from-tag=raw"), 481),
        (2, "first;to-tag=x;from-tag=raw".to_string(), 481),
        (3, format!("first;to-tag={our_tag};from-tag=raw;early-only"), 486),
        (4, "first;to-tag=x".to_string(), 400),
        (
            5,
            format!("first;to-tag={our_tag};from-tag=raw\r\nReplaces: second;to-tag=1;from-tag=2"),
            400,
        ),
    ] {
        stranger.send(replacing(&stranger, cseq, &replaces)).await;
        assert_eq!(stranger.answer().await.0, want, "{replaces}");
    }
    assert!(!taken.handle.is_over());
    let mut second = Raw::new("127.0.3.10", first.target, "second").await;
    let replaces = format!("first;to-tag={our_tag};from-tag=raw");
    second.send(replacing(&second, 1, &replaces)).await;
    let (status, answer) = second.answer().await;
    assert_eq!(status, 200, "{answer}");
    assert!(answer.contains(&port_before), "the same RTP port: {answer}");
    second.learn_tag(&answer);
    second.send(second.request("ACK", 1, "", "")).await;
    let bye = first.asked("BYE", SOON).await;
    first.reply(&bye, "200 OK", "", "").await;
    assert_eq!(next(&mut taken.events).await, Some(DialogEvent::Replaced));
    let media = next(&mut taken.events).await;
    assert!(
        matches!(&media, Some(DialogEvent::Media(media)) if media.stream.remote.port() == 9100),
        "{media:?}"
    );
    assert!(!taken.handle.is_over(), "the same call goes on");
    // The handle is the new dialog's.
    let (held, ()) = tokio::join!(taken.handle.hold(true), async {
        let hold = second.asked("INVITE", SOON).await;
        let contact = format!(
            "Contact: <sip:raw@{}>\r\nContent-Type: application/sdp\r\n",
            second.socket.local_addr().unwrap()
        );
        second
            .reply(&hold, "200 OK", &contact, &format!("{SDP}a=recvonly\r\n"))
            .await;
    });
    held.unwrap();
    // The old dialog cannot be replaced again.
    stranger.send(replacing(&stranger, 9, &replaces)).await;
    let (status, _) = stranger.answer().await;
    assert!(matches!(status, 481 | 603), "{status}");
    second.send(second.request("BYE", 2, "", "")).await;
    assert_eq!(second.answer().await.0, 200);
    assert_eq!(next(&mut taken.events).await, Some(DialogEvent::Bye));
    timeout(SOON, taken.handle.ended()).await.unwrap();
    line.idle().await;
}

#[tokio::test]
async fn ringing_for_too_long_is_cancelled() {
    let line = Line::calling("127.0.3.11").await;
    let raw = Raw::new("127.0.3.12", line.addr(Transport::Udp), "ring").await;
    let target = format!("sip:desk@{}", raw.socket.local_addr().unwrap());
    let dialler = line.sip.dialler();
    let placed = tokio::spawn(async move {
        dialler
            .call(Outgoing {
                ring: Duration::from_millis(400),
                ..Outgoing::to(&target)
            })
            .await
    });
    let invite = raw.asked("INVITE", SOON).await;
    raw.reply(&invite, "180 Ringing", "", "").await;
    let cancel = raw.asked("CANCEL", SOON).await;
    raw.reply(&cancel, "200 OK", "", "").await;
    let placed = placed.await.unwrap();
    assert!(matches!(placed, Err(SipError::Timeout { .. })), "{placed:?}");
}
