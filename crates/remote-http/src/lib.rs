//! Syncline's native protocol over HTTP: a [`syncline_core::Remote`] on top of an [`HttpTransport`], which is
//! `reqwest` unless the host brings its own.
//!
//! This crate turns each request into traffic and each answer, however odd, into one of the
//! buckets of [`syncline_core::RemoteError`]. It decides nothing beyond that: when to retry and
//! what to do about a bucket is the state machine's business. What it must never do:
//!
//! - believe an answer that does not carry the protocol's marks (the `syncline-protocol` header,
//!   the echo of our request id, the right content type): captive portals and proxies speak HTTP
//!   too, and what they say is *unreachable*, whatever their status;
//! - follow a redirect, or speak plain `http` beyond this machine unless told to;
//! - wait or read without a bound (a live stream may last, but not fall silent or flood);
//! - let a token into an error, a log line or a `Debug` output, or a row's values into a log line;
//! - change a byte of a frozen mutation.
//!
//! ```no_run
//! use syncline_remote_http::{HttpRemote, TokenSource};
//!
//! # fn main() -> Result<(), syncline_remote_http::HttpRemoteError> {
//! let remote = HttpRemote::builder("https://sync.example.org")
//!     .token(TokenSource::File("/run/secrets/syncline-token".into()))
//!     .build()?;
//! # Ok(())
//! # }
//! ```

mod answer;
mod body;
mod builder;
mod digest;
mod error;
mod events;
mod followed;
#[doc(hidden)]
pub mod fuzzing;
mod listen;
mod marks;
mod meter;
mod page;
mod remote;
mod request;
#[cfg(feature = "reqwest")]
mod reqwest_transport;
mod retry_after;
mod text;
mod token;
mod token_command;
mod transport;

pub use builder::{HttpRemoteBuilder, PlainHttp};
pub use digest::DigestOf;
pub use error::HttpRemoteError;
pub use meter::describe_metrics;
pub use remote::HttpRemote;
pub use token::{TokenCallback, TokenSource};
pub use token_command::TokenCommand;
pub use transport::{HttpBody, HttpFault, HttpFuture, HttpRequest, HttpResponse, HttpTransport};
