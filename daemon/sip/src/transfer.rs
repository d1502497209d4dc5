//! Handing a call over, and being handed over to.
//!
//! ```text
//! refer ──202──> NOTIFY 100, 180 … ──200──> Answered: we send BYE
//!    │                            `──4xx–6xx, silence──> Failed: the caller is with us, off hold
//!    `──405, 603 …──> refused: the call goes on
//!
//! INVITE with Replaces ──> the call it names goes on in the new dialog, with the same audio; BYE to the old one
//! ```
//! Source: RFC 3515 (REFER), RFC 3891 (Replaces), RFC 3892 (Referred-By), RFC 5589 (transfers).

use std::fmt::Write as _;
use std::time::Duration;

use rsipstack::dialog::DialogId;
use rsipstack::dialog::invite_dialog::InviteDialog;
use rsipstack::sip::{Header, HeadersExt as _, Method, Request, StatusCode, StatusCodeKind, Uri};
use rsipstack::transaction::key::TransactionRole;
use tokio::sync::mpsc;

use crate::call::{Control, DialogHandle, Phase, refused};
use crate::core::{Core, lock};
use crate::error::SipError;
use crate::outgoing::parse_target;
use crate::sdp::Direction;

/// Reports that may wait: each kind comes once.
const REPORTS: usize = 8;
/// Longest a transfer may take: the longest ringing, and what the PBX needs beside it.
const PATIENCE: Duration = Duration::from_secs(75);

/// How a transfer goes, as the far end tells it. After one of the last three nothing follows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TransferProgress {
    /// The far end has begun.
    Trying,
    /// It rings there.
    Ringing,
    /// Taken over; our call ends.
    Answered,
    /// Refused with this SIP status, or 408: nothing was heard of it in time. The call with us goes on.
    Failed(u16),
    /// Our call ended without a word about the transfer: taken over by a PBX that does not tell, or hung up.
    Gone,
}

/// What a NOTIFY says about a transfer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Notified {
    /// Status of the far end's own call.
    pub status: u16,
}

impl Notified {
    /// `None`: not about a transfer. Reads what the library's own reader does not; without a status it goes on.
    pub fn read(request: &Request) -> Option<Notified> {
        let event = request.header_value("Event")?;
        if !event.split(';').next()?.trim().eq_ignore_ascii_case("refer") {
            return None;
        }
        let body = String::from_utf8_lossy(&request.body);
        let status = read_status(&body).unwrap_or(100);
        Some(Notified { status })
    }
}

/// The status in a message/sipfrag.
fn read_status(body: &str) -> Option<u16> {
    let line = body.lines().map(str::trim).find(|line| !line.is_empty())?;
    let (version, rest) = line.split_once(char::is_whitespace)?;
    if !version.to_ascii_uppercase().starts_with("SIP/") {
        return None;
    }
    let status = rest.split_whitespace().next()?.parse().ok()?;
    (100..700).contains(&status).then_some(status)
}

impl DialogHandle {
    /// Asks the far end to call `target`, a SIP address, instead of us. The receiver ends after the outcome.
    ///
    /// # Errors
    /// [`SipError::BadAddress`]; [`SipError::Refused`] when the far end does not transfer, or already does;
    /// [`SipError::Gone`].
    pub async fn refer(&self, target: &str) -> Result<mpsc::Receiver<TransferProgress>, SipError> {
        let uri = parse_target(target)?;
        refer(self.control(), format!("<{uri}>")).await
    }

    /// Asks the far end to take the place of ours in the call `other`, a consultation that was answered.
    ///
    /// # Errors
    /// As [`refer`](Self::refer).
    pub async fn refer_to_call(
        &self,
        other: &DialogHandle,
    ) -> Result<mpsc::Receiver<TransferProgress>, SipError> {
        let dialog = other.control().dialog;
        let snapshot = dialog.snapshot();
        let mut target = snapshot.remote_uri;
        target.headers.clear();
        if target.auth.is_none() {
            // PBXs that name no user in their Contact find nobody without one: whom we dialled is there.
            target.auth = snapshot.to.uri.auth;
        }
        let id = dialog.id();
        let replaces = format!(
            "{};to-tag={};from-tag={}",
            id.call_id, id.remote_tag, id.local_tag
        );
        refer(
            self.control(),
            format!("<{target}?Replaces={}>", escape(&replaces)),
        )
        .await
    }
}

async fn refer(control: Control, refer_to: String) -> Result<mpsc::Receiver<TransferProgress>, SipError> {
    control.wait_confirmed().await;
    let (notified, notifications) = mpsc::channel(REPORTS);
    {
        let mut session = lock(&control.session);
        if session.referral.as_ref().is_some_and(|other| !other.is_closed()) {
            return Err(refused(&StatusCode::RequestPending));
        }
        session.referral = Some(notified);
    }
    let headers = vec![
        Header::ReferTo(refer_to.into()),
        Header::ReferredBy(format!("<{}>", own_address(&control.dialog)).into()),
    ];
    let response = control.dialog.request(Method::Refer, Some(headers), None).await?;
    let status = response.ok_or(SipError::Gone)?.status_code;
    if status.kind() != StatusCodeKind::Successful {
        return Err(refused(&status));
    }
    let (reports, progress) = mpsc::channel(REPORTS);
    tokio::spawn(watch(control, notifications, reports));
    Ok(progress)
}

/// Turns notifications into progress until there is an outcome.
async fn watch(
    control: Control,
    mut notifications: mpsc::Receiver<Notified>,
    reports: mpsc::Sender<TransferProgress>,
) {
    let mut last = None;
    let mut phase = control.phase.clone();
    let outcome = async {
        loop {
            let notified = tokio::select! {
                biased;
                notified = notifications.recv() => notified,
                _ = phase.wait_for(|phase| *phase == Phase::Over) => return TransferProgress::Gone,
            };
            let progress = match notified.map(|notified| notified.status) {
                Some(100) => TransferProgress::Trying,
                Some(101..200) => TransferProgress::Ringing,
                Some(200..300) => return TransferProgress::Answered,
                Some(status) => return TransferProgress::Failed(status),
                None => return TransferProgress::Gone,
            };
            if last.replace(progress) != Some(progress) {
                // Who does not listen misses it.
                let _ = reports.try_send(progress);
            }
        }
    };
    let outcome = tokio::time::timeout(PATIENCE, outcome)
        .await
        .unwrap_or(TransferProgress::Failed(408));
    lock(&control.session).referral = None;
    if let TransferProgress::Failed(_) = outcome {
        let held = lock(&control.session)
            .current
            .as_ref()
            .is_some_and(|media| media.direction == Direction::SendOnly);
        if held && let Err(error) = control.change_direction(Direction::SendRecv).await {
            tracing::info!(%error, "a caller came back from a transfer and could not be taken off hold");
        }
    }
    let _ = reports.send(outcome).await;
    // What the far end was asked to do is done: it waits for our BYE.
    if outcome == TransferProgress::Answered
        && let Err(error) = control.bye().await
    {
        tracing::debug!(%error, "a transferred call could not be ended");
    }
}

/// Our address in this dialog.
fn own_address(dialog: &InviteDialog) -> Uri {
    let snapshot = dialog.snapshot();
    match dialog.role() {
        TransactionRole::Client => snapshot.from.uri,
        TransactionRole::Server => snapshot.to.uri,
    }
}

/// For a header inside an address (RFC 3261 §25.1, hvalue).
fn escape(text: &str) -> String {
    text.bytes().fold(String::new(), |mut out, byte| {
        if byte.is_ascii_alphanumeric() || b"-_.!~*'()".contains(&byte) {
            out.push(char::from(byte));
        } else {
            let _ = write!(out, "%{byte:02X}");
        }
        out
    })
}

/// Which call a Replaces names.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Replaces {
    id: DialogId,
    early_only: bool,
}

impl Replaces {
    /// `Ok(None)`: the INVITE replaces nothing.
    ///
    /// # Errors
    /// More than one, or not readable: answer 400 (RFC 3891 §3).
    pub fn read(invite: &Request) -> Result<Option<Replaces>, ()> {
        let mut values = invite.headers.iter().filter_map(|header| match header {
            Header::Replaces(replaces) => Some(replaces.value()),
            _ => None,
        });
        let Some(value) = values.next() else {
            return Ok(None);
        };
        if values.next().is_some() {
            return Err(());
        }
        Replaces::parse(value).map(Some).ok_or(())
    }

    fn parse(value: &str) -> Option<Replaces> {
        let mut parts = value.split(';').map(str::trim);
        let call_id = parts.next().filter(|id| !id.is_empty())?.to_string();
        let (mut to, mut from, mut early_only) = (None, None, false);
        for part in parts {
            let (name, tag) = part.split_once('=').unwrap_or((part, ""));
            let place = match name.trim().to_ascii_lowercase().as_str() {
                "to-tag" => &mut to,
                "from-tag" => &mut from,
                "early-only" => {
                    early_only = true;
                    continue;
                }
                _ => continue,
            };
            if place.replace(tag.trim().to_string()).is_some() {
                return None;
            }
        }
        Some(Replaces {
            id: DialogId {
                call_id,
                local_tag: to?,
                remote_tag: from?,
            },
            early_only,
        })
    }

    /// The call to take over.
    ///
    /// # Errors
    /// The status to refuse with (RFC 3891 §3).
    pub fn find(&self, core: &Core) -> Result<Control, StatusCode> {
        let control = core
            .calls
            .find(&self.id)
            .ok_or(StatusCode::CallTransactionDoesNotExist)?;
        let state = control.dialog.state();
        if control.is_over() || control.replaced.get().is_some() {
            Err(StatusCode::Decline)
        } else if !state.is_confirmed() {
            // An early call that we did not begin.
            Err(StatusCode::CallTransactionDoesNotExist)
        } else if self.early_only {
            Err(StatusCode::BusyHere)
        } else {
            Ok(control)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rsipstack::sip::SipMessage;

    fn notify(event: &str, body: &str) -> Option<u16> {
        let text = format!(
            "NOTIFY sip:a@h SIP/2.0\r\n{event}: refer;id=2\r\nSubscription-State: active\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        let SipMessage::Request(request) = SipMessage::try_from(text.as_bytes()).unwrap() else {
            panic!("a request");
        };
        Notified::read(&request).map(|notified| notified.status)
    }

    #[test]
    fn what_pbxs_write_into_a_notify_is_read() {
        let cases = [
            ("Event", "SIP/2.0 100 Trying\r\n", Some(100)),
            ("o", "SIP/2.0 180 Ringing", Some(180)),
            ("Event", "SIP/2.0 200 OK\r\n\r\n", Some(200)),
            (
                "Event",
                "\r\n  sip/2.0 486 Busy Here\r\nContact: <sip:x>\r\n",
                Some(486),
            ),
            ("Event", "SIP/2.0 603\r\n", Some(603)),
            ("Event", "", Some(100)),
            ("Event", "SIP/2.0 9999 No", Some(100)),
            ("Event", "200 OK", Some(100)),
            ("X", "SIP/2.0 200 OK", None),
        ];
        for (event, body, want) in cases {
            assert_eq!(notify(event, body), want, "{body:?}");
        }
    }

    #[test]
    fn a_replaces_names_one_call() {
        let id = |call_id: &str, to: &str, from: &str| DialogId {
            call_id: call_id.into(),
            local_tag: to.into(),
            remote_tag: from.into(),
        };
        let cases = [
            ("a@b;to-tag=1;from-tag=2", Some((id("a@b", "1", "2"), false))),
            (
                "a ; from-tag = 2 ; early-only ; to-tag = 1",
                Some((id("a", "1", "2"), true)),
            ),
            ("a;to-tag=1;x=y;from-tag=0", Some((id("a", "1", "0"), false))),
            ("a;to-tag=1", None),
            ("a;to-tag=1;from-tag=2;to-tag=3", None),
            (";to-tag=1;from-tag=2", None),
            ("", None),
        ];
        for (value, want) in cases {
            let got = Replaces::parse(value).map(|r| (r.id, r.early_only));
            assert_eq!(got, want, "{value}");
        }
    }

    #[test]
    fn a_header_in_an_address_is_escaped() {
        assert_eq!(
            escape("a@b;to-tag=1;from-tag=x_2"),
            "a%40b%3Bto-tag%3D1%3Bfrom-tag%3Dx_2"
        );
    }
}
