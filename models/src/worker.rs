//! Skeleton of a worker that computes one request at a time (STT, TTS).
//!
//! ```text
//! socket --reader (calling thread)--> queue of 8, newest refused --engine thread--> socket
//!            | Ping       → Pong at once, also while the engine computes
//!            | Cancel     → out of the queue, or a flag which the engine reads
//!            | SetThreads → in force at once when idle, else at the engine's next checkpoint
//! ```
//!
//! An [`Engine`] calls [`Context::checkpoint`] between its passes or clauses and may hand [`Context::ticket`] to a
//! native library's abort callback. Protocol: [`crate::protocol`].

use std::collections::VecDeque;
use std::io::{self, BufReader};
use std::os::fd::FromRawFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use crate::protocol::{FailKind, Request, RequestId, Response, Stats, WORKER_FD, read_frame, write_frame};

/// Requests that wait while one is computed; the next one is refused as busy. One per call that four calls can have,
/// twice over.
pub const QUEUE: usize = 8;
/// Exit code for a model (or runtime) file that cannot be used: restarting does not help.
pub const EXIT_BAD_MODEL: u8 = 2;
/// Exit code when the connection broke its protocol.
pub const EXIT_PROTOCOL: u8 = 3;
/// Exit code when the engine panicked.
const EXIT_PANIC: u8 = 70;
/// Exit code when it was started by hand (as `EX_USAGE` of sysexits.h).
pub const EXIT_USAGE: u8 = 64;

/// Why a worker's connection ended other than by `Shutdown` or a closed socket.
#[derive(Debug, thiserror::Error)]
pub enum WorkerError {
    /// Started by hand, not by the daemon.
    #[error("no socket on descriptor {WORKER_FD}: this program is started by `attendant serve`; try --check")]
    NoSocket,
    /// What came is not the protocol, or the socket failed; the supervisor starts a new worker.
    #[error("connection broken: {0}")]
    Broken(#[from] io::Error),
}

/// Why a request must end early.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stop {
    /// The daemon sent `Cancel`.
    Cancelled,
    /// Its deadline has passed.
    Deadline,
}

/// How a request ended badly.
#[derive(Debug, thiserror::Error)]
pub enum JobError {
    /// Cancelled or too late.
    #[error("stopped: {0:?}")]
    Stopped(Stop),
    /// The request makes no sense: do not retry.
    #[error("{0}")]
    BadRequest(String),
    /// The engine failed: one retry is worth it. Holds no caller data.
    #[error("{0}")]
    Engine(String),
    /// The socket is gone; the reader ends the process.
    #[error("cannot send: {0}")]
    Send(#[from] io::Error),
}

impl From<Stop> for JobError {
    fn from(stop: Stop) -> Self {
        Self::Stopped(stop)
    }
}

/// Whether a request may go on; readable from any thread, and from a native library's abort callback.
#[derive(Debug)]
pub struct Ticket {
    cancelled: AtomicBool,
    deadline: Instant,
}

impl Ticket {
    /// A ticket that ends at `deadline`.
    #[must_use]
    pub fn new(deadline: Instant) -> Self {
        Self {
            cancelled: AtomicBool::new(false),
            deadline,
        }
    }

    /// Why the request must end, if it must.
    #[must_use]
    pub fn stop(&self) -> Option<Stop> {
        if self.cancelled.load(Relaxed) {
            Some(Stop::Cancelled)
        } else if Instant::now() >= self.deadline {
            Some(Stop::Deadline)
        } else {
            None
        }
    }
}

/// A request with its payload.
#[derive(Debug)]
pub struct Job {
    /// Request.
    pub id: RequestId,
    /// What is asked.
    pub request: Request,
    /// PCM, or empty.
    pub payload: Vec<u8>,
    arrived: Instant,
    ticket: Arc<Ticket>,
}

/// Computes requests one after the other, on a thread of its own.
pub trait Engine: Send + 'static {
    /// Answers `job` through [`Context::send`], except for its last frame, which follows from the result.
    /// `queued_ms` and `compute_ms` of the stats are filled in by the skeleton.
    ///
    /// # Errors
    /// [`JobError`]; the worker goes on.
    fn run(&mut self, job: &Job, context: &Context<'_>) -> Result<Stats, JobError>;
}

/// What an engine may ask and do while it computes.
pub struct Context<'a> {
    shared: &'a Shared,
    ticket: &'a Ticket,
}

impl Context<'_> {
    /// Threads to compute with from here on. Brings a pending `SetThreads` into force; waits while it says 0.
    ///
    /// # Errors
    /// [`Stop`] when the request must end.
    pub fn checkpoint(&self) -> Result<u32, Stop> {
        let mut state = self.shared.lock();
        loop {
            self.shared.acknowledge_threads(&mut state);
            if let Some(stop) = self.ticket.stop() {
                return Err(stop);
            }
            if state.threads > 0 {
                return Ok(state.threads);
            }
            let left = self.ticket.deadline.saturating_duration_since(Instant::now());
            state = self
                .shared
                .changed
                .wait_timeout(state, left)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
    }

    /// The request's ticket, for abort callbacks.
    #[must_use]
    pub fn ticket(&self) -> &Ticket {
        self.ticket
    }

    /// Sends one frame of the answer.
    ///
    /// # Errors
    /// The socket's.
    pub fn send(&self, response: &Response, payload: &[u8]) -> io::Result<()> {
        self.shared.send(response, payload)
    }
}

struct State {
    queue: VecDeque<Job>,
    running: Option<(RequestId, Arc<Ticket>)>,
    /// In force or about to be; an engine reads it at checkpoints only.
    threads: u32,
    /// `SetThreads` that came while the engine computed, in order.
    unacknowledged: Vec<u32>,
    closing: bool,
}

struct Shared {
    state: Mutex<State>,
    changed: Condvar,
    writer: Mutex<UnixStream>,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn send(&self, response: &Response, payload: &[u8]) -> io::Result<()> {
        let mut writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        write_frame(&mut *writer, response, payload)
    }

    /// A socket that fails here also ends the reader, so the error is not looked at.
    fn acknowledge_threads(&self, state: &mut State) {
        for threads in state.unacknowledged.drain(..) {
            let _ = self.send(&Response::ThreadsSet { threads }, &[]);
        }
    }
}

/// The socket that the supervisor left on descriptor 3.
///
/// # Errors
/// [`WorkerError::NoSocket`] when there is none.
pub fn socket() -> Result<UnixStream, WorkerError> {
    let mut stat = std::mem::MaybeUninit::<libc::stat>::uninit();
    #[allow(unsafe_code)]
    // SAFETY: `fstat` writes `stat` or fails; it is read only when it succeeded. The descriptor is a socket that
    // nobody else in this process knows, so taking it over is sound; this is called once, by `main`.
    unsafe {
        if libc::fstat(WORKER_FD, stat.as_mut_ptr()) != 0
            || stat.assume_init().st_mode & libc::S_IFMT != libc::S_IFSOCK
        {
            return Err(WorkerError::NoSocket);
        }
        libc::fcntl(WORKER_FD, libc::F_SETFD, libc::FD_CLOEXEC);
        Ok(UnixStream::from_raw_fd(WORKER_FD))
    }
}

/// Ends the process at once, without the exit handlers of native libraries whose threads may still compute.
pub fn exit_now(code: u8) -> ! {
    #[allow(unsafe_code)]
    // SAFETY: `_exit` has no preconditions.
    unsafe {
        libc::_exit(i32::from(code))
    }
}

/// Starts this program again, in the same process, with an environment variable that native libraries read before
/// `main`. Does nothing when the variable is set. If it cannot, the program goes on without.
pub fn restart_with_env(name: &str, value: &str) {
    if std::env::var_os(name).is_some() {
        return;
    }
    let Ok(program) = std::env::current_exe() else {
        return;
    };
    let mut args = std::env::args_os();
    let mut command = Command::new(program);
    if let Some(arg0) = args.next() {
        command.arg0(arg0);
    }
    let error = command.args(args).env(name, value).exec();
    tracing::warn!("cannot restart with {name}={value}: {error}");
}

/// Sends `ready`, then answers requests until `Shutdown` or the end of the socket. Afterwards the engine's thread may
/// still compute: leave by [`exit_now`].
///
/// # Errors
/// [`WorkerError::Broken`] when the connection fails or breaks the protocol.
pub fn serve(
    socket: UnixStream,
    ready: &Response,
    threads: u32,
    mut engine: impl Engine,
) -> Result<(), WorkerError> {
    let shared = Arc::new(Shared {
        state: Mutex::new(State {
            queue: VecDeque::with_capacity(QUEUE),
            running: None,
            threads,
            unacknowledged: Vec::new(),
            closing: false,
        }),
        changed: Condvar::new(),
        writer: Mutex::new(socket.try_clone()?),
    });
    shared.send(ready, &[])?;
    let for_engine = Arc::clone(&shared);
    thread::Builder::new().name("engine".into()).spawn(move || {
        // A panic may leave the native engine in any state: the supervisor starts a new process.
        if catch_unwind(AssertUnwindSafe(|| compute(&for_engine, &mut engine))).is_err() {
            exit_now(EXIT_PANIC);
        }
    })?;
    let result = read(&shared, &mut BufReader::new(socket));
    let mut state = shared.lock();
    state.closing = true;
    state.queue.clear();
    if let Some((_, ticket)) = &state.running {
        ticket.cancelled.store(true, Relaxed);
    }
    drop(state);
    shared.changed.notify_all();
    result.map_err(WorkerError::from)
}

/// The reader: everything that must be answered while the engine computes.
fn read(shared: &Shared, socket: &mut BufReader<UnixStream>) -> io::Result<()> {
    while let Some((request, payload)) = read_frame::<Request>(socket)? {
        match request {
            Request::Ping { nonce } => shared.send(&Response::Pong { nonce }, &[])?,
            Request::Cancel { id } => cancel(shared, id)?,
            Request::SetThreads { threads } => set_threads(shared, threads),
            Request::Shutdown => return Ok(()),
            Request::Release { .. } => {}
            Request::Transcribe { id, deadline_ms, .. }
            | Request::Generate { id, deadline_ms, .. }
            | Request::Speak { id, deadline_ms, .. } => enqueue(shared, id, deadline_ms, request, payload)?,
            Request::SetPrefix { id, .. } | Request::Prefill { id, .. } => {
                let message = "this worker has no prompt".to_owned();
                shared.send(
                    &Response::Failed {
                        id,
                        kind: FailKind::BadRequest,
                        message,
                    },
                    &[],
                )?;
            }
        }
    }
    Ok(())
}

fn enqueue(
    shared: &Shared,
    id: RequestId,
    deadline_ms: u32,
    request: Request,
    payload: Vec<u8>,
) -> io::Result<()> {
    let arrived = Instant::now();
    let ticket = Arc::new(Ticket::new(
        arrived + Duration::from_millis(u64::from(deadline_ms)),
    ));
    let mut state = shared.lock();
    if state.queue.len() >= QUEUE {
        drop(state);
        let message = format!("{QUEUE} requests are waiting");
        return shared.send(
            &Response::Failed {
                id,
                kind: FailKind::Busy,
                message,
            },
            &[],
        );
    }
    state.queue.push_back(Job {
        id,
        request,
        payload,
        arrived,
        ticket,
    });
    drop(state);
    shared.changed.notify_all();
    Ok(())
}

fn cancel(shared: &Shared, id: RequestId) -> io::Result<()> {
    let mut state = shared.lock();
    if let Some(at) = state.queue.iter().position(|job| job.id == id) {
        state.queue.remove(at);
        drop(state);
        return shared.send(&Response::Cancelled { id }, &[]);
    }
    if let Some((running, ticket)) = &state.running
        && *running == id
    {
        ticket.cancelled.store(true, Relaxed);
        drop(state);
        shared.changed.notify_all();
    }
    Ok(())
}

fn set_threads(shared: &Shared, threads: u32) {
    let mut state = shared.lock();
    state.threads = threads;
    state.unacknowledged.push(threads);
    if state.running.is_none() {
        shared.acknowledge_threads(&mut state);
    }
    drop(state);
    // An engine that waits at 0 threads looks again.
    shared.changed.notify_all();
}

/// The engine's thread.
fn compute(shared: &Shared, engine: &mut impl Engine) {
    loop {
        let mut state = shared.lock();
        let job = loop {
            if state.closing {
                return;
            }
            match state.queue.pop_front() {
                Some(job) => break job,
                None => state = shared.changed.wait(state).unwrap_or_else(PoisonError::into_inner),
            }
        };
        state.running = Some((job.id, Arc::clone(&job.ticket)));
        drop(state);

        let begun = Instant::now();
        let context = Context {
            shared,
            ticket: &job.ticket,
        };
        let result = match job.ticket.stop() {
            Some(stop) => Err(JobError::Stopped(stop)),
            None => engine.run(&job, &context),
        };
        let last = last_frame(&job, begun, result);

        let mut state = shared.lock();
        state.running = None;
        shared.acknowledge_threads(&mut state);
        drop(state);
        if shared.send(&last, &[]).is_err() {
            return;
        }
    }
}

fn last_frame(job: &Job, begun: Instant, result: Result<Stats, JobError>) -> Response {
    let id = job.id;
    match result {
        Ok(stats) => Response::Done {
            id,
            stats: Stats {
                queued_ms: millis(begun.duration_since(job.arrived)),
                compute_ms: millis(begun.elapsed()),
                ..stats
            },
        },
        Err(JobError::Stopped(Stop::Cancelled)) => Response::Cancelled { id },
        Err(JobError::Stopped(Stop::Deadline)) => Response::Failed {
            id,
            kind: FailKind::Deadline,
            message: "deadline passed".into(),
        },
        Err(JobError::BadRequest(message)) => Response::Failed {
            id,
            kind: FailKind::BadRequest,
            message,
        },
        Err(error @ (JobError::Engine(_) | JobError::Send(_))) => {
            tracing::warn!("request {id} failed: {error}");
            Response::Failed {
                id,
                kind: FailKind::Engine,
                message: error.to_string(),
            }
        }
    }
}

/// Whole milliseconds, at most what fits.
#[must_use]
pub fn millis(duration: Duration) -> u32 {
    u32::try_from(duration.as_millis()).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::sync::mpsc;

    /// Reports each checkpoint and computes until it is told to stop, or for as many rounds as the call number says.
    struct Counter {
        begun: mpsc::Sender<RequestId>,
        go: mpsc::Receiver<()>,
    }

    impl Engine for Counter {
        fn run(&mut self, job: &Job, context: &Context<'_>) -> Result<Stats, JobError> {
            self.begun.send(job.id).unwrap();
            context.checkpoint()?;
            loop {
                match self.go.recv_timeout(Duration::from_millis(1)) {
                    Ok(()) => break,
                    Err(mpsc::RecvTimeoutError::Timeout) => {
                        if let Some(stop) = context.ticket().stop() {
                            return Err(stop.into());
                        }
                    }
                    Err(mpsc::RecvTimeoutError::Disconnected) => return Err(JobError::Engine("gone".into())),
                }
            }
            let threads = context.checkpoint()?;
            Ok(Stats {
                audio_ms: threads,
                ..Stats::default()
            })
        }
    }

    struct Fixture {
        socket: UnixStream,
        begun: mpsc::Receiver<RequestId>,
        go: mpsc::Sender<()>,
        worker: thread::JoinHandle<Result<(), WorkerError>>,
    }

    impl Fixture {
        fn new() -> Self {
            let (socket, theirs) = UnixStream::pair().unwrap();
            socket.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
            let (begun_tx, begun) = mpsc::channel();
            let (go, go_rx) = mpsc::channel();
            let ready = Response::Ready {
                protocol: crate::protocol::PROTOCOL_VERSION,
                engine: "counter".into(),
                model: String::new(),
                load_ms: 0,
                sequences: 1,
            };
            let worker = thread::spawn(move || {
                serve(
                    theirs,
                    &ready,
                    2,
                    Counter {
                        begun: begun_tx,
                        go: go_rx,
                    },
                )
            });
            let fixture = Self {
                socket,
                begun,
                go,
                worker,
            };
            assert!(matches!(fixture.answer(), Response::Ready { .. }));
            fixture
        }

        fn ask(&self, request: &Request) {
            write_frame(&mut &self.socket, request, &[]).unwrap();
        }

        fn speak(&self, id: RequestId, deadline_ms: u32) {
            self.ask(&Request::Speak {
                id,
                call: 1,
                turn: 1,
                deadline_ms,
                text: String::new(),
                speed: 1.0,
            });
        }

        fn begun(&self) -> RequestId {
            self.begun.recv_timeout(Duration::from_secs(10)).unwrap()
        }

        fn answer(&self) -> Response {
            read_frame::<Response>(&mut &self.socket).unwrap().unwrap().0
        }
    }

    #[test]
    fn answers_pings_and_cancels_while_it_computes() {
        let f = Fixture::new();
        f.speak(1, 60_000);
        assert_eq!(f.begun(), 1);
        f.ask(&Request::Ping { nonce: 9 });
        assert!(matches!(f.answer(), Response::Pong { nonce: 9 }));
        f.speak(2, 60_000);
        f.ask(&Request::Cancel { id: 2 });
        assert!(matches!(f.answer(), Response::Cancelled { id: 2 }), "queued");
        f.ask(&Request::Cancel { id: 77 });
        f.ask(&Request::Cancel { id: 1 });
        assert!(matches!(f.answer(), Response::Cancelled { id: 1 }), "running");
    }

    #[test]
    fn refuses_what_does_not_fit() {
        let f = Fixture::new();
        f.speak(0, 60_000);
        f.begun();
        for id in 1..=QUEUE as u64 + 1 {
            f.speak(id, 60_000);
        }
        let Response::Failed { id, kind, .. } = f.answer() else {
            panic!()
        };
        assert_eq!((id, kind), (QUEUE as u64 + 1, FailKind::Busy));
        f.ask(&Request::Prefill {
            id: 50,
            call: 1,
            messages: vec![],
        });
        assert!(matches!(
            f.answer(),
            Response::Failed {
                id: 50,
                kind: FailKind::BadRequest,
                ..
            }
        ));
    }

    #[test]
    fn keeps_deadlines() {
        let f = Fixture::new();
        f.speak(1, 30);
        f.speak(2, 0);
        assert!(matches!(
            f.answer(),
            Response::Failed {
                id: 1,
                kind: FailKind::Deadline,
                ..
            }
        ));
        assert!(matches!(
            f.answer(),
            Response::Failed {
                id: 2,
                kind: FailKind::Deadline,
                ..
            }
        ));
    }

    #[test]
    fn sets_threads_at_once_when_idle_and_at_a_checkpoint_otherwise() {
        let f = Fixture::new();
        f.ask(&Request::SetThreads { threads: 3 });
        assert!(matches!(f.answer(), Response::ThreadsSet { threads: 3 }));
        f.speak(1, 60_000);
        f.begun();
        f.ask(&Request::SetThreads { threads: 0 });
        f.ask(&Request::Ping { nonce: 1 });
        // The first checkpoint may still be ahead when SetThreads arrives; both orders are right.
        let first = f.answer();
        f.go.send(()).unwrap();
        let second = f.answer();
        for answer in [first, second] {
            assert!(matches!(
                answer,
                Response::ThreadsSet { threads: 0 } | Response::Pong { nonce: 1 }
            ));
        }
        f.ask(&Request::SetThreads { threads: 1 });
        assert!(matches!(f.answer(), Response::ThreadsSet { threads: 1 }));
        let Response::Done { stats, .. } = f.answer() else {
            panic!()
        };
        assert_eq!(stats.audio_ms, 1, "threads at the last checkpoint");
    }

    #[test]
    fn a_pause_ends_with_a_cancel() {
        let f = Fixture::new();
        f.ask(&Request::SetThreads { threads: 0 });
        assert!(matches!(f.answer(), Response::ThreadsSet { threads: 0 }));
        f.speak(1, 60_000);
        f.begun();
        f.ask(&Request::Cancel { id: 1 });
        assert!(matches!(f.answer(), Response::Cancelled { id: 1 }));
    }

    #[test]
    fn ends_with_its_socket() {
        let f = Fixture::new();
        f.speak(1, 60_000);
        f.begun();
        drop(f.socket);
        assert!(f.worker.join().unwrap().is_ok());

        let f = Fixture::new();
        f.ask(&Request::Shutdown);
        assert!(f.worker.join().unwrap().is_ok());

        let mut f = Fixture::new();
        f.socket.write_all(&[255; 64]).unwrap();
        assert!(matches!(f.worker.join().unwrap(), Err(WorkerError::Broken(_))));
    }
}
