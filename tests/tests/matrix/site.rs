//! The daemon under test, its neighbours, and its record.

use std::cell::OnceCell;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use attendant_store::{SessionRecord, Store};
use attendant_tests::network::{away, peers};

use crate::cell::Cell;
use crate::daemon::{Daemon, wait_for};

/// Where the other PBX listens, beside Asterisk on 5060.
pub const KAMAILIO: &str = "192.0.2.2:5070";
/// The same with a new digest.
pub const KAMAILIO_SHA256: &str = "192.0.2.2:5080";
/// The same, known by name only.
pub const KAMAILIO_NAMED: &str = "192.0.2.2:5090";
/// The daemon.
pub const DAEMON: &str = "192.0.2.1:5060";
/// The daemon on IPv6.
pub const DAEMON_SIX: &str = "[2001:db8::1]:5060";
/// A daemon without models: calls go to Asterisk's extension 300.
pub const REDIRECTING: &str = "192.0.2.1:5090";

/// Who registers where. Names have SRV records whose first server is dead; see `tests/peer/dns.sh`.
const ACCOUNTS: [(&str, &str, &str); 6] = [
    ("asterisk", "192.0.2.2", "200"),
    ("asterisk-sha256", "192.0.2.2", "201"),
    ("asterisk-named", "pbx.example", "202"),
    ("kamailio", KAMAILIO, "200"),
    ("kamailio-sha256", KAMAILIO_SHA256, "200"),
    ("kamailio-named", "proxy.example", "203"),
];

/// Whom callers are put through to, each by its key: Asterisk's extensions 300 answers, 301 is busy, 302 never answers,
/// 303 is a menu that takes four keys.
const TARGETS: [(char, &str, &str); 5] = [
    ('0', "300", "briefing = \"none\""),
    ('9', "300", "briefing = \"spoken\""),
    ('8', "301", "briefing = \"header\""),
    ('7', "302", "briefing = \"header\""),
    ('6', "303", "briefing = \"header\"\nkeys = \"1234\""),
];

/// Peers may call; quiet callers are dismissed soon.
fn config(dir: &Path) -> Result<String> {
    let (key, certificate) = certificate(dir)?;
    // First the keys of [sip] itself, then its tables.
    let mut config =
        format!("tls = \"192.0.2.1:5061\"\ntls_cert = {certificate:?}\ntls_key = {key:?}\n{PEER}");
    for (name, registrar, username) in ACCOUNTS {
        let _ = write!(
            config,
            "[[sip.account]]\nname = {name:?}\nregistrar = {registrar:?}\nusername = {username:?}\n\
             password = \"correct\"\nexpires_s = 60\n"
        );
    }
    config.push_str("[turn]\nstill_there_after_ms = 8000\nstill_there_times = 1\n[transfer]\nring_s = 8\n");
    for (key, extension, more) in TARGETS {
        let _ = write!(
            config,
            "[[transfer.target]]\nname = \"target {key}\"\nuri = \"sip:{extension}@192.0.2.2\"\n{more}\n\
             [[keys]]\ndigit = \"{key}\"\naction = \"transfer\"\ntarget = \"target {key}\"\n"
        );
    }
    Ok(config)
}

/// The other host may call.
const PEER: &str = "[[sip.peer]]\nname = \"away\"\naddress = \"192.0.2.2\"\n";

pub struct Site {
    pub daemon: Daemon,
    /// Started when it is first asked for.
    six: OnceCell<Daemon>,
    /// Started when it is first asked for.
    redirecting: OnceCell<Daemon>,
    _scripts: Vec<Script>,
    /// Asterisk's files: `heard/`, `log/`.
    pub dir: tempfile::TempDir,
}

/// A peer's script, ended with the value.
pub struct Script(Child);

impl Script {
    pub fn start(command: &mut Command) -> Result<Script> {
        let child = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .with_context(|| format!("starting {command:?}"))?;
        Ok(Script(child))
    }
}

impl Drop for Script {
    fn drop(&mut self) {
        let _ = Command::new("kill").arg(self.0.id().to_string()).status();
        let _ = self.0.wait();
    }
}

impl Site {
    pub fn start() -> Result<Site> {
        let dir = tempfile::tempdir()?;
        let mut scripts = vec![
            names(dir.path())?,
            Script::start(away("asterisk/asterisk.sh").arg(dir.path()))?,
        ];
        for (address, user, digest) in [
            (KAMAILIO, "200", None),
            (KAMAILIO_SHA256, "200", Some("sha256")),
            (KAMAILIO_NAMED, "203", None),
        ] {
            let (ip, port) = address.split_once(':').context("no port")?;
            let mut kamailio = away("kamailio/kamailio.sh");
            kamailio.args([ip, port, user, "correct"]).args(digest);
            scripts.push(Script::start(&mut kamailio)?);
        }
        let site = Site {
            daemon: Daemon::start(&config(dir.path())?)?,
            six: OnceCell::new(),
            redirecting: OnceCell::new(),
            _scripts: scripts,
            dir,
        };
        wait_for("Asterisk", Duration::from_secs(60), || {
            Ok(site
                .cli("core waitfullybooted")
                .is_ok_and(|said| said.contains("fully booted")))
        })?;
        // What was said is read from its log.
        site.cli("pjsip set logger on")?;
        Ok(site)
    }

    /// A second daemon that listens on IPv6.
    pub fn six(&self) -> Result<&Daemon> {
        started(&self.six, || {
            Daemon::start_on(
                DAEMON_SIX,
                "[[sip.peer]]\nname = \"away\"\naddress = \"2001:db8::2\"",
            )
        })
    }

    /// Another one that has no models; where to call it.
    pub fn redirecting(&self) -> Result<&'static str> {
        let fallback = "[fallback]\naction = \"redirect\"\nuri = \"sip:300@192.0.2.2\"\n";
        started(&self.redirecting, || {
            Daemon::start_out_of_service(REDIRECTING, &format!("{PEER}{fallback}"))
        })?;
        Ok(REDIRECTING)
    }

    /// Where Asterisk keeps what was heard at an extension, with what was kept before taken away.
    pub fn heard(&self, name: &str) -> PathBuf {
        let file = self.dir.path().join("heard").join(name);
        // It need not be there.
        let _ = fs::remove_file(&file);
        file
    }

    /// A command to Asterisk and what it says.
    pub fn cli(&self, command: &str) -> Result<String> {
        let output = Command::new(peers().join("asterisk/asterisk.sh"))
            .arg("--cli")
            .arg(self.dir.path())
            .arg(command)
            .output()?;
        ensure!(
            output.status.success(),
            "{command}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    pub fn wait_idle(&self) -> Result<()> {
        self.daemon.wait_idle(Duration::from_secs(60))
    }

    /// Sessions in the record.
    pub fn sessions(&self) -> Result<usize> {
        Ok(Store::open_read_only(self.daemon.data_dir())?
            .list_sessions(100_000, None)?
            .len())
    }

    /// The last session, once it is over.
    pub fn last(&self) -> Result<SessionRecord> {
        self.wait_idle()?;
        let store = Store::open_read_only(self.daemon.data_dir())?;
        let last = store
            .list_sessions(1, None)?
            .pop()
            .context("the call left no record")?;
        Ok(store.session(last.session.id)?)
    }

    /// Does something that makes one call; then `judge` looks at that call's record.
    pub fn call(
        &self,
        make: impl FnOnce() -> Result<Cell>,
        judge: impl FnOnce(&SessionRecord) -> Cell,
    ) -> Result<Cell> {
        let before = self.sessions()?;
        let made = make()?;
        if made != Cell::Yes {
            return Ok(made);
        }
        let last = self.last()?;
        let after = self.sessions()?;
        ensure!(
            after == before + 1,
            "{} calls are in the record, not one",
            after - before
        );
        Ok(judge(&last))
    }
}

fn started(cell: &OnceCell<Daemon>, start: impl FnOnce() -> Result<Daemon>) -> Result<&Daemon> {
    if let Some(daemon) = cell.get() {
        return Ok(daemon);
    }
    let daemon = start()?;
    Ok(cell.get_or_init(|| daemon))
}

/// The DNS of this network, and everybody's way to it.
fn names(dir: &Path) -> Result<Script> {
    let file = dir.join("resolv.conf");
    fs::write(&file, "nameserver 127.0.0.1\noptions timeout:1 attempts:2\n")?;
    // On some systems a link into /run, which is an empty one here.
    let place = Path::new("/etc").join(fs::read_link("/etc/resolv.conf").unwrap_or("resolv.conf".into()));
    if !place.exists() {
        fs::create_dir_all(place.parent().context("no directory")?)?;
        fs::write(&place, "")?;
    }
    // In this test's own view of the file system only: net.sh made one.
    let mounted = Command::new("mount")
        .arg("--bind")
        .args([&file, &place])
        .status()?;
    ensure!(mounted.success(), "cannot mount a resolv.conf of our own");
    Script::start(Command::new(peers().join("dns.sh")).args(["pbx.example=5060", "proxy.example=5090"]))
}

/// A key and its self-signed certificate for the daemon.
fn certificate(dir: &Path) -> Result<(PathBuf, PathBuf)> {
    let (key, certificate) = (dir.join("tls.key"), dir.join("tls.pem"));
    let made = Command::new("openssl")
        .args(["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"])
        .args(["-subj", "/CN=attendant.test"])
        .args(["-addext", "subjectAltName=IP:192.0.2.1"])
        .args(["-addext", "basicConstraints=critical,CA:FALSE"])
        .arg("-keyout")
        .arg(&key)
        .arg("-out")
        .arg(&certificate)
        .stderr(Stdio::null())
        .status()?;
    ensure!(made.success(), "openssl made no certificate");
    Ok((key, certificate))
}

/// Whether the record has such an event at least so often.
pub fn has(record: &SessionRecord, kind: &str, times: usize) -> Cell {
    let count = record
        .events
        .iter()
        .filter(|event| event.kind.as_str() == kind)
        .count();
    if count >= times {
        Cell::Yes
    } else {
        let all: Vec<_> = record
            .events
            .iter()
            .map(|event| (event.kind.as_str(), event.detail.as_deref().unwrap_or_default()))
            .collect();
        Cell::Fails(format!(
            "{kind} is {count} times in the record, not {times}: {all:?}"
        ))
    }
}

/// Whether the call's audio was in `codec`, as at the head of what the record says of its line.
pub fn spoken_in(record: &SessionRecord, codec: &str) -> Cell {
    line(record, |said| said.starts_with(codec))
}

/// Whether its audio was encrypted.
pub fn encrypted(record: &SessionRecord) -> Cell {
    line(record, |said| said.contains(", encrypted;"))
}

fn line(record: &SessionRecord, so: impl FnOnce(&str) -> bool) -> Cell {
    let quality = record.events.iter().find(|event| event.kind == "line_quality");
    let said = quality
        .and_then(|event| event.detail.as_deref())
        .unwrap_or_default();
    match so(said) {
        true => Cell::Yes,
        false => Cell::Fails(format!("the line was {said:?}")),
    }
}

/// Whether the call went on after a transfer failed: long enough to be told so.
pub fn stayed(record: &SessionRecord) -> Cell {
    let failed = record.events.iter().find(|event| event.kind == "transfer_failed");
    let went_on_ms = failed
        .zip(record.session.ended_at_ms)
        .map(|(failed, end)| end - failed.at_ms);
    match went_on_ms {
        Some(3_000..) => Cell::Yes,
        other => Cell::Fails(format!(
            "the call went on for {other:?} ms after the transfer had failed"
        )),
    }
}

/// Whether these keys were understood.
pub fn keyed(record: &SessionRecord, keys: &str) -> Cell {
    let said: Vec<&str> = record
        .turns
        .iter()
        .map(|turn| turn.caller_text.as_str())
        .collect();
    if said
        .iter()
        .any(|text| text.chars().filter(char::is_ascii_digit).collect::<String>() == keys)
    {
        Cell::Yes
    } else {
        let events: Vec<_> = record
            .events
            .iter()
            .map(|event| (event.kind.as_str(), event.detail.clone()))
            .collect();
        Cell::Fails(format!("{keys} was typed, {said:?} is in the record; {events:?}"))
    }
}

/// Whether "Which folder should I save the message to?" was understood and answered.
pub fn understood(record: &SessionRecord) -> Cell {
    let heard = record.turns.iter().find(|turn| {
        let text = turn.caller_text.to_lowercase();
        text.contains("folder") || text.contains("message")
    });
    match heard {
        Some(turn) if !turn.reply_text.is_empty() => Cell::Yes,
        _ => Cell::Fails(format!("misheard: {:?}", record.turns)),
    }
}
