//! The session of a call: opened in the record before the call is answered.

use attendant_store::{Context, NewSession, SessionKey, State, Store};

use crate::clock;

/// Opens a session that is in progress; `content` is sealed with it as its context (JSON).
///
/// # Errors
/// Why there is no record, for the log: no call may be answered without one.
pub async fn open(store: &Store, session: NewSession, content: String) -> Result<SessionKey, String> {
    let store = store.clone();
    let context = Context { version: 1, content };
    let opened = tokio::task::spawn_blocking(move || {
        let key = store.create_session(&session)?;
        let version = store.prepare(key.id, key.version, &context, clock::unix_ms())?;
        store.transition(key.id, version, State::InProgress, None, clock::unix_ms())?;
        Ok::<_, attendant_store::StoreError>(key)
    })
    .await;
    let opened = opened.map_err(|error| error.to_string());
    opened.and_then(|opened| opened.map_err(|error| error.to_string()))
}

/// Ends the session of a call that came to nothing.
pub async fn fail(store: &Store, key: &SessionKey, reason: String) {
    let (store, id) = (store.clone(), key.id);
    let ended = tokio::task::spawn_blocking(move || {
        store.finish_session(
            id,
            attendant_store::Outcome::Terminated,
            &reason,
            clock::unix_ms(),
        )
    })
    .await;
    match ended {
        Ok(Ok(_)) => {}
        Ok(Err(error)) => tracing::error!(%error, "the session could not be closed"),
        Err(error) => tracing::error!(%error, "the session could not be closed"),
    }
}
