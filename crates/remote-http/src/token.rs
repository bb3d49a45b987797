//! Where the bearer token comes from, how it is kept, and how it is renewed after a refusal.
//!
//! A token is loaded on first use and then only when it was refused; a file is looked at before each
//! request, so that another token in it is taken up at once. However many requests are
//! refused at once, the source is asked once: whoever waited for a renewal shares its outcome,
//! and whoever was refused with a token that has been replaced meanwhile asks nothing at all.

use crate::token_command::TokenCommand;
use http::header::HeaderValue;
use std::fmt;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::sync::{Mutex, OwnedMutexGuard};

/// Longer than any token, shorter than what a server takes for its headers.
const MAX_TOKEN_BYTES: usize = 16 << 10;

/// Texts shorter than this are no secrets, and taking them out would maul every message.
const MIN_SECRET_BYTES: usize = 6;

/// Gives the token, or the reason why there is none (for the user, without secrets). It may
/// block; it is called on a thread for such work, first when a request needs a token, then after
/// each refusal.
pub type TokenCallback = Arc<dyn Fn() -> Result<String, String> + Send + Sync>;

/// Where the bearer token comes from. Its `Debug` output never shows a token.
#[derive(Clone, Default)]
#[non_exhaustive]
pub enum TokenSource {
    /// No `Authorization` header at all.
    #[default]
    None,
    /// This one, for ever.
    Static(String),
    /// The content of this file, without white space around it; read again before each request. A
    /// file that cannot be read, or holds no token, leaves the token that was read before in use.
    File(PathBuf),
    /// What this program prints; run again after a refusal.
    Command(TokenCommand),
    /// What this returns; called again after a refusal.
    Callback(TokenCallback),
}

impl fmt::Debug for TokenSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => f.write_str("None"),
            Self::Static(_) => f.write_str("Static(…)"),
            Self::File(path) => f.debug_tuple("File").field(path).finish(),
            Self::Command(command) => command.fmt(f),
            Self::Callback(_) => f.write_str("Callback(…)"),
        }
    }
}

/// A token fit to be sent.
#[derive(Clone)]
pub(crate) struct Bearer {
    token: String,
    header: HeaderValue,
    /// Counts the tokens this process has seen.
    generation: u64,
}

impl Bearer {
    fn new(token: &str, generation: u64) -> Result<Self, String> {
        if token.is_empty() {
            return Err("it is empty".to_owned());
        }
        if token.len() > MAX_TOKEN_BYTES {
            return Err(format!("it is longer than {MAX_TOKEN_BYTES} bytes"));
        }
        let visible = token.bytes().all(|byte| byte.is_ascii_graphic());
        let header = HeaderValue::try_from(format!("Bearer {token}")).ok();
        let (true, Some(mut header)) = (visible, header) else {
            return Err("it contains white space or characters beyond visible ASCII".to_owned());
        };
        header.set_sensitive(true);
        Ok(Self {
            token: token.to_owned(),
            header,
            generation,
        })
    }

    pub(crate) fn header(&self) -> HeaderValue {
        self.header.clone()
    }

    /// Takes the token out of a text that a server or a callback may have put it in.
    pub(crate) fn redact(&self, text: &str) -> String {
        if self.token.len() < MIN_SECRET_BYTES {
            return text.to_owned();
        }
        text.replace(&self.token, "[token]")
    }
}

/// The source, and what came from it last.
pub(crate) struct Credentials {
    source: TokenSource,
    held: Arc<Mutex<Held>>,
    /// How many renewals have ended.
    renewals: Arc<AtomicU64>,
}

struct Held {
    bearer: Option<Bearer>,
    /// The newest generation that a server refused.
    refused: u64,
    /// How the last renewal ended.
    outcome: Result<(), String>,
}

impl Credentials {
    /// Checks a static token; asks no other source yet.
    pub(crate) fn new(source: TokenSource) -> Result<Self, String> {
        let bearer = match &source {
            TokenSource::Static(token) => Some(Bearer::new(token, 1)?),
            _ => None,
        };
        let held = Held {
            bearer,
            refused: 0,
            outcome: Ok(()),
        };
        Ok(Self {
            source,
            held: Arc::new(Mutex::new(held)),
            renewals: Arc::default(),
        })
    }

    /// The token to send, if one is to be sent at all; an error when it cannot be had.
    pub(crate) async fn current(&self) -> Result<Option<Bearer>, String> {
        if matches!(self.source, TokenSource::None) {
            return Ok(None);
        }
        let held = Arc::clone(&self.held).lock_owned().await;
        match (&held.bearer, &self.source) {
            (Some(bearer), TokenSource::File(path)) => {
                let bearer = bearer.clone();
                Ok(Some(reread(held, path.clone()).await.unwrap_or(bearer)))
            }
            (Some(bearer), _) => Ok(Some(bearer.clone())),
            (None, _) => self.load(held).await.map(Some),
        }
    }

    /// Notes that a server refused this token.
    pub(crate) async fn refuse(&self, bearer: &Bearer) {
        let mut held = self.held.lock().await;
        held.refused = held.refused.max(bearer.generation);
    }

    /// Gets another token than the one that was refused, or says why that is not possible.
    pub(crate) async fn renew(&self) -> Result<(), String> {
        match self.source {
            TokenSource::None => {
                return Err("the server wants a token and none is configured".to_owned());
            }
            TokenSource::Static(_) => {
                return Err("the token was refused; configure another one".to_owned());
            }
            TokenSource::File(_) | TokenSource::Command(_) | TokenSource::Callback(_) => {}
        }
        let seen = self.renewals.load(Ordering::Acquire);
        let held = Arc::clone(&self.held).lock_owned().await;
        if self.renewals.load(Ordering::Acquire) != seen {
            return held.outcome.clone();
        }
        let before = held.bearer.as_ref().map(|bearer| bearer.generation);
        if before.is_some_and(|now| held.refused != 0 && held.refused < now) {
            return Ok(());
        }
        match self.load(held).await {
            Ok(bearer) if Some(bearer.generation) == before => Err(self.unchanged()),
            other => other.map(drop),
        }
    }

    fn unchanged(&self) -> String {
        match &self.source {
            TokenSource::File(path) => format!(
                "the token was refused, and {} still holds the same one",
                path.display()
            ),
            TokenSource::Command(_) => {
                "the token was refused, and its command still prints the same one".to_owned()
            }
            _ => "the token was refused, and its callback still returns the same one".to_owned(),
        }
    }

    /// Asks the source on a thread for blocking work and keeps what it says, even if the caller
    /// gives up meanwhile: the lock goes along.
    async fn load(&self, mut held: OwnedMutexGuard<Held>) -> Result<Bearer, String> {
        let source = self.source.clone();
        let renewals = Arc::clone(&self.renewals);
        let unchanged = self.unchanged();
        let work = tokio::task::spawn_blocking(move || {
            let result = source
                .ask()
                .and_then(|token| held.keep(&token))
                .map_err(|reason| held.redact(reason));
            let before = held.bearer.as_ref().map(|bearer| bearer.generation);
            held.outcome = match &result {
                Err(reason) => Err(reason.clone()),
                Ok(bearer) if Some(bearer.generation) == before => Err(unchanged),
                Ok(_) => Ok(()),
            };
            if let Ok(bearer) = &result {
                held.bearer = Some(bearer.clone());
            }
            renewals.fetch_add(1, Ordering::Release);
            result
        });
        work.await
            .unwrap_or_else(|_| Err("the token's source broke down while asked".to_owned()))
    }
}

/// Takes over what the file holds now; `None` when that is no token.
async fn reread(mut held: OwnedMutexGuard<Held>, path: PathBuf) -> Option<Bearer> {
    let work = tokio::task::spawn_blocking(move || {
        let bearer = read_file(&path).and_then(|token| held.keep(&token)).ok()?;
        held.bearer = Some(bearer.clone());
        Some(bearer)
    });
    work.await.ok().flatten()
}

impl Held {
    fn redact(&self, text: String) -> String {
        match &self.bearer {
            Some(bearer) => bearer.redact(&text),
            None => text,
        }
    }

    /// The bearer for this token: the one that is held if it is the same.
    fn keep(&self, token: &str) -> Result<Bearer, String> {
        match &self.bearer {
            Some(bearer) if bearer.token == token => Ok(bearer.clone()),
            held => {
                let generation = held.as_ref().map_or(0, |bearer| bearer.generation) + 1;
                Bearer::new(token, generation)
                    .map_err(|reason| format!("the token cannot be used: {reason}"))
            }
        }
    }
}

impl TokenSource {
    fn ask(&self) -> Result<String, String> {
        match self {
            Self::None => Err("no token is configured".to_owned()),
            Self::Static(token) => Ok(token.clone()),
            Self::File(path) => read_file(path),
            Self::Command(command) => {
                command.run(u64::try_from(MAX_TOKEN_BYTES).unwrap_or(u64::MAX) + 2)
            }
            Self::Callback(callback) => callback().map(|token| token.trim().to_owned()),
        }
    }
}

fn read_file(path: &Path) -> Result<String, String> {
    let mut text = String::new();
    let most = u64::try_from(MAX_TOKEN_BYTES).unwrap_or(u64::MAX);
    std::fs::File::open(path)
        .and_then(|file| file.take(most + 2).read_to_string(&mut text))
        .map_err(|error| format!("the token file {} cannot be read: {error}", path.display()))?;
    Ok(text.trim().to_owned())
}
