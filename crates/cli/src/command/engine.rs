//! What `sync` and `run` share: where the token comes from, and starting the engine.

use super::attach::plain_http;
use crate::database::Database;
use crate::{Exit, Failure, words};
use std::path::PathBuf;
use syncline::{Syncline, TokenCommand, TokenSource};
use syncline_store::status;

/// The variable that holds the token.
const TOKEN_VARIABLE: &str = "SYNCLINE_TOKEN";

/// How the remote is reached.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Connection {
    /// Read the token from this file, also when it changes; it goes before the environment
    /// variable SYNCLINE_TOKEN
    #[arg(long, value_name = "FILE")]
    pub(crate) token_file: Option<PathBuf>,
    /// Take the token from what this command prints, and run it again when the server refuses that;
    /// no shell is involved, but quotes keep words together
    #[arg(long, value_name = "COMMAND", conflicts_with = "token_file", value_parser = token_command)]
    token_command: Option<TokenCommand>,
    /// Allow plain http to another machine: token and data travel unprotected
    #[arg(long)]
    allow_plain_http: bool,
}

impl Connection {
    fn token(&self) -> TokenSource {
        if let Some(path) = &self.token_file {
            return TokenSource::File(path.clone());
        }
        if let Some(command) = &self.token_command {
            return TokenSource::Command(command.clone());
        }
        // What is not Unicode is no token either, and is refused as one.
        match std::env::var_os(TOKEN_VARIABLE) {
            Some(token) if !token.is_empty() => {
                TokenSource::Static(token.to_string_lossy().trim().to_owned())
            }
            _ => TokenSource::None,
        }
    }

    /// Starts an engine on an attached database.
    pub(crate) fn start(&self, database: &Database) -> Result<Syncline, Failure> {
        // Read-only first: a file of a newer version, or one not attached, is left as it is.
        status::read(&database.read()?, crate::database::now())?;
        Ok(Syncline::builder(&database.path)
            .token(self.token())
            .plain_http(plain_http(self.allow_plain_http))
            .open()?)
    }
}

fn token_command(line: &str) -> Result<TokenCommand, String> {
    let mut words = words::split(line)?.into_iter();
    let program = words.next().unwrap_or_default();
    Ok(TokenCommand::new(program, words))
}

/// Credentials are needed.
pub(crate) fn credentials_needed(detail: &str) -> Failure {
    let detail = match detail {
        "" => "the server wants other credentials",
        detail => detail,
    };
    Failure::new("credentials-needed", detail)
        .exit(Exit::CredentialsNeeded)
        .hint("set SYNCLINE_TOKEN to what `syncline token` printed, or use --token-file or --token-command; local work is kept")
}
