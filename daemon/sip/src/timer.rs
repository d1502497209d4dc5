//! Session timers: a call is confirmed from time to time, and ends when nobody confirms it any more.
//!
//! ```text
//! Running --ours, at half time--> refresh --2xx--> Running
//!    |                              |--491, 5xx, other--> again, until the interval is over
//!    |                              `--408, 481, silence--> Over (BYE)
//!    `--theirs, two thirds over and nothing came--> Over (BYE)
//! ```
//! Pure: time is an argument, and the caller sends what [`SessionTimer::due`] asks for. Without a timer, a call whose far
//! end lost its power while it held us would take a line for ever. Source: RFC 4028 §7 (UAC), §9 (UAS), §10 (expiry).

use std::time::{Duration, Instant};

use rsipstack::sip::{Header, HeadersExt};

/// What we ask for and accept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SessionTimers {
    /// Interval to ask for \[s\]; 0 asks for none and still honours the peer's.
    pub expires_s: u32,
    /// Shorter intervals are refused with 422 \[s\]; RFC 4028 §4 wants at least 90.
    pub min_s: u32,
}

impl Default for SessionTimers {
    fn default() -> Self {
        // RFC 4028 §4: 1800 is recommended, 90 the least.
        SessionTimers {
            expires_s: 1800,
            min_s: 90,
        }
    }
}

/// Longer intervals are taken as this \[s\].
const LONGEST_S: u32 = 86_400;
/// RFC 4028 §10: who waits for a refresh hangs up this long before the end, or a third of the interval if that is less.
const MARGIN: Duration = Duration::from_secs(32);
/// Pause after a refused refresh that names none.
const RETRY: Duration = Duration::from_secs(5);

/// Who sends the refreshes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refresher {
    Us,
    Them,
}

/// Which end of a transaction we are: `refresher=uac` means the sender of the request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Side {
    Uac,
    Uas,
}

/// What a message says about timers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Said {
    /// Session-Expires \[s\] and its refresher.
    expires: Option<(u32, Option<Side>)>,
    /// Min-SE \[s\].
    min_s: Option<u32>,
    /// `Supported` or `Require` names `timer`.
    supported: bool,
}

impl Said {
    pub fn read(message: &impl HeadersExt) -> Said {
        let seconds = |value: &str| value.split(';').next()?.trim().parse::<u32>().ok();
        let expires = message.header_value("Session-Expires").and_then(|value| {
            let refresher = value.split(';').skip(1).find_map(|parameter| {
                let (name, side) = parameter.split_once('=')?;
                if !name.trim().eq_ignore_ascii_case("refresher") {
                    return None;
                }
                match side.trim().to_ascii_lowercase().as_str() {
                    "uac" => Some(Side::Uac),
                    "uas" => Some(Side::Uas),
                    _ => None,
                }
            });
            Some((seconds(&value)?.min(LONGEST_S), refresher))
        });
        Said {
            expires,
            min_s: message.header_value("Min-SE").as_deref().and_then(seconds),
            supported: message.header_contains_token("Supported", "timer")
                || message.header_contains_token("Require", "timer"),
        }
    }

    /// Min-SE of a 422 \[s\].
    pub fn least_s(&self) -> Option<u32> {
        self.min_s
    }
}

/// The interval asked for is below this \[s\]: answer 422 with Min-SE.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TooShort(pub u32);

/// What both sides agreed on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Terms {
    interval_s: u32,
    refresher: Refresher,
    /// The peer understands `Require: timer`.
    supported: bool,
}

impl Terms {
    /// Terms of our 2xx to `request`; `running` are those in force. `None`: no timer.
    ///
    /// # Errors
    /// [`TooShort`]: refuse.
    pub fn answer(
        request: &Said,
        ours: SessionTimers,
        running: Option<Terms>,
    ) -> Result<Option<Terms>, TooShort> {
        let supported = request.supported;
        let Some((interval_s, named)) = request.expires else {
            if !supported {
                // A peer that forgot its timer may still count on our refreshes; we do not count on its.
                return Ok(running.filter(|terms| terms.refresher == Refresher::Us));
            }
            let wanted = running.map_or(ours.expires_s, |terms| terms.interval_s);
            return Ok((wanted > 0).then(|| Terms {
                interval_s: wanted.max(request.min_s.unwrap_or(0)).max(ours.min_s),
                refresher: running.map_or(Refresher::Us, |terms| terms.refresher),
                supported,
            }));
        };
        if interval_s < ours.min_s {
            // Who does not know timers does not know 422; and its proxy's wish is below what RFC 4028 allows.
            return if supported {
                Err(TooShort(ours.min_s))
            } else {
                Ok(None)
            };
        }
        let refresher = match named {
            _ if !supported => Refresher::Us,
            Some(Side::Uas) => Refresher::Us,
            // Who asks for a timer drives it.
            Some(Side::Uac) | None => Refresher::Them,
        };
        Ok(Some(Terms {
            interval_s,
            refresher,
            supported,
        }))
    }

    /// Terms of a 2xx to our request. `None`: no timer.
    pub fn accept(response: &Said) -> Option<Terms> {
        let (interval_s, named) = response.expires?;
        Some(Terms {
            interval_s: interval_s.max(2),
            refresher: match named {
                Some(Side::Uas) => Refresher::Them,
                Some(Side::Uac) | None => Refresher::Us,
            },
            supported: true,
        })
    }

    /// Headers of our 2xx (RFC 4028 §9).
    pub fn response_headers(&self) -> Vec<Header> {
        let side = match self.refresher {
            Refresher::Us => "uas",
            Refresher::Them => "uac",
        };
        let mut headers = vec![Header::SessionExpires(
            format!("{};refresher={side}", self.interval_s).into(),
        )];
        if self.supported {
            headers.push(Header::Require("timer".into()));
        }
        headers
    }

    /// Headers of our refresh: we stay the refresher.
    pub fn refresh_headers(&self, min_s: u32) -> Vec<Header> {
        request_headers(self.interval_s, min_s, Some("uac"))
    }

    /// The same with at least `least_s`, which a 422 asked for.
    pub fn lengthened(self, least_s: Option<u32>) -> Terms {
        let interval_s = least_s.unwrap_or(0).clamp(self.interval_s, LONGEST_S);
        Terms { interval_s, ..self }
    }
}

/// Headers of a request that asks for a timer; the initial one leaves open who refreshes (RFC 4028 §7.1).
pub(crate) fn request_headers(interval_s: u32, min_s: u32, refresher: Option<&str>) -> Vec<Header> {
    let refresher = refresher.map_or(String::new(), |side| format!(";refresher={side}"));
    vec![
        Header::SessionExpires(format!("{interval_s}{refresher}").into()),
        Header::MinSE(min_s.to_string().into()),
    ]
}

/// What is to be done now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Due {
    Refresh,
    /// Nobody refreshed: BYE.
    Expired,
}

/// A timer that runs.
#[derive(Debug, Clone)]
pub(crate) struct SessionTimer {
    pub terms: Terms,
    since: Instant,
    /// The next refresh; `None` while one is under way.
    next: Option<Instant>,
}

impl SessionTimer {
    /// Starts, or starts anew, with a 2xx at `now`.
    pub fn new(terms: Terms, now: Instant) -> SessionTimer {
        let next = (terms.refresher == Refresher::Us).then(|| now + interval(terms) / 2);
        SessionTimer {
            terms,
            since: now,
            next,
        }
    }

    fn end(&self) -> Instant {
        let whole = interval(self.terms);
        match self.terms.refresher {
            Refresher::Us => self.since + whole,
            Refresher::Them => self.since + whole - MARGIN.min(whole / 3),
        }
    }

    /// When to call [`due`](Self::due) next.
    pub fn poll_timeout(&self) -> Instant {
        self.next.map_or(self.end(), |next| next.min(self.end()))
    }

    /// A refresh that is asked for counts as under way until [`refused`](Self::refused) or a new timer.
    pub fn due(&mut self, now: Instant) -> Option<Due> {
        if now >= self.end() {
            return Some(Due::Expired);
        }
        if self.next.is_some_and(|next| now >= next) {
            self.next = None;
            return Some(Due::Refresh);
        }
        None
    }

    /// A refresh was refused for now: try again after `wait`, or a little later.
    pub fn refused(&mut self, terms: Terms, wait: Option<Duration>, now: Instant) {
        self.terms = terms;
        let left = self.end().saturating_duration_since(now);
        // At least one more try before the end.
        self.next = Some(now + wait.unwrap_or(RETRY).min(left / 2));
    }
}

fn interval(terms: Terms) -> Duration {
    Duration::from_secs(u64::from(terms.interval_s))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rsipstack::sip::{Request, SipMessage};

    const OURS: SessionTimers = SessionTimers {
        expires_s: 1800,
        min_s: 90,
    };

    fn said(headers: &str) -> Said {
        let text = format!("UPDATE sip:a@h SIP/2.0\r\n{headers}\r\n\r\n");
        let SipMessage::Request(request) = SipMessage::try_from(text.as_bytes()).unwrap() else {
            panic!("a request");
        };
        let request: Request = request;
        Said::read(&request)
    }

    #[test]
    fn answers_follow_the_table_of_the_rfc() {
        let terms = |interval_s, refresher, supported| {
            Ok(Some(Terms {
                interval_s,
                refresher,
                supported,
            }))
        };
        let cases = [
            ("no timer known", "Max-Forwards: 70", Ok(None)),
            (
                "known, not asked for: we refresh",
                "Supported: timer",
                terms(1800, Refresher::Us, true),
            ),
            (
                "known, with a longer least",
                "Supported: timer\r\nMin-SE: 4000",
                terms(4000, Refresher::Us, true),
            ),
            (
                "asked for",
                "Supported: timer\r\nSession-Expires: 600",
                terms(600, Refresher::Them, true),
            ),
            (
                "the caller refreshes",
                "k: 100rel, timer\r\nx: 600;refresher=uac",
                terms(600, Refresher::Them, true),
            ),
            (
                "we shall refresh",
                "Supported: timer\r\nSession-Expires: 600;refresher=uas",
                terms(600, Refresher::Us, true),
            ),
            (
                "required",
                "Require: timer\r\nSession-Expires: 600 ; Refresher=UAC",
                terms(600, Refresher::Them, true),
            ),
            (
                "a proxy asks for a phone that knows none",
                "Session-Expires: 600",
                terms(600, Refresher::Us, false),
            ),
            (
                "too short",
                "Supported: timer\r\nSession-Expires: 60",
                Err(TooShort(90)),
            ),
            ("too short, and 422 unknown", "Session-Expires: 60", Ok(None)),
            ("nonsense", "Session-Expires: soon", Ok(None)),
        ];
        for (case, headers, want) in cases {
            assert_eq!(Terms::answer(&said(headers), OURS, None), want, "{case}");
        }
    }

    #[test]
    fn a_change_without_a_timer_keeps_our_refreshes_and_drops_theirs() {
        let plain = said("Max-Forwards: 70");
        for (refresher, kept) in [(Refresher::Us, true), (Refresher::Them, false)] {
            let running = Terms {
                interval_s: 600,
                refresher,
                supported: true,
            };
            let answer = Terms::answer(&plain, OURS, Some(running)).unwrap();
            assert_eq!(answer.is_some(), kept, "{refresher:?}");
        }
    }

    #[test]
    fn the_answer_to_our_request_says_who_refreshes() {
        let accept = |headers| Terms::accept(&said(headers)).map(|t| (t.interval_s, t.refresher));
        assert_eq!(accept("Supported: timer"), None);
        assert_eq!(accept("Session-Expires: 600"), Some((600, Refresher::Us)));
        assert_eq!(
            accept("Session-Expires: 600;refresher=uac"),
            Some((600, Refresher::Us))
        );
        assert_eq!(
            accept("Session-Expires: 600;refresher=uas"),
            Some((600, Refresher::Them))
        );
    }

    #[test]
    fn refreshes_come_at_half_time_and_silence_ends_the_call() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let terms = |refresher| Terms {
            interval_s: 600,
            refresher,
            supported: true,
        };
        let mut ours = SessionTimer::new(terms(Refresher::Us), start);
        assert_eq!(ours.poll_timeout(), at(300));
        assert_eq!((ours.due(at(299)), ours.due(at(300))), (None, Some(Due::Refresh)));
        assert_eq!(ours.due(at(301)), None, "one refresh at a time");
        ours.refused(ours.terms, None, at(310));
        assert_eq!(ours.poll_timeout(), at(315));
        assert_eq!(ours.due(at(315)), Some(Due::Refresh));
        ours.refused(ours.terms, Some(Duration::from_secs(999)), at(500));
        assert_eq!(ours.poll_timeout(), at(550), "not beyond the end");
        assert_eq!(ours.due(at(600)), Some(Due::Expired));
        let mut theirs = SessionTimer::new(terms(Refresher::Them), start);
        assert_eq!(theirs.poll_timeout(), at(568));
        assert_eq!(
            (theirs.due(at(567)), theirs.due(at(568))),
            (None, Some(Due::Expired))
        );
    }

    #[test]
    fn a_422_lengthens_the_interval() {
        let terms = Terms {
            interval_s: 600,
            refresher: Refresher::Us,
            supported: true,
        };
        assert_eq!(terms.lengthened(Some(900)).interval_s, 900);
        assert_eq!(terms.lengthened(Some(90)).interval_s, 600);
        assert_eq!(terms.lengthened(None).interval_s, 600);
        assert_eq!(terms.lengthened(Some(u32::MAX)).interval_s, LONGEST_S);
    }
}
