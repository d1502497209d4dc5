//! Opening: what the peer sends, checked, decrypted, and each packet taken once. Source: RFC 3711 §3.3, §3.4.

use hmac::Mac;

use super::session::Session;
use super::{
    ENCRYPTED, MasterKey, RTCP_CLEAR_OCTETS, RTCP_INDEX_OCTETS, RTCP_TAG_OCTETS, Suite, rtcp_ssrc, stream_of,
};
use crate::MediaError;
use crate::rtp;

/// Streams of one peer whose packets are told apart: it changes its SSRC at a transfer, not at every packet.
const STREAMS: usize = 4;

/// What is known of one received stream.
#[derive(Clone, Copy, Default)]
struct Received {
    ssrc: u32,
    /// Highest index so far; none: unused.
    highest: Option<u64>,
    /// Bit n: `highest - n` was received.
    window: u64,
    /// For the choice of the one that must give way.
    used: u64,
}

impl Received {
    /// §3.3.1: the index nearest to the highest one whose lower half is `seq`.
    fn index_of(&self, seq: u16) -> u64 {
        let Some(highest) = self.highest else {
            return u64::from(seq);
        };
        let ahead = seq.wrapping_sub(highest as u16) as i16;
        highest
            .checked_add_signed(i64::from(ahead))
            .unwrap_or(u64::from(seq))
    }

    /// §3.3.2: before the window, or in it and seen.
    fn is_replay(&self, index: u64) -> bool {
        let Some(highest) = self.highest else {
            return false;
        };
        match highest.checked_sub(index) {
            Some(behind @ 0..=63) => self.window >> behind & 1 == 1,
            Some(_) => true,
            None => false,
        }
    }

    fn note(&mut self, index: u64, now: u64) {
        self.used = now;
        let highest = self.highest.unwrap_or(index);
        if index >= highest {
            let ahead = u32::try_from(index - highest).unwrap_or(u32::MAX);
            self.window = self.window.checked_shl(ahead).unwrap_or(0) | 1;
            self.highest = Some(index);
        } else {
            self.window |= 1u64.checked_shl((highest - index) as u32).unwrap_or(0);
        }
    }
}

/// Streams of one kind, by SSRC.
#[derive(Clone, Copy, Default)]
struct Streams {
    streams: [Received; STREAMS],
    packets: u64,
}

impl Streams {
    fn of(&self, ssrc: u32) -> Received {
        let known = self
            .streams
            .iter()
            .find(|s| s.ssrc == ssrc && s.highest.is_some());
        known.copied().unwrap_or(Received {
            ssrc,
            ..Received::default()
        })
    }

    /// An authentic packet of `stream` came; a new stream takes the place of the one unused for longest.
    fn note(&mut self, mut stream: Received, index: u64) {
        self.packets += 1;
        stream.note(index, self.packets);
        let known = self
            .streams
            .iter()
            .position(|s| s.ssrc == stream.ssrc && s.highest.is_some());
        let place = match known {
            Some(place) => self.streams.get_mut(place),
            None => self.streams.iter_mut().min_by_key(|s| s.used),
        };
        if let Some(place) = place {
            *place = stream;
        }
    }
}

/// Checks and decrypts what the peer sends.
pub struct Opener {
    suite: Suite,
    mki_octets: usize,
    rtp: Session,
    rtcp: Session,
    rtp_streams: Streams,
    rtcp_streams: Streams,
}

impl Opener {
    /// With the remote key of an agreement.
    #[must_use]
    pub fn new(suite: Suite, key: &MasterKey) -> Opener {
        Opener {
            suite,
            mki_octets: usize::from(key.mki_octets),
            rtp: Session::derive(key, 0),
            rtcp: Session::derive(key, 3),
            rtp_streams: Streams::default(),
            rtcp_streams: Streams::default(),
        }
    }

    /// Opens the SRTP packet that fills `wire`, in place; gives the octets of the RTP packet.
    ///
    /// # Errors
    /// [`MediaError::Unauthentic`], [`MediaError::MalformedRtp`]; `wire` is then of no use.
    pub fn open_rtp(&mut self, wire: &mut [u8]) -> Result<usize, MediaError> {
        let tag_octets = self.suite.tag_octets();
        let octets = wire.len().checked_sub(tag_octets + self.mki_octets);
        let octets = octets.ok_or(unauthentic("shorter than its tag"))?;
        let (packet, rest) = wire.split_at_mut(octets);
        let tag = rest.get(self.mki_octets..).unwrap_or_default();
        let header_octets = rtp::header_octets(packet)?;
        let (ssrc, seq) = stream_of(packet)?;
        let stream = self.rtp_streams.of(ssrc);
        let index = stream.index_of(seq);
        if stream.is_replay(index) {
            return Err(unauthentic("replayed"));
        }
        let roc = ((index >> 16) as u32).to_be_bytes();
        let checked = self.rtp.tag([packet, &roc]).verify_truncated_left(tag);
        checked.map_err(|_| unauthentic("the tag does not fit"))?;
        self.rtp_streams.note(stream, index);
        self.rtp
            .apply(ssrc, index, packet.get_mut(header_octets..).unwrap_or_default());
        Ok(octets)
    }

    /// Opens the SRTCP packet that fills `wire`, in place; gives the octets of the RTCP packet.
    ///
    /// # Errors
    /// [`MediaError::Unauthentic`], [`MediaError::MalformedRtcp`]; `wire` is then of no use.
    pub fn open_rtcp(&mut self, wire: &mut [u8]) -> Result<usize, MediaError> {
        let octets = wire
            .len()
            .checked_sub(RTCP_INDEX_OCTETS + self.mki_octets + RTCP_TAG_OCTETS);
        let octets = octets.ok_or(unauthentic("shorter than its tag"))?;
        let (packet, rest) = wire.split_at_mut(octets);
        let tag = rest
            .get(RTCP_INDEX_OCTETS + self.mki_octets..)
            .unwrap_or_default();
        let trailer = *rest
            .first_chunk::<RTCP_INDEX_OCTETS>()
            .ok_or(unauthentic("no index"))?;
        let ssrc = rtcp_ssrc(packet)?;
        let word = u32::from_be_bytes(trailer);
        let index = u64::from(word & !ENCRYPTED);
        let stream = self.rtcp_streams.of(ssrc);
        if stream.is_replay(index) {
            return Err(unauthentic("replayed"));
        }
        let checked = self.rtcp.tag([packet, &trailer]).verify_truncated_left(tag);
        checked.map_err(|_| unauthentic("the tag does not fit"))?;
        self.rtcp_streams.note(stream, index);
        if word & ENCRYPTED != 0 {
            self.rtcp.apply(
                ssrc,
                index,
                packet.get_mut(RTCP_CLEAR_OCTETS..).unwrap_or_default(),
            );
        }
        Ok(octets)
    }
}

fn unauthentic(what: &'static str) -> MediaError {
    MediaError::Unauthentic { what }
}
