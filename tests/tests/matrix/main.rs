//! The peer matrix: each feature with each peer that can do it, against the whole daemon with real models.
//!
//! ```text
//! home 192.0.2.1, 2001:db8::1: the daemon  ----  away 192.0.2.2, 2001:db8::2: sipp, baresip, linphonec, Kamailio, Asterisk
//! ```
//! A cell is *yes* when it was tried and worked; *not yet* when the daemon refused it in words that mean "I do not know
//! this" (405, 415, 420, 488, 501); – when the peer cannot do it, or cannot be made to; anything else fails the test. With
//! `ATTENDANT_TABLES=DIR` the table is written to `DIR/peers.md`, row by row. `ATTENDANT_MATRIX=WORD,WORD` runs only the rows
//! whose name has one of these words; the others stay in the table as they were.

mod asterisk;
mod cell;
#[path = "../peer/daemon.rs"]
mod daemon;
mod phones;
mod placing;
mod proxy;
mod signalling;
mod sipp;
mod site;

use std::collections::HashMap;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use anyhow::{Result, ensure};
use attendant_tests::network::in_own_network;

use crate::cell::Cell;
use crate::site::Site;

const PEERS: [&str; 5] = ["sipp", "baresip", "linphonec", "Kamailio", "Asterisk 22"];

type Try = fn(&Site) -> Result<Cell>;

/// One feature and how each peer tries it, in the order of [`PEERS`].
struct Row {
    feature: &'static str,
    tries: [Option<Try>; 5],
}

const fn row(feature: &'static str, tries: [Option<Try>; 5]) -> Row {
    Row { feature, tries }
}

const ROWS: &[Row] = &[
    row(
        "call over UDP, caller hangs up",
        [
            Some(signalling::call),
            None,
            None,
            Some(proxy::call),
            Some(asterisk::short_call),
        ],
    ),
    row(
        "speech both ways",
        [
            None,
            Some(phones::baresip_speech),
            Some(phones::linphone_speech),
            None,
            Some(asterisk::speech),
        ],
    ),
    row(
        "we hang up",
        [
            Some(signalling::we_hang_up),
            None,
            None,
            Some(proxy::we_hang_up),
            Some(asterisk::we_hang_up),
        ],
    ),
    row(
        "TCP",
        [
            Some(signalling::tcp),
            Some(phones::baresip_tcp),
            Some(phones::linphone_tcp),
            Some(proxy::tcp),
            Some(asterisk::tcp),
        ],
    ),
    row(
        "TLS",
        [
            None,
            Some(phones::baresip_tls),
            Some(phones::linphone_tls),
            None,
            Some(asterisk::tls),
        ],
    ),
    row(
        "IPv6",
        [
            Some(signalling::six),
            Some(phones::baresip_six),
            Some(phones::linphone_six),
            None,
            Some(asterisk::six),
        ],
    ),
    row(
        "calls that we place",
        [
            Some(placing::to_sipp),
            Some(placing::to_baresip),
            Some(placing::to_linphone),
            Some(placing::to_kamailio),
            Some(placing::to_asterisk),
        ],
    ),
    row(
        "calls that we place by SRV, first server dead",
        [
            None,
            None,
            None,
            Some(placing::to_kamailio_by_name),
            Some(placing::to_asterisk_by_name),
        ],
    ),
    row(
        "register, MD5",
        [
            None,
            None,
            None,
            Some(proxy::registered),
            Some(asterisk::registered_md5),
        ],
    ),
    row(
        "register, SHA-256",
        [
            None,
            None,
            None,
            Some(proxy::registered_sha256),
            Some(asterisk::registered_sha256),
        ],
    ),
    row(
        "register by SRV, first server dead",
        [
            None,
            None,
            None,
            Some(proxy::registered_by_name),
            Some(asterisk::registered_by_name),
        ],
    ),
    row(
        "CANCEL",
        [Some(signalling::cancel), None, None, Some(proxy::cancel), None],
    ),
    row(
        "late offer",
        [
            Some(signalling::late_offer),
            None,
            None,
            Some(proxy::late_offer),
            None,
        ],
    ),
    row(
        "hold and resume",
        [
            Some(signalling::hold),
            Some(phones::baresip_hold),
            Some(phones::linphone_hold),
            Some(proxy::hold),
            Some(asterisk::hold),
        ],
    ),
    row(
        "media re-INVITE",
        [
            Some(signalling::moved),
            None,
            None,
            None,
            Some(asterisk::direct_media),
        ],
    ),
    row(
        "UPDATE",
        [Some(signalling::update), None, None, None, Some(asterisk::update)],
    ),
    row(
        "OPTIONS in a call",
        [Some(signalling::options), None, None, None, None],
    ),
    row(
        "OPTIONS while it rings",
        [Some(placing::options_while_ringing), None, None, None, None],
    ),
    row(
        "keys by RFC 4733",
        [
            Some(signalling::keys),
            Some(phones::baresip_keys),
            Some(phones::linphone_keys),
            None,
            Some(asterisk::keys),
        ],
    ),
    row(
        "keys by INFO",
        [
            Some(signalling::info_keys),
            None,
            None,
            Some(proxy::info_keys),
            Some(asterisk::info_keys),
        ],
    ),
    row(
        "keys in-band",
        [None, None, None, None, Some(asterisk::inband_keys)],
    ),
    row(
        "keys that we press, RFC 4733",
        [None, None, None, None, Some(asterisk::keys_out)],
    ),
    row(
        "hook flash by INFO",
        [Some(signalling::flash), None, None, None, Some(asterisk::flash)],
    ),
    row(
        "PCMU",
        [
            Some(signalling::pcmu),
            Some(phones::baresip_pcmu),
            Some(phones::linphone_pcmu),
            None,
            Some(asterisk::pcmu),
        ],
    ),
    row(
        "PCMA",
        [
            Some(signalling::pcma),
            Some(phones::baresip_pcma),
            Some(phones::linphone_pcma),
            None,
            Some(asterisk::pcma),
        ],
    ),
    row(
        "G.722",
        [
            Some(signalling::g722),
            Some(phones::baresip_g722),
            Some(phones::linphone_g722),
            None,
            Some(asterisk::g722),
        ],
    ),
    row(
        "Opus",
        [
            Some(signalling::opus),
            Some(phones::baresip_opus),
            Some(phones::linphone_opus),
            None,
            Some(asterisk::opus),
        ],
    ),
    row(
        "SRTP with SDES",
        [
            Some(signalling::sdes),
            Some(phones::baresip_sdes),
            Some(phones::linphone_sdes),
            None,
            Some(asterisk::sdes),
        ],
    ),
    row(
        "session timer, we refresh",
        [Some(signalling::we_refresh), None, None, None, None],
    ),
    row(
        "session timer, the peer refreshes",
        [None, None, None, None, Some(asterisk::timers)],
    ),
    row(
        "session timer, nobody refreshes: the call ends",
        [Some(signalling::expiry), None, None, None, None],
    ),
    row(
        "100rel and PRACK",
        [Some(signalling::prack), None, None, None, Some(asterisk::prack)],
    ),
    row(
        "Require is refused by name",
        [Some(signalling::require), None, None, None, None],
    ),
    row("queue", [None, None, None, None, Some(asterisk::queue)]),
    row(
        "blind transfer",
        [
            Some(signalling::blind_transfer),
            Some(phones::baresip_transfer),
            Some(phones::linphone_transfer),
            Some(proxy::blind_transfer),
            Some(asterisk::blind_transfer),
        ],
    ),
    row(
        "transfer out of a queue",
        [None, None, None, None, Some(asterisk::transfer_from_queue)],
    ),
    row(
        "attended transfer (Replaces)",
        [
            Some(signalling::attended_transfer),
            None,
            Some(phones::linphone_attended),
            None,
            Some(asterisk::attended_transfer),
        ],
    ),
    row(
        "transfer to a busy target: the caller is back",
        [
            Some(signalling::busy_transfer),
            None,
            None,
            None,
            Some(asterisk::busy_transfer),
        ],
    ),
    row(
        "transfer nobody answers: the caller is back",
        [
            Some(signalling::unanswered_transfer),
            None,
            None,
            None,
            Some(asterisk::unanswered_transfer),
        ],
    ),
    row(
        "redirected (302) while out of service",
        [
            Some(signalling::redirected),
            Some(phones::baresip_redirected),
            Some(phones::linphone_redirected),
            None,
            Some(asterisk::redirected),
        ],
    ),
    row(
        "REFER to us is declined",
        [Some(signalling::refer), None, None, None, None],
    ),
    row(
        "Replaces of an unknown call: 481",
        [Some(signalling::replaces), None, None, None, None],
    ),
];

#[test]
#[ignore = "twenty minutes: part of make peer-test"]
fn every_peer_and_feature() -> Result<()> {
    in_own_network("every_peer_and_feature", || {
        let site = Site::start()?;
        let only = std::env::var("ATTENDANT_MATRIX").unwrap_or_default();
        let tables = std::env::var_os("ATTENDANT_TABLES").map(|dir| Path::new(&dir).join("peers.md"));
        let before = tables.as_ref().and_then(|file| fs::read_to_string(file).ok());
        let mut table = Table::of(before.as_deref().unwrap_or_default());
        let mut notes = Vec::new();
        let mut failed = 0;
        for row in ROWS
            .iter()
            .filter(|row| only.split(',').any(|word| row.feature.contains(word)))
        {
            let mut shown = Vec::new();
            for (peer, attempt) in PEERS.iter().zip(row.tries) {
                let cell = attempt.map_or(Cell::Cannot, |attempt| {
                    let cell = Cell::from(attempt(&site));
                    // The next one begins on a quiet line.
                    site.wait_idle()
                        .map_or_else(|error| Cell::Fails(format!("{error:#}")), |()| cell)
                });
                println!("{}, {peer}: {cell:?}", row.feature);
                match &cell {
                    Cell::NotYet(why) => notes.push(format!("{}, {peer}: {why}", row.feature)),
                    Cell::Fails(_) => failed += 1,
                    Cell::Yes | Cell::Cannot => {}
                }
                shown.push(cell.shown());
            }
            table.put(row.feature, &shown);
            if let Some(file) = &tables {
                fs::write(file, table.text())?;
            }
        }
        println!("{}\nnot yet:\n{}", table.text(), notes.join("\n"));
        ensure!(failed == 0, "{failed} cells fail; see above");
        Ok(())
    })
}

/// The table: what was tried now, and of the rest what an earlier run has shown.
struct Table {
    /// Whole lines by feature.
    rows: HashMap<String, String>,
}

impl Table {
    fn of(text: &str) -> Table {
        let rows = text.lines().filter_map(|line| {
            let feature = line.strip_prefix("| ")?.split(" |").next()?;
            Some((feature.to_owned(), line.to_owned()))
        });
        Table { rows: rows.collect() }
    }

    fn put(&mut self, feature: &str, shown: &[&str]) {
        let line = format!("| {feature} | {} |", shown.join(" | "));
        self.rows.insert(feature.to_owned(), line);
    }

    /// In the order of [`ROWS`]; a row that is no longer there is left out.
    fn text(&self) -> String {
        let mut text = format!(
            "| | {} |\n|---|{}\n",
            PEERS.join(" | "),
            "---|".repeat(PEERS.len())
        );
        for line in ROWS.iter().filter_map(|row| self.rows.get(row.feature)) {
            let _ = writeln!(text, "{line}");
        }
        text
    }
}

#[test]
fn a_table_keeps_the_rows_that_did_not_run() {
    let mut table =
        Table::of("| | sipp |\n|---|---|\n| TCP | yes | yes |\n| gone | yes |\n| TLS | not yet | – |\n");
    table.put("TLS", &["yes", "yes"]);
    let text = table.text();
    let rows: Vec<&str> = text.lines().skip(2).collect();
    assert_eq!(rows, ["| TCP | yes | yes |", "| TLS | yes | yes |"]);
}
