//! Requests from outside: new calls, and everything that is answered at once; those inside calls go to [`in_dialog`].
//!
//! What arrives here has passed the gate. Source: RFC 3261 §8.2 (UAS), §11.2 (OPTIONS).

use std::collections::VecDeque;
use std::future::Future;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rsipstack::dialog::dialog::DialogStateReceiver;
use rsipstack::dialog::invite_dialog::InviteDialog;
use rsipstack::sip::uri::ParamsExt as _;
use rsipstack::sip::{Header, HeadersExt as _, Method, Request, StatusCode, ToTypedHeader as _};
use rsipstack::transaction::TransactionReceiver;
use rsipstack::transaction::transaction::Transaction;
use tokio::sync::{mpsc, oneshot};

use crate::SipEvent;
use crate::call::{Control, DialogEvent, DialogHandle, Established, Phase, Pump, has_to_tag, sdp_headers};
use crate::change::Session;
use crate::config::Transport;
use crate::core::{CallPermit, Core, lock};
use crate::error::SipError;
use crate::in_dialog;
use crate::media::{MediaOffer, Negotiated};
use crate::merging::Only;
use crate::redact::Redacted;
use crate::reliable::{self, Wanted};
use crate::sdp::{Direction, Sdp, SdpError};
use crate::timer::{Said, Terms, TooShort};
use crate::transfer::Replaces;
use crate::wire::SUPPORTED;

/// RFC 3261 §17: an answer's transaction is over by then.
const TRANSACTION: Duration = Duration::from_secs(32);

/// Headers waiting for their refusal; far more than calls can be refused at one instant.
const MAX_EXTRAS: usize = 1024;

/// Who calls. Prints as `[redacted]`.
#[derive(Debug, Clone, Default)]
pub struct Caller {
    /// Display name, if any.
    pub display: Redacted<Option<String>>,
    /// User part of the From address: usually the number.
    pub user: Redacted<String>,
    /// Host part of the From address.
    pub host: String,
}

/// How to refuse a call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refusal {
    /// 486: all lines are taken.
    Busy,
    /// 488: this call's media cannot be served.
    NotAcceptable,
    /// 403: this caller is not wanted.
    Forbidden,
    /// 404: nobody by that name.
    NotFound,
    /// 480: not now.
    Unavailable,
    /// 503 with Retry-After \[s\]: the PBX may try another trunk.
    Overloaded {
        /// Seconds to wait.
        retry_after_s: u32,
    },
    /// 603: refused for good.
    Decline,
    /// 302: call this SIP address instead.
    Moved(String),
}

impl Refusal {
    fn status(&self) -> StatusCode {
        match self {
            Refusal::Busy => StatusCode::BusyHere,
            Refusal::NotAcceptable => StatusCode::NotAcceptableHere,
            Refusal::Forbidden => StatusCode::Forbidden,
            Refusal::NotFound => StatusCode::NotFound,
            Refusal::Unavailable => StatusCode::TemporarilyUnavailable,
            Refusal::Overloaded { .. } => StatusCode::ServiceUnavailable,
            Refusal::Decline => StatusCode::Decline,
            Refusal::Moved(_) => StatusCode::MovedTemporarily,
        }
    }

    fn header(&self) -> Option<Header> {
        match self {
            Refusal::Moved(uri) => Some(Header::Contact(format!("<{uri}>").into())),
            Refusal::Overloaded { retry_after_s } => {
                Some(Header::RetryAfter(retry_after_s.to_string().into()))
            }
            _ => None,
        }
    }
}

/// A call that waits for an answer. Dropped unanswered, it is refused with 480.
pub struct IncomingCall {
    /// The Call-ID header.
    pub call_id: String,
    /// Who calls.
    pub from: Caller,
    /// User part of the address that was called.
    pub to_user: String,
    /// Where the INVITE came from.
    pub source: SocketAddr,
    /// What was agreed on, or that we have to offer.
    pub media: MediaOffer,
    pending: Option<Box<Pending>>,
}

struct Pending {
    core: Arc<Core>,
    control: Control,
    sockets: crate::ports::MediaSockets,
    events: mpsc::Receiver<DialogEvent>,
    /// Our answer; `None` with a late offer.
    answer: Option<Sdp>,
    late: Option<oneshot::Receiver<Result<Negotiated, SdpError>>>,
}

impl std::fmt::Debug for IncomingCall {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("IncomingCall")
            .field("call_id", &self.call_id)
            .field("source", &self.source)
            .finish_non_exhaustive()
    }
}

impl IncomingCall {
    /// Sends 180 Ringing, reliably to a caller that knows how.
    pub async fn ringing(&self) {
        let Some(pending) = &self.pending else { return };
        match Wanted::of(&pending.control.dialog.initial_request()) {
            Wanted::Plain => {
                let _ = pending.control.dialog.ringing(None, None);
            }
            Wanted::Reliable => {
                tokio::spawn(reliable::ring(pending.control.clone(), pending.core.config.t1));
            }
            Wanted::Neither => {}
        }
    }

    /// Resolves when the caller gives up before the answer; never blocks the call itself.
    pub fn cancelled(&self) -> impl Future<Output = ()> + Send + 'static {
        let phase = self.pending.as_ref().map(|pending| pending.control.phase.clone());
        async move {
            if let Some(mut phase) = phase {
                let _ = phase.wait_for(|phase| *phase == Phase::Over).await;
            }
        }
    }

    /// Sends 200 OK. With a late offer this waits for the ACK, which carries the answer.
    ///
    /// # Errors
    /// [`SipError::Gone`] when the caller gave up first, [`SipError::Media`] when a late answer is unusable.
    pub async fn answer(mut self) -> Result<Established, SipError> {
        let mut pending = *self.pending.take().ok_or(SipError::Gone)?;
        if pending.control.is_over() {
            return Err(SipError::Gone);
        }
        let (sdp, terms) = {
            let mut session = lock(&pending.control.session);
            let sdp = match &pending.answer {
                Some(answer) => answer.to_string(),
                None => session.local.offer(Direction::SendRecv).to_string(),
            };
            session.described.clone_from(&sdp);
            (sdp, session.terms)
        };
        let handle = DialogHandle::new(pending.control.clone());
        let mut headers = sdp_headers();
        headers.extend(terms.iter().flat_map(Terms::response_headers));
        pending
            .control
            .dialog
            .accept(Some(headers), Some(sdp.into_bytes()))
            .map_err(|_| SipError::Gone)?;
        if pending.control.is_over() {
            return Err(SipError::Gone);
        }
        let media = match (self.media, pending.late.take()) {
            (MediaOffer::Negotiated(media), _) => media,
            // Dropping `handle` on the way out hangs up.
            (MediaOffer::Late, Some(answer)) => answer.await.map_err(|_| SipError::Gone)??,
            (MediaOffer::Late, None) => return Err(SipError::Gone),
        };
        Ok(Established {
            socket: pending.sockets.rtp,
            rtcp_socket: pending.sockets.rtcp,
            media,
            events: pending.events,
            handle,
        })
    }

    /// Refuses the call.
    ///
    /// # Errors
    /// [`SipError::Signalling`] when the refusal could not be sent.
    pub async fn refuse(mut self, refusal: Refusal) -> Result<(), SipError> {
        match self.pending.take() {
            Some(pending) => pending.refuse(&refusal),
            None => Ok(()),
        }
    }
}

impl Pending {
    fn refuse(self, refusal: &Refusal) -> Result<(), SipError> {
        if self.control.is_over() {
            return Ok(());
        }
        if let Some(header) = refusal.header() {
            let mut extras = lock(&self.core.extras);
            // A refusal that crosses a CANCEL is never sent and leaves its header behind.
            if extras.len() >= MAX_EXTRAS {
                extras.clear();
            }
            extras.insert(self.control.dialog.id().call_id, header);
        }
        Ok(self.control.dialog.reject(Some(refusal.status()), None)?)
    }
}

impl Drop for IncomingCall {
    fn drop(&mut self) {
        if let Some(pending) = self.pending.take() {
            let _ = pending.refuse(&Refusal::Unavailable);
        }
    }
}

/// Takes the library's transactions until it shuts down.
pub(crate) async fn run(
    core: Arc<Core>,
    mut transactions: TransactionReceiver,
    events: mpsc::Sender<SipEvent>,
) {
    while let Some(tx) = transactions.recv().await {
        // A task each: an answer over TCP may have to wait for the peer.
        let (core, events) = (core.clone(), events.clone());
        tokio::spawn(async move {
            let result = if let Some(unsupported) = unknown_extensions(&tx.original) {
                let headers = vec![Header::Unsupported(unsupported.into())];
                answer(tx, StatusCode::BadExtension, headers).await
            } else if has_to_tag(&tx.original) {
                in_dialog::handle(&core, tx).await
            } else {
                handle_new(&core, tx, &events).await
            };
            if let Err(error) = result {
                tracing::debug!(%error, "a SIP request could not be answered");
            }
        });
    }
}

async fn handle_new(
    core: &Arc<Core>,
    tx: Transaction,
    events: &mpsc::Sender<SipEvent>,
) -> Result<(), SipError> {
    match tx.original.method {
        Method::Invite => handle_invite(core, tx, events).await,
        // What an INVITE would hear now (RFC 3261 §11.2): a dispatcher that probes sees a full appliance.
        Method::Options if core.calls.active() >= core.config.lines.unwrap_or(core.config.max_calls) => {
            answer(tx, StatusCode::BusyHere, Vec::new()).await
        }
        Method::Options => answer(tx, StatusCode::OK, Vec::new()).await,
        Method::Bye | Method::Info | Method::Update | Method::PRack | Method::Cancel => {
            answer(tx, StatusCode::CallTransactionDoesNotExist, Vec::new()).await
        }
        _ => answer(tx, StatusCode::MethodNotAllowed, Vec::new()).await,
    }
}

async fn handle_invite(
    core: &Arc<Core>,
    tx: Transaction,
    events: &mpsc::Sender<SipEvent>,
) -> Result<(), SipError> {
    let Some(only) = core.merging.enter(&tx.original) else {
        return answer(tx, StatusCode::LoopDetected, Vec::new()).await;
    };
    let replaced = match Replaces::read(&tx.original) {
        Ok(None) => None,
        Ok(Some(replaces)) => match replaces.find(core) {
            Ok(old) => Some(old),
            Err(status) => return answer(tx, status, Vec::new()).await,
        },
        Err(()) => return answer(tx, StatusCode::BadRequest, Vec::new()).await,
    };
    // First: a refusal waits for its ACK, and must not hold a place meanwhile.
    let offer = match read_offer(&tx.original) {
        Ok(offer) => offer,
        Err((status, headers)) => return answer(tx, status, headers).await,
    };
    let terms = match Terms::answer(&Said::read(&tx.original), core.config.timers, None) {
        Ok(terms) => terms,
        Err(TooShort(min_s)) => {
            let least = Header::MinSE(min_s.to_string().into());
            return answer(tx, StatusCode::SessionIntervalTooSmall, vec![least]).await;
        }
    };
    // Who takes a call over needs a line for a moment only.
    let lines = core.config.max_calls + usize::from(replaced.is_some());
    let Some(permit) = core.calls.try_admit(lines) else {
        return answer(tx, StatusCode::BusyHere, Vec::new()).await;
    };
    if let Some(old) = replaced {
        return take_over(core, (tx, only), offer, terms, permit, &old).await;
    }
    let prepared = match prepare(core, &tx, offer, terms, permit) {
        Ok(prepared) => prepared,
        Err(SipError::Media(error)) => return not_acceptable(tx, &error).await,
        Err(SipError::NoRtpPort { ip, first, last }) => {
            tracing::warn!(%ip, first, last, "refused a call (503): no free RTP port");
            return answer(tx, StatusCode::ServiceUnavailable, Vec::new()).await;
        }
        Err(error) => {
            tracing::warn!(%error, "refused a call (500)");
            return answer(tx, StatusCode::ServerInternalError, Vec::new()).await;
        }
    };
    let (call, dialog) = prepared;
    run_invite(dialog, tx, only);
    match events.try_send(SipEvent::Incoming(call)) {
        Ok(()) => Ok(()),
        Err(mpsc::error::TrySendError::Full(SipEvent::Incoming(call))) => {
            call.refuse(Refusal::Overloaded { retry_after_s: 5 }).await
        }
        // Dropping the call refuses it.
        Err(_) => Ok(()),
    }
}

type Refused = (StatusCode, Vec<Header>);

fn read_offer(request: &Request) -> Result<Option<Sdp>, Refused> {
    if request.body.is_empty() {
        return Ok(None);
    }
    let is_sdp = request.headers.iter().any(|h| {
        matches!(h, Header::ContentType(t) if t.value().trim().to_ascii_lowercase().starts_with("application/sdp"))
    });
    if !is_sdp {
        let accept = Header::Accept("application/sdp".into());
        return Err((StatusCode::UnsupportedMediaType, vec![accept]));
    }
    Sdp::parse(&request.body).map(Some).map_err(|error| {
        let warning = Header::Warning(format!("399 attendant \"{error}\"").into());
        (StatusCode::BadRequest, vec![warning])
    })
}

fn prepare(
    core: &Arc<Core>,
    tx: &Transaction,
    offer: Option<Sdp>,
    terms: Option<Terms>,
    permit: CallPermit,
) -> Result<(IncomingCall, InviteDialog), SipError> {
    let source = source_of(tx)?;
    let (sockets, lease) = core.ports.bind(core.local_ip(source.ip())?)?;
    let mut local = core.local_media(source.ip(), sockets.rtp.local_addr()?.port())?;
    let (answer, media) = match offer {
        Some(offer) => {
            let (answer, agreed) = local.answer(&offer, source.ip())?;
            (Some(answer), MediaOffer::Negotiated(agreed))
        }
        None => (None, MediaOffer::Late),
    };
    let to_user = called_user(&tx.original);
    let (dialog, states) = open_dialog(core, tx)?;
    let current = match media {
        MediaOffer::Negotiated(agreed) => Some(agreed),
        MediaOffer::Late => None,
    };
    let session = Session::new(local, current, source.ip(), String::new(), terms, &tx.original);
    let session = Arc::new(Mutex::new(session));
    let (late_tx, late) = match media {
        MediaOffer::Late => {
            let (tx, rx) = oneshot::channel();
            (Some(tx), Some(rx))
        }
        MediaOffer::Negotiated(_) => (None, None),
    };
    let pump = Pump {
        core: core.clone(),
        dialog: dialog.clone(),
        states,
        session,
        backlog: VecDeque::new(),
        offered: late_tx.is_some(),
        late: late_tx,
        news: None,
        lease: Arc::new(lease),
        _permit: permit,
    };
    let (control, events) = pump.spawn();
    let call = IncomingCall {
        call_id: dialog.id().call_id,
        from: caller(&tx.original),
        to_user,
        source,
        media,
        pending: Some(Box::new(Pending {
            core: core.clone(),
            control,
            sockets,
            events,
            answer,
            late,
        })),
    };
    Ok((call, dialog))
}

/// Answers an INVITE that takes the place of `old`'s far end: the same call, the same audio, another dialog.
async fn take_over(
    core: &Arc<Core>,
    (tx, only): (Transaction, Only),
    offer: Option<Sdp>,
    terms: Option<Terms>,
    permit: CallPermit,
    old: &Control,
) -> Result<(), SipError> {
    let Some(events) = old.events.upgrade() else {
        return answer(tx, StatusCode::Decline, Vec::new()).await;
    };
    let source = source_of(&tx)?;
    let (mut local, before) = {
        let session = lock(&old.session);
        (session.local.clone(), session.current)
    };
    let (described, news) = match offer {
        Some(offer) => match local.answer(&offer, source.ip()) {
            Ok((answer, agreed)) => (answer.to_string(), Some(agreed)),
            Err(error) => return not_acceptable(tx, &error).await,
        },
        None => (local.offer(Direction::SendRecv).to_string(), None),
    };
    let (dialog, states) = open_dialog(core, &tx)?;
    let session = Session::new(local, before, source.ip(), described.clone(), terms, &tx.original);
    let pump = Pump {
        core: core.clone(),
        dialog: dialog.clone(),
        states,
        backlog: VecDeque::new(),
        session: Arc::new(Mutex::new(session)),
        late: None,
        offered: news.is_none(),
        news,
        lease: old.lease.clone(),
        _permit: permit,
    };
    pump.take_over(old, events);
    tracing::info!("a call was taken over by another party (Replaces)");
    run_invite(dialog.clone(), tx, only);
    let mut headers = sdp_headers();
    headers.extend(terms.iter().flat_map(Terms::response_headers));
    let accepted = dialog.accept(Some(headers), Some(described.into_bytes()));
    let old = old.dialog.clone();
    tokio::spawn(async move { old.bye().await });
    Ok(accepted?)
}

/// The library's dialog for an INVITE.
fn open_dialog(core: &Core, tx: &Transaction) -> Result<(InviteDialog, DialogStateReceiver), SipError> {
    let to_user = called_user(&tx.original);
    let contact = core.contact(&to_user, source_of(tx)?.ip(), transport_of(tx))?;
    let (state_tx, states) = core.layer.new_dialog_state_channel();
    let dialog = core
        .layer
        .get_or_create_server_invite(tx, state_tx, None, Some(contact))?;
    if behind_proxy(&tx.original) {
        lock(&core.proxied).insert(dialog.id().call_id);
    }
    Ok((dialog, states))
}

/// Lets the library drive the INVITE's transaction; until its end, the same INVITE by another way is refused.
fn run_invite(mut dialog: InviteDialog, mut tx: Transaction, only: Only) {
    tokio::spawn(async move {
        let _only = only;
        if let Err(error) = dialog.handle(&mut tx).await {
            tracing::debug!(%error, "INVITE transaction ended");
        }
    });
}

async fn not_acceptable(tx: Transaction, error: &SdpError) -> Result<(), SipError> {
    tracing::info!(%error, "refused a call (488)");
    let warning = Header::Warning(format!("304 attendant \"{error}\"").into());
    answer(tx, StatusCode::NotAcceptableHere, vec![warning]).await
}

/// Answers and stays for the retransmissions; an answered INVITE wants its ACK.
pub(crate) async fn answer(
    mut tx: Transaction,
    status: StatusCode,
    headers: Vec<Header>,
) -> Result<(), SipError> {
    tx.reply_with(status, headers, None).await?;
    if tx.original.method == Method::Invite {
        let drain = async { while tx.receive().await.is_some() {} };
        let _ = tokio::time::timeout(TRANSACTION, drain).await;
    }
    Ok(())
}

/// Required extensions that we do not have.
fn unknown_extensions(request: &Request) -> Option<String> {
    let unknown: Vec<&str> = request
        .headers
        .iter()
        .filter_map(|h| match h {
            Header::Require(r) => Some(r.value()),
            _ => None,
        })
        .flat_map(|value| value.split(','))
        .map(str::trim)
        .filter(|tag| !tag.is_empty() && !SUPPORTED.split(", ").any(|ours| ours.eq_ignore_ascii_case(tag)))
        .collect();
    (!unknown.is_empty()).then(|| unknown.join(", "))
}

fn source_of(tx: &Transaction) -> Result<SocketAddr, SipError> {
    let addr = tx
        .connection
        .as_ref()
        .and_then(|c| c.get_remote_addr())
        .ok_or(SipError::Gone)?;
    Ok(addr.get_socketaddr()?)
}

fn transport_of(tx: &Transaction) -> Transport {
    tx.connection
        .as_ref()
        .and_then(|c| c.get_addr().r#type)
        .map_or(Transport::Udp, Transport::of)
}

/// A proxy stays in the path, and the caller's Contact names no transport of its own.
fn behind_proxy(request: &Request) -> bool {
    let contacts = request.typed_contact_headers().unwrap_or_default();
    request.record_route_header().is_some() && contacts.first().is_some_and(|c| c.uri.transport().is_none())
}

fn called_user(request: &Request) -> String {
    let user = |uri: &rsipstack::sip::Uri| uri.auth.as_ref().map(|auth| auth.user.clone());
    user(&request.uri)
        .or_else(|| {
            request
                .to_header()
                .and_then(|to| to.typed())
                .ok()
                .and_then(|to| user(&to.uri))
        })
        .unwrap_or_default()
}

fn caller(request: &Request) -> Caller {
    let Ok(from) = request.from_header().and_then(|from| from.typed()) else {
        return Caller::default();
    };
    Caller {
        display: Redacted::new(from.display_name.filter(|name| !name.trim().is_empty())),
        user: Redacted::new(from.uri.auth.map(|auth| auth.user).unwrap_or_default()),
        host: from.uri.host_with_port.host.to_string(),
    }
}
