//! What `sync` and `run` share: where the token comes from, and starting the engine.

use super::attach::plain_http;
use crate::database::Database;
use crate::{Exit, Failure, logging, words};
use std::path::{Path, PathBuf};
use syncline::{
    Builder, ConfigFile, ConfiguredToken, Error, Recording, StoreError, Syncline, TokenCommand,
    TokenSource,
};
use syncline_protocol::TraceParent;
use syncline_store::status;

/// The variable that holds the token.
const TOKEN_VARIABLE: &str = "SYNCLINE_TOKEN";

/// The variable that names the trace that the requests belong to.
const TRACE_VARIABLE: &str = "TRACEPARENT";

/// Whether a trace is kept, and where.
#[derive(Debug, Clone, Default, clap::Args)]
pub(crate) struct Record {
    /// Keep a trace of everything that happens in this file, for `syncline replay`; values are hidden
    #[arg(long, value_name = "FILE")]
    record: Option<PathBuf>,
    /// Show the values of rows in the trace
    #[arg(long, requires = "record")]
    record_values: bool,
}

impl Record {
    /// Tells the engine to be.
    pub(crate) fn apply(&self, builder: Builder) -> Builder {
        let Some(path) = &self.record else {
            return builder;
        };
        let recording = Recording::new(path);
        builder.record(match self.record_values {
            true => recording.showing_values(),
            false => recording,
        })
    }
}

/// How the remote is reached.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Connection {
    /// Read the token from this file, also when it changes; it goes before the environment
    /// variable SYNCLINE_TOKEN
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// Take the token from what this command prints, and run it again when the server refuses that;
    /// no shell is involved, but quotes keep words together
    #[arg(long, value_name = "COMMAND", conflicts_with = "token_file", value_parser = token_command)]
    token_command: Option<TokenCommand>,
    /// Take token and numbers from this file; flags go before it
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Allow plain http to another machine: token and data travel unprotected
    #[arg(long)]
    allow_plain_http: bool,
}

impl Connection {
    /// Where the token comes from, if the command line or the environment says so.
    fn token(&self) -> Option<TokenSource> {
        if let Some(path) = &self.token_file {
            return Some(TokenSource::File(path.clone()));
        }
        if let Some(command) = &self.token_command {
            return Some(TokenSource::Command(command.clone()));
        }
        // What is not Unicode is no token either, and is refused as one.
        let token = std::env::var_os(TOKEN_VARIABLE).filter(|token| !token.is_empty());
        token.map(|token| TokenSource::Static(token.to_string_lossy().trim().to_owned()))
    }

    /// The configuration file, without its types: attaching is done by `attach`.
    pub(crate) fn config(&self) -> Result<Option<ConfigFile>, Failure> {
        let Some(path) = &self.config else {
            return Ok(None);
        };
        let mut config = ConfigFile::read(path).map_err(Error::from)?;
        config.types.clear();
        Ok(Some(config))
    }

    /// The file that the token comes from, if it comes from one.
    pub(crate) fn token_path(&self) -> Result<Option<PathBuf>, Failure> {
        Ok(match (self.token(), self.config()?) {
            (Some(TokenSource::File(path)), _) => Some(path),
            (None, Some(config)) => match config.token {
                Some(ConfiguredToken::File(path)) => Some(path),
                _ => None,
            },
            _ => None,
        })
    }

    /// An engine to be, with everything that was said about reaching the remote.
    pub(crate) fn builder(&self, path: &Path) -> Result<Builder, Failure> {
        Ok(self.reaching(Syncline::builder(path), self.config()?))
    }

    /// The same, with what the file says of the types.
    pub(crate) fn builder_with_types(&self, path: &Path) -> Result<Builder, Failure> {
        let config = self.config.as_ref().map(ConfigFile::read);
        let config = config.transpose().map_err(Error::from)?;
        Ok(self.reaching(Syncline::builder(path), config))
    }

    fn reaching(&self, mut builder: Builder, config: Option<ConfigFile>) -> Builder {
        if let Some(config) = config {
            builder = builder.with_config(config);
        }
        if let Some(token) = self.token() {
            builder = builder.token(token);
        }
        if self.allow_plain_http {
            builder = builder.plain_http(plain_http(true));
        }
        // A program that starts the command can make what it does part of a trace of its own.
        let given = std::env::var(TRACE_VARIABLE).ok();
        if let Some(trace) = given.and_then(|given| TraceParent::parse(&given)) {
            builder = builder.trace_context(move || Some(trace.with_span(getrandom::u64().ok()?)));
        }
        builder.log_values(logging::shows_values())
    }

    /// Starts an engine on an attached database, with what else is said of it.
    pub(crate) fn start(
        &self,
        database: &Database,
        more: impl FnOnce(Builder) -> Builder,
    ) -> Result<Syncline, Failure> {
        // Read-only first: a file of a newer version, or one not attached, is left as it is.
        let status = status::read(&database.read()?, crate::database::now())?;
        let url = self.config()?.and_then(|config| config.url);
        if let (Some(url), Some(attached)) = (url, status.remote)
            && url != attached
        {
            return Err(StoreError::AttachedElsewhere(attached).into());
        }
        Ok(more(self.builder(&database.path)?).open()?)
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
