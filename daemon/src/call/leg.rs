//! The audio end of an answered call.

use attendant_rt::{Leg, LegConfig, Rt, RtError};
use attendant_sip::Established;

/// A leg for what was agreed on, on copies of the call's sockets.
///
/// # Errors
/// [`RtError`]: the call must be ended.
pub fn open(rt: &Rt, call: &Established) -> Result<Leg, RtError> {
    let socket = call.socket.try_clone().map_err(RtError::Socket)?;
    let rtcp_socket = call.rtcp_socket.try_clone().map_err(RtError::Socket)?;
    rt.add_leg(LegConfig {
        socket,
        rtcp_socket: Some(rtcp_socket),
        stream: call.media.stream,
        symmetric: true,
        ssrc: rand::random(),
    })
}
