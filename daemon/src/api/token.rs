//! Token: the commands that make, list and revoke what programs come in with.

use std::process::ExitCode;

use anyhow::{Context, bail, ensure};
use attendant_store::{ApiRole, NewToken, Store};
use clap::{Subcommand, ValueEnum};

use super::access::{TOKEN_MARK, token_hash};
use crate::{audit::DataDir, clock};

/// What a program may do.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum Role {
    /// Everything.
    Admin,
    /// Watch calls, read them, hear recordings.
    Supervisor,
    /// Read calls, recordings and the audit chain.
    Auditor,
    /// Drive sessions: an integration.
    #[value(alias = "integration")]
    Agent,
}

impl From<Role> for ApiRole {
    fn from(role: Role) -> Self {
        match role {
            Role::Admin => Self::Admin,
            Role::Supervisor => Self::Supervisor,
            Role::Auditor => Self::Auditor,
            Role::Agent => Self::Agent,
        }
    }
}

/// `attendant token …`.
#[derive(Debug, Subcommand)]
pub enum TokenCommand {
    /// Make a token; it is printed once and kept nowhere.
    Create {
        /// Which record.
        #[command(flatten)]
        dir: DataDir,
        /// What it may do.
        #[arg(long, value_enum)]
        role: Role,
        /// Bind it to the sessions that it begins itself.
        #[arg(long)]
        own: bool,
        /// Bind it to cases that begin so, too; implies --own.
        #[arg(long)]
        case_prefix: Option<String>,
        /// For people; unique.
        name: String,
    },
    /// List the tokens.
    List {
        /// Which record.
        #[command(flatten)]
        dir: DataDir,
    },
    /// Take a token out of force, at once.
    Revoke {
        /// Which record.
        #[command(flatten)]
        dir: DataDir,
        /// Its name.
        name: String,
    },
}

/// Does it, beside a running daemon or without one.
///
/// # Errors
/// In one sentence for people.
pub fn run(command: TokenCommand) -> anyhow::Result<ExitCode> {
    match command {
        TokenCommand::Create {
            dir,
            role,
            own,
            case_prefix,
            name,
        } => {
            if let Some(prefix) = &case_prefix {
                let length = prefix.chars().count();
                ensure!(
                    (1..=100).contains(&length),
                    "--case-prefix must be 1 to 100 characters"
                );
            }
            let store = open(&dir)?;
            let token = secret();
            let new = NewToken {
                name,
                role: role.into(),
                own: own || case_prefix.is_some(),
                case_prefix,
            };
            store.create_token(&new, &token_hash(&token), clock::unix_ms())?;
            println!("{token}");
            eprintln!(
                "Keep it now: it is not shown again. Programs send it as 'Authorization: Bearer TOKEN'."
            );
        }
        TokenCommand::List { dir } => {
            for token in open(&dir)?.tokens()? {
                let bound = match (&token.case_prefix, token.own) {
                    (Some(prefix), _) => format!("own sessions and cases '{prefix}…'"),
                    (None, true) => "own sessions".to_owned(),
                    (None, false) => "all".to_owned(),
                };
                let force = if token.revoked_at_ms.is_some() {
                    "revoked"
                } else {
                    "in force"
                };
                println!("{}  {}  {bound}  {force}", token.name, token.role.as_str());
            }
        }
        TokenCommand::Revoke { dir, name } => {
            if !open(&dir)?.revoke_token(&name, clock::unix_ms())? {
                bail!("no token of this name is in force; `attendant token list` shows them");
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn open(dir: &DataDir) -> anyhow::Result<Store> {
    let path = dir.path()?;
    Store::join(&path).with_context(|| format!("the record in {} cannot be opened", path.display()))
}

/// 32 random octets in hexadecimal.
fn secret() -> String {
    let octets: [u8; 32] = rand::random();
    let digits: String = octets.iter().map(|octet| format!("{octet:02x}")).collect();
    format!("{TOKEN_MARK}{digits}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_tokens_are_alike() {
        let (a, b) = (secret(), secret());
        assert_ne!(a, b);
        assert_eq!(a.len(), TOKEN_MARK.len() + 64);
        assert_ne!(token_hash(&a), token_hash(&b));
    }
}
