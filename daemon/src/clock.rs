//! Wall clock, for the record only; timing uses the monotonic clock.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// Now [Unix ms].
#[must_use]
pub fn unix_ms() -> i64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |d| d.as_millis() as i64)
}

/// The wall clock's time of an instant in the past [Unix ms]; now when there is none.
#[must_use]
pub fn unix_ms_at(instant: Option<Instant>) -> i64 {
    unix_ms() - instant.map_or(0, |at| at.elapsed().as_millis() as i64)
}
