//! Care of the storage: recordings sealed and erased, backup and restore, a full disk, history and search, a caller's
//! data given and erased.

use std::{fs, path::Path, thread};

use attendant_store::{
    AuditSeq, Context, Cursor, DATABASE_FILE, Finding, HistoryFilter, NewSession, Outcome, RecordingSeal,
    SessionId, State, Store, StoreError,
};

mod common;
use common::*;

fn seal_of(octets: &[u8]) -> RecordingSeal {
    let digest = ring::digest::digest(&ring::digest::SHA256, octets);
    RecordingSeal {
        sha256: digest.as_ref().try_into().expect("32"),
        octets: octets.len() as u64,
        samples: 16_000,
        missing: 0,
        whole: true,
    }
}

/// A session that ended, of a caller, with what they said and a sealed recording.
fn recorded(store: &Store, caller: &str, said: &str) -> (SessionId, String) {
    let new = NewSession {
        caller: Some(caller.into()),
        ..new_session()
    };
    let key = store.create_session(&new).expect("create");
    let context = Context {
        version: 1,
        content: format!("{caller} calls"),
    };
    let version = store.prepare(key.id, 1, &context, NOW).expect("prepare");
    store
        .transition(key.id, version, State::InProgress, None, NOW)
        .expect("answer");
    let recording = store
        .begin_recording(key.id, Some(NOW + 1_000), NOW)
        .expect("begin");
    let octets = format!("audio of {said}").repeat(100).into_bytes();
    fs::write(&recording.path, &octets).expect("file");
    store.append_turn(key.id, &turn(said, Some(700))).expect("turn");
    store
        .seal_recording(recording.id, &seal_of(&octets), NOW + 500)
        .expect("seal");
    store
        .finish_session(key.id, Outcome::Completed, "goodbye", NOW + 600)
        .expect("end");
    (key.id, recording.uuid)
}

fn path(directory: &Path, uuid: &str) -> std::path::PathBuf {
    directory.join("recordings").join(format!("{uuid}.rec"))
}

fn first(store: &Store) -> String {
    store
        .verify(None)
        .expect("verify")
        .findings
        .first()
        .map_or("sound".into(), ToString::to_string)
}

#[test]
fn a_changed_octet_of_a_recording_is_named() {
    let dir = directory();
    let store = open(dir.path());
    let (_, uuid) = recorded(&store, "+15550100", "hello");
    let (_, other) = recorded(&store, "+15550101", "goodbye");
    let seen = store.verify(None).expect("verify");
    assert!(seen.is_sound() && seen.recordings == 2, "{seen:?}");

    let file = path(dir.path(), &uuid);
    let octets = fs::read(&file).expect("read");
    for at in [0, 700, octets.len() - 1] {
        let mut changed = octets.clone();
        changed[at] ^= 1;
        fs::write(&file, changed).expect("write");
        assert!(first(&store).starts_with(&format!("recording {uuid} of session 1 was altered: its file")));
    }
    fs::write(&file, &octets[1..]).expect("shorter");
    assert!(first(&store).contains("its file"));
    fs::write(&file, octets).expect("back");
    assert_eq!(first(&store), "sound");
    fs::remove_file(path(dir.path(), &other)).expect("remove");
    assert!(first(&store).starts_with(&format!("recording {other} of session 2 is missing")));

    let db = sqlite(dir.path());
    for (sql, why) in [
        (
            format!("UPDATE recording SET sha256 = '{}'", "0".repeat(64)),
            "sealed once",
        ),
        (
            "UPDATE recording SET session_id = 2 WHERE id = 1".into(),
            "sealed once",
        ),
        ("DELETE FROM recording".into(), "rows stay"),
    ] {
        let error = db.execute(&sql, []).expect_err(&sql).to_string();
        assert!(error.contains(why), "{sql}: {error}");
    }
    db.execute_batch(&format!(
        "DROP TRIGGER recording_final; UPDATE recording SET sha256 = '{}' WHERE id = 1",
        "0".repeat(64)
    ))
    .expect("by force");
    assert!(first(&store).contains("its row"), "{}", first(&store));
}

#[test]
fn a_recording_cut_off_is_found_at_the_next_start_and_sealed() {
    let dir = directory();
    let store = open(dir.path());
    let key = answered(&store);
    let begun = store.begin_recording(key.id, None, NOW).expect("begin");
    fs::write(&begun.path, b"half").expect("file");
    drop(store);
    let store = open(dir.path());
    store.recover(NOW + 5).expect("recover");
    let open = store.open_recordings().expect("open");
    assert_eq!(open, std::slice::from_ref(&begun));
    let seal = RecordingSeal {
        whole: false,
        ..seal_of(b"half")
    };
    store.seal_recording(begun.id, &seal, NOW + 6).expect("seal");
    assert!(matches!(
        store.seal_recording(begun.id, &seal, NOW + 6),
        Err(StoreError::NoRecording { .. })
    ));
    let seen = store.verify(None).expect("verify");
    assert!(
        seen.is_sound() && seen.open == 0 && seen.recordings == 1,
        "{seen:?}"
    );
    let stored = store.recordings(key.id).expect("list").remove(0);
    assert_eq!(
        (stored.state.as_str(), stored.whole, stored.octets),
        ("sealed", Some(false), Some(4))
    );
    assert_eq!(store.recordings_octets().expect("sum"), 4);
}

#[test]
fn retention_ends_recordings_but_not_those_held() {
    let dir = directory();
    let store = open(dir.path());
    let (old, old_file) = recorded(&store, "+15550100", "hello");
    let (held, held_file) = recorded(&store, "+15550101", "goodbye");
    store.hold(held, Some("a dispute"), NOW).expect("hold");
    assert_eq!(store.erase_expired_recordings(NOW + 999).expect("early"), 0);
    assert_eq!(store.erase_expired_recordings(NOW + 1_000).expect("due"), 1);
    assert!(!path(dir.path(), &old_file).exists() && path(dir.path(), &held_file).exists());
    assert_eq!(store.recordings(old).expect("list")[0].state, "erased");
    assert_eq!(first(&store), "sound", "the hash stays, and so does the proof");
    let sql = "UPDATE recording SET state = 'erased', erased_at_ms = 1 WHERE id = 2";
    assert!(
        sqlite(dir.path())
            .execute(sql, [])
            .expect_err("held")
            .to_string()
            .contains("legal hold")
    );
    // The turns of a session whose recording alone was erased are still vouched for.
    let db = sqlite(dir.path());
    db.execute_batch("DROP TRIGGER turn_final; UPDATE turn SET caller_text = '', reply_text = '', salt = NULL WHERE session_id = 1")
        .expect("by force");
    assert!(first(&store).contains("without an erasure"), "{}", first(&store));
    drop(db);
    store.hold(held, None, NOW).expect("release");
    assert_eq!(store.erase_expired_recordings(NOW + 1_000).expect("due"), 1);
}

#[test]
fn a_callers_data_are_given_and_then_gone() {
    let dir = directory();
    let store = open(dir.path());
    let (first_call, file) = recorded(&store, "+15550100", "my secret word is xylophone");
    let (held, _) = recorded(&store, "+15550100", "about the dispute");
    let (other, _) = recorded(&store, "+15550199", "somebody else");
    store.hold(held, Some("court"), NOW).expect("hold");
    let running = answered(&store);

    let given = store.personal_records("+15550100").expect("export");
    assert_eq!(given.len(), 3);
    let json = serde_json::to_string(&given).expect("json");
    assert!(json.contains("xylophone") && json.contains(&file) && !json.contains("somebody else"));

    let done = store.erase_caller("+15550100", NOW + 9).expect("erase");
    assert_eq!(
        (done.sessions, done.recordings, done.held, done.running),
        (1, 1, 1, 1)
    );
    let left = store.session(first_call).expect("stays");
    assert_eq!(
        (left.session.caller.as_deref(), left.session.turn_count),
        (None, 1)
    );
    assert_eq!(
        (
            left.turns[0].caller_text.as_str(),
            left.turns[0].latencies.response_ms
        ),
        ("", Some(700))
    );
    assert_eq!(store.context(first_call).expect("context"), None);
    assert!(!path(dir.path(), &file).exists());
    let seen = store.verify(None).expect("verify");
    assert!(seen.is_sound() && seen.erased == 1, "{seen:?}");
    assert_eq!(
        store.session(held).expect("held").turns[0].caller_text,
        "about the dispute"
    );
    assert_eq!(
        store.session(other).expect("other").turns[0].caller_text,
        "somebody else"
    );
    let found = |text: &str| {
        let filter = HistoryFilter {
            words: Some(text.into()),
            ..HistoryFilter::default()
        };
        store.history(&filter, None, 10).expect("search").sessions.len()
    };
    assert_eq!((found("xylophone"), found("somebody")), (0, 1));
    assert!(matches!(
        store.retry_session(first_call, NOW),
        Err(StoreError::NoRetry { .. })
    ));

    // Not in a single octet of any file.
    store
        .finish_session(running.id, Outcome::Completed, "goodbye", NOW)
        .expect("end");
    drop(store);
    for entry in fs::read_dir(dir.path()).expect("dir") {
        let file = entry.expect("entry").path();
        if file.is_file() {
            let octets = fs::read(&file).expect("read");
            let there = octets.windows(9).any(|w| w.eq_ignore_ascii_case(b"xylophone"));
            assert!(!there, "{}", file.display());
        }
    }
}

#[test]
fn history_by_pages_filters_and_words() {
    let dir = directory();
    let store = open(dir.path());
    for n in 0..25_i64 {
        let new = NewSession {
            line: if n % 2 == 0 {
                "office".into()
            } else {
                "garage".into()
            },
            caller: Some(format!("+155501{:02}", n % 5)),
            created_at_ms: NOW + n * 1_000,
            ..new_session()
        };
        let key = answered_as(&store, &new);
        let said = format!(
            "Über Reifen number{n} {}",
            if n % 3 == 0 { "winter" } else { "summer" }
        );
        store.append_turn(key.id, &turn(&said, None)).expect("turn");
        store
            .append_turn(key.id, &turn("thanks, winter it is", None))
            .expect("turn");
        if n % 4 == 0 {
            store
                .finish_session(key.id, Outcome::Failed, "x", NOW)
                .expect("end");
        }
    }
    let everything = HistoryFilter::default();
    let ask = |filter: &HistoryFilter, after| store.history(filter, after, 10).expect("history");
    let (mut ids, mut after) = (Vec::new(), None);
    loop {
        let page = ask(&everything, after);
        ids.extend(page.sessions.iter().map(|summary| summary.session.id.get()));
        after = page.next;
        if let Some(next) = after {
            assert_eq!(Cursor::parse(&next.text()), Some(next));
        } else {
            break;
        }
    }
    assert_eq!(ids, (1..=25).rev().collect::<Vec<i64>>());

    type Case = (&'static str, HistoryFilter, usize);
    let of = || HistoryFilter::default();
    let words = |text: &str| HistoryFilter {
        words: Some(text.into()),
        ..of()
    };
    let cases: &[Case] = &[
        (
            "state",
            HistoryFilter {
                state: Some(State::Failed),
                ..of()
            },
            7,
        ),
        (
            "line",
            HistoryFilter {
                line: Some("garage".into()),
                ..of()
            },
            12,
        ),
        (
            "caller",
            HistoryFilter {
                caller: Some("+15550103".into()),
                ..of()
            },
            5,
        ),
        (
            "time",
            HistoryFilter {
                from_ms: Some(NOW + 3_000),
                to_ms: Some(NOW + 6_000),
                ..of()
            },
            3,
        ),
        ("one word in one", words("number7 "), 1),
        ("begun", words("number1*"), 11),
        ("accents", words("uber reifen summer"), 16),
        ("twice in a call is one call", words("winter"), 25),
        (
            "with a filter",
            HistoryFilter {
                state: Some(State::Failed),
                ..words("summer")
            },
            4,
        ),
        ("no such word", words("boat"), 0),
        ("signs only", words("?!"), 25),
    ];
    for (case, filter, want) in cases {
        let all = store.history(filter, None, 200).expect(case);
        assert_eq!((all.sessions.len(), all.next), (*want, None), "{case}");
        let (mut paged, mut after) = (0, None);
        loop {
            let page = store.history(filter, after, 3).expect(case);
            paged += page.sessions.len();
            after = page.next;
            if after.is_none() {
                break;
            }
        }
        assert_eq!(paged, *want, "{case}, by pages");
    }
}

#[test]
fn a_backup_is_made_beside_calls_and_restored() {
    let dir = directory();
    let to = dir.path().join("usb");
    let store = open(dir.path());
    for _ in 0..20 {
        let key = answered(&store);
        for _ in 0..10 {
            store
                .append_turn(key.id, &turn(&"words ".repeat(300), None))
                .expect("turn");
        }
    }
    let key = answered(&store);
    // While somebody goes on talking.
    let (made, said) = thread::scope(|scope| {
        let backup = scope.spawn(|| store.backup(&to, 2, NOW + 1_000).expect("backup"));
        let mut said = 0;
        while !backup.is_finished() {
            store.append_turn(key.id, &turn("and on", None)).expect("turn");
            said += 1;
        }
        (backup.join().expect("thread"), said)
    });
    assert!(
        said > 3 && made.octets < made.database_octets / 3,
        "{said} turns meanwhile, {made:?}"
    );
    let last = store.checkpoint().expect("checkpoint").expect("some").seq;
    assert!((200..=last).contains(&(made.entries as i64)));

    // Rotated: two stay.
    for n in 2..5 {
        store.backup(&to, 2, NOW + n * 1_000).expect("backup");
    }
    let mut names: Vec<String> = fs::read_dir(&to)
        .expect("dir")
        .map(|entry| entry.expect("entry").file_name().into_string().expect("name"))
        .collect();
    names.sort();
    assert_eq!(
        names,
        [
            "attendant-20251009-085323.db.gz",
            "attendant-20251009-085324.db.gz"
        ]
    );
    let newest = to.join(&names[1]);

    assert!(matches!(
        Store::restore(dir.path(), &newest, NOW),
        Err(StoreError::InUse { .. })
    ));
    let before = store.session(key.id).expect("record").turns.len();
    drop(store);
    // The card breaks.
    let database = dir.path().join(DATABASE_FILE);
    let mut octets = fs::read(&database).expect("read");
    let middle = octets.len() / 2;
    octets[middle..middle + 50_000].fill(0x55);
    fs::write(&database, octets).expect("damage");
    let damaged = Store::open(dir.path(), NOW).and_then(|store| store.check_integrity());
    assert!(matches!(damaged, Err(StoreError::Damaged(_))), "{damaged:?}");

    let (aside, seen) = Store::restore(dir.path(), &newest, NOW + 9_000).expect("restore");
    assert!(aside.expect("kept").is_file() && seen.is_sound());
    let store = open(dir.path());
    assert_eq!(store.session(key.id).expect("record").turns.len(), before);
    store.check_integrity().expect("sound");
    let seen = store.verify(None).expect("verify");
    assert!(seen.is_sound(), "{:?}", seen.findings);
    let last = store
        .audit_entries(AuditSeq::new(seen.entries as i64 - 1), 1)
        .expect("entries");
    assert_eq!(last[0].kind, "restore");

    // On another box, which has a key of its own.
    let other = directory();
    drop(open(other.path()));
    Store::restore(other.path(), &newest, NOW).expect("restore");
    let store = open(other.path());
    assert_eq!(store.session(key.id).expect("record").turns.len(), before);
    assert!(store.verify(None).expect("verify").is_sound());
}

#[test]
fn a_backup_of_an_earlier_version_comes_back() {
    let dir = directory();
    let old = dir.path().join("old.db");
    let db = rusqlite::Connection::open(&old).expect("open");
    db.execute_batch(include_str!("../../../migrations/0001_sessions.sql"))
        .expect("schema");
    db.execute_batch(
        "PRAGMA application_id = 0x41545444; PRAGMA user_version = 1;
         INSERT INTO session (uuid, line, direction, profile, created_at_ms)
         VALUES ('123456789012345678901234567890123456', 'office', 'inbound', 'small', 5)",
    )
    .expect("old record");
    drop(db);
    let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    std::io::Write::write_all(&mut packed, &fs::read(&old).expect("read")).expect("pack");
    let file = dir.path().join("old.db.gz");
    fs::write(&file, packed.finish().expect("pack")).expect("write");
    let data = dir.path().join("data");
    let (aside, _) = Store::restore(&data, &file, NOW).expect("restore");
    assert_eq!(aside, None);
    let store = open(&data);
    assert_eq!(
        store.session(SessionId::new(1)).expect("record").session.line,
        "office"
    );
    assert!(store.verify(None).expect("verify").is_sound());
}

#[test]
fn what_is_no_backup_changes_nothing() {
    let dir = directory();
    let store = open(dir.path());
    answered(&store);
    let made = store.backup(&dir.path().join("usb"), 3, NOW).expect("backup");
    drop(store);
    let good = fs::read(&made.path).expect("read");
    let database = fs::read(dir.path().join(DATABASE_FILE)).expect("read");
    let mut changed = good.clone();
    let middle = changed.len() / 2;
    changed[middle] ^= 0x40;
    for (case, octets) in [
        ("nothing", vec![]),
        ("text", b"hello".to_vec()),
        ("half", good[..good.len() / 2].to_vec()),
        ("changed", changed),
    ] {
        let file = dir.path().join("bad.db.gz");
        fs::write(&file, octets).expect("write");
        assert!(Store::restore(dir.path(), &file, NOW).is_err(), "{case}");
        assert_eq!(
            fs::read(dir.path().join(DATABASE_FILE)).expect("read"),
            database,
            "{case}"
        );
    }
    // Tampered with, and packed again.
    let tampered = directory();
    {
        let mut plain = Vec::new();
        std::io::Read::read_to_end(&mut flate2::read::GzDecoder::new(good.as_slice()), &mut plain)
            .expect("unpack");
        fs::write(tampered.path().join(DATABASE_FILE), plain).expect("write");
        let db = sqlite(tampered.path());
        db.execute_batch("DROP TRIGGER session_final; UPDATE session SET line = 'other'")
            .expect("tamper");
        drop(db);
        let plain = fs::read(tampered.path().join(DATABASE_FILE)).expect("read");
        let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        std::io::Write::write_all(&mut packed, &plain).expect("pack");
        fs::write(dir.path().join("bad.db.gz"), packed.finish().expect("pack")).expect("write");
    }
    let error = Store::restore(dir.path(), &dir.path().join("bad.db.gz"), NOW).expect_err("tampered");
    assert!(
        matches!(&error, StoreError::Unsound(finding) if matches!(**finding, Finding::SessionAltered { session: 1, .. })),
        "{error}"
    );
}

#[test]
fn a_full_disk_is_a_state_and_passes() {
    let dir = directory();
    let store = open(dir.path());
    let key = answered(&store);
    assert!(store.is_writable());
    store.bound_size(1).expect("bound");
    let long = turn(&"words ".repeat(2_000), None);
    let mut written = 0;
    let error = loop {
        match store.append_turn(key.id, &long) {
            Ok(_) => written += 1,
            Err(error) => break error,
        }
        assert!(written < 500, "the bound does not hold");
    };
    assert!(matches!(error, StoreError::DiskFull), "{error}");
    assert!(!store.is_writable());
    assert!(store.probe().is_err() && !store.is_writable());
    // Reading goes on, and what was promised is there.
    assert_eq!(store.session(key.id).expect("record").turns.len(), written);
    assert!(store.verify(None).expect("verify").is_sound());
    // Somebody made room.
    store.bound_size(64).expect("bound");
    store.probe().expect("room");
    assert!(store.is_writable());
    store.append_turn(key.id, &long).expect("turn");
    assert!(store.verify(None).expect("verify").is_sound());
    store.check_integrity().expect("sound");
}
