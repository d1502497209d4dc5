//! The four functions of `libespeak-ng` that are needed, behind a lock, since the library keeps global state.
#![allow(unsafe_code)]

use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use crate::{ESpeakError, ESpeakResult};

/// Directory that contains `espeak-ng-data`, if not the one built into the library.
const DATA_DIRECTORY: &str = "PIPER_ESPEAKNG_DATA_DIRECTORY";
/// `AUDIO_OUTPUT_RETRIEVAL`: no sound device is opened.
const OUTPUT_RETRIEVAL: c_int = 1;
/// `espeakINITIALIZE_DONT_EXIT`: missing data is an error, not the end of the process.
const DONT_EXIT: c_int = 0x8000;
/// `espeakCHARS_UTF8`.
const CHARS_UTF8: c_int = 1;
/// Bit 1 of the phoneme mode: IPA in UTF-8.
const PHONEMES_IPA: c_int = 2;
/// `EE_OK`.
const OK: c_int = 0;

#[link(name = "espeak-ng")]
unsafe extern "C" {
    fn espeak_Initialize(output: c_int, buflength: c_int, path: *const c_char, options: c_int) -> c_int;
    fn espeak_SetVoiceByName(name: *const c_char) -> c_int;
    fn espeak_TextToPhonemes(
        textptr: *mut *const c_void,
        textmode: c_int,
        phonememode: c_int,
    ) -> *const c_char;
}

static STATE: Mutex<()> = Mutex::new(());
static INITIALIZED: OnceLock<ESpeakResult<()>> = OnceLock::new();

/// The library, for as long as it is held.
pub(crate) struct Espeak {
    _turn: MutexGuard<'static, ()>,
}

impl Espeak {
    /// Waits for the library; loads its data the first time.
    pub(crate) fn lock() -> ESpeakResult<Self> {
        // A panic elsewhere leaves no half-done state: each call sets voice and text anew.
        let turn = STATE.lock().unwrap_or_else(PoisonError::into_inner);
        INITIALIZED.get_or_init(initialize).clone()?;
        Ok(Self { _turn: turn })
    }

    /// Chooses the voice, which is the language.
    pub(crate) fn set_voice(&self, language: &str) -> ESpeakResult<()> {
        let name =
            CString::new(language).map_err(|_| ESpeakError("voice name contains a zero byte".into()))?;
        // SAFETY: the library is initialised and locked; `name` is a C string that outlives the call.
        if unsafe { espeak_SetVoiceByName(name.as_ptr()) } == OK {
            Ok(())
        } else {
            Err(ESpeakError(format!(
                "no voice {language:?}; is the package espeak-ng-data installed?"
            )))
        }
    }

    /// IPA of `words`; parts that espeak itself separates are joined by a space.
    pub(crate) fn phonemes(&self, words: &str, separator: Option<char>) -> ESpeakResult<String> {
        let text = CString::new(words).map_err(|_| ESpeakError("text contains a zero byte".into()))?;
        // Bits 8–23 hold the separator; one beyond them cannot be asked for.
        let separator = separator.map_or(0, |c| c as u32).min(0xffff) as c_int;
        let mode = (separator << 8) | PHONEMES_IPA;
        let mut rest: *const c_void = text.as_ptr().cast();
        let mut out = String::new();
        // Each call takes a piece off the text, so its length bounds the rounds; a bug in the library must not hang us.
        for _ in 0..=words.len() {
            if rest.is_null() {
                break;
            }
            // SAFETY: locked; `rest` points into `text`, which outlives the loop, or is null.
            let piece = unsafe { espeak_TextToPhonemes(&raw mut rest, CHARS_UTF8, mode) };
            if piece.is_null() {
                continue;
            }
            // SAFETY: a C string in the library's buffer, valid until the next call, copied at once.
            let piece = unsafe { CStr::from_ptr(piece) }.to_string_lossy();
            if !out.is_empty() && !piece.trim().is_empty() {
                out.push(' ');
            }
            out.push_str(piece.trim());
        }
        Ok(out)
    }
}

fn initialize() -> ESpeakResult<()> {
    let directory = std::env::var(DATA_DIRECTORY)
        .ok()
        .and_then(|d| CString::new(d).ok());
    let path = directory.as_ref().map_or(std::ptr::null(), |d| d.as_ptr());
    // SAFETY: called once, under the lock; `path` is null or a C string that outlives the call.
    let rate = unsafe { espeak_Initialize(OUTPUT_RETRIEVAL, 0, path, DONT_EXIT) };
    if rate > 0 {
        Ok(())
    } else {
        Err(ESpeakError(format!(
            "cannot load its data (code {rate}): install the package espeak-ng-data, or set {DATA_DIRECTORY}"
        )))
    }
}
