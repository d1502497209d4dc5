//! sipp: scenarios built step by step, run from the other host.

use std::fmt::Write as _;
use std::fs;
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result};
use tempfile::TempDir;

use crate::cell::Cell;

/// G.711 both ways and keys.
pub const SDP: &str =
    "m=audio [media_port] RTP/AVP 0 8 101\na=rtpmap:101 telephone-event/8000\na=fmtp:101 0-16";

/// Where sipp is, in its answers.
const CONTACT: &str = "Contact: <sip:sipp@[local_ip]:[local_port];transport=[transport]>\n";
/// What an answer repeats of the request just received, and where sipp is.
const LAST: &str = "[last_Via:]\n[last_From:]\n[last_To:]\n[last_Call-ID:]\n[last_CSeq:]\n\
                    Contact: <sip:sipp@[local_ip]:[local_port];transport=[transport]>\n";

/// What an answer repeats of an INVITE (RFC 3261 §8.2.6.2); each is kept in the variable of its place, from 1.
const KEPT: [&str; 5] = ["Via", "From", "To", "Call-ID", "CSeq"];
/// sipp's own tag where it is called.
const TAG: &str = ";tag=[pid]SIPp[call_number]";

/// A scenario: what sipp sends and expects, as its XML.
pub struct Script {
    xml: String,
    cseq: u32,
    /// sipp variables in use.
    variables: u32,
}

impl Script {
    pub fn new() -> Script {
        Script {
            xml: String::new(),
            cseq: 0,
            variables: 0,
        }
    }

    /// An INVITE with `media` as its media lines; empty: without an offer.
    pub fn invite(self, headers: &str, media: &str) -> Script {
        self.request("INVITE", headers, &described(media))
    }

    /// Any request with the next CSeq. `headers`: whole lines; `body`: with its Content-Type as its first line.
    pub fn request(mut self, method: &str, headers: &str, body: &str) -> Script {
        self.cseq += 1;
        let cseq = self.cseq;
        self.send(method, cseq, headers, body);
        self
    }

    fn send(&mut self, method: &str, cseq: u32, headers: &str, body: &str) {
        let dialog = cseq > 1 || method == "ACK";
        let (uri, to) = match (dialog, method) {
            (true, method) if method != "CANCEL" => ("[next_url]", "[peer_tag_param]"),
            _ => ("sip:[service]@[remote_ip]:[remote_port]", ""),
        };
        // A proxy's Record-Route; without one sipp leaves the line out.
        let routes = if dialog { "[routes]\n" } else { "" };
        let (kind, body) = body.split_once('\n').unwrap_or_default();
        let kind = if kind.is_empty() {
            String::new()
        } else {
            format!("{kind}\n")
        };
        // CANCEL and the ACK of a refusal repeat the INVITE's branch (RFC 3261 §9.1, §17.1.1.3).
        let branch = match method {
            "ACK" => "[branch]".to_owned(),
            _ => format!("z9hG4bK[call_number]-[pid]-{cseq}"),
        };
        let retransmitted = if method == "ACK" { "" } else { " retrans=\"500\"" };
        let _ = write!(
            self.xml,
            "<send{retransmitted}><![CDATA[\n\n{method} {uri} SIP/2.0\n\
             Via: SIP/2.0/[transport] [local_ip]:[local_port];branch={branch};rport\n{routes}\
             From: \"sipp\" <sip:sipp@[local_ip]:[local_port]>;tag=[pid]SIPp[call_number]\n\
             To: <sip:[service]@[remote_ip]:[remote_port]>{to}\nCall-ID: [call_id]\nCSeq: {cseq} {method}\n\
             Contact: <sip:sipp@[local_ip]:[local_port];transport=[transport]>\nMax-Forwards: 70\n{headers}{kind}\
             Content-Length: [len]\n\n{body}\n]]></send>\n"
        );
    }

    /// The final answer to the last request; `must`: a regular expression it has to match.
    pub fn expect(mut self, status: u16, must: &str) -> Script {
        let fork = if status < 300 { " rrs=\"true\"" } else { "" };
        for early in [100, 180, 181, 183] {
            let _ = writeln!(self.xml, "<recv response=\"{early}\" optional=\"true\"></recv>");
        }
        let check = self.check(must);
        let _ = writeln!(
            self.xml,
            "<recv response=\"{status}\"{fork} timeout=\"20000\">{check}</recv>"
        );
        self
    }

    /// A provisional answer that has to come.
    pub fn early(mut self, status: u16, must: &str) -> Script {
        if status > 100 {
            let _ = writeln!(self.xml, "<recv response=\"100\" optional=\"true\"></recv>");
        }
        let check = self.check(must);
        let _ = writeln!(
            self.xml,
            "<recv response=\"{status}\" rrs=\"true\" timeout=\"10000\">{check}</recv>"
        );
        self
    }

    /// A reliable 180, acknowledged by PRACK (RFC 3262 §4).
    pub fn early_reliable(mut self) -> Script {
        self.variables += 2;
        let (whole, number) = (self.variables - 1, self.variables);
        let _ = writeln!(
            self.xml,
            "<recv response=\"100\" optional=\"true\"></recv>\n<recv response=\"180\" rrs=\"true\" timeout=\"10000\"><action>\
             <ereg regexp=\"RSeq: *([0-9]+)\" search_in=\"msg\" check_it=\"true\" assign_to=\"{whole},{number}\"/></action></recv>"
        );
        self.request("PRACK", &format!("RAck: [${number}] 1 INVITE\n"), "")
    }

    fn check(&mut self, must: &str) -> String {
        if must.is_empty() {
            return String::new();
        }
        self.variables += 1;
        let must = must.replace('"', "&quot;");
        format!(
            "<action><ereg regexp=\"{must}\" search_in=\"msg\" check_it=\"true\" assign_to=\"{}\"/></action>",
            self.variables
        )
    }

    /// The ACK of the last INVITE; `media`: the answer to a late offer.
    pub fn ack(self, media: &str) -> Script {
        let cseq = self.cseq;
        self.ack_of(cseq, media)
    }

    /// The ACK of the INVITE that had this CSeq.
    pub fn ack_of(mut self, cseq: u32, media: &str) -> Script {
        self.send("ACK", cseq, "", &described(media));
        self
    }

    /// The ACK of a refusal: same branch as the INVITE.
    pub fn ack_refusal(mut self) -> Script {
        let cseq = self.cseq;
        let at = self.xml.len();
        self.send("ACK", cseq, "", "");
        let ack = self
            .xml
            .split_off(at)
            .replace("[branch]", &format!("z9hG4bK[call_number]-[pid]-{cseq}"));
        self.xml
            .push_str(&ack.replace("[next_url]", "sip:[service]@[remote_ip]:[remote_port]"));
        self
    }

    pub fn cancel(mut self) -> Script {
        let cseq = self.cseq;
        self.send("CANCEL", cseq, "", "");
        self
    }

    pub fn pause(mut self, ms: u32) -> Script {
        let _ = writeln!(self.xml, "<pause milliseconds=\"{ms}\"/>");
        self
    }

    /// Plays packets that sipp's package brings.
    pub fn play(mut self, pcap: &str) -> Script {
        let _ = writeln!(
            self.xml,
            "<nop><action><exec play_pcap_audio=\"/usr/share/sip-tester/{pcap}.pcap\"/></action></nop>"
        );
        self
    }

    pub fn bye(self) -> Script {
        self.request("BYE", "", "").expect(200, "")
    }

    /// Their request has to come, and is answered 200.
    pub fn wait_for(self, method: &str, ms: u32) -> Script {
        self.answer(method, ms, "", "200 OK", "")
    }

    /// Their request has to come and to match `must`; it is answered with this status line, these whole header lines, and
    /// no body.
    pub fn answer(mut self, method: &str, ms: u32, must: &str, status: &str, headers: &str) -> Script {
        let check = self.check(must);
        let _ = write!(
            self.xml,
            "<recv request=\"{method}\" timeout=\"{ms}\">{check}</recv>\n<send><![CDATA[\n\nSIP/2.0 {status}\n{LAST}\
             {headers}Content-Length: 0\n\n]]></send>\n"
        );
        self
    }

    /// Their REFER has to come, to an address that matches `must`; it is accepted, and this is told of it.
    pub fn transferred(self, must: &str, told: &str) -> Script {
        let fragment = format!("Content-Type: message/sipfrag;version=2.0\nSIP/2.0 {told}\n");
        let event = "Event: refer\nSubscription-State: terminated;reason=noresource\n";
        self.answer("REFER", 30_000, must, "202 Accepted", "")
            .request("NOTIFY", event, &fragment)
            .expect(200, "")
    }

    /// Their re-INVITE has to come, and is answered with our description.
    pub fn answer_reinvite(mut self) -> Script {
        let sdp = described(SDP);
        let (kind, body) = sdp.split_once('\n').unwrap_or_default();
        let _ = write!(
            self.xml,
            "<recv request=\"INVITE\" timeout=\"10000\"></recv>\n<send><![CDATA[\n\nSIP/2.0 200 OK\n{LAST}\
             {kind}\nContent-Length: [len]\n\n{body}\n]]></send>\n<recv request=\"ACK\" timeout=\"10000\"></recv>\n"
        );
        self
    }

    /// sipp is called: it rings, reliably (RFC 3262 §3), and waits for the PRACK.
    pub fn called() -> Script {
        let mut script = Script::new();
        // The INVITE's own headers: later the last message is another one.
        let keep: String = (1..)
            .zip(KEPT)
            .map(|(n, header)| {
                format!("<ereg regexp=\".*\" search_in=\"hdr\" header=\"{header}:\" assign_to=\"{n}\"/>")
            })
            .collect();
        script.variables = KEPT.len() as u32;
        let _ = writeln!(
            script.xml,
            "<recv request=\"INVITE\" rrs=\"true\"><action>{keep}</action></recv>"
        );
        script.answer_invite("180 Ringing", "Require: 100rel\nRSeq: 77\nContent-Length: 0\n");
        script.answer("PRACK", 5_000, "RAck: *77 ", "200 OK", "")
    }

    /// A request of sipp's while it rings.
    pub fn ask_while_ringing(mut self, method: &str) -> Script {
        let _ = write!(
            self.xml,
            "<send retrans=\"500\"><![CDATA[\n\n{method} [next_url] SIP/2.0\n\
             Via: SIP/2.0/[transport] [local_ip]:[local_port];branch=z9hG4bK[call_number]-[pid]-{method};rport\n\
             From:[$3]{TAG}\nTo:[$2]\nCall-ID:[$4]\nCSeq: 1 {method}\nMax-Forwards: 70\n{CONTACT}Content-Length: 0\n\n]]></send>\n"
        );
        self.expect(200, "")
    }

    /// sipp answers, and waits for the BYE.
    pub fn pick_up(mut self) -> Script {
        let sdp = described(SDP);
        let (kind, body) = sdp.split_once('\n').unwrap_or_default();
        self.answer_invite("200 OK", &format!("{kind}\nContent-Length: [len]\n\n{body}"));
        self.xml
            .push_str("<recv request=\"ACK\" timeout=\"10000\"></recv>\n");
        self.wait_for("BYE", 60_000)
    }

    /// Its answer to the INVITE it was called with; `rest`: the last headers, and the body.
    fn answer_invite(&mut self, status: &str, rest: &str) {
        let repeated: String = (1..)
            .zip(KEPT)
            .map(|(n, header)| format!("{header}:[${n}]{}\n", if header == "To" { TAG } else { "" }))
            .collect();
        let _ = write!(
            self.xml,
            "<send><![CDATA[\n\nSIP/2.0 {status}\n{repeated}{CONTACT}{rest}\n]]></send>\n"
        );
    }

    fn finish(&self) -> String {
        let used: Vec<_> = (1..=self.variables).map(|n| n.to_string()).collect();
        let reference = if used.is_empty() {
            String::new()
        } else {
            format!("<Reference variables=\"{}\"/>\n", used.join(","))
        };
        format!(
            "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<scenario name=\"attendant\">\n{}{reference}</scenario>\n",
            self.xml
        )
    }

    /// Runs it once against `target` (`host:port`).
    pub fn run(&self, target: &str, options: &[&str]) -> Result<Cell> {
        self.start(target, options)?.finish()
    }

    /// Starts it; without a target it waits to be called.
    pub fn start(&self, target: &str, options: &[&str]) -> Result<Running> {
        let dir = tempfile::tempdir()?;
        fs::write(dir.path().join("script.xml"), self.finish())?;
        let local = if target.starts_with('[') {
            "2001:db8::2"
        } else {
            "192.0.2.2"
        };
        let fixed = "-sf script.xml -m 1 -p 15060 -mp 16000 -nostdin -timeout 120s -timeout_error \
                     -trace_err -error_file errors.log -trace_msg -message_file messages.log";
        let child = Command::new("ip")
            .args(["netns", "exec", "away", "sipp"])
            .args((!target.is_empty()).then_some(target))
            .args(["-i", local, "-mi", local])
            .args(fixed.split_whitespace())
            .args(options)
            .current_dir(dir.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .context("starting sipp")?;
        Ok(Running { child, dir })
    }
}

/// A scenario under way; ended with the value.
pub struct Running {
    child: Child,
    dir: TempDir,
}

impl Running {
    /// Waits for its end.
    pub fn finish(mut self) -> Result<Cell> {
        if self.child.wait()?.success() {
            return Ok(Cell::Yes);
        }
        let written = |name: &str| fs::read_to_string(self.dir.path().join(name)).unwrap_or_default();
        Ok(verdict(&written("errors.log"), &written("messages.log")))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Both fail where it has ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A refusal that says "I do not know this" is not a failure but something not built yet.
fn verdict(errors: &str, messages: &str) -> Cell {
    let refused = errors
        .split("received 'SIP/2.0 ")
        .nth(1)
        .and_then(|rest| rest.get(..3));
    match refused {
        Some(status @ ("405" | "415" | "420" | "488" | "501")) => Cell::NotYet(format!("answered {status}")),
        _ if errors.contains("Failed regexp match") => Cell::NotYet("accepted, but not taken up".to_owned()),
        _ => {
            let tail: Vec<&str> = messages.lines().rev().take(40).collect();
            let tail: Vec<&str> = tail.into_iter().rev().collect();
            Cell::Fails(format!("{}\n{}", errors.trim(), tail.join("\n")))
        }
    }
}

/// Media lines as a whole description with its Content-Type.
fn described(media: &str) -> String {
    if media.is_empty() {
        return String::new();
    }
    // A connection of its own stands in the media part: the old way to hold.
    let address = if media.contains("c=IN") {
        ""
    } else {
        "c=IN IP[media_ip_type] [media_ip]\n"
    };
    format!(
        "Content-Type: application/sdp\nv=0\no=sipp 1 1 IN IP[media_ip_type] [media_ip]\ns=-\n{address}t=0 0\n{media}"
    )
}
