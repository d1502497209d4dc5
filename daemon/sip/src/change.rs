//! Changing a call in progress from our side: hold, refresh. Source: RFC 3261 §14, RFC 3311, RFC 4028 §7.4.

use std::net::IpAddr;
use std::time::Duration;

use rsipstack::dialog::dialog::Dialog;
use rsipstack::sip::uri::ParamsExt as _;
use rsipstack::sip::{Header, HeadersExt, Param, Response, StatusCodeKind, typed};
use rsipstack::transaction::key::TransactionRole;
use tokio::sync::mpsc;

use crate::call::{Control, refused, sdp_headers};
use crate::core::lock;
use crate::error::SipError;
use crate::media::{LocalMedia, Negotiated};
use crate::reliable::Reliable;
use crate::sdp::{Direction, Sdp};
use crate::timer::{Said, Terms};
use crate::transfer::Notified;

/// Tries when both sides change at once.
const GLARE_TRIES: u32 = 3;

/// Our side of what was agreed on.
#[derive(Debug)]
pub(crate) struct Session {
    pub local: LocalMedia,
    /// `None` until a late offer is answered.
    pub current: Option<Negotiated>,
    /// Where the signalling comes from.
    pub fallback: IpAddr,
    /// Our description in force; a refresh repeats it.
    pub described: String,
    /// Session timer agreed on when the call began.
    pub terms: Option<Terms>,
    /// The peer takes UPDATE.
    pub updates: bool,
    /// Our ringing, where it must be acknowledged.
    pub reliable: Option<Reliable>,
    /// For what the far end tells about a transfer.
    pub referral: Option<mpsc::Sender<Notified>>,
}

impl Session {
    /// `peer` is the message that told about the far end: its INVITE, or its 200.
    pub fn new(
        local: LocalMedia,
        current: Option<Negotiated>,
        fallback: IpAddr,
        described: String,
        terms: Option<Terms>,
        peer: &impl HeadersExt,
    ) -> Session {
        Session {
            local,
            current,
            fallback,
            described,
            terms,
            updates: allows(peer, "UPDATE"),
            reliable: None,
            referral: None,
        }
    }
}

/// How a refresh went.
#[derive(Debug)]
pub(crate) enum Refreshed {
    /// `terms`: those from now on. `media`: what a re-INVITE brought.
    Done {
        terms: Option<Terms>,
        media: Option<Negotiated>,
    },
    /// Not now.
    Refused { terms: Terms, wait: Option<Duration> },
    /// The far end knows nothing of the call, or does not answer.
    Gone,
}

impl Control {
    /// Puts the far end on hold or takes it back.
    ///
    /// # Errors
    /// [`SipError::Refused`], [`SipError::Media`] or [`SipError::Gone`]; the session stays as it was.
    pub async fn change_direction(&self, direction: Direction) -> Result<Negotiated, SipError> {
        for attempt in 1.. {
            let describe = |session: &mut Session| session.local.offer(direction).to_string();
            let response = self.reinvite(describe, Vec::new()).await?;
            match response.status_code.code() {
                200..300 => {}
                491 if attempt < GLARE_TRIES => {
                    tokio::time::sleep(self.glare_pause()).await;
                    continue;
                }
                _ => return Err(refused(&response.status_code)),
            }
            let mut session = lock(&self.session);
            let agreed = session
                .local
                .accept(&Sdp::parse(&response.body)?, session.fallback)?;
            session.current = Some(agreed);
            return Ok(agreed);
        }
        Err(SipError::Gone)
    }

    /// Confirms the call, by UPDATE where the peer takes it, else by a re-INVITE that changes nothing.
    pub async fn refresh(&self, terms: Terms, min_s: u32) -> Refreshed {
        let updates = lock(&self.session).updates;
        let headers = terms.refresh_headers(min_s);
        let answered = if updates {
            let answered = self.dialog.update(Some(headers), None).await;
            answered.map_err(SipError::from)
        } else {
            let same = |session: &mut Session| session.described.clone();
            self.reinvite(same, headers).await.map(Some)
        };
        let later = |terms, wait| Refreshed::Refused { terms, wait };
        let response = match answered {
            Ok(Some(response)) => response,
            Ok(None) => return later(terms, None),
            Err(error) => {
                tracing::info!(%error, "a call could not be refreshed");
                return later(terms, None);
            }
        };
        match response.status_code.code() {
            200..300 => {
                self.follow(&response);
                let media = (!response.body.is_empty()).then(|| {
                    let session = lock(&self.session);
                    Sdp::parse(&response.body)
                        .and_then(|answer| session.local.accept(&answer, session.fallback))
                        .ok()
                });
                Refreshed::Done {
                    terms: Terms::accept(&Said::read(&response)),
                    media: media.flatten(),
                }
            }
            408 | 481 => Refreshed::Gone,
            405 | 420 | 501 if updates => {
                lock(&self.session).updates = false;
                later(terms, Some(Duration::ZERO))
            }
            422 => {
                let least_s = Said::read(&response).least_s();
                later(terms.lengthened(least_s), Some(Duration::from_secs(1)))
            }
            491 => later(terms, Some(self.glare_pause())),
            _ => later(terms, retry_after(&response)),
        }
    }

    /// Sends a re-INVITE with what `describe` returns. Any final answer is `Ok`.
    async fn reinvite(
        &self,
        describe: impl Fn(&mut Session) -> String,
        headers: Vec<Header>,
    ) -> Result<Response, SipError> {
        self.wait_confirmed().await;
        let _changing = self.changing.lock().await;
        let offer = describe(&mut lock(&self.session));
        let headers = headers.into_iter().chain(sdp_headers()).collect();
        let answer = self
            .dialog
            .reinvite(Some(headers), Some(offer.clone().into_bytes()))
            .await?;
        let response = answer.ok_or(SipError::Gone)?;
        if response.status_code.kind() == StatusCodeKind::Successful {
            lock(&self.session).described = offer;
            self.follow(&response);
        }
        Ok(response)
    }

    /// RFC 3261 §14.1: the owner of the Call-ID waits longer.
    fn glare_pause(&self) -> Duration {
        let tenths = if self.dialog.role() == TransactionRole::Client {
            21..=40
        } else {
            0..=20
        };
        Duration::from_millis(100 * rand::random_range(tenths))
    }

    /// Takes over what a message says about its sender: where it is now (RFC 3261 §12.2), what it can do.
    pub fn follow(&self, message: &impl HeadersExt) {
        if message.header_value("Allow").is_some() {
            lock(&self.session).updates = allows(message, "UPDATE");
        }
        let Ok(contact) = message.contact_header() else {
            return;
        };
        let Ok(list) = typed::Contact::parse_header_list(contact.value()) else {
            return;
        };
        let Some(mut uri) = list.into_iter().next().map(|contact| contact.uri) else {
            return;
        };
        let now = self.dialog.snapshot().remote_uri;
        // The library writes the hop's transport into a target that names none.
        if let (None, Some(transport)) = (uri.transport(), now.transport()) {
            uri.params.push(Param::Transport(*transport));
        }
        if uri != now {
            Dialog::Invite(self.dialog.clone()).set_remote_target(uri, Some(contact.clone()));
        }
    }
}

fn allows(message: &impl HeadersExt, method: &str) -> bool {
    message
        .headers()
        .iter()
        .filter_map(|header| match header {
            Header::Allow(allow) => Some(allow.value()),
            _ => None,
        })
        .flat_map(|value| value.split(','))
        .any(|allowed| allowed.trim().eq_ignore_ascii_case(method))
}

/// Retry-After of a refusal.
pub(crate) fn retry_after(response: &Response) -> Option<Duration> {
    let value = response.header_value("Retry-After")?;
    let seconds = value.split([';', '(', ' ']).next()?.trim().parse().ok()?;
    Some(Duration::from_secs(seconds))
}
