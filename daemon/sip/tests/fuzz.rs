//! Damaged messages at a living endpoint, which answers calls all the while: it goes on serving, and keeps nothing.

mod common;
#[path = "common/mutate.rs"]
mod mutate;

use std::time::Duration;

use attendant_sip::{SipConfig, SipEvent, Transport, start};
use common::{Line, SOON, config, peer};
use mutate::{Mutator, heap_kib, resident_kib};
use tokio::net::UdpSocket;
use tokio::time::{sleep, timeout};

/// A debug build is some twenty times slower.
const MESSAGES: u64 = if cfg!(debug_assertions) { 2_000 } else { 20_000 };
/// A transaction is forgotten after this (RFC 3261 §17: 64·T1), and with it a refused call.
const FORGOTTEN: Duration = Duration::from_secs(36);
/// What may be left when all transactions are over \[KiB\].
const SLACK_KIB: u64 = 512;

async fn torment(mutator: &mut Mutator, socket: &UdpSocket, target: std::net::SocketAddr) {
    for n in 0..MESSAGES {
        let mut message = mutator.message();
        // A Call-ID and a branch of its own: else most would be the retransmission of another.
        let unique = |text: &[u8], name: &str| {
            let at = text
                .windows(name.len())
                .position(|w| w.eq_ignore_ascii_case(name.as_bytes()))?;
            Some(at + name.len())
        };
        for name in ["call-id: ", "branch=z9hg4bk"] {
            if let Some(at) = unique(&message, name) {
                message.splice(at..at, format!("{n}x").into_bytes());
            }
        }
        message.truncate(60_000);
        let _ = socket.send_to(&message, target).await;
        if n % 50 == 0 {
            sleep(Duration::from_millis(5)).await;
        }
    }
}

#[tokio::test]
#[ignore = "a minute and a half of waiting for transactions to end: part of make peer-test"]
async fn a_living_endpoint_survives_damaged_messages() {
    let (sip, mut events) = start(SipConfig {
        peers: vec![peer("127.0.0.0/8")],
        // Who never acknowledges an answer keeps its place for 32 s.
        max_calls: 9_000,
        rtp_ports: (20_000, 39_999),
        ..config("127.0.0.91", true)
    })
    .await
    .unwrap();
    let answering = tokio::spawn(async move {
        while let Some(event) = events.recv().await {
            if let SipEvent::Incoming(call) = event {
                tokio::spawn(async move {
                    if let Ok(call) = call.answer().await {
                        sleep(Duration::from_millis(200)).await;
                        let _ = call.handle.bye().await;
                    }
                });
            }
        }
    });
    let target = sip
        .local_addrs()
        .into_iter()
        .find(|(t, _)| *t == Transport::Udp)
        .unwrap()
        .1;
    let socket = UdpSocket::bind("127.0.0.92:0").await.unwrap();
    let mut mutator = Mutator::new(5118);
    // The first round fills pools and caches.
    torment(&mut mutator, &socket, target).await;
    sleep(FORGOTTEN).await;
    let (before, resident, started) = (heap_kib(), resident_kib(), std::time::Instant::now());
    torment(&mut mutator, &socket, target).await;
    let seconds = started.elapsed().as_secs_f64();
    let caller = Line::calling("127.0.0.93").await;
    let placed = timeout(SOON, caller.sip.invite(&format!("sip:100@{target}"), None)).await;
    assert!(
        matches!(placed, Ok(Ok(_))),
        "a good call after {MESSAGES} bad messages: {placed:?}"
    );
    drop(placed);
    sleep(FORGOTTEN).await;
    let after = heap_kib();
    println!(
        "messages={} active={} heap_kib: {before}, {after}; rss_kib: {resident}, {} seconds={seconds:.1} {:?}",
        2 * MESSAGES,
        sip.active_dialogs(),
        resident_kib(),
        sip.gate_counters()
    );
    assert_eq!(sip.active_dialogs(), 0, "calls that never end");
    assert!(!answering.is_finished());
    assert!(
        after <= before + SLACK_KIB,
        "memory grew from {before} to {after} KiB"
    );
}
