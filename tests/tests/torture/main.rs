//! The torture messages of RFC 4475 (50) and RFC 5118 (12) against the real SIP endpoint, over UDP and TCP, IPv4 and
//! IPv6: each gets the answer it deserves, once, and the endpoint serves on.
//!
//! The messages are the RFCs' own archives, bit by bit (`tests/torture`). Answers go where the Via says (RFC 3261
//! §18.2.2), often port 5060: so this runs in a network of its own. Each message meets a fresh endpoint, since many
//! share one Call-ID and branch; at the end one endpoint takes them all.
//! With `ATTENDANT_TABLES=DIR` the table is written to `DIR/torture.md`.

mod table;

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use attendant_sip::{IncomingCall, Peer, Sip, SipConfig, SipEvent, SrtpPolicy, Transport, start};
use attendant_tests::network::in_own_network;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, UdpSocket};
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout};

use crate::table::{CASES, Case};

/// An answer that is due comes within this; our own processing takes milliseconds.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long silence is listened to.
const SILENCE: Duration = Duration::from_millis(700);
const SDP: &str =
    "v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=-\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\nm=audio 9000 RTP/AVP 0\r\n";

/// One way to reach an endpoint.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Way {
    transport: Transport,
    six: bool,
}

const WAYS: [Way; 4] = [
    way(Transport::Udp, false),
    way(Transport::Tcp, false),
    way(Transport::Udp, true),
    way(Transport::Tcp, true),
];

const fn way(transport: Transport, six: bool) -> Way {
    Way { transport, six }
}

impl Way {
    /// The `side` of test number `n`: addresses of its own, in an IPv6 network of its own.
    fn ip(self, n: usize, side: u8) -> IpAddr {
        let n = u16::try_from(n).expect("few tests");
        let [high, low] = n.to_be_bytes();
        if self.six {
            Ipv6Addr::new(0x2001, 0xdb8, 0, n, 0, 0, 0, u16::from(side)).into()
        } else {
            Ipv4Addr::new(127, 1 + high, low, side).into()
        }
    }

    fn name(self) -> &'static str {
        match (self.transport, self.six) {
            (Transport::Udp, false) => "UDP",
            (Transport::Udp, true) => "UDP/IPv6",
            (_, false) => "TCP",
            (_, true) => "TCP/IPv6",
        }
    }
}

/// An endpoint that answers every call.
async fn endpoint(ip: IpAddr) -> Result<(Sip, tokio::task::JoinHandle<()>)> {
    let addr = SocketAddr::new(ip, 5060);
    let peer = |net: &str| -> Result<Peer> {
        Ok(Peer {
            name: "torture".to_owned(),
            net: net.parse()?,
            srtp: SrtpPolicy::default(),
        })
    };
    let (sip, mut events) = start(SipConfig {
        udp: Some(addr),
        tcp: Some(addr),
        peers: vec![peer("127.0.0.0/8")?, peer("2001:db8::/32")?],
        max_calls: 100,
        ..SipConfig::default()
    })
    .await?;
    let answering = tokio::spawn(async move {
        while let Some(event) = events.recv().await {
            if let SipEvent::Incoming(call) = event {
                tokio::spawn(take(call));
            }
        }
    });
    Ok((sip, answering))
}

/// Answers, and stays until the caller hangs up.
async fn take(call: IncomingCall) {
    if let Ok(call) = call.answer().await {
        call.handle.ended().await;
    }
}

/// A peer that sends what it is told and collects all final answers, wherever on its address they go.
struct Tormentor {
    target: SocketAddr,
    socket: Link,
    heard: mpsc::Receiver<Vec<u8>>,
}

enum Link {
    Udp(std::sync::Arc<UdpSocket>),
    Tcp(tokio::net::tcp::OwnedWriteHalf),
}

impl Tormentor {
    /// Listens on every port that `message` mentions, and on 5060.
    async fn new(way: Way, ip: IpAddr, target: SocketAddr, message: &[u8]) -> Result<Tormentor> {
        let (say, heard) = mpsc::channel(64);
        if way.transport != Transport::Udp {
            let socket = if way.six {
                TcpSocket::new_v6()
            } else {
                TcpSocket::new_v4()
            }?;
            socket.bind(SocketAddr::new(ip, 0))?;
            let (mut read, write) = socket.connect(target).await?.into_split();
            tokio::spawn(async move {
                let mut buffer = vec![0; 65_536];
                while let Ok(length @ 1..) = read.read(&mut buffer).await {
                    // Several answers may come in one piece; each begins with its version.
                    let text = String::from_utf8_lossy(&buffer[..length]).into_owned();
                    for piece in text.split("SIP/2.0 ").skip(1) {
                        let _ = say.send(format!("SIP/2.0 {piece}").into_bytes()).await;
                    }
                }
            });
            return Ok(Tormentor {
                target,
                socket: Link::Tcp(write),
                heard,
            });
        }
        let mut ports = mentioned_ports(message);
        ports.insert(5060);
        ports.insert(0);
        let mut first = None;
        for port in ports {
            let socket = std::sync::Arc::new(UdpSocket::bind(SocketAddr::new(ip, port)).await?);
            first.get_or_insert(socket.clone());
            let say = say.clone();
            tokio::spawn(async move {
                let mut buffer = vec![0; 65_536];
                while let Ok((length, _)) = socket.recv_from(&mut buffer).await {
                    let _ = say.send(buffer[..length].to_vec()).await;
                }
            });
        }
        Ok(Tormentor {
            target,
            socket: Link::Udp(first.context("no socket")?),
            heard,
        })
    }

    async fn send(&mut self, message: &[u8]) -> Result<()> {
        match &mut self.socket {
            Link::Udp(socket) => {
                socket.send_to(message, self.target).await?;
            }
            Link::Tcp(write) => write.write_all(message).await?,
        }
        Ok(())
    }

    /// The next final answer.
    async fn answer(&mut self, patience: Duration) -> Option<(u16, String)> {
        let until = Instant::now() + patience;
        while let Ok(Some(bytes)) = tokio::time::timeout_at(until, self.heard.recv()).await {
            let text = String::from_utf8_lossy(&bytes).into_owned();
            let status = text
                .strip_prefix("SIP/2.0 ")
                .and_then(|rest| rest.get(..3)?.parse().ok());
            if let Some(status @ 200..) = status {
                return Some((status, text));
            }
        }
        None
    }

    /// A request within the dialog that `answer` made.
    fn in_dialog(&self, answer: &str, method: &str, cseq: u32) -> Result<String> {
        let field = |name: &str| header(answer, name).with_context(|| format!("no {name} in {answer}"));
        let contact = field("Contact")?;
        let uri = contact.split(['<', '>']).nth(1).unwrap_or(&contact).to_owned();
        let (transport, me) = match &self.socket {
            Link::Udp(socket) => ("UDP", socket.local_addr()?),
            Link::Tcp(write) => ("TCP", write.local_addr()?),
        };
        Ok(format!(
            "{method} {uri} SIP/2.0\r\nVia: SIP/2.0/{transport} {me};branch=z9hG4bKafter{method};rport\r\n\
             From: {}\r\nTo: {}\r\nCall-ID: {}\r\nCSeq: {cseq} {method}\r\nMax-Forwards: 70\r\nContent-Length: 0\r\n\r\n",
            field("From")?,
            field("To")?,
            field("Call-ID")?,
        ))
    }
}

/// Numbers after a colon that may be ports.
fn mentioned_ports(message: &[u8]) -> BTreeSet<u16> {
    String::from_utf8_lossy(message)
        .split(':')
        .skip(1)
        .filter_map(|rest| {
            let digits = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
            rest.get(..digits)?.parse().ok()
        })
        .filter(|port| *port >= 1024)
        .collect()
}

fn header(message: &str, name: &str) -> Option<String> {
    message.lines().find_map(|line| {
        let (field, value) = line.split_once(':')?;
        field.eq_ignore_ascii_case(name).then(|| value.trim().to_owned())
    })
}

fn read(case: &Case) -> Result<Vec<u8>> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("torture")
        .join(case.rfc)
        .join(format!("{}.dat", case.name));
    let message: Vec<u8> = std::fs::read(&path).with_context(|| format!("reading {}", path.display()))?;
    match case.name {
        // The archive lacks the blank line, which is not what it wants to test.
        "baddn" => return Ok([&message, &b"\r\n"[..]].concat()),
        _ if case.rfc == "rfc4475" => return Ok(message),
        _ => {}
    }
    // RFC 5118's archive has bare LF, bodies shorter than their Content-Length and at times no blank line: that is not
    // what it wants to test.
    let text = String::from_utf8(message)?.replace('\n', "\r\n");
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or((text.as_str(), ""));
    let head: Vec<String> = head
        .lines()
        .map(|line| match line.strip_prefix("Content-Length:") {
            Some(_) => format!("Content-Length: {}", body.len()),
            None => line.to_owned(),
        })
        .collect();
    Ok(format!("{}\r\n\r\n{body}", head.join("\r\n")).into_bytes())
}

/// What is due on this way.
fn due(case: &Case, way: Way) -> &'static [u16] {
    match case.name {
        // On a stream the rest may still come; 9999 bytes are too many (RFC 4475 §3.1.2.2).
        "clerr" if way.transport != Transport::Udp => &[513],
        // On a stream what follows is the next request, an INVITE without Contact.
        "dblreq" if way.transport != Transport::Udp => &[405, 400],
        _ => case.due,
    }
}

/// Sends one message to an endpoint of its own; the final answer, if any.
async fn torment(case: &Case, way: Way, n: usize) -> Result<Option<u16>> {
    let message = read(case)?;
    let (sip, answering) = endpoint(way.ip(n, 1)).await?;
    let target = SocketAddr::new(way.ip(n, 1), 5060);
    let mut tormentor = Tormentor::new(way, way.ip(n, 2), target, &message).await?;
    tormentor.send(&message).await?;
    let patience = if due(case, way).is_empty() {
        SILENCE
    } else {
        PATIENCE
    };
    let first = tormentor.answer(patience).await;
    // Noise after a datagram's body must not be taken for a second request (RFC 4475 §3.1.1.8).
    if way.transport == Transport::Udp
        && let Some((_, answer)) = &first
    {
        let again = tormentor.answer(Duration::from_millis(200)).await;
        if let Some((_, again)) = again {
            ensure!(
                header(answer, "CSeq") == header(&again, "CSeq"),
                "two answers: {answer}{again}"
            );
        }
    }
    if let Some((200, answer)) = &first
        && message.starts_with(b"INVITE")
    {
        let cseq: u32 = header(answer, "CSeq")
            .and_then(|cseq| cseq.split(' ').next()?.parse().ok())
            .context("no CSeq")?;
        let ack = tormentor.in_dialog(answer, "ACK", cseq)?;
        tormentor.send(ack.as_bytes()).await?;
        let bye = tormentor.in_dialog(answer, "BYE", cseq + 1)?;
        tormentor.send(bye.as_bytes()).await?;
        loop {
            let (status, text) = tormentor.answer(PATIENCE).await.context("BYE was not answered")?;
            if header(&text, "CSeq").is_some_and(|cseq| cseq.ends_with("BYE")) {
                ensure!(status == 200, "BYE: {text}");
                break;
            }
        }
    }
    serves(way, way.ip(n, 3), target).await?;
    idle(&sip).await?;
    ensure!(!answering.is_finished(), "the endpoint stopped");
    answering.abort();
    Ok(first.map(|(status, _)| status))
}

/// An OPTIONS from `ip` is answered 200.
async fn serves(way: Way, ip: IpAddr, target: SocketAddr) -> Result<()> {
    let mut peer = Tormentor::new(way, ip, target, b"").await?;
    let request = request("OPTIONS", ip, way, target, "");
    peer.send(request.as_bytes()).await?;
    match peer.answer(PATIENCE).await {
        Some((200, _)) => Ok(()),
        other => bail!("an OPTIONS afterwards got {other:?}"),
    }
}

fn request(method: &str, ip: IpAddr, way: Way, target: SocketAddr, body: &str) -> String {
    let me = SocketAddr::new(ip, 5060);
    let transport = if way.transport == Transport::Udp {
        "UDP"
    } else {
        "TCP"
    };
    format!(
        "{method} sip:100@{target} SIP/2.0\r\nVia: SIP/2.0/{transport} {me};branch=z9hG4bKgood{method};rport\r\n\
         From: <sip:good@{me}>;tag=good\r\nTo: <sip:100@{target}>\r\nCall-ID: good{method}{ip}\r\nCSeq: 1 {method}\r\n\
         Contact: <sip:good@{me}>\r\nMax-Forwards: 70\r\nContent-Type: application/sdp\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
}

async fn idle(sip: &Sip) -> Result<()> {
    let over = async {
        while sip.active_dialogs() > 0 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(PATIENCE, over).await.context("a dialog stays")
}

/// All messages at one endpoint, again and again; then a call as if nothing had been.
async fn all_at_one(way: Way, n: usize) -> Result<()> {
    let (sip, answering) = endpoint(way.ip(n, 1)).await?;
    let target = SocketAddr::new(way.ip(n, 1), 5060);
    // From an address of its own each: what one source may say wrongly is limited.
    for (source, case) in (n + 1..).zip(CASES.iter().cycle().take(3 * CASES.len())) {
        let message = read(case)?;
        let mut peer = Tormentor::new(way, way.ip(source, 2), target, b"").await?;
        peer.send(&message).await?;
    }
    tokio::time::sleep(SILENCE).await;
    serves(way, way.ip(n, 3), target).await?;
    let mut peer = Tormentor::new(way, way.ip(n, 4), target, b"").await?;
    peer.send(request("INVITE", way.ip(n, 4), way, target, SDP).as_bytes())
        .await?;
    let (status, answer) = peer.answer(PATIENCE).await.context("no answer to a call")?;
    ensure!(status == 200, "a call afterwards got {answer}");
    for (method, cseq) in [("ACK", 1), ("BYE", 2)] {
        let request = peer.in_dialog(&answer, method, cseq)?;
        peer.send(request.as_bytes()).await?;
    }
    ensure!(!answering.is_finished(), "the endpoint stopped");
    sip.shutdown().await;
    Ok(())
}

fn shown(statuses: &[u16]) -> String {
    match statuses {
        [] => "none".to_owned(),
        some => some.iter().map(u16::to_string).collect::<Vec<_>>().join(" or "),
    }
}

async fn torture() -> Result<()> {
    let mut running = tokio::task::JoinSet::new();
    for (c, case) in CASES.iter().enumerate() {
        for (w, way) in WAYS.into_iter().enumerate() {
            running.spawn(async move {
                let got = torment(case, way, 300 + c * WAYS.len() + w).await;
                (c, w, got.map_err(|error| format!("{error:#}").replace('\n', " ")))
            });
        }
    }
    let mut got: Vec<[String; 4]> = vec![Default::default(); CASES.len()];
    let mut wrong = Vec::new();
    while let Some(done) = running.join_next().await {
        let (c, w, status) = done?;
        let (case, way) = (&CASES[c], WAYS[w]);
        let right = match &status {
            Ok(None) => due(case, way).is_empty(),
            Ok(Some(status)) => due(case, way).contains(status),
            Err(_) => false,
        };
        if !right {
            wrong.push(format!(
                "{} {} over {}: {} is due, got {status:?}",
                case.rfc,
                case.name,
                way.name(),
                shown(due(case, way))
            ));
        }
        got[c][w] = match status {
            Ok(None) => "none".to_owned(),
            Ok(Some(status)) => status.to_string(),
            Err(error) => error,
        };
    }
    let table = tabulate(&got);
    println!("{table}");
    if let Some(dir) = std::env::var_os("ATTENDANT_TABLES") {
        std::fs::write(Path::new(&dir).join("torture.md"), &table)?;
    }
    wrong.sort();
    ensure!(wrong.is_empty(), "{} wrong:\n{}", wrong.len(), wrong.join("\n"));
    for (w, way) in WAYS.into_iter().enumerate() {
        all_at_one(way, 2_000 + 500 * w)
            .await
            .with_context(|| format!("all at one over {}", way.name()))?;
    }
    Ok(())
}

fn tabulate(got: &[[String; 4]]) -> String {
    let mut table = String::from(
        "| § | Message | Deserves | UDP | TCP | UDP/IPv6 | TCP/IPv6 | Because |\n|---|---|---|---|---|---|---|---|\n",
    );
    for (case, got) in CASES.iter().zip(got) {
        let _ = writeln!(
            table,
            "| {} §{} | {} | {} | {} | {} |",
            case.rfc.replace("rfc", "RFC "),
            case.section,
            case.name,
            shown(case.due),
            got.join(" | "),
            case.why
        );
    }
    table
}

#[test]
fn every_torture_message_gets_the_answer_it_deserves() -> Result<()> {
    in_own_network("every_torture_message_gets_the_answer_it_deserves", || {
        // All of 2001:db8::/32 (RFC 3849) is this host.
        std::fs::write("/proc/sys/net/ipv6/ip_nonlocal_bind", "1")?;
        let routed = Command::new("ip")
            .args(["-6", "route", "add", "local", "2001:db8::/32", "dev", "lo"])
            .status()?;
        ensure!(routed.success(), "no IPv6 in the tests' network");
        tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()?
            .block_on(torture())
    })
}
