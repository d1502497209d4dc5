//! Breaker: keeps work that nobody waits for from hammering an engine that fails.
//!
//! ```text
//! closed ──3 failures in a row──> open ──its rest is over──> one try ──success──> closed
//!                                  ^                            │
//!                                  `──twice as long── failure ──'
//! ```
//! Pure: `now` comes in.

use std::time::{Duration, Instant};

/// Failures in a row that open it.
const FAILURES: u32 = 3;
/// The first rest, and the longest.
const REST: (Duration, Duration) = (Duration::from_secs(30), Duration::from_secs(900));

/// What a failure did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failed {
    /// It is counted.
    Counted,
    /// The engine is left alone for a while.
    Opened,
}

/// The breaker of one engine.
#[derive(Debug, Default)]
pub struct Breaker {
    failures: u32,
    rests: u32,
    until: Option<Instant>,
}

impl Breaker {
    /// How long the engine is to be left alone; `None`: it may be asked.
    pub fn rests(&self, now: Instant) -> Option<Duration> {
        let left = self.until?.saturating_duration_since(now);
        (!left.is_zero()).then_some(left)
    }

    /// It answered.
    pub fn on_success(&mut self) {
        *self = Self::default();
    }

    /// It failed.
    pub fn on_failure(&mut self, now: Instant) -> Failed {
        self.failures = self.failures.saturating_add(1);
        // After a rest one failure is enough.
        if self.failures < FAILURES && self.rests == 0 {
            return Failed::Counted;
        }
        let (first, longest) = REST;
        self.until = Some(now + longest.min(first * 2_u32.pow(self.rests.min(10))));
        self.rests = self.rests.saturating_add(1);
        self.failures = 0;
        Failed::Opened
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn opens_after_three_failures_and_rests_longer_each_time() {
        let (start, mut breaker) = (Instant::now(), Breaker::default());
        let at = |s: u64| start + Duration::from_secs(s);
        assert_eq!(breaker.on_failure(at(0)), Failed::Counted);
        assert_eq!(breaker.on_failure(at(1)), Failed::Counted);
        assert_eq!(breaker.rests(at(1)), None);
        assert_eq!(breaker.on_failure(at(2)), Failed::Opened);
        assert_eq!(breaker.rests(at(2)), Some(Duration::from_secs(30)));
        assert_eq!(breaker.rests(at(31)), Some(Duration::from_secs(1)));
        assert_eq!(breaker.rests(at(32)), None, "one try");
        let mut now = 32;
        for rest in [60, 120, 240, 480, 900, 900] {
            assert_eq!(breaker.on_failure(at(now)), Failed::Opened);
            assert_eq!(breaker.rests(at(now)), Some(Duration::from_secs(rest)));
            now += rest;
        }
        breaker.on_success();
        assert_eq!(breaker.on_failure(at(now)), Failed::Counted, "as new");
        assert_eq!(breaker.rests(at(now)), None);
    }
}
