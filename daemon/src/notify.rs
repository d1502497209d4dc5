//! Tells systemd how we are (sd_notify(3)): a datagram to `$NOTIFY_SOCKET`; without it nothing happens.

use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};

/// Start is complete.
pub fn ready(status: &str) {
    send(&format!("READY=1\nSTATUS={status}"));
}

/// What is going on.
pub fn status(status: &str) {
    send(&format!("STATUS={status}"));
}

/// The daemon is alive: feeds the watchdog.
pub fn alive() {
    send("WATCHDOG=1");
}

/// The stop has begun.
pub fn stopping() {
    send("STOPPING=1\nSTATUS=ending calls");
}

fn send(message: &str) {
    let Some(path) = std::env::var_os("NOTIFY_SOCKET") else {
        return;
    };
    let path = path.to_string_lossy();
    let address = match path.strip_prefix('@') {
        Some(name) => SocketAddr::from_abstract_name(name),
        None => SocketAddr::from_pathname(path.as_ref()),
    };
    if let (Ok(address), Ok(socket)) = (address, UnixDatagram::unbound()) {
        // systemd's own timeouts notice when it does not arrive.
        let _ = socket.send_to_addr(message.as_bytes(), &address);
    }
}
