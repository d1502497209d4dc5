//! Consultation: the call to whoever is to take over. Who, or what, answers it, and what they are told.
//!
//! ```text
//! answered ─> keys ─> listen ─┬─ a person, or nobody speaks ─> brief ─> the caller is put through
//!                             ├─ a machine ─> as configured: the caller comes back, or is put through to it
//!                             ├─ ringing: a gateway answered for its line ─> listen on
//!                             └─ busy, a fax ─> the caller comes back
//! ```
//! While it listens the briefing is synthesised, so that a person who has said their name does not wait for it.

use std::{sync::Arc, time::Duration};

use attendant_dialog::spoken;
use attendant_media::progress::{Answer, AnswerDetector};
use attendant_models::client::{Priority, SpeakRequest};
use attendant_rt::Leg;
use attendant_sip::{DialogEvent, Established, Outgoing, SipError, TransferProgress};
use tokio::{
    sync::mpsc,
    time::{Instant, Interval, MissedTickBehavior},
};

use super::handoff::{Job, REPORTS, Report};
use super::mouth::{Clip, Mouth};
use super::{House, TICK, leg};
use crate::transfer::{Briefing, OnMachine};

/// Longest a briefing may take to be synthesised; without it the target is connected unprepared.
const SPEAK: Duration = Duration::from_secs(8);
/// Longest a briefing may last.
const LONGEST_BRIEFING: Duration = Duration::from_secs(30);
/// From one key to the next: a key takes 220 ms on the wire.
const KEY: Duration = Duration::from_millis(240);
/// Longest a line is listened to that neither speaks and waits, nor goes on: whoever it is, they are told.
const LISTEN: Duration = Duration::from_secs(15);

/// Why nobody was told.
#[derive(Debug)]
pub enum NotBriefed {
    /// There is nobody to talk to: the caller comes back.
    Nobody(Answer),
    /// The target hung up: the caller comes back.
    HungUp,
    /// Somebody is there, but the briefing failed: the caller is put through all the same.
    Trouble(String),
}

/// Calls the target while the caller waits.
///
/// # Errors
/// [`SipError`]: nobody took the call.
pub async fn call(house: &House, job: &Job, reports: &mpsc::Sender<Report>) -> Result<Established, SipError> {
    let (progress_in, mut progress) = mpsc::channel(REPORTS);
    let call = house.dialler.call(Outgoing {
        subject: Some(job.briefing.clone()),
        ring: job.ring,
        progress: Some(progress_in),
        ..Outgoing::to(&job.target.uri)
    });
    tokio::pin!(call);
    loop {
        tokio::select! {
            answered = &mut call => return answered,
            Some(step) = progress.recv() => if step == TransferProgress::Ringing {
                let _ = reports.try_send(Report::Ringing);
            },
        }
    }
}

/// Presses what leads to the target, and tells whoever answered what it is about.
///
/// # Errors
/// [`NotBriefed`].
pub async fn prepare(
    house: &House,
    job: &Job,
    call: &mut Established,
    reports: &mpsc::Sender<Report>,
) -> Result<(), NotBriefed> {
    let keys = job.target.keys.as_deref().unwrap_or_default();
    let speaks = job.target.briefing == Briefing::Spoken;
    if keys.is_empty() && !speaks {
        return Ok(());
    }
    let leg = leg::open(&house.rt, call);
    let mut leg = leg.map_err(|error| NotBriefed::Trouble(error.to_string()))?;
    for key in keys.chars() {
        let sent = leg.control.send_digit(key);
        sent.map_err(|error| NotBriefed::Trouble(error.to_string()))?;
        tokio::time::sleep(KEY).await;
    }
    if speaks {
        // What the menu said while keys were pressed is nobody's answer.
        while leg.rx.pop().is_ok() {}
        brief(house, job, call, leg, reports).await?;
    }
    Ok(())
}

async fn brief(
    house: &House,
    job: &Job,
    call: &mut Established,
    mut leg: Leg,
    reports: &mpsc::Sender<Report>,
) -> Result<(), NotBriefed> {
    let request = SpeakRequest {
        call: job.call,
        turn: 0,
        deadline: SPEAK,
        text: spoken(&job.briefing),
        speed: 1.0,
        priority: Priority::Live,
    };
    let (answer, speech) = tokio::try_join!(who_answers(&mut leg, call, job.ring, reports), async {
        Ok(house.engines.speak(request).await)
    })?;
    let _ = reports.try_send(Report::Heard(answer.name()));
    match (answer, job.machine) {
        (Answer::Person | Answer::Silent, _) => {}
        (Answer::Machine | Answer::Beep, OnMachine::Through) => return Ok(()),
        (Answer::Machine | Answer::Beep, OnMachine::Back)
        | (Answer::Busy | Answer::Fax | Answer::Ringing, _) => {
            return Err(NotBriefed::Nobody(answer));
        }
    }
    let pcm = speech
        .map_err(|error| NotBriefed::Trouble(error.to_string()))?
        .pcm;
    let clip = Clip {
        attempt: None,
        text: job.briefing.clone(),
        pcm: Arc::new(pcm),
    };
    say(&mut leg, call, clip).await
}

/// Listens until it is known. A line that rings has as long as a call may ring.
async fn who_answers(
    leg: &mut Leg,
    call: &mut Established,
    ring: Duration,
    reports: &mpsc::Sender<Report>,
) -> Result<Answer, NotBriefed> {
    let mut detector = AnswerDetector::default();
    let mut until = Instant::now() + LISTEN;
    let mut rings = false;
    let mut ticks = ticks();
    loop {
        tick(&mut ticks, leg, call).await?;
        while let Ok(rx) = leg.rx.pop() {
            match detector.push(&rx.frame, rx.speech_prob) {
                None => {}
                Some(Answer::Ringing) => {
                    let _ = reports.try_send(Report::Ringing);
                    (until, rings) = (Instant::now() + ring, true);
                }
                Some(answer) => return Ok(answer),
            }
        }
        if Instant::now() >= until {
            return Ok(if rings { Answer::Ringing } else { Answer::Silent });
        }
    }
}

/// Says the briefing to its end.
async fn say(leg: &mut Leg, call: &mut Established, clip: Clip) -> Result<(), NotBriefed> {
    let mut mouth = Mouth::default();
    mouth.say(clip);
    let until = Instant::now() + LONGEST_BRIEFING;
    let mut ticks = ticks();
    while Instant::now() < until {
        tick(&mut ticks, leg, call).await?;
        // What is said there meanwhile is for nobody's ears.
        while leg.rx.pop().is_ok() {}
        let played = leg.control.played();
        mouth.pump(&mut leg.tx, played);
        if !mouth.playing(played) {
            break;
        }
    }
    Ok(())
}

fn ticks() -> Interval {
    let mut ticks = tokio::time::interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    ticks
}

/// Waits for the next tick; what happens to the call meanwhile is obeyed.
async fn tick(ticks: &mut Interval, leg: &mut Leg, call: &mut Established) -> Result<(), NotBriefed> {
    loop {
        tokio::select! {
            _ = ticks.tick() => return Ok(()),
            event = call.events.recv() => match event {
                None | Some(DialogEvent::Bye | DialogEvent::Failed(_)) => return Err(NotBriefed::HungUp),
                Some(DialogEvent::Media(media)) => {
                    if let Err(error) = leg.control.set_remote(media.stream) {
                        tracing::warn!(%error, "a change of media could not be followed");
                    }
                }
                Some(
                    DialogEvent::Hold(_) | DialogEvent::InfoDigit(_) | DialogEvent::Flash | DialogEvent::Replaced,
                ) => {}
            },
        }
    }
}
