//! Calls: the history of all sessions, however they came, page by page.

use attendant_store::{Cursor, HistoryFilter};
use axum::{
    Extension, Json,
    extract::{Path, Query, State as Shared},
    http::StatusCode,
};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    Api, Problem,
    access::{Caller, Right},
    fields::{self, MAX_TIME},
    views::{EventView, RecordingView, SessionState, SessionView, TurnView},
};

/// Calls on a page when nothing else is said.
const PAGE: u64 = 50;

/// The routes.
pub fn routes() -> OpenApiRouter<Api> {
    OpenApiRouter::new()
        .routes(routes!(list))
        .routes(routes!(get))
        .routes(routes!(turns))
        .routes(routes!(events))
        .routes(routes!(recordings))
}

/// Which calls; all that is given must be true of one.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(default, deny_unknown_fields)]
pub struct Wanted {
    /// Where they stand.
    #[param(inline)]
    state: Option<SessionState>,
    /// The line.
    #[param(min_length = 1, max_length = 200)]
    #[serde(deserialize_with = "fields::maybe_text::<_, 1, 200>")]
    line: Option<String>,
    /// The caller's whole number, as stored.
    #[param(min_length = 1, max_length = 200)]
    #[serde(deserialize_with = "fields::maybe_text::<_, 1, 200>")]
    caller: Option<String>,
    /// Whose matter it is.
    #[param(min_length = 1, max_length = 200)]
    #[serde(deserialize_with = "fields::maybe_text::<_, 1, 200>")]
    case: Option<String>,
    /// Words that all stand in one turn; `*` behind the last one: what begins so.
    #[param(min_length = 1, max_length = 200)]
    #[serde(deserialize_with = "fields::maybe_text::<_, 1, 200>")]
    words: Option<String>,
    /// Created at or after [Unix ms].
    #[param(minimum = 0, maximum = 253402300799999_i64)]
    #[serde(deserialize_with = "fields::maybe_within::<_, 0, MAX_TIME>")]
    from_ms: Option<u64>,
    /// Created before [Unix ms].
    #[param(minimum = 0, maximum = 253402300799999_i64)]
    #[serde(deserialize_with = "fields::maybe_within::<_, 0, MAX_TIME>")]
    to_ms: Option<u64>,
    /// Calls on the page; 50 when absent.
    #[param(minimum = 1, maximum = 200)]
    #[serde(deserialize_with = "fields::maybe_within::<_, 1, 200>")]
    limit: Option<u64>,
    /// `next` of the page before.
    #[param(pattern = r"^[0-9]{1,15}\.[0-9]{1,15}$")]
    cursor: Option<String>,
}

/// Some calls, newest first.
#[derive(Debug, Serialize, ToSchema)]
pub struct CallPage {
    /// The calls.
    calls: Vec<SessionView>,
    /// `cursor` of the next page; absent on the last.
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<String>,
}

/// Which turns.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(default, deny_unknown_fields)]
pub struct WantedTurns {
    /// Only those behind this number.
    #[param(minimum = 0, maximum = 1000000)]
    #[serde(deserialize_with = "fields::maybe_within::<_, 0, 1000000>")]
    after: Option<u64>,
    /// Turns on the page; 50 when absent.
    #[param(minimum = 1, maximum = 200)]
    #[serde(deserialize_with = "fields::maybe_within::<_, 1, 200>")]
    limit: Option<u64>,
}

/// Some turns, by number.
#[derive(Debug, Serialize, ToSchema)]
pub struct TurnPage {
    /// The turns.
    turns: Vec<TurnView>,
    /// `after` of the next page; absent on the last.
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<u32>,
}

/// What happened beside the turns, in order.
#[derive(Debug, Serialize, ToSchema)]
pub struct EventList {
    /// The events.
    events: Vec<EventView>,
}

/// The recordings of a call.
#[derive(Debug, Serialize, ToSchema)]
pub struct RecordingList {
    /// The recordings.
    recordings: Vec<RecordingView>,
}

/// A cursor as this API gave it.
fn cursor(text: &str) -> Option<Cursor> {
    let digits = |part: &str| (1..=15).contains(&part.len()) && part.bytes().all(|b| b.is_ascii_digit());
    let (at, id) = text.split_once('.')?;
    (digits(at) && digits(id)).then(|| Cursor::parse(text)).flatten()
}

/// Calls, newest first, by what is known of them or by what was said.
#[utoipa::path(get, path = "/calls", tag = "calls", params(Wanted), responses(
    (status = 200, description = "A page.", body = CallPage),
))]
async fn list(
    Shared(api): Shared<Api>,
    Extension(caller): Extension<Caller>,
    Query(wanted): Query<Wanted>,
) -> Result<Json<CallPage>, Problem> {
    caller.may(Right::Read)?;
    let after = match wanted.cursor.as_deref() {
        None => None,
        Some(text) => Some(cursor(text).ok_or_else(|| {
            Problem::new(
                StatusCode::BAD_REQUEST,
                "malformed-request",
                "cursor: wanted is the `next` of a page before",
            )
        })?),
    };
    let filter = HistoryFilter {
        state: wanted.state.map(Into::into),
        line: wanted.line,
        caller: wanted.caller,
        from_ms: wanted.from_ms.map(u64::cast_signed),
        to_ms: wanted.to_ms.map(u64::cast_signed),
        words: wanted.words,
        case: wanted.case,
        reach: caller.token.reach(),
    };
    let limit = wanted.limit.unwrap_or(PAGE) as u32;
    let page = api
        .store(move |store| store.history(&filter, after, limit))
        .await?;
    Ok(Json(CallPage {
        calls: page.sessions.into_iter().map(Into::into).collect(),
        next: page.next.map(|next| next.text()),
    }))
}

/// A call.
#[utoipa::path(get, path = "/calls/{id}", tag = "calls", params(("id" = String, Path)), responses(
    (status = 200, description = "The call.", body = SessionView),
))]
async fn get(
    Shared(api): Shared<Api>,
    Extension(caller): Extension<Caller>,
    Path(id): Path<String>,
) -> Result<Json<SessionView>, Problem> {
    let session = caller.session(&api, &id, Right::Read).await?;
    Ok(Json(api.view(session).await?))
}

/// What was said in a call.
#[utoipa::path(get, path = "/calls/{id}/turns", tag = "calls", params(("id" = String, Path), WantedTurns), responses(
    (status = 200, description = "A page.", body = TurnPage),
))]
async fn turns(
    Shared(api): Shared<Api>,
    Extension(caller): Extension<Caller>,
    Path(id): Path<String>,
    Query(wanted): Query<WantedTurns>,
) -> Result<Json<TurnPage>, Problem> {
    let session = caller.session(&api, &id, Right::Read).await?;
    let (after, limit) = (
        wanted.after.unwrap_or(0) as u32,
        wanted.limit.unwrap_or(PAGE) as u32,
    );
    let mut turns = api
        .store(move |store| store.turns(session, after, limit + 1))
        .await?;
    let more = turns.len() > limit as usize;
    turns.truncate(limit as usize);
    let next = turns.last().filter(|_| more).map(|turn| turn.number.get());
    let turns = turns.into_iter().map(Into::into).collect();
    Ok(Json(TurnPage { turns, next }))
}

/// What happened in a call beside its turns.
#[utoipa::path(get, path = "/calls/{id}/events", tag = "calls", params(("id" = String, Path)), responses(
    (status = 200, description = "The events, at most 1000.", body = EventList),
))]
async fn events(
    Shared(api): Shared<Api>,
    Extension(caller): Extension<Caller>,
    Path(id): Path<String>,
) -> Result<Json<EventList>, Problem> {
    let session = caller.session(&api, &id, Right::Read).await?;
    let events = api.store(move |store| Ok(store.session(session)?.events)).await?;
    let events = events.into_iter().map(Into::into).collect();
    Ok(Json(EventList { events }))
}

/// The recordings of a call.
#[utoipa::path(get, path = "/calls/{id}/recordings", tag = "calls", params(("id" = String, Path)), responses(
    (status = 200, description = "Its recordings.", body = RecordingList),
))]
async fn recordings(
    Shared(api): Shared<Api>,
    Extension(caller): Extension<Caller>,
    Path(id): Path<String>,
) -> Result<Json<RecordingList>, Problem> {
    let session = caller.session(&api, &id, Right::Read).await?;
    let recordings = api.store(move |store| store.recordings(session)).await?;
    let recordings = recordings.into_iter().map(Into::into).collect();
    Ok(Json(RecordingList { recordings }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_is_what_a_page_gave() {
        assert!(cursor("1760000000000.12").is_some());
        for bad in [
            "",
            "1",
            "1.",
            ".1",
            "-1.2",
            "+1.2",
            "1.2.3",
            "1234567890123456.1",
            "a.b",
        ] {
            assert!(cursor(bad).is_none(), "{bad}");
        }
    }
}
