//! What callers get when the box cannot serve: each cause with the real daemon, each action.
//!
//! | Cause | Made by |
//! |---|---|
//! | lines taken | a call in progress, `calls = 1` |
//! | an engine does not start | killing it as often as it comes |
//! | disk full | more free space wanted than any disk has |
//! | no models | an empty models directory (`daemon/tests/fallback.rs` has the refusals) |

use std::{
    fs,
    io::{BufRead, BufReader},
    net::UdpSocket,
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use attendant::child::local_config;
use attendant_media::wav;
use attendant_store::{SessionRecord, Store};
use attendant_tests::phone::{Behind, Phone};
use attendant_tests::{House, program};

/// Callers who say nothing are not asked within these tests.
const PATIENT: &str = "[turn]\nstill_there_after_ms = 120000\n";
const REDIRECT: &str = "[fallback]\naction = \"redirect\"\nuri = \"sip:queue@192.0.2.9\"\n";

fn seconds(n: u64) -> Duration {
    Duration::from_secs(n)
}

/// The final answer to a call, acknowledged, and the call ended; empty when none comes within 2 s.
fn answer(daemon: &str, number: u32) -> String {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.set_read_timeout(Some(seconds(2))).unwrap();
    let me = socket.local_addr().unwrap();
    let sdp = format!(
        "v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=-\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\nm=audio {} RTP/AVP 0\r\n",
        me.port()
    );
    let request = |method: &str, cseq: u32, to: &str, body: &str| {
        format!(
            "{method} sip:1@{daemon} SIP/2.0\r\nVia: SIP/2.0/UDP {me};branch=z9hG4bKfall{number}c{cseq};rport\r\n\
             From: <sip:a@{me}>;tag=1\r\nTo: {to}\r\nCall-ID: fall{number}@{me}\r\nCSeq: {cseq} {method}\r\n\
             Contact: <sip:a@{me}>\r\nMax-Forwards: 70\r\nContent-Type: application/sdp\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        )
    };
    let to = format!("<sip:1@{daemon}>");
    socket
        .send_to(request("INVITE", 1, &to, &sdp).as_bytes(), daemon)
        .unwrap();
    let mut buffer = [0; 4096];
    while let Ok(length) = socket.recv(&mut buffer) {
        let text = String::from_utf8_lossy(&buffer[..length]).into_owned();
        if !text.starts_with("SIP/2.0 1") {
            let to = text
                .lines()
                .find_map(|line| line.strip_prefix("To: "))
                .unwrap_or(&to);
            socket
                .send_to(request("ACK", 1, to, "").as_bytes(), daemon)
                .unwrap();
            if text.starts_with("SIP/2.0 200") {
                socket
                    .send_to(request("BYE", 2, to, "").as_bytes(), daemon)
                    .unwrap();
            }
            return text;
        }
    }
    String::new()
}

fn is_redirect(answer: &str) -> bool {
    answer.starts_with("SIP/2.0 302") && answer.contains("Contact: <sip:queue@192.0.2.9>")
}

#[test]
fn one_caller_too_many_is_redirected_and_the_first_goes_on() {
    let house = House::start(&format!("{PATIENT}[limits]\ncalls = 1\n{REDIRECT}")).unwrap();
    let mut phone = Phone::call(house.address(), &Behind::Nothing).unwrap();
    phone.listen(seconds(1)).unwrap();
    let refused = answer(house.address(), 1);
    assert!(is_redirect(&refused), "{refused}");
    let heard = phone.listen(seconds(2)).unwrap();
    assert!(!heard.hung_up && heard.packets > 50, "{heard:?}");
    phone.request("BYE", "", "").unwrap();
}

#[test]
fn an_engine_that_does_not_start_redirects_callers() {
    let house = House::start(REDIRECT).unwrap();
    let until = Instant::now() + seconds(60);
    let mut last = String::new();
    for number in 1.. {
        // One that has just been killed is not there yet; the next round finds it.
        let _ = house.kill("attendant-llm");
        std::thread::sleep(Duration::from_millis(100));
        last = answer(house.address(), number);
        if is_redirect(&last) || Instant::now() > until {
            break;
        }
    }
    assert!(is_redirect(&last), "{last}");
}

#[test]
fn a_full_disk_redirects_callers_and_takes_no_message() {
    let full = "min_free_mb = 1000000000\n";
    let house = House::start(&format!("{REDIRECT}{full}")).unwrap();
    let refused = answer(house.address(), 1);
    assert!(is_redirect(&refused), "{refused}");
    let house = House::start(&format!(
        "[fallback]\naction = \"voicemail\"\nretry_after_s = 9\n{full}"
    ))
    .unwrap();
    let refused = answer(house.address(), 1);
    assert!(
        refused.starts_with("SIP/2.0 503") && refused.contains("Retry-After: 9"),
        "{refused}"
    );
}

#[test]
fn one_caller_too_many_leaves_a_message() {
    let house = House::start(&format!(
        "{PATIENT}[limits]\ncalls = 1\n[fallback]\naction = \"voicemail\"\ngreeting = \"Please leave a message after the beep.\"\n"
    ))
    .unwrap();
    let mut first = Phone::call(house.address(), &Behind::Nothing).unwrap();
    first.listen(seconds(3)).unwrap();
    let second = leaves_a_message(house.address());
    assert!(
        second.announced > 50,
        "the announcement and the beep: {} packets",
        second.announced
    );
    let record = record_of(house.data_dir(), "fallback", |record| {
        record.session.state.is_terminal()
    });
    assert_message(house.data_dir(), &record);
    let heard = first.listen(seconds(1)).unwrap();
    assert!(!heard.hung_up, "the first call goes on: {heard:?}");
    first.request("BYE", "", "").unwrap();
}

#[test]
fn a_box_without_models_takes_messages() {
    let house = Bare::start("[fallback]\naction = \"voicemail\"\n");
    let left = leaves_a_message(&house.address);
    assert!(left.announced >= 5, "there is a beep: {} packets", left.announced);
    let record = record_of(house.dir.path(), "bare", |record| {
        record.session.state.is_terminal()
    });
    assert_message(house.dir.path(), &record);
    // Who says nothing leaves none.
    let mut phone = Phone::call(&house.address, &Behind::Nothing).unwrap();
    let heard = phone.listen(seconds(13)).unwrap();
    assert!(heard.hung_up, "10 s of silence after the beep: {heard:?}");
    let record = record_of(house.dir.path(), "silent", |record| {
        record.session.reason.as_deref() == Some("no message was left")
    });
    assert!(
        record.events.iter().all(|event| event.kind != "message"),
        "{record:?}"
    );
}

#[test]
fn a_box_without_models_hands_callers_over() {
    let house = Bare::start("[fallback]\naction = \"refer\"\nuri = \"sip:queue@192.0.2.9\"\n");
    let mut phone = Phone::call(&house.address, &Behind::Nothing).unwrap();
    let target = phone.transferred(seconds(5)).unwrap();
    assert!(target.contains("sip:queue@192.0.2.9"), "{target}");
    let heard = phone.listen(seconds(3)).unwrap();
    assert!(heard.hung_up, "the PBX has the caller: {heard:?}");
}

/// A daemon without models.
struct Bare {
    process: Child,
    address: String,
    dir: tempfile::TempDir,
}

impl Bare {
    fn start(fallback: &str) -> Bare {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("attendant.toml");
        fs::write(
            &file,
            local_config("small", dir.path(), "127.0.0.1", 0) + fallback,
        )
        .unwrap();
        let mut process = Command::new(program("attendant"))
            .args(["serve", "--config"])
            .arg(&file)
            .env("ATTENDANT_MODELS_DIR", dir.path().join("models"))
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut line = String::new();
        let mut output = BufReader::new(process.stdout.take().unwrap());
        output.read_line(&mut line).unwrap();
        let address = line
            .trim()
            .strip_prefix("out-of-service sip:attendant@")
            .unwrap()
            .to_owned();
        Bare {
            process,
            address,
            dir,
        }
    }
}

impl Drop for Bare {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

struct Left {
    /// Packets with sound before the message.
    announced: u32,
}

/// Hears the announcement to its end, speaks, and hangs up.
fn leaves_a_message(daemon: &str) -> Left {
    let mut phone = Phone::call(daemon, &Behind::Nothing).unwrap();
    let mut announced = 0;
    loop {
        let heard = phone.listen(Duration::from_millis(1_500)).unwrap();
        announced += heard.voiced;
        if heard.voiced == 0 {
            break;
        }
    }
    let words = wav::read(Path::new("/usr/share/asterisk/sounds/en/vm-intro.wav"))
        .unwrap_or_else(|e| panic!("{e}\nthis test needs: apt-get install asterisk-core-sounds-en-wav"));
    assert_eq!(words.rate, 8_000);
    phone.play(&words.samples).unwrap();
    phone.request("BYE", "", "").unwrap();
    Left { announced }
}

/// The latest session for which this holds.
fn record_of(dir: &Path, what: &str, holds: impl Fn(&SessionRecord) -> bool) -> SessionRecord {
    let until = Instant::now() + seconds(15);
    loop {
        let store = Store::open_read_only(dir).unwrap();
        let all = store.list_sessions(10, None).unwrap();
        let found = all
            .iter()
            .map(|s| store.session(s.session.id).unwrap())
            .find(|r| holds(r));
        if let Some(record) = found {
            return record;
        }
        assert!(Instant::now() < until, "{what}: {} sessions", all.len());
        std::thread::sleep(Duration::from_millis(100));
    }
}

fn assert_message(dir: &Path, record: &SessionRecord) {
    assert_eq!(record.session.state.as_str(), "completed", "{record:?}");
    assert_eq!(
        record.session.reason.as_deref(),
        Some("a message was left"),
        "{record:?}"
    );
    assert!(
        record.events.iter().any(|event| event.kind == "message"),
        "{record:?}"
    );
    let store = Store::open_read_only(dir).unwrap();
    let recordings = store.recordings(record.session.id).unwrap();
    assert_eq!(recordings.len(), 1, "{recordings:?}");
    assert_eq!(recordings[0].state, "sealed");
    // The prompt alone is longer than 3 s.
    assert!(
        recordings[0].samples.is_some_and(|samples| samples > 3 * 16_000),
        "{recordings:?}"
    );
    assert!(store.verify(None).unwrap().is_sound(), "the audit chain");
}
