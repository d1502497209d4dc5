//! Measure: what a call was like, computed from the packets alone.
//!
//! ```text
//! sent      ....#########____________________####____________
//!                       |<- response_ms ->|  |
//! received  ______________________________##########__________
//!                                            |<->| stop_ms (the caller interrupts)
//! ```
//!
//! Pure: a [`Track`] of packets with their times on the wire goes in, figures come out. A sample's time is its
//! packet's time plus its place inside the packet, the same on both tracks, so a response time is what passes on the
//! wire between the last voiced sample out and the first voiced sample back.

use super::figures::Samples;

/// Sample rate of the tracks [Hz]: G.711 as it is on the wire, without any resampler's delay.
pub const WIRE_RATE_HZ: u32 = 8_000;
/// Samples per packet at 20 ms.
pub const PACKET_SAMPLES: usize = 160;
/// Packet time [ms].
pub const PTIME_MS: f64 = 20.0;
/// A block of received audio counts as voice from this level [dBov]: well over a synthesiser's breath and G.711's own
/// noise, well under the softest spoken sound. The daemon sends digital silence when it does not speak.
pub const VOICE_DBOV: f64 = -50.0;
/// Blocks that are judged voiced or not: 10 ms.
const BLOCK_SAMPLES: usize = 80;
/// Nanoseconds of one sample.
const SAMPLE_NS: u64 = 1_000_000_000 / WIRE_RATE_HZ as u64;
/// Silence that words of one clause may hold between them [ms]; longer ends a run of voice.
const BRIDGE_MS: f64 = 240.0;
/// Less voice than this in a run is a click, not speech [ms].
const MIN_VOICE_MS: f64 = 40.0;
/// No reply to an utterance can begin earlier than this after its first word [ms]; voice that does belongs to what
/// was said before (a late clause, a reminder) and is a collision, not a cut-off.
const REACTION_MS: f64 = 250.0;
/// A hole: whole packets of digital silence, at most this many, between two loud blocks.
const HOLE_PACKETS: usize = 5;
/// How loud both edges of a hole are at least [dBov].
const HOLE_EDGE_DBOV: f64 = -38.0;

/// Time on the wire [ns since the Unix epoch], from the kernel's clock.
pub type WireNs = u64;

/// Milliseconds from `from` to `to`; negative when `to` is earlier.
#[must_use]
pub fn ms_between(from: WireNs, to: WireNs) -> f64 {
    (to as i128 - from as i128) as f64 / 1e6
}

/// One direction of a call: packets in the order of arrival, with their samples.
#[derive(Debug, Clone, Default)]
pub struct Track {
    packets: Vec<PacketInfo>,
    samples: Vec<i16>,
}

/// A packet of a [`Track`].
#[derive(Debug, Clone, Copy)]
pub struct PacketInfo {
    /// When it crossed the wire.
    pub at: WireNs,
    /// RTP sequence number.
    pub seq: u16,
    /// RTP timestamp [samples].
    pub timestamp: u32,
    /// RTP synchronisation source.
    pub ssrc: u32,
    /// Its samples' place in the track.
    start: usize,
    len: usize,
}

impl Track {
    /// Adds a packet.
    pub fn push(&mut self, at: WireNs, seq: u16, timestamp: u32, ssrc: u32, samples: &[i16]) {
        let start = self.samples.len();
        self.packets.push(PacketInfo {
            at,
            seq,
            timestamp,
            ssrc,
            start,
            len: samples.len(),
        });
        self.samples.extend_from_slice(samples);
    }

    /// Its packets, in the order of arrival.
    #[must_use]
    pub fn packets(&self) -> &[PacketInfo] {
        &self.packets
    }

    /// A packet's samples.
    #[must_use]
    pub fn samples_of(&self, packet: &PacketInfo) -> &[i16] {
        self.samples
            .get(packet.start..packet.start + packet.len)
            .unwrap_or_default()
    }

    /// Audio between two times, laid out on the packets' times and padded with silence where none came
    /// [8 kHz mono].
    #[must_use]
    pub fn audio(&self, from: WireNs, to: WireNs) -> Vec<i16> {
        let len = (to.saturating_sub(from) / SAMPLE_NS) as usize;
        let mut out = vec![0; len];
        let mut next = 0;
        for packet in &self.packets {
            if packet.at + packet.len as u64 * SAMPLE_NS <= from || packet.at >= to {
                continue;
            }
            // A packet that is a little early or late follows its predecessor without a seam.
            let wanted = (packet.at.saturating_sub(from) / SAMPLE_NS) as usize;
            let skip = (from.saturating_sub(packet.at) / SAMPLE_NS) as usize;
            let place = if wanted.abs_diff(next) <= 2 * PACKET_SAMPLES {
                next
            } else {
                wanted
            };
            for (slot, sample) in out
                .iter_mut()
                .skip(place)
                .zip(self.samples_of(packet).iter().skip(skip))
            {
                *slot = *sample;
            }
            next = place + packet.len.saturating_sub(skip);
        }
        out
    }
}

/// Level of `samples` [dBov]; −127 for digital silence.
#[must_use]
pub fn level_dbov(samples: &[i16]) -> f64 {
    let energy: f64 = samples.iter().map(|s| f64::from(*s) * f64::from(*s)).sum();
    if energy == 0.0 {
        return -127.0;
    }
    10.0 * (energy / samples.len() as f64 / (32768.0 * 32768.0)).log10()
}

/// Whether a piece of received audio (usually one packet) holds voice: any of its 10 ms blocks does.
#[must_use]
pub fn is_voiced(samples: &[i16]) -> bool {
    samples
        .chunks(BLOCK_SAMPLES)
        .any(|block| level_dbov(block) >= VOICE_DBOV)
}

/// Where voice begins and ends in clean recorded audio: sample numbers of the first voiced sample and of the one
/// after the last. `None` when there is no voice.
///
/// The threshold follows the recording's own level, so that room noise of a loud one is not taken for voice.
#[must_use]
pub fn voiced_span(samples: &[i16]) -> Option<(usize, usize)> {
    let mut levels: Vec<f64> = samples.chunks(BLOCK_SAMPLES).map(level_dbov).collect();
    let blocks = levels.clone();
    levels.sort_by(f64::total_cmp);
    let loud = levels.get(levels.len() * 95 / 100).or(levels.last()).copied()?;
    let threshold = VOICE_DBOV.max(loud - 35.0);
    let first = blocks.iter().position(|level| *level >= threshold)?;
    let last = blocks.iter().rposition(|level| *level >= threshold)?;
    let amplitude = amplitude_of(threshold);
    let within = |block: usize| samples.chunks(BLOCK_SAMPLES).nth(block).unwrap_or_default();
    let begin = within(first)
        .iter()
        .position(|s| loudness(*s) >= amplitude)
        .unwrap_or(0);
    let end = within(last)
        .iter()
        .rposition(|s| loudness(*s) >= amplitude)
        .unwrap_or(0);
    Some((first * BLOCK_SAMPLES + begin, last * BLOCK_SAMPLES + end + 1))
}

/// A stretch of voice on a track, bridging the pauses inside a clause.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Run {
    /// First voiced sample.
    pub start: WireNs,
    /// Last voiced sample.
    pub end: WireNs,
    /// Voice inside it, without the bridged pauses [ms].
    pub voiced_ms: f64,
}

/// The voice on a received track.
#[must_use]
pub fn runs(track: &Track) -> Vec<Run> {
    let amplitude = amplitude_of(VOICE_DBOV);
    let mut out: Vec<Run> = Vec::new();
    for packet in &track.packets {
        for (index, block) in track.samples_of(packet).chunks(BLOCK_SAMPLES).enumerate() {
            if level_dbov(block) < VOICE_DBOV {
                continue;
            }
            let first = block.iter().position(|s| loudness(*s) >= amplitude).unwrap_or(0);
            let last = block.iter().rposition(|s| loudness(*s) >= amplitude).unwrap_or(0);
            let base = packet.at + (index * BLOCK_SAMPLES) as u64 * SAMPLE_NS;
            let (start, end) = (base + first as u64 * SAMPLE_NS, base + last as u64 * SAMPLE_NS);
            let voiced_ms = block.len() as f64 * SAMPLE_NS as f64 / 1e6;
            match out.last_mut() {
                Some(run) if ms_between(run.end, start) <= BRIDGE_MS => {
                    run.end = run.end.max(end);
                    run.voiced_ms += voiced_ms;
                }
                Some(_) | None => out.push(Run {
                    start,
                    end,
                    voiced_ms,
                }),
            }
        }
    }
    out.retain(|run| run.voiced_ms >= MIN_VOICE_MS);
    out
}

/// One utterance as it was sent.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Spoken {
    /// Which of the plan's utterances.
    pub utterance: usize,
    /// First voiced sample sent.
    pub start: WireNs,
    /// Last voiced sample sent.
    pub end: WireNs,
    /// Spoken into a reply on purpose.
    pub interrupts: bool,
}

/// What followed one utterance.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Heard {
    /// Last voiced sample sent to the first voiced sample of the reply [ms]; `None` when no reply came.
    pub response_ms: Option<f64>,
    /// First and last voiced sample of the reply.
    pub reply: Option<(WireNs, WireNs)>,
    /// The other side began to speak while the caller was still speaking: a false cut-off.
    pub cut_off: bool,
    /// The other side's earlier speech ran into this utterance without the caller having planned it.
    pub collision: bool,
    /// For an interruption: first voiced sample sent to the last voiced sample of the interrupted reply [ms].
    /// `None` when nothing was playing at that moment.
    pub stop_ms: Option<f64>,
    /// For an interruption: the reply did not stop before the caller had finished.
    pub not_stopped: bool,
    /// Silence after the caller's last word, until the reply, the caller's next word or the end of the call [ms].
    pub silence_ms: f64,
}

/// Figures for each utterance, in order. `until` is the end of the call.
#[must_use]
pub fn turns(spoken: &[Spoken], runs: &[Run], until: WireNs) -> Vec<Heard> {
    (0..spoken.len())
        .filter_map(|index| turn(spoken, runs, until, index))
        .collect()
}

fn turn(spoken: &[Spoken], runs: &[Run], until: WireNs, index: usize) -> Option<Heard> {
    let said = spoken.get(index)?;
    let next = spoken.get(index + 1).map_or(until, |next| next.start);
    let mut replies = runs.iter().filter(|run| run.start > said.end && run.start < next);
    let first = replies.next();
    let last = replies.next_back().or(first);
    let reply = first.zip(last).map(|(first, last)| (first.start, last.end));
    let playing = runs
        .iter()
        .find(|run| run.start < said.start && run.end > said.start);
    let reacted = |run: &&Run| run.start < said.end && ms_between(said.start, run.start) >= REACTION_MS;
    let early = |run: &&Run| run.start > said.start && ms_between(said.start, run.start) < REACTION_MS;
    let stop = playing
        .filter(|_| said.interrupts)
        .map(|run| ms_between(said.start, run.end));
    Some(Heard {
        response_ms: reply.map(|(start, _)| ms_between(said.end, start)),
        reply,
        cut_off: runs.iter().any(|run| reacted(&run)),
        collision: !said.interrupts && (playing.is_some() || runs.iter().any(|run| early(&run))),
        stop_ms: stop,
        not_stopped: said.interrupts && playing.is_some_and(|run| run.end >= said.end),
        silence_ms: ms_between(said.end, reply.map_or(next, |(start, _)| start)),
    })
}

/// How regularly the packets came, and what was missing.
#[derive(Debug, Clone, Default)]
pub struct Pacing {
    /// Between the arrivals of packets that follow each other [ms].
    pub spacing_ms: Samples,
    /// How far each spacing is from 20 ms, either way [ms].
    pub deviation_ms: Samples,
    /// Packets received.
    pub received: u64,
    /// Sequence numbers that never came.
    pub lost: u64,
    /// Sequence numbers that came twice.
    pub duplicates: u64,
    /// Packets that came after a later one.
    pub reordered: u64,
    /// Timestamps that do not fit their sequence number.
    pub timestamp_jumps: u64,
    /// Changes of the synchronisation source.
    pub ssrc_changes: u64,
    /// Packets of dead silence inside loud sound: the sender's queue ran empty in mid-word.
    pub holes: u64,
}

impl Pacing {
    /// Adds another call's pacing.
    pub fn merge(&mut self, other: &Self) {
        self.spacing_ms.merge(&other.spacing_ms);
        self.deviation_ms.merge(&other.deviation_ms);
        self.received += other.received;
        self.lost += other.lost;
        self.duplicates += other.duplicates;
        self.reordered += other.reordered;
        self.timestamp_jumps += other.timestamp_jumps;
        self.ssrc_changes += other.ssrc_changes;
        self.holes += other.holes;
    }
}

/// Pacing of a received track.
#[must_use]
pub fn pacing(track: &Track) -> Pacing {
    let mut out = Pacing {
        received: track.packets.len() as u64,
        ..Pacing::default()
    };
    let mut missing = std::collections::BTreeSet::new();
    let mut newest: Option<(PacketInfo, i64)> = None;
    for packet in &track.packets {
        let Some((last, number)) = newest else {
            newest = Some((*packet, 0));
            continue;
        };
        if packet.ssrc != last.ssrc {
            out.ssrc_changes += 1;
            newest = Some((*packet, number + 1));
            continue;
        }
        let step = i64::from(packet.seq.wrapping_sub(last.seq) as i16);
        match step {
            1 => {
                let spacing = ms_between(last.at, packet.at);
                out.spacing_ms.push(spacing);
                out.deviation_ms.push((spacing - PTIME_MS).abs());
            }
            2.. => missing.extend(number + 1..number + step),
            0 => out.duplicates += 1,
            _ if missing.remove(&(number + step)) => out.reordered += 1,
            _ => out.duplicates += 1,
        }
        if step > 0 {
            let expected = (step as u32).wrapping_mul(PACKET_SAMPLES as u32);
            out.timestamp_jumps += u64::from(packet.timestamp.wrapping_sub(last.timestamp) != expected);
            newest = Some((*packet, number + step));
        }
    }
    out.lost = missing.len() as u64;
    out.holes = holes(track);
    out
}

fn holes(track: &Track) -> u64 {
    let loud = |block: Option<&[i16]>| block.is_some_and(|block| level_dbov(block) >= HOLE_EDGE_DBOV);
    let (mut count, mut silent, mut loud_before) = (0, 0, false);
    for packet in &track.packets {
        let samples = track.samples_of(packet);
        // G.711 carries digital silence as at most ±8.
        if samples.iter().all(|s| loudness(*s) <= 8) {
            silent += 1;
            continue;
        }
        if loud_before && (1..=HOLE_PACKETS).contains(&silent) && loud(samples.chunks(BLOCK_SAMPLES).next()) {
            count += silent as u64;
        }
        silent = 0;
        loud_before = loud(samples.chunks(BLOCK_SAMPLES).next_back());
    }
    count
}

fn loudness(sample: i16) -> i32 {
    i32::from(sample).abs()
}

fn amplitude_of(dbov: f64) -> i32 {
    (32768.0 * 10f64.powf(dbov / 20.0)) as i32
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;
    const T0: WireNs = 1_700_000_000_000_000_000;

    /// One char per packet: 'v' voice, '.' silence, 'h' voice in the second half only, '-' lost.
    fn track(pattern: &str) -> Track {
        let mut track = Track::default();
        for (n, kind) in pattern.chars().enumerate() {
            let tone = |from: usize| -> Vec<i16> {
                (0..PACKET_SAMPLES)
                    .map(|i| match (i >= from, i % 2 == 0) {
                        (true, true) => 4000,
                        (true, false) => -4000,
                        (false, _) => 0,
                    })
                    .collect()
            };
            let samples = match kind {
                'v' => tone(0),
                'h' => tone(100),
                '.' => tone(PACKET_SAMPLES),
                _ => continue,
            };
            track.push(
                T0 + n as u64 * 20 * MS,
                (65_530 + n) as u16,
                (n * PACKET_SAMPLES) as u32,
                7,
                &samples,
            );
        }
        track
    }

    fn said(start_ms: u64, end_ms: u64, interrupts: bool) -> Spoken {
        Spoken {
            utterance: 0,
            start: T0 + start_ms * MS,
            end: T0 + end_ms * MS,
            interrupts,
        }
    }

    #[test]
    fn response_is_measured_to_the_sample() {
        // Silence to 1000 ms, then voice from sample 100 of packet 50: 1000 + 12.5 ms.
        let track = track(&format!("{}hvvvvvvvvv{}", ".".repeat(50), ".".repeat(40)));
        let runs = runs(&track);
        assert_eq!(runs.len(), 1);
        let figures = turns(&[said(100, 400, false)], &runs, T0 + 2000 * MS);
        assert_eq!(figures[0].response_ms, Some(612.5));
        assert_eq!(figures[0].silence_ms, 612.5);
        assert!(!figures[0].cut_off && !figures[0].collision);
        let (start, end) = figures[0].reply.unwrap();
        assert_eq!((ms_between(T0, start), ms_between(T0, end)), (1012.5, 1199.875));
    }

    #[test]
    fn clauses_of_one_reply_belong_together_and_no_reply_is_silence() {
        let track = track(&format!(
            "{}vvvvv{}vvvvv{}",
            ".".repeat(20),
            ".".repeat(20),
            ".".repeat(50)
        ));
        let runs = runs(&track);
        assert_eq!(runs.len(), 2);
        let spoken = [said(0, 200, false), said(1200, 1400, false)];
        let figures = turns(&spoken, &runs, T0 + 2000 * MS);
        assert_eq!(figures[0].response_ms, Some(200.0));
        assert_eq!(
            figures[0].reply.map(|(_, end)| ms_between(T0, end).round()),
            Some(1000.0)
        );
        assert_eq!((figures[1].response_ms, figures[1].silence_ms), (None, 600.0));
    }

    #[test]
    fn cut_offs_collisions_and_interruptions_are_told_apart() {
        // (case, packets received, utterance, cut off, collision, stop_ms, not stopped)
        type Case = (&'static str, String, Spoken, bool, bool, Option<f64>, bool);
        let voice = |from: usize, to: usize| {
            format!(
                "{}{}{}",
                ".".repeat(from),
                "v".repeat(to - from),
                ".".repeat(99 - to)
            )
        };
        let cases: [Case; 5] = [
            (
                "speaks into a pause",
                voice(40, 60),
                said(0, 1400, false),
                true,
                false,
                None,
                false,
            ),
            (
                "a late clause",
                voice(2, 12),
                said(0, 1400, false),
                false,
                true,
                None,
                false,
            ),
            (
                "stops for the caller",
                voice(10, 50),
                said(800, 1800, true),
                false,
                false,
                Some(199.875),
                false,
            ),
            (
                "does not stop",
                voice(10, 95),
                said(800, 1800, true),
                false,
                false,
                Some(1099.875),
                true,
            ),
            (
                "nothing to interrupt",
                voice(0, 30),
                said(800, 1800, true),
                false,
                false,
                None,
                false,
            ),
        ];
        for (case, pattern, spoken, cut_off, collision, stop_ms, not_stopped) in cases {
            let got = turns(&[spoken], &runs(&track(&pattern)), T0 + 2000 * MS)[0];
            assert_eq!((got.cut_off, got.collision), (cut_off, collision), "{case}");
            assert_eq!((got.stop_ms, got.not_stopped), (stop_ms, not_stopped), "{case}");
        }
    }

    #[test]
    fn a_click_is_no_reply() {
        assert!(runs(&track("..........h.........")).is_empty());
    }

    #[test]
    fn pacing_counts_what_went_wrong() {
        let clean = pacing(&track(&".".repeat(100)));
        assert_eq!(
            (clean.received, clean.lost, clean.timestamp_jumps, clean.holes),
            (100, 0, 0, 0)
        );
        assert_eq!(clean.spacing_ms.summary().unwrap().p999, 20.0);
        assert_eq!(clean.deviation_ms.summary().unwrap().max, 0.0);

        let lossy = pacing(&track("....-...--...."));
        assert_eq!((lossy.lost, lossy.duplicates, lossy.reordered), (3, 0, 0));

        let mut shuffled = Track::default();
        for (n, seq) in [1u16, 3, 2, 4, 4].into_iter().enumerate() {
            shuffled.push(T0 + n as u64 * 20 * MS, seq, u32::from(seq) * 160, 7, &[0; 160]);
        }
        let got = pacing(&shuffled);
        assert_eq!(
            (got.lost, got.duplicates, got.reordered, got.timestamp_jumps),
            (0, 1, 1, 0)
        );
    }

    #[test]
    fn holes_are_dead_silence_inside_loud_sound() {
        assert_eq!(pacing(&track("vvv..vvv")).holes, 2);
        assert_eq!(
            pacing(&track("vvv.......vvv")).holes,
            0,
            "a pause between clauses"
        );
        assert_eq!(pacing(&track("..vvvv..")).holes, 0);
    }

    #[test]
    fn finds_voice_in_a_noisy_recording() {
        let noise = |n: usize| {
            (0..n)
                .map(|i| if i % 3 == 0 { 20i16 } else { -10 })
                .collect::<Vec<_>>()
        };
        let mut pcm = noise(800);
        pcm.extend((0..1600).map(|i| if i % 2 == 0 { 9000i16 } else { -9000 }));
        pcm.extend(noise(2400));
        assert_eq!(voiced_span(&pcm), Some((800, 2400)));
        assert_eq!(voiced_span(&[0; 800]), None);
        assert_eq!(voiced_span(&[]), None);
    }

    #[test]
    fn audio_is_laid_out_on_time() {
        let track = track(&format!("{}vv{}", ".".repeat(10), ".".repeat(10)));
        let audio = track.audio(T0 + 150 * MS, T0 + 300 * MS);
        assert_eq!(audio.len(), 1200);
        assert_eq!(audio.iter().position(|s| *s != 0), Some(400));
        assert_eq!(audio.iter().filter(|s| **s != 0).count(), 320);
    }
}
