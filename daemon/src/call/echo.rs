//! Echo: our own voice as it comes back from the caller's line, taken out before anyone listens.
//!
//! ```text
//!  sent in this tick ──────────> canceller <────────── heard in this tick
//!                                    │
//!                 ears <── cleaned ──┴──> voice activity ──> turn
//! ```
//!
//! A speakerphone sends back what it plays, some 20 to 200 ms later; the fork of an analog line does so at once. Without
//! the canceller every reply would interrupt itself. It works here and not in the audio thread because it allocates
//! (35 times in 10 ms); it takes 0.6 % of one core per call.
//!
//! It always learns, but is listened to only when the line has an echo: before that, it takes the first words spoken into
//! a reply for one (measured: −17 dBov in, −102 out, for the first two seconds).

use attendant_media::{FRAME_SAMPLES, Frame, echo::EchoDetector};
use attendant_rt::{RxFrame, Vad};
use attendant_turn::FrameVoice;
use sonora::{AudioProcessing, Config, StreamConfig, config::EchoCanceller as Aec3};

/// What the canceller takes at a time [samples]: 10 ms.
const BLOCK: usize = FRAME_SAMPLES / 2;
/// Sample rate of frames [Hz].
const RATE_HZ: u32 = 16_000;

/// Takes our own voice out of what is heard.
pub struct EchoCanceller {
    /// None when switched off.
    working: Option<Box<Working>>,
}

struct Working {
    detector: EchoDetector,
    aec: AudioProcessing,
    vad: Vad,
}

impl EchoCanceller {
    /// For one call.
    #[must_use]
    pub fn new(on: bool) -> Self {
        let stream = StreamConfig::new(RATE_HZ, 1);
        let working = || {
            let config = Config {
                echo_canceller: Some(Aec3::default()),
                ..Config::default()
            };
            let aec = AudioProcessing::builder()
                .config(config)
                .capture_config(stream)
                .render_config(stream)
                .build();
            Box::new(Working {
                detector: EchoDetector::default(),
                aec,
                vad: Vad::new(),
            })
        };
        Self {
            working: on.then(working),
        }
    }

    /// What the caller said in this tick, and how likely it is speech.
    pub fn hear(&mut self, rx: &RxFrame) -> (Frame, FrameVoice) {
        let raw = FrameVoice {
            speech_prob: rx.speech_prob,
            level_dbov: rx.level_dbov,
        };
        let Some(working) = &mut self.working else {
            return (rx.frame, raw);
        };
        match working.clean(&rx.sent, &rx.frame) {
            Ok(frame) => {
                let before = working.detector.delay_ms();
                if !working.detector.handle_frame(&rx.sent, &rx.frame) {
                    let speech_prob = if working.detector.suspects() {
                        0.0
                    } else {
                        raw.speech_prob
                    };
                    return (rx.frame, FrameVoice { speech_prob, ..raw });
                }
                if before.is_none() {
                    tracing::info!(delay_ms = working.detector.delay_ms(), "the line has an echo");
                }
                let voice = FrameVoice {
                    speech_prob: working.vad.handle_frame(&frame),
                    level_dbov: frame.energy_dbov(),
                };
                (frame, voice)
            }
            // A caller with echo is better than none.
            Err(error) => {
                tracing::warn!(%error, "the echo canceller failed and is off for this call");
                self.working = None;
                (rx.frame, raw)
            }
        }
    }
}

impl Working {
    fn clean(&mut self, sent: &Frame, heard: &Frame) -> Result<Frame, sonora::Error> {
        let mut out = Frame::SILENCE;
        let blocks = sent.samples.chunks(BLOCK).zip(heard.samples.chunks(BLOCK));
        for ((far, near), clean) in blocks.zip(out.samples.chunks_mut(BLOCK)) {
            let (far, near) = (floats(far), floats(near));
            let mut result = [0.0; BLOCK];
            let mut played = [0.0; BLOCK];
            self.aec.process_render_f32(&[&far], &mut [&mut played])?;
            self.aec.process_capture_f32(&[&near], &mut [&mut result])?;
            for (to, from) in clean.iter_mut().zip(result) {
                *to = (from * 32_768.0).clamp(-32_768.0, 32_767.0) as i16;
            }
        }
        Ok(out)
    }
}

fn floats(samples: &[i16]) -> [f32; BLOCK] {
    let mut out = [0.0; BLOCK];
    for (to, from) in out.iter_mut().zip(samples) {
        *to = f32::from(*from) / 32_768.0;
    }
    out
}
