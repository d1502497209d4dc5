//! Limit: how often somebody may ask; a bucket of requests each, refilled steadily.

use std::{
    collections::HashMap,
    hash::Hash,
    sync::{Mutex, PoisonError},
    time::Instant,
};

/// Most buckets kept; full ones are forgotten first, since they say nothing.
const MAX_BUCKETS: usize = 4_096;

#[derive(Debug, Clone, Copy)]
struct Bucket {
    left: f64,
    at: Instant,
}

/// Buckets by whose they are.
#[derive(Debug)]
pub struct Limiter<K> {
    /// Size of a bucket, which is what one minute brings.
    per_minute: f64,
    buckets: Mutex<HashMap<K, Bucket>>,
}

impl<K: Eq + Hash> Limiter<K> {
    /// With so many requests a minute for each.
    pub fn new(per_minute: u32) -> Self {
        Self {
            per_minute: f64::from(per_minute.max(1)),
            buckets: Mutex::default(),
        }
    }

    /// One more request now.
    ///
    /// # Errors
    /// When to try again [s]; likewise for somebody new while nobody can be forgotten.
    pub fn take(&self, key: K, now: Instant) -> Result<(), u32> {
        let mut buckets = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        if buckets.len() >= MAX_BUCKETS && !buckets.contains_key(&key) {
            buckets.retain(|_, bucket| self.filled(bucket, now) < self.per_minute);
            if buckets.len() >= MAX_BUCKETS {
                return Err(60);
            }
        }
        let bucket = buckets.entry(key).or_insert(Bucket {
            left: self.per_minute,
            at: now,
        });
        bucket.left = self.filled(bucket, now);
        bucket.at = now;
        if bucket.left < 1.0 {
            let wait_s = (1.0 - bucket.left) * 60.0 / self.per_minute;
            return Err((wait_s.ceil() as u32).max(1));
        }
        bucket.left -= 1.0;
        Ok(())
    }

    fn filled(&self, bucket: &Bucket, now: Instant) -> f64 {
        let minutes = now.saturating_duration_since(bucket.at).as_secs_f64() / 60.0;
        (bucket.left + minutes * self.per_minute).min(self.per_minute)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn as_many_as_a_minute_brings_and_no_more() {
        let limiter = Limiter::new(60);
        let now = Instant::now();
        assert!((0..60).all(|_| limiter.take("a", now).is_ok()));
        assert_eq!(limiter.take("a", now), Err(1));
        assert_eq!(limiter.take("b", now), Ok(()), "each has its own");
        assert_eq!(limiter.take("a", now + Duration::from_secs(1)), Ok(()));
        assert_eq!(limiter.take("a", now + Duration::from_secs(1)), Err(1));
    }

    #[test]
    fn strangers_do_not_fill_the_memory() {
        let limiter = Limiter::new(2);
        let now = Instant::now();
        for stranger in 0..MAX_BUCKETS {
            assert_eq!(limiter.take(stranger, now), Ok(()));
        }
        assert_eq!(limiter.take(MAX_BUCKETS, now), Err(60));
        // A minute later their buckets are full, and forgotten.
        assert_eq!(limiter.take(MAX_BUCKETS, now + Duration::from_secs(60)), Ok(()));
        assert_eq!(limiter.buckets.lock().expect("lock").len(), 1);
    }
}
