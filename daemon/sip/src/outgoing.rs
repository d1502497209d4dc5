//! Outgoing calls. Source: RFC 3261 §13.2.

use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rsipstack::dialog::authenticate::Credential;
use rsipstack::dialog::dialog::{DialogState, DialogStateReceiver};
use rsipstack::dialog::invitation::InviteOption;
use rsipstack::dialog::invite_dialog::InviteDialog;
use rsipstack::sip::uri::ParamsExt as _;
use rsipstack::sip::{self, Header, Host, Response, Uri};
use rsipstack::transport::SipAddr;
use tokio::sync::mpsc;

use crate::call::{DialogHandle, Established, Pump, refused};
use crate::change::{Session, retry_after};
use crate::config::Transport;
use crate::core::{CallPermit, Core, lock};
use crate::error::SipError;
use crate::locate::Server;
use crate::sdp::{Direction, Sdp};
use crate::timer::{Said, SessionTimers, Terms, request_headers};
use crate::tls;
use crate::transfer::TransferProgress;

/// How long a call may ring before it is cancelled.
const RING: Duration = Duration::from_secs(60);
/// A server that has not said a word by then is passed over for the next.
const FIRST_ANSWER: Duration = Duration::from_secs(4);
/// Longest subject \[characters\].
const MAX_SUBJECT: usize = 200;
/// Our name where no credentials give one.
const USER: &str = "attendant";

/// Forgets the Call-ID when the INVITE is done, however it ends.
struct Dialling<'a>(&'a Core, String);

impl Drop for Dialling<'_> {
    fn drop(&mut self) {
        // In this order: what comes between them is not noted.
        lock(&self.0.dialled).remove(&self.1);
        lock(&self.0.early).remove(&self.1);
    }
}

/// A call to place.
#[derive(Clone)]
pub struct Outgoing {
    /// `sip:user@host[:port][;transport=tcp]` or `tls`.
    pub target: String,
    /// User name and password for challenges; `None`: those of the account at the target's host, if there is one.
    pub credentials: Option<(String, String)>,
    /// Shown to the person called, where their telephone shows it. No line breaks; cut at 200 characters.
    pub subject: Option<String>,
    /// How long it may ring before it is cancelled.
    pub ring: Duration,
    /// Told while it rings; only `Trying` and `Ringing`.
    pub progress: Option<mpsc::Sender<TransferProgress>>,
}

impl Outgoing {
    /// A plain call.
    pub fn to(target: &str) -> Outgoing {
        Outgoing {
            target: target.to_string(),
            credentials: None,
            subject: None,
            ring: RING,
            progress: None,
        }
    }
}

impl std::fmt::Debug for Outgoing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Outgoing")
            .field("ring", &self.ring)
            .finish_non_exhaustive()
    }
}

/// How one server took our call.
enum Tried {
    /// This is the answer.
    Final(SipError),
    /// Another server may do better (RFC 3263 §4.3).
    Next(SipError),
    /// The same; and this one said for how long it cannot.
    Later(SipError, Duration),
}

impl From<SipError> for Tried {
    fn from(error: SipError) -> Self {
        Tried::Final(error)
    }
}

impl From<io::Error> for Tried {
    fn from(error: io::Error) -> Self {
        Tried::Final(error.into())
    }
}

/// Places a call and waits for the answer; dropping the future cancels it.
pub(crate) async fn invite(core: &Arc<Core>, call: Outgoing) -> Result<Established, SipError> {
    let callee = parse_target(&call.target)?;
    let credential = credential(core, &call, &callee);
    let servers = core.locator.servers(&callee).await?;
    let permit = core
        .calls
        .try_admit(core.config.max_calls)
        .ok_or(SipError::Refused {
            status: 486,
            reason: "all our lines are in use".to_string(),
        })?;
    let mut attempt = Attempt {
        core,
        call: &call,
        callee,
        credential,
        permit: Some(permit),
    };
    let mut outcome = SipError::Gone;
    for (tried, server) in servers.iter().enumerate() {
        let more = tried + 1 < servers.len();
        let (error, said) = match attempt.run(*server, more).await {
            Ok(established) => {
                core.locator.works(server.addr);
                return Ok(established);
            }
            Err(Tried::Final(error)) => return Err(error),
            Err(Tried::Next(error)) => (error, None),
            Err(Tried::Later(error, said)) => (error, Some(said)),
        };
        core.locator.failed(server.addr, said);
        if more {
            tracing::info!(%error, "a server did not take our call; trying the next");
        }
        outcome = error;
    }
    Err(outcome)
}

struct Attempt<'a> {
    core: &'a Arc<Core>,
    call: &'a Outgoing,
    callee: Uri,
    credential: Option<Credential>,
    permit: Option<CallPermit>,
}

impl Attempt<'_> {
    async fn run(&mut self, server: Server, more: bool) -> Result<Established, Tried> {
        let (core, call) = (self.core, self.call);
        let ip = server.addr.ip();
        let trust = tls::trust_for(core, &self.callee);
        tls::ensure(core, server, &self.callee, &trust)
            .await
            .map_err(Tried::Next)?;
        let (sockets, lease) = core.ports.bind(core.local_ip(ip)?)?;
        let mut local = core.local_media(ip, sockets.rtp.local_addr()?.port())?;
        let offer = local.offer(Direction::SendRecv).to_string();
        let call_id = format!("{:032x}@{}", rand::random::<u128>(), local.ip);
        lock(&core.dialled).insert(call_id.clone());
        let _dialling = Dialling(core, call_id.clone());
        let mut timers = core.config.timers;
        let (dialog, mut early, response) = loop {
            let option = self.option(server, &call_id, &offer, timers)?;
            let (dialog, early, response) = self.dial(option, more).await?;
            match response.status_code.code() {
                200..300 => break (dialog, early, response),
                408 => return Err(Tried::Next(SipError::Timeout { seconds: 32 })),
                422 => {
                    // Once: a longer least than the last one is asked for.
                    let least_s = Said::read(&response).least_s().unwrap_or(0);
                    if least_s <= timers.min_s {
                        return Err(Tried::Final(refused(&response.status_code)));
                    }
                    timers.min_s = least_s;
                }
                503 => {
                    let error = refused(&response.status_code);
                    return Err(match retry_after(&response) {
                        Some(said) => Tried::Later(error, said),
                        None => Tried::Next(error),
                    });
                }
                _ => return Err(Tried::Final(refused(&response.status_code))),
            }
        };
        // Dropping `_dialling` only now lets an early BYE find the dialog.
        early.drain(call.progress.as_ref());
        // The answer may have come with a provisional response (RFC 3262 §5); then the 200 needs none.
        let body = early
            .description
            .as_ref()
            .filter(|_| response.body.is_empty())
            .unwrap_or(&response.body);
        let agreed = Sdp::parse(body).and_then(|answer| local.accept(&answer, ip));
        let terms = Terms::accept(&Said::read(&response));
        let current = agreed.as_ref().ok().copied();
        let session = Session::new(local, current, ip, offer, terms, &response);
        let pump = Pump {
            core: core.clone(),
            dialog,
            states: early.states,
            backlog: early.backlog,
            session: Arc::new(Mutex::new(session)),
            late: None,
            offered: false,
            news: None,
            lease: Arc::new(lease),
            _permit: self.permit.take().ok_or(SipError::Gone)?,
        };
        let (control, events) = pump.spawn();
        // On an unusable answer, dropping the handle hangs up.
        let handle = DialogHandle::new(control);
        Ok(Established {
            socket: sockets.rtp,
            rtcp_socket: sockets.rtcp,
            media: agreed.map_err(SipError::from)?,
            events,
            handle,
        })
    }

    fn option(
        &self,
        server: Server,
        call_id: &str,
        offer: &str,
        timers: SessionTimers,
    ) -> Result<InviteOption, SipError> {
        let mut headers = Vec::new();
        if timers.expires_s > 0 {
            let interval_s = timers.expires_s.max(timers.min_s);
            headers.extend(request_headers(interval_s, timers.min_s, None));
        }
        headers.extend(self.call.subject.as_deref().map(subject));
        let known = self.credential.as_ref();
        let user = known.map_or(USER, |known| known.username.as_str());
        let contact = self
            .core
            .contact(user, server.addr.ip(), Transport::of(server.transport))?;
        let mut caller = contact.clone();
        caller.params.clear();
        let named = matches!(self.callee.host_with_port.host, Host::Domain(_));
        Ok(InviteOption {
            caller,
            callee: self.callee.clone(),
            contact,
            destination: named.then(|| SipAddr {
                r#type: Some(server.transport),
                addr: server.addr.into(),
            }),
            call_id: Some(call_id.to_string()),
            offer: Some(offer.as_bytes().to_vec()),
            credential: self.credential.clone(),
            headers: Some(headers),
            ..InviteOption::default()
        })
    }

    /// Sends the INVITE and waits for its final answer.
    async fn dial(
        &self,
        option: InviteOption,
        more: bool,
    ) -> Result<(InviteDialog, EarlyStates, Response), Tried> {
        let (state_tx, states) = self.core.layer.new_dialog_state_channel();
        let mut early = EarlyStates::new(states);
        let invited = self.core.layer.do_invite(option, state_tx);
        let first = tokio::time::sleep(FIRST_ANSWER);
        let ring = tokio::time::sleep(self.call.ring);
        tokio::pin!(invited, first, ring);
        let mut impatient = more;
        let answered = loop {
            tokio::select! {
                answered = &mut invited => break answered,
                Some(state) = early.states.recv() => early.take(state, self.call.progress.as_ref()),
                () = &mut first, if impatient => {
                    if !early.heard {
                        let seconds = FIRST_ANSWER.as_secs();
                        return Err(Tried::Next(SipError::Timeout { seconds }));
                    }
                    impatient = false;
                }
                () = &mut ring => {
                    let seconds = self.call.ring.as_secs();
                    return Err(Tried::Final(SipError::Timeout { seconds }));
                }
            }
        };
        // What the network says before anybody answered is about this server.
        let (dialog, response) = answered.map_err(|error| Tried::Next(error.into()))?;
        let response = response.ok_or(Tried::Final(SipError::Gone))?;
        Ok((dialog, early, response))
    }
}

/// The dialog's states while nobody has answered.
struct EarlyStates {
    states: DialogStateReceiver,
    /// Those that the dialog's task has to see.
    backlog: VecDeque<DialogState>,
    /// The last description that came with a provisional answer.
    description: Option<Vec<u8>>,
    /// Somebody is there.
    heard: bool,
}

impl EarlyStates {
    fn new(states: DialogStateReceiver) -> EarlyStates {
        EarlyStates {
            states,
            backlog: VecDeque::new(),
            description: None,
            heard: false,
        }
    }

    /// Takes what is there.
    fn drain(&mut self, progress: Option<&mpsc::Sender<TransferProgress>>) {
        while let Ok(state) = self.states.try_recv() {
            self.take(state, progress);
        }
    }

    fn take(&mut self, state: DialogState, progress: Option<&mpsc::Sender<TransferProgress>>) {
        let news = match state {
            DialogState::Calling(_) => return,
            DialogState::Trying(_) => TransferProgress::Trying,
            DialogState::Early(_, response) => {
                if !response.body.is_empty() {
                    self.description = Some(response.body);
                }
                TransferProgress::Ringing
            }
            other => {
                self.backlog.push_back(other);
                return;
            }
        };
        self.heard = true;
        if let Some(progress) = progress {
            // Who does not listen misses it.
            let _ = progress.try_send(news);
        }
    }
}

/// Those given, else those of the account at the callee's host.
fn credential(core: &Core, call: &Outgoing, callee: &Uri) -> Option<Credential> {
    if let Some((username, password)) = call.credentials.clone() {
        return Some(Credential {
            username,
            password,
            ..Credential::default()
        });
    }
    let account = core.account_at(callee)?;
    Some(Credential {
        username: account.username.clone(),
        password: account.password.clone(),
        realm: account.realm.clone(),
        auth_username: account.auth_user.clone(),
    })
}

fn subject(text: &str) -> Header {
    let line: String = text
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .take(MAX_SUBJECT)
        .collect();
    Header::Subject(line.trim().to_string().into())
}

/// Whether `target` is a whole SIP address, as a list of targets needs it.
///
/// # Errors
/// [`SipError::BadAddress`] with what would be accepted.
pub fn check_target(target: &str) -> Result<(), SipError> {
    let uri = parse_target(target)?;
    if !target.starts_with("sip:") || uri.auth.is_none() || !uri.headers.is_empty() {
        return Err(bad_target(target));
    }
    Ok(())
}

fn bad_target(target: &str) -> SipError {
    SipError::BadAddress {
        text: target.to_string(),
        expected: "a SIP address such as sip:100@192.0.2.1 or sip:100@pbx.example:5060;transport=tcp",
    }
}

/// # Errors
/// [`SipError::BadAddress`] with what would be accepted.
pub(crate) fn parse_target(target: &str) -> Result<Uri, SipError> {
    let bad = || bad_target(target);
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
        None | Some(sip::Transport::Udp | sip::Transport::Tcp | sip::Transport::Tls) => Ok(uri),
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
            "sip:1@h;transport=tls",
        ] {
            assert!(parse_target(good).is_ok(), "{good}");
        }
        for bad in [
            "",
            "sip:",
            "sips:1@h",
            "sip:a b@h",
            "sip:1@h;transport=ws",
            "sip:1@h:99999",
        ] {
            assert!(parse_target(bad).is_err(), "{bad}");
        }
    }
}
