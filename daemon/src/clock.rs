//! Wall clock, for the record only; timing uses the monotonic clock.

use std::time::{SystemTime, UNIX_EPOCH};

/// Now [Unix ms].
#[must_use]
pub fn unix_ms() -> i64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |d| d.as_millis() as i64)
}
