//! What flows between a worker and us: frames to its socket, replies from it, its stderr into the log.

use std::io;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf, pipe};
use tokio::sync::{mpsc, oneshot};

use super::link::Link;
use super::{Engine, locked};
use crate::protocol::{Response, decode_sizes};

/// Log lines of one worker: burst, then per second.
const LOG_BURST: u32 = 40;
const LOG_PER_S: u32 = 5;
/// Longest log line kept [bytes].
const LOG_LINE: usize = 500;

/// What a worker says of itself once it can work.
pub(super) struct Ready {
    pub protocol: u32,
    pub engine: String,
    pub model: String,
    pub load_ms: u32,
    pub sequences: u32,
}

pub(super) async fn write(mut tx: OwnedWriteHalf, mut frames: mpsc::Receiver<Vec<u8>>) {
    while let Some(frame) = frames.recv().await {
        if tx.write_all(&frame).await.is_err() {
            return;
        }
    }
}

pub(super) async fn read(rx: OwnedReadHalf, link: Arc<Link>, ready: oneshot::Sender<Ready>) {
    let mut rx = BufReader::with_capacity(1 << 16, rx);
    let mut ready = Some(ready);
    loop {
        match read_frame(&mut rx).await {
            Ok(Some((
                Response::Ready {
                    protocol,
                    engine,
                    model,
                    load_ms,
                    sequences,
                },
                _,
            ))) => {
                if let Some(tell) = ready.take() {
                    drop(tell.send(Ready {
                        protocol,
                        engine,
                        model,
                        load_ms,
                        sequences,
                    }));
                }
            }
            Ok(Some((reply, payload))) => link.handle(reply, payload),
            Ok(None) => break,
            Err(e) => {
                if !link.ended() {
                    tracing::warn!(engine = %link.engine(), "worker's reply unreadable: {e}");
                }
                break;
            }
        }
    }
    // Without its socket it is of no use.
    link.process.kill();
}

async fn read_frame(rx: &mut BufReader<OwnedReadHalf>) -> io::Result<Option<(Response, Vec<u8>)>> {
    let mut head = [0; 8];
    match rx.read_exact(&mut head).await {
        Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        other => other?,
    };
    let (header, payload) = decode_sizes(head)?;
    let mut json = vec![0; header];
    rx.read_exact(&mut json).await?;
    let mut pcm = vec![0; payload];
    rx.read_exact(&mut pcm).await?;
    let reply = serde_json::from_slice(&json).map_err(|e| io::Error::new(io::ErrorKind::InvalidData, e))?;
    Ok(Some((reply, pcm)))
}

/// Carries a worker's stderr into the log, bounded in length and rate, and keeps its last line.
pub(super) async fn log_lines(engine: Engine, pipe: pipe::Receiver, last: Arc<Mutex<String>>) {
    let mut lines = BufReader::new(pipe);
    let (mut tokens, mut filled, mut dropped) = (LOG_BURST, Instant::now(), 0u64);
    let mut buf = Vec::new();
    loop {
        buf.clear();
        // A line without end is cut, not collected.
        match (&mut lines)
            .take(LOG_LINE as u64)
            .read_until(b'\n', &mut buf)
            .await
        {
            Ok(0) | Err(_) => return,
            Ok(_) => {}
        }
        let line = String::from_utf8_lossy(&buf).trim().to_owned();
        if line.is_empty() {
            continue;
        }
        let gained = u32::try_from(filled.elapsed().as_secs())
            .unwrap_or(u32::MAX)
            .saturating_mul(LOG_PER_S);
        if gained > 0 {
            tokens = tokens.saturating_add(gained).min(LOG_BURST);
            filled = Instant::now();
        }
        if tokens == 0 {
            dropped += 1;
        } else {
            tokens -= 1;
            if dropped > 0 {
                tracing::warn!(%engine, dropped, "worker's log lines dropped");
                dropped = 0;
            }
            log_line(engine, &line);
        }
        *locked(&last) = line;
    }
}

fn log_line(engine: Engine, line: &str) {
    if line.contains("ERROR") {
        tracing::error!(%engine, "{line}");
    } else if line.contains("WARN") {
        tracing::warn!(%engine, "{line}");
    } else if line.contains("DEBUG") {
        tracing::debug!(%engine, "{line}");
    } else {
        tracing::info!(%engine, "{line}");
    }
}
