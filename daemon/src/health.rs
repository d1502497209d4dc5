//! Health: whether the daemon lives, whether it can take calls, and its figures; for supervisors and monitoring.
//!
//! | Path | What | Else than 200 |
//! |---|---|---|
//! | `/health` | the process and its audio thread live | 503: restart it |
//! | `/ready` | each part that a call needs, with its state | 503: send no calls |
//! | `/metrics` | figures for Prometheus | 500 |
//!
//! | State | Means |
//! |---|---|
//! | `ok` | as it should be |
//! | `degraded` | calls are taken; somebody should look |
//! | `down` | calls are refused, or none could come |

use std::{path::Path, sync::atomic::Ordering};

use attendant_models::client::{EngineState, EngineStatus};
use attendant_rt::RtStats;
use attendant_store::{Store, StoreError};
use axum::{
    Json, Router,
    extract::State,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use serde::Serialize;

use crate::{
    doctor::{self, Disk},
    lines::{Line, LineState},
    metrics::{CONTENT_TYPE, Sample},
    serve::Running,
};

/// Free space below which somebody should look, as a multiple of what calls need.
const LOW_DISK: u64 = 10;
/// Where the system shows its temperatures.
const THERMAL: &str = "/sys/class/thermal";

/// How a part of the box is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Condition {
    /// As it should be.
    Ok,
    /// Calls are taken; somebody should look.
    Degraded,
    /// Calls are refused, or none could come.
    Down,
}

/// A part that calls depend on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Dependency {
    /// Which.
    pub name: String,
    /// How it is.
    pub state: Condition,
    /// The same for people; nothing of a caller.
    pub detail: String,
}

#[derive(Debug, Serialize)]
struct Ready {
    ready: bool,
    state: Condition,
    dependencies: Vec<Dependency>,
}

#[derive(Debug, Serialize)]
struct Alive {
    state: Condition,
    version: &'static str,
}

/// The routes above.
pub fn routes() -> Router<Running> {
    Router::new()
        .route("/health", get(health))
        .route("/ready", get(ready))
        .route("/metrics", get(metrics))
}

async fn health(State(running): State<Running>) -> Response {
    let (status, state) = if running.rt.stats().running {
        (StatusCode::OK, Condition::Ok)
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, Condition::Down)
    };
    let version = env!("CARGO_PKG_VERSION");
    uncached(status, Json(Alive { state, version }))
}

async fn ready(State(running): State<Running>) -> Response {
    let dependencies = dependencies(&running).await;
    let state = dependencies
        .iter()
        .map(|one| one.state)
        .max()
        .unwrap_or(Condition::Ok);
    let ready = state != Condition::Down;
    let status = if ready {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    let body = Ready {
        ready,
        state,
        dependencies,
    };
    uncached(status, Json(body))
}

async fn metrics(State(running): State<Running>) -> Response {
    let disk = doctor::disk_of(&running.house.config.data_dir());
    let entries = read(&running.house.store, Store::checkpoint).await;
    let lines: Vec<LineState> = running.lines.borrow().iter().map(|line| line.state).collect();
    let house = &running.house;
    let sample = Sample {
        engines: &house.engines.status(),
        waiting: house.engines.waiting(),
        rt: running.rt.stats(),
        lines: &lines,
        calls: house.active.load(Ordering::Relaxed),
        calls_limit: house.config.max_calls(),
        writable: house.store.is_writable(),
        record_octets: house.store.octets(),
        audit_entries: entries.ok().flatten().map(|head| head.seq),
        disk,
        thermal: Path::new(THERMAL),
    };
    match house.metrics.encode(&sample) {
        Ok(text) => ([(header::CONTENT_TYPE, CONTENT_TYPE)], text).into_response(),
        Err(error) => {
            tracing::error!(%error, "the metrics could not be written");
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
    }
}

/// An answer about now.
fn uncached(status: StatusCode, body: impl IntoResponse) -> Response {
    (status, [(header::CACHE_CONTROL, "no-store")], body).into_response()
}

async fn read<T: Send + 'static>(
    store: &Store,
    work: impl FnOnce(&Store) -> Result<T, StoreError> + Send + 'static,
) -> Result<T, String> {
    let store = store.clone();
    let done = tokio::task::spawn_blocking(move || work(&store)).await;
    done.map_err(|error| error.to_string())?
        .map_err(|error| error.to_string())
}

async fn dependencies(running: &Running) -> Vec<Dependency> {
    let house = &running.house;
    let head = read(&house.store, Store::checkpoint).await;
    let mut all = vec![
        database(house.store.is_writable(), &head),
        chain(&head.map(|head| head.map(|head| (head.seq, head.signature_is_right())))),
    ];
    all.extend(house.engines.status().iter().map(engine));
    let (accounts, peers) = (house.config.sip.account.len(), house.config.sip.peer.len());
    all.push(registrations(&running.lines.borrow(), accounts, peers));
    all.push(disk(
        doctor::disk_of(&house.config.data_dir()),
        house.config.fallback.min_free_mb,
    ));
    all.push(audio(&running.rt.stats()));
    all
}

fn dependency(name: impl Into<String>, state: Condition, detail: impl Into<String>) -> Dependency {
    Dependency {
        name: name.into(),
        state,
        detail: detail.into(),
    }
}

fn database<T>(writable: bool, read: &Result<T, String>) -> Dependency {
    match (writable, read) {
        (true, Ok(_)) => dependency("database", Condition::Ok, "read and written"),
        (false, Ok(_)) => dependency(
            "database",
            Condition::Down,
            "cannot be written: disk full or broken",
        ),
        (_, Err(error)) => dependency("database", Condition::Down, format!("cannot be read: {error}")),
    }
}

/// `head`: the last entry's number, and whether its signature is right.
fn chain(head: &Result<Option<(i64, bool)>, String>) -> Dependency {
    let (state, detail) = match head {
        Ok(Some((entries, true))) => (Condition::Ok, format!("{entries} entries, the last one signed")),
        Ok(Some((entries, false))) => (
            Condition::Degraded,
            format!("the signature of entry {entries} is wrong: run `attendant audit verify`"),
        ),
        Ok(None) => (
            Condition::Degraded,
            "no entry, though the daemon's start makes one: run `attendant audit verify`".to_owned(),
        ),
        Err(error) => (Condition::Down, format!("cannot be read: {error}")),
    };
    dependency("audit", state, detail)
}

fn engine(status: &EngineStatus) -> Dependency {
    let (state, detail) = match status.state {
        EngineState::Ready => (Condition::Ok, "ready"),
        EngineState::Starting => (Condition::Degraded, "loads its model"),
        EngineState::Crashed => (Condition::Degraded, "died; starts again"),
        EngineState::Backoff => (Condition::Down, "dies again and again; see `attendant doctor`"),
        EngineState::Stopped => (Condition::Down, "stopped"),
    };
    let detail = format!("{detail}, {} restarts", status.restarts);
    dependency(format!("engine_{}", status.engine.name()), state, detail)
}

fn registrations(lines: &[Line], accounts: usize, peers: usize) -> Dependency {
    let up = lines
        .iter()
        .filter(|line| line.state == LineState::Registered)
        .count();
    let state = match (up, accounts, peers) {
        (_, 0, 0) => Condition::Degraded,
        (up, accounts, _) if up >= accounts => Condition::Ok,
        // Peers call without a registration.
        (0, _, 0) => Condition::Down,
        _ => Condition::Degraded,
    };
    let mut detail = format!("{up} of {accounts} accounts registered, {peers} peers");
    for line in lines.iter().filter(|line| line.state != LineState::Registered) {
        detail.push_str(&format!("; {}: {}", line.account, line.text));
    }
    dependency("sip", state, detail)
}

fn disk(disk: Option<Disk>, min_free_mb: u64) -> Dependency {
    let Some(disk) = disk else {
        return dependency("disk", Condition::Degraded, "free space unknown");
    };
    let free_mb = disk.free >> 20;
    let state = if free_mb < min_free_mb {
        Condition::Down
    } else if free_mb < min_free_mb.saturating_mul(LOW_DISK) {
        Condition::Degraded
    } else {
        Condition::Ok
    };
    let detail = format!(
        "{free_mb} of {} MiB free; calls need {min_free_mb}",
        disk.size >> 20
    );
    dependency("disk", state, detail)
}

fn audio(stats: &RtStats) -> Dependency {
    let (state, detail) = match (stats.running, stats.realtime) {
        (false, _) => (Condition::Down, "the audio thread has ended".to_owned()),
        (true, false) => (
            Condition::Degraded,
            "no realtime priority: LimitRTPRIO=20 is wanted; a busy machine can be heard".to_owned(),
        ),
        (true, true) => (
            Condition::Ok,
            format!(
                "{} legs, {} of {} ticks over 5 ms late",
                stats.legs, stats.late_ticks.over_5_ms, stats.ticks
            ),
        ),
    };
    dependency("rt_audio", state, detail)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(state: LineState) -> Line {
        Line {
            account: "pbx".into(),
            state,
            text: "as it is".into(),
        }
    }

    #[test]
    fn registrations_count_where_calls_depend_on_them() {
        use Condition::*;
        use LineState::*;
        for (lines, accounts, peers, want) in [
            (vec![], 0, 0, Degraded),
            (vec![], 0, 1, Ok),
            (vec![], 1, 0, Down),
            (vec![Trying], 1, 1, Degraded),
            (vec![Registered], 1, 0, Ok),
            (vec![Registered, Refused], 2, 0, Degraded),
            (vec![Refused, Unreachable], 2, 0, Down),
        ] {
            let lines: Vec<Line> = lines.into_iter().map(line).collect();
            let found = registrations(&lines, accounts, peers);
            assert_eq!(found.state, want, "{found:?}");
        }
    }

    #[test]
    fn each_part_says_what_to_do() {
        let mib = |free: u64| {
            Some(Disk {
                free: free << 20,
                size: 100 << 30,
            })
        };
        for (found, want) in [
            (disk(mib(10), 32), Condition::Down),
            (disk(mib(100), 32), Condition::Degraded),
            (disk(mib(1_000), 32), Condition::Ok),
            (disk(None, 32), Condition::Degraded),
            (chain(&Ok(Some((3, true)))), Condition::Ok),
            (chain(&Ok(Some((3, false)))), Condition::Degraded),
            (chain(&Ok(None)), Condition::Degraded),
            (chain(&Err("gone".into())), Condition::Down),
            (database(true, &Ok(())), Condition::Ok),
            (database(false, &Ok(())), Condition::Down),
            (database::<()>(true, &Err("gone".into())), Condition::Down),
            (audio(&RtStats::default()), Condition::Down),
        ] {
            assert_eq!(found.state, want, "{found:?}");
            assert!(!found.detail.is_empty());
        }
    }
}
