//! Sequence numbers received: duplicates, losses, and what a receiver report says of them.
//! Source: RFC 3550 A.1 (sequence), A.3 (loss).

use crate::rtp::SeqNumber;

/// A jump of more than that is a restart of the sender, not a loss (RFC 3550 A.1) \[packets\].
const MAX_DROPOUT: i32 = 3000;

/// Finds duplicates among the last 64 and counts what is missing.
#[derive(Clone, Copy, Debug, Default)]
pub struct Sequence {
    highest: Option<SeqNumber>,
    /// Bit n: `highest - n` was seen.
    seen: u64,
    expected: u64,
    received: u64,
    /// Lost before the last restart.
    lost_before: u64,
    /// `highest` with the times it wrapped in the upper half.
    extended: u32,
    /// `expected` and `received` at the last report.
    reported: (u64, u64),
}

/// A receiver report's part about losses (RFC 3550 §6.4.1).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LossReport {
    /// Lost since the last report \[1/256\].
    pub fraction_lost: u8,
    /// Lost since this stream began \[packets\].
    pub lost: u32,
    /// Extended highest sequence number.
    pub highest: u32,
}

impl Sequence {
    /// Forgets the stream, keeps the count of losses.
    pub fn restart(&mut self) {
        *self = Sequence {
            lost_before: self.lost(),
            ..Sequence::default()
        };
    }

    /// Takes a packet's number; `false`: it was here before.
    pub fn handle(&mut self, seq: SeqNumber) -> bool {
        let Some(highest) = self.highest else {
            self.begin(seq);
            return true;
        };
        match seq.ahead_of(highest) {
            ahead @ 1..=MAX_DROPOUT => {
                self.highest = Some(seq);
                self.seen = self.seen.checked_shl(ahead as u32).unwrap_or(0) | 1;
                self.expected += ahead as u64;
                self.received += 1;
                self.extended = self.extended.wrapping_add(ahead as u32);
                true
            }
            behind @ -63..=0 => {
                let bit = 1u64 << -behind;
                let fresh = self.seen & bit == 0;
                self.seen |= bit;
                // One sent before the first that came was never expected.
                let expected = u64::from(behind.unsigned_abs()) < self.expected;
                self.received += u64::from(fresh && expected);
                fresh
            }
            // Very late, nothing to learn from it; the timestamp decides whether it is of use.
            behind if (-MAX_DROPOUT..=-64).contains(&behind) => true,
            _ => {
                self.restart();
                self.begin(seq);
                true
            }
        }
    }

    /// Expected but never seen \[packets\].
    #[must_use]
    pub fn lost(&self) -> u64 {
        self.lost_before + self.expected.saturating_sub(self.received)
    }

    /// Whether `seq` is the newest.
    #[must_use]
    pub fn is_newest(&self, seq: SeqNumber) -> bool {
        self.highest == Some(seq)
    }

    /// For a receiver report, once per report; `None` before the first packet.
    pub fn report(&mut self) -> Option<LossReport> {
        self.highest?;
        let (expected, received) = (self.expected, self.received);
        let (expected_before, received_before) = std::mem::replace(&mut self.reported, (expected, received));
        let expected_now = expected - expected_before;
        let lost_now = expected_now.saturating_sub(received - received_before);
        let fraction = (lost_now * 256).checked_div(expected_now).unwrap_or(0);
        let lost = expected.saturating_sub(received);
        Some(LossReport {
            fraction_lost: fraction.min(255) as u8,
            // 24 bits, signed.
            lost: lost.min(0x7f_ffff) as u32,
            highest: self.extended,
        })
    }

    fn begin(&mut self, seq: SeqNumber) {
        *self = Sequence {
            highest: Some(seq),
            seen: 1,
            expected: 1,
            received: 1,
            lost_before: self.lost_before,
            extended: u32::from(seq.0),
            reported: (0, 0),
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_losses_duplicates_and_wraps() {
        let mut sequence = Sequence::default();
        assert_eq!(sequence.report(), None);
        for n in 0..200u16 {
            if n % 10 != 5 {
                assert!(sequence.handle(SeqNumber(65_500u16.wrapping_add(n))));
            }
        }
        assert!(!sequence.handle(SeqNumber(65_500u16.wrapping_add(199))));
        assert_eq!(sequence.lost(), 20);
        let report = sequence.report().unwrap();
        assert_eq!(
            (report.fraction_lost, report.lost, report.highest),
            (25, 20, 65_699)
        );
        // A late one heals its loss; a clean interval reports none.
        assert!(sequence.handle(SeqNumber(65_500u16.wrapping_add(195))));
        for n in 200..300u16 {
            sequence.handle(SeqNumber(65_500u16.wrapping_add(n)));
        }
        assert_eq!(sequence.lost(), 19);
        assert_eq!(sequence.report().unwrap().fraction_lost, 0);
    }

    #[test]
    fn one_from_before_the_first_makes_up_for_no_loss() {
        let mut sequence = Sequence::default();
        assert!(
            [5u16, 4, 6, 8]
                .into_iter()
                .all(|seq| sequence.handle(SeqNumber(seq)))
        );
        assert!(!sequence.handle(SeqNumber(4)));
        assert_eq!(sequence.lost(), 1);
    }

    #[test]
    fn a_restart_is_no_loss() {
        let mut sequence = Sequence::default();
        sequence.handle(SeqNumber(0));
        sequence.handle(SeqNumber(2));
        sequence.handle(SeqNumber(30_000));
        assert_eq!(sequence.lost(), 1);
        assert_eq!(sequence.report().unwrap().lost, 0);
    }
}
