//! Ingest: calls whose sound another program hands in, as numbered packets in any order.
//!
//! ```text
//! POST packet ─> encrypted ─> desk (256 wait) ─> one transaction for all that wait ─> answer
//! POST end, or 90 s of silence ─> processing ─> packets in order, gaps as silence ─> recording, sealed ─> completed
//! ```
//! Packets that arrive together share a transaction, so that 50 firsts at once wait for one disk write, not for 50.

use std::time::Duration;

use attendant_media::{FRAME_SAMPLES, Frame, resample::Upsampler};
use attendant_record::{MasterKey, RecordError, Track, packet};
use attendant_store::{
    NewPacket, NewSession, PacketTaken, RecordingSeal, Store, StoreError, StreamCall, StreamState,
};
use axum::{
    Extension, Json,
    extract::{Path, State as Shared},
    http::StatusCode,
};
use base64::{
    Engine as _, alphabet,
    engine::{GeneralPurpose, GeneralPurposeConfig},
};
use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, oneshot};
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    Api, Problem,
    access::{Caller, Right},
    fields,
    views::StreamView,
};
use crate::clock;

/// Packets that may wait for the disk.
const WAITING: usize = 256;
/// Packets of one transaction.
const BATCH: usize = 64;
/// Longest packet [octets]: two seconds at 16 kHz.
const MAX_PACKET: usize = 65_536;
/// A call without packets for so long has ended [ms].
const SILENCE_MS: i64 = 90_000;
/// How often it is looked what has ended.
const LOOK: Duration = Duration::from_secs(2);
/// Longest recording of a stream [samples at 16 kHz]: two hours.
const MAX_SAMPLES: u64 = 2 * 3_600 * 16_000;
/// What a packet's sound is marked with: its rate.
const NARROW: u8 = 8;
const WIDE: u8 = 16;
/// As generous as the document: whatever stands in the last bits.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_allow_trailing_bits(true),
);

/// The routes.
pub fn routes() -> OpenApiRouter<Api> {
    OpenApiRouter::new()
        .routes(routes!(take))
        .routes(routes!(end))
        .routes(routes!(get))
}

/// A packet of sound.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PacketBody {
    /// 1, 2, 3 … in the order of time; they may come in any other.
    #[schema(minimum = 1, maximum = 1000000)]
    #[serde(deserialize_with = "fields::whole::<_, 1, 1000000>")]
    number: u64,
    /// Linear 16-bit PCM, little-endian, mono, in base64; at most 64 KiB.
    #[schema(
        min_length = 4,
        max_length = 87380,
        pattern = r"^(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?$"
    )]
    #[serde(deserialize_with = "fields::text::<_, 4, 87380>")]
    audio: String,
    /// Samples per second: 8000, or 16000 when absent.
    #[schema(minimum = 8000, maximum = 16000, multiple_of = 8000)]
    #[serde(default, deserialize_with = "fields::maybe_whole::<_, 8000, 16000>")]
    rate_hz: Option<u64>,
    /// Who calls; only the first packet's is kept.
    #[schema(min_length = 1, max_length = 200)]
    #[serde(default, deserialize_with = "fields::maybe_text::<_, 1, 200>")]
    caller: Option<String>,
}

/// What became of a packet.
#[derive(Debug, Serialize, ToSchema)]
pub struct PacketAnswer {
    /// It was there before, and was left as it was.
    duplicate: bool,
    /// The call after it.
    call: StreamView,
}

type Waiting = (NewPacket, oneshot::Sender<Result<PacketTaken, StoreError>>);

/// Where packets wait for the disk.
#[derive(Debug)]
pub struct Desk(mpsc::Sender<Waiting>);

impl Desk {
    /// With the end that [`write`] takes.
    pub fn new() -> (Self, mpsc::Receiver<Waiting>) {
        let (desk, waiting) = mpsc::channel(WAITING);
        (Self(desk), waiting)
    }
}

/// Writes what waits, together.
pub async fn write(api: Api, mut waiting: mpsc::Receiver<Waiting>) {
    let mut batch = Vec::with_capacity(BATCH);
    while waiting.recv_many(&mut batch, BATCH).await > 0 {
        let (packets, answers): (Vec<NewPacket>, Vec<_>) = batch.drain(..).unzip();
        let store = api.running.house.store.clone();
        let written =
            tokio::task::spawn_blocking(move || store.take_packets(&packets, clock::unix_ms())).await;
        match written {
            Ok(Ok(outcomes)) => {
                for (answer, outcome) in answers.into_iter().zip(outcomes) {
                    // Who has left does not wait for it.
                    drop(answer.send(outcome));
                }
            }
            // Dropped answers are answered 503: send again.
            Ok(Err(error)) => tracing::error!(%error, "packets could not be written"),
            Err(error) => tracing::error!(%error, "packets could not be written"),
        }
    }
}

/// Whether a program's name for a call is one.
fn is_call_id(id: &str) -> bool {
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
    (1..=100).contains(&id.len())
        && id.chars().all(fits)
        && id.starts_with(|c: char| c.is_ascii_alphanumeric())
}

fn checked(id: &str) -> Result<(), Problem> {
    if is_call_id(id) {
        return Ok(());
    }
    Err(Problem::new(
        StatusCode::BAD_REQUEST,
        "malformed-request",
        "a call_id is 1 to 100 letters, digits, hyphens and underscores, the first a letter or digit",
    ))
}

fn place(token: i64, call: &str, number: u32) -> String {
    format!("{token}/{call}/{number}")
}

/// Hand in a packet; the first of a call, whichever it is, makes the call.
#[utoipa::path(post, path = "/call/stream/{call_id}", tag = "streams",
    params(("call_id" = String, Path, description = "The program's own name for the call.",
        min_length = 1, max_length = 100, pattern = "^[A-Za-z0-9][A-Za-z0-9_-]{0,99}$")),
    request_body = PacketBody, responses(
    (status = 200, description = "It is on the disk.", body = PacketAnswer),
))]
async fn take(
    Shared(api): Shared<Api>,
    Extension(caller): Extension<Caller>,
    Path(call_id): Path<String>,
    Json(body): Json<PacketBody>,
) -> Result<Json<PacketAnswer>, Problem> {
    checked(&call_id)?;
    caller.may(Right::Drive)?;
    let mark = match body.rate_hz {
        Some(8_000) => NARROW,
        None | Some(16_000) => WIDE,
        Some(_) => return Err(Problem::invalid("rate_hz: wanted is 8000 or 16000")),
    };
    let mut sound = vec![mark];
    BASE64
        .decode_vec(&body.audio, &mut sound)
        .map_err(|error| Problem::invalid(format!("audio is no base64: {error}")))?;
    if sound.len() > MAX_PACKET + 1 {
        return Err(Problem::invalid("audio: wanted are at most 65536 octets"));
    }
    let (number, token) = (body.number as u32, caller.token.id);
    let place = place(token.get(), &call_id, number);
    let key = api.store(|store| store.recordings_key()).await?;
    let sealed = packet::seal(&MasterKey::new(key), &place, &sound).map_err(|error| {
        tracing::error!(%error, "a packet could not be encrypted");
        Problem::internal()
    })?;
    let running = &api.running;
    let packet = NewPacket {
        token,
        call: call_id,
        number,
        sealed,
        // By its driver a call: its silence is looked after here.
        session: NewSession {
            caller: body.caller,
            stt_model: Some(running.models.stt.id.clone()),
            ..NewSession::inbound("stream", &running.profile, clock::unix_ms())
        },
    };
    let (answer, answered) = oneshot::channel();
    let busy = || Problem::unavailable("busy", "the disk cannot keep up; send the packet again", 1);
    api.shared
        .packets
        .0
        .try_send((packet, answer))
        .map_err(|_| busy())?;
    let taken = answered.await.map_err(|_| busy())??;
    Ok(Json(PacketAnswer {
        duplicate: taken.duplicate,
        call: taken.call.into(),
    }))
}

async fn known(api: &Api, caller: &Caller, call_id: String, right: Right) -> Result<StreamCall, Problem> {
    checked(&call_id)?;
    caller.may(right)?;
    let token = caller.token.id;
    let call = api.store(move |store| store.stream_call(token, &call_id)).await?;
    call.ok_or_else(|| Problem::not_found("call of this token"))
}

/// No more packets come: the call becomes a recording. Asked again, it says how it is.
#[utoipa::path(post, path = "/call/{call_id}/end", tag = "streams",
    params(("call_id" = String, Path, min_length = 1, max_length = 100, pattern = "^[A-Za-z0-9][A-Za-z0-9_-]{0,99}$")),
    responses((status = 200, description = "It is being processed, or was.", body = StreamView)))]
async fn end(
    Shared(api): Shared<Api>,
    Extension(caller): Extension<Caller>,
    Path(call_id): Path<String>,
) -> Result<Json<StreamView>, Problem> {
    let call = known(&api, &caller, call_id, Right::Drive).await?;
    let call = api
        .store(move |store| store.end_stream(call.id, clock::unix_ms()))
        .await?;
    Ok(Json(call.into()))
}

/// A streamed call as it is now.
#[utoipa::path(get, path = "/call/{call_id}", tag = "streams",
    params(("call_id" = String, Path, min_length = 1, max_length = 100, pattern = "^[A-Za-z0-9][A-Za-z0-9_-]{0,99}$")),
    responses((status = 200, description = "The call.", body = StreamView)))]
async fn get(
    Shared(api): Shared<Api>,
    Extension(caller): Extension<Caller>,
    Path(call_id): Path<String>,
) -> Result<Json<StreamView>, Problem> {
    Ok(Json(known(&api, &caller, call_id, Right::Read).await?.into()))
}

/// Turns calls that have ended into recordings, one after the other; what a stop cut off begins again.
pub async fn process(api: Api) {
    let mut tick = tokio::time::interval(LOOK);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let keep_days = api.running.house.config.recording.keep_days;
    loop {
        tick.tick().await;
        let work = api.store(move |store| {
            let now = clock::unix_ms();
            for silent in store.stream_calls(StreamState::InProgress, SILENCE_MS, now)? {
                store.end_stream(silent.id, now)?;
            }
            for ended in store.stream_calls(StreamState::Processing, 0, now)? {
                let failed = match record(store, &ended, keep_days) {
                    Ok(()) => None,
                    Err(Unmade::Store(error)) => return Err(error),
                    Err(error) => {
                        tracing::error!(%error, "a streamed call could not become a recording");
                        Some(error.to_string())
                    }
                };
                store.finish_stream(ended.id, failed.as_deref(), clock::unix_ms())?;
            }
            store.archive_streams(now)
        });
        // The log has said why; the next look tries again.
        drop(work.await);
    }
}

/// Why there is no recording.
#[derive(Debug, thiserror::Error)]
enum Unmade {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("the recording could not be written: {0}")]
    Record(#[from] RecordError),
    #[error("packet {0} cannot be decrypted")]
    Packet(u32),
    #[error("it would be longer than two hours")]
    TooLong,
}

fn record(store: &Store, call: &StreamCall, keep_days: Option<u32>) -> Result<(), Unmade> {
    // Made before a stop that came between the seal and the end of processing.
    let sealed = |recording: &attendant_store::StoredRecording| recording.whole == Some(true);
    if store.recordings(call.session)?.iter().any(sealed) {
        return Ok(());
    }
    let master = MasterKey::new(store.recordings_key()?);
    let now = clock::unix_ms();
    let keep_until = keep_days.map(|days| now + i64::from(days) * 86_400_000);
    let begun = store.begin_recording(call.session, keep_until, now)?;
    let (track, missing, failed) = match Track::create(&begun.path, &master) {
        Ok(mut track) => {
            let mut missing = 0;
            let failed = assemble(store, call, &master, &mut track, &mut missing).err();
            (Some(track), missing, failed)
        }
        Err(error) => (None, 0, Some(error.into())),
    };
    let (figures, ended) = match track {
        None => (None, Err(attendant_record::sum(&begun.path).ok())),
        Some(track) => {
            let figures = track.figures();
            match failed {
                Some(_) => (Some(figures), Err(Some(track.abandon()))),
                None => match track.finish() {
                    Ok((figures, sum)) => (Some(figures), Ok(sum)),
                    Err((error, sum)) => {
                        tracing::error!(%error, "a recording ended before its call");
                        (Some(figures), Err(Some(sum)))
                    }
                },
            }
        }
    };
    let whole = ended.is_ok();
    let (Ok(sum) | Err(Some(sum))) = ended else {
        // Not even a file: the next start repairs the row.
        return Err(failed.unwrap_or(Unmade::TooLong));
    };
    let seal = RecordingSeal {
        sha256: sum.sha256,
        octets: sum.octets,
        samples: figures.map_or(0, |figures| figures.samples),
        missing,
        whole,
    };
    store.seal_recording(begun.id, &seal, clock::unix_ms())?;
    match failed {
        Some(error) => Err(error),
        None => Ok(()),
    }
}

/// Puts the packets in order; a missing one is silence as long as the one before it.
fn assemble(
    store: &Store,
    call: &StreamCall,
    master: &MasterKey,
    track: &mut Track,
    missing_frames: &mut u64,
) -> Result<(), Unmade> {
    let mut line = Line {
        waiting: Vec::new(),
        at: 0,
    };
    let (mut upsampler, mut length) = (Upsampler::new(), FRAME_SAMPLES);
    let mut missing = 0;
    for number in 1..=call.highest {
        let pcm = match store.packet(call.id, number)? {
            Some(sealed) => {
                let place = place(call.token.get(), &call.call, number);
                let sound = packet::open(master, &place, &sealed).ok_or(Unmade::Packet(number))?;
                samples(&sound, &mut upsampler)
            }
            None => {
                missing += length as u64;
                vec![0; length]
            }
        };
        length = pcm.len().max(1);
        if line.at * FRAME_SAMPLES as u64 + pcm.len() as u64 > MAX_SAMPLES {
            return Err(Unmade::TooLong);
        }
        line.push(track, &pcm)?;
    }
    *missing_frames = missing / FRAME_SAMPLES as u64;
    line.finish(track)
}

/// A packet's sound at 16 kHz.
fn samples(sound: &[u8], upsampler: &mut Upsampler) -> Vec<i16> {
    let Some((mark, octets)) = sound.split_first() else {
        return Vec::new();
    };
    let pcm: Vec<i16> = octets
        .chunks_exact(2)
        .filter_map(|pair| Some(i16::from_le_bytes(pair.try_into().ok()?)))
        .collect();
    if *mark != NARROW {
        return pcm;
    }
    let mut wide = vec![0; pcm.len() * 2];
    upsampler.process(&pcm, &mut wide);
    wide
}

/// Samples becoming frames.
struct Line {
    waiting: Vec<i16>,
    /// The frame that comes next.
    at: u64,
}

impl Line {
    fn push(&mut self, track: &mut Track, pcm: &[i16]) -> Result<(), Unmade> {
        self.waiting.extend_from_slice(pcm);
        let whole = self.waiting.len() / FRAME_SAMPLES * FRAME_SAMPLES;
        for samples in self.waiting.chunks_exact(FRAME_SAMPLES) {
            let mut frame = Frame::SILENCE;
            frame.samples.copy_from_slice(samples);
            track.push(self.at, &frame, &Frame::SILENCE)?;
            self.at += 1;
        }
        self.waiting.drain(..whole);
        Ok(())
    }

    fn finish(mut self, track: &mut Track) -> Result<(), Unmade> {
        let short = (FRAME_SAMPLES - self.waiting.len() % FRAME_SAMPLES) % FRAME_SAMPLES;
        self.push(track, &vec![0; short])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn call_ids_are_short_words() {
        for (id, want) in [
            ("a", true),
            ("call-17_b", true),
            ("", false),
            ("-a", false),
            ("a.b", false),
            ("ä", false),
            ("a b", false),
        ] {
            assert_eq!(is_call_id(id), want, "{id}");
        }
        assert!(is_call_id(&"a".repeat(100)) && !is_call_id(&"a".repeat(101)));
    }

    #[test]
    fn narrow_sound_becomes_twice_as_many_samples() {
        let mut upsampler = Upsampler::new();
        assert_eq!(samples(&[WIDE, 1, 0, 2, 0, 9], &mut upsampler), [1, 2]);
        assert_eq!(samples(&[NARROW, 1, 0, 2, 0], &mut upsampler).len(), 4);
        assert!(samples(&[], &mut upsampler).is_empty());
    }

    #[test]
    fn whatever_the_document_allows_is_base64() {
        for text in ["AAAA", "AB==", "AAB=", "////", "+/9="] {
            assert!(BASE64.decode(text).is_ok(), "{text}");
        }
    }
}
