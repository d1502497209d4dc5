//! Provisional answers that must arrive (100rel).
//!
//! ```text
//! Ringing sent --T1, 2·T1, 4·T1 …--> sent again --PRACK--> Acknowledged
//!                                        |--final answer--> no more of it; a late PRACK is still answered
//!                                        `--64·T1--> 504
//! ```
//! Our 180 carries no description, so a 200 need not wait for its PRACK. An INVITE without an offer would want ours in
//! the first reliable answer: there, where 100rel is only supported, the 180 goes out plainly, and where it is required,
//! none does. Source: RFC 3262 §3, §5.

use std::time::Duration;

use rsipstack::sip::{Header, HeadersExt as _, Method, Request, StatusCode};
use tokio::sync::watch;

use crate::call::{Control, Phase};
use crate::core::lock;

/// RFC 3262 §3: the first RSeq lies in this range.
const FIRST_RSEQ: std::ops::RangeInclusive<u32> = 1..=0x7fff_ffff;

/// A reliable answer that went out.
#[derive(Debug)]
pub(crate) struct Reliable {
    rseq: u32,
    /// Of the INVITE.
    cseq: u32,
    acknowledged: watch::Sender<bool>,
}

impl Reliable {
    /// Whether `prack` acknowledges this answer; true once (RFC 3262 §3: afterwards 481).
    pub fn handle_prack(&self, prack: (u32, u32, Method)) -> bool {
        prack == (self.rseq, self.cseq, Method::Invite) && !self.acknowledged.send_replace(true)
    }
}

/// What the caller wants of provisional answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wanted {
    Plain,
    Reliable,
    Neither,
}

impl Wanted {
    pub fn of(invite: &Request) -> Wanted {
        let required = invite.header_contains_token("Require", "100rel");
        let supported = invite.header_contains_token("Supported", "100rel");
        match (required || supported, invite.body.is_empty()) {
            (true, false) => Wanted::Reliable,
            (true, true) if required => Wanted::Neither,
            (true | false, _) => Wanted::Plain,
        }
    }
}

/// Sends 180 until it is acknowledged or the call goes on; `t1` is RFC 3261's.
pub(crate) async fn ring(control: Control, t1: Duration) {
    let invite = control.dialog.initial_request();
    let Ok(cseq) = invite.cseq_header().and_then(|cseq| cseq.seq()) else {
        return;
    };
    let rseq = rand::random_range(FIRST_RSEQ);
    let (acknowledged, mut heard) = watch::channel(false);
    {
        let mut session = lock(&control.session);
        if session.reliable.is_some() {
            return;
        }
        session.reliable = Some(Reliable {
            rseq,
            cseq,
            acknowledged,
        });
    }
    let mut over = control.phase.clone();
    let mut pause = t1;
    while pause <= t1 * 32 {
        let headers = vec![
            Header::Require("100rel".into()),
            Header::RSeq(rseq.to_string().into()),
        ];
        // After a final answer this sends nothing.
        if !control.dialog.state().can_cancel() || control.dialog.ringing(Some(headers), None).is_err() {
            return;
        }
        tokio::select! {
            _ = heard.wait_for(|heard| *heard) => return,
            _ = over.wait_for(|phase| *phase != Phase::Ringing) => return,
            () = tokio::time::sleep(pause) => pause *= 2,
        }
    }
    if control.dialog.state().can_cancel() {
        tracing::info!("refused a call (504): its ringing was never acknowledged");
        let _ = control.dialog.reject(Some(StatusCode::ServerTimeOut), None);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rsipstack::sip::SipMessage;

    #[test]
    fn what_the_caller_wants_depends_on_its_extensions_and_its_offer() {
        let cases = [
            ("", "v=0", Wanted::Plain),
            ("", "", Wanted::Plain),
            ("Supported: timer, 100rel\r\n", "v=0", Wanted::Reliable),
            ("Supported: 100rel\r\n", "", Wanted::Plain),
            ("Require: 100rel\r\n", "v=0", Wanted::Reliable),
            ("Require: 100rel\r\n", "", Wanted::Neither),
        ];
        for (headers, body, want) in cases {
            let text = format!(
                "INVITE sip:a@h SIP/2.0\r\n{headers}Content-Length: {}\r\n\r\n{body}",
                body.len()
            );
            let SipMessage::Request(invite) = SipMessage::try_from(text.as_bytes()).unwrap() else {
                panic!("a request");
            };
            assert_eq!(Wanted::of(&invite), want, "{headers}{body}");
        }
    }

    #[test]
    fn one_prack_acknowledges() {
        let (acknowledged, heard) = watch::channel(false);
        let reliable = Reliable {
            rseq: 7,
            cseq: 3,
            acknowledged,
        };
        for wrong in [
            (8, 3, Method::Invite),
            (7, 2, Method::Invite),
            (7, 3, Method::Update),
        ] {
            assert!(!reliable.handle_prack(wrong));
        }
        assert!(!*heard.borrow());
        assert!(reliable.handle_prack((7, 3, Method::Invite)));
        assert!(*heard.borrow());
        assert!(!reliable.handle_prack((7, 3, Method::Invite)), "once");
    }
}
