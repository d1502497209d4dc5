//! A network of the tests' own: `tests/peer/net.sh` and what runs within it.
//!
//! ```text
//! home 192.0.2.1: the program under test  ----  192.0.2.2 away: the peers
//! ```

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

/// Set within the network.
const INSIDE: &str = "ATTENDANT_TEST_NETWORK";

/// Runs `test` inside a network of its own: outside, this test starts itself there and takes over the verdict.
///
/// # Errors
/// The test's own, or when there can be no such network.
pub fn in_own_network(name: &str, test: impl FnOnce() -> Result<()>) -> Result<()> {
    if std::env::var_os(INSIDE).is_some() {
        return test();
    }
    let status = Command::new(peers().join("net.sh"))
        .arg(std::env::current_exe()?)
        .args(["--exact", name, "--nocapture"])
        .args(std::env::args().filter(|arg| arg == "--ignored" || arg == "--include-ignored"))
        .env(INSIDE, "1")
        .status()
        .context("starting net.sh")?;
    ensure!(status.success(), "failed within its network; see above");
    Ok(())
}

/// `tests/peer`: the peers' scripts.
#[must_use]
pub fn peers() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("peer")
}

/// A script of `tests/peer`, run on the other host.
#[must_use]
pub fn away(script: &str) -> Command {
    let mut command = Command::new("ip");
    command.args(["netns", "exec", "away"]).arg(peers().join(script));
    command
}
