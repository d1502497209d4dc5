//! The daemon under test, its neighbours, and its record.

use std::cell::OnceCell;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use attendant_store::{SessionRecord, Store};
use attendant_tests::network::{away, peers};

use crate::cell::Cell;
use crate::daemon::{Daemon, program, wait_for};

/// Where the other PBX listens, beside Asterisk on 5060.
pub const KAMAILIO: &str = "192.0.2.2:5070";
/// The same with a new digest.
pub const KAMAILIO_SHA256: &str = "192.0.2.2:5080";
/// The daemon.
pub const DAEMON: &str = "192.0.2.1:5060";
/// The daemon on IPv6.
pub const DAEMON_SIX: &str = "[2001:db8::1]:5060";

/// Peers may call; both PBXs know extension 200, and Asterisk 201 with a new digest. Quiet callers are dismissed soon.
const CONFIG: &str = r#"
[[sip.peer]]
name = "away"
address = "192.0.2.2"
[[sip.account]]
name = "asterisk"
registrar = "192.0.2.2"
username = "200"
password = "correct"
expires_s = 60
[[sip.account]]
name = "asterisk-sha256"
registrar = "192.0.2.2"
username = "201"
password = "correct"
expires_s = 60
[[sip.account]]
name = "kamailio"
registrar = "192.0.2.2:5070"
username = "200"
password = "correct"
expires_s = 60
[[sip.account]]
name = "kamailio-sha256"
registrar = "192.0.2.2:5080"
username = "200"
password = "correct"
expires_s = 60
[turn]
still_there_after_ms = 8000
still_there_times = 1
"#;

/// A part of the configuration that a daemon may be too old for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// A TLS socket.
    Tls,
    /// Transfer targets, on keys: 0 blind, 9 announced first, 8 busy.
    Transfer,
}

/// Targets are Asterisk's extensions: 300 answers, 301 is busy.
const TRANSFER: &str = r#"
[[transfer.target]]
name = "office"
uri = "sip:300@192.0.2.2"
[[transfer.target]]
name = "workshop"
uri = "sip:300@192.0.2.2"
briefing = "spoken"
[[transfer.target]]
name = "nobody"
uri = "sip:301@192.0.2.2"
[[keys]]
digit = "0"
action = "transfer"
target = "office"
[[keys]]
digit = "9"
action = "transfer"
target = "workshop"
[[keys]]
digit = "8"
action = "transfer"
target = "nobody"
"#;

pub struct Site {
    pub daemon: Daemon,
    /// What this daemon's configuration knows.
    parts: Vec<Part>,
    /// Started when it is first asked for.
    six: OnceCell<Daemon>,
    _kamailio: [Script; 2],
    _asterisk: Script,
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
        let (config, parts) = known_config(dir.path())?;
        let asterisk = Script::start(away("asterisk/asterisk.sh").arg(dir.path()))?;
        let mut kamailio = away("kamailio/kamailio.sh");
        kamailio.args(["192.0.2.2", "5070", "200", "correct"]);
        let mut sha256 = away("kamailio/kamailio.sh");
        sha256.args(["192.0.2.2", "5080", "200", "correct", "sha256"]);
        let kamailio = [Script::start(&mut kamailio)?, Script::start(&mut sha256)?];
        let site = Site {
            daemon: Daemon::start(&config)?,
            parts,
            six: OnceCell::new(),
            _kamailio: kamailio,
            _asterisk: asterisk,
            dir,
        };
        wait_for("Asterisk", Duration::from_secs(60), || {
            Ok(site
                .cli("core waitfullybooted")
                .is_ok_and(|said| said.contains("fully booted")))
        })?;
        // Refusals are read from its log.
        site.cli("pjsip set logger on")?;
        Ok(site)
    }

    /// Whether the daemon's configuration has this part.
    pub fn knows(&self, part: Part) -> Cell {
        if self.parts.contains(&part) {
            Cell::Yes
        } else {
            Cell::NotYet("the configuration has no such key".to_owned())
        }
    }

    /// A second daemon that listens on IPv6.
    pub fn six(&self) -> Result<&Daemon> {
        if let Some(six) = self.six.get() {
            return Ok(six);
        }
        let started = Daemon::start_on(
            "[2001:db8::1]:5060",
            "[[sip.peer]]\nname = \"away\"\naddress = \"2001:db8::2\"",
        )?;
        Ok(self.six.get_or_init(|| started))
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

/// The configuration with every part that `attendant config check` accepts.
fn known_config(dir: &Path) -> Result<(String, Vec<Part>)> {
    let (key, certificate) = (dir.join("tls.key"), dir.join("tls.pem"));
    let made = Command::new("openssl")
        .args(["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"])
        .args([
            "-subj",
            "/CN=attendant.test",
            "-addext",
            "subjectAltName=IP:192.0.2.1",
        ])
        .args(["-addext", "basicConstraints=critical,CA:FALSE", "-keyout"])
        .arg(&key)
        .arg("-out")
        .arg(&certificate)
        .stderr(Stdio::null())
        .status()?;
    ensure!(made.success(), "openssl made no certificate");
    let tls = format!("tls = \"192.0.2.1:5061\"\ntls_cert = {certificate:?}\ntls_key = {key:?}\n");
    let (mut config, mut parts) = (CONFIG.to_owned(), Vec::new());
    // The TLS keys belong into [sip], before its tables; tables may follow anywhere.
    for (part, before, after) in [(Part::Tls, tls.as_str(), ""), (Part::Transfer, "", TRANSFER)] {
        let candidate = format!("{before}{config}{after}");
        if is_known(dir, &candidate)? {
            config = candidate;
            parts.push(part);
        }
    }
    Ok((config, parts))
}

/// Whether the daemon takes this configuration. What it does not know is an unknown field; anything else is our mistake.
fn is_known(dir: &Path, more: &str) -> Result<bool> {
    let file = dir.join("check.toml");
    std::fs::write(&file, format!("[sip]\nudp = \"192.0.2.1:5060\"\n{more}"))?;
    let output = Command::new(program("attendant")?)
        .args(["config", "check", "--config"])
        .arg(&file)
        .output()?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    ensure!(
        output.status.success() || said.contains("unknown field"),
        "{said}"
    );
    Ok(output.status.success())
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
            .map(|event| event.kind.as_str().to_owned())
            .collect();
        Cell::Fails(format!(
            "{kind} is {count} times in the record, not {times}: {all:?}"
        ))
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
