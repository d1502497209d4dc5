//! Voice gate: per-frame speech probability → voiced or silent, with hysteresis and a level floor.

/// What the audio thread says of one near-end frame.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct FrameVoice {
    /// Speech probability, 0…1.
    pub speech_prob: f32,
    /// Level [dBov].
    pub level_dbov: f32,
}

/// Turns frames into runs of voice and silence; lengths count frames of 20 ms.
#[derive(Debug, Clone, Default)]
pub struct VoiceGate {
    voiced: bool,
    voiced_run: u32,
    silent_run: u32,
}

impl VoiceGate {
    /// Takes one frame; true when it counts as voiced.
    pub fn handle_frame(&mut self, frame: FrameVoice, on: f32, off: f32, min_level_dbov: f32) -> bool {
        let threshold = if self.voiced { off } else { on };
        self.voiced = frame.level_dbov > min_level_dbov && frame.speech_prob >= threshold;
        if self.voiced {
            // A one-frame dip does not break a run: plosives have them.
            if self.silent_run > 1 {
                self.voiced_run = 0;
            }
            self.voiced_run = self.voiced_run.saturating_add(1);
            self.silent_run = 0;
        } else {
            self.silent_run = self.silent_run.saturating_add(1);
            if self.silent_run > 1 {
                self.voiced_run = 0;
            }
        }
        self.voiced
    }

    /// Voiced time up to now, bridging single silent frames [ms].
    #[must_use]
    pub fn voiced_ms(&self) -> u32 {
        self.voiced_run.saturating_mul(20)
    }

    /// Silence up to now [ms]; 0 while voiced.
    #[must_use]
    pub fn silent_ms(&self) -> u32 {
        self.silent_run.saturating_mul(20)
    }

    /// Starts anew: what was heard so far does not count.
    pub fn reset(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_bridge_single_dips_and_need_level() {
        // 'v' voiced, 'q' voiced but quiet, '.' silent; want = voiced_ms after the last frame.
        let cases = [("vvv", 60), ("vv.v", 60), ("vv..v", 20), ("qqq", 0), ("vvq.", 0)];
        for (frames, want) in cases {
            let mut gate = VoiceGate::default();
            for c in frames.chars() {
                let (speech_prob, level_dbov) = match c {
                    'v' => (0.9, -20.0),
                    'q' => (0.9, -70.0),
                    _ => (0.1, -60.0),
                };
                gate.handle_frame(
                    FrameVoice {
                        speech_prob,
                        level_dbov,
                    },
                    0.5,
                    0.35,
                    -55.0,
                );
            }
            assert_eq!(gate.voiced_ms(), want, "{frames}");
        }
    }
}
