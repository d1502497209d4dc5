//! Sessions driven by another program.
//!
//! ```text
//! POST /sessions ─> prepare ─> start ─> speech, turns, heartbeat … ─> end        (retry, within 10 minutes of an abrupt end)
//! ```
//! Without a sign of life (any request of these) for 90 s a session expires. Its timebox is a task of its own: warnings are
//! noted and spoken with the next reply, and at its end the session is terminated.

use attendant_store::{
    Context, Direction, Driver, NewSession, NewTurn, Opened, Outcome, Session, SessionId, State, Store,
};
use axum::{
    Extension, Json,
    extract::{Path, State as Shared},
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    Api, Problem,
    access::{Caller, Right},
    fields,
    views::SessionView,
};
use crate::clock;

/// Which line a session came by when its program does not say.
const LINE: &str = "api";

/// The routes.
pub fn routes() -> OpenApiRouter<Api> {
    OpenApiRouter::new()
        .routes(routes!(create))
        .routes(routes!(get))
        .routes(routes!(prepare))
        .routes(routes!(start))
        .routes(routes!(heartbeat))
        .routes(routes!(add_turn))
        .routes(routes!(end))
        .routes(routes!(retry))
}

/// A session to be made.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
pub struct NewSessionBody {
    /// Whose matter it is; a case has one session at a time.
    #[schema(min_length = 1, max_length = 200)]
    #[serde(deserialize_with = "fields::maybe_text::<_, 1, 200>")]
    case: Option<String>,
    /// Which line it comes by.
    #[schema(min_length = 1, max_length = 100)]
    #[serde(deserialize_with = "fields::maybe_text::<_, 1, 100>")]
    line: Option<String>,
    /// Who calls.
    #[schema(min_length = 1, max_length = 200)]
    #[serde(deserialize_with = "fields::maybe_text::<_, 1, 200>")]
    caller: Option<String>,
    /// The number dialled.
    #[schema(min_length = 1, max_length = 200)]
    #[serde(deserialize_with = "fields::maybe_text::<_, 1, 200>")]
    callee: Option<String>,
    /// Most turns.
    #[schema(minimum = 1, maximum = 10000)]
    #[serde(deserialize_with = "fields::maybe_whole::<_, 1, 10000>")]
    max_turns: Option<u64>,
}

/// What the attendant is told before the call.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PrepareBody {
    /// Sealed as it is, by its SHA-256; the language model reads its first 1500 characters.
    #[schema(min_length = 1, max_length = 200000, pattern = r"[^\s\x00]")]
    #[serde(deserialize_with = "fields::saying::<_, 200000>")]
    context: String,
    /// Version of the context's form.
    #[schema(minimum = 1, maximum = 1000000)]
    #[serde(default, deserialize_with = "fields::maybe_whole::<_, 1, 1000000>")]
    context_version: Option<u64>,
    /// The session's version as last read; without it the present one.
    #[schema(minimum = 1, maximum = 1000000)]
    #[serde(default, deserialize_with = "fields::maybe_whole::<_, 1, 1000000>")]
    if_version: Option<u64>,
}

/// A turn that another program had.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewTurnBody {
    /// What the caller said.
    #[schema(max_length = 16000)]
    #[serde(deserialize_with = "fields::text::<_, 0, 16000>")]
    caller_text: String,
    /// The reply.
    #[schema(max_length = 16000)]
    #[serde(deserialize_with = "fields::text::<_, 0, 16000>")]
    reply_text: String,
    /// Of an interrupted reply: what was heard of it.
    #[schema(max_length = 16000)]
    #[serde(default, deserialize_with = "fields::maybe_text::<_, 0, 16000>")]
    heard_text: Option<String>,
}

/// A turn's number.
#[derive(Debug, Serialize, ToSchema)]
pub struct TurnTaken {
    /// 1, 2, 3 … without gap.
    pub number: u32,
}

/// How a session ends.
#[derive(Debug, Clone, Copy, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum EndOutcome {
    /// As it should.
    Completed,
    /// Before its time.
    Terminated,
    /// By a fault.
    Failed,
}

/// The end.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct EndBody {
    /// How.
    outcome: EndOutcome,
    /// Why.
    #[schema(min_length = 1, max_length = 400)]
    #[serde(default, deserialize_with = "fields::maybe_text::<_, 1, 400>")]
    reason: Option<String>,
}

/// Where the timebox stands.
#[derive(Debug, Serialize, ToSchema)]
pub struct Alive {
    /// Until the session is ended by its timebox [s]; absent before its start.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub remaining_s: Option<u64>,
}

fn located(status: StatusCode, view: SessionView) -> Response {
    let location = format!("/api/v1/sessions/{}", view.id);
    (status, [(header::LOCATION, location)], Json(view)).into_response()
}

/// A session as it is now.
pub fn read(store: &Store, session: SessionId) -> Result<Session, attendant_store::StoreError> {
    store.session_head(session)
}

impl Api {
    /// A session that this caller may drive.
    pub(super) async fn driven(&self, caller: &Caller, uuid: &str) -> Result<SessionId, Problem> {
        let session = caller.session(self, uuid, Right::Drive).await?;
        if !self.store(move |store| store.is_driven(session)).await? {
            return Err(Problem::conflict(
                "not-driven",
                "this session is kept by a telephone line or a stream, not by the API",
            ));
        }
        Ok(session)
    }

    pub(super) async fn view(&self, session: SessionId) -> Result<SessionView, Problem> {
        Ok(self.store(move |store| read(store, session)).await?.into())
    }

    fn new_session(&self, body: NewSessionBody) -> NewSession {
        let running = &self.running;
        NewSession {
            line: body.line.unwrap_or_else(|| LINE.to_owned()),
            direction: Direction::Inbound,
            caller: body.caller,
            callee: body.callee,
            call_id: None,
            profile: running.profile.clone(),
            stt_model: Some(running.models.stt.id.clone()),
            llm_model: Some(running.models.llm.id.clone()),
            voice: Some(running.models.voice.id.clone()),
            case: body.case,
            max_turns: body.max_turns.and_then(|most| u32::try_from(most).ok()),
            driver: Driver::Api,
            created_at_ms: clock::unix_ms(),
        }
    }
}

/// Make a session, or get the one of its case that has not ended.
#[utoipa::path(post, path = "/sessions", tag = "sessions", request_body = NewSessionBody, responses(
    (status = 201, description = "It was made.", body = SessionView, headers(("Location" = String))),
    (status = 200, description = "The case has one that has not ended.", body = SessionView, headers(("Location" = String))),
))]
async fn create(
    Shared(api): Shared<Api>,
    Extension(caller): Extension<Caller>,
    Json(body): Json<NewSessionBody>,
) -> Result<Response, Problem> {
    caller.may_begin(body.case.as_deref())?;
    let new = api.new_session(body);
    let (token, reach, most) = (caller.token.id, caller.token.reach(), api.config().max_sessions);
    let (session, status) = api
        .store(move |store| {
            let (key, opened) = store.open_owned(&new, token, most)?;
            let status = match opened {
                Opened::New => StatusCode::CREATED,
                Opened::Active => StatusCode::OK,
            };
            let visible = reach.map_or(Ok(true), |reach| store.within_reach(key.id, &reach))?;
            Ok(visible.then_some((read(store, key.id)?, status)))
        })
        .await?
        .ok_or_else(|| Problem::conflict("case-active", "another program has a session of this case"))?;
    Ok(located(status, session.into()))
}

/// A session as it is now.
#[utoipa::path(get, path = "/sessions/{id}", tag = "sessions", params(("id" = String, Path)), responses(
    (status = 200, description = "The session.", body = SessionView),
))]
async fn get(
    Shared(api): Shared<Api>,
    Extension(caller): Extension<Caller>,
    Path(id): Path<String>,
) -> Result<Json<SessionView>, Problem> {
    let session = caller.session(&api, &id, Right::Read).await?;
    Ok(Json(api.view(session).await?))
}

/// Seal what the attendant is told before the call; the session is then ready.
#[utoipa::path(post, path = "/sessions/{id}/prepare", tag = "sessions", params(("id" = String, Path)),
    request_body = PrepareBody, responses(
    (status = 200, description = "It is ready.", body = SessionView),
))]
async fn prepare(
    Shared(api): Shared<Api>,
    Extension(caller): Extension<Caller>,
    Path(id): Path<String>,
    Json(body): Json<PrepareBody>,
) -> Result<Json<SessionView>, Problem> {
    let session = api.driven(&caller, &id).await?;
    let context = Context {
        version: body.context_version.unwrap_or(1) as u32,
        content: body.context,
    };
    let view = api.store(move |store| {
        let version = match body.if_version {
            Some(version) => version,
            None => read(store, session)?.version,
        };
        store.prepare(session, version, &context, clock::unix_ms())?;
        store.heartbeat(session, clock::unix_ms())?;
        read(store, session)
    });
    Ok(Json(view.await?.into()))
}

/// Begin to take turns.
#[utoipa::path(post, path = "/sessions/{id}/start", tag = "sessions", params(("id" = String, Path)), responses(
    (status = 200, description = "It is in progress.", body = SessionView),
))]
async fn start(
    Shared(api): Shared<Api>,
    Extension(caller): Extension<Caller>,
    Path(id): Path<String>,
) -> Result<Json<SessionView>, Problem> {
    let session = api.driven(&caller, &id).await?;
    let view = api
        .store(move |store| {
            let version = read(store, session)?.version;
            store.transition(session, version, State::InProgress, None, clock::unix_ms())?;
            store.heartbeat(session, clock::unix_ms())?;
            read(store, session)
        })
        .await?;
    api.shared.timeboxes.begin(&api, session);
    Ok(Json(view.into()))
}

/// Give a sign of life.
#[utoipa::path(post, path = "/sessions/{id}/heartbeat", tag = "sessions", params(("id" = String, Path)), responses(
    (status = 200, description = "It was noted.", body = Alive),
))]
async fn heartbeat(
    Shared(api): Shared<Api>,
    Extension(caller): Extension<Caller>,
    Path(id): Path<String>,
) -> Result<Json<Alive>, Problem> {
    let session = api.driven(&caller, &id).await?;
    api.store(move |store| store.heartbeat(session, clock::unix_ms()))
        .await?;
    let remaining_s = api.shared.timeboxes.remaining_s(session);
    Ok(Json(Alive { remaining_s }))
}

/// Record a turn that the program had by itself.
#[utoipa::path(post, path = "/sessions/{id}/turns", tag = "sessions", params(("id" = String, Path)),
    request_body = NewTurnBody, responses(
    (status = 201, description = "It was recorded.", body = TurnTaken),
))]
async fn add_turn(
    Shared(api): Shared<Api>,
    Extension(caller): Extension<Caller>,
    Path(id): Path<String>,
    Json(body): Json<NewTurnBody>,
) -> Result<(StatusCode, Json<TurnTaken>), Problem> {
    let session = api.driven(&caller, &id).await?;
    let turn = NewTurn {
        at_ms: clock::unix_ms(),
        caller_text: body.caller_text,
        reply_text: body.reply_text,
        interrupted: body.heard_text.is_some(),
        heard_text: body.heard_text,
        ..NewTurn::default()
    };
    let number = api
        .store(move |store| {
            let number = store.append_turn(session, &turn)?;
            store.heartbeat(session, clock::unix_ms())?;
            Ok(number)
        })
        .await?;
    let number = number.get();
    Ok((StatusCode::CREATED, Json(TurnTaken { number })))
}

/// End a session.
#[utoipa::path(post, path = "/sessions/{id}/end", tag = "sessions", params(("id" = String, Path)),
    request_body = EndBody, responses(
    (status = 200, description = "It has ended.", body = SessionView),
))]
async fn end(
    Shared(api): Shared<Api>,
    Extension(caller): Extension<Caller>,
    Path(id): Path<String>,
    Json(body): Json<EndBody>,
) -> Result<Json<SessionView>, Problem> {
    let session = api.driven(&caller, &id).await?;
    let outcome = match body.outcome {
        EndOutcome::Completed => Outcome::Completed,
        EndOutcome::Terminated => Outcome::Terminated,
        EndOutcome::Failed => Outcome::Failed,
    };
    let reason = body.reason.filter(|reason| !reason.replace('\0', "").is_empty());
    let view = api.store(move |store| {
        let reason = reason.as_deref().unwrap_or("ended by its program");
        store.finish_session(session, outcome, reason, clock::unix_ms())?;
        read(store, session)
    });
    let view = view.await?;
    api.shared.timeboxes.cancel(session);
    Ok(Json(view.into()))
}

/// Try again what ended abruptly less than 10 minutes ago: a new session.
#[utoipa::path(post, path = "/sessions/{id}/retry", tag = "sessions", params(("id" = String, Path)), responses(
    (status = 201, description = "The new session.", body = SessionView, headers(("Location" = String))),
))]
async fn retry(
    Shared(api): Shared<Api>,
    Extension(caller): Extension<Caller>,
    Path(id): Path<String>,
) -> Result<Response, Problem> {
    let session = api.driven(&caller, &id).await?;
    let (token, most) = (caller.token.id, api.config().max_sessions);
    let view = api.store(move |store| {
        let key = store.retry_owned(session, token, most, clock::unix_ms())?;
        read(store, key.id)
    });
    Ok(located(StatusCode::CREATED, view.await?.into()))
}
