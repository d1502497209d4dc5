//! Progress for people: one redrawn bar on a terminal, plain lines at intervals elsewhere (logs, `make`).

use std::fmt::Write as _;
use std::io::{self, IsTerminal, Write};
use std::time::{Duration, Instant};

/// How often a bar is redrawn.
const REDRAW: Duration = Duration::from_millis(200);
/// How often a plain line is written while the same step goes on.
const LINE_INTERVAL: Duration = Duration::from_secs(10);
/// Width of the bar [characters].
const BAR: usize = 24;

/// Counts bytes towards a total and tells about it on standard error.
#[derive(Debug)]
pub struct Progress {
    style: Style,
    total: u64,
    /// Bytes of finished steps.
    done: u64,
    /// Bytes that count for the rate: those moved since the start, not those found already there.
    moved: u64,
    started: Instant,
    shown: Option<Instant>,
    label: String,
}

/// Where the progress goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Style {
    /// A bar that is redrawn.
    Bar,
    /// A line now and then.
    Lines,
    /// Nothing, for tests and programs.
    Silent,
}

impl Style {
    /// A bar if standard error is a terminal.
    pub fn detect() -> Style {
        if io::stderr().is_terminal() {
            Style::Bar
        } else {
            Style::Lines
        }
    }
}

impl Progress {
    /// Starts towards `total` bytes, of which none is there yet.
    pub fn new(style: Style, total: u64) -> Progress {
        Progress {
            style,
            total,
            done: 0,
            moved: 0,
            started: Instant::now(),
            shown: None,
            label: String::new(),
        }
    }

    /// A sentence of its own.
    pub fn say(&mut self, text: &str) {
        match self.style {
            Style::Silent => {}
            Style::Bar => eprintln!("\r\x1b[K{text}"),
            Style::Lines => eprintln!("{text}"),
        }
    }

    /// Begins a step.
    pub fn begin(&mut self, label: &str) {
        self.label = label.to_string();
        self.shown = None;
    }

    /// `bytes` of the current step are there.
    pub fn at(&mut self, bytes: u64) {
        let due = match self.style {
            Style::Silent => false,
            Style::Bar => self.shown.is_none_or(|shown| shown.elapsed() >= REDRAW),
            // The first line of a step comes late, so that quick steps have only their last one.
            Style::Lines => self.shown.get_or_insert_with(Instant::now).elapsed() >= LINE_INTERVAL,
        };
        if due {
            self.show(self.done + bytes, self.moved + bytes);
        }
    }

    /// The step is finished; `bytes` count, `moved` says whether they were transferred now.
    pub fn finish(&mut self, bytes: u64, moved: Moved) {
        self.done += bytes;
        if moved == Moved::Now {
            self.moved += bytes;
        }
        if self.style != Style::Silent {
            self.show(self.done, self.moved);
        }
    }

    /// Removes the bar.
    pub fn clear(&mut self) {
        if self.style == Style::Bar {
            eprint!("\r\x1b[K");
        }
    }

    fn show(&mut self, done: u64, moved: u64) {
        self.shown = Some(Instant::now());
        let line = render(&self.label, done, self.total, moved, self.started.elapsed());
        match self.style {
            Style::Silent => {}
            Style::Lines => eprintln!("  {line}"),
            Style::Bar => {
                let filled = (percent(done, self.total) as usize * BAR / 100).min(BAR);
                eprint!(
                    "\r\x1b[K[{}{}] {line}",
                    "#".repeat(filled),
                    ".".repeat(BAR - filled)
                );
                // A terminal that went away is no reason to stop.
                let _ = io::stderr().flush();
            }
        }
    }
}

/// Whether bytes were transferred now or found from an earlier run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Moved {
    /// Transferred in this run.
    Now,
    /// Kept from an earlier one.
    Earlier,
}

fn render(label: &str, done: u64, total: u64, moved: u64, elapsed: Duration) -> String {
    let mut line = format!(
        "{:>3} %  {} of {}",
        percent(done, total),
        bytes(done),
        bytes(total)
    );
    let seconds = elapsed.as_secs_f64();
    if moved > 0 && seconds > 1.0 && done < total {
        let rate = moved as f64 / seconds;
        let left = total.saturating_sub(done) as f64 / rate;
        // Writing to a string cannot fail.
        let _ = write!(
            line,
            ", about {} left",
            duration(Duration::from_secs_f64(left.clamp(1.0, 1e6)))
        );
    }
    let _ = write!(line, "  {label}");
    line
}

fn percent(done: u64, total: u64) -> u64 {
    (done.min(total) * 100).checked_div(total).unwrap_or(100)
}

/// A size for people.
pub fn bytes(count: u64) -> String {
    match count {
        0..1_000 => format!("{count} B"),
        1_000..1_000_000 => format!("{:.1} kB", count as f64 / 1e3),
        1_000_000..1_000_000_000 => format!("{:.1} MB", count as f64 / 1e6),
        _ => format!("{:.2} GB", count as f64 / 1e9),
    }
}

/// A duration for people.
pub fn duration(time: Duration) -> String {
    match time.as_secs() {
        0 => format!("{} ms", time.as_millis()),
        seconds @ 1..120 => format!("{seconds} s"),
        seconds => format!("{} min", seconds.div_ceil(60)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_say_how_far_and_how_long() {
        let half = render(
            "x.whl",
            50_000_000,
            100_000_000,
            50_000_000,
            Duration::from_secs(10),
        );
        assert_eq!(half, " 50 %  50.0 MB of 100.0 MB, about 10 s left  x.whl");
        assert_eq!(render("x", 0, 0, 0, Duration::ZERO), "100 %  0 B of 0 B  x");
    }

    #[test]
    fn sizes_and_times_are_readable() {
        assert_eq!(bytes(999), "999 B");
        assert_eq!(bytes(1_117_320_768), "1.12 GB");
        assert_eq!(duration(Duration::from_millis(300)), "300 ms");
        assert_eq!(duration(Duration::from_secs(119)), "119 s");
        assert_eq!(duration(Duration::from_secs(121)), "3 min");
    }
}
