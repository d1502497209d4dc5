//! Timebox of sessions that another program drives: as long as a call may last, on the monotonic clock.
//!
//! A task per session in progress sleeps from warning to warning, notes each, and at the end terminates the session. It is
//! cancelled with the session; of one that expired meanwhile it finds that at its next step.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use attendant_store::{EventKind, Outcome, SessionId};
use attendant_turn::Phrase;
use tokio::{task::AbortHandle, time::Instant};

use super::Api;
use crate::clock;

#[derive(Debug)]
struct Timebox {
    ends: Instant,
    /// A warning that has not been spoken yet.
    unspoken: Option<Phrase>,
    task: Option<AbortHandle>,
}

/// The timeboxes of all sessions in progress.
#[derive(Debug, Clone, Default)]
pub struct Timeboxes {
    all: Arc<Mutex<HashMap<i64, Timebox>>>,
}

impl Timeboxes {
    fn with<T>(&self, work: impl FnOnce(&mut HashMap<i64, Timebox>) -> T) -> T {
        work(&mut self.all.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// A session begins.
    pub fn begin(&self, api: &Api, session: SessionId) {
        let turn = &api.running.house.config.turn;
        let limit = Duration::from_secs(u64::from(turn.timebox_s));
        let ends = Instant::now() + limit;
        let mut warnings = turn.timebox_warnings_s.clone();
        warnings.sort_unstable_by(|a, b| b.cmp(a));
        let timebox = Timebox {
            ends,
            unspoken: None,
            task: None,
        };
        // Before its task, which looks for it.
        self.with(|all| all.insert(session.get(), timebox));
        let task = tokio::spawn(run(self.clone(), api.clone(), session, ends, warnings)).abort_handle();
        let listed = self.with(|all| {
            all.get_mut(&session.get())
                .map(|timebox| timebox.task = Some(task.clone()))
        });
        if listed.is_none() {
            task.abort();
        }
    }

    /// The session has ended.
    pub fn cancel(&self, session: SessionId) {
        let gone = self.with(|all| all.remove(&session.get()));
        if let Some(task) = gone.and_then(|timebox| timebox.task) {
            task.abort();
        }
    }

    /// Until the end [s].
    pub fn remaining_s(&self, session: SessionId) -> Option<u64> {
        let now = Instant::now();
        self.with(|all| {
            all.get(&session.get())
                .map(|timebox| timebox.ends.saturating_duration_since(now).as_secs())
        })
    }

    /// The warning to be spoken with the next reply.
    pub fn take_warning(&self, session: SessionId) -> Option<Phrase> {
        self.with(|all| all.get_mut(&session.get())?.unspoken.take())
    }
}

async fn run(boxes: Timeboxes, api: Api, session: SessionId, ends: Instant, warnings_s: Vec<u32>) {
    for left_s in warnings_s {
        let left = Duration::from_secs(u64::from(left_s));
        tokio::time::sleep_until(ends.checked_sub(left).unwrap_or(ends)).await;
        let noted = api.store(move |store| {
            if store.session_head(session)?.state.is_terminal() {
                return Ok(false);
            }
            let detail = format!("{left_s} s left");
            store.record_event(
                session,
                EventKind::TimeboxWarning,
                Some(&detail),
                clock::unix_ms(),
            )?;
            Ok(true)
        });
        if !noted.await.unwrap_or(true) {
            boxes.with(|all| all.remove(&session.get()));
            return;
        }
        tracing::info!(left_s, "a session's timebox ends soon");
        boxes.with(|all| {
            if let Some(timebox) = all.get_mut(&session.get()) {
                timebox.unspoken = Some(Phrase::TimeboxWarning { left_s });
            }
        });
    }
    tokio::time::sleep_until(ends).await;
    let ended = api
        .store(move |store| store.finish_session(session, Outcome::Terminated, "timebox", clock::unix_ms()));
    match ended.await {
        Ok(_) => tracing::info!("a session was ended by its timebox"),
        // It had ended by itself.
        Err(problem) => tracing::debug!(status = problem.status, "a timebox found its session ended"),
    }
    boxes.with(|all| all.remove(&session.get()));
}
