//! `attendant call`: dials a number, says something, and shows what it heard and how long it waited.

use std::{
    io::{self, Write},
    path::PathBuf,
    process::ExitCode,
    time::Duration,
};

use attendant_media::{MediaError, wav};
use attendant_models::Profile;
use clap::Args;
use serde::Serialize;

use super::{
    Begin, CallError, CallPlan, CallReport, Manners, Utterance,
    engine::EngineError,
    figures::{Summary, round},
    line::Ended,
    local_ip_for,
    measure::WIRE_RATE_HZ,
    place,
    speech::{self, Speaker, SpeechError, Voice},
    user_agent,
    workers::{Models, ModelsError},
};

/// Longest call [s], unless asked otherwise.
const LONGEST_S: u64 = 600;

/// Arguments of `attendant call`.
#[derive(Debug, Args)]
pub struct CallArgs {
    /// Whom to call, for example sip:attendant@127.0.0.1:5060 (;transport=tcp for TCP)
    pub uri: String,
    /// Say these sentences, one after each reply
    #[arg(long, value_name = "TEXT", num_args = 1.., required_unless_present = "wav")]
    pub say: Vec<String>,
    /// Play these recordings, one after each reply (mono or stereo WAV of any rate)
    #[arg(long, value_name = "FILE", num_args = 1..)]
    pub wav: Vec<PathBuf>,
    /// Voice for --say: piper, flite, flite:NAME, espeak, espeak:NAME [default: flite or espeak if installed]
    #[arg(long, value_name = "VOICE")]
    pub voice: Option<Voice>,
    /// Speak this long into each reply instead of waiting for its end [ms]
    #[arg(long, value_name = "MS")]
    pub interrupt: Option<u32>,
    /// User name, where the other side asks for one
    #[arg(long, value_name = "NAME", requires = "password")]
    pub user: Option<String>,
    /// Password; better in the environment than on the command line, where others can read it
    #[arg(
        long,
        value_name = "PASSWORD",
        env = "ATTENDANT_CALL_PASSWORD",
        hide_env_values = true
    )]
    pub password: Option<String>,
    /// Save both sides of the call as a WAV file
    #[arg(long, value_name = "FILE")]
    pub record: Option<PathBuf>,
    /// Write down what was heard with this machine's own speech recognition [default with --say]
    #[arg(long, overrides_with = "no_transcribe")]
    pub transcribe: bool,
    /// Do not write down what was heard
    #[arg(long)]
    pub no_transcribe: bool,
    /// Hang up after this long in any case [s]
    #[arg(long, value_name = "SECONDS", default_value_t = LONGEST_S)]
    pub longest: u64,
    /// Models for the caller's own engines: small, standard or custom [default: the best that is installed]
    #[arg(long, value_name = "PROFILE")]
    pub profile: Option<Profile>,
    /// Where the models are
    #[arg(long, value_name = "DIR", env = "ATTENDANT_MODELS_DIR")]
    pub models_dir: Option<PathBuf>,
    /// One JSON object instead of text
    #[arg(long)]
    pub json: bool,
}

/// Why `attendant call` failed.
#[derive(Debug, thiserror::Error)]
pub enum CommandError {
    /// A voice or a recording.
    #[error(transparent)]
    Speech(#[from] SpeechError),
    /// Missing models.
    #[error("{0}. Or leave the transcript out: --no-transcribe")]
    Models(#[from] ModelsError),
    /// The caller's own speech recognition.
    #[error("{0}. Or leave the transcript out: --no-transcribe")]
    Engine(#[from] EngineError),
    /// The call itself.
    #[error("calling {target} failed: {source}")]
    Call {
        /// Who was called.
        target: String,
        /// Why.
        source: CallError,
    },
    /// The recording could not be saved.
    #[error(transparent)]
    Record(#[from] MediaError),
    /// The system has no threads, or nobody reads the output.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// What `--json` prints.
#[derive(Debug, Serialize)]
struct Printed {
    uri: String,
    call_id: String,
    ended: Ended,
    duration_ms: u64,
    greeting_ms: Option<f64>,
    greeting: Option<String>,
    turns: Vec<PrintedTurn>,
    response_ms: Option<Summary>,
    rtp_spacing_ms: Option<Summary>,
    rtp_deviation_ms: Option<Summary>,
    packets: u64,
    lost: u64,
    holes: u64,
    own_late_ms: f64,
}

#[derive(Debug, Serialize)]
struct PrintedTurn {
    said: String,
    response_ms: Option<f64>,
    heard: Option<String>,
    reply_ms: Option<f64>,
    cut_off: bool,
    interrupted: bool,
    stop_ms: Option<f64>,
}

/// Runs `attendant call` to its end. Starts its own runtime: call it from a plain thread. Fails, quietly, when nothing
/// that was said got a reply.
///
/// # Errors
/// [`CommandError`]; each says what to do.
pub fn run(args: CallArgs) -> anyhow::Result<ExitCode> {
    Ok(try_run(args)?)
}

fn try_run(args: CallArgs) -> Result<ExitCode, CommandError> {
    let models = Models {
        dir: args.models_dir.clone(),
        profile: args.profile,
        ..Models::default()
    };
    let utterances = utterances(&args, &models)?;
    let transcribe = args.transcribe || (!args.no_transcribe && !args.say.is_empty());
    eprintln!("calling {} …", args.uri);
    let plan = CallPlan {
        target: args.uri.clone(),
        credentials: args.user.clone().zip(args.password.clone()),
        utterances,
        manners: Manners::default(),
        longest: Duration::from_secs(args.longest),
        noise_dbov: None,
        echo: None,
        weather: crate::caller::weather::Weather::default(),
        seed: 1,
    };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    let report = runtime.block_on(async {
        let sip = user_agent(local_ip_for(&args.uri)).await?;
        let report = place(&sip, plan).await;
        sip.shutdown().await;
        report
    });
    let report = report.map_err(|source| CommandError::Call {
        target: args.uri.clone(),
        source,
    })?;
    if let Some(path) = &args.record {
        wav::write(path, WIRE_RATE_HZ, &report.recording())?;
    }
    let texts = if transcribe {
        transcripts(&models, &report)?
    } else {
        Vec::new()
    };
    let printed = printed(args.uri, &report, texts);
    let mut out = io::stdout().lock();
    if args.json {
        serde_json::to_writer_pretty(&mut out, &printed).map_err(io::Error::from)?;
        writeln!(out)?;
    } else {
        print(&mut out, &printed)?;
    }
    Ok(if printed.response_ms.is_some() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

fn utterances(args: &CallArgs, models: &Models) -> Result<Vec<Utterance>, SpeechError> {
    let voice = args.voice.clone().unwrap_or_else(Voice::preferred);
    let mut speaker = Speaker::new(models);
    let mut utterances: Vec<Utterance> = Vec::new();
    let begin = |first: bool| match args.interrupt {
        Some(after_ms) if !first => Begin::IntoReply { after_ms },
        Some(_) | None => Begin::AfterReply,
    };
    for text in &args.say {
        let pcm = speaker.say(&voice, text)?;
        utterances.push(Utterance {
            label: text.clone(),
            pcm,
            begin: begin(utterances.is_empty()),
        });
    }
    for path in &args.wav {
        let pcm = speech::recording(path)?;
        utterances.push(Utterance {
            label: path.display().to_string(),
            pcm,
            begin: begin(utterances.is_empty()),
        });
    }
    Ok(utterances)
}

/// What was heard: the greeting, then each reply.
fn transcripts(models: &Models, report: &CallReport) -> Result<Vec<String>, CommandError> {
    let mut ear = models.stt()?;
    let heard = std::iter::once(&report.greeting).chain(report.turns.iter().map(|turn| &turn.reply));
    let text = |pcm: &Vec<i16>| {
        if pcm.is_empty() {
            Ok(String::new())
        } else {
            ear.transcribe(pcm, "en")
        }
    };
    Ok(heard.map(text).collect::<Result<_, _>>()?)
}

fn printed(uri: String, report: &CallReport, texts: Vec<String>) -> Printed {
    let mut texts = texts.into_iter();
    let greeting = texts.next().filter(|text| !text.is_empty());
    let turns = report.turns.iter().map(|turn| PrintedTurn {
        said: turn.label.clone(),
        response_ms: turn.heard.response_ms.map(round),
        heard: texts.next().filter(|text| !text.is_empty()),
        reply_ms: turn
            .heard
            .reply
            .map(|(start, end)| round(super::measure::ms_between(start, end))),
        cut_off: turn.heard.cut_off,
        interrupted: turn.interrupts,
        stop_ms: turn.heard.stop_ms.map(round),
    });
    Printed {
        uri,
        call_id: report.call_id.clone(),
        ended: report.ended(),
        duration_ms: report.duration.as_millis() as u64,
        greeting_ms: report.greeting_ms.map(round),
        greeting,
        turns: turns.collect(),
        response_ms: report
            .turns
            .iter()
            .filter_map(|turn| turn.heard.response_ms)
            .collect::<super::figures::Samples>()
            .summary(),
        rtp_spacing_ms: report.pacing.spacing_ms.summary(),
        rtp_deviation_ms: report.pacing.deviation_ms.summary(),
        packets: report.pacing.received,
        lost: report.pacing.lost,
        holes: report.pacing.holes,
        own_late_ms: round(report.trace.own_late_ms),
    }
}

fn print(out: &mut impl Write, call: &Printed) -> io::Result<()> {
    let seconds = |ms: Option<f64>| ms.map_or("       —".to_owned(), |ms| format!("{ms:5.0} ms"));
    writeln!(out)?;
    let greeting = call.greeting.as_deref().unwrap_or("(greeting)");
    writeln!(out, "  {}  attendant  {greeting}", seconds(call.greeting_ms))?;
    for turn in &call.turns {
        let note = match (turn.interrupted, turn.stop_ms) {
            (true, Some(stop)) => format!("   [interrupts; the reply stopped after {stop:.0} ms]"),
            (true, None) => "   [meant to interrupt, but nothing was playing]".to_owned(),
            (false, _) => String::new(),
        };
        writeln!(out, "            caller     {}{note}", turn.said)?;
        let heard = match (&turn.heard, turn.response_ms) {
            (Some(text), _) => text.as_str(),
            (None, Some(_)) => "(a reply)",
            (None, None) => "(no reply)",
        };
        let cut = if turn.cut_off {
            "   [began before the caller had finished]"
        } else {
            ""
        };
        writeln!(out, "  {}  attendant  {heard}{cut}", seconds(turn.response_ms))?;
    }
    writeln!(out)?;
    if let Some(response) = call.response_ms {
        writeln!(
            out,
            "The caller waited {:.0} ms (median of {}; longest {:.0} ms), from the last voiced sample sent to the first \
             voiced sample received.",
            response.p50, response.count, response.max
        )?;
    }
    if let Some(spacing) = call.rtp_spacing_ms {
        writeln!(
            out,
            "{} packets, {} lost, spacing {:.2} ms (99.9 % within {:.2} ms), {} gaps inside words.",
            call.packets, call.lost, spacing.p50, spacing.p999, call.holes
        )?;
    } else {
        writeln!(
            out,
            "No audio was received: look at the other side's RTP address and at firewalls in between."
        )?;
    }
    match call.ended {
        Ended::Finished => {}
        Ended::ByOther => writeln!(out, "The other side hung up.")?,
        Ended::TooLong => writeln!(out, "The call reached its longest duration and was ended.")?,
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        call: CallArgs,
    }

    #[test]
    fn arguments_are_read() {
        let parse = |line: &str| Cli::try_parse_from(line.split(' ')).map(|cli| cli.call);
        let args = parse("call sip:a@127.0.0.1 --say hello goodbye --json").unwrap();
        assert_eq!(args.say, ["hello", "goodbye"]);
        assert!(args.json && args.wav.is_empty() && args.voice.is_none());
        let args = parse("call sip:a@127.0.0.1 --wav a.wav b.wav --voice flite:rms --interrupt 800").unwrap();
        assert_eq!((args.wav.len(), args.interrupt), (2, Some(800)));
        assert!(parse("call sip:a@127.0.0.1").is_err(), "nothing to say");
        assert!(parse("call --say hello").is_err(), "nobody to call");
        assert!(parse("call sip:a@127.0.0.1 --say hi --voice alexa").is_err());
    }

    #[test]
    fn a_conversation_is_printed_for_people() {
        let turn = PrintedTurn {
            said: "What are your hours?".into(),
            response_ms: Some(612.4),
            heard: Some("We open at nine.".into()),
            reply_ms: Some(1800.0),
            cut_off: false,
            interrupted: false,
            stop_ms: None,
        };
        let call = Printed {
            uri: "sip:a@b".into(),
            call_id: "x".into(),
            ended: Ended::ByOther,
            duration_ms: 9000,
            greeting_ms: Some(80.0),
            greeting: Some("Hello.".into()),
            turns: vec![turn],
            response_ms: [612.4]
                .into_iter()
                .collect::<super::super::figures::Samples>()
                .summary(),
            rtp_spacing_ms: None,
            rtp_deviation_ms: None,
            packets: 0,
            lost: 0,
            holes: 0,
            own_late_ms: 0.1,
        };
        let mut out = Vec::new();
        print(&mut out, &call).unwrap();
        let text = String::from_utf8(out).unwrap();
        for want in [
            "612 ms  attendant  We open at nine.",
            "caller     What are your hours?",
            "hung up",
            "No audio",
        ] {
            assert!(text.contains(want), "{want}: {text}");
        }
    }
}
