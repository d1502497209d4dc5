//! Handoff: a caller is being put through.
//!
//! ```text
//! briefing none:    REFER ──> progress ──> Answered | Failed
//! header:           call the target ──> keys ──────────────────────────> REFER with Replaces ──> Answered | Failed
//! spoken:           call the target ──> keys ──> who answers? ──> brief ──^
//! ```
//! One task per handoff. Dropping it takes back what has not been accepted: the call to the target is cancelled or hung up.

use std::time::Duration;

use attendant_sip::{DialogHandle, SipError, TransferProgress};
use tokio::sync::mpsc;

use super::consultation::{self, NotBriefed};
use super::{Aborting, House};
use crate::transfer::{Briefing, OnMachine, Target};

/// Reports that may wait: each comes once.
pub(super) const REPORTS: usize = 8;
/// Longest a PBX may take beyond the ringing to tell how a transfer went.
const TELL: Duration = Duration::from_secs(8);
/// "It is still ringing" comes this often.
pub const STILL_RINGING: Duration = Duration::from_secs(12);

/// What happened to a handoff.
#[derive(Debug, PartialEq, Eq)]
pub enum Report {
    /// It rings there.
    Ringing,
    /// The target's line was answered, and by what.
    Heard(&'static str),
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
    /// What becomes of the caller when a machine answers.
    pub machine: OnMachine,
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
        let ring = tokio::time::timeout(job.ring + TELL, follow(progress, reports));
        return ring
            .await
            .unwrap_or_else(|_| Err("nothing was heard of the transfer in time".into()));
    }
    let mut call = consultation::call(house, job, reports).await.map_err(reason)?;
    match consultation::prepare(house, job, &mut call, reports).await {
        Ok(()) => {}
        // Dropping the call hangs up there.
        Err(NotBriefed::Nobody(answer)) => return Err(format!("heard there: {}", answer.name())),
        Err(NotBriefed::HungUp) => return Err("the target hung up".into()),
        Err(NotBriefed::Trouble(error)) => {
            tracing::warn!(call = job.call, error, "whoever takes over could not be briefed");
        }
    }
    let progress = job.caller.refer_to_call(&call.handle).await.map_err(reason)?;
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
