//! `attendant-llm`: language model worker. Started by the daemon with its socket on descriptor 3.
//!
//! ```text
//! socket ──> thread `reader` ──(256 requests)──> main thread: engine ──> socket
//!                └── Pong, at once ────────────────────────────────────────^
//! ```
//!
//! Log lines go to stderr and carry no caller data.

mod cache;
mod chat;
mod ending;
mod engine;
mod llama;
mod pace;
mod sampler;
mod text;

use std::os::fd::FromRawFd;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, SyncSender, TryRecvError, TrySendError};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use attendant_models::protocol::{
    ChatMessage, FailKind, PROTOCOL_VERSION, Request, RequestId, Response, Role, Stats, WORKER_FD,
    read_frame, write_frame,
};
use clap::Parser;

use engine::{Engine, Outbox, batch_room};
use llama::{Batch, Llama, Shape};

/// Tells the supervisor that the model is to blame: starting again does not help.
const EXIT_BAD_MODEL: u8 = 2;
/// Requests read but not taken yet; the engine takes them after every step.
const INBOX: usize = 256;
/// Time for the step under way when the daemon has gone; then the process ends in the middle of it.
const FAREWELL: Duration = Duration::from_millis(400);

/// Language model worker of Attendant. The daemon starts it; `--check` tries a model by hand.
#[derive(Debug, Parser)]
#[command(version)]
struct Args {
    /// Model file (GGUF)
    #[arg(long)]
    model: PathBuf,
    /// Compute threads at the start; the daemon changes them as it hands out cores
    #[arg(long, default_value_t = 2)]
    threads: u32,
    /// Calls held in the cache at once
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=64))]
    sequences: u32,
    /// Tokens of all calls together, the shared prefix once
    #[arg(long, default_value_t = 4096, value_parser = clap::value_parser!(u32).range(256..=131_072))]
    context: u32,
    /// Load the model, answer one question, print `ok` with the speed, and end
    #[arg(long)]
    check: bool,
}

fn main() -> ExitCode {
    let filter = tracing_subscriber::EnvFilter::try_from_default_env()
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("warn,attendant_llm=info"));
    let subscriber = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(false)
        .without_time()
        .with_target(false)
        .finish();
    // Not `init`: it also takes `log` records, and tracing writes each of its events as one (`log-always`).
    drop(tracing::subscriber::set_global_default(subscriber));
    let args = Args::parse();
    let started = Instant::now();
    let (llama, model) = match load(&args) {
        Ok(loaded) => loaded,
        Err(e) => {
            eprintln!("ERROR {e:#}");
            return ExitCode::from(EXIT_BAD_MODEL);
        }
    };
    let outcome = if args.check {
        check(&args, llama, &model)
    } else {
        serve(&args, llama, model, millis(started))
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("ERROR {e:#}");
            ExitCode::FAILURE
        }
    }
}

/// Loads the model and runs it once, so that its pages are in memory.
fn load(args: &Args) -> anyhow::Result<(Llama, String)> {
    anyhow::ensure!(args.model.is_file(), "{}: no such file", args.model.display());
    llama::init();
    let shape = Shape {
        context: args.context,
        sequences: args.sequences + 1,
        batch: batch_room(args.sequences as usize),
        threads: args.threads.max(1).cast_signed(),
    };
    let mut llama = Llama::load(&args.model, shape)?;
    let model = llama.description();
    if llama.trained_context() < args.context {
        tracing::info!(
            "calls are limited by the model's context of {} tokens",
            llama.trained_context()
        );
    }
    let mut batch = Batch::new(16);
    for (pos, token) in llama
        .tokenize("Good morning, how can I help you today?", true)
        .into_iter()
        .enumerate()
    {
        batch.add(token, pos, 0, pos == 0);
    }
    llama.decode(&batch).context("the model loads but does not run")?;
    llama.forget(0, 0);
    tracing::debug!("{}", llama::system_info());
    Ok((llama, model))
}

fn serve(args: &Args, llama: Llama, model: String, load_ms: u32) -> anyhow::Result<()> {
    let socket =
        socket().context("no socket on descriptor 3: this program is started by `attendant serve`")?;
    let rx = socket.try_clone()?;
    let out = Wire(Arc::new(Mutex::new(socket)));
    let ready = Response::Ready {
        protocol: PROTOCOL_VERSION,
        engine: format!("llama.cpp, ggml {}", llama::version()),
        model,
        load_ms,
        sequences: args.sequences,
    };
    out.send(&ready);
    let (inbox, requests) = mpsc::sync_channel(INBOX);
    let reader = out.clone();
    thread::Builder::new()
        .name("reader".into())
        .spawn(move || read(rx, &reader, &inbox))?;
    run(engine(args, llama, out), &requests);
    Ok(())
}

fn engine<O: Outbox>(args: &Args, llama: Llama, out: O) -> Engine<O> {
    let most = llama.trained_context().min(args.context) as usize;
    Engine::new(llama, args.sequences as usize, most, args.threads, out)
}

/// Until the reader has gone.
fn run<O: Outbox>(mut engine: Engine<O>, requests: &Receiver<(Request, Instant)>) {
    loop {
        if !engine.has_work() {
            let wait = engine.next_deadline().map_or(Duration::from_secs(3600), |d| {
                d.saturating_duration_since(Instant::now())
            });
            match requests.recv_timeout(wait) {
                Ok((request, arrived)) => engine.handle(request, arrived),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
        }
        loop {
            match requests.try_recv() {
                Ok((request, arrived)) => engine.handle(request, arrived),
                Err(TryRecvError::Empty) => break,
                Err(TryRecvError::Disconnected) => return,
            }
        }
        engine.expire(Instant::now());
        if engine.has_work() {
            engine.step();
        }
    }
}

/// Reads requests until the daemon closes the socket or says `Shutdown`.
fn read(mut rx: UnixStream, out: &Wire, inbox: &SyncSender<(Request, Instant)>) {
    loop {
        match read_frame::<Request>(&mut rx) {
            Ok(Some((Request::Ping { nonce }, _))) => out.send(&Response::Pong { nonce }),
            Ok(Some((Request::Shutdown, _)) | None) => break,
            Ok(Some((request, _))) => match inbox.try_send((request, Instant::now())) {
                Ok(()) => {}
                Err(TrySendError::Full((request, arrived))) => refuse(request, arrived, out, inbox),
                Err(TrySendError::Disconnected(_)) => break,
            },
            Err(e) => {
                tracing::error!("request unreadable: {e}");
                break;
            }
        }
    }
    leave_soon();
}

/// The inbox is full: new work is refused, control waits.
fn refuse(request: Request, arrived: Instant, out: &Wire, inbox: &SyncSender<(Request, Instant)>) {
    match request {
        Request::SetPrefix { id, .. } | Request::Prefill { id, .. } | Request::Generate { id, .. } => {
            out.send(&Response::Failed {
                id,
                kind: FailKind::Busy,
                message: "too many requests".to_owned(),
            });
        }
        // A receiver that is gone means that the process ends.
        control => drop(inbox.send((control, arrived))),
    }
}

/// The engine sees its inbox close after the step under way; if that takes too long, the process ends now. Not
/// `exit`: that runs C++ destructors under the feet of computing threads.
#[allow(unsafe_code)]
fn leave_soon() {
    let spawned = thread::Builder::new().spawn(|| {
        thread::sleep(FAREWELL);
        // SAFETY: ends the process without running anything.
        unsafe { libc::_exit(0) }
    });
    drop(spawned);
}

#[allow(unsafe_code)]
fn socket() -> std::io::Result<UnixStream> {
    // SAFETY: descriptor 3 is ours by contract with the supervisor and nothing else here owns it; when it is closed or
    // no socket, the check below fails and the process ends.
    let socket = unsafe { UnixStream::from_raw_fd(WORKER_FD) };
    if let Err(e) = socket.peer_addr() {
        std::mem::forget(socket);
        return Err(e);
    }
    Ok(socket)
}

/// The socket, shared with the reader. A write error means that the daemon has gone: the reader sees it too.
#[derive(Clone)]
struct Wire(Arc<Mutex<UnixStream>>);

impl Outbox for Wire {
    fn send(&self, response: &Response) {
        let mut socket = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Err(e) = write_frame(&mut *socket, response, &[]) {
            tracing::debug!("reply not sent: {e}");
        }
    }
}

/// Keeps the outcome of `--check`.
#[derive(Clone, Default)]
struct Kept(Arc<Mutex<Outcome>>);

/// Text so far, and how it ended.
type Outcome = (String, Option<Result<Stats, String>>);

impl Outbox for Kept {
    fn send(&self, response: &Response) {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match response {
            Response::Token { text, .. } => kept.0.push_str(text),
            Response::Done { stats, .. } => kept.1 = Some(Ok(*stats)),
            Response::Failed { message, .. } => kept.1 = Some(Err(message.clone())),
            _ => {}
        }
    }
}

fn check(args: &Args, llama: Llama, model: &str) -> anyhow::Result<()> {
    const ID: RequestId = 1;
    let kept = Kept::default();
    let mut engine = engine(args, llama, kept.clone());
    let say = |role, content: &str| ChatMessage {
        role,
        content: content.to_owned(),
    };
    let request = Request::Generate {
        id: ID,
        call: 1,
        turn: 1,
        deadline_ms: 60_000,
        messages: vec![
            say(
                Role::System,
                "You answer the telephone of a bakery. It is open from 7 am to 6 pm. Be brief.",
            ),
            say(Role::User, "When do you open?"),
        ],
        max_tokens: 40,
        temperature: 0.0,
        seed: 0,
        stop: Vec::new(),
        grammar: None,
        score_ending: false,
    };
    engine.handle(request, Instant::now());
    while engine.has_work() {
        engine.expire(Instant::now());
        engine.step();
    }
    let (text, outcome) = std::mem::take(&mut *kept.0.lock().unwrap_or_else(PoisonError::into_inner));
    let stats = outcome.context("no answer")?.map_err(anyhow::Error::msg)?;
    anyhow::ensure!(!text.trim().is_empty(), "the model answers nothing");
    let generating = stats.compute_ms.saturating_sub(stats.first_token_ms).max(1);
    println!(
        "ok {model}; {} threads; first token after {} ms ({} prompt tokens), then {} tokens/s; {}",
        args.threads,
        stats.first_token_ms,
        stats.prompt_tokens,
        u64::from(stats.generated_tokens.saturating_sub(1)) * 1000 / u64::from(generating),
        llama::system_info().trim(),
    );
    Ok(())
}

fn millis(since: Instant) -> u32 {
    u32::try_from(since.elapsed().as_millis()).unwrap_or(u32::MAX)
}
