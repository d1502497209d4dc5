//! Recording: a track on a thread of its own.

use std::{
    io,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
        mpsc::{Receiver, SyncSender, sync_channel},
    },
    thread::{self, JoinHandle},
};

use attendant_media::Frame;

use crate::{Figures, MasterKey, RecordError, Sum, Track};

/// Frames that may wait for the disk: 5 s.
const QUEUE: usize = 250;

/// 20 ms of both sides.
struct Moment {
    at: u64,
    heard: Frame,
    sent: Frame,
}

/// How a recording ended.
#[derive(Debug)]
pub struct Recorded<T> {
    /// What its opening gave beside the track.
    pub opened: T,
    /// What it holds.
    pub figures: Figures,
    /// The file as it is on the disk.
    pub sum: Sum,
    /// Frames that found the queue full; they stand as silence.
    pub overruns: u64,
    /// Why it ended before the call did.
    pub failed: Option<RecordError>,
}

/// A recording in progress. `T` is what its opening gives beside the track, `E` why it may fail.
pub struct Recording<T, E> {
    moments: SyncSender<Moment>,
    writer: JoinHandle<Result<Recorded<T>, E>>,
    overruns: Arc<AtomicU64>,
}

impl Recording<(), RecordError> {
    /// A recording into a file, which must not exist; it ends at `max_octets`.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub fn spawn(path: &Path, master: &MasterKey, max_octets: u64) -> io::Result<Self> {
        let (path, master) = (path.to_owned(), master.clone());
        Self::spawn_with(move || Ok((Track::create(&path, &master)?, ())), max_octets)
    }
}

impl<T: Send + 'static, E: Send + 'static> Recording<T, E> {
    /// Starts the thread `recording`, which first opens the track: that may take its time. The recording ends at
    /// `max_octets`.
    ///
    /// # Errors
    /// When the system gives no thread; no reason not to have a call.
    pub fn spawn_with(
        open: impl FnOnce() -> Result<(Track, T), E> + Send + 'static,
        max_octets: u64,
    ) -> io::Result<Self> {
        let (moments, queue) = sync_channel(QUEUE);
        let overruns = Arc::<AtomicU64>::default();
        let counted = overruns.clone();
        let writer = thread::Builder::new().name("recording".into()).spawn(move || {
            let (track, opened) = open()?;
            let (figures, sum, failed) = run(track, &queue, max_octets);
            Ok(Recorded {
                opened,
                figures,
                sum,
                overruns: counted.load(Ordering::Relaxed),
                failed,
            })
        })?;
        Ok(Self {
            moments,
            writer,
            overruns,
        })
    }

    /// Takes what was heard and sent in frame `at`. Never waits: when the disk has not kept up for 5 s, the frame is
    /// counted and stands as silence.
    pub fn try_push(&self, at: u64, heard: &Frame, sent: &Frame) {
        let moment = Moment {
            at,
            heard: *heard,
            sent: *sent,
        };
        if self.moments.try_send(moment).is_err() {
            self.overruns.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Ends the file; `None` when the thread panicked, and the file is as after a power cut. Waits for the disk: not for
    /// a task that others wait for.
    ///
    /// # Errors
    /// Why it never began.
    pub fn finish(self) -> Option<Result<Recorded<T>, E>> {
        drop(self.moments);
        self.writer.join().ok()
    }
}

fn run(mut track: Track, queue: &Receiver<Moment>, max_octets: u64) -> (Figures, Sum, Option<RecordError>) {
    while let Ok(moment) = queue.recv() {
        if let Err(error) = track.push(moment.at, &moment.heard, &moment.sent) {
            return (track.figures(), track.abandon(), Some(error));
        }
        if track.octets() >= max_octets {
            break;
        }
    }
    let figures = track.figures();
    match track.finish() {
        Ok((figures, sum)) => (figures, sum, None),
        Err((error, sum)) => (figures, sum, Some(error)),
    }
}
