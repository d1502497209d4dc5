//! How long a dead worker stays dead: a floor on the rate of restarts.

use std::time::Duration;

/// Waits after the 2nd, 3rd… crash in a row; the first restart is at once, the last value repeats.
const STEPS: [Duration; 7] = [
    Duration::from_millis(500),
    Duration::from_secs(1),
    Duration::from_secs(2),
    Duration::from_secs(4),
    Duration::from_secs(8),
    Duration::from_secs(16),
    Duration::from_secs(30),
];
/// A worker that lived this long starts again with a clean record.
const HEALTHY: Duration = Duration::from_secs(60);
/// A bad model file stays bad until a person replaces it; still look now and then.
const BAD_MODEL: Duration = Duration::from_secs(60);

/// How a worker's life ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ending {
    /// It crashed, hung or was killed after this time.
    Crash { lived: Duration },
    /// It said that it can't work with what it was given (exit code 2), or could not be started.
    BadModel,
}

/// Counts crashes in a row.
#[derive(Debug, Default)]
pub(super) struct Backoff {
    crashes: usize,
}

impl Backoff {
    /// How long to wait before the next start.
    pub(super) fn on_end(&mut self, ending: Ending) -> Duration {
        match ending {
            Ending::BadModel => BAD_MODEL,
            Ending::Crash { lived } => {
                if lived >= HEALTHY {
                    self.crashes = 0;
                }
                self.crashes += 1;
                match self.crashes {
                    1 => Duration::ZERO,
                    n => STEPS[(n - 2).min(STEPS.len() - 1)],
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_stop_growing_and_are_forgiven() {
        let mut backoff = Backoff::default();
        let crash = Ending::Crash {
            lived: Duration::from_secs(1),
        };
        let waits: Vec<u64> = (0..10)
            .map(|_| backoff.on_end(crash).as_millis() as u64)
            .collect();
        assert_eq!(
            waits,
            [0, 500, 1000, 2000, 4000, 8000, 16000, 30000, 30000, 30000]
        );
        assert_eq!(backoff.on_end(Ending::Crash { lived: HEALTHY }), Duration::ZERO);
        assert_eq!(backoff.on_end(crash), STEPS[0]);
        assert_eq!(backoff.on_end(Ending::BadModel), BAD_MODEL);
    }
}
