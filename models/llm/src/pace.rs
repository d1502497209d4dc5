//! How many prompt tokens may go into one step, so that nobody waits long for the next step.

use std::time::Duration;

/// A step may take this long: so long a cancel, a new call or a change of threads waits.
const STEP: Duration = Duration::from_millis(200);
/// … and this long while another call's reply is being generated and must not stutter.
const SHARED_STEP: Duration = Duration::from_millis(100);
/// Fewer cost as much as these.
const LEAST: usize = 8;
/// Most prompt tokens in one step; more are no faster.
pub(crate) const MOST: u32 = 64;
/// Before anything was measured: a slow machine [ms per token].
const UNKNOWN_MS: f32 = 12.0;

/// Measures steps.
#[derive(Debug)]
pub(crate) struct Pace {
    ms_per_token: f32,
}

impl Pace {
    pub(crate) fn new() -> Self {
        Self {
            ms_per_token: UNKNOWN_MS,
        }
    }

    /// The next step's share for prompts.
    pub(crate) fn chunk(&self, others_generate: bool) -> usize {
        let step = if others_generate { SHARED_STEP } else { STEP };
        let tokens = (step.as_millis() as f32 / self.ms_per_token) as usize;
        (tokens / LEAST * LEAST).clamp(LEAST, MOST as usize)
    }

    /// A step of `tokens` took this long. Slow ones count little: the process may have been frozen meanwhile.
    pub(crate) fn on_step(&mut self, tokens: usize, took: Duration) {
        if tokens < LEAST {
            return;
        }
        let ms = took.as_secs_f32() * 1000.0 / tokens as f32;
        self.ms_per_token = if ms < self.ms_per_token {
            f32::midpoint(self.ms_per_token, ms)
        } else {
            self.ms_per_token * 0.8 + ms.min(self.ms_per_token * 2.0) * 0.2
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_follow_the_machine() {
        let mut pace = Pace::new();
        assert_eq!((pace.chunk(false), pace.chunk(true)), (16, 8));
        for _ in 0..10 {
            pace.on_step(32, Duration::from_millis(96));
        }
        assert_eq!((pace.chunk(false), pace.chunk(true)), (64, 32));
        pace.on_step(32, Duration::from_secs(5));
        assert!(pace.chunk(false) >= 48, "one frozen step changes little");
        for _ in 0..40 {
            pace.on_step(8, Duration::from_millis(800));
        }
        assert_eq!(pace.chunk(false), 8);
    }
}
