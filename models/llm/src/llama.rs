//! The small part of llama.cpp's C interface that the engine uses, made safe to call.
//!
//! `llama-cpp-2` keeps the context's pointer to itself and has no call for `llama_set_n_threads`, which the compute
//! permit needs between tokens; so this wraps `llama-cpp-sys-2` directly. No logic here.
#![allow(unsafe_code)]

use std::ffi::{CStr, CString, c_char, c_void};
use std::ops::Range;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::ptr::NonNull;
use std::sync::{Mutex, MutexGuard, PoisonError};

use llama_cpp_sys_2 as sys;

/// A token of the model's vocabulary.
pub(crate) type Token = sys::llama_token;
/// A sequence of the KV cache.
pub(crate) type Seq = sys::llama_seq_id;

/// What llama.cpp says when it refuses.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LlamaError {
    #[error("{path} is no usable model: {why}")]
    Load { path: String, why: String },
    #[error("cannot create a context of {0} tokens")]
    Context(u32),
    #[error("the KV cache is full")]
    Full,
    #[error("decoding failed with code {0}")]
    Decode(i32),
    #[error("invalid grammar")]
    Grammar,
}

/// While a model loads: what llama.cpp complained of first, which is the reason behind a null pointer.
static LOADING: Mutex<Option<String>> = Mutex::new(None);

/// Sends llama.cpp's warnings and errors to `tracing`; the rest is of no use to an operator.
pub(crate) fn init() {
    // SAFETY: called once, before any other function; the callback is a plain function without state.
    unsafe {
        sys::llama_log_set(Some(log), std::ptr::null_mut());
        sys::llama_backend_init();
    }
}

fn loading() -> MutexGuard<'static, Option<String>> {
    LOADING.lock().unwrap_or_else(PoisonError::into_inner)
}

unsafe extern "C" fn log(level: sys::ggml_log_level, text: *const c_char, _: *mut c_void) {
    if text.is_null() {
        return;
    }
    // SAFETY: llama.cpp passes a NUL-terminated string that lives for the call.
    let text = unsafe { CStr::from_ptr(text) }.to_string_lossy();
    let text = text.trim();
    match level {
        sys::GGML_LOG_LEVEL_ERROR => match &mut *loading() {
            Some(first) if first.is_empty() => text.clone_into(first),
            Some(_) => tracing::debug!("{text}"),
            None => tracing::error!("{text}"),
        },
        sys::GGML_LOG_LEVEL_WARN => tracing::debug!("{text}"),
        _ => tracing::trace!("{text}"),
    }
}

/// SIMD features compiled in and found, e.g. `AVX2 = 1`.
pub(crate) fn system_info() -> String {
    // SAFETY: returns a static NUL-terminated string.
    unsafe { CStr::from_ptr(sys::llama_print_system_info()) }
        .to_string_lossy()
        .into_owned()
}

/// Version of ggml.
pub(crate) fn version() -> String {
    // SAFETY: returns a static NUL-terminated string.
    unsafe { CStr::from_ptr(sys::ggml_version()) }
        .to_string_lossy()
        .into_owned()
}

/// A model and the one context on it.
pub(crate) struct Llama {
    model: NonNull<sys::llama_model>,
    context: NonNull<sys::llama_context>,
    vocab: *const sys::llama_vocab,
    n_vocab: usize,
}

/// How to create the context.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Shape {
    /// Tokens of all sequences together.
    pub context: u32,
    pub sequences: u32,
    /// Most tokens of one [`Batch`].
    pub batch: u32,
    pub threads: i32,
}

impl Llama {
    pub(crate) fn load(path: &Path, shape: Shape) -> Result<Self, LlamaError> {
        let refuse = |why: String| LlamaError::Load {
            path: path.display().to_string(),
            why,
        };
        let c_path =
            CString::new(path.as_os_str().as_bytes()).map_err(|_| refuse("no valid path".to_owned()))?;
        *loading() = Some(String::new());
        // SAFETY: params are the library's defaults, the path is NUL-terminated; null is handled.
        let model = NonNull::new(unsafe {
            sys::llama_model_load_from_file(c_path.as_ptr(), sys::llama_model_default_params())
        });
        let complaint = loading().take().unwrap_or_default();
        let model = model.ok_or_else(|| refuse(complaint))?;
        // SAFETY: the model is valid; it is freed in `Drop`, or below when there is no context.
        unsafe {
            let mut params = sys::llama_context_default_params();
            params.n_ctx = shape.context;
            params.n_batch = shape.batch;
            params.n_ubatch = shape.batch;
            params.n_seq_max = shape.sequences;
            params.n_threads = shape.threads;
            params.n_threads_batch = shape.threads;
            params.kv_unified = true;
            params.no_perf = true;
            let Some(context) = NonNull::new(sys::llama_init_from_model(model.as_ptr(), params)) else {
                sys::llama_model_free(model.as_ptr());
                return Err(LlamaError::Context(shape.context));
            };
            let vocab = sys::llama_model_get_vocab(model.as_ptr());
            let n_vocab = usize::try_from(sys::llama_vocab_n_tokens(vocab)).unwrap_or(0);
            Ok(Self {
                model,
                context,
                vocab,
                n_vocab,
            })
        }
    }

    /// What the model says of itself.
    pub(crate) fn description(&self) -> String {
        let mut buf = [0u8; 128];
        // SAFETY: the model is valid; at most `len` bytes are written, NUL-terminated.
        unsafe { sys::llama_model_desc(self.model.as_ptr(), buf.as_mut_ptr().cast(), buf.len()) };
        let desc = CStr::from_bytes_until_nul(&buf)
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        match self.meta("general.name") {
            Some(name) => format!("{name} ({desc})"),
            None => desc,
        }
    }

    fn meta(&self, key: &str) -> Option<String> {
        let key = CString::new(key).ok()?;
        let mut buf = [0u8; 128];
        // SAFETY: as above; a negative length means that there is no such key.
        let n = unsafe {
            sys::llama_model_meta_val_str(
                self.model.as_ptr(),
                key.as_ptr(),
                buf.as_mut_ptr().cast(),
                buf.len(),
            )
        };
        if n < 0 {
            None
        } else {
            Some(
                CStr::from_bytes_until_nul(&buf)
                    .ok()?
                    .to_string_lossy()
                    .into_owned(),
            )
        }
    }

    /// Tokens the model was trained to look back on.
    pub(crate) fn trained_context(&self) -> u32 {
        // SAFETY: the model is valid.
        u32::try_from(unsafe { sys::llama_model_n_ctx_train(self.model.as_ptr()) }).unwrap_or(0)
    }

    /// The model's own chat template, if it has one.
    pub(crate) fn template(&self) -> Option<CString> {
        // SAFETY: the model is valid; the string lives as long as it and is copied.
        let text = unsafe { sys::llama_model_chat_template(self.model.as_ptr(), std::ptr::null()) };
        // SAFETY: not null, NUL-terminated.
        (!text.is_null()).then(|| unsafe { CStr::from_ptr(text) }.to_owned())
    }

    pub(crate) fn tokenize(&self, text: &str, add_bos: bool) -> Vec<Token> {
        let Ok(len) = i32::try_from(text.len()) else {
            return Vec::new();
        };
        let mut tokens = vec![0; text.len() + 8];
        loop {
            let room = i32::try_from(tokens.len()).unwrap_or(i32::MAX);
            // SAFETY: pointers and lengths belong together.
            let n = unsafe {
                sys::llama_tokenize(
                    self.vocab,
                    text.as_ptr().cast(),
                    len,
                    tokens.as_mut_ptr(),
                    room,
                    add_bos,
                    true,
                )
            };
            match usize::try_from(n) {
                Ok(n) => {
                    tokens.truncate(n);
                    return tokens;
                }
                // Negative: that many are needed. More than a token per byte happens once at most.
                Err(_) if n != i32::MIN && n.unsigned_abs() as usize > tokens.len() => {
                    tokens.resize(n.unsigned_abs() as usize, 0);
                }
                Err(_) => return Vec::new(),
            }
        }
    }

    /// The bytes a token stands for: possibly a part of a character; nothing for control tokens.
    pub(crate) fn piece(&self, token: Token) -> Vec<u8> {
        let mut buf = [0u8; 256];
        let room = i32::try_from(buf.len()).unwrap_or(i32::MAX);
        // SAFETY: at most `room` bytes are written. No token of a known model is longer; then n is negative.
        let n =
            unsafe { sys::llama_token_to_piece(self.vocab, token, buf.as_mut_ptr().cast(), room, 0, false) };
        buf[..usize::try_from(n).unwrap_or(0)].to_vec()
    }

    /// Ends a generation.
    pub(crate) fn is_end(&self, token: Token) -> bool {
        // SAFETY: the vocabulary is valid.
        unsafe { sys::llama_vocab_is_eog(self.vocab, token) }
    }

    /// Structure of the template, never text.
    pub(crate) fn is_control(&self, token: Token) -> bool {
        // SAFETY: the vocabulary is valid.
        unsafe { sys::llama_vocab_is_control(self.vocab, token) }
    }

    /// Tokens are numbered from 0 to below this.
    pub(crate) fn vocabulary(&self) -> Token {
        Token::try_from(self.n_vocab).unwrap_or(0)
    }

    pub(crate) fn set_threads(&mut self, threads: i32) {
        // SAFETY: the context is valid and nobody decodes: `self` is exclusive.
        unsafe { sys::llama_set_n_threads(self.context.as_ptr(), threads, threads) }
    }

    /// Forgets a sequence from this position on.
    pub(crate) fn forget(&mut self, seq: Seq, from: usize) {
        let from = sys::llama_pos::try_from(from).unwrap_or(0);
        // SAFETY: the context is valid; -1 means to the end. Never fails for whole tails of attention caches.
        unsafe {
            sys::llama_memory_seq_rm(sys::llama_get_memory(self.context.as_ptr()), seq, from, -1);
        }
    }

    /// Lets `to` share the first `len` positions of `from`; `to` must be empty.
    pub(crate) fn share(&mut self, from: Seq, to: Seq, len: usize) {
        let len = sys::llama_pos::try_from(len).unwrap_or(0);
        // SAFETY: the context is valid; in a unified cache this marks cells, it copies nothing.
        unsafe {
            sys::llama_memory_seq_cp(sys::llama_get_memory(self.context.as_ptr()), from, to, 0, len);
        }
    }

    /// Forgets positions in the middle of a sequence and moves those behind them up; no other sequence may share
    /// them. The keys are turned to their new positions at the next decode. False when this model's cannot be.
    pub(crate) fn cut(&mut self, seq: Seq, range: Range<usize>) -> bool {
        let (Ok(from), Ok(to)) = (
            sys::llama_pos::try_from(range.start),
            sys::llama_pos::try_from(range.end),
        ) else {
            return false;
        };
        // SAFETY: the context is valid; -1 means to the end.
        unsafe {
            let memory = sys::llama_get_memory(self.context.as_ptr());
            if !sys::llama_memory_can_shift(memory) || !sys::llama_memory_seq_rm(memory, seq, from, to) {
                return false;
            }
            sys::llama_memory_seq_add(memory, seq, to, -1, from - to);
        }
        true
    }

    pub(crate) fn decode(&mut self, batch: &Batch) -> Result<(), LlamaError> {
        // SAFETY: context and batch are valid; the batch's arrays outlive the call.
        match unsafe { sys::llama_decode(self.context.as_ptr(), batch.raw) } {
            0 => Ok(()),
            1 => Err(LlamaError::Full),
            code => Err(LlamaError::Decode(code)),
        }
    }

    /// Logits at index `at` of the last batch, which asked for them. They are scratch: the next decode overwrites them.
    pub(crate) fn logits(&mut self, at: i32) -> Option<&mut [f32]> {
        // SAFETY: the context is valid; the pointer is null for a wrong index, else it points to n_vocab floats that
        // live until the next decode, which needs `self` exclusively.
        unsafe {
            let logits = sys::llama_get_logits_ith(self.context.as_ptr(), at);
            (!logits.is_null()).then(|| std::slice::from_raw_parts_mut(logits, self.n_vocab))
        }
    }

    pub(crate) fn grammar(&self, text: &str) -> Result<Grammar, LlamaError> {
        let text = CString::new(text).map_err(|_| LlamaError::Grammar)?;
        // SAFETY: the vocabulary is valid, strings are NUL-terminated; null (and a caught exception) is handled.
        let raw = unsafe { sys::llama_rs_sampler_init_grammar(self.vocab, text.as_ptr(), c"root".as_ptr()) };
        NonNull::new(raw).map(Grammar).ok_or(LlamaError::Grammar)
    }
}

impl Drop for Llama {
    fn drop(&mut self) {
        // SAFETY: both are valid and not used any more; the context goes first.
        unsafe {
            sys::llama_free(self.context.as_ptr());
            sys::llama_model_free(self.model.as_ptr());
        }
    }
}

/// Renders messages (role, content) with a chat template; `None` when llama.cpp does not know the template.
pub(crate) fn apply_template(
    template: &CStr,
    messages: &[(CString, CString)],
    reply: bool,
) -> Option<String> {
    let chat: Vec<sys::llama_chat_message> = messages
        .iter()
        .map(|(role, content)| sys::llama_chat_message {
            role: role.as_ptr(),
            content: content.as_ptr(),
        })
        .collect();
    let mut buf = vec![
        0u8;
        256 + messages
            .iter()
            .map(|(_, c)| 64 + 2 * c.count_bytes())
            .sum::<usize>()
    ];
    loop {
        let room = i32::try_from(buf.len()).ok()?;
        // SAFETY: all strings outlive the call; at most `room` bytes are written.
        let n = unsafe {
            sys::llama_chat_apply_template(
                template.as_ptr(),
                chat.as_ptr(),
                chat.len(),
                reply,
                buf.as_mut_ptr().cast(),
                room,
            )
        };
        let n = usize::try_from(n).ok()?;
        if n <= buf.len() {
            buf.truncate(n);
            return String::from_utf8(buf).ok();
        }
        buf.resize(n, 0);
    }
}

/// Tokens to decode in one go, of any sequences.
pub(crate) struct Batch {
    raw: sys::llama_batch,
    room: usize,
}

impl Batch {
    /// With room for `room` tokens.
    pub(crate) fn new(room: u32) -> Self {
        // SAFETY: allocates; one sequence per token.
        let raw = unsafe { sys::llama_batch_init(room.cast_signed(), 0, 1) };
        Self {
            raw,
            room: room as usize,
        }
    }

    pub(crate) fn clear(&mut self) {
        self.raw.n_tokens = 0;
    }

    pub(crate) fn len(&self) -> usize {
        usize::try_from(self.raw.n_tokens).unwrap_or(0)
    }

    pub(crate) fn room(&self) -> usize {
        self.room - self.len()
    }

    /// Adds a token; returns its index. Nothing is added when there is no room.
    pub(crate) fn add(&mut self, token: Token, pos: usize, seq: Seq, logits: bool) -> Option<i32> {
        let at = self.len();
        if at >= self.room {
            return None;
        }
        // SAFETY: `at` is inside the arrays that `llama_batch_init` allocated for `room` tokens of one sequence each.
        unsafe {
            *self.raw.token.add(at) = token;
            *self.raw.pos.add(at) = sys::llama_pos::try_from(pos).unwrap_or(0);
            *self.raw.n_seq_id.add(at) = 1;
            **self.raw.seq_id.add(at) = seq;
            *self.raw.logits.add(at) = i8::from(logits);
        }
        self.raw.n_tokens += 1;
        Some(self.raw.n_tokens - 1)
    }
}

impl Drop for Batch {
    fn drop(&mut self) {
        // SAFETY: allocated by `llama_batch_init`, freed once.
        unsafe { sys::llama_batch_free(self.raw) }
    }
}

/// A GBNF grammar in the middle of a text.
pub(crate) struct Grammar(NonNull<sys::llama_sampler>);

impl Grammar {
    /// Which of these candidates may come next: the logits of the others become -∞.
    pub(crate) fn filter(&mut self, candidates: &mut [sys::llama_token_data]) {
        let mut array = sys::llama_token_data_array {
            data: candidates.as_mut_ptr(),
            size: candidates.len(),
            selected: -1,
            sorted: false,
        };
        // SAFETY: the sampler is valid; the grammar only writes logits inside the array.
        unsafe { sys::llama_sampler_apply(self.0.as_ptr(), &raw mut array) }
    }

    /// Whether this token may come next.
    pub(crate) fn allows(&mut self, token: Token) -> bool {
        let mut one = [candidate(token, 0.0)];
        self.filter(&mut one);
        one[0].logit.is_finite()
    }

    /// Goes on behind this token; false when it is not allowed here.
    pub(crate) fn accept(&mut self, token: Token) -> bool {
        // SAFETY: the sampler is valid; the wrapper catches the exception of a wrong token.
        unsafe { sys::llama_rs_sampler_accept(self.0.as_ptr(), token) == sys::LLAMA_RS_STATUS_OK }
    }
}

impl Drop for Grammar {
    fn drop(&mut self) {
        // SAFETY: created by llama.cpp, freed once.
        unsafe { sys::llama_sampler_free(self.0.as_ptr()) }
    }
}

/// A candidate for the next token.
pub(crate) fn candidate(token: Token, logit: f32) -> sys::llama_token_data {
    sys::llama_token_data {
        id: token,
        logit,
        p: 0.0,
    }
}

/// See [`candidate`].
pub(crate) type Candidate = sys::llama_token_data;

#[cfg(test)]
mod tests {
    use super::*;

    /// Not a test of truth: CPU time of a step by its number of tokens, which a busy machine does not blur.
    #[test]
    #[ignore = "prints speed; wants ATTENDANT_TEST_LLM"]
    fn step_cost() {
        let path = std::env::var("ATTENDANT_TEST_LLM").unwrap();
        init();
        println!("{}", system_info());
        let mut llama = Llama::load(
            Path::new(&path),
            Shape {
                context: 4096,
                sequences: 66,
                batch: 128,
                threads: 1,
            },
        )
        .unwrap();
        let tokens = llama.tokenize(&"the quick brown fox ".repeat(100), false);
        let mut batch = Batch::new(128);
        for n in [1, 2, 3, 4, 6, 8, 16, 32, 64] {
            let mut best = f64::INFINITY;
            for _ in 0..3 {
                batch.clear();
                for (i, token) in tokens.iter().take(n).enumerate() {
                    // Up to 8: one token of each of n calls, else one prompt.
                    let (pos, seq) = if n <= 8 { (0, i as Seq) } else { (i, 0) };
                    batch.add(*token, pos, seq, n <= 8 || i + 1 == n);
                }
                let before = cpu();
                llama.decode(&batch).unwrap();
                best = best.min(cpu() - before);
                (0..66).for_each(|s| llama.forget(s, 0));
            }
            println!(
                "{n:4} tokens: {best:7.1} ms, {:6.1} ms per token",
                best / n as f64
            );
        }
    }

    fn cpu() -> f64 {
        let mut t = libc::timespec {
            tv_sec: 0,
            tv_nsec: 0,
        };
        // SAFETY: writes one timespec.
        unsafe { libc::clock_gettime(libc::CLOCK_PROCESS_CPUTIME_ID, &raw mut t) };
        t.tv_sec as f64 * 1e3 + t.tv_nsec as f64 / 1e6
    }
}
