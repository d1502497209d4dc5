//! Metrics: figures for Prometheus, counted where things happen, read where they are kept.
//!
//! ```text
//!  calls, turns, guardrails ──count──> Metrics ──encode──> /metrics
//!  engines, rt-audio, store, disk ──sample at each scrape──^
//! ```
//! Every label comes from a fixed list of the program: no number, name or word of anybody, and no more than some two hundred
//! series whatever happens. `docs/monitoring` has alert rules and a dashboard; a test holds them to [`Metrics::series`].

use std::{
    fs,
    path::Path,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::Duration,
};

use attendant_models::client::{EngineError, EngineState, EngineStatus};
use attendant_rt::{LegStats, RtStats};
use attendant_store::{Outcome, TurnLatencies};
use prometheus_client::{
    encoding::{EncodeLabelSet, text::encode},
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
    registry::{Metric, Registry},
};

use crate::{doctor::Disk, lines::LineState};

/// What a scraper is told about the format (OpenMetrics 1.0).
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
/// Bounds of a stage of a turn \[s\]: what a caller notices lies between 0.3 and 3.
const STAGE_S: [f64; 13] = [0.05, 0.1, 0.2, 0.3, 0.45, 0.6, 0.8, 1.0, 1.3, 1.8, 2.5, 4.0, 8.0];
/// Bounds of a call's length \[s\]; the longest is the timebox.
const CALL_S: [f64; 9] = [5.0, 15.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1_200.0, 1_800.0];
/// Thermal zones read at most.
const MOST_ZONES: usize = 16;

/// One label, its value from a fixed list.
macro_rules! labels {
    ($($name:ident { $($field:ident),+ })+) => {$(
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelSet)]
        struct $name { $($field: &'static str),+ }
    )+};
}

labels! {
    ByOutcome { outcome }
    ByCause { cause }
    ByStage { stage }
    ByHeld { stage, category, action }
    ByEngine { engine }
    ByError { stage, error }
    ByQueue { queue }
    ByDirection { direction }
    ByState { state }
    ByLate { over }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByZone {
    zone: u32,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Build {
    version: &'static str,
    profile: String,
}

type Level = Gauge<f64, AtomicU64>;

/// All figures of the daemon.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    series: Vec<String>,
    build: Family<Build, Gauge>,
    calls: Family<ByOutcome, Counter>,
    refused: Family<ByCause, Counter>,
    calls_in_progress: Gauge,
    calls_limit: Gauge,
    call_seconds: Histogram,
    turns: Counter,
    interruptions: Counter,
    stage_seconds: Family<ByStage, Histogram>,
    guardrails: Family<ByHeld, Counter>,
    engine_ready: Family<ByEngine, Gauge>,
    engine_restarts: Family<ByEngine, Counter>,
    engine_resident: Family<ByEngine, Gauge>,
    engine_errors: Family<ByError, Counter>,
    queue_depth: Family<ByQueue, Gauge>,
    rtp_packets: Family<ByDirection, Counter>,
    rtp_lost: Counter,
    rtp_concealed: Counter,
    rtp_underruns: Counter,
    rt_running: Gauge,
    rt_realtime: Gauge,
    rt_legs: Gauge,
    rt_late: Family<ByLate, Counter>,
    rt_skipped: Counter,
    sip_accounts: Family<ByState, Gauge>,
    record_writable: Gauge,
    record_octets: Gauge,
    audit_entries: Gauge,
    disk_free: Gauge,
    disk_size: Gauge,
    temperature: Family<ByZone, Level>,
}

/// What is looked up at each scrape.
pub struct Sample<'a> {
    /// The engines.
    pub engines: &'a [EngineStatus; 3],
    /// Tasks that wait for each.
    pub waiting: [usize; 3],
    /// The audio thread.
    pub rt: RtStats,
    /// The registrations.
    pub lines: &'a [LineState],
    /// Calls in progress.
    pub calls: usize,
    /// Calls at most.
    pub calls_limit: usize,
    /// The record can be written.
    pub writable: bool,
    /// Size of the record \[octets\].
    pub record_octets: u64,
    /// Entries of the audit chain; `None` when it cannot be read.
    pub audit_entries: Option<i64>,
    /// Where the record lies.
    pub disk: Option<Disk>,
    /// Where the system shows its thermal zones.
    pub thermal: &'a Path,
}

/// Registers and remembers under which names.
struct Register {
    registry: Registry,
    series: Vec<String>,
}

impl Register {
    fn gauge<M: Metric + Clone>(&mut self, name: &str, help: &str, metric: &M) {
        self.add(name, help, metric, &[""]);
    }

    fn counter<M: Metric + Clone>(&mut self, name: &str, help: &str, metric: &M) {
        self.add(name, help, metric, &["_total"]);
    }

    fn histogram<M: Metric + Clone>(&mut self, name: &str, help: &str, metric: &M) {
        self.add(name, help, metric, &["_bucket", "_sum", "_count"]);
    }

    fn add<M: Metric + Clone>(&mut self, name: &str, help: &str, metric: &M, endings: &[&str]) {
        self.registry.register(name, help, metric.clone());
        let names = endings.iter().map(|ending| format!("attendant_{name}{ending}"));
        self.series.extend(names);
    }
}

impl Metrics {
    /// All at nothing, for this profile.
    #[must_use]
    pub fn new(profile: &str) -> Self {
        fn stage() -> Histogram {
            Histogram::new(STAGE_S)
        }
        let mut metrics = Self {
            registry: Registry::default(),
            series: Vec::new(),
            build: Family::default(),
            calls: Family::default(),
            refused: Family::default(),
            calls_in_progress: Gauge::default(),
            calls_limit: Gauge::default(),
            call_seconds: Histogram::new(CALL_S),
            turns: Counter::default(),
            interruptions: Counter::default(),
            stage_seconds: Family::new_with_constructor(stage as fn() -> Histogram),
            guardrails: Family::default(),
            engine_ready: Family::default(),
            engine_restarts: Family::default(),
            engine_resident: Family::default(),
            engine_errors: Family::default(),
            queue_depth: Family::default(),
            rtp_packets: Family::default(),
            rtp_lost: Counter::default(),
            rtp_concealed: Counter::default(),
            rtp_underruns: Counter::default(),
            rt_running: Gauge::default(),
            rt_realtime: Gauge::default(),
            rt_legs: Gauge::default(),
            rt_late: Family::default(),
            rt_skipped: Counter::default(),
            sip_accounts: Family::default(),
            record_writable: Gauge::default(),
            record_octets: Gauge::default(),
            audit_entries: Gauge::default(),
            disk_free: Gauge::default(),
            disk_size: Gauge::default(),
            temperature: Family::default(),
        };
        metrics.register();
        let build = Build {
            version: env!("CARGO_PKG_VERSION"),
            profile: profile.to_owned(),
        };
        metrics.build.get_or_create(&build).set(1);
        metrics
    }

    fn register(&mut self) {
        let mut to = Register {
            registry: Registry::with_prefix("attendant"),
            series: Vec::new(),
        };
        to.gauge("build", "1; version and profile of models", &self.build);
        to.counter("calls", "Calls that have ended, by outcome", &self.calls);
        to.counter("calls_refused", "Calls not answered, by cause", &self.refused);
        to.gauge("calls_in_progress", "Calls in progress", &self.calls_in_progress);
        to.gauge("calls_limit", "Calls answered at once at most", &self.calls_limit);
        to.histogram("call_seconds", "Length of calls", &self.call_seconds);
        to.counter("turns", "Turns answered", &self.turns);
        to.counter(
            "turns_interrupted",
            "Replies the caller cut off",
            &self.interruptions,
        );
        to.histogram(
            "turn_stage_seconds",
            "How long each stage of a turn took; response: last voiced sample in to first voiced sample out",
            &self.stage_seconds,
        );
        to.counter(
            "guardrail_hits",
            "Guardrails that held, by where, of which kind, and what was done; unheard: the attempt was dropped",
            &self.guardrails,
        );
        to.gauge("engine_ready", "The engine takes requests", &self.engine_ready);
        to.counter(
            "engine_restarts",
            "Starts of an engine after its first",
            &self.engine_restarts,
        );
        to.gauge(
            "engine_resident_bytes",
            "Resident memory of an engine at the last look",
            &self.engine_resident,
        );
        to.counter(
            "engine_errors",
            "Transcripts and replies that failed",
            &self.engine_errors,
        );
        to.gauge("queue_depth", "Tasks that wait", &self.queue_depth);
        to.counter(
            "rtp_packets",
            "RTP packets of calls that have ended",
            &self.rtp_packets,
        );
        to.counter(
            "rtp_lost",
            "RTP packets missing in calls that have ended",
            &self.rtp_lost,
        );
        to.counter(
            "rtp_concealed",
            "Frames of 20 ms made up in place of missing ones",
            &self.rtp_concealed,
        );
        to.counter(
            "rtp_underruns",
            "Times the voice ran out in mid-clause",
            &self.rtp_underruns,
        );
        to.gauge("rt_running", "The audio thread is alive", &self.rt_running);
        to.gauge(
            "rt_realtime",
            "The audio thread has realtime priority",
            &self.rt_realtime,
        );
        to.gauge("rt_legs", "Legs the audio thread serves", &self.rt_legs);
        to.counter(
            "rt_late_ticks",
            "Ticks of the audio thread that began late",
            &self.rt_late,
        );
        to.counter(
            "rt_skipped_ticks",
            "Ticks that came too late to be made up for",
            &self.rt_skipped,
        );
        to.gauge("sip_accounts", "Registrations, by state", &self.sip_accounts);
        to.gauge(
            "record_writable",
            "The record can be written",
            &self.record_writable,
        );
        to.gauge("record_bytes", "Size of the record", &self.record_octets);
        to.gauge("audit_entries", "Entries of the audit chain", &self.audit_entries);
        to.gauge(
            "disk_free_bytes",
            "Free space where the record lies",
            &self.disk_free,
        );
        to.gauge("disk_size_bytes", "Size of that disk", &self.disk_size);
        to.gauge(
            "temperature_celsius",
            "Thermal zones of the system",
            &self.temperature,
        );
        (self.registry, self.series) = (to.registry, to.series);
    }

    /// Names of all series, as a scraper stores them.
    #[must_use]
    pub fn series(&self) -> &[String] {
        &self.series
    }

    /// A call has ended.
    pub fn call(&self, outcome: Outcome, length: Duration, stats: &LegStats) {
        let outcome = outcome.state().as_str();
        self.calls.get_or_create(&ByOutcome { outcome }).inc();
        self.call_seconds.observe(length.as_secs_f64());
        for (direction, packets) in [("received", stats.rx_packets), ("sent", stats.tx_packets)] {
            self.rtp_packets
                .get_or_create(&ByDirection { direction })
                .inc_by(packets);
        }
        self.rtp_lost.inc_by(stats.rx_lost);
        self.rtp_concealed.inc_by(stats.rx_concealed);
        self.rtp_underruns.inc_by(stats.underruns);
    }

    /// A call was not answered.
    pub fn refused(&self, cause: &'static str) {
        self.refused.get_or_create(&ByCause { cause }).inc();
    }

    /// A turn has ended.
    pub fn turn(&self, took: &TurnLatencies, interrupted: bool) {
        self.turns.inc();
        if interrupted {
            self.interruptions.inc();
        }
        for (stage, took_ms) in [
            ("endpoint", took.endpoint_ms),
            ("stt", took.stt_ms),
            ("llm_first_token", took.llm_first_token_ms),
            ("llm_first_clause", took.llm_first_clause_ms),
            ("llm_total", took.llm_total_ms),
            ("tts_first", took.tts_first_ms),
            ("response", took.response_ms),
        ] {
            if let Some(ms) = took_ms {
                self.stage_seconds
                    .get_or_create(&ByStage { stage })
                    .observe(f64::from(ms) / 1_000.0);
            }
        }
    }

    /// A guardrail held; the words come from the lists of the program.
    pub fn guardrail(&self, stage: &'static str, category: &'static str, action: &'static str) {
        let held = ByHeld {
            stage,
            category,
            action,
        };
        self.guardrails.get_or_create(&held).inc();
    }

    /// A transcript or a reply failed.
    pub fn engine_error(&self, stage: &'static str, error: &EngineError) {
        let error = match error {
            EngineError::Down { .. } => "down",
            EngineError::Deadline => "deadline",
            EngineError::Busy => "busy",
            EngineError::BadRequest(_) => "bad_request",
            EngineError::Engine(_) => "engine",
            EngineError::Stale => "stale",
            EngineError::Start { .. } => "start",
        };
        self.engine_errors.get_or_create(&ByError { stage, error }).inc();
    }

    /// All figures in the text format of OpenMetrics.
    ///
    /// # Errors
    /// None that a text could cause; the formatter's.
    pub fn encode(&self, sample: &Sample<'_>) -> Result<String, std::fmt::Error> {
        self.take(sample);
        let mut text = String::new();
        encode(&mut text, &self.registry)?;
        Ok(text)
    }

    fn take(&self, sample: &Sample<'_>) {
        self.calls_in_progress.set(level(sample.calls));
        self.calls_limit.set(level(sample.calls_limit));
        for (status, waiting) in sample.engines.iter().zip(sample.waiting) {
            let name = status.engine.name();
            let by = ByEngine { engine: name };
            let ready = status.state == EngineState::Ready;
            self.engine_ready.get_or_create(&by).set(i64::from(ready));
            self.engine_restarts
                .get_or_create(&by)
                .inner()
                .store(status.restarts, Relaxed);
            self.engine_resident
                .get_or_create(&by)
                .set(level(status.resident_mb << 20));
            self.queue_depth
                .get_or_create(&ByQueue { queue: name })
                .set(level(waiting));
        }
        let rt = &sample.rt;
        self.rt_running.set(i64::from(rt.running));
        self.rt_realtime.set(i64::from(rt.realtime));
        self.rt_legs.set(i64::from(rt.legs));
        self.rt_skipped.inner().store(rt.skipped_ticks, Relaxed);
        for (over, ticks) in [
            ("1ms", rt.late_ticks.over_1_ms),
            ("5ms", rt.late_ticks.over_5_ms),
            ("20ms", rt.late_ticks.over_20_ms),
        ] {
            self.rt_late
                .get_or_create(&ByLate { over })
                .inner()
                .store(ticks, Relaxed);
        }
        for state in LineState::ALL {
            let count = sample.lines.iter().filter(|line| **line == state).count();
            let state = state.name();
            self.sip_accounts
                .get_or_create(&ByState { state })
                .set(level(count));
        }
        self.record_writable.set(i64::from(sample.writable));
        self.record_octets.set(level(sample.record_octets));
        if let Some(entries) = sample.audit_entries {
            self.audit_entries.set(entries);
        }
        if let Some(disk) = sample.disk {
            self.disk_free.set(level(disk.free));
            self.disk_size.set(level(disk.size));
        }
        for (zone, celsius) in temperatures(sample.thermal) {
            self.temperature.get_or_create(&ByZone { zone }).set(celsius);
        }
    }
}

/// As a gauge counts; what is larger stays at its most.
fn level<T: TryInto<i64>>(value: T) -> i64 {
    value.try_into().unwrap_or(i64::MAX)
}

/// Thermal zones and what they measure \[°C\]; a machine without any (a virtual one) gives none.
fn temperatures(thermal: &Path) -> Vec<(u32, f64)> {
    let entries = fs::read_dir(thermal).into_iter().flatten().flatten();
    let mut zones: Vec<(u32, f64)> = entries
        .filter_map(|entry| {
            let name = entry.file_name();
            let zone = name.to_str()?.strip_prefix("thermal_zone")?.parse().ok()?;
            let text = fs::read_to_string(entry.path().join("temp")).ok()?;
            // The kernel's unit is a thousandth of a degree.
            let celsius = text.trim().parse::<f64>().ok()? / 1_000.0;
            celsius.is_finite().then_some((zone, celsius))
        })
        .collect();
    zones.sort_by_key(|(zone, _)| *zone);
    zones.truncate(MOST_ZONES);
    zones
}

#[cfg(test)]
mod tests {
    use super::*;
    use attendant_models::client::Engine;

    fn engines() -> [EngineStatus; 3] {
        Engine::ALL.map(|engine| EngineStatus {
            engine,
            state: EngineState::Ready,
            generation: 2,
            restarts: 1,
            pid: Some(1),
            version: String::new(),
            model: String::new(),
            load_ms: 0,
            sequences: 1,
            resident_mb: 100,
            stale_replies: 0,
            last_error: None,
        })
    }

    fn text(metrics: &Metrics, thermal: &Path) -> String {
        let engines = engines();
        let sample = Sample {
            engines: &engines,
            waiting: [0, 2, 0],
            rt: RtStats::default(),
            lines: &[LineState::Registered, LineState::Trying],
            calls: 1,
            calls_limit: 4,
            writable: true,
            record_octets: 4_096,
            audit_entries: Some(7),
            disk: Some(Disk {
                free: 1 << 30,
                size: 2 << 30,
            }),
            thermal,
        };
        metrics.encode(&sample).expect("text")
    }

    #[test]
    fn counts_and_samples_are_told() {
        let dir = tempfile::tempdir().expect("directory");
        for (zone, temp) in [
            ("thermal_zone0", "48500\n"),
            ("thermal_zone1", "broken"),
            ("cooling", "1"),
        ] {
            fs::create_dir(dir.path().join(zone)).expect("zone");
            fs::write(dir.path().join(zone).join("temp"), temp).expect("temp");
        }
        let metrics = Metrics::new("small");
        let stats = LegStats {
            rx_packets: 500,
            underruns: 2,
            ..LegStats::default()
        };
        metrics.call(Outcome::Completed, Duration::from_secs(61), &stats);
        let took = TurnLatencies {
            response_ms: Some(700),
            ..TurnLatencies::default()
        };
        metrics.turn(&took, true);
        metrics.guardrail("input", "injection", "replaced");
        metrics.engine_error("reply", &EngineError::Deadline);
        metrics.refused("overload");
        let text = text(&metrics, dir.path());
        for line in [
            "attendant_calls_total{outcome=\"completed\"} 1",
            "attendant_call_seconds_bucket{le=\"120.0\"} 1",
            "attendant_turns_total 1",
            "attendant_turns_interrupted_total 1",
            "attendant_turn_stage_seconds_bucket{le=\"0.8\",stage=\"response\"} 1",
            "attendant_guardrail_hits_total{stage=\"input\",category=\"injection\",action=\"replaced\"} 1",
            "attendant_engine_errors_total{stage=\"reply\",error=\"deadline\"} 1",
            "attendant_engine_restarts_total{engine=\"llm\"} 1",
            "attendant_queue_depth{queue=\"llm\"} 2",
            "attendant_calls_refused_total{cause=\"overload\"} 1",
            "attendant_rtp_packets_total{direction=\"received\"} 500",
            "attendant_rtp_underruns_total 2",
            "attendant_sip_accounts{state=\"registered\"} 1",
            "attendant_audit_entries 7",
            "attendant_temperature_celsius{zone=\"0\"} 48.5",
            "# EOF",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} in:\n{text}");
        }
        assert!(!text.contains("zone=\"1\""), "{text}");
    }

    #[test]
    fn every_name_is_registered_once() {
        let metrics = Metrics::new("small");
        let text = text(&metrics, Path::new("/nonexistent"));
        let mut names: Vec<&str> = metrics.series().iter().map(String::as_str).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), metrics.series().len());
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            let name = line.split(['{', ' ']).next().unwrap_or_default();
            assert!(names.contains(&name), "{name} is not among the series");
        }
    }
}
