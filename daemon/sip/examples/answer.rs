//! Answers every call and hangs up after some milliseconds: a target for load generators.
//!
//! `answer [ADDRESS [MILLISECONDS]]`, by default `127.0.0.1:5060 300`. Prints one line per second. With `SIP_REGISTRAR`,
//! `SIP_USER` and `SIP_PASSWORD` set it registers, and then takes calls from the registrar only.

use std::time::Duration;

use attendant_sip::{Account, Peer, SipConfig, SipEvent, SrtpPolicy, Transport, start};

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
    let accounts = account_from_env();
    let local = Peer {
        name: "local".to_string(),
        net: "127.0.0.0/8".parse()?,
        srtp: SrtpPolicy::Offered,
    };
    let config = SipConfig {
        udp: Some(addr),
        tcp: Some(addr),
        peers: if accounts.is_empty() {
            vec![local]
        } else {
            Vec::new()
        },
        accounts,
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
                let call = match event {
                    Some(SipEvent::Incoming(call)) => call,
                    Some(SipEvent::Registration { account, state }) => {
                        println!("{account}: {state:?}");
                        continue;
                    }
                    None => break,
                };
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

fn account_from_env() -> Vec<Account> {
    let Ok(registrar) = std::env::var("SIP_REGISTRAR") else {
        return Vec::new();
    };
    vec![Account {
        name: "line".to_string(),
        registrar,
        username: std::env::var("SIP_USER").unwrap_or_default(),
        password: std::env::var("SIP_PASSWORD").unwrap_or_default(),
        auth_user: None,
        realm: None,
        expires_s: 300,
        transport: Transport::Udp,
        srtp: SrtpPolicy::Offered,
        trust: attendant_sip::TlsTrust::default(),
    }]
}

fn rss_kb() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|l| l.strip_prefix("VmRSS:"));
    line.and_then(|l| l.split_whitespace().next()?.parse().ok())
        .unwrap_or(0)
}
