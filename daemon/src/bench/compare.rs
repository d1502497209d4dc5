//! Compare: what changed between two runs, and whether it got worse beyond what two runs differ by anyway.

use std::{fs, io, path::Path};

use anyhow::Context;
use serde_json::Value;

/// A figure that is compared: where it stands in the report, and what difference is chance.
struct Figure {
    name: &'static str,
    at: &'static str,
    /// Differences up to this share of the earlier figure are chance …
    share: f64,
    /// … and so are those up to this.
    least: f64,
}

/// All of them are better when smaller.
const FIGURES: [Figure; 12] = [
    figure("response, p50 [ms]", "/response_ms/p50", 0.1, 40.0),
    figure("response, p95 [ms]", "/response_ms/p95", 0.15, 80.0),
    figure("false cut-offs [share]", "/false_cutoff_rate", 0.0, 0.02),
    figure("unanswered", "/unanswered", 0.0, 1.0),
    figure("false stops [share]", "/false_stop_rate", 0.0, 0.02),
    figure("barge-in stop, p50 [ms]", "/barge_in_stop_ms/p50", 0.1, 20.0),
    figure("barge-in stop, p95 [ms]", "/barge_in_stop_ms/p95", 0.15, 40.0),
    figure("word errors [share]", "/wer", 0.1, 0.02),
    figure(
        "packets off 20 ms, p99.9 [ms]",
        "/rtp_deviation_ms/p999",
        0.5,
        1.0,
    ),
    figure("underruns", "/underruns", 0.0, 0.0),
    figure("processor per second of call [s]", "/cpu_per_call_s", 0.15, 0.02),
    figure("memory [MiB]", "/cost/peak_rss_mib", 0.1, 30.0),
];

const fn figure(name: &'static str, at: &'static str, share: f64, least: f64) -> Figure {
    Figure {
        name,
        at,
        share,
        least,
    }
}

/// One figure in both runs.
#[derive(Debug, PartialEq)]
pub struct Change {
    name: &'static str,
    before: f64,
    after: f64,
    /// Beyond chance.
    pub worse: bool,
}

/// The report of an earlier run.
///
/// # Errors
/// When the file cannot be read or is no report.
pub fn read(path: &Path) -> anyhow::Result<Value> {
    let text = fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    let value: Value = serde_json::from_str(&text)
        .with_context(|| format!("{} is not what `attendant bench --json` prints", path.display()))?;
    anyhow::ensure!(
        value.pointer("/response_ms").is_some(),
        "{} holds no response_ms: it is not what `attendant bench --json` prints",
        path.display()
    );
    Ok(value)
}

/// Every figure that both runs have.
#[must_use]
pub fn changes(before: &Value, after: &Value) -> Vec<Change> {
    let both = |figure: &Figure| {
        let of = |run: &Value| run.pointer(figure.at).and_then(Value::as_f64);
        let (before, after) = (of(before)?, of(after)?);
        Some(Change {
            name: figure.name,
            before,
            after,
            worse: after - before > (before * figure.share).max(figure.least),
        })
    };
    FIGURES.iter().filter_map(both).collect()
}

/// For people.
///
/// # Errors
/// The writer's own.
pub fn print(changes: &[Change], out: &mut impl io::Write) -> io::Result<()> {
    writeln!(out, "\nAgainst the earlier run:")?;
    for change in changes {
        let verdict = if change.worse { "WORSE" } else { "" };
        writeln!(
            out,
            "  {:<34} {:>10.3} -> {:>10.3}  {verdict}",
            change.name, change.before, change.after
        )?;
    }
    let worse = changes.iter().filter(|change| change.worse).count();
    writeln!(out, "  {worse} of {} got worse", changes.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chance_is_told_from_change() {
        let run = |p50: f64, underruns: f64| serde_json::json!({"response_ms": {"p50": p50, "p95": 900.0}, "underruns": underruns, "wer": null});
        let worse = |before: &Value, after: &Value| -> Vec<&str> {
            changes(before, after)
                .iter()
                .filter(|c| c.worse)
                .map(|c| c.name)
                .collect()
        };
        assert_eq!(worse(&run(700.0, 0.0), &run(735.0, 0.0)), [""; 0]);
        assert_eq!(worse(&run(700.0, 0.0), &run(800.0, 0.0)), ["response, p50 [ms]"]);
        assert_eq!(worse(&run(700.0, 0.0), &run(600.0, 1.0)), ["underruns"]);
        assert_eq!(
            changes(&run(700.0, 0.0), &run(700.0, 0.0)).len(),
            3,
            "wer is missing"
        );
    }
}
