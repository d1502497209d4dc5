//! A daemon of our own as a child process: for the first call, the self-call of the doctor, and measurements.

use std::{
    io::{BufRead, BufReader},
    path::Path,
    process::{Child, Command, Stdio},
    sync::mpsc,
    thread,
    time::Duration,
};

use anyhow::{Context, bail};

/// Longest a daemon may take to load its models and get ready.
const READY: Duration = Duration::from_secs(300);
/// Longest a stopping daemon may take before it is killed.
const STOP: Duration = Duration::from_secs(15);

/// `attendant serve` as a child; stopped when dropped.
#[derive(Debug)]
pub struct Daemon {
    process: Child,
    /// Where to dial, e.g. `sip:attendant@127.0.0.1:5060`.
    pub uri: String,
    /// The admin page.
    pub admin: String,
}

impl Daemon {
    /// Starts this very program as a daemon and waits until it is ready for calls.
    ///
    /// # Errors
    /// When it ends before; its own message is on standard error.
    pub fn start(config: &Path) -> anyhow::Result<Self> {
        let exe = std::env::current_exe().context("cannot find this program's own file")?;
        Self::start_program(&exe, config)
    }

    /// The same for another copy of the program.
    ///
    /// # Errors
    /// As for [`Self::start`].
    pub fn start_program(program: &Path, config: &Path) -> anyhow::Result<Self> {
        let mut process = Command::new(program)
            .arg("serve")
            .arg("--config")
            .arg(config)
            .env(
                "RUST_LOG",
                std::env::var("RUST_LOG").unwrap_or_else(|_| "warn".into()),
            )
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .context("cannot start the daemon")?;
        let (said, ready) = mpsc::channel();
        if let Some(stdout) = process.stdout.take() {
            thread::spawn(move || {
                for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                    // Nobody listens once it is ready; reading on keeps its pipe from filling.
                    let _ = said.send(line);
                }
            });
        }
        let mut daemon = Self {
            process,
            uri: String::new(),
            admin: String::new(),
        };
        while let Ok(line) = ready.recv_timeout(READY) {
            let words: Vec<&str> = line.split_whitespace().collect();
            if let ["ready", uri, "admin", admin] = words.as_slice() {
                daemon.uri = (*uri).to_owned();
                daemon.admin = (*admin).to_owned();
                return Ok(daemon);
            }
        }
        bail!("the daemon did not get ready; its message is above")
    }

    /// Its process.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.process.id()
    }

    /// Waits until it ends by itself.
    ///
    /// # Errors
    /// From the system.
    pub fn wait(&mut self) -> std::io::Result<()> {
        self.process.wait().map(|_| ())
    }

    #[allow(unsafe_code)]
    fn terminate(&mut self) {
        if let Ok(pid) = i32::try_from(self.process.id()) {
            // SAFETY: a plain signal to our own child, which has not been reaped.
            unsafe { libc::kill(pid, libc::SIGTERM) };
        }
        for _ in 0..STOP.as_millis() / 50 {
            if matches!(self.process.try_wait(), Ok(Some(_))) {
                return;
            }
            thread::sleep(Duration::from_millis(50));
        }
        // It had its time.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if matches!(self.process.try_wait(), Ok(None)) {
            self.terminate();
        }
    }
}

/// A configuration for calls from this machine alone, with a business to ask about.
///
/// `port` 0 takes any free one.
#[must_use]
pub fn local_config(profile: &str, data_dir: &Path, listen: &str, port: u16) -> String {
    format!(
        r#"profile = "{profile}"
data_dir = {data_dir:?}

[business]
business_name = "Maple Street Garage"
attendant_name = "Robin"
business = "car repairs, inspections and tyres"
hours = "Monday to Friday from 8 AM to 6 PM, Saturday from 9 AM to 1 PM, closed on Sunday"
address = "14 Maple Street, next to the fire station"
knowledge = [
    "An oil change costs 79 dollars and takes 45 minutes.",
    "An inspection costs 120 dollars and needs an appointment.",
    "Tyres can be stored over the winter for 60 dollars.",
]

[sip]
udp = "{listen}:{port}"
tcp = "{listen}:{port}"

[[sip.peer]]
name = "this machine"
address = "127.0.0.0/8"

[admin]
listen = "127.0.0.1:0"
"#
    )
}
