//! Fallback: what a caller gets when the box cannot serve, decided before the call is answered. Section `[fallback]`.
//!
//! | Cause | Without a configured action |
//! |---|---|
//! | as many calls as configured | 486 busy |
//! | an engine does not start, no models, no record, disk full | 503 with Retry-After: the PBX may try elsewhere |

use std::path::Path;

use attendant_models::client::EngineState;
use attendant_sip::Refusal;
use serde::Deserialize;

use crate::{call::House, doctor};

/// `[fallback]`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Fallback {
    /// What a caller gets; `None`: busy where lines are taken, else unavailable.
    pub action: Option<FallbackAction>,
    /// For "redirect": where the caller is sent.
    pub uri: Option<String>,
    /// For "unavailable": when the PBX may try again [s].
    pub retry_after_s: u32,
    /// With less disk space than this, calls are not answered: they could not be recorded [MiB].
    pub min_free_mb: u64,
}

impl Default for Fallback {
    fn default() -> Self {
        Self {
            action: None,
            uri: None,
            retry_after_s: 60,
            min_free_mb: 32,
        }
    }
}

/// What a caller gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FallbackAction {
    /// 486.
    Busy,
    /// 302 to `uri`: a queue, a mailbox, another box.
    Redirect,
    /// 503 with Retry-After.
    Unavailable,
}

/// Why the box cannot serve.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// As many calls as configured are in progress.
    Overload,
    /// An engine does not start.
    EngineDown,
    /// The box started without what it needs to speak: models, engines, phrases.
    OutOfService,
    /// The record cannot be written.
    NoRecord,
    /// Too little disk space for one.
    DiskFull,
}

impl Cause {
    /// For the log.
    #[must_use]
    pub fn text(self) -> &'static str {
        match self {
            Cause::Overload => "as many calls as configured are in progress",
            Cause::EngineDown => "an engine does not start; see `attendant doctor`",
            Cause::OutOfService => "models or engines are missing; see `attendant doctor`",
            Cause::NoRecord => "the record cannot be written",
            Cause::DiskFull => "the disk is full",
        }
    }

    /// In metrics.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Cause::Overload => "overload",
            Cause::EngineDown => "engine_down",
            Cause::OutOfService => "out_of_service",
            Cause::NoRecord => "no_record",
            Cause::DiskFull => "disk_full",
        }
    }

    /// Why a call that comes now cannot be served, if it cannot. Lines are counted elsewhere.
    #[must_use]
    pub fn now(house: &House, data_dir: &Path) -> Option<Cause> {
        let dead = house
            .engines
            .status()
            .iter()
            .any(|e| e.state == EngineState::Backoff);
        if dead {
            return Some(Cause::EngineDown);
        }
        if !house.store.is_writable() {
            return Some(Cause::NoRecord);
        }
        let free = doctor::free_mb(data_dir);
        free.is_some_and(|free| free < house.config.fallback.min_free_mb)
            .then_some(Cause::DiskFull)
    }
}

impl Fallback {
    /// The refusal for `cause`.
    #[must_use]
    pub fn refusal(&self, cause: Cause) -> Refusal {
        let unavailable = Refusal::Overloaded {
            retry_after_s: self.retry_after_s,
        };
        match (self.action, &self.uri) {
            (Some(FallbackAction::Redirect), Some(uri)) => Refusal::Moved(uri.clone()),
            (Some(FallbackAction::Busy), _) => Refusal::Busy,
            (Some(FallbackAction::Unavailable | FallbackAction::Redirect), _) => unavailable,
            (None, _) if cause == Cause::Overload => Refusal::Busy,
            (None, _) => unavailable,
        }
    }

    /// # Errors
    /// What is wrong and what would be accepted.
    pub fn check(&self) -> Result<(), String> {
        match (self.action, &self.uri) {
            (Some(FallbackAction::Redirect), None) => {
                return Err("action = \"redirect\" needs a uri".into());
            }
            (Some(FallbackAction::Redirect), Some(uri)) => {
                attendant_sip::check_target(uri).map_err(|error| format!("uri {error}"))?;
            }
            (_, Some(_)) => return Err("only action = \"redirect\" has a uri".into()),
            (_, None) => {}
        }
        if !(1..=3600).contains(&self.retry_after_s) {
            return Err(format!("retry_after_s = {}: want 1 to 3600", self.retry_after_s));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CAUSES: [Cause; 5] = [
        Cause::Overload,
        Cause::EngineDown,
        Cause::OutOfService,
        Cause::NoRecord,
        Cause::DiskFull,
    ];

    fn fallback(action: FallbackAction, uri: Option<&str>) -> Fallback {
        Fallback {
            action: Some(action),
            uri: uri.map(Into::into),
            ..Fallback::default()
        }
    }

    #[test]
    fn every_cause_gets_what_is_configured() {
        let unavailable = Refusal::Overloaded { retry_after_s: 60 };
        let redirect = fallback(FallbackAction::Redirect, Some("sip:300@192.0.2.1"));
        for cause in CAUSES {
            let by_default = Fallback::default().refusal(cause);
            let want = if cause == Cause::Overload {
                &Refusal::Busy
            } else {
                &unavailable
            };
            assert_eq!(by_default, *want, "{cause:?}");
            assert_eq!(fallback(FallbackAction::Busy, None).refusal(cause), Refusal::Busy);
            assert_eq!(
                fallback(FallbackAction::Unavailable, None).refusal(cause),
                unavailable
            );
            assert_eq!(
                redirect.refusal(cause),
                Refusal::Moved("sip:300@192.0.2.1".into())
            );
        }
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        Fallback::default().check().unwrap();
        for (wrong, want) in [
            (fallback(FallbackAction::Redirect, None), "needs a uri"),
            (
                fallback(FallbackAction::Redirect, Some("mailbox")),
                "is not a SIP address",
            ),
            (
                fallback(FallbackAction::Busy, Some("sip:1@h")),
                "only action = \"redirect\"",
            ),
            (
                Fallback {
                    retry_after_s: 0,
                    ..Fallback::default()
                },
                "1 to 3600",
            ),
        ] {
            let error = wrong.check().unwrap_err();
            assert!(error.contains(want), "{error}");
        }
    }
}
