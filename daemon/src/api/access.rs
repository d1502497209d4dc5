//! Access: who asks, what they may do, and what they may see.
//!
//! | Role | Drives sessions, hands in streams | Reads calls | Listens | Watches live | Reads the chain |
//! |---|---|---|---|---|---|
//! | admin | yes | yes | yes | yes | yes |
//! | supervisor | | yes | yes | yes | |
//! | auditor | | yes | yes | | yes |
//! | agent | yes | yes | | | |
//!
//! A bound token sees only the sessions it began itself and those of its cases; everything else is not there for it.

use std::{
    net::{IpAddr, SocketAddr},
    time::Instant,
};

use attendant_store::{ApiRole, ApiToken, AuditKind, SessionId};
use axum::{
    extract::{ConnectInfo, Request, State},
    http::{HeaderMap, StatusCode, header},
    middleware::Next,
    response::Response,
};
use serde_json::json;
use sha2::{Digest, Sha256};

use super::{Api, Problem};
use crate::clock;

/// What every token begins with, so that one is known where it should not be.
pub const TOKEN_MARK: &str = "att_";

/// Something a role may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Right {
    /// Begin and drive sessions, hand in streams.
    Drive,
    /// Read calls and their turns.
    Read,
    /// Hear recordings.
    Listen,
    /// Follow what happens.
    Watch,
    /// Read the audit chain.
    Audit,
}

/// The program that asks.
#[derive(Debug, Clone)]
pub struct Caller {
    /// Its token.
    pub token: ApiToken,
}

/// Whose requests are counted together.
#[derive(Debug, PartialEq, Eq, Hash)]
pub enum Counted {
    /// By address.
    Source(IpAddr),
    /// By token.
    Token(i64),
}

const fn may(role: ApiRole, right: Right) -> bool {
    match role {
        ApiRole::Admin => true,
        ApiRole::Supervisor => matches!(right, Right::Read | Right::Listen | Right::Watch),
        ApiRole::Auditor => matches!(right, Right::Read | Right::Listen | Right::Audit),
        ApiRole::Agent => matches!(right, Right::Drive | Right::Read),
    }
}

impl Caller {
    /// Whether its role may.
    ///
    /// # Errors
    /// 403.
    pub fn may(&self, right: Right) -> Result<(), Problem> {
        if may(self.token.role, right) {
            return Ok(());
        }
        let role = self.token.role.as_str();
        Err(Problem::forbidden(format!(
            "a token of role {role} may not do this"
        )))
    }

    /// As [`Caller::may`], for what cannot be cut down to a token's own sessions.
    ///
    /// # Errors
    /// 403.
    pub fn may_everywhere(&self, right: Right) -> Result<(), Problem> {
        self.may(right)?;
        if self.token.own {
            return Err(Problem::forbidden(
                "this token is bound to its own sessions, and this is about all",
            ));
        }
        Ok(())
    }

    /// The session of a public name, if it may be seen.
    ///
    /// # Errors
    /// 404, whether it is not there or not to be seen.
    pub async fn session(&self, api: &Api, uuid: &str, right: Right) -> Result<SessionId, Problem> {
        self.may(right)?;
        let (uuid, reach) = (uuid.to_owned(), self.token.reach());
        let found = api.store(move |store| {
            let Some(session) = store.session_by_uuid(&uuid)? else {
                return Ok(None);
            };
            let visible = reach.map_or(Ok(true), |reach| store.within_reach(session, &reach))?;
            Ok(visible.then_some(session))
        });
        found.await?.ok_or_else(|| Problem::not_found("session"))
    }

    /// Whether a session of this case is its to begin.
    ///
    /// # Errors
    /// 403.
    pub fn may_begin(&self, case: Option<&str>) -> Result<(), Problem> {
        self.may(Right::Drive)?;
        match (&self.token.case_prefix, self.token.own) {
            (Some(prefix), true) if !case.unwrap_or_default().starts_with(prefix.as_str()) => Err(
                Problem::forbidden("this token is bound to cases that begin otherwise"),
            ),
            _ => Ok(()),
        }
    }
}

/// SHA-256 of a token's text, as it is stored.
pub fn token_hash(token: &str) -> [u8; 32] {
    Sha256::digest(token.as_bytes()).into()
}

fn bearer(headers: &HeaderMap) -> Option<&str> {
    let (scheme, token) = headers
        .get(header::AUTHORIZATION)?
        .to_str()
        .ok()?
        .split_once(' ')?;
    let token = token.trim();
    (scheme.eq_ignore_ascii_case("bearer") && token.starts_with(TOKEN_MARK)).then_some(token)
}

/// Lets requests with a token in force pass, as often as they may.
///
/// # Errors
/// 401 without one, 429 too often.
pub async fn admit(
    State(api): State<Api>,
    ConnectInfo(source): ConnectInfo<SocketAddr>,
    mut request: Request,
    next: Next,
) -> Result<Response, Problem> {
    let now = Instant::now();
    let source = source.ip();
    let too_often =
        |seconds| Problem::too_many("too many requests; wait as long as Retry-After says", seconds);
    let known = match bearer(request.headers()).map(token_hash) {
        Some(hash) => api.store(move |store| store.token(&hash)).await?,
        None => None,
    };
    let Some(token) = known else {
        api.shared.refused.take(source, now).map_err(too_often)?;
        note_refusal(&api).await;
        return Err(Problem::new(
            StatusCode::UNAUTHORIZED,
            "no-token",
            "wanted: Authorization: Bearer TOKEN, with a token of `attendant token create`",
        ));
    };
    api.shared
        .allowed
        .take(Counted::Token(token.id.get()), now)
        .map_err(too_often)?;
    api.shared
        .allowed_sources
        .take(Counted::Source(source), now)
        .map_err(too_often)?;
    request.extensions_mut().insert(Caller { token });
    Ok(next.run(request).await)
}

/// Tells the chain of refused logins, at most once a minute and then how many there were.
async fn note_refusal(api: &Api) {
    let Some(refusals) = api.shared.refusals.count(Instant::now()) else {
        return;
    };
    let noted = api.store(move |store| {
        let payload = json!({ "event": "refused", "by": "api", "requests": refusals });
        store.audit_note(AuditKind::Login, None, &payload, clock::unix_ms())
    });
    // Whoever asked is refused all the same.
    drop(noted.await);
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::HeaderValue;

    #[test]
    fn roles_do_their_own_work_only() {
        let rights = [
            Right::Drive,
            Right::Read,
            Right::Listen,
            Right::Watch,
            Right::Audit,
        ];
        for (role, want) in [
            (ApiRole::Admin, [true, true, true, true, true]),
            (ApiRole::Supervisor, [false, true, true, true, false]),
            (ApiRole::Auditor, [false, true, true, false, true]),
            (ApiRole::Agent, [true, true, false, false, false]),
        ] {
            assert_eq!(rights.map(|right| may(role, right)), want, "{role:?}");
        }
    }

    #[test]
    fn only_a_bearer_token_of_ours_is_one() {
        for (header, want) in [
            ("Bearer att_abc", Some("att_abc")),
            ("bearer  att_abc ", Some("att_abc")),
            ("Basic att_abc", None),
            ("Bearer abc", None),
            ("Bearer", None),
            ("", None),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(header::AUTHORIZATION, HeaderValue::from_static(header));
            assert_eq!(bearer(&headers), want, "{header}");
        }
        assert_eq!(bearer(&HeaderMap::new()), None);
    }
}
