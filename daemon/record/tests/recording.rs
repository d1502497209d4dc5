//! Recordings of whole calls: both sides aligned, cut anywhere, opened by another program.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use attendant_media::{FRAME_SAMPLES, Frame};
use attendant_record::{End, MasterKey, Recording, Track, export, length, repair, sum};

const KEY: MasterKey = MasterKey::new([3; 32]);
/// 10 minutes.
const FRAMES: u64 = 30_000;

/// A caller's voice as far as its statistics go, and a click in the first sample of every 500th frame.
fn heard(at: u64) -> Frame {
    sound(at, 1.0)
}

/// The same with the click 7 frames later, so that sides cannot be mixed up.
fn sent(at: u64) -> Frame {
    sound(at.wrapping_sub(7), -1.0)
}

fn sound(at: u64, side: f64) -> Frame {
    let mut samples = [0; FRAME_SAMPLES];
    if at % 250 < 120 {
        for (n, sample) in samples.iter_mut().enumerate() {
            let t = (at as f64) * FRAME_SAMPLES as f64 + n as f64;
            *sample = ((t * 0.05).sin() * 3_000.0 + (t * 0.31).sin() * 900.0 * side) as i16;
        }
    }
    if at.is_multiple_of(500) {
        samples[0] = i16::MAX;
    }
    Frame { samples }
}

/// Left and right, by another decoder than any of ours.
fn decode(flac: &[u8]) -> (Vec<i16>, Vec<i16>) {
    let mut reader = claxon::FlacReader::new(flac).expect("header");
    let samples: Vec<i32> = reader.samples().collect::<Result<_, _>>().expect("samples");
    let side = |n| {
        samples
            .iter()
            .skip(n)
            .step_by(2)
            .map(|sample| *sample as i16)
            .collect()
    };
    (side(0), side(1))
}

fn clicks(side: &[i16]) -> Vec<usize> {
    (0..side.len()).filter(|at| side[*at] == i16::MAX).collect()
}

fn exported(path: &Path) -> (Vec<u8>, u64, End) {
    let mut flac = Vec::new();
    let (figures, end) = export(path, &KEY, &mut flac).expect("export");
    (flac, figures.samples, end)
}

fn new_file() -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().expect("dir");
    let path = dir.path().join("call.rec");
    (dir, path)
}

#[test]
fn ten_minutes_end_where_the_clock_says() {
    let (_dir, path) = new_file();
    let mut track = Track::create(&path, &KEY).expect("create");
    // The first number is any; some frames never come, some come twice.
    for at in 100..100 + FRAMES {
        if at % 1_000 != 3 {
            track.push(at, &heard(at), &sent(at)).expect("push");
        }
        if at.is_multiple_of(777) {
            track.push(at, &heard(at), &sent(at)).expect("again");
        }
    }
    let (figures, told) = track.finish().expect("finish");
    assert_eq!((figures.length_ms(), figures.missing), (600_000, 30));
    assert_eq!(sum(&path).expect("sum"), told);
    let (flac, samples, end) = exported(&path);
    assert_eq!((samples, end), (FRAMES * FRAME_SAMPLES as u64, End::Whole));
    let (left, right) = decode(&flac);
    assert_eq!((left.len(), right.len()), (samples as usize, samples as usize));
    // Every click of both sides is at its sample, also after ten minutes: within 20 ms is within 320 samples.
    let want: Vec<usize> = (100..100 + FRAMES)
        .filter(|at| at.is_multiple_of(500))
        .map(|at| (at - 100) as usize * FRAME_SAMPLES)
        .collect();
    assert_eq!(clicks(&left), want);
    let seven = 7 * FRAME_SAMPLES;
    let right_want: Vec<usize> = want
        .iter()
        .map(|at| at + seven)
        .filter(|at| *at < right.len())
        .collect();
    assert_eq!(clicks(&right), right_want);
    let ratio = told.octets as f64 / (samples as f64 * 4.0);
    println!("{} octets, {:.0} % of the samples", told.octets, ratio * 100.0);
    assert!(ratio < 0.6, "{ratio}");
}

#[test]
fn a_power_cut_keeps_all_but_the_last_second() {
    let (_dir, path) = new_file();
    let mut track = Track::create(&path, &KEY).expect("create");
    for at in 0..1_525 {
        track.push(at, &heard(at), &sent(at)).expect("push");
    }
    // 30.5 s were said; the power goes.
    drop(track);
    let (flac, samples, end) = exported(&path);
    assert!(matches!(end, End::Cut { .. }));
    assert_eq!(samples, 30 * 16_000, "all but half a second");
    let (left, _) = decode(&flac);
    assert_eq!(left.len() as u64, samples);
    assert_eq!(clicks(&left), [0, 160_000, 320_000]);

    // The last write was torn as well.
    let whole = fs::read(&path).expect("read");
    for cut in [1, 5, 60] {
        fs::write(&path, &whole[..whole.len() - cut]).expect("tear");
        let (end, repaired) = repair(&path, &KEY).expect("repair");
        assert!(matches!(end, End::Cut { sound } if sound == repaired.octets));
        assert_eq!(length(&path, &KEY).expect("length").0, 29 * 16_000, "cut {cut}");
        assert_eq!(sum(&path).expect("sum"), repaired);
        decode(&exported(&path).0);
    }
    let mut rubbish = whole.clone();
    let tail = rubbish.len() - 60;
    rubbish[tail..].fill(0);
    fs::write(&path, rubbish).expect("zeros");
    repair(&path, &KEY).expect("repair");
    assert_eq!(length(&path, &KEY).expect("length").0, 29 * 16_000);
}

#[test]
fn the_thread_records_and_counts_what_it_missed() {
    let (_dir, path) = new_file();
    let recording = Recording::spawn(&path, &KEY, u64::MAX).expect("spawn");
    // Far faster than a call: the queue is full at times, and time is kept all the same.
    for at in 0..5_000 {
        recording.try_push(at, &heard(at), &sent(at));
    }
    // The last frame comes when there is room.
    std::thread::sleep(std::time::Duration::from_millis(300));
    recording.try_push(5_000, &heard(5_000), &sent(5_000));
    let done = recording.finish().expect("thread").expect("opened");
    assert!(done.failed.is_none(), "{:?}", done.failed);
    assert_eq!(done.figures.samples, 5_001 * FRAME_SAMPLES as u64);
    assert_eq!(done.figures.missing, done.overruns);
    let (left, _) = decode(&exported(&path).0);
    assert_eq!(clicks(&left).last(), Some(&(5_000 * FRAME_SAMPLES)));
}

#[test]
fn a_recording_ends_at_its_bound() {
    let (_dir, path) = new_file();
    let recording = Recording::spawn(&path, &KEY, 50_000).expect("spawn");
    for at in 0..2_000 {
        recording.try_push(at, &heard(at), &sent(at));
        if at.is_multiple_of(200) {
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
    }
    let done = recording.finish().expect("thread").expect("opened");
    assert!(
        (50_000..150_000).contains(&done.sum.octets),
        "{}",
        done.sum.octets
    );
    assert_eq!(exported(&path).2, End::Whole);
}

/// `flac -t` and `sox` read what is exported. `scripts/setup.sh test` installs both.
#[test]
fn other_programs_open_it() {
    let (dir, path) = new_file();
    let mut track = Track::create(&path, &KEY).expect("create");
    for at in 0..1_234 {
        track.push(at, &heard(at), &sent(at)).expect("push");
    }
    drop(track);
    let (flac, samples, _) = exported(&path);
    let file = dir.path().join("call.flac");
    fs::write(&file, flac).expect("write");
    let tested = Command::new("flac")
        .arg("-t")
        .arg(&file)
        .output()
        .expect("flac: run scripts/setup.sh test");
    assert!(
        tested.status.success(),
        "{}",
        String::from_utf8_lossy(&tested.stderr)
    );
    let decoded = Command::new("flac")
        .args("-dsc --force-raw-format --endian=little --sign=signed".split(' '))
        .arg(&file)
        .output()
        .expect("flac");
    assert!(decoded.status.success());
    assert_eq!(decoded.stdout.len() as u64, samples * 4);
}
