//! A peer that speaks SIP by hand.

use std::net::SocketAddr;
use std::time::Duration;

use attendant_sip::Established;
use tokio::time::timeout;

use super::{Line, SOON};

pub const SDP: &str = "v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=-\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\nm=audio 9000 RTP/AVP 8 101\r\n\
    a=rtpmap:101 telephone-event/8000\r\n";

/// A peer that speaks SIP by hand.
pub struct Raw {
    pub socket: tokio::net::UdpSocket,
    pub target: SocketAddr,
    pub call_id: String,
    pub to: String,
}

impl Raw {
    pub async fn new(ip: &str, target: SocketAddr, call_id: &str) -> Raw {
        let socket = tokio::net::UdpSocket::bind((ip, 0)).await.unwrap();
        Raw {
            socket,
            target,
            call_id: call_id.to_string(),
            to: format!("<sip:100@{target}>"),
        }
    }

    pub fn request(&self, method: &str, cseq: u32, extra: &str, body: &str) -> String {
        let me = self.socket.local_addr().unwrap();
        format!(
            "{method} sip:100@{target} SIP/2.0\r\nVia: SIP/2.0/UDP {me};branch=z9hG4bK{id}{method}{cseq};rport\r\n\
             From: <sip:raw@{me}>;tag=raw\r\nTo: {to}\r\nCall-ID: {id}\r\nCSeq: {cseq} {method}\r\n\
             Contact: <sip:raw@{me}>\r\nMax-Forwards: 70\r\n{extra}Content-Length: {len}\r\n\r\n{body}",
            target = self.target,
            id = self.call_id,
            to = self.to,
            len = body.len(),
        )
    }

    pub fn offer(&self, method: &str, cseq: u32, sdp: &str) -> String {
        self.request(method, cseq, "Content-Type: application/sdp\r\n", sdp)
    }

    pub async fn send(&self, message: impl AsRef<[u8]>) {
        self.socket.send_to(message.as_ref(), self.target).await.unwrap();
    }

    pub async fn receive(&self) -> String {
        let mut buffer = vec![0; 9000];
        let (len, _) = timeout(SOON, self.socket.recv_from(&mut buffer))
            .await
            .expect("an answer in time")
            .unwrap();
        String::from_utf8(buffer[..len].to_vec()).unwrap()
    }

    /// The next final answer; remembers the To tag of a dialog.
    pub async fn answer(&mut self) -> (u16, String) {
        loop {
            let message = self.receive().await;
            let Some(status) = message.strip_prefix("SIP/2.0 ") else {
                continue;
            };
            let status: u16 = status[..3].parse().unwrap();
            if status >= 200 {
                return (status, message);
            }
        }
    }

    /// The next request with `method`; answers are skipped.
    pub async fn asked(&self, method: &str, patience: Duration) -> String {
        let wanted = async {
            let mut buffer = vec![0; 9000];
            loop {
                let (len, _) = self.socket.recv_from(&mut buffer).await.unwrap();
                let message = String::from_utf8(buffer[..len].to_vec()).unwrap();
                if message.starts_with(&format!("{method} ")) {
                    return message;
                }
            }
        };
        timeout(patience, wanted)
            .await
            .unwrap_or_else(|_| panic!("{method} in time"))
    }

    /// Answers a request of the far end.
    pub async fn reply(&self, request: &str, status: &str, extra: &str, body: &str) {
        self.send(response(request, status, extra, body)).await;
    }

    pub fn learn_tag(&mut self, answer: &str) {
        self.to = header(answer, "To").unwrap();
    }

    pub async fn silence(&self) {
        let mut buffer = [0; 9000];
        let got = timeout(Duration::from_millis(300), self.socket.recv_from(&mut buffer)).await;
        assert!(got.is_err(), "unexpected: {}", String::from_utf8_lossy(&buffer));
    }
}

pub fn header(message: &str, name: &str) -> Option<String> {
    message.lines().find_map(|line| {
        line.strip_prefix(&format!("{name}: "))
            .map(|value| value.trim().to_string())
    })
}

pub async fn established(line: &mut Line, raw: &mut Raw, sdp: &str) -> (Established, String) {
    raw.send(raw.offer("INVITE", 1, sdp)).await;
    let taken = line.incoming().await.answer().await.unwrap();
    let (status, answer) = raw.answer().await;
    assert_eq!(status, 200);
    raw.learn_tag(&answer);
    raw.send(raw.request("ACK", 1, "", "")).await;
    (taken, answer)
}

/// An answer to `request`; its To gets a tag where it has none.
pub fn response(request: &str, status: &str, extra: &str, body: &str) -> String {
    let head: String = request
        .lines()
        .filter(|l| {
            ["Via:", "From:", "To:", "Call-ID:", "CSeq:", "Record-Route:"]
                .iter()
                .any(|h| l.starts_with(h))
        })
        .map(|l| {
            if l.starts_with("To:") && !l.contains(";tag=") {
                format!("{l};tag=callee\r\n")
            } else {
                format!("{l}\r\n")
            }
        })
        .collect();
    format!(
        "SIP/2.0 {status}\r\n{head}{extra}Content-Length: {}\r\n\r\n{body}",
        body.len()
    )
}
