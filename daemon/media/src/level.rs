//! Level of a signal in dBov (RFC 6464 §3: relative to the overload point, a full-scale square wave).

/// What silence measures \[dBov\].
pub const FLOOR_DBOV: f32 = -127.0;

/// Mean level of the samples \[dBov\], between [`FLOOR_DBOV`] and 0.
#[must_use]
pub fn dbov(samples: &[i16]) -> f32 {
    if samples.is_empty() {
        return FLOOR_DBOV;
    }
    let energy: i64 = samples
        .iter()
        .map(|&sample| i64::from(sample) * i64::from(sample))
        .sum();
    if energy == 0 {
        return FLOOR_DBOV;
    }
    let mean = energy as f64 / samples.len() as f64;
    let level = 10.0 * (mean / (32_768.0 * 32_768.0)).log10();
    (level as f32).clamp(FLOOR_DBOV, 0.0)
}

/// The amplitude (root mean square, in sample units) of a level \[dBov\].
#[must_use]
pub fn rms_of_dbov(level_dbov: f32) -> f32 {
    32_768.0 * 10f32.powf(level_dbov / 20.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_levels() {
        assert_eq!(dbov(&[]), FLOOR_DBOV);
        assert_eq!(dbov(&[0; 320]), FLOOR_DBOV);
        assert!(dbov(&[i16::MIN; 320]).abs() < 0.01);
        assert!((dbov(&[16_384; 320]) + 6.02).abs() < 0.01);
        assert!((rms_of_dbov(-6.02) - 16_384.0).abs() < 10.0);
    }
}
