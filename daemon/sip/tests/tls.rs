//! TLS: calls over it, and what a technician is told when a handshake fails.

mod common;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use attendant_sip::{
    Account, RegistrationState, SipConfig, SipError, TlsListener, TlsTrust, Transport, start,
};
use common::{Line, SOON, account, config, peer};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, date_time_ymd};
use sha2::{Digest as _, Sha256};
use tempfile::TempDir;
use tokio::time::timeout;

/// An authority and what it signs, as files.
struct Authority {
    dir: TempDir,
    issuer: Issuer<'static, KeyPair>,
}

/// A certificate, its key and its fingerprint.
struct Identity {
    cert: PathBuf,
    key: PathBuf,
    fingerprint: String,
}

impl Authority {
    fn new() -> Authority {
        let dir = tempfile::tempdir().unwrap();
        let mut params = CertificateParams::new(Vec::<String>::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params
            .distinguished_name
            .push(DnType::CommonName, format!("authority {}", next_name()));
        let key = KeyPair::generate().unwrap();
        let cert = params.self_signed(&key).unwrap();
        std::fs::write(dir.path().join("ca.pem"), cert.pem()).unwrap();
        Authority {
            dir,
            issuer: Issuer::new(params, key),
        }
    }

    fn ca(&self) -> PathBuf {
        self.dir.path().join("ca.pem")
    }

    fn sign(&self, name: &str, change: impl FnOnce(&mut CertificateParams)) -> Identity {
        let mut params = CertificateParams::new(vec![name.to_string()]).unwrap();
        change(&mut params);
        let key = KeyPair::generate().unwrap();
        let cert = params.signed_by(&key, &self.issuer).unwrap();
        write(self.dir.path(), name, &cert, &key)
    }
}

fn write(dir: &Path, name: &str, cert: &rcgen::Certificate, key: &KeyPair) -> Identity {
    let file = |ending: &str| dir.join(format!("{}-{name}.{ending}", next_name()));
    let (cert_file, key_file) = (file("pem"), file("key"));
    std::fs::write(&cert_file, cert.pem()).unwrap();
    std::fs::write(&key_file, key.serialize_pem()).unwrap();
    let digest = Sha256::digest(cert.der());
    Identity {
        cert: cert_file,
        key: key_file,
        fingerprint: digest
            .iter()
            .map(|b| format!("{b:02X}"))
            .collect::<Vec<_>>()
            .join(":"),
    }
}

fn next_name() -> String {
    use std::sync::atomic::{AtomicU32, Ordering};
    static NEXT: AtomicU32 = AtomicU32::new(0);
    NEXT.fetch_add(1, Ordering::Relaxed).to_string()
}

/// A line that listens with this certificate.
async fn server(ip: &str, identity: &Identity) -> Line {
    Line::start(SipConfig {
        tls: Some(TlsListener {
            addr: SocketAddr::new(ip.parse().unwrap(), 0),
            cert: identity.cert.clone(),
            key: identity.key.clone(),
        }),
        peers: vec![peer("127.0.0.0/8")],
        ..config(ip, false)
    })
    .await
}

/// A line with an account there.
async fn client(ip: &str, server: SocketAddr, trust: TlsTrust) -> Line {
    Line::start(SipConfig {
        accounts: vec![Account {
            transport: Transport::Tls,
            trust,
            ..account(server, "secret")
        }],
        ..config(ip, false)
    })
    .await
}

/// What the technician is told of the account.
async fn told(line: &mut Line) -> String {
    loop {
        match line.registration(SOON * 3).await {
            RegistrationState::Unreachable { reason, .. } => return reason,
            RegistrationState::Trying => {}
            other => panic!("{other:?}"),
        }
    }
}

fn trust(ca: Option<PathBuf>) -> TlsTrust {
    TlsTrust {
        ca,
        ..TlsTrust::default()
    }
}

#[tokio::test]
async fn calls_run_over_a_checked_connection_both_ways() {
    let authority = Authority::new();
    let mut callee = server("127.0.5.1", &authority.sign("127.0.5.1", |_| {})).await;
    let uri = callee.uri(Transport::Tls);
    let caller = client(
        "127.0.5.2",
        callee.addr(Transport::Tls),
        trust(Some(authority.ca())),
    )
    .await;
    for callee_hangs_up in [false, true] {
        let (placed, taken) = tokio::join!(timeout(SOON, caller.sip.invite(&uri, None)), async {
            let call = callee.incoming().await;
            call.ringing().await;
            call.answer().await.unwrap()
        });
        let placed = placed.unwrap().unwrap();
        placed.handle.hold(true).await.unwrap();
        let (first, other) = if callee_hangs_up {
            (&taken.handle, &placed.handle)
        } else {
            (&placed.handle, &taken.handle)
        };
        first.bye().await.unwrap();
        timeout(SOON, other.ended()).await.unwrap();
    }
}

#[tokio::test]
async fn a_failing_handshake_says_why_and_what_to_do() {
    let (authority, other) = (Authority::new(), Authority::new());
    let ip = "127.0.5.3";
    let good = authority.sign(ip, |_| {});
    let expired = authority.sign(ip, |params| {
        params.not_before = date_time_ymd(2020, 1, 1);
        params.not_after = date_time_ymd(2021, 1, 1);
    });
    let early = authority.sign(ip, |params| params.not_before = date_time_ymd(2090, 1, 1));
    let elsewhere = authority.sign("pbx.example", |_| {});
    let own = {
        let mut params = CertificateParams::new(vec![ip.to_string()]).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let cert = params.self_signed(&key).unwrap();
        write(authority.dir.path(), "own", &cert, &key)
    };
    let fingerprint = |identity: &Identity| TlsTrust {
        fingerprint: Some(identity.fingerprint.clone()),
        ..TlsTrust::default()
    };
    let anybody = TlsTrust {
        verify: false,
        ..TlsTrust::default()
    };
    // 405: the handshake was good, and the far end is no registrar.
    let cases: Vec<(&str, &Identity, TlsTrust, Vec<&str>)> = vec![
        ("good", &good, trust(Some(authority.ca())), vec!["405"]),
        (
            "another authority",
            &good,
            trust(Some(other.ca())),
            vec!["nobody we trust", "tls_ca", &good.fingerprint],
        ),
        (
            "the system's authorities",
            &good,
            trust(None),
            vec!["nobody we trust", "tls_ca"],
        ),
        (
            "expired",
            &expired,
            trust(Some(authority.ca())),
            vec!["has expired", "clock"],
        ),
        (
            "not valid yet",
            &early,
            trust(Some(authority.ca())),
            vec!["not valid yet", "clock"],
        ),
        (
            "another name",
            &elsewhere,
            trust(Some(authority.ca())),
            vec!["another name"],
        ),
        (
            "an authority's own",
            &own,
            trust(Some(own.cert.clone())),
            vec!["CA:TRUE", "tls_fingerprint", &own.fingerprint],
        ),
        ("by fingerprint", &own, fingerprint(&own), vec!["405"]),
        (
            "expired, by fingerprint",
            &expired,
            fingerprint(&expired),
            vec!["405"],
        ),
        (
            "another fingerprint",
            &good,
            fingerprint(&own),
            vec!["not the one in tls_fingerprint", &good.fingerprint],
        ),
        ("anybody", &expired, anybody, vec!["405"]),
    ];
    for (case, identity, trust, wants) in cases {
        let listening = server(ip, identity).await;
        let mut line = client("127.0.5.4", listening.addr(Transport::Tls), trust).await;
        let reason = told(&mut line).await;
        for want in wants {
            assert!(reason.contains(want), "{case}: '{want}' in: {reason}");
        }
    }
}

#[tokio::test]
async fn what_is_no_tls_is_named() {
    let plain = Line::answering("127.0.5.5", "127.0.0.0/8").await;
    let mut line = client("127.0.5.6", plain.addr(Transport::Tcp), trust(None)).await;
    let reason = told(&mut line).await;
    assert!(
        reason.contains("TLS") && (reason.contains("speak") || reason.contains("handshake")),
        "{reason}"
    );
    let closed = {
        let socket = std::net::TcpListener::bind("127.0.5.5:0").unwrap();
        socket.local_addr().unwrap()
    };
    let mut line = client("127.0.5.7", closed, trust(None)).await;
    let reason = told(&mut line).await;
    assert!(reason.contains("no connection"), "{reason}");
}

#[tokio::test]
async fn files_that_cannot_serve_are_refused_at_start() {
    let authority = Authority::new();
    let good = authority.sign("127.0.5.8", |_| {});
    let other = authority.sign("127.0.5.8", |_| {});
    let listener = |cert: &Path, key: &Path| SipConfig {
        tls: Some(TlsListener {
            addr: "127.0.5.8:0".parse().unwrap(),
            cert: cert.to_owned(),
            key: key.to_owned(),
        }),
        ..config("127.0.5.8", false)
    };
    let nowhere = Path::new("/nowhere/cert.pem");
    for (config, want) in [
        (listener(nowhere, &good.key), "/nowhere/cert.pem"),
        (listener(&good.key, &good.key), "no certificate"),
        (listener(&good.cert, &good.cert), "no private key"),
        (listener(&good.cert, &other.key), "does not go with its key"),
    ] {
        let error = start(config).await.unwrap_err();
        assert!(matches!(error, SipError::Tls { .. }), "{error}");
        assert!(error.to_string().contains(want), "{want}: {error}");
    }
    let bad = TlsTrust {
        fingerprint: Some("AB:CD".to_string()),
        ..TlsTrust::default()
    };
    let accounts = vec![Account {
        transport: Transport::Tls,
        trust: bad,
        ..account("127.0.5.8:5061".parse().unwrap(), "secret")
    }];
    let error = start(SipConfig {
        accounts,
        ..config("127.0.5.8", false)
    })
    .await
    .unwrap_err();
    assert!(error.to_string().contains("64 hexadecimal digits"), "{error}");
}

#[tokio::test]
async fn a_stranger_gets_no_handshake() {
    let authority = Authority::new();
    let identity = authority.sign("127.0.5.9", |_| {});
    let line = Line::start(SipConfig {
        tls: Some(TlsListener {
            addr: "127.0.5.9:0".parse().unwrap(),
            cert: identity.cert,
            key: identity.key,
        }),
        peers: vec![peer("192.0.2.1")],
        ..config("127.0.5.9", false)
    })
    .await;
    let mut stream = tokio::net::TcpStream::connect(line.addr(Transport::Tls))
        .await
        .unwrap();
    let mut buffer = [0; 16];
    let read = tokio::io::AsyncReadExt::read(&mut stream, &mut buffer);
    let got = timeout(Duration::from_secs(2), read)
        .await
        .expect("hung up at once");
    assert_eq!(got.unwrap_or(0), 0);
}
