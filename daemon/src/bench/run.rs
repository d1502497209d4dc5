//! Run: places the scripted calls against a daemon of our own and gathers what there is to know about them.

use std::{
    fs,
    io::{Read, Write},
    net::{IpAddr, Ipv4Addr, TcpStream},
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Context, bail};
use attendant_media::wav;
use attendant_sip::Sip;
use attendant_store::{SessionRecord, Store};
use tokio::task::JoinSet;

use super::{
    BenchArgs,
    corpus::{self, Item},
    process::{self, Watch},
    report::{Machine, Measured, Report, Setup},
};
use crate::{
    caller::{
        CallPlan, CallReport, Manners, Utterance, measure::WIRE_RATE_HZ, place, speech::Speaker, user_agent,
        workers::Models,
    },
    child::{Daemon, local_config},
    config::Config,
};

/// Longest call, per utterance in it.
const LONGEST_PER_TURN: Duration = Duration::from_secs(60);
/// Between the starts of calls that run at once: callers do not dial in the same instant.
const STAGGER: Duration = Duration::from_millis(700);
/// Between two calls of a lane.
const BETWEEN: Duration = Duration::from_millis(500);
/// Longest wait until the daemon has written a call down.
const WRITTEN: Duration = Duration::from_secs(5);
/// Sessions looked through for ours.
const SESSIONS: u32 = 1000;
/// Longest answer read from the admin page [bytes].
const ADMIN_BYTES: u64 = 1 << 20;

/// One scripted call: what will be said.
#[derive(Debug, Clone)]
struct Script {
    number: usize,
    items: Vec<Item>,
    utterances: Vec<Utterance>,
}

/// One call that was made.
#[derive(Debug)]
pub struct Made {
    /// Its number, from 0.
    pub number: usize,
    /// What was to be said.
    pub items: Vec<Item>,
    /// What it was like, as heard by the caller.
    pub call: CallReport,
    /// What the daemon wrote down; `None` when it has no record of the call.
    pub record: Option<SessionRecord>,
}

/// Measures.
///
/// # Errors
/// See [`super::run`].
pub fn measure(args: &BenchArgs) -> anyhow::Result<Report> {
    let profile = args.profile.unwrap_or_else(|| Config::default().profile());
    let data_dir = DataDir::new(args.data_dir.as_deref())?;
    let scripts = scripts(
        args,
        &Models {
            profile: Some(profile),
            ..Models::default()
        },
    )?;
    let turns: usize = scripts.iter().map(|script| script.items.len()).sum();
    eprintln!(
        "bench: {turns} turns in {} calls, {} at once, profile {profile}",
        scripts.len(),
        args.calls
    );

    let config = data_dir.path.join("bench.toml");
    let mut text = local_config(&profile.to_string(), &data_dir.path, "127.0.0.1", 0);
    let at_most = Config::default().max_calls().max(args.calls as usize);
    text.push_str(&format!("[limits]\ncalls = {at_most}\n"));
    if let Some(dir) = &args.record {
        let dir = std::path::absolute(dir)?;
        text.push_str(&format!("[debug]\ntraces = {:?}\n", dir.display().to_string()));
    }
    text.push_str(&changed(args));
    fs::write(&config, text).with_context(|| format!("cannot write {}", config.display()))?;
    eprintln!("bench: starting a daemon of its own; its models take a few seconds to load");
    let daemon = Daemon::start(&config)?;

    let watch = Watch::start(daemon.pid());
    let begun = Instant::now();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    let (calls, failed) = runtime.block_on(place_all(args, &daemon.uri, scripts))?;
    let took = begun.elapsed();
    let cost = watch.finish();
    let health = health(&daemon.admin);
    let made = with_records(calls, &data_dir.path)?;
    drop(daemon);

    if let Some(dir) = &args.record {
        save(dir, &made)?;
    }
    if made.is_empty() {
        bail!("no call succeeded; the daemon's messages are above");
    }
    let machine = Machine {
        cores: crate::config::cores(),
        cpu: process::cpu_model(),
        memory_mib: crate::config::memory_mb(),
        realtime: health
            .as_ref()
            .and_then(|h| h.pointer("/rt_audio/realtime")?.as_bool()),
    };
    let setup = Setup {
        profile: profile.to_string(),
        seed: args.seed,
        concurrent_calls: args.calls,
        noise_dbov: noise(args),
        echo: args.echo,
        weather: args.weather(),
        without: args.without.clone(),
        bounds: args
            .bound
            .iter()
            .map(|(key, value)| format!("{key}={value}"))
            .collect(),
        human_prompts_only: args.wer_prompts.is_some(),
        list: args.list,
    };
    let underruns = health
        .as_ref()
        .and_then(|h| h.pointer("/rt_audio/underruns")?.as_u64());
    Ok(Report::new(
        setup,
        machine,
        &Measured {
            made,
            failed,
            took,
            cost,
            underruns,
        },
    ))
}

/// The tables of configuration in which this run differs from the defaults.
fn changed(args: &BenchArgs) -> String {
    let off = args.without.iter().map(|technique| technique.off());
    let mut lines: Vec<(&str, String)> = off.map(|(table, line)| (table, line.to_owned())).collect();
    lines.extend(
        args.bound
            .iter()
            .map(|(key, value)| ("turn", format!("{key} = {value}"))),
    );
    lines.sort();
    let mut text = String::new();
    for lines in lines.chunk_by(|a, b| a.0 == b.0) {
        let table = lines.first().map_or("turn", |(table, _)| table);
        text.push_str(&format!("[{table}]\n"));
        for (_, line) in lines {
            text.push_str(&format!("{line}\n"));
        }
    }
    text
}

fn noise(args: &BenchArgs) -> Option<f64> {
    (args.noise < 0.0).then_some(args.noise)
}

/// What is said in each call, with its sound.
fn scripts(args: &BenchArgs, models: &Models) -> anyhow::Result<Vec<Script>> {
    let prompts = corpus::prompts();
    let voices = corpus::voices();
    let per_call = args.turns_per_call as usize;
    let calls = match args.wer_prompts {
        Some(_) if prompts.is_empty() => bail!(
            "no recorded human prompts on this machine; install them: \
             apt-get install asterisk-core-sounds-en asterisk-core-sounds-en-wav"
        ),
        Some(count) => corpus::prompt_calls(count as usize, per_call, args.seed, &prompts),
        None => {
            if prompts.is_empty() {
                eprintln!(
                    "bench: no recorded human prompts here (apt-get install asterisk-core-sounds-en \
                     asterisk-core-sounds-en-wav); synthetic voices only"
                );
            }
            corpus::calls(
                args.turns as usize,
                per_call,
                args.seed,
                &args.only,
                &prompts,
                &voices,
            )
        }
    };
    let mut speaker = Speaker::new(models);
    let render = |(number, items): (usize, Vec<Item>)| {
        let utterances = items
            .iter()
            .map(|item| item.render(&mut speaker))
            .collect::<Result<_, _>>()?;
        Ok(Script {
            number,
            items,
            utterances,
        })
    };
    calls.into_iter().enumerate().map(render).collect()
}

type Calls = Vec<(usize, Vec<Item>, CallReport)>;

/// Makes all calls, some at once; those that worked, and how many did not.
async fn place_all(args: &BenchArgs, uri: &str, scripts: Vec<Script>) -> anyhow::Result<(Calls, usize)> {
    let sip = Arc::new(user_agent(IpAddr::V4(Ipv4Addr::LOCALHOST)).await?);
    let scripts: Arc<[Script]> = scripts.into();
    let next = Arc::new(AtomicUsize::new(0));
    let mut lanes = JoinSet::new();
    for lane in 0..args.calls {
        let (sip, scripts, next, uri, args) = (
            sip.clone(),
            scripts.clone(),
            next.clone(),
            uri.to_owned(),
            args.clone(),
        );
        lanes.spawn(async move {
            tokio::time::sleep(STAGGER * lane).await;
            let mut made = Vec::new();
            while let Some(script) = scripts.get(next.fetch_add(1, Ordering::Relaxed)) {
                made.push((script.number, place_one(&sip, &uri, &args, script).await));
                tokio::time::sleep(BETWEEN).await;
            }
            made
        });
    }
    let (mut calls, mut failed) = (Vec::new(), 0);
    for (number, result) in lanes.join_all().await.into_iter().flatten() {
        match result {
            Ok(call) => {
                let items = scripts
                    .get(number)
                    .map(|script| script.items.clone())
                    .unwrap_or_default();
                calls.push((number, items, call));
            }
            Err(error) => {
                failed += 1;
                eprintln!("bench: call {} failed: {error}", number + 1);
            }
        }
    }
    calls.sort_by_key(|(number, ..)| *number);
    if let Ok(sip) = Arc::try_unwrap(sip).map_err(drop) {
        sip.shutdown().await;
    }
    Ok((calls, failed))
}

async fn place_one(
    sip: &Sip,
    uri: &str,
    args: &BenchArgs,
    script: &Script,
) -> Result<CallReport, crate::caller::CallError> {
    let plan = CallPlan {
        target: uri.to_owned(),
        credentials: None,
        utterances: script.utterances.clone(),
        manners: Manners::default(),
        longest: LONGEST_PER_TURN * (script.utterances.len() as u32 + 1),
        noise_dbov: noise(args),
        echo: args.echo,
        weather: args.weather(),
        seed: args.seed.wrapping_mul(1000).wrapping_add(script.number as u64),
    };
    let report = place(sip, plan).await?;
    let heard: Vec<String> = report
        .turns
        .iter()
        .map(|turn| {
            turn.heard
                .response_ms
                .map_or_else(|| "—".to_owned(), |ms| format!("{ms:.0}"))
        })
        .collect();
    eprintln!(
        "bench: call {} done in {:.0} s; waited {} ms",
        script.number + 1,
        report.duration.as_secs_f64(),
        heard.join(", ")
    );
    Ok(report)
}

/// Finds each call in the daemon's record, by its Call-ID.
fn with_records(calls: Calls, data_dir: &Path) -> anyhow::Result<Vec<Made>> {
    let store = Store::open_read_only(data_dir).context("the daemon's record cannot be read")?;
    let deadline = Instant::now() + WRITTEN;
    let mut made = Vec::with_capacity(calls.len());
    for (number, items, call) in calls {
        let record = loop {
            let found = store
                .list_sessions(SESSIONS, None)?
                .into_iter()
                .map(|summary| summary.session);
            let found = found
                .into_iter()
                .find(|session| session.call_id.as_deref() == Some(call.call_id.as_str()));
            match found {
                Some(session) if session.state.is_terminal() || Instant::now() >= deadline => {
                    break Some(store.session(session.id)?);
                }
                None if Instant::now() >= deadline => break None,
                Some(_) | None => std::thread::sleep(Duration::from_millis(100)),
            }
        };
        made.push(Made {
            number,
            items,
            call,
            record,
        });
    }
    Ok(made)
}

/// The daemon's own view of itself; `None` when its admin page does not answer.
fn health(admin: &str) -> Option<serde_json::Value> {
    let address = admin.strip_prefix("http://")?.trim_end_matches('/');
    let mut stream = TcpStream::connect(address).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(5))).ok()?;
    write!(stream, "GET /api/health HTTP/1.0\r\nHost: {address}\r\n\r\n").ok()?;
    let mut answer = String::new();
    stream.take(ADMIN_BYTES).read_to_string(&mut answer).ok()?;
    let (_, body) = answer.split_once("\r\n\r\n")?;
    serde_json::from_str(body).ok()
}

fn save(dir: &Path, made: &[Made]) -> anyhow::Result<()> {
    fs::create_dir_all(dir).with_context(|| format!("cannot make {}", dir.display()))?;
    for one in made {
        wav::write(
            &dir.join(format!("call-{:03}.wav", one.number + 1)),
            WIRE_RATE_HZ,
            &one.call.recording(),
        )?;
    }
    Ok(())
}

/// Where the daemon of the bench keeps its record; a temporary one goes away with it.
struct DataDir {
    path: PathBuf,
    temporary: bool,
}

impl DataDir {
    fn new(given: Option<&Path>) -> anyhow::Result<Self> {
        let (path, temporary) = match given {
            Some(path) => (path.to_owned(), false),
            None => {
                let name = format!(
                    "attendant-bench-{}-{:08x}",
                    std::process::id(),
                    rand::random::<u32>()
                );
                (std::env::temp_dir().join(name), true)
            }
        };
        let mut builder = fs::DirBuilder::new();
        builder.recursive(!temporary).mode(0o700);
        builder
            .create(&path)
            .with_context(|| format!("cannot make {}", path.display()))?;
        Ok(Self {
            path: path.canonicalize()?,
            temporary,
        })
    }
}

impl Drop for DataDir {
    fn drop(&mut self) {
        if self.temporary {
            // A directory that stays behind in the temporary directory does no harm.
            drop(fs::remove_dir_all(&self.path));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_temporary_data_directory_goes_away_and_a_given_one_stays() {
        let temporary = DataDir::new(None).unwrap();
        let path = temporary.path.clone();
        assert!(path.is_dir());
        drop(temporary);
        assert!(!path.exists());
        let kept = tempfile::tempdir().unwrap();
        drop(DataDir::new(Some(&kept.path().join("a/b"))).unwrap());
        assert!(kept.path().join("a/b").is_dir());
    }

    #[test]
    fn an_admin_page_that_does_not_answer_is_no_health() {
        assert!(health("http://127.0.0.1:1").is_none());
        assert!(health("nonsense").is_none());
    }
}
