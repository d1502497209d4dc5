//! Harness of the whole-system tests: the real daemon with the small models on the loopback, and real callers.
//!
//! Programs come from `ATTENDANT_BIN_DIR`, else from the build directory of the tests themselves. Missing programs or
//! models fail a test with the command that gets them; nothing is skipped.

pub mod http;
pub mod network;
pub mod phone;

use std::{
    fs,
    io::{ErrorKind, Read, Write},
    net::{TcpStream, UdpSocket},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, bail, ensure};
use attendant::child::{Daemon, local_config};
use attendant_store::{SessionRecord, Store};
use serde_json::Value;

/// The program under test.
///
/// # Panics
/// When it is not built.
#[must_use]
pub fn program(name: &str) -> PathBuf {
    let dir = std::env::var_os("ATTENDANT_BIN_DIR").map_or_else(beside_the_tests, PathBuf::from);
    let path = dir.join(name);
    assert!(path.exists(), "{} is missing: run `make build`", path.display());
    path
}

/// `target/<profile>/deps/test` → `target/<profile>`.
fn beside_the_tests() -> PathBuf {
    let exe = std::env::current_exe().unwrap_or_default();
    exe.ancestors().nth(2).map(Path::to_owned).unwrap_or_default()
}

/// A daemon with its own data directory, gone with the value.
pub struct House {
    /// The daemon.
    pub daemon: Daemon,
    dir: tempfile::TempDir,
}

/// What the local pages answer.
#[derive(Debug)]
pub struct Page {
    /// Status code.
    pub status: u16,
    /// Status line and headers, in lower case.
    pub head: String,
    /// The rest.
    pub body: String,
}

impl Page {
    /// The body as JSON.
    ///
    /// # Errors
    /// When it is none.
    pub fn json(&self) -> anyhow::Result<Value> {
        serde_json::from_str(&self.body).with_context(|| self.body.clone())
    }

    /// A figure of `/metrics`; 0 when it is not there.
    #[must_use]
    pub fn figure(&self, series: &str) -> f64 {
        let line = self
            .body
            .lines()
            .find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
        line.and_then(|value| value.parse().ok()).unwrap_or(0.0)
    }
}

impl House {
    /// A daemon on the loopback with the small models; `more` is appended to its configuration.
    ///
    /// # Errors
    /// When it does not get ready.
    pub fn start(more: &str) -> anyhow::Result<Self> {
        Self::start_with(|config| config + more)
    }

    /// The same with a configuration of one's own.
    ///
    /// # Errors
    /// When it does not get ready.
    pub fn start_with(edit: impl FnOnce(String) -> String) -> anyhow::Result<Self> {
        let dir = tempfile::tempdir()?;
        let config = dir.path().join("attendant.toml");
        fs::write(&config, edit(local_config("small", dir.path(), "127.0.0.1", 0)))?;
        let daemon = Daemon::start_program(&program("attendant"), &config)?;
        Ok(Self { daemon, dir })
    }

    /// Where it keeps its record.
    #[must_use]
    pub fn data_dir(&self) -> &Path {
        self.dir.path()
    }

    /// Kills the daemon as `kill -9` does; its workers end with it.
    #[allow(unsafe_code)]
    pub fn kill_daemon(&self) {
        let pid = self.daemon.pid().cast_signed();
        // SAFETY: a plain signal to the child that this value owns and has not waited for.
        unsafe { libc::kill(pid, libc::SIGKILL) };
    }

    /// Host and port to dial.
    ///
    /// # Panics
    /// When the daemon said none.
    #[must_use]
    pub fn address(&self) -> &str {
        self.daemon
            .uri
            .split_once('@')
            .map(|(_, address)| address)
            .expect("the daemon tells where to dial")
    }

    /// `attendant call` with these arguments; its JSON report.
    ///
    /// # Errors
    /// When the call fails.
    pub fn call(&self, args: &[&str]) -> anyhow::Result<Value> {
        self.call_while(args, || Ok(()))
    }

    /// The same, doing something in the meantime.
    ///
    /// # Errors
    /// When the call or the something fails.
    pub fn call_while(
        &self,
        args: &[&str],
        meanwhile: impl FnOnce() -> anyhow::Result<()>,
    ) -> anyhow::Result<Value> {
        let call = Command::new(program("attendant"))
            .arg("call")
            .arg(&self.daemon.uri)
            .arg("--json")
            .args(args)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()?;
        meanwhile()?;
        let output = call.wait_with_output()?;
        serde_json::from_slice(&output.stdout).with_context(|| {
            format!(
                "the call ended with {}: {}",
                output.status,
                String::from_utf8_lossy(&output.stderr)
            )
        })
    }

    /// What the local pages answer on a path.
    ///
    /// # Errors
    /// When they do not.
    pub fn get(&self, path: &str) -> anyhow::Result<Page> {
        let address = self.daemon.admin.trim_start_matches("http://");
        let mut stream = TcpStream::connect(address)?;
        stream.set_read_timeout(Some(Duration::from_secs(10)))?;
        // Version 1.0: no chunks, and the connection ends with the answer.
        write!(stream, "GET {path} HTTP/1.0\r\nHost: {address}\r\n\r\n")?;
        let mut text = String::new();
        stream.read_to_string(&mut text)?;
        let (head, body) = text.split_once("\r\n\r\n").context("no answer")?;
        let status = head.split_whitespace().nth(1).context("no status")?.parse()?;
        Ok(Page {
            status,
            head: head.to_ascii_lowercase(),
            body: body.to_owned(),
        })
    }

    /// The last session in the record, once it has ended.
    ///
    /// # Errors
    /// When there is none, or it does not end.
    pub fn last_session(&self) -> anyhow::Result<SessionRecord> {
        let until = Instant::now() + Duration::from_secs(15);
        loop {
            let store = Store::open_read_only(self.dir.path())?;
            let last = store
                .list_sessions(1, None)?
                .into_iter()
                .next()
                .context("no session in the record")?;
            if last.session.state.is_terminal() {
                return Ok(store.session(last.session.id)?);
            }
            ensure!(
                Instant::now() < until,
                "the last session is still {}",
                last.session.state.as_str()
            );
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// All sessions, once there are so many and all have ended.
    ///
    /// # Errors
    /// When they do not end.
    pub fn ended_sessions(&self, count: usize) -> anyhow::Result<Vec<SessionRecord>> {
        let until = Instant::now() + Duration::from_secs(15);
        loop {
            let store = Store::open_read_only(self.dir.path())?;
            let all = store.list_sessions(1_000, None)?;
            let ended = all.iter().filter(|s| s.session.state.is_terminal()).count();
            if all.len() == count && ended == count {
                return Ok(all
                    .iter()
                    .map(|s| store.session(s.session.id))
                    .collect::<Result<_, _>>()?);
            }
            ensure!(
                Instant::now() < until,
                "{ended} of {} sessions have ended; {count} are expected",
                all.len()
            );
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// Waits until the last session has so many turns or the condition holds.
    ///
    /// # Errors
    /// After half a minute.
    pub fn wait_for(&self, what: &str, holds: impl Fn(&SessionRecord) -> bool) -> anyhow::Result<()> {
        let until = Instant::now() + Duration::from_secs(30);
        while Instant::now() < until {
            let store = Store::open_read_only(self.dir.path())?;
            if let Some(last) = store.list_sessions(1, None)?.into_iter().next()
                && holds(&store.session(last.session.id)?)
            {
                return Ok(());
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        bail!("waited half a minute for {what}")
    }

    /// Process ids of an engine worker of this daemon, by its program's name.
    ///
    /// # Errors
    /// When `/proc` cannot be read.
    pub fn workers(&self, name: &str) -> anyhow::Result<Vec<i32>> {
        let mut found = Vec::new();
        for entry in fs::read_dir("/proc")?.flatten() {
            let Ok(pid) = entry.file_name().to_string_lossy().parse::<i32>() else {
                continue;
            };
            let stat = fs::read_to_string(entry.path().join("stat")).unwrap_or_default();
            let Some((_, rest)) = stat.rsplit_once(')') else {
                continue;
            };
            let parent = rest.split_whitespace().nth(1).and_then(|p| p.parse::<u32>().ok());
            let command = fs::read_to_string(entry.path().join("cmdline")).unwrap_or_default();
            if parent == Some(self.daemon.pid())
                && command.split('\0').next().is_some_and(|c| c.ends_with(name))
            {
                found.push(pid);
            }
        }
        Ok(found)
    }

    /// Processor time an engine worker has used so far [clock ticks, 10 ms].
    ///
    /// # Errors
    /// When there is none.
    pub fn cpu_ticks(&self, name: &str) -> anyhow::Result<u64> {
        let pid = *self
            .workers(name)?
            .first()
            .with_context(|| format!("no {name}"))?;
        let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
        let (_, rest) = stat.rsplit_once(')').context("no stat")?;
        // User and system time are fields 14 and 15 of proc_pid_stat(5); `rest` begins with field 3.
        let fields = rest.split_whitespace().skip(11).take(2);
        Ok(fields.filter_map(|ticks| ticks.parse::<u64>().ok()).sum())
    }

    /// Kills an engine worker as `kill -9` does.
    ///
    /// # Errors
    /// When there is none.
    #[allow(unsafe_code)]
    pub fn kill(&self, name: &str) -> anyhow::Result<()> {
        let workers = self.workers(name)?;
        ensure!(!workers.is_empty(), "no {name} to kill");
        for pid in workers {
            // SAFETY: a plain signal to a process this test has just found as its daemon's child.
            unsafe { libc::kill(pid, libc::SIGKILL) };
        }
        Ok(())
    }

    /// Sends one request to the SIP port; the final answer's first line and how long it took.
    ///
    /// # Errors
    /// When none comes within a second.
    pub fn final_answer(&self, from: &str, datagram: &[u8]) -> anyhow::Result<(String, Duration)> {
        let sent = Instant::now();
        let socket = self.send_sip(from, datagram)?;
        loop {
            let first = first_line(&socket)?.context("no final answer")?;
            if !first.starts_with("SIP/2.0 1") {
                return Ok((first, sent.elapsed()));
            }
        }
    }

    fn send_sip(&self, from: &str, datagram: &[u8]) -> anyhow::Result<UdpSocket> {
        let socket = UdpSocket::bind((from, 0))?;
        socket.set_read_timeout(Some(Duration::from_secs(1)))?;
        socket.send_to(datagram, self.address())?;
        Ok(socket)
    }

    /// Sends one datagram to the SIP port and returns the answer's first line, if one comes within a second.
    ///
    /// # Errors
    /// When no socket can be had.
    pub fn raw_sip(&self, from: &str, datagram: &[u8]) -> anyhow::Result<Option<String>> {
        first_line(&self.send_sip(from, datagram)?)
    }
}

/// First line of the next datagram; none when none comes in time.
fn first_line(socket: &UdpSocket) -> anyhow::Result<Option<String>> {
    let mut answer = [0; 4096];
    match socket.recv_from(&mut answer) {
        Ok((length, _)) => {
            let text = String::from_utf8_lossy(answer.get(..length).unwrap_or_default()).into_owned();
            Ok(text.lines().next().map(str::to_owned))
        }
        Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => Ok(None),
        Err(e) => Err(e.into()),
    }
}

/// The recording of a call as its two sides, 16 kHz: the caller, the attendant. Decoded by `flac`.
///
/// # Errors
/// When there is none, or `flac` cannot read it.
pub fn exported(data_dir: &Path, call: &str) -> anyhow::Result<(Vec<i16>, Vec<i16>)> {
    let to = tempfile::tempdir()?;
    let (flac, raw) = (to.path().join("call.flac"), to.path().join("call.raw"));
    let output = Command::new(program("attendant"))
        .args(["recording", "export", call])
        .arg(&flac)
        .arg("--data-dir")
        .arg(data_dir)
        .output()?;
    ensure!(output.status.success(), "{output:?}");
    let decoded = Command::new("flac")
        .args([
            "-d",
            "-s",
            "--force-raw-format",
            "--endian=little",
            "--sign=signed",
            "-o",
        ])
        .args([&raw, &flac])
        .output()
        .context("flac: run scripts/setup.sh test")?;
    ensure!(decoded.status.success(), "{decoded:?}");
    let octets = fs::read(raw)?;
    let sides = octets.chunks_exact(4).map(|both| {
        let side = |from: usize| i16::from_le_bytes([both[from], both[from + 1]]);
        (side(0), side(2))
    });
    Ok(sides.unzip())
}

/// Writes a WAV file for `attendant call --wav` beside the test's other files.
///
/// # Errors
/// When it cannot be written.
pub fn wav_file(dir: &Path, name: &str, samples: &[i16]) -> anyhow::Result<String> {
    let path = dir.join(name);
    attendant_media::wav::write(&path, attendant_media::SAMPLE_RATE_HZ, samples)?;
    Ok(path.to_string_lossy().into_owned())
}
