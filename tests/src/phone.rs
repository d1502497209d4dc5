//! A telephone by hand: one call over plain sockets, so that each packet can be as odd as some networks make it.

use std::net::{SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use attendant_media::g711::ulaw_encode;

/// An answer comes within this.
const PATIENCE: Duration = Duration::from_secs(5);
/// One packet of G.711.
const PTIME: Duration = Duration::from_millis(20);
/// Of a description.
const DESCRIBED: &str = "Content-Type: application/sdp\r\n";
/// µ-law silence.
const SILENCE: u8 = 0xff;

/// What the telephone says of its own address in the description it sends.
pub enum Behind {
    /// Its real address.
    Nothing,
    /// An address that leads nowhere from outside, as behind a NAT that nobody helps.
    Nat,
}

/// A call that has been answered.
pub struct Phone {
    sip: UdpSocket,
    rtp: UdpSocket,
    daemon: SocketAddr,
    /// Where the daemon listens for audio.
    remote: SocketAddr,
    to: String,
    call_id: String,
    cseq: u32,
    described: SocketAddr,
    sequence: u16,
    next_packet: Instant,
    /// From packet to packet, by our clock.
    period: Duration,
    /// Where the daemon last asked us to call instead: a REFER's Refer-To.
    pub referred: Option<String>,
}

impl Phone {
    /// Calls, and acknowledges the answer.
    ///
    /// # Errors
    /// When it is not answered with 200.
    pub fn call(daemon: &str, behind: &Behind) -> Result<Phone> {
        let mut phone = Phone::new(daemon, behind)?;
        let answer = phone.offer("sendrecv")?;
        phone.talk_to(&answer)?;
        phone.acknowledge("")?;
        Ok(phone)
    }

    /// Calls without a description; ours goes with the ACK (a late offer, RFC 3261 §13.2.1).
    ///
    /// # Errors
    /// When it is not answered with 200.
    pub fn call_late(daemon: &str) -> Result<Phone> {
        let mut phone = Phone::new(daemon, &Behind::Nothing)?;
        let answer = phone.request("INVITE", "", "")?;
        phone.talk_to(&answer)?;
        phone.acknowledge(&phone.description("sendrecv"))?;
        Ok(phone)
    }

    fn new(daemon: &str, behind: &Behind) -> Result<Phone> {
        let sip = UdpSocket::bind("127.0.0.1:0")?;
        let rtp = UdpSocket::bind("127.0.0.1:0")?;
        rtp.set_nonblocking(true)?;
        let daemon: SocketAddr = daemon.parse()?;
        let described = match behind {
            Behind::Nothing => rtp.local_addr()?,
            Behind::Nat => SocketAddr::from(([10, 255, 255, 1], 9)),
        };
        Ok(Phone {
            call_id: format!("phone{}", sip.local_addr()?.port()),
            sip,
            rtp,
            daemon,
            remote: daemon,
            to: format!("<sip:attendant@{daemon}>"),
            cseq: 0,
            described,
            sequence: 0,
            next_packet: Instant::now(),
            period: PTIME,
            referred: None,
        })
    }

    /// Lets our clock run fast by so many millionths.
    pub fn run_fast(&mut self, ppm: u32) {
        self.period = PTIME - PTIME * ppm / 1_000_000;
    }

    /// Takes over what the answer says of the other side.
    fn talk_to(&mut self, answer: &str) -> Result<()> {
        let value = |prefix: &str| {
            answer
                .lines()
                .find_map(|line| line.strip_prefix(prefix))
                .map(str::trim)
        };
        self.to = value("To: ").context("no To")?.to_owned();
        let ip = value("c=IN IP4 ").context("no address")?;
        let port = value("m=audio ")
            .and_then(|m| m.split(' ').next())
            .context("no port")?;
        self.remote = format!("{ip}:{port}").parse()?;
        self.next_packet = Instant::now();
        Ok(())
    }

    /// A re-INVITE with this direction.
    ///
    /// # Errors
    /// When it is not answered with 200.
    pub fn reinvite(&mut self, direction: &str) -> Result<String> {
        let answer = self.offer(direction)?;
        self.acknowledge("")?;
        Ok(answer)
    }

    fn offer(&mut self, direction: &str) -> Result<String> {
        let sdp = self.description(direction);
        self.request("INVITE", DESCRIBED, &sdp)
    }

    fn description(&self, direction: &str) -> String {
        let (ip, port) = (self.described.ip(), self.described.port());
        format!(
            "v=0\r\no=- 1 {} IN IP4 {ip}\r\ns=-\r\nc=IN IP4 {ip}\r\nt=0 0\r\nm=audio {port} RTP/AVP 0 101\r\n\
             a=rtpmap:101 telephone-event/8000\r\na={direction}\r\n",
            self.cseq + 1
        )
    }

    fn acknowledge(&mut self, sdp: &str) -> Result<()> {
        let headers = if sdp.is_empty() { "" } else { DESCRIBED };
        let ack = self.message("ACK", self.cseq, headers, sdp)?;
        self.sip.send_to(ack.as_bytes(), self.daemon)?;
        Ok(())
    }

    /// Presses a key by INFO.
    ///
    /// # Errors
    /// When it is not answered with 200.
    pub fn press_by_info(&mut self, key: u8) -> Result<()> {
        let body = format!("Signal={key}\r\nDuration=160\r\n");
        self.request("INFO", "Content-Type: application/dtmf-relay\r\n", &body)?;
        Ok(())
    }

    /// Tells how the transfer went that we were asked for (RFC 3515 §2.4.5), in a status line.
    ///
    /// # Errors
    /// When it is not answered with 200.
    pub fn tell(&mut self, status: &str) -> Result<()> {
        let headers = "Event: refer\r\nSubscription-State: terminated;reason=noresource\r\n\
                       Content-Type: message/sipfrag\r\n";
        self.request("NOTIFY", headers, &format!("SIP/2.0 {status}\r\n"))?;
        Ok(())
    }

    /// A request in the call; its 200.
    ///
    /// # Errors
    /// When the final answer is another one, or none comes.
    pub fn request(&mut self, method: &str, headers: &str, body: &str) -> Result<String> {
        self.cseq += 1;
        let request = self.message(method, self.cseq, headers, body)?;
        let mut buffer = [0; 8192];
        let until = Instant::now() + PATIENCE;
        self.sip.set_read_timeout(Some(Duration::from_millis(500)))?;
        self.sip.send_to(request.as_bytes(), self.daemon)?;
        while Instant::now() < until {
            let Ok((length, _)) = self.sip.recv_from(&mut buffer) else {
                self.sip.send_to(request.as_bytes(), self.daemon)?;
                continue;
            };
            let answer = String::from_utf8_lossy(&buffer[..length]).into_owned();
            if answer.starts_with("SIP/2.0 1") || !answer.contains(&format!("CSeq: {} {method}", self.cseq)) {
                continue;
            }
            ensure!(answer.starts_with("SIP/2.0 200"), "{method}: {answer}");
            return Ok(answer);
        }
        bail!("{method} was not answered")
    }

    fn message(&self, method: &str, cseq: u32, headers: &str, body: &str) -> Result<String> {
        let (me, daemon, to, id) = (self.sip.local_addr()?, self.daemon, &self.to, &self.call_id);
        Ok(format!(
            "{method} sip:attendant@{daemon} SIP/2.0\r\nVia: SIP/2.0/UDP {me};branch=z9hG4bK{id}{method}{cseq};rport\r\n\
             From: <sip:phone@{me}>;tag=phone\r\nTo: {to}\r\nCall-ID: {id}\r\nCSeq: {cseq} {method}\r\n\
             Contact: <sip:phone@{me}>\r\nMax-Forwards: 70\r\n{headers}Content-Length: {}\r\n\r\n{body}",
            body.len()
        ))
    }

    /// Sends silence for so long, and counts the packets that come, and those of them that are no silence.
    ///
    /// # Errors
    /// The socket's own; a BYE of the daemon.
    pub fn listen(&mut self, time: Duration) -> Result<Heard> {
        let until = Instant::now() + time;
        self.next_packet = Instant::now();
        let mut heard = Heard::default();
        while Instant::now() < until {
            self.sound(&[SILENCE; 160])?;
            self.hear(&mut heard)?;
        }
        Ok(heard)
    }

    /// Plays a sound of 8 kHz to its end, and listens meanwhile.
    ///
    /// # Errors
    /// The socket's own.
    pub fn play(&mut self, samples: &[i16]) -> Result<Heard> {
        self.next_packet = Instant::now();
        let mut heard = Heard::default();
        for chunk in samples.chunks(160) {
            let mut payload = [SILENCE; 160];
            for (code, sample) in payload.iter_mut().zip(chunk) {
                *code = ulaw_encode(*sample);
            }
            self.sound(&payload)?;
            self.hear(&mut heard)?;
        }
        Ok(heard)
    }

    /// Waits for the daemon's REFER, takes it, and tells that it went well; the address.
    ///
    /// # Errors
    /// When none comes in time.
    pub fn transferred(&mut self, time: Duration) -> Result<String> {
        let until = Instant::now() + time;
        while self.referred.is_none() && Instant::now() < until {
            self.listen(Duration::from_millis(100))?;
        }
        let target = self.referred.take().context("no REFER")?;
        self.tell("200 OK")?;
        Ok(target)
    }

    /// Sends 100 ms of a loud tone; when it began.
    ///
    /// # Errors
    /// The socket's own.
    pub fn beep(&mut self) -> Result<Instant> {
        // 500 Hz: eight samples up, eight down.
        let mut tone = [0x10; 160];
        for down in tone.chunks_exact_mut(16) {
            down[8..].fill(0x90);
        }
        let began = Instant::now();
        self.next_packet = began;
        for _ in 0..5 {
            self.sound(&tone)?;
        }
        Ok(began)
    }

    fn sound(&mut self, payload: &[u8; 160]) -> Result<()> {
        let timestamp = u32::from(self.sequence) * 160;
        self.send_packet(payload, 0, self.sequence, timestamp, false)
    }

    /// Presses a key: RFC 4733, 100 ms, the end three times.
    ///
    /// # Errors
    /// The socket's own.
    pub fn press(&mut self, key: u8) -> Result<()> {
        let timestamp = u32::from(self.sequence) * 160;
        for n in 1..=8u16 {
            let end = if n > 5 { 0x80 } else { 0 };
            let [high, low] = (160 * n.min(6)).to_be_bytes();
            self.send_packet(&[key, end | 10, high, low], 101, self.sequence, timestamp, n == 1)?;
        }
        self.listen(Duration::from_millis(150))?;
        Ok(())
    }

    fn send_packet(
        &mut self,
        payload: &[u8],
        payload_type: u8,
        sequence: u16,
        timestamp: u32,
        marker: bool,
    ) -> Result<()> {
        let mut packet = vec![0x80, payload_type | if marker { 0x80 } else { 0 }];
        packet.extend(sequence.to_be_bytes());
        packet.extend(timestamp.to_be_bytes());
        packet.extend(0x5050_5050_u32.to_be_bytes());
        packet.extend(payload);
        // Where audio goes while nobody listens there (on hold, say) is not the caller's affair.
        let _ = self.rtp.send_to(&packet, self.remote);
        self.sequence = self.sequence.wrapping_add(1);
        self.next_packet += self.period;
        std::thread::sleep(self.next_packet.saturating_duration_since(Instant::now()));
        Ok(())
    }

    fn hear(&mut self, heard: &mut Heard) -> Result<()> {
        let mut buffer = [0; 2048];
        while let Ok((length, _)) = self.rtp.recv_from(&mut buffer) {
            let Some(payload) = buffer.get(12..length) else {
                continue;
            };
            heard.packets += 1;
            // µ-law codes are loud where their low bits are small.
            heard.voiced += u32::from(payload.iter().any(|code| (code & 0x7f) < 0x50));
        }
        self.sip.set_nonblocking(true)?;
        while let Ok((length, _)) = self.sip.recv_from(&mut buffer) {
            let request = String::from_utf8_lossy(&buffer[..length]).into_owned();
            let answer = match request.split(' ').next() {
                Some("BYE") => {
                    heard.hung_up = true;
                    "200 OK"
                }
                Some("REFER") => {
                    let target = request.lines().find_map(|line| line.strip_prefix("Refer-To: "));
                    self.referred = target.map(str::to_owned);
                    "202 Accepted"
                }
                _ => continue,
            };
            self.answer(&request, answer)?;
        }
        self.sip.set_nonblocking(false)?;
        Ok(())
    }

    fn answer(&self, request: &str, status: &str) -> Result<()> {
        let repeated: String = request
            .lines()
            .filter(|line| {
                ["Via:", "From:", "To:", "Call-ID:", "CSeq:"]
                    .iter()
                    .any(|h| line.starts_with(h))
            })
            .map(|line| format!("{line}\r\n"))
            .collect();
        let me = self.sip.local_addr()?;
        let answer =
            format!("SIP/2.0 {status}\r\n{repeated}Contact: <sip:phone@{me}>\r\nContent-Length: 0\r\n\r\n");
        self.sip.send_to(answer.as_bytes(), self.daemon)?;
        Ok(())
    }
}

/// What came in some time.
#[derive(Debug, Default, Clone, Copy)]
pub struct Heard {
    /// RTP packets.
    pub packets: u32,
    /// Those with sound in them.
    pub voiced: u32,
    /// The daemon sent BYE.
    pub hung_up: bool,
}
