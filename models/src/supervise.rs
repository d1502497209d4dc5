//! Supervision of the engine workers: each is started, watched, and started again with a floor on the rate.
//!
//! ```text
//!            Ready           crash, hang, kill
//! Starting ────────> Ready ────────────────────> Crashed ──at once──> Starting   (first crash)
//!    │                                              └──floor──> Backoff ──> Starting   (crashes in a row)
//!    └── exit code 2 (bad model), not ready in time ──────────────^
//! ```
//!
//! Every start is a new generation with its own socket and its own table of requests ([`link`]). The shared prefix of
//! the LLM is remembered here and decoded by a new generation before it counts as ready. A worker is killed when it
//! does not get ready in time, does not answer pings, exceeds its memory limit, or does not end a cancelled request
//! while others wait: killing is the last form of cancel.
//!
//! Memory: what a box runs out of is resident memory, so the limit is on that, looked at with every ping; the kernel's
//! own limit on reserved memory stands behind it (see [`process`]).
//!
//! | Thread or task | Input | Output | When full |
//! |---|---|---|---|
//! | thread `sup-*` | spawn orders (1) | process, its exit | start fails, is tried again |
//! | task supervise | replies' end, ticks, stop | status | – |
//! | task write | frames (192) | socket | request refused as busy; cancel: worker killed |
//! | task read | socket | per-request channels | that request is cancelled |
//! | task stderr | lines | log | counted |

mod backoff;
pub(crate) mod link;
mod process;
mod status;
mod streams;

use std::process::ExitStatus;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::net::UnixStream;
use tokio::net::unix::pipe;
use tokio::sync::{Notify, mpsc, oneshot, watch};
use tokio::task::JoinSet;

use crate::protocol::{ChatMessage, PROTOCOL_VERSION, Request, RequestId};
use backoff::{Backoff, Ending};
use link::{Guard, Link, OUT_FRAMES, Pending};
use process::{Spawned, Spawner};
pub(crate) use status::initial_statuses;
pub use status::{Engine, EngineError, EngineState, EngineStatus, Statuses, WorkerSpec};
use streams::{Ready, log_lines, read, write};

/// How often a worker is looked at.
const TICK: Duration = Duration::from_millis(250);
/// How often it is pinged and its memory read.
const PING_EVERY: Duration = Duration::from_secs(2);
/// A ping unanswered for this long means it hangs. Workers answer while they compute.
const PING_BOUND: Duration = Duration::from_secs(5);
/// A cancelled request must end within this, if others wait: longer than the longest step without a look at cancels
/// (one Whisper pass with full context on one thread takes about 3 s).
const CANCEL_BOUND: Duration = Duration::from_secs(4);
/// Most time for decoding the shared prefix before a new LLM counts as ready, on a slow single core.
const PREFIX_BOUND: Duration = Duration::from_secs(120);
/// Replies already in the socket of a dead worker are read for this long.
const DRAIN: Duration = Duration::from_millis(200);
/// Time to end by itself at shutdown.
const FAREWELL: Duration = Duration::from_secs(1);
/// Exit code of a worker that can't use its model.
const EXIT_BAD_MODEL: i32 = 2;

/// Yields what is held while a new generation loads.
pub(crate) type Loading = Box<dyn Fn() -> Guard + Send + Sync>;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Taking {
    NoRequests,
    Requests,
}

/// Handle to one supervised worker, whichever generation is running.
pub(crate) struct Worker {
    engine: Engine,
    statuses: watch::Sender<Statuses>,
    /// The generation that runs, and whether it takes requests.
    link: Mutex<Option<(Arc<Link>, Taking)>>,
    /// Taken while a new generation loads and decodes its prefix, so that this counts as work.
    loading: Option<Loading>,
    next_id: AtomicU64,
    /// Requests that wait for this engine before they are sent.
    waiting: AtomicU32,
    /// LLM: the shared prefix and its version.
    prefix: Mutex<Prefix>,
    /// Told when a generation becomes ready or ends.
    changed: Arc<Notify>,
}

#[derive(Debug, Default, Clone)]
struct Prefix {
    version: u64,
    messages: Option<Vec<ChatMessage>>,
}

/// Starts supervising; must run inside a tokio runtime. Ends when `stop` turns true or its sender is dropped.
///
/// # Errors
/// `Start` when the system has no thread left.
pub(crate) fn spawn(
    engine: Engine,
    spec: WorkerSpec,
    statuses: watch::Sender<Statuses>,
    changed: Arc<Notify>,
    loading: Option<Loading>,
    stop: watch::Receiver<bool>,
) -> Result<Arc<Worker>, EngineError> {
    let spawner = Spawner::new(engine.name()).map_err(|source| EngineError::Start { engine, source })?;
    let worker = Arc::new(Worker {
        engine,
        statuses,
        link: Mutex::new(None),
        loading,
        next_id: AtomicU64::new(1),
        waiting: AtomicU32::new(0),
        prefix: Mutex::default(),
        changed,
    });
    tokio::spawn(run(Arc::clone(&worker), spec, spawner, stop));
    Ok(worker)
}

impl Worker {
    /// The generation that takes requests.
    ///
    /// # Errors
    /// `Down` when there is none.
    pub(crate) fn link(&self) -> Result<Arc<Link>, EngineError> {
        match &*locked(&self.link) {
            Some((link, Taking::Requests)) => return Ok(Arc::clone(link)),
            Some((_, Taking::NoRequests)) | None => {}
        }
        Err(self.down())
    }

    /// The generation that runs, even if it still loads.
    pub(crate) fn current(&self) -> Option<Arc<Link>> {
        locked(&self.link).as_ref().map(|(link, _)| Arc::clone(link))
    }

    /// Which engine it is.
    pub(crate) fn engine(&self) -> Engine {
        self.engine
    }

    pub(crate) fn next_id(&self) -> RequestId {
        self.next_id.fetch_add(1, Ordering::Relaxed)
    }

    /// Says how many requests wait for this engine without having been sent.
    pub(crate) fn set_waiting(&self, n: usize) {
        self.waiting
            .store(u32::try_from(n).unwrap_or(u32::MAX), Ordering::Relaxed);
    }

    /// Remembers the prefix; returns its version.
    pub(crate) fn remember_prefix(&self, messages: Vec<ChatMessage>) -> u64 {
        let mut prefix = locked(&self.prefix);
        prefix.version += 1;
        prefix.messages = Some(messages);
        prefix.version
    }

    pub(crate) fn prefix_version(&self) -> u64 {
        locked(&self.prefix).version
    }

    fn down(&self) -> EngineError {
        let status = &self.statuses.borrow()[self.engine.index()];
        let reason = match (status.state, &status.last_error) {
            (EngineState::Stopped, _) => "stopped".to_owned(),
            (EngineState::Starting, None) => "starting".to_owned(),
            (EngineState::Starting, Some(why)) => format!("starting again; {why}"),
            (_, Some(why)) => why.clone(),
            (_, None) => "not ready".to_owned(),
        };
        EngineError::Down {
            engine: self.engine,
            reason,
        }
    }

    fn update(&self, change: impl FnOnce(&mut EngineStatus)) {
        self.statuses
            .send_modify(|all| change(&mut all[self.engine.index()]));
    }
}

async fn run(worker: Arc<Worker>, spec: WorkerSpec, spawner: Spawner, mut stop: watch::Receiver<bool>) {
    let engine = worker.engine;
    let mut backoff = Backoff::default();
    for generation in 1.. {
        worker.update(|s| {
            s.state = EngineState::Starting;
            s.generation = generation;
            s.restarts = generation - 1;
            s.stale_replies = 0;
        });
        let started = Instant::now();
        let (ending, why) = match spawner.spawn(&spec, engine.nice()).await {
            Err(e) => (
                Ending::BadModel,
                format!("cannot start {}: {e}", spec.program.display()),
            ),
            Ok(spawned) => match live(&worker, &spec, generation, spawned, &mut stop).await {
                Exit::Stopped => break,
                Exit::BadModel(why) => (Ending::BadModel, why),
                Exit::Crash(why) => (
                    Ending::Crash {
                        lived: started.elapsed(),
                    },
                    why,
                ),
            },
        };
        let wait = backoff.on_end(ending);
        tracing::warn!(%engine, generation, wait_ms = wait.as_millis() as u64, "engine ended: {why}");
        worker.update(|s| {
            s.state = if wait.is_zero() {
                EngineState::Crashed
            } else {
                EngineState::Backoff
            };
            s.pid = None;
            s.resident_mb = 0;
            s.last_error = Some(why);
        });
        worker.changed.notify_one();
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            _ = stop.wait_for(|s| *s) => break,
        }
    }
    worker.update(|s| {
        s.state = EngineState::Stopped;
        s.pid = None;
    });
    worker.changed.notify_one();
}

/// How one generation ended.
enum Exit {
    Stopped,
    BadModel(String),
    Crash(String),
}

/// One generation, from spawn to death.
async fn live(
    worker: &Arc<Worker>,
    spec: &WorkerSpec,
    generation: u64,
    spawned: Spawned,
    stop: &mut watch::Receiver<bool>,
) -> Exit {
    let Spawned {
        process,
        socket,
        stderr,
        mut exit,
    } = spawned;
    let (out, frames) = mpsc::channel(OUT_FRAMES);
    let link = Arc::new(Link::new(worker.engine, generation, process, out));
    worker.update(|s| s.pid = Some(link.process.pid()));
    *locked(&worker.link) = Some((Arc::clone(&link), Taking::NoRequests));
    worker.changed.notify_one();
    let last_line = Arc::new(Mutex::new(String::new()));
    let mut tasks = JoinSet::new();
    let (ready_tx, ready_rx) = oneshot::channel();
    let halves = socket
        .set_nonblocking(true)
        .and_then(|()| UnixStream::from_std(socket));
    let pipe = pipe::Receiver::from_owned_fd(stderr.into());
    let (Ok(stream), Ok(pipe)) = (halves, pipe) else {
        return Exit::Crash("no file descriptors left".to_owned());
    };
    let (rx, tx) = stream.into_split();
    let reader = tokio::spawn(read(rx, Arc::clone(&link), ready_tx));
    tasks.spawn(write(tx, frames));
    let log = tokio::spawn(log_lines(worker.engine, pipe, Arc::clone(&last_line)));

    let mut watcher = Watcher::new(worker, spec, &link, ready_rx);
    let verdict = tokio::select! {
        status = &mut exit => Verdict::Ended(status.ok()),
        verdict = watcher.next() => verdict,
        _ = stop.wait_for(|s| *s) => Verdict::Stop,
    };
    drop(watcher);
    *locked(&worker.link) = None;
    if !matches!(verdict, Verdict::Stop) {
        // Before its requests are told: who tries again waits for a state that is ready.
        worker.update(|s| s.state = EngineState::Crashed);
    }
    let status = match &verdict {
        Verdict::Ended(status) => *status,
        Verdict::Hung(_) => {
            link.process.kill();
            ended_within(FAREWELL, exit).await
        }
        Verdict::Stop => {
            link.set_frozen(false);
            link.send(&Request::Shutdown);
            let status = ended_within(FAREWELL, exit).await;
            link.process.kill();
            status
        }
    };
    // What it still said before it died counts.
    drop(tokio::time::timeout(DRAIN, reader).await);
    drop(tokio::time::timeout(DRAIN, log).await);
    let exit = explain(verdict, status, locked(&last_line).clone());
    let reason = match &exit {
        Exit::Stopped => "stopped",
        Exit::BadModel(why) | Exit::Crash(why) => why,
    };
    link.end(reason);
    exit
}

async fn ended_within(bound: Duration, exit: oneshot::Receiver<ExitStatus>) -> Option<ExitStatus> {
    tokio::time::timeout(bound, exit).await.ok()?.ok()
}

/// Why one generation must end.
enum Verdict {
    Ended(Option<ExitStatus>),
    Hung(String),
    Stop,
}

fn explain(verdict: Verdict, status: Option<ExitStatus>, last_line: String) -> Exit {
    use std::os::unix::process::ExitStatusExt;
    let code = status.and_then(|s| s.code());
    match verdict {
        Verdict::Stop => Exit::Stopped,
        Verdict::Hung(why) => Exit::Crash(why),
        Verdict::Ended(_) if code == Some(EXIT_BAD_MODEL) => Exit::BadModel(last_line),
        Verdict::Ended(_) => {
            let how = match (code, status.and_then(|s| s.signal())) {
                (Some(code), _) => format!("ended with code {code}"),
                (None, Some(signal)) => format!("ended by signal {signal}"),
                (None, None) => "ended".to_owned(),
            };
            Exit::Crash(if last_line.is_empty() {
                how
            } else {
                format!("{how}; last said: {last_line}")
            })
        }
    }
}

/// Looks after one generation: readiness, prefix, health, memory, stuck cancels.
struct Watcher<'a> {
    worker: &'a Arc<Worker>,
    spec: &'a WorkerSpec,
    link: &'a Arc<Link>,
    phase: Phase,
    /// Held until it takes requests.
    loading: Option<Guard>,
    tick: tokio::time::Interval,
    nonce: u64,
    pinged: Instant,
    started: Instant,
}

enum Phase {
    Loading(oneshot::Receiver<Ready>),
    Prefix {
        pending: Pending,
        version: u64,
        since: Instant,
    },
    Ready,
}

impl<'a> Watcher<'a> {
    fn new(
        worker: &'a Arc<Worker>,
        spec: &'a WorkerSpec,
        link: &'a Arc<Link>,
        ready: oneshot::Receiver<Ready>,
    ) -> Self {
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let now = Instant::now();
        let loading = worker.loading.as_ref().map(|take| take());
        let phase = Phase::Loading(ready);
        Self {
            worker,
            spec,
            link,
            phase,
            loading,
            tick,
            nonce: 0,
            pinged: now,
            started: now,
        }
    }

    /// Runs until there is a verdict.
    async fn next(&mut self) -> Verdict {
        loop {
            let step = match &mut self.phase {
                Phase::Loading(ready) => tokio::select! {
                    said = ready => match said {
                        Ok(ready) => self.on_ready(ready),
                        // The socket closed; the exit follows.
                        Err(_) => { tokio::time::sleep(FAREWELL).await; Some("closed its socket".to_owned()) }
                    },
                    _ = self.tick.tick() => self.check(),
                },
                Phase::Prefix { pending, version, .. } => tokio::select! {
                    reply = pending.next() => { let version = *version; self.on_prefix(version, reply.map(drop)) }
                    _ = self.tick.tick() => self.check(),
                },
                Phase::Ready => {
                    self.tick.tick().await;
                    self.check()
                }
            };
            if let Some(why) = step {
                return Verdict::Hung(why);
            }
        }
    }

    fn on_ready(&mut self, ready: Ready) -> Option<String> {
        if ready.protocol != PROTOCOL_VERSION {
            return Some(format!(
                "speaks protocol {}, not {PROTOCOL_VERSION}: update both",
                ready.protocol
            ));
        }
        self.worker.update(|s| {
            s.version = ready.engine;
            s.model = ready.model;
            s.load_ms = ready.load_ms;
            s.sequences = ready.sequences;
        });
        self.begin_prefix();
        None
    }

    /// Sends the remembered prefix, or publishes the generation when there is none newer than `self` knows.
    fn begin_prefix(&mut self) {
        let worker = self.worker;
        let prefix = locked(&worker.prefix);
        let Some(messages) = prefix.messages.clone() else {
            return self.publish(prefix);
        };
        let id = self.worker.next_id();
        match self
            .link
            .begin(id, &Request::SetPrefix { id, messages }, &[], None, 4, None)
        {
            Ok(pending) => {
                self.phase = Phase::Prefix {
                    pending,
                    version: prefix.version,
                    since: Instant::now(),
                };
            }
            Err(e) => {
                self.worker
                    .update(|s| s.last_error = Some(format!("prefix: {e}")));
                self.publish(prefix);
            }
        }
    }

    fn on_prefix(&mut self, version: u64, outcome: Result<(), EngineError>) -> Option<String> {
        match outcome {
            Err(EngineError::Down { reason, .. }) => return Some(reason),
            // It works without, only slower: better than no reply.
            Err(e) => self
                .worker
                .update(|s| s.last_error = Some(format!("prefix: {e}"))),
            Ok(()) => {}
        }
        let worker = self.worker;
        let prefix = locked(&worker.prefix);
        if prefix.version == version {
            self.publish(prefix);
        } else {
            drop(prefix);
            self.begin_prefix();
        }
        None
    }

    /// From now on it takes requests. The prefix stays locked meanwhile, so that none is set in between.
    fn publish(&mut self, _prefix: MutexGuard<'_, Prefix>) {
        self.phase = Phase::Ready;
        self.loading = None;
        *locked(&self.worker.link) = Some((Arc::clone(self.link), Taking::Requests));
        self.worker.update(|s| s.state = EngineState::Ready);
        self.worker.changed.notify_one();
        tracing::info!(engine = %self.worker.engine, generation = self.link.generation, "engine ready");
    }

    /// Looks once; a text is the reason to kill.
    fn check(&mut self) -> Option<String> {
        let (running, thawed) = self.link.running_since();
        if !running {
            return None;
        }
        let awake = |since: Instant| thawed.map_or(since, |t| t.max(since)).elapsed();
        match &self.phase {
            Phase::Loading(_) if awake(self.started) > self.spec.ready_timeout => {
                return Some(format!(
                    "not ready within {} s",
                    self.spec.ready_timeout.as_secs()
                ));
            }
            Phase::Prefix { since, .. } if awake(*since) > PREFIX_BOUND => {
                return Some("shared prefix took too long".to_owned());
            }
            _ => {}
        }
        let others = self.worker.waiting.load(Ordering::Relaxed) > 0;
        if self.link.stuck(CANCEL_BOUND, others) {
            return Some("did not end a cancelled request".to_owned());
        }
        match &self.phase {
            Phase::Loading(_) => None,
            Phase::Prefix { .. } | Phase::Ready => self.ping(awake(self.pinged)),
        }
    }

    /// `waited`: since the last ping, without time frozen.
    fn ping(&mut self, waited: Duration) -> Option<String> {
        if self.link.last_pong() < self.nonce {
            return (waited > PING_BOUND).then(|| "does not answer".to_owned());
        }
        if self.nonce > 0 && self.pinged.elapsed() < PING_EVERY {
            return None;
        }
        self.nonce += 1;
        self.pinged = Instant::now();
        if !self.link.send(&Request::Ping { nonce: self.nonce }) {
            return Some("does not read requests".to_owned());
        }
        let resident = self.link.process.resident_mb().unwrap_or(0);
        let stale = self.link.stale();
        self.worker.statuses.send_if_modified(|all| {
            let s = &mut all[self.worker.engine.index()];
            let news = s.resident_mb != resident || s.stale_replies != stale;
            (s.resident_mb, s.stale_replies) = (resident, stale);
            news
        });
        let limit = self.spec.memory_limit_mb?;
        (resident > limit).then(|| format!("uses {resident} MB, more than its limit of {limit} MB"))
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
