//! Recordings: decrypted on their way out as FLAC, whole or in part.
//!
//! Source: RFC 9110 §14 (range requests), RFC 9639 (FLAC). A range is cut from the decrypted stream as it passes, so that
//! nothing decrypted lies on the disk or whole in memory. Each hearing stands in the audit chain, begun and ended.

use std::{
    io::{self, Write},
    ops::Range,
    path::PathBuf,
};

use attendant_record::MasterKey;
use attendant_store::{AuditEnd, AuditKind, Store, StoredRecording};
use axum::{
    Extension, Json,
    body::{Body, Bytes},
    extract::{Path, State as Shared},
    http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header},
    response::Response,
};
use serde_json::json;
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    Api, Problem,
    access::{Caller, Right},
    views::RecordingView,
};
use crate::clock;

/// Octets handed on at once.
const PIECE: usize = 64 << 10;
/// Pieces that may wait for a slow listener.
const PIECES: usize = 4;
/// Recordings given out at once.
pub const HEARINGS: usize = 8;

/// The routes.
pub fn routes() -> OpenApiRouter<Api> {
    OpenApiRouter::new().routes(routes!(get)).routes(routes!(audio))
}

async fn find(
    api: &Api,
    caller: &Caller,
    id: &str,
    right: Right,
) -> Result<(StoredRecording, PathBuf), Problem> {
    caller.may(right)?;
    let (id, reach) = (id.to_owned(), caller.token.reach());
    let found = api.store(move |store| {
        let Some((recording, path)) = store.recording(&id)? else {
            return Ok(None);
        };
        let visible = reach.map_or(Ok(true), |reach| store.within_reach(recording.session, &reach))?;
        Ok(visible.then_some((recording, path)))
    });
    found.await?.ok_or_else(|| Problem::not_found("recording"))
}

/// A recording's figures.
#[utoipa::path(get, path = "/recordings/{id}", tag = "recordings", params(("id" = String, Path)), responses(
    (status = 200, description = "The recording.", body = RecordingView),
))]
async fn get(
    Shared(api): Shared<Api>,
    Extension(caller): Extension<Caller>,
    Path(id): Path<String>,
) -> Result<Json<RecordingView>, Problem> {
    Ok(Json(find(&api, &caller, &id, Right::Read).await?.0.into()))
}

/// Its sound as FLAC: left the caller, right the attendant.
#[utoipa::path(get, path = "/recordings/{id}/audio", tag = "recordings", params(("id" = String, Path)), responses(
    (status = 200, description = "All of it.", body = String, content_type = "audio/flac"),
    (status = 206, description = "The range asked for.", body = String, content_type = "audio/flac"),
    (status = 416, description = "It is not that long.", body = Problem, content_type = "application/problem+json"),
))]
async fn audio(
    Shared(api): Shared<Api>,
    Extension(caller): Extension<Caller>,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let (recording, path) = find(&api, &caller, &id, Right::Listen).await?;
    if recording.state != "sealed" {
        return Err(Problem::conflict(
            "not-sealed",
            format!(
                "this recording is {}; only sealed ones can be heard",
                recording.state
            ),
        ));
    }
    let room = api
        .shared
        .hearings
        .clone()
        .try_acquire_owned()
        .map_err(|_| Problem::unavailable("busy", "too many recordings are being heard", 5))?;
    let key = MasterKey::new(api.store(|store| store.recordings_key()).await?);
    let (measured, of) = (path.clone(), key.clone());
    let octets = tokio::task::spawn_blocking(move || {
        let mut counter = Counter(0);
        attendant_record::export(&measured, &of, &mut counter).map(|_| counter.0)
    });
    let octets = octets.await.map_err(|_| Problem::internal())?.map_err(|error| {
        tracing::error!(%error, "a recording cannot be read");
        Problem::internal()
    })?;
    let tag = format!("\"{}\"", recording.sha256.clone().unwrap_or_default());
    let mut response = Response::new(Body::empty());
    let range = match wanted(&headers, &tag, octets) {
        Wanted::All => 0..octets,
        Wanted::Part(range) => {
            *response.status_mut() = StatusCode::PARTIAL_CONTENT;
            let part = format!("bytes {}-{}/{octets}", range.start, range.end - 1);
            insert(&mut response, header::CONTENT_RANGE, &part);
            range
        }
        Wanted::Beyond => {
            let mut response = axum::response::IntoResponse::into_response(Problem::new(
                StatusCode::RANGE_NOT_SATISFIABLE,
                "range-not-satisfiable",
                format!("it has {octets} octets"),
            ));
            insert(&mut response, header::CONTENT_RANGE, &format!("bytes */{octets}"));
            return Ok(response);
        }
    };
    insert(
        &mut response,
        header::CONTENT_LENGTH,
        &(range.end - range.start).to_string(),
    );
    insert(&mut response, header::CONTENT_TYPE, "audio/flac");
    insert(&mut response, header::ACCEPT_RANGES, "bytes");
    insert(&mut response, header::ETAG, &tag);
    let hearing = json!({ "what": "recording", "recording": recording.uuid, "token": caller.token.id });
    let begun = api
        .store(move |store| {
            store.audit_begin(
                AuditKind::Export,
                Some(recording.session),
                &hearing,
                clock::unix_ms(),
            )
        })
        .await?;
    let (pieces, sent) = mpsc::channel(PIECES);
    let store = api.running.house.store.clone();
    tokio::task::spawn_blocking(move || hand_out(&store, begun, &path, &key, range, pieces, room));
    *response.body_mut() = Body::from_stream(futures_util::stream::unfold(sent, |mut sent| async move {
        let piece: Option<Result<Bytes, io::Error>> = sent.recv().await;
        piece.map(|piece| (piece, sent))
    }));
    Ok(response)
}

fn insert(response: &mut Response, name: HeaderName, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        response.headers_mut().insert(name, value);
    }
}

fn hand_out(
    store: &Store,
    begun: attendant_store::AuditSeq,
    path: &std::path::Path,
    key: &MasterKey,
    range: Range<u64>,
    pieces: mpsc::Sender<Result<Bytes, io::Error>>,
    room: OwnedSemaphorePermit,
) {
    let mut window = Window {
        at: 0,
        range,
        piece: Vec::with_capacity(PIECE),
        pieces,
        gone: false,
    };
    let exported = attendant_record::export(path, key, &mut window).map(drop);
    let whole = window.at >= window.range.end && window.flush().is_ok() && !window.gone;
    if let (Err(error), false) = (&exported, whole) {
        tracing::debug!(%error, "a recording was not heard to its end");
    }
    let end = if whole { AuditEnd::Complete } else { AuditEnd::Fail };
    drop(room);
    if let Err(error) = store.audit_end(begun, end, &json!({}), clock::unix_ms()) {
        tracing::error!(%error, "the audit chain could not be written");
    }
}

/// Counts what is written.
struct Counter(u64);

impl Write for Counter {
    fn write(&mut self, octets: &[u8]) -> io::Result<usize> {
        self.0 += octets.len() as u64;
        Ok(octets.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Lets a range of what is written through, in pieces; an error behind it ends the writing.
struct Window {
    at: u64,
    range: Range<u64>,
    piece: Vec<u8>,
    pieces: mpsc::Sender<Result<Bytes, io::Error>>,
    /// Nobody listens any more.
    gone: bool,
}

impl Window {
    fn hand_on(&mut self) -> io::Result<()> {
        if self.piece.is_empty() {
            return Ok(());
        }
        let piece = Bytes::from(std::mem::take(&mut self.piece));
        self.gone |= self.pieces.blocking_send(Ok(piece)).is_err();
        if self.gone {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        Ok(())
    }
}

impl Write for Window {
    fn write(&mut self, octets: &[u8]) -> io::Result<usize> {
        let (from, to) = (self.at, self.at + octets.len() as u64);
        if from >= self.range.end {
            self.hand_on()?;
            return Err(io::ErrorKind::WriteZero.into());
        }
        let skipped = self.range.start.saturating_sub(from).min(octets.len() as u64) as usize;
        let end = (self.range.end.min(to) - from) as usize;
        self.piece
            .extend_from_slice(octets.get(skipped..end).unwrap_or_default());
        self.at = to;
        if self.piece.len() >= PIECE {
            self.hand_on()?;
        }
        Ok(octets.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.hand_on()
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Wanted {
    All,
    Part(Range<u64>),
    Beyond,
}

/// What a request wants of so many octets. Several ranges, other units and nonsense are answered with all of it, as
/// RFC 9110 §14.2 allows.
fn wanted(headers: &HeaderMap, tag: &str, octets: u64) -> Wanted {
    let text = |name| {
        headers
            .get(name)
            .and_then(|value: &HeaderValue| value.to_str().ok())
    };
    // If-Range: of another recording's state a part would be of no use.
    if text(header::IF_RANGE).is_some_and(|known| known != tag) {
        return Wanted::All;
    }
    let Some(range) = text(header::RANGE).and_then(|range| range.strip_prefix("bytes=")) else {
        return Wanted::All;
    };
    let Some((first, last)) = range.trim().split_once('-') else {
        return Wanted::All;
    };
    let number = |digits: &str| -> Option<u64> {
        let all = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit());
        all.then(|| digits.parse().unwrap_or(u64::MAX))
    };
    match (number(first), number(last)) {
        (Some(first), _) if first >= octets && (last.is_empty() || number(last).is_some()) => Wanted::Beyond,
        (Some(first), Some(last)) if first <= last => Wanted::Part(first..last.saturating_add(1).min(octets)),
        (Some(first), None) if last.is_empty() => Wanted::Part(first..octets),
        (None, Some(0)) if first.is_empty() => Wanted::Beyond,
        (None, Some(suffix)) if first.is_empty() => Wanted::Part(octets.saturating_sub(suffix)..octets),
        _ => Wanted::All,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_read_as_the_rfc_says() {
        for (range, want) in [
            ("bytes=0-9", Wanted::Part(0..10)),
            ("bytes=90-200", Wanted::Part(90..100)),
            ("bytes=99-", Wanted::Part(99..100)),
            ("bytes=-10", Wanted::Part(90..100)),
            ("bytes=-1000", Wanted::Part(0..100)),
            ("bytes=100-", Wanted::Beyond),
            ("bytes=100-120", Wanted::Beyond),
            ("bytes=-0", Wanted::Beyond),
            ("bytes=99999999999999999999999-", Wanted::Beyond),
            ("bytes=5-2", Wanted::All),
            ("bytes=0-1,5-6", Wanted::All),
            ("lines=0-1", Wanted::All),
            ("bytes=", Wanted::All),
            ("bytes=a-b", Wanted::All),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(header::RANGE, HeaderValue::from_static(range));
            assert_eq!(wanted(&headers, "\"a\"", 100), want, "{range}");
            headers.insert(header::IF_RANGE, HeaderValue::from_static("\"b\""));
            assert_eq!(wanted(&headers, "\"a\"", 100), Wanted::All, "{range}");
        }
        assert_eq!(wanted(&HeaderMap::new(), "", 100), Wanted::All);
    }

    #[test]
    fn a_window_lets_exactly_its_range_through() {
        let all: Vec<u8> = (0..200).collect();
        for range in [0..200, 0..1, 3..150, 199..200, 64..65] {
            for step in [1, 7, 64, 200] {
                let (pieces, mut sent) = mpsc::channel(PIECES);
                let mut window = Window {
                    at: 0,
                    range: range.clone(),
                    piece: Vec::new(),
                    pieces,
                    gone: false,
                };
                for part in all.chunks(step) {
                    if window.write(part).is_err() {
                        break;
                    }
                }
                window.flush().expect("flush");
                drop(window);
                let mut got = Vec::new();
                while let Some(piece) = sent.blocking_recv() {
                    got.extend_from_slice(&piece.expect("piece"));
                }
                assert_eq!(
                    got,
                    all[range.start as usize..range.end as usize],
                    "{range:?} by {step}"
                );
            }
        }
    }
}
