//! Fallback: what a caller gets when the box cannot serve. Section `[fallback]`. Decided before the call is answered; two
//! of the actions answer it, for PBXs that do not follow a 302: the caller is handed over (REFER), or leaves a message.
//!
//! | Cause | Without a configured action |
//! |---|---|
//! | as many calls as configured | 486 busy |
//! | an engine does not start, no models, no record, disk full | 503 with Retry-After: the PBX may try elsewhere |

use std::path::Path;

use attendant_dialog::Persona;
use attendant_models::client::EngineState;
use attendant_sip::Refusal;
use serde::Deserialize;

use crate::{call::House, doctor};

/// Longest announcement \[characters\]: about 25 s.
const MAX_CHARS: usize = 400;

/// `[fallback]`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Fallback {
    /// What a caller gets; `None`: busy where lines are taken, else unavailable.
    pub action: Option<FallbackAction>,
    /// For "redirect" and "refer": where the caller is sent.
    pub uri: Option<String>,
    /// For "voicemail": what the caller hears before the beep.
    pub greeting: String,
    /// For "voicemail": longest message [s].
    pub longest_s: u32,
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
            greeting: "Hello, this is {business}. Nobody can take your call right now. Please leave a message with your \
                       name and number after the beep."
                .into(),
            longest_s: 180,
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
    /// Answered, and handed to `uri` with REFER.
    Refer,
    /// Answered, and a message recorded.
    Voicemail,
}

/// What is done with a call that cannot be served.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Treatment {
    /// It is not answered.
    Refuse(Refusal),
    /// It is answered and handed to this address.
    Refer(String),
    /// It is answered, and a message taken.
    Voicemail,
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
    /// What is done for `cause`. Where nothing can be written down no message is taken.
    #[must_use]
    pub fn treatment(&self, cause: Cause) -> Treatment {
        let recordable = match cause {
            Cause::Overload | Cause::EngineDown | Cause::OutOfService => true,
            Cause::NoRecord | Cause::DiskFull => false,
        };
        match (self.action, &self.uri) {
            (Some(FallbackAction::Refer), Some(uri)) => Treatment::Refer(uri.clone()),
            (Some(FallbackAction::Voicemail), _) if recordable => Treatment::Voicemail,
            (_, _) => Treatment::Refuse(self.refusal(cause)),
        }
    }

    /// What is said before the beep, where messages are taken.
    #[must_use]
    pub fn announcement(&self, persona: &Persona) -> Option<String> {
        let text = self
            .greeting
            .replace("{business}", &persona.business_name)
            .replace("{attendant}", &persona.attendant_name);
        let wanted = self.action == Some(FallbackAction::Voicemail) && !text.trim().is_empty();
        wanted.then_some(text)
    }

    /// The refusal for `cause`, also where an action that answers is not possible.
    #[must_use]
    pub fn refusal(&self, cause: Cause) -> Refusal {
        let unavailable = Refusal::Overloaded {
            retry_after_s: self.retry_after_s,
        };
        match (self.action, &self.uri) {
            (Some(FallbackAction::Redirect), Some(uri)) => Refusal::Moved(uri.clone()),
            (Some(FallbackAction::Busy), _) => Refusal::Busy,
            (Some(FallbackAction::Unavailable | FallbackAction::Redirect), _) => unavailable,
            (None | Some(FallbackAction::Refer | FallbackAction::Voicemail), _)
                if cause == Cause::Overload =>
            {
                Refusal::Busy
            }
            (None | Some(FallbackAction::Refer | FallbackAction::Voicemail), _) => unavailable,
        }
    }

    /// # Errors
    /// What is wrong and what would be accepted.
    pub fn check(&self) -> Result<(), String> {
        match (self.action, &self.uri) {
            (Some(FallbackAction::Redirect), None) => {
                return Err("action = \"redirect\" needs a uri".into());
            }
            (Some(FallbackAction::Refer), None) => return Err("action = \"refer\" needs a uri".into()),
            (Some(FallbackAction::Redirect | FallbackAction::Refer), Some(uri)) => {
                attendant_sip::check_target(uri).map_err(|error| format!("uri {error}"))?;
            }
            (_, Some(_)) => return Err("only action = \"redirect\" and \"refer\" have a uri".into()),
            (_, None) => {}
        }
        if !(5..=3600).contains(&self.longest_s) {
            return Err(format!("longest_s = {}: want 5 to 3600", self.longest_s));
        }
        let length = self.greeting.chars().count();
        if length > MAX_CHARS {
            return Err(format!(
                "greeting: want at most {MAX_CHARS} characters, got {length}"
            ));
        }
        if self.announcement_names_more_than_the_house() {
            return Err("greeting: the only names in braces are {business} and {attendant}".into());
        }
        if !(1..=3600).contains(&self.retry_after_s) {
            return Err(format!("retry_after_s = {}: want 1 to 3600", self.retry_after_s));
        }
        Ok(())
    }

    fn announcement_names_more_than_the_house(&self) -> bool {
        let plain = self.greeting.replace("{business}", "").replace("{attendant}", "");
        plain.contains('{')
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
    fn answering_is_tried_only_where_it_can_work() {
        let unavailable = || Treatment::Refuse(Refusal::Overloaded { retry_after_s: 60 });
        let refer = fallback(FallbackAction::Refer, Some("sip:queue@192.0.2.1"));
        let voicemail = fallback(FallbackAction::Voicemail, None);
        for cause in CAUSES {
            assert_eq!(
                refer.treatment(cause),
                Treatment::Refer("sip:queue@192.0.2.1".into()),
                "{cause:?}"
            );
            let want = match cause {
                Cause::NoRecord | Cause::DiskFull => unavailable(),
                Cause::Overload | Cause::EngineDown | Cause::OutOfService => Treatment::Voicemail,
            };
            assert_eq!(voicemail.treatment(cause), want, "{cause:?}");
        }
        assert_eq!(voicemail.refusal(Cause::Overload), Refusal::Busy);
        let said = voicemail.announcement(&Persona {
            business_name: "Hillside".into(),
            ..Persona::default()
        });
        assert!(said.unwrap().contains("this is Hillside."));
        assert_eq!(refer.announcement(&Persona::default()), None);
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
                "only action = \"redirect\" and",
            ),
            (fallback(FallbackAction::Refer, None), "needs a uri"),
            (
                Fallback {
                    longest_s: 1,
                    ..Fallback::default()
                },
                "5 to 3600",
            ),
            (
                Fallback {
                    greeting: "this is {firm}".into(),
                    ..Fallback::default()
                },
                "{business}",
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
