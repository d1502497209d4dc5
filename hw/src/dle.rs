//! DLE shielding: audio and events of a voice modem on one byte stream.
//!
//! While a modem transmits or receives voice, every byte is audio, except that DLE (0x10) starts a shielded
//! code. An audio byte 0x10 travels as DLE DLE; the modem may shorten two of them to DLE SUB.
//!
//! ```text
//!          not DLE: audio            not a code: event
//!         ,------.                  ,-----------.
//!         v      |       DLE        |           |
//!        Audio --'---------------> Shielded ----'--> Audio
//!          ^                          | X
//!          `------- DLE . ---------- Report      (bounded: a report that never ends is given up)
//! ```
//!
//! Source: ITU-T V.253 (codes to and from the modem), TIA/EIA IS-101 before it.

/// Data link escape: starts a shielded code.
const DLE: u8 = 0x10;
/// End of text: ends a voice stream in either direction.
const ETX: u8 = 0x03;
/// Substitute: stands for two audio bytes 0x10.
const SUB: u8 = 0x1a;
/// Longest complex event report kept [bytes]; a caller's name and number fit several times.
const REPORT_BYTES: usize = 256;

/// What a modem says about its line, in between the audio.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A DTMF key: `0`–`9`, `*`, `#`, `A`–`D`.
    Digit(char),
    /// A DTMF tone has begun; its [`Event::Digit`] follows.
    DigitStart,
    /// A DTMF tone has ended.
    DigitEnd,
    /// Another call rings while this one is up, or a ring on a line that is being watched.
    Ring,
    /// Ringback tone: the far end's telephone rings.
    Ringback,
    /// Busy tone. On lines without loop-current supervision this is how the far end's hang-up sounds.
    Busy,
    /// Dial tone: the far end is gone.
    DialTone,
    /// Silence from the start: nobody ever spoke ("presumed hangup").
    Silence,
    /// Silence after speech ("presumed end of message").
    Quiet,
    /// The telephone beside the modem was put down.
    LocalOnHook,
    /// The telephone beside the modem was picked up.
    LocalOffHook,
    /// Loop current was interrupted: the exchange reports the far end's hang-up.
    LoopBreak,
    /// Loop polarity was reversed.
    LoopReversal,
    /// A fax machine calls (CNG, 1100 Hz).
    FaxCalling,
    /// A data modem calls (1300 Hz).
    DataCalling,
    /// A fax or data modem answers (2100 or 2225 Hz).
    DataAnswer,
    /// The modem lost received audio: we read too slowly.
    Overrun,
    /// The modem had nothing to transmit: we wrote too slowly.
    Underrun,
    /// The modem ended the voice stream; command mode follows.
    End,
    /// A complex event report (caller number and the like), as the modem wrote it.
    Report(Vec<u8>),
    /// A code that V.253 reserves or a maker added.
    Unknown(u8),
}

impl Event {
    fn from_code(code: u8) -> Event {
        match code {
            b'0'..=b'9' | b'*' | b'#' | b'A'..=b'D' => Event::Digit(char::from(code)),
            b'/' => Event::DigitStart,
            b'~' => Event::DigitEnd,
            b'R' => Event::Ring,
            b'r' => Event::Ringback,
            b'b' => Event::Busy,
            b'd' => Event::DialTone,
            b's' => Event::Silence,
            b'q' => Event::Quiet,
            b'h' => Event::LocalOnHook,
            b'H' => Event::LocalOffHook,
            b'l' => Event::LoopBreak,
            b'L' => Event::LoopReversal,
            b'c' => Event::FaxCalling,
            b'e' => Event::DataCalling,
            b'a' | b'f' => Event::DataAnswer,
            b'o' => Event::Overrun,
            b'u' => Event::Underrun,
            ETX => Event::End,
            other => Event::Unknown(other),
        }
    }
}

/// One thing taken out of the modem's stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decoded {
    /// One byte of audio in the format chosen by `AT+VSM`.
    Audio(u8),
    /// Something happened on the line.
    Event(Event),
}

#[derive(Debug, Default)]
enum State {
    #[default]
    Audio,
    Shielded,
    Report {
        text: Vec<u8>,
        shielded: bool,
    },
}

/// Takes the modem's stream apart. Chunks may end anywhere, also between DLE and its code.
#[derive(Debug, Default)]
pub struct Decoder {
    state: State,
}

impl Decoder {
    /// A decoder at the start of a voice stream (just after `CONNECT`).
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes bytes from the modem and hands out what they mean, in order.
    pub fn handle(&mut self, bytes: &[u8], mut out: impl FnMut(Decoded)) {
        for &byte in bytes {
            self.handle_byte(byte, &mut out);
        }
    }

    fn handle_byte(&mut self, byte: u8, out: &mut impl FnMut(Decoded)) {
        self.state = match std::mem::take(&mut self.state) {
            State::Audio if byte == DLE => State::Shielded,
            State::Audio => {
                out(Decoded::Audio(byte));
                State::Audio
            }
            State::Shielded => match byte {
                DLE => {
                    out(Decoded::Audio(DLE));
                    State::Audio
                }
                SUB => {
                    out(Decoded::Audio(DLE));
                    out(Decoded::Audio(DLE));
                    State::Audio
                }
                b'X' => State::Report {
                    text: Vec::new(),
                    shielded: false,
                },
                code => {
                    out(Decoded::Event(Event::from_code(code)));
                    State::Audio
                }
            },
            State::Report {
                text,
                shielded: false,
            } if byte == DLE => State::Report { text, shielded: true },
            State::Report { text, shielded: true } if byte == b'.' => {
                out(Decoded::Event(Event::Report(text)));
                State::Audio
            }
            // The end of the stream inside a report: the report is lost, the end is not.
            State::Report { shielded: true, .. } if byte == ETX => {
                out(Decoded::Event(Event::End));
                State::Audio
            }
            State::Report { text, .. } if text.len() >= REPORT_BYTES => {
                out(Decoded::Event(Event::Unknown(b'X')));
                State::Audio
            }
            State::Report { mut text, .. } => {
                text.push(byte);
                State::Report {
                    text,
                    shielded: false,
                }
            }
        };
    }
}

/// What we tell the modem in between the audio.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Command {
    /// The voice stream ends here; what is buffered is still played.
    EndTransmit,
    /// Drop what is buffered and not yet played: this is how barge-in silences a modem.
    ClearTransmit,
    /// Stop receiving, and drop what is buffered.
    AbortReceive,
    /// Stop receiving; what is buffered still comes, then [`Event::End`].
    EndReceive,
    /// Leave duplex voice (`AT+VTR`).
    EndDuplex,
    /// Hold playing without losing what is buffered.
    Pause,
    /// Go on after [`Command::Pause`].
    Resume,
}

impl Command {
    /// The command as it goes over the line.
    pub fn bytes(self) -> [u8; 2] {
        let code = match self {
            Command::EndTransmit => ETX,
            Command::ClearTransmit => 0x18, // CAN
            Command::AbortReceive => b'!',
            Command::EndReceive => 0x1b, // ESC
            Command::EndDuplex => b'^',
            Command::Pause => b'p',
            Command::Resume => b'r',
        };
        [DLE, code]
    }
}

/// Shields audio for the way to the modem: every 0x10 is doubled. Appends to `out`.
pub fn encode(audio: &[u8], out: &mut Vec<u8>) {
    for &byte in audio {
        if byte == DLE {
            out.push(DLE);
        }
        out.push(byte);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn decode(chunks: &[&[u8]]) -> Vec<Decoded> {
        let mut decoder = Decoder::new();
        let mut got = Vec::new();
        for chunk in chunks {
            decoder.handle(chunk, |item| got.push(item));
        }
        got
    }

    fn audio(bytes: &[u8]) -> Vec<Decoded> {
        bytes.iter().map(|&b| Decoded::Audio(b)).collect()
    }

    #[test]
    fn takes_the_stream_apart() {
        use Decoded::{Audio, Event as E};
        let cases: &[(&str, &[u8], Vec<Decoded>)] = &[
            ("plain audio", b"\x80\x7f\x00", audio(b"\x80\x7f\x00")),
            ("doubled DLE is one audio byte", b"\x10\x10", audio(b"\x10")),
            ("DLE SUB is two audio bytes", b"\x10\x1a", audio(b"\x10\x10")),
            ("SUB alone is audio", b"\x1a", audio(b"\x1a")),
            (
                "a digit between audio",
                b"\x80\x105\x81",
                vec![Audio(0x80), E(Event::Digit('5')), Audio(0x81)],
            ),
            (
                "keypad letters and symbols",
                b"\x10A\x10*\x10#",
                vec![E(Event::Digit('A')), E(Event::Digit('*')), E(Event::Digit('#'))],
            ),
            (
                "tone start and end",
                b"\x10/\x109\x10~",
                vec![E(Event::DigitStart), E(Event::Digit('9')), E(Event::DigitEnd)],
            ),
            (
                "ring, ringback, busy, dial tone",
                b"\x10R\x10r\x10b\x10d",
                vec![
                    E(Event::Ring),
                    E(Event::Ringback),
                    E(Event::Busy),
                    E(Event::DialTone),
                ],
            ),
            (
                "silence is not quiet",
                b"\x10s\x10q",
                vec![E(Event::Silence), E(Event::Quiet)],
            ),
            (
                "hook and loop",
                b"\x10h\x10H\x10l\x10L",
                vec![
                    E(Event::LocalOnHook),
                    E(Event::LocalOffHook),
                    E(Event::LoopBreak),
                    E(Event::LoopReversal),
                ],
            ),
            (
                "fax and data",
                b"\x10c\x10e\x10a\x10f",
                vec![
                    E(Event::FaxCalling),
                    E(Event::DataCalling),
                    E(Event::DataAnswer),
                    E(Event::DataAnswer),
                ],
            ),
            (
                "buffers",
                b"\x10o\x10u",
                vec![E(Event::Overrun), E(Event::Underrun)],
            ),
            ("end of stream", b"\x80\x10\x03", vec![Audio(0x80), E(Event::End)]),
            ("a maker's own code", b"\x10Z", vec![E(Event::Unknown(b'Z'))]),
            (
                "a report is not audio",
                b"\x10XNMBR=1\r\n\x10.\x80",
                vec![E(Event::Report(b"NMBR=1\r\n".to_vec())), Audio(0x80)],
            ),
            (
                "the end inside a report",
                b"\x10XNMBR\x10\x03",
                vec![E(Event::End)],
            ),
        ];
        for (case, bytes, want) in cases {
            assert_eq!(decode(&[bytes]), *want, "{case}");
            let single: Vec<&[u8]> = bytes.chunks(1).collect();
            assert_eq!(decode(&single), *want, "{case}, byte by byte");
        }
    }

    #[test]
    fn gives_up_a_report_that_never_ends() {
        let mut bytes = b"\x10X".to_vec();
        bytes.extend([b'.'; REPORT_BYTES + 1]);
        bytes.extend(b"\x80");
        let want = [Decoded::Event(Event::Unknown(b'X')), Decoded::Audio(0x80)];
        assert_eq!(decode(&[&bytes]), want);
    }

    #[test]
    fn commands_are_never_mistaken_for_audio() {
        for command in [
            Command::EndTransmit,
            Command::ClearTransmit,
            Command::AbortReceive,
            Command::EndReceive,
            Command::EndDuplex,
            Command::Pause,
            Command::Resume,
        ] {
            let [shield, code] = command.bytes();
            assert_eq!(shield, DLE);
            assert!(code != DLE && code != SUB, "{command:?} would read as audio");
        }
    }

    proptest! {
        #[test]
        fn audio_survives_the_line(audio_bytes: Vec<u8>, cut in 1usize..32) {
            let mut line = Vec::new();
            encode(&audio_bytes, &mut line);
            let chunks: Vec<&[u8]> = line.chunks(cut).collect();
            prop_assert_eq!(decode(&chunks), audio(&audio_bytes));
        }

        #[test]
        fn any_bytes_are_bounded_and_cut_anywhere(line: Vec<u8>, cut in 1usize..32) {
            let whole = decode(&[&line]);
            let chunks: Vec<&[u8]> = line.chunks(cut).collect();
            prop_assert_eq!(&decode(&chunks), &whole);
            // DLE SUB is the only code that gives as much as it takes.
            prop_assert!(whole.len() <= line.len());
        }
    }
}
