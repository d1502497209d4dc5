//! Script: when the caller speaks, waits, interrupts and hangs up.
//!
//! ```text
//! Greeting --quiet--> Thinking --pause over--> Speaking --said--> Waiting --voice--> Replying
//!                        ^  `--nothing left--> Over                  |                |    |
//!                        |<-------- patience gone -------------------'                |    |
//!                        `------------------------- quiet ---------------------------'    |
//!                                            Speaking <------- interrupts ----------------'
//! ```
//!
//! Sans-IO: [`Conductor::on_tick`] takes what was heard in one ptime and says what to do. It never waits for ever.

/// One ptime [ms]; the unit of the script's clock.
const TICK_MS: u32 = 20;
/// Silence shorter than this inside a reply is not its end, and the reply still counts as playing [ms].
const STILL_PLAYING_MS: u32 = 60;

/// How patient the caller is.
#[derive(Debug, Clone, Copy)]
pub struct Manners {
    /// Silence after voice that ends a greeting or a reply [ms].
    pub quiet_ms: u32,
    /// Pause before speaking [ms].
    pub think_ms: u32,
    /// How long to wait for a greeting's first word [ms].
    pub greeting_timeout_ms: u32,
    /// How long to wait for a reply's first word [ms].
    pub reply_timeout_ms: u32,
    /// Longest greeting or reply listened to [ms].
    pub longest_reply_ms: u32,
}

impl Default for Manners {
    fn default() -> Self {
        Self {
            quiet_ms: 900,
            think_ms: 300,
            greeting_timeout_ms: 15_000,
            reply_timeout_ms: 20_000,
            longest_reply_ms: 45_000,
        }
    }
}

/// When an utterance is spoken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Begin {
    /// When the other side has finished.
    AfterReply,
    /// This long into the reply to the utterance before it [ms]; after that reply, should it be shorter.
    IntoReply {
        /// From the reply's first voice [ms].
        after_ms: u32,
    },
    /// Likewise, but left out should the reply be shorter.
    WhileReplying {
        /// From the reply's first voice [ms].
        after_ms: u32,
    },
}

/// What to do in this ptime.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Go on as before.
    Nothing,
    /// Begin to speak this utterance.
    Say {
        /// Which one.
        utterance: usize,
        /// A reply is being interrupted.
        interrupts: bool,
    },
    /// Everything was said and heard.
    HangUp,
}

#[derive(Debug, Clone, Copy)]
enum State {
    Greeting { heard: bool, ticks: u32, quiet: u32 },
    Thinking { ticks: u32 },
    Speaking,
    Waiting { ticks: u32 },
    Replying { ticks: u32, quiet: u32 },
    Over,
}

/// Conducts one call.
#[derive(Debug)]
pub struct Conductor {
    manners: Manners,
    steps: Vec<Begin>,
    next: usize,
    state: State,
}

impl Conductor {
    /// A caller who waits for the greeting and then speaks one utterance for each of `steps`.
    #[must_use]
    pub fn new(steps: Vec<Begin>, manners: Manners) -> Self {
        Self {
            manners,
            steps,
            next: 0,
            state: State::Greeting {
                heard: false,
                ticks: 0,
                quiet: 0,
            },
        }
    }

    /// One ptime has passed: `heard` tells whether voice was received in it, `speaking` whether the last utterance is
    /// still being sent.
    pub fn on_tick(&mut self, heard: bool, speaking: bool) -> Action {
        let manners = self.manners;
        let quiet_after = |quiet: u32| if heard { 0 } else { quiet + 1 };
        match self.state {
            State::Greeting {
                heard: before,
                ticks,
                quiet,
            } => {
                let (began, quiet) = (heard || before, quiet_after(quiet));
                let late = !began && ms(ticks) >= manners.greeting_timeout_ms;
                let over = began && ms(quiet) >= manners.quiet_ms;
                if late || over || ms(ticks) >= manners.greeting_timeout_ms + manners.longest_reply_ms {
                    return self.think();
                }
                self.state = State::Greeting {
                    heard: began,
                    ticks: ticks + 1,
                    quiet,
                };
            }
            State::Thinking { ticks } if ms(ticks) >= manners.think_ms => return self.say(false),
            State::Thinking { ticks } => self.state = State::Thinking { ticks: ticks + 1 },
            State::Speaking if speaking => {}
            State::Speaking => self.state = State::Waiting { ticks: 0 },
            State::Waiting { .. } if heard => self.state = State::Replying { ticks: 0, quiet: 0 },
            State::Waiting { ticks } if ms(ticks) >= manners.reply_timeout_ms => return self.think(),
            State::Waiting { ticks } => self.state = State::Waiting { ticks: ticks + 1 },
            State::Replying { ticks, quiet } => {
                let (ticks, quiet) = (ticks + 1, quiet_after(quiet));
                if let Some(Begin::IntoReply { after_ms } | Begin::WhileReplying { after_ms }) =
                    self.steps.get(self.next)
                    && ms(ticks) >= *after_ms
                    && ms(quiet) <= STILL_PLAYING_MS
                {
                    return self.say(true);
                }
                if ms(quiet) >= manners.quiet_ms || ms(ticks) >= manners.longest_reply_ms {
                    return self.think();
                }
                self.state = State::Replying { ticks, quiet };
            }
            State::Over => return Action::HangUp,
        }
        Action::Nothing
    }

    fn think(&mut self) -> Action {
        while let Some(Begin::WhileReplying { .. }) = self.steps.get(self.next) {
            self.next += 1;
        }
        if self.next >= self.steps.len() {
            self.state = State::Over;
            return Action::HangUp;
        }
        self.state = State::Thinking { ticks: 0 };
        Action::Nothing
    }

    fn say(&mut self, interrupts: bool) -> Action {
        let utterance = self.next;
        self.next += 1;
        self.state = State::Speaking;
        Action::Say {
            utterance,
            interrupts,
        }
    }
}

fn ms(ticks: u32) -> u32 {
    ticks.saturating_mul(TICK_MS)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MANNERS: Manners = Manners {
        quiet_ms: 100,
        think_ms: 40,
        greeting_timeout_ms: 400,
        reply_timeout_ms: 400,
        longest_reply_ms: 1000,
    };

    /// Runs a call against `heard` ('v' or '.' per tick); utterances last 5 ticks. Returns what was done at which
    /// tick.
    fn run(steps: &[Begin], heard: &str) -> Vec<(usize, Action)> {
        let mut conductor = Conductor::new(steps.to_vec(), MANNERS);
        let (mut said, mut until) = (Vec::new(), 0);
        for (tick, kind) in heard.chars().enumerate() {
            match conductor.on_tick(kind == 'v', tick < until) {
                Action::Nothing => {}
                Action::HangUp => {
                    said.push((tick, Action::HangUp));
                    break;
                }
                action @ Action::Say { .. } => {
                    said.push((tick, action));
                    until = tick + 5;
                }
            }
        }
        said
    }

    fn say(utterance: usize) -> Action {
        Action::Say {
            utterance,
            interrupts: false,
        }
    }

    #[test]
    fn waits_for_greeting_and_reply() {
        let heard = format!("..vvvv{}vvvv{}", ".".repeat(30), ".".repeat(30));
        assert_eq!(
            run(&[Begin::AfterReply], &heard),
            [(13, say(0)), (44, Action::HangUp)]
        );
    }

    #[test]
    fn patience_ends() {
        let got = run(&[Begin::AfterReply, Begin::AfterReply], &".".repeat(200));
        assert_eq!(
            got.iter().map(|(_, a)| *a).collect::<Vec<_>>(),
            [say(0), say(1), Action::HangUp]
        );
        let got = run(&[Begin::AfterReply], &"v".repeat(300));
        assert_eq!(
            got.iter().map(|(_, a)| *a).collect::<Vec<_>>(),
            [say(0), Action::HangUp]
        );
    }

    #[test]
    fn interrupts_a_reply_or_speaks_after_a_short_one() {
        let steps = [Begin::AfterReply, Begin::IntoReply { after_ms: 100 }];
        let long = format!("vv{}{}{}", ".".repeat(20), "v".repeat(30), ".".repeat(60));
        let got = run(&steps, &long);
        assert_eq!(
            got[1],
            (
                27,
                Action::Say {
                    utterance: 1,
                    interrupts: true
                }
            ),
            "{got:?}"
        );
        let short = format!("vv{}vv{}", ".".repeat(20), ".".repeat(90));
        assert_eq!(run(&steps, &short)[1].1, say(1));
    }
}
