//! Trace: everything that happened to a turn machine, and everything it asked for, so that the same can happen again.
//!
//! A trace holds no word and no digit of a caller. Replayed into a machine with the same bounds it gives the same actions,
//! to the nanosecond; with other bounds it shows where they would have changed the call.

use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::{
    action::{Action, AttemptId, Completeness, Hearing, ReplyProgress},
    config::TurnConfig,
    machine::TurnMachine,
    voice::FrameVoice,
};

/// Most steps kept: half an hour of a call (250 per second).
const MOST_STEPS: usize = 500_000;

/// What happened to the machine, or what it asked for.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Step {
    /// A frame from the caller.
    Frame(FrameVoice),
    /// A key; only `*` and `#` are told apart.
    Digit(char),
    /// A transcript, by what it amounts to.
    Transcript {
        /// Attempt.
        id: AttemptId,
        /// What was heard.
        hearing: Hearing,
    },
    /// A second opinion.
    Completeness {
        /// Attempt.
        id: AttemptId,
        /// How finished it sounds.
        completeness: Completeness,
    },
    /// Progress of a reply.
    Reply {
        /// Attempt.
        id: AttemptId,
        /// How far it is.
        progress: ReplyProgress,
    },
    /// Whether the attendant's voice was playing.
    Playout(bool),
    /// The deadlines were looked at.
    Timeout,
    /// The machine asked for this.
    Action(Action),
}

/// A step and its time.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Timed {
    /// Since the call was answered [ns].
    pub ns: u64,
    /// What happened.
    pub step: Step,
}

/// The steps of a machine, where they are kept.
#[derive(Debug)]
pub(crate) struct Trace {
    began: Instant,
    last_ns: u64,
    steps: Option<Vec<Timed>>,
    kept: usize,
}

impl Trace {
    pub(crate) fn new(began: Instant) -> Trace {
        Trace {
            began,
            last_ns: 0,
            steps: None,
            kept: 0,
        }
    }

    pub(crate) fn keep(&mut self) {
        self.steps = Some(Vec::new());
    }

    pub(crate) fn take(&mut self) -> Vec<Timed> {
        self.steps.as_mut().map(std::mem::take).unwrap_or_default()
    }

    pub(crate) fn note(&mut self, now: Instant, step: impl FnOnce() -> Step) {
        if self.steps.is_some() {
            let since = now.saturating_duration_since(self.began).as_nanos();
            self.last_ns = u64::try_from(since).unwrap_or(u64::MAX);
            self.push(step());
        }
    }

    pub(crate) fn note_action(&mut self, action: &Action) {
        if self.steps.is_some() {
            self.push(Step::Action(without_digits(action)));
        }
    }

    fn push(&mut self, step: Step) {
        if let Some(steps) = self.steps.as_mut().filter(|_| self.kept < MOST_STEPS) {
            self.kept += 1;
            steps.push(Timed {
                ns: self.last_ns,
                step,
            });
        }
    }
}

/// A key without what it says.
pub(crate) fn masked(digit: char) -> char {
    if matches!(digit, '*' | '#') { digit } else { '0' }
}

fn without_digits(action: &Action) -> Action {
    match action {
        Action::Keyed { id, digits } => Action::Keyed {
            id: *id,
            digits: digits.chars().map(masked).collect(),
        },
        other => other.clone(),
    }
}

/// Where a replay left the recorded path.
#[derive(Debug, Clone, PartialEq)]
pub struct Difference {
    /// Since the call was answered [ns].
    pub ns: u64,
    /// What the trace has.
    pub recorded: Option<Action>,
    /// What the machine asked for now.
    pub replayed: Option<Action>,
}

/// Lets the same happen to a machine with these bounds, as if it had begun at `start`.
///
/// # Errors
/// The first action that differs.
pub fn replay(config: TurnConfig, steps: &[Timed], start: Instant) -> Result<(), Box<Difference>> {
    let mut machine = TurnMachine::new(config, start);
    let mut last = 0;
    for Timed { ns, step } in steps {
        last = *ns;
        let now = start + Duration::from_nanos(*ns);
        // The owner takes the actions of every step before the next, except after playout and before a key.
        let drained = !matches!(step, Step::Action(_) | Step::Timeout | Step::Digit(_));
        if let Some(replayed) = drained.then(|| machine.poll_action()).flatten() {
            return Err(Box::new(Difference {
                ns: *ns,
                recorded: None,
                replayed: Some(replayed),
            }));
        }
        match step {
            Step::Frame(voice) => machine.handle_frame(*voice, now),
            Step::Digit(digit) => machine.handle_digit(*digit, now),
            Step::Transcript { id, hearing } => machine.handle_transcript(*id, *hearing, now),
            Step::Completeness { id, completeness } => machine.handle_completeness(*id, *completeness, now),
            Step::Reply { id, progress } => machine.handle_reply(*id, *progress, now),
            Step::Playout(playing) => machine.handle_playout(*playing, now),
            Step::Timeout => machine.handle_timeout(now),
            Step::Action(recorded) => {
                let replayed = machine.poll_action();
                if replayed.as_ref() != Some(recorded) {
                    return Err(Box::new(Difference {
                        ns: *ns,
                        recorded: Some(recorded.clone()),
                        replayed,
                    }));
                }
            }
        }
    }
    match machine.poll_action() {
        None => Ok(()),
        replayed => Err(Box::new(Difference {
            ns: last,
            recorded: None,
            replayed,
        })),
    }
}
