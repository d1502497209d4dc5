//! A call once it exists: one task per dialog turns the library's states into events.
//!
//! ```text
//! Ringing --answer--> Answered --ACK--> Confirmed --BYE, error, no refresh--> Over
//!    `----------------CANCEL, refusal----------------------------------------^
//! ```
//! Source: RFC 3261 §13–15, RFC 3264 §8 (changing a session), RFC 4028 (refreshing it).

use std::collections::VecDeque;
use std::net::UdpSocket;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant};

use rsipstack::dialog::dialog::{DialogState, DialogStateReceiver, TerminatedReason, TransactionHandle};
use rsipstack::dialog::invite_dialog::InviteDialog;
use rsipstack::sip::{Header, HeadersExt as _, Method, Request, StatusCode, StatusCodeKind};
use tokio::sync::{mpsc, oneshot, watch};

use crate::change::{Refreshed, Session};
use crate::core::{CallPermit, Core, lock};
use crate::error::SipError;
use crate::info::{self, Key};
use crate::media::Negotiated;
use crate::ports::PortLease;
use crate::sdp::{Direction, Sdp, SdpError};
use crate::timer::{Due, Said, SessionTimer, Terms, TooShort};

/// Events waiting for the owner of a call; digits beyond are dropped, the rest waits [`EVENT_PATIENCE`].
const EVENTS: usize = 64;
/// How long a full queue may hold up signalling.
const EVENT_PATIENCE: Duration = Duration::from_secs(2);
/// RFC 3261 §15: who was called does not send BYE before the ACK; but not for ever.
const ACK_PATIENCE: Duration = Duration::from_secs(4);
/// How long `bye` waits for its 200; the transaction goes on by itself.
const BYE_PATIENCE: Duration = Duration::from_secs(4);

/// An answered call.
#[derive(Debug)]
pub struct Established {
    /// Bound RTP socket.
    pub socket: UdpSocket,
    /// Bound to the port above it, for RTCP.
    pub rtcp_socket: UdpSocket,
    /// What was agreed on.
    pub media: Negotiated,
    /// What happens from here on; ends with [`DialogEvent::Bye`] or [`DialogEvent::Failed`], then `None`.
    pub events: mpsc::Receiver<DialogEvent>,
    /// Ends and changes the call. Dropping the last handle sends BYE.
    pub handle: DialogHandle,
}

/// What happens in a call.
#[derive(Debug, Clone, PartialEq)]
pub enum DialogEvent {
    /// The call has ended, by either side.
    Bye,
    /// The far end moved its media or changed its codec.
    Media(Negotiated),
    /// The far end put us on hold (`true`) or came back.
    Hold(bool),
    /// A key by SIP INFO. Never log it.
    InfoDigit(char),
    /// The hook was pressed for a moment, by SIP INFO.
    Flash,
    /// Somebody else has taken the far end's place (RFC 3891); [`DialogEvent::Media`] follows if that changes the audio.
    Replaced,
    /// The call ended by an error: no ACK, no common media.
    Failed(&'static str),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd)]
pub(crate) enum Phase {
    Ringing,
    Confirmed,
    Over,
}

/// What a handle and the shutdown need; holds nothing alive.
#[derive(Clone)]
pub(crate) struct Control {
    pub dialog: InviteDialog,
    pub session: Arc<Mutex<Session>>,
    pub phase: watch::Receiver<Phase>,
    /// Held while a re-INVITE of ours is under way: one at a time, and theirs gets 491 (RFC 3261 §14).
    pub changing: Arc<tokio::sync::Mutex<()>>,
    /// The call's events, as long as somebody sends any.
    pub events: mpsc::WeakSender<DialogEvent>,
    /// The call's RTP port.
    pub lease: Arc<PortLease>,
    /// The dialog that has taken this one's place.
    pub replaced: Arc<OnceLock<Control>>,
}

impl Control {
    /// The dialog in which the call goes on.
    pub fn current(&self) -> Control {
        let mut current = self.clone();
        while let Some(next) = current.replaced.get().cloned() {
            current = next;
        }
        current
    }

    pub fn is_over(&self) -> bool {
        *self.phase.borrow() == Phase::Over || self.dialog.state().is_terminated()
    }

    /// An incoming call nobody has answered yet.
    pub fn phase_is_ringing(&self) -> bool {
        !self.is_over() && self.dialog.state().can_cancel()
    }

    pub async fn wait_over(&self) {
        // An error means the task is gone, which is over too.
        let _ = self.phase.clone().wait_for(|phase| *phase == Phase::Over).await;
    }

    /// Waits for the ACK: before it, no request of ours may go out in the dialog. Not for ever.
    pub async fn wait_confirmed(&self) {
        let mut phase = self.phase.clone();
        let _ = tokio::time::timeout(ACK_PATIENCE, phase.wait_for(|phase| *phase >= Phase::Confirmed)).await;
    }

    pub async fn bye(&self) -> Result<(), SipError> {
        if self.is_over() {
            return Ok(());
        }
        self.wait_confirmed().await;
        let dialog = self.dialog.clone();
        // A task of its own: the transaction must outlive an impatient caller.
        let sent = tokio::spawn(async move { dialog.bye().await });
        match tokio::time::timeout(BYE_PATIENCE, sent).await {
            Ok(Ok(Err(error))) if !self.is_over() => Err(error.into()),
            _ => Ok(()),
        }
    }
}

/// Ends and changes a call; cheap to clone.
#[derive(Clone)]
pub struct DialogHandle {
    last: Arc<LastHandle>,
}

struct LastHandle {
    control: Control,
    call_id: String,
}

impl Drop for LastHandle {
    fn drop(&mut self) {
        let control = self.control.current();
        if !control.is_over()
            && let Ok(runtime) = tokio::runtime::Handle::try_current()
        {
            runtime.spawn(async move { control.bye().await });
        }
    }
}

impl std::fmt::Debug for DialogHandle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DialogHandle")
            .field("call_id", &self.last.call_id)
            .finish_non_exhaustive()
    }
}

impl DialogHandle {
    pub(crate) fn new(control: Control) -> DialogHandle {
        let call_id = control.dialog.id().call_id;
        DialogHandle {
            last: Arc::new(LastHandle { control, call_id }),
        }
    }

    pub(crate) fn control(&self) -> Control {
        self.last.control.current()
    }

    /// The Call-ID header.
    pub fn call_id(&self) -> &str {
        &self.last.call_id
    }

    /// Hangs up; no error when the call is over already.
    ///
    /// # Errors
    /// [`SipError::Signalling`] when BYE could not be sent.
    pub async fn bye(&self) -> Result<(), SipError> {
        self.control().bye().await
    }

    /// Whether the call has ended.
    pub fn is_over(&self) -> bool {
        self.control().is_over()
    }

    /// Waits for the end of the call.
    pub async fn ended(&self) {
        loop {
            let control = self.control();
            control.wait_over().await;
            if control.replaced.get().is_none() {
                return;
            }
        }
    }

    /// Puts the far end on hold (`true`) or takes it back, by re-INVITE.
    ///
    /// # Errors
    /// [`SipError::Refused`], [`SipError::Media`] or [`SipError::Gone`]; the session stays as it was.
    pub async fn hold(&self, hold: bool) -> Result<Negotiated, SipError> {
        let direction = if hold {
            Direction::SendOnly
        } else {
            Direction::SendRecv
        };
        self.control().change_direction(direction).await
    }

    /// Sends a key by SIP INFO, for far ends without telephone-event.
    ///
    /// # Errors
    /// [`SipError::Refused`] or [`SipError::Gone`].
    pub async fn info_digit(&self, digit: char) -> Result<(), SipError> {
        let headers = vec![Header::ContentType("application/dtmf-relay".into())];
        let body = format!("Signal={digit}\r\nDuration=160\r\n");
        let control = self.control();
        control.wait_confirmed().await;
        let response = control
            .dialog
            .info(Some(headers), Some(body.into_bytes()))
            .await?;
        match response.ok_or(SipError::Gone)?.status_code {
            status if status.kind() == StatusCodeKind::Successful => Ok(()),
            status => Err(refused(&status)),
        }
    }
}

pub(crate) fn refused(status: &StatusCode) -> SipError {
    SipError::Refused {
        status: status.code(),
        reason: status.text().to_string(),
    }
}

pub(crate) fn sdp_headers() -> Vec<Header> {
    vec![Header::ContentType("application/sdp".into())]
}

/// The task of one dialog.
pub(crate) struct Pump {
    pub core: Arc<Core>,
    pub dialog: InviteDialog,
    pub states: DialogStateReceiver,
    /// States taken from there already.
    pub backlog: VecDeque<DialogState>,
    pub session: Arc<Mutex<Session>>,
    /// The answer to a late offer, for whoever waits for it.
    pub late: Option<oneshot::Sender<Result<Negotiated, SdpError>>>,
    /// Our offer goes out with the 200; the ACK brings the answer.
    pub offered: bool,
    /// What the owner of a call taken over does not know yet.
    pub news: Option<Negotiated>,
    pub lease: Arc<PortLease>,
    /// Held for its drop.
    pub _permit: CallPermit,
}

impl Pump {
    /// Cancel safe.
    async fn next_state(&mut self) -> Option<DialogState> {
        match self.backlog.pop_front() {
            Some(state) => Some(state),
            None => self.states.recv().await,
        }
    }

    /// Starts the task.
    pub fn spawn(self) -> (Control, mpsc::Receiver<DialogEvent>) {
        let (events, events_rx) = mpsc::channel(EVENTS);
        (self.start(events, None), events_rx)
    }

    /// Starts the task of a dialog that takes the place of `old`.
    pub fn take_over(self, old: &Control, events: mpsc::Sender<DialogEvent>) -> Control {
        self.start(events, Some(old))
    }

    fn start(self, events: mpsc::Sender<DialogEvent>, old: Option<&Control>) -> Control {
        let (phase, phase_rx) = watch::channel(Phase::Ringing);
        let control = Control {
            dialog: self.dialog.clone(),
            session: self.session.clone(),
            phase: phase_rx,
            changing: Arc::default(),
            events: events.downgrade(),
            lease: self.lease.clone(),
            replaced: Arc::default(),
        };
        if let Some(old) = old {
            // A second one at the same time finds it taken, and its call ends by itself.
            let _ = old.replaced.set(control.clone());
        }
        let id = self.core.calls.insert(control.clone());
        let (refreshed, refreshes) = mpsc::channel(1);
        let mut running = Running {
            offered: self.offered.then(|| cseq(&self.dialog.initial_request())),
            pump: self,
            control: control.clone(),
            events,
            phase,
            timer: None,
            refreshed,
            refreshes,
        };
        let replaces = old.is_some();
        tokio::spawn(async move {
            if replaces {
                running.send(DialogEvent::Replaced).await;
            }
            if let Some(news) = running.pump.news.take() {
                running.apply(news).await;
            }
            running.run().await;
            running.pump.core.calls.remove(id);
        });
        control
    }
}

struct Running {
    pump: Pump,
    control: Control,
    events: mpsc::Sender<DialogEvent>,
    phase: watch::Sender<Phase>,
    /// Our offer went out in the 200 to the INVITE of this CSeq; its ACK brings the answer.
    offered: Option<u32>,
    timer: Option<SessionTimer>,
    /// For the task that refreshes, and what it reports.
    refreshed: mpsc::Sender<Refreshed>,
    refreshes: mpsc::Receiver<Refreshed>,
}

impl Running {
    async fn run(&mut self) {
        let mut end = DialogEvent::Bye;
        loop {
            let timeout = self.timer.as_ref().map(SessionTimer::poll_timeout);
            let expired = tokio::select! {
                state = self.pump.next_state() => match state {
                    Some(DialogState::Terminated(_, reason)) => {
                        if matches!(reason, TerminatedReason::Timeout) {
                            end = DialogEvent::Failed("the far end never acknowledged the answer");
                        }
                        break;
                    }
                    Some(state) => {
                        self.handle_state(state).await;
                        false
                    }
                    None => break,
                },
                Some(refreshed) = self.refreshes.recv() => self.handle_refreshed(refreshed).await,
                () = sleep_until(timeout) => self.handle_timeout(),
            };
            if expired {
                end = DialogEvent::Failed("the far end no longer confirms the call");
                let dialog = self.pump.dialog.clone();
                tokio::spawn(async move { dialog.bye().await });
                break;
            }
        }
        let id = self.pump.dialog.id();
        self.pump.core.layer.remove_dialog(&id);
        lock(&self.pump.core.proxied).remove(&id.call_id);
        self.phase.send_replace(Phase::Over);
        if self.control.replaced.get().is_none() {
            self.send(end).await;
        }
    }

    async fn handle_state(&mut self, state: DialogState) {
        match state {
            DialogState::Confirmed(..) => self.handle_confirmed().await,
            DialogState::Updated(_, request, handle) => self.handle_offer(&request, handle).await,
            DialogState::Info(_, request, handle) => self.handle_info(&request, handle).await,
            // Nobody transfers us: whom we talk to is for the configuration to say.
            DialogState::Refer(_, _, handle) => {
                let _ = handle.reply(StatusCode::Decline).await;
            }
            // Answered before they get here.
            DialogState::Notify(_, _, handle)
            | DialogState::Publish(_, _, handle)
            | DialogState::Message(_, _, handle)
            | DialogState::Options(_, _, handle) => {
                let _ = handle.reply(StatusCode::MethodNotAllowed).await;
            }
            DialogState::Calling(_)
            | DialogState::Trying(_)
            | DialogState::Early(..)
            | DialogState::WaitAck(..)
            | DialogState::Terminated(..) => {}
        }
    }

    /// Whether the session has expired.
    fn handle_timeout(&mut self) -> bool {
        let Some(timer) = &mut self.timer else {
            return false;
        };
        match timer.due(Instant::now()) {
            Some(Due::Expired) => true,
            Some(Due::Refresh) => {
                let (control, terms, min_s) = (
                    self.control.clone(),
                    timer.terms,
                    self.pump.core.config.timers.min_s,
                );
                let refreshed = self.refreshed.clone();
                tokio::spawn(async move {
                    // A call that ended meanwhile takes no report.
                    let _ = refreshed.send(control.refresh(terms, min_s).await).await;
                });
                false
            }
            None => false,
        }
    }

    /// Whether the far end turned out to be gone.
    async fn handle_refreshed(&mut self, refreshed: Refreshed) -> bool {
        let now = Instant::now();
        match refreshed {
            Refreshed::Done { terms, media } => {
                self.timer = terms.map(|terms| SessionTimer::new(terms, now));
                if let Some(media) = media {
                    self.apply(media).await;
                }
                false
            }
            Refreshed::Refused { terms, wait } => {
                if let Some(timer) = &mut self.timer {
                    timer.refused(terms, wait, now);
                }
                false
            }
            Refreshed::Gone => true,
        }
    }

    async fn handle_confirmed(&mut self) {
        let first = self.phase.send_if_modified(|phase| {
            let first = *phase == Phase::Ringing;
            *phase = Phase::Confirmed;
            first
        });
        if first {
            let terms = lock(&self.pump.session).terms;
            self.timer = terms.map(|terms| SessionTimer::new(terms, Instant::now()));
        }
        // Other requests confirm the dialog, too.
        let ack = self.pump.dialog.last_remote_ack();
        let Some(ack) = ack.filter(|ack| self.offered == Some(cseq(ack))) else {
            return;
        };
        self.offered = None;
        let body = ack.body;
        let agreed = {
            let mut session = lock(&self.pump.session);
            let agreed = Sdp::parse(&body).and_then(|answer| session.local.accept(&answer, session.fallback));
            if let (Some(waiter), Ok(agreed)) = (&self.pump.late, &agreed)
                && !waiter.is_closed()
            {
                session.current = Some(*agreed);
            }
            agreed
        };
        match (self.pump.late.take(), agreed) {
            (Some(waiter), agreed) => {
                // Whoever waits hangs up on an error.
                let _ = waiter.send(agreed);
            }
            (None, Ok(agreed)) => self.apply(agreed).await,
            // The re-INVITE changed nothing; the session stays as it was.
            (None, Err(error)) => tracing::info!(%error, "the answer in an ACK is unusable"),
        }
    }

    /// A re-INVITE or UPDATE.
    async fn handle_offer(&mut self, request: &Request, handle: TransactionHandle) {
        let running = self.timer.as_ref().map(|timer| timer.terms);
        let terms = match Terms::answer(&Said::read(request), self.pump.core.config.timers, running) {
            Ok(terms) => terms,
            Err(TooShort(min_s)) => {
                let headers = vec![Header::MinSE(min_s.to_string().into())];
                let _ = handle
                    .respond(StatusCode::SessionIntervalTooSmall, Some(headers), None)
                    .await;
                return;
            }
        };
        let mut headers = terms.map(|terms| terms.response_headers()).unwrap_or_default();
        if request.body.is_empty() && request.method != Method::Invite {
            let _ = handle.respond(StatusCode::OK, Some(headers), None).await;
            self.settle(request, terms);
            return;
        }
        let (answer, agreed) = match self.answer_offer(request) {
            Ok(answered) => answered,
            Err(status) => {
                let _ = handle.reply(status).await;
                return;
            }
        };
        headers.extend(sdp_headers());
        let _ = handle
            .respond(StatusCode::OK, Some(headers), Some(answer.into_bytes()))
            .await;
        self.settle(request, terms);
        if let Some(agreed) = agreed {
            self.apply(agreed).await;
        }
    }

    /// What an accepted change brings beside media: where the far end is now, and a timer that starts anew.
    fn settle(&mut self, request: &Request, terms: Option<Terms>) {
        self.control.follow(request);
        self.timer = terms.map(|terms| SessionTimer::new(terms, Instant::now()));
    }

    /// Our answer, or our offer to an empty re-INVITE; `Err`: the status to refuse with.
    fn answer_offer(&mut self, request: &Request) -> Result<(String, Option<Negotiated>), StatusCode> {
        let body = &request.body;
        if self.control.changing.try_lock().is_err() {
            return Err(StatusCode::RequestPending);
        }
        let mut session = lock(&self.pump.session);
        if body.is_empty() {
            self.offered = Some(cseq(request));
            let offer = session.local.offer(Direction::SendRecv).to_string();
            session.described.clone_from(&offer);
            return Ok((offer, None));
        }
        let fallback = session.fallback;
        match Sdp::parse(body).and_then(|offer| session.local.answer(&offer, fallback)) {
            Ok((answer, agreed)) => {
                session.described = answer.to_string();
                Ok((session.described.clone(), Some(agreed)))
            }
            Err(error) => {
                tracing::info!(%error, "refused a change of the session");
                Err(StatusCode::NotAcceptableHere)
            }
        }
    }

    /// Tells the owner what a new agreement changed.
    async fn apply(&mut self, mut agreed: Negotiated) {
        let before = {
            let mut session = lock(&self.pump.session);
            let before = session.current;
            if let Some(before) = before.filter(|_| agreed.stream.remote.ip().is_unspecified()) {
                // Held the old way: the address to come back to is the last real one.
                agreed.stream.remote = before.stream.remote;
                agreed.stream.rtcp = before.stream.rtcp;
            }
            session.current = Some(agreed);
            before
        };
        if before.is_none_or(|b| b.stream != agreed.stream) {
            self.send(DialogEvent::Media(agreed)).await;
        }
        if before.is_some_and(|b| b.on_hold()) != agreed.on_hold() {
            self.send(DialogEvent::Hold(agreed.on_hold())).await;
        }
    }

    async fn handle_info(&mut self, request: &Request, handle: TransactionHandle) {
        let key = info::read(request);
        let status = if key.is_err() {
            StatusCode::UnsupportedMediaType
        } else {
            StatusCode::OK
        };
        let _ = handle.reply(status).await;
        if let Ok(Some(key)) = key {
            let _ = self.events.try_send(match key {
                Key::Digit(digit) => DialogEvent::InfoDigit(digit),
                Key::Flash => DialogEvent::Flash,
            });
        }
    }

    async fn send(&self, event: DialogEvent) {
        if self.events.send_timeout(event, EVENT_PATIENCE).await.is_err() {
            tracing::debug!("nobody listens to this call's events");
        }
    }
}

fn cseq(request: &Request) -> u32 {
    request.cseq_header().and_then(|cseq| cseq.seq()).unwrap_or(0)
}

/// Waits until `at`; for ever without one.
async fn sleep_until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at.into()).await,
        None => std::future::pending().await,
    }
}

/// Lets the header trait be used here alone.
pub(crate) fn has_to_tag(request: &Request) -> bool {
    matches!(request.to_header().and_then(|to| to.tag()), Ok(Some(tag)) if !tag.value().is_empty())
}
