//! The audit chain on a real file: what an outsider changes is named, what the program does verifies.

use std::{path::Path, thread};

use attendant_store::{
    AuditEnd, AuditKind, AuditSeq, Checkpoint, Context, DATABASE_FILE, Finding, NewTurn, Outcome, SessionId,
    State, Store, StoreError,
};
use rusqlite::Connection;

mod common;
use common::*;

#[derive(serde::Serialize)]
struct Because {
    reason: &'static str,
}

const BUSY: Because = Because { reason: "busy" };

/// Three calls, one of them running, and what else a day brings.
fn a_day(directory: &Path) -> Store {
    let store = open(directory);
    for (text, outcome) in [
        ("When do you open?", Outcome::Completed),
        ("My number is 555 0100.", Outcome::Failed),
    ] {
        let key = store.create_session(&new_session()).expect("create");
        let context = Context {
            version: 1,
            content: "You are Robin.".into(),
        };
        let version = store
            .prepare(key.id, key.version, &context, NOW + 1)
            .expect("prepare");
        store
            .transition(key.id, version, State::InProgress, None, NOW + 2)
            .expect("answer");
        store.append_turn(key.id, &turn(text, Some(900))).expect("turn");
        store
            .append_turn(key.id, &turn("Thank you.", None))
            .expect("turn");
        store
            .finish_session(key.id, outcome, "goodbye, 555 0100", NOW + 60_000)
            .expect("finish");
    }
    store
        .audit_note(AuditKind::Refusal, None, &BUSY, NOW + 61_000)
        .expect("note");
    let live = answered(&store);
    store.append_turn(live.id, &turn("Hello?", None)).expect("turn");
    store
}

fn findings(directory: &Path) -> Vec<Finding> {
    let store = Store::open_read_only(directory).expect("open");
    store.verify(None).expect("verify").findings
}

/// As a thief would: triggers out of the way first.
fn outsider(directory: &Path) -> Connection {
    let db = sqlite(directory);
    db.pragma_update(None, "foreign_keys", false).expect("pragma");
    let names: Vec<String> = db
        .prepare("SELECT name FROM sqlite_schema WHERE type = 'trigger'")
        .expect("prepare")
        .query_map([], |row| row.get(0))
        .expect("query")
        .collect::<Result<_, _>>()
        .expect("names");
    for name in names {
        db.execute_batch(&format!("DROP TRIGGER {name}")).expect("drop");
    }
    db
}

#[test]
fn a_day_verifies_beside_the_daemon_and_after_it() {
    let dir = directory();
    let store = a_day(dir.path());
    let seen = store.verify(None).expect("verify");
    assert!(seen.is_sound(), "{:?}", seen.findings);
    assert_eq!((seen.sessions, seen.turns, seen.open), (3, 5, 1));
    // Key; twice begin, context, ready, answer, two turns, end; a refusal; begin, ready, answer, turn.
    assert_eq!(seen.entries, 1 + 2 * 7 + 1 + 4);
    assert_eq!(seen.head.expect("head").seq, 20);
    drop(store);
    assert_eq!(findings(dir.path()), []);

    let store = open(dir.path());
    assert_eq!(store.recover(NOW + 70_000).expect("recover"), 1);
    let seen = store.verify(None).expect("verify");
    assert!(
        seen.is_sound() && seen.open == 0 && seen.entries == 21,
        "{seen:?}"
    );
    let last = &store.audit_entries(AuditSeq::new(20), 10).expect("entries")[0];
    assert_eq!(
        (last.kind.as_str(), last.phase.as_str()),
        ("session", "interrupted")
    );
    assert!(last.payload.contains("\"turns\":1"), "{}", last.payload);
}

#[test]
fn nothing_personal_stands_in_the_chain() {
    let dir = directory();
    let store = a_day(dir.path());
    for entry in store.audit_entries(AuditSeq::new(0), 1_000).expect("entries") {
        // Hashes and keys hold digits by chance; what stands around them must not.
        let words = entry.payload.split('"').filter(|word| word.len() != 64);
        for word in words {
            assert!(
                !word.contains("555") && !word.contains("open"),
                "{}",
                entry.payload
            );
        }
    }
}

#[test]
fn what_an_outsider_does_is_named() {
    type Case = (&'static str, &'static str, &'static str);
    let cases: &[Case] = &[
        (
            "content",
            "UPDATE audit SET payload = replace(payload, 'goodbye', 'good day') WHERE seq = 8",
            "entry 8 was altered",
        ),
        (
            "one blank",
            "UPDATE audit SET payload = payload || ' ' WHERE seq = 16",
            "entry 16 was altered",
        ),
        (
            "first",
            "UPDATE audit SET at_ms = at_ms + 1 WHERE seq = 1",
            "entry 1 was altered",
        ),
        (
            "last",
            "UPDATE audit SET payload = '{}' WHERE seq = 20",
            "entry 20 was altered",
        ),
        (
            "kind",
            "UPDATE audit SET kind = 'login' WHERE seq = 16",
            "entry 16 was altered",
        ),
        (
            "session",
            "UPDATE audit SET session = 2 WHERE seq = 6",
            "entry 6 was altered",
        ),
        (
            "its hash",
            "UPDATE audit SET hash = randomblob(32) WHERE seq = 5",
            "entry 5 was altered",
        ),
        (
            "type",
            "UPDATE audit SET payload = CAST(x'7bff7d' AS TEXT) WHERE seq = 5",
            "entry 5 was altered",
        ),
        ("deleted", "DELETE FROM audit WHERE seq = 9", "entry 9 is missing"),
        (
            "some deleted",
            "DELETE FROM audit WHERE seq BETWEEN 3 AND 7",
            "entry 3 is missing, and all up to 7",
        ),
        (
            "first deleted",
            "DELETE FROM audit WHERE seq = 1",
            "entry 1 is missing",
        ),
        (
            "last deleted",
            "DELETE FROM audit WHERE seq = 20",
            "entry 20 is missing",
        ),
        (
            "all deleted",
            "DELETE FROM audit",
            "entry 1 is missing, and all up to 20",
        ),
        (
            "neighbours swapped",
            "UPDATE audit SET seq = 999 WHERE seq = 6; UPDATE audit SET seq = 6 WHERE seq = 7; \
             UPDATE audit SET seq = 7 WHERE seq = 999",
            "entry 6 was moved: what belongs there stands as entry 7",
        ),
        (
            "far ones swapped",
            "UPDATE audit SET seq = 999 WHERE seq = 4; UPDATE audit SET seq = 4 WHERE seq = 16; \
             UPDATE audit SET seq = 16 WHERE seq = 999",
            "entry 4 was moved: what belongs there stands as entry 16",
        ),
        (
            "contents swapped",
            "UPDATE audit SET payload = (SELECT payload FROM audit b WHERE b.seq = 13 - audit.seq) WHERE seq IN (6, 7)",
            "entry 6 was altered",
        ),
        (
            "added",
            "INSERT INTO audit SELECT 21, at_ms, kind, phase, begun, session, payload, hash FROM audit WHERE seq = 16",
            "entry 21 was altered",
        ),
        (
            "turn",
            "UPDATE turn SET reply_text = 'At ten.' WHERE session_id = 1 AND number = 2",
            "turn 2 of session 1 was altered",
        ),
        (
            "turn's time",
            "UPDATE turn SET at_ms = 0 WHERE session_id = 2 AND number = 1",
            "turn 1 of session 2 was altered",
        ),
        (
            "turn's salt",
            "UPDATE turn SET salt = randomblob(16) WHERE session_id = 3",
            "turn 1 of session 3 was altered",
        ),
        (
            "turn deleted",
            "DELETE FROM turn WHERE session_id = 2 AND number = 2",
            "turn 2 of session 2 is missing",
        ),
        (
            "turns swapped",
            "UPDATE turn SET number = 9 WHERE session_id = 1 AND number = 1; \
             UPDATE turn SET number = 1 WHERE session_id = 1 AND number = 2; \
             UPDATE turn SET number = 2 WHERE session_id = 1 AND number = 9",
            "turn 1 of session 1 was altered",
        ),
        (
            "turn added",
            "INSERT INTO turn SELECT session_id, 3, at_ms, caller_text, reply_text, heard_text, source, \
             interrupted, prompt_sha256, salt FROM turn WHERE session_id = 1 AND number = 1",
            "turn 3 of session 1 was added",
        ),
        (
            "erased by hand",
            "UPDATE turn SET caller_text = '', reply_text = '', salt = NULL WHERE session_id = 1",
            "data of session 1 were removed without an erasure",
        ),
        (
            "caller",
            "UPDATE session SET caller = '+15550199' WHERE id = 1",
            "session 1 was altered: what it began with",
        ),
        (
            "outcome",
            "UPDATE session SET state = 'completed' WHERE id = 2",
            "session 2 was altered: its state",
        ),
        (
            "reason",
            "UPDATE session SET reason = 'hung up' WHERE id = 2",
            "session 2 was altered: its reason",
        ),
        (
            "count",
            "UPDATE session SET turn_count = 1 WHERE id = 1",
            "session 1 was altered: its number of turns",
        ),
        (
            "end",
            "UPDATE session SET ended_at_ms = 5 WHERE id = 1",
            "session 1 was altered: its end",
        ),
        (
            "context",
            "UPDATE context SET content = 'You are Bob.' WHERE session_id = 2",
            "the context of session 2 was altered",
        ),
        (
            "context gone",
            "DELETE FROM context WHERE session_id = 2",
            "data of session 2 were removed without an erasure",
        ),
        (
            "session gone",
            "DELETE FROM session WHERE id = 1",
            "session 1 is missing",
        ),
        (
            "head",
            "UPDATE audit_head SET hash = randomblob(32)",
            "the signed head of the chain has a false signature",
        ),
        (
            "head back",
            "UPDATE audit_head SET seq = 19",
            "entry 20 was added by another program",
        ),
        (
            "head gone",
            "DELETE FROM audit_head",
            "the signed head of the chain is missing",
        ),
    ];
    let whole = directory();
    drop(a_day(whole.path()));
    for (case, sql, want) in cases {
        let dir = directory();
        for file in [DATABASE_FILE, "audit.pub"] {
            std::fs::copy(whole.path().join(file), dir.path().join(file)).expect("copy");
        }
        outsider(dir.path()).execute_batch(sql).expect(case);
        let found = findings(dir.path());
        let first = found.first().expect(case).to_string();
        assert!(first.starts_with(want), "{case}: {first}");
        assert!(
            found
                .iter()
                .any(|finding| finding.to_string().contains("audit_no_update is missing")),
            "{case}: the triggers are missed, too"
        );
    }
}

#[test]
fn every_octet_of_every_entry_counts() {
    let whole = directory();
    drop(a_day(whole.path()));
    let bytes = std::fs::read(whole.path().join(DATABASE_FILE)).expect("read");
    // A payload as it stands in the file: the hex editor's way in.
    let needle = b"{\"from\":\"ready\",\"to\":\"in_progress\"";
    let at = bytes
        .windows(needle.len())
        .position(|window| window == needle)
        .expect("payload");
    for offset in 1..needle.len() {
        let dir = directory();
        let mut changed = bytes.clone();
        changed[at + offset] ^= 1;
        std::fs::write(dir.path().join(DATABASE_FILE), changed).expect("write");
        std::fs::copy(whole.path().join("audit.pub"), dir.path().join("audit.pub")).expect("copy");
        let found = findings(dir.path());
        assert!(
            matches!(found.first(), Some(Finding::EntryAltered { .. })),
            "octet {offset}: {found:?}"
        );
    }
}

#[test]
fn the_schema_refuses_changes_of_the_chain() {
    let dir = directory();
    drop(a_day(dir.path()));
    let db = sqlite(dir.path());
    for (sql, why) in [
        ("UPDATE audit SET payload = '{}' WHERE seq = 3", "append-only"),
        ("DELETE FROM audit WHERE seq = 20", "append-only"),
        ("DELETE FROM audit_head", "has a head"),
        ("UPDATE turn SET reply_text = 'no'", "a turn is final"),
        ("DELETE FROM turn", "turns are kept"),
        ("DELETE FROM session", "sessions are kept"),
        ("UPDATE context SET content = 'x'", "final"),
        ("DELETE FROM context", "kept until"),
        (
            "INSERT INTO audit (seq, at_ms, kind, phase, payload, hash) VALUES (25, 0, 'x', 'note', '{}', zeroblob(32))",
            "without gap",
        ),
        (
            "INSERT OR REPLACE INTO audit (seq, at_ms, kind, phase, payload, hash) VALUES (5, 0, 'x', 'note', '{}', zeroblob(32))",
            "without gap",
        ),
    ] {
        let error = db.execute(sql, []).expect_err(sql).to_string();
        assert!(error.contains(why), "{sql}: {error}");
    }
}

#[test]
fn a_checkpoint_on_paper_catches_a_rewritten_chain() {
    let dir = directory();
    let store = a_day(dir.path());
    let paper = store.checkpoint().expect("checkpoint").expect("some").to_string();
    assert!(paper.lines().count() < 10, "short enough to type: {paper}");
    let checkpoint = Checkpoint::parse(&paper).expect("parse");
    store
        .audit_note(AuditKind::Refusal, None, &BUSY, NOW)
        .expect("note");
    let seen = store.verify(Some(&checkpoint)).expect("verify");
    assert!(seen.is_sound() && seen.checkpoints == 1, "{seen:?}");
    drop(store);

    // Somebody with the key writes the whole history anew.
    let other = directory();
    std::fs::copy(dir.path().join("audit.key"), other.path().join("audit.key")).expect("copy");
    let forged = open(other.path());
    for _ in 0..30 {
        forged
            .audit_note(AuditKind::Refusal, None, &BUSY, NOW)
            .expect("note");
    }
    assert!(
        forged.verify(None).expect("verify").is_sound(),
        "by itself it looks well"
    );
    let found = forged.verify(Some(&checkpoint)).expect("verify").findings;
    assert!(found[0].to_string().contains("rewritten"), "{found:?}");

    // … or cuts it off; or with another key.
    let short = directory();
    std::fs::copy(dir.path().join("audit.key"), short.path().join("audit.key")).expect("copy");
    let found = open(short.path())
        .verify(Some(&checkpoint))
        .expect("verify")
        .findings;
    assert!(found[0].to_string().contains("cut off"), "{found:?}");
    let strange = directory();
    let found = open(strange.path())
        .verify(Some(&checkpoint))
        .expect("verify")
        .findings;
    assert!(!found.is_empty());
}

#[test]
fn a_new_key_is_noted_and_the_old_checkpoints_stay_valid() {
    let dir = directory();
    let store = a_day(dir.path());
    assert!(store.keep_checkpoint().expect("keep"));
    assert!(!store.keep_checkpoint().expect("keep"), "once");
    drop(store);
    std::fs::remove_file(dir.path().join("audit.key")).expect("lost");
    let store = open(dir.path());
    let last = store.audit_entries(AuditSeq::new(20), 9).expect("entries");
    assert_eq!((last.len(), last[0].kind.as_str()), (1, "key"));
    assert!(last[0].payload.contains("before"), "{}", last[0].payload);
    let seen = store.verify(None).expect("verify");
    assert!(seen.is_sound() && seen.checkpoints == 1, "{seen:?}");
}

#[test]
fn checkpoints_are_kept_as_the_chain_grows() {
    let dir = directory();
    let store = open(dir.path());
    for _ in 0..2_100 {
        store
            .audit_note(AuditKind::Login, None, &BUSY, NOW)
            .expect("note");
    }
    let kept: Vec<i64> = store
        .checkpoints(10)
        .expect("list")
        .iter()
        .map(|c| c.seq)
        .collect();
    assert_eq!(kept, [2_000, 1_000]);
    assert!(store.verify(None).expect("verify").is_sound());
}

#[test]
fn what_began_ends_once() {
    let dir = directory();
    let store = open(dir.path());
    let [done, failed, late, forgotten] = [(); 4].map(|()| {
        store
            .audit_begin(AuditKind::Transfer, None, &BUSY, NOW)
            .expect("begin")
    });
    for (begun, end) in [
        (done, AuditEnd::Complete),
        (failed, AuditEnd::Fail),
        (late, AuditEnd::TimedOut),
    ] {
        store.audit_end(begun, end, &BUSY, NOW).expect("end");
        assert!(matches!(
            store.audit_end(begun, AuditEnd::Complete, &BUSY, NOW),
            Err(StoreError::NotOpen { .. })
        ));
    }
    assert_eq!(store.verify(None).expect("verify").open, 1);
    drop(store);
    let store = open(dir.path());
    assert_eq!(store.recover(NOW).expect("recover"), 0);
    let last = store
        .audit_entries(AuditSeq::new(8), 9)
        .expect("entries")
        .remove(0);
    assert_eq!(
        (last.phase.as_str(), last.begun),
        ("interrupted", Some(forgotten))
    );
    assert!(store.verify(None).expect("verify").is_sound());
}

#[test]
fn payloads_are_short_objects() {
    let dir = directory();
    let store = open(dir.path());
    let long = "x".repeat(5_000);
    for bad in [
        serde_json::json!("text"),
        serde_json::json!([1]),
        serde_json::json!({ "a": long }),
    ] {
        assert!(matches!(
            store.audit_note(AuditKind::Export, None, &bad, NOW),
            Err(StoreError::BadPayload { .. })
        ));
    }
    assert_eq!(store.verify(None).expect("verify").entries, 1);
}

#[test]
fn a_refused_write_leaves_no_entry() {
    let dir = directory();
    let store = open(dir.path());
    let key = store.create_session(&new_session()).expect("create");
    for _ in 0..3 {
        assert!(store.append_turn(key.id, &NewTurn::default()).is_err());
        assert!(store.transition(key.id, 9, State::Ready, None, NOW).is_err());
        assert!(
            store
                .finish_session(SessionId::new(99), Outcome::Failed, "x", NOW)
                .is_err()
        );
    }
    assert_eq!(store.verify(None).expect("verify").entries, 2);
}

#[test]
fn two_programs_continue_one_chain() {
    let dir = directory();
    let daemon = open(dir.path());
    let command = Store::join(dir.path()).expect("join");
    thread::scope(|scope| {
        for store in [&daemon, &command, &daemon, &command] {
            scope.spawn(move || {
                for _ in 0..25 {
                    store
                        .audit_note(AuditKind::Export, None, &BUSY, NOW)
                        .expect("note");
                }
            });
        }
    });
    let seen = daemon.verify(None).expect("verify");
    assert!(seen.is_sound() && seen.entries == 101, "{seen:?}");
    assert!(matches!(
        Store::join(directory().path()),
        Err(StoreError::Missing { .. })
    ));
}

#[test]
fn what_was_recorded_before_the_chain_is_taken_in() {
    let dir = directory();
    let db = Connection::open(dir.path().join(DATABASE_FILE)).expect("open");
    db.execute_batch(include_str!("../../../migrations/0001_sessions.sql"))
        .expect("schema");
    db.execute_batch(
        "PRAGMA application_id = 0x41545444; PRAGMA user_version = 1;
         INSERT INTO session (uuid, line, direction, profile, created_at_ms)
         VALUES ('123456789012345678901234567890123456', 'office', 'inbound', 'small', 5),
                ('223456789012345678901234567890123456', 'office', 'inbound', 'small', 6);
         UPDATE session SET state = 'ready', version = 2;
         UPDATE session SET state = 'in_progress', version = 3, started_at_ms = 7;
         INSERT INTO turn VALUES (1, 1, 8, 'Hello', 'Good day', NULL, 'realtime', 0, NULL),
                                 (2, 1, 8, 'Hello', 'Good day', NULL, 'realtime', 0, NULL);
         UPDATE session SET state = 'completed', version = 4, ended_at_ms = 9, turn_count = 1 WHERE id = 1;",
    )
    .expect("old record");
    drop(db);
    let store = open(dir.path());
    let seen = store.verify(None).expect("verify");
    assert!(seen.is_sound(), "{:?}", seen.findings);
    assert_eq!((seen.sessions, seen.turns, seen.entries, seen.open), (2, 2, 6, 1));
    assert_eq!(store.recover(NOW).expect("recover"), 1);
    assert!(store.verify(None).expect("verify").is_sound());
    drop(store);
    outsider(dir.path())
        .execute_batch("UPDATE turn SET caller_text = 'Bye' WHERE session_id = 2")
        .expect("alter");
    assert!(matches!(
        findings(dir.path())[0],
        Finding::TurnAltered { session: 2, .. }
    ));
}
