//! Entry: what happens to every request before and after its handler.
//!
//! ```text
//! X-Request-Id ─> room? ─> own task (a panic, or a client that leaves, ends nothing half) ─> problem form ─> headers
//! ```

use std::{
    net::IpAddr,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use axum::{
    extract::{Request, State},
    http::{HeaderName, HeaderValue, header},
    middleware::Next,
    response::{IntoResponse, Response},
};
use tracing::Instrument;

use super::{Api, Problem, access::Counted, limit::Limiter, problem};

/// Requests handled at once.
pub const AT_ONCE: usize = 256;
/// Longest a request may take, its body included.
const BOUND: Duration = Duration::from_secs(90);
/// Names a request, in answers and in the log.
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// A request's own name, if it is one: 1 to 64 letters, digits, dots, hyphens, underscores.
fn request_id(value: Option<&HeaderValue>) -> Option<String> {
    let id = value?.to_str().ok()?;
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
    ((1..=64).contains(&id.len()) && id.chars().all(fits)).then(|| id.to_owned())
}

/// The outermost layer.
pub async fn enter(State(api): State<Api>, request: Request, next: Next) -> Response {
    let id = request_id(request.headers().get(REQUEST_ID))
        .unwrap_or_else(|| format!("{:032x}", rand::random::<u128>()));
    let span = tracing::debug_span!("api", request = %id, method = %request.method());
    let started = Instant::now();
    let response = match api.shared.at_once.clone().try_acquire_owned() {
        Err(_) => Problem::unavailable("busy", "too many requests at once; try again", 1).into_response(),
        Ok(room) => {
            let handled = async move {
                let response = next.run(request).await;
                drop(room);
                response
            };
            let handled = tokio::spawn(handled.instrument(span.clone()));
            match tokio::time::timeout(BOUND, handled).await {
                Ok(Ok(response)) => response,
                Ok(Err(_panicked)) => {
                    tracing::error!(parent: &span, request = %id, "a request's handler failed");
                    Problem::internal().into_response()
                }
                Err(_) => Problem::unavailable("timeout", "the request took too long", 10).into_response(),
            }
        }
    };
    let mut response = problem::translate(response).await;
    tracing::debug!(
        parent: &span,
        status = response.status().as_u16(),
        ms = started.elapsed().as_millis() as u64,
        "answered"
    );
    let headers = response.headers_mut();
    if let Ok(id) = HeaderValue::from_str(&id) {
        headers.insert(REQUEST_ID, id);
    }
    headers
        .entry(header::CACHE_CONTROL)
        .or_insert(HeaderValue::from_static("no-store"));
    headers.insert(
        header::X_CONTENT_TYPE_OPTIONS,
        HeaderValue::from_static("nosniff"),
    );
    response
}

/// Buckets of those with a token.
pub type Allowed = Limiter<Counted>;
/// Buckets of those without.
pub type Refused = Limiter<IpAddr>;

/// Counts refusals, so that a flood of them makes one entry a minute.
#[derive(Debug, Default)]
pub struct Refusals {
    since: Mutex<(u64, Option<Instant>)>,
}

impl Refusals {
    /// One more; how many there were since the last time it told, if it is time to tell.
    pub fn count(&self, now: Instant) -> Option<u64> {
        let mut since = self.since.lock().unwrap_or_else(PoisonError::into_inner);
        since.0 += 1;
        let due = since
            .1
            .is_none_or(|told| now.saturating_duration_since(told) >= Duration::from_secs(60));
        due.then(|| {
            since.1 = Some(now);
            std::mem::take(&mut since.0)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_may_bring_its_own_name() {
        for (value, want) in [
            ("abc-1.2_3", true),
            ("", false),
            ("with blank", false),
            ("a\u{7f}", false),
            (
                "0123456789012345678901234567890123456789012345678901234567890123",
                true,
            ),
            (
                "01234567890123456789012345678901234567890123456789012345678901234",
                false,
            ),
        ] {
            let header = HeaderValue::from_bytes(value.as_bytes()).ok();
            assert_eq!(request_id(header.as_ref()).is_some(), want, "{value}");
        }
        assert_eq!(request_id(None), None);
    }

    #[test]
    fn a_flood_of_refusals_is_told_once_a_minute() {
        let (refusals, now) = (Refusals::default(), Instant::now());
        assert_eq!(refusals.count(now), Some(1));
        assert!((0..9).all(|_| refusals.count(now).is_none()));
        assert_eq!(refusals.count(now + Duration::from_secs(60)), Some(10));
    }
}
