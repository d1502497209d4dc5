//! Outgoing calls. Source: RFC 3261 §13.2.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rsipstack::dialog::authenticate::Credential;
use rsipstack::dialog::dialog::DialogState;
use rsipstack::dialog::invitation::InviteOption;
use rsipstack::sip::uri::ParamsExt as _;
use rsipstack::sip::{self, Uri};

use crate::call::{DialogHandle, Established, Pump, refused};
use crate::change::Session;
use crate::config::Transport;
use crate::core::{Core, lock, resolve};
use crate::error::SipError;
use crate::media::LocalMedia;
use crate::sdp::{Direction, Sdp};
use crate::timer::{Said, Terms, request_headers};

/// How long a call may ring before it is cancelled.
const RING: Duration = Duration::from_secs(60);
/// Our name where no credentials give one.
const USER: &str = "attendant";

/// Forgets the Call-ID when the INVITE is done, however it ends.
struct Dialling<'a>(&'a Core, String);

impl Drop for Dialling<'_> {
    fn drop(&mut self) {
        lock(&self.0.early).remove(&self.1);
        lock(&self.0.dialling).remove(&self.1);
    }
}

/// Places a call and waits for the answer; dropping the future cancels it.
pub(crate) async fn invite(
    core: &Arc<Core>,
    target: &str,
    credentials: Option<(String, String)>,
) -> Result<Established, SipError> {
    let callee = parse_target(target)?;
    let addr = resolve(&callee)
        .await?
        .first()
        .copied()
        .ok_or(SipError::BadAddress {
            text: target.to_string(),
            expected: "a SIP address whose host has an address",
        })?;
    let tcp = matches!(callee.transport(), Some(sip::Transport::Tcp));
    let permit = core
        .calls
        .try_admit(core.config.max_calls)
        .ok_or(SipError::Refused {
            status: 486,
            reason: "all our lines are in use".to_string(),
        })?;
    let (socket, lease) = core.ports.bind(core.local_ip(addr.ip())?)?;
    let mut local = LocalMedia {
        ip: core.advertised_ip(addr.ip())?,
        port: socket.local_addr()?.port(),
        session_id: u64::from(rand::random::<u32>()),
        version: 0,
    };
    let offer = local.offer(Direction::SendRecv).to_string();
    let user = credentials.as_ref().map_or(USER, |(user, _)| user.as_str());
    let contact = core.contact(user, addr.ip(), if tcp { Transport::Tcp } else { Transport::Udp })?;
    let mut caller = contact.clone();
    caller.params.clear();
    let call_id = format!("{:032x}@{}", rand::random::<u128>(), local.ip);
    lock(&core.dialling).insert(call_id.clone());
    let _dialling = Dialling(core, call_id.clone());
    let credential = credentials.map(|(username, password)| Credential {
        username,
        password,
        realm: None,
        auth_username: None,
    });
    let mut timers = core.config.timers;
    let (dialog, mut states, response) = loop {
        let asked = (timers.expires_s > 0)
            .then(|| request_headers(timers.expires_s.max(timers.min_s), timers.min_s, None));
        let option = InviteOption {
            caller: caller.clone(),
            callee: callee.clone(),
            contact: contact.clone(),
            call_id: Some(call_id.clone()),
            offer: Some(offer.clone().into_bytes()),
            credential: credential.clone(),
            headers: asked,
            ..InviteOption::default()
        };
        let (state_tx, states) = core.layer.new_dialog_state_channel();
        let invited = tokio::time::timeout(RING, core.layer.do_invite(option, state_tx)).await;
        let (dialog, response) = invited.map_err(|_| SipError::Timeout {
            seconds: RING.as_secs(),
        })??;
        let response = response.ok_or(SipError::Gone)?;
        match response.status_code.code() {
            200..300 => break (dialog, states, response),
            408 => return Err(SipError::Timeout { seconds: 32 }),
            422 => {
                // Once: a longer least than the last one is asked for.
                let least_s = Said::read(&response).least_s().unwrap_or(0);
                if least_s <= timers.min_s {
                    return Err(refused(&response.status_code));
                }
                timers.min_s = least_s;
            }
            _ => return Err(refused(&response.status_code)),
        }
    };
    // Dropping `_dialling` only now lets an early BYE find the dialog.
    let mut backlog = VecDeque::new();
    while let Ok(state) = states.try_recv() {
        backlog.push_back(state);
    }
    // The answer may have come with a provisional response (RFC 3262 §5); then the 200 needs none.
    let early = backlog.iter().rev().find_map(|state| match state {
        DialogState::Early(_, early) if !early.body.is_empty() => Some(&early.body),
        _ => None,
    });
    let body = early.filter(|_| response.body.is_empty()).unwrap_or(&response.body);
    let agreed = Sdp::parse(body).and_then(|answer| local.accept(&answer, addr.ip()));
    let terms = Terms::accept(&Said::read(&response));
    let current = agreed.as_ref().ok().copied();
    let session = Session::new(local, current, addr.ip(), offer, terms, &response);
    let session = Arc::new(Mutex::new(session));
    let pump = Pump {
        core: core.clone(),
        dialog,
        states,
        backlog,
        session,
        late: None,
        _lease: lease,
        _permit: permit,
    };
    let (control, events) = pump.spawn();
    // On an unusable answer, dropping the handle hangs up.
    let handle = DialogHandle::new(control);
    Ok(Established {
        socket,
        media: agreed?,
        events,
        handle,
    })
}

/// # Errors
/// [`SipError::BadAddress`] with what would be accepted.
fn parse_target(target: &str) -> Result<Uri, SipError> {
    let bad = || SipError::BadAddress {
        text: target.to_string(),
        expected: "a SIP address such as sip:100@192.0.2.1 or sip:100@pbx.example:5060;transport=tcp",
    };
    let with_scheme = if target.starts_with("sip:") {
        target.to_string()
    } else {
        format!("sip:{target}")
    };
    let other_scheme = ["sips:", "tel:", "http:", "https:"]
        .iter()
        .any(|scheme| target.starts_with(scheme));
    if other_scheme || with_scheme.contains(char::is_whitespace) {
        return Err(bad());
    }
    let uri = Uri::try_from(with_scheme.as_str()).map_err(|_| bad())?;
    match uri.transport() {
        None | Some(sip::Transport::Udp | sip::Transport::Tcp) => Ok(uri),
        Some(_) => Err(bad()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_are_sip_addresses() {
        for good in [
            "sip:100@127.0.0.1",
            "sip:127.0.0.1:5060",
            "100@pbx.example",
            "sip:1@h:5060;transport=tcp",
        ] {
            assert!(parse_target(good).is_ok(), "{good}");
        }
        for bad in [
            "",
            "sip:",
            "sips:1@h",
            "sip:a b@h",
            "sip:1@h;transport=tls",
            "sip:1@h:99999",
        ] {
            assert!(parse_target(bad).is_err(), "{bad}");
        }
    }
}
