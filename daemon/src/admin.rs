//! Local pages: how the box is, what was said, how long callers waited; and the same as JSON.
//!
//! | Path | What |
//! |---|---|
//! | `/` | health, lines, last calls |
//! | `/calls/{uuid}` | one call, turn by turn |
//! | `/api/health`, `/api/calls`, `/api/calls/{uuid}` | the same for programs |
//! | `/health`, `/ready`, `/metrics` | for supervisors and monitoring ([`crate::health`]) |
//! | `/api/v1/…` | [`crate::api`] |

use std::{net::SocketAddr, sync::atomic::Ordering};

use attendant_store::{SessionRecord, SessionSummary, StoreError, Turn};
use axum::{
    Json, Router,
    extract::{Path, State},
    http::{StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use maud::{DOCTYPE, Markup, html};
use tokio::net::TcpListener;

use crate::{memory, serve::Running};

/// Calls on the first page.
const LAST_CALLS: u32 = 30;
/// Turns that the response percentiles look back on.
const LAST_TURNS: u32 = 200;
/// Nothing from elsewhere, nothing inline.
const CSP: &str = "default-src 'none'; style-src 'self'; img-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'";

/// Serves the pages until dropped.
pub async fn run(listener: TcpListener, running: Running) {
    let app = Router::new()
        .route("/", get(overview))
        .route("/calls/{uuid}", get(call_page))
        .route("/style.css", get(style))
        .route("/api/health", get(api_health))
        .route("/api/calls", get(api_calls))
        .route("/api/calls/{uuid}", get(api_call))
        .merge(crate::health::routes());
    let api = match crate::api::router(&running) {
        Ok(api) => api,
        Err(error) => {
            tracing::error!(%error, "the API cannot start");
            Router::new()
        }
    };
    let app = app
        .with_state(running)
        .merge(api)
        .into_make_service_with_connect_info::<SocketAddr>();
    if let Err(error) = axum::serve(listener, app).await {
        tracing::error!(%error, "the admin page stopped");
    }
}

/// Why a page cannot be shown.
enum PageError {
    NotFound,
    Store(StoreError),
    Task,
}

impl IntoResponse for PageError {
    fn into_response(self) -> Response {
        match self {
            Self::NotFound => (StatusCode::NOT_FOUND, "no such call\n").into_response(),
            Self::Store(error) => {
                tracing::error!(%error, "a page could not be read from the record");
                (
                    StatusCode::INTERNAL_SERVER_ERROR,
                    "the record could not be read; see the log\n",
                )
                    .into_response()
            }
            Self::Task => (StatusCode::INTERNAL_SERVER_ERROR, "stopped in between\n").into_response(),
        }
    }
}

async fn read<T: Send + 'static>(
    running: &Running,
    work: impl FnOnce(&attendant_store::Store) -> Result<T, StoreError> + Send + 'static,
) -> Result<T, PageError> {
    let store = running.house.store.clone();
    let result = tokio::task::spawn_blocking(move || work(&store)).await;
    result.map_err(|_| PageError::Task)?.map_err(PageError::Store)
}

async fn last_calls(running: &Running) -> Result<Vec<SessionSummary>, PageError> {
    read(running, |store| store.list_sessions(LAST_CALLS, None)).await
}

async fn record(running: &Running, uuid: String) -> Result<SessionRecord, PageError> {
    let found = read(running, move |store| match store.session_by_uuid(&uuid)? {
        Some(id) => store.session(id).map(Some),
        None => Ok(None),
    });
    found.await?.ok_or(PageError::NotFound)
}

async fn health(running: &Running) -> Result<serde_json::Value, PageError> {
    let response = read(running, |store| store.response_percentiles(LAST_TURNS)).await?;
    let engines: Vec<_> = running
        .house
        .engines
        .status()
        .iter()
        .map(|e| {
            serde_json::json!({
                "engine": e.engine.name(), "state": format!("{:?}", e.state), "restarts": e.restarts,
                "model": e.model, "error": e.last_error,
            })
        })
        .collect();
    let rt = running.rt.stats();
    let sip = running.house.dialler.occupancy();
    let lines: Vec<_> = running
        .lines
        .borrow()
        .iter()
        .map(|line| serde_json::json!({ "account": line.account, "state": line.text }))
        .collect();
    Ok(serde_json::json!({
        "profile": running.profile,
        "calls_in_progress": running.house.active.load(Ordering::Relaxed),
        "calls_at_most": running.house.config.max_calls(),
        "engines": engines,
        "record_writable": running.house.store.is_writable(),
        "lines": lines,
        "sip": { "calls": sip.calls, "dialogs": sip.dialogs, "transactions": sip.transactions },
        "memory": memory::heap().map(|heap| serde_json::json!({
            "in_use_kib": heap.in_use >> 10, "held_kib": heap.held >> 10, "database_kib": attendant_store::cache_octets() >> 10,
        })),
        "response_ms": response.map(|r| serde_json::json!({ "p50": r.p50_ms, "p95": r.p95_ms, "turns": r.turns })),
        "rt_audio": {
            "realtime": rt.realtime, "ticks": rt.ticks, "late_over_5_ms": rt.late_ticks.over_5_ms, "max_late_us": rt.max_late_us,
            "underruns": running.house.underruns.load(Ordering::Relaxed),
        },
    }))
}

async fn api_health(State(running): State<Running>) -> Result<Json<serde_json::Value>, PageError> {
    Ok(Json(health(&running).await?))
}

async fn api_calls(State(running): State<Running>) -> Result<Json<Vec<SessionSummary>>, PageError> {
    Ok(Json(last_calls(&running).await?))
}

async fn api_call(
    State(running): State<Running>,
    Path(uuid): Path<String>,
) -> Result<Json<SessionRecord>, PageError> {
    Ok(Json(record(&running, uuid).await?))
}

async fn style() -> impl IntoResponse {
    (
        [(header::CONTENT_TYPE, "text/css; charset=utf-8")],
        include_str!("admin/style.css"),
    )
}

fn page(title: &str, content: &Markup) -> Response {
    let markup = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                title { (title) " · Attendant" }
                link rel="stylesheet" href="/style.css";
            }
            body { header { a href="/" { "Attendant" } } main { (content) } }
        }
    };
    let headers = [
        (header::CONTENT_SECURITY_POLICY, CSP),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
    ];
    (headers, axum::response::Html(markup.into_string())).into_response()
}

async fn overview(State(running): State<Running>) -> Result<Response, PageError> {
    let health = health(&running).await?;
    let calls = last_calls(&running).await?;
    let number = |v: &serde_json::Value| v.as_u64().map_or("–".to_owned(), |n| n.to_string());
    let content = html! {
        section.tiles {
            div.tile { b { (number(&health["calls_in_progress"])) } " of " (number(&health["calls_at_most"])) span { "calls in progress" } }
            div.tile { b { (number(&health["response_ms"]["p50"])) } " ms" span { "callers wait, in the middle" } }
            div.tile { b { (number(&health["response_ms"]["p95"])) } " ms" span { "95 of 100 wait less" } }
            @for engine in running.house.engines.status() {
                div.tile { b { (engine.engine.name()) } span { (format!("{:?}", engine.state)) @if engine.restarts > 0 { " · " (engine.restarts) " restarts" } } }
            }
        }
        @if !running.lines.borrow().is_empty() {
            h2 { "Lines" }
            ul { @for line in running.lines.borrow().iter() { li { b { (line.account) } ": " (line.text) } } }
        }
        h2 { "Last calls" }
        @if calls.is_empty() { p.quiet { "No call yet. Dial the box from a telephone of your PBX." } }
        ul.calls {
            @for call in &calls {
                li { a href={ "/calls/" (call.session.uuid) } {
                    b { (call.session.caller.as_deref().unwrap_or("unknown caller")) }
                    span { (call.session.turn_count) " turns" }
                    span { (call.duration_ms.map_or("–".to_owned(), |ms| format!("{} s", ms / 1000))) }
                    span { (call.median_response_ms.map_or("–".to_owned(), |ms| format!("{ms} ms"))) }
                    span.state { (call.session.state.as_str()) }
                } }
            }
        }
    };
    Ok(page("Overview", &content))
}

async fn call_page(State(running): State<Running>, Path(uuid): Path<String>) -> Result<Response, PageError> {
    let record = record(&running, uuid).await?;
    let session = &record.session;
    let content = html! {
        h1 { "Call from " (session.caller.as_deref().unwrap_or("an unknown caller")) }
        p.quiet { (session.line) " · " (session.state.as_str()) " · " (session.reason.as_deref().unwrap_or("")) }
        @if let Some(summary) = &record.after.summary {
            p { b { (summary.outcome) } ": " (summary.text) }
            @if !summary.follow_ups.is_empty() { ul { @for todo in &summary.follow_ups { li { (todo) } } } }
            p.quiet { "Written by a model after the call; the transcript counts." }
        }
        ol.turns { @for turn in &record.turns { li {
            (turn_markup(turn))
            @for text in record.after.transcript.iter().filter(|text| text.number == turn.number.get()) {
                p.quiet { "from the recording: " (text.text) }
            }
        } } }
    };
    Ok(page("Call", &content))
}

fn turn_markup(turn: &Turn) -> Markup {
    let waterfall = [
        ("until sure you had finished", turn.latencies.endpoint_ms),
        ("hearing", turn.latencies.stt_ms),
        ("first word", turn.latencies.llm_first_token_ms),
        ("first clause", turn.latencies.llm_first_clause_ms),
        ("voice", turn.latencies.tts_first_ms),
    ];
    html! {
        p.caller { (turn.caller_text) }
        p.reply { (turn.reply_text) }
        @if let Some(heard) = &turn.heard_text { p.quiet { "interrupted; heard: " (heard) } }
        p.figures {
            @if let Some(ms) = turn.latencies.response_ms { b { (ms) " ms" } " until the reply" }
            @for (name, value) in waterfall { @if let Some(ms) = value { span { (name) " " (ms) " ms" } } }
        }
    }
}
