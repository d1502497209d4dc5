//! A box without models: with a `[fallback]` action it refuses calls as told, before answer, instead of being silent.

use std::io::{BufRead as _, BufReader};
use std::net::UdpSocket;
use std::process::{Command, Stdio};
use std::time::Duration;

/// Starts the daemon without models; the first line of the answer to a call, and its Contact and Retry-After.
fn refused(fallback: &str) -> Vec<String> {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("attendant.toml");
    let text = format!(
        "profile = \"small\"\ndata_dir = {:?}\n[sip]\nudp = \"127.0.0.1:0\"\ntcp = \"127.0.0.1:0\"\n\
         [[sip.peer]]\nname = \"here\"\naddress = \"127.0.0.0/8\"\n[admin]\nlisten = \"127.0.0.1:0\"\n{fallback}",
        dir.path()
    );
    std::fs::write(&file, text).unwrap();
    let mut daemon = Command::new(env!("CARGO_BIN_EXE_attendant"))
        .args(["serve", "--config"])
        .arg(&file)
        .env("ATTENDANT_MODELS_DIR", dir.path().join("models"))
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut line = String::new();
    let mut output = BufReader::new(daemon.stdout.take().unwrap());
    output.read_line(&mut line).unwrap();
    let address = line
        .trim()
        .strip_prefix("out-of-service sip:attendant@")
        .map(str::to_owned);
    let answer = address.map(|address| {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        let me = socket.local_addr().unwrap();
        let sdp = "v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=-\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\nm=audio 9000 RTP/AVP 0\r\n";
        let invite = format!(
            "INVITE sip:1@{address} SIP/2.0\r\nVia: SIP/2.0/UDP {me};branch=z9hG4bKf;rport\r\nFrom: <sip:a@{me}>;tag=1\r\n\
             To: <sip:1@{address}>\r\nCall-ID: f@{me}\r\nCSeq: 1 INVITE\r\nContact: <sip:a@{me}>\r\nMax-Forwards: 70\r\n\
             Content-Type: application/sdp\r\nContent-Length: {}\r\n\r\n{sdp}",
            sdp.len()
        );
        socket.send_to(invite.as_bytes(), &address).unwrap();
        let mut buffer = [0; 4096];
        loop {
            let length = socket.recv(&mut buffer).unwrap();
            let text = String::from_utf8_lossy(&buffer[..length]).into_owned();
            if !text.starts_with("SIP/2.0 1") {
                return text;
            }
        }
    });
    daemon.kill().unwrap();
    daemon.wait().unwrap();
    let answer = answer.unwrap_or_default();
    answer
        .lines()
        .filter(|l| {
            ["SIP/2.0", "Contact:", "Retry-After:"]
                .iter()
                .any(|h| l.starts_with(h))
        })
        .map(str::to_owned)
        .collect()
}

#[test]
fn callers_of_a_box_without_models_get_what_is_configured() {
    let redirected = refused("[fallback]\naction = \"redirect\"\nuri = \"sip:mailbox@192.0.2.9\"\n");
    assert!(redirected[0].starts_with("SIP/2.0 302"), "{redirected:?}");
    assert!(
        redirected.iter().any(|l| l == "Contact: <sip:mailbox@192.0.2.9>"),
        "{redirected:?}"
    );
    let unavailable = refused("[fallback]\naction = \"unavailable\"\nretry_after_s = 7\n");
    assert!(unavailable[0].starts_with("SIP/2.0 503"), "{unavailable:?}");
    assert!(
        unavailable.iter().any(|l| l == "Retry-After: 7"),
        "{unavailable:?}"
    );
    let busy = refused("[fallback]\naction = \"busy\"\n");
    assert!(busy[0].starts_with("SIP/2.0 486"), "{busy:?}");
    assert!(
        refused("").is_empty(),
        "without an action the daemon does not start"
    );
}
