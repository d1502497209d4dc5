//! Doctor: is all well, and what to do if not. Each check passes, warns or fails, with one sentence of advice.

use std::{ffi::CString, net::UdpSocket, os::unix::ffi::OsStrExt, path::Path, time::Duration};

use attendant_models::{
    client::{Engines, GenerateRequest, LlmEvent, Priority, SpeakRequest, TranscribeRequest},
    files::{ModelStore, Resolved},
    protocol::{ChatMessage, Role},
};
use attendant_rt::{Rt, RtConfig};
use attendant_store::Store;
use serde::Serialize;

use crate::{
    bench::wer::compare,
    child::{Daemon, local_config},
    clock,
    config::Config,
    serve,
};

/// Below this free space the record is at risk [MiB].
const DISK_LOW_MB: u64 = 500;
/// No appliance was built before 2026-01-01: a clock that says so is not set [Unix ms].
const BUILT_MS: i64 = 1_767_225_600_000;
/// What the engines are tried with.
const SENTENCE: &str = "We are open from nine in the morning until five in the afternoon.";
const ENGINES_READY: Duration = Duration::from_secs(120);
const TRY: Duration = Duration::from_secs(30);

/// How a check ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// Well.
    Pass,
    /// Works, but not as well as it could.
    Warn,
    /// Calls would suffer.
    Fail,
}

/// One check.
#[derive(Debug, Clone, Serialize)]
pub struct Check {
    /// What was looked at.
    pub name: &'static str,
    /// How it ended.
    pub verdict: Verdict,
    /// What was found.
    pub found: String,
    /// What to do; empty when all is well.
    pub advice: String,
}

/// All checks.
#[derive(Debug, Default, Serialize)]
pub struct Report {
    /// In the order of examination.
    pub checks: Vec<Check>,
}

impl Report {
    /// No check failed.
    #[must_use]
    pub fn healthy(&self) -> bool {
        self.checks.iter().all(|c| c.verdict != Verdict::Fail)
    }

    /// Prints it, for people or machines.
    pub fn print(&self, json: bool) {
        if json {
            match serde_json::to_string_pretty(self) {
                Ok(text) => println!("{text}"),
                Err(error) => eprintln!("attendant: {error}"),
            }
            return;
        }
        let all = if self.healthy() {
            "All well: calls can be answered."
        } else {
            "Something needs your attention."
        };
        println!("{all}");
    }

    fn add(
        &mut self,
        name: &'static str,
        verdict: Verdict,
        found: impl Into<String>,
        advice: impl Into<String>,
    ) {
        let check = Check {
            name,
            verdict,
            found: found.into(),
            advice: advice.into(),
        };
        let mark = match verdict {
            Verdict::Pass => "pass",
            Verdict::Warn => "WARN",
            Verdict::Fail => "FAIL",
        };
        // Progress on standard error: the JSON on standard output stays whole.
        eprintln!("  {mark}  {:<14} {}", check.name, check.found);
        if !check.advice.is_empty() {
            eprintln!("                       {}", check.advice);
        }
        self.checks.push(check);
    }
}

/// Examines everything; `with_call` includes a call to itself.
pub async fn examine(config: &Config, with_call: bool) -> Report {
    let mut report = Report::default();
    disk(&mut report, &config.data_dir());
    record(&mut report, &config.data_dir());
    clock(&mut report);
    ports(&mut report, config);
    realtime(&mut report);
    hardware(&mut report);
    if let Some(models) = models(&mut report, config) {
        let engines_well = engines(&mut report, config, &models).await;
        if with_call && engines_well {
            self_call(&mut report, config).await;
        }
    }
    report
}

fn disk(report: &mut Report, dir: &Path) {
    let existing = dir.ancestors().find(|d| d.exists()).unwrap_or(Path::new("/"));
    match free_mb(existing) {
        None => report.add(
            "disk",
            Verdict::Warn,
            "free space unknown",
            format!("check that {} can be read", dir.display()),
        ),
        Some(free) if free < DISK_LOW_MB => report.add(
            "disk",
            Verdict::Fail,
            format!("{free} MiB free"),
            format!(
                "free at least {DISK_LOW_MB} MiB at {}, or set data_dir to a larger disk",
                existing.display()
            ),
        ),
        Some(free) => report.add(
            "disk",
            Verdict::Pass,
            format!("{free} MiB free at {}", existing.display()),
            "",
        ),
    }
}

/// A file system, as this user sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Disk {
    /// Free \[octets\].
    pub free: u64,
    /// Its size \[octets\].
    pub size: u64,
}

pub(crate) fn free_mb(dir: &Path) -> Option<u64> {
    disk_of(dir).map(|disk| disk.free >> 20)
}

/// The file system of a directory.
#[allow(unsafe_code)]
pub(crate) fn disk_of(dir: &Path) -> Option<Disk> {
    let path = CString::new(dir.as_os_str().as_bytes()).ok()?;
    // SAFETY: all-zero is a valid statvfs; the call fills it.
    let mut stat: libc::statvfs = unsafe { std::mem::zeroed() };
    // SAFETY: `path` is NUL-terminated and `stat` is valid for writes.
    (unsafe { libc::statvfs(path.as_ptr(), &raw mut stat) } == 0).then(|| Disk {
        free: stat.f_bavail * stat.f_frsize,
        size: stat.f_blocks * stat.f_frsize,
    })
}

fn record(report: &mut Report, dir: &Path) {
    if !dir.join(attendant_store::DATABASE_FILE).exists() {
        report.add(
            "record",
            Verdict::Pass,
            format!("none yet; it will be made in {}", dir.display()),
            "",
        );
        return;
    }
    match Store::open_read_only(dir).and_then(|store| store.check_integrity()) {
        Ok(()) => report.add("record", Verdict::Pass, "the database is sound", ""),
        Err(error) => report.add(
            "record",
            Verdict::Fail,
            error.to_string(),
            format!(
                "stop the daemon, keep a copy of {}, then restore the last backup",
                dir.display()
            ),
        ),
    }
}

fn clock(report: &mut Report) {
    if clock::unix_ms() < BUILT_MS {
        report.add(
            "clock",
            Verdict::Fail,
            "the clock is not set",
            "set it with `timedatectl set-time`, or connect a time server",
        );
    } else {
        report.add("clock", Verdict::Pass, "set", "");
    }
}

fn ports(report: &mut Report, config: &Config) {
    let Some(udp) = config.sip.udp else {
        report.add("port", Verdict::Pass, "UDP is off; TCP only", "");
        return;
    };
    match UdpSocket::bind(udp) {
        Ok(_) => report.add("port", Verdict::Pass, format!("{udp}/udp is free"), ""),
        Err(error) if error.kind() == std::io::ErrorKind::AddrInUse => report.add(
            "port",
            Verdict::Warn,
            format!("{udp}/udp is in use"),
            "right if the daemon is running now; otherwise stop the other program or change [sip] udp",
        ),
        Err(error) => report.add(
            "port",
            Verdict::Fail,
            format!("{udp}/udp: {error}"),
            "set [sip] udp to an address of this machine, e.g. 0.0.0.0:5060",
        ),
    }
}

fn realtime(report: &mut Report) {
    match Rt::spawn(RtConfig::default()) {
        Ok(rt) if rt.stats().realtime => report.add(
            "realtime",
            Verdict::Pass,
            "the audio thread has realtime priority",
            "",
        ),
        Ok(_) => report.add(
            "realtime",
            Verdict::Warn,
            "the audio thread has normal priority",
            "give the service LimitRTPRIO=20 (the unit in systemd/ does) or run as a user with rtprio rights",
        ),
        Err(error) => report.add(
            "realtime",
            Verdict::Fail,
            error.to_string(),
            "see the message; without it no call has audio",
        ),
    }
}

fn hardware(report: &mut Report) {
    let found = attendant_hw::inventory();
    report.add(
        "hardware",
        Verdict::Pass,
        format!(
            "{} sound devices, {} serial ports (neither is needed for SIP)",
            found.sound.len(),
            found.serial.len()
        ),
        "",
    );
}

fn models(report: &mut Report, config: &Config) -> Option<Resolved> {
    let resolved =
        ModelStore::open(attendant_models::default_dir()).and_then(|store| store.resolve(config.profile()));
    match resolved {
        Ok(models) => {
            let names = format!(
                "{}: {}, {}, {}",
                config.profile(),
                models.stt.id,
                models.llm.id,
                models.voice.id
            );
            report.add("models", Verdict::Pass, names, "");
            Some(models)
        }
        Err(error) => {
            let advice = format!("attendant models fetch --profile {}", config.profile());
            report.add("models", Verdict::Fail, error.to_string(), advice);
            None
        }
    }
}

/// Speaks a sentence, hears it again, and asks the model about it.
async fn engines(report: &mut Report, config: &Config, models: &Resolved) -> bool {
    let engines = match serve::start_engines(config, models) {
        Ok(engines) => engines,
        Err(error) => {
            report.add("engines", Verdict::Fail, error.to_string(), "");
            return false;
        }
    };
    let outcome = try_engines(&engines).await;
    engines.shutdown().await;
    match outcome {
        Ok((heard, reply_ms)) if compare(SENTENCE, &heard).errors == 0 => {
            report.add(
                "engines",
                Verdict::Pass,
                format!("spoke, understood itself, first word after {reply_ms} ms"),
                "",
            );
            true
        }
        Ok((heard, _)) => {
            report.add(
                "engines",
                Verdict::Warn,
                format!("spoke, but understood: {heard}"),
                "attendant models verify",
            );
            true
        }
        Err(error) => {
            report.add(
                "engines",
                Verdict::Fail,
                error.to_string(),
                "attendant models verify",
            );
            false
        }
    }
}

async fn try_engines(engines: &Engines) -> Result<(String, u128), attendant_models::client::EngineError> {
    engines.ready(ENGINES_READY).await?;
    let speech = engines
        .speak(SpeakRequest {
            call: 0,
            turn: 0,
            deadline: TRY,
            text: SENTENCE.into(),
            speed: 1.0,
            priority: Priority::Live,
        })
        .await?;
    let transcript = engines
        .transcribe(TranscribeRequest {
            call: 0,
            turn: 0,
            deadline: TRY,
            language: Some("en".into()),
            hint: String::new(),
            pcm: speech.pcm,
            priority: Priority::Live,
        })
        .await?;
    let asked = std::time::Instant::now();
    let mut reply = engines.generate(GenerateRequest {
        call: 0,
        turn: 0,
        deadline: TRY,
        messages: vec![ChatMessage {
            role: Role::User,
            content: "Say hello.".into(),
        }],
        max_tokens: 8,
        temperature: 0.0,
        seed: 1,
        stop: vec![],
        grammar: None,
        score_ending: false,
        priority: Priority::Live,
    });
    let mut first = None;
    while let Some(event) = reply.next().await {
        if let LlmEvent::Token(_) = event? {
            first.get_or_insert_with(|| asked.elapsed().as_millis());
        }
    }
    engines.release(0);
    Ok((transcript.text, first.unwrap_or(0)))
}

/// A call to a daemon of its own on the loopback, with one spoken question.
async fn self_call(report: &mut Report, config: &Config) {
    let (profile, data) = (config.profile().to_string(), std::env::temp_dir());
    let outcome = tokio::task::spawn_blocking(move || call_ourselves(&profile, &data)).await;
    match outcome {
        Ok(Ok(summary)) => report.add("self-call", Verdict::Pass, summary, ""),
        Ok(Err(error)) => report.add(
            "self-call",
            Verdict::Fail,
            format!("{error:#}"),
            "see the checks above and the log",
        ),
        Err(error) => report.add("self-call", Verdict::Fail, error.to_string(), "see the log"),
    }
}

fn call_ourselves(profile: &str, base: &Path) -> anyhow::Result<String> {
    let dir = base.join(format!("attendant-doctor-{}", std::process::id()));
    let result = call_in(profile, &dir);
    // What is left over is in the temporary directory.
    let _ = std::fs::remove_dir_all(&dir);
    result
}

fn call_in(profile: &str, dir: &Path) -> anyhow::Result<String> {
    std::fs::create_dir_all(dir)?;
    let config = dir.join("doctor.toml");
    std::fs::write(&config, local_config(profile, dir, "127.0.0.1", 0))?;
    let daemon = Daemon::start(&config)?;
    let output = std::process::Command::new(std::env::current_exe()?)
        .args([
            "call",
            &daemon.uri,
            "--say",
            "What are your opening hours?",
            "--json",
        ])
        .output()?;
    anyhow::ensure!(
        output.status.success(),
        "the call failed: {}",
        String::from_utf8_lossy(&output.stderr).trim()
    );
    let report: serde_json::Value = serde_json::from_slice(&output.stdout)?;
    let response = report["turns"][0]["response_ms"].as_f64();
    let response = response.ok_or_else(|| anyhow::anyhow!("the question was not answered"))?;
    Ok(format!(
        "greeted and answered; the reply came {response:.0} ms after the question"
    ))
}
