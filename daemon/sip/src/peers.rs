//! Peers known by name: their addresses are let in, and followed when they change.

use std::sync::Arc;
use std::time::Duration;

use rsipstack::platform::CancellationToken;
use rsipstack::sip::Uri;

use crate::config::NamedPeer;
use crate::core::Core;

/// How often a name is looked up.
const INTERVAL: Duration = Duration::from_secs(60);
/// … while it is not found.
const RETRY: Duration = Duration::from_secs(5);

/// Keeps the gate open for one peer until `cancel`.
pub(crate) async fn follow(core: Arc<Core>, peer: NamedPeer, cancel: CancellationToken) {
    let Ok(uri) = Uri::try_from(format!("sip:{}", peer.host).as_str()) else {
        // `start` checked it.
        return;
    };
    let mut lost = false;
    loop {
        let pause = match core.locator.servers(&uri).await {
            Ok(servers) => {
                let mut ips: Vec<_> = servers.iter().map(|s| s.addr.ip().to_canonical()).collect();
                ips.dedup();
                core.gate.set_registrar(&format!("peer {}", peer.name), ips);
                lost = false;
                INTERVAL
            }
            Err(error) => {
                if !std::mem::replace(&mut lost, true) {
                    tracing::warn!(peer = peer.name, %error, "a peer's calls are refused until its name is found");
                }
                RETRY
            }
        };
        tokio::select! {
            () = cancel.cancelled() => return,
            () = tokio::time::sleep(pause) => {}
        }
    }
}
