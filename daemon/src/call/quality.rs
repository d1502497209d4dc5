//! Line quality: what the call's record says of the line at the end of the call, for people.

use attendant_media::Codec;
use attendant_rt::LegStats;

/// One line of numbers: what we heard, what the other end heard (RFC 3550 §6.4), and over which codec.
pub fn describe(stats: &LegStats, codec: Codec, sealed: bool) -> String {
    let percent = |part: u64, whole: u64| part as f64 * 100.0 / whole.max(1) as f64;
    let expected = stats.rx_packets + stats.rx_lost;
    let mut text = format!(
        "{}{}; heard {} packets, lost {} ({:.1} %), late {}, concealed {} ms, jitter {:.1} ms, buffer {} ms, \
         delay grown {} ms, skipped {} ms; sent {} packets",
        codec.name(),
        if sealed { ", encrypted" } else { "" },
        stats.rx_packets,
        stats.rx_lost,
        percent(stats.rx_lost, expected),
        stats.rx_late,
        stats.rx_concealed * 20,
        stats.jitter_ms,
        stats.jitter_delay_ms,
        stats.rx_grown * 20,
        stats.rx_skipped * 20,
        stats.tx_packets,
    );
    if stats.peer.reports > 0 {
        let jitter_ms = f64::from(stats.peer.jitter_units) * 1000.0 / f64::from(codec.rtp_clock_hz());
        text.push_str(&format!(
            ", lost {} ({:.1} %), jitter {jitter_ms:.1} ms",
            stats.peer.lost,
            percent(u64::from(stats.peer.lost), stats.tx_packets)
        ));
    }
    if let Some(round_trip_ms) = stats.peer.round_trip_ms {
        text.push_str(&format!(", round trip {round_trip_ms} ms"));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use attendant_rt::PeerReport;

    #[test]
    fn says_what_both_sides_lost() {
        let mut stats = LegStats {
            rx_packets: 980,
            rx_lost: 20,
            rx_concealed: 21,
            jitter_ms: 3.25,
            tx_packets: 1000,
            ..LegStats::default()
        };
        let text = describe(&stats, Codec::Pcma, false);
        assert!(
            text.starts_with("PCMA; heard 980 packets, lost 20 (2.0 %)"),
            "{text}"
        );
        assert!(
            text.ends_with("sent 1000 packets"),
            "without a report nothing is claimed: {text}"
        );
        stats.peer = PeerReport {
            reports: 3,
            lost: 5,
            fraction_lost: 1,
            jitter_units: 480,
            round_trip_ms: Some(12),
        };
        let text = describe(&stats, Codec::Opus, true);
        assert!(text.starts_with("opus, encrypted;"), "{text}");
        assert!(
            text.ends_with("lost 5 (0.5 %), jitter 10.0 ms, round trip 12 ms"),
            "{text}"
        );
    }
}
