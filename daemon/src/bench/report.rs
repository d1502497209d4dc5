//! Report: the figures of a run, as one JSON object or a page of text.
//!
//! A caller's wait is measured on the wire. The record tells what was heard: where the daemon's answer began much later
//! than the first voice on the wire, that voice was a filler ("one moment, please") and the wait counts to the answer;
//! where it has no answer at all, only a stock phrase was heard and the utterance counts as unanswered.

use std::{collections::BTreeMap, io, time::Duration};

use attendant_store::Turn;
use serde::Serialize;

use super::{
    Technique,
    corpus::Kind,
    process::Cost,
    run::Made,
    wer::{WordErrors, align, compare},
};
use crate::caller::{
    figures::{Samples, Summary, round},
    line::{EchoPath, Ended},
    measure::{Heard, Pacing},
};

/// The answer began this much later than the first voice: what was heard first was a filler [ms].
const FILLER_MS: f64 = 600.0;

/// A reply that goes on later than this after a cough is another one [ms].
const PAUSED_MS: f64 = 3_000.0;

/// Other programs on more cores than this: the figures are not the daemon's own.
const BUSY_MACHINE: f64 = 0.2;

/// The machine it ran on.
#[derive(Debug, Clone, Serialize)]
pub struct Machine {
    /// Cores that the daemon may use.
    pub cores: u32,
    /// The processor's name.
    pub cpu: String,
    /// Memory [MiB].
    pub memory_mib: u64,
    /// The daemon's audio thread had realtime scheduling, where it told.
    pub realtime: Option<bool>,
}

/// How it was run.
#[derive(Debug, Clone, Serialize)]
pub struct Setup {
    /// Models.
    #[serde(skip)]
    pub profile: String,
    /// Seed.
    pub seed: u64,
    /// Calls at once.
    pub concurrent_calls: u32,
    /// Room noise [dBov].
    pub noise_dbov: Option<f64>,
    /// What the caller's telephone sent back of what it played.
    pub echo: Option<EchoPath>,
    /// What the network did to packets.
    pub weather: crate::caller::weather::Weather,
    /// Techniques switched off.
    pub without: Vec<Technique>,
    /// Bounds of turn-taking other than the defaults, KEY=VALUE.
    pub bounds: Vec<String>,
    /// Recorded prompts only.
    pub human_prompts_only: bool,
    /// List every turn.
    #[serde(skip)]
    pub list: bool,
}

/// What a run gathered.
#[derive(Debug)]
pub struct Measured {
    /// Calls that worked.
    pub made: Vec<Made>,
    /// Calls that did not.
    pub failed: usize,
    /// How long all took.
    pub took: Duration,
    /// Processor and memory.
    pub cost: Cost,
    /// The daemon's own count of underruns, where it tells.
    pub underruns: Option<u64>,
}

/// The figures of a run.
#[derive(Debug, Serialize)]
pub struct Report {
    /// Models.
    pub profile: String,
    /// Utterances spoken.
    pub turns: usize,
    /// Calls made.
    pub calls: usize,
    /// Calls that failed.
    pub failed_calls: usize,
    /// Last voiced sample sent to first voiced sample received [ms].
    pub response_ms: Option<Summary>,
    /// The same by kind of utterance.
    pub response_ms_by_kind: BTreeMap<&'static str, Summary>,
    /// Turns in which the other side spoke, or took the turn for finished, before the caller had finished; per turn.
    pub false_cutoff_rate: f64,
    /// … and how many.
    pub false_cutoffs: usize,
    /// Last voiced sample sent to the first voice of any kind received, fillers and stock phrases too [ms].
    pub first_sound_ms: Option<Summary>,
    /// Utterances without an answer: nothing was heard, or only stock phrases.
    pub unanswered: usize,
    /// Answers that began with a filler.
    pub fillers: usize,
    /// Utterances that ran into speech left over from before.
    pub collisions: usize,
    /// Caller's voice to silence, when a reply was interrupted [ms].
    pub barge_in_stop_ms: Option<Summary>,
    /// Interruptions during which the reply went on to the caller's last word.
    pub barge_ins_missed: usize,
    /// Replies that ended although nobody interrupted them: a cough, "mm-hm" or their own echo did.
    pub false_stops: usize,
    /// … per reply into which somebody coughed or said "mm-hm", or, with an echo, per reply.
    pub false_stop_rate: f64,
    /// Replies that were put to that test.
    pub false_stop_trials: usize,
    /// End of a cough or "mm-hm" to the reply's going on, where it had paused [ms].
    pub resume_ms: Option<Summary>,
    /// Word error rate of what was understood.
    pub wer: Option<f64>,
    /// Words compared.
    pub wer_words: usize,
    /// Word error rate by kind of utterance.
    pub wer_by_kind: BTreeMap<&'static str, f64>,
    /// Turns compared.
    pub wer_turns: usize,
    /// Between packets received [ms].
    pub rtp_spacing_ms: Option<Summary>,
    /// How far each spacing is from 20 ms [ms].
    pub rtp_deviation_ms: Option<Summary>,
    /// Times the daemon's queue ran empty in mid-speech: its own count, or the gaps on the wire where it has none.
    pub underruns: u64,
    /// Packets of dead silence inside words, as received.
    pub gaps: u64,
    /// Packets received.
    pub packets: u64,
    /// Packets lost.
    pub packets_lost: u64,
    /// Longest silence after a caller's last word [ms].
    pub dead_air_max_ms: Option<f64>,
    /// Answer to the first voice of the greeting [ms].
    pub greeting_ms: Option<Summary>,
    /// Stages from the daemon's record [ms].
    pub stages: BTreeMap<&'static str, Summary>,
    /// Processor time of daemon and workers per second of call.
    pub cpu_per_call_s: f64,
    /// Processor time and memory.
    pub cost: Cost,
    /// Seconds of call.
    pub call_seconds: f64,
    /// Seconds of the whole run.
    pub took_s: f64,
    /// Most that the caller's own sending was late [ms].
    pub caller_late_ms: f64,
    /// Calls that did not end as planned.
    pub ended_early: usize,
    /// The machine.
    pub machine: Machine,
    /// How it was run.
    pub setup: Setup,
    /// Each turn, where asked for.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub list: Vec<TurnLine>,
}

/// One turn in the list.
#[derive(Debug, Clone, Serialize)]
pub struct TurnLine {
    /// Call, from 1.
    pub call: usize,
    /// What kind of utterance.
    pub kind: &'static str,
    /// What was said.
    pub said: String,
    /// What was understood.
    pub understood: Option<String>,
    /// Wait [ms].
    pub response_ms: Option<f64>,
    /// Cut off.
    pub cut_off: bool,
    /// Time to stop [ms].
    pub stop_ms: Option<f64>,
    /// Its reply ended early, though nobody interrupted.
    pub falsely_stopped: bool,
    /// Word errors.
    pub word_errors: Option<usize>,
}

/// One turn, from both ends.
struct TurnFigures {
    kind: Kind,
    line: TurnLine,
    heard: Heard,
    filler: bool,
    errors: Option<WordErrors>,
    /// Its reply ended early, and the next utterance was no interruption.
    falsely_stopped: bool,
    /// Somebody coughed or said "mm-hm" into its reply.
    tried: bool,
    /// For a cough or "mm-hm": how long the reply paused after it [ms].
    resume_ms: Option<f64>,
}

impl Report {
    /// The figures of what was gathered.
    #[must_use]
    pub fn new(setup: Setup, machine: Machine, measured: &Measured) -> Self {
        let all: Vec<TurnFigures> = measured.made.iter().flat_map(turns).collect();
        let list = if setup.list {
            all.iter().map(|turn| turn.line.clone()).collect()
        } else {
            Vec::new()
        };
        let (figures, mutters): (Vec<_>, Vec<_>) = all.into_iter().partition(|turn| turn.kind.is_turn());
        let tried = |turn: &&TurnFigures| turn.tried || setup.echo.is_some();
        let false_stop_trials = figures.iter().filter(tried).count();
        let false_stops = figures.iter().filter(tried).filter(|t| t.falsely_stopped).count();
        let mut pacing = Pacing::default();
        for one in &measured.made {
            pacing.merge(&one.call.pacing);
        }
        let call_seconds: f64 = measured
            .made
            .iter()
            .map(|one| one.call.duration.as_secs_f64())
            .sum();
        let mut words = WordErrors::default();
        for errors in figures.iter().filter_map(|turn| turn.errors) {
            words.add(errors);
        }
        let false_cutoffs = figures.iter().filter(|turn| turn.line.cut_off).count();
        let waits = |turn: &TurnFigures| turn.line.response_ms;
        Self {
            profile: setup.profile.clone(),
            turns: figures.len(),
            calls: measured.made.len(),
            failed_calls: measured.failed,
            response_ms: figures.iter().filter_map(waits).collect::<Samples>().summary(),
            response_ms_by_kind: by_kind(&figures, |turns| {
                turns.filter_map(waits).collect::<Samples>().summary()
            }),
            false_cutoff_rate: round(false_cutoffs as f64 / figures.len().max(1) as f64),
            false_cutoffs,
            first_sound_ms: figures
                .iter()
                .filter_map(|turn| turn.heard.response_ms)
                .collect::<Samples>()
                .summary(),
            unanswered: figures
                .iter()
                .filter(|turn| turn.line.response_ms.is_none())
                .count(),
            fillers: figures.iter().filter(|turn| turn.filler).count(),
            collisions: figures.iter().filter(|turn| turn.heard.collision).count(),
            barge_in_stop_ms: figures
                .iter()
                .filter_map(|turn| turn.heard.stop_ms)
                .collect::<Samples>()
                .summary(),
            barge_ins_missed: figures.iter().filter(|turn| turn.heard.not_stopped).count(),
            false_stops,
            false_stop_rate: round(false_stops as f64 / false_stop_trials.max(1) as f64),
            false_stop_trials,
            resume_ms: mutters
                .iter()
                .filter_map(|turn| turn.resume_ms)
                .collect::<Samples>()
                .summary(),
            wer: words.rate().map(round),
            wer_words: words.words,
            wer_by_kind: by_kind(&figures, |turns| {
                let mut words = WordErrors::default();
                turns
                    .filter_map(|turn| turn.errors)
                    .for_each(|errors| words.add(errors));
                words.rate().map(round)
            }),
            wer_turns: figures.iter().filter(|turn| turn.errors.is_some()).count(),
            rtp_spacing_ms: pacing.spacing_ms.summary(),
            rtp_deviation_ms: pacing.deviation_ms.summary(),
            underruns: measured.underruns.unwrap_or(pacing.holes),
            gaps: pacing.holes,
            packets: pacing.received,
            packets_lost: pacing.lost,
            dead_air_max_ms: figures
                .iter()
                .map(|t| t.heard.silence_ms)
                .max_by(f64::total_cmp)
                .map(round),
            greeting_ms: measured
                .made
                .iter()
                .filter_map(|one| one.call.greeting_ms)
                .collect::<Samples>()
                .summary(),
            stages: stages(&measured.made),
            cpu_per_call_s: round(measured.cost.cpu_s / call_seconds.max(1.0)),
            cost: measured.cost.clone(),
            call_seconds: round(call_seconds),
            took_s: round(measured.took.as_secs_f64()),
            caller_late_ms: measured
                .made
                .iter()
                .map(|m| m.call.trace.own_late_ms)
                .fold(0.0, f64::max),
            ended_early: measured
                .made
                .iter()
                .filter(|m| m.call.ended() != Ended::Finished)
                .count(),
            machine,
            list,
            setup,
        }
    }

    /// For people.
    ///
    /// # Errors
    /// The writer's own.
    pub fn print(&self, out: &mut impl io::Write) -> io::Result<()> {
        let row = |out: &mut dyn io::Write, name: &str, figures: &Option<Summary>, unit: &str| match figures {
            Some(f) => writeln!(
                out,
                "  {name:<34} p50 {:>7.0} {unit}   p95 {:>7.0} {unit}   max {:>7.0} {unit}   ({})",
                f.p50, f.p95, f.max, f.count
            ),
            None => writeln!(out, "  {name:<34} —"),
        };
        let percent = |rate: f64| format!("{:.1} %", rate * 100.0);
        writeln!(out)?;
        for turn in &self.list {
            let wait = turn
                .response_ms
                .map_or_else(|| "      —".to_owned(), |ms| format!("{ms:7.0}"));
            let cut = match (turn.cut_off, turn.falsely_stopped) {
                (true, _) => " [cut off]",
                (false, true) => " [reply falsely stopped]",
                (false, false) => "",
            };
            writeln!(
                out,
                "  {:>3} {:<9} {wait} ms  {}{cut}",
                turn.call, turn.kind, turn.said
            )?;
            if turn.word_errors.is_some_and(|errors| errors > 0) {
                writeln!(
                    out,
                    "                   understood: {}",
                    turn.understood.as_deref().unwrap_or("(nothing)")
                )?;
            }
        }
        writeln!(
            out,
            "Profile {}, {} turns in {} calls ({} at once) on {} × {}",
            self.profile,
            self.turns,
            self.calls,
            self.setup.concurrent_calls,
            self.machine.cores,
            self.machine.cpu
        )?;
        row(out, "caller waits for the reply", &self.response_ms, "ms")?;
        for (kind, figures) in &self.response_ms_by_kind {
            row(out, &format!("  {kind}"), &Some(*figures), "ms")?;
        }
        row(out, "first sound of any kind", &self.first_sound_ms, "ms")?;
        row(out, "greeting after answer", &self.greeting_ms, "ms")?;
        row(out, "reply stops when interrupted", &self.barge_in_stop_ms, "ms")?;
        if self.false_stop_trials > 0 {
            row(out, "reply goes on after a cough", &self.resume_ms, "ms")?;
            writeln!(
                out,
                "  false stops {} of {} replies with a cough, \"mm-hm\" or echo ({})",
                self.false_stops,
                self.false_stop_trials,
                percent(self.false_stop_rate)
            )?;
        }
        writeln!(
            out,
            "  cut off {} ({} turns), unanswered {}, fillers {}, interruptions ignored {}, longest silence {:.0} ms",
            percent(self.false_cutoff_rate),
            self.false_cutoffs,
            self.unanswered,
            self.fillers,
            self.barge_ins_missed,
            self.dead_air_max_ms.unwrap_or(0.0)
        )?;
        let wer = self.wer.map_or_else(|| "—".to_owned(), percent);
        let kinds: Vec<String> = self
            .wer_by_kind
            .iter()
            .map(|(kind, rate)| format!("{kind} {}", percent(*rate)))
            .collect();
        writeln!(
            out,
            "  word errors {wer} of {} words ({})",
            self.wer_words,
            kinds.join(", ")
        )?;
        if let (Some(spacing), Some(deviation)) = (self.rtp_spacing_ms, self.rtp_deviation_ms) {
            writeln!(
                out,
                "  packets every {:.2} ms; off by p99 {:.2}, p99.9 {:.2}, max {:.2} ms; {} underruns, {} gaps, {} of {} lost",
                spacing.p50,
                deviation.p99,
                deviation.p999,
                deviation.max,
                self.underruns,
                self.gaps,
                self.packets_lost,
                self.packets
            )?;
        }
        writeln!(out, "  stages, from the daemon's record:")?;
        for (stage, figures) in &self.stages {
            row(out, &format!("  {stage}"), &Some(*figures), "ms")?;
        }
        writeln!(
            out,
            "  {:.2} s of processor per second of call; memory at most {:.0} MiB",
            self.cpu_per_call_s, self.cost.peak_rss_mib
        )?;
        if self.cost.others_cores > BUSY_MACHINE {
            writeln!(
                out,
                "  NOTE: other programs kept {:.1} cores busy meanwhile; on a quiet machine the figures are better",
                self.cost.others_cores
            )?;
        }
        if self.failed_calls > 0 || self.ended_early > 0 {
            writeln!(
                out,
                "  {} calls failed, {} ended before their time",
                self.failed_calls, self.ended_early
            )?;
        }
        Ok(())
    }
}

/// The turns of a call, each with what the daemon made of it.
fn turns(made: &Made) -> Vec<TurnFigures> {
    let said: Vec<&str> = made.call.turns.iter().map(|turn| turn.label.as_str()).collect();
    let record = made.record.as_ref();
    let recorded: Vec<&Turn> = record.map_or_else(Vec::new, |record| {
        record
            .turns
            .iter()
            .filter(|turn| !turn.caller_text.trim().is_empty())
            .collect()
    });
    let understood: Vec<&str> = recorded.iter().map(|turn| turn.caller_text.as_str()).collect();
    let belongs = align(&said, &understood);
    let mut out = Vec::with_capacity(said.len());
    for (index, turn) in made.call.turns.iter().enumerate() {
        let kind = made
            .items
            .get(turn.utterance)
            .map_or(Kind::Question, |item| item.kind);
        let ours: Vec<&Turn> = belongs
            .get(index)
            .into_iter()
            .flatten()
            .filter_map(|at| recorded.get(*at).copied())
            .collect();
        let text = ours
            .iter()
            .map(|turn| turn.caller_text.as_str())
            .collect::<Vec<_>>()
            .join(" ");
        let errors = record
            .filter(|_| kind.is_turn())
            .map(|_| compare(&turn.label, &text));
        let next = made.call.turns.get(index + 1);
        let next_kind = next
            .and_then(|next| made.items.get(next.utterance))
            .map(|item| item.kind);
        let interrupted = ours.iter().any(|turn| turn.interrupted);
        let own = ours
            .last()
            .and_then(|turn| turn.latencies.response_ms)
            .map(f64::from);
        let falsely_stopped = interrupted && next_kind != Some(Kind::BargeIn);
        let heard = turn.heard.response_ms;
        let filler = heard.zip(own).is_some_and(|(heard, own)| own - heard > FILLER_MS);
        let response_ms = match (record, own) {
            (Some(_), None) => None,
            (Some(_), own) if filler => own,
            (Some(_) | None, _) => heard,
        };
        out.push(TurnFigures {
            kind,
            line: TurnLine {
                call: made.number + 1,
                kind: kind.name(),
                said: turn.label.clone(),
                understood: record.map(|_| text),
                response_ms: response_ms.map(round),
                cut_off: turn.heard.cut_off || ours.len() > 1,
                stop_ms: turn.heard.stop_ms.map(round),
                falsely_stopped,
                word_errors: errors.map(|errors| errors.errors),
            },
            heard: turn.heard,
            filler,
            errors,
            falsely_stopped,
            tried: next_kind.is_some_and(|next| !next.is_turn()),
            resume_ms: heard.filter(|ms| !kind.is_turn() && turn.heard.stop_ms.is_some() && *ms < PAUSED_MS),
        });
    }
    out
}

fn by_kind<T>(
    figures: &[TurnFigures],
    of: impl Fn(&mut dyn Iterator<Item = &TurnFigures>) -> Option<T>,
) -> BTreeMap<&'static str, T> {
    let kinds: std::collections::BTreeSet<Kind> = figures.iter().map(|turn| turn.kind).collect();
    kinds
        .into_iter()
        .filter_map(|kind| {
            Some((
                kind.name(),
                of(&mut figures.iter().filter(|turn| turn.kind == kind))?,
            ))
        })
        .collect()
}

/// The waterfall of a turn, over all recorded turns.
fn stages(made: &[Made]) -> BTreeMap<&'static str, Summary> {
    let turns: Vec<&Turn> = made
        .iter()
        .filter_map(|one| one.record.as_ref())
        .flat_map(|r| &r.turns)
        .collect();
    type Stage = (&'static str, fn(&Turn) -> Option<u32>);
    // Named so that the map's order is the order of a turn.
    let stages: [Stage; 8] = [
        ("1_endpoint_ms", |turn| turn.latencies.endpoint_ms),
        ("2_stt_ms", |turn| turn.latencies.stt_ms),
        ("3_llm_first_token_ms", |turn| turn.latencies.llm_first_token_ms),
        ("4_llm_first_clause_ms", |turn| turn.latencies.llm_first_clause_ms),
        ("5_tts_first_ms", |turn| turn.latencies.tts_first_ms),
        ("6_response_ms", |turn| turn.latencies.response_ms),
        ("7_llm_total_ms", |turn| turn.latencies.llm_total_ms),
        ("8_barge_in_stop_ms", |turn| turn.latencies.barge_in_stop_ms),
    ];
    let values = |of: fn(&Turn) -> Option<u32>| {
        turns
            .iter()
            .filter_map(|t| of(t))
            .map(f64::from)
            .collect::<Samples>()
    };
    stages
        .into_iter()
        .filter_map(|(name, of)| Some((name, values(of).summary()?)))
        .collect()
}
