//! The shipped alert rules and dashboard name figures, labels and values that exist.

use std::{collections::BTreeSet, fs, path::PathBuf};

use attendant::metrics::Metrics;
use attendant_dialog::guardrails::{Category, Stage};

fn shipped(name: &str) -> String {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("../docs/monitoring")
        .join(name);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The names of figures in a text.
fn named(text: &str) -> BTreeSet<&str> {
    text.split(|c: char| !(c.is_ascii_lowercase() || c == '_'))
        .filter(|word| word.starts_with("attendant_"))
        .collect()
}

/// The values that selectors in a text want of a label; of `a|b` each.
fn wanted<'a>(text: &'a str, label: &str) -> BTreeSet<&'a str> {
    let text = text.split(label).skip(1);
    text.filter_map(|rest| {
        // A title may end in the label's name.
        let rest = ["=~", "!~", "!=", "="]
            .iter()
            .find_map(|sign| rest.strip_prefix(sign))?;
        let value = rest.trim_start_matches('\\').strip_prefix('"')?;
        value.split(['"', '\\']).next()
    })
    .flat_map(|value| value.split('|'))
    .collect()
}

#[test]
fn every_figure_they_name_exists() {
    let metrics = Metrics::new("small");
    let known: BTreeSet<&str> = metrics.series().iter().map(String::as_str).collect();
    for (file, fewest) in [
        ("attendant.rules.yml", 15),
        ("dashboard.json", 25),
        ("attendant.test.yml", 3),
    ] {
        let text = shipped(file);
        let named = named(&text);
        assert!(named.len() >= fewest, "{file} names {named:?}");
        for name in &named {
            assert!(known.contains(name), "{file} names {name}, which does not exist");
        }
    }
}

#[test]
fn every_value_they_select_exists() {
    let categories: BTreeSet<&str> = Category::ALL.iter().map(|one| one.name()).collect();
    let mut stages: BTreeSet<&str> = Stage::ALL.iter().map(|one| one.name()).collect();
    stages.extend([
        "endpoint",
        "stt",
        "llm_first_token",
        "llm_first_clause",
        "llm_total",
        "tts_first",
        "response",
    ]);
    let states = BTreeSet::from(["trying", "registered", "refused", "unreachable"]);
    let outcomes = BTreeSet::from(["completed", "terminated", "failed", "expired"]);
    for file in ["attendant.rules.yml", "dashboard.json"] {
        let text = shipped(file);
        for (label, known) in [
            ("category", &categories),
            ("stage", &stages),
            ("state", &states),
            ("outcome", &outcomes),
        ] {
            let wanted = wanted(&text, label);
            assert!(wanted.is_subset(known), "{file}: {label} {wanted:?}");
        }
    }
    let rules = shipped("attendant.rules.yml");
    assert_eq!(
        wanted(&rules, "category"),
        BTreeSet::from(["injection", "prompt_leak", "others_data", "safety", "malformed"])
    );
}

#[test]
fn the_dashboard_can_be_read() {
    let dashboard: serde_json::Value = serde_json::from_str(&shipped("dashboard.json")).expect("JSON");
    let panels = dashboard["panels"].as_array().expect("panels");
    let ids: BTreeSet<u64> = panels.iter().filter_map(|panel| panel["id"].as_u64()).collect();
    assert_eq!(ids.len(), panels.len(), "each panel has an id of its own");
    for panel in panels {
        let targets = panel["targets"].as_array().expect("targets");
        assert!(
            !targets.is_empty() && targets.iter().all(|target| target["expr"].is_string()),
            "{panel}"
        );
        assert!(
            panel["gridPos"]["w"].as_u64().is_some_and(|width| width <= 24),
            "{panel}"
        );
    }
}
