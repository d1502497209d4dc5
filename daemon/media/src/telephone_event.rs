//! Telephone events: digits as RTP payload, apart from the sound. Source: RFC 4733 §2.
//!
//! ```text
//! receiver: a digit counts once per event, and an event is its RTP timestamp (§2.2.2): whichever of its
//!           packets arrives first reports it, so the loss of the first or of all end packets does no harm.
//! sender:   Idle --digit--> Sounding (one update per ptime) --> Ending (end bit, sent three times) --> Gap --> Idle
//! ```

use crate::MediaError;
use crate::rtp::timestamp_ahead;

/// Octets of a payload.
pub const PAYLOAD_OCTETS: usize = 4;
/// Length of a digit we send \[ptimes\]: 100 ms, well over the 40 ms that every receiver takes.
const TONE_PTIMES: u16 = 5;
/// How often the end is sent (§2.5.1.4: three times in all).
const END_PACKETS: u16 = 3;
/// Silence between digits \[ptimes\]: 60 ms, over the 40 ms minimum of ITU-T Q.24.
const GAP_PTIMES: u16 = 3;
/// Level of the tone we claim \[-dBm0\].
const VOLUME: u8 = 10;
/// How the hook, pressed for a moment, stands among the digits; PBXs write it so in dial strings.
pub const FLASH: char = '!';
/// Digits that may wait.
const QUEUE_DIGITS: usize = 32;

/// One payload (§2.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Event {
    /// Event code; 0..=15 are the DTMF digits, 16 is the hook's flash.
    pub code: u8,
    /// The event is over.
    pub end: bool,
    /// Level of the tone \[-dBm0\], 0..=63.
    pub volume: u8,
    /// Length so far \[RTP clock units\].
    pub duration: u16,
}

impl Event {
    /// Reads a payload; octets after the first event are ignored.
    ///
    /// # Errors
    /// [`MediaError::MalformedEvent`] when shorter than one event.
    pub fn parse(payload: &[u8]) -> Result<Event, MediaError> {
        let Some(&[code, flags, hi, lo]) = payload.first_chunk::<PAYLOAD_OCTETS>() else {
            return Err(MediaError::MalformedEvent {
                octets: payload.len(),
            });
        };
        let duration = u16::from_be_bytes([hi, lo]);
        Ok(Event {
            code,
            end: flags & 0x80 != 0,
            volume: flags & 0x3f,
            duration,
        })
    }

    /// The payload on the wire.
    #[must_use]
    pub fn to_octets(self) -> [u8; PAYLOAD_OCTETS] {
        let [hi, lo] = self.duration.to_be_bytes();
        [
            self.code,
            (u8::from(self.end) << 7) | (self.volume & 0x3f),
            hi,
            lo,
        ]
    }

    /// The digit, if the code is one (§3.2: 0-9, *, #, A-D), or [`FLASH`].
    #[must_use]
    pub fn digit(self) -> Option<char> {
        match self.code {
            0..=9 => Some(char::from(b'0' + self.code)),
            10 => Some('*'),
            11 => Some('#'),
            12..=15 => Some(char::from(b'A' + self.code - 12)),
            16 => Some(FLASH),
            _ => None,
        }
    }
}

/// The event code of a digit (§3.2).
///
/// # Errors
/// [`MediaError::NotADigit`].
pub fn code_of(digit: char) -> Result<u8, MediaError> {
    match digit {
        '0'..='9' => Ok(digit as u8 - b'0'),
        '*' => Ok(10),
        '#' => Ok(11),
        'A'..='D' => Ok(digit as u8 - b'A' + 12),
        'a'..='d' => Ok(digit as u8 - b'a' + 12),
        _ => Err(MediaError::NotADigit { digit }),
    }
}

/// Finds each digit once in a stream of event packets.
#[derive(Clone, Debug, Default)]
pub struct Receiver {
    /// Timestamp of the newest event, the one already reported.
    last: Option<u32>,
}

impl Receiver {
    /// Nothing heard yet. Also the thing to do when the peer's SSRC changes.
    #[must_use]
    pub fn new() -> Receiver {
        Receiver::default()
    }

    /// Takes one event packet; `timestamp` is its RTP header's. Gives the digit the first time it is seen.
    pub fn handle(&mut self, timestamp: u32, event: Event) -> Option<char> {
        // A timestamp that went back is a late packet of an older event, already reported.
        if self
            .last
            .is_some_and(|last| timestamp_ahead(timestamp, last) <= 0)
        {
            return None;
        }
        self.last = Some(timestamp);
        event.digit()
    }
}

/// What the sender wants on the wire in place of this ptime's voice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outgoing {
    /// Set on the first packet of an event (§2.2.1).
    pub marker: bool,
    /// The timestamp of the event's start \[RTP clock units\]; the same in all its packets.
    pub timestamp: u32,
    /// The payload.
    pub payload: [u8; PAYLOAD_OCTETS],
}

#[derive(Clone, Copy, Debug)]
enum Sending {
    Idle,
    Sounding { code: u8, start: u32, ptimes: u16 },
    Ending { code: u8, start: u32, sent: u16 },
    Gap { ptimes: u16 },
}

/// Sends queued digits, one packet per ptime. Allocates nothing.
#[derive(Clone, Debug)]
pub struct Sender {
    state: Sending,
    queue: [u8; QUEUE_DIGITS],
    waiting: usize,
}

impl Sender {
    /// Nothing to send.
    #[must_use]
    pub fn new() -> Sender {
        Sender {
            state: Sending::Idle,
            queue: [0; QUEUE_DIGITS],
            waiting: 0,
        }
    }

    /// Queues an event code; `false` when 32 already wait and it was dropped.
    pub fn push(&mut self, code: u8) -> bool {
        let Some(place) = self.queue.get_mut(self.waiting) else {
            return false;
        };
        *place = code;
        self.waiting += 1;
        true
    }

    /// Whether the next ptime may carry voice as far as this sender is concerned.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        matches!(self.state, Sending::Idle) && self.waiting == 0
    }

    /// Call once per ptime with the voice clock's `timestamp` and the clock units in a ptime. `None`: send voice.
    pub fn poll(&mut self, timestamp: u32, ptime_units: u16) -> Option<Outgoing> {
        if let Sending::Idle = self.state {
            let code = self.take()?;
            self.state = Sending::Sounding {
                code,
                start: timestamp,
                ptimes: 0,
            };
        }
        match self.state {
            Sending::Idle => None,
            Sending::Sounding { code, start, ptimes } => {
                let ptimes = ptimes + 1;
                self.state = if ptimes < TONE_PTIMES {
                    Sending::Sounding { code, start, ptimes }
                } else {
                    Sending::Ending { code, start, sent: 0 }
                };
                Some(outgoing(code, start, ptimes, false, ptime_units))
            }
            Sending::Ending { code, start, sent } => {
                let sent = sent + 1;
                self.state = if sent < END_PACKETS {
                    Sending::Ending { code, start, sent }
                } else {
                    Sending::Gap { ptimes: 0 }
                };
                Some(outgoing(code, start, TONE_PTIMES, true, ptime_units))
            }
            Sending::Gap { ptimes } => {
                let ptimes = ptimes + 1;
                self.state = if ptimes < GAP_PTIMES {
                    Sending::Gap { ptimes }
                } else {
                    Sending::Idle
                };
                None
            }
        }
    }

    /// Takes the next waiting event code, for a peer to whom digits are sent as sound.
    pub fn take(&mut self) -> Option<u8> {
        self.waiting = self.waiting.checked_sub(1)?;
        let code = self.queue[0];
        self.queue.copy_within(1.., 0);
        Some(code)
    }
}

impl Default for Sender {
    fn default() -> Self {
        Sender::new()
    }
}

fn outgoing(code: u8, timestamp: u32, ptimes: u16, end: bool, ptime_units: u16) -> Outgoing {
    let duration = ptimes.saturating_mul(ptime_units);
    let payload = Event {
        code,
        end,
        volume: VOLUME,
        duration,
    }
    .to_octets();
    Outgoing {
        marker: ptimes == 1 && !end,
        timestamp,
        payload,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn send(digits: &str) -> Vec<Outgoing> {
        let mut sender = Sender::new();
        for digit in digits.chars() {
            assert!(sender.push(code_of(digit).unwrap()));
        }
        (0..1000u32)
            .filter_map(|tick| sender.poll(tick * 160, 160))
            .collect()
    }

    #[test]
    fn a_digit_has_the_shape_of_the_rfc() {
        let packets = send("5");
        assert_eq!(packets.len(), 8);
        assert!(packets[0].marker && packets[1..].iter().all(|packet| !packet.marker));
        assert!(packets.iter().all(|packet| packet.timestamp == 0));
        let events: Vec<Event> = packets
            .iter()
            .map(|packet| Event::parse(&packet.payload).unwrap())
            .collect();
        let durations: Vec<u16> = events.iter().map(|event| event.duration).collect();
        assert_eq!(durations, [160, 320, 480, 640, 800, 800, 800, 800]);
        assert_eq!(events.iter().filter(|event| event.end).count(), 3);
        assert!(events.iter().all(|event| event.digit() == Some('5')));
    }

    #[test]
    fn queue_is_bounded() {
        let mut sender = Sender::new();
        assert_eq!((0..40).filter(|_| sender.push(1)).count(), QUEUE_DIGITS);
        assert!(!sender.is_idle());
        assert!(code_of('x').is_err());
    }

    proptest! {
        /// Whatever is lost or swapped, every digit of which one packet arrives is heard exactly once.
        #[test]
        fn digits_survive_loss(digits in "[0-9*#A-D]{1,12}", kept in proptest::collection::vec(0u8..8, 12)) {
            let packets = send(&digits);
            let mut receiver = Receiver::new();
            let mut heard = String::new();
            for (event, keep) in packets.chunks(8).zip(kept) {
                for packet in &event[usize::from(keep)..] {
                    heard.extend(receiver.handle(packet.timestamp, Event::parse(&packet.payload).unwrap()));
                }
            }
            prop_assert_eq!(heard, digits);
        }

        #[test]
        fn random_payloads_never_panic(payload in proptest::collection::vec(any::<u8>(), 0..8)) {
            if let Ok(event) = Event::parse(&payload) {
                prop_assert_eq!(&event.to_octets()[2..], &payload[2..4]);
            }
        }
    }

    #[test]
    fn codes_are_digits_or_the_hook() {
        let digit = |code| {
            let (end, volume, duration) = (false, 10, 160);
            Event {
                code,
                end,
                volume,
                duration,
            }
            .digit()
        };
        let all: String = (0..=16).filter_map(digit).collect();
        assert_eq!(all, "0123456789*#ABCD!");
        assert!((17..=255).all(|code| digit(code).is_none()));
    }

    #[test]
    fn a_late_packet_of_an_older_event_is_ignored() {
        let mut receiver = Receiver::new();
        let event = |code| Event {
            code,
            end: true,
            volume: 0,
            duration: 800,
        };
        assert_eq!(receiver.handle(u32::MAX - 100, event(1)), Some('1'));
        assert_eq!(receiver.handle(700, event(2)), Some('2'));
        assert_eq!(receiver.handle(u32::MAX - 100, event(1)), None);
        assert_eq!(receiver.handle(700, event(2)), None);
    }
}
