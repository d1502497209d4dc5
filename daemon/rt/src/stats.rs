//! Counters: written by `rt-audio` with plain stores, read by anybody.

use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU32, AtomicU64, Ordering::Relaxed};

/// How the realtime thread keeps time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RtStats {
    /// Ticks run \[20 ms\].
    pub ticks: u64,
    /// Ticks left out because the thread woke too late to make up for them.
    pub skipped_ticks: u64,
    /// Ticks that began late.
    pub late_ticks: LateTicks,
    /// The latest beginning of a tick \[µs\].
    pub max_late_us: u64,
    /// The longest work in a tick \[µs\].
    pub max_busy_us: u64,
    /// Legs up now.
    pub legs: u32,
    /// `SCHED_FIFO` was granted.
    pub realtime: bool,
    /// Why it was not \[errno\]; `None` when granted or not asked for.
    pub realtime_refused_errno: Option<i32>,
    /// The process's memory was locked.
    pub memory_locked: bool,
    /// The thread is alive.
    pub running: bool,
}

/// How many ticks began late by more than so much; each also counts in the smaller ones.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LateTicks {
    /// More than 1 ms.
    pub over_1_ms: u64,
    /// More than 2 ms.
    pub over_2_ms: u64,
    /// More than 5 ms.
    pub over_5_ms: u64,
    /// More than 10 ms.
    pub over_10_ms: u64,
    /// More than 20 ms.
    pub over_20_ms: u64,
}

/// Thresholds of [`LateTicks`] \[µs\].
const LATE_US: [u64; 5] = [1000, 2000, 5000, 10_000, 20_000];

/// Where playing stands on one leg, as of the last tick.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Played {
    /// Voice frames really sent since the leg started; silence in between does not count.
    pub frames: u64,
    /// Clause of the last voice frame sent; 0 before the first.
    pub mark: u32,
    /// Voice frames sent of that clause.
    pub frames_in_mark: u32,
    /// At the last tick there was nothing to play. What was pushed since is not known yet.
    pub idle: bool,
}

/// What happened on one leg since it started.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct LegStats {
    /// RTP packets of the peer.
    pub rx_packets: u64,
    /// Missing by sequence number.
    pub rx_lost: u64,
    /// Came after their turn.
    pub rx_late: u64,
    /// Came twice.
    pub rx_duplicates: u64,
    /// Not RTP, or of a payload type that was not agreed.
    pub rx_malformed: u64,
    /// From somebody else.
    pub rx_foreign: u64,
    /// Frames made up in place of missing ones; the peer's silence does not count.
    pub rx_concealed: u64,
    /// Sealed with another key, or sent again by somebody (SRTP).
    pub rx_unauthentic: u64,
    /// Frames by which the delay grew: packets came late, or the peer's clock is slow.
    pub rx_grown: u64,
    /// Frames that were skipped: the line calmed down, or the peer's clock is fast.
    pub rx_skipped: u64,
    /// Interarrival jitter (RFC 3550), seen with the tick's resolution \[ms\].
    pub jitter_ms: f32,
    /// What the jitter buffer holds when a tick begins, the frame about to be played included \[ms\].
    pub jitter_delay_ms: u32,
    /// Packets sent.
    pub tx_packets: u64,
    /// Packets the system would not take.
    pub tx_errors: u64,
    /// Times the voice ran out in mid-clause.
    pub underruns: u64,
    /// Received frames dropped because the call did not take them.
    pub overruns: u64,
    /// Times the peer started a new stream.
    pub ssrc_changes: u64,
    /// Times the peer changed the codec without a word.
    pub codec_changes: u64,
    /// RTCP packets of the peer, and of ours.
    pub rx_reports: u64,
    /// RTCP packets sent.
    pub tx_reports: u64,
    /// How the peer hears us; all zero before its first report.
    pub peer: PeerReport,
    /// Since the peer's last packet, or since the start if there was none \[ms\].
    pub last_rx_age_ms: u64,
}

/// How the peer hears us, by its last report (RFC 3550 §6.4.1).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PeerReport {
    /// Reports that spoke of us.
    pub reports: u64,
    /// Of ours, lost since the call began \[packets\].
    pub lost: u32,
    /// Of ours, lost in the last interval \[1/256\].
    pub fraction_lost: u8,
    /// Interarrival jitter at the peer \[RTP clock units\].
    pub jitter_units: u32,
    /// There and back, without the peer's own time \[ms\]; none before it has answered a report of ours.
    pub round_trip_ms: Option<u32>,
}

/// Shared counters of the thread.
#[derive(Debug, Default)]
pub(crate) struct RtCounters {
    pub ticks: AtomicU64,
    pub skipped: AtomicU64,
    pub late: [AtomicU64; LATE_US.len()],
    pub max_late_us: AtomicU64,
    pub max_busy_us: AtomicU64,
    pub realtime: AtomicBool,
    pub refused_errno: AtomicI32,
    pub memory_locked: AtomicBool,
}

impl RtCounters {
    pub fn count_tick(&self, late_us: u64, skipped: u64) {
        self.ticks.fetch_add(1, Relaxed);
        self.skipped.fetch_add(skipped, Relaxed);
        self.max_late_us.fetch_max(late_us, Relaxed);
        for (counter, threshold) in self.late.iter().zip(LATE_US) {
            if late_us > threshold {
                counter.fetch_add(1, Relaxed);
            }
        }
    }

    pub fn read(&self, legs: u32, running: bool) -> RtStats {
        let [over_1_ms, over_2_ms, over_5_ms, over_10_ms, over_20_ms] =
            self.late.each_ref().map(|counter| counter.load(Relaxed));
        let errno = self.refused_errno.load(Relaxed);
        RtStats {
            ticks: self.ticks.load(Relaxed),
            skipped_ticks: self.skipped.load(Relaxed),
            late_ticks: LateTicks {
                over_1_ms,
                over_2_ms,
                over_5_ms,
                over_10_ms,
                over_20_ms,
            },
            max_late_us: self.max_late_us.load(Relaxed),
            max_busy_us: self.max_busy_us.load(Relaxed),
            legs,
            realtime: self.realtime.load(Relaxed),
            realtime_refused_errno: (errno != 0).then_some(errno),
            memory_locked: self.memory_locked.load(Relaxed),
            running,
        }
    }
}

/// Shared state of a leg: wishes of its owner one way, counters the other.
#[derive(Debug)]
pub(crate) struct LegShared {
    /// The owner is gone: retire the leg.
    pub closed: AtomicBool,
    /// Frames of an older epoch are dropped.
    pub flush_epoch: AtomicU32,
    /// Gain of the voice we send \[1/1000\].
    pub gain_permille: AtomicU32,
    /// Send nothing.
    pub hold: AtomicBool,
    pub played_frames: AtomicU64,
    /// Mark in the upper half, frames in it in the lower, so that both are read as one.
    pub played_mark: AtomicU64,
    pub idle: AtomicBool,
    pub rx_packets: AtomicU64,
    pub rx_lost: AtomicU64,
    pub rx_late: AtomicU64,
    pub rx_duplicates: AtomicU64,
    pub rx_malformed: AtomicU64,
    pub rx_foreign: AtomicU64,
    pub rx_concealed: AtomicU64,
    pub rx_unauthentic: AtomicU64,
    pub rx_grown: AtomicU64,
    pub rx_skipped: AtomicU64,
    pub jitter_us: AtomicU32,
    pub jitter_delay_ms: AtomicU32,
    pub tx_packets: AtomicU64,
    pub tx_errors: AtomicU64,
    pub underruns: AtomicU64,
    pub overruns: AtomicU64,
    pub ssrc_changes: AtomicU64,
    pub codec_changes: AtomicU64,
    pub rx_reports: AtomicU64,
    pub tx_reports: AtomicU64,
    pub peer_reports: AtomicU64,
    /// Lost in the upper half, jitter in the lower.
    pub peer_lost_jitter: AtomicU64,
    /// Fraction lost in the upper half, round trip in the lower; `u32::MAX`: none.
    pub peer_fraction_trip: AtomicU64,
    /// Monotonic instant of the peer's last packet \[µs\].
    pub last_rx_us: AtomicU64,
}

impl LegShared {
    pub fn new(now_us: u64) -> LegShared {
        LegShared {
            closed: AtomicBool::new(false),
            flush_epoch: AtomicU32::new(0),
            gain_permille: AtomicU32::new(1000),
            hold: AtomicBool::new(false),
            played_frames: AtomicU64::new(0),
            played_mark: AtomicU64::new(0),
            idle: AtomicBool::new(true),
            rx_packets: AtomicU64::new(0),
            rx_lost: AtomicU64::new(0),
            rx_late: AtomicU64::new(0),
            rx_duplicates: AtomicU64::new(0),
            rx_malformed: AtomicU64::new(0),
            rx_foreign: AtomicU64::new(0),
            rx_concealed: AtomicU64::new(0),
            rx_unauthentic: AtomicU64::new(0),
            rx_grown: AtomicU64::new(0),
            rx_skipped: AtomicU64::new(0),
            jitter_us: AtomicU32::new(0),
            jitter_delay_ms: AtomicU32::new(0),
            tx_packets: AtomicU64::new(0),
            tx_errors: AtomicU64::new(0),
            underruns: AtomicU64::new(0),
            overruns: AtomicU64::new(0),
            ssrc_changes: AtomicU64::new(0),
            codec_changes: AtomicU64::new(0),
            rx_reports: AtomicU64::new(0),
            tx_reports: AtomicU64::new(0),
            peer_reports: AtomicU64::new(0),
            peer_lost_jitter: AtomicU64::new(0),
            peer_fraction_trip: AtomicU64::new(u64::from(u32::MAX)),
            last_rx_us: AtomicU64::new(now_us),
        }
    }

    pub fn played(&self) -> Played {
        let packed = self.played_mark.load(Relaxed);
        Played {
            frames: self.played_frames.load(Relaxed),
            mark: (packed >> 32) as u32,
            frames_in_mark: packed as u32,
            idle: self.idle.load(Relaxed),
        }
    }

    /// Takes over a report; a round trip, once known, outlasts reports without one.
    pub fn note_peer_report(&self, report: &PeerReport) {
        let pack = |upper: u32, lower: u32| u64::from(upper) << 32 | u64::from(lower);
        self.peer_reports.fetch_add(report.reports, Relaxed);
        self.peer_lost_jitter
            .store(pack(report.lost, report.jitter_units), Relaxed);
        let before = self.peer_fraction_trip.load(Relaxed) as u32;
        let trip = report.round_trip_ms.unwrap_or(before);
        self.peer_fraction_trip
            .store(pack(u32::from(report.fraction_lost), trip), Relaxed);
    }

    fn peer_report(&self) -> PeerReport {
        let lost_jitter = self.peer_lost_jitter.load(Relaxed);
        let fraction_trip = self.peer_fraction_trip.load(Relaxed);
        let trip = fraction_trip as u32;
        PeerReport {
            reports: self.peer_reports.load(Relaxed),
            lost: (lost_jitter >> 32) as u32,
            fraction_lost: (fraction_trip >> 32) as u8,
            jitter_units: lost_jitter as u32,
            round_trip_ms: (trip != u32::MAX).then_some(trip),
        }
    }

    pub fn stats(&self, now_us: u64) -> LegStats {
        LegStats {
            rx_packets: self.rx_packets.load(Relaxed),
            rx_lost: self.rx_lost.load(Relaxed),
            rx_late: self.rx_late.load(Relaxed),
            rx_duplicates: self.rx_duplicates.load(Relaxed),
            rx_malformed: self.rx_malformed.load(Relaxed),
            rx_foreign: self.rx_foreign.load(Relaxed),
            rx_concealed: self.rx_concealed.load(Relaxed),
            rx_unauthentic: self.rx_unauthentic.load(Relaxed),
            rx_grown: self.rx_grown.load(Relaxed),
            rx_skipped: self.rx_skipped.load(Relaxed),
            jitter_ms: self.jitter_us.load(Relaxed) as f32 / 1000.0,
            jitter_delay_ms: self.jitter_delay_ms.load(Relaxed),
            tx_packets: self.tx_packets.load(Relaxed),
            tx_errors: self.tx_errors.load(Relaxed),
            underruns: self.underruns.load(Relaxed),
            overruns: self.overruns.load(Relaxed),
            ssrc_changes: self.ssrc_changes.load(Relaxed),
            codec_changes: self.codec_changes.load(Relaxed),
            rx_reports: self.rx_reports.load(Relaxed),
            tx_reports: self.tx_reports.load(Relaxed),
            peer: self.peer_report(),
            last_rx_age_ms: now_us.saturating_sub(self.last_rx_us.load(Relaxed)) / 1000,
        }
    }
}

/// Adds one; only `rt-audio` writes these.
pub(crate) fn bump(counter: &AtomicU64) {
    counter.fetch_add(1, Relaxed);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn late_ticks_are_cumulative() {
        let counters = RtCounters::default();
        for late_us in [0, 1000, 1001, 6000, 30_000] {
            counters.count_tick(late_us, 0);
        }
        let stats = counters.read(0, true);
        let late = stats.late_ticks;
        assert_eq!(
            [
                late.over_1_ms,
                late.over_2_ms,
                late.over_5_ms,
                late.over_10_ms,
                late.over_20_ms
            ],
            [3, 2, 2, 1, 1]
        );
        assert_eq!((stats.ticks, stats.max_late_us), (5, 30_000));
    }
}
