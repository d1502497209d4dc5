//! RTP ports: an even port from the range for each call, and the odd one above it for RTCP (RFC 3550 §11), given back
//! when the call ends.

use std::collections::HashSet;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::{Arc, Mutex, PoisonError};

use crate::error::SipError;

/// Hands out bound RTP sockets. Ports are taken in turn, so that a port rests before its next call and late packets
/// of the last call find nobody.
#[derive(Debug, Clone)]
pub(crate) struct PortPool {
    first: u16,
    last: u16,
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    leased: HashSet<u16>,
    next: u16,
}

/// What one call is given.
#[derive(Debug)]
pub(crate) struct MediaSockets {
    /// On the even port.
    pub rtp: UdpSocket,
    /// On the odd port above it.
    pub rtcp: UdpSocket,
}

/// Keeps the port pair (RTP and the odd port above it) reserved until dropped.
#[derive(Debug)]
pub(crate) struct PortLease {
    port: u16,
    state: Arc<Mutex<State>>,
}

impl PortPool {
    /// # Errors
    /// [`SipError::BadAddress`] when the range holds no even port with its odd neighbour.
    pub fn new((first, last): (u16, u16)) -> Result<PortPool, SipError> {
        let even = first
            .checked_add(first % 2)
            .filter(|even| *even >= 2 && last > *even);
        let Some(even) = even else {
            return Err(SipError::BadAddress {
                text: format!("{first}-{last}"),
                expected: "a range of RTP ports such as 16384-17383",
            });
        };
        Ok(PortPool {
            first: even,
            last,
            state: Arc::new(Mutex::new(State {
                leased: HashSet::new(),
                next: even,
            })),
        })
    }

    /// Binds the next free pair on `ip`; pairs of which another program uses a port are skipped.
    ///
    /// # Errors
    /// [`SipError::NoRtpPort`] when all are taken.
    pub fn bind(&self, ip: IpAddr) -> Result<(MediaSockets, PortLease), SipError> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let pairs = (self.last - self.first).div_ceil(2);
        for _ in 0..pairs {
            let port = state.next;
            state.next = match port.checked_add(2) {
                Some(next) if next < self.last => next,
                _ => self.first,
            };
            if state.leased.contains(&port) {
                continue;
            }
            let bind = |port| UdpSocket::bind(SocketAddr::new(ip, port));
            if let (Ok(rtp), Ok(rtcp)) = (bind(port), bind(port + 1)) {
                state.leased.insert(port);
                return Ok((
                    MediaSockets { rtp, rtcp },
                    PortLease {
                        port,
                        state: self.state.clone(),
                    },
                ));
            }
        }
        Err(SipError::NoRtpPort {
            ip,
            first: self.first,
            last: self.last,
        })
    }

    /// Ports in use by calls.
    #[cfg(test)]
    pub fn leased(&self) -> usize {
        self.state
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .leased
            .len()
    }
}

impl Drop for PortLease {
    fn drop(&mut self) {
        self.state
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .leased
            .remove(&self.port);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOCAL: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

    #[test]
    fn ports_are_even_in_turn_and_come_back() {
        let pool = PortPool::new((41_001, 41_006)).unwrap();
        let (a, lease_a) = pool.bind(LOCAL).unwrap();
        let (b, _lease_b) = pool.bind(LOCAL).unwrap();
        assert_eq!(
            (
                a.rtp.local_addr().unwrap().port(),
                b.rtp.local_addr().unwrap().port()
            ),
            (41_002, 41_004)
        );
        assert_eq!(a.rtcp.local_addr().unwrap().port(), 41_003);
        assert!(matches!(pool.bind(LOCAL), Err(SipError::NoRtpPort { .. })));
        drop((a, lease_a));
        assert_eq!(
            pool.bind(LOCAL).unwrap().0.rtp.local_addr().unwrap().port(),
            41_002
        );
        assert_eq!(pool.leased(), 1);
    }

    #[test]
    fn ports_of_other_programs_are_skipped() {
        let _others = [41_010, 41_013].map(|port| UdpSocket::bind((LOCAL, port)).unwrap());
        let pool = PortPool::new((41_010, 41_015)).unwrap();
        assert_eq!(
            pool.bind(LOCAL).unwrap().0.rtp.local_addr().unwrap().port(),
            41_014
        );
    }

    #[test]
    fn a_range_without_a_pair_is_refused() {
        for range in [(0, 0), (5, 5), (5, 6), (65_535, 65_535), (9, 3)] {
            assert!(PortPool::new(range).is_err(), "{range:?}");
        }
    }
}
