//! The framed protocol between the daemon and an engine worker, over a Unix stream socket.
//!
//! ```text
//! frame = header length [u32 LE] | payload length [u32 LE] | header (JSON) | payload (bytes)
//! ```
//!
//! The header is a [`Request`] (daemon → worker) or a [`Response`] (worker → daemon). The payload carries PCM:
//! 16 kHz mono signed 16-bit little-endian in both directions ([`PCM_RATE_HZ`]). A worker is one process with one
//! connection: it gets the socket as file descriptor 3 and ends when the socket closes.
//!
//! Life of a worker: start → `Ready` (or exit with a message on stderr) → any number of requests. Requests of one id
//! end in exactly one of `Done`, `Failed`, `Cancelled`. Unknown ids in `Cancel` are ignored (the reply crossed it).

use std::io::{self, Read, Write};

use serde::{Deserialize, Serialize, de::DeserializeOwned};

/// Version of this protocol; a worker of another version refuses to start.
pub const PROTOCOL_VERSION: u32 = 1;
/// File descriptor on which a worker finds its socket.
pub const WORKER_FD: i32 = 3;
/// Sample rate of every PCM payload [Hz].
pub const PCM_RATE_HZ: u32 = 16_000;
/// Largest header accepted [bytes]: a long prompt in JSON fits many times over.
pub const MAX_HEADER: usize = 1 << 20;
/// Largest payload accepted [bytes]: two minutes of PCM.
pub const MAX_PAYLOAD: usize = 120 * 2 * PCM_RATE_HZ as usize;

/// Identifies a request on its connection; never reused within a worker's generation.
pub type RequestId = u64;

/// One message of a chat, in the model's own roles.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChatMessage {
    /// Who speaks.
    pub role: Role,
    /// What is said, plain text; the worker renders it with the model's own chat template.
    pub content: String,
}

/// Role of a [`ChatMessage`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Instructions; the shared prefix.
    System,
    /// The caller.
    User,
    /// The attendant.
    Assistant,
}

/// Daemon → worker.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Request {
    /// Health check; answered with [`Response::Pong`] even while the engine computes.
    Ping {
        /// Echoed in the answer.
        nonce: u64,
    },
    /// Ends request `id` as soon as the engine can: answered by `Cancelled` (or by its `Done`, if that crossed).
    Cancel {
        /// The request to end.
        id: RequestId,
    },
    /// Compute threads from now on, for running and later requests; 0 pauses between tokens, chunks or clauses.
    /// Answered with [`Response::ThreadsSet`] once in force.
    SetThreads {
        /// Compute threads.
        threads: u32,
    },
    /// Ends the process after answering nothing more.
    Shutdown,

    /// STT: transcribes the payload, 16 kHz mono PCM.
    Transcribe {
        /// Request.
        id: RequestId,
        /// For logs only.
        call: u64,
        /// For logs only.
        turn: u32,
        /// Give up this long after arrival [ms].
        deadline_ms: u32,
        /// ISO 639-1 language, e.g. `en`; `None` lets a multilingual model detect it.
        language: Option<String>,
        /// Vocabulary hint (names, services) placed before the transcript; may be empty.
        hint: String,
    },

    /// LLM: makes these messages the shared prefix: decoded once, kept in the KV cache, copied to each call's
    /// sequence. Answered by `Done` with no text. Replaces an earlier prefix.
    SetPrefix {
        /// Request.
        id: RequestId,
        /// Usually one system message.
        messages: Vec<ChatMessage>,
    },
    /// LLM: prefills `messages` after the shared prefix into the call's sequence without generating.
    Prefill {
        /// Request.
        id: RequestId,
        /// Names the sequence.
        call: u64,
        /// The whole history after the prefix; the longest common token prefix with the sequence is reused.
        messages: Vec<ChatMessage>,
    },
    /// LLM: generates the assistant's next message. Streams `Token`s, then `Done`.
    Generate {
        /// Request.
        id: RequestId,
        /// Names the sequence (KV cache) to use; kept until `Release`.
        call: u64,
        /// For logs only.
        turn: u32,
        /// Give up this long after arrival [ms].
        deadline_ms: u32,
        /// The whole history after the prefix; the longest common token prefix with the sequence is reused.
        messages: Vec<ChatMessage>,
        /// Most tokens to generate.
        max_tokens: u32,
        /// 0 = greedy.
        temperature: f32,
        /// Random seed when temperature > 0.
        seed: u32,
        /// Generation also ends before any of these texts.
        stop: Vec<String>,
        /// GBNF grammar for the whole message, if constrained.
        grammar: Option<String>,
        /// Also tell, by `Ending`, whether the last message sounds finished.
        #[serde(default)]
        score_ending: bool,
    },
    /// LLM: the call has ended; frees its sequence. No answer.
    Release {
        /// Names the sequence.
        call: u64,
    },

    /// TTS: speaks one clause. Answered by `Audio` (one or more) and `Done`.
    Speak {
        /// Request.
        id: RequestId,
        /// For logs only.
        call: u64,
        /// For logs only.
        turn: u32,
        /// Give up this long after arrival [ms].
        deadline_ms: u32,
        /// Text in spoken form (numbers, times and the like already written out).
        text: String,
        /// Speaking rate; 1.0 is the voice's own, 1.2 faster.
        speed: f32,
    },
}

/// Worker → daemon.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Response {
    /// The model is loaded and warm.
    Ready {
        /// [`PROTOCOL_VERSION`] of the worker.
        protocol: u32,
        /// Engine and version, e.g. `whisper.cpp 1.8.3`.
        engine: String,
        /// What the model says of itself, for people.
        model: String,
        /// Time to load and warm up [ms].
        load_ms: u32,
        /// Sequences (calls) the engine can hold at once; 1 for STT and TTS.
        sequences: u32,
    },
    /// Answer to `Ping`.
    Pong {
        /// As sent.
        nonce: u64,
    },
    /// Answer to `SetThreads`.
    ThreadsSet {
        /// Threads now in force.
        threads: u32,
    },
    /// STT result.
    Transcript {
        /// Request.
        id: RequestId,
        /// What was said; empty when nothing was.
        text: String,
        /// Mean log-probability of the tokens, ≤ 0; NaN-free (0 when there are none).
        avg_logprob: f32,
        /// Probability that this was no speech, 0…1.
        no_speech_prob: f32,
        /// Passes over the audio (1; more when the guard reran it with a wider context).
        passes: u32,
        /// Audio context of the accepted pass.
        audio_ctx: u32,
    },
    /// How likely the caller's last message ends where its last word ends; before the first `Token`.
    Ending {
        /// Request.
        id: RequestId,
        /// 0…1: a full stop, a question mark or the end of the message would come next.
        probability: f32,
    },
    /// LLM output piece, valid UTF-8, never empty.
    Token {
        /// Request.
        id: RequestId,
        /// Text piece.
        text: String,
    },
    /// TTS audio; PCM in the payload.
    Audio {
        /// Request.
        id: RequestId,
        /// 0, 1, 2…
        seq: u32,
    },
    /// The request ended well.
    Done {
        /// Request.
        id: RequestId,
        /// What it took.
        stats: Stats,
    },
    /// The request ended badly; the worker goes on.
    Failed {
        /// Request.
        id: RequestId,
        /// Which decision the daemon should take.
        kind: FailKind,
        /// For people; contains no caller data.
        message: String,
    },
    /// The request ended because of `Cancel`.
    Cancelled {
        /// Request.
        id: RequestId,
    },
}

impl Response {
    /// The request this answers, if it answers one.
    #[must_use]
    pub fn id(&self) -> Option<RequestId> {
        match self {
            Self::Ready { .. } | Self::Pong { .. } | Self::ThreadsSet { .. } => None,
            Self::Transcript { id, .. }
            | Self::Ending { id, .. }
            | Self::Token { id, .. }
            | Self::Audio { id, .. }
            | Self::Done { id, .. }
            | Self::Failed { id, .. }
            | Self::Cancelled { id } => Some(*id),
        }
    }
}

/// What a request took.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Stats {
    /// Waited in the worker before it began [ms].
    pub queued_ms: u32,
    /// Computed [ms].
    pub compute_ms: u32,
    /// LLM: prompt tokens decoded (not reused from the cache).
    pub prompt_tokens: u32,
    /// LLM: prompt tokens found in the cache.
    pub cached_tokens: u32,
    /// LLM: tokens generated.
    pub generated_tokens: u32,
    /// LLM: arrival to first token [ms].
    pub first_token_ms: u32,
    /// STT, TTS: length of the audio [ms].
    pub audio_ms: u32,
    /// Why generation ended: true when `max_tokens` cut it.
    pub truncated: bool,
}

/// Why a request failed, as a decision.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FailKind {
    /// Deadline passed: answer without it.
    Deadline,
    /// The request makes no sense (too long, bad grammar): do not retry.
    BadRequest,
    /// No free sequence or queue full: try later or elsewhere.
    Busy,
    /// The engine failed: one retry is worth it.
    Engine,
}

/// Writes one frame.
///
/// # Errors
/// The writer's own, or `InvalidInput` when header or payload exceed their bounds.
pub fn write_frame<T: Serialize>(w: &mut impl Write, header: &T, payload: &[u8]) -> io::Result<()> {
    w.write_all(&encode(header, payload)?)
}

/// Encodes one frame as bytes.
///
/// # Errors
/// `InvalidInput` when header or payload exceed their bounds.
pub fn encode<T: Serialize>(header: &T, payload: &[u8]) -> io::Result<Vec<u8>> {
    let json = serde_json::to_vec(header).map_err(io::Error::other)?;
    if json.len() > MAX_HEADER || payload.len() > MAX_PAYLOAD {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            format!(
                "frame too large: header {} B, payload {} B",
                json.len(),
                payload.len()
            ),
        ));
    }
    let mut out = Vec::with_capacity(8 + json.len() + payload.len());
    out.extend_from_slice(&(json.len() as u32).to_le_bytes());
    out.extend_from_slice(&(payload.len() as u32).to_le_bytes());
    out.extend_from_slice(&json);
    out.extend_from_slice(payload);
    Ok(out)
}

/// Sizes from a frame's first 8 bytes: (header, payload).
///
/// # Errors
/// `InvalidData` when they exceed their bounds.
pub fn decode_sizes(head: [u8; 8]) -> io::Result<(usize, usize)> {
    let [a, b, c, d, e, f, g, h] = head;
    let header = u32::from_le_bytes([a, b, c, d]) as usize;
    let payload = u32::from_le_bytes([e, f, g, h]) as usize;
    if header > MAX_HEADER || payload > MAX_PAYLOAD {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            format!("frame too large: header {header} B, payload {payload} B"),
        ));
    }
    Ok((header, payload))
}

/// Reads one frame; `None` at a clean end of stream.
///
/// # Errors
/// The reader's own; `InvalidData` for sizes out of bounds or a header that is not the expected JSON.
pub fn read_frame<T: DeserializeOwned>(r: &mut impl Read) -> io::Result<Option<(T, Vec<u8>)>> {
    let mut head = [0u8; 8];
    let mut got = 0;
    while got < head.len() {
        match r.read(&mut head[got..]) {
            Ok(0) if got == 0 => return Ok(None),
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(n) => got += n,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    let (header, payload) = decode_sizes(head)?;
    let mut json = vec![0; header];
    r.read_exact(&mut json)?;
    let mut pcm = vec![0; payload];
    r.read_exact(&mut pcm)?;
    let value = serde_json::from_slice(&json).map_err(|e| io::Error::new(io::ErrorKind::InvalidData, e))?;
    Ok(Some((value, pcm)))
}

/// PCM samples as payload bytes.
#[must_use]
pub fn pcm_to_bytes(samples: &[i16]) -> Vec<u8> {
    samples.iter().flat_map(|s| s.to_le_bytes()).collect()
}

/// Payload bytes as PCM samples; an odd last byte is dropped.
#[must_use]
pub fn bytes_to_pcm(bytes: &[u8]) -> Vec<i16> {
    bytes
        .as_chunks::<2>()
        .0
        .iter()
        .map(|b| i16::from_le_bytes(*b))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_round_trip_and_bounds_hold() {
        let mut wire = Vec::new();
        write_frame(&mut wire, &Request::Ping { nonce: 7 }, &[1, 2, 3]).unwrap();
        let (request, payload) = read_frame::<Request>(&mut wire.as_slice()).unwrap().unwrap();
        assert!(matches!(request, Request::Ping { nonce: 7 }));
        assert_eq!(payload, [1, 2, 3]);
        assert!(read_frame::<Request>(&mut [].as_slice()).unwrap().is_none());
        assert!(read_frame::<Request>(&mut &wire[..9]).is_err());
        assert!(decode_sizes([255; 8]).is_err());
    }

    #[test]
    fn pcm_round_trips() {
        let pcm = [0, 1, -1, i16::MAX, i16::MIN];
        assert_eq!(bytes_to_pcm(&pcm_to_bytes(&pcm)), pcm);
    }
}
