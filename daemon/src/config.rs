//! Configuration: one TOML file, every key checked at start, unknown keys refused.
//!
//! Order: defaults, then the file. An error names file, key and what would be accepted.

mod sip;
mod storage;

use std::{
    fs, io,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
};

use attendant_dialog::{Guardrails, Persona, Phrases};
use attendant_models::catalog::Profile;
use attendant_turn::TurnConfig;
use serde::Deserialize;

pub use sip::{AccountSection, CodecName, PeerSection, SipSection, SipTransport, Srtp};
pub use storage::{RecordingSection, StorageSection};

use crate::after_call::AfterCallSection;
use crate::api::WebhookSection;
use crate::fallback::Fallback;
use crate::menu::{MenuSection, With};
use crate::transfer::{KeySection, TransferSection};

/// The commented default, as `attendant config default` prints it.
pub const COMMENTED_DEFAULT: &str = include_str!("../config/attendant.toml");
/// Where the daemon looks without `--config`.
pub const SYSTEM_PATH: &str = "/etc/attendant/attendant.toml";

/// Why a configuration is refused.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read: wrong path or rights.
    #[error("cannot read the configuration {path}: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Not TOML, an unknown key, a value of the wrong kind: the message has line and column.
    #[error("{path}: {message}")]
    Syntax {
        /// The file.
        path: PathBuf,
        /// The parser's message.
        message: String,
    },
    /// A value that makes no sense.
    #[error("{path}: [{section}] {message}")]
    Value {
        /// The file.
        path: PathBuf,
        /// Section of the key.
        section: &'static str,
        /// What is wrong and what would be accepted.
        message: String,
    },
}

/// The whole configuration.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Models; `None` chooses from cores and memory.
    pub profile: Option<String>,
    /// Database and caches; `None` is the default place.
    pub data_dir: Option<PathBuf>,
    /// Language of the callers, ISO 639-1.
    pub language: Option<String>,
    /// Facts of the house.
    pub business: Persona,
    /// Stock phrases.
    pub phrases: Phrases,
    /// What does not reach the model, and what of its words is not spoken.
    pub guardrails: Guardrails,
    /// Telephone lines by SIP.
    pub sip: SipSection,
    /// Whom callers can be put through to.
    pub transfer: TransferSection,
    /// What single keys do.
    pub keys: Vec<KeySection>,
    /// What is said of the keys.
    pub menu: MenuSection,
    /// What callers get when the box cannot serve.
    pub fallback: Fallback,
    /// Turn-taking.
    pub turn: TurnConfig,
    /// What is done to the callers' sound.
    pub audio: Audio,
    /// Bounds.
    pub limits: Limits,
    /// Recordings of calls.
    pub recording: RecordingSection,
    /// What is done with a call after its end.
    pub after_call: AfterCallSection,
    /// Care of the record.
    pub storage: StorageSection,
    /// Local pages.
    pub admin: Admin,
    /// For other programs.
    pub api: ApiSection,
    /// For looking closely.
    pub debug: Debug,
}

/// `[audio]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Audio {
    /// Take our own voice out of what comes back from the line.
    pub echo_cancelling: bool,
}

impl Default for Audio {
    fn default() -> Self {
        Self {
            echo_cancelling: true,
        }
    }
}

/// `[limits]`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// Calls at once; `None`: 2 per core.
    pub calls: Option<usize>,
    /// Memory of one engine [MiB].
    pub engine_memory_mb: Option<u64>,
}

/// `[debug]`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Debug {
    /// Each call's turn-taking is written here, without words or digits; `attendant replay` runs it again.
    pub traces: Option<PathBuf>,
}

/// `[admin]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Admin {
    /// Address of the local pages.
    pub listen: SocketAddr,
}

impl Default for Admin {
    fn default() -> Self {
        Self {
            listen: SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 8080),
        }
    }
}

/// `[api]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ApiSection {
    /// Whether there is one, on the address of the local pages.
    pub enabled: bool,
    /// Requests a minute of one token; of one address four times as many.
    pub requests_per_minute: u32,
    /// Requests a minute of one address that has no token in force.
    pub refused_per_minute: u32,
    /// Sessions of other programs at once.
    pub max_sessions: u32,
    /// Systems that are told what happens.
    pub webhook: Vec<WebhookSection>,
}

impl Default for ApiSection {
    fn default() -> Self {
        Self {
            enabled: true,
            requests_per_minute: 1_200,
            refused_per_minute: 60,
            max_sessions: 256,
            webhook: Vec::new(),
        }
    }
}

impl Config {
    /// Reads `path`, or the system's file if it exists, or the defaults.
    ///
    /// # Errors
    /// [`ConfigError`] with file, key and what would be accepted.
    pub fn load(path: Option<&Path>) -> Result<Self, ConfigError> {
        let path = match path {
            Some(path) => path.to_owned(),
            None if Path::new(SYSTEM_PATH).exists() => PathBuf::from(SYSTEM_PATH),
            None => return Ok(Self::default()),
        };
        let text = fs::read_to_string(&path).map_err(|source| ConfigError::Read {
            path: path.clone(),
            source,
        })?;
        Self::parse(&text, &path)
    }

    /// Parses and checks; `path` is for messages and for relative password files.
    ///
    /// # Errors
    /// [`ConfigError`] with file, key and what would be accepted.
    pub fn parse(text: &str, path: &Path) -> Result<Self, ConfigError> {
        let mut config: Self = toml::from_str(text).map_err(|e| ConfigError::Syntax {
            path: path.to_owned(),
            message: e.to_string(),
        })?;
        config.check(path)?;
        Ok(config)
    }

    fn check(&mut self, path: &Path) -> Result<(), ConfigError> {
        let bad = |section, message: String| {
            Err(ConfigError::Value {
                path: path.to_owned(),
                section,
                message,
            })
        };
        if let Some(profile) = &self.profile
            && profile.parse::<Profile>().is_err()
        {
            return bad(
                "profile",
                format!("'{profile}' is none; accepted: small, standard, custom"),
            );
        }
        if let Err(message) = self.turn.check() {
            return bad("turn", message);
        }
        if let Err(error) = self.business.check() {
            return bad("business", error.to_string());
        }
        if let Err(error) = self.phrases.check() {
            return bad("phrases", error.to_string());
        }
        if let Err(error) = self.guardrails.check() {
            return bad("guardrails", error.to_string());
        }
        if let Err(message) = self.transfer.check(&self.keys) {
            return bad("transfer", message);
        }
        if let Err(message) = self.menu.check() {
            return bad("menu", message);
        }
        if let Err(message) = self.fallback.check() {
            return bad("fallback", message);
        }
        let (first, last) = self.sip.rtp_ports;
        if first < 1024 || first % 2 == 1 || last <= first {
            return bad(
                "sip",
                format!(
                    "rtp_ports [{first}, {last}]: want an even first port from 1024, then a higher last one"
                ),
            );
        }
        let sip = &self.sip;
        if sip.udp.is_none() && sip.tcp.is_none() && sip.tls.is_none() {
            return bad(
                "sip",
                "neither udp nor tcp nor tls is set: no call could arrive".into(),
            );
        }
        if sip.tls.is_some() && (sip.tls_cert.is_none() || sip.tls_key.is_none()) {
            return bad("sip", "tls needs tls_cert and tls_key: files in PEM form".into());
        }
        if self.sip.codecs.is_empty() {
            return bad(
                "sip",
                "codecs is empty: name at least one of opus, g722, pcmu, pcma".into(),
            );
        }
        if self.limits.calls.is_some_and(|n| n == 0 || n > 64) {
            return bad("limits", "calls must be 1 to 64".into());
        }
        if self.recording.announce.chars().count() > 300 {
            return bad("recording", "announce must be at most 300 characters".into());
        }
        if self.recording.keep_days == Some(0) || self.recording.max_call_mb == 0 {
            return bad("recording", "keep_days and max_call_mb must be at least 1".into());
        }
        if self.storage.max_database_mb.is_some_and(|most| most < 64) {
            return bad("storage", "max_database_mb must be at least 64".into());
        }
        if self.storage.backup_every_h == 0 || self.storage.backup_keep == 0 {
            return bad(
                "storage",
                "backup_every_h and backup_keep must be at least 1".into(),
            );
        }
        if self.storage.archive_after_days == Some(0) {
            return bad("storage", "archive_after_days must be at least 1".into());
        }
        if let Err(message) = self.after_call.check() {
            return bad("after_call", message);
        }
        let api = &mut self.api;
        if api.requests_per_minute == 0 || api.refused_per_minute == 0 || api.max_sessions == 0 {
            return bad(
                "api",
                "requests_per_minute, refused_per_minute and max_sessions must be at least 1".into(),
            );
        }
        if api.webhook.len() > 16 {
            return bad("api", "at most 16 [[api.webhook]]".into());
        }
        for hook in &mut api.webhook {
            if let Err(message) = hook.check(path.parent().unwrap_or(Path::new(""))) {
                return bad("api", message);
            }
        }
        for account in &mut self.sip.account {
            if let Some(file) = &account.password_file {
                let file = path.parent().unwrap_or(Path::new("")).join(file);
                let text = fs::read_to_string(&file).map_err(|source| ConfigError::Read {
                    path: file.clone(),
                    source,
                })?;
                account.password = Some(text.lines().next().unwrap_or_default().to_owned());
            }
            if account.password.is_none() {
                return bad(
                    "sip.account",
                    format!(
                        "account '{}' has neither password nor password_file",
                        account.name
                    ),
                );
            }
            if !(30..=86_400).contains(&account.expires_s) {
                return bad(
                    "sip.account",
                    format!("account '{}': expires_s must be 30 to 86400", account.name),
                );
            }
        }
        Ok(())
    }

    /// The stock phrases as they are spoken: names put in, before the greeting that the call is recorded, behind some the
    /// keys.
    #[must_use]
    pub fn phrases_spoken(&self) -> Phrases {
        let mut phrases = self.phrases.filled(&self.business);
        let announce = self.recording.announce.trim();
        if self.recording.enabled && !announce.is_empty() {
            phrases.greeting = format!("{announce} {}", phrases.greeting);
        }
        if let Some(menu) = self.menu.said(&self.keys, &self.transfer) {
            for with in &self.menu.with {
                let phrase = match with {
                    With::Greeting => &mut phrases.greeting,
                    With::Unclear => &mut phrases.unclear,
                    With::StillThere => &mut phrases.still_there,
                };
                *phrase = format!("{phrase} {menu}");
            }
        }
        phrases
    }

    /// Where database and caches live.
    #[must_use]
    pub fn data_dir(&self) -> PathBuf {
        self.data_dir.clone().unwrap_or_else(default_data_dir)
    }

    /// The models' profile: as configured, else by this machine's cores and memory.
    #[must_use]
    pub fn profile(&self) -> Profile {
        self.profile
            .as_deref()
            .and_then(|p| p.parse().ok())
            .unwrap_or_else(|| Profile::recommended(cores() as usize, memory_mb()))
    }

    /// Calls answered at once.
    #[must_use]
    pub fn max_calls(&self) -> usize {
        self.limits
            .calls
            .unwrap_or_else(|| (cores() as usize * 2).clamp(1, 16))
    }

    /// Language of the callers.
    #[must_use]
    pub fn language(&self) -> &str {
        self.language.as_deref().unwrap_or("en")
    }
}

fn default_data_dir() -> PathBuf {
    if let Some(state) = std::env::var_os("STATE_DIRECTORY") {
        return PathBuf::from(state);
    }
    let home = std::env::var_os("HOME").map_or_else(|| PathBuf::from("/var/lib"), PathBuf::from);
    std::env::var_os("XDG_DATA_HOME")
        .map_or_else(|| home.join(".local/share"), PathBuf::from)
        .join("attendant")
}

/// Cores this process may use.
#[must_use]
pub fn cores() -> u32 {
    std::thread::available_parallelism().map_or(1, |n| n.get() as u32)
}

/// Memory of this machine [MiB]; 0 when the system does not tell.
#[must_use]
pub fn memory_mb() -> u64 {
    let meminfo = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let line = meminfo.lines().find_map(|l| l.strip_prefix("MemTotal:"));
    line.and_then(|l| l.split_whitespace().next())
        .and_then(|kb| kb.parse::<u64>().ok())
        .map_or(0, |kb| kb / 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Config, String> {
        Config::parse(text, Path::new("test.toml")).map_err(|e| e.to_string())
    }

    #[test]
    fn the_commented_default_is_valid_with_and_without_its_comments() {
        parse(COMMENTED_DEFAULT).unwrap();
        let uncommented: String = COMMENTED_DEFAULT
            .lines()
            .map(|l| match l.strip_prefix("# ") {
                Some(rest)
                    if rest.starts_with('[')
                        || rest.split_once(" = ").is_some_and(|(k, _)| !k.contains(' ')) =>
                {
                    rest
                }
                _ => l,
            })
            .filter(|l| !l.starts_with("greeting"))
            .map(|l| format!("{l}\n"))
            .collect();
        let config = parse(&uncommented).unwrap();
        assert_eq!(config.sip.account.len(), 1);
        assert_eq!((config.transfer.target.len(), config.keys.len()), (1, 1));
        assert_eq!(
            config.turn,
            TurnConfig::default(),
            "the comments tell the true defaults"
        );
        assert_eq!(config.guardrails, Guardrails::default());
    }

    #[test]
    fn recordings_are_announced_only_while_they_are_made() {
        let greeting = |text: &str| parse(text).unwrap().phrases_spoken().greeting;
        let plain = greeting("");
        assert!(!plain.contains("recorded"));
        assert_eq!(
            greeting("[recording]\nenabled = true"),
            format!("This call is recorded. {plain}")
        );
        assert_eq!(greeting("[recording]\nenabled = true\nannounce = ''"), plain);
    }

    #[test]
    fn the_menu_goes_with_the_phrases_it_is_meant_for() {
        let keys = "[[keys]]\ndigit = '9'\naction = 'repeat'\n";
        let spoken = |text: &str| parse(&format!("{keys}{text}")).unwrap().phrases_spoken();
        let menu = " Or press 9 to hear my last words again.";
        let plain = parse("").unwrap().phrases_spoken();
        let by_default = spoken("");
        assert_eq!(by_default.unclear, format!("{}{menu}", plain.unclear));
        assert_eq!(by_default.greeting, plain.greeting);
        let always = spoken("[menu]\nwith = ['greeting', 'still_there']");
        assert_eq!(always.unclear, plain.unclear);
        assert_eq!(always.greeting, format!("{}{menu}", plain.greeting));
        assert_eq!(always.still_there, format!("{}{menu}", plain.still_there));
    }

    #[test]
    fn errors_name_the_key_and_what_would_be_accepted() {
        for (text, wants) in [
            ("profil = 'small'", vec!["test.toml", "profil", "expected one of"]),
            ("[turn]\npauses = 3", vec!["pauses", "expected one of"]),
            ("profile = 'large'", vec!["large", "small, standard, custom"]),
            ("[sip]\nrtp_ports = [16385, 16400]", vec!["rtp_ports", "even"]),
            ("[turn]\npause_ms = 900", vec!["pause_ms", "hangover_short_ms"]),
            (
                "[[sip.account]]\nname='a'\nregistrar='h'\nusername='u'",
                vec!["password_file"],
            ),
            ("[limits]\ncalls = 0", vec!["1 to 64"]),
            ("[sip]\ntls = '0.0.0.0:5061'", vec!["tls_cert", "tls_key"]),
            (
                "[[transfer.target]]\nname='office'\nuri='200'",
                vec!["[transfer]", "office", "sip:"],
            ),
            (
                "[[keys]]\ndigit='1'\naction='transfer'\ntarget='office'",
                vec!["key '1'", "no [[transfer.target]]"],
            ),
            (
                "[fallback]\naction = 'redirect'",
                vec!["[fallback]", "needs a uri"],
            ),
            ("[fallback]\naction = 'ignore'", vec!["ignore", "redirect"]),
            ("[transfer]\nmachine = 'maybe'", vec!["maybe", "through"]),
            ("[menu]\nwith = ['goodbye']", vec!["goodbye", "still_there"]),
            ("[menu]\nread_back = 'Right?'", vec!["[menu]", "{digits}"]),
            (
                "[guardrails]\noff = ['everything']",
                vec!["everything", "injection", "refusal"],
            ),
            ("[guardrails]\ninputs = true", vec!["inputs", "expected one of"]),
            (
                "[guardrails]\ndeclined = ''",
                vec!["[guardrails]", "declined", "empty"],
            ),
            (
                "[guardrails]\nidentity = 'I am {name}.'",
                vec!["[guardrails]", "identity", "{business}"],
            ),
            ("[[keys]]\ndigit='1'\naction='dance'", vec!["dance", "repeat"]),
            ("[recording]\nkeep_days = 0", vec!["keep_days", "at least 1"]),
            ("[recording]\nkeep = 5", vec!["keep", "expected one of"]),
            (
                "[storage]\nmax_database_mb = 5",
                vec!["max_database_mb", "at least 64"],
            ),
            ("[storage]\nbackup_keep = 0", vec!["backup_keep", "at least 1"]),
            (
                "[storage]\narchive_after_days = 0",
                vec!["archive_after_days", "at least 1"],
            ),
            (
                "[after_call]\nfinal_transcript = 'maybe'",
                vec!["maybe", "never", "unclear", "always"],
            ),
            ("[after_call]\nmax_attempts = 0", vec!["[after_call]", "1 to 20"]),
            (
                "[after_call]\nmax_waiting = 1",
                vec!["[after_call]", "10 to 100000"],
            ),
            ("[after_call]\nredact = true", vec!["redact", "expected one of"]),
            ("[sip]\nudp = 'everywhere'", vec!["udp"]),
            ("[sip]\ncodecs = ['g729']", vec!["g729", "opus", "pcma"]),
            ("[sip]\ncodecs = []", vec!["codecs", "g722"]),
            (
                "[[sip.peer]]\nname='a'\naddress='10.0.0.1'\nsrtp='maybe'",
                vec!["maybe", "required"],
            ),
        ] {
            let error = parse(text).unwrap_err();
            for want in wants {
                assert!(error.contains(want), "{text}: {error}");
            }
        }
    }
}
