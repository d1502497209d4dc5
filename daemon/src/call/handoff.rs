//! Handoff: a caller is being put through.
//!
//! ```text
//! briefing none:    REFER ──> progress ──> Answered | Failed
//! header, spoken:   call the target ──> keys ──> brief ──> REFER with Replaces ──> Answered | Failed
//! ```
//! One task per handoff. Dropping it takes back what has not been accepted: the call to the target is cancelled or hung up.

use std::{sync::Arc, time::Duration};

use attendant_dialog::spoken;
use attendant_models::client::{Priority, SpeakRequest};
use attendant_rt::{Leg, LegConfig};
use attendant_sip::{DialogEvent, DialogHandle, Established, Outgoing, SipError, TransferProgress};
use tokio::{
    sync::mpsc,
    time::{Instant, MissedTickBehavior},
};

use super::mouth::{Clip, Mouth};
use super::{Aborting, House, TICK};
use crate::transfer::{Briefing, Target};

/// Reports that may wait: each comes once.
const REPORTS: usize = 8;
/// Longest a briefing may take to be synthesised; without it the target is connected unprepared.
const SPEAK: Duration = Duration::from_secs(8);
/// Longest a briefing may last.
const LONGEST_BRIEFING: Duration = Duration::from_secs(30);
/// From one key to the next: a key takes 220 ms on the wire.
const KEY: Duration = Duration::from_millis(240);
/// "It is still ringing" comes this often.
pub const STILL_RINGING: Duration = Duration::from_secs(12);

/// What happened to a handoff.
#[derive(Debug, PartialEq, Eq)]
pub enum Report {
    /// It rings there.
    Ringing,
    /// The caller is with the target.
    Answered,
    /// Not put through; why, for the record.
    Failed(String),
}

/// A handoff as the call sees it.
pub struct Handoff {
    /// Place of the target in the list.
    pub target: usize,
    reports: mpsc::Receiver<Report>,
    _task: Aborting,
    /// When the caller last heard that it rings.
    pub told_ringing: Option<std::time::Instant>,
}

/// What is to be done.
pub struct Job {
    /// Call, for the engines and logs.
    pub call: u64,
    /// The caller's dialog.
    pub caller: DialogHandle,
    /// To whom.
    pub target: Target,
    /// What the target is told.
    pub briefing: String,
    /// How long it may ring.
    pub ring: Duration,
}

impl Handoff {
    /// Starts the task.
    pub fn start(index: usize, house: House, job: Job) -> Self {
        let (reports_in, reports) = mpsc::channel(REPORTS);
        let task = tokio::spawn(async move {
            let outcome = match run(&house, &job, &reports_in).await {
                Ok(()) => Report::Answered,
                Err(why) => Report::Failed(why),
            };
            // A call that has ended needs no report.
            let _ = reports_in.send(outcome).await;
        });
        Self {
            target: index,
            reports,
            _task: Aborting(task),
            told_ringing: None,
        }
    }

    /// Whether the target has the caller: the end of the call may overtake the report.
    pub fn has_succeeded(&mut self) -> bool {
        std::iter::from_fn(|| self.reports.try_recv().ok()).any(|report| report == Report::Answered)
    }
}

/// The next report of a handoff, if there is one; else never.
pub async fn next_report(handoff: &mut Option<Handoff>) -> Report {
    match handoff {
        Some(handoff) => match handoff.reports.recv().await {
            Some(report) => report,
            None => Report::Failed("the transfer stopped".into()),
        },
        None => std::future::pending().await,
    }
}

async fn run(house: &House, job: &Job, reports: &mpsc::Sender<Report>) -> Result<(), String> {
    if job.target.briefing == Briefing::None {
        let progress = job.caller.refer(&job.target.uri).await.map_err(reason)?;
        let ring = tokio::time::timeout(job.ring + SPEAK, follow(progress, reports));
        return ring
            .await
            .unwrap_or_else(|_| Err("nothing was heard of the transfer in time".into()));
    }
    let mut consultation = consult(house, job, reports).await.map_err(reason)?;
    if let Err(error) = prepare(house, job, &mut consultation).await {
        tracing::warn!(call = job.call, %error, "whoever takes over could not be briefed");
        if consultation.handle.is_over() {
            return Err("the target hung up".into());
        }
    }
    let progress = job
        .caller
        .refer_to_call(&consultation.handle)
        .await
        .map_err(reason)?;
    // Dropping the consultation then ends what the target's telephone has not.
    follow(progress, reports).await
}

async fn follow(
    mut progress: mpsc::Receiver<TransferProgress>,
    reports: &mpsc::Sender<Report>,
) -> Result<(), String> {
    while let Some(step) = progress.recv().await {
        match step {
            TransferProgress::Trying => {}
            TransferProgress::Ringing => {
                let _ = reports.try_send(Report::Ringing);
            }
            TransferProgress::Answered => return Ok(()),
            TransferProgress::Failed(status) => return Err(format!("the target answered {status}")),
            TransferProgress::Gone => return Err("the call ended during the transfer".into()),
        }
    }
    Err("nothing was heard of the transfer".into())
}

/// Calls the target while the caller waits.
async fn consult(house: &House, job: &Job, reports: &mpsc::Sender<Report>) -> Result<Established, SipError> {
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
async fn prepare(house: &House, job: &Job, consultation: &mut Established) -> Result<(), String> {
    let keys = job.target.keys.as_deref().unwrap_or_default();
    let speaks = job.target.briefing == Briefing::Spoken;
    if keys.is_empty() && !speaks {
        return Ok(());
    }
    let socket = consultation.socket.try_clone();
    let reports = consultation.rtcp_socket.try_clone();
    let leg = house.rt.add_leg(LegConfig {
        socket: socket.map_err(|error| error.to_string())?,
        rtcp_socket: Some(reports.map_err(|error| error.to_string())?),
        stream: consultation.media.stream,
        symmetric: true,
        ssrc: rand::random(),
    });
    let leg = leg.map_err(|error| error.to_string())?;
    for key in keys.chars() {
        leg.control.send_digit(key).map_err(|error| error.to_string())?;
        tokio::time::sleep(KEY).await;
    }
    if speaks {
        brief(house, job, consultation, leg).await?;
    }
    Ok(())
}

async fn brief(house: &House, job: &Job, consultation: &mut Established, mut leg: Leg) -> Result<(), String> {
    let request = SpeakRequest {
        call: job.call,
        turn: 0,
        deadline: SPEAK,
        text: spoken(&job.briefing),
        speed: 1.0,
        priority: Priority::Live,
    };
    let speech = house.engines.speak(request).await;
    let pcm = speech.map_err(|error| error.to_string())?.pcm;
    let mut mouth = Mouth::default();
    mouth.say(Clip {
        attempt: None,
        text: job.briefing.clone(),
        pcm: Arc::new(pcm),
    });
    let mut tick = tokio::time::interval(TICK);
    tick.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let until = Instant::now() + LONGEST_BRIEFING;
    while Instant::now() < until {
        tokio::select! {
            _ = tick.tick() => {
                // What is said there is for nobody's ears.
                while leg.rx.pop().is_ok() {}
                let played = leg.control.played();
                mouth.pump(&mut leg.tx, played);
                if !mouth.playing(played) {
                    return Ok(());
                }
            }
            event = consultation.events.recv() => if matches!(
                event,
                None | Some(DialogEvent::Bye | DialogEvent::Failed(_))
            ) {
                return Err("hung up".into());
            },
        }
    }
    Ok(())
}

/// An error for the record: no address in it.
fn reason(error: SipError) -> String {
    match error {
        SipError::Refused { status, .. } => format!("refused with {status}"),
        SipError::Timeout { seconds } => format!("no answer within {seconds} s"),
        SipError::Gone => "the call was over".into(),
        SipError::Media(_) => "no common codec".into(),
        _ => "it could not be reached".into(),
    }
}
