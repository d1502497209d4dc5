//! Idempotency: a request sent again, because its answer was lost, is answered again and not done again.
//!
//! A key counts for its token alone, for a day, and for one request (method, path, body). Only what was done is kept: a
//! refusal gives the key free. Of a request that a stop cut off nobody knows; it says so.

use std::time::Duration;

use attendant_store::{Answer, Asked, MAX_ANSWER};
use axum::{
    body::{Body, Bytes},
    extract::{Request, State},
    http::{HeaderName, HeaderValue, Method, StatusCode, header},
    middleware::Next,
    response::{IntoResponse, Response},
};
use sha2::{Digest, Sha256};

use super::{Api, Problem, access::Caller, problem};
use crate::clock;

/// The header (draft-ietf-httpapi-idempotency-key-header).
pub const KEY: HeaderName = HeaderName::from_static("idempotency-key");
/// Says that an answer was given before.
const REPLAYED: HeaderName = HeaderName::from_static("idempotency-replayed");
/// Longest body of a request with a key [octets]: the longest of any.
const MAX_BODY: usize = super::MAX_SPEECH;
/// How long a request waits for the same one under way.
const WAITS: u32 = 100;
const WAIT: Duration = Duration::from_millis(100);

fn key(value: &HeaderValue) -> Result<String, Problem> {
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | ':');
    match value.to_str() {
        Ok(key) if (1..=200).contains(&key.len()) && key.chars().all(fits) => Ok(key.to_owned()),
        _ => Err(Problem::new(
            StatusCode::BAD_REQUEST,
            "malformed-request",
            "an Idempotency-Key is 1 to 200 letters, digits, dots, colons, hyphens and underscores",
        )),
    }
}

/// The layer inside [`super::access::admit`].
///
/// # Errors
/// 400 for a key that is none, 409 for one of another request or of one that is still under way or was cut off.
pub async fn once(State(api): State<Api>, request: Request, next: Next) -> Result<Response, Problem> {
    let given = request.headers().get(KEY).map(key).transpose()?;
    let caller = request.extensions().get::<Caller>().cloned();
    let post = request.method() == Method::POST;
    let (Some(key), Some(caller), true) = (given, caller, post) else {
        return Ok(next.run(request).await);
    };
    let token = caller.token.id;
    let (parts, body) = request.into_parts();
    let Ok(body) = axum::body::to_bytes(body, MAX_BODY).await else {
        return Ok(problem::bare(StatusCode::PAYLOAD_TOO_LARGE));
    };
    let mut hash = Sha256::new();
    hash.update(parts.method.as_str());
    hash.update([0]);
    hash.update(parts.uri.to_string());
    hash.update([0]);
    hash.update(&body);
    let hash: [u8; 32] = hash.finalize().into();
    for _ in 0..WAITS {
        let asked = key.clone();
        match api
            .store(move |store| store.ask(token, &asked, &hash, clock::unix_ms()))
            .await?
        {
            Asked::First => {
                let request = Request::from_parts(parts, Body::from(body));
                return first(&api, token, key, next.run(request).await).await;
            }
            Asked::UnderWay => tokio::time::sleep(WAIT).await,
            Asked::Answered(answer) => return again(answer),
            Asked::Other => {
                return Err(Problem::conflict(
                    "idempotency-key-used",
                    "this Idempotency-Key belongs to another request; choose a new one",
                ));
            }
            Asked::CutOff => {
                return Err(Problem::conflict(
                    "outcome-unknown",
                    "a restart cut this request off: see whether it was done, and use a new key",
                ));
            }
        }
    }
    Err(Problem::conflict(
        "under-way",
        "the same request is still being handled; ask again for its answer",
    ))
}

/// Keeps the answer, if something was done.
async fn first(
    api: &Api,
    token: attendant_store::TokenId,
    key: String,
    response: Response,
) -> Result<Response, Problem> {
    if !response.status().is_success() {
        api.store(move |store| store.answer(token, &key, None)).await?;
        return Ok(response);
    }
    let (parts, body) = response.into_parts();
    // What handlers with POST answer is whole, and shorter than this.
    let body = axum::body::to_bytes(body, 4 * MAX_ANSWER)
        .await
        .map_err(|_| Problem::internal())?;
    let text = |name| {
        let value: Option<&HeaderValue> = parts.headers.get(name);
        value.and_then(|value| value.to_str().ok()).map(str::to_owned)
    };
    let answer = Answer {
        status: parts.status.as_u16(),
        content_type: text(header::CONTENT_TYPE),
        location: text(header::LOCATION),
        body: Some(body.to_vec()),
    };
    api.store(move |store| store.answer(token, &key, Some(&answer)))
        .await?;
    Ok(Response::from_parts(parts, Body::from(body)))
}

fn again(answer: Answer) -> Result<Response, Problem> {
    let Some(body) = answer.body else {
        return Err(Problem::conflict(
            "answer-gone",
            "this request was handled before; its answer was erased or too long to keep",
        ));
    };
    let status = StatusCode::from_u16(answer.status).unwrap_or(StatusCode::OK);
    let mut response = (status, Bytes::from(body)).into_response();
    let headers = response.headers_mut();
    headers.remove(header::CONTENT_TYPE);
    for (name, value) in [
        (header::CONTENT_TYPE, answer.content_type),
        (header::LOCATION, answer.location),
    ] {
        if let Some(value) = value.and_then(|value| HeaderValue::from_str(&value).ok()) {
            headers.insert(name, value);
        }
    }
    headers.insert(REPLAYED, HeaderValue::from_static("true"));
    Ok(response)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_a_short_word() {
        for (value, want) in [
            ("order-17:a.b_c", true),
            ("", false),
            ("two words", false),
            ("ä", false),
        ] {
            let header = HeaderValue::from_bytes(value.as_bytes()).expect("header");
            assert_eq!(key(&header).is_ok(), want, "{value}");
        }
        let long = HeaderValue::from_str(&"a".repeat(201)).expect("header");
        assert!(key(&long).is_err());
    }
}
