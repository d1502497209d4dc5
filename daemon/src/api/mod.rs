//! API for other programs, under `/api/v1` on the address of the local pages; its document is made from this code.
//!
//! ```text
//! enter (name, room, own task, problem form) ─> admit (token, limits) ─> once (idempotency) ─> handler ─> store, engines
//! ```
//!
//! | Where | What |
//! |---|---|
//! | `sessions`, `speech`, `timebox` | conversations that another program drives |
//! | `calls`, `recordings`, `chain` | what was said and recorded, and its proof |
//! | `ingest` | calls whose sound comes in packets |
//! | `live`, `webhook` | the audit chain as it grows, to those who watch and to other systems |
//! | `problem`, `access`, `limit`, `idempotency`, `fields` | what all of them obey |
//!
//! Nothing is kept in memory that is not bounded: buckets 4096, requests at once 256, watchers 32, hearings 8, packets that
//! wait 256. Bodies end at 3 MiB, speech at 10 MB.

pub mod access;
mod calls;
mod chain;
mod document;
mod entry;
mod fields;
mod idempotency;
mod ingest;
mod limit;
mod live;
mod problem;
mod recordings;
mod sessions;
mod speech;
mod timebox;
pub mod token;
mod views;
mod webhook;

use std::sync::Arc;

use attendant_store::{Store, StoreError};
use axum::{
    Router,
    extract::DefaultBodyLimit,
    http::{StatusCode, header},
    middleware,
    response::Response,
    routing::get,
};
use tokio::sync::{Semaphore, watch};
use utoipa_axum::router::OpenApiRouter;

pub use problem::Problem;
pub use webhook::WebhookSection;

use crate::{config::ApiSection, serve::Running};

/// Longest speech [octets].
const MAX_SPEECH: usize = 10_000_000;
/// Longest other body [octets]: a context of 200,000 characters, escaped.
const MAX_JSON: usize = 3 << 20;

/// What the handlers share.
#[derive(Clone)]
pub struct Api {
    running: Running,
    shared: Arc<Common>,
}

struct Common {
    allowed: entry::Allowed,
    allowed_sources: entry::Allowed,
    refused: entry::Refused,
    refusals: entry::Refusals,
    at_once: Arc<Semaphore>,
    hearings: Arc<Semaphore>,
    watchers: Arc<Semaphore>,
    timeboxes: timebox::Timeboxes,
    talking: speech::Talking,
    /// Where the chain ends, as the live task last saw it.
    latest: watch::Sender<i64>,
    packets: ingest::Desk,
}

impl Api {
    fn config(&self) -> &ApiSection {
        &self.running.house.config.api
    }

    /// Asks the record, off the async threads.
    async fn store<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Store) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, Problem> {
        let store = self.running.house.store.clone();
        tokio::task::spawn_blocking(move || work(&store))
            .await
            .map_err(|_| Problem::internal())?
            .map_err(Problem::from)
    }
}

/// The API's paths, and its tasks, which end with the runtime.
///
/// # Errors
/// [`StoreError`] of the database.
pub fn router(running: &Running) -> Result<Router, StoreError> {
    if !running.house.config.api.enabled {
        return Ok(Router::new());
    }
    running.house.store.cut_off_answers()?;
    let config = &running.house.config.api;
    let (packets, waiting) = ingest::Desk::new();
    let api = Api {
        running: running.clone(),
        shared: Arc::new(Common {
            allowed: limit::Limiter::new(config.requests_per_minute),
            // Several programs may share a host.
            allowed_sources: limit::Limiter::new(config.requests_per_minute.saturating_mul(4)),
            refused: limit::Limiter::new(config.refused_per_minute),
            refusals: entry::Refusals::default(),
            at_once: Arc::new(Semaphore::new(entry::AT_ONCE)),
            hearings: Arc::new(Semaphore::new(recordings::HEARINGS)),
            watchers: Arc::new(Semaphore::new(live::WATCHERS)),
            timeboxes: timebox::Timeboxes::default(),
            talking: speech::Talking::default(),
            latest: watch::Sender::new(0),
            packets,
        }),
    };
    tokio::spawn(live::follow(api.clone()));
    tokio::spawn(ingest::write(api.clone(), waiting));
    tokio::spawn(ingest::process(api.clone()));
    for hook in &config.webhook {
        tokio::spawn(webhook::run(api.clone(), hook.clone()));
    }

    let (routes, described) = routes().split_for_parts();
    let document = document::finish(&described);
    let admitted = routes
        .fallback(nothing)
        .layer(middleware::from_fn_with_state(api.clone(), idempotency::once))
        .layer(middleware::from_fn_with_state(api.clone(), access::admit));
    let open = Router::new().route(
        "/openapi.json",
        get(move || async move { ([(header::CONTENT_TYPE, "application/json")], document) }),
    );
    let all = admitted
        .merge(open)
        .layer(middleware::from_fn_with_state(api.clone(), entry::enter))
        .with_state(api);
    Ok(Router::new().nest("/api/v1", all.clone()).nest("/v1", all))
}

/// Everything that the document describes.
fn routes() -> OpenApiRouter<Api> {
    OpenApiRouter::with_openapi(document::begin())
        .merge(sessions::routes())
        .merge(calls::routes())
        .merge(recordings::routes())
        .merge(chain::routes())
        .merge(ingest::routes())
        .merge(live::routes())
        .layer(DefaultBodyLimit::max(MAX_JSON))
        .merge(speech::routes())
}

async fn nothing() -> Response {
    problem::bare(StatusCode::NOT_FOUND)
}
