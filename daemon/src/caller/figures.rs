//! Figures: distributions of measured values, for people and for machines.

use serde::Serialize;

/// A set of measured values, kept whole until it is summarised.
#[derive(Debug, Clone, Default)]
pub struct Samples(Vec<f64>);

impl Samples {
    /// Adds one value; what is not a finite number is ignored.
    pub fn push(&mut self, value: f64) {
        if value.is_finite() {
            self.0.push(value);
        }
    }

    /// Adds all values of `other`.
    pub fn merge(&mut self, other: &Self) {
        self.0.extend_from_slice(&other.0);
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Their distribution, rounded to 1/1000; `None` when nothing was measured.
    #[must_use]
    pub fn summary(&self) -> Option<Summary> {
        let mut sorted = self.0.clone();
        sorted.sort_by(f64::total_cmp);
        let (min, max) = (*sorted.first()?, *sorted.last()?);
        let mean = sorted.iter().sum::<f64>() / sorted.len() as f64;
        Some(Summary {
            count: sorted.len(),
            min: round(min),
            mean: round(mean),
            p50: round(percentile(&sorted, 500)),
            p95: round(percentile(&sorted, 950)),
            p99: round(percentile(&sorted, 990)),
            p999: round(percentile(&sorted, 999)),
            max: round(max),
        })
    }
}

impl FromIterator<f64> for Samples {
    fn from_iter<T: IntoIterator<Item = f64>>(values: T) -> Self {
        let mut samples = Self::default();
        for value in values {
            samples.push(value);
        }
        samples
    }
}

/// Distribution of measured values, in their own unit.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Summary {
    /// How many values.
    pub count: usize,
    /// Smallest.
    pub min: f64,
    /// Mean.
    pub mean: f64,
    /// Median.
    pub p50: f64,
    /// 95th percentile.
    pub p95: f64,
    /// 99th percentile.
    pub p99: f64,
    /// 99.9th percentile.
    pub p999: f64,
    /// Largest.
    pub max: f64,
}

/// Percentile of ascending values by nearest rank: always a value that was really measured.
fn percentile(sorted: &[f64], permille: usize) -> f64 {
    let rank = (permille * sorted.len()).div_ceil(1000);
    sorted
        .get(rank.saturating_sub(1))
        .or(sorted.last())
        .copied()
        .unwrap_or(f64::NAN)
}

/// Rounds to 1/1000.
#[must_use]
pub fn round(value: f64) -> f64 {
    (value * 1000.0).round() / 1000.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_measured_values() {
        let all: Samples = (1..=1000).rev().map(f64::from).collect();
        let got = all.summary().unwrap();
        assert_eq!((got.count, got.min, got.max), (1000, 1.0, 1000.0));
        assert_eq!(
            (got.p50, got.p95, got.p99, got.p999),
            (500.0, 950.0, 990.0, 999.0)
        );
        assert_eq!([7.0].into_iter().collect::<Samples>().summary().unwrap().p50, 7.0);
        assert!(Samples::default().summary().is_none());
        assert!([f64::NAN].into_iter().collect::<Samples>().is_empty());
    }
}
