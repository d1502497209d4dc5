//! Registration against a small registrar that checks digests.

mod common;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use attendant_sip::{RegistrationState, SipConfig};
use common::{Line, SOON, account, config};
use md5::{Digest as _, Md5};
use sha2::Sha256;
use tokio::net::UdpSocket;
use tokio::task::JoinHandle;

#[derive(Clone, Copy, PartialEq)]
enum Hash {
    Md5,
    Sha256,
}

impl Hash {
    fn hex(self, text: &str) -> String {
        let bytes = match self {
            Hash::Md5 => Md5::digest(text).to_vec(),
            Hash::Sha256 => Sha256::digest(text).to_vec(),
        };
        bytes.iter().map(|b| format!("{b:02x}")).collect()
    }
}

struct Registrar {
    addr: SocketAddr,
    requests: Arc<AtomicU32>,
    accepted: Arc<AtomicU32>,
    task: JoinHandle<()>,
}

/// Answers REGISTER: a challenge, then 200 for the password `secret`, else 401 again.
async fn registrar(addr: &str, hash: Hash) -> Registrar {
    let socket = UdpSocket::bind(addr).await.unwrap();
    let addr = socket.local_addr().unwrap();
    let (requests, accepted) = (Arc::new(AtomicU32::new(0)), Arc::new(AtomicU32::new(0)));
    let (seen, good) = (requests.clone(), accepted.clone());
    let task = tokio::spawn(async move {
        let mut buffer = vec![0; 9000];
        loop {
            let (len, from) = socket.recv_from(&mut buffer).await.unwrap();
            let request = String::from_utf8(buffer[..len].to_vec()).unwrap();
            seen.fetch_add(1, Ordering::SeqCst);
            let head: String = request
                .lines()
                .filter(|l| {
                    ["Via:", "From:", "To:", "Call-ID:", "CSeq:"]
                        .iter()
                        .any(|h| l.starts_with(h))
                })
                .map(|l| {
                    if l.starts_with("To:") {
                        format!("{l};tag=r\r\n")
                    } else {
                        format!("{l}\r\n")
                    }
                })
                .collect();
            let challenges = match hash {
                Hash::Md5 => "WWW-Authenticate: Digest realm=\"pbx\", nonce=\"n\", qop=\"auth,auth-int\"\r\n".to_string(),
                Hash::Sha256 => "WWW-Authenticate: Digest realm=\"pbx\", nonce=\"n\", algorithm=SHA-512-256, qop=\"auth\"\r\n\
                    WWW-Authenticate: Digest realm=\"pbx\", nonce=\"n\", algorithm=MD5, qop=\"auth\"\r\n\
                    WWW-Authenticate: Digest realm=\"pbx\", nonce=\"n\", algorithm=SHA-256, qop=\"auth\"\r\n"
                    .to_string(),
            };
            let answer = if authorised(&request, hash) {
                good.fetch_add(1, Ordering::SeqCst);
                let contact = request
                    .lines()
                    .find(|l| l.starts_with("Contact:"))
                    .unwrap_or_default();
                format!("SIP/2.0 200 OK\r\n{head}{contact};expires=60\r\nContent-Length: 0\r\n\r\n")
            } else {
                format!("SIP/2.0 401 Unauthorized\r\n{head}{challenges}Content-Length: 0\r\n\r\n")
            };
            let _ = socket.send_to(answer.as_bytes(), from).await;
        }
    });
    Registrar {
        addr,
        requests,
        accepted,
        task,
    }
}

fn authorised(request: &str, hash: Hash) -> bool {
    let Some(line) = request
        .lines()
        .find_map(|l| l.strip_prefix("Authorization: Digest "))
    else {
        return false;
    };
    let get = |name: &str| {
        line.split(", ")
            .find_map(|p| p.trim().strip_prefix(&format!("{name}=")))
            .map(|v| v.trim_matches('"').to_string())
            .unwrap_or_default()
    };
    let algorithm = if hash == Hash::Md5 { "MD5" } else { "SHA-256" };
    assert_eq!(get("algorithm"), algorithm, "{line}");
    assert!(line.contains("qop=auth,"), "{line}");
    let ha1 = hash.hex(&format!("{}:pbx:secret", get("username")));
    let ha2 = hash.hex(&format!("REGISTER:{}", get("uri")));
    get("response") == hash.hex(&format!("{ha1}:n:{}:{}:auth:{ha2}", get("nc"), get("cnonce")))
}

async fn registered(ip: &str, hash: Hash) {
    let registrar = registrar(&format!("{ip}:0"), hash).await;
    let accounts = vec![account(registrar.addr, "secret")];
    let mut line = Line::start(SipConfig {
        accounts,
        ..config(ip, false)
    })
    .await;
    assert_eq!(line.registration(SOON).await, RegistrationState::Trying);
    assert_eq!(
        line.registration(SOON).await,
        RegistrationState::Registered { expires_s: 60 }
    );
    line.sip.shutdown().await;
    assert_eq!(
        registrar.accepted.load(Ordering::SeqCst),
        2,
        "registered, then given up"
    );
}

#[tokio::test]
async fn md5() {
    registered("127.0.0.81", Hash::Md5).await;
}

#[tokio::test]
async fn sha_256_is_preferred() {
    registered("127.0.0.82", Hash::Sha256).await;
}

#[tokio::test]
async fn a_wrong_password_is_said_once_and_not_repeated() {
    let registrar = registrar("127.0.0.83:0", Hash::Md5).await;
    let accounts = vec![account(registrar.addr, "wrong")];
    let mut line = Line::start(SipConfig {
        accounts,
        ..config("127.0.0.83", false)
    })
    .await;
    assert_eq!(line.registration(SOON).await, RegistrationState::Trying);
    let RegistrationState::Refused { status: 401, reason } = line.registration(SOON).await else {
        panic!("not refused");
    };
    assert!(
        reason.contains("password") && !reason.contains("wrong"),
        "{reason}"
    );
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!(
        registrar.requests.load(Ordering::SeqCst),
        2,
        "one challenge, one attempt"
    );
    assert!(line.events.try_recv().is_err());
}

#[tokio::test]
async fn an_absent_registrar_is_reported_and_found_when_it_comes() {
    let addr: SocketAddr = {
        let socket = std::net::UdpSocket::bind("127.0.0.84:0").unwrap();
        socket.local_addr().unwrap()
    };
    let mut line = Line::start(SipConfig {
        accounts: vec![account(addr, "secret")],
        ..config("127.0.0.84", false)
    })
    .await;
    assert_eq!(line.registration(SOON).await, RegistrationState::Trying);
    let RegistrationState::Unreachable { reason, retry_in_s } =
        line.registration(Duration::from_secs(12)).await
    else {
        panic!("reachable");
    };
    assert!(
        reason.contains("no answer") && retry_in_s <= 1,
        "{reason} {retry_in_s}"
    );
    let registrar = registrar(&addr.to_string(), Hash::Md5).await;
    let state = loop {
        match line.registration(Duration::from_secs(15)).await {
            RegistrationState::Unreachable { .. } => {}
            other => break other,
        }
    };
    assert_eq!(state, RegistrationState::Registered { expires_s: 60 });
    // Calls from the registrar are welcome without being listed.
    registrar.task.abort();
}
