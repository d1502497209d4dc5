//! Time: how instants are written in file names. UTC.

/// `20260131-120000` of an instant [Unix ms].
pub fn compact(unix_ms: i64) -> String {
    let seconds = unix_ms.clamp(0, 253_402_300_799_000) / 1_000;
    let (year, month, day) = civil(seconds / 86_400);
    let (hour, minute, second) = (seconds / 3_600 % 24, seconds / 60 % 60, seconds % 60);
    format!("{year:04}{month:02}{day:02}-{hour:02}{minute:02}{second:02}")
}

/// Year, month, day of a number of days since 1970, in the proleptic Gregorian calendar. Years are counted from March,
/// so that the leap day is a year's last.
fn civil(days: i64) -> (i64, i64, i64) {
    // 1 March 2000 began a cycle of 400 years; before it counting from 1 March 1600 keeps all positive.
    let since_1600 = days + 135_080;
    let (cycles, day) = (since_1600 / 146_097, since_1600 % 146_097);
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let of_year = day - (365 * year + year / 4 - year / 100);
    let month = (5 * of_year + 2) / 153;
    let of_month = of_year - (153 * month + 2) / 5 + 1;
    let (month, carry) = if month < 10 {
        (month + 3, 0)
    } else {
        (month - 9, 1)
    };
    (1_600 + cycles * 400 + year + carry, month, of_month)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instants_as_the_calendar_has_them() {
        for (unix_ms, want) in [
            (0, "19700101-000000"),
            (951_782_399_000, "20000228-235959"),
            (951_782_400_000, "20000229-000000"),
            (951_868_800_000, "20000301-000000"),
            (1_735_689_599_999, "20241231-235959"),
            (1_760_000_000_000, "20251009-085320"),
            (4_107_542_400_000, "21000301-000000"),
            (-5, "19700101-000000"),
            (i64::MAX, "99991231-235959"),
        ] {
            assert_eq!(compact(unix_ms), want, "{unix_ms}");
        }
    }
}
