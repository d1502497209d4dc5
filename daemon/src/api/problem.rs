//! Problem: every error of the API in one form, and the one table from errors to HTTP.
//!
//! Source: RFC 9457 (problem details), RFC 9110 §15 (status codes). What axum itself refuses (unknown paths, wrong methods,
//! bodies that are too long or no JSON) is put into the same form by [`translate`].

use attendant_models::client::EngineError;
use attendant_store::StoreError;
use axum::{
    body::Body,
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde::Serialize;
use utoipa::ToSchema;

/// Media type of a problem.
pub const PROBLEM_JSON: &str = "application/problem+json";
/// Longest text of axum's own that is taken over [octets].
const MAX_DETAIL: usize = 2_000;

/// What went wrong, and what would be accepted.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct Problem {
    /// Names the kind of problem: `urn:attendant:problem:…`.
    #[serde(rename = "type")]
    pub kind: String,
    /// The same for people.
    pub title: String,
    /// HTTP status.
    pub status: u16,
    /// What it was this time, and what to do.
    pub detail: String,
    /// When to try again [s].
    #[serde(skip)]
    pub retry_after_s: Option<u32>,
}

impl Problem {
    /// A problem of this kind; `kind` is a word with hyphens, of which the title is made.
    pub fn new(status: StatusCode, kind: &str, detail: impl Into<String>) -> Self {
        let mut title = kind.replace('-', " ");
        if let Some(first) = title.get_mut(..1) {
            first.make_ascii_uppercase();
        }
        Self {
            kind: format!("urn:attendant:problem:{kind}"),
            title,
            status: status.as_u16(),
            detail: detail.into(),
            retry_after_s: None,
        }
    }

    /// Nothing of that name, or nothing that this token may see.
    pub fn not_found(what: &str) -> Self {
        Self::new(
            StatusCode::NOT_FOUND,
            "not-found",
            format!("there is no such {what}, or this token may not see it"),
        )
    }

    /// The state of things does not allow it.
    pub fn conflict(kind: &str, detail: impl Into<String>) -> Self {
        Self::new(StatusCode::CONFLICT, kind, detail)
    }

    /// Understood, but it makes no sense.
    pub fn invalid(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, "invalid-content", detail)
    }

    /// This role may not.
    pub fn forbidden(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::FORBIDDEN, "forbidden", detail)
    }

    /// Not now.
    pub fn unavailable(kind: &str, detail: impl Into<String>, retry_after_s: u32) -> Self {
        Self {
            retry_after_s: Some(retry_after_s),
            ..Self::new(StatusCode::SERVICE_UNAVAILABLE, kind, detail)
        }
    }

    /// Too often.
    pub fn too_many(detail: impl Into<String>, retry_after_s: u32) -> Self {
        Self {
            retry_after_s: Some(retry_after_s),
            ..Self::new(StatusCode::TOO_MANY_REQUESTS, "too-many-requests", detail)
        }
    }

    /// A fault of ours; the log knows more.
    pub fn internal() -> Self {
        Self::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "internal",
            "the request could not be handled; the log says why, under this X-Request-Id",
        )
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let body = serde_json::to_vec(&self).unwrap_or_default();
        let mut response = (status, [(header::CONTENT_TYPE, PROBLEM_JSON)], body).into_response();
        if let Some(seconds) = self.retry_after_s {
            response
                .headers_mut()
                .insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        if status == StatusCode::UNAUTHORIZED {
            response
                .headers_mut()
                .insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}

impl From<StoreError> for Problem {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::NotFound(_) => Self::not_found("session"),
            StoreError::NoRecording { .. } => Self::not_found("recording"),
            StoreError::Conflict { expected, found, .. } => Self::conflict(
                "version-conflict",
                format!("the session has version {found}, not {expected}: read it again and decide anew"),
            ),
            StoreError::Final { state, .. } => Self::conflict(
                "session-ended",
                format!("the session has ended ({state}), and stays so"),
            ),
            StoreError::Illegal { from, to, .. } => {
                Self::conflict("no-such-step", format!("a session cannot go from {from} to {to}"))
            }
            StoreError::NotInProgress { state, .. } => Self::conflict(
                "session-not-in-progress",
                format!("turns are taken while a session is in progress; it is {state}"),
            ),
            StoreError::CaseActive { .. } => Self::conflict(
                "case-active",
                "a session of the same case has not ended; there is one at a time",
            ),
            StoreError::TooManyTurns { max_turns, .. } => Self::conflict(
                "too-many-turns",
                format!("the session has had all of its {max_turns} turns"),
            ),
            StoreError::NoRetry { why, .. } => {
                Self::conflict("no-retry", format!("the session cannot be tried again: {why}"))
            }
            StoreError::TooManySessions { most } => Self::conflict(
                "too-many-sessions",
                format!("{most} sessions are active, which is as many as there may be; end one"),
            ),
            StoreError::StreamEnded { state } => Self::conflict(
                "stream-ended",
                format!("the call takes no more packets: it is {state}"),
            ),
            StoreError::StreamFull => {
                Self::conflict("stream-full", "the call has as much sound as it may have")
            }
            StoreError::EmptyContext { .. } => {
                Self::invalid("the context says nothing; the session has failed because of it")
            }
            StoreError::NoReason { state, .. } => {
                Self::invalid(format!("a session ends as {state} with a reason"))
            }
            StoreError::DiskFull => {
                Self::unavailable("disk-full", "the disk is full; nothing was written", 60)
            }
            error => {
                tracing::error!(%error, "the record refused a request");
                Self::internal()
            }
        }
    }
}

impl From<EngineError> for Problem {
    fn from(error: EngineError) -> Self {
        tracing::warn!(%error, "an engine did not answer a request");
        Self::unavailable(
            "engine-unavailable",
            "an engine is busy or being restarted; try again",
            5,
        )
    }
}

/// Puts errors that are not ours into our form; headers such as `Allow` stay.
pub async fn translate(response: Response) -> Response {
    let status = response.status();
    let ours = response
        .headers()
        .get(header::CONTENT_TYPE)
        .is_some_and(|kind| kind.as_bytes().starts_with(PROBLEM_JSON.as_bytes()));
    if ours || !(status.is_client_error() || status.is_server_error()) {
        return response;
    }
    let (parts, body) = response.into_parts();
    let text = axum::body::to_bytes(body, MAX_DETAIL).await.unwrap_or_default();
    let text = String::from_utf8_lossy(&text).into_owned();
    let (kind, otherwise) = match status {
        StatusCode::BAD_REQUEST => ("malformed-request", "the request cannot be read"),
        StatusCode::NOT_FOUND => (
            "not-found",
            "there is nothing at this path; see /api/v1/openapi.json",
        ),
        StatusCode::METHOD_NOT_ALLOWED => (
            "method-not-allowed",
            "see the Allow header for what can be done here",
        ),
        StatusCode::PAYLOAD_TOO_LARGE => ("content-too-large", "the body is longer than is taken here"),
        StatusCode::UNSUPPORTED_MEDIA_TYPE => (
            "unsupported-media-type",
            "see /api/v1/openapi.json for what is taken",
        ),
        StatusCode::UNPROCESSABLE_ENTITY => ("invalid-content", "see /api/v1/openapi.json for what is taken"),
        StatusCode::UPGRADE_REQUIRED => ("upgrade-required", "this path is for WebSockets"),
        _ if status.is_client_error() => ("refused", "see /api/v1/openapi.json"),
        _ => ("internal", "the request could not be handled"),
    };
    let detail = if text.trim().is_empty() {
        otherwise.to_owned()
    } else {
        text
    };
    let mut problem = Problem::new(status, kind, detail).into_response();
    for (name, value) in &parts.headers {
        if name != header::CONTENT_TYPE && name != header::CONTENT_LENGTH {
            problem.headers_mut().insert(name.clone(), value.clone());
        }
    }
    problem
}

/// An empty body of this status, for [`translate`] to fill.
pub fn bare(status: StatusCode) -> Response {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = status;
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn foreign_errors_take_our_form_and_keep_their_headers() {
        let mut foreign = bare(StatusCode::METHOD_NOT_ALLOWED);
        foreign
            .headers_mut()
            .insert(header::ALLOW, HeaderValue::from_static("GET"));
        let ours = translate(foreign).await;
        assert_eq!(ours.status(), StatusCode::METHOD_NOT_ALLOWED);
        assert_eq!(ours.headers()[header::ALLOW], "GET");
        assert_eq!(ours.headers()[header::CONTENT_TYPE], PROBLEM_JSON);
        let body = axum::body::to_bytes(ours.into_body(), 10_000)
            .await
            .expect("body");
        let problem: serde_json::Value = serde_json::from_slice(&body).expect("JSON");
        assert_eq!(problem["type"], "urn:attendant:problem:method-not-allowed");
        assert_eq!(problem["title"], "Method not allowed");
        assert_eq!(problem["status"], 405);
    }

    #[tokio::test]
    async fn what_is_no_error_stays_as_it_is() {
        let response = translate((StatusCode::CREATED, "made").into_response()).await;
        let body = axum::body::to_bytes(response.into_body(), 100)
            .await
            .expect("body");
        assert_eq!(&body[..], b"made");
    }

    #[test]
    fn a_refusal_says_how_to_come_in_and_when() {
        let refused = Problem::new(StatusCode::UNAUTHORIZED, "no-token", "x").into_response();
        assert_eq!(refused.headers()[header::WWW_AUTHENTICATE], "Bearer");
        let later = Problem::too_many("x", 7).into_response();
        assert_eq!(later.headers()[header::RETRY_AFTER], "7");
    }
}
