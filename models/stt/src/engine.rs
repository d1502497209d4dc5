//! Whisper: PCM in, one guarded transcript out.
//!
//! Greedy, one segment, no timestamps, no text of an earlier request, no temperature fallback (the guard's wider
//! context replaces it).
//!
//! **No caller hears another's words.** Every pass gets a fresh state, whose buffers whisper.cpp zeroes, and flash
//! attention stays off: with it, a context that is no multiple of 256 attends to whatever lies behind it in memory.
//! It would also be slower here: 1055 instead of 792 ms for 4 s of speech (base, one thread of a Zen 4).
#![allow(unsafe_code)]

use std::collections::HashMap;
use std::ffi::c_void;
use std::path::Path;
use std::time::Instant;

use attendant_models::protocol::{Request, Response, Stats, bytes_to_pcm};
use attendant_models::worker::{self, Context, Engine, Job, JobError, Ticket};
use whisper_rs::{FullParams, SamplingStrategy, WhisperContext, WhisperContextParameters};

use crate::{SAMPLE_RATE_HZ, guard};

/// whisper.cpp takes nothing shorter [samples]: 100 ms.
const SHORTEST: usize = SAMPLE_RATE_HZ / 10;
/// Audio is padded with silence to this [samples]: 1.2 s, since the model never saw a lone syllable fill its window.
const PADDED: usize = SAMPLE_RATE_HZ * 12 / 10;
/// Frame of the level gate [samples]: 20 ms.
const GATE_FRAME: usize = SAMPLE_RATE_HZ / 50;
/// Level of the loudest frame below which nobody spoke: −60 dBov as mean square of `i16`.
const GATE_POWER: f64 = 32_768.0 * 32_768.0 * 1e-6;
/// Longest vocabulary hint [tokens]; the decoder's whole context is 448.
const LONGEST_HINT: usize = 96;
/// A hint longer than this is no hint [bytes].
const MOST_HINT_BYTES: usize = 4096;
/// Most compute threads; whisper.cpp allocates per thread.
const MOST_THREADS: u32 = 64;

/// What one pass understood.
struct Pass {
    text: String,
    avg_logprob: f32,
    no_speech_prob: f32,
    capped: bool,
}

/// What a request understood.
#[derive(Debug, Clone, PartialEq)]
pub struct Heard {
    /// Trimmed; empty when nothing was said.
    pub text: String,
    /// Mean log-probability of the tokens, ≤ 0.
    pub avg_logprob: f32,
    /// 0…1.
    pub no_speech_prob: f32,
    /// Passes over the audio; 0 when the level alone decided.
    pub passes: u32,
    /// Audio context of the accepted pass.
    pub audio_ctx: i32,
}

impl Heard {
    fn nothing() -> Self {
        Self {
            text: String::new(),
            avg_logprob: 0.0,
            no_speech_prob: 1.0,
            passes: 0,
            audio_ctx: 0,
        }
    }
}

/// A loaded model.
pub struct Whisper {
    context: WhisperContext,
    /// One per language: setting a language leaks a few bytes in the binding, so it is done once.
    params: HashMap<Option<String>, FullParams<'static, 'static>>,
}

impl Whisper {
    /// Loads a ggml model file.
    ///
    /// # Errors
    /// One line for people.
    pub fn load(model: &Path) -> Result<Self, String> {
        whisper_rs::install_logging_hooks();
        let mut parameters = WhisperContextParameters::default();
        parameters.use_gpu(false).flash_attn(false);
        let context = WhisperContext::new_with_params(model, parameters)
            .map_err(|e| format!("{}: whisper.cpp cannot load it ({e})", model.display()))?;
        Ok(Self {
            context,
            params: HashMap::new(),
        })
    }

    /// What the model says of itself.
    #[must_use]
    pub fn describe(&self) -> String {
        let language = if self.context.is_multilingual() {
            "multilingual"
        } else {
            "English only"
        };
        let kind = self.context.model_type_readable_str_lossy();
        format!(
            "whisper {}, {language}",
            kind.as_deref().unwrap_or("of unknown kind")
        )
    }

    /// Touches the weights once, so that the first caller does not wait for it. Returns the time it took [ms].
    ///
    /// # Errors
    /// The engine's.
    pub fn warm_up(&mut self, threads: u32) -> Result<u32, JobError> {
        let begun = Instant::now();
        // A quiet 200 Hz saw: not silent, and never speech.
        let tone: Vec<f32> = (0..PADDED)
            .map(|i| ((i % 80) as f32 / 80.0 - 0.5) * 0.02)
            .collect();
        let ticket = Ticket::new(begun + std::time::Duration::from_secs(120));
        self.pass(
            &tone,
            Some("en"),
            "",
            guard::first_context(0),
            4,
            threads,
            &ticket,
        )?;
        Ok(worker::millis(begun.elapsed()))
    }

    /// Transcribes `pcm`; `threads` is asked before each pass.
    ///
    /// # Errors
    /// [`JobError`].
    pub fn transcribe(
        &mut self,
        pcm: &[i16],
        language: Option<&str>,
        hint: &str,
        ticket: &Ticket,
        mut threads: impl FnMut() -> Result<u32, JobError>,
    ) -> Result<Heard, JobError> {
        let language = self.check_language(language)?;
        if pcm.len() < SHORTEST || is_silent(pcm) {
            return Ok(Heard::nothing());
        }
        let mut samples: Vec<f32> = pcm.iter().map(|s| f32::from(*s) / 32_768.0).collect();
        samples.resize(samples.len().max(PADDED), 0.0);
        let mut audio_ctx = guard::first_context(pcm.len());
        let mut passes = 0;
        loop {
            passes += 1;
            let cap = guard::max_tokens(pcm.len(), audio_ctx);
            let pass = self.pass(&samples, language, hint, audio_ctx, cap, threads()?, ticket)?;
            let looped = pass.capped || guard::repeats(&pass.text);
            match guard::next_context(audio_ctx) {
                Some(wider) if looped => audio_ctx = wider,
                _ => {
                    return Ok(Heard {
                        text: pass.text,
                        avg_logprob: pass.avg_logprob,
                        no_speech_prob: pass.no_speech_prob,
                        passes,
                        audio_ctx,
                    });
                }
            }
        }
    }

    fn check_language<'a>(&self, language: Option<&'a str>) -> Result<Option<&'a str>, JobError> {
        match language {
            // An English-only model has nothing to detect.
            None | Some("en") if !self.context.is_multilingual() => Ok(Some("en")),
            None => Ok(None),
            Some(l) if l.contains('\0') || whisper_rs::get_lang_id(l).is_none() => {
                Err(JobError::BadRequest(format!("unknown language {l:?}")))
            }
            Some(_) if !self.context.is_multilingual() => {
                Err(JobError::BadRequest("this model knows English only".into()))
            }
            Some(l) => Ok(Some(l)),
        }
    }

    #[allow(clippy::too_many_arguments)] // one call of the library; a struct would only repeat its parameters
    fn pass(
        &mut self,
        samples: &[f32],
        language: Option<&str>,
        hint: &str,
        audio_ctx: i32,
        max_tokens: i32,
        threads: u32,
        ticket: &Ticket,
    ) -> Result<Pass, JobError> {
        let hint_tokens = self.hint_tokens(hint);
        let mut params: FullParams<'_, '_> = self.params_for(language).clone();
        params.set_n_threads(threads.clamp(1, MOST_THREADS) as i32);
        params.set_audio_ctx(audio_ctx);
        params.set_max_tokens(max_tokens);
        if !hint_tokens.is_empty() {
            params.set_tokens(&hint_tokens);
        }
        // SAFETY: `ticket` outlives `full`, which alone calls back; the callback only reads atomics and the clock.
        unsafe {
            params.set_abort_callback(Some(must_stop));
            params.set_abort_callback_user_data(std::ptr::from_ref(ticket).cast_mut().cast());
        }
        let mut state = self
            .context
            .create_state()
            .map_err(|e| engine_error("no state", &e))?;
        if let Err(error) = state.full(params, samples) {
            return Err(ticket
                .stop()
                .map_or_else(|| engine_error("inference", &error), JobError::Stopped));
        }
        if let Some(stop) = ticket.stop() {
            return Err(stop.into());
        }
        Ok(self.read_out(&state))
    }

    fn read_out(&self, state: &whisper_rs::WhisperState) -> Pass {
        let end_of_text = self.context.token_eot();
        let mut bytes = Vec::new();
        let (mut logprobs, mut tokens) = (0.0_f64, 0_u32);
        let mut no_speech_prob: Option<f32> = None;
        let mut capped = false;
        for segment in state.as_iter() {
            // Bytes, since a character may be spread over the tokens of two segments.
            bytes.extend_from_slice(segment.to_bytes().unwrap_or_default());
            let p = segment.no_speech_probability();
            no_speech_prob = Some(no_speech_prob.map_or(p, |least| least.min(p)));
            let mut last = None;
            for i in 0..segment.n_tokens() {
                let Some(token) = segment.get_token(i) else {
                    continue;
                };
                let data = token.token_data();
                logprobs += f64::from(data.plog);
                tokens += 1;
                last = Some(data.id);
            }
            capped |= last.is_some_and(|id| id != end_of_text);
        }
        let avg_logprob = if tokens == 0 {
            0.0
        } else {
            (logprobs / f64::from(tokens)) as f32
        };
        Pass {
            text: String::from_utf8_lossy(&bytes).trim().to_owned(),
            avg_logprob: if avg_logprob.is_finite() {
                avg_logprob.min(0.0)
            } else {
                0.0
            },
            // Without any text there is no segment to ask.
            no_speech_prob: no_speech_prob
                .map_or(1.0, |p| if p.is_finite() { p.clamp(0.0, 1.0) } else { 0.0 }),
            capped,
        }
    }

    fn params_for(&mut self, language: Option<&str>) -> &FullParams<'static, 'static> {
        self.params.entry(language.map(str::to_owned)).or_insert_with(|| {
            let mut p = FullParams::new(SamplingStrategy::Greedy { best_of: 1 });
            p.set_language(language.map(|l| &*l.to_owned().leak()));
            p.set_translate(false);
            p.set_no_context(true);
            p.set_no_timestamps(true);
            p.set_single_segment(true);
            p.set_suppress_blank(true);
            p.set_suppress_nst(true);
            p.set_temperature(0.0);
            p.set_temperature_inc(0.0);
            // Above any probability: a doubtful segment is handed over with its figures, not dropped.
            p.set_no_speech_thold(2.0);
            p.set_print_special(false);
            p.set_print_progress(false);
            p.set_print_realtime(false);
            p.set_print_timestamps(false);
            p
        })
    }

    /// The hint as tokens, its end if it is too long; none if it cannot be one.
    fn hint_tokens(&self, hint: &str) -> Vec<i32> {
        let hint = hint.trim();
        if hint.is_empty() || hint.len() > MOST_HINT_BYTES {
            return Vec::new();
        }
        // The model saw earlier text begin with a space. A token has at least one byte; the binding relies on enough room.
        let mut tokens = self
            .context
            .tokenize(&format!(" {hint}"), hint.len() + 2)
            .unwrap_or_default();
        tokens.drain(..tokens.len().saturating_sub(LONGEST_HINT));
        tokens
    }
}

impl Engine for Whisper {
    fn run(&mut self, job: &Job, context: &Context<'_>) -> Result<Stats, JobError> {
        let Request::Transcribe {
            id,
            call,
            turn,
            language,
            hint,
            ..
        } = &job.request
        else {
            return Err(JobError::BadRequest("this worker transcribes".into()));
        };
        let begun = Instant::now();
        let pcm = bytes_to_pcm(&job.payload);
        let heard = self.transcribe(&pcm, language.as_deref(), hint, context.ticket(), || {
            Ok(context.checkpoint()?)
        })?;
        let audio_ms = (pcm.len() * 1000 / SAMPLE_RATE_HZ) as u32;
        let Heard {
            text,
            avg_logprob,
            no_speech_prob,
            passes,
            audio_ctx,
        } = heard;
        tracing::debug!(
            "call {call} turn {turn}: {audio_ms} ms of audio in {} ms, {passes} passes, context {audio_ctx}",
            begun.elapsed().as_millis()
        );
        let audio_ctx = audio_ctx as u32;
        context.send(
            &Response::Transcript {
                id: *id,
                text,
                avg_logprob,
                no_speech_prob,
                passes,
                audio_ctx,
            },
            &[],
        )?;
        Ok(Stats {
            audio_ms,
            ..Stats::default()
        })
    }
}

/// Asked by whisper.cpp after the encoder and before each token.
unsafe extern "C" fn must_stop(ticket: *mut c_void) -> bool {
    // SAFETY: `pass` set this pointer to a ticket that outlives the inference.
    unsafe { &*ticket.cast::<Ticket>() }.stop().is_some()
}

fn engine_error(what: &str, error: &whisper_rs::WhisperError) -> JobError {
    JobError::Engine(format!("whisper.cpp: {what}: {error}"))
}

/// Whether no 20 ms of it are as loud as the quietest speech.
fn is_silent(pcm: &[i16]) -> bool {
    pcm.chunks(GATE_FRAME).all(|frame| {
        let power: f64 = frame.iter().map(|s| f64::from(*s) * f64::from(*s)).sum();
        power / (frame.len() as f64) < GATE_POWER
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_gate_opens_for_quiet_speech_only() {
        assert!(is_silent(&[]));
        assert!(is_silent(&[0; 16_000]));
        assert!(is_silent(&[20; 16_000]));
        let mut pcm = vec![0; 16_000];
        pcm[8000..8320].fill(200);
        assert!(!is_silent(&pcm));
    }
}
