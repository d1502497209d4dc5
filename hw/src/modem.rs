//! Modem: is there one behind a serial port, who made it, and can it carry voice?
//!
//! Asks `AT`, `ATI3` and `AT+FCLASS=?` (class 8 is voice, ITU-T V.253). Writing to a port may upset another device
//! that lives there, so ask only ports that a person or the configuration has named.

use std::io::ErrorKind;
use std::path::Path;
use std::time::Duration;

use serde::Serialize;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::{Instant, timeout_at};
use tokio_serial::{SerialPortBuilderExt, SerialStream};

use crate::HwError;

/// Modems take the speed of the first `AT` they hear; 8 kHz 8-bit audio each way needs at least 115 200 bit/s.
const BAUD: u32 = 115_200;
/// Longest answer to one question [bytes]; what comes beyond is not a modem.
const ANSWER_BYTES: usize = 4096;
/// Often the first `AT` is eaten by speed detection or by what was typed before.
const GREETINGS: u32 = 3;

/// What a modem said about itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Modem {
    /// The answer to `ATI3` in one line; `None` if it has none.
    pub identity: Option<String>,
    /// The service classes it offers: 0 data, 1 and 2 fax, 8 voice.
    pub classes: Vec<String>,
    /// Whether it can carry voice (class 8).
    pub voice: bool,
}

/// Opens a serial port and asks what is there, within `timeout` altogether.
///
/// # Errors
/// [`HwError::Forbidden`] and [`HwError::Open`] when the port cannot be opened, [`HwError::Silent`] when nothing
/// answers, [`HwError::Line`] when the device goes away meanwhile.
pub async fn probe(path: &Path, timeout: Duration) -> Result<Modem, HwError> {
    probe_stream(open(path)?, timeout).await
}

fn open(path: &Path) -> Result<SerialStream, HwError> {
    tokio_serial::new(path.to_string_lossy(), BAUD)
        .open_native_async()
        .map_err(|source| match source.kind() {
            tokio_serial::ErrorKind::Io(ErrorKind::PermissionDenied) => HwError::Forbidden {
                path: path.to_owned(),
            },
            _ => HwError::Open {
                path: path.to_owned(),
                source,
            },
        })
}

/// [`probe`] on a line that is already open.
///
/// # Errors
/// [`HwError::Silent`] and [`HwError::Line`], as in [`probe`].
pub async fn probe_stream(
    line: impl AsyncRead + AsyncWrite + Unpin,
    timeout: Duration,
) -> Result<Modem, HwError> {
    let mut asker = Asker {
        line,
        waited: timeout,
        end: Instant::now() + timeout,
    };
    asker.greet().await?;
    let identity = asker.ask("ATI3", asker.end).await?.lines();
    let identity = identity
        .filter(|lines| !lines.is_empty())
        .map(|lines| lines.join(" "));
    let classes = asker.ask("AT+FCLASS=?", asker.end).await?.lines();
    let classes = classes.map_or_else(Vec::new, |lines| split_classes(&lines.join(",")));
    let voice = classes
        .iter()
        .any(|class| class == "8" || class.starts_with("8."));
    Ok(Modem {
        identity,
        classes,
        voice,
    })
}

/// What came back for one command.
#[derive(Debug, PartialEq, Eq)]
enum Answer {
    /// `OK`, and the lines before it.
    Ok(Vec<String>),
    /// `ERROR`: the modem does not know the command.
    Error,
}

impl Answer {
    fn lines(self) -> Option<Vec<String>> {
        match self {
            Answer::Ok(lines) => Some(lines),
            Answer::Error => None,
        }
    }
}

struct Asker<L> {
    line: L,
    /// The whole probe's time, for the message.
    waited: Duration,
    end: Instant,
}

impl<L: AsyncRead + AsyncWrite + Unpin> Asker<L> {
    /// Gets the modem's attention, and answers in words rather than numbers, without echo.
    async fn greet(&mut self) -> Result<(), HwError> {
        for left in (1..=GREETINGS).rev() {
            let now = Instant::now();
            let share = self.end.saturating_duration_since(now) / (left + 1);
            match self.ask("ATQ0V1E0", now + share).await {
                Ok(Answer::Ok(_)) => return Ok(()),
                // Garbage in front of the first AT.
                Ok(Answer::Error) | Err(HwError::Silent { .. }) => {}
                Err(broken) => return Err(broken),
            }
        }
        Err(self.silent())
    }

    /// Sends one command and reads up to its final result code.
    async fn ask(&mut self, command: &str, until: Instant) -> Result<Answer, HwError> {
        let silent = self.silent();
        let exchange = async {
            self.line.write_all(format!("{command}\r").as_bytes()).await?;
            let mut heard = Vec::new();
            let mut chunk = [0; 256];
            loop {
                if let Some(answer) = parse_answer(&heard, command) {
                    return Ok(answer);
                }
                match self.line.read(&mut chunk).await? {
                    0 => return Err(HwError::Line(ErrorKind::UnexpectedEof.into())),
                    _ if heard.len() >= ANSWER_BYTES => return Err(silent),
                    read => heard.extend_from_slice(&chunk[..read]),
                }
            }
        };
        match timeout_at(until, exchange).await {
            Ok(answer) => answer,
            Err(_) => Err(self.silent()),
        }
    }

    fn silent(&self) -> HwError {
        HwError::Silent { waited: self.waited }
    }
}

/// The answer in what was heard so far, once its final result code is complete.
fn parse_answer(heard: &[u8], command: &str) -> Option<Answer> {
    let text = String::from_utf8_lossy(heard);
    let mut lines = Vec::new();
    // Only whole lines count: an OK that is still arriving could be anything.
    let (whole, _) = text.rsplit_once(['\r', '\n'])?;
    for line in whole
        .split(['\r', '\n'])
        .map(str::trim)
        .filter(|line| !line.is_empty())
    {
        match line {
            "OK" => return Some(Answer::Ok(lines)),
            "ERROR" => return Some(Answer::Error),
            // Comes by itself when somebody happens to call.
            "RING" => {}
            echo if echo == command => {}
            other => lines.push(other.chars().filter(|c| !c.is_control()).collect()),
        }
    }
    None
}

/// `0,1,2,8` or `(0-2,8.0)` or a line each: makers differ.
fn split_classes(answer: &str) -> Vec<String> {
    let mut classes = Vec::new();
    let answer = answer.trim_start_matches("+FCLASS:");
    for part in answer
        .split([',', '(', ')'])
        .map(|part| part.trim().trim_matches('"'))
    {
        let range = part
            .split_once('-')
            .and_then(|(from, to)| Some((from.parse::<u8>().ok()?, to.parse::<u8>().ok()?)));
        match range {
            Some((from, to)) => classes.extend((from..=to).map(|class| class.to_string())),
            None if part.is_empty() => {}
            None => classes.push(part.to_owned()),
        }
    }
    classes
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;
    use std::os::fd::OwnedFd;
    use std::path::PathBuf;

    /// A modem that knows some commands by heart and answers ERROR to every other.
    async fn scripted(mut line: SerialStream, script: &[(&str, &str)], echo: bool, mut deaf_to: u32) {
        let mut heard = Vec::new();
        let mut chunk = [0; 64];
        // The peer's end reads as EIO on a pty.
        while let Ok(read @ 1..) = line.read(&mut chunk).await {
            heard.extend_from_slice(&chunk[..read]);
            while let Some(end) = heard.iter().position(|&b| b == b'\r') {
                let command: Vec<u8> = heard.drain(..=end).collect();
                if deaf_to > 0 {
                    deaf_to -= 1;
                    continue;
                }
                let known = script
                    .iter()
                    .find(|(known, _)| known.as_bytes() == &command[..end]);
                let answer = known.map_or("\r\nERROR\r\n", |(_, answer)| answer);
                if echo {
                    line.write_all(&command).await.unwrap();
                }
                line.write_all(answer.as_bytes()).await.unwrap();
            }
        }
    }

    async fn ask(script: &'static [(&str, &str)], echo: bool, deaf_to: u32) -> Result<Modem, HwError> {
        let (ours, theirs) = SerialStream::pair().unwrap();
        let modem = tokio::spawn(scripted(theirs, script, echo, deaf_to));
        let answer = probe_stream(ours, Duration::from_millis(800)).await;
        modem.abort();
        answer
    }

    fn modem(identity: Option<&str>, classes: &[&str], voice: bool) -> Modem {
        let classes = classes.iter().map(|&class| class.to_owned()).collect();
        Modem {
            identity: identity.map(str::to_owned),
            classes,
            voice,
        }
    }

    #[tokio::test]
    async fn tells_voice_modems_from_others() {
        type Script = &'static [(&'static str, &'static str)];
        let cases: &[(&str, Script, Modem)] = &[
            (
                "a voice modem",
                &[
                    ("ATQ0V1E0", "\r\nOK\r\n"),
                    ("ATI3", "\r\nCX93001-EIS_V0.2013-V92\r\n\r\nOK\r\n"),
                    ("AT+FCLASS=?", "\r\n0,1,1.0,2,8\r\n\r\nOK\r\n"),
                ],
                modem(
                    Some("CX93001-EIS_V0.2013-V92"),
                    &["0", "1", "1.0", "2", "8"],
                    true,
                ),
            ),
            (
                "brackets, ranges, two lines of identity, a ring in between",
                &[
                    ("ATQ0V1E0", "\r\nRING\r\n\r\nOK\r\n"),
                    (
                        "ATI3",
                        "\r\nU.S. Robotics\r\n56K V1.2.1C\r\n\r\nRING\r\n\r\nOK\r\n",
                    ),
                    ("AT+FCLASS=?", "\r\n(0-2,8.0)\r\n\r\nOK\r\n"),
                ],
                modem(Some("U.S. Robotics 56K V1.2.1C"), &["0", "1", "2", "8.0"], true),
            ),
            (
                "a fax modem",
                &[
                    ("ATQ0V1E0", "\r\nOK\r\n"),
                    ("ATI3", "\r\nFaxmodem\r\n\r\nOK\r\n"),
                    ("AT+FCLASS=?", "\r\n0,1,2,2.0\r\n\r\nOK\r\n"),
                ],
                modem(Some("Faxmodem"), &["0", "1", "2", "2.0"], false),
            ),
            (
                "a mobile modem without either",
                &[("ATQ0V1E0", "\r\nOK\r\n")],
                modem(None, &[], false),
            ),
        ];
        for (case, script, want) in cases {
            for echo in [false, true] {
                let got = ask(script, echo, 0)
                    .await
                    .unwrap_or_else(|error| panic!("{case}: {error}"));
                assert_eq!(got, *want, "{case}, echo {echo}");
            }
        }
    }

    #[tokio::test]
    async fn asks_again_when_the_first_at_is_eaten() {
        let modem = ask(
            &[("ATQ0V1E0", "\r\nOK\r\n"), ("AT+FCLASS=?", "\r\n8\r\n\r\nOK\r\n")],
            false,
            1,
        )
        .await;
        assert!(modem.unwrap().voice);
    }

    #[tokio::test]
    async fn silence_and_chatter_are_no_modem() {
        let silent = ask(&[], false, u32::MAX).await;
        assert!(matches!(silent, Err(HwError::Silent { .. })), "{silent:?}");

        let (ours, mut theirs) = SerialStream::pair().unwrap();
        let chatter = tokio::spawn(async move { while theirs.write_all(b"$GPGGA,1,2\r\n").await.is_ok() {} });
        let got = probe_stream(ours, Duration::from_millis(400)).await;
        chatter.abort();
        assert!(matches!(got, Err(HwError::Silent { .. })), "{got:?}");
    }

    #[tokio::test]
    async fn a_pulled_plug_is_said_so() {
        let (ours, theirs) = SerialStream::pair().unwrap();
        drop(theirs);
        let got = probe_stream(ours, Duration::from_millis(400)).await;
        assert!(matches!(got, Err(HwError::Line(_))), "{got:?}");
    }

    /// A pty whose device file can be opened by name, as a modem's can.
    fn named_pty() -> (File, PathBuf) {
        use nix::fcntl::OFlag;
        use nix::pty::{grantpt, posix_openpt, ptsname_r, unlockpt};
        let master = posix_openpt(OFlag::O_RDWR | OFlag::O_NOCTTY).unwrap();
        grantpt(&master).unwrap();
        unlockpt(&master).unwrap();
        let path = ptsname_r(&master).unwrap();
        (File::from(OwnedFd::from(master)), path.into())
    }

    #[tokio::test]
    async fn opens_a_port_by_its_path() {
        let (mut master, path) = named_pty();
        std::thread::spawn(move || {
            use std::io::{Read, Write};
            let mut byte = [0];
            let mut command = Vec::new();
            while master.read_exact(&mut byte).is_ok() {
                command.push(byte[0]);
                if byte == *b"\r" {
                    let answer: &[u8] = match command.as_slice() {
                        b"AT+FCLASS=?\r" => b"\r\n0,8\r\n\r\nOK\r\n",
                        _ => b"\r\nOK\r\n",
                    };
                    command.clear();
                    if master.write_all(answer).is_err() {
                        return;
                    }
                }
            }
        });
        let got = probe(&path, Duration::from_secs(2)).await.unwrap();
        assert_eq!(got, modem(None, &["0", "8"], true));
    }

    #[tokio::test]
    async fn a_missing_port_is_said_so() {
        let missing = Path::new("/dev/attendant-test-no-such-port");
        let got = probe(missing, Duration::from_millis(100)).await;
        let Err(HwError::Open { path, .. }) = got else {
            panic!("{got:?}")
        };
        assert_eq!(path, missing);
    }
}
