//! Putting through, as the call sees it: what starts it, what is said meanwhile, and what becomes of it; and the replies that
//! no model writes.

use std::time::{Duration, Instant};

use attendant_media::progress::Progress;
use attendant_store::{EventKind, Outcome};
use attendant_turn::{AttemptId, Completeness, Phrase};

use super::handoff::{self, Handoff, Job, Report};
use super::mouth::Clip;
use super::{Aborting, Attempt, Call, Then, reply};
use crate::switchboard::{Request, TransferRefused};
use crate::transfer::{FLASH, KeyAction};

impl Call {
    pub(super) fn on_digit(&mut self, digit: char) {
        if digit == FLASH {
            return self.on_flash();
        }
        self.recorder.event(EventKind::Dtmf, None);
        if self.handoff.is_none() {
            self.machine.handle_digit(digit, Instant::now());
        }
    }

    /// The hook was pressed: a key like others, where it has a meaning, and complete at once.
    pub(super) fn on_flash(&mut self) {
        self.recorder.event(EventKind::Flash, None);
        if self.handoff.is_none() && self.house.config.keys.iter().any(|key| key.digit == FLASH) {
            let now = Instant::now();
            self.machine.handle_digit(FLASH, now);
            self.machine.handle_digit('#', now);
        }
    }

    /// The exchange plays a tone into the call. But for ringing, nobody is there any more: on analog trunks, and behind
    /// some PBXs, that is how a caller hangs up.
    pub(super) fn on_tone(&mut self, tone: Progress) {
        let (name, over) = match tone {
            Progress::Busy => ("busy", true),
            Progress::Congestion => ("congestion", true),
            Progress::Dial => ("dial tone", true),
            Progress::Ringback => ("ringing", false),
        };
        self.recorder.event(EventKind::Tone, Some(name));
        if over {
            self.outcome = Some((Outcome::Completed, "caller hung up: the line gave a tone"));
        }
    }

    /// A fax machine calls: it goes where faxes are taken, if anywhere.
    pub(super) fn on_fax(&mut self) {
        self.recorder.event(EventKind::Fax, None);
        let section = &self.house.config.transfer;
        let target = section.fax.as_deref().and_then(|name| section.index(name));
        if let Some(target) = target.filter(|_| self.handoff.is_none()) {
            let epoch = self.mouth.stop(self.leg.control.played());
            self.leg.control.flush(epoch);
            self.begin_handoff(target);
        }
    }

    pub(super) fn on_request(&mut self, request: Request) {
        let Request::Transfer { target, answer } = request;
        let found = self.house.config.transfer.index(&target);
        let accepted = match found {
            Some(index) if self.handoff.is_none() => {
                let text = self.house.config.transfer.put_through(index);
                self.say_text(&text);
                self.begin_handoff(index);
                Ok(())
            }
            Some(_) => Err(TransferRefused::Busy),
            None => Err(TransferRefused::Unknown),
        };
        // Who asked may have gone.
        let _ = answer.send(accepted);
    }

    /// Puts the caller through to a target of the list.
    pub(super) fn begin_handoff(&mut self, index: usize) {
        let (section, persona) = (&self.house.config.transfer, &self.house.config.business);
        let (Some(target), Some(caller)) = (section.target.get(index).cloned(), self.dialog.clone()) else {
            return;
        };
        let said = self.history.last_caller().unwrap_or_default();
        let job = Job {
            call: self.id,
            caller,
            briefing: section.briefing(index, persona, said),
            machine: section.machine,
            ring: Duration::from_secs(u64::from(section.ring_s)),
            target,
        };
        self.recorder
            .event(EventKind::TransferAsked, Some(&job.target.name));
        tracing::info!(
            call = self.id,
            target = job.target.name,
            "the caller is put through"
        );
        self.handoff = Some(Handoff::start(index, self.house.clone(), job));
    }

    pub(super) fn on_report(&mut self, report: Report) {
        match report {
            Report::Ringing => {
                if let Some(handoff) = &mut self.handoff
                    && handoff.told_ringing.is_none()
                {
                    handoff.told_ringing = Some(Instant::now());
                    self.recorder.event(EventKind::TransferRinging, None);
                }
            }
            Report::Heard(what) => self.recorder.event(EventKind::Answered, Some(what)),
            Report::Answered => {
                self.handoff = None;
                self.recorder.event(EventKind::TransferAnswered, None);
                self.outcome = Some((Outcome::Completed, "put through"));
            }
            Report::Failed(why) => {
                let Some(handoff) = self.handoff.take() else {
                    return;
                };
                tracing::info!(call = self.id, why, "the caller is back: not put through");
                self.recorder.event(EventKind::TransferFailed, Some(&why));
                let text = self.house.config.transfer.failed(handoff.target);
                self.say_text(&text);
                self.history.push_reply(&text);
                self.prefill_history();
            }
        }
    }

    /// Now and then, while it rings and the caller hears nothing else.
    pub(super) fn tell_ringing(&mut self, now: Instant) {
        let quiet = !self.mouth.playing(self.leg.control.played());
        let Some(handoff) = self.handoff.as_mut().filter(|_| quiet) else {
            return;
        };
        if handoff
            .told_ringing
            .is_some_and(|told| now >= told + handoff::STILL_RINGING)
        {
            handoff.told_ringing = Some(now);
            let text = self.house.config.transfer.still_ringing(handoff.target);
            self.say_text(&text);
        }
    }

    /// Says a text of the phrase book.
    pub(super) fn say_text(&mut self, text: &str) {
        match self.house.phrases.get_text(text) {
            Some((text, pcm)) => self.mouth.say(Clip {
                attempt: None,
                text,
                pcm,
            }),
            None => tracing::error!(call = self.id, "a text is not in the phrase book"),
        }
    }

    /// A reply that no model writes: to a key of the menu, or to who wants to be put through.
    pub(super) fn canned(&self, attempt: &Attempt) -> Option<(String, Option<Then>)> {
        let config = &self.house.config;
        let key = match &attempt.keys {
            Some(keys) => {
                let mut digits = keys.chars();
                let key = digits.next().filter(|_| digits.next().is_none());
                match key.and_then(|digit| config.keys.iter().find(|key| key.digit == digit)) {
                    Some(key) => Some(key),
                    None => return config.menu.read_back(keys).map(|text| (text, None)),
                }
            }
            None => None,
        };
        let put_through = |index| (config.transfer.put_through(index), Some(Then::Transfer(index)));
        let Some(key) = key else {
            return config.transfer.asked_for(&attempt.text).map(put_through);
        };
        match key.action {
            KeyAction::Transfer => {
                let target = key.target.as_deref()?;
                config.transfer.index(target).map(put_through)
            }
            KeyAction::Repeat => {
                let greeting = || self.house.phrases.get(Phrase::Greeting).map(|(text, _)| text);
                let last = self.history.last_reply().map(str::to_owned);
                last.or_else(greeting).map(|text| (text, None))
            }
            KeyAction::Message => Some((config.transfer.message.clone(), None)),
            KeyAction::Hangup => {
                let (text, _) = self.house.phrases.get(Phrase::Goodbye)?;
                Some((text, Some(Then::HangUp)))
            }
        }
    }

    pub(super) fn reply_canned(&mut self, id: AttemptId, text: String, then: Option<Then>) {
        let known = self.house.phrases.get_text(&text).map(|(_, pcm)| pcm);
        let (engines, events) = (self.house.engines.clone(), self.events_in.clone());
        let Some(attempt) = self.attempts.get_mut(&id) else {
            return;
        };
        attempt.then = then;
        attempt.task = Some(Aborting(tokio::spawn(reply::canned(
            engines, self.id, id, text, known, events,
        ))));
        // What was asked for is known: there is nothing to wait for.
        self.machine
            .handle_completeness(id, Completeness::Finished, Instant::now());
    }
}
