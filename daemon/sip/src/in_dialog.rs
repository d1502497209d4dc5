//! Requests inside calls. Source: RFC 3261 §12.2.2, RFC 3262 §3, RFC 3311, RFC 6665.

use std::time::Duration;

use rsipstack::dialog::DialogId;
use rsipstack::dialog::dialog::Dialog;
use rsipstack::sip::{Header, HeadersExt as _, Method, Request, StatusCode};
use rsipstack::transaction::key::TransactionRole;
use rsipstack::transaction::transaction::Transaction;

use crate::core::{Core, lock};
use crate::error::SipError;
use crate::incoming::answer;
use crate::info;
use crate::transfer::Notified;

/// A BYE may arrive before the library has filed the dialog that our 2xx-ACK just made.
const FILING_PATIENCE: Duration = Duration::from_millis(500);

/// Answers a request inside a call.
///
/// # Errors
/// Of the transaction.
pub(crate) async fn handle(core: &Core, mut tx: Transaction) -> Result<(), SipError> {
    let Some(Dialog::Invite(mut dialog)) = find_dialog(core, &tx).await else {
        let status = while_we_dial(core, &tx).unwrap_or(StatusCode::CallTransactionDoesNotExist);
        return answer(tx, status, Vec::new()).await;
    };
    let state = dialog.state();
    let seen = dialog.snapshot().remote_cseq;
    let cseq = tx.original.cseq_header().and_then(|cseq| cseq.seq()).unwrap_or(0);
    if seen > 0 && cseq < seen {
        return answer(tx, StatusCode::ServerInternalError, Vec::new()).await;
    }
    let settled = state.is_confirmed() || state.waiting_ack();
    match tx.original.method {
        Method::Options => answer(tx, StatusCode::OK, Vec::new()).await,
        Method::PRack => {
            let status = acknowledge(core, &dialog.id(), &tx.original);
            answer(tx, status, Vec::new()).await
        }
        Method::Bye if !settled && !state.is_terminated() => {
            // The caller ends an unanswered call by BYE (RFC 3261 §15.1.2): its INVITE gets 487.
            let _ = dialog.reject(Some(StatusCode::RequestTerminated), None);
            answer(tx, StatusCode::OK, Vec::new()).await
        }
        Method::Bye => Ok(dialog.handle(&mut tx).await?),
        Method::Info if !state.is_confirmed() => {
            let status = match info::read(&tx.original) {
                Ok(_) => StatusCode::OK,
                Err(()) => StatusCode::UnsupportedMediaType,
            };
            answer(tx, status, Vec::new()).await
        }
        Method::Update if !state.is_confirmed() && tx.original.body.is_empty() => {
            if let Some(control) = core.calls.find(&dialog.id()) {
                control.follow(&tx.original);
            }
            answer(tx, StatusCode::OK, Vec::new()).await
        }
        // Our offer in the INVITE is not answered yet (RFC 3311 §5.2).
        Method::Update if !settled && dialog.role() == TransactionRole::Client => {
            answer(tx, StatusCode::RequestPending, Vec::new()).await
        }
        // Not before the ACK: the first exchange of descriptions is not over (RFC 3261 §14.2, RFC 3311 §5.2).
        Method::Invite | Method::Update if !state.is_confirmed() => {
            let soon = rand::random_range(0..=10u32).to_string();
            answer(
                tx,
                StatusCode::ServerInternalError,
                vec![Header::RetryAfter(soon.into())],
            )
            .await
        }
        Method::Invite | Method::Update | Method::Info => Ok(dialog.handle(&mut tx).await?),
        Method::Notify if state.is_confirmed() => take_notice(core, &dialog.id(), tx).await,
        Method::Refer if state.is_confirmed() => Ok(dialog.handle(&mut tx).await?),
        _ => answer(tx, StatusCode::MethodNotAllowed, Vec::new()).await,
    }
}

/// What the far end tells of a transfer that we asked for.
async fn take_notice(core: &Core, id: &DialogId, tx: Transaction) -> Result<(), SipError> {
    let Some(told) = Notified::read(&tx.original) else {
        return answer(tx, StatusCode::BadEvent, Vec::new()).await;
    };
    let referral = core.calls.find(id).and_then(|control| {
        let session = lock(&control.session);
        session.referral.clone().filter(|referral| !referral.is_closed())
    });
    let Some(referral) = referral else {
        // RFC 6665 §4.1.3: no such subscription.
        return answer(tx, StatusCode::CallTransactionDoesNotExist, Vec::new()).await;
    };
    // First: what was told may bring a BYE of ours, which must not overtake the answer.
    answer(tx, StatusCode::OK, Vec::new()).await?;
    // More than fit are repetitions.
    let _ = referral.try_send(told);
    Ok(())
}

/// The answer to a callee that asks before it answers our INVITE: the library knows no dialog then.
fn while_we_dial(core: &Core, tx: &Transaction) -> Option<StatusCode> {
    let id = DialogId::try_from(tx).ok()?;
    if !lock(&core.dialled).contains(&id.call_id) {
        return None;
    }
    match tx.original.method {
        Method::Options => Some(StatusCode::OK),
        Method::Info => Some(match info::read(&tx.original) {
            Ok(_) => StatusCode::OK,
            Err(()) => StatusCode::UnsupportedMediaType,
        }),
        Method::Update if tx.original.body.is_empty() => Some(StatusCode::OK),
        // Our offer is not answered yet (RFC 3311 §5.2).
        Method::Update => Some(StatusCode::RequestPending),
        _ => None,
    }
}

/// The answer to a PRACK (RFC 3262 §3).
fn acknowledge(core: &Core, id: &DialogId, request: &Request) -> StatusCode {
    let Some(prack) = request.rack_value() else {
        return StatusCode::BadRequest;
    };
    let acknowledged = core.calls.find(id).is_some_and(|control| {
        let session = lock(&control.session);
        session
            .reliable
            .as_ref()
            .is_some_and(|reliable| reliable.handle_prack(prack))
    });
    match acknowledged {
        false => StatusCode::CallTransactionDoesNotExist,
        // No offer of ours to answer, and its own comes too early.
        true if !request.body.is_empty() => StatusCode::NotAcceptableHere,
        true => StatusCode::OK,
    }
}

async fn find_dialog(core: &Core, tx: &Transaction) -> Option<Dialog> {
    if let Some(dialog) = core.layer.match_dialog(tx) {
        return Some(dialog);
    }
    let id = DialogId::try_from(tx).ok()?;
    let deadline = tokio::time::Instant::now() + FILING_PATIENCE;
    // Not so what is answered alike before and after it.
    let patient = tx.original.method != Method::Options;
    while patient && lock(&core.dialled).contains(&id.call_id) && tokio::time::Instant::now() < deadline {
        tokio::time::sleep(Duration::from_millis(10)).await;
        if let Some(dialog) = core.layer.get_dialog(&id) {
            return Some(dialog);
        }
    }
    core.layer.get_dialog(&id)
}
