//! The engines, how each is to run, what can go wrong with them, and what is known of them.

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use tokio::sync::watch;

use crate::protocol::FailKind;

/// One of the three engines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Engine {
    /// Speech to text.
    Stt,
    /// Language model.
    Llm,
    /// Text to speech.
    Tts,
}

impl Engine {
    /// All, in the order of [`Engine::index`].
    pub const ALL: [Self; 3] = [Self::Stt, Self::Llm, Self::Tts];

    /// Position in arrays over engines.
    #[must_use]
    pub fn index(self) -> usize {
        match self {
            Self::Stt => 0,
            Self::Llm => 1,
            Self::Tts => 2,
        }
    }

    /// `stt`, `llm` or `tts`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Stt => "stt",
            Self::Llm => "llm",
            Self::Tts => "tts",
        }
    }

    /// The LLM computes long; the short tasks of the others go before it where they meet.
    pub(super) fn nice(self) -> i32 {
        match self {
            Self::Llm => 5,
            Self::Stt | Self::Tts => 0,
        }
    }
}

impl fmt::Display for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// How to start one worker.
#[derive(Debug, Clone)]
pub struct WorkerSpec {
    /// The executable.
    pub program: PathBuf,
    /// Its arguments.
    pub args: Vec<String>,
    /// Environment in addition to ours.
    pub env: Vec<(String, String)>,
    /// It is restarted when its resident memory exceeds this [MB].
    pub memory_limit_mb: Option<u64>,
    /// It is restarted when it takes longer than this to load.
    pub ready_timeout: Duration,
}

/// Why an engine did not deliver.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// Crashed or not ready: retry once it is back, or apologise.
    #[error("{engine} is down: {reason}")]
    Down {
        /// Which.
        engine: Engine,
        /// For people.
        reason: String,
    },
    /// Too late: go on without it.
    #[error("deadline passed")]
    Deadline,
    /// Too much to do already: try later or elsewhere.
    #[error("engine is busy")]
    Busy,
    /// The request makes no sense: do not retry.
    #[error("request refused: {0}")]
    BadRequest(String),
    /// The engine failed: one retry is worth it.
    #[error("engine failed: {0}")]
    Engine(String),
    /// Something newer took its place: forget it.
    #[error("superseded")]
    Stale,
    /// Supervision itself could not start: the program cannot run.
    #[error("cannot supervise {engine}")]
    Start {
        /// Which.
        engine: Engine,
        /// From the system.
        source: io::Error,
    },
}

impl EngineError {
    pub(super) fn of(kind: FailKind, message: String) -> Self {
        match kind {
            FailKind::Deadline => Self::Deadline,
            FailKind::Busy => Self::Busy,
            FailKind::BadRequest => Self::BadRequest(message),
            FailKind::Engine => Self::Engine(message),
        }
    }
}

/// Where a worker stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EngineState {
    /// Loads its model.
    Starting,
    /// Takes requests.
    Ready,
    /// Died; starts again at once.
    Crashed,
    /// Died; starts again after a wait.
    Backoff,
    /// Ended by [`crate::client::Engines::shutdown`].
    Stopped,
}

/// What is known of a worker.
#[derive(Debug, Clone)]
pub struct EngineStatus {
    /// Which.
    pub engine: Engine,
    /// Where it stands.
    pub state: EngineState,
    /// Counts starts, from 1.
    pub generation: u64,
    /// Starts after the first.
    pub restarts: u64,
    /// Its process, while there is one.
    pub pid: Option<u32>,
    /// Engine and version, as it says; empty before the first Ready.
    pub version: String,
    /// Model, as it says of itself.
    pub model: String,
    /// Time to load and warm up [ms].
    pub load_ms: u32,
    /// Calls it can hold at once.
    pub sequences: u32,
    /// Resident memory at the last look [MB].
    pub resident_mb: u64,
    /// Replies nobody waited for any more, in this generation.
    pub stale_replies: u64,
    /// Why it last ended, or what it complained of.
    pub last_error: Option<String>,
}

impl EngineStatus {
    pub(super) fn new(engine: Engine) -> Self {
        Self {
            engine,
            state: EngineState::Starting,
            generation: 0,
            restarts: 0,
            pid: None,
            version: String::new(),
            model: String::new(),
            load_ms: 0,
            sequences: 0,
            resident_mb: 0,
            stale_replies: 0,
            last_error: None,
        }
    }
}

/// Status of all engines, by [`Engine::index`].
pub type Statuses = [EngineStatus; 3];

/// Statuses before anything has started.
#[must_use]
pub(crate) fn initial_statuses() -> watch::Sender<Statuses> {
    watch::Sender::new(Engine::ALL.map(EngineStatus::new))
}
