//! What the tests of the record share.
#![allow(dead_code, reason = "each test program uses a part")]

use std::path::Path;

use attendant_store::{DATABASE_FILE, NewSession, NewTurn, SessionKey, State, Store, TurnLatencies};
use tempfile::TempDir;

pub const NOW: i64 = 1_760_000_000_000;

pub fn directory() -> TempDir {
    tempfile::tempdir().expect("temporary directory")
}

pub fn open(directory: &Path) -> Store {
    Store::open(directory, NOW).expect("open")
}

pub fn new_session() -> NewSession {
    NewSession {
        caller: Some("+15550100".into()),
        callee: Some("100".into()),
        call_id: Some("a1b2@host".into()),
        stt_model: Some("whisper-base".into()),
        llm_model: Some("qwen".into()),
        voice: Some("joe".into()),
        ..NewSession::inbound("office", "standard", NOW)
    }
}

/// A session in progress.
pub fn answered(store: &Store) -> SessionKey {
    answered_as(store, &new_session())
}

/// The same of one's own.
pub fn answered_as(store: &Store, new: &NewSession) -> SessionKey {
    let mut key = store.create_session(new).expect("create");
    for state in [State::Ready, State::InProgress] {
        key.version = store
            .transition(key.id, key.version, state, None, NOW + 100)
            .expect("transition");
    }
    key
}

pub fn turn(text: &str, response_ms: Option<u32>) -> NewTurn {
    NewTurn {
        at_ms: NOW + 500,
        caller_text: text.into(),
        reply_text: "At nine.".into(),
        latencies: TurnLatencies {
            response_ms,
            stt_ms: Some(300),
            ..TurnLatencies::default()
        },
        ..NewTurn::default()
    }
}

pub fn sqlite(directory: &Path) -> rusqlite::Connection {
    rusqlite::Connection::open(directory.join(DATABASE_FILE)).expect("sqlite")
}
