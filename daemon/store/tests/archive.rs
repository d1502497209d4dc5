//! Cold files: texts of old calls leave the database, are found by their words, shown, verified and erased.

use std::{fs, path::PathBuf};

use attendant_store::{
    ARCHIVE_DIR, Archived, HistoryFilter, NewSession, NewTurn, Outcome, SessionId, Store, StoreError,
};

mod common;
use common::*;

/// A call of a caller that has ended.
fn call(store: &Store, caller: &str, said: &[&str]) -> SessionId {
    let new = NewSession {
        caller: Some(caller.into()),
        ..new_session()
    };
    let key = answered_as(store, &new);
    for said in said {
        let turn = NewTurn {
            heard_text: Some("At".into()),
            interrupted: true,
            ..turn(said, Some(700))
        };
        store.append_turn(key.id, &turn).expect("turn");
    }
    store
        .finish_session(key.id, Outcome::Completed, "goodbye", NOW + 600)
        .expect("end");
    key.id
}

fn files(store: &Store) -> Vec<PathBuf> {
    fs::read_dir(store.directory().join(ARCHIVE_DIR))
        .expect("dir")
        .map(|entry| entry.expect("entry").path())
        .collect()
}

fn first(store: &Store) -> String {
    let findings = store.verify(None).expect("verify").findings;
    findings.first().map_or("sound".into(), ToString::to_string)
}

fn found(store: &Store, words: &str) -> Vec<SessionId> {
    let filter = HistoryFilter {
        words: Some(words.into()),
        ..HistoryFilter::default()
    };
    let page = store.history(&filter, None, 100).expect("search");
    page.sessions
        .into_iter()
        .map(|summary| summary.session.id)
        .collect()
}

fn archive(store: &Store) -> Archived {
    store.archive_before(NOW + 1_000, NOW + 2_000).expect("archive")
}

#[test]
fn old_texts_leave_the_database_and_are_still_there() {
    let dir = directory();
    let store = open(dir.path());
    let old = call(&store, "+15550100", &["about a xylophone", "and a Tuba"]);
    let silent = call(&store, "+15550100", &[]);
    let held = call(&store, "+15550101", &["about the dispute"]);
    store.hold(held, Some("court"), NOW).expect("hold");
    let running = answered(&store).id;
    let before = store.session(old).expect("record");
    assert_eq!(
        store.archive_before(NOW, NOW).expect("none due"),
        Archived::default()
    );
    let done = archive(&store);
    assert_eq!((done.sessions, done.turns), (1, 2));
    assert_eq!(archive(&store), Archived::default(), "once");
    let rows: i64 = sqlite(dir.path())
        .query_row(
            "SELECT sum(length(caller_text)) FROM turn WHERE session_id = ?1",
            [old.get()],
            |row| row.get(0),
        )
        .expect("sum");
    assert_eq!(rows, 0);
    // Shown, found, given away and verified as before.
    assert_eq!(store.session(old).expect("record"), before);
    assert_eq!(
        (found(&store, "xylophone"), found(&store, "tuba")),
        (vec![old], vec![old])
    );
    let given = serde_json::to_string(&store.personal_records("+15550100").expect("export")).expect("json");
    assert!(given.contains("about a xylophone"));
    assert_eq!(first(&store), "sound");
    assert!(store.session(silent).is_ok() && store.session(running).is_ok());
    // Any system unpacks it.
    let [file] = files(&store).try_into().expect("one");
    let mut text = String::new();
    let packed = fs::read(&file).expect("read");
    std::io::Read::read_to_string(
        &mut flate2::read::MultiGzDecoder::new(packed.as_slice()),
        &mut text,
    )
    .expect("unpack");
    assert!(
        text.contains(&before.session.uuid) && text.contains("xylophone"),
        "{text}"
    );
    // A backup verifies by itself, without the cold files.
    store.backup(&dir.path().join("usb"), 1, NOW).expect("backup");
}

#[test]
fn a_changed_or_missing_cold_file_is_named() {
    let dir = directory();
    let store = open(dir.path());
    let old = call(&store, "+15550100", &["about a xylophone"]);
    archive(&store);
    let [file] = files(&store).try_into().expect("one");
    let whole = fs::read(&file).expect("read");
    for at in [12, whole.len() / 2, whole.len() - 5] {
        let mut changed = whole.clone();
        changed[at] ^= 4;
        fs::write(&file, changed).expect("write");
        assert!(
            first(&store).contains("turn 1 of session 1 was altered"),
            "octet {at}: {}",
            first(&store)
        );
    }
    fs::remove_file(&file).expect("remove");
    assert!(first(&store).contains("turn 1 of session 1 was altered"));
    let error = store.session(old).expect_err("gone");
    assert!(matches!(error, StoreError::ColdFile { .. }), "{error}");
    fs::write(&file, whole).expect("back");
    assert_eq!(first(&store), "sound");
}

#[test]
fn an_erased_caller_is_in_no_cold_file() {
    let dir = directory();
    let store = open(dir.path());
    let kept = call(&store, "+15550101", &["about a trombone"]);
    let gone = call(&store, "+15550100", &["my secret is xylophone"]);
    let also = call(&store, "+15550102", &["about a tuba"]);
    archive(&store);
    let [before] = files(&store).try_into().expect("one");
    assert_eq!(
        store.erase_caller("+15550100", NOW + 9).expect("erase").sessions,
        1
    );
    let [after] = files(&store).try_into().expect("one");
    assert_ne!(before, after);
    assert_eq!(store.session(gone).expect("record").turns[0].caller_text, "");
    assert!(found(&store, "xylophone").is_empty());
    for (session, said) in [(kept, "about a trombone"), (also, "about a tuba")] {
        assert_eq!(store.session(session).expect("record").turns[0].caller_text, said);
    }
    let mut text = String::new();
    let packed = fs::read(&after).expect("read");
    std::io::Read::read_to_string(
        &mut flate2::read::MultiGzDecoder::new(packed.as_slice()),
        &mut text,
    )
    .expect("unpack");
    assert!(!text.contains("xylophone"));
    assert_eq!(first(&store), "sound");
    // The last ones take the file along.
    store.erase_caller("+15550101", NOW + 9).expect("erase");
    store.erase_caller("+15550102", NOW + 9).expect("erase");
    assert!(files(&store).is_empty());
    assert_eq!(first(&store), "sound");
}

#[test]
fn a_stop_in_between_is_settled_by_the_next_start() {
    let dir = directory();
    let store = open(dir.path());
    let old = call(&store, "+15550100", &["about a xylophone"]);
    archive(&store);
    let [file] = files(&store).try_into().expect("one");
    // Killed between the commit and the name; and before the commit.
    let uuid = file
        .file_name()
        .and_then(|name| name.to_str())
        .expect("name")
        .split_once('.')
        .expect("uuid")
        .0
        .to_owned();
    fs::rename(&file, file.with_file_name(format!("{uuid}.new"))).expect("rename");
    fs::write(file.with_file_name("0000.new"), b"half").expect("write");
    assert_eq!(
        store.session(old).expect("record").turns[0].caller_text,
        "about a xylophone"
    );
    assert_eq!(first(&store), "sound");
    drop(store);
    let store = open(dir.path());
    store.recover(NOW).expect("recover");
    assert_eq!(files(&store), [file]);
    assert_eq!(first(&store), "sound");
}
