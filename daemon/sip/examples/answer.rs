//! Answers every call and hangs up after some milliseconds: a target for load generators.
//!
//! `answer [ADDRESS [MILLISECONDS]]`, by default `127.0.0.1:5060 300`. Prints one line per second.

use std::time::Duration;

use attendant_sip::{Peer, SipConfig, SipEvent, start};

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let directives = format!("warn,{}", attendant_sip::LOG_DIRECTIVES.join(","));
    tracing_subscriber::fmt().with_env_filter(directives).init();
    let mut args = std::env::args().skip(1);
    let addr = args
        .next()
        .unwrap_or_else(|| "127.0.0.1:5060".to_string())
        .parse()?;
    let hang_up = Duration::from_millis(args.next().map_or(Ok(300), |ms| ms.parse())?);
    let config = SipConfig {
        udp: Some(addr),
        tcp: Some(addr),
        peers: vec![Peer {
            name: "local".to_string(),
            net: "127.0.0.0/8".parse()?,
        }],
        max_calls: 500,
        rtp_ports: (30_000, 31_999),
        ..SipConfig::default()
    };
    let (sip, mut events) = start(config).await?;
    let mut answered = 0u64;
    let mut tick = tokio::time::interval(Duration::from_secs(1));
    loop {
        tokio::select! {
            event = events.recv() => {
                let Some(SipEvent::Incoming(call)) = event else { break };
                answered += 1;
                tokio::spawn(async move {
                    call.ringing().await;
                    match call.answer().await {
                        Ok(call) => {
                            tokio::time::sleep(hang_up).await;
                            if let Err(error) = call.handle.bye().await {
                                eprintln!("bye: {error}");
                            }
                        }
                        Err(error) => eprintln!("answer: {error}"),
                    }
                });
            }
            _ = tick.tick() => {
                println!("answered {answered} active {} rss_kb {}", sip.active_dialogs(), rss_kb());
            }
            _ = tokio::signal::ctrl_c() => break,
        }
    }
    sip.shutdown().await;
    Ok(())
}

fn rss_kb() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|l| l.strip_prefix("VmRSS:"));
    line.and_then(|l| l.split_whitespace().next()?.parse().ok())
        .unwrap_or(0)
}
