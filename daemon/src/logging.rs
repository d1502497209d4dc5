//! Logs: to the journal under systemd, else to the terminal. Raw SIP never gets there.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;

/// Starts logging. `verbose` 0 = info, 1 = debug, 2 = trace; `RUST_LOG` overrides.
pub fn start(verbose: u8) {
    let level = match verbose {
        0 => "info",
        1 => "debug",
        _ => "trace",
    };
    if under_systemd() && start_journal(verbose) {
        return;
    }
    let wanted = std::env::var("RUST_LOG").unwrap_or_else(|_| level.to_owned());
    let mut filter = EnvFilter::new(wanted);
    for directive in attendant_sip::LOG_DIRECTIVES {
        if let Ok(directive) = directive.parse() {
            filter = filter.add_directive(directive);
        }
    }
    let terminal = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_target(false)
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr);
    // Not `init`, which would also take `log` records in: with `log-always` they are these very events again.
    // Only a second start in one process could fail; the first one stays.
    let _ = tracing::subscriber::set_global_default(terminal.finish());
}

fn under_systemd() -> bool {
    std::env::var_os("JOURNAL_STREAM").is_some() || std::env::var_os("INVOCATION_ID").is_some()
}

/// `tracing` events become `log` records (its `log-always` feature), which go to the journal with their priorities.
fn start_journal(verbose: u8) -> bool {
    let Ok(journal) = systemd_journal_logger::JournalLog::new() else {
        return false;
    };
    let journal = journal.with_syslog_identifier("attendant".to_owned());
    if log::set_boxed_logger(Box::new(Quiet(journal))).is_err() {
        return false;
    }
    log::set_max_level(match verbose {
        0 => log::LevelFilter::Info,
        1 => log::LevelFilter::Debug,
        _ => log::LevelFilter::Trace,
    });
    true
}

/// Keeps the SIP library's raw messages (numbers, credentials) out of the journal.
struct Quiet(systemd_journal_logger::JournalLog);

impl log::Log for Quiet {
    fn enabled(&self, metadata: &log::Metadata<'_>) -> bool {
        !metadata.target().starts_with("rsipstack") || metadata.level() <= log::Level::Warn
    }

    fn log(&self, record: &log::Record<'_>) {
        if self.enabled(record.metadata()) {
            self.0.log(record);
        }
    }

    fn flush(&self) {
        self.0.flush();
    }
}
