//! Speech: text in, audio of the line's rate out, part by part.

use std::time::Instant;

use attendant_models::protocol::{PCM_RATE_HZ, Request, Response, Stats, pcm_to_bytes};
use attendant_models::worker::{self, Context, Engine, Job, JobError};

use crate::parts::parts;
use crate::resample::Resampler;
use crate::shape::Shaper;
use crate::voice::{Voice, VoiceError};

/// Longest text of one request [bytes]: about three minutes of speech.
const LONGEST_TEXT: usize = 4096;
/// Longest piece of audio in one frame of the protocol [samples]: 1 s.
const PIECE: usize = PCM_RATE_HZ as usize;
/// Speaking rates that remain understandable.
const SPEEDS: std::ops::RangeInclusive<f32> = 0.5..=2.0;
/// Spoken at start: it warms the model up and shows how loud the voice is.
const WARM_UP: &str = "Good morning, thank you for calling. How may I help you today?";

/// A voice with everything it needs to reach a line.
pub struct Speaker {
    voice: Voice,
    resampler: Resampler,
    shaper: Shaper,
}

impl Speaker {
    /// Makes `voice` speak at the protocol's rate.
    ///
    /// # Errors
    /// One line for people.
    pub fn new(voice: Voice) -> Result<Self, String> {
        let resampler = Resampler::new(voice.rate_hz, PCM_RATE_HZ)
            .ok_or_else(|| format!("the voice's sample rate of {} Hz cannot be used", voice.rate_hz))?;
        Ok(Self {
            voice,
            resampler,
            shaper: Shaper::default(),
        })
    }

    /// Speaks once with one thread and once with `threads`. Returns the time of the latter [ms].
    ///
    /// # Errors
    /// One line for people.
    pub fn warm_up(&mut self, threads: u32) -> Result<u32, String> {
        self.speak(WARM_UP, 1.0, || Ok(1), |_| Ok(()))
            .map_err(|e| e.to_string())?;
        let begun = Instant::now();
        let samples = self
            .speak(WARM_UP, 1.0, || Ok(threads), |_| Ok(()))
            .map_err(|e| e.to_string())?;
        if samples == 0 {
            return Err("the voice is silent".into());
        }
        Ok(worker::millis(begun.elapsed()))
    }

    /// Speaks `text`: asks for `threads` before each part and gives `out` its audio. Returns the samples given.
    fn speak(
        &mut self,
        text: &str,
        speed: f32,
        mut threads: impl FnMut() -> Result<u32, JobError>,
        mut out: impl FnMut(&[i16]) -> Result<(), JobError>,
    ) -> Result<usize, JobError> {
        if text.len() > LONGEST_TEXT {
            return Err(JobError::BadRequest(format!(
                "text of {} bytes, at most {LONGEST_TEXT}",
                text.len()
            )));
        }
        if !SPEEDS.contains(&speed) {
            return Err(JobError::BadRequest(format!(
                "speed {speed}, possible are {SPEEDS:?}"
            )));
        }
        let clauses =
            espeak_rs::clauses(text, &self.voice.language).map_err(|e| JobError::Engine(e.to_string()))?;
        let mut total = 0;
        for part in parts(&clauses) {
            let samples = self
                .voice
                .speak(&part.phonemes, speed, threads()?)
                .map_err(engine_error)?;
            let pcm = self
                .shaper
                .shape(self.resampler.process(&samples), part.pause.millis());
            total += pcm.len();
            out(&pcm)?;
        }
        Ok(total)
    }
}

impl Engine for Speaker {
    fn run(&mut self, job: &Job, context: &Context<'_>) -> Result<Stats, JobError> {
        let Request::Speak {
            id,
            call,
            turn,
            text,
            speed,
            ..
        } = &job.request
        else {
            return Err(JobError::BadRequest("this worker speaks".into()));
        };
        let begun = Instant::now();
        let mut seq = 0;
        let samples = self.speak(
            text,
            *speed,
            || Ok(context.checkpoint()?),
            |pcm| {
                for piece in pcm.chunks(PIECE) {
                    // What was computed for nothing is not sent either.
                    if let Some(stop) = context.ticket().stop() {
                        return Err(stop.into());
                    }
                    context.send(&Response::Audio { id: *id, seq }, &pcm_to_bytes(piece))?;
                    seq += 1;
                }
                Ok(())
            },
        )?;
        let audio_ms = (samples as u64 * 1000 / u64::from(PCM_RATE_HZ)) as u32;
        tracing::debug!(
            "call {call} turn {turn}: {audio_ms} ms of audio in {} ms",
            begun.elapsed().as_millis()
        );
        Ok(Stats {
            audio_ms,
            ..Stats::default()
        })
    }
}

fn engine_error(error: VoiceError) -> JobError {
    JobError::Engine(error.to_string())
}
