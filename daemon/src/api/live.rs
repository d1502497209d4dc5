//! Live: the audit chain as it grows, to whoever watches. What is written is told, in the same order and without personal
//! data; who was away goes on where they were.
//!
//! ```text
//! chain ──looked at every 200 ms while somebody watches──> latest ──> each watcher reads what is new for it
//! ```
//! Source: WHATWG HTML §9.2 (server-sent events), RFC 6455 (WebSocket).

use std::{collections::VecDeque, convert::Infallible, time::Duration};

use attendant_store::AuditSeq;
use axum::{
    Extension,
    body::Bytes,
    extract::{
        Query, State as Shared,
        ws::{Message, WebSocket, WebSocketUpgrade},
    },
    http::HeaderMap,
    response::{
        IntoResponse, Response,
        sse::{Event, KeepAlive, Sse},
    },
};
use serde::Deserialize;
use tokio::sync::{OwnedSemaphorePermit, watch};
use utoipa::IntoParams;
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    Api, Problem,
    access::{Caller, Right},
    fields,
    views::EntryView,
};

/// Watchers at once.
pub const WATCHERS: usize = 32;
/// How often the chain is looked at.
const LOOK: Duration = Duration::from_millis(200);
/// Entries read at once.
const PAGE: u32 = 100;
/// Between two signs of life on a WebSocket.
const PING: Duration = Duration::from_secs(20);
/// Longest a watcher may take for a message before it is given up.
const SLOW: Duration = Duration::from_secs(10);
/// Longest message from a watcher [octets]; nothing is expected from it.
const MAX_MESSAGE: usize = 1_024;

/// The routes.
pub fn routes() -> OpenApiRouter<Api> {
    OpenApiRouter::new()
        .routes(routes!(events))
        .routes(routes!(socket))
}

/// From where on.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(default, deny_unknown_fields)]
pub struct Since {
    /// Only what follows this entry of the chain; without it what happens from now on.
    #[param(minimum = 0, maximum = 1000000000000_i64)]
    #[serde(deserialize_with = "fields::maybe_within::<_, 0, 1000000000000>")]
    after: Option<u64>,
}

/// Looks where the chain ends, while somebody watches.
pub async fn follow(api: Api) {
    let mut tick = tokio::time::interval(LOOK);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tick.tick().await;
        if api.shared.latest.is_closed() {
            continue;
        }
        // What cannot be read now is read next time.
        if let Ok(seq) = end(&api).await {
            api.shared.latest.send_if_modified(|latest| {
                let more = seq > *latest;
                *latest = seq.max(*latest);
                more
            });
        }
    }
}

async fn end(api: &Api) -> Result<i64, Problem> {
    let head = api.store(|store| store.checkpoint()).await?;
    Ok(head.map_or(0, |head| head.seq))
}

/// Reads the chain from one entry on, waiting where it ends.
pub struct Tail {
    api: Api,
    after: i64,
    read: VecDeque<EntryView>,
    latest: watch::Receiver<i64>,
}

impl Tail {
    /// Behind `after`.
    pub fn new(api: &Api, after: i64) -> Self {
        Self {
            api: api.clone(),
            after,
            read: VecDeque::new(),
            latest: api.shared.latest.subscribe(),
        }
    }

    /// The next entry, however long it takes. Cancel-safe.
    pub async fn next(&mut self) -> EntryView {
        loop {
            if let Some(entry) = self.read.pop_front() {
                self.after = entry.seq;
                return entry;
            }
            // Before reading, so that what is written meanwhile wakes us.
            self.latest.mark_unchanged();
            match self.api.entries(AuditSeq::new(self.after), PAGE).await {
                Ok(entries) if !entries.is_empty() => self.read = entries.into(),
                // The sender lives as long as the daemon.
                Ok(_) => drop(self.latest.changed().await),
                Err(_) => tokio::time::sleep(Duration::from_secs(1)).await,
            }
        }
    }
}

/// A watcher's place and where it begins.
async fn begin(
    api: &Api,
    caller: &Caller,
    from: Option<u64>,
    headers: &HeaderMap,
) -> Result<(Tail, OwnedSemaphorePermit), Problem> {
    caller.may_everywhere(Right::Watch)?;
    let place = api
        .shared
        .watchers
        .clone()
        .try_acquire_owned()
        .map_err(|_| Problem::unavailable("busy", "too many are watching", 10))?;
    // A browser that was cut off says where it was.
    let known = headers
        .get("last-event-id")
        .and_then(|id| id.to_str().ok()?.parse().ok());
    let after = match known.or(from.map(u64::cast_signed)) {
        Some(after) => after,
        None => end(api).await?,
    };
    Ok((Tail::new(api, after), place))
}

/// What happens, as server-sent events: `id` is the entry's number in the chain, `event` its kind, `data` the entry.
#[utoipa::path(get, path = "/events", tag = "live", params(Since), responses(
    (status = 200, description = "Events, without end.", body = String, content_type = "text/event-stream"),
))]
async fn events(
    Shared(api): Shared<Api>,
    Extension(caller): Extension<Caller>,
    Query(from): Query<Since>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let watcher = begin(&api, &caller, from.after, &headers).await?;
    let stream = futures_util::stream::unfold(watcher, |(mut tail, place)| async move {
        let entry = tail.next().await;
        let event = Event::default().id(entry.seq.to_string()).event(&entry.kind);
        let event = event
            .json_data(&entry)
            .unwrap_or_else(|_| Event::default().comment("unreadable"));
        Some((Ok::<_, Infallible>(event), (tail, place)))
    });
    let alive = KeepAlive::new().interval(PING);
    Ok(Sse::new(stream).keep_alive(alive).into_response())
}

/// The same by WebSocket, one entry a message.
#[utoipa::path(get, path = "/events/socket", tag = "live", params(Since), responses(
    (status = 101, description = "Entries, without end."),
    (status = 426, description = "No WebSocket was asked for.", body = Problem, content_type = "application/problem+json"),
))]
async fn socket(
    Shared(api): Shared<Api>,
    Extension(caller): Extension<Caller>,
    Query(from): Query<Since>,
    headers: HeaderMap,
    upgrade: WebSocketUpgrade,
) -> Result<Response, Problem> {
    let (tail, place) = begin(&api, &caller, from.after, &headers).await?;
    Ok(upgrade
        .max_message_size(MAX_MESSAGE)
        .on_upgrade(move |socket| tell(socket, tail, place)))
}

async fn tell(mut socket: WebSocket, mut tail: Tail, _place: OwnedSemaphorePermit) {
    let mut ping = tokio::time::interval(PING);
    loop {
        let message = tokio::select! {
            entry = tail.next() => match serde_json::to_string(&entry) {
                Ok(text) => Message::Text(text.into()),
                Err(_) => continue,
            },
            _ = ping.tick() => Message::Ping(Bytes::new()),
            heard = socket.recv() => match heard {
                Some(Ok(Message::Close(_)) | Err(_)) | None => return,
                Some(Ok(_)) => continue,
            },
        };
        match tokio::time::timeout(SLOW, socket.send(message)).await {
            Ok(Ok(())) => {}
            // Gone, or too slow: it comes back with the number it was at.
            Ok(Err(_)) | Err(_) => return,
        }
    }
}
