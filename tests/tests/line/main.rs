//! What a bad network does to what the daemon understands: recorded human prompts over a relay that loses, delays, reorders
//! and doubles packets, both ways (`attendant bench`). The relay: `daemon/src/caller/weather.rs`.

use std::process::Command;

use anyhow::{Context, Result, ensure};
use attendant_tests::program;
use serde_json::Value;

/// Recorded prompts per kind of weather: some 170 words, three minutes.
const PROMPTS: &str = "40";
/// Word errors that 5 % of loss may add [percentage points].
const RISE: f64 = 2.0;

fn bench(name: &str, weather: &[&str]) -> Result<f64> {
    let output = Command::new(program("attendant"))
        .args(["bench", "--profile", "small", "--json", "--wer-prompts", PROMPTS])
        .args(weather)
        .output()?;
    let report: Value = serde_json::from_slice(&output.stdout)
        .with_context(|| format!("{name}: {}", String::from_utf8_lossy(&output.stderr)))?;
    let wer = 100.0 * report["wer"].as_f64().context("no word errors in the report")?;
    println!(
        "{name}: wer_percent={wer:.1} words={} unanswered={} packets_lost={} of {}",
        report["wer_words"], report["unanswered"], report["packets_lost"], report["packets"]
    );
    ensure!(report["failed_calls"] == 0, "{name}: calls failed: {report}");
    Ok(wer)
}

#[test]
#[ignore = "ten minutes: part of make peer-test"]
fn five_percent_of_loss_costs_two_points_at_most() -> Result<()> {
    let clean = bench("clean", &[])?;
    let lossy = bench("5 % loss", &["--loss", "5"])?;
    let storm = bench(
        "10 % loss in bursts, 60 ms jitter, reordering, duplicates",
        &[
            "--loss",
            "10",
            "--burst",
            "3",
            "--jitter",
            "60",
            "--reorder",
            "2",
            "--duplicate",
            "2",
        ],
    )?;
    println!("clean {clean:.1} %, 5 % loss {lossy:.1} %, storm {storm:.1} %");
    ensure!(
        lossy <= clean + RISE,
        "5 % of loss raised word errors from {clean:.1} to {lossy:.1} %"
    );
    Ok(())
}
