//! The daemon: starts the house, answers calls, ends politely.
//!
//! ```text
//!  record ─> engines ─> phrase book ─> rt-audio ─> SIP ─> READY
//!                                                   │
//!                        Incoming: admission ──> session ──> answer ──> Call (task)
//! ```
//!
//! Tasks and threads:
//!
//! | Name | Priority | In | Out |
//! |---|---|---|---|
//! | `rt-audio` | SCHED_FIFO 20 where allowed | sockets, leg rings (256 frames) | sockets, leg rings |
//! | tokio workers | normal | SIP, engines, admin | bounded channels |
//! | recorder, one per call | normal, blocking | channel (256) | SQLite |
//! | `recording`, one per recorded call | normal | channel (250 frames) | encrypted FLAC file |
//! | care | normal, blocking | timer | checkpoints, retention, backups |
//! | after call, one job at a time | normal; thread `after-call`: nice 19 | queue in the record | transcripts, summaries, redaction |
//! | engines | own processes, nice 5 | socket | socket |

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use attendant_dialog::Rules;
use attendant_models::{
    client::{EngineConfig, Engines, WorkerSpec},
    files::{ModelStore, Resolved},
    protocol::{ChatMessage, Role},
};
use attendant_rt::{Rt, RtConfig};
use attendant_sip::{IncomingCall, Sip, SipEvent};
use attendant_store::{Direction, Driver, NewSession, Store};
use tokio::sync::{mpsc, watch};

use crate::{
    admin, after_call,
    audit::Notes,
    call::{Call, House, PromptInForce, left_out, leg},
    care, clock,
    config::{self, Config, SipTransport},
    desk::{self, Desk},
    fallback::Cause,
    lines::{self, Line},
    metrics::Metrics,
    notify,
    phrases::PhraseBook,
    recording, session,
    switchboard::Switchboard,
};

/// Longest the engines may take to load their models.
const ENGINES_READY: Duration = Duration::from_secs(180);
/// Longest a stopping daemon waits for its calls.
const DRAIN: Duration = Duration::from_secs(8);

/// Dialogs beyond the lines, for refusals by `[fallback]`.
const SPARE_DIALOGS: usize = 8;
/// How often a box that is out of service tries to come back; and how often it looks whether it can, while it takes a
/// message.
const RETURN: Duration = Duration::from_secs(60);
const RETURN_WHEN_IDLE: Duration = Duration::from_secs(2);

/// Why the daemon cannot start; each says what to do.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// Models missing or broken.
    #[error(transparent)]
    Models(#[from] attendant_models::error::ModelError),
    /// A worker program is missing.
    #[error(
        "the engine program {0} is missing: build it with `make build`, or set ATTENDANT_BIN_DIR to where it is"
    )]
    Program(PathBuf),
    /// An engine did not start.
    #[error("the engines did not get ready: {0}")]
    Engines(#[from] attendant_models::client::EngineError),
    /// The phrase book.
    #[error(transparent)]
    Phrases(#[from] crate::phrases::PhraseError),
    /// The record.
    #[error("the record cannot be opened: {0}")]
    Store(#[from] attendant_store::StoreError),
    /// Port in use, address not ours.
    #[error(transparent)]
    Sip(#[from] attendant_sip::SipError),
    /// A peer's address is none.
    #[error("[[sip.peer]] '{name}': {error}")]
    Peer {
        /// Its name.
        name: String,
        /// What would be accepted.
        error: attendant_sip::SipError,
    },
    /// The audio thread.
    #[error("the audio thread cannot start: {0}")]
    Rt(#[from] attendant_rt::RtError),
    /// The local pages.
    #[error("the admin page cannot listen on {address}: {source}; set [admin] listen to a free address")]
    Admin {
        /// Where.
        address: SocketAddr,
        /// Why.
        source: std::io::Error,
    },
    /// System refused.
    #[error("the system refused: {0}")]
    Io(#[from] std::io::Error),
}

/// The running daemon, as the admin page sees it.
#[derive(Clone)]
pub struct Running {
    /// What the calls share.
    pub house: House,
    /// Audio thread figures.
    pub rt: Arc<Rt>,
    /// How the registrations stand.
    pub lines: watch::Receiver<Vec<Line>>,
    /// Profile and models in use.
    pub models: Arc<Resolved>,
    /// Profile in use.
    pub profile: String,
    /// What the daemon notes about itself.
    notes: Notes,
    /// Those who cannot be served.
    desk: Arc<Desk>,
    /// SIP as configured.
    sip: Arc<attendant_sip::SipConfig>,
}

impl ServeError {
    /// It is about what the box speaks with, not about how it is connected: calls can still be refused politely.
    fn is_out_of_service(&self) -> bool {
        match self {
            ServeError::Models(_)
            | ServeError::Program(_)
            | ServeError::Engines(_)
            | ServeError::Phrases(_)
            | ServeError::Store(_) => true,
            ServeError::Sip(_)
            | ServeError::Peer { .. }
            | ServeError::Rt(_)
            | ServeError::Admin { .. }
            | ServeError::Io(_) => false,
        }
    }
}

/// Runs until told to stop. With a `[fallback]` action, a box without models or engines refuses its calls accordingly and
/// tries to come back.
///
/// # Errors
/// [`ServeError`] when the start fails.
pub async fn serve(config: Config) -> Result<(), ServeError> {
    loop {
        match run(config.clone()).await {
            Err(error) if error.is_out_of_service() && config.fallback.action.is_some() => {
                tracing::error!(%error, "out of service: calls are refused as [fallback] says");
                eprintln!("out of service: {error}");
                if out_of_service(&config).await? == Stopped::ByUser {
                    return Ok(());
                }
            }
            result => return result,
        }
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Stopped {
    ByUser,
    ToTryAgain,
}

/// Refuses calls until it is time to try again.
async fn out_of_service(config: &Config) -> Result<Stopped, ServeError> {
    let sip_config = Arc::new(sip_config(config)?);
    let (sip, mut events) = attendant_sip::start(sip_config.as_ref().clone()).await?;
    // What there is of the house. Without a record no messages are taken, without audio nothing is answered.
    let store = Store::open(&config.data_dir(), clock::unix_ms());
    let store = store
        .inspect_err(|error| tracing::error!(%error, "no record"))
        .ok();
    let rt = Rt::spawn(RtConfig::default()).map(Arc::new).ok();
    let desk = Arc::new(Desk::new(Arc::new(config.clone()), sip_config, rt, store));
    println!("out-of-service sip:attendant@{}", dial_address(&sip));
    notify::ready("out of service: calls are refused; see `attendant doctor`");
    let stop = stop_signal();
    let again = tokio::time::sleep(RETURN);
    tokio::pin!(stop, again);
    let (drain, drained) = watch::channel(false);
    let mut number = 0;
    let stopped = loop {
        tokio::select! {
            () = &mut stop => break Stopped::ByUser,
            () = &mut again => {
                if desk.is_idle() {
                    break Stopped::ToTryAgain;
                }
                again.set(tokio::time::sleep(RETURN_WHEN_IDLE));
            }
            event = events.recv() => match event {
                Some(SipEvent::Incoming(incoming)) => {
                    number += 1;
                    let (desk, drained, number) = (desk.clone(), drained.clone(), number);
                    tokio::spawn(async move {
                        desk.turn_away(number, incoming, Cause::OutOfService, drained).await;
                    });
                }
                Some(SipEvent::Registration { .. }) => {}
                None => break Stopped::ToTryAgain,
            },
        }
    };
    // A message that is being left is kept as far as it came.
    let _ = drain.send(true);
    let until = tokio::time::Instant::now() + DRAIN;
    // Whoever still holds the desk holds the record, which the next start opens.
    while Arc::strong_count(&desk) > 1 && tokio::time::Instant::now() < until {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    sip.shutdown().await;
    Ok(stopped)
}

async fn run(mut config: Config) -> Result<(), ServeError> {
    let data_dir = config.data_dir();
    let store = Store::open(&data_dir, clock::unix_ms())?;
    if store.octets() <= care::CHECK_BEFORE_CALLS {
        store.check_integrity()?;
    }
    let interrupted = store.recover(clock::unix_ms())?;
    if interrupted > 0 {
        tracing::warn!(
            sessions = interrupted,
            "sessions that a stop had cut off were ended as terminated"
        );
    }
    let repaired = recording::recover(&store)?;
    if repaired > 0 {
        tracing::warn!(
            recordings = repaired,
            "recordings that a stop had cut off were repaired and sealed"
        );
    }
    if let Some(most_mb) = config.storage.max_database_mb {
        store.bound_size(most_mb)?;
    }
    let notes = Notes::new(store.clone());
    notes.started(&config)?;
    let models = Arc::new(ModelStore::open(attendant_models::default_dir())?.resolve(config.profile())?);
    let engines = start_engines(&config, &models)?;
    notify::status("loading models");
    let rules = screen(&mut config, &store)?;
    let prompt = attendant_dialog::system_prompt(&config.business);
    // Not ready yet: the worker takes it over before it says that it is.
    let _ = engines
        .set_prefix(vec![ChatMessage {
            role: Role::System,
            content: prompt.text.clone(),
        }])
        .await;
    engines.ready(ENGINES_READY).await?;
    notify::status("preparing phrases");
    let phrases_dir = data_dir.join("cache/phrases");
    let config = Arc::new(config);
    let announcement = config.fallback.announcement(&config.business);
    let mut texts = config.transfer.texts(&config.keys);
    texts.extend(announcement.clone());
    texts.extend(rules.texts());
    let phrases = PhraseBook::make(
        &engines,
        &config.phrases_spoken(),
        &config.turn.timebox_warnings_s,
        texts,
        &models.voice.id,
        &phrases_dir,
    )
    .await?;
    if let Some((text, pcm)) = announcement.and_then(|text| phrases.get_text(&text)) {
        desk::keep(&data_dir, &text, &pcm);
    }

    let rt = Arc::new(Rt::spawn(RtConfig::default())?);
    let admin_listener = tokio::net::TcpListener::bind(config.admin.listen)
        .await
        .map_err(|source| ServeError::Admin {
            address: config.admin.listen,
            source,
        })?;
    let sip_config = Arc::new(sip_config(&config)?);
    let (sip, sip_events) = attendant_sip::start(sip_config.as_ref().clone()).await?;
    let house = House {
        config: config.clone(),
        engines: engines.clone(),
        store,
        phrases: Arc::new(phrases),
        prompt: PromptInForce::new(&prompt.text),
        prompt_sha256: prompt.sha256.into(),
        rules: Arc::new(rules),
        metrics: Arc::new(Metrics::new(&config.profile().to_string())),
        active: Arc::default(),
        underruns: Arc::default(),
        dialler: sip.dialler(),
        rt: rt.clone(),
        switchboard: Switchboard::default(),
    };
    let desk = Desk::new(
        config.clone(),
        sip_config.clone(),
        Some(rt.clone()),
        Some(house.store.clone()),
    );
    let (lines_tx, lines) = watch::channel(Vec::new());
    let running = Running {
        house,
        rt,
        lines,
        models,
        profile: config.profile().to_string(),
        notes: notes.clone(),
        desk: Arc::new(desk),
        sip: sip_config,
    };
    let care = tokio::spawn(care::run(
        running.house.store.clone(),
        running.house.config.clone(),
    ));
    let after_call = tokio::spawn(after_call::run(after_call::Workshop {
        store: running.house.store.clone(),
        engines: engines.clone(),
        config: running.house.config.clone(),
        active: running.house.active.clone(),
    }));
    let admin_address = admin_listener.local_addr()?;
    let admin_server = tokio::spawn(admin::run(admin_listener, running.clone()));

    let dial = dial_address(&sip);
    println!("ready sip:attendant@{dial} admin http://{admin_address}");
    tracing::info!(%dial, admin = %admin_address, profile = running.profile, "ready for calls");
    notify::ready(&format!("ready for calls at {dial}"));

    let (drain, drained) = watch::channel(false);
    let (call_guard, mut calls_gone) = mpsc::channel::<()>(1);
    answer_until_stopped(&running, sip_events, lines_tx, drained, call_guard).await;

    notify::stopping();
    tracing::info!("stopping: calls in progress are ended");
    // Nobody left to tell is fine.
    let _ = drain.send(true);
    let _ = tokio::time::timeout(DRAIN, calls_gone.recv()).await;
    sip.shutdown().await;
    admin_server.abort();
    care.abort();
    after_call.abort();
    notes.stopped().await;
    engines.shutdown().await;
    Ok(())
}

/// The guardrails of this house. What of its data reads like an order to the model is left out of the prompt, and noted.
fn screen(config: &mut Config, store: &Store) -> Result<Rules, ServeError> {
    let all = Rules::new(&config.guardrails, &config.business);
    let (business, out) = all.screened(&config.business);
    for (key, hit) in out {
        tracing::error!(
            key,
            rule = hit.rule,
            "[business] reads like an order to the language model and is left out; put it in other words"
        );
        store.record_screened(&left_out(key, &hit), clock::unix_ms())?;
    }
    config.business = business;
    Ok(Rules::new(&config.guardrails, &config.business))
}

async fn answer_until_stopped(
    running: &Running,
    mut sip_events: mpsc::Receiver<SipEvent>,
    lines: watch::Sender<Vec<Line>>,
    drained: watch::Receiver<bool>,
    call_guard: mpsc::Sender<()>,
) {
    let numbers = AtomicU64::new(1);
    let stop = stop_signal();
    tokio::pin!(stop);
    loop {
        tokio::select! {
            () = &mut stop => return,
            event = sip_events.recv() => match event {
                Some(SipEvent::Incoming(incoming)) => {
                    let id = numbers.fetch_add(1, Ordering::Relaxed);
                    let (running, drained, guard) = (running.clone(), drained.clone(), call_guard.clone());
                    tokio::spawn(async move {
                        take_call(&running, id, incoming, drained).await;
                        drop(guard);
                    });
                }
                Some(SipEvent::Registration { account, state }) => lines::note(&lines, account, &state),
                None => return,
            },
        }
    }
}

/// Admission, session, answer, call.
async fn take_call(running: &Running, id: u64, incoming: IncomingCall, drained: watch::Receiver<bool>) {
    let house = &running.house;
    if let Some(cause) = Cause::now(house, &house.config.data_dir()) {
        return turn_away(running, id, incoming, cause, drained).await;
    }
    let Some(line) = house.admit() else {
        return turn_away(running, id, incoming, Cause::Overload, drained).await;
    };
    // While the record is opened.
    incoming.ringing().await;
    let session = NewSession {
        line: line_name(&running.sip, incoming.source),
        direction: Direction::Inbound,
        caller: Some(incoming.from.user.expose().clone()),
        callee: Some(incoming.to_user.clone()),
        call_id: Some(incoming.call_id.clone()),
        profile: running.profile.clone(),
        stt_model: Some(running.models.stt.id.clone()),
        llm_model: Some(running.models.llm.id.clone()),
        voice: Some(running.models.voice.id.clone()),
        case: None,
        max_turns: None,
        driver: Driver::Call,
        created_at_ms: clock::unix_ms(),
    };
    let context = serde_json::json!({
        "prompt_sha256": &*house.prompt_sha256, "language": house.config.language(), "profile": running.profile,
    });
    let key = match session::open(&house.store, session, context.to_string()).await {
        Ok(key) => key,
        Err(error) => {
            tracing::error!(call = id, error, "no record, no call");
            return turn_away(running, id, incoming, Cause::NoRecord, drained).await;
        }
    };
    let established = match incoming.answer().await {
        Ok(established) => established,
        Err(error) => {
            tracing::info!(call = id, %error, "not answered");
            return session::fail(&house.store, &key, error.to_string()).await;
        }
    };
    match leg::open(&running.rt, &established) {
        Ok(leg) => {
            tracing::info!(
                call = id,
                codec = established.media.stream.codec.name(),
                sealed = established.media.stream.srtp.is_some(),
                "call answered"
            );
            Call::new(id, house.clone(), line, leg, key)
                .run(established, drained)
                .await;
        }
        Err(error) => {
            tracing::error!(call = id, %error, "no audio leg");
            let _ = established.handle.bye().await;
            session::fail(&house.store, &key, error.to_string()).await;
        }
    }
}

/// A call that cannot be served gets what is configured, and is noted.
async fn turn_away(
    running: &Running,
    id: u64,
    incoming: IncomingCall,
    cause: Cause,
    drained: watch::Receiver<bool>,
) {
    running.house.metrics.refused(cause.name());
    tokio::join!(
        running.desk.turn_away(id, incoming, cause, drained),
        running.notes.refused(cause.text())
    );
}

/// The line a call came in by: the peer's name, else the PBX's.
pub(crate) fn line_name(config: &attendant_sip::SipConfig, source: SocketAddr) -> String {
    let peer = config
        .peers
        .iter()
        .find(|p| p.net.contains(source.ip()))
        .map(|p| p.name.clone());
    peer.or_else(|| config.accounts.first().map(|a| a.name.clone()))
        .unwrap_or_else(|| "sip".to_owned())
}

/// The engine workers for a set of models.
///
/// # Errors
/// [`ServeError::Program`] when one is not built.
pub fn start_engines(config: &Config, models: &Resolved) -> Result<Engines, ServeError> {
    let cores = config::cores();
    let calls = config.max_calls();
    let spec = |name: &str, args: Vec<String>, memory_mb: u64| -> Result<WorkerSpec, ServeError> {
        let program = bin_dir()?.join(name);
        if !program.exists() {
            return Err(ServeError::Program(program));
        }
        let memory_limit_mb = Some(config.limits.engine_memory_mb.unwrap_or(memory_mb));
        Ok(WorkerSpec {
            program,
            args,
            env: vec![],
            memory_limit_mb,
            ready_timeout: ENGINES_READY,
        })
    };
    let text = |path: &Path| path.to_string_lossy().into_owned();
    let threads = cores.to_string();
    let size_mb = |path: &Path| path.metadata().map_or(0, |m| m.len() >> 20);
    let stt = spec(
        "attendant-stt",
        vec![
            "--model".into(),
            text(&models.stt.path),
            "--threads".into(),
            threads.clone(),
        ],
        size_mb(&models.stt.path) * 2 + 1_024,
    )?;
    let context = (1_024 * (calls + 1)).max(4_096);
    let llm = spec(
        "attendant-llm",
        vec![
            "--model".into(),
            text(&models.llm.path),
            "--threads".into(),
            threads.clone(),
            "--sequences".into(),
            calls.to_string(),
            "--context".into(),
            context.to_string(),
        ],
        size_mb(&models.llm.path) * 2 + 2_048,
    )?;
    let tts = spec(
        "attendant-tts",
        vec![
            "--voice".into(),
            text(&models.voice.onnx),
            "--config".into(),
            text(&models.voice.json),
            "--runtime".into(),
            text(&models.onnxruntime),
            "--threads".into(),
            threads,
        ],
        2_048,
    )?;
    Ok(Engines::start(EngineConfig { stt, llm, tts, cores })?)
}

/// Where the worker programs are: `ATTENDANT_BIN_DIR`, else beside this program.
fn bin_dir() -> Result<PathBuf, ServeError> {
    if let Some(dir) = std::env::var_os("ATTENDANT_BIN_DIR") {
        return Ok(PathBuf::from(dir));
    }
    let exe = std::env::current_exe()?;
    Ok(exe.parent().map(Path::to_owned).unwrap_or_default())
}

fn sip_config(config: &Config) -> Result<attendant_sip::SipConfig, ServeError> {
    let sip = &config.sip;
    let (mut peers, mut named_peers) = (Vec::new(), Vec::new());
    for peer in &sip.peer {
        let name = peer.name.clone();
        // Nothing but letters makes a name of what would be a mistyped address.
        let host = peer.address.contains(char::is_alphabetic) && !peer.address.contains([':', '/']);
        match peer.address.parse() {
            Ok(net) => peers.push(attendant_sip::Peer {
                name,
                net,
                srtp: peer.srtp.into(),
            }),
            Err(_) if host => named_peers.push(attendant_sip::NamedPeer {
                name,
                host: peer.address.clone(),
            }),
            Err(error) => return Err(ServeError::Peer { name, error }),
        }
    }
    let tls = sip.tls.zip(sip.tls_cert.clone()).zip(sip.tls_key.clone());
    Ok(attendant_sip::SipConfig {
        udp: sip.udp,
        tcp: sip.tcp,
        tls: tls.map(|((addr, cert), key)| attendant_sip::TlsListener { addr, cert, key }),
        media_ip: sip.media_ip,
        rtp_ports: sip.rtp_ports,
        accounts: sip
            .account
            .iter()
            .map(|a| attendant_sip::Account {
                name: a.name.clone(),
                registrar: a.registrar.clone(),
                username: a.username.clone(),
                password: a.password.clone().unwrap_or_default(),
                auth_user: a.auth_user.clone(),
                realm: a.realm.clone(),
                expires_s: a.expires_s,
                transport: match a.transport {
                    SipTransport::Udp => attendant_sip::Transport::Udp,
                    SipTransport::Tcp => attendant_sip::Transport::Tcp,
                    SipTransport::Tls => attendant_sip::Transport::Tls,
                },
                trust: attendant_sip::TlsTrust {
                    ca: a.tls_ca.clone(),
                    fingerprint: a.tls_fingerprint.clone(),
                    verify: a.tls_verify,
                },
                srtp: a.srtp.into(),
            })
            .collect(),
        peers,
        named_peers,
        codecs: sip.codecs.iter().map(|&codec| codec.into()).collect(),
        user_agent: concat!("Attendant/", env!("CARGO_PKG_VERSION")).to_owned(),
        // Beyond the callers' lines: consultations, and those who are told that all lines are taken.
        max_calls: config.max_calls() * 2 + SPARE_DIALOGS,
        lines: Some(config.max_calls()),
        ..attendant_sip::SipConfig::default()
    })
}

/// The address a softphone on this machine would dial.
fn dial_address(sip: &Sip) -> String {
    let addresses = sip.local_addrs();
    let Some((_, address)) = addresses.first() else {
        return "127.0.0.1".into();
    };
    if address.ip().is_unspecified() {
        format!("127.0.0.1:{}", address.port())
    } else {
        address.to_string()
    }
}

async fn stop_signal() {
    use tokio::signal::unix::{SignalKind, signal};
    let (Ok(mut term), Ok(mut int)) = (signal(SignalKind::terminate()), signal(SignalKind::interrupt()))
    else {
        // Without handlers the default action ends the process.
        return std::future::pending().await;
    };
    tokio::select! {
        _ = term.recv() => {}
        _ = int.recv() => {}
    }
}
