//! Lines: how the registrations stand, for pages, readiness and metrics.

use attendant_sip::RegistrationState;
use tokio::sync::watch;

/// One account of `[[sip.account]]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// Its name in the configuration.
    pub account: String,
    /// Where it stands.
    pub state: LineState,
    /// The same for people.
    pub text: String,
}

/// Where a registration stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LineState {
    /// The registrar is being asked.
    Trying,
    /// Calls can come.
    Registered,
    /// The registrar does not want us: user name or password.
    Refused,
    /// It does not answer; we go on trying.
    Unreachable,
}

impl LineState {
    /// All of them.
    pub const ALL: [LineState; 4] = [
        LineState::Trying,
        LineState::Registered,
        LineState::Refused,
        LineState::Unreachable,
    ];

    /// As in metrics.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            LineState::Trying => "trying",
            LineState::Registered => "registered",
            LineState::Refused => "refused",
            LineState::Unreachable => "unreachable",
        }
    }
}

/// Takes what a registration has come to; tells the log what somebody should look at.
pub fn note(lines: &watch::Sender<Vec<Line>>, account: String, state: &RegistrationState) {
    let (state, text) = match state {
        RegistrationState::Trying => (LineState::Trying, "registering".to_owned()),
        RegistrationState::Registered { expires_s } => {
            (LineState::Registered, format!("registered for {expires_s} s"))
        }
        RegistrationState::Refused { status, reason } => {
            tracing::error!(
                account,
                status,
                reason,
                "the PBX refuses this account; fix its user name or password and restart"
            );
            let text =
                format!("refused by the PBX ({status} {reason}): check user name and password, then restart");
            (LineState::Refused, text)
        }
        RegistrationState::Unreachable { reason, retry_in_s } => {
            tracing::warn!(account, reason, retry_in_s, "the PBX cannot be reached");
            let text = format!("unreachable ({reason}); trying again in {retry_in_s} s");
            (LineState::Unreachable, text)
        }
    };
    lines.send_modify(|all| match all.iter_mut().find(|line| line.account == account) {
        Some(line) => (line.state, line.text) = (state, text),
        None => all.push(Line { account, state, text }),
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_account_has_one_line() {
        let (lines, seen) = watch::channel(Vec::new());
        note(&lines, "pbx".into(), &RegistrationState::Trying);
        note(
            &lines,
            "pbx".into(),
            &RegistrationState::Registered { expires_s: 300 },
        );
        note(&lines, "trunk".into(), &RegistrationState::Trying);
        let states: Vec<LineState> = seen.borrow().iter().map(|line| line.state).collect();
        assert_eq!(states, [LineState::Registered, LineState::Trying]);
        assert_eq!(seen.borrow()[0].text, "registered for 300 s");
    }
}
