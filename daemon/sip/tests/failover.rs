//! Several servers behind one name: the next one takes over from one that is silent or says 503; and IPv6.

mod common;

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use attendant_sip::{
    Account, NamedPeer, Names, Outgoing, RegistrationState, SipConfig, SipError, Srv, Transport,
};
use common::raw::{Raw, SDP, header, response};
use common::{Line, SOON, account, config, next, peer};
use tokio::net::UdpSocket;
use tokio::time::timeout;

/// A DNS with what a test needs.
#[derive(Debug, Default)]
struct Zone {
    srv: HashMap<String, Vec<Srv>>,
    hosts: HashMap<String, IpAddr>,
}

#[async_trait]
impl Names for Zone {
    async fn srv(&self, name: &str) -> Vec<Srv> {
        self.srv.get(name).cloned().unwrap_or_default()
    }

    async fn addresses(&self, host: &str) -> io::Result<Vec<IpAddr>> {
        let found = self.hosts.get(host).copied();
        found
            .map(|ip| vec![ip])
            .ok_or_else(|| io::ErrorKind::NotFound.into())
    }
}

/// `pbx.test` has these servers, the first one first.
fn zone(servers: &[SocketAddr]) -> Option<Arc<dyn Names>> {
    let mut zone = Zone::default();
    let mut records = Vec::new();
    for (n, server) in (1..).zip(servers) {
        let target = format!("s{n}.test");
        zone.hosts.insert(target.clone(), server.ip());
        records.push(Srv {
            target,
            port: server.port(),
            priority: n * 10,
            weight: 0,
        });
    }
    zone.srv.insert("_sip._udp.pbx.test".to_string(), records);
    Some(Arc::new(zone))
}

/// Answers every INVITE with `status`, and hands over what it took.
async fn server(ip: &str, status: &'static str) -> (SocketAddr, tokio::task::JoinHandle<Vec<String>>) {
    let socket = UdpSocket::bind((ip, 0)).await.unwrap();
    let me = socket.local_addr().unwrap();
    let serving = tokio::spawn(async move {
        let mut seen = Vec::new();
        let mut buffer = vec![0; 9000];
        while let Ok(Ok((len, from))) = timeout(SOON * 3, socket.recv_from(&mut buffer)).await {
            let request = String::from_utf8(buffer[..len].to_vec()).unwrap();
            let method = request.split(' ').next().unwrap().to_string();
            let extra = format!("Contact: <sip:s@{me}>\r\nContent-Type: application/sdp\r\n");
            let answer = match method.as_str() {
                "INVITE" if status.starts_with("200") => response(&request, status, &extra, SDP),
                "INVITE" => response(&request, status, "", ""),
                "BYE" | "CANCEL" => response(&request, "200 OK", "", ""),
                "REGISTER" => {
                    let contact = header(&request, "Contact").unwrap();
                    response(
                        &request,
                        status,
                        &format!("Contact: {contact};expires=60\r\n"),
                        "",
                    )
                }
                _ => String::new(),
            };
            if !answer.is_empty() && !status.is_empty() {
                socket.send_to(answer.as_bytes(), from).await.unwrap();
            }
            let last = method == "BYE";
            seen.push(method);
            if last {
                break;
            }
        }
        seen
    });
    (me, serving)
}

#[tokio::test]
async fn a_server_that_says_503_or_nothing_is_passed_over() {
    for (ip, status, patience) in [
        ("127.0.4.1", "503 Service Unavailable", Duration::from_secs(2)),
        ("127.0.4.2", "", Duration::from_secs(7)),
    ] {
        let (bad, bad_seen) = server(ip, status).await;
        let (good, good_seen) = server(ip, "200 OK").await;
        let line = Line::start(SipConfig {
            names: zone(&[bad, good]),
            ..config(ip, false)
        })
        .await;
        let begun = Instant::now();
        let placed = line.sip.invite("sip:100@pbx.test", None).await.unwrap();
        assert!(begun.elapsed() < patience, "{:?}", begun.elapsed());
        // The next call need not find out again.
        let begun = Instant::now();
        let second = line.sip.invite("sip:100@pbx.test", None).await.unwrap();
        assert!(begun.elapsed() < Duration::from_secs(1), "{:?}", begun.elapsed());
        drop(second);
        placed.handle.bye().await.unwrap();
        let seen = timeout(SOON, good_seen).await.unwrap().unwrap();
        assert!(seen.iter().filter(|method| *method == "INVITE").count() >= 1);
        bad_seen.abort();
    }
}

#[tokio::test]
async fn a_refusal_is_not_asked_again_elsewhere() {
    let (busy, busy_seen) = server("127.0.4.3", "486 Busy Here").await;
    let (other, other_seen) = server("127.0.4.3", "200 OK").await;
    let line = Line::start(SipConfig {
        names: zone(&[busy, other]),
        ..config("127.0.4.3", false)
    })
    .await;
    let placed = line.sip.invite("sip:100@pbx.test", None).await;
    assert!(
        matches!(placed, Err(SipError::Refused { status: 486, .. })),
        "{placed:?}"
    );
    assert!(!other_seen.is_finished());
    let lost = line
        .sip
        .dialler()
        .call(Outgoing::to("sip:100@nowhere.test"))
        .await;
    let said = lost.unwrap_err().to_string();
    assert!(said.contains("nowhere.test") && said.contains("DNS"), "{said}");
    busy_seen.abort();
    other_seen.abort();
}

#[tokio::test]
async fn an_account_registers_at_the_next_server() {
    let (dead, _dead_seen) = server("127.0.4.4", "").await;
    let (good, _good_seen) = server("127.0.4.4", "200 OK").await;
    let mut line = Line::start(SipConfig {
        names: zone(&[dead, good]),
        accounts: vec![Account {
            registrar: "pbx.test".to_string(),
            ..account(good, "secret")
        }],
        ..config("127.0.4.4", false)
    })
    .await;
    assert_eq!(line.registration(SOON).await, RegistrationState::Trying);
    assert_eq!(
        line.registration(SOON * 3).await,
        RegistrationState::Registered { expires_s: 60 }
    );
}

#[tokio::test]
async fn a_peer_is_known_by_its_name() {
    let mut zone = Zone::default();
    zone.hosts
        .insert("trunk.test".to_string(), "127.0.4.6".parse().unwrap());
    let mut line = Line::start(SipConfig {
        names: Some(Arc::new(zone)),
        named_peers: vec![NamedPeer {
            name: "trunk".to_string(),
            host: "trunk.test".to_string(),
        }],
        ..config("127.0.4.5", false)
    })
    .await;
    tokio::time::sleep(Duration::from_millis(200)).await;
    let mut stranger = Raw::new("127.0.4.7", line.addr(Transport::Udp), "stranger").await;
    stranger.send(stranger.offer("INVITE", 1, SDP)).await;
    assert_eq!(stranger.answer().await.0, 403);
    let raw = Raw::new("127.0.4.6", line.addr(Transport::Udp), "trunk").await;
    raw.send(raw.offer("INVITE", 1, SDP)).await;
    drop(line.incoming().await);
    let bad = attendant_sip::start(SipConfig {
        named_peers: vec![NamedPeer {
            name: "trunk".to_string(),
            host: "sip:a@b".to_string(),
        }],
        ..config("127.0.4.5", false)
    })
    .await;
    assert!(bad.unwrap_err().to_string().contains("host name"));
}

#[tokio::test]
async fn calls_over_ipv6() {
    for transport in [Transport::Udp, Transport::Tcp] {
        let mut callee = Line::start(SipConfig {
            peers: vec![peer("::1/128")],
            ..config("::1", true)
        })
        .await;
        let caller = Line::start(config("::1", false)).await;
        let uri = callee.uri(transport);
        assert!(uri.contains("@[::1]:"), "{uri}");
        let (placed, taken) = tokio::join!(caller.sip.invite(&uri, None), async {
            callee.incoming().await.answer().await
        });
        let (placed, mut taken) = (placed.unwrap(), taken.unwrap());
        assert!(placed.media.stream.remote.is_ipv6());
        assert_eq!(placed.media.stream.remote, taken.socket.local_addr().unwrap());
        placed.handle.hold(true).await.unwrap();
        assert_eq!(
            next(&mut taken.events).await,
            Some(attendant_sip::DialogEvent::Hold(true))
        );
        taken.handle.bye().await.unwrap();
        timeout(SOON, placed.handle.ended()).await.unwrap();
    }
}
