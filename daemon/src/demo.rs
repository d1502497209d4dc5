//! Demo: start, call ourselves once, show the conversation, stay up to be dialled.

use std::{
    fs,
    net::UdpSocket,
    path::Path,
    process::{Command, ExitCode},
};

use anyhow::{Context, bail};

use crate::{
    child::{Daemon, local_config},
    config::Config,
};

/// What a PBX expects.
const SIP_PORT: u16 = 5060;
/// What the first caller says.
const QUESTIONS: [&str; 3] = [
    "Hello, what are your opening hours?",
    "How much is an oil change?",
    "Thank you. Where can I find you?",
];

/// Runs it.
///
/// # Errors
/// When the daemon does not start or the call fails.
pub fn run(config: Option<&Path>, profile: Option<String>, once: bool) -> anyhow::Result<ExitCode> {
    let mut loaded = Config::load(config)?;
    if config.is_none() && profile.is_some() {
        loaded.profile = profile;
    }
    let generated;
    let config = match config {
        Some(path) => path,
        None => {
            let port = if UdpSocket::bind(("127.0.0.1", SIP_PORT)).is_ok() {
                SIP_PORT
            } else {
                0
            };
            let dir = loaded.data_dir();
            fs::create_dir_all(&dir).with_context(|| format!("cannot make {}", dir.display()))?;
            generated = dir.join("demo.toml");
            let text = local_config(&loaded.profile().to_string(), &dir, "127.0.0.1", port);
            fs::write(&generated, text).with_context(|| format!("cannot write {}", generated.display()))?;
            generated.as_path()
        }
    };
    println!(
        "Starting the attendant (profile {}); the models take a few seconds to load …",
        loaded.profile()
    );
    let mut daemon = Daemon::start(config)?;
    println!("Placing a first call to {} …\n", daemon.uri);
    let exe = std::env::current_exe().context("cannot find this program's own file")?;
    let mut call = Command::new(exe);
    call.env("RUST_LOG", "warn").arg("call").arg(&daemon.uri);
    for question in QUESTIONS {
        call.arg("--say").arg(question);
    }
    if !call.status().context("cannot place the call")?.success() {
        bail!("the first call failed; `attendant doctor` says more");
    }
    if once {
        return Ok(ExitCode::SUCCESS);
    }
    println!(
        "\nThe attendant stays up. Dial  {}  from a softphone on this machine,",
        daemon.uri
    );
    println!(
        "or look at  {}  for the call you just saw. Ctrl-C ends it.",
        daemon.admin
    );
    daemon.wait()?;
    Ok(ExitCode::SUCCESS)
}
