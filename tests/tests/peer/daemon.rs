//! A daemon in the tests' own network, and what can be asked of it.

// Each test program uses a part of it.
#![allow(dead_code)]

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use tempfile::TempDir;

/// Longest the engines may take to load on a machine that is busy with other tests.
const READY: Duration = Duration::from_secs(180);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Models {
    There,
    Missing,
}

/// `attendant serve`, with a directory and a configuration of its own.
pub struct Daemon {
    process: Child,
    /// `127.0.0.1:port` of the admin page.
    admin: String,
    dir: TempDir,
}

impl Daemon {
    /// Starts one on 192.0.2.1 port 5060; `more` goes into its `[sip]` part and after.
    pub fn start(more: &str) -> Result<Daemon> {
        Daemon::start_on("192.0.2.1:5060", more)
    }

    /// Starts one on another address.
    pub fn start_on(address: &str, more: &str) -> Result<Daemon> {
        Daemon::start_with_calls(address, 64, more)
    }

    /// Starts one that takes so many calls at once.
    pub fn start_with_calls(address: &str, calls: usize, more: &str) -> Result<Daemon> {
        Daemon::launch(address, calls, more, Models::There)
    }

    /// Starts one without models: it refuses calls as its `[fallback]` says.
    pub fn start_out_of_service(address: &str, more: &str) -> Result<Daemon> {
        Daemon::launch(address, 4, more, Models::Missing)
    }

    fn launch(address: &str, calls: usize, more: &str, models: Models) -> Result<Daemon> {
        let dir = tempfile::tempdir()?;
        let config = dir.path().join("attendant.toml");
        let text = format!(
            "profile = \"small\"\ndata_dir = {:?}\n\
             [limits]\ncalls = {calls}\n\
             [admin]\nlisten = \"127.0.0.1:0\"\n\
             [sip]\nudp = \"{address}\"\ntcp = \"{address}\"\n{more}\n",
            dir.path()
        );
        fs::write(&config, text)?;
        let mut command = Command::new(program("attendant")?);
        if models == Models::Missing {
            command.env("ATTENDANT_MODELS_DIR", dir.path().join("models"));
        }
        let mut process = command
            .args(["serve", "--config"])
            .arg(&config)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .context("starting the daemon")?;
        let stdout = process.stdout.take().context("no standard output")?;
        let (said, heard) = mpsc::channel();
        thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                // After the first lines nobody listens; the pipe is emptied all the same.
                let _ = said.send(line);
            }
        });
        let mut daemon = Daemon {
            process,
            admin: String::new(),
            dir,
        };
        while let Ok(line) = heard.recv_timeout(READY) {
            match line.split_whitespace().collect::<Vec<_>>().as_slice() {
                ["ready", _, "admin", url] => {
                    daemon.admin = url.trim_start_matches("http://").trim_end_matches('/').to_owned();
                    return Ok(daemon);
                }
                ["out-of-service", _] if models == Models::Missing => return Ok(daemon),
                _ => {}
            }
        }
        bail!("the daemon did not get ready; its own words are above")
    }

    /// Kills it as a power failure would; its data stay.
    pub fn kill(&mut self) -> Result<()> {
        self.process.kill()?;
        self.process.wait()?;
        Ok(())
    }

    /// Process id.
    pub fn pid(&self) -> u32 {
        self.process.id()
    }

    /// Where its database lives.
    pub fn data_dir(&self) -> &Path {
        self.dir.path()
    }

    /// `/api/health`.
    pub fn health(&self) -> Result<serde_json::Value> {
        let mut stream = TcpStream::connect(&self.admin)?;
        stream.set_read_timeout(Some(Duration::from_secs(10)))?;
        write!(
            stream,
            "GET /api/health HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n",
            self.admin
        )?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        ensure!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        let (_, body) = answer.split_once("\r\n\r\n").context("no body")?;
        // The body may come in chunks; the JSON is one object in it.
        let from = body.find('{').context("no JSON")?;
        let to = body.rfind('}').context("no JSON")?;
        Ok(serde_json::from_str(&body[from..=to])?)
    }

    /// Waits until no call is left.
    pub fn wait_idle(&self, longest: Duration) -> Result<()> {
        wait_for("the last call to end", longest, || {
            Ok(self.health()?["calls_in_progress"] == 0)
        })
    }

    /// Waits until SIP has forgotten the last call: 64·T1 after its last answer.
    pub fn wait_forgotten(&self, longest: Duration) -> Result<()> {
        wait_for("SIP to forget the last call", longest, || {
            let sip = &self.health()?["sip"];
            Ok(["calls", "dialogs", "transactions"]
                .iter()
                .all(|what| sip[what] == 0))
        })
    }

    /// What the daemon's allocator has given out, and how much of it is the database's cache [KiB].
    pub fn heap_kib(&self) -> Result<(u64, u64)> {
        let memory = &self.health()?["memory"];
        let figure = |key: &str| memory[key].as_u64().context("no figure");
        Ok((figure("in_use_kib")?, figure("database_kib")?))
    }

    /// Resident memory of the daemon itself, without its engines [KiB].
    pub fn memory_kib(&self) -> Result<u64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.process.id()))?;
        let line = status
            .lines()
            .find(|line| line.starts_with("VmRSS:"))
            .context("no VmRSS")?;
        Ok(line.split_whitespace().nth(1).context("no figure")?.parse()?)
    }

    /// How many files and sockets it has open.
    pub fn open_files(&self) -> Result<usize> {
        Ok(fs::read_dir(format!("/proc/{}/fd", self.process.id()))?.count())
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // Asked first, so that it says goodbye and ends its engines.
        let _ = Command::new("kill").arg(self.process.id().to_string()).status();
        for _ in 0..200 {
            if matches!(self.process.try_wait(), Ok(Some(_))) {
                return;
            }
            thread::sleep(Duration::from_millis(50));
        }
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// A program of ours: where `make test` says, otherwise beside this test's own directory.
pub fn program(name: &str) -> Result<PathBuf> {
    let dir = match std::env::var_os("ATTENDANT_BIN_DIR") {
        Some(dir) => PathBuf::from(dir),
        None => std::env::current_exe()?
            .ancestors()
            .nth(2)
            .context("no target directory")?
            .to_owned(),
    };
    let path = dir.join(name);
    ensure!(path.exists(), "{} is not built: run `make build`", path.display());
    Ok(path)
}

/// Asks every half second until it is so.
pub fn wait_for(what: &str, longest: Duration, mut so: impl FnMut() -> Result<bool>) -> Result<()> {
    let end = Instant::now() + longest;
    while Instant::now() < end {
        if so()? {
            return Ok(());
        }
        thread::sleep(Duration::from_millis(500));
    }
    bail!("waited {longest:?} for {what}")
}
