//! Bounds of turn-taking. Keys end in their unit; unknown keys are refused.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Every bound of a turn.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TurnConfig {
    /// Speech probability at which silence becomes speech, 0…1.
    pub speech_on: f32,
    /// Speech probability below which speech becomes silence, 0…1; lower than `speech_on`.
    pub speech_off: f32,
    /// Quieter frames are never speech [dBov].
    pub min_level_dbov: f32,
    /// Voiced time that starts an utterance [ms]; shorter bursts are clicks.
    pub onset_ms: u32,
    /// Silence after which transcription and a speculative reply start [ms].
    pub pause_ms: u32,
    /// Silence that ends a complete short answer ("yes", "no thanks") [ms].
    pub hangover_short_ms: u32,
    /// Silence that ends a finished sentence [ms].
    pub hangover_finished_ms: u32,
    /// Silence that ends a turn when nothing tells whether it is finished [ms]. People pause for up to 1.2 s within a
    /// sentence, and what recognition misread sounds like anything.
    pub hangover_unknown_ms: u32,
    /// Silence that ends a turn that sounds unfinished: an open digit string, "and…", "um" [ms].
    pub hangover_open_ms: u32,
    /// Longest utterance; the turn is taken there even without a pause [ms].
    pub max_utterance_ms: u32,
    /// Voiced time during a reply after which the reply is ducked [ms].
    pub duck_after_ms: u32,
    /// Voiced time during a reply after which the reply stops: barge-in [ms].
    pub barge_in_ms: u32,
    /// Silence of the attendant after the caller's turn, before "one moment, please" [ms].
    pub filler_after_ms: u32,
    /// Requests for patience within one turn, before it is given up.
    pub max_fillers: u32,
    /// Silence of both before "are you still there?" [ms].
    pub still_there_after_ms: u32,
    /// How often "are you still there?" is asked before the polite goodbye.
    pub still_there_times: u32,
    /// Times a failed stage (transcript, reply) is tried again within a turn.
    pub retries: u32,
    /// Failed turns in a row before the call ends with an apology.
    pub max_failed_turns: u32,
    /// Turns of the caller before the attendant says goodbye.
    pub max_turns: u32,
    /// Longest call [s].
    pub timebox_s: u32,
    /// Spoken and logged warnings, this long before the timebox ends [s].
    pub timebox_warnings_s: Vec<u32>,
    /// Whether the reply is prepared before the turn has ended.
    pub speculation: bool,
    /// Whether speech is transcribed, and read by the language model, while the caller still speaks.
    pub partials: bool,
    /// Whether the language model is asked if what was said sounds finished.
    pub meaning: bool,
}

impl Default for TurnConfig {
    fn default() -> Self {
        Self {
            speech_on: 0.5,
            speech_off: 0.35,
            min_level_dbov: -55.0,
            onset_ms: 60,
            pause_ms: 60,
            hangover_short_ms: 400,
            hangover_finished_ms: 450,
            hangover_unknown_ms: 1300,
            hangover_open_ms: 1350,
            max_utterance_ms: 28_000,
            duck_after_ms: 60,
            barge_in_ms: 140,
            filler_after_ms: 2_300,
            max_fillers: 3,
            still_there_after_ms: 7_000,
            still_there_times: 2,
            retries: 2,
            max_failed_turns: 3,
            max_turns: 100,
            timebox_s: 30 * 60,
            timebox_warnings_s: vec![300, 60],
            speculation: true,
            partials: true,
            meaning: true,
        }
    }
}

impl TurnConfig {
    /// Checks that the bounds make sense together.
    ///
    /// # Errors
    /// A sentence that names the key and what would be accepted.
    pub fn check(&self) -> Result<(), String> {
        if !(0.0..=1.0).contains(&self.speech_on) || !(0.0..=self.speech_on).contains(&self.speech_off) {
            return Err("speech_on must be 0 to 1, and speech_off 0 to speech_on".into());
        }
        if !(-100.0..=0.0).contains(&self.min_level_dbov) {
            return Err("min_level_dbov must be -100 to 0".into());
        }
        let in_order = [
            ("pause_ms", self.pause_ms),
            ("hangover_short_ms", self.hangover_short_ms),
            ("hangover_finished_ms", self.hangover_finished_ms),
            ("hangover_unknown_ms", self.hangover_unknown_ms),
            ("hangover_open_ms", self.hangover_open_ms),
        ];
        for pair in in_order.windows(2) {
            if let [(low, a), (high, b)] = pair
                && a > b
            {
                return Err(format!("{low} ({a}) must not be above {high} ({b})"));
            }
        }
        if self.pause_ms < 40 {
            return Err("pause_ms must be 40 or more".into());
        }
        if !(1_000..=28_000).contains(&self.max_utterance_ms) {
            return Err("max_utterance_ms must be 1000 to 28000 (Whisper hears 30 s at once)".into());
        }
        if self.duck_after_ms > self.barge_in_ms {
            return Err("duck_after_ms must not be above barge_in_ms".into());
        }
        if self.filler_after_ms <= self.hangover_open_ms {
            return Err(format!(
                "filler_after_ms must be above hangover_open_ms ({})",
                self.hangover_open_ms
            ));
        }
        if self.max_turns == 0 || self.timebox_s == 0 || self.max_failed_turns == 0 {
            return Err("max_turns, timebox_s and max_failed_turns must be 1 or more".into());
        }
        if let Some(w) = self.timebox_warnings_s.iter().find(|w| **w >= self.timebox_s) {
            return Err(format!(
                "timebox_warnings_s: {w} is not before the end of the call ({} s)",
                self.timebox_s
            ));
        }
        Ok(())
    }
}

/// Milliseconds as a duration.
pub(crate) fn ms(value: u32) -> Duration {
    Duration::from_millis(u64::from(value))
}
