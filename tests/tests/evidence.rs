//! What stays of a call: a record that verifies, a recording that other programs open, also after `kill -9`.

use std::{
    fs,
    path::Path,
    process::{Command, Output},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use attendant_store::{State, Store};
use attendant_tests::{House, exported, program};
use serde_json::Value;

const RECORDED: &str = "\n[recording]\nenabled = true\n";

fn attendant(args: &[&str], dir: &Path) -> Output {
    Command::new(program("attendant"))
        .args(args)
        .arg("--data-dir")
        .arg(dir)
        .output()
        .unwrap()
}

/// What `attendant audit verify` says.
fn verified(dir: &Path) -> Value {
    let output = attendant(&["audit", "verify", "--json"], dir);
    serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{output:?}"))
}

/// Seconds in which somebody is to be heard.
fn voiced_s(side: &[i16]) -> usize {
    let loud = |second: &&[i16]| second.iter().any(|sample| sample.unsigned_abs() > 1_000);
    side.chunks(16_000).filter(loud).count()
}

#[test]
fn a_call_leaves_a_chain_and_a_recording_of_both_sides() {
    let house = House::start(RECORDED).unwrap();
    let report = house.call(&["--say", "What are your opening hours?"]).unwrap();
    let record = house.last_session().unwrap();
    let dir = house.data_dir();
    // Beside the running daemon.
    let seen = verified(dir);
    assert_eq!(seen["sound"], true, "{seen}");
    assert_eq!(seen["recordings"], 1, "{seen}");
    assert_eq!(seen["turns"], record.turns.len(), "{seen}");

    let (left, right) = exported(dir, &record.session.uuid).unwrap();
    assert_eq!(left.len(), right.len());
    let length_ms = left.len() as u64 / 16;
    let talked_ms = record.session.duration_ms().unwrap();
    assert!(
        length_ms.abs_diff(talked_ms) < 1_500,
        "{length_ms} of {talked_ms} ms: {report}"
    );
    assert!(
        voiced_s(&left) >= 1 && voiced_s(&right) >= 3,
        "both sides are to be heard"
    );
    // One octet of it.
    let file = fs::read_dir(dir.join("recordings"))
        .unwrap()
        .next()
        .unwrap()
        .unwrap()
        .path();
    let mut octets = fs::read(&file).unwrap();
    let middle = octets.len() / 2;
    octets[middle] ^= 1;
    fs::write(&file, octets).unwrap();
    let seen = verified(dir);
    assert!(
        seen["findings"][0].as_str().unwrap().contains("its file"),
        "the recording is named: {seen}"
    );
}

#[test]
fn kill_9_in_mid_call_loses_at_most_a_second() {
    let house = House::start(RECORDED).unwrap();
    let mut killed_ms = 0;
    // The caller is left alone; how its call ends is its own affair.
    let _ = house.call_while(
        &[
            "--say",
            "What are your opening hours?",
            "And on Sunday?",
            "Thank you, that is all I need to know.",
        ],
        || {
            house.wait_for("a turn", |record| !record.turns.is_empty())?;
            std::thread::sleep(Duration::from_millis(700));
            house.kill_daemon();
            killed_ms = SystemTime::now().duration_since(UNIX_EPOCH)?.as_millis() as i64;
            Ok(())
        },
    );
    let dir = house.data_dir();
    // What the next start does.
    let store = Store::open(dir, killed_ms).unwrap();
    store.check_integrity().unwrap();
    assert_eq!(store.recover(killed_ms).unwrap(), 1);
    assert_eq!(attendant::recording::recover(&store).unwrap(), 1);
    let last = store.list_sessions(1, None).unwrap().remove(0).session;
    assert_eq!(
        (last.state, last.reason.as_deref()),
        (State::Terminated, Some("interrupted"))
    );
    drop(store);
    let seen = verified(dir);
    assert!(seen["sound"] == true && seen["open"] == 0, "{seen}");
    let (left, right) = exported(dir, &last.uuid).unwrap();
    let talked_ms = (killed_ms - last.started_at_ms.unwrap()) as u64;
    let length_ms = left.len() as u64 / 16;
    // The session is written before the call is answered: a little of `talked_ms` was ringing.
    assert!(
        length_ms + 2_000 > talked_ms && length_ms < talked_ms + 100,
        "{length_ms} of {talked_ms} ms"
    );
    assert!(voiced_s(&left) >= 1 && voiced_s(&right) >= 2);
}
