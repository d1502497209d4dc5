//! What a bad network does to a call, both ways: to what the daemon understands, and to what the caller hears (`heard`).
//! The network: a relay in user space, `daemon/src/caller/weather.rs`.
//! With `ATTENDANT_TABLES=DIR` the tables are written to `DIR/words.md` and `DIR/heard.md`.

mod heard;

use std::{fmt::Write as _, path::Path, process::Command};

use anyhow::{Context, Result, ensure};
use attendant_tests::program;
use serde_json::Value;

/// Recorded prompts per kind of weather.
const PROMPTS: &str = "40";
/// Word errors that 5 % of loss may add [percentage points].
const RISE: f64 = 2.0;

/// Kinds of weather and how to ask for them.
const LINES: [(&str, &str); 3] = [
    ("nothing lost", ""),
    ("5 % lost", "--loss 5"),
    (
        "10 % lost in bursts, storm",
        "--loss 10 --burst 3 --jitter 60 --reorder 2 --duplicate 2",
    ),
];

/// Puts a table where whoever wants it looks for it.
fn write_table(name: &str, table: &str) -> Result<()> {
    if let Some(dir) = std::env::var_os("ATTENDANT_TABLES") {
        std::fs::write(Path::new(&dir).join(name), table)?;
    }
    Ok(())
}

/// A row of the table, and the word errors \[%\].
fn bench(name: &str, weather: &str) -> Result<(String, f64)> {
    let output = Command::new(program("attendant"))
        .args(["bench", "--profile", "small", "--json", "--wer-prompts", PROMPTS])
        .args(weather.split_whitespace())
        .output()?;
    let report: Value = serde_json::from_slice(&output.stdout)
        .with_context(|| format!("{name}: {}", String::from_utf8_lossy(&output.stderr)))?;
    let wer = 100.0 * report["wer"].as_f64().context("no word errors in the report")?;
    ensure!(report["failed_calls"] == 0, "{name}: calls failed: {report}");
    let wait = report["response_ms"]["p50"].as_f64().unwrap_or(f64::NAN);
    let [words, cut_off, turns, unanswered] =
        ["wer_words", "false_cutoffs", "turns", "unanswered"].map(|key| &report[key]);
    let row =
        format!("| {name} | {wer:.1} % of {words} | {cut_off} of {turns} | {unanswered} | {wait:.0} ms |");
    println!("{row}");
    Ok((row, wer))
}

#[test]
#[ignore = "a quarter of an hour: part of make peer-test"]
fn five_percent_of_loss_costs_two_points_at_most() -> Result<()> {
    let mut table = String::from(
        "| recorded people, G.711 | words wrong | cut off | unanswered | wait, p50 |\n|---|---|---|---|---|\n",
    );
    let mut wer = Vec::new();
    for (name, weather) in LINES {
        let (row, percent) = bench(name, weather)?;
        let _ = writeln!(table, "{row}");
        wer.push(percent);
    }
    write_table("words.md", &table)?;
    let [clean, lossy, ..] = wer[..] else {
        unreachable!("as many as lines")
    };
    ensure!(
        lossy <= clean + RISE,
        "5 % of loss raised word errors from {clean:.1} to {lossy:.1} %"
    );
    Ok(())
}
